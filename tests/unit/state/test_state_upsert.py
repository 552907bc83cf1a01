# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The three modules' shared body and the lanes: which one, what is asked, what is written, what is remembered."""

from __future__ import annotations

import base64
import contextlib
import json
import shlex
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from ansible_collections.mwaa.migration.plugins.module_utils._bundle import FIELDS, FOUND, digest
from ansible_collections.mwaa.migration.plugins.module_utils._errors import MigrationError
from ansible_collections.mwaa.migration.plugins.module_utils._mwaa import environment as environments
from ansible_collections.mwaa.migration.plugins.module_utils._mwaa.access import Access
from ansible_collections.mwaa.migration.plugins.module_utils._mwaa.cli import CliResult
from ansible_collections.mwaa.migration.plugins.module_utils._state import upsert as module
from ansible_collections.mwaa.migration.plugins.module_utils._state.compare import Change
from ansible_collections.mwaa.migration.plugins.module_utils._state.lanes import ByAgent, Knowledge, Work, choose_lane
from ansible_collections.mwaa.migration.plugins.module_utils._state.model import Connection
from ansible_collections.mwaa.migration.plugins.module_utils._state.secrets import backend_options
from ansible_collections.mwaa.migration.plugins.module_utils._state.upsert import upsert

SECRET = "CANARY-upsert-00000001"
PUBLIC = Access(True, True, "The web server is public.")
OLD = Access(False, True, "Airflow 2.0.2 has no REST API in MWAA (it begins with 2.4.3), its CLI answers.")
CLOSED = Access(False, False, "The web server is private and cannot be reached: no route.")


@pytest.mark.parametrize(
    ("asked", "kind", "version", "key", "access", "lane", "reason"),
    [
        ("auto", "variables", (2, 11, 2), "key", PUBLIC, "agent", "its audit log shows nothing"),
        ("auto", "variables", (2, 11, 2), None, PUBLIC, "rest", "neither kms_key_id nor bundle"),
        ("auto", "connections", (2, 11, 2), "key", CLOSED, "agent", "It starts by its schedule. The web server is"),
        ("auto", "connections", (2, 0, 2), "key", OLD, "agent", "the agent, started by the CLI, compares and writes"),
        ("auto", "pools", (2, 0, 2), "key", CLOSED, "agent", "started by its schedule, compares and writes"),
        ("auto", "variables", (2, 0, 2), None, OLD, "cli", "gives a key for the agent"),
        ("auto", "connections", (3, 2, 1), "key", PUBLIC, "rest", "cannot reach its database"),
        ("auto", "variables", (3, 2, 1), "key", CLOSED, "agent", "starts by its schedule"),
        ("rest", "variables", (2, 11, 2), "key", PUBLIC, "rest", "asked for"),
        ("agent", "variables", (3, 2, 1), "key", PUBLIC, "agent", "asked for"),
        ("secrets_manager", "connections", (2, 0, 2), None, CLOSED, "secrets_manager", "asked for"),
        ("secrets_manager", "pools", (3, 2, 1), None, PUBLIC, "rest", "Pools are always in Airflow's own database. T"),
    ],
)
def test_the_lane_and_why(
    asked: str, kind: str, version: tuple[int, ...], key: str | None, access: Access, lane: str, reason: str
) -> None:
    choice = choose_lane(asked, kind, version, key, access)
    assert choice.lane == lane and reason in choice.reason and choice.reason.endswith(".")


@pytest.mark.parametrize(
    ("asked", "kind", "version", "key", "access", "fault"),
    [
        ("agent", "connections", (3, 2, 1), "key", PUBLIC, "use lane rest"),
        ("agent", "variables", (2, 9, 2), None, PUBLIC, "set kms_key_id or bundle"),
        ("rest", "variables", (2, 0, 2), "key", OLD, "no REST API in MWAA .* use lane agent"),
        ("rest", "variables", (2, 11, 2), "key", CLOSED, "Set api_host"),
        ("cli", "variables", (2, 11, 2), "key", CLOSED, "Set api_host"),
        ("auto", "connections", (3, 2, 1), "key", CLOSED, "no route. Set api_host to .*, or use lane secrets_manager"),
        ("auto", "pools", (3, 2, 1), "key", CLOSED, "Set api_host to a host that is inside$"),
        ("auto", "connections", (2, 0, 2), None, OLD, "the agent needs a key"),
        ("auto", "variables", (2, 11, 2), None, CLOSED, "the agent needs a key"),
    ],
)
def test_no_lane_can_be_had(
    asked: str, kind: str, version: tuple[int, ...], key: str | None, access: Access, fault: str
) -> None:
    with pytest.raises(MigrationError, match=fault):
        choose_lane(asked, kind, version, key, access)


