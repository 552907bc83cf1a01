# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What other tools lose, double or change, one case each: from one PostgreSQL to another, and nothing of it here.

Both sides are compared twice: by the agent's digests and row by row by SQL that is none of the agent's.
"""

from __future__ import annotations

import json
import os
import pickle
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any, Callable

import pytest
from compare import contents, differences
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from import_lane import Database, Databases, Lane, importing
from small_airflow import history

pytestmark = pytest.mark.lab

EMPTY = r"'\x80047d942e'"
RUN_COLUMNS = """dag_id, run_id, execution_date, state, run_type, start_date, end_date, clear_number, conf,
  external_trigger"""
BASE = f"""
INSERT INTO dag (dag_id, is_paused, is_active, max_active_tasks, max_consecutive_failed_dag_runs,
  has_task_concurrency_limits)
  SELECT d, d = 'paused', true, 16, 0, false FROM unnest(ARRAY['etl', 'hourly', 'paused']) d;
INSERT INTO job (dag_id, state, job_type, hostname)
  SELECT NULL, 'success', 'SchedulerJob', 's' FROM generate_series(1, 3);
INSERT INTO job (dag_id, state, job_type, hostname)
  SELECT 'etl', 'success', 'LocalTaskJob', 'w' FROM generate_series(1, 12);
INSERT INTO dag_run ({RUN_COLUMNS}, creating_job_id)
  SELECT 'etl', 'scheduled__' || d, timestamptz '2024-01-01Z' + d * interval '1 day', 'success', 'scheduled',
    timestamptz '2024-01-02Z' + d * interval '1 day', timestamptz '2024-01-02Z' + d * interval '25 h', 0, {EMPTY},
    false, 1 + d % 3 FROM generate_series(1, 6) d;
INSERT INTO task_instance (dag_id, task_id, run_id, state, pool, pool_slots, try_number, start_date, end_date, duration,
  hostname, job_id, queued_by_job_id, executor_config)
  SELECT 'etl', t, run_id, 'success', 'default_pool', 1, 1, start_date, end_date, 0.1, 'w', 3 + r.id * 2 - n, 1,
    {EMPTY} FROM dag_run r, unnest(ARRAY['load', 'check']) WITH ORDINALITY AS u (t, n);
INSERT INTO xcom (dag_run_id, dag_id, task_id, run_id, map_index, key, value, timestamp)
  SELECT id, dag_id, 'load', run_id, -1, 'return_value', convert_to(id::text, 'UTF8'), end_date FROM dag_run;
INSERT INTO log (dttm, dag_id, task_id, run_id, event, owner, extra)
  SELECT end_date, dag_id, 'load', run_id, 'success', 'airflow', '{{}}' FROM dag_run;
"""


def task(name: str, columns: str = "", values: str = "", run: str = "r.dag_id = 'etl'") -> str:
    """A task instance in each run; columns begin with a comma."""
    return (
        f"INSERT INTO task_instance (dag_id, run_id, task_id, pool, pool_slots{columns})"
        f" SELECT r.dag_id, r.run_id, '{name}', 'p', 1{values} FROM dag_run r WHERE {run};"
    )


def xcom(key: str, value: str, task_id: str = "load", run: str = "dag_id = 'etl'") -> str:
    return (
        "INSERT INTO xcom (dag_run_id, dag_id, task_id, run_id, map_index, key, value, timestamp)"
        f" SELECT id, dag_id, '{task_id}', run_id, -1, {key}, {value}, now() FROM dag_run WHERE {run};"
    )


def run(run_id: str, state: str = "success", dag: str = "etl", kind: str = "manual", at: str = "'2025-01-01Z'") -> str:
    return (
        f"INSERT INTO dag_run ({RUN_COLUMNS}) VALUES ('{dag}', '{run_id}', {at}, '{state}', '{kind}', now(), now(), 0,"
        f" {EMPTY}, true);"
    )


TEXTS = r"""(ARRAY['', NULL, E'a\r\nb\rc\n', E'\\N', E'\\.', E'a\tb\\tc\\\\', 'ü漢🎉', '"q",|;', E'\x01\x7f', ' '])"""


@dataclass
class Case:
    """What lies at the source (and on the target) beside BASE; `listed` when not every row can arrive."""

    source: str
    target: str = ""
    look: Callable[[Seen], None] = lambda seen: None
    policy: str = "skip"
    listed: bool = False
    same: bool = True


@dataclass
class Seen:
    lane: Lane
    answer: dict[str, Any]
    source: Database
    target: Database

    def both(self, statement: str) -> str:
        """The same answer on both sides, and not an empty one."""
        there = self.target.sql(statement)
        assert self.source.sql(statement) == there != ""
        return there


def no_flight(seen: Seen) -> None:
    assert seen.target.sql("SELECT count(*) FROM dag_run WHERE state NOT IN ('success', 'failed')") == "0"
    assert seen.target.sql("SELECT count(*) FROM task_instance WHERE state IN ('running', 'queued')") == "0"
    named = {(one["run_id"], one["state"]) for one in seen.lane.plan["open"]}
    assert named == {("at_work", "running"), ("waits", "queued"), ("half", "success")}


def deferred(seen: Seen) -> None:
    assert len(seen.lane.plan["deferred"]) == 6
    assert seen.target.sql("SELECT count(*), count(trigger_id) FROM task_instance WHERE state = 'deferred'") == "6|0"


def own_ids(seen: Seen) -> None:
    """The target had runs of its own under the numbers that the source's runs have."""
    wrong = "SELECT count(*) FROM xcom x LEFT JOIN dag_run r ON r.id = x.dag_run_id WHERE r.run_id <> x.run_id"
    assert seen.target.sql(wrong) == "0"
    assert seen.target.sql("SELECT count(*) FROM dag_run WHERE dag_id = 'native' AND id > 0") == "10"


