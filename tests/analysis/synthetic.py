"""A small run in the schema of the records, made up from known medians: what tests draw, tabulate, seal and trace back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from analysis.records import write_parquet

CPU = "Testchip 3000 (CPU, 2 cores)"
GPU = "NVIDIA Test 80GB"
COMMIT = "0123456789abcdef0123456789abcdef01234567"
CONFIG = """\
name: made-up
seed: 1
devices: [cpu]
architectures: [sm_80, sm_90]
operators: []
validate: {operators: [knn]}
sweep:
  knn:
    operator: knn
    problems: [{metric: l2, q: 64, n: 20000, d: 64, k: 10}]
bench:
  distance_speedup: {operator: distance, problems: [{metric: [l2, l1]}], figure: speedup, against: d}
  knn_scaling: {operator: knn, problems: [{metric: l2}], figure: scaling, against: n}
rag:
  batching: {slo_ms: 500}
"""


def samples(median: float, n: int = 31, spread: float = 0.03, seed: int = 0) -> list[float]:
    """An odd number of positive samples with exactly this median."""
    noise = np.sort(np.abs(np.random.default_rng(seed).normal(0, spread, n // 2)))
    return [float(value) for value in np.concatenate([median * (1 - noise.clip(max=0.9)), [median], median * (1 + noise)])]


def provenance(**more: Any) -> dict[str, Any]:
    gpu = {"name": GPU, "uuid": "GPU-1", "driver": "595.1", "clock_sm_mhz": 1980}
    fields = {"commit": COMMIT, "dirty": False, "host": "node7", "slurm_job_id": "4242", "command": "python -m kernels.sweep"}
    return {**fields, "python": "3.11.2", "gpu": gpu, **more}


def point(stage: str, backend: str, problem: dict[str, Any], median: float | None, **more: Any) -> dict[str, Any]:
    block = more.pop("block", {})
    values = [] if median is None else samples(median, seed=len(backend) + int(problem.get("d", 0)))
    record = {
        "point": f"{stage}-{backend}-{json.dumps(problem, sort_keys=True)}-{json.dumps(block, sort_keys=True)}",
        "attempt": 1, "stage": stage, "experiment": "experiment", "operator": "knn", "backend": backend,
        "status": "failed" if median is None else "measured", "reason": "", "problem": json.dumps(problem), "block": json.dumps(block),
        "device": CPU, "device_kind": "cpu", "samples_ms": values, "first_call_ms": 2.0, "noise": 0.01,
        "limit_ms": None if median is None else median / 4, "limit_by": "memory", "bytes": 1000, "operations": 2000,
        "error": 0.2, "seed": 1, "protocol": 1, "versions": {"python": "3.11.2", "numpy": "2.4.6"}, "provenance": provenance(),
        "ceilings": {"bandwidth_gbs": 20.0, "tflops": {"fp32": 0.1}}, "started": "2026-11-23T18:00:00", "includes": "the kernel alone",
    }  # fmt: skip
    return record | more


def speedups(**more: Any) -> list[dict[str, Any]]:
    """distance: NumPy takes 8 D^0.5 µs, torch 4 and triton 1 times D^0.5 at each of six D and two metrics."""
    rows = []
    for metric in ("l2", "l1"):
        for d in (1, 8, 64, 512, 4096, 32768):
            problem = {"dtype": "float32", "metric": metric, "q": 1, "n": 1000, "d": d}
            for backend, factor in (("numpy", 8e-3), ("torch", 4e-3), ("triton", 1e-3)):
                faster = 1 + (d / 4096 if backend == "triton" else 0)
                rows.append(point("bench", backend, problem, factor * d**0.5 / faster, experiment="distance_speedup", operator="distance",
                                  winner=True, limit_ms=2e-4 * d**0.5, **more))  # fmt: skip
    return rows


def scalings(**more: Any) -> list[dict[str, Any]]:
    rows = []
    for n in (1_000, 10_000, 100_000, 1_000_000):
        problem = {"dtype": "float32", "metric": "l2", "q": 1, "n": n, "d": 128, "k": 10}
        for backend, factor in (("numpy", 4e-4), ("torch", 1.5e-4), ("faiss", 1.2e-4)):
            rows.append(point("bench", backend, problem, 0.05 + factor * n, experiment="knn_scaling", limit_ms=3e-5 * n,
                              winner=backend == "torch", **more))  # fmt: skip
    return rows


def sweeps(**more: Any) -> list[dict[str, Any]]:
    """knn: triton over BLOCK_Q × BLOCK_N × num_warps with some pruned and some failed, torch over ROWS; the best are 0.5 and 2 ms."""
    problem = {"dtype": "float32", "metric": "l2", "q": 64, "n": 20000, "d": 64, "k": 10}
    rows = []
    for q in (16, 32, 64, 128):
        for n in (32, 64, 128, 256):
            for warps in (4, 8):
                block = {"BLOCK_Q": q, "BLOCK_N": n, "num_warps": warps}
                median: float | None = 0.5 * (1 + abs(np.log2(q / 64)) * 0.6 + abs(np.log2(n / 128)) * 0.4 + (warps == 8) * 0.1)
                status, reason = "measured", ""
                if q * n > 16384:
                    status, reason, median = "pruned", "shared memory 262656 B over the limit of 232448 B", None
                if (q, n) == (16, 32):
                    status, reason, median = "failed", "CompilationError: at 3:1", None
                twice = samples(1.5, seed=9) if (q, n, warps) == (32, 64, 4) else []
                its = {"block": block, "aa_samples_ms": twice, "status": status, "reason": reason, "experiment": "knn"}
                rows.append(point("sweep", "triton", problem, median, **its, **more))
    for size in (256, 512, 1024, 2048):
        rows.append(point("sweep", "torch", problem, 2 + abs(np.log2(size / 1024)) * 0.3, block={"ROWS": size}, experiment="knn",
                          aa_samples_ms=samples(2.3, seed=9) if size == 512 else [], **more))  # fmt: skip
    return rows


def requests(seed: int = 0, **more: Any) -> list[dict[str, Any]]:
    """batching: a queue of one server, 0.2 s a request alone and 0.25 s a batch of 8, at three rates, two repeats, 60 requests each."""
    rng = np.random.default_rng(seed)
    rows: list[dict[str, Any]] = []
    for arm, size, service in (("baseline", 1, 0.2), ("batched", 8, 0.25)):
        for rate in (2.0, 8.0, 32.0):
            for repeat in (0, 1):
                due = np.cumsum(rng.exponential(1 / rate, 60))
                free = 0.0
                for start in range(0, 60, size):
                    batch = due[start : start + size]
                    begin = max(free, batch[-1] if rate > 8 else batch[0])
                    for number, at in enumerate(batch, start):
                        first = max(begin, at)
                        end = first + service
                        status = "ok" if end - at < 3 else ("rejected" if number % 2 else "timeout")
                        rows.append(request(arm, rate, repeat, number, float(at), float(end), status, batch=len(batch)) | more)
                        free = end
    return rows


def request(arm: str, rate: float, repeat: int, number: int, at: float, end: float, status: str = "ok", **more: Any) -> dict[str, Any]:
    ok = status == "ok"
    return {
        "experiment": "batching", "arm": arm, "rate": rate, "repeat": repeat, "point": f"{arm}-{rate}-{repeat}", "attempt": 1,
        "request": number, "scheduled_s": at, "sent_s": at + 0.001, "first_token_s": (at + end) / 2 if ok else None,
        "end_s": end if ok else at + 0.01, "status": status, "http": {"ok": 200, "rejected": 429, "timeout": 504}.get(status, 500),
        "queue_ms": 1.0, "embed_ms": 5.0, "retrieve_ms": 1.0, "generate_ms": 190.0, "batch": 1, "question": "What?",
        "source": f"doc{number}", "retrieved": [f"doc{number}", "other"] if number % 4 else ["other", "another"],
        "rank": (1 if number % 4 else 0) if ok else None, "tokens_in": 64, "tokens_out": 50, "lag_ms": 1.0, "model": "opt-125m",
        "weights": "random", "embedder": "minilm", "device": CPU, "device_kind": "cpu", "versions": {"python": "3.11.2"},
        "provenance": provenance(gpu=None), "started": "2026-11-23T18:10:00",
    } | more  # fmt: skip


def validations(**more: Any) -> list[dict[str, Any]]:
    problem = json.dumps({"metric": "l2", "n": 1, "d": 3})
    return [
        {"point": f"v{number}", "operator": "knn", "backend": "torch", "mode": "native", "device": CPU, "device_kind": "cpu",
         "problem": problem, "block": json.dumps({"ROWS": 256 * number}), "ok": number != 3, "error": 0.1 * number,
         "message": "" if number != 3 else "ids differ in row 0", "versions": {"numpy": "2.4.6"}, "provenance": provenance(), "seed": 1,
         "started": "2026-11-23T18:00:00"} | more
        for number in (1, 2, 3)
    ]  # fmt: skip


def compiles(architecture: str) -> list[dict[str, Any]]:
    return [
        {"operator": "knn", "backend": "triton", "architecture": architecture, "kernel": "knn_kernel", "problem": "{}",
         "block": json.dumps({"BLOCK_N": 64 * number}), "registers": 100 + 50 * number, "spills": 0 if number < 3 else 128,
         "shared_static": 0, "shared_dynamic": 80_000 * number, "seconds": 1.5, "verdict": "ok" if number < 3 else "pruned",
         "reason": "" if number < 3 else "shared memory", "versions": {"triton": "3.7.1"}, "hash": f"{number}"}
        for number in (1, 2, 3)
    ]  # fmt: skip


BEGAN = 1_795_000_000.0
"""In Unix time: when the first job of a made-up run was submitted."""
PHASES = {"start-up": 3.0, "planning": 1.0, "caches": 2.0, "ceilings": 4.0, "inputs": 5.0, "measuring": 40.0}


def account(
    experiment: str = "knn", after: float = 60.0, phases: dict[str, float] | None = None, queued: float | None = 30.0, **more: Any
) -> dict[str, Any]:
    """A process that began `after` seconds and was submitted `queued` seconds earlier, its Slurm job having started 5 s before it.

    Of each 20 s of measuring 12 went into kernels, 2 into first calls, 1 into checking, 2 into recording.
    """
    phases, device, started = PHASES if phases is None else phases, more.get("device", CPU), BEGAN + after
    measuring, ends = phases.get("measuring", 0.0), np.cumsum(list(phases.values()))
    times = {} if queued is None else {"job_submitted": started - queued, "job_started": started - min(5.0, queued)}
    return {
        "job": f"node7-{experiment}-{device}-{started:.3f}", "attempt": 1, "stage": "sweep", "experiment": experiment, "device": device,
        "device_kind": "cpu" if device == CPU else "gpu", "provenance": provenance(host=more.pop("host", "node7"), **times),
        "loading_s": measuring * 0.1, "kernels_s": measuring * 0.6,
        "compile_hits": 0, "compile_missed": [], "started": started, "ended": started + float(ends[-1]),
        "segments": [[name, float(end) - its, float(end)] for (name, its), end in zip(phases.items(), ends, strict=True)],
        "seconds": {**phases, "measuring": measuring * 0.85, "checking": measuring * 0.05, "recording": measuring * 0.1},
    } | more  # fmt: skip


def write(folder: Path) -> Path:
    """The whole run under `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.yaml").write_text(CONFIG)
    write_parquet(folder / "bench/distance_speedup.cpu.parquet", speedups())
    write_parquet(folder / "bench/knn_scaling.cpu.parquet", scalings(), {"jobs": [account("knn_scaling", 200.0, stage="bench")]})
    write_parquet(folder / "sweep/knn.cpu.parquet", sweeps(), {"jobs": [account(), account(after=130.0, queued=100.0)]})
    write_parquet(folder / "rag/batching.parquet", requests())
    write_parquet(folder / "validate/knn.torch.cpu.parquet", validations())
    for architecture in ("sm_80", "sm_90"):
        write_parquet(folder / f"compile/knn.{architecture}.parquet", compiles(architecture))
    (folder / "tune").mkdir(exist_ok=True)
    (folder / "tune/knn.cpu.json").write_text('{"operator": "knn"}\n')
    return folder
