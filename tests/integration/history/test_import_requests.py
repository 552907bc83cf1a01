# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The agent's requests, from a history with everything nasty to what its target then says of itself."""

from __future__ import annotations

import base64
import multiprocessing
import os
import random
import signal
import time
from pathlib import Path
from typing import Any

import history_rows
import pytest
from import_lane import KEY, Database, Databases, Lane
from small_airflow import history

pytestmark = pytest.mark.lab


@pytest.fixture(scope="module")
def lane(databases: Databases) -> Lane:
    """3,000 task instances and everything nasty that belongs to them."""
    source = databases.new("2.10.3")
    history_rows.fill(source.sql, 3000, nasty=True)
    return Lane(source.engine(), databases.new("2.11.2").schema(), part_bytes=1 << 20)


class Source:
    """In place of history._Source, which makes connections as Airflow does."""

    name, search_path = "postgresql", None

    def __init__(self, database: Database):
        self.database = database

    def connect(self, snapshot: str | None = None, writable: bool = False) -> Any:
        return history.Engine("postgresql", self.database.connect(), snapshot, writable=writable)


def ask(database: Database, operation: str, **request: Any) -> dict[str, Any]:
    return history.OPERATIONS[operation](Source(database), {"op": operation, **request})


def about(lane: Lane) -> dict[str, Any]:
    pieces = [
        {**piece, "data": base64.b64encode(lane.bodies[piece["sha256"]]).decode(), "path": f"history/{number}"}
        for number, piece in enumerate(lane.pieces)
    ]
    return {"bundle": "b1", "source": "s1", "columns": lane.columns, "dags": lane.dags, "pieces": pieces}


@pytest.mark.parametrize("rebuild", [False, True])
def test_a_nasty_history_from_request_to_digest(databases: Databases, lane: Lane, rebuild: bool) -> None:
    database = databases.new("2.11.2")
    database.sql(
        "INSERT INTO dag (dag_id, is_paused, max_active_tasks, max_consecutive_failed_dag_runs,"
        " has_task_concurrency_limits) VALUES ('dag_001', false, 1, 0, false)"
    )
    request = about(lane)
    half = len(request["pieces"]) // 2
    first = ask(database, "import_history", **{**request, "pieces": request["pieces"][:half]}, rebuild_indexes=rebuild)
    assert len(first["done"]) == half and first["left"] == first["listed"] == first["lacking"] == []
    assert database.sql("SELECT is_paused FROM dag") == "t"
    looked = ask(database, "history_progress", bundle="b1")
    assert looked["tables"] == first["tables"] and looked["unpaused"] == ["dag_001"]
    assert bool(looked["indexes"]) == rebuild
    answer = ask(database, "import_history", **request, rebuild_indexes=rebuild)
    assert answer["left"] == answer["listed"] == []
    built = ask(database, "finish_history", tables=list(lane.columns))
    assert bool(built["built"]) == rebuild and built["left_out"] == []
    tables = [table for table in lane.columns if table not in ("dag", "log_template")]
    wanted = {"tables": tables, "scope": lane.plan["scope"], "digest_key": base64.b64encode(KEY).decode()}
    digests = ask(database, "verify_history", **request, **wanted)["digests"]
    assert {table: found for table, found in digests.items() if found} == lane.sent()
    assert sum(row["rows"] for row in answer["tables"].values()) == sum(piece["rows"] for piece in lane.pieces)
    ask(database, "pause_dags", action="resume")
    assert ask(database, "drop_history") == {"dropped": ["mwaa_migration_ledger"]}


def test_an_import_that_is_over_holds_up_no_other(databases: Databases, lane: Lane) -> None:
    database = databases.new("2.11.2")
    request = about(lane)
    whole = {"before": {"pieces": 0}, "of": {"pieces": len(request["pieces"])}}
    half = {**request, "pieces": request["pieces"][:2], "counted": whole}
    ask(database, "import_history", **half)
    assert ask(database, "pause_dags", action="resume")["importing"] == ["b1"]
    assert ask(database, "pause_dags", action="resume", bundles=["b1"])["importing"] == []
    missing = {**request["pieces"][2], "sha256": "0" * 64}
    with pytest.raises(history.Unfit, match="is not the one that was exported"):
        ask(database, "import_history", **{**half, "pieces": [missing]})
    assert ask(database, "pause_dags", action="resume")["importing"] == []
    ask(database, "import_history", **half)
    ask(database, "import_history", **request, counted=whole)
    assert ask(database, "pause_dags", action="resume")["importing"] == []


def test_a_target_that_is_no_postgresql() -> None:
    source = Source(None)  # type: ignore[arg-type]
    source.name = "mysql"  # type: ignore[misc]
    with pytest.raises(history.Unfit, match="history is written into PostgreSQL"):
        history.OPERATIONS["import_history"](source, {})


def test_nothing_to_compare_with(databases: Databases, lane: Lane) -> None:
    database = databases.new("2.11.2")
    wanted = {"source": "s1", "columns": lane.columns, "scope": {}, "digest_key": "", "dags": []}
    with pytest.raises(history.Unfit, match="no ledger of an import"):
        ask(database, "verify_history", **wanted)
    assert ask(database, "history_progress", bundle="b1")["tables"] == {}


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_a_worker_that_is_killed(databases: Databases, lane: Lane, seed: int) -> None:
    database, request, dice = databases.new("2.11.2"), about(lane), random.Random(seed)
    context = multiprocessing.get_context("fork")
    for _time in range(4):
        worker = context.Process(target=ask, args=(database, "import_history"), kwargs=request)
        worker.start()
        time.sleep(dice.uniform(0.2, 2.5))
        os.kill(worker.pid or 0, signal.SIGKILL)
        worker.join()
    assert ask(database, "import_history", **request)["left"] == []
    assert lane.read_back(database) == lane.sent()


def test_a_piece_that_the_bundle_lacks(databases: Databases, lane: Lane, tmp_path: Path) -> None:
    import http.server
    import threading

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler)
    server.RequestHandlerClass.do_GET = lambda self: self.send_error(404)  # type: ignore[attr-defined]
    server.RequestHandlerClass.log_message = lambda *_arguments: None  # type: ignore[method-assign]
    threading.Thread(target=server.serve_forever, daemon=True).start()
    request = about(lane)
    for piece in request["pieces"]:
        if piece["table"] == "task_instance":
            del piece["data"]
            piece["url"] = f"http://127.0.0.1:{server.server_port}/CANARY-signature-0badcafe"
    database = databases.new("2.11.2")
    with pytest.raises(history.Unfit, match=r"a piece of task_instance is missing in the bundle \(history/") as refused:
        ask(database, "import_history", **request)
    server.shutdown()
    assert "CANARY" not in str(refused.value)
    assert database.sql("SELECT count(*) FROM task_instance") == "0"
    assert ask(database, "import_history", **about(lane))["left"] == []
