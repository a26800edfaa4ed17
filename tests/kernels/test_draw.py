"""Random inputs: the same whatever the number of cores, and what they are said to be."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from kernels import draw

SHAPE = (3, draw.PIECE)


def test_one_core_draws_what_many_draw(monkeypatch: pytest.MonkeyPatch):
    many = draw.normal(np.random.default_rng(1), SHAPE)
    monkeypatch.setattr(draw, "usable_cores", lambda: 1)
    assert np.array_equal(many, draw.normal(np.random.default_rng(1), SHAPE))


def test_seeds_and_pieces_and_calls_differ():
    rng = np.random.default_rng(1)
    first, second, other = draw.normal(rng, SHAPE), draw.normal(rng, SHAPE), draw.normal(np.random.default_rng(2), SHAPE)
    rows = np.concatenate([first, second, other])
    assert len({row.tobytes() for row in rows}) == len(rows)


def test_it_is_a_standard_normal():
    values = draw.normal(np.random.default_rng(3), (draw.PIECE + 7,))
    assert values.dtype == np.float32
    assert stats.kstest(values, "norm").pvalue > 0.001


@pytest.mark.parametrize("shape", [(), (0,), (5, 0), (1,), (7, 3)], ids=str)
def test_any_shape(shape: tuple[int, ...]):
    assert draw.normal(np.random.default_rng(4), shape).shape == shape
