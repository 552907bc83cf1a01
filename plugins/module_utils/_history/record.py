# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a bundle holds of run history: `history/manifest.json`, and the pieces that it names.

PRIVATE to the collection: no promise is made to other collections.

It is authenticated with the bundle's key, as the bundle's own manifest is, and stands apart from that: state is
exported again and again while history stays. An export is in it when it is complete, and not before.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field, fields
from fnmatch import fnmatchcase
from typing import Any

from ansible_collections.mwaa.migration.plugins.module_utils._bundle import Bundle, S3Store
from ansible_collections.mwaa.migration.plugins.module_utils._errors import MigrationError
from ansible_collections.mwaa.migration.plugins.module_utils._history.airflow_history import LISTED, OWN_DAGS, TABLES

FOLDER = "history/"
MANIFEST = FOLDER + "manifest.json"
PROGRESS = FOLDER + "progress.json"
PARTS = FOLDER + "parts/"
REMEDY = f"remove {FOLDER} there and export the history again"


@dataclass
class HistoryExport:
    """One export: full, or what changed since the one before it (after: its id).

    What is not said here is as the agent's plan has it. parts are its answers to export_history, in the plan's order,
    each with the snapshot that it was read in: those of one round look at one.
    mark: what the next plan takes as `after`; the last export of a record has it.
    source: where it is not the record's: the Airflow's database was made anew since, and has other rows under the same
    numbers.
    """

    id: str
    at: str  # ISO 8601, UTC: when it was planned
    airflow_version: str
    target_version: str
    dialect: str
    filters: dict[str, Any]  # dags, exclude, tables, since: as they were asked for
    after: str | None = None
    mark: Any = None
    source: str | None = None
    columns: dict[str, list[list[str]]] = field(default_factory=dict)
    scope: dict[str, Any] = field(default_factory=dict)
    sizes: dict[str, dict[str, int]] = field(default_factory=dict)
    open: list[dict[str, Any]] = field(default_factory=list)
    more_open: int = 0
    deferred: list[dict[str, Any]] = field(default_factory=list)
    losses: list[dict[str, Any]] = field(default_factory=list)
    deleted: dict[str, Any] = field(default_factory=lambda: {"tables": {}, "rows": {}, "more": 0})
    parts: list[dict[str, Any]] = field(default_factory=list)

    @classmethod
    def of(cls, document: dict[str, Any]) -> HistoryExport:
        known = {one.name for one in fields(cls)}
        return cls(**{name: value for name, value in document.items() if name in known})

    def as_document(self) -> dict[str, Any]:
        return {one.name: getattr(self, one.name) for one in fields(self)}

    def digests(self) -> dict[str, dict[str, list[Any]]]:
        """{table: {DAG id: [rows, hex]}} of all parts; the DAG id is "" in tables without, \\N for rows without."""
        found: dict[str, dict[str, list[Any]]] = {}
        for part in self.parts:
            table = found.setdefault(part["table"], {})
            for dag, (rows, digest) in part["digests"].items():
                count, total = table.get(dag, [0, "0"])
                table[dag] = [count + rows, f"{(int(total, 16) + int(digest, 16)) % 2**128:032x}"]
        return found

    def pieces(self) -> list[dict[str, Any]]:
        """Every file, those first that others refer to. size, sha256: of the gzip file that import_history takes."""
        return sorted(
            (
                {
                    "table": part["table"],
                    "phase": TABLES[part["table"]]["phase"],
                    "path": entry["path"],
                    "sha256": entry["sha256"],
                    "size": entry["size"],
                    "rows": entry["rows"],
                    "version_id": entry.get("version_id"),
                    "orphans": bool(part.get("orphans")),
                }
                for part in self.parts
                for entry in part["objects"]
            ),
            key=lambda piece: piece["phase"],
        )

    def dags(self) -> list[str]:
        """Ids of the DAGs that any line belongs to."""
        return sorted({dag for table in self.digests().values() for dag in table} - {"", "\\N"})

    @property
    def snapshots(self) -> int:
        return len({part["snapshot"]["at"] for part in self.parts})

    @property
    def halves(self) -> set[tuple[str, str]]:
        """Runs of which a target may have a part only."""
        return {(run["dag_id"], run["run_id"]) for run in self.open if run.get("half")}

    def name_halves(self, former: HistoryExport) -> None:
        """Note which runs went again while the former export read one round after the other: it has what of them the
        rounds before saw.
        """
        known = {(run["dag_id"], run["run_id"]) for run in former.open}
        for run in self.open:
            name = (run["dag_id"], run["run_id"])
            if run.get("again") and (name in former.halves or (former.snapshots > 1 and name not in known)):
                run["half"] = True

    def rows(self, table: str) -> int:
        return sum(part["rows"] for part in self.parts if part["table"] == table)

    def faults(self) -> list[dict[str, Any]]:
        """[{"table", "key", "what"}] of values that could not be carried as they were. Never the values."""
        return [fault for part in self.parts for fault in part.get("faults") or ()]

    def not_carried(self) -> list[dict[str, str]]:
        """[{"kind", "id", "reason"}] of everything that stays behind, as all stages list it."""
        listed = []
        for run in self.open:
            tasks = ", ".join(f"{count} {state}" for state, count in sorted(run.get("tasks", {}).items()))
            reason = f"it is {run['state'] or 'without a state'}" + (
                f" with tasks in flight ({tasks})" if tasks else ""
            )
            if run.get("half"):
                reason += (
                    " again, since it was cleared while it was exported: the target may have a part of it alone, until"
                    " it has ended and another export and import bring it whole"
                )
            elif run.get("again"):
                reason += " again: the target keeps what it has"
            listed.append(
                ("run", f"{run['dag_id']} {run['run_id']}", f"{reason}; runs are carried when they have ended")
            )
        if self.more_open:
            listed.append(("run", "others", f"{self.more_open} more that had not ended"))
        tools = [one for one in OWN_DAGS if not one.startswith("mwaa_agent")]
        for dag in self.scope.get("not") or ():
            if _matches(dag, tools) and not _matches(dag, self.filters["exclude"]):
                listed.append(("history", f"DAG {dag}", "it has the name of a migration tool's own DAG"))
        for instance in self.deferred:
            reason = "deferred: it is carried without the trigger that it waits for"
            listed.append(("task_instance", " ".join(str(part) for part in instance.values()), reason))
        for loss in self.losses:
            listed.append(("history", ".".join(filter(None, (loss["table"], loss["column"]))), loss["why"]))
        faults = self.faults()
        for fault in faults[:LISTED]:
            key = " ".join(str(part) for part in fault["key"].values())
            listed.append(("history", f"{fault['table']} {key}", fault["what"]))
        more = len(faults[LISTED:]) + sum(part.get("more_faults") or 0 for part in self.parts)
        if more:
            listed.append(("history", "others", f"{more} more values that could not be carried as they were"))
        for table, rows in sorted(self.deleted["rows"].items()):
            reason = f"{rows} rows that an earlier export carried are gone at the source: deletions are not carried"
            listed.append(("history", f"{table} (deleted)", reason))
        return [{"kind": kind, "id": identifier, "reason": reason} for kind, identifier, reason in listed]


