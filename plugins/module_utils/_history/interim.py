# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Run history into Airflow 3, which lets no task into its database: by way of an environment of 2.11, upgraded then.

PRIVATE to the collection: no promise is made to other collections.

What is due next is told by two things alone: the environment, and a document in each bundle that says which exports
were found equal in it, and that what the migration had left in its database is gone. So a run that was killed
anywhere goes on where it was.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ansible_collections.mwaa.migration.plugins.module_utils._bundle import Bundle, S3Store, check_path, open_store
from ansible_collections.mwaa.migration.plugins.module_utils._errors import MigrationError
from ansible_collections.mwaa.migration.plugins.module_utils._history import Ask, load, verify
from ansible_collections.mwaa.migration.plugins.module_utils._history.export import ENTRY
from ansible_collections.mwaa.migration.plugins.module_utils._history.record import FOLDER, Record
from ansible_collections.mwaa.migration.plugins.module_utils._history.target import ask_of, created_at
from ansible_collections.mwaa.migration.plugins.module_utils._lock import held_in
from ansible_collections.mwaa.migration.plugins.module_utils._mwaa import environment as mwaa
from ansible_collections.mwaa.migration.plugins.module_utils._mwaa import limits
from ansible_collections.mwaa.migration.plugins.module_utils._progress import progress
from ansible_collections.mwaa.migration.plugins.module_utils._state.agent import AgentLane
from ansible_collections.mwaa.migration.plugins.module_utils._versions import at_least, numbers

STAGES = ("make", "fill", "close", "upgrade", "done")
WAIT = 3 * 3600  # seconds: MWAA says that a change of the version takes up to 2 h
URL_SECONDS = 3600


@dataclass
class Closed:
    """What is known of one bundle's history in one environment: the document, or nothing yet.

    exports: ids of those that were found equal. created_at: the environment's, since another one may have its name.
    runs: {DAG id: runs that the environment had then}. unpaused: DAGs that were not paused before the import.
    dropped: whether ledger and staging tables are gone.
    """

    environment: str
    created_at: str = ""
    version: str = ""
    at: str = ""
    exports: Sequence[str] = ()
    parity: Mapping[str, Any] | None = None
    runs: Mapping[str, int] | None = None
    listed: Sequence[Mapping[str, str]] = ()
    unpaused: Sequence[str] = ()
    dropped: bool = False

    @staticmethod
    def path(environment: str) -> str:
        return f"{FOLDER}interim/{check_path(environment)}.json"

    @classmethod
    def read(cls, bundle: Bundle, environment: Mapping[str, Any]) -> Closed:
        """What the bundle says of this very environment."""
        document = bundle.read_document(cls.path(environment["Name"]), "remove it and run the history stage again")
        if document is None or document["created_at"] != created_at(environment):
            return cls(environment["Name"], created_at(environment))
        names = cls.__dataclass_fields__
        return cls(**{name: value for name, value in document.items() if name in names})

    def write(self, bundle: Bundle) -> None:
        bundle.write_document(
            self.path(self.environment), {name: getattr(self, name) for name in type(self).__annotations__}
        )

    def holds(self, record: Record) -> bool:
        """Whether every export of the record was found equal."""
        return {export.id for export in record.exports} <= set(self.exports)


@dataclass(frozen=True)
class Due:
    """What comes next. version: that the stage `environment` is to bring now. said: for people."""

    stage: str
    version: str
    said: str

    def as_result(self) -> dict[str, Any]:
        return {
            "due": self.stage,
            "airflow_version": self.version,
            "interim": self.stage != "done",
            "fill": self.stage in ("make", "fill"),
            "said": self.said,
        }


