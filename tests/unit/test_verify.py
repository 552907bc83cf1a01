# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Bundle against environment: equal, missing, different by field, unknown; DAGs present, parsed, or listed."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest
from ansible_collections.mwaa.migration.plugins.module_utils import _bundle
from ansible_collections.mwaa.migration.plugins.module_utils import _verify as module
from ansible_collections.mwaa.migration.plugins.module_utils._bundle import FIELDS, KINDS, canonical
from ansible_collections.mwaa.migration.plugins.module_utils._errors import MigrationError
from ansible_collections.mwaa.migration.plugins.module_utils._history.record import HistoryExport, Record
from ansible_collections.mwaa.migration.plugins.module_utils._mwaa.rest import Reply, RestError
from ansible_collections.mwaa.migration.plugins.module_utils._select import NOT_SELECTED
from ansible_collections.mwaa.migration.plugins.module_utils._verify import (
    Findings,
    Seen,
    SourceDag,
    TargetDags,
    agent_request,
    compare,
    judge_dags,
    judge_state,
    judge_versions,
    merge_listed,
    read_dags,
    reasons_of,
    relative,
    seen_by_agent,
    seen_by_rest,
    selections,
    source_dags,
    state_of,
    target_dags,
    together,
    wait_for_dags,
)

KEY = b"k" * 32
STATE: dict[str, dict[str, Any]] = {
    "variables": {"a": "1e5", "b": {"value": "CANARY-value-00112233", "description": "why"}},
    "connections": {
        "db": {"conn_type": "postgres", "password": "CANARY-password-00112233", "port": 5432, "extra": "{}"}
    },
    "pools": {"default_pool": {"slots": 64, "description": "d", "include_deferred": False}},
}


def digest(kind: str, identifier: str, name: str, value: Any) -> str:
    return _bundle.digest(KEY, kind, identifier, name, value)


class FakeBundle:
    """What verify() uses of a Bundle."""

    digest_key = KEY

    def read_state(self, kind: str) -> dict[str, Any]:
        return STATE[kind]

    def digest(self, *what: Any) -> str:
        return digest(*what)

    def digests(self, kind: str, identifier: str, item: Any) -> dict[str, str]:
        return {name: digest(kind, identifier, name, value) for name, value in canonical(kind, item).items()}


class FakeRest:
    environment = "demo"

    def __init__(self, **rows: list[dict[str, Any]]):
        self.rows = rows

    def pages(self, path: str, key: str, *_more: Any, **_budget: Any) -> list[list[dict[str, Any]]]:
        return [self.rows.get(key, [])]


def agent(state: dict[str, dict[str, Any]]) -> Any:
    """An environment that holds `state`, asked by the agent."""

    def run(request: dict[str, Any]) -> dict[str, Any]:
        digests: dict[str, Any] = {}
        for kind, identifiers in request["ids"].items():
            digests[kind] = {
                identifier: FakeBundle().digests(kind, identifier, state[kind][identifier])
                if identifier in state[kind]
                else None
                for identifier in (state[kind] if identifiers is None else identifiers)
            }
        return {"digests": digests, "errors": {}, "notes": []}

    return run


def changed(kind: str, identifier: str, **fields: Any) -> dict[str, dict[str, Any]]:
    item = canonical(kind, STATE[kind][identifier])
    return {**STATE, kind: {**STATE[kind], identifier: {**item, **fields}}}


def test_equal_in_every_field() -> None:
    compared = state_of(FakeBundle(), 2, FakeRest(), agent(STATE))
    assert {kind: compared[kind].parity for kind in KINDS} == {
        "variables": {"source": 2, "target": 2, "equal": 2},
        "connections": {"source": 1, "target": 1, "equal": 1},
        "pools": {"source": 1, "target": 1, "equal": 1},
    }
    findings = Findings()
    assert judge_state(compared, {}, findings) and findings.items == []


