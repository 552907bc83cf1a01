# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""airflow_export from a real Airflow 2.10.3 over real SSH: nothing altered, nothing lost, nothing written there."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import time
import uuid
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.mwaa.migration.plugins.module_utils._aws import Aws
from ansible_collections.mwaa.migration.plugins.module_utils._bundle import Bundle, open_store
from conftest import BIN, ROOT, Lab, wait_for
from cryptography.fernet import Fernet

pytestmark = pytest.mark.e2e

READ = """
import json
from airflow import settings
from airflow.models import Connection, Pool, Variable
session = settings.Session()
fields = ("conn_type", "description", "host", "login", "password", "schema", "port", "extra")
print("STATE" + json.dumps({
    "variables": {v.key: [v.get_val(), v.description] for v in session.query(Variable)},
    "connections": {c.conn_id: {name: getattr(c, name) for name in fields} for c in session.query(Connection)},
    "pools": {p.pool: [p.slots, p.description, p.include_deferred] for p in session.query(Pool)},
}))
"""


def command(lab: Any, bundle: str, *words: str, **options: str) -> list[str]:
    status = lab.status()
    given = {
        "bundle": bundle,
        "kms_key_id": status["base"]["kms_key_id"],
        "target_version": "2.11.2",
        "airflow_home": status["source"]["airflow_home"],
        **options,
    }
    inventory = ["-i", "inventories/lab/source.yml", "airflow_source"]
    module = ["-m", "mwaa.migration.airflow_export", "-a", json.dumps(given)]
    return [str(BIN / "ansible"), *inventory, *module, *words]


def export(lab: Any, bundle: str, *words: str, **options: str) -> dict[str, Any]:
    """What airflow_export returned, also when it failed; `output` is what was on the screen."""
    done = subprocess.run(
        command(lab, bundle, *words, **options), cwd=ROOT, env=lab.environment(), capture_output=True, text=True
    )
    found = re.search(r"lab_source \| \w+!? => (\{)", done.stdout)
    assert found, done.stdout + done.stderr
    return {**json.JSONDecoder().raw_decode(done.stdout, found.start(1))[0], "output": done.stdout + done.stderr}


def opened(lab: Any, where: str, monkeypatch: pytest.MonkeyPatch) -> Bundle:
    for name, value in lab.environment().items():
        if name.startswith("AWS_"):
            monkeypatch.setenv(name, value)
    env = lab.environment()
    keys = {"access_key": env["AWS_ACCESS_KEY_ID"], "secret_key": env["AWS_SECRET_ACCESS_KEY"], "region": "us-east-1"}
    aws = Aws.for_plugin({**keys, "endpoint_url": env["AWS_ENDPOINT_URL"]})
    bundle = Bundle.open(open_store(where, aws), aws)
    bundle.check()
    return bundle


def bucket(lab: Any) -> str:
    return lab.status()["base"]["bundle_bucket"]


def puts(lab: Any, since: int) -> list[str]:
    """Keys of the DAG files that arrived in the bucket."""
    calls = [call for call in lab.journal()[since:] if call["operation"] == "PutObject" and call["status"] == 200]
    return [call["keys"]["key"] for call in calls if "/dags/" in call["keys"]["key"]]


def tree(folder: Path) -> dict[str, str]:
    files = (path for path in folder.rglob("*") if path.is_file() and "logs" not in path.parts)
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files if path.suffix != ".pyc"}


