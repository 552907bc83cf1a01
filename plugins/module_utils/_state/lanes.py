# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The lanes into an environment's state, each with the same few methods, and which one is taken.

PRIVATE to the collection: no promise is made to other collections.

A lane says of each item what it can bring (adapt), shows what is there (read), says what it cannot change (unreachable)
and makes the changes (apply). What is shared, comparing, listing and reporting, is in upsert.py.
"""

from __future__ import annotations

import base64
import re
import secrets
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, Optional

from ansible_collections.mwaa.migration.plugins.module_utils._bundle import (
    FIELDS,
    FOUND,
    SINGULAR,
    Bundle,
    Ledger,
    digest,
)
from ansible_collections.mwaa.migration.plugins.module_utils._errors import MigrationError
from ansible_collections.mwaa.migration.plugins.module_utils._mwaa import limits
from ansible_collections.mwaa.migration.plugins.module_utils._mwaa.access import Access
from ansible_collections.mwaa.migration.plugins.module_utils._mwaa.cli import Cli
from ansible_collections.mwaa.migration.plugins.module_utils._progress import progress
from ansible_collections.mwaa.migration.plugins.module_utils._state.agent import AgentLane
from ansible_collections.mwaa.migration.plugins.module_utils._state.airflow_agent import (
    UNNAMEABLE,
    fits_execution_api,
)
from ansible_collections.mwaa.migration.plugins.module_utils._state.compare import KEPT, Change, Hidden
from ansible_collections.mwaa.migration.plugins.module_utils._state.model import (
    Connection,
    Item,
    NotCarried,
    Variable,
    as_state,
    json_object,
    values,
)
from ansible_collections.mwaa.migration.plugins.module_utils._state.rest import (
    Masking,
    RestLane,
    Unlistable,
    without_empty_texts,
)
from ansible_collections.mwaa.migration.plugins.module_utils._state.secrets import Held, SecretStore, write_connection

LANES = ("auto", "rest", "cli", "agent", "secrets_manager")
METASTORE, SECRETS_MANAGER = "metastore", "secrets_manager"
LEDGER_EVERY = 200  # items between two writings of the ledger
NO_KEY = "needs a key to seal its request with: set kms_key_id or bundle"

Current = dict[str, dict[str, Any]]
Adapted = tuple[Optional[Item], Optional[NotCarried]]


# ------------------------------------------------------------------------------------------------------------- choosing


class Choice(NamedTuple):
    lane: str
    reason: str


def choose_lane(asked: str, kind: str, version: tuple[int, ...], key: str | None, access: Access) -> Choice:
    """The lane and, in one sentence, why. key: the KMS key that could seal a request, None where there is none.

    Raises MigrationError where the lane that was asked for, or any, cannot be had.
    """
    airflow = "Airflow " + ".".join(map(str, version))
    old = version < limits.REST_SINCE
    if asked == "secrets_manager":
        if kind != "pools":
            return Choice("secrets_manager", "It was asked for.")
        lane, reason = choose_lane("auto", kind, version, key, access)
        return Choice(lane, f"Pools are always in Airflow's own database. {reason}")
    if asked == "cli":
        if not access.cli:
            raise MigrationError(f"lane cli cannot be had: {access.reason} Set api_host to a host that is inside")
        return Choice("cli", "It was asked for.")
    if asked == "rest":
        if old:
            raise MigrationError(
                f"lane rest cannot be had: {airflow} has no REST API in MWAA (it came with"
                f" {'.'.join(map(str, limits.REST_SINCE))}); use lane agent, or upgrade the environment first"
            )
        if not access.rest:
            raise MigrationError(
                f"lane rest cannot be had: {access.reason} Set api_host to a host that is inside, or use lane auto"
            )
        return Choice("rest", "It was asked for.")
    if asked == "agent":
        if version[0] >= 3 and kind != "variables":
            raise MigrationError(
                f"lane agent cannot write {kind} on {airflow}, whose tasks have no database: use lane rest or auto"
            )
        if not key:
            raise MigrationError(f"lane agent {NO_KEY}")
        return Choice("agent", "It was asked for.")
    if version[0] >= 3:
        return _choose_on_3(kind, airflow, key, access)
    if key:
        if old:
            start = "the CLI" if access.cli else "its schedule"
            return Choice(
                "agent",
                f"{airflow} has no REST API in MWAA, so the agent, started by {start}, compares and writes everything.",
            )
        away = "" if access.rest else f" It starts by its schedule. {access.reason}"
        reason = (
            f"One DAG run on {airflow} applies and compares everything, and its audit log shows nothing of it.{away}"
        )
        return Choice("agent", reason)
    if access.rest:
        return Choice(
            "rest", f"{airflow} could take everything in one DAG run, but neither kms_key_id nor bundle gives a key."
        )
    if kind == "variables" and access.cli:
        return Choice(
            "cli", f"{airflow} has no REST API in MWAA, and neither kms_key_id nor bundle gives a key for the agent."
        )
    raise MigrationError(f"{kind} cannot enter {airflow} without the agent, and the agent {NO_KEY}. {access.reason}")


def _choose_on_3(kind: str, airflow: str, key: str | None, access: Access) -> Choice:
    if access.rest:
        return Choice("rest", f"Tasks of {airflow} cannot reach its database, so single REST calls write the secrets.")
    if kind == "variables" and key:
        return Choice("agent", f"A task of {airflow} can write variables, and starts by its schedule. {access.reason}")
    ways = "set api_host to a host that is inside"
    if kind == "connections":
        ways += ", or use lane secrets_manager"
    if kind == "variables":
        ways += ", use lane secrets_manager, or set kms_key_id or bundle for the agent"
    raise MigrationError(f"{kind} enter {airflow} by REST alone. {access.reason} {ways[0].upper()}{ways[1:]}")


# ---------------------------------------------------------------------------------------------------------- the job


class Outcome:
    """What became of a change: its final action, and why not where it failed."""

    def __init__(self, change: Change, lane: str = "rest", store: str = METASTORE):
        self.change, self.lane, self.store = change, lane, store
        self.action = change.action
        self.error: str | None = None
        self.reason: str | None = None
        if change.unknown and not change.changed:
            self.reason = (
                f"{', '.join(change.unknown)} cannot be read back and nothing is known of it, so it counts as different"
            )
        elif self.action in ("kept", "conflict"):
            self.reason = "exists with another content"

    @property
    def changed(self) -> bool:
        return self.error is None and self.action in ("created", "updated", "deleted", "unknown")


class Knowledge:
    """What is known of fields that cannot be read: from the agent, otherwise from the ledger of what was last applied.

    Ids are the target's.
    """

    def __init__(self, kind: str, bundle: Bundle | None, ledger: Ledger | None):
        self.kind, self.bundle, self.ledger = kind, bundle, ledger
        self.key = bundle.digest_key if bundle else secrets.token_bytes(32)
        self.digests: dict[str, dict[str, str]] = {}  # the agent's
        self._noted = 0

    @property
    def encoded_key(self) -> str:
        return base64.b64encode(self.key).decode()

    def same(self, identifier: str, name: str, value: Any) -> Optional[bool]:
        for known in (self.digests.get(identifier), self.ledger.get(self.kind, identifier) if self.ledger else None):
            if known and name in known:
                return known[name] == digest(self.key, self.kind, identifier, name, value)
        return None

    def of(self, item: Item) -> dict[str, str]:
        return {name: digest(self.key, self.kind, item.id, name, value) for name, value in values(item).items()}

    def note(self, identifier: str, digests: dict[str, str] | None, *, brought: bool = True) -> None:
        """Into the ledger: what the target now holds; None where it holds it no more. brought: by this run."""
        known = self.ledger.get(self.kind, identifier) if self.ledger else None
        if self.ledger is None or (digests is None and known is None):
            return
        if digests is not None and not brought and (known is None or FOUND in known):
            digests = {**digests, FOUND: ""}
        self.ledger.put(self.kind, identifier, digests)
        self._noted += 1
        if self._noted >= LEDGER_EVERY:
            self.save()

    def save(self) -> None:
        if self.ledger is not None:
            self.ledger.save()
        self._noted = 0


@dataclass
class Work:
    """One call of a module, once it is known what is wanted and where. listed and notes grow while it is done."""

    kind: str
    environment: str
    wanted: list[Item]
    listed: list[NotCarried]
    knowledge: Knowledge
    on_conflict: str = "overwrite"
    prune: bool = False
    check: bool = False
    timeout: float = 1200
    others: set[str] = field(default_factory=set)
    becomes: tuple[int, ...] = ()  # the Airflow version that the environment is upgraded to then
    notes: list[str] = field(default_factory=list)
    before_writing: Callable[[], None] = lambda: None

    @property
    def index(self) -> dict[str, int]:
        return {item.id: index for index, item in enumerate(self.wanted)}

    @property
    def spared(self) -> set[str]:
        """Not to be pruned: the bundle has them, though they are not carried, or another source brings them."""
        return {entry.id for entry in self.listed} | self.others

    @property
    def prunable(self) -> set[str] | None:
        """What prune may delete: with a bundle, only what that bundle brought; None: anything."""
        ledger = self.knowledge.ledger
        return None if ledger is None else ledger.ids(self.kind)

    def list(self, identifier: str, reason: str) -> None:
        self.listed.append(NotCarried(SINGULAR[self.kind], identifier, reason))


class Agent:
    """Asks the agent, which is installed when it is first needed."""

    def __init__(self, work: Work, lane: AgentLane):
        self.work, self.lane = work, lane

    def ask(self, request: dict[str, Any]) -> dict[str, Any]:
        self.lane.install()
        return self.lane.run({**request, "digest_key": self.work.knowledge.encoded_key}, self.work.timeout)

    def digests(self, identifiers: Iterable[str]) -> dict[str, dict[str, str]]:
        """{id: {field: digest}} of those that are there; nothing is known of what could not be read: {}."""
        answer = self.ask({"op": "digest_state", "ids": {self.work.kind: list(identifiers)}})
        found = (answer.get("digests") or {}).get(self.work.kind) or {}
        unreadable = (answer.get("errors") or {}).get(self.work.kind) or {}
        return {identifier: known or {} for identifier, known in found.items() if known or identifier in unreadable}

    def write_by_task(self, outcomes: list[Outcome]) -> None:
        """Variables through a task of Airflow 3."""
        items = [outcome.change.item for outcome in outcomes if outcome.change.item]
        if not items:
            return
        kind = self.work.kind
        result = self.ask({"op": "import_state", kind: as_state(items)})
        statuses = (result.get("results") or {}).get(kind) or {}
        reasons = (result.get("reasons") or {}).get(kind) or {}
        for outcome in outcomes:
            identifier = outcome.change.id
            if statuses.get(identifier) not in ("created", "updated", "unchanged"):
                outcome.error = reasons.get(identifier, "the agent did not say why")
                continue
            outcome.action = "created" if statuses[identifier] == "created" else "updated"
            if outcome.change.item:
                self.work.knowledge.note(identifier, self.work.knowledge.of(outcome.change.item))


# ------------------------------------------------------------------------------------------------------------- lanes


class Lane:
    """What every lane can do. judges: it finds conflicts out by itself, while it writes."""

    name = ""
    store = METASTORE
    judges = False

    def __init__(self, work: Work):
        self.work = work

    def adapt(self, item: Item) -> Adapted:
        """The item as this lane can bring it (None: not at all), and what of it does not arrive as it is."""
        return item, None

    def read(self, items: list[Item]) -> Current:
        """What is there, as far as it shows; what is hidden may be learned here (not in check mode)."""
        raise NotImplementedError

    def remembered(self, identifier: str, name: str, value: Any) -> Optional[bool]:
        return self.work.knowledge.same(identifier, name, value)

    def unreachable(self, change: Change) -> str | None:
        """Why this change cannot be made although the item as such could be."""
        return None

    def outcome(self, change: Change) -> Outcome:
        return Outcome(change, self.name, self.store)

    def apply(self, outcomes: list[Outcome]) -> None:
        """Make the changes, fill in what became of each, and note it in the ledger. May add outcomes."""
        raise NotImplementedError

    def writes(self, outcomes: list[Outcome]) -> bool:
        """Whether apply() may change anything in the target."""
        return any(outcome.change.writes or outcome.changed for outcome in outcomes)

    def _hidden(self, items: Iterable[Item]) -> Current:
        return {item.id: {name: Hidden() for name in FIELDS[self.work.kind]} for item in items}


class ByRest(Lane):
    """Airflow's REST API. agent: compares secrets on Airflow 3, and writes what the audit log would show."""

    name = "rest"

    def __init__(self, work: Work, api: RestLane, agent: Agent | None):
        super().__init__(work)
        self.api = api
        self.agent = agent if api.major >= 3 else None

    def _by_task(self, item: Item | None) -> bool:
        return self.agent is not None and item is not None and self.api.masking.exposes(item) is not None

    def adapt(self, item: Item) -> Adapted:
        return for_task(item) if self._by_task(item) else self.api.adapt(item)

    def read(self, items: list[Item]) -> Current:
        current = self.api.read()
        hidden = [
            item.id for item in items if any(isinstance(value, Hidden) for value in current.get(item.id, {}).values())
        ]
        if self.agent and hidden and not self.work.check:
            self.work.knowledge.digests = self.agent.digests(hidden)
        return current

    def unreachable(self, change: Change) -> str | None:
        return self.api.unreachable(change)

    def outcome(self, change: Change) -> Outcome:
        return Outcome(change, "agent" if self._by_task(change.item) else "rest")

    def apply(self, outcomes: list[Outcome]) -> None:
        knowledge = self.work.knowledge
        by_id = {outcome.change.id: outcome for outcome in outcomes}

        def done(changes: list[Change]) -> None:
            for change in changes:
                if by_id[change.id].action == "unknown":
                    by_id[change.id].action = "updated"
                knowledge.note(change.id, knowledge.of(change.item) if change.item else None)

        for outcome in outcomes:
            if outcome.action == "unchanged" and knowledge.digests.get(outcome.change.id) and outcome.change.item:
                # known for certain now: remembered for check mode, which may not ask
                knowledge.note(outcome.change.id, knowledge.of(outcome.change.item), brought=False)
        writes = [outcome for outcome in outcomes if outcome.change.writes]
        for identifier, error in self.api.apply([o.change for o in writes if o.lane == "rest"], done).items():
            by_id[identifier].error = error
        if self.agent:
            self.agent.write_by_task([outcome for outcome in writes if outcome.lane == "agent"])


