# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who one is in an environment's Airflow: the role whose ARN the caller's IAM policy names."""

from __future__ import annotations

import json
import uuid
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

pytestmark = pytest.mark.lab

ACCOUNT = "000000000000"


def session(lab: Any, *statements: dict[str, Any]) -> Any:
    """An mwaa client with the session of a new IAM role that has these statements."""
    iam, name = lab.client("iam"), f"caller-{uuid.uuid4().hex[:8]}"
    trust = {"Effect": "Allow", "Principal": {"AWS": f"arn:aws:iam::{ACCOUNT}:root"}, "Action": "sts:AssumeRole"}
    arn = iam.create_role(RoleName=name, AssumeRolePolicyDocument=json.dumps({"Statement": [trust]}))["Role"]["Arn"]
    if statements:
        iam.put_role_policy(RoleName=name, PolicyName="p", PolicyDocument=json.dumps({"Statement": list(statements)}))
    key = lab.client("sts").assume_role(RoleArn=arn, RoleSessionName="test")["Credentials"]
    return boto3.session.Session().client(
        "mwaa",
        endpoint_url=lab.endpoint,
        region_name="us-east-1",
        aws_access_key_id=key["AccessKeyId"],
        aws_secret_access_key=key["SecretAccessKey"],
        aws_session_token=key["SessionToken"],
        config=Config(inject_host_prefix=False, retries={"total_max_attempts": 1}),
    )


def allow(environment: str, *roles: str, action: Any = ("airflow:InvokeRestApi",)) -> dict[str, Any]:
    resources = [f"arn:aws:airflow:us-east-1:{ACCOUNT}:role/{environment}/{role}" for role in roles]
    return {"Effect": "Allow", "Action": list(action), "Resource": resources}


def outcome(mwaa: Any, name: str, method: str, path: str, body: Any = None) -> int | str:
    more = {"Body": body} if body is not None else {}
    try:
        return mwaa.invoke_rest_api(Name=name, Method=method, Path=path, **more)["RestApiStatusCode"]
    except ClientError as error:
        return error.response.get("RestApiStatusCode") or error.response["Error"]["Code"]


@pytest.fixture(scope="module")
def environment(base: Any) -> str:
    base.lab.client("s3").put_object(
        Bucket=base.bucket, Key="dags/nightly.py", Body=b"from airflow import DAG\ndag = DAG('nightly')\n"
    )
    return base.environment(AirflowVersion="2.11.2")


@pytest.mark.parametrize(
    ("role", "reads_dags", "triggers", "reads_variables", "writes_variables"),
    [
        ("Admin", 200, 200, 200, 200),
        ("Op", 200, 200, 200, 200),
        ("User", 200, 200, 403, 403),
        ("Viewer", 200, 403, 403, 403),
        ("Public", 403, 403, 403, 403),
    ],
)
def test_a_policy_names_the_role(lab, environment, role, reads_dags, triggers, reads_variables, writes_variables):
    mwaa = session(lab, allow(environment, role))
    assert outcome(mwaa, environment, "GET", "/dags") == reads_dags
    assert outcome(mwaa, environment, "POST", "/dags/nightly/dagRuns", {"conf": {}}) == triggers
    assert outcome(mwaa, environment, "GET", "/variables") == reads_variables
    assert outcome(mwaa, environment, "POST", "/variables", {"key": role, "value": "1"}) == writes_variables


def test_the_environments_own_arn_is_none_of_a_role(lab, environment):
    arn = f"arn:aws:airflow:us-east-1:{ACCOUNT}:environment/{environment}"
    mwaa = session(lab, {"Effect": "Allow", "Action": "airflow:InvokeRestApi", "Resource": arn})
    assert outcome(mwaa, environment, "GET", "/dags") == "AccessDeniedException"


def test_the_highest_of_several_counts_unless_it_is_denied(lab, environment):
    deny = {**allow(environment, "Admin", "Op"), "Effect": "Deny"}
    assert outcome(session(lab, allow(environment, "*")), environment, "GET", "/variables") == 200
    assert outcome(session(lab, allow(environment, "*"), deny), environment, "GET", "/variables") == 403


def test_who_may_call_one_thing_may_not_call_another(lab, environment):
    mwaa = session(lab, allow(environment, "Admin"))
    for call in (mwaa.create_cli_token, mwaa.create_web_login_token):
        with pytest.raises(ClientError, match="is not authorized to perform: airflow:Create"):
            call(Name=environment)


def test_a_web_session_keeps_its_role(lab, environment):
    from test_aws_webserver import send

    mwaa = session(lab, allow(environment, "Viewer", action=["airflow:CreateWebLoginToken"]))
    token = mwaa.create_web_login_token(Name=environment)["WebToken"]
    _, _, headers = send(lab, "POST", "/aws_mwaa/login", f"token={token}")
    cookie = headers["set-cookie"].partition(";")[0]
    assert send(lab, "GET", "/api/v1/dags", cookie=cookie)[0] == 200
    assert send(lab, "GET", "/api/v1/variables", cookie=cookie)[0] == 403


def test_policies_that_say_nothing_of_environments_are_not_enforced(lab, environment):
    mwaa = session(lab, {"Effect": "Allow", "Action": "s3:*", "Resource": "*"})
    assert outcome(mwaa, environment, "GET", "/variables") == 200
