"""What a machine says of itself to the doctor, also of drivers and libraries that this one lacks."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from cluster import probe
from tests.needs import require

ROOT = Path(__file__).parents[2]


class Driver:
    """libcuda with one GPU, or with a cuInit that fails."""

    def __init__(self, init: int = 0, name: bytes = b"NVIDIA H200 MIG 1g.18gb"):
        self.init, self.name = init, name

    def cuDriverGetVersion(self, version) -> int:
        version._obj.value = 12040
        return 0

    def cuInit(self, flags) -> int:
        return self.init

    def cuDeviceGetCount(self, count) -> int:
        count._obj.value = 1
        return 0

    def cuDeviceGet(self, device, index) -> int:
        return 0

    def cuDeviceGetName(self, name, size, device) -> int:
        name.value = self.name
        return 0

    def cuDeviceTotalMem_v2(self, memory, device) -> int:
        memory._obj.value = 16 * 2**30
        return 0

    def cuDeviceGetAttribute(self, value, attribute, device) -> int:
        value._obj.value = {75: 9, 76: 0}[attribute]
        return 0

    def cuGetErrorName(self, status, name) -> int:
        name._obj.value = {100: b"CUDA_ERROR_NO_DEVICE", 999: None}[status]
        return 0


def test_the_driver_names_its_gpus_with_architecture_and_memory(monkeypatch):
    monkeypatch.setattr(probe.ctypes, "CDLL", lambda name: Driver())
    gpu = {"name": "NVIDIA H200 MIG 1g.18gb", "architecture": "sm_90", "memory_gb": 16}
    assert probe.cuda() == {"driver": "12.4", "gpus": [gpu], "error": None}


@pytest.mark.parametrize(("status", "named"), [(100, "cuInit: CUDA_ERROR_NO_DEVICE"), (999, "cuInit: error 999")])
def test_a_driver_that_refuses_says_why(monkeypatch, status, named):
    monkeypatch.setattr(probe.ctypes, "CDLL", lambda name: Driver(init=status))
    assert probe.cuda() == {"driver": "12.4", "gpus": [], "error": named}


def test_no_driver_is_said_so(monkeypatch):
    def absent(name):
        raise OSError(f"{name}: cannot open shared object file")

    monkeypatch.setattr(probe.ctypes, "CDLL", absent)
    assert probe.cuda()["driver"] is None and "libcuda.so.1" in probe.cuda()["error"]


def test_the_gpu_is_named_as_nvidia_smi_names_it():
    require("gpu")
    listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=True).stdout
    assert all(gpu["name"] in listed for gpu in probe.cuda()["gpus"]) and probe.cuda()["gpus"]


def test_the_word_in_a_folder_is_answered_with_the_same_word(tmp_path):
    (tmp_path / probe.HERE).write_text("abc")
    assert probe.answer(tmp_path) == {"word": "abc"}
    assert (tmp_path / probe.THERE).read_text() == "abc"


def test_a_folder_that_is_not_there_is_an_error_with_its_reason(tmp_path):
    assert probe.answer(tmp_path / "nowhere") == {"error": "No such file or directory"}


def test_it_needs_the_standard_library_alone(tmp_path):
    """As on a node whose environment lacks everything: Python without its site-packages."""
    command = [sys.executable, "-S", "-m", "cluster.probe", f"--see={tmp_path}", f"--see={tmp_path}/models", f"--exchange={tmp_path}"]
    said = json.loads(subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout)
    assert (said["torch"], said["triton"], said["wheels"]) == (None, None, {"torch": None, "cupy": None})
    assert said["python"] == f"{sys.version_info[0]}.{sys.version_info[1]}"
    assert said["unseen"] == [f"{tmp_path}/models"] and "error" in said["folders"][str(tmp_path)]
