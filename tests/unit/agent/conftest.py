# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

from types import ModuleType

import pytest
from agent_loading import load


@pytest.fixture(scope="session")
def agent() -> ModuleType:
    return load("airflow_agent")
