# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which IAM actions requests and stacks take, in examples."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import urlencode

import pytest

pytest.importorskip("mwaa_lab", reason="the lab is not installed in this environment")

from mwaa_lab import cli  # noqa: E402
from mwaa_lab.aws import permissions  # noqa: E402
from mwaa_lab.aws.permissions import Need, Request  # noqa: E402

ACCOUNT, REGION = "000000000000", "us-east-1"
EC2 = f"arn:aws:ec2:{REGION}:{ACCOUNT}"
ROLE = f"arn:aws:iam::{ACCOUNT}:role/mwaa"


def request(service: str, operation: str, *, method: str = "POST", path: str = "/", **given: Any) -> Request:
    """A request with a form (values are text) or a JSON document (``body``)."""
    document, query = given.pop("body", None), given.pop("query", {})
    if document is not None:
        body, kind = json.dumps(document).encode(), "application/x-amz-json-1.1"
    else:
        body, kind = urlencode(given).encode(), "application/x-www-form-urlencoded"
    headers = {"content-type": kind}
    return Request(service, operation, method, path, headers, query, body, ACCOUNT, REGION)


def needed(*args: Any, **given: Any) -> list[tuple[str, str]]:
    return [(need.action, need.resource) for need in permissions.of(request(*args, **given))]


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        (request("ec2", "DescribeSubnets", **{"SubnetId.1": "subnet-1"}), [("ec2:DescribeSubnets", "*")]),
        (
            request("ec2", "CreateSubnet", VpcId="vpc-1", CidrBlock="10.0.0.0/24"),
            [("ec2:CreateSubnet", f"{EC2}:subnet/*"), ("ec2:CreateSubnet", f"{EC2}:vpc/vpc-1")],
        ),
        (
            request("ec2", "CreateTags", **{"ResourceId.1": "sg-1", "Tag.1.Key": "a", "Tag.1.Value": "b"}),
            [("ec2:CreateTags", f"{EC2}:security-group/sg-1")],
        ),
        (
            request("iam", "CreateRole", RoleName="r", Path="/x/"),
            [("iam:CreateRole", f"arn:aws:iam::{ACCOUNT}:role/x/r")],
        ),
        (request("iam", "ListRoles"), [("iam:ListRoles", "*")]),
        (request("sts", "GetCallerIdentity"), []),
        (request("sts", "AssumeRole", RoleArn=ROLE), [("sts:AssumeRole", ROLE)]),
        (request("kms", "ListAliases", body={}), [("kms:ListAliases", "*")]),
        (
            request("ssm", "GetParameters", body={"Names": ["/a", "b"]}),
            [
                ("ssm:GetParameters", f"arn:aws:ssm:{REGION}:{ACCOUNT}:parameter/a"),
                ("ssm:GetParameters", f"arn:aws:ssm:{REGION}:{ACCOUNT}:parameter/b"),
            ],
        ),
        (
            request("logs", "PutLogEvents", body={"logGroupName": "g", "logStreamName": "s"}),
            [("logs:PutLogEvents", f"arn:aws:logs:{REGION}:{ACCOUNT}:log-group:g:log-stream:s")],
        ),
        (
            request("logs", "FilterLogEvents", body={"logGroupName": "g"}),
            [("logs:FilterLogEvents", f"arn:aws:logs:{REGION}:{ACCOUNT}:log-group:g:*")],
        ),
        (request("cloudformation", "ListExports"), [("cloudformation:ListExports", "*")]),
        (
            request(
                "cloudformation",
                "CreateStack",
                StackName="s",
                RoleARN=ROLE,
                TemplateURL="https://b.s3.us-east-1.amazonaws.com/t/a.yaml",
            ),
            [
                ("cloudformation:CreateStack", f"arn:aws:cloudformation:{REGION}:{ACCOUNT}:stack/s/*"),
                ("s3:GetObject", "arn:aws:s3:::b/t/a.yaml"),
                ("iam:PassRole", ROLE),
            ],
        ),
        (
            request("airflow", "UpdateEnvironment", method="PATCH", path="/environments/e", body={}),
            [("airflow:UpdateEnvironment", f"arn:aws:airflow:{REGION}:{ACCOUNT}:environment/e")],
        ),
        (request("servicequotas", "GetServiceQuota", body={}), [("servicequotas:GetServiceQuota", "*")]),
        (
            request("s3", "CopyObject", method="PUT", path="/b/k", query={}),
            [("s3:PutObject", "arn:aws:s3:::b/k")],
        ),
    ],
    ids=lambda value: f"{value.service}:{value.operation}" if isinstance(value, Request) else "",
)
def test_what_a_request_takes(asked, expected):
    assert [(need.action, need.resource) for need in permissions.of(asked)] == expected


