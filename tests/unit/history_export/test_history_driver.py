# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An export of history from the plan to the record: killed, resumed, refused, over both ways."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from agent_in_process import Killed, World
from ansible_collections.mwaa.migration.plugins.module_utils._errors import MigrationError
from ansible_collections.mwaa.migration.plugins.module_utils._history import export as module
from ansible_collections.mwaa.migration.plugins.module_utils._history.export import moment_of, target_schema
from ansible_collections.mwaa.migration.plugins.module_utils._lock import Lock
from small_airflow import history

RUNS = 12


def fill(world: World) -> None:
    for day in range(1, RUNS + 1):
        world.airflow.run("etl", day)
        for task in ("extract", "load"):
            world.airflow.task("etl", task, day)
            world.airflow.xcom("etl", task, "return_value", json.dumps({"day": day}).encode(), day)
    world.airflow.run("etl", 20, state="running")
    world.airflow.task("etl", "extract", 20, state="queued")


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    made = World(monkeypatch)
    fill(made)
    return made


@pytest.fixture
def folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> World:
    made = World(monkeypatch, where=str(tmp_path / "bundle"))
    fill(made)
    return made


def whole(world: World) -> dict[str, Any]:
    """The digests of an undisturbed export, with the key of the bundle."""
    expected: dict[str, Any] = {}
    engine, key = world.airflow.engine(), world.bundle().digest_key
    plan = history.make_plan(engine, target=target_schema("2.11.2")[1])
    for part in plan["parts"]:
        result = history.export_part(engine, part, plan["scope"], key, lambda *_: None)
        expected.setdefault(part["table"], {}).update(result["digests"])
    return expected


def test_everything_that_ended_is_in_the_bundle(world: World) -> None:
    result = world.export()
    assert result["changed"] and not result["delta"]
    assert result["tables"]["dag_run"]["rows"] == RUNS
    assert result["tables"]["task_instance"]["rows"] == result["tables"]["xcom"]["rows"] == 2 * RUNS
    assert len(world.rows("dag_run")) == RUNS
    (export,) = world.record().exports
    assert export.digests() == whole(world)
    assert export.dags() == ["etl"]
    assert result["export"] == export.id
    assert all(set(part["snapshot"]) == {"xmin", "at"} for part in export.parts)
    assert [(run["dag_id"], run["state"], run["tasks"]) for run in result["open"]] == [
        ("etl", "running", {"queued": 1})
    ]
    assert {"kind": "run", "id": "etl scheduled__2024-01-20T00:00:00.000000"}.items() <= result["not_carried"][
        0
    ].items()


def test_pieces_are_named_parents_first_and_nothing_else_lies_there(world: World) -> None:
    world.export()
    pieces = world.record().exports[0].pieces()
    assert [piece["phase"] for piece in pieces] == sorted(piece["phase"] for piece in pieces)
    assert world.keys("history/parts/") == sorted(piece["path"] for piece in pieces)
    assert world.keys("history/manifest") and not world.keys("history/progress")


def test_it_says_how_far_it_is(world: World) -> None:
    world.parts_a_round = 10
    world.export()
    lines = [line for line in world.said if " parts, " in line]
    assert len(lines) > 2 and all(" rows/s), " in line and " MB" in line for line in lines)
    assert "left" in lines[0]


@pytest.mark.parametrize("unheard", [False, True], ids=["before the request", "after the work"])
def test_killed_after_any_request_it_goes_on_with_the_parts_that_are_missing(
    monkeypatch: pytest.MonkeyPatch, unheard: bool
) -> None:
    for kill_after in range(1, 30):
        world = World(monkeypatch)
        fill(world)
        world.parts_a_round, world.kill_after, world.kill_before_answer = 10, kill_after, unheard
        try:
            world.export()
            break
        except Killed:
            pass
        arrived = (
            len(json.loads(world.bundle().store.read(module.PROGRESS))["export"]["parts"])
            if world.keys("history/progress")
            else 0
        )
        world.kill_after = None
        if world.keys("history/manifest"):  # it was killed at the delta that follows
            assert not world.export()["changed"] and world.record().exports[0].digests() == whole(world)
            continue
        result = world.export()
        rounds = [request for request in world.requests if request["op"] == "export_history"]
        assert result["changed"]
        assert len(rounds[0]["parts"]) <= 10
        if arrived:
            assert world.requests[0]["op"] == "export_history"  # the plan is the former one
        assert sum(len(part["objects"]) for part in world.record().exports[0].parts) == len(
            world.keys("history/parts/")
        )
        assert world.record().exports[0].digests() == whole(world)
        assert len(world.rows("task_instance")) == 2 * RUNS
    else:
        pytest.fail("it was killed each time")
    assert kill_after > 3


