# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Templates, changes, reasons: what is said about them, without a stack."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.mwaa.migration.plugins.module_utils._stacks import template
from ansible_collections.mwaa.migration.plugins.module_utils._stacks.stack import advice, plain, root_cause


def change(name: str, action: str = "Modify", replacement: str = "False", *details: Any, **more: Any) -> dict[str, Any]:
    return {
        "LogicalResourceId": name,
        "ResourceType": "AWS::X::Y",
        "Action": action,
        "Replacement": replacement,
        "Details": list(details),
        **more,
    }


def detail(name: str, recreation: str, evaluation: str = "Static", cause: str = "") -> dict[str, Any]:
    target = {"Attribute": "Properties", "Name": name, "RequiresRecreation": recreation}
    return {"Target": target, "Evaluation": evaluation, **({"CausingEntity": cause} if cause else {})}


def test_the_same_template_in_two_spellings() -> None:
    body = {"Resources": {"A": {"Type": "AWS::S3::Bucket"}}}
    assert template.same(body, template.written(body))
    assert template.same("Resources:\n  A: {}\n", "Resources:  \n  A: {}\n\n")
    assert not template.same(body, {"Resources": {}})


def test_a_long_dictionary_is_written_without_spaces() -> None:
    body = {"Resources": {f"Bucket{number}": {"Type": "AWS::S3::Bucket"} for number in range(900)}}
    assert len(template.written(body).encode()) <= template.INLINE_LIMIT < len(template.shown(body).encode())
    assert template.same(body, template.written(body))


def test_a_dictionary_is_written_in_ascii_because_get_template_keeps_nothing_else() -> None:
    body = {"Resources": {"A": {"Properties": {"Tags": [{"Key": "Name", "Value": "Büro ☺"}]}}}}
    assert template.written(body).isascii()
    assert template.read(template.written(body)) == body


def test_a_fingerprint_is_of_what_is_said() -> None:
    one = template.fingerprint('{"a": 1, "b": 2}', ["x"])
    assert one == template.fingerprint('{"b":2,"a":1}', ["x"]) != template.fingerprint('{"b":2,"a":1}', ["y"])
    assert len(one) == 16


@pytest.mark.parametrize(
    ("value", "text"), [(True, "true"), (5, "5"), (["a", 1, False], "a,1,false"), ("", ""), (None, None)]
)
def test_parameters_as_text(value: Any, text: str | None) -> None:
    assert template.parameter_text(value) == text


def test_what_is_replaced_or_deleted_is_found() -> None:
    lost = template.destroying(
        [
            change("Added", "Add"),
            change("Changed", "Modify", "False", detail("Size", "Never")),
            change("Replaced", "Modify", "True", detail("Name", "Always"), detail("Size", "Never")),
            change("Perhaps", "Modify", "Conditional", detail("Class", "Conditionally")),
            change("Deleted", "Remove", PolicyAction="Delete"),
            change("Kept", "Remove", PolicyAction="Retain"),
        ]
    )
    assert lost == [
        "Replaced (AWS::X::Y) is replaced (by its new Name)",
        "Perhaps (AWS::X::Y) may be replaced (by its new Class)",
        "Deleted (AWS::X::Y) is deleted",
    ]


def test_a_reference_to_what_stays_replaces_nothing() -> None:
    """CloudFormation calls it conditional, as it does not look whether the reference's value changes."""
    role = change("Role", "Modify", "False", detail("AssumeRolePolicyDocument", "Never"))
    policy = change("Policy", "Modify", "Conditional", detail("RoleName", "Always", "Dynamic", "Role.Arn"))
    assert template.destroying([role, policy]) == []


def test_a_reference_to_what_is_replaced_may_replace_and_so_on() -> None:
    found = template.destroying(
        [
            change("Last", "Modify", "Conditional", detail("Of", "Always", "Dynamic", "Middle")),
            change("Middle", "Modify", "Conditional", detail("Of", "Always", "Dynamic", "First.Id")),
            change("First", "Modify", "True", detail("Name", "Always")),
        ]
    )
    assert [one.split()[0] for one in found] == ["Last", "Middle", "First"]


def test_a_reference_to_a_parameter_may_replace() -> None:
    one = change("A", "Modify", "Conditional", detail("Name", "Always", "Dynamic", "SizeParameter"))
    assert len(template.destroying([one])) == 1


