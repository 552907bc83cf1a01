# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The faults that can be ordered from the lab, each as a client meets it."""

from __future__ import annotations

import http.client
import json
import ssl
import time
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError, HTTPClientError, ResponseStreamingError

pytestmark = pytest.mark.lab


def code(call: Any, **arguments: Any) -> str:
    with pytest.raises(ClientError) as caught:
        call(**arguments)
    return caught.value.response["Error"]["Code"]


def variables(mwaa: Any, name: str) -> list[str]:
    answer = mwaa.invoke_rest_api(Name=name, Method="GET", Path="/variables")
    return [row["key"] for row in answer["RestApiResponse"]["variables"]]


def post(mwaa: Any, name: str, key: str) -> Any:
    return mwaa.invoke_rest_api(Name=name, Method="POST", Path="/variables", Body={"key": key, "value": "1"})


def test_a_burst_is_throttled_and_what_is_slow_enough_passes(lab, base):
    s3 = lab.client("s3")
    lab.admin("POST", "faults", [{"service": "s3", "per_second": 3, "times": None, "error": "SlowDown"}])
    outcomes = []
    for number in range(6):
        try:
            s3.put_object(Bucket=base.bucket, Key=f"burst/{number}", Body=b"")
            outcomes.append("ok")
        except ClientError as error:
            outcomes.append(error.response["Error"]["Code"])
    assert outcomes[:3] == ["ok"] * 3
    assert "SlowDown" in outcomes[3:]


@pytest.mark.parametrize(("error", "status"), [("InternalError", 500), ("ServiceUnavailable", 503)])
def test_an_error_after_the_effect(lab, base, error, status):
    s3 = lab.client("s3")
    lab.admin("POST", "faults", [{"service": "s3", "operation": "PutObject", "error": error, "after": True}])
    with pytest.raises(ClientError) as caught:
        s3.put_object(Bucket=base.bucket, Key=f"lost/{error}", Body=b"kept")
    assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == status
    assert s3.get_object(Bucket=base.bucket, Key=f"lost/{error}")["Body"].read() == b"kept"


def test_an_object_that_breaks_off(lab, base):
    s3 = lab.client("s3")
    s3.put_object(Bucket=base.bucket, Key="whole", Body=b"0123456789" * 1000)
    lab.admin("POST", "faults", [{"service": "s3", "operation": "GetObject", "truncate": True}])
    answer = s3.get_object(Bucket=base.bucket, Key="whole")
    assert answer["ContentLength"] == 10_000
    with pytest.raises((ResponseStreamingError, HTTPClientError)):
        answer["Body"].read()
    assert len(s3.get_object(Bucket=base.bucket, Key="whole")["Body"].read()) == 10_000


def test_an_answer_of_mwaa_that_breaks_off_after_its_effect(lab, base, mwaa):
    name = base.environment(AirflowVersion="2.11.2")
    lab.admin("POST", "faults", [{"service": "mwaa", "operation": "InvokeRestApi", "truncate": True}])
    with pytest.raises((ResponseStreamingError, HTTPClientError)):
        post(mwaa, name, "half")
    assert variables(mwaa, name) == ["half"]


def test_a_command_whose_answer_breaks_off(lab, base, mwaa):
    name = base.environment(AirflowVersion="2.11.2")
    lab.admin("POST", "faults", [{"service": "webserver", "operation": "Cli", "truncate": True}])
    token = mwaa.create_cli_token(Name=name)["CliToken"]
    connection = http.client.HTTPSConnection(
        "127.0.0.1", lab.tls, context=ssl.create_default_context(cafile=str(lab.ca))
    )
    connection.request("POST", "/aws_mwaa/cli", b"variables set cut 1", {"Authorization": f"Bearer {token}"})
    with pytest.raises(http.client.IncompleteRead):
        connection.getresponse().read()
    assert variables(mwaa, name) == ["cut"]


def test_ten_seconds_were_not_enough_but_it_was_done(lab, base, mwaa):
    name = base.environment(AirflowVersion="2.11.2")
    late = {"service": "mwaa", "operation": "InvokeRestApi", "error": "RestApiServerException", "after": True}
    lab.admin("POST", "faults", [late])
    with pytest.raises(mwaa.exceptions.RestApiServerException) as caught:
        post(mwaa, name, "late")
    assert caught.value.response["RestApiStatusCode"] == 504
    assert variables(mwaa, name) == ["late"]


