"""What the instances of a service tell each other: a number a slot in shared memory, which one process writes and all read."""

from __future__ import annotations

from multiprocessing.context import SpawnContext


class Board:
    """For each instance the requests that it has in hand (which it writes) and how often it was started anew (which its parent writes)."""

    def __init__(self, instances: int) -> None:
        shared = SpawnContext()
        self._running, self._restarts = shared.RawArray("q", instances), shared.RawArray("q", instances)

    @property
    def instances(self) -> int:
        return len(self._running)

    @property
    def running(self) -> int:
        return sum(self._running)

    @property
    def restarts(self) -> int:
        return sum(self._restarts)

    def tell(self, instance: int, running: int) -> None:
        self._running[instance] = running

    def restarted(self, instance: int) -> None:
        """Count a restart of an instance, which has nothing in hand any more."""
        self._running[instance] = 0
        self._restarts[instance] += 1
