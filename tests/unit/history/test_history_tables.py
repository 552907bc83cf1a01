# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The table of what is carried, held against the schemas of every version."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from small_airflow import SCHEMAS, VERSIONS, SmallAirflow, history

TABLES = history.TABLES
# what a row's run is found by, and a number that nothing refers to
LINKS = {("xcom", "id")} | {
    (table, "execution_date")
    for table in ("rendered_task_instance_fields", "task_fail", "task_instance", "task_reschedule", "xcom")
}


def test_every_column_of_every_version_is_carried_or_named_as_left_out() -> None:
    known = LINKS | {
        (table, column["source"].rpartition(".")[2]) for table in TABLES for column in TABLES[table]["columns"]
    }
    known |= {(table, column) for table, columns in history.LEFT_OUT.items() for column in columns}
    there = {
        (table, column)
        for schema in SCHEMAS.values()
        for table, columns in schema.items()
        for column in columns
        if table != "dag"  # what the DAG's file says is read there again
    }
    assert there - known - {("xcom", "dag_run_id")} == set()


def test_every_carried_column_is_somewhere() -> None:
    newest = SCHEMAS["2.11.2"]
    for name, table in TABLES.items():
        for column in table["columns"]:
            if "." not in column["source"]:
                assert column["name"] in newest[name], (name, column["name"])


@pytest.mark.parametrize("version", VERSIONS)
def test_since_says_when_a_column_came(version: str) -> None:
    number = tuple(map(int, version.split(".")[:2]))
    for name in history.tables_of(SCHEMAS[version]):
        for column in TABLES[name]["columns"]:
            since = tuple(map(int, column["since"].split(".")))
            if "." in column["source"]:
                continue
            there = column["name"] in SCHEMAS[version][name]
            assert there == (number >= since), (name, column["name"], version)


def test_parents_come_before_children() -> None:
    order = history.tables_of(SCHEMAS["2.11.2"])
    assert order.index("dag_run") < order.index("task_instance") < order.index("xcom")
    assert order.index("dataset") < order.index("dataset_event") < order.index("dagrun_dataset_event")


@pytest.mark.parametrize("version", VERSIONS)
def test_a_line_begins_with_its_surrogates_and_its_dag(version: str) -> None:
    for name in history.tables_of(SCHEMAS[version]):
        columns = history.columns_of(name, SCHEMAS[version])
        kinds = [column["kind"] in ("id", "ref") for column in columns]
        assert kinds == sorted(kinds, reverse=True)
        if TABLES[name]["dag"]:
            assert columns[sum(kinds)]["name"] == TABLES[name]["dag"]
        assert [column["name"] for column in columns if column["kind"] in ("value", "plain")] in (
            [],
            [columns[-1]["name"]],
        )
        assert len({column["name"] for column in columns}) == len(columns)


@pytest.mark.parametrize("version", VERSIONS)
def test_the_statements_of_every_version_are_understood_by_its_tables(version: str) -> None:
    engine = SmallAirflow(version).engine()
    scope = {"open": [7], "only": None, "not": ["it's mine"], "since": "2024-01-01T00:00:00Z", "omit": {}}
    for name in history.tables_of(engine.schema):
        without_runs = TABLES[name]["unit"] in ("run", "of_run") and version in ("1.10.12", "1.10.15", "2.0.2")
        for orphans in (False, True) if without_runs else (False,):
            part = {"table": name, "lo": 1, "hi": 9, "orphans": orphans}
            if TABLES[name]["unit"] == "whole":
                part.update(lo=None, hi=None)
            sql, columns = history.statement(engine, part, scope)
            assert engine.rows(sql) == []
            assert len(columns) == len(history.columns_of(name, engine.schema))


PAIRS = list(itertools.permutations(["1.10.12", "2.0.2", "2.5.1", "2.11.2"], 2))


@pytest.mark.parametrize(("source", "target"), PAIRS)
def test_what_the_target_lacks_is_named_by_table_and_column(source: str, target: str) -> None:
    listed = {(loss["table"], loss["column"]) for loss in history.losses(SCHEMAS[source], SCHEMAS[target])}
    for table in history.tables_of(SCHEMAS[source]):
        if table not in SCHEMAS[target]:
            assert (table, None) in listed
            continue
        lacking = set(SCHEMAS[source][table]) - set(SCHEMAS[target][table]) - {"execution_date"}
        carried = {column["source"] for column in TABLES[table]["columns"]}
        carried |= set(history.LEFT_OUT.get(table, ()))
        expected = {(table, column) for column in lacking & carried}
        if (table, "execution_date") in LINKS and "execution_date" in SCHEMAS[target][table]:
            expected -= {(table, "run_id")}  # that one finds the run by its date
        assert {one for one in listed if one[0] == table and one[1] in lacking} == expected


def test_an_older_target_in_sentences() -> None:
    losses = history.losses(SCHEMAS["2.11.2"], SCHEMAS["2.5.1"])
    assert {"table": "task_instance_history", "column": None, "why": "the target has no such table"} in losses
    assert {"table": "log", "column": "try_number", "why": "the target has no such column"} in losses
    assert history.omitted(SCHEMAS["2.5.1"])["dag_run"] == ["clear_number"]
    assert [loss["column"] for loss in losses if loss["table"] == "dag_run_note"] == ["user_id"]


def test_nothing_is_lost_upwards_but_what_is_left_out_by_rule() -> None:
    for source, target in zip(VERSIONS, VERSIONS[1:]):
        for loss in history.losses(SCHEMAS[source], SCHEMAS[target]):
            assert loss["column"] in history.LEFT_OUT[loss["table"]], (source, target, loss)


class Server:
    """As far as a session's settings go. answers: {what a statement begins with: rows}."""

    server_version = 170002

    def __init__(self, **answers: Any):
        self.answers, self.asked, self.description = answers, [], ("a column",)

    def execute(self, statement: str) -> None:
        self.asked.append(statement)

    def fetchall(self) -> list[Any]:
        return next((rows for word, rows in self.answers.items() if self.asked[-1].startswith(word)), [])

    def cursor(self) -> Server:
        return self

    def __getattr__(self, name: str) -> Any:
        return lambda *_arguments, **_named: None


def test_no_limit_of_the_servers_ends_a_long_statement() -> None:
    """With what each of them has; others are not known to it, and setting them would fail."""
    for known in ("max_execution_time", "max_statement_time"):
        server = Server(SHOW=[(known, "30")])
        history.Engine("mysql", server)
        assert [asked for asked in server.asked if " = 0" in asked] == [f"SET SESSION {known} = 0"]
    for names in (["transaction_timeout"], []):
        rows = [(name, "1") for name in [*names, "statement_timeout"]] + [("work_mem", "65536")]
        server = Server(**{"SELECT name, setting": rows})
        history.Engine("postgresql", server)
        lifted = [asked for asked in server.asked if "'0', true" in asked]
        assert lifted == [f"SELECT set_config('{name}', '0', true)" for name in names]
        assert "SET LOCAL statement_timeout = 0" in server.asked