@pytest.mark.parametrize(
    ("service", "operation", "arguments", "error"),
    [
        ("s3", "list_buckets", {}, "ExpiredToken"),
        ("mwaa", "list_environments", {}, "ExpiredTokenException"),
        ("kms", "list_keys", {}, "ExpiredTokenException"),
        ("cloudformation", "list_stacks", {}, "ExpiredToken"),
    ],
)
def test_a_session_ends_in_each_services_words(lab, service, operation, arguments, error):
    role = lab.client("iam").create_role(
        RoleName=f"operator-{service}",
        AssumeRolePolicyDocument=json.dumps(
            {"Statement": [{"Effect": "Allow", "Principal": {"AWS": "*"}, "Action": "sts:AssumeRole"}]}
        ),
    )["Role"]["Arn"]
    session = lab.client("sts").assume_role(RoleArn=role, RoleSessionName="night")["Credentials"]
    client = boto3.session.Session().client(
        service,
        endpoint_url=lab.endpoint,
        region_name="us-east-1",
        aws_access_key_id=session["AccessKeyId"],
        aws_secret_access_key=session["SecretAccessKey"],
        aws_session_token=session["SessionToken"],
        config=Config(inject_host_prefix=False, retries={"total_max_attempts": 1}),
    )
    getattr(client, operation)(**arguments)
    assert lab.journal()[-1]["principal"] == f"arn:aws:sts::000000000000:assumed-role/operator-{service}/night"
    lab.admin("POST", "expire-sessions")
    assert code(getattr(client, operation), **arguments) == error
    # And as a fault, for credentials of any kind.
    lab.admin("POST", "faults", [{"service": service, "error": "ExpiredToken"}])
    assert code(getattr(lab.client(service), operation), **arguments) == error


def test_somebody_updates_the_environment_in_the_middle(lab, base, mwaa):
    name = base.environment(AirflowVersion="2.11.2")
    hold = {"environment": name, "calls": 2, "down": True}
    lab.admin("POST", "faults", [{"service": "mwaa", "operation": "InvokeRestApi", "skip": 1, "hold": hold}])
    post(mwaa, name, "before")
    assert code(post, mwaa=mwaa, name=name, key="during") == "RestApiServerException"
    assert code(mwaa.update_environment, Name=name, MaxWorkers=3) == "ValidationException"
    seen = [mwaa.get_environment(Name=name)["Environment"]["Status"] for _ in range(3)]
    assert seen == ["UPDATING", "UPDATING", "AVAILABLE"]
    post(mwaa, name, "after")
    assert variables(mwaa, name) == ["before", "after"]


def test_an_update_of_so_many_seconds(lab, base, mwaa):
    name = base.environment(AirflowVersion="2.11.2")
    lab.admin("POST", f"environments/{name}/hold", {"seconds": 0.5})
    assert mwaa.get_environment(Name=name)["Environment"]["Status"] == "UPDATING"
    post(mwaa, name, "meanwhile")  # most updates leave the web server up
    assert base.settled(name)["LastUpdate"]["Status"] == "SUCCESS"


def test_every_call_to_s3_takes_as_long_as_was_asked_for(lab, base):
    s3 = lab.client("s3")
    lab.admin("POST", "faults", [{"service": "s3", "latency_ms": 20, "times": None}])
    began = time.monotonic()
    for number in range(20):
        s3.put_object(Bucket=base.bucket, Key=f"slow/{number}", Body=b"")
    assert time.monotonic() - began >= 20 * 0.020
    assert lab.admin("GET", "faults")[0]["fired"] == 20


# --- Secrets Manager -------------------------------------------------------------------------------------------------


def test_a_secret_that_waits_to_be_deleted_is_in_the_way(lab):
    secrets = lab.client("secretsmanager")
    secrets.create_secret(Name="airflow/variables/gone", SecretString="1")
    secrets.delete_secret(SecretId="airflow/variables/gone", RecoveryWindowInDays=7)
    for call, arguments in (
        (secrets.create_secret, {"Name": "airflow/variables/gone", "SecretString": "2"}),
        (secrets.put_secret_value, {"SecretId": "airflow/variables/gone", "SecretString": "2"}),
        (secrets.get_secret_value, {"SecretId": "airflow/variables/gone"}),
    ):
        with pytest.raises(secrets.exceptions.InvalidRequestException, match="delet"):
            call(**arguments)
    secrets.restore_secret(SecretId="airflow/variables/gone")
    assert secrets.get_secret_value(SecretId="airflow/variables/gone")["SecretString"] == "1"


def test_lists_and_batches_of_secrets(lab):
    secrets = lab.client("secretsmanager")
    names = [f"batch/{number:02d}" for number in range(25)]
    for name in names:
        secrets.create_secret(Name=name, SecretString=f"value of {name}")
    filters = [{"Key": "name", "Values": ["batch/"]}]
    pages = list(secrets.get_paginator("list_secrets").paginate(Filters=filters, PaginationConfig={"PageSize": 10}))
    assert len(pages) == 3
    assert sorted(row["Name"] for page in pages for row in page["SecretList"]) == names
    answer = secrets.batch_get_secret_value(SecretIdList=[*names[:19], "batch/none"])
    assert [row["SecretString"] for row in answer["SecretValues"]] == [f"value of {name}" for name in names[:19]]
    assert [row["ErrorCode"] for row in answer["Errors"]] == ["ResourceNotFoundException"]
    assert code(secrets.batch_get_secret_value, SecretIdList=names[:21]) in (
        "InvalidParameterException",
        "ValidationException",
    )
