# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The two files that come and go beside the agent: the one that looks for requests, the one that removes its rows."""

from __future__ import annotations

import contextlib
import datetime
import sqlite3
import sys
import time
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

FOLDER = Path(__file__).parents[3] / "plugins/agent"
NEW, OLD, DONE = ("r" + character * 32 for character in "abc")


class Dag:
    def __init__(self, dag_id: str, schedule: Any = None, **options: Any) -> None:
        self.dag_id, self.options = dag_id, {**options, "schedule": schedule}

    def __enter__(self) -> Dag:
        return self

    def __exit__(self, *_error: Any) -> None:
        pass


class Trigger:
    ran: list[tuple[str, Any]] = []

    def __init__(self, task_id: str, trigger_dag_id: str) -> None:
        self.trigger_dag_id = trigger_dag_id

    def execute(self, context: Any) -> None:
        Trigger.ran.append((self.trigger_run_id, self.conf))  # type: ignore[attr-defined]


class Skip(Exception):
    pass


class DagRunAlreadyExists(Exception):
    pass


class S3:
    keys: list[tuple[str, int]] = []

    def get_paginator(self, _name: str) -> S3:
        return self

    def paginate(self, **_where: Any) -> list[dict[str, Any]]:
        day = datetime.datetime(2026, 1, 1)
        return [{"Contents": [{"Key": key, "LastModified": day + datetime.timedelta(age)} for key, age in self.keys]}]


