# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The account of a new lab: a network, two buckets, a key and a role that an environment can stand on."""

from __future__ import annotations

import json
from typing import Any

from mwaa_lab import callers, hosts
from mwaa_lab.labdir import LabDir


def client(lab: LabDir, service: str) -> Any:
    """A boto3 client of the lab's account."""
    import boto3
    from botocore.config import Config

    from mwaa_lab.cli import ACCOUNT, REGION, SECRET_KEY, endpoints

    style = {"s3": {"addressing_style": "path"}, "inject_host_prefix": False}  # mwaa would say api.127.0.0.1
    return boto3.session.Session().client(
        service,
        endpoint_url=endpoints(lab)["aws"],
        region_name=REGION,
        aws_access_key_id=ACCOUNT,
        aws_secret_access_key=SECRET_KEY,
        config=Config(**style, retries={"mode": "standard", "max_attempts": 5}),
    )


def make_base(lab: LabDir, *, with_source: bool) -> dict[str, Any]:
    """What an MWAA environment stands on, as a user would have made it; with a source, the instance that it runs on."""
    from mwaa_lab.cli import ACCOUNT, REGION

    ec2, s3, iam, kms = (client(lab, service) for service in ("ec2", "s3", "iam", "kms"))
    network = _make_network(ec2, REGION)
    key = kms.create_key(Description="mwaa-lab bundles")["KeyMetadata"]["Arn"]
    buckets = ["mwaa-lab-environment", "mwaa-lab-bundle"]
    for bucket in buckets:
        make_bucket(s3, bucket)
    role = execution_role(lab, iam, "mwaa-lab-execution", buckets[0], key)
    callers.make(iam, ACCOUNT)
    instance = None
    if with_source:
        instance = _make_instance(ec2, network["subnet_ids"][0], network["security_group_ids"])
        hosts.give_instance(lab, instance)
    return {
        "bucket": buckets[0],
        "bundle_bucket": buckets[1],
        "role_arn": role,
        **network,
        "kms_key_id": key,
        "instance_id": instance,
    }


def make_bucket(s3: Any, bucket: str) -> None:
    """Versioned, and closed to the public."""
    s3.create_bucket(Bucket=bucket)
    s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    block = ("BlockPublicAcls", "IgnorePublicAcls", "BlockPublicPolicy", "RestrictPublicBuckets")
    s3.put_public_access_block(Bucket=bucket, PublicAccessBlockConfiguration=dict.fromkeys(block, True))


def execution_role(lab: LabDir, iam: Any, name: str, bucket: str, key: str | None) -> str:
    """The ARN of a new role that MWAA assumes. key: of bundles, where it may use that."""
    from mwaa_lab.cli import ACCOUNT, REGION

    trust = {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Effect": "Allow",
                "Principal": {"Service": ["airflow.amazonaws.com", "airflow-env.amazonaws.com"]},
                "Action": "sts:AssumeRole",
            }
        ],
    }
    role = iam.create_role(RoleName=name, AssumeRolePolicyDocument=json.dumps(trust))["Role"]["Arn"]
    policy = json.dumps(_execution_policy(bucket, key, REGION, ACCOUNT))
    iam.put_role_policy(RoleName=name, PolicyName="execution", PolicyDocument=policy)
    return str(role)


