# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Run history from an Airflow into its bundle, round by round.

PRIVATE to the collection: no promise is made to other collections.

The agent plans parts; each round reads some of them in one snapshot and puts them into the bucket by presigned URLs,
or hands them over in its answer. After each round what is there is written down, so that whatever is killed, the next
run goes on with the parts that are missing. The record comes last; what it does not name is deleted.
"""

from __future__ import annotations

import base64
import datetime
import hashlib
import json
import re
import secrets
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Protocol, cast

from ansible_collections.mwaa.migration.plugins.module_utils import _versions
from ansible_collections.mwaa.migration.plugins.module_utils._bundle import Bundle, S3Store
from ansible_collections.mwaa.migration.plugins.module_utils._errors import Faults, MigrationError
from ansible_collections.mwaa.migration.plugins.module_utils._history import Ask
from ansible_collections.mwaa.migration.plugins.module_utils._history.airflow_history import (
    ALONE,
    INLINE,
    PART,
    S3_REFUSES,
    TABLES,
    TOO_LARGE,
    lines_digest,
)
from ansible_collections.mwaa.migration.plugins.module_utils._history.record import (
    MANIFEST,
    PARTS,
    PROGRESS,
    REMEDY,
    HistoryExport,
    Record,
    is_sealed,
    source_name,
)
from ansible_collections.mwaa.migration.plugins.module_utils._progress import span

ENTRY = "2.11.2"  # history enters Airflow 3 by this version
ROUND_SECONDS = 60  # no part is begun after
FIRST_SECONDS = 15  # the first round tells whether S3 can be reached
URL_SECONDS = 900  # a part that was begun late in a round has the rest
ROUND_BYTES = 2 << 30  # of tables, in one round
ROUND_PARTS = 500
SMALL_PART = 8 << 20  # bytes of a table in a part that goes over the connection
PER_URL = 4 << 20  # bytes of a table for which one more URL is given
ATTEMPTS = 3
FOLLOWING = 3  # exports in one run, where each took more than one round
LISTED = 1000  # entries of a kind in what is returned


class Lock(Protocol):
    """What of _lock.Lock is needed."""

    def take(self) -> None: ...

    def check(self) -> None: ...


@dataclass(frozen=True)
class Options:
    """What is asked for. since: days, or a day or time in ISO 8601 (UTC where it names no zone)."""

    target_version: str
    dags: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    tables: tuple[str, ...] = ()
    since: str | None = None
    processes: int = 2
    transport: str = "auto"

    def filters(self) -> dict[str, Any]:
        return {
            "dags": sorted(set(self.dags)),
            "exclude": sorted(set(self.exclude)),
            "tables": sorted(set(self.tables)),
            "since": self.since or None,
        }

    def check(self) -> None:
        """MigrationError naming everything that is wrong."""
        faults = Faults("airflow_history_export")
        with faults.collecting():
            _versions.require(self.target_version)
        unknown = sorted(set(self.tables) - set(TABLES))
        if unknown:
            faults.add(f"no table of run history is called {', '.join(unknown)}: known are {', '.join(TABLES)}")
        with faults.collecting():
            moment_of(self.since)
        if self.processes < 1:
            faults.add(f"processes is {self.processes}: at least one reads the database")
        faults.raise_if_any()


def moment_of(since: str | None, now: datetime.datetime | None = None) -> str | None:
    """A number of days, or ISO 8601, as the ISO 8601 that the agent takes (UTC, ending in Z)."""
    if not since:
        return None
    now = now or datetime.datetime.now(datetime.timezone.utc)
    try:
        if re.fullmatch(r"\d{1,5}", since):
            at = now - datetime.timedelta(days=int(since))
        else:  # Python before 3.11 does not read Z
            at = datetime.datetime.fromisoformat(re.sub(r"[Zz]$", "+00:00", since))
    except (ValueError, OverflowError):
        raise MigrationError(
            f"since is {since!r}: say a number of days, or a day or time such as 2026-01-31 or 2026-01-31T12:00:00Z"
        ) from None
    at = at.replace(tzinfo=datetime.timezone.utc) if at.tzinfo is None else at.astimezone(datetime.timezone.utc)
    return at.strftime("%Y-%m-%dT%H:%M:%SZ")


def why_unreadable(airflow_version: str) -> str | None:
    """Why history cannot be read from an Airflow of this version; None where it can."""
    if _versions.numbers(airflow_version)[0] < 3:
        return None
    return (
        f"the source is Airflow {airflow_version}, and run history is carried from 1.10.12 to 2.11.2 alone; its state"
        " is carried all the same"
    )


def target_schema(version: str) -> tuple[str, dict[str, dict[str, str]]]:
    """(version that history enters, its {table: {column: type}}): the nearest known one that is not newer."""
    wanted = _versions.numbers(ENTRY if _versions.numbers(version)[0] >= 3 else version)
    found: tuple[str, dict[str, Any]] = ("", {})
    before: dict[str, Any] = {}
    for known, tables in json.loads(Path(__file__).with_name("schemas.json").read_text()).items():
        before = {name: before[name] if columns == "as before" else columns for name, columns in tables.items()}
        if not found[0] or _versions.numbers(known) <= wanted:
            found = (known, before)
    return found


class Progress:
    """An export that is under way: its plan, and the parts that are there."""

    def __init__(self, bundle: Bundle, export: HistoryExport, planned: list[dict[str, Any]], over: str):
        self._bundle, self.export, self.planned = bundle, export, planned
        self.over = over  # s3 or connection

    @classmethod
    def open(cls, bundle: Bundle) -> Progress | None:
        document = bundle.read_document(PROGRESS, REMEDY)
        if document is None:
            return None
        export = HistoryExport.of(document["export"])
        return cls(bundle, export, document["planned"], document["over"])

    def save(self) -> None:
        body = {"export": self.export.as_document(), "planned": self.planned, "over": self.over}
        self._bundle.write_document(PROGRESS, body)

    @property
    def missing(self) -> list[dict[str, Any]]:
        done = {part["n"] for part in self.export.parts}
        return [part for part in self.planned if part["n"] not in done]

    def add(self, planned: dict[str, Any], answer: dict[str, Any]) -> None:
        self.export.parts.append({**planned, "size_planned": planned["bytes"], **answer})

    def split(self, part: dict[str, Any]) -> bool:
        """Two halves in its place; False where it cannot be cut."""
        low, high = part.get("lo"), part.get("hi")
        if low is None or high is None or high - low < 2:
            return False
        middle, number = (low + high) // 2, max(one["n"] for one in self.planned) + 1
        halves = [{**part, "hi": middle}, {**part, "lo": middle, "n": number}]
        self.planned.remove(part)
        self.planned += [{**half, "bytes": part["bytes"] // 2} for half in halves]
        return True


class Exporter:
    """One export of history.

    ask: the source's agent. identity: its answer to `inspect`. bundle: that of the same source, with its state.
    lock: taken before the first write; none in check mode. show: takes lines for who watches.
    """

    def __init__(
        self,
        ask: Ask,
        bundle: Bundle,
        identity: dict[str, Any],
        options: Options,
        *,
        lock: Lock | None = None,
        show: Callable[[str], None] = lambda _line: None,
        check_mode: bool = False,
        clock: Any = time,
    ):
        options.check()
        unreadable = why_unreadable(identity["airflow_version"])
        if unreadable:
            raise MigrationError(unreadable)
        bundle.check_source(identity)
        if options.transport == "s3" and not isinstance(bundle.store, S3Store):
            raise MigrationError(f"transport s3 needs a bundle in S3, not {bundle.store.url}: use transport connection")
        self.ask, self.bundle, self.identity, self.options = ask, bundle, identity, options
        self.store, self.lock, self.check_mode, self._clock = bundle.store, lock, check_mode, clock
        self._show = lambda text: show(f"airflow_history_export: {text}")
        self.target, self.schema = target_schema(options.target_version)
        self.findings: list[str] = []
        self.given_up: dict[int, str] = {}
        self._ratio = 1.0  # bytes sent for a byte of a table, at most, for answers over the connection

    def run(self) -> dict[str, Any]:
        started = self._clock.monotonic()
        seen = self._state_of_writing()
        self.record = Record.open(self.bundle)
        progress = self._usable(Progress.open(self.bundle))
        if self.check_mode:
            left = None if progress is None else f"{len(progress.missing)} of {len(progress.planned)}"
            progress = self._plan()
            if left:
                self.findings.append(f"an export was interrupted: it goes on, {left} parts are missing")
            export = progress.export
            changed = bool(progress.planned or self._says_more(export))
            result = self._returned(export, export.sizes, len(progress.planned), changed)
        else:
            goes_on = progress is not None
            if progress:
                self._show(f"goes on: {len(progress.missing)} of {len(progress.planned)} parts are missing")
            done = [self._export(progress or self._plan(), seen)]
            # nothing that happened since an interrupted run is to be missing, and no run half carried that was cleared
            # between two rounds
            while len(done) < FOLLOWING and (goes_on or done[-1][0].export.snapshots > 1):
                goes_on = False
                done.append(self._export(self._plan(), self._state_of_writing()))
            result = self._result(done)
        return {**result, "duration": round(self._clock.monotonic() - started, 1)}

    def _export(self, progress: Progress, seen: list[str | None]) -> tuple[Progress, bool]:
        """Where it ended, and whether anything was new."""
        try:
            return progress, self._carry(progress, seen)
        except Unreachable as error:
            self._show(f"{error.message}; it goes over the connection")
            progress = self._plan(over="connection")
            return progress, self._carry(progress, seen)

    def _result(self, done: list[tuple[Progress, bool]]) -> dict[str, Any]:
        """Of these exports together: rows of all, what is open as the last one knows it."""
        exports = [progress.export for progress, _changed in done]
        new = [progress.export.id for progress, changed in done if changed]
        parts = [part for export in exports for part in export.parts]
        sizes = {table: {"rows": 0, "bytes": 0} for table in exports[-1].columns}
        deleted: dict[str, Any] = {"tables": {}, "rows": {}, "more": sum(one.deleted["more"] for one in exports)}
        for part in parts:
            sizes[part["table"]]["rows"] += part["rows"]
            sizes[part["table"]]["bytes"] += part["bytes"]
        for one in exports:
            for table, rows in one.deleted["rows"].items():
                deleted["rows"][table] = deleted["rows"].get(table, 0) + rows
                deleted["tables"].setdefault(table, []).extend(one.deleted["tables"].get(table, []))
        export = replace(exports[-1], id=new[-1] if new else "", after=exports[0].after, parts=parts, deleted=deleted)
        return self._returned(export, sizes, sum(len(progress.planned) for progress, _changed in done), bool(new))

    def _returned(
        self, export: HistoryExport, sizes: dict[str, dict[str, int]], parts: int, changed: bool
    ) -> dict[str, Any]:
        return {
            "changed": changed,
            "bundle": self.store.url,
            "export": None if self.check_mode or not changed else export.id,
            "delta": export.after is not None,
            "target_version": self.target,
            "tables": sizes,
            "parts": parts,
            "open": export.open,
            "more_open": export.more_open,
            "deferred": export.deferred,
            "losses": export.losses,
            "faults": export.faults()[:LISTED],
            "deleted": export.deleted,
            "not_carried": export.not_carried(),
            "findings": list(dict.fromkeys(self.findings)),  # each plan has its own
        }

    # -- what is there

    def _state_of_writing(self) -> list[str | None]:
        """It changes with every export that writes."""
        return [there.tag if (there := self.store.read_tagged(path)) else None for path in (MANIFEST, PROGRESS)]

    def _fits(self, export: HistoryExport) -> bool:
        """Whether an export has what is asked for now, in the same columns."""
        asked = {"filters": self.options.filters(), "target_version": self.target}
        return (
            asked == {"filters": export.filters, "target_version": export.target_version}
            and export.airflow_version == self.identity["airflow_version"]
        )

    @property
    def _last(self) -> HistoryExport | None:
        return self.record.exports[-1] if self.record and self.record.exports else None

    def _usable(self, progress: Progress | None) -> Progress | None:
        """An interrupted export, where it is still what is asked for."""
        if progress is None:
            return None
        known = [export.id for export in (self.record.exports if self.record else ())]
        over_connection = self.options.transport == "connection" or is_sealed(self.bundle)
        if (
            not self._fits(progress.export)
            or progress.export.mark["fits"]["lines"] != lines_digest()
            or progress.export.id in known
            or progress.export.after not in (None, *known[-1:])
            or (self.options.transport == "s3" and progress.over != "s3")
            or (over_connection and progress.over == "s3")
        ):
            return None
        there = self._there(progress.export)
        progress.export.parts = [part for part in progress.export.parts if not self._lost(part, there)]
        return progress

    def _there(self, export: HistoryExport) -> dict[str, tuple[int, str | None]]:
        return self.store.list(f"{PARTS}{export.id}/")

    def _lost(self, part: dict[str, Any], there: dict[str, tuple[int, str | None]]) -> bool:
        """Whether an object of this part is not there any more, or another one."""

        def is_there(entry: dict[str, Any]) -> bool:
            size, etag = there.get(entry["path"], (-1, None))
            return size >= 0 and (is_sealed(self.bundle) or size == entry["size"]) and entry.get("etag") in (None, etag)

        return not all(is_there(entry) for entry in part["objects"])

    # -- plan

    def _plan(self, over: str = "s3") -> Progress:
        if self.options.transport == "connection" or is_sealed(self.bundle):
            over = "connection"
        filters, last = self.options.filters(), self._last
        again = last is not None and last.filters["since"] == filters["since"]
        request = {
            "op": "plan_history",
            **{name: filters[name] or None for name in ("dags", "exclude", "tables")},
            # days are counted once: a delta has the same beginning
            "since": last.scope.get("since") if last and again else moment_of(filters["since"]),
            "target": self.schema,
            "part_bytes": PART if over == "s3" else SMALL_PART,
            "after": last.mark if last else None,
        }
        self._show(f"planning what {'has changed' if last else 'is carried'}")
        plan = self.ask(request)
        if plan["full_why"]:
            self.findings.append(f"everything is exported anew: {plan['full_why']}")
        chosen = [*(plan["scope"]["only"] or ()), *plan["scope"]["not"]]
        unmet = [one for one in filters["dags"] if not any(fnmatchcase(dag, one) for dag in chosen)]
        if unmet:
            self.findings.append(f"no DAG of the source is called {', '.join(unmet)}: nothing is carried for that")
        sizes = plan["sizes"]
        if plan["delta"]:
            sizes = {table: {"rows": plan["changes"].get(table, 0), "bytes": 0} for table in sizes}
            for part in plan["parts"]:
                sizes[part["table"]]["bytes"] += part["bytes"]
        base = last.id if last and plan["delta"] else None
        export = HistoryExport(
            id=secrets.token_hex(8),
            at=plan["snapshot"]["at"],
            airflow_version=plan["airflow_version"],
            target_version=self.target,
            dialect=plan["dialect"],
            filters=filters,
            after=base,
            sizes=sizes,
            **{name: plan[name] for name in ("columns", "scope", "open", "more_open", "deferred", "losses")},
            **{name: plan[name] for name in ("mark", "deleted")},
        )
        if last and base:
            export.name_halves(last)
        if last:
            export.source = last.source
            before, now = (one["fits"].get("life") for one in (last.mark, plan["mark"]))
            if before and now and before != now:
                export.source = source_name(self.identity, now)
        return Progress(self.bundle, export, plan["parts"], over)

    # -- rounds

    def _carry(self, progress: Progress, seen: list[str | None]) -> bool:
        """Everything that is missing, then the record; whether anything was new."""
        if progress.export.after is None or progress.planned or self._says_more(progress.export) or seen[1]:
            if self.lock is not None:
                self.lock.take()
            if self._state_of_writing() != seen:
                raise MigrationError(
                    f"{self.store.url} was written to by another export of history while this one read the source:"
                    " run it again"
                )
        self._rounds(progress)
        if self.given_up:
            raise self._not_whole(progress)
        there = self._there(progress.export)
        lost = [part for part in progress.export.parts if self._lost(part, there)]
        if lost:
            raise MigrationError(
                f"{len(lost)} parts of the history vanished from {self.store.url}/{PARTS} while it was exported:"
                " does something delete there? Run it again"
            )
        changed = self._is_new(progress)
        if self.lock is not None:
            self.lock.check()  # the record is what makes all of this count
        if changed:
            order = {part["n"]: number for number, part in enumerate(progress.planned)}
            progress.export.parts.sort(key=lambda part: order[part["n"]])
            name = source_name(self.identity, progress.export.mark["fits"]["life"])
            self.record = self.record or Record(self.bundle, name)
            self.record.add(progress.export)
            self.record.save()
        if self.store.read_tagged(PROGRESS):
            self.store.delete(PROGRESS)
        self._sweep()
        return changed

    def _is_new(self, progress: Progress) -> bool:
        """A delta may read again what the last export has already: engines without transaction ids look at times."""
        export = progress.export
        if export.after is None or self._says_more(export) or self.record is None:
            return True
        digests = export.digests()
        for table in [table for table in digests if export.rows(table)]:
            last = next((one for one in reversed(self.record.exports) if one.rows(table)), None)
            if last is None or last.digests()[table] != digests[table]:
                return True
        return False

    def _says_more(self, export: HistoryExport) -> bool:
        """Whether it has to be known, without a row."""
        return bool(export.deleted["rows"] or export.halves - (self._last.halves if self._last else set()))

    def _sweep(self) -> None:
        """Delete what no export names: of parts that were begun and not finished."""
        named = {piece["path"] for export in (self.record.exports if self.record else ()) for piece in export.pieces()}
        for path in sorted(set(self.store.list(PARTS)) - named):
            self.store.delete(path)

    def _rounds(self, progress: Progress) -> None:
        watch = Watch(progress, self._show, self._clock)
        attempts: Counter[int] = Counter()
        idle = 0
        while missing := [part for part in progress.missing if part["n"] not in self.given_up]:
            batch = list(self._batch(missing, progress.over))
            answer = self._round(progress, batch, spare=4**idle)
            parts = {part["n"]: part for part in batch}
            for done in answer["parts"]:
                seen = {name: answer["snapshot"][name] for name in ("xmin", "at")}
                self._keep(progress, parts[done["n"]], {**done, "snapshot": seen})
            moved = bool(answer["parts"])
            for failure in answer["failed"]:
                moved = self._failed(progress, parts, failure, attempts) or moved
            idle = 0 if moved else idle + 1
            if idle >= ATTEMPTS:
                at_start = [failure["error"] for failure in answer["failed"] if failure["n"] not in parts]
                raise MigrationError(
                    f"the source's agent finished none of {len(missing)} parts in {ATTEMPTS} rounds: its processes"
                    + (
                        f" end at their start with {at_start[0]}; does its database take {self.options.processes + 1}"
                        " connections more?"
                        if at_start
                        else " end before they answer; is memory short there?"
                    )
                    + " What is exported already stays, run it again to go on"
                )
            if any(part["objects"] for part in progress.export.parts):
                progress.save()
            watch.say()

    def _batch(self, missing: list[dict[str, Any]], over: str) -> Iterator[dict[str, Any]]:
        room = ROUND_BYTES if over == "s3" else INLINE / 2 / self._ratio
        for number, part in enumerate(missing):
            room -= part["bytes"]
            if number and (room < 0 or number >= ROUND_PARTS or part.get("alone")):
                return
            yield part
            if part.get("alone"):
                return

    def _round(self, progress: Progress, batch: list[dict[str, Any]], spare: int) -> dict[str, Any]:
        request: dict[str, Any] = {
            "op": "export_history",
            "parts": batch,
            "scope": progress.export.scope,
            "digest_key": base64.b64encode(self.bundle.digest_key).decode(),
        }
        if progress.over == "s3":
            count = spare * (len(batch) + sum(part["bytes"] for part in batch) // PER_URL)
            # a new name each time: an agent that outlives its round may still write
            name = f"{PARTS}{progress.export.id}/{secrets.token_hex(4)}"
            first = not any(part["objects"] for part in progress.export.parts)
            request.update(
                puts=[self._place(f"{name}-{one:04d}.gz") for one in range(count)],
                processes=self.options.processes,
                seconds=FIRST_SECONDS if first else ROUND_SECONDS,
                impatient=first,
            )
        return self.ask(request)

    def _place(self, path: str) -> dict[str, Any]:
        url, headers = cast(S3Store, self.store).presign_new(path, URL_SECONDS)
        return {"path": path, "url": url, "headers": headers}

    def _keep(self, progress: Progress, part: dict[str, Any], answer: dict[str, Any]) -> None:
        """A part that arrived; what came in the answer is put into the bundle."""
        for number, entry in enumerate(answer["objects"]):
            if "data" not in entry:
                continue
            body = base64.b64decode(entry.pop("data"))
            if hashlib.sha256(body).hexdigest() != entry["sha256"]:
                raise MigrationError("a piece of history was altered between the source and here: run it again")
            path = f"{PARTS}{progress.export.id}/c{part['n']:05d}-{part.get('lo') or 0}-{number}.gz"
            stored = self.store.write(path, self.bundle.seal(body) if is_sealed(self.bundle) else body)
            entry.update(path=path, version_id=stored.version_id, etag=stored.etag)
        if progress.over == "connection" and part["bytes"]:
            self._ratio = max(self._ratio / 2, 1.5 * answer["bytes"] / part["bytes"], 0.02)
        progress.add(part, answer)

    def _failed(
        self, progress: Progress, parts: dict[int, dict[str, Any]], failure: dict[str, Any], attempts: Counter[int]
    ) -> bool:
        """What becomes of a part that failed; whether the round got on by it all the same."""
        part, error = parts.get(failure["n"]), failure["error"]
        if part is None:  # a process could not begin
            self.findings.append(f"a process of the source's agent ended at its start: {error}")
            return False
        if error == TOO_LARGE:
            self._ratio *= 2
            if len(parts) > 1 or progress.split(part):
                return True
            if not part.get("alone"):
                part["alone"] = True
                return True
            error = f"it has more than {ALONE >> 20} MB, which only a host that reaches S3 can send"
            attempts[part["n"]] = ATTEMPTS
        weather = re.search(r"HTTP 5\d\d", error)  # S3 was reached
        if error.startswith(S3_REFUSES) and not weather and not any(one["objects"] for one in progress.export.parts):
            if self.options.transport == "s3" or progress.over != "s3":
                raise MigrationError(
                    f"the source's history cannot be put into {self.store.url}: {error}: use transport connection, or"
                    " let the host reach S3"
                )
            raise Unreachable(f"the source's host cannot put into {self.store.url} with presigned URLs ({error})")
        attempts[part["n"]] += 1
        if attempts[part["n"]] >= ATTEMPTS:
            self.given_up[part["n"]] = error
        return True

    def _not_whole(self, progress: Progress) -> MigrationError:
        parts = {part["n"]: part for part in progress.planned}
        causes: dict[str, list[str]] = {}
        for number, error in sorted(self.given_up.items()):
            cause = re.sub(rf"{PARTS}\S+ ", "", error)  # an object's name is of no use to anybody
            causes.setdefault(cause, []).append(_named(parts[number]))
        listed = "; ".join(f"{_some(names)}: {cause}" for cause, names in causes.items())
        return MigrationError(
            f"{len(self.given_up)} of {len(progress.planned)} parts of the history could not be read in {ATTEMPTS}"
            f" attempts ({listed}); the others are kept: mend the cause and run it again, it goes on with these"
        )


class Unreachable(MigrationError):
    """S3 does not take anything from the source's host."""


