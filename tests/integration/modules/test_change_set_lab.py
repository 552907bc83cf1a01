# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""cloudformation_change_set against the lab's CloudFormation."""

from __future__ import annotations

import json
import signal
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
def stack_name() -> str:
    return f"cs-{uuid.uuid4().hex[:8]}"


@pytest.fixture
def ensure(run_module: Any, stack_name: str) -> Callable[..., dict[str, Any]]:
    """ensure(template_body=…) -> what the module returns for a stack of this test's own."""

    def run(*, check: bool = False, **options: Any) -> dict[str, Any]:
        return run_module("cloudformation_change_set", check=check, diff=True, stack_name=stack_name, **options)

    return run


def writes(lab: Any, since: float) -> list[str]:
    return [line["operation"] for line in lab.journal(since) if line["access"] == "write"]


def change_sets(lab: Any, stack_name: str) -> list[str]:
    listed = lab.client("cloudformation").list_change_sets(StackName=stack_name)["Summaries"]
    return [one["ChangeSetName"] for one in listed if one["ExecutionStatus"] != "EXECUTE_COMPLETE"]


def log_group(name: str, days: int, **more: Any) -> dict[str, Any]:
    return {
        "Resources": {
            "Group": {"Type": "AWS::Logs::LogGroup", "Properties": {"LogGroupName": name, "RetentionInDays": days}}
        },
        "Outputs": {"Name": {"Value": {"Ref": "Group"}, "Export": {"Name": f"{name}-Name"}}},
        **more,
    }


def test_create_change_and_change_nothing(lab: Any, ensure: Any, stack_name: str) -> None:
    start = time.time()
    planned = ensure(template_body=log_group(stack_name, 3), check=True)
    assert planned["changed"] and planned["changes"][0]["action"] == "Add" and writes(lab, start) == []

    made = ensure(template_body=log_group(stack_name, 3))
    assert made["changed"] and made["operation"] == "create"
    assert made["stack"]["outputs"] == {"Name": stack_name}
    assert made["stack"]["exports"] == {f"{stack_name}-Name": stack_name}

    again = ensure(template_body=json.dumps(log_group(stack_name, 3)))
    assert not again["changed"] and change_sets(lab, stack_name) == []
    assert again["stack"] == made["stack"]

    start = time.time()
    planned = ensure(template_body=log_group(stack_name, 5), check=True)
    assert planned["changes"][0]["properties"] == ["RetentionInDays"] and writes(lab, start) == []
    changed = ensure(template_body=log_group(stack_name, 5))
    assert changed["operation"] == "update" and changed["changes"][0]["replacement"] == "False"
    assert change_sets(lab, stack_name) == []


def bucket(name: str, versioning: str = "Enabled") -> dict[str, Any]:
    """A bucket as a resource of a template."""
    return {
        "Type": "AWS::S3::Bucket",
        "DeletionPolicy": "Retain",
        "UpdateReplacePolicy": "Retain",
        "Properties": {"BucketName": name, "VersioningConfiguration": {"Status": versioning}},
    }


def to_import(**buckets: str) -> list[dict[str, Any]]:
    return [
        {
            "resource_type": "AWS::S3::Bucket",
            "logical_resource_id": logical,
            "resource_identifier": {"BucketName": name},
        }
        for logical, name in buckets.items()
    ]


