"""`python -m cluster.testbed up | status | down`: a real Slurm to try on, on this machine."""

from __future__ import annotations

import argparse
import os
import subprocess
from pathlib import Path

from analysis.cli import BadInput, run
from cluster.testbed import daemons

DEFAULT = Path("/tmp/blockwise-slurm")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m cluster.testbed", description=__doc__)
    parser.add_argument("action", choices=["up", "status", "down"], help="start it, show its nodes and queue, or end it and remove all")
    parser.add_argument("--state", type=Path, default=DEFAULT, help=f"folder for everything it writes (default {DEFAULT})")
    arguments = parser.parse_args()
    state = arguments.state.absolute()
    {"up": up, "status": status, "down": down}[arguments.action](state)


def up(state: Path) -> None:
    daemons.up(state)
    print("# Slurm runs. In every shell that is to use it:")
    for name, value in daemons.environment(state).items():
        print(f"export {name}={value}")


def status(state: Path) -> None:
    alive = daemons.running(state)
    if not alive:
        raise BadInput(f"no testbed runs in {state}; start it: python -m cluster.testbed up --state {state}")
    print("\n".join(f"{name:14s} pid {pid}" for name, pid in alive.items()))
    for command in (["sinfo", "--Node", "--format=%N %P %T %G %c cores"], ["squeue"]):
        subprocess.run(command, env=os.environ | daemons.environment(state), check=False)


def down(state: Path) -> None:
    ended = daemons.down(state)
    print(f"ended: {', '.join(ended)}" if ended else f"nothing ran in {state}")


if __name__ == "__main__":
    run(main)
