"""Writes a model in the form that ServerlessLLM loads; `rag.serverlessllm.convert` runs it in ServerlessLLM's environment.

`python -m rag.serverlessllm.save` reads one JSON object from standard input: `out`, `dtype`, `tokenizer` (a folder), and either
`model` (a folder of safetensors, with `model_class`) or `settings` with an `architecture` of `rag.shapes` and a `seed`. The form is
that of the `sllm_store` which this Python has: the real one's, or the stand-in's safetensors.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

import torch
import transformers
from tokenizers.processors import TemplateProcessing


def main() -> None:
    from sllm_store.transformers import save_model  # type: ignore[import-not-found]

    asked = json.load(sys.stdin)
    tokenizer = transformers.AutoTokenizer.from_pretrained(asked["tokenizer"], local_files_only=True)
    if "settings" in asked:
        model, tokenizer = _random(asked, tokenizer)
    else:
        auto = getattr(transformers, asked["model_class"])
        model = auto.from_pretrained(asked["model"], local_files_only=True, use_safetensors=True)
    save_model(model.to(getattr(torch, asked["dtype"])).eval(), asked["out"])
    tokenizer.save_pretrained(os.path.join(asked["out"], "tokenizer"))


def _random(asked: dict[str, Any], tokenizer: Any) -> tuple[Any, Any]:
    """A model with random weights that always says as many tokens as it is asked for, and an encoder's tokenizer made a generator's."""
    from rag import shapes

    model = shapes.generator(asked["settings"], tokenizer, asked["seed"], "cpu")
    model.generation_config.eos_token_id = None
    tokenizer.model_input_names = ["input_ids", "attention_mask"]
    tokenizer.init_kwargs["model_input_names"] = tokenizer.model_input_names
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single="$A", special_tokens=[])  # no [SEP], after which nothing comes
    return model, tokenizer


if __name__ == "__main__":
    main()
