"""Rows of a host array, a chunk at a time, on a device that has no room for all: pinned double buffers, one copied while one is used."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np

PARTS = 8
"""Copies that a chunk is pinned and sent in, so that sending the first part need not wait for the last to be pinned."""


def chunks(rows: np.ndarray, count: int, device: str) -> Iterator[tuple[int, Any]]:
    """(first row, torch tensor [<= count, D] on `device`) of consecutive rows of `rows` [N, D], a NumPy array or a memory-mapped file.

    On a GPU two buffers of `count` rows lie there and two in pinned host memory. A chunk may be used until the next one but one is asked
    for, by work that is queued on the current stream before that; on a CPU a chunk is the array's own memory.
    """
    import torch

    starts = range(0, len(rows), count)
    if torch.device(device).type == "cpu":
        for start in starts:
            yield start, _tensor(rows[start : start + count])
        return
    sender = torch.cuda.Stream(device)
    shape, dtype = (min(count, len(rows)), rows.shape[1]), getattr(torch, rows.dtype.name)
    pinned = [torch.empty(shape, dtype=dtype, pin_memory=True) for _ in range(2)]
    there = [torch.empty(shape, dtype=dtype, device=device) for _ in range(2)]
    sent, used = ([torch.cuda.Event() for _ in range(2)] for _ in range(2))

    def send(number: int) -> None:
        """Queue the copy of a chunk; waits for the host's buffer, not for the device's."""
        start, place = starts[number], number % 2
        sent[place].synchronize()
        sender.wait_event(used[place])
        size = min(count, len(rows) - start)
        step = -(-size // PARTS)
        for first in range(0, size, step):
            part = slice(first, min(first + step, size))
            pinned[place][part].copy_(_tensor(rows[start + part.start : start + part.stop]))
            with torch.cuda.stream(sender):
                there[place][part].copy_(pinned[place][part], non_blocking=True)
        sent[place].record(sender)

    if len(starts):
        send(0)
    for number, start in enumerate(starts):
        current = torch.cuda.current_stream(device)
        current.wait_event(sent[number % 2])
        yield start, there[number % 2][: min(count, len(rows) - start)]
        used[number % 2].record(current)
        if number + 1 < len(starts):
            send(number + 1)


def _tensor(rows: np.ndarray) -> Any:
    """Rows as a torch tensor in the same memory, which is only read, where they are contiguous."""
    import torch

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(np.ascontiguousarray(rows))
