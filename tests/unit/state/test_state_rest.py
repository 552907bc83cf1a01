# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The rest lane: what is wanted arrives byte for byte or is listed, whatever happens on the way."""

from __future__ import annotations

import random
from types import SimpleNamespace
from typing import Any

import pytest
from ansible_collections.mwaa.migration.plugins.module_utils._errors import MigrationError
from ansible_collections.mwaa.migration.plugins.module_utils._mwaa.rest import RestError
from ansible_collections.mwaa.migration.plugins.module_utils._state.compare import Change, Hidden, compare
from ansible_collections.mwaa.migration.plugins.module_utils._state.model import (
    Connection,
    Item,
    Pool,
    Variable,
    values,
)
from ansible_collections.mwaa.migration.plugins.module_utils._state.rest import Masking, RestLane, Unlistable


def bring(target: Any, *items: Item, prune: bool = False) -> tuple[dict[str, str], list, list[Change]]:
    """(errors, not carried, changes), as the modules do it."""
    lane: RestLane = target.lane(items[0].kind if items else "connections")
    adapted = [lane.adapt(item) for item in items]
    notes = [note for _item, note in adapted if note]
    wanted = [item for item, _note in adapted if item]
    spared = {note.id for note in notes}
    changes = compare(lane.kind, wanted, lane.read(), lambda *_field: None, prune=prune, spared=spared)
    listed = [change for change in changes if change.writes and lane.unreachable(change)]
    todo = [change for change in changes if change.writes and change not in listed]
    return lane.apply(todo, lambda _done: None), [*notes, *listed], changes


def test_a_password_can_be_changed_and_taken_away(target: Any) -> None:
    for password in ("one", "two", None, "***", "three"):
        bring(target, Connection("a", "http", password=password))
        assert target.holds("connections")["a"]["password"] == password


def test_extra_is_not_written_anew(target: Any) -> None:
    for extra in ('{ "b":1,  "a": 1e5 }', '{"b":2, "b":1.0}', '{"password": "***"}', None, '{"a":"\\u00e9"}'):
        bring(target, Connection("a", "http", extra=extra))
        assert target.holds("connections")["a"]["extra"] == extra


def test_what_is_null_and_what_is_empty(target: Any) -> None:
    full = Connection("a", "http", "d", "h", "l", "p", "s", 1, "{}")
    for wanted in (full, Connection("a", "http", "", "", "", "p", "", 0, "{}"), Connection("a", "ftp"), full):
        bring(target, wanted)
        assert target.holds("connections")["a"] == values(wanted)


def test_an_unlimited_pool_breaks_the_list_of_airflow_2_and_is_told_by_that(make_target: Any) -> None:
    target = make_target("2.11.2")
    lane = target.lane("pools")
    assert lane.apply([Change("p", 0, Pool("p", 3, "d"), "created")], lambda _done: None) == {}
    target.airflow.pools["endless"] = {"slots": -1, "description": "", "include_deferred": False}
    with pytest.raises(Unlistable):
        lane.read()
    found = lane.read_each(["p", "endless", "not there"])
    assert found["p"] == {"slots": 3, "description": "d", "include_deferred": False}
    assert found["endless"]["slots"] == -1 and isinstance(found["endless"]["description"], Hidden)
    assert "not there" not in found


class PoolsOf30:
    """The pools of an Airflow 3.0, some unlimited: a page with one of them is a 500 that says nothing."""

    environment = "mine"

    def __init__(self, *slots: int):
        self.rows = [{"name": f"p{number}", "slots": many} for number, many in enumerate(slots)]

    def call(self, _method: str, _path: str, query: dict[str, Any], budget: float) -> Any:
        assert query["limit"] == 1 and budget == 0
        page = self.rows[query["offset"] : query["offset"] + 1]
        if any(row["slots"] < 0 for row in page):
            raise RestError("GET /pools: Airflow answered 500: Internal Server Error", status=500)
        return SimpleNamespace(body={"pools": page})


