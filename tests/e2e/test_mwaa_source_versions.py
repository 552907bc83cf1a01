# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""MWAA environments of other versions that are left, each with its state and its run history, by the playbook.

Before 2.4.3 the agent is started by the CLI; 1.10 has commands and imports of its own. Of Airflow 3 the state alone can
be read. The tests of a pair run in their order.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from test_main_job import assert_equal_or_listed
from test_mwaa_to_mwaa import NEW, OLD, TwoEnvironments, bucket, rows

pytestmark = pytest.mark.e2e

PAIRS = [
    ("2.2.2", "2.10.3"),
    ("1.10.12", "2.11.2"),
    ("2.0.2", "2.10.3"),
    ("2.10.3", "2.11.2"),
]
WITH_LOGS = "2.10.3"


class Pair:
    """An environment that has run its DAGs, and how it was before it was migrated."""

    def __init__(self, lab: TwoEnvironments, source: str, target: str):
        self.lab, self.source, self.target = lab, source, target
        self.report = lab.folder / "report.json"
        lab.up("--source", f"mwaa:{source}", "--seed-data", "small")
        lab.name = OLD
        self.rows, self.bucket, self.paused = rows(lab), bucket(lab), self._paused()
        given = {"migration_airflow_version": target, "migration_deploy": "direct", "migration_history": True}
        given |= {"rehearsal_report": str(self.report), **({"migration_logs": "all"} if source == WITH_LOGS else {})}
        self.play = lab.play("rehearse.yml", "-v", "-e", json.dumps(given))

    def _paused(self) -> list[str]:
        return self.lab.query("select dag_id from dag where is_paused order by dag_id")

    def streams(self, environment: str) -> dict[str, list[str]]:
        """{stream of a task's log: its lines}, without the agent's."""
        logs, found = self.lab.client("logs"), {}
        group = f"airflow-{environment}-Task"
        for page in logs.get_paginator("describe_log_streams").paginate(logGroupName=group):
            for name in (stream["logStreamName"] for stream in page["logStreams"]):
                if "mwaa_agent" not in name:
                    events = logs.get_log_events(logGroupName=group, logStreamName=name, startFromHead=True)["events"]
                    found[name] = [event["message"] for event in events]
        return found


@pytest.fixture(scope="module", params=PAIRS, ids="-".join)
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    lab = TwoEnvironments(tmp_path_factory.mktemp("versions") / "lab")
    try:
        yield Pair(lab, *request.param)
    finally:
        lab.command("down", check=False)


def test_everything_is_equal_or_listed(pair: Pair) -> None:
    assert pair.play.returncode == 0, pair.play.output[-6000:]
    report = json.loads(pair.report.read_text())
    assert (report["source"]["airflow_version"], report["target"]["airflow_version"]) == (pair.source, pair.target)
    history = report["parity"].pop("history")
    assert_equal_or_listed(report)
    assert history["dag_run"]["source"] > 3 and history["task_instance"]["source"] > 3
    for table, parity in history.items():
        assert parity["equal"] + parity["listed"] == parity["source"], (table, parity)


def test_the_agent_is_gone_from_the_source_and_nothing_else_was_touched(pair: Pair) -> None:
    pair.lab.name = OLD
    assert rows(pair.lab) == pair.rows
    assert bucket(pair.lab) == pair.bucket
    assert pair._paused() == pair.paused
    for table in ("dag", "dag_run", "task_instance", "log", "xcom", "serialized_dag"):
        assert pair.lab.query(f"select dag_id from {table} where dag_id like 'mwaa_agent%'") == [], table


def test_the_target_has_what_it_has_paused(pair: Pair) -> None:
    pair.lab.name = NEW
    assert pair.lab.query("select dag_id from dag where not is_paused and dag_id not like 'mwaa_agent%'") == []


def test_no_secret_was_seen(pair: Pair) -> None:
    pair.lab.name = NEW
    assert "CANARY-" not in pair.play.output and "CANARY-" not in pair.report.read_text()
    assert not [key for key, body in pair.lab.objects() if b"CANARY-" in body]
    assert "CANARY-" not in pair.lab.dump()


def test_its_task_logs_arrive(pair: Pair) -> None:
    if pair.source != WITH_LOGS:
        pytest.skip("one source has its logs copied")
    report = json.loads(pair.report.read_text())
    [stage] = [stage for stage in report["stages"] if stage["name"] == "logs"]
    assert stage["changed"]
    there, here = pair.streams(OLD), pair.streams(NEW)
    runs = {(run, dag) for run, dag in _runs(pair)}
    assert len(here) > 3 and {name: there[name] for name in here} == here
    copied = {tuple(part.partition("=")[2] for part in name.split("/")[:2]) for name in here}
    assert copied == {(dag, run.replace(":", "_")) for run, dag in runs}, "every run of the history has its logs"


def _runs(pair: Pair) -> list[tuple[str, str]]:
    """(run, DAG) of the target's runs that have tasks."""
    pair.lab.name = NEW
    sql = (
        "select distinct run_id || ' ' || dag_id from task_instance where dag_id not like 'mwaa_agent%'"
        " and operator not like 'Empty%' and duration > 0"
    )
    found = pair.lab.query(sql)
    return list(zip(found[::2], found[1::2]))


def test_of_airflow_3_the_state_is_exported_and_its_history_listed(tmp_path: Path) -> None:
    lab = TwoEnvironments(tmp_path / "lab")
    try:
        lab.up("--source", "mwaa:3.0.6", "--seed-data", "small")
        lab.name = OLD
        before = bucket(lab)
        given = {"migration_airflow_version": "3.2.1", "migration_deploy": "direct", "migration_history": True}
        play = lab.play("migrate.yml", "-v", "--tags", "export", "-e", json.dumps(given))
        assert play.returncode == 0, play.output[-6000:]
        said = f"environment {OLD} has Airflow 3.0.6, whose tasks have no way to the metadata database"
        assert said in play.output and "CANARY-" not in play.output
        assert '"variables": 39' in play.output and '"connections": 21' in play.output  # slash/key, conn/slash: listed
        assert '"pools": 5' in play.output
        assert "a pool with unlimited slots (-1)" in play.output
        assert bucket(lab) == before
        for table in ("dag", "dag_run", "task_instance", "xcom", "serialized_dag"):  # 3.x's audit log stays, listed
            assert lab.query(f"select dag_id from {table} where dag_id like 'mwaa_agent%'") == [], table
    finally:
        lab.command("down", check=False)
