# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Real Airflows: 2.10.3 is cloned to 2.11.2, and that becomes 3.2.1 with its history. The tests run in their order."""

from __future__ import annotations

import io
import json
import secrets
import time
import zipfile
from types import SimpleNamespace

import pytest
from conftest import Lab, wait_for

pytestmark = pytest.mark.e2e

CONSTRAINTS = "https://raw.githubusercontent.com/apache/airflow/constraints-{}/constraints-{}.txt"
REQUIREMENTS = f"""\
# ours
--constraint "{CONSTRAINTS.format("2.10.3", "3.11")}"
apache-airflow-providers-amazon==9.0.0
"""
DAG = """
import os
from datetime import datetime
from airflow import DAG
from airflow.operators.python import PythonOperator
from palette import COLOUR  # of plugins.zip

def paint():
    assert (COLOUR, os.environ["SHADE"]) == ("blue", "dark")  # of the startup script

with DAG("orders", schedule=None, start_date=datetime(2024, 1, 1)):
    PythonOperator(task_id="load", python_callable=paint)
"""
PLUGIN = """
from airflow.plugins_manager import AirflowPlugin
COLOUR = "blue"
class Palette(AirflowPlugin):
    name = "palette"
"""


class Environments:
    """What a user does with environments of one lab."""

    def __init__(self, lab: Lab):
        self.lab, self.env = lab, lab.environment()
        self.bucket = self.env["MWAA_LAB_BUCKET"]
        self.mwaa, self.s3 = lab.client("mwaa"), lab.client("s3")
        self.secret = f"CANARY-smtp-{secrets.token_hex(4)}"

    def put(self, key: str, body: bytes) -> str:
        return self.s3.put_object(Bucket=self.bucket, Key=key, Body=body)["VersionId"]

    def create(self, name: str) -> None:
        zipped = io.BytesIO()
        with zipfile.ZipFile(zipped, "w") as archive:
            archive.writestr("palette.py", PLUGIN)
        self.put("dags/orders.py", DAG.encode())
        objects = {
            "Plugins": ("plugins.zip", zipped.getvalue()),
            "Requirements": ("requirements.txt", REQUIREMENTS.encode()),
            "StartupScript": ("startup.sh", b"#!/bin/sh\nexport SHADE=dark\n"),
        }
        pinned = {}
        for kind, (key, body) in objects.items():
            pinned |= {f"{kind}S3Path": key, f"{kind}S3ObjectVersion": self.put(key, body)}
        self.mwaa.create_environment(
            Name=name,
            AirflowVersion="2.10.3",
            ExecutionRoleArn=self.env["MWAA_LAB_ROLE_ARN"],
            SourceBucketArn=f"arn:aws:s3:::{self.bucket}",
            DagS3Path="dags",
            WebserverAccessMode="PUBLIC_ONLY",
            NetworkConfiguration={
                "SubnetIds": self.env["MWAA_LAB_SUBNET_IDS"].split(","),
                "SecurityGroupIds": self.env["MWAA_LAB_SECURITY_GROUP_IDS"].split(","),
            },
            AirflowConfigurationOptions={
                "core.parallelism": "8",
                "webserver.expose_config": "True",
                "smtp.smtp_password": self.secret,
            },
            LoggingConfiguration={"TaskLogs": {"Enabled": True, "LogLevel": "INFO"}},
            Tags={"team": "a"},
            **pinned,
        )
        wait_for(lambda: self.shown(name)["Status"] != "CREATING", 300, f"environment {name}")
        assert self.shown(name)["Status"] == "AVAILABLE", self.shown(name)["LastUpdate"]

    def delete(self, name: str) -> None:
        self.mwaa.delete_environment(Name=name)
        wait_for(lambda: name not in self.mwaa.list_environments()["Environments"], 60, f"{name} is gone")

    def shown(self, name: str) -> dict:
        return self.mwaa.get_environment(Name=name)["Environment"]

    def rest(self, name: str, method: str, path: str, body: object = None):
        given = {} if body is None else {"Body": body}
        for _attempt in range(10 if method == "GET" else 1):
            try:
                return self.mwaa.invoke_rest_api(Name=name, Method=method, Path=path, **given)["RestApiResponse"]
            except self.mwaa.exceptions.RestApiServerException as error:  # a busy machine: not within 10 s
                last = error
                time.sleep(1)
        raise last

    def runs(self, name: str) -> dict[str, str]:
        return {run["dag_run_id"]: run["state"] for run in self.rest(name, "GET", "/dags/orders/dagRuns")["dag_runs"]}

    def run(self, name: str, run_id: str) -> None:
        day = f"2024-03-{len(self.runs(name)) + 1:02}T00:00:00+00:00"
        self.rest(name, "POST", "/dags/orders/dagRuns", {"dag_run_id": run_id, "logical_date": day})
        wait_for(lambda: self.runs(name)[run_id] in ("success", "failed"), 120, f"run {run_id}")
        assert self.runs(name)[run_id] == "success"

    def has_dag(self, name: str) -> bool:
        try:
            return bool(self.rest(name, "GET", "/dags/orders"))
        except (self.mwaa.exceptions.RestApiClientException, self.mwaa.exceptions.RestApiServerException):
            return False


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    lab = Lab(tmp_path_factory.mktemp("clone") / "lab")
    try:
        lab.up("--source", "none")
        environments = Environments(lab)
        environments.create("old")
        yield environments
    finally:
        lab.command("down", check=False)


@pytest.fixture(scope="module")
def cloned(own) -> SimpleNamespace:
    play = own.lab.play("clone.yml", "-vvv", "--diff", *words(source="old", name="new", airflow_version="2.11.2"))
    assert play.returncode == 0, play.output[-4000:]
    return SimpleNamespace(play=play, old=own.shown("old"), new=own.shown("new"))


