"""Schedules have the rate and the spacing that was asked for; traces are read as published, and refused in one line."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from analysis.cli import BadInput
from rag.arrivals import schedule
from rag.traces import Trace, read

AZURE = "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:15:46.6805900,374,44\n2023-11-16 18:15:50.9951690,396,109\n"
BURSTGPT = """Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type
5,ChatGPT,472,18,490,Conversation log
45.5,GPT-4,1,2,3,API log
"""
RAGPULSE = "".join(
    json.dumps({"timestamp": time, "input_length": 9, "output_length": 2, "hash_ids": {"passages_ids": [1]}}) + "\n"
    for time in ("82", "93.25")
)


def load(arrivals: str, seconds: float = 100, **more: object) -> dict[str, object]:
    return {"arrivals": arrivals, "seconds": seconds, **more}


def test_constant_arrivals_are_evenly_spaced():
    assert schedule(load("constant", 1), 4, [0]) == [0, 0.25, 0.5, 0.75]


def test_a_schedule_follows_from_its_seed():
    times = schedule(load("poisson"), 50, [1, 2])
    assert times == schedule(load("poisson"), 50, [1, 2]) != schedule(load("poisson"), 50, [1, 3])
    assert times == sorted(times) and times[0] > 0 and times[-1] < 100


@pytest.mark.parametrize(
    ("asked", "variation"),
    [
        pytest.param(load("poisson", 400), 1.0, id="poisson"),
        pytest.param(load("gamma", 400, burstiness=1.0), 1.0, id="gamma as poisson"),
        pytest.param(load("gamma", 400, burstiness=0.3), 0.3, id="smooth"),
        pytest.param(load("gamma", 400, burstiness=3.0), 3.0, id="bursty"),
    ],
)
def test_gaps_have_the_mean_and_the_variation_asked_for(asked: dict[str, object], variation: float):
    times = schedule(asked, 50, [1])
    gaps = np.diff(times)
    assert len(times) == pytest.approx(50 * 400, rel=5 * variation / np.sqrt(50 * 400))
    assert gaps.std() / gaps.mean() == pytest.approx(variation, rel=0.1)


@pytest.mark.parametrize(
    ("name", "text", "times"),
    [
        pytest.param("azure.csv", AZURE, (0, 4.314579), id="azure"),
        pytest.param("burst.csv", BURSTGPT, (0, 40.5), id="burstgpt"),
        pytest.param("pulse.jsonl", RAGPULSE, (0, 11.25), id="ragpulse"),
    ],
)
def test_published_formats_are_read(tmp_path: Path, name: str, text: str, times: tuple[float, ...]):
    path = tmp_path / name
    path.write_text(text)
    digest = hashlib.sha256(text.encode()).hexdigest()
    found = read(path, "here", digest.upper())
    assert found.times == pytest.approx(times)
    assert found.sha256 == digest


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param("", "its first line is 'missing'", id="empty"),
        pytest.param("a,b\n1,2\n", "its first line is 'a,b'", id="other columns"),
        pytest.param(AZURE + "yesterday,1,2\n", "line 4: Invalid isoformat", id="no time"),
        pytest.param('{"time": 1}\n', "no column or key 'timestamp'", id="other keys"),
        pytest.param('{"timestamp": 1}\n{"timestamp"', "line 2: Expecting", id="cut"),
        pytest.param('{"timestamp": NaN}\n', "line 1: nan is no time", id="nan"),
        pytest.param('{"timestamp": 1}\n', "has 1 arrivals", id="one arrival"),
        pytest.param('{"timestamp": 1}\n{"timestamp": 1}\n', "has 2 arrivals in 0 s", id="all at once"),
        pytest.param("Timestamp\n1\nNone\n", "line 3: could not convert", id="no number"),
        pytest.param("\ufffd\x00", "its first line is", id="binary"),
    ],
)
def test_what_is_no_trace_is_refused_in_one_line(tmp_path: Path, text: str, message: str):
    path = tmp_path / "trace"
    path.write_text(text)
    with pytest.raises(BadInput) as refused:
        read(path, "rag.x.load.trace")
    assert str(refused.value).startswith(f"rag.x.load.trace: {path} ") and message in str(refused.value)
    assert "\n" not in str(refused.value)


def test_another_file_than_was_named_is_refused(tmp_path: Path):
    path = tmp_path / "trace.csv"
    path.write_text(AZURE)
    with pytest.raises(BadInput, match=r"has the sha256 .*, not 00"):
        read(path, "here", "00")
    with pytest.raises(BadInput, match="cannot be read"):
        read(tmp_path / "gone.csv", "here")


@given(gaps=st.lists(st.floats(0.01, 100), min_size=20, max_size=200), rate=st.floats(0.1, 1000))
def test_a_replayed_trace_keeps_its_pattern_at_the_rate_asked_for(gaps: list[float], rate: float):
    trace = Trace((0.0, *np.cumsum(gaps).tolist()), "")
    seconds = (len(gaps) - 1) / rate
    times = schedule(load("trace", seconds), rate, [0], trace)
    assert times[0] == 0 and times[-1] < seconds
    factor = np.mean(gaps) * rate
    assert np.diff(times) * factor == pytest.approx(np.array(gaps)[: len(times) - 1], rel=1e-6, abs=1e-6)


def test_a_trace_that_is_too_short_says_how_long_it_lasts():
    with pytest.raises(BadInput, match=r"the trace has 3 requests, which last 1\.5 s at 2 a second; 10 s are asked for"):
        schedule(load("trace", 10), 2, [0], Trace((0.0, 1.0, 5.0), ""))
