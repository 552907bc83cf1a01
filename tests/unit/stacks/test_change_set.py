# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""cloudformation_change_set: what is asked of CloudFormation, what is left after any sudden end, and what is said."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.mwaa.migration.plugins.module_utils._bundle import LocalStore
from ansible_collections.mwaa.migration.plugins.module_utils._lock import Lock, run_of
from ansible_collections.mwaa.migration.plugins.module_utils._stacks import template
from fake_cloudformation import FakeCloudFormation, Killed
from fakes import Clock, aws_failure

NAME = "base"


def group(days: int = 3, name: str = "one", **more: Any) -> dict[str, Any]:
    """A template with a log group."""
    properties = {"LogGroupName": name, "RetentionInDays": days}
    return {"Resources": {"Group": {"Type": "AWS::Logs::LogGroup", "Properties": properties}}, **more}


def buckets(**names: str) -> dict[str, Any]:
    """A template with buckets to be imported."""
    return {
        "Resources": {
            logical: {"Type": "AWS::S3::Bucket", "DeletionPolicy": "Retain", "Properties": {"BucketName": name}}
            for logical, name in names.items()
        }
    }


def importing(**names: str) -> dict[str, Any]:
    """Options of an import of buckets."""
    return {
        "type": "import",
        "template_body": buckets(**names),
        "resources_to_import": [
            {
                "resource_type": "AWS::S3::Bucket",
                "logical_resource_id": logical,
                "resource_identifier": {"BucketName": name},
            }
            for logical, name in names.items()
        ],
    }


OUTPUTS = {"Outputs": {"Name": {"Value": "one", "Export": {"Name": "base-Name"}}}}
SECRET = "CANARY-password-5e5e5e5e"
WITH_SECRET = {
    **group(),
    "Parameters": {"Password": {"Type": "String", "NoEcho": True}, "Size": {"Type": "String", "Default": "small"}},
}


@pytest.fixture
def cloud(clock: Clock) -> FakeCloudFormation:
    return FakeCloudFormation()


@pytest.fixture
def ensure(run_module: Any, cloud: FakeCloudFormation) -> Callable[..., dict[str, Any]]:
    """ensure(template_body=…) -> what the module returns."""

    def run(*, check: bool = False, diff: bool = True, **options: Any) -> dict[str, Any]:
        given = {"stack_name": NAME, **options}
        return run_module("cloudformation_change_set", given, {"cloudformation": cloud}, check=check, diff=diff)

    return run


# --- create, update, nothing -----------------------------------------------------------------------------------------


def test_create_then_nothing_then_update(ensure: Any, cloud: FakeCloudFormation) -> None:
    made = ensure(template_body=group(**OUTPUTS), tags={"team": "a"})
    assert made["changed"] and made["operation"] == "create"
    assert made["stack"]["status"] == "CREATE_COMPLETE"
    assert made["stack"]["outputs"] == {"Name": "one"} and made["stack"]["exports"] == {"base-Name": "one"}
    assert [(one["logical_resource_id"], one["action"]) for one in made["changes"]] == [("Group", "Add")]

    again = ensure(template_body=group(**OUTPUTS), tags={"team": "a"})
    assert not again["changed"] and again["operation"] == "none" and again["stack"] == made["stack"]
    assert cloud.names(NAME) == []

    changed = ensure(template_body=group(7, **OUTPUTS))
    assert changed["changed"] and changed["operation"] == "update"
    (change,) = changed["changes"]
    assert change["properties"] == ["RetentionInDays"] and change["replacement"] == "False"
    assert cloud.names(NAME) == []


def test_nothing_to_change_takes_few_calls(ensure: Any, cloud: FakeCloudFormation) -> None:
    cloud.has(NAME, "CREATE_COMPLETE", group())
    assert not ensure(template_body=group(), diff=False)["changed"]
    assert cloud.writes == ["CreateChangeSet", "DeleteChangeSet"]
    assert sorted(cloud.reads) == [
        "DescribeChangeSet",
        "DescribeChangeSet",
        "DescribeStacks",
        "DescribeStacks",
        "GetTemplateSummary",
        "ListChangeSets",
    ]


def test_outputs_alone_are_a_change_although_no_resource_is(ensure: Any, cloud: FakeCloudFormation) -> None:
    cloud.has(NAME, "IMPORT_COMPLETE", group())
    result = ensure(template_body=group(**OUTPUTS))
    assert result["changed"] and result["changes"] == [] and result["stack"]["outputs"] == {"Name": "one"}


def test_a_template_as_text_is_sent_as_it_is(ensure: Any, cloud: FakeCloudFormation) -> None:
    text = "Resources:\n  Group:\n    Type: AWS::Logs::LogGroup\n    Properties: {LogGroupName: !Ref Name}\n"
    ensure(template_body=text)
    assert cloud.calls[0][1]["TemplateBody"] == text


