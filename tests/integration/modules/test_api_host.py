# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A private web server, reached by Ansible through a host that is inside: its own SSH connection and nothing more."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.lab

ROOT = Path(__file__).resolve().parents[3]


class Inside:
    """A stub lab with one PRIVATE_ONLY environment, and ad hoc tasks against it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.run("up", "--engine", "stub", "--source", "none")
        exports = [line for line in self.run("env").splitlines() if line.startswith("export ")]
        self.env = {**os.environ, **dict(shlex.split(line)[1].split("=", 1) for line in exports)}
        self.env["ANSIBLE_LOCAL_TEMP"] = str(folder / "ansible-tmp")
        for name, version in (("closed", "2.11.2"), ("closed3", "3.2.1")):
            self.create(name, version)

    def run(self, *argv: str) -> str:
        command = [sys.executable, "-m", "mwaa_lab.cli", argv[0], "--dir", str(self.folder), *argv[1:]]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    def create(self, name: str, version: str) -> None:
        import boto3
        from botocore.config import Config

        mwaa = boto3.session.Session().client(
            "mwaa",
            endpoint_url=self.env["AWS_ENDPOINT_URL"],
            region_name="us-east-1",
            aws_access_key_id=self.env["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key="lab",
            config=Config(inject_host_prefix=False),
        )
        mwaa.create_environment(
            Name=name,
            AirflowVersion=version,
            ExecutionRoleArn=self.env["MWAA_LAB_ROLE_ARN"],
            SourceBucketArn=f"arn:aws:s3:::{self.env['MWAA_LAB_BUCKET']}",
            DagS3Path="dags",
            WebserverAccessMode="PRIVATE_ONLY",
            NetworkConfiguration={
                "SubnetIds": self.env["MWAA_LAB_SUBNET_IDS"].split(","),
                "SecurityGroupIds": self.env["MWAA_LAB_SECURITY_GROUP_IDS"].split(",")[:1],
            },
        )
        while mwaa.get_environment(Name=name)["Environment"]["Status"] == "CREATING":
            time.sleep(0.1)

    def task(self, module: str, host: str = "mwaa_lab", extra: tuple[str, ...] = (), **options: Any) -> dict[str, Any]:
        """What one task returns, or fails with."""
        arguments = {"region": "us-east-1", **options}
        command = [str(Path(sys.executable).parent / "ansible"), "-i", "inventories/lab", host, *extra, "--one-line"]
        done = subprocess.run(
            [*command, "-m", f"mwaa.migration.{module}", "-a", json.dumps(arguments)],
            cwd=ROOT, env=self.env, capture_output=True, text=True, check=False,
        )  # fmt: skip
        try:
            said = json.loads(done.stdout.partition("=> ")[2])
        except ValueError:
            said = {"msg": done.stdout + done.stderr}
        return {**said, "failed": done.returncode != 0}

    def inside(self) -> list[str]:
        """Operations of the user's calls that came from inside."""
        lines = [json.loads(line) for line in (self.folder / "journal.jsonl").read_text().splitlines()]
        return [line["operation"] for line in lines if line.get("inside") and line["caller"] == "user"]


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Inside]:
    folder = tmp_path_factory.mktemp("inside") / "lab"
    try:
        yield Inside(folder)
    finally:
        subprocess.run([sys.executable, "-m", "mwaa_lab.cli", "down", "--dir", str(folder)], check=False)


@pytest.mark.parametrize("environment", ["closed", "closed3"])
def test_rest_and_cli_through_the_hosts_ssh_connection(lab: Inside, environment: str) -> None:
    refused = lab.task("mwaa_rest_call", environment=environment, path="/variables")
    assert refused["failed"] and "denied" in refused["msg"]
    through = lab.task("mwaa_rest_call", environment=environment, path="/variables", api_host="lab_bastion")
    assert through["status"] == 200, through
    ca = lab.env["MWAA_LAB_CA"]
    told = lab.task("mwaa_cli_exec", environment=environment, command="version", ca_path=ca, api_host="lab_bastion")
    assert told["stdout"].strip() in ("2.11.2", "3.2.1"), told
    assert {"InvokeRestApi", "Cli"} <= set(lab.inside())
    assert not list((lab.folder / "ansible-tmp").rglob("mwaa-migration-*"))  # the proxy's address is gone with it


