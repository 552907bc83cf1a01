# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The stub engine answers as Airflow 2.11 and 3.2 do, in examples."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("mwaa_lab", reason="the lab is not installed in this environment")

from mwaa_lab import stub  # noqa: E402
from mwaa_lab.stub import V1, V2, Airflow, Cli, DagBag, merge, parse_dags, redact  # noqa: E402


class Api:
    def __init__(self, kind: type, version: str) -> None:
        self.airflow = Airflow()
        self.bag = DagBag({}, {})
        self.kind, self.version = kind, version

    def __call__(self, method: str, path: str, body: Any = None, **query: Any) -> tuple[int, Any]:
        return self.kind(self.airflow, self.version, lambda: self.bag).answer(method, path, query, body)


@pytest.fixture
def v1() -> Api:
    return Api(V1, "2.11.2")


@pytest.fixture
def v2() -> Api:
    return Api(V2, "3.2.1")


# --- variables -------------------------------------------------------------------------------------------------------


def test_v1_variables(v1):
    assert v1("POST", "/variables", {"key": "a", "value": "1", "description": "d"})[0] == 200
    assert v1("POST", "/variables", {"key": "a", "value": "2"})[0] == 200  # overwrites, description lost
    assert v1("GET", "/variables/a") == (200, {"key": "a", "value": "2", "description": None})
    assert v1("PATCH", "/variables/a", {"key": "a", "value": "3"})[1]["value"] == "3"
    status, problem = v1("PATCH", "/variables/a", {"value": "3"})
    assert (status, problem["title"]) == (400, "Invalid Variable schema")
    assert v1("POST", "/variables", {"key": "b", "value": 3})[0] == 400
    assert v1("DELETE", "/variables/a") == (204, None)
    assert v1("GET", "/variables/a")[1]["title"] == "Variable not found"


def test_v1_shows_secret_variables_in_clear(v1):
    v1("POST", "/variables", {"key": "my_password", "value": "x"})
    assert v1("GET", "/variables/my_password")[1]["value"] == "x"


def test_v2_variables(v2):
    assert v2("POST", "/variables", {"key": "a", "value": "x", "description": "d"})[0] == 201
    status, problem = v2("POST", "/variables", {"key": "a", "value": "x"})
    assert (status, problem) == (409, {"detail": "The Variable with key: `a` already exists"})
    assert v2("PATCH", "/variables/a", {"key": "a", "value": "y"})[1]["description"] == "d"
    assert v2("PATCH", "/variables/a", {"key": "b", "value": "y"})[0] == 400
    status, problem = v2("POST", "/variables", {"key": "a", "value": "x", "colour": "blue"})
    assert (status, problem["detail"][0]["type"]) == (422, "extra_forbidden")
    assert v2("GET", "/variables/none")[1] == {"detail": "The Variable with key: `none` was not found"}


@pytest.mark.parametrize(
    ("key", "value", "shown"),
    [
        ("plain", "text", "text"),
        ("number", "1e5", "100000.0"),
        ("json", '{"a":1}', '{"a": 1}'),
        ("nested", '{"password": "x", "n": {"token": ["y", 3]}}', '{"password": "***", "n": {"token": ["***", 3]}}'),
        ("my_secret", "text", "***"),
        ("my_secret", '"text"', '"text"'),  # what parses as JSON is masked by its own keys only
        ("umlaut", '"é"', '"\\u00e9"'),
    ],
)
def test_v2_masks_and_rewrites_what_it_shows(v2, key, value, shown):
    v2("POST", "/variables", {"key": key, "value": value})
    assert v2("GET", f"/variables/{key}")[1]["value"] == shown
    assert v2.airflow.variables[key]["value"] == value


def test_keys_may_hold_slashes_and_blanks(v2):
    v2("POST", "/variables", {"key": "a/b c", "value": "1"})
    assert v2("GET", "/variables/a/b%20c")[0] == 200


