# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A whole lab with real Airflows: a source behind SSH, environments of both major versions, nothing left afterwards.

The tests go on from one another: an Airflow costs tens of seconds.
"""

from __future__ import annotations

import base64
import contextlib
import io
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from mwaa_lab import processes
from mwaa_lab.airflow import install, versions
from mwaa_lab.labdir import LabDir, LabError

pytestmark = pytest.mark.e2e

BIN = Path(sys.executable).parent

TASK = """
from datetime import datetime
from airflow import DAG
from airflow.operators.python import PythonOperator

def look():
    import os, urllib.request
    import boto3, cowsay
    from airflow.models import Variable
    from lab_plugin import GREETING
    keys = boto3.client("s3").list_objects_v2(Bucket="mwaa-lab-environment")["KeyCount"]
    environ = os.environ
    print("FOUND", Variable.get("from_rest"), environ["AIRFLOW_ENV_NAME"], environ["FROM_STARTUP"], GREETING, keys > 0)
    try:
        urllib.request.urlopen("https://example.com")
    except OSError as error:
        print("REFUSED", error)

with DAG("looker", start_date=datetime(2024, 1, 1), schedule=None, catchup=False):
    PythonOperator(task_id="look", python_callable=look)
"""


def lab_command(folder: Path, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    run = subprocess.run([BIN / "mwaa-lab", *words, "--dir", folder], capture_output=True, text=True, timeout=400)
    assert run.returncode == 0 or not check, run.stdout + run.stderr
    return run


class Real:
    """A lab with a source of small seed data and real environments."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        lab_command(folder, "up", "--source", "2.10.3")
        exports = lab_command(folder, "env").stdout.splitlines()
        self.env = dict(shlex.split(line)[1].split("=", 1) for line in exports)
        self.session = boto3.session.Session(
            self.env["AWS_ACCESS_KEY_ID"], self.env["AWS_SECRET_ACCESS_KEY"], region_name=self.env["AWS_REGION"]
        )

    def client(self, service: str) -> Any:
        from botocore.config import Config

        config = Config(inject_host_prefix=False, s3={"addressing_style": "path"})
        return self.session.client(service, endpoint_url=self.env["AWS_ENDPOINT_URL"], config=config)

    def put(self, key: str, body: bytes) -> str:
        return self.client("s3").put_object(Bucket=self.env["MWAA_LAB_BUCKET"], Key=key, Body=body)["VersionId"]

    def status(self) -> dict[str, Any]:
        return json.loads(lab_command(self.folder, "status", "--json").stdout)

    def environment(self, name: str) -> dict[str, Any]:
        return next(found for found in self.status()["environments"] if found["name"] == name)

    def settled(self, name: str) -> dict[str, Any]:
        """The environment once nothing is going on any more."""
        while True:
            found = self.client("mwaa").get_environment(Name=name)["Environment"]
            if found["Status"] not in ("CREATING", "UPDATING", "DELETING"):
                return found
            time.sleep(0.3)

    def create(self, name: str, airflow_version: str, **more: Any) -> dict[str, Any]:
        self.client("mwaa").create_environment(
            Name=name,
            AirflowVersion=airflow_version,
            ExecutionRoleArn=self.env["MWAA_LAB_ROLE_ARN"],
            SourceBucketArn=f"arn:aws:s3:::{self.env['MWAA_LAB_BUCKET']}",
            DagS3Path="dags",
            WebserverAccessMode="PUBLIC_ONLY",
            NetworkConfiguration={
                "SubnetIds": self.env["MWAA_LAB_SUBNET_IDS"].split(","),
                "SecurityGroupIds": self.env["MWAA_LAB_SECURITY_GROUP_IDS"].split(","),
            },
            LoggingConfiguration={
                kind: {"Enabled": True, "LogLevel": "INFO"} for kind in ("TaskLogs", "SchedulerLogs")
            },
            **more,
        )
        return self.settled(name)

    def rest(self, name: str, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        client = self.client("mwaa")
        given = {} if body is None else {"Body": body}
        try:
            reply = client.invoke_rest_api(Name=name, Method=method, Path=path, **given)
        except (client.exceptions.RestApiClientException, client.exceptions.RestApiServerException) as error:
            return error.response["RestApiStatusCode"], error.response["RestApiResponse"]
        return reply["RestApiStatusCode"], reply["RestApiResponse"]

    def ssh(self, command: str, stdin: bytes = b"", user: str = "airflow") -> subprocess.CompletedProcess[bytes]:
        options = ["-o", f"UserKnownHostsFile={self.folder}/ssh/known_hosts", "-o", "StrictHostKeyChecking=yes"]
        options += ["-o", "IdentitiesOnly=yes", "-o", "BatchMode=yes", "-F", "/dev/null"]
        where = ["-i", self.env["MWAA_LAB_SOURCE_KEY"], "-p", self.env["MWAA_LAB_SOURCE_PORT"], f"{user}@127.0.0.1"]
        return subprocess.run(["ssh", *options, *where, command], input=stdin, capture_output=True, timeout=60)

    def delete(self, name: str) -> None:
        client = self.client("mwaa")
        client.delete_environment(Name=name)
        until(lambda: name not in client.list_environments()["Environments"])


def until(condition: Callable[[], object], seconds: float = 120.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.3)


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Real]:
    for version in ("2.10.3", "2.11.2", "3.2.1"):
        try:
            install.base(versions.version(version))
        except LabError as problem:
            pytest.skip(f"not run: {problem}")
    folder = tmp_path_factory.mktemp("real") / "lab"
    try:
        yield Real(folder)
    finally:
        lab_command(folder, "down", check=False)


