# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where logs are copied from: a bundle, a folder of S3, a log group. DAG by DAG, each log readable as often as needed.

PRIVATE to the collection: no promise is made to other collections.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from itertools import groupby
from typing import Any

from ansible_collections.mwaa.migration.plugins.module_utils._bundle import Bundle
from ansible_collections.mwaa.migration.plugins.module_utils._errors import (
    MigrationError,
    aws_error,
    error_code,
    is_aws_error,
    is_missing,
    is_transient,
)
from ansible_collections.mwaa.migration.plugins.module_utils._history.airflow_history import OWN_DAGS, unescaped
from ansible_collections.mwaa.migration.plugins.module_utils._history.record import Record as History
from ansible_collections.mwaa.migration.plugins.module_utils._logs import lines
from ansible_collections.mwaa.migration.plugins.module_utils._logs.cloudwatch import Group
from ansible_collections.mwaa.migration.plugins.module_utils._logs.layout import Attempt, Dated, parse, stream_of
from ansible_collections.mwaa.migration.plugins.module_utils._logs.lines import Event, milliseconds
from ansible_collections.mwaa.migration.plugins.module_utils._logs.record import Record, attempt_of
from ansible_collections.mwaa.migration.plugins.module_utils._select import Selection

READ = 256 << 10
KEPT = 1 << 20  # bytes of a stream
TRIES = 4  # of a connection that breaks off


class Gone(MigrationError):
    """A log that was listed is not there any more."""


@dataclass(frozen=True)
class Log:
    """One log. stream: where the target looks for it. tag: another one for every content. about: for the index.

    forget: no more of it is asked for, so that what is kept of it may go.
    """

    attempt: Attempt
    stream: str
    tag: str
    events: Callable[[], Iterable[Event]]
    packed: Callable[[], Iterable[bytes]]  # as gzip
    about: dict[str, Any] = field(default_factory=dict)
    forget: Callable[[], None] = lambda: None


@dataclass
class Wanted:
    """Which logs. version: the target's Airflow. since: milliseconds. failed: those of failed tasks alone.

    templates: whether the target looks for a log by its run's own template (layout.keeps_templates).
    """

    version: str
    selection: Selection
    templates: bool
    since: int | None = None
    failed: bool = False


class Runs:
    """What a bundle's history knows of a source's runs: the run of a date, its template, and which tasks failed."""

    def __init__(self, history: History | None):
        self.known = history is not None
        self._by_date: dict[tuple[str, int], str] = {}
        self._by_stream: dict[tuple[str, str], str] = {}
        self._failed: set[tuple[str, str, str, int]] = set()
        self._own: set[tuple[str, str]] = set()
        if history is not None:
            self._read(history)

    def _read(self, history: History) -> None:
        for export in history.exports:
            for piece in export.pieces():
                if piece["table"] in ("dag_run", "task_instance"):
                    names = [name for name, _kind in export.columns[piece["table"]]]
                    take = self._take_run if piece["table"] == "dag_run" else self._take_task
                    for line in gzip.decompress(history.read(piece)).decode().split("\n"):
                        if line:
                            take(dict(zip(names, map(unescaped, line.split("\t")))))

    def _take_run(self, row: dict[str, str | None]) -> None:
        dag_id, run_id, date = row["dag_id"] or "", row["run_id"] or "", row.get("execution_date")
        if date:
            self._by_date[dag_id, milliseconds(_iso(date)) or 0] = run_id
        self._by_stream[dag_id, run_id.replace(":", "_")] = run_id
        if row.get("log_template_id") is not None:
            self._own.add((dag_id, run_id))

    def _take_task(self, row: dict[str, str | None]) -> None:
        key = (row["dag_id"] or "", row["run_id"] or "", row["task_id"] or "", int(row.get("map_index") or -1))
        if row["state"] == "failed":
            self._failed.add(key)
        else:
            self._failed.discard(key)

    def of(self, found: Attempt | Dated) -> Attempt | None:
        """Whose log it is, by the run's own name; None where no run of that date is known."""
        if isinstance(found, Attempt):
            run_id = self._by_stream.get((found.dag_id, found.run_id.replace(":", "_")), found.run_id)
            return found._replace(run_id=run_id)
        run = self._by_date.get((found.dag_id, milliseconds(found.date) or 0))
        return Attempt(found.dag_id, run, found.task_id, -1, found.attempt, found.suffix) if run else None

    def failed(self, attempt: Attempt) -> bool:
        return (attempt.dag_id, attempt.run_id, attempt.task_id, attempt.map_index) in self._failed

    def has_template(self, attempt: Attempt) -> bool:
        """Whether the run says itself how its logs are named, and will on the target."""
        return (attempt.dag_id, attempt.run_id) in self._own


