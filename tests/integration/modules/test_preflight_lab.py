# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# ruff: noqa: E501 - a line is a set-up
"""mwaa_preflight against emulated AWS: set-ups made by plain API calls, broken one way, looked at, and mended again."""

from __future__ import annotations

import contextlib
import io
import json
import time
import uuid
import xml.etree.ElementTree as ElementTree
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ansible_collections.mwaa.migration.plugins.module_utils._aws import Aws
from ansible_collections.mwaa.migration.plugins.module_utils._preflight import check
from ansible_collections.mwaa.migration.plugins.modules.mwaa_preflight import argument_spec

pytestmark = pytest.mark.lab

REGION, ACCOUNT = "us-east-1", "000000000000"
CONSTRAINTS = "https://raw.githubusercontent.com/apache/airflow/constraints-2.11.2/constraints-3.12.txt"
ANYWHERE = "0.0.0.0/0"
ALL = [{"IpProtocol": "-1", "IpRanges": [{"CidrIp": ANYWHERE}]}]
SERVICES = ("monitoring", "logs", "sqs", "kms", "airflow.api", "airflow.env", "airflow.ops")
SECRETS = "airflow.providers.amazon.aws.secrets.secrets_manager.SecretsManagerBackend"
SERVICE = "airflow.amazonaws.com"


def policy(*statements: dict[str, Any]) -> str:
    return json.dumps({"Version": "2012-10-17", "Statement": list(statements)})


def allow(action: Any, resource: Any = "*", **more: Any) -> dict[str, Any]:
    return {"Effect": "Allow", "Action": action, "Resource": resource, **more}


def deny(action: Any, resource: Any = "*", **more: Any) -> dict[str, Any]:
    return {**allow(action, resource, **more), "Effect": "Deny"}


def trust(*services: str, **more: Any) -> str:
    return policy({"Effect": "Allow", "Principal": {"Service": list(services)}, "Action": "sts:AssumeRole", **more})


BOTH = (SERVICE, "airflow-env.amazonaws.com")
KEY_POLICY = policy(
    allow("kms:*", Principal={"AWS": f"arn:aws:iam::{ACCOUNT}:root"}),
    allow(
        ["kms:Encrypt*", "kms:Decrypt*", "kms:ReEncrypt*", "kms:GenerateDataKey*", "kms:Describe*"],
        Principal={"Service": f"logs.{REGION}.amazonaws.com"},
        Condition={"ArnLike": {"kms:EncryptionContext:aws:logs:arn": f"arn:aws:logs:{REGION}:{ACCOUNT}:*"}},
    ),
)
TLS_ONLY = deny("s3:*", Principal="*", Condition={"Bool": {"aws:SecureTransport": "false"}})
EXECUTION = (
    allow("airflow:PublishMetrics", f"arn:aws:airflow:{REGION}:{ACCOUNT}:environment/pre-*"),
    deny("s3:ListAllMyBuckets"),
    allow(["s3:GetObject*", "s3:GetBucket*", "s3:List*"], ["arn:aws:s3:::pre-*", "arn:aws:s3:::pre-*/*"]),
    allow("logs:*", f"arn:aws:logs:{REGION}:{ACCOUNT}:log-group:airflow-pre-*"),
    allow(["logs:DescribeLogGroups", "s3:GetAccountPublicAccessBlock", "cloudwatch:PutMetricData"]),
    allow("sqs:*", f"arn:aws:sqs:{REGION}:*:airflow-celery-*"),
    allow(
        ["kms:Decrypt", "kms:DescribeKey", "kms:GenerateDataKey*", "kms:Encrypt"],
        Condition={"StringLike": {"kms:ViaService": [f"sqs.{REGION}.amazonaws.com", f"s3.{REGION}.amazonaws.com"]}},
    ),
)


def archive(*names: str) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as file:
        for name in names:
            file.writestr(name, "")
    return content.getvalue()


