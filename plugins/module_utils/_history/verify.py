# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Is the run history of a bundle in an environment, equal or listed?

PRIVATE to the collection: no promise is made to other collections.

Both sides are digests by table and DAG: the export's, and those that the agent computes of what the environment has.
Where they differ, the agent names the rows by key. What it says of them is judged here; values never leave either side.
No URL leads to the pieces of a folder: what several exports come to is read here then, and of a piece only what is
asked about travels, in requests of bounded size.
"""

from __future__ import annotations

import base64
import functools
import gzip
import zlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.mwaa.migration.plugins.module_utils._history import (
    Ask,
    airflow_history,
    airflow_history_import,
)
from ansible_collections.mwaa.migration.plugins.module_utils._history.airflow_history import TABLES
from ansible_collections.mwaa.migration.plugins.module_utils._history.load import INLINE, Place
from ansible_collections.mwaa.migration.plugins.module_utils._history.record import (
    MANIFEST,
    HistoryExport,
    Record,
    is_sealed,
)

airflow_history_import.bind(airflow_history)

# no rows of a target: the pause state is in the ledger, and templates are found again by their text
NOT_ROWS = ("dag", "log_template")
PORTION = 1_000_000  # rows that one request reads back
LOOKED_INTO = 60  # tables' DAGs whose rows are named
AT_ONCE = 10  # of them in one request
NAMED = 5  # keys in a sentence
NO_DAG = "\\N"  # the DAG of rows that have none
SIDES = ("missing", "extra", "changed", "touched")
# rows that an environment's own DAG files state, too: theirs is the last word
OWN_WORDS = ("dataset", "dataset_alias")

Count = dict[str, "int | None"]
Digests = dict[str, dict[str, list[Any]]]  # {table: {DAG id: [rows, hex]}}


@dataclass
class Outcome:
    """What a comparison came to.

    parity: {table: {"source", "target", "equal", "listed"}}, rows. differences: {table: {DAG id: as the agent has it}}.
    listed: not_carried's entries. errors, warnings: (where, what, how to mend it).
    """

    parity: dict[str, Count] = field(default_factory=dict)
    differences: dict[str, dict[str, Any]] = field(default_factory=dict)
    runs: dict[str, int] = field(default_factory=dict)  # that the environment has, by DAG
    listed: list[dict[str, str]] = field(default_factory=list)
    errors: list[tuple[str, str, str]] = field(default_factory=list)
    warnings: list[tuple[str, str, str]] = field(default_factory=list)

    def list(self, kind: str, identifier: str, reason: str) -> None:
        self.listed.append({"kind": kind, "id": identifier, "reason": reason})


def chain(record: Record) -> list[HistoryExport]:
    """The last full export with the deltas after it; what was before it was exported with other filters."""
    starts = [number for number, export in enumerate(record.exports) if export.after is None]
    return record.exports[starts[-1] :] if starts else list(record.exports)


def rows_of(record: Record) -> dict[str, Count]:
    """The parity where the environment cannot be asked."""
    found: dict[str, Count] = {}
    for table, dags in _expected(chain(record)).items():
        found[table] = {
            "source": sum(rows for rows, _digest in dags.values()),
            "target": None,
            "equal": None,
            "listed": 0,
        }
    return found


def compare(
    record: Record,
    ask: Ask,
    place: Place,
    progress: Mapping[str, Any] | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> Outcome:
    """Every table and DAG of the record with what the environment has of it.

    place: how the agent gets at a piece. progress: what `history_progress` says of the import: rows that it left out
    or mended. DAGs that an earlier export alone had, with other filters, are listed and not compared. Raises
    MigrationError with the agent's sentence.
    """
    exports = chain(record)
    outcome = Outcome(listed=listed_in(record))
    if not exports:
        return outcome

    expected, found = read(exports, record, ask, place, say)
    for dag in _left_behind(record, exports):
        outcome.list(
            "history", f"DAG {dag}", "came with an earlier export, whose filters were others; it is not compared"
        )
        for dags in found.values():
            dags.pop(dag, None)
    same = _of_one_database(record, exports)
    if len(same) < len(record.exports):
        reason = "are of the source's database before it was made anew; they are not compared"
        outcome.list("history", f"exports before {exports[0].at}", reason)
    since = _older_left_behind(record, exports)
    if since:
        outcome.list("history", f"what ended before {since}", "came with an earlier export; it is not compared")
    outcome.runs = {dag: rows for dag, (rows, _digest) in found.get("dag_run", {}).items()}
    lost = _lost(exports, record, ask, place, outcome) if len(same) > 1 else {}
    differing = [
        (table, dag)
        for table in sorted(expected, key=lambda name: (TABLES[name]["phase"], name))
        for dag in sorted({*expected[table], *found.get(table, {})})
        if _sum(expected[table].get(dag), lost.get(table, {}).get(dag)) != found.get(table, {}).get(dag)
    ]
    some = {
        (table, dag): max(side.get(table, {}).get(dag, [0])[0] for side in (expected, found))
        for table, dag in differing[:LOOKED_INTO]
    }
    named = _named(some, exports, record, ask, place, say)
    judge(expected, found, differing, named, progress or {}, outcome, lost)
    return outcome


def read(
    exports: list[HistoryExport],
    record: Record,
    ask: Ask,
    place: Place,
    say: Callable[[str], None] = lambda text: None,
) -> tuple[Digests, Digests]:
    """(what the exports come to, what the environment has), asked for in portions."""
    expected = _expected(exports)
    found: Digests = {}
    several = len(exports) > 1  # what they come to is read from the pieces, as later rows take the place of others
    for number, tables in enumerate(portions(expected)):
        if number:
            say(f"compared {number} of {len(portions(expected))} portions of the history")
        request = {**_request(exports, record), "tables": tables}
        if several and not is_sealed(record.bundle):
            request["exports"] = [[_sent(piece, place) for piece in pieces] for pieces in _of_tables(exports, tables)]
        answer = ask(request)
        found.update({table: answer["digests"].get(table, {}) for table in tables})
        expected.update(answer.get("carried") or {})
    if several and is_sealed(record.bundle):
        tables = list(expected)
        said = exports[-1].columns, _of_tables(exports, tables), record.read, exports[0].scope
        expected.update(airflow_history_import.carried(tables, *said, record.bundle.digest_key))
    return expected, found


def _of_tables(exports: list[HistoryExport], tables: Iterable[str]) -> list[list[dict[str, Any]]]:
    """Each export's pieces of these tables, and of all but the first those that say which runs it has."""
    return [
        [piece for piece in export.pieces() if piece["table"] in {*tables, *(["dag_run"] if number else [])}]
        for number, export in enumerate(exports)
    ]


