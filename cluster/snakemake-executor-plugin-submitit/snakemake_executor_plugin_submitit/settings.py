"""What a user can set: each field is a flag (`--submitit-cluster`) and a key of a profile (`submitit-cluster`).

The annotations must be real types, not strings: Snakemake reads them to parse the flags.
"""

from dataclasses import dataclass, field

from snakemake_interface_executor_plugins.settings import ExecutorSettingsBase


@dataclass
class ExecutorSettings(ExecutorSettingsBase):
    cluster: str = field(
        default="auto",
        metadata={
            "help": "Where jobs run: slurm, local (processes of this machine), debug (one after another inside Snakemake), "
            "or auto: slurm where Slurm is configured, else local.",
            "choices": ["auto", "slurm", "local", "debug"],
        },
    )
    folder: str = field(
        default=".snakemake/submitit",
        metadata={"help": "Folder for job scripts, logs and results, a subfolder a job; every node must see it."},
    )
    max_num_timeout: int = field(
        default=3,
        metadata={"help": "How often a job that ran out of time is requeued before it counts as failed.", "type": int},
    )
    signal_delay_s: int = field(
        default=90,
        metadata={
            "help": "Seconds before its time limit at which a job is told to stop and requeue; at most a quarter of the limit is used.",
            "type": int,
        },
    )
    sacct_s: int = field(
        default=10,
        metadata={
            "help": "Longest time in seconds between two calls of sacct; results of finished jobs are seen sooner, "
            "at every status check (--seconds-between-status-checks).",
            "type": int,
        },
    )
    result_s: int = field(
        default=15,
        metadata={"help": "Seconds that the result of an ended job may take to appear on the shared file system.", "type": int},
    )
    max_array: int = field(
        default=1000,
        metadata={"help": "Most jobs in one Slurm array; must be below the site's MaxArraySize (Slurm's default is 1001).", "type": int},
    )
    wckey: str = field(
        default="",
        metadata={"help": "Slurm workload characterisation key to send with every job; empty: none."},
    )
    gpus: str = field(
        default="auto",
        metadata={
            "help": "Local runs only: the GPUs to hand out, as CUDA_VISIBLE_DEVICES would list them, none, "
            "or auto: those of CUDA_VISIBLE_DEVICES where it is set, else all that nvidia-smi lists."
        },
    )
    cores: int = field(
        default=0,
        metadata={"help": "Local runs only: the cores to hand out; 0: all that this process may use.", "type": int},
    )
