# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""IAM enforced: who may do what, in AWS's own words, for users, roles, CloudFormation and MWAA's dry run."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterator
from typing import Any
from urllib.error import HTTPError
from urllib.request import urlopen

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

pytestmark = pytest.mark.lab

ACCOUNT = "000000000000"


def allow(actions: str | list[str], resources: str | list[str] = "*", **condition: Any) -> dict[str, Any]:
    statement: dict[str, Any] = {"Effect": "Allow", "Action": actions, "Resource": resources}
    return {**statement, "Condition": condition} if condition else statement


def deny(actions: str, resources: str = "*") -> dict[str, Any]:
    return {"Effect": "Deny", "Action": actions, "Resource": resources}


class User:
    """A user of the account with a policy, made by plain IAM calls, and its clients."""

    def __init__(self, lab: Any, *statements: dict[str, Any]) -> None:
        self.lab, self.name, self.iam = lab, f"user-{uuid.uuid4().hex[:8]}", lab.client("iam")
        self.arn = self.iam.create_user(UserName=self.name)["User"]["Arn"]
        self.may(*statements)
        key = self.iam.create_access_key(UserName=self.name)["AccessKey"]
        self.keys = {
            "aws_access_key_id": key["AccessKeyId"],
            "aws_secret_access_key": key["SecretAccessKey"],
        }

    def may(self, *statements: dict[str, Any]) -> None:
        """From now on these, and nothing else."""
        if statements:
            policy = json.dumps({"Version": "2012-10-17", "Statement": list(statements)})
            self.iam.put_user_policy(UserName=self.name, PolicyName="p", PolicyDocument=policy)

    def client(self, service: str, **keys: str) -> Any:
        return boto3.session.Session().client(
            service,
            endpoint_url=self.lab.endpoint,
            region_name="us-east-1",
            config=Config(inject_host_prefix=False, retries={"total_max_attempts": 1}),
            **(keys or self.keys),
        )


@pytest.fixture
def enforced(lab: Any) -> Iterator[Any]:
    lab.admin("POST", "iam", {"enforce": True})
    yield lab
    lab.admin("POST", "iam", {"enforce": False})


def refused(call: Any, **arguments: Any) -> tuple[str, str]:
    with pytest.raises(ClientError) as caught:
        call(**arguments)
    error = caught.value.response["Error"]
    return error["Code"], error["Message"]


def no(user: User, action: str, resource: str, quote: str = "") -> str:
    return (
        f"User: {user.arn} is not authorized to perform: {action} on resource: {quote}{resource}{quote} "
        f"because no identity-based policy allows the {action} action"
    )


# --- users and services ----------------------------------------------------------------------------------------------


def test_nobody_is_held_to_anything_unless_asked(lab):
    assert lab.admin("GET", "iam") == {"enforce": False}
    User(lab).client("s3").list_buckets()


def test_the_accounts_own_key_and_whoever_asks_who_it_is(enforced):
    enforced.client("s3").list_buckets()
    user = User(enforced)
    assert user.client("sts").get_caller_identity()["Arn"] == user.arn


def test_s3_says_it_in_xml(enforced, base):
    user = User(enforced, allow("s3:GetObject", f"arn:aws:s3:::{base.bucket}/dags/*"))
    enforced.client("s3").put_object(Bucket=base.bucket, Key="dags/a.py", Body=b"x")
    s3 = user.client("s3")
    assert s3.get_object(Bucket=base.bucket, Key="dags/a.py")["Body"].read() == b"x"
    code, message = refused(s3.put_object, Bucket=base.bucket, Key="dags/a.py", Body=b"y")
    assert (code, message) == ("AccessDenied", no(user, "s3:PutObject", f"arn:aws:s3:::{base.bucket}/dags/a.py", '"'))
    assert refused(s3.list_objects_v2, Bucket=base.bucket)[0] == "AccessDenied"
    assert refused(s3.head_object, Bucket=base.bucket, Key="other")[0] == "403"


