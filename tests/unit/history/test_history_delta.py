# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Deltas of an Airflow in SQLite: every kind of change since the last export, and what is gone."""

from __future__ import annotations

import copy
import datetime
import json
from typing import Any

import pytest
from small_airflow import SCHEMAS, Export, SmallAirflow, history, moment

LONG_AGO = "2024-06-01T00:00:00Z"  # all that `filled` makes is older
LATER = "2024-07-01 00:00:00.000000"


def filled(version: str = "2.10.3") -> SmallAirflow:
    airflow = SmallAirflow(version)
    for dag in ("etl", "report"):
        airflow.insert("dag", dag_id=dag, is_paused=0)
        for day in range(1, 6):
            airflow.run(dag, day)
            for task in ("extract", "load"):
                airflow.task(dag, task, day, start_date=moment(day), end_date=moment(day))
                airflow.xcom(dag, task, "return_value", b'"x"', day)
                airflow.of_task("rendered_task_instance_fields", dag, task, day, rendered_fields="{}")
            airflow.insert("log", dag_id=dag, dttm=moment(day), event="e")
    return airflow


def marked(airflow: SmallAirflow, **options: Any) -> dict[str, Any]:
    mark = history.make_plan(airflow.engine(), **options)["mark"]
    return {**json.loads(json.dumps(mark)), "at": LONG_AGO}


def change(airflow: SmallAirflow, sql: str, *values: Any) -> None:
    airflow.connection.execute(sql, values)
    airflow.connection.commit()


def carried(delta: Export) -> dict[str, set[str | None]]:
    """{table: what of it}: runs for those that belong to one."""
    return {
        table: {row.get("run_id") or row.get("id") or row.get("dag_id") for row in delta.rows(table)}
        for table in delta.texts
    }


def run_of(day: int) -> str:
    return f"scheduled__{moment(day).replace(' ', 'T')}"


@pytest.mark.parametrize("version", ["1.10.12", "2.0.2", "2.2.2", "2.5.1", "2.10.3"])
def test_where_nothing_happened_nothing_is_carried(version: str) -> None:
    airflow = filled(version)
    delta = Export(airflow.engine(), after=marked(airflow))
    assert delta.plan["delta"] and delta.plan["full_why"] is None
    assert delta.plan["parts"] == [] and delta.plan["changes"] == {}
    assert delta.plan["deleted"] == {"tables": {}, "rows": {}, "more": 0}


def test_a_first_plan_is_no_delta() -> None:
    plan = history.make_plan(filled().engine())
    assert not plan["delta"] and plan["full_why"] is None and plan["mark"] and plan["changes"] == {}


@pytest.mark.parametrize("version", ["1.10.12", "2.0.2", "2.2.2", "2.5.1", "2.10.3"])
def test_a_run_that_ended_comes_with_all_that_it_has(version: str) -> None:
    airflow = filled(version)
    airflow.run("etl", 6, "running")
    airflow.task("etl", "load", 6, "running", start_date=moment(6))
    airflow.xcom("etl", "load", "k", b"1", 6)
    mark = marked(airflow)
    change(airflow, "UPDATE dag_run SET state = 'success' WHERE state = 'running'")
    change(airflow, "UPDATE task_instance SET state = 'success' WHERE state = 'running'")
    found = carried(Export(airflow.engine(), after=mark))
    assert found == {name: {run_of(6)} for name in ("dag_run", "task_instance", "xcom")}


TOUCHES = {
    "a task was cleared and ended again": (
        "UPDATE task_instance SET start_date = :at, end_date = :at, try_number = 2 WHERE dag_id = 'etl'"
        " AND execution_date = :day AND task_id = 'load'"
    ),
    "the run was set to failed": (
        "UPDATE dag_run SET state = 'failed', end_date = :at WHERE dag_id = 'etl' AND execution_date = :day"
    ),
    "an xcom was pushed again": (
        "UPDATE xcom SET value = 'new', timestamp = :at WHERE dag_id = 'etl' AND execution_date = :day"
    ),
    "an xcom was pulled out": ("DELETE FROM xcom WHERE dag_id = 'etl' AND execution_date = :day AND task_id = 'load'"),
    "a task came": (
        "INSERT INTO task_instance (dag_id, execution_date, task_id, state) VALUES ('etl', :day, 'late', 'success')"
    ),
}


