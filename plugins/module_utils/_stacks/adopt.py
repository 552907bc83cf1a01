# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Resources that exist already, found and read, and the templates that take them into a stack as they are.

PRIVATE to the collection: no promise is made to other collections.

Nothing here writes. An import may neither change a property nor add an output, so there are two templates: one that
says of each resource what is the case, and one that adds outputs, MWAA's trust and its role's policy by an update. What
a stack already says of a resource stays as it says it; what another stack has is referred to.
"""

from __future__ import annotations

import contextlib
import copy
import ipaddress
import json
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ansible_collections.mwaa.migration.plugins.module_utils._errors import (
    Faults,
    MigrationError,
    aws_errors,
    error_code,
    is_aws_error,
    is_missing,
)
from ansible_collections.mwaa.migration.plugins.module_utils._mwaa.environment import describe
from ansible_collections.mwaa.migration.plugins.module_utils._mwaa.settings import looks_secret
from ansible_collections.mwaa.migration.plugins.module_utils._stacks import stack as stacks
from ansible_collections.mwaa.migration.plugins.module_utils._stacks.base import (
    EXPORTS,
    OPTIONAL_EXPORTS,
    Place,
    execution_policy,
    extended_trust,
    outputs,
    untrusted,
)

ARGUMENT_SPEC: dict[str, Any] = {
    "stack_name": {"type": "str", "required": True},
    "environment": {"type": "str", "required": True},
    "environment_stack": {"type": "str"},
    "adopt_environment": {"type": "bool", "default": False},
    "vpc_id": {"type": "str"},
    "subnet_ids": {"type": "list", "elements": "str"},
    "security_group_ids": {"type": "list", "elements": "str"},
    "bucket": {"type": "str"},
    "bundle_bucket": {"type": "str"},
    "role": {"type": "str"},
    "kms_key_id": {"type": "str", "no_log": False},
    "log_groups": {"type": "list", "elements": "str"},
    "parameters": {"type": "raw"},
    "instance_id": {"type": "str"},
    "instance_address": {"type": "str"},
    "secrets_prefix": {"type": "str", "no_log": False},
    "secrets_kms_key_arn": {"type": "str", "no_log": False},
}
# the keys of the parameter document, and what they are here
PARAMETERS = {
    "VpcId": "vpc_id",
    "BucketName": "bucket",
    "RoleName": "role",
    "GroupId": "security_group_ids",
    "SubnetId1": "subnet_ids",
    "SubnetId2": "subnet_ids",
    "KmsKeyId": "kms_key_id",
}
ENVIRONMENT_ID = "Environment"  # its logical id in the environment stack, also of mwaa_environment_template
PATIENCE = 3600  # seconds to wait for what goes on with the stack
# states of resources that were in a stack, or were to be
GONE = {"DELETE_COMPLETE", "DELETE_SKIPPED", "IMPORT_ROLLBACK_COMPLETE", "ROLLBACK_COMPLETE"}
# of GetEnvironment, what CloudFormation's type does not take
READ_ONLY = {
    "Arn",
    "CreatedAt",
    "LastUpdate",
    "ServiceRoleArn",
    "Status",
    "WebserverUrl",
    "CeleryExecutorQueue",
    "DatabaseVpcEndpointService",
    "WebserverVpcEndpointService",
    "Teams",
    "IdentityCenterConfiguration",
}


@dataclass
class Found:
    """A resource as AWS shows it. properties: in the words of its CloudFormation type."""

    kind: str
    type: str
    id: str
    identifier: dict[str, str]
    properties: dict[str, Any]
    logical_id: str
    arn: str | None = None
    account: str | None = None  # its owner's, where it may be shared
    stack: str | None = None  # that it belongs to
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass
class Stack:
    """A stack as it is. template: empty where there is none."""

    name: str
    template: dict[str, Any]
    logical_ids: dict[tuple[str, str], str]  # by type and physical id: a role may be named as a bucket
    outputs: dict[str, str] = field(default_factory=dict)

    @classmethod
    def read(cls, cfn: Any, name: str) -> Stack:
        """As it is at rest. Raises MigrationError where its template is not one that this file has written."""
        found = _at_rest(cfn, name)
        if found is None or found["StackStatus"] in (stacks.REVIEW, "ROLLBACK_COMPLETE"):
            return cls(name, {}, {})
        with aws_errors(f"read the template of stack {name}"):
            body = cfn.get_template(StackName=name, TemplateStage="Original")["TemplateBody"]
        if isinstance(body, str):
            try:
                body = json.loads(body)
            except ValueError:
                raise MigrationError(
                    f"the template of stack {name} is YAML, so it is not one that adopted resources: name another stack"
                    " (migration_base_stack)"
                ) from None
        logical_ids = {
            (row["ResourceType"], row["PhysicalResourceId"]): row["LogicalResourceId"]
            for row in stacks.resources(cfn, name)
            if row.get("PhysicalResourceId") and row.get("ResourceStatus") not in GONE
        }
        exported = {row["OutputKey"]: row["OutputValue"] for row in found.get("Outputs") or []}
        return cls(name, json.loads(json.dumps(body)), logical_ids, exported)


def _at_rest(cfn: Any, name: str) -> dict[str, Any] | None:
    """The stack, once what a killed run has begun with it is over: what it holds is not known before."""
    stack = stacks.describe(cfn, name)
    if stack is None or not stacks.busy(stack):
        return stack
    events = stacks.Events(cfn, stack["StackId"])
    with aws_errors(f"read the events of stack {name}"):
        events.rewind()
    return stacks.wait(cfn, stack, events, stacks.Deadline(PATIENCE))


def adopt(ctx: Any) -> dict[str, Any]:
    """The body of mwaa_adopt_info. Raises MigrationError naming all that is missing or does not fit."""
    return _Adoption(ctx).run()


class _Adoption:
    def __init__(self, ctx: Any):
        self.ctx, self.aws = ctx, ctx.aws
        self.environment: str = ctx.params["environment"]
        self.faults = Faults("mwaa_adopt_info")
        self.chosen: dict[str, str] = {}  # option -> where its value was found

    def run(self) -> dict[str, Any]:
        self.place = Place(_partition(self.aws.caller["Arn"]), self.aws.region, self.aws.account_id)
        cfn = self.aws.client("cloudformation")
        own = Stack.read(cfn, self.ctx.params["stack_name"])
        wanted = self._wanted(own)
        found = self._read(wanted)
        self._check(found)
        self.faults.raise_if_any()
        for one in found:
            one.stack = self._owner(cfn, one)
        by_kind = {kind: [one for one in found if one.kind == kind] for kind in {one.kind for one in found}}
        role = by_kind["role"][0]
        missing = untrusted(role.facts["trust"], self.place, self.environment)
        if missing and role.stack not in (None, own.name):
            self.faults.add(
                f"role {role.id} does not trust {' and '.join(missing)}, and it belongs to stack {role.stack}, which"
                " alone should change it: add them to its AssumeRolePolicyDocument there"
            )
        self.faults.raise_if_any()
        result = self._templates(own, [one for one in found if one.kind != "environment"], by_kind)
        environment = by_kind.get("environment", [None])[0]
        return {
            "changed": False,
            **result,
            **self._environment_templates(cfn, environment),
            "resources": [
                {
                    "kind": one.kind,
                    "type": one.type,
                    "id": one.id,
                    "arn": one.arn,
                    "logical_id": one.logical_id,
                    "stack": one.stack,
                }
                for one in found
            ],
            "found_by": self.chosen,
        }

    # ------------------------------------------------------------------------------------------------ what is wanted

    def _wanted(self, own: Stack) -> dict[str, Any]:
        """Each option as given, else of the parameter document, else of the environment, else of the instance.

        What an instance once led to is exported: another time it might lead to other subnets, or be gone.
        """
        given = {key: self.ctx.params[key] for key in (*PARAMETERS.values(), "bundle_bucket", "log_groups")}
        wanted: dict[str, Any] = {}
        for where, values in (
            ("options", given),
            ("parameters", self._document()),
            (f"environment {self.environment}", self._of_the_environment()),
        ):
            self._take(wanted, where, values)
        if self.ctx.params["instance_id"] or self.ctx.params["instance_address"]:
            network = {"vpc_id": "VpcId", "subnet_ids": "SubnetIds", "security_group_ids": "SecurityGroupIds"}
            known = {key: own.outputs[name] for key, name in network.items() if own.outputs.get(name)}
            lists = {key: value.split(",") if key != "vpc_id" else value for key, value in known.items()}
            self._take(wanted, f"stack {own.name}", lists)
            if not all(wanted.get(key) for key in network):
                self._of_the_instance(wanted)
        if wanted.get("subnet_ids") and not wanted.get("vpc_id"):
            wanted["vpc_id"] = self._vpc_of(wanted["subnet_ids"])
        names = {
            "vpc_id": "a VPC (vpc_id)",
            "subnet_ids": "two private subnets in two zones (subnet_ids)",
            "security_group_ids": "a security group (security_group_ids)",
            "bucket": "the environment's bucket (bucket)",
            "role": "the execution role (role)",
        }
        for key, name in names.items():
            if not wanted.get(key):
                self.faults.add(f"{name} is missing: name it, in migration_adopt or its parameter document")
        if wanted.get("subnet_ids") and len(wanted["subnet_ids"]) != 2:
            self.faults.add(f"MWAA takes exactly two subnets, and subnet_ids names {len(wanted['subnet_ids'])}")
        if len(wanted.get("security_group_ids") or []) > 5:
            self.faults.add(f"MWAA takes at most five security groups, not {len(wanted['security_group_ids'])}")
        return wanted

    def _take(self, wanted: dict[str, Any], where: str, values: dict[str, Any]) -> None:
        for key, value in values.items():
            if value and not wanted.get(key):
                wanted[key] = value
                self.chosen[key] = where

    def _document(self) -> dict[str, Any]:
        given = self.ctx.params["parameters"]
        if not given:
            return {}
        try:
            if isinstance(given, str):
                text = given if given.lstrip().startswith(("{", "[")) else Path(given).expanduser().read_text("utf-8")
                given = json.loads(text)
            if isinstance(given, list):  # as the CLI's --parameters has it
                given = {row["ParameterKey"]: row["ParameterValue"] for row in given}
            if not isinstance(given, dict):
                raise ValueError("it is no object")
        except (OSError, ValueError, KeyError, TypeError) as error:
            self.faults.add(
                f"the parameter document cannot be read ({error}): it has to be JSON with {_and(PARAMETERS)}"
            )
            return {}
        unknown = sorted(set(given) - set(PARAMETERS))
        if unknown:
            self.faults.add(f"the parameter document has {_and(unknown)}, and takes {_and(PARAMETERS)} alone")
        values: dict[str, Any] = {}
        for name, key in PARAMETERS.items():
            value = str(given.get(name) or "").strip()
            if value:
                if key.endswith("_ids"):
                    values.setdefault(key, []).append(value)
                else:
                    values[key] = value
        return values

    def _of_the_environment(self) -> dict[str, Any]:
        if not self.ctx.params["adopt_environment"]:
            return {}
        found = describe(self.aws.client("mwaa"), self.environment)
        if found is None:
            self.faults.add(f"environment {self.environment} does not exist, so it cannot be adopted")
            return {}
        network = found.get("NetworkConfiguration") or {}
        return {
            "subnet_ids": network.get("SubnetIds"),
            "security_group_ids": network.get("SecurityGroupIds"),
            "bucket": found["SourceBucketArn"].rpartition(":")[2],
            "role": found["ExecutionRoleArn"],
            "kms_key_id": found.get("KmsKey"),
        }

    # ------------------------------------------------------------------------------------------------ by an instance

    def _of_the_instance(self, wanted: dict[str, Any]) -> None:
        instance = self._instance()
        if instance is None:
            return
        where = f"instance {instance['InstanceId']}"
        vpc = wanted.get("vpc_id") or instance.get("VpcId")
        values: dict[str, Any] = {"vpc_id": vpc}
        if vpc == instance.get("VpcId"):
            values["security_group_ids"] = [group["GroupId"] for group in instance.get("SecurityGroups", [])]
        if vpc and not wanted.get("subnet_ids"):
            values["subnet_ids"] = self._private_subnets(vpc, instance.get("SubnetId"))
        self._take(wanted, where, values)

    def _instance(self) -> dict[str, Any] | None:
        identifier, address = self.ctx.params["instance_id"], self.ctx.params["instance_address"]
        ec2 = self.aws.client("ec2")
        if identifier:
            queries: list[dict[str, Any]] = [{"InstanceIds": [identifier]}]
        else:
            queries = [{"Filters": [{"Name": name, "Values": [address]}]} for name in _address_filters(address)]
        found: dict[str, dict[str, Any]] = {}
        for query in queries:
            with self._missing(), aws_errors(f"look for the instance {identifier or address}"):
                answer = ec2.describe_instances(**query)
                for reservation in answer["Reservations"]:
                    for instance in reservation["Instances"]:
                        if (instance.get("State") or {}).get("Name") not in ("terminated", "shutting-down"):
                            found[instance["InstanceId"]] = instance
        if len(found) == 1:
            return next(iter(found.values()))
        if found:
            self.faults.add(f"{address} is the address of {_and(found)}: say which by instance_id")
        else:
            self.faults.add(
                f"there is no instance {identifier or 'with the address ' + str(address)} in {self.aws.region}: name"
                " another, or vpc_id, subnet_ids and security_group_ids"
            )
        return None

    def _private_subnets(self, vpc: str, own: str | None) -> list[str]:
        """Two that have no route to an internet gateway, in two zones: the instance's own first, then those with a way
        out, then those with the most free addresses."""
        ec2 = self.aws.client("ec2")
        filters = [{"Name": "vpc-id", "Values": [vpc]}]
        with aws_errors(f"read the subnets of {vpc}"):
            subnets = [
                row
                for page in ec2.get_paginator("describe_subnets").paginate(Filters=filters)
                for row in page["Subnets"]
            ]
            tables = [
                row
                for page in ec2.get_paginator("describe_route_tables").paginate(Filters=filters)
                for row in page["RouteTables"]
            ]
        routes = _routes(tables)
        private = [one for one in subnets if not _public(routes.get(one["SubnetId"], routes.get("main", [])))]
        private.sort(
            key=lambda one: (
                one["SubnetId"] != own,
                not _leads_out(routes.get(one["SubnetId"], routes.get("main", []))),
                -int(one.get("AvailableIpAddressCount") or 0),
                one["SubnetId"],
            )
        )
        chosen: dict[str, str] = {}
        for one in private:
            chosen.setdefault(one["AvailabilityZone"], one["SubnetId"])
        if len(chosen) < 2:
            self.faults.add(
                f"{vpc} has no two private subnets in two zones (private are "
                f"{_and(one['SubnetId'] + ' in ' + one['AvailabilityZone'] for one in private) or 'none'}; private"
                " means: no route to an internet gateway): make them, or name subnet_ids"
            )
        return list(chosen.values())[:2]

    def _vpc_of(self, subnets: list[str]) -> str | None:
        for identifier in subnets:
            row = self._subnet(identifier)
            if row:
                self.chosen["vpc_id"] = f"subnet {identifier}"
                return row["VpcId"]
        return None

    # ------------------------------------------------------------------------------------------------------- reading

    def _read(self, wanted: dict[str, Any]) -> list[Found]:
        """Each wanted resource, as far as it exists; what does not is a fault."""
        found: list[Found] = []

        def look(
            what: str, option: str, identifier: str | None, reader: Callable[..., Found | None], *more: Any
        ) -> None:
            if not identifier:
                return
            one = None
            with self._missing():
                one = reader(identifier, *more)
            if one is not None:
                found.append(one)
            elif not any(identifier in fault for fault in self.faults.found):
                self.faults.add(
                    f"{what} {identifier} does not exist in {self.aws.region}, account {self.aws.account_id} ({option})"
                )

        look("VPC", "vpc_id", wanted.get("vpc_id"), self._read_vpc)
        for number, identifier in enumerate(wanted.get("subnet_ids") or [], 1):
            look("subnet", "subnet_ids", identifier, self._read_subnet, f"Subnet{number}")
        for number, identifier in enumerate(wanted.get("security_group_ids") or [], 1):
            look("security group", "security_group_ids", identifier, self._read_group, f"SecurityGroup{number}")
        look("bucket", "bucket", wanted.get("bucket"), self._read_bucket, "bucket", "Bucket")
        if wanted.get("bundle_bucket") != wanted.get("bucket"):
            look(
                "bucket",
                "bundle_bucket",
                wanted.get("bundle_bucket"),
                self._read_bucket,
                "bundle_bucket",
                "BundleBucket",
            )
        look("role", "role", wanted.get("role"), self._read_role)
        look("KMS key", "kms_key_id", wanted.get("kms_key_id"), self._read_key)
        for number, name in enumerate(wanted.get("log_groups") or [], 1):
            look("log group", "log_groups", name, self._read_log_group, f"LogGroup{number}")
        if self.ctx.params["adopt_environment"]:
            look("environment", "adopt_environment", self.environment, self._read_environment)
        return found

    def _read_vpc(self, identifier: str) -> Found | None:
        ec2 = self.aws.client("ec2")
        with aws_errors(f"read VPC {identifier}"):
            rows = ec2.describe_vpcs(VpcIds=[identifier])["Vpcs"]
            if not rows:
                return None
            row = rows[0]
            properties = {
                "CidrBlock": row["CidrBlock"],
                "InstanceTenancy": row.get("InstanceTenancy", "default"),
                **{
                    f"{name[0].upper()}{name[1:]}": ec2.describe_vpc_attribute(VpcId=identifier, Attribute=name)[
                        f"{name[0].upper()}{name[1:]}"
                    ]["Value"]
                    for name in ("enableDnsSupport", "enableDnsHostnames")
                },
                **_tags(row.get("Tags")),
            }
        return Found(
            "vpc", "AWS::EC2::VPC", identifier, {"VpcId": identifier}, properties, "Vpc", account=row.get("OwnerId")
        )

    def _subnet(self, identifier: str) -> dict[str, Any] | None:
        with self._missing(), aws_errors(f"read subnet {identifier}"):
            return (self.aws.client("ec2").describe_subnets(SubnetIds=[identifier])["Subnets"] or [None])[0]
        return None

    def _read_subnet(self, identifier: str, logical_id: str) -> Found | None:
        row = self._subnet(identifier)
        if row is None:
            return None
        properties = {
            "VpcId": row["VpcId"],
            "CidrBlock": row["CidrBlock"],
            "AvailabilityZone": row["AvailabilityZone"],
            "MapPublicIpOnLaunch": bool(row.get("MapPublicIpOnLaunch")),
            **_tags(row.get("Tags")),
        }
        return Found(
            "subnet",
            "AWS::EC2::Subnet",
            identifier,
            {"SubnetId": identifier},
            properties,
            logical_id,
            arn=row.get("SubnetArn"),
            account=row.get("OwnerId"),
        )

    def _read_group(self, identifier: str, logical_id: str) -> Found | None:
        with aws_errors(f"read security group {identifier}"):
            rows = self.aws.client("ec2").describe_security_groups(GroupIds=[identifier])["SecurityGroups"]
        if not rows:
            return None
        # its rules are left to whoever makes them: others add theirs to a group that they share
        properties = {
            "GroupName": rows[0]["GroupName"],
            "GroupDescription": rows[0]["Description"],
            "VpcId": rows[0].get("VpcId"),
            **_tags(rows[0].get("Tags")),
        }
        return Found(
            "security_group",
            "AWS::EC2::SecurityGroup",
            identifier,
            {"Id": identifier},
            properties,
            logical_id,
            account=rows[0].get("OwnerId"),
        )

    def _read_bucket(self, name: str, kind: str, logical_id: str) -> Found | None:
        s3 = self.aws.client("s3")
        with aws_errors(f"read bucket {name}"):
            head = s3.head_bucket(Bucket=name)
            headers = (head.get("ResponseMetadata") or {}).get("HTTPHeaders") or {}
            region = head.get("BucketRegion") or headers.get("x-amz-bucket-region") or self.aws.region
            if region != self.aws.region:
                self.faults.add(
                    f"bucket {name} is in {region}, and the environment in {self.aws.region}: MWAA takes a bucket of"
                    " its own region alone"
                )
                return None
            versioning = s3.get_bucket_versioning(Bucket=name).get("Status")
            access = _unless_missing(lambda: s3.get_public_access_block(Bucket=name))
            encryption = _unless_missing(lambda: s3.get_bucket_encryption(Bucket=name))
            tags = _unless_missing(lambda: s3.get_bucket_tagging(Bucket=name))
        properties: dict[str, Any] = {"BucketName": name}
        if versioning:
            properties["VersioningConfiguration"] = {"Status": versioning}
        if access:
            properties["PublicAccessBlockConfiguration"] = access["PublicAccessBlockConfiguration"]
        if encryption:
            properties["BucketEncryption"] = _encryption(encryption)
        properties.update(_tags(tags.get("TagSet") if tags else None))
        arn = f"arn:{self.place.partition}:s3:::{name}"
        return Found(kind, "AWS::S3::Bucket", name, {"BucketName": name}, properties, logical_id, arn=arn)

    def _read_role(self, name_or_arn: str) -> Found | None:
        parts, name = name_or_arn.split(":"), name_or_arn.rpartition("/")[2]
        if len(parts) > 4 and parts[4] != self.aws.account_id:
            self.faults.add(
                f"role {name_or_arn} is of account {parts[4]}, and the environment's has to be of its own,"
                f" {self.aws.account_id}"
            )
            return None
        iam = self.aws.client("iam")
        with aws_errors(f"read role {name}"):
            row = iam.get_role(RoleName=name)["Role"]
            pages = iam.get_paginator("list_attached_role_policies").paginate(RoleName=name)
            attached = [policy["PolicyArn"] for page in pages for policy in page["AttachedPolicies"]]
            tags = [tag for page in iam.get_paginator("list_role_tags").paginate(RoleName=name) for tag in page["Tags"]]
        # its inline policies are left out: CloudFormation would take any other one for a drift
        properties = {
            "RoleName": name,
            "Path": row["Path"],
            "AssumeRolePolicyDocument": row["AssumeRolePolicyDocument"],
            "MaxSessionDuration": row.get("MaxSessionDuration", 3600),
            **({"Description": row["Description"]} if row.get("Description") else {}),
            **(
                {"PermissionsBoundary": row["PermissionsBoundary"]["PermissionsBoundaryArn"]}
                if row.get("PermissionsBoundary")
                else {}
            ),
            **({"ManagedPolicyArns": attached} if attached else {}),
            **_tags(tags),
        }
        return Found(
            "role",
            "AWS::IAM::Role",
            name,
            {"RoleName": name},
            properties,
            "Role",
            arn=row["Arn"],
            facts={"trust": row["AssumeRolePolicyDocument"]},
        )

    def _read_key(self, identifier: str) -> Found | None:
        kms = self.aws.client("kms")
        with aws_errors(f"read KMS key {identifier}"):
            row = kms.describe_key(KeyId=identifier)["KeyMetadata"]
            key = row["KeyId"]
            if row.get("KeyManager") == "AWS":
                self.faults.add(
                    f"KMS key {identifier} is AWS's own, which MWAA cannot be given: leave kms_key_id out, or name"
                    " one of yours"
                )
                return None
            account = row["Arn"].split(":")[4]
            properties: dict[str, Any] = {}
            if account == self.aws.account_id:
                policy = kms.get_key_policy(KeyId=key, PolicyName="default")["Policy"]
                rotation = _unless_missing(
                    lambda: kms.get_key_rotation_status(KeyId=key), {"UnsupportedOperationException"}
                )
                pages = kms.get_paginator("list_resource_tags").paginate(KeyId=key)
                tags = [{"Key": tag["TagKey"], "Value": tag["TagValue"]} for page in pages for tag in page["Tags"]]
                properties = {
                    "KeyPolicy": json.loads(policy),
                    "Enabled": bool(row.get("Enabled", True)),
                    "KeySpec": row.get("KeySpec", "SYMMETRIC_DEFAULT"),
                    "KeyUsage": row.get("KeyUsage", "ENCRYPT_DECRYPT"),
                    "MultiRegion": bool(row.get("MultiRegion", False)),
                    **({"Description": row["Description"]} if row.get("Description") else {}),
                    **({"EnableKeyRotation": rotation["KeyRotationEnabled"]} if rotation else {}),
                    **_tags(tags),
                }
        return Found(
            "kms_key", "AWS::KMS::Key", key, {"KeyId": key}, properties, "Key", arn=row["Arn"], account=account
        )

    def _read_log_group(self, name: str, logical_id: str) -> Found | None:
        logs = self.aws.client("logs")
        with aws_errors(f"read log group {name}"):
            pages = logs.get_paginator("describe_log_groups").paginate(logGroupNamePrefix=name)
            rows = [row for page in pages for row in page["logGroups"] if row["logGroupName"] == name]
            if not rows:
                return None
            arn = rows[0]["arn"].removesuffix(":*")
            tags = logs.list_tags_for_resource(resourceArn=arn).get("tags") or {}
        properties = {
            "LogGroupName": name,
            **({"RetentionInDays": rows[0]["retentionInDays"]} if rows[0].get("retentionInDays") else {}),
            **({"KmsKeyId": rows[0]["kmsKeyId"]} if rows[0].get("kmsKeyId") else {}),
            **_tags([{"Key": key, "Value": value} for key, value in tags.items()]),
        }
        return Found("log_group", "AWS::Logs::LogGroup", name, {"LogGroupName": name}, properties, logical_id, arn=arn)

    def _read_environment(self, name: str) -> Found | None:
        row = describe(self.aws.client("mwaa"), name)
        if row is None:
            return None
        properties = {key: value for key, value in row.items() if key not in READ_ONLY and value not in ({}, None)}
        logging = properties.get("LoggingConfiguration") or {}
        for module in logging:
            logging[module] = {key: logging[module][key] for key in ("Enabled", "LogLevel") if key in logging[module]}
        properties["Tags"] = {
            key: value for key, value in (row.get("Tags") or {}).items() if not key.startswith("aws:")
        }
        if not properties["Tags"]:
            del properties["Tags"]
        # a template is no place for secrets; what it does not say is neither compared nor changed
        if any(looks_secret(option) for option in row.get("AirflowConfigurationOptions") or {}):
            del properties["AirflowConfigurationOptions"]
        return Found(
            "environment",
            "AWS::MWAA::Environment",
            name,
            {"Name": name},
            properties,
            ENVIRONMENT_ID,
            arn=row["Arn"],
            facts={"status": row["Status"]},
        )

    # ------------------------------------------------------------------------------------------------------ checking

    def _check(self, found: list[Found]) -> None:
        vpc = next((one.id for one in found if one.kind == "vpc"), None)
        subnets = [one for one in found if one.kind == "subnet"]
        for one in found:
            if one.kind in ("subnet", "security_group") and vpc and one.properties["VpcId"] != vpc:
                self.faults.add(f"{one.kind.replace('_', ' ')} {one.id} is in {one.properties['VpcId']}, not in {vpc}")
        if len(subnets) == 2 and len({one.properties["AvailabilityZone"] for one in subnets}) == 1:
            zone = subnets[0].properties["AvailabilityZone"]
            self.faults.add(f"subnets {subnets[0].id} and {subnets[1].id} are both in {zone}: MWAA needs two zones")
        for one in found:
            if one.kind == "environment" and one.facts["status"] not in ("AVAILABLE", "UPDATE_FAILED"):
                self.faults.add(f"environment {one.id} is {one.facts['status']}: adopt it when it is AVAILABLE")

    def _owner(self, cfn: Any, one: Found) -> str | None:
        """The stack that a resource belongs to."""
        try:
            rows = cfn.describe_stack_resources(PhysicalResourceId=one.id)["StackResources"]
        except Exception as exception:
            if not is_aws_error(exception):
                raise
            if error_code(exception) == "ValidationError":  # no stack has it
                return None
            with aws_errors(f"look for the stack of {one.id}"):
                raise
        for row in rows:
            ours = row.get("PhysicalResourceId") == one.id and row.get("ResourceType") == one.type
            if ours and row.get("ResourceStatus") not in GONE:
                return row["StackName"]
        return None

    # ----------------------------------------------------------------------------------------------------- templates

    def _templates(self, own: Stack, found: list[Found], by_kind: dict[str, list[Found]]) -> dict[str, Any]:
        template = own.template or {
            "AWSTemplateFormatVersion": "2010-09-09",
            "Description": f"What the Amazon MWAA environment {self.environment} stands on. Adopted: it outlives this",
            # a subnet's zone is what it is
            "Metadata": {"cfn-lint": {"config": {"ignore_checks": ["W3010"]}}},
            "Resources": {},
        }
        imports = _take_in(template, own, found, self.aws.account_id)
        before = copy.deepcopy(template)
        resources, role = template["Resources"], by_kind["role"][0]

        def of(one: Found, attribute: str | None = None, literal: str | None = None) -> Any:
            if one.stack not in (None, own.name) or one.logical_id not in resources:
                return literal or one.id
            return {"Fn::GetAtt": [one.logical_id, attribute]} if attribute else {"Ref": one.logical_id}

        if isinstance(of(role), dict):
            trust = resources[role.logical_id]["Properties"]
            if untrusted(role.facts["trust"], self.place, self.environment):
                trust["AssumeRolePolicyDocument"] = extended_trust(role.facts["trust"], self.place, self.environment)
        bucket, keys = by_kind["bucket"][0], by_kind.get("kms_key", [])
        resources[policy_id(self.environment)] = {
            "Type": "AWS::IAM::RolePolicy",
            "Properties": {
                "PolicyName": policy_name(self.environment),
                "RoleName": of(role),
                "PolicyDocument": execution_policy(
                    self.place,
                    self.environment,
                    bucket.id,
                    kms_key_arn=keys[0].arn if keys else None,
                    secrets_prefix=self.ctx.params["secrets_prefix"] or None,
                    secrets_kms_key_arn=self.ctx.params["secrets_kms_key_arn"] or None,
                ),
            },
        }
        subnets = [of(one) for one in by_kind["subnet"]]
        groups = [of(one, "GroupId") for one in by_kind["security_group"]]
        values = {
            "VpcId": of(by_kind["vpc"][0]),
            "SubnetIds": {"Fn::Join": [",", subnets]},
            "SubnetId1": subnets[0],
            "SubnetId2": subnets[1],
            "SecurityGroupIds": {"Fn::Join": [",", groups]},
            "BucketName": of(bucket),
            "BucketArn": of(bucket, "Arn", bucket.arn),
            "RoleName": of(role),
            "RoleArn": of(role, "Arn", role.arn),
            "KmsKeyArn": of(keys[0], "Arn", keys[0].arn) if keys else None,
            "BundleBucketName": of(by_kind["bundle_bucket"][0]) if "bundle_bucket" in by_kind else None,
        }
        template["Outputs"] = {**template.get("Outputs", {}), **outputs(values)}
        plain = {
            "VpcId": by_kind["vpc"][0].id,
            "SubnetIds": ",".join(one.id for one in by_kind["subnet"]),
            "SubnetId1": by_kind["subnet"][0].id,
            "SubnetId2": by_kind["subnet"][1].id,
            "SecurityGroupIds": ",".join(one.id for one in by_kind["security_group"]),
            "BucketName": bucket.id,
            "BucketArn": bucket.arn,
            "RoleName": role.id,
            "RoleArn": role.arn,
            "KmsKeyArn": keys[0].arn if keys else None,
            "BundleBucketName": by_kind["bundle_bucket"][0].id if "bundle_bucket" in by_kind else None,
        }
        self._check_shared(own, plain)
        return {
            "resources_to_import": imports,
            "import_template": before if imports else {},
            "base_template": template,
            "values": {name: value for name, value in plain.items() if value},
        }

    def _check_shared(self, own: Stack, values: dict[str, str | None]) -> None:
        """What a base stack exports is every environment's that it serves. Raises MigrationError."""
        prefix = policy_name("")
        policies = [
            str(one.get("Properties", {}).get("PolicyName"))
            for one in own.template.get("Resources", {}).values()
            if one.get("Type") == "AWS::IAM::RolePolicy"
        ]
        others = sorted({name[len(prefix) :] for name in policies if name.startswith(prefix)} - {self.environment})
        for name in OPTIONAL_EXPORTS + EXPORTS if others else ():
            there, wanted = own.outputs.get(name), values.get(name)
            if there and there != wanted:
                self.faults.add(
                    f"stack {own.name} serves {_and(others)} already and exports {name} {there}, not"
                    f" {wanted or 'none'}: give {self.environment} the same, or a base stack of its own"
                    " (migration_base_stack)"
                )
        self.faults.raise_if_any()

    def _environment_templates(self, cfn: Any, environment: Found | None) -> dict[str, Any]:
        nothing: dict[str, Any] = {"environment_template": {}, "environment_to_import": []}
        name = self.ctx.params["environment_stack"]
        if environment is None or not name or environment.stack is not None:
            return nothing
        own = Stack.read(cfn, name)
        template = own.template or {
            "AWSTemplateFormatVersion": "2010-09-09",
            "Description": f"The Amazon MWAA environment {self.environment}. Adopted: outlives this stack.",
            "Resources": {},
        }
        imports = _take_in(template, own, [environment], self.aws.account_id)
        return {"environment_template": template, "environment_to_import": imports}

    @contextlib.contextmanager
    def _missing(self) -> Any:
        """What is asked for by an id that does not exist, or is none, is left as not found."""
        try:
            yield
        except MigrationError as error:
            if not is_nonsense(error.code):
                raise


