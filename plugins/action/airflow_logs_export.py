# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""airflow_logs_export, on the controller: task logs from a host into the bundle."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ansible_collections.mwaa.migration.plugins.action.airflow_export import Asking
from ansible_collections.mwaa.migration.plugins.module_utils._aws import Aws
from ansible_collections.mwaa.migration.plugins.module_utils._bundle import Bundle, open_store
from ansible_collections.mwaa.migration.plugins.module_utils._errors import MigrationError
from ansible_collections.mwaa.migration.plugins.module_utils._lock import (
    EXPORT,
    Run,
    held,
)
from ansible_collections.mwaa.migration.plugins.module_utils._logs.export import STATES, Exporter, Options
from ansible_collections.mwaa.migration.plugins.module_utils._source import Agent, find

ARGUMENT_SPEC: dict[str, Any] = {
    "bundle": {"type": "str", "required": True},
    "kms_key_id": {"type": "str", "no_log": False},
    "state": {"type": "str", "default": "failed", "choices": list(STATES)},
    "days": {"type": "int"},
    "dags": {"type": "list", "elements": "str", "default": []},
    "exclude": {"type": "list", "elements": "str", "default": []},
    "transport": {"type": "str", "default": "auto", "choices": ["auto", "s3", "connection"]},
    "airflow_home": {"type": "str"},
    "airflow_python": {"type": "str"},
    "airflow_command_prefix": {"type": "raw"},
}


class ActionModule(Asking):
    ARGUMENTS = ARGUMENT_SPEC

    def act(self, params: dict[str, Any], task_vars: dict[str, Any], owner: Run) -> dict[str, Any]:
        return export(params, self.host(params), self._display.display, self._task.check_mode, owner)


def export(params: dict[str, Any], host: Any, show: Callable[[str], None], check_mode: bool, owner: Run) -> Any:
    """From a host. host: runs commands there."""
    aws = Aws.for_plugin(params)
    options = Options(
        params["state"], params["days"], tuple(params["dags"]), tuple(params["exclude"]), params["transport"]
    )
    options.check("airflow_logs_export")
    store = open_store(params["bundle"], aws)
    try:
        bundle = Bundle.open(store, aws, params["kms_key_id"])
    except MigrationError as error:
        if error.code != "NoBundle":
            raise
        if check_mode:  # as before the first export
            return {"changed": False, "skipped": True, "msg": error.message}
        raise MigrationError(
            f"there is no bundle at {store.url} yet: logs are put into the one that airflow_export has made, run that"
            " first",
            code=error.code,
        ) from None
    agent = Agent(host, find(host, params["airflow_home"], params["airflow_python"]))
    show(f"airflow_logs_export: reading {agent.source}")
    identity, s3 = agent.call({"op": "inspect"}), aws.client("s3")
    if check_mode:
        return Exporter(agent.call, bundle, identity, options, lock=None, show=show, s3=s3, check_mode=True).run()
    with held(bundle.store, EXPORT, owner) as lock:
        return Exporter(agent.call, bundle, identity, options, lock=lock, show=show, s3=s3).run()
