# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What goes wrong before or at AWS's door, each in one sentence; and how waits behave."""

from __future__ import annotations

import datetime
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ansible_collections.mwaa.migration.plugins.module_utils import _aws, _progress
from ansible_collections.mwaa.migration.plugins.module_utils._aws import Aws
from ansible_collections.mwaa.migration.plugins.module_utils._errors import (
    Faults,
    MigrationError,
    aws_errors,
    error_code,
    explain,
    is_aws_error,
    is_transient,
)
from botocore import exceptions as botocore_exceptions
from botocore.awsrequest import AWSResponse
from fakes import Clock, aws_failure


@pytest.fixture(autouse=True)
def nobody_is_logged_in(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in list(os.environ):
        if name.startswith("AWS_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))


ENVIRONMENT = {
    "Name": "demo",
    "Status": "AVAILABLE",
    "AirflowVersion": "2.11.2",
    "SourceBucketArn": "arn:aws:s3:::b",
    "DagS3Path": "dags",
}
KEYS = {"region": "eu-central-1", "access_key": "AKIA", "secret_key": "CANARY-secret-04040404"}


def canned(client: Any, *answers: Any) -> list[Any]:
    """Let a real client meet prepared answers instead of the network: (status, error code) or an exception."""
    sent: list[Any] = []
    left = list(answers)

    def answer(request: Any, **_event: Any) -> Any:
        sent.append(request)
        what = left.pop(0)
        if isinstance(what, Exception):
            raise what
        status, code = what

        class Raw:
            def stream(self, *_args: Any, **_kwargs: Any) -> Any:
                yield b'{"message": "so it is"}' if status >= 300 else b'{"Environments": []}'

        headers = {"x-amzn-errortype": code, "x-amzn-requestid": "33333333-4444"}
        return AWSResponse(request.url, status, headers, Raw())

    client.meta.events.register("before-send.mwaa", answer)
    return sent


def sentence(action: Any) -> str:
    with pytest.raises(MigrationError) as caught, aws_errors("list the environments"):
        action()
    return str(caught.value)


def test_no_credentials() -> None:
    client = Aws.for_plugin({"region": "eu-central-1"}).client("mwaa")
    assert "cannot list the environments: no AWS credentials were found; set profile" in sentence(
        client.list_environments
    )


def test_expired_credentials(clock: Clock) -> None:
    client = Aws.for_plugin(KEYS).client("mwaa")
    canned(client, (403, "ExpiredTokenException"))
    said = sentence(client.list_environments)
    assert (
        "the AWS credentials have expired (ListEnvironments: ExpiredTokenException, request id 33333333-4444)" in said
    )
    assert "; get new ones" in said


def test_denied(clock: Clock) -> None:
    client = Aws.for_plugin(KEYS).client("mwaa")
    canned(client, (403, "AccessDeniedException"))
    said = sentence(client.list_environments)
    assert "AWS denied it: so it is (ListEnvironments: AccessDeniedException, request id 33333333-4444); allow" in said


@pytest.mark.parametrize(
    ("operation", "code", "message", "says"),
    [
        ("HeadBucket", "403", "Forbidden", "allow s3:ListBucket in the caller's IAM policy"),
        ("HeadObject", "403", "Forbidden", "allow s3:GetObject (of a version: s3:GetObjectVersion) in"),
        ("UploadPart", "AccessDenied", "Access Denied", "allow s3:PutObject in the caller's IAM policy"),
        ("GetPublicAccessBlock", "AccessDenied", "Access Denied", "allow s3:GetBucketPublicAccessBlock in"),
        ("DescribeVpcs", "UnauthorizedOperation", "You are not authorized.", "allow ec2:DescribeVpcs in"),
        ("PutObject", "AccessDenied", "User: arn:u is not authorized to perform: kms:GenerateDataKey on resource: k",
         "perform: kms:GenerateDataKey on resource: k (PutObject: AccessDenied, request id unknown); allow the named"),
        ("Decrypt", "AccessDeniedException", "It is denied", "allow the named action in"),
    ],
)  # fmt: skip
def test_the_denied_action_is_named_where_aws_does_not(operation: str, code: str, message: str, says: str) -> None:
    def denied() -> None:
        raise botocore_exceptions.ClientError({"Error": {"Code": code, "Message": message}}, operation)

    assert says in sentence(denied)


def test_throttled_ten_times(clock: Clock) -> None:
    client = Aws.for_plugin(KEYS).client("mwaa")
    sent = canned(client, *[(429, "ThrottlingException")] * 20)
    assert "kept throttling" in sentence(client.list_environments)
    assert len(sent) == 10


def test_throttled_twice_is_nobodys_business(clock: Clock) -> None:
    client = Aws.for_plugin(KEYS).client("mwaa")
    canned(client, (429, "ThrottlingException"), (503, "ServiceUnavailableException"), (200, ""))
    assert client.list_environments()["Environments"] == []


def test_an_endpoint_nobody_answers_at_is_given_up_soon(clock: Clock) -> None:
    client = Aws.for_plugin(KEYS).client("mwaa")
    sent = canned(client, *[botocore_exceptions.EndpointConnectionError(endpoint_url="https://api.example")] * 20)
    assert "AWS cannot be reached" in sentence(client.list_environments)
    assert len(sent) == 3


def test_invoke_rest_api_is_never_repeated_by_botocore(clock: Clock) -> None:
    client = Aws.for_plugin(KEYS).client("mwaa")
    sent = canned(client, (500, "InternalServerException"), (500, "InternalServerException"))
    assert "internal failure" in sentence(lambda: client.invoke_rest_api(Name="demo", Path="/pools", Method="POST"))
    assert len(sent) == 1


def test_an_unknown_profile() -> None:
    for params in ({"profile": "nope"}, {"profile": "nope", "region": "eu-central-1"}):
        assert "the AWS profile nope does not exist" in sentence(
            lambda params=params: Aws.for_plugin(params).client("mwaa")
        )


def test_regions_that_are_none() -> None:
    assert "no AWS region is set" in sentence(lambda: Aws.for_plugin({}).region)
    assert "'europe' is not an AWS region" in sentence(lambda: Aws.for_plugin({"region": "europe"}).client("mwaa"))


def test_a_profile_and_keys() -> None:
    assert "both a profile and keys are given" in sentence(
        lambda: Aws.for_plugin({**KEYS, "profile": "x"}).client("mwaa")
    )


def test_an_old_botocore(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_aws.botocore, "__version__", "1.37.38")
    assert "botocore 1.37.38 of" in sentence(lambda: Aws.for_plugin(KEYS).client("mwaa"))
    monkeypatch.setattr(_aws.botocore, "__version__", "1.38.0")
    with pytest.raises(MigrationError, match="too old for teams: 1.44.5 or newer"):
        Aws.for_plugin(KEYS).require_botocore("1.44.5", "for teams")


def test_awxs_session_token_signs_the_request(monkeypatch: pytest.MonkeyPatch, run_module: Any) -> None:
    sent: list[Any] = []
    connect = Aws._connect

    def connected(self: Aws, *args: Any) -> Any:
        client = connect(self, *args)
        sent.append(canned(client, (200, "")))
        return client

    monkeypatch.setattr(Aws, "_connect", connected)
    monkeypatch.setenv("AWS_SECURITY_TOKEN", "CANARY-token-05050505")
    result = run_module("mwaa_environment_info", {})
    assert result["environments"] == []
    assert sent[0][0].headers["X-Amz-Security-Token"] in ("CANARY-token-05050505", b"CANARY-token-05050505")


class Sts:
    """Sessions of a role. left: seconds that each of them has."""

    def __init__(self, *left: float) -> None:
        self.left, self.assumed = list(left), 0

    def assume_role(self, RoleArn: str, RoleSessionName: str) -> dict[str, Any]:
        self.assumed += 1
        end = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(seconds=self.left.pop(0))
        keys = {"AccessKeyId": "AK", "SecretAccessKey": "CANARY-role-0a0a0a0a", "SessionToken": f"token-{self.assumed}"}
        return {"Credentials": {**keys, "Expiration": end}}


def test_a_roles_session_is_renewed_before_it_ends_also_for_whoever_keeps_a_client(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A copy of logs, or an export of history, that takes longer than the hour of a session."""
    sts, connect = Sts(3600, 60, 3600, 3600), Aws._connect

    def connected(self: Aws, service: str, *rest: Any) -> Any:
        return sts if service == "sts" else connect(self, service, *rest)

    def tokens(sent: list[Any]) -> list[str]:
        found = [request.headers["X-Amz-Security-Token"] for request in sent]
        return [one.decode() if isinstance(one, bytes) else one for one in found]

    monkeypatch.setattr(Aws, "_connect", connected)
    role = "arn:aws:iam::444455556666:role/reader"
    long = Aws.for_plugin(KEYS).elsewhere(role_arn=role)
    for aws in (long, long.elsewhere(region="eu-west-1"), long.through("http://127.0.0.1:1")):
        client = aws.client("mwaa")
        sent = canned(client, (200, ""))
        client.list_environments()
        assert tokens(sent) == ["token-1"]
    client = Aws.for_plugin(KEYS).elsewhere(role_arn=role).client("mwaa")  # its session ends in a minute
    sent = canned(client, (200, ""), (200, ""))
    client.list_environments()
    client.list_environments()
    assert tokens(sent) == ["token-3", "token-3"] and sts.assumed == 3


def test_a_bucket_elsewhere_names_its_region() -> None:
    failure = aws_failure("PermanentRedirect", operation="GetObject", status=301)
    failure.response["ResponseMetadata"]["HTTPHeaders"]["x-amz-bucket-region"] = "us-west-2"
    assert "the bucket is in region us-west-2" in explain(failure)


def test_botocores_own_validation_does_not_repeat_values() -> None:
    client = Aws.for_plugin(KEYS).client("mwaa")
    said = sentence(
        lambda: client.create_environment(
            Name="demo",
            ExecutionRoleArn=["CANARY-role-06060606"],
            SourceBucketArn="arn",
            DagS3Path="dags",
            NetworkConfiguration={},
            AirflowConfigurationOptions={"a.b": {"x": "CANARY-option-06060606"}},
        )
    )
    assert "ExecutionRoleArn" in said and "CANARY" not in said


def test_faults_are_numbered_when_there_are_several() -> None:
    faults = Faults("x")
    faults.raise_if_any()
    faults.add("one")
    faults.add("two")
    with pytest.raises(MigrationError, match=r"x: 2 faults: \(1\) one; \(2\) two"):
        faults.raise_if_any()


# --- waiting --------------------------------------------------------------------------------------------------------


def test_a_wait_speaks_when_something_changes_and_every_15_seconds(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = tmp_path / "progress"
    path.touch()
    monkeypatch.setenv(_progress.VARIABLE, str(path))
    clock = Clock()
    state = {"name": "CREATING"}

    def probe() -> str | None:
        if clock.now > 1040:
            state["name"] = "PENDING"
        return "done" if clock.now > 1050 else None

    done = _progress.wait_until(
        probe, timeout=600, interval=30, describe=lambda: f"environment demo: {state['name']}", clock=clock
    )
    assert done == "done"
    lines = path.read_text().splitlines()
    assert lines[0] == "environment demo: CREATING (0 s)"
    assert 4 <= len(lines) <= 6 and any("PENDING" in line for line in lines)


def test_short_waits_are_short_and_long_ones_are_cheap() -> None:
    clock = Clock()
    with pytest.raises(MigrationError, match="not finished after 1 h 0 min; go on"):
        _progress.wait_until(lambda: None, timeout=3600, interval=30, describe=lambda: "x", clock=clock, hint="go on")
    assert clock.slept[0] == 1 and max(clock.slept) == 30 and len(clock.slept) < 160


def test_without_a_screen_nothing_is_written(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(_progress.VARIABLE, str(tmp_path / "gone"))
    _progress.progress("nobody reads this")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("module", ["mwaa_variable_upsert", "mwaa_verify"])
def test_before_the_first_export_check_mode_goes_on_and_a_real_run_does_not(
    module: str, run_module: Any, tmp_path: Path
) -> None:
    options = {"environment": "demo", "bundle": str(tmp_path)}
    clients = {"mwaa": SimpleNamespace(get_environment=lambda Name: {"Environment": ENVIRONMENT})}
    looked = run_module(module, options, clients, check=True)
    assert looked["skipped"] and not looked["changed"] and "there is no bundle" in looked["msg"]
    assert run_module(module, options, clients)["failed"]


def test_an_answer_that_breaks_off_is_a_broken_connection_also_where_botocore_reads_it_unguarded() -> None:
    from urllib3.exceptions import IncompleteRead, ProtocolError

    broken = ProtocolError("Connection broken", IncompleteRead(152, 153))
    assert is_aws_error(broken) and is_transient(broken) and error_code(broken) is None
    assert explain(broken, "read the lock").startswith("cannot read the lock: the connection to AWS broke (")