@pytest.mark.parametrize("what", TOUCHES)
def test_what_was_touched_is_carried_whole(what: str) -> None:
    airflow = filled("1.10.12")
    mark = marked(airflow)
    airflow.connection.execute(TOUCHES[what], {"at": LATER, "day": moment(3)})
    delta = Export(airflow.engine(), after=mark)
    assert {(row["dag_id"], row["run_id"]) for row in delta.rows("dag_run")} == {("etl", run_of(3))}
    whole = Export(airflow.engine())
    for table in ("task_instance", "xcom", "rendered_task_instance_fields"):
        mine = [row for row in whole.rows(table) if (row["dag_id"], row["run_id"]) == ("etl", run_of(3))]
        assert delta.rows(table) == mine
    assert "log" not in delta.texts


def test_a_note_that_was_edited_touches_its_run() -> None:
    airflow = filled()
    run = airflow.connection.execute("SELECT id FROM dag_run WHERE dag_id = 'report'").fetchone()[0]
    airflow.insert("dag_run_note", dag_run_id=run, content="a", created_at=moment(1), updated_at=moment(1))
    mark = marked(airflow)
    change(airflow, "UPDATE dag_run_note SET content = 'b', updated_at = ?", LATER)
    delta = Export(airflow.engine(), after=mark)
    assert [row["content"] for row in delta.rows("dag_run_note")] == ["b"]
    assert [row["run_id"] for row in delta.rows("dag_run")] == [run_of(1)]


def test_new_dags_and_runs_and_pauses_come() -> None:
    airflow = filled()
    mark = marked(airflow)
    airflow.insert("dag", dag_id="fresh", is_paused=1)
    airflow.run("fresh", 7)
    airflow.task("fresh", "load", 7)
    change(airflow, "UPDATE dag SET is_paused = 1 WHERE dag_id = 'etl'")
    airflow.insert("log", dag_id="fresh", dttm=LATER, event="new")
    airflow.insert("job", dag_id="fresh", state="success", latest_heartbeat=LATER)
    delta = Export(airflow.engine(), after=mark)
    assert {row["dag_id"]: row["is_paused"] for row in delta.rows("dag")} == {"etl": "t", "report": "f", "fresh": "t"}
    assert [row["dag_id"] for row in delta.rows("dag_run")] == ["fresh"]
    assert [row["event"] for row in delta.rows("log")] == ["new"]
    assert len(delta.rows("job")) == 1
    changes = {"dag": 3, "dag_run": 1, "task_instance": 1, "log": 1, "job": 1}
    assert delta.plan["changes"] == changes


def test_runs_come_with_the_templates_that_they_refer_to() -> None:
    airflow = filled()
    airflow.insert("log_template", filename="a", elasticsearch_id="b", created_at=moment(1))
    mark = marked(airflow)
    assert Export(airflow.engine(), after=mark).plan["parts"] == []
    airflow.run("etl", 7, log_template_id=1)
    delta = Export(airflow.engine(), after=mark)
    assert [row["id"] for row in delta.rows("log_template")] == ["-1"]
    assert [row["log_template_id"] for row in delta.rows("dag_run")] == ["-1"]


def test_a_job_that_ended_without_a_heartbeat_comes() -> None:
    airflow = filled()
    running = airflow.insert("job", dag_id="etl", state="running", latest_heartbeat=moment(1))
    mark = marked(airflow)
    change(airflow, "UPDATE job SET state = 'failed'")
    assert [row["id"] for row in Export(airflow.engine(), after=mark).rows("job")] == [f"-{running}"]


def test_a_run_that_goes_again_is_listed_and_waits_until_it_ended() -> None:
    airflow = filled()
    first = marked(airflow)
    change(airflow, "UPDATE dag_run SET state = 'queued' WHERE dag_id = 'etl' AND execution_date = ?", moment(2))
    change(
        airflow,
        "UPDATE task_instance SET state = NULL WHERE dag_id = 'etl' AND run_id = ? AND task_id = 'load'",
        run_of(2),
    )
    change(airflow, "DELETE FROM xcom WHERE dag_id = 'etl' AND run_id = ? AND task_id = 'load'", run_of(2))
    delta = Export(airflow.engine(), after=first)
    assert delta.plan["parts"] == []
    assert [(one["run_id"], one["again"]) for one in delta.plan["open"]] == [(run_of(2), True)]
    second = {**delta.plan["mark"], "at": LONG_AGO}
    change(airflow, "UPDATE dag_run SET state = 'success'")
    change(airflow, "UPDATE task_instance SET state = 'success'")
    delta = Export(airflow.engine(), after=second)
    assert [row["run_id"] for row in delta.rows("dag_run")] == [run_of(2)]
    assert len(delta.rows("task_instance")) == 2 and len(delta.rows("xcom")) == 1


