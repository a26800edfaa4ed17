"""What a driver writes of its jobs, for the one that may come after it."""

import os
from types import SimpleNamespace

import pytest
from played import job
from snakemake_executor_plugin_submitit.ledger import Ledger, Member, key, keys, members
from snakemake_executor_plugin_submitit.process import Process

LINE = "python -m snakemake --snakefile 'Snakefile' --target-jobs 'a:n=1' --config 'word=x' --rerun-triggers mtime code --mode 'remote'"


def one(key: str = "k", definition: str = "d") -> tuple[Member, ...]:
    return (Member(key, definition),)


def test_an_entry_comes_back_as_it_was_written(tmp_path):
    ledger = Ledger(tmp_path, "one")
    entries = ledger.open(one(), "local", "t")
    assert [Ledger(tmp_path, "two").find("k")] == entries and entries[0].id is None
    ledger.fill(entries, "12", tmp_path, Process(12, 34), ("0",))
    found = Ledger(tmp_path, "two").find("k")
    assert (found.id, found.process, found.gpus, found.token) == ("12", Process(12, 34), ("0",), "t")


def test_a_driver_closes_its_own_entries_alone(tmp_path):
    mine, theirs = Ledger(tmp_path, "mine"), Ledger(tmp_path, "theirs")
    theirs.open(one(), "slurm", "t")
    mine.close(["k"])
    assert mine.find("k")
    mine.adopt([mine.find("k")])
    mine.close(["k"])
    assert mine.find("k") is None


def test_a_half_written_entry_is_none(tmp_path):
    ledger = Ledger(tmp_path, "one")
    ledger.open(one(), "local", "t")
    ledger.file("k").write_text(ledger.file("k").read_text()[:20])
    assert ledger.find("k") is None


def test_an_id_that_was_not_written_follows_from_another_of_its_array(tmp_path):
    ledger = Ledger(tmp_path, "one")
    first, second, alone = (
        ledger.open(one(key), "slurm", word, index, 2) for key, word, index in [("a", "t", 0), ("b", "t", 1), ("c", "u", 0)]
    )
    ledger.fill(first, "7_0", tmp_path)
    found = ledger.completed([*second, *alone])
    assert [entry.id for entry in found] == ["7_1", None] and found[0].folder == str(tmp_path)


def test_a_job_is_known_by_what_it_makes_and_where(tmp_path, monkeypatch):
    before = key(job("a", "x"))
    assert before == key(job("b", "x")) != key(job("a", "y"))
    monkeypatch.chdir(tmp_path)
    assert key(job("a", "x")) != before


def test_a_group_is_known_by_its_jobs():
    a, b = job("a", "x"), job("b", "y")
    group = SimpleNamespace(is_group=lambda: True, jobs=[a, b], input=[])
    assert {member.key for member in members(group, LINE)} == {key(a), key(b)} == set(keys(group))


def definition(its, line: str) -> str:
    (member,) = members(its, line)
    return member.definition


@pytest.mark.parametrize(
    ("line", "same"),
    [
        (LINE.replace("mtime code", "code mtime"), True),
        (LINE + " --runtime-source-cache-path '/tmp/other'", True),
        (LINE.replace("word=x", "word=y"), False),
    ],
    ids=["order of a set", "a temporary folder", "another config"],
)
def test_a_definition_is_what_the_job_does_not_how_it_was_started(line, same):
    assert (definition(job(), line) == definition(job(), LINE)) is same


def test_a_definition_changes_with_an_input(tmp_path):
    first = job()
    first.input = [str(tmp_path / "in")]
    (tmp_path / "in").touch()
    before = definition(first, LINE)
    assert definition(first, LINE) == before
    os.utime(tmp_path / "in", (1, 1))
    assert definition(first, LINE) != before


@pytest.mark.parametrize("what", ["shellcmd", "params", "rule.run_func_src", "rule.script"])
def test_a_definition_changes_with_the_command_the_code_and_the_parameters(what):
    other = job()
    owner, _, name = what.rpartition(".")
    setattr(getattr(other, owner) if owner else other, name, "edited")
    assert definition(other, LINE) != definition(job(), LINE)
