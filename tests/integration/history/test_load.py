# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A bundle's history into a real PostgreSQL, driven as the module drives it: repeated, interrupted, refused."""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.mwaa.migration.plugins.module_utils._errors import MigrationError
from ansible_collections.mwaa.migration.plugins.module_utils._history.load import Load, Options, inline
from import_lane import NOT_ROWS, Database, Databases, importing
from small_airflow import history

UNIT = Path(__file__).parents[2] / "unit"
sys.path[:0] = [str(UNIT), str(UNIT / "history_export")]
from agent_in_process import World  # noqa: E402

pytestmark = pytest.mark.lab
DAYS = 24


class Way:
    """In place of history._Source, which makes connections as Airflow does."""

    name, search_path = "postgresql", None

    def __init__(self, database: Database):
        self.database = database

    def connect(self, snapshot: str | None = None) -> Any:
        return history.Engine("postgresql", self.database.connect(), snapshot)


def answer(database: Database, request: dict[str, Any]) -> dict[str, Any]:
    """What the agent of this environment answers."""
    try:
        found = history.OPERATIONS[request["op"]](Way(database), json.loads(json.dumps(request)))
    except history.Unfit as error:
        raise MigrationError(str(error), code="history") from None
    return {**json.loads(json.dumps(found)), "airflow_version": "2.11.2"}


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> World:
    made = World(monkeypatch, where=str(tmp_path / "bundle"))
    made.part_bytes = 4000
    for dag in ("etl", "hourly"):
        for day in range(1, DAYS + 1):
            made.airflow.run(dag, day)
            for task in ("extract", "load"):
                made.airflow.task(dag, task, day)
                made.airflow.xcom(dag, task, "return_value", json.dumps({"day": day, "text": "ü\t\\N"}).encode(), day)
            made.airflow.insert("log", dag_id=dag, event="success", extra="a\r\nb")
    made.export()
    return made


@pytest.fixture
def database(databases: Databases) -> Database:
    made = databases.new("2.11.2")
    columns = "dag_id, is_paused, is_active, max_active_tasks, max_consecutive_failed_dag_runs"
    made.sql(
        f"INSERT INTO dag ({columns}, has_task_concurrency_limits, last_parsed_time)"
        " VALUES ('etl', false, true, 1, 0, false, now()), ('hourly', true, true, 1, 0, false, now())"
    )
    return made


def load(world: World, database: Database, ask: Any = None, **options: Any) -> Load:
    record = world.record()
    ask = ask or (lambda request: answer(database, request))
    return Load(record, ask, inline(record), Options(**{"seconds": 60, **options}))


def reads(database: Database) -> None:
    """Airflow reads its DAG files."""
    database.sql("UPDATE dag SET last_parsed_time = now() + interval '1 minute'")


def assert_equal(world: World, database: Database) -> None:
    """Everything that the newest state of the record says is there, by digest."""
    (export,) = world.record().exports
    tables = [table for table in export.columns if table not in NOT_ROWS]
    engine = database.engine()
    key = world.bundle().digest_key
    found = importing.verify(engine, tables, export.columns, export.scope, key, export.dags())
    engine.connection.close()
    sent = {table: digests for table, digests in export.digests().items() if table not in NOT_ROWS and digests}
    assert {table: digests for table, digests in found.items() if digests} == sent


def paused(database: Database) -> str:
    return database.sql("SELECT string_agg(dag_id, ' ' ORDER BY dag_id) FROM dag WHERE is_paused")


def impatient(database: Database) -> Any:
    """Waits for nobody."""
    return lambda request: answer(database, {**request, **({"seconds": 0} if request["op"] == "pause_dags" else {})})


def waits_for_reading(database: Database) -> Any:
    def ask(request: dict[str, Any]) -> dict[str, Any]:
        if request["op"] == "pause_dags":
            reads(database)
        return answer(database, request)

    return ask


@pytest.mark.parametrize("rebuild", [False, True])
def test_the_whole_way_and_again(world: World, database: Database, rebuild: bool) -> None:
    result = load(world, database, waits_for_reading(database), rebuild_indexes=rebuild).run()
    assert result["changed"] and result["resumed"] == ["etl"] and paused(database) == "hourly"
    assert_equal(world, database)
    assert result["tables"]["dag_run"] == {
        "source": 2 * DAYS, "rows": 2 * DAYS, "inserted": 2 * DAYS, "updated": 0, "kept": 0, "left_out": 0, "mended": 0,
        "pieces": result["tables"]["dag_run"]["pieces"],
    }  # fmt: skip
    before = database.sql("SELECT max(at) FROM mwaa_migration_ledger")
    again = load(world, database, rebuild_indexes=rebuild).run()
    assert not again["changed"] and again["tables"] == result["tables"]
    assert database.sql("SELECT max(at) FROM mwaa_migration_ledger") == before


def test_a_dag_is_resumed_once_airflow_has_read_it_again(world: World, database: Database) -> None:
    with pytest.raises(MigrationError, match="1 DAGs that were paused for it stay so, .*: etl; run again"):
        load(world, database, impatient(database)).run()
    assert paused(database) == "etl hourly"
    reader = threading.Timer(1.0, reads, (database,))
    reader.start()
    assert load(world, database, seconds=30).run()["resumed"] == ["etl"]  # waits for it
    reader.join()
    assert paused(database) == "hourly"