def test_what_happened_since_an_interrupted_export_was_planned_comes_as_it_goes_on(world: World) -> None:
    world.parts_a_round, world.kill_after = 10, 3
    with pytest.raises(Killed):
        world.export()
    world.kill_after = None
    world.airflow.connection.execute("UPDATE dag_run SET state = 'failed' WHERE state = 'running'")
    world.airflow.connection.execute("UPDATE task_instance SET state = 'failed' WHERE state = 'queued'")
    world.airflow.run("etl", 21)
    world.airflow.run("etl", 22, state="running")
    result = world.export()
    resumed, delta = world.record().exports
    assert delta.after == resumed.id and result["export"] == delta.id and not result["delta"]
    days = {str(row["run_id"])[11:21] for row in world.rows("dag_run")}
    assert days == {f"2024-01-{day:02d}" for day in [*range(1, RUNS + 1), 20, 21]}
    assert result["tables"]["dag_run"]["rows"] == RUNS + 2 and len(world.rows("dag_run")) == RUNS + 2
    assert [run["run_id"][11:21] for run in result["open"]] == ["2024-01-22"]


def test_a_run_that_goes_again_between_two_rounds_is_whole_when_the_export_ends(world: World) -> None:
    world.parts_a_round, real, rounds = 10, world.ask, []

    def ask(request: dict[str, Any]) -> dict[str, Any]:
        answer = real(request)
        rounds.extend(part["table"] for part in request.get("parts", ()))
        if rounds and rounds[-1] != "cleared" and "dag_run" in rounds:  # and ends before the next round
            world.airflow.connection.execute("UPDATE dag_run SET end_date = '2099-01-01 00:00:00.000000' WHERE id = 1")
            world.airflow.connection.execute("UPDATE task_instance SET try_number = 2 WHERE rowid = 1")
            rounds.append("cleared")
        return answer

    world.ask = ask  # type: ignore[method-assign]
    result = world.export()
    assert [export.after is None for export in world.record().exports] == [True, False]
    assert not result["delta"] and result["export"] == world.record().exports[1].id
    assert [row["end_date"] for row in world.rows("dag_run")][-1] == "2099-01-01 00:00:00+00"
    assert world.export()["changed"] is False


def test_a_run_that_goes_again_between_two_rounds_and_does_not_end_is_named_as_half_carried(world: World) -> None:
    world.parts_a_round, real = 10, world.ask

    def ask(request: dict[str, Any]) -> dict[str, Any]:
        answer = real(request)
        if any(part["table"] == "dag_run" for part in request.get("parts", ())):
            world.airflow.connection.execute("UPDATE dag_run SET state = 'queued' WHERE id = 1")
        return answer

    def of_the_first(result: dict[str, Any]) -> list[str]:
        name = "etl scheduled__2024-01-01T00:00:00.000000"
        return [one["reason"] for one in result["not_carried"] if one["id"] == name]

    world.ask = ask  # type: ignore[method-assign]
    first = world.export()
    (said,) = of_the_first(first)
    assert said.startswith("it is queued again, since it was cleared while it was exported: the target may have a part")
    assert len(world.rows("dag_run")) == RUNS and len(world.rows("xcom")) < 2 * RUNS
    assert [export.after is None for export in world.record().exports] == [True, False]  # what verifies it lists it
    assert world.record().exports[1].halves == {("etl", "scheduled__2024-01-01T00:00:00.000000")}
    world.ask = real  # type: ignore[method-assign]
    again = world.export()
    assert not again["changed"] and of_the_first(again) == [said]
    world.airflow.connection.execute("UPDATE dag_run SET state = 'success' WHERE id = 1")
    whole_again = world.export()
    assert whole_again["changed"] and of_the_first(whole_again) == []
    assert len({row["run_id"] for row in world.rows("xcom")}) == RUNS
    world.airflow.connection.execute("UPDATE dag_run SET state = 'queued' WHERE id = 1")
    (cleared_later,) = of_the_first(world.export())
    assert "the target keeps what it has" in cleared_later