def test_types(ensure: Any, cloud: FakeCloudFormation) -> None:
    assert "does not exist and cannot be updated" in ensure(template_body=group(), type="update")["msg"]
    assert ensure(template_body=group(), type="create")["changed"]
    assert not ensure(template_body=group(9), type="create")["changed"]  # it is there
    assert ensure(template_body=group(9), type="update")["changed"]


def test_parameters_that_are_not_given_keep_their_values(ensure: Any, cloud: FakeCloudFormation) -> None:
    template = group(
        Parameters={"Size": {"Type": "String", "Default": "small"}, "Zones": {"Type": "CommaDelimitedList"}}
    )
    assert "parameters lacks Zones" in ensure(template_body=template)["msg"]
    ensure(template_body=template, parameters={"Size": "large", "Zones": ["a", "b"]})
    assert not ensure(template_body=template)["changed"]
    shown = {one["ParameterKey"]: one["ParameterValue"] for one in next(iter(cloud.stacks.values()))["Parameters"]}
    assert shown == {"Size": "large", "Zones": "a,b"}
    changed = ensure(template_body=template, parameters={"Size": True})
    assert changed["changed"] and {"Size: large\n", "Size: true\n"} <= {
        line for part in changed["diff"] for line in (part.get("before", "") + part.get("after", "")).splitlines(True)
    }


# --- check mode and previews -----------------------------------------------------------------------------------------


def test_check_mode_writes_nothing(ensure: Any, cloud: FakeCloudFormation) -> None:
    new = ensure(template_body=group(), check=True)
    assert new["changed"] and new["stack"] is None and new["changes"][0]["action"] == "Add"
    cloud.has(NAME, "CREATE_COMPLETE", group(), Tags=[{"Key": "team", "Value": "a"}])
    assert not ensure(template_body=group(), check=True)["changed"]
    assert not ensure(template_body=json.dumps(group(), indent=7), tags={"team": "a"}, check=True)["changed"]
    changed = ensure(template_body=group(5), tags={"team": "b"}, check=True)
    assert changed["changed"] and changed["changes"][0]["replacement"] == "unknown"
    assert any("whether replaced is unknown" in part.get("prepared", "") for part in changed["diff"])
    assert ensure(template_body=group(), tags={}, check=True)["changed"]
    assert ensure(**importing(A="a"), check=True)["changes"][0]["action"] == "Import"
    assert cloud.writes == []


@pytest.mark.parametrize(
    ("options", "what"),
    [
        (
            {"template_url": "https://bucket.s3.amazonaws.com/base.yaml"},
            "what the template behind template_url changes",
        ),
        ({"template_body": {**group(), "Transform": "AWS::Include"}}, "what AWS::Include makes of the template"),
        ({"template_body": WITH_SECRET, "parameters": {"Password": SECRET}}, "whether the secret parameter Password"),
    ],
)
def test_check_mode_says_what_it_cannot_know(
    ensure: Any, cloud: FakeCloudFormation, options: dict[str, Any], what: str
) -> None:
    cloud.has(
        NAME,
        "CREATE_COMPLETE",
        options.get("template_body", group()),
        Parameters=[
            {"ParameterKey": "Password", "ParameterValue": "****"},
            {"ParameterKey": "Size", "ParameterValue": "small"},
        ]
        if "parameters" in options
        else [],
    )
    result = ensure(**options, check=True)
    assert not result["changed"] and what in json.dumps(result["warnings"]) and cloud.writes == []


@pytest.mark.parametrize("check", [True, False])
def test_a_preview_asks_cloudformation_and_leaves_nothing(ensure: Any, cloud: FakeCloudFormation, check: bool) -> None:
    seen = ensure(template_body=group(), preview=True, check=check)
    assert seen["changed"] is check and seen["operation"] == "preview" and seen["changes"][0]["action"] == "Add"
    assert cloud.change_sets == {} and cloud._existing(NAME) is None
    cloud.has(NAME, "CREATE_COMPLETE", group())
    seen = ensure(template_body=group(name="two"), preview=True, check=check)
    assert seen["changes"][0]["replacement"] == "True" and cloud.names(NAME) == []
    assert "ExecuteChangeSet" not in cloud.writes


def test_a_preview_of_nothing_is_no_change(ensure: Any, cloud: FakeCloudFormation) -> None:
    cloud.has(NAME, "CREATE_COMPLETE", group())
    seen = ensure(template_body=group(), preview=True, check=True)
    assert not seen["changed"] and cloud.names(NAME) == []