def _make_network(ec2: Any, region: str) -> dict[str, Any]:
    """Two private subnets that reach the internet by a NAT gateway in a public one (user guide, vpc-create)."""
    vpc = ec2.create_vpc(CidrBlock="10.192.0.0/16")["Vpc"]["VpcId"]
    ec2.modify_vpc_attribute(VpcId=vpc, EnableDnsHostnames={"Value": True})

    def subnet(number: int, zone: str) -> str:
        made = ec2.create_subnet(VpcId=vpc, CidrBlock=f"10.192.{number}.0/24", AvailabilityZone=f"{region}{zone}")
        return str(made["Subnet"]["SubnetId"])

    def table(target: dict[str, str], *subnets: str) -> None:
        made = ec2.create_route_table(VpcId=vpc)["RouteTable"]["RouteTableId"]
        ec2.create_route(RouteTableId=made, DestinationCidrBlock="0.0.0.0/0", **target)
        for one in subnets:
            ec2.associate_route_table(RouteTableId=made, SubnetId=one)

    public, private = subnet(10, "a"), [subnet(20, "a"), subnet(21, "b")]
    gateway = ec2.create_internet_gateway()["InternetGateway"]["InternetGatewayId"]
    ec2.attach_internet_gateway(InternetGatewayId=gateway, VpcId=vpc)
    table({"GatewayId": gateway}, public)
    address = ec2.allocate_address(Domain="vpc")["AllocationId"]
    nat = ec2.create_nat_gateway(SubnetId=public, AllocationId=address)["NatGateway"]["NatGatewayId"]
    table({"NatGatewayId": nat}, *private)
    group = ec2.create_security_group(GroupName="mwaa-lab", Description="MWAA environment", VpcId=vpc)["GroupId"]
    itself = {"IpProtocol": "-1", "UserIdGroupPairs": [{"GroupId": group}]}
    ec2.authorize_security_group_ingress(GroupId=group, IpPermissions=[itself])
    return {"vpc_id": vpc, "subnet_ids": private, "security_group_ids": [group]}


def _make_instance(ec2: Any, subnet: str, groups: list[str]) -> str:
    """The instance that stands for the source's host."""
    made = ec2.run_instances(
        ImageId="ami-00000001",
        InstanceType="t3.large",
        MinCount=1,
        MaxCount=1,
        SubnetId=subnet,
        SecurityGroupIds=groups,
        TagSpecifications=[{"ResourceType": "instance", "Tags": [{"Key": "Name", "Value": "mwaa-lab-source"}]}],
    )
    return str(made["Instances"][0]["InstanceId"])


def _execution_policy(bucket: str, key: str | None, region: str, account: str) -> dict[str, Any]:
    """What AWS documents for an execution role (user guide, mwaa-create-role), and the use of a key."""

    def allow(actions: list[str], resource: str | list[str]) -> dict[str, Any]:
        return {"Effect": "Allow", "Action": actions, "Resource": resource}

    logs = ["CreateLogStream", "CreateLogGroup", "PutLogEvents", "GetLogEvents", "GetLogRecord", "GetLogGroupFields"]
    logs += ["GetQueryResults", "DescribeLogStreams"]
    use = ["kms:Decrypt", "kms:DescribeKey", "kms:GenerateDataKey*", "kms:Encrypt"]
    queue = [
        "ChangeMessageVisibility",
        "DeleteMessage",
        "GetQueueAttributes",
        "GetQueueUrl",
        "ReceiveMessage",
        "SendMessage",
    ]
    return {
        "Version": "2012-10-17",
        "Statement": [
            allow(["airflow:PublishMetrics"], f"arn:aws:airflow:{region}:{account}:environment/*"),
            allow(
                ["s3:GetObject*", "s3:GetBucket*", "s3:List*"], [f"arn:aws:s3:::{bucket}", f"arn:aws:s3:::{bucket}/*"]
            ),
            allow([f"logs:{action}" for action in logs], f"arn:aws:logs:{region}:{account}:log-group:airflow-*"),
            allow(["logs:DescribeLogGroups", "s3:GetAccountPublicAccessBlock", "cloudwatch:PutMetricData"], "*"),
            allow([f"sqs:{action}" for action in queue], f"arn:aws:sqs:{region}:*:airflow-celery-*"),
            *([allow(use, key)] if key else []),
            {  # of the queue, which is not the account's
                "Effect": "Allow",
                "Action": use,
                "NotResource": f"arn:aws:kms:*:{account}:key/*",
                "Condition": {"StringLike": {"kms:ViaService": [f"sqs.{region}.amazonaws.com"]}},
            },
        ],
    }
