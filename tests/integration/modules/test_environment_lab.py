# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""mwaa_environment against the lab's control plane: the ladder, operations in progress, faults, progress."""

from __future__ import annotations

import json
import subprocess
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.lab

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def given(base: Any) -> dict[str, Any]:
    """Options of an environment of its own."""
    return {
        "name": f"mod-{uuid.uuid4().hex[:8]}",
        "airflow_version": "2.11.2",
        "source_bucket": base.bucket,
        "dag_s3_path": "dags",
        "execution_role_arn": base.role,
        "subnet_ids": base.subnets,
        "security_group_ids": [base.group],
        "webserver_access_mode": "PUBLIC_ONLY",
    }


@pytest.fixture
def ensure(run_module: Any) -> Callable[..., dict[str, Any]]:
    return lambda *, check=False, **options: run_module("mwaa_environment", check=check, diff=True, **options)


def writes(lab: Any, since: float) -> list[str]:
    return [line["operation"] for line in lab.journal(since) if line["access"] == "write"]


def test_the_ladder(lab: Any, ensure: Any, given: dict[str, Any], run_module: Any) -> None:
    options = {
        **given,
        "tags": {"team": "a"},
        "airflow_configuration_options": {"core.parallelism": 8},
        "secret_configuration_options": {"smtp.smtp_password": "CANARY-smtp-07070707"},
    }
    said = []
    start = time.time()
    said.append(ensure(**options, check=True))
    assert said[-1]["changed"] and writes(lab, start) == []
    said.append(ensure(**options))
    assert said[-1]["changed"] and said[-1]["environment"]["status"] == "AVAILABLE"

    start = time.time()
    said.append(ensure(**options))
    said.append(ensure(**options, check=True))
    assert not said[-1]["changed"] and not said[-2]["changed"] and writes(lab, start) == []

    changed = {
        **options,
        "tags": {"owner": "me"},
        "max_workers": 7,
        "airflow_configuration_options": {"core.parallelism": 9},
    }
    start = time.time()
    said.append(ensure(**changed, check=True))
    assert said[-1]["changed"] and writes(lab, start) == []
    said.append(ensure(**changed))
    assert said[-1]["changed"] and said[-1]["diff"]["after"]["max_workers"] == 7
    assert sorted(writes(lab, start)) == ["TagResource", "UntagResource", "UpdateEnvironment"]
    said.append(ensure(**changed))
    assert not said[-1]["changed"]

    (found,) = run_module("mwaa_environment_info", name=given["name"])["environments"]
    assert found["tags"] == {"owner": "me"} and found["airflow_configuration_options"]["smtp.smtp_password"] == "***"
    everything = run_module("mwaa_environment_info")["environments"]
    assert given["name"] in [one["name"] for one in everything]

    start = time.time()
    said.append(ensure(name=given["name"], state="absent", check=True))
    assert said[-1]["changed"] and writes(lab, start) == []
    said.append(ensure(name=given["name"], state="absent"))
    assert said[-1]["changed"] and said[-1]["environment"] is None
    said.append(ensure(name=given["name"], state="absent"))
    assert not said[-1]["changed"]
    assert "CANARY" not in json.dumps(said)


def test_newest_requirements_are_pinned(lab: Any, base: Any, ensure: Any, given: dict[str, Any]) -> None:
    s3, key = lab.client("s3"), f"{given['name']}.txt"
    first = s3.put_object(Bucket=base.bucket, Key=key, Body=b"one")["VersionId"]
    options = {**given, "requirements_s3_path": key}
    assert ensure(**options)["environment"]["requirements_s3_object_version"] == first
    second = s3.put_object(Bucket=base.bucket, Key=key, Body=b"two")["VersionId"]
    result = ensure(**options)
    assert result["changed"] and result["environment"]["requirements_s3_object_version"] == second
    assert not ensure(**options)["changed"]


def test_a_bundle_brings_options_and_parts(
    lab: Any, ensure: Any, given: dict[str, Any], run_module: Any, make_bundle: Any
) -> None:
    url = make_bundle(
        {
            "options.json": b'{"portable": {"core.parallelism": "8", "core.dag_concurrency": "4"}}',
            "requirements.txt": b"boto3\n",
            "plugins/mine.py": b"x = 1\n",
            "dags/calm.py": b"from airflow import DAG\nDAG('calm')\n",
        }
    )
    options = {**given, "bundle": url, "dag_s3_path": f"{given['name']}/dags"}
    options["airflow_configuration_options"] = {"core.parallelism": 16}
    start = time.time()
    planned = ensure(**options, check=True)  # nothing was published yet
    assert planned["changed"] and writes(lab, start) == [] and "does not exist yet" in json.dumps(planned["warnings"])
    published = run_module(
        "mwaa_dags_sync", source=url, bucket=given["source_bucket"], dag_s3_path=options["dag_s3_path"]
    )
    environment = ensure(**options)["environment"]
    assert environment["plugins_s3_object_version"] == published["plugins_s3_object_version"]
    assert environment["requirements_s3_path"] == f"{given['name']}/requirements.txt"
    assert environment["airflow_configuration_options"] == {
        "core.dag_concurrency": "4",
        "core.dags_are_paused_at_creation": "True",
        "core.parallelism": "16",
    }
    assert not ensure(**options)["changed"]


