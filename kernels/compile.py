"""Compile stage: every GPU kernel that a config's problems and blocks need, for one architecture, with no GPU.

    python -m kernels.compile --config config/smoke.yaml --operator knn --architecture sm_90 --out knn.sm_90.parquet --cache knn.sm_90.cache

Writes a row a variant (registers, spills, shared memory, seconds, verdict with reason), and a cache that a GPU job hits.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tqdm import tqdm

from analysis import records
from analysis.cli import replacing, run
from analysis.config import check, load
from analysis.environment import environment, versions
from kernels import launchers, misses, plan, registry
from kernels.arrays import meta
from kernels.contract import Backend, Block, Operator, Problem
from kernels.device import libraries
from kernels.resources import Resources, capability

OLDEST = {"triton": 80, "cupy": 60}
"""The first compute capability that a toolchain is used for here."""


def toolchain(operator: Operator, backend: str) -> str | None:
    """Which compiler a backend needs: "cupy" (NVRTC), "triton", or None for one that launches no kernel of its own."""
    if tuple(registry.declared(operator, backend, "DEVICES")) != ("cuda",):
        return None
    return "cupy" if registry.declared(operator, backend, "ARRAYS") == "cupy" else "triton"


def variants(
    config: dict[str, Any], operator: Operator, backend: Backend, stages: list[str]
) -> Iterator[tuple[Problem, Block, str | None]]:
    """(problem, block, reason why the combination is invalid or None) for the stages' experiments of `operator`, each once.

    A bench may take any block of the sweep, so its problems are compiled for all of them.
    """
    seen: set[str] = set()
    space = plan.space(config, operator, backend)
    for experiment in plan.experiments(config):
        if experiment.stage in stages and experiment.operator.name == operator.name and backend.name in experiment.backends:
            for problem in experiment.problems:
                for block, reason in (experiment.space(backend) if experiment.stage == "sweep" else space).blocks(problem):
                    key = f"{problem} {sorted(block.items())}"
                    if key not in seen:
                        seen.add(key)
                        yield problem, block, reason


def compile_triton(operator: Operator, backend: Backend, problem: Problem, block: Block, architecture: int) -> Iterator[dict[str, Any]]:
    """Compile what the backend launches for one problem and block; a row a kernel."""
    from kernels.cross import compiling
    from kernels.resources import of_triton

    with compiling(architecture) as compiled:
        backend.run(problem, meta(operator.shapes(problem)), block)
    launchers.build(one.kernel for one in compiled)
    for one in compiled:
        yield {
            "kernel": one.name,
            "hash": one.kernel.hash,
            "seconds": one.seconds,
            "cached": one.cached,
            "resources": lambda kernel=one.kernel: of_triton(kernel, architecture),
        }


def compile_cuda(backend: Backend, problem: Problem, block: Block, architecture: int, cache: Path) -> Iterator[dict[str, Any]]:
    """Compile the CUDA C++ sources of one problem and block with NVRTC; a row a kernel. The cubin goes into `cache`."""
    from kernels import cuda

    for source in backend.module.sources(problem, block):
        path = cache / cuda.cubin_name(source, f"sm_{architecture}")
        start, cached = time.perf_counter(), path.with_suffix(".json").is_file()
        if not cached:
            cubin, report = cuda.compile_cubin(source, f"sm_{architecture}")
            with replacing(path) as temporary:
                temporary.write_bytes(cubin)
            (cache / path.stem).mkdir(exist_ok=True)
            misses.describe(cache / path.stem / misses.FILE, misses.of_cuda(source, f"sm_{architecture}"))
            with replacing(path.with_suffix(".json")) as temporary:
                temporary.write_text(json.dumps(report))
        seconds = time.perf_counter() - start
        report = json.loads(path.with_suffix(".json").read_text())
        for kernel, used in report.items():
            found = Resources(used["registers"], used["spills"], used["shared_static"])
            yield {
                "kernel": kernel,
                "hash": f"{path.stem}-{kernel}",
                "seconds": seconds,
                "cached": cached,
                "resources": lambda found=found: found,
            }


def rows_of(
    config: dict[str, Any], stages: list[str], operator: Operator, backend: Backend, architecture: int, cache: Path
) -> list[dict[str, Any]]:
    """Compile every variant of a backend; one row for each distinct kernel and block, with the problems that use it."""
    found: dict[tuple[str, str], dict[str, Any]] = {}
    base: dict[str, Any] = {
        "operator": operator.name,
        "backend": backend.name,
        "architecture": f"sm_{architecture}",
        "provenance": environment(),
    }
    base["versions"] = versions(*libraries(backend))
    for problem, block, reason in tqdm(
        list(variants(config, operator, backend, stages)), desc=f"{operator.name} {backend.name} sm_{architecture}"
    ):
        shape = json.dumps(problem.fields(), sort_keys=True)
        block_text = json.dumps(block, sort_keys=True)
        if reason:
            row = found.setdefault((block_text, reason), {**base, "block": block, "problems": [], "verdict": "pruned", "reason": reason})
            row["problems"].append(shape)
            continue
        try:
            if hasattr(backend.module, "sources"):
                kernels = list(compile_cuda(backend, problem, block, architecture, cache))
            else:
                kernels = list(compile_triton(operator, backend, problem, block, architecture))
        except Exception as error:  # a compiler rejects a variant by many types; the table keeps its word and the rest goes on
            reason = (str(error).strip().splitlines() or [type(error).__name__])[-1]
            row = found.setdefault((block_text, reason), {**base, "block": block, "problems": [], "verdict": "failed", "reason": reason})
            row["problems"].append(shape)
            continue
        for kernel in kernels:
            resources = kernel.pop("resources")
            key = (block_text, kernel["hash"])
            if key not in found:
                used: Resources = resources()
                objection = used.objection(architecture)
                verdict = {"verdict": "pruned" if objection else "ok", "reason": objection}
                found[key] = {**base, **kernel, **vars(used), **verdict, "block": block, "problems": []}
            if shape not in found[key]["problems"]:
                found[key]["problems"].append(shape)
    return list(found.values())


Key = tuple[str, str, str]
"""Backend, problem and block, these two as JSON."""


def key(backend: str, problem: Mapping[str, Any], block: Block) -> Key:
    """A block of a backend for a problem, by its fields."""
    return backend, json.dumps(problem, sort_keys=True), json.dumps(block, sort_keys=True)


Ruled = dict[Key, str]
"""Why a block cannot be used."""


def ruled_out(table: Any) -> Ruled:
    """What a compile table rules out, with the first reason that it gives."""
    found: Ruled = {}
    for row in table[table.verdict != "ok"].itertuples() if len(table) else ():
        for problem in row.problems:
            found.setdefault((row.backend, problem, row.block), row.reason)
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", required=True, help="the run's config (YAML)")
    parser.add_argument("--operator", required=True, help="operator, such as knn")
    parser.add_argument("--architecture", required=True, help="GPU architecture, such as sm_90")
    parser.add_argument("--out", required=True, type=Path, help="table to write (Parquet)")
    parser.add_argument("--cache", required=True, type=Path, help="folder for the compiled kernels")
    parser.add_argument(
        "--stages", nargs="+", choices=plan.STAGES, default=list(plan.STAGES), help="whose problems to compile for (default: both)"
    )
    options = parser.parse_args()
    config, architecture = load(options.config), capability(options.architecture)
    check(config, options.config)
    operator = registry.operator(options.operator, config.get("operators", ()))
    options.cache.mkdir(parents=True, exist_ok=True)
    os.environ["TRITON_CACHE_DIR"] = str(options.cache.resolve())

    rows: list[dict[str, Any]] = []
    left_out = {}
    for name in registry.backends(operator):
        compiler = toolchain(operator, name)
        reason = unsupported(compiler, architecture) if compiler else None
        if reason:
            left_out[name] = reason
            print(f"{operator.name} {name} {options.architecture}: left out: {reason}")
        elif compiler:
            rows += rows_of(config, options.stages, operator, registry.backend(operator, name), architecture, options.cache.resolve())
    records.write_parquet(options.out, rows, {"left_out": left_out})
    for row in rows:
        if row["verdict"] == "failed":
            print(f"{operator.name} {row['backend']} {options.architecture} {row['block']}: {row['reason']}")
    count = {verdict: sum(row["verdict"] == verdict for row in rows) for verdict in ("ok", "pruned", "failed")}
    print(f"{operator.name} {options.architecture}: " + ", ".join(f"{number} {verdict}" for verdict, number in count.items()))
    return 0


def unsupported(compiler: str, architecture: int) -> str | None:
    """Why a toolchain cannot or need not compile for an architecture, or None."""
    if architecture < OLDEST[compiler]:
        return f"{compiler} is used from sm_{OLDEST[compiler]} on"
    if compiler == "cupy":
        from cupy.cuda import nvrtc

        if architecture not in nvrtc.getSupportedArchs():
            major, minor = nvrtc.getVersion()
            return f"NVRTC {major}.{minor} does not know sm_{architecture}; CUDA 13 dropped what is older than sm_75 (install cuda126)"
    return None


if __name__ == "__main__":
    run(main)
