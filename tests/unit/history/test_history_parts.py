# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Parts on their way: rooms that run out, deadlines, faults, S3 that refuses; and the agent's operations."""

from __future__ import annotations

import base64
import threading
import zlib
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace
from typing import Any

import pytest
from small_airflow import KEY, SCHEMAS, SmallAirflow, history, moment


def filled() -> SmallAirflow:
    airflow = SmallAirflow("2.10.3")
    for day in range(1, 9):
        airflow.run("etl", day)
        airflow.task("etl", "load", day)
        airflow.insert("log", dag_id="etl", dttm=moment(day), event="e")
    return airflow


def exported(
    airflow: SmallAirflow, plan: dict[str, Any], parts: list[Any] | None = None, **more: Any
) -> dict[str, Any]:
    options = {"places": [{"path": f"p{number}"} for number in range(50)], "put": lambda _place, _body: {}, **more}
    return history.export_parts(
        lambda _snapshot: airflow.engine(), plan["parts"] if parts is None else parts, plan["scope"], KEY, **options
    )


def sums(*answers: dict[str, Any]) -> dict[tuple[str, str], int]:
    found: dict[tuple[str, str], int] = {}
    for answer in answers:
        for part in answer["parts"]:
            for dag, (_rows, digest) in part["digests"].items():
                found[part["table"], dag] = (found.get((part["table"], dag), 0) + int(digest, 16)) % 2**128
    return found


def test_every_part_is_answered_for() -> None:
    airflow = filled()
    plan = history.make_plan(airflow.engine(), part_bytes=1000)
    bodies: dict[str, bytes] = {}
    answer = exported(airflow, plan, put=lambda place, body: bodies.update({place["path"]: body}))
    assert answer["left"] == [] and answer["failed"] == []
    assert [part["n"] for part in answer["parts"]] == list(range(len(plan["parts"])))
    for part in answer["parts"]:
        assert part["bytes"] == sum(len(bodies[entry["path"]]) for entry in part["objects"])
        lines = b"".join(zlib.decompress(bodies[entry["path"]], 31) for entry in part["objects"]).splitlines()
        assert len(lines) == part["rows"] == sum(entry["rows"] for entry in part["objects"])


def test_where_rooms_run_out_the_rest_is_left_for_another_time() -> None:
    airflow = filled()
    plan = history.make_plan(airflow.engine(), part_bytes=1000)
    whole = exported(airflow, plan)
    first = exported(airflow, plan, places=[{"path": "a"}, {"path": "b"}, {"path": "c"}])
    assert first["left"] and len(first["parts"]) + len(first["left"]) == len(plan["parts"])
    used = [entry["path"] for part in first["parts"] for entry in part["objects"]]
    assert used == ["a", "b", "c"]
    second = exported(airflow, plan, [part for part in plan["parts"] if part["n"] in first["left"]])
    assert second["left"] == [] and sums(first, second) == sums(whole)


def test_a_long_line_is_cut_as_a_short_one() -> None:
    line = b"-1\tetl\t\tx" + b"y" * 100 + b"\n"
    for count in range(4):
        assert [bytes(field) for field in history._cut(line, count)] == line.split(b"\t", count)


def test_more_turns_than_a_pipe_holds_are_for_another_time() -> None:
    turns = history._Turns(100000)
    turns.begin()
    taken = list(iter(turns.take, None))
    assert taken == list(range(len(taken))) and 1000 < len(taken) < 100000


def test_floats_of_old_servers_are_made_short() -> None:
    """Before PostgreSQL 12 they come with all their digits."""
    names = ("dag_id", "duration", "pid")
    columns = [column for column in history.columns_of("task_instance", {}) if column["name"] in names]
    bodies: list[bytes] = []
    hasher = history.hash_of("sha256", b"")
    lines = history._Lines("task_instance", columns, hasher, lambda body, *_: bodies.append(body), floats=(1,))
    for text in (b"0.10000000000000001", b"1.0000000000000001e-05", b"100000000000000", b"\\N", b"NaN"):
        lines.write(b"etl\t" + text + b"\t1\n")
    lines.close()
    assert zlib.decompress(bodies[0], 31).split(b"\n") == [
        b"etl\t0.1\t1",
        b"etl\t1e-05\t1",
        b"etl\t100000000000000\t1",
        b"etl\t\\N\t1",
        b"etl\tNaN\t1",
        b"",
    ]


def test_no_part_is_begun_after_the_time_is_up() -> None:
    airflow = filled()
    plan = history.make_plan(airflow.engine())
    ticks = iter(range(100))
    answer = exported(airflow, plan, until=3, clock=lambda: next(ticks))
    assert len(answer["parts"]) == 3 and len(answer["left"]) == len(plan["parts"]) - 3


def test_a_part_that_fails_says_why_without_its_rows() -> None:
    airflow = filled()
    plan = history.make_plan(airflow.engine())
    airflow.connection.execute("UPDATE task_instance SET start_date = 'CANARY-start-12345678'")
    answer = exported(airflow, plan)
    (failure,) = answer["failed"]
    assert failure["error"] == "the start_date of a row is no time" and "CANARY" not in str(answer)
    assert answer["left"] == [failure["n"]]