def test_import_then_outputs_then_another_one(lab: Any, ensure: Any, stack_name: str, new_bucket: Any) -> None:
    first, second = new_bucket(), new_bucket()
    given = {"template_body": {"Resources": {"First": bucket(first)}}, "resources_to_import": to_import(First=first)}
    start = time.time()
    assert ensure(type="import", **given, check=True)["changed"] and writes(lab, start) == []

    adopted = ensure(type="import", **given)
    assert adopted["changed"] and adopted["operation"] == "import" and adopted["drift"] == []
    assert [one["action"] for one in adopted["changes"]] == ["Import"]
    start = time.time()
    again = ensure(type="import", **given)
    assert not again["changed"] and writes(lab, start) == []

    outputs = {"Outputs": {"Name": {"Value": {"Ref": "First"}, "Export": {"Name": f"{stack_name}-Name"}}}}
    exported = ensure(template_body={**given["template_body"], **outputs})
    assert exported["changed"] and exported["stack"]["exports"] == {f"{stack_name}-Name": first}
    assert not ensure(template_body={**given["template_body"], **outputs})["changed"]
    assert not ensure(type="import", **given)["changed"]  # the stack is ahead of the import's template by now

    both = {"Resources": {"First": bucket(first), "Second": bucket(second, versioning="Suspended")}}
    more = ensure(type="import", template_body=both, resources_to_import=to_import(First=first, Second=second))
    assert more["changed"] and [one["logical_resource_id"] for one in more["changes"]] == ["Second"]
    assert more["stack"]["outputs"] == {"Name": first}
    (drifted,) = more["drift"]
    assert drifted == {
        "logical_resource_id": "Second",
        "resource_type": "AWS::S3::Bucket",
        "property_path": "/VersioningConfiguration/Status",
        "expected": "Suspended",
        "actual": "Enabled",
        "kind": "changed",
    }
    assert "the template says Suspended" in json.dumps(more["warnings"])
    known = ensure(type="import", template_body=both, resources_to_import=to_import(First=first, Second=second))
    assert not known["changed"] and known["drift"] == more["drift"]
    assert change_sets(lab, stack_name) == []


def test_a_resource_that_another_stack_holds(lab: Any, run_module: Any, stack_name: str, new_bucket: Any) -> None:
    name = new_bucket()
    given = {"template_body": {"Resources": {"First": bucket(name)}}, "resources_to_import": to_import(First=name)}
    run_module("cloudformation_change_set", stack_name=stack_name, type="import", **given)
    result = run_module("cloudformation_change_set", stack_name=f"{stack_name}-b", type="import", **given)
    assert result["failed"] and "already exists in stack" in result["msg"] and "one stack at most" in result["msg"]
    stacks = lab.client("cloudformation").list_stacks()["StackSummaries"]
    assert [
        one for one in stacks if one["StackName"] == f"{stack_name}-b" and one["StackStatus"] != "DELETE_COMPLETE"
    ] == []


def test_a_failure_names_its_first_cause_and_the_next_run_starts_anew(
    lab: Any, ensure: Any, stack_name: str, new_bucket: Any
) -> None:
    taken = new_bucket()
    body = log_group(stack_name, 3)
    body["Resources"]["Bucket"] = bucket(taken)
    failed = ensure(template_body=body)
    assert failed["failed"] and "Bucket (AWS::S3::Bucket) /Resources/Bucket: Resource of type" in failed["msg"]
    assert failed["stack"] == {"name": stack_name, "status": "ROLLBACK_COMPLETE"}
    made = ensure(template_body=log_group(stack_name, 3))
    assert made["changed"] and made["stack"]["status"] == "CREATE_COMPLETE"


def test_preview_leaves_nothing(lab: Any, ensure: Any, stack_name: str) -> None:
    for check in (True, False):
        seen = ensure(template_body=log_group(stack_name, 3), preview=True, check=check)
        assert seen["changed"] is check and [one["action"] for one in seen["changes"]] == ["Add"]
        with pytest.raises(Exception, match="does not exist"):
            lab.client("cloudformation").describe_stacks(StackName=stack_name)
    ensure(template_body=log_group(stack_name, 3))
    seen = ensure(template_body=log_group(stack_name, 5), preview=True, check=True)
    assert seen["changes"][0]["properties"] == ["RetentionInDays"] and change_sets(lab, stack_name) == []


def test_a_replacement_is_refused_until_it_is_allowed(lab: Any, ensure: Any, stack_name: str) -> None:
    ensure(template_body=log_group(stack_name, 3))
    refused = ensure(template_body=log_group(f"{stack_name}-b", 3))
    assert refused["failed"] and "Group (AWS::Logs::LogGroup) is replaced (by its new LogGroupName)" in refused["msg"]
    assert change_sets(lab, stack_name) == []
    replaced = ensure(template_body=log_group(f"{stack_name}-b", 3), allow_replacement=True)
    assert replaced["changed"] and replaced["changes"][0]["replacement"] == "True"


