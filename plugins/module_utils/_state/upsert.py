# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What mwaa_variable_upsert, mwaa_connection_upsert and mwaa_pool_upsert do, from their options to their result.

PRIVATE to the collection: no promise is made to other collections.
"""

from __future__ import annotations

import base64
import secrets
from collections.abc import Callable
from typing import Any, NamedTuple, Optional

from ansible_collections.mwaa.migration.plugins.module_utils._bundle import SINGULAR, Bundle, Ledger, digest, open_store
from ansible_collections.mwaa.migration.plugins.module_utils._errors import MigrationError
from ansible_collections.mwaa.migration.plugins.module_utils._mwaa import limits
from ansible_collections.mwaa.migration.plugins.module_utils._mwaa.environment import describe
from ansible_collections.mwaa.migration.plugins.module_utils._mwaa.rest import RestClient
from ansible_collections.mwaa.migration.plugins.module_utils._state.agent import AgentLane
from ansible_collections.mwaa.migration.plugins.module_utils._state.compare import Change, Hidden, compare, diff
from ansible_collections.mwaa.migration.plugins.module_utils._state.model import (
    Item,
    NotCarried,
    as_state,
    from_bundle,
    from_options,
    values,
)
from ansible_collections.mwaa.migration.plugins.module_utils._state.rest import Masking, RestLane, Unlistable

LEDGER_EVERY = 200  # items between two writings of the ledger
SHOWN = 10  # items named in one sentence; results has all


def argument_spec(kind: str, fields: dict[str, Any]) -> dict[str, Any]:
    """The options of the module for `kind`. fields: those of one item, without demands: model.py names all faults."""
    return {
        "environment": {"type": "str", "required": True},
        kind: {"type": "list", "elements": "dict", "options": fields},
        "bundle": {"type": "str"},
        "lane": {"type": "str", "choices": ["auto", "rest", "agent"], "default": "auto"},
        "on_conflict": {"type": "str", "choices": ["overwrite", "keep", "fail"], "default": "overwrite"},
        "prune": {"type": "bool", "default": False},
        "kms_key_id": {"type": "str", "no_log": False},
        "wait_timeout": {"type": "int", "default": 1200},
    }


class Choice(NamedTuple):
    lane: str
    reason: str


def choose_lane(asked: str, version: tuple[int, ...], key: str | None) -> Choice:
    """The lane and, in one sentence, why. key: the KMS key that could seal a request, None where there is none."""
    airflow = "Airflow " + ".".join(map(str, version))
    if asked == "agent":
        if version[0] >= 3:
            raise MigrationError(
                f"lane agent cannot write on {airflow}, whose tasks have no database: use lane rest or auto"
            )
        if not key:
            raise MigrationError("lane agent needs a key to seal its request with: set kms_key_id or bundle")
        return Choice("agent", "It was asked for.")
    if asked == "rest":
        return Choice("rest", "It was asked for.")
    if version[0] >= 3:
        return Choice("rest", f"Tasks of {airflow} cannot reach its database, so single REST calls write the secrets.")
    if key:
        return Choice(
            "agent", f"One DAG run on {airflow} applies and compares everything, secrets too, and leaves no trace."
        )
    return Choice(
        "rest", f"{airflow} could take everything in one DAG run, but neither kms_key_id nor bundle gives a key."
    )


def upsert(ctx: Any, kind: str) -> dict[str, Any]:
    """The body of the three modules. Raises MigrationError; nothing is written before everything has been checked."""
    params = ctx.params
    listed: list[NotCarried] = []
    bundle: Bundle | None = None
    if params["bundle"] is None:
        wanted = from_options(kind, params[kind] or [])
    else:
        bundle = Bundle.open(open_store(params["bundle"], ctx.aws), ctx.aws, params["kms_key_id"])
        wanted, listed = from_bundle(kind, bundle.read_state(kind))
    environment = _environment(ctx, params["environment"])
    if environment is None:
        changes = compare(kind, wanted, {}, lambda *_field: None)
        choice = Choice(
            params["lane"], f"Environment {params['environment']} does not exist yet: everything would be created."
        )
        return _result(ctx, kind, choice, [Outcome(change) for change in changes], listed)
    version = tuple(int(part) for part in environment["AirflowVersion"].split(".")[:3])
    key = params["kms_key_id"] or (bundle.key["kms_key_id"] if bundle else None)
    choice = choose_lane(params["lane"], version, key)
    rest = RestClient(ctx.aws.client("mwaa"), environment["Name"])
    job = Job(
        ctx,
        kind,
        environment["Name"],
        choice,
        wanted,
        listed,
        RestLane(rest, kind, version, Masking(version[0], environment.get("AirflowConfigurationOptions"))),
        AgentLane(ctx.aws, environment, key, rest=rest) if key else None,
        Knowledge(kind, bundle, bundle.ledger(environment["Name"]) if bundle else None),
    )
    return job.by_agent() if choice.lane == "agent" else job.by_rest()


class Outcome:
    """What became of a change: its final action, and why not where it failed."""

    def __init__(self, change: Change, lane: str = "rest"):
        self.change, self.lane = change, lane
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
    """What is known of fields that REST hides: from the agent, otherwise from the ledger of what was last applied."""

    def __init__(self, kind: str, bundle: Bundle | None, ledger: Ledger | None):
        self.kind, self.bundle, self.ledger = kind, bundle, ledger
        self.key = bundle.digest_key if bundle else secrets.token_bytes(32)
        self.digests: dict[str, dict[str, str]] = {}  # the agent's
        self._noted = 0

    @property
    def encoded_key(self) -> str:
        return base64.b64encode(self.key).decode()

    def same(self, identifier: str, field: str, value: Any) -> Optional[bool]:
        for known in (self.digests.get(identifier), self.ledger.get(self.kind, identifier) if self.ledger else None):
            if known and field in known:
                return known[field] == digest(self.key, self.kind, identifier, field, value)
        return None

    def of(self, item: Item) -> dict[str, str]:
        return {name: digest(self.key, self.kind, item.id, name, value) for name, value in values(item).items()}

    def note(self, identifier: str, digests: dict[str, str] | None) -> None:
        """Into the ledger: what the target now holds; None where it holds it no more."""
        if self.ledger is None or (digests is None and self.ledger.get(self.kind, identifier) is None):
            return
        self.ledger.put(self.kind, identifier, digests)
        self._noted += 1
        if self._noted >= LEDGER_EVERY:
            self.save()

    def save(self) -> None:
        if self.ledger is not None:
            self.ledger.save()
        self._noted = 0


class Job:
    """One call of a module, once it is known what is wanted, where, and by which lane."""

    def __init__(
        self,
        ctx: Any,
        kind: str,
        name: str,
        choice: Choice,
        wanted: list[Item],
        listed: list[NotCarried],
        lane: RestLane,
        agent: AgentLane | None,
        knowledge: Knowledge,
    ):
        self.ctx, self.kind, self.name, self.choice = ctx, kind, name, choice
        self.wanted, self.listed, self.lane, self.agent, self.knowledge = wanted, listed, lane, agent, knowledge
        self.index = {item.id: index for index, item in enumerate(wanted)}

    # -- lane agent

    def by_agent(self) -> dict[str, Any]:
        """One run applies everything in one transaction; none is made where REST alone shows that all is equal."""
        check = self.ctx.check_mode
        try:
            # the ledger is memory, not proof: the agent is asked wherever it may be
            changes = self._compare(self.wanted, self.knowledge.same if check else lambda *_field: None)
        except Unlistable:
            if check:
                self._current = self.lane.read_each(item.id for item in self.wanted)
                changes = self._compare(self.wanted, self.knowledge.same)
            else:  # the agent compares by itself
                changes = [Change(item.id, self.index[item.id], item, "unknown") for item in self.wanted]
        outcomes = [Outcome(change, "agent") for change in changes]
        if check or not any(change.writes or change.action == "conflict" for change in changes):
            if check:
                self._refuse_conflicts(outcomes)
            return self._result(outcomes)
        result = self._ask(
            {
                "op": "import_state",
                self.kind: as_state(self.wanted),
                "on_conflict": self.ctx.params["on_conflict"],
                "prune": self.ctx.params["prune"],
                "spared": sorted(entry.id for entry in self.listed),  # the bundle has them: they are not to be pruned
                "digest_key": self.knowledge.encoded_key,
            }
        )
        statuses = dict((result.get("results") or {}).get(self.kind) or {})
        reasons = (result.get("reasons") or {}).get(self.kind) or {}
        if not result.get("applied"):
            self._refuse(reasons)
        digests = (result.get("digests") or {}).get(self.kind) or {}
        for outcome in outcomes:
            identifier = outcome.change.id
            outcome.action = statuses.pop(identifier, "unchanged")
            outcome.reason = reasons.get(identifier)
        for identifier, status in statuses.items():  # what REST did not show yet when it was compared
            outcome = Outcome(Change(identifier, self.index.get(identifier), None, status), "agent")
            outcomes.append(outcome)
        for outcome in outcomes:
            self._check_arrival(outcome, digests.get(outcome.change.id))
        self.knowledge.save()
        return self._result(outcomes)

    def _check_arrival(self, outcome: Outcome, digests: dict[str, str] | None) -> None:
        item = outcome.change.item
        if outcome.action == "deleted":
            self.knowledge.note(outcome.change.id, None)
        elif item is not None and digests is not None and outcome.action != "kept":
            fine = self.knowledge.of(item)
            other = sorted(name for name, known in digests.items() if fine.get(name) != known)
            if other:
                fields = ", ".join(other)
                self.listed.append(
                    NotCarried(SINGULAR[self.kind], item.id, f"{fields}: this Airflow stores it differently")
                )
            self.knowledge.note(item.id, digests)

    # -- lane rest

    def by_rest(self) -> dict[str, Any]:
        items, refused, by_task = [], set(), set()
        for item in self.wanted:
            if self._takes_task(item):
                by_task.add(item.id)
                items.append(item)
                continue
            adapted, note = self.lane.adapt(item)
            if note is not None:
                self.listed.append(note)
            if adapted is None:
                refused.add(item.id)
            else:
                items.append(adapted)
        changes = self._compare(items, self.knowledge.same, spared=refused)
        hidden = [
            change.id
            for change in changes
            if change.item and any(isinstance(value, Hidden) for value in (change.before or {}).values())
        ]
        if self.agent and self.lane.major >= 3 and not self.ctx.check_mode and hidden:
            self._learn(hidden)
            changes = self._compare(items, self.knowledge.same, spared=refused)
        outcomes = []
        for change in changes:
            reason = self.lane.unreachable(change) if change.writes else None
            if reason is None:
                outcomes.append(Outcome(change, "agent" if change.id in by_task else "rest"))
            elif change.action == "deleted":
                self.listed.append(NotCarried(SINGULAR[self.kind], change.id, f"not pruned: {reason}"))
            else:
                self.listed.append(NotCarried(SINGULAR[self.kind], change.id, reason))
        self._refuse_conflicts(outcomes)
        if not self.ctx.check_mode:
            self._write(outcomes)
        return self._result(outcomes)

    def _takes_task(self, item: Item) -> bool:
        """Whether a task of Airflow 3 writes it, because REST would show its secret in the audit log."""
        return self.agent is not None and self.lane.major >= 3 and self.lane.masking.exposes(item) is not None

    def _learn(self, identifiers: list[str]) -> None:
        answer = self._ask(
            {"op": "digest_state", "ids": {self.kind: identifiers}, "digest_key": self.knowledge.encoded_key}
        )
        found = (answer.get("digests") or {}).get(self.kind) or {}
        self.knowledge.digests = {identifier: known for identifier, known in found.items() if known}

    def _write(self, outcomes: list[Outcome]) -> None:
        by_id = {outcome.change.id: outcome for outcome in outcomes}
        todo = [outcome.change for outcome in outcomes if outcome.change.writes and outcome.lane == "rest"]

        def done(changes: list[Change]) -> None:
            for change in changes:
                if by_id[change.id].action == "unknown":
                    by_id[change.id].action = "updated"
                self.knowledge.note(change.id, self.knowledge.of(change.item) if change.item else None)

        for outcome in outcomes:
            if outcome.action == "unchanged" and outcome.change.id in self.knowledge.digests and outcome.change.item:
                # known for certain now: remembered for check mode, which may not ask
                self.knowledge.note(outcome.change.id, self.knowledge.of(outcome.change.item))
        try:
            for identifier, error in self.lane.apply(todo, done).items():
                by_id[identifier].error = error
            self._write_by_task([outcome for outcome in outcomes if outcome.change.writes and outcome.lane == "agent"])
        finally:
            self.knowledge.save()
        failed = [outcome for outcome in outcomes if outcome.error]
        if failed:
            applied = sum(outcome.changed for outcome in outcomes)
            raise MigrationError(
                f"{len(failed)} of {len(outcomes)} {self.kind} were not applied to environment {self.name}:"
                f" {_named((outcome.change.id, outcome.error) for outcome in failed)}; {applied} were applied and stay."
                " Run again to finish, results says what became of each",
                results=self._rows(outcomes),
                not_carried=[entry.shown() for entry in self.listed],
                changed=applied > 0,
            )

    def _write_by_task(self, outcomes: list[Outcome]) -> None:
        items = [outcome.change.item for outcome in outcomes if outcome.change.item]
        if not items:
            return
        result = self._ask({"op": "import_state", self.kind: as_state(items), "digest_key": self.knowledge.encoded_key})
        statuses = (result.get("results") or {}).get(self.kind) or {}
        reasons = (result.get("reasons") or {}).get(self.kind) or {}
        for outcome in outcomes:
            identifier = outcome.change.id
            if statuses.get(identifier) not in ("created", "updated", "unchanged"):
                outcome.error = reasons.get(identifier, "the agent did not say why")
                continue
            outcome.action = "created" if outcome.change.before is None else "updated"
            if outcome.change.item:
                self.knowledge.note(identifier, self.knowledge.of(outcome.change.item))

    # -- both

    def _compare(
        self, items: list[Item], remembered: Callable[[str, str, Any], Optional[bool]], spared: set[str] | None = None
    ) -> list[Change]:
        if not hasattr(self, "_current"):
            self._current = self.lane.read()
        on_conflict, prune = self.ctx.params["on_conflict"], self.ctx.params["prune"]
        spared = (spared or set()) | {entry.id for entry in self.listed}
        return compare(self.kind, items, self._current, remembered, on_conflict=on_conflict, prune=prune, spared=spared)

    def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        if self.agent is None:
            raise MigrationError("the agent needs a key to seal its request with: set kms_key_id or bundle")
        self.agent.install()
        return self.agent.run(request, self.ctx.params["wait_timeout"])

    def _refuse_conflicts(self, outcomes: list[Outcome]) -> None:
        if self.ctx.params["on_conflict"] == "fail":
            self._refuse(
                {outcome.change.id: outcome.reason for outcome in outcomes if outcome.change.action == "conflict"}
            )

    def _refuse(self, reasons: dict[str, str | None]) -> None:
        if reasons:
            raise MigrationError(
                f"nothing was written to environment {self.name}: {len(reasons)} {self.kind} are refused:"
                f" {_named(sorted(reasons.items()), len(reasons))}",
                conflicts=sorted(reasons),
            )

    def _rows(self, outcomes: list[Outcome]) -> list[dict[str, Any]]:
        return _rows(self.kind, outcomes, self.index)

    def _result(self, outcomes: list[Outcome]) -> dict[str, Any]:
        result = _result(self.ctx, self.kind, self.choice, outcomes, self.listed, self.index)
        if self.agent and self.agent.notes:
            result["notes"] = self.agent.notes
        return result


def _environment(ctx: Any, name: str) -> dict[str, Any] | None:
    """The environment, ready to be worked in. None in check mode where it does not exist yet."""
    environment = describe(ctx.aws.client("mwaa"), name)
    if environment is None:
        if ctx.check_mode:
            return None
        raise MigrationError(
            f"environment {name} does not exist in {ctx.aws.region}: correct environment or region, or create it"
        )
    if environment["Status"] not in limits.STEADY:
        raise MigrationError(
            f"environment {name} is {environment['Status']}, so nothing was done: run again when it is AVAILABLE"
        )
    return environment


def _named(pairs: Any, most: int = SHOWN) -> str:
    pairs = list(pairs)
    shown = "; ".join(f"{identifier} ({reason})" if reason else str(identifier) for identifier, reason in pairs[:most])
    return shown + (f"; and {len(pairs) - most} more" if len(pairs) > most else "")


def _rows(kind: str, outcomes: list[Outcome], index: dict[str, int]) -> list[dict[str, Any]]:
    return [
        {
            "id": outcome.change.id,
            "index": index.get(outcome.change.id),
            "changed": outcome.changed,
            "action": outcome.action,
            "lane": outcome.lane,
            "reason": outcome.reason,
            "diff": diff(kind, outcome.change) if outcome.changed or outcome.error else None,
            "error": outcome.error,
        }
        for outcome in outcomes
    ]


def _result(
    ctx: Any,
    kind: str,
    choice: Choice,
    outcomes: list[Outcome],
    listed: list[NotCarried],
    index: dict[str, int] | None = None,
) -> dict[str, Any]:
    if index is None:
        index = {o.change.id: o.change.index for o in outcomes if o.change.index is not None}
    rows = _rows(kind, outcomes, index)
    actions = sorted({outcome.action for outcome in outcomes})
    result: dict[str, Any] = {
        "changed": any(row["changed"] for row in rows),
        "results": rows,
        "counts": {action: sum(outcome.action == action for outcome in outcomes) for action in actions},
        "lane": choice.lane,
        "lane_reason": choice.reason,
        "not_carried": [entry.shown() for entry in listed],
    }
    if ctx.diff_mode:
        result["diff"] = [
            {
                "before_header": f"{SINGULAR[kind]} {row['id']}",
                "after_header": f"{SINGULAR[kind]} {row['id']}",
                **row["diff"],
            }
            for row in rows
            if row["diff"]
        ]
    return result
