"""What the public functions of the operators share: checking arrays, and finding the backend where the data is."""

from __future__ import annotations

import functools
import importlib
import importlib.util
from collections.abc import Sequence
from typing import Any

import numpy as np

from analysis.cli import BadInput
from kernels.contract import Arrays, Block, Operator

FLOAT32 = ("float32",)
FLOATS = ("float32", "float16", "bfloat16")
REPLAYED = 256
"""Queries up to which launching takes longer than computing, so that repeated calls are replayed."""


def library(name: str, array: Any) -> str:
    """The library that `array` is of: "numpy", "torch" or "cupy". Raises BadInput for anything else."""
    found = _library(type(array))
    if found is None:
        raise BadInput(f"{name}: {type(array).__name__} is not an array; give a NumPy, torch or CuPy array")
    return found


def _library(kind: type) -> str | None:
    found = "numpy" if issubclass(kind, np.ndarray) else kind.__module__.partition(".")[0]
    return found if found in ("numpy", "torch", "cupy") else None


def dtype_of(array: Any) -> str:
    """The dtype's name, such as "float32", for an array of any of the libraries."""
    return _dtype_name(array.dtype)


@functools.cache
def _dtype_name(dtype: Any) -> str:
    return str(dtype).removeprefix("torch.")


def check_dtype(name: str, array: Any, dtypes: Sequence[str] = FLOAT32) -> None:
    """Raise BadInput unless `array` is one, of one of `dtypes`."""
    library(name, array)
    if dtype_of(array) not in dtypes:
        raise BadInput(f"{name}: dtype {dtype_of(array)}, shape {list(array.shape)}; convert it to {' or '.join(dtypes)}")


def check_dtypes_agree(x_name: str, x: Any, y_name: str, y: Any) -> None:
    """Raise BadInput unless x and y are of one dtype."""
    if dtype_of(x) != dtype_of(y):
        raise BadInput(f"{x_name} is of dtype {dtype_of(x)} and {y_name} of {dtype_of(y)}; convert one of them")


def check_together(x_name: str, x: Any, y_name: str, y: Any) -> None:
    """Raise BadInput unless x and y are of one dtype and in the same place."""
    check_dtypes_agree(x_name, x, y_name, y)
    places = _place(x_name, x), _place(y_name, y)
    if places[0] != places[1]:
        x_place, y_place = (" ".join(str(word) for word in place if word is not None) for place in places)
        raise BadInput(f"{x_name} is on {x_place} and {y_name} on {y_place}; move one of them")


def check_widths(x_name: str, x: Any, y_name: str, y: Any, dtypes: Sequence[str] = FLOAT32) -> None:
    """Raise BadInput unless x and y are vectors or rows of one width and of one of `dtypes`, the same."""
    for name, array in ((x_name, x), (y_name, y)):
        check_dtype(name, array, dtypes)
        if array.ndim not in (1, 2) or array.shape[-1] == 0:
            raise BadInput(f"{name}: shape {list(array.shape)}; give a vector [D] or rows [N, D] with D of at least 1")
    if x.shape[-1] != y.shape[-1]:
        raise BadInput(f"{x_name}: shape {list(x.shape)} does not go with {y_name} of shape {list(y.shape)}; both need the same D")
    check_dtypes_agree(x_name, x, y_name, y)


def check_pair(x_name: str, x: Any, y_name: str, y: Any, dtypes: Sequence[str] = FLOAT32) -> None:
    """The same, and that both are in the same place."""
    check_widths(x_name, x, y_name, y, dtypes)
    check_together(x_name, x, y_name, y)


def rows(array: Any) -> Any:
    """`array` as contiguous rows [N, D]; a vector becomes one row. Copies only what is not contiguous."""
    array = array.reshape(1, -1) if array.ndim == 1 else array
    if hasattr(array, "contiguous"):
        return array.contiguous()
    return importlib.import_module(type(array).__module__.partition(".")[0]).ascontiguousarray(array)


def chosen(operator: str, problem: Any, array: Any, block: Block | None) -> tuple[str, Any, Block]:
    """(name, module, block) of the backend that suits the place of `array`; `block` None takes the tuned one, or the default."""
    name = _backend(array)
    module = _module(operator, name)
    if block is None:
        return name, module, _tuned(operator, name, problem, _device_name(array))
    if set(block) != set(module.SPACE.axes):
        raise BadInput(f"block: axes {', '.join(block) or '(none)'}; the {name} backend has {', '.join(module.SPACE.axes)}")
    return name, module, block


def compute(operator: Operator, problem: Any, inputs: Arrays, block: Block | None, moving: str | None = None) -> Arrays:
    """The operator's outputs from the backend that suits the place of the inputs.

    NumPy arrays go to the numpy backend, CuPy arrays to cupy, torch tensors to triton on an NVIDIA GPU of compute
    capability 8.0 or newer and to torch otherwise. `block` None takes the tuned block of this GPU, or the default.
    `moving` names the input that changes from call to call while the others stay: in Triton, where it has no more than
    REPLAYED rows, repeated calls are then replayed as a graph (see `kernels.graphs`).
    """
    array = next(iter(inputs.values()))
    name, module, block = chosen(operator.name, problem, array, block)
    if moving is None or name != "triton" or len(inputs[moving]) > REPLAYED:
        return module.run(problem, inputs, block)
    fixed = {key: value for key, value in inputs.items() if key != moving}
    key = problem, tuple(block.items()), tuple(value.data_ptr() for value in fixed.values()), array.device
    return _graphs(operator.name).call(key, lambda copied: module.run(problem, fixed | copied, block), {moving: inputs[moving]})


@functools.cache
def _module(operator: str, backend: str) -> Any:
    return importlib.import_module(f"kernels.{operator}.{backend}_impl")


@functools.cache
def _graphs(operator: str) -> Any:
    from kernels.graphs import Graphs

    return Graphs()


@functools.lru_cache(maxsize=4096)
def _tuned(operator: str, backend: str, problem: Any, device: str) -> Block:
    from kernels import tuned

    return tuned.lookup(operator, backend, problem, device, _module(operator, backend).SPACE)


def _place(name: str, array: Any) -> tuple[str, Any]:
    """The library and, but for NumPy, the device."""
    kind = library(name, array)
    return kind, None if kind == "numpy" else array.device


def _backend(array: Any) -> str:
    kind = library("input", array)
    if kind != "torch" or array.device.type != "cuda":
        return kind
    return _on_gpu(array.device)


@functools.cache
def _on_gpu(device: Any) -> str:
    """The backend for torch tensors on a GPU."""
    import torch

    return "triton" if torch.cuda.get_device_capability(device)[0] >= 8 and importlib.util.find_spec("triton") else "torch"


@functools.cache
def _torch_device_name(device: Any) -> str:
    import torch

    return torch.cuda.get_device_name(device)


@functools.cache
def _cupy_device_name(number: int) -> str:
    import cupy

    return cupy.cuda.runtime.getDeviceProperties(number)["name"].decode()


def _device_name(array: Any) -> str:
    """The GPU's name as the tuned tables have it, or "cpu"."""
    kind = library("input", array)
    if kind == "cupy":
        return _cupy_device_name(array.device.id)
    return _torch_device_name(array.device) if kind == "torch" and array.device.type == "cuda" else "cpu"