class Watch:
    """Says after each round how far it is."""

    def __init__(self, progress: Progress, show: Callable[[str], None], clock: Any):
        self._progress, self._show, self._clock = progress, show, clock
        self._begun, self._rows_before = clock.monotonic(), self._rows()
        self._bytes_before = self._bytes()

    def _rows(self) -> int:
        return sum(part["rows"] for part in self._progress.export.parts)

    def _bytes(self) -> int:
        """Of tables, as planned: what the time that is left is taken from."""
        return sum(part["size_planned"] for part in self._progress.export.parts)

    def say(self) -> None:
        progress, passed = self._progress, max(self._clock.monotonic() - self._begun, 0.001)
        parts, sent = progress.export.parts, sum(part["bytes"] for part in progress.export.parts)
        left = sum(part["bytes"] for part in progress.missing)
        speed = (self._bytes() - self._bytes_before) / passed
        rest = f", about {span(left / speed)} left" if left and speed else ""
        self._show(
            f"{len(parts)} of {len(progress.planned)} parts, {self._rows():,} rows"
            f" ({(self._rows() - self._rows_before) / passed:,.0f} rows/s), {sent / 1e6:,.1f} MB{rest}"
        )


def _named(part: dict[str, Any]) -> str:
    if part.get("orphans"):
        return f"{part['table']} without runs"
    if part.get("lo") is None:
        return str(part["table"])
    return f"{part['table']} {part['lo']} to {part['hi'] - 1}"


def _some(names: list[str]) -> str:
    return ", ".join(names[:10]) + (f" and {len(names) - 10} more" if len(names) > 10 else "")