@pytest.mark.parametrize("transport", ["s3", "connection"])
def test_what_the_source_holds_is_in_the_bundle(
    lab: Any, transport: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    where = f"s3://{bucket(lab)}/{transport}" if transport == "s3" else str(tmp_path / "bundle")
    home = Path(lab.status()["source"]["airflow_home"])
    before = tree(home)
    result = export(lab, where, "-vvv", "--diff", transport=transport)
    assert result["changed"], result
    assert tree(home) == before
    assert "CANARY-" not in result["output"]
    bundle = opened(lab, where, monkeypatch)
    state = json.loads(lab.source_python(READ).partition("STATE")[2])
    variables = bundle.read_state("variables")
    assert {
        key: [item["value"], item["description"]] if isinstance(item, dict) else [item, None]
        for key, item in variables.items()
    } == state["variables"]
    connections = bundle.read_state("connections")
    left = {one["id"] for one in result["not_carried"] if one["kind"] == "default_connection"}
    assert len(left) == result["counts"]["default_connections_left_out"] > 50
    assert left | set(connections) == set(state["connections"])
    for conn_id, connection in connections.items():
        assert connection == state["connections"][conn_id], conn_id
    pools = bundle.read_state("pools")
    assert {name: [one["slots"], one["description"], one["include_deferred"]] for name, one in pools.items()} == state[
        "pools"
    ]
    for path, content in before.items():
        relative = Path(path).relative_to(home).as_posix()
        if relative.startswith(("dags/", "plugins/")) and "/.git/" not in relative:
            assert hashlib.sha256(bundle.read(relative)).hexdigest() == content, relative
    # what the units' EnvironmentFile sets is found, though the processes hide their environment
    assert {"AIRFLOW_VAR_PARTNER_TOKEN", "AIRFLOW_CONN_LEDGER"} <= {one["id"] for one in result["not_carried"]}
    again = export(lab, where, transport=transport)
    assert not again["changed"], again["files"]


def other_home(lab: Any, folder: Path, key: str) -> dict[str, str]:
    """A home with the source's configuration and another Fernet key."""
    source = lab.status()["source"]
    folder.mkdir()
    text = (Path(source["airflow_home"]) / "airflow.cfg").read_text()
    assert re.search(r"(?m)^fernet_key = \S", text)
    (folder / "airflow.cfg").write_text(re.sub(r"(?m)^fernet_key = .*$", f"fernet_key = {key}", text))
    return {"airflow_home": str(folder), "airflow_python": source["python"]}


def test_a_wrong_and_a_missing_fernet_key(lab: Any, tmp_path: Path) -> None:
    """Airflow's own export would succeed with nulls (wrong) or ciphertext (missing)."""
    bundle = str(tmp_path / "bundle")
    wrong = export(lab, bundle, **other_home(lab, tmp_path / "wrong", Fernet.generate_key().decode()))
    assert re.search(
        r"The Fernet key from .*/wrong/airflow.cfg \[core\] fernet_key opens none of the \d+ encrypted", wrong["msg"]
    )
    missing = export(lab, bundle, "--check", **other_home(lab, tmp_path / "missing", ""))
    assert re.search(r"No Fernet key is set .* but \d+ stored values are encrypted: put the key there", missing["msg"])
    assert not Path(bundle).exists()


def kill_all(words: str) -> None:
    """kill -9 of every process with these words in its command line: Ansible's workers are in sessions of their own."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            if words.encode() in path.read_bytes():
                os.kill(int(path.parent.name), signal.SIGKILL)


def test_killed_while_it_sends_nothing_is_sent_twice(lab: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    many = Path(lab.status()["source"]["airflow_home"]) / "dags" / "many"
    many.mkdir()
    try:
        for number in range(600):
            (many / f"{number}.txt").write_text(f"file {number}")
        where = f"s3://{bucket(lab)}/killed-{uuid.uuid4().hex}"
        since = len(lab.journal())
        process = subprocess.Popen(command(lab, where), cwd=ROOT, env=lab.environment(), stdout=subprocess.DEVNULL)
        wait_for(lambda: len(puts(lab, since)) > 60, 120, "sixty files in the bucket")
        kill_all(where)
        process.wait()
        # the agent on the host finishes the round it was given
        seen = -1
        while seen != len(puts(lab, since)):
            seen = len(puts(lab, since))
            time.sleep(2)
        first, since = puts(lab, since), len(lab.journal())
        result = export(lab, where)
        assert result["changed"], result
        second = puts(lab, since)
        assert second
        assert not set(first) & set(second)
        bundle = opened(lab, where, monkeypatch)
        assert sum(path.startswith("dags/many/") for path in bundle.files) == 600
        assert not export(lab, where)["changed"]
    finally:
        shutil.rmtree(many)


# -- other Airflows: MWAA_E2E_SOURCES="1.10.12 3.0.6", each in a lab of its own


@pytest.mark.skipif(not os.environ.get("MWAA_E2E_SOURCES"), reason="minutes for each; name them in MWAA_E2E_SOURCES")
@pytest.mark.parametrize("database", ["postgresql", "sqlite"])
@pytest.mark.parametrize("version", os.environ.get("MWAA_E2E_SOURCES", "none").split())
def test_other_airflows_export_too(
    version: str, database: str, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab = Lab(tmp_path_factory.mktemp("lab"))
    try:
        lab.up("--source", version, "--source-database", database, "--seed-data", "small", "--engine", "stub")
        where = f"s3://{bucket(lab)}/old"
        home = Path(lab.status()["source"]["airflow_home"])
        before = tree(home)
        result = export(lab, where, "-vvv", environment_variables="state", on_difference="list")
        assert result["changed"], result
        assert tree(home) == before
        assert "CANARY-" not in result["output"]
        assert result["source"]["airflow_version"] == version
        bundle = opened(lab, where, monkeypatch)
        assert {"ledger"} <= set(bundle.read_state("connections"))
        assert {"partner_token"} <= {key.lower() for key in bundle.read_state("variables")}
        assert result["counts"]["dags"]
        assert not export(lab, where, environment_variables="state", on_difference="list")["changed"]
    finally:
        lab.command("down", check=False)
