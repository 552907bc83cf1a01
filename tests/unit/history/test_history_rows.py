# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Rows of each era as canonical lines: what is carried whole, what waits, what is left out."""

from __future__ import annotations

import json
import pickle
from typing import Any

import pytest
from small_airflow import SCHEMAS, VERSIONS, Export, SmallAirflow, history, moment


@pytest.mark.parametrize("version", VERSIONS)
def test_a_run_with_its_rows(version: str) -> None:
    airflow = SmallAirflow(version)
    run = airflow.run("etl", conf=pickle.dumps({"a": 1}))
    airflow.task("etl", "load", hostname="", queue=None)
    airflow.xcom("etl", "load", "return_value", b'{"b": "\\\\N"}')
    airflow.of_task("task_fail", "etl", "load", duration=3)
    export = Export(airflow.engine())

    (row,) = export.rows("dag_run")
    assert (row["id"], row["dag_id"], row["state"], row["run_type"]) == (str(-run), "etl", "success", "scheduled")
    assert (row["run_id"], row["execution_date"]) == ("scheduled__2024-01-01T00:00:00.000000", "2024-01-01 00:00:00+00")
    assert (row["conf"], row["clear_number"], row["external_trigger"]) == ('{"a": 1}', "0", "f")
    (task,) = export.rows("task_instance")
    assert (task["run_id"], task["map_index"], task["duration"]) == (row["run_id"], "-1", "1.5")
    assert (task["hostname"], task["queue"], task["executor_config"]) == ("", None, "{}")
    (xcom,) = export.rows("xcom")
    assert xcom["dag_run_id"] == row["id"] and xcom["run_id"] == row["run_id"]
    assert history.text_bytes(xcom["value"]) == b'{"b": "\\\\N"}'
    (fail,) = export.rows("task_fail")
    assert (fail["run_id"], fail["map_index"], fail["duration"]) == (row["run_id"], "-1", "3")


def test_the_same_history_has_the_same_digests_in_every_version_and_order() -> None:
    def digests(version: str, order: int) -> dict[str, Any]:
        airflow = SmallAirflow(version)
        airflow.insert("job", id=5, dag_id="none", state="success")  # so that ids differ
        for day in (1, 2, 3)[::order]:
            airflow.run("etl", day, id=10 * day + order)
            airflow.task("etl", "load", day, job_id=order)
            airflow.xcom("etl", "load", "k", b"[1, 2]", day)
        airflow.run("other", 1)
        export = Export(airflow.engine(), target=SCHEMAS["2.2.2"])  # what later versions added is left out
        return {table: export.digests(table) for table in ("dag_run", "task_instance", "xcom")}

    first = digests("2.11.2", 1)
    assert first["dag_run"]["etl"][0] == 3 and first["dag_run"]["other"][0] == 1
    for version in VERSIONS:
        assert digests(version, -1) == first


def test_a_changed_value_changes_the_digest_of_its_dag_alone() -> None:
    def digests(hostname: str | None) -> dict[str, Any]:
        airflow = SmallAirflow("2.10.3")
        for dag in ("etl", "other"):
            airflow.run(dag)
        airflow.task("etl", "load", hostname=hostname)
        airflow.task("other", "load")
        return Export(airflow.engine()).digests("task_instance")

    null, empty = digests(None), digests("")
    assert null["etl"] != empty["etl"] and null["other"] == empty["other"]


@pytest.mark.parametrize("version", ["1.10.12", "2.2.2", "2.11.2"])
def test_what_is_not_over_waits_and_is_listed(version: str) -> None:
    airflow = SmallAirflow(version)
    airflow.run("etl", 1)
    airflow.task("etl", "cleared", 1, state=None)  # a state of its own: it travels
    airflow.run("etl", 2, state="running")
    airflow.task("etl", "done", 2)
    airflow.run("etl", 3)  # ended by hand, while a task was still at work
    airflow.task("etl", "at_work", 3, state="running")
    airflow.xcom("etl", "done", "k", b"1", 2)
    export = Export(airflow.engine())
    assert [row["execution_date"] for row in export.rows("dag_run")] == ["2024-01-01 00:00:00+00"]
    assert [row["task_id"] for row in export.rows("task_instance")] == ["cleared"]
    assert export.rows("xcom") == []
    assert [(run["state"], run["tasks"]) for run in export.plan["open"]] == [
        ("running", {}),
        ("success", {"running": 1}),
    ]


