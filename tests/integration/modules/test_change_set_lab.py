# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""cloudformation_change_set against the lab's CloudFormation."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable
from typing import Any

import pytest

pytestmark = pytest.mark.lab


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
