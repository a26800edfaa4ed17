"""What heat maps share: cells in colour with their values, hatched cells, the outline of the best, and axes of discrete settings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.colors import LogNorm
from matplotlib.patches import Rectangle
from matplotlib.ticker import NullFormatter

from analysis import style


def hatch(axis: Any, column: int, row: int, text: str, look: dict[str, Any]) -> None:
    """A cell without a value, with a short `text` on it."""
    axis.add_patch(Rectangle((column - 0.5, row - 0.5), 1, 1, edgecolor="#999999", linewidth=0, zorder=1, **look))
    written = axis.text(column, row, text, ha="center", va="center", fontsize=7)
    written.set_bbox({"facecolor": "#EEEEEE", "edgecolor": "none", "pad": 0.8})


def color(figure: Any, axis: Any, values: np.ndarray, signs: np.ndarray, small: bool, largest: bool = False) -> None:
    """The cells with values in colour, signs and values written in, and the outline of the best: the smallest, or the `largest`.

    A cell that is NaN is left as it is. `small`: there is no room for a scale beside the map.
    """
    colors = matplotlib.colormaps["cividis" if largest else "cividis_r"]
    low, high = np.nanmin(values, initial=np.inf), np.nanmax(values, initial=-np.inf)
    if low > high:
        axis.set_xlim(-0.5, values.shape[1] - 0.5)
        axis.set_ylim(-0.5, values.shape[0] - 0.5)
        return
    norm = LogNorm(low, max(high, low * 1.01))
    image = axis.imshow(values, cmap=colors, norm=norm, origin="lower", aspect="auto")
    for (row, column), value in np.ndenumerate(values):
        if np.isfinite(value):
            dark = sum(colors(norm(value))[:3]) < 1.5
            size = 5 if small or values.shape[1] > 6 else 7
            text, ink = signs[row, column] + style.digits(value), "white" if dark else "black"
            axis.text(column, row, text, ha="center", va="center", fontsize=size, color=ink)
    row, column = np.unravel_index(np.nanargmax(values) if largest else np.nanargmin(values), values.shape)
    inside = Rectangle((column - 0.46, row - 0.46), 0.92, 0.92, fill=False, edgecolor="#D55E00", linewidth=2, zorder=3)
    axis.add_patch(inside)
    if small:  # no room for a scale, and every cell has its number
        return
    bar = figure.colorbar(image, ax=axis, pad=0.02, fraction=0.06)
    style.log_values(bar.ax.yaxis)
    bar.ax.yaxis.set_minor_formatter(NullFormatter())
    bar.ax.tick_params(labelsize=7)
    bar.outline.set_visible(False)


def label(axis: Any, xs: Sequence[str], ys: Sequence[str], across: str, up: str) -> None:
    """The values of the settings `across` and `up`; an empty `up` is a map of one row."""
    axis.grid(visible=False)
    axis.tick_params(length=0)
    for spine in axis.spines.values():
        spine.set_visible(False)
    axis.set_xticks(range(len(xs)), xs)
    axis.set_yticks(range(len(ys)), ys)
    axis.set_xlabel(across)
    if up:
        axis.set_ylabel(up)
    else:
        axis.set_yticks([])