def test_deleting_many_objects_takes_each():
    body = b"<Delete><Object><Key>a</Key></Object><Object><Key>b</Key><VersionId>v</VersionId></Object></Delete>"
    asked = Request("s3", "DeleteObjects", "POST", "/bucket", {}, {"delete": [""]}, body, ACCOUNT, REGION)
    assert [(need.action, need.resource) for need in permissions.of(asked)] == [
        ("s3:DeleteObject", "arn:aws:s3:::bucket/a"),
        ("s3:DeleteObjectVersion", "arn:aws:s3:::bucket/b"),
    ]


def test_a_role_is_passed_to_a_service():
    given = {"ExecutionRoleArn": ROLE, "SourceBucketArn": "arn:aws:s3:::b", "NetworkConfiguration": {}}
    passed = permissions.dry_run(given, ACCOUNT, REGION)[0]
    assert passed == Need("iam:PassRole", ROLE)
    assert passed.context == {"iam:passedtoservice": "airflow.amazonaws.com"}


def in_stack(kind: str, step: str, old: dict[str, Any], new: dict[str, Any], identifier: str = "") -> set[str]:
    needs = permissions.of_resource(kind, step, identifier, old, new, ACCOUNT, REGION)
    return {f"{need.action} {need.resource}" for need in needs}


def test_a_bucket_in_a_stack_takes_what_its_properties_take():
    versioned = {"BucketName": "b", "VersioningConfiguration": {"Status": "Enabled"}}
    assert in_stack("AWS::S3::Bucket", "create", {}, versioned) == {
        "s3:CreateBucket arn:aws:s3:::b",
        "s3:PutBucketVersioning arn:aws:s3:::b",
        "s3:PutBucketTagging arn:aws:s3:::b",
    }
    found = in_stack("AWS::S3::Bucket", "update", {"BucketName": "b"}, versioned, "b")
    assert found == {"s3:PutBucketVersioning arn:aws:s3:::b"}
    assert in_stack("AWS::S3::Bucket", "delete", versioned, {}, "b") == {"s3:DeleteBucket arn:aws:s3:::b"}


def test_a_part_of_a_resource_takes_the_right_to_the_whole():
    route = {"RouteTableId": "rtb-1", "DestinationCidrBlock": "0.0.0.0/0"}
    found = in_stack("AWS::EC2::Route", "create", {}, route)
    assert found == {f"ec2:CreateRoute {EC2}:route-table/rtb-1", "ec2:DescribeRouteTables *"}
    policy = {"RoleName": "nobody-yet", "PolicyName": "p"}
    found = in_stack("AWS::IAM::RolePolicy", "update", policy, policy, "p")
    assert found == {f"iam:{verb}RolePolicy arn:aws:iam::{ACCOUNT}:role/nobody-yet" for verb in ("Put", "Get")}


def test_what_is_made_beside_other_things_is_checked_on_them():
    found = in_stack("AWS::EC2::NatGateway", "create", {}, {"SubnetId": "subnet-1", "AllocationId": "eipalloc-1"})
    assert {line.partition(" ")[2] for line in found if line.startswith("ec2:CreateNatGateway")} == {
        f"{EC2}:natgateway/*",
        f"{EC2}:subnet/subnet-1",
        f"{EC2}:elastic-ip/eipalloc-1",
    }


def test_an_environment_in_a_stack_takes_mwaas_dry_run():
    given = {"Name": "e", "ExecutionRoleArn": ROLE, "SourceBucketArn": "arn:aws:s3:::b", "NetworkConfiguration": {}}
    found = in_stack("AWS::MWAA::Environment", "create", {}, given)
    assert f"airflow:CreateEnvironment arn:aws:airflow:{REGION}:{ACCOUNT}:environment/e" in found
    assert f"iam:PassRole {ROLE}" in found
    other = {**given, "ExecutionRoleArn": f"{ROLE}2"}
    assert f"iam:PassRole {ROLE}2" in in_stack("AWS::MWAA::Environment", "update", given, other, "e")
    assert not any(
        line.startswith("iam:") for line in in_stack("AWS::MWAA::Environment", "update", given, {**given, "x": 1}, "e")
    )


def test_the_union_of_actions_by_principal():
    def line(caller: str, error: str | None = None, **action: list[str]) -> str:
        named = {key.replace("_", ":"): value for key, value in action.items()}
        return json.dumps({"principal": "arn:u", "caller": caller, "error": error, "action": named})

    lines = [
        line("user", s3_GetObject=["b"]),
        line("user", "NoSuchKey", s3_GetObject=["a"]),
        line("cloudformation", ec2_CreateVpc=["*"]),
        line("user", "AccessDenied", s3_PutObject=["a"]),
        line("service", logs_PutLogEvents=["*"]),
    ]
    assert cli.taken(lines) == {"arn:u": {"ec2:CreateVpc": ["*"], "s3:GetObject": ["a", "b"]}}
