# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Two operators, one bundle: exactly one goes on."""

from __future__ import annotations

import dataclasses
import json
import multiprocessing
import os
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ansible_collections.mwaa.migration.plugins.module_utils import _lock
from ansible_collections.mwaa.migration.plugins.module_utils._bundle import LocalStore, S3Store, Store
from ansible_collections.mwaa.migration.plugins.module_utils._errors import MigrationError
from ansible_collections.mwaa.migration.plugins.module_utils._lock import Lock, held, held_in, release, run_of
from ansible_collections.mwaa.migration.plugins.modules import migration_lock
from export_fakes import FakeAws, FakeS3

HERE = run_of(os.getpid())
ELSEWHERE = dataclasses.replace(HERE, user="ada", host="ctl-2", place="another boot", pid=4242, born="1")
PATH = "locks/demo.json"


@pytest.fixture(params=["folder", "s3"])
def aged(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Store, Callable[[float], None]]:
    """A store, and a way to let time pass over its lock."""
    if request.param == "folder":
        store = LocalStore(tmp_path)

        def age(seconds: float) -> None:
            moment = (tmp_path / PATH).stat().st_mtime - seconds
            os.utime(tmp_path / PATH, (moment, moment))

        return store, age
    aws = FakeAws()
    return S3Store("bucket", "b", aws), lambda seconds: aws.s3.ages.update({f"b/{PATH}": seconds})


@pytest.fixture
def store(aged: Any) -> Store:
    return aged[0]


def owner(store: Store) -> str:
    return json.loads(store.read(PATH))["owner"]["user"]


def test_a_run_keeps_the_lock_between_its_tasks_and_gives_it_back(store: Store) -> None:
    for _task in range(2):
        with held(store, "demo", HERE) as lock:
            lock.take()
            assert owner(store) == HERE.user
    with pytest.raises(MigrationError, match="is locked"), held(store, "demo", ELSEWHERE):
        pytest.fail("two at once")
    assert release(store, run=ELSEWHERE) == []
    assert release(store, run=HERE) == ["demo"]
    with held(store, "demo", ELSEWHERE) as lock:
        lock.take()
        assert owner(store) == "ada"


def test_a_run_that_changes_nothing_writes_no_lock(store: Store) -> None:
    with held(store, "demo", HERE):
        assert not store.exists(PATH)


def test_the_other_one_reads_who_where_since_when_and_how_to_break_it(store: Store) -> None:
    Lock(store, "demo", ELSEWHERE).take()
    with pytest.raises(MigrationError) as caught, held(store, "demo", HERE):
        pass
    sentence = caught.value.message
    assert "ada on ctl-2 (process 4242) has been migrating into demo since 20" in sentence
    assert "last seen 0 s ago" in sentence
    assert "-e migration_break_lock=true" in sentence
    with held(store, "demo", dataclasses.replace(HERE, breaks=True)) as lock:
        lock.take()
        assert owner(store) == HERE.user


def test_exactly_one_of_many_gets_it(store: Store) -> None:
    def attempt(number: int) -> bool:
        try:
            Lock(store, "demo", dataclasses.replace(ELSEWHERE, place=f"boot {number}")).take()
        except MigrationError:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(attempt, range(8))) == 1


def test_a_run_that_was_killed_here_is_replaced_at_once(store: Store) -> None:
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    Lock(store, "demo", run_of(process.pid)).take()
    with pytest.raises(MigrationError, match="is locked"), held(store, "demo", HERE):
        pass
    process.kill()
    process.wait()
    with held(store, "demo", HERE) as lock:
        lock.take()
        assert json.loads(store.read(PATH))["owner"]["pid"] == HERE.pid


def test_what_a_killed_run_leaves_behind_writes_nothing_more(store: Store) -> None:
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    run = run_of(process.pid)
    with pytest.raises(MigrationError, match="has ended"), held(store, "demo", run) as lock:
        process.kill()
        process.wait()
        lock.take()
    assert not store.exists(PATH)


def test_one_elsewhere_counts_as_dead_after_ten_silent_minutes(aged: Any) -> None:
    store, age = aged
    Lock(store, "demo", ELSEWHERE).take()
    age(_lock.STALE - 5)
    with pytest.raises(MigrationError, match="last seen 9 min 55 s ago"), held(store, "demo", HERE):
        pass
    age(_lock.STALE + 5)
    with held(store, "demo", HERE) as lock:
        lock.take()
        assert owner(store) == HERE.user


