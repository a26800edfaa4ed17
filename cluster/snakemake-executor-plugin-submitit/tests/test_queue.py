"""What Slurm's commands say of jobs, and what is concluded where one of them says nothing."""

import pytest
from snakemake_executor_plugin_submitit import queue
from snakemake_executor_plugin_submitit.queue import GONE, Queue

SQUEUE = "7_0|RUNNING|None\n7_1|PENDING|Priority\n8|FAILED|NonZeroExitCode\n"


@pytest.fixture
def asked(fake) -> Queue:
    fake.answer("squeue", SQUEUE)
    made = Queue(every_s=0)
    for job in ("7_0", "7_1", "8", "9", "10_1"):
        made.watch(job)
    return made


def test_squeue_tells_of_young_jobs_and_sacct_of_old_ones(asked, fake):
    fake.answer("sacct", "9|CANCELLED by 1000\n10_0|COMPLETED\n10_1|OUT_OF_MEMORY\n")
    states = {job: asked.state(job) for job in ("7_0", "7_1", "8", "9", "10_1")}
    assert states == {"7_0": "RUNNING", "7_1": "PENDING", "8": "FAILED", "9": "CANCELLED", "10_1": "OUT_OF_MEMORY"}
    assert any("--jobs=10,9" in call for call in fake.calls if call.startswith("sacct"))


def test_one_question_is_for_all_jobs(fake):
    fake.answer("squeue", SQUEUE)
    asked = Queue(every_s=60)
    for job in ("7_0", "7_1", "8"):
        asked.watch(job)
    for job in ("7_0", "7_1", "8"):
        asked.state(job)
    assert len(fake.calls) == 1


def test_a_job_watched_after_the_last_answer_is_not_called_gone(fake):
    fake.answer("squeue", SQUEUE)
    asked = Queue(every_s=60)
    asked.watch("8")
    asked.state("8")
    asked.watch("11")
    assert asked.state("11") is None


def test_while_slurmctld_is_away_nothing_is_concluded(asked, fake):
    assert asked.state("8") == "FAILED"
    fake.fail("squeue", "slurm_load_jobs error: Unable to contact slurm controller (connect failure)")
    asked.watch("12")
    assert asked.state("12") is None


@pytest.mark.parametrize("how", ["no accounting", "lagging"])
def test_without_accounting_the_last_that_squeue_said_stands(asked, fake, how):
    assert asked.state("8") == "FAILED"
    fake.answer("squeue", "")
    if how == "no accounting":
        fake.fail("sacct", "Slurm accounting storage is disabled")
        assert asked.state("8") == "FAILED"
    assert asked.state("7_0") == GONE, "what ran and is unknown now is over, and nobody tells how"


def test_only_a_submission_without_an_answer_is_looked_for(fake):
    fake.answer("squeue", "7|nightly abc123\n8|(null)\n")
    assert queue.find("abc123") == ["7"]
    fake.fail("squeue", "slurm_load_jobs error: Unable to contact slurm controller")
    assert queue.find("abc123") is None


def test_cancel_tells_why_slurm_could_not_be_told(fake):
    assert queue.cancel(["7", "7", "8"]) == ""
    assert fake.calls == ["scancel 7 8"]
    fake.fail("scancel", "scancel: error: Unable to contact slurm controller (connect failure)")
    assert "Unable to contact" in queue.cancel(["7"])


def test_a_job_that_is_over_already_is_cancelled_well_enough(fake):
    fake.fail("scancel", "scancel: error: Kill job error on job id 7: Invalid job id specified")
    assert queue.cancel(["7"]) == ""


@pytest.mark.parametrize(("config", "most"), [("MaxArraySize            = 1001", 1001), ("MaxArraySize = 0", 1), ("", 1)])
def test_arrays_are_as_large_as_the_site_takes(fake, config, most):
    fake.answer("scontrol", f"Configuration data\n{config}\nMaxJobCount             = 10000\n")
    assert queue.max_array() == most