def test_pages(v1, v2):
    for index in range(120):
        for api in (v1, v2):
            api("POST", "/variables", {"key": f"k{index:03}", "value": "1"})
    for api, default in ((v1, 100), (v2, 50)):
        status, page = api("GET", "/variables")
        assert (len(page["variables"]), page["total_entries"]) == (default, 120)
        assert len(api("GET", "/variables", limit=1000)[1]["variables"]) == 100
        assert [it["key"] for it in api("GET", "/variables", limit=100, offset=119)[1]["variables"]] == ["k119"]


# --- connections -----------------------------------------------------------------------------------------------------

CONNECTION = {
    "connection_id": "c",
    "conn_type": "http",
    "login": "me",
    "password": "pw",
    "port": 80,
    "extra": json.dumps({"api_key": "k", "other": 1}),
}


def test_v1_connections(v1):
    status, shown = v1("POST", "/connections", CONNECTION)
    assert (status, "password" in shown, shown["extra"]) == (200, False, '{"api_key": "***", "other": 1}')
    assert "extra" not in v1("GET", "/connections")[1]["connections"][0]
    status, problem = v1("POST", "/connections", CONNECTION)
    assert (status, problem["detail"]) == (409, "Connection already exist. ID: c")
    assert v1("PATCH", "/connections/c", {"host": "h"})[1]["login"] == "me"
    assert v1.airflow.connections["c"]["password"] == "pw"
    status, problem = v1("POST", "/connections", {"connection_id": "d d", "conn_type": "http"})
    assert (status, "alphanumeric" in problem["detail"]) == (400, True)
    assert v1("POST", "/connections", {"connection_id": "d"})[0] == 400
    assert v1("DELETE", "/connections/none")[0] == 404


def test_v2_connections(v2):
    status, shown = v2("POST", "/connections", CONNECTION)
    assert (status, shown["password"], json.loads(shown["extra"])["api_key"]) == (201, "***", "***")
    assert v2("POST", "/connections", CONNECTION)[1]["detail"]["reason"] == "Unique constraint violation"
    for extra in ("no json", "[1]"):
        bad = {**CONNECTION, "connection_id": "d", "extra": extra}
        status, problem = v2("POST", "/connections", bad)
        assert (status, problem["detail"][0]["type"]) == (422, "value_error")
    assert v2("POST", "/connections", {**CONNECTION, "connection_id": "d d"})[0] == 422
    # What comes back as a mask stays what it was.
    masked = {**CONNECTION, "password": "***", "extra": '{"api_key": "***", "other": 2}'}
    assert v2("PATCH", "/connections/c", masked)[0] == 200
    assert v2.airflow.connections["c"]["password"] == "pw"
    assert json.loads(v2.airflow.connections["c"]["extra"]) == {"api_key": "k", "other": 2}


# --- pools -----------------------------------------------------------------------------------------------------------


def test_v1_pools(v1):
    assert v1("POST", "/pools", {"name": "p", "slots": 3})[1]["include_deferred"] is False
    assert v1("POST", "/pools", {"name": "p", "slots": 3})[0] == 409
    assert v1("POST", "/pools", {"name": "q"})[0] == 400
    assert v1("PATCH", "/pools/p", {"name": "p", "slots": 4})[1]["slots"] == 4
    assert v1("PATCH", "/pools/default_pool", {"slots": 4})[0] == 400
    assert v1("PATCH", "/pools/default_pool", {"slots": 4}, update_mask="slots")[1]["slots"] == 4
    assert v1("PATCH", "/pools/default_pool", {"name": "default_pool", "slots": 5})[1]["slots"] == 5
    assert v1("DELETE", "/pools/default_pool")[0] == 400


def test_pools_before_2_7_know_nothing_of_deferred_tasks():
    old = Api(V1, "2.5.1")
    assert old("POST", "/pools", {"name": "p", "slots": 1, "include_deferred": True})[0] == 400
    assert old("POST", "/pools", {"name": "p", "slots": 1})[0] == 200
    assert "include_deferred" not in old("GET", "/pools/p")[1]