def test_a_difference_is_named_by_field_and_never_by_value() -> None:
    compared = state_of(FakeBundle(), 2, FakeRest(), agent(changed("connections", "db", password="other", port=1)))
    findings = Findings()
    judge_state(compared, {}, findings)
    assert compared["connections"].different == {"db": ["password", "port"]}
    assert findings.short == ["connection db (password, port differ)"]
    assert "CANARY-" not in str(findings.items)


def test_missing_and_extra() -> None:
    state = {**STATE, "variables": {"a": "1e5", "theirs": "x"}}
    compared = state_of(FakeBundle(), 2, FakeRest(), agent(state))["variables"]
    assert (compared.missing, compared.extra) == (["b"], ["theirs"])
    assert compared.parity == {"source": 2, "target": 1, "equal": 1}


def test_what_is_listed_is_no_error() -> None:
    compared = state_of(FakeBundle(), 2, FakeRest(), agent({**STATE, "variables": {"a": "1e5"}}))
    findings = Findings()
    assert judge_state(compared, {("variable", "b"): "REST refuses it"}, findings)
    assert findings.items == []


def test_a_reason_about_one_field_does_not_excuse_another() -> None:
    compared = state_of(FakeBundle(), 2, FakeRest(), agent(changed("connections", "db", password="", host="other")))
    reasons = {("connection", "db"): "password: an empty text arrives as null; extra: Airflow 3 would make {} of it"}
    findings = Findings()
    judge_state(compared, reasons, findings)
    assert findings.short == ["connection db (host, password differ)"]
    compared["connections"].different = {"db": ["password"]}
    findings = Findings()
    assert judge_state(compared, reasons, findings) and findings.items == []


def test_what_the_environment_cannot_decrypt_is_an_error_with_its_reason() -> None:
    answer = {"digests": {"connections": {"db": None}}, "errors": {"connections": {"db": "cannot be decrypted"}}}
    seen = seen_by_agent(answer, {}, lists=True)
    compared = compare(digests_of("connections"), seen["connections"], FIELDS["connections"])
    assert compared.errors == {"db": "cannot be decrypted"} and compared.parity["equal"] == 0


def digests_of(kind: str) -> dict[str, dict[str, str]]:
    return {identifier: FakeBundle().digests(kind, identifier, item) for identifier, item in STATE[kind].items()}


def test_what_a_task_of_airflow_3_cannot_find_is_missing() -> None:
    seen = {"connections": Seen(complete=True)}  # REST lists none
    answer = {"digests": {"connections": {"db": None}}, "errors": {"connections": {"db": "AirflowNotFoundException"}}}
    seen_by_agent(answer, seen, lists=False)
    compared = compare(digests_of("connections"), seen["connections"], FIELDS["connections"])
    assert (compared.missing, compared.errors) == (["db"], {})


REST = {
    "variables": [
        {"key": "a", "value": "100000.0", "description": None},  # as Airflow 3 shows 1e5
        {"key": "b", "value": "***", "description": "why"},
    ],
    "connections": [
        {
            "connection_id": "db",
            "conn_type": "postgres",
            "description": None,
            "host": None,
            "login": None,
            "schema": None,
        }
        | {"port": 5432, "password": "***", "extra": "{}"}
    ],
    "pools": [{"name": "default_pool", "slots": 64, "description": "d", "include_deferred": False, "open_slots": 64}],
}


def test_on_airflow_3_the_agent_sees_secrets_and_rest_the_rest() -> None:
    request = agent_request(FakeBundle(), {kind: digests_of(kind) for kind in KINDS}, 3)
    assert request["ids"] == {"variables": ["a", "b"], "connections": ["db"]}

    def run(request: dict[str, Any]) -> dict[str, Any]:
        answer = agent(STATE)(request)
        for kind in answer["digests"]:
            for fields in answer["digests"][kind].values():
                fields.pop("description")  # a task cannot see it
        return answer

    compared = state_of(FakeBundle(), 3, FakeRest(**REST), run)
    assert all(compared[kind].parity["equal"] == len(STATE[kind]) for kind in KINDS)


