# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""All that the lab takes hold of inside ministack, in one place, and the check that it is still there.

These are private names of a package that is pinned for that reason. ``check()`` runs at every start, so that a changed
ministack ends in one sentence and not in a strange failure later.
"""

from __future__ import annotations

import fnmatch
import importlib
import importlib.metadata
import json
import time
from typing import Any

PINNED = "1.5.33"

_NAMES = {
    "ministack.app": ("app", "_get_module"),
    "ministack.core.responses": (
        "get_account_id",
        "get_region",
        "set_request_account_id",
        "error_response_json",
        "_account_from_sts_session",
    ),
    "ministack.core.iam_evaluator": ("find_iam_access_key_account", "_gather_role_policies", "_gather_user_policies"),
    "ministack.services.iam": ("_access_keys", "_roles", "_policies"),
    "ministack.services.sts": ("_sessions",),
    "ministack.services.secretsmanager": ("_secrets", "_create_secret", "_filter_secret_names", "error_response_json"),
    "ministack.services.ec2": (
        "_ACTION_MAP",
        "_addresses",
        "_internet_gateways",
        "_nat_gateways",
        "_route_tables",
        "_security_groups",
        "_sg_rule_id",
        "_subnets",
        "_tags",
        "_vpc_endpoints",
        "_vpcs",
        "_vpn_gateways",
    ),
    "ministack.services.kms": ("_keys",),
    "ministack.services.s3": (
        "_bucket_has_versions",
        "_bucket_policies",
        "_bucket_tags",
        "_bucket_versioning",
        "_buckets",
        "_delete_bucket_encryption",
        "_delete_bucket_lifecycle",
        "_delete_bucket_ownership_controls",
        "_get_bucket_encryption",
        "_get_bucket_lifecycle",
        "_get_bucket_ownership_controls",
        "_get_public_access_block",
        "_put_bucket_encryption",
        "_put_bucket_lifecycle",
        "_put_bucket_ownership_controls",
    ),
    "ministack.services.cloudformation": ("_change_sets", "_stack_events", "_stacks"),
    "ministack.services.cloudformation.drift": ("DRIFT_DETECTABLE_STATUSES", "_DRIFT_READERS"),
    "ministack.services.cloudformation.engine": ("_parse_template",),
    "ministack.services.cloudformation.handlers": ("_ACTION_HANDLERS", "_capabilities_enforced", "_resolve_stack"),
    "ministack.services.cloudformation.helpers": ("_error", "_p", "_resolve_template"),
    "ministack.services.cloudwatch_logs": ("_put_log_events", "_log_groups", "json_response"),
    "ministack.services.cloudformation.provisioners": (
        "_RESOURCE_HANDLERS",
        "_CONDITIONALLY_REPLACING_PROPERTIES",
        "_CUSTOM_NAME_REPLACEMENT",
        "_REPLACING_PROPERTIES",
        "_STACK_TAG_PROPERTY",
        "_ec2_apply_tags",
        "_tag_map",
        "_with_stack_tags",
    ),
    "ministack.services.cloudformation.stacks": ("_runs_on_worker_thread",),
    "ministack.services.cloudformation.changesets": (
        "_IMPORT_LOOKUPS",
        "_IMPORT_NOT_FOUND",
        "_find_change_set",
        "_import_change",
        "_import_owner",
        "_import_resources_async",
    ),
}


class MinistackChanged(Exception):
    """ministack is not the one that the lab was written for."""


def check() -> None:
    """Raises MinistackChanged when the version or a name that the lab hooks into is not what it was."""
    version = importlib.metadata.version("ministack")
    if version != PINNED:
        raise MinistackChanged(
            f"The lab needs ministack {PINNED} and found {version}: pip install ministack=={PINNED}."
        )
    missing = [
        f"{module}.{name}"
        for module, wanted in _NAMES.items()
        for name in wanted
        if not hasattr(importlib.import_module(module), name)
    ]
    if missing:
        raise MinistackChanged(
            f"ministack {version} no longer has {', '.join(missing)}, which the lab hooks into: install the pinned one."
        )


def application() -> Any:
    """ministack's ASGI application."""
    import ministack.app

    return ministack.app.app


def account(access_key: str) -> str:
    """The account that an access key belongs to, as ministack sees it (a 12-digit key is an account)."""
    from ministack.core import iam_evaluator, responses

    owner = iam_evaluator.find_iam_access_key_account(access_key)
    responses.set_request_account_id(owner or access_key)
    return responses.get_account_id()