def _left_behind(record: Record, exports: list[HistoryExport]) -> list[str]:
    """DAGs of exports before these that these have not."""
    now = {dag for export in exports for dag in export.dags()}
    return sorted({dag for export in record.exports if export not in exports for dag in export.dags()} - now)


def _of_one_database(record: Record, exports: list[HistoryExport]) -> list[HistoryExport]:
    """These and those before them whose rows have their numbers."""
    return [one for one in record.exports if record.source_of(one) == record.source_of(exports[-1])]


def _older_left_behind(record: Record, exports: list[HistoryExport]) -> str | None:
    """How far these go back, where exports before them went further."""
    since = exports[0].scope.get("since")
    former = [one.scope.get("since") for one in record.exports if one not in exports]
    return since if since and any(one is None or one < since for one in former) else None


def _lost(exports: list[HistoryExport], record: Record, ask: Ask, place: Place, outcome: Outcome) -> Digests:
    """Digests of rows that runs no longer had when a later export carried them: deletions are listed, not carried."""
    later = [export.pieces() for export in _of_one_database(record, exports)[1:]]
    folder, columns = is_sealed(record.bundle), exports[-1].columns
    wanted = {name for name, table in TABLES.items() if table["unit"] in ("run", "of_run")}
    sizes = {
        table: sum(piece["size"] for pieces in later for piece in pieces if folder and piece["table"] == table)
        for table in sorted(wanted & set(columns))
    }
    lost: Digests = {}
    rows: dict[str, int] = {}
    deleted: dict[str, list[Any]] = {}
    for tables in _filled(sizes, INLINE):
        deltas = [[piece for piece in pieces if piece["table"] in {*tables, "dag_run"}] for pieces in later]

        def bare(piece: dict[str, Any]) -> dict[str, Any]:
            return _lines_of(record, columns, piece, bare=True)

        sent = [[_sent(piece, bare if folder else place) for piece in pieces] for pieces in deltas]
        answer = ask(
            {
                **_request(exports, record),
                "op": "deleted_history",
                "tables": tables,
                "mark": exports[-1].mark,
                "deltas": sent,
            }
        )
        lost.update(answer["lost"])
        rows.update(answer["rows"])
        deleted.update(answer["deleted"])
    for table, count in sorted(rows.items(), key=lambda entry: (TABLES[entry[0]]["phase"], entry[0])):
        keys = deleted[table]
        named = f"{_keys(keys, '')}{_more(count, keys)}"
        reason = f"{_rows(count)} that the source has no longer stay in the environment: {named}"
        outcome.list("history", f"{table}, deleted at the source", reason)
    return lost


