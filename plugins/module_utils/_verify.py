# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Is what is in the bundle in the environment, equal or listed?

PRIVATE to the collection: no promise is made to other collections.

Both sides become digests of single fields, keyed with the bundle's key: the agent computes them inside the environment,
so that secrets are compared and never leave it; what REST shows is digested here. A field that nobody could see is
unknown, not equal.
"""

from __future__ import annotations

import base64
import functools
import json
import re
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Callable

from ansible_collections.mwaa.migration.plugins.module_utils._bundle import (
    FIELDS,
    KINDS,
    SINGULAR,
    Bundle,
    open_store,
    state_path,
)
from ansible_collections.mwaa.migration.plugins.module_utils._dags import IGNORE_FILE
from ansible_collections.mwaa.migration.plugins.module_utils._errors import MigrationError
from ansible_collections.mwaa.migration.plugins.module_utils._history import interim, over_rest
from ansible_collections.mwaa.migration.plugins.module_utils._history import verify as of_history
from ansible_collections.mwaa.migration.plugins.module_utils._history.record import Record
from ansible_collections.mwaa.migration.plugins.module_utils._mwaa import limits
from ansible_collections.mwaa.migration.plugins.module_utils._mwaa.access import Access, reach
from ansible_collections.mwaa.migration.plugins.module_utils._mwaa.environment import describe, major, version
from ansible_collections.mwaa.migration.plugins.module_utils._mwaa.rest import RestClient
from ansible_collections.mwaa.migration.plugins.module_utils._options import DATA_INTERVALS
from ansible_collections.mwaa.migration.plugins.module_utils._progress import progress, wait_until
from ansible_collections.mwaa.migration.plugins.module_utils._select import NOT_SELECTED, Selection
from ansible_collections.mwaa.migration.plugins.module_utils._state.agent import AgentLane
from ansible_collections.mwaa.migration.plugins.module_utils._state.compare import Hidden
from ansible_collections.mwaa.migration.plugins.module_utils._state.lanes import BySecrets, Knowledge, Work
from ansible_collections.mwaa.migration.plugins.module_utils._state.model import NotCarried, from_bundle
from ansible_collections.mwaa.migration.plugins.module_utils._state.rest import Masking, RestLane, Unlistable
from ansible_collections.mwaa.migration.plugins.module_utils._state.secrets import Backend, SecretStore
from ansible_collections.mwaa.migration.plugins.module_utils._state.upsert import select
from ansible_collections.mwaa.migration.plugins.module_utils._sync.merge import place
from ansible_collections.mwaa.migration.plugins.module_utils._sync.publish import publish
from ansible_collections.mwaa.migration.plugins.module_utils._sync.source import Source, find_target, open_sources

AGENT_DAGS = ("mwaa_agent", "mwaa_agent_poll")
NOTHING = Access(False, False, "There is no environment yet.")
AGENT_TIMEOUT = 900  # seconds; documented MWAA: a new DAG file is seen after about 300 s
POLL = 10.0  # seconds between two looks at the DAGs, at most
REDACTED = "***"  # what Airflow shows instead of a secret

_SYNC_OPTIONS = (  # of mwaa_dags_sync, as it has them by default
    "environment", "bucket", "dag_s3_path", "plugins_s3_path", "requirements_s3_path", "startup_script_s3_path",
    "airflow_version", "ignore_syntax", "plugins", "requirements", "startup_script", "kms_key_id",
)  # fmt: skip

Digests = dict[str, str]  # {field: digest}; a field that is not there is unknown

# REST: what a row is called, and the fields that are shown as they are
_REST = {
    "variables": ("key", ("value", "description")),
    "connections": ("connection_id", ("conn_type", "description", "host", "login", "schema", "port")),
    "pools": ("name", ("slots", "description", "include_deferred")),
}


@dataclass
class Seen:
    """One kind as the environment has it. `complete`: every id is there, so that what is not is missing or extra."""

    items: dict[str, Digests] = field(default_factory=dict)
    complete: bool = False
    errors: dict[str, str] = field(default_factory=dict)

    def add(self, identifier: str, digests: Digests) -> None:
        self.items.setdefault(identifier, {}).update(digests)


@dataclass
class Compared:
    """One kind of both sides, by id; different and unknown name fields, never values."""

    source: list[str]
    complete: bool = True
    missing: list[str] = field(default_factory=list)
    different: dict[str, list[str]] = field(default_factory=dict)
    unknown: dict[str, list[str]] = field(default_factory=dict)
    extra: list[str] = field(default_factory=list)
    errors: dict[str, str] = field(default_factory=dict)

    @property
    def parity(self) -> dict[str, int | None]:
        """source: how many the bundle has; target: how many of these the environment has; equal: in every field.

        None is unknown.
        """
        not_equal = {*self.missing, *self.different, *self.errors}
        return {
            "source": len(self.source),
            "target": None if self.source and not self.complete else len(self.source) - len(self.missing),
            "equal": None if self.unknown else len(self.source) - len(not_equal),
        }


def selections(given: Mapping[str, Any] | None) -> dict[str, Selection]:
    """By kind, of the option `select`. Raises MigrationError where it names something else."""
    given = given or {}
    unknown = sorted(set(given) - set(KINDS))
    if unknown:
        raise MigrationError(f"select has {', '.join(KINDS)}, not {', '.join(map(repr, unknown))}")
    return {kind: Selection.of(given.get(kind)) for kind in KINDS}


# --- state ------------------------------------------------------------------------------------------------------------


def source_digests(bundle: Bundle, selections: Mapping[str, Selection]) -> dict[str, dict[str, Digests]]:
    """{kind: {id: {field: digest}}} of everything that is carried, under the target's ids."""
    found: dict[str, dict[str, Digests]] = {}
    for kind in KINDS:
        state = bundle.read_state(kind)
        chosen = selections.get(kind, Selection()).apply(state)
        found[kind] = {new: bundle.digests(kind, new, state[old]) for old, new in chosen.ids.items()}
    return found