class Site:
    """A sound place for an environment: with a NAT gateway and a key, or with endpoints alone and AWS's key."""

    def __init__(self, lab: Any, nat: bool):
        self.lab, self.nat = lab, nat
        self.ec2, self.s3, self.iam, self.kms = (lab.client(name) for name in ("ec2", "s3", "iam", "kms"))
        self.name = f"pre-{uuid.uuid4().hex[:8]}"
        self.key: str | None = None
        self._network()
        self._bucket()
        self.iam.create_role(RoleName=self.name, AssumeRolePolicyDocument=trust(*BOTH))
        self.may(*EXECUTION)
        self.role = f"arn:aws:iam::{ACCOUNT}:role/{self.name}"

    def _network(self) -> None:
        ec2 = self.ec2
        self.vpc = ec2.create_vpc(CidrBlock="10.7.0.0/16")["Vpc"]["VpcId"]
        ec2.modify_vpc_attribute(VpcId=self.vpc, EnableDnsHostnames={"Value": True})
        self.subnets = [self.subnet(f"10.7.{number}.0/24", zone) for number, zone in ((1, "a"), (2, "b"))]
        self.table = ec2.create_route_table(VpcId=self.vpc)["RouteTable"]["RouteTableId"]
        for subnet in self.subnets:
            ec2.associate_route_table(RouteTableId=self.table, SubnetId=subnet)
        self.group = self.new_group("environment")
        itself = [{"IpProtocol": "-1", "UserIdGroupPairs": [{"GroupId": self.group}]}]
        ec2.authorize_security_group_ingress(GroupId=self.group, IpPermissions=itself)
        if self.nat:
            self.internet = ec2.create_internet_gateway()["InternetGateway"]["InternetGatewayId"]
            ec2.attach_internet_gateway(InternetGatewayId=self.internet, VpcId=self.vpc)
            self.public = self.subnet("10.7.9.0/24", "a")
            table = ec2.create_route_table(VpcId=self.vpc)["RouteTable"]["RouteTableId"]
            ec2.associate_route_table(RouteTableId=table, SubnetId=self.public)
            ec2.create_route(RouteTableId=table, DestinationCidrBlock=ANYWHERE, GatewayId=self.internet)
            self.gateway = self.new_nat(self.public)
            ec2.create_route(RouteTableId=self.table, DestinationCidrBlock=ANYWHERE, NatGatewayId=self.gateway)
        else:
            self.endpoints = {service: self.new_endpoint(service) for service in ("s3", *SERVICES)}

    def _bucket(self) -> None:
        self.bucket = self.new_bucket(self.name)
        if self.nat:
            self.key = self.kms.create_key(Policy=KEY_POLICY)["KeyMetadata"]["Arn"]
            self.encrypt(self.key)
        self.s3.put_bucket_policy(Bucket=self.bucket, Policy=policy(TLS_ONLY))
        self.put("dags/etl.py", b"import airflow\n")
        if self.nat:
            self.put("requirements.txt", f"--constraint {CONSTRAINTS}\npandas\n".encode())
            self.put("plugins.zip", archive("acme_plugin.py"))
        else:
            self.put("requirements.txt", b"--find-links /usr/local/airflow/plugins\n--no-index\nacme==1.0\n")
            self.put("plugins.zip", archive("acme-1.0-py3-none-any.whl"))
        self.put("startup.sh", b"#!/bin/sh\nexport STAGE=prod\n")

    # --- what tests make more of

    def subnet(self, cidr: str, zone: str) -> str:
        made = self.ec2.create_subnet(VpcId=self.vpc, CidrBlock=cidr, AvailabilityZone=f"{REGION}{zone}")
        return str(made["Subnet"]["SubnetId"])

    def new_group(self, name: str) -> str:
        made = self.ec2.create_security_group(GroupName=f"{self.name}-{name}", Description="lab", VpcId=self.vpc)
        return str(made["GroupId"])

    def new_nat(self, subnet: str) -> str:
        address = self.ec2.allocate_address(Domain="vpc")["AllocationId"]
        made = self.ec2.create_nat_gateway(SubnetId=subnet, AllocationId=address)["NatGateway"]["NatGatewayId"]
        while self.ec2.describe_nat_gateways(NatGatewayIds=[made])["NatGateways"][0]["State"] == "pending":
            time.sleep(0.05)
        return str(made)

    def new_endpoint(self, service: str) -> str:
        kind: dict[str, Any] = {"VpcEndpointType": "Gateway", "RouteTableIds": [self.table]}
        if service != "s3":
            kind = {"VpcEndpointType": "Interface", "SubnetIds": self.subnets, "SecurityGroupIds": [self.group]}
            kind["PrivateDnsEnabled"] = True
        made = self.ec2.create_vpc_endpoint(VpcId=self.vpc, ServiceName=f"com.amazonaws.{REGION}.{service}", **kind)
        return str(made["VpcEndpoint"]["VpcEndpointId"])

    def new_bucket(self, name: str, region: str = REGION) -> str:
        s3 = self.lab.client("s3", region=region)
        where = {} if region == REGION else {"CreateBucketConfiguration": {"LocationConstraint": region}}
        s3.create_bucket(Bucket=name, **where)
        self.version(name, "Enabled")
        s3.put_public_access_block(Bucket=name, PublicAccessBlockConfiguration=blocked())
        return name

    def version(self, bucket: str, status: str) -> None:
        self.s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": status})

    def encrypt(self, key: str) -> None:
        default = {"SSEAlgorithm": "aws:kms", "KMSMasterKeyID": key}
        rules = {"Rules": [{"ApplyServerSideEncryptionByDefault": default}]}
        self.s3.put_bucket_encryption(Bucket=self.bucket, ServerSideEncryptionConfiguration=rules)

    def put(self, key: str, content: bytes) -> None:
        self.s3.put_object(Bucket=self.bucket, Key=key, Body=content)

    def may(self, *statements: dict[str, Any]) -> None:
        """What the execution role may."""
        self.iam.put_role_policy(RoleName=self.name, PolicyName="execution", PolicyDocument=policy(*statements))

    def trusts(self, document: str) -> None:
        self.iam.update_assume_role_policy(RoleName=self.name, PolicyDocument=document)

    def endpoint(self, service: str, **changes: Any) -> None:
        self.ec2.modify_vpc_endpoint(VpcEndpointId=self.endpoints[service], **changes)

    @property
    def options(self) -> dict[str, Any]:
        """Of mwaa_preflight, for a sound environment."""
        return {
            "name": self.name,
            "airflow_version": "2.11.2",
            "environment_class": "mw1.small",
            "source_bucket": self.bucket,
            "dag_s3_path": "dags",
            "requirements_s3_path": "requirements.txt",
            "plugins_s3_path": "plugins.zip",
            "startup_script_s3_path": "startup.sh",
            "execution_role_arn": self.role,
            "subnet_ids": list(self.subnets),
            "security_group_ids": [self.group],
            "kms_key": self.key,
            "webserver_access_mode": "PUBLIC_ONLY" if self.nat else "PRIVATE_ONLY",
        }

    def environment(self) -> str:
        """An environment of it that is AVAILABLE; its name."""
        mwaa = self.lab.client("mwaa")
        mwaa.create_environment(
            Name=self.name,
            AirflowVersion="2.11.2",
            SourceBucketArn=f"arn:aws:s3:::{self.bucket}",
            DagS3Path="dags",
            RequirementsS3Path="requirements.txt",
            RequirementsS3ObjectVersion=self.s3.head_object(Bucket=self.bucket, Key="requirements.txt")["VersionId"],
            ExecutionRoleArn=self.role,
            NetworkConfiguration={"SubnetIds": self.subnets, "SecurityGroupIds": [self.group]},
            KmsKey=self.key,
            WebserverAccessMode="PUBLIC_ONLY",
        )
        while mwaa.get_environment(Name=self.name)["Environment"]["Status"] != "AVAILABLE":
            time.sleep(0.05)
        self.grant()
        return self.name

    def grant(self) -> str:
        made = self.kms.create_grant(
            KeyId=self.key, GranteePrincipal=f"airflow.{REGION}.amazonaws.com", Operations=["Decrypt"]
        )
        return str(made["GrantId"])


