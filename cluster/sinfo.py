"""What Slurm says of itself through `sinfo`, `scontrol` and `sacctmgr`: nodes, their GPUs, partitions, and who may use them.

Only text formats that every version since 19.05 has are read. Parsing is apart from asking.
"""

from __future__ import annotations

import getpass
import grp
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass

from analysis.cli import BadInput

FORMAT = "%P|%a|%l|%D|%T|%G|%f"
"""For `sinfo`: partition (* after the default), availability, time limit, nodes, their state, GRES, features."""
_DOWN = ("down", "drain", "fail", "inval", "unknown")


@dataclass(frozen=True)
class Gres:
    """GPUs of a node: their type, None where the site gives none, and how many."""

    type: str | None
    count: int


@dataclass(frozen=True)
class Nodes:
    """Nodes of one partition that are alike."""

    partition: str
    count: int
    up: bool
    gpus: tuple[Gres, ...]
    features: tuple[str, ...]


@dataclass(frozen=True)
class Partition:
    """max_minutes: its time limit, None for none. barred: why the user may not use it, "" where nothing forbids it.

    account: what to charge, where the partition does not take the user's default account; else None.
    """

    name: str
    default: bool = False
    max_minutes: int | None = None
    up: bool = True
    barred: str = ""
    account: str | None = None


@dataclass(frozen=True)
class User:
    """Who asks: unix groups; accounts in Slurm, the default one first, none where they are not to be known."""

    groups: tuple[str, ...] = ()
    accounts: tuple[str, ...] = ()


@dataclass(frozen=True)
class Cluster:
    version: str
    partitions: dict[str, Partition]
    nodes: tuple[Nodes, ...]

    @property
    def default(self) -> str | None:
        return next((partition.name for partition in self.partitions.values() if partition.default), None)

    def types(self, partition: str | None) -> set[str | None]:
        """The GRES types of the GPUs in a partition (None: in the default one); None in the set stands for untyped ones."""
        return {gpu.type for nodes in self._of(partition) for gpu in nodes.gpus}

    def features(self, partition: str | None) -> set[str]:
        return {feature for nodes in self._of(partition) for feature in nodes.features}

    def _of(self, partition: str | None) -> Iterator[Nodes]:
        return (nodes for nodes in self.nodes if nodes.partition == (partition or self.default))


def read() -> Cluster:
    """What this machine's Slurm says. Raises BadInput where there is none or it does not answer."""
    if shutil.which("sinfo") is None:
        raise BadInput("no Slurm here: sinfo is not on PATH; run this on the cluster's login node")
    nodes = ask("sinfo", "--noheader", f"--format={FORMAT}")
    if nodes.returncode:
        raise BadInput(f"Slurm does not answer ({last(nodes.stderr)}); run this on the cluster's login node, or try later")
    version = ask("sinfo", "--version").stdout.strip()
    return parse(version, nodes.stdout, ask("scontrol", "--oneliner", "show", "partition").stdout, _user())


def parse(version: str, nodes: str, partitions: str, user: User) -> Cluster:
    """A Cluster from the outputs of `sinfo --format=FORMAT` and `scontrol -o show partition` (which may be empty)."""
    rights = {fields["PartitionName"]: fields for line in partitions.splitlines() if (fields := fields_of(line)).get("PartitionName")}
    found: dict[str, Partition] = {}
    rows = []
    for line in nodes.splitlines():
        if line.count("|") < 6:  # a message of Slurm's, no row
            continue
        name, available, limit, count, state, gres, features = (part.strip() for part in line.split("|", 6))
        name, default = name.removesuffix("*"), name.endswith("*")
        found[name] = _partition(name, default, limit, available == "up", rights.get(name, {}), user)
        if count != "0":
            up = not state.lower().startswith(_DOWN) and not state.endswith("*")  # an asterisk: it does not respond
            rows.append(Nodes(name, int(count), up, gpus(gres), tuple(_words(features))))
    return Cluster(version, found, tuple(rows))


def gpus(gres: str) -> tuple[Gres, ...]:
    """The GPUs in a node's GRES, such as `gpu:a100:4(S:0-1),shard:16`, `gpu:2`, `gpu` or `(null)`."""
    found = []
    for part in re.sub(r"\([^)]*\)", "", gres).split(","):
        kind, *rest = part.strip().split(":")
        if kind != "gpu":
            continue
        rest = [word for word in rest if word != "no_consume"]
        count = rest.pop() if rest and rest[-1].isdigit() else "1"
        name = rest[0] if rest and rest[0] else None
        found.append(Gres(name, int(count)))
    return tuple(found)


def minutes(limit: str) -> int | None:
    """A time limit of Slurm's (`[days-]hours:minutes:seconds`, `minutes:seconds`) in whole minutes; None for none."""
    found = re.fullmatch(r"(?:(\d+)-)?(?:(\d+):)?(\d+):(\d+)", limit)
    if not found:
        return None  # infinite, UNLIMITED, n/a
    days, hours, whole, _ = (int(part or 0) for part in found.groups())
    return max(1, (days * 24 + hours) * 60 + whole)


def fields_of(line: str) -> dict[str, str]:
    """A line of `scontrol -o` as its fields."""
    return {key: value for key, equals, value in (word.partition("=") for word in line.split()) if equals}


def _partition(name: str, default: bool, limit: str, up: bool, rights: dict[str, str], user: User) -> Partition:
    accounts, denied, groups = (_words(rights.get(key, "")) for key in ("AllowAccounts", "DenyAccounts", "AllowGroups"))
    mine = [account for account in user.accounts if (not accounts or account in accounts) and account not in denied]
    barred = ""
    if groups and not set(groups) & set(user.groups):
        barred = f"AllowGroups={','.join(groups)}"
    elif rights.get("RootOnly") == "YES":
        barred = "RootOnly=YES"
    elif user.accounts and not mine:
        barred = f"AllowAccounts={','.join(accounts)}" if accounts else f"DenyAccounts={','.join(denied)}"
    account = mine[0] if mine and mine[0] != user.accounts[0] else None
    return Partition(name, default, minutes(limit), up, barred, account)


def _words(text: str) -> list[str]:
    """A comma list of Slurm's; empty for its words for nothing and for everything."""
    return [] if text in ("(null)", "ALL", "N/A", "n/a") else [word for word in text.split(",") if word]


def _user() -> User:
    name = getpass.getuser()
    first = ask("sacctmgr", "--noheader", "--parsable2", "show", "user", name, "format=defaultaccount").stdout.split()
    others = ask("sacctmgr", "--noheader", "--parsable2", "show", "associations", f"user={name}", "format=account").stdout.split()
    return User(tuple(_groups()), tuple(dict.fromkeys([*first, *others])))


def _groups() -> Iterator[str]:
    for number in {os.getgid(), *os.getgroups()}:
        try:
            yield grp.getgrgid(number).gr_name
        except KeyError:
            continue  # a group without a name cannot be in AllowGroups


def ask(*command: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    """Run a command; one that is missing, or hangs for a minute, is an exit status of 1 with the reason in `stderr`."""
    try:
        return subprocess.run(command, input=stdin, capture_output=True, text=True, check=False, timeout=60)
    except (OSError, subprocess.TimeoutExpired) as error:
        return subprocess.CompletedProcess(command, 1, "", str(error))


def last(text: str) -> str:
    """The last line of what a command said, where the reason of a failure usually is."""
    return (text.strip().splitlines() or ["no reason given"])[-1]