@pytest.mark.parametrize(
    ("given", "line"),
    [
        (change("A", "Add"), "+ A (AWS::X::Y) is added"),
        (change("A", "Import"), "< A (AWS::X::Y) is imported"),
        (change("A", "Remove", PolicyAction="Retain"), "- A (AWS::X::Y) leaves the stack and is kept"),
        (change("A", "Remove"), "- A (AWS::X::Y) is deleted"),
        (change("A", "Modify", "False", detail("Size", "Never")), "~ A (AWS::X::Y) is changed: Size"),
        (change("A", "Modify", "True", detail("Name", "Always")), "! A (AWS::X::Y) is REPLACED: Name"),
    ],
)
def test_a_line_a_change(given: dict[str, Any], line: str) -> None:
    assert template.line(template.described(given)) == line


def test_what_two_templates_show_without_cloudformation() -> None:
    old = {"Resources": {"A": {"Type": "T", "Properties": {"x": 1, "y": 1}}, "B": {"Type": "T"}}}
    new = {"Resources": {"A": {"Type": "T", "DeletionPolicy": "Retain", "Properties": {"y": 2}}, "C": {"Type": "T"}}}
    assert [(one["logical_resource_id"], one["action"], one["properties"]) for one in template.compared(old, new)] == [
        ("A", "Modify", ["DeletionPolicy", "x", "y"]),
        ("C", "Add", []),
        ("B", "Remove", []),
    ]


# --- reasons ---------------------------------------------------------------------------------------------------------

STACK_ID = "arn:aws:cloudformation:eu-central-1:123456789012:stack/base/1"


def event(
    name: str, status: str, reason: str = "", kind: str = "AWS::S3::Bucket", physical: str = ""
) -> dict[str, Any]:
    return {
        "EventId": f"{name}-{status}",
        "StackId": STACK_ID,
        "LogicalResourceId": name,
        "PhysicalResourceId": physical,
        "ResourceType": kind,
        "ResourceStatus": status,
        "ResourceStatusReason": reason,
    }


def of_the_stack(status: str, reason: str = "") -> dict[str, Any]:
    return event("base", status, reason, "AWS::CloudFormation::Stack", STACK_ID)


def test_the_first_failure_that_is_no_consequence_of_another() -> None:
    cause = root_cause(
        None,
        [
            of_the_stack("UPDATE_IN_PROGRESS", "User Initiated"),
            event("A", "UPDATE_FAILED", "Resource update cancelled"),
            event("B", "UPDATE_FAILED", "no such key"),
            event("C", "UPDATE_FAILED", "no such role"),
            of_the_stack("UPDATE_ROLLBACK_IN_PROGRESS", "The following resource(s) failed to update: [A, B, C]."),
        ],
    )
    assert cause and cause["LogicalResourceId"] == "B"


def test_a_stack_that_fails_by_itself() -> None:
    reason = "Export with name base-Name is already exported by stack other. Rollback requested by user."
    cause = root_cause(
        None, [of_the_stack("CREATE_IN_PROGRESS", "User Initiated"), of_the_stack("CREATE_FAILED", reason)]
    )
    assert (
        cause
        and plain(cause["ResourceStatusReason"]) == "Export with name base-Name is already exported by stack other"
    )


def test_the_cause_inside_a_nested_stack() -> None:
    nested = "arn:aws:cloudformation:eu-central-1:123456789012:stack/base-Inner/2"
    inside = {**event("Deep", "CREATE_FAILED", "no such subnet"), "StackId": nested}

    class Client:
        def describe_stack_events(self, StackName: str) -> dict[str, Any]:
            assert StackName == nested
            return {"StackEvents": [inside]}

    reason = (
        f"Embedded stack {nested} was not successfully created: The following resource(s) failed to create: [Deep]."
    )
    outer = event("Inner", "CREATE_FAILED", reason, "AWS::CloudFormation::Stack", nested)
    assert root_cause(Client(), [outer]) == inside


@pytest.mark.parametrize(
    ("reason", "said"),
    [
        (
            'Resource handler returned message: "No bucket." (RequestToken: 0a-1b, HandlerErrorCode: InvalidRequest)',
            "No bucket (InvalidRequest)",
        ),
        ('Resource handler returned message: "Gone" (HandlerErrorCode: NotFound)', "Gone (NotFound)"),
        (
            "No (Service: S3; Status Code: 403; Error Code: AccessDenied; Request ID: 1; Proxy: null)",
            "No (Service: S3; Status Code: 403; Error Code: AccessDenied; Request ID: 1)",
        ),
    ],
)
def test_reasons_are_said_without_what_nobody_can_use(reason: str, said: str) -> None:
    assert plain(reason) == said


@pytest.mark.parametrize(
    ("reason", "what"),
    [
        ("Export a-base-RoleArn cannot be updated as it is in use by a-environment", "change that stack first"),
        ("Maximum policy size of 10240 bytes exceeded for role airflow (LimitExceeded)", "managed ones"),
    ],
)
def test_what_to_do_about_a_reason_that_is_known(reason: str, what: str) -> None:
    assert what in advice(reason) and advice("No bucket") == ""
