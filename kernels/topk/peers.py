"""Other people's top-k, measured beside ours. Each imports its library when it is called."""

from __future__ import annotations

from typing import Any

from analysis.cli import BadInput
from kernels.contract import Arrays, Peer


def torch_topk(problem: Any, inputs: Arrays) -> Arrays:
    """torch.topk: ties in any order; NaN is larger than all numbers, so that it is asked for no data with NaN."""
    if problem.data == "nan" or problem.k > problem.columns:
        raise BadInput(f"peer torch.topk: does not define k = {problem.k} of {problem.columns} elements of {problem.data} data as here")
    values, ids = inputs["values"].topk(problem.k, dim=1, largest=problem.largest)
    return {"values": values, "any_ids": ids}


PEERS = {"torch.topk": Peer(torch_topk)}
