# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Writes the report where Ansible runs, and shows it as a page and not as JSON. Documented in
plugins/modules/migration_report.py.
"""

from __future__ import annotations

import locale
import shutil
from typing import Any

from ansible.plugins.action import ActionBase
from ansible.utils.display import Display
from ansible_collections.mwaa.migration.plugins.module_utils._errors import MigrationError
from ansible_collections.mwaa.migration.plugins.module_utils._report import build, render, verdict, write

display = Display()
COLOURS = {"good": "green", "bad": "red", "open": "yellow"}


class ActionModule(ActionBase):
    TRANSFERS_FILES = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result = super().run(tmp, task_vars)
        _validation, options = self.validate_argument_spec(
            {
                "path": {"type": "path"},
                "environment": {"type": "str"},
                "source": {"type": "dict", "default": {}},
                "target": {"type": "dict", "default": {}},
                "stages": {
                    "type": "list",
                    "elements": "dict",
                    "default": [],
                    "options": {
                        "name": {"type": "str", "required": True},
                        "results": {"type": "list", "elements": "raw", "default": []},
                    },
                },
                "verification": {"type": "dict"},
            }
        )
        verification = options["verification"] or None
        if verification and "parity" not in verification:
            verification = None  # registered, but it did not run
        report = build(
            source=options["source"], target=options["target"], stages=options["stages"], verification=verification
        )
        path = options["path"]
        try:
            if path and not self._task.check_mode:
                write(path, report)
        except MigrationError as error:
            return {**result, **error.as_failure(), "failed": True}
        equal = verification.get("equal") if verification else None
        page = {
            "environment": options["environment"],
            "path": path if not self._task.check_mode else None,
            "equal": equal,
        }
        width = shutil.get_terminal_size((80, 24)).columns
        # not by sys.stdout, which is the worker's and not the screen
        ascii_only = "utf" not in locale.getpreferredencoding(False).lower()
        state, sentence = verdict(report, equal)
        for line in render(report, width=width, ascii_only=ascii_only, **page):
            display.display(line, color=COLOURS[state] if line.strip() == sentence else None)
        display.display("")
        return {**result, "changed": False, "report": report, "summary": render(report, **page), "equal": equal}
