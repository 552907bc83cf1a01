# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Processes that a lab started: starting, watching, and ending all of them, also when whoever started them is dead.

A process is known by its pid together with its start time, so a pid that was given to another program is never touched.
Ending goes by session (each process is the leader of one of its own; forks stay in it even after they retitle
themselves) and by the marker in the environment (which programs that made their own session still carry).
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from mwaa_lab.labdir import MARKER, LabDir, LabError, write_json

PROC = Path("/proc")


@dataclass(frozen=True)
class Stat:
    """What /proc/PID/stat says of a process (proc(5))."""

    pid: int
    state: str
    parent: int
    group: int
    session: int
    started: int
    """Clock ticks since boot."""


def stat(pid: int) -> Stat | None:
    """None: there is no such process, or it is only waiting to be reaped."""
    try:
        text = (PROC / str(pid) / "stat").read_text()
    except OSError:
        return None
    rest = text[text.rindex(")") + 2 :].split()  # the name before it may hold blanks and parentheses
    if rest[0] in "ZX":
        return None
    return Stat(pid, rest[0], int(rest[1]), int(rest[2]), int(rest[3]), int(rest[19]))


def every() -> list[Stat]:
    return [found for entry in PROC.iterdir() if entry.name.isdigit() and (found := stat(int(entry.name)))]


def _boot_id() -> str:
    return (PROC / "sys/kernel/random/boot_id").read_text().strip()


@dataclass(frozen=True)
class Record:
    """A started process, as ``run/NAME.json`` remembers it."""

    name: str
    pid: int
    started: int
    boot: str

    @property
    def alive(self) -> bool:
        found = stat(self.pid)
        return found is not None and found.started == self.started and _boot_id() == self.boot


def record(lab: LabDir, name: str, pid: int) -> Record | None:
    """Remember a process. None: it is gone already."""
    found = stat(pid)
    if not found:
        return None
    entry = Record(name, pid, found.started, _boot_id())
    # The pid is in the file's name: a restarted process must not make us forget what is left of the session before it.
    write_json(lab.run / f"{name}.{pid}.json", entry.__dict__)
    return entry


def records(lab: LabDir, prefix: str = "") -> list[Record]:
    """All remembered processes whose name starts with prefix, oldest first."""
    found = []
    for path in lab.run.glob(f"{prefix}*.json"):
        with contextlib.suppress(OSError, ValueError, TypeError):
            found.append(Record(**json.loads(path.read_text())))
    return sorted(found, key=lambda entry: entry.started)


def alive(lab: LabDir, name: str) -> Record | None:
    """The living process of exactly this name."""
    return next((entry for entry in records(lab, name) if entry.name == name and entry.alive), None)


