"""What is said of a kernel that a GPU job did not find in the compile stage's cache."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from kernels import misses
from kernels.cuda import CudaSource
from tests.commands import run_module
from tests.kernels.tiny import copy_softmax, write_config


def cache_of(folder: Path, block: dict[str, int], **changes: Any) -> Path:
    """The cache that the compile stage leaves of the softmax operator, for one block beside the default."""
    folder.mkdir(exist_ok=True)
    blocks = {"triton": {name: [value] for name, value in block.items()}}
    sweep = {"softmax": {"problems": [{"rows": 200, "columns": 64}], "blocks": blocks}}
    config = write_config(folder, sweep=sweep, bench={}, **changes)
    words = ("--operator", "softmax", "--architecture", "sm_80", "--out", folder / "table.parquet", "--cache", folder / "cache")
    done = run_module("kernels.compile", "--config", config, *words)
    assert done.returncode == 0, done
    return folder / "cache"


def descriptions(cache: Path) -> list[misses.Description]:
    return [json.loads(path.read_text()) for path in sorted(cache.glob(f"*/{misses.FILE}"))]


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return cache_of(tmp_path_factory.mktemp("made"), {"BLOCK_COLUMNS": 128, "num_warps": 1})


def asked(cache: Path, **parts: str) -> misses.Description:
    """The description of the kernel that lies in `cache` with these parts."""
    return next(one for one in descriptions(cache) if all(one[name] == value for name, value in parts.items()))


def test_another_option_is_named(cache: Path, tmp_path: Path):
    other = cache_of(tmp_path, {"BLOCK_COLUMNS": 128, "num_warps": 2})
    line = misses.explain(asked(other, num_warps="2"), cache)
    assert line == "softmax_rows: of 2 compiled the nearest differs in num_warps '2', there '1'"


def test_another_constant_is_named(cache: Path, tmp_path: Path):
    other = cache_of(tmp_path, {"BLOCK_COLUMNS": 64, "num_warps": 1})
    line = misses.explain(asked(other, num_warps="1"), cache)
    assert line.startswith("softmax_rows: of 2 compiled the nearest differs in BLOCK_COLUMNS 'constexpr 64 []', there 'constexpr 128 []'")


def test_an_edited_source_is_named(cache: Path, tmp_path: Path):
    edited = copy_softmax(tmp_path, {"triton_impl.py": ("tl.exp(x - top) / scale", "tl.exp(x - top) * (1 / scale)")})
    other = cache_of(tmp_path / "edited", {"BLOCK_COLUMNS": 128, "num_warps": 1}, operators=[str(edited)])
    assert "the nearest differs in source " in misses.explain(asked(other, num_warps="1"), cache)


def test_a_kernel_that_nothing_was_compiled_of_is_named(cache: Path):
    line = misses.explain({"kernel": "rows"}, cache)
    assert line == "rows: the compile stage compiled no kernel of this name"


def test_files_that_got_lost_are_told_from_another_kernel(cache: Path, tmp_path: Path):
    shutil.copytree(cache, tmp_path / "cache")
    line = misses.explain(descriptions(cache)[0], tmp_path / "cache")
    assert line == "softmax_rows: compiled with all the same parts, but its files were not found in the cache"


def test_a_cuda_source_is_told_by_its_options(tmp_path: Path):
    pytest.importorskip("cupy")
    one, other = (misses.of_cuda(CudaSource("code", (f"-DROWS={rows}",), ("rows",)), "sm_80") for rows in (1, 2))
    (tmp_path / "entry").mkdir()
    misses.describe(tmp_path / "entry" / misses.FILE, one)
    assert misses.explain(other, tmp_path) == "rows: of 1 compiled the nearest differs in options '-DROWS=2', there '-DROWS=1'"
