"""Which groups of the filter may hold a query's k nearest rows. See `kernels.filter`.

The k-th smallest upper bound of a group's least key bounds the k-th nearest row from above: k different groups each have a row within
it. A group whose lower bound is above cannot hold one. The bound is taken from buckets of groups, whose least upper bounds are fewer;
that makes it a little larger than need be, never smaller.
"""

from __future__ import annotations

import triton
import triton.language as tl

from kernels.filter.groups import radius_of

HALVINGS = tl.constexpr(20)
"""Steps in which the k-th smallest bucket is enclosed; what is left of the interval only lets a group more through."""


@triton.jit
def kth_above(values, k):
    """A number that at least k of `values` do not exceed, close to the k-th smallest; infinity where fewer are finite."""
    finite = tl.abs(values) < float("inf")
    low = tl.min(tl.where(finite, values, float("inf")), axis=0)
    high = tl.max(tl.where(finite, values, -float("inf")), axis=0)
    enough = tl.sum(finite.to(tl.int32), axis=0) >= k
    for _ in range(HALVINGS):
        middle = 0.5 * low + 0.5 * high
        below = tl.sum((finite & (values <= middle)).to(tl.int32), axis=0) >= k
        high = tl.where(below, middle, high)
        low = tl.where(below, low, middle)
    return tl.where(enough, high, float("inf"))


@triton.jit
def span_bounds(Least, Norms, Errors, query, query_norm, query_error, span, spans, D, METRIC: tl.constexpr, SHARING: tl.constexpr):
    """(lower, upper) bounds of the least keys of spans; SHARING spans have the same norm and error."""
    there = span < spans
    least = tl.load(Least + query * spans + span, mask=there, other=float("inf"))
    norm = tl.load(Norms + span // SHARING, mask=there, other=0.0)
    error = tl.load(Errors + span // SHARING, mask=there, other=0.0)
    radius = radius_of(least, query_norm, query_error, norm, error, D, METRIC)
    return least - radius, least + radius


@triton.jit(do_not_specialize=["k", "capacity"])
def select_kernel(Minima, Least, QueryNorms, QueryErrors, Norms, Errors, Spans, SpanCounts, Chosen, Counts, Left, LeftCount, groups, spans,
                  k, capacity, D, METRIC: tl.constexpr, BUCKETS: tl.constexpr, SHARING: tl.constexpr, ABREAST: tl.constexpr,
                  LENGTH: tl.constexpr):  # fmt: skip
    """The groups of one query that may hold its k nearest rows, in any order, and their count.

    Spans of LENGTH groups, ABREAST of them interleaved, are looked at first, and into those that may hold one. A query with more of
    either than `capacity` is put on the list Left instead; LeftCount must be zero before.
    """
    query = tl.program_id(0).to(tl.int64)
    norm, error = tl.load(QueryNorms + query), tl.load(QueryErrors + query)
    smallest = tl.full([BUCKETS], float("inf"), tl.float32)
    for start in range(0, spans, BUCKETS):
        span = start + tl.arange(0, BUCKETS)
        _, upper = span_bounds(Least, Norms, Errors, query, norm, error, span, spans, D, METRIC, SHARING)
        smallest = tl.minimum(smallest, tl.where(upper == upper, upper, float("inf")))
    bound = kth_above(smallest, k)
    tl.store(SpanCounts + query, 0)
    tl.store(Counts + query, 0)
    tl.debug_barrier()
    for start in range(0, spans, BUCKETS):
        span = start + tl.arange(0, BUCKETS)
        lower, _ = span_bounds(Least, Norms, Errors, query, norm, error, span, spans, D, METRIC, SHARING)
        maybe = (span < spans) & ((lower > bound) == 0)
        place = tl.atomic_add(SpanCounts + query + tl.zeros_like(span), 1, mask=maybe)
        tl.store(Spans + query * capacity + place, span, mask=maybe & (place < capacity))
    tl.debug_barrier()
    count = tl.atomic_add(SpanCounts + query, 0)
    each = tl.arange(0, LENGTH)
    for place in range(0, tl.minimum(count, capacity)):
        span = tl.load(Spans + query * capacity + place)
        group = span // ABREAST * (ABREAST * LENGTH) + each * ABREAST + span % ABREAST
        least = tl.load(Minima + query * groups + group)
        radius = radius_of(least, norm, error, tl.load(Norms + span // SHARING), tl.load(Errors + span // SHARING), D, METRIC)
        maybe = (least - radius > bound) == 0  # so that NaN, of which nothing is known, goes through
        slot = tl.atomic_add(Counts + query + tl.zeros_like(group), 1, mask=maybe)
        tl.store(Chosen + query * capacity + slot, group, mask=maybe & (slot < capacity))
    tl.debug_barrier()
    if (count > capacity) | (tl.atomic_add(Counts + query, 0) > capacity):
        tl.store(Left + tl.atomic_add(LeftCount, 1), query.to(tl.int32))
        tl.store(Counts + query, 0)
