"""Facts about the site: the file that ships, what it turns into, and what it refuses."""

from pathlib import Path

import pytest
import yaml

from analysis.cli import BadInput
from cluster import site

GPU = {"name": "NVIDIA A100-SXM4-80GB", "architecture": "sm_80", "memory_gb": 80, "install": "cuda13"}


def load(folder, content) -> site.Site:
    file = folder / "partitions.yaml"
    file.write_text(content if isinstance(content, str) else yaml.safe_dump(content))
    return site.load(file)


@pytest.mark.parametrize(
    ("model", "architecture", "install"),
    [
        ("gtx1060", "sm_61", "cuda126"),
        ("titanx-maxwell", "sm_52", "cuda126"),
        ("rtx2080ti", "sm_75", "cuda13"),
        ("h200", "sm_90", "cuda13"),
    ],
)
def test_the_file_that_ships_knows_the_courses_gpus(model, architecture, install):
    gpu = site.gpu(model)
    assert (gpu.architecture, gpu.install) == (architecture, install)


def test_the_install_group_follows_from_the_architecture():
    """CUDA 13 dropped everything below compute capability 7.5."""
    for gpu in site.load().gpus.values():
        assert (gpu.install == "cuda13") == (int(gpu.architecture.removeprefix("sm_")) >= 75), gpu.model


def test_an_unknown_model_lists_the_known_ones():
    with pytest.raises(BadInput, match=r"device 'h300' .* known: cpu, auto, .*h200"):
        site.resources("h300")


def test_resources_of_no_gpu_any_gpu_and_a_model(tmp_path):
    full = GPU | {"gres": "a100", "partition": "big", "constraint": "ampere"}
    known = load(tmp_path, {"gpus": {"a100": full, "untyped": GPU}, "partitions": {"big": {"account": "lab", "max_minutes": 120}}})
    asked = {"gpu": 1, "gpu_model": "a100", "slurm_partition": "big", "constraint": "ampere", "slurm_account": "lab"}
    assert known.resources("cpu") == {}
    assert known.resources("gpu") == {"gpu": 1}
    assert known.resources("a100") == asked
    assert known.resources("untyped") == {"gpu": 1}
    assert known.minutes("a100", 300) == 120 and known.minutes("untyped", 300) == 300


def test_what_an_entry_leaves_out_comes_from_the_catalogue_and_what_it_gives_stands(tmp_path):
    content = {"gpus": {"a100": None, "t4": {"gres": "tesla", "memory_gb": 15}, "a100-mig-3g.40gb": {}, "mine": GPU | {"install": None}}}
    content["gpus"]["old wheels"] = GPU | {"install": "cuda126"}
    known = load(tmp_path, content).gpus
    assert known["a100"] == site.Gpu("a100", "NVIDIA A100-SXM4-80GB", "sm_80", 80, "cuda13", None, None, None)
    assert (known["t4"].name, known["t4"].gres, known["t4"].memory_gb) == ("Tesla T4", "tesla", 15)
    assert (known["a100-mig-3g.40gb"].name, known["a100-mig-3g.40gb"].memory_gb) == ("NVIDIA A100-SXM4-80GB MIG 3g.40gb", 36)
    assert known["mine"].install == "cuda13" and known["old wheels"].install == "cuda126"


def test_a_job_that_takes_any_gpu_goes_where_any_gpu_says(tmp_path):
    content = {
        "gpus": {},
        "partitions": {"big": {"account": "lab", "max_minutes": 60}},
        "any_gpu": {"partition": "big", "constraint": "new"},
    }
    known = load(tmp_path, content)
    assert known.resources("gpu") == {"gpu": 1, "slurm_partition": "big", "constraint": "new", "slurm_account": "lab"}
    assert known.minutes("gpu", 100) == 60 and known.minutes("cpu", 100) == 100


