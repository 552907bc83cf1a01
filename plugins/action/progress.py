# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Shared by the modules that wait: shows on the screen what they say with _progress.progress while they run.

Wired to them by meta/runtime.yml (plugin_routing.modules.*.action_plugin). Each module is documented by itself.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
import threading
from collections.abc import Iterator
from typing import Any

from ansible import constants as C
from ansible.plugins.action import ActionBase
from ansible_collections.mwaa.migration.plugins.module_utils._progress import VARIABLE

GLANCE = 0.5  # seconds between two looks at the file


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
        host = (task_vars or {}).get("inventory_hostname", "")
        with self._shown(host) if here else contextlib.nullcontext():
            result.update(self._execute_module(task_vars=task_vars, wrap_async=wrap_async))
        if not wrap_async:
            self._remove_tmp_path(self._connection._shell.tmpdir)
        return result

    @contextlib.contextmanager
    def _shown(self, host: str) -> Iterator[None]:
        descriptor, path = tempfile.mkstemp(prefix="mwaa-migration-progress-", dir=C.DEFAULT_LOCAL_TMP)
        environment = self._task.environment
        self._task.environment = [*(environment or []), {VARIABLE: path}]
        done = threading.Event()
        with os.fdopen(descriptor, encoding="utf-8", errors="replace") as lines:
            watcher = threading.Thread(target=self._watch, args=(lines, host, done), daemon=True)
            watcher.start()
            try:
                yield
            finally:
                done.set()
                watcher.join()
                self._task.environment = environment
                with contextlib.suppress(OSError):
                    os.unlink(path)  # noqa: PTH108

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