def _sum(*digests: list[Any] | None) -> list[Any] | None:
    """Of [rows, hex], the digest of both."""
    known = [one for one in digests if one]
    if len(known) < 2:
        return known[0] if known else None
    total = sum(int(one[1], 16) for one in known) % (1 << 128)
    return [sum(one[0] for one in known), f"{total:032x}"]


def _expected(exports: list[HistoryExport]) -> Digests:
    """Of the first export's digests; of tables that only a delta has, its."""
    expected: Digests = {}
    for export in reversed(exports):
        expected.update({table: dags for table, dags in export.digests().items() if table not in NOT_ROWS})
    return expected


def portions(expected: Digests) -> list[list[str]]:
    """Tables that are asked for together."""
    tables = sorted(expected, key=lambda name: (TABLES[name]["phase"], name))
    return _filled({table: sum(rows for rows, _digest in expected[table].values()) for table in tables}, PORTION)


def _filled(weights: Mapping[Any, float], limit: float, most: int = 1 << 30) -> list[list[Any]]:
    """These in their order, so many together that they weigh no more than that, or alone."""
    made: list[list[Any]] = []
    held = 0.0
    for one, weight in weights.items():
        if not made or held + weight > limit or len(made[-1]) == most:
            made.append([])
            held = 0
        made[-1].append(one)
        held += weight
    return made


def _sent(piece: dict[str, Any], place: Place) -> dict[str, Any]:
    """A piece as a request names it."""
    sent = {name: piece[name] for name in ("table", "sha256", "size", "rows", "path")}
    return {**sent, **({"orphans": True} if piece.get("orphans") else {}), **place(piece)}


def _lines_of(
    record: Record,
    columns: Mapping[str, list[list[str]]],
    piece: dict[str, Any],
    dags: Iterable[str] | None = None,
    bare: bool = False,
) -> dict[str, Any]:
    """The content of a folder's piece: all of its lines, or those of some DAGs. bare: without values, by which no row
    is told from others.
    """
    table = piece["table"]
    at = [name for name, _kind in columns[table]].index(TABLES[table]["dag"]) if dags is not None else 0
    whose = {dag.encode() if dag == NO_DAG else airflow_history.escaped(dag).encode() for dag in dags or ()}
    without = [at for at, (_name, kind) in enumerate(columns[table]) if bare and kind in ("value", "plain", "json")]
    kept = []
    for line in zlib.decompress(record.read(piece), 31).split(b"\n")[:-1]:
        fields = line.split(b"\t")
        if dags is None or fields[at] in whose:
            for index in without:
                fields[index] = airflow_history.NULL.encode()
            kept.append(b"\t".join(fields) + b"\n")
    return {"data": base64.b64encode(gzip.compress(b"".join(kept), 1)).decode()}


def _request(exports: list[HistoryExport], record: Record) -> dict[str, Any]:
    return {
        "op": "verify_history",
        "source": record.source_of(exports[-1]),
        "columns": exports[-1].columns,
        "scope": exports[0].scope,
        "digest_key": base64.b64encode(record.bundle.digest_key).decode(),
        "dags": sorted({dag for export in exports for dag in export.dags()}),
        "since": _older_left_behind(record, exports),
    }


