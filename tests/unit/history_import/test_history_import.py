# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Pieces read back in bounds, lines made rows, SQL for each version's schema: without a database."""

from __future__ import annotations

import gzip
import io
import pickle
import random
import sys
import zlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

FOLDER = Path(__file__).parents[1] / "history"
sys.path.insert(0, str(FOLDER))
from small_airflow import SCHEMAS, VERSIONS, history  # noqa: E402


def load() -> Any:
    import importlib.util

    path = FOLDER.parents[2] / "plugins" / "agent" / "airflow_history_import.py"
    spec = importlib.util.spec_from_file_location("tested_airflow_history_import", path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.bind(history)
    return module


importing = load()


# ------------------------------------------------------------------------------------------------------------- pieces


def drained(feed: Any, size: int) -> bytes:
    parts = []
    while True:
        part = feed.read(size)
        assert len(part) <= size
        if not part:
            return b"".join(parts)
        parts.append(part)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 3000), max_size=60), st.integers(1, 70000), st.integers(0, 9))
def test_a_piece_comes_out_whole_whatever_is_read_at_once(lengths: list[int], size: int, level: int) -> None:
    dice = random.Random(len(lengths))
    text = b"".join(bytes(dice.choices(b"ab\\Nt\xc3\xbc\r", k=length)) + b"\n" for length in lengths)
    body = gzip.compress(text, level)
    assert drained(importing._Feed(body), size) == text
    assert drained(importing._Feed(body, lambda line: line), size) == text
    assert b"".join(importing._Feed(body).lines()) == text


def test_a_line_longer_than_what_is_read_at_once() -> None:
    text = b"short\n" + b"x" * (3 * importing.FEED) + b"\n" + b"last\n"
    marked = drained(importing._Feed(gzip.compress(text), lambda line: b">" + line), 8192)
    assert marked == b"".join(b">" + line + b"\n" for line in text.splitlines())


def test_memory_is_bounded_by_what_is_read_at_once() -> None:
    feed = importing._Feed(zlib.compress(b"\0" * (64 << 20), 9))
    feed.engine = zlib.decompressobj()
    assert len(feed.read(1000)) <= 1000 and len(feed.read(1 << 20)) <= 1 << 20


def test_a_piece_that_ends_in_the_middle_is_refused() -> None:
    with pytest.raises(history.Unfit, match="ends in the middle"):
        drained(importing._Feed(gzip.compress(b"line\n" * 1000)[:-12]), 1 << 16)


# -------------------------------------------------------------------------------------------------------------- lines


def stored(line: bytes) -> Any:
    """What COPY puts into the bytea column that is a line's last field."""
    field = history.unescaped(line[:-1].decode().rpartition("\t")[2])
    assert field.startswith("\\x")
    return pickle.loads(bytes.fromhex(field[2:]))


@pytest.mark.parametrize(
    "value", [{}, {"a": [1, None, "ü\\N\t\n"]}, {"b": b"\0", 1: (2, {3})}, {"n": float("inf")}, "text", []]
)
def test_pickles_are_what_airflow_reads(value: Any) -> None:
    text = history.escaped(history.plain(history.read_pickle(pickle.dumps(value))))
    amend = importing.amender([("dag_id", "text"), ("conf", "plain")])
    assert stored(amend(f"etl\t{text}\n".encode())) == value
    assert amend(b"etl\t\\N\n") == b"etl\t\\N\n"


def test_templates_of_runs_become_the_targets() -> None:
    columns = [("id", "id"), ("log_template_id", "ref"), ("dag_id", "text"), ("state", "text")]
    amend = importing.amender(columns, {"": b"3", "-4": b"2"})
    assert [amend(b"-1\t%s\tetl\tsuccess\n" % sent) for sent in (b"-4", b"\\N", b"-9")] == [
        b"-1\t2\tetl\tsuccess\n",
        b"-1\t3\tetl\tsuccess\n",
        b"-1\t3\tetl\tsuccess\n",
    ]


