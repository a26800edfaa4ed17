"""Where a setting comes from, which source goes first, and one line that names the source of a wrong one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from analysis.cli import BadInput
from analysis.environment import ROOT
from rag import settings

NEEDED = ["--config", "c.yaml", "--name", "n", "--arm", "a"]
PORTS = st.none() | st.integers(0, 65535)


def read(words=(), environ=None, needed=NEEDED):
    return settings.read([*needed, *words], None, environ or {})


def test_defaults():
    got = read()
    assert (got.config, got.host, got.port, got.device) == (Path("c.yaml"), "127.0.0.1", 8000, "auto")
    assert (got.instances, got.drain_s, got.until_eof) == (1, 30.0, False)


@given(flag=PORTS, variable=PORTS, key=PORTS)
def test_a_flag_goes_before_a_variable_and_a_variable_before_the_file(tmp_path_factory, flag, variable, key):
    path = tmp_path_factory.mktemp("settings") / "s.yaml"
    path.write_text(yaml.safe_dump({} if key is None else {"port": key}))
    words = ["--settings", str(path)] + ([] if flag is None else ["--port", str(flag)])
    expected = next((port for port in (flag, variable, key) if port is not None), 8000)
    assert read(words, {} if variable is None else {"BLOCKWISE_RAG_PORT": str(variable)}).port == expected


def test_every_flag_has_a_variable_and_a_key(tmp_path):
    values = {"config": "x.yaml", "name": "b", "arm": "z", "device": "cpu", "host": "::1", "port": 1, "instances": 3, "drain_s": 0.5}
    values |= {"until_eof": True}
    path = tmp_path / "s.yaml"
    path.write_text(yaml.safe_dump(values))
    variables = {f"BLOCKWISE_RAG_{flag.upper()}": str(value) for flag, value in values.items()}
    for got in (read(["--settings", str(path)], needed=()), read(environ={"BLOCKWISE_RAG_SETTINGS": str(path)}, needed=())):
        assert vars(got) == values | {"config": Path("x.yaml")}
    assert vars(read(environ=variables, needed=())) == values | {"config": Path("x.yaml")}
    assert read(["--no-until-eof"], variables).until_eof is False


@pytest.mark.parametrize(
    ("words", "environ", "says"),
    [
        (["--port", "70000"], {}, r"^--port: '70000' is not a whole number from 0 to 65535"),
        (["--instances", "0"], {}, r"^--instances: '0' is not a whole number from 1 to 64"),
        (["--device", "tpu"], {}, r"^--device: invalid choice: 'tpu'"),
        (["--unknown"], {}, r"--unknown"),
        ([], {"BLOCKWISE_RAG_PORT": "x"}, r"^BLOCKWISE_RAG_PORT: --port: 'x' is not"),
        ([], {"BLOCKWISE_RAG_DRAIN_S": "nan"}, r"^BLOCKWISE_RAG_DRAIN_S: --drain-s: 'nan' is not a number of seconds"),
        ([], {"BLOCKWISE_RAG_UNTIL_EOF": "maybe"}, r"^BLOCKWISE_RAG_UNTIL_EOF: .*'maybe' is neither true nor false"),
        ([], {"BLOCKWISE_RAG_PROT": "1"}, r"^BLOCKWISE_RAG_PROT: no such flag; one of .*BLOCKWISE_RAG_PORT"),
        (["--settings", "/nowhere.yaml"], {}, r"^--settings /nowhere.yaml: cannot be read"),
    ],
    ids=lambda part: " ".join(part) if isinstance(part, list) else None,
)
def test_a_wrong_value_is_named_with_its_source(words, environ, says):
    with pytest.raises(BadInput, match=says) as failed:
        read(words, environ)
    assert "\n" not in str(failed.value)


@pytest.mark.parametrize(
    ("text", "says"),
    [("port: x", r"s\.yaml: port: --port: 'x' is not"), ("prot: 1", "unknown key 'prot'; one of config"), ("- 1", "not a mapping")],
    ids=["a value", "a key", "a list"],
)
def test_a_wrong_file_is_named(tmp_path, text, says):
    path = tmp_path / "s.yaml"
    path.write_text(text)
    with pytest.raises(BadInput, match=says):
        read(["--settings", str(path)])


def test_what_is_missing_is_named():
    with pytest.raises(BadInput, match="--arm is missing: give it, or set BLOCKWISE_RAG_ARM"):
        read(needed=NEEDED[:4])


def test_the_command_says_so_in_one_line():
    done = subprocess.run(
        [sys.executable, "-m", "rag.service", *NEEDED, "--port", "x"], capture_output=True, text=True, cwd=ROOT, timeout=60
    )
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr == "error: --port: 'x' is not a whole number from 0 to 65535 (--help says more)\n"
