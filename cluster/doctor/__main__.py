"""Is this installation ready? One line a check, and what to do about each that fails. Exit status 1 if something required is broken.

Under Slurm a short GPU job looks at the node that it gets: driver, libraries, shared folders.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator

from analysis.cli import run
from cluster.doctor import software
from cluster.doctor.finding import Finding


def examine(options: argparse.Namespace) -> Iterator[Finding]:
    """Every finding; those that need a library only where it is installed."""
    yield from software.python()
    yield from software.snakemake()
    yield from software.tex()
    try:
        from cluster.doctor import checks
    except ImportError as error:
        yield Finding("fail", f"the rest cannot be checked: {error}", "make setup")
        return
    yield from checks.examine(options)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m cluster.doctor", description=__doc__)
    jobs = parser.add_mutually_exclusive_group()
    jobs.add_argument("--gpu", metavar="MODEL", help='send the job to this model of partitions.yaml, or to "gpu", any (default: the first)')
    jobs.add_argument("--all", action="store_true", help="send a job to each GPU model that this Slurm has")
    jobs.add_argument("--no-job", action="store_true", help="send no job: nothing is said of the GPU nodes")
    parser.add_argument(
        "--wait", type=float, default=120, metavar="SECONDS", help="cancel a job that has not started by then (default 120)"
    )
    options = parser.parse_args()
    broken = False
    for finding in examine(options):
        print(finding, flush=True)
        broken |= finding.level == "fail"
    return 1 if broken else 0


if __name__ == "__main__":
    run(main)