def due(name: str, target: str, environment: Mapping[str, Any] | None, known: Sequence[tuple[Record, Closed]]) -> Due:
    """known: each bundle's record with what is known of it in this environment. Raises MigrationError: no way."""
    if environment is None:
        return Due(
            "make",
            ENTRY,
            f"environment {name} is made with Airflow {ENTRY}, takes the history there, and becomes {target} then:"
            " Airflow 3 lets no task into its database",
        )
    version = str(environment["AirflowVersion"])
    held = bool(known) and all(closed.holds(record) for record, closed in known)  # in check mode nothing may be known
    if at_least(version, "3.0"):
        if not held and not any(closed.exports for _record, closed in known):
            raise MigrationError(
                f"environment {name} is of Airflow {version} already, which takes no history: migrate into a new"
                f" environment, bring it to {ENTRY} first (mwaa.migration.upgrade), or set migration_history: false"
            )
        late = "" if held else "; what was exported after that cannot be loaded any more"
        return Due("done", target, f"environment {name} has Airflow {version}, with its history{late}")
    entry = version if numbers(version)[:2] == numbers(ENTRY)[:2] and at_least(version, ENTRY) else ENTRY
    if not held:
        return Due(
            "fill", entry, f"environment {name} takes the history with Airflow {entry}, and becomes {target} then"
        )
    if not all(closed.dropped for _record, closed in known):
        return Due("close", entry, f"environment {name} has the history; what the migration left in it is taken away")
    return Due("upgrade", entry, f"environment {name} has the history, and becomes Airflow {target}")


# --- the module -------------------------------------------------------------------------------------------------------


def passage(ctx: Any) -> dict[str, Any]:
    """The body of mwaa_history_interim."""
    params = ctx.params
    name, target = params["name"], params["airflow_version"]
    if not at_least(target, "3.0"):
        return {"changed": False, **Due("done", target, f"Airflow {target} takes history as it is").as_result()}
    client = ctx.aws.client("mwaa")
    shown = mwaa.describe(client, name)
    if shown is not None and shown["Status"] == "DELETED":
        shown = None
    if shown is not None and shown["Status"] in limits.BUSY and shown["Status"] != "DELETING" and not ctx.check_mode:
        progress(f"environment {name} is {shown['Status']}: waiting for that first")
        shown = _settled(client, name, params["wait_timeout"] or WAIT)
    if shown is not None and shown["Status"] in ("DELETING", "UNAVAILABLE", "CREATE_FAILED"):
        raise MigrationError(mwaa.no_way(shown), environment=mwaa.brief(shown))
    records = _records(ctx)
    if records is None:
        said = "the source is an Airflow 3, whose history cannot be read: it stays there, and all else is carried"
        return {"changed": False, **Due("done", target, said).as_result()}
    known = [(record, Closed.read(record.bundle, shown)) for record in records] if shown else []
    stage = due(name, target, shown, known)
    if params["close"] and shown is not None and stage.stage in ("fill", "close") and not ctx.check_mode:
        with held_in([record.bundle.store for record in records], name) as take:
            take()
            result = _Close(ctx, shown, known).run()
        return {"changed": True, **due(name, target, shown, known).as_result(), **result}
    return {"changed": False, **stage.as_result()}


def _settled(client: Any, name: str, timeout: float) -> dict[str, Any] | None:
    """How the environment is when what is under way has ended, well or not."""
    try:
        return mwaa.finished(client, name, timeout)
    except MigrationError:
        found = mwaa.describe(client, name)
        if found is None or found["Status"] in limits.BUSY:
            raise
        return found


def _records(ctx: Any) -> list[Record] | None:
    """Of the bundles that have history. In check mode there may be no bundle yet. None: no source has any to read."""
    params, found, without, of_3 = ctx.params, [], [], 0
    for url in params["bundles"]:
        try:
            bundle = Bundle.open(open_store(url, ctx.aws), ctx.aws, params["kms_key_id"])
        except MigrationError as error:
            if not (ctx.check_mode and error.code == "NoBundle"):
                raise
            continue
        record = Record.open(bundle)
        if record is not None:
            found.append(record)
        elif at_least(str(bundle.source.get("airflow_version")), "3.0"):
            of_3 += 1
        else:
            without.append(url)
    if without and not ctx.check_mode:  # one alone would stay behind for good, too
        raise MigrationError(
            f"no history in {', '.join(without)}: run the stage export with migration_history: true first, or set it to"
            " false"
        )
    return found or (None if of_3 and not without else [])