class Agent:
    """An agent that answers as the real one, from what the target holds."""

    requests: list[dict[str, Any]] = []
    applied = True

    def __init__(self, _aws: Any, environment: dict[str, Any], _key: str, rest: Any, access: Access):
        self.target, self.notes = environment["target"], []

    def install(self) -> None:
        pass

    def run(self, request: dict[str, Any], timeout: float) -> dict[str, Any]:
        Agent.requests.append(request)
        kinds = ("variables", "connections", "pools")
        kind = next(iter(request["ids"])) if "ids" in request else next(k for k in kinds if k in request)
        stored = getattr(self.target.airflow, kind)
        statuses = {}
        if request["op"] == "digest_state":
            held = self.target.holds(kind)
            found = {name: held.get(name) for name in request["ids"][kind]}
        elif not Agent.applied:
            reasons = {kind: dict.fromkeys(request[kind], "differs")}
            return {"applied": False, "results": {}, "reasons": reasons, "digests": {}}
        else:
            found = request[kind]
            statuses = {name: "unchanged" if stored.get(name) == row else "created" for name, row in found.items()}
            stored.update({name: dict(row) for name, row in found.items()})
            for name in request["prune"] if isinstance(request.get("prune"), list) else ():
                if name not in found and name not in request.get("spared", ()) and stored.pop(name, None):
                    statuses[name] = "deleted"
        key = base64.b64decode(request["digest_key"])
        digests = {
            name: {field: digest(key, kind, name, field, value) for field, value in row.items()} if row else None
            for name, row in found.items()
        }
        return {"applied": True, "results": {kind: statuses}, "reasons": {}, "digests": {kind: digests}}


class Ledger:
    """What this bundle brought, in memory."""

    def __init__(self, entries: dict[str, dict[str, dict[str, str]]]):
        self.entries = entries

    def get(self, kind: str, identifier: str) -> dict[str, str] | None:
        return self.entries.get(kind, {}).get(identifier)

    def put(self, kind: str, identifier: str, digests: dict[str, str] | None) -> None:
        if digests is None:
            self.entries[kind].pop(identifier, None)
        else:
            self.entries.setdefault(kind, {})[identifier] = digests

    def ids(self, kind: str) -> set[str]:
        return {name for name, known in self.entries.get(kind, {}).items() if FOUND not in known}

    def save(self) -> None:
        pass


