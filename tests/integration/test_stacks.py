# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The base stack: what exists is adopted as it is and outlives the stack, or everything is made anew.

A playbook runs the role over several hosts at once, each an environment with resources of its own, again, and then
removes the stacks; the tests look at what AWS has at each of these points.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from botocore.exceptions import ClientError

pytestmark = pytest.mark.lab

ROOT = Path(__file__).resolve().parents[2]
_FILE = Path(__file__).parent / "lab" / "conftest.py"
_SPEC = importlib.util.spec_from_file_location("lab_of_stacks", _FILE)
assert _SPEC and _SPEC.loader
_lab_conftest = sys.modules["lab_of_stacks"] = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(_lab_conftest)

ACCOUNT = "000000000000"
EXPORTS = {
    "VpcId", "SubnetIds", "SubnetId1", "SubnetId2", "SecurityGroupIds",
    "BucketName", "BucketArn", "RoleName", "RoleArn",
}  # fmt: skip
PLAYBOOK = [
    {
        "hosts": "all",
        "gather_facts": False,
        "module_defaults": {"group/mwaa.migration.aws": {"region": "us-east-1"}},
        "tasks": [
            {
                "ansible.builtin.include_role": {
                    "name": "mwaa.migration.mwaa_stack",
                    "tasks_from": "{{ stage | default('main') }}",
                }
            }
        ],
    }
]
# the role's trust before anybody migrates: the instance's own, and one with a condition
TRUST = {
    "Version": "2012-10-17",
    "Statement": [
        {"Sid": "Host", "Effect": "Allow", "Principal": {"Service": "ec2.amazonaws.com"}, "Action": "sts:AssumeRole"},
        {
            "Effect": "Allow",
            "Principal": {"AWS": f"arn:aws:iam::{ACCOUNT}:root"},
            "Action": ["sts:AssumeRole", "sts:TagSession"],
            "Condition": {"StringEquals": {"sts:ExternalId": "night shift"}},
        },
    ],
}


