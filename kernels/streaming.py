"""Rows of a host array, a chunk at a time, on a device that has no room for all: one chunk is on its way while the other is used.

What is sent must lie in pinned memory first. A few pinned pieces in turn, small enough for the CPU's cache and filled by all cores, are
filled twice as fast as a buffer of a chunk's size would be (measured: see docs/log.md), and faster than the link takes them.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np

from analysis.environment import usable_cores

PIECE = 16 << 20
"""Bytes of a pinned piece."""
PIECES = 4


def chunks(rows: np.ndarray, count: int, device: str) -> Iterator[tuple[int, Any]]:
    """(first row, torch tensor [<= count, D] on `device`) of consecutive rows of `rows` [N, D], a NumPy array or a memory-mapped file.

    On a GPU two buffers of `count` rows lie there. A chunk may be used by work that is queued on the current stream before the next is
    asked for; on a CPU a chunk is the array's own memory.
    """
    import torch

    starts = range(0, len(rows), count)
    if torch.device(device).type == "cpu":
        for start in starts:
            yield start, _tensor(rows[start : start + count])
        return
    sender = _Sender(rows, min(count, len(rows)), device)
    threads = torch.get_num_threads()
    torch.set_num_threads(usable_cores())
    try:
        if len(starts):
            sender.send(0, 0)
        for number, start in enumerate(starts):
            yield start, sender.arrived(number % 2)
            sender.release(number % 2)
            if number + 1 < len(starts):
                sender.send(starts[number + 1], (number + 1) % 2)
    finally:
        torch.set_num_threads(threads)


class _Sender:
    """Two buffers on a device, pinned pieces on the host, and a stream that copies from these to those."""

    def __init__(self, rows: np.ndarray, count: int, device: str) -> None:
        import torch

        self._torch, self._rows, self._count, self._device = torch, rows, count, device
        dtype, width = getattr(torch, rows.dtype.name), rows.shape[1]
        self._step = max(1, PIECE // (width * rows.dtype.itemsize))
        self._pieces = [torch.empty((min(self._step, count), width), dtype=dtype, pin_memory=True) for _ in range(PIECES)]
        self._there = [torch.empty((count, width), dtype=dtype, device=device) for _ in range(2)]
        self._stream = torch.cuda.Stream(device)
        self._free = [torch.cuda.Event() for _ in range(PIECES)]
        self._sent, self._used = ([torch.cuda.Event() for _ in range(2)] for _ in range(2))
        self._sizes, self._turn = [0, 0], 0

    def send(self, start: int, place: int) -> None:
        """Queue the copy of a chunk; waits for pieces to become free, not for the device's buffer."""
        size = self._sizes[place] = min(self._count, len(self._rows) - start)
        self._stream.wait_event(self._used[place])
        for first in range(0, size, self._step):
            last = min(first + self._step, size)
            piece, free = self._pieces[self._turn][: last - first], self._free[self._turn]
            free.synchronize()
            piece.copy_(_tensor(self._rows[start + first : start + last]))
            with self._torch.cuda.stream(self._stream):
                self._there[place][first:last].copy_(piece, non_blocking=True)
                free.record(self._stream)
            self._turn = (self._turn + 1) % PIECES
        self._sent[place].record(self._stream)

    def arrived(self, place: int) -> Any:
        """The chunk in a buffer; the current stream waits for it."""
        self._torch.cuda.current_stream(self._device).wait_event(self._sent[place])
        return self._there[place][: self._sizes[place]]

    def release(self, place: int) -> None:
        """A buffer may be written again after what is queued on the current stream."""
        self._used[place].record(self._torch.cuda.current_stream(self._device))


def _tensor(rows: np.ndarray) -> Any:
    """Rows as a torch tensor in the same memory, which is only read, where they are contiguous."""
    import torch

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(np.ascontiguousarray(rows))