@pytest.mark.parametrize(
    ("api_host", "extra", "sentence"),
    [
        ("nobody", (), "api_host nobody is not in the inventory"),
        ("lab_target", (), "has the connection local, and only ssh can forward"),
        (
            "lab_bastion",
            ("-e", "ansible_port=1"),
            "api_host lab_bastion cannot be used, its SSH connection does not forward: .*onnect",
        ),
    ],
)
def test_what_is_in_the_way_is_said(lab: Inside, api_host: str, extra: tuple[str, ...], sentence: str) -> None:
    import re

    failed = lab.task("mwaa_rest_call", extra=extra, environment="closed", path="/variables", api_host=api_host)
    assert failed["failed"] and re.search(sentence, failed["msg"]), failed["msg"]


@pytest.mark.parametrize("api_host", [None, "lab_bastion"])
def test_reach_finds_out_and_says_so(lab: Inside, api_host: str | None, tmp_path: Path) -> None:
    script = (
        "from ansible_collections.mwaa.migration.plugins.module_utils._aws import Aws\n"
        "from ansible_collections.mwaa.migration.plugins.module_utils._mwaa.access import reach\n"
        "aws = Aws.for_plugin({'region': 'us-east-1'})\n"
        "aws.tunnel = None\n"
        "print(reach(aws, aws.client('mwaa').get_environment(Name='closed')['Environment']))\n"
    )
    if api_host is None:
        done = subprocess.run([sys.executable, "-c", script], env=lab.env, capture_output=True, text=True, check=True)
        assert "Access(rest=False, cli=False" in done.stdout and "cannot be reached" in done.stdout
    else:
        from ansible_collections.mwaa.migration.plugins.module_utils._tunnel import Tunnel

        key, port = lab.env["MWAA_LAB_SSH_KEY"], lab.env["MWAA_LAB_SSH_PORT"]
        ssh = f"ssh -q -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -i {key} -p {port} bastion@127.0.0.1"
        tunnel = Tunnel(lambda target: [word.encode() for word in [*ssh.split(), "-W", target]])
        try:
            script = script.replace("aws.tunnel = None", f"aws.tunnel = {tunnel.url!r}")
            done = subprocess.run(
                [sys.executable, "-c", script], env=lab.env, capture_output=True, text=True, check=True
            )
        finally:
            tunnel.close()
        assert (
            "Access(rest=True, cli=True, reason='The web server is private and answers through api_host" in done.stdout
        )


def play(lab: Inside, *words: str, **variables: str) -> tuple[str, int, int]:
    """(output, changed, failed) of the cleanup playbook."""
    import re

    env = {**lab.env, "MWAA_LAB_ENVIRONMENT": "closed3", **variables}
    command = [str(Path(sys.executable).parent / "ansible-playbook"), "-i", "inventories/lab", "playbooks/cleanup.yml"]
    done = subprocess.run([*command, *words], cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    counts = dict(re.findall(r"(changed|failed)=(\d+)", done.stdout))
    return done.stdout + done.stderr, int(counts.get("changed", -1)), int(counts.get("failed", -1))


def test_the_cleanup_playbook_in_a_private_environment(lab: Inside) -> None:
    import boto3

    s3 = boto3.session.Session().client(
        "s3",
        endpoint_url=lab.env["AWS_ENDPOINT_URL"],
        region_name="us-east-1",
        aws_access_key_id=lab.env["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key="lab",
    )
    bucket = lab.env["MWAA_LAB_BUCKET"]
    for key in ("dags/mwaa_migration/airflow_agent.py", "mwaa-migration/closed3/requests/old.json", "dags/mine.py"):
        s3.put_object(Bucket=bucket, Key=key, Body=b"# nothing\n")
    said, changed, failed = play(lab, "--check", "--diff", MWAA_LAB_API_HOST="lab_bastion")
    assert (changed, failed) == (1, 0), said
    assert "versions of the agent's files" in said
    for expected in (1, 0):
        said, changed, failed = play(lab, MWAA_LAB_API_HOST="lab_bastion")
        assert (changed, failed) == (expected, 0), said
    left = [version["Key"] for version in s3.list_object_versions(Bucket=bucket)["Versions"]]
    assert left == ["dags/mine.py"]
