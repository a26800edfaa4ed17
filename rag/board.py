"""What the instances of a service tell each other: a number a slot in shared memory, which one process writes and all read."""

from __future__ import annotations

from multiprocessing.context import SpawnContext

STAGES = ("find", "write", "answer", "embed")
"""What the stages of an engine may be called."""


class Board:
    """For each instance the requests that it has in hand and how often each of its stages was started anew (which it writes), and how
    often it itself was (which its parent writes)."""

    def __init__(self, instances: int) -> None:
        shared = SpawnContext()
        self._running, self._restarts = shared.RawArray("q", instances), shared.RawArray("q", instances)
        self._broke = {name: shared.RawArray("q", instances) for name in STAGES}

    @property
    def instances(self) -> int:
        return len(self._running)

    @property
    def running(self) -> int:
        return sum(self._running)

    @property
    def restarts(self) -> int:
        return sum(self._restarts)

    @property
    def stages(self) -> dict[str, int]:
        """How often each stage was started anew, over all instances, those that have died among them."""
        return {name: sum(counts) for name, counts in self._broke.items()}

    def broke(self, instance: int, stage: str) -> None:
        self._broke[stage][instance] += 1

    def tell(self, instance: int, running: int) -> None:
        self._running[instance] = running

    def restarted(self, instance: int) -> None:
        """Count a restart of an instance, which has nothing in hand any more."""
        self._running[instance] = 0
        self._restarts[instance] += 1
