"""The benchmark's records as tables: what was asked, what was found, and whether it is met.

Targets are absolute times on one machine, with its ceilings and peers (`kernel_measure.ISSUE` and `Target.base_ms`). In another run a
limit is that one times the ceiling of that machine over the one measured in the run, a peer is measured in the run, and the target
keeps its ratio to either. A target is met by the median, and by right answers alone.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from kernel_measure import HOST_MS, ISSUE

from analysis.statistics import summary
from kernels.contract import Cost
from kernels.roofline import limit

Record = Mapping[str, Any]


def ceiling(name: str, ceilings: Record) -> float | None:
    """The measured ceiling of this name in the units of ISSUE, or None where it was not measured."""
    if name == "bandwidth":
        return ceilings.get("bandwidth_gbs")
    return ceilings.get("link_gbs") if name == "link" else ceilings.get("tflops", {}).get(name)


def limit_ms(row: Record, ceilings: Record) -> float | None:
    """The hardware's limit of a row in this run."""
    target = row["target"]
    if target and target["base"] in ISSUE:
        measured = ceiling(target["base"], ceilings)
        return target["base_ms"] * ISSUE[target["base"]] / measured if measured else None
    return limit(Cost(**row["cost"]), ceilings)[0] if row["cost"] else None


def median_ms(entry: Record | None) -> float | None:
    """The median of a contender's samples; None where it has none."""
    return statistics.median(entry["samples_ms"]) if entry and entry.get("samples_ms") else None


def ours(row: Record, place: str | None = None) -> Record | None:
    found = [one for one in row["contenders"] if one["name"] == "ours" and place in (None, one["place"])]
    return found[0] if found else None


def best_peer(row: Record) -> Record | None:
    """The fastest contender that is not ours, whether its answers are right or not."""
    timed = [one for one in row["contenders"] if one["name"] != "ours" and median_ms(one) is not None]
    return min(timed, key=lambda one: median_ms(one) or 0.0, default=None)


def base_ms(row: Record, ceilings: Record) -> tuple[float, bool]:
    """What the row's target is relative to, in this run, and whether it was measured in it; if not, the issue's figure."""
    target = row["target"]
    if target["base"] == "peer":
        found = median_ms(next((one for one in row["contenders"] if one["name"] == target["peer"]), None))
    else:
        found = limit_ms(row, ceilings)
    return (found, True) if found else (target["base_ms"], False)


def right(row: Record, entry: Record) -> bool:
    key, least = row["needs"]
    return entry.get(key, 0.0) >= least


def verdict(row: Record, ceilings: Record) -> str:
    """ "aim", "must" or "no", with what stands against it."""
    entry = ours(row)
    found = median_ms(entry)
    if entry is None or found is None:
        return "no: failed"
    base, measured = base_ms(row, ceilings)
    scale = base / row["target"]["base_ms"]
    reached = next((word for word in ("aim", "must") if found <= row["target"][word] * scale), "no")
    if not right(row, entry):
        return f"no: {row['needs'][0]} {entry.get(row['needs'][0], 0.0):.4f}"
    return reached + ("" if measured else " *")


def exactness(entry: Record) -> str:
    """What was checked of a contender, in words."""
    if "nprobe" in entry:
        return f"recall {entry['recall']:.4f} (nprobe {entry['nprobe']})"
    words = [f"{entry['exact']:.4f} of {entry['checked']:,}"]
    words += [f"recall {entry['recall']:.4f}"] if entry.get("recall", 1.0) < 1 else []
    words += [f"error {entry['error']:.2g} tolerances"] if "error" in entry else []
    words += [f"update within {entry['update']:.1g}"] if "update" in entry else []
    return ", ".join(words)


def number(value: float | None) -> str:
    """Four significant digits without an exponent; a dash where there is none."""
    if value is None:
        return "–"
    digits = max(0, 3 - len(str(int(abs(value)))) + (abs(value) < 1)) if abs(value) >= 0.1 else 4
    return f"{value:,.{digits}f}"


def timed(entry: Record | None) -> str:
    """Median and interval of a contender; the host's times too where the call is short; its error where it failed."""
    if entry is None:
        return "–"
    if not entry.get("samples_ms"):
        return f"failed: {entry.get('error', 'no samples')}"
    found = summary(entry["samples_ms"])
    text = f"{number(found.median)} [{number(found.low)}, {number(found.high)}]"
    if "host_ms" in entry:
        text += f" (host: call {number(statistics.median(entry['host_ms']))}, with wait {number(statistics.median(entry['waited_ms']))})"
    return text


