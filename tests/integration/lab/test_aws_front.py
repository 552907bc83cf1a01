# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the lab adds around every service: rules that ministack lacks, faults on order, and the journal."""

from __future__ import annotations

import http.client
import json
import time
import uuid
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError, ConnectionClosedError

pytestmark = pytest.mark.lab

_AUTH = "AWS4-HMAC-SHA256 Credential=000000000000/20260101/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=0"


def retrying(lab: Any, service: str) -> Any:
    """A client with botocore's standard retries."""
    return boto3.session.Session().client(
        service,
        endpoint_url=lab.endpoint,
        region_name="us-east-1",
        aws_access_key_id="000000000000",
        aws_secret_access_key="lab",
        config=Config(inject_host_prefix=False, retries={"mode": "standard", "total_max_attempts": 4}),
    )


# --- rules -----------------------------------------------------------------------------------------------------------


def test_chunked_uploads_are_not_implemented(lab, base):
    connection = http.client.HTTPConnection("127.0.0.1", lab.http)
    connection.request(
        "PUT", f"/{base.bucket}/chunked", body=iter([b"a", b"b"]), headers={"Authorization": _AUTH}, encode_chunked=True
    )
    answer = connection.getresponse()
    assert (answer.status, b"<Code>NotImplemented</Code>" in answer.read()) == (501, True)
    connection = http.client.HTTPConnection("127.0.0.1", lab.http)
    connection.request("PUT", f"/{base.bucket}/whole", body=b"ab", headers={"Authorization": _AUTH})
    assert connection.getresponse().status == 200


def test_log_events_have_an_age_an_order_and_a_size(lab):
    logs, day, now = lab.client("logs"), 24 * 3600 * 1000, int(time.time() * 1000)
    group = f"lab-{uuid.uuid4().hex[:8]}"
    logs.create_log_group(logGroupName=group)
    logs.create_log_stream(logGroupName=group, logStreamName="s")

    def put(*times: int, message: str = "x") -> Any:
        events = [{"timestamp": time, "message": message} for time in times]
        return logs.put_log_events(logGroupName=group, logStreamName="s", logEvents=events)

    def refused(*times: int, message: str = "x") -> str:
        with pytest.raises(ClientError) as caught:
            put(*times, message=message)
        assert caught.value.response["Error"]["Code"] == "InvalidParameterException"
        return caught.value.response["Error"]["Message"]

    assert put(now - 15 * day, now - 15 * day + 5)["rejectedLogEventsInfo"] == {"tooOldLogEventEndIndex": 2}
    assert put(now, now + 3 * 3600 * 1000)["rejectedLogEventsInfo"] == {"tooNewLogEventStartIndex": 1}
    assert "chronological" in refused(now, now - 1)
    assert "24 hours" in refused(now - 2 * day, now)
    assert "10000" in refused(*[now] * 10_001)
    assert "Upload too large" in refused(*[now] * 11, message="x" * 100_000)
    logs.put_retention_policy(logGroupName=group, retentionInDays=3)
    assert put(now - 4 * day)["rejectedLogEventsInfo"] == {"expiredLogEventEndIndex": 1}
    assert len(logs.get_log_events(logGroupName=group, logStreamName="s")["events"]) == 1


def test_secrets_and_parameters_have_a_size(lab):
    secrets, ssm = lab.client("secretsmanager"), lab.client("ssm")
    with pytest.raises(ClientError, match="length less than or equal to 65536"):
        secrets.create_secret(Name=uuid.uuid4().hex, SecretString="x" * 65_537)
    with pytest.raises(ClientError, match="maximum parameter value of 4096"):
        ssm.put_parameter(Name=uuid.uuid4().hex, Value="x" * 4097, Type="String")


# --- faults ----------------------------------------------------------------------------------------------------------


def test_a_throttled_call_is_retried_by_botocore(lab):
    lab.admin("POST", "faults", [{"service": "mwaa", "operation": "List*", "times": 2, "error": "ThrottlingException"}])
    answer = retrying(lab, "mwaa").list_environments()
    assert answer["ResponseMetadata"]["RetryAttempts"] == 2
    assert lab.admin("GET", "faults")[0]["fired"] == 2


