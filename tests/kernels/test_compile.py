"""Cross-compilation with no GPU: the table, what it rules out, and the cache, in processes of their own as in a run."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

from analysis.cli import BadInput
from analysis.records import read_parquet
from kernels import cross
from kernels.compile import key, ruled_out
from kernels.contract import Problem
from kernels.resources import Resources, capability, parse_ptxas
from tests.commands import one_line, run_module, run_python
from tests.kernels.tiny import CONFIG, SOFTMAX, copy_softmax, write_config

BLOCKS = {"triton": {"BLOCK_COLUMNS": [128, 512], "num_warps": [1]}}
PROBLEMS = [{"rows": 200, "columns": [40, 64]}]
COLUMNS = (
    "operator backend architecture kernel problems block registers spills shared_static shared_dynamic seconds verdict reason versions hash"
)

GATHER = """
import torch
import triton
import triton.language as tl

from kernels.contract import Space

ARRAYS = "torch"
DEVICES = ("cuda",)
SPACE = Space(axes={"WIDTH": (4096, 32768)}, default={"WIDTH": 4096})


@triton.jit
def reverse(X, Y, WIDTH: tl.constexpr):
    at = tl.arange(0, WIDTH)
    tl.store(Y + at, tl.gather(tl.load(X + at), WIDTH - 1 - at, 0))


def run(problem, inputs, block):
    y = torch.empty_like(inputs["x"])
    reverse[(1,)](inputs["x"], y, WIDTH=block["WIDTH"], num_warps=8)
    return {"y": y}
"""
"""A backend whose kernel exchanges WIDTH float32 through shared memory: 16 and 128 KiB."""


def compiled(folder: Path, cache: Path, architecture: str = "sm_80", **changes: Any) -> pd.DataFrame:
    """The table of the softmax operator."""
    sweep = {"softmax": {"problems": PROBLEMS, "blocks": changes.pop("blocks", BLOCKS)}}
    config = write_config(folder, sweep=sweep, bench={}, **changes)
    out = folder / f"softmax.{architecture}.parquet"
    words = ("--config", config, "--operator", "softmax", "--architecture", architecture, "--out", out, "--cache", cache)
    done = run_module("kernels.compile", *words)
    assert done.returncode == 0, done
    return read_parquet(out)


def kernels_of(table: pd.DataFrame) -> pd.DataFrame:
    return table[table.verdict == "ok"]


@pytest.fixture(scope="module")
def ampere(tmp_path_factory: pytest.TempPathFactory) -> tuple[pd.DataFrame, Path]:
    """The table for sm_80, and the cache that was left."""
    folder = tmp_path_factory.mktemp("sm_80")
    return compiled(folder, folder / "cache"), folder / "cache"


def test_the_table_has_a_row_a_variant(ampere: tuple[pd.DataFrame, Path]):
    table, _ = ampere
    assert set(COLUMNS.split()) <= set(table.columns)
    ok = kernels_of(table)
    asked, default = {"BLOCK_COLUMNS": 128, "num_warps": 1}, {"BLOCK_COLUMNS": 256, "num_warps": 4}
    assert ok.block.map(json.loads).tolist() == [asked, default] * 2  # each twice: 64 columns are a multiple of 16, 40 are not
    assert (ok.registers > 0).all()
    assert set(ok.kernel) == {"softmax_rows"}
    assert not ok.cached.any()
    ruled_out = table[table.verdict == "pruned"]
    assert ruled_out.block.map(json.loads).tolist() == [{"BLOCK_COLUMNS": 512, "num_warps": 1}] * 2
    assert "four times the 40 columns" in ruled_out.reason.iloc[0]


def test_another_architecture_gives_other_code(ampere: tuple[pd.DataFrame, Path], tmp_path: Path):
    table = compiled(tmp_path, tmp_path / "cache", "sm_90")
    assert set(table.architecture) == {"sm_90"}
    assert len(kernels_of(table)) == len(kernels_of(ampere[0]))
    assert not set(kernels_of(table).hash) & set(kernels_of(ampere[0]).hash)


def test_the_same_again_in_a_fresh_process_is_all_hits(ampere: tuple[pd.DataFrame, Path], tmp_path: Path):
    table, cache = ampere
    again = kernels_of(compiled(tmp_path, cache))
    assert again.cached.all()
    assert list(again.hash) == list(kernels_of(table).hash)


def test_a_cache_that_was_moved_and_adopted_is_hit(ampere: tuple[pd.DataFrame, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TRITON_CACHE_DIR", "")
    monkeypatch.setenv("BLOCKWISE_CUBIN_CACHE", "")
    moved, local = tmp_path / "moved", tmp_path / "local"
    shutil.copytree(ampere[1], moved)
    for group in moved.glob("*/__grp__*"):  # as on a machine where the folder of the compile stage does not exist
        group.write_text(group.read_text().replace(str(ampere[1]), "/gone"))
    other = tmp_path / "other"
    (other / "entry").mkdir(parents=True)
    (other / "entry" / "x.cubin").write_bytes(b"x")
    for shipped in (moved, other, tmp_path / "absent"):
        cross.adopt(shipped, local)
    assert "/gone" in next(moved.glob("*/__grp__*")).read_text()  # what was shipped stays as it was
    assert (local / "entry" / "x.cubin").read_bytes() == b"x"
    assert kernels_of(compiled(tmp_path, local)).cached.all()


def test_an_edited_kernel_misses(ampere: tuple[pd.DataFrame, Path], tmp_path: Path):
    shutil.copytree(ampere[1], tmp_path / "cache")
    edited = copy_softmax(tmp_path, {"triton_impl.py": ("tl.exp(x - top) / scale", "tl.exp(x - top) * (1 / scale)")})
    again = kernels_of(compiled(tmp_path, tmp_path / "cache", operators=[str(edited)]))
    assert not again.cached.any()
    assert not set(again.hash) & set(kernels_of(ampere[0]).hash)


def test_the_key_is_that_of_the_signature_a_launch_would_have(ampere: tuple[pd.DataFrame, Path], tmp_path: Path):
    """Written out: pointers of fresh tensors are divisible by 16, 64 columns too, 40 are not."""
    script = f"""
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from kernels import registry