@pytest.mark.parametrize("change", ["is_active = false", "has_import_errors = true"])
def test_a_dag_that_airflow_cannot_read_does_not_keep_it_waiting(world: World, database: Database, change: str) -> None:
    database.sql(f"UPDATE dag SET {change}")
    assert load(world, database, impatient(database)).run()["resumed"] == ["etl"]


@pytest.mark.parametrize("seed", range(2))
def test_the_agent_is_killed_at_any_point(world: World, database: Database, seed: int) -> None:
    dice, fork = random.Random(seed), multiprocessing.get_context("fork")

    def ask(request: dict[str, Any]) -> dict[str, Any]:
        """As a task: in a process of its own, which somebody kills most of the times."""
        if request["op"] == "pause_dags":
            reads(database)
        answers = fork.SimpleQueue()
        worker = fork.Process(target=lambda: answers.put(answer(database, request)))
        worker.start()
        if dice.random() < 0.6:
            time.sleep(dice.uniform(0.0, 1.0))
            os.kill(worker.pid or 0, signal.SIGKILL)
        else:
            while answers.empty() and worker.is_alive():
                time.sleep(0.02)
        if answers.empty():
            worker.join()
            raise MigrationError("agent run r1 ended as failed without an answer", code="lost")
        return answers.get()

    for _run in range(20):
        try:
            load(world, database, ask, rebuild_indexes=seed % 2 == 0).run()
            break
        except MigrationError as error:
            assert "without an answer" in error.message
    else:
        load(world, database, waits_for_reading(database)).run()
    assert_equal(world, database)
    assert paused(database) == "hourly"
    assert not answer(database, {"op": "history_progress", "bundles": {}})["indexes"]


def test_the_database_ends_its_connections(world: World, database: Database) -> None:
    done = threading.Event()

    def disturb() -> None:
        for _time in range(6):
            database.server.sql(
                "postgres", f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{database.name}'"
            )
            if done.wait(0.3):
                return

    disturber = threading.Thread(target=disturb)
    disturber.start()
    try:
        load(world, database, waits_for_reading(database)).run()
    except Exception:  # noqa: BLE001 - as the agent's process would end
        disturber.join()
        load(world, database, waits_for_reading(database)).run()
    done.set()
    disturber.join()
    assert_equal(world, database)


def test_runs_of_the_target_s_own_with_fail(world: World, database: Database) -> None:
    run = world.rows("dag_run")[0]
    values = f"'{run['dag_id']}', '{run['run_id']}', now(), 'manual', 'success', 0"
    database.sql(
        f"INSERT INTO dag_run (dag_id, run_id, execution_date, run_type, state, clear_number) VALUES ({values})"
    )
    with pytest.raises(MigrationError, match="has 1 rows of this bundle already, nothing was written") as caught:
        load(world, database, waits_for_reading(database), on_conflict="fail", rebuild_indexes=True).run()
    assert run["run_id"] and run["run_id"] in caught.value.message
    assert database.sql("SELECT count(*) FROM dag_run") == "1" and paused(database) == "hourly"
    assert load(world, database, waits_for_reading(database), on_conflict="overwrite").run()["changed"]
    assert database.sql("SELECT count(*) FROM dag_run") == str(2 * DAYS)


def test_an_older_target_lacks_columns(world: World, databases: Databases) -> None:
    old = databases.new("2.5.1")
    with pytest.raises(MigrationError) as caught:
        load(world, old).run()
    text = caught.value.message
    assert "has no table task_instance_history" in text and "has no column dag_run.clear_number" in text
    assert "exported for Airflow 2.11.2: export it again" in text
    assert old.sql("SELECT count(*) FROM dag_run") == "0"
    assert old.sql("SELECT to_regclass('mwaa_migration_ledger')") == ""


def test_a_second_source_s_bundle(world: World, database: Database) -> None:
    load(world, database, waits_for_reading(database)).run()
    record = world.record()
    record.source, record.exports[0].id = "another", "another"
    second = Load(record, lambda request: answer(database, request), inline(record), Options(seconds=60))
    before = database.sql("SELECT count(*) FROM mwaa_migration_ledger")
    with pytest.raises(MigrationError, match="has history of another source already: set beside"):
        second.run()
    assert database.sql("SELECT count(*) FROM mwaa_migration_ledger") == before


def test_a_full_disk(world: World, database: Database) -> None:
    database.sql(
        "CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN RAISE EXCEPTION 'could not extend file' USING ERRCODE = '53100'; END $$;"
        "CREATE TRIGGER full_disk AFTER INSERT ON xcom FOR EACH STATEMENT EXECUTE FUNCTION full_disk()"
    )
    with pytest.raises(MigrationError, match="has no space left: .*; nothing of this piece was written; what was"):
        load(world, database, waits_for_reading(database)).run()
    assert database.sql("SELECT count(*) FROM xcom") == "0" and paused(database) == "etl hourly"
    database.sql("DROP TRIGGER full_disk ON xcom")
    load(world, database, waits_for_reading(database)).run()
    assert_equal(world, database)
    assert paused(database) == "hourly"
