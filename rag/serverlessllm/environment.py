"""ServerlessLLM's own Python environment, whose pins differ from the project's: `python -m rag.serverlessllm.environment --out DIR`."""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from analysis.cli import BadInput, run
from analysis.environment import ROOT
from rag import cache

VERSION = "0.8.0"
STORE = f"serverless-llm-store=={VERSION}"
BUILD = "run `snakemake serverlessllm_environment`"

_MARK = "blockwise.lock"
_IMPORT_S = 300.0  # from a cold network file system
_TORCH_INDEX = "https://download.pytorch.org/whl/cpu"


@dataclass(frozen=True)
class Variant:
    """What an environment is built from: its lock, the Python it needs ("": this one), and the bytes that building takes."""

    lock: Path
    python: str
    bytes: int


VARIANTS = {
    "cpu": Variant(ROOT / "locks" / "serverlessllm.txt", "", 2_500_000_000),
    "cuda": Variant(ROOT / "locks" / "serverlessllm-cuda.txt", "3.10", 9_000_000_000),
}
"""`cpu` (1.7 GB stay) has only the client of the store, for its stand-in; `cuda` (5.8 GB) has the store, whose wheel needs Python 3.10."""


def default(variant: str = "cpu") -> Path:
    """Where an environment stands unless a folder is named."""
    return cache.folder("environments") / f"serverlessllm-{variant}"


def digest(variant: str = "cpu") -> str:
    """What an environment is built from, as the first 16 hex digits of a sha256."""
    its = VARIANTS[variant]
    python = its.python or f"{sys.version_info[0]}.{sys.version_info[1]}"
    return hashlib.sha256(f"{STORE}\n{python}\n{its.lock.read_text(encoding='utf-8')}".encode()).hexdigest()[:16]


def programs(folder: Path) -> Path:
    """The folder of the environment's programs. Raises BadInput where it is not built, or was built from another lock.

    An environment that somebody else made (with `ray` and `sllm` in its bin/) is taken as it is.
    """
    mark, bin_ = folder / _MARK, folder / "bin"
    if missing := [name for name in ("python", "ray", "sllm") if not (bin_ / name).is_file()]:
        raise BadInput(f"{folder}: ServerlessLLM's environment is not built (no {', '.join(missing)} in {bin_}); {BUILD}")
    if mark.is_file() and mark.read_text() not in map(digest, VARIANTS):
        raise BadInput(f"{folder}: ServerlessLLM's environment was built from another lock, or not to its end; {BUILD}")
    return bin_.absolute()


def check_store(bin_: Path) -> None:
    """BadInput where the real store's extension does not load: it is missing, or was built for another torch or Python."""
    command = [str(bin_ / "python"), "-c", "import sllm_store.server, sllm_store.transformers"]
    try:
        done = subprocess.run(command, env={**os.environ, "PYTHONPATH": ""}, capture_output=True, text=True, timeout=_IMPORT_S)
        said = done.stderr.strip().splitlines()[-1:] if done.returncode else None
    except subprocess.TimeoutExpired:
        said = [f"not within {_IMPORT_S:g} s"]
    if said is not None:
        why = said[0] if said else "no reason given"
        raise BadInput(
            f"{bin_.parent}: sllm_store does not load ({why}); take an environment of variant cuda,"
            f" build {STORE} for the torch of this one, or take the stand-in store"
        )


def build(folder: Path, variant: str = "cpu", python: str = "") -> bool:
    """Build the environment; False where it stands already, built from the same lock. Raises BadInput where it cannot be built.

    `python` is the interpreter to build it with, by default the one that the variant needs. The mark that holds the lock's digest is
    written last, so that what an interrupted build left is built anew.
    """
    mark = folder / _MARK
    if mark.is_file() and mark.read_text() == digest(variant):
        return False
    if folder.exists() and any(folder.iterdir()) and not mark.is_file():
        raise BadInput(f"--out {folder}: this folder holds something else; name one that is empty or does not exist")
    _check_space(folder, VARIANTS[variant].bytes)
    interpreter = _interpreter(variant, python)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    mark.write_text("unfinished")
    _do(interpreter, "-m", "venv", str(folder))
    inside = str(folder / "bin" / "python")
    index = _torch_index() if variant == "cpu" else []
    _do(inside, "-m", "pip", "install", "--no-deps", *index, "--requirement", str(VARIANTS[variant].lock))
    if variant == "cpu":
        _add_client_of_the_store(inside)
    mark.write_text(digest(variant))
    return True


def _add_client_of_the_store(python: str) -> None:
    """The store's wheel, which is for another Python and for CUDA: its modules in Python work, its extensions are not loaded."""
    asked = [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]
    site = subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip()
    foreign = ["--python-version=3.10", "--implementation=cp", "--platform=manylinux1_x86_64", "--only-binary=:all:"]
    _do(python, "-m", "pip", "install", "--no-deps", f"--target={site}", *foreign, STORE)


def _interpreter(variant: str, given: str) -> str:
    """The Python to build with. BadInput where it is missing, or of another version than the variant needs."""
    needed = VARIANTS[variant].python
    wanted = given or (f"python{needed}" if needed else sys.executable)
    found = shutil.which(wanted)
    if found is None:
        raise BadInput(
            f"--python {wanted}: not found; variant {variant} needs Python {needed or '3.11 to 3.13'}: install it, or name its path"
        )
    asked = [found, "-c", "import sys; print('%d.%d' % sys.version_info[:2])"]
    version = subprocess.run(asked, capture_output=True, text=True).stdout.strip()
    if needed and version != needed:
        raise BadInput(f"--python {wanted}: it is Python {version or 'of no version'}; variant {variant} needs Python {needed}")
    return found


def _check_space(folder: Path, needed: int) -> None:
    there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    free = shutil.disk_usage(there).free
    if free < needed:
        raise BadInput(
            f"--out {folder}: {free / 1e9:.1f} GB are free and {needed / 1e9:.1f} GB are needed;"
            " make room, name another folder, or set BLOCKWISE_SCRATCH to one on a bigger file system"
        )


def _torch_index() -> list[str]:
    """PyTorch's own index, which has the CPU build, where it answers; PyPI's build for Linux takes several GB more."""
    try:
        urllib.request.urlopen(f"{_TORCH_INDEX}/torch/", timeout=3).close()
    except OSError:
        return []
    return ["--extra-index-url", _TORCH_INDEX]


def _do(*command: str) -> None:
    done = subprocess.run([*command, *(["--quiet"] if "pip" in command else [])], stdout=sys.stderr, stderr=subprocess.PIPE, text=True)
    if done.returncode:
        said = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or done.stderr.splitlines() or ["no reason given"]
        raise BadInput(f"ServerlessLLM's environment could not be built ({said[0].strip()}); where there is no network, build it elsewhere")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m rag.serverlessllm.environment", description=__doc__)
    parser.add_argument(
        "--variant", choices=VARIANTS, default="cpu", help="with the store's stand-in or with the real store (default: cpu)"
    )
    parser.add_argument("--out", type=Path, help="its folder (default: one under BLOCKWISE_SCRATCH); kept where its lock is the same")
    parser.add_argument("--python", default="", help="the Python to build it with (default: this one; python3.10 for cuda)")
    arguments = parser.parse_args()
    folder = arguments.out or default(arguments.variant)
    print(f"{folder}: {'built' if build(folder, arguments.variant, arguments.python) else 'stands already'}")


if __name__ == "__main__":
    run(main)