def seen_by_rest(
    rest: Any, digest: Callable[[str, str, str, Any], str], major_version: int, pools: Iterable[str] = ()
) -> dict[str, Seen]:
    """What REST shows. Fields that it hides, masks or writes anew stay unknown. digest: Bundle.digest.

    pools: those to look for one by one where Airflow 2 cannot list them.
    """
    seen = {}
    for kind in KINDS:
        name, fields = _REST[kind]
        seen[kind] = Seen(complete=True)
        if kind == "pools" and major_version < 3:
            lane = RestLane(rest, kind, limits.REST_SINCE, Masking(major_version))  # every 2.x shows them alike
            try:
                there = lane.read()
            except Unlistable:
                there = lane.read_each(pools)
            for identifier, row in there.items():
                plain = {column: value for column, value in row.items() if not isinstance(value, Hidden)}
                seen[kind].add(
                    identifier, {column: digest(kind, identifier, column, plain[column]) for column in plain}
                )
            continue
        for page in rest.pages(f"/{kind}", kind):
            for row in page:
                shown = {
                    column: row[column]
                    for column in fields
                    if column in row and _shown_as_it_is(row[column], column, major_version)
                }
                identifier = row[name]
                seen[kind].add(
                    identifier, {column: digest(kind, identifier, column, shown[column]) for column in shown}
                )
    return seen


def _shown_as_it_is(value: Any, column: str, major_version: int) -> bool:
    if not isinstance(value, str):
        return True
    if REDACTED in value:
        return False
    if column == "value" and major_version >= 3:
        try:
            json.loads(value)  # Airflow 3 loads, masks and dumps it: 1e5 is shown as 100000.0
        except ValueError:
            return True
        return False
    return True


def seen_by_agent(answer: Mapping[str, Any], seen: dict[str, Seen], *, lists: bool) -> dict[str, Seen]:
    """Adds the agent's digests to what is seen already. lists: it was asked for all there is, not for ids."""
    for kind, items in answer["digests"].items():
        known = seen.setdefault(kind, Seen())
        known.complete = known.complete or lists
        reasons = (answer.get("errors") or {}).get(kind) or {}
        # what REST does not list is missing, whatever a task says when it looks for it
        known.errors = {key: reasons[key] for key in reasons if lists or not known.complete or key in known.items}
        for identifier, digests in items.items():
            if digests is not None:
                known.add(identifier, digests)
            elif not lists and identifier not in known.errors:
                known.items.pop(identifier, None)
    return seen


def compare(source: Mapping[str, Digests], seen: Seen, fields: Iterable[str]) -> Compared:
    """fields: those that have to be equal."""
    result = Compared(sorted(source), seen.complete)
    for identifier in result.source:
        if identifier in seen.errors:
            result.errors[identifier] = seen.errors[identifier]
            continue
        there = seen.items.get(identifier)
        if there is None:
            if seen.complete:
                result.missing.append(identifier)
            else:
                result.unknown[identifier] = list(fields)
            continue
        different = [name for name in fields if name in there and there[name] != source[identifier][name]]
        unknown = [name for name in fields if name not in there]
        if different:
            result.different[identifier] = different
        elif unknown:
            result.unknown[identifier] = unknown
    if seen.complete:
        result.extra = sorted(set(seen.items) - set(source))
    return result


# --- DAGs -------------------------------------------------------------------------------------------------------------


@dataclass
class SourceDag:
    """A DAG of the source. path: of its file in the DAG folder; None when the file is not in it."""

    dag_id: str
    path: str | None


def source_dags(inventory: Mapping[str, Any], folders: Mapping[str, set[str]]) -> list[SourceDag]:
    """The DAGs of the inventory. Its files are told by the longest path of the DAG folder that they end with.

    folders: {folder in the environment's DAG folder: paths of the source's DAG folder that went there}.
    """

    def path_of(location: str) -> str | None:
        for into, paths in folders.items():
            path = relative(location, paths)
            if path is not None:
                return f"{into}/{path}" if into else path
        return None

    return [
        SourceDag(str(dag["dag_id"]), path_of(str(dag.get("path") or dag.get("fileloc") or "")))
        for dag in inventory.get("dags") or []
    ]


def relative(location: str, paths: set[str]) -> str | None:
    """'/usr/local/airflow/dags/team/a.py' -> 'team/a.py' where there is such a file. A DAG in an archive is the
    archive's.
    """
    parts = [part for part in location.replace("\\", "/").split("/") if part]
    for start in range(len(parts)):
        tail = parts[start:]
        candidate = "/".join(tail)
        if candidate in paths:
            return candidate
        for length, part in enumerate(tail, 1):
            if part.endswith(".zip") and "/".join(tail[:length]) in paths:
                return "/".join(tail[:length])
    return None


