# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# ruff: noqa: E501 - a line is a set-up
"""For every rule broken set-ups that it, and no other rule, finds; and sound ones in which no rule finds anything."""

from __future__ import annotations

import copy
from typing import Any, Callable

import preflight_setups as setups
import pytest
from ansible_collections.mwaa.migration.plugins.module_utils._errors import Faults
from ansible_collections.mwaa.migration.plugins.module_utils._mwaa import settings
from ansible_collections.mwaa.migration.plugins.module_utils._preflight import check  # noqa: F401 - declares the rules
from ansible_collections.mwaa.migration.plugins.module_utils._preflight.frame import (
    RULES,
    Snapshot,
    Unread,
    in_order,
    judge,
)
from ansible_collections.mwaa.migration.plugins.module_utils._preflight.permissions import Need
from ansible_collections.mwaa.migration.plugins.module_utils._preflight.rules_network import ENDPOINTS
from preflight_setups import (
    BUCKET,
    GROUP,
    KEY,
    NAME,
    REGION,
    ROLE,
    VPC,
    A,
    allow,
    deny,
    endpoint,
    policy,
)

Break = Callable[[Snapshot], Any]
OLD = f"arn:aws:airflow:{REGION}:{setups.ACCOUNT}:environment/old"
SELF = [{"GroupId": GROUP}]


# --- ways to break a set-up -------------------------------------------------------------------------------------------


def wanted(**settings_: Any) -> Break:
    return lambda s: s.wanted.update(settings_)


def fact(name: str, value: Any) -> Break:
    return lambda s: s.facts.update({name: value})


def of(name: str, index: Any = None, **fields: Any) -> Break:
    """Change fields of a fact, or of one of its things."""
    return lambda s: (s.facts[name] if index is None else s.facts[name][index]).update(copy.deepcopy(fields))


def options(**given: str) -> Break:
    """section__option=value."""
    return lambda s: s.wanted.update(
        airflow_configuration_options={name.replace("__", "."): value for name, value in given.items()}
    )


def asked(**params: Any) -> Break:
    """What settings.py says of options that a task asks for."""

    def change(s: Snapshot) -> None:
        faults = Faults(NAME)
        settings.judged({"name": NAME, **params}, faults)
        s.faults = faults.found

    return change


def denied(name: str, *actions: str, how: str = "implicitDeny", rule: str | None = None) -> Break:
    need = Need("*", actions, {}, "")
    found = [(need, action, how) for action in actions]
    return lambda s: s.facts[name].update({rule: found}) if rule else s.facts.update({name: found})


def env(**fields: Any) -> Break:
    return lambda s: s.environment.update(fields)  # type: ignore[union-attr]


def both(*changes: Break) -> Break:
    return lambda s: [change(s) for change in changes]


def trust(**condition: Any) -> Break:
    statement = {**setups.TRUST["Statement"][0], "Condition": condition}
    return of("role", AssumeRolePolicyDocument={"Statement": [statement]})


def inbound(*permissions: dict[str, Any]) -> Break:
    return of("groups", 0, IpPermissions=list(permissions))


def outbound(*permissions: dict[str, Any]) -> Break:
    return of("groups", 0, IpPermissionsEgress=list(permissions))


def tcp(port: int, to: int | None = None, **peers: Any) -> dict[str, Any]:
    return {
        "IpProtocol": "tcp",
        "FromPort": port,
        "ToPort": to or port,
        "UserIdGroupPairs": [],
        "IpRanges": [],
        **peers,
    }


def acl(*entries: dict[str, Any]) -> Break:
    return of("network_acls", 0, Entries=list(entries))


def without(*services: str) -> Break:
    return lambda s: s.facts.update(
        endpoints=[one for one in s.facts["endpoints"] if one["ServiceName"].split(f"{REGION}.")[1] not in services]
    )


def endpoint_is(service: str, **fields: Any) -> Break:
    return lambda s: next(one for one in s.facts["endpoints"] if one["ServiceName"].endswith(f".{service}")).update(
        fields
    )


IN, OUT = setups.acl_entry(100, False), setups.acl_entry(100, True)
FROM_INSIDE = [{"CidrIp": "10.0.0.0/16"}]
INSIDE_IN, INSIDE_OUT = (setups.acl_entry(100, out, CidrBlock="10.0.0.0/16") for out in (False, True))
nat, endpoints, existing = setups.with_nat, setups.with_endpoints, setups.existing

