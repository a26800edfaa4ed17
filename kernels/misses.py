"""Why a kernel had to be compiled on a GPU node although the compile stage ran.

The compile stage leaves a description beside each kernel in its cache: the parts that the cache's key is made of. A job that
does not find a kernel compares what it asks for with what was described, and names the parts that differ.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from analysis.cli import replacing

if TYPE_CHECKING:
    from kernels.cuda import CudaSource

Description = dict[str, str]
"""The parts of a cache key by name, `kernel` among them."""

FILE = "described.json"
_MOST = 4


def of_triton(src: Any, metadata: Mapping[str, Any]) -> Description:
    """The description of a Triton kernel, of what its compilation listener is given: the source object and the metadata."""
    from triton import __version__
    from triton.backends.nvidia.compiler import CUDAOptions
    from triton.compiler.compiler import get_cache_invalidating_env_vars

    parts: Description = {
        "kernel": src.name,
        "toolchain": f"Triton {__version__} under Python {platform.python_version_tuple()[0]}.{platform.python_version_tuple()[1]}",
        "environment": str(sorted(get_cache_invalidating_env_vars().items())),
        "source": src.fn.cache_key,
    }
    for number, (name, kind) in enumerate(src.signature.items()):
        value = src.constants.get((number,))
        parts[name] = f"{kind} {getattr(value, 'cache_key', value)} {src.attrs.get((number,), [])}"
    for option in dataclasses.fields(CUDAOptions):
        value = metadata.get(option.name)
        parts[option.name] = str([name for name, _ in value or ()] if option.name == "extern_libs" else value)  # keyed by content, not path
    return parts


def of_cuda(source: CudaSource, architecture: str) -> Description:
    """The description of a CUDA C++ source: see `kernels.cuda.cubin_name`."""
    from cupy.cuda import nvrtc

    return {
        "kernel": ", ".join(source.kernels),
        "toolchain": f"NVRTC {nvrtc.getVersion()[0]}",
        "source": hashlib.sha256(source.code.encode()).hexdigest(),
        "options": " ".join(source.options),
        "arch": architecture,
    }


def describe(path: Path, description: Description) -> None:
    """Write a description into a cache."""
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(description, indent=1))


def explain(description: Description, cache: Path) -> str:
    """One line on why `cache` did not have what `description` describes: the parts in which the nearest kernel there differs."""
    name = description["kernel"]
    there = [other for other in _described(cache) if other.get("kernel") == name]
    if not there:
        return f"{name}: the compile stage compiled no kernel of this name"
    differences = [_differing(description, other) for other in there]
    nearest, found = min(zip(differences, there, strict=True), key=lambda pair: len(pair[0]))
    if not nearest:
        return f"{name}: compiled with all the same parts, but its files were not found in the cache"
    words = [f"{part} {description.get(part)!r}, there {found.get(part)!r}" for part in nearest[:_MOST]]
    more = f" and {len(nearest) - _MOST} parts more" if len(nearest) > _MOST else ""
    return f"{name}: of {len(there)} compiled the nearest differs in {'; '.join(words)}{more}"


@functools.cache
def _described(cache: Path) -> list[Description]:
    """All descriptions in a cache, read once: where one kernel is missing all may be."""
    return [json.loads(path.read_text()) for path in cache.glob(f"*/{FILE}")]


def _differing(one: Description, other: Description) -> list[str]:
    return [part for part in {**one, **other} if one.get(part) != other.get(part)]