@dataclass
class TargetDags:
    """What the environment's Airflow says: DAGs by id with their paused state, import errors by path with the last
    line.
    """

    paused: dict[str, bool]
    import_errors: dict[str, str]


def target_dags(rest: Any, paths: set[str]) -> TargetDags:
    dags = [row for page in rest.pages("/dags", "dags") for row in page]
    errors = [row for page in rest.pages("/importErrors", "import_errors") for row in page]
    return read_dags(dags, errors, paths)


def read_dags(dags: Iterable[Mapping[str, Any]], errors: Iterable[Mapping[str, Any]], paths: set[str]) -> TargetDags:
    """Of rows as REST or the agent shows them; without this collection's own."""
    found = {row["dag_id"]: bool(row.get("is_paused")) for row in dags if row["dag_id"] not in AGENT_DAGS}
    broken: dict[str, str] = {}
    for row in errors:
        location = str(row.get("filename") or "")
        broken[relative(location, paths) or location] = _last_line(row.get("stack_trace"))
    return TargetDags(found, broken)


def _lists(answer: Mapping[str, Any]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    return answer["dags"], answer["import_errors"]


def wait_for_dags(
    look: Callable[[], TargetDags], expected: Mapping[str, str | None], name: str, timeout: float, clock: Any = time
) -> TargetDags:
    """Look until every expected DAG is parsed or its file has an import error, or the time is over; the last look
    either way.

    expected: path of the file by dag_id.
    """
    deadline = clock.monotonic() + timeout
    state: dict[str, Any] = {}

    def probe() -> TargetDags | None:
        found = state["found"] = look()
        open_ = [
            dag_id
            for dag_id, path in expected.items()
            if dag_id not in found.paused and path not in found.import_errors
        ]
        state["open"] = len(open_)
        return found if not open_ or clock.monotonic() >= deadline else None

    def describe() -> str:
        return f"environment {name}: {len(expected) - state['open']:,} of {len(expected):,} DAGs parsed"

    try:
        return wait_until(probe, timeout=timeout + POLL, interval=POLL, describe=describe, clock=clock)
    except MigrationError:
        if "found" in state and clock.monotonic() >= deadline:
            return state["found"]
        raise


def _last_line(trace: Any) -> str:
    lines = [line.strip() for line in str(trace or "").splitlines() if line.strip()]
    # what a DAG file fails with may hold the URL it connects to
    return re.sub(r"://[^/@\s]*@", "://***@", lines[-1])[:300] if lines else "no reason given"


# --- all of it --------------------------------------------------------------------------------------------------------


@dataclass
class Findings:
    """What is neither equal nor listed (errors), and what deserves a look (warnings).

    source: said of state, where there are several sources: ' of s3://…'.
    """

    source: str = ""
    items: list[dict[str, str]] = field(default_factory=list)
    short: list[str] = field(default_factory=list)

    def error(self, where: str, what: str, mend: str) -> None:
        self.items.append({"severity": "error", "where": where, "what": what, "mend": mend})
        self.short.append(f"{where} ({what})")

    def warning(self, where: str, what: str, mend: str) -> None:
        self.items.append({"severity": "warning", "where": where, "what": what, "mend": mend})


def excused(reason: str, fields: Iterable[str]) -> bool:
    """Whether a reason of not_carried accounts for these fields. 'extra: an empty text …; port: …' is about extra and
    port alone, a reason that names no field about all of the item.
    """
    names = {name for some in FIELDS.values() for name in some}
    named: set[str] = set()
    for part in reason.split("; "):
        start = {name.strip() for name in part.partition(":")[0].split(",")} if ":" in part else set()
        if start and start <= names:
            named |= start
    return not named or set(fields) <= named


def judge_state(compared: Mapping[str, Compared], listed: Mapping[tuple[str, str], str], findings: Findings) -> bool:
    """Whether nothing is unknown. Errors go to findings unless they are listed as not carried.

    listed: the reason by (kind, id).
    """
    known = True
    for kind, result in compared.items():
        singular = SINGULAR[kind]

        def unlisted(identifiers: Iterable[str], singular: str = singular) -> list[str]:
            return [identifier for identifier in identifiers if (singular, identifier) not in listed]

        for identifier in unlisted(result.missing):
            findings.error(
                f"{singular} {identifier}{findings.source}",
                "is missing in the environment",
                "run the import stage again",
            )
        for identifier in result.different:
            reason = listed.get((singular, identifier))
            if reason is not None and excused(reason, result.different[identifier]):
                continue
            named = ", ".join(result.different[identifier])
            verb = "differ" if len(result.different[identifier]) > 1 else "differs"
            findings.error(
                f"{singular} {identifier}{findings.source}",
                f"{named} {verb}",
                "run the import stage with on_conflict: overwrite, unless it was changed in the environment on purpose",
            )
        for identifier in unlisted(result.errors):
            findings.error(
                f"{singular} {identifier}{findings.source}",
                f"cannot be read in the environment: {result.errors[identifier]}",
                "look at the environment's Task log of the DAG mwaa_agent",
            )
        known = known and not unlisted(result.unknown)
    return known


def judge_dags(
    name: str,
    published: Mapping[str, Any],
    dags: list[SourceDag],
    target: TargetDags | None,
    listed: set[tuple[str, str]],
    findings: Findings,
) -> tuple[dict[str, int | None], list[dict[str, str]]]:
    """(parity of DAGs, what is listed). published: what publish() says in check mode; target: None where Airflow cannot
    be asked.
    """
    root = f"{published['dag_s3_path']}/"
    actions = {
        item["key"][len(root) :]: item["action"] for item in published["results"] if item["key"].startswith(root)
    }
    not_there = {path: action for path, action in actions.items() if action in ("created", "updated")}
    for path, action in not_there.items():
        if ("dag_file", path) not in listed:
            findings.error(
                f"DAG file {path}",
                "is missing in the bucket" if action == "created" else "is another one in the bucket",
                "run the publish stage again",
            )
    held = {item["path"]: item["reason"] for item in published["held_back"]}
    not_carried = [
        {"kind": "dag_file", "id": path, "reason": f"held back until the cutover: {reason}"}
        for path, reason in held.items()
    ]
    for dag in dags:
        if dag.path is None and ("dag", dag.dag_id) not in listed:
            not_carried.append(
                {
                    "kind": "dag",
                    "id": dag.dag_id,
                    "reason": "its file is not in the source's DAG folder, so it was not exported",
                }
            )
    if target is None:
        return {"source": len(dags), "target": None, "equal": None}, not_carried

    with_dags = {dag.path for dag in dags}
    for path, reason in sorted(target.import_errors.items()):
        if path in actions and path not in with_dags and path not in held:
            not_carried.append(
                {
                    "kind": "dag_file",
                    "id": path,
                    "reason": f"defines no DAG at the source, and cannot be imported in the environment: {reason}",
                }
            )
    broken: dict[str, int] = {}
    for dag in dags:
        if dag.dag_id in target.paused or dag.path is None or dag.path in held or ("dag", dag.dag_id) in listed:
            continue
        if dag.path in target.import_errors:
            broken[dag.path] = broken.get(dag.path, 0) + 1
        elif dag.path not in not_there:
            findings.error(
                f"DAG {dag.dag_id}",
                f"is not parsed from {dag.path}",
                "look at the environment's DAGProcessing log, or wait longer (wait_timeout)",
            )
    for path, count in sorted(broken.items()):
        missing = f"{count} DAG{'s' if count != 1 else ''} missing"
        not_carried.append(
            {
                "kind": "dag_file",
                "id": path,
                "reason": f"cannot be imported in the environment ({missing}): {target.import_errors[path]}",
            }
        )
        findings.warning(
            f"DAG file {path}",
            f"cannot be imported, {missing}",
            "before the cutover, add what it misses to requirements.txt or plugins.zip, or mend the file",
        )
    for dag in dags:
        if dag.path in held and dag.dag_id in target.paused:
            findings.error(
                f"DAG {dag.dag_id}",
                f"is held back and yet the environment has parsed {dag.path}",
                f"pause it at once; does the environment read {published['dag_s3_path']}/.airflowignore as"
                f" {published['ignore_syntax']}?",
            )
    running = sorted(dag.dag_id for dag in dags if target.paused.get(dag.dag_id) is False)
    if running:
        shown = ", ".join(running[:10]) + (f" and {len(running) - 10} more" if len(running) > 10 else "")
        findings.warning(
            f"environment {name}",
            f"{len(running)} {'DAG is' if len(running) == 1 else 'DAGs are'} not paused: {shown}",
            "before the cutover, pause what must not run twice",
        )
    there = [dag for dag in dags if dag.dag_id in target.paused]
    equal = [dag for dag in there if dag.path is not None and dag.path not in not_there]
    return {"source": len(dags), "target": len(there), "equal": len(equal)}, not_carried


def _of_these(published: Mapping[str, Any], sources: Iterable[Source]) -> dict[str, Any]:
    """What publish() says, of these sources alone: their DAG files, and what all sources share."""
    root = f"{published['dag_s3_path']}/"
    own = {place(source, path) for source in sources for path in source.dags.files}

    def theirs(path: str) -> bool:
        return path not in own and path.rpartition("/")[2] != IGNORE_FILE

    return {
        **published,
        "results": [
            item
            for item in published["results"]
            if not (item["key"].startswith(root) and theirs(item["key"][len(root) :]))
        ],
        "held_back": [item for item in published["held_back"] if item["path"] in own],
    }


def judge_versions(environment: Mapping[str, Any], published: Mapping[str, Any], findings: Findings) -> None:
    """Plugins: the bucket's are the bundle's, and the environment runs with them."""
    changed = {item["key"] for item in published["results"] if item["action"] in ("created", "updated")}
    for kind, shown, what in (
        ("plugins", "Plugins", "plugins.zip"),
        ("requirements", "Requirements", "requirements.txt"),
    ):
        key, version = published[f"{kind}_s3_path"], published[f"{kind}_s3_object_version"]
        if key is None:
            continue
        if key in changed:
            findings.warning(
                what, "the bucket's is not the bundle's", "run the publish stage, unless yours was given on purpose"
            )
        elif environment.get(f"{shown}S3Path") != key or environment.get(f"{shown}S3ObjectVersion") != version:
            findings.warning(
                what,
                "the environment runs with another version than the bucket's newest",
                "run the environment stage again",
            )


def judge_intervals(environment: Mapping[str, Any], findings: Findings) -> None:
    """Runs of Airflow 2 are named after the beginning of their interval; if the next are not, a date is skipped."""
    options = environment.get("AirflowConfigurationOptions") or {}
    others = [name for name in DATA_INTERVALS if str(options.get(name)).lower() != "true"]
    if others:
        findings.warning(
            f"environment {environment['Name']}",
            f"{' and '.join(others)} {'are' if len(others) > 1 else 'is'} not True: after the history of Airflow 2,"
            " schedules skip one logical date",
            "set it to True before the cutover, unless that is meant",
        )


def merge_listed(*groups: Iterable[Mapping[str, Any]]) -> list[dict[str, str]]:
    """not_carried of several stages in one list, each entry once, sorted by kind and id."""
    merged: dict[tuple[str, str], dict[str, str]] = {}
    for group in groups:
        for item in group:
            entry = {"kind": str(item["kind"]), "id": str(item["id"]), "reason": str(item["reason"])}
            known = merged.setdefault((entry["kind"], entry["id"]), entry)
            if known["reason"] == NOT_SELECTED:  # said of the source's id, which may be another item's new name
                merged[entry["kind"], entry["id"]] = entry
    return [merged[key] for key in sorted(merged)]


def reasons_of(not_carried: Iterable[Mapping[str, str]]) -> dict[tuple[str, str], str]:
    """What excuses a difference, by kind and the target's id. Not what stays behind: the target has nothing of it."""
    return {(item["kind"], item["id"]): item["reason"] for item in not_carried if item["reason"] != NOT_SELECTED}


def agent_request(bundle: Bundle, source: Mapping[str, Mapping[str, Digests]], major_version: int) -> dict[str, Any]:
    """digest_state: on 2.x of all there is; on 3.x, where a task cannot list, of the bundle's ids."""
    kinds = KINDS if major_version < 3 else ("variables", "connections")
    return {
        "op": "digest_state",
        "digest_key": base64.b64encode(bundle.digest_key).decode(),
        "ids": {kind: None if major_version < 3 else sorted(source[kind]) for kind in kinds},
    }


def seen_in_secrets(
    stores: Mapping[str, SecretStore],
    source: Mapping[str, Mapping[str, Digests]],
    bundle: Bundle,
    seen: dict[str, Seen],
) -> dict[str, set[str]]:
    """Adds what Secrets Manager answers for, over what the database has. Returns {kind: ids}.

    Values are read, digested here and forgotten. A secret holds no description.
    """
    answered: dict[str, set[str]] = {}
    for kind, store in stores.items():
        known = seen.setdefault(kind, Seen())
        for identifier, held in store.read([key for key in source[kind] if store.backend.asks(kind, key)]).items():
            fields = None if held.deleted or identifier not in source[kind] else store.fields(held)
            if fields is None:
                continue
            answered.setdefault(kind, set()).add(identifier)
            shown = {"description": None, **fields}
            known.items[identifier] = {name: bundle.digest(kind, identifier, name, shown[name]) for name in shown}
            known.errors.pop(identifier, None)
    return answered


def state_of(
    bundle: Bundle,
    major_version: int,
    rest: Any,
    run_agent: Callable[[dict[str, Any]], dict[str, Any]] | None,
    selections: Mapping[str, Selection] | None = None,
    stores: Mapping[str, SecretStore] | None = None,
) -> dict[str, Compared]:
    """Compare variables, connections and pools.

    rest: RestClient, None where it cannot be called. run_agent: AgentLane.run, None where no DAG run may be made (check
    mode). stores: Secrets Manager, of the kinds that the environment looks for there.
    """
    source = source_digests(bundle, selections or {})
    seen: dict[str, Seen] = {}
    if rest is not None and (run_agent is None or major_version >= 3):
        seen = seen_by_rest(rest, bundle.digest, major_version, sorted(source["pools"]))
    if run_agent is not None:
        seen_by_agent(run_agent(agent_request(bundle, source, major_version)), seen, lists=major_version < 3)
    seen_in_secrets(stores or {}, source, bundle, seen)
    return {kind: compare(source[kind], seen.get(kind, Seen()), FIELDS[kind]) for kind in KINDS}


def verify(aws: Any, params: Mapping[str, Any], *, check_mode: bool) -> dict[str, Any]:
    """What the module mwaa_verify does and returns.

    Raises MigrationError, with all of it in its details, when something is wrong and `fail` is set.
    """
    sources = params["sources"] or [{**params, "source": params["bundle"]}]
    if not sources[0]["source"]:
        raise MigrationError("neither bundle nor sources name a bundle: give one of them")
    publishing = Publishing(aws, params, sources)
    each = [Verification(aws, params, check_mode, source, publishing) for source in sources]
    result = together([(str(one.params["bundle"]), one.result()) for one in each])
    wrong = list(dict.fromkeys(short for one in each for short in one.findings.short))
    if wrong and params["fail"]:
        more = f"; and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        raise MigrationError(
            f"the environment {params['environment']} does not equal the bundle{'s' if len(each) > 1 else ''}:"
            f" {'; '.join(wrong[:3])}{more}. See findings",
            **result,
        )
    return result


