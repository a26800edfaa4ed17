"""Convert a model to the form that ServerlessLLM loads: `python -m rag.serverlessllm.convert --model FOLDER --name NAME --store STORE`."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from analysis.cli import BadInput, run
from analysis.environment import ROOT
from rag import models
from rag.serverlessllm import environment
from rag.serverlessllm.driver import SHIMS

DTYPES = ("float16", "bfloat16", "float32")
_ROOM = 1.1
_RANDOM = ("architecture", "hidden", "layers", "heads", "prompt_tokens", "new_tokens")


def convert(home: Path, store: Path, name: str, asked: Mapping[str, Any], stand_in: bool) -> Path:
    """The folder STORE/transformers/NAME, with the model that `asked` describes to `rag.serverlessllm.save`.

    It is written under another name and renamed when it is whole. Raises BadInput where it exists, or where the model cannot be read.
    """
    python = environment.programs(home) / "python"
    folder = (store / "transformers" / name).absolute()
    if folder.exists():
        raise BadInput(f"--name {name}: {folder} exists; remove it, or take another name")
    partial = folder.with_name(f".{folder.name}.{os.getpid()}")
    partial.parent.mkdir(parents=True, exist_ok=True)
    _check_space(asked, partial.parent)
    try:
        _save(python, {**asked, "out": str(partial)}, stand_in)
        (partial / "blockwise.json").write_text(
            json.dumps({"weights": "random" if "settings" in asked else "pretrained", **asked}, indent=1)
        )
        partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return folder


def _check_space(asked: Mapping[str, Any], there: Path) -> None:
    """A converted model takes what its weights take; what one with random weights takes is not known before it is drawn."""
    needed = _ROOM * sum(file.stat().st_size for file in Path(asked["model"]).glob("*.safetensors")) if "model" in asked else 0
    free = shutil.disk_usage(there).free
    if free < needed:
        raise BadInput(
            f"--store {there}: {free / 1e9:.1f} GB are free and {needed / 1e9:.1f} GB are needed; name one on a bigger file system"
        )


def _save(python: Path, asked: Mapping[str, Any], stand_in: bool) -> None:
    paths = [str(ROOT), *([str(SHIMS)] if stand_in else [])]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "HF_HUB_OFFLINE": "1"}
    env |= {"BLOCKWISE_STAND_IN": "none"} if stand_in else {}
    command = [str(python), "-m", "rag.serverlessllm.save"]
    done = subprocess.run(command, input=json.dumps(dict(asked)), env=env, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    if done.returncode:
        said = [line for line in done.stderr.splitlines() if line.strip()] or ["no reason given"]
        what = asked.get("model") or asked["settings"]["architecture"]
        raise BadInput(f"{what}: it could not be converted ({said[-1].strip()[:300]})")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m rag.serverlessllm.convert", description=__doc__)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--model", help="a folder with a Hugging Face model in safetensors, or a name in the local cache")
    source.add_argument(
        "--architecture", help="one of rag.shapes (opt-125m, qwen2.5-1.5b, or opt with the sizes below), with random weights"
    )
    parser.add_argument("--name", required=True, help="what it is called when it is deployed")
    parser.add_argument(
        "--store", type=Path, required=True, help="the store's folder, which every node must see; the model goes to STORE/transformers/NAME"
    )
    parser.add_argument(
        "--environment", type=Path, default=environment.default(), help="ServerlessLLM's environment (default: %(default)s)"
    )
    parser.add_argument("--stand-in", action="store_true", help="in the form of the stand-in store, for machines without a GPU")
    parser.add_argument("--dtype", choices=DTYPES, default="float16")
    parser.add_argument("--model-class", default="AutoModelForCausalLM", help="transformers' class (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of random weights")
    for size, default in (("hidden", 64), ("layers", 2), ("heads", 4), ("prompt_tokens", 512), ("new_tokens", 128)):
        parser.add_argument(f"--{size.replace('_', '-')}", type=int, default=default, help=f"of --architecture (default: {default})")
    arguments = parser.parse_args()
    print(convert(arguments.environment, arguments.store, arguments.name, _asked(arguments), arguments.stand_in))


def _asked(arguments: argparse.Namespace) -> dict[str, Any]:
    if arguments.model:
        folder = str(models.locate(arguments.model, "--model").absolute())
        return {"model": folder, "model_class": arguments.model_class, "tokenizer": folder, "dtype": arguments.dtype}
    tokenizer = str(models.locate("minilm", "--architecture"))
    settings = {name: getattr(arguments, name) for name in _RANDOM}
    return {"settings": settings, "seed": arguments.seed, "tokenizer": tokenizer, "dtype": arguments.dtype}


if __name__ == "__main__":
    run(main)