def _named(
    differing: dict[tuple[str, str], int],
    exports: list[HistoryExport],
    record: Record,
    ask: Ask,
    place: Place,
    say: Callable[[str], None],
) -> dict[tuple[str, str], dict[str, Any]]:
    """The rows that differ, by key. differing: tables' DAGs, and how many rows each has."""
    folder = is_sealed(record.bundle)
    found: dict[tuple[str, str], dict[str, Any]] = {}
    pieces: dict[str, list[tuple[int, dict[str, Any]]]] = {table: [] for table, _dag in differing}
    for number, export in enumerate(exports):
        for piece in export.pieces():
            if piece["table"] in pieces:
                pieces[piece["table"]].append((number, piece))
    weights = {}
    for (table, dag), rows in differing.items():
        size, of = (sum(piece[what] for _number, piece in pieces[table]) for what in ("size", "rows"))
        weights[table, dag] = size * rows / (of or 1) if folder else 0.0
    for some in _filled(weights, INLINE, AT_ONCE):
        say(f"naming what differs: {len(found)} of {len(differing)}")
        sent: dict[str, list[dict[str, Any]]] = {}
        for table in {table for table, _dag in some}:
            dags = [dag for one, dag in some if one == table]

            def inside(piece: dict[str, Any], number: int, dags: list[str] = dags) -> dict[str, Any]:
                # another DAG's row may have a number that an earlier export had for one of these
                taken = TABLES[piece["table"]]["key"] == ("id",) and number > 0
                some = None if taken or TABLES[piece["table"]]["dag"] is None else dags
                return _lines_of(record, exports[-1].columns, piece, some)

            sent[table] = [
                _sent(piece, functools.partial(inside, number=number) if folder else place)
                for number, piece in pieces[table]
            ]
        wanted = [{"table": table, "dag": dag, "rows": differing[table, dag]} for table, dag in some]
        request = {**_request(exports, record), "tables": [], "differences": wanted, "pieces": sent}
        answer = ask(request)["differences"]
        found.update({(table, dag): answer[table][dag] for table, dag in some})
    return found


# --- judging: pure ----------------------------------------------------------------------------------------------------


def judge(
    expected: Digests,
    found: Digests,
    differing: list[tuple[str, str]],
    named: Mapping[tuple[str, str], Mapping[str, Any]],
    progress: Mapping[str, Any],
    outcome: Outcome,
    lost: Digests | None = None,
) -> None:
    """Fill the outcome's parity, and say of each difference why it is there, or that it has to be mended.

    named: by (table, DAG id), {"missing", "extra", "changed", "touched": [key], "counts": {each: number}, "met": runs
    of these keys that are the environment's own, or ran there since, "ran": whether the DAG has run there}.
    lost: what the environment has beside what is expected, and is listed.
    """
    touched = _touched_runs(named)
    spare = {
        table: {"missing": entry.get("left_out", 0), "changed": entry.get("mended", 0)}
        for table, entry in (progress.get("tables") or {}).items()
    }
    short: dict[str, int] = {}
    listed: dict[str, int] = {}
    for table, dag in differing:
        rows = expected[table].get(dag, [0, ""])[0]
        there = found.get(table, {}).get(dag, [0, ""])[0]
        detail = named.get((table, dag))
        where = f"history: {_called(table, dag)}"
        if detail is None:
            short[table] = short.get(table, 0) + rows
            outcome.errors.append(
                (where, _unlooked(rows, there), "mend what is named before it, and run the history stage again")
            )
            continue
        counts = detail["counts"]
        more = (lost or {}).get(table, {}).get(dag, [0, ""])[0]
        if not any(counts.values()) and rows + more != there:  # no key tells them apart
            short[table] = short.get(table, 0) + abs(rows + more - there)
            outcome.errors.append((where, f"{_unlike(rows + more, there)}, under the same keys", _MEND["changed"]))
            continue
        short[table] = short.get(table, 0) + counts["missing"] + counts["changed"] + counts["touched"]
        outcome.differences.setdefault(table, {})[dag] = dict(detail)
        wrong: dict[str, list[Mapping[str, Any]]] = {}
        for side in SIDES:
            keys = detail[side]
            room = spare.get(table, {})
            excuse = _excuse(table, side, room, counts[side], detail["ran"])
            if excuse and counts[side] <= room.get(side, -1):  # what accounts for these accounts for no others
                room[side] -= counts[side]
            left = [] if excuse else [key for key in keys if not _of_a_run(key, side, touched.get(dag), detail["met"])]
            if left:
                wrong[side] = left
            elif counts[side]:
                reason = f"{_rows(counts[side])} {excuse or _SINCE[side]}"
                outcome.list("history", f"{_called(table, dag)}, {_SIDE[side]}", reason)
                listed[table] = listed.get(table, 0) + (counts[side] if side != "extra" else 0)
        if wrong:
            what = "; ".join(
                f"{_rows(counts[side])} {_WRONG[side]} ({_keys(keys, dag)}{_more(counts[side], keys)})"
                for side, keys in wrong.items()
            )
            outcome.errors.append((where, what, _MEND["changed" if "changed" in wrong else next(iter(wrong))]))
    for table, dags in expected.items():
        source = sum(rows for rows, _digest in dags.values())
        target = sum(rows for rows, _digest in found.get(table, {}).values())
        equal = source - short.get(table, 0)
        outcome.parity[table] = {"source": source, "target": target, "equal": equal, "listed": listed.get(table, 0)}