kernel = registry.backend(registry.operator("softmax", [{str(SOFTMAX)!r}]), "triton").module.softmax_rows
signature = {{"X": "*fp32", "Y": "*fp32", "C": "i32", "BLOCK_COLUMNS": "constexpr"}}
for divisible in ((0, 1), (0, 1, 2)):
    attributes = {{(argument,): [["tt.divisibility", 16]] if argument in divisible else [] for argument in range(4)}}
    source = ASTSource(fn=kernel, signature=signature, constexprs={{"BLOCK_COLUMNS": 128}}, attrs=attributes)
    print(triton.compile(source, target=GPUTarget("cuda", 80, 32), options={{"num_warps": 1}}).hash)
"""
    done = run_python("-c", script, TRITON_CACHE_DIR=str(tmp_path))
    assert done.returncode == 0, done
    ok = kernels_of(ampere[0])
    assert done.stdout.split() == list(ok[ok.block.map(json.loads).map(lambda block: block["BLOCK_COLUMNS"] == 128)].hash)


KEYS = """
import sys
from kernels import cross
from kernels.filter import prepare, raw

cross.settle_keys()
functions = {name: getattr(raw, name, None) or getattr(prepare, name) for name in sys.argv[1:]}
print(sorted((name, function.cache_key) for name, function in functions.items()))
"""


def test_a_key_does_not_depend_on_what_was_launched_before():
    """Each calls the next, and they refer to constants: Triton by itself gives them other keys the other way round."""
    names = ("minima_raw_held", "keys_and_bounds", "bounds_of")
    told = [run_python("-c", KEYS, *order) for order in (names, reversed(names))]
    assert [each.returncode for each in told] == [0, 0], told
    assert told[0].stdout == told[1].stdout


def test_a_tile_that_the_architecture_has_no_shared_memory_for_is_pruned(tmp_path: Path):
    folder = copy_softmax(tmp_path, gather_impl=GATHER)
    table = compiled(
        tmp_path, tmp_path / "cache", "sm_86", operators=[str(folder)], blocks={"triton": {"BLOCK_COLUMNS": 128, "num_warps": 1}}
    )
    found = table[table.backend == "gather"].set_index("block")
    assert found.verdict.to_dict() == {'{"WIDTH": 4096}': "ok", '{"WIDTH": 32768}': "pruned"}
    assert found.reason['{"WIDTH": 32768}'] == "shared memory 131,072 B exceeds the 101,376 B of sm_86"


def test_what_does_not_compile_is_in_the_table_and_the_rest_goes_on(tmp_path: Path):
    folder = copy_softmax(tmp_path, gather_impl=GATHER.replace("(4096, 32768)", "(3000, 4096)"))
    table = compiled(
        tmp_path, tmp_path / "cache", "sm_80", operators=[str(folder)], blocks={"triton": {"BLOCK_COLUMNS": 128, "num_warps": 1}}
    )
    found = table[table.backend == "gather"].set_index("block")
    assert found.verdict.to_dict() == {'{"WIDTH": 3000}': "failed", '{"WIDTH": 4096}': "ok"}
    assert "power of 2" in found.reason['{"WIDTH": 3000}']


def test_cuda_sources_are_compiled_and_cached_without_a_gpu(tmp_path: Path):
    sweep = {"distance": {"problems": [{"q": 16, "n": 100, "d": 8}], "blocks": {"cupy": {"BLOCK_Q": 64, "BLOCK_N": 64, "BLOCK_D": 16}}}}
    config = tmp_path / "config.yaml"
    config.write_text(yaml.safe_dump({**CONFIG, "operators": [], "sweep": sweep, "bench": {}}))
    words = (
        "--config",
        config,
        "--operator",
        "distance",
        "--architecture",
        "sm_75",
        "--out",
        tmp_path / "d.parquet",
        "--cache",
        tmp_path / "cache",
    )
    tables = []
    for _ in range(2):
        done = run_module("kernels.compile", *words)
        assert done.returncode == 0, done
        assert "triton sm_75: left out: triton is used from sm_80 on" in done.stdout
        tables.append(read_parquet(tmp_path / "d.parquet"))
    assert [set(table.cached) for table in tables] == [{False}, {True}]
    assert (tables[0].registers > 0).all()
    assert list(tables[0].hash) == list(tables[1].hash)


def test_an_architecture_that_nvrtc_dropped_is_left_out_with_the_reason(tmp_path: Path):
    config = write_config(tmp_path)
    words = ("--operator", "knn", "--architecture", "sm_61", "--out", tmp_path / "k.parquet", "--cache", tmp_path / "cache")
    done = run_module("kernels.compile", "--config", config, *words)
    assert done.returncode == 0, done
    assert "does not know sm_61; CUDA 13 dropped what is older than sm_75" in done.stdout
    assert read_parquet(tmp_path / "k.parquet").empty


def test_an_unknown_architecture_is_refused_in_one_line(tmp_path: Path):
    config = write_config(tmp_path)
    words = ("--operator", "softmax", "--architecture", "sm_99", "--out", tmp_path / "s.parquet", "--cache", tmp_path / "cache")
    line = one_line(run_module("kernels.compile", "--config", config, *words))
    assert line.startswith("error: architecture 'sm_99': unknown; one of sm_50, ")
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("architecture", ["90", "sm90", "sm_", "sm_90a", "", "SM_90"])
def test_what_is_not_an_architecture_is_refused(architecture: str):
    with pytest.raises(BadInput, match="unknown; one of"):
        capability(architecture)


@pytest.mark.parametrize(
    ("resources", "architecture", "objection"),
    [
        pytest.param(Resources(255, 0, 0, 64 << 10), 75, None, id="exactly-what-there-is"),
        pytest.param(Resources(255, 0, 1, 64 << 10), 75, "shared memory 65,537 B exceeds the 65,536 B of sm_75", id="a-byte-more"),
        pytest.param(Resources(255, 4096, 0), 80, None, id="some-spills"),
        pytest.param(Resources(255, 4097, 0), 80, "spills 4,097 B a thread", id="spills"),
    ],
)
def test_the_objection_to_a_kernel(resources: Resources, architecture: int, objection: str | None):
    assert resources.objection(architecture) == objection


def test_a_log_of_ptxas_is_read():
    log = """ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function 'kernel' for 'sm_90a'
ptxas info    : Function properties for kernel
    24 bytes stack frame, 40 bytes spill stores, 52 bytes spill loads
ptxas info    : Used 128 registers, used 1 barriers, 24 bytes cumulative stack size, 4096 bytes smem, 400 bytes cmem[0]
ptxas info    : Function properties for helper
    8 bytes stack frame, 4 bytes spill stores, 4 bytes spill loads
"""
    assert parse_ptxas(log, 512) == Resources(128, 44, 4096, 512)
    assert parse_ptxas("") == Resources(0, 0, 0)


def test_the_table_rules_a_block_out_for_its_own_problems_alone():
    problem, other = Problem(), Problem(dtype="float16")
    row = {"backend": "triton", "block": '{"B": 1}', "verdict": "pruned", "reason": "too large", "problems": [json.dumps(problem.fields())]}
    table = pd.DataFrame([row, {**row, "block": '{"B": 2}', "verdict": "ok", "reason": None}])
    ruled = ruled_out(table)
    assert ruled == {key("triton", problem.fields(), {"B": 1}): "too large"}
    assert key("triton", other.fields(), {"B": 1}) not in ruled
    assert ruled_out(pd.DataFrame()) == {}
