# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""``AWS::IAM::RolePolicy``, and the import of policies."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from mwaa_lab.aws.cloudformation.importing import Found, Importable

Properties = dict[str, Any]


def importable() -> dict[str, Importable]:
    from ministack.services import iam

    def role_policy(policy: str, role: str) -> Found | None:
        record = iam._roles.get(role)
        return (_policy_id(policy, role), {}) if record and policy in record["InlinePolicies"] else None

    def managed_policy(arn: str) -> Found | None:
        return (arn, {"PolicyArn": arn}) if arn in iam._policies else None

    return {
        "AWS::IAM::RolePolicy": Importable(("PolicyName", "RoleName"), role_policy),
        "AWS::IAM::ManagedPolicy": Importable(("PolicyArn",), managed_policy),
    }


def install(handlers: dict[str, Any]) -> None:
    handlers["AWS::IAM::RolePolicy"] = _role_policy_handlers()


def _policy_id(policy: str, role: str) -> str:
    return f"{policy}|{role}"


def _role_policy_handlers() -> dict[str, Callable[..., Any]]:
    def put(properties: Properties) -> Found:
        from ministack.core.iam_evaluator import validate_policy_document
        from ministack.services import iam

        role, name, document = properties["RoleName"], properties["PolicyName"], properties.get("PolicyDocument", {})
        if role not in iam._roles:
            raise ValueError(f"The role with name {role} cannot be found. (Service: Iam, Status Code: 404)")
        if wrong := validate_policy_document(document):
            raise ValueError(wrong)
        iam._roles[role]["InlinePolicies"][name] = document if isinstance(document, str) else json.dumps(document)
        return _policy_id(name, role), {}

    def create(logical_id: str, properties: Properties, stack: str) -> Found:
        return put(properties)

    def update(physical_id: str, old: Properties, new: Properties, stack: str) -> Found:
        return put(new)

    def delete(physical_id: str, properties: Properties) -> None:
        from ministack.services import iam

        policy, _, role = physical_id.partition("|")
        if role in iam._roles:
            iam._roles[role]["InlinePolicies"].pop(policy, None)

    return {"create": create, "update": update, "delete": delete}
