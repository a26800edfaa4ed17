"""What a job asks for, as submitit and sbatch are told."""

from types import SimpleNamespace

import pytest
import submitit
from snakemake_executor_plugin_submitit.request import Request, options, read
from snakemake_interface_common.exceptions import WorkflowError


def job(threads=1, **resources):
    return SimpleNamespace(name="sweep_knn", threads=threads, resources=resources, is_group=lambda: False)


def script(request: Request, **settings) -> str:
    """The sbatch script that submitit makes of a request."""
    return submitit.slurm.slurm._make_sbatch_string("true", "/f/%j", **request.slurm(90, **settings))


def test_every_resource_reaches_sbatch():
    asked = job(
        threads=2, runtime=120, mem_mb=12000, cpus_per_task=4, gpu=2, gpu_model="a100", slurm_partition="big", slurm_account="lab",
        constraint="ampere", slurm_extra="--qos=long --exclusive",
    )  # fmt: skip
    lines = script(read(asked)).splitlines()
    for option in (
        "time=120", "mem=12000M", "cpus-per-task=4", "gres=gpu:a100:2", "partition=big", "account=lab", "constraint=ampere", "qos=long",
        "exclusive", "signal=USR2@90", "requeue", "job-name=sweep_knn",
    ):  # fmt: skip
        assert f"#SBATCH --{option}" in lines
    step = next(line for line in lines if line.startswith("srun"))
    assert "--cpus-per-task=4" in step, "since Slurm 22.05 a step does not inherit its job's cores"


def test_without_a_model_any_gpu_is_asked_for_and_without_gpu_none():
    assert "--gres=gpu:1" in script(read(job(gpu=1)))
    assert "gres" not in script(read(job()))


def test_a_slice_with_media_extensions_is_a_model():
    assert "--gres=gpu:1g.10gb+me:1" in script(read(job(gpu=1, gpu_model="1g.10gb+me")))


def test_no_requeue_of_the_user_is_not_contradicted():
    lines = script(read(job(slurm_extra="--no-requeue"))).splitlines()
    assert "#SBATCH --no-requeue" in lines and "#SBATCH --requeue" not in lines


def test_no_wckey_unless_asked():
    assert "wckey" not in script(read(job()))
    assert "#SBATCH --wckey=course" in script(read(job()), wckey="course")


def test_several_nodes_run_the_command_once():
    text = script(read(job(nodes=2)))
    assert "#SBATCH --nodes=2" in text and "-N1 -n1" in text


def test_cores_follow_threads_unless_said():
    assert read(job(threads=3)).cpus == 3
    assert read(job(threads=3, cpus_per_task=5)).cpus == 5


def test_requests_that_differ_only_in_gpu_model_are_not_equal():
    assert read(job(gpu=1, gpu_model="a100")) != read(job(gpu=1, gpu_model="rtx2080ti"))
    assert read(job(gpu=1, gpu_model="a100")) == read(job(gpu=1, gpu_model="a100"))


@pytest.mark.parametrize(("minutes", "delay"), [(1, 15), (4, 60), (60, 90)])
def test_a_short_job_is_not_told_to_stop_as_it_starts(minutes, delay):
    assert Request("r", minutes, 1).signal_delay(90) == delay


@pytest.mark.parametrize(
    ("resources", "named"),
    [
        ({"gpu_model": "a100"}, "gpu_model is 'a100' but gpu is 0"),
        ({"gpu": 1, "gpu_model": "a100:2"}, "'a100:2'"),
        ({"runtime": 0}, "runtime is 0"),
        ({"runtime": "long"}, "runtime is 'long'"),
        ({"gpu": -1}, "gpu is -1"),
        ({"slurm_extra": "-q long"}, "slurm_extra has '-q'"),
        ({"slurm_extra": "--qos long"}, "slurm_extra has 'long'"),
    ],
)
def test_what_slurm_could_not_take_is_one_line_naming_rule_and_resource(resources, named):
    with pytest.raises(WorkflowError) as caught:
        read(job(**resources))
    text = str(caught.value)
    assert "rule sweep_knn" in text and named in text and "\n" not in text


def test_extra_options_keep_their_values():
    assert options("--exclude=node3,node4 --comment='two words'", "r") == (("exclude", "node3,node4"), ("comment", "two words"))