needs_ssh = pytest.mark.skipif(not shutil.which("ssh"), reason="not run: this machine has no ssh client")


# --- the lab and its source ------------------------------------------------------------------------------------------


def test_up_again_says_that_it_is_up(real: Real) -> None:
    assert "is already up" in lab_command(real.folder, "up", "--source", "2.10.3").stderr
    other = lab_command(real.folder, "up", "--source", "none", check=False)
    assert other.returncode != 0 and "is up with --source 2.10.3" in other.stderr


def test_status_names_everything(real: Real) -> None:
    found = real.status()

    assert set(found) == {"endpoints", "base", "source", "environments", "journal"}
    assert set(found["base"]) == {
        "bucket", "bundle_bucket", "role_arn", "subnet_ids", "security_group_ids", "kms_key_id"
    }  # fmt: skip
    source = found["source"]
    assert source["airflow_version"] == "2.10.3" and source["pids"]
    assert Path(source["airflow_home"], "airflow.cfg").is_file() and Path(source["python"]).exists()
    assert "Airflow 2.10.3" in lab_command(real.folder, "status").stdout


def test_the_account_is_what_mwaa_asks_for(real: Real) -> None:
    s3, ec2 = real.client("s3"), real.client("ec2")
    for bucket in (real.env["MWAA_LAB_BUCKET"], real.env["MWAA_LAB_BUNDLE_BUCKET"]):
        assert s3.get_bucket_versioning(Bucket=bucket)["Status"] == "Enabled"
        assert all(s3.get_public_access_block(Bucket=bucket)["PublicAccessBlockConfiguration"].values())
    subnets = ec2.describe_subnets(SubnetIds=real.env["MWAA_LAB_SUBNET_IDS"].split(","))["Subnets"]
    assert len({subnet["AvailabilityZone"] for subnet in subnets}) == 2


@needs_ssh
def test_ssh_carries_streams_exit_codes_and_the_home(real: Real) -> None:
    blob = os.urandom(3_000_000)

    assert real.ssh("cat", blob).stdout == blob
    said = real.ssh("pwd; echo to-stderr >&2; exit 7")
    assert (said.returncode, said.stderr) == (7, b"to-stderr\n")
    assert said.stdout.decode().strip() == str(real.folder / "source" / "home")
    assert len(real.ssh("head -c 20000000 /dev/zero").stdout) == 20_000_000


@needs_ssh
def test_ssh_opens_for_one_user_with_one_key(real: Real, tmp_path: Path) -> None:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / "other"], check=True)
    mine = real.env["MWAA_LAB_SOURCE_KEY"]
    try:
        real.env["MWAA_LAB_SOURCE_KEY"] = str(tmp_path / "other")
        assert b"Permission denied" in real.ssh("true").stderr
    finally:
        real.env["MWAA_LAB_SOURCE_KEY"] = mine
    assert b"Permission denied" in real.ssh("true", user="root").stderr


@needs_ssh
def test_a_command_ends_with_its_connection(real: Real) -> None:
    marker = f"sleep 4242{os.getpid()}"
    with pytest.raises(subprocess.TimeoutExpired):
        subprocess.run([*_ssh_words(real), marker], timeout=2, capture_output=True)

    until(lambda: not [line for line in _commands() if marker in line], 10)