@pytest.mark.parametrize(
    ("service", "operation", "arguments", "error"),
    [
        ("s3", "put_object", {"Key": "k", "Body": b"1"}, "SlowDown"),
        ("ec2", "describe_vpcs", {}, "RequestLimitExceeded"),
        ("iam", "list_roles", {}, "Throttling"),
        ("cloudformation", "describe_stacks", {}, "ExpiredToken"),
        ("kms", "list_keys", {}, "ThrottlingException"),
        ("sts", "get_caller_identity", {}, "ExpiredToken"),
        ("secretsmanager", "list_secrets", {}, "InternalServiceError"),
    ],
)
def test_errors_come_in_each_services_shape(lab, base, service, operation, arguments, error):
    if service == "s3":
        arguments = {"Bucket": base.bucket, **arguments}
    lab.admin("POST", "faults", [{"service": service, "error": error, "message": "as ordered"}])
    with pytest.raises(ClientError) as caught:
        getattr(lab.client(service), operation)(**arguments)
    found = caught.value.response["Error"]
    assert (found["Code"], found["Message"]) == (error, "as ordered")
    getattr(lab.client(service), operation)(**arguments)


def test_a_reset_before_or_after_the_effect(lab, base):
    s3 = lab.client("s3")
    for after in (False, True):
        key = f"reset-{after}"
        rule = {"service": "s3", "operation": "PutObject", "reset": True, "after": after, "match": key}
        lab.admin("POST", "faults", [rule])
        with pytest.raises(ConnectionClosedError):
            s3.put_object(Bucket=base.bucket, Key=key, Body=b"1")
        assert ("Contents" in s3.list_objects_v2(Bucket=base.bucket, Prefix=key)) is after


def test_faults_can_wait_skip_and_pick(lab, base, mwaa):
    s3 = lab.client("s3")
    lab.admin("POST", "faults", [{"service": "s3", "match": "picked", "skip": 1, "error": "InternalError"}])
    s3.put_object(Bucket=base.bucket, Key="other", Body=b"1")
    s3.put_object(Bucket=base.bucket, Key="picked", Body=b"1")
    with pytest.raises(ClientError, match="InternalError"):
        s3.get_object(Bucket=base.bucket, Key="picked")
    lab.admin("POST", "faults", [{"service": "mwaa", "latency_ms": 700}])
    started = time.monotonic()
    mwaa.list_environments()
    assert time.monotonic() - started >= 0.7


def test_a_wrong_fault_is_named(lab):
    from urllib.error import HTTPError

    with pytest.raises(HTTPError) as caught:
        lab.admin("POST", "faults", [{"service": "s3"}, {"servcie": "s3"}])
    assert "fault rule 1" in json.load(caught.value)["error"]


# --- journal ---------------------------------------------------------------------------------------------------------


def test_the_journal_has_names_and_never_values(lab, base, mwaa):
    started = time.time()
    canary = f"CANARY-journal-{uuid.uuid4().hex[:8]}"
    name = base.environment(AirflowVersion="3.2.1", AirflowConfigurationOptions={"smtp.smtp_password": canary})
    mwaa.invoke_rest_api(Name=name, Method="GET", Path="/variables")
    mwaa.invoke_rest_api(
        Name=name,
        Method="POST",
        Path="/connections",
        Body={"connection_id": "c", "conn_type": "http", "password": canary, "extra": json.dumps({"token": canary})},
    )
    lab.client("secretsmanager").create_secret(Name=f"secret-{name}", SecretString=canary)
    lab.client("ssm").put_parameter(Name=f"/parameter/{name}", Value=canary, Type="SecureString")
    s3 = lab.client("s3")
    s3.put_object(Bucket=base.bucket, Key=f"{name}/a b.txt", Body=canary.encode(), Metadata={"m": canary})
    s3.get_object(Bucket=base.bucket, Key=f"{name}/a b.txt")["Body"].read()
    s3.delete_objects(Bucket=base.bucket, Delete={"Objects": [{"Key": f"{name}/a b.txt"}, {"Key": "x&y"}]})
    key = lab.client("kms").create_key()["KeyMetadata"]["KeyId"]
    lab.client("kms").encrypt(KeyId=key, Plaintext=canary.encode())
    with pytest.raises(ClientError):
        s3.get_object(Bucket=base.bucket, Key="nothing")
    assert "CANARY" not in (lab.folder / "journal.jsonl").read_text()
    assert "CANARY" not in (lab.folder / "server.log").read_text()
    seen = [(it["service"], it["operation"], it["access"], it["keys"], it["error"]) for it in lab.journal(started)]
    assert ("mwaa", "CreateEnvironment", "write", {"environment": name}, None) in seen
    rest = {"environment": name, "path": "/variables", "method": "GET"}
    assert ("mwaa", "InvokeRestApi", "read", rest, None) in seen
    assert ("mwaa", "InvokeRestApi", "write", {**rest, "path": "/connections", "method": "POST"}, None) in seen
    assert ("secretsmanager", "CreateSecret", "write", {"name": f"secret-{name}"}, None) in seen
    assert ("ssm", "PutParameter", "write", {"name": f"/parameter/{name}"}, None) in seen
    where = {"bucket": base.bucket, "key": f"{name}/a b.txt"}
    assert ("s3", "PutObject", "write", where, None) in seen
    assert ("s3", "GetObject", "read", where, None) in seen
    assert ("s3", "GetObject", "read", {"bucket": base.bucket, "key": "nothing"}, "NoSuchKey") in seen
    many = {"bucket": base.bucket, "keys": [f"{name}/a b.txt", "x&y"]}
    assert ("s3", "DeleteObjects", "write", many, None) in seen
    assert ("kms", "Encrypt", "read", {"key_id": key}, None) in seen


