# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Sound set-ups as preflight sees them: with NAT, with endpoints alone, and an environment that exists."""

from __future__ import annotations

import copy
import datetime
import json
from typing import Any

from ansible_collections.mwaa.migration.plugins.module_utils._mwaa import settings
from ansible_collections.mwaa.migration.plugins.module_utils._preflight import rules_network
from ansible_collections.mwaa.migration.plugins.module_utils._preflight.frame import Snapshot

REGION, ACCOUNT, NAME = "eu-central-1", "123456789012", "analytics"
TODAY = datetime.date(2026, 11, 21)
VPC, A, B, GROUP = "vpc-1", "subnet-a", "subnet-b", "sg-1"
BUCKET, ROLE = "example-airflow", f"arn:aws:iam::{ACCOUNT}:role/airflow-analytics"
KEY = f"arn:aws:kms:{REGION}:{ACCOUNT}:key/11111111-2222-3333-4444-555555555555"
ARN = f"arn:aws:airflow:{REGION}:{ACCOUNT}:environment/{NAME}"
CONSTRAINTS = "https://raw.githubusercontent.com/apache/airflow/constraints-2.11.2/constraints-3.12.txt"
EVERYTHING = {"IpProtocol": "-1", "UserIdGroupPairs": [], "IpRanges": [{"CidrIp": "0.0.0.0/0"}]}


def allow(principal: Any, action: Any, resource: Any = "*", **more: Any) -> dict[str, Any]:
    return {"Effect": "Allow", "Principal": principal, "Action": action, "Resource": resource, **more}


def deny(principal: Any, action: Any, resource: Any = "*", **more: Any) -> dict[str, Any]:
    return {**allow(principal, action, resource, **more), "Effect": "Deny"}


def policy(*statements: dict[str, Any]) -> str:
    return json.dumps({"Version": "2012-10-17", "Statement": list(statements)})


TRUST = {
    "Statement": [
        {
            "Effect": "Allow",
            "Principal": {"Service": ["airflow.amazonaws.com", "airflow-env.amazonaws.com"]},
            "Action": "sts:AssumeRole",
        }
    ]
}
LOGS = allow(
    {"Service": f"logs.{REGION}.amazonaws.com"},
    ["kms:Encrypt*", "kms:Decrypt*", "kms:ReEncrypt*", "kms:GenerateDataKey*", "kms:Describe*"],
    Condition={"ArnLike": {"kms:EncryptionContext:aws:logs:arn": f"arn:aws:logs:{REGION}:{ACCOUNT}:*"}},
)
OWN = allow({"AWS": f"arn:aws:iam::{ACCOUNT}:root"}, "kms:*")
TLS_ONLY = deny("*", "s3:*", "*", Condition={"Bool": {"aws:SecureTransport": "false"}})


def route_table(identity: str, *routes: dict[str, Any], subnets: tuple[str, ...] = ()) -> dict[str, Any]:
    local = {"DestinationCidrBlock": "10.0.0.0/16", "GatewayId": "local", "State": "active"}
    return {
        "RouteTableId": identity,
        "VpcId": VPC,
        "Associations": [{"SubnetId": subnet} for subnet in subnets],
        "Routes": [local, *({"State": "active", **route} for route in routes)],
    }


def acl_entry(number: int, egress: bool, action: str = "allow", **more: Any) -> dict[str, Any]:
    return {
        "RuleNumber": number,
        "Egress": egress,
        "RuleAction": action,
        "CidrBlock": "0.0.0.0/0",
        "Protocol": "-1",
        **more,
    }


def endpoint(service: str, **more: Any) -> dict[str, Any]:
    if rules_network.ENDPOINTS[service] == "Gateway":
        kind: dict[str, Any] = {"VpcEndpointType": "Gateway", "RouteTableIds": ["rtb-private"]}
    else:
        kind = {
            "VpcEndpointType": "Interface",
            "SubnetIds": [A, B],
            "Groups": [{"GroupId": GROUP}],
            "PrivateDnsEnabled": True,
        }
    return {
        "VpcEndpointId": f"vpce-{service}",
        "VpcId": VPC,
        "ServiceName": f"com.amazonaws.{REGION}.{service}",
        "State": "available",
        **kind,
        **more,
    }