def blocked(**changes: bool) -> dict[str, bool]:
    switches = ("BlockPublicAcls", "IgnorePublicAcls", "BlockPublicPolicy", "RestrictPublicBuckets")
    return {**dict.fromkeys(switches, True), **changes}


@pytest.fixture(scope="module")
def nat(lab: Any) -> Site:
    return Site(lab, nat=True)


@pytest.fixture(scope="module")
def private(lab: Any) -> Site:
    return Site(lab, nat=False)


@pytest.fixture(scope="module")
def live(lab: Any) -> Site:
    site = Site(lab, nat=True)
    site.environment()
    return site


@pytest.fixture(scope="module")
def deployer(lab: Any) -> tuple[str, str, str]:
    """A user who may what the user guide says: name and key."""
    iam, name = lab.client("iam"), f"deployer-{uuid.uuid4().hex[:8]}"
    iam.create_user(UserName=name)
    iam.put_user_policy(UserName=name, PolicyName="all", PolicyDocument=policy(allow("*")))
    key = iam.create_access_key(UserName=name)["AccessKey"]
    return name, key["AccessKeyId"], key["SecretAccessKey"]


class Look:
    """mwaa_preflight's body with clients that are kept from one look to the next."""

    def __init__(self, lab: Any):
        self.lab, self._aws = lab, {}

    def __call__(
        self, key: str = ACCOUNT, secret: str = "lab", check_mode: bool = False, **options: Any
    ) -> dict[str, Any]:
        if key not in self._aws:
            access = {"region": REGION, "access_key": key, "secret_key": secret, "endpoint_url": self.lab.endpoint}
            self._aws[key] = Aws.for_plugin(access)
        params = {name: spec.get("default") for name, spec in argument_spec().items()}
        params.update(fail_on="never", **options)
        warnings: list[str] = []
        ctx = SimpleNamespace(params=params, aws=self._aws[key], check_mode=check_mode, warn=warnings.append)
        return check.run(ctx)

    def ids(self, **options: Any) -> list[str]:
        return [finding["id"] for finding in self(**options)["findings"]]


@pytest.fixture(scope="module")
def look(lab: Any) -> Look:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in lab.environment.items():
            if name.startswith("AWS_"):
                patch.setenv(name, value)
        yield Look(lab)


# --- broken set-ups ---------------------------------------------------------------------------------------------------

Broken = Callable[[Site, dict[str, Any]], Iterator[None]]
BROKEN: list[Any] = []


def broken(rule: str, site: str = "nat") -> Callable[[Broken], Broken]:
    """A way to break a site, or what is asked for, which this rule finds; after its yield it mends what it broke."""

    def declare(how: Broken) -> Broken:
        BROKEN.append(pytest.param(rule, site, contextlib.contextmanager(how), id=f"{rule}: {how.__name__}"))
        return how

    return declare


def asked(rule: str, what: str, site: str = "nat", **options: Any) -> None:
    """The same, by what is asked for alone."""

    def how(_site: Site, given: dict[str, Any]) -> Iterator[None]:
        given.update(options)
        yield

    how.__name__ = what
    broken(rule, site)(how)


