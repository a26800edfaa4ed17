"""The group of centroids that has each point's nearest one, straight from products of halves. See `kernels.kmeans.triton_impl`.

A group is one centroid, or a few that lie side by side in a thread's results. A tile of points meets all centroids in one program,
where each thread keeps the two or three least keys of groups that it computes for a point, and where two of them are; only at the end do
the LANES threads that share a point compare theirs. Where the second least is more than two radii from the least, the group is known;
where only the third is, two groups are left, which are compared by direct differences. All else meets the centroids again in two
halves (PARTS = 2), and what is open then is decided by direct differences with all.

A key carries its place in the last bits, so that a minimum is a place, too; the radii allow for what that cuts off. To compare is what
costs most beside the products, as minima go at half the rate of sums: groups of four take less than half of what single ones do.
"""

from __future__ import annotations

import triton
import triton.language as tl

from kernels.distance.triton_metric import COSINE
from kernels.filter import EXACTLY, TILE, tensor_cores
from kernels.filter.groups import group_of, group_rows, member_of
from kernels.kmeans.triton_halves import (
    HUGE,
    SECOND,
    direct_keys,
    factor_of,
    far,
    framed,
    loaded,
    measured,
    point_bounds,
    radius_in,
    row_keys,
    squares_of,
)
from kernels.packing.triton_packing import pack

SPAN = tl.constexpr(TILE)
PIECE = tl.constexpr(EXACTLY)
LANES = tl.constexpr(tensor_cores.ACROSS)
"""Threads that share a row of the tensor cores' results: each has every fourth pair of columns."""
EPSILON, TINY = tl.constexpr(2.0**-23), tl.constexpr(2.0**-100)
"""Of float32: the distance of neighbours, relative, and a value below which it is not looked for."""


@triton.jit
def centroid_of(group, member, SIZE: tl.constexpr):
    """The centroid (64-bit) that is a `member` of a group, from 0 to SIZE - 1; may lie beyond the last."""
    if SIZE == 1:
        return group.to(tl.int64) + member
    return group_rows(group, member, SIZE, LANES, 2)


@triton.jit
def group_with(centroid, SIZE: tl.constexpr):
    """The group that a centroid is in."""
    if SIZE == 1:
        return centroid
    return group_of(centroid, SIZE, LANES, 2)


@triton.jit
def member_with(centroid, SIZE: tl.constexpr):
    """Which member of its group a centroid is."""
    if SIZE == 1:
        return centroid * 0
    return member_of(centroid, SIZE, LANES, 2)


@triton.jit
def append(List, ListCount, points, which):
    """Put those of the points that `which` says on a list."""
    marked = which.to(tl.int32)
    count = tl.sum(marked, axis=0)
    if count > 0:
        place = tl.atomic_add(ListCount, count) + tl.cumsum(marked, axis=0) - 1
        tl.store(List + place, points.to(tl.int32), mask=which)


@triton.jit
def listed(List, ListCount, tile, N, LISTED: tl.constexpr, BLOCK_Q: tl.constexpr):
    """Tile `tile` of the points: of all, or of those on a list."""
    places = tile * BLOCK_Q + tl.arange(0, BLOCK_Q).to(tl.int64)
    if LISTED:
        some = places < tl.load(ListCount)
        return tl.load(List + places, mask=some, other=0).to(tl.int64), some
    return places, places < N


@triton.jit
def lesser(first, second, other_first, other_second):
    """The two least of two pairs of keys, each in order."""
    return tl.minimum(first, other_first), tl.minimum(tl.maximum(first, other_first), tl.minimum(second, other_second))


@triton.jit
def least_three(first, second, third, other_first, other_second, other_third):
    """The three least of two triples of keys, each in order."""
    loser, rest = tl.maximum(first, other_first), tl.minimum(second, other_second)
    last = tl.minimum(tl.maximum(loser, rest), tl.minimum(third, other_third))
    return tl.minimum(first, other_first), tl.minimum(loser, rest), last


