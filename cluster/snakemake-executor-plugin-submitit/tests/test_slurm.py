"""Jobs on a Slurm that is played: how they are submitted, how each ended, and whose jobs are gone on with."""

import dataclasses
import errno
from pathlib import Path

import pytest
import submitit
from snakemake_executor_plugin_submitit.command import RequeueRefused
from snakemake_executor_plugin_submitit.request import Request


def finish(task, outcome: str = "success", text: str = "") -> None:
    """Leave the result file that submitit writes at the end of a job."""
    file: Path = task.handle.paths.result_pickle
    file.parent.mkdir(parents=True, exist_ok=True)
    submitit.core.utils.cloudpickle_dump((outcome, text or None), file)


def ended(slurm, task):
    """The ending of a task that is over: the first look starts the clock of what is overdue."""
    slurm.poll(task)
    return slurm.poll(task)


def test_arrays_are_cut_to_what_the_site_takes(slurm, fake, tasks):
    slurm.submit(tasks(8))
    assert fake.arrays == [3, 3, 2]


def test_each_task_of_an_array_has_its_own_id_and_an_entry(slurm, tasks):
    some = tasks(2)
    slurm.submit(some)
    assert [task.id for task in some] == ["1_0", "1_1"]
    assert [slurm.ledger.find(task.members[0].key).id for task in some] == ["1_0", "1_1"]


def test_each_task_is_told_when_it_was_submitted(slurm, tasks):
    some = tasks(2)
    slurm.submit(some)
    told = [task.handle.submission().function.environment["SNAKEMAKE_JOB_SUBMITTED"] for task in some]
    assert [float(text) for text in told] == pytest.approx([task.submitted for task in some], abs=0.001)


def test_a_user_limit_makes_the_pieces_smaller_and_the_rest_wait(slurm, fake, tasks, said):
    fake.room(4)
    some = tasks(6)
    slurm.submit(some)
    assert fake.arrays == [3, 1]
    assert [task.id for task in some[4:]] == ["waiting", "waiting"]
    assert "2 job(s) wait" in said[-1] and "QOSMaxSubmitJobPerUserLimit" in said[-1]
    assert slurm.poll(some[5]) is None


def test_the_result_is_enough_where_slurm_says_nothing(slurm, fake, tasks):
    (task,) = tasks(1)
    slurm.submit([task])
    fake.fail("squeue", "Unable to contact slurm controller")
    assert slurm.poll(task) is None
    finish(task)
    assert slurm.poll(task).ok


@pytest.mark.parametrize(
    ("state", "told"),
    [
        ("CANCELLED", "cancelled from outside"),
        ("NODE_FAIL", "its node failed"),
        ("OUT_OF_MEMORY", "out of memory (the default MB)"),
        ("TIMEOUT", "out of time (60 min)"),
        ("FAILED", "killed from outside, before it could report (Slurm: FAILED)"),
        ("COMPLETED", "killed from outside, before it could report (Slurm: COMPLETED)"),
    ],
)
def test_a_job_without_a_result_ended_as_slurm_says(slurm, fake, tasks, state, told):
    (task,) = tasks(1)
    slurm.submit([task])
    fake.answer("squeue", f"1|{state}|None\n")
    ending = ended(slurm, task)
    assert not ending.ok and not ending.again and ending.reason.startswith(told)


def test_a_job_that_nobody_knows_any_more_is_gone(slurm, tasks):
    (task,) = tasks(1)
    slurm.submit([task])
    assert "gone from Slurm's queue" in ended(slurm, task).reason


def test_out_of_memory_is_told_by_the_log_where_slurm_only_says_failed(slurm, fake, tasks):
    (task,) = tasks(1)
    slurm.submit([task])
    fake.answer("squeue", "1|FAILED|None\n")
    task.log.write_text(
        "measuring\nslurmstepd: error: Detected 1 oom-kill event(s) in StepId=1.0. Some of your processes may have been killed\n"
    )
    assert ended(slurm, task).reason.startswith("out of memory")


def test_a_job_that_had_no_room_to_report_is_told_as_that(slurm, fake, tasks, monkeypatch):
    (task,) = tasks(1)
    slurm.submit([task])
    fake.answer("squeue", "1|FAILED|None\n")

    def full(descriptor: int) -> None:
        raise OSError(errno.EDQUOT, "Disk quota exceeded")

    monkeypatch.setattr("snakemake_executor_plugin_submitit.messages.os.fsync", full)
    folder = task.handle.paths.folder
    assert ended(slurm, task).reason == f"nothing can be written to {folder} (Disk quota exceeded): make room, then the same command again"