asked("setting-refused", "more workers at least than at most", min_workers=5, max_workers=2)
asked("setting-refused", "PUBLIC_AND_PRIVATE below 3.2", webserver_access_mode="PUBLIC_AND_PRIVATE")
asked("class-counts", "one scheduler", schedulers=1)
asked("class-capacity", "300 DAGs in mw1.small", dag_count=300)
asked("quota-workers", "more workers than the quota", max_workers=26)
asked("version-ended", "a version that AWS ended", airflow_version="2.6.3", requirements_s3_path=None)
asked("version-offered", "a version that never was", airflow_version="2.10.2", requirements_s3_path=None)
asked("requirements-constraint", "the constraints of another Airflow", airflow_version="2.10.3")
asked("option-refused", "an umlaut", airflow_configuration_options={"webserver.instance_name": "Bücher"})
asked("option-ignored", "an executor of one's own", airflow_configuration_options={"core.executor": "LocalExecutor"})
asked("option-renamed", "an old name", airflow_configuration_options={"core.dag_concurrency": "16"})
asked(
    "secrets-backend",
    "arguments that are no JSON",
    airflow_configuration_options={"secrets.backend": SECRETS, "secrets.backend_kwargs": "{'a'}"},
)
asked("subnet-exists", "a subnet that is not there", subnet_ids=["subnet-0a", "subnet-0b"])
asked("security-group-exists", "a group that is not there", security_group_ids=["sg-0a"])
asked("bucket-exists", "a bucket that is not there", source_bucket="pre-nowhere")
asked("object-missing", "a path without an object", plugins_s3_path="plugins-2.zip")
asked("dag-folder", "an empty folder", dag_s3_path="empty")
asked("access-mode-internet", "Airflow 3 with a web server outside", "private", airflow_version="3.2.1", webserver_access_mode="PUBLIC_ONLY")  # fmt: skip


@broken("subnet-zones")
def both_in_one_zone(site: Site, given: dict[str, Any]) -> Iterator[None]:
    given["subnet_ids"][1] = site.subnet("10.7.3.0/24", "a")
    site.ec2.associate_route_table(RouteTableId=site.table, SubnetId=given["subnet_ids"][1])
    yield
    site.ec2.delete_subnet(SubnetId=given["subnet_ids"][1])


@broken("subnet-addresses")
def a_subnet_that_is_too_small(site: Site, given: dict[str, Any]) -> Iterator[None]:
    given.update(max_workers=25)
    given["subnet_ids"][1] = site.subnet("10.7.4.0/28", "b")
    site.ec2.associate_route_table(RouteTableId=site.table, SubnetId=given["subnet_ids"][1])
    yield
    site.ec2.delete_subnet(SubnetId=given["subnet_ids"][1])


@broken("vpc-dns")
def no_host_names(site: Site, given: dict[str, Any]) -> Iterator[None]:
    site.ec2.modify_vpc_attribute(VpcId=site.vpc, EnableDnsHostnames={"Value": False})
    yield
    site.ec2.modify_vpc_attribute(VpcId=site.vpc, EnableDnsHostnames={"Value": True})


@broken("route-to-internet-gateway")
def public_subnets(site: Site, given: dict[str, Any]) -> Iterator[None]:
    default = {"RouteTableId": site.table, "DestinationCidrBlock": ANYWHERE}
    site.ec2.replace_route(**default, GatewayId=site.internet)
    yield
    site.ec2.replace_route(**default, NatGatewayId=site.gateway)


@broken("nat-gateway-subnet")
def a_nat_gateway_in_a_private_subnet(site: Site, given: dict[str, Any]) -> Iterator[None]:
    default = {"RouteTableId": site.table, "DestinationCidrBlock": ANYWHERE}
    site.ec2.replace_route(**default, NatGatewayId=site.new_nat(site.subnets[0]))
    yield
    site.ec2.replace_route(**default, NatGatewayId=site.gateway)


@broken("security-group-self")
def a_group_that_keeps_itself_out(site: Site, given: dict[str, Any]) -> Iterator[None]:
    itself = [{"IpProtocol": "-1", "UserIdGroupPairs": [{"GroupId": site.group}]}]
    site.ec2.revoke_security_group_ingress(GroupId=site.group, IpPermissions=itself)
    yield
    site.ec2.authorize_security_group_ingress(GroupId=site.group, IpPermissions=itself)


@broken("security-group-outbound")
def a_group_that_lets_nothing_out(site: Site, given: dict[str, Any]) -> Iterator[None]:
    site.ec2.revoke_security_group_egress(GroupId=site.group, IpPermissions=ALL)
    yield
    site.ec2.authorize_security_group_egress(GroupId=site.group, IpPermissions=ALL)


@broken("network-acl")
def an_acl_before_the_database(site: Site, given: dict[str, Any]) -> Iterator[None]:
    (acl,) = site.ec2.describe_network_acls(Filters=[{"Name": "vpc-id", "Values": [site.vpc]}])["NetworkAcls"]
    entry = {"NetworkAclId": acl["NetworkAclId"], "RuleNumber": 50, "Egress": True}
    site.ec2.create_network_acl_entry(
        **entry, CidrBlock=ANYWHERE, Protocol="6", RuleAction="deny", PortRange={"From": 5432, "To": 5432}
    )
    yield
    site.ec2.delete_network_acl_entry(**entry)