def test_without_a_dag_run_secrets_are_unknown_and_nothing_is_taken_for_equal() -> None:
    compared = state_of(FakeBundle(), 3, FakeRest(**REST), None)
    assert compared["connections"].unknown == {"db": ["password", "extra"]}
    assert compared["variables"].unknown == {"a": ["value"], "b": ["value"]}
    assert compared["pools"].parity == {"source": 1, "target": 1, "equal": 1}
    findings = Findings()
    assert judge_state(compared, {}, findings) is False and findings.items == []


def test_rest_of_airflow_2_shows_variables_as_they_are() -> None:
    seen = seen_by_rest(FakeRest(variables=[{"key": "a", "value": "1e5", "description": None}]), digest, 2)
    assert seen["variables"].items["a"]["value"] == digest("variables", "a", "value", "1e5")


# --- DAGs


def test_an_unlimited_pool_that_airflow_2_cannot_list_is_unknown_and_the_others_are_compared() -> None:
    class Rest(FakeRest):
        def pages(self, path: str, key: str, *_more: Any, **_budget: Any) -> Any:
            if key == "pools":
                raise RestError("500", status=500, detail="inf is not of type 'integer' - 'open_slots'")
            return super().pages(path, key)

        def call(self, _method: str, path: str, **_how: Any) -> Reply:
            if path == "/pools/wide":
                raise RestError("500", status=500, detail="inf is not of type 'integer' - 'open_slots'")
            return (
                Reply(200, {"name": "small", "slots": 3, "description": None})
                if path == "/pools/small"
                else Reply(404, {})
            )

    seen = seen_by_rest(Rest(), digest, 2, ["gone", "small", "wide"])["pools"]
    pool = {"description": None, "include_deferred": False}
    wanted = {"small": {**pool, "slots": 3}, "wide": {**pool, "slots": -1}, "gone": {**pool, "slots": 1}}
    source = {key: FakeBundle().digests("pools", key, item) for key, item in wanted.items()}
    result = compare(source, seen, FIELDS["pools"])
    assert (result.missing, result.different) == (["gone"], {})
    assert result.unknown == {"wide": ["description", "include_deferred"]}


@pytest.mark.parametrize(
    ("location", "path"),
    [
        ("/usr/local/airflow/dags/team/a.py", "team/a.py"),
        ("team/a.py", "team/a.py"),
        ("/opt/airflow/dags/a.py", "a.py"),
        ("/x/dags/pack.zip/inner.py", "pack.zip"),
        ("/elsewhere/b.py", None),
        ("", None),
    ],
)
def test_files_are_told_by_the_end_of_their_path(location: str, path: str | None) -> None:
    assert relative(location, {"a.py", "team/a.py", "pack.zip"}) == path


PUBLISHED: dict[str, Any] = {
    "dag_s3_path": "dags",
    "results": [{"key": f"dags/{name}.py", "action": "unchanged"} for name in ("a", "b", "eager", "broken", "never")],
    "ignore_syntax": "regexp",
    "held_back": [{"path": "eager.py", "line": 1, "reason": "is_paused_upon_creation is not True"}],
    "plugins_s3_path": None,
    "plugins_s3_object_version": None,
    "requirements_s3_path": "requirements.txt",
    "requirements_s3_object_version": "v1",
}
DAGS = (SourceDag("a", "a.py"), SourceDag("b", "b.py"), SourceDag("eager", "eager.py"))


def judge(target: TargetDags | None, dags: Sequence[SourceDag] = DAGS, **changes: Any) -> tuple[Any, Any, Findings]:
    findings = Findings()
    parity, listed = judge_dags("demo", {**PUBLISHED, **changes}, list(dags), target, set(), findings)
    return parity, listed, findings


def test_held_back_is_listed_and_everything_else_is_parsed() -> None:
    parity, listed, findings = judge(TargetDags({"a": True, "b": True}, {}))
    assert parity == {"source": 3, "target": 2, "equal": 2} and findings.items == []
    assert [(item["kind"], item["id"]) for item in listed] == [("dag_file", "eager.py")]


