# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One operator at a time: a lock in the bundle's store, per environment, and one for the export.

PRIVATE to the collection: no promise is made to other collections.

Its owner is a run of ansible-playbook. Modules look as they begin, take it before their first write (a run that
changes nothing writes no lock) and keep it fresh while they work; the run keeps it between its tasks, and migrate.yml
gives it back at its end. A run that has died on this very machine is
replaced at once; one elsewhere, of which nothing is to be seen, after STALE seconds without a sign of life.
"""

from __future__ import annotations

import contextlib
import datetime
import getpass
import json
import multiprocessing
import os
import socket
import subprocess
import threading
import uuid
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from ansible_collections.mwaa.migration.plugins.module_utils._bundle import Store, Tagged
from ansible_collections.mwaa.migration.plugins.module_utils._errors import MigrationError
from ansible_collections.mwaa.migration.plugins.module_utils._progress import span

VARIABLE = "MWAA_MIGRATION_RUN"  # set for modules by the action plugins: run_variable()
EXPORT = "export"
STALE = 600.0  # seconds
REFRESH = 60.0  # seconds
ATTEMPTS = 5  # when others write at the same moment


@dataclass(frozen=True)
class Run:
    """Who works: a person, a machine, a process there.

    place: the machine since its last start, and its space of process ids: two containers may bear one name.
    born: what tells the process from a later one with the same pid. passing: the run is this call and no more.
    """

    user: str
    host: str
    place: str
    pid: int
    born: str
    breaks: bool = False
    passing: bool = False

    def __str__(self) -> str:
        return f"{_printable(self.user)} on {_printable(self.host)} (process {self.pid})"

    @property
    def key(self) -> tuple[str, str, int, str]:
        return self.host, self.place, self.pid, self.born

    def goes_on(self) -> None:
        """What a killed ansible-playbook leaves behind must not write beside the run that replaces it."""
        if not self.passing and self.is_dead(self):
            raise MigrationError(f"the run of {self} has ended, so its task stops before it writes", code="Locked")

    def is_dead(self, here: Run) -> bool:
        """Known to have ended. here: who asks. Only the very machine can tell, and a module may run on another one."""
        if (self.host, self.place) != (here.host, here.place) or here.place != _place():
            return False
        now = _born(self.pid)
        return now != self.born if now else not _hidden(self.pid)


def run_of(pid: int, breaks: bool = False, passing: bool = False) -> Run:
    """The run that a process of this machine is."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = f"uid {os.getuid()}"
    return Run(user, socket.gethostname(), _place(), pid, _born(pid), breaks, passing)


def controller() -> int:
    """The pid of ansible-playbook, for an action plugin. MigrationError where it has ended: its workers have a session
    of their own, so that they outlive a signal that kills it, and are then some other process's children.
    """
    parent = multiprocessing.parent_process()
    if parent is not None and parent.pid != os.getppid():
        raise MigrationError("the run that this task belongs to has ended, so it stops before it begins", code="Locked")
    return os.getppid()


def run_variable(pid: int, breaks: bool = False) -> dict[str, str]:
    """For the environment of a module. pid: ansible-playbook's. breaks: migration_break_lock was said."""
    return {VARIABLE: json.dumps(asdict(run_of(pid, breaks)))}


def this_run() -> Run:
    """The run that started this module; the module alone where no action plugin says."""
    try:
        return Run(**json.loads(os.environ[VARIABLE]))
    except (KeyError, ValueError, TypeError):
        return run_of(os.getpid(), passing=True)


def breaks_lock(task_vars: dict[str, Any] | None) -> bool:
    """Whether the user said -e migration_break_lock=true."""
    return str((task_vars or {}).get("migration_break_lock", "")).lower() in ("true", "yes", "1", "on")


def stop_if_left_behind(run: Run | None = None) -> None:
    """What a killed ansible-playbook leaves behind must not write beside the run that replaces it: MigrationError then.

    run: the one that started this module, which is found out where it is not given.
    """
    run = run or this_run()
    if not run.passing and run.is_dead(run):
        raise MigrationError(f"the run of {run} has ended, so its task stops before it writes", code="Locked")


