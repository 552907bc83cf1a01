# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The import's requests inside a real Airflow's own Python, which then reads what arrived with its own models."""

from __future__ import annotations

import base64
import json
import pickle
import subprocess
from pathlib import Path
from typing import Any

import pytest
from import_lane import KEY, ROOT, Database, Databases, Lane
from mwaa_lab.airflow import install
from mwaa_lab.airflow.versions import VERSIONS
from small_airflow import SmallAirflow, moment

SCRIPT = """
import json, logging, sys
logging.disable(logging.CRITICAL)
sys.path.insert(0, sys.argv[1])
import airflow_agent
requests = json.load(sys.stdin)
answers = [airflow_agent.handle(request) for request in requests]
from airflow.models import DagRun, TaskInstance, XCom
from airflow.settings import Session
session = Session()
seen = {
    "runs": [[run.conf, run.state, str(run.execution_date)] for run in session.query(DagRun).order_by(DagRun.run_id)],
    "tasks": [[task.task_id, task.state, task.executor_config] for task in session.query(TaskInstance)],
    "xcoms": [[xcom.key, xcom.value] for xcom in session.query(XCom).order_by(XCom.key)],
}
sys.stdout.write("\\nANSWER" + json.dumps([answers, seen], default=str))
"""


def inside(database: Database, home: Path, requests: list[dict[str, Any]]) -> tuple[list[Any], dict[str, Any]]:
    url = database.server.url(database.name)
    run = subprocess.run(
        [install.base(VERSIONS[database.version]) / "bin" / "python", "-B", "-c", SCRIPT, ROOT / "plugins" / "agent"],
        input=json.dumps(requests),
        env={
            "PATH": "/usr/bin:/bin",
            "LANG": "C.UTF-8",
            "HOME": str(home),
            "AIRFLOW_HOME": str(home),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__CORE__SQL_ALCHEMY_CONN": url,
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": url,
        },
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr[-3000:]
    answers, seen = json.loads(run.stdout.rpartition("\nANSWER")[2])
    assert all(answer["ok"] for answer in answers), answers
    return [answer["result"] for answer in answers], seen


@pytest.mark.e2e
@pytest.mark.parametrize("version", ["2.0.2", "2.2.2", "2.5.1", "2.10.3", "2.11.2"])
def test_airflow_reads_what_arrived(databases: Databases, tmp_path: Path, version: str) -> None:
    database = databases.new(version)
    made = SmallAirflow("1.10.12")
    made.run("etl", 1, conf=pickle.dumps({"ü": [1, (2, 3)], "n": None}))
    made.run("etl", 2, conf=None)
    made.task("etl", "load", 1, executor_config=pickle.dumps({"KubernetesExecutor": {"image": "a"}}))
    made.xcom("etl", "load", "json", json.dumps({"a": [1.5, "ü\\"]}).encode(), 1)
    made.xcom("etl", "load", "pickled", pickle.dumps(["ü", None]), 1)
    lane = Lane(made.engine(), database.schema())
    pieces = [{**piece, "data": base64.b64encode(lane.fetch(piece)).decode()} for piece in lane.pieces]
    common = {"bundle": "b1", "source": "s1", "columns": lane.columns, "dags": lane.dags}
    tables = list(lane.sent())
    wanted = {"tables": tables, "scope": lane.plan["scope"], "digest_key": base64.b64encode(KEY).decode()}
    answers, seen = inside(
        database,
        tmp_path,
        [
            {"op": "import_history", **common, "pieces": pieces},
            {"op": "finish_history", "tables": list(lane.columns)},
            {"op": "history_progress", "bundle": "b1"},
            {"op": "verify_history", **common, **wanted},
            {"op": "pause_dags", "action": "resume"},
            {"op": "drop_history"},
        ],
    )
    assert answers[0]["left"] == answers[0]["listed"] == [] and answers[2]["tables"] == answers[0]["tables"]
    assert {table: found for table, found in answers[3]["digests"].items() if found} == lane.sent()
    first, second = seen["runs"]
    assert first[0] == {"ü": [1, [2, 3]], "n": None} and second[0] is None  # printed as JSON, which has no tuples
    assert [first[1], first[2][:10]] == ["success", moment(1)[:10]]
    assert seen["tasks"] == [["load", "success", {"KubernetesExecutor": {"image": "a"}}]]
    assert seen["xcoms"] == [["json", {"a": [1.5, "ü\\"]}], ["pickled", ["ü", None]]]