def test_a_run_that_ends_after_the_plan_waits_for_the_delta() -> None:
    airflow = SmallAirflow("2.10.3")
    run = airflow.run("etl", 1, state="running")
    plan = history.make_plan(airflow.engine())
    airflow.connection.execute("UPDATE dag_run SET state = 'success' WHERE id = ?", (run,))
    part = next(part for part in plan["parts"] if part["table"] == "dag_run")
    assert history.export_part(airflow.engine(), part, plan["scope"], b"", lambda *_: None)["rows"] == 0


def test_a_run_that_begins_after_the_plan_waits_for_the_delta_with_its_rows() -> None:
    airflow = SmallAirflow("2.10.3")
    airflow.run("etl", 1)
    airflow.xcom("etl", "t", "k", b"1", 1)
    plan = history.make_plan(airflow.engine())
    airflow.run("etl", 2)
    airflow.xcom("etl", "t", "k", b"1", 2)
    airflow.connection.execute("UPDATE xcom SET dag_run_id = 1")  # other tools leave wrong numbers there
    part = next(part for part in plan["parts"] if part["table"] == "xcom")
    assert history.export_part(airflow.engine(), part, plan["scope"], b"", lambda *_: None)["rows"] == 1


def test_a_deferred_task_of_an_ended_run_travels_without_its_trigger() -> None:
    airflow = SmallAirflow("2.10.3")
    airflow.run("etl")
    airflow.task("etl", "waits", state="deferred", trigger_id=4, trigger_timeout=moment(1), next_method="go")
    export = Export(airflow.engine(), target=SCHEMAS["2.11.2"])
    (task,) = export.rows("task_instance")
    assert (task["state"], task["next_method"]) == ("deferred", "go") and "trigger_id" not in task
    assert [one["task_id"] for one in export.plan["deferred"]] == ["waits"]
    assert {loss["column"] for loss in export.plan["losses"] if loss["table"] == "task_instance"} == {
        "trigger_id",
        "trigger_timeout",
    }


@pytest.mark.parametrize("version", ["1.10.12", "1.10.15", "2.0.2"])
def test_task_instances_without_a_run_get_one(version: str) -> None:
    airflow = SmallAirflow(version)
    airflow.run("etl", 1)
    airflow.task("etl", "load", 1)
    airflow.task("etl", "load", 2, start_date=moment(2), end_date=moment(3))
    airflow.task("etl", "check", 2, state="failed")
    airflow.xcom("etl", "load", "k", b"1", 2)
    airflow.task("etl", "load", 4, state="running")
    export = Export(airflow.engine())
    assert export.plan["orphans"]
    made = next(row for row in export.rows("dag_run") if row["id"] is None)
    assert made["run_id"] == "manual__2024-01-02T00:00:00.000000+00:00"
    assert (made["run_type"], made["state"], made["external_trigger"]) == ("manual", "failed", "t")
    assert (made["start_date"], made["end_date"]) == ("2024-01-02 00:00:00+00", "2024-01-03 00:00:00+00")
    assert [row["run_id"] for row in export.rows("task_instance")].count(made["run_id"]) == 2
    assert [row["run_id"] for row in export.rows("xcom")] == [made["run_id"]]
    assert len(export.rows("dag_run")) == 2 and len(export.rows("task_instance")) == 3


@pytest.mark.parametrize(("version", "lone_xcom"), [("1.10.12", 1), ("2.0.2", 1), ("2.2.2", 2)])
def test_what_deleted_runs_left_behind_is_listed(version: str, lone_xcom: int) -> None:
    airflow = SmallAirflow(version)
    airflow.run("etl", 1)
    airflow.task("etl", "load", 1)
    airflow.xcom("etl", "load", "k", b"1", 1)
    airflow.xcom("etl", "load", "k", b"1", 2)  # not even its task instance is there
    airflow.xcom("etl", "load", "k", b"1", 3)
    if version != "2.2.2":
        airflow.task("etl", "load", 3)  # which a run is made up for
        airflow.task("etl", "load", 4, "running")
    export = Export(airflow.engine())
    assert {loss["table"]: loss["why"] for loss in export.plan["losses"]} == {
        "xcom": f"rows that belong to no run stay: {lone_xcom}",
        **({} if version == "2.2.2" else {"task_instance": "rows that belong to no run stay: 1"}),
    }
    assert len(export.rows("xcom")) == 3 - lone_xcom


