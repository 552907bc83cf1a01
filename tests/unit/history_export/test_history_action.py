# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""airflow_history_export from a host: what its options become, and what it says before anything is read."""

from __future__ import annotations

import os
from typing import Any

import pytest
from agent_in_process import BUNDLE, World
from ansible_collections.mwaa.migration.plugins.action import airflow_history_export as action
from ansible_collections.mwaa.migration.plugins.module_utils._errors import MigrationError
from ansible_collections.mwaa.migration.plugins.module_utils._lock import EXPORT, Lock, run_of
from export_fakes import FakeHost


class Host(FakeHost):
    """Its agent has the history of a World."""

    def __init__(self, world: World):
        super().__init__()
        self.world = world

    def op_inspect(self, _request: dict[str, Any]) -> dict[str, Any]:
        return self.world.identity

    def op_plan_history(self, request: dict[str, Any]) -> dict[str, Any]:
        return self.world.ask(request)

    op_export_history = op_plan_history


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    made = World(monkeypatch)
    for day in (1, 2):
        made.airflow.run("etl", day)
        made.airflow.run("tmp_a", day)
        made.airflow.task("etl", "load", day)
    monkeypatch.setattr(action.Aws, "for_plugin", lambda _params: made.aws)
    return made


def export(world: World, check: bool = False, **given: Any) -> dict[str, Any]:
    params = {name: option.get("default") for name, option in action.ARGUMENT_SPEC.items()}
    params.update({"bundle": BUNDLE, "target_version": "2.11.2", **given})
    return action.export(params, Host(world), world.said.append, check, run_of(1, passing=True))


def test_from_the_options_to_the_record(world: World) -> None:
    result = export(world, exclude=["tmp_*"], tables=["dag_run", "task_instance"])
    assert result["changed"]
    assert {table: count["rows"] for table, count in result["tables"].items()} == {"dag_run": 2, "task_instance": 2}
    assert world.record().exports[0].filters == {
        "dags": [],
        "exclude": ["tmp_*"],
        "tables": ["dag_run", "task_instance"],
        "since": None,
    }
    assert not world.keys("locks/")


def test_without_a_bundle_it_says_what_comes_first(world: World) -> None:
    with pytest.raises(MigrationError, match="no bundle at s3://bucket/none yet: .* run that first"):
        export(world, bundle="s3://bucket/none")


def test_options_are_judged_before_anything_is_asked(world: World) -> None:
    with pytest.raises(MigrationError, match="2 faults: .*3.99.9.*; .*called users"):
        export(world, target_version="3.99.9", tables=["users"])
    assert not world.requests and not world.aws.kms.calls[1:]


def test_of_airflow_3_the_state_is_carried_and_history_is_listed(world: World) -> None:
    world.identity = {**world.identity, "airflow_version": "3.0.6"}
    result = export(world)
    assert not result["changed"] and not world.keys()
    assert result["not_carried"] == [{"kind": "history", "id": "host1", "reason": result["findings"][0]}]
    assert "run history is carried from 1.10.12 to 2.11.2 alone" in result["findings"][0]


def test_beside_another_run_that_exports_it_only_looks(world: World) -> None:
    lock = Lock(world.bundle().store, EXPORT, run_of(os.getpid()))
    lock.take()
    lock.stop()
    with pytest.raises(MigrationError, match="is locked"):
        export(world)
    assert export(world, check=True)["changed"]


def test_an_agent_that_is_killed_at_its_work_is_told_from_a_python_that_is_not_airflows(world: World) -> None:
    class Dying(Host):
        def __call__(self, command: str, stdin: bytes) -> tuple[int, str, str]:
            killed = b'"op": "export_history"' in stdin
            return (137, "", "") if killed else super().__call__(command, stdin)

    params = {name: option.get("default") for name, option in action.ARGUMENT_SPEC.items()}
    params.update({"bundle": BUNDLE, "target_version": "2.11.2"})
    with pytest.raises(MigrationError, match=r"ended before it had answered \(exit code 137\).* goes on where it was"):
        action.export(params, Dying(world), world.said.append, False, run_of(1, passing=True))
    assert export(world)["changed"]
