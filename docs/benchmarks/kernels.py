"""Our operators, torch and FlashLib on the same data in one process, against the hardware's ceilings measured in the same run.

    python docs/benchmarks/kernels.py --list
    python docs/benchmarks/kernels.py --out docs/benchmarks/records/kernels.json                  every case: some nine minutes on an H200
    python docs/benchmarks/kernels.py --out knn.json --cases knn_1_4m gemm                        names, or how they begin
    python docs/benchmarks/kernels.py --print docs/benchmarks/records/kernels.json                the table again, with no GPU

FlashLib (`pip install flashlib==0.4.0`) is measured where it can be imported. Times are device time between CUDA events with L2
flushed before each call (`kernels.timing`), medians with 95 % bootstrap intervals; a call under 0.1 ms is timed on the host too. What
is measured is written after every row, so that a run that is killed loses only what it was at. `kernel_table` says how targets are judged.
"""

from __future__ import annotations

import argparse
import datetime
import gc
import json
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # before this folder, whose kernels.py is not the package of that name

from kernel_cases import Case, Setting, chosen
from kernel_measure import DeviceLost, measure
from kernel_table import median_ms, number, page

from analysis.cli import BadInput, replacing, run
from analysis.environment import environment, gpu_state, versions

PACKAGES = ("torch", "triton", "cupy-cuda13x", "cupy-cuda12x", "numpy", "flashlib")
LINK_BYTES = 1 << 30


def link_gbs(clock: Any) -> float:
    """GB/s of copying pinned host memory to the device: the best of ten."""
    import torch

    host, there = torch.empty(LINK_BYTES, dtype=torch.uint8, pin_memory=True), torch.empty(LINK_BYTES, dtype=torch.uint8, device="cuda")
    best = min(clock.time_ms(lambda: there.copy_(host, non_blocking=True), flush=False) for _ in range(10))
    return LINK_BYTES / best / 1e6


def begin(cases: list[Case]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The record so far, and the clocks. Raises BadInput where there is no GPU."""
    from kernels.device import find
    from kernels.roofline import ceilings
    from kernels.timing import CpuClock, CudaClock

    device = find("auto")
    if device.kind != "gpu":
        raise BadInput("no NVIDIA GPU here; --print FILE makes the table of what was measured elsewhere")
    clocks: dict[str, Any] = {"gpu": CudaClock(), "cpu": CpuClock()}
    found = ceilings(device, clocks["gpu"])
    if any(case.name == "knn_streamed" for case in cases):
        found["link_gbs"] = link_gbs(clocks["gpu"])
    record = {
        "schema": 1,
        "started": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "device": device.name,
        "gpu": gpu_state(),
        "environment": environment(),
        "versions": versions(*PACKAGES),
        "ceilings": found,
        "rows": [],
    }
    return record, clocks


def write(out: Path, record: dict[str, Any]) -> None:
    with replacing(out) as temporary:
        temporary.write_text(json.dumps(record, indent=1) + "\n")


def measure_all(cases: list[Case], setting: Setting, record: dict[str, Any], clocks: dict[str, Any], out: Path) -> None:
    """Measure the cases one by one, each freed before the next; the record is written after each row."""
    write(out, record)
    start = time.perf_counter()
    for case in cases:
        try:
            for row in case.rows(setting):
                found = measure(row, clocks)
                found["gpu"] = gpu_state()
                record["rows"].append(found)
                write(out, record)
                told = ", ".join(
                    f"{one['name']} {number(median_ms(one)) if 'error' not in one else one['error']}" for one in found["contenders"]
                )
                print(f"{time.perf_counter() - start:6.1f} s  {row.name}: {told or row.left_out}", file=sys.stderr, flush=True)
                del row
        except DeviceLost as error:
            record["stopped"] = f"{error}, at {case.name}: measure the rest in a further run, with --cases"
            write(out, record)
            print(record["stopped"], file=sys.stderr, flush=True)
            return
        except Exception as error:  # the data does not fit, say: the other cases go on
            left_out = f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0][:300]}"
            record["rows"].append(
                {"row": case.name, "title": case.title, "target": None, "cost": None, "contenders": [], "left_out": left_out}
            )
            write(out, record)
            print(f"{time.perf_counter() - start:6.1f} s  {case.name}: {left_out}", file=sys.stderr, flush=True)
            del error
        free(setting)


def free(setting: Setting) -> None:
    gc.collect()
    if setting.device == "cuda":
        import torch

        torch.cuda.empty_cache()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--list", action="store_true", help="name the cases")
    what.add_argument("--out", type=Path, help="measure, and write the records into this file (JSON), which must not exist")
    what.add_argument("--print", type=Path, nargs="+", metavar="FILE", help="print the tables of record files")
    parser.add_argument("--cases", nargs="+", default=[], help="cases, by their names, how these begin, or patterns (default: all)")
    options = parser.parse_args()
    cases = chosen(options.cases)
    if options.list:
        print("\n".join(f"{case.name:28s} {case.title}" for case in cases))
        return 0
    for path in options.print or ():
        if not path.is_file():
            raise BadInput(f"--print {path}: no such file")
        print("\n".join(page(json.loads(path.read_text()))))
    if options.out:
        if options.out.exists():
            raise BadInput(f"--out {options.out}: there is such a file; name another one")
        record, clocks = begin(cases)
        measure_all(cases, Setting(), record, clocks, options.out)
        print("\n".join(page(record)))
    return 0


if __name__ == "__main__":
    run(main)
