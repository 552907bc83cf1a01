# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An export and its deltas come to what one export of the end state would be, less what was deleted: that is named."""

from __future__ import annotations

import datetime
import json
from collections.abc import Callable
from typing import Any

import pytest
from import_lane import NOT_ROWS, Database, Databases, Lane, history, importing
from moving_airflow import MovingAirflow
from small_airflow import KEY, SmallAirflow
from test_history_export import Source, fill, same_rows

pytestmark = pytest.mark.lab

VERSION, TARGET = "2.10.3", "2.11.2"


class OnPostgres:
    """A source whose every row tells the transaction that wrote it."""

    def __init__(self, databases: Databases):
        self.database = databases.new(VERSION)
        self.connection = self.database.connect()
        self.connection.autocommit = True
        # what the rows of this test need not say
        for column in ("max_active_tasks", "has_task_concurrency_limits", "max_consecutive_failed_dag_runs"):
            self.sql(f"ALTER TABLE dag ALTER {column} DROP NOT NULL")

    def sql(self, statement: str, *values: Any) -> list[Any]:
        with self.connection.cursor() as cursor:
            cursor.execute(statement.replace("?", "%s"), values)
            return cursor.fetchall() if cursor.description else []

    def engine(self) -> Any:
        return self.database.engine()

    def mark(self, mark: dict[str, Any], _at: datetime.datetime) -> dict[str, Any]:
        return json.loads(json.dumps(mark))


class OnSqlite:
    """A source that has dates and counts only."""

    def __init__(self, _databases: Databases):
        self.airflow = SmallAirflow(VERSION)

    def sql(self, statement: str, *values: Any) -> list[Any]:
        rows = self.airflow.connection.execute(statement, values).fetchall()
        self.airflow.connection.commit()
        return rows

    def engine(self) -> Any:
        return self.airflow.engine()

    def mark(self, mark: dict[str, Any], at: datetime.datetime) -> dict[str, Any]:
        return {**json.loads(json.dumps(mark)), "at": at.isoformat() + "Z"}


class Resumed:
    """An engine that looks at another snapshot after each part, between which something happens."""

    def __init__(self, source: OnPostgres, happens: Callable[[], None]):
        self.source, self.happens, self.looking = source, happens, source.engine()

    def __getattr__(self, name: str) -> Any:
        if name == "connection":  # asked for once a part
            self.looking.connection.close()
            self.happens()
            self.looking = self.source.engine()
        return getattr(self.looking, name)


def difference(whole: list[Any], *parts: list[Any] | None) -> list[Any]:
    rows, total = whole[0], int(whole[1], 16)
    for part in filter(None, parts):
        rows, total = rows - part[0], (total - int(part[1], 16)) % 2**128
    return [rows, f"{total:032x}"]


def without(there: dict[str, Any], *gone: dict[str, Any]) -> dict[str, Any]:
    """Digests of what is there, less those of what is gone; of run tables."""
    found: dict[str, Any] = {}
    for table, dags in there.items():
        for dag, entry in dags.items():
            left = difference(entry, *[one.get(table, {}).get(dag) for one in gone])
            if left[0]:
                found.setdefault(table, {})[dag] = left
    return found


def of_runs(digests: dict[str, Any]) -> dict[str, Any]:
    return {
        table: dags
        for table, dags in digests.items()
        if history.TABLES[table]["unit"] in ("run", "of_run") and table not in NOT_ROWS and dags
    }


def what_is_gone(database: Database, lanes: list[Lane]) -> dict[str, Any]:
    engine = history.Engine("postgresql", database.connect(), writable=True)
    try:
        bodies = {digest: body for lane in lanes for digest, body in lane.bodies.items()}
        deltas = [lane.pieces for lane in lanes[1:]]
        last, tables = lanes[-1].plan, [*lanes[0].columns]
        fetch = lambda piece: bodies[piece["sha256"]]  # noqa: E731
        return importing.deleted(engine, tables, lanes[0].columns, deltas, fetch, last["mark"], last["scope"], KEY, [])
    finally:
        engine.connection.close()