def test_one_that_never_was_carried_is_open_for_the_first_time_each_time() -> None:
    airflow = filled()
    airflow.run("etl", 6, "running")
    mark = marked(airflow)
    for _time in range(2):
        plan = history.make_plan(airflow.engine(), after=mark)
        assert [one.get("again") for one in plan["open"]] == [None]
        mark = plan["mark"]
    change(airflow, "DELETE FROM dag_run WHERE state = 'running'")
    assert history.make_plan(airflow.engine(), after=mark)["deleted"]["rows"] == {}


def test_runs_that_are_gone_are_listed() -> None:
    airflow = filled()
    mark = marked(airflow)
    for table in ("dag_run", "task_instance", "xcom", "rendered_task_instance_fields"):
        where = "execution_date" if table == "dag_run" else "run_id"
        change(
            airflow,
            f"DELETE FROM {table} WHERE dag_id = 'etl' AND {where} = ?",
            moment(2) if table == "dag_run" else run_of(2),
        )
    plan = history.make_plan(airflow.engine(), after=mark)
    assert plan["deleted"] == {"tables": {"dag_run": [{"id": 2}]}, "rows": {"dag_run": 1}, "more": 0}
    assert plan["parts"] == []


def test_a_table_that_a_run_lost_is_listed_and_a_part_of_it_carries_the_run_again() -> None:
    airflow = filled()
    mark = marked(airflow)
    change(airflow, "DELETE FROM rendered_task_instance_fields WHERE dag_id = 'etl' AND run_id = ?", run_of(1))
    change(airflow, "DELETE FROM task_instance WHERE dag_id = 'etl' AND run_id = ? AND task_id = 'load'", run_of(4))
    delta = Export(airflow.engine(), after=mark)
    assert delta.plan["deleted"]["tables"] == {
        "rendered_task_instance_fields": [{"dag_id": "etl", "run_id": run_of(1), "rows": 2}],
        "task_instance": [{"dag_id": "etl", "run_id": run_of(4), "rows": 1}],
    }
    assert [row["run_id"] for row in delta.rows("dag_run")] == [run_of(4)]
    assert len(delta.rows("task_instance")) == 1


def test_old_log_rows_that_were_cleaned_are_counted() -> None:
    airflow = filled()
    mark = marked(airflow)
    change(airflow, "DELETE FROM log WHERE id <= 3")
    airflow.insert("log", dag_id="etl", dttm=LATER, event="new")
    plan = history.make_plan(airflow.engine(), after=mark)
    assert plan["deleted"]["tables"] == {"log": [{"id_up_to": 10, "rows": 3}]}
    assert plan["changes"] == {"log": 1}


@pytest.mark.parametrize("version", ["1.10.12", "2.10.3"])
def test_what_was_too_old_to_be_carried_is_not_gone(version: str) -> None:
    airflow, since = filled(version), "2024-01-04T00:00:00Z"
    mark = marked(airflow, since=since)
    change(airflow, "DELETE FROM log WHERE dttm <= ?", moment(2))
    for day in (1, 5):
        change(airflow, "DELETE FROM dag_run WHERE dag_id = 'etl' AND execution_date = ?", moment(day))
    change(airflow, "UPDATE dag_run SET conf = NULL, end_date = ? WHERE id = 2", "2024-01-03 23:59:59.000000")
    change(airflow, "UPDATE dag_run SET state = 'queued', end_date = NULL, start_date = NULL WHERE id = 4")
    plan = history.make_plan(airflow.engine(), since=since, after=mark)
    assert plan["deleted"] == {"tables": {"dag_run": [{"id": 5}]}, "rows": {"dag_run": 1}, "more": 0}
    assert plan["changes"] == {} and [one["again"] for one in plan["open"]] == [True]