class ByAgent(Lane):
    """One run on Airflow 2 applies everything in one transaction; none is made where REST shows that all is equal.

    api: None where REST cannot be had: then the agent compares by itself, and check mode knows the ledger alone.
    """

    name = "agent"
    judges = True

    def __init__(self, work: Work, agent: Agent, api: RestLane | None):
        super().__init__(work)
        self.agent, self.api = agent, api
        self.blind = api is None

    def adapt(self, item: Item) -> Adapted:
        if not isinstance(item, Connection) or self.work.becomes < (3,):
            return item, None
        if item.extra and json_object(item.extra) is None:
            reason = "extra is no JSON object: with one such connection Airflow 3 lists none at all"
            return None, NotCarried("connection", item.id, reason)
        return without_empty_texts(item, self.work.becomes[0])

    def read(self, items: list[Item]) -> Current:
        try:
            if self.api:
                return self.api.read()
        except Unlistable:
            if self.work.check and self.api:
                return self.api.read_each(item.id for item in items)
            self.blind = True
        return self._hidden(items)

    def remembered(self, identifier: str, name: str, value: Any) -> Optional[bool]:
        # the ledger is memory, not proof: the agent is asked wherever it may be
        return super().remembered(identifier, name, value) if self.work.check else None

    def writes(self, outcomes: list[Outcome]) -> bool:
        needed = any(outcome.change.writes or outcome.change.action == "conflict" for outcome in outcomes)
        return needed or (self.blind and bool(outcomes or self.work.prune))

    def apply(self, outcomes: list[Outcome]) -> None:
        work = self.work
        if not self.writes(outcomes):
            return
        kind, prunable = work.kind, work.prunable
        result = self.agent.ask(
            {
                "op": "import_state",
                kind: as_state([adapted for item in work.wanted if (adapted := self.adapt(item)[0]) is not None]),
                "on_conflict": work.on_conflict,
                "prune": work.prune if prunable is None or not work.prune else sorted(prunable),
                "spared": sorted(work.spared),
            }
        )
        statuses = dict((result.get("results") or {}).get(kind) or {})
        reasons = (result.get("reasons") or {}).get(kind) or {}
        if not result.get("applied"):
            refuse(work, reasons)
        digests = (result.get("digests") or {}).get(kind) or {}
        for outcome in outcomes:
            outcome.action = statuses.pop(outcome.change.id, "unchanged")
            outcome.reason = reasons.get(outcome.change.id)
        index = work.index
        for identifier, status in statuses.items():  # what REST did not show when it was compared
            outcomes.append(self.outcome(Change(identifier, index.get(identifier), None, status)))
        for outcome in outcomes:
            if outcome.action == "refused":  # this Airflow's tables are narrower than those of today
                work.list(outcome.change.id, outcome.reason or "the agent did not say why")
            else:
                self._check_arrival(outcome, digests.get(outcome.change.id))
        outcomes[:] = [outcome for outcome in outcomes if outcome.action != "refused"]

    def _check_arrival(self, outcome: Outcome, digests: dict[str, str] | None) -> None:
        item, knowledge = outcome.change.item, self.work.knowledge
        if outcome.action == "deleted":
            knowledge.note(outcome.change.id, None)
        elif item is not None and digests is not None and outcome.action != "kept":
            fine = knowledge.of(item)
            other = sorted(name for name, known in digests.items() if fine.get(name) != known)
            if other:
                self.work.list(item.id, f"{', '.join(other)}: this Airflow stores it differently")
            knowledge.note(item.id, digests, brought=outcome.action != "unchanged")


