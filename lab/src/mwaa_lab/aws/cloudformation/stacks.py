# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Rules of stacks and change sets that ministack lacks: capabilities, roles, states, outputs, identifiers."""

from __future__ import annotations

import contextlib
import json
import re
import time
from collections.abc import Callable, Iterator
from typing import Any
from xml.sax.saxutils import escape

Parameters = dict[str, Any]
Answer = tuple[int, dict[str, str], bytes]
Handler = Callable[[Parameters], Answer]

SETTLES = 0.2
"""Seconds that a change set or a drift detection takes, so that whoever does not wait for it is found out."""

_UPDATABLE = (
    "CREATE_COMPLETE",
    "UPDATE_COMPLETE",
    "UPDATE_ROLLBACK_COMPLETE",
    "IMPORT_COMPLETE",
    "IMPORT_ROLLBACK_COMPLETE",
    "CREATE_FAILED",
    "UPDATE_FAILED",
)


def install(importable: Callable[[], dict[str, tuple[str, ...]]]) -> None:
    """:param importable: gives the identifiers of each type that can be imported."""
    from ministack.services.cloudformation import handlers

    actions: dict[str, Handler] = handlers._ACTION_HANDLERS
    handlers._capabilities_enforced = lambda: True
    for name, wrap in (
        ("CreateStack", _create_stack),
        ("UpdateStack", _with_role),
        ("DeleteStack", _delete_stack),
        ("CreateChangeSet", _create_change_set),
        ("DescribeChangeSet", _describe_change_set),
        ("ListChangeSets", _list_change_sets),
        ("ExecuteChangeSet", _execute_change_set),
        ("DescribeStacks", _describe_stacks),
        ("DescribeStackResources", _describe_stack_resources),
        ("GetTemplateSummary", lambda original: _get_template_summary(original, importable)),
        ("DetectStackDrift", _detect_stack_drift),
        ("DescribeStackDriftDetectionStatus", _describe_drift_status),
    ):
        actions[name] = wrap(actions[name])


def _refused(message: str, code: str = "ValidationError") -> Answer:
    from ministack.services.cloudformation.helpers import _error

    answer: Answer = _error(code, message)
    return answer


def _stack(parameters: Parameters) -> dict[str, Any] | None:
    from ministack.services.cloudformation import handlers
    from ministack.services.cloudformation.helpers import _p

    stack: dict[str, Any] | None = handlers._resolve_stack(_p(parameters, "StackName"))
    return stack if stack and stack["StackStatus"] != "DELETE_COMPLETE" else None


def _given(parameters: Parameters, key: str) -> str:
    from ministack.services.cloudformation.helpers import _p

    return str(_p(parameters, key))


# --- roles -----------------------------------------------------------------------------------------------------------


def _role_problem(arn: str) -> str | None:
    """CloudFormation assumes the role at once."""
    from ministack.services import iam

    role = iam._roles.get(arn.rpartition("/")[2])
    document = json.loads(role["AssumeRolePolicyDocument"]) if role and role["Arn"] == arn else {}
    for statement in document.get("Statement", []):
        services = (statement.get("Principal") or {}).get("Service", [])
        if statement.get("Effect") == "Allow" and "cloudformation.amazonaws.com" in (
            [services] if isinstance(services, str) else services
        ):
            return None
    return f"Role {arn} is invalid or cannot be assumed"


def _with_role(original: Handler) -> Handler:
    """A stack keeps the role that it was given last."""

    def handle(parameters: Parameters) -> Answer:
        role = _given(parameters, "RoleARN")
        if role and (problem := _role_problem(role)):
            return _refused(problem)
        answer = original(parameters)
        if role and answer[0] < 400 and (stack := _stack(parameters)):
            stack["_role"] = role
        return answer

    return handle


def _describe_stacks(original: Handler) -> Handler:
    def handle(parameters: Parameters) -> Answer:
        from ministack.services import cloudformation

        status, headers, body = original(parameters)
        text = body.decode()
        for stack in cloudformation._stacks.values():
            if role := stack.get("_role"):
                named = f"<StackId>{escape(stack['StackId'])}</StackId>"
                text = text.replace(named, f"{named}<RoleARN>{escape(role)}</RoleARN>")
        return status, headers, text.encode()

    return handle


