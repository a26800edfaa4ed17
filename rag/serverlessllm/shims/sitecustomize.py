"""Runs first in every Python process of a worker, in ServerlessLLM's environment: what its unmodified 0.8.0 takes for granted.

Without vLLM, which its backends import whatever they serve, a stub stands for it. Where BLOCKWISE_STAND_IN is set, which is the
address of the node's stand-in store (`store.py`), there is no GPU: models are loaded on the CPU from safetensors, after the store was
asked as always.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import importlib.util
import os
import sys
import types
from typing import Any

_TOKENIZER = "transformers.tokenization_utils_base"


def _module(name: str, **members: Any) -> None:
    module = types.ModuleType(name)
    module.__dict__.update(members)
    sys.modules[name] = module


def stub_vllm() -> None:
    """The names that `sllm.backends` imports from vLLM; each is an empty class, so that using one fails."""
    names = "AsyncEngineArgs AsyncLLMEngine EmbeddingRequestOutput PoolingParams PromptType RequestOutput SamplingParams LLM"
    _module("vllm", __path__=[], **{name: type(name, (), {}) for name in names.split()})
    _module("vllm.inputs", TokensPrompt=dict)
    _module("vllm.utils", Counter=object)


def stand_in_store(address: str) -> None:
    """`sllm_store.transformers` without its CUDA extension."""

    def load_model(model_path: str, torch_dtype: Any, storage_path: str, hf_model_class: str, **_: Any) -> Any:
        import transformers
        from sllm_store.client import SllmStoreClient  # type: ignore[import-not-found]

        if not SllmStoreClient(address).load_into_cpu(model_path):
            raise ValueError(f"the store refused {model_path}")
        folder = os.path.join(storage_path, model_path)
        return getattr(transformers, hf_model_class).from_pretrained(folder, torch_dtype=torch_dtype, use_safetensors=True).eval()

    def save_model(model: Any, path: str) -> None:
        model.save_pretrained(path)

    def no_adapters(*_: Any, **__: Any) -> None:
        raise NotImplementedError("the stand-in store has no adapters")

    _module("sllm_store.transformers", load_model=load_model, save_model=save_model, load_lora=no_adapters, save_lora=no_adapters)


class TokensStayHere(importlib.abc.MetaPathFinder):
    """Once transformers' tokenizer is imported, moving tokens to "cuda:0", which the backend has written out, leaves them on the CPU."""

    def find_spec(self, name: str, path: Any, target: Any = None) -> importlib.machinery.ModuleSpec | None:
        if name != _TOKENIZER:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        assert spec is not None and spec.loader is not None
        execute = spec.loader.exec_module

        def exec_module(module: Any) -> None:
            execute(module)
            move = module.BatchEncoding.to
            module.BatchEncoding.to = lambda tokens, device, **more: move(
                tokens, "cpu" if str(device).startswith("cuda") else device, **more
            )

        spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


if importlib.util.find_spec("vllm") is None:
    stub_vllm()
if _address := os.environ.get("BLOCKWISE_STAND_IN"):
    stand_in_store(_address)
    sys.meta_path.insert(0, TokensStayHere())
