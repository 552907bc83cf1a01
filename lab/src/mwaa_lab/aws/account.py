# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What an account's own services lack in ministack: Service Quotas, IAM's simulation, alternatives in log filters."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any
from xml.sax.saxutils import escape

Parameters = dict[str, Any]
Answer = tuple[int, dict[str, str], bytes]


def install() -> None:
    from ministack import app
    from ministack.core import router
    from ministack.services import cloudwatch_logs, iam

    _alternatives(cloudwatch_logs)
    iam._IAM_HANDLERS["SimulatePrincipalPolicy"] = simulate_principal
    app.SERVICE_HANDLERS["servicequotas"] = service_quotas
    router.SERVICE_PATTERNS["servicequotas"] = {"target_prefixes": ["ServiceQuotasV20190624"]}


def _alternatives(logs: Any) -> None:
    """Let FilterLogEvents know "?one ?other": events with one of the terms."""
    original = logs._compile_filter_pattern

    def compiled(pattern: str) -> Any:
        terms = re.findall(r'\?("[^"]+"|\S+)', pattern or "")
        if not terms or not pattern.lstrip().startswith("?"):
            return original(pattern)
        return lambda message: any(term.strip('"') in message for term in terms)

    logs._compile_filter_pattern = compiled


# --- IAM -------------------------------------------------------------------------------------------------------------

_DECISIONS = {"Allow": "allowed", "Deny": "explicitDeny", "ImplicitDeny": "implicitDeny"}


def simulate_principal(parameters: Parameters) -> Answer:
    """What the policies of a user, a group's member or a role say to each action on each resource.

    With permission boundaries and the context that is given; resources' own policies are not looked at.
    """
    from ministack.core import iam_evaluator as evaluator
    from ministack.core.responses import get_account_id, get_region
    from ministack.services import iam

    arn, account = iam._p(parameters, "PolicySourceArn"), get_account_id()
    kind, _, path = arn.split(":", 5)[-1].partition("/")
    name = path.rpartition("/")[2]
    store = {"role": iam._roles, "user": iam._users}.get(kind)
    if store is None or name not in store:
        refused: Answer = iam._error(404, "NoSuchEntity", f"The {kind} with name {name} cannot be found.", ns="iam")
        return refused
    gather = evaluator._gather_role_policies if kind == "role" else evaluator._gather_user_policies
    policies, boundary = gather(name, account), evaluator._permissions_boundary(store, name, account)
    policies += [evaluator.parse_policy_document(text) for text in _members(parameters, "PolicyInputList")]
    context = {entry["ContextKeyName"].lower(): entry["ContextKeyValues"][0] for entry in _entries(parameters, iam._p)}
    members = ""
    for action in _members(parameters, "ActionNames"):
        for resource in _members(parameters, "ResourceArns") or ["*"]:
            asked = evaluator.EvalContext(
                principal_arn=arn,
                principal_type="User" if kind == "user" else "AssumedRole",
                principal_account=account,
                action=action,
                resource_arn=resource,
                region=get_region(),
                service_context=context,
            )
            decision = evaluator.evaluate(asked, policies, *boundary).decision
            detail = ""
            if boundary:
                within = evaluator.evaluate(asked, boundary[0]).decision == "Allow"
                detail = (
                    "<PermissionsBoundaryDecisionDetail><AllowedByPermissionsBoundary>"
                    f"{str(within).lower()}"
                    "</AllowedByPermissionsBoundary></PermissionsBoundaryDecisionDetail>"
                )
            members += (
                f"<member><EvalActionName>{escape(action)}</EvalActionName>"
                f"<EvalResourceName>{escape(resource)}</EvalResourceName>"
                f"<EvalDecision>{_DECISIONS[decision]}</EvalDecision>"
                f"<MatchedStatements/><MissingContextValues/>{detail}</member>"
            )
    answer: Answer = iam._xml(
        200,
        "SimulatePrincipalPolicyResponse",
        f"<SimulatePrincipalPolicyResult><EvaluationResults>{members}</EvaluationResults>"
        "<IsTruncated>false</IsTruncated></SimulatePrincipalPolicyResult>",
        ns="iam",
    )
    return answer


def _members(parameters: Parameters, prefix: str) -> list[str]:
    from ministack.services import iam

    found: list[str] = []
    while value := iam._p(parameters, f"{prefix}.member.{len(found) + 1}"):
        found.append(value)
    return found


def _entries(parameters: Parameters, get: Callable[[Parameters, str], str]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    while name := get(parameters, f"ContextEntries.member.{len(found) + 1}.ContextKeyName"):
        values = _members(parameters, f"ContextEntries.member.{len(found) + 1}.ContextKeyValues")
        found.append({"ContextKeyName": name, "ContextKeyValues": values or [""]})
    return found


# --- Service Quotas --------------------------------------------------------------------------------------------------

# Names and defaults as the user guide has them (mwaa-quotas); the codes are the lab's own, AWS's are not published.
_QUOTAS = {
    "L-LABENVS1": ("Environments", 10),
    "L-LABWORK1": ("Workers per environment", 25),
    "L-LABWEBS1": ("Web servers per environment", 5),
}


async def service_quotas(
    method: str, path: str, headers: dict[str, str], body: bytes, query: dict[str, Any]
) -> tuple[int, dict[str, str], bytes]:
    from ministack.core.responses import error_response_json, get_account_id, get_region, json_response

    operation = {key.lower(): value for key, value in headers.items()}.get("x-amz-target", "").rpartition(".")[2]
    given = json.loads(body or b"{}")
    quotas = [
        {
            "ServiceCode": "airflow",
            "ServiceName": "Amazon Managed Workflows for Apache Airflow",
            "QuotaArn": f"arn:aws:servicequotas:{get_region()}:{get_account_id()}:airflow/{code}",
            "QuotaCode": code,
            "QuotaName": name,
            "Value": float(value),
            "Unit": "None",
            "Adjustable": True,
            "GlobalQuota": False,
        }
        for code, (name, value) in _QUOTAS.items()
    ]
    answer: Answer
    if operation in ("ListServiceQuotas", "ListAWSDefaultServiceQuotas"):
        answer = json_response({"Quotas": quotas if given.get("ServiceCode") == "airflow" else []})
    elif operation in ("GetServiceQuota", "GetAWSDefaultServiceQuota"):
        found = [one for one in quotas if one["QuotaCode"] == given.get("QuotaCode")]
        if found and given.get("ServiceCode") == "airflow":
            answer = json_response({"Quota": found[0]})
        else:
            answer = error_response_json("NoSuchResourceException", "The request failed. No such quota.", 400)
    else:
        answer = error_response_json("UnknownOperationException", f"Not in the lab: {operation}", 400)
    return answer