def test_who_may_not_list_is_not_told_what_is_missing(enforced, base):
    user = User(enforced, allow("s3:GetObject", f"arn:aws:s3:::{base.bucket}/*"))
    s3 = user.client("s3")
    code, message = refused(s3.get_object, Bucket=base.bucket, Key="nothing")
    assert (code, message) == ("AccessDenied", no(user, "s3:ListBucket", f"arn:aws:s3:::{base.bucket}", '"'))
    user.may(allow(["s3:GetObject", "s3:ListBucket"]))
    assert refused(s3.get_object, Bucket=base.bucket, Key="nothing")[0] == "NoSuchKey"


def test_a_list_is_allowed_by_prefix(enforced, base):
    user = User(enforced, allow("s3:ListBucket", f"arn:aws:s3:::{base.bucket}", StringLike={"s3:prefix": "dags/*"}))
    s3 = user.client("s3")
    s3.list_objects_v2(Bucket=base.bucket, Prefix="dags/x")
    assert refused(s3.list_objects_v2, Bucket=base.bucket)[0] == "AccessDenied"


@pytest.mark.parametrize(
    ("service", "call", "arguments", "action", "resource", "code"),
    [
        ("ec2", "describe_vpcs", {}, "ec2:DescribeVpcs", "*", "UnauthorizedOperation"),
        ("iam", "get_role", {"RoleName": "r"}, "iam:GetRole", f"arn:aws:iam::{ACCOUNT}:role/r", "AccessDenied"),
        ("kms", "list_aliases", {}, "kms:ListAliases", "*", "AccessDeniedException"),
        (
            "secretsmanager",
            "get_secret_value",
            {"SecretId": "nothing"},
            "secretsmanager:GetSecretValue",
            f"arn:aws:secretsmanager:us-east-1:{ACCOUNT}:secret:nothing-??????",
            "AccessDeniedException",
        ),
        (
            "ssm",
            "get_parameter",
            {"Name": "/a/b"},
            "ssm:GetParameter",
            f"arn:aws:ssm:us-east-1:{ACCOUNT}:parameter/a/b",
            "AccessDeniedException",
        ),
        (
            "logs",
            "describe_log_streams",
            {"logGroupName": "airflow-e-Task"},
            "logs:DescribeLogStreams",
            f"arn:aws:logs:us-east-1:{ACCOUNT}:log-group:airflow-e-Task:*",
            "AccessDeniedException",
        ),
        (
            "cloudformation",
            "describe_stacks",
            {"StackName": "base"},
            "cloudformation:DescribeStacks",
            f"arn:aws:cloudformation:us-east-1:{ACCOUNT}:stack/base/*",
            "AccessDenied",
        ),
        (
            "mwaa",
            "get_environment",
            {"Name": "e"},
            "airflow:GetEnvironment",
            f"arn:aws:airflow:us-east-1:{ACCOUNT}:environment/e",
            "AccessDeniedException",
        ),
        ("mwaa", "list_environments", {}, "airflow:ListEnvironments", "*", "AccessDeniedException"),
    ],
)
def test_each_service_names_action_and_resource(enforced, service, call, arguments, action, resource, code):
    user = User(enforced, allow("sqs:*"))
    found = refused(getattr(user.client(service), call), **arguments)
    assert found[0] == code
    assert found[1].endswith(no(user, action, resource))
    user.may(allow(action, resource))
    try:
        getattr(user.client(service), call)(**arguments)
    except ClientError as error:  # what it asks for is not there, but it may ask
        assert "not authorized" not in str(error)


def test_a_denial_wins(enforced, base):
    user = User(enforced, allow("s3:*"), deny("s3:Delete*"))
    enforced.client("s3").put_object(Bucket=base.bucket, Key="kept", Body=b"x")
    code, message = refused(user.client("s3").delete_object, Bucket=base.bucket, Key="kept")
    assert code == "AccessDenied"
    assert message.endswith("with an explicit deny in an identity-based policy")


def test_a_key_that_is_nobodys(enforced):
    stranger = User(enforced)
    for service, call, code in (
        ("mwaa", "list_environments", "UnrecognizedClientException"),
        ("iam", "list_roles", "InvalidClientTokenId"),
        ("s3", "list_buckets", "InvalidAccessKeyId"),
    ):
        client = stranger.client(service, aws_access_key_id="AKIAQQQQQQQQQQQQQQQQ", aws_secret_access_key="x")
        assert refused(getattr(client, call))[0] == code


