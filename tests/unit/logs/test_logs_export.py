# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Logs of several hosts into one bundle, page by page, by the agent's own code; and the ledger of what was copied."""

from __future__ import annotations

import datetime
import gzip
import importlib.util
import json
import os
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ansible_collections.mwaa.migration.plugins.module_utils._bundle import Bundle, LocalStore
from ansible_collections.mwaa.migration.plugins.module_utils._errors import MigrationError
from ansible_collections.mwaa.migration.plugins.module_utils._history import airflow_history
from ansible_collections.mwaa.migration.plugins.module_utils._logs import lines
from ansible_collections.mwaa.migration.plugins.module_utils._logs.export import Exporter, Options
from ansible_collections.mwaa.migration.plugins.module_utils._logs.layout import Attempt, path_of
from ansible_collections.mwaa.migration.plugins.module_utils._logs.record import Copied, Record

_FILE = Path(__file__).parents[3] / "plugins" / "agent" / "airflow_logs.py"
_SPEC = importlib.util.spec_from_file_location("airflow_logs_of_the_agent", _FILE)
assert _SPEC and _SPEC.loader
airflow_logs = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(airflow_logs)

SOURCE = {"airflow_home": "/opt/airflow", "database": "postgresql://db/airflow"}
LOCK = SimpleNamespace(take=lambda: None, check=lambda: None)


class Host:
    def __init__(self, name: str, folder: Path):
        self.name, self.base, self.entries = name, folder.resolve(), []  # type: str, Path, list[dict[str, Any]]
        self.dies_at = 0
        self.sent = 0

    def log(self, attempt: Attempt, text: str, mtime: int = 1) -> None:
        file = self.base / path_of(attempt)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        dates = dict.fromkeys(("start", "end", "ended", "date"))
        about = {"state": "failed", **dates, "ran": True, "own": False, "zone": 0, "mtime": mtime}
        self.entries = [one for one in self.entries if one["path"] != path_of(attempt)]
        self.entries.append({**attempt._asdict(), **about, "path": path_of(attempt), "size": len(text.encode())})

    def nowhere(self, attempt: Attempt, *, ran: bool) -> None:
        """The database counts it, and there is no file."""
        self.log(attempt, "x")
        (self.base / path_of(attempt)).unlink()
        self.entries[-1].update(size=None, mtime=None, ran=ran)

    def ask(self, request: dict[str, Any]) -> dict[str, Any]:
        if request["op"] == "list_logs":  # two to a page
            at = request["after"] or 0
            page = json.loads(json.dumps(self.entries[at : at + 2]))
            following = at + 2 if at + 2 < len(self.entries) else None
            return {"logs": page, "next": following, "base": str(self.base), "remote": None, "open": 1}
        self.sent += 1
        if self.sent == self.dies_at:
            raise KeyboardInterrupt
        options = {"base_log_folder": str(self.base)}
        agent = SimpleNamespace(
            _option=lambda _section, name: options.get(name, ""), AgentError=lambda _code, text: MigrationError(text)
        )
        return json.loads(json.dumps(airflow_logs.operate(agent, airflow_history, request)))


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return Bundle(LocalStore(tmp_path / "bundle"), "b1", b"k" * 32, {"kms_key_id": "k", "wrapped": ""}, SOURCE)


def export(host: Host, bundle: Bundle, **options: Any) -> dict[str, Any]:
    identity = {**SOURCE, "hostname": host.name}
    return Exporter(host.ask, bundle, identity, Options(state="all", **options), lock=LOCK).run()


def texts(bundle: Bundle) -> dict[Attempt, str]:
    record, found = Record.open(bundle), {}
    assert record
    for dag_id in record.dags():
        for entry in record.entries(dag_id):
            packed = b"".join(record.object(path)[at : at + size] for path, at, size, _raw in entry["pieces"])
            attempt = Attempt(*(entry[name] for name in Attempt._fields))
            found[attempt] = gzip.decompress(packed).decode()
    return found


LOGS = [Attempt(f"d{number % 3}", "r", f"t{number}", -1, 1) for number in range(7)]


