# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A record of exports against a target that has imported them: equal, or named by key, or listed with the reason."""

from __future__ import annotations

import base64
import random
from types import SimpleNamespace
from typing import Any

import pytest
from ansible_collections.mwaa.migration.plugins.module_utils._bundle import S3Store
from ansible_collections.mwaa.migration.plugins.module_utils._history import verify as module
from ansible_collections.mwaa.migration.plugins.module_utils._history.interim import verified
from ansible_collections.mwaa.migration.plugins.module_utils._history.record import HistoryExport, Record
from ansible_collections.mwaa.migration.plugins.module_utils._history.verify import Outcome, compare
from import_lane import KEY, Database, Databases, Lane, importing
from small_airflow import SmallAirflow, history, moment

pytestmark = pytest.mark.lab


def airflow(days: int = 4) -> SmallAirflow:
    made = SmallAirflow("2.10.3")
    for dag in ("etl", "hourly"):
        for day in range(1, days + 1):
            made.run(dag, day, updated_at=moment(day))
            made.task(dag, "load", day, updated_at=moment(day), start_date=moment(day))
            made.xcom(dag, "load", "return_value", b"%d" % day, day)
            made.of_task("task_fail", dag, "load", day, duration=day)
            made.insert("log", dag_id=dag, dttm=moment(day), event="success", extra="")
    return made


class Migration:
    """Exports of one Airflow, brought into one database, and what verifying says of it."""

    def __init__(self, database: Database, made: SmallAirflow, in_s3: bool = False):
        self.database, self.made, self.lanes = database, made, []
        self.bodies: dict[str, bytes] = {}
        store = object.__new__(S3Store) if in_s3 else None
        self.record = Record(SimpleNamespace(digest_key=KEY, store=store), "s1")  # type: ignore[arg-type]
        self.record.read = lambda piece: self.bodies[piece["sha256"]]  # type: ignore[method-assign]
        self.requests: list[dict[str, Any]] = []

    def export(self, full: bool = False, number: int | None = None, **options: Any) -> None:
        number = len(self.lanes) if number is None else number
        lane = Lane(self.made.engine(), self.database.schema(), f"b{number}", **options)
        self.lanes.append(lane)
        self.bodies.update(lane.bodies)
        parts: dict[str, dict[str, Any]] = {}
        for piece in lane.pieces:
            part = parts.setdefault(piece["table"], {"table": piece["table"], "rows": 0, "objects": []})
            part["rows"] += piece["rows"]
            part["objects"].append({"path": piece["sha256"], **piece})
        for table, digests in lane.digests.items():
            parts.setdefault(table, {"table": table, "rows": 0, "objects": []})["digests"] = digests
        after = None if full or not self.record.exports else number
        self.record.exports.append(
            HistoryExport(
                f"e{number}", f"day {number}", "2.10.3", "2.11.2", "sqlite", {}, after=after,
                columns=lane.columns, scope=lane.plan["scope"], parts=list(parts.values()), open=lane.plan["open"],
            )
        )  # fmt: skip

    def bring(self, policy: str = "newer") -> None:
        target = self.database.target()
        importing.register(target, "s1")
        for lane in self.lanes:
            lane.into(self.database, policy)

    def ask(self, request: dict[str, Any]) -> dict[str, Any]:
        source = SimpleNamespace(
            name="postgresql",
            search_path=None,
            connect=lambda **how: history.Engine("postgresql", self.database.connect(), **how),
        )
        self.requests.append(request)
        return history.OPERATIONS[request["op"]](source, request)

    def place(self, piece: dict[str, Any]) -> dict[str, Any]:
        return {"data": base64.b64encode(self.bodies[piece["sha256"]]).decode()}

    def verify(self) -> Outcome:
        return compare(self.record, self.ask, self.place)


@pytest.fixture
def migration(databases: Databases) -> Migration:
    return Migration(databases.new("2.11.2"), airflow())


