"""Repeated calls as captured CUDA graphs: where an operator's launches take the host longer than the GPU, one launch replays them all.

A graph holds the addresses of what it reads. So a call is replayed only for the very arrays that it was captured with, apart from those
that are copied into buffers of the graph's own, and results are copied out.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any

from kernels.contract import Arrays

CALLS = 2
"""Calls that go as they are before the next is captured, which costs some milliseconds and a synchronisation."""
KEPT = 16
"""Graphs kept, the last used ones; each holds on to its scratch."""


@dataclass
class _Entry:
    calls: int = 0
    graph: Any = None
    inputs: Arrays | None = None
    outputs: Arrays | None = None


class Graphs:
    """The graphs of one operator."""

    def __init__(self) -> None:
        self._entries: OrderedDict[Hashable, _Entry] = OrderedDict()
        self._lock = threading.Lock()

    def call(self, key: Hashable, function: Callable[[Arrays], Arrays], inputs: Arrays) -> Arrays:
        """`function(inputs)`, torch tensors on the current CUDA device, replayed from the third call with the same `key` on.

        `key` says all that the launches depend on but the content of `inputs`: their shapes, and the addresses of whatever else is read.
        """
        import torch

        if torch.cuda.is_current_stream_capturing():
            return function(inputs)
        key = key, torch.cuda.current_stream().cuda_stream
        with self._lock:
            entry = self._entries.setdefault(key, _Entry())
            self._entries.move_to_end(key)
            while len(self._entries) > KEPT:
                self._entries.popitem(last=False)
            if entry.calls < CALLS:
                entry.calls += 1
                return function(inputs)
            if entry.graph is None:
                entry.inputs = {name: array.clone() for name, array in inputs.items()}
                entry.graph = torch.cuda.CUDAGraph()
                with torch.cuda.graph(entry.graph, capture_error_mode="thread_local"):  # other threads may allocate meanwhile
                    entry.outputs = function(entry.inputs)
            assert entry.inputs is not None and entry.outputs is not None
            for name, array in inputs.items():
                entry.inputs[name].copy_(array)
            entry.graph.replay()
            return {name: array.clone() for name, array in entry.outputs.items()}