def next_number(seen: Seen) -> None:
    """What the target makes next meets nothing that arrived."""
    for table in ("dag_run", "job", "log", "task_fail", "dataset"):
        latest = seen.target.sql(f"SELECT coalesce(max(id), 0) FROM {table} WHERE id > 0")
        assert latest == "0" or table == "log", table
    seen.target.sql(run("of_target", at="'2026-01-01Z'"))
    assert seen.target.sql("SELECT id > 0 FROM dag_run WHERE run_id = 'of_target'") == "t"


def again(seen: Seen) -> None:
    """A second and a third import, and one of another bundle of the same rows."""
    before = contents(seen.target.connect(), source=False)
    for name in ("b1", "b1", "b2"):
        lane = Lane(seen.source.engine(), seen.target.schema(), name)
        lane.into(seen.target)
    assert differences(before, contents(seen.target.connect(), source=False)) == {}


def newer_over_older(seen: Seen) -> None:
    """New rows mixed with old ones: all of the new arrive."""
    seen.source.sql(
        run("new one")
        + task("new", run="true")
        + xcom("'new'", "'1'", "new", run="true")
        + "INSERT INTO log (event, dttm)"
        " SELECT 'new', now() FROM generate_series(1, 50);"
    )
    Lane(seen.source.engine(), seen.target.schema(), "b2").into(seen.target)
    same(seen.source, seen.target)


def failed_before(seen: Seen) -> None:
    """The first import of these rows ended at a piece that was no good."""
    database = Database(seen.target.server, f"{seen.target.name}-failed", seen.target.version)
    seen.target.server.copy("template-2.10.3", database.name)
    lane = Lane(seen.source.engine(), seen.target.schema(), "b1", part_bytes=1 << 12)
    bad = next(piece for piece in lane.pieces if piece["table"] == "xcom")
    whole, lane.bodies[bad["sha256"]] = lane.bodies[bad["sha256"]], b"broken"
    with pytest.raises(history.Unfit, match="a piece of xcom"):
        lane.into(database)
    lane.bodies[bad["sha256"]] = whole
    assert lane.into(database)["listed"] == []
    same(seen.source, database)


def paused(seen: Seen) -> None:
    """Of the source's 180 of 181 unpaused DAGs, all but none are known as such afterwards."""
    rows = [
        line
        for piece in seen.lane.pieces
        if piece["table"] == "dag"
        for line in history.zlib.decompress(seen.lane.fetch(piece), 31).decode().split("\n")[:-1]
    ]
    assert sorted(rows) == ["etl\tf", "hourly\tf", "paused\tt"]


def tool_rows(seen: Seen) -> None:
    for table in ("dag_run", "task_instance", "task_fail", "xcom"):
        assert seen.target.sql(f"SELECT count(*) FROM {table} WHERE dag_id = 'db_export'") == "0"
        assert seen.source.sql(f"SELECT count(*) > 0 FROM {table} WHERE dag_id = 'db_export'") == "t"


