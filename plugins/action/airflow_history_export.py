# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""airflow_history_export, on the controller: asks the source's agent for run history, which goes into the bundle.

The agent is on a host, or a DAG in an MWAA environment.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ansible_collections.mwaa.migration.plugins.action.airflow_export import OF_A_HOST, Asking, refuse_host_options
from ansible_collections.mwaa.migration.plugins.module_utils._aws import Aws
from ansible_collections.mwaa.migration.plugins.module_utils._bundle import Bundle, open_store
from ansible_collections.mwaa.migration.plugins.module_utils._errors import MigrationError
from ansible_collections.mwaa.migration.plugins.module_utils._history.export import Exporter, Options, why_unreadable
from ansible_collections.mwaa.migration.plugins.module_utils._history.record import Record
from ansible_collections.mwaa.migration.plugins.module_utils._lock import (
    EXPORT,
    Run,
    held,
)
from ansible_collections.mwaa.migration.plugins.module_utils._source import Agent, find
from ansible_collections.mwaa.migration.plugins.module_utils._source_environment import (
    SOURCE_ARGUMENTS,
    SourceEnvironment,
    seal_key,
)

ARGUMENT_SPEC: dict[str, Any] = {
    "bundle": {"type": "str", "required": True},
    "kms_key_id": {"type": "str", "no_log": False},
    "target_version": {"type": "str", "required": True},
    "dags": {"type": "list", "elements": "str", "default": []},
    "exclude": {"type": "list", "elements": "str", "default": []},
    "tables": {"type": "list", "elements": "str", "default": []},
    "since": {"type": "str"},
    "processes": {"type": "int", "default": 2},
    "transport": {"type": "str", "default": "auto", "choices": ["auto", "s3", "connection"]},
    "airflow_home": {"type": "str"},
    "airflow_python": {"type": "str"},
    "airflow_command_prefix": {"type": "raw"},
    **SOURCE_ARGUMENTS,
}


def options_of(params: dict[str, Any]) -> Options:
    """Raises MigrationError naming everything that is wrong with them."""
    options = Options(
        target_version=params["target_version"],
        **{name: tuple(params[name]) for name in ("dags", "exclude", "tables")},
        **{name: params[name] for name in ("since", "processes", "transport")},
    )
    options.check()
    return options


def opened(params: dict[str, Any], aws: Aws) -> Bundle:
    """The bundle, which the state's export made. Raises MigrationError."""
    store = open_store(params["bundle"], aws)
    try:
        return Bundle.open(store, aws, params["kms_key_id"])
    except MigrationError as error:
        if error.code != "NoBundle":
            raise
        raise MigrationError(
            f"there is no bundle at {store.url} yet: history is put into the one that airflow_export has made, run"
            " that first",
            code=error.code,
        ) from None


class ActionModule(Asking):
    ARGUMENTS = ARGUMENT_SPEC

    def act(self, params: dict[str, Any], task_vars: dict[str, Any], owner: Run) -> dict[str, Any]:
        show, check_mode = self._display.display, self._task.check_mode
        if not params["source_environment"]:
            return export(params, self.host(params), show, check_mode, owner)
        aws = Aws.for_plugin(params)
        with self.source_environment(params, aws, task_vars, history=True) as source:
            return export_environment(params, aws, source, show, check_mode, owner)


def export(params: dict[str, Any], host: Any, show: Callable[[str], None], check_mode: bool, owner: Run) -> Any:
    """From a host. host: runs commands there."""
    options, aws = options_of(params), Aws.for_plugin(params)
    bundle = opened(params, aws)
    agent = Agent(host, find(host, params["airflow_home"], params["airflow_python"]))
    show(f"airflow_history_export: reading {agent.source}")
    identity = agent.call({"op": "inspect"})
    unreadable = why_unreadable(identity["airflow_version"])
    if unreadable:
        return _nothing(bundle, options, identity["hostname"], unreadable, unreadable=True)
    if check_mode:
        return Exporter(agent.call, bundle, identity, options, show=show, check_mode=True).run()
    with held(bundle.store, EXPORT, owner) as lock:
        return Exporter(agent.call, bundle, identity, options, lock=lock, show=show).run()


def export_environment(
    params: dict[str, Any],
    aws: Aws,
    source: SourceEnvironment,
    show: Callable[[str], None],
    check_mode: bool,
    owner: Run,
) -> dict[str, Any]:
    """From an MWAA environment. Check mode puts no agent there, so that it knows only whether there is an export yet.

    An environment of Airflow 3 is no failure: its state is carried all the same, and the sentence is a finding.
    """
    refuse_host_options(params, OF_A_HOST)
    options, bundle = options_of(params), opened(params, aws)
    key = seal_key(params, bundle, aws, source.aws)
    unreadable = source.history_is_unreadable()
    if unreadable or check_mode:
        why = unreadable or (
            f"check mode puts no agent into environment {source.name}: what is to be carried of its history is unknown"
        )
        result = _nothing(bundle, options, source.name, why, unreadable=bool(unreadable))
    else:
        show(f"airflow_history_export: reading environment {source.name}")
        source.enter(key)
        identity = {**source.ask({"op": "inspect"}), **source.identity}
        with held(bundle.store, EXPORT, owner) as lock:
            result = Exporter(source.ask, bundle, identity, options, lock=lock, show=show).run()
        result["findings"] += source.notes
    if not check_mode and params["source_agent"] == "removed":
        show(f"airflow_history_export: taking the agent out of environment {source.name}")
        result["findings"] += source.leave(key)
    return result


def _nothing(bundle: Bundle, options: Options, name: str, why: str, *, unreadable: bool) -> dict[str, Any]:
    left = [{"kind": "history", "id": name, "reason": why}] if unreadable else []
    return {
        "changed": not unreadable and Record.open(bundle) is None,
        "bundle": bundle.store.url,
        "export": None,
        "delta": False,
        "target_version": options.target_version,
        **{name: {} for name in ("tables", "deleted")},
        **dict.fromkeys(("parts", "more_open", "duration"), 0),
        **{name: [] for name in ("open", "deferred", "losses", "faults")},
        "not_carried": left,
        "findings": [why],
    }