def test_lines_that_are_rows_already_are_not_touched() -> None:
    assert importing.amender([("id", "id"), ("dag_id", "text"), ("value", "value")], {"": b"1"}) is None


# ---------------------------------------------------------------------------------------------------------- statements


class Schema:
    """A target that only says what its tables are."""

    def __init__(self, version: str, required: tuple[tuple[str, str], ...] = ()):
        self.columns = {
            table: {
                name: {"type": kind, "required": (table, name) in required, "default": False, "length": None}
                for name, kind in columns.items()
            }
            for table, columns in SCHEMAS[version].items()
        }
        self.keys = {"dag_run": ("dag_id", "run_id"), "xcom": ("dag_run_id", "key"), "log": ("id",)}
        self.parents: dict[str, Any] = {}

    def mapping(self, table: str, source: str, **more: Any) -> Any:
        columns = history.columns_of(table, SCHEMAS[source], history.omitted(self.schema()).get(table) or ())
        return importing.Mapping(self, table, [[one["name"], one["kind"]] for one in columns], **more)

    def schema(self) -> dict[str, dict[str, str]]:
        return {table: {name: one["type"] for name, one in self.columns[table].items()} for table in self.columns}


@pytest.mark.parametrize("version", [version for version in VERSIONS if not version.startswith("1")])
def test_each_column_of_a_target_is_written_once(version: str) -> None:
    schema = Schema(version)
    for table in schema.columns:
        if table in ("dag", "log_template"):
            continue
        mapping = schema.mapping(table, "2.11.2")
        written = [name for name, _expression, _required in mapping.targets]
        assert len(written) == len(set(written)) and set(written) <= set(schema.columns[table])
        left_out = set(history.LEFT_OUT.get(table, ())) | {"dag_run_id", "execution_date"}
        known = {column["name"] for column in history.TABLES[table]["columns"]}
        assert (set(schema.columns[table]) & known) - set(written) - left_out == set() and mapping.lacking == []


@pytest.mark.parametrize("version", ["2.4.3", "2.11.2"])
def test_the_large_tables_go_straight_in(version: str) -> None:
    schema = Schema(version)
    for table in ("job", "dag_run", "task_instance", "xcom", "log", "task_fail", "rendered_task_instance_fields"):
        assert schema.mapping(table, version).can_be_direct
    for table in ("dataset", "dataset_event"):
        assert not (table in importing.DIRECT and schema.mapping(table, version).can_be_direct)
    assert not schema.mapping("dag_run", version, shift=10**8).can_be_direct


def test_before_2_2_a_task_instance_is_found_by_its_runs_date() -> None:
    mapping = Schema("2.0.2").mapping("task_instance", "1.10.12")
    assert not mapping.can_be_direct
    assert ("execution_date", "r.execution_date", False) in mapping.targets
    assert "JOIN dag_run r ON r.dag_id = s.dag_id AND r.run_id = s.run_id" in mapping.joins


def test_a_column_that_no_source_has_gets_a_value_of_its_type() -> None:
    schema = Schema("2.11.2")
    schema.columns["log"]["new"] = {"type": "integer", "required": True, "default": False, "length": None}
    mapping = schema.mapping("log", "2.10.3")
    assert ("new", "CAST(0 AS integer)", False) in mapping.targets and not mapping.can_be_direct


def test_null_becomes_a_value_only_where_the_target_takes_none() -> None:
    expression = {name: text for name, text, _ in Schema("2.2.2").mapping("task_instance", "1.10.12").targets}
    assert expression["pool"] == 's."pool"'
    schema = Schema("2.2.2", (("task_instance", "pool"),))
    expression = {name: text for name, text, _ in schema.mapping("task_instance", "1.10.12").targets}
    assert expression["pool"] == "coalesce(s.\"pool\", 'default_pool')"


def test_ids_of_a_second_source_lie_lower() -> None:
    targets = {name: text for name, text, _ in Schema("2.11.2").mapping("log", "2.10.3", shift=10**8).targets}
    assert targets["id"] == '(s."id" - 100000000)' and targets["try_number"] == 's."try_number"'