def test_a_presigned_url_can_what_its_signer_can(enforced, base):
    user = User(enforced, allow("s3:PutObject", f"arn:aws:s3:::{base.bucket}/in/*"))
    s3 = user.client("s3")

    def put(key: str) -> int:
        url = s3.generate_presigned_url("put_object", Params={"Bucket": base.bucket, "Key": key})
        from urllib.request import Request

        try:
            with urlopen(Request(url, data=b"x", method="PUT")) as answer:
                return answer.status
        except HTTPError as error:
            return error.code

    assert (put("in/a"), put("out/a")) == (200, 403)


def test_a_role_is_assumed_by_whom_it_trusts_and_who_may(enforced):
    iam, name = enforced.client("iam"), f"role-{uuid.uuid4().hex[:8]}"
    trust = {"Effect": "Allow", "Principal": {"AWS": f"arn:aws:iam::{ACCOUNT}:root"}, "Action": "sts:AssumeRole"}
    role = iam.create_role(RoleName=name, AssumeRolePolicyDocument=json.dumps({"Statement": [trust]}))["Role"]["Arn"]
    policy = json.dumps({"Statement": [allow("airflow:ListEnvironments")]})
    iam.put_role_policy(RoleName=name, PolicyName="p", PolicyDocument=policy)
    user = User(enforced, allow("sts:AssumeRole", f"{role}x"))
    sts = user.client("sts")
    assert refused(sts.assume_role, RoleArn=role, RoleSessionName="s1")[0] == "AccessDenied"
    user.may(allow("sts:AssumeRole", role))
    session = sts.assume_role(RoleArn=role, RoleSessionName="s1")["Credentials"]
    keys = {
        "aws_access_key_id": session["AccessKeyId"],
        "aws_secret_access_key": session["SecretAccessKey"],
        "aws_session_token": session["SessionToken"],
    }
    user.client("mwaa", **keys).list_environments()
    message = refused(user.client("s3", **keys).list_buckets)[1]
    assert f"arn:aws:sts::{ACCOUNT}:assumed-role/{name}/s1 is not authorized" in message


def test_a_key_is_opened_by_a_grant(enforced, base):
    kms, user = enforced.client("kms"), User(enforced, allow("sqs:*"))
    key = kms.create_key()["KeyMetadata"]["Arn"]
    context = {"request": "r1"}
    sealed = kms.encrypt(KeyId=key, Plaintext=b"x", EncryptionContext=context)["CiphertextBlob"]
    mine = user.client("kms")
    assert refused(mine.decrypt, CiphertextBlob=sealed, EncryptionContext=context)[0] == "AccessDeniedException"
    kms.create_grant(
        KeyId=key,
        GranteePrincipal=user.arn,
        Operations=["Decrypt"],
        Constraints={"EncryptionContextEquals": context},
    )
    assert mine.decrypt(CiphertextBlob=sealed, EncryptionContext=context)["Plaintext"] == b"x"
    assert refused(mine.encrypt, KeyId=key, Plaintext=b"x", EncryptionContext=context)[0] == "AccessDeniedException"


# --- MWAA ------------------------------------------------------------------------------------------------------------


def creator(base: Any, name: str, role: str = "") -> list[dict[str, Any]]:
    """What it takes to create an environment (user guide, AmazonMWAAFullApiAccess), held to what is used."""
    ec2 = f"arn:aws:ec2:us-east-1:{ACCOUNT}"
    network = [f"{ec2}:subnet/{one}" for one in base.subnets] + [f"{ec2}:security-group/{base.group}"]
    passed = {"StringLike": {"iam:PassedToService": "airflow.amazonaws.com"}}
    linked = f"arn:aws:iam::{ACCOUNT}:role/aws-service-role/airflow.amazonaws.com/AWSServiceRoleForAmazonMWAA"
    return [
        allow(["airflow:CreateEnvironment"], f"arn:aws:airflow:us-east-1:{ACCOUNT}:environment/{name}"),
        allow("iam:PassRole", role or base.role, **passed),
        allow("iam:CreateServiceLinkedRole", linked),
        allow(["ec2:DescribeSecurityGroups", "ec2:DescribeSubnets", "ec2:DescribeVpcs"]),
        allow("s3:GetEncryptionConfiguration", f"arn:aws:s3:::{base.bucket}"),
        allow("ec2:CreateVpcEndpoint", [f"{ec2}:vpc-endpoint/*", f"{ec2}:vpc/{base.vpc}", *network]),
        allow("ec2:CreateNetworkInterface", [f"{ec2}:network-interface/*", *network]),
    ]