@pytest.mark.parametrize("stack", [None, "CREATE_COMPLETE"])
def test_a_preview_that_was_killed_is_cleaned_up_by_the_next_run(
    ensure: Any, cloud: FakeCloudFormation, stack: str | None
) -> None:
    if stack:
        cloud.has(NAME, stack, group())
    cloud.kill = "after CreateChangeSet"
    with pytest.raises(Killed):
        ensure(template_body=group(5), preview=True)
    assert len(cloud.names(NAME)) == 1
    cloud.kill = None
    assert ensure(template_body=group(7))["changed"]
    assert cloud.names(NAME) == [] and cloud._existing(NAME)["StackStatus"].endswith("E_COMPLETE")  # type: ignore[index]


# --- reviews ---------------------------------------------------------------------------------------------------------


def test_the_very_change_set_that_was_reviewed_is_executed(ensure: Any, cloud: FakeCloudFormation) -> None:
    cloud.has(NAME, "CREATE_COMPLETE", group())
    left = ensure(template_body=group(5), execute=False)
    assert left["changed"] and cloud.names(NAME) == [left["change_set"]["name"]]
    assert not ensure(template_body=group(5), execute=False)["changed"]
    ensure(template_body=group())  # something else was asked for: no change, and it stays to be reviewed
    assert cloud.names(NAME) == [left["change_set"]["name"]]
    done = ensure(template_body=group(5))
    assert done["change_set"]["id"] == left["change_set"]["id"] and done["stack"]["status"] == "UPDATE_COMPLETE"


@pytest.mark.parametrize(
    "options",
    [
        {"template_url": "https://bucket.s3.amazonaws.com/base.yaml"},
        {"template_body": WITH_SECRET, "parameters": {"Password": SECRET}},
    ],
    ids=["url", "secret"],
)
def test_what_may_hold_something_else_is_made_anew(
    ensure: Any, cloud: FakeCloudFormation, options: dict[str, Any]
) -> None:
    left = ensure(**options, execute=False)["change_set"]
    done = ensure(**options)["change_set"]
    assert done["name"] == left["name"] and done["id"] != left["id"]


def test_a_name_of_ones_own(ensure: Any, cloud: FakeCloudFormation) -> None:
    assert ensure(template_body=group(), execute=False, change_set_name="mine")["change_set"]["name"] == "mine"
    other = ensure(template_body=group(5), execute=False, change_set_name="mine")  # it asks for something else by now
    assert other["changed"] and cloud.names(NAME) == ["mine"]
    assert ensure(state="absent", change_set_name="mine", check=True)["changed"] and cloud.names(NAME) == ["mine"]
    gone = ensure(state="absent", change_set_name="mine")
    assert gone["changed"] and gone["stack"] is None and cloud.names(NAME) == []
    assert not ensure(state="absent", change_set_name="mine")["changed"]


def test_change_sets_of_others_are_never_touched(ensure: Any, cloud: FakeCloudFormation) -> None:
    cloud.has(NAME, "CREATE_COMPLETE", group())
    request = {"StackName": NAME, "ChangeSetType": "UPDATE", "TemplateBody": json.dumps(group(9))}
    cloud.create_change_set(**request, ChangeSetName="theirs")
    cloud.create_change_set(**request, ChangeSetName="mwaa-migration-0123", Description="by hand")
    cloud.create_change_set(
        **request, ChangeSetName="mwaa-migration-4567", Description="mwaa.migration 4567: to be executed"
    )
    ensure(template_body=group())
    assert cloud.names(NAME) == ["theirs", "mwaa-migration-0123", "mwaa-migration-4567"]  # it may be being made
    for one in cloud.change_sets.values():
        cloud.describe_change_set(ChangeSetName=one["ChangeSetId"])
    ensure(template_body=group())
    assert cloud.names(NAME) == ["theirs", "mwaa-migration-0123"]
    refused = ensure(template_body=group(5), change_set_name="theirs")
    assert "that this module did not make" in refused["msg"] and "theirs" in cloud.names(NAME)


# --- replacement -----------------------------------------------------------------------------------------------------


def test_nothing_is_replaced_or_deleted_unless_that_is_allowed(ensure: Any, cloud: FakeCloudFormation) -> None:
    cloud.has(NAME, "CREATE_COMPLETE", group())
    refused = ensure(template_body=group(name="two"))
    assert refused["failed"] and "Group (AWS::Logs::LogGroup) is replaced (by its new LogGroupName)" in refused["msg"]
    assert cloud.names(NAME) == [] and "ExecuteChangeSet" not in cloud.writes
    refused = ensure(template_body=buckets(A="a"))
    assert "Group (AWS::Logs::LogGroup) is deleted" in refused["msg"]
    assert ensure(template_body=group(name="two"), allow_replacement=True)["changed"]