def _iso(date: str) -> str:
    """2024-01-01 00:00:00.12+00 -> what every Python's fromisoformat reads."""
    text, _plus, _zone = date.replace(" ", "T").partition("+")
    whole, _dot, fraction = text.partition(".")
    return f"{whole}.{fraction.ljust(6, '0')[:6]}+00:00" if fraction else f"{whole}+00:00"


class Found:
    """What sources found and cannot bring, with the reason."""

    def __init__(self) -> None:
        self.not_carried: list[dict[str, str]] = []

    def leave(self, what: str, reason: str) -> None:
        self.not_carried.append({"kind": "log", "id": what, "reason": reason})


# -------------------------------------------------------------------------------------------------------------- bundle


def of_bundle(record: Record, wanted: Wanted, s3: Any) -> Iterator[tuple[str, list[Log]]]:
    """What airflow_logs_export brought or found. s3: reads what lies in the source's own remote folder."""
    for dag_id in record.dags():
        if wanted.selection.takes(dag_id):
            yield (
                dag_id,
                [_of_entry(record, entry, wanted, s3) for entry in record.entries(dag_id) if _is_wanted(entry, wanted)],
            )


def _is_wanted(entry: dict[str, Any], wanted: Wanted) -> bool:
    ended = milliseconds(entry["ended"])  # all attempts of a task come or stay together
    if wanted.since is not None and ended is not None and ended < wanted.since:
        return False
    return not wanted.failed or entry["state"] == "failed"


def _of_entry(record: Record, entry: dict[str, Any], wanted: Wanted, s3: Any) -> Log:
    attempt = attempt_of(entry)
    own = entry["path"] if entry["own"] and wanted.templates else None
    dates = lines.Dates(milliseconds(entry["start"]), milliseconds(entry["end"]), entry["zone"])
    about = {name: entry[name] for name in ("state", "start", "end")}
    stream = stream_of(attempt, wanted.version, date=entry["date"], own=own)
    if entry.get("remote"):
        return _of_object(s3, entry["remote"], entry["etag"], attempt, stream, dates, about)

    def packed() -> Iterator[bytes]:
        for path, at, size, _raw in entry["pieces"]:
            yield record.object(path)[at : at + size]

    def chunks() -> Iterator[bytes]:
        for member in packed():
            yield from _unpacked(member)

    tag = f"{entry['host']} {entry['size']} {entry['mtime']}"
    return Log(attempt, stream, tag, lambda: lines.events(chunks(), dates), packed, about)


def _unpacked(member: bytes) -> Iterator[bytes]:
    unpacker = zlib.decompressobj(31)
    data = unpacker.decompress(member, READ)
    while data:
        yield data
        data = unpacker.decompress(unpacker.unconsumed_tail, READ)


def _packed(chunks: Iterable[bytes]) -> Iterator[bytes]:
    packer = zlib.compressobj(6, zlib.DEFLATED, 31)
    for chunk in chunks:
        data = packer.compress(chunk)
        if data:
            yield data
    yield packer.flush()


# ------------------------------------------------------------------------------------------------------------------ S3


def _of_object(
    s3: Any, url: str, etag: str, attempt: Attempt, stream: str, dates: lines.Dates, about: dict[str, Any]
) -> Log:
    bucket, _slash, key = url[len("s3://") :].partition("/")

    def chunks() -> Iterator[bytes]:
        """A connection that breaks off in the middle goes on there, as long as it is the same object."""
        at, rest, tries = 0, {}, TRIES  # type: int, dict[str, str], int
        while True:
            try:
                reply = s3.get_object(Bucket=bucket, Key=key, **rest)
                while chunk := reply["Body"].read(READ):
                    yield chunk
                    at += len(chunk)
                    rest = {"Range": f"bytes={at}-", "IfMatch": reply["ETag"]}
                return
            except Exception as exception:
                if not is_aws_error(exception):
                    raise
                if is_missing(exception) and error_code(exception) != "NoSuchBucket":
                    raise Gone(f"{url}, where the source had put it, is gone") from exception
                tries -= 1
                if not tries or not is_transient(exception):
                    raise aws_error(exception, f"read the log {url}") from exception

    return Log(attempt, stream, etag, lambda: lines.events(chunks(), dates), lambda: _packed(chunks()), about)


