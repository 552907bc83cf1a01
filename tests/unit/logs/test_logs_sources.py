# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whose a log in a log group is, by what the bundle's history knows of the source's runs."""

from __future__ import annotations

import gzip
from types import SimpleNamespace
from typing import Any

import pytest
from ansible_collections.mwaa.migration.plugins.module_utils._errors import MigrationError
from ansible_collections.mwaa.migration.plugins.module_utils._logs.layout import (
    Attempt,
    Dated,
    keeps_templates,
    stream_of,
)
from ansible_collections.mwaa.migration.plugins.module_utils._logs.lines import Event, milliseconds
from ansible_collections.mwaa.migration.plugins.module_utils._logs.sources import (
    Found,
    Gone,
    Runs,
    Wanted,
    _is_wanted,
    _of_entry,
    needs_history,
    of_group,
)
from ansible_collections.mwaa.migration.plugins.module_utils._select import Selection
from botocore.exceptions import ConnectionClosedError
from fakes import aws_failure

COLUMNS = {
    "dag_run": ["id", "log_template_id", "dag_id", "run_id", "execution_date", "state"],
    "task_instance": ["dag_id", "run_id", "task_id", "map_index", "state"],
}


class History:
    """As _history.record.Record gives it: lines of COPY, one export after another."""

    def __init__(self, *exports: dict[str, list[list[str]]]):
        self.bodies: dict[str, bytes] = {}
        self.exports = []
        for number, tables in enumerate(exports):
            pieces = []
            for table, rows in tables.items():
                path = f"{number}/{table}"
                self.bodies[path] = gzip.compress("".join("\t".join(row) + "\n" for row in rows).encode())
                pieces.append({"table": table, "path": path})
            pieces.append({"table": "xcom", "path": "not read"})
            columns = {table: [[name, "text"] for name in names] for table, names in COLUMNS.items()}
            self.exports.append(SimpleNamespace(columns=columns, pieces=lambda pieces=pieces: pieces))

    def read(self, piece: dict[str, Any]) -> bytes:
        return self.bodies[piece["path"]]


MANUAL = "manual__2024-01-02T03:04:05.12+00:00"
RUNS = [
    ["-1", "\\N", "etl", "scheduled__2024-01-01T00:00:00+00:00", "2024-01-01 00:00:00+00", "failed"],
    ["-2", "-1", "etl", MANUAL, "2024-01-02 03:04:05.12+00", "success"],
]
TASKS = [
    ["etl", RUNS[0][3], "load", "-1", "failed"],
    ["etl", MANUAL, "load", "-1", "failed"],
    ["etl", MANUAL, "mapped", "0", "failed"],
]
HISTORY = History(
    {"dag_run": RUNS, "task_instance": TASKS},
    {"task_instance": [["etl", MANUAL, "load", "-1", "success"]]},  # it was cleared since
)


def runs_of(history: Any = HISTORY) -> Runs:
    return Runs(history)


def test_a_date_is_its_run_to_the_microsecond() -> None:
    runs = runs_of()
    assert runs.of(Dated("etl", "2024-01-01T00:00:00+00:00", "load", 2)) == Attempt("etl", RUNS[0][3], "load", -1, 2)
    assert runs.of(Dated("etl", "2024-01-02T03:04:05.120000+00:00", "load", 1)) == Attempt("etl", MANUAL, "load", -1, 1)
    assert runs.of(Dated("etl", "2024-01-03T00:00:00+00:00", "load", 1)) is None
    assert runs.of(Dated("other", "2024-01-01T00:00:00+00:00", "load", 1)) is None


def test_a_streams_run_gets_its_colons_back() -> None:
    named = Attempt("etl", MANUAL.replace(":", "_"), "load")
    assert runs_of().of(named) == Attempt("etl", MANUAL, "load")
    assert Runs(None).of(named) == named


