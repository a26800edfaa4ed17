"""Starts and ends the testbed's daemons. The state folder holds one pid file a daemon, and `down` goes by nothing else."""

from __future__ import annotations

import contextlib
import os
import secrets
import select
import shutil
import signal
import socket
import stat
import string
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from analysis.cli import BadInput

PACKAGES = ("slurmctld", "slurmd", "slurm-client", "slurmdbd", "munge", "mariadb-server")
PROGRAMS = {
    "slurmctld": "slurmctld", "slurmd": "slurmd", "srun": "slurm-client", "slurmdbd": "slurmdbd", "munged": "munge",
    "mariadbd": "mariadb-server", "mariadb-install-db": "mariadb-server", "mariadb-admin": "mariadb-server",
}  # fmt: skip
NODES = ("old1", "old2", "new1")
_PATH = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"])
_HERE = Path(__file__).parent


def missing() -> list[str]:
    """The Debian packages that the testbed needs and this machine lacks."""
    return sorted({package for program, package in PROGRAMS.items() if shutil.which(program, path=_PATH) is None})


def environment(state: Path) -> dict[str, str]:
    """What Slurm's commands (and Snakemake) need in their environment to find this Slurm."""
    return {"SLURM_CONF": str(state / "slurm.conf")}


def running(state: Path) -> dict[str, int]:
    """The daemons of this testbed that live, by name, with their pids."""
    found = {}
    for file in sorted([*state.glob("*.pid"), *state.glob("db/*.pid")]):
        with contextlib.suppress(OSError, ValueError):
            pid = int(file.read_text())
            if file.stem.split(".")[0] in Path(f"/proc/{pid}/cmdline").read_text():  # not a stranger that got the number since
                found[file.stem] = pid
    return found


def up(state: Path) -> None:
    """Start munged, MariaDB, slurmdbd, slurmctld and three slurmd; return when all nodes are idle (a few seconds)."""
    if os.geteuid() != 0:
        raise BadInput("the testbed needs root: Slurm's daemons start jobs as their users, and fake devices are made with mknod")
    if lacking := missing():
        raise BadInput(f"not installed: {', '.join(lacking)}; run: apt-get install --no-install-recommends {' '.join(PACKAGES)}")
    if alive := running(state):
        names = ", ".join(alive)
        raise BadInput(f"a testbed already runs in {state} ({names}); end it first: python -m cluster.testbed down --state {state}")
    try:
        _configure(state)
        _start(state)
    except BaseException:
        end(state)  # the folder stays: the reason is in its logs
        raise


def _configure(state: Path) -> None:
    for folder in ("", "ctld", "log", "dev", *(f"spool.{node}" for node in NODES)):
        (state / folder).mkdir(parents=True, exist_ok=True)
    for number in range(4):
        device = state / "dev" / f"nvidia{number}"
        if not device.exists():
            os.mknod(device, 0o666 | stat.S_IFCHR, os.makedev(1, 3))
    key = state / "munge.key"
    key.touch(mode=0o600)
    key.write_bytes(secrets.token_bytes(128))
    ports = dict(zip(("ctld_port", "dbd_port", *(f"{node}_port" for node in NODES)), _free_ports(2 + len(NODES)), strict=True))
    for name in ("slurm.conf", "gres.conf", "slurmdbd.conf"):
        text = string.Template((_HERE / name).read_text()).substitute(state=state, **ports)
        (state / name).touch(mode=0o600 if name == "slurmdbd.conf" else 0o644)
        (state / name).write_text(text)


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [server.getsockname()[1] for server in sockets]