def test_what_s3_refuses_ends_the_part() -> None:
    def refuse(place: dict[str, Any], _body: bytes) -> None:
        raise history.Unfit(f"S3 does not take {place['path']} from here: HTTP 403 AccessDenied")

    airflow = filled()
    answer = exported(airflow, history.make_plan(airflow.engine()), put=refuse)
    assert answer["parts"] == [part for part in answer["parts"] if part["rows"] == 0]
    assert {failure["error"][:15] for failure in answer["failed"]} == {"S3 does not tak"}


class Store(BaseHTTPRequestHandler):
    """PUTs that fail as often as the path says: /500/500/200."""

    seen: list[tuple[str, dict[str, str], bytes]] = []

    def do_PUT(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        codes = self.path.strip("/").split("?")[0].split("/")
        code = int(codes[min(len(self.seen), len(codes) - 1)])
        self.seen.append((self.path, dict(self.headers), body))
        self.send_response(code)
        self.send_header("x-amz-version-id", "v1")
        self.send_header("ETag", '"abc"')
        self.end_headers()
        if code != 200:
            self.wfile.write(b"<Error><Code>SlowDown</Code></Error>")

    def log_message(self, *_arguments: Any) -> None:
        """Tests are quiet."""


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setattr(history, "PAUSES", (0.0, 0.0))
    Store.seen = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), Store)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


def test_a_piece_is_put_with_the_headers_that_were_signed(store: str) -> None:
    place = {"path": "x", "url": f"{store}/500/200?signature=s", "headers": {"x-amz-server-side-encryption": "aws:kms"}}
    assert history.put_piece(place, b"body") == {"version_id": "v1", "etag": "abc"}
    assert len(Store.seen) == 2
    _path, headers, body = Store.seen[1]
    names = {name.lower(): value for name, value in headers.items()}
    assert body == b"body" and names["x-amz-server-side-encryption"] == "aws:kms" and names["content-length"] == "4"


@pytest.mark.parametrize(("codes", "calls"), [("403", 1), ("503", 3)])
def test_a_refusal_is_one_sentence_without_the_permission(store: str, codes: str, calls: int) -> None:
    place = {"path": "history/p1", "url": f"{store}/{codes}?X-Amz-Signature=CANARY-url-00000000"}
    with pytest.raises(history.Unfit) as caught:
        history.put_piece(place, b"body")
    assert str(caught.value) == f"S3 does not take history/p1 from here: HTTP {codes} SlowDown"
    assert len(Store.seen) == calls


class FakeAgent:
    """What airflow_history.py asks of airflow_agent.py, over a database in memory."""

    class AgentError(Exception):
        def __init__(self, code: str, message: str):
            super().__init__(message)
            self.code = code

    def __init__(self, airflow: SmallAirflow, version: str):
        self.airflow, self.version = airflow, version

    def airflow_version(self) -> str:
        return self.version

    def _option(self, _section: str, _key: str) -> str:
        return ""

    def Database(self) -> Any:
        fairy = SimpleNamespace(connection=self.airflow.connection, invalidate=lambda: None)
        pool = SimpleNamespace(connect=lambda: fairy, dispose=lambda: None)
        engine = SimpleNamespace(dialect=SimpleNamespace(name="sqlite"), pool=SimpleNamespace(recreate=lambda: pool))

        class Opened:
            session = SimpleNamespace(get_bind=lambda: engine)

            def __enter__(self) -> Any:
                return self

            def __exit__(self, *_error: Any) -> None:
                """Nothing to close."""

        return Opened()


def test_the_operations_one_after_another() -> None:
    agent = FakeAgent(filled(), "2.10.3")
    plan = history.operate(agent, {"op": "plan_history", "dags": ["etl"], "target": SCHEMAS["2.11.2"]})
    assert plan["airflow_version"] == "2.10.3" and plan["dialect"] == "sqlite" and plan["snapshot"]["id"] is None
    request = {"op": "export_history", "parts": plan["parts"], "scope": plan["scope"]}
    request["digest_key"] = base64.b64encode(KEY).decode()
    answer = history.operate(agent, request)
    (runs,) = [part for part in answer["parts"] if part["table"] == "dag_run"]
    assert runs["rows"] == 8 and answer["left"] == []
    assert zlib.decompress(base64.b64decode(runs["objects"][0]["data"]), 31).count(b"\n") == 8


def test_an_answer_holds_no_more_than_it_should(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history, "INLINE", 200)
    agent = FakeAgent(filled(), "2.10.3")
    plan = history.operate(agent, {"op": "plan_history"})
    request = {"op": "export_history", "parts": plan["parts"], "scope": plan["scope"], "digest_key": ""}
    (failure, *_rest) = history.operate(agent, request)["failed"]
    assert failure["error"] == "the parts are too large for one answer: plan them smaller, or ask for fewer"


def test_airflow_3_is_refused_by_name() -> None:
    with pytest.raises(
        FakeAgent.AgentError, match="run history is read from and written to Airflow 1.10 and 2, this is 3"
    ):
        history.operate(FakeAgent(SmallAirflow("2.10.3"), "3.2.1"), {"op": "plan_history"})


def test_a_database_that_is_no_airflows_is_refused() -> None:
    airflow = SmallAirflow("2.10.3")
    airflow.connection.execute("DROP TABLE dag_run")
    with pytest.raises(FakeAgent.AgentError, match="the metadata database has no table dag_run"):
        history.operate(FakeAgent(airflow, "2.10.3"), {"op": "plan_history"})
