"""How far a product may be from the float64 oracle, by the precision that it was computed in.

Three roundings add up, each an estimate for numbers of independent signs. |c| is a sum's magnitude where its terms agree in sign,
s = sqrt(sum a² b²) where they do not, and roundings that are independent add up as the latter.

- operands: TF32 cuts both to 10 bits of fraction, 2^-10 each at most, of |c| + s; the other precisions take them as they are
- sums: K float32 additions, which tensor cores do in steps of 8 or 16 and cut instead of rounding: (8 + K / 16) 2^-23 of |c| + s
- the result: half a unit in the last place of its dtype, of |c|
"""

from __future__ import annotations

import numpy as np

from kernels.contract import Verdict
from kernels.distance.tolerance import EPSILON, deviation

OPERANDS = {"tf32": 2.0**-9}
RESULT = {"fp16": 2.0**-11, "bf16": 2.0**-8}
"""Half a unit in the last place, relative; that of float32 is within what sums are allowed."""
LARGEST = {"fp16": 65520.0}
"""From here on a result rounds to infinity; the float32 range is what `deviation` assumes."""
SMALLEST = {"fp16": 2.0**-25}
"""Half the distance of the smallest numbers; for the others, the float32 numbers that hardware may flush to zero."""


def allowed(precision: str, a: np.ndarray, b: np.ndarray, expected: np.ndarray) -> np.ndarray:
    """The deviation allowed of each element of the `expected` product of a [M, K] and b [K, N]."""
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    k, size = a.shape[1], np.abs(expected)
    with np.errstate(all="ignore"):
        magnitude = size + np.sqrt((a * a) @ (b * b))
        rounding = (OPERANDS.get(precision, 0.0) + EPSILON * (8 + k / 16)) * magnitude + RESULT.get(precision, 0.0) * size
    return rounding + SMALLEST.get(precision, 0.0) + k * float(np.finfo(np.float32).tiny)


def compare_product(precision: str, a: np.ndarray, b: np.ndarray, found: np.ndarray, expected: np.ndarray) -> Verdict:
    """Every element of the product against the oracle's."""
    if found.shape != expected.shape:
        return Verdict(False, np.inf, f"the product has shape {list(found.shape)}, not {list(expected.shape)}")
    margin = allowed(precision, a, b, expected)
    finite = np.where(np.abs(expected) >= LARGEST.get(precision, np.inf), np.copysign(np.inf, expected), expected)
    units = deviation(found, finite, margin)
    if not units.size or (worst := float(units.max())) == 0:
        return Verdict(True, 0.0)
    at = np.unravel_index(units.argmax(), units.shape)
    where = f"c{[int(i) for i in at]} is {float(found[at]):.9g}, the oracle says {finite[at]:.9g}"
    return Verdict(worst <= 1, worst, "" if worst <= 1 else where)