def _ssh_words(real: Real) -> list[str]:
    options = ["-o", f"UserKnownHostsFile={real.folder}/ssh/known_hosts", "-o", "IdentitiesOnly=yes", "-F", "/dev/null"]
    return [
        "ssh",
        *options,
        "-i",
        real.env["MWAA_LAB_SOURCE_KEY"],
        "-p",
        real.env["MWAA_LAB_SOURCE_PORT"],
        "airflow@127.0.0.1",
    ]


def _commands() -> list[str]:
    """Command lines of all processes but ssh's own, which hold the command that it was given."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            words = entry.read_bytes().split(b"\0")
            if words[0] != b"ssh":
                found.append(b" ".join(words).decode(errors="replace").strip())
    return found


@needs_ssh
@pytest.mark.parametrize("pipelining", ["0", "1"])
def test_ansible_reaches_the_source(real: Real, tmp_path: Path, pipelining: str) -> None:
    inventory = tmp_path / "hosts.yml"
    options = f"-o UserKnownHostsFile={real.folder}/ssh/known_hosts -o IdentitiesOnly=yes -F /dev/null"
    host = {
        "ansible_host": "127.0.0.1",
        "ansible_port": int(real.env["MWAA_LAB_SOURCE_PORT"]),
        "ansible_user": real.env["MWAA_LAB_SOURCE_USER"],
        "ansible_ssh_private_key_file": real.env["MWAA_LAB_SOURCE_KEY"],
        "ansible_ssh_common_args": options,
    }
    inventory.write_text(json.dumps({"all": {"hosts": {"source": host}}}))
    (tmp_path / "sent").write_bytes(os.urandom(100_000))
    environ = {**os.environ, "ANSIBLE_PIPELINING": pipelining, "ANSIBLE_HOME": str(tmp_path), "HOME": str(tmp_path)}

    def ansible(module: str, arguments: str = "") -> str:
        words = [BIN / "ansible", "-i", inventory, "source", "-m", module, "-a", arguments]
        run = subprocess.run(words, capture_output=True, text=True, env=environ, timeout=100)
        assert run.returncode == 0, run.stdout + run.stderr
        return run.stdout

    assert "pong" in ansible("ansible.builtin.ping")
    ansible("ansible.builtin.copy", f"src={tmp_path}/sent dest=sent.bin mode=600")
    ansible("ansible.builtin.fetch", f"src=sent.bin dest={tmp_path}/back flat=yes")
    assert (tmp_path / "back").read_bytes() == (tmp_path / "sent").read_bytes()


@needs_ssh
def test_the_source_holds_its_state_and_its_runs(real: Real) -> None:
    code = (
        "import json; from airflow.models import Connection, DagRun, Pool, Variable; from airflow import settings\n"
        "s = settings.Session()\n"
        "c = s.query(Connection).filter_by(conn_id='uri_hostile').one()\n"
        "print('ANSWER' + json.dumps([Variable.get('scientific'), Variable.get('wrapped_value'), c.password, c.login,"
        " s.query(Pool).filter_by(pool='default_pool').one().slots, s.query(DagRun).filter_by(state='success').count(),"
        " s.query(Connection).filter_by(conn_id='conn with blanks').count()]))"
    )
    python = f"AIRFLOW_HOME={real.env['MWAA_LAB_SOURCE_HOME']} {real.env['MWAA_LAB_SOURCE_PYTHON']}"
    run = real.ssh(f"{python} -W ignore -c {shlex.quote(code)}")
    assert b"ANSWER" in run.stdout, run.stderr.decode()[-2000:]

    scientific, wrapped, password, login, slots, runs, blanks = json.loads(run.stdout.decode().partition("ANSWER")[2])
    assert (scientific, wrapped, login, slots, blanks) == ("1e5", '{"value": 5}', "us/er@corp:x", 64, 1)
    assert "CANARY-conn-hostile-" in password and runs >= 6


@needs_ssh
def test_the_guard_holds_at_the_source(real: Real) -> None:
    code = "import socket; socket.create_connection(('192.0.2.1', 80))"
    run = real.ssh(f'{real.env["MWAA_LAB_SOURCE_PYTHON"]} -c "{code}"')

    assert b"mwaa-lab guard" in run.stderr


# --- environments ----------------------------------------------------------------------------------------------------


def artefacts(real: Real, version: str, python: str) -> dict[str, str]:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("lab_plugin.py", "GREETING = 'from-plugin'\n")
    url = f"https://raw.githubusercontent.com/apache/airflow/constraints-{version}/constraints-{python}.txt"
    real.put("dags/looker.py", TASK.encode())
    return {
        "PluginsS3Path": "plugins.zip",
        "PluginsS3ObjectVersion": real.put("plugins.zip", buffer.getvalue()),
        "RequirementsS3Path": "requirements.txt",
        "RequirementsS3ObjectVersion": real.put("requirements.txt", f'--constraint "{url}"\ncowsay==6.1\n'.encode()),
        "StartupScriptS3Path": "startup.sh",
        "StartupScriptS3ObjectVersion": real.put("startup.sh", b"echo noise\nexport FROM_STARTUP=from-startup\n"),
    }


@pytest.fixture(scope="module", params=[("2.11.2", "3.12"), ("3.2.1", "3.12")], ids=lambda pair: pair[0])
def target(real: Real, request: pytest.FixtureRequest) -> Iterator[tuple[str, str]]:
    """An environment of one version; the next one comes when its tests are over."""
    version, python = request.param
    name = "target-" + version.replace(".", "-")
    made = real.create(
        name,
        version,
        AirflowConfigurationOptions={"core.default_task_retries": "3", "core.fernet_key": "mine"},
        **artefacts(real, version, python),
    )
    assert made["Status"] == "AVAILABLE", made["LastUpdate"]
    yield name, version
    if real.folder.exists():  # the last test takes the lab down
        real.delete(name)


def test_an_environment_is_a_real_airflow(real: Real, target: tuple[str, str]) -> None:
    name, version = target

    assert real.rest(name, "GET", "/version")[1]["version"] == version
    found = real.environment(name)
    assert Path(found["python"]).exists() and found["pids"] and name in found["database_url"]


@pytest.mark.parametrize(("role", "dags", "variables"), [("op", 200, 200), ("viewer", 200, 403), ("public", 403, 403)])
def test_another_role_is_another_user(
    real: Real, target: tuple[str, str], role: str, dags: int, variables: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    arn = f"arn:aws:iam::000000000000:role/mwaa-lab-{role}"
    key = real.client("sts").assume_role(RoleArn=arn, RoleSessionName="somebody")["Credentials"]
    somebody = boto3.session.Session(key["AccessKeyId"], key["SecretAccessKey"], key["SessionToken"], "us-east-1")
    monkeypatch.setattr(real, "session", somebody)

    assert real.rest(target[0], "GET", "/dags")[0] == dags
    assert real.rest(target[0], "GET", "/variables")[0] == variables


def test_a_task_finds_what_it_was_given_and_nothing_else(real: Real, target: tuple[str, str]) -> None:
    name, version = target
    assert real.rest(name, "POST", "/variables", {"key": "from_rest", "value": "v"})[0] in (200, 201)
    until(lambda: real.rest(name, "GET", "/dags/looker")[0] == 200)
    assert real.rest(name, "GET", "/dags/looker")[1]["is_paused"] is True
    real.rest(name, "PATCH", "/dags/looker", {"is_paused": False})
    logical = {"logical_date": None} if version.startswith("3") else {}
    assert real.rest(name, "POST", "/dags/looker/dagRuns", {"dag_run_id": "one", **logical})[0] == 200

    seen = []

    def over() -> bool:
        status, reply = real.rest(name, "GET", "/dags/looker/dagRuns/one")
        seen.append(reply.get("state") if status == 200 else (status, reply))  # a busy Airflow may need over 10 s once
        return seen[-1] in ("success", "failed")

    until(over)
    assert seen[-1] == "success", seen

    logs = real.client("logs")
    where = {
        "logGroupName": f"airflow-{name}-Task",
        "logStreamName": "dag_id=looker/run_id=one/task_id=look/attempt=1.log",
    }

    def lines() -> str:
        try:
            return "\n".join(event["message"] for event in logs.get_log_events(**where)["events"])
        except logs.exceptions.ResourceNotFoundException:
            return ""

    until(lambda: "REFUSED" in lines(), 30)
    assert f"FOUND v {name} from-startup from-plugin True" in lines()
    assert "mwaa-lab guard" in lines()


def test_the_command_line_of_an_environment_answers(real: Real, target: tuple[str, str]) -> None:
    import ssl

    token = real.client("mwaa").create_cli_token(Name=target[0])
    trust = ssl.create_default_context(cafile=real.env["MWAA_LAB_CA"])
    headers = {"Authorization": f"Bearer {token['CliToken']}", "Content-Type": "text/plain"}
    address = f"https://{token['WebServerHostname']}/aws_mwaa/cli"
    opener = urllib.request.build_opener(urllib.request.HTTPSHandler(context=trust), KeepPosting())
    with opener.open(urllib.request.Request(address, data=b"version", headers=headers)) as reply:
        assert base64.b64decode(json.load(reply)["stdout"]).decode().strip() == target[1]


class KeepPosting(urllib.request.HTTPRedirectHandler):
    """Airflow 3's endpoint redirects with 307: the same request again."""

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        return urllib.request.Request(newurl, data=req.data, headers=req.headers) if code == 307 else None


