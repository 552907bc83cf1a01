# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The template of an environment's stack, from the flat form of _mwaa/settings.py. Pure: nothing here calls AWS.

PRIVATE to the collection: no promise is made to other collections.

Network, bucket, role and key are imported from the base stack's exports (_stacks/base.py); all else stands in the
template as it is. A template is read by whoever may read the stack, so secrets are in it as dynamic references alone.
"""

from __future__ import annotations

import json
import re
from typing import Any

from ansible_collections.mwaa.migration.plugins.module_utils._errors import Faults, MigrationError
from ansible_collections.mwaa.migration.plugins.module_utils._mwaa import settings
from ansible_collections.mwaa.migration.plugins.module_utils._stacks.template import INLINE_LIMIT, written

TYPE = "AWS::MWAA::Environment"
LOGICAL_ID = "Environment"  # as in the import of one that exists, _stacks/adopt.py
PARAMETER = "BaseStackName"
# a failed creation has to go, or its name is taken; what lives keeps its database when its stack is deleted
DELETION_POLICIES = ("RetainExceptOnCreate", "Retain", "Delete")
# option -> exports of the base stack that give it; in this order when more than one
EXPORTS = {
    "source_bucket": ("BucketName", "BucketArn"),
    "execution_role_arn": ("RoleArn",),
    "subnet_ids": ("SubnetId1", "SubnetId2"),
    "security_group_ids": ("SecurityGroupIds",),
    "kms_key": ("KmsKeyArn",),
}
_RESOLVE = "{{resolve:"
# [CloudFormation user guide, dynamic-references]; ssm-secure is resolved for a few properties, none of them MWAA's
_REFERENCE = re.compile(r"(\{\{)?resolve:(?P<body>(secretsmanager|ssm):[^{}\s]+)(?(1)\}\})")
# arguments of SecretsManagerBackend and SystemsManagerParameterStoreBackend whose names sound secret, and are not
_PLAIN_ARGUMENTS = ("are_secret_values_urlencoded",)


def exported(stack: dict[str, Any]) -> dict[str, str]:
    """{short name: value} of a stack's exports <stack>-<Name>. stack: of DescribeStacks."""
    prefix = f"{stack['StackName']}-"
    return {
        output["ExportName"][len(prefix) :]: output["OutputValue"]
        for output in stack.get("Outputs") or []
        if str(output.get("ExportName") or "").startswith(prefix)
    }


def from_exports(exports: dict[str, str]) -> dict[str, Any]:
    """What a base stack exports, as options. Raises MigrationError naming every export that is missing."""
    missing = [
        name for option, names in EXPORTS.items() for name in names if option != "kms_key" and not exports.get(name)
    ]
    if missing:
        raise MigrationError(f"it exports no {', '.join(missing)}: run the stage base again, which adds them")
    options: dict[str, Any] = {
        "source_bucket": exports["BucketName"],
        "execution_role_arn": exports["RoleArn"],
        "subnet_ids": [exports["SubnetId1"], exports["SubnetId2"]],
        "security_group_ids": exports["SecurityGroupIds"].split(","),
    }
    if exports.get("KmsKeyArn"):
        options["kms_key"] = exports["KmsKeyArn"]
    return options


def subnet_exports(exports: dict[str, Any], environment: dict[str, Any] | None) -> tuple[str, ...]:
    """The exports of the two subnets in the order of the environment that is there: another order is another network
    to CloudFormation, for which it would replace the environment.
    """
    names = EXPORTS["subnet_ids"]
    there = ((environment or {}).get("NetworkConfiguration") or {}).get("SubnetIds")
    return names[::-1] if there == [exports.get(name) for name in names[::-1]] else names


def references(given: dict[str, Any], faults: Faults) -> dict[str, str]:
    """Dynamic references as templates have them. given: with the braces or, as braces are Jinja's in YAML, without."""
    made = {}
    for name, value in given.items():
        found = _REFERENCE.fullmatch(str(value).strip())
        if not found:
            faults.add(
                f"secret_references[{name}] is neither resolve:secretsmanager:<secret>:SecretString:<key> nor"
                " resolve:ssm:<name> (ssm-secure is not resolved for MWAA)"
            )
            continue
        made[str(name)] = f"{{{{resolve:{found['body']}}}}}"
    return made


def refuse_secrets(options: dict[str, str], secret: dict[str, Any], faults: Faults, *, brought: set[str]) -> None:
    """A fault for each option whose value would stand in the template in clear.

    options: by name, without those given by reference. secret: those given as secret, whatever their names. brought:
    names that a bundle brings, and not the task.
    """
    how = "put it into AWS Secrets Manager and name it in secret_references"
    for name in sorted({*options, *secret}):
        if name in secret:
            faults.add(
                f"{name} is given as a secret value, which a template would show to all who read the stack: {how}"
            )
        elif holds_secret(name, options[name]):
            origin = " of the bundle" if name in brought else ""
            faults.add(
                f"the option {name}{origin} looks secret, and a template shows it to all who read the stack: {how}"
            )
        elif _RESOLVE in options[name]:
            faults.add(f"the option {name} has {_RESOLVE} in its value, which CloudFormation would resolve: {how}")