@pytest.fixture
def call(target: Any, secrets: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    Agent.requests, Agent.applied = [], True
    environment = {"Name": "demo", "AirflowVersion": target.version, "Status": "AVAILABLE", "target": target}
    monkeypatch.setattr(module, "AgentLane", Agent)
    monkeypatch.setattr(module, "RestClient", lambda *_all: target.rest)
    monkeypatch.setattr(environments, "describe", lambda *_all: environment)

    def run(kind: str, rows: Any, check: bool = False, access: Access = PUBLIC, **options: Any) -> dict[str, Any]:
        monkeypatch.setattr(module, "reach", lambda *_all: access)
        params = {
            "environment": "demo", "bundle": None, "lane": "auto", "on_conflict": "overwrite", "prune": False,
            "kms_key_id": "key", "wait_timeout": 60, "include": None, "exclude": None, "rename": None,
            "secrets_prefix": None, "secrets_kms_key_id": None, "beside": None, kind: rows, **options,
        }  # fmt: skip
        aws = SimpleNamespace(client={"secretsmanager": secrets}.get, region="eu-central-1")
        return upsert(SimpleNamespace(params=params, aws=aws, check_mode=check, diff_mode=True), kind)

    run.environment = environment  # type: ignore[attr-defined]
    return run


@pytest.fixture
def bundles(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> Callable[[str, dict[str, Any]], str]:
    """bundles("a", {id: fields}) -> its url. Each has its ledger, which lives as long as the test."""
    from ansible_collections.mwaa.migration.plugins.module_utils._bundle import LocalStore

    state: dict[str, Any] = {}
    ledgers: dict[str, Ledger] = {}

    def open_bundle(url: str, *_more: Any) -> Any:
        return SimpleNamespace(
            read_state=lambda _kind: state[url],
            ledger=lambda _name: ledgers.setdefault(url, Ledger({})),
            digest_key=url.encode() * 32,
            key={"kms_key_id": "key"},
            bundle_id=url,
            store=LocalStore(tmp_path),
        )

    monkeypatch.setattr(module, "Bundle", SimpleNamespace(open=open_bundle))
    monkeypatch.setattr(module, "open_store", lambda url, _aws: url)

    def make(url: str, items: dict[str, Any]) -> str:
        state[url] = items
        return url

    return make


def actions(result: dict[str, Any]) -> dict[str, str]:
    return {row["id"]: row["action"] for row in result["results"]}


CONNECTION = {"conn_id": "a", "conn_type": "http", "password": SECRET}


# ------------------------------------------------------------------------------------------------------ agent and rest


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
    assert {row["store"] for row in result["results"]} == {"metastore"}
    assert call("variables", rows)["counts"] == {"unchanged": 2}


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


def test_without_rest_the_agent_compares_by_itself(make_target: Any, call: Any, bundles: Any, target: Any) -> None:
    if target.version.startswith("3"):
        return
    url = bundles("a", {"db": {"conn_type": "http", "password": SECRET}})
    check = call("connections", None, bundle=url, access=CLOSED, check=True)
    assert actions(check) == {"db": "unknown"} and not Agent.requests
    result = call("connections", None, bundle=url, access=CLOSED)
    assert actions(result) == {"db": "created"} and not target.calls
    assert actions(call("connections", None, bundle=url, access=CLOSED, check=True)) == {"db": "unchanged"}


def test_a_private_airflow_3_takes_variables_by_task(target: Any, call: Any) -> None:
    if target.version.startswith("2"):
        return
    rows = [{"key": "a", "value": SECRET}, {"key": "b", "value": "x"}]
    assert call("variables", rows, access=CLOSED)["counts"] == {"created": 2} and not target.calls
    with pytest.raises(MigrationError, match="1 variables are refused: b"):
        call("variables", [*rows[:1], {"key": "b", "value": "y"}], access=CLOSED, on_conflict="fail")
    again = call("variables", rows, access=CLOSED, prune=True)
    assert again["counts"] == {"unchanged": 2} and "cannot list variables" in again["notes"][0]


def test_a_task_of_airflow_3_cannot_name_everything(call: Any, target: Any) -> None:
    if target.version.startswith("2"):
        return
    rows = [{"key": "a?b", "value": '{"password": "' + SECRET + '"}'}, {"key": "a", "value": "x"}]
    for access in (PUBLIC, CLOSED):
        result = call("variables", rows, access=access)
        assert list(actions(result)) == ["a"] and "cannot name it" in result["not_carried"][0]["reason"]


def test_what_the_agent_could_not_read_is_there_all_the_same(
    call: Any, target: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    if target.version.startswith("2"):
        return
    answer = {"digests": {"variables": {"a": None}}, "errors": {"variables": {"a": "AirflowRuntimeError"}}}
    monkeypatch.setattr(Agent, "run", lambda *_all: answer)
    result = call("variables", [{"key": "a", "value": "1"}], access=CLOSED, on_conflict="keep")
    assert actions(result) == {"a": "kept"}


# --------------------------------------------------------------------------------------------------- several, selected


def test_prune_spares_what_the_bundle_has_and_cannot_carry(target: Any, call: Any, bundles: Any) -> None:
    url = bundles("a", {"odd": {"conn_type": "http", "port": 99999}, "a": {"conn_type": "http", "password": SECRET}})
    result = call("connections", None, bundle=url, prune=True)
    assert [entry["id"] for entry in result["not_carried"]] == ["odd"]
    if target.version.startswith("2"):
        assert Agent.requests[0]["spared"] == ["odd"]


def test_prune_deletes_what_this_bundle_brought_and_nothing_else(target: Any, call: Any, bundles: Any) -> None:
    """Two sources into one target, and variables that were there before."""
    target.airflow.variables["of the target"] = {"value": "x", "description": None}
    call("variables", None, bundle=bundles("a", {"a1": "1", "a2": "2"}), prune=True)
    call("variables", None, bundle=bundles("b", {"b1": "1"}), prune=True)
    result = call("variables", None, bundle=bundles("a", {"a1": "1"}), prune=True)
    assert actions(result) == {"a1": "unchanged", "a2": "deleted"}
    assert set(target.holds("variables")) == {"of the target", "a1", "b1"}


def test_what_two_sources_bring_differently_is_refused_with_both_names(target: Any, call: Any, bundles: Any) -> None:
    sales = bundles("s3://b/sales", {"same": "1", "token": SECRET, "home": "x", "odd": "1"})
    finance = bundles("s3://b/finance", {"same": "1", "token": "CANARY-other-1", "home": "y", "tmp": "2"})
    with pytest.raises(MigrationError) as refused:
        call("variables", None, bundle=sales, beside=[{"source": finance}])
    assert refused.value.message == (
        "the sources cannot become one environment, nothing was done: 2 variables of s3://b/sales and s3://b/finance"
        " differ: token (value); home (value); exclude or rename them in the select of one of the two"
    )
    assert not target.calls and not Agent.requests
    rename = [{"match": "token", "to": "finance_token"}]
    select = {"variables": {"exclude": ["home"], "rename": rename}}
    assert call("variables", None, bundle=sales, beside=[{"source": finance, "select": select}])["counts"] == {
        "created": 4
    }
    # the other way round: what is renamed onto the other's id
    collides = {"rename": [{"match": "tmp", "to": "odd"}], "exclude": ["token", "home"]}
    with pytest.raises(MigrationError, match=r"1 variable of s3://b/finance and s3://b/sales differs: odd \(value\)"):
        call("variables", None, bundle=finance, beside=[{"source": sales}], **collides)


def test_what_was_there_and_equal_before_is_not_pruned(target: Any, call: Any, bundles: Any) -> None:
    """The first run finds it equal, secrets and all, and brings something else; in the last the source has neither."""
    theirs = {**dict.fromkeys(FIELDS["connections"]), "conn_type": "http", "password": SECRET}
    target.airflow.connections["theirs"] = dict(theirs)
    both = {"theirs": theirs, "ours": {"conn_type": "http"}}
    for _time in range(2):
        call("connections", None, bundle=bundles("a", both), prune=True)
    result = call("connections", None, bundle=bundles("a", {}), prune=True)
    assert actions(result) == {"ours": "deleted"} and set(target.holds("connections")) == {"theirs"}


def test_what_another_source_brings_too_is_not_pruned(target: Any, call: Any, bundles: Any) -> None:
    call("variables", None, bundle=bundles("a", {"both": "1", "a": "1"}), prune=True)
    url = bundles("b", {"both": "1"})
    call("variables", None, bundle=url, prune=True)
    beside = [{"source": url, "select": None}]
    result = call("variables", None, bundle=bundles("a", {}), prune=True, beside=beside)
    assert actions(result) == {"a": "deleted"} and set(target.holds("variables")) == {"both"}


def test_renamed_ids_are_the_targets(target: Any, call: Any, bundles: Any) -> None:
    url = bundles("a", {"prod_x": "1", "prod_tmp": "2", "other": "3"})
    options = {"exclude": ["*_tmp"], "rename": [{"match": "prod_(.*)", "to": r"team_\1"}]}
    result = call("variables", None, bundle=url, **options)
    assert [(row["id"], row.get("renamed_from")) for row in result["results"]] == [
        ("team_x", "prod_x"),
        ("other", None),
    ]
    assert [(entry["id"], entry["reason"]) for entry in result["not_carried"]] == [
        ("prod_tmp", "not selected (include, exclude)")
    ]
    assert set(target.holds("variables")) == {"team_x", "other"}
    assert call("variables", None, bundle=url, **options)["counts"] == {"unchanged": 2}


def test_a_name_that_airflow_does_not_take(call: Any) -> None:
    rows = [{"key": "a", "value": "1"}, {"key": "b", "value": "1"}]
    with pytest.raises(MigrationError, match=r"2 faults: .*'a' would become 'aaa.* has 300 characters"):
        call("variables", rows, rename=[{"match": "(a|b)", "to": r"\1" * 300}])


# ----------------------------------------------------------------------------------------------------- secrets manager


@pytest.fixture
def looked_up(target: Any, call: Any) -> Any:
    """`call` into an environment that looks into Secrets Manager."""
    call.environment["AirflowConfigurationOptions"] = backend_options("airflow", target.version)
    return lambda *args, **options: call(*args, lane="secrets_manager", **options)


def test_an_environment_that_does_not_look_there(call: Any) -> None:
    with pytest.raises(MigrationError, match=r"does not look for variables in Secrets Manager \(secrets.backend\)"):
        call("variables", [{"key": "a", "value": "1"}], lane="secrets_manager")
    check = call("variables", [{"key": "a", "value": "1"}], lane="secrets_manager", check=True)
    assert check["counts"] == {"created": 1} and "set secrets_backend" in check["notes"][0]


def test_secrets_are_made_compared_and_changed(looked_up: Any, secrets: Any, target: Any) -> None:
    rows = [{**CONNECTION, "extra": '{ "a" :1}', "port": 5432}, {"conn_id": "b", "conn_type": "http"}]
    first = looked_up("connections", rows)
    assert first["counts"] == {"created": 2} and first["lane"] == "secrets_manager"
    assert {row["store"] for row in first["results"]} == {"secrets_manager"} and not target.airflow.connections
    assert set(secrets.texts()) == {"airflow/connections/a", "airflow/connections/b"}
    secrets.calls.clear()
    assert looked_up("connections", rows)["counts"] == {"unchanged": 2} and not secrets.calls
    changed = looked_up("connections", [{**rows[0], "password": "other"}, rows[1]], check=True)
    assert actions(changed) == {"a": "updated", "b": "unchanged"} and not secrets.calls
    assert SECRET not in json.dumps(changed) and changed["results"][0]["diff"]["after"]["password"].startswith("****")
    looked_up("connections", [{**rows[0], "password": "other"}, rows[1]])
    assert secrets.calls == [("PutSecretValue", "airflow/connections/a")]


def test_what_moves_is_taken_out_of_the_database(looked_up: Any, secrets: Any, target: Any) -> None:
    for name in ("moves", "stays"):
        target.airflow.variables[name] = {"value": "x", "description": None}
    check = looked_up("variables", [{"key": "moves", "value": "x"}], check=True)
    assert actions(check) == {"moves": "created"} and set(target.holds("variables")) == {"moves", "stays"}
    result = looked_up("variables", [{"key": "moves", "value": "x"}])
    assert set(target.holds("variables")) == {"stays"} and secrets.texts() == {"airflow/variables/moves": "x"}
    assert "1 variables were taken out of Airflow's database" in result["notes"]
    by_agent = [request["prune"] for request in Agent.requests]
    assert by_agent == ([["moves"]] if target.version.startswith("2") else [])
    target.airflow.variables["moves"] = {"value": "old", "description": None}  # somebody put it back
    assert actions(looked_up("variables", [{"key": "moves", "value": "x"}])) == {"moves": "updated"}
    assert set(target.holds("variables")) == {"stays"}


def test_anothers_secret_is_a_conflict(looked_up: Any, secrets: Any) -> None:
    secrets.add("airflow/variables/a", "theirs", team="x")
    rows = [{"key": "a", "value": "ours"}]
    with pytest.raises(MigrationError, match=r"nothing was written.*a \(exists with another content\)"):
        looked_up("variables", rows, on_conflict="fail")
    assert actions(looked_up("variables", rows, on_conflict="keep")) == {"a": "kept"}
    result = looked_up("variables", rows)
    assert secrets.texts()["airflow/variables/a"] == "ours"
    assert result["results"][0]["reason"] == "another's secret with another content"
    looked_up("variables", [], prune=True)
    assert "airflow/variables/a" in secrets.texts()  # it is still not ours


def test_only_our_secrets_are_pruned(looked_up: Any, secrets: Any) -> None:
    secrets.add("airflow/variables/theirs", "x")
    secrets.add("airflow/variables/another_environments", "x", mwaa_migration="other")
    looked_up("variables", [{"key": "old", "value": "x"}, {"key": "new", "value": "x"}])
    result = looked_up("variables", [{"key": "new", "value": "x"}], prune=True)
    assert actions(result) == {"new": "unchanged", "old": "deleted"} and "airflow/variables/old" not in secrets.texts()
    assert {"airflow/variables/theirs", "airflow/variables/another_environments"} < set(secrets.texts())


def test_a_secret_scheduled_for_deletion_is_restored(looked_up: Any, secrets: Any) -> None:
    looked_up("variables", [{"key": "a", "value": "1"}])
    looked_up("variables", [], prune=True)
    result = looked_up("variables", [{"key": "a", "value": "2"}])
    assert result["results"][0]["reason"] == "it was scheduled for deletion and is restored"
    assert secrets.texts() == {"airflow/variables/a": "2"} and actions(result) == {"a": "updated"}


def test_what_is_scheduled_for_deletion_is_not_there(looked_up: Any, secrets: Any) -> None:
    looked_up("variables", [{"key": "a", "value": "1"}])
    assert actions(looked_up("variables", [], prune=True)) == {"a": "deleted"}
    assert not looked_up("variables", [], prune=True)["changed"]
    assert actions(looked_up("variables", [{"key": "a", "value": "2"}], on_conflict="keep")) == {"a": "updated"}
    assert secrets.texts() == {"airflow/variables/a": "2"}


@pytest.mark.parametrize("conflict", ["keep", "fail"])
def test_what_is_to_be_kept_stays_in_the_database_behind_a_secret_that_is_equal(
    looked_up: Any, secrets: Any, target: Any, conflict: str
) -> None:
    rows = [{"key": "a", "value": "ours"}]
    looked_up("variables", rows)
    target.airflow.variables["a"] = {"value": "theirs", "description": None}
    for access in (PUBLIC, CLOSED):
        result = looked_up("variables", rows, access=access, on_conflict=conflict)
        assert actions(result) == {"a": "unchanged"} and target.holds("variables")["a"]["value"] == "theirs"
    assert actions(looked_up("variables", rows)) == {"a": "updated"} and not target.airflow.variables


def test_where_nothing_is_to_be_carried_no_lane_is_missed(call: Any, target: Any) -> None:
    """Pools of a private Airflow 3 have no way in; who excludes all of them needs none."""
    given = {"access": CLOSED, "kms_key_id": None, "lane": "auto"}
    result = call("pools", [{"name": "a", "slots": 1}], exclude=["*"], **given)
    assert not result["changed"] and result["lane_reason"].startswith("There is nothing to carry. ")
    assert [entry["id"] for entry in result["not_carried"]] == ["a"]
    with pytest.raises(MigrationError):
        call("pools", [{"name": "a", "slots": 1}], **given)


def test_a_private_airflow_is_cleaned_by_the_agent_where_its_tasks_can(
    looked_up: Any, secrets: Any, target: Any
) -> None:
    target.airflow.variables["a"] = {"value": "x", "description": None}
    result = looked_up("variables", [{"key": "a", "value": "x"}], access=CLOSED)
    assert secrets.texts() == {"airflow/variables/a": "x"}
    if target.version.startswith("2"):
        assert [request["prune"] for request in Agent.requests] == [["a"]] and not target.airflow.variables
    else:
        assert not Agent.requests and "could not be looked for" in result["notes"][0]


def test_what_a_private_airflow_has_in_its_database_counts(looked_up: Any, secrets: Any, target: Any) -> None:
    target.airflow.variables["a"] = {"value": "theirs", "description": None}
    rows = [{"key": "a", "value": "ours"}, {"key": "b", "value": "x"}]
    with pytest.raises(MigrationError, match=r"1 variables are refused: a \(exists"):
        looked_up("variables", rows, access=CLOSED, on_conflict="fail")
    kept = looked_up("variables", rows, access=CLOSED, on_conflict="keep")
    assert actions(kept) == {"a": "kept", "b": "created"}
    assert target.holds("variables")["a"]["value"] == "theirs" and set(secrets.texts()) == {"airflow/variables/b"}
    with pytest.raises(MigrationError, match="needs to see what environment demo has in its database"):
        looked_up("variables", rows, access=CLOSED, on_conflict="keep", kms_key_id=None)


def test_what_cannot_be_taken_out_of_the_database_does_not_count_as_changed(
    looked_up: Any, call: Any, secrets: Any, target: Any
) -> None:
    """A path of MWAA has 64 characters, so that REST of Airflow 2 cannot delete this one; aws_default always stays."""
    long = "a" * 60
    target.airflow.variables[long] = {"value": "x", "description": None}
    looked_up("variables", [{"key": long, "value": "x"}], kms_key_id=None)
    again = looked_up("variables", [{"key": long, "value": "x"}], kms_key_id=None)
    if target.version.startswith("2"):
        assert actions(again) == {long: "unchanged"} and "copies stay in Airflow's database" in again["notes"][0]
    else:
        assert actions(again) == {long: "unchanged"} and not target.airflow.variables
    call.environment["AirflowConfigurationOptions"] = backend_options("airflow", "2.5.1")  # it knows no patterns
    target.airflow.connections["aws_default"] = {**dict.fromkeys(FIELDS["connections"]), "conn_type": "aws"}
    for action in ("created", "unchanged"):
        row = {"conn_id": "aws_default", "conn_type": "aws"}
        assert actions(call("connections", [row], lane="secrets_manager")) == {"aws_default": action}
    assert "aws_default" in target.airflow.connections


def test_moving_out_of_the_database_takes_the_lock(
    looked_up: Any, bundles: Any, target: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, taken = bundles("a", {"a": "x"}), []
    looked_up("variables", None, bundle=url)
    monkeypatch.setattr(module, "held_in", lambda *_all: contextlib.nullcontext(lambda: taken.append(1)))
    looked_up("variables", None, bundle=url)
    assert not taken
    target.airflow.variables["a"] = {"value": "x", "description": None}  # somebody put it back
    looked_up("variables", None, bundle=url)
    assert taken


def test_a_prefix_inside_another_ones_prefix(call: Any, secrets: Any) -> None:
    """What airflow/variables/… holds is no connection of an environment that looks for these under airflow/…"""
    options = backend_options("airflow", "2.11.2")
    kwargs = json.loads(options["secrets.backend_kwargs"])
    options["secrets.backend_kwargs"] = json.dumps({**kwargs, "connections_prefix": "airflow"})
    call.environment["AirflowConfigurationOptions"] = options
    call("variables", [{"key": "a", "value": "x"}], lane="secrets_manager")
    call("connections", [], lane="secrets_manager", prune=True)
    assert set(secrets.texts()) == {"airflow/variables/a"}


def test_what_the_list_does_not_show_yet(looked_up: Any, secrets: Any) -> None:
    looked_up("variables", [{"key": "a", "value": "1"}])
    secrets.lag = {"airflow/variables/a"}
    assert actions(looked_up("variables", [{"key": "a", "value": "1"}])) == {"a": "unchanged"}


@pytest.mark.parametrize(
    ("kind", "row", "reason"),
    [
        ("variables", {"key": "a b", "value": "x"}, "the name of a secret has letters"),
        ("variables", {"key": "a", "value": ""}, "a secret is never empty"),
        ("variables", {"key": "a", "value": "ü" * 40000}, "80,000 bytes"),
        ("connections", {"conn_id": "aws_default", "conn_type": "aws"}, "lookup pattern keeps it out"),
        ("connections", {"conn_id": "a", "conn_type": "my-type"}, "conn_type: this Airflow reads it differently"),
    ],
)
def test_what_no_secret_can_be(looked_up: Any, secrets: Any, kind: str, row: dict[str, Any], reason: str) -> None:
    result = looked_up(kind, [row])
    assert reason in result["not_carried"][0]["reason"] and not result["results"] and not secrets.held


def test_small_losses_are_told_and_do_not_count_as_different(looked_up: Any) -> None:
    rows = [{"conn_id": "a", "conn_type": "http", "password": "", "description": "d"}]
    for _time in range(2):
        result = looked_up("connections", rows)
        reason = "password: arrives as null; description: a secret holds none"
        assert [entry["reason"] for entry in result["not_carried"]] == [reason]
    assert result["counts"] == {"unchanged": 1}


# ----------------------------------------------------------------------------------------------------------------- cli


class Cli:
    """MWAA's CLI endpoint over the target's variables: no exit codes, four at once."""

    def __init__(self, target: Any):
        self.target, self.commands = target, []

    def run(self, command: str) -> CliResult:
        self.commands.append(command)
        words, held = shlex.split(command), self.target.airflow.variables
        if words[:2] == ["variables", "list"]:
            return CliResult("", "", [{"key": name} for name in held], False, "")
        if words[:2] == ["variables", "get"]:
            return CliResult(f"some warning\n{held[words[2]]['value']}\n", "", None, False, "")
        if words[:2] == ["variables", "delete"]:
            del held[words[2]]
        else:
            held[words[2]] = {"value": words[3], "description": None}
        return CliResult("", "", None, False, "")


def test_cli_takes_words_that_hold_no_secret(target: Any, call: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    cli = Cli(target)
    monkeypatch.setattr(module, "Cli", SimpleNamespace(of=lambda *_all: cli))
    rows = [
        {"key": "region", "value": "eu-central-1"},
        {"key": "colour", "value": "light blue"},
        {"key": "db_password", "value": SECRET},
        {"key": "harmless", "value": '{"token": "x"}'},
        {"key": "empty", "value": ""},
        {"key": "dash", "value": "-1"},
    ]
    target.airflow.variables["old"] = {"value": "x", "description": None}
    result = call("variables", rows, lane="cli", prune=True)
    assert actions(result) == {"region": "created", "old": "deleted"} and SECRET not in str(cli.commands)
    reasons = {entry["id"]: entry["reason"] for entry in result["not_carried"]}
    assert set(reasons) == {"colour", "db_password", "harmless", "empty", "dash"}
    assert "secrets never travel by cli" in reasons["harmless"] and "needs quotes" in reasons["colour"]
    assert call("variables", rows, lane="cli")["counts"] == {"unchanged": 1}


def test_cli_does_not_take_the_end_of_a_value_for_all_of_it(
    target: Any, call: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    cli = Cli(target)
    monkeypatch.setattr(module, "Cli", SimpleNamespace(of=lambda *_all: cli))
    target.airflow.variables["region"] = {"value": "eu-west-1\neu-central-1", "description": None}
    assert actions(call("variables", [{"key": "region", "value": "eu-central-1"}], lane="cli")) == {"region": "updated"}
    assert target.holds("variables")["region"]["value"] == "eu-central-1"


def test_cli_takes_no_secret_although_this_airflow_hides_nothing(
    target: Any, call: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    cli = Cli(target)
    monkeypatch.setattr(module, "Cli", SimpleNamespace(of=lambda *_all: cli))
    call.environment["AirflowConfigurationOptions"] = {"core.hide_sensitive_var_conn_fields": "False"}
    result = call("variables", [{"key": "db_password", "value": SECRET}], lane="cli")
    assert not result["results"] and SECRET not in str(cli.commands)


def test_cli_lists_what_it_cannot_take_at_all(target: Any, call: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    cli = Cli(target)
    monkeypatch.setattr(module, "Cli", SimpleNamespace(of=lambda *_all: cli))
    listed = call("connections", [CONNECTION], lane="cli")["not_carried"]
    assert listed[0]["reason"].startswith("secrets never travel by cli")
    assert "no command for pools" in call("pools", [{"name": "p", "slots": 1}], lane="cli")["not_carried"][0]["reason"]


@pytest.mark.parametrize("extra", ["[1, 2]", "no json", '"text"', "1"])
def test_what_airflow_3_falls_over_does_not_enter_an_environment_that_becomes_one(extra: str) -> None:
    """GET /connections of 3.2.1 answers 500 as long as it has one such row."""
    item = Connection(id="db", conn_type="http", extra=extra)
    knowledge = Knowledge("connections", None, None)
    agent: Any = None

    def lane(*becomes: int) -> ByAgent:
        return ByAgent(Work("connections", "prod", [], [], knowledge, becomes=becomes), agent, None)

    kept, note = lane(3, 2, 1).adapt(item)
    assert kept is None and note is not None and "no JSON object" in note.reason
    assert lane(2, 11, 2).adapt(item) == lane().adapt(item) == (item, None)
    harmless = Connection(id="other", conn_type="http", extra="{}")
    assert lane(3, 2, 1).adapt(harmless) == (harmless, None)
    empty = Connection(id="empty", conn_type="http", password="", extra="")
    asked: list[dict[str, Any]] = []
    agent = SimpleNamespace(ask=lambda request: asked.append(request) or {"applied": True})
    whole = lane(3, 2, 1)
    whole.blind, whole.work.wanted = True, [item, harmless, empty]
    whole.apply([whole.outcome(Change("other", 1, harmless, "created"))])
    assert list(asked[0]["connections"]) == ["other", "empty"]
    # else REST would write it anew once it is one
    assert asked[0]["connections"]["empty"]["password"] is asked[0]["connections"]["empty"]["extra"] is None