class Lock:
    """The lock of an environment, or EXPORT. What it does raises MigrationError (code Locked) where another has it."""

    def __init__(self, store: Store, name: str, run: Run):
        self.store, self.name, self.run = store, name, run
        self.path = f"locks/{name}.json"
        self._lost: MigrationError | None = None
        self._thread: threading.Thread | None = None
        self._done = threading.Event()
        self._writing = threading.Lock()

    def look(self) -> None:
        """Read only: whether the way is free."""
        there = self.store.read_tagged(self.path)
        owner, since = _read(there)
        if there is not None and (owner is None or owner.key != self.run.key) and self._respects(owner, there.age):
            raise self._refusal(owner, since, there.age)

    def take(self) -> None:
        """Before the first write; from then on it is kept fresh until stop()."""
        stop_if_left_behind(self.run)
        self._take()
        if self._thread is None:
            self._thread = threading.Thread(target=self._keep, daemon=True)
            self._thread.start()

    def stop(self) -> None:
        self._done.set()
        with self._writing:  # a refresh that is under way would bring back what is released next
            pass

    def _keep(self) -> None:
        while not self._done.wait(REFRESH) and self._lost is None:
            with contextlib.suppress(Exception):  # the network's moods: the next time, or the next call
                self.refresh()

    def _take(self, again: bool = False) -> None:
        """again: it was ours a moment ago. Whoever has it now took it away, dead or not, and is not pushed out."""
        for _attempt in range(ATTEMPTS):
            there = self.store.read_tagged(self.path)
            owner, since = _read(there)
            mine = owner is not None and owner.key == self.run.key
            if again and there is None:
                raise MigrationError(f"{self.store.url}/{self.path} is gone", code="Locked")
            if mine and there is not None and there.age < REFRESH:
                return
            if there is not None and not mine and (again or self._respects(owner, there.age)):
                raise self._refusal(owner, since, there.age)
            document = {"owner": asdict(self.run), "since": since if mine else _now()}
            text = json.dumps(
                {**document, "nonce": os.urandom(8).hex()}
            )  # every writing is another content, so another tag
            if self.store.write_if(self.path, text.encode(), there.tag if there else None):
                return
        raise MigrationError(f"{self.store.url}/{self.path} changes all the time: others are at work there, try later")

    def refresh(self) -> None:
        with self._writing:
            if self._done.is_set():
                return
            try:
                self._take(again=True)
            except MigrationError as error:
                if error.code == "Locked":
                    self._lost = error

    def check(self) -> None:
        stop_if_left_behind(self.run)
        if self._lost is not None:
            raise MigrationError(f"the lock was taken away while this ran: {self._lost.message}", code="Locked")

    def release(self) -> bool:
        """Whether there was one of ours."""
        there = self.store.read_tagged(self.path)
        owner, _since = _read(there)
        if there is None or owner is None or owner.key != self.run.key:
            return False
        return self.store.delete_if(self.path, there.tag)

    def _respects(self, owner: Run | None, age: float) -> bool:
        if owner is None:
            return age < STALE and not self.run.breaks  # not readable: of another version of the collection, perhaps
        return not (self.run.breaks or age >= STALE or owner.is_dead(self.run))

    def _refusal(self, owner: Run | None, since: str, age: float) -> MigrationError:
        what = "exporting into it" if self.name == EXPORT else f"migrating into {self.name}"
        return MigrationError(
            f"{self.store.url} is locked: {owner or 'someone'} has been {what} since {since}, last seen {span(age)}"
            " ago; wait for that to end, or, if it does not run any more, say -e migration_break_lock=true",
            code="Locked",
        )


@contextlib.contextmanager
def held(store: Store, name: str, run: Run | None = None) -> Iterator[Lock]:
    """Around a module's work. name: the environment's, or EXPORT. Call take() of what it gives before the first write.

    The lock stays with the run afterwards; release() gives it back. MigrationError where another run has it, also at
    the end, where it was taken away meanwhile.
    """
    lock = Lock(store, name, run or this_run())
    lock.look()
    try:
        yield lock
        lock.check()
    finally:
        lock.stop()
        if lock.run.passing:
            with contextlib.suppress(MigrationError):
                lock.release()


@contextlib.contextmanager
def held_in(stores: Iterable[Store], name: str, *, some_to_come: bool = False) -> Iterator[Callable[[], None]]:
    """held() in several bundles (those of one's sources): gives what takes them all.

    some_to_come: a bundle whose bucket is yet to be made is nobody's.
    """
    locks = []
    with contextlib.ExitStack() as stack:
        for store in {store.url: store for store in stores}.values():
            try:
                locks.append(stack.enter_context(held(store, name)))
            except MigrationError as error:
                if not (some_to_come and error.code == "NoSuchBucket"):
                    raise

        def take() -> None:
            for lock in locks:
                lock.take()

        yield take


def release(store: Store, names: list[str] | None = None, run: Run | None = None) -> list[str]:
    """Give back what this run holds (of these names, or all); the names that it held."""
    owner = run or this_run()
    found = names or [path[len("locks/") : -len(".json")] for path in store.list("locks/") if path.endswith(".json")]
    return [name for name in sorted(found) if Lock(store, name, owner).release()]


def _read(there: Tagged | None) -> tuple[Run | None, str]:
    """(owner, since when) of a lock; (None, '') where there is none or it is not readable."""
    if there is None:
        return None, ""
    try:
        document = json.loads(there.data)
        known = {field.name for field in fields(Run)}
        owner = Run(**{name: value for name, value in document["owner"].items() if name in known})
        return owner, _printable(document["since"])
    except (ValueError, KeyError, TypeError, AttributeError):
        return None, "a time that is not readable"


def _born(pid: int) -> str:
    """When a process began, in whatever the system counts; '' where there is none."""
    try:
        # after the name in parentheses, which may hold anything: the 20th cell (proc(5), starttime)
        cells = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return "" if cells[0] in "ZX" else cells[19]
    except (OSError, IndexError):
        pass
    if Path("/proc/self/stat").exists():
        return ""
    done = subprocess.run(["ps", "-o", "lstart=", "-p", str(int(pid))], capture_output=True, text=True, check=False)
    return done.stdout.strip()


def _hidden(pid: int) -> bool:
    """Whether a process of somebody else's lives there that /proc does not show (hidepid)."""
    try:
        os.kill(pid, 0)
    except PermissionError:
        return True
    except (OSError, OverflowError):
        pass
    return False


def _place() -> str:
    try:
        return f"{Path('/proc/sys/kernel/random/boot_id').read_text().strip()} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return f"{uuid.getnode():012x}"


def _now() -> str:
    return datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def _printable(text: Any) -> str:
    """Who can write to the bucket writes these names: nothing of theirs steers a terminal."""
    return "".join(character if character.isprintable() else "?" for character in str(text))[:80]
