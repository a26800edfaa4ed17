"""The check of an installation, told of machines that this one is not."""

import subprocess
import sys
from pathlib import Path

import pytest

from cluster import sinfo, site
from cluster.doctor import __main__ as doctor
from cluster.doctor import checks, node, slurm, software, storage, weights
from cluster.doctor.finding import Finding

ROOT = Path(__file__).parents[2]
A100 = site.Gpu("a100", "NVIDIA A100-SXM4-80GB", "sm_80", 80, "cuda13", "a100", "gpu", None)
SLICE = site.Gpu("slice", "NVIDIA A100-SXM4-80GB MIG 1g.10gb", "sm_80", 9, "cuda13", "a100_1g.10gb", "mig", None)
NODES = """\
gpu*|up|1-00:00:00|1|idle|gpu:a100:4|ampere,nvlink
cpu|up|infinite|9|idle|(null)|(null)
mig|up|infinite|1|idle|gpu:a100_1g.10gb:7|(null)
"""
CLUSTER = sinfo.parse("slurm 22.05.8", NODES, "PartitionName=cpu AllowAccounts=ALL", sinfo.User())


def levels(found) -> list[str]:
    return [finding.level for finding in found]


def lines(found) -> str:
    return "\n".join(map(str, found))


def drained(generator):
    """What a check found, and what it returns."""
    found = []
    while True:
        try:
            found.append(next(generator))
        except StopIteration as end:
            return found, end.value


def report(**changes) -> dict:
    """A healthy GPU node's."""
    gpu = {"name": "NVIDIA A100-SXM4-80GB", "architecture": "sm_80", "memory_gb": 79.3}
    healthy = {
        "host": "new1", "python": "3.11", "triton": "3.7.1", "torch": "2.13.0", "wheels": {"torch": "13.0", "cupy": "13"},
        "cuda": {"driver": "13.0", "gpus": [gpu], "error": None}, "visible": "0", "folders": {}, "unseen": [], "tmp_free_gb": 50.0,
    }  # fmt: skip
    return healthy | changes


def test_one_line_a_check_and_what_to_do_for_each_that_fails(monkeypatch, capsys):
    monkeypatch.setattr(doctor, "examine", lambda options: [Finding("ok", "fine"), Finding("fail", "broken", "mend it")])
    monkeypatch.setattr(sys, "argv", ["doctor"])
    assert doctor.main() == 1
    assert capsys.readouterr().out.splitlines() == ["ok    fine", "fail  broken; to do: mend it"]


def test_notes_alone_are_no_failure(monkeypatch):
    monkeypatch.setattr(doctor, "examine", lambda options: [Finding("note", "no TeX", "install it")])
    monkeypatch.setattr(sys, "argv", ["doctor"])
    assert doctor.main() == 0


def test_this_environment_passes_its_own_checks():
    assert {*levels(software.python()), *levels(software.snakemake())} == {"ok"}


