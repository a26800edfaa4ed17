"""What the parts of the RAG service can do by themselves on one GPU: decoding, embedding and retrieval, without HTTP, queue or batcher.

    python docs/benchmarks/decoding.py --out docs/benchmarks/records/decoding.json      some two minutes on an H100
    python docs/benchmarks/decoding.py --out small.json --small                         tiny sizes, to see that it runs; on a CPU too
    python docs/benchmarks/decoding.py --print docs/benchmarks/records/decoding.json    the tables again

Models have random weights (`rag.shapes`): their time is real. Times are wall-clock from the call until the device is idle, the median of
the samples, after one call that is not counted. 64 tokens in, 50 out. What is measured is written after every row.
"""

from __future__ import annotations

import argparse
import datetime
import gc
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # before this folder, whose kernels.py is not the package of that name

from analysis.cli import BadInput, replacing, run
from analysis.environment import environment, gpu_state, versions

PACKAGES = ("torch", "transformers", "tokenizers", "triton", "numpy")
Row = dict[str, Any]


@dataclass(frozen=True)
class Sizes:
    """What is measured. `plain` are the batches that the library's own loop generates too, which takes long."""

    generators: tuple[dict[str, Any], ...]
    embedder: dict[str, Any]
    batches: tuple[int, ...]
    plain: tuple[int, ...]
    prompt: int
    new: int
    passages: int
    vectors: tuple[int, int]
    samples: int


FULL = Sizes(
    generators=({"architecture": "opt-125m"}, {"architecture": "qwen2.5-1.5b"}),
    embedder={"architecture": "e5-large", "dtype": "float16"},
    batches=tuple(1 << power for power in range(10)),
    plain=(1, 32, 512),
    prompt=64,
    new=50,
    passages=8192,
    vectors=(100_000, 1024),
    samples=5,
)
SMALL = Sizes(
    generators=({"architecture": "opt", "hidden": 32, "layers": 2, "heads": 2},),
    embedder={"model": "minilm", "dtype": "float32"},
    batches=(1, 2, 4),
    plain=(1, 4),
    prompt=16,
    new=4,
    passages=32,
    vectors=(2000, 32),
    samples=2,
)


def seconds(call: Callable[[], Any], samples: int) -> float:
    """The median time of a call until the device is idle."""
    import torch

    def once() -> float:
        start = time.perf_counter()
        call()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        return time.perf_counter() - start

    once()
    return statistics.median(once() for _ in range(samples))


def decoding(sizes: Sizes, device: str) -> Iterator[Row]:
    """Our decoder and the library's `generate` at every batch size, and how often they give the same tokens."""
    import torch

    from rag.decode import Decoder
    from rag.generate import Transformers

    for settings in sizes.generators:
        for dtype in ("float16", "bfloat16", "float32") if device == "cuda" else ("float32",):
            given = {**settings, "new_tokens": sizes.new, "prompt_tokens": sizes.prompt, "dtype": dtype}
            model = Transformers(given, 0, device, "here").model
            timed = dtype == "float16" or device == "cpu"
            most = max(sizes.batches) if timed else min(64, max(sizes.batches))
            decoder = Decoder(model, sizes.prompt, sizes.new, most)
            start = time.perf_counter()
            decoder.warm_up()
            yield {"model": settings["architecture"], "dtype": dtype, "capture_s": time.perf_counter() - start, "memory_gb": memory_gb()}
            for batch in sizes.batches if timed else ():
                yield {"model": settings["architecture"], "dtype": dtype, **rates(model, decoder, sizes, batch)}
            ids, mask = prompts(most, sizes.prompt, model, ragged=True)
            ours, theirs = decoder(ids, mask), generate(model, ids, mask, sizes.new)
            same = ours == theirs
            equal = {"rows_equal": float(same.all(1).float().mean()), "tokens_equal": float(same.float().mean())}
            yield {"model": settings["architecture"], "dtype": dtype, "compared": most, **equal}
            del model, decoder
            gc.collect()
            if device == "cuda":
                torch.cuda.empty_cache()


