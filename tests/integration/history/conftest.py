# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One PostgreSQL for all of these tests, and where they find what unit tests and benchmarks have of the same."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[2]
sys.path[:0] = [str(Path(__file__).parent), str(TESTS / "unit" / "history"), str(TESTS / "benchmarks")]

from import_lane import Databases  # noqa: E402
from mwaa_lab import processes  # noqa: E402
from mwaa_lab.airflow.postgres import NAME, Postgres  # noqa: E402
from mwaa_lab.labdir import LabDir  # noqa: E402


@pytest.fixture(scope="session")
def databases(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Databases]:
    lab = LabDir(tmp_path_factory.mktemp("history") / "lab")
    lab.create({})
    server = Postgres(lab)
    try:
        server.ensure()
        yield Databases(lab)
    finally:
        if found := processes.alive(lab, NAME):
            os.kill(found.pid, signal.SIGQUIT)  # at once, without writing anything down
        processes.stop_all(lab)
        lab.remove()
