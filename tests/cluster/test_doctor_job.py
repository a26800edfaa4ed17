"""The doctor's GPU job: on a Slurm that forgets or fails, and on a real one with every way for a node to be wrong."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from cluster import probe
from cluster.doctor import job
from tests.cluster.drive import until
from tests.cluster.test_doctor import drained, levels, lines

ROOT = Path(__file__).parents[2]


def test_the_job_goes_to_the_repository_and_says_where_it_is_not_seen(tmp_path):
    """Run by hand, as Slurm would run it."""
    with job.exchange({"caches": tmp_path / "new" / "it's here"}) as (word, places):
        text = job.script(places, [])
        subprocess.run(["sh"], input=text, text=True, check=True, cwd="/")
        (place,) = places.values()
        assert (place / probe.THERE).read_text() == word and (place / "report.json").stat().st_size
        (place / probe.HERE).unlink()
        assert subprocess.run(["sh"], input=text, text=True, check=False, cwd="/").returncode == job.UNSEEN
    assert list((tmp_path / "new" / "it's here").iterdir()) == []


class ForgetfulSlurm:
    """Runs a job at once, and knows nothing of it any more, or this line of scontrol's."""

    def __init__(self, knows: str = "", runs: bool = True):
        self.knows, self.runs = knows, runs

    def __call__(self, *command: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        if command[0] == "sbatch" and self.runs:
            subprocess.run(["sh"], input=stdin, text=True, check=True, cwd="/")
        said = {"sbatch": "12;lab\n", "scontrol": self.knows, "scancel": ""}[command[0]]
        return subprocess.CompletedProcess(
            command, 0 if said else 1, said, "" if said else "slurm_load_jobs error: Invalid job id specified"
        )


def test_a_job_that_slurm_has_forgotten_still_answered(monkeypatch, tmp_path):
    monkeypatch.setattr(job, "ask", ForgetfulSlurm())
    monkeypatch.setattr(job.time, "sleep", lambda seconds: pytest.fail("it waits for a job that has ended"))
    found, answer = drained(job.probe("a100", ["--gres=gpu:1"], {"caches": tmp_path}, [tmp_path / "model"], 10))
    assert levels(found) == ["ok"] and (answer.tried, answer.unshared) == (["caches"], {})
    assert answer.report["unseen"] == [str(tmp_path / "model")]


@pytest.mark.parametrize(
    ("ended", "said"),
    [
        ("JobState=FAILED ExitCode=81:0 NodeList=new1", "fail  new1 does not see the repository"),
        (
            "JobState=FAILED ExitCode=127:0 NodeList=new1",
            f"fail  new1 cannot run {sys.executable}; to do: make the environment in a folder",
        ),
        ("JobState=COMPLETED ExitCode=0:0 NodeList=new1", "fail  what job 12 wrote on new1 does not show here"),
        ("JobState=NODE_FAIL ExitCode=0:1 NodeList=new1", "fail  job 12 ended on new1 without an answer (NODE_FAIL, exit status 0"),
        ("JobState=PENDING Reason=Priority NodeList=(null)", "note  no job for a100 started within 0 s (Priority)"),
    ],
)
def test_a_job_without_an_answer_says_what_became_of_it(monkeypatch, tmp_path, ended, said):
    monkeypatch.setattr(job, "ask", ForgetfulSlurm(ended, runs=False))
    monkeypatch.setattr(job, "APPEAR_S", 0)
    found, answer = drained(job.probe("a100", [], {"caches": tmp_path}, [], 0))
    assert answer is None and len(found) == 1 and lines(found).startswith(said)
    assert list(tmp_path.iterdir()) == []


def test_where_nothing_can_be_written_no_job_is_sent(tmp_path):
    (tmp_path / "file").touch()
    found, answer = drained(job.probe("a100", [], {"caches": tmp_path / "file"}, [], 0))
    assert answer is None and levels(found) == ["note"]


def examined(variables: dict[str, str], *arguments: str, before: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    command = [*before, sys.executable, "-m", "cluster.doctor", *arguments]
    return subprocess.run(command, cwd=ROOT, env=os.environ | variables, capture_output=True, text=True, check=False, timeout=200)


def queue(slurm: dict[str, str], name: str, *options: str) -> str:
    command = ["squeue", "--noheader", f"--name={name}", "--format=%T", *options]
    return subprocess.run(command, env=os.environ | slurm, capture_output=True, text=True, check=True).stdout.strip()


def test_without_slurm_this_machine_is_looked_at(tmp_path):
    done = examined({"PATH": str(tmp_path), "BLOCKWISE_SCRATCH": str(tmp_path)})
    assert "ok    no Slurm here: jobs run as processes of this machine\n" in done.stdout
    assert "GPU here" in done.stdout and done.returncode == done.stdout.count("\nfail") == 0


def test_on_a_real_slurm_all_is_well_but_the_driver(slurm, tmp_path):
    done = examined(slurm | {"BLOCKWISE_SCRATCH": str(tmp_path)}, "--gpu", "a100")
    assert "ok    accounting answers (sacct)\n" in done.stdout and "ok    a job for a100 (--gres=gpu:a100:1" in done.stdout, done.stderr
    assert "ok    new1 sees and can write what is written here: repository, results, caches\n" in done.stdout
    if probe.cuda()["driver"] is None:
        failed = [line for line in done.stdout.splitlines() if line.startswith("fail")]
        assert len(failed) == 1 and failed[0].startswith("fail  new1: no NVIDIA driver: libcuda.so.1"), done.stdout
        assert done.returncode == 1
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_the_node_does_not_see_is_a_failure(slurm, tmp_path):
    """The doctor sees a file system of its own on the caches' folder, mounted for it alone."""
    alone = ("unshare", "--mount", "sh", "-c", f'mount -t tmpfs none {tmp_path} && exec "$@"', "sh")
    done = examined(slurm | {"BLOCKWISE_SCRATCH": str(tmp_path)}, before=alone)
    assert f"fail  old1 does not share caches, {tmp_path} (No such file or directory); to do: set BLOCKWISE_SCRATCH" in done.stdout, (
        done.stderr
    )
    assert "old1 sees and can write what is written here: repository, results\n" in done.stdout


def test_a_repository_that_the_node_does_not_see_is_a_failure(slurm, tmp_path):
    hidden = f'cp -r {ROOT}/analysis {ROOT}/cluster {ROOT}/rag {ROOT}/workflow {ROOT}/config {tmp_path} && cd {tmp_path} && exec "$@"'
    alone = ("unshare", "--mount", "sh", "-c", f"mount -t tmpfs none {tmp_path} && {hidden}", "sh")
    done = examined(slurm, before=alone)
    assert f"fail  old1 does not see the repository, {tmp_path}; to do: clone it into a folder that all nodes share" in done.stdout, (
        done.stderr
    )


def test_a_job_that_does_not_start_is_cancelled_with_the_reason(slurm, tmp_path):
    hold = ["sbatch", "--parsable", "--job-name=hold", "--output=/dev/null", "--gres=gpu:a100:4", "--wrap=sleep 300"]
    held = subprocess.run(hold, env=os.environ | slurm, capture_output=True, text=True, check=True).stdout.strip()
    try:
        until(lambda: queue(slurm, "hold") == "RUNNING", seconds=60)
        done = examined(slurm, "--gpu", "a100", "--wait", "8")
        assert "note  no job for a100 started within 8 s (Resources); cancelled, its node is not checked; to do: " in done.stdout
        assert "for a100: pending" in done.stderr, "progress, where it takes more than a few seconds"
        assert done.returncode == 0 and queue(slurm, "blockwise-doctor") == ""
    finally:
        subprocess.run(["scancel", held], env=os.environ | slurm, check=True)


def test_a_job_that_slurm_refuses_is_a_failure_with_its_words(slurm):
    done = examined(slurm, "--gpu", "h200")
    assert done.returncode == 1
    assert "fail  sbatch refused a job for h200 (sbatch: error: Batch job submission failed: " in done.stdout


def test_no_job_is_sent_where_none_is_wanted(slurm):
    done = examined(slurm, "--no-job")
    assert "note  no GPU job was sent (--no-job)" in done.stdout and done.returncode == 0


def test_a_gpu_model_that_nobody_knows_is_one_line(slurm):
    done = examined(slurm, "--gpu", "h300")
    assert (
        done.returncode == 2
        and done.stderr.startswith("error: device 'h300' is not in cluster/partitions.yaml")
        and done.stderr.count("\n") == 1
    )
