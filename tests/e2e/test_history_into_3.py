# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Real Airflows: the history of a 2.2.2 enters 3.2.1, by an environment of 2.11.2 that is upgraded in place.

Killed on the way, and with an upgrade that fails first. The tests run in their order.
"""

from __future__ import annotations

import json
import pickle
import re
import time
from collections.abc import Iterator
from typing import Any

import pytest
from conftest import Lab, Play, kill_group, wait_for
from mwaa_lab.labdir import LabDir
from mwaa_lab.source import Source

pytestmark = pytest.mark.e2e

NAME = "analytics-lab"  # of the lab's inventory
# daily: ran for six days, and has a run with conf. gone: nobody has its file any more.
DAGS = """
from datetime import datetime
import airflow
from airflow import DAG
from airflow.operators.bash import BashOperator

OLD = tuple(map(int, airflow.__version__.split(".")[:2])) < (2, 4)
WHEN = {{"schedule_interval" if OLD else "schedule": "@daily"}}

with DAG("{dag}", start_date=datetime(2024, 1, 1), end_date=datetime(2024, 1, 6), catchup=True, **WHEN) as dag:
    say = BashOperator(task_id="say", bash_command="echo {{{{ ds }}}}", retries=0)
    say >> BashOperator(task_id="after", bash_command="{after}", retries=0)