def ratio(above: float | None, below: float | None) -> str:
    return f"{above / below:.2f}" if above and below else "–"


def relative(row: Record, word: str) -> str:
    """A target as a ratio: 1.30 × limit."""
    target = row["target"]
    return f"{target[word] / target['base_ms']:.2f} × {'limit' if target['base'] in ISSUE else target['peer'].split(',')[0]}"


def lines(header: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """A Markdown table."""
    yield "| " + " | ".join(header) + " |"
    yield "|" + "---|" * len(header)
    yield from ("| " + " | ".join(row) + " |" for row in rows)


def targets(rows: Sequence[Record], ceilings: Record) -> Iterator[str]:
    """The table of the rows that have a target."""
    header = ("case", "limit", "best peer", "ours, ms [95 %]", "ours / limit", "peer / ours", "must", "aim", "met", "exactness")
    found = []
    for row in rows:
        entry, peer, at = ours(row), best_peer(row), limit_ms(row, ceilings)
        rival = "–" if peer is None else f"{peer['name']} {number(median_ms(peer))}" + ("" if right(row, peer) else f" ({exactness(peer)})")
        ratios = ratio(median_ms(entry), at), ratio(median_ms(peer), median_ms(entry))
        checked = exactness(entry) if entry and "checked" in entry else "–"
        asked = relative(row, "must"), relative(row, "aim")
        found.append((row["title"], number(at), rival, timed(entry), *ratios, *asked, verdict(row, ceilings), checked))
    yield from lines(header, found)
    if any(cells[8].endswith("*") for cells in found):
        yield "\n\\* what the target is relative to was not measured in this run: judged by the issue's own figure"


def report(rows: Sequence[Record], ceilings: Record) -> Iterator[str]:
    """The table of the rows that have none: GPU beside CPU."""
    header = ("case", "limit on the GPU", "GPU, ms [95 %]", "GPU / limit", "CPU, ms [95 %]", "CPU / GPU", "exactness")
    found = []
    for row in rows:
        if row["left_out"]:
            found.append((row["title"], "–", f"left out: {row['left_out']}", "–", "–", "–", "–"))
            continue
        gpu, cpu, at = ours(row, "gpu"), ours(row, "cpu"), limit_ms(row, ceilings)
        checked = "; ".join(f"{entry['place']} {exactness(entry)}" for entry in (gpu, cpu) if entry and "checked" in entry)
        ratios = ratio(median_ms(gpu), at), ratio(median_ms(cpu), median_ms(gpu))
        found.append((row["title"], number(at), timed(gpu), ratios[0], timed(cpu), ratios[1], checked))
    yield from lines(header, found)


def others(rows: Sequence[Record]) -> Iterator[str]:
    """Every contender that is not ours in the order of the rows, and what did not work."""
    for row in rows:
        for entry in row["contenders"]:
            if entry.get("samples_ms") and entry["name"] != "ours":
                prepared = f", prepared in {number(entry['prepare_ms'])} ms" if entry.get("prepare_ms", 0.0) > HOST_MS else ""
                yield f"- {row['title']}: {entry['name']} {timed(entry)} ms{prepared}; {exactness(entry)}"
            elif not entry.get("samples_ms"):
                yield f"- {row['title']}: {entry['name']} on the {entry['place']} failed: {entry.get('error')}"


def page(record: Record) -> Iterator[str]:
    """All tables of one record file."""
    ceilings, gpu = record["ceilings"], record["gpu"] or {}
    yield f"{record['device']}, driver {gpu.get('driver', '–')}, {record['started']}, commit {record['environment']['commit'][:12]}" + (
        "-dirty" if record["environment"]["dirty"] else ""
    )
    yield ", ".join(f"{name} {version}" for name, version in record["versions"].items())
    rates = ", ".join(f"{name} {rate:.0f}" for name, rate in ceilings.get("tflops", {}).items())
    link = f", pinned copy to the device {ceilings['link_gbs']:.1f} GB/s" if "link_gbs" in ceilings else ""
    yield f"ceilings: memory {ceilings['bandwidth_gbs']:,.0f} GB/s; TFLOP/s: {rates}{link}"
    asked = [row for row in record["rows"] if row["target"]]
    rest = [row for row in record["rows"] if not row["target"]]
    for rows, table in ((asked, targets), (rest, report)):
        if rows:
            yield ""
            yield from table(rows, ceilings)
    if listed := list(others(record["rows"])):
        yield from ("", "Others, and what failed:", *listed)
    if "stopped" in record:
        yield f"\nstopped: {record['stopped']}"
