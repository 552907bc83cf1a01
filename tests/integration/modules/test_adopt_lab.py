# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""mwaa_adopt_info: what it finds, from what, and what it refuses; each time only read."""

from __future__ import annotations

import json
import uuid
from typing import Any

import pytest

pytestmark = pytest.mark.lab


@pytest.fixture
def adopt(lab: Any, base: Any, run_module: Any) -> Any:
    """adopt(bucket=…) -> mwaa_adopt_info of the base with these changes (None: not given). Nothing is ever written."""

    def run(**changes: Any) -> dict[str, Any]:
        given = {
            "stack_name": "adopting",
            "environment": "demo",
            "vpc_id": base.vpc,
            "subnet_ids": base.subnets,
            "security_group_ids": [base.group],
            "bucket": base.bucket,
            "role": base.role,
            **changes,
        }
        before = len(lab.journal())
        result = run_module("mwaa_adopt_info", **{key: value for key, value in given.items() if value is not None})
        assert {line["access"] for line in lab.journal()[before:]} <= {"read"}
        return result

    return run


@pytest.fixture
def stack(lab: Any) -> Any:
    """stack(template) -> the name of a new stack of it."""

    def make(template: dict[str, Any] | str, name: str = "") -> str:
        cfn, name = lab.client("cloudformation"), name or f"theirs-{uuid.uuid4().hex[:8]}"
        body = template if isinstance(template, str) else json.dumps(template)
        cfn.create_stack(StackName=name, TemplateBody=body, Capabilities=["CAPABILITY_NAMED_IAM"])
        cfn.get_waiter("stack_create_complete").wait(StackName=name, WaiterConfig={"Delay": 1})
        return name

    return make


def test_what_is_read_is_what_is_imported(adopt: Any, base: Any) -> None:
    found = adopt()
    resources = found["import_template"]["Resources"]
    assert set(resources) == {"Vpc", "Subnet1", "Subnet2", "SecurityGroup1", "Bucket", "Role"}
    assert all(one["DeletionPolicy"] == one["UpdateReplacePolicy"] == "Retain" for one in resources.values())
    assert "Outputs" not in found["import_template"] and set(found["base_template"]["Outputs"]) == {
        "VpcId", "SubnetIds", "SubnetId1", "SubnetId2", "SecurityGroupIds",
        "BucketName", "BucketArn", "RoleName", "RoleArn",
    }  # fmt: skip
    identifiers = {one["logical_resource_id"]: one["resource_identifier"] for one in found["resources_to_import"]}
    assert identifiers["Vpc"] == {"VpcId": base.vpc} and identifiers["SecurityGroup1"] == {"Id": base.group}
    assert set(found["base_template"]["Resources"]) - set(resources) == {"ExecutionPolicyDemo"}
    assert found["values"]["RoleArn"] == base.role and found["found_by"]["bucket"] == "options"


def test_the_parameter_document_in_each_of_its_forms(adopt: Any, base: Any, tmp_path: Any) -> None:
    document = {
        "VpcId": base.vpc,
        "BucketName": base.bucket,
        "RoleName": base.role.rpartition("/")[2],
        "GroupId": base.group,
        "SubnetId1": base.subnets[0],
        "SubnetId2": base.subnets[1],
    }
    path = tmp_path / "param.json"
    path.write_text(json.dumps(document))
    nothing = dict.fromkeys(("vpc_id", "subnet_ids", "security_group_ids", "bucket", "role"))
    wanted = adopt()["base_template"]
    rows = [{"ParameterKey": key, "ParameterValue": value} for key, value in document.items()]
    for form in (document, str(path), rows):
        assert adopt(**nothing, parameters=form)["base_template"] == wanted
    # what a task says itself counts first
    assert adopt(**{**nothing, "bucket": base.bucket}, parameters={**document, "BucketName": "no-such-bucket"})[
        "values"
    ]


@pytest.mark.parametrize(
    ("parameters", "says"),
    [
        ({"VpcID": "vpc-1"}, "the parameter document has VpcID, and takes VpcId, BucketName"),
        ("/no/such/file.json", "the parameter document cannot be read"),
        ("[1]", "the parameter document cannot be read"),
    ],
)
def test_a_parameter_document_that_is_none(adopt: Any, parameters: Any, says: str) -> None:
    assert says in adopt(parameters=parameters)["msg"]