"""
OURS = {"daily": "true", "fails": "exit 1", "gone": "true"}
DAYS = 6


class Passage:
    """A source that has run, and what becomes of it in the environment."""

    def __init__(self, lab: Lab):
        self.lab = lab
        self.report = lab.folder / "report.json"
        lab.up("--source", "2.2.2", "--seed-data", "small")
        self.airflow = Source(LabDir(lab.folder)).airflow()
        self._run_dags()
        self.runs = {
            (dag, run): state for dag, run, state in self.sql("select dag_id, run_id, state from dag_run order by 1, 2")
        }
        self.tasks = {
            (dag, run, task): state
            for dag, run, task, state in self.sql("select dag_id, run_id, task_id, state from task_instance")
        }

    def sql(self, statement: str) -> list[list[str]]:
        return [row.split("|") for row in self.airflow.database.sql(statement).splitlines() if row]

    def _run_dags(self) -> None:
        folder = self.airflow.home / "dags"
        for dag, after in OURS.items():
            (folder / f"{dag}.py").write_text(DAGS.format(dag=dag, after=after))
        names = ", ".join(f"'{dag}'" for dag in OURS)
        known = f"select 1 from dag where dag_id in ({names})"
        wait_for(lambda: len(self.sql(known)) == len(OURS), 180, "our DAGs are known")
        self.sql(f"update dag set is_paused = false where dag_id in ({names})")
        ended = f"select count(*) from dag_run where state in ('success', 'failed') and dag_id in ({names})"
        wait_for(lambda: int(self.sql(ended)[0][0]) == DAYS * len(OURS), 600, "the source has run our DAGs")
        self.sql(f"update dag set is_paused = true where dag_id in ({names})")
        pickled = pickle.dumps({"a": "b"}, 2).hex()
        self.sql(
            f"update dag_run set conf = decode('{pickled}', 'hex')"
            " where id = (select id from dag_run where dag_id = 'daily' order by execution_date limit 1)"
        )
        (folder / "gone.py").unlink()

    # -- the environment

    def words(self, **more: Any) -> tuple[str, str]:
        given = {"migration_airflow_version": "3.2.1", "migration_history": True, "rehearsal_report": str(self.report)}
        return "-e", json.dumps({**given, **more})

    def migrate(self, **more: Any) -> Play:
        return self.lab.play("rehearse.yml", *self.words(**more))

    def kill_at(self, pattern: str) -> None:
        """A migration that is killed when it says this."""
        process = self.lab.start("rehearse.yml", *self.words())
        assert process.stdout
        for line in process.stdout:
            if re.search(pattern, line):
                break
        else:
            pytest.fail(f"{pattern} was never said")
        time.sleep(3)
        kill_group(process)

    def shown(self) -> dict[str, Any]:
        return self.lab.client("mwaa").get_environment(Name=NAME)["Environment"]

    def rest(self, method: str, path: str, body: Any = None) -> Any:
        mwaa, given = self.lab.client("mwaa"), {} if body is None else {"Body": body}
        for _attempt in range(10):
            try:
                return mwaa.invoke_rest_api(Name=NAME, Method=method, Path=path, **given)["RestApiResponse"]
            except mwaa.exceptions.RestApiServerException as error:  # a busy machine: not within 10 s
                last = error
                time.sleep(1)
        raise last

    def ledger(self) -> list[str]:
        return self.lab.query("select tablename from pg_tables where tablename like 'mwaa_migration%'")


@pytest.fixture(scope="module")
def passage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Passage]:
    lab = Lab(tmp_path_factory.mktemp("into-3") / "lab")
    try:
        yield Passage(lab)
    finally:
        lab.command("down", check=False)


def test_killed_while_the_history_enters(passage: Passage) -> None:
    passage.kill_at(r"^TASK \[mwaa.migration.history : (?!Validating)")
    shown = passage.shown()
    assert shown["AirflowVersion"] == "2.11.2"
    assert "RequirementsS3Path" not in shown and "PluginsS3Path" not in shown


def test_an_upgrade_that_fails_leaves_2_11_with_its_history(passage: Passage) -> None:
    env = passage.lab.environment()
    passage.lab.client("s3").put_object(
        Bucket=env["MWAA_LAB_BUCKET"], Key="broken.txt", Body=b"no-such-package-of-anyone==1.0\n"
    )
    play = passage.migrate(environment_requirements_s3_path="broken.txt", preflight_fail_on="never")
    assert play.returncode != 0
    assert "no-such-package-of-anyone" in play.output and "rolled back" in play.output.lower(), play.output[-3000:]
    shown = passage.shown()
    assert (shown["Status"], shown["AirflowVersion"]) == ("UPDATE_FAILED", "2.11.2")
    assert passage.ledger() == []  # it was equal by digest, so that what the import had left is gone
    there = passage.lab.query("select dag_id || '|' || run_id from dag_run where id < 0")
    assert sorted(there) == sorted("|".join(key) for key in passage.runs)


def test_the_next_run_upgrades_and_everything_is_equal_or_listed(passage: Passage) -> None:
    before = len(passage.lab.journal())
    play = passage.migrate()
    assert play.returncode == 0, play.output[-6000:]
    report = json.loads(passage.report.read_text())
    assert report["target"]["airflow_version"] == "3.2.1"
    parity = report["parity"]["history"]
    assert parity["dag_run"] == {
        "source": len(passage.runs),
        "target": len(passage.runs),
        "equal": len(passage.runs),
        "listed": 0,
    }
    assert parity["task_instance"]["equal"] == len(passage.tasks) and parity["xcom"]["source"] > 0
    assert all(one["equal"] + one["listed"] == one["source"] for one in parity.values()), parity
    unseen = [entry["id"] for entry in report["not_carried"] if "no such DAG" in entry["reason"]]
    assert "runs of DAG gone" in unseen and "runs of DAG daily" not in unseen
    options = passage.shown()["AirflowConfigurationOptions"]
    assert options["scheduler.create_cron_data_intervals"] == options["scheduler.create_delta_data_intervals"] == "True"
    updates = [call for call in passage.lab.journal()[before:] if call["operation"] == "UpdateEnvironment"]
    assert len(updates) <= 1 and not play.output.count("mwaa_history_import) ")  # nothing is loaded once more


def test_rest_on_3_2_1_lists_the_runs_and_their_tasks(passage: Passage) -> None:
    wait_for(lambda: passage.lab.healthy(), 120, "the REST API of 3.2.1")
    asked = {"dag_ids": ["daily", "fails"], "page_limit": 100}
    rows = passage.rest("POST", "/dags/~/dagRuns/list", asked)["dag_runs"]
    wanted = {key: state for key, state in passage.runs.items() if key[0] in asked["dag_ids"]}
    assert {(row["dag_id"], row["dag_run_id"]): row["state"] for row in rows} == wanted
    first = min((row for row in rows if row["dag_id"] == "daily"), key=lambda row: row["logical_date"])
    assert first["conf"] == {"a": "b"} and first["run_type"] == "scheduled"
    rows = passage.rest("POST", "/dags/~/dagRuns/~/taskInstances/list", asked)["task_instances"]
    found = {(row["dag_id"], row["dag_run_id"], row["task_id"]): row["state"] for row in rows}
    assert found == {key: state for key, state in passage.tasks.items() if key[0] in asked["dag_ids"]}


def test_a_second_run_changes_nothing(passage: Passage) -> None:
    play = passage.lab.play("migrate.yml", *passage.words())
    assert play.returncode == 0 and play.changed == 0, play.output[-4000:]


def test_the_scheduler_goes_on_and_repeats_nothing(passage: Passage) -> None:
    """daily ended with 2024-01-06: unpaused, it has nothing more to do, and no run of before runs again."""
    before = passage.lab.query("select id from dag_run order by 1")
    passage.rest("PATCH", "/dags/daily", {"is_paused": False})
    time.sleep(20)
    assert passage.lab.query("select id from dag_run order by 1") == before
