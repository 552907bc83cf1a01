# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Tools that know nothing of the lab, unmodified: the AWS CLI, and MwaaHook of Airflow's Amazon provider."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.lab

ROOT = Path(__file__).parents[3]
CACHE = ROOT / ".cache" / "venvs"

_AS_OF = "2026-11-01"
"""What came out later is left aside, so that a new release of anything cannot change what is tested."""

HOOK = """
import json, sys, warnings
warnings.simplefilter("ignore")
from airflow.providers.amazon.aws.hooks.mwaa import MwaaHook
name, major, local = sys.argv[1], int(sys.argv[2]), sys.argv[3] == "local"
hook = MwaaHook(aws_conn_id=None)
def call(path, method, body=None, query=None):
    more = {"generate_local_token": local, "airflow_version": major}
    return hook.invoke_rest_api(name, path, method, body=body, query_params=query, **more)
posted = call("/variables", "POST", {"key": "from_hook", "value": "1", "description": None})
listed = call("/variables", "GET", query={"limit": 5})
print(json.dumps([posted, listed, hook.get_conn().get_environment(Name=name)["Environment"]["Status"]], default=str))
"""


def venv(name: str, *requirements: str) -> Path:
    """An interpreter that has the requirements, kept between runs; where it cannot be had the test is skipped."""
    python = CACHE / name / "bin" / "python"
    if (CACHE / name / "ready").exists():
        return python
    uv = shutil.which("uv") or str(ROOT / ".cache" / "uv" / "bin" / "uv")
    if not Path(uv).exists():
        pytest.skip(f"{name}: uv is not there to install {', '.join(requirements)}")
    environment = {key: value for key, value in os.environ.items() if not key.startswith("AWS_")}
    for command in (
        [uv, "venv", "--quiet", "--clear", str(CACHE / name)],
        [uv, "pip", "install", "--quiet", "--exclude-newer", _AS_OF, "--python", str(python), *requirements],
    ):
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"{name}: {done.stderr.strip().splitlines()[-1]}")
    (CACHE / name / "ready").touch()
    return python


@pytest.fixture(scope="session")
def aws(lab: Any) -> Any:
    """The AWS CLI as a function: arguments in, JSON (or text) out."""
    program = venv("awscli", "awscli").parent / "aws"

    def run(*arguments: str, fails: bool = False) -> Any:
        done = subprocess.run(
            [str(program), *arguments], env=lab.environment, capture_output=True, text=True, check=False, timeout=60
        )
        assert (done.returncode != 0) is fails, done.stderr
        if fails:
            return done.stderr.strip()
        return json.loads(done.stdout) if done.stdout.strip().startswith("{") else done.stdout

    return run


def test_awscli(base, aws):
    settings = base.settings(AirflowVersion="2.11.2")
    name = settings["Name"]
    subnets, groups = ",".join(base.subnets), base.group
    made = aws(
        "mwaa", "create-environment", "--name", name, "--execution-role-arn", base.role, "--airflow-version", "2.11.2",
        "--source-bucket-arn", settings["SourceBucketArn"], "--dag-s3-path", "dags", "--webserver-access-mode",
        "PUBLIC_ONLY",
        "--network-configuration", f"SubnetIds={subnets},SecurityGroupIds={groups}",
    )  # fmt: skip
    base.settled(name)
    shown = aws("mwaa", "get-environment", "--name", name)["Environment"]
    assert (shown["Status"], shown["Arn"]) == ("AVAILABLE", made["Arn"])
    assert name in aws("mwaa", "list-environments")["Environments"]
    posted = aws(
        "mwaa", "invoke-rest-api", "--name", name, "--path", "/variables", "--method", "POST",
        "--body", '{"key": "a", "value": "1"}',
    )  # fmt: skip
    assert posted["RestApiStatusCode"] == 200
    assert "RestApiClientException" in aws(
        "mwaa", "invoke-rest-api", "--name", name, "--path", "/variables/none", "--method", "GET", fails=True
    )
    assert aws("mwaa", "create-cli-token", "--name", name)["CliToken"]
    aws("mwaa", "tag-resource", "--resource-arn", made["Arn"], "--tags", "a=b")
    assert aws("mwaa", "list-tags-for-resource", "--resource-arn", made["Arn"])["Tags"] == {"a": "b"}
    aws("mwaa", "update-environment", "--name", name, "--max-workers", "3")
    assert base.settled(name)["MaxWorkers"] == 3
    aws("mwaa", "delete-environment", "--name", name)
    assert "ResourceNotFoundException" in aws("mwaa", "get-environment", "--name", "nothing", fails=True)


@pytest.mark.parametrize("way", ["api", "local"])
@pytest.mark.parametrize(("major", "version", "created"), [(2, "2.11.2", 200), (3, "3.2.1", 201)])
def test_mwaa_hook(lab, base, way, major, version, created):
    python = venv("amazon-provider", "apache-airflow==3.2.1", "apache-airflow-providers-amazon==9.39.0")
    name = base.environment(AirflowVersion=version)
    environment = {**lab.environment, "AIRFLOW_HOME": str(lab.folder / "hook")}
    done = subprocess.run(
        [str(python), "-c", HOOK, name, str(major), way],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    posted, listed, status = json.loads(done.stdout.strip().splitlines()[-1])
    assert posted["RestApiStatusCode"] == created
    assert [item["key"] for item in listed["RestApiResponse"]["variables"]] == ["from_hook"]
    assert status == "AVAILABLE"
