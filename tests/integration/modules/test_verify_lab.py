# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""mwaa_verify against a stub environment. The agent's answer is computed here, from what a test says is there."""

from __future__ import annotations

import base64
import copy
import json
import re
import time
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.mwaa.migration.plugins.module_utils import _verify
from ansible_collections.mwaa.migration.plugins.module_utils._bundle import canonical, digest
from mwaa_lab.cli import SECRET_KEY

pytestmark = pytest.mark.lab

STATE: dict[str, dict[str, Any]] = {
    "variables": {"plain": "1e5", "token": "CANARY-variable-0badcafe"},
    "connections": {"db": {"conn_type": "postgres", "host": "h", "password": "CANARY-password-0badcafe"}},
    "pools": {"default_pool": {"slots": 128, "description": "Default pool", "include_deferred": False}},
}
FILES = {
    "dags/calm.py": b"from airflow import DAG\nDAG('calm')\n",
    "dags/eager.py": b"from airflow import DAG\nDAG('eager', is_paused_upon_creation=False)\n",
    "requirements.txt": b"--constraint x\n",
}
INVENTORY = {
    "dags": [
        {"dag_id": "calm", "is_paused": True, "fileloc": "/opt/airflow/dags/calm.py"},
        {"dag_id": "eager", "is_paused": False, "fileloc": "/opt/airflow/dags/eager.py"},
    ],
    "not_carried": [{"kind": "option", "id": "core.executor", "reason": "MWAA sets it itself"}],
    "findings": ["plugins: 3 compiled caches are left out"],
}


class Environment:
    """A stub environment with a bundle published to it; `state` is what its Airflow holds."""

    def __init__(
        self, base: Any, run_module: Any, make_bundle: Any, monkeypatch: Any, version: str = "2.11.2", **more: Any
    ):
        self.state = copy.deepcopy(STATE)
        self.runs = 0
        self.bundle = make_bundle(FILES, inventory=INVENTORY, **{**STATE, **more})
        folder = f"v{time.time_ns()}/dags"
        published = run_module("mwaa_dags_sync", source=self.bundle, bucket=base.bucket, dag_s3_path=folder)
        self.name = base.environment(
            DagS3Path=folder,
            AirflowVersion=version,
            RequirementsS3Path=published["requirements_s3_path"],
            RequirementsS3ObjectVersion=published["requirements_s3_object_version"],
        )
        self.published = published
        monkeypatch.setattr(_verify.AgentLane, "install", lambda _lane: False)
        monkeypatch.setattr(_verify.AgentLane, "run", self._answer)

    def _answer(self, request: dict[str, Any], timeout: float) -> dict[str, Any]:
        self.runs += 1
        key = base64.b64decode(request["digest_key"])
        digests = {
            kind: {
                identifier: {
                    name: digest(key, kind, identifier, name, value) for name, value in canonical(kind, item).items()
                }
                for identifier, item in items.items()
            }
            for kind, items in self.state.items()
        }
        return {"digests": digests, "errors": {}, "notes": [], "airflow_version": "2.11.2"}


@pytest.fixture
def demo(base: Any, run_module: Any, make_bundle: Any, monkeypatch: pytest.MonkeyPatch) -> Environment:
    return Environment(base, run_module, make_bundle, monkeypatch)