def test_preempted_by_cancelling_is_submitted_again(slurm, fake, tasks):
    (task,) = tasks(1)
    slurm.submit([task])
    fake.answer("squeue", "1|PREEMPTED|None\n")
    assert ended(slurm, task).again


def test_preempted_by_requeueing_waits(slurm, fake, tasks):
    (task,) = tasks(1)
    slurm.submit([task])
    fake.answer("squeue", "1|PENDING|BeginTime\n")
    assert ended(slurm, task) is None


def test_where_requeue_is_forbidden_it_is_submitted_again_as_often_as_it_may_time_out(slurm, fake, tasks):
    (task,) = tasks(1)
    slurm.submit([task])
    finish(task, "error", f"Traceback\n{RequeueRefused.__module__}.RequeueRefused: told to stop, and not requeued (scontrol)")
    assert slurm.poll(task).again
    task.requeues = slurm.settings.max_num_timeout
    assert "out of time" in slurm.poll(task).reason


def test_a_job_that_waits_in_vain_is_told_of_once(slurm, fake, tasks, said):
    (task,) = tasks(1)
    slurm.submit([task])
    fake.answer("squeue", "1|PENDING|launch failed requeued held\n")
    for _ in range(3):
        assert slurm.poll(task) is None
    assert len(said) == 1 and "1 waits and will not start by itself: launch failed requeued held" in said[0]


def test_what_a_submission_without_an_answer_left_is_cancelled_before_the_next_try(slurm, fake, tasks):
    some = tasks(2)
    fake.fail("sbatch", "sbatch: error: Batch job submission failed: Socket timed out on send/recv operation")
    slurm.submit(some)
    token = slurm.ledger.find(some[0].members[0].key).token
    (fake.folder / "sbatch.error").unlink()
    fake.answer("squeue", f"77|{token}\n88|another\n")
    slurm.backlog._groups[0].not_before = 0
    slurm.poll(some[0])
    assert "scancel 77" in fake.calls
    assert [task.id for task in some] == ["1_0", "1_1"]


def test_cancel_tells_slurm_once_an_array(slurm, fake, tasks):
    some = tasks(5)
    slurm.submit(some)
    slurm.cancel(some)
    assert fake.calls[-1] == "scancel 1 2"


@pytest.fixture
def left(slurm, tasks):
    """A task as a new driver sees it, and the entries that the dead driver left of its job 1_0."""
    old = tasks(2)
    slurm.submit(old)
    entries = slurm.ledger.of(old[0].members)
    assert entries[0].id == "1_0"
    return dataclasses.replace(old[0], handle=None), entries


def adopts(slurm, left) -> bool:
    task, entries = left
    return task in slurm.adopt({task: entries})


@pytest.mark.parametrize(
    ("state", "followed"), [("PENDING", True), ("RUNNING", True), ("COMPLETED", True), ("CANCELLED", False), ("FAILED", False)]
)
def test_a_dead_drivers_job_is_gone_on_with_unless_it_is_over(slurm, fake, left, state, followed):
    fake.answer("squeue", f"1_0|{state}|None\n")
    assert adopts(slurm, left) is followed
    assert left[0].id == ("1_0" if followed else "waiting")


def test_of_many_that_are_over_none_is_gone_on_with(slurm, fake, tasks):
    slurm.queue.every_s = 60
    old = tasks(3)
    slurm.submit(old)
    fake.answer("squeue", "".join(f"1_{n}|CANCELLED|None\n" for n in range(3)))
    new = {dataclasses.replace(task, handle=None): slurm.ledger.of(task.members) for task in old}
    assert slurm.adopt(new) == set()


def test_it_is_gone_on_with_where_slurm_does_not_answer(slurm, fake, left):
    """It may run: nothing may run twice."""
    fake.fail("squeue", "Unable to contact slurm controller")
    assert adopts(slurm, left)


