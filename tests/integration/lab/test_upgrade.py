# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An Airflow version is changed in place: the same database, migrated by the real Airflow, or as it was before."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config
from mwaa_lab.airflow import install, versions
from mwaa_lab.airflow.postgres import Postgres
from mwaa_lab.labdir import LabDir, LabError

pytestmark = pytest.mark.e2e

NAME = "upgraded"
DAG = """
from datetime import datetime
from airflow import DAG
from airflow.operators.bash import BashOperator

with DAG("orders", schedule=None, start_date=datetime(2024, 1, 1)):
    BashOperator(task_id="load", bash_command="true")
"""
PASSWORD = "s3cr$t/that:keeps"


def lab_command(folder: Path, *words: str) -> str:
    command = [Path(sys.executable).parent / "mwaa-lab", *words, "--dir", folder]
    run = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stdout + run.stderr
    return run.stdout


class Environment:
    """One real environment and all that a user can do with it."""

    def __init__(self, folder: Path) -> None:
        lab_command(folder, "up", "--source", "none")
        exports = lab_command(folder, "env").splitlines()
        self.folder = folder
        self.env = dict(shlex.split(line)[1].split("=", 1) for line in exports if line.startswith("export "))
        self.mwaa, self.s3 = self.client("mwaa"), self.client("s3")
        self.s3.put_object(Bucket=self.env["MWAA_LAB_BUCKET"], Key="dags/orders.py", Body=DAG.encode())
        self.mwaa.create_environment(
            Name=NAME,
            AirflowVersion="2.11.2",
            ExecutionRoleArn=self.env["MWAA_LAB_ROLE_ARN"],
            SourceBucketArn=f"arn:aws:s3:::{self.env['MWAA_LAB_BUCKET']}",
            DagS3Path="dags",
            WebserverAccessMode="PUBLIC_ONLY",
            NetworkConfiguration={
                "SubnetIds": self.env["MWAA_LAB_SUBNET_IDS"].split(","),
                "SecurityGroupIds": self.env["MWAA_LAB_SECURITY_GROUP_IDS"].split(","),
            },
        )
        assert self.settled()[-1] == "AVAILABLE"

    def client(self, service: str) -> Any:
        keys = (self.env["AWS_ACCESS_KEY_ID"], self.env["AWS_SECRET_ACCESS_KEY"])
        session = boto3.session.Session(*keys, region_name=self.env["AWS_REGION"])
        config = Config(inject_host_prefix=False, s3={"addressing_style": "path"})
        return session.client(service, endpoint_url=self.env["AWS_ENDPOINT_URL"], config=config)

    def shown(self) -> dict[str, Any]:
        return self.mwaa.get_environment(Name=NAME)["Environment"]

    def settled(self) -> list[str]:
        """The statuses on the way to one that lasts."""
        seen = [self.shown()["Status"]]
        while seen[-1] not in ("AVAILABLE", "CREATE_FAILED", "UPDATE_FAILED", "UNAVAILABLE"):
            time.sleep(0.1)
            if (status := self.shown()["Status"]) != seen[-1]:
                seen.append(status)
        return seen

    def update(self, **changes: Any) -> list[str]:
        self.mwaa.update_environment(Name=NAME, **changes)
        began = time.monotonic()
        seen = self.settled()
        print(f"{changes}: {' '.join(seen)} in {time.monotonic() - began:.1f} s")
        return seen

    def rest(self, method: str, path: str, body: Any = None) -> Any:
        given = {} if body is None else {"Body": body}
        return self.mwaa.invoke_rest_api(Name=NAME, Method=method, Path=path, **given)["RestApiResponse"]

    def runs(self) -> dict[str, tuple[str, str]]:
        """State and date of every run, by its id."""
        listed = self.rest("GET", "/dags/orders/dagRuns")["dag_runs"]
        return {run["dag_run_id"]: (run["state"], run["logical_date"][:19]) for run in listed}

    def run(self, run_id: str, day: str) -> None:
        self.rest("POST", "/dags/orders/dagRuns", {"dag_run_id": run_id, "logical_date": f"{day}T00:00:00+00:00"})
        self.until(lambda: self.runs()[run_id][0] == "success")

    def until(self, condition: Any, seconds: float = 120.0) -> Any:
        deadline = time.monotonic() + seconds
        while True:
            try:
                if found := condition():
                    return found
            except (self.mwaa.exceptions.RestApiClientException, self.mwaa.exceptions.RestApiServerException):
                pass
            assert time.monotonic() < deadline, "it never came true"
            time.sleep(0.2)

    def secrets(self) -> tuple[str, str]:
        """A variable and a connection's password as Airflow's own Python decrypts them."""
        mine = next(it for it in json.loads(lab_command(self.folder, "status", "--json"))["environments"])
        keys = json.loads(next(self.folder.glob("environments/*/*/*/environment.json")).read_text())
        script = (
            "from airflow.models import Connection, Variable; from airflow.settings import Session; s = Session();"
            " print(s.query(Variable).filter_by(key='colour').one().val);"
            " print(s.query(Connection).filter_by(conn_id='shop').one().password)"
        )
        settings = {
            "PATH": "/usr/bin:/bin",
            "AIRFLOW_HOME": str(self.folder / "tmp" / "reader"),
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": mine["database_url"],
            "AIRFLOW__CORE__FERNET_KEY": keys["fernet_key"],
        }
        run = subprocess.run([mine["python"], "-c", script], env=settings, capture_output=True, text=True, check=True)
        value, password = run.stdout.splitlines()[-2:]
        return value, password

    def databases(self) -> set[str]:
        found = Postgres(LabDir(self.folder)).sql("postgres", "select datname from pg_database")
        return {name for name in found.split() if name.startswith("env-")}


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Environment]:
    for version in ("2.11.2", "3.2.1"):
        try:
            install.base(versions.version(version))
        except LabError as problem:
            pytest.skip(f"not run: {problem}")
    folder = tmp_path_factory.mktemp("upgrade") / "lab"
    try:
        yield Environment(folder)
    finally:
        lab_command(folder, "down")


