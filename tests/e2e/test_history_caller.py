# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""History and task logs under the policies that docs/caller-policy.md names, in a lab that holds callers to them.

tests/integration/test_caller_policy.py does the same for all else, beside environments that have no database.
"""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.e2e

ROOT = Path(__file__).resolve().parents[2]
_SPEC = importlib.util.spec_from_file_location("caller_policy", ROOT / "tests/rehearsals/caller_policy.py")
assert _SPEC and _SPEC.loader
caller_policy = sys.modules["caller_policy"] = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(caller_policy)

PLACES = {"SourceLogBucket": "none", "LogArchiveBucket": "mwaa-lab-environment"}
GIVEN = {
    "migration_adopt": "adopt",
    "migration_airflow_version": "2.11.2",
    "migration_history": True,
    "migration_logs": "all",
    "rehearsal_report": "report",
}
HISTORY = caller_policy.Use(
    "history",
    "rehearse.yml",
    ("preflight", "migrate", "environment", "stacks", "stacks-adopt", "logs"),
    GIVEN,
    places=PLACES,
)
AGAIN = caller_policy.Use(
    "history again",
    "rehearse.yml",
    ("migrate", "stacks", "stacks-adopt", "logs"),
    GIVEN,
    tags="export,history,logs,verify",
    places=PLACES,
)
CLEANUP = caller_policy.Use("cleanup", "cleanup.yml", ("cleanup",), {**GIVEN, "cleanup_keep_bundle_days": 0})


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    world = caller_policy.World(tmp_path_factory.mktemp("history-caller"))
    try:
        world.lab.up("--source", "2.10.3", "--seed-data", "small", "--enforce-iam")
        world.prepare()
        yield world
    finally:
        world.down()


@pytest.mark.parametrize("use", [HISTORY, AGAIN, CLEANUP], ids=lambda use: use.name)
def test_it_runs_under_its_policies(world: Any, use: Any) -> None:
    play = world.play(use)
    assert play.returncode == 0, play.output[-6000:]
    assert world.denied == set()
    if use.playbook == "rehearse.yml":
        parity = json.loads((world.folder / "report.json").read_text())["parity"]["history"]
        assert parity["dag_run"]["equal"] == parity["dag_run"]["source"] > 0
