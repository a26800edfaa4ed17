"""What sinfo tells, and requests that Slurm would let wait for ever."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from snakemake_executor_plugin_submitit.partitions import Partitions, ask, gpus, minutes, parse
from snakemake_executor_plugin_submitit.request import Request

CLUSTER = parse(
    [
        "gpu*|1-00:00:00|gpu:a100:4(S:0-1)|ampere,nvlink",
        "gpu*|1-00:00:00|gpu:rtx2080ti:2|turing",
        "long|infinite|gpu:a100:2|ampere",
        "untyped|08:00:00|gpu:4|(null)",
        "cpu|30:00|(null)|(null)",
    ]
)


@pytest.mark.parametrize(
    ("gres", "found"),
    [
        ("(null)", {}),
        ("gpu:4", {"": 4}),
        ("gpu:a100:4(S:0-1)", {"a100": 4}),
        ("gpu:a100:2(S:0,2),gpu:1g.18gb:7(S:1),shard:8", {"a100": 2, "1g.18gb": 7}),
        ("gpu:nvidia_h200_1g.18gb:7", {"nvidia_h200_1g.18gb": 7}),
        ("gpu:nvidia_a100-sxm4-80gb:8,license:3", {"nvidia_a100-sxm4-80gb": 8}),
        ("gpu", {"": 1}),
        ("gpu:3090:8(S:0-1)", {"3090": 8}),
        ("gpu:2080ti:4", {"2080ti": 4}),
        ("gpu:1080ti:2(IDX:0)", {"1080ti": 2}),
        ("gpu:1g.10gb+me:1", {"1g.10gb+me": 1}),
    ],
)
def test_gres_is_read(gres, found):
    assert gpus(gres) == found


@pytest.mark.parametrize(
    ("limit", "number"), [("30:00", 30), ("08:00:00", 480), ("1-00:00:00", 1440), ("7-12:30:00", 10830), ("infinite", None), ("n/a", None)]
)
def test_time_limits_are_read(limit, number):
    assert minutes(limit) == number


@given(st.integers(0, 30), st.integers(0, 23), st.integers(0, 59))
def test_every_limit_that_slurm_prints_is_its_minutes(days, hours, rest):
    text = f"{days}-{hours:02}:{rest:02}:00" if days else f"{hours:02}:{rest:02}:00"
    assert minutes(text) == (days * 24 + hours) * 60 + rest


def test_a_heading_is_no_row():
    assert set(parse(["CLUSTER: lab", *["cpu|30:00|(null)|(null)"]])) == {"cpu"}


def test_partitions_join_their_groups_of_nodes():
    gpu = CLUSTER["gpu"]
    assert gpu.default and gpu.gpus == {"a100": 4, "rtx2080ti": 2} and gpu.features == {"ampere", "nvlink", "turing"}
    assert CLUSTER["long"].minutes is None and not CLUSTER["long"].default


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({"partition": "mars"}, "slurm_partition is 'mars'; this cluster has gpu, long, untyped, cpu"),
        ({"partition": "cpu,mars"}, "slurm_partition is 'mars'"),
        ({"minutes": 2000}, "runtime is 2000 minutes; partition gpu allows 1440; it would run in long"),
        ({"partition": "cpu", "gpus": 1, "minutes": 5}, "gpu is 1; partition cpu has no GPUs; it would run in gpu, long, untyped"),
        ({"gpus": 1, "gpu_model": "h300"}, "gpu_model is 'h300'; partition gpu has a100, rtx2080ti"),
        ({"partition": "untyped", "gpus": 1, "gpu_model": "a100"}, "gpu_model is 'a100'; partition untyped has GPUs without types"),
        ({"gpus": 3, "gpu_model": "rtx2080ti"}, "gpu is 3; a node of partition gpu has at most 2"),
        ({"constraint": "volta"}, "constraint is 'volta'; partition gpu has the features ampere, nvlink, turing"),
    ],
)
def test_what_can_never_run_is_one_line_with_what_would(asked, told):
    objection = CLUSTER.objection(Request(**{"name": "r", "minutes": 60, "cpus": 1} | asked))
    assert objection is not None and objection.startswith(told) and "\n" not in objection


@pytest.mark.parametrize(
    "asked",
    [
        {},
        {"gpus": 4},
        {"gpus": 2, "gpu_model": "rtx2080ti"},
        {"partition": "cpu,long", "gpus": 1},
        {"partition": "long", "minutes": 10**6},
        {"constraint": "ampere&nvlink"},
        {"partition": "cpu", "gpus": 1, "extra": (("partition", "gpu"),)},
    ],
    ids=str,
)
def test_what_may_run_is_not_objected_to(asked):
    assert CLUSTER.objection(Request(**{"name": "r", "minutes": 60, "cpus": 1} | asked)) is None


def test_of_a_cluster_that_does_not_answer_nothing_is_said(fake):
    fake.fail("sinfo", "sinfo: error: Connection refused")
    assert ask() == Partitions()
    assert ask().objection(Request("r", 60, 1, partition="mars")) is None


def test_sinfo_is_asked_for_partitions_hidden_from_the_user_too(fake):
    assert set(ask()) == {"gpu", "cpu"}
    assert "--all" in fake.calls[0]