class Record:
    """A bundle's history. source: names the Airflow for import_history, the same for all exports of its database."""

    def __init__(self, bundle: Bundle, source: str, exports: Iterable[HistoryExport] = ()):
        self.bundle, self.source, self.exports = bundle, source, list(exports)

    @classmethod
    def open(cls, bundle: Bundle) -> Record | None:
        """None where the bundle has no history; MigrationError where it was altered."""
        document = bundle.read_document(MANIFEST, REMEDY)
        if document is None:
            return None
        return cls(bundle, document["source"], [HistoryExport.of(one) for one in document["exports"]])

    def add(self, export: HistoryExport) -> None:
        """One more, complete. What is of use to the next plan alone may be megabytes, and is kept of this one only."""
        for former in self.exports:
            former.mark = None
        export.scope = {name: value for name, value in export.scope.items() if name not in ("runs", "after")}
        self.exports.append(export)

    def source_of(self, export: HistoryExport) -> str:
        return export.source or self.source

    def save(self) -> None:
        """Write it, in one step: from then on what it names counts."""
        exports = [one.as_document() for one in self.exports]
        self.bundle.write_document(MANIFEST, {"source": self.source, "exports": exports})

    def read(self, piece: dict[str, Any]) -> bytes:
        """A piece's gzip file; MigrationError where it is missing or not what was exported."""
        path = piece["path"]
        try:
            body = self.bundle.store.read(path, piece.get("version_id"))
        except MigrationError as error:
            if error.code == "NotFound":
                raise MigrationError(
                    f"{self.bundle.store.url}/{path} is missing although the history's manifest names it: {REMEDY}"
                ) from None
            raise
        if is_sealed(self.bundle):
            body = self.bundle.unseal(body, path)
        if len(body) != piece["size"] or hashlib.sha256(body).hexdigest() != piece["sha256"]:
            raise MigrationError(f"{self.bundle.store.url}/{path} does not match the history's manifest: {REMEDY}")
        return body


def _matches(dag: str, patterns: Iterable[str]) -> bool:
    return any(fnmatchcase(dag, pattern) for pattern in patterns)


def is_sealed(bundle: Bundle) -> bool:
    """Whether pieces are sealed with the bundle's key. A bucket encrypts what it keeps, a folder does not."""
    return not isinstance(bundle.store, S3Store)


def source_name(identity: dict[str, Any], life: str | None = None) -> str:
    """The text that names an Airflow to import_history. identity: as the agent's `inspect` gives it. life: what a plan
    says of its database's.
    """
    parts = [identity["database"], identity.get("airflow_home") or ""]
    if identity["database"].startswith("sqlite"):  # a path: it is said on every host
        parts.append(identity["hostname"])
    if life:
        parts.append(life)
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]
