"""Filter and refine: which groups of rows can hold a query's nearest, by half-precision products whose error is bounded.

Exact keys of all pairs cost float32 arithmetic; tensor cores are ten times faster and wrong in the fourth digit. So a *filter*
computes, for each query and each group of rows, the least key of the group in half precision, and with it a radius: the exact least key
lies within it, certified. Groups that cannot hold a neighbour are left out, and what remains is *refined* in float32.

Keys. For l2 and dot a vector v stands for s (v - c), with a power of two s and a centre c (0 for dot) taken from a sample of the
rows, so that neither the units of the data nor an offset costs digits; for cosine for v / |v|. With these

    key(q, x) = a(x) - q·x,   a(x) = |x|² / 2 for l2, 0 for dot and cosine,

which orders rows as the distance does. A row with a value that is not finite, or whose square is beyond float32, has a(x) = inf: it
is farther than all others.

The radius. With h(v) the half-precision vector, n(v) >= |v| and e(v) >= |v - h(v)|, both measured, not assumed,

    |q·x - h(q)·h(x)| <= n(q) e(x) + e(q) (n(x) + e(x))                              (Cauchy-Schwarz)

and the accumulation in float32 adds ACCUMULATION a step of 16 columns, relative to n(q) n(x), for EXACTLY columns at most (Blanchard,
Higham, Lopez, Mary, Pranesh: Mixed precision block fused multiply-add, SIAM J. Sci. Comput. 2020). A group's n and e are the largest of
its rows and some more beside them.

Groups interleave, so that the least of a group is found inside a thread: of each 4 GROUP consecutive rows, group c has the rows
8 j + 2 c and 8 j + 2 c + 1. Where tensor cores do not pay (D < 16) the same minima come from float32 products, and for l1
from exact differences.
"""

from __future__ import annotations

TILE = 128
"""Rows that are prepared together; bounds are of as many at least."""
ACCUMULATION = 2.0**-21
"""Relative error of one step of 16 columns: 4 units in the last place, for tensor cores that truncate."""
ROUNDING = 2.0**-24
"""Relative error of one operation in float32."""
NARROW = 16
"""Columns below which tensor cores would mostly multiply zeros; there, and for l1, the filter works in float32."""
FEW = 256
"""Queries up to which rows are filtered as they are; a half-precision copy pays from there on."""
EXACTLY = 1024
"""Columns after which a partial sum is added up in float32 proper, so that the error does not grow with the columns."""