def test_the_journal_says_who(lab, base, mwaa):
    started = time.time()
    base.environment()
    lines = [json.loads(line) for line in (lab.folder / "journal.jsonl").read_text().splitlines()]
    mine = [line for line in lines if line["time"] >= started]
    assert {line["principal"] for line in mine if line["caller"] == "user"} == {"arn:aws:iam::000000000000:root"}
    assert {line["principal"] for line in mine if line["caller"] == "service"} == {"airflow.amazonaws.com"}
    session = lab.client("sts").assume_role(RoleArn=base.role, RoleSessionName="worker")["Credentials"]
    boto3.session.Session().client(
        "s3",
        endpoint_url=lab.endpoint,
        region_name="us-east-1",
        aws_access_key_id=session["AccessKeyId"],
        aws_secret_access_key=session["SecretAccessKey"],
        aws_session_token=session["SessionToken"],
    ).list_buckets()
    assert lab.journal(started)[-1]["principal"].endswith(f"assumed-role/{base.role.rpartition('/')[2]}/worker")


def test_commands_are_in_the_journal_without_their_arguments(lab, base, mwaa):
    from test_aws_webserver import command

    started = time.time()
    name = base.environment(AirflowVersion="2.11.2")
    command(lab, mwaa, name, "variables set key CANARY-cli-0badcafe")
    command(lab, mwaa, name, "dags list")
    seen = [(it["operation"], it["access"], it["keys"]) for it in lab.journal(started) if it["service"] == "webserver"]
    assert seen == [
        ("Cli", "write", {"environment": name, "command": "variables set"}),
        ("Cli", "read", {"environment": name, "command": "dags list"}),
    ]
    assert "CANARY-cli" not in (lab.folder / "journal.jsonl").read_text()


def test_presigned_urls_carry_their_principal(lab, base):
    from urllib.request import Request, urlopen

    started = time.time()
    url = lab.client("s3").generate_presigned_url("put_object", Params={"Bucket": base.bucket, "Key": "pre"})
    urlopen(Request(url, data=b"x", method="PUT")).read()
    line = lab.journal(started)[-1]
    assert (line["operation"], line["principal"]) == ("PutObject", "arn:aws:iam::000000000000:root")


def test_a_part_of_a_version(lab):
    s3, bucket = lab.client("s3"), f"parts-{uuid.uuid4().hex[:8]}"
    s3.create_bucket(Bucket=bucket)
    s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    old = s3.put_object(Bucket=bucket, Key="k", Body=b"0123456789")["VersionId"]
    s3.put_object(Bucket=bucket, Key="k", Body=b"new")
    part = s3.get_object(Bucket=bucket, Key="k", VersionId=old, Range="bytes=2-4")
    assert (part["Body"].read(), part["ContentRange"]) == (b"234", "bytes 2-4/10")
    with pytest.raises(ClientError, match="InvalidRange"):
        s3.get_object(Bucket=bucket, Key="k", VersionId=old, Range="bytes=10-12")