def test_what_is_kept_may_leave_the_stack(ensure: Any, cloud: FakeCloudFormation) -> None:
    cloud.has(NAME, "CREATE_COMPLETE", {"Resources": {**group()["Resources"], **buckets(A="a")["Resources"]}})
    result = ensure(template_body=group())
    assert result["changed"] and "leaves the stack and is kept" in json.dumps(result["diff"])


# --- sudden ends -----------------------------------------------------------------------------------------------------

FLOWS: dict[str, tuple[str | None, dict[str, Any]]] = {
    "create": (None, {"template_body": group(**OUTPUTS), "tags": {"team": "a"}}),
    "update": ("CREATE_COMPLETE", {"template_body": group(8, **OUTPUTS)}),
    "nothing": ("CREATE_COMPLETE", {"template_body": group()}),
    "import": (None, importing(A="a", B="b")),
    "import more": ("CREATE_COMPLETE", {**importing(A="a"), "template_body": {**buckets(A="a")}}),
    "after a failed creation": ("ROLLBACK_COMPLETE", {"template_body": group()}),
    "preview": ("CREATE_COMPLETE", {"template_body": group(8), "preview": True}),
    "preview of a new one": (None, {"template_body": group(8), "preview": True}),
}


@pytest.mark.parametrize("flow", FLOWS)
def test_a_run_after_kill_9_ends_at_the_same_stack(run_module: Any, clock: Clock, flow: str) -> None:
    """Killed after each single call of the run, and run again."""
    status, options = FLOWS[flow]

    def world() -> FakeCloudFormation:
        cloud = FakeCloudFormation()
        if status:
            cloud.has(NAME, status, None if status == "ROLLBACK_COMPLETE" else group())
        return cloud

    def run(cloud: FakeCloudFormation) -> dict[str, Any]:
        given = {"stack_name": NAME, **options}
        result = run_module("cloudformation_change_set", given, {"cloudformation": cloud}, diff=False)
        assert "failed" not in result, result["msg"]
        return result

    def state(cloud: FakeCloudFormation) -> dict[str, Any]:
        stack = cloud._existing(NAME) or {}
        return {key: stack.get(key) for key in ("StackStatus", "_template", "_resources", "Outputs", "Tags")}

    straight = world()
    run(straight)
    assert straight.count > 5
    for number in range(1, straight.count + 1):
        cloud = world()
        cloud.kill = number
        with pytest.raises(Killed):
            run(cloud)
        cloud.kill = None
        run(cloud)
        assert (state(cloud), cloud.names(NAME)) == (state(straight), []), f"killed after call {number}"
        assert not run(cloud)["changed"] and cloud.names(NAME) == []


def test_what_a_killed_run_left_to_be_executed_is_executed(ensure: Any, cloud: FakeCloudFormation) -> None:
    cloud.kill = "before ExecuteChangeSet"
    with pytest.raises(Killed):
        ensure(template_body=group())
    (left,) = cloud.change_sets
    cloud.kill = None
    result = ensure(template_body=group())
    assert result["changed"] and result["change_set"]["id"] == left
    assert cloud.writes.count("CreateChangeSet") == 1


def test_drift_that_a_killed_import_did_not_look_for_is_looked_for(ensure: Any, cloud: FakeCloudFormation) -> None:
    cloud.kill = "before DetectStackDrift"
    with pytest.raises(Killed):
        ensure(**importing(A="a"))
    cloud.kill = None
    cloud.drifts = [drifted("A", "/Tags", "a", "b")]
    result = ensure(**importing(A="a"))
    assert not result["changed"] and result["drift"][0]["property_path"] == "/Tags"


def test_somebody_elses_operation_is_waited_for(ensure: Any, cloud: FakeCloudFormation) -> None:
    stack = cloud.has(NAME, "UPDATE_IN_PROGRESS", group())
    stack["_script"] = [[], [], [(None, "UPDATE_COMPLETE", "")]]
    result = ensure(template_body=group())
    assert not result["changed"] and result["operation"] == "wait"


def test_an_operation_that_begins_after_the_look_is_waited_for(ensure: Any, cloud: FakeCloudFormation) -> None:
    stack = cloud.has(NAME, "CREATE_COMPLETE", group())
    busy = f"Stack:{stack['StackId']} is in UPDATE_IN_PROGRESS state and can not be updated."
    cloud.refuse["CreateChangeSet"] = [aws_failure("ValidationError", busy)]
    assert ensure(template_body=group(5))["changed"]


