"""Submission in pieces that Slurm takes, and patience where it takes none."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st
from snakemake_executor_plugin_submitit import backlog
from snakemake_executor_plugin_submitit.backlog import Backlog, Refusal
from snakemake_executor_plugin_submitit.request import Request
from snakemake_executor_plugin_submitit.task import Task

LIMIT = "sbatch: error: QOSMaxSubmitJobPerUserLimit\nsbatch: error: Batch job submission failed: Job violates accounting/QOS policy"
AWAY = "sbatch: error: Batch job submission failed: Unable to contact slurm controller (connect failure)"
SOCKET = "sbatch: error: Batch job submission failed: Socket timed out on send/recv operation"
WALL = (
    "sbatch: error: QOSMaxWallDurationPerJobLimit\nsbatch: error: Batch job submission failed: "
    "Job violates accounting/QOS policy (job submit limit, user's size and/or time limits)"
)
PARTITION = "sbatch: error: invalid partition specified: mars\nsbatch: error: Batch job submission failed: Invalid partition name specified"


def tasks(count: int) -> list[Task]:
    return [Task(None, f"line {n}", Request("r", 60, 1)) for n in range(count)]


@pytest.mark.parametrize(
    ("text", "limit", "away", "ambiguous"),
    [
        (LIMIT, True, False, False),
        ("sbatch: error: AssocMaxSubmitJobLimit", True, False, False),
        (AWAY, False, True, True),
        (SOCKET, False, True, True),
        ("sbatch: error: Batch job submission failed: Resource temporarily unavailable", False, True, False),
        (PARTITION, False, False, False),
        (WALL, False, False, False),
        (WALL.replace("QOSMaxWallDurationPerJobLimit", "QOSMaxSubmitJobPerUserLimit"), True, False, False),
        (WALL.replace("sbatch: error: QOSMaxWallDurationPerJobLimit\n", ""), True, False, False),
        ("", False, True, True),
        ("sbatch: error: Batch job submission failed: Requested node configuration is not available", False, False, False),
    ],
    ids=[
        "qos limit",
        "association limit",
        "away",
        "socket",
        "busy",
        "partition",
        "wall time",
        "qos in full",
        "no reason",
        "killed",
        "no such node",
    ],
)
def test_refusals_are_told_apart(text, limit, away, ambiguous):
    refusal = Refusal(text)
    assert (refusal.limit, refusal.away, refusal.ambiguous) == (limit, away, ambiguous)
    assert "\n" not in refusal.reason


@given(
    count=st.integers(0, 60), most=st.integers(1, 20), room=st.integers(0, 30), frees=st.lists(st.integers(0, 30), min_size=1, max_size=20)
)
def test_every_task_is_submitted_once_in_pieces_that_there_is_room_for(count, most, room, frees):
    """Between two tries some of the user's jobs end."""
    state, taken, now = {"room": room}, [], [0.0]

    def submit(piece: list[Task]) -> None:
        if len(piece) > state["room"]:
            raise Refusal(LIMIT)
        assert 0 < len(piece) <= most
        state["room"] -= len(piece)
        taken.extend(piece)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(backlog.time, "monotonic", lambda: now[0])
        waiting, all_tasks = Backlog(submit, most, lambda text: None), tasks(count)
        if all_tasks:
            waiting.add(all_tasks)
        for free in (*frees, count):
            waiting.drain()
            state["room"] += free
            now[0] += backlog._LONGEST_S
        for _ in range(count):
            waiting.drain()
            now[0] += backlog._LONGEST_S
    assert taken == all_tasks


def test_what_slurm_will_never_take_is_refused_and_the_rest_goes_on():
    def submit(piece):
        if piece[0].request.partition == "mars":
            raise Refusal(PARTITION)
        done.extend(piece)

    done, waiting = [], Backlog(submit, 10, print)
    bad = [Task(None, "", Request("r", 60, 1, partition="mars"))]
    good = tasks(2)
    waiting.add(bad)
    waiting.add(good)
    waiting.drain()
    assert bad[0].refused == "sbatch refused it: sbatch: error: invalid partition specified: mars"
    assert done == good


def test_one_group_over_its_limit_does_not_hold_up_the_others():
    def submit(piece):
        if piece[0].request.qos == "few":
            raise Refusal(LIMIT)
        done.extend(piece)

    done, waiting = [], Backlog(submit, 10, print)
    waiting.add([Task(None, "", Request("r", 60, 1, qos="few"))])
    others = tasks(2)
    waiting.add(others)
    waiting.drain()
    assert done == others


def test_while_slurm_is_away_it_is_asked_less_and_less_often_and_the_user_is_told(monkeypatch):
    now, tries, said = [0.0], [], []

    def submit(piece):
        tries.append(now[0])
        raise Refusal(AWAY)

    monkeypatch.setattr(backlog.time, "monotonic", lambda: now[0])
    waiting = Backlog(submit, 10, said.append)
    waiting.add(tasks(3))
    for _ in range(200):
        waiting.drain()
        now[0] += 1
    gaps = [late - early for early, late in itertools.pairwise(tries)]
    assert gaps == sorted(gaps) and gaps[0] == 5 and max(gaps) == 60
    assert "3 job(s) wait to be submitted, next try in 5 s" in said[0] and "Unable to contact" in said[0]