def hourly(seen: Seen) -> None:
    runs = "SELECT count(*), count(DISTINCT execution_date) FROM dag_run WHERE dag_id = 'hourly'"
    assert seen.both(runs) == "400|400"


def kinds(seen: Seen) -> None:
    found = seen.both("SELECT run_type, count(*) FROM dag_run GROUP BY 1 ORDER BY 1").split()
    assert found == ["backfill|1", "dataset_triggered|1", "manual|1", "scheduled|6"]


def jobs(seen: Seen) -> None:
    seen.both("SELECT r.run_id, j.job_type FROM dag_run r JOIN job j ON j.id = r.creating_job_id ORDER BY 1")
    assert (
        len(
            seen.both(
                "SELECT t.run_id, t.task_id, abs(j.id), abs(q.id) FROM task_instance t JOIN job j ON j.id = t.job_id"
                " JOIN job q ON q.id = t.queued_by_job_id ORDER BY 1, 2"
            ).split()
        )
        == 12
    )


def fails_with_its_rows(seen: Seen) -> None:
    assert {one["table"] for one in seen.answer["listed"]} == {"dag_run", "task_instance", "xcom"}
    assert seen.target.sql("SELECT count(*) FROM dag_run") == "6"


CASES: dict[str, Case] = {
    "empty strings are not NULL, and NULL is no empty string": Case(
        task("texts", ", queue, operator, hostname, external_executor_id, unixname", ", '', NULL, '', NULL, ''")
        + "UPDATE dag_run SET dag_hash = CASE WHEN id % 2 = 0 THEN '' END;"
        "UPDATE log SET owner = '', extra = NULL WHERE id % 2 = 0; UPDATE log SET extra = '' WHERE id % 2 = 1;",
        look=lambda seen: seen.both("SELECT count(*) FROM log WHERE extra = ''") and None,
    ),
    "deferred task instances with their triggers": Case(
        "INSERT INTO trigger (id, classpath, kwargs, created_date) VALUES (7, 'a.B', '{}', now());"
        + task("waits", ", state, trigger_id, trigger_timeout, next_method", ", 'deferred', 7, now(), 'resume'"),
        look=deferred,
    ),
    "next_kwargs is JSON and stays it": Case(
        task("json", ", next_kwargs", r""", '{"__type": "dict", "b" :{"a": "it''s\nNone", "n": 1e5}}'""")
    ),
    "task instances without a state": Case(
        task("cleared", ", state", ", NULL") + xcom("'k'", "'1'", "cleared"),
        look=lambda seen: seen.both("SELECT count(*) FROM task_instance WHERE state IS NULL") and None,
    ),
    "cleared task instances with their fails and XComs": Case(
        task("cleared", ", try_number", ", 0")
        + xcom("'k'", "'1'", "cleared")
        + "INSERT INTO task_fail (dag_id, task_id, run_id, map_index, duration)"
        " SELECT dag_id, 'cleared', run_id, -1, n FROM dag_run, generate_series(1, 3) n;"
    ),
    "multi-line extras over the bounds of pieces": Case(
        "INSERT INTO log (dttm, event, extra) SELECT now(), 'e', E'one\\n\"two\\r\\n' || repeat(E'x\\n', n % 90)"
        " FROM generate_series(1, 6000) n;"
    ),
    "CRLF, tabs, backslashes, quotes and control characters": Case(
        "INSERT INTO log (dttm, event, owner, extra)"
        f" SELECT now(), 'e', {TEXTS}[1 + n % 10], {TEXTS}[1 + n / 10] FROM generate_series(0, 99) n;"
        + task("texts", ", hostname", f", {TEXTS}[1 + r.id % 10]")
    ),
    r"\N and \. as text": Case(
        task(r"\N", ", hostname, operator", r", '\N', '\.'")
        + xcom(r"'\N'", r"convert_to('\N', 'UTF8')", r"\N")
        + run(r"\N", at="'2025-02-01Z'")
        + run(r"\.", at="'2025-02-02Z'")
    ),
    "XComs of 10 MB": Case(
        xcom(r"'large'", r"convert_to(repeat(E'0123456\\', 1310720), 'UTF8')", run="run_id = 'scheduled__1'")
        + xcom(r"'large'", r"decode(repeat('00ff5c0a', 2621440), 'hex')", run="run_id = 'scheduled__2'"),
        look=lambda seen: seen.both("SELECT sum(length(value)) FROM xcom WHERE key = 'large'") and None,
    ),
    "NaN and infinities": Case(
        task("nan", ", duration", ", (ARRAY['NaN', 'Infinity', '-Infinity', '-0', '5e-324']::float8[])[1 + r.id % 5]")
        + xcom("'nan'", """'{"a": NaN, "b": [Infinity, -Infinity]}'""")
        + r"UPDATE dag_run SET conf = '\x80047d948c016e94477ff8000000000000732e' WHERE id % 2 = 0;"
    ),
    "rows that the target has already": Case(
        run("mine", at="'2025-03-01Z'"),
        BASE + "DELETE FROM task_instance WHERE run_id IN ('scheduled__5', 'scheduled__6') AND task_id = 'check';"
        "DELETE FROM dag_run WHERE run_id = 'scheduled__3'; DELETE FROM log; DELETE FROM job;"
        "UPDATE task_instance SET job_id = NULL, queued_by_job_id = NULL; UPDATE dag_run SET creating_job_id = NULL",
        policy="overwrite",
    ),
    "runs of the target under the numbers of the source's": Case(
        "",
        f"INSERT INTO dag_run ({RUN_COLUMNS}) SELECT 'native', 'n' || n,"
        f" timestamptz '2024-01-01Z' + n * interval '1 d', 'success', 'scheduled', now(), now(), 0, {EMPTY}, false"
        " FROM generate_series(1, 10) n",
        look=own_ids,
        same=False,
    ),
    "what the target makes next": Case("", look=next_number, same=False),
    "another run has the date": Case(
        "",
        run("of_target", at="'2024-01-03Z'"),
        look=fails_with_its_rows,
        listed=True,
        same=False,
    ),
    "hourly DAGs over two changes of the clock": Case(
        f"INSERT INTO dag_run ({RUN_COLUMNS}, data_interval_start, data_interval_end)"
        " SELECT 'hourly', 'scheduled__' || to_char(at AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS+00:00'), at,"
        f" 'success', 'scheduled', at, at, 0, {EMPTY}, false, at, at + interval '1 h' FROM (SELECT"
        " timestamptz '2024-03-30 20:00Z' + n * interval '1 h' + n / 200 * interval '208 d' AS at"
        " FROM generate_series(0, 399) n) x;" + task("t", run="dag_id = 'hourly'"),
        look=hourly,
    ),
    "data intervals that no timetable could guess": Case(
        "UPDATE dag_run SET data_interval_start = execution_date - id * interval '1.000001 s',"
        " data_interval_end = execution_date + id * interval '77 h', last_scheduling_decision = 'infinity';"
    ),
    "mapped tasks": Case(
        "INSERT INTO task_instance (dag_id, run_id, task_id, map_index, pool, pool_slots, rendered_map_index)"
        " SELECT dag_id, run_id, 'mapped', n, 'p', 1, 'no ' || n FROM dag_run, generate_series(0, 40) n;"
        "INSERT INTO xcom (dag_run_id, dag_id, task_id, run_id, map_index, key, value, timestamp)"
        " SELECT id, dag_id, 'mapped', run_id, n, 'k', '1', now() FROM dag_run, generate_series(0, 40) n;"
        "INSERT INTO task_map (dag_id, run_id, task_id, map_index, length, keys)"
        """ SELECT dag_id, run_id, 'load', -1, 41, '["ü", 1.0]' FROM dag_run;"""
        "INSERT INTO log (dttm, dag_id, task_id, run_id, map_index, event, try_number)"
        " SELECT now(), dag_id, 'mapped', run_id, n, 'running', 2 FROM dag_run, generate_series(0, 40) n;"
    ),
    "unicode ids, and ids of 250 characters": Case(
        run("manual__ü 漢🎉", dag="dag_ünï", at="'2025-05-01Z'")
        + run("r" * 250, dag="漢" * 250, at="'2025-05-02Z'")
        + task("🎉" * 250, run="true")
        + xcom("repeat('é', 200)", "'1'", "🎉" * 250, run="true")
    ),
    "a failed former import": Case("", look=failed_before),
    "the same import again": Case("", look=again),
    "a newer export over an older one": Case("", look=newer_over_older, same=False),
    "runs in flight, and XComs of their tasks": Case(
        run("at_work", "running", at="'2025-06-01Z'")
        + run("waits", "queued", at="'2025-06-02Z'")
        + run("half", at="'2025-06-03Z'")
        + task("t", ", state", ", CASE r.run_id WHEN 'half' THEN 'running' ELSE 'success' END", run="r.id > 6")
        + xcom("'k'", "'1'", "t", run="id > 6"),
        look=no_flight,
    ),
    "rows of a migration tool's own DAGs": Case(
        run("manual__1", "failed", dag="db_export", at="'2025-07-01Z'")
        + task("export", ", state", ", 'failed'", run="dag_id = 'db_export'")
        + xcom("'k'", "'1'", "export", run="dag_id = 'db_export'")
        + "INSERT INTO task_fail (dag_id, task_id, run_id, map_index)"
        " SELECT dag_id, 'export', run_id, -1 FROM dag_run WHERE dag_id = 'db_export';",
        look=tool_rows,
        same=False,
    ),
    "kinds of runs": Case(
        run("m", at="'2025-08-01Z'")
        + run("b", kind="backfill", at="'2025-08-02Z'")
        + run("d", kind="dataset_triggered", at="'2025-08-03Z'"),
        look=kinds,
    ),
    "jobs are who started what": Case("", look=jobs),
    "pause states of every DAG": Case("", look=paused),
    "conf and executor_config with content": Case(
        "UPDATE dag_run SET conf = decode('{}', 'hex');".format(
            pickle.dumps({"ü": [1, (2, 3)], "n": None, "b": b"\0\xff", "s": "\\N\t"}).hex()
        )
        + "UPDATE task_instance SET executor_config = decode('{}', 'hex');".format(
            pickle.dumps({"KubernetesExecutor": {"image": "a\nb"}}, protocol=2).hex()
        )
    ),
    "the tables that other tools do not carry": Case(
        "INSERT INTO rendered_task_instance_fields (dag_id, task_id, run_id, map_index, rendered_fields, k8s_pod_yaml)"
        """ SELECT dag_id, 'load', run_id, -1, '{"cmd":  "a\\nü", "b" : [1.0,1e5]}', '{"x": null}' FROM dag_run;"""
        "INSERT INTO task_reschedule (dag_id, task_id, run_id, map_index, try_number, start_date, end_date, duration,"
        " reschedule_date) SELECT dag_id, 'load', run_id, -1, n, now(), now(), 3, now() FROM dag_run,"
        " generate_series(1, 3) n;"
        "INSERT INTO task_instance_history (dag_id, task_id, run_id, map_index, try_number, state, pool, pool_slots)"
        " SELECT dag_id, 'load', run_id, -1, n, 'failed', 'p', 1 FROM dag_run, generate_series(1, 3) n;"
        "INSERT INTO dag_run_note (dag_run_id, content, created_at, updated_at)"
        r" SELECT id, E'seen\nü\\', now(), now() FROM dag_run;"
        "INSERT INTO task_instance_note (dag_id, task_id, run_id, map_index, content, created_at, updated_at)"
        " SELECT dag_id, 'load', run_id, -1, '', now(), now() FROM dag_run;"
        "INSERT INTO sla_miss (dag_id, task_id, execution_date, email_sent, timestamp, description)"
        " SELECT dag_id, 'load', execution_date, true, now(), E'a\\r\\n' FROM dag_run;"
        "INSERT INTO dataset (uri, extra, created_at, updated_at, is_orphaned)"
        " SELECT 's3://bucket/ü/' || n, '{}', now(), now(), n = 2 FROM generate_series(1, 3) n;"
        "INSERT INTO dataset_event (dataset_id, extra, source_task_id, source_dag_id, source_run_id, timestamp)"
        """ SELECT 1 + id % 3, '{"a":1}', 'load', dag_id, run_id, end_date FROM dag_run;"""
        "INSERT INTO dagrun_dataset_event (dag_run_id, event_id) SELECT id, id FROM dag_run;"
    ),
}