def test_v2_pools(v2):
    assert v2("POST", "/pools", {"name": "p", "slots": 3})[0] == 201
    assert v2("POST", "/pools", {"name": "p", "slots": 3})[0] == 409
    assert v2("POST", "/pools", {"name": "q", "slots": -2})[0] == 422
    whole = {"name": "p", "slots": 4, "include_deferred": True}
    assert v2("PATCH", "/pools/p", whole)[1]["include_deferred"] is True
    assert v2("PATCH", "/pools/p", {"slots": 4})[0] == 422
    assert v2("PATCH", "/pools/default_pool", {"slots": 4})[0] == 400
    assert v2("PATCH", "/pools/default_pool", {"slots": 4}, update_mask=["slots"])[1]["slots"] == 4


# --- bulk ------------------------------------------------------------------------------------------------------------


def test_bulk_create_fails_skips_or_overwrites(v2):
    def create(rule: str) -> Any:
        entities = [{"key": "a", "value": {"n": 1}}, {"key": "b", "value": "2"}]
        action = {"action": "create", "entities": entities, "action_on_existence": rule}
        return v2("PATCH", "/variables", {"actions": [action]})[1]["create"]

    v2("POST", "/variables", {"key": "a", "value": "old"})
    refused = create("fail")
    assert (refused["success"], refused["errors"][0]["status_code"]) == ([], 409)
    assert create("skip")["success"] == ["b"]
    assert v2.airflow.variables["a"]["value"] == "old"
    assert create("overwrite")["success"] == ["a", "b"]
    assert json.loads(v2.airflow.variables["a"]["value"]) == {"n": 1}


def test_bulk_update_and_delete(v2):
    v2("POST", "/pools", {"name": "p", "slots": 1})
    actions = [
        {"action": "update", "entities": [{"name": "p", "slots": 2, "include_deferred": True}]},
        {"action": "delete", "entities": ["p", "q"], "action_on_non_existence": "skip"},
    ]
    status, answer = v2("PATCH", "/pools", {"actions": actions})
    assert (status, answer["create"]) == (200, None)
    assert (answer["update"]["success"], answer["delete"]["success"]) == (["p"], ["p"])
    assert v2("PATCH", "/pools", {"actions": [{"action": "explode"}]})[0] == 422


# --- DAGs ------------------------------------------------------------------------------------------------------------

FILES = {
    "a.py": "from airflow import DAG\nwith DAG('one', is_paused_upon_creation=False): pass\nd = DAG(dag_id='two')",
    "b.py": "from airflow.decorators import dag\n@dag(schedule=None)\ndef three(): pass\n@dag\ndef four(): pass",
    "c.py": "def broken(:",
}


def test_dags_are_read_not_run():
    bag = parse_dags(FILES)
    assert {name: dag["paused"] for name, dag in bag.dags.items()} == {
        "one": False,
        "two": None,
        "three": None,
        "four": None,
    }
    assert "SyntaxError" in bag.errors["c.py"]


def test_runs(v1, v2):
    for api in (v1, v2):
        api.bag = parse_dags(FILES)
        api.airflow.paused.update(dict.fromkeys(api.bag.dags, True))
        assert api("GET", "/dags")[1]["total_entries"] == 4
        assert api("GET", "/importErrors")[1]["import_errors"][0]["filename"] == "c.py"
        body = {"dag_run_id": "r1", "conf": {"a": 1}, "logical_date": None}
        assert api("POST", "/dags/one/dagRuns", body)[1]["state"] == "queued"
        assert api("POST", "/dags/one/dagRuns", body)[0] == 409
        assert api("POST", "/dags/one/dagRuns", {**body, "dag_run_id": "scheduled__x"})[0] == 400
        assert api("GET", "/dags/one/dagRuns/r1")[1]["state"] == "queued"  # a paused DAG does not run
        assert api("PATCH", "/dags/one", {"is_paused": False})[1]["is_paused"] is False
        assert api("GET", "/dags/one/dagRuns/r1")[1]["state"] == "success"
        api.airflow.xcom = {"one": '{"ok": true}'}
        path = "/dags/one/dagRuns/r1/taskInstances/t/xcomEntries/r"
        assert api("GET", path)[1]["value"] == '{"ok": true}'
        assert api("POST", "/dags/none/dagRuns", body)[0] == 404
    assert v2("POST", "/dags/one/dagRuns", {})[0] == 422


