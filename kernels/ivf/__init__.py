"""Approximate nearest neighbours by an inverted file (IVF-Flat): an index that is built once, saved, loaded and searched."""

from __future__ import annotations

from kernels.ivf.building import build, our_ann
from kernels.ivf.index import Index, load, recall
from kernels.ivf.problem import OPERATOR, Ivf

__all__ = ["OPERATOR", "Index", "Ivf", "build", "load", "our_ann", "recall"]
