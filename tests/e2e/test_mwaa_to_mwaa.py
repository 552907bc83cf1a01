# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From an MWAA environment of 2.10.3 into one of 2.11.2, both real Airflows, with run history. The tests run in their
order.
"""

from __future__ import annotations

import json

import pytest
from conftest import Lab, Leaks
from test_main_job import REPORT, assert_equal_or_listed

pytestmark = pytest.mark.e2e

OLD, NEW = "analytics-old", "analytics-lab"
INVENTORY = ("lab-hosts/mwaa.yml", "lab/target.yml", "lab/inside.yml")
WITHOUT_STACKS = ("-e", "migration_deploy=direct", "-e", "migration_history=true")


class TwoEnvironments(Lab):
    """`name`: the environment that is looked into."""

    inventory = (
        *(word for path in INVENTORY for word in ("-i", f"inventories/{path}")),
        *("-e", "@inventories/lab/group_vars/all.yml"),
    )
    name = OLD

    @property
    def shown(self) -> dict:
        return next(one for one in self.status()["environments"] if one["name"] == self.name)


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    lab = TwoEnvironments(tmp_path_factory.mktemp("lab"))
    try:
        lab.up("--source", "mwaa:2.10.3", "--seed-data", "small")
        yield lab
    finally:
        lab.command("down", check=False)


@pytest.fixture(scope="module")
def before(two):
    """What the source was: rows by table, and what lay in its bucket."""
    two.name = OLD
    return {"rows": rows(two), "bucket": bucket(two), "journal": len(two.journal())}


@pytest.fixture(scope="module")
def leaks(two):
    return Leaks(two)


@pytest.fixture(scope="module")
def first(two, before, leaks):
    REPORT.unlink(missing_ok=True)
    with leaks.watched():
        return two.play("rehearse.yml", "-vvv", "--diff", *WITHOUT_STACKS, env={"TMPDIR": str(leaks.tmp)})


def rows(lab: TwoEnvironments) -> dict[str, int]:
    """Of tables that the source's own DAGs do not change by themselves."""
    tables = ("variable", "connection", "slot_pool", "ab_user", "ab_role", "ab_view_menu", "ab_permission_view")
    return {table: int(lab.query(f"select count(*) from {table}")[0]) for table in tables}


def bucket(lab: TwoEnvironments) -> dict[str, str]:
    """{key version: ETag} of everything in the source's bucket."""
    pages = lab.client("s3").get_paginator("list_object_versions").paginate(Bucket="mwaa-lab-source")
    found = [one for page in pages for one in [*page.get("Versions", []), *page.get("DeleteMarkers", [])]]
    return {f"{one['Key']} {one['VersionId']}": one.get("ETag", "deleted") for one in found}


def test_everything_is_equal_or_listed(first):
    assert first.returncode == 0, first.output[-4000:]
    report = json.loads(REPORT.read_text())
    assert report["source"]["airflow_version"] == "2.10.3" and report["target"]["airflow_version"] == "2.11.2"
    history = report["parity"].pop("history")
    assert_equal_or_listed(report)
    assert history["dag_run"]["source"] >= 6 and history["task_instance"]["source"] > 0
    for table, parity in history.items():
        assert parity["equal"] == parity["source"], (table, parity)


def test_the_agent_is_gone_from_the_source_and_nothing_else_was_touched(two, before, first):
    assert first.returncode == 0
    two.name = OLD
    assert rows(two) == before["rows"]
    assert bucket(two) == before["bucket"]
    for table in ("dag", "dag_run", "task_instance", "log", "xcom", "serialized_dag"):
        assert two.query(f"select dag_id from {table} where dag_id like 'mwaa_agent%'") == [], table
    assert two.query("select dag_id from dag where is_paused order by dag_id") == [
        "finance_month_end",
        "legacy_2x_only",
        "load_us",
    ]


def test_all_that_was_written_at_the_source_was_the_agents(two, before, first):
    ours = ("dags/mwaa_migration/", f"mwaa-migration/{OLD}/")
    for call in two.journal()[before["journal"] :]:
        keys = call["keys"]
        if call["caller"] != "user" or call["access"] != "write":
            continue
        if call["service"] == "s3" and keys.get("bucket") == "mwaa-lab-source":
            assert all(key.startswith(ours) for key in keys.get("keys") or [keys["key"]]), call
        elif call["service"] == "mwaa" and keys.get("environment") == OLD:
            assert keys["path"].startswith("/dags/mwaa_agent"), call


def test_no_secret_was_seen_anywhere(two, first, leaks):
    assert "CANARY-" not in first.output
    assert leaks.found == []
    assert not [key for key, body in two.objects() if b"CANARY-" in body]
    assert not [call for call in two.journal() if "CANARY-" in json.dumps(call)]
    assert "CANARY-" not in REPORT.read_text()
    two.name = NEW
    assert "CANARY-" not in two.dump()


def test_a_second_run_changes_nothing(two, first):
    """But for what ran at the source meanwhile: its DAGs go on."""
    two.name = OLD
    lying = bucket(two)
    play = two.play("migrate.yml", *WITHOUT_STACKS, "-e", "migration_history=false")
    assert play.returncode == 0, play.output[-3000:]
    assert play.changed == 0, play.output[-3000:]
    assert bucket(two) == lying


def test_a_look_writes_nothing(two, first):
    before = len(two.journal())
    play = two.play("migrate.yml", "--check", "--diff", *WITHOUT_STACKS)
    assert play.returncode == 0, play.output[-3000:]
    assert [call for call in two.journal()[before:] if call["access"] == "write" and call["caller"] == "user"] == []


def test_what_a_killed_export_leaves_the_cleanup_takes_out(two, first):
    """The agent is kept on purpose; both environments are cleaned up in one pass."""
    play = two.play("migrate.yml", "--tags", "export", *WITHOUT_STACKS[:2], "-e", "export_source_agent=kept")
    assert play.returncode == 0, play.output[-3000:]
    two.name = OLD
    assert two.query("select dag_id from dag where dag_id = 'mwaa_agent'") == ["mwaa_agent"]
    play = two.play("cleanup.yml", "-v")
    assert play.returncode == 0, play.output[-3000:]
    assert f"Delete environment {OLD}" in play.output
    for two.name in (OLD, NEW):
        assert two.query("select dag_id from dag where dag_id like 'mwaa_agent%'") == []