def test_the_kinds_of_runs_that_1_10_has() -> None:
    airflow = SmallAirflow("1.10.12")
    for day, run_id in enumerate(("scheduled__x", "backfill_x", "trig__x", "mine", None), 1):
        airflow.run("etl", day, run_id=run_id)
    rows = Export(airflow.engine()).rows("dag_run")
    assert [row["run_type"] for row in rows] == ["scheduled", "backfill", "manual", "manual", "manual"]
    assert rows[4]["run_id"] == "manual__2024-01-05T00:00:00.000000+00:00"


def test_dags_tables_and_age_are_chosen() -> None:
    airflow = SmallAirflow("2.10.3")
    for dag in ("etl_a", "etl_b", "other", "mwaa_agent", "mwaa_agent_poll", "db_export"):
        airflow.run(dag, 1)
        airflow.run(dag, 20)
        airflow.insert("log", dag_id=dag, dttm=moment(20), event="e")
    airflow.insert("log", dttm=moment(20), event="cli")
    airflow.insert("log", dttm=moment(2), event="cli")

    def dags(**options: Any) -> list[tuple[str, str]]:
        rows = Export(airflow.engine(), **options).rows("dag_run")
        return sorted((str(row["dag_id"]), str(row["execution_date"])[8:10]) for row in rows)

    assert {dag for dag, _day in dags()} == {"etl_a", "etl_b", "other"}  # never those of a migration
    assert {dag for dag, _day in dags(dags=["etl_*"])} == {"etl_a", "etl_b"}
    assert {dag for dag, _day in dags(exclude=["*_b"])} == {"etl_a", "other"}
    asked = Export(airflow.engine(), dags=["db_*", "other"])
    assert set(asked.digests("dag_run")) == {"other"} and asked.plan["scope"]["not"] == ["db_export"]
    assert dags(dags=["etl_a"], since="2024-01-10T00:00:00Z") == [("etl_a", "20")]
    assert len(Export(airflow.engine()).rows("log")) == 5
    assert len(Export(airflow.engine(), since="2024-01-10T00:00:00Z").rows("log")) == 4
    assert {row["dag_id"] for row in Export(airflow.engine(), dags=["other"]).rows("log")} == {"other"}
    airflow.insert("log", dag_id="deleted", dttm=moment(20), event="delete")  # which is all that is left of it
    airflow.insert("log", dag_id="db_import", dttm=moment(20), event="delete")
    assert len(Export(airflow.engine()).rows("log")) == 6
    assert len(Export(airflow.engine(), exclude=["del*"]).rows("log")) == 5
    assert [row["dag_id"] for row in Export(airflow.engine(), dags=["del*"]).rows("log")] == ["deleted"]
    assert set(Export(airflow.engine(), tables=["dag_run"]).texts) == {"dag_run"}


@pytest.mark.parametrize("excluded", [True, False])
def test_task_instances_without_a_run_are_chosen_by_their_dag(excluded: bool) -> None:
    airflow = SmallAirflow("1.10.12")
    airflow.task("ghost", "load", 3)
    chosen = Export(airflow.engine(), **{"exclude" if excluded else "dags": ["gh*"]})
    assert [row["dag_id"] for row in chosen.rows("task_instance")] == ([] if excluded else ["ghost"])


def test_a_table_that_is_none_is_refused() -> None:
    with pytest.raises(history.Unfit, match="no table of run history is called dag_runs: known are dag, "):
        history.make_plan(SmallAirflow("2.10.3").engine(), tables=["dag_runs"])


def test_jobs_that_run_stay_and_others_keep_their_number() -> None:
    airflow = SmallAirflow("2.10.3")
    for number, state in enumerate(("running", "success", None, "failed"), 1):
        airflow.insert("job", id=number, state=state, job_type="LocalTaskJob")
    airflow.run("etl", creating_job_id=2)
    airflow.task("etl", "load", job_id=4)
    export = Export(airflow.engine())
    assert [row["id"] for row in export.rows("job")] == ["-2", "-3", "-4"]
    assert export.rows("dag_run")[0]["creating_job_id"] == "-2"
    assert export.rows("task_instance")[0]["job_id"] == "-4"


