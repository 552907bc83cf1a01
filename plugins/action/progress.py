# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Shared by the modules that wait or speak to an Airflow: what a module cannot do by itself, while it runs.

Shows on the screen what they say with _progress.progress, tells them which run of ansible-playbook they belong to, and,
where a task has api_host, opens the way to an Airflow that answers only inside its VPC.

Wired to them by meta/runtime.yml (plugin_routing.modules.*.action_plugin). Each module is documented by itself.
"""

from __future__ import annotations

import contextlib
import os
import re
import tempfile
import threading
from collections.abc import Iterator
from typing import Any

from ansible import constants as C
from ansible.errors import AnsibleError
from ansible.plugins.action import ActionBase
from ansible.plugins.loader import connection_loader
from ansible_collections.mwaa.migration.plugins.module_utils._aws import TUNNEL
from ansible_collections.mwaa.migration.plugins.module_utils._errors import MigrationError
from ansible_collections.mwaa.migration.plugins.module_utils._lock import breaks_lock, controller, run_variable
from ansible_collections.mwaa.migration.plugins.module_utils._mwaa.access import source_aws
from ansible_collections.mwaa.migration.plugins.module_utils._progress import VARIABLE
from ansible_collections.mwaa.migration.plugins.module_utils._source_environment import SourceEnvironment
from ansible_collections.mwaa.migration.plugins.module_utils._tunnel import Tunnel

GLANCE = 0.5  # seconds between two looks at the file
SSH = ("ssh", "ansible.builtin.ssh", "ansible.legacy.ssh", "smart")


class ActionModule(ActionBase):
    """Runs the module of the task's name, as ansible.builtin.normal does."""

    _supports_check_mode = True
    _supports_async = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result = super().run(tmp, task_vars)
        del tmp  # as ActionBase asks
        wrap_async = bool(self._task.async_val) and not self._connection.has_native_async
        # the file is read here: only a module that runs on this machine, and that is waited for, can write it
        here = self._connection.transport == "local" and not self._task.async_val
        variables = task_vars or {}
        api_host = self._task.args.get("api_host")
        environment = self._task.environment
        with contextlib.ExitStack() as stack:
            stack.callback(setattr, self._task, "environment", environment)
            try:
                added = run_variable(controller(), breaks_lock(variables))
            except MigrationError as error:
                raise AnsibleError(error.message) from None
            if here:
                added[VARIABLE] = stack.enter_context(self._shown(variables.get("inventory_hostname", "")))
            tunnel = None
            if api_host and here:
                tunnel = Tunnel(self._way_through(str(api_host), variables))
                stack.callback(tunnel.close)
                trouble = tunnel.check()
                if trouble:
                    raise AnsibleError(
                        f"api_host {api_host} cannot be used, its SSH connection does not forward: {trouble}"
                    )
                added[TUNNEL] = stack.enter_context(_file(tunnel.url))
            self._task.environment = [*(environment or []), added]
            result.update(self._execute_module(task_vars=task_vars, wrap_async=wrap_async))
            if tunnel and tunnel.trouble and result.get("failed"):
                result["msg"] = f"{result.get('msg')}; the way through api_host {api_host} failed: {tunnel.trouble}"
        if not wrap_async:
            self._remove_tmp_path(self._connection._shell.tmpdir)
        return result

    @contextlib.contextmanager
    def source_environment(
        self, params: dict[str, Any], aws: Any, task_vars: dict[str, Any], *, history: bool = False
    ) -> Iterator[SourceEnvironment]:
        """The MWAA environment that a plugin reads (`source_environment` and what belongs to it in params): its waits
        are shown, and it is reached through api_host where that is given.
        """
        there = source_aws(aws, params)
        with contextlib.ExitStack() as stack:
            os.environ[VARIABLE] = stack.enter_context(self._shown(task_vars.get("inventory_hostname", "")))
            stack.callback(os.environ.pop, VARIABLE, None)  # of this fork alone
            if params["api_host"]:
                tunnel = Tunnel(self._way_through(str(params["api_host"]), task_vars))
                stack.callback(tunnel.close)
                trouble = tunnel.check()
                if trouble:
                    raise MigrationError(
                        f"api_host {params['api_host']} cannot be used, its SSH connection does not forward: {trouble}"
                    )
                there = there.through(tunnel.url)
            yield SourceEnvironment(there, params["source_environment"], params["wait_timeout"], history=history)

    def _way_through(self, name: str, task_vars: dict[str, Any]) -> Any:
        """Makes the command that connects to "host:port" from a host of the inventory, as Ansible would reach it."""
        known = task_vars.get("hostvars") or {}
        if name not in known:
            raise AnsibleError(f"api_host {name} is not in the inventory: name a host that is inside the VPC")
        variables = known[name]
        kind = str(variables.get("ansible_connection", "ssh"))
        if kind not in SSH:
            raise AnsibleError(
                f"api_host {name} has the connection {kind}, and only ssh can forward: name another host"
            )
        context = self._play_context.copy()
        context.remote_addr = variables.get("ansible_host") or variables.get("ansible_ssh_host") or name
        context.password = None
        connection = connection_loader.get("ansible.builtin.ssh", context, None)
        wanted = C.config.get_plugin_vars("connection", connection._load_name)
        given = {option: variables[option] for option in [*wanted, "inventory_hostname"] if option in variables}
        connection.set_options(var_options={option: self._templar.template(value) for option, value in given.items()})
        if connection.get_option("password"):
            raise AnsibleError(f"api_host {name} is reached with a password: give its connection a key, or an agent")
        connection.host = connection.get_option("host") or context.remote_addr
        program = connection.get_option("ssh_executable")

        def command(target: str) -> list[bytes]:
            return quiet(
                connection._build_command(program, "ssh", "-o", "BatchMode=yes", "-W", target, connection.host)
            )

        return command

    @contextlib.contextmanager
    def _shown(self, host: str) -> Iterator[str]:
        with _file() as path, open(path, encoding="utf-8", errors="replace") as lines:  # noqa: PTH123
            done = threading.Event()
            watcher = threading.Thread(target=self._watch, args=(lines, host, done), daemon=True)
            watcher.start()
            try:
                yield path
            finally:
                done.set()
                watcher.join()

    def _watch(self, lines: Any, host: str, done: threading.Event) -> None:
        rest = ""
        while True:
            last = done.wait(GLANCE)
            rest += lines.read()
            *whole, rest = rest.split("\n")
            for line in whole:
                self._display.display(f"[{host}] {line}", color="cyan")
            if last:
                return


def quiet(command: list[bytes]) -> list[bytes]:
    """Without the -vvv of `ansible-playbook -vvvv`: a shared connection of ssh's (ControlPersist) then keeps standard
    error open for a minute, and what ssh says last is no reason.
    """
    return [word for word in command if not re.fullmatch(rb"-v+", word)]


@contextlib.contextmanager
def _file(text: str = "") -> Iterator[str]:
    """The path of a file of this user's alone."""
    descriptor, path = tempfile.mkstemp(prefix="mwaa-migration-", dir=C.DEFAULT_LOCAL_TMP)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
        yield path
    finally:
        with contextlib.suppress(OSError):
            os.unlink(path)  # noqa: PTH108
