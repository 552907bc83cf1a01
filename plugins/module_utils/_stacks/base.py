# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What an environment's base exports, and the documents that let its role work. Pure: nothing here calls AWS.

PRIVATE to the collection: no promise is made to other collections.

Every base stack, adopted or new, exports `<stack>-<Name>` for the names in EXPORTS (OPTIONAL_EXPORTS where it has
them); roles/mwaa_stack/files/base.template says the same as these functions (tests/unit/test_stacks_base.py).
Rights as of MWAA's user guide, mwaa-create-role.
"""

from __future__ import annotations

import copy
import fnmatch
from collections.abc import Iterable
from typing import Any, NamedTuple

from ansible_collections.mwaa.migration.plugins.module_utils._preflight.permissions import QUEUE_ACTIONS
from ansible_collections.mwaa.migration.plugins.module_utils._state.secrets import policy as secrets_policy

EXPORTS = (
    "VpcId",
    "SubnetIds",
    "SubnetId1",
    "SubnetId2",
    "SecurityGroupIds",
    "BucketName",
    "BucketArn",
    "RoleName",
    "RoleArn",
)
OPTIONAL_EXPORTS = ("KmsKeyArn", "BundleBucketName")
SERVICES = ("airflow.amazonaws.com", "airflow-env.amazonaws.com")  # that have to be able to assume the execution role


class Place(NamedTuple):
    """Where an environment is, or will be: what ARNs are made of."""

    partition: str
    region: str
    account: str

    @property
    def dns_suffix(self) -> str:
        """What names of services in KMS conditions end with."""
        return "amazonaws.com.cn" if self.partition == "aws-cn" else "amazonaws.com"

    def environment_arn(self, name: str) -> str:
        return f"arn:{self.partition}:airflow:{self.region}:{self.account}:environment/{name}"

    def key_arn(self, key: str) -> str:
        """key: id or ARN."""
        return key if key.startswith("arn:") else f"arn:{self.partition}:kms:{self.region}:{self.account}:key/{key}"


# ------------------------------------------------------------------------------------------------------- the trust


def untrusted(trust: dict[str, Any], place: Place, environment: str) -> list[str]:
    """Which of MWAA's two services this trust policy does not let assume the role for this environment.

    A condition that only asks for this account or this environment lets them; one that names another environment
    does not: MWAA would create the environment, and its tasks would fail.
    """
    return [service for service in SERVICES if not _trusts(trust, service, place, environment)]


def extended_trust(trust: dict[str, Any], place: Place, environment: str) -> dict[str, Any]:
    """The same trust policy, and MWAA's services beside all that it already trusts. The very same if it has them."""
    missing = untrusted(trust, place, environment)
    if not missing:
        return trust
    extended = copy.deepcopy(trust)
    statement = {"Effect": "Allow", "Principal": {"Service": missing}, "Action": "sts:AssumeRole"}
    extended["Statement"] = [*_list(extended.get("Statement")), statement]
    extended.setdefault("Version", "2012-10-17")
    return extended


def _trusts(trust: dict[str, Any], service: str, place: Place, environment: str) -> bool:
    for statement in _list(trust.get("Statement")):
        principal = statement.get("Principal")
        services = _list(principal.get("Service")) if isinstance(principal, dict) else _list(principal)
        actions = [action.lower() for action in _list(statement.get("Action"))]
        if (
            statement.get("Effect") == "Allow"
            and (service in services or "*" in services)
            and any(fnmatch.fnmatchcase("sts:assumerole", action) for action in actions)
            and _holds(statement.get("Condition") or {}, place, environment)
        ):
            return True
    return False


def _holds(condition: dict[str, Any], place: Place, environment: str) -> bool:
    """Whether a trust's condition surely holds for this environment."""
    facts = {"aws:sourceaccount": place.account, "aws:sourcearn": place.environment_arn(environment)}
    for operator, keys in condition.items():
        if operator not in ("StringEquals", "StringLike", "ArnEquals", "ArnLike"):
            return False
        for key, values in keys.items():
            fact = facts.get(key.lower())
            like = operator != "StringEquals"
            if fact is None or not any(
                fnmatch.fnmatchcase(fact, value.replace("[", "[[]")) if like else fact == value
                for value in _list(values)
            ):
                return False
    return True


# ------------------------------------------------------------------------------------------------------- the rights