@pytest.mark.parametrize("point", ["CreateChangeSet", "DescribeChangeSet", "ExecuteChangeSet"])
def test_the_module_of_a_killed_playbook_that_still_runs_is_no_trouble(
    ensure: Any, cloud: FakeCloudFormation, clock: Clock, point: str
) -> None:
    """kill -9 of ansible-playbook leaves the module's process: at some point it does the same as ours."""
    method = {"CreateChangeSet": "create_change_set", "DescribeChangeSet": "describe_change_set"}.get(
        point, "execute_change_set"
    )
    real = getattr(cloud, method)

    def first(**params: Any) -> dict[str, Any]:
        delattr(cloud, method)
        assert ensure(template_body=group())["changed"]
        return real(**params)

    setattr(cloud, method, first)
    start = clock.now
    mine = ensure(template_body=group())
    assert clock.now - start < 30
    assert mine["stack"]["status"] == "CREATE_COMPLETE" and cloud.names(NAME) == []


def test_an_execution_whose_answer_was_lost_is_not_taken_for_a_failure(ensure: Any, cloud: FakeCloudFormation) -> None:
    real = cloud._do_execute_change_set

    def lost(**params: Any) -> dict[str, Any]:
        real(**params)
        raise aws_failure("InvalidChangeSetStatus", "ChangeSet is in EXECUTE_IN_PROGRESS status")

    cloud.execute_change_set = lost
    assert ensure(template_body=group())["stack"]["status"] == "CREATE_COMPLETE"


# --- import ----------------------------------------------------------------------------------------------------------


def drifted(logical: str, path: str, expected: str, actual: str, kind: str = "NOT_EQUAL") -> dict[str, Any]:
    return {
        "LogicalResourceId": logical,
        "ResourceType": "AWS::S3::Bucket",
        "StackResourceDriftStatus": "MODIFIED",
        "PropertyDifferences": [
            {"PropertyPath": path, "ExpectedValue": expected, "ActualValue": actual, "DifferenceType": kind}
        ],
    }


def test_an_import_again_changes_nothing(ensure: Any, cloud: FakeCloudFormation) -> None:
    adopted = ensure(**importing(A="a", B="b"), tags={"team": "a"})
    assert adopted["changed"] and adopted["operation"] == "import" and adopted["drift"] == []
    assert "Tags" not in cloud.calls[0][1]  # an import cannot set them
    before = list(cloud.writes)
    again = ensure(**importing(A="a", B="b"))
    assert not again["changed"] and cloud.writes == before and cloud.detections == 1


def test_what_is_in_the_stack_is_left_out_and_the_rest_of_it_stays(ensure: Any, cloud: FakeCloudFormation) -> None:
    cloud.has(NAME, "UPDATE_COMPLETE", {**buckets(A="a"), **OUTPUTS})
    result = ensure(**importing(A="a", B="b"))
    assert [one["logical_resource_id"] for one in result["changes"]] == ["B"]
    assert result["stack"]["outputs"] == {"Name": "one"}
    sent = json.loads(cloud.calls[0][1]["TemplateBody"])
    assert sent == {**buckets(A="a", B="b"), **OUTPUTS}


def test_a_name_that_is_taken_by_something_else_in_the_stack(ensure: Any, cloud: FakeCloudFormation) -> None:
    cloud.has(NAME, "UPDATE_COMPLETE", buckets(A="another"))
    assert "A is another in the stack already, and a was to be imported" in ensure(**importing(A="a"))["msg"]
    assert cloud.writes == []


@pytest.mark.parametrize("status", ["DELETE_SKIPPED", "IMPORT_ROLLBACK_COMPLETE"])
def test_what_has_left_the_stack_can_come_back(ensure: Any, cloud: FakeCloudFormation, status: str) -> None:
    stack = cloud.has(NAME, "IMPORT_ROLLBACK_COMPLETE", buckets(A="a"))
    stack["_resources"]["A"]["ResourceStatus"] = status
    stack["_template"] = json.dumps({"Resources": {}})
    result = ensure(**importing(A="a"))
    assert result["changed"] and [one["action"] for one in result["changes"]] == ["Import"]


def test_a_resource_of_another_stack(ensure: Any, cloud: FakeCloudFormation) -> None:
    cloud.elsewhere = {"a"}
    failed = ensure(**importing(A="a"))
    assert "a already exists in stack arn" in failed["msg"] and "in one stack at most" in failed["msg"]
    assert cloud.change_sets == {} and cloud._existing(NAME) is None


def test_an_import_cannot_add_outputs(ensure: Any, cloud: FakeCloudFormation) -> None:
    options = importing(A="a")
    options["template_body"] = {**options["template_body"], **OUTPUTS}
    assert "leave Outputs out of the import's template" in ensure(**options)["msg"]