def test_an_environment_without_any_library_is_one_line_for_each_that_fails():
    command = [sys.executable, "-S", "-m", "cluster.doctor"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and done.stderr == ""
    assert "fail  snakemake is not installed; to do: make setup" in done.stdout
    assert "fail  the rest cannot be checked: No module named 'yaml'; to do: make setup" in done.stdout


# Slurm, and partitions.yaml against it


@pytest.mark.parametrize(
    ("reason", "level"),
    [("sinfo: error: Connection refused", "fail"), ("sinfo: fatal: Could not establish a configuration source", "note")],
)
def test_a_slurm_that_does_not_answer(monkeypatch, reason, level):
    monkeypatch.setattr(sinfo.shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(sinfo, "ask", lambda *command, **_: subprocess.CompletedProcess(command, 1, "", reason))
    found, cluster = drained(slurm.answers())
    assert cluster is None and levels(found) == [level]
    assert level == "note" or reason in lines(found)


def test_a_slurm_without_accounting_is_a_failure(monkeypatch):
    answer = lambda *command, **_: subprocess.CompletedProcess(command, int(command[0] == "sacct"), NODES, "sacct: error: disabled")  # noqa: E731
    monkeypatch.setattr(sinfo.shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(sinfo, "ask", answer)
    found, cluster = drained(slurm.answers())
    assert levels(found) == ["ok", "fail"] and "sacct: error: disabled" in lines(found)
    assert list(cluster.partitions) == ["gpu", "cpu", "mig"]


def facts(**changes) -> site.Site:
    return site.Site({"a100": site.Gpu(**(vars(A100) | changes))}, {})


@pytest.mark.parametrize(
    ("changes", "level", "said"),
    [
        ({}, "ok", "this Slurm has the partitions and GPUs that it names for a100"),
        ({"constraint": "[ampere&nvlink*2]"}, "ok", "this Slurm has the partitions and GPUs that it names for a100"),
        ({"partition": "gpus"}, "fail", "gpus.a100.partition is 'gpus': this Slurm has no such partition, only gpu, cpu, mig"),
        ({"gres": "a100_80gb"}, "fail", "gpus.a100.gres is 'a100_80gb': this Slurm has no such GRES type in partition gpu, only a100"),
        ({"partition": "cpu"}, "fail", "gpus.a100.gres is 'a100': this Slurm has no such GRES type in partition cpu, only none"),
        ({"constraint": "hopper"}, "fail", "gpus.a100.constraint is 'hopper': this Slurm has no such feature in partition gpu, only"),
        ({"partition": None}, "note", "no GPU model has a partition"),
    ],
    ids=["right", "two features", "partition", "type", "no GPUs there", "feature", "no partition given"],
)  # fmt: skip
def test_partitions_yaml_is_held_against_slurm(changes, level, said):
    (finding,) = slurm.matches(facts(**changes), CLUSTER)
    assert finding.level == level and finding.text.startswith(f"cluster/partitions.yaml: {said}")


def test_a_partition_that_the_user_may_not_use_is_a_failure():
    barred = sinfo.parse("slurm 22.05.8", NODES, "PartitionName=gpu AllowAccounts=physics", sinfo.User((), ("lab",)))
    (finding,) = slurm.matches(facts(), barred)
    assert finding.level == "fail" and "gpu takes no job of yours (AllowAccounts=physics)" in finding.text


def test_partitions_that_slurm_lacks_are_named():
    wrong = site.Site({}, {"old": site.Partition()}, site.AnyGpu("older"))
    said = lines(slurm.matches(wrong, CLUSTER))
    assert "fail  cluster/partitions.yaml: any_gpu.partition is 'older'" in said and "note  cluster/partitions.yaml: partitions.old" in said


@pytest.mark.parametrize(
    ("gpus", "arguments", "tried"),
    [
        ([A100], [], ["a100"]),
        ([A100, site.Gpu(**(vars(A100) | {"model": "a100-40gb"}))], ["--all"], ["a100"]),
        ([site.Gpu(**(vars(A100) | {"model": "t4", "gres": "t4"})), A100], [], ["a100"]),
        ([A100, SLICE], [], ["a100"]),
        ([A100, SLICE], ["--all"], ["a100", "slice"]),
        ([site.Gpu(**(vars(A100) | {"gres": "h200"}))], [], ["gpu"]),
        ([A100], ["--gpu", "gpu"], ["gpu"]),
    ],
    ids=["the first", "equal requests once", "the first that there is", "one of two", "all", "none by name", "any"],
)
def test_which_models_are_tried(monkeypatch, gpus, arguments, tried):
    seen = []
    monkeypatch.setattr(doctor, "examine", lambda options: seen.append(options) or [])
    monkeypatch.setattr(sys, "argv", ["doctor", *arguments])
    doctor.main()
    assert checks.tried(site.Site({gpu.model: gpu for gpu in gpus}, {}), CLUSTER, seen[0]) == tried


def test_the_job_asks_as_the_rules_do(monkeypatch, tmp_path):
    known = site.Site({"a100": A100}, {"gpu": site.Partition("lab", 3)})
    assert checks.sbatch(known, "a100") == ["--gres=gpu:a100:1", "--partition=gpu", "--account=lab", "--time=3"]
    profile = tmp_path / "profile.yaml"
    profile.write_text("default-resources:\n  slurm_partition: \"'big'\"\n  slurm_account: mine\n")
    monkeypatch.setattr(checks, "PROFILE", profile)
    assert checks.sbatch(site.Site({}, {}), "gpu") == ["--gres=gpu:1", "--partition=big", "--account=mine", "--time=5"]
    profile.write_text("default-resources: [")
    assert checks.sbatch(site.Site({}, {}), "gpu") == ["--gres=gpu:1", "--time=5"]


# What a node's report means


def test_a_healthy_node_is_all_well():
    assert set(levels(node.planned(report(), report(), A100, "new1"))) == {"ok"}


NO_DRIVER = {"driver": None, "gpus": [], "error": "no NVIDIA driver: libcuda.so.1 is not to be found"}
NO_GPU = {"driver": "13.0", "gpus": [], "error": "cuInit: CUDA_ERROR_NO_DEVICE"}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"cuda": NO_DRIVER}, "fail  new1: no NVIDIA driver"),
        ({"cuda": NO_GPU}, "fail  new1: no GPU to be used (cuInit: CUDA_ERROR_NO_DEVICE)"),
        ({"python": "3.12"}, "fail  Python is 3.12 on new1 and 3.11 here"),
        ({"triton": None}, "fail  Triton is absent on new1 and 3.7.1 here"),
        ({"unseen": ["/home/me/model"]}, "fail  new1 does not see /home/me/model"),
        ({"tmp_free_gb": 0.5}, "note  new1: 0.5 GB free in its temporary folder"),
    ],
)
def test_what_is_wrong_on_a_node_is_said(changes, said):
    assert said in lines(node.planned(report(**changes), report(), A100, "new1"))


