# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every Airflow that the lab has, once as a source on each database and once as an environment; each in its own lab."""

from __future__ import annotations

import base64
import json
import shlex
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from mwaa_lab import processes
from mwaa_lab.airflow import install, versions
from mwaa_lab.aws import limits
from mwaa_lab.labdir import LabDir, LabError
from mwaa_lab.seeds import eras, state
from mwaa_lab.source import Source

pytestmark = pytest.mark.e2e

BIN = Path(sys.executable).parent

SOURCES = ["1.10.12", "1.10.15", "2.0.2", "2.2.2", "2.5.1", "2.8.1", "2.10.3", "3.0.6"]
TARGETS = ["2.0.2", "2.2.2", "2.5.1", "2.10.3", "2.11.2", "3.0.6", "3.2.1", "3.3.1"]

LOOKER = """
from datetime import datetime
from airflow import DAG
try:
    from airflow.providers.standard.operators.python import PythonOperator
except ImportError:
    from airflow.operators.python import PythonOperator

def look():
    import os, urllib.request
    import boto3
    keys = boto3.client("s3").list_objects_v2(Bucket=os.environ["BUCKET"])["KeyCount"]
    print("FOUND", os.environ["AIRFLOW_ENV_NAME"], keys > 0)
    try:
        urllib.request.urlopen("https://example.com")
    except OSError as error:
        print("REFUSED", error)

with DAG("looker", start_date=datetime(2024, 1, 1)) as dag:
    PythonOperator(task_id="look", python_callable=look)
"""


class Lab:
    """A lab on the command line; ``with`` takes it down and sees that nothing is left."""

    def __init__(self, folder: Path, *words: str) -> None:
        self.folder = folder
        self.words = words

    def __enter__(self) -> Lab:
        self.call("up", *self.words)
        return self

    def __exit__(self, *_reason: object) -> None:
        lab = LabDir(self.folder)
        if not lab.exists():
            return
        entries, lab_id, temp = processes.records(lab), lab.id, lab.temp
        self.call("down")
        assert processes.members(entries, lab_id) == []
        assert not self.folder.exists() and not temp.exists()

    def call(self, *words: str) -> str:
        run = subprocess.run([BIN / "mwaa-lab", *words, "--dir", self.folder], capture_output=True, text=True)
        assert run.returncode == 0, run.stdout + run.stderr
        return run.stdout

    def clients(self) -> dict[str, Any]:
        from botocore.config import Config

        env = dict(shlex.split(line)[1].split("=", 1) for line in self.call("env").splitlines() if "export" in line)
        session = boto3.session.Session(env["AWS_ACCESS_KEY_ID"], env["AWS_SECRET_ACCESS_KEY"], region_name="us-east-1")
        config = Config(inject_host_prefix=False, s3={"addressing_style": "path"})
        names = ("mwaa", "s3", "logs")
        made = {n: session.client(n, endpoint_url=env["AWS_ENDPOINT_URL"], config=config) for n in names}
        return {**made, "env": env}


def needs(version: str) -> None:
    try:
        install.base(versions.version(version))
    except LabError as problem:
        pytest.skip(f"not run: {problem}")


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path / "lab"


@pytest.mark.parametrize("database", ["postgresql", "sqlite"])
@pytest.mark.parametrize("version", SOURCES)
def test_a_source_has_its_state_its_users_and_its_runs(folder: Path, version: str, database: str) -> None:
    needs(version)
    with Lab(folder, "--source", version, "--source-database", database, "--engine", "stub"):
        airflow = Source(LabDir(folder)).airflow()

        def count(table: str, where: str = "1 = 1") -> int:
            return int(airflow.database.sql(f"select count(*) from {table} where {where}"))

        secret = state.canary(LabDir(folder).id)
        assert count("variable") == len(state.variables(secret))
        assert count("connection", "conn_id = 'uri_hostile'") == 1
        refused = 0 if airflow.row.major < 3 else 1  # extra_is_no_json
        assert count("connection") >= len(state.connections(secret)) - refused
        assert count("slot_pool") == len(state.pools())
        assert count("ab_user") == len(state.USERS) + 1
        assert count("dag_run", "state = 'success'") >= sum(eras.runs(airflow.row, state.RUNS).values())
        assert count("dag", "dag_id = 'finance_month_end' and is_paused") == 1
        until(lambda: count("import_error") == 1)  # broken_import, once its turn to be parsed has come
        code = (
            "from airflow.models import Variable; print('ANSWER', Variable.get('scientific'), Variable.get('api_key'))"
        )
        run = subprocess.run(
            [airflow.python, "-W", "ignore", "-c", code], env=airflow.environ, capture_output=True, text=True
        )
        assert f"ANSWER 1e5 {secret('var-api-key')}" in run.stdout, run.stderr


