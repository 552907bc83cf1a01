# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Run history from a real Airflow over real SSH into a bundle: whole, again only what is new, and nothing shown."""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.mwaa.migration.plugins.module_utils._aws import Aws
from ansible_collections.mwaa.migration.plugins.module_utils._bundle import Bundle, open_store
from ansible_collections.mwaa.migration.plugins.module_utils._history.record import Record

pytestmark = [pytest.mark.lab, pytest.mark.slow]  # a real Airflow as the source

_FILE = Path(__file__).parents[1] / "e2e" / "conftest.py"
_SPEC = importlib.util.spec_from_file_location("lab_of_history", _FILE)
assert _SPEC and _SPEC.loader
_by_command = sys.modules["lab_of_history"] = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(_by_command)

# a run whose conf, XCom, rendered fields and audit log hold what nobody may see
RUN = """
import json, os, pickle, psycopg2
from datetime import datetime, timezone
canary, at = os.environ["CANARY"], datetime(2024, 5, int(os.environ["DAY"]), tzinfo=timezone.utc)
connection = psycopg2.connect(os.environ["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"].replace("+psycopg2", ""))
with connection, connection.cursor() as cursor:
    run_id = "manual__" + at.isoformat()
    cursor.execute(
        "INSERT INTO dag_run (dag_id, run_id, execution_date, state, run_type, external_trigger, start_date, end_date,"
        " conf, clear_number, log_template_id) SELECT 'secret', %s, %s, 'success', 'manual', true, %s, %s, %s, 0,"
        " max(id) FROM log_template RETURNING id", (run_id, at, at, at, pickle.dumps({"token": canary})))
    run = cursor.fetchone()[0]
    cursor.execute(
        "INSERT INTO task_instance (dag_id, task_id, run_id, map_index, state, try_number, max_tries, pool, pool_slots,"
        " start_date, end_date, executor_config, updated_at) VALUES ('secret', 't', %s, -1, 'success', 1, 0,"
        " 'default_pool', 1, %s, %s, %s, now())", (run_id, at, at, pickle.dumps({})))
    cursor.execute(
        "INSERT INTO xcom (dag_run_id, task_id, map_index, key, dag_id, run_id, value, timestamp)"
        " VALUES (%s, 't', -1, 'return_value', 'secret', %s, %s, %s)", (run, run_id, json.dumps(canary).encode(), at))
    cursor.execute(
        "INSERT INTO rendered_task_instance_fields (dag_id, task_id, run_id, map_index, rendered_fields)"
        " VALUES ('secret', 't', %s, -1, %s)", (run_id, json.dumps({"env": canary})))
    cursor.execute("INSERT INTO log (dttm, dag_id, event, extra) VALUES (%s, 'secret', 'trigger', %s)", (at, canary))
"""
CANARY = "CANARY-" + "history-0123456789abcdef"[:16]


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    lab = _by_command.Lab(tmp_path_factory.mktemp("lab"))
    try:
        lab.up("--engine", "stub", "--source", "2.10.3", "--seed-data", "small")
        lab.source_python(RUN, CANARY=CANARY, DAY="1")
        yield lab
    finally:
        lab.command("down", check=False)


@pytest.fixture
def aws(lab: Any, monkeypatch: pytest.MonkeyPatch) -> Aws:
    env = lab.environment()
    for name, value in env.items():
        if name.startswith("AWS_"):
            monkeypatch.setenv(name, value)
    keys = {"access_key": env["AWS_ACCESS_KEY_ID"], "secret_key": env["AWS_SECRET_ACCESS_KEY"]}
    return Aws.for_plugin({**keys, "region": "us-east-1", "endpoint_url": env["AWS_ENDPOINT_URL"]})


def ask(lab: Any, module: str, *words: str, **options: Any) -> dict[str, Any]:
    """What a module returned, also when it failed; `output` is what was on the screen."""
    status = lab.status()
    given = {"target_version": "2.11.2", "airflow_home": status["source"]["airflow_home"], **options}
    if module == "airflow_export":
        given["kms_key_id"] = status["base"]["kms_key_id"]
    command = [str(_by_command.BIN / "ansible"), "-i", "inventories/lab/source.yml", "airflow_source"]
    command += ["-m", f"mwaa.migration.{module}", "-a", json.dumps(given), *words]
    done = subprocess.run(command, cwd=_by_command.ROOT, env=lab.environment(), capture_output=True, text=True)
    found = re.search(r"lab_source \| \w+!? => (\{)", done.stdout)
    assert found, done.stdout + done.stderr
    return {**json.JSONDecoder().raw_decode(done.stdout, found.start(1))[0], "output": done.stdout + done.stderr}