def test_what_creating_an_environment_takes(enforced, base):
    settings = base.settings()
    needed = creator(base, settings["Name"])
    user = User(enforced, *needed)
    user.client("mwaa").create_environment(**settings)
    assert base.settled(settings["Name"])["Status"] == "AVAILABLE"
    roles = {role["RoleName"] for role in enforced.client("iam").list_roles(PathPrefix="/aws-service-role/")["Roles"]}
    assert "AWSServiceRoleForAmazonMWAA" in roles


@pytest.mark.parametrize(
    "action",
    [
        "airflow:CreateEnvironment",
        "iam:PassRole",
        "ec2:DescribeSubnets",
        "s3:GetEncryptionConfiguration",
        "ec2:CreateVpcEndpoint",
        "ec2:CreateNetworkInterface",
    ],
)
def test_each_of_it_is_missed_by_name(enforced, base, action):
    settings = base.settings()
    needed = creator(base, settings["Name"])
    for statement in needed:
        given = statement["Action"]
        kept = [one for one in ([given] if isinstance(given, str) else given) if one != action]
        statement["Action"] = kept or "sqs:ListQueues"
    user = User(enforced, *needed)
    code, message = refused(user.client("mwaa").create_environment, **settings)
    assert code == "AccessDeniedException"
    assert f"{user.arn} is not authorized to perform: {action} on resource: " in message
    assert settings["Name"] not in enforced.client("mwaa").list_environments()["Environments"]


def test_a_role_is_only_passed_to_the_service_that_the_policy_names(enforced, base):
    settings = base.settings()
    needed = [it for it in creator(base, settings["Name"]) if it["Action"] != "iam:PassRole"]
    elsewhere = {"StringEquals": {"iam:PassedToService": "ecs-tasks.amazonaws.com"}}
    user = User(enforced, *needed, allow("iam:PassRole", "*", **elsewhere))
    message = refused(user.client("mwaa").create_environment, **settings)[1]
    assert message == no(user, "iam:PassRole", base.role)


def test_an_update_that_puts_a_role_in_passes_it(enforced, base):
    name = base.environment()
    user = User(enforced, allow("airflow:UpdateEnvironment"))
    mwaa = user.client("mwaa")
    message = refused(mwaa.update_environment, Name=name, ExecutionRoleArn=base.role)[1]
    assert message == no(user, "iam:PassRole", base.role)
    mwaa.update_environment(Name=name, MaxWorkers=4)
    assert base.settled(name)["MaxWorkers"] == 4


def test_a_customers_key_takes_grants(enforced, base):
    key = enforced.client("kms").create_key()["KeyMetadata"]["Arn"]
    settings = base.settings(KmsKey=key)
    user = User(enforced, *creator(base, settings["Name"]))
    assert no(user, "kms:DescribeKey", key) in refused(user.client("mwaa").create_environment, **settings)[1]
    verbs = ["DescribeKey", "ListGrants", "CreateGrant", "RevokeGrant", "Decrypt", "Encrypt"]
    grants = [f"kms:{verb}" for verb in (*verbs, "GenerateDataKey*", "ReEncrypt*")]
    user.may(*creator(base, settings["Name"]), allow(grants, key))
    user.client("mwaa").create_environment(**settings)
    assert base.settled(settings["Name"])["Status"] == "AVAILABLE"


