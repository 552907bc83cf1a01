# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The shared body of the three modules: which lane, what is asked of the agent, what is remembered."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from ansible_collections.mwaa.migration.plugins.module_utils._bundle import digest
from ansible_collections.mwaa.migration.plugins.module_utils._errors import MigrationError
from ansible_collections.mwaa.migration.plugins.module_utils._state import upsert as module
from ansible_collections.mwaa.migration.plugins.module_utils._state.upsert import choose_lane, upsert

SECRET = "CANARY-upsert-00000001"


@pytest.mark.parametrize(
    ("asked", "version", "key", "lane", "reason"),
    [
        ("auto", (2, 11, 2), "key", "agent", "leaves no trace"),
        ("auto", (2, 11, 2), None, "rest", "neither kms_key_id nor bundle"),
        ("auto", (3, 2, 1), "key", "rest", "cannot reach its database"),
        ("rest", (2, 11, 2), "key", "rest", "asked for"),
    ],
)
def test_the_lane_and_why(asked: str, version: tuple[int, ...], key: str | None, lane: str, reason: str) -> None:
    choice = choose_lane(asked, version, key)
    assert choice.lane == lane and reason in choice.reason and choice.reason.endswith(".")


@pytest.mark.parametrize(
    ("version", "key", "fault"), [((3, 2, 1), "key", "use lane rest"), ((2, 9, 2), None, "kms_key_id")]
)
def test_an_agent_that_cannot_be_had(version: tuple[int, ...], key: str | None, fault: str) -> None:
    with pytest.raises(MigrationError, match=fault):
        choose_lane("agent", version, key)


class Agent:
    """An agent that answers as the real one, from what the target holds."""

    requests: list[dict[str, Any]] = []
    applied = True

    def __init__(self, _aws: Any, environment: dict[str, Any], _key: str, rest: Any):
        self.target, self.notes = environment["target"], []

    def install(self) -> None:
        pass

    def run(self, request: dict[str, Any], timeout: float) -> dict[str, Any]:
        import base64

        Agent.requests.append(request)
        key = base64.b64decode(request["digest_key"])
        kind = (
            next(iter(request["ids"]))
            if "ids" in request
            else next(k for k in ("variables", "connections") if k in request)
        )
        if request["op"] == "digest_state":
            held, wanted = self.target.holds(kind), request["ids"][kind]
            found = {name: held.get(name) for name in wanted}
        elif not Agent.applied:
            return {
                "applied": False,
                "results": {},
                "reasons": {kind: dict.fromkeys(request[kind], "differs")},
                "digests": {},
            }
        else:
            found = request[kind]
            getattr(self.target.airflow, kind).update({name: dict(row) for name, row in found.items()})
        digests = {
            name: {field: digest(key, kind, name, field, value) for field, value in row.items()} if row else None
            for name, row in found.items()
        }
        return {
            "applied": True,
            "results": {kind: dict.fromkeys(found, "created")},
            "reasons": {},
            "digests": {kind: digests},
        }


@pytest.fixture
def call(target: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    Agent.requests, Agent.applied = [], True
    environment = {"Name": "demo", "AirflowVersion": target.version, "Status": "AVAILABLE", "target": target}
    monkeypatch.setattr(module, "AgentLane", Agent)
    monkeypatch.setattr(module, "RestClient", lambda *_all: target.rest)
    monkeypatch.setattr(module, "describe", lambda *_all: environment)

    def run(kind: str, rows: list[dict[str, Any]], check: bool = False, **options: Any) -> dict[str, Any]:
        params = {
            "environment": "demo", "bundle": None, "lane": "auto", "on_conflict": "overwrite", "prune": False,
            "kms_key_id": "key", "wait_timeout": 60, kind: rows, **options,
        }  # fmt: skip
        aws = SimpleNamespace(client=lambda _service: None, region="eu-central-1")
        return upsert(SimpleNamespace(params=params, aws=aws, check_mode=check, diff_mode=True), kind)

    run.environment = environment  # type: ignore[attr-defined]
    return run


CONNECTION = {"conn_id": "a", "conn_type": "http", "password": SECRET}


def test_secrets_are_compared_without_being_read(target: Any, call: Any) -> None:
    assert call("connections", [CONNECTION])["counts"] == {"created": 1}
    if target.version.startswith("3"):
        again = call("connections", [CONNECTION])
        assert again["counts"] == {"unchanged": 1} and Agent.requests[-1]["op"] == "digest_state"
        changed = call("connections", [{**CONNECTION, "password": "other"}])
        assert changed["results"][0]["diff"]["after"]["password"] == "******** (changed)"
    assert SECRET not in str(Agent.requests) or Agent.requests[0]["op"] == "import_state"


def test_check_mode_asks_no_agent_and_writes_nothing(target: Any, call: Any) -> None:
    call("connections", [CONNECTION])
    Agent.requests.clear()
    target.calls.clear()
    check = call("connections", [CONNECTION], check=True)
    assert [row["action"] for row in check["results"]] == ["unknown"] and check["changed"]
    assert "password" in check["results"][0]["reason"]
    assert not Agent.requests and {method for method, _path, _body in target.calls} == {"GET"}


def test_what_the_log_would_show_goes_by_the_agent(target: Any, call: Any) -> None:
    rows = [{"key": "harmless", "value": '{"password": "' + SECRET + '"}'}, {"key": "plain", "value": "x"}]
    result = call("variables", rows)
    assert result["counts"] == {"created": 2} and not result["not_carried"]
    assert SECRET not in str(target.calls)
    lanes = {row["id"]: row["lane"] for row in result["results"]}
    assert lanes == {"harmless": "agent", "plain": "rest" if target.version.startswith("3") else "agent"}
    assert call("variables", rows)["counts"] == {"unchanged": 2}


def test_prune_spares_what_the_bundle_has_and_cannot_carry(
    target: Any, call: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    if target.version.startswith("3"):
        return
    state = {"odd": {"conn_type": "http", "port": 99999}, "a": {"conn_type": "http", "password": SECRET}}
    bundle = SimpleNamespace(
        read_state=lambda _kind: state,
        ledger=lambda _name: None,
        digest_key=b"k" * 32,
        key={"kms_key_id": "key"},
    )
    monkeypatch.setattr(module, "Bundle", SimpleNamespace(open=lambda *_all: bundle))
    monkeypatch.setattr(module, "open_store", lambda url, _aws: url)
    result = call("connections", None, bundle="s3://b/x", prune=True)
    assert [entry["id"] for entry in result["not_carried"]] == ["odd"]
    assert Agent.requests[0]["spared"] == ["odd"]


def test_no_run_where_rest_shows_that_all_is_equal(target: Any, call: Any) -> None:
    target.airflow.variables["a"] = {"value": "text", "description": None}
    assert call("variables", [{"key": "a", "value": "text"}])["counts"] == {"unchanged": 1}
    assert not Agent.requests


def test_an_import_that_the_agent_refuses_names_everything(target: Any, call: Any) -> None:
    if target.version.startswith("3"):
        return
    Agent.applied = False
    with pytest.raises(MigrationError, match=r"nothing was written.*a \(differs\); b \(differs\)"):
        call("variables", [{"key": "a", "value": "1"}, {"key": "b", "value": "2"}])


def test_an_environment_that_is_updating(call: Any) -> None:
    call.environment["Status"] = "UPDATING"
    with pytest.raises(MigrationError, match="environment demo is UPDATING, so nothing was done"):
        call("variables", [{"key": "a", "value": "1"}])