def test_no_limit_of_the_servers_ends_an_import() -> None:
    asked: list[str] = []
    for version in (160004, 170002):  # the former knows no limit of transactions
        connection = SimpleNamespace(server_version=version)
        importing.Target.begin(SimpleNamespace(connection=connection, search_path=None, rows=asked.append))
    assert ["'transaction_timeout', '0'" in one for one in asked] == [False, True]


def test_policies() -> None:
    mapping = Schema("2.11.2").mapping("dag_run", "2.10.3")
    assert mapping._conflict("skip") == mapping._conflict("fail") == "DO NOTHING"
    overwrite, newer = mapping._conflict("overwrite"), mapping._conflict("newer")
    assert overwrite.startswith('("dag_id", "run_id") DO UPDATE SET ') and "IS DISTINCT FROM" in overwrite
    assert '"id" = ' not in overwrite  # what refers to the row goes on to
    assert newer.startswith(overwrite) and "CASE WHEN t.updated_at IS NOT NULL THEN coalesce(" in newer
    old = Schema("2.2.2").mapping("dag_run", "1.10.12")._conflict("newer")
    assert "updated_at" not in old and 'coalesce(t."end_date", t."start_date")' in old


@pytest.mark.parametrize(
    ("version", "same"),
    [
        ("2.0.2", ["dag_id", "task_id", "execution_date"]),
        ("2.2.2", None),  # which knows a task instance by its run, and these by its date
        ("2.11.2", ["dag_id", "task_id", "run_id", "map_index"]),
    ],
)
def test_rows_without_a_date_are_the_target_s_where_it_ran_their_task_instance(
    version: str, same: list[str] | None
) -> None:
    newer = Schema(version).mapping("rendered_task_instance_fields", "1.10.12")._newer()
    if same is None:
        assert newer == "true"
    else:
        keys = " AND ".join(f'i."{name}" = t."{name}"' for name in same)
        assert newer == f"NOT EXISTS (SELECT 1 FROM task_instance i WHERE {keys} AND i.job_id > 0)"


def test_an_unknown_policy() -> None:
    with pytest.raises(history.Unfit, match="no policy is called replace: there are skip"):
        importing.Bundle("b", {}, [], "replace")


# ---------------------------------------------------------------------------------------------------------- sentences


class Refusal(Exception):
    def __init__(self, code: str | None):
        super().__init__("CANARY-row-0badcafe")
        self.pgcode = code


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("53100", "no space left"),
        ("42501", "may not write"),
        ("22001", "longer than"),
        ("XX000", "Refusal XX000"),
        (None, "Refusal"),
    ],
)
def test_errors_of_the_database_in_a_sentence_without_values(code: str | None, words: str) -> None:
    said = importing.sentence(Refusal(code), {"table": "xcom", "sha256": "a" * 64, "path": "history/7"})
    assert words in said and "(xcom, piece history/7)" in said and "CANARY" not in said


@pytest.mark.parametrize(("code", "passes"), [("57P01", True), ("40P01", True), ("53100", False), ("23505", False)])
def test_what_is_tried_again(code: str, passes: bool) -> None:
    assert importing._passes(Refusal(code)) is passes
    lost = type("OperationalError", (Exception,), {"pgcode": None})()
    assert importing._passes(lost) is True


@pytest.mark.parametrize(
    ("codes", "said"),
    [
        (["40P01", "40P01"], "done"),
        (["40P01"] * 3, "refuses it \\(Refusal 40P01\\)"),
        (["55P03"], "something on the target holds a lock"),
    ],
)
def test_what_a_scheduler_came_between_is_done_again(
    monkeypatch: pytest.MonkeyPatch, codes: list[str], said: str
) -> None:
    """Its DAGs are rows that the scheduler writes, too."""
    closed: list[bool] = []
    target = SimpleNamespace(rollback=lambda: None, connection=SimpleNamespace(close=lambda: closed.append(True)))
    monkeypatch.setattr(importing, "Target", lambda *_arguments: target)
    monkeypatch.setattr(importing.time, "sleep", lambda _seconds: None)

    def act(_target: Any) -> str:
        if codes:
            raise Refusal(codes.pop(0))
        return "done"

    if said == "done":
        assert importing._steadily(lambda: None, None, act) == "done" and len(closed) == 3
    else:
        with pytest.raises(history.Unfit, match=said) as refused:
            importing._steadily(lambda: None, None, act)
        assert "CANARY" not in str(refused.value)


