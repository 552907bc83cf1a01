# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What mwaa_history_import does, from its options to its result; and the agent of the environment that history enters.

PRIVATE to the collection: no promise is made to other collections.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from typing import Any

from ansible_collections.mwaa.migration.plugins.module_utils._bundle import Bundle, S3Store, open_store
from ansible_collections.mwaa.migration.plugins.module_utils._errors import MigrationError
from ansible_collections.mwaa.migration.plugins.module_utils._history import Ask, agent_files
from ansible_collections.mwaa.migration.plugins.module_utils._history.export import why_unreadable
from ansible_collections.mwaa.migration.plugins.module_utils._history.load import Load, Options, inline, presigned
from ansible_collections.mwaa.migration.plugins.module_utils._history.record import Record
from ansible_collections.mwaa.migration.plugins.module_utils._lock import held_in
from ansible_collections.mwaa.migration.plugins.module_utils._mwaa.environment import major, ready
from ansible_collections.mwaa.migration.plugins.module_utils._state.agent import AgentLane

PACKED = agent_files.FILES  # Ansible puts into a module's archive what it sees imported
ARGUMENT_SPEC: dict[str, Any] = {
    "environment": {"type": "str", "required": True},
    "bundle": {"type": "str", "required": True},
    "on_conflict": {"type": "str", "choices": ["newer", "overwrite", "skip", "fail"], "default": "newer"},
    "rebuild_indexes": {"type": "bool", "default": False},
    "beside": {"type": "bool", "default": False},
    "resume": {"type": "bool", "default": True},
    "workers": {"type": "int", "default": 2},
    "kms_key_id": {"type": "str", "no_log": False},
    "api_host": {"type": "str"},
    "wait_timeout": {"type": "int", "default": 1200},
}
LEDGER = "history"  # the kind of an export in the bundle's ledger of what it brought
LATE = 1200  # seconds that a run of the agent may begin after it was asked for


def ask_of(lane: AgentLane, timeout: float) -> Ask:
    """The agent in an environment, put there or brought up to date by the first question."""
    installed: list[bool] = []

    def ask(request: dict[str, Any]) -> dict[str, Any]:
        if not installed:
            lane.install()
            installed.append(True)
        return lane.run(request, timeout)

    return ask


def created_at(environment: Mapping[str, Any]) -> str:
    """What tells an environment from another that had its name before."""
    made = environment.get("CreatedAt")
    # botocore gives it in the zone of this machine, and the next run may be another's
    utc = made.astimezone(datetime.timezone.utc) if isinstance(made, datetime.datetime) else made
    return str(utc or "")


def brought(bundle: Bundle, environment: Mapping[str, Any]) -> set[str]:
    """Ids of the exports that this bundle brought into this very environment, as its ledger says."""
    ledger = bundle.ledger(environment["Name"])
    made = created_at(environment)
    return {one for one in ledger.ids(LEDGER) if (ledger.get(LEDGER, one) or {}).get("created_at") == made}


def remember(bundle: Bundle, environment: Mapping[str, Any], record: Record) -> None:
    """All of the record is in the environment."""
    ledger = bundle.ledger(environment["Name"])
    for export in record.exports:
        ledger.put(LEDGER, export.id, {"at": export.at, "created_at": created_at(environment)})
    ledger.save()


def open_record(bundle: Bundle) -> Record:
    record = Record.open(bundle)
    if record is None or not record.exports:
        raise MigrationError(
            f"the bundle {bundle.store.url} has no history: export it with airflow_history_export", code="NoBundle"
        )
    return record


def ready_for_history(ctx: Any, name: str) -> dict[str, Any] | None:
    """ready(), and of a version that takes history."""
    environment = ready(ctx, name)
    if environment and major(environment) >= 3:
        raise MigrationError(
            f"environment {name} runs Airflow {environment['AirflowVersion']}, where nothing but Airflow itself writes"
            " history: it enters an environment of 2.11.2 first, which is upgraded in place then (playbooks/migrate.yml"
            " with migration_history does so)"
        )
    return environment


def import_history(ctx: Any) -> dict[str, Any]:
    """The body of mwaa_history_import. Raises MigrationError."""
    params = ctx.params
    if params["workers"] < 1:
        raise MigrationError(f"workers is {params['workers']}: at least one has to do the work")
    bundle = Bundle.open(open_store(params["bundle"], ctx.aws), ctx.aws, params["kms_key_id"])
    source = bundle.source
    why = why_unreadable(str(source.get("airflow_version") or 0)) if Record.open(bundle) is None else None
    if why:  # one of several sources may be an Airflow 3: the others' history comes
        nothing: dict[str, Any] = {"changed": False, "tables": {}, "exports": [], "brought": 0, "resumed": []}
        return {**nothing, "not_carried": [{"kind": "history", "id": str(source.get("hostname")), "reason": why}]}
    record = open_record(bundle)
    environment = ready_for_history(ctx, params["environment"])
    timeout = params["wait_timeout"]
    options = Options(
        on_conflict=params["on_conflict"],
        rebuild_indexes=params["rebuild_indexes"],
        beside=params["beside"],
        resume=params["resume"],
        workers=params["workers"],
        seconds=max(30.0, timeout / 2),  # the last piece has the other half to end in
    )
    remote = isinstance(bundle.store, S3Store)
    place = presigned(record, ctx.aws, timeout + LATE) if remote else inline(record)
    if environment is None or ctx.check_mode:
        # asking would be a run of the agent, which is a write: what this bundle brought is in its own ledger
        known = brought(bundle, environment) if environment else set()
        return Load(record, _nobody, place, options).foretell(known)
    key = params["kms_key_id"] or bundle.key["kms_key_id"]
    lane = AgentLane(ctx.aws, environment, key, history=True)
    with held_in([bundle.store], environment["Name"]) as before_writing:
        load = Load(record, ask_of(lane, timeout), place, options, before_writing)
        result = load.run()
        remember(bundle, environment, record)
    notes = [*lane.notes, *load.notes]
    return {**result, **({"notes": notes} if notes else {})}


def _nobody(_request: dict[str, Any]) -> dict[str, Any]:
    raise AssertionError("there is no environment to ask")
