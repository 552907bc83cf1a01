# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""All that the lab takes hold of inside ministack, in one place, and the check that it is still there.

These are private names of a package that is pinned for that reason. ``check()`` runs at every start, so that a changed
ministack ends in one sentence and not in a strange failure later.
"""

from __future__ import annotations

import functools
import importlib
import importlib.metadata
import json
import re
import time
from typing import Any

PINNED = "1.5.33"

_NAMES = {
    "ministack.app": ("app", "_get_module", "SERVICE_HANDLERS"),
    "ministack.core.router": ("SERVICE_PATTERNS",),
    "ministack.core.responses": (
        "get_account_id",
        "get_region",
        "set_request_region",
        "set_request_account_id",
        "error_response_json",
        "_account_from_sts_session",
    ),
    "ministack.core.iam_evaluator": (
        "EvalContext",
        "_gather_role_policies",
        "_gather_user_policies",
        "_permissions_boundary",
        "evaluate",
        "find_iam_access_key_account",
        "validate_policy_document",
    ),
    "ministack.services.iam": (
        "_IAM_HANDLERS",
        "_access_keys",
        "_create_service_linked_role",
        "_error",
        "_p",
        "_policies",
        "_roles",
        "_users",
        "_xml",
    ),
    "ministack.services.sts": ("_sessions",),
    "ministack.services.secretsmanager": (
        "_secrets",
        "_resolve",
        "_create_secret",
        "_filter_secret_names",
        "error_response_json",
    ),
    "ministack.services.ec2": (
        "_ACTION_MAP",
        "_VPCE_GATEWAY_SERVICES",
        "_VPCE_INTERFACE_SERVICES",
        "_addresses",
        "_aws_pl_id_from_name",
        "_describe_instances",
        "_error",
        "_instances",
        "_internet_gateways",
        "_nat_gateways",
        "_network_acls",
        "_network_interfaces",
        "_now_ts",
        "_p",
        "_parse_filters",
        "_parse_member_list",
        "_parse_tag_specs",
        "_route_tables",
        "_security_groups",
        "_sg_rule_id",
        "_subnets",
        "_tag_set_xml",
        "_tags",
        "_vpc_endpoints",
        "_vpcs",
        "_vpn_gateways",
        "_xml",
    ),
    "ministack.services.kms": ("_keys",),
    "ministack.services.s3": (
        "_get_object",
        "_parse_range",
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
    "ministack.services.cloudwatch_logs": (
        "_compile_filter_pattern",
        "_create_log_stream",
        "_get_log_events",
        "_log_groups",
        "_put_log_events",
        "json_response",
    ),
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
    "ministack.services.cloudformation.stacks": ("_runs_on_worker_thread", "_resolve_dynamic_references"),
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

    _parts_of_versions()
    return ministack.app.app


@functools.cache  # once, however often there is an application
def _parts_of_versions() -> None:
    """GetObject with a version and a range: ministack answers with the whole version."""
    from ministack.services import s3

    whole = s3._get_object

    def get_object(bucket: str, key: str, headers: dict[str, str], query: dict[str, Any] | None = None) -> Any:
        status, answer, body = whole(bucket, key, headers, query)
        asked = headers.get("range", "")
        if status != 200 or not asked or "Content-Range" in answer:
            return status, answer, body
        part = s3._parse_range(asked, len(body))
        if part is None:
            return whole(bucket, key, headers, {})  # says why not
        start, end = part
        cut = body[start : end + 1]
        sized = {"Content-Length": str(len(cut)), "Content-Range": f"bytes {start}-{end}/{len(body)}"}
        kept = {name: value for name, value in answer.items() if not name.lower().startswith("x-amz-checksum")}
        return 206, {**kept, **sized}, cut  # checksums are those of the whole

    s3._get_object = get_object


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


# --- who has which permissions, and what a request needs --------------------------------------------------------------


def stand(access_key: str, region: str) -> str:
    """Let what ministack keeps be looked up as in a call with this key, in this task. :return: its account."""
    from ministack.core import responses

    responses.set_request_region(region)
    return account(access_key)


def caller(access_key: str, owner: str) -> Any:
    """ministack's PrincipalInfo of who owns an access key, or its AuthError (``code``, ``message``)."""
    from ministack.core import iam_evaluator

    return iam_evaluator.resolve_principal(access_key, owner)


def role(owner: str, name: str, session: str) -> Any:
    """The PrincipalInfo of a role of the account, assumed by a service."""
    from ministack.core import iam_evaluator as evaluator
    from ministack.services import iam

    return evaluator.PrincipalInfo(
        arn=f"arn:aws:sts::{owner}:assumed-role/{name}/{session}",
        type="AssumedRole",
        account=owner,
        policies=evaluator._gather_role_policies(name, owner),
        limits=evaluator._permissions_boundary(iam._roles, name, owner),
    )