def test_drift_is_returned_and_said_by_property(ensure: Any, cloud: FakeCloudFormation) -> None:
    options = json.dumps({"core.parallelism": "8", "smtp.smtp_password": SECRET})
    cloud.drifts = [
        drifted("A", "/VersioningConfiguration/Status", "Enabled", "Suspended"),
        drifted("A", "/AirflowConfigurationOptions", "{}", options),
        drifted("A", "/MasterUserPassword", "x", SECRET),
        drifted("A", "/Tags/0", "null", "new", "ADD"),
        {"LogicalResourceId": "B", "ResourceType": "AWS::S3::Bucket", "StackResourceDriftStatus": "DELETED"},
    ]
    result = ensure(**importing(A="a", B="b"))
    assert [(one["property_path"], one["kind"]) for one in result["drift"]] == [
        ("/VersioningConfiguration/Status", "changed"),
        ("/AirflowConfigurationOptions", "changed"),
        ("/MasterUserPassword", "changed"),
        ("/Tags/0", "added"),
        ("", "deleted"),
    ]
    said = json.dumps(result["warnings"])
    assert (
        "drift in stack base: A (AWS::S3::Bucket): /VersioningConfiguration/Status is Suspended, and the template says"
        " Enabled" in said
    )
    assert "B (AWS::S3::Bucket) does not exist any more" in said
    assert SECRET not in json.dumps(result) and '"core.parallelism": "8"' in result["drift"][1]["actual"]
    assert ensure(**importing(A="a"), detect_drift=False)["drift"] == []


# --- states ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "action"),
    [
        ("CREATE_FAILED", "rollback-stack"),
        ("UPDATE_FAILED", "rollback-stack"),
        ("ROLLBACK_FAILED", "delete-stack"),
        ("DELETE_FAILED", "delete-stack"),
        ("UPDATE_ROLLBACK_FAILED", "continue-update-rollback"),
        ("IMPORT_ROLLBACK_FAILED", "continue-update-rollback"),
    ],
)
def test_each_state_that_takes_no_change_set_has_a_way_out(
    ensure: Any, cloud: FakeCloudFormation, status: str, action: str
) -> None:
    stack = cloud.has(NAME, status, group())
    stack["_resources"]["Group"].update(ResourceStatus="DELETE_FAILED", ResourceStatusReason="it is in use")
    failed = ensure(template_body=group(5))
    assert f"stack base is {status}" in failed["msg"]
    assert f"aws cloudformation {action} --stack-name base" in failed["msg"]
    assert status in ("CREATE_FAILED", "UPDATE_FAILED") or "Group (it is in use)" in failed["msg"]
    assert failed["stack"] == {"name": NAME, "status": status} and cloud.writes == []


def test_what_a_failed_creation_left_is_removed_only_when_it_is_empty(ensure: Any, cloud: FakeCloudFormation) -> None:
    stack = cloud.has(NAME, "ROLLBACK_COMPLETE", group())
    stack["_resources"]["Group"]["ResourceStatus"] = "DELETE_SKIPPED"
    assert "still holds Group (one)" in ensure(template_body=group())["msg"] and cloud.writes == []
    stack["_resources"]["Group"]["ResourceStatus"] = "DELETE_COMPLETE"
    assert ensure(template_body=group(), check=True)["changed"] and cloud.writes == []
    assert ensure(template_body=group())["stack"]["status"] == "CREATE_COMPLETE"
    assert stack["StackStatus"] == "DELETE_COMPLETE"


def test_termination_protection(ensure: Any, cloud: FakeCloudFormation) -> None:
    cloud.has(NAME, "ROLLBACK_COMPLETE", EnableTerminationProtection=True)
    failed = ensure(template_body=group())
    assert "TerminationProtection is enabled" in failed["msg"]
    assert "aws cloudformation update-termination-protection" in failed["msg"]


# --- failures --------------------------------------------------------------------------------------------------------

HANDLER = (
    'Resource handler returned message: "Bucket is not versioned." (RequestToken: 0a1b-2c3d, HandlerErrorCode:'
    " InvalidRequest)"
)


def test_a_failure_names_the_first_cause_and_what_becomes_of_the_stack(ensure: Any, cloud: FakeCloudFormation) -> None:
    cloud.fail = {"B": HANDLER}
    failed = ensure(template_body=buckets(A="a", B="b"))
    assert failed["msg"] == (
        "stack base: B (AWS::S3::Bucket) failed: Bucket is not versioned (InvalidRequest); what had been created was"
        " removed, and the next run removes the empty stack (ROLLBACK_COMPLETE): mend the cause and run again"
    )
    assert failed["stack"] == {"name": NAME, "status": "ROLLBACK_COMPLETE"}


def test_a_failed_update_is_tried_again_by_the_next_run(ensure: Any, cloud: FakeCloudFormation) -> None:
    cloud.has(NAME, "CREATE_COMPLETE", group())
    cloud.fail = {"Group": "Action denied by stack policy: Statement [#1] does not allow [Update:*]"}
    failed = ensure(template_body=group(5))
    assert "the stack was rolled back and is as it was (UPDATE_ROLLBACK_COMPLETE)" in failed["msg"]
    assert "set-stack-policy" in failed["msg"]
    assert ensure(template_body=group(5))["changed"]


