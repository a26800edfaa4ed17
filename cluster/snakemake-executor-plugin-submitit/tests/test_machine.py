"""Cores and GPUs of one machine, handed out."""

import functools
import os
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st
from snakemake_executor_plugin_submitit import machine
from snakemake_executor_plugin_submitit.machine import Machine, listed, lock, this_machine
from snakemake_interface_common.exceptions import WorkflowError


@given(st.lists(st.tuples(st.integers(1, 5), st.integers(0, 3), st.booleans()), max_size=40))
def test_no_gpu_is_held_twice_and_no_core_is_lost(steps):
    machine, held = Machine(cores=4, gpus=["0", "1", "MIG-a"]), []
    for cores, gpus, give_back in steps:
        if give_back and held:
            machine.give_back(held.pop(0))
        elif share := machine.take(cores, gpus):
            held.append(share)
        out = [gpu for share in held for gpu in share.gpus]
        assert len(out) == len(set(out))
        assert sum(share.cores for share in held) <= 4
    for share in held:
        machine.give_back(share)
    assert machine.take(4, 3) is not None


def test_more_cores_than_there_are_means_all():
    share = Machine(cores=2, gpus=[]).take(16, 0)
    assert share is not None and share.cores == 2


LISTING = """GPU 0: NVIDIA H200 (UUID: GPU-1111)
  MIG 1g.18gb     Device  0: (UUID: MIG-aaaa)
  MIG 1g.18gb     Device  1: (UUID: MIG-bbbb)
GPU 1: NVIDIA H200 (UUID: GPU-2222)
"""


def test_mig_slices_are_handed_out_by_uuid_and_whole_gpus_by_index():
    assert listed(LISTING) == ["MIG-aaaa", "MIG-bbbb", "1"]


@pytest.mark.parametrize(("visible", "gpus"), [("", ()), ("-1", ()), ("2,3", ("2", "3")), ("GPU-1111", ("GPU-1111",))])
def test_auto_keeps_to_cuda_visible_devices(monkeypatch, visible, gpus):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert this_machine(0, "auto").gpus == gpus


def test_a_gpu_that_another_driver_has_is_passed_over(tmp_path):
    theirs, ours = (Machine(2, ["0", "1"], functools.partial(lock, tmp_path)) for _ in range(2))
    first = theirs.take(1, 1)
    second = ours.take(1, 1)
    assert (first.gpus, second.gpus) == (("0",), ("1",))
    assert ours.take(1, 1) is None
    theirs.give_back(first)
    assert ours.take(1, 1).gpus == ("0",)


def test_a_lock_lives_as_long_as_the_process_that_inherits_it(tmp_path):
    held = lock(tmp_path, "0")
    job = subprocess.Popen(["sleep", "300"], pass_fds=[held])
    os.close(held)
    assert lock(tmp_path, "0") is None
    job.kill()
    job.wait()
    assert lock(tmp_path, "0") is not None


@pytest.mark.parametrize("how", ["a link", "open to others"])
def test_a_folder_of_locks_that_is_not_ours_alone_is_one_line(monkeypatch, tmp_path, how):
    monkeypatch.setattr(machine, "LOCKS", tmp_path)
    folder = machine.locks()
    if how == "a link":
        folder.rename(tmp_path / "elsewhere")
        folder.symlink_to(tmp_path / "elsewhere")
    else:
        folder.chmod(0o755)
    with pytest.raises(WorkflowError, match="not a folder of yours alone"):
        machine.locks()


def test_a_share_that_is_kept_is_not_handed_out():
    machine = Machine(2, ["0", "1"])
    machine.keep(1, ["0"])
    assert machine.take(1, 1).gpus == ("1",)
    assert machine.take(1, 0) is None