def test_calls_into_an_environment_take_a_role_of_it(enforced, base):
    name = base.environment()
    call = {"Name": name, "Method": "GET", "Path": "/dags"}
    user = User(enforced, allow("airflow:*", f"arn:aws:airflow:us-east-1:{ACCOUNT}:environment/{name}"))
    mwaa = user.client("mwaa")
    mwaa.create_cli_token(Name=name)
    code, message = refused(mwaa.invoke_rest_api, **call)
    role = f"arn:aws:airflow:us-east-1:{ACCOUNT}:role/{name}/Admin"
    assert code == "AccessDeniedException" and f"airflow:InvokeRestApi on resource: {role}" in message
    user.may(allow("airflow:InvokeRestApi", role.replace("Admin", "Viewer")))
    assert mwaa.invoke_rest_api(**call)["RestApiStatusCode"] == 200
    assert refused(mwaa.create_cli_token, Name=name)[0] == "AccessDeniedException"


def test_an_environment_reads_with_its_own_role(enforced, base):
    """The execution role of these tests has no policy: nothing of the bucket is seen."""
    enforced.client("s3").put_object(Bucket=base.bucket, Key="requirements.txt", Body=b"")
    settings = base.settings(RequirementsS3Path="requirements.txt")
    enforced.client("mwaa").create_environment(**settings)
    shown = base.settled(settings["Name"])
    assert shown["Status"] == "CREATE_FAILED"
    assert "requirements.txt" in shown["LastUpdate"]["Error"]["ErrorMessage"]


# --- CloudFormation --------------------------------------------------------------------------------------------------


def bucket_template(name: str) -> str:
    properties = {"BucketName": name, "VersioningConfiguration": {"Status": "Enabled"}}
    return json.dumps({"Resources": {"Bucket": {"Type": "AWS::S3::Bucket", "Properties": properties}}})


def over(cloudformation: Any, stack: str) -> str:
    while True:
        status = cloudformation.describe_stacks(StackName=stack)["Stacks"][0]["StackStatus"]
        if not status.endswith("IN_PROGRESS"):
            return status
        time.sleep(0.1)


def reasons(lab: Any, stack: str) -> str:
    events = lab.client("cloudformation").describe_stack_events(StackName=stack)["StackEvents"]
    return "\n".join(event.get("ResourceStatusReason", "") for event in events)


def test_a_stack_can_what_its_caller_can(enforced):
    name = f"stack-{uuid.uuid4().hex[:8]}"
    bucket = f"arn:aws:s3:::{name}"
    user = User(enforced, allow("cloudformation:*"), allow(["s3:CreateBucket", "s3:PutBucketTagging"], bucket))
    cloudformation = user.client("cloudformation")
    cloudformation.create_stack(StackName=name, TemplateBody=bucket_template(name), OnFailure="DO_NOTHING")
    assert over(cloudformation, name) == "CREATE_FAILED"
    assert no(user, "s3:PutBucketVersioning", bucket) in reasons(enforced, name)
    assert "HandlerErrorCode: AccessDenied" in reasons(enforced, name)
    user.may(
        allow("cloudformation:*"),
        allow(["s3:CreateBucket", "s3:PutBucketTagging", "s3:PutBucketVersioning"], bucket),
        allow("s3:DeleteBucket", bucket),
    )
    cloudformation.delete_stack(StackName=name)
    cloudformation.get_waiter("stack_delete_complete").wait(StackName=name, WaiterConfig={"Delay": 1})
    cloudformation.create_stack(StackName=name, TemplateBody=bucket_template(name))
    assert over(cloudformation, name) == "CREATE_COMPLETE"