def test_what_was_imported_is_equal(migration: Migration) -> None:
    migration.export()
    migration.bring()
    outcome = migration.verify()
    assert outcome.errors == [] and outcome.listed == [] and outcome.differences == {}
    assert outcome.parity["dag_run"] == {"source": 8, "target": 8, "equal": 8, "listed": 0}
    assert outcome.parity["xcom"] == {"source": 8, "target": 8, "equal": 8, "listed": 0}
    assert len(migration.requests) == 1  # nothing differs, so nothing is asked for by name


def test_what_differs_is_named_by_key_and_never_shown(migration: Migration) -> None:
    migration.export()
    migration.bring()
    migration.database.sql(
        "DELETE FROM xcom WHERE dag_id = 'etl' AND run_id LIKE '%01-03T%';"
        "UPDATE task_instance SET hostname = 'CANARY-host-0badc0de' WHERE dag_id = 'etl' AND run_id LIKE '%01-02T%'"
    )
    outcome = migration.verify()
    assert outcome.parity["xcom"] == {"source": 8, "target": 7, "equal": 7, "listed": 0}
    assert outcome.parity["task_instance"] == {"source": 8, "target": 8, "equal": 7, "listed": 0}
    assert [(where, what) for where, what, _mend in outcome.errors] == [
        (
            "history: task_instance of DAG etl",
            "1 row different (task_id=load run_id=scheduled__2024-01-02T00:00:00.000000)",
        ),
        (
            "history: xcom of DAG etl",
            "1 row missing (task_id=load run_id=scheduled__2024-01-03T00:00:00.000000 key=return_value)",
        ),
    ]
    assert "CANARY" not in str(outcome)


def test_a_run_that_ran_again_in_the_environment_is_listed(migration: Migration) -> None:
    """Somebody cleared a task there: new tries, a new XCom, rows that are the environment's own."""
    migration.export()
    migration.bring()
    migration.database.sql(
        "UPDATE dag_run SET updated_at = now(), last_scheduling_decision = now();"  # the scheduler alone
        "UPDATE task_instance SET updated_at = now(), try_number = 2 WHERE dag_id = 'etl' AND run_id LIKE '%01-02T%';"
        "DELETE FROM xcom WHERE dag_id = 'etl' AND run_id LIKE '%01-02T%';"
        "INSERT INTO task_fail (dag_id, task_id, run_id, map_index) SELECT dag_id, task_id, run_id, -1"
        " FROM task_instance WHERE dag_id = 'etl' AND run_id LIKE '%01-02T%'"
    )
    outcome = migration.verify()
    assert outcome.errors == []
    assert [entry["id"] for entry in outcome.listed] == [
        "task_instance of DAG etl, changed since",
        "task_fail of DAG etl, more",
        "xcom of DAG etl, missing",
    ]
    assert outcome.parity["xcom"] == {"source": 8, "target": 7, "equal": 7, "listed": 1}
    assert outcome.parity["dag_run"]["equal"] == 8 and outcome.parity["task_instance"]["equal"] == 7


@pytest.mark.parametrize("in_s3", [False, True])
def test_a_later_export_takes_the_place_of_rows(databases: Databases, in_s3: bool) -> None:
    """Told here of a folder, whose pieces then stay where they are, and by the agent of a bucket."""
    migration = Migration(databases.new("2.11.2"), airflow(), in_s3)
    migration.export()
    migration.bring()
    made = migration.made
    made.connection.execute(
        "UPDATE dag_run SET state = 'failed', updated_at = '2024-02-01 00:00:00+00:00' WHERE id = 2"
    )
    made.connection.execute("DELETE FROM xcom WHERE dag_id = 'hourly'")  # what is deleted does not travel
    made.run("etl", 9, updated_at=moment(9))
    made.task("etl", "load", 9, updated_at=moment(9))
    migration.export()
    migration.bring()
    outcome = migration.verify()
    assert outcome.errors == [] and outcome.differences == {}
    assert outcome.parity["dag_run"] == {"source": 9, "target": 9, "equal": 9, "listed": 0}
    assert outcome.parity["xcom"] == {"source": 4, "target": 8, "equal": 4, "listed": 0}
    [gone] = outcome.listed
    assert gone["id"] == "xcom, deleted at the source"
    assert "4 rows that the source has no longer stay in the environment: dag_id=hourly task_id=load" in gone["reason"]
    assert ["exports" in one for one in migration.requests if one["op"] == "verify_history"] == [in_s3]


