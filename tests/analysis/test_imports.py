"""Figures, tables and text install without a GPU library, so nothing in `analysis` may import one."""

from __future__ import annotations

import pkgutil
import subprocess
import sys

import analysis
from analysis.environment import ROOT


def test_no_module_of_analysis_imports_torch_triton_cupy_kernels_or_rag():
    names = [module.name for module in pkgutil.walk_packages(analysis.__path__, "analysis.")]
    assert "analysis.figures.speedup" in names
    forbidden = ("torch", "triton", "cupy", "kernels", "rag", "transformers")
    code = f"import importlib, sys\nfor name in {names}: importlib.import_module(name)\nprint(sorted(set({forbidden}) & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_no_command_line_imports_matplotlib_to_show_its_help():
    code = "import runpy, sys\nsys.argv = ['sealing', '--help']\ntry: runpy.run_module('analysis.sealing', run_name='__main__')\n"
    code += "except SystemExit: pass\nprint('matplotlib' in sys.modules, file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "False"
