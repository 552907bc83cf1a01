# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One emulated AWS with stub environments for all tests of this folder; each test makes what it needs in it."""

from __future__ import annotations

import functools
import json
import os
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import boto3
import pytest
from botocore.config import Config

TRUST = json.dumps(
    {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Effect": "Allow",
                "Principal": {"Service": ["airflow.amazonaws.com", "airflow-env.amazonaws.com"]},
                "Action": "sts:AssumeRole",
            }
        ],
    }
)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Lab:
    """A running ``mwaa_lab.aws.server`` and ways to talk to it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.http, self.tls = free_port(), free_port()
        self.endpoint = f"http://127.0.0.1:{self.http}"
        self.webserver = f"https://127.0.0.1:{self.tls}"
        self.ca = folder / "aws" / "ca.pem"
        command = [sys.executable, "-m", "mwaa_lab.aws.server", "--dir", str(folder), "--engine", "stub"]
        command += ["--http-port", str(self.http), "--tls-port", str(self.tls)]
        with (folder / "server.log").open("wb") as log:
            self.process = subprocess.Popen(
                command,
                stdout=log,
                stderr=log,
                env={**os.environ, "MWAA_LAB_STUB_CREATE_SECONDS": "0.2", "MWAA_LAB_STUB_UPDATE_SECONDS": "0.2"},
                start_new_session=True,
            )
        self.ready = folder / "aws" / "server.json"
        while not self.ready.exists():
            assert self.process.poll() is None, (folder / "server.log").read_text()
            time.sleep(0.05)

    @functools.cache  # noqa: B019 - there is one lab a session
    def client(self, service: str, *, key: str = "000000000000", region: str = "us-east-1", **config: Any) -> Any:
        retries = {"mode": "standard", "total_max_attempts": 1}
        return boto3.session.Session().client(
            service,
            endpoint_url=self.endpoint,
            region_name=region,
            aws_access_key_id=key,
            aws_secret_access_key="lab",
            config=Config(inject_host_prefix=False, retries=retries, **config),
        )

    def admin(self, method: str, what: str, document: Any = None) -> Any:
        body = json.dumps(document).encode() if document is not None else None
        with urlopen(Request(f"{self.endpoint}/_lab/{what}", data=body, method=method)) as answer:
            return json.load(answer)

    def journal(self, since: float = 0.0) -> list[dict[str, Any]]:
        lines = [json.loads(line) for line in (self.folder / "journal.jsonl").read_text().splitlines()]
        return [line for line in lines if line["time"] >= since - 0.000001 and line["caller"] == "user"]

    @property
    def environment(self) -> dict[str, str]:
        """For programs that are to use this lab and nothing else."""
        return {
            "PATH": os.environ["PATH"],
            "HOME": str(self.folder),
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_DISABLE_HOST_PREFIX_INJECTION": "true",
            "AWS_ACCESS_KEY_ID": "000000000000",
            "AWS_SECRET_ACCESS_KEY": "lab",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
            "REQUESTS_CA_BUNDLE": str(self.ca),
        }

    def stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(20)


class Base:
    """What an environment needs in its account: network, bucket, role."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        ec2, s3, iam = lab.client("ec2"), lab.client("s3"), lab.client("iam")
        name = f"lab-{uuid.uuid4().hex[:8]}"
        self.vpc = ec2.create_vpc(CidrBlock="10.1.0.0/16")["Vpc"]["VpcId"]
        self.subnets = [
            ec2.create_subnet(VpcId=self.vpc, CidrBlock=f"10.1.{index}.0/24", AvailabilityZone=f"us-east-1{zone}")[
                "Subnet"
            ]["SubnetId"]
            for index, zone in enumerate("ab")
        ]
        self.group = ec2.create_security_group(GroupName=name, Description="lab", VpcId=self.vpc)["GroupId"]
        self.role = iam.create_role(RoleName=name, AssumeRolePolicyDocument=TRUST)["Role"]["Arn"]
        self.bucket = name
        s3.create_bucket(Bucket=name)
        s3.put_bucket_versioning(Bucket=name, VersioningConfiguration={"Status": "Enabled"})
        self.block(name)

    def block(self, bucket: str) -> None:
        self.lab.client("s3").put_public_access_block(
            Bucket=bucket,
            PublicAccessBlockConfiguration={
                "BlockPublicAcls": True,
                "IgnorePublicAcls": True,
                "BlockPublicPolicy": True,
                "RestrictPublicBuckets": True,
            },
        )

    def settings(self, **changes: Any) -> dict[str, Any]:
        """Input of a CreateEnvironment that succeeds, with changes."""
        given = {
            "Name": f"env-{uuid.uuid4().hex[:8]}",
            "ExecutionRoleArn": self.role,
            "SourceBucketArn": f"arn:aws:s3:::{self.bucket}",
            "DagS3Path": "dags",
            "WebserverAccessMode": "PUBLIC_ONLY",
            "NetworkConfiguration": {"SubnetIds": self.subnets, "SecurityGroupIds": [self.group]},
            **changes,
        }
        return {key: value for key, value in given.items() if value is not None}

    def environment(self, **changes: Any) -> str:
        """A new environment that is AVAILABLE; its name."""
        mwaa, settings = self.lab.client("mwaa"), self.settings(**changes)
        mwaa.create_environment(**settings)
        assert self.settled(settings["Name"])["Status"] == "AVAILABLE"
        return settings["Name"]

    def settled(self, name: str) -> dict[str, Any]:
        mwaa = self.lab.client("mwaa")
        while True:
            shown = mwaa.get_environment(Name=name)["Environment"]
            if shown["Status"] in ("AVAILABLE", "CREATE_FAILED", "UPDATE_FAILED", "UNAVAILABLE"):
                return shown
            time.sleep(0.05)


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    running = Lab(tmp_path_factory.mktemp("lab"))
    yield running
    running.stop()


@pytest.fixture(scope="session")
def base(lab: Lab) -> Base:
    return Base(lab)


@pytest.fixture
def mwaa(lab: Lab) -> Any:
    return lab.client("mwaa")


@pytest.fixture(autouse=True)
def _no_faults_left(request: pytest.FixtureRequest) -> Iterator[None]:
    yield
    lab = request.getfixturevalue("lab") if "lab" in request.fixturenames else None
    if isinstance(lab, Lab):  # not one that a test has of its own
        lab.admin("POST", "reset")