# (rule, what is broken, the sound set-up, how it is broken)
BROKEN: list[tuple[str, str, Callable[[], Snapshot], Break]] = [
    # --- the environment
    ("setting-refused", "a name that begins with a digit", nat, lambda s: s.faults.append("name must begin with a letter")),
    ("setting-refused", "three subnets", nat, asked(subnet_ids=["subnet-a", "subnet-b", "subnet-c"])),
    ("setting-refused", "more workers at least than at most", nat, asked(min_workers=5, max_workers=2)),
    ("setting-refused", "a startup script for Airflow 2.0.2", nat, asked(airflow_version="2.0.2", startup_script_s3_path="s.sh")),
    ("setting-refused", "PUBLIC_AND_PRIVATE below 3.2", nat, asked(airflow_version="3.0.6", webserver_access_mode="PUBLIC_AND_PRIVATE")),
    ("setting-refused", "an alias for a key", nat, asked(kms_key="alias/airflow")),
    ("setting-missing", "no role", nat, both(wanted(execution_role_arn=None), fact("found_role", None), fact("role", None), fact("denied_to_role", None), fact("lists_buckets", None))),
    ("setting-fixed", "other subnets for an environment that exists", existing, lambda s: (s.wanted.update(subnet_ids=[A, "subnet-c"]), setattr(s, "given", frozenset({"subnet_ids"})), s.facts.update(found_subnets=None, subnets=None))),
    ("environment-status", "it is being updated", existing, both(env(Status="UPDATING"), fact("key_grants", None))),
    ("environment-status", "it could not be created", existing, env(Status="CREATE_FAILED", LastUpdate={"Error": {"ErrorMessage": "No NAT."}})),
    ("environment-health", "no heartbeat of the scheduler", existing, of("health", scheduler="unhealthy")),
    ("name-in-stack", "a stack still has an environment of this name", nat, fact("claiming_stack", "analytics-environment")),
    ("quota-environments", "ten environments", nat, fact("environments", [f"e{number}" for number in range(10)])),
    ("quota-environments", "AWS lists no quotas, the documented one counts", nat, both(fact("quotas", {}), fact("environments", ["e"] * 10))),
    ("quota-workers", "more workers than the quota", nat, wanted(max_workers=40)),
    ("quota-workers", "more web servers than documented", nat, wanted(max_webservers=6)),
    ("class-known", "a class that nobody knows", nat, wanted(environment_class="mw1.gigantic")),
    ("class-counts", "one scheduler for mw1.small", nat, wanted(schedulers=1)),
    ("class-counts", "two web servers for mw1.micro", nat, wanted(environment_class="mw1.micro", min_webservers=2)),
    ("class-counts", "ten workers for mw1.micro", nat, wanted(environment_class="mw1.micro", max_workers=10)),
    ("class-capacity", "120 DAGs in mw1.small", nat, fact("dag_count", 120)),
    ("class-capacity", "60 Python files in mw1.small", nat, fact("dag_keys", [f"dag_{number}.py" for number in range(60)])),
    ("version-offered", "a version that never was", nat, both(wanted(airflow_version="2.10.2"), fact("requirements", ""))),
    ("version-offered", "a version that this collection does not know yet", nat, both(wanted(airflow_version="3.9.1"), fact("requirements", ""))),
    ("version-offered", "a version that is not there yet", nat, lambda s: (s.wanted.update(airflow_version="3.3.1"), s.facts.update(requirements=""), setattr(s, "today", s.today.replace(month=3)))),
    ("version-ended", "a version that AWS has ended", nat, both(wanted(airflow_version="2.5.1"), fact("requirements", ""))),
    ("version-ended", "an environment that runs an ended version", existing, both(wanted(airflow_version="2.5.1"), env(AirflowVersion="2.5.1"), fact("requirements", ""))),
    ("version-path", "from 2.10.3 to 3.2.1 in one step", existing, both(wanted(airflow_version="3.2.1"), env(AirflowVersion="2.10.3"), fact("requirements", ""))),
    # --- Airflow's options
    ("option-refused", "a name with capitals", nat, asked(airflow_configuration_options={"Core.Parallelism": "1"})),
    ("option-refused", "an empty value", nat, asked(airflow_configuration_options={"core.parallelism": ""})),
    ("option-refused", "an umlaut", nat, asked(airflow_configuration_options={"api.instance_name": "Bücher"})),
    ("option-refused", "a line break", nat, asked(airflow_configuration_options={"email.subject_template": "a\nb"})),
    ("option-refused", "a value of more than 65,536 characters", nat, asked(airflow_configuration_options={"core.hostname_callable": "x" * 65537})),
    ("option-refused", "core.multi_team on 3.2", nat, both(wanted(airflow_version="3.2.1"), options(core__multi_team="True"), fact("requirements", ""))),
    ("option-ignored", "another executor", nat, options(core__executor="LocalExecutor")),
    ("option-ignored", "a Fernet key of one's own", nat, options(core__fernet_key="CANARY")),
    ("option-renamed", "an option that Airflow 2.11 calls otherwise", nat, options(core__dag_concurrency="16")),
    ("option-renamed", "an option that Airflow 3 calls otherwise", nat, both(wanted(airflow_version="3.2.1"), options(core__dag_file_processor_timeout="50"), fact("requirements", ""))),
    ("option-unknown", "a misspelt option", nat, options(core__paralelism="64")),
    ("secrets-backend", "arguments that are no JSON", nat, options(secrets__backend="airflow.providers.amazon.aws.secrets.secrets_manager.SecretsManagerBackend", secrets__backend_kwargs="{'a': 1}")),
    ("secrets-backend", "every task asks for aws_default", nat, options(secrets__backend="airflow.providers.amazon.aws.secrets.secrets_manager.SecretsManagerBackend", secrets__backend_kwargs='{"connections_prefix": "airflow/connections"}')),
    ("secrets-backend", "arguments without a backend", nat, options(secrets__backend_kwargs="{}")),
    # --- the network
    ("subnet-exists", "a subnet that is not there", nat, lambda s: s.facts.update(found_subnets=s.facts["subnets"][:1], subnets=None, vpc=None, vpc_dns=None, route_tables=None, nat_gateways=None, network_acls=None, endpoints=None, endpoint_groups=None)),
    ("subnet-zones", "both in one zone", nat, of("subnets", 1, AvailabilityZone=f"{REGION}a")),
    ("subnet-vpc", "in two VPCs", nat, lambda s: (s.facts["subnets"][1].update(VpcId="vpc-2"), s.facts.update(vpc=None, vpc_dns=None, route_tables=None, nat_gateways=None, network_acls=None, endpoints=None, endpoint_groups=None))),
    ("subnet-addresses", "a /28 that is full", nat, of("subnets", 0, AvailableIpAddressCount=2)),
    ("subnet-addresses", "too small for ten workers", nat, of("subnets", 0, AvailableIpAddressCount=7)),
    ("shared-vpc", "a VPC of another account", nat, of("subnets", 0, OwnerId="210987654321")),
    ("vpc-dns", "no DNS host names", nat, of("vpc_dns", enableDnsHostnames=False)),
    ("vpc-dns", "no DNS at all", nat, of("vpc_dns", enableDnsHostnames=False, enableDnsSupport=False)),
    ("route-to-internet-gateway", "public subnets", nat, of("route_tables", 0, Routes=[{"DestinationCidrBlock": "0.0.0.0/0", "GatewayId": "igw-1", "State": "active"}])),
    ("route-to-internet-gateway", "by the VPC's main route table", nat, fact("route_tables", [{"RouteTableId": "rtb-main", "VpcId": VPC, "Associations": [{"Main": True}], "Routes": [{"DestinationCidrBlock": "0.0.0.0/0", "GatewayId": "igw-1"}]}])),
    ("route-blackhole", "a peering that is gone", nat, lambda s: s.facts["route_tables"][0]["Routes"].append({"DestinationCidrBlock": "10.9.0.0/16", "VpcPeeringConnectionId": "pcx-1", "State": "blackhole"})),
    ("nat-gateway-state", "a NAT gateway that failed", nat, of("nat_gateways", 0, State="failed")),
    ("nat-gateway-subnet", "a NAT gateway in a private subnet", nat, of("nat_gateways", 0, SubnetId=A)),
    ("endpoints-missing", "no endpoint for SQS", endpoints, without("sqs")),
    ("endpoints-missing", "no gateway for S3", endpoints, without("s3")),
    ("endpoints-missing", "IPv6 alone has a way out, and SQS no endpoint", endpoints, both(without("sqs"), lambda s: s.facts["route_tables"][0]["Routes"].append({"DestinationIpv6CidrBlock": "::/0", "EgressOnlyInternetGatewayId": "eigw-1", "State": "active"}))),
    ("endpoint-private-dns", "private DNS off", endpoints, endpoint_is("logs", PrivateDnsEnabled=False)),
    ("endpoint-subnets", "an endpoint in one zone only", endpoints, endpoint_is("kms", SubnetIds=[A])),
    ("endpoint-routes", "S3's gateway in another route table", endpoints, endpoint_is("s3", RouteTableIds=["rtb-other"])),
    ("endpoint-security-group", "an endpoint whose group lets nobody in", endpoints, both(endpoint_is("sqs", Groups=[{"GroupId": "sg-2"}]), of("endpoint_groups", **{"sg-2": {"GroupId": "sg-2", "VpcId": VPC, "IpPermissions": []}}))),
    ("endpoint-security-group", "the same beside a NAT gateway: the name leads there all the same", nat, both(fact("endpoints", [endpoint("sqs", Groups=[{"GroupId": "sg-2"}])]), fact("endpoint_groups", {"sg-2": {"GroupId": "sg-2", "VpcId": VPC, "IpPermissions": []}}))),
    ("endpoint-policy", "S3's gateway leaves the image layers out", endpoints, endpoint_is("s3", PolicyDocument=policy(allow("*", "s3:*", [f"arn:aws:s3:::{BUCKET}", f"arn:aws:s3:::{BUCKET}/*"])))),
    ("endpoint-policy", "S3's gateway leaves the bucket out", endpoints, endpoint_is("s3", PolicyDocument=policy(allow("*", "s3:GetObject", f"arn:aws:s3:::prod-{REGION}-starport-layer-bucket/*")))),
    ("endpoint-policy", "the endpoint of SQS denies sending", endpoints, endpoint_is("sqs", PolicyDocument=policy(allow("*", "*"), deny("*", "sqs:SendMessage")))),
    ("access-mode-internet", "Airflow 3 with a public web server that its workers do not reach", endpoints, wanted(airflow_version="3.2.1", webserver_access_mode="PUBLIC_ONLY")),
    ("security-group-exists", "a group that is not there", nat, lambda s: s.facts.update(found_groups=[], groups=None)),
    ("security-group-vpc", "a group of another VPC", nat, of("groups", 0, VpcId="vpc-2")),
    ("security-group-self", "no inbound rule", nat, inbound()),
    ("security-group-self", "HTTPS alone, not the database", nat, inbound(tcp(443, UserIdGroupPairs=SELF))),
    ("security-group-outbound", "no outbound rule", nat, outbound()),
    ("security-group-outbound", "nothing outside of the VPC", nat, outbound({"IpProtocol": "-1", "IpRanges": FROM_INSIDE})),
    ("network-acl", "an ACL that lets nothing in", nat, acl(OUT)),
    ("network-acl", "no way to the database", nat, acl(IN, setups.acl_entry(90, True, "deny", Protocol="6", PortRange={"From": 5432, "To": 5432}), OUT)),
    ("network-acl", "no answers from the internet", nat, acl(setups.acl_entry(100, False, CidrBlock="10.0.0.0/16"), OUT)),
    # --- the bucket and what is in it
    ("bucket-exists", "no such bucket", nat, lambda s: (s.facts.update(bucket={"state": "missing", "region": None}), _no_bucket(s))),
    ("bucket-exists", "somebody else's bucket", nat, lambda s: (s.facts.update(bucket={"state": "foreign", "region": REGION}), _no_bucket(s))),
    ("bucket-region", "a bucket elsewhere", nat, lambda s: (s.facts.update(bucket={"state": "there", "region": "us-east-1"}), _no_bucket(s))),
    ("bucket-versioning", "versioning suspended", nat, fact("versioning", "Suspended")),
    ("bucket-public-access", "one switch of four", nat, fact("public_access", {"BlockPublicAcls"})),
    ("bucket-key", "the bucket has a key, the environment has not", nat, both(wanted(kms_key=None), fact("found_key", None), fact("key", None), fact("key_policy", None))),
    ("bucket-key", "another key", nat, fact("bucket_key", KEY.replace("1111", "9999"))),
    ("bucket-policy", "reading is denied to all but an administrator", nat, fact("bucket_policy", policy(deny("*", "s3:GetObject*", f"arn:aws:s3:::{BUCKET}/*", Condition={"ArnNotLike": {"aws:PrincipalArn": "arn:aws:iam::123456789012:role/admin"}})))),
    ("bucket-policy", "listing is denied to the role", nat, fact("bucket_policy", policy(deny({"AWS": ROLE}, "s3:ListBucket", f"arn:aws:s3:::{BUCKET}")))),
    ("bucket-policy", "from one endpoint only", nat, fact("bucket_policy", policy(deny("*", "s3:*", Condition={"StringNotEquals": {"aws:SourceVpce": "vpce-1"}})))),
    ("dag-folder", "an empty DAG folder", nat, fact("dag_keys", [])),
    ("dag-folder-noise", "the folder of git", nat, fact("dag_keys", ["etl.py", ".git/HEAD", ".git/config"])),
    ("object-missing", "requirements.txt is not there", nat, both(lambda s: s.facts["objects"].update(requirements_s3_path=None), fact("requirements", None))),
    ("object-missing", "not the version that is pinned", nat, both(wanted(plugins_s3_object_version="gone"), lambda s: s.facts["objects"].update(plugins_s3_path=None), fact("plugins", None))),
    ("object-version", "uploaded before the bucket was versioned", nat, lambda s: s.facts["objects"]["plugins_s3_path"].update(version="null")),
    ("object-outdated", "a newer one was uploaded", existing, lambda s: s.facts["objects"]["requirements_s3_path"].update(latest="v2")),
    ("plugins-archive", "no archive", nat, of("plugins", names=None)),
    ("plugins-archive", "more than 1 GB", nat, of("plugins", size=2 * 1024**3)),
    ("plugins-archive", "the folder instead of its contents", nat, of("plugins", names=["plugins/acme.py"])),
    ("plugins-archive", "names that lead out", nat, of("plugins", names=["../etc/passwd"])),
    ("requirements-constraint", "no constraints", nat, fact("requirements", "pandas==2.2.3\n")),
    ("requirements-constraint", "in a comment", nat, fact("requirements", f"# --constraint {setups.CONSTRAINTS}\npandas\n")),
    ("requirements-constraint", "those of another Airflow", nat, fact("requirements", f"--constraint {setups.CONSTRAINTS.replace('2.11.2', '2.10.3')}\npandas\n")),
    ("requirements-constraint", "those of another Python", nat, fact("requirements", f"--constraint {setups.CONSTRAINTS.replace('3.12.txt', '3.11.txt')}\npandas\n")),
    ("requirements-constraint", "together with --no-index", endpoints, lambda s: s.facts.update(requirements=f"--no-index\n--constraint {setups.CONSTRAINTS}\npandas==2.2.3\n")),
    ("requirements-offline", "a package index that nobody reaches", endpoints, fact("requirements", f"--constraint {setups.CONSTRAINTS}\npandas\n")),
    ("requirements-offline", "a private web server", nat, wanted(webserver_access_mode="PRIVATE_ONLY")),
    ("requirements-offline", "--no-index without wheels", endpoints, of("plugins", names=["acme.py"])),
    ("requirements-lines", "a password in a URL", nat, fact("requirements", f"--constraint {setups.CONSTRAINTS}\n--extra-index-url https://me:CANARY@example.com/simple\npandas\n")),
    ("requirements-lines", "a file of the source's host", nat, fact("requirements", f"--constraint {setups.CONSTRAINTS}\n/opt/wheels/acme-1.0-py3-none-any.whl\n")),
    ("startup-script", "Windows line ends", nat, fact("startup_script", "#!/bin/sh\r\nexport A=1\r\n")),
    ("startup-script", "no #!", nat, fact("startup_script", "export A=1\n")),
    ("startup-script", "written in Python", nat, fact("startup_script", "#!/usr/bin/env python3\nprint(1)\n")),
    ("startup-script", "sets what MWAA sets anew", nat, fact("startup_script", "#!/bin/sh\nexport AIRFLOW_HOME=/opt\n")),
    # --- the key
    ("key-exists", "no such key", nat, both(fact("found_key", {}), fact("key", None), fact("key_policy", None))),
    ("key-exists", "a key elsewhere", nat, both(fact("found_key", {"Arn": KEY, "elsewhere": "us-east-1"}), fact("key", None), fact("key_policy", None))),
    ("key-state", "disabled", nat, of("key", KeyState="Disabled")),
    ("key-state", "about to be deleted", nat, of("key", KeyState="PendingDeletion")),
    ("key-spec", "an asymmetric key", nat, of("key", KeySpec="RSA_2048")),
    ("key-multi-region", "a multi-region key", nat, of("key", MultiRegion=True)),
    ("key-policy-logs", "not for CloudWatch Logs", nat, fact("key_policy", policy(setups.OWN))),
    ("key-policy-logs", "for log groups of something else", nat, fact("key_policy", policy(setups.OWN, {**setups.LOGS, "Condition": {"ArnLike": {"kms:EncryptionContext:aws:logs:arn": "arn:aws:logs:*:*:log-group:/aws/lambda/*"}}}))),
    ("key-policy-role", "neither for the account nor for the role", nat, fact("key_policy", policy(allow({"AWS": "arn:aws:iam::123456789012:user/admin"}, "kms:*"), setups.LOGS))),
    ("key-policy-condition", "for the old environment", nat, fact("key_policy", policy(setups.OWN, setups.LOGS, allow({"AWS": ROLE}, "kms:Decrypt", Condition={"ArnLike": {"aws:SourceArn": OLD}})))),
    ("key-grants", "MWAA's grants were revoked", existing, fact("key_grants", ["arn:aws:iam::123456789012:role/other"])),
    # --- the role
    ("role-account", "a role of another account", nat, both(wanted(execution_role_arn=ROLE.replace(setups.ACCOUNT, "210987654321")), fact("found_role", None), fact("role", None), fact("denied_to_role", None), fact("lists_buckets", None))),
    ("role-exists", "no such role", nat, both(fact("found_role", {}), fact("role", None), fact("denied_to_role", None), fact("lists_buckets", None))),
    ("role-exists", "the path is left out", nat, of("found_role", Arn=ROLE.replace("role/", "role/service-role/"))),
    ("role-trust", "airflow-env is not trusted", nat, of("role", AssumeRolePolicyDocument={"Statement": [{"Effect": "Allow", "Principal": {"Service": "airflow.amazonaws.com"}, "Action": "sts:AssumeRole"}]})),
    ("role-trust", "EC2 alone is trusted", nat, of("role", AssumeRolePolicyDocument={"Statement": [{"Effect": "Allow", "Principal": {"Service": "ec2.amazonaws.com"}, "Action": "sts:AssumeRole"}]})),
    ("role-trust-condition", "for the old environment", nat, trust(ArnLike={"aws:SourceArn": OLD})),
    ("role-trust-condition", "for another account", nat, trust(StringEquals={"aws:SourceAccount": "210987654321"})),
    ("role-trust-condition", "a denial to all accounts but another", nat, of("role", AssumeRolePolicyDocument={"Statement": [*setups.TRUST["Statement"], {"Effect": "Deny", "Principal": "*", "Action": "sts:AssumeRole", "Condition": {"StringNotEquals": {"aws:SourceAccount": "210987654321"}}}]})),
    ("key-policy-role", "the role is denied it", nat, fact("key_policy", policy(setups.OWN, setups.LOGS, deny({"AWS": ROLE}, "kms:Decrypt")))),
    ("bucket-policy", "everything is denied to all but the account's root", nat, fact("bucket_policy", policy({"Effect": "Deny", "NotPrincipal": {"AWS": f"arn:aws:iam::{setups.ACCOUNT}:root"}, "Action": "s3:*", "Resource": "*"}))),
    ("network-acl", "half of the answers are not let out", nat, acl(IN, setups.acl_entry(50, True, Protocol="6", PortRange={"From": 0, "To": 40000}), setups.acl_entry(60, True, "deny"))),
    ("role-permissions", "it may not write logs", nat, denied("denied_to_role", "logs:PutLogEvents")),
    ("role-permissions", "a boundary leaves SQS out", nat, denied("denied_to_role", "sqs:SendMessage", how="boundary")),
    ("role-lists-buckets", "it sees all buckets", nat, fact("lists_buckets", True)),
    # --- whoever creates it
    ("caller-environment", "may not create environments", nat, denied("denied_to_creator", "airflow:CreateEnvironment", rule="caller-environment")),
    ("caller-pass-role", "may not pass the role", nat, denied("denied_to_creator", "iam:PassRole", rule="caller-pass-role")),
    ("caller-network", "may not make endpoints", nat, denied("denied_to_creator", "ec2:CreateVpcEndpoint", rule="caller-network")),
    ("caller-key", "may not grant the key", nat, denied("denied_to_creator", "kms:CreateGrant", rule="caller-key")),
    ("caller-rest-api", "may not call the REST API", nat, denied("denied_to_creator", "airflow:InvokeRestApi", rule="caller-rest-api")),
    ("caller-service-linked-role", "it is not there, and may not be made", nat, both(fact("linked_role", False), denied("denied_to_creator", "iam:CreateServiceLinkedRole", rule="caller-service-linked-role"))),
    # --- logs
    ("log-group-key", "groups of an earlier environment with its key", nat, fact("log_groups", {"airflow-analytics-Task": {"kmsKeyId": KEY.replace("1111", "9999")}})),
    ("log-group-retention", "groups of an earlier environment that forget", nat, fact("log_groups", {"airflow-analytics-Task": {"retentionInDays": 7}})),
    ("log-groups", "none for the task logs", existing, fact("log_groups", {})),
    ("log-errors", "the scheduler wrote errors", existing, fact("failing_logs", {"airflow-analytics-Scheduler": {"scheduler_ip-10-0-1-7.log"}})),
]  # fmt: skip


