# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Run history in an Airflow 3, where no task reaches the database: totals of runs by DAG and a sample, over REST.

PRIVATE to the collection: no promise is made to other collections.

Before the environment became Airflow 3 its history was compared by digest, row by row (interim.py). This is the proof
that the upgrade has kept it: each DAG's oldest runs, newest ones and some in between, with their task instances.
"""

from __future__ import annotations

import datetime
import hashlib
import heapq
import json
import re
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.mwaa.migration.plugins.module_utils._errors import MigrationError
from ansible_collections.mwaa.migration.plugins.module_utils._history.airflow_history import NULL, unescaped
from ansible_collections.mwaa.migration.plugins.module_utils._history.record import HistoryExport, Record
from ansible_collections.mwaa.migration.plugins.module_utils._history.verify import Outcome, chain
from ansible_collections.mwaa.migration.plugins.module_utils._mwaa.rest import RestClient

SAMPLE = 300  # runs of all DAGs together, in about
OF_A_DAG = (2, 8)  # at least its oldest and its newest, at most so many
PAGE = 100
INSTANCES = 1000  # of one DAG's sampled runs, at most: runs that have more together are listed
NAMED = 5
RUN = (
    "state",
    "run_type",
    "logical_date",
    "start_date",
    "end_date",
    "data_interval_start",
    "data_interval_end",
    "conf",
)
TASK = ("state", "start_date", "end_date", "try_number")
# what Airflow 3 calls differently
RUN_TYPES = {"dataset_triggered": "asset_triggered", "backfill": "backfill"}


@dataclass
class Sampled:
    """A run of the record as REST ought to show it. number: its id at the source, None where it had none."""

    dag: str
    run_id: str
    number: int | None
    shown: dict[str, Any]
    tasks: dict[tuple[str, int], dict[str, Any]] = field(default_factory=dict)


@dataclass
class _Seen:
    """One DAG's runs while the pieces are read: how many, and those that stay in the sample."""

    count: int = 0
    first: tuple[datetime.datetime, Sampled] | None = None
    last: tuple[datetime.datetime, Sampled] | None = None
    some: list[tuple[int, str, Sampled]] = field(default_factory=list)  # a heap: those with the lowest hashes stay

    def take(self, run: Sampled, room: int) -> None:
        self.count += 1
        when = run.shown["logical_date"] or datetime.datetime.min.replace(tzinfo=datetime.timezone.utc)
        if self.first is None or when < self.first[0]:
            self.first = (when, run)
        if self.last is None or when >= self.last[0]:
            self.last = (when, run)
        if room > 0:
            order = -int.from_bytes(hashlib.sha256(run.run_id.encode()).digest()[:8], "big")
            heapq.heappush(self.some, (order, run.run_id, run))
            if len(self.some) > room:
                heapq.heappop(self.some)

    def runs(self) -> list[Sampled]:
        ends = [end[1] for end in (self.first, self.last) if end]
        return list({run.run_id: run for run in [*ends, *(one[-1] for one in self.some)]}.values())