def test_of_a_folder_only_what_is_asked_about_travels(migration: Migration, monkeypatch: pytest.MonkeyPatch) -> None:
    made = migration.made
    made.xcom("etl", "load", "large", random.Random(7).randbytes(60_000).hex().encode(), 4)
    migration.export()
    made.connection.execute("UPDATE task_instance SET hostname = 'b' WHERE dag_id = 'hourly'")
    made.run("etl", 9, updated_at=moment(9))
    made.task("etl", "load", 9, updated_at=moment(9))
    made.xcom("etl", "load", "large", random.Random(8).randbytes(60_000).hex().encode(), 9)
    migration.export()
    migration.bring("overwrite")
    migration.database.sql("UPDATE xcom SET value = '1' WHERE dag_id = 'hourly'; DELETE FROM log; DELETE FROM task_map")
    monkeypatch.setattr(module, "INLINE", 40_000)
    outcome = migration.verify()
    assert {where for where, _what, _mend in outcome.errors} == {
        "history: log of DAG etl",
        "history: log of DAG hourly",
        "history: xcom of DAG hourly",
    }
    assert sum(map(len, migration.bodies.values())) > 120_000
    assert max(len(str(request)) for request in migration.requests) < 40_000
    assert [len(one["differences"]) for one in migration.requests if one.get("differences")] == [2, 1]
    monkeypatch.setattr(module, "INLINE", 1)
    migration.requests.clear()
    again = migration.verify()
    assert again.errors == outcome.errors and again.listed == outcome.listed
    assert [len(one["differences"]) for one in migration.requests if one.get("differences")] == [1, 1, 1]


def test_the_pieces_of_a_table_are_named_once_in_a_request(databases: Databases) -> None:
    migration = Migration(databases.new("2.11.2"), airflow(), in_s3=True)
    migration.export()
    migration.bring()
    migration.database.sql("DELETE FROM log; DELETE FROM xcom")
    assert len(migration.verify().errors) == 4
    [request] = [one for one in migration.requests if one.get("differences")]
    assert len(request["differences"]) == 4
    assert {table: len(pieces) for table, pieces in request["pieces"].items()} == {"log": 1, "xcom": 1}


def test_a_run_that_is_in_flight_again_is_the_environments(migration: Migration) -> None:
    """Cleared a moment ago: an export of the environment would have none of its rows."""
    migration.export()
    migration.bring()
    migration.database.sql(
        "UPDATE dag_run SET state = 'queued', updated_at = now() WHERE dag_id = 'etl' AND run_id LIKE '%01-02T%'"
    )
    outcome = migration.verify()
    assert outcome.errors == []
    assert {entry["id"] for entry in outcome.listed} == {
        f"{table} of DAG etl, missing" for table in ("dag_run", "task_instance", "task_fail", "xcom")
    }
    assert all("in flight there: their runs were cleared" in entry["reason"] for entry in outcome.listed)
    migration.database.sql("DELETE FROM task_fail WHERE dag_id = 'etl'")
    [(where, what, _mend)] = migration.verify().errors
    assert where == "history: task_fail of DAG etl" and "4 rows missing (id=" in what and "01-01T" in what