@triton.jit
def found_in(key, SIZE: tl.constexpr, KEPT: tl.constexpr, BLOCK_Q: tl.constexpr, BLOCK_N: tl.constexpr):
    """The KEPT least keys [BLOCK_Q, LANES] of groups among those of each thread in a tile, with the group's place in the last bits.

    A group's key is the least of its SIZE centroids': with neighbours in a thread, so that none of this takes a word between threads.
    Where two are kept, the third of three may be as little as the second.
    """
    EACH: tl.constexpr = BLOCK_N // (LANES * SIZE)
    if SIZE == 1:
        place = (tl.arange(0, EACH // 2) * 2)[None, :, None, None] + tl.arange(0, 2)[None, None, None, :]
        left, right = tl.split(with_place(tl.reshape(key, [BLOCK_Q, EACH // 2, LANES, 2]), place, EACH))
        first, second = tl.minimum(left, right), tl.maximum(left, right)
    else:
        least = tl.min(tl.min(tl.reshape(key, [BLOCK_Q, EACH, SIZE // 2, LANES, 2]), axis=4), axis=2)
        first = with_place(least, tl.arange(0, EACH)[None, :, None], EACH)
        second = tl.full(first.shape, float("inf"), tl.float32)
    if KEPT == 2:
        first, second = tl.reduce((first, second), 1, lesser)
        return first, second, second
    else:
        return tl.reduce((first, second, tl.full(first.shape, float("inf"), tl.float32)), 1, least_three)


@triton.jit
def with_place(key, place, PLACES: tl.constexpr):
    """Keys that have a place, below PLACES, in their last bits."""
    return ((key.to(tl.int32, bitcast=True) & -PLACES) | place).to(tl.float32, bitcast=True)


@triton.jit
def start_of(BLOCK_Q: tl.constexpr):
    """What `kept` begins with."""
    none, block = tl.full([BLOCK_Q, LANES], HUGE, tl.float32), tl.zeros([BLOCK_Q, LANES], tl.int32)
    return none, none, none, block, block


@triton.jit
def kept(state, found, block, KEPT: tl.constexpr):
    """(three least keys, block of the first and of the second) of those so far and of those `found` in `block`; each lane apart."""
    first, second, third, first_block, second_block = state
    other_first, other_second, other_third = found
    nearer, later = other_first < first, other_second < second
    loser, loser_block = tl.maximum(first, other_first), tl.where(nearer, first_block, block)
    rest, rest_block = tl.minimum(second, other_second), tl.where(later, block, second_block)
    first_block, second_block = tl.where(nearer, block, first_block), tl.where(rest < loser, rest_block, loser_block)
    first, second = tl.minimum(first, other_first), tl.minimum(loser, rest)
    third = tl.minimum(tl.maximum(loser, rest), tl.minimum(third, other_third)) if KEPT == 3 else second
    return first, second, third, first_block, second_block


@triton.jit
def lane_of(key, least):
    """The first lane of each row of keys [BLOCK_Q, LANES] that has the least one, as [BLOCK_Q, 1]."""
    return tl.min(tl.where(key == least[:, None], tl.arange(0, LANES)[None, :], LANES - 1), axis=1)[:, None]


@triton.jit
def group_at(key, block, lane, SIZE: tl.constexpr, BLOCK_N: tl.constexpr):
    """The group of a lane's key: by its block and the last bits. Groups of one centroid have the number of that."""
    place = key.to(tl.int32, bitcast=True) & (BLOCK_N // (LANES * SIZE) - 1)
    lanes = tl.arange(0, LANES)[None, :]
    ids = block * (BLOCK_N // SIZE) + ((place // 2 * LANES + lanes) * 2 + place % 2 if SIZE == 1 else place * LANES + lanes)
    return tl.sum(tl.where(tl.arange(0, LANES)[None, :] == lane, ids, 0), axis=1)


@triton.jit
def ranked(state, SIZE: tl.constexpr, BLOCK_N: tl.constexpr):
    """(least, second, no more than the third key) [BLOCK_Q] of all lanes, and the groups of the first two."""
    first, second, third, first_block, second_block = state
    lanes = tl.arange(0, LANES)[None, :]
    least = tl.min(first, axis=1)
    winner = lane_of(first, least)
    own = group_at(first, first_block, winner, SIZE, BLOCK_N)
    won = lanes == winner
    first, second, first_block = tl.where(won, second, first), tl.where(won, third, second), tl.where(won, second_block, first_block)
    runner = tl.min(first, axis=1)
    lane = lane_of(first, runner)
    rival = group_at(first, first_block, lane, SIZE, BLOCK_N)
    return least, runner, tl.min(tl.where(lanes == lane, second, first), axis=1), own, rival


@triton.jit
def cut_off(packed, SIZE: tl.constexpr, BLOCK_N: tl.constexpr):
    """How far a key may be from what `found_in` made of it."""
    return (tl.abs(packed) + TINY) * (BLOCK_N // (LANES * SIZE) * EPSILON)


@triton.jit
def settle(points, some, state, radius, Groups, Rivals, Pairs, PairCount, Left, LeftCount, D, SIZE: tl.constexpr,
           BLOCK_N: tl.constexpr):  # fmt: skip
    """Write groups and rivals of points; list those that two groups are left for, and those that are open."""
    first, second, third, own, rival = ranked(state, SIZE, BLOCK_N)
    reach = first + cut_off(first, SIZE, BLOCK_N) + radius
    within = reach < 0.375 * far(D) * far(D)  # what lies far outside the frame is no candidate
    decided = within & (second - cut_off(second, SIZE, BLOCK_N) - radius > reach)
    pair = within & (third - cut_off(third, SIZE, BLOCK_N) - radius > reach) & (decided == 0)
    tl.store(Groups + points, own, mask=some)
    tl.store(Rivals + points, rival, mask=some & pair)
    append(Pairs, PairCount, points, some & pair)
    append(Left, LeftCount, points, some & (decided == 0) & (pair == 0))


@triton.jit
def halved(X, Centre, Largest, Factors, Room, points, some, D, width, METRIC: tl.constexpr, PARTS: tl.constexpr, BLOCK_Q: tl.constexpr,
           BLOCK_D: tl.constexpr):  # fmt: skip
    """Write points in one half or two to Room [PARTS, BLOCK_Q, columns]; their (n, e). For cosine also what brings each into the frame."""
    at, pitch = tl.arange(0, BLOCK_Q), tl.cdiv(width, BLOCK_D) * BLOCK_D
    squares = tl.zeros([BLOCK_Q], tl.float32)
    if METRIC == COSINE:
        squares = squares_of(X, points, some, D, BLOCK_Q, BLOCK_D)
    factor = factor_of(squares, Largest, METRIC)
    if METRIC == COSINE and PARTS == 1:
        tl.store(Factors + points, factor, mask=some)
    squares = tl.zeros([BLOCK_Q], tl.float32)
    errors = tl.zeros([BLOCK_Q], tl.float32)
    for start in range(0, width, BLOCK_D):
        columns = start + tl.arange(0, BLOCK_D)
        first, second, square, error = measured(framed(loaded(X, points, some, columns, D), Centre, columns, factor, D, METRIC), PARTS)
        place = Room + at[:, None] * pitch + columns[None, :]
        tl.store(place, first)
        if PARTS == 2:
            tl.store(place + BLOCK_Q * pitch, second)
        squares += square
        errors += error
    return point_bounds(squares, errors, D, METRIC, PARTS)


@triton.jit
def products(first, second, First, Second, place, inside, product, PARTS: tl.constexpr):
    """`product` and the products of points [points, columns] with the centroids at `place`."""
    rows = tl.load(First + place, mask=inside, other=0.0)
    product = tl.dot(first, tl.trans(rows), product)
    if PARTS == 2:
        second_rows = tl.load(Second + place, mask=inside, other=0.0)
        product += tl.dot(first, tl.trans(second_rows), tl.dot(second, tl.trans(rows))) * SECOND
    return product


@triton.jit
def span_products(mine, after, First, Second, at, begin, end, width, PARTS: tl.constexpr, BLOCK_Q: tl.constexpr, BLOCK_N: tl.constexpr,
                  BLOCK_D: tl.constexpr):  # fmt: skip
    """Products [BLOCK_Q, BLOCK_N] over the columns from `begin` to before `end`; second halves of points are `after` the first."""
    product = tl.zeros([BLOCK_Q, BLOCK_N], tl.float32)
    for start in range(begin, end, BLOCK_D):
        columns = start + tl.arange(0, BLOCK_D)
        inside = (columns < width)[None, :]
        first = tl.load(mine + columns[None, :])
        second = first
        if PARTS == 2:
            second = tl.load(mine + after + columns[None, :])
        product = products(first, second, First, Second, at + columns[None, :], inside, product, PARTS)
    return product


@triton.jit(do_not_specialize=["N", "tiles"])
def groups_kernel(X, Centre, Largest, First, Second, Offsets, Bounds, Factors, Room, Groups, Rivals, Pairs, PairCount, List, ListCount,
                  Left, LeftCount, N, tiles, D, width, METRIC: tl.constexpr, PARTS: tl.constexpr, SIZE: tl.constexpr,
                  HELD: tl.constexpr, LONG: tl.constexpr, KEPT: tl.constexpr, BLOCK_Q: tl.constexpr, BLOCK_N: tl.constexpr,
                  BLOCK_D: tl.constexpr):  # fmt: skip
    """The group of each point's nearest centroid, BLOCK_Q points at a time: of all, or for PARTS = 2 of those on a list.

    Room [programs, PARTS, BLOCK_Q, columns] is where each program has its points in half precision: tensor cores take from shared memory
    what was loaded, but what was computed only from registers, of which there are too few. HELD: BLOCK_D columns are all.
    LONG: there are more than PIECE, after which a sum is added up in float32 proper, as the radius presumes.
    """
    pitch = tl.cdiv(width, BLOCK_D) * BLOCK_D
    Room += tl.program_id(0).to(tl.int64) * (PARTS * BLOCK_Q) * pitch
    mine, after, held = Room + tl.arange(0, BLOCK_Q)[:, None] * pitch, BLOCK_Q * pitch, tl.arange(0, BLOCK_D)[None, :]
    count = N
    if PARTS == 2:
        count = tl.load(ListCount)
    for tile in range(tl.program_id(0), tl.cdiv(count, BLOCK_Q), tl.num_programs(0)):
        points, some = listed(List, ListCount, tile, N, PARTS == 2, BLOCK_Q)
        tl.debug_barrier()  # the tile before is read
        norm, error = halved(X, Centre, Largest, Factors, Room, points, some, D, width, METRIC, PARTS, BLOCK_Q, BLOCK_D)
        tl.debug_barrier()
        if HELD:
            first = tl.load(mine + held)
            second = first
            if PARTS == 2:
                second = tl.load(mine + after + held)
        state = start_of(BLOCK_Q)
        for block in range(0, tiles * SPAN // BLOCK_N):
            rows = block * BLOCK_N + tl.arange(0, BLOCK_N)
            at = rows[:, None].to(tl.int64) * width
            if HELD:
                none = tl.zeros([BLOCK_Q, BLOCK_N], tl.float32)
                product = products(first, second, First, Second, at + held, held < width, none, PARTS)
            else:
                product = span_products(
                    mine, after, First, Second, at, 0, tl.minimum(width, PIECE), width, PARTS, BLOCK_Q, BLOCK_N, BLOCK_D
                )
                if LONG:
                    for begin in range(PIECE, width, PIECE):
                        product += span_products(mine, after, First, Second, at, begin, tl.minimum(begin + PIECE, width), width, PARTS,
                                                 BLOCK_Q, BLOCK_N, BLOCK_D)  # fmt: skip
            key = tl.load(Offsets + rows)[None, :] - product
            state = kept(state, found_in(key, SIZE, KEPT, BLOCK_Q, BLOCK_N), block, KEPT)
        radius = radius_in(Bounds, norm, error, D, METRIC, PARTS)
        settle(points, some, state, radius, Groups, Rivals, Pairs, PairCount, Left, LeftCount, D, SIZE, BLOCK_N)


@triton.jit
def group_keys(X, C, points, some, group, K, D, METRIC: tl.constexpr, SIZE: tl.constexpr, ROWS: tl.constexpr, BLOCK_D: tl.constexpr):
    """The least direct key of each point with the centroids of a group, and the first that has it."""
    least = tl.full([ROWS], float("inf"), tl.float32)
    nearest = tl.full([ROWS], 0x7FFFFFFF, tl.int64)
    for member in tl.static_range(SIZE):
        ids = centroid_of(group, member, SIZE)
        key = tl.where(ids < K, row_keys(X, C, points, some, tl.minimum(ids, K - 1), D, METRIC, ROWS, BLOCK_D), float("inf"))
        nearest = tl.where(key < least, ids, nearest)
        least = tl.minimum(least, key)
    return least, nearest


@triton.jit(do_not_specialize=["K"])
def pairs_kernel(X, C, Groups, Rivals, Pairs, PairCount, K, D, METRIC: tl.constexpr, SIZE: tl.constexpr, ROWS: tl.constexpr,
                 BLOCK_D: tl.constexpr):  # fmt: skip
    """The one of two groups that has the nearer centroid of each listed point, of equals the first, by direct differences in float32."""
    for tile in range(tl.program_id(0), tl.cdiv(tl.load(PairCount), ROWS), tl.num_programs(0)):
        points, some = listed(Pairs, PairCount, tile, 0, True, ROWS)
        own = tl.load(Groups + points, mask=some, other=0).to(tl.int64)
        rival = tl.load(Rivals + points, mask=some, other=0).to(tl.int64)
        near, nearest = group_keys(X, C, points, some, own, K, D, METRIC, SIZE, ROWS, BLOCK_D)
        other, other_nearest = group_keys(X, C, points, some, rival, K, D, METRIC, SIZE, ROWS, BLOCK_D)
        swap = (other < near) | ((other == near) & (other_nearest < nearest))
        tl.store(Groups + points, rival.to(tl.int32), mask=some & swap)


@triton.jit(do_not_specialize=["K"])
def exact_kernel(X, C, Best, Left, LeftCount, K, D, METRIC: tl.constexpr, BLOCK_Q: tl.constexpr, BLOCK_N: tl.constexpr,
                 BLOCK_D: tl.constexpr):  # fmt: skip
    """Best: the least direct key of each listed point with its centroid, packed. Few points are left to many programs by parts of K."""
    tiles, blocks, programs = tl.cdiv(tl.load(LeftCount), BLOCK_Q), tl.cdiv(K, BLOCK_N), tl.num_programs(0)
    parts = tl.minimum(tl.maximum(programs // tl.maximum(tiles, 1), 1), blocks)
    for item in range(tl.program_id(0), tiles * parts, programs):
        points, some = listed(Left, LeftCount, item // parts, 0, True, BLOCK_Q)
        for block in range(item % parts, blocks, parts):
            rows = block * BLOCK_N + tl.arange(0, BLOCK_N).to(tl.int64)
            key = direct_keys(X, C, points, rows, some, rows < K, D, METRIC, BLOCK_Q, BLOCK_N, BLOCK_D)
            tl.atomic_min(Best + points, tl.min(pack(key, rows[None, :], (rows < K)[None, :]), axis=1), mask=some, sem="relaxed")


@triton.jit(do_not_specialize=["none"])
def unpack_kernel(X, Best, Groups, Left, LeftCount, none, D, SIZE: tl.constexpr, ROWS: tl.constexpr, BLOCK_D: tl.constexpr):
    """Groups of the listed points from what `exact_kernel` found; `none` for a point that is not finite."""
    for tile in range(tl.program_id(0), tl.cdiv(tl.load(LeftCount), ROWS), tl.num_programs(0)):
        points, some = listed(Left, LeftCount, tile, 0, True, ROWS)
        finite = squares_of(X, points, some, D, ROWS, BLOCK_D) < float("inf")
        group = group_with(tl.load(Best + points, mask=some, other=0) & 0xFFFFFFFF, SIZE)
        tl.store(Groups + points, tl.where(finite, group, none).to(tl.int32), mask=some)
