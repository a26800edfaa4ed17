"""Repeated calls are replayed as graphs, and answer as plain ones do."""

from __future__ import annotations

import threading

from tests.needs import require


def test_replayed_calls_answer_for_the_queries_of_now() -> None:
    require("gpu")
    import torch

    from kernels.knn import Knn, knn
    from kernels.knn.triton_impl import SPACE, run

    collection = torch.randn(20000, 48, device="cuda")
    for count in (5, 9):
        problem = Knn(q=count, n=20000, d=48, k=7)
        for _ in range(6):  # the third call captures, the others replay; each has queries of its own, in a place of their own
            queries = torch.randn(count, 48, device="cuda")
            distances, ids = knn(queries, collection, 7, block=dict(SPACE.default))
            expected = run(problem, {"queries": queries, "collection": collection}, dict(SPACE.default))
            assert torch.equal(ids, expected["ids"]) and torch.equal(distances, expected["distances"])


def test_a_collection_that_changed_is_read_anew() -> None:
    require("gpu")
    import torch

    from kernels.knn import knn

    collection, queries = torch.randn(5000, 32, device="cuda"), torch.randn(4, 32, device="cuda")
    for _ in range(5):
        collection.copy_(torch.randn(5000, 32, device="cuda"))
        nearest = knn(queries, collection, 1)[1][:, 0]
        assert torch.equal(nearest, torch.cdist(queries.double(), collection.double()).argmin(dim=1))


def test_another_thread_may_use_the_device_while_a_call_is_captured() -> None:
    require("gpu")
    import torch

    from kernels.knn import knn

    collection, ended, errors = torch.randn(20000, 32, device="cuda"), threading.Event(), []

    def work() -> None:
        stream = torch.cuda.Stream()
        try:
            with torch.cuda.stream(stream):
                while not ended.is_set():
                    torch.empty(1 << 24, device="cuda").add_(1)
                    stream.synchronize()
                    torch.cuda.memory.empty_cache()  # so that the next tensor asks the driver for memory
        except RuntimeError as error:
            errors.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        for count in range(1, 40):
            queries = torch.randn(count, 32, device="cuda")
            for _ in range(4):
                ids = knn(queries, collection, 1)[1][:, 0]
            assert torch.equal(ids, torch.cdist(queries.double(), collection.double()).argmin(dim=1))
    finally:
        ended.set()
        thread.join()
    assert not errors
