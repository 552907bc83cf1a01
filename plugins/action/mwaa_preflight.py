# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs the module and shows what it found as a page. Documented in plugins/modules/mwaa_preflight.py."""

from __future__ import annotations

import locale
import shutil
from typing import Any

from ansible.utils.display import Display
from ansible_collections.mwaa.migration.plugins.action.progress import ActionModule as Progress
from ansible_collections.mwaa.migration.plugins.module_utils._preflight.report import render

display = Display()
COLOURS = {"good": "green", "bad": "red", "open": "yellow"}
# a failed task prints all of its result: the page has said it already
KEPT = ("msg", "failed", "summary", "changed", "duration")


class ActionModule(Progress):
    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result = super().run(tmp, task_vars)
        if "findings" not in result:
            return result  # it failed before it had looked
        paths = [] if self._task.check_mode else [self._task.args.get(name) for name in ("json_path", "junit_path")]
        # not by sys.stdout, which is the worker's and not the screen
        ascii_only = "utf" not in locale.getpreferredencoding(False).lower()
        width = shutil.get_terminal_size((80, 24)).columns
        for line, state in render(result, width=width, ascii_only=ascii_only, paths=tuple(filter(None, paths))):
            display.display(line, color=COLOURS.get(state or ""))
        display.display("")
        if result.get("failed"):
            return {name: result[name] for name in KEPT if name in result}
        return result