def test_what_was_checked_before_the_deployment_is_said_in_full(ensure: Any, cloud: FakeCloudFormation) -> None:
    cloud.validation = [
        {
            "OperationId": "1",
            "LogicalResourceId": "A",
            "ResourceType": "AWS::S3::Bucket",
            "ValidationStatusReason": "Resource of type 'AWS::S3::Bucket' with identifier 'a' already exists.",
            "ValidationPath": "/Resources/A/Properties/BucketName",
        }
    ]
    failed = ensure(template_body=buckets(A="a"))
    assert "A (AWS::S3::Bucket) /Resources/A/Properties/BucketName: Resource of type" in failed["msg"]
    assert "type: import" in failed["msg"] and cloud._existing(NAME) is None


def test_credentials_that_expire_during_the_wait(ensure: Any, cloud: FakeCloudFormation) -> None:
    cloud.refuse["DescribeStackEvents"] = []
    real = cloud._do_execute_change_set

    def then_expired(**params: Any) -> dict[str, Any]:
        cloud.refuse["DescribeStacks"] = [aws_failure("ExpiredToken", "The security token is expired")]
        return real(**params)

    cloud.execute_change_set = then_expired
    failed = ensure(template_body=group())
    assert "credentials have expired" in failed["msg"] and "a new run waits for it" in failed["msg"]
    del cloud.execute_change_set
    assert ensure(template_body=group())["operation"] == "wait"


def test_throttled_looks_are_repeated(ensure: Any, cloud: FakeCloudFormation) -> None:
    throttled = [aws_failure("Throttling", "Rate exceeded") for _ in range(3)]
    real = cloud._do_execute_change_set

    def then_throttled(**params: Any) -> dict[str, Any]:
        cloud.refuse["DescribeStackEvents"] = throttled
        return real(**params)

    cloud.execute_change_set = then_throttled
    assert ensure(template_body=group())["changed"] and throttled == []


def test_a_wait_that_is_too_long(ensure: Any, cloud: FakeCloudFormation) -> None:
    cloud.looks = 1000
    failed = ensure(template_body=group(), wait_timeout=600)
    assert "stack base: CREATE_IN_PROGRESS, Group: not finished after 10 min 0 s" in failed["msg"]
    assert "CloudFormation goes on by itself, and a new run waits for it" in failed["msg"]


def test_all_faults_at_once_before_any_call(ensure: Any, cloud: FakeCloudFormation) -> None:
    failed = ensure(
        stack_name="base stack",
        type="import",
        template_body={"Resources": {"A": {"Type": "AWS::S3::Bucket"}, "Filler": "x" * 60_000}},
        parameters={"A": {}},
        resources_to_import=[
            {
                "resource_type": "AWS::S3::Bucket",
                "logical_resource_id": name,
                "resource_identifier": {"BucketName": "a"},
            }
            for name in ("A", "B", "B")
        ],
    )
    for words in (
        "stack_name is",
        "template_url",
        "parameter A is a",
        "names B twice",
        "no DeletionPolicy",
        "resource B",
    ):
        assert words in failed["msg"], words
    assert cloud.calls == [] and cloud.reads == []


def test_capabilities_and_parameters_are_checked_before_anything_is_made(
    ensure: Any, cloud: FakeCloudFormation
) -> None:
    role = {"Resources": {"Role": {"Type": "AWS::IAM::Role"}}}
    failed = ensure(template_body=role, parameters={"Nope": "x"}, capabilities=["CAPABILITY_IAM"])
    assert (
        "capabilities lacks CAPABILITY_NAMED_IAM (The following resource(s) require capabilities: [AWS::IAM::Role])"
        in (failed["msg"])
    )
    assert "the template has no parameter Nope" in failed["msg"] and cloud.writes == []
    assert ensure(template_body=role, capabilities=["CAPABILITY_NAMED_IAM"])["changed"]


# --- secrets ---------------------------------------------------------------------------------------------------------


def test_secret_parameters_are_shown_nowhere(ensure: Any, cloud: FakeCloudFormation) -> None:
    given = {"template_body": WITH_SECRET, "parameters": {"Password": SECRET, "Size": "large"}}
    said = [ensure(**given, check=True), ensure(**given, preview=True)]
    cloud.fail = {"Group": f"the password {SECRET} is too long"}
    said += [ensure(**given), ensure(**given), ensure(**given)]
    given["parameters"] = {"Password": SECRET + "-new"}
    said += [ensure(**given, check=True), ensure(**given)]
    cloud.refuse["DescribeStacks"] = [aws_failure("AccessDenied", f"not with {SECRET}-new")]
    said.append(ensure(**given))
    for one in said:
        assert "CANARY-password" not in json.dumps(one)
    assert "large" in json.dumps(
        said[2]["diff"] if "diff" in said[2] else said[0]["diff"]
    )  # what is not secret is shown
    assert SECRET in json.dumps(cloud.calls)  # it did go to CloudFormation