def of_s3(url: str, wanted: Wanted, s3: Any, runs: Runs, found: Found) -> Iterator[tuple[str, list[Log]]]:
    """Remote logs of an Airflow that nobody can ask any more, by their keys."""
    bucket, _slash, prefix = url[len("s3://") :].rstrip("/").partition("/")
    start = f"{prefix}/" if prefix else ""

    def objects() -> Iterator[tuple[str, Attempt | Dated | None, dict[str, Any]]]:
        try:
            for page in s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=start):
                for entry in page.get("Contents", []):
                    if wanted.since is None or entry["LastModified"].timestamp() * 1000 >= wanted.since:
                        path = entry["Key"][len(start) :]
                        yield path, parse(path), entry
        except Exception as exception:
            if not is_aws_error(exception):
                raise
            raise aws_error(exception, f"list the logs in {url}") from exception

    for dag_id, entries in groupby(objects(), lambda one: one[1].dag_id if one[1] else None):
        logs = []
        for path, named, entry in entries:
            log_of = _whose(path, named, wanted, runs, found)
            if log_of is None:
                continue
            attempt, stream = log_of
            etag = entry["ETag"].strip('"')
            dates = lines.Dates(end=int(entry["LastModified"].timestamp() * 1000))
            logs.append(_of_object(s3, f"s3://{bucket}/{entry['Key']}", etag, attempt, stream, dates, {}))
        if dag_id is not None and logs:
            yield dag_id, logs


# ---------------------------------------------------------------------------------------------------------- CloudWatch


def of_group(
    group: Group, wanted: Wanted, runs: Runs, found: Found, *, kept: bool = False
) -> Iterator[tuple[str, list[Log]]]:
    """All task logs of a log group. kept: it is the target's too, so that those alone are brought that it looks for
    under another name.
    """

    def streams() -> Iterator[tuple[str, Attempt | Dated | None, dict[str, Any]]]:
        for entry in group.streams():
            last = entry.get("lastEventTimestamp") or entry.get("lastIngestionTime")
            if wanted.since is None or last is None or last >= wanted.since:
                yield entry["logStreamName"], parse(entry["logStreamName"]), entry

    for dag_id, entries in groupby(streams(), lambda one: one[1].dag_id if one[1] else None):
        logs = []
        for name, named, entry in entries:
            log_of = None if kept and named is None else _whose(name, named, wanted, runs, found)
            if log_of is not None and not (kept and log_of[1] == name):
                logs.append(_of_stream(group, name, entry, *log_of))
        if dag_id is not None and logs:
            yield dag_id, logs


def _of_stream(group: Group, name: str, entry: dict[str, Any], attempt: Attempt, stream: str) -> Log:
    tag = f"{entry.get('lastIngestionTime')} {entry.get('lastEventTimestamp')} {group.name}"

    kept: list[Event] = []
    whole: list[bool] = []

    def reading() -> Iterator[Event]:
        try:
            yield from group.read(name)
        except MigrationError as error:
            if error.code == "ResourceNotFoundException":
                raise Gone(f"the stream {name} of {group.name} is gone since it was listed") from error
            raise

    def events() -> Iterator[Event]:
        """Reading is what the rates allow least: a stream that is not large is read once, even for its first event."""
        if whole:
            yield from kept
            return
        first: list[Event] = []
        size, rest = 0, reading()
        for event in rest:
            first.append(event)
            size += event.size
            if size > KEPT:
                break
        else:
            kept[:] = first
            whole.append(True)
        yield from first
        yield from rest

    def forget() -> None:
        kept.clear()
        whole.clear()

    def packed() -> Iterable[bytes]:
        return _packed((event.message + "\n").encode() for event in events())

    return Log(attempt, stream, tag, events, packed, forget=forget)


def _whose(
    path: str, named: Attempt | Dated | None, wanted: Wanted, runs: Runs, found: Found
) -> tuple[Attempt, str] | None:
    """(attempt, the target's stream); None where it is not wanted, or not known whose it is."""
    if named is None:
        found.leave(
            path, "its name is not one of Airflow's layouts: whose log it is only the source's agent could tell"
        )
        return None
    ours = any(fnmatchcase(named.dag_id, one) for one in OWN_DAGS)
    if ours or not wanted.selection.takes(named.dag_id):
        return None
    attempt = runs.of(named)
    if attempt is None:
        found.leave(path, f"no run of {named.dag_id} with this date is known: bring the history first")  # type: ignore[union-attr]
        return None
    if wanted.failed and not runs.failed(attempt):
        return None
    # a run of before Airflow 2.3 has no template: on the target the target's own holds
    own = path if wanted.templates and isinstance(named, Dated) and runs.has_template(attempt) else None
    date = named.date if isinstance(named, Dated) else None
    return attempt, stream_of(attempt, wanted.version, date=date, own=own)


def needs_history(wanted: Wanted, runs: Runs, where: str) -> None:
    """MigrationError where failed tasks are asked for and nobody knows which failed."""
    if wanted.failed and not runs.known:
        raise MigrationError(
            f"which tasks failed is not to be seen in {where}, and the bundle has no history: export the history first,"
            " or take all logs (state all)",
            code="NoBundle",  # in check mode, as before the first export
        )


def history_of(bundle: Bundle) -> Runs:
    return Runs(History.open(bundle))