class _Close:
    """Compare by digest, write down what was found, and take away what the migration left in the database."""

    def __init__(self, ctx: Any, shown: dict[str, Any], known: Sequence[tuple[Record, Closed]]):
        self.ctx, self.shown, self.known = ctx, shown, known
        self.name = shown["Name"]
        key = ctx.params["kms_key_id"] or known[0][0].bundle.key["kms_key_id"]
        self.ask = ask_of(AgentLane(ctx.aws, shown, key, history=True), ctx.params["wait_timeout"] or WAIT)

    def run(self) -> dict[str, Any]:
        parity: dict[str, dict[str, Any]] = {}
        for record, closed in self.known:
            if not closed.holds(record):
                self._verify(record, closed)
            for table, counts in (closed.parity or {}).items():
                together = parity.setdefault(table, dict.fromkeys(counts, 0))
                for what in counts:
                    together[what] += counts[what]
        unpaused = self.ask({"op": "pause_dags", "action": "show"})["unpaused"]
        kept = sorted({*unpaused, *(dag for _record, closed in self.known for dag in closed.unpaused)})
        for record, closed in self.known:
            closed.unpaused = kept
            closed.write(record.bundle)  # before the ledger goes, which has them until then
        self.ask({"op": "drop_history", "kept": kept})
        for record, closed in self.known:
            closed.dropped = True
            closed.write(record.bundle)
        return {"parity": parity, "unpaused": kept}

    def _verify(self, record: Record, closed: Closed) -> None:
        progress(f"environment {self.name}: comparing the history by digest")
        outcome = verified(record, self.ask, place_of(record, self.ctx.aws))
        if outcome.errors:
            first = [f"{where} ({what})" for where, what, _mend in outcome.errors[:3]]
            more = f"; and {len(outcome.errors) - 3} more" if len(outcome.errors) > 3 else ""
            raise MigrationError(
                f"environment {self.name} stays Airflow {self.shown['AirflowVersion']}, since its history does not"
                f" equal that of {record.bundle.store.url}: {'; '.join(first)}{more}; {outcome.errors[0][2]}",
                differences=outcome.differences,
                parity=outcome.parity,
            )
        closed.exports = [export.id for export in record.exports]
        closed.version = str(self.shown["AirflowVersion"])
        closed.at = datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
        closed.parity, closed.runs, closed.listed = outcome.parity, outcome.runs, outcome.listed
        closed.dropped = False


def place_of(record: Record, aws: Any) -> load.Place:
    """How the agent gets at pieces of this bundle."""
    if isinstance(record.bundle.store, S3Store):
        return load.presigned(record, aws, URL_SECONDS)
    return load.inline(record)


def verified(record: Record, ask: Ask, place: load.Place) -> verify.Outcome:
    """The record against an environment of Airflow 2 that has it."""
    columns = {export.id: export.columns for export in record.exports}
    said = ask({"op": "history_progress", "bundles": columns})
    sums: dict[str, dict[str, int]] = {}
    for one in said["bundles"].values():
        for table, entry in one["tables"].items():
            for what, count in entry.items():
                sums.setdefault(table, {})[what] = sums.get(table, {}).get(what, 0) + count
    for left in said["left_out"]:  # by foreign keys that came back
        sums.setdefault(left["table"], {}).setdefault("left_out", 0)
        sums[left["table"]]["left_out"] += left["rows"]
    return verify.compare(record, ask, place, {"tables": sums}, progress)


def known(record: Record, closed: Closed, environment: Mapping[str, Any]) -> verify.Outcome:
    """What was found of the history when the environment was still 2.11."""
    name, version = environment["Name"], environment["AirflowVersion"]
    if not closed.exports:
        return verify.Outcome(
            parity={table: {**counts, "target": 0, "equal": 0} for table, counts in verify.rows_of(record).items()},
            errors=[
                (
                    "history",
                    f"environment {name} is of Airflow {version}, which takes no history",
                    f"bring it to {ENTRY} (mwaa.migration.upgrade) and run again, or set history to false",
                )
            ],
        )
    outcome = verify.Outcome(
        parity={table: dict(counts) for table, counts in (closed.parity or {}).items()},
        listed=[dict(entry) for entry in closed.listed],
        runs=dict(closed.runs or {}),
    )
    for export in record.exports:
        if export.id not in closed.exports and export.parts:
            rows = sum(part["rows"] for part in export.parts)
            reason = (
                f"{rows:,} rows changed at the source after the environment became Airflow 3, which takes no history"
            )
            outcome.list("history", f"export of {export.at}", reason)
    return outcome