def test_broken_requirements_leave_what_was_there(real: Real, target: tuple[str, str]) -> None:
    name, version = target
    version_id = real.put("requirements.txt", b"apache-airflow==1.10.15\n")
    before = real.environment(name)["pids"]

    real.client("mwaa").update_environment(
        Name=name, RequirementsS3Path="requirements.txt", RequirementsS3ObjectVersion=version_id
    )
    found = real.settled(name)

    assert found["Status"] == "UPDATE_FAILED"
    message = found["LastUpdate"]["Error"]["ErrorMessage"]
    assert "apache-airflow==1.10.15" in message and "ERROR" in message
    assert real.rest(name, "GET", "/variables/from_rest")[1]["value"] == "v"
    assert set(before) & set(real.environment(name)["pids"])


def test_options_change_with_a_restart(real: Real, target: tuple[str, str]) -> None:
    name, _version = target

    real.client("mwaa").update_environment(Name=name, AirflowConfigurationOptions={"core.default_task_retries": "5"})

    assert real.settled(name)["Status"] == "AVAILABLE"
    assert real.rest(name, "GET", "/variables/from_rest")[1]["value"] == "v"


def test_killed_processes_come_back(real: Real, target: tuple[str, str]) -> None:
    name, _version = target
    before = real.environment(name)["pids"]
    for pid in before:
        os.kill(pid, signal.SIGKILL)

    def back() -> bool:
        return real.rest(name, "GET", "/variables/from_rest")[0] == 200

    until(back)
    assert not set(before) & set(real.environment(name)["pids"])


