"""The models that the configs name for RAG: are they on this machine? Compute nodes may have no network to fetch them."""

from __future__ import annotations

import os
from collections.abc import Generator
from pathlib import Path

from analysis.cli import BadInput
from cluster.doctor.finding import Finding
from cluster.doctor.storage import ROOT

CONFIGS = ("config/paper.yaml", "config/smoke.yaml")


def present(configs: tuple[str, ...] = CONFIGS, root: Path = ROOT) -> Generator[Finding, None, list[Path]]:
    """Returns the folders of the models that are here. A config that cannot be read is a note."""
    os.environ["HF_HUB_OFFLINE"] = "1"  # read when the hub's library is imported: nothing is downloaded by looking
    try:
        from rag.models import locate
    except ImportError as error:
        yield Finding("note", f"RAG models not checked: {error}", "make setup")
        return []
    wanted: dict[str, str] = {}
    for name in configs:
        try:
            wanted = _named(root / name, name) | wanted
        except (BadInput, ImportError) as error:
            remedy = "correct the config, if it is to be used" if isinstance(error, BadInput) else "make setup"
            yield Finding("note", f"RAG models of {name} not checked: {error}", remedy)
    found = []
    for model, where in wanted.items():
        try:
            folder = locate(model, where)
            if not any(folder.glob("*.safetensors")):
                raise BadInput(f"{where}: no safetensors weights in {folder}")
        except (BadInput, ImportError) as error:
            fetch = "make setup" if model == "minilm" else "snakemake fetch_models, where there is a network, or correct the name"
            yield Finding("fail", f"RAG model is not here: {error}", fetch)
        else:
            found.append(folder)
            yield Finding("ok", f"RAG model {model} ({where}): {folder}")
    return found


def _named(path: Path, shown: str) -> dict[str, str]:
    """The models that a config's RAG experiments need, each with the key that names it; minilm's tokenizer serves random weights."""
    from analysis.config import load
    from rag.config import read
    from rag.models import named

    found: dict[str, str] = {}
    experiments = load(path).get("rag") or {}
    if not isinstance(experiments, dict):
        raise BadInput(f"rag is {experiments!r}; it must be a mapping of experiments")
    for name in experiments:
        settings = read(path, name).settings
        for part, model in named(settings).items():
            found.setdefault(model, f"{shown}: rag.{name}.{part}")
    return found
