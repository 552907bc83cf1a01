# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The main job, real to real: Airflow 2.10.3 on a host into an environment of 2.11.2. The tests run in their order."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path

import pytest
from conftest import ROOT, kill_group, wait_for

pytestmark = pytest.mark.e2e
REPORT = ROOT / "build/rehearsal/report.json"


@pytest.fixture(scope="module")
def first(lab):
    """The first run, at the highest verbosity that users choose; its output is searched for secrets below."""
    REPORT.unlink(missing_ok=True)
    return lab.play("rehearse.yml", "-vvv", "--diff")


def test_everything_is_equal_or_listed(first):
    assert first.returncode == 0, first.output[-4000:]
    report = json.loads(REPORT.read_text())
    assert report["source"]["airflow_version"] == "2.10.3"
    assert report["target"]["airflow_version"] == "2.11.2"
    assert [stage["name"] for stage in report["stages"]] == ["export", "publish", "environment", "import", "verify"]
    listed = {kind: 0 for kind in report["parity"]}
    for item in report["not_carried"]:
        assert item["reason"], item
    for kind, parity in report["parity"].items():
        assert parity["source"] > 0, f"the seeds hold no {kind}"
        listed[kind] = sum(item["kind"] in (kind, kind.rstrip("s")) for item in report["not_carried"])
        assert parity["equal"] + listed[kind] >= parity["source"], (kind, parity, report["not_carried"])


def test_the_target_is_paused(lab, first):
    environment = lab.status()["environments"][0]
    rows = query(environment["database_url"], "select dag_id from dag where not is_paused and dag_id <> 'mwaa_agent'")
    assert rows == []


def test_a_second_run_changes_nothing(lab, first):
    play = lab.play("migrate.yml")
    assert play.returncode == 0, play.output[-3000:]
    assert play.changed == 0, play.output[-3000:]


def test_check_mode_writes_nothing(lab, first):
    before = len(lab.journal())
    play = lab.play("migrate.yml", "--check", "--diff")
    assert play.returncode == 0, play.output[-3000:]
    writes = [call for call in lab.journal()[before:] if call["access"] == "write"]
    assert writes == []


CHANGE_FOUR = """
import airflow.settings
from airflow.models import Connection, Pool, Variable
from airflow.utils.session import create_session
with create_session() as session:
    variable = session.query(Variable).order_by(Variable.key).first()
    variable.set_val("changed at the source")
    connection = session.query(Connection).filter(Connection._password.isnot(None)).order_by(Connection.conn_id).first()
    connection.set_password("CANARY-changed-0badc0de")
    pool = session.query(Pool).filter(Pool.pool != "default_pool").order_by(Pool.pool).first()
    pool.slots += 1
    print("\\n@@", variable.key, connection.conn_id, pool.pool)
"""


def test_four_changes_at_the_source_are_four_changes(lab, first):
    source = lab.status()["source"]
    dag = next(path for path in sorted(Path(source["airflow_home"], "dags").glob("*.py")) if "DAG" in path.read_text())
    dag.write_text(dag.read_text() + "\n# changed at the source\n")
    marked = lab.source_python(CHANGE_FOUR).split("@@")[1].split()
    play = lab.play("migrate.yml", "-v")
    assert play.returncode == 0, play.output[-3000:]
    changed = changed_items(play.output)
    assert changed == sorted([*marked, dag.name])


def changed_items(output: str) -> list[str]:
    """Ids of the items that the stages report as changed, and the files that were uploaded."""
    found = []
    for line in output.splitlines():
        if line.startswith("changed: ") and "=> {" in line:
            result = json.loads(line[line.index("=> ") + 3 :])
            found += [item["id"] for item in result.get("results", []) if item.get("changed")]
            found += [Path(name).name for name in result.get("files", {}).get("uploaded", [])]
    return sorted(found)


def query(database_url: str, sql: str) -> list[str]:
    done = subprocess.run(
        ["psql", database_url.replace("postgresql+psycopg2", "postgresql"), "-Atc", sql],
        capture_output=True, text=True, check=True,
    )
    return done.stdout.splitlines()