def for_task(item: Item) -> Adapted:
    """Lane.adapt of what a task of Airflow 3 writes."""
    if fits_execution_api(item.id):
        return item, None
    return None, NotCarried(SINGULAR[item.kind], item.id, UNNAMEABLE)


class ByTask(Lane):
    """Variables of an Airflow 3 whose REST API cannot be reached: a task sees and writes them one by one."""

    name = "agent"

    def __init__(self, work: Work, agent: Agent):
        super().__init__(work)
        self.agent = agent

    def adapt(self, item: Item) -> Adapted:
        return for_task(item)

    def read(self, items: list[Item]) -> Current:
        if self.work.prune:
            self.work.notes.append("nothing was pruned: a task of Airflow 3 cannot list variables")
        if self.work.check:
            return self._hidden(items)
        known = self.work.knowledge
        known.digests = self.agent.digests(item.id for item in items)
        return self._hidden(item for item in items if item.id in known.digests)

    def apply(self, outcomes: list[Outcome]) -> None:
        self.agent.write_by_task([outcome for outcome in outcomes if outcome.change.writes])


class ByCli(Lane):
    """Airflow's CLI, which has no exit code, no bulk import, and notes its arguments in the audit log.

    So it takes what holds no secret by REST's own measure, and only words that need no quotes: MWAA does not say how it
    takes a command apart.
    """

    name = "cli"
    NOISE = re.compile(r"^\s|^\[?\d{4}-\d\d-\d\d|warn|deprecat", re.IGNORECASE)
    NEVER = "secrets never travel by cli, whose arguments stand in Airflow's audit log"

    def __init__(self, work: Work, cli: Cli, masking: Masking):
        super().__init__(work)
        self.cli = cli
        self._masking = masking.switched_on()  # what is secret does not depend on what this Airflow hides

    def _hides(self, item: Item) -> bool:
        return self._masking.hides(item.id) or self._masking.exposes(item) is not None

    def adapt(self, item: Item) -> Adapted:
        def refused(reason: str) -> Adapted:
            return None, NotCarried(SINGULAR[self.work.kind], item.id, reason)

        if isinstance(item, Connection):
            return refused(f"{self.NEVER}; use lane agent, rest or secrets_manager")
        if not isinstance(item, Variable):
            return refused("MWAA's CLI has no command for pools; use lane agent or rest")
        if self._hides(item):
            return refused(f"{self.NEVER}, and its name or a field of its JSON looks like one; use lane agent")
        for what, text in (("key", item.id), ("value", item.value)):
            if not re.fullmatch(r"[A-Za-z0-9_@%+=:,./][A-Za-z0-9_@%+=:,./-]*", text):
                return refused(f"its {what} needs quotes, and how MWAA reads them is not documented; use lane agent")
        if item.description is None:
            return item, None
        note = NotCarried("variable", item.id, "description: MWAA's CLI of every version knows no option for it")
        return replace(item, description=None), note

    def read(self, items: list[Item]) -> Current:
        if not items and not (self.work.prune and self.work.kind == "variables"):
            return {}  # nothing that it takes
        listed = self.cli.run("variables list -o json")
        if listed.failed or not isinstance(listed.parsed, list):
            raise MigrationError(
                f"environment {self.work.environment}: airflow variables list failed: {listed.reason or 'no list'}"
            )
        there = {str(row["key"]) for row in listed.parsed if isinstance(row, dict) and "key" in row}
        wanted = [item.id for item in items if item.id in there]
        with ThreadPoolExecutor(limits.CLI_AT_ONCE) as pool:
            found = dict(zip(wanted, pool.map(self._value, wanted)))
        other: dict[str, Any] = {"value": Hidden(present=True), "description": None}
        return {identifier: found.get(identifier, other) for identifier in there}

    def _value(self, identifier: str) -> dict[str, Any]:
        result = self.cli.run(f"variables get {identifier}")
        *before, last = result.stdout.splitlines() or [""]
        # Airflow's warnings and records precede the value; anything else may be its first lines
        known = last and not result.failed and all(self.NOISE.search(line) for line in before)
        return {"value": last if known else Hidden(present=True), "description": None}

    def unreachable(self, change: Change) -> str | None:
        if change.item is None and not re.fullmatch(r"[A-Za-z0-9_@%+=:,./][A-Za-z0-9_@%+=:,./-]*", change.id):
            return "its key needs quotes, and how MWAA reads them is not documented"
        return None

    def apply(self, outcomes: list[Outcome]) -> None:
        todo = [outcome for outcome in outcomes if outcome.change.writes]
        with ThreadPoolExecutor(limits.CLI_AT_ONCE) as pool:
            for number, outcome in enumerate(pool.map(self._write, todo), 1):
                item = outcome.change.item
                if not outcome.error:
                    self.work.knowledge.note(outcome.change.id, self.work.knowledge.of(item) if item else None)
                if number % 50 == 0:
                    progress(f"variables of {self.work.environment}: {number} of {len(todo)} by CLI")

    def _write(self, outcome: Outcome) -> Outcome:
        item = outcome.change.item
        command = f"variables set {item.id} {item.value}" if isinstance(item, Variable) else ""
        try:
            result = self.cli.run(command or f"variables delete {outcome.change.id}")
        except MigrationError as error:
            outcome.error = error.message
            return outcome
        if result.failed:
            outcome.error = result.reason
        elif outcome.action == "unknown":
            outcome.action = "updated"
        return outcome