def test_datasets_and_their_events() -> None:
    airflow = SmallAirflow("2.10.3")
    run = airflow.run("etl")
    dataset = airflow.insert("dataset", uri="s3://a", extra="{}", is_orphaned=0)
    event = airflow.insert("dataset_event", dataset_id=dataset, extra="{}", source_dag_id="etl", timestamp=moment(1))
    airflow.insert("dagrun_dataset_event", dag_run_id=run, event_id=event)
    alias = airflow.insert("dataset_alias", name="all")
    airflow.insert("dataset_alias_dataset", alias_id=alias, dataset_id=dataset)
    airflow.insert("dataset_alias_dataset_event", alias_id=alias, event_id=event)
    export = Export(airflow.engine())
    assert [(row["uri"], row["dataset_id"]) for row in export.rows("dataset_event")] == [("s3://a", str(-dataset))]
    assert export.rows("dagrun_dataset_event")[0] == {
        "dag_run_id": str(-run),
        "event_id": str(-event),
        "dag_id": "etl",
        "run_id": "scheduled__2024-01-01T00:00:00.000000",
        "uri": "s3://a",
        "timestamp": "2024-01-01 00:00:00+00",
    }
    assert export.rows("dataset_alias_dataset")[0]["name"] == "all"
    assert export.rows("dataset_alias_dataset_event")[0]["source_dag_id"] == "etl"


def test_notes_find_their_run_by_its_number() -> None:
    airflow = SmallAirflow("2.5.1")
    run = airflow.run("etl")
    airflow.insert(
        "dag_run_note", dag_run_id=run, content="seen", created_at=moment(1), updated_at=moment(1), user_id=3
    )
    (note,) = Export(airflow.engine()).rows("dag_run_note")
    assert (note["dag_id"], note["content"], note["dag_run_id"]) == ("etl", "seen", str(-run))


def test_pause_states() -> None:
    airflow = SmallAirflow("2.0.2")
    airflow.insert("dag", dag_id="etl", is_paused=0)
    airflow.insert("dag", dag_id="rest", is_paused=1)
    airflow.insert("dag", dag_id="mwaa_agent", is_paused=0)
    assert Export(airflow.engine()).rows("dag") == [
        {"dag_id": "etl", "is_paused": "f"},
        {"dag_id": "rest", "is_paused": "t"},
    ]


@pytest.mark.parametrize("version", ["1.10.12", "2.0.2", "2.10.3"])
def test_parts_cover_every_id_once(version: str) -> None:
    airflow = SmallAirflow(version)
    for day in range(1, 29):
        airflow.run("etl", day)
        airflow.task("etl", "load", day)
        airflow.xcom("etl", "load", "k", b"1", day)
        airflow.of_task("task_fail", "etl", "load", day)
    whole, cut = Export(airflow.engine()), Export(airflow.engine(), part_bytes=1000)
    assert len(cut.plan["parts"]) > len(whole.plan["parts"]) + 10
    for table in ("dag_run", "task_instance", "xcom", "task_fail"):
        assert len(whole.rows(table)) == 28
        assert sorted(cut.texts[table].splitlines()) == sorted(whole.texts[table].splitlines())
        assert cut.digests(table) == whole.digests(table)


@pytest.mark.parametrize(
    "value", ["a\tb", "a\nb\r\nc", "back\\slash", "\\N", "\\.", "", "\x00\x08\x0b\x0c", "ü漢🎉", "'\"|;"]
)
def test_text_survives_its_line(value: str) -> None:
    airflow = SmallAirflow("2.10.3")
    airflow.insert("log", dttm=moment(1), event="e", extra=value, owner=None)
    export = Export(airflow.engine())
    (row,) = export.rows("log")
    assert (row["extra"], row["owner"]) == (value, None)
    assert export.texts["log"].count("\n") == 1


