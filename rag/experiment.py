"""Measure a RAG experiment: every arm under every offered load, one row a request.

Points that the journal has already are not measured again; a kill loses at most the point being measured.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from tqdm import tqdm

from analysis.cli import BadInput, run
from analysis.records import Journal
from kernels.device import Device, find
from rag import cache, config, corpus, models, rows
from rag.config import Experiment
from rag.launch import environment, launched
from rag.measure import arrivals, idle, measure, summary
from rag.points import Point, plan
from rag.questions import questions


def main() -> None:
    arguments = _parser().parse_args()
    experiment = config.read(arguments.config, arguments.name)
    device = find(arguments.device)
    texts = corpus.build(experiment.settings["corpus"], experiment.seed, f"{experiment.where}.corpus")
    points = plan(experiment, texts, device)
    for point in points:
        arrivals(experiment, point)
    with Journal(arguments.journal) as journal:
        if arguments.start:
            rows.take_over(arguments.start, points, journal)
        have = rows.measured(arguments.journal)
        missing = [point for point in points if (point.id, arguments.attempt) not in have]
        if missing:
            _embed(experiment, texts, arguments)
            _measure(experiment, missing, texts, device, arguments, journal)
    number = rows.write(experiment, points, arguments.journal, arguments.out)
    print(f"{arguments.out}: {number} requests of {len(points)} points")


def _embed(experiment: Experiment, texts: corpus.Corpus, arguments: argparse.Namespace) -> None:
    """Embed the corpus in a process of its own, whose memory is free again when the services start, unless it is cached."""
    embedder = experiment.settings["embedder"]
    if cache.path(embedder, models.encoder_folder(embedder, f"{experiment.where}.embedder"), texts).is_file():
        return
    command = [sys.executable, "-m", "rag.prepare", *_same(arguments)]
    done = subprocess.run(command, env=environment(), stdout=subprocess.DEVNULL)
    if done.returncode:
        raise BadInput(f"{experiment.where}: the corpus could not be embedded (see above)")


def _same(arguments: argparse.Namespace) -> list[str]:
    """The arguments that a process for this experiment shares with this one."""
    device = {"auto": "auto", "cpu": "cpu"}.get(arguments.device, "cuda")
    return ["--config", str(arguments.config), "--name", arguments.name, "--device", device]


def _measure(
    experiment: Experiment, points: Sequence[Point], texts: corpus.Corpus, device: Device, arguments: argparse.Namespace, journal: Journal
) -> None:
    """Measure `points` arm by arm, each written to the journal before the next one starts."""
    asked = questions(texts, experiment.settings["questions"], experiment.seed, f"{experiment.where}.corpus")
    with tqdm(total=len(points), desc=experiment.name, unit=" points") as bar:
        for arm in dict.fromkeys(point.arm for point in points):
            log = arguments.out.parent / "logs" / f"{experiment.name}.{arm}.log"
            pending = [point for point in points if point.arm == arm]
            for url in _services(pending, [*_same(arguments), "--arm", arm], log):
                point = pending.pop(0)
                bar.set_postfix_str(f"{arm} at {point.rate:g}/s")
                record = measure(experiment, point, arguments.attempt, url, asked, device)
                journal.append(record)
                bar.write(summary(record), file=sys.stderr)
                bar.update()


def _services(pending: Sequence[Point], arguments: Sequence[str], log: Path) -> Iterator[str]:
    """The address of an idle service, as long as points are pending: a new one where an overload has left the last one busy."""
    while pending:
        with launched(arguments, log) as url:
            yield url
            while pending and idle(url):
                yield url


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m rag.experiment", description=__doc__)
    parser.add_argument("--config", type=Path, required=True, help="a config with a block rag, such as results/smoke/config.yaml")
    parser.add_argument("--name", required=True, help="which experiment of that block")
    parser.add_argument("--out", type=Path, required=True, help="the Parquet file to write, such as results/smoke/rag/batching.parquet")
    parser.add_argument("--journal", type=Path, required=True, help="the folder of what is measured, such as …/rag/journal/batching")
    parser.add_argument("--device", default="auto", help="cpu, cuda, or auto: a GPU if there is one (default)")
    parser.add_argument("--attempt", type=_attempt, default=1, help="2, 3, …: measure every point once more, beside the earlier attempts")
    parser.add_argument("--from", dest="start", type=Path, metavar="PARQUET", help="take over unchanged points from another run")
    return parser


def _attempt(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1")
    return int(text)


if __name__ == "__main__":
    run(main)
