# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""mwaa_rest_call against the lab, which is as strict as MWAA: 10 calls a second, 64 characters, lost answers."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

pytestmark = pytest.mark.lab


@pytest.fixture(scope="module")
def name(base: Any) -> str:
    return base.environment(AirflowVersion="2.11.2")


@pytest.fixture
def call(run_module: Any, name: str) -> Any:
    return lambda path, **options: run_module("mwaa_rest_call", environment=name, path=path, **options)


def test_read_write_read(call: Any) -> None:
    pool = {"name": "etl", "slots": 3}
    assert call("/pools/etl", status_code=[404])["status"] == 404
    skipped = call("/pools", method="POST", body=pool, check=True)
    assert skipped["skipped"] and call("/pools/etl", status_code=[404])["status"] == 404
    assert call("/pools", method="POST", body=pool)["changed"]
    read = call("/pools/etl")
    assert not read["changed"] and read["body"]["slots"] == 3
    conflict = call("/pools", method="POST", body=pool)
    assert conflict["failed"] and "Airflow answered 409" in conflict["msg"]


def test_all_pages_within_the_rate(lab: Any, name: str, aws: Any, call: Any) -> None:
    from ansible_collections.mwaa.migration.plugins.module_utils._mwaa.rest import RestClient

    rest = RestClient(aws.client("mwaa"), name)
    start = time.time()
    for number in range(130):
        rest.call("POST", "/variables", body={"key": f"k{number:03}", "value": "v"})
    rows = call("/variables", all_pages=True)["body"]
    assert sorted(row["key"] for row in rows if row["key"].startswith("k")) == [
        f"k{number:03}" for number in range(130)
    ]
    refused = [line for line in lab.journal(start) if line.get("status") in (429,)]
    assert refused == []


def test_faults(lab: Any, call: Any) -> None:
    def fault(**rule: Any) -> None:
        lab.admin("POST", "faults", [{"service": "mwaa", "operation": "InvokeRestApi", **rule}])

    fault(error="ThrottlingException", times=3)
    assert call("/pools", method="POST", body={"name": "throttled", "slots": 1})["changed"]
    fault(error="InternalServerException", times=2)
    assert call("/pools")["status"] == 200
    fault(reset=True, after=True)
    lost = call("/pools", method="POST", body={"name": "lost", "slots": 1})
    assert lost["failed"] and "may have taken effect" in lost["msg"]
    assert call("/pools/lost")["body"]["slots"] == 1
    fault(error="ExpiredTokenException")
    assert "the AWS credentials have expired" in call("/pools")["msg"]


def test_paths_and_secrets(lab: Any, call: Any) -> None:
    start = time.time()
    long = call(f"/dags/{'d' * 80}")
    assert "the path has 86 characters, MWAA takes 64" in long["msg"] and lab.journal(start) == []
    body = {
        "connection_id": "db",
        "conn_type": "postgres",
        "password": "CANARY-password-08080808",
        "port": "CANARY-port-08080808",
    }
    assert "CANARY" not in json.dumps(call("/connections", method="POST", body=body))


def test_an_environment_that_is_not_there(run_module: Any) -> None:
    result = run_module("mwaa_rest_call", environment="nowhere", path="/dags")
    assert "it does not exist" in result["msg"] and result["error"]["code"] == "ResourceNotFoundException"
