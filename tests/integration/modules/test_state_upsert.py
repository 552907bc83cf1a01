# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The three upsert modules by lane rest, against stub environments of both majors."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.lab

SECRET = "CANARY-state-00c0ffee"
VARIABLES = [
    {"key": "region", "value": "eu-central-1", "description": "where"},
    {"key": "db_password", "value": SECRET},
    {"key": "scientific", "value": "1e5"},
    {"key": "empty", "value": ""},
]
CONNECTIONS = [
    {"conn_id": "db", "conn_type": "postgres", "host": "h", "port": 5432, "login": "l", "password": SECRET},
    {"conn_id": "api", "conn_type": "http", "extra": '{ "token":"' + SECRET + '" }'},
]
POOLS = [{"name": "p", "slots": 3, "description": "d"}, {"name": "default_pool", "slots": 64}]
MODULES = {"variables": VARIABLES, "connections": CONNECTIONS, "pools": POOLS}


def module(kind: str) -> str:
    return f"mwaa_{kind[:-1]}_upsert"


@pytest.fixture(params=["2.11.2", "3.2.1"])
def environment(request: pytest.FixtureRequest, base: Any) -> str:
    return base.environment(AirflowVersion=request.param)


def writes(lab: Any, since: float) -> list[str]:
    """But for the lock, which every run that may write takes."""
    found = [f"{line['operation']} {line.get('keys')}" for line in lab.journal(since) if line["access"] == "write"]
    return [line for line in found if "/locks/" not in line]


def shown(mwaa: Any, name: str, path: str) -> Any:
    return mwaa.invoke_rest_api(Name=name, Method="GET", Path=path)["RestApiResponse"]


@pytest.mark.parametrize("kind", MODULES)
def test_check_mode_of_a_bundle_writes_nothing(
    lab: Any, run_module: Any, make_bundle: Any, environment: str, kind: str
) -> None:
    state = {next(iter(row.values())): row for row in MODULES[kind]}
    bundle = make_bundle({}, **{kind: state})
    began = time.time()
    check = run_module(module(kind), environment=environment, bundle=bundle, check=True, diff=True)
    assert check["changed"] and writes(lab, began) == []
    assert {row["action"] for row in check["results"]} <= {"created", "updated"}
    assert SECRET not in json.dumps(check) and len(check["diff"]) == len(state)


@pytest.mark.parametrize("kind", MODULES)
def test_from_a_list(lab: Any, run_module: Any, mwaa: Any, environment: str, kind: str) -> None:
    given = {"environment": environment, kind: MODULES[kind]}
    began = time.time()
    check = run_module(module(kind), **given, check=True, diff=True)
    assert check["changed"] and writes(lab, began) == [] and SECRET not in json.dumps(check)
    first = run_module(module(kind), **given)
    assert first["changed"] and first["counts"] == check["counts"] and not first["not_carried"]
    assert first["lane"] == "rest" and first["lane_reason"].endswith(".")
    assert [row["id"] for row in first["results"]] == [list(row.values())[0] for row in MODULES[kind]]
    again = run_module(module(kind), **given)
    # what REST hides is written again when there is no key and no bundle, and that is said
    hidden = {"connections": {"db", "api"}, "pools": set(), "variables": set()}[kind]
    if kind == "variables" and "Airflow 3" in first["lane_reason"]:
        hidden = {"db_password", "scientific"}  # 3.x shows 1e5 as 100000.0
    assert {row["id"] for row in again["results"] if row["changed"]} == hidden
    assert all("cannot be read back" in row["reason"] for row in again["results"] if row["changed"])


def test_conflicts_write_nothing_and_are_all_named(lab: Any, run_module: Any, environment: str) -> None:
    run_module("mwaa_variable_upsert", environment=environment, variables=VARIABLES[:1])
    began = time.time()
    changed = [{"key": "region", "value": "other"}, {"key": "new", "value": "x"}]
    failed = run_module("mwaa_variable_upsert", environment=environment, variables=changed, on_conflict="fail")
    assert failed["failed"] and failed["conflicts"] == ["region"] and writes(lab, began) == []
    kept = run_module("mwaa_variable_upsert", environment=environment, variables=changed, on_conflict="keep")
    assert {row["id"]: row["action"] for row in kept["results"]} == {"region": "kept", "new": "created"}