def _describe_stack_resources(original: Handler) -> Handler:
    """By the resource's own id, too: that is how one finds out which stack it belongs to."""

    def handle(parameters: Parameters) -> Answer:
        from ministack.services import cloudformation

        wanted = _given(parameters, "PhysicalResourceId")
        if not wanted or _given(parameters, "StackName"):
            return original(parameters)
        for stack in cloudformation._stacks.values():
            if stack.get("StackStatus") != "DELETE_COMPLETE":
                for record in stack.get("_resources", {}).values():
                    if record.get("PhysicalResourceId") == wanted:
                        return original({**parameters, "StackName": [stack["StackId"]]})
        return _refused(f"Stack for {wanted} does not exist")

    return handle


# --- states ----------------------------------------------------------------------------------------------------------


def _create_stack(original: Handler) -> Handler:
    def handle(parameters: Parameters) -> Answer:
        if stack := _stack(parameters):
            return _refused(f"Stack [{stack['StackName']}] already exists", "AlreadyExistsException")
        return create(parameters)

    create = _with_role(original)
    return handle


def _delete_stack(original: Handler) -> Handler:
    def handle(parameters: Parameters) -> Answer:
        stack = _stack(parameters)
        if stack and stack["StackStatus"] in ("UPDATE_IN_PROGRESS", "IMPORT_IN_PROGRESS"):
            return _refused(f"Stack [{stack['StackName']}] cannot be deleted while in status {stack['StackStatus']}")
        return original(parameters)

    return handle


def _create_change_set(original: Handler) -> Handler:
    def handle(parameters: Parameters) -> Answer:
        from ministack.services import cloudformation

        kind = _given(parameters, "ChangeSetType") or "UPDATE"
        before = _stack(parameters)
        status = before["StackStatus"] if before else None
        if kind == "CREATE" and status not in (None, "REVIEW_IN_PROGRESS"):
            assert before is not None
            return _refused(
                f"Stack [{before['StackName']}] already exists and cannot be created again with the changeSet "
                f"[{_given(parameters, 'ChangeSetName')}].",
                "AlreadyExistsException",
            )
        allowed = (*_UPDATABLE, "REVIEW_IN_PROGRESS") if kind == "IMPORT" else _UPDATABLE
        if before and kind != "CREATE" and status not in allowed:
            return _refused(f"Stack:{before['StackId']} is in {status} state and can not be updated.")
        known = set(cloudformation._change_sets)
        answer = create(parameters)
        if before and kind == "CREATE":
            answer = _kept(before, answer)
        for identifier in set(cloudformation._change_sets) - known:
            made = cloudformation._change_sets[identifier]
            made["_created"] = time.monotonic()
            _only_outputs(made)
        return answer

    create = _with_role(original)
    return handle


def _kept(before: dict[str, Any], answer: Answer) -> Answer:
    """A stack in review stays the stack that it is, whatever change sets come and go."""
    from ministack.services import cloudformation

    name, old = before["StackName"], before["StackId"]
    if answer[0] >= 400:
        cloudformation._stacks[name] = before
        cloudformation._stack_events.setdefault(old, [])
        return answer
    made = cloudformation._stacks[name]
    new, made["StackId"] = made["StackId"], old
    cloudformation._stack_events.pop(new, None)
    for change_set in cloudformation._change_sets.values():
        if change_set["StackId"] == new:
            change_set["StackId"] = old
    return answer[0], answer[1], answer[2].replace(new.encode(), old.encode())


def _only_outputs(change_set: dict[str, Any]) -> None:
    """Outputs alone are a change, although they are no change of a resource."""
    from ministack.services import cloudformation

    stack = cloudformation._stacks.get(change_set["StackName"]) or {}
    if (
        change_set["ChangeSetType"] == "UPDATE"
        and change_set["Status"] == "FAILED"
        and change_set["StatusReason"].startswith("The submitted information didn't contain changes")
        and change_set["_template"].get("Outputs", {}) != (stack.get("_template") or {}).get("Outputs", {})
    ):
        change_set.update(Status="CREATE_COMPLETE", ExecutionStatus="AVAILABLE", StatusReason="")


def _settling(change_set: dict[str, Any] | None) -> bool:
    return change_set is not None and time.monotonic() - change_set.get("_created", 0.0) < SETTLES


