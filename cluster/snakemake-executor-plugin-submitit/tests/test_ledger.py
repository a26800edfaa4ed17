"""What a driver writes of its jobs, for the one that may come after it."""

import os

import pytest
from played import job
from snakemake_executor_plugin_submitit.ledger import Ledger, definition, key
from snakemake_executor_plugin_submitit.process import Process

LINE = "python -m snakemake --snakefile 'Snakefile' --target-jobs 'a:n=1' --config 'word=x' --rerun-triggers mtime code --mode 'remote'"


def test_an_entry_comes_back_as_it_was_written(tmp_path):
    ledger = Ledger(tmp_path, "one")
    entry = ledger.open("k", "d", "local", "t")
    assert Ledger(tmp_path, "two").find("k") == entry and entry.id is None
    ledger.fill(entry, "12", tmp_path, Process(12, 34), ("0",))
    found = Ledger(tmp_path, "two").find("k")
    assert (found.id, found.process, found.gpus, found.token) == ("12", Process(12, 34), ("0",), entry.token)
    Ledger(tmp_path, "two").adopt(found)
    assert ledger.find("k").driver == "two"
    ledger.close("k")
    assert ledger.find("k") is None


def test_a_half_written_entry_is_none(tmp_path):
    ledger = Ledger(tmp_path, "one")
    ledger.open("k", "d", "local", "t")
    ledger.file("k").write_text(ledger.file("k").read_text()[:20])
    assert ledger.find("k") is None


def test_a_job_is_known_by_what_it_makes():
    assert key(job("a", "x")) == key(job("b", "x")) != key(job("a", "y"))


@pytest.mark.parametrize(
    ("line", "same"),
    [
        (LINE.replace("mtime code", "code mtime"), True),
        (LINE + " --runtime-source-cache-path '/tmp/other'", True),
        (LINE.replace("word=x", "word=y"), False),
        (LINE.replace("n=1", "n=2"), False),
    ],
    ids=["order of a set", "a temporary folder", "another config", "another wildcard"],
)
def test_a_definition_is_what_the_job_does_not_how_it_was_started(line, same):
    assert (definition(job(), line) == definition(job(), LINE)) is same


def test_a_definition_changes_with_the_command_and_with_an_input(tmp_path):
    first = job()
    first.input = [str(tmp_path / "in")]
    (tmp_path / "in").touch()
    before = definition(first, LINE)
    assert definition(first, LINE) == before
    os.utime(tmp_path / "in", (1, 1))
    assert definition(first, LINE) != before
    other = job()
    other.shellcmd = "echo other"
    assert definition(other, LINE) != definition(job(), LINE)