def test_prune_deletes_what_is_not_wanted(run_module: Any, mwaa: Any, environment: str) -> None:
    run_module(
        "mwaa_pool_upsert", environment=environment, pools=[{"name": "old", "slots": 1}, {"name": "stays", "slots": 1}]
    )
    pruned = run_module("mwaa_pool_upsert", environment=environment, pools=[{"name": "stays", "slots": 1}], prune=True)
    assert {row["id"]: row["action"] for row in pruned["results"]} == {"stays": "unchanged", "old": "deleted"}
    assert {pool["name"] for pool in shown(mwaa, environment, "/pools")["pools"]} == {"default_pool", "stays"}


def test_five_bad_items_are_named_and_nothing_is_asked(lab: Any, run_module: Any) -> None:
    began = time.time()
    rows = [{"conn_id": f"c{number}"} for number in range(5)]
    failed = run_module("mwaa_connection_upsert", environment="demo", connections=rows)
    assert all(f"index {number} (conn_id 'c{number}'): conn_type is missing" in failed["msg"] for number in range(5))
    assert not lab.journal(began)


def test_an_environment_that_is_not_there(run_module: Any) -> None:
    failed = run_module("mwaa_pool_upsert", environment="nowhere", pools=POOLS)
    assert failed["msg"].startswith("environment nowhere does not exist in us-east-1")
    check = run_module("mwaa_pool_upsert", environment="nowhere", pools=POOLS, check=True)
    assert check["changed"] and check["counts"] == {"created": 2}


def test_two_thousand_in_one_task(run_module: Any, base: Any) -> None:
    environment = base.environment(AirflowVersion="3.2.1")
    rows = [{"key": f"v{number}", "value": f"value {number}"} for number in range(2000)]
    assert run_module("mwaa_variable_upsert", environment=environment, variables=rows)["counts"] == {"created": 2000}
    assert run_module("mwaa_variable_upsert", environment=environment, variables=rows)["counts"] == {"unchanged": 2000}


def test_a_storm_ends_equal(lab: Any, run_module: Any, mwaa: Any, environment: str) -> None:
    lab.admin(
        "POST",
        "faults",
        [
            {"service": "mwaa", "operation": "InvokeRestApi", "skip": 2, "times": 3, "error": "ThrottlingException"},
            {"service": "mwaa", "operation": "InvokeRestApi", "skip": 7, "times": 2, "reset": True, "after": True},
            {
                "service": "mwaa",
                "operation": "InvokeRestApi",
                "skip": 12,
                "times": 2,
                "error": "InternalServerException",
            },
        ],
    )
    rows = [{"conn_id": f"c{number}", "conn_type": "http", "password": f"{SECRET}{number}"} for number in range(20)]
    result = run_module("mwaa_connection_upsert", environment=environment, connections=rows)
    assert result["counts"] == {"created": 20}, result
    assert shown(mwaa, environment, "/connections")["total_entries"] == 20


def test_a_dead_service_says_what_was_applied(lab: Any, run_module: Any, mwaa: Any, environment: str) -> None:
    rows = [{"conn_id": f"c{number}", "conn_type": "http"} for number in range(20)]
    lab.admin(
        "POST",
        "faults",
        [{"service": "mwaa", "operation": "InvokeRestApi", "skip": 8, "times": None, "error": "AccessDeniedException"}],
    )
    failed = run_module("mwaa_connection_upsert", environment=environment, connections=rows)
    lab.admin("POST", "faults", [])
    applied = {row["id"] for row in failed["results"] if not row["error"]}
    assert failed["failed"] and 0 < len(applied) < 20 and f"{len(applied)} were applied and stay" in failed["msg"]
    assert {row["connection_id"] for row in shown(mwaa, environment, "/connections")["connections"]} == applied
    assert not run_module("mwaa_connection_upsert", environment=environment, connections=rows).get("failed")


