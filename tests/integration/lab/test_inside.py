# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Private web servers: what is refused outside of the VPC, and the way in through a host's SSH connection."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import shlex
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import botocore.exceptions
import pytest
from botocore.config import Config

pytestmark = pytest.mark.lab


class StubLab:
    """A lab that ``mwaa-lab up`` made, with stub environments."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.run("up", "--engine", "stub")
        exports = self.run("env").splitlines()
        self.env = dict(shlex.split(line)[1].split("=", 1) for line in exports if line.startswith("export "))

    def run(self, *argv: str) -> str:
        command = [sys.executable, "-m", "mwaa_lab.cli", argv[0], "--dir", str(self.folder), *argv[1:]]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def mwaa(self, endpoint: str | None = None) -> Any:
        return boto3.session.Session().client(
            "mwaa",
            endpoint_url=endpoint or self.env["AWS_ENDPOINT_URL"],
            region_name="us-east-1",
            aws_access_key_id=self.env["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=self.env["AWS_SECRET_ACCESS_KEY"],
            config=Config(inject_host_prefix=False, retries={"total_max_attempts": 1}),
        )

    def environment(self, name: str, **changes: Any) -> str:
        mwaa, env = self.mwaa(), self.env
        mwaa.create_environment(
            Name=name,
            ExecutionRoleArn=env["MWAA_LAB_ROLE_ARN"],
            SourceBucketArn=f"arn:aws:s3:::{env['MWAA_LAB_BUCKET']}",
            DagS3Path="dags",
            NetworkConfiguration={
                "SubnetIds": env["MWAA_LAB_SUBNET_IDS"].split(","),
                "SecurityGroupIds": env["MWAA_LAB_SECURITY_GROUP_IDS"].split(","),
            },
            **changes,
        )
        while mwaa.get_environment(Name=name)["Environment"]["Status"] != "AVAILABLE":
            time.sleep(0.05)
        return name

    def ssh(self, *argv: str) -> list[str]:
        options = (
            f"-i {self.env['MWAA_LAB_SSH_KEY']} -o UserKnownHostsFile={self.folder}/ssh/known_hosts -o BatchMode=yes"
        )
        return ["ssh", "-F", "none", *options.split(), "-p", self.env["MWAA_LAB_SSH_PORT"], *argv]

    @contextlib.contextmanager
    def forwarded(self, place: str) -> Iterator[int]:
        """A port of this machine that leads to ``place`` as the bastion sees it."""
        from mwaa_lab.processes import free_port

        port = free_port()
        argv = self.ssh("-N", "-L", f"127.0.0.1:{port}:{place}", "-o", "ExitOnForwardFailure=yes", "bastion@127.0.0.1")
        tunnel = subprocess.Popen(argv)
        try:
            for _ in range(200):
                with contextlib.suppress(OSError):
                    http.client.HTTPConnection("127.0.0.1", port).connect()
                    break
                time.sleep(0.05)
            yield port
        finally:
            tunnel.terminate()
            tunnel.wait()

    def journal(self, operation: str) -> list[dict[str, Any]]:
        lines = [json.loads(line) for line in (self.folder / "journal.jsonl").read_text().splitlines()]
        return [line for line in lines if line["operation"] == operation]


@pytest.fixture(scope="module")
def stub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StubLab]:
    folder = tmp_path_factory.mktemp("inside") / "lab"
    try:
        yield StubLab(folder)
    finally:
        subprocess.run([sys.executable, "-m", "mwaa_lab.cli", "down", "--dir", str(folder)], check=True)


@pytest.fixture(scope="module")
def private(stub: StubLab) -> str:
    return stub.environment("private", AirflowVersion="2.11.2")  # PRIVATE_ONLY is AWS's default


def test_a_private_web_server_is_not_called_from_outside(stub, private):
    shown = stub.mwaa().get_environment(Name=private)["Environment"]
    assert shown["WebserverAccessMode"] == "PRIVATE_ONLY"
    assert "-vpce." in shown["WebserverUrl"]
    with pytest.raises(botocore.exceptions.ClientError) as caught:
        stub.mwaa().invoke_rest_api(Name=private, Path="/version", Method="GET")
    assert caught.value.response["Error"]["Code"] == "AccessDeniedException"


def test_its_name_leads_nowhere_outside(stub, private):
    import socket

    answer = stub.mwaa().create_cli_token(Name=private)
    assert answer["WebServerHostname"].endswith("-vpce.mwaa-lab.invalid")
    with pytest.raises(socket.gaierror):
        socket.getaddrinfo(answer["WebServerHostname"], 443)
    # Who knows the lab's public address comes no further with that token.
    context = ssl.create_default_context(cafile=stub.env["MWAA_LAB_CA"])
    port = int(json.loads(stub.run("status", "--json"))["endpoints"]["webserver"].rpartition(":")[2])
    connection = http.client.HTTPSConnection("127.0.0.1", port, context=context)
    connection.request("POST", "/aws_mwaa/cli", "version", {"Authorization": f"Bearer {answer['CliToken']}"})
    assert connection.getresponse().status == 403


def test_through_a_host_in_the_vpc_the_api_answers(stub, private):
    outside = stub.env["AWS_ENDPOINT_URL"].rpartition("/")[2]
    with stub.forwarded(outside) as port:
        answer = stub.mwaa(f"http://127.0.0.1:{port}").invoke_rest_api(Name=private, Path="/version", Method="GET")
    assert answer["RestApiResponse"]["version"] == "2.11.2"
    assert stub.journal("InvokeRestApi")[-1]["inside"] is True


def test_through_a_host_in_the_vpc_the_private_name_answers(stub, private):
    answer = stub.mwaa().create_cli_token(Name=private)
    host = answer["WebServerHostname"]
    argv = stub.ssh("-W", f"{host}:443", "bastion@127.0.0.1")
    # TLS through a pipe, by the certificate of the private name.
    context = ssl.create_default_context(cafile=stub.env["MWAA_LAB_CA"])
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    channel = context.wrap_bio(incoming, outgoing, server_hostname=host)
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as tunnel:
        assert tunnel.stdin and tunnel.stdout

        def talk(step: Any) -> Any:
            while True:
                try:
                    return step()
                except ssl.SSLWantReadError:
                    tunnel.stdin.write(outgoing.read())
                    tunnel.stdin.flush()
                    incoming.write(os.read(tunnel.stdout.fileno(), 65536))

        talk(channel.do_handshake)
        request = f"POST /aws_mwaa/cli HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {answer['CliToken']}\r\n"
        channel.write(f"{request}Content-Length: 7\r\n\r\nversion".encode())
        answered = b""
        while not answered.endswith(b"}"):  # the journal has a call before the end of its answer leaves
            answered += talk(lambda: channel.read(65536))
        assert answered.startswith(b"HTTP/1.1 200")
        tunnel.kill()
    assert stub.journal("Cli")[-1]["inside"] is True


@pytest.mark.parametrize("place", ["10.1.2.3:443", "example.com:443", "env.airflow.us-east-1.amazonaws.com:443"])
def test_nothing_else_is_reached_through_it(stub, place):
    done = subprocess.run(stub.ssh("-W", place, "bastion@127.0.0.1"), input=b"", capture_output=True)
    assert done.returncode != 0
    assert b"nothing in the lab has the address" in done.stderr


def test_a_public_and_private_one_answers_both(stub):
    name = stub.environment("both", AirflowVersion="3.2.1", WebserverAccessMode="PUBLIC_AND_PRIVATE")
    outside = stub.mwaa()
    assert outside.invoke_rest_api(Name=name, Path="/version", Method="GET")["RestApiStatusCode"] == 200
    assert outside.create_cli_token(Name=name)["WebServerHostname"].startswith("127.0.0.1:")
    with stub.forwarded(stub.env["AWS_ENDPOINT_URL"].rpartition("/")[2]) as port:
        inside = stub.mwaa(f"http://127.0.0.1:{port}")
        assert inside.create_web_login_token(Name=name)["WebServerHostname"].endswith("-vpce.mwaa-lab.invalid")


def test_an_environment_can_become_private(stub):
    name = stub.environment("changing", AirflowVersion="2.11.2", WebserverAccessMode="PUBLIC_ONLY")
    stub.mwaa().update_environment(Name=name, WebserverAccessMode="PRIVATE_ONLY")
    while (shown := stub.mwaa().get_environment(Name=name)["Environment"])["Status"] != "AVAILABLE":
        time.sleep(0.05)
    assert "-vpce." in shown["WebserverUrl"]
    assert "WebserverVpcEndpointService" in shown


def test_the_bastion_is_a_host_with_nothing_on_it(stub):
    done = subprocess.run(stub.ssh("bastion@127.0.0.1", "pwd; ls -A"), capture_output=True, text=True)
    assert done.stdout == f"{stub.folder}/hosts/bastion\n"
    assert subprocess.run(stub.ssh("airflow@127.0.0.1", "true"), capture_output=True).returncode != 0


@pytest.mark.parametrize(
    ("role", "variables", "tokens"), [("admin", 200, True), ("op", 200, False), ("user", 403, False)]
)
def test_the_account_has_a_caller_for_each_role_of_airflow(stub, role, variables, tokens):
    name = f"called-by-{role}"
    stub.environment(name, AirflowVersion="3.2.1", WebserverAccessMode="PUBLIC_ONLY")
    sts = boto3.session.Session().client(
        "sts",
        endpoint_url=stub.env["AWS_ENDPOINT_URL"],
        region_name="us-east-1",
        aws_access_key_id=stub.env["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=stub.env["AWS_SECRET_ACCESS_KEY"],
    )
    key = sts.assume_role(RoleArn=f"arn:aws:iam::000000000000:role/mwaa-lab-{role}", RoleSessionName="somebody")
    mwaa = boto3.session.Session().client(
        "mwaa",
        endpoint_url=stub.env["AWS_ENDPOINT_URL"],
        region_name="us-east-1",
        aws_access_key_id=key["Credentials"]["AccessKeyId"],
        aws_secret_access_key=key["Credentials"]["SecretAccessKey"],
        aws_session_token=key["Credentials"]["SessionToken"],
        config=Config(inject_host_prefix=False),
    )
    try:
        status = mwaa.invoke_rest_api(Name=name, Path="/variables", Method="GET")["RestApiStatusCode"]
    except mwaa.exceptions.RestApiClientException as error:
        status = error.response["RestApiStatusCode"]
    assert status == variables
    try:
        assert bool(mwaa.create_cli_token(Name=name)) is tokens
    except botocore.exceptions.ClientError as error:
        assert (error.response["Error"]["Code"], tokens) == ("AccessDeniedException", False)
