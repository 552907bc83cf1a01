# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Loads a file of plugins/agent as a module: they are no part of the collection's Python packages."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

AGENTS = Path(__file__).parents[3] / "plugins" / "agent"


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"tested_{name}", AGENTS / f"{name}.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