def principal(access_key: str) -> str:
    """The ARN of whoever owns an access key."""
    from ministack.services import iam, sts

    session = sts._sessions.get(access_key)
    if session and session.get("Arn"):
        return str(session["Arn"])
    owner = account(access_key)
    record = iam._access_keys.get(access_key)
    if record and record.get("UserName"):
        return f"arn:aws:iam::{owner}:user/{record['UserName']}"
    return f"arn:aws:iam::{owner}:root"


def permitted(access_key: str, action: str, resource: str) -> bool | None:
    """Whether the policies of whoever owns an access key allow a call into an environment.

    None: they say nothing of such calls, and the lab enforces no IAM. Conditions are not looked at.
    """
    from ministack.core import iam_evaluator as iam

    arn = principal(access_key).split(":")
    kind, _, name = arn[5].partition("/")
    if kind == "user":
        policies = iam._gather_user_policies(name, arn[4])
    elif kind == "assumed-role":
        policies = iam._gather_role_policies(name.partition("/")[0], arn[4])
    else:
        return None
    statements = [statement for policy in policies for statement in policy]
    if not any(_covers(statement.actions, named) for statement in statements for named in _INTO_ENVIRONMENTS):
        return None
    hits = [one.effect for one in statements if _covers(one.actions, action) and _covers(one.resources, resource)]
    return "Allow" in hits and "Deny" not in hits


_INTO_ENVIRONMENTS = ("airflow:InvokeRestApi", "airflow:CreateWebLoginToken", "airflow:CreateCliToken")


def _covers(patterns: list[str], value: str) -> bool:
    return any(fnmatch.fnmatchcase(value, pattern) for pattern in patterns)


_over: set[str] = set()


def expire_sessions() -> int:
    """Let every STS session given out so far be over. :return: how many."""
    from ministack.services import sts

    _over.update(sts._sessions)
    return len(_over)


def expired(access_key: str) -> bool:
    """Whether these are credentials of an STS session that is over."""
    from ministack.services import sts

    if access_key in _over:
        return True
    ends = (sts._sessions.get(access_key) or {}).get("Expiration")
    return isinstance(ends, (int, float)) and ends < time.time()


def limit_log_events() -> None:
    """Give PutLogEvents CloudWatch's limits of age, order, span and size."""
    from ministack.services import cloudwatch_logs as logs

    from mwaa_lab.aws import rules
    from mwaa_lab.aws.model import ApiError

    original = logs._put_log_events

    def put_log_events(data: dict[str, Any]) -> Any:
        group = logs._log_groups.get(data.get("logGroupName")) or {}
        streams = group.get("streams") or {}
        if data.get("logStreamName") not in streams:
            return original(data)
        try:
            kept, info = rules.log_events(
                data.get("logEvents") or [], int(time.time() * 1000), group.get("retentionInDays")
            )
        except ApiError as error:
            return logs.error_response_json(error.code, error.message, error.status)
        status, headers, body = original({**data, "logEvents": kept})
        if info:
            body = json.dumps({**json.loads(body), "rejectedLogEventsInfo": info}).encode()
        return status, headers, body

    logs._put_log_events = put_log_events


def strict_secrets() -> None:
    """Give Secrets Manager its answer to names that wait to be deleted, and its filter of names (a prefix, by case)."""
    from ministack.services import secretsmanager as secrets

    create, filter_names = secrets._create_secret, secrets._filter_secret_names

    def create_secret(data: dict[str, Any]) -> Any:
        if (secrets._secrets.get(data.get("Name")) or {}).get("DeletedDate"):
            return secrets.error_response_json(
                "InvalidRequestException",
                "You can't create this secret because a secret with this name is already scheduled for deletion.",
                400,
            )
        return create(data)

    def filter_secret_names(names: list[str], filters: list[dict[str, Any]]) -> list[str]:
        kept = filter_names(names, [given for given in filters if given.get("Key") != "name"])
        for given in filters:
            if given.get("Key") == "name":
                kept = [name for name in kept if any(_begins(name, value) for value in given.get("Values", []))]
        return kept

    secrets._create_secret, secrets._filter_secret_names = create_secret, filter_secret_names


def _begins(name: str, value: str) -> bool:
    return not name.startswith(value[1:]) if value.startswith("!") else name.startswith(value)
