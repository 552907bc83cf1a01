# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Generated items on every lane into real Airflows, and canaries in every secret field of them.

What is compared is what Airflow's own models answer; what is searched for canaries is everything that the lab can see.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.mwaa.migration.plugins.module_utils._state.model import Variable, values
from ansible_collections.mwaa.migration.plugins.module_utils._state.secrets import (
    backend_options,
    read_connection,
    write_connection,
)
from ansible_collections.mwaa.migration.plugins.module_utils._verify import excused
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parents[1] / "unit/state"))
from state_items import connections, pools, variables
from test_state_lanes import Environment

pytestmark = pytest.mark.e2e

ROOT = Path(__file__).parents[2]
THOROUGH = settings(deadline=None, phases=[Phase.generate], database=None, suppress_health_check=list(HealthCheck))
STRATEGIES = {"variables": variables, "connections": connections, "pools": pools}
ID = {"variables": "key", "connections": "conn_id", "pools": "name"}
READ_BACK = """
import json, sys, warnings
warnings.simplefilter("ignore")
from airflow.providers.amazon.aws.secrets.secrets_manager import SecretsManagerBackend
backend = SecretsManagerBackend(connections_prefix="airflow/connections", variables_prefix="airflow/variables")
fields, found = ("conn_type", "host", "login", "password", "schema", "port", "extra"), []
for text in json.load(sys.stdin):
    backend._get_secret = lambda *_more, **_named: text
    try:
        connection = backend.get_connection(conn_id="c")
        found.append({name: getattr(connection, name) for name in fields})
    except Exception as error:
        found.append(type(error).__name__)
print("@@" + json.dumps(found))
"""


def generated(strategy: st.SearchStrategy[Any], number: int, start: int) -> list[Any]:
    """So many of a strategy's items with ids of their own: one upsert, or one start of an Airflow, takes them all."""
    found: dict[str, Any] = {}

    @seed(start)
    @settings(THOROUGH, max_examples=number)
    @given(item=strategy)
    def collect(item: Any) -> None:
        found.setdefault(item.id, item)

    collect()
    return list(found.values())