def test_it_is_kept_fresh_and_keeps_its_beginning(aged: Any) -> None:
    store, age = aged
    lock = Lock(store, "demo", HERE)
    lock.take()
    before = json.loads(store.read(PATH))
    lock.take()
    assert json.loads(store.read(PATH)) == before  # fresh enough: no write
    age(_lock.REFRESH + 1)
    lock.take()
    after = json.loads(store.read(PATH))
    assert after["since"] == before["since"]
    assert after != before


def test_a_lock_that_was_broken_meanwhile_is_told(store: Store) -> None:
    with pytest.raises(MigrationError, match="taken away while this ran: .* ada on ctl-2"):  # noqa: SIM117
        with held(store, "demo", HERE) as lock:
            lock.take()
            Lock(store, "demo", dataclasses.replace(ELSEWHERE, breaks=True)).take()
            lock.refresh()
    assert release(store, run=HERE) == []  # the new owner's stays
    assert owner(store) == "ada"


def test_who_once_broke_a_lock_does_not_push_out_who_came_after_him(store: Store) -> None:
    with pytest.raises(MigrationError, match="taken away while this ran"):  # noqa: SIM117
        with held(store, "demo", dataclasses.replace(HERE, breaks=True)) as lock:
            lock.take()
            Lock(store, "demo", dataclasses.replace(ELSEWHERE, breaks=True)).take()
            lock.refresh()
    assert owner(store) == "ada"


def test_a_lock_that_another_broke_and_gave_back_is_told_too(store: Store) -> None:
    with pytest.raises(MigrationError, match="taken away while this ran: .*locks/demo.json is gone"):  # noqa: SIM117
        with held(store, "demo", HERE) as lock:
            lock.take()
            Lock(store, "demo", dataclasses.replace(ELSEWHERE, breaks=True)).take()
            release(store, run=ELSEWHERE)
            lock.refresh()


