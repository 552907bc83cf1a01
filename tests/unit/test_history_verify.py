# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the agent says of rows that differ, judged: to be mended, or accounted for."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from ansible_collections.mwaa.migration.plugins.module_utils._history import verify
from ansible_collections.mwaa.migration.plugins.module_utils._history.record import HistoryExport
from ansible_collections.mwaa.migration.plugins.module_utils._history.verify import Outcome, judge, portions


def detail(
    met: tuple[str, ...] = (), more: int = 0, ran: bool = False, **sides: list[dict[str, str]]
) -> dict[str, Any]:
    found: dict[str, Any] = {side: sides.get(side, []) for side in verify.SIDES}
    counts = {side: len(found[side]) + (more if found[side] else 0) for side in found}
    return {**found, "counts": counts, "met": met, "ran": ran}


def judged(named: dict[tuple[str, str], dict[str, Any]], rows: int = 10, **progress: Any) -> Outcome:
    """Tables of `rows` rows a DAG on both sides."""
    expected: verify.Digests = {}
    for table, dag in named:
        expected.setdefault(table, {})[dag] = [rows, "a"]
    found = {table: {dag: [rows, "b"] for dag in dags} for table, dags in expected.items()}
    outcome = Outcome()
    judge(expected, found, list(named), named, progress, outcome)
    return outcome


def key(run: str = "r1", **more: str) -> dict[str, str]:
    return {"dag_id": "etl", "task_id": "load", "run_id": run, "map_index": "-1", **more}


def test_a_row_that_is_missing_is_an_error_with_its_key() -> None:
    outcome = judged({("xcom", "etl"): detail(missing=[key(key="a")])})
    assert outcome.errors == [
        (
            "history: xcom of DAG etl",
            "1 row missing (task_id=load run_id=r1 key=a)",
            "run the history stage again; where it has nothing left to bring, remove history/manifest.json from the"
            " bundle, and run the stages export and history",
        )
    ]
    assert outcome.parity["xcom"] == {"source": 10, "target": 10, "equal": 9, "listed": 0}
    assert outcome.differences["xcom"]["etl"]["missing"] == [key(key="a")]


def test_many_rows_are_counted_and_a_few_named() -> None:
    keys = [key(f"r{number}") for number in range(9)]
    what = judged({("task_instance", "etl"): detail(changed=keys, more=91)}, rows=200).errors[0][1]
    assert what.startswith("100 rows different (task_id=load run_id=r0, ") and what.endswith(" and 95 more)")


def test_rows_that_the_import_left_out_are_listed_and_others_are_not() -> None:
    two = detail(missing=[key("r1"), key("r2")])
    accounted = judged({("xcom", "etl"): two}, tables={"xcom": {"left_out": 2, "mended": 0}})
    assert accounted.errors == [] and "left out by the import" in accounted.listed[0]["reason"]
    assert accounted.parity["xcom"]["listed"] == 2
    assert judged({("xcom", "etl"): two}, tables={"xcom": {"left_out": 1, "mended": 0}}).errors


def test_what_was_left_out_of_one_dag_accounts_for_no_other() -> None:
    one = detail(missing=[key("r1")])
    outcome = judged({("xcom", "a"): one, ("xcom", "b"): one}, tables={"xcom": {"left_out": 1, "mended": 0}})
    assert [entry["id"] for entry in outcome.listed] == ["xcom of DAG a, missing"]
    assert [where for where, _what, _mend in outcome.errors] == ["history: xcom of DAG b"]


def test_rows_that_no_key_tells_apart_are_counted() -> None:
    """As where a source has a row twice."""
    expected, found = {"xcom": {"etl": [5, "a"]}}, {"xcom": {"etl": [4, "b"]}}
    outcome, differing = Outcome(), [("xcom", "etl")]
    judge(expected, found, differing, {differing[0]: detail()}, {}, outcome)
    assert "5 rows at the source and 4 in the environment, under the same keys" in outcome.errors[0][1]
    assert outcome.parity["xcom"] == {"source": 5, "target": 4, "equal": 4, "listed": 0}
    touched, lost = Outcome(), {"xcom": {"etl": [1, "c"]}}
    judge(found, expected, differing, {differing[0]: detail()}, {}, touched, lost)  # what runs lost stays there
    assert touched.errors == []


def test_texts_written_as_near_as_can_be_are_listed() -> None:
    outcome = judged({("log", "etl"): detail(changed=[{"id": "-7"}])}, tables={"log": {"left_out": 0, "mended": 1}})
    assert outcome.errors == [] and "near as can be" in outcome.listed[0]["reason"]