@pytest.mark.parametrize(
    ("names", "device"),
    [
        ([], "cpu"),
        (["NVIDIA H200"], "h200"),
        (["NVIDIA H200 MIG 1g.18gb"], "h200-mig-1g.18gb"),
        (["GeForce RTX 2080 Ti"], "rtx2080ti"),
        (["NVIDIA GeForce GT 710"], "gpu"),
    ],
)
def test_auto_is_what_this_machine_has(monkeypatch, names, device):
    monkeypatch.setattr(site, "slurm_answers", lambda: False)
    monkeypatch.setattr(site, "names_here", lambda: names)
    assert site.planned(["auto", "cpu", device]) == list(dict.fromkeys([device, "cpu"]))


def test_nvidia_smi_is_read_with_its_slices(monkeypatch, tmp_path):
    text = "GPU 0: NVIDIA H200 (UUID: GPU-1)\n  MIG 1g.18gb     Device  0: (UUID: MIG-1)\nGPU 1: NVIDIA RTX A6000 (UUID: GPU-2)\n"
    command = tmp_path / "nvidia-smi"
    command.write_text(f"#!/bin/sh\nprintf '{text}'\n")
    command.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    assert site.names_here() == ["NVIDIA H200 MIG 1g.18gb", "NVIDIA RTX A6000"]


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ("gpus: [", "not YAML"),
        ("", "the file is None"),
        ({"partitions": {}}, "the file lacks gpus"),
        ({"gpus": {}, "queues": {}}, "unknown key 'queues'"),
        ({"gpus": {"a100": GPU | {"memory": 80}}}, "gpus.a100 has the unknown key 'memory'"),
        ({"gpus": {"h300": {k: v for k, v in GPU.items() if k != "architecture"}}}, "gpus.h300 lacks architecture"),
        ({"gpus": {"h300": {"gres": "h300"}}}, "gpus.h300 lacks name; give it, or name the entry as cluster/models.py does"),
        ({"gpus": {"h300-mig-1g.10gb": {}}}, "gpus.h300-mig-1g.10gb lacks name"),
        ({"gpus": {"a100": 3}}, "gpus.a100 is 3; it must be a mapping"),
        ({"gpus": {2080: {"gres": "2080"}}}, "gpus.2080: the name of a GPU model must be text; write it in quotes"),
        ({"gpus": {}, "any_gpu": {"gres": "x"}}, "any_gpu has the unknown key 'gres'"),
        ({"gpus": {"a100": GPU | {"memory_gb": "80 GB"}}}, "gpus.a100.memory_gb is '80 GB'"),
        ({"gpus": {"a100": GPU | {"memory_gb": True}}}, "gpus.a100.memory_gb is True"),
        ({"gpus": {"a100": GPU | {"memory_gb": 0}}}, "gpus.a100.memory_gb is 0"),
        ({"gpus": {"a100": GPU | {"architecture": "8.0"}}}, "gpus.a100.architecture is '8.0'"),
        ({"gpus": {"a100": GPU | {"install": "cuda12"}}}, "gpus.a100.install is 'cuda12'"),
        ({"gpus": {"a100": GPU}, "partitions": {"big": {"max_minutes": "1 day"}}}, "partitions.big.max_minutes is '1 day'"),
    ],
)
def test_a_mistake_in_the_file_is_one_line_naming_file_and_key(tmp_path, content, named):
    with pytest.raises(BadInput) as caught:
        load(tmp_path, content)
    text = str(caught.value)
    assert "partitions.yaml" in text and named in text and "\n" not in text


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(BadInput, match=r"nothing\.yaml: cannot be read"):
        site.load(tmp_path / "nothing.yaml")


@pytest.mark.parametrize(
    ("partition", "planned"), [("null", ["gpu"]), ("short", ["a100"])], ids=["no partition known", "one partition known"]
)
def test_under_slurm_auto_is_what_has_a_partition(partition: str, planned: list[str], tmp_path: Path, monkeypatch):
    monkeypatch.setattr(site, "slurm_answers", lambda: True)
    gpu = f"{{name: NVIDIA A100, architecture: sm_80, memory_gb: 40, install: cuda13, gres: a100, partition: {partition}}}"
    (tmp_path / "partitions.yaml").write_text(f"gpus:\n  a100: {gpu}\n  h200: {gpu.replace(partition, 'null')}\n")
    assert site.load(tmp_path / "partitions.yaml").planned(["auto"]) == planned