@pytest.mark.parametrize(
    ("name", "architecture", "level", "remedy"),
    [
        ("NVIDIA A100-SXM4-40GB", "sm_80", "note", "name the entry a100-40gb"),
        ("NVIDIA H200", "sm_90", "fail", "name the entry h200"),
        ("NVIDIA Z9", "sm_80", "note", 'give it name: "NVIDIA Z9"'),
        ("A100-SXM4-80GB", "sm_80", "ok", ""),
    ],
)
def test_the_gpu_that_was_found_is_held_against_the_entry(name, architecture, level, remedy):
    found = {"driver": "13.0", "gpus": [{"name": name, "architecture": architecture, "memory_gb": 40}], "error": None}
    said = [finding for finding in node.planned(report(cuda=found), report(), A100, "new1") if name in finding.text]
    assert levels(said) == [level] and remedy in said[0].remedy


@pytest.mark.parametrize(
    ("torch", "cupy", "driver", "expected"),
    [
        ("13.0", "13", "13.0", ["ok", "ok"]),
        ("13.0", "13", "12.4", ["fail", "fail"]),
        ("12.6", "12", "13.0", ["fail", "fail"]),
        (None, None, "13.0", ["note", "note"]),
    ],
)
def test_wheels_are_held_against_gpu_and_driver(torch, cupy, driver, expected):
    said = report(wheels={"torch": torch, "cupy": cupy}, cuda={"driver": driver, "gpus": [], "error": None})
    assert levels(node.wheels(said, "cuda13", "new1")) == expected


def test_a_machine_without_slurm_says_which_device_it_is():
    known = site.Site({"a100": A100}, {})
    assert "device a100" in lines(node.here(report(), known))
    assert levels(node.here(report(), site.Site({}, {})))[:2] == ["ok", "note"]
    assert levels(node.here(report(cuda=NO_DRIVER), known)) == ["ok"]