KILLED = """
import importlib, json, sys
from ansible.module_utils.testing import patch_module_args
arguments = json.load(sys.stdin)
module = importlib.import_module("ansible_collections.mwaa.migration.plugins.modules.mwaa_connection_upsert")
with patch_module_args(arguments):
    module.main()
"""


def test_killed_midway_and_run_again_ends_equal(
    lab: Any, run_module: Any, mwaa: Any, environment: str, options: dict[str, Any]
) -> None:
    rows = [{"conn_id": f"c{number}", "conn_type": "http", "password": SECRET} for number in range(40)]
    root, began = Path(__file__).parents[3], time.time()
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        env={**lab.environment, "PYTHONPATH": str(root / ".cache/collections")},
    )
    assert process.stdin
    process.stdin.write(json.dumps({**options, "environment": environment, "connections": rows}).encode())
    process.stdin.close()
    while sum(line["operation"] == "InvokeRestApi" and line["access"] == "write" for line in lab.journal(began)) < 6:
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    time.sleep(1)  # of the ten calls a second that MWAA allows
    half = shown(mwaa, environment, "/connections")["total_entries"]
    result = run_module("mwaa_connection_upsert", environment=environment, connections=rows)
    assert 0 < half < 40 and result["counts"] == {"created": 40 - half, "updated": half}
    time.sleep(1)
    assert shown(mwaa, environment, "/connections")["total_entries"] == 40


def test_the_bundles_ledger_remembers_what_rest_hides(lab: Any, run_module: Any, make_bundle: Any, base: Any) -> None:
    environment = base.environment(AirflowVersion="2.11.2")
    state = {row["conn_id"]: {**row, "conn_id": None} for row in CONNECTIONS}
    given = {"environment": environment, "bundle": make_bundle({}, connections=state), "lane": "rest"}
    first = run_module("mwaa_connection_upsert", **given)
    assert first["counts"] == {"created": 2} and SECRET not in json.dumps(first)
    began = time.time()
    assert not run_module("mwaa_connection_upsert", **given)["changed"]
    assert not run_module("mwaa_connection_upsert", **given, check=True)["changed"] and writes(lab, began) == []


def test_secrets_manager_from_a_bundle(lab: Any, run_module: Any, mwaa: Any, make_bundle: Any, base: Any) -> None:
    """Check, run, run again; what the database had moves."""
    from ansible_collections.mwaa.migration.plugins.module_utils._state.secrets import backend_options

    options = backend_options("lane", "3.2.1")
    environment = base.environment(AirflowVersion="3.2.1", AirflowConfigurationOptions=options)
    run_module("mwaa_connection_upsert", environment=environment, connections=CONNECTIONS)
    state = {row["conn_id"]: {**row, "conn_id": None} for row in CONNECTIONS}
    url = make_bundle({}, connections=state)
    given = {"environment": environment, "bundle": url, "lane": "secrets_manager"}
    began = time.time()
    check = run_module("mwaa_connection_upsert", **given, check=True, diff=True)
    assert check["counts"] == {"created": 2} and writes(lab, began) == [] and SECRET not in json.dumps(check)
    first = run_module("mwaa_connection_upsert", **given)
    assert {(row["id"], row["store"]) for row in first["results"]} == {
        ("db", "secrets_manager"),
        ("api", "secrets_manager"),
    }
    assert first["notes"] == ["2 connections were taken out of Airflow's database"]
    assert {row["connection_id"] for row in shown(mwaa, environment, "/connections")["connections"]}.isdisjoint(state)
    began = time.time()
    again = run_module("mwaa_connection_upsert", **given)
    assert not again["changed"] and writes(lab, began) == []
    secret = lab.client("secretsmanager").get_secret_value(SecretId="lane/connections/api")["SecretString"]
    assert json.loads(secret)["extra"] == CONNECTIONS[1]["extra"]


def test_a_prefix_that_airflow_does_not_look_under(run_module: Any, base: Any) -> None:
    environment = base.environment(AirflowVersion="3.2.1")
    given = {"environment": environment, "variables": VARIABLES, "lane": "secrets_manager"}
    assert "set secrets_backend of mwaa_environment first" in run_module("mwaa_variable_upsert", **given)["msg"]