_SIDE = {"missing": "missing", "extra": "more", "changed": "different", "touched": "changed since"}
_WRONG = {
    "missing": "missing",
    "extra": "that the source has not",
    "changed": "different",
    "touched": "different",
}
# what was brought once is not brought again
ANEW = f"remove {MANIFEST} from the bundle, and run the stages export and history"
_MEND = {
    "missing": f"run the history stage again; where it has nothing left to bring, {ANEW}",
    "extra": "if the source lost them since, export again, which lists them; otherwise find out who wrote them",
    "changed": f"unless they were changed on purpose, {ANEW} with history_on_conflict: overwrite",
    "touched": "",
}
_RAN = "their runs were cleared or ran there again, or were there before"
_SINCE = {
    "missing": f"were taken away in the environment since, or are in flight there: {_RAN}",
    "extra": f"came in the environment since: {_RAN}",
    "changed": f"are as the environment has them: {_RAN}",
    "touched": "were changed in the environment since they were brought",
}
# what Airflow adds to tables without a number, or takes away, once a DAG runs
_OF_RUNNING = {
    ("sla_miss", "extra"): "are the environment's own: the DAG has run there, and missed them",
    ("rendered_task_instance_fields", "missing"): (
        "were taken away by Airflow, which keeps those of a task's last runs: the DAG has run in the environment"
    ),
}


def _touched_runs(named: Mapping[tuple[str, str], Mapping[str, Any]]) -> dict[str, set[str]]:
    """{DAG id: runs that Airflow, or somebody, has changed on the target since}."""
    runs: dict[str, set[str]] = {}
    for (_table, dag), detail in named.items():
        runs.setdefault(dag, set()).update(str(key["run_id"]) for key in detail["touched"] if "run_id" in key)
    return runs


def _of_a_run(key: Mapping[str, Any], side: str, touched: set[str] | None, met: Iterable[str]) -> bool:
    """Whether the row's difference is accounted for: its run was touched since or was there before (met), or it is a
    row of the environment's own (with an id that no import gives).
    """
    if side == "touched":
        return True
    run = key.get("run_id")
    if run is not None and (run in (touched or ()) or run in met):
        return True
    return side == "extra" and str(key.get("id", "-")).isdigit()


def _excuse(table: str, side: str, spare: Mapping[str, int], count: int, ran: bool) -> str:
    """Why all of these rows differ, where the import or the table itself says so."""
    if table in OWN_WORDS and side != "missing":
        return "are as the environment's own DAG files state them"
    if side == "missing" and count and count <= spare.get("missing", 0):
        return "were left out by the import, which lists them"
    if side == "changed" and count and count <= spare.get("changed", 0):
        return "hold what PostgreSQL does not, and were written as near as can be"
    return _OF_RUNNING.get((table, side), "") if ran else ""


def _unlooked(rows: int, there: int) -> str:
    if rows != there:
        return f"{_unlike(rows, there)} (not looked into: too much differs)"
    return f"some of its {rows:,} rows differ (not looked into: too much differs)"


def _unlike(rows: int, there: int) -> str:
    return f"{rows:,} rows at the source and {there:,} in the environment"


def _called(table: str, dag: str) -> str:
    if dag == "":
        return table
    return f"{table} of no DAG" if dag == NO_DAG else f"{table} of DAG {dag}"


def _rows(count: int) -> str:
    return f"{count:,} row{'' if count == 1 else 's'}"


def _keys(keys: Iterable[Mapping[str, Any]], dag: str) -> str:
    shown = []
    for key in list(keys)[:NAMED]:
        names = [
            f"{name}={value}" for name, value in key.items() if value != dag and (name, value) != ("map_index", "-1")
        ]
        shown.append(" ".join(names))
    return ", ".join(shown)


def _more(count: int, keys: list[Mapping[str, Any]]) -> str:
    left = count - min(len(keys), NAMED)
    return f" and {left:,} more" if left > 0 else ""


# --- what the record itself lists -------------------------------------------------------------------------------------


def listed_in(record: Record) -> list[dict[str, str]]:
    """What the exports did not carry, or not as it was. Of what had not ended, the last export's word counts."""
    *former, last = chain(record) or [None]
    if last is None:
        return []
    earlier = [entry for export in former if export for entry in export.not_carried() if entry["kind"] == "history"]
    return [*last.not_carried(), *(entry for entry in earlier if entry not in last.not_carried())]