def same(source: Database, target: Database) -> None:
    assert differences(contents(source.connect(), source=True), contents(target.connect(), source=False)) == {}


@pytest.mark.parametrize("name", CASES)
def test_zero_rows_lost_changed_or_doubled(databases: Databases, name: str) -> None:
    case = CASES[name]
    source, target = databases.new("2.10.3"), databases.new("2.11.2")
    source.sql(BASE + case.source)
    target.sql(case.target)
    lane = Lane(source.engine(), target.schema())
    answer = lane.into(target, case.policy)
    assert answer["left"] == answer["lacking"] == [] and bool(answer["listed"]) == case.listed
    case.look(Seen(lane, answer, source, target))
    if case.same:
        same(source, target)
        assert lane.read_back(target) == lane.sent()


# ------------------------------------------------------------------------------------- any value in any column

TEXT = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0"), max_size=30)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "character varying": TEXT,
    "text": TEXT,
    "integer": st.integers(-(2**31), 2**31 - 1),
    "boolean": st.booleans(),
    "double precision": st.floats(width=64),
    "timestamp with time zone": st.datetimes(
        datetime(1, 1, 2), datetime(9999, 12, 30), timezones=st.just(timezone.utc)
    ),
    "json": JSON.map(lambda value: json.dumps(value, ensure_ascii=False)),
    "bytea": st.binary(max_size=40).filter(lambda data: data[:1] != b"\x80"),
}
PICKLES = JSON.map(lambda value: pickle.dumps({"": value}, protocol=4))
# what a row is found by, and what says that a run is over, is not for chance
FIXED = [
    "dag_id",
    "task_id",
    "run_id",
    "map_index",
    "try_number",
    "execution_date",
    "state",
    "dag_run_id",
    "id",
    "dataset_id",
    "event_id",
    "source_dag_id",
    "job_id",
    "queued_by_job_id",
    "creating_job_id",
    "log_template_id",
    "user_id",
    "trigger_id",
    "trigger_timeout",
    "is_active",
]
FILLED = [
    "job",
    "dag_run",
    "task_instance",
    "task_instance_history",
    "task_fail",
    "xcom",
    "rendered_task_instance_fields",
    "task_reschedule",
    "task_map",
    "task_instance_note",
    "dag_run_note",
    "sla_miss",
    "log",
    "dataset",
    "dataset_event",
]


