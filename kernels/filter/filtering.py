"""A collection ready to be filtered, by the kernel that suits it. What a filter is stands in `kernels.filter`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import triton

from kernels.contract import Block
from kernels.distance.triton_columns import shares
from kernels.filter import FEW, NARROW, TILE
from kernels.filter.columns import minima_columns
from kernels.filter.groups import Grouping
from kernels.filter.prepare import COLUMNS, HALF, TF32, Frame, Prepared, frame, half_width, prepare
from kernels.filter.raw import minima_raw_held, minima_raw_looped
from kernels.filter.tensor_cores import ACROSS, TOGETHER, minima_held, minima_looped
from kernels.metrics import NUMBER


@dataclass(frozen=True)
class Bounds:
    """The least keys `minima` [Q, groups] of groups and `least` [Q, spans] of spans of them; n and e of the queries [Q] and, as the largest
    of their rows, of each `sharing` spans. A span is `length` groups, `abreast` spans interleaved."""

    minima: torch.Tensor
    least: torch.Tensor
    query_norms: torch.Tensor
    query_errors: torch.Tensor
    norms: torch.Tensor
    errors: torch.Tensor
    sharing: int
    abreast: int
    length: int

    def fine(self) -> Bounds:
        """The same with every group as a span of its own: for a k that so few spans cannot tell apart."""
        sharing = self.sharing * self.length
        return Bounds(self.minima, self.minima, self.query_norms, self.query_errors, self.norms, self.errors, sharing, 1, 1)


class Filter:
    """Filters `rows` [N, D], N at least 1, for about `queries` queries.

    `block`: BLOCK_Q and BLOCK_N are the tile, GROUP the rows a group. Up to HELD columns (half as many of rows as they are) queries are
    held whole, and a program takes SPAN tiles; beyond, BLOCK_D columns are a step. num_warps, num_stages and maxnreg are Triton's.
    A tile in float32 has half the queries, rows and warps: its threads keep two numbers a pair, and twice as many operands.
    `groups` is the number of groups, and `grouping` says which rows they have.
    """

    def __init__(self, metric: str, rows: torch.Tensor, queries: int, block: Block) -> None:
        self.metric, self.rows = metric, rows
        n, d = rows.shape
        self.half = metric != "l1" and d >= NARROW
        copied = not self.half or queries > FEW
        self.held = half_width(d) <= block["HELD"] // (1 if copied else 2)
        if not self.half:
            block = block | {axis: block[axis] // 2 for axis in ("BLOCK_Q", "BLOCK_N", "num_warps")}
        self.block = block
        tile, group = block["BLOCK_N"], block["GROUP"]
        if not self.half:
            self.grouping, self._span = Grouping(group, tile, 1), tile * group
        else:
            self.grouping, self._span = Grouping(group, ACROSS, TOGETHER), tile * block["SPAN"] if self.held else max(tile, TILE)
        self._padded = triton.cdiv(n, self._span) * self._span
        self.groups = self._padded // group
        self.frame: Frame | None = None
        self._prepared: Prepared | None = None
        if copied:
            self.frame = frame(metric, rows) if metric != "l1" else None
            self._prepared = prepare(metric, rows, self.frame, HALF if self.half else COLUMNS, self._span)

    def bounds(self, queries: torch.Tensor) -> Bounds:
        """The bounds of every group for each of `queries` [Q, D]."""
        form = COLUMNS if not self.half else HALF if self._prepared else TF32
        ready = prepare(self.metric, queries, self.frame, form)
        tile, group = self.block["BLOCK_N"], self.block["GROUP"]
        abreast = tile // group if self.half and self.held else 1
        length = self.block["SPAN"] if self.half and self.held else tile if not self.half else tile // group
        minima = torch.empty((len(queries), self.groups), device=queries.device)
        least = torch.empty((len(queries), self.groups // length), device=queries.device)
        if self._prepared is None:
            norms, errors = self._raw(ready, minima, least)
        else:
            (self._tensor_cores if self.half else self._columns)(ready, self._prepared, minima, least)
            norms, errors = self._prepared.norms, self._prepared.errors
        sharing = least.shape[1] // len(norms)
        return Bounds(minima, least, ready.norms, ready.errors, norms, errors, sharing, abreast, length)

    def _launch(self, minima: torch.Tensor) -> tuple[int, dict[str, Any]]:
        """Programs, where each takes a tile or a span, and the kernels' constants."""
        span = self.block["BLOCK_N"] if self.half and not self.held else self._span
        sizes = {axis: self.block[axis] for axis in ("GROUP", "BLOCK_Q", "BLOCK_N", "num_warps", "num_stages", "maxnreg")}
        return triton.cdiv(len(minima), self.block["BLOCK_Q"]) * (self._padded // span), sizes

    def _columns(self, queries: Prepared, rows: Prepared, minima: torch.Tensor, least: torch.Tensor) -> None:
        programs, options = self._launch(minima)
        d, tile = self.rows.shape[1], shares(options["BLOCK_Q"], options["BLOCK_N"], options["num_warps"])
        minima_columns[(programs,)](
            queries.values, rows.values, rows.offsets, minima, least, len(minima), self.groups, least.shape[1],
            queries.values.shape[1], self._padded, d, METRIC=NUMBER[self.metric], NARROW=d if d < NARROW else 0, **options, **tile,
        )  # fmt: skip

    def _tensor_cores(self, queries: Prepared, rows: Prepared, minima: torch.Tensor, least: torch.Tensor) -> None:
        programs, options = self._launch(minima)
        width = rows.values.shape[1]
        arguments = (queries.values, rows.values, rows.offsets, minima, least, len(minima), self.groups, least.shape[1])
        if self.held:
            minima_held[(programs,)](*arguments, self.block["SPAN"], width, BLOCK_D=triton.next_power_of_2(width), **options)
        else:
            minima_looped[(programs,)](*arguments, width, BLOCK_D=self.block["BLOCK_D"], **options)

    def _raw(self, queries: Prepared, minima: torch.Tensor, least: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Filter the rows as they are; their n and e."""
        programs, options = self._launch(minima)
        options |= {"METRIC": NUMBER[self.metric]}
        norms, errors = torch.empty((2, self._padded // (self._span if self.held else self.block["BLOCK_N"])), device=minima.device)
        (n, d), width, span = self.rows.shape, queries.values.shape[1], self.block["SPAN"]
        arguments = (queries.values, self.rows, minima, least, norms, errors, len(minima), n, self.groups, least.shape[1])
        if self.held:
            minima_raw_held[(programs,)](*arguments, span, d, width, BLOCK_D=triton.next_power_of_2(width), **options)
        else:
            minima_raw_looped[(programs,)](*arguments, d, width, BLOCK_D=self.block["BLOCK_D"] // 2, **options)
        return norms, errors