@pytest.mark.parametrize("version", ["2.0.2", "2.10.3"])
def test_pickled_xcoms_become_what_airflow_2_reads(version: str) -> None:
    airflow = SmallAirflow(version)
    airflow.run("etl")
    airflow.task("etl", "t")
    airflow.xcom("etl", "t", "plain", b'"stays\\u00e4"')
    airflow.xcom("etl", "t", "pickled", pickle.dumps({"a": [1, None, float("nan")]}))
    airflow.xcom("etl", "t", "tuple", pickle.dumps((1, 2)))
    airflow.xcom("etl", "t", "set", pickle.dumps({1}))
    airflow.xcom("etl", "t", "bad", b"\x80\x04]")
    airflow.xcom("etl", "t", "null", None)  # type: ignore[arg-type]
    export = Export(airflow.engine())
    values = {row["key"]: row["value"] for row in export.rows("xcom")}
    assert values["plain"] == '"stays\\\\u00e4"' and history.text_bytes(values["plain"]) == b'"stays\\u00e4"'
    assert values["pickled"] == '{"a": [1, null, NaN]}'
    assert values["tuple"] == "[1, 2]"
    assert values["set"] is values["bad"] is values["null"] is None
    assert {fault["key"]["key"]: fault["what"] for fault in export.faults} == {
        "tuple": "a tuple became a list",
        "set": "the pickled value is left out: it holds a set",
        "bad": "the pickled value is left out: it has no end",
    }


def test_xcoms_that_1_10_pickled_as_text() -> None:
    airflow = SmallAirflow("1.10.12")
    airflow.run("etl")
    airflow.xcom("etl", "t", "old", pickle.dumps("abc", protocol=0))
    airflow.xcom("etl", "t", "json", json.dumps({"a": 1}).encode())
    rows = Export(airflow.engine()).rows("xcom")
    assert {row["key"]: row["value"] for row in rows} == {"old": '"abc"', "json": '{"a": 1}'}


@pytest.mark.parametrize("key", ["return_value", None])
def test_of_xcoms_that_1_10_has_twice_the_one_that_it_reads_travels(key: str | None) -> None:
    """Its table has no key over them: two tries at once could push both."""
    airflow = SmallAirflow("1.10.12")
    airflow.run("etl")
    airflow.task("etl", "load")
    for value, day in ((b'"newer"', 3), (b'"newest"', 3), (b'"old"', 2)):  # the later number of the same moment
        airflow.of_task("xcom", "etl", "load", key=key, value=value, timestamp=moment(day))
    airflow.xcom("etl", "load", "another", b"1")
    export = Export(airflow.engine(), target=SCHEMAS["2.11.2"])
    assert sorted(row["value"] for row in export.rows("xcom")) == ['"newest"', "1"]
    assert [one["why"] for one in export.plan["losses"] if one["table"] == "xcom"] == [
        "2 values stay that have a newer one under the same key, which is what Airflow 1.10 reads"
    ]


def test_unreadable_conf_is_listed_by_key() -> None:
    airflow = SmallAirflow("2.10.3")
    airflow.run("etl", conf=b"\x80\x04cos\nsystem\n.")
    export = Export(airflow.engine())
    assert export.rows("dag_run")[0]["conf"] is None
    (fault,) = export.faults
    assert fault["key"] == {"dag_id": "etl", "run_id": "scheduled__2024-01-01T00:00:00.000000"}
    assert fault["what"] == "conf cannot be read: it is no value"


def test_rows_are_held_one_by_one() -> None:
    airflow, read = SmallAirflow("2.10.3"), []
    for day in range(1, 9):
        airflow.run("etl", day)
    airflow.connection.create_function("large", 1, read.append)
    rows = airflow.engine().stream("SELECT large(id) FROM dag_run")
    next(rows)
    assert len(read) <= 2


def test_pieces_are_bounded_and_each_is_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    import os
    import zlib

    monkeypatch.setattr(history, "PIECE", 600000)
    airflow = SmallAirflow("2.10.3")
    for _number in range(300):
        airflow.insert("log", dttm=moment(1), event="e", extra=os.urandom(5000).hex())
    engine = airflow.engine()
    pieces: list[Any] = []
    plan = history.make_plan(engine, tables=["log"])

    def sink(*piece: Any) -> None:
        pieces.append(piece)

    result = history.export_part(engine, plan["parts"][0], plan["scope"], b"", sink)
    assert len(pieces) > 2 and all(len(body) <= 600000 for body, _rows, _raw in pieces)
    assert sum(rows for _body, rows, _raw in pieces) == result["rows"] == 300
    for body, rows, raw in pieces:
        text = zlib.decompress(body, 31)
        assert (text.count(b"\n"), len(text)) == (rows, raw) and text.endswith(b"\n")
