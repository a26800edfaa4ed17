"""Fetch the models that a config's RAG experiments name, where there is a network: `python -m rag.fetch --config config/paper.yaml`.

Sizes are told and compared with the free space first. Given again after an interruption, it goes on where it was.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from analysis.cli import BadInput, run
from analysis.config import load
from rag import config, hub, models


@dataclass(frozen=True)
class File:
    """A file of a model on the hub. `sha256` is known of large ones."""

    name: str
    size: int
    sha256: str | None


@dataclass(frozen=True)
class Model:
    """A model on the hub at a commit, and the files of it that are taken."""

    name: str
    commit: str
    files: tuple[File, ...]

    @property
    def folder(self) -> Path:
        return hub.cache() / ("models--" + hub.split(self.name)[0].replace("/", "--"))

    def part(self, file: File) -> Path:
        """Where a large file grows until it is whole."""
        return self.folder / "blobs" / f"{file.sha256}.part"

    @property
    def missing(self) -> int:
        """Bytes that are still to be fetched."""
        here = self.folder / "snapshots" / self.commit
        wanted = [
            file for file in self.files if not (here / file.name).exists() and not (self.folder / "blobs" / str(file.sha256)).exists()
        ]
        return sum(file.size - (self.part(file).stat().st_size if self.part(file).exists() else 0) for file in wanted)


def wanted(path: Path) -> dict[str, str]:
    """The models that a config's experiments name, minilm among them, each with the key that names it."""
    experiments = load(path).get("rag") or {}
    if not isinstance(experiments, dict):
        raise BadInput(f"{path}: rag is {experiments!r}; it must be a mapping of experiments")
    found: dict[str, str] = {}
    for name in experiments:
        experiment = config.read(path, name)
        for part, model in models.named(experiment.settings).items():
            found.setdefault(model, f"{experiment.where}.{part}")
    return found


def look_up(name: str, where: str) -> Model:
    """What the hub says of a model. Raises BadInput, beginning with `where`, for one that is not to be had or has no safetensors."""
    import huggingface_hub
    from huggingface_hub.utils import filter_repo_objects

    repository, revision = hub.split(name)
    with clear(name, where):
        info = huggingface_hub.HfApi().model_info(repository, revision=revision, files_metadata=True)
    files = [File(each.rfilename, each.size or 0, each.lfs.sha256 if each.lfs else None) for each in info.siblings or []]
    files = list(filter_repo_objects(files, allow_patterns=hub.FILES, ignore_patterns=hub.NOT_FILES, key=lambda file: file.name))
    if not any(file.name.endswith(".safetensors") for file in files):
        raise BadInput(f"{where}: {name!r} has no safetensors weights on the hub; name a model that has")
    if odd := next((file for file in files if file.sha256 and not re.fullmatch("[0-9a-f]{64}", file.sha256)), None):  # it names a file
        raise BadInput(f"{where}: {odd.name} of {name!r} has the sha256 {odd.sha256!r} on the hub, not 64 hex digits; name another model")
    assert info.sha is not None
    return Model(name, info.sha, tuple(files))


def fetch(model: Model, where: str) -> Path:
    """Fetch what is missing of `model` into the cache, and return its folder. Raises BadInput for what could not be fetched."""
    import huggingface_hub

    repository, revision = hub.split(model.name)
    with clear(model.name, where):
        for file in model.files:
            if file.sha256:
                _large(model, file, where)
        return Path(
            huggingface_hub.snapshot_download(
                repository, revision=revision, cache_dir=hub.cache(), allow_patterns=hub.FILES, ignore_patterns=hub.NOT_FILES
            )
        )


def _large(model: Model, file: File, where: str) -> None:
    """Put a large file where the hub's own library looks for it; that library begins such a file anew after an interruption.

    Another process that fetches it too is waited for.
    """
    from huggingface_hub.utils import WeakFileLock

    part, lock = model.part(file), hub.cache() / ".locks" / model.folder.name / f"{file.sha256}.lock"  # that library's own lock
    for path in (part, lock):
        path.parent.mkdir(parents=True, exist_ok=True)
    with WeakFileLock(lock):
        if not part.with_suffix("").exists():
            _grow(model, file, where)