@pytest.mark.parametrize("policy", ["newer", "overwrite"])
@pytest.mark.parametrize("seed", [0, *[pytest.param(seed, marks=pytest.mark.slow) for seed in range(1, 12)]])
@pytest.mark.parametrize("engine", [OnPostgres, OnSqlite])
def test_any_sequence_of_changes_arrives(databases: Databases, engine: Any, seed: int, policy: str) -> None:
    source, database = engine(databases), databases.new(TARGET)
    airflow = MovingAirflow(source.sql, seed)
    airflow.go(60)
    lanes = [Lane(source.engine(), database.schema(), "b0")]
    assert lanes[0].into(database, policy)["listed"] == []
    for number in range(1, 4):
        airflow.clock += datetime.timedelta(days=1)
        mark = source.mark(lanes[-1].plan["mark"], airflow.clock)
        airflow.clock += datetime.timedelta(hours=2)
        airflow.go(40)
        lane = Lane(source.engine(), database.schema(), f"b{number}", after=mark)
        assert lane.plan["delta"]
        lanes.append(lane)
        assert lane.into(database, policy)["listed"] == []
    whole = Lane(source.engine(), database.schema(), "whole")
    found = what_is_gone(database, lanes)
    there = lanes[0].read_back(database)
    left = without(of_runs(there), found["lost"], found["gone"], found["again"])
    assert left == of_runs(whole.sent())
    assert there.get("log") == whole.digests.get("log")
    # what was named is not there, and nothing else was named
    for table, rows in found["rows"].items():
        assert len(found["deleted"][table]) == rows
        for key in found["deleted"][table]:
            names = [name for name in ("dag_id", "task_id", "run_id", "key") if name in key]
            if table not in ("dag_run_note", "task_instance_history", "task_fail"):
                where = " AND ".join(f"{name} = ?" for name in names)
                assert source.sql(f"SELECT 1 FROM {table} WHERE {where}", *[key[name] for name in names]) == []


def test_a_delta_of_runs_has_the_digests_that_the_target_reads_of_them(databases: Databases) -> None:
    source, database = OnPostgres(databases), databases.new(TARGET)
    airflow = MovingAirflow(source.sql, 11)
    airflow.go(60)
    first = Lane(source.engine(), database.schema(), "b0")
    first.into(database, "newer")
    airflow.go(30)
    delta = Lane(source.engine(), database.schema(), "b1", after=first.plan["mark"])
    delta.into(database, "newer")
    engine = history.Engine("postgresql", database.connect(), writable=True)
    try:
        importing._stage_keys(engine, "dag_run", delta.columns, [delta.pieces], delta.fetch)
        tables = [*of_runs(delta.digests)]
        found = importing.verify(engine, tables, delta.columns, delta.plan["scope"], KEY, [], of_runs=True)
    finally:
        engine.connection.close()
    gone = what_is_gone(database, [first, delta])
    assert without(found, gone["lost"]) == of_runs(delta.digests)
    assert sum(entry[0] for entry in found["dag_run"].values()) == delta.plan["changes"]["dag_run"]


def test_what_nothing_touched_is_not_read_again(databases: Databases) -> None:
    source = OnPostgres(databases)
    airflow = MovingAirflow(source.sql, 5)
    airflow.go(80)
    schema = databases.new(TARGET).schema()
    first = Lane(source.engine(), schema)
    for statement in ("VACUUM FULL", "VACUUM FREEZE", "ANALYZE"):
        source.sql(statement)
    assert Lane(source.engine(), schema, after=first.plan["mark"]).plan["parts"] == []
    source.sql("UPDATE dag_run SET conf = conf WHERE id = (SELECT min(id) FROM dag_run WHERE state = 'success')")
    delta = Lane(source.engine(), schema, after=first.plan["mark"])
    assert delta.plan["changes"]["dag_run"] == 1
    assert sum(piece["rows"] for piece in delta.pieces) == sum(delta.plan["changes"].values())


