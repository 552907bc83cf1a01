# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What mwaa_variable_upsert, mwaa_connection_upsert and mwaa_pool_upsert do, from their options to their result.

PRIVATE to the collection: no promise is made to other collections.
"""

from __future__ import annotations

import re
from typing import Any

from ansible_collections.mwaa.migration.plugins.module_utils import _select
from ansible_collections.mwaa.migration.plugins.module_utils._bundle import SINGULAR, Bundle, open_store
from ansible_collections.mwaa.migration.plugins.module_utils._errors import Faults, MigrationError
from ansible_collections.mwaa.migration.plugins.module_utils._lock import held_in
from ansible_collections.mwaa.migration.plugins.module_utils._mwaa.access import reach
from ansible_collections.mwaa.migration.plugins.module_utils._mwaa.cli import Cli
from ansible_collections.mwaa.migration.plugins.module_utils._mwaa.environment import ready
from ansible_collections.mwaa.migration.plugins.module_utils._mwaa.rest import RestClient
from ansible_collections.mwaa.migration.plugins.module_utils._select import NOT_SELECTED, Selection
from ansible_collections.mwaa.migration.plugins.module_utils._state.agent import AgentLane
from ansible_collections.mwaa.migration.plugins.module_utils._state.compare import compare, diff
from ansible_collections.mwaa.migration.plugins.module_utils._state.lanes import (
    LANES,
    Agent,
    ByAgent,
    ByCli,
    ByRest,
    BySecrets,
    ByTask,
    Choice,
    Knowledge,
    Lane,
    Outcome,
    Work,
    choose_lane,
    named,
    refuse,
)
from ansible_collections.mwaa.migration.plugins.module_utils._state.model import (
    CLASSES,
    Item,
    NotCarried,
    from_bundle,
    from_options,
    id_faults,
    values,
)
from ansible_collections.mwaa.migration.plugins.module_utils._state.rest import Masking, RestLane
from ansible_collections.mwaa.migration.plugins.module_utils._state.secrets import Backend, SecretStore, backend_options


def argument_spec(kind: str, fields: dict[str, Any]) -> dict[str, Any]:
    """The options of the module for `kind`. fields: those of one item, without demands: model.py names all faults."""
    spec: dict[str, Any] = {
        "environment": {"type": "str", "required": True},
        kind: {"type": "list", "elements": "dict", "options": fields},
        "bundle": {"type": "str"},
        **_select.ARGUMENT_SPEC,
        "beside": {
            "type": "list",
            "elements": "dict",
            "options": {"source": {"type": "str", "required": True}, "select": {"type": "dict"}},
        },
        "lane": {"type": "str", "choices": list(LANES), "default": "auto"},
        "on_conflict": {"type": "str", "choices": ["overwrite", "keep", "fail"], "default": "overwrite"},
        "prune": {"type": "bool", "default": False},
        "becomes": {"type": "str"},
        "kms_key_id": {"type": "str", "no_log": False},
        "secrets_prefix": {"type": "str", "no_log": False},
        "secrets_kms_key_id": {"type": "str", "no_log": False},
        "wait_timeout": {"type": "int", "default": 1200},
        "api_host": {"type": "str"},
    }
    return spec


def upsert(ctx: Any, kind: str) -> dict[str, Any]:
    """The body of the three modules. Raises MigrationError; nothing is written before everything has been checked."""
    params = ctx.params
    selection = Selection(params["include"], params["exclude"], params["rename"])
    listed: list[NotCarried] = []
    bundle: Bundle | None = None
    if params["bundle"] is None:
        wanted = from_options(kind, params[kind] or [])
    else:
        bundle = Bundle.open(open_store(params["bundle"], ctx.aws), ctx.aws, params["kms_key_id"])
        wanted, listed = from_bundle(kind, bundle.read_state(kind))
    wanted, listed, renamed = select(kind, selection, wanted, listed)
    others = _beside(ctx, kind, wanted) if params["beside"] else set()
    environment = ready(ctx, params["environment"])
    if environment is None:
        changes = compare(kind, wanted, {}, lambda *_field: None)
        reason = f"Environment {params['environment']} does not exist yet: everything would be created."
        work = Work(kind, params["environment"], wanted, listed, Knowledge(kind, None, None))
        return _result(ctx, work, Choice(params["lane"], reason), [Outcome(change) for change in changes], renamed)
    work = Work(
        kind,
        environment["Name"],
        wanted,
        listed,
        Knowledge(kind, bundle, bundle.ledger(environment["Name"]) if bundle else None),
        on_conflict=params["on_conflict"],
        prune=params["prune"],
        check=ctx.check_mode,
        timeout=params["wait_timeout"],
        others=others,
        becomes=tuple(int(part) for part in re.findall(r"\d+", params.get("becomes") or "")),
    )
    key = params["kms_key_id"] or (bundle.key["kms_key_id"] if bundle else None)
    try:
        choice, lane, agent = _lane(ctx, work, environment, key)
    except MigrationError as error:
        if wanted or work.prune:
            raise
        return _result(ctx, work, Choice(params["lane"], f"There is nothing to carry. {error.message}"), [], renamed)
    with held_in([bundle.store] if bundle and not work.check else [], work.environment) as work.before_writing:
        outcomes = apply(work, lane)
    if agent:
        work.notes += agent.notes
    return _result(ctx, work, choice, outcomes, renamed)


def select(
    kind: str, selection: Selection, wanted: list[Item], listed: list[NotCarried]
) -> tuple[list[Item], list[NotCarried], dict[str, str]]:
    """(items under the target's ids, what is not carried, {id in the target: id in the source} where they differ)."""
    chosen = selection.apply([*(item.id for item in wanted), *(entry.id for entry in listed)])
    faults = Faults("rename makes names that Airflow does not take, nothing was done")
    for new, old in chosen.renamed.items():
        for fault in id_faults(kind, new):
            faults.add(f"{old!r} would become {new!r}: {fault}")
    faults.raise_if_any()
    items = [CLASSES[kind](id=chosen.ids[item.id], **values(item)) for item in wanted if item.id in chosen.ids]
    others = [entry._replace(id=chosen.ids[entry.id]) for entry in listed if entry.id in chosen.ids]
    left = [NotCarried(SINGULAR[kind], identifier, NOT_SELECTED) for identifier in chosen.left]
    return items, [*others, *left], chosen.renamed


def _beside(ctx: Any, kind: str, wanted: list[Item]) -> set[str]:
    """The ids that other sources bring. Raises MigrationError where they contradict: each would overwrite the other's,
    run for run. Fields are named, never values.
    """
    others: set[str] = set()
    name = ctx.params["bundle"] or "what is given"
    mine = {item.id: values(item) for item in wanted}
    faults = Faults("the sources cannot become one environment, nothing was done")
    for one in ctx.params["beside"]:
        bundle = Bundle.open(open_store(one["source"], ctx.aws), ctx.aws, ctx.params["kms_key_id"])
        theirs, refused = from_bundle(kind, bundle.read_state(kind))
        theirs, _listed, _renamed = select(kind, Selection.of((one.get("select") or {}).get(kind)), theirs, refused)
        others |= {item.id for item in theirs}
        differing = [
            (item.id, ", ".join(field for field, value in values(item).items() if value != mine[item.id][field]))
            for item in theirs
            if item.id in mine and values(item) != mine[item.id]
        ]
        if differing:
            faults.add(
                f"{len(differing)} {kind if len(differing) > 1 else SINGULAR[kind]} of {name} and {one['source']}"
                f" differ{'' if len(differing) > 1 else 's'}: {named(differing)}; exclude or rename"
                f" {'them' if len(differing) > 1 else 'it'} in the select of one of the two"
            )
    faults.raise_if_any()
    return others


def apply(work: Work, lane: Lane) -> list[Outcome]:
    """Compare, and unless in check mode write. Raises MigrationError where something was not applied."""
    items, refused = [], set()
    for item in work.wanted:
        adapted, note = lane.adapt(item)
        if note is not None:
            work.listed.append(note)
        if adapted is None:
            refused.add(item.id)
        else:
            items.append(adapted)
    changes = compare(
        work.kind,
        items,
        lane.read(items),
        lane.remembered,
        on_conflict=work.on_conflict,
        prune=work.prune,
        spared=work.spared | refused,
        prunable=work.prunable,
    )
    outcomes = []
    for change in changes:
        reason = lane.unreachable(change) if change.writes else None
        if reason is None:
            outcomes.append(lane.outcome(change))
        else:
            work.list(change.id, f"not pruned: {reason}" if change.action == "deleted" else reason)
    if work.on_conflict == "fail" and (work.check or not lane.judges):
        refuse(work, {outcome.change.id: outcome.reason for outcome in outcomes if outcome.action == "conflict"})
    if work.check:
        return outcomes
    if lane.writes(outcomes):
        work.before_writing()
    try:
        lane.apply(outcomes)
    finally:
        work.knowledge.save()
    failed = [outcome for outcome in outcomes if outcome.error]
    if failed:
        applied = sum(outcome.changed for outcome in outcomes)
        raise MigrationError(
            f"{len(failed)} of {len(outcomes)} {work.kind} were not applied to environment {work.environment}:"
            f" {named((outcome.change.id, outcome.error) for outcome in failed)}; {applied} were applied and stay."
            " Run again to finish, results says what became of each",
            results=_rows(work, outcomes, {}),
            not_carried=[entry.shown() for entry in work.listed],
            changed=applied > 0,
        )
    return outcomes


def _lane(ctx: Any, work: Work, environment: dict[str, Any], key: str | None) -> tuple[Choice, Lane, AgentLane | None]:
    params, name = ctx.params, environment["Name"]
    version = tuple(int(part) for part in environment["AirflowVersion"].split(".")[:3])
    access = reach(ctx.aws, environment)
    choice = choose_lane(params["lane"], work.kind, version, key, access)
    rest = RestClient(ctx.aws.client("mwaa"), name)
    masking = Masking(version[0], environment.get("AirflowConfigurationOptions"))
    api = RestLane(rest, work.kind, version, masking) if access.rest else None
    runner = AgentLane(ctx.aws, environment, key, rest=rest, access=access) if key else None
    agent = Agent(work, runner) if runner else None
    lane: Lane
    if choice.lane == "secrets_manager":
        lane = BySecrets(work, _secret_store(ctx, work, environment, version), api, agent)
    elif choice.lane == "cli":
        lane = ByCli(work, Cli.of(ctx.aws, name), masking)
    elif choice.lane == "rest" and api:
        lane = ByRest(work, api, agent)
    elif version[0] >= 3 and agent:
        lane = ByTask(work, agent)
    elif agent:
        lane = ByAgent(work, agent, api)
    else:
        raise AssertionError(choice)
    return choice, lane, runner


def _secret_store(ctx: Any, work: Work, environment: dict[str, Any], version: tuple[int, ...]) -> SecretStore:
    """Raises MigrationError where this environment's Airflow does not look into Secrets Manager, or elsewhere in it."""
    options = environment.get("AirflowConfigurationOptions")
    backend, prefix = Backend.of(options), ctx.params["secrets_prefix"]
    mend = "set secrets_backend of mwaa_environment first"
    if backend is None and ctx.check_mode:
        work.notes.append(f"environment {work.environment} does not look into Secrets Manager yet: {mend}")
        backend = Backend.of(backend_options(prefix or "airflow", environment["AirflowVersion"]))
    if backend is None or backend.prefixes[work.kind] is None:
        raise MigrationError(
            f"Airflow in environment {work.environment} does not look for {work.kind} in Secrets Manager"
            f" (secrets.backend): {mend}"
        )
    if prefix is not None and backend.name(work.kind, "") != f"{prefix}/{work.kind}/":
        raise MigrationError(
            f"Airflow in environment {work.environment} looks for {work.kind} under {backend.name(work.kind, '')}, not"
            f" under {prefix}/{work.kind}/: correct secrets_prefix, or {mend}"
        )
    bundle = work.knowledge.bundle
    return SecretStore(
        ctx.aws,
        work.kind,
        backend,
        version,
        work.environment,
        kms_key_id=ctx.params["secrets_kms_key_id"],
        bundle_id=bundle.bundle_id if bundle else None,
    )


def _rows(work: Work, outcomes: list[Outcome], renamed: dict[str, str]) -> list[dict[str, Any]]:
    index = work.index
    return [
        {
            "id": outcome.change.id,
            **({"renamed_from": renamed[outcome.change.id]} if outcome.change.id in renamed else {}),
            "index": index.get(outcome.change.id),
            "changed": outcome.changed,
            "action": outcome.action,
            "lane": outcome.lane,
            "store": outcome.store,
            "reason": outcome.reason,
            "diff": diff(work.kind, outcome.change) if outcome.changed or outcome.error else None,
            "error": outcome.error,
        }
        for outcome in outcomes
    ]


def _result(ctx: Any, work: Work, choice: Choice, outcomes: list[Outcome], renamed: dict[str, str]) -> dict[str, Any]:
    rows = _rows(work, outcomes, renamed)
    actions = sorted({outcome.action for outcome in outcomes})
    result: dict[str, Any] = {
        "changed": any(row["changed"] for row in rows),
        "results": rows,
        "counts": {action: sum(outcome.action == action for outcome in outcomes) for action in actions},
        "lane": choice.lane,
        "lane_reason": choice.reason,
        "not_carried": [entry.shown() for entry in work.listed],
    }
    if work.notes:
        result["notes"] = work.notes
    if ctx.diff_mode:
        result["diff"] = [
            {
                "before_header": f"{SINGULAR[work.kind]} {row['id']}",
                "after_header": f"{SINGULAR[work.kind]} {row['id']}",
                **row["diff"],
            }
            for row in rows
            if row["diff"]
        ]
    return result