def test_the_last_export_tells_what_failed() -> None:
    runs = runs_of()
    assert runs.failed(Attempt("etl", RUNS[0][3], "load", -1, 1))
    assert not runs.failed(Attempt("etl", MANUAL, "load", -1, 1))
    assert runs.failed(Attempt("etl", MANUAL, "mapped", 0, 3))


class Group:
    name = "airflow-old-Task"

    def __init__(self, *names: str):
        self.names = names

    def streams(self) -> Any:
        return [{"logStreamName": name, "lastEventTimestamp": 1_704_200_000_000} for name in sorted(self.names)]


OLD = ("etl/load/2024-01-01T00_00_00+00_00/1.log", "etl/load/2024-01-02T03_04_05.120000+00_00/1.log")


def wants(version: str, **more: Any) -> Wanted:
    return Wanted(version, Selection(), keeps_templates(version, {}), **more)


def found_in(version: str, *names: str, **wanted: Any) -> tuple[dict[str, str], Found]:
    found = Found()
    logs = of_group(Group(*names), wants(version, **wanted), runs_of(), found)  # type: ignore[arg-type]
    return {str(log.attempt): log.stream for _dag, several in logs for log in several}, found


def test_old_streams_become_new_ones_where_the_run_has_no_template_of_its_own() -> None:
    streams, found = found_in("2.10.3", *OLD, "etl/load/2024-05-05T00_00_00+00_00/1.log", "else")
    assert streams == {
        f"etl {RUNS[0][3]} load attempt 1": stream_of(Attempt("etl", RUNS[0][3], "load"), "2.10.3"),
        f"etl {MANUAL} load attempt 1": OLD[1],
    }
    assert [one["id"] for one in found.not_carried] == ["else", "etl/load/2024-05-05T00_00_00+00_00/1.log"]
    assert "bring the history first" in found.not_carried[1]["reason"]


def test_in_a_log_group_that_the_target_took_over_only_old_names_are_brought_to_new_ones() -> None:
    found, new = Found(), stream_of(Attempt("etl", MANUAL, "load", attempt=2), "2.11.2")
    group: Any = Group(OLD[0], new, "else")
    [(_dag, [log])] = of_group(group, wants("2.11.2"), runs_of(), found, kept=True)
    assert log.stream == stream_of(Attempt("etl", RUNS[0][3], "load"), "2.11.2") and found.not_carried == []


def test_a_target_that_asks_no_run_for_its_template_looks_for_all_in_one_way() -> None:
    streams, _found = found_in("2.11.2", *OLD)
    assert set(streams.values()) == {stream_of(Attempt("etl", row[3], "load"), "2.11.2") for row in RUNS}


@pytest.mark.parametrize(
    ("ended", "taken"), [("2024-01-20T00:00:00+00:00", True), ("2024-01-02T00:00:00+00:00", False)]
)
def test_all_attempts_of_a_task_that_ended_lately_are_wanted(ended: str, taken: bool) -> None:
    first = {"state": "failed", "start": None, "end": "2024-01-02T00:00:00+00:00", "ended": ended}
    wanted = wants("2.10.3", failed=True, since=milliseconds("2024-01-10T00:00:00Z"))
    assert _is_wanted(first, wanted) is taken


def test_logs_of_the_migrations_own_dags_stay() -> None:
    streams, found = found_in("2.10.3", stream_of(Attempt("mwaa_agent", "r1", "t"), "2.10.3"))
    assert streams == {} and found.not_carried == []


class Read(Group):
    """A group whose streams have events, and count how often they are read."""

    def __init__(self, *names: str, events: int = 3, gone: bool = False):
        super().__init__(*names)
        self.reads, self.count, self.gone = 0, events, gone

    def read(self, stream: str) -> Any:
        self.reads += 1
        if self.gone:
            raise MigrationError("no such stream", code="ResourceNotFoundException")
        yield from (Event(number, "x" * 1000) for number in range(self.count))


