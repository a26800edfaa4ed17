"""`snakemake --profile cluster` on a real Slurm: arrays, GPUs, time limits, and every way for a job to end."""

import os
import signal
import subprocess

import pytest

from tests.cluster.drive import alive, drive, message, project, start, until

SNAKEFILE = """
rule all:
    input: "out/joined.txt"
rule first:
    output: "out/first.txt"
    shell: "echo [$CUDA_VISIBLE_DEVICES] > {output}"
rule part:
    input: "out/first.txt"
    output: "out/part{n}.txt"
    threads: 2
    resources:
        gpu=1,
        gpu_model=lambda wildcards: "a100" if wildcards.n in "01" else "rtx2080ti",
    shell: "sleep 2; echo $SLURMD_NODENAME $SLURM_ARRAY_JOB_ID $CUDA_VISIBLE_DEVICES $SLURM_CPUS_PER_TASK > {output}"
rule joined:
    input: expand("out/part{n}.txt", n=range(5))
    output: "out/joined.txt"
    shell: "cat {input} > {output}"
rule slow:
    output: "out/slow.txt"
    resources: runtime=1
    shell: "echo $SLURM_JOB_ID >> tries; if [ $(wc -l < tries) = 1 ]; then echo $$ > out/first_try; sleep 300; fi; touch {output}"
rule broken:
    output: "out/broken.txt"
    shell: "echo it broke; exit 3"
rule cancelled:
    output: "out/cancelled.txt"
    shell: "scancel $SLURM_JOB_ID; sleep 300"
rule killed:
    output: "out/killed.txt"
    shell: "echo $$ > out/killed_command; python3 kill_task.py; sleep 300"
rule greedy:
    output: "out/greedy.txt"
    resources: mem_mb=100
    shell: "python3 -c 'import time; hoard = bytearray(b\\"x\\" * 400_000_000); time.sleep(60)'"
rule forbidden:
    output: "out/forbidden.txt"
    resources: runtime=1, slurm_extra="--no-requeue"
    shell: "echo $SLURM_JOB_ID >> forbidden_tries; if [ $(wc -l < forbidden_tries) = 1 ]; then sleep 300; fi; touch {output}"
rule wide:
    output: "out/wide.txt"
    resources: nodes=2
    shell: "echo $SLURM_JOB_NUM_NODES >> {output}; srun --overlap -N2 -n2 --ntasks-per-node=1 sh -c 'echo $SLURMD_NODENAME' >> {output}"
rule limited:
    output: "out/limited{n}.txt"
    resources: slurm_extra="--qos=few"
    shell: "touch {output}"
rule yielding:
    output: "out/yielding{n}.txt"
    threads: 4
    resources: slurm_partition="spare", constraint="ampere"
    shell:
        "echo $SLURM_ARRAY_JOB_ID >> yielded{wildcards.n}; "
        "if [ $(wc -l < yielded{wildcards.n}) = 1 ]; then "
        "if [ {wildcards.n} = 0 ]; then until [ -e yielded1 ]; do sleep 0.2; done; "
        "sbatch --partition=gpu --nodelist=new1 --cpus-per-task=8 --mem=100 --output=/dev/null --wrap 'sleep 1'; fi; "
        "sleep 300; fi; touch {output}"
rule endless:
    output: "out/endless{n}.txt"
    shell: "touch out/running{wildcards.n}; sleep 300"
"""
# Kills, as the kernel would, the process of submitit that waits for this command.
KILL_TASK = """
import os, pathlib, signal
pid = os.getpid()
while b"submitit.core._submit" not in pathlib.Path(f"/proc/{pid}/cmdline").read_bytes():
    pid = int(pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
os.kill(pid, signal.SIGKILL)
"""


@pytest.fixture(scope="module")
def finished(slurm, tmp_path_factory):
    """One run of every job that ends, as all of them can wait at the same time."""
    folder = project(tmp_path_factory.mktemp("slurm"), SNAKEFILE)
    (folder / "kill_task.py").write_text(KILL_TASK)
    several = [f"out/limited{n}.txt" for n in range(6)] + [f"out/yielding{n}.txt" for n in range(2)]
    targets = ("all", "slow", "broken", "cancelled", "killed", "greedy", "forbidden", "wide", *several)
    return folder, drive(folder, "--submitit-result-s", "5", "--submitit-poll-s", "3", *targets, **slurm).stdout