def holds_secret(name: str, value: str) -> bool:
    """Whether an option's value is, or holds, a secret, as far as names tell."""
    if name.endswith("backend_kwargs"):  # its arguments have names of their own
        try:
            arguments = json.loads(value)
        except ValueError:
            return True
        return not isinstance(arguments, dict) or any(
            settings.looks_secret(f"backend.{argument}") and argument not in _PLAIN_ARGUMENTS for argument in arguments
        )
    return settings.looks_secret(name)


def template(
    name: str,
    wanted: dict[str, Any],
    *,
    partition: str,
    base_stack: str | None,
    subnets: tuple[str, ...] = EXPORTS["subnet_ids"],
    deletion_policy: str = DELETION_POLICIES[0],
    strategy: str | None = None,
    said: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """The template. wanted: the flat form, options merged.

    base_stack: whose exports are imported; None: `wanted` has all. subnets: the exports in the order that an
    environment has them. strategy: how an update replaces workers. said: what the stack's template says now.
    """
    own = {option: value for option, value in wanted.items() if not (base_stack and option in EXPORTS)}
    properties: dict[str, Any] = {"Name": name, **settings.request(own, partition=partition, create=True)}
    if base_stack:
        properties["SourceBucketArn"] = _import("BucketArn")
        properties["ExecutionRoleArn"] = _import("RoleArn")
        properties["NetworkConfiguration"] = {
            "SubnetIds": [_import(subnet) for subnet in subnets],
            "SecurityGroupIds": {"Fn::Split": [",", _import("SecurityGroupIds")]},
        }
        if wanted.get("kms_key"):
            properties["KmsKey"] = _import("KmsKeyArn")
    _keep(properties, said or {}, wanted)
    if strategy:
        properties["WorkerReplacementStrategy"] = strategy
    made: dict[str, Any] = {
        "AWSTemplateFormatVersion": "2010-09-09",
        "Description": f"Amazon MWAA environment {name}, by mwaa.migration",
    }
    if base_stack:
        made["Parameters"] = {
            PARAMETER: {
                "Type": "String",
                "Default": base_stack,
                "Description": "The stack that exports VPC, bucket and role",
            }
        }
    made["Resources"] = {
        LOGICAL_ID: {
            "Type": TYPE,
            "DeletionPolicy": deletion_policy,
            "UpdateReplacePolicy": "Delete" if deletion_policy == "Delete" else "Retain",
            "Properties": properties,
        }
    }
    made["Outputs"] = {
        "EnvironmentName": {"Value": name},
        "EnvironmentArn": {"Value": {"Fn::GetAtt": [LOGICAL_ID, "Arn"]}},
        "WebserverUrl": {"Value": {"Fn::GetAtt": [LOGICAL_ID, "WebserverUrl"]}},
    }
    _check_size(made)
    return made


def properties(document: dict[str, Any] | str, name: str) -> dict[str, Any]:
    """What a template says of the environment as it is, and not by other parts of itself. Nothing where it is YAML."""
    resources = document.get("Resources") or {} if isinstance(document, dict) else {}
    found = [one.get("Properties") or {} for one in resources.values() if one.get("Type") == TYPE]
    said = next((one for one in found if one.get("Name") == name), {})
    return {key: value for key, value in said.items() if key != "WorkerReplacementStrategy" and not _refers(value)}


def _refers(value: Any) -> bool:
    if isinstance(value, dict):
        return any(key == "Ref" or key.startswith("Fn::") or _refers(one) for key, one in value.items())
    return isinstance(value, list) and any(_refers(one) for one in value)


def _keep(made: dict[str, Any], said: dict[str, Any], wanted: dict[str, Any]) -> None:
    """What is not asked for stays as the stack's template says it, such as that of an import: to CloudFormation, taking
    it out is a change, for EndpointManagement a replacement, whatever the environment has [aws docs issue 1276].
    """
    for key, value in said.items():
        made.setdefault(key, value)
    if "LoggingConfiguration" in said:
        made["LoggingConfiguration"] = {**said["LoggingConfiguration"], **made["LoggingConfiguration"]}
    kept, asked = said.get("KmsKey"), wanted.get("kms_key") or ""
    if kept and kept != asked and kept.rpartition("/")[2] == asked.rpartition("/")[2]:
        made["KmsKey"] = kept  # the same key by its id


def _import(name: str) -> dict[str, Any]:
    return {"Fn::ImportValue": {"Fn::Sub": f"${{{PARAMETER}}}-{name}"}}


def _check_size(made: dict[str, Any]) -> None:
    size = len(written(made).encode())
    if size <= INLINE_LIMIT:
        return
    options = made["Resources"][LOGICAL_ID]["Properties"].get("AirflowConfigurationOptions") or {}
    longest = max(options, key=lambda option: len(options[option]), default="")
    raise MigrationError(
        f"the template has {size} bytes and CloudFormation takes {INLINE_LIMIT}; the longest of its options is"
        f" {longest} ({len(options.get(longest, ''))} characters): shorten it, or deploy without a stack"
        " (migration_deploy: direct)"
    )