def _no_bucket(s: Snapshot) -> None:
    names = ("versioning", "public_access", "bucket_key", "bucket_policy", "dag_keys", "airflowignore", "objects")
    s.facts.update(dict.fromkeys((*names, "requirements", "startup_script", "plugins")))


def ids(snapshot: Snapshot) -> list[str]:
    return [finding.id for finding in judge(snapshot).findings]


@pytest.mark.parametrize("sound", [nat, endpoints, existing], ids=lambda setup: setup.__name__)
def test_in_a_sound_set_up_no_rule_finds_anything(sound: Callable[[], Snapshot]) -> None:
    result = judge(sound())
    assert result.findings == []
    assert result.blocked == {}
    assert len(result.checked) > 70


@pytest.mark.parametrize(
    ("rule", "sound", "how"),
    [pytest.param(rule, sound, how, id=f"{rule}: {what}") for rule, what, sound, how in BROKEN],
)
def test_a_broken_set_up_is_found_by_one_rule_alone(rule: str, sound: Callable[[], Snapshot], how: Break) -> None:
    snapshot = sound()
    how(snapshot)
    findings = judge(snapshot).findings
    assert [finding.id for finding in findings] == [rule]
    assert all(findings[0].as_dict().values())  # who, what, why and how are said
    assert "CANARY" not in str(findings)