def together(results: Sequence[tuple[str, dict[str, Any]]]) -> dict[str, Any]:
    """Several bundles' results as one, that of a single one as it is. results: (the bundle's url, its result)."""
    first = results[0][1]
    if len(results) == 1:
        return first
    all_of = [result for _url, result in results]
    versions = dict.fromkeys(str(result["source"]["airflow_version"]) for result in all_of)
    # an id of two sources is listed for each of them, what is no state once
    state = set(SINGULAR.values())
    findings: list[dict[str, Any]] = []
    for result in all_of:
        findings += [finding for finding in result["findings"] if finding not in findings]
    answers = [result["equal"] for result in all_of]
    return {
        **first,
        "equal": False if False in answers else None if None in answers else True,
        "parity": _parity_of(all_of),
        "source": {"airflow_version": " and ".join(versions)},
        "not_carried": sorted(
            [
                *(item for result in all_of for item in result["not_carried"] if item["kind"] in state),
                *merge_listed(
                    *([item for item in result["not_carried"] if item["kind"] not in state] for result in all_of)
                ),
            ],
            key=lambda item: (item["kind"], item["id"]),
        ),
        "findings": findings,
        "differences": {
            kind: _all_differences([result["differences"][kind] for result in all_of])
            for kind in first["differences"]
            if kind != "history"  # which is by source, below
        },
        "sources": [
            {"source": url, **{name: result[name] for name in ("equal", "parity", "differences")}}
            for url, result in results
        ],
    }


