# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An execution role's policies, for an environment with another name, bucket, key, region or account. Pure, no calls.

PRIVATE to the collection: no promise is made to other collections.

What MWAA itself needs follows the environment (its ARN, log groups, queue, bucket, key, secrets); what DAGs work on is
data, which stays where it is, and is listed where it names the old region or account.
Source of the statements: MWAA user guide, "Amazon MWAA execution role".
"""

from __future__ import annotations

import fnmatch
import re
from dataclasses import dataclass
from typing import Any

# they live beside the environment, in its region and account: the last two for the secrets backend
_BESIDE = ("airflow", "logs", "sqs", "kms", "secretsmanager", "ssm")
# what follows the name in a log group: not -eu-Task, which is another environment's
_GROUP = r"-(DAGProcessing|Scheduler|Task|WebServer|Worker|([A-Z][A-Za-z]*)?[*?])|[:*?]|$"
_TRUSTED = "airflow-env.amazonaws.com"
_UNDERSTOOD = {"StringEquals", "StringLike", "ArnEquals", "ArnLike"}


@dataclass(frozen=True)
class Place:
    """Where an environment is. kms_key: id or ARN, None: AWS's own."""

    name: str
    region: str
    account: str
    bucket: str
    kms_key: str | None = None
    partition: str = "aws"

    @property
    def arn(self) -> str:
        return f"arn:{self.partition}:airflow:{self.region}:{self.account}:environment/{self.name}"


@dataclass(frozen=True)
class Statement:
    """policy: the name of the policy that it is from. what: as it is to be. changed: it was another."""

    policy: str
    what: dict[str, Any]
    changed: bool
    left: tuple[str, ...] = ()  # ARNs that still name the old region or account


def rescoped(policy: str, document: dict[str, Any], old: Place, new: Place) -> list[Statement]:
    """The statements of one policy for the new environment."""
    found = []
    for statement in _listed(document.get("Statement")):
        left: list[str] = []
        moved = {
            key: _moved(value, old, new, left) if key in ("Resource", "NotResource", "Condition") else value
            for key, value in statement.items()
        }
        found.append(Statement(policy, moved, moved != statement, tuple(dict.fromkeys(left))))
    return found


def trust_faults(document: dict[str, Any], new: Place) -> list[str]:
    """Why the new environment cannot assume a role with this trust policy; [] when it can.

    Creating an environment succeeds all the same where a condition names another one; its tasks then fail.
    """
    trusting = [
        statement
        for statement in _listed(document.get("Statement"))
        if statement.get("Effect") == "Allow"
        and _TRUSTED in _listed((statement.get("Principal") or {}).get("Service") if _named(statement) else [])
    ]
    if not trusting:
        return [f"its trust policy does not let {_TRUSTED} assume it: add that service (and airflow.amazonaws.com)"]
    reasons = [_refusal(statement.get("Condition") or {}, new) for statement in trusting]
    if None in reasons:
        return []
    return [f"its trust policy has a condition that names another environment: {reasons[0]}; let it name {new.arn}"]


def _named(statement: dict[str, Any]) -> bool:
    return isinstance(statement.get("Principal"), dict)


def _refusal(condition: dict[str, Any], new: Place) -> str | None:
    wanted = {"aws:sourcearn": new.arn, "aws:sourceaccount": new.account}
    for operator, pairs in condition.items():
        if operator.partition(":")[2] or operator.replace("IfExists", "").replace("IgnoreCase", "") not in _UNDERSTOOD:
            continue  # what is not understood is not judged
        for key, values in pairs.items():
            is_to_be = wanted.get(key.lower())
            if is_to_be and not any(fnmatch.fnmatchcase(is_to_be, str(value)) for value in _listed(values)):
                return f"{key} is {', '.join(map(str, _listed(values)))}"
    return None


def _moved(value: Any, old: Place, new: Place, left: list[str]) -> Any:
    if isinstance(value, dict):
        return {key: _moved(one, old, new, left) for key, one in value.items()}
    if isinstance(value, list):
        return [_moved(one, old, new, left) for one in value]
    if not isinstance(value, str):
        return value
    if value.startswith("arn:") and value.count(":") >= 5:
        return _moved_arn(value, old, new, left)
    if value == old.account:  # aws:SourceAccount, aws:ResourceAccount
        return new.account
    if value == old.region:  # aws:RequestedRegion
        return new.region
    # kms:ViaService
    return re.sub(rf"^([a-z0-9*-]+)\.{re.escape(old.region)}\.amazonaws\.com", rf"\1.{new.region}.amazonaws.com", value)


def _moved_arn(arn: str, old: Place, new: Place, left: list[str]) -> str:
    _arn, partition, service, region, account, resource = arn.split(":", 5)
    if service == "s3":
        bucket, slash, key = resource.partition("/")
        return f"arn:{new.partition}:s3:::{new.bucket}{slash}{key}" if bucket == old.bucket else arn
    if service not in _BESIDE:
        if (region == old.region != new.region) or (account == old.account != new.account):
            left.append(arn)
        return arn
    if service == "airflow":
        resource = re.sub(rf"^(environment|role)/{re.escape(old.name)}(?=/|$)", rf"\1/{new.name}", resource)
    elif service == "logs":
        resource = re.sub(
            rf"^log-group:airflow-{re.escape(old.name)}(?={_GROUP})", f"log-group:airflow-{new.name}", resource
        )
    elif service == "kms" and old.kms_key and new.kms_key and resource == f"key/{_key_id(old.kms_key)}":
        resource = f"key/{_key_id(new.kms_key)}"
    return ":".join(
        (
            "arn",
            new.partition if partition == old.partition else partition,
            service,
            new.region if region == old.region else region,
            new.account if account == old.account else account,
            resource,
        )
    )


def _key_id(key: str) -> str:
    return key.rsplit("/", 1)[-1]


def _listed(value: Any) -> list[Any]:
    if value is None:
        return []
    return value if isinstance(value, list) else [value]
