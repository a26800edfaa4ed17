"""The ways to load a model that `store.py` compares, and the page cache before each."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import gc
import importlib
import mmap
import os
import shutil
import sys
import time
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM
from transformers.utils import is_peft_available

from analysis.cli import BadInput
from rag import shapes
from rag.servers import nodes

STORE_PORT = 8073
STATES = ("cold", "warm", "pinned")
"""Before a load: nothing of the files in the page cache; all of them; and, of the store alone, the model in its pinned memory."""
_SERVE = (
    "import asyncio, sys; from sllm_store.server import serve; asyncio.run(serve(host='127.0.0.1', port=int(sys.argv[1]),"
    " storage_path=sys.argv[2], num_thread=4, chunk_size=32 << 20, mem_pool_size=int(sys.argv[3]), registration_required=False))"
)
_PAGE = mmap.PAGESIZE


class Vocabulary:
    """What a model's shape needs of a tokenizer, as MiniLM's has it: so none is needed."""

    pad_token_id, cls_token_id, sep_token_id = 0, 101, 102

    def __len__(self) -> int:
        return 30522


def make(settings: dict[str, Any], folder: Path, dtype: torch.dtype, device: str, with_store: bool) -> Any:
    """A model with random weights, written below `folder` in every form; returned to compare with."""
    model = shapes.generator({**settings, "prompt_tokens": 512, "new_tokens": 128}, Vocabulary(), 0, device).to(dtype).eval()
    _check_space(folder, 3 * sum(parameter.nbytes for parameter in model.parameters()))
    model.save_pretrained(folder / "safetensors")
    model.config.save_pretrained(folder / "torch")
    torch.save({name: tensor.cpu() for name, tensor in model.state_dict().items()}, folder / "torch" / "pytorch_model.bin")
    if with_store:
        _sllm_store().save_model(model, str(folder / "store"))
        model = model.to(device)  # it was moved to the CPU
    for path in files(folder):
        with path.open("rb") as file:
            os.fsync(file.fileno())  # a page that is not written yet does not leave the cache
    return model


def _check_space(folder: Path, needed: int) -> None:
    folder.mkdir(parents=True)
    if (free := shutil.disk_usage(folder).free) < 1.1 * needed:
        raise BadInput(f"--folder {folder.parent}: {free / 1e9:.1f} GB are free and three copies of the model take {needed / 1e9:.1f} GB")


@functools.cache
def _sllm_store() -> Any:
    """`sllm_store.transformers`. Where there is no peft, which it imports for adapters alone, a stub stands for it meanwhile."""
    if is_peft_available():  # transformers keeps this answer
        return importlib.import_module("sllm_store.transformers")
    names = {
        "peft": ["PeftModel", "get_peft_model", "get_peft_model_state_dict", "LoraConfig"],
        "peft.utils": ["set_peft_model_state_dict"],
    }
    for name, members in names.items():
        sys.modules[name] = types.ModuleType(name)
        sys.modules[name].__dict__.update({member: type(member, (), {}) for member in members}, __path__=[])
    try:
        return importlib.import_module("sllm_store.transformers")
    finally:
        for name in names:
            del sys.modules[name]


def contenders(folder: Path, dtype: torch.dtype, device: str, with_store: bool) -> dict[str, tuple[Path, Callable[[], Any]]]:
    """Each way's files, and the call that loads them: a model whose weights are on the device once that is idle."""

    def from_files(kind: str) -> Callable[[], Any]:
        options = {"dtype": dtype, "local_files_only": True, "use_safetensors": kind == "safetensors"}
        options |= {"device_map": device} if device == "cuda" else {}  # straight onto the GPU, for which accelerate is needed
        return lambda: AutoModelForCausalLM.from_pretrained(folder / kind, **options)

    def from_store(parallel: bool) -> Callable[[], Any]:
        options = {"device_map": "auto", "torch_dtype": dtype, "storage_path": str(folder.parent), "fully_parallel": parallel}
        return lambda: _sllm_store().load_model(f"{folder.name}/store", **options)

    found = {kind: (folder / kind, from_files(kind)) for kind in ("safetensors", "torch")}
    if with_store:
        found |= {"store": (folder / "store", from_store(True)), "store as served": (folder / "store", from_store(False))}
    return found


@contextlib.contextmanager
def store(folder: Path, memory: int, logs: Path, within_s: float = 300.0) -> Iterator[None]:
    """The real store for `folder`, with `memory` bytes pinned; pinning takes over a second a GB, so its port says when it is ready."""
    started = nodes.nodes(folder / ".scratch", logs, 60)
    (node,) = started
    try:
        if not node.ask("free", host=node.address, port=STORE_PORT)["free"]:
            raise BadInput(f"port {STORE_PORT} is taken, which the store has written out; end what listens there")
        node.start("store", [sys.executable, "-c", _SERVE, str(STORE_PORT), str(folder), str(memory)], {})
        until = time.monotonic() + within_s
        while not node.ask("open", host=node.address, port=STORE_PORT)["open"]:
            if node.failure() or time.monotonic() > until:
                raise BadInput(f"the store did not start within {within_s:g} s ({node.failure() or 'it runs'}); see {node.log('store')}")
            time.sleep(0.1)  # the store says nothing when its port opens
        yield
    finally:
        nodes.leave(started, 30)


def prepare(state: str, path: Path, call: Callable[[], Any], name: str) -> float:
    """Bring about a state before a load; the share of the files that is in the page cache then."""
    if name.startswith("store") and state != "pinned":
        from sllm_store.client import SllmStoreClient  # type: ignore[import-not-found]

        SllmStoreClient(f"127.0.0.1:{STORE_PORT}").unload_from_cpu(f"{path.parent.name}/{path.name}")
    if state == "pinned":
        call()
        release()
    for file in files(path):
        with file.open("rb") as opened:
            if state == "cold":
                os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            elif state == "warm":
                while opened.read(64 << 20):
                    pass
    return resident(path)


def files(path: Path) -> list[Path]:
    return [file for file in sorted(path.rglob("*")) if file.is_file()]


def resident(path: Path) -> float:
    """The share of the files below `path` that is in the page cache, by mincore."""
    libc, inside, pages = ctypes.CDLL(None, use_errno=True), 0, 0
    for file in files(path):
        if size := file.stat().st_size:
            with file.open("rb") as opened, mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_COPY) as mapped:
                states = (ctypes.c_ubyte * -(-size // _PAGE))()
                first = ctypes.c_char.from_buffer(mapped)
                if libc.mincore(ctypes.c_void_p(ctypes.addressof(first)), ctypes.c_size_t(size), states):
                    raise OSError(ctypes.get_errno(), "mincore", str(file))
                del first
            inside, pages = inside + sum(state & 1 for state in bytes(states)), pages + len(states)
    return inside / pages


def idle(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def release() -> None:
    """Free the memory on the device of models that nothing refers to any more."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


@torch.inference_mode()
def logits(model: Any, device: str) -> torch.Tensor:
    """What it says to sixteen fixed tokens."""
    return model(torch.arange(1000, 1016, device=device)[None]).logits.float().cpu()