def decide(who: Any, action: str, resource: str, context: dict[str, Any], region: str) -> Any:
    """ministack's EvalResult (``decision`` Allow, Deny or ImplicitDeny, ``resource_policy_arn``) of one action.

    With the policies of the caller and of the bucket, key, secret or role that it is about, and the grants of keys.
    """
    from ministack.core import iam_evaluator as evaluator
    from ministack.services import iam
    from ministack.services.tagging import resource_tags

    service = action.partition(":")[0]
    known = {"aws:tagkeys": None, **context}
    if evaluator._names_condition_key(who.policies, "aws:resourcetag/"):
        for name, value in (resource_tags(resource) or {}).items():
            known.setdefault(f"aws:resourcetag/{name}".lower(), value)
    asked = evaluator.EvalContext(
        principal_arn=who.arn,
        principal_type=who.type,
        principal_account=who.account,
        action=action,
        resource_arn=resource,
        region=region,
        source_ip="127.0.0.1",
        secure_transport=True,  # the lab's endpoint stands for one over TLS
        service_context=known,
        principal_keys=who.keys,
    )
    result = evaluator.evaluate(asked, who.policies, *who.limits)
    own = evaluator._resource_policy(service, resource)
    if action == "sts:AssumeRole" and (found := iam._roles.get(resource.rpartition("/")[2])):
        # A role's trust names no resource: the role is it.
        trust = json.loads(found["AssumeRolePolicyDocument"])
        statements = trust.get("Statement") or []
        statements = [statements] if isinstance(statements, dict) else statements
        own = {"Statement": [{"Resource": "*", **statement} for statement in statements]}, who.account
    if own is not None:
        result = evaluator.combine_resource_policy(
            result, asked, *own, required=service in ("kms", "sts"), limits=tuple(who.limits)
        )
    if service == "kms" and result.decision == "ImplicitDeny" and _granted(who.arn, action, resource, context):
        result.decision = "Allow"
    return result


def _granted(principal: str, action: str, key: str, context: dict[str, Any]) -> bool:
    from ministack.services import kms

    role_of = re.match(r"arn:aws:sts::(\d+):assumed-role/([^/]+)/", principal)
    for grant in kms._grants.values():
        grantee = str(grant["GranteePrincipal"])
        same = grantee == principal or (
            role_of is not None
            and grantee.startswith(f"arn:aws:iam::{role_of[1]}:role/")
            and grantee.rpartition("/")[2] == role_of[2]
        )
        if not same or grant["KeyId"] != key or action.partition(":")[2] not in grant["Operations"]:
            continue
        constraints = grant.get("Constraints") or {}
        wanted: dict[str, str] = next(iter(constraints.values()), {})
        given = {name: context.get(f"kms:encryptioncontext:{name}".lower()) for name in wanted}
        if given != wanted:
            continue
        names = {str(name) for name in context.get("kms:encryptioncontextkeys") or []}
        if "EncryptionContextEquals" not in constraints or names == set(wanted):
            return True
    return False


def iam_namespace(service: str) -> str:
    """What the actions of a service begin with, by the name that it is signed for."""
    from ministack.core import iam_actions

    return iam_actions.SERVICE_TO_IAM_NAMESPACE.get(service, service)


def s3_needs(
    method: str, path: str, headers: dict[str, str], query: dict[str, list[str]], body: bytes
) -> list[tuple[str, str, dict[str, Any]]]:
    """Actions, resources and condition keys of an S3 request."""
    from ministack.core import iam_actions
    from ministack.services import s3

    name = iam_actions._s3_action(method, path, query)
    if name is None:
        return []
    action = f"s3:{name}"
    resource = iam_actions.extract_resource_arn("s3", method, path, headers, body, query, "", "")
    context = iam_actions.s3_service_context(action, query, path, headers)
    more = iam_actions.s3_additional_checks(method, path, headers, body, query)
    lower = {key.lower(): value for key, value in context.items()}
    found = [(action, resource, lower), *((other, arn, {}) for other, arn in more)]
    bucket, _, key = resource.rpartition(":::")[2].partition("/")
    stored = s3._buckets.get(bucket)
    if action == "s3:GetObject" and stored is not None and key not in stored["objects"]:
        found.append(("s3:ListBucket", f"arn:aws:s3:::{bucket}", {}))  # only who may list is told that it is not there
    return found


def s3_key(action: str, resource: str, headers: dict[str, str]) -> str:
    """ARN of the customer's key that an object is, or will be, encrypted with; empty: S3's own."""
    from ministack.services import s3

    bucket, _, name = resource.rpartition(":::")[2].partition("/")
    header = "x-amz-server-side-encryption-aws-kms-key-id"
    found = ""
    if action == "s3:PutObject":
        found = headers.get(header) or s3._bucket_default_sse_headers(bucket).get(header, "")
    elif action in ("s3:GetObject", "s3:GetObjectVersion"):
        record = ((s3._buckets.get(bucket) or {}).get("objects") or {}).get(name)
        default = s3._bucket_default_sse_headers(bucket)
        found = {**default, **s3._stored_sse_headers(record)}.get(header, "") if record else ""
    return kms_key(found)