def carried(aws: Aws, where: str) -> tuple[Record, dict[str, str]]:
    """The record of a bundle, and the text of its tables."""
    record = Record.open(Bundle.open(open_store(where, aws), aws))
    assert record
    texts: dict[str, str] = {}
    for export in record.exports:
        for piece in export.pieces():
            text = zlib.decompress(record.read(piece), 31).decode()
            texts[piece["table"]] = texts.get(piece["table"], "") + text
    return record, texts


def test_history_goes_into_the_bundle_that_state_has_made(lab: Any, aws: Aws) -> None:
    bundle = f"s3://{lab.status()['base']['bundle_bucket']}/history"
    refused = ask(lab, "airflow_history_export", bundle=bundle)
    assert refused["msg"] == (
        f"there is no bundle at {bundle} yet: history is put into the one that airflow_export has made, run that first"
    )
    assert ask(lab, "airflow_export", bundle=bundle)["changed"]
    looked = ask(lab, "airflow_history_export", "--check", bundle=bundle)
    assert looked["changed"] and looked["tables"]["dag_run"]["rows"] > 1 and looked["export"] is None
    assert Record.open(Bundle.open(open_store(bundle, aws), aws)) is None

    leaks = _by_command.Leaks(lab)
    with leaks.watched():
        result = ask(lab, "airflow_history_export", "-vvv", "--diff", bundle=bundle)
    assert result["changed"] and not result["delta"], result
    assert CANARY not in result["output"] and "X-Amz-Signature" not in result["output"]
    assert not leaks.found
    assert CANARY not in (lab.folder / "journal.jsonl").read_text()
    record, texts = carried(aws, bundle)
    for table in ("dag_run", "xcom", "rendered_task_instance_fields", "log"):
        assert CANARY in texts[table], table
    rows = {table: text.count("\n") for table, text in texts.items()}
    assert rows == {table: count["rows"] for table, count in result["tables"].items() if count["rows"]}
    assert CANARY not in json.dumps([export.as_document() for export in record.exports])
    assert {dag: rows for dag, (rows, _hex) in record.exports[0].digests()["dag_run"].items()}["secret"] == 1

    # nothing is new; then one run is
    again = ask(lab, "airflow_history_export", bundle=bundle, tables=[])
    new = {table: count for table, count in again["tables"].items() if count["rows"]}
    assert set(new) <= {"job"}, new  # the source's scheduler lives on
    lab.source_python(RUN, CANARY=CANARY, DAY="2")
    delta = ask(lab, "airflow_history_export", bundle=bundle)
    assert delta["changed"] and delta["delta"]
    assert delta["tables"]["dag_run"]["rows"] == delta["tables"]["xcom"]["rows"] == 1
    # state is exported again, and history stays
    ask(lab, "airflow_export", bundle=bundle)
    record, _texts = carried(aws, bundle)
    assert record.exports[-1].after == record.exports[-2].id


def test_killed_it_goes_on_and_a_folder_keeps_it_sealed(lab: Any, aws: Aws, tmp_path: Path) -> None:
    where = str(tmp_path / "bundle")
    assert ask(lab, "airflow_export", bundle=where)["changed"]
    words = ("-e", json.dumps({"migration_bundle": where, "migration_history": True}), "--tags", "export")
    words += ("--limit", "lab_source", "-e", f"export_airflow_home={lab.status()['source']['airflow_home']}")
    process = lab.start("migrate.yml", *words)
    for line in process.stdout:
        if "airflow_history_export: planning" in line:
            break
    _by_command.kill_group(process)
    assert Record.open(Bundle.open(open_store(where, aws), aws)) is None
    play = lab.play("migrate.yml", *words)
    assert play.returncode == 0, play.output
    assert CANARY not in play.output
    _record, texts = carried(aws, where)
    assert CANARY in texts["xcom"] and CANARY in texts["dag_run"]
    files = [path for path in Path(where).rglob("*") if path.is_file()]
    assert any("history/parts" in str(path) for path in files)
    for path in files:
        assert CANARY.encode() not in path.read_bytes()
        assert not path.read_bytes().startswith(b"\x1f\x8b"), path  # gzip would not show it either
