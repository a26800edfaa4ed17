"""k-means in Triton, in its interpreter: what only that backend does."""

from __future__ import annotations

import pytest

from tests.commands import run_python

UNDECIDED = """
import numpy as np
import torch
from kernels import registry
from kernels.kmeans import OPERATOR, KMeans

backend = registry.backend(registry.operator("kmeans"), "triton")
rng = np.random.default_rng(0)
points = rng.standard_normal((1600, 17), dtype=np.float32)
points[1::300] *= 1e6  # none among the rows that the frame is taken from
cases = {"outliers": (points, points[:40]), "offset": (points[::3][:200] + 1e4, points[:3] + 1e4)}
cases["ties"] = (np.repeat(points[:6], 20, axis=0), np.repeat(points[:6], 7, axis=0))
far = points[2:202] + 1000 * np.repeat(rng.standard_normal((4, 17)), 50, axis=0)
cases["close calls"] = (far, far[::5])
long = rng.standard_normal((70, 1030))
cases["long rows"] = (long[:30], long[:4])
long = long[:, :150]
cases["long ties"] = (np.repeat(long[:6], 10, axis=0), np.repeat(long[:6], 3, axis=0))
cases["long pairs"] = (long, np.concatenate([long[:5], long[:5] + 1e-4 * long[5:10]]))
cases["long close calls"] = (long[:1] + 1e-4 * rng.standard_normal((70, 150)), long[:1] + 1e-4 * rng.standard_normal((9, 150)))
mixed = points[2:302, :5] * 10.0 ** rng.uniform(-18, 18, (300, 1))
cases["few columns"] = (np.concatenate([mixed, mixed[:40]]), mixed[::9])
wide = rng.standard_normal((60, 128)) * 10.0 ** rng.uniform(-8, 8, (60, 1))
cases["mixed scales"] = (wide, wide[::2])
for name, (rows, centroids) in cases.items():
    for metric, group in (("l2", 2), ("cosine", 2), ("l2", 4), ("cosine", 4)):
        block = dict(backend.space.default) | {"GROUP": group}
        if backend.space.rule(KMeans(n=99, d=rows.shape[1], k=9), block):
            continue  # rows of few columns, or of many, are not grouped
        problem = KMeans(metric=metric, n=len(rows), d=rows.shape[1], k=len(centroids))
        inputs = {"points": np.ascontiguousarray(rows, np.float32), "centroids": np.ascontiguousarray(centroids, np.float32)}
        tensors = {key: torch.from_numpy(array.copy()) for key, array in inputs.items()}
        outputs = {key: np.asarray(array) for key, array in backend.run(problem, tensors, block).items()}
        verdict = OPERATOR.compare(problem, inputs, outputs, OPERATOR.oracle(problem, inputs))
        assert verdict.ok, (name, metric, group, verdict)
"""

EXACT_MEANS = """
from fractions import Fraction
import numpy as np
import torch
from kernels.kmeans import KMeans
from kernels.kmeans.space import TRITON
from kernels.kmeans.triton_narrow import step

rng = np.random.default_rng(1)
points = (rng.standard_normal((300, 3)) * 10.0 ** rng.uniform(-44, 18, (300, 1))).astype(np.float32)
points[5] = np.nan
centroids = points[:4]

def clustered(order):
    problem = KMeans(n=300, d=3, k=4)
    found = step(problem, torch.from_numpy(points[order]), torch.from_numpy(centroids.copy()), dict(TRITON.default) | {"BLOCK_Q": 64})
    return {name: np.asarray(array) for name, array in found.items()}

order = rng.permutation(300)
found, again = clustered(np.arange(300)), clustered(order)
np.testing.assert_array_equal(found["labels"][order], again["labels"])
np.testing.assert_array_equal(found["centroids"].view(np.int32), again["centroids"].view(np.int32))
assert len(set(found["labels"].tolist()) - {-1}) > 1
for cluster in set(found["labels"].tolist()) - {-1}:
    mine = points[found["labels"] == cluster]
    assert len(mine) == found["counts"][cluster]
    for column in range(3):
        mean = sum(map(Fraction, mine[:, column].tolist()), Fraction(0)) / len(mine)
        assert found["centroids"][cluster, column] == np.float32(float(mean))
"""


SAME_FRAME = """
import torch
from kernels.kmeans.torch_impl import centre_of
from kernels.kmeans.triton_frame import frame

changes = {
    "normal": lambda x: x,
    "constant": lambda x: torch.full_like(x, 3.0),
    "offset": lambda x: x + 1e4,
    "outliers": lambda x: torch.where(torch.arange(len(x))[:, None] % 7 == 0, 1e9 * x, x),
    "not finite": lambda x: torch.where(x > 0.5, torch.nan, x).index_fill(0, torch.tensor(0), torch.inf),
}
for n, d in ((1, 17), (5, 33), (511, 16), (513, 20), (1025, 130)):
    rows = torch.randn(n, d, generator=torch.Generator().manual_seed(n))
    for name, change in changes.items():
        for metric in ("l2", "cosine"):
            found, (centre, largest) = frame(metric, change(rows)), centre_of(metric, change(rows))
            assert torch.equal(found.centre, centre) and torch.equal(found.largest, largest), (n, d, name, metric)
"""


@pytest.mark.parametrize(
    "words",
    [("tests/kernels/interpret.py", "kmeans"), ("-c", UNDECIDED), ("-c", EXACT_MEANS), ("-c", SAME_FRAME)],
    ids=["awkward", "undecided", "means of few columns are exact", "the frame is torch's"],
)
def test_triton_in_the_interpreter(words: tuple[str, str]) -> None:
    """The awkward problems, data of which the bounds decide little, sums that do not depend on the order of the points, and the frame."""
    done = run_python(*words, TRITON_INTERPRET="1")
    assert done.returncode == 0, done