def _facts() -> dict[str, Any]:
    subnets = [
        {
            "SubnetId": subnet,
            "VpcId": VPC,
            "AvailabilityZone": zone,
            "CidrBlock": cidr,
            "AvailableIpAddressCount": 250,
            "OwnerId": ACCOUNT,
        }
        for subnet, zone, cidr in ((A, f"{REGION}a", "10.0.1.0/24"), (B, f"{REGION}b", "10.0.2.0/24"))
    ]
    group = {
        "GroupId": GROUP,
        "VpcId": VPC,
        "IpPermissions": [{"IpProtocol": "-1", "UserIdGroupPairs": [{"GroupId": GROUP}], "IpRanges": []}],
        "IpPermissionsEgress": [copy.deepcopy(EVERYTHING)],
    }
    key = {"Arn": KEY, "KeyState": "Enabled", "KeySpec": "SYMMETRIC_DEFAULT", "KeyUsage": "ENCRYPT_DECRYPT"}
    role = {"Arn": ROLE, "AssumeRolePolicyDocument": copy.deepcopy(TRUST)}
    objects = {
        path: {"key": name, "version": "v1", "size": 100, "latest": "v1"}
        for path, name in (
            ("plugins_s3_path", "plugins.zip"),
            ("requirements_s3_path", "requirements.txt"),
            ("startup_script_s3_path", "startup.sh"),
        )
    }
    return {
        "existing": {},
        "found_subnets": subnets,
        "subnets": subnets,
        "vpc": VPC,
        "vpc_dns": {"enableDnsSupport": True, "enableDnsHostnames": True},
        "route_tables": [
            route_table("rtb-private", {"DestinationCidrBlock": "0.0.0.0/0", "NatGatewayId": "nat-1"}, subnets=(A, B)),
            route_table(
                "rtb-public", {"DestinationCidrBlock": "0.0.0.0/0", "GatewayId": "igw-1"}, subnets=("subnet-p",)
            ),
        ],
        "nat_gateways": [{"NatGatewayId": "nat-1", "VpcId": VPC, "SubnetId": "subnet-p", "State": "available"}],
        "network_acls": [
            {
                "NetworkAclId": "acl-1",
                "VpcId": VPC,
                "Associations": [{"SubnetId": A}, {"SubnetId": B}],
                "Entries": [acl_entry(100, False), acl_entry(100, True)],
            }
        ],
        "endpoints": [],
        "endpoint_groups": {},
        "found_groups": [group],
        "groups": [group],
        "bucket": {"state": "there", "region": REGION},
        "versioning": "Enabled",
        "public_access": {"BlockPublicAcls", "IgnorePublicAcls", "BlockPublicPolicy", "RestrictPublicBuckets"},
        "bucket_key": KEY,
        "bucket_policy": policy(TLS_ONLY),
        "dag_keys": ["etl.py", "teams/finance.py"],
        "airflowignore": "",
        "objects": objects,
        "requirements": f'--constraint "{CONSTRAINTS}"\npandas\n',
        "startup_script": "#!/bin/sh\nexport STAGE=prod\n",
        "plugins": {"size": 100, "names": ["acme/__init__.py", "acme_plugin.py"]},
        "found_key": key,
        "key": key,
        "key_policy": policy(OWN, LOGS),
        "key_grants": None,
        "found_role": role,
        "role": role,
        "linked_role": True,
        "denied_to_role": [],
        "lists_buckets": False,
        "creator": f"arn:aws:iam::{ACCOUNT}:role/deployer",
        "denied_to_creator": {
            rule: []
            for rule in (
                "caller-environment",
                "caller-rest-api",
                "caller-pass-role",
                "caller-service-linked-role",
                "caller-network",
                "caller-key",
            )
        },
        "environments": ["other"],
        "quotas": {"environments per account per region": 10.0, "workers per environment": 25.0},
        "claiming_stack": "",
        "log_groups": {},
        "failing_logs": None,
        "health": None,
    }


def with_nat() -> Snapshot:
    """Before anything is created: private subnets behind a NAT gateway, a key of one's own."""
    wanted = {
        "airflow_version": "2.11.2",
        "source_bucket": BUCKET,
        "dag_s3_path": "dags",
        "plugins_s3_path": "plugins.zip",
        "requirements_s3_path": "requirements.txt",
        "startup_script_s3_path": "startup.sh",
        "execution_role_arn": ROLE,
        "subnet_ids": [A, B],
        "security_group_ids": [GROUP],
        "kms_key": KEY,
        "environment_class": "mw1.small",
        "webserver_access_mode": "PUBLIC_ONLY",
        "airflow_configuration_options": {"core.parallelism": "64", "core.dags_are_paused_at_creation": "True"},
    }
    return Snapshot(
        name=NAME,
        region=REGION,
        account=ACCOUNT,
        caller=f"arn:aws:sts::{ACCOUNT}:assumed-role/deployer/me",
        today=TODAY,
        wanted=wanted,
        given=frozenset(wanted),
        facts=_facts(),
    )


def with_endpoints() -> Snapshot:
    """The same without any way to the internet; requirements come as wheels."""
    snapshot = with_nat()
    snapshot.wanted["webserver_access_mode"] = "PRIVATE_ONLY"
    snapshot.facts["route_tables"] = [route_table("rtb-private", subnets=(A, B))]
    snapshot.facts["nat_gateways"] = []
    snapshot.facts["endpoints"] = [endpoint(service) for service in rules_network.ENDPOINTS]
    snapshot.facts["endpoint_groups"] = {GROUP: snapshot.facts["groups"][0]}
    snapshot.facts["requirements"] = "--find-links /usr/local/airflow/plugins\n--no-index\npandas==2.2.3\n"
    snapshot.facts["plugins"]["names"].append("pandas-2.2.3-cp312-cp312-manylinux_2_17_x86_64.whl")
    return snapshot


def existing() -> Snapshot:
    """An environment that runs, looked at by its name alone."""
    snapshot = with_nat()
    environment = {
        **settings.request(snapshot.wanted, partition="aws", create=True),
        "Name": NAME,
        "Arn": ARN,
        "Status": "AVAILABLE",
        "LoggingConfiguration": {"TaskLogs": {"Enabled": True, "LogLevel": "INFO"}},
    }
    snapshot.environment = snapshot.facts["existing"] = environment
    snapshot.wanted = settings.current(environment)
    snapshot.given = frozenset()
    snapshot.facts["environments"] = [NAME]
    snapshot.facts["log_groups"] = {f"airflow-{NAME}-Task": {"logGroupName": f"airflow-{NAME}-Task"}}
    snapshot.facts["key_grants"] = [f"airflow.{REGION}.amazonaws.com"]
    snapshot.facts["failing_logs"] = {}
    snapshot.facts["health"] = {"metadatabase": "healthy", "scheduler": "healthy"}
    snapshot.facts["claiming_stack"] = None
    return snapshot