def test_dags_follow_the_bucket(real: Real, target: tuple[str, str]) -> None:
    dags = Path(real.environment(target[0])["airflow_home"], "dags")
    real.put("dags/sub/folder/note.txt", b"one")
    until(lambda: (dags / "sub/folder/note.txt").exists(), 20)

    real.put("dags/sub/folder/note.txt", b"two!")
    until(lambda: (dags / "sub/folder/note.txt").read_bytes() == b"two!", 20)
    real.client("s3").delete_object(Bucket=real.env["MWAA_LAB_BUCKET"], Key="dags/sub/folder/note.txt")

    until(lambda: not (dags / "sub").exists(), 20)
    assert (dags / "looker.py").exists()


def test_requirements_that_cannot_be_installed_fail_the_creation(real: Real) -> None:
    version_id = real.put("bad.txt", b"no-such-package-of-the-lab==1\n")

    found = real.create("fails", "2.11.2", RequirementsS3Path="bad.txt", RequirementsS3ObjectVersion=version_id)

    assert found["Status"] == "CREATE_FAILED"
    assert "no-such-package-of-the-lab" in found["LastUpdate"]["Error"]["ErrorMessage"]
    real.delete("fails")


# --- the end ---------------------------------------------------------------------------------------------------------


def test_down_after_kill_leaves_nothing(real: Real) -> None:
    """kill -9 of AWS and host, then a stopped scheduler: all ends, and folder and temporary folder are gone."""
    lab = LabDir(real.folder)
    entries, lab_id, temp = processes.records(lab), lab.id, lab.temp
    for name in ("server", "host"):
        record = processes.alive(lab, name)
        assert record is not None
        os.kill(record.pid, signal.SIGKILL)
    scheduler = processes.alive(lab, "source.scheduler")
    assert scheduler is not None
    os.kill(scheduler.pid, signal.SIGSTOP)

    lab_command(real.folder, "down")

    assert processes.members(entries, lab_id) == []
    assert not real.folder.exists() and not temp.exists()