def test_a_run_that_died_goes_on_with_what_is_missing(tmp_path: Path, bundle: Bundle) -> None:
    host = Host("a", tmp_path / "logs")
    for attempt in LOGS:
        host.log(attempt, f"log of {attempt}\n")
    host.dies_at = 3
    with pytest.raises(KeyboardInterrupt):
        export(host, bundle)
    assert len(texts(bundle)) == 4
    result = export(host, bundle)
    assert result["logs"] == {"listed": 7, "sent": 3, "unchanged": 4, "remote": 0}
    assert texts(bundle) == {attempt: f"log of {attempt}\n" for attempt in LOGS}
    assert "1 runs have not ended" in result["findings"][0]
    before = bundle.store.list()
    assert export(host, bundle)["changed"] is False and bundle.store.list() == before


def test_hosts_of_one_installation_add_to_one_another(tmp_path: Path, bundle: Bundle) -> None:
    one, two = Host("a", tmp_path / "one"), Host("b", tmp_path / "two")
    one.log(LOGS[0], "whole log\n")
    one.log(LOGS[1], "on a\n")
    two.log(LOGS[0], "part\n")
    two.log(LOGS[2], "on b\n")
    assert [export(host, bundle)["logs"]["sent"] for host in (one, two, one, two)] == [2, 1, 0, 0]
    assert texts(bundle) == {LOGS[0]: "whole log\n", LOGS[1]: "on a\n", LOGS[2]: "on b\n"}
    two.log(LOGS[0], "the larger part of the log\n")
    assert export(two, bundle)["logs"]["sent"] == 1 and texts(bundle)[LOGS[0]].startswith("the larger")
    two.log(LOGS[2], "on c\n", mtime=2)  # as long, but another one
    assert export(two, bundle)["logs"]["sent"] == 1 and texts(bundle)[LOGS[2]] == "on c\n"


def test_of_a_log_that_two_hosts_have_parts_of_the_one_that_is_not_carried_is_listed(
    tmp_path: Path, bundle: Bundle
) -> None:
    """A task in reschedule mode goes on where a worker is free, and writes its log there."""
    one, two = Host("a", tmp_path / "one"), Host("b", tmp_path / "two")
    one.log(LOGS[0], "poked once\n")
    one.log(LOGS[1], "on a shared folder\n", mtime=7)
    two.log(LOGS[0], "poked again, and again\n")
    two.log(LOGS[1], "on a shared folder\n", mtime=7)
    reason = "11 bytes of it lie on a: the larger part, 23 bytes on b, is carried"
    lost = {"kind": "log", "id": "d0 r t0 attempt 1 on a", "reason": reason}
    assert [export(host, bundle)["not_carried"] for host in (one, two, one, two)] == [[], [lost], [lost], []]
    assert texts(bundle)[LOGS[0]] == "poked again, and again\n"


def test_attempts_whose_log_is_nowhere_are_counted_without_those_that_never_ran(tmp_path: Path, bundle: Bundle) -> None:
    one, two = Host("a", tmp_path / "one"), Host("b", tmp_path / "two")
    one.log(LOGS[0], "on a\n")
    for attempt in LOGS[1:4]:
        one.nowhere(attempt, ran=True)
    for attempt in LOGS[4:]:
        one.nowhere(attempt, ran=False)
    two.nowhere(LOGS[0], ran=True)
    two.log(LOGS[1], "on b\n")

    def said(host: Host) -> str:
        found = [one for one in export(host, bundle)["findings"] if "that the database counts" in one]
        return found[0].partition(":")[0] if found else ""

    assert said(one) == "3 attempts that the database counts have no log on a or in the bundle"
    assert said(two) == ""
    assert said(one) == "2 attempts that the database counts have no log on a or in the bundle"


def test_what_vanishes_while_it_is_sent_is_listed(tmp_path: Path, bundle: Bundle) -> None:
    host = Host("a", tmp_path / "logs")
    host.log(LOGS[0], "x\n")
    host.log(LOGS[1], "y\n")
    (host.base / path_of(LOGS[0])).unlink()
    result = export(host, bundle)
    assert result["logs"]["sent"] == 1 and result["not_carried"] == [
        {"kind": "log", "id": "d0 r t0 attempt 1", "reason": "cannot be read: No such file or directory"}
    ]


def test_of_more_than_a_thousand_that_stay_behind_the_list_says_how_many_more(tmp_path: Path, bundle: Bundle) -> None:
    host = Host("a", tmp_path / "logs")
    host.log(LOGS[0], "x")
    (host.base / path_of(LOGS[0])).unlink()
    host.entries = [{**host.entries[0], "task_id": f"t{number}"} for number in range(1003)]
    *named, others = export(host, bundle)["not_carried"]
    assert len(named) == 1000 and others == {
        "kind": "log", "id": "others, on a", "reason": "3 more logs are not named here"
    }  # fmt: skip