def policy_name(environment: str) -> str:
    """Of the inline policy with what an environment's role needs."""
    return f"mwaa-execution-{environment}"


def policy_id(environment: str) -> str:
    """Its logical id: one base may serve several environments."""
    words = re.split(r"[^0-9A-Za-z]+", environment)
    return "ExecutionPolicy" + "".join(word[:1].upper() + word[1:] for word in words)


# error codes that say that there is nothing of this id, or that it is no id at all
_NONSENSE = {
    "400",
    "404",
    "InvalidArnException",
    "InvalidBucketName",
    "InvalidParameterException",
    "InvalidParameterValue",
    "NoSuchBucket",
    "NoSuchEntity",
    "NotFound",
    "NotFoundException",
    "ResourceNotFoundException",
    "ValidationError",
    "ValidationException",
}
_NO_SUCH_ID = re.compile(r"Invalid\w+\.(NotFound|Malformed)")  # as EC2 says it: InvalidVpcID.NotFound


def is_nonsense(code: str | None) -> bool:
    """Whether AWS's error code says that an id is of nothing."""
    return code in _NONSENSE or bool(_NO_SUCH_ID.fullmatch(code or ""))


def _take_in(template: dict[str, Any], own: Stack, found: Iterable[Found], account: str) -> list[dict[str, Any]]:
    """Add to the template what is in no stack yet, each resource as it is. Returns resources_to_import.

    The logical ids of `found` become those in the template.
    """
    resources, imports = template["Resources"], []
    for one in found:
        if (one.type, one.id) in own.logical_ids:
            one.stack, one.logical_id = own.name, own.logical_ids[one.type, one.id]
    for one in found:
        if one.stack is not None or (one.account and one.account != account):
            continue
        number, wanted = 1, one.logical_id
        while one.logical_id in resources:
            number += 1
            one.logical_id = f"{wanted}{'x' if wanted[-1].isdigit() else ''}{number}"
        resources[one.logical_id] = {
            "Type": one.type,
            "DeletionPolicy": "Retain",
            "UpdateReplacePolicy": "Retain",
            "Properties": one.properties,
        }
        imports.append(
            {
                "resource_type": one.type,
                "logical_resource_id": one.logical_id,
                "resource_identifier": one.identifier,
            }
        )
    return imports


