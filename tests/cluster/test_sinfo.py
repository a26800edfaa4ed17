"""Slurm's outputs, read: GRES, time limits, rows."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster import sinfo


@pytest.mark.parametrize(
    ("gres", "found"),
    [
        ("(null)", []),
        ("gpu", [(None, 1)]),
        ("gpu:4", [(None, 4)]),
        ("gpu:(null):2(S:0-1)", [(None, 2)]),
        ("gpu:a100", [("a100", 1)]),
        ("gpu:a100:4(S:0-1),shard:16", [("a100", 4)]),
        ("gpu:a100:no_consume:4", [("a100", 4)]),
        ("lustre:1,gpu:1g.18gb:7(S:0,2),gpu:h200:1(IDX:7)", [("1g.18gb", 7), ("h200", 1)]),
        ("mps:400,craynetwork:4", []),
    ],
)
def test_gres_is_read(gres, found):
    assert [(gpu.type, gpu.count) for gpu in sinfo.gpus(gres)] == found


@pytest.mark.parametrize(
    ("limit", "minutes"),
    [("infinite", None), ("UNLIMITED", None), ("n/a", None), ("1-00:00:00", 1440), ("30:00", 30), ("08:00:00", 480), ("0:30", 1)],
)
def test_a_time_limit_is_minutes(limit, minutes):
    assert sinfo.minutes(limit) == minutes


@given(st.integers(1, 60 * 24 * 400))
def test_every_time_limit_of_slurms_is_read(minutes):
    days, hours, rest = minutes // 1440, minutes // 60 % 24, minutes % 60
    text = f"{days}-{hours:02}:{rest:02}:00" if days else f"{hours}:{rest:02}:00" if hours else f"{rest}:00"
    assert sinfo.minutes(text) == minutes


def test_rows_are_read_and_messages_between_them_passed_over():
    rows = "CLUSTER: lab\ngpu*|up|1-00:00:00|2|down*|gpu:a100:4(S:0-1)|ampere,nvlink\ncpu|drain|infinite|0|n/a|(null)|(null)\n"
    found = sinfo.parse("slurm 19.05.5", rows, "", sinfo.User())
    assert found.nodes == (sinfo.Nodes("gpu", 2, False, (sinfo.Gres("a100", 4),), ("ampere", "nvlink")),)
    assert found.partitions == {"gpu": sinfo.Partition("gpu", True, 1440), "cpu": sinfo.Partition("cpu", up=False)}
    assert (found.default, found.types(None), found.types("cpu")) == ("gpu", {"a100"}, set())