def rates(model: Any, decoder: Any, sizes: Sizes, batch: int) -> Row:
    """Requests a second, and tokens a second of the steps alone."""
    import torch

    ids, mask = prompts(batch, sizes.prompt, model)
    whole = seconds(lambda: decoder(ids, mask), sizes.samples)
    plan = decoder._plans[batch]
    prefill = seconds(torch.inference_mode()(lambda: plan._start(ids, mask.bool())), sizes.samples)
    row = {"batch": batch, "s": whole, "prefill_s": prefill, "requests_s": batch / whole}
    row["decode_tokens_s"] = batch * (sizes.new - 1) / (whole - prefill)
    plain = batch in sizes.plain
    return row | {"plain_requests_s": batch / seconds(lambda: generate(model, ids, mask, sizes.new), 2) if plain else None}


def prompts(batch: int, length: int, model: Any, ragged: bool = False) -> tuple[Any, Any]:
    """Random prompts, all of `length` tokens or of 1 to so many, padded on the left, and their mask."""
    import torch

    rng = torch.Generator().manual_seed(batch)
    ids = torch.randint(1000, min(30000, model.config.vocab_size), (batch, length), generator=rng)
    lengths = torch.randint(1, length + 1, (batch, 1), generator=rng) if ragged else torch.full((batch, 1), length)
    mask = (torch.arange(length) >= length - lengths).long()
    return ids.to(model.device), mask.to(model.device)


def generate(model: Any, ids: Any, mask: Any, new: int) -> Any:
    """The library's own greedy loop, of exactly `new` tokens."""
    options = {"do_sample": False, "min_new_tokens": new, "max_new_tokens": new, "eos_token_id": None, "pad_token_id": 0}
    return model.generate(input_ids=ids, attention_mask=mask, **options)[:, ids.shape[1] :]