def _start(state: Path) -> None:
    variables = _variables(state)
    _run(state, "munged", *(f"--{key}={state}/{name}" for key, name in _MUNGE.items()))
    database = ["--no-defaults", "--user=root", f"--datadir={state}/db"]
    if not (state / "db").exists():
        _run(state, "mariadb-install-db", *database, "--auth-root-authentication-method=socket", "--skip-test-db")
    options = [f"--socket={state}/db.socket", f"--pid-file={state}/mariadbd.pid", "--skip-networking"]
    options += ["--innodb-buffer-pool-size=128M", "--innodb-lock-wait-timeout=900"]
    with (state / "log" / "mariadbd.log").open("a") as log:
        command = ["mariadbd", *database, *options]
        subprocess.Popen(command, env=variables, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
    ping = ["mariadb-admin", "--no-defaults", f"--socket={state}/db.socket", "ping"]
    _until("the database", state, lambda: _quiet(ping, variables).returncode == 0)
    start(state, "slurmdbd")
    _until("slurmdbd", state, lambda: _quiet(["sacctmgr", "-n", "show", "cluster"], variables).returncode == 0)
    if not _quiet(["sacctmgr", "-n", "show", "cluster", "lab"], variables).stdout.strip():
        for words in _ACCOUNTS:
            _run(state, "sacctmgr", "-i", *words)
    start(state, "slurmctld")
    for node in NODES:
        start(state, f"slurmd.{node}")
    idle = ["sinfo", "--noheader", "--partition=gpu", "--states=idle", "--format=%D"]
    _until("the nodes", state, lambda: _quiet(idle, variables).stdout.strip() == str(len(NODES)))


def start(state: Path, name: str) -> None:
    """Start slurmctld, slurmdbd or a node's slurmd (such as slurmd.old1) of a testbed that is up, again where it was stopped."""
    program, _, node = name.partition(".")
    _run(state, *_AS_LOCALHOST, program, *(["-N", node] if node else []))
    _until(name, state, lambda: name in running(state))  # it writes its pid file a moment after it went into the background


def stop(state: Path, name: str) -> None:
    """End one daemon of a testbed that is up, and wait until it is gone: to see what that does to those who rely on it."""
    _end(running(state)[name])


def _run(state: Path, *command: str) -> None:
    """A command that ends, as Slurm's daemons do when they have gone into the background."""
    file = state / "log" / "start.log"
    with file.open("a") as log:
        code = subprocess.run(command, env=_variables(state), stdin=subprocess.DEVNULL, stdout=log, stderr=log, check=False).returncode
    if code:
        said = [line for line in file.read_text().splitlines() if line.strip()]
        raise BadInput(f"the testbed did not start ({' '.join(said[-1:]) or command[0]}); more in {state}/log")


def _variables(state: Path) -> dict[str, str]:
    return os.environ | environment(state) | {"PATH": _PATH, "MYSQL_UNIX_PORT": str(state / "db.socket")}


# Who may send jobs: root and whoever became root by sudo. A job of the QOS `few` is refused where the user has four in the queue.
_ACCOUNTS = [
    ["add", "cluster", "lab"],
    ["add", "qos", "few", "MaxSubmitJobsPerUser=4"],
    ["add", "account", "lab"],
    *(
        words
        for user in sorted({"root", os.environ.get("SUDO_USER", "root")})
        for words in (["add", "user", user, "account=lab", "qos=normal,few"], ["modify", "user", user, "set", "defaultaccount=lab"])
    ),
]
# Slurm binds to the address of its host's name, which may be anything: its daemons, and so the jobs, see the name localhost.
_AS_LOCALHOST = ("unshare", "--uts", "sh", "-c", 'hostname localhost && exec "$@"', "sh")
_MUNGE = {
    "key-file": "munge.key", "socket": "munge.socket", "pid-file": "munged.pid", "log-file": "log/munged.log", "seed-file": "munged.seed",
}  # fmt: skip


def _quiet(command: list[str], variables: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, env=variables, capture_output=True, text=True, check=False)


def _until(what: str, state: Path, ready: Callable[[], bool], seconds: float = 20) -> None:
    """Wait until `ready()`: the daemons offer no event to wait for."""
    deadline = time.monotonic() + seconds
    while not ready():
        if time.monotonic() > deadline:
            raise BadInput(f"{what} did not come up in {seconds:.0f} s; see {state}/log")
        time.sleep(0.1)


def down(state: Path) -> list[str]:
    """End the daemons and remove the folder; returns the names of those that ran."""
    order = end(state)
    if (state / "slurm.conf").exists():  # ours, not a folder given by mistake
        shutil.rmtree(state)
    return order


def end(state: Path) -> list[str]:
    """Cancel what runs and waits, then end the daemons, clients of others first."""
    alive = running(state)
    if "slurmctld" in alive:
        variables = os.environ | environment(state)
        for user in set(_quiet(["squeue", "--noheader", "--format=%u"], variables).stdout.split()):
            _quiet(["scancel", f"--user={user}"], variables)
        with contextlib.suppress(BadInput):  # a daemon may be gone already: its jobs cannot be waited for
            _until("the end of the jobs", state, lambda: not _quiet(["squeue", "--noheader"], variables).stdout.strip())
    order = sorted(alive, key=lambda name: ("slurmd.", "slurmctld", "slurmdbd", "mariadbd", "munged").index(_kind(name)))
    for name in order:
        _end(alive[name])
    return order


def _kind(name: str) -> str:
    return "slurmd." if name.startswith("slurmd.") else name


def _end(pid: int, seconds: float = 30) -> None:
    with contextlib.suppress(ProcessLookupError):
        handle = os.pidfd_open(pid)
        try:
            signal.pidfd_send_signal(handle, signal.SIGTERM)
            if not select.select([handle], [], [], seconds)[0]:
                signal.pidfd_send_signal(handle, signal.SIGKILL)
                select.select([handle], [], [], seconds)
        finally:
            os.close(handle)