@broken("endpoints-missing", "private")
def no_endpoint_for_the_queue(site: Site, given: dict[str, Any]) -> Iterator[None]:
    site.ec2.delete_vpc_endpoints(VpcEndpointIds=[site.endpoints["sqs"]])
    yield
    site.endpoints["sqs"] = site.new_endpoint("sqs")


@broken("endpoint-private-dns", "private")
def private_dns_off(site: Site, given: dict[str, Any]) -> Iterator[None]:
    site.endpoint("logs", PrivateDnsEnabled=False)
    yield
    site.endpoint("logs", PrivateDnsEnabled=True)


@broken("endpoint-subnets", "private")
def an_endpoint_in_one_zone(site: Site, given: dict[str, Any]) -> Iterator[None]:
    site.endpoint("kms", RemoveSubnetIds=[site.subnets[1]])
    yield
    site.endpoint("kms", AddSubnetIds=[site.subnets[1]])


@broken("endpoint-routes", "private")
def s3_in_no_route_table(site: Site, given: dict[str, Any]) -> Iterator[None]:
    site.endpoint("s3", RemoveRouteTableIds=[site.table])
    yield
    site.endpoint("s3", AddRouteTableIds=[site.table])


@broken("endpoint-security-group", "private")
def an_endpoint_behind_a_closed_group(site: Site, given: dict[str, Any]) -> Iterator[None]:
    closed = site.new_group("closed")
    site.endpoint("sqs", AddSecurityGroupIds=[closed], RemoveSecurityGroupIds=[site.group])
    yield
    site.endpoint("sqs", AddSecurityGroupIds=[site.group], RemoveSecurityGroupIds=[closed])


@broken("endpoint-policy", "private")
def s3_without_the_layers_of_the_images(site: Site, given: dict[str, Any]) -> Iterator[None]:
    own = [f"arn:aws:s3:::{site.bucket}", f"arn:aws:s3:::{site.bucket}/*"]
    site.endpoint("s3", PolicyDocument=policy(allow("s3:*", own, Principal="*")))
    yield
    site.endpoint("s3", PolicyDocument=policy(allow("*", Principal="*")))


@broken("bucket-region")
def a_bucket_elsewhere(site: Site, given: dict[str, Any]) -> Iterator[None]:
    given["source_bucket"] = site.new_bucket(f"pre-{uuid.uuid4().hex[:8]}", "eu-west-1")
    yield


@broken("bucket-versioning")
def versioning_suspended(site: Site, given: dict[str, Any]) -> Iterator[None]:
    site.version(site.bucket, "Suspended")
    yield
    site.version(site.bucket, "Enabled")


@broken("bucket-public-access")
def a_bucket_that_could_become_public(site: Site, given: dict[str, Any]) -> Iterator[None]:
    site.s3.put_public_access_block(Bucket=site.bucket, PublicAccessBlockConfiguration=blocked(BlockPublicPolicy=False))
    yield
    site.s3.put_public_access_block(Bucket=site.bucket, PublicAccessBlockConfiguration=blocked())


@broken("bucket-key")
def a_bucket_with_another_key(site: Site, given: dict[str, Any]) -> Iterator[None]:
    site.encrypt(site.kms.create_key()["KeyMetadata"]["Arn"])
    yield
    assert site.key
    site.encrypt(site.key)


@broken("bucket-policy")
def a_bucket_for_administrators(site: Site, given: dict[str, Any]) -> Iterator[None]:
    others = {"ArnNotLike": {"aws:PrincipalArn": f"arn:aws:iam::{ACCOUNT}:role/admin"}}
    shut = deny("s3:GetObject*", f"arn:aws:s3:::{site.bucket}/*", Principal="*", Condition=others)
    site.s3.put_bucket_policy(Bucket=site.bucket, Policy=policy(TLS_ONLY, shut))
    yield
    site.s3.put_bucket_policy(Bucket=site.bucket, Policy=policy(TLS_ONLY))


@broken("object-version")
def an_object_from_before_versioning(site: Site, given: dict[str, Any]) -> Iterator[None]:
    site.version(site.bucket, "Suspended")
    site.put("startup.sh", b"#!/bin/sh\n")
    site.version(site.bucket, "Enabled")
    yield
    site.put("startup.sh", b"#!/bin/sh\n")


def _object(rule: str, what: str, key: str, content: bytes, site: str = "nat") -> None:
    def how(place: Site, given: dict[str, Any]) -> Iterator[None]:
        before = place.s3.get_object(Bucket=place.bucket, Key=key)["Body"].read()
        place.put(key, content)
        yield
        place.put(key, before)

    how.__name__ = what
    broken(rule, site)(how)


_object("plugins-archive", "no archive", "plugins.zip", b"these are no plugins")
_object("plugins-archive", "the folder, not its contents", "plugins.zip", archive("plugins/acme.py"))
_object("requirements-constraint", "no constraints", "requirements.txt", b"pandas==2.2.3\n")
_object("requirements-constraint", "in a comment", "requirements.txt", b"# --constraint c.txt\npandas\n")
_object("requirements-offline", "an index that nobody reaches", "requirements.txt", f"--constraint {CONSTRAINTS}\nacme\n".encode(), "private")  # fmt: skip
_object("startup-script", "Windows line ends", "startup.sh", b"#!/bin/sh\r\necho\r\n")