@pytest.mark.parametrize(
    ("made", "followed"), [(True, True), (False, False)], ids=["its output appeared meanwhile", "its output is wanted anew"]
)
def test_one_that_ended_well_counts_where_its_output_appeared(slurm, left, made, followed):
    task, entries = left
    task.handle = submitit.SlurmJob(Path(entries[0].folder), entries[0].id)
    finish(task)
    task.handle, task.made = None, made
    assert adopts(slurm, left) is followed


def cancelling(fake) -> None:
    """From now on scancel makes of the job 1_0 what it is to."""
    script = f'#!/bin/bash\necho "scancel $*" >> {fake.folder}/calls\necho "1_0|CANCELLED|None" > {fake.folder}/squeue.out\n'
    (fake.folder / "bin" / "scancel").write_text(script)


def test_one_that_does_something_else_is_ended_first(slurm, fake, left, said):
    task, entries = left
    task.members = (dataclasses.replace(task.members[0], definition="edited"),)
    fake.answer("squeue", "1_0|RUNNING|None\n")
    cancelling(fake)
    assert not adopts(slurm, (task, entries))
    assert "scancel 1_0" in fake.calls and "1_0 of an earlier driver do something else" in said[-1]


def test_a_group_that_is_cut_otherwise_is_ended_first(slurm, fake, left):
    task, entries = left
    task.members = (*task.members, dataclasses.replace(task.members[0], key="another"))
    fake.answer("squeue", "1_0|RUNNING|None\n")
    cancelling(fake)
    assert not adopts(slurm, (task, entries))
    assert "scancel 1_0" in fake.calls


def test_an_array_whose_driver_died_while_writing_it_down_is_gone_on_with_as_a_whole(slurm, fake, tasks):
    old = tasks(3)
    slurm.submit(old)
    unwritten = slurm.ledger.find("key2")
    slurm.ledger.fill([dataclasses.replace(unwritten)], None, "")
    fake.answer("squeue", "".join(f"1_{n}|RUNNING|None\n" for n in range(3)))
    new = {dataclasses.replace(task, handle=None): slurm.ledger.completed(slurm.ledger.of(task.members)) for task in old}
    assert sorted(task.id for task in slurm.adopt(new)) == ["1_0", "1_1", "1_2"]
    assert not any(call.startswith("scancel") for call in fake.calls)


def test_a_submission_that_the_driver_did_not_survive_is_withdrawn(slurm, fake, tasks):
    (task,) = tasks(1)
    entries = slurm.ledger.open(task.members, "slurm", "abc")
    fake.answer("squeue", "55|abc\n")
    assert not adopts(slurm, (task, entries))
    slurm.submit([task])
    calls = [call.split()[0] for call in fake.calls]
    assert "scancel 55" in fake.calls and calls.index("scancel") < calls.index("sbatch")


def test_after_a_cancel_nothing_is_submitted_any_more(slurm, fake, tasks):
    assert slurm.cancel([])
    slurm.submit(tasks(2))
    assert fake.arrays == []


def test_a_cancel_that_slurm_did_not_hear_is_told_with_the_command_for_later(slurm, fake, tasks, said):
    some = tasks(2)
    slurm.submit(some)
    fake.fail("scancel", "scancel: error: Unable to contact slurm controller")
    assert not slurm.cancel(some)
    assert said[-1].endswith("scancel 1")


def test_what_can_never_run_is_refused_also_when_it_is_known_late(slurm, fake, tasks):
    (task,) = tasks(1, partition="mars")
    slurm.submit([task])
    assert task.refused == "slurm_partition is 'mars'; this cluster has gpu, cpu" and fake.arrays == []


def test_variables_that_overrule_a_script_are_kept_from_sbatch(slurm, fake, tasks, monkeypatch):
    monkeypatch.setenv("SBATCH_GRES", "gpu:h100:8")
    monkeypatch.setenv("SBATCH_ACCOUNT", "lab")
    (fake.folder / "bin" / "sbatch").write_text(f"#!/bin/bash\nenv | grep ^SBATCH_ > {fake.folder}/seen\necho Submitted batch job 1\n")
    slurm.submit(tasks(1))
    assert (fake.folder / "seen").read_text() == "SBATCH_ACCOUNT=lab\n"


def test_the_token_stands_behind_the_users_own_comment():
    request = Request("r", 60, 1, extra=(("comment", "nightly"),))
    assert request.slurm(90, token="abc")["additional_parameters"]["comment"] == "nightly abc"
