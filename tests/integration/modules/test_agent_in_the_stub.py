# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The agent's own files in stub environments, started in each of the three ways, and what it refuses."""

from __future__ import annotations

import base64
import json
import time
import uuid
from typing import Any

import pytest
from ansible_collections.mwaa.migration.plugins.module_utils._aws import Aws
from ansible_collections.mwaa.migration.plugins.module_utils._errors import MigrationError
from ansible_collections.mwaa.migration.plugins.module_utils._state.agent import AgentLane
from mwaa_lab.cli import SECRET_KEY

pytestmark = pytest.mark.lab

KEY = base64.b64encode(b"k" * 32).decode()
VARIABLES = {"colour": {"value": "blue", "description": None}, "deep": {"value": '{"a": [1]}', "description": "d"}}


class FastClock:
    """Waits twenty times faster than the agent lane believes."""

    time = staticmethod(time.time)

    def monotonic(self) -> float:
        return time.monotonic() * 20

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds / 20)


@pytest.fixture
def lane(lab: Any, base: Any, options: dict[str, Any], mwaa: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("SSL_CERT_FILE", str(lab.ca))
    # Presigned URLs are verified, header signatures are not.
    aws = Aws.for_plugin({**options, "secret_key": SECRET_KEY})
    kms = lab.client("kms").create_key()["KeyMetadata"]["Arn"]

    def make(version: str, mode: str = "PUBLIC_ONLY", day: str | None = None, history: bool = False) -> AgentLane:
        lab.admin("POST", "as-of", {"day": day})
        name = base.environment(AirflowVersion=version, WebserverAccessMode=mode, DagS3Path=f"d-{uuid.uuid4().hex[:6]}")
        environment = mwaa.get_environment(Name=name)["Environment"]
        made = AgentLane(aws, environment, kms, history=history, clock=FastClock())
        made.install()
        return made

    return make


@pytest.mark.parametrize(
    ("version", "mode", "day", "start"),
    [
        ("2.11.2", "PUBLIC_ONLY", None, "rest"),
        ("2.5.1", "PUBLIC_ONLY", "2025-12-30", "rest"),
        ("2.11.2", "PRIVATE_ONLY", None, "schedule"),
        ("3.2.1", "PRIVATE_ONLY", None, "schedule"),
    ],
)
def test_variables_arrive(lab, lane, version, mode, day, start):
    agent = lane(version, mode, day)
    assert agent.start == start
    lab.admin("POST", "stub", {"schedule_seconds": 0.3})
    request = {"op": "import_state", "variables": VARIABLES, "digest_key": KEY}
    answer = agent.run(request, timeout=600)
    assert answer["results"]["variables"] == {"colour": "created", "deep": "created"}
    digests = agent.run({"op": "digest_state", "ids": {"variables": [*VARIABLES, "none"]}, "digest_key": KEY}, 600)
    assert digests["digests"]["variables"]["none"] is None
    for name in VARIABLES:
        value = digests["digests"]["variables"][name]["value"]
        assert value == answer["digests"]["variables"][name]["value"]


def test_the_cli_starts_it_where_there_is_no_rest(lab, lane):
    agent = lane("2.2.2", "PUBLIC_ONLY", "2024-06-27")
    if agent.start != "cli":
        pytest.skip("the web server's certificate is not trusted here")
    answer = agent.run({"op": "import_state", "variables": VARIABLES}, timeout=600)
    assert answer["results"]["variables"] == {"colour": "created", "deep": "created"}


def test_connections_are_written_whole(lane):
    agent = lane("2.11.2")
    wanted = {"db": {"conn_type": "postgres", "password": "CANARY-stub-agent", "extra": "no json"}}
    assert agent.run({"op": "import_state", "connections": wanted}, 600)["results"]["connections"] == {"db": "created"}
    again = agent.run({"op": "import_state", "connections": wanted, "prune": True}, 600)["results"]["connections"]
    assert again == {"db": "unchanged"}


def test_what_another_run_names_is_not_served(lab, lane, mwaa):
    """A user who may trigger the DAG gets nothing out of it: the request is not sealed, or not this run's."""
    agent = lane("2.11.2")
    agent.run({"op": "digest_state", "digest_key": KEY}, 600)
    identifier = f"r{uuid.uuid4().hex}"
    body = {"dag_run_id": identifier, "conf": {"request": identifier}}
    mwaa.invoke_rest_api(Name=agent.env_name, Method="POST", Path="/dags/mwaa_agent/dagRuns", Body=body)
    forged = json.dumps({"version": 1, "environment": agent.env_name, "wrapped_key": "AAAA", "sealed": "x"})
    lab.client("s3").put_object(Bucket=agent.bucket, Key=f"{agent.requests}{identifier}.json", Body=forged)
    path = f"/dags/mwaa_agent/dagRuns/{identifier}"
    for _ in range(100):
        time.sleep(0.5)  # the agent's own calls count against the same rate
        run = mwaa.invoke_rest_api(Name=agent.env_name, Method="GET", Path=path)["RestApiResponse"]
        if run["state"] not in ("queued", "running"):
            break
    assert run["state"] == "failed"
    assert "missing" in run["note"] or "cannot be read" in run["note"] or "KMS does not open" in run["note"]


def test_an_operation_that_is_none_of_the_environments_fails_in_a_sentence(lane):
    with pytest.raises(MigrationError, match="is not served inside an environment"):
        lane("2.11.2").run({"op": "export_files", "root": "/", "paths": []}, 600)


def test_history_s_files_arrive_and_the_stub_says_that_it_has_no_database(lab, lane):
    agent = lane("2.11.2", history=True)
    for request in ({"op": "history_progress", "bundles": {}}, {"op": "import_history", "pieces": []}):
        with pytest.raises(MigrationError, match="stub engine has no database: history needs the engine airflow"):
            agent.run(request, 600)
    left = lab.client("s3").list_objects_v2(Bucket=agent.bucket, Prefix=agent.requests)
    assert "Contents" not in left  # not even what says how far it is
    assert agent.run({"op": "list_dags"}, 600)["import_errors"] == []
