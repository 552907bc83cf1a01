# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Quotas, simulated policies and the service-linked role of an account."""

from __future__ import annotations

import json
import uuid
from typing import Any

import pytest
from botocore.exceptions import ClientError

pytestmark = pytest.mark.lab


def policy(*statements: dict[str, Any]) -> str:
    return json.dumps({"Version": "2012-10-17", "Statement": list(statements)})


@pytest.fixture
def role(lab: Any) -> dict[str, Any]:
    name = f"role-{uuid.uuid4().hex[:8]}"
    trust = policy({"Effect": "Allow", "Principal": {"Service": "airflow.amazonaws.com"}, "Action": "sts:AssumeRole"})
    return lab.client("iam").create_role(RoleName=name, Path="/service-role/", AssumeRolePolicyDocument=trust)["Role"]


def test_mwaas_quotas(lab):
    quotas = lab.client("service-quotas")
    found = {one["QuotaName"]: one for one in quotas.list_service_quotas(ServiceCode="airflow")["Quotas"]}
    assert {name: one["Value"] for name, one in found.items()} == {
        "Environments": 10,
        "Workers per environment": 25,
        "Web servers per environment": 5,
    }
    code = found["Environments"]["QuotaCode"]
    assert quotas.get_service_quota(ServiceCode="airflow", QuotaCode=code)["Quota"] == found["Environments"]
    with pytest.raises(ClientError, match="NoSuchResourceException"):
        quotas.get_service_quota(ServiceCode="airflow", QuotaCode="L-0")


def test_what_a_role_may_is_simulated_for_each_action_and_resource(lab, role):
    iam = lab.client("iam")
    document = policy(
        {"Effect": "Allow", "Action": "s3:Get*", "Resource": "arn:aws:s3:::mine/*"},
        {"Effect": "Deny", "Action": "s3:ListAllMyBuckets", "Resource": "*"},
        {
            "Effect": "Allow",
            "Action": "iam:PassRole",
            "Resource": "*",
            "Condition": {"StringEquals": {"iam:PassedToService": "airflow.amazonaws.com"}},
        },
    )
    iam.put_role_policy(RoleName=role["RoleName"], PolicyName="p", PolicyDocument=document)

    def decide(actions: list[str], resources: list[str], **context: str) -> list[str]:
        entries = [
            {"ContextKeyName": key.replace("_", ":"), "ContextKeyValues": [value], "ContextKeyType": "string"}
            for key, value in context.items()
        ]
        found = iam.simulate_principal_policy(
            PolicySourceArn=role["Arn"], ActionNames=actions, ResourceArns=resources, ContextEntries=entries
        )
        return [one["EvalDecision"] for one in found["EvaluationResults"]]

    mine, other = "arn:aws:s3:::mine/dags/a.py", "arn:aws:s3:::other/a.py"
    assert decide(["s3:GetObject", "s3:PutObject"], [mine, other]) == [
        "allowed",
        "implicitDeny",
        "implicitDeny",
        "implicitDeny",
    ]
    assert decide(["s3:ListAllMyBuckets"], ["*"]) == ["explicitDeny"]
    assert decide(["iam:PassRole"], ["*"]) == ["implicitDeny"]
    assert decide(["iam:PassRole"], ["*"], iam_PassedToService="airflow.amazonaws.com") == ["allowed"]
    assert decide(["iam:PassRole"], ["*"], iam_PassedToService="ec2.amazonaws.com") == ["implicitDeny"]


def test_a_boundary_narrows_what_a_role_may(lab, role):
    iam, name = lab.client("iam"), role["RoleName"]
    everything = policy({"Effect": "Allow", "Action": "*", "Resource": "*"})
    iam.put_role_policy(RoleName=name, PolicyName="all", PolicyDocument=everything)
    reading = policy({"Effect": "Allow", "Action": "s3:Get*", "Resource": "*"})
    boundary = iam.create_policy(PolicyName=name, PolicyDocument=reading)["Policy"]["Arn"]
    iam.put_role_permissions_boundary(RoleName=name, PermissionsBoundary=boundary)
    found = iam.simulate_principal_policy(PolicySourceArn=role["Arn"], ActionNames=["s3:GetObject", "s3:PutObject"])
    assert [
        (one["EvalDecision"], one["PermissionsBoundaryDecisionDetail"]["AllowedByPermissionsBoundary"])
        for one in found["EvaluationResults"]
    ] == [("allowed", True), ("implicitDeny", False)]


def test_a_principal_that_is_not_there(lab):
    with pytest.raises(ClientError, match="NoSuchEntity"):
        lab.client("iam").simulate_principal_policy(
            PolicySourceArn="arn:aws:iam::000000000000:role/nobody", ActionNames=["s3:GetObject"]
        )


def test_the_service_linked_role_has_the_name_that_aws_gives_it(lab):
    iam = lab.client("iam", key="111111111111")
    made = iam.create_service_linked_role(AWSServiceName="airflow.amazonaws.com")["Role"]
    assert made["Arn"] == (
        "arn:aws:iam::111111111111:role/aws-service-role/airflow.amazonaws.com/AWSServiceRoleForAmazonMWAA"
    )
    assert iam.get_role(RoleName="AWSServiceRoleForAmazonMWAA")["Role"]["Arn"] == made["Arn"]