@pytest.fixture
def poll(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Loaded into an Airflow whose version the test sets: poll.airflow.__version__."""
    modules = {
        name: ModuleType(name)
        for name in (
            "airflow", "airflow.operators", "airflow.operators.trigger_dagrun", "airflow.exceptions", "airflow.api",
            "airflow.api.common", "airflow.api.common.trigger_dag", "boto3",
        )
    }  # fmt: skip
    modules["airflow"].DAG = Dag  # type: ignore[attr-defined]
    modules["airflow"].__version__ = "2.11.2"  # type: ignore[attr-defined]
    modules["airflow.operators.trigger_dagrun"].TriggerDagRunOperator = Trigger  # type: ignore[attr-defined]
    modules["airflow.exceptions"].AirflowSkipException = Skip  # type: ignore[attr-defined]
    modules["boto3"].client = lambda _name: S3()  # type: ignore[attr-defined]
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)
    source = (FOLDER / "mwaa_agent_poll_dag.py").read_text().replace("@UNTIL@", str(int(time.time()) + 3600))
    loaded = ModuleType("poll")
    exec(compile(source, "poll", "exec"), loaded.__dict__)
    loaded.airflow, loaded.by_api = modules["airflow"], modules["airflow.api.common.trigger_dag"]
    Trigger.ran = []
    monkeypatch.setattr(S3, "keys", [(f"p/requests/{NEW}.json", 3), (f"p/requests/{OLD}.json", 1),
                                     (f"p/requests/{DONE}.json", 0), (f"p/requests/{DONE}.answer", 0),
                                     ("p/requests/notes.json", 0)])  # fmt: skip
    return loaded


def test_it_looks_every_minute_and_for_some_time_only(poll: ModuleType) -> None:
    assert poll.dag.dag_id == "mwaa_agent_poll" and poll.dag.options["schedule"] == "* * * * *"
    assert poll.dag.options["catchup"] is False and poll.dag.options["is_paused_upon_creation"] is False
    ended = ModuleType("ended")
    source = (FOLDER / "mwaa_agent_poll_dag.py").read_text().replace("@UNTIL@", "1")
    exec(compile(source, "ended", "exec"), ended.__dict__)
    assert not hasattr(ended, "dag")


def test_the_oldest_request_without_an_answer_is_next_and_none_waits_behind_another(
    poll: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert poll.pending(S3()) == [OLD, NEW]
    started = []
    poll.by_api.trigger_dag = lambda **run: started.append(run)
    for minute in (10, 11):
        monkeypatch.setattr(poll.time, "time", lambda minute=minute: minute * 60.0)
        poll.Start("start", "mwaa_agent").execute({})
    assert [run["run_id"] for run in started] == [OLD, NEW]
    assert all(run["conf"] == {"request": run["run_id"]} and run["dag_id"] == "mwaa_agent" for run in started)
    assert not Trigger.ran


def test_a_run_that_is_there_already_is_nobodys_business(poll: ModuleType) -> None:
    def exists(**_run: Any) -> None:
        raise DagRunAlreadyExists

    poll.by_api.trigger_dag = exists
    assert poll.Start("start", "mwaa_agent").execute({}) is None


def test_airflow_3_triggers_through_its_own_operator(poll: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(poll.airflow, "__version__", "3.2.1")
    monkeypatch.setattr(S3, "keys", [(f"p/requests/{NEW}.json", 3)])
    start = poll.Start("start", "mwaa_agent")
    start.execute({})
    assert Trigger.ran == [(NEW, {"request": NEW})] and start.skip_when_already_exists
    monkeypatch.setattr(S3, "keys", [])
    with pytest.raises(Skip):
        start.execute({})


# -- removing rows

SCHEMA = """
create table dag_run (id integer, dag_id text, run_id text);
create table task_instance (dag_id text, run_id text);
create table dag_run_note (dag_run_id integer, content text);
create table dag (dag_id text, fileloc text);
create table dag_code (fileloc text, source_code text);
create table import_error (id integer, filename text, stacktrace text);
create table log (id integer, dag_id text, extra text);
create table variable (id integer, key text);
create table ab_view_menu (id integer, name text);
create table ab_permission_view (id integer, view_menu_id integer);
create table ab_permission_view_role (id integer, permission_view_id integer);
"""


def test_every_row_of_the_agent_goes_and_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    airflow = ModuleType("airflow")
    airflow.settings = None  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "airflow", airflow)
    module = ModuleType("removal")
    source = (FOLDER / "mwaa_agent_cleanup.py").read_text().replace("@UNTIL@", "0")
    exec(compile(source, "removal", "exec"), module.__dict__)
    database = sqlite3.connect(":memory:")
    database.executescript(SCHEMA)
    ours, theirs = "/dags/mwaa_migration/mwaa_agent.py", "/dags/my_mwaa_agent.py"
    for number, (dag_id, file) in enumerate(
        [("mwaa_agent", ours), ("mwaa_agent_poll", ours), ("my_mwaa_agent", theirs)]
    ):
        database.execute("insert into dag_run values (?, ?, 'x')", (number, dag_id))
        database.execute("insert into task_instance values (?, 'x')", (dag_id,))
        database.execute("insert into dag_run_note values (?, 'note')", (number,))
        database.execute("insert into dag values (?, ?)", (dag_id, file))
        database.execute("insert into dag_code values (?, 'dag = 1')", (file,))
        database.execute("insert into import_error values (1, ?, 'x')", (file,))
        database.execute("insert into log values (1, ?, 'x')", (dag_id,))
        database.execute("insert into variable values (?, ?)", (number, dag_id))
        database.execute("insert into ab_view_menu values (?, ?)", (number, f"DAG:{dag_id}"))
        database.execute("insert into ab_view_menu values (?, ?)", (number + 20, dag_id))  # 1.10's
        for menu in (number, number + 20):
            database.execute("insert into ab_permission_view values (?, ?)", (menu + 10, menu))
            database.execute("insert into ab_permission_view_role values (1, ?)", (menu + 10,))
    names = [row[0] for row in database.execute("select name from sqlite_master order by rowid")]
    # as SQLAlchemy sorts them: what refers to others comes first
    order = ["dag_run_note", "task_instance", "ab_permission_view_role", "ab_permission_view"]
    tables = {
        name: [row[1] for row in database.execute(f"pragma table_info({name})")]
        for name in [*order, *(name for name in names if name not in order)]
    }
    for table, condition, parameters in module.statements(tables):
        database.execute(f"delete from {table} where {condition}", parameters)
    left = {name: list(database.execute(f"select * from {name}")) for name in names}
    assert len(left.pop("variable")) == 3  # a variable's name is the user's own
    rights = {name: len(left.pop(name)) for name in ("ab_permission_view", "ab_permission_view_role")}
    assert rights == {"ab_permission_view": 2, "ab_permission_view_role": 2}
    assert left.pop("ab_view_menu") == [(2, "DAG:my_mwaa_agent"), (22, "my_mwaa_agent")]
    assert {name: len(rows) for name, rows in left.items()} == dict.fromkeys(left, 1)
    assert left["dag"] == [("my_mwaa_agent", theirs)]


class Database:
    """A table's name to its rows; what SQLAlchemy is asked for of it."""

    def __init__(self, tables: dict[str, list[str]], waiting: list[str]):
        self.tables, self.waiting, self.done = tables, waiting, []  # type: ignore[var-annotated]
        self.engine = SimpleNamespace(begin=lambda: contextlib.nullcontext(self))

    def install(self, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
        sqlalchemy, airflow = ModuleType("sqlalchemy"), ModuleType("airflow")
        columns = {name: [SimpleNamespace(name=one) for one in names] for name, names in self.tables.items()}
        tables = [SimpleNamespace(name=name, columns=found) for name, found in columns.items()]
        metadata = SimpleNamespace(reflect=lambda bind: None, sorted_tables=tables)
        vars(sqlalchemy).update(MetaData=lambda: metadata, text=str)
        airflow.settings = SimpleNamespace(engine=self.engine)  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "sqlalchemy", sqlalchemy)
        monkeypatch.setitem(sys.modules, "airflow", airflow)
        module = ModuleType("removal")
        source = (FOLDER / "mwaa_agent_cleanup.py").read_text().replace("@UNTIL@", "0")
        exec(compile(source, "removal", "exec"), module.__dict__)
        module.report = self.done.append  # type: ignore[attr-defined]
        return module

    def execute(self, statement: str, parameters: object = None) -> Any:
        if statement.startswith("select name from mwaa_migration_ledger"):
            return [(name,) for name in self.waiting]
        self.done.append(statement)
        return SimpleNamespace(rowcount=0)


LEDGER = {"mwaa_migration_ledger": ["bundle", "kind", "name"], "mwaa_migration_staging_12": ["id"]}


def test_the_tables_of_the_import_go(monkeypatch: pytest.MonkeyPatch) -> None:
    database = Database({**LEDGER, "mwaa_migration_staging_of_mine": ["id"], "dag": ["dag_id"]}, [])
    database.install(monkeypatch).run()
    drops = [one for one in database.done if "drop" in one]
    assert drops == ["drop table mwaa_migration_ledger", "drop table mwaa_migration_staging_12"]
    assert database.done[-1] == {"rows": {"mwaa_migration_ledger": 1, "mwaa_migration_staging_12": 1}}


def test_nothing_goes_while_the_ledger_knows_what_nobody_else_does(monkeypatch: pytest.MonkeyPatch) -> None:
    database = Database({**LEDGER, "dag": ["dag_id"]}, ["etl", "ti_state"])
    database.install(monkeypatch).run()
    assert database.done == [{"waiting": ["etl", "ti_state"]}]


@pytest.mark.parametrize("name", ["mwaa_agent_dag.py", "mwaa_agent_poll_dag.py", "mwaa_agent_cleanup.py"])
def test_airflows_safe_mode_parses_them(name: str) -> None:
    content = (FOLDER / name).read_bytes().lower()
    assert b"dag" in content and b"airflow" in content


@pytest.mark.parametrize("minor", [6, 7])
@pytest.mark.parametrize(
    "name",
    [
        "airflow_agent.py",
        "airflow_history.py",
        "airflow_history_import.py",
        "mwaa_agent_dag.py",
        "mwaa_agent_poll_dag.py",
        "mwaa_agent_cleanup.py",
    ],
)
def test_old_pythons_read_them(name: str, minor: int) -> None:
    import ast

    ast.parse((FOLDER / name).read_text(), feature_version=(3, minor))


def test_the_history_file_beside_it_is_found() -> None:
    """As in MWAA, where both lie in the DAG folder; on a host it comes on stdin with the first."""
    from agent_loading import load

    answer = load("airflow_agent").handle({"op": "plan_history"})
    assert answer["error"]["code"] == "no_airflow"  # that far only airflow_history.py leads