def _unless_missing(call: Callable[[], dict[str, Any]], codes: Iterable[str] = ()) -> dict[str, Any] | None:
    """None where what is asked for was never set."""
    try:
        return call()
    except Exception as exception:
        if not is_aws_error(exception):
            raise
        code = error_code(exception) or ""
        unset = {
            "NoSuchPublicAccessBlockConfiguration",
            "ServerSideEncryptionConfigurationNotFoundError",
            "NoSuchTagSet",
            "NoSuchTagSetError",
            *codes,
        }
        if code in unset or is_missing(exception):
            return None
        raise


def _encryption(answer: dict[str, Any]) -> dict[str, Any]:
    """GetBucketEncryption's answer as the property BucketEncryption."""
    rules = []
    for rule in answer["ServerSideEncryptionConfiguration"]["Rules"]:
        default = rule.get("ApplyServerSideEncryptionByDefault") or {}
        by_default = {key: default[key] for key in ("SSEAlgorithm", "KMSMasterKeyID") if key in default}
        rules.append(
            {
                # S3 itself blocks SSE-C in buckets since April 2026, and shows it here
                **{key: rule[key] for key in ("BucketKeyEnabled", "BlockedEncryptionTypes") if key in rule},
                **({"ServerSideEncryptionByDefault": by_default} if by_default else {}),
            }
        )
    return {"ServerSideEncryptionConfiguration": rules}


