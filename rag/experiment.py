"""Measure a RAG experiment: every arm under every offered load, one row a request.

Points that the journal has already are not measured again; a kill loses at most the point being measured.
"""

from __future__ import annotations

import argparse
import contextlib
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from tqdm import tqdm

from analysis.cli import BadInput, run
from analysis.records import Journal
from kernels.device import Device, find
from rag import cache, config, corpus, models, rows
from rag.ceiling import ceiling
from rag.config import Experiment
from rag.kept import Kept
from rag.launch import environment, launched, reachable, tail
from rag.measure import Bench, check, idle, measure, name_of, summary
from rag.points import Point, Series, plan
from rag.questions import questions
from rag.senders import enough, senders


def main() -> int:
    arguments = _parser().parse_args()
    experiment = config.read(arguments.config, arguments.name)
    device = find(arguments.device)
    texts = corpus.build(experiment.settings["corpus"], experiment.seed, f"{experiment.where}.corpus")
    every = plan(experiment, texts, device)
    check(experiment)
    kept = Kept(arguments.journal, experiment.settings["slo_ms"])
    with Journal(arguments.journal) as journal:
        if arguments.start:
            rows.take_over(arguments.start, every, kept, journal)
        missing = [series for series in every if kept.progress(series, arguments.attempt).next]
        failed = []
        if missing:
            _embed(experiment, texts, arguments)
            with _bench(experiment, texts, device) as bench:
                failed = _measure(experiment, missing, bench, kept, journal, arguments)
    headers = rows.write(experiment, every, kept, arguments.out)
    for line in [*rows.invalid(headers), *rows.nothing_found(every, kept), *failed]:
        print(line, file=sys.stderr)
    print(f"{arguments.out}: {len(headers)} points")
    return 1 if failed else 0


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


@contextlib.contextmanager
def _bench(experiment: Experiment, texts: corpus.Corpus, device: Device) -> Iterator[Bench]:
    asked = questions(texts, experiment.settings["questions"], experiment.seed, f"{experiment.where}.corpus")
    with senders(enough()) as processes:
        streams = {load["stream"] for load in experiment.settings["loads"].values()}
        ceilings = {stream: ceiling(processes, stream=stream) for stream in streams}
        yield Bench(processes, ceilings, asked, device)


def _measure(
    experiment: Experiment, every: Sequence[Series], bench: Bench, kept: Kept, journal: Journal, arguments: argparse.Namespace
) -> list[str]:
    """Measure what is missing of `every`, arm by arm, each point written to the journal before the next one starts.

    Return a line for each arm whose service does not start; the other arms are measured.
    """
    failed = []
    with tqdm(desc=experiment.name, unit=" points") as bar:
        for arm in dict.fromkeys(series.arm for series in every):
            upcoming = _upcoming([series for series in every if series.arm == arm], kept, arguments.attempt)
            log = arguments.out.parent / "logs" / f"{experiment.name}.{arm.replace(' ', '.')}.log"
            words = [*_same(arguments), "--arm", arm, "--instances", str(experiment.arm(arm)["instances"])]
            try:
                for point, url in _served(upcoming, words, log):
                    bar.set_postfix_str(name_of(point))
                    record = measure(experiment, point, bench, url)
                    if not reachable(url):
                        record |= {"valid": False, "invalid": f"the service ended: {tail(log, 3)}", "restarts": record["restarts"] + 1}
                    record |= {"attempt": arguments.attempt, "trial": kept.trials(point.id, arguments.attempt) + 1}
                    journal.append(record)
                    kept.add(record)
                    bar.write(summary(point, record), file=sys.stderr)
                    bar.update()
            except RuntimeError as error:
                failed.append(f"{arm}: {error}")
    return failed


def _upcoming(every: Sequence[Series], kept: Kept, attempt: int) -> Iterator[Point]:
    """What is to be measured next, time and again as records are kept, until nothing is."""
    for series in every:
        while point := kept.progress(series, attempt).next:
            yield point


def _served(upcoming: Iterator[Point], arguments: Sequence[str], log: Path) -> Iterator[tuple[Point, str]]:
    """Each point with the address of an idle service: a new one where an overload has left the last one busy, or it has ended."""
    point = next(upcoming, None)
    while point:
        with launched(arguments, log) as url:
            yield point, url
            while (point := next(upcoming, None)) and idle(url):
                yield point, url


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