@pytest.fixture(scope="module")
def two(databases: Databases) -> tuple[Database, Database]:
    return databases.new("2.10.3"), databases.new("2.11.2")


def columns_of(database: Database) -> dict[str, list[tuple[str, str, int | None, bool]]]:
    """{table: [(column, type, length, whether it may be NULL)]} of what chance may fill."""
    found: dict[str, list[tuple[str, str, int | None, bool]]] = {}
    with database.connect() as connection, connection.cursor() as cursor:
        cursor.execute(
            "SELECT table_name, column_name, data_type, character_maximum_length, is_nullable = 'YES'"
            " FROM information_schema.columns WHERE table_schema = 'public' ORDER BY 1, 2"
        )
        for table, *column in cursor.fetchall():
            if table in FILLED and column[0] not in FIXED:
                found.setdefault(table, []).append(tuple(column))  # type: ignore[arg-type]
    return found


def value_of(data: st.DataObject, column: str, kind: str, length: int | None, nullable: bool) -> Any:
    strategy = PICKLES if column in ("conf", "executor_config") else VALUES[kind]
    value = data.draw(st.none() | strategy if nullable else strategy, label=column)
    if column == "length":
        return abs(value) // 2  # the only column with a check
    return value[:length] if length and isinstance(value, str) else value