@broken("dag-folder-noise")
def the_folder_of_git(site: Site, given: dict[str, Any]) -> Iterator[None]:
    site.put("dags/.git/HEAD", b"ref: refs/heads/main\n")
    yield
    site.s3.delete_object(Bucket=site.bucket, Key="dags/.git/HEAD")


@broken("key-exists", "private")
def a_key_that_is_not_there(site: Site, given: dict[str, Any]) -> Iterator[None]:
    given["kms_key"] = str(uuid.uuid4())
    yield


@broken("key-state")
def a_key_that_is_off(site: Site, given: dict[str, Any]) -> Iterator[None]:
    site.kms.disable_key(KeyId=site.key)
    yield
    site.kms.enable_key(KeyId=site.key)


@broken("key-spec", "private")
def an_asymmetric_key(site: Site, given: dict[str, Any]) -> Iterator[None]:
    made = site.kms.create_key(Policy=KEY_POLICY, KeySpec="RSA_2048", KeyUsage="ENCRYPT_DECRYPT")
    given["kms_key"] = made["KeyMetadata"]["Arn"]
    yield


@broken("key-policy-logs")
def a_key_that_logs_may_not_use(site: Site, given: dict[str, Any]) -> Iterator[None]:
    mine = policy(allow("kms:*", Principal={"AWS": f"arn:aws:iam::{ACCOUNT}:root"}))
    site.kms.put_key_policy(KeyId=site.key, PolicyName="default", Policy=mine)
    yield
    site.kms.put_key_policy(KeyId=site.key, PolicyName="default", Policy=KEY_POLICY)


@broken("role-exists")
def a_role_that_is_not_there(site: Site, given: dict[str, Any]) -> Iterator[None]:
    given["execution_role_arn"] = f"arn:aws:iam::{ACCOUNT}:role/nobody"
    yield


@broken("role-trust")
def a_role_for_ec2(site: Site, given: dict[str, Any]) -> Iterator[None]:
    site.trusts(trust("ec2.amazonaws.com", SERVICE))
    yield
    site.trusts(trust(*BOTH))


@broken("role-trust-condition")
def a_role_for_the_old_environment(site: Site, given: dict[str, Any]) -> Iterator[None]:
    old = {"ArnLike": {"aws:SourceArn": f"arn:aws:airflow:{REGION}:{ACCOUNT}:environment/old"}}
    site.trusts(trust(*BOTH, Condition=old))
    yield
    site.trusts(trust(*BOTH))


@broken("role-permissions")
def a_role_that_writes_no_logs(site: Site, given: dict[str, Any]) -> Iterator[None]:
    site.may(*(one for one in EXECUTION if one["Action"] != "logs:*"))
    yield
    site.may(*EXECUTION)


@broken("role-permissions")
def a_boundary_without_the_queue(site: Site, given: dict[str, Any]) -> Iterator[None]:
    name = f"boundary-{uuid.uuid4().hex[:8]}"
    made = site.iam.create_policy(PolicyName=name, PolicyDocument=policy(allow(["s3:*", "logs:*", "kms:*", "airflow:*", "cloudwatch:*"])))  # fmt: skip
    site.iam.put_role_permissions_boundary(RoleName=site.name, PermissionsBoundary=made["Policy"]["Arn"])
    yield
    site.iam.delete_role_permissions_boundary(RoleName=site.name)


@broken("role-lists-buckets")
def a_role_that_sees_all_buckets(site: Site, given: dict[str, Any]) -> Iterator[None]:
    site.may(*(one for one in EXECUTION if one["Effect"] == "Allow"), allow("s3:ListAllMyBuckets"))
    yield
    site.may(*EXECUTION)


@broken("log-group-retention")
def log_groups_from_before(site: Site, given: dict[str, Any]) -> Iterator[None]:
    logs, group = site.lab.client("logs"), f"airflow-{site.name}-Task"
    logs.create_log_group(logGroupName=group)
    logs.put_retention_policy(logGroupName=group, retentionInDays=7)
    yield
    logs.delete_log_group(logGroupName=group)


@broken("log-group-key")
def log_groups_with_another_key(site: Site, given: dict[str, Any]) -> Iterator[None]:
    logs, group = site.lab.client("logs"), f"airflow-{site.name}-Task"
    logs.create_log_group(logGroupName=group, kmsKeyId=site.kms.create_key()["KeyMetadata"]["Arn"])
    yield
    logs.delete_log_group(logGroupName=group)


@pytest.mark.parametrize("place", ["nat", "private"])
def test_a_sound_set_up_has_no_finding(look: Look, place: str, request: pytest.FixtureRequest) -> None:
    site = request.getfixturevalue(place)
    found = look(**site.options)
    assert found["findings"] == []
    assert found["not_checked"] == []
    assert len(found["checked"]) > 60


@pytest.mark.parametrize(("rule", "place", "how"), BROKEN)
def test_a_broken_set_up_is_found_by_one_rule_alone(
    look: Look, rule: str, place: str, how: Any, request: pytest.FixtureRequest
) -> None:
    site = request.getfixturevalue(place)
    given = site.options
    with how(site, given):
        found = look(**given)
    assert [finding["id"] for finding in found["findings"]] == [rule], found["findings"]