def test_environments_with_one_base_stack_have_the_same_base(adopt: Any, base: Any, stack: Any) -> None:
    rights = {"Effect": "Allow", "Action": "logs:DescribeLogGroups", "Resource": "*"}
    policy = {
        "PolicyName": "mwaa-execution-other",
        "RoleName": base.role.rpartition("/")[2],
        "PolicyDocument": {"Version": "2012-10-17", "Statement": [rights]},
    }
    template = {
        "Resources": {"ExecutionPolicyOther": {"Type": "AWS::IAM::RolePolicy", "Properties": policy}},
        "Outputs": {"BucketName": {"Value": "theirs"}, "RoleArn": {"Value": base.role}},
    }
    shared = stack(template)
    assert adopt(stack_name=shared)["msg"] == (
        f"mwaa_adopt_info: stack {shared} serves other already and exports BucketName theirs, not {base.bucket}:"
        " give demo the same, or a base stack of its own (migration_base_stack)"
    )
    template["Outputs"]["BucketName"]["Value"] = base.bucket
    both = adopt(stack_name=stack(template))["base_template"]["Resources"]
    assert {"ExecutionPolicyOther", "ExecutionPolicyDemo"} < set(both)


def test_the_vpc_is_that_of_the_subnets(adopt: Any, base: Any) -> None:
    found = adopt(vpc_id=None)
    assert found["values"]["VpcId"] == base.vpc and found["found_by"]["vpc_id"] == f"subnet {base.subnets[0]}"


def test_what_does_not_fit_together_is_named_at_once(adopt: Any, lab: Any, base: Any) -> None:
    ec2 = lab.client("ec2")
    other = ec2.create_vpc(CidrBlock="10.2.0.0/16")["Vpc"]["VpcId"]
    group = ec2.create_security_group(GroupName="x", Description="x", VpcId=other)["GroupId"]
    same = ec2.create_subnet(VpcId=base.vpc, CidrBlock="10.1.9.0/24", AvailabilityZone="us-east-1a")["Subnet"][
        "SubnetId"
    ]
    said = adopt(subnet_ids=[base.subnets[0], same], security_group_ids=[group])["msg"]
    assert "2 faults" in said and f"security group {group} is in {other}, not in {base.vpc}" in said
    assert "are both in us-east-1a: MWAA needs two zones" in said


def test_numbers_that_mwaa_does_not_take(adopt: Any, base: Any) -> None:
    said = adopt(subnet_ids=[base.subnets[0]], security_group_ids=[base.group] * 6)["msg"]
    assert "exactly two subnets, and subnet_ids names 1" in said and "at most five security groups, not 6" in said


def test_a_role_of_another_account_and_a_key_of_awss_own(adopt: Any, lab: Any) -> None:
    lab.client("s3")
    said = adopt(role="arn:aws:iam::999999999999:role/theirs")["msg"]
    assert "role arn:aws:iam::999999999999:role/theirs is of account 999999999999" in said


def test_a_condition_of_the_trust_that_names_another_environment(adopt: Any, lab: Any) -> None:
    name = f"old-{uuid.uuid4().hex[:8]}"
    statement = {
        "Effect": "Allow",
        "Principal": {"Service": ["airflow.amazonaws.com", "airflow-env.amazonaws.com"]},
        "Action": "sts:AssumeRole",
        "Condition": {"ArnLike": {"aws:SourceArn": "arn:aws:airflow:us-east-1:000000000000:environment/old"}},
    }
    document = {"Version": "2012-10-17", "Statement": [statement]}
    lab.client("iam").create_role(RoleName=name, AssumeRolePolicyDocument=json.dumps(document))
    found = adopt(role=name)
    assert found["import_template"]["Resources"]["Role"]["Properties"]["AssumeRolePolicyDocument"] == document
    extended = found["base_template"]["Resources"]["Role"]["Properties"]["AssumeRolePolicyDocument"]["Statement"]
    assert extended[0] == statement and "Condition" not in extended[1]


def test_an_instance_by_its_address_and_subnets_with_a_way_out_before_others(adopt: Any, lab: Any) -> None:
    ec2 = lab.client("ec2")
    vpc = ec2.create_vpc(CidrBlock="10.3.0.0/16")["Vpc"]["VpcId"]
    gateway = ec2.create_internet_gateway()["InternetGateway"]["InternetGatewayId"]
    ec2.attach_internet_gateway(InternetGatewayId=gateway, VpcId=vpc)
    public, first, _cut_off, second = [
        ec2.create_subnet(VpcId=vpc, CidrBlock=f"10.3.{number}.0/24", AvailabilityZone=f"us-east-1{zone}")["Subnet"][
            "SubnetId"
        ]
        for number, zone in enumerate("babb")
    ]
    nat = ec2.create_nat_gateway(SubnetId=public, AllocationId=ec2.allocate_address(Domain="vpc")["AllocationId"])
    for subnets, way in (
        ([public], {"GatewayId": gateway}),
        ([first, second], {"NatGatewayId": nat["NatGateway"]["NatGatewayId"]}),
    ):
        table = ec2.create_route_table(VpcId=vpc)["RouteTable"]["RouteTableId"]
        ec2.create_route(RouteTableId=table, DestinationCidrBlock="0.0.0.0/0", **way)
        for subnet in subnets:
            ec2.associate_route_table(RouteTableId=table, SubnetId=subnet)
    group = ec2.create_security_group(GroupName="host", Description="x", VpcId=vpc)["GroupId"]
    made = ec2.run_instances(ImageId="ami-0", MinCount=1, MaxCount=1, SubnetId=public, SecurityGroupIds=[group])
    instance = made["Instances"][0]
    nothing = {"vpc_id": None, "subnet_ids": None, "security_group_ids": None}
    found = adopt(**nothing, instance_address=instance["PrivateIpAddress"])
    assert set(found["values"]["SubnetIds"].split(",")) == {
        first,
        second,
    }  # neither the public one nor that of no way out
    assert found["values"]["SecurityGroupIds"] == group
    assert found["found_by"]["subnet_ids"] == f"instance {instance['InstanceId']}"
    assert adopt(**nothing, instance_id=instance["InstanceId"])["values"] == found["values"]
    assert (
        "no instance with the address 10.99.99.99 in us-east-1"
        in adopt(**nothing, instance_address="10.99.99.99")["msg"]
    )


