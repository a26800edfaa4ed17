"""The host code that Triton builds with a C compiler when it first launches kernels: built beforehand, where these are compiled.

That is its helper for the CUDA driver and, before Triton 3.7, a launcher for each signature. Neither depends on a GPU: the cache's key is
the source and the platform. Only linking asks for the driver's library, for which a stub stands in.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

STUB = "void cuInit(void) {} void cuGetErrorString(void) {} void cuModuleLoadData(void) {} void cuLaunchKernelEx(void) {}"
"""Some of the driver's functions: a linker that drops libraries of which nothing is used keeps one of which something is."""


def build(kernels: Iterable[Any]) -> None:
    """Put the host code of compiled Triton kernels into Triton's cache; says so where the C compiler cannot do it, and goes on."""
    from triton.backends.nvidia import driver

    sources = {"cuda_utils": [Path(driver.dirname, "driver.c").read_text()]}
    if hasattr(driver, "make_launcher"):
        made = (driver.make_launcher(one.src.constants, dict(one.src.signature), _descriptors(one)) for one in kernels)
        sources["__triton_launcher"] = list(dict.fromkeys(made))
    missing = [(name, source) for name, group in sources.items() for source in group if not _cached(name, source)]
    if not missing:
        return
    try:
        with _stub() as folder:
            for name, source in missing:
                _compile(name, source, folder)
    except (OSError, RuntimeError, subprocess.CalledProcessError) as error:
        _tell(str(error).splitlines()[0])


def _descriptors(kernel: Any) -> Any:
    return getattr(kernel.metadata, "tensordesc_meta", None)


def _cached(name: str, source: str) -> bool:
    """Whether Triton would find it: by the key that `triton.runtime.build` makes."""
    from triton.runtime.build import platform_key
    from triton.runtime.cache import get_cache_manager

    key = hashlib.sha256((source + platform_key()).encode()).hexdigest()
    return get_cache_manager(key).get_file(name + (sysconfig.get_config_var("EXT_SUFFIX") or "")) is not None


def _compile(name: str, source: str, stub: str) -> None:
    from triton.backends.nvidia import driver
    from triton.runtime.build import compile_module_from_src

    with contextlib.suppress(ImportError):  # it is loaded once it is in the cache, for which there is no driver here
        compile_module_from_src(src=source, name=name, library_dirs=[stub], include_dirs=driver.include_dirs, libraries=["libcuda.so.1"])


@contextlib.contextmanager
def _stub() -> Iterator[str]:
    """A folder with a library that is called like the driver's."""
    with tempfile.TemporaryDirectory(prefix="blockwise-stub-") as folder:
        compiler = os.environ.get("CC") or shutil.which("gcc") or shutil.which("clang")
        if compiler:
            library = Path(folder, "libcuda.so.1")
            words = [compiler, "-shared", "-fPIC", "-x", "c", "-", "-Wl,-soname,libcuda.so.1", "-o", str(library)]
            subprocess.run(words, input=STUB, text=True, check=True)
        yield folder


@functools.cache
def _tell(reason: str) -> None:
    print(f"note: no host code for Triton's launches was built ({reason}): jobs build it on their nodes", file=sys.stderr)