def test_a_dag_that_is_not_parsed_is_an_error() -> None:
    _parity, _listed, findings = judge(TargetDags({"a": True}, {}))
    assert findings.short == ["DAG b (is not parsed from b.py)"]


def test_an_import_error_is_listed_with_the_last_line_and_wants_mending() -> None:
    dags = [*DAGS, SourceDag("b2", "b.py")]
    parity, listed, findings = judge(TargetDags({"a": True}, {"b.py": "No module named 'x'"}), dags)
    assert listed[-1] == {
        "kind": "dag_file",
        "id": "b.py",
        "reason": "cannot be imported in the environment (2 DAGs missing): No module named 'x'",
    }
    assert findings.short == [] and findings.items[0]["severity"] == "warning"
    assert parity == {"source": len(dags), "target": 1, "equal": 1}


def test_an_import_error_shows_no_password_of_a_url() -> None:
    class Rest:
        def pages(self, path: str, _key: str) -> Any:
            trace = "…\nOperationalError: postgres://me:CANARY-url-00112233@db/x is down"
            return [[{"filename": "/dags/b.py", "stack_trace": trace}]] if path == "/importErrors" else [[]]

    assert target_dags(Rest(), {"b.py"}).import_errors == {"b.py": "OperationalError: postgres://***@db/x is down"}


def test_what_was_broken_at_the_source_is_listed() -> None:
    _parity, listed, findings = judge(TargetDags({"a": True, "b": True}, {"broken.py": "SyntaxError"}))
    assert findings.items == []
    assert listed[-1]["id"] == "broken.py" and "defines no DAG at the source" in listed[-1]["reason"]


def test_a_file_that_is_missing_or_another_in_the_bucket() -> None:
    results = [{"key": "dags/a.py", "action": "created"}, {"key": "dags/b.py", "action": "updated"}]
    parity, _listed, findings = judge(TargetDags({"b": True}, {}), results=results, held_back=[])
    assert findings.short[:2] == [
        "DAG file a.py (is missing in the bucket)",
        "DAG file b.py (is another one in the bucket)",
    ]
    assert parity["equal"] == 0


def test_a_dag_that_is_not_paused_is_a_warning_only() -> None:
    _parity, _listed, findings = judge(TargetDags({"a": False, "b": True}, {}))
    assert findings.short == [] and "1 DAG is not paused: a" in findings.items[0]["what"]


def test_a_held_back_dag_that_is_parsed_all_the_same_is_an_error() -> None:
    _parity, _listed, findings = judge(TargetDags({"a": True, "b": True, "eager": False}, {}))
    assert findings.short == ["DAG eager (is held back and yet the environment has parsed eager.py)"]


def test_dags_from_outside_the_folder_are_listed() -> None:
    dags = source_dags(
        {"dags": [{"dag_id": "example", "fileloc": "/site-packages/airflow/example_dags/x.py"}]}, {"": {"a.py"}}
    )
    _parity, listed, findings = judge(TargetDags({}, {}), dags)
    assert findings.items == [] and ("dag", "example") in [(item["kind"], item["id"]) for item in listed]


def test_where_airflow_cannot_be_asked_dags_are_unknown() -> None:
    assert judge(None)[0] == {"source": 3, "target": None, "equal": None}


def test_the_agents_own_dag_does_not_count() -> None:
    rest = FakeRest(
        dags=[{"dag_id": "mwaa_agent", "is_paused": False}, {"dag_id": "a", "is_paused": True}],
        import_errors=[{"filename": "/usr/local/airflow/dags/b.py", "stack_trace": "Traceback\n  x\nKeyError: 'y'\n"}],
    )
    assert target_dags(rest, {"b.py"}) == TargetDags({"a": True}, {"b.py": "KeyError: 'y'"})


def test_waiting_ends_when_all_is_parsed_explained_or_the_time_is_over(clock: Any) -> None:
    answers = [TargetDags({}, {}), TargetDags({"a": True}, {}), TargetDags({"a": True}, {"b.py": "x"})]
    found = wait_for_dags(lambda: answers.pop(0), {"a": "a.py", "b": "b.py"}, "demo", 900, clock)
    assert found.import_errors and not answers
    start = clock.now
    late = wait_for_dags(lambda: TargetDags({}, {}), {"a": "a.py"}, "demo", 30, clock)
    assert late == TargetDags({}, {}) and 30 <= clock.now - start < 45


