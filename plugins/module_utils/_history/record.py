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
from typing import Any

from ansible_collections.mwaa.migration.plugins.module_utils._bundle import Bundle, S3Store
from ansible_collections.mwaa.migration.plugins.module_utils._errors import MigrationError
from ansible_collections.mwaa.migration.plugins.module_utils._history.airflow_history import TABLES

FOLDER = "history/"
MANIFEST = FOLDER + "manifest.json"
PARTS = FOLDER + "parts/"
REMEDY = f"remove {FOLDER} there and export the history again"


@dataclass
class HistoryExport:
    """One export: full (after is None), or what changed since another one.

    Everything but the first six is as the agent's plan has it; parts are its answers to export_history, in the
    plan's order.
    """

    id: str
    at: str  # ISO 8601, UTC: when it was planned
    airflow_version: str
    target_version: str
    dialect: str
    filters: dict[str, Any]  # dags, exclude, tables, since: as they were asked for
    after: Any = None
    mark: Any = None
    columns: dict[str, list[list[str]]] = field(default_factory=dict)
    scope: dict[str, Any] = field(default_factory=dict)
    sizes: dict[str, dict[str, int]] = field(default_factory=dict)
    open: list[dict[str, Any]] = field(default_factory=list)
    more_open: int = 0
    deferred: list[dict[str, Any]] = field(default_factory=list)
    losses: list[dict[str, Any]] = field(default_factory=list)
    deleted: Any = field(default_factory=list)
    snapshots: list[dict[str, Any]] = field(default_factory=list)  # those that parts were read in
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

    def rows(self, table: str) -> int:
        return sum(part["rows"] for part in self.parts if part["table"] == table)

    def faults(self) -> list[dict[str, Any]]:
        """[{"table", "key", "what"}] of values that could not be carried as they were. Never the values."""
        return [fault for part in self.parts for fault in part.get("faults") or ()]


class Record:
    """A bundle's history. source: names the Airflow for import_history, the same for all exports of it."""

    def __init__(self, bundle: Bundle, source: str, exports: Iterable[HistoryExport] = ()):
        self.bundle, self.source, self.exports = bundle, source, list(exports)

    @classmethod
    def open(cls, bundle: Bundle) -> Record | None:
        """None where the bundle has no history; MigrationError where it was altered."""
        document = bundle.read_document(MANIFEST, REMEDY)
        if document is None:
            return None
        return cls(bundle, document["source"], [HistoryExport.of(one) for one in document["exports"]])

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


def is_sealed(bundle: Bundle) -> bool:
    """Whether pieces are sealed with the bundle's key. A bucket encrypts what it keeps, a folder does not."""
    return not isinstance(bundle.store, S3Store)


def source_name(identity: dict[str, Any]) -> str:
    """The text that names an Airflow to import_history. identity: as the agent's `inspect` gives it."""
    parts = [identity["database"], identity.get("airflow_home") or ""]
    if identity["database"].startswith("sqlite"):  # a path: it is said on every host
        parts.append(identity["hostname"])
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]
