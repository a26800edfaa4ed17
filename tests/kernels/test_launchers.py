"""The host code that a GPU node would otherwise build: in the cache that the compile stage leaves, and found there."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.commands import run_module, run_python
from tests.kernels.tiny import write_config
from tests.needs import require


@pytest.fixture(autouse=True)
def _compiler() -> None:
    require("compiler")


SWEEP = {"softmax": {"problems": [{"rows": 200, "columns": 64}], "blocks": {"triton": {"BLOCK_COLUMNS": [128], "num_warps": [1]}}}}
AS_ON_A_GPU_NODE = """
import sys, triton
from pathlib import Path
from triton.backends.nvidia import driver
from triton.runtime.build import compile_module_from_src
from kernels.cross import Watch, adopt

adopt(Path(sys.argv[1]), Path(sys.argv[2]))
watch = Watch(Path(sys.argv[2]))
source = Path(driver.dirname, "driver.c").read_text()
try:
    compile_module_from_src(src=source + sys.argv[3], name="cuda_utils", include_dirs=driver.include_dirs)
except ImportError as error:
    assert "libcuda" in str(error) or "undefined symbol" in str(error), error  # there is no driver here
print(watch.missed)
"""


def compiled(folder: Path, **environment: str) -> str:
    config = write_config(folder, sweep=SWEEP, bench={})
    words = ("--operator", "softmax", "--architecture", "sm_80", "--out", folder / "table.parquet", "--cache", folder / "cache")
    done = run_module("kernels.compile", "--config", config, *words, **environment)
    assert done.returncode == 0, done
    return done.stderr


def test_the_cache_has_the_host_code_and_it_names_the_driver(tmp_path: Path):
    assert "no host code" not in compiled(tmp_path)
    (library,) = (tmp_path / "cache").glob("*/cuda_utils*.so")
    assert b"libcuda.so.1" in library.read_bytes()


def test_without_a_working_compiler_the_kernels_are_compiled_all_the_same(tmp_path: Path):
    assert "note: no host code for Triton's launches was built" in compiled(tmp_path, CC="false")
    assert list((tmp_path / "cache").glob("*/*.cubin"))
    assert not list((tmp_path / "cache").glob("*/*.so"))


@pytest.mark.parametrize(("edit", "found"), [("", True), ("\n// another version\n", False)], ids=["the same", "another source"])
def test_a_job_finds_it_and_says_so_where_it_has_to_build(tmp_path: Path, edit: str, found: bool):
    """Found or not, it cannot be loaded without a driver, so that Triton here builds it in the end."""
    compiled(tmp_path)
    done = run_python("-c", AS_ON_A_GPU_NODE, tmp_path / "cache", tmp_path / "local", edit)
    assert done.returncode == 0, done
    assert ("cuda_utils.so could not be loaded" in done.stderr) == found
    assert "cuda_utils: host code that the C compiler built" in done.stdout
