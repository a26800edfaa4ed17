"""Triton's interpreter, in which kernels run as NumPy on a CPU: what it gets wrong (bfloat16) the backends go round."""

from __future__ import annotations

import os
from typing import Any


def enable() -> None:
    """Let this process run Triton kernels in the interpreter; to be called before anything imports Triton.

    The interpreter replaces the language's functions for a launch, and looks for all of them again at each call of a device function,
    which takes half of its time (Triton 3.6 and 3.7). Here it looks once a launch and module.
    """
    os.environ["TRITON_INTERPRET"] = "1"
    from triton.runtime import interpreter

    look, launch = interpreter._patch_lang, interpreter.GridExecutor.__call__
    replaced: set[str] = set()

    def once(function: Any) -> Any:
        if function.__module__ in replaced:
            return None
        replaced.add(function.__module__)
        return look(function)

    def fresh(self: Any, *arguments: Any, **options: Any) -> Any:
        replaced.clear()  # at its end a launch puts back what it replaced
        return launch(self, *arguments, **options)

    interpreter._patch_lang, interpreter.GridExecutor.__call__ = once, fresh