def test_another_airflows_logs_do_not_get_in(tmp_path: Path, bundle: Bundle) -> None:
    with pytest.raises(MigrationError, match="holds another Airflow"):
        Exporter(Host("a", tmp_path).ask, bundle, {**SOURCE, "database": "x", "hostname": "a"}, Options(), lock=LOCK)
    with pytest.raises(MigrationError, match="days is 0"):
        export(Host("a", tmp_path), bundle, days=0)


def test_the_ledger_is_one_file_a_dag_and_authentic(bundle: Bundle) -> None:
    ledger = Copied(bundle, "prod", "etl")
    assert ledger.get(LOGS[0]) is None and ledger.put(LOGS[0], {"tag": "1"}) == 1
    ledger.put(LOGS[3], {"tag": "2", "archived": {"key": "k"}, "archive": "s3://a"})
    ledger.save()
    (path,) = bundle.store.list("logs/ledger/prod/")
    again = Copied(bundle, "prod", "etl")
    assert again.get(LOGS[0]) == {"tag": "1"} and [one.task_id for one, _known in again.archived("s3://a")] == ["t3"]
    assert Copied(bundle, "prod", "other").get(LOGS[0]) is None
    bundle.store.write(path, bundle.store.read(path).replace(b'"1"', b'"9"'))
    with pytest.raises(MigrationError, match="was altered"):
        Copied(bundle, "prod", "etl")


def test_a_log_that_is_elsewhere_has_the_zone_of_this_host(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before Airflow 2.3 its lines have local times, and no file here tells of when they are."""
    summer = datetime.datetime(2024, 7, 1, 12)  # without a zone, as SQLite gives it
    monkeypatch.setenv("TZ", "CET-1CEST,M3.5.0,M10.5.0/3")
    time.tzset()
    try:
        assert airflow_logs._zone(None, summer) == 7200
        assert airflow_logs._zone(None, summer.replace(month=1)) == 3600
        assert airflow_logs._zone(summer.timestamp(), None) == 7200 and airflow_logs._zone(None, None) == 0
    finally:
        monkeypatch.undo()
        time.tzset()


def test_an_earlier_attempt_is_dated_by_its_file_and_not_by_a_run_that_was_cleared_since(tmp_path: Path) -> None:
    """Else all of its times would be of another day than the attempt, and none of them be taken for one."""

    def day(number: int) -> datetime.datetime:
        return datetime.datetime(2024, 1, number, tzinfo=datetime.timezone.utc)

    for attempt, last in ((1, day(2)), (2, day(20))):
        (tmp_path / f"{attempt}.log").write_text("x")
        os.utime(tmp_path / f"{attempt}.log", (last.timestamp(), last.timestamp()))
    reader = airflow_logs._Reader.__new__(airflow_logs._Reader)
    reader.base, reader.remote, reader.history = str(tmp_path.resolve()), True, airflow_history
    reader.templates = SimpleNamespace(path=lambda _run, _task, attempt: f"{attempt}.log")
    run = {"run_id": "r", "execution_date": day(1), "start_date": day(20)}
    task = {"dag_id": "etl", "task_id": "load", "try_number": 2, "state": "failed"}
    task.update(start_date=day(20), end_date=day(21))
    first, second = reader._of_task(run, task, {})
    assert (first["start"], first["end"], first["ended"]) == (None, day(2).isoformat(), day(21).isoformat())
    assert (second["start"], second["end"], second["ended"]) == (day(20).isoformat(), *[day(21).isoformat()] * 2)
    (tmp_path / "1.log").unlink()
    first, _second = reader._of_task(run, task, {})  # it lies elsewhere
    assert (first["start"], first["end"], first["size"]) == (None, day(21).isoformat(), None)
    assert [reader._of_task(run, {**task, "hostname": name}, {})[0]["ran"] for name in ("w1", "")] == [True, False]
    [told, _second] = reader._of_task(run, task, {("r", "load", -1, 1): (day(1), day(2))})
    assert (told["start"], told["end"]) == (day(1).isoformat(), day(2).isoformat())
    body = b"[2024-01-01T12:00:00.000+0000] as it was"
    at = int(datetime.datetime(2024, 1, 1, 12, tzinfo=datetime.timezone.utc).timestamp() * 1000)
    assert [event.timestamp for event in lines.events([body], lines.Dates(None, int(day(21).timestamp() * 1000)))] == [
        at
    ]
