"""The group of centroids that holds the nearest one of each point, by bounds; what they leave open goes on a list. See `kernels.filter`.

Points are the queries of the filter and centroids its rows, with one radius for all of a point's groups. A tile of points meets all
centroids in one program, which keeps the two least of the groups' minima: where they are more than two radii apart, no other
group can hold the nearest centroid, and no minimum need be written. Points that are not decided so meet all centroids again in two
halves (PARTS = 2: 22 bits instead of 11), and what is open then is decided by direct differences in float32.

The order in which the lists fill varies from run to run, the groups that come of them do not. The norm of each point is written, too.
"""

from __future__ import annotations

import triton
import triton.language as tl

from kernels.distance.triton_metric import COSINE
from kernels.filter import TILE
from kernels.filter.groups import group_of
from kernels.filter.tensor_cores import group_minima
from kernels.kmeans.triton_halves import (
    SECOND,
    direct_keys,
    factor_of,
    far,
    framed,
    loaded,
    measured,
    point_bounds,
    radius_in,
    squares_of,
)
from kernels.packing.triton_packing import NOTHING, pack

SPAN = tl.constexpr(TILE)
LANES = tl.constexpr(4)
"""Groups of a block of 4 GROUP centroids: as many as threads of tensor cores' results share a row."""


@triton.jit
def start_of(BLOCK_Q: tl.constexpr, WIDTH: tl.constexpr):
    """What `track` begins with."""
    low = tl.full([BLOCK_Q, WIDTH], float("inf"), tl.float32)
    return low, low, tl.zeros([BLOCK_Q, WIDTH], tl.int32)


@triton.jit
def track(minima, block, low, rival, where):
    """The least minimum, the second least, and the block of the least, with one more block; each lane apart."""
    nearer = minima < low
    return tl.minimum(low, minima), tl.where(nearer, low, tl.minimum(rival, minima)), tl.where(nearer, block, where)


@triton.jit
def append(List, ListCount, points, which):
    """Put those of the points that `which` says on a list."""
    marked = which.to(tl.int32)
    count = tl.sum(marked, axis=0)
    if count > 0:
        place = tl.atomic_add(ListCount, count) + tl.cumsum(marked, axis=0) - 1
        tl.store(List + place, points.to(tl.int32), mask=which)


@triton.jit
def settle(points, some, low, rival, where, radius, Groups, Left, LeftCount, D, WIDTH: tl.constexpr):
    """Write the groups of points, and put those on the list Left that a minimum is within the radii of the least for."""
    group = where * WIDTH + tl.arange(0, WIDTH)[None, :]
    least = tl.min(low, axis=1)
    chosen = tl.min(tl.where(low == least[:, None], group, 0x7FFFFFFF), axis=1)
    rival = tl.min(tl.where(group == chosen[:, None], rival, low), axis=1)
    decided = (rival - radius > least + radius) & (least + radius < 0.375 * far(D) * far(D))
    tl.store(Groups + points, chosen.to(Groups.dtype.element_ty), mask=some & decided)
    append(Left, LeftCount, points, some & (decided == 0))


@triton.jit
def listed(List, ListCount, tile, N, LISTED: tl.constexpr, BLOCK_Q: tl.constexpr):
    """Tile `tile` of the points: of all, or of those on a list."""
    places = tile * BLOCK_Q + tl.arange(0, BLOCK_Q).to(tl.int64)
    if LISTED:
        some = places < tl.load(ListCount)
        return tl.load(List + places, mask=some, other=0).to(tl.int64), some
    return places, places < N


@triton.jit
def products(first, second, First, Second, place, inside, PARTS: tl.constexpr):
    """Products of points [points, columns] and the centroids at `place`."""
    rows = tl.load(First + place, mask=inside, other=0.0)
    product = tl.dot(first, tl.trans(rows))
    if PARTS == 2:
        second_rows = tl.load(Second + place, mask=inside, other=0.0)
        product += tl.dot(first, tl.trans(second_rows), tl.dot(second, tl.trans(rows))) * SECOND
    return product