def keys(table: str, number: int) -> dict[str, Any]:
    """What the row of this number is found by."""
    at = datetime(2024, 1, 1, tzinfo=timezone.utc) + timedelta(hours=number)
    if table == "job":
        return {"id": number}
    if table == "dataset":
        return {"id": number, "uri": f"s3://{number}"}
    if table == "dataset_event":
        return {"id": number, "dataset_id": number, "source_dag_id": "etl"}
    if table == "log":
        return {"id": number, "dag_id": "etl" if number % 2 else None}
    if table == "sla_miss":
        return {"dag_id": "etl", "task_id": "load", "execution_date": at}
    if table == "dag_run_note":
        return {"dag_run_id": number}
    found = {"dag_id": "etl", "run_id": f"run {number}"}
    if table == "dag_run":
        return {**found, "id": number, "execution_date": at, "state": "failed", "creating_job_id": number}
    found = {**found, "task_id": "load", "map_index": -1}
    more = {
        "task_instance": {"state": "success", "try_number": 1, "job_id": number},
        "task_instance_history": {"id": number, "try_number": 1, "state": "x"},
        "task_fail": {"id": number},
        "task_reschedule": {"id": number, "try_number": 1},
        "xcom": {"dag_run_id": number},
    }
    return {**found, **more.get(table, {})}