def test_a_secret_is_not_in_the_name_of_a_change_set(ensure: Any, cloud: FakeCloudFormation) -> None:
    """Whoever may list change sets could else guess short secrets."""
    names = set()
    for password in ("one", "two"):
        names.add(
            ensure(template_body=WITH_SECRET, parameters={"Password": password}, execute=False)["change_set"]["name"]
        )
    assert len(names) == 1


# --- what is seen ----------------------------------------------------------------------------------------------------


def test_events_are_shown_as_they_come(
    ensure: Any, cloud: FakeCloudFormation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = tmp_path / "progress"
    lines.touch()
    monkeypatch.setenv("MWAA_MIGRATION_PROGRESS", str(lines))
    ensure(template_body=buckets(A="a", B="b"))
    assert [line for line in lines.read_text().splitlines() if " (" not in line or "::" in line] == [
        "stack base: CREATE_IN_PROGRESS",
        "stack base: A (AWS::S3::Bucket) CREATE_COMPLETE",
        "stack base: B (AWS::S3::Bucket) CREATE_COMPLETE",
        "stack base: CREATE_COMPLETE",
    ]
    assert any(line.startswith("stack base: CREATE_IN_PROGRESS, A, B (") for line in lines.read_text().splitlines())


def test_the_diff_shows_the_template_and_a_line_for_each_resource(ensure: Any, cloud: FakeCloudFormation) -> None:
    reference = "{{resolve:secretsmanager:smtp:SecretString:password}}"
    before = group(Metadata={"password": reference})
    cloud.has(NAME, "CREATE_COMPLETE", before)
    body, changes = ensure(template_body=group(5, Metadata={"password": reference}))["diff"]
    assert body["before_header"] == "stack base: template" and '"RetentionInDays": 3' in body["before"]
    assert '"RetentionInDays": 5' in body["after"] and reference in body["after"]
    assert changes["prepared"] == ("stack base: changes\n  ~ Group (AWS::Logs::LogGroup) is changed: RetentionInDays\n")


def test_a_warning_comes_without_a_deprecation_of_somebody_else(
    ensure: Any, cloud: FakeCloudFormation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """amazon.aws hands over again what ansible-core has already, as ansible-core does not want it any more."""
    internal = pytest.importorskip("ansible.module_utils._internal")
    from ansible.module_utils.common import warnings

    monkeypatch.setattr(internal, "is_controller", False)  # as in a module's own process
    monkeypatch.setattr(warnings, "_global_warnings", {})
    monkeypatch.setattr(warnings, "_global_deprecations", {})
    cloud.has(NAME, "CREATE_COMPLETE", group())
    result = ensure(template_url="https://bucket.s3.amazonaws.com/base.yaml", check=True)
    assert "unknown until preview" in json.dumps(result["warnings"]) and not result.get("deprecations")


# --- the lock of a migration -----------------------------------------------------------------------------------------


def test_the_lock_of_a_migration_is_respected_before_anything_is_written(
    ensure: Any, cloud: FakeCloudFormation, tmp_path: Path
) -> None:
    other = dataclasses.replace(run_of(os.getpid()), user="ada", host="ctl-2", place="another boot", pid=4242)
    store = LocalStore(tmp_path)
    theirs = Lock(store, "demo", other)
    theirs.take()
    theirs.stop()
    lock = {"environment": "demo", "bundles": [str(tmp_path)]}
    refused = ensure(template_body=group(), lock=lock)
    assert refused["failed"] and "is locked: ada on ctl-2" in refused["msg"] and cloud.writes == []
    assert ensure(template_body=group(), lock=lock, check=True)["changed"]
    theirs.release()
    assert ensure(template_body=group(), lock=lock)["changed"]
    assert store.read_tagged("locks/demo.json") is None  # given back: no run of ansible-playbook keeps it here


def test_what_has_to_have_a_name_is_not_replaced_by_a_perhaps() -> None:
    """CloudFormation says so of an environment's security groups, and refuses to replace what has its name."""
    target = {"Name": "NetworkConfiguration", "Attribute": "Properties", "RequiresRecreation": "Conditionally"}
    change = {
        "LogicalResourceId": "Environment",
        "ResourceType": "AWS::MWAA::Environment",
        "Action": "Modify",
        "Replacement": "Conditional",
        "Details": [{"Target": target, "Evaluation": "Static"}],
    }
    assert template.destroying([change]) == []
    assert template.destroying([{**change, "ResourceType": "AWS::EC2::Subnet"}])
    assert template.destroying([{**change, "Replacement": "True"}])