class Existing:
    """Resources that somebody made by hand years ago, each with something of its own."""

    def __init__(self, lab: Any, name: str) -> None:
        self.lab, self.name = lab, name
        ec2, s3, iam = lab.client("ec2"), lab.client("s3"), lab.client("iam")
        self.vpc = ec2.create_vpc(CidrBlock="10.7.0.0/16")["Vpc"]["VpcId"]
        ec2.modify_vpc_attribute(VpcId=self.vpc, EnableDnsHostnames={"Value": True})
        self.public, *self.subnets = [
            ec2.create_subnet(VpcId=self.vpc, CidrBlock=f"10.7.{number}.0/24", AvailabilityZone=f"us-east-1{zone}")[
                "Subnet"
            ]["SubnetId"]
            for number, zone in enumerate("aac")
        ]
        gateway = ec2.create_internet_gateway()["InternetGateway"]["InternetGatewayId"]
        ec2.attach_internet_gateway(InternetGatewayId=gateway, VpcId=self.vpc)
        table = ec2.create_route_table(VpcId=self.vpc)["RouteTable"]["RouteTableId"]
        ec2.create_route(RouteTableId=table, DestinationCidrBlock="0.0.0.0/0", GatewayId=gateway)
        ec2.associate_route_table(RouteTableId=table, SubnetId=self.public)
        self.group = ec2.create_security_group(GroupName=f"{name} group", Description="by hand", VpcId=self.vpc)[
            "GroupId"
        ]
        ec2.authorize_security_group_ingress(
            GroupId=self.group,
            IpPermissions=[
                {"IpProtocol": "-1", "UserIdGroupPairs": [{"GroupId": self.group}]},
                {"IpProtocol": "tcp", "FromPort": 22, "ToPort": 22, "IpRanges": [{"CidrIp": "10.0.0.0/8"}]},
            ],
        )
        owner = [{"Key": "owner", "Value": "data team"}, {"Key": "Name", "Value": name}]
        ec2.create_tags(Resources=[self.vpc, *self.subnets, self.group], Tags=owner)

        self.bucket = f"{name}-airflow"
        _lab_conftest.Base.block(SimpleNamespace(lab=lab), self._make_bucket(self.bucket))
        s3.put_bucket_lifecycle_configuration(
            Bucket=self.bucket,
            LifecycleConfiguration={
                "Rules": [{"ID": "old", "Status": "Enabled", "Filter": {"Prefix": "tmp/"}, "Expiration": {"Days": 3}}]
            },
        )
        s3.put_bucket_tagging(Bucket=self.bucket, Tagging={"TagSet": owner})
        s3.put_object(Bucket=self.bucket, Key="dags/nightly.py", Body=b"# ours")

        self.role = f"{name}-airflow"
        iam.create_role(
            RoleName=self.role,
            AssumeRolePolicyDocument=json.dumps(TRUST),
            Description="Airflow's, by hand",
            MaxSessionDuration=7200,
            Tags=owner,
        )
        allow = {"Effect": "Allow", "Action": "dynamodb:GetItem", "Resource": "*"}
        document = json.dumps({"Version": "2012-10-17", "Statement": [allow]})
        iam.put_role_policy(RoleName=self.role, PolicyName="own", PolicyDocument=document)
        iam.attach_role_policy(RoleName=self.role, PolicyArn="arn:aws:iam::aws:policy/AmazonS3ReadOnlyAccess")

    def _make_bucket(self, name: str) -> str:
        s3 = self.lab.client("s3")
        s3.create_bucket(Bucket=name)
        s3.put_bucket_versioning(Bucket=name, VersioningConfiguration={"Status": "Enabled"})
        return name

    def make_key(self) -> str:
        key = self.lab.client("kms").create_key(
            Description="of the data team", Tags=[{"TagKey": "owner", "TagValue": "data team"}]
        )["KeyMetadata"]
        self.key, self.key_arn = key["KeyId"], key["Arn"]
        return self.key

    def make_log_group(self) -> str:
        logs = self.lab.client("logs")
        self.log_group = f"/{self.name}/airflow"
        logs.create_log_group(logGroupName=self.log_group, tags={"owner": "data team"})
        logs.put_retention_policy(logGroupName=self.log_group, retentionInDays=90)
        return self.log_group

    def make_instance(self) -> str:
        answer = self.lab.client("ec2").run_instances(
            ImageId="ami-00000000", MinCount=1, MaxCount=1, SubnetId=self.subnets[0], SecurityGroupIds=[self.group]
        )
        return answer["Instances"][0]["InstanceId"]

    def make_environment(self) -> str:
        mwaa = self.lab.client("mwaa")
        iam = self.lab.client("iam")
        iam.update_assume_role_policy(RoleName=self.role, PolicyDocument=_lab_conftest.TRUST)
        self.environment = self.name
        mwaa.create_environment(
            Name=self.environment,
            ExecutionRoleArn=f"arn:aws:iam::{ACCOUNT}:role/{self.role}",
            SourceBucketArn=f"arn:aws:s3:::{self.bucket}",
            DagS3Path="dags",
            NetworkConfiguration={"SubnetIds": self.subnets, "SecurityGroupIds": [self.group]},
            AirflowVersion="2.11.2",
            MaxWorkers=7,
            AirflowConfigurationOptions={"core.parallelism": "40"},
            Tags={"owner": "data team"},
        )
        _lab_conftest.Base.settled(SimpleNamespace(lab=self.lab), self.environment)
        return self.environment

    @property
    def document(self) -> dict[str, str]:
        """The parameters that the console's users know."""
        return {
            "VpcId": self.vpc,
            "BucketName": self.bucket,
            "RoleName": self.role,
            "GroupId": self.group,
            "SubnetId1": self.subnets[0],
            "SubnetId2": self.subnets[1],
        }

    def trust(self) -> dict[str, Any]:
        return self.lab.client("iam").get_role(RoleName=self.role)["Role"]["AssumeRolePolicyDocument"]

    def seen(self) -> dict[str, Any]:
        """All that AWS shows of it, without the role's trust, and without what CloudFormation itself tags."""
        ec2, s3, iam, kms = (self.lab.client(name) for name in ("ec2", "s3", "iam", "kms"))
        role = iam.get_role(RoleName=self.role)["Role"]
        del role["AssumeRolePolicyDocument"]
        role.pop("RoleLastUsed", None)
        found = [
            ec2.describe_vpcs(VpcIds=[self.vpc])["Vpcs"],
            [
                ec2.describe_vpc_attribute(VpcId=self.vpc, Attribute=name)
                for name in ("enableDnsSupport", "enableDnsHostnames")
            ],
            ec2.describe_subnets(SubnetIds=self.subnets)["Subnets"],
            ec2.describe_security_groups(GroupIds=[self.group])["SecurityGroups"],
            s3.get_bucket_versioning(Bucket=self.bucket),
            s3.get_public_access_block(Bucket=self.bucket),
            s3.get_bucket_lifecycle_configuration(Bucket=self.bucket),
            s3.get_bucket_tagging(Bucket=self.bucket)["TagSet"],
            s3.get_object(Bucket=self.bucket, Key="dags/nightly.py")["ETag"],
            role,
            [
                policy
                for policy in iam.list_role_policies(RoleName=self.role)["PolicyNames"]
                if not policy.startswith("mwaa-")
            ],
            iam.get_role_policy(RoleName=self.role, PolicyName="own")["PolicyDocument"],
            iam.list_attached_role_policies(RoleName=self.role)["AttachedPolicies"],
        ]
        if hasattr(self, "key"):
            key = self.key
            found += [
                kms.describe_key(KeyId=key)["KeyMetadata"],
                kms.get_key_policy(KeyId=key, PolicyName="default")["Policy"],
                kms.list_resource_tags(KeyId=key)["Tags"],
            ]
        if hasattr(self, "log_group"):
            found.append(self.lab.client("logs").describe_log_groups(logGroupNamePrefix=self.log_group)["logGroups"])
        if hasattr(self, "environment"):
            found.append(self.lab.client("mwaa").get_environment(Name=self.environment)["Environment"])
        return json.loads(json.dumps(_plain(found), default=str))


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {
            key: _plain(one)
            for key, one in value.items()
            if key not in ("ResponseMetadata", "LastUpdate") and not key.startswith("aws:")
        }
    if isinstance(value, list):
        tags = [str(one.get("Key") or one.get("TagKey") or "") if isinstance(one, dict) else "" for one in value]
        kept = [one for one, tag in zip(value, tags, strict=True) if not tag.startswith("aws:")]
        return [_plain(one) for one in kept]
    return value


