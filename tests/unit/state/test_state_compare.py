# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What has to be done, from what is wanted and what is there."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.mwaa.migration.plugins.module_utils._state.compare import Hidden, compare, diff
from ansible_collections.mwaa.migration.plugins.module_utils._state.model import Connection, Pool, Variable


def nothing_known(*_field: Any) -> None:
    return None


def actions(changes: list) -> dict[str, str]:
    return {change.id: change.action for change in changes}


def test_created_updated_unchanged() -> None:
    there = {"b": {"value": "1", "description": None}, "c": {"value": "old", "description": None}}
    wanted = [Variable("a", "1"), Variable("b", "1"), Variable("c", "new")]
    assert actions(compare("variables", wanted, there, nothing_known)) == {
        "a": "created",
        "b": "unchanged",
        "c": "updated",
    }


@pytest.mark.parametrize(("on_conflict", "action"), [("overwrite", "updated"), ("keep", "kept"), ("fail", "conflict")])
def test_on_conflict(on_conflict: str, action: str) -> None:
    there = {"a": {"value": "old", "description": None}, "b": {"value": "same", "description": None}}
    wanted = [Variable("a", "new"), Variable("b", "same"), Variable("c", "x")]
    changes = compare("variables", wanted, there, nothing_known, on_conflict=on_conflict)
    assert actions(changes) == {"a": action, "b": "unchanged", "c": "created"}


def test_prune_spares_what_airflow_and_mwaa_need() -> None:
    pools = {name: {"slots": 1, "description": None, "include_deferred": False} for name in ("default_pool", "p", "q")}
    assert actions(compare("pools", [Pool("p", 1)], pools, nothing_known, prune=True)) == {
        "p": "unchanged",
        "q": "deleted",
    }
    there = {"aws_default": {}, "x": {}, "not_carried": {}}
    changes = compare("connections", [], there, nothing_known, prune=True, spared=["not_carried"])
    assert actions(changes) == {"x": "deleted"}


def test_a_hidden_field_is_known_by_memory_or_unknown() -> None:
    there = {"a": {**dict.fromkeys(("description", "host", "login", "schema", "port")), "conn_type": "http",
                   "password": Hidden(), "extra": Hidden()}}  # fmt: skip
    wanted = [Connection("a", "http", password="p")]
    [change] = compare("connections", wanted, there, nothing_known)
    assert (change.action, change.unknown) == ("unknown", ("password", "extra")) and change.writes
    [change] = compare("connections", wanted, there, lambda _id, field, _value: field != "password")
    assert (change.action, change.changed) == ("updated", ("password",))
    [change] = compare("connections", wanted, there, lambda *_field: True)
    assert change.action == "unchanged"


@pytest.mark.parametrize(
    ("hidden", "value", "contradicts"),
    [
        (Hidden(present=True), None, True),
        (Hidden(present=False), "x", True),
        (Hidden(present=False), None, False),
        (Hidden(present=True, shown='{"a": "***", "b": 1}'), '{"b":1,"a":"secret"}', False),
        (Hidden(present=True, shown='{"a": "***", "b": 1}'), '{"b":2,"a":"secret"}', True),
        (Hidden(present=True, shown='{"a": "***"}'), '{"b":"secret"}', True),
        (Hidden(present=True, shown="100000.0"), "1e5", False),
        (Hidden(present=True, shown="100000.0"), "2e5", True),
        (Hidden(present=True, shown="1"), "true", True),
        (Hidden(present=True, shown="***"), "any", False),
        (Hidden(present=True, shown='{"a": NaN}'), '{"a":NaN}', False),
        (Hidden(present=True, shown="[1, 2]"), "[1]", True),
    ],
)
def test_what_airflow_shows_can_contradict(hidden: Hidden, value: Any, contradicts: bool) -> None:
    assert hidden.contradicts(value) is contradicts


def test_diffs_show_no_secret_and_no_length() -> None:
    there = {"a": {**dict.fromkeys(("description", "schema", "port", "extra")), "conn_type": "http", "host": "old",
                   "login": "CANARY-login-00000000", "password": Hidden(present=True)}}  # fmt: skip
    wanted = [
        Connection(
            "a",
            "http",
            host="new",
            login="CANARY-login-00000000",
            password="CANARY-p-00000001",
            extra='{"x":"CANARY-x"}',
        )
    ]
    [change] = compare("connections", wanted, there, nothing_known)
    shown = diff("connections", change)
    assert shown is not None and "CANARY-" not in str(shown)
    assert (shown["before"]["host"], shown["after"]["host"]) == ("old", "new")
    assert shown["after"]["login"] == shown["before"]["login"] == "********"
    assert shown["after"]["password"] == "******** (unknown)"
    assert (shown["before"]["extra"], shown["after"]["extra"]) == (None, "******** (changed)")