def test_what_airflow_3_cannot_take_is_listed_also_when_the_import_ran_elsewhere(
    base: Any, run_module: Any, make_bundle: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    odd = {"my conn!": {"conn_type": "http", "host": "x"}, "plain": {"conn_type": "http", "host": "x"}}
    demo = Environment(base, run_module, make_bundle, monkeypatch, "3.2.1", connections=odd)
    result = run_module("mwaa_verify", environment=demo.name, bundle=demo.bundle, fail=False, check=True)
    assert ("connection", "my conn!") in [(item["kind"], item["id"]) for item in result["not_carried"]]
    errors = [finding["where"] for finding in result["findings"] if finding["severity"] == "error"]
    assert "connection plain" in errors and "connection my conn!" not in errors


def test_equal_or_listed(demo: Environment, run_module: Any) -> None:
    result = run_module("mwaa_verify", environment=demo.name, bundle=demo.bundle)
    assert result["equal"] is True and not result["changed"], result
    assert result["parity"] == {
        "variables": {"source": 2, "target": 2, "equal": 2},
        "connections": {"source": 1, "target": 1, "equal": 1},
        "pools": {"source": 1, "target": 1, "equal": 1},
        "dags": {"source": 2, "target": 1, "equal": 1},
    }
    assert [(item["kind"], item["id"]) for item in result["not_carried"]] == [
        ("dag_file", "eager.py"),
        ("option", "core.executor"),
    ]
    assert result["findings"] == [
        {"severity": "note", "where": "source", "what": "plugins: 3 compiled caches are left out", "mend": ""}
    ]
    assert result["source"]["airflow_version"] == "2.10.3" and result["target"]["airflow_version"] == "2.11.2"


def test_a_difference_fails_with_ids_and_fields_and_no_values(demo: Environment, run_module: Any) -> None:
    demo.state["connections"]["db"]["password"] = "CANARY-other-0badcafe"
    del demo.state["variables"]["token"]
    result = run_module("mwaa_verify", environment=demo.name, bundle=demo.bundle)
    assert result["failed"] and result["equal"] is False
    assert result["msg"].startswith(
        f"the environment {demo.name} does not equal the bundle: variable token (is missing in the environment);"
        " connection db (password differs)"
    )
    assert result["parity"]["variables"] == {"source": 2, "target": 1, "equal": 1}
    assert "CANARY-" not in str(result).replace("CANARY-secret-key-00000000", "")

    listed = [{"kind": "variable", "id": "token", "reason": "left out on purpose"}]
    result = run_module("mwaa_verify", environment=demo.name, bundle=demo.bundle, not_carried=listed, fail=False)
    assert not result.get("failed") and result["equal"] is False
    assert [finding["where"] for finding in result["findings"] if finding["severity"] == "error"] == ["connection db"]


def test_a_dag_file_that_somebody_changed(demo: Environment, lab: Any, run_module: Any) -> None:
    key = f"{demo.published['dag_s3_path']}/calm.py"
    lab.client("s3").put_object(Bucket=demo.published["bucket"], Key=key, Body=FILES["dags/calm.py"] + b"# x\n")
    result = run_module("mwaa_verify", environment=demo.name, bundle=demo.bundle)
    assert result["failed"] and "DAG file calm.py (is another one in the bucket)" in result["msg"]


def test_an_import_error_is_listed_and_not_waited_for(demo: Environment, lab: Any, run_module: Any) -> None:
    key = f"{demo.published['dag_s3_path']}/calm.py"
    lab.client("s3").put_object(Bucket=demo.published["bucket"], Key=key, Body=b"from airflow import DAG\nDAG('calm'\n")
    result = run_module("mwaa_verify", environment=demo.name, bundle=demo.bundle)
    assert "DAG file calm.py (is another one in the bucket)" in result["msg"]
    listed = {(item["kind"], item["id"]): item["reason"] for item in result["not_carried"]}
    assert listed["dag_file", "calm.py"].startswith("cannot be imported in the environment (1 DAG missing): ")


def test_check_mode_makes_no_run_and_writes_nothing(demo: Environment, lab: Any, run_module: Any) -> None:
    before = time.time()
    result = run_module("mwaa_verify", environment=demo.name, bundle=demo.bundle, fail=False, check=True)
    assert demo.runs == 0
    assert [line for line in lab.journal(before) if line["access"] == "write"] == []
    # the stub's own state is empty: what REST shows is compared, and missing is missing
    assert result["differences"]["variables"]["missing"] == ["plain", "token"]


def test_an_environment_that_is_not_there(run_module: Any, make_bundle: Any) -> None:
    bundle = make_bundle(FILES, inventory=INVENTORY, **STATE)
    result = run_module("mwaa_verify", environment="nowhere", bundle=bundle)
    assert result["failed"] and "the environment nowhere does not exist, so it cannot be verified" in result["msg"]
    check = run_module("mwaa_verify", environment="nowhere", bundle=bundle, check=True)
    assert check["equal"] is None
    assert check["parity"]["variables"] == {"source": 2, "target": None, "equal": None}


def dag(name: str) -> bytes:
    return f"from airflow import DAG\nDAG({name!r})\n".encode()


class Two(Environment):
    """Two sources in one environment: sales whole in a folder, finance with a choice of its files and state."""

    def __init__(self, base: Any, run_module: Any, make_bundle: Any, monkeypatch: Any):
        self.runs = 0
        self.state = {
            "variables": {
                "region": "eu",
                "sales_token": "CANARY-sales-0badcafe",
                "finance_token": "CANARY-fin-0badcafe",
            },
            "connections": {},
            "pools": {},
        }
        files = {"requirements.txt": b"boto3\n", "plugins/shared.py": b"x = 1\n"}
        sales = make_bundle(
            {"dags/team/orders.py": dag("orders"), **files},
            inventory={"dags": [{"dag_id": "orders", "fileloc": "/srv/sales/dags/team/orders.py"}]},
            variables={"region": "eu", "token": "CANARY-sales-0badcafe"},
        )
        finance = make_bundle(
            {"dags/ledger.py": dag("ledger"), "dags/sandbox/try.py": dag("try"), "requirements.txt": b"xlrd==2.0.1\n"},
            inventory={
                "dags": [
                    {"dag_id": "ledger", "fileloc": "/srv/finance/dags/ledger.py"},
                    {"dag_id": "try", "fileloc": "/srv/finance/dags/sandbox/try.py"},
                ]
            },
            variables={"region": "eu", "token": "CANARY-fin-0badcafe", "tmp_1": "x"},
        )
        rename = [{"match": "token", "to": "{}_token"}]

        def renamed(team: str) -> list[dict[str, str]]:
            return [{**rule, "to": rule["to"].format(team)} for rule in rename]

        self.placed = [
            {"source": sales, "into": "sales"},
            {"source": finance, "into": "finance", "exclude": ["sandbox/"]},
        ]
        self.sources = [
            {**self.placed[0], "select": {"variables": {"rename": renamed("sales")}}},
            {**self.placed[1], "select": {"variables": {"exclude": ["tmp_*"], "rename": renamed("finance")}}},
        ]
        folder = f"v{time.time_ns()}/dags"
        self.published = run_module("mwaa_dags_sync", sources=self.placed, bucket=base.bucket, dag_s3_path=folder)
        self.name = base.environment(
            DagS3Path=folder,
            AirflowVersion="2.11.2",
            **{
                field: self.published[option]
                for field, option in (
                    ("RequirementsS3Path", "requirements_s3_path"),
                    ("RequirementsS3ObjectVersion", "requirements_s3_object_version"),
                    ("PluginsS3Path", "plugins_s3_path"),
                    ("PluginsS3ObjectVersion", "plugins_s3_object_version"),
                )
            },
        )
        monkeypatch.setattr(_verify.AgentLane, "install", lambda _lane: False)
        monkeypatch.setattr(_verify.AgentLane, "run", self._answer)


@pytest.fixture
def two(base: Any, run_module: Any, make_bundle: Any, monkeypatch: pytest.MonkeyPatch) -> Two:
    return Two(base, run_module, make_bundle, monkeypatch)


def test_two_sources_in_one_environment(two: Two, run_module: Any) -> None:
    result = run_module("mwaa_verify", environment=two.name, sources=two.sources)
    assert result["equal"] is True and two.runs == 2, result
    assert result["parity"]["variables"] == {"source": 4, "target": 4, "equal": 4}
    assert result["parity"]["dags"] == {"source": 2, "target": 2, "equal": 2}
    assert result["findings"] == []
    assert [(item["kind"], item["id"]) for item in result["not_carried"]] == [("dag", "try"), ("variable", "tmp_1")]
    assert [one["parity"]["dags"]["equal"] for one in result["sources"]] == [1, 1]
    assert result["differences"]["variables"]["extra"] == []


def test_what_is_wrong_is_said_of_the_source_that_it_is_of(two: Two, lab: Any, run_module: Any) -> None:
    two.state["variables"]["finance_token"] = "CANARY-other-0badcafe"
    key = f"{two.published['dag_s3_path']}/sales/team/orders.py"
    lab.client("s3").put_object(Bucket=two.published["bucket"], Key=key, Body=dag("orders") + b"# x\n")
    result = run_module("mwaa_verify", environment=two.name, sources=two.sources)
    finance = two.sources[1]["source"]
    assert result["msg"].startswith(
        f"the environment {two.name} does not equal the bundles: DAG file sales/team/orders.py (is another one in the"
        f" bucket); variable finance_token of {finance} (value differs). See findings"
    ), result["msg"]
    assert [one["equal"] for one in result["sources"]] == [False, False]
    # what one source lists is no excuse for another
    listed = [{"kind": "variable", "id": "finance_token", "reason": "left out on purpose"}]
    for number in (0, 1):
        its = [{**item, "source": two.sources[number]["source"]} for item in listed]
        result = run_module("mwaa_verify", environment=two.name, sources=two.sources, not_carried=its, fail=False)
        assert result["sources"][1]["equal"] is (number == 1)


def test_one_source_in_a_folder(base: Any, run_module: Any, make_bundle: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    two = Two(base, run_module, make_bundle, monkeypatch)
    folder = f"v{time.time_ns()}/dags"
    (placed, given) = (two.placed[1], two.sources[1])
    run_module("mwaa_dags_sync", **placed, bucket=base.bucket, dag_s3_path=folder)
    name = base.environment(DagS3Path=folder, AirflowVersion="2.11.2")
    told = {"bundle": given["source"], **{option: given[option] for option in ("into", "exclude", "select")}}
    result = run_module("mwaa_verify", environment=name, **told)
    assert result["equal"] is True and result["parity"]["dags"]["equal"] == 1 and "sources" not in result


PLAYBOOK = """
- hosts: localhost
  gather_facts: false
  module_defaults:
    group/mwaa.migration.aws: {secret_key: "{{ lookup('ansible.builtin.env', 'LAB_SECRET_KEY') }}"}
  roles: [mwaa.migration.verify]
"""


def test_the_role_shows_a_page_also_where_it_fails(
    base: Any, make_bundle: Any, play: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LAB_SECRET_KEY", SECRET_KEY)
    (tmp_path / "verify.yml").write_text(PLAYBOOK)
    code, output = play(
        tmp_path / "verify.yml",
        migration_environment=base.environment(AirflowVersion="2.11.2"),
        migration_bundle=make_bundle({}, variables={"plain": "1e5"}),
        migration_kms_key_id="",
        verify_report=str(tmp_path / "report.json"),
        verify_wait_timeout=60,
    )
    assert code == 2 and "variable plain (is missing" in output, output
    assert re.search(r"\n Variables +1 +0 +0 ", output) and "\x1b" not in output, output
    parity = json.loads((tmp_path / "report.json").read_text())["parity"]
    assert parity["variables"] == {"source": 1, "target": 0, "equal": 0}
