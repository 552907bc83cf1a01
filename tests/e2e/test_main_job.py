# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The main job, real to real: Airflow 2.10.3 on a host into an environment of 2.11.2. The tests run in their order."""

from __future__ import annotations

import json
import os
import re
import signal
import time
from pathlib import Path

import pytest
from conftest import ROOT, Leaks, kill_group, wait_for

pytestmark = pytest.mark.e2e
STAGES = ("export", "base", "preflight", "publish", "environment", "import", "verify")
REPORT = ROOT / "build/rehearsal/report.json"


@pytest.fixture(scope="module")
def leaks(lab):
    """What the first run left behind on this machine while it ran."""
    return Leaks(lab)


@pytest.fixture(scope="module")
def first(lab, leaks):
    """The first run, at the highest verbosity that users choose; its output is searched for secrets below."""
    REPORT.unlink(missing_ok=True)
    with leaks.watched():
        return lab.play("rehearse.yml", "-vvv", "--diff", env={"TMPDIR": str(leaks.tmp)})


def test_everything_is_equal_or_listed(first):
    assert first.returncode == 0, first.output[-4000:]
    report = json.loads(REPORT.read_text())
    assert report["source"]["airflow_version"] == "2.10.3"
    assert report["target"]["airflow_version"] == "2.11.2"
    assert [stage["name"] for stage in report["stages"]] == list(STAGES)
    assert [stack["name"] for stack in report["stacks"]] == ["analytics-lab-base", "analytics-lab-environment"]
    assert_equal_or_listed(report)


def assert_equal_or_listed(report):
    for item in report["not_carried"]:
        assert item["reason"], item
    for kind, parity in report["parity"].items():
        listed = sum(item["kind"] in (kind, kind[:-1], "dag_file") for item in report["not_carried"])
        assert parity["source"] > 0, f"the seeds hold no {kind}"
        assert parity["equal"] + listed >= parity["source"], (kind, parity, report["not_carried"])


def test_the_target_is_paused(lab, first):
    assert lab.query("select dag_id from dag where not is_paused and dag_id <> 'mwaa_agent'") == []


def test_no_secret_was_seen_anywhere(lab, first, leaks):
    assert "CANARY-" not in first.output
    assert leaks.found == []  # process arguments and temporary files, while it ran
    assert not [key for key, body in lab.objects() if b"CANARY-" in body]
    assert not [call for call in lab.journal() if "CANARY-" in json.dumps(call)]
    assert "CANARY-" not in lab.dump()  # the whole database of the target, its audit log first of all
    assert "CANARY-" not in REPORT.read_text()


def test_a_second_run_changes_nothing(lab, first):
    play = lab.play("migrate.yml")
    assert play.returncode == 0, play.output[-3000:]
    assert play.changed == 0, play.output[-3000:]


def test_check_mode_writes_nothing(lab, first):
    before = len(lab.journal())
    play = lab.play("migrate.yml", "--check", "--diff")
    assert play.returncode == 0, play.output[-3000:]
    assert [call for call in lab.journal()[before:] if call["access"] == "write"] == []


CHANGE_FOUR = """
import json
from airflow.models import Connection, Pool, Variable
from airflow.utils.session import create_session
with create_session() as session:
    variable = session.query(Variable).order_by(Variable.key).first()
    variable.set_val("changed at the source")
    connection = session.query(Connection).filter(Connection._password.isnot(None)).order_by(Connection.conn_id).first()
    connection.set_password("CANARY-changed-0badc0de")
    pool = session.query(Pool).filter(Pool.pool != "default_pool").order_by(Pool.pool).first()
    pool.slots += 1
    print("\\n@@" + json.dumps([variable.key, connection.conn_id, pool.pool]))
"""


def test_four_changes_at_the_source_are_four_changes(lab, first):
    dags = Path(lab.status()["source"]["airflow_home"], "dags")
    dag = next(path for path in sorted(dags.glob("*.py")) if "with DAG" in path.read_text())
    dag.write_text(dag.read_text() + "\n# changed at the source\n")
    marked = json.loads(lab.source_python(CHANGE_FOUR).split("@@")[1])
    play = lab.play("migrate.yml", "-v")
    assert play.returncode == 0, play.output[-3000:]
    assert changed_items(play.output) == sorted([*marked, dag.name])


def changed_items(output: str) -> list[str]:
    """Ids of the items that import reports as changed, and names of the files that publish uploaded."""
    found = []
    for line in output.splitlines():
        if line.startswith("changed: [lab_target]") and "=> {" in line:
            result = json.loads(line[line.index("=> ") + 3 :])
            changed = [item for item in result["results"] if item["changed"]]
            found += [item["id"] if "id" in item else Path(item["key"]).name for item in changed]
    return sorted(found)


def test_without_stacks_killed_in_every_stage_a_new_run_ends_equal(lab, first, monkeypatch):
    monkeypatch.setenv("MWAA_LAB_ENVIRONMENT", "killed")
    direct = ("-e", "migration_deploy=direct")  # with stacks: tests/integration/test_stacks_killed.py
    for stage in [stage for stage in STAGES if stage != "base"]:
        process = lab.start("migrate.yml", *direct)
        for line in process.stdout:
            if re.search(rf"^TASK \[mwaa.migration.{stage} : (?!Validating)", line):
                break
        else:
            pytest.fail(f"stage {stage} was not reached")
        time.sleep(2)
        kill_group(process)
    play = lab.play("rehearse.yml", *direct)
    assert play.returncode == 0, play.output[-3000:]
    report = json.loads(REPORT.read_text())
    assert_equal_or_listed(report)
    assert report["stacks"] == []


def test_environment_killed_during_the_import_a_new_run_ends_equal(lab, first):
    lab.source_python(CHANGE_FOUR)
    process = lab.start("migrate.yml")
    for line in process.stdout:
        if line.startswith("TASK [mwaa.migration.import : Import connections"):
            break
    for pid in lab.status()["environments"][0]["pids"]:
        os.kill(pid, signal.SIGKILL)
    process.communicate()  # it may fail, with a sentence
    wait_for(lab.healthy, 120, "the environment's Airflow is started again")
    play = lab.play("rehearse.yml")
    assert play.returncode == 0, play.output[-3000:]
    assert_equal_or_listed(json.loads(REPORT.read_text()))


def test_nothing_is_left_running(lab, first):
    lab.down()
    assert lab.processes() == []