def test_what_an_interrupted_export_of_other_things_left_is_removed(world: World) -> None:
    world.parts_a_round, world.kill_after = 6, 4
    with pytest.raises(Killed):
        world.export()
    world.kill_after = None
    result = world.export(dags=("etl*",))
    assert result["changed"]
    assert world.keys("history/parts/") == sorted(piece["path"] for piece in world.record().exports[0].pieces())


def test_another_version_of_the_collection_does_not_go_on_with_lines_of_another_form(world: World) -> None:
    world.parts_a_round, world.kill_after = 10, 3
    with pytest.raises(Killed):
        world.export()
    world.kill_after = None
    interrupted = world.bundle().read_document(module.PROGRESS, "")
    assert interrupted
    interrupted["export"]["mark"]["fits"]["lines"] = "of another version"
    del interrupted["mac"]
    world.bundle().write_document(module.PROGRESS, interrupted)
    result = world.export()
    (export,) = world.record().exports
    assert export.id == result["export"] != interrupted["export"]["id"]
    assert export.digests() == whole(world)


def test_a_record_is_not_written_without_the_lock(monkeypatch: pytest.MonkeyPatch) -> None:
    world, taken = World(monkeypatch), []
    real = Lock.take
    monkeypatch.setattr(Lock, "take", lambda lock: (taken.append(lock.name), real(lock))[1])
    assert world.export(tables=("dag_run",))["changed"]  # of which there is none
    assert taken == ["export"]


def test_a_host_without_s3_sends_over_the_connection(world: World) -> None:
    world.s3_from_source = False
    result = world.export()
    assert result["changed"]
    assert any("over the connection" in line for line in world.said)
    assert world.record().exports[0].digests() == whole(world)
    assert len(world.rows("xcom")) == 2 * RUNS


