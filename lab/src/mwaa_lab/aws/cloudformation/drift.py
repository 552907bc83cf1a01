# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Drift: what the resources of a stack are now, in the shape of a template, property by property."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any
from xml.etree import ElementTree

Properties = dict[str, Any]
Reader = Callable[[str, Properties], Properties | None]
"""By physical id and the properties that are expected: those that are, or None for what is gone."""


def install(more: dict[str, tuple[Reader, frozenset[str]]]) -> None:
    """:param more: readers of the lab's own types, and the properties that each covers."""
    from ministack.services.cloudformation import drift

    # ministack has the states of the user guide's list, where an imported stack is missing that AWS does check.
    drift.DRIFT_DETECTABLE_STATUSES = drift.DRIFT_DETECTABLE_STATUSES | {"IMPORT_COMPLETE", "IMPORT_ROLLBACK_COMPLETE"}
    drift._DRIFT_READERS.update(_readers())
    drift._DRIFT_READERS.update(more)


def _tags(store: Any, identifier: str) -> Any:
    return store.get(identifier) or []


def _document(text: Any) -> Any:
    return json.loads(text) if isinstance(text, str) and text else text


def _readers() -> dict[str, tuple[Reader, frozenset[str]]]:
    from ministack.services import ec2

    def in_ec2(store: Any, shape: Callable[[dict[str, Any], Properties], Properties]) -> Reader:
        def read(physical_id: str, expected: Properties) -> Properties | None:
            record = store.get(physical_id)
            return None if record is None else {**shape(record, expected), "Tags": _tags(ec2._tags, physical_id)}

        return read

    def vpc(record: dict[str, Any], expected: Properties) -> Properties:
        return {
            "CidrBlock": record["CidrBlock"],
            "InstanceTenancy": record["InstanceTenancy"],
            "EnableDnsSupport": record.get("EnableDnsSupport", True),
            "EnableDnsHostnames": record.get("EnableDnsHostnames", bool(record["IsDefault"])),
        }

    def subnet(record: dict[str, Any], expected: Properties) -> Properties:
        keys = ("VpcId", "CidrBlock", "AvailabilityZone", "AvailabilityZoneId", "MapPublicIpOnLaunch")
        return {key: record[key] for key in keys}

    def group(record: dict[str, Any], expected: Properties) -> Properties:
        return {
            "GroupName": record["GroupName"],
            "GroupDescription": record["Description"],
            "VpcId": record["VpcId"],
            "SecurityGroupIngress": _rules(record["IpPermissions"], "Source", expected.get("SecurityGroupIngress")),
            "SecurityGroupEgress": _rules(
                record["IpPermissionsEgress"], "Destination", expected.get("SecurityGroupEgress")
            ),
        }

    def address(physical_id: str, expected: Properties) -> Properties | None:
        for record in ec2._addresses.values():
            if record["PublicIp"] == physical_id:
                return {"Domain": record["Domain"], "Tags": _tags(ec2._tags, record["AllocationId"])}
        return None

    def gateway(record: dict[str, Any], expected: Properties) -> Properties:
        return {key: record.get(key) for key in ("SubnetId", "AllocationId", "ConnectivityType")}

    def nat(physical_id: str, expected: Properties) -> Properties | None:
        if (ec2._nat_gateways.get(physical_id) or {}).get("State") in (None, "deleted"):
            return None
        return in_ec2(ec2._nat_gateways, gateway)(physical_id, expected)

    return {
        "AWS::EC2::VPC": (
            in_ec2(ec2._vpcs, vpc),
            frozenset({"CidrBlock", "InstanceTenancy", "EnableDnsSupport", "EnableDnsHostnames", "Tags"}),
        ),
        "AWS::EC2::Subnet": (
            in_ec2(ec2._subnets, subnet),
            frozenset({"VpcId", "CidrBlock", "AvailabilityZone", "AvailabilityZoneId", "MapPublicIpOnLaunch", "Tags"}),
        ),
        "AWS::EC2::SecurityGroup": (
            in_ec2(ec2._security_groups, group),
            frozenset(
                {"GroupName", "GroupDescription", "VpcId", "SecurityGroupIngress", "SecurityGroupEgress", "Tags"}
            ),
        ),
        "AWS::EC2::RouteTable": (
            in_ec2(ec2._route_tables, lambda record, _: {"VpcId": record["VpcId"]}),
            frozenset({"VpcId", "Tags"}),
        ),
        "AWS::EC2::Route": (_route, frozenset({"RouteTableId", *_DESTINATIONS, *_TARGETS})),
        "AWS::EC2::NatGateway": (nat, frozenset({"SubnetId", "AllocationId", "ConnectivityType", "Tags"})),
        "AWS::EC2::EIP": (address, frozenset({"Domain", "Tags"})),
        "AWS::EC2::InternetGateway": (in_ec2(ec2._internet_gateways, lambda *_: {}), frozenset({"Tags"})),
        "AWS::IAM::Role": (
            _role,
            frozenset(
                {
                    "RoleName",
                    "Path",
                    "Description",
                    "MaxSessionDuration",
                    "AssumeRolePolicyDocument",
                    "ManagedPolicyArns",
                    "PermissionsBoundary",
                    "Policies",
                    "Tags",
                }
            ),
        ),
        "AWS::IAM::RolePolicy": (_role_policy, frozenset({"PolicyName", "RoleName", "PolicyDocument"})),
        "AWS::IAM::ManagedPolicy": (
            _managed_policy,
            frozenset({"ManagedPolicyName", "Path", "Description", "PolicyDocument"}),
        ),
        "AWS::KMS::Key": (
            _key,
            frozenset(
                {
                    "Description",
                    "Enabled",
                    "EnableKeyRotation",
                    "KeyPolicy",
                    "KeySpec",
                    "KeyUsage",
                    "MultiRegion",
                    "Tags",
                }
            ),
        ),
        "AWS::S3::Bucket": (
            _bucket,
            frozenset(
                {
                    "BucketName",
                    "VersioningConfiguration",
                    "PublicAccessBlockConfiguration",
                    "BucketEncryption",
                    "LifecycleConfiguration",
                    "OwnershipControls",
                    "Tags",
                }
            ),
        ),
        "AWS::S3::BucketPolicy": (_bucket_policy, frozenset({"Bucket", "PolicyDocument"})),
    }