class Play:
    def __init__(self, process: subprocess.CompletedProcess[str]) -> None:
        self.output = process.stdout
        self.recap = {
            host: {name: int(number) for name, number in re.findall(r"(\w+)=(\d+)", counts)}
            for host, counts in re.findall(r"^(\S+)\s+: (ok=.*)$", self.output, re.MULTILINE)
        }

    def sentence(self, host: str) -> str:
        found = re.findall(rf'fatal: \[{host}\]: FAILED! => .*?"msg": ("(?:[^"\\]|\\.)*")', self.output, re.DOTALL)
        return json.loads(found[-1]) if found else ""


class World:
    """A lab, and hosts whose variables are each an environment."""

    def __init__(self, lab: Any, folder: Path) -> None:
        self.lab, self.folder = lab, folder
        self.hosts: dict[str, dict[str, Any]] = {}
        self.existing: dict[str, Existing] = {}
        self.templates: dict[str, dict[str, Any]] = {}

    def host(self, name: str, **variables: Any) -> None:
        self.hosts[name] = {"migration_environment": name, **variables}

    def resources(self, name: str) -> Existing:
        self.existing[name] = Existing(self.lab, name)
        return self.existing[name]

    def play(self, *words: str, limit: str = "all", **variables: Any) -> Play:
        inventory, playbook = self.folder / "inventory.yml", self.folder / "play.yml"
        local = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}
        inventory.write_text(yaml.safe_dump({"all": {"hosts": self.hosts, "vars": local}}))
        playbook.write_text(yaml.safe_dump(PLAYBOOK))
        command = ["ansible-playbook", "-i", str(inventory), "-l", limit, "-f", "8", "-e", json.dumps(variables)]
        process = subprocess.run(
            [str(Path(sys.executable).parent / command[0]), *command[1:], *words, str(playbook)],
            cwd=ROOT,
            env={
                **os.environ,
                **self.lab.environment,
                "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
                "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
                "ANSIBLE_COLLECTIONS_PATH": str(ROOT / ".cache/collections"),
                "ANSIBLE_LOCAL_TEMP": str(self.folder / "ansible-tmp"),
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        return Play(process)

    def stack(self, name: str) -> dict[str, Any]:
        found = self.lab.client("cloudformation").describe_stacks(StackName=name)["Stacks"][0]
        outputs = {row["OutputKey"]: row["OutputValue"] for row in found.get("Outputs", [])}
        exports = {row["OutputKey"]: row.get("ExportName") for row in found.get("Outputs", [])}
        return {**found, "outputs": outputs, "exports": exports}

    def stacks(self) -> set[str]:
        pages = self.lab.client("cloudformation").get_paginator("describe_stacks").paginate()
        return {row["StackName"] for page in pages for row in page["Stacks"] if row["StackStatus"] != "DELETE_COMPLETE"}

    def drift(self, name: str) -> list[str]:
        """What is otherwise than the template says; and the template is kept for later."""
        cfn = self.lab.client("cloudformation")
        self.templates[name] = json.loads(json.dumps(cfn.get_template(StackName=name)["TemplateBody"]))
        found = cfn.detect_stack_drift(StackName=name)["StackDriftDetectionId"]
        while True:
            state = cfn.describe_stack_drift_detection_status(StackDriftDetectionId=found)
            if state["DetectionStatus"] != "DETECTION_IN_PROGRESS":
                break
            time.sleep(0.1)
        assert state["DetectionStatus"] == "DETECTION_COMPLETE", state
        rows = cfn.describe_stack_resource_drifts(StackName=name)["StackResourceDrifts"]
        assert rows
        return [
            f"{row['LogicalResourceId']} {row['StackResourceDriftStatus']} {row.get('PropertyDifferences')}"
            for row in rows
            if row["StackResourceDriftStatus"] not in ("IN_SYNC", "NOT_CHECKED")
        ]

    def network(self, outputs: dict[str, str]) -> Network:
        ec2, s3 = self.lab.client("ec2"), self.lab.client("s3")
        here = [{"Name": "vpc-id", "Values": [outputs["VpcId"]]}]
        subnets = outputs["SubnetIds"].split(",")
        routes = {}
        for table in ec2.describe_route_tables(Filters=here)["RouteTables"]:
            for association in table["Associations"]:
                if association.get("SubnetId") in subnets:
                    routes[association["SubnetId"]] = [
                        route.get("NatGatewayId") or route.get("GatewayId", "")
                        for route in table["Routes"]
                        if route.get("DestinationCidrBlock") == "0.0.0.0/0"
                    ]
        buckets = {}
        for bucket in [outputs["BucketName"], *[outputs[key] for key in outputs if key == "BundleBucketName"]]:
            encryption = s3.get_bucket_encryption(Bucket=bucket)["ServerSideEncryptionConfiguration"]["Rules"][0]
            try:
                lifecycle = s3.get_bucket_lifecycle_configuration(Bucket=bucket)["Rules"]
            except ClientError:
                lifecycle = []
            buckets[bucket] = {
                "versioning": s3.get_bucket_versioning(Bucket=bucket)["Status"],
                "access": s3.get_public_access_block(Bucket=bucket)["PublicAccessBlockConfiguration"],
                "policy": json.loads(s3.get_bucket_policy(Bucket=bucket)["Policy"]),
                "encryption": encryption["ApplyServerSideEncryptionByDefault"],
                "lifecycle": lifecycle,
            }
        return Network(
            vpc=ec2.describe_vpcs(VpcIds=[outputs["VpcId"]])["Vpcs"][0],
            subnets=ec2.describe_subnets(SubnetIds=subnets)["Subnets"],
            routes=routes,
            endpoints={one["ServiceName"]: one for one in ec2.describe_vpc_endpoints(Filters=here)["VpcEndpoints"]},
            group=ec2.describe_security_groups(GroupIds=[outputs["SecurityGroupIds"]])["SecurityGroups"][0],
            buckets=buckets,
        )

    def stand_on(self, outputs: dict[str, str], environment: str) -> None:
        """An environment on what a base stack made."""
        self.lab.client("mwaa").create_environment(
            Name=environment,
            ExecutionRoleArn=outputs["RoleArn"],
            SourceBucketArn=outputs["BucketArn"],
            DagS3Path="dags",
            NetworkConfiguration={
                "SubnetIds": outputs["SubnetIds"].split(","),
                "SecurityGroupIds": [outputs["SecurityGroupIds"]],
            },
            AirflowVersion="2.11.2",
            WebserverAccessMode="PRIVATE_ONLY",
        )
        _lab_conftest.Base.settled(SimpleNamespace(lab=self.lab), environment)

    def gone(self, environment: str) -> None:
        mwaa = self.lab.client("mwaa")
        mwaa.delete_environment(Name=environment)
        while environment in mwaa.list_environments()["Environments"]:
            time.sleep(0.1)

    def policy(self, role: str, environment: str) -> dict[str, Any]:
        iam = self.lab.client("iam")
        return iam.get_role_policy(RoleName=role, PolicyName=f"mwaa-execution-{environment}")["PolicyDocument"]

    def writes(self, since: float) -> list[str]:
        return [
            f"{line['service']} {line['operation']}" for line in self.lab.journal(since) if line["access"] == "write"
        ]


@dataclass
class Story:
    """What was seen at each point, by environment."""

    world: World
    plays: dict[str, Play]
    seen: dict[str, dict[str, Any]]  # by play: what there was after it, "nothing" before the first
    trust: dict[str, dict[str, Any]]
    stacks: dict[str, dict[str, Any]]  # as they were after the second play
    drift: dict[str, list[str]]
    writes: list[str]  # of the play in check mode
    policies: dict[str, dict[str, Any]]
    network: dict[str, Network]


@dataclass
class Network:
    """Of a VPC that was made anew."""

    vpc: dict[str, Any]
    subnets: list[dict[str, Any]]
    routes: dict[str, list[str]]  # by subnet: where 0.0.0.0/0 leads
    endpoints: dict[str, dict[str, Any]]
    group: dict[str, Any]
    buckets: dict[str, dict[str, Any]]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    lab = _lab_conftest.Lab(tmp_path_factory.mktemp("lab"))
    try:
        world = World(lab, tmp_path_factory.mktemp("plays"))
        _by_hand(world)
        yield world
    finally:
        lab.stop()


def _by_hand(world: World) -> None:
    """What there is before the first play."""
    cfn = world.lab.client("cloudformation")
    whole = world.resources("whole")
    bundles = whole._make_bucket("whole-bundles")
    world.host(
        "whole",
        migration_adopt={
            "vpc_id": whole.vpc,
            "subnet_ids": whole.subnets,
            "security_group_ids": [whole.group],
            "bucket": whole.bucket,
            "bundle_bucket": bundles,
            "role": f"arn:aws:iam::{ACCOUNT}:role/{whole.role}",
            "kms_key_id": whole.make_key(),
            "log_groups": [whole.make_log_group()],
        },
        migration_lane="secrets_manager",
        migration_bundle=f"s3://{bundles}/whole",
        mwaa_stack_role_reads_bundle=True,
    )

    document = world.resources("document")
    path = world.folder / "param.json"
    path.write_text(json.dumps(document.document))
    world.host(
        "document",
        migration_adopt={"parameters": str(path)},
        migration_source_environment="running",
        migration_bundle="s3://whole-bundles/document",
    )

    # of the source's host nothing is known but where its instance id is
    by_host = world.resources("byhost")
    identifier = world.folder / "instance-id"
    identifier.write_text(by_host.make_instance() + "\n")
    world.host(
        "byhost",
        migration_adopt={"source_host": "byhost", "bucket": by_host.bucket, "role": by_host.role},
        mwaa_stack_instance_id_file=str(identifier),
    )

    environment = world.resources("running")
    world.host("running", migration_adopt={"environment": True, "log_groups": []})
    environment.make_environment()

    # the network belongs to a stack of somebody else's, and so does a role
    trusting = {"AssumeRolePolicyDocument": json.loads(_lab_conftest.TRUST)}
    waiting = {"AssumeRolePolicyDocument": {**TRUST, "Statement": TRUST["Statement"][:1]}}
    for name, trust in (("shared", trusting), ("untrusting", waiting)):
        theirs = world.resources(name)
        template = {
            "Resources": {
                "Network": {"Type": "AWS::EC2::VPC", "Properties": {"CidrBlock": "10.9.0.0/16"}},
                **{
                    f"Net{zone}": {
                        "Type": "AWS::EC2::Subnet",
                        "Properties": {
                            "VpcId": {"Ref": "Network"},
                            "CidrBlock": f"10.9.{number}.0/24",
                            "AvailabilityZone": f"us-east-1{zone}",
                        },
                    }
                    for number, zone in enumerate("ab")
                },
                "Group": {
                    "Type": "AWS::EC2::SecurityGroup",
                    "Properties": {"GroupDescription": "theirs", "VpcId": {"Ref": "Network"}},
                },
                "TheirRole": {"Type": "AWS::IAM::Role", "Properties": {"RoleName": f"theirs-{name}", **trust}},
            }
        }
        cfn.create_stack(
            StackName=f"network-{name}", TemplateBody=json.dumps(template), Capabilities=["CAPABILITY_NAMED_IAM"]
        )
        cfn.get_waiter("stack_create_complete").wait(StackName=f"network-{name}", WaiterConfig={"Delay": 1})
        rows = cfn.describe_stack_resources(StackName=f"network-{name}")["StackResources"]
        ids = {row["LogicalResourceId"]: row["PhysicalResourceId"] for row in rows}
        world.host(
            name,
            migration_adopt={
                "subnet_ids": [ids["Neta"], ids["Netb"]],
                "security_group_ids": [ids["Group"]],
                "bucket": theirs.bucket,
                "role": ids["TheirRole"],
            },
        )

    world.host(
        "nonsense",
        migration_adopt={
            "vpc_id": "vpc-0123456789abcdef0",
            "subnet_ids": ["subnet-0123456789abcdef0", "no subnet"],
            "security_group_ids": ["sg-0123456789abcdef0"],
            "bucket": "there-is-no-such-bucket",
            "role": "nobody",
            "kms_key_id": "00000000-0000-0000-0000-000000000000",
            "log_groups": ["/no/group"],
        },
    )
    world.host("forgetful", migration_adopt={"bucket": whole.bucket})

    world.host(
        "nat", mwaa_stack_create_key=True, mwaa_stack_bundle_bucket_name="nat-bundles", mwaa_stack_tags={"team": "a"}
    )
    world.host(
        "endpoints",
        mwaa_stack_connectivity="endpoints",
        migration_lane="secrets_manager",
        mwaa_stack_vpc_cidr="10.11.0.0/20",
    )


ADOPTED = ("whole", "document", "byhost", "running")
NEW = ("nat", "endpoints")
GOOD = (*ADOPTED, "shared", *NEW)
BROKEN = ("nonsense", "forgetful", "untrusting")
LOOKED = ("whole", "running", "nat")  # in check mode before they are made


@pytest.fixture(scope="module")
def story(world: World) -> Story:
    def seen() -> dict[str, Any]:
        return {name: one.seen() for name, one in world.existing.items()}

    def trust() -> dict[str, Any]:
        return {name: one.trust() for name, one in world.existing.items()}

    points, trusts, plays = {"nothing": seen()}, {"nothing": trust()}, {}
    since, stacks = time.time(), world.stacks()
    for name, words, given in (
        ("looked", ("--check",), {"limit": ",".join((*LOOKED, *BROKEN))}),
        ("made", (), {"limit": ",".join(GOOD)}),
        ("again", (), {"limit": ",".join(GOOD)}),
    ):
        plays[name] = world.play(*words, **given)
        points[name], trusts[name] = seen(), trust()
        if name == "looked":
            writes = world.writes(since)
            assert world.stacks() == stacks
        if name == "made":  # the source's host is switched off once its Airflow has moved
            (world.folder / "instance-id").write_text("i-00000000000000000\n")
    found = {name: world.stack(f"{name}-base") for name in GOOD}
    drift = {name: world.drift(f"{name}-base") for name in GOOD}
    drift["running environment"] = world.drift("running-environment")
    policies = {name: world.policy(found[name]["outputs"]["RoleName"], name) for name in GOOD}
    network = {name: world.network(found[name]["outputs"]) for name in NEW}
    imports = {"Value": {"Fn::ImportValue": "shared-base-BucketName"}}
    theirs = {"Resources": {"Waits": {"Type": "AWS::CloudFormation::WaitConditionHandle"}}, "Outputs": {"Its": imports}}
    cfn = world.lab.client("cloudformation")
    cfn.create_stack(StackName="theirs", TemplateBody=json.dumps(theirs))
    cfn.get_waiter("stack_create_complete").wait(StackName="theirs", WaiterConfig={"Delay": 1})
    plays["in use"] = world.play(limit="shared", stage="teardown")
    cfn.delete_stack(StackName="theirs")
    cfn.get_waiter("stack_delete_complete").wait(StackName="theirs", WaiterConfig={"Delay": 1})
    world.stand_on(found["endpoints"]["outputs"], "endpoints")
    plays["kept"] = world.play(limit="endpoints", stage="teardown")
    points["kept"] = {"stacks": world.stacks()}
    world.gone("endpoints")
    plays["removed"] = world.play(limit=",".join(GOOD), stage="teardown")
    points["removed"], trusts["removed"] = seen(), trust()
    return Story(world, plays, points, trusts, found, drift, writes, policies, network)


# --- what exists is adopted


def test_everything_good_is_made_and_nothing_again(story: Story) -> None:
    for name in GOOD:
        assert story.plays["made"].recap[name]["failed"] == 0, story.plays["made"].output
        assert story.plays["made"].recap[name]["changed"] > 0
        assert story.plays["again"].recap[name]["failed"] == 0, story.plays["again"].output
        assert story.plays["again"].recap[name]["changed"] == 0, story.plays["again"].output


def test_check_mode_says_that_there_is_something_to_do_and_writes_nothing(story: Story) -> None:
    assert story.writes == []
    for name in LOOKED:
        assert story.plays["looked"].recap[name]["failed"] == 0, story.plays["looked"].output
        assert story.plays["looked"].recap[name]["changed"] > 0


@pytest.mark.parametrize("name", [*GOOD, "running environment"])
def test_the_stack_says_what_is_the_case(story: Story, name: str) -> None:
    assert story.drift[name] == []


@pytest.mark.parametrize("name", ADOPTED)
def test_adoption_changes_nothing_but_the_roles_trust_and_its_new_policy(story: Story, name: str) -> None:
    assert story.seen["made"][name] == story.seen["nothing"][name]


@pytest.mark.parametrize("name", ADOPTED)
def test_what_was_adopted_outlives_the_stacks(story: Story, name: str) -> None:
    assert story.plays["removed"].recap[name]["failed"] == 0, story.plays["removed"].output
    assert not {f"{name}-base", f"{name}-environment"} & story.world.stacks()
    assert story.seen["removed"][name] == story.seen["nothing"][name]


def test_teardown_takes_the_roles_new_policy_away_and_no_other(story: Story) -> None:
    iam = story.world.lab.client("iam")
    for name in ADOPTED:
        names = iam.list_role_policies(RoleName=story.world.existing[name].role)["PolicyNames"]
        assert [one for one in names if not one.startswith("mwaa-migration-temporary-")] == ["own"]


def test_the_role_trusts_mwaa_beside_all_that_it_trusted(story: Story) -> None:
    for name in ("whole", "document", "byhost"):
        before, after = story.trust["nothing"][name], story.trust["made"][name]
        assert after["Statement"][: len(before["Statement"])] == before["Statement"]
        assert after["Statement"][len(before["Statement"]) :] == [
            {
                "Effect": "Allow",
                "Principal": {"Service": ["airflow.amazonaws.com", "airflow-env.amazonaws.com"]},
                "Action": "sts:AssumeRole",
            }
        ]
        assert story.trust["again"][name] == after
    assert story.trust["made"]["running"] == story.trust["nothing"]["running"]  # which trusted it already


@pytest.mark.parametrize("name", GOOD)
def test_exports(story: Story, name: str) -> None:
    stack = story.stacks[name]
    more = {
        "whole": {"KmsKeyArn", "BundleBucketName"}, "nat": {"KmsKeyArn", "BundleBucketName"},
    }.get(name, set())  # fmt: skip
    assert set(stack["outputs"]) == EXPORTS | more
    assert stack["exports"] == {key: f"{name}-base-{key}" for key in stack["outputs"]}
    outputs = stack["outputs"]
    assert outputs["SubnetIds"] == f"{outputs['SubnetId1']},{outputs['SubnetId2']}"
    assert outputs["BucketArn"] == f"arn:aws:s3:::{outputs['BucketName']}"
    assert outputs["RoleArn"].endswith(f":role/{outputs['RoleName']}")


def test_the_exports_are_of_what_was_named(story: Story) -> None:
    for name in ("whole", "document", "running"):
        theirs, outputs = story.world.existing[name], story.stacks[name]["outputs"]
        assert theirs.document == {
            "VpcId": outputs["VpcId"],
            "BucketName": outputs["BucketName"],
            "RoleName": outputs["RoleName"],
            "GroupId": outputs["SecurityGroupIds"],
            "SubnetId1": outputs["SubnetId1"],
            "SubnetId2": outputs["SubnetId2"],
        }
    assert story.stacks["whole"]["outputs"]["KmsKeyArn"] == story.world.existing["whole"].key_arn


def test_the_sources_instance_leads_to_two_private_subnets_in_two_zones(story: Story) -> None:
    theirs, outputs = story.world.existing["byhost"], story.stacks["byhost"]["outputs"]
    assert outputs["VpcId"] == theirs.vpc
    assert [
        outputs["SubnetId1"],
        outputs["SubnetId2"],
    ] == theirs.subnets  # its own first; the public one is passed over
    assert outputs["SecurityGroupIds"] == theirs.group


def test_the_network_that_an_instance_led_to_stays_when_the_instance_goes(story: Story) -> None:
    recap = story.plays["again"].recap["byhost"]
    assert recap["failed"] == recap["changed"] == 0, story.plays["again"].output


def test_what_another_stack_has_is_referred_to(story: Story) -> None:
    template = story.world.templates["shared-base"]
    assert {one["Type"] for one in template["Resources"].values()} == {"AWS::S3::Bucket", "AWS::IAM::RolePolicy"}
    assert story.stacks["shared"]["outputs"]["RoleName"] == "theirs-shared"
    assert "network-shared" in story.world.stacks()


def test_the_execution_policy_is_for_this_environment(story: Story) -> None:
    whole = json.dumps(story.policies["whole"])
    assert story.world.existing["whole"].key_arn in whole and "secretsmanager:GetSecretValue" in whole
    document = json.dumps(story.policies["document"])
    assert "secretsmanager" not in document and "NotResource" in document
    assert "arn:aws:s3:::document-airflow/*" in document and ":environment/document" in document


def test_rights_that_end_with_the_migration_are_in_a_policy_of_their_own(story: Story) -> None:
    iam = story.world.lab.client("iam")
    of_the_left = iam.list_role_policies(RoleName="running-airflow")["PolicyNames"]
    assert not [name for name in of_the_left if name.startswith("mwaa-migration-temporary-")]
    reads = iam.get_role_policy(RoleName="whole-airflow", PolicyName="mwaa-migration-temporary-whole")["PolicyDocument"]
    assert "s3:PutObject" not in json.dumps(reads) and "whole-bundles/whole/*" in json.dumps(reads)


# --- what cannot be adopted


def test_all_that_does_not_exist_is_named_at_once(story: Story) -> None:
    said = story.plays["looked"].sentence("nonsense")
    for name in (
        "vpc-0123456789abcdef0", "subnet-0123456789abcdef0", "no subnet", "sg-0123456789abcdef0",
        "there-is-no-such-bucket", "nobody", "00000000-0000-0000-0000-000000000000", "/no/group",
    ):  # fmt: skip
        assert name in said
    assert "8 faults" in said


def test_all_that_is_missing_is_named_at_once(story: Story) -> None:
    said = story.plays["looked"].sentence("forgetful")
    for name in ("vpc_id", "subnet_ids", "security_group_ids", "role"):
        assert f"({name}) is missing" in said or f"({name}) are missing" in said


def test_a_role_of_another_stack_is_not_changed_behind_its_back(story: Story) -> None:
    said = story.plays["looked"].sentence("untrusting")
    assert "role theirs-untrusting does not trust airflow.amazonaws.com and airflow-env.amazonaws.com" in said
    assert "belongs to stack network-untrusting" in said


# --- how it is deployed is said


@pytest.mark.parametrize("said", [{"migration_deploy": "stack"}, {"migration_deploy": "stacks"}])
def test_nothing_is_deployed_before_it_is_clear_how(said: dict[str, str]) -> None:
    """Whatever the tags: another word would deploy without stacks, and everything anew costs money."""
    command = ["ansible-playbook", "-i", "prod,", "-e", json.dumps({**said, "migration_target": "prod"})]
    done = subprocess.run(
        [str(Path(sys.executable).parent / command[0]), *command[1:], "--tags", "environment", "playbooks/migrate.yml"],
        cwd=ROOT,
        env={**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "AWS_ENDPOINT_URL": "none"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0 and "it has to be stacks, direct or none" in done.stdout, done.stdout


# --- everything anew


def test_a_new_network_has_two_private_subnets_in_two_zones(story: Story) -> None:
    for name in NEW:
        found = story.network[name]
        assert len({one["AvailabilityZone"] for one in found.subnets}) == 2
        assert not any(one["MapPublicIpOnLaunch"] for one in found.subnets)
        assert found.group["IpPermissions"][0]["UserIdGroupPairs"][0]["GroupId"] == found.group["GroupId"]
    assert {one["CidrBlock"] for one in story.network["endpoints"].subnets} == {"10.11.0.0/24", "10.11.1.0/24"}


def test_nat_leads_out_and_endpoints_do_not(story: Story) -> None:
    ways = list(story.network["nat"].routes.values())
    assert [len(way) for way in ways] == [1, 1] and ways[0] != ways[1]  # a NAT gateway in each zone
    assert all(way[0].startswith("nat-") for way in ways)
    assert list(story.network["endpoints"].routes.values()) == [[], []]


def test_endpoints_are_those_that_mwaa_needs(story: Story) -> None:
    found = story.network["endpoints"].endpoints
    names = ("monitoring", "logs", "sqs", "kms", "airflow.api", "airflow.env", "airflow.ops", "secretsmanager")
    assert set(found) == {f"com.amazonaws.us-east-1.{name}" for name in ("s3", *names)}
    for name in names:
        one = found[f"com.amazonaws.us-east-1.{name}"]
        assert one["PrivateDnsEnabled"] and len(one["SubnetIds"]) == 2
    policy = found["com.amazonaws.us-east-1.s3"]["PolicyDocument"]
    assert "prod-us-east-1-starport-layer-bucket" in policy
    assert story.network["nat"].endpoints == {}


def test_new_buckets_are_versioned_private_encrypted_and_by_tls_alone(story: Story) -> None:
    for name in NEW:
        for bucket, found in story.network[name].buckets.items():
            assert found["versioning"] == "Enabled"
            assert all(found["access"].values()) and len(found["access"]) == 4
            assert found["policy"]["Statement"][0]["Condition"] == {"Bool": {"aws:SecureTransport": "false"}}
            key = story.stacks[name]["outputs"].get("KmsKeyArn")
            assert found["encryption"].get("KMSMasterKeyID") == key
            assert found["encryption"]["SSEAlgorithm"] == ("aws:kms" if key else "AES256")
            days = [rule["Expiration"]["Days"] for rule in found["lifecycle"]]
            assert days == ([90] if bucket == "nat-bundles" else [])


def test_buckets_and_key_outlive_their_stack(story: Story) -> None:
    s3, kms = story.world.lab.client("s3"), story.world.lab.client("kms")
    outputs = story.stacks["nat"]["outputs"]
    assert "nat-base" not in story.world.stacks()
    for bucket in (outputs["BucketName"], outputs["BundleBucketName"]):
        s3.head_bucket(Bucket=bucket)
        assert "SecureTransport" in s3.get_bucket_policy(Bucket=bucket)["Policy"]
    assert kms.describe_key(KeyId=outputs["KmsKeyArn"])["KeyMetadata"]["KeyState"] == "Enabled"
    assert not story.world.lab.client("ec2").describe_vpcs(Filters=[{"Name": "vpc-id", "Values": [outputs["VpcId"]]}])[
        "Vpcs"
    ]


def test_a_base_stack_that_is_in_use_is_not_said_to_be_removed(story: Story) -> None:
    play = story.plays["in use"]
    assert play.recap["shared"]["failed"] == 1, play.output
    assert "shared-base" in play.sentence("shared") or "in use by" in play.output


def test_an_environment_that_stays_keeps_what_it_stands_on(story: Story) -> None:
    said = story.plays["kept"].sentence("endpoints")
    assert said.startswith("environment endpoints stays and stands on what stack endpoints-base made")
    assert "endpoints-base" in story.seen["kept"]["stacks"]
    assert "endpoints-base" not in story.world.stacks()  # once it is gone


# --- the templates as documents


@pytest.mark.parametrize("name", ["whole-base", "running-environment"])
def test_templates_pass_cfn_lint(story: Story, name: str) -> None:
    """cfn-lint says nothing of what was generated; of files/base.template `make lint` asks it."""
    from cfnlint.api import lint

    assert [str(match) for match in lint(json.dumps(story.world.templates[name]))] == []
