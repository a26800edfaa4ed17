"""Selection in Triton: the k best of each row, of floats, or of packed candidates (see `kernels.packing`) for other operators.

Rows of up to TILE elements are held in registers by a program each (`triton_row`). Longer ones are read by programs that
write the k smallest of a segment, and not many more, to a list (`triton_stream`); the lists of a row's segments are its next,
shorter row. All of it is exact for any data, and nothing waits for the host.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton

from kernels.contract import Block
from kernels.topk.triton_row import topk_row, topk_sort
from kernels.topk.triton_stream import topk_stream

BLOCK: Block = {"TILE": 16384, "KEYS": 32, "REGISTERS": 128}
"""The sizes of a selection for another operator, whose tuned tables know nothing of them."""
SCRATCH = 1 << 30
"""Bytes of lists that a call stays within, whatever the number of rows."""
PROGRAMS = 512
"""Programs that long rows are cut into segments for, at most: some for each multiprocessor of a large GPU."""
STREAM_REGISTERS = 40
"""Registers of a thread that reads a segment: three programs of 16 warps then share a multiprocessor, and hide each other's waiting."""
LEAST = 16
"""A tile's least size in units of k: with smaller ones the next, shorter rows would be little shorter."""
SHORT = 64
"""Rows of no more elements are sorted whole."""
NARROW = 1024
"""From so many collected candidates on, the k best of them are found by bisection before they are sorted."""


@dataclass(frozen=True)
class Plan:
    """The sizes with which the k best of each row are selected.

    tile: elements that a program holds at most; keys: elements that a thread holds; registers: of a thread, at most.
    """

    k: int
    tile: int
    keys: int
    registers: int

    @property
    def kept(self) -> int:
        return triton.next_power_of_2(self.k)

    @property
    def buckets(self) -> int:
        """Minima among which the bound is sought.

        Of n elements that do not exceed the k-th smallest of B minima, k = B (1 - exp(-n / B)) on average: 5 k minima
        let n be 1.12 k; from some hundreds on, where chance matters less, 4 k suffice.
        """
        return triton.next_power_of_2(self.k * (5 if self.k < 512 else 4))

    @property
    def width(self) -> int:
        """Slots of a segment's list: room for what lies below the bound in all but contrived data."""
        return triton.cdiv(self.k + max(6, self.k // 4), 16) * 16

    @property
    def room(self) -> int:
        """Slots of the last list of a row, of which `sorted` are sorted."""
        return triton.next_power_of_2(self.k + max(6, self.k // 4))

    @property
    def sorted(self) -> int:
        return self.room if self.room < NARROW else self.kept

    @property
    def lanes(self) -> int:
        """Columns of what a program reads at once of a segment."""
        return 32 * min(16, self.warps(self.tile))

    @property
    def depth(self) -> int:
        """Slots of each lane of a segment: several times the average, and the average with all that chance may add."""
        return triton.next_power_of_2(8 + 4 * self.k // self.lanes)

    def segments(self, rows: int, columns: int) -> int:
        return min(triton.cdiv(columns, self.tile), max(1, PROGRAMS // rows))

    def warps(self, elements: int) -> int:
        return min(32, max(1, elements // (32 * self.keys)))

    def row_sizes(self, columns: int) -> dict[str, int]:
        """The compile-time sizes of a program that holds a row."""
        tile = triton.next_power_of_2(columns)
        warps = max(self.warps(tile), self.sorted // 256)  # sorting more elements a thread takes long to compile
        sizes = {"TILE": tile, "LANES": 32 * warps, "BUCKETS": min(tile, max(32 * warps, self.buckets)), "KEPT": self.kept}
        registers = min(self.registers, 65536 // (32 * warps))
        return {**sizes, "ROOM": self.room, "SIZE": self.sorted, "num_warps": warps, "maxnreg": registers}

    def stream_sizes(self) -> dict[str, int]:
        """The compile-time sizes of a program that reads a segment."""
        buckets = max(self.lanes, self.buckets)
        sizes = {"ROWS": max(8, buckets // self.lanes), "LANES": self.lanes, "BUCKETS": buckets, "KEPT": self.kept}
        sizes |= {"ROOM": triton.next_power_of_2(self.width), "DEPTH": self.depth}
        return {**sizes, "num_warps": self.lanes // 32, "maxnreg": STREAM_REGISTERS}


def smallest(packed: torch.Tensor, k: int, block: Block | None = None) -> torch.Tensor:
    """The k smallest of each row of packed candidates [R, M] (int64, contiguous), ascending, as [R, k]; NONE where M < k.

    Upper halves are keys of floats and lower ones ids below 2^31, as `kernels.packing` makes them. NONE may repeat, and so may
    others. `k` is 1 to 2048.
    """
    found = torch.empty((len(packed), k), dtype=torch.int64, device=packed.device)
    select(packed, k, block or BLOCK, packed=found)
    return found


def select(rows: torch.Tensor, k: int, block: Block, *, largest: bool = False, packed: torch.Tensor | None = None,
           values: torch.Tensor | None = None, ids: torch.Tensor | None = None) -> None:  # fmt: skip
    """Write the k best of each of `rows` [R, M] to `packed`, or to `values` and `ids`, all [R, k]; floats, or packed candidates.

    Rows are taken in chunks that keep the lists within SCRATCH bytes.
    """
    plan = Plan(k, max(block["TILE"], LEAST * max(8, triton.next_power_of_2(k))), block["KEYS"], block["REGISTERS"])
    segment = plan.width + plan.depth * plan.lanes if rows.shape[1] > plan.tile else 0  # PROGRAMS of them, or one a row
    step = SCRATCH // (8 * (segment + plan.room))
    for first in range(0, len(rows), step):
        part = slice(first, min(first + step, len(rows)))
        outputs = tuple(None if output is None else output[part] for output in (packed, values, ids))
        _select(rows[part], plan, largest, outputs)


def _select(rows: torch.Tensor, plan: Plan, largest: bool, outputs: tuple[torch.Tensor | None, ...]) -> None:
    count, columns = rows.shape
    flags = {"PACKED": rows.dtype == torch.int64, "LARGEST": largest}

    def scratch(*shape: int) -> torch.Tensor:
        return torch.empty(shape, dtype=torch.int64, device=rows.device)

    left = columns
    while left > plan.tile:
        segments = plan.segments(count, left)
        lists, slots = scratch(count, segments * plan.width), scratch(count, segments, plan.depth, plan.lanes)
        topk_stream[(count * segments,)](rows, lists, slots, left, plan.k, plan.width, segments, **plan.stream_sizes(), **flags)
        rows, left, flags["PACKED"] = lists, lists.shape[1], True
    flags["UNPACK"] = outputs[0] is None
    if left <= max(plan.kept, SHORT):
        size = triton.next_power_of_2(max(left, plan.k))
        topk_sort[(count,)](rows, *outputs, left, columns, plan.k, SIZE=size, **flags, num_warps=plan.warps(8 * size))
    else:
        lists = scratch(count, plan.room)
        topk_row[(count,)](rows, lists, *outputs, left, columns, plan.k, **plan.row_sizes(left), **flags)