def embedding(sizes: Sizes, device: str) -> Iterator[Row]:
    """Queries a second at every batch size, and passages a second of a corpus."""
    from rag.embed import Embedder
    from rag.graphs import Place
    from rag.libraries import stdlib

    embedder = Embedder(sizes.embedder, device, "here")
    if device == "cuda":
        embedder.capture(max(sizes.batches), Place())
    texts = [text for _, text in stdlib()]
    name = {"model": embedder.name, "dtype": sizes.embedder["dtype"] if device == "cuda" else "float32"}
    queries = [" ".join(text.split()[:16]) for text in texts]
    for batch in sizes.batches:
        taken = seconds(lambda: embedder.queries(queries[:batch]).cpu(), sizes.samples)  # noqa: B023
        yield {**name, "batch": batch, "s": taken, "queries_s": batch / taken}
    chunks = [" ".join(text.split()[:40]) for text in texts]
    chunks = (chunks * (1 + sizes.passages // len(chunks)))[: sizes.passages]
    taken = seconds(lambda: embedder.passages(chunks), 1)
    yield {**name, "passages": sizes.passages, "s": taken, "passages_s": sizes.passages / taken}


def retrieval(sizes: Sizes, device: str) -> Iterator[Row]:
    """The exact search and the inverted file as an arm has them by default, on clustered vectors of length 1; k = 10."""
    import numpy as np
    import torch

    from kernels.ivf import recall
    from rag import index
    from rag.embed import normalised

    number, dimension = sizes.vectors
    rng = torch.Generator(device).manual_seed(0)
    centres = torch.randn((max(1, number // 50), dimension), generator=rng, device=device)

    def around(count: int) -> Any:
        at = torch.randint(len(centres), (count,), generator=rng, device=device)
        return normalised(centres[at] + torch.randn((count, dimension), generator=rng, device=device))

    vectors, queries = around(number), around(max(sizes.batches))
    found = dict[str, Any]()
    for name in ("knn", "ivf"):
        start = time.perf_counter()
        searched = index.of({"retrieval": name}, vectors)
        built = time.perf_counter() - start
        lists = {"lists": searched.built.lists, "nprobe": searched.nprobe} if isinstance(searched, index.Inverted) else {}
        for batch in sizes.batches:
            taken = seconds(lambda: searched.search(queries[:batch], 10), sizes.samples)  # noqa: B023
            yield {
                "retrieval": name,
                "vectors": number,
                "dimension": dimension,
                **lists,
                "batch": batch,
                "s": taken,
                "queries_s": batch / taken,
            }
        found[name] = np.array([rows + [-1] * (10 - len(rows)) for rows in searched.search(queries, 10)])
        if lists:
            yield {"retrieval": name, **lists, "ready_s": built, "recall_at_10": recall(found["ivf"], found["knn"])}


def alone(sizes: Sizes, device: str) -> Iterator[Row]:
    """Requests of a batch against the same requests one by one: their tokens, and their embeddings."""
    from rag.decode import Decoder
    from rag.embed import Embedder
    from rag.generate import Transformers
    from rag.graphs import Place
    from rag.libraries import stdlib

    some = min(32, max(sizes.batches))
    for settings in sizes.generators:
        for dtype in ("float32", "bfloat16") if device == "cuda" else ("float32",):
            given = {**settings, "new_tokens": sizes.new, "prompt_tokens": sizes.prompt, "dtype": dtype}
            model = Transformers(given, 0, device, "here").model
            decoder = Decoder(model, sizes.prompt, sizes.new, some)
            ids, mask = prompts(some, sizes.prompt, model, ragged=True)
            together = decoder(ids, mask)
            same = [decoder(ids[at, mask[at].bool()][None], mask[at, mask[at].bool()][None])[0] == together[at] for at in range(some)]
            equal = sum(bool(each.all()) for each in same) / some
            yield {"model": settings["architecture"], "dtype": dtype, "requests": some, "equal": equal, "tokens": len(together.unique())}
            del model, decoder
    queries = [" ".join(text.split()[: 4 + number % 40]) for number, (_, text) in zip(range(some), stdlib(), strict=False)]
    for dtype in ("float32", sizes.embedder["dtype"]) if device == "cuda" else ("float32",):
        embedder = Embedder({**sizes.embedder, "dtype": dtype}, device, "here")
        if device == "cuda":
            embedder.capture(some, Place())
        together = embedder.queries(queries)
        most = max(float((embedder.queries([query])[0] - together[at]).abs().max()) for at, query in enumerate(queries))
        yield {"model": embedder.name, "dtype": dtype, "requests": some, "largest_difference": most}


PARTS: dict[str, Callable[[Sizes, str], Iterator[Row]]] = {
    "decoding": decoding,
    "embedding": embedding,
    "retrieval": retrieval,
    "alone": alone,
}


def memory_gb() -> float | None:
    import torch

    return torch.cuda.memory_reserved() / 1e9 if torch.cuda.is_available() else None


def measure(sizes: Sizes, parts: list[str], out: Path) -> Row:
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cpu" and sizes is FULL:
        raise BadInput("PyTorch finds no CUDA GPU here; --small runs on a CPU, and --print FILE makes the tables of what was measured")
    started = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    record: Row = {"schema": 1, "started": started, "device": device, "gpu": gpu_state(), "environment": environment()}
    record |= {"versions": versions(*PACKAGES), "small": sizes is SMALL, "rows": []}
    begun = time.perf_counter()
    for part in parts:
        for row in PARTS[part](sizes, device):
            record["rows"].append({"part": part, **row})
            with replacing(out) as temporary:
                temporary.write_text(json.dumps(record, indent=1) + "\n")
            print(f"{time.perf_counter() - begun:6.1f} s  {part}: {line(row)}", file=sys.stderr, flush=True)
    return record


def line(row: Row) -> str:
    return ", ".join(f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}" for name, value in row.items())


def page(record: Row) -> Iterator[str]:
    """A table a part: rows with the same columns stand together."""
    gpu = (record["gpu"] or {}).get("name") or "CPU"
    yield f"{gpu}, {record['started']}, commit {record['environment']['commit'][:12]}, torch {record['versions']['torch']}"
    columns: list[str] = []
    for row in record["rows"]:
        if list(row) != columns:
            columns = list(row)
            yield ""
            yield " ".join(f"{name:>16s}" for name in columns)
        yield " ".join(
            f"{value:16.5g}" if isinstance(value, float) else f"{'' if value is None else value!s:>16s}" for value in row.values()
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--out", type=Path, help="measure, and write the record into this file (JSON), which must not exist")
    what.add_argument("--print", type=Path, metavar="FILE", help="print the tables of a record")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS), help="what to measure (default: all)")
    parser.add_argument("--small", action="store_true", help="tiny sizes, to see that it runs")
    options = parser.parse_args()
    if options.out and options.out.exists():
        raise BadInput(f"--out {options.out}: there is such a file; name another one")
    if options.print and not options.print.is_file():
        raise BadInput(f"--print {options.print}: no such file")
    record = (
        json.loads(options.print.read_text()) if options.print else measure(SMALL if options.small else FULL, options.parts, options.out)
    )
    print("\n".join(page(record)))


if __name__ == "__main__":
    run(main)