def spawn(
    lab: LabDir, name: str, argv: list[str], env: dict[str, str], log: Path, cwd: Path | None = None, nice: int = 0
) -> subprocess.Popen[bytes]:
    """Start a process as leader of its own session, its output appended to log, and remember it."""
    log.parent.mkdir(parents=True, exist_ok=True)
    prefix = ["nice", "-n", str(nice)] if nice else []
    with log.open("ab") as output:
        process = subprocess.Popen(
            [*prefix, *argv],
            env=env,
            cwd=cwd or lab.path,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    record(lab, name, process.pid)
    return process


def _marked(pid: int, lab_id: str) -> bool:
    try:
        return f"{MARKER}={lab_id}\0".encode() in (PROC / str(pid) / "environ").read_bytes() + b"\0"
    except OSError:
        return False


def members(leaders: Iterable[Record], lab_id: str | None = None) -> list[Stat]:
    """Living processes of the leaders' sessions and, when lab_id is given, all that carry the lab's marker.

    A session's number is not given away while a member lives; that it was taken by somebody else's session after ours
    ended shows in its leader's start time, or, where that leader is gone, in members older than our record.
    """
    boot = _boot_id()
    sessions = {entry.pid: entry.started for entry in leaders if entry.boot == boot}
    mine = {os.getpid(), os.getppid()}
    found = []
    for entry in every():
        if entry.pid in mine:
            continue
        ours = False
        if entry.session in sessions:
            leader = stat(entry.session)
            ours = entry.started >= sessions[entry.session] and (
                leader is None or leader.started == sessions[entry.session]
            )
        if ours or (lab_id is not None and _marked(entry.pid, lab_id)):
            found.append(entry)
    return found


def stop(find: Callable[[], list[Stat]], grace: float) -> int:
    """End all that find() returns: asked first, killed after grace seconds. :return: how many had to be killed."""
    killed: set[int] = set()
    asked: set[int] = set()
    deadline = time.monotonic() + grace
    while found := find():
        late = time.monotonic() > deadline
        for entry in found:
            if late or entry.pid not in asked:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(entry.pid, signal.SIGKILL if late else signal.SIGTERM)
                    if entry.state == "T":
                        os.kill(entry.pid, signal.SIGCONT)  # a stopped process cannot answer SIGTERM
                asked.add(entry.pid)
                if late:
                    killed.add(entry.pid)
        time.sleep(0.05)
        if time.monotonic() > deadline + 20:
            break
    return len(killed)


def end(lab: LabDir, entries: list[Record], grace: float) -> None:
    """End processes with all that they started, and forget them."""
    stop(lambda: members(entries), grace)
    for entry in entries:
        (lab.run / f"{entry.name}.{entry.pid}.json").unlink(missing_ok=True)


def stop_named(lab: LabDir, prefix: str, grace: float = 3.0) -> None:
    """End the processes remembered under a prefix."""
    end(lab, records(lab, prefix), grace)


def stop_all(lab: LabDir, grace: float = 3.0) -> int:
    """End everything that this lab ever started. :return: how many processes had to be killed."""
    entries, lab_id = records(lab), lab.id
    return stop(lambda: members(entries, lab_id), grace)


def end_with_folder(lab: LabDir, every_seconds: float = 3.0) -> None:
    """From now on: when the lab's folder is deleted, its processes end, this one last.

    With the folder went the records of what was started, and `down` has nothing left to go by.
    """
    lab_id, temp = lab.id, lab.temp

    def watch() -> None:
        while lab.exists():
            time.sleep(every_seconds)
        stop(lambda: members([], lab_id), 2.0)
        shutil.rmtree(temp, ignore_errors=True)
        os._exit(0)

    threading.Thread(target=watch, name="end with folder", daemon=True).start()


def free_port() -> int:
    """A port on 127.0.0.1 that nobody has now.

    Below the kernel's range for outgoing connections (32768 and up), so that no client takes it before its server does.
    """
    import random

    for _ in range(200):
        port = random.randint(15000, 32000)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise OSError("no free port between 15000 and 32000")


def serve(
    lab: LabDir,
    name: str,
    state: Path,
    command: Callable[[int], list[str]],
    env: dict[str, str],
    ready: Callable[[], bool],
) -> None:
    """Start a server on a free port, which the file `state` remembers, and return when it is ready.

    command: its command line with that port. ready: whether it answers there. :raises LabError: with its last words.
    """
    log = lab.logs / f"{name}.log"
    for _attempt in range(3):
        if not state.exists():
            write_json(state, {"port": free_port()})
        server = spawn(lab, name, command(json.loads(state.read_text())["port"]), env, log)
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and server.poll() is None:
            if ready():
                return
            time.sleep(0.05)
        stop_named(lab, name)
        if "Address already in use" not in log.read_text(errors="replace")[-2000:]:
            break
        state.unlink()  # another program took the port since
    raise LabError(f"{name} does not start: {log.read_text(errors='replace')[-1000:].strip()}")


def keep_output(argv: list[str], env: dict[str, str], place: Path) -> None:
    """What a command prints, as a file that is whole or not there. :raises LabError: with the command's last words."""
    draft = place.with_name(f".{place.name}.{os.getpid()}")
    with draft.open("wb") as output:
        run = subprocess.run(argv, env=env, stdout=output, stderr=subprocess.PIPE)
    if run.returncode:
        draft.unlink()
        raise LabError(f"{Path(argv[0]).name} failed: {run.stderr.decode(errors='replace')[-500:]}")
    draft.replace(place)


@dataclass
class Watched:
    """A process that is started again when it dies."""

    name: str
    argv: list[str]
    env: dict[str, str]
    log: Path
    cwd: Path | None = None
    nice: int = 0
    process: subprocess.Popen[bytes] | None = None
    failures: int = 0
    started: float = 0.0
    retry_at: float = 0.0


@dataclass
class Supervisor:
    """Keeps processes running, as ECS does for MWAA and systemd for a host: what dies is started again, ever slower."""

    lab: LabDir
    watched: dict[str, Watched] = field(default_factory=dict)
    _lock: threading.RLock = field(default_factory=threading.RLock)
    _thread: threading.Thread | None = None

    def start(self, entry: Watched) -> None:
        with self._lock:
            self.watched[entry.name] = entry
            self._spawn(entry)
            if self._thread is None:
                self._thread = threading.Thread(target=self._watch, name="supervisor", daemon=True)
                self._thread.start()

    def stop(self, prefix: str, grace: float) -> None:
        with self._lock:
            for name in [name for name in self.watched if name.startswith(prefix)]:
                del self.watched[name]
        stop_named(self.lab, prefix, grace)

    def failed(self, prefix: str) -> Watched | None:
        """A process under this prefix that keeps dying."""
        with self._lock:
            return next((e for name, e in self.watched.items() if name.startswith(prefix) and e.failures >= 3), None)

    def _spawn(self, entry: Watched) -> None:
        entry.process = spawn(self.lab, entry.name, entry.argv, entry.env, entry.log, entry.cwd, entry.nice)
        entry.started = time.monotonic()

    def _watch(self) -> None:
        while True:
            time.sleep(1)
            with self._lock:
                entries = list(self.watched.values())
            for entry in entries:
                process = entry.process
                if process is None or process.poll() is None:
                    if entry.failures and time.monotonic() - entry.started > 60:
                        entry.failures = 0
                    continue
                if not entry.retry_at:
                    entry.failures += 1
                    entry.retry_at = time.monotonic() + min(30, 2 ** (entry.failures - 1) - 1)
                    self._note(f"{entry.name} (pid {process.pid}) ended with {process.returncode}: started again")
                    # what it left behind would hold its port and its locks
                    end(self.lab, [old for old in records(self.lab, entry.name) if old.pid == process.pid], 2.0)
                if time.monotonic() >= entry.retry_at:
                    with self._lock:
                        if self.watched.get(entry.name) is entry:
                            entry.retry_at = 0.0
                            self._spawn(entry)

    def _note(self, line: str) -> None:
        with (self.lab.logs / "supervisor.log").open("a") as log:
            log.write(time.strftime("%Y-%m-%dT%H:%M:%SZ ", time.gmtime()) + line + "\n")
