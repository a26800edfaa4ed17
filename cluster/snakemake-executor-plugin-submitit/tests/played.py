"""Slurm's commands, played by small scripts: what they answer is a file each, what they were asked is in `calls`."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

COMMAND = """#!/bin/bash
cd {folder}
name=$(basename "$0")
echo "$name $*" >> calls
if [ -e "$name.error" ]; then cat "$name.error" >&2; exit 1; fi
if [ "$name" = sbatch ]; then
    count=$(sed -n 's/^#SBATCH --array=0-\\([0-9]*\\).*/\\1/p' "$1"); count=$((${{count:-0}} + 1))
    if [ -e room ] && [ "$count" -gt "$(cat room)" ]; then
        echo "sbatch: error: QOSMaxSubmitJobPerUserLimit" >&2
        echo "sbatch: error: Batch job submission failed: Job violates accounting/QOS policy (job submit limit)" >&2
        exit 1
    fi
    [ -e room ] && echo $(($(cat room) - count)) > room.next && mv room.next room
    number=$(($(cat number 2>/dev/null || echo 0) + 1)); echo $number > number
    echo "$count" >> arrays
    echo "Submitted batch job $number"
else
    [ -e "$name.out" ] && cat "$name.out"
fi
exit 0
"""
CLUSTER = "gpu*|1-00:00:00|gpu:a100:4|ampere\ncpu|02:00:00|(null)|(null)\n"


class Fake:
    """`answer` and `fail` set what a command prints from now on; `calls` are the command lines so far."""

    def __init__(self, folder: Path):
        self.folder = folder
        for name in ("sbatch", "squeue", "sacct", "scancel", "scontrol", "sinfo", "srun"):
            file = folder / "bin" / name
            file.parent.mkdir(exist_ok=True)
            file.write_text(COMMAND.format(folder=folder))
            file.chmod(0o755)
        self.answer("sinfo", CLUSTER)
        self.answer("scontrol", "MaxArraySize            = 3\n")

    def answer(self, name: str, text: str) -> None:
        (self.folder / f"{name}.error").unlink(missing_ok=True)
        (self.folder / f"{name}.out").write_text(text)

    def fail(self, name: str, text: str) -> None:
        (self.folder / f"{name}.error").write_text(text)

    def room(self, jobs: int) -> None:
        """How many more jobs the user may have in the queue."""
        (self.folder / "room").write_text(str(jobs))

    @property
    def calls(self) -> list[str]:
        file = self.folder / "calls"
        return file.read_text().splitlines() if file.exists() else []

    @property
    def arrays(self) -> list[int]:
        """Sizes of what sbatch accepted."""
        file = self.folder / "arrays"
        return [int(line) for line in file.read_text().split()] if file.exists() else []


def job(name: str = "sweep", output: str = "out", **resources: object) -> SimpleNamespace:
    """What the plugin looks at of a Snakemake job."""
    return SimpleNamespace(
        name=name, threads=1, resources=resources, is_group=lambda: False, output=[output], input=[], log=[], shellcmd="touch out",
        params="", wildcards_dict={}, rule=SimpleNamespace(name=name),
    )  # fmt: skip