def test_an_environment_with_older_requirements_is_told() -> None:
    findings = Findings()
    shown = {"RequirementsS3Path": "requirements.txt", "RequirementsS3ObjectVersion": "v0"}
    judge_versions(shown, PUBLISHED, findings)
    assert findings.short == [] and findings.items[0]["where"] == "requirements.txt"


def test_listed_once_whoever_says_it() -> None:
    one = {"kind": "pool", "id": "p", "reason": "r"}
    assert merge_listed([one], [one, {"kind": "dag", "id": "d", "reason": "x"}]) == [
        {"kind": "dag", "id": "d", "reason": "x"},
        one,
    ]


def test_what_was_not_selected_excuses_nothing_that_took_its_name() -> None:
    """Of the source's db and prod_db only the latter goes, as db: the target's db is to equal it."""
    left = {"kind": "variable", "id": "db", "reason": NOT_SELECTED}
    assert reasons_of([left]) == {}
    small = {"kind": "variable", "id": "db", "reason": "description: a secret holds none"}
    assert merge_listed([left], [small]) == merge_listed([small], [left]) == [small]


def test_nothing_seen_is_unknown_not_missing() -> None:
    compared = compare(digests_of("pools"), Seen(), FIELDS["pools"])
    assert compared.missing == [] and set(compared.unknown) == {"default_pool"}


def test_what_was_renamed_is_compared_under_its_new_name() -> None:
    chosen = selections(
        {"variables": {"exclude": ["b"], "rename": [{"match": "(.*)", "to": r"team_\1"}]}, "pools": {"include": []}}
    )
    held = {**STATE, "variables": {"team_a": "1e5", "b": "of another source"}}
    compared = state_of(FakeBundle(), 2, FakeRest(), agent(held), chosen)
    assert compared["variables"].parity == {"source": 1, "target": 1, "equal": 1}
    assert compared["variables"].extra == ["b"] and compared["pools"].parity["source"] == 0


def test_a_selection_of_something_else() -> None:
    with pytest.raises(MigrationError, match="not 'dags'"):
        selections({"dags": {}})


class FakeSecrets:
    """SecretStore of one kind: {id: fields}."""

    def __init__(self, held: dict[str, dict[str, Any] | None]):
        self.held = held
        self.backend = SimpleNamespace(asks=lambda _kind, identifier: identifier != "kept_out")

    def read(self, identifiers: list[str]) -> dict[str, Any]:
        return {key: SimpleNamespace(deleted=False, fields=self.held[key]) for key in identifiers if key in self.held}

    def fields(self, held: Any) -> dict[str, Any] | None:
        return held.fields


def test_secrets_manager_answers_before_the_database() -> None:
    """Not in the database any more, and on Airflow 3 not to be seen by REST."""
    connection = {**canonical("connections", STATE["connections"]["db"])}
    del connection["description"]
    stores: Any = {
        "variables": FakeSecrets({"a": {"value": "1e5"}, "b": {"value": "another"}}),
        "connections": FakeSecrets({"db": connection}),
    }
    for version in (2, 3):
        compared = state_of(FakeBundle(), version, FakeRest(), None, None, stores)
        assert compared["connections"].parity == {"source": 1, "target": 1, "equal": 1}
        assert compared["variables"].different == {"b": ["value", "description"]} and not compared["variables"].missing


def test_without_rest_airflow_2_is_compared_by_the_agent_alone() -> None:
    compared = state_of(FakeBundle(), 2, None, agent(STATE))
    assert all(found.parity["equal"] == found.parity["source"] for found in compared.values())


def test_without_rest_airflow_3_shows_no_pools() -> None:
    compared = state_of(FakeBundle(), 3, None, agent(STATE))
    assert compared["variables"].parity["equal"] == 2 and compared["pools"].parity["equal"] is None


