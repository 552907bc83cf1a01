# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""History on its way into Airflow 3: what is due, told by the environment and the bundle alone; and REST afterwards."""

from __future__ import annotations

import datetime
import zlib
from types import SimpleNamespace
from typing import Any

import pytest
from ansible_collections.mwaa.migration.plugins.module_utils._bundle import Ledger
from ansible_collections.mwaa.migration.plugins.module_utils._errors import MigrationError
from ansible_collections.mwaa.migration.plugins.module_utils._history import interim, over_rest, target
from ansible_collections.mwaa.migration.plugins.module_utils._history.interim import Closed, due
from ansible_collections.mwaa.migration.plugins.module_utils._history.record import HistoryExport
from ansible_collections.mwaa.migration.plugins.module_utils._mwaa.rest import Reply, RestError
from ansible_collections.mwaa.migration.plugins.module_utils._verify import Findings, judge_intervals

MADE = "2026-11-21 10:00:00+00:00"


def environment(version: str, status: str = "AVAILABLE") -> dict[str, Any]:
    return {"Name": "prod", "AirflowVersion": version, "Status": status, "CreatedAt": MADE}


def record(*ids: str) -> Any:
    return SimpleNamespace(exports=[SimpleNamespace(id=name, at=f"on {name}", parts=[]) for name in ids])


def closed(*ids: str, dropped: bool = True) -> Closed:
    return Closed("prod", MADE, exports=ids, dropped=dropped)


@pytest.mark.parametrize(
    ("there", "known", "stage", "version"),
    [
        (None, closed(), "make", "2.11.2"),
        (environment("2.11.2"), closed(), "fill", "2.11.2"),
        (environment("2.10.3"), closed(), "fill", "2.11.2"),  # the way leads through 2.11 anyway
        (environment("2.11.0"), closed(), "fill", "2.11.2"),
        (environment("2.11.3"), closed(), "fill", "2.11.3"),  # newer than this collection: never down
        (environment("2.11.2"), closed("monday"), "fill", "2.11.2"),  # and the source went on
        (environment("2.11.2"), closed("monday", "tuesday", dropped=False), "close", "2.11.2"),
        (environment("2.11.2"), closed("monday", "tuesday"), "upgrade", "2.11.2"),
        (environment("2.11.2", "UPDATE_FAILED"), closed("monday", "tuesday"), "upgrade", "2.11.2"),  # once more
        (environment("3.2.1"), closed("monday", "tuesday"), "done", "3.2.1"),
        (environment("3.2.1"), closed("monday"), "done", "3.2.1"),
    ],
)
def test_what_is_due(there: Any, known: Closed, stage: str, version: str) -> None:
    found = due("prod", "3.2.1", there, [(record("monday", "tuesday"), known)])
    assert (found.stage, found.version) == (stage, version)
    assert found.as_result()["interim"] == (stage != "done")
    assert found.as_result()["fill"] == (stage in ("make", "fill"))
    assert "prod" in found.said


def test_all_bundles_have_to_be_in() -> None:
    known = [(record("a"), closed("a")), (record("b"), closed())]
    assert due("prod", "3.2.1", environment("2.11.2"), known).stage == "fill"


def test_before_the_first_export_a_look_says_that_the_history_is_to_come() -> None:
    assert due("prod", "3.2.1", environment("2.11.2"), []).stage == "fill"


def test_an_airflow_3_without_the_history_takes_none() -> None:
    with pytest.raises(
        MigrationError, match=r"is of Airflow 3.2.1 already, which takes no history.* migration_history: false"
    ):
        due("prod", "3.2.1", environment("3.2.1"), [(record("a"), closed())])


def test_a_source_of_airflow_3_has_no_history_and_all_else_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    version = {"s3://b/new": "3.2.1", "s3://b/old": "2.10.3"}
    monkeypatch.setattr(interim, "open_store", lambda url, _aws: url)
    monkeypatch.setattr(
        interim.Bundle, "open", lambda url, *_rest: SimpleNamespace(source={"airflow_version": version[url]})
    )
    monkeypatch.setattr(interim.Record, "open", lambda _bundle: None)
    monkeypatch.setattr(interim.mwaa, "describe", lambda *_given: None)
    params = {"name": "prod", "airflow_version": "3.2.1", "bundles": ["s3://b/new"], "kms_key_id": None, "close": False}
    ctx = SimpleNamespace(params=params, aws=SimpleNamespace(client=lambda _name: None), check_mode=False)
    result = interim.passage(ctx)
    assert (result["due"], result["airflow_version"], result["fill"]) == ("done", "3.2.1", False)
    assert "whose history cannot be read" in result["said"]
    params["bundles"] = list(version)
    with pytest.raises(MigrationError, match="no history in s3://b/old: run the stage export"):
        interim.passage(ctx)


