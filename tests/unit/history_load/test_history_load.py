# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A bundle's history into an environment: in which rounds, in which order, what becomes of what was interrupted.

The bundle is a real export of a small Airflow. The target is an agent that keeps its ledger in memory, and checks what
the real one relies on: no piece before those that it refers to, and never one that was altered.
"""

from __future__ import annotations

import base64
import hashlib
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.mwaa.migration.plugins.module_utils._errors import MigrationError
from ansible_collections.mwaa.migration.plugins.module_utils._history import load as module
from ansible_collections.mwaa.migration.plugins.module_utils._history.airflow_history import TABLES
from ansible_collections.mwaa.migration.plugins.module_utils._history.load import Load, Options, inline, presigned

sys.path.insert(0, str(Path(__file__).parents[1] / "history_export"))
from agent_in_process import Killed, World  # noqa: E402
from export_fakes import FakeS3  # noqa: E402


class Target:
    """An environment's agent.

    a_request: pieces that one request gets done in its time. die_after: pieces until the worker is killed, once; the
    piece that it was at is not there. lose: runs whose answer is lost after they did all of it.
    """

    def __init__(self, world: World):
        self.world = world
        self.ledger: dict[str, dict[str, dict[str, Any]]] = {}
        self.sources: list[str] = []
        self.lacking: list[dict[str, Any]] = []
        self.running = {"etl": True, "paused": False}  # DAG: whether it is unpaused
        self.unpaused: set[str] = set()
        self.indexes: list[str] = []
        self.left_out: list[dict[str, Any]] = []  # by foreign keys that came back, at this run's end or a former one's
        self.importing: list[str] = []  # other bundles, at the same time
        self.not_read: list[str] = []  # DAGs whose files Airflow does not get to
        self.a_request: int | None = None
        self.die_after: int | None = None
        self.lose, self.code = 0, "lost"
        self.refuse: str | None = None
        self.requests: list[dict[str, Any]] = []

    def ops(self) -> list[str]:
        return [request["op"] for request in self.requests]

    def ask(self, request: dict[str, Any]) -> dict[str, Any]:
        request = json.loads(json.dumps(request))
        self.requests.append(request)
        answer = getattr(self, request["op"])(request)
        if self.lose:
            self.lose -= 1
            raise MigrationError("agent run r1 ended as failed without an answer", code=self.code)
        return {**json.loads(json.dumps(answer)), "airflow_version": "2.11.2"}

    def sums(self, bundle: str) -> dict[str, Any]:
        tables: dict[str, dict[str, int]] = {}
        for entry in self.ledger.get(bundle, {}).values():
            row = tables.setdefault(entry["table"], dict.fromkeys(module.SUMS, 0))
            row["pieces"] += 1
            row["rows"] += entry["rows"]
            row["inserted"] += entry["rows"]
        return {"tables": tables, "listed": [], "more": 0}

    def history_progress(self, request: dict[str, Any]) -> dict[str, Any]:
        bundles = {name: {**self.sums(name), "done": sorted(self.ledger.get(name, {}))} for name in request["bundles"]}
        waiting = {"indexes": self.indexes, "unpaused": sorted(self.unpaused), "left_out": self.left_out}
        return {"bundles": bundles, "lacking": self.lacking, "sources": self.sources, **waiting}

    def import_history(self, request: dict[str, Any]) -> dict[str, Any]:
        for dag in [dag for dag, runs in self.running.items() if runs]:
            self.running[dag] = False
            self.unpaused.add(dag)
        if request["rebuild_indexes"]:
            self.indexes = ["ti_state"]
        if self.refuse:
            raise MigrationError(self.refuse, code="history")
        if request["source"] not in self.sources:
            self.sources.append(request["source"])
        ledger, done = self.ledger.setdefault(request["bundle"], {}), []
        for piece in sorted(request["pieces"], key=lambda piece: TABLES[piece["table"]]["phase"]):
            name = f"{piece['table']}:{piece['sha256']}"
            if name not in ledger:
                if self.a_request is not None and len(done) >= self.a_request:
                    continue
                body = self.read(piece)
                assert len(body) == piece["size"]
                if hashlib.sha256(body).hexdigest() != piece["sha256"]:
                    raise MigrationError(
                        f"a piece of {piece['table']} is not the one that was exported", code="history"
                    )
                self.check_parents(request["bundle"], piece["table"])
                if self.die_after is not None:
                    self.die_after -= 1
                    if self.die_after < 0:
                        self.die_after = None
                        raise MigrationError("agent run r1 ended as failed without an answer", code="lost")
                ledger[name] = {"table": piece["table"], "rows": piece["rows"]}
            done.append(piece["sha256"])
        left = [piece["sha256"] for piece in request["pieces"] if piece["sha256"] not in done]
        return {**self.sums(request["bundle"]), "done": done, "left": left, "lacking": []}

    def read(self, piece: dict[str, Any]) -> bytes:
        if "data" in piece:
            return base64.b64decode(piece["data"])
        key, _question, query = piece["url"].removeprefix("https://s3.test/").partition("?")
        version = next(word.partition("=")[2] for word in query.split("&") if word.startswith("versionId="))
        found = [body for name, body in self.world.aws.s3.objects.get(key, []) if name == version]
        if not found:
            raise MigrationError(f"a piece of {piece['table']} is missing in the bundle", code="history")
        return found[0]

    def check_parents(self, bundle: str, table: str) -> None:
        for export in self.world.record().exports:
            for piece in export.pieces() if export.id == bundle else ():
                earlier = piece["phase"] < TABLES[table]["phase"]
                assert not earlier or f"{piece['table']}:{piece['sha256']}" in self.ledger[bundle], table

    def finish_history(self, request: dict[str, Any]) -> dict[str, Any]:
        built, self.indexes = self.indexes, []
        assert "dag_run" in request["tables"]
        return {"built": built, "left_out": self.left_out}

    def pause_dags(self, request: dict[str, Any]) -> dict[str, Any]:
        assert request["action"] == "resume" and not self.indexes
        assert self.importing or set(request["bundles"]) == {export.id for export in self.world.record().exports}
        if self.importing:
            return {"changed": [], "unpaused": sorted(self.unpaused), "waiting": [], "importing": self.importing}
        waiting = sorted(self.unpaused & set(self.not_read))
        changed = sorted(self.unpaused - set(waiting))
        self.running.update(dict.fromkeys(changed, True))
        self.unpaused -= set(changed)
        return {"changed": changed, "unpaused": sorted(self.unpaused), "waiting": waiting, "importing": []}


class Signer:
    """Downloads of one version."""

    def client(self, service: str, **_config: Any) -> Any:
        assert service == "s3"
        return self

    meta = FakeS3.meta

    def generate_presigned_url(self, operation: str, Params: dict[str, Any], ExpiresIn: int) -> str:  # noqa: N803
        assert operation == "get_object" and ExpiresIn == 600 and Params["Bucket"] == "bucket"
        return f"https://s3.test/{Params['Key']}?versionId={Params['VersionId']}&X-Amz-Signature=CANARY-url-00000002"


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    return filled(World(monkeypatch))


def filled(made: World) -> World:
    for day in range(1, 13):
        made.airflow.run("etl", day)
        for task in ("extract", "load"):
            made.airflow.task("etl", task, day)
            made.airflow.xcom("etl", task, "return_value", json.dumps({"day": day}).encode(), day)
    made.export()
    return made


@pytest.fixture
def target(world: World) -> Target:
    return Target(world)


def load(target: Target, **options: Any) -> Load:
    record = target.world.record()
    in_s3 = target.world.where.startswith("s3:")
    place = presigned(record, Signer(), 600) if in_s3 else inline(record)
    return Load(record, target.ask, place, Options(**options))


def rows_of(world: World) -> dict[str, int]:
    found: dict[str, int] = {}
    for export in world.record().exports:
        for piece in export.pieces():
            found[piece["table"]] = found.get(piece["table"], 0) + piece["rows"]
    return found


def arrived(target: Target) -> dict[str, int]:
    found: dict[str, int] = {}
    for entries in target.ledger.values():
        for entry in entries.values():
            found[entry["table"]] = found.get(entry["table"], 0) + entry["rows"]
    return found


# ------------------------------------------------------------------------------------------------------------ the way


def test_all_of_it_in_one_request_and_a_second_run_asks_once(world: World, target: Target) -> None:
    result = load(target).run()
    assert target.ops() == ["history_progress", "import_history", "finish_history", "pause_dags"]
    assert result["changed"] and arrived(target) == rows_of(world)
    assert {table: row["rows"] for table, row in result["tables"].items()} == rows_of(world)
    assert all(row["rows"] == row["source"] for row in result["tables"].values())
    assert result["resumed"] == ["etl"] and target.running == {"etl": True, "paused": False}
    target.requests.clear()
    again = load(target).run()
    assert target.ops() == ["history_progress"]
    assert not again["changed"] and again["brought"] == 0 and again["tables"] == result["tables"]


def test_what_a_request_does_not_get_done_is_asked_for_again(world: World, target: Target) -> None:
    target.a_request = 3
    result = load(target, seconds=10).run()
    pieces = sum(len(export.pieces()) for export in world.record().exports)
    assert pieces > 9 and target.ops().count("import_history") == -(-pieces // 3)
    assert arrived(target) == rows_of(world) and result["brought"] == pieces
    counted = [request["counted"] for request in target.requests if request["op"] == "import_history"]
    assert [one["before"]["pieces"] for one in counted] == list(range(0, pieces, 3))
    assert {one["of"]["pieces"] for one in counted} == {pieces}


def test_a_long_record_goes_in_requests_of_a_bounded_size(world: World, target: Target, monkeypatch: Any) -> None:
    monkeypatch.setattr(module, "PIECES", 4)
    load(target).run()
    sizes = [len(request["pieces"]) for request in target.requests if request["op"] == "import_history"]
    assert max(sizes) == 4 and arrived(target) == rows_of(world)


def test_a_folder_s_pieces_travel_in_the_request(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    world = filled(World(monkeypatch, where=str(tmp_path / "bundle")))
    target = Target(world)
    monkeypatch.setattr(module, "INLINE", 2000)
    load(target).run()
    requests = [request for request in target.requests if request["op"] == "import_history"]
    assert len(requests) > 2 and arrived(target) == rows_of(world)
    assert all("url" not in piece and piece["data"] for request in requests for piece in request["pieces"])


def test_a_delta_costs_what_is_new(world: World, target: Target) -> None:
    load(target).run()
    before = target.sums(world.record().exports[0].id)
    target.requests.clear()
    world.airflow.run("etl", 20)
    world.airflow.task("etl", "extract", 20)
    world.export()
    first, second = world.record().exports
    result = load(target).run()
    sent = [
        piece["sha256"]
        for request in target.requests
        if request["op"] == "import_history"
        for piece in request["pieces"]
    ]
    assert sorted(sent) == sorted(piece["sha256"] for piece in second.pieces())
    assert target.sums(first.id) == before and [one["delta"] for one in result["exports"]] == [False, True]


# ----------------------------------------------------------------------------------------------- killed and continued


@pytest.mark.parametrize("pieces", [0, 1, 5, 11])
def test_a_worker_that_dies_is_asked_again_and_goes_on(world: World, target: Target, pieces: int) -> None:
    target.die_after = pieces
    load(target).run()
    assert arrived(target) == rows_of(world) and target.running["etl"]


@pytest.mark.parametrize("code", ["lost", "unanswered", "replayed"])
def test_an_answer_that_is_lost_does_nothing_twice(world: World, target: Target, code: str) -> None:
    target.lose, target.code = 2, code
    load(target).run()
    assert target.ops()[:3] == ["history_progress"] * 3 and arrived(target) == rows_of(world)


@pytest.mark.parametrize("op", ["import_history", "finish_history", "pause_dags"])
def test_a_run_that_ends_without_an_answer_says_that_dags_stay_paused(world: World, target: Target, op: str) -> None:
    ask = target.ask

    def timing_out(request: dict[str, Any]) -> dict[str, Any]:
        if request["op"] == op:
            raise MigrationError("agent run r1: queued; raise wait_timeout", code="Timeout")
        return ask(request)

    cut = load(target)
    cut._ask_once = timing_out
    with pytest.raises(MigrationError, match="DAGs that were paused for it stay so: run again to finish") as caught:
        cut.run()
    assert caught.value.details["tables"]["dag_run"]["source"] == 12


def test_what_foreign_keys_left_out_is_told_by_later_runs_too(world: World, target: Target) -> None:
    target.left_out = [{"table": "xcom", "why": "its task instance is not on the target", "rows": 2}]
    listed = [{"kind": "xcom", "id": "2 rows", "reason": "its task instance is not on the target"}]
    assert load(target).run()["not_carried"] == load(target).run()["not_carried"] == listed


def test_workers_that_die_again_and_again_are_an_error_and_a_new_run_ends_equal(world: World, target: Target) -> None:
    target.lose, target.a_request = 99, 2
    with pytest.raises(MigrationError, match="without an answer"):
        load(target).run()
    target.lose = 0
    load(target).run()
    assert arrived(target) == rows_of(world)


@pytest.mark.parametrize("requests", range(1, 8))
def test_the_controller_is_killed_between_any_two_requests(world: World, target: Target, requests: int) -> None:
    target.a_request = 5
    ask, count = target.ask, 0

    def until(request: dict[str, Any]) -> dict[str, Any]:
        nonlocal count
        count += 1
        answer = ask(request)
        if count == requests:
            raise Killed
        return answer

    killed = load(target, rebuild_indexes=True)
    killed._ask_once = until
    with pytest.raises(Killed):
        killed.run()
    load(target).run()
    assert arrived(target) == rows_of(world)
    assert target.running == {"etl": True, "paused": False} and target.indexes == []


def test_a_run_that_was_replaced_writes_no_more(world: World, target: Target) -> None:
    target.a_request, left = 4, [2]

    def still_ours() -> None:
        left[0] -= 1
        if left[0] < 0:
            raise MigrationError("the run of ada has ended, so its task stops before it writes", code="Locked")

    replaced = load(target)
    replaced.before_writing = still_ours
    with pytest.raises(MigrationError, match="stops before it writes"):
        replaced.run()
    assert target.ops() == ["history_progress", "import_history", "import_history"]


def test_nothing_gets_done_in_time(world: World, target: Target) -> None:
    target.a_request = 0
    with pytest.raises(MigrationError, match="brings no piece of the history within 30 s, .* raise wait_timeout"):
        load(target, seconds=30).run()


def test_dags_that_airflow_has_not_read_stay_paused_until_another_run(world: World, target: Target) -> None:
    target.not_read = ["etl"]
    with pytest.raises(MigrationError, match="1 DAGs that were paused for it stay so, as .*: etl; run again") as caught:
        load(target).run()
    assert caught.value.details["changed"] and not target.running["etl"]
    target.not_read = []
    assert load(target).run()["changed"] and target.running["etl"]
    assert not load(target).run()["changed"]


def test_dags_stay_paused_while_another_bundle_is_on_its_way(world: World, target: Target) -> None:
    target.importing = ["another"]
    first = load(target)
    assert first.run()["resumed"] == [] and not target.running["etl"]
    assert "another import is under way in the environment, which resumes them" in first.notes[0]
    target.importing = []
    last = load(target)
    assert last.run()["resumed"] == ["etl"] and last.notes == []


def test_what_was_paused_may_stay_so(world: World, target: Target) -> None:
    assert load(target, resume=False).run()["resumed"] == [] and not target.running["etl"]
    assert not load(target, resume=False).run()["changed"]
    assert load(target).run()["resumed"] == ["etl"]


# ------------------------------------------------------------------------------------------------------------ refused


def test_a_piece_that_was_altered_or_is_gone(world: World, target: Target) -> None:
    target.a_request = 2
    piece = world.record().exports[0].pieces()[-1]
    key = f"mig/{piece['path']}"
    versions = world.aws.s3.objects[key]
    world.aws.s3.objects[key] = [(version, b"x" * len(body)) for version, body in versions]
    with pytest.raises(MigrationError, match="is not the one that was exported; what was brought stays") as caught:
        load(target).run()
    assert caught.value.details["exports"][0]["pieces_left"] > 0
    world.aws.s3.objects[key] = []
    with pytest.raises(MigrationError, match="is missing in the bundle"):
        load(target).run()
    assert not target.running["etl"]  # the rest is to come
    world.aws.s3.objects[key] = versions
    load(target).run()
    assert arrived(target) == rows_of(world) and target.running["etl"]


def test_a_refusal_before_the_first_row_puts_everything_back(world: World, target: Target) -> None:
    target.refuse = "the target has 3 rows of this bundle already"
    with pytest.raises(MigrationError, match="^the target has 3 rows of this bundle already$"):
        load(target, on_conflict="fail", rebuild_indexes=True).run()
    assert arrived(target) == {} and target.running == {"etl": True, "paused": False} and target.indexes == []


def test_with_fail_everything_is_in_one_request(world: World, target: Target, monkeypatch: Any) -> None:
    monkeypatch.setattr(module, "PIECES", 2)
    load(target, on_conflict="fail").run()
    first = next(request for request in target.requests if request["op"] == "import_history")
    assert len(first["pieces"]) == len(world.record().exports[0].pieces())


def test_another_source_s_history_is_there(world: World, target: Target) -> None:
    target.sources = ["another"]
    with pytest.raises(MigrationError, match="has history of another source already: set beside"):
        load(target).run()
    assert target.ops() == ["history_progress"]
    load(target, beside=True).run()
    assert arrived(target) == rows_of(world) and target.requests[2]["beside"] is True


def test_two_databases_of_one_source_are_beside_each_other(world: World, target: Target) -> None:
    record = world.record()
    record.exports.append(replace(record.exports[0], id="anew", source="another", parts=[]))
    with pytest.raises(MigrationError, match="of two databases, as the source's was made anew between its exports"):
        Load(record, target.ask, inline(record)).look()
    Load(record, target.ask, inline(record), Options(beside=True)).look()
    target.sources = [record.source]
    with pytest.raises(MigrationError, match="has history of another source already: set beside"):
        Load(record, target.ask, inline(record)).look()
    target.sources.append("another")
    Load(record, target.ask, inline(record)).look()


def test_what_the_target_lacks_is_named_before_anything_is_done(world: World, target: Target) -> None:
    target.lacking = [{"table": "task_map", "column": None}, {"table": "dag_run", "column": "clear_number"}]
    with pytest.raises(MigrationError) as caught:
        load(target).run()
    text = caught.value.message
    assert "Airflow 2.11.2 has no table task_map" in text and "no column dag_run.clear_number" in text
    assert "exported for Airflow 2.11.2: export it again" in text
    assert target.ops() == ["history_progress"] and target.running["etl"]


def test_no_permission_and_no_value_is_in_what_is_said(world: World, target: Target) -> None:
    target.refuse = "S3 does not give history/p1: HTTP 403 AccessDenied"
    with pytest.raises(MigrationError) as caught:
        load(target).run()
    assert "CANARY" not in json.dumps(caught.value.as_failure())
    target.refuse = None
    assert "CANARY" not in json.dumps(load(target).run())


def test_foretelling_asks_nobody(world: World, target: Target) -> None:
    (export,) = world.record().exports
    told = load(target).foretell(set())
    assert told["changed"] and told["exports"][0]["pieces_left"] == len(export.pieces()) and target.requests == []
    assert not load(target).foretell({export.id})["changed"]