# Space, and models

QUOTA = """\
Disk quotas for user me (uid 1000):
     Filesystem   space   quota   limit   grace   files   quota   limit   grace
  server:/home 19000000* 18000000 20000000  6days    9000       0       0
     /dev/sdb1  1000000       0       0             7       0       0
     /dev/sdc1 30000000 20000000       0   none       7       0       0
"""


def test_quotas_are_read():
    assert storage.quotas(QUOTA) == {"server:/home": 0, "/dev/sdc1": 0}
    assert storage.quotas(QUOTA.replace("19000000*", "13000000"))["server:/home"] == pytest.approx(5.12)
    assert storage.quotas("") == {}


def test_a_quota_that_leaves_little_is_a_note(monkeypatch, tmp_path):
    monkeypatch.setattr(storage, "folders", lambda: {"caches": tmp_path / "not" / "yet"})
    monkeypatch.setattr(storage, "_device", lambda path: "server:/home")
    monkeypatch.setattr(storage.shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(sinfo, "ask", lambda *command, **_: subprocess.CompletedProcess(command, 1, QUOTA, ""))
    found = list(storage.space())
    assert (
        found[0].level == "note" and "0.0 GB free by your quota (5 GB are wanted)" in found[0].text and storage.SCRATCH in found[0].remedy
    )


def test_a_folder_that_cannot_be_written_is_a_failure(monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setattr(storage, "folders", lambda: {"caches": tmp_path / "file" / "below"})
    assert levels(storage.space())[0] == "fail"


CONFIG = "rag:\n  one:\n    embedder: {embedder}\n    arms: {{course: {{service: course}}}}\n    load: {{rates: [1]}}\n"


def test_models_that_are_here_are_found_and_those_that_are_not_are_named(tmp_path):
    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").touch()
    (tmp_path / "a.yaml").write_text(CONFIG.format(embedder=model))
    found, see = drained(weights.present(("a.yaml",), tmp_path))
    assert levels(found) == ["fail", "ok"] and "no safetensors weights" in found[0].text, "minilm is the other one"
    (model / "model.safetensors").touch()
    found, see = drained(weights.present(("a.yaml",), tmp_path))
    assert levels(found) == ["ok", "ok"] and model in see


def test_a_model_that_would_have_to_be_downloaded_is_a_failure_with_the_command(tmp_path):
    (tmp_path / "a.yaml").write_text(CONFIG.format(embedder="nobody/nothing-of-this-name"))
    found, _ = drained(weights.present(("a.yaml",), tmp_path))
    assert levels(found)[0] == "fail" and "snakemake fetch_models" in found[0].remedy


@pytest.mark.parametrize("text", [None, "rag: [", "rag: [a]", "rag: 3", "rag: {one: 3}", "rag: {one: {arms: 4}}", "[]"])
def test_a_config_that_cannot_be_read_is_only_a_note(tmp_path, text):
    if text is not None:
        (tmp_path / "a.yaml").write_text(text)
    found, see = drained(weights.present(("a.yaml",), tmp_path))
    assert levels(found) == ["note"] and see == []


def test_the_profile_that_ships_has_keys_that_snakemake_knows():
    assert levels(checks.profile()) == ["ok"]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("submitit-foldr: elsewhere", "Snakemake knows no key 'submitit-foldr'; to do: write submitit-folder"),
        ("frobnicate: 3", "Snakemake knows no key 'frobnicate'; to do: remove it"),
        ("jobs: [", "while parsing a flow"),
    ],
    ids=["misspelt", "unknown", "not YAML"],
)
def test_a_mistake_in_the_profile_is_one_line(tmp_path, text, told):
    (tmp_path / "profile.yaml").write_text(text)
    (finding,) = checks.profile(tmp_path / "profile.yaml")
    assert finding.level == "fail" and told in str(finding) and "\n" not in str(finding)
