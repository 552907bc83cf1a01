# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""History out of a real MariaDB: the rows that SQLite has give the same lines and digests, whole and as deltas."""

from __future__ import annotations

import base64
import datetime
import json
import subprocess
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import on_mariadb as mariadb
import pytest
from ansible_collections.mwaa.migration.plugins.module_utils import _source
from import_lane import Databases, Lane, history
from moving_airflow import MovingAirflow
from mwaa_lab.airflow import install
from mwaa_lab.airflow.mariadb import root
from mwaa_lab.airflow.versions import VERSIONS
from mwaa_lab.labdir import LabError
from small_airflow import KEY, SCHEMAS, Export, SmallAirflow
from test_delta import of_runs, what_is_gone, without
from test_history_export import fill

pytestmark = [pytest.mark.lab, pytest.mark.slow]
UNFIT = float("1.7976931348623157e308")  # MySQL's FLOAT holds six digits and 10**38


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[mariadb.MariaDB]:
    pytest.importorskip("pymysql", reason="MariaDB's driver is missing: pip install -r requirements-dev.txt")
    try:
        root()
    except LabError as missing:
        pytest.skip(str(missing))
    made = mariadb.MariaDB(tmp_path_factory.mktemp("mariadb") / "lab")
    try:
        yield made
    finally:
        made.stop()


def filled(version: str) -> SmallAirflow:
    """What MySQL holds of the nasty rows: durations there have six digits."""
    airflow = SmallAirflow(version)
    fill(airflow)
    airflow.connection.execute("UPDATE task_instance SET duration = 12.5 + rowid % 7")
    airflow.connection.commit()
    return airflow


@pytest.mark.parametrize("version", ["1.10.12", "2.2.2", "2.10.3"])
def test_the_lines_and_digests_are_those_of_sqlite(server: mariadb.MariaDB, databases: Databases, version: str) -> None:
    airflow, name = filled(version), f"airflow-{version}"
    server.create(name, airflow.schema)
    connection = server.connect(name)
    mariadb.copy(airflow, connection)
    target = databases.new("2.11.2")
    here, there = (
        Export(engine, target=target.schema()) for engine in (airflow.engine(), history.Engine("mysql", connection))
    )
    assert there.faults == here.faults and there.plan["open"] == here.plan["open"]
    for table in here.texts:
        assert sorted(there.texts[table].split("\n")) == sorted(here.texts[table].split("\n")), table
        assert there.digests(table) == here.digests(table)
    lane = Lane(history.Engine("mysql", connection), target.schema())
    assert lane.into(target)["left"] == []
    assert lane.read_back(target) == lane.sent()


@pytest.mark.parametrize("charset", ["latin1", "utf8mb3"])
def test_letters_are_those_of_the_database_whatever_airflow_connects_with(
    server: mariadb.MariaDB, charset: str
) -> None:
    airflow = SmallAirflow("2.10.3")
    airflow.run("größe_🌍", 1)
    airflow.insert("log", event="日本", extra="ü")
    server.create(f"letters-{charset}", airflow.schema)
    mariadb.copy(airflow, server.connect(f"letters-{charset}"))
    export = Export(history.Engine("mysql", server.connect(f"letters-{charset}", charset=charset)))
    assert [row["dag_id"] for row in export.rows("dag_run")] == ["größe_🌍"]
    assert [(row["event"], row["extra"]) for row in export.rows("log")] == [("日本", "ü")]


class OnMariaDB:
    def __init__(self, server: mariadb.MariaDB, name: str):
        server.create(name, SCHEMAS["2.10.3"])
        self.server, self.name = server, name
        self.connection = server.connect(name, autocommit=True)
        self.sql("SET time_zone = '+00:00'")

    def sql(self, statement: str, *values: Any) -> list[Any]:
        with self.connection.cursor() as cursor:
            # `key` is a word of MySQL's
            cursor.execute(statement.replace(" key,", " `key`,").replace("?", "%s"), values)
            return list(cursor.fetchall())

    def engine(self) -> Any:
        return history.Engine("mysql", self.server.connect(self.name))


@pytest.mark.parametrize("seed", range(3))
def test_any_sequence_of_changes_arrives(server: mariadb.MariaDB, databases: Databases, seed: int) -> None:
    source, database = OnMariaDB(server, f"moving{seed}"), databases.new("2.11.2")
    airflow = MovingAirflow(source.sql, seed)
    airflow.go(60)
    lanes = [Lane(source.engine(), database.schema(), "b0")]
    lanes[0].into(database, "newer")
    for number in range(1, 4):
        airflow.clock += datetime.timedelta(days=1)
        mark = {**json.loads(json.dumps(lanes[-1].plan["mark"])), "at": airflow.clock.isoformat() + "Z"}
        airflow.clock += datetime.timedelta(hours=2)
        airflow.go(40)
        lanes.append(Lane(source.engine(), database.schema(), f"b{number}", after=mark))
        assert lanes[-1].plan["delta"] and lanes[-1].into(database, "newer")["listed"] == []
    found = what_is_gone(database, lanes)
    left = without(of_runs(lanes[0].read_back(database)), found["lost"], found["gone"], found["again"])
    assert left == of_runs(Lane(source.engine(), database.schema(), "whole").sent())


@pytest.mark.e2e
def test_a_host_whose_airflow_is_on_mariadb_exports(server: mariadb.MariaDB, tmp_path: Path) -> None:
    airflow = filled("2.10.3")
    # what tells that an Airflow lives there
    others = {table: {"id": "integer"} for table in ("connection", "slot_pool", "variable")}
    server.create("host", {**airflow.schema, **others})
    mariadb.copy(airflow, server.connect("host"))
    here = Export(airflow.engine())
    python, home = install.base(VERSIONS["2.10.3"]) / "bin" / "python", tmp_path / "home"
    home.mkdir()
    url = f"mysql+pymysql://root@127.0.0.1:{server.port}/host?charset=utf8mb4"
    (home / "airflow.cfg").write_text(f"[database]\nsql_alchemy_conn = {url}\n[core]\nload_examples = False\n")
    import pymysql

    (tmp_path / "driver").mkdir()
    (tmp_path / "driver" / "pymysql").symlink_to(Path(pymysql.__file__).parent)
    environment = {
        "PATH": "/usr/bin:/bin",
        "LANG": "C.UTF-8",
        "HOME": str(home),
        "PYTHONPATH": str(tmp_path / "driver"),
    }

    def run(command: str, stdin: bytes) -> tuple[int, str, str]:
        done = subprocess.run(command, shell=True, input=stdin, capture_output=True, env=environment)
        return done.returncode, done.stdout.decode(), done.stderr.decode()

    agent = _source.Agent(run, _source.Source(str(python), str(home)))
    plan = agent.call({"op": "plan_history"})
    assert plan["dialect"] == "mysql" and plan["airflow_version"] == "2.10.3"
    request = {"parts": plan["parts"], "scope": plan["scope"], "digest_key": base64.b64encode(KEY).decode()}
    answer = agent.call({"op": "export_history", **request})
    assert answer["left"] == answer["failed"] == []
    texts: dict[str, str] = {}
    for part in answer["parts"]:
        for entry in part["objects"]:
            text = zlib.decompress(base64.b64decode(entry["data"]), 31).decode()
            texts[part["table"]] = texts.get(part["table"], "") + text
    for table in here.texts:
        assert sorted(texts.get(table, "").split("\n")) == sorted(here.texts[table].split("\n"))
    delta = agent.call({"op": "plan_history", "after": plan["mark"]})
    assert delta["delta"] and delta["parts"] == []