def test_runs_without_a_row_of_their_own_come_again_when_one_changed() -> None:
    airflow = filled("1.10.12")
    airflow.task("ghost", "load", 9, execution_date=moment(9))
    mark = marked(airflow)
    assert Export(airflow.engine(), after=mark).plan["parts"] == []
    change(airflow, "UPDATE task_instance SET state = 'failed' WHERE dag_id = 'ghost'")
    delta = Export(airflow.engine(), after=mark)
    assert [row["state"] for row in delta.rows("dag_run")] == ["failed"]
    assert all(part["orphans"] and part["bytes"] for part in delta.plan["parts"])


def test_many_runs_are_cut_into_parts_that_each_run_is_in_once() -> None:
    airflow = filled()
    mark = marked(airflow)
    change(airflow, "UPDATE task_instance SET end_date = ? WHERE run_id <> ?", LATER, run_of(3))
    delta = Export(airflow.engine(), after=mark, part_bytes=500)
    assert len([part for part in delta.plan["parts"] if part["table"] == "task_instance"]) > 2
    assert len(delta.rows("task_instance")) == 16 and len({row["id"] for row in delta.rows("dag_run")}) == 8


@pytest.mark.parametrize(
    ("change_mark", "options", "sentence"),
    [
        ({}, {"exclude": ["x*"]}, "the last export was of other DAGs, tables or ages"),
        ({}, {"target": SCHEMAS["2.5.1"]}, "the target's tables are others than those of the last export"),
        ({"form": 7}, {}, "the last export's mark is none that this version of the collection reads"),
        ({"schema": "x"}, {}, "the source's Airflow was upgraded since the last export"),
        ({"server": "x"}, {}, "the source's database is another one than that of the last export, or was set back"),
        ({"life": "x"}, {}, "the source's database was made anew since the last export"),
        ({"lines": "x"}, {}, "the last export was made by another version of this collection"),
    ],
)
def test_a_mark_that_does_not_fit_gives_a_full_plan(
    change_mark: dict[str, Any], options: dict[str, Any], sentence: str
) -> None:
    airflow = filled()
    airflow.insert("log_template", filename="f", elasticsearch_id="e", created_at=moment(1))
    mark = copy.deepcopy(marked(airflow))
    for name, value in change_mark.items():
        (mark if name == "form" else mark["fits"])[name] = value
    delta = Export(airflow.engine(), after=mark, **options)
    assert not delta.plan["delta"] and delta.plan["full_why"] == sentence
    assert len(delta.rows("dag_run")) == 10


def test_of_older_sources_nobody_knows_when_their_database_was_made() -> None:
    airflow = filled("2.2.2")
    mark = marked(airflow)
    assert mark["fits"]["life"] is None
    assert history.make_plan(airflow.engine(), after={**mark, "fits": {**mark["fits"], "life": "x"}})["delta"]


def test_of_chosen_dags_only_theirs_is_carried_and_listed() -> None:
    airflow = filled()
    mark = marked(airflow, dags=["etl"])
    for dag in ("etl", "report"):
        airflow.run(dag, 8)
        change(airflow, "DELETE FROM dag_run WHERE dag_id = ? AND execution_date = ?", dag, moment(1))
    delta = Export(airflow.engine(), after=mark, dags=["etl"])
    assert [row["dag_id"] for row in delta.rows("dag_run")] == ["etl"]
    assert delta.plan["deleted"]["rows"] == {"dag_run": 1}


def test_a_mark_of_many_runs_is_small() -> None:
    ids = range(1, 200001)
    assert len(history.packed_ids(ids)) < 2000
    assert list(history.unpacked_ids(history.packed_ids(ids))) == list(ids)
    assert list(history.unpacked(history.packed([5, 0, 4294967295]))) == [5, 0, 4294967295]


def test_the_hour_before_the_mark_is_looked_at_again() -> None:
    airflow = filled()
    mark = marked(airflow)
    at = datetime.datetime(2024, 6, 1) - datetime.timedelta(minutes=59)
    change(airflow, "UPDATE dag_run SET updated_at = ? WHERE id = 1", at.isoformat(" ", "microseconds"))
    assert len(Export(airflow.engine(), after=mark).rows("dag_run")) == 1