class BySecrets(Lane):
    """AWS Secrets Manager, which Airflow asks before its database. What has moved there is taken out of the database.

    metastore: how the database is seen and cleaned; None where nothing can.
    """

    name = store = SECRETS_MANAGER

    def __init__(self, work: Work, secret: SecretStore, api: RestLane | None, agent: Agent | None):
        super().__init__(work)
        self.secret, self.api, self.agent = secret, api, agent
        self.held: dict[str, Held] = {}
        self.in_database: set[str] | None = None  # None: nobody can see

    def adapt(self, item: Item) -> Adapted:
        reason = self.secret.refuses(item)
        notes, kind = [], SINGULAR[self.work.kind]
        if reason is None and isinstance(item, Connection):
            losses = write_connection(item, self.secret.version).losses
            grave = [name for name, back in losses.items() if back or getattr(item, name)]
            if grave:
                reason = f"{', '.join(grave)}: this Airflow reads it differently out of a secret; use another lane"
            elif losses:
                how = "null" if any(back is None for back in losses.values()) else "an empty text"
                notes.append(f"{', '.join(losses)}: arrives as {how}")
                item = replace(item, **losses)
        if reason is not None:
            return None, NotCarried(kind, item.id, reason)
        if item.description is not None:
            notes.append("description: a secret holds none")
        return item, NotCarried(kind, item.id, "; ".join(notes)) if notes else None

    def read(self, items: list[Item]) -> Current:
        wanted = {item.id: item for item in items}
        self.held = self.secret.read(wanted)
        database = self._database(wanted)
        current: Current = {}
        for identifier, held in self.held.items():
            item = wanted.get(identifier)
            if held.deleted or (item is None and not held.ours):
                continue  # for Airflow there is none; or it is somebody else's
            fields = self._fields(held)
            current[identifier] = {**fields, "description": item.description if item else None}
        if self.work.on_conflict != "overwrite":  # then what the database has counts too
            current = {**{key: database[key] for key in database if key in wanted}, **current}
        return current

    def _database(self, wanted: dict[str, Item]) -> Current:
        """What Airflow's database has. Where REST does not tell, the agent is asked if it matters."""
        if self.api:
            database = self.api.read()
            self.in_database = set(database)
            return database
        conflict = self.work.on_conflict
        if conflict == "overwrite" or not wanted:
            return {}
        if self.agent is None:
            raise MigrationError(
                f"on_conflict {conflict} needs to see what environment {self.work.environment} has in its database,"
                " and nothing here can: set api_host, or kms_key_id or bundle for the agent"
            )
        if self.work.check:
            self.work.notes.append(
                "what Airflow's database has of these is not known in check mode, and counts as none"
            )
            return {}
        self.work.knowledge.digests = self.agent.digests(wanted)
        return self._hidden(wanted[identifier] for identifier in self.work.knowledge.digests)

    def _fields(self, held: Held) -> dict[str, Any]:
        fields = self.secret.fields(held)
        return {name: Hidden() for name in FIELDS[self.work.kind]} if fields is None else fields

    def remembered(self, identifier: str, name: str, value: Any) -> Optional[bool]:
        if identifier in self.held or identifier not in self.work.knowledge.digests:
            return None  # what is not readable here is no text of ours
        return super().remembered(identifier, name, value)

    @property
    def _cleaner(self) -> Agent | None:
        return self.agent if self.secret.version < (3,) else None  # a task of Airflow 3 deletes nothing

    def _stays(self, identifier: str) -> str | None:
        """Why what is in the database under this id cannot be taken out."""
        if self._cleaner or not self.api:
            return None
        return self.api.unreachable(Change(identifier, None, None, "deleted"))

    def _leaves(self, identifier: str) -> bool:
        """Whether a copy in the database is not ours to take out: a secret answered before it already, and what the
        target has otherwise is to be kept.
        """
        held = self.held.get(identifier)
        answered = held is not None and not held.deleted
        return identifier in KEPT[self.work.kind] or (answered and self.work.on_conflict != "overwrite")

    def _moves(self, identifier: str) -> bool:
        inside = self.in_database is not None and identifier in self.in_database
        return inside and not self._leaves(identifier) and self._stays(identifier) is None

    def writes(self, outcomes: list[Outcome]) -> bool:
        unseen = self.in_database is None and self._cleaner is not None  # it may find copies to take out
        return super().writes(outcomes) or (unseen and not all(self._leaves(one.change.id) for one in outcomes))

    def outcome(self, change: Change) -> Outcome:
        outcome = super().outcome(change)
        held = self.held.get(change.id)
        if change.action == "unchanged" and (held is None or self._moves(change.id)):
            outcome.action = "updated"
            outcome.reason = "it moves out of Airflow's database"
        elif change.action == "kept" and held is None:
            outcome.store = METASTORE
        elif held and held.deleted and change.writes and change.item:
            outcome.action, outcome.reason = "updated", "it was scheduled for deletion and is restored"
        elif held and not held.ours and outcome.action == "updated":
            outcome.reason = "another's secret with another content"
        return outcome

    def apply(self, outcomes: list[Outcome]) -> None:
        knowledge = self.work.knowledge
        todo = [o for o in outcomes if o.change.writes or (o.action == "updated" and o.change.id not in self.held)]
        with ThreadPoolExecutor(self.secret.AT_ONCE) as pool:
            for number, outcome in enumerate(pool.map(self._write, todo), 1):
                item = outcome.change.item
                if not outcome.error:
                    knowledge.note(outcome.change.id, knowledge.of(item) if item else None)
                if number % 200 == 0:
                    progress(f"{self.work.kind} of {self.work.environment}: {number} of {len(todo)} secrets")
        arrived = [o for o in outcomes if o.change.item and not o.error and o.action not in ("kept", "conflict")]
        self._clean(arrived)

    def _write(self, outcome: Outcome) -> Outcome:
        item, held = outcome.change.item, self.held.get(outcome.change.id)
        try:
            if item is None:
                self.secret.delete(outcome.change.id)
            else:
                self.secret.put(item, held)
                outcome.action = "created" if outcome.action == "created" else "updated"
        except MigrationError as error:
            outcome.error = error.message
        return outcome

    def _clean(self, arrived: list[Outcome]) -> None:
        """Take out of the database what Secrets Manager answers for now."""
        by_id = {outcome.change.id: outcome for outcome in arrived}
        moved = sorted(by_id if self.in_database is None else set(by_id) & self.in_database)
        moved = [identifier for identifier in moved if not self._leaves(identifier)]
        if not moved:
            return
        left: dict[str, str] = {}
        if self._cleaner:
            answer = self._cleaner.ask({"op": "import_state", self.work.kind: {}, "prune": moved})
            gone = list(((answer.get("results") or {}).get(self.work.kind)) or {})
        elif self.api:
            left = {identifier: reason for identifier in moved if (reason := self._stays(identifier))}
            changes = [Change(identifier, None, None, "deleted") for identifier in moved if identifier not in left]
            errors = self.api.apply(changes, lambda _done: None)
            for identifier, reason in errors.items():
                by_id[identifier].error = f"it is still in Airflow's database: {reason}"
            gone = [change.id for change in changes if change.id not in errors]
        else:
            self.work.notes.append(
                f"copies of {self.work.kind} in Airflow's database could not be looked for; Secrets Manager is asked"
                " first, so it answers for them"
            )
            return
        for identifier in gone:
            if by_id[identifier].action == "unchanged":
                by_id[identifier].action = "updated"
                by_id[identifier].reason = "it moves out of Airflow's database"
        if left:
            self.work.notes.append(
                f"copies stay in Airflow's database, and Secrets Manager answers for them: {named(left.items())}"
            )
        if gone:
            self.work.notes.append(f"{len(gone)} {self.work.kind} were taken out of Airflow's database")


def refuse(work: Work, reasons: dict[str, str | None]) -> None:
    """Raises MigrationError naming what keeps everything from being written, where there is anything."""
    if reasons:
        raise MigrationError(
            f"nothing was written to environment {work.environment}: {len(reasons)} {work.kind} are refused:"
            f" {named(sorted(reasons.items()), len(reasons))}",
            conflicts=sorted(reasons),
        )


SHOWN = 10  # items named in one sentence; results has all


def named(pairs: Any, most: int = SHOWN) -> str:
    pairs = list(pairs)
    shown = "; ".join(f"{identifier} ({reason})" if reason else str(identifier) for identifier, reason in pairs[:most])
    return shown + (f"; and {len(pairs) - most} more" if len(pairs) > most else "")