def test_made_to_be_reviewed_and_then_executed(lab: Any, ensure: Any, stack_name: str) -> None:
    first = ensure(template_body=log_group(stack_name, 3), execute=False)
    assert first["changed"] and first["stack"]["status"] == "REVIEW_IN_PROGRESS"
    assert not ensure(template_body=log_group(stack_name, 3), execute=False)["changed"]
    executed = ensure(template_body=log_group(stack_name, 3))
    assert executed["change_set"]["id"] == first["change_set"]["id"]
    left = ensure(template_body=log_group(stack_name, 5), execute=False)["change_set"]["name"]
    assert change_sets(lab, stack_name) == [left]
    assert ensure(state="absent", change_set_name=left)["changed"]
    assert not ensure(state="absent", change_set_name=left)["changed"]
    assert change_sets(lab, stack_name) == []


def test_an_environment_that_cannot_be_made_is_explained_in_mwaas_words(lab: Any, ensure: Any, base: Any) -> None:
    name = f"cs-{uuid.uuid4().hex[:8]}"
    properties = {
        "Name": name,
        "DagS3Path": "dags",
        "SourceBucketArn": "arn:aws:s3:::no-such-bucket-here",
        "ExecutionRoleArn": base.role,
        "NetworkConfiguration": {"SubnetIds": base.subnets, "SecurityGroupIds": [base.group]},
    }
    failed = ensure(
        template_body={"Resources": {"Airflow": {"Type": "AWS::MWAA::Environment", "Properties": properties}}}
    )
    assert "Airflow (AWS::MWAA::Environment) failed: " in failed["msg"] and "no-such-bucket-here" in failed["msg"]
    assert "RequestToken" not in failed["msg"] and "(ROLLBACK_COMPLETE): mend the cause" in failed["msg"]


def test_throttled_and_broken_calls_do_not_end_a_wait(lab: Any, ensure: Any, stack_name: str) -> None:
    lab.admin(
        "POST",
        "faults",
        [
            {"service": "cloudformation", "operation": "DescribeStackEvents", "error": "Throttling", "times": 4},
            {
                "service": "cloudformation",
                "operation": "DescribeStacks",
                "error": "InternalFailure",
                "status": 500,
                "times": 2,
            },
            {"service": "cloudformation", "operation": "CreateChangeSet", "error": "Throttling", "times": 2},
        ],
    )
    assert ensure(template_body=log_group(stack_name, 3))["stack"]["status"] == "CREATE_COMPLETE"


@pytest.mark.parametrize(
    "said", ["change set mwaa-migration-", "CREATE_IN_PROGRESS", "Group (AWS::Logs::LogGroup) CREATE_COMPLETE"]
)
def test_kill_9_of_ansible_playbook(
    lab: Any, ensure: Any, play: Any, stack_name: str, tmp_path: Path, said: str
) -> None:
    """The module's process outlives the playbook: the next run meets it."""
    task = {"stack_name": stack_name, "template_body": log_group(stack_name, 3)}
    playbook = {
        "hosts": "localhost",
        "gather_facts": False,
        "tasks": [{"mwaa.migration.cloudformation_change_set": task}],
    }
    (tmp_path / "play.json").write_text(json.dumps([playbook]))

    def kill(line: str, process: subprocess.Popen[str]) -> bool:
        if found := f"stack {stack_name}: {said}" in line:
            process.kill()
        return found

    code, output = play(tmp_path / "play.json", on_line=kill)
    assert code == -signal.SIGKILL, output
    assert ensure(template_body=log_group(stack_name, 3))["stack"]["status"] == "CREATE_COMPLETE"
    assert not ensure(template_body=log_group(stack_name, 3))["changed"] and change_sets(lab, stack_name) == []