@pytest.mark.parametrize("version", ["2.0.2", "2.2.2", "2.5.1", "2.8.1", "2.10.3", "2.11.2", "3.0.6", "3.2.1", "3.3.1"])
def test_secrets_read_back_as_each_airflows_own_backend_reads_them(
    version: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    items = generated(connections, 300, 20)
    pythons = sorted(ROOT.glob(f".cache/lab/airflow/{version}-*/bin/python"))
    if not pythons:
        pytest.skip(f"Airflow {version} is not installed: mwaa-lab install {version}")
    numbers, texts = tuple(map(int, version.split("."))), []
    for item in items:
        try:
            texts.append(write_connection(item, numbers).text)
        except ValueError:
            continue  # SecretStore lists it
    home = tmp_path_factory.mktemp("home")
    done = subprocess.run(
        [str(pythons[0]), "-c", READ_BACK],
        input=json.dumps(texts),
        env={"PATH": os.environ["PATH"], "AIRFLOW_HOME": str(home), "AIRFLOW__CORE__LOAD_EXAMPLES": "False"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "@@" in done.stdout, done.stderr
    answers = json.loads(done.stdout.split("@@")[-1])
    for text, answer in zip(texts, answers):
        assert answer == read_connection(text, numbers), text


# ------------------------------------------------------------------------------------------------- real environments

ANSWERS = """
import json, sys, warnings
warnings.simplefilter("ignore")
from airflow.models import Connection, Variable
fields, wanted = ("conn_type", "host", "login", "password", "schema", "port", "extra"), json.load(sys.stdin)
found = {"variables": {}, "connections": {}}
for key in wanted["variables"]:
    try:
        found["variables"][key] = {"value": Variable.get(key)}
    except KeyError:
        pass
for conn_id in wanted["connections"]:
    try:
        connection = Connection.get_connection_from_secrets(conn_id)
        found["connections"][conn_id] = {name: getattr(connection, name) for name in fields}
    except Exception:
        pass
print("@@" + json.dumps(found))
"""


class Target(Environment):
    """An environment that asks Secrets Manager first."""

    def options(self) -> dict[str, str]:
        return backend_options("airflow", self.version)

    def answers(self, **ids: list[str]) -> dict[str, dict[str, Any]]:
        """What Airflow answers, whichever store it has it from."""
        return self.inside(ANSWERS, {"variables": [], "connections": [], **ids})

    def places(self) -> Iterator[tuple[str, str]]:
        """(where, text) of all that may be looked at: the database but for what Fernet sealed, calls, logs, objects."""
        yield "database", self.dump()
        for path in self.folder.rglob("*"):
            # postgres: its own files; aws: where the emulated Secrets Manager keeps what it is there to keep
            if path.is_file() and not {"postgres", "aws"} & set(path.relative_to(self.folder).parts):
                yield str(path), path.read_text(errors="replace")
        logs = self.aws.client("logs")
        for group in logs.describe_log_groups()["logGroups"]:
            for page in logs.get_paginator("filter_log_events").paginate(logGroupName=group["logGroupName"]):
                yield group["logGroupName"], json.dumps(page["events"])
        s3 = self.aws.client("s3")
        for bucket in s3.list_buckets()["Buckets"]:
            for page in s3.get_paginator("list_object_versions").paginate(Bucket=bucket["Name"]):
                for version in page.get("Versions", []):
                    where = {"Bucket": bucket["Name"], "Key": version["Key"], "VersionId": version["VersionId"]}
                    yield f"s3 {version['Key']}", s3.get_object(**where)["Body"].read().decode(errors="replace")


@pytest.fixture(scope="module", params=["2.11.2", "3.2.1", "2.2.2"])
def target(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    with Target.running(tmp_path_factory.mktemp("lanes") / "lab", request.param) as running:
        yield running


def old(target: Target) -> bool:
    """MWAA has no REST API there: the agent is started by the CLI."""
    return target.version == "2.2.2"


def as_rows(items: list[Any]) -> list[dict[str, Any]]:
    return [{ID[item.kind]: item.id, **values(item)} for item in items]


def equal_or_listed(items: list[Any], stored: dict[str, dict[str, Any]], result: dict[str, Any]) -> None:
    reasons: dict[str, list[str]] = {}
    for entry in result["not_carried"]:
        reasons.setdefault(entry["id"], []).append(entry["reason"])
    for item in items:
        there = stored.get(item.id)
        if there is None:
            assert item.id in reasons, f"{item.id!r} neither arrived nor is listed"
            continue
        different = [name for name, value in there.items() if value != getattr(item, name)]
        assert not different or any(excused(reason, different) for reason in reasons.get(item.id, ())), (
            item.id,
            different,
        )


@pytest.mark.parametrize("lane", ["auto", "rest"])
@pytest.mark.parametrize("kind", ["variables", "connections", "pools"])
@pytest.mark.parametrize("start", [21, 22])  # those of both are created, then updated
def test_generated_items_into_the_database(target: Target, kind: str, lane: str, start: int) -> None:
    if lane == "rest" and old(target):
        pytest.skip("no REST API")
    items = generated(STRATEGIES[kind], 100, start)
    if kind == "pools":
        items = [item for item in items if item.slots >= 0]  # Airflow 2's REST API lists no pool beside one of those
    result = target.upsert(kind, as_rows(items), lane=lane)
    equal_or_listed(items, target.holds()[kind], result)


@pytest.mark.parametrize("kind", ["variables", "connections", "pools"])
def test_generated_items_by_cli(target: Target, kind: str) -> None:
    """It takes plain words alone: all else is listed, and nothing of it is altered or half there."""
    before = target.holds()[kind]
    items = generated(STRATEGIES[kind], 60, 25)
    plain = st.text("abcXYZ019_@%+=:,./-", min_size=1, max_size=12)
    if kind == "variables":
        items += [
            replace(item, id=f"cli{item.id}") for item in generated(st.builds(Variable, id=plain, value=plain), 20, 26)
        ]
    result = target.upsert(kind, as_rows(items), lane="cli")
    listed, after = {entry["id"] for entry in result["not_carried"]}, target.holds()[kind]
    carried = [item for item in items if after.get(item.id) != before.get(item.id) or item.id not in listed]
    equal_or_listed(carried, after, result)
    assert len(carried) >= 15 if kind == "variables" else not carried and before == after
    assert after.keys() == before.keys() | {item.id for item in carried}
    again = target.upsert(kind, as_rows(items), lane="cli")
    assert not again["changed"], [row["id"] for row in again["results"] if row["changed"]]


@pytest.mark.parametrize("kind", ["variables", "connections"])
@pytest.mark.parametrize("start", [23, 24])
def test_generated_items_into_secrets_manager(target: Target, kind: str, start: int) -> None:
    items = generated(STRATEGIES[kind], 100, start)
    result = target.upsert(kind, as_rows(items), lane="secrets_manager")
    arrived = [row["id"] for row in result["results"]]
    assert {row["store"] for row in result["results"]} <= {"secrets_manager"}
    equal_or_listed(
        [item for item in items if item.id in set(arrived)], target.answers(**{kind: arrived})[kind], result
    )
    listed = {entry["id"] for entry in result["not_carried"]}
    assert all(item.id in listed for item in items if item.id not in arrived)
    assert not set(target.holds()[kind]) & set(arrived)  # what has moved is in one place


def secret_rows(name: str) -> dict[str, list[dict[str, Any]]]:
    """A canary in every field that can hold a secret: what Airflow masks by its name, and by the agent all of them."""

    def canary(what: str) -> str:
        return f"CANARY-{name}-{what}-{os.urandom(4).hex()}"

    return {
        "variables": [
            {"key": f"{name}_password", "value": canary("variable")},
            {"key": f"{name}_settings", "value": json.dumps({"host": "h", "api_key": canary("field")})},
        ],
        "connections": [
            {
                "conn_id": f"{name}_db",
                "conn_type": "postgres",
                "login": "user",
                "password": canary("password"),
                "extra": json.dumps({"private_key": canary("extra"), "nested": {"token": canary("nested")}}),
            }
        ],
    }


@pytest.mark.parametrize("lane", ["auto", "rest", "secrets_manager", "cli"])
def test_no_canary_is_anywhere(target: Target, lane: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if lane == "rest" and old(target):
        pytest.skip("no REST API")
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    name = lane.replace("_", "")
    said = []
    for _generation in range(2):  # created, then updated
        for kind, rows in secret_rows(name).items():
            result = target.upsert(kind, rows, lane=lane)
            said.append(json.dumps(result))
            if lane == "cli":
                assert not result["results"] and len(result["not_carried"]) == len(rows)
    time.sleep(2)  # logs that are written behind
    places = [("results", text) for text in said]
    places += [(str(path), path.read_text(errors="replace")) for path in tmp_path.rglob("*") if path.is_file()]
    found = sorted({where for where, text in [*places, *target.places()] if f"CANARY-{name}" in text})
    assert not found
