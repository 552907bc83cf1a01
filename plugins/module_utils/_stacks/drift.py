# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What differs between a stack's resources and its template, by property.

PRIVATE to the collection: no promise is made to other collections.
"""

from __future__ import annotations

import json
from typing import Any

from ansible_collections.mwaa.migration.plugins.module_utils._errors import MigrationError, aws_errors
from ansible_collections.mwaa.migration.plugins.module_utils._mwaa.settings import looks_secret
from ansible_collections.mwaa.migration.plugins.module_utils._stacks.stack import Deadline

HIDDEN = "********"
LONG = 80  # characters of a value in a sentence


def status(stack: dict[str, Any]) -> str:
    """NOT_CHECKED, IN_SYNC or DRIFTED, as DescribeStacks shows it. An update makes it NOT_CHECKED again."""
    return (stack.get("DriftInformation") or {}).get("StackDriftStatus") or "NOT_CHECKED"


def detect(client: Any, stack: dict[str, Any], deadline: Deadline) -> list[str]:
    """Have CloudFormation compare the stack's resources with its template, and wait. Returns warnings."""
    name = stack["StackName"]
    with aws_errors(f"detect drift of stack {name}"):
        detection = client.detect_stack_drift(StackName=stack["StackId"])["StackDriftDetectionId"]

    def probe() -> dict[str, Any] | None:
        with aws_errors(f"detect drift of stack {name}"):
            answer = client.describe_stack_drift_detection_status(StackDriftDetectionId=detection)
        return None if answer["DetectionStatus"] == "DETECTION_IN_PROGRESS" else answer

    try:
        ended = deadline.wait(probe, lambda: f"stack {name}: looking for drift", interval=5.0)
    except MigrationError as error:
        error.message += "; what was asked for is done, only its drift is not known yet"
        raise
    if ended["DetectionStatus"] == "DETECTION_COMPLETE":
        return []
    reason = (ended.get("DetectionStatusReason") or "no reason is given").rstrip(".")
    return [f"stack {name}: drift could not be detected in all its resources: {reason}"]


def read(client: Any, stack: dict[str, Any]) -> list[dict[str, Any]]:
    """The drift that the last detection found, an entry a property. Values that look secret are masked."""
    found: list[dict[str, Any]] = []
    token: dict[str, str] = {}
    while True:
        with aws_errors(f"read the drift of stack {stack['StackName']}"):
            page = client.describe_stack_resource_drifts(
                StackName=stack["StackId"], StackResourceDriftStatusFilters=["MODIFIED", "DELETED"], **token
            )
        for resource in page.get("StackResourceDrifts") or []:
            found += _of(resource)
        if not page.get("NextToken"):
            return found
        token = {"NextToken": page["NextToken"]}


def _of(resource: dict[str, Any]) -> list[dict[str, Any]]:
    what = {"logical_resource_id": resource["LogicalResourceId"], "resource_type": resource.get("ResourceType", "")}
    if resource["StackResourceDriftStatus"] == "DELETED":
        return [{**what, "property_path": "", "expected": "", "actual": "", "kind": "deleted"}]
    return [
        {
            **what,
            "property_path": one["PropertyPath"],
            "expected": masked(one["PropertyPath"], one.get("ExpectedValue") or ""),
            "actual": masked(one["PropertyPath"], one.get("ActualValue") or ""),
            "kind": {"ADD": "added", "REMOVE": "removed"}.get(one["DifferenceType"], "changed"),
        }
        for one in resource.get("PropertyDifferences") or []
    ]


def masked(path: str, text: str) -> str:
    """A property's value, a text or JSON, with what looks secret by its name masked."""
    if any(looks_secret(part.lower()) for part in path.split("/")):
        return HIDDEN if text not in ("", "null") else text
    try:
        value = json.loads(text)
    except ValueError:
        return text
    return json.dumps(_masked(value), sort_keys=True) if isinstance(value, (dict, list)) else text


def _masked(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: HIDDEN if looks_secret(str(key).lower()) else _masked(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_masked(one) for one in value]
    return value


def sentence(stack_name: str, one: dict[str, Any]) -> str:
    """One entry of `read` as a warning."""
    what = f"drift in stack {stack_name}: {one['logical_resource_id']} ({one['resource_type']})"
    if one["kind"] == "deleted":
        return f"{what} does not exist any more"
    expected, actual = (_short(one[key]) for key in ("expected", "actual"))
    said = {
        "added": f"is {actual}, and the template does not say it",
        "removed": f"is not there, and the template says {expected}",
    }.get(one["kind"], f"is {actual}, and the template says {expected}")
    return f"{what}: {one['property_path']} {said}"


def _short(text: str) -> str:
    return text if len(text) <= LONG else text[:LONG] + "…"