def test_what_a_run_that_ran_again_brought_is_accounted_for() -> None:
    outcome = judged(
        {
            ("task_instance", "etl"): detail(touched=[key("r1")]),
            ("xcom", "etl"): detail(missing=[key("r1", key="a")], changed=[key("r2", key="a")]),
            ("task_fail", "etl"): detail(extra=[{"id": "12"}]),  # an id that no import gives
        }
    )
    assert [(where, what) for where, what, _mend in outcome.errors] == [
        ("history: xcom of DAG etl", "1 row different (task_id=load run_id=r2 key=a)")
    ]
    assert [entry["id"] for entry in outcome.listed] == [
        "task_instance of DAG etl, changed since",
        "xcom of DAG etl, missing",
        "task_fail of DAG etl, more",
    ]


def test_an_imported_row_that_the_source_has_not_is_an_error() -> None:
    assert "1 row that the source has not" in judged({("task_fail", "etl"): detail(extra=[{"id": "-12"}])}).errors[0][1]


def test_runs_that_were_there_before_are_the_environments_own() -> None:
    outcome = judged({("dag_run", "etl"): detail(met=("r1",), changed=[{"dag_id": "etl", "run_id": "r1"}])})
    assert outcome.errors == [] and "were there before" in outcome.listed[0]["reason"]


@pytest.mark.parametrize(
    ("table", "side", "words"),
    [
        ("sla_miss", "extra", "the environment's own: the DAG has run there, and missed them"),
        ("rendered_task_instance_fields", "missing", "keeps those of a task's last runs: the DAG has run"),
    ],
)
def test_what_comes_and_goes_with_a_dag_that_runs_is_listed(table: str, side: str, words: str) -> None:
    outcome = judged({(table, "etl"): detail(ran=True, **{side: [key()]})})
    assert outcome.errors == [] and words in outcome.listed[0]["reason"]
    assert judged({(table, "etl"): detail(**{side: [key()]})}).errors  # before the cut-over it is no such thing
    other = {"extra": "missing", "missing": "extra"}[side]
    assert judged({(table, "etl"): detail(ran=True, **{other: [key()]})}).errors


def test_datasets_are_as_the_environments_dags_state_them() -> None:
    outcome = judged({("dataset", ""): detail(changed=[{"uri": "s3://a"}])})
    assert outcome.errors == [] and "own DAG files" in outcome.listed[0]["reason"]
    assert judged({("dataset", ""): detail(missing=[{"uri": "s3://a"}])}).errors[0][0] == "history: dataset"


def test_what_was_not_looked_into_is_an_error_with_its_counts() -> None:
    outcome = Outcome()
    judge({"log": {"etl": [5, "a"]}}, {"log": {"etl": [3, "b"]}}, [("log", "etl")], {}, {}, outcome)
    assert "5 rows at the source and 3 in the environment" in outcome.errors[0][1]
    assert outcome.parity["log"] == {"source": 5, "target": 3, "equal": 0, "listed": 0}


def test_tables_are_asked_for_in_portions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verify, "PORTION", 100)
    sizes = {"dag_run": 40, "task_instance": 90, "log": 500, "xcom": 10, "task_fail": 5}
    asked = portions({table: {"etl": [rows, ""]} for table, rows in sizes.items()})
    assert asked == [["dag_run"], ["task_instance"], ["log"], ["task_fail", "xcom"]]
    assert portions({}) == []


def export(number: int, after: Any = None) -> HistoryExport:
    return HistoryExport(str(number), "now", "2.10.3", "2.11.2", "postgresql", {}, after=after)


def test_the_chain_begins_with_the_last_full_export() -> None:
    exports = [export(0), export(1, after=0), export(2), export(3, after=2), export(4, after=3)]
    assert [one.id for one in verify.chain(SimpleNamespace(exports=exports))] == ["2", "3", "4"]  # type: ignore[arg-type]
    assert verify.chain(SimpleNamespace(exports=[])) == []  # type: ignore[arg-type]


def test_how_far_exports_go_back_counts_where_others_went_further() -> None:
    full, short, shorter = (export(number) for number in range(3))
    short.scope["since"], shorter.scope["since"] = "2026-01-01T00:00:00Z", "2026-02-01T00:00:00Z"
    for before, last, since in (
        ([full], shorter, "2026-02-01T00:00:00Z"),
        ([short], shorter, "2026-02-01T00:00:00Z"),
        ([shorter], short, None),
        ([shorter], full, None),
        ([], short, None),
    ):
        record: Any = SimpleNamespace(exports=[*before, last])
        assert verify._older_left_behind(record, [last]) == since
