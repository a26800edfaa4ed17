"""What a user can set: each field is a flag (`--submitit-cluster`) and a key of a profile (`submitit-cluster`).

The annotations must be real types, not strings: Snakemake reads them to parse the flags.
"""

import argparse
from dataclasses import dataclass, field
from pathlib import Path

from snakemake_interface_executor_plugins.settings import CommonSettings, ExecutorSettingsBase

from snakemake_executor_plugin_submitit import driver

common_settings = CommonSettings(
    non_local_exec=True,
    implies_no_shared_fs=False,
    job_deploy_sources=False,
    pass_envvar_declarations_to_cmd=False,  # jobs inherit the environment; secrets stay out of files
    auto_deploy_default_storage_provider=False,
    init_seconds_before_status_checks=1,
)


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
        metadata={"help": "Folder for job scripts, logs and results, a subfolder a driver; every node must see it."},
    )
    max_num_timeout: int = field(
        default=3,
        metadata={
            "help": "How often a job that ran out of time is requeued before it counts as failed (without Slurm at most 5).",
            "type": int,
        },
    )
    signal_delay_s: int = field(
        default=90,
        metadata={
            "help": "Seconds before its time limit at which a job is told to stop and requeue; at most a quarter of the limit is used.",
            "type": int,
        },
    )
    poll_s: int = field(
        default=10,
        metadata={
            "help": "Seconds between two questions to Slurm (squeue, then sacct) about jobs without a result; results of finished "
            "jobs are seen sooner, at every status check (--seconds-between-status-checks).",
            "type": int,
        },
    )
    result_s: int = field(
        default=15,
        metadata={"help": "Seconds that the result of an ended job may take to appear on the shared file system.", "type": int},
    )
    max_array: int = field(
        default=0,
        metadata={"help": "Most jobs in one Slurm array; 0: as many as the site's MaxArraySize allows.", "type": int},
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

    def __post_init__(self) -> None:
        """The one moment that Snakemake gives a plugin before it looks at its lock."""
        driver.clear(working_directory() / Path(self.folder).expanduser())


def working_directory() -> Path:
    """Where Snakemake will work: it goes there only after it has read the settings."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--directory", "-d", type=Path, default=Path())
    return parser.parse_known_args()[0].directory