def _tags(tags: list[dict[str, str]] | None) -> dict[str, Any]:
    """The property Tags; none where there are none. What AWS itself tagged is AWS's."""
    own = [{"Key": tag["Key"], "Value": tag["Value"]} for tag in tags or [] if not tag["Key"].startswith("aws:")]
    return {"Tags": own} if own else {}


def _routes(tables: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """The routes by subnet, and those of the VPC's main table under 'main'."""
    routes: dict[str, list[dict[str, Any]]] = {}
    for table in tables:
        for association in table.get("Associations", []):
            if association.get("SubnetId"):
                routes[association["SubnetId"]] = table.get("Routes", [])
            elif association.get("Main"):
                routes["main"] = table.get("Routes", [])
    return routes


def _public(routes: list[dict[str, Any]]) -> bool:
    return any(str(route.get("GatewayId", "")).startswith("igw-") for route in routes)


def _leads_out(routes: list[dict[str, Any]]) -> bool:
    return any(
        route.get("DestinationCidrBlock") == "0.0.0.0/0" and route.get("State", "active") == "active"
        for route in routes
    )


def _address_filters(address: str) -> list[str]:
    """The filters of DescribeInstances for an address or a DNS name."""
    try:
        ipaddress.ip_address(address)
    except ValueError:
        return ["private-dns-name", "dns-name"]
    return ["private-ip-address", "ip-address"]


def _partition(arn: str) -> str:
    return arn.split(":")[1]


def _and(names: Iterable[str]) -> str:
    return ", ".join(names)