def test_a_vpc_without_two_private_subnets_says_which_it_has(adopt: Any, lab: Any) -> None:
    ec2 = lab.client("ec2")
    vpc = ec2.create_vpc(CidrBlock="10.4.0.0/16")["Vpc"]["VpcId"]
    subnet = ec2.create_subnet(VpcId=vpc, CidrBlock="10.4.0.0/24", AvailabilityZone="us-east-1a")["Subnet"]["SubnetId"]
    made = ec2.run_instances(ImageId="ami-0", MinCount=1, MaxCount=1, SubnetId=subnet)
    said = adopt(vpc_id=None, subnet_ids=None, instance_id=made["Instances"][0]["InstanceId"])["msg"]
    assert f"{vpc} has no two private subnets in two zones (private are {subnet} in us-east-1a;" in said


def test_what_is_in_a_stack_is_referred_to_by_its_id(adopt: Any, stack: Any, lab: Any) -> None:
    name = f"bucket-{uuid.uuid4().hex[:8]}"
    theirs = stack({"Resources": {"B": {"Type": "AWS::S3::Bucket", "Properties": {"BucketName": name}}}})
    found = adopt(bucket=name)
    assert [one["stack"] for one in found["resources"] if one["kind"] == "bucket"] == [theirs]
    assert "Bucket" not in found["import_template"]["Resources"]
    assert found["base_template"]["Outputs"]["BucketName"]["Value"] == name
    lab.client("cloudformation").delete_stack(StackName=theirs)


def test_a_base_that_was_made_anew_takes_nothing_in(adopt: Any, stack: Any) -> None:
    name = stack("Resources:\n  Topic:\n    Type: AWS::SNS::Topic\n")
    assert f"the template of stack {name} is YAML" in adopt(stack_name=name)["msg"]


def test_a_stack_that_has_a_part_is_added_to(adopt: Any, stack: Any, base: Any) -> None:
    """As after a first environment, or a run that was killed before its update: nothing in it is said otherwise."""
    first = {"Topic": {"Type": "AWS::SNS::Topic"}, "Bucket": {"Type": "AWS::SQS::Queue"}}
    name = stack({"Description": "ours", "Resources": first, "Outputs": {"T": {"Value": "x"}}})
    found = adopt(stack_name=name)
    template = found["import_template"]
    assert template["Outputs"] == {"T": {"Value": "x"}} and template["Description"] == "ours"
    assert {key: template["Resources"][key] for key in first} == first
    assert template["Resources"]["Bucket2"]["Properties"]["BucketName"] == base.bucket
    assert found["base_template"]["Outputs"]["BucketName"]["Value"] == {"Ref": "Bucket2"}
    assert found["base_template"]["Outputs"]["T"] == {"Value": "x"}


def test_an_environments_secret_options_stay_out_of_the_template(adopt: Any, base: Any) -> None:
    canary = f"CANARY-option-{uuid.uuid4().hex[:8]}"
    name = base.environment(AirflowConfigurationOptions={"smtp.smtp_password": canary}, Tags={"team": "a"})
    nothing = dict.fromkeys(("vpc_id", "subnet_ids", "security_group_ids", "bucket", "role"))
    found = adopt(**nothing, environment=name, environment_stack="theirs", adopt_environment=True)
    properties = found["environment_template"]["Resources"]["Environment"]["Properties"]
    assert "AirflowConfigurationOptions" not in properties and canary not in json.dumps(found)
    assert properties["Tags"] == {"team": "a"} and properties["Name"] == name and "Arn" not in properties
    assert found["environment_to_import"][0]["resource_identifier"] == {"Name": name}
    assert found["values"]["BucketName"] == base.bucket and found["found_by"]["bucket"] == f"environment {name}"
    said = adopt(environment="nobody", adopt_environment=True)["msg"]
    assert "environment nobody does not exist, so it cannot be adopted" in said