def _found(parameters: Parameters) -> dict[str, Any] | None:
    from ministack.services.cloudformation import changesets

    stack = _stack(parameters)
    name = stack["StackName"] if stack else _given(parameters, "StackName")
    change_set: dict[str, Any] | None = changesets._find_change_set(_given(parameters, "ChangeSetName"), name)[1]
    return change_set


def _describe_change_set(original: Handler) -> Handler:
    def handle(parameters: Parameters) -> Answer:
        change_set = _found(parameters)
        with _unfinished([change_set] if change_set else []):
            return original(parameters)

    return handle


def _list_change_sets(original: Handler) -> Handler:
    def handle(parameters: Parameters) -> Answer:
        from ministack.services import cloudformation

        with _unfinished(list(cloudformation._change_sets.values())):
            return original(parameters)

    return handle


@contextlib.contextmanager
def _unfinished(change_sets: list[dict[str, Any]]) -> Iterator[None]:
    """Show those as being made that are new."""
    made = {"Status": "CREATE_IN_PROGRESS", "ExecutionStatus": "UNAVAILABLE", "StatusReason": "", "Changes": []}
    shown = [(one, {key: one[key] for key in made}) for one in change_sets if _settling(one)]
    try:
        for one, _ in shown:
            one.update(made)
        yield
    finally:
        for one, before in shown:
            one.update(before)


def _execute_change_set(original: Handler) -> Handler:
    def handle(parameters: Parameters) -> Answer:
        stack, change_set = _stack(parameters), _found(parameters)
        if _settling(change_set):
            return _refused(
                f"ChangeSet [{_given(parameters, 'ChangeSetName')}] cannot be executed in its current status of "
                "[CREATE_IN_PROGRESS]",
                "InvalidChangeSetStatus",
            )
        if stack and stack["StackStatus"] not in (*_UPDATABLE, "REVIEW_IN_PROGRESS"):
            return _refused(f"Stack:{stack['StackId']} is in {stack['StackStatus']} state and can not be updated.")
        return original(parameters)

    return handle


# --- what can be imported --------------------------------------------------------------------------------------------


def _get_template_summary(original: Handler, importable: Callable[[], dict[str, tuple[str, ...]]]) -> Handler:
    def handle(parameters: Parameters) -> Answer:
        from ministack.services.cloudformation import engine
        from ministack.services.cloudformation.helpers import _resolve_template

        status, headers, body = original(parameters)
        if status >= 400:
            return status, headers, body
        text, _problem = _resolve_template(parameters)
        stack = _stack(parameters)
        template = engine._parse_template(text or (stack or {}).get("_template_body", "{}"))
        identifiers = importable()
        found: dict[str, list[str]] = {}
        for logical_id, resource in template.get("Resources", {}).items():
            if resource.get("Type") in identifiers:
                found.setdefault(resource["Type"], []).append(logical_id)
        summaries = "".join(
            f"<member><ResourceType>{kind}</ResourceType><LogicalResourceIds>{_members(names)}</LogicalResourceIds>"
            f"<ResourceIdentifiers>{_members(identifiers[kind])}</ResourceIdentifiers></member>"
            for kind, names in found.items()
        )
        end = b"</GetTemplateSummaryResult>"
        added = f"<ResourceIdentifierSummaries>{summaries}</ResourceIdentifierSummaries>".encode()
        return status, headers, body.replace(end, added + end)

    return handle


def _members(names: Any) -> str:
    return "".join(f"<member>{escape(name)}</member>" for name in names)


# --- drift takes its time --------------------------------------------------------------------------------------------

_detected: dict[str, float] = {}


def _detect_stack_drift(original: Handler) -> Handler:
    def handle(parameters: Parameters) -> Answer:
        answer = original(parameters)
        if found := re.search(rb"<StackDriftDetectionId>([^<]+)<", answer[2]):
            _detected[found[1].decode()] = time.monotonic()
        return answer

    return handle


def _describe_drift_status(original: Handler) -> Handler:
    def handle(parameters: Parameters) -> Answer:
        status, headers, body = original(parameters)
        began = _detected.get(_given(parameters, "StackDriftDetectionId"), 0.0)
        if time.monotonic() - began < SETTLES:
            body = re.sub(rb"<DetectionStatus>[A-Z_]+<", b"<DetectionStatus>DETECTION_IN_PROGRESS<", body)
            body = re.sub(rb"<(StackDriftStatus|DriftedStackResourceCount)>[^<]*</\1>", b"", body)
        return status, headers, body

    return handle