def test_no_source_is_left_behind_when_another_has_its_history(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing enters an Airflow 3: the upgrade would be its end."""
    monkeypatch.setattr(interim, "open_store", lambda url, _aws: url)
    bundles = {url: SimpleNamespace(source={"airflow_version": "2.10.3"}, url=url) for url in ("s3://b/a", "s3://b/b")}
    monkeypatch.setattr(interim.Bundle, "open", lambda url, *_rest: bundles[url])
    monkeypatch.setattr(interim.Record, "open", lambda bundle: record("a") if bundle.url == "s3://b/a" else None)
    monkeypatch.setattr(interim.mwaa, "describe", lambda *_given: None)
    params = {"name": "prod", "airflow_version": "3.2.1", "bundles": list(bundles), "kms_key_id": None, "close": False}
    ctx = SimpleNamespace(params=params, aws=SimpleNamespace(client=lambda _name: None), check_mode=False)
    with pytest.raises(MigrationError, match="no history in s3://b/b: run the stage export"):
        interim.passage(ctx)
    ctx.check_mode = True
    assert interim.passage(ctx)["due"] == "make"


def test_of_several_sources_an_airflow_3_is_listed_and_the_others_come(monkeypatch: pytest.MonkeyPatch) -> None:
    new = SimpleNamespace(source={"airflow_version": "3.0.6", "hostname": "team-b"})
    monkeypatch.setattr(target, "open_store", lambda *_given: None)
    monkeypatch.setattr(target.Bundle, "open", lambda *_given: new)
    monkeypatch.setattr(target.Record, "open", lambda _bundle: None)
    ctx = SimpleNamespace(params={"workers": 2, "bundle": "s3://b/new", "kms_key_id": None}, aws=None)
    result = target.import_history(ctx)
    assert result["changed"] is False
    assert [(one["id"], "Airflow 3.0.6" in one["reason"]) for one in result["not_carried"]] == [("team-b", True)]


class FakeBundle:
    """Documents of a bundle, in memory."""

    def __init__(self) -> None:
        self.documents: dict[str, dict[str, Any]] = {}

    def read_document(self, path: str, _remedy: str = "") -> dict[str, Any] | None:
        return self.documents.get(path)

    def write_document(self, path: str, body: dict[str, Any]) -> None:
        self.documents[path] = {**body, "schema_version": 1, "bundle_id": "b"}


def test_what_is_written_down_counts_for_that_very_environment() -> None:
    bundle: Any = FakeBundle()
    Closed("prod", MADE, "2.11.2", "today", ["a"], {"dag_run": {"source": 1}}, {"etl": 1}, [], ["etl"], True).write(
        bundle
    )
    assert list(bundle.documents) == ["history/interim/prod.json"]
    found = Closed.read(bundle, environment("2.11.2"))
    assert (found.exports, found.runs, found.unpaused, found.dropped) == (["a"], {"etl": 1}, ["etl"], True)
    again = Closed.read(bundle, {**environment("2.11.2"), "CreatedAt": "another day"})  # made anew under its name
    assert (again.exports, again.dropped) == ((), False)


def test_what_was_brought_is_foretold_of_that_very_environment_alone() -> None:
    """Check mode does not ask the environment: another one of its name has nothing of it yet."""
    bundle: Any = FakeBundle()
    bundle.ledger = lambda name: Ledger(bundle, name)
    made = datetime.datetime(2026, 11, 21, 10, tzinfo=datetime.timezone.utc)
    berlin = made.astimezone(datetime.timezone(datetime.timedelta(hours=1)))
    target.remember(bundle, {"Name": "prod", "CreatedAt": berlin}, record("a", "b"))
    assert target.brought(bundle, {"Name": "prod", "CreatedAt": made}) == {"a", "b"}
    assert target.brought(bundle, {"Name": "prod", "CreatedAt": made + datetime.timedelta(days=1)}) == set()


def test_a_machine_in_another_zone_knows_the_environment_again() -> None:
    bundle: Any = FakeBundle()
    made = datetime.datetime(2026, 11, 21, 10, tzinfo=datetime.timezone.utc)
    berlin = made.astimezone(datetime.timezone(datetime.timedelta(hours=1)))
    Closed("prod", interim.created_at({"CreatedAt": berlin}), exports=["a"]).write(bundle)
    assert Closed.read(bundle, {**environment("2.11.2"), "CreatedAt": made}).exports == ["a"]


class Ask:
    """The agent, as far as closing asks it."""

    def __init__(self, unpaused: list[str]):
        self.unpaused, self.asked, self.dies_at = unpaused, [], ""  # type: ignore[var-annotated]

    def __call__(self, request: dict[str, Any]) -> dict[str, Any]:
        if request["op"] == self.dies_at:
            raise KeyboardInterrupt
        self.asked.append(request["op"])
        return {"pause_dags": {"unpaused": self.unpaused}, "drop_history": {"dropped": ["x"]}}[request["op"]]


def closing(bundle: Any, ask: Ask, monkeypatch: pytest.MonkeyPatch, errors: list[Any] | None = None) -> interim._Close:
    outcome = interim.verify.Outcome(parity={"dag_run": {"source": 2, "target": 2, "equal": 2}}, runs={"etl": 2})
    outcome.errors = errors or []
    monkeypatch.setattr(interim, "verified", lambda *_given: ask.asked.append("verify") or outcome)
    monkeypatch.setattr(interim, "place_of", lambda *_given: None)
    made = interim._Close.__new__(interim._Close)
    one = record("monday")
    one.bundle = bundle
    bundle.store = SimpleNamespace(url="s3://bundles/prod")
    made.ctx, made.shown, made.name = SimpleNamespace(aws=None), environment("2.11.2"), "prod"
    made.known, made.ask = [(one, Closed.read(bundle, made.shown))], ask
    return made


def test_closing_compares_writes_down_and_drops(monkeypatch: pytest.MonkeyPatch) -> None:
    bundle, ask = FakeBundle(), Ask(["etl"])
    result = closing(bundle, ask, monkeypatch).run()
    assert ask.asked == ["verify", "pause_dags", "drop_history"]
    assert result == {"parity": {"dag_run": {"source": 2, "target": 2, "equal": 2}}, "unpaused": ["etl"]}
    found = Closed.read(bundle, environment("2.11.2"))  # type: ignore[arg-type]
    assert found.dropped and found.exports == ["monday"] and found.unpaused == ["etl"]


def test_killed_before_the_ledger_was_gone_nothing_is_compared_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    bundle, ask = FakeBundle(), Ask(["etl"])
    ask.dies_at = "drop_history"
    with pytest.raises(KeyboardInterrupt):
        closing(bundle, ask, monkeypatch).run()
    ask.dies_at, ask.asked, ask.unpaused = "", [], []
    closing(bundle, ask, monkeypatch).run()
    assert ask.asked == ["pause_dags", "drop_history"]
    assert Closed.read(bundle, environment("2.11.2")).unpaused == ["etl"]  # type: ignore[arg-type]


def test_a_history_that_differs_stays_in_2_11(monkeypatch: pytest.MonkeyPatch) -> None:
    bundle, ask = FakeBundle(), Ask([])
    wrong = [("history: xcom of DAG etl", "1 row missing (key=a)", "run the history stage again")]
    with pytest.raises(MigrationError, match=r"stays Airflow 2.11.2.*xcom of DAG etl \(1 row missing"):
        closing(bundle, ask, monkeypatch, wrong).run()
    assert ask.asked == ["verify"] and bundle.documents == {}


def test_what_was_exported_after_the_upgrade_is_listed() -> None:
    late = record("monday", "tuesday")
    late.exports[1].parts = [{"rows": 7}]
    outcome = interim.known(late, closed("monday"), environment("3.2.1"))
    assert outcome.errors == []
    assert [(entry["id"], entry["reason"][:6]) for entry in outcome.listed] == [("export of on tuesday", "7 rows")]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"scheduler.create_cron_data_intervals": "True", "scheduler.create_delta_data_intervals": "true"}, None),
        (
            {"scheduler.create_cron_data_intervals": "False", "scheduler.create_delta_data_intervals": "True"},
            "is not True",
        ),
        ({}, "are not True"),
    ],
)
def test_intervals_that_would_skip_a_date_are_said(options: dict[str, str], said: str | None) -> None:
    findings = Findings()
    judge_intervals({"Name": "prod", "AirflowConfigurationOptions": options}, findings)
    assert [item["severity"] for item in findings.items] == (["warning"] if said else [])
    assert said is None or said in findings.items[0]["what"]


# --- over REST --------------------------------------------------------------------------------------------------------

RUN_COLUMNS = ["id", "dag_id", "run_id", "execution_date", "state", "run_type", "start_date", "end_date",
               "data_interval_start", "data_interval_end", "conf"]  # fmt: skip
TASK_COLUMNS = ["dag_id", "task_id", "run_id", "map_index", "try_number", "state", "start_date", "end_date"]


def run_line(dag: str, day: int, state: str = "success", conf: str = "{}") -> list[str]:
    at = f"2024-01-{day:02} 00:00:00+00"
    return [
        f"-{day}",
        dag,
        f"run-{day}",
        at,
        state,
        "scheduled",
        at,
        f"2024-01-{day:02} 00:05:00.12+00",
        at,
        "\\N",
        conf,
    ]


def task_line(dag: str, day: int, state: str = "success") -> list[str]:
    return [dag, "load", f"run-{day}", "-1", "1", state, f"2024-01-{day:02} 00:00:00+00", "\\N"]


def a_record(*exports: dict[str, list[list[str]]]) -> Any:
    """Exports as {table: lines}; the later ones are deltas."""
    bodies: dict[str, bytes] = {}
    made = []
    for number, tables in enumerate(exports):
        parts = []
        for table, lines in tables.items():
            packer = zlib.compressobj(1, zlib.DEFLATED, 31)
            text = "".join("\t".join(line) + "\n" for line in lines).encode()
            path = f"{number}-{table}"
            bodies[path] = packer.compress(text) + packer.flush()
            dags = {line[1 if table == "dag_run" else 0] for line in lines}
            parts.append({"table": table, "rows": len(lines), "digests": {dag: [1, "0"] for dag in dags},
                          "objects": [{"path": path, "sha256": path, "size": 1, "rows": len(lines)}]})  # fmt: skip
        columns = {
            "dag_run": [[name, "id" if name == "id" else "text"] for name in RUN_COLUMNS],
            "task_instance": [[name, "text"] for name in TASK_COLUMNS],
        }
        made.append(HistoryExport(str(number), "now", "2.10.3", "2.11.2", "postgresql", {}, after=number or None,
                                  columns=columns, parts=parts))  # fmt: skip
    return SimpleNamespace(exports=made, read=lambda piece: bodies[piece["path"]])


class Rest:
    """An Airflow 3 with these runs."""

    def __init__(self, runs: list[dict[str, Any]], tasks: list[dict[str, Any]]):
        self.runs, self.tasks, self.fails = runs, tasks, False

    def call(self, method: str, path: str, body: dict[str, Any], reads: bool) -> Reply:
        assert method == "POST" and reads and len(path) <= 64
        if "taskInstances" in path:
            if self.fails:
                raise RestError("POST: Airflow answered 500", status=500)
            rows = [
                row
                for row in self.tasks
                if row["dag_id"] in body["dag_ids"] and row["dag_run_id"] in body["dag_run_ids"]
            ]
            key = "task_instances"
        else:
            low = body.get("logical_date_gte")
            rows = [row for row in self.runs if row["dag_id"] in body["dag_ids"]]
            rows = [row for row in rows if not low or over_rest._when(row["logical_date"]) == over_rest._when(low)]
            key = "dag_runs"
        start = body.get("page_offset", 0)
        return Reply(200, {key: rows[start : start + body["page_limit"]], "total_entries": len(rows)})


def shown_run(dag: str, day: int, **other: Any) -> dict[str, Any]:
    at = f"2024-01-{day:02}T00:00:00Z"
    return {"dag_id": dag, "dag_run_id": f"run-{day}", "logical_date": at, "state": "success", "run_type": "scheduled",
            "start_date": at, "end_date": f"2024-01-{day:02}T00:05:00.120000Z", "data_interval_start": at,
            "data_interval_end": None, "conf": {}, **other}  # fmt: skip


def shown_task(dag: str, day: int, **other: Any) -> dict[str, Any]:
    return {"dag_id": dag, "dag_run_id": f"run-{day}", "task_id": "load", "map_index": -1, "try_number": 1,
            "state": "success", "start_date": f"2024-01-{day:02}T00:00:00Z", "end_date": None, **other}  # fmt: skip


DAYS = range(1, 29)
HISTORY = {"dag_run": [run_line("etl", day) for day in DAYS], "task_instance": [task_line("etl", day) for day in DAYS]}


def compared(record: Any, rest: Rest, known: tuple[str, ...] = ("etl",)) -> over_rest.Outcome:
    totals, chosen = over_rest.sample(record)
    return over_rest.compare(rest, totals, chosen, known, "3.2.1")  # type: ignore[arg-type]


def airflow_3() -> Rest:
    return Rest([shown_run("etl", day) for day in DAYS], [shown_task("etl", day) for day in DAYS])


def test_the_sample_has_the_oldest_the_newest_and_some_between() -> None:
    totals, chosen = over_rest.sample(a_record(HISTORY))
    assert totals == {"etl": 28}
    days = sorted(int(run.run_id.split("-")[1]) for run in chosen)
    assert days[0] == 1 and days[-1] == 28 and len(days) in (7, 8)
    assert [run.run_id for run in over_rest.sample(a_record(HISTORY))[1]] == [run.run_id for run in chosen]
    assert all(list(run.tasks) == [("load", -1)] for run in chosen)


def test_a_later_export_of_a_run_is_what_counts() -> None:
    delta = {"dag_run": [run_line("etl", 28, "failed")], "task_instance": [task_line("etl", 28, "failed")]}
    totals, chosen = over_rest.sample(a_record(HISTORY, delta))
    last = next(run for run in chosen if run.run_id == "run-28")
    assert totals == {"etl": 28} and last.shown["state"] == "failed"
    assert [task["state"] for task in last.tasks.values()] == ["failed"]


def test_an_upgrade_that_kept_everything() -> None:
    outcome = compared(a_record(HISTORY), airflow_3())
    assert (outcome.errors, outcome.warnings, outcome.listed) == ([], [], [])


def test_new_runs_do_not_matter() -> None:
    rest = airflow_3()
    rest.runs.append({**shown_run("etl", 30), "run_type": "scheduled"})
    assert compared(a_record(HISTORY), rest).errors == []


def test_what_the_upgrade_lost_or_changed_is_named() -> None:
    rest = airflow_3()
    rest.runs[0] = shown_run("etl", 1, state="failed", conf={"a": 1})
    rest.tasks[27]["end_date"] = "2024-01-28T00:01:00Z"
    del rest.runs[5]
    whats = [what for _where, what, _mend in compared(a_record(HISTORY), rest).errors]
    assert whats[0] == "27 runs over REST where 28 were before the upgrade to 3.2.1"
    assert "run-1: state, conf" in whats[-1] and "run-28 load: end_date" in whats[-1]


def test_a_dag_that_is_gone_is_listed() -> None:
    outcome = compared(a_record(HISTORY), Rest([], []), known=())
    assert outcome.errors == []
    assert [(entry["id"], "28 runs" in entry["reason"]) for entry in outcome.listed] == [("runs of DAG etl", True)]


def test_task_instances_that_rest_cannot_show_are_a_warning() -> None:
    rest = airflow_3()
    rest.fails = True
    outcome = compared(a_record(HISTORY), rest)
    assert outcome.errors == [] and "answered 500" in outcome.warnings[0][1]


def test_runs_with_more_task_instances_than_are_read_are_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    """One long run does not hide what became of the others."""
    tasks = [*HISTORY["task_instance"], *([["etl", f"t{n}", "run-28", *task_line("etl", 28)[3:]] for n in range(9)])]
    rest = airflow_3()
    rest.tasks[0]["state"] = "failed"
    monkeypatch.setattr(over_rest, "INSTANCES", 8)
    outcome = compared(a_record({**HISTORY, "task_instance": tasks}), rest)
    assert [what for _where, what, _mend in outcome.errors] == ["otherwise over REST: run-1 load: state"]
    [entry] = outcome.listed
    assert entry["id"] == "task_instance of DAG etl"
    assert entry["reason"].startswith("of 1 run of the sample the 10 task instances were not compared")
    assert "run-28" in entry["reason"]


@pytest.mark.parametrize(
    "text",
    [
        "2024-01-02 03:04:05.12+00",
        "2024-01-02T03:04:05.120000Z",
        "2024-01-02T05:04:05.12+02:00",
        "2024-01-02T03:04:05.12+00:00",
    ],
)
def test_times_are_read_as_lines_and_rest_spell_them(text: str) -> None:
    assert over_rest._when(text) == datetime.datetime(2024, 1, 2, 3, 4, 5, 120000, datetime.timezone.utc)
