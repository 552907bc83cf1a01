# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Lists and bundles become items; everything that is wrong is said at once."""

from __future__ import annotations

import pytest
from ansible_collections.mwaa.migration.plugins.module_utils._errors import MigrationError
from ansible_collections.mwaa.migration.plugins.module_utils._state.model import (
    Connection,
    Pool,
    Variable,
    from_bundle,
    from_options,
    values,
)


def faults(kind: str, rows: list) -> str:
    with pytest.raises(MigrationError) as error:
        from_options(kind, rows)
    return error.value.message


def test_text_is_kept_as_it_is() -> None:
    rows = [{"key": "a", "value": " 1e5\r\n"}, {"key": "b", "value": ""}, {"key": "c", "value": {"x": [1]}}]
    assert [values(item) for item in from_options("variables", rows)] == [
        {"value": " 1e5\r\n", "description": None},
        {"value": "", "description": None},
        {"value": '{"x": [1]}', "description": None},
    ]


def test_all_five_bad_items_are_named_with_index_and_id() -> None:
    rows = [
        {"conn_id": "fine", "conn_type": "http"},
        {"conn_id": "a"},
        {"conn_type": "http"},
        {"conn_id": "c", "conn_type": "http", "port": 70000},
        {"conn_id": "d", "conn_type": "http", "port": "CANARY-port-00000001"},
        {"conn_id": "e" * 251, "conn_type": "http"},
    ]
    message = faults("connections", rows)
    assert "nothing was done: 5 faults" in message
    assert "index 1 (conn_id 'a'): conn_type is missing" in message
    assert "index 2: conn_id is missing" in message
    assert "index 3 (conn_id 'c'): port 70000 is not between 0 and 65535" in message
    assert "index 4 (conn_id 'd'): port must be a whole number" in message
    assert "conn_id has 251 characters, Airflow takes 250" in message
    assert "CANARY-" not in message


def test_a_duplicate_names_both_indexes() -> None:
    rows = [
        {"conn_id": "x", "conn_type": "http"},
        {"conn_id": "y", "conn_type": "http"},
        {"conn_id": "x", "conn_type": "ftp"},
    ]
    assert "index 0 and index 2 both define conn_id 'x'" in faults("connections", rows)


@pytest.mark.parametrize(
    ("kind", "row", "fault"),
    [
        ("variables", {"key": "a"}, "value is missing"),
        ("variables", {"key": "a", "value": 1e5}, "put it in quotes"),
        ("variables", {"key": "a", "value": True}, "put it in quotes"),
        ("variables", {"key": "a", "value": "x\0"}, "NUL"),
        ("variables", {"key": "a", "value": "x\ud800"}, "lone surrogate"),
        ("connections", {"conn_id": "a", "conn_type": "http", "extra": [1]}, "extra must be text"),
        ("connections", {"conn_id": "a", "conn_type": "http", "host": "h" * 501}, "501 characters, Airflow takes 500"),
        ("pools", {"name": "p", "slots": -2}, "not -1 (unlimited), 0 or more"),
        ("pools", {"name": "p", "slots": "many"}, "slots must be a whole number"),
        ("pools", {"name": "p" * 257, "slots": 1}, "257 characters, Airflow takes 256"),
    ],
)
def test_faults(kind: str, row: dict, fault: str) -> None:
    assert fault in faults(kind, [row])


def test_numbers_of_yaml_and_of_templates_are_the_same() -> None:
    [connection] = from_options("connections", [{"conn_id": "a", "conn_type": "http", "port": "80", "extra": {"a": 1}}])
    assert (connection.port, connection.extra) == (80, '{"a": 1}')
    assert from_options("pools", [{"name": "p", "slots": "-1"}]) == [Pool("p", -1)]


def test_a_bundle_is_read_in_the_format_of_airflows_cli() -> None:
    items, listed = from_bundle("variables", {"a": "text", "b": {"value": "v", "description": "d"}})
    assert items == [Variable("a", "text"), Variable("b", "v", "d")] and not listed
    items, listed = from_bundle("connections", {"a": {"conn_type": "http", "port": 1}, "b": {"conn_type": None}})
    assert items == [Connection("a", "http", port=1)]
    assert [entry.shown() for entry in listed] == [{"kind": "connection", "id": "b", "reason": "conn_type is missing"}]


def test_secrets_are_not_in_what_an_item_looks_like() -> None:
    shown = repr(Connection("a", "http", login="CANARY-1", password="CANARY-2", extra="CANARY-3")) + repr(
        Variable("a", "CANARY-4")
    )
    assert "CANARY-" not in shown