SHRINK_NOT = [phase for phase in Phase if phase.name not in ("shrink", "explain")]


@settings(max_examples=6, deadline=None, suppress_health_check=list(HealthCheck), phases=SHRINK_NOT)
@given(data=st.data(), rows=st.integers(1, 3), rebuild=st.booleans())
def test_any_value_in_any_column_of_any_table(
    two: tuple[Database, Database], data: st.DataObject, rows: int, rebuild: bool
) -> None:
    source, target = two
    for database in two:
        database.sql(f"TRUNCATE {', '.join(FILLED)} CASCADE; DROP TABLE IF EXISTS mwaa_migration_ledger")
    with source.connect() as connection, connection.cursor() as cursor:
        for table, columns in sorted(columns_of(source).items(), key=lambda one: FILLED.index(one[0])):
            for number in range(1, rows + 1):
                row = {**{one[0]: value_of(data, *one) for one in columns}, **keys(table, number)}
                names = ", ".join(f'"{name}"' for name in row)
                marks = ", ".join(["%s"] * len(row))
                cursor.execute(f'INSERT INTO "{table}" ({names}) VALUES ({marks})', list(row.values()))
    lane = Lane(source.engine(), target.schema())
    if rebuild:
        importing.drop_indexes(target.target(), lane.columns)
    answer = lane.into(target)
    importing.finish(target.connect, lane.columns)
    assert answer["listed"] == answer["lacking"] == []
    same(source, target)
    assert lane.read_back(target) == lane.sent()


# ------------------------------------------------------------------------------------------------- malicious pickles


class Evil:
    def __init__(self, *call: Any):
        self.call = call

    def __reduce__(self) -> Any:
        return self.call[0], tuple(self.call[1:])


HOSTILE = {
    "scheduled__1": (lambda marker: pickle.dumps({"k": Evil(os.system, f"touch {marker}")}), "it calls posix.system"),
    "scheduled__2": (lambda _marker: b"\x80\x04" + b"]" * 100000 + b"a" * 99999 + b".", "nested more than 100 deep"),
    "scheduled__3": (lambda _marker: b"\x80\x04" + b"N" * (17 << 20) + b".", "more than 16 MB"),
    "scheduled__4": (lambda _marker: pickle.dumps(["x" * 1000000] * 100), "more than 16 MB"),
    "scheduled__5": (lambda _marker: b"\x80\x04\x8e\xff\xff\xff\xff\xff\xff\xff\x7f.", "broken"),
}
COLUMNS = {
    "conf": "UPDATE dag_run SET conf = %s WHERE run_id = %s",
    "executor_config": "UPDATE task_instance SET executor_config = %s WHERE task_id = 'load' AND run_id = %s",
    "value": "UPDATE xcom SET value = %s WHERE run_id = %s",
    "executor_config of a former try": "INSERT INTO task_instance_history (executor_config, run_id, dag_id, task_id,"
    " map_index, try_number, pool, pool_slots) VALUES (%s, %s, 'etl', 'load', -1, 1, 'p', 1)",
}


@pytest.mark.parametrize("column", COLUMNS)
def test_hostile_pickles_are_never_run_and_listed(databases: Databases, column: str, tmp_path: Path) -> None:
    source, target = databases.new("2.10.3"), databases.new("2.11.2")
    source.sql(BASE)
    marker = tmp_path / "marker"
    with source.connect() as connection, connection.cursor() as cursor:
        for run_id, (make, _reason) in HOSTILE.items():
            cursor.execute(COLUMNS[column], (make(marker), run_id))
    lane = Lane(source.engine(), target.schema())
    assert lane.into(target)["listed"] == []
    assert lane.read_back(target) == lane.sent()
    assert not marker.exists()
    listed = {fault["key"]["run_id"]: fault["what"] for fault in lane.faults}
    assert set(listed) == set(HOSTILE)
    for run_id, (_make, reason) in HOSTILE.items():
        assert reason in listed[run_id], run_id
    counted = "SELECT (SELECT count(*) FROM dag_run), (SELECT count(*) FROM task_instance), (SELECT count(*) FROM xcom)"
    assert target.sql(counted) == "6|12|6"  # the rows themselves all arrive
    if column in ("conf", "value"):
        table = {"conf": "dag_run", "value": "xcom"}[column]
        assert target.sql(f"SELECT string_agg(run_id, ' ') FROM {table} WHERE {column} IS NOT NULL") == "scheduled__6"
