# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""On every lane: whatever a source can hold arrives byte for byte, or is listed with the reason."""

from __future__ import annotations

import shlex
from types import SimpleNamespace
from typing import Any

import pytest
from ansible_collections.mwaa.migration.plugins.module_utils._mwaa.cli import CliResult
from ansible_collections.mwaa.migration.plugins.module_utils._state.lanes import (
    ByCli,
    ByRest,
    BySecrets,
    Knowledge,
    Lane,
    Work,
)
from ansible_collections.mwaa.migration.plugins.module_utils._state.model import Item, values
from ansible_collections.mwaa.migration.plugins.module_utils._state.rest import Masking
from ansible_collections.mwaa.migration.plugins.module_utils._state.secrets import (
    CARRIED,
    Backend,
    SecretStore,
    backend_options,
    read_connection,
    write_connection,
)
from ansible_collections.mwaa.migration.plugins.module_utils._state.upsert import apply
from ansible_collections.mwaa.migration.plugins.module_utils._verify import excused
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from state_items import connections, pools, variables

ITEMS = {"variables": variables, "connections": connections, "pools": pools}
OURS = settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))


def wanted_of(data: Any, kind: str) -> list[Item]:
    return data.draw(st.lists(ITEMS[kind], min_size=1, max_size=4, unique_by=lambda item: item.id))


def bring(kind: str, wanted: list[Item], lane_of: Any) -> Work:
    work = Work(kind, "demo", wanted, [], Knowledge(kind, None, None))
    lane: Lane = lane_of(work)
    apply(work, lane)
    return work


def equal_or_listed(work: Work, stored: dict[str, dict[str, Any]]) -> None:
    reasons: dict[str, list[str]] = {}
    for entry in work.listed:
        reasons.setdefault(entry.id, []).append(entry.reason)
    for item in work.wanted:
        there = stored.get(item.id)
        if there is None:
            assert item.id in reasons, f"{item.id!r} neither arrived nor is listed"
            continue
        different = [name for name, value in values(item).items() if there.get(name) != value]
        assert not different or any(excused(reason, different) for reason in reasons.get(item.id, ())), different


@pytest.mark.parametrize("version", ["2.11.2", "3.2.1"])
@pytest.mark.parametrize("kind", sorted(ITEMS))
@OURS
@given(data=st.data())
def test_rest(make_target: Any, version: str, kind: str, data: Any) -> None:
    target = make_target(version)
    for _round in range(2):  # created, then updated
        work = bring(kind, wanted_of(data, kind), lambda work: ByRest(work, target.lane(kind), None))
        equal_or_listed(work, target.holds(kind))
        if kind == "pools":
            target.airflow.pools = {name: pool for name, pool in target.airflow.pools.items() if pool["slots"] >= 0}


@pytest.mark.parametrize("version", ["2.0.2", "2.2.2", "2.5.1", "2.11.2", "3.2.1"])
@pytest.mark.parametrize("kind", ["variables", "connections"])
@OURS
@given(data=st.data())
def test_secrets_manager(secrets: Any, version: str, kind: str, data: Any) -> None:
    secrets.held.clear()
    numbers = tuple(map(int, version.split(".")))
    backend = Backend.of(backend_options("airflow", version))
    assert backend
    clock = SimpleNamespace(monotonic=lambda: 0.0, sleep=lambda _seconds: None)
    aws = SimpleNamespace(client=lambda _service: secrets)
    for _round in range(2):
        store = SecretStore(aws, kind, backend, numbers, "demo", clock=clock)
        work = bring(kind, wanted_of(data, kind), lambda work, store=store: BySecrets(work, store, None, None))
        stored: dict[str, dict[str, Any]] = {}
        for name, text in secrets.texts().items():
            fields = {"value": text} if kind == "variables" else read_connection(text, numbers)
            stored[name.removeprefix(f"airflow/{kind}/")] = {**fields, "description": None}
        equal_or_listed(work, {item.id: stored[item.id] for item in work.wanted if item.id in stored})
        secrets.held.clear()


class Commands:
    """MWAA's CLI endpoint over a dictionary, which takes a command apart as a shell would."""

    def __init__(self) -> None:
        self.held: dict[str, str] = {}

    def run(self, command: str) -> CliResult:
        words = shlex.split(command)
        if words[1] == "list":
            return CliResult("", "", [{"key": key} for key in self.held], False, "")
        if words[1] == "get":
            return CliResult(f"{self.held[words[2]]}\n", "", None, False, "")
        _variables, _set, key, value = words
        assert not key.startswith("-") and not value.startswith("-"), "argparse would take it for an option"
        self.held[key] = value
        return CliResult("", "", None, False, "")


@OURS
@given(data=st.data())
def test_cli(data: Any) -> None:
    commands, masking = Commands(), Masking(2)

    def lane(work: Work) -> Lane:
        return ByCli(work, commands, masking)  # type: ignore[arg-type]

    for _round in range(2):
        work = bring("variables", wanted_of(data, "variables"), lane)
        stored = {key: {"value": value, "description": None} for key, value in commands.held.items()}
        equal_or_listed(work, stored)
        commands.held.clear()


@settings(max_examples=150, deadline=None)
@given(item=connections, version=st.sampled_from([(2, 0, 2), (2, 2, 2), (2, 5, 1), (2, 11, 2), (3, 2, 1)]))
def test_a_secrets_losses_are_exactly_what_reads_back_differently(item: Any, version: tuple[int, ...]) -> None:
    try:
        text, losses = write_connection(item, version)
    except ValueError:
        return  # no text of it reads back at all: SecretStore lists it
    back = read_connection(text, version)
    assert {name: back[name] for name in CARRIED} == {**values_of(item), **losses}


def values_of(item: Item) -> dict[str, Any]:
    return {name: value for name, value in values(item).items() if name in CARRIED}
