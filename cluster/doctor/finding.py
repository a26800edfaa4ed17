"""What a check found."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Finding:
    """`level`: ok, note (works, with something left out) or fail (something required is broken). `remedy`: what to do."""

    level: Literal["ok", "note", "fail"]
    text: str
    remedy: str = ""

    def __str__(self) -> str:
        return f"{self.level:4s}  {self.text}" + (f"; to do: {self.remedy}" if self.remedy else "")