# --- EC2 -------------------------------------------------------------------------------------------------------------

_DESTINATIONS = ("DestinationCidrBlock", "DestinationIpv6CidrBlock", "DestinationPrefixListId")
_TARGETS = ("GatewayId", "NatGatewayId", "InstanceId", "NetworkInterfaceId", "TransitGatewayId", "VpcEndpointId")


def _route(physical_id: str, expected: Properties) -> Properties | None:
    from ministack.services import ec2

    table, _, destination = physical_id.partition("|")
    for route in (ec2._route_tables.get(table) or {}).get("Routes", []):
        if destination in (route.get(key) for key in _DESTINATIONS):
            return {
                "RouteTableId": table,
                **{key: route[key] for key in (*_DESTINATIONS, *_TARGETS) if route.get(key)},
            }
    return None


def _rules(permissions: list[dict[str, Any]], side: str, expected: Any) -> list[Properties]:
    """A security group's rules as a template has them: one for each peer."""
    owner = f"{side}SecurityGroupOwnerId"
    wanted = {key for rule in expected or [] for key in rule}
    rules = []
    for permission in permissions:
        common = {"IpProtocol": permission["IpProtocol"]}
        # All traffic has no ports, however it is written.
        if permission["IpProtocol"] != "-1" or "FromPort" in wanted:
            common.update({key: permission.get(key, -1) for key in ("FromPort", "ToPort")})
        for peers, member, key in (
            ("IpRanges", "CidrIp", "CidrIp"),
            ("Ipv6Ranges", "CidrIpv6", "CidrIpv6"),
            ("PrefixListIds", "PrefixListId", f"{side}PrefixListId"),
            ("UserIdGroupPairs", "GroupId", f"{side}SecurityGroupId"),
        ):
            for peer in permission.get(peers) or []:
                rule = {**common, key: peer.get(member)}
                if peer.get("Description"):
                    rule["Description"] = peer["Description"]
                if peer.get("UserId") and owner in wanted:
                    rule[owner] = peer["UserId"]
                rules.append(rule)
    return rules


# --- IAM, KMS --------------------------------------------------------------------------------------------------------


def _role(name: str, expected: Properties) -> Properties | None:
    from ministack.services import iam

    role = iam._roles.get(name)
    if role is None:
        return None
    # Only policies that the template has are its business; others belong to RolePolicy resources, or to nobody.
    named = {policy["PolicyName"] for policy in expected.get("Policies") or []}
    found = {
        "RoleName": name,
        "Path": role.get("Path", "/"),
        "Description": role.get("Description", ""),
        "MaxSessionDuration": role.get("MaxSessionDuration"),
        "AssumeRolePolicyDocument": _document(role.get("AssumeRolePolicyDocument")),
        "ManagedPolicyArns": list(role.get("AttachedPolicies") or []),
        "Policies": [
            {"PolicyName": policy, "PolicyDocument": _document(document)}
            for policy, document in role["InlinePolicies"].items()
            if policy in named
        ],
        "Tags": role.get("Tags") or [],
    }
    if boundary := role.get("PermissionsBoundary"):
        found["PermissionsBoundary"] = boundary if isinstance(boundary, str) else boundary["PermissionsBoundaryArn"]
    return found


def _role_policy(physical_id: str, expected: Properties) -> Properties | None:
    from ministack.services import iam

    policy, _, role = physical_id.partition("|")
    document = (iam._roles.get(role) or {}).get("InlinePolicies", {}).get(policy)
    if document is None:
        return None
    return {"PolicyName": policy, "RoleName": role, "PolicyDocument": _document(document)}