def test_a_transaction_that_was_open_during_the_export_is_in_the_next(databases: Databases) -> None:
    source = OnPostgres(databases)
    airflow = MovingAirflow(source.sql, 6)
    airflow.go(40)
    schema = databases.new(TARGET).schema()
    late = source.database.connect()
    with late.cursor() as cursor:
        cursor.execute("INSERT INTO log (dag_id, event, dttm) VALUES ('etl', 'late', now())")
        airflow.log()
        first = Lane(source.engine(), schema)
        cursor.execute("UPDATE dag_run SET dag_hash = 'late' WHERE state IN ('success', 'failed')")
        late.commit()
    late.close()
    delta = Lane(source.engine(), schema, after=first.plan["mark"])
    assert delta.plan["changes"]["log"] >= 1
    assert delta.plan["changes"]["dag_run"] == source.sql("SELECT count(*) FROM dag_run WHERE dag_hash = 'late'")[0][0]


def test_numbers_that_came_round_are_told_from_those_since(databases: Databases) -> None:
    source = OnPostgres(databases)
    now = source.sql("SELECT txid_current()")[0][0]
    ages = {101: False, 100: True, 1: True, 0: True, 2**31 + 50: False, 2**31 - 50: False, -(2**20): False}
    numbers = {(now - age) % 2**32: changed for age, changed in ages.items()}
    condition = history._is_changed(source.engine(), "t", "log", {"xmin": (7 << 32) + now - 100})
    rows = source.sql(
        f"SELECT x, {condition} FROM (SELECT x::text::xid AS xmin, x FROM unnest(?::bigint[]) x) t", list(numbers)
    )
    assert dict(rows) == numbers
    # 1 and 2 are no numbers of transactions, 3 is the first: a mark there takes the last ones of the round before
    for mark in (0, 1, 2, 3):
        condition = history._is_changed(source.engine(), "t", "log", {"xmin": (7 << 32) + mark})
        assert source.sql(f"SELECT {condition} FROM (VALUES ('3'::xid), ('2')) t(xmin)") == [(True,), (False,)]


def test_another_database_asks_for_a_full_export(databases: Databases) -> None:
    schema = databases.new(TARGET).schema()
    first, second = OnPostgres(databases), OnPostgres(databases)
    mark = Lane(first.engine(), schema).plan["mark"]
    plan = Lane(second.engine(), schema, after=mark).plan
    assert not plan["delta"] and "another one" in plan["full_why"]
    ahead = Lane(first.engine(), schema, after={**mark, "xmin": mark["xmin"] + (1 << 20)}).plan
    assert not ahead["delta"] and "set back" in ahead["full_why"]


def test_runs_too_old_for_the_last_export_are_not_gone(databases: Databases) -> None:
    source, database = OnPostgres(databases), databases.new(TARGET)
    airflow = MovingAirflow(source.sql, 9)
    airflow.go(60)
    lanes = [Lane(source.engine(), database.schema(), "b0")]
    lanes[0].into(database, "newer")
    since = (airflow.clock - datetime.timedelta(minutes=10)).isoformat() + "Z"
    lanes.append(Lane(source.engine(), database.schema(), "b1", since=since))
    lanes[1].into(database, "newer")
    runs = [sum(rows for rows, _digest in lane.digests["dag_run"].values()) for lane in lanes]
    assert 0 < runs[1] < runs[0]
    found = what_is_gone(database, lanes)
    assert found["rows"] == {} and found["gone"] == {} and found["lost"] == {}


def test_floats_are_spelled_alike(databases: Databases) -> None:
    source = OnPostgres(databases)
    values = [float(2**53 + 2 * number) * 2.0**step for number in range(0, 4000, 37) for step in range(60)]
    values += [1.835669789678133e16, -1.835669789678133e16, 2.0**63, 2.0**100, 1e300, 9e15, 5e-324]
    source.sql("SET extra_float_digits = 1")
    for start in range(0, len(values), 1000):
        some = values[start : start + 1000]
        rows = source.sql("SELECT v::text FROM unnest(?::float8[]) WITH ORDINALITY x(v, n) ORDER BY n", some)
        assert [row[0] for row in rows] == [history.float_text(value) for value in some]