def execution_policy(
    place: Place,
    environment: str,
    bucket: str,
    *,
    kms_key_arn: str | None = None,
    secrets_prefix: str | None = None,
    secrets_kms_key_arn: str | None = None,
) -> dict[str, Any]:
    """What the execution role of an environment needs, and nothing else: an IAM policy document.

    The guide's Deny of s3:ListAllMyBuckets is left out: it would take from an adopted role what its DAGs may have now.
    bucket: the environment's, by name. kms_key_arn: the customer's key, None for the one that AWS owns. secrets_prefix:
    what names of secrets begin with, None where the environment does not look in Secrets Manager; secrets_kms_key_arn:
    the customer's key of these.
    """
    partition, region, account = place
    objects = [f"arn:{partition}:s3:::{bucket}", f"arn:{partition}:s3:::{bucket}/*"]
    via = [f"sqs.{region}.{place.dns_suffix}"]
    # the queue is in an account of MWAA's: with a key of AWS's own, it is any key but this account's
    key: dict[str, Any] = {"NotResource": f"arn:{partition}:kms:*:{account}:key/*"}
    if kms_key_arn:
        key, via = {"Resource": kms_key_arn}, [*via, f"s3.{region}.{place.dns_suffix}"]
    statements = [
        _allow("airflow:PublishMetrics", place.environment_arn(environment)),
        _allow(["s3:GetObject*", "s3:GetBucket*", "s3:List*"], objects),
        _allow("s3:GetAccountPublicAccessBlock", "*"),
        _allow(
            [
                "logs:CreateLogStream",
                "logs:CreateLogGroup",
                "logs:PutLogEvents",
                "logs:GetLogEvents",
                "logs:GetLogRecord",
                "logs:GetLogGroupFields",
                "logs:GetQueryResults",
                "logs:DescribeLogStreams",
            ],
            f"arn:{partition}:logs:{region}:{account}:log-group:airflow-{environment}-*",
        ),
        _allow("logs:DescribeLogGroups", "*"),
        _allow("cloudwatch:PutMetricData", "*"),
        _allow(list(QUEUE_ACTIONS), f"arn:{partition}:sqs:{region}:*:airflow-celery-*"),
        {
            "Effect": "Allow",
            "Action": ["kms:Decrypt", "kms:DescribeKey", "kms:GenerateDataKey*", "kms:Encrypt"],
            **key,
            "Condition": {"StringLike": {"kms:ViaService": via}},
        },
    ]
    if secrets_prefix:
        owner = f"arn:{partition}:iam::{account}:role/any"  # tells partition and account
        statements += secrets_policy(secrets_prefix, region, owner, secrets_kms_key_arn)["Statement"]
    return {"Version": "2012-10-17", "Statement": statements}


def temporary_policy(place: Place, bundles: Iterable[str], *, kms_key_arn: str | None = None) -> dict[str, Any] | None:
    """What a role needs while a migration lasts, and not longer: an IAM policy document, None where it is nothing.

    bundles: s3://bucket/prefix each, to read; local folders need no rights. kms_key_arn: the key that encrypts them.
    """
    partition, region, _account = place
    statements: list[dict[str, Any]] = []
    for bucket, prefix in sorted({_split(url) for url in bundles if url.startswith("s3://")}):
        arn = f"arn:{partition}:s3:::{bucket}"
        below = f"{prefix}/*" if prefix else "*"
        statements.append(_allow(["s3:GetObject", "s3:GetObjectVersion"], f"{arn}/{below}"))
        listing = _allow("s3:ListBucket", arn)
        if prefix:
            listing["Condition"] = {"StringLike": {"s3:prefix": [prefix, below]}}
        statements.append(listing)
    if statements and kms_key_arn:
        condition = {"StringEquals": {"kms:ViaService": f"s3.{region}.{place.dns_suffix}"}}
        statements.append({**_allow("kms:Decrypt", kms_key_arn), "Condition": condition})
    return {"Version": "2012-10-17", "Statement": statements} if statements else None


def temporary_policy_name(environment: str) -> str:
    """Of the inline policy that a migration into this environment gives its role, and its cleanup takes away."""
    return f"mwaa-migration-temporary-{environment}"


def _allow(actions: str | list[str], resources: str | list[str]) -> dict[str, Any]:
    return {"Effect": "Allow", "Action": actions, "Resource": resources}


def _split(url: str) -> tuple[str, str]:
    bucket, _slash, prefix = url[len("s3://") :].partition("/")
    return bucket, prefix.strip("/")


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [] if value is None else [value]


# -------------------------------------------------------------------------------------------------------- the outputs


def outputs(values: dict[str, Any]) -> dict[str, Any]:
    """A template's Outputs: each value (text or an intrinsic function) by its name, exported as <stack>-<Name>."""
    return {
        name: {"Value": values[name], "Export": {"Name": {"Fn::Sub": f"${{AWS::StackName}}-{name}"}}}
        for name in (*EXPORTS, *OPTIONAL_EXPORTS)
        if values.get(name)
    }