def test_there_are_thirty_broken_set_ups_at_least() -> None:
    assert len(BROKEN) > 50


# --- an environment that exists ---------------------------------------------------------------------------------------


def test_an_environment_is_looked_at_by_its_name_alone(look: Look, live: Site) -> None:
    found = look(name=live.name)
    assert found["exists"] and found["findings"] == []
    assert {"key-grants", "log-groups", "environment-status", "environment-health", "subnet-zones"} <= set(
        found["checked"]
    )


def test_what_it_is_going_to_be_is_held_against_what_it_is(look: Look, live: Site, nat: Site) -> None:
    assert look.ids(name=live.name, subnet_ids=nat.subnets, security_group_ids=[nat.group]) == ["setting-fixed"]
    assert look.ids(name=live.name, airflow_version="1.10.12", requirements_s3_path="none") != []
    assert look.ids(name=live.name, dag_count=51) == ["class-capacity"]


def test_a_newer_object_that_the_environment_does_not_use(look: Look, live: Site) -> None:
    live.put("requirements.txt", f"--constraint {CONSTRAINTS}\npandas\nrequests\n".encode())
    assert look.ids(name=live.name) == ["object-outdated"]
    live.lab.client("mwaa").update_environment(
        Name=live.name,
        RequirementsS3Path="requirements.txt",
        RequirementsS3ObjectVersion=live.s3.head_object(Bucket=live.bucket, Key="requirements.txt")["VersionId"],
    )
    while live.lab.client("mwaa").get_environment(Name=live.name)["Environment"]["Status"] != "AVAILABLE":
        time.sleep(0.05)
    assert look.ids(name=live.name) == []


def test_grants_that_somebody_revoked(look: Look, live: Site) -> None:
    for grant in live.kms.list_grants(KeyId=live.key)["Grants"]:
        live.kms.revoke_grant(KeyId=live.key, GrantId=grant["GrantId"])
    assert look.ids(name=live.name) == ["key-grants"]
    live.grant()


def test_log_groups_that_are_not_there(look: Look, live: Site) -> None:
    logs, group = live.lab.client("logs"), f"airflow-{live.name}-Task"
    logs.delete_log_group(logGroupName=group)
    assert look.ids(name=live.name) == ["log-groups"]
    logs.create_log_group(logGroupName=group)


def test_errors_of_the_last_hour_are_counted_and_not_repeated(look: Look, live: Site) -> None:
    logs, group = live.lab.client("logs"), f"airflow-{live.name}-Scheduler"
    logs.create_log_group(logGroupName=group)
    logs.create_log_stream(logGroupName=group, logStreamName="scheduler.log")
    event = {"timestamp": int(time.time() * 1000), "message": "ERROR password CANARY-log-0a0b0c0d is wrong"}
    logs.put_log_events(logGroupName=group, logStreamName="scheduler.log", logEvents=[event])
    found = look(name=live.name)
    assert [finding["id"] for finding in found["findings"]] == ["log-errors"]
    assert "CANARY" not in json.dumps(found)
    logs.delete_log_group(logGroupName=group)


def test_an_environment_that_is_busy(look: Look, live: Site) -> None:
    live.lab.admin("POST", f"environments/{live.name}/hold", {"seconds": 2})
    assert look.ids(name=live.name) == ["environment-status"]


# --- who looks --------------------------------------------------------------------------------------------------------

TAKEN_AWAY = {
    "airflow:CreateEnvironment": "caller-environment",
    "iam:PassRole": "caller-pass-role",
    "ec2:CreateVpcEndpoint": "caller-network",
    "kms:CreateGrant": "caller-key",
    "airflow:InvokeRestApi": "caller-rest-api",
    "iam:CreateServiceLinkedRole": "caller-service-linked-role",
}


@pytest.mark.parametrize(("action", "rule"), TAKEN_AWAY.items())
def test_what_the_caller_may_not_is_named(look: Look, nat: Site, deployer: Any, action: str, rule: str) -> None:
    user, key, secret = deployer
    if rule == "caller-service-linked-role":  # made with the lab's first environment
        with contextlib.suppress(nat.iam.exceptions.NoSuchEntityException):
            nat.iam.delete_role(RoleName="AWSServiceRoleForAmazonMWAA")
    nat.iam.put_user_policy(UserName=user, PolicyName="less", PolicyDocument=policy(deny(action)))
    try:
        (finding,) = look(key=key, secret=secret, **nat.options)["findings"]
    finally:
        nat.iam.delete_user_policy(UserName=user, PolicyName="less")
    assert finding["id"] == rule
    assert action in finding["what"] and user in finding["resource"]


def test_the_role_that_cloudformation_takes_is_looked_at_in_the_callers_place(look: Look, nat: Site) -> None:
    name = f"cfn-{uuid.uuid4().hex[:8]}"
    nat.iam.create_role(RoleName=name, AssumeRolePolicyDocument=trust("cloudformation.amazonaws.com"))
    arn = f"arn:aws:iam::{ACCOUNT}:role/{name}"
    nat.iam.put_role_policy(RoleName=name, PolicyName="all", PolicyDocument=policy(allow("*"), deny("iam:PassRole")))
    (finding,) = look(**nat.options, cloudformation_role_arn=arn)["findings"]
    assert (finding["id"], finding["resource"]) == ("caller-pass-role", arn)