def test_what_is_not_there(v1, v2):
    assert v1("GET", "/monitor/health")[0] == 404
    assert v1("GET", "/health")[0] == v2("GET", "/monitor/health")[0] == 200
    assert v2("PUT", "/variables/a", {})[0] == 405
    assert v1("GET", "/config")[0] == 403


# --- masking ---------------------------------------------------------------------------------------------------------


def test_redact_and_merge_belong_together():
    value = {"a": 1, "token": "x", "list": [{"password": "p"}]}
    masked = redact(value)
    assert masked == {"a": 1, "token": "***", "list": [{"password": "***"}]}
    assert merge({"a": 2, "token": "***"}, value) == {"a": 2, "token": "x"}
    assert merge({"token": "new"}, value) == {"token": "new"}


# --- CLI -------------------------------------------------------------------------------------------------------------


def test_cli():
    airflow = Airflow()
    cli = Cli(airflow, "2.11.2", lambda: parse_dags({}))
    assert cli.run(["version"]) == ("2.11.2\n", "")
    assert cli.run(["variables", "set", "k", "a b", "--description", "d"])[0] == "Variable k created\n"
    assert airflow.variables["k"] == {"value": "a b", "description": "d"}
    assert cli.run(["variables", "list", "-o", "json"])[0] == '[{"key": "k"}]\n'
    assert cli.run(["variables", "list"])[0] == "key\n===\nk\n"
    assert cli.run(["variables", "get", "none"]) == ("", "Variable none does not exist\n")
    cli.run(["connections", "add", "c", "--conn-type", "http", "--conn-port", "80"])
    assert (airflow.connections["c"]["conn_type"], airflow.connections["c"]["port"]) == ("http", 80)
    assert "does not run" in cli.run(["tasks", "list", "x"])[1]


# --- recordings ------------------------------------------------------------------------------------------------------

RECORDINGS = Path(__file__).parent / "recordings"
_INCIDENTAL = ("ctx", "url", "timestamp", "message", "instance", "type")
"""Members that differ from run to run, or that nobody reads (links to documentation)."""


def essence(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: essence(item) for key, item in value.items() if key not in _INCIDENTAL}
    return [essence(item) for item in value] if isinstance(value, list) else value


@pytest.mark.parametrize(("kind", "version"), [(V1, "2.11.2"), (V2, "3.2.1")])
def test_the_stub_answers_as_airflow_did(kind, version):
    recording = json.loads((RECORDINGS / f"airflow-{version}.json").read_text())
    api = Api(kind, version)
    for number, step in enumerate(recording["steps"]):
        status, answer = api(step["method"], step["path"], step["body"], **step["query"])
        said = f"step {number}: {step['method']} {step['path']} {step['query']} {step['body']}"
        assert status == step["status"], said
        if status != 500:
            assert essence(answer) == essence(step["answer"]), said


def test_an_airflowignore_counts_in_its_own_folder() -> None:
    regexps = {"": ["^old/"], "sales": [r"^sales/wakes_up\.py$", r"^other/x\.py$"]}
    assert [
        stub._is_ignored(name, regexps, "regexp")
        for name in ("old/a.py", "sales/wakes_up.py", "other/x.py", "sales/a.py")
    ] == [True, True, False, False]
    globs = {"sales": ["/wakes_up.py", "tmp"]}
    assert [
        stub._is_ignored(name, globs, "glob")
        for name in ("sales/wakes_up.py", "sales/tmp/a.py", "wakes_up.py", "sales/a.py")
    ] == [True, True, False, False]
