"""Other people's exact nearest neighbours, measured beside ours. Each imports its library when it is called."""

from __future__ import annotations

from typing import Any

from analysis.cli import BadInput
from kernels.contract import Arrays, Peer


def sklearn(problem: Any, inputs: Arrays) -> Arrays:
    """scikit-learn's brute-force search on the CPU (norms and a matrix product for l2)."""
    from sklearn.neighbors import NearestNeighbors

    if problem.metric == "dot":
        raise BadInput("peer sklearn: has no dot")
    queries, collection = (inputs[name].numpy() for name in ("queries", "collection"))
    metric = {"l2": "euclidean", "l1": "manhattan", "cosine": "cosine"}[problem.metric]
    model = NearestNeighbors(n_neighbors=problem.k, algorithm="brute", metric=metric)
    distances, ids = model.fit(collection).kneighbors(queries)
    return {"distances": distances, "ids": ids}


def faiss(problem: Any, inputs: Arrays) -> Arrays:
    """Faiss's flat index on the CPU."""
    import faiss as library
    import numpy as np

    if problem.metric not in ("l2", "dot"):
        raise BadInput(f"peer faiss: not asked for {problem.metric}")
    queries, collection = (inputs[name].numpy() for name in ("queries", "collection"))
    index = library.IndexFlatL2(problem.d) if problem.metric == "l2" else library.IndexFlatIP(problem.d)
    index.add(collection)
    distances, ids = index.search(queries, problem.k)
    return {"distances": np.sqrt(distances) if problem.metric == "l2" else distances, "ids": ids}


PEERS = {"sklearn": Peer(sklearn, ("cpu",)), "faiss": Peer(faiss, ("cpu",))}