DENIED = {
    "ec2:DescribeNetworkAcls": ("ec2", "DescribeNetworkAcls", "UnauthorizedOperation", {"network-acl"}),
    "ec2:DescribeRouteTables": ("ec2", "DescribeRouteTables", "UnauthorizedOperation", {"route-to-internet-gateway"}),
    "s3:GetBucketPolicy": ("s3", "GetBucketPolicy", "AccessDenied", {"bucket-policy"}),
    "s3:GetEncryptionConfiguration": ("s3", "GetBucketEncryption", "AccessDenied", {"bucket-key"}),
    "kms:GetKeyPolicy": ("kms", "GetKeyPolicy", "AccessDeniedException", {"key-policy-logs", "key-policy-role"}),
    "iam:GetRole": ("iam", "GetRole", "AccessDenied", {"role-exists", "role-trust", "role-permissions"}),
    "iam:SimulatePrincipalPolicy": ("iam", "SimulatePrincipalPolicy", "AccessDenied", {"role-permissions"}),
    "servicequotas:ListServiceQuotas": ("servicequotas", "ListServiceQuotas", "AccessDeniedException", {"quota-workers"}),
    "logs:DescribeLogGroups": ("logs", "DescribeLogGroups", "AccessDeniedException", {"log-group-key"}),
    "airflow:GetEnvironment": ("mwaa", "GetEnvironment", "AccessDeniedException", {"environment-status"}),
}  # fmt: skip


@pytest.mark.parametrize("action", DENIED)
def test_what_may_not_be_read_is_a_finding_and_no_pass(look: Look, nat: Site, action: str) -> None:
    service, operation, code, rules = DENIED[action]
    nat.lab.admin("POST", "faults", [{"service": service, "operation": operation, "times": None, "error": code, "status": 403}])  # fmt: skip
    found = look(**nat.options)
    (finding,) = found["findings"]
    assert (finding["id"], finding["resource"]) == ("could-not-check", action)
    assert action in finding["how"]
    assert rules <= {one["id"] for one in found["not_checked"]}
    assert not rules & set(found["checked"])


def test_nothing_is_written(look: Look, lab: Any, nat: Site, live: Site) -> None:
    start = time.time()
    look(**nat.options)
    look(name=live.name)
    seen = lab.journal(start)
    assert seen and all(line["access"] == "read" for line in seen)


# --- the module, its files, the page ----------------------------------------------------------------------------------


def test_the_task_fails_by_severity_and_files_are_written_before(run_module: Any, nat: Site, tmp_path: Path) -> None:
    files = {"json_path": str(tmp_path / "a/preflight.json"), "junit_path": str(tmp_path / "preflight.xml")}
    options = {**nat.options, "dag_count": 300, **files}
    said = run_module("mwaa_preflight", **options)
    assert not said.get("failed") and said["summary"]["warnings"] == 1 and said["changed"] is False
    said = run_module("mwaa_preflight", **options, fail_on="warning")
    assert said["failed"] and "1 warning" in said["msg"] and files["json_path"] in said["msg"]
    document = json.loads(Path(files["json_path"]).read_text())
    assert [finding["id"] for finding in document["findings"]] == ["class-capacity"]
    assert {"checked", "not_checked", "summary", "environment", "region", "account"} <= set(document)
    suite = ElementTree.parse(files["junit_path"]).getroot().find("testsuite")
    assert suite is not None and suite.get("failures") == "1" and suite.get("errors") == "0"
    assert len(suite) == int(suite.get("tests", 0)) > 70


def test_check_mode_writes_no_file(run_module: Any, nat: Site, tmp_path: Path) -> None:
    said = run_module("mwaa_preflight", **nat.options, json_path=str(tmp_path / "a.json"), check=True)
    assert said["findings"] == [] and list(tmp_path.iterdir()) == []


def test_the_page_says_it_and_a_failed_task_does_not_repeat_it(play: Any, nat: Site, tmp_path: Path) -> None:
    variables = {
        "ansible_python_interpreter": "{{ ansible_playbook_python }}",
        "migration_target": "localhost",
        "migration_region": REGION,
        "migration_environment": nat.name,
        "migration_airflow_version": "2.11.2",
        "migration_bucket": nat.bucket,
        "migration_execution_role_arn": nat.role,
        "migration_subnet_ids": nat.subnets,
        "migration_security_group_ids": [nat.group],
        "preflight_kms_key": nat.key,
        "preflight_requirements_s3_path": "requirements.txt",
        "preflight_json_path": str(tmp_path / "preflight.json"),
        "migration_webserver_access_mode": "PUBLIC_ONLY",
    }
    code, said = play("preflight.yml", **variables, preflight_class="mw1.micro", environment_min_webservers=2)
    assert code == 2
    assert "✗ class-counts" in said or "!! class-counts" in said
    assert said.count("class-counts") == 1  # on the page, not in the task's result
    assert "preflight found 1 error" in said
    assert json.loads((tmp_path / "preflight.json").read_text())["summary"]["errors"] == 1