def test_sqlite_gives_the_number_of_a_deleted_run_to_the_next(databases: Databases) -> None:
    source, database = OnSqlite(databases), databases.new(TARGET)
    airflow = MovingAirflow(source.sql, 1)
    for _run in range(3):
        airflow.begin_run()
        airflow.end_run()
    first = Lane(source.engine(), database.schema(), "b0")
    first.into(database, "newer")
    last = source.sql("SELECT id, dag_id, run_id FROM dag_run ORDER BY id DESC LIMIT 1")[0]
    airflow.some_run = lambda _states="": last  # type: ignore[method-assign]
    airflow.delete_run()
    airflow.begin_run()
    assert source.sql("SELECT max(id) FROM dag_run") == [(last[0],)]
    del airflow.some_run
    airflow.end_run()
    delta = Lane(source.engine(), database.schema(), "b1", after=first.plan["mark"])
    assert delta.into(database, "newer")["listed"] == []
    assert database.sql("SELECT count(*) FROM dag_run") == "4"
    assert database.sql(
        "SELECT count(*) FROM xcom x JOIN dag_run r ON r.id = x.dag_run_id AND r.run_id = x.run_id"
    ) == (database.sql("SELECT count(*) FROM xcom"))


def test_what_moved_between_the_parts_of_one_export_comes_with_the_next(databases: Databases) -> None:
    """A resumed export reads its parts from several snapshots; each is younger than the plan."""
    source, database = OnPostgres(databases), databases.new(TARGET)
    airflow = MovingAirflow(source.sql, 21)
    airflow.go(60)
    first = Lane(Resumed(source, lambda: airflow.go(3)), database.schema(), "b0")
    first.into(database, "newer")
    delta = Lane(source.engine(), database.schema(), "b1", after=first.plan["mark"])
    assert delta.into(database, "newer")["listed"] == []
    found = what_is_gone(database, [first, delta])
    left = without(of_runs(first.read_back(database)), found["lost"], found["gone"], found["again"])
    assert left == of_runs(Lane(source.engine(), database.schema()).sent())


def test_runs_of_a_delta_keep_the_template_of_their_logs(databases: Databases) -> None:
    source, database = OnPostgres(databases), databases.new(TARGET)
    airflow = MovingAirflow(source.sql, 3)
    template = "INSERT INTO log_template (filename, elasticsearch_id, created_at) VALUES (?, 'e', now())"
    source.sql("DELETE FROM log_template")
    source.sql(template, "old/{{ ti.task_id }}")
    airflow.begin_run()
    source.sql("UPDATE dag_run SET log_template_id = (SELECT max(id) FROM log_template)")
    airflow.end_run()
    first = Lane(source.engine(), database.schema(), "b0")
    first.into(database, "newer")
    airflow.begin_run()
    source.sql("UPDATE dag_run SET log_template_id = (SELECT max(id) FROM log_template)")
    airflow.end_run()
    delta = Lane(source.engine(), database.schema(), "b1", after=first.plan["mark"])
    delta.into(database, "newer")
    named = database.sql("SELECT t.filename FROM dag_run r JOIN log_template t ON t.id = r.log_template_id")
    assert named.split("\n") == ["old/{{ ti.task_id }}"] * 2


@pytest.mark.slow
@pytest.mark.parametrize("version", ["1.10.12", "2.0.2", "2.2.2", "2.5.1"])
def test_older_tables_tell_what_was_written_since(databases: Databases, tmp_path: Any, version: str) -> None:
    source = Source(databases, version)
    airflow = SmallAirflow(version)
    fill(airflow)
    source.export(tmp_path, same_rows(airflow), texts=False)
    schema = databases.new(TARGET).schema()
    first = Lane(source.database.engine(), schema)
    assert Lane(source.database.engine(), schema, after=first.plan["mark"]).plan["parts"] == []
    link = "run_id" if version == "2.5.1" else "execution_date"
    run = f"SELECT min(r.id) FROM dag_run r JOIN xcom x USING (dag_id, {link}) WHERE r.state = 'success'"
    source.database.sql(
        f"UPDATE xcom SET value = '1' WHERE ({link}, dag_id) IN (SELECT {link}, dag_id FROM dag_run WHERE id = ({run}))"
    )
    delta = Lane(source.database.engine(), schema, after=first.plan["mark"])
    assert delta.plan["changes"]["dag_run"] == 1
    whole = Lane(source.database.engine(), schema)
    [dag] = delta.digests["dag_run"]
    for table in ("task_instance", "xcom", "rendered_task_instance_fields", "task_fail"):
        assert 0 < delta.digests[table][dag][0] < whole.digests[table][dag][0]
