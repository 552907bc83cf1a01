# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Export, import and verify by turns, as the modules drive them, while the source goes on."""

from __future__ import annotations

import datetime
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.mwaa.migration.plugins.module_utils._history.load import Load, Options, inline
from ansible_collections.mwaa.migration.plugins.module_utils._history.verify import compare
from import_lane import Database, Databases
from moving_airflow import MovingAirflow
from small_airflow import history
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
