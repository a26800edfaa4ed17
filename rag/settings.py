"""What the service is told: by flags, by environment variables, by a file. A flag goes before a variable, a variable before the file."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from analysis.cli import BadInput

PREFIX = "BLOCKWISE_RAG_"
MOST = 64


@dataclass(frozen=True)
class Settings:
    """The flags of `python -m rag.service`, as its --help describes them."""

    config: Path
    name: str
    arm: str
    device: str
    host: str
    port: int
    instances: int
    drain_s: float
    until_eof: bool


def read(words: Sequence[str], description: str | None, environ: Mapping[str, str] = os.environ) -> Settings:
    """The settings that the command line `words`, `environ` and the file that either names give.

    Raises BadInput, naming the flag, the variable, or the file and its key.
    """
    parser = _parser(description)
    flags = {action.dest: action for action in parser._actions if action.dest not in ("help", "settings")}
    given = parser.parse_args(words)  # a wrong flag is a wrong flag whatever else there is
    chosen = argparse.Namespace()
    file = given.settings or _path(environ.get(f"{PREFIX}SETTINGS"))
    for source in (_file(file, flags) if file else (), _environment(environ, flags)):
        for where, flag, text in source:
            try:
                parser.parse_args(_words(flags[flag], text), chosen)
            except BadInput as error:
                raise BadInput(f"{where}: {error}") from None
    settings = vars(parser.parse_args(words, chosen))
    for flag in ("config", "name", "arm"):
        if settings[flag] is None:
            raise BadInput(f"--{flag} is missing: give it, or set {PREFIX}{flag.upper()}")
    return Settings(**{flag: settings[flag] for flag in flags})


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise BadInput(f"{message.removeprefix('argument ')} (--help says more)")


def _parser(description: str | None) -> argparse.ArgumentParser:
    parser = _Parser(
        prog="python -m rag.service",
        description=description,
        epilog=f"Every flag has a variable, such as {PREFIX}DRAIN_S=10 for --drain-s 10, and a key in the file of --settings, such as "
        "drain_s: 10. A flag goes before a variable, a variable before the file.",
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--settings", type=Path, metavar="FILE", help="a YAML file with flags as keys")
    add("--config", type=Path, help="a config with a block rag, such as config/smoke.yaml (needed)")
    add("--name", help="which experiment of that block (needed)")
    add("--arm", help="which of the experiment's arms to serve (needed)")
    add("--device", choices=["auto", "cpu", "cuda"], default="auto", help="where the models run; auto: a GPU, if any (default)")
    add("--host", default="127.0.0.1", help="address to listen on; the default, 127.0.0.1, is reachable from this machine only")
    add("--port", type=_port, default=8000, help="port to listen on (default 8000); 0 takes a free one and prints it")
    add(
        "--instances",
        type=_instances,
        default=1,
        help="processes behind the address (default 1), each with models of its own; on GPUs one a GPU",
    )
    add(
        "--drain-s",
        type=_seconds,
        default=30.0,
        help="seconds that the requests in hand have to end after SIGTERM or an interrupt (default 30)",
    )
    add(
        "--until-eof",
        action=argparse.BooleanOptionalAction,
        default=False,
        help="end when standard input closes (for the programs that start this one)",
    )
    return parser


def _file(path: Path, flags: Mapping[str, argparse.Action]) -> Iterator[tuple[str, str, Any]]:
    import yaml

    try:
        keys = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise BadInput(f"--settings {path}: cannot be read as YAML ({' '.join(str(error).split())})") from None
    if not isinstance(keys, dict):
        raise BadInput(f"--settings {path}: not a mapping of flags to values, such as port: 8000")
    for key, value in keys.items():
        flag = str(key).replace("-", "_")
        if flag not in flags:
            raise BadInput(f"{path}: unknown key {key!r}; one of {', '.join(flags)}")
        yield f"{path}: {key}", flag, str(value)


def _environment(environ: Mapping[str, str], flags: Mapping[str, argparse.Action]) -> Iterator[tuple[str, str, Any]]:
    for variable, text in environ.items():
        flag = variable.removeprefix(PREFIX).lower()
        if not variable.startswith(PREFIX) or flag == "settings":
            continue
        if flag not in flags:
            raise BadInput(f"{variable}: no such flag; one of {', '.join(PREFIX + flag.upper() for flag in flags)}")
        yield variable, flag, text


def _words(action: argparse.Action, text: str) -> list[str]:
    """The words of a command line that give the flag of `action` this value."""
    flag = action.option_strings[0]
    if action.nargs != 0:
        return [f"{flag}={text}"]
    if text.lower() in ("1", "true", "yes"):
        return [flag]
    if text.lower() in ("0", "false", "no"):
        return [action.option_strings[1]]
    raise BadInput(f"{flag}: {text!r} is neither true nor false")


def _path(text: str | None) -> Path | None:
    return Path(text) if text else None


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 0 to 65535")
    return int(text)


def _instances(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= MOST:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1 to {MOST}")
    return int(text)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds <= 3600:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds from 0 to 3600")
    return seconds