@pytest.mark.parametrize("version", TARGETS)
def test_an_environment_runs_a_dag(folder: Path, version: str) -> None:
    needs(version)
    last = limits.last_day(version)
    words = ["--as-of", last.isoformat()] if last else []
    with Lab(folder, "--source", "none", *words) as lab:
        made = lab.clients()
        mwaa, logs, env = made["mwaa"], made["logs"], made["env"]
        bucket = env["MWAA_LAB_BUCKET"]
        put = LOOKER.replace('os.environ["BUCKET"]', repr(bucket)).encode()
        made["s3"].put_object(Bucket=bucket, Key="dags/looker.py", Body=put)
        mwaa.create_environment(
            Name="target",
            AirflowVersion=version,
            ExecutionRoleArn=env["MWAA_LAB_ROLE_ARN"],
            SourceBucketArn=f"arn:aws:s3:::{bucket}",
            DagS3Path="dags",
            WebserverAccessMode="PUBLIC_ONLY",
            NetworkConfiguration={
                "SubnetIds": env["MWAA_LAB_SUBNET_IDS"].split(","),
                "SecurityGroupIds": env["MWAA_LAB_SECURITY_GROUP_IDS"].split(","),
            },
            LoggingConfiguration={"TaskLogs": {"Enabled": True, "LogLevel": "INFO"}},
            AirflowConfigurationOptions={"core.default_task_retries": "3", "core.dags_are_paused_at_creation": "True"},
        )
        while (found := mwaa.get_environment(Name="target")["Environment"])["Status"] == "CREATING":
            time.sleep(0.5)
        assert found["Status"] == "AVAILABLE", found["LastUpdate"]

        assert cli(made, "version").strip().endswith(version)
        until(lambda: "looker" in cli(made, "dags list"))
        cli(made, "dags unpause looker")
        cli(made, "dags trigger looker --run-id one")

        def lines() -> str:
            events = []
            streams = logs.describe_log_streams(logGroupName="airflow-target-Task")["logStreams"]
            for stream in streams:
                name = stream["logStreamName"]
                assert name.startswith("dag_id=looker/" if versions.version(version).since(2, 3) else "looker/look/")
                events += logs.get_log_events(logGroupName="airflow-target-Task", logStreamName=name)["events"]
            return "\n".join(event["message"] for event in events)

        until(lambda: "REFUSED" in lines())
        assert "FOUND target True" in lines() and "mwaa-lab guard" in lines()

        if versions.version(version).since(2, 4, 3):
            assert mwaa.invoke_rest_api(Name="target", Method="GET", Path="/variables")["RestApiStatusCode"] == 200
        if versions.version(version).since(2, 2):
            status = json.loads(lab.call("status", "--json"))["environments"][0]
            assert any("triggerer" in p for p in map(command, status["pids"]))


def command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
    except OSError:
        return ""


def cli(made: dict[str, Any], line: str) -> str:
    import ssl

    token = made["mwaa"].create_cli_token(Name="target")
    trust = ssl.create_default_context(cafile=made["env"]["MWAA_LAB_CA"])
    headers = {"Authorization": f"Bearer {token['CliToken']}", "Content-Type": "text/plain"}
    address = f"https://{token['WebServerHostname']}/aws_mwaa/cli"
    opener = urllib.request.build_opener(urllib.request.HTTPSHandler(context=trust), KeepPosting())
    with opener.open(urllib.request.Request(address, data=line.encode(), headers=headers)) as reply:
        return base64.b64decode(json.load(reply)["stdout"]).decode()


class KeepPosting(urllib.request.HTTPRedirectHandler):
    """Airflow 3's endpoint redirects with 307: the same request again."""

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        return urllib.request.Request(newurl, data=req.data, headers=req.headers) if code == 307 else None


def until(condition: Any, seconds: float = 120.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(1)
