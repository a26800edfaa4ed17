"""Compiles Triton kernels for a GPU that is not there, and leaves a cache that a GPU job hits.

A backend is run on tensors without data, with every launch turned into a compilation for the wanted architecture. What
is compiled is therefore exactly what a real run asks for: the same signature, specialisation, constants and options,
hence the same cache key. Triton's version and Python's minor version are part of that key: both machines must share them.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kernels import misses

_GROUP = "__grp__"


@dataclass(frozen=True)
class Compiled:
    """A kernel that a backend launched: Triton's compiled object, seconds, and whether the cache had it."""

    name: str
    kernel: Any
    seconds: float
    cached: bool


@functools.cache
def settle_keys() -> None:
    """Make the keys of Triton's cache independent of the order in which a process first launches its kernels.

    A kernel's key holds the constants that it and the functions it calls refer to. Triton (3.6 and 3.7) merges those of a called function
    before it has looked for them, so that they are in the key only if something had launched that function before. A sweep launches in
    random order, and would miss what the compile stage made in another.
    """
    from triton.runtime.jit import DependenciesFinder

    merge = DependenciesFinder._update_hash

    def settled(finder: Any, called: Any) -> None:
        _ = called.cache_key  # finds the constants that it refers to
        merge(finder, called)

    DependenciesFinder._update_hash = settled


@contextlib.contextmanager
def compiling(architecture: int) -> Iterator[list[Compiled]]:
    """Within it, launching a Triton kernel compiles it for `architecture` (90 for sm_90) and runs nothing.

    Yields the list that the compiled kernels are added to, in the order of the launches. One architecture a process:
    Triton keeps the target of the first.
    """
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.backends.driver import DriverBase
    from triton.runtime.jit import JITFunction

    settle_keys()

    class Offline(DriverBase):
        """Stands in for the CUDA driver: it names the target, and there is no device to launch on."""

        @classmethod
        def is_active(cls) -> bool:
            return True

        def get_current_target(self) -> GPUTarget:
            return GPUTarget("cuda", architecture, 32)

        def get_current_device(self) -> int:
            return 0

        def get_current_stream(self, device: int) -> int:
            return 0

        def map_python_to_cpp_type(self, ty: str) -> str:
            raise RuntimeError(f"{ty}: nothing is launched while compiling")

        get_active_torch_device = get_benchmarker = get_current_device

    compiled: list[Compiled] = []
    launch, listener = JITFunction.run, triton.knobs.compilation.listener
    hits: list[bool] = []

    def compile_only(self: Any, *arguments: Any, grid: Any, warmup: bool, **options: Any) -> Any:
        hits.clear()
        start = time.perf_counter()
        kernel = launch(self, *arguments, grid=grid, warmup=True, **options)
        # without a call of the listener this process had compiled the same kernel before
        compiled.append(Compiled(self.__name__, kernel, time.perf_counter() - start, all(hits)))
        return kernel

    def listen(*, src: Any, metadata: Any, metadata_group: dict[str, str], cache_hit: bool, **_: Any) -> None:
        hits.append(cache_hit)
        described = Path(next(iter(metadata_group.values()))).with_name(misses.FILE)
        if not cache_hit or not described.exists():
            misses.describe(described, misses.of_triton(src, metadata))

    triton.knobs.compilation.listener = listen
    triton.runtime.driver.set_active(Offline())
    JITFunction.run = compile_only
    try:
        yield compiled
    finally:
        JITFunction.run = launch
        triton.knobs.compilation.listener = listener


class Watch:
    """Counts the compiled kernels that this process found in its caches, Triton's and the cubins', and explains those it had to compile."""

    def __init__(self, cache: Path) -> None:
        import triton

        from kernels import cuda

        settle_keys()
        self._cache, self._hits, self._explained = cache, 0, dict[str, str]()
        triton.knobs.compilation.listener = self._triton
        self._build, triton.runtime.build._build = triton.runtime.build._build, self._host_code
        cuda.missed = lambda source, architecture: self._missed(misses.of_cuda(source, architecture))

    @property
    def hits(self) -> int:
        from kernels import cuda

        return self._hits + cuda.hits

    @property
    def missed(self) -> list[str]:
        """A line on each kernel that was compiled: why it was not found (see `kernels.misses`)."""
        return list(self._explained.values())

    def _triton(self, *, src: Any, metadata: Any, cache_hit: bool, **_: Any) -> None:
        if cache_hit:
            self._hits += 1
        else:
            self._missed(misses.of_triton(src, metadata))

    def _host_code(self, name: str, *arguments: Any) -> Any:
        self._explained[f"{name} {len(self._explained)}"] = f"{name}: host code that the C compiler built (see kernels.launchers)"
        return self._build(name, *arguments)

    def _missed(self, description: misses.Description) -> None:
        self._explained[json.dumps(description)] = misses.explain(description, self._cache)


def adopt(shipped: Path, local: Path) -> None:
    """Copy the cache folder `shipped`, made elsewhere, to `local` and make it this process's Triton and cubin cache.

    Triton's group files hold absolute paths, so they are rewritten for where they lie now. Working on a copy keeps the
    shipped cache as the compile stage left it, and its many small reads off a shared file system.
    """
    if shipped.is_dir():
        shutil.copytree(shipped, local, dirs_exist_ok=True)
    local.mkdir(parents=True, exist_ok=True)
    for group in local.glob(f"*/{_GROUP}*"):
        paths = json.loads(group.read_text())["child_paths"]
        group.write_text(json.dumps({"child_paths": {name: str(group.parent / name) for name in paths}}))
    os.environ["TRITON_CACHE_DIR"] = os.environ["BLOCKWISE_CUBIN_CACHE"] = str(local)
