"""Models on the Hugging Face hub, as they lie in the local cache: `owner/name`, or `owner/name@revision` for a commit, tag or branch."""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path

from analysis.cli import BadInput

FILES = ["*.json", "*.safetensors", "*.txt", "*.model", "*.jinja"]
"""What a model is made of here: nothing that would be unpickled, and no code."""
NOT_FILES = ["*/*.safetensors", "onnx/*", "openvino/*"]
"""Copies of the weights in other forms."""
TOKENIZERS = ["tokenizer.json", "vocab.json", "vocab.txt", "*.model"]
"""Of which a model has one at least."""


def split(name: str) -> tuple[str, str | None]:
    """The repository and the revision, if any, of a model's name."""
    repository, _, revision = name.partition("@")
    return repository, revision or None


def cache() -> Path:
    """Where models are kept: as HF_HUB_CACHE or HF_HOME say; without them under BLOCKWISE_SCRATCH; without it in the home."""
    scratch = os.environ.get("BLOCKWISE_SCRATCH")
    if scratch and not ({"HF_HUB_CACHE", "HF_HOME"} & set(os.environ)):
        return Path(scratch).expanduser() / "huggingface" / "hub"
    from huggingface_hub.constants import HF_HUB_CACHE

    return Path(HF_HUB_CACHE).expanduser()


def cached(name: str, where: str) -> Path:
    """The folder of a model in the cache; nothing is downloaded. Raises BadInput, beginning with `where`, for what is not there whole."""
    import huggingface_hub
    from huggingface_hub.errors import HFValidationError

    repository, revision = split(name)
    with contextlib.suppress(HFValidationError, OSError):
        folder = Path(
            huggingface_hub.snapshot_download(
                repository, revision=revision, cache_dir=cache(), allow_patterns=FILES, ignore_patterns=NOT_FILES, local_files_only=True
            )
        )
        if whole(folder):
            return folder
    raise BadInput(
        f"{where}: {name!r} is neither a folder nor a whole model in {cache()}; name another, or fetch it where there is a network: "
        "snakemake fetch_models, or python -m rag.fetch --config FILE"
    )


def whole(folder: Path) -> bool:
    """Whether a folder has a configuration, a tokenizer and weights, of which an index names the parts; the hub's library does not look."""
    index = folder / "model.safetensors.index.json"
    try:
        weights = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
    except FileNotFoundError:
        weights = {"model.safetensors"}
    except (ValueError, LookupError, TypeError, AttributeError):  # cut off
        return False
    tokenizers = [path for pattern in TOKENIZERS for path in folder.glob(pattern)]
    return all((folder / name).is_file() for name in ("config.json", *weights)) and any(path.is_file() for path in tokenizers)


def commit(folder: Path) -> str | None:
    """The commit of a model in the cache; None for any other folder."""
    return folder.name if folder.parent.name == "snapshots" else None
