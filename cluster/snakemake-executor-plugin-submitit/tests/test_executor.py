"""What Snakemake asks of the executor in one thread while another watches its jobs."""

from types import SimpleNamespace

from snakemake_executor_plugin_submitit.executor import Executor


def test_jobs_may_end_while_all_are_cancelled(tasks):
    executor, some = object.__new__(Executor), tasks(3)
    executor.unfinished = dict.fromkeys(some)
    closed: list[str] = []

    def close(keys):
        closed.extend(keys)
        executor.unfinished.pop(some[2], None)  # as the watching thread does

    executor.cluster = SimpleNamespace(cancel=lambda tasks: True)
    executor.ledger = SimpleNamespace(close=close)
    executor.cancel_jobs([])
    assert closed == ["key0", "key1", "key2"] and not executor.unfinished
