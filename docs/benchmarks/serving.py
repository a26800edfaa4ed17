"""What is around the models: the most that the load generator sends, and what HTTP, queue and batchers add to a request.

    python docs/benchmarks/serving.py ceiling     some ten seconds
    python docs/benchmarks/serving.py overhead    two minutes

`overhead` offers a light Poisson load to a service whose stages do nothing (arm `echo`) and, in turns with it, to a server that only
answers: the generator's own floor. Latency counts from the schedule. Prints a table and keeps what it measured in
docs/benchmarks/records/serving.json. On a machine that does other things too, `chrt -f 10` before it keeps them out of the figures.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import json
import os
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from analysis.cli import replacing
from analysis.environment import cpu_name, environment, versions
from rag.arrivals import schedule
from rag.ceiling import QUERY, answering, ceiling
from rag.launch import launched
from rag.senders import Senders, enough, senders

RECORDS = Path(__file__).with_name("records") / "serving.json"
PACKAGES = ("aiohttp", "fastapi", "starlette", "uvicorn", "uvloop", "httptools")
RATES = (20, 100)
SECONDS = 15.0
REPEATS = 2
CEILINGS = 3
DEADLINE_S = 5.0
MUST_MS = {50: 3.0, 99: 10.0}
"""At most so many milliseconds at this percentile, on 2 cores."""
BLOCK = {"arms": {"echo": {"service": "echo"}}, "load": {"rates": list(RATES)}}


def ceilings() -> dict[str, Any]:
    """Requests a second that 1, 2, … processes send and get answered, median of `CEILINGS`."""
    found = {}
    for number in range(1, enough() + 1):
        with senders(number) as processes:
            found[str(number)] = round(float(np.median([ceiling(processes) for _ in range(CEILINGS)])))
        print(f"{number} processes: {found[str(number)]:,} requests/s")
    return {"rps_by_processes": found}


def overhead() -> dict[str, Any]:
    """Percentiles of the latency from the schedule, of the service and of the floor, by rate."""
    samples: dict[tuple[str, int], list[float]] = {}
    with senders(enough()) as processes, service() as served, answering() as floor:
        for repeat in range(REPEATS):
            for rate in RATES:
                for name, url in (("floor", f"{floor}/"), ("service", f"{served}/rag")):
                    samples.setdefault((name, rate), []).extend(latencies(processes, url, rate, repeat))
    rows = []
    for rate in RATES:
        for name in ("floor", "service"):
            values = samples[name, rate]
            rows.append({"what": name, "rate": rate, "requests": len(values), **{f"p{at}_ms": _percentile(values, at) for at in MUST_MS}})
            row = rows[-1]
            print(f"{rate:4d}/s  {name:8s} p50 {row['p50_ms']:6.2f} ms  p99 {row['p99_ms']:6.2f} ms  ({row['requests']} requests)")
        above = {key: round(rows[-1][key] - rows[-2][key], 2) for key in ("p50_ms", "p99_ms")}
        print(f"{rate:4d}/s  above the floor: p50 {above['p50_ms']:.2f} ms  p99 {above['p99_ms']:.2f} ms")
    held = all(row[f"p{at}_ms"] <= most for row in rows if row["what"] == "service" for at, most in MUST_MS.items())
    print("must hold p50", " p99 ".join(f"{most:g} ms" for most in MUST_MS.values()), "- held" if held else "- NOT held")
    return {"rows": rows, "must_ms": {f"p{at}": most for at, most in MUST_MS.items()}, "held": held}


def _percentile(values: Sequence[float], at: int) -> float:
    return round(float(np.percentile(values, at)), 2)


def latencies(processes: Senders, url: str, rate: int, repeat: int) -> Sequence[float]:
    """Milliseconds from the schedule to the answer of each request; infinite for one that was not answered."""
    times = schedule({"arrivals": "poisson", "seconds": SECONDS}, rate, [rate, repeat])
    outcomes = processes.offer(url, times, [QUERY] * len(times), DEADLINE_S).outcomes
    return [(one.end_s - one.scheduled_s) * 1e3 if one.status == "ok" else np.inf for one in outcomes]


@contextlib.contextmanager
def service() -> Iterator[str]:
    """The address of the service with stages that do nothing."""
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder, "config.yaml")
        config.write_text(yaml.safe_dump({"rag": {"overhead": BLOCK}}))
        words = ["--config", str(config), "--name", "overhead", "--arm", "echo", "--device", "cpu"]
        with launched(words, Path(folder, "log")) as url:
            yield url


def record(what: str, path: Path) -> dict[str, Any]:
    """Measure "ceiling" or "overhead" and keep it beside what else is in the file."""
    about = {
        "processor": cpu_name(),
        "load_before": os.getloadavg()[0],
        "real_time": os.sched_getscheduler(0) in (os.SCHED_FIFO, os.SCHED_RR),
        "started": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "versions": versions(*PACKAGES),
        "provenance": environment(),
    }
    kept = json.loads(path.read_text()) if path.is_file() else {}
    kept[what] = {**MEASURES[what](), **about}
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(kept, indent=1, sort_keys=True) + "\n")
    return kept


MEASURES = {"ceiling": ceilings, "overhead": overhead}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=MEASURES)
    record(parser.parse_args().what, RECORDS)


if __name__ == "__main__":
    main()
