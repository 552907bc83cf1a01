# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""airflow_export from stub environments: the agent's own DAG in them, their bucket, the REST API of both majors."""

from __future__ import annotations

import io
import json
import secrets
import subprocess
import sys
import time
import uuid
import zipfile
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.mwaa.migration.plugins.action.airflow_export import ARGUMENT_SPEC, EnvironmentExport
from ansible_collections.mwaa.migration.plugins.module_utils._aws import Aws
from ansible_collections.mwaa.migration.plugins.module_utils._bundle import Bundle, open_store
from ansible_collections.mwaa.migration.plugins.module_utils._source_environment import SourceEnvironment
from mwaa_lab.cli import SECRET_KEY
from test_agent_in_the_stub import FastClock

pytestmark = pytest.mark.lab

ROOT = Path(__file__).resolve().parents[3]


def archive(**files: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as opened:
        for name, text in files.items():
            opened.writestr(name.replace("__", "/") + ".py", text)
    return buffer.getvalue()


class Source:
    """An environment with code and state, and what an export of it gives."""

    def __init__(self, lab: Any, base: Any, aws: Aws, version: str) -> None:
        self.lab, self.aws, self.folder, self.bucket = lab, aws, uuid.uuid4().hex[:8], base.bucket
        self.secret = f"CANARY-source-{secrets.token_hex(4)}"
        self.put("dags/daily.py", b"from airflow import DAG\nDAG('daily')\n")
        self.put("dags/.airflowignore", b"drafts\n")
        self.name = base.environment(
            AirflowVersion=version,
            DagS3Path=f"{self.folder}/dags",
            PluginsS3Path=f"{self.folder}/plugins.zip",
            PluginsS3ObjectVersion=self.put("plugins.zip", archive(acme__tools="x = 1\n")),
            RequirementsS3Path=f"{self.folder}/requirements.txt",
            RequirementsS3ObjectVersion=self.put("requirements.txt", b"mine==1.0\n"),
            StartupScriptS3Path=f"{self.folder}/startup.sh",
            StartupScriptS3ObjectVersion=self.put("startup.sh", b"export COLOUR=blue\n"),
            AirflowConfigurationOptions={"core.parallelism": "8", "mine.colour": "red"},
        )
        self.put("plugins.zip", b"newer, and no archive")  # the environment does not have it yet
        for number in range(3):
            self.rest("variables", key=f"v{number}", value=f"{self.secret}-{number}", description=f"d{number}")
        self.rest("connections", connection_id="db", conn_type="postgres", host="h", password=self.secret, port=5432)
        self.rest("pools", name="small", slots=2, description="two", include_deferred=True)
        self.kms = lab.client("kms").create_key()["KeyMetadata"]["Arn"]
        self.bundle_url = f"s3://{self.bucket}/{self.folder}/bundle"

    def put(self, key: str, body: bytes) -> str:
        made = self.lab.client("s3").put_object(Bucket=self.bucket, Key=f"{self.folder}/{key}", Body=body)
        return str(made["VersionId"])

    def rest(self, kind: str, **body: Any) -> None:
        self.lab.client("mwaa").invoke_rest_api(Name=self.name, Method="POST", Path=f"/{kind}", Body=body)

    def export(self, *, check: bool = False, **options: Any) -> dict[str, Any]:
        params = {name: spec.get("default") for name, spec in ARGUMENT_SPEC.items()}
        params.update(bundle=self.bundle_url, kms_key_id=self.kms, target_version="2.11.2")
        params.update(source_environment=self.name, **options)
        source = SourceEnvironment(self.aws, self.name, 600, clock=FastClock())
        return EnvironmentExport(params, self.aws, source, lambda _line: None, check).run()

    def bundle(self) -> Bundle:
        return Bundle.open(open_store(self.bundle_url, self.aws), self.aws)

    def lying(self) -> list[str]:
        listed = self.lab.client("s3").list_objects_v2(Bucket=self.bucket)
        return [entry["Key"] for entry in listed.get("Contents", [])]


@pytest.fixture
def make(lab: Any, base: Any, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("SSL_CERT_FILE", str(lab.ca))
    aws = Aws.for_plugin({**options, "secret_key": SECRET_KEY})  # presigned URLs are verified
    lab.admin("POST", "as-of", {"day": None})
    return lambda version: Source(lab, base, aws, version)


# Airflow 2's rows are deleted where its files are parsed, which a stub does not do
@pytest.mark.parametrize(("version", "agent"), [("2.11.2", "kept"), ("3.2.1", "removed")])
def test_what_the_environment_holds_is_in_the_bundle(make: Any, lab: Any, version: str, agent: str) -> None:
    source = make(version)
    since = time.time()
    result = source.export(source_agent=agent)
    bundle = source.bundle()
    bundle.check()
    assert bundle.read_state("variables") == {
        f"v{number}": {"value": f"{source.secret}-{number}", "description": f"d{number}"} for number in range(3)
    }
    connection = bundle.read_state("connections")["db"]
    assert (connection["password"], connection["host"], connection["port"]) == (source.secret, "h", 5432)
    assert bundle.read_state("pools")["small"] == {"slots": 2, "description": "two", "include_deferred": True}
    assert bundle.read("dags/.airflowignore") == b"drafts\n" and bundle.read("plugins/acme/tools.py") == b"x = 1\n"
    assert not [path for path in bundle.files if "mwaa_migration" in path]
    assert bundle.document("options.json")["portable"]["mine.colour"] == "red"
    assert [dag["dag_id"] for dag in bundle.document("inventory.json")["dags"]] == ["daily"]
    assert "CANARY" not in json.dumps(result) and result["counts"]["variables"] == 3
    written = {
        call["keys"].get("key", call["keys"].get("path", ""))
        for call in lab.journal(since)
        if call["access"] == "write" and call["service"] in ("s3", "mwaa")
    }
    ours = (f"{source.folder}/bundle/", f"{source.folder}/dags/mwaa_migration/", f"mwaa-migration/{source.name}/")
    assert not [key for key in written if key and not key.startswith(ours) and "mwaa_agent" not in key]
    left = [key for key in source.lying() if key.startswith(ours[1:])]
    assert bool(left) is (agent == "kept")
    assert not source.export(source_agent=agent)["changed"]


def test_a_look_leaves_no_trace_in_the_environment(make: Any) -> None:
    source = make("2.11.2")
    before = source.lying()
    assert source.export(check=True)["changed"]
    assert source.lying() == before


@pytest.mark.slow
def test_the_task_as_a_playbook_has_it(make: Any, lab: Any) -> None:
    """Options, progress on the screen, and what is said where there is no such environment."""
    source = make("3.2.1")
    given = {"bundle": source.bundle_url, "kms_key_id": source.kms, "target_version": "3.2.1"}
    environment = {
        **lab.environment, "AWS_SECRET_ACCESS_KEY": SECRET_KEY, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
        "ANSIBLE_COLLECTIONS_PATH": str(ROOT / ".cache/collections"),
    }  # fmt: skip

    def run(**options: str) -> str:
        command = [str(Path(sys.executable).parent / "ansible"), "-i", "localhost,", "-c", "local", "localhost"]
        command += ["-m", "mwaa.migration.airflow_export", "-a", json.dumps({**given, **options}), "-vvv"]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False).stdout

    missing = run(source_environment="nobody")
    assert "environment nobody does not exist in us-east-1: there are" in missing
    output = run(source_environment=source.name)
    assert "localhost | CHANGED" in output, output
    assert f"taking the agent out of environment {source.name}" in output
    assert (
        f"environment {source.name}: the agent's DAG" in output or "agent run r" in output or "Airflow to see" in output
    )
    assert "CANARY" not in output