@triton.jit(do_not_specialize=["N", "tiles"])
def groups_held(X, Centre, Largest, First, Second, Offsets, Bounds, PointNorms, Groups, List, ListCount, Left, LeftCount, N, tiles,
                D, width, METRIC: tl.constexpr, PARTS: tl.constexpr, BLOCK_Q: tl.constexpr, BLOCK_N: tl.constexpr,
                BLOCK_D: tl.constexpr):  # fmt: skip
    """Groups of BLOCK_Q points, held whole, from the points as they are: of all points, or for PARTS = 2 of those on a list."""
    columns = tl.arange(0, BLOCK_D)
    inside = (columns < width)[None, :]
    count = N
    if PARTS == 2:
        count = tl.load(ListCount)
    for tile in range(tl.program_id(0), tl.cdiv(count, BLOCK_Q), tl.num_programs(0)):
        points, some = listed(List, ListCount, tile, N, PARTS == 2, BLOCK_Q)
        x = loaded(X, points, some, columns, D)
        factor = factor_of(tl.sum(x * x, axis=1), Largest, METRIC)
        first, second, squares, errors = measured(framed(x, Centre, columns, factor, D, METRIC), PARTS)
        norm, error = point_bounds(squares, errors, D, METRIC, PARTS)
        tl.store(PointNorms + points, norm, mask=some)
        low, rival, where = start_of(BLOCK_Q, LANES)
        for block in range(0, tiles * SPAN // BLOCK_N):
            rows = block * BLOCK_N + tl.arange(0, BLOCK_N)
            product = products(first, second, First, Second, rows[:, None] * width + columns[None, :], inside, PARTS)
            minima = group_minima(tl.load(Offsets + rows)[None, :] - product, BLOCK_Q, BLOCK_N, BLOCK_N // LANES)
            low, rival, where = track(minima, block, low, rival, where)
        radius = radius_in(Bounds, norm, error, D, METRIC, PARTS)
        settle(points, some, low, rival, where, radius, Groups, Left, LeftCount, D, LANES)


@triton.jit(do_not_specialize=["N", "K", "padded"])
def groups_narrow(X, Columns, Centre, Largest, Offsets, Bounds, PointNorms, Groups, Left, LeftCount, N, K, padded, D: tl.constexpr,
                  METRIC: tl.constexpr, GROUP: tl.constexpr, BLOCK_Q: tl.constexpr, BLOCK_N: tl.constexpr):  # fmt: skip
    """Groups of BLOCK_Q points by products in float32; a block is BLOCK_N groups, whose centroids lie BLOCK_N apart."""
    points = tl.program_id(0).to(tl.int64) * BLOCK_Q + tl.arange(0, BLOCK_Q)
    some = points < N
    squares = tl.zeros([BLOCK_Q], tl.float32)
    if METRIC == COSINE:
        for column in tl.static_range(0, D):
            x = tl.load(X + points * D + column, mask=some, other=0.0)
            squares += x * x
    factor = factor_of(squares, Largest, METRIC)
    squares = tl.zeros([BLOCK_Q], tl.float32)
    values = ()
    for column in tl.static_range(0, D):
        value = (tl.load(X + points * D + column, mask=some, other=0.0) - tl.load(Centre + column)) * factor  # cosine's centre is 0
        squares += value * value
        values += (value,)  # type: ignore[assignment]  # Triton has no list, and mypy a type for each length of a tuple
    width = tl.full([], D, tl.int32)
    norm, error = point_bounds(squares, tl.zeros_like(squares), width, METRIC, 0)
    tl.store(PointNorms + points, norm, mask=some)
    low, rival, where = start_of(BLOCK_Q, BLOCK_N)
    for block in range(0, tl.cdiv(K, GROUP * BLOCK_N)):
        least = tl.full([BLOCK_Q, BLOCK_N], float("inf"), tl.float32)
        for member in range(0, tl.minimum(GROUP, tl.cdiv(K - block * GROUP * BLOCK_N, BLOCK_N))):
            rows = (block * GROUP + member) * BLOCK_N + tl.arange(0, BLOCK_N)
            key = tl.zeros([BLOCK_Q, BLOCK_N], tl.float32) + tl.load(Offsets + rows)[None, :]
            for column in tl.static_range(0, D):
                key -= values[column][:, None] * tl.load(Columns + column * padded + rows)[None, :]
            least = tl.minimum(least, key)
        low, rival, where = track(least, block, low, rival, where)
    radius = radius_in(Bounds, norm, error, width, METRIC, 0)
    settle(points, some, low, rival, where, radius, Groups, Left, LeftCount, width, BLOCK_N)


@triton.jit(do_not_specialize=["K", "none"])
def groups_exact(X, C, Groups, Left, LeftCount, K, none, D, METRIC: tl.constexpr, SIZE: tl.constexpr, ACROSS: tl.constexpr,
                 TOGETHER: tl.constexpr, BLOCK_Q: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr):  # fmt: skip
    """Groups of listed points by direct differences, their labels where a group is one centroid; `none` for a point that is not finite."""
    for tile in range(tl.program_id(0), tl.cdiv(tl.load(LeftCount), BLOCK_Q), tl.num_programs(0)):
        points, some = listed(Left, LeftCount, tile, 0, True, BLOCK_Q)
        squares = squares_of(X, points, some, D, BLOCK_Q, BLOCK_D)
        best = tl.full([BLOCK_Q], NOTHING, tl.int64)
        for start in range(0, K, BLOCK_N):
            rows = start + tl.arange(0, BLOCK_N).to(tl.int64)
            key = direct_keys(X, C, points, rows, some, rows < K, D, METRIC, BLOCK_Q, BLOCK_N, BLOCK_D)
            best = tl.minimum(best, tl.min(pack(key, rows[None, :], (rows < K)[None, :]), axis=1))
        group = tl.where(squares < float("inf"), group_of(best & 0xFFFFFFFF, SIZE, ACROSS, TOGETHER), none)
        tl.store(Groups + points, group.to(Groups.dtype.element_ty), mask=some)