def words(prefix: str = "clone", **variables) -> list[str]:
    return ["-e", json.dumps({f"{prefix}_{name}": value for name, value in variables.items()})]


def test_the_clone_has_what_the_source_has(own, cloned):
    old, new = cloned.old, cloned.new
    assert (new["Status"], new["AirflowVersion"]) == ("AVAILABLE", "2.11.2")
    for field in ("AirflowConfigurationOptions", "Tags", "PluginsS3Path", "PluginsS3ObjectVersion", "MaxWorkers",
                  "StartupScriptS3Path", "StartupScriptS3ObjectVersion", "DagS3Path", "SourceBucketArn",
                  "ExecutionRoleArn", "EnvironmentClass", "NetworkConfiguration", "WebserverAccessMode"):  # fmt: skip
        assert new[field] == old[field], field
    assert "CANARY" not in cloned.play.output
    which = {"Key": new["RequirementsS3Path"], "VersionId": new["RequirementsS3ObjectVersion"]}
    text = own.s3.get_object(Bucket=own.bucket, **which)["Body"].read().decode()
    moved = REQUIREMENTS.replace(CONSTRAINTS.format("2.10.3", "3.11"), CONSTRAINTS.format("2.11.2", "3.12"))
    assert text == moved.replace("9.0.0", "9.22.0")


def test_its_plugins_startup_script_and_requirements_work(own, cloned):
    wait_for(lambda: own.has_dag("new"), 120, "the DAG is parsed, with its plugin")
    assert own.rest("new", "GET", "/dags/orders")["is_paused"] is True
    assert "palette" in json.dumps(own.rest("new", "GET", "/plugins"))
    providers = {one["package_name"]: one["version"] for one in own.rest("new", "GET", "/providers")["providers"]}
    assert providers["apache-airflow-providers-amazon"] == "9.22.0"
    own.rest("new", "PATCH", "/dags/orders", {"is_paused": False})
    for number in range(3):
        own.run("new", f"before-{number}")


def test_a_second_clone_changes_nothing(own, cloned):
    play = own.lab.play("clone.yml", *words(source="old", name="new", airflow_version="2.11.2"))
    assert play.returncode == 0 and play.changed == 0, play.output[-3000:]


def test_what_aws_refuses_is_said_in_a_sentence(own, cloned):
    play = own.lab.play("clone.yml", *words(source="old", name="newer", max_workers=400))
    assert play.returncode != 0 and "workers" in play.output  # the preflight sees it, too
    play = own.lab.play("clone.yml", *words(source="old", name="newer", max_workers=400, preflight=False))
    assert play.returncode != 0
    assert "cannot create environment newer: AWS refused it: " in play.output and "ValidationException" in play.output
    assert own.mwaa.list_environments()["Environments"] == ["new", "old"]


def test_an_upgrade_that_fails_leaves_the_environment_usable(own, cloned):
    own.delete("old")
    runs = own.runs("new")
    own.put("broken.txt", b"no-such-package-of-anyone==1.0\n")
    given = {"environment": "new", "airflow_version": "3.2.1", "requirements_s3_path": "broken.txt", "confirm": "new"}
    play = own.lab.play("upgrade.yml", *words("upgrade", **given))
    assert play.returncode != 0
    for part in ("was not moved from Airflow 2.11.2 to 3.2.1", "no-such-package-of-anyone", "MWAA rolled back"):
        assert part in play.output, play.output[-3000:]
    shown = own.shown("new")
    assert (shown["Status"], shown["AirflowVersion"]) == ("UPDATE_FAILED", "2.11.2")
    assert shown["RequirementsS3Path"] == cloned.new["RequirementsS3Path"]
    assert own.rest("new", "GET", "/version")["version"] == "2.11.2" and own.runs("new") == runs
    own.run("new", "after-the-failure")


def test_the_upgrade_keeps_every_run(own, cloned):
    runs = own.runs("new")
    given = {"environment": "new", "airflow_version": "3.2.1"}
    play = own.lab.play("upgrade.yml", *words("upgrade", **given))
    assert play.returncode != 0 and "upgrade_confirm=new" in play.output  # nobody said that it may
    assert own.shown("new")["AirflowVersion"] == "2.11.2"
    play = own.lab.play("upgrade.yml", "-vvv", "--diff", *words("upgrade", **given, confirm="new"))
    assert play.returncode == 0 and play.changed == 1, play.output[-4000:]
    assert "CANARY" not in play.output and "CREATING_SNAPSHOT" in play.output
    shown = own.shown("new")
    assert (shown["Status"], shown["AirflowVersion"]) == ("AVAILABLE", "3.2.1")
    wait_for(lambda: own.has_dag("new"), 120, "the REST API of 3.2.1 answers")
    assert own.rest("new", "GET", "/version")["version"].startswith("3.2.1")
    assert own.runs("new") == runs
    options = shown["AirflowConfigurationOptions"]
    assert options["smtp.smtp_password"] == own.secret and options["api.expose_config"] == "True"
    assert options["scheduler.create_cron_data_intervals"] == "True"
    own.run("new", "after-the-upgrade")


def test_a_second_upgrade_changes_nothing(own, cloned):
    before = len(own.lab.journal())
    play = own.lab.play("upgrade.yml", *words("upgrade", environment="new", airflow_version="3.2.1"))
    assert play.returncode == 0 and play.changed == 0, play.output[-3000:]
    calls = [call for call in own.lab.journal()[before:] if call["caller"] == "user"]
    assert calls and not [call for call in calls if call["access"] == "write"]


def test_nothing_is_left_running(own, cloned):
    own.lab.down()
    time.sleep(0.5)
    assert own.lab.processes() == []