def test_each_job_runs_on_the_gpu_model_it_asked_for(finished):
    folder, output = finished
    assert (folder / "out/joined.txt").exists(), output
    for n in range(5):
        node, _, gpu, cores = (folder / f"out/part{n}.txt").read_text().split()
        assert node.startswith("new" if n in (0, 1) else "old") and gpu.isdigit() and cores == "2"


def test_equal_requests_share_an_array_and_gpu_models_do_not(finished):
    folder, _ = finished
    arrays = [(folder / f"out/part{n}.txt").read_text().split()[1] for n in range(5)]
    assert arrays[0] == arrays[1] and arrays[2] == arrays[3] == arrays[4] and arrays[0] != arrays[2]


def test_a_job_that_asks_for_no_gpu_sees_none(finished):
    folder, _ = finished
    assert (folder / "out/first.txt").read_text() == "[]\n"


def test_out_of_time_is_requeued_under_its_id_and_finishes(finished):
    folder, output = finished
    assert (folder / "out/slow.txt").exists(), output
    tries = (folder / "tries").read_text().split()
    assert len(tries) == 2 and len(set(tries)) == 1


def test_where_requeue_is_forbidden_the_job_is_submitted_again(finished):
    folder, output = finished
    assert (folder / "out/forbidden.txt").exists(), output
    first, second = (folder / "forbidden_tries").read_text().split()
    assert first != second


def test_a_preempted_array_is_requeued_under_its_id_and_finishes(finished):
    folder, output = finished
    tries = [(folder / f"yielded{n}").read_text().split() for n in range(2)]
    assert all((folder / f"out/yielding{n}.txt").exists() for n in range(2)), output
    assert len(set(tries[0] + tries[1])) == 1 and len(tries[0]) >= 2 and len(tries[1]) >= 2


def test_a_job_over_several_nodes_runs_its_command_once(finished):
    folder, output = finished
    nodes, *names = (folder / "out/wide.txt").read_text().split()
    assert nodes == "2" and len(set(names)) == 2, output


def test_more_jobs_than_the_user_may_have_in_the_queue_wait_for_their_turn(finished):
    folder, output = finished
    assert all((folder / f"out/limited{n}.txt").exists() for n in range(6)), output
    assert "job(s) wait to be submitted" in output and "QOSMaxSubmitJobPerUserLimit" in output


@pytest.mark.parametrize("command", ["first_try", "killed_command"])
def test_a_job_that_was_cut_off_leaves_no_process(finished, command):
    folder, _ = finished
    assert not alive(int((folder / f"out/{command}").read_text()))


@pytest.mark.parametrize(
    ("rule", "reason"),
    [
        ("broken", "exit status 3; log: "),
        ("cancelled", "cancelled from outside (scancel, or an administrator); log: "),
        ("killed", "killed from outside, before it could report (Slurm: FAILED); log: "),
        ("greedy", "out of memory (100 MB): ask for more with the resource mem_mb; log: "),
    ],
)
def test_every_failure_is_told_apart_in_one_line(finished, rule, reason):
    _, output = finished
    assert reason in message(output, rule)[0]


def test_a_failure_shows_the_last_lines_of_its_log(finished):
    _, output = finished
    assert message(output, "broken")[1] == "it broke"


def test_ctrl_c_cancels_what_runs_and_what_waits(slurm, tmp_path):
    folder = project(tmp_path, SNAKEFILE)
    targets = ("out/endless1.txt", "out/endless2.txt")
    driver = start(folder, *targets, **slurm)
    until(lambda: all((folder / f"out/running{n}").exists() for n in (1, 2)), driver)
    os.killpg(driver.pid, signal.SIGINT)  # as a terminal does: to the whole foreground group
    assert driver.wait(30) != 0
    queue = ["squeue", "--noheader", "--states=PENDING,RUNNING", "--name=endless"]
    assert subprocess.run(queue, env=os.environ | slurm, capture_output=True, text=True, check=True).stdout == ""


def test_every_daemon_listens_on_the_loopback_interface_only(slurm):
    listening = subprocess.run(["ss", "-Hltnp"], capture_output=True, text=True, check=True).stdout.splitlines()
    ours = [line.split()[3] for line in listening if any(name in line for name in ("slurm", "mariadbd", "munged"))]
    assert len(ours) >= 5
    assert all(address.startswith(("127.0.0.1:", "[::1]:")) for address in ours), ours