def test_every_rule_has_a_broken_set_up() -> None:
    assert {rule for rule, *_rest in BROKEN} == set(RULES)


def test_every_rule_says_what_it_looks_at_and_who_says_so() -> None:
    for one in in_order():
        assert one.about and one.source and one.why and one.severity in ("error", "warning", "info"), one.id


# --- what must not be found -------------------------------------------------------------------------------------------

HARMLESS: list[tuple[str, Callable[[], Snapshot], Break]] = [
    ("inbound 443 and 5432 from itself are enough", nat, inbound(tcp(443, UserIdGroupPairs=SELF), tcp(5432, UserIdGroupPairs=SELF))),
    ("or all from the VPC", nat, inbound({"IpProtocol": "-1", "IpRanges": FROM_INSIDE})),
    ("outbound 443 everywhere and 5432 to itself", nat, outbound(tcp(443, IpRanges=[{"CidrIp": "0.0.0.0/0"}]), tcp(5432, UserIdGroupPairs=SELF))),
    ("outbound to the VPC and S3's prefix list, where all else has endpoints", endpoints, outbound({"IpProtocol": "-1", "IpRanges": FROM_INSIDE}, tcp(443, PrefixListIds=[{"PrefixListId": "pl-1"}]))),
    ("an ACL that denies a port which MWAA does not use", nat, acl(setups.acl_entry(50, False, "deny", Protocol="6", PortRange={"From": 3389, "To": 3389}), IN, OUT)),
    ("a transit gateway as the way out", nat, of("route_tables", 0, Routes=[{"DestinationCidrBlock": "0.0.0.0/0", "TransitGatewayId": "tgw-1", "State": "active"}])),
    ("halves of a default route to a VPN", nat, of("route_tables", 0, Routes=[{"DestinationCidrBlock": half, "TransitGatewayId": "tgw-1", "State": "active"} for half in ("0.0.0.0/1", "128.0.0.0/1")])),
    ("a NAT gateway behind a firewall's endpoint", nat, of("route_tables", 1, Routes=[{"DestinationCidrBlock": "0.0.0.0/0", "GatewayId": "vpce-firewall", "State": "active"}])),
    ("a regional NAT gateway, which is in no subnet", nat, both(fact("nat_gateways", [{"NatGatewayId": "nat-1", "VpcId": VPC, "AvailabilityMode": "regional", "State": "available"}]), of("route_tables", 1, Associations=[{"Main": True}], Routes=[]))),
    ("the ACL that AWS recommends for private subnets", nat, acl(INSIDE_IN, setups.acl_entry(110, False, Protocol="6", PortRange={"From": 32768, "To": 65535}), INSIDE_OUT, setups.acl_entry(110, True, Protocol="6", PortRange={"From": 443, "To": 443}))),
    ("ACLs of each subnet that know the other one alone", endpoints, fact("network_acls", [{"NetworkAclId": f"acl-{mine}", "VpcId": VPC, "Associations": [{"SubnetId": mine}], "Entries": [setups.acl_entry(100, out, CidrBlock=other) for out in (True, False)]} for mine, other in ((A, "10.0.2.0/24"), ("subnet-b", "10.0.1.0/24"))])),
    ("endpoints for everything beside a NAT gateway, and no rule that leads there", nat, both(lambda s: s.facts.update(endpoints=[endpoint(name) for name in ENDPOINTS], endpoint_groups={GROUP: s.facts["groups"][0]}), outbound({"IpProtocol": "-1", "IpRanges": FROM_INSIDE}, tcp(443, PrefixListIds=[{"PrefixListId": "pl-1"}])))),
    ("an endpoint whose groups another account alone sees", nat, fact("endpoints", [endpoint("sqs", Groups=[{"GroupId": "sg-of-the-owner"}])])),
    ("S3's endpoint for the DAG folder alone", endpoints, endpoint_is("s3", PolicyDocument=policy(allow("*", "s3:*", [f"arn:aws:s3:::{BUCKET}", f"arn:aws:s3:::{BUCKET}/dags/*", f"arn:aws:s3:::prod-{REGION}-starport-layer-bucket/*"])))),
    ("S3 by an interface and a gateway", endpoints, lambda s: s.facts["endpoints"].append({**endpoint("sqs"), "ServiceName": f"com.amazonaws.{REGION}.s3", "PrivateDnsEnabled": False})),
    ("an endpoint policy that leaves out what MWAA does not do", endpoints, endpoint_is("sqs", PolicyDocument=policy(allow("*", "*"), deny("*", "sqs:DeleteQueue")))),
    ("an endpoint's denial under a condition", endpoints, endpoint_is("s3", PolicyDocument=policy(allow("*", "*"), deny("*", "*", Condition={"StringNotEquals": {"aws:PrincipalAccount": "123456789012"}})))),
    ("a shared VPC whose endpoints are the customer's", nat, both(of("subnets", 0, OwnerId="210987654321"), wanted(endpoint_management="CUSTOMER"))),
    ("inbound from halves of a subnet", nat, inbound({"IpProtocol": "-1", "IpRanges": [{"CidrIp": cidr} for cidr in ("10.0.1.0/24", "10.0.2.0/25", "10.0.2.128/25")]})),
    ("an ACL that allows a range in two parts", nat, acl(IN, *(setups.acl_entry(number, True, Protocol="6", PortRange={"From": first, "To": last}) for number, first, last in ((50, 0, 40000), (51, 40001, 65535))))),
    ("a trust that denies other accounts", nat, of("role", AssumeRolePolicyDocument={"Statement": [*setups.TRUST["Statement"], {"Effect": "Deny", "Principal": "*", "Action": "sts:AssumeRole", "Condition": {"StringNotEquals": {"aws:SourceAccount": setups.ACCOUNT}}}]})),
    ("a key that denies other accounts", nat, fact("key_policy", policy(setups.OWN, setups.LOGS, deny("*", "kms:*", Condition={"StringNotEquals": {"kms:CallerAccount": setups.ACCOUNT}})))),
    ("a trust for this environment", nat, trust(ArnLike={"aws:SourceArn": setups.ARN}, StringEquals={"aws:SourceAccount": setups.ACCOUNT})),
    ("a trust for all environments of the account", nat, trust(ArnLike={"aws:SourceArn": f"arn:aws:airflow:{REGION}:{setups.ACCOUNT}:environment/*"})),
    ("China's name of CloudWatch Logs", nat, fact("key_policy", policy(setups.OWN, {**setups.LOGS, "Principal": {"Service": f"logs.{REGION}.amazonaws.com.cn"}}))),
    ("a key that names the role itself", nat, fact("key_policy", policy(allow({"AWS": ROLE}, "kms:*"), setups.LOGS))),
    ("what the role's policies leave out and the key's allow", nat, both(denied("denied_to_role", "kms:Decrypt"), fact("key_policy", policy(allow({"AWS": ROLE}, "kms:*"), setups.LOGS, setups.OWN)))),
    ("a denial in the bucket's policy from which the role is excepted", nat, fact("bucket_policy", policy(deny("*", "s3:*", Condition={"StringNotLike": {"aws:PrincipalArn": f"{ROLE}*"}})))),
    ("a denial of old versions of TLS", nat, fact("bucket_policy", policy(deny("*", "s3:*", Condition={"NumericLessThan": {"s3:TlsVersion": "1.2"}})))),
    ("a denial to other accounts", nat, fact("bucket_policy", policy(deny("*", "s3:*", Condition={"StringNotEquals": {"aws:PrincipalAccount": [setups.ACCOUNT]}})))),
    ("a denial to whom is neither of the account nor AWS", nat, fact("bucket_policy", policy(deny("*", "s3:*", Condition={"StringNotEqualsIfExists": {"aws:PrincipalAccount": setups.ACCOUNT}, "BoolIfExists": {"aws:PrincipalIsAWSService": False}})))),
    ("a denial of what MWAA does not do", nat, fact("bucket_policy", policy(deny("*", "s3:DeleteObject")))),
    ("AWS's own key of S3", nat, both(wanted(kms_key=None), fact("found_key", None), fact("key", None), fact("key_policy", None), fact("bucket_key", "alias/aws/s3"))),
    ("the folder of git, ignored", nat, both(fact("dag_keys", ["etl.py", ".git/HEAD", ".airflowignore"]), fact("airflowignore", r"\.git/"))),
    ("a DAG folder that will be published", nat, lambda s: (s.facts.update(dag_keys=[]), setattr(s, "published", frozenset({""})))),
    ("requirements that will be published", nat, lambda s: (s.facts["objects"].update(requirements_s3_path=None), s.facts.update(requirements=None), setattr(s, "published", frozenset({"requirements.txt"})))),
    ("requirements without a package", nat, fact("requirements", "# nothing yet\n")),
    ("a backend that keeps aws_default out", nat, options(secrets__backend="airflow.providers.amazon.aws.secrets.secrets_manager.SecretsManagerBackend", secrets__backend_kwargs='{"connections_lookup_pattern": "^(?!aws_default$).*$"}')),
    ("an option of one's own section", nat, options(acme__mode="fast")),
    ("the service-linked role is there, who may make it does not matter", nat, denied("denied_to_creator", "iam:CreateServiceLinkedRole", rule="caller-service-linked-role")),
    ("from 2.11.2 to 3.2.1", existing, both(wanted(airflow_version="3.2.1"), fact("requirements", ""))),
    ("down from 2.11.2 to 2.10.3", existing, both(wanted(airflow_version="2.10.3"), fact("requirements", ""))),
    ("the account's root", nat, both(fact("creator", ""), fact("denied_to_creator", {}))),
    ("mw1.micro as it has to be", nat, wanted(environment_class="mw1.micro", schedulers=1, min_webservers=1, max_webservers=1, max_workers=1)),
    ("an environment with few addresses left that runs", existing, of("subnets", 0, AvailableIpAddressCount=2)),
]  # fmt: skip


