# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A bundle's history into an Airflow: which pieces the agent is asked to bring, in which rounds, until all are there.

PRIVATE to the collection: no promise is made to other collections.

What was done is in the agent's ledger, beside the rows themselves. It is asked first, so that whatever was killed goes
on from there, and what is there already costs one question.
"""

from __future__ import annotations

import base64
import contextlib
from collections.abc import Callable, Container
from dataclasses import dataclass, field
from typing import Any, cast

from ansible_collections.mwaa.migration.plugins.module_utils._bundle import S3Store, url_signer
from ansible_collections.mwaa.migration.plugins.module_utils._errors import Faults, MigrationError, aws_errors
from ansible_collections.mwaa.migration.plugins.module_utils._history import Ask
from ansible_collections.mwaa.migration.plugins.module_utils._history.record import HistoryExport, Record
from ansible_collections.mwaa.migration.plugins.module_utils._progress import progress

PIECES = 500  # of one request, which has a URL for each
INLINE = 16 << 20  # bytes of pieces in a request, where no URL leads to them
# codes of a run that ended without an answer: its worker died, or its answer did not get through, or Airflow started
# the dead task again, which the agent does not serve a second time
LOST = ("lost", "unanswered", "replayed")
REFUSED = "history"  # the code of the agent's own sentences about history
TRIES = 3  # of a request whose run was lost, and of rounds that bring nothing
SUMS = ("pieces", "rows", "inserted", "updated", "kept", "left_out", "mended")

Place = Callable[["dict[str, Any]"], "dict[str, Any]"]
"""A piece of the record as a request names it: with a URL to read it from, or with its content."""


@dataclass(frozen=True)
class Options:
    """How it is done. seconds: of one request, after which the agent begins no further piece. resume: at the end, what
    was paused for the import.
    """

    on_conflict: str = "newer"
    rebuild_indexes: bool = False
    beside: bool = False
    resume: bool = True
    workers: int = 2
    seconds: float = 600.0


@dataclass
class _Part:
    """One export, and what of it is not there yet."""

    export: HistoryExport
    pieces: list[dict[str, Any]]
    done: set[tuple[str, str]] = field(default_factory=set)
    said: dict[str, Any] = field(default_factory=dict)  # the ledger's sums

    @property
    def left(self) -> list[dict[str, Any]]:
        return [piece for piece in self.pieces if (piece["table"], piece["sha256"]) not in self.done]


def presigned(record: Record, aws: Any, seconds: int) -> Place:
    """Place for pieces in S3, the versions that were exported. seconds: how long the URLs are good for."""
    store = cast(S3Store, record.bundle.store)
    signer = url_signer(aws)

    def place(piece: dict[str, Any]) -> dict[str, Any]:
        where = {"Bucket": store.bucket, "Key": store.key(piece["path"])}
        if piece.get("version_id"):
            where["VersionId"] = piece["version_id"]
        with aws_errors(f"sign a download from {store.url}"):
            return {"url": signer.generate_presigned_url("get_object", Params=where, ExpiresIn=seconds)}

    return place


def inline(record: Record) -> Place:
    """Place for pieces in a folder: they travel inside the request."""
    return lambda piece: {"data": base64.b64encode(record.read(piece)).decode()}


class Load:
    """record: what is to be there. ask: the agent of the target. place: how it gets at a piece.

    before_writing: called before each request that writes; raises where this run may not, or not any more.
    """

    def __init__(
        self,
        record: Record,
        ask: Ask,
        place: Place,
        options: Options | None = None,
        before_writing: Callable[[], None] = lambda: None,
    ):
        self.record, self._ask_once, self.place = record, ask, place
        self.options = options or Options()
        self.before_writing = before_writing
        self.parts = [_Part(export, export.pieces()) for export in record.exports]
        self.left_out: list[dict[str, Any]] = []  # by foreign keys that came back
        self.brought = 0
        self.built: list[str] = []
        self.resumed: list[str] = []
        self.notes: list[str] = []

    def run(self) -> dict[str, Any]:
        """Bring what is missing. MigrationError with the agent's sentence."""
        looked = self.look()
        paused = self.options.resume and looked["unpaused"]
        if not (any(part.left for part in self.parts) or looked["indexes"] or paused):
            return self.result(changed=False)
        try:
            for number, part in enumerate(self.parts):
                self._bring(part, f"export {number + 1} of {len(self.parts)}" if len(self.parts) > 1 else "history")
            waiting = self._finish()
        except MigrationError as error:
            raise self._interrupted(error) from error
        if waiting:
            raise MigrationError(
                f"the history is there, but {len(waiting)} DAGs that were paused for it stay so, as Airflow has not"
                f" read their files since and would run again what has run: {', '.join(waiting[:20])}; run again when"
                " it has, or look at the log group of its DAG processing",
                **self.result(changed=True),
            )
        return self.result(changed=True)

    def _interrupted(self, error: MigrationError) -> MigrationError:
        """The same, with what is there by now. Where that is nothing, all is put back as it was."""
        if error.code == REFUSED:  # with an answer: nothing of it goes on
            with contextlib.suppress(MigrationError):
                before = sum(len(part.done) for part in self.parts)
                self.look()
                self.brought += sum(len(part.done) for part in self.parts) - before
        there = any(part.done for part in self.parts)
        if error.code == REFUSED and not there:
            with contextlib.suppress(MigrationError):
                if not self._finish():
                    return error
        kept = "what was brought stays, " if there else ""
        text = f"{error.message}; {kept}DAGs that were paused for it stay so: run again to finish"
        return MigrationError(text, code=error.code, **{**self.result(changed=self.brought > 0), **error.details})

    def foretell(self, finished: Container[str]) -> dict[str, Any]:
        """What run() would bring, as far as it is known without asking. finished: ids of exports that were brought."""
        for part in self.parts:
            if part.export.id in finished:
                part.done = {(piece["table"], piece["sha256"]) for piece in part.pieces}
        return self.result(changed=any(part.left for part in self.parts))

    # -- looking

    def look(self) -> dict[str, Any]:
        """What the target says before anything is written; refuses what it cannot take."""
        bundles = {part.export.id: part.export.columns for part in self.parts}
        looked = self.ask({"op": "history_progress", "bundles": bundles})
        faults = Faults("the history cannot enter this environment as it is, nothing was done")
        for one in looked["lacking"]:
            column = f"column {one['table']}.{one['column']}" if one["column"] else f"table {one['table']}"
            faults.add(f"the target's Airflow {looked.get('airflow_version', '')} has no {column}")
        if faults.found:
            versions = ", ".join(sorted({part.export.target_version for part in self.parts}))
            faults.add(f"it was exported for Airflow {versions}: export it again with the environment's version")
        sources = {self.record.source_of(part.export) for part in self.parts}
        if sources - {*looked["sources"]} and len(sources.union(looked["sources"])) > 1 and not self.options.beside:
            there = (
                "the environment has history of another source already"
                if looked["sources"]
                else "the history is of two databases, as the source's was made anew between its exports"
            )
            faults.add(f"{there}: set beside (the role's history_beside) to have both")
        faults.raise_if_any()
        self.left_out = looked["left_out"]
        for part in self.parts:
            said = looked["bundles"].get(part.export.id) or {}
            part.said = said
            part.done = {
                (table, sha256) for table, _colon, sha256 in (name.partition(":") for name in said.get("done", ()))
            }
        return looked

    def ask(self, request: dict[str, Any]) -> dict[str, Any]:
        """Every request may be repeated: the ledger knows what the lost run did."""
        for attempt in range(TRIES):
            try:
                return self._ask_once(request)
            except MigrationError as error:
                if error.code not in LOST or attempt == TRIES - 1:
                    raise
                progress(f"{error.message}: asking again, what it did is not done twice")
        raise AssertionError

    # -- bringing

    def _bring(self, part: _Part, what: str) -> None:
        """All pieces of an export, parents first: a request takes them in the order of their phases."""
        idle = 0
        while part.left:
            pieces = self._round(part)
            self.before_writing()
            answer = self.ask(self._request(part, pieces))
            done = {(piece["table"], piece["sha256"]) for piece in pieces} & self._done(pieces, answer)
            part.said, part.done = answer, part.done | done
            self.brought += len(done)
            idle = 0 if done else idle + 1
            if idle == TRIES:
                raise MigrationError(
                    f"the agent brings no piece of the history within {self.options.seconds:.0f} s,"
                    f" {len(part.left)} are left: raise wait_timeout"
                )
            if part.left:
                progress(f"{what}: {len(part.done):,} of {len(part.pieces):,} pieces are there")

    def _round(self, part: _Part) -> list[dict[str, Any]]:
        left = part.left
        if self.options.on_conflict == "fail":  # everything is looked at before anything is written
            return left
        chosen, size = left[:1], left[0]["size"]
        for piece in left[1:PIECES]:
            size += piece["size"]
            if not isinstance(self.record.bundle.store, S3Store) and size > INLINE:
                break
            chosen.append(piece)
        return chosen

    def _request(self, part: _Part, pieces: list[dict[str, Any]]) -> dict[str, Any]:
        sent = [
            {
                **{name: piece[name] for name in ("table", "sha256", "size", "rows", "path")},
                **({"orphans": True} if piece.get("orphans") else {}),
                **self.place(piece),
            }
            for piece in pieces
        ]
        finished = [piece for piece in part.pieces if piece not in part.left]
        return {
            "op": "import_history",
            "bundle": part.export.id,
            "source": self.record.source_of(part.export),
            "policy": self.options.on_conflict,
            "columns": part.export.columns,
            "dags": part.export.dags(),
            "pieces": sent,
            "workers": self.options.workers,
            "seconds": self.options.seconds,
            "rebuild_indexes": self.options.rebuild_indexes,
            "beside": self.options.beside,
            "counted": {"before": _counts(finished), "of": _counts(part.pieces)},
        }

    @staticmethod
    def _done(pieces: list[dict[str, Any]], answer: dict[str, Any]) -> set[tuple[str, str]]:
        done = set(answer["done"])
        return {(piece["table"], piece["sha256"]) for piece in pieces if piece["sha256"] in done}

    def _finish(self) -> list[str]:
        """The DAGs that had to stay paused."""
        tables = sorted({piece["table"] for part in self.parts for piece in part.pieces})
        self.before_writing()
        finished = self.ask({"op": "finish_history", "tables": tables, "workers": self.options.workers})
        self.built, self.left_out = finished["built"], finished["left_out"]
        if not self.options.resume:
            return []
        mine = [part.export.id for part in self.parts]
        answer = self.ask({"op": "pause_dags", "action": "resume", "bundles": mine, "seconds": self.options.seconds})
        if answer["importing"]:
            self.notes.append(
                "DAGs stay paused, since another import is under way in the environment, which resumes them when it"
                " ends; where it was killed, run it again"
            )
        self.resumed = answer["changed"]
        return answer["waiting"]

    # -- saying

    def result(self, changed: bool) -> dict[str, Any]:
        tables: dict[str, dict[str, int]] = {}
        for part in self.parts:
            for piece in part.pieces:
                row = tables.setdefault(piece["table"], {"source": 0, **dict.fromkeys(SUMS, 0)})
                row["source"] += piece["rows"]
            for table, sums in (part.said.get("tables") or {}).items():
                for name in SUMS:
                    tables[table][name] += sums.get(name, 0)
        exports = [
            {
                "id": part.export.id,
                "at": part.export.at,
                "delta": part.export.after is not None,
                "pieces": len(part.pieces),
                "pieces_left": len(part.left),
                "rows": sum(piece["rows"] for piece in part.pieces),
                "rows_left": sum(piece["rows"] for piece in part.left),
            }
            for part in self.parts
        ]
        return {
            "changed": changed,
            "tables": tables,
            "exports": exports,
            "brought": self.brought,
            "resumed": self.resumed,
            "not_carried": self._not_carried(),
        }

    def _not_carried(self) -> list[dict[str, str]]:
        """As the other modules list it: kind, id, reason."""
        found = []
        for part in self.parts:
            for one in part.said.get("listed") or ():
                found.append(_entry(one["table"], " ".join(map(str, one["key"].values())), one["why"]))
            if part.said.get("more"):
                found.append(_entry("history", part.export.id, f"{part.said['more']} more rows are not named here"))
        for one in self.left_out:
            found.append(_entry(one["table"], f"{one['rows']} rows", one["why"]))
        return found


def _entry(kind: str, identifier: str, reason: str) -> dict[str, str]:
    return {"kind": kind, "id": identifier, "reason": reason}


def _counts(pieces: list[dict[str, Any]]) -> dict[str, int]:
    return {"pieces": len(pieces), "rows": sum(piece["rows"] for piece in pieces)}