def test_a_bucket_in_another_region(lab: Any, base: Any, ensure: Any, given: dict[str, Any]) -> None:
    bucket = f"elsewhere-{uuid.uuid4().hex[:8]}"
    lab.client("s3", region="eu-west-1").create_bucket(
        Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": "eu-west-1"}
    )
    start = time.time()
    result = ensure(**{**given, "source_bucket": bucket})
    assert f"the bucket {bucket} is in eu-west-1 and the environment in us-east-1" in result["msg"]
    assert writes(lab, start) == []


def test_an_environment_that_is_updating(lab: Any, ensure: Any, given: dict[str, Any]) -> None:
    ensure(**given)
    lab.admin("POST", "stub", {"update_seconds": 6})
    started = ensure(**given, max_workers=5, wait=False)
    assert started["changed"] and started["environment"]["status"] == "UPDATING"
    start = time.time()
    other = ensure(**given, max_workers=6)
    assert other["failed"] and "is UPDATING and nothing was changed" in other["msg"] and "max_workers" in other["msg"]
    assert writes(lab, start) == []
    # as after a kill -9 in the middle of the wait: what is asked for is what is going on
    again = ensure(**given, max_workers=5)
    assert not again["changed"] and again["operation"] == "wait" and again["environment"]["status"] == "AVAILABLE"


def test_an_update_that_fails_is_told_and_rolled_back(lab: Any, ensure: Any, given: dict[str, Any]) -> None:
    ensure(**given)
    lab.admin("POST", "stub", {"fail_update": "No matching distribution found for nope==1"})
    result = ensure(**given, max_workers=5)
    assert "is UPDATE_FAILED (INCORRECT_CONFIGURATION: No matching distribution found for nope==1)" in result["msg"]
    assert "rolled back" in result["msg"] and result["environment"]["status"] == "UPDATE_FAILED"
    lab.admin("POST", "stub", {"reset": True})
    assert ensure(**given, max_workers=5)["changed"]


def test_a_create_that_fails_is_told(lab: Any, ensure: Any, given: dict[str, Any]) -> None:
    lab.admin("POST", "stub", {"fail_create": "The role cannot be assumed"})
    assert "is CREATE_FAILED (INCORRECT_CONFIGURATION: The role cannot be assumed)" in ensure(**given)["msg"]
    assert "delete it (state: absent)" in ensure(**given)["msg"]
    lab.admin("POST", "stub", {"reset": True})
    assert ensure(name=given["name"], state="absent")["changed"]


@pytest.mark.parametrize(
    ("rule", "sentence"),
    [
        (
            {"error": "ExpiredTokenException"},
            "the AWS credentials have expired (GetEnvironment: ExpiredTokenException, request id ",
        ),
        (
            {"error": "AccessDeniedException", "message": "not you"},
            "AWS denied it: not you (GetEnvironment: AccessDeniedException",
        ),
    ],
)
def test_aws_says_no(lab: Any, ensure: Any, given: dict[str, Any], rule: dict[str, Any], sentence: str) -> None:
    start = time.time()
    lab.admin("POST", "faults", [{"service": "mwaa", "operation": "GetEnvironment", **rule}])
    result = ensure(**given)
    assert sentence in result["msg"] and result["error"]["request_id"] and writes(lab, start) == []


def test_throttles_and_lost_answers_are_nobodys_business(lab: Any, ensure: Any, given: dict[str, Any]) -> None:
    lab.admin(
        "POST",
        "faults",
        [
            {"service": "mwaa", "operation": "GetEnvironment", "error": "ThrottlingException", "times": 2},
            {"service": "mwaa", "operation": "CreateEnvironment", "reset": True, "after": True},
        ],
    )
    result = ensure(**given)
    assert result.get("environment", {}).get("status") == "AVAILABLE", result["msg"]


def test_progress_is_on_the_screen_while_it_lasts(lab: Any, given: dict[str, Any], play: Any, tmp_path: Path) -> None:
    """Through ansible-playbook: the line comes before the end; module_defaults reach amazon.aws too."""
    playbook = {
        "hosts": "localhost",
        "gather_facts": False,
        "module_defaults": {"group/mwaa.migration.aws": {"region": "us-east-1", "endpoint_url": lab.endpoint}},
        "tasks": [
            {"mwaa.migration.mwaa_environment": given},
            {"amazon.aws.aws_caller_info": {}},
        ],
    }
    (tmp_path / "play.json").write_text(json.dumps([playbook]))
    lab.admin("POST", "stub", {"create_seconds": 3})
    statuses = []

    def look(line: str, _process: subprocess.Popen[str]) -> None:
        if f"[localhost] environment {given['name']}: CREATING" in line:
            statuses.append(lab.client("mwaa").get_environment(Name=given["name"])["Environment"]["Status"])

    code, output = play(tmp_path / "play.json", on_line=look, without=("AWS_REGION", "AWS_DEFAULT_REGION"))
    assert code == 0, output
    assert "CREATING" in statuses, output  # it came while the module was waiting
    assert "changed=1" in output