def test_bad_weather_at_the_first_object_is_no_reason_to_leave_s3(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, tries = history.put_piece, []

    def put(place: dict[str, Any], body: bytes, pauses: Any = ()) -> dict[str, Any]:
        tries.append(place["path"])
        if len(tries) <= 46:
            raise history.Unfit(f"{history.S3_REFUSES} {place['path']} from here: HTTP 503 SlowDown")
        return real(place, body, pauses)

    monkeypatch.setattr(history, "put_piece", put)
    assert world.export()["changed"]
    assert not any("over the connection" in line for line in world.said)
    assert world.record().exports[0].digests() == whole(world)


def test_when_s3_is_what_was_asked_for_it_is_said(world: World) -> None:
    world.s3_from_source = False
    with pytest.raises(MigrationError, match="cannot be put into s3://bucket/mig.*use transport connection"):
        world.export(transport="s3")
    assert not world.keys()


def test_a_folder_keeps_pieces_sealed(folder: World) -> None:
    canary = b"CANARY-" + b"xcom-01234567"
    folder.airflow.xcom("etl", "extract", "secret", json.dumps(canary.decode()).encode(), 3)
    folder.export()
    files = [path for path in Path(folder.where).rglob("*") if path.is_file()]
    assert any("history/parts" in str(path) for path in files)
    for path in files:
        assert canary not in path.read_bytes()
        assert not path.read_bytes().startswith(b"\x1f\x8b")  # gzip would not show it either
    assert canary.decode() in str(folder.rows("xcom"))
    with pytest.raises(MigrationError, match="transport s3 needs a bundle in S3"):
        folder.export(transport="s3")


def noise(world: World) -> None:
    for day in range(1, RUNS + 1):
        world.airflow.xcom("etl", "extract", "noise", json.dumps(os.urandom(1000).hex()).encode(), day)


def test_parts_too_large_for_an_answer_are_cut(folder: World, monkeypatch: pytest.MonkeyPatch) -> None:
    noise(folder)
    monkeypatch.setattr(history, "INLINE", 6000)
    folder.part_bytes = 1 << 20
    folder.export()
    assert folder.record().exports[0].digests() == whole(folder)
    assert len(folder.rows("xcom")) == 3 * RUNS
    assert len([part for part in folder.record().exports[0].parts if part["table"] == "xcom"]) > 1


def test_a_run_larger_than_an_answer_is_to_be_comes_alone(folder: World, monkeypatch: pytest.MonkeyPatch) -> None:
    noise(folder)
    monkeypatch.setattr(history, "INLINE", 800)
    folder.export()
    assert folder.record().exports[0].digests() == whole(folder)
    alone = [one["parts"] for one in folder.requests if any(part.get("alone") for part in one.get("parts", ()))]
    assert len(alone) == RUNS and all(len(parts) == 1 for parts in alone)


def test_a_run_too_large_for_an_answer_is_named(folder: World, monkeypatch: pytest.MonkeyPatch) -> None:
    noise(folder)
    monkeypatch.setattr(history, "INLINE", 400)
    monkeypatch.setattr(history, "ALONE", 800)
    with pytest.raises(
        MigrationError, match=r"xcom 1 to 1, .* and 2 more: it has more than .* MB, which only a host that reaches S3"
    ):
        folder.export()
    assert not folder.keys("history/manifest")


def test_all_parts_that_fail_are_named_after_the_others_are_there(world: World) -> None:
    world.broken = {"xcom": "OperationalError 57014", "dag": "OperationalError 42501"}
    with pytest.raises(MigrationError) as caught:
        world.export()
    assert "OperationalError 57014" in caught.value.message and "dag: OperationalError 42501" in caught.value.message
    assert "run it again" in caught.value.message
    tries = [request for request in world.requests if request["op"] == "export_history"]
    assert len(tries) == module.ATTEMPTS
    assert not world.keys("history/manifest")
    world.broken = {}
    assert world.export()["changed"]
    first = world.requests[0]
    assert {part["table"] for part in first["parts"]} == {"xcom", "dag"}
    assert world.record().exports[0].digests() == whole(world)


def test_an_agent_whose_processes_die_is_not_asked_for_ever(world: World) -> None:
    world.parts_a_round = 0
    with pytest.raises(MigrationError, match="none of .* parts in 3 rounds"):
        world.export()
    counts = [len(request["puts"]) for request in world.requests if request["op"] == "export_history"]
    assert counts == sorted(counts) and counts[-1] > counts[0]  # perhaps they were too few


def test_processes_that_cannot_begin_are_told_from_those_that_die(world: World) -> None:
    refused = [{"n": -1, "error": "OperationalError"}] * 2
    seen = {"id": None, "xmin": None, "at": "2026-01-01T00:00:00Z"}
    real, answer = world.ask, {"parts": [], "failed": refused, "left": [], "snapshot": seen}
    world.ask = lambda request: answer if request["op"] == "export_history" else real(request)  # type: ignore[method-assign]
    with pytest.raises(MigrationError, match="start with OperationalError; does its database take 3 connections more"):
        world.export()


def test_an_object_that_vanished_meanwhile_is_exported_again(world: World) -> None:
    world.parts_a_round, world.kill_after = 20, 3
    with pytest.raises(Killed):
        world.export()
    gone = world.keys("history/parts/")[0]
    world.bundle().store.delete(gone)
    world.kill_after = None
    world.export()
    assert world.record().exports[0].digests() == whole(world)
    assert len(world.rows("task_instance")) == 2 * RUNS


def test_check_mode_writes_nothing_and_tells_the_plan(world: World) -> None:
    world.aws.s3.writes.clear()
    result = world.export(check=True)
    assert result["changed"] and result["export"] is None
    assert result["tables"]["task_instance"]["rows"] == 2 * RUNS + 1  # as planned: the database's own count
    assert result["open"] and result["parts"]
    assert [request["op"] for request in world.requests] == ["plan_history"]
    assert not world.aws.s3.writes


def test_another_airflow_is_refused(world: World) -> None:
    world.identity = {**world.identity, "database": "postgresql://elsewhere/airflow"}
    with pytest.raises(MigrationError, match="holds another Airflow .database"):
        world.export()


def test_airflow_3_is_refused(world: World) -> None:
    world.identity = {**world.identity, "airflow_version": "3.0.6"}
    with pytest.raises(MigrationError, match="Airflow 3.0.6, and run history is carried from 1.10.12 to 2.11.2"):
        world.export()


def test_whatever_is_wrong_with_the_options_is_said_at_once(world: World) -> None:
    with pytest.raises(MigrationError) as caught:
        world.export(since="yesterday", tables=("dag_run", "users"), processes=0)
    for word in ("3 faults", "'yesterday'", "called users", "processes is 0"):
        assert word in caught.value.message


def test_other_filters_mean_a_full_export(world: World) -> None:
    world.export()
    result = world.export(dags=("etl",))
    assert result["changed"] and not result["delta"]
    assert result["findings"] == ["everything is exported anew: the last export was of other DAGs, tables or ages"]
    assert len(world.record().exports) == 2


def test_a_database_that_was_made_anew_is_another_source(world: World) -> None:
    """Its runs and log rows begin at 1 again; under one name they would be taken for those that were there."""
    world.airflow.insert("log_template", filename="f", elasticsearch_id="e", created_at="2024-01-01 00:00:00.000000")
    world.export()
    world.airflow.connection.execute("UPDATE log_template SET created_at = '2024-05-05 00:00:00.000000'")
    assert world.export()["findings"] == [
        "everything is exported anew: the source's database was made anew since the last export"
    ]
    world.airflow.run("etl", 21)
    assert world.export()["delta"]
    record = world.record()
    first, *others = [record.source_of(export) for export in record.exports]
    assert first == record.source and others[0] == others[1] != first
    world.bundle().store.delete(module.MANIFEST)
    world.export()
    assert world.record().source == others[0]  # it is the database's name, whatever the bundle knows


def test_a_pattern_that_no_dag_has_is_named(world: World) -> None:
    world.parts_a_round = 10
    assert world.export(dags=("elt*", "etl"))["findings"] == [
        "no DAG of the source is called elt*: nothing is carried for that"
    ]


def test_a_second_export_is_a_delta_and_an_empty_one_is_none(world: World) -> None:
    first = world.export(since="4000")
    record = world.bundle().store.read("history/manifest.json")
    again = world.export(since="4000")
    assert not again["changed"] and again["delta"] and again["export"] is None
    assert world.bundle().store.read("history/manifest.json") == record
    assert not world.keys("history/progress")
    world.airflow.run("etl", 25)
    world.airflow.task("etl", "extract", 25)
    looked = world.export(check=True, since="4000")
    assert looked["changed"] and looked["delta"] and looked["tables"]["dag_run"]["rows"] == 1
    third = world.export(since="4000")
    assert third["changed"] and third["delta"]
    assert third["tables"]["dag_run"]["rows"] == 1
    exports = world.record().exports
    assert [export.id for export in exports] == [first["export"], third["export"]]
    assert exports[0].after is None and exports[1].after == exports[0].id
    assert exports[0].mark is None and exports[1].mark
    assert world.keys("history/parts/") == sorted(piece["path"] for one in exports for piece in one.pieces())
    assert not world.export(since="4000")["changed"]


def test_what_is_gone_is_listed_once(world: World) -> None:
    world.export()
    world.airflow.connection.execute("DELETE FROM xcom WHERE dag_run_id = 3")
    result = world.export()
    assert result["changed"] and result["deleted"]["rows"] == {"xcom": 2}
    assert "xcom (deleted)" in [one["id"] for one in result["not_carried"]]
    assert not world.export()["changed"]


def test_two_exports_at_once_do_not_write_one_record(world: World) -> None:
    real = world.ask

    def overtaken(request: dict[str, Any]) -> dict[str, Any]:
        if request["op"] == "plan_history":
            other = world.bundle()
            other.write_document(module.PROGRESS, {"export": {}, "planned": [], "over": "s3"})
        return real(request)

    world.ask = overtaken  # type: ignore[method-assign]
    with pytest.raises(MigrationError, match="written to by another export"):
        world.export()


def test_history_enters_airflow_3_by_2_11_2() -> None:
    assert target_schema("3.2.1")[0] == "2.11.2"
    assert target_schema("2.11.1")[0] == "2.11.0"
    assert target_schema("2.10.3")[0] == "2.10.3"
    assert "task_instance_history" not in target_schema("2.9.2")[1]
    assert target_schema("2.11.2")[1]["dag_run"]["run_id"] == "character varying"


def test_how_old_in_words() -> None:
    import datetime

    now = datetime.datetime(2026, 3, 1, 12, tzinfo=datetime.timezone.utc)
    assert moment_of("30", now) == "2026-01-30T12:00:00Z"
    assert moment_of("2026-01-31") == "2026-01-31T00:00:00Z"
    assert moment_of("2026-01-31T01:00:00+02:00") == "2026-01-30T23:00:00Z"
    assert moment_of("2026-01-31T01:00:00Z") == "2026-01-31T01:00:00Z"
    assert moment_of(None) is None
