"""How an encoder's hidden states become one vector a text: as its sentence-transformers files say, else the mean over its tokens."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from analysis.cli import BadInput

MODES = ("mean", "cls", "lasttoken")
_KNOWN = {"Transformer", "Pooling", "Normalize"}


@dataclass(frozen=True)
class Pooling:
    """`mode` is one of MODES; `longest` is the number of tokens that the model was made for (None: as many as it takes)."""

    mode: str = "mean"
    longest: int | None = None

    def __call__(self, hidden: Any, mask: Any) -> Any:
        """(texts, dimension) of hidden states (texts, tokens, dimension); where the mask (texts, tokens) is 0, to the right, is padding."""
        if self.mode == "cls":
            return hidden[:, 0]
        if self.mode == "lasttoken":
            return hidden.take_along_dim(mask.sum(1).sub(1)[:, None, None], 1)[:, 0]
        weights = mask.unsqueeze(-1).to(hidden.dtype)
        return (hidden * weights).sum(1) / weights.sum(1)


def of(folder: Path, where: str) -> Pooling:
    """The pooling of the model in `folder`. Raises BadInput, beginning with `where`, for one that is not of MODES.

    Normalize needs nothing: what is searched is normalised in any case.
    """
    modules = _read(folder / "modules.json", [])
    types = {module["path"]: module["type"].rsplit(".", 1)[-1] for module in modules}
    if unknown := set(types.values()) - _KNOWN:
        raise BadInput(f"{where}: {folder} needs {', '.join(sorted(unknown))} after its encoder; take one with {', '.join(_KNOWN)} alone")
    path = next((path for path, kind in types.items() if kind == "Pooling"), None)
    settings = _read(folder / path / "config.json", {}) if path else {}
    longest = _read(folder / "sentence_bert_config.json", {}).get("max_seq_length")
    return Pooling(_mode(settings, f"{where}: {folder}/{path}/config.json"), longest)


def _mode(settings: dict[str, Any], where: str) -> str:
    """The mode by its name, or in older files by the flag that is true."""
    names = {"pooling_mode_mean_tokens": "mean", "pooling_mode_cls_token": "cls"}
    flags = [names.get(key, key.removeprefix("pooling_mode_")) for key, on in settings.items() if key.startswith("pooling_mode_") and on]
    named = settings.get("pooling_mode", flags or ["mean"])
    modes = [named] if isinstance(named, str) else list(named)
    if len(modes) != 1 or modes[0] not in MODES:
        raise BadInput(f"{where}: pooling by {' and '.join(modes)}; take a model that pools by one of {', '.join(MODES)}")
    if not settings.get("include_prompt", True):
        raise BadInput(f"{where}: include_prompt is false; take a model that pools over its prompt too")
    return str(modes[0])


def _read(path: Path, absent: Any) -> Any:
    if not path.is_file():
        return absent
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise BadInput(f"{path}: not JSON ({error})") from None