def test_dags_as_the_agent_lists_them() -> None:
    dags = [{"dag_id": "a", "is_paused": True, "fileloc": "x"}, {"dag_id": "mwaa_agent_poll", "is_paused": False}]
    errors = [{"filename": "/usr/local/airflow/dags/b.py", "stack_trace": "KeyError: 'y'"}]
    assert read_dags(dags, errors, {"b.py"}) == TargetDags({"a": True}, {"b.py": "KeyError: 'y'"})


def test_a_sources_dags_are_found_in_its_folder() -> None:
    inventory = {"dags": [{"dag_id": "etl", "fileloc": "/opt/airflow/dags/team/etl.py"}]}
    (dag,) = source_dags(inventory, {"sales": {"team/etl.py", "etl.py"}})
    assert dag == SourceDag("etl", "sales/team/etl.py")


def one_of_two(number: int, equal: bool | None, missing: list[str], **more: Any) -> dict[str, Any]:
    return {
        "changed": False,
        "equal": equal,
        "parity": {"variables": {"source": number, "target": number - len(missing), "equal": None}},
        "source": {"airflow_version": "2.10.3"},
        "not_carried": [
            {"kind": "option", "id": "core.executor", "reason": "MWAA sets it itself"},
            {"kind": "variable", "id": "odd", "reason": "too long"},
        ],
        "findings": [{"severity": "warning", "where": "requirements.txt", "what": "another version", "mend": "run"}],
        "differences": {
            "variables": {"missing": missing, "different": {"x": ["value"]}, "unknown": {}, "extra": ["theirs", "a"]}
        },
        **more,
    }


def test_several_sources_are_one_result() -> None:
    first = one_of_two(3, True, [], source={"airflow_version": "2.5.1"})
    second = one_of_two(2, None, ["b"])
    second["differences"]["variables"]["extra"] = ["theirs"]
    result = together([("s3://b/sales", first), ("s3://b/finance", second)])
    assert (result["equal"], result["source"]["airflow_version"]) == (None, "2.5.1 and 2.10.3")
    assert result["parity"] == {"variables": {"source": 5, "target": 4, "equal": None}}
    # of state, each source's is listed; what is no state, and findings about the environment, once
    assert [item["id"] for item in result["not_carried"]] == ["core.executor", "odd", "odd"]
    assert len(result["findings"]) == 1
    # extra is what nobody brought
    assert result["differences"]["variables"] == {
        "missing": ["b"],
        "different": {"x": ["value"]},
        "unknown": {},
        "extra": ["theirs"],
    }
    assert [(one["source"], one["equal"]) for one in result["sources"]] == [
        ("s3://b/sales", True),
        ("s3://b/finance", None),
    ]
    assert together([("s3://b/sales", {**first, "equal": False}), ("s3://b/finance", second)])["equal"] is False
    assert together([("s3://b/sales", first)]) == first


# --- run history ------------------------------------------------------------------------------------------------------


def test_history_of_several_sources_is_added_up_by_table() -> None:
    def result(**history: int) -> dict[str, Any]:
        tables = {
            table: {"source": rows, "target": rows, "equal": rows, "listed": 0} for table, rows in history.items()
        }
        return {
            "equal": True, "parity": {"dags": {"source": 1, "target": 1, "equal": 1}, "history": tables},
            "source": {"airflow_version": "2.10.3"}, "not_carried": [], "findings": [],
            "differences": {"history": {"log": {"etl": {"missing": []}}}},
        }  # fmt: skip

    made = together([("s3://b/a", result(dag_run=2, log=5)), ("s3://b/b", result(dag_run=3))])
    assert made["parity"]["history"] == {
        "dag_run": {"source": 5, "target": 5, "equal": 5, "listed": 0},
        "log": {"source": 5, "target": 5, "equal": 5, "listed": 0},
    }
    assert "history" not in made["differences"] and made["sources"][0]["differences"]["history"]