def test_what_is_no_error_of_the_database_stays_what_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    target = SimpleNamespace(rollback=lambda: None, connection=SimpleNamespace(close=lambda: None))
    monkeypatch.setattr(importing, "Target", lambda *_arguments: target)
    with pytest.raises(KeyError):
        importing._steadily(lambda: None, None, lambda _target: {}["policy"])


@pytest.mark.parametrize(("version", "printed"), [(110000, "0.10000000000000001"), (150000, "0.1")])
def test_a_float_has_one_digest_whatever_the_target_s_server(version: int, printed: str) -> None:
    columns = [("job_id", "ref"), ("dag_id", "text"), ("duration", "float"), ("hostname", "text")]
    digests = []
    for text, engine in ((printed, SimpleNamespace(version=version)), ("0.1", None)):
        lines = importing._lines("task_instance", columns, history.hash_of("blake2b", b"k"), engine)
        lines.write(b"-1\tetl\t%s\tworker\n" % text.encode())
        lines.close()
        digests.append(lines.digests())
    assert digests[0] == digests[1]


def test_a_truncated_answer_is_asked_for_again_and_then_named(monkeypatch: pytest.MonkeyPatch) -> None:
    import urllib.request

    asked: list[str] = []

    class Opener:
        def open(self, request: Any, timeout: float) -> Any:
            asked.append(request.full_url)
            return io.BytesIO(b"half")

    monkeypatch.setattr(urllib.request, "build_opener", Opener)
    monkeypatch.setattr(importing.time, "sleep", lambda _seconds: None)
    piece = {"table": "log", "path": "history/7", "url": "https://CANARY.example/x", "size": 9, "sha256": "a" * 64}
    body = importing.get_piece(piece)
    assert len(asked) == 4
    with pytest.raises(history.Unfit, match=r"not the one that was exported \(history/7\)") as refused:
        importing.import_piece(None, None, piece, body)
    assert "CANARY" not in str(refused.value)


@pytest.mark.parametrize(
    ("status", "body", "expired"),
    [
        (403, "<Code>AccessDenied</Code><Message>Request has expired</Message>", True),
        (400, "<Code>ExpiredToken</Code><Message>The provided token has expired.</Message>", True),
        (403, "<Code>AccessDenied</Code><Message>Access Denied</Message>", False),
    ],
)
def test_a_permission_that_has_ended_is_told_from_one_that_never_was(
    monkeypatch: pytest.MonkeyPatch, status: int, body: str, expired: bool
) -> None:
    import urllib.error
    import urllib.request

    class Opener:
        def open(self, request: Any, timeout: float) -> Any:
            answer = io.BytesIO(f"<Error>{body}<Token>CANARY-token-0badcafe</Token></Error>".encode())
            raise urllib.error.HTTPError(request.full_url, status, "no", {}, answer)  # type: ignore[arg-type]

    monkeypatch.setattr(urllib.request, "build_opener", Opener)
    piece = {"table": "log", "path": "history/7", "url": "https://s3.test/CANARY-url-0badcafe", "sha256": "a" * 64}
    with pytest.raises(history.Unfit, match="S3 does not give history/7") as refused:
        importing.get_piece(piece)
    assert getattr(refused.value, "expired", False) is expired and "CANARY" not in str(refused.value)


def test_our_own_dags_are_no_ones_to_pause() -> None:
    condition = importing._not_own("dag_id")
    assert "dag_id NOT LIKE 'mwaa\\_agent%'" in condition and "'db\\_export'" in condition
