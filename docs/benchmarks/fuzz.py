"""Requests made up from the OpenAPI document, right and wrong ones, against a real service process.

    python docs/benchmarks/fuzz.py                 some 10,000 cases, minutes

Schemathesis makes them and checks each answer against the document. How they were answered is counted by the service's own /metrics. Adds
nothing to a record: docs/benchmarks/records/fuzz.json is replaced. Ends with 1 where an answer was not as documented, was a 5xx, or the
service's log has a traceback.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import urllib.request
from collections import Counter
from pathlib import Path
from typing import Any

import yaml
from prometheus_client.parser import text_string_to_metric_families

from analysis.cli import replacing, run
from analysis.environment import environment, versions
from rag.launch import launched

RECORD = Path(__file__).with_name("records") / "fuzz.json"
TINY = {"architecture": "opt", "hidden": 16, "layers": 1, "heads": 2, "new_tokens": 2}
EXPERIMENT: dict[str, Any] = {
    "corpus": {"source": "stdlib", "limit": 20},
    "generator": TINY,
    "arms": {"tiny": {"service": "batched", "max_batch": 8}, "echo": {"service": "echo"}},
    "load": {"rates": [1], "deadline_s": 30},
}
SETTINGS = """
[checks.negative_data_rejection]
expected-statuses = [400, 404, 405, 413, 422]

[[operations]]
include-name = "POST /v1/chat/completions"
checks.positive_data_acceptance.enabled = false
"""
"""A wrong request may be too large before it is wrong; a schema cannot say that the last message of the user has to have a text in it."""
ROUND = 900
SHOWN = 400
"""Characters of a line of what Schemathesis says; some bodies have megabytes."""
PHASES = "examples,coverage,fuzzing"
PACKAGES = ("schemathesis", "fastapi", "starlette", "uvicorn", "pydantic", "torch", "transformers")


def main() -> int:
    arguments = _parser().parse_args()
    record = fuzz(arguments.arm, arguments.cases, arguments.seed)
    with replacing(arguments.out) as temporary:
        temporary.write_text(json.dumps(record, indent=1) + "\n")
    print(json.dumps({name: record[name] for name in ("cases", "failures", "statuses", "server_errors", "tracebacks")}))
    return int(bool(record["failures"] or record["server_errors"] or record["tracebacks"]))


def fuzz(arm: str, cases: int, seed: int) -> dict[str, Any]:
    """What came of at least `cases` cases, made in rounds with a seed each: within a round, new ones become ever harder to find."""
    with tempfile.TemporaryDirectory() as name:
        folder, made = Path(name), list[dict[str, Any]]()
        (folder / "schemathesis.toml").write_text(SETTINGS)
        config, log = folder / "config.yaml", folder / "service.log"
        config.write_text(yaml.safe_dump({"rag": {"fuzz": EXPERIMENT}}))
        with launched(["--config", str(config), "--name", "fuzz", "--device", "cpu", "--arm", arm], log) as url:
            while (number := sum(one["test_cases"]["generated"] for one in made)) < cases:
                made.append(_round(url, folder, min(ROUND, cases - number), seed + len(made)))
                print(f"{number + made[-1]['test_cases']['generated']} of {cases} cases", file=sys.stderr)
            answers = _answers(url)
        said = log.read_text(errors="replace")
    statuses = Counter[str]()
    for (_, status), count in answers.items():
        statuses[status] += count
    return {
        "cases": number,
        "failures": [failure for one in made for failure in one["failures"]],
        "errors": [error for one in made for error in one["errors"]],
        "statuses": dict(sorted(statuses.items())),
        "routes": {f"{route} {status}": count for (route, status), count in sorted(answers.items())},
        "server_errors": sum(count for status, count in statuses.items() if status >= "500"),
        "tracebacks": said.count("Traceback"),
        "arm": arm,
        "seeds": [one["seed"] for one in made],
        "seconds": round(sum(one["running_time"] for one in made), 1),
        "versions": versions(*PACKAGES),
        "provenance": environment(),
    }


def _round(url: str, folder: Path, cases: int, seed: int) -> dict[str, Any]:
    """Schemathesis's report of about `cases` cases; what it found is printed. Raises RuntimeError where it did not get to a report."""
    report = folder / f"{seed}.json"
    words = ["--phases", PHASES, "--max-examples", str(-(-cases // 3)), "--seed", str(seed)]  # of each of the three POST routes
    done = subprocess.run(
        [Path(sys.executable).with_name("schemathesis"), "run", f"{url}/openapi.json", *words, "--report-json-path", report],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=folder,
    )
    if not report.is_file():
        raise RuntimeError(f"schemathesis ended with code {done.returncode}:\n{done.stdout}")
    if done.returncode:
        print("\n".join(line[:SHOWN] for line in done.stdout.splitlines()), file=sys.stderr)
    return json.loads(report.read_text())


def _answers(url: str) -> dict[tuple[str, str], int]:
    """How many requests of each route were answered with each status."""
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(f"{url}/metrics", timeout=30) as response:
        families = text_string_to_metric_families(response.read().decode())
    samples = [sample for family in families for sample in family.samples if sample.name == "rag_requests_total"]
    return {(sample.labels["route"], sample.labels["status"]): int(sample.value) for sample in samples}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=10_000, help="cases to make at least (default 10000)")
    parser.add_argument("--arm", choices=list(EXPERIMENT["arms"]), default="tiny", help="tiny: real stages, small (default); echo: none")
    parser.add_argument("--seed", type=int, default=1, help="of the cases (default 1)")
    parser.add_argument("--out", type=Path, default=RECORD, help="the record to write")
    return parser


if __name__ == "__main__":
    run(main)