class Verified(module.Verification):
    """A verification whose history alone is looked at."""

    def __init__(
        self, version: str, *, check_mode: bool = False, documents: dict[str, Any] | None = None, said: Any = ()
    ):
        export = HistoryExport("monday", "on monday", "2.10.3", "2.11.2", "postgresql", {}, parts=[
            {"table": "dag_run", "rows": 3, "digests": {"etl": [3, "a"]}, "objects": []}
        ])  # fmt: skip
        self.bundle: Any = SimpleNamespace(
            digest_key=KEY,
            store=SimpleNamespace(url="/bundle"),
            read_document=lambda path, _remedy="": (documents or {}).get(path),
        )
        self.record = Record(self.bundle, "s1", [export])  # type: ignore[misc]
        self.environment = {"Name": "prod", "AirflowVersion": version, "Status": "AVAILABLE", "CreatedAt": "then"}
        self.name, self.usable, self.check_mode, self.aws = "prod", True, check_mode, None
        self.findings, self.not_carried, self.rest = Findings(), [], None
        self.access = SimpleNamespace(reason="it is private")  # type: ignore[assignment]
        self.said = said

    def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        if isinstance(self.said, MigrationError):
            raise self.said
        if request["op"] == "history_progress":
            return {"bundles": {}, "left_out": []}
        return {"digests": {"dag_run": {"etl": [3, f"{10:032x}"]}}, "differences": {}, "carried": {}}


def test_history_is_compared_on_airflow_2() -> None:
    one = Verified("2.11.2")
    outcome = one._history()
    assert outcome is not None
    assert outcome.parity == {"dag_run": {"source": 3, "target": 3, "equal": 3, "listed": 0}}
    assert one.findings.items == []


def test_in_check_mode_history_is_unknown() -> None:
    outcome = Verified("2.11.2", check_mode=True)._history()
    assert outcome is not None and outcome.parity["dag_run"] == {
        "source": 3,
        "target": None,
        "equal": None,
        "listed": 0,
    }


def test_history_that_was_never_imported_is_an_error_and_no_failure() -> None:
    one = Verified("2.11.2", said=MigrationError("agent: the target has no history of this source", code="history"))
    one._history()
    assert [(item["where"], item["mend"]) for item in one.findings.items] == [("history", "run the history stage")]
    with pytest.raises(MigrationError, match="the run ended"):
        Verified("2.11.2", said=MigrationError("the run ended", code="lost"))._history()


def closed(**more: Any) -> dict[str, Any]:
    counts = {"dag_run": {"source": 3, "target": 3, "equal": 3, "listed": 0}}
    document = {
        "environment": "prod",
        "created_at": "then",
        "exports": ["monday"],
        "parity": counts,
        "runs": {"etl": 3},
    }
    return {"history/interim/prod.json": {**document, "listed": [], "unpaused": [], "dropped": True, **more}}


def test_on_its_way_into_airflow_3_what_was_found_counts() -> None:
    said = MigrationError("the ledger is gone", code="history")
    outcome = Verified("2.11.2", documents=closed(), said=said)._history()
    assert outcome is not None and outcome.parity["dag_run"]["equal"] == 3 and outcome.errors == []


def test_on_airflow_3_what_was_found_before_counts_and_what_nobody_sees_is_said() -> None:
    one = Verified("3.2.1", documents=closed(unpaused=["etl"]))
    outcome = one._history()
    assert outcome is not None and outcome.parity["dag_run"]["equal"] == 3
    whats = [item["what"] for item in one.findings.items]
    assert [item["severity"] for item in one.findings.items] == ["warning"] * 3
    assert any("create_cron_data_intervals" in what for what in whats)
    assert any("not paused before the history came: etl" in what for what in whats)
    assert any("it is private" in what for what in whats)


def test_an_airflow_3_without_the_history_is_an_error() -> None:
    one = Verified("3.2.1")
    outcome = one._history()
    assert outcome is not None and outcome.parity["dag_run"] == {"source": 3, "target": 0, "equal": 0, "listed": 0}
    assert any("is of Airflow 3.2.1, which takes no history" in item["what"] for item in one.findings.items)