def _managed_policy(arn: str, expected: Properties) -> Properties | None:
    from ministack.services import iam

    policy = iam._policies.get(arn)
    if policy is None:
        return None
    version = policy["Versions"]
    found = version if isinstance(version, list) else list(version.values())
    default = next(one for one in found if one["IsDefaultVersion"])
    return {
        "ManagedPolicyName": policy["PolicyName"],
        "Path": policy.get("Path", "/"),
        "Description": policy.get("Description", ""),
        "PolicyDocument": _document(default["Document"]),
    }


def _key(identifier: str, expected: Properties) -> Properties | None:
    from ministack.services import kms

    key = kms._keys.get(identifier)
    if key is None or key.get("KeyState") == "PendingDeletion":
        return None
    return {
        "Description": key.get("Description", ""),
        "Enabled": key.get("KeyState") != "Disabled",
        "EnableKeyRotation": bool(key.get("KeyRotationEnabled")),
        "KeyPolicy": _document(key.get("Policy")),
        "KeySpec": key.get("KeySpec"),
        "KeyUsage": key.get("KeyUsage"),
        "MultiRegion": bool(key.get("MultiRegion")),
        "Tags": [{"Key": tag["TagKey"], "Value": tag["TagValue"]} for tag in key.get("Tags") or []],
    }


# --- S3 --------------------------------------------------------------------------------------------------------------


def _bucket(name: str, expected: Properties) -> Properties | None:
    from ministack.services import s3

    if name not in s3._buckets:
        return None
    found: Properties = {"BucketName": name, "Tags": dict(s3._bucket_tags.get(name) or {})}
    found["VersioningConfiguration"] = {"Status": s3._bucket_versioning.get(name) or "Suspended"}
    for key, get, read in (
        ("PublicAccessBlockConfiguration", s3._get_public_access_block, _flags),
        ("BucketEncryption", s3._get_bucket_encryption, _encryption),
        ("LifecycleConfiguration", s3._get_bucket_lifecycle, _lifecycle),
        ("OwnershipControls", s3._get_bucket_ownership_controls, _ownership),
    ):
        status, _headers, body = get(name)
        if status < 400:
            root = ElementTree.fromstring(body)
            for element in root.iter():
                element.tag = element.tag.rpartition("}")[2]
            found[key] = read(root, expected.get(key) or {})
    return found


def _flags(root: ElementTree.Element, expected: Properties) -> Properties:
    return {element.tag: element.text == "true" for element in root if element.tag in expected}


def _encryption(root: ElementTree.Element, expected: Properties) -> Properties:
    wanted = (expected.get("ServerSideEncryptionConfiguration") or [{}])[0]
    rules = []
    for rule in root.iter("Rule"):
        found: Properties = {}
        default = rule.find("ApplyServerSideEncryptionByDefault")
        if default is not None:
            found["ServerSideEncryptionByDefault"] = {element.tag: element.text for element in default if element.text}
        if "BucketKeyEnabled" in wanted:
            found["BucketKeyEnabled"] = rule.findtext("BucketKeyEnabled") == "true"
        rules.append(found)
    return {"ServerSideEncryptionConfiguration": rules}


def _ownership(root: ElementTree.Element, expected: Properties) -> Properties:
    return {"Rules": [{"ObjectOwnership": element.text} for element in root.iter("ObjectOwnership")]}


def _lifecycle(root: ElementTree.Element, expected: Properties) -> Properties:
    wanted = {key for rule in expected.get("Rules") or [] for key in rule}
    rules = []
    for rule in root.iter("Rule"):
        found: Properties = {"Status": rule.findtext("Status")}
        prefix = rule.findtext("Filter/Prefix") or rule.findtext("Prefix") or ""
        if "Id" in wanted:
            found["Id"] = rule.findtext("ID")
        if prefix or "Prefix" in wanted:
            found["Prefix"] = prefix
        for key, path in (
            ("ExpirationInDays", "Expiration/Days"),
            ("ExpiredObjectDeleteMarker", "Expiration/ExpiredObjectDeleteMarker"),
            ("NoncurrentVersionExpirationInDays", "NoncurrentVersionExpiration/NoncurrentDays"),
        ):
            if (text := rule.findtext(path)) and not (
                key.startswith("Noncurrent") and "NoncurrentVersionExpiration" in wanted
            ):
                found[key] = text == "true" if text in ("true", "false") else int(text)
        for key in ("NoncurrentVersionExpiration", "AbortIncompleteMultipartUpload"):
            element = rule.find(key)
            if element is not None and not (key.startswith("Noncurrent") and key not in wanted):
                found[key] = {child.tag: int(child.text or 0) for child in element}
        rules.append(found)
    return {"Rules": rules}


def _bucket_policy(bucket: str, expected: Properties) -> Properties | None:
    from ministack.services import s3

    document = s3._bucket_policies.get(bucket)
    return None if document is None else {"Bucket": bucket, "PolicyDocument": _document(document)}
