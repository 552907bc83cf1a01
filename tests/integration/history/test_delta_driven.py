# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Export, import and verify by turns, as the modules drive them, while the source goes on."""

from __future__ import annotations

import datetime
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.mwaa.migration.plugins.module_utils._errors import MigrationError
from ansible_collections.mwaa.migration.plugins.module_utils._history.load import Load, Options, inline
from ansible_collections.mwaa.migration.plugins.module_utils._history.verify import compare
from import_lane import Database, Databases
from moving_airflow import MovingAirflow
from small_airflow import history, moment
from test_delta import OnPostgres, OnSqlite

UNIT = Path(__file__).parents[2] / "unit"
sys.path[:0] = [str(UNIT), str(UNIT / "history_export")]
from agent_in_process import World  # noqa: E402

pytestmark = pytest.mark.lab


class Target:
    """In place of history._Source, which makes connections as Airflow does."""

    name, search_path = "postgresql", None

    def __init__(self, database: Database):
        self.database = database
        self.asked: list[dict[str, Any]] = []

    def connect(self, snapshot: str | None = None, writable: bool = False) -> Any:
        return history.Engine("postgresql", self.database.connect(), snapshot, writable=writable)

    def ask(self, request: dict[str, Any]) -> dict[str, Any]:
        request = json.loads(json.dumps(request))
        if request["op"] == "pause_dags":
            request["seconds"] = 0
        self.asked.append(request)
        found = history.OPERATIONS[request["op"]](self, request)
        return {**json.loads(json.dumps(found)), "airflow_version": "2.11.2"}


@pytest.mark.parametrize("engine", [OnPostgres, OnSqlite])
def test_export_import_verify_by_turns(
    databases: Databases, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, engine: Any
) -> None:
    source, target = engine(databases), Target(databases.new("2.11.2"))
    airflow = MovingAirflow(source.sql, 8)
    monkeypatch.setattr(history, "_now", lambda: airflow.clock.isoformat() + "Z")
    world = World(monkeypatch, where=str(tmp_path / "bundle"))
    world.part_bytes = 1 << 20
    monkeypatch.setattr(world, "connect", lambda _snapshot=None: source.engine())
    airflow.go(60)
    pieces, hours = 0, datetime.timedelta(hours=2)  # without transactions, the hour before a mark is read again
    for turn in range(4):
        airflow.clock += hours
        exported = world.export()
        assert exported["changed"] and exported["delta"] is (turn > 0)
        record = world.record()
        assert len(record.exports) == turn + 1
        imported = Load(record, target.ask, inline(record), Options(seconds=60)).run()
        assert imported["changed"] and sum(table["left_out"] for table in imported["tables"].values()) == 0
        sent = [
            (request["bundle"], piece["table"], piece["sha256"])
            for request in target.asked
            for piece in request.get("pieces", ())
        ]
        assert len(sent) == len(set(sent))  # what was brought stays at home
        assert len(sent) > pieces
        pieces = len(sent)
        outcome = compare(record, target.ask, inline(record))
        assert outcome.errors == []
        assert outcome.differences == {}
        assert any("deleted at the source" in entry["id"] for entry in outcome.listed) is (turn > 0)
        again = world.export()
        assert not again["changed"] and len(world.record().exports) == turn + 1
        airflow.clock += hours
        airflow.go(40)


def test_a_source_whose_database_was_made_anew_loses_no_row(
    databases: Databases, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Its numbers begin at 1 again, and with them those of its log rows and jobs."""
    world, target = World(monkeypatch, where=str(tmp_path / "bundle")), Target(databases.new("2.11.2"))
    sql = world.airflow.connection.execute
    for day, number in ((1, 5), (10, 3)):
        for table in ("log_template", "dag_run", "log", "job"):
            sql(f"DELETE FROM {table}")
        world.airflow.insert("log_template", id=1, filename="f", elasticsearch_id="e", created_at=moment(day))
        for one in range(number):
            world.airflow.run("etl", day + one)
            world.airflow.insert("log", dag_id="etl", dttm=moment(day + one), event=f"life of day {day}")
            world.airflow.insert("job", dag_id="etl", state="success", latest_heartbeat=moment(day + one))
        world.export()
        record = world.record()
        options = Options(seconds=60, on_conflict="skip", beside=day > 1)
        if day > 1:
            with pytest.raises(MigrationError, match="history of another source already: set beside"):
                Load(record, target.ask, inline(record), replace(options, beside=False)).run()
        Load(record, target.ask, inline(record), options).run()
        outcome = compare(record, target.ask, inline(record))
        assert outcome.errors == []
        assert {outcome.parity[table]["equal"] for table in ("dag_run", "log", "job")} == {number}
    for life, number in ((1, 5), (10, 3)):
        assert target.database.sql(f"SELECT count(*) FROM log WHERE event = 'life of day {life}'") == f"{number}"
    assert [target.database.sql(f"SELECT count(*) FROM {table}") for table in ("dag_run", "job")] == ["8", "8"]
    assert [one["reason"] for one in outcome.listed if one["id"].startswith("exports before")] == [
        "are of the source's database before it was made anew; they are not compared"
    ]