def tag_context(service: str, action: str, body: bytes, form: dict[str, list[str]]) -> dict[str, Any]:
    """aws:RequestTag/… and aws:TagKeys of a request."""
    from ministack.core import iam_actions

    found = iam_actions.request_tag_context(service, action, body, form)
    return {key.lower(): value for key, value in found.items()}


def role_arn(name: str) -> str | None:
    """ARN of a role that exists, with its path."""
    from ministack.services import iam

    found = iam._roles.get(name)
    return str(found["Arn"]) if found else None


def kms_key(named: str, ciphertext: str = "") -> str:
    """ARN of a key by id, ARN or alias, or by what it encrypted; empty: there is none."""
    from ministack.core import iam_actions
    from ministack.services import kms

    found = kms._resolve_key(named or iam_actions._kms_key_id_from_ciphertext(ciphertext))
    return str(found["Arn"]) if found else ""


def secret_arn(named: str) -> str:
    from ministack.services import secretsmanager

    found = secretsmanager._resolve(named)[1]
    return str(found["ARN"]) if found else ""


def secret_key(named: str) -> str:
    """The key that a secret names as its own."""
    from ministack.services import secretsmanager

    found = secretsmanager._resolve(named)[1]
    return str((found or {}).get("KmsKeyId") or "")


def _stack(named: str) -> dict[str, Any]:
    from ministack.services.cloudformation import handlers

    return handlers._resolve_stack(named) or {}


def stack_arn(named: str) -> str:
    return str(_stack(named).get("StackId") or "")


def stack_role(named: str) -> str:
    """The role that CloudFormation acts in, for a stack that has one."""
    return str(_stack(named).get("_role") or "")


def stack_of_change_set(arn: str) -> str:
    from ministack.services import cloudformation

    return str((cloudformation._change_sets.get(arn) or {}).get("StackId") or "")


def stack_resources(named: str) -> list[tuple[str, str, dict[str, Any]]]:
    """Type, physical id and properties of what a stack holds."""
    found = (_stack(named).get("_resources") or {}).values()
    return [(it["ResourceType"], it.get("PhysicalResourceId") or "", it.get("Properties") or {}) for it in found]


def vpcs_of(subnets: list[str]) -> list[str]:
    from ministack.services import ec2

    found = [ec2._subnets.get(one) for one in subnets]
    return list(dict.fromkeys(str(one["VpcId"]) for one in found if one))


def name_service_linked_role() -> None:
    """Give MWAA's service-linked role the name that it has at AWS."""
    from ministack.services import iam

    def rename(text: Any) -> Any:
        return text.replace(b"AWSServiceRoleForAirflow", b"AWSServiceRoleForAmazonMWAA")

    original = iam._create_service_linked_role

    def create(parameters: Any) -> Any:
        if "airflow.amazonaws.com" not in str(parameters.get("AWSServiceName")):
            return original(parameters)
        if "AWSServiceRoleForAmazonMWAA" in iam._roles:
            words = "Service role name AWSServiceRoleForAmazonMWAA has been taken in this account"
            return iam._error(400, "InvalidInput", words, ns="iam")
        status, headers, body = original(parameters)
        made = iam._roles.pop("AWSServiceRoleForAirflow")
        name = "AWSServiceRoleForAmazonMWAA"
        iam._roles[name] = {**made, "RoleName": name, "Arn": made["Arn"].rpartition("/")[0] + "/" + name}
        return status, headers, rename(body)

    iam._IAM_HANDLERS["CreateServiceLinkedRole"] = create


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
    """Give PutLogEvents CloudWatch's limits of age, order, span and size, GetLogEvents its pages and its retention, and
    CreateLogStream its names.
    """
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

    create, read = logs._create_log_stream, logs._get_log_events

    def create_log_stream(data: dict[str, Any]) -> Any:
        error = rules.log_stream(str(data.get("logStreamName") or ""))
        return logs.error_response_json(error.code, error.message, error.status) if error else create(data)

    def get_log_events(data: dict[str, Any]) -> Any:
        days = (logs._log_groups.get(data.get("logGroupName")) or {}).get("retentionInDays")
        if days:
            oldest = int(time.time() * 1000) - days * 24 * 3600 * 1000
            data = {**data, "startTime": max(int(data.get("startTime") or 0), oldest)}
        status, headers, body = read(data)
        if status == 200:
            messages = [event["message"] for event in json.loads(body)["events"]]
            fitting = rules.log_page(messages) if data.get("startFromHead") else rules.log_page(messages[::-1])
            if fitting < len(messages):
                return read({**data, "limit": fitting})
        return status, headers, body

    logs._put_log_events, logs._create_log_stream, logs._get_log_events = (
        put_log_events,
        create_log_stream,
        get_log_events,
    )


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