def _parity_of(results: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    kinds = [kind for kind in results[0]["parity"] if kind != "history"]
    parity: dict[str, Any] = {kind: _sum(result["parity"][kind] for result in results) for kind in kinds}
    histories = [result["parity"]["history"] for result in results if "history" in result["parity"]]
    if histories:
        tables = dict.fromkeys(table for one in histories for table in one)
        parity["history"] = {table: _sum(one[table] for one in histories if table in one) for table in tables}
    return parity


def _sum(parities: Iterable[Mapping[str, int | None]]) -> dict[str, int | None]:
    rows = list(parities)
    sums: dict[str, int | None] = {}
    for name in rows[0]:
        counts = [row[name] for row in rows]
        sums[name] = None if None in counts else sum(count for count in counts if count is not None)
    return sums


def _all_differences(several: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Extra is what none of them has."""
    fields: dict[str, dict[str, list[str]]] = {"different": {}, "unknown": {}}
    for name, named in fields.items():
        for one in several:
            for identifier, of_it in one[name].items():
                named[identifier] = list(dict.fromkeys([*named.get(identifier, []), *of_it]))
    return {
        "missing": sorted({identifier for one in several for identifier in one["missing"]}),
        **fields,
        "extra": sorted(set.intersection(*(set(one["extra"]) for one in several))),
    }


class Publishing:
    """What publishing all the sources would do to the environment's bucket, found out once for all of them."""

    def __init__(self, aws: Any, params: Mapping[str, Any], sources: Sequence[Mapping[str, Any]]):
        self._aws, self._params = aws, params
        self._wanted = [{name: one.get(name) for name in ("source", "into", "include", "exclude")} for one in sources]
        self._found: tuple[list[Source], dict[str, Any]] | None = None

    def planned(self, environment: Mapping[str, Any]) -> tuple[list[Source], dict[str, Any]]:
        """(the sources, what publish() says in check mode)."""
        if self._found is None:
            options = dict.fromkeys(_SYNC_OPTIONS)
            given = {**options, "sources": self._wanted, "kms_key_id": self._params["kms_key_id"]}
            sources = open_sources(self._aws, given)
            target = find_target({**options, "environment": environment["Name"]}, environment)
            self._found = sources, publish(self._aws, sources, target, check_mode=True)
        return self._found


class Verification:
    """One bundle against one environment. source: the bundle, with what was carried of it."""

    def __init__(
        self,
        aws: Any,
        params: Mapping[str, Any],
        check_mode: bool,
        source: Mapping[str, Any],
        publishing: Publishing,
    ):
        self.aws, self.check_mode, self.publishing = aws, check_mode, publishing
        self.params = {**params, "bundle": source["source"]}
        self.name: str = params["environment"]
        self.bundle = Bundle.open(open_store(source["source"], aws), aws, params["kms_key_id"])
        self.inventory = self.bundle.document("inventory.json") if "inventory.json" in self.bundle.files else {}
        self.environment = describe(aws.client("mwaa"), self.name)
        self.usable = self.environment is not None and self.environment["Status"] in ("AVAILABLE", "UPDATE_FAILED")
        if not self.usable and not check_mode:
            state = f"is {self.environment['Status']}" if self.environment else "does not exist"
            raise MigrationError(
                f"the environment {self.name} {state}, so it cannot be verified; run the environment stage first"
            )
        self.selections = selections(source.get("select"))
        self.findings = Findings(f" of {self.bundle.store.url}" if params["sources"] else "")
        self.access = reach(aws, self.environment) if self.environment and self.usable else NOTHING
        self.rest = RestClient(aws.client("mwaa"), self.name) if self.access.rest else None
        of_it = [item for item in params["not_carried"] if item.get("source") in (None, source["source"])]
        self.not_carried = merge_listed(self.inventory.get("not_carried") or [], of_it)

    def result(self) -> dict[str, Any]:
        compared = self._state() if self.usable else {}
        reasons = reasons_of(self.not_carried)
        known = judge_state(compared, reasons, self.findings) and self.usable
        dags = self._dags() if self.environment else dict.fromkeys(("source", "target", "equal"))
        history = self._history()
        known = known and not (history and any(counts["equal"] is None for counts in history.parity.values()))
        unseen = {"target": None, "equal": None}
        return {
            "changed": False,
            "equal": False if self.findings.short else (True if known else None),
            "parity": {
                **{
                    kind: compared[kind].parity
                    if kind in compared
                    else {"source": len(self.selections[kind].apply(self.bundle.read_state(kind)).ids), **unseen}
                    for kind in KINDS
                },
                "dags": dags,
                **({"history": history.parity} if history else {}),
            },
            "source": {"airflow_version": self.bundle.source.get("airflow_version")},
            "target": {"airflow_version": (self.environment or {}).get("AirflowVersion"), "environment": self.name},
            "not_carried": self.not_carried,
            "findings": self._all_findings(),
            "differences": {
                kind: {name: getattr(found, name) for name in ("missing", "different", "unknown", "extra")}
                for kind, found in compared.items()
            }
            | ({"history": history.differences} if history and history.differences else {}),
        }

    def _listed(self) -> set[tuple[str, str]]:
        return {(item["kind"], item["id"]) for item in self.not_carried}

    def _state(self) -> dict[str, Compared]:
        environment = dict(self.environment or {})
        if not self.check_mode:
            self.bundle.check(map(state_path, KINDS))  # before anything is written
        elif self.rest is None:
            self.findings.warning(
                f"environment {self.name}",
                f"nothing of its state can be read in check mode: {self.access.reason}",
                "set api_host to a host that is inside, or verify without check mode",
            )
        compared = state_of(
            self.bundle,
            major(environment),
            self.rest,
            None if self.check_mode else self._ask,
            self.selections,
            self._stores(environment),
        )
        for kind, found in compared.items():
            wrong = {*found.missing, *found.different, *found.errors}
            listed, left = self._impossible(kind, environment)
            impossible = [note.shown() for note in listed if note.id in wrong]
            self.not_carried = merge_listed(self.not_carried, impossible, left)
        if major(environment) >= 3 and self.rest is None:
            self.findings.warning(
                f"environment {self.name}",
                f"pools and descriptions could not be compared: {self.access.reason}",
                "set api_host to a host that is inside",
            )
        return compared

    @functools.cached_property
    def _agent(self) -> AgentLane:
        key = self.params["kms_key_id"] or self.bundle.key["kms_key_id"]
        history = self.record is not None
        lane = AgentLane(
            self.aws, dict(self.environment or {}), key, rest=self.rest, access=self.access, history=history
        )
        lane.install()
        return lane

    def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        return self._agent.run(request, timeout=max(self.params["wait_timeout"], AGENT_TIMEOUT))

    def _stores(self, environment: dict[str, Any]) -> dict[str, SecretStore]:
        backend = Backend.of(environment.get("AirflowConfigurationOptions"))
        if backend is None:
            return {}
        return {
            kind: SecretStore(self.aws, kind, backend, version(environment), self.name)
            for kind in ("variables", "connections")
            if backend.prefixes[kind] is not None
        }

    def _impossible(self, kind: str, environment: dict[str, Any]) -> tuple[list[NotCarried], list[dict[str, str]]]:
        """What no lane can bring here as it is, and what was not selected. The import says the same, but it may have
        run elsewhere.
        """
        wanted, refused = from_bundle(kind, self.bundle.read_state(kind))
        items, listed, _renamed = select(kind, self.selections[kind], wanted, refused)
        left = [entry.shown() for entry in listed if entry.reason == NOT_SELECTED]
        store = self._stores(environment).get(kind)
        if store is not None:
            lane = BySecrets(Work(kind, self.name, [], [], Knowledge(kind, None, None)), store, None, None)
            listed += [note for item in items if (note := lane.adapt(item)[1]) and store.refuses(item) is None]
        if major(environment) >= 3:
            masking = Masking(major(environment), environment.get("AirflowConfigurationOptions"))
            rest = self.rest or RestClient(self.aws.client("mwaa"), self.name)
            api = RestLane(rest, kind, version(environment), masking)
            listed += [note for item in items if not masking.exposes(item) and (note := api.adapt(item)[1])]
        return listed, left

    def _dags(self) -> dict[str, int | None]:
        environment = dict(self.environment or {})
        progress(f"environment {self.name}: comparing DAG files")
        sources, planned = self.publishing.planned(environment)
        root = f"{planned['dag_s3_path']}/"
        paths = {item["key"][len(root) :] for item in planned["results"] if item["key"].startswith(root)}
        mine = [source for source in sources if source.name == self.bundle.store.url]
        published = _of_these(planned, mine)
        dags = source_dags(self.inventory, {source.into: set(source.dags.files) for source in mine})
        exported = {path[len("dags/") :] for path in self.bundle.files if path.startswith("dags/")}
        left = {
            dag.dag_id
            for dag, whole in zip(dags, source_dags(self.inventory, {"": exported}))
            if dag.path is None and whole.path is not None
        }
        dags = [dag for dag in dags if dag.dag_id not in left]
        self.not_carried = merge_listed(
            self.not_carried, ({"kind": "dag", "id": dag_id, "reason": NOT_SELECTED} for dag_id in left)
        )
        listed = self._listed()
        target = None
        if self.usable:
            hidden = {item["path"] for item in published["held_back"]}
            expected = {
                dag.dag_id: dag.path
                for dag in dags
                if dag.path is not None and dag.path not in hidden and ("dag", dag.dag_id) not in listed
            }
            timeout = 0 if self.check_mode else self.params["wait_timeout"]
            look = self._look(paths)
            target = wait_for_dags(look, expected, self.name, timeout) if look else None
        parity, listed_here = judge_dags(self.name, published, dags, target, listed, self.findings)
        judge_versions(environment, published, self.findings)
        self.findings.items += published["findings"]
        self.not_carried = merge_listed(self.not_carried, listed_here, published["not_carried"])
        return parity

    @functools.cached_property
    def record(self) -> Record | None:
        """The bundle's history, where it is to be compared and the environment is one whose tasks have a database."""
        if self.params["history"] == "false":
            return None
        found = Record.open(self.bundle)
        if found is None and self.params["history"] == "true":
            raise MigrationError(
                f"the bundle {self.bundle.store.url} has no history: export it with airflow_history_export, or set"
                " history to auto"
            )
        return found

    def _history(self) -> of_history.Outcome | None:
        """What becomes of the history: by digest on Airflow 2, over REST on 3, where that was done before."""
        if self.record is None:
            return None
        environment = dict(self.environment or {})
        if not self.usable or (self.check_mode and major(environment) < 3):
            return of_history.Outcome(parity=of_history.rows_of(self.record))
        closed = interim.Closed.read(self.bundle, environment)
        if major(environment) >= 3:
            outcome = self._history_on_3(self.record, closed, environment)
        elif closed.dropped and closed.holds(self.record):  # on its way into Airflow 3
            outcome = interim.known(self.record, closed, environment)
        else:
            progress(f"environment {self.name}: comparing the history by digest")
            try:
                outcome = interim.verified(self.record, self._ask, interim.place_of(self.record, self.aws))
            except MigrationError as error:
                if error.code != "history":  # the agent's refusal: nothing was imported
                    raise
                outcome = of_history.Outcome(
                    parity=of_history.rows_of(self.record),
                    errors=[("history", f"cannot be compared: {error.message}", "run the history stage")],
                )
        for where, what, mend in outcome.errors:
            self.findings.error(f"{where}{self.findings.source}", what, mend)
        for where, what, mend in outcome.warnings:
            self.findings.warning(f"{where}{self.findings.source}", what, mend)
        self.not_carried = merge_listed(self.not_carried, outcome.listed)
        return outcome

    def _history_on_3(self, record: Record, closed: interim.Closed, environment: dict[str, Any]) -> of_history.Outcome:
        judge_intervals(environment, self.findings)
        outcome = interim.known(record, closed, environment)
        if closed.unpaused:
            self.findings.warning(
                f"environment {self.name}",
                f"these DAGs were not paused before the history came: {', '.join(closed.unpaused)}",
                "unpause them at the cutover",
            )
        if self.rest is None:
            self.findings.warning(
                f"environment {self.name}",
                f"its runs could not be looked at: {self.access.reason}",
                "set api_host to a host that is inside",
            )
        elif closed.runs:
            _totals, chosen = over_rest.sample(record)
            known = [
                row["dag_id"] for page in self.rest.pages("/dags", "dags", {"exclude_stale": False}) for row in page
            ]
            seen = over_rest.compare(
                self.rest, closed.runs, chosen, known, str(environment["AirflowVersion"]), progress
            )
            outcome.errors += seen.errors
            outcome.warnings += seen.warnings
            outcome.listed += seen.listed
        return outcome

    def _look(self, paths: set[str]) -> Callable[[], TargetDags] | None:
        """How the environment's DAGs are seen: by REST, on 2.x otherwise by the agent; None where they cannot be."""
        rest = self.rest
        if rest is not None:
            return lambda: target_dags(rest, paths)
        if self.check_mode:
            return None
        if major(dict(self.environment or {})) < 3:
            return lambda: read_dags(*_lists(self._ask({"op": "list_dags"})), paths)
        self.findings.warning(
            f"environment {self.name}",
            f"its DAGs could not be looked at: {self.access.reason}",
            "set api_host to a host that is inside",
        )
        return None

    def _all_findings(self) -> list[dict[str, Any]]:
        """Those of this stage, then those of earlier ones (the export's are sentences), each once."""
        everything: list[dict[str, Any]] = []
        for finding in [*self.findings.items, *(self.inventory.get("findings") or []), *self.params["findings"]]:
            if not isinstance(finding, Mapping):
                finding = {"severity": "note", "where": "source", "what": str(finding), "mend": ""}
            if dict(finding) not in everything:
                everything.append(dict(finding))
        return everything