def test_the_pools_beside_an_unlimited_one_are_read_from_airflow_3_0() -> None:
    lane = RestLane(PoolsOf30(3, -1, 0, -1), "pools", (3, 0, 6), Masking(3))  # type: ignore[arg-type]
    found, unseen = lane.read_one_by_one()
    assert {name: fields["slots"] for name, fields in found.items()} == {"p0": 3, "p2": 0} and unseen == 2
    broken = RestLane(PoolsOf30(*[-1] * 100), "pools", (3, 0, 6), Masking(3))  # type: ignore[arg-type]
    with pytest.raises(RestError, match="500"):
        broken.read_one_by_one()


def test_no_secret_goes_by_bulk(make_target: Any) -> None:
    target = make_target("3.2.1")
    bring(
        target,
        Variable("plain", "text"),
        Variable("also_plain", '{"x": 1}'),
        Variable("my_password", "CANARY-variable-00000001"),
    )
    bulk = [body for method, path, body in target.calls if (method, path) == ("PATCH", "/variables")]
    assert [entity["key"] for body in bulk for entity in body["actions"][0]["entities"]] == ["plain", "also_plain"]
    bring(target, Connection("a", "http", password="p"), Connection("b", "http", extra='{"token": "t"}'))
    assert ("PATCH", "/connections") not in [(method, path) for method, path, _body in target.calls]


def test_a_secret_that_the_audit_log_would_show_is_not_sent(target: Any) -> None:
    item = Variable("harmless", '{"user": "u", "password": "CANARY-nested-00000001"}')
    errors, [note], _changes = bring(target, item)
    assert "sensitive field 'password'" in note.reason and not errors
    assert "CANARY-" not in str(target.calls) and "harmless" not in target.holds("variables")


def test_names_that_the_environment_adds_are_sensitive_too() -> None:
    masking = Masking(2, {"core.sensitive_var_conn_names": "keyfile, pin"})
    assert masking.hides("My_PIN") and masking.hides("keyfile") and not masking.hides("user")
    assert not Masking(2).hides("access_key") and Masking(3).hides("access_key")


def test_nothing_is_written_where_airflow_masks_nothing(make_target: Any) -> None:
    target = make_target("3.2.1")
    lane = target.lane("connections", {"core.hide_sensitive_var_conn_fields": "False"})
    change = Change("a", 0, Connection("a", "http", password="p"), "created")
    with pytest.raises(MigrationError, match="hide_sensitive_var_conn_fields"):
        lane.apply([change], lambda _done: None)
    assert not target.calls


@pytest.mark.parametrize(
    ("version", "item", "reason"),
    [
        ("2.11.2", Connection("bad id", "http"), "REST takes ids of"),
        ("3.2.1", Connection("a" * 201, "http"), "REST takes ids of"),
        ("2.11.2", Connection("a", "http", extra="[1]"), "no JSON object"),
        ("3.2.1", Connection("a", "http", extra="text"), "no JSON object"),
        ("2.6.3", Pool("p", 1, include_deferred=True), "from 2.7 on"),
        ("2.11.2", Pool("p", -1), "unlimited slots"),
    ],
)
def test_what_cannot_come_is_known_before_anything_is_written(
    make_target: Any, version: str, item: Item, reason: str
) -> None:
    _item, note = make_target(version).lane(item.kind).adapt(item)
    assert note is not None and reason in note.reason


def test_long_ids_never_become_a_path(target: Any) -> None:
    item = Connection("x" * 60, "http", password="one")
    assert bring(target, item)[0] == {}
    changed = Connection("x" * 60, "http", password="two")
    _errors, listed, _changes = bring(target, changed)
    if target.version.startswith("3"):
        assert not listed and target.holds("connections")["x" * 60]["password"] == "two"
    else:
        assert [change.id for change in listed] == ["x" * 60]


def test_prune(target: Any) -> None:
    bring(target, *(Connection(name, "http") for name in ("a", "b", "aws_default")))
    errors, _listed, _changes = bring(target, Connection("a", "http"), prune=True)
    assert not errors and set(target.holds("connections")) == {"a", "aws_default"}


