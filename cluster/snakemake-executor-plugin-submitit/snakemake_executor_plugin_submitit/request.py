"""What a Snakemake job asks for, and the same as parameters of submitit's Slurm executor."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from typing import Any

from snakemake_interface_common.exceptions import WorkflowError

DEFAULT_MINUTES = 60
_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*")


@dataclass(frozen=True)
class Request:
    """Equal requests may share a Slurm array. `gpus` are counted a node; None leaves the choice to the site."""

    name: str
    minutes: int
    cpus: int
    memory_mb: int | None = None
    gpus: int = 0
    gpu_model: str | None = None
    nodes: int = 1
    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    constraint: str | None = None
    extra: tuple[tuple[str, str | bool], ...] = ()

    def slurm(self, signal_delay_s: int, wckey: str = "", token: str = "") -> dict[str, Any]:
        """Parameters for `submitit.SlurmExecutor`. Raw Slurm names are used throughout, so None switches an option off.

        `token` goes into the job's comment, behind the user's own.
        """
        gres = f"gpu:{self.gpu_model}:{self.gpus}" if self.gpu_model else f"gpu:{self.gpus}"
        more: dict[str, str | int | bool] = {"requeue": True}  # a site's JobRequeue=0 would lose jobs at their time limit
        step = [f"--cpus-per-task={self.cpus}"]  # since Slurm 22.05 a step no longer inherits it from the job
        if self.nodes > 1:  # the command runs once, on the first node, and starts its own steps with `srun --overlap`
            more |= {"nodes": self.nodes, "ntasks-per-node": 1}
            step += ["-N1", "-n1"]
        more |= dict(self.extra)
        if "no-requeue" in more:  # sbatch takes the last of the two, and submitit sorts them
            del more["requeue"]
        if token:
            more["comment"] = f"{more.get('comment', '')} {token}".strip()
        return {
            "job_name": self.name,
            "time": self.minutes,
            "cpus_per_task": self.cpus,
            "mem": f"{self.memory_mb}M" if self.memory_mb else None,
            "gres": gres if self.gpus else None,
            "partition": self.partition,
            "account": self.account,
            "qos": self.qos,
            "constraint": self.constraint,
            "wckey": wckey or None,  # submitit sends wckey=submitit unless told otherwise; sites that track keys refuse it
            "signal_delay_s": self.signal_delay(signal_delay_s),
            "stderr_to_stdout": True,
            "srun_args": step,
            "additional_parameters": more,
        }

    def overruling(self) -> set[str]:
        """Variables that sbatch takes before the options of a script, of those that this request decides."""
        names = {"ARRAY_INX", "COMMENT", "ERROR", "JOB_NAME", "NO_REQUEUE", "OPEN_MODE", "OUTPUT", "REQUEUE", "SIGNAL", "TIMELIMIT"}
        names |= {"CPUS_PER_GPU", "EXCLUSIVE", "GPUS", "GPUS_PER_NODE", "GPUS_PER_TASK", "GRES", "WCKEY"}
        given = dict.fromkeys(("MEM_PER_NODE", "MEM_PER_CPU", "MEM_PER_GPU"), self.memory_mb) | {
            "PARTITION": self.partition,
            "ACCOUNT": self.account,
            "QOS": self.qos,
        }
        given |= {"CONSTRAINT": self.constraint}
        names |= {name for name, value in given.items() if value}
        return {f"SBATCH_{name}" for name in names}

    def signal_delay(self, wanted_s: int) -> int:
        """Seconds from the signal to the limit: a short job would otherwise be told to stop as it starts."""
        return max(1, min(wanted_s, self.minutes * 60 // 4))


RESOURCES = (
    "runtime", "cpus_per_task", "mem_mb", "gpu", "gpu_model", "nodes", "slurm_partition", "slurm_account", "slurm_qos", "qos", "constraint",
    "slurm_extra",
)  # fmt: skip
"""What `read` looks at."""


def undecided(job: Any) -> bool:
    """Whether what the job asks for depends on files that are not made yet."""
    return any(str(job.resources.get(key)) == "<TBD>" for key in RESOURCES)


def read(job: Any) -> Request:
    """The request of a Snakemake job (or group of jobs), from its standard resources.

    Raises WorkflowError, naming the rule and the resource, for a value that no Slurm option could take.
    """
    resources, name = job.resources, job.groupid if job.is_group() else job.name

    def number(key: str, default: int, least: int = 0) -> int:
        value = resources.get(key)
        if value is None:
            return default
        if not isinstance(value, int) or value < least:
            raise WorkflowError(f"rule {name}: resource {key} is {value!r}; it must be a whole number of at least {least}")
        return value

    def word(key: str) -> str | None:
        value = resources.get(key)
        return str(value) if value else None

    gpus, model = number("gpu", 0), word("gpu_model")
    if model and not gpus:
        raise WorkflowError(f"rule {name}: resource gpu_model is {model!r} but gpu is 0; ask for gpu=1 too, or for no model")
    if model and not _WORD.fullmatch(model):
        raise WorkflowError(f"rule {name}: resource gpu_model is {model!r}; it must be a GRES type as `sinfo -o %G` shows it, such as a100")
    return Request(
        name=name,
        minutes=number("runtime", DEFAULT_MINUTES, least=1),
        cpus=number("cpus_per_task", max(1, job.threads), least=1),
        memory_mb=number("mem_mb", 0) or None,
        gpus=gpus,
        gpu_model=model,
        nodes=number("nodes", 1, least=1),
        partition=word("slurm_partition"),
        account=word("slurm_account"),
        qos=word("slurm_qos") or word("qos"),
        constraint=word("constraint"),
        extra=options(word("slurm_extra") or "", name),
    )


def options(text: str, rule: str) -> tuple[tuple[str, str | bool], ...]:
    """`--qos=long --exclusive` as (("qos", "long"), ("exclusive", True)); only sbatch's long options, with `=`."""
    found: list[tuple[str, str | bool]] = []
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise WorkflowError(f"rule {rule}: slurm_extra is {text!r} ({error}); close its quotes") from None
    for option in words:
        key, equals, value = option.removeprefix("--").partition("=")
        if not option.startswith("--") or not key:
            raise WorkflowError(f"rule {rule}: slurm_extra has {option!r}; write sbatch's long options with =, such as --exclude=node3")
        found.append((key, value if equals else True))
    return tuple(found)