def sample(record: Record) -> tuple[dict[str, int], list[Sampled]]:
    """({DAG id: runs of the record}, the sample with its task instances). It is the same each time."""
    exports = chain(record)
    seen: dict[str, _Seen] = {}
    dags = {dag for export in exports for dag in export.digests().get("dag_run", {})}
    room = min(max(SAMPLE // max(len(dags), 1), OF_A_DAG[0]), OF_A_DAG[1]) - 2
    later: set[bytes] = set()  # runs of exports after the present one
    for export in reversed(exports):
        names = [name for name, _kind in export.columns.get("dag_run", [])]
        now = set()
        for fields in _rows(record, export, "dag_run"):
            row = dict(zip(names, fields))
            name = hashlib.sha256(f"{row['dag_id']}\0{row['run_id']}".encode()).digest()[:12]
            now.add(name)
            if name not in later:
                seen.setdefault(str(row["dag_id"]), _Seen()).take(_run(row), room)
        later |= now if len(exports) > 1 else set()
    chosen = [run for dag in sorted(seen) for run in seen[dag].runs()]
    _add_tasks(record, exports, chosen)
    return {dag: one.count for dag, one in seen.items()}, chosen


def _run(row: Mapping[str, str | None]) -> Sampled:
    shown: dict[str, Any] = {name: _when(row.get(name)) for name in RUN if name.endswith(("_date", "_start", "_end"))}
    shown["logical_date"] = _when(row.get("execution_date"))
    shown["state"] = row.get("state")
    shown["run_type"] = RUN_TYPES.get(str(row.get("run_type")), row.get("run_type"))
    shown["conf"] = _has_conf(json.loads(row.get("conf") or "null"))
    number = row.get("id")
    return Sampled(str(row["dag_id"]), str(row["run_id"]), -int(number) if number else None, shown)


def _add_tasks(record: Record, exports: list[HistoryExport], chosen: list[Sampled]) -> None:
    wanted = {(run.dag, run.run_id): run for run in chosen}
    numbers = sorted(run.number for run in chosen if run.number is not None)
    whole = any(run.number is None for run in chosen)
    for export in exports:
        names = [name for name, _kind in export.columns.get("task_instance", [])]
        fresh: set[tuple[str, str]] = set()

        def near(part: Mapping[str, Any], full: bool = export.after is None) -> bool:
            lo, hi = part.get("lo"), part.get("hi")
            if whole or not full or not isinstance(lo, int) or not isinstance(hi, int):
                return True
            return any(lo <= number < hi for number in numbers)

        for fields in _rows(record, export, "task_instance", near):
            row = dict(zip(names, fields))
            key = (str(row["dag_id"]), str(row["run_id"]))
            if key not in wanted:
                continue
            if key not in fresh:  # a later export has the run whole
                fresh.add(key)
                wanted[key].tasks = {}
            wanted[key].tasks[str(row["task_id"]), int(row.get("map_index") or -1)] = {
                "state": row["state"],
                "start_date": _when(row["start_date"]),
                "end_date": _when(row["end_date"]),
                "try_number": int(row["try_number"]) if row.get("try_number") else None,
            }


def _rows(
    record: Record, export: HistoryExport, table: str, near: Callable[[Mapping[str, Any]], bool] = lambda part: True
) -> Iterator[list[str | None]]:
    """The rows of an export's pieces, in the order of its columns."""
    paths = {
        entry["path"] for part in export.parts if part["table"] == table and near(part) for entry in part["objects"]
    }
    for piece in export.pieces():
        if piece["table"] == table and piece["path"] in paths:
            text = zlib.decompress(record.read(piece), 31)
            for line in text.split(b"\n")[:-1]:
                yield [unescaped(field.decode("utf-8", "surrogatepass")) for field in line.split(b"\t")]


def compare(
    rest: RestClient,
    totals: Mapping[str, int],
    chosen: Iterable[Sampled],
    known: Iterable[str],
    version: str,
    say: Callable[[str], None] = lambda text: None,
) -> Outcome:
    """What REST shows of the runs. totals: how many of each DAG the environment has to have. known: its DAGs' ids.

    Only errors, warnings and listed of the outcome are filled. Of DAGs that the environment does not know, REST shows
    nothing.
    """
    outcome, known = Outcome(), set(known)
    by_dag: dict[str, list[Sampled]] = {}
    for run in chosen:
        by_dag.setdefault(run.dag, []).append(run)
    for number, dag in enumerate(sorted(totals)):
        if number % 20 == 0:
            say(f"runs over REST: {number} of {len(totals)} DAGs")
        there = _total(rest, dag)
        if there == 0 and totals[dag] and dag not in known:
            outcome.list(
                "history",
                f"runs of DAG {dag}",
                f"the environment has no such DAG, so its REST API does not show its {totals[dag]:,} runs; by digest"
                " they were equal before the upgrade",
            )
            continue
        where = f"history: dag_run of DAG {dag}"
        if there < totals[dag]:
            lost = f"{there:,} runs over REST where {totals[dag]:,} were before the upgrade to {version}"
            outcome.errors.append((where, lost, MEND))
        missing, wrong = _look(rest, dag, by_dag.get(dag, []), outcome)
        spare = totals[dag] - len(by_dag.get(dag, [])) if there < totals[dag] else 0
        if missing and not spare:
            outcome.errors.append((where, f"not over REST: {_some(missing)}", MEND))
        if wrong:
            outcome.errors.append((where, f"otherwise over REST: {_some(wrong)}", MEND))
    return outcome


MEND = (
    "look at it in the environment; it was equal before the upgrade, and a downgrade to 2.11"
    " (mwaa_environment_upgrade) leads back"
)


def _look(rest: RestClient, dag: str, runs: list[Sampled], outcome: Outcome) -> tuple[list[str], list[str]]:
    """(run ids that are missing, 'run id: fields' that differ) of one DAG's sample."""
    missing, wrong = [], []
    for run in runs:
        date = run.shown["logical_date"].isoformat() if run.shown["logical_date"] else None
        bounds = {"logical_date_gte": date, "logical_date_lte": date} if date else {}
        rows = _listed(rest, "/dags/~/dagRuns/list", "dag_runs", {"dag_ids": [dag], **bounds}, PAGE)
        row = next((row for row in rows if row.get("dag_run_id") == run.run_id), None)
        if row is None:
            missing.append(run.run_id)
            continue
        there = {name: row.get(name) for name in RUN}
        there.update({name: _when(row.get(name)) for name in RUN if name.endswith(("_date", "_start", "_end"))})
        there["conf"] = _has_conf(row.get("conf"))
        fields = [name for name in RUN if there[name] != run.shown[name]]
        if fields:
            wrong.append(f"{run.run_id}: {', '.join(fields)}")
    fitting: list[Sampled] = []
    beyond: list[Sampled] = []
    held = 0
    for run in runs:
        if run.run_id in missing:
            continue
        fits = held + len(run.tasks) <= INSTANCES
        (fitting if fits else beyond).append(run)
        held += len(run.tasks) if fits else 0
    if fitting:
        wrong += _look_at_tasks(rest, dag, fitting, outcome)
    if beyond:
        count = sum(len(run.tasks) for run in beyond)
        outcome.list(
            "history",
            f"task_instance of DAG {dag}",
            f"of {_runs(len(beyond))} of the sample the {count:,} task instances were not compared over REST, which"
            f" reads {INSTANCES:,} of a DAG: {_some([run.run_id for run in beyond])}; by digest they were equal before"
            " the upgrade",
        )
    return missing, wrong


def _look_at_tasks(rest: RestClient, dag: str, runs: list[Sampled], outcome: Outcome) -> list[str]:
    asked = {"dag_ids": [dag], "dag_run_ids": [run.run_id for run in runs]}
    try:
        rows = _listed(rest, "/dags/~/dagRuns/~/taskInstances/list", "task_instances", asked, INSTANCES + PAGE)
    except MigrationError as error:
        outcome.warnings.append(
            (
                f"history: task_instance of DAG {dag}",
                f"its sample could not be read: {error.message}",
                "look at it there",
            )
        )
        return []
    there: dict[str, dict[tuple[str, int], dict[str, Any]]] = {}
    for row in rows:
        shown = {"state": row.get("state"), "try_number": row.get("try_number")}
        shown.update({name: _when(row.get(name)) for name in ("start_date", "end_date")})
        there.setdefault(str(row.get("dag_run_id")), {})[str(row["task_id"]), int(row.get("map_index", -1))] = shown
    wrong = []
    for run in runs:
        found = there.get(run.run_id, {})
        for key in sorted({*run.tasks, *found}):
            task = key[0] if key[1] < 0 else f"{key[0]}[{key[1]}]"
            if key not in found:
                wrong.append(f"{run.run_id} {task}: missing")
            elif key not in run.tasks:
                wrong.append(f"{run.run_id} {task}: new")
            else:
                fields = [name for name in TASK if found[key][name] != run.tasks[key][name]]
                wrong += [f"{run.run_id} {task}: {', '.join(fields)}"] if fields else []
    return wrong


def _total(rest: RestClient, dag: str) -> int:
    asked = {"dag_ids": [dag], "page_limit": 1}
    return int(rest.call("POST", "/dags/~/dagRuns/list", body=asked, reads=True).body["total_entries"])


def _listed(rest: RestClient, path: str, key: str, asked: dict[str, Any], limit: int) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    while len(rows) < limit:
        page = {**asked, "page_limit": PAGE, "page_offset": len(rows)}
        body = rest.call("POST", path, body=page, reads=True).body
        rows += body.get(key) or []
        if not body.get(key) or len(rows) >= int(body.get("total_entries") or 0):
            break
    return rows


def _runs(count: int) -> str:
    return f"{count:,} run{'' if count == 1 else 's'}"


def _has_conf(conf: Any) -> bool:
    return bool(conf)


def _some(names: list[str]) -> str:
    more = f" and {len(names) - NAMED:,} more" if len(names) > NAMED else ""
    return "; ".join(names[:NAMED]) + more


_TIME = re.compile(r"(\d{4,})-(\d\d)-(\d\d)[ T](\d\d):(\d\d):(\d\d)(?:\.(\d{1,6})\d*)?(Z|[+-]\d\d(?::?\d\d)?)?\Z")


def _when(text: Any) -> datetime.datetime | None:
    """A time as a line or REST spells it."""
    match = _TIME.match(str(text)) if text not in (None, NULL) else None
    if match is None:
        return None
    year, month, day, hour, minute, second = (int(part) for part in match.groups()[:6])
    zone = match[8] or "Z"
    offset = datetime.timedelta()
    if zone != "Z":
        offset = datetime.timedelta(hours=int(zone[1:3]), minutes=int(zone[-2:]) if len(zone) > 3 else 0)
        offset = -offset if zone[0] == "-" else offset
    microsecond = int((match[7] or "").ljust(6, "0") or 0)
    at = datetime.datetime(year, month, day, hour, minute, second, microsecond, datetime.timezone.utc)
    return at - offset