def test_what_is_wrong_is_named_before_many_runs_of_the_environments_own(
    databases: Databases, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importing, "LISTED", 2)
    database = databases.new("2.11.2")
    database.sql(
        "INSERT INTO dag_run (dag_id, run_id, execution_date, run_type, state, clear_number) SELECT 'etl',"
        " 'scheduled__2024-01-0' || n || 'T00:00:00.000000', '2024-01-01'::timestamptz + (n - 1) * interval '1 day',"
        " 'manual', 'success', 0 FROM generate_series(1, 5) n"
    )
    migration = Migration(database, airflow(8))
    migration.export()
    migration.bring("skip")
    outcome = migration.verify()
    assert outcome.errors == [] and [entry["id"] for entry in outcome.listed] == ["dag_run of DAG etl, different"]
    assert outcome.listed[0]["reason"].startswith("5 rows are as the environment has them")
    database.sql("UPDATE dag_run SET run_type = 'manual' WHERE dag_id = 'etl' AND run_id LIKE '%01-07T%'")
    [(where, what, _mend)] = migration.verify().errors
    assert where == "history: dag_run of DAG etl"
    assert "6 rows different (run_id=scheduled__2024-01-07T00:00:00.000000 and 5 more)" in what


def test_dags_that_an_earlier_export_alone_had_are_listed(migration: Migration) -> None:
    migration.export()
    migration.export(full=True, dags=["etl"])
    migration.bring()
    outcome = migration.verify()
    assert outcome.errors == []
    assert [entry["id"] for entry in outcome.listed if "filters" in entry["reason"]] == ["DAG hourly"]
    assert outcome.parity["dag_run"]["equal"] == outcome.parity["dag_run"]["target"] == 4


def test_what_is_older_than_a_later_export_reaches_is_listed(migration: Migration) -> None:
    migration.made.insert("dag", dag_id="etl", is_paused=0)
    migration.export()
    migration.export(full=True, since="2024-01-03T00:00:00Z")
    migration.bring()
    outcome = migration.verify()
    assert outcome.errors == []
    assert [entry["id"] for entry in outcome.listed] == ["what ended before 2024-01-03T00:00:00Z"]
    for table in ("dag_run", "task_instance", "xcom", "task_fail", "log"):
        assert outcome.parity[table] == {"source": 4, "target": 4, "equal": 4, "listed": 0}
    migration.database.sql("UPDATE xcom SET value = '9' WHERE dag_id = 'etl'")
    [(where, what, _mend)] = migration.verify().errors
    assert where == "history: xcom of DAG etl" and what.startswith("2 rows different")


def test_what_was_brought_once_comes_again_with_another_export(migration: Migration) -> None:
    """As the errors of verification say."""
    migration.export()
    migration.bring()
    migration.database.sql("DELETE FROM xcom WHERE dag_id = 'etl'; UPDATE task_instance SET state = 'failed'")
    migration.bring("overwrite")  # the ledger knows all of it
    assert len(migration.verify().errors) == 3
    migration.lanes.clear()
    migration.record.exports.clear()
    migration.export(number=1)
    migration.bring("overwrite")
    outcome = migration.verify()
    assert outcome.errors == [] and outcome.parity["task_instance"]["equal"] == 8


def test_rows_that_foreign_keys_leave_out_when_they_come_back_are_listed(migration: Migration) -> None:
    made = SmallAirflow("1.10.12")  # which has none
    made.run("etl")
    made.task("etl", "load")
    made.xcom("etl", "load", "k", b"1")
    made.xcom("etl", "deleted", "k", b"1")
    migration.made = made
    migration.export()
    importing.make_ledger(target := migration.database.target())
    target.commit()
    importing.drop_indexes(target, migration.lanes[0].columns)
    migration.bring()
    importing.finish(migration.database.connect)
    outcome = verified(migration.record, migration.ask, migration.place)
    assert outcome.errors == [] and outcome.parity["xcom"] == {"source": 2, "target": 1, "equal": 1, "listed": 1}


def test_more_than_can_be_named(migration: Migration, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LOOKED_INTO", 1)
    migration.export()
    migration.bring()
    migration.database.sql("DELETE FROM log; UPDATE dag_run SET run_type = 'manual' WHERE id = -1")
    outcome = migration.verify()
    looked, other, another = outcome.errors
    assert "1 row different" in looked[1]
    assert {other[1], another[1]} == {
        "4 rows at the source and 0 in the environment (not looked into: too much differs)"
    }
