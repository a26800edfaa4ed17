"""Architectures of known models, filled with random weights where theirs cannot be had: their time is real, what they say means nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from transformers import OPTConfig, OPTForCausalLM, Qwen2Config, Qwen2ForCausalLM, XLMRobertaConfig, XLMRobertaModel

GENERATORS: dict[str, dict[str, Any]] = {
    # Zhang et al., arXiv:2205.01068, facebook/opt-125m
    "opt-125m": {"family": "opt", "vocabulary": 50272, "hidden": 768, "layers": 12, "heads": 12, "inner": 3072},
    # Qwen team, arXiv:2412.15115, Qwen/Qwen2.5-1.5B
    "qwen2.5-1.5b": {"family": "qwen2", "vocabulary": 151936, "hidden": 1536, "layers": 28, "heads": 12, "kv_heads": 2, "inner": 8960},
}
"""By name; "opt" beside them has the sizes that a config gives."""
ENCODERS: dict[str, dict[str, Any]] = {
    # Wang et al., arXiv:2402.05672, intfloat/multilingual-e5-large
    "e5-large": {"vocabulary": 250002, "hidden": 1024, "layers": 24, "heads": 16, "inner": 4096, "positions": 514},
}


def generator(settings: Mapping[str, Any], tokenizer: Any, seed: int, device: str) -> Any:
    """A causal language model of `settings["architecture"]`, its weights drawn by `seed` on the device, where that is quick."""
    shape = GENERATORS.get(settings["architecture"]) or {
        "family": "opt",
        "vocabulary": len(tokenizer),
        **{name: settings[name] for name in ("hidden", "layers", "heads")},
        "inner": 4 * settings["hidden"],
    }
    common = {
        "vocab_size": shape["vocabulary"],
        "hidden_size": shape["hidden"],
        "num_hidden_layers": shape["layers"],
        "num_attention_heads": shape["heads"],
        "max_position_embeddings": settings["prompt_tokens"] + settings["new_tokens"],
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": tokenizer.cls_token_id,
        "eos_token_id": tokenizer.sep_token_id,
    }
    if shape["family"] == "opt":
        config = OPTConfig(**common, word_embed_proj_dim=shape["hidden"], ffn_dim=shape["inner"])
        return drawn(OPTForCausalLM, config, seed, device)
    more = {"num_key_value_heads": shape["kv_heads"], "intermediate_size": shape["inner"], "tie_word_embeddings": True}
    return drawn(Qwen2ForCausalLM, Qwen2Config(**common, **more), seed, device)


def encoder(architecture: str, tokenizer: Any, seed: int, device: str) -> Any:
    """An encoder of ENCODERS' `architecture`."""
    shape = ENCODERS[architecture]
    config = XLMRobertaConfig(
        vocab_size=shape["vocabulary"],
        hidden_size=shape["hidden"],
        num_hidden_layers=shape["layers"],
        num_attention_heads=shape["heads"],
        intermediate_size=shape["inner"],
        max_position_embeddings=shape["positions"],
        type_vocab_size=1,
        pad_token_id=tokenizer.pad_token_id,
    )
    return drawn(XLMRobertaModel, config, seed, device)


def drawn(model: Any, config: Any, seed: int, device: str) -> Any:
    """The model with weights drawn by `seed`, without touching the global generators."""
    with torch.random.fork_rng(devices=[0] if device == "cuda" else []), torch.device(device):
        torch.manual_seed(seed)
        return model(config)