NEW = stream_of(Attempt("etl", MANUAL, "load"), "2.10.3")


@pytest.mark.parametrize(("count", "reads"), [(3, 1), (3000, 2)])
def test_a_stream_is_read_once_unless_it_is_large_and_then_forgotten(count: int, reads: int) -> None:
    group = Read(NEW, events=count)
    [(_dag, [log])] = of_group(group, wants("2.10.3"), runs_of(), Found())  # type: ignore[arg-type]
    assert next(iter(log.events())) == Event(0, "x" * 1000)
    assert len(list(log.events())) == count and group.reads == reads
    log.forget()
    assert len(list(log.events())) == count and group.reads == reads + 1


def test_a_log_that_is_gone_since_it_was_listed_is_said_to_be() -> None:
    [(_dag, [log])] = of_group(Read(NEW, gone=True), wants("2.10.3"), runs_of(), Found())  # type: ignore[arg-type]
    with pytest.raises(Gone, match="is gone since it was listed"):
        list(log.events())


def remote_log(s3: Any) -> Any:
    entry = {
        **Attempt("etl", MANUAL, "load")._asdict(),
        **{"own": False, "path": "p", "start": None, "end": None, "zone": 0, "state": "failed", "date": None},
        **{"remote": "s3://logs/p", "etag": "e"},
    }
    return _of_entry(None, entry, wants("2.10.3"), s3)  # type: ignore[arg-type]


@pytest.mark.parametrize(("breaks", "whole"), [(3, True), (4, False)])
def test_a_remote_log_goes_on_where_its_connection_broke(breaks: int, whole: bool) -> None:
    class S3:
        """Each answer breaks off after a byte, as often as it is to."""

        def __init__(self) -> None:
            self.asked: list[dict[str, str]] = []

        def get_object(self, Bucket: str, Key: str, **rest: str) -> Any:
            self.asked.append(rest)
            text = b"abcdef"[int(rest.get("Range", "bytes=0-")[6:-1]) :]
            broken = len(self.asked) <= breaks
            pieces = iter([text[:1], None] if broken else [text, b""])

            def read(_size: int) -> bytes:
                piece = next(pieces)
                if piece is None:
                    raise ConnectionClosedError(endpoint_url="x")
                return piece

            return {"ETag": '"e"', "Body": SimpleNamespace(read=read)}

    s3 = S3()
    if whole:
        assert [event.message for event in remote_log(s3).events()] == ["abcdef"]
        assert s3.asked[1] == {"Range": "bytes=1-", "IfMatch": '"e"'}
    else:
        with pytest.raises(MigrationError, match="read the log s3://logs/p"):
            list(remote_log(s3).events())


@pytest.mark.parametrize(("code", "kind"), [("NoSuchKey", Gone), ("NoSuchBucket", MigrationError)])
def test_a_remote_log_may_have_expired(code: str, kind: type) -> None:
    class S3:
        def get_object(self, **_where: Any) -> Any:
            raise aws_failure(code)

    with pytest.raises(MigrationError) as error:
        list(remote_log(S3()).events())
    assert error.type is kind and "s3://logs/p" in error.value.message


def test_old_targets_keep_old_names_and_selections_hold() -> None:
    assert found_in("2.2.2", *OLD)[0] == {
        f"etl {RUNS[0][3]} load attempt 1": OLD[0],
        f"etl {MANUAL} load attempt 1": OLD[1],
    }
    assert len(found_in("2.10.3", *OLD, failed=True)[0]) == 1
    assert found_in("2.10.3", *OLD, since=1_704_200_000_001)[0] == {}


def test_without_history_nobody_knows_what_failed() -> None:
    wanted = wants("2.10.3", failed=True)
    needs_history(wanted, runs_of(), "here")
    with pytest.raises(MigrationError, match="which tasks failed is not to be seen in here"):
        needs_history(wanted, Runs(None), "here")