def test_what_an_environment_holds_before(environment: Environment) -> None:
    environment.until(lambda: environment.rest("GET", "/dags/orders"))
    environment.rest("PATCH", "/dags/orders", {"is_paused": False})
    for number in range(1, 4):
        environment.run(f"before-{number}", f"2024-03-0{number}")
    environment.rest("POST", "/variables", {"key": "colour", "value": "green"})
    environment.rest(
        "POST", "/connections", {"connection_id": "shop", "conn_type": "http", "host": "shop", "password": PASSWORD}
    )
    assert environment.secrets() == ("green", PASSWORD)


def test_an_upgrade_whose_requirements_cannot_be_installed_leaves_the_old_version_running(
    environment: Environment,
) -> None:
    runs = environment.runs()
    version = environment.s3.put_object(
        Bucket=environment.env["MWAA_LAB_BUCKET"], Key="requirements.txt", Body=b"no-such-package-of-anyone==1.0\n"
    )["VersionId"]
    broken = {"RequirementsS3Path": "requirements.txt", "RequirementsS3ObjectVersion": version}
    seen = environment.update(AirflowVersion="3.2.1", **broken)
    assert seen == ["UPDATING", "CREATING_SNAPSHOT", "UPDATING", "ROLLING_BACK", "UPDATE_FAILED"]
    shown = environment.shown()
    assert shown["AirflowVersion"] == "2.11.2" and "RequirementsS3Path" not in shown
    assert "no-such-package-of-anyone" in shown["LastUpdate"]["Error"]["ErrorMessage"]
    assert environment.rest("GET", "/version")["version"] == "2.11.2"
    assert environment.runs() == runs
    environment.run("after-the-first-failure", "2024-03-11")


def test_an_upgrade_whose_migration_fails_leaves_the_old_database(environment: Environment) -> None:
    database = Postgres(LabDir(environment.folder))
    (mine,) = environment.databases()
    database.sql(mine, "create table dag_version (in_the_way int)")  # the migration is to make one itself
    runs = environment.runs()
    assert environment.update(AirflowVersion="3.2.1")[-2:] == ["ROLLING_BACK", "UPDATE_FAILED"]
    message = environment.shown()["LastUpdate"]["Error"]["ErrorMessage"]
    assert "airflow db migrate of 3.2.1 failed" in message and "dag_version" in message
    assert environment.runs() == runs and environment.secrets() == ("green", PASSWORD)
    assert database.sql(mine, "select count(*) from dag_version").strip() == "0"
    environment.run("after-the-second-failure", "2024-03-12")
    database.sql(mine, "drop table dag_version")


def test_an_upgrade_keeps_runs_variables_and_connections(environment: Environment) -> None:
    runs = environment.runs()
    assert len(runs) == 5
    seen = environment.update(AirflowVersion="3.2.1", WorkerReplacementStrategy="GRACEFUL")
    assert seen == ["UPDATING", "CREATING_SNAPSHOT", "UPDATING", "AVAILABLE"]
    shown = environment.shown()
    assert shown["AirflowVersion"] == "3.2.1"
    assert shown["LastUpdate"]["WorkerReplacementStrategy"] == "GRACEFUL"
    assert environment.rest("GET", "/version")["version"] == "3.2.1"
    assert environment.runs() == runs
    assert environment.rest("GET", "/variables/colour")["value"] == "green"
    assert environment.rest("GET", "/connections/shop")["host"] == "shop"
    assert environment.secrets() == ("green", PASSWORD)
    assert environment.databases() == {"env-upgraded-000000000000-us-east-1"}  # no snapshot is left
    environment.until(lambda: not environment.rest("GET", "/dags/orders")["is_stale"])
    environment.run("after-the-upgrade", "2024-03-13")


def test_the_way_back_keeps_them_too(environment: Environment) -> None:
    runs = environment.runs()
    assert environment.update(AirflowVersion="2.11.2")[-1] == "AVAILABLE"
    assert environment.rest("GET", "/version")["version"] == "2.11.2"
    assert environment.runs() == runs
    assert environment.secrets() == ("green", PASSWORD)


def test_where_the_way_back_is_lost_too_nothing_is_usable(environment: Environment) -> None:
    bucket, key = environment.env["MWAA_LAB_BUCKET"], "requirements.txt"
    version = environment.s3.put_object(Bucket=bucket, Key=key, Body=b"no-such-package-of-anyone==2.0\n")["VersionId"]
    broken = {"RequirementsS3Path": key, "RequirementsS3ObjectVersion": version}
    environment.mwaa.update_environment(Name=NAME, AirflowVersion="3.2.1", **broken)
    (snapshot,) = environment.until(lambda: {name for name in environment.databases() if "snapshot" in name})
    environment.until(lambda: environment.shown()["Status"] == "UPDATING")
    Postgres(LabDir(environment.folder)).drop(snapshot)
    assert environment.settled()[-1] == "UNAVAILABLE"
    assert "no-such-package-of-anyone" in environment.shown()["LastUpdate"]["Error"]["ErrorMessage"]
    with pytest.raises(environment.mwaa.exceptions.ResourceNotFoundException):
        environment.mwaa.create_cli_token(Name=NAME)