def test_a_stack_with_a_role_can_what_the_role_can(enforced):
    iam, name = enforced.client("iam"), f"stack-{uuid.uuid4().hex[:8]}"
    trust = {"Effect": "Allow", "Principal": {"Service": "cloudformation.amazonaws.com"}, "Action": "sts:AssumeRole"}
    role = iam.create_role(RoleName=name, AssumeRolePolicyDocument=json.dumps({"Statement": [trust]}))["Role"]["Arn"]
    policy = json.dumps({"Statement": [allow("s3:*", f"arn:aws:s3:::{name}")]})
    iam.put_role_policy(RoleName=name, PolicyName="p", PolicyDocument=policy)
    user = User(enforced, allow("cloudformation:*"))
    cloudformation = user.client("cloudformation")
    given = {"StackName": name, "TemplateBody": bucket_template(name), "RoleARN": role}
    assert refused(cloudformation.create_stack, **given) == ("AccessDenied", no(user, "iam:PassRole", role))
    passed = {"StringEquals": {"iam:PassedToService": "cloudformation.amazonaws.com"}}
    user.may(allow("cloudformation:*"), allow("iam:PassRole", role, **passed))
    began = time.time()
    cloudformation.create_stack(**given)
    assert over(cloudformation, name) == "CREATE_COMPLETE"
    lines = [json.loads(line) for line in (enforced.folder / "journal.jsonl").read_text().splitlines()]
    made = next(it for it in lines if it["time"] >= began and it["operation"] == "Create AWS::S3::Bucket")
    assert made["principal"] == f"arn:aws:sts::{ACCOUNT}:assumed-role/{name}/AWSCloudFormation"
    cloudformation.delete_stack(StackName=name)  # the stack keeps its role
    cloudformation.get_waiter("stack_delete_complete").wait(StackName=name, WaiterConfig={"Delay": 1})


def test_an_environment_in_a_stack_takes_what_it_takes_without(enforced, base):
    settings = base.settings()
    name = settings["Name"]
    template = {"Resources": {"E": {"Type": "AWS::MWAA::Environment", "Properties": settings}}}
    rest = [it for it in creator(base, name) if it["Action"] != "iam:PassRole"]
    environment = f"arn:aws:airflow:us-east-1:{ACCOUNT}:environment/{name}"
    more = allow([f"airflow:{verb}" for verb in ("GetEnvironment", "DeleteEnvironment", "TagResource")], environment)
    user = User(enforced, allow("cloudformation:*"), more, *rest)
    cloudformation = user.client("cloudformation")
    cloudformation.create_stack(StackName=name, TemplateBody=json.dumps(template), OnFailure="DO_NOTHING")
    assert over(cloudformation, name) == "CREATE_FAILED"
    assert no(user, "iam:PassRole", base.role) in reasons(enforced, name)


def test_a_secret_is_read_in_the_callers_name(enforced):
    name = f"stack-{uuid.uuid4().hex[:8]}"
    secret = enforced.client("secretsmanager").create_secret(Name=name, SecretString="s")["ARN"]
    parameter = {
        "Type": "AWS::SSM::Parameter",
        "Properties": {"Type": "String", "Name": name, "Value": f"{{{{resolve:secretsmanager:{name}}}}}"},
    }
    user = User(enforced, allow(["cloudformation:*", "ssm:*"]))
    cloudformation = user.client("cloudformation")
    cloudformation.create_stack(
        StackName=name, TemplateBody=json.dumps({"Resources": {"P": parameter}}), OnFailure="DO_NOTHING"
    )
    assert over(cloudformation, name) == "CREATE_FAILED"
    assert no(user, "secretsmanager:GetSecretValue", secret) in reasons(enforced, name)


# --- the journal -----------------------------------------------------------------------------------------------------


def test_the_journal_names_what_a_call_took(lab, base):
    user, began = User(lab), time.time()
    user.client("s3").put_object(Bucket=base.bucket, Key="a b/c", Body=b"")
    user.client("sts").get_caller_identity()
    settings = base.settings()
    user.client("mwaa").create_environment(**settings)
    base.settled(settings["Name"])
    user.client("mwaa").invoke_rest_api(Name=settings["Name"], Method="GET", Path="/dags")
    put, who, create, call = [it for it in lab.journal(began) if it["principal"] == user.arn]
    assert put["action"] == {"s3:PutObject": [f"arn:aws:s3:::{base.bucket}/a b/c"]}
    assert who["action"] == {}
    assert create["action"]["iam:PassRole"] == [base.role]
    assert create["action"]["s3:GetEncryptionConfiguration"] == [f"arn:aws:s3:::{base.bucket}"]
    role = f"arn:aws:airflow:us-east-1:{ACCOUNT}:role/{settings['Name']}/Admin"
    assert call["action"] == {"airflow:InvokeRestApi": [role]}
