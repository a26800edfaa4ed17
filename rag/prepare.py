"""Embed an experiment's corpus into the cache before anything serves it: `python -m rag.prepare --config … --name …`."""

from __future__ import annotations

import argparse
from pathlib import Path

from analysis.cli import run
from rag import cache, config, corpus, models


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m rag.prepare", description=__doc__)
    parser.add_argument("--config", type=Path, required=True, help="a config with a block rag, such as config/smoke.yaml")
    parser.add_argument("--name", required=True, help="which experiment of that block")
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto", help="where the encoder runs; auto: a GPU, if any")
    arguments = parser.parse_args()
    experiment = config.read(arguments.config, arguments.name)
    settings = experiment.settings
    texts = corpus.build(settings["corpus"], experiment.seed, f"{experiment.where}.corpus")
    file = cache.path(settings["embedder"], models.encoder_folder(settings["embedder"], f"{experiment.where}.embedder"), texts)
    if not file.is_file():
        from rag.embed import Embedder

        embedder = Embedder(settings["embedder"], models.torch_device(arguments.device), f"{experiment.where}.embedder")
        cache.kept(file, lambda: embedder.passages([chunk.text for chunk in texts.chunks]))
    print(file)


if __name__ == "__main__":
    run(main)