def test_releasing_takes_nothing_away_from_who_took_over_in_that_very_moment(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    Lock(store, "demo", HERE).take()
    look = store.read_tagged

    def look_and_lose(path: str) -> Any:
        seen = look(path)
        monkeypatch.setattr(store, "read_tagged", look)
        Lock(store, "demo", dataclasses.replace(ELSEWHERE, breaks=True)).take()
        return seen

    monkeypatch.setattr(store, "read_tagged", look_and_lose)
    assert release(store, run=HERE) == []
    assert owner(store) == "ada"


def test_one_of_several_targets_gives_back_its_own_lock_alone(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("demo", "other", _lock.EXPORT):
        Lock(store, name, HERE).take()
    monkeypatch.setattr(migration_lock, "open_store", lambda _url, _aws: store)
    monkeypatch.setenv(_lock.VARIABLE, _lock.run_variable(HERE.pid)[_lock.VARIABLE])
    params = {"bundles": [store.url], "environment": "demo"}
    context: Any = SimpleNamespace(params=params, aws=None, check_mode=False)
    assert migration_lock.body(context)["released"] == [f"{store.url} demo", f"{store.url} export"]
    params["environment"] = ""
    assert migration_lock.body(context)["released"] == [f"{store.url} other"]


def test_a_bundle_whose_bucket_is_yet_to_be_made_is_nobodys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class ToCome(LocalStore):
        def read_tagged(self, path: str) -> Any:
            raise MigrationError("there is no such bucket", code="NoSuchBucket")

    monkeypatch.setattr(_lock, "this_run", lambda: HERE)
    there, to_come = LocalStore(tmp_path / "there"), ToCome(tmp_path / "to-come")
    with held_in([to_come, there], "demo", some_to_come=True) as take:
        take()
    assert owner(there) == HERE.user and not (tmp_path / "to-come").exists()
    with pytest.raises(MigrationError, match="no such bucket"), held_in([to_come], "demo"):
        pass


def test_after_the_end_no_refresh_brings_a_lock_back(store: Store) -> None:
    with held(store, "demo", HERE) as lock:
        lock.take()
    release(store, run=HERE)
    lock.refresh()
    assert not store.exists(PATH)


def test_a_module_elsewhere_does_not_take_its_own_processes_for_the_controllers(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = (dataclasses.replace(HERE, pid=pid, born="1") for pid in (2**22 + 1, 2**22 + 2))
    monkeypatch.setattr(_lock, "_place", lambda: "the host that the module was sent to")
    Lock(store, "demo", first).take()
    with pytest.raises(MigrationError, match="is locked"), held(store, "demo", second):
        pass


def test_a_process_that_proc_hides_is_not_dead(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def kill(_pid: int, _signal: int) -> None:
        raise PermissionError

    monkeypatch.setattr(_lock, "_born", lambda _pid: "")
    monkeypatch.setattr(os, "kill", kill)
    Lock(store, "demo", dataclasses.replace(HERE, pid=4242)).take()
    with pytest.raises(MigrationError, match="is locked"), held(store, "demo", HERE):
        pass


def test_a_module_that_runs_by_itself_leaves_no_lock(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(_lock.VARIABLE, raising=False)
    with held(store, "demo") as lock:
        lock.take()
        assert store.exists(PATH)
    assert not store.exists(PATH)


def test_the_run_reaches_the_module_through_its_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in _lock.run_variable(HERE.pid, breaks=True).items():
        monkeypatch.setenv(name, value)
    assert _lock.this_run() == dataclasses.replace(HERE, breaks=True)
    assert _lock.breaks_lock({"migration_break_lock": "true"})
    assert not _lock.breaks_lock({})


def test_an_unreadable_lock_is_respected_until_it_is_stale(aged: Any) -> None:
    store, age = aged
    store.write(PATH, b"\x1b[2Jnonsense")
    with pytest.raises(MigrationError, match="someone has been migrating") as caught, held(store, "demo", HERE):
        pass
    assert "\x1b" not in caught.value.message
    age(_lock.STALE + 1)
    with held(store, "demo", HERE) as lock:
        lock.take()
        assert owner(store) == HERE.user


def test_names_in_a_lock_do_not_steer_the_terminal(store: Store) -> None:
    Lock(store, "demo", dataclasses.replace(ELSEWHERE, user="\x1b[31meve\n")).take()
    with pytest.raises(MigrationError) as caught, held(store, "demo", HERE):
        pass
    assert caught.value.message.isprintable()


def test_s3_says_its_own_time(tmp_path: Path) -> None:
    aws = FakeAws()
    store = S3Store("bucket", "b", aws)
    Lock(store, "demo", ELSEWHERE).take()
    aws.s3.ages[f"b/{PATH}"] = 30
    tagged = store.read_tagged(PATH)
    assert tagged is not None
    assert tagged.age == 30
    assert isinstance(aws.s3, FakeS3)


def _says(channel: Any, gone: Any) -> None:
    gone.wait(30)
    for _moment in range(300):  # until init has taken it over
        if os.getppid() != _lock.multiprocessing.parent_process().pid:  # type: ignore[union-attr]
            break
        time.sleep(0.01)
    try:
        channel.put(str(_lock.controller()))
    except MigrationError as error:
        channel.put(error.message)


def _starts(channel: Any, gone: Any) -> None:
    fork = multiprocessing.get_context("fork")
    fork.Process(target=_says, args=(channel, gone)).start()
    gone.set()
    os._exit(0)  # as kill -9 would


def test_a_worker_that_outlives_ansible_playbook_begins_nothing() -> None:
    fork = multiprocessing.get_context("fork")
    channel = fork.SimpleQueue()
    playbook = fork.Process(target=_starts, args=(channel, fork.Event()))
    playbook.start()
    playbook.join()
    assert channel.get() == "the run that this task belongs to has ended, so it stops before it begins"


def test_a_worker_knows_its_ansible_playbook() -> None:
    fork = multiprocessing.get_context("fork")
    channel = fork.SimpleQueue()
    worker = fork.Process(target=lambda: channel.put(_lock.controller()))
    worker.start()
    worker.join()
    assert channel.get() == os.getpid()


def test_a_run_whose_process_was_gone_when_it_was_looked_at_is_dead() -> None:
    gone = _lock.run_of(2**22 + 1)
    assert gone.born == "" and gone.is_dead(HERE)