def test_a_storm_of_throttles_and_lost_answers_ends_equal(target: Any) -> None:
    weather = random.Random(5)
    storm = ["throttled", None, "lost", "answer lost", "throttled", None]
    target.fault = lambda *_call: weather.choice(storm)
    items = [Connection(f"c{number}", "http", password=f"p{number}", extra='{"a":1 }') for number in range(20)]
    for _run in range(2):
        assert bring(target, *items)[0] == {}
        assert target.holds("connections") == {item.id: values(item) for item in items}
    pools = [Pool(f"p{number}", number) for number in range(20)]
    assert bring(target, *pools)[0] == {}
    assert {name: row["slots"] for name, row in target.holds("pools").items() if name != "default_pool"} == {
        pool.id: pool.slots for pool in pools
    }


def test_a_service_that_answers_no_more_ends_with_what_was_applied(target: Any) -> None:
    done: list[str] = []
    lane = target.lane("connections")
    changes = [Change(f"c{number}", number, Connection(f"c{number}", "http"), "created") for number in range(40)]
    target.fault = lambda number, _method, _path: "throttled" if number > 10 else None
    errors = lane.apply(changes, lambda batch: done.extend(change.id for change in batch))
    assert set(done) | set(errors) == {change.id for change in changes} and not set(done) & set(errors)
    assert set(target.holds("connections")) == set(done) and "not tried" in errors.values()


def test_a_variable_whose_answer_was_lost_is_looked_for_and_not_sent_again(make_target: Any) -> None:
    target = make_target("2.11.2")
    target.fault = lambda _number, method, _path: "answer lost" if method == "POST" else None
    assert bring(target, Variable("a", "x"))[0] == {}
    assert [method for method, _path, _body in target.calls].count("POST") == 1


def test_what_is_deleted_to_be_made_anew_is_made_although_the_service_is_away_for_a_while(target: Any) -> None:
    bring(target, Connection("a", "http", password="old"))
    clock, back = target.rest._clock, []

    def fault(_number: int, _method: str, _path: str) -> str | None:
        if not target.holds("connections") and not back:
            back.append(clock.now + 60)
        return "lost" if back and clock.now < back[0] else None

    target.fault = fault
    assert bring(target, Connection("a", "http"))[0] == {} and clock.now >= back[0]
    assert target.holds("connections")["a"]["password"] is None


def test_one_refused_item_does_not_keep_the_others(target: Any) -> None:
    lane = target.lane("connections")
    changes = [Change(name, 0, Connection(name, "http"), "created") for name in ("a", "bad id", "b")]
    errors = lane.apply(changes, lambda _done: None)
    assert set(errors) == {"bad id"} and set(target.holds("connections")) == {"a", "b"}


def test_something_that_appears_meanwhile_is_overwritten(target: Any) -> None:
    target.airflow.connections["a"] = dict.fromkeys(("description", "host", "login", "schema", "port")) | {
        "conn_type": "ftp", "password": "old", "extra": '{"old": 1}', "team_name": None,
    }  # fmt: skip
    wanted = Connection("a", "http", password="new", extra='{"new":1}')
    assert target.lane("connections").apply([Change("a", 0, wanted, "created")], lambda _done: None) == {}
    assert target.holds("connections")["a"] == values(wanted)


def test_as_few_calls_as_can_be(make_target: Any) -> None:
    """Connections with secrets in a call each; what holds none in bulk; reading in pages of 100."""
    target = make_target("3.2.1")
    bring(target, *(Connection(f"c{number}", "http", password="p") for number in range(150)))
    assert len(target.calls) == 1 + 150
    target.calls.clear()
    target.lane("connections").read()
    assert len(target.calls) == 2
    target.calls.clear()
    bring(target, *(Variable(f"v{number}", "text") for number in range(500)))
    assert len(target.calls) == 1 + 5
    target.calls.clear()
    bring(target, *(Pool(f"p{number}", 1) for number in range(100)))
    assert len(target.calls) == 1 + 1