def _grow(model: Model, file: File, where: str) -> None:
    """Fetch what is missing of a large file; whole, it loses its ending."""
    from huggingface_hub import hf_hub_url
    from huggingface_hub.file_download import http_get
    from huggingface_hub.utils import build_hf_headers

    part = model.part(file)
    url = hf_hub_url(hub.split(model.name)[0], file.name, revision=model.commit)
    with part.open("ab") as out:
        have = out.tell()
        http_get(url, out, resume_size=have, headers=build_hf_headers(), expected_size=file.size, displayed_filename=file.name)
    with part.open("rb") as read:
        if hashlib.file_digest(read, "sha256").hexdigest() != file.sha256:
            part.unlink()
            raise BadInput(f"{where}: {file.name} of {model.name!r} did not come as it is on the hub; give the same command again")
    part.rename(part.with_suffix(""))


@contextlib.contextmanager
def clear(name: str, where: str) -> Iterator[None]:
    """Turns what may go wrong between here and the hub into BadInput, which says what to do."""
    from huggingface_hub import errors

    try:
        yield
    except errors.GatedRepoError:
        why = "its owners grant access on the hub's page of it; then log in with: hf auth login"
    except errors.RepositoryNotFoundError:
        why = "the hub has no such model, or it is private; correct the name, or log in with: hf auth login"
    except errors.RevisionNotFoundError:
        why = f"the hub has no such revision of {hub.split(name)[0]}; name a commit, tag or branch after the @"
    except errors.HFValidationError:
        why = "not a name that the hub has; write owner/name or owner/name@revision, or an existing folder"
    except errors.OfflineModeIsEnabled:
        why = "HF_HUB_OFFLINE is set; fetch with it unset, where there is a network"
    except errors.LocalEntryNotFoundError:
        why = "the connection to the hub broke; give the same command again, it goes on where it was"
    except errors.HfHubHTTPError as error:
        why = f"the hub answers {error.response.status_code if error.response is not None else 'with an error'}; try again later"
    except Exception as error:
        if not _of_the_network(error):
            raise
        broke = f"the hub cannot be reached, or the connection broke ({type(error).__name__})"
        why = f"{broke}; give the command again where there is a network, or name a folder, minilm or an architecture"
    else:
        return
    raise BadInput(f"{where}: {name!r}: {why}")


def _of_the_network(error: Exception) -> bool:
    """Whether an error is one of the connection, whichever library the hub's uses; that one's own for too few bytes has no number."""
    own = type(error).__module__.split(".")[0] in ("httpx", "httpx2", "httpcore", "requests", "urllib3")
    return own or isinstance(error, ConnectionError | TimeoutError) or (isinstance(error, OSError) and error.errno is None)


def check_room(needed: int, folder: Path) -> None:
    """Raise BadInput where the file system of `folder`, which need not exist yet, has less than `needed` bytes free."""
    there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    free = shutil.disk_usage(there).free
    if needed > free:
        room = f"needs {needed / 1e9:.1f} GB, {free / 1e9:.1f} GB free in {folder}"
        raise BadInput(f"{room}; make room, or set HF_HOME to a folder on another file system")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m rag.fetch", description=__doc__)
    parser.add_argument("--config", type=Path, required=True, help="a config with a block rag, such as config/paper.yaml")
    arguments = parser.parse_args()
    os.environ.setdefault("TQDM_POSITION", "-1")  # the hub's library shows progress to a log too
    names = {name: where for name, where in wanted(arguments.config).items() if name != "minilm" and not Path(name).is_dir()}
    found = [look_up(name, where) for name, where in names.items()]
    for model in found:
        size = sum(file.size for file in model.files)
        print(f"{hub.split(model.name)[0]}@{model.commit}: {size / 1e9:.2f} GB, {model.missing / 1e9:.2f} GB to fetch", flush=True)
    check_room(sum(model.missing for model in found), hub.cache())
    for model in found:
        print(fetch(model, names[model.name]), flush=True)
    if not found:
        print(f"{arguments.config}: names no model of the hub; nothing to fetch")


if __name__ == "__main__":
    run(main)