@pytest.mark.parametrize(("sound", "how"), [pytest.param(sound, how, id=what) for what, sound, how in HARMLESS])
def test_what_looks_strange_and_works_is_no_finding(sound: Callable[[], Snapshot], how: Break) -> None:
    snapshot = sound()
    how(snapshot)
    assert ids(snapshot) == []


# a rule that knows that it does not know everything warns, and stops nobody
DOUBTFUL: list[tuple[str, str, Callable[[], Snapshot], Break]] = [
    ("endpoints-missing", "they may be in another VPC, behind a transit gateway", endpoints, both(fact("endpoints", [endpoint("s3")]), lambda s: s.facts["route_tables"][0]["Routes"].append({"DestinationCidrBlock": "10.0.0.0/8", "TransitGatewayId": "tgw-1", "State": "active"}))),
    ("endpoints-missing", "they are seen by the owner of a shared VPC alone", endpoints, both(of("subnets", 0, OwnerId="210987654321"), wanted(endpoint_management="CUSTOMER"), fact("endpoints", []))),
    ("vpc-dns", "no host names, as VPCs have it by default, and a way out", nat, of("vpc_dns", enableDnsHostnames=False)),
    ("bucket-exists", "who may not list it does not know whose it is", nat, fact("bucket", {"state": "denied", "region": REGION})),
    ("role-permissions", "IAM's simulation does not weigh the conditions of an organization", nat, denied("denied_to_role", "sqs:SendMessage", how="organization")),
    ("caller-network", "who calls from an address that the simulation does not know", nat, denied("denied_to_creator", "ec2:CreateVpcEndpoint", how="condition aws:SourceIp", rule="caller-network")),
    ("security-group-self", "a prefix list may hold the subnets", nat, inbound({"IpProtocol": "-1", "PrefixListIds": [{"PrefixListId": "pl-1"}]})),
    ("security-group-outbound", "a prefix list may hold the subnets", nat, outbound({"IpProtocol": "-1", "PrefixListIds": [{"PrefixListId": "pl-1"}]}, tcp(443, IpRanges=[{"CidrIp": "0.0.0.0/0"}]))),
    ("endpoint-security-group", "a prefix list may hold the subnets", nat, both(fact("endpoints", [endpoint("sqs", Groups=[{"GroupId": "sg-2"}])]), fact("endpoint_groups", {"sg-2": {"GroupId": "sg-2", "VpcId": VPC, "IpPermissions": [tcp(443, PrefixListIds=[{"PrefixListId": "pl-1"}])]}}))),
]  # fmt: skip


@pytest.mark.parametrize(
    ("rule", "sound", "how"),
    [pytest.param(rule, sound, how, id=f"{rule}: {what}") for rule, what, sound, how in DOUBTFUL],
)
def test_what_may_be_sound_beyond_what_is_seen_is_a_warning(
    rule: str, sound: Callable[[], Snapshot], how: Break
) -> None:
    snapshot = sound()
    how(snapshot)
    assert [(finding.id, finding.severity) for finding in judge(snapshot).findings] == [(rule, "warning")]


# --- what could not be looked at --------------------------------------------------------------------------------------


def test_a_denied_read_is_a_finding_that_names_the_action_and_what_it_hid() -> None:
    snapshot = nat()
    snapshot.facts["network_acls"] = Unread("ec2:DescribeNetworkAcls", "UnauthorizedOperation", True)
    result = judge(snapshot)
    (finding,) = result.findings
    assert (finding.id, finding.severity, finding.resource) == ("could-not-check", "warning", "ec2:DescribeNetworkAcls")
    assert "network-acl" in finding.what
    assert "allow the caller ec2:DescribeNetworkAcls" in finding.how
    assert "network-acl" not in result.checked
    assert result.summary["not_checked"] == 1
    assert result.summary["passed"] == len(result.checked)


def test_one_action_that_hides_many_things_is_one_finding() -> None:
    snapshot = nat()
    unread = Unread("ec2:DescribeSubnets", "UnauthorizedOperation", True)
    for name in ("found_subnets", "subnets", "vpc", "route_tables", "endpoints", "network_acls", "nat_gateways"):
        snapshot.facts[name] = unread
    result = judge(snapshot)
    assert ids(snapshot) == ["could-not-check"]
    assert {"subnet-zones", "route-to-internet-gateway", "network-acl"} <= set(result.blocked)


def test_findings_come_gravest_first_and_area_by_area() -> None:
    snapshot = nat()
    for change in (fact("lists_buckets", True), fact("dag_count", 999), fact("versioning", "Suspended"), inbound()):
        change(snapshot)
    found = [(finding.severity, finding.id) for finding in judge(snapshot).findings]
    assert found == [
        ("error", "security-group-self"),
        ("error", "bucket-versioning"),
        ("warning", "class-capacity"),
        ("info", "role-lists-buckets"),
    ]
