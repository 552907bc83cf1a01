# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What an import meets on a target: rows that are there already, kills, pauses, dropped indexes, bad bundles."""

from __future__ import annotations

import contextlib
import copy
import threading
from typing import Any

import pytest
from import_lane import Database, Databases, Lane, importing
from small_airflow import SmallAirflow, history, moment

pytestmark = pytest.mark.lab
COUNTED = ("dag_run", "task_instance", "xcom", "log", "task_fail")


@pytest.fixture
def database(databases: Databases) -> Database:
    return databases.new("2.11.2")


def airflow(days: int = 6, version: str = "2.10.3") -> SmallAirflow:
    made = SmallAirflow(version)
    for day in range(1, days + 1):
        made.run("etl", day, updated_at=moment(day))
        made.task("etl", "load", day, hostname="worker", updated_at=moment(day), start_date=moment(day))
        made.xcom("etl", "load", "return_value", b"%d" % day, day)
        made.of_task("task_fail", "etl", "load", day, duration=day)
        made.insert("log", dag_id="etl", dttm=moment(day), event="success", extra="")
    return made


def counts(database: Database) -> list[int]:
    return [int(database.sql(f"SELECT count(*) FROM {table}")) for table in COUNTED]


def lane_of(made: SmallAirflow, database: Database, name: str = "b1") -> Lane:
    return Lane(made.engine(), database.schema(), name)


def sums(answer: dict[str, Any], what: str) -> dict[str, int]:
    return {table: row[what] for table, row in answer["tables"].items() if row[what] and table in COUNTED}


def test_the_same_bundle_again_does_nothing(database: Database) -> None:
    lane = lane_of(airflow(), database)
    first = lane.into(database)
    before = database.sql("SELECT max(xmin::text::bigint) FROM task_instance")
    assert lane.into(database) == {**first, "done": [piece["sha256"] for piece in lane.pieces]}
    assert counts(database) == [6] * 5 and database.sql("SELECT max(xmin::text::bigint) FROM task_instance") == before


def test_another_bundle_of_the_same_rows_adds_and_changes_nothing(database: Database) -> None:
    lane_of(airflow(), database).into(database)
    again = lane_of(airflow(), database, "b2").into(database)
    assert sums(again, "inserted") == sums(again, "updated") == {} and sums(again, "kept")["log"] == 6
    assert counts(database) == [6] * 5


@pytest.mark.parametrize("policy", ["skip", "overwrite", "newer"])
def test_a_delta_brings_what_changed(database: Database, policy: str) -> None:
    lane_of(airflow(), database).into(database)
    made = airflow(8)  # two new runs,
    cleared = {"try_number": 2, "hostname": "another", "updated_at": moment(9)}
    columns = ", ".join(f"{name} = :{name}" for name in cleared)
    made.connection.execute(f"UPDATE task_instance SET {columns} WHERE run_id LIKE '%01-02T%'", cleared)  # a change
    delta = lane_of(made, database, "b2")
    answer = delta.into(database, policy)
    assert sums(answer, "inserted") == dict.fromkeys(COUNTED, 2)
    assert sums(answer, "updated") == ({} if policy == "skip" else {"task_instance": 1})
    assert (delta.read_back(database) == delta.sent()) == (policy != "skip")


def native_run(database: Database, day: int, run_id: str = "", when: str = "now()") -> None:
    """The target's own run of that day."""
    run_id = run_id or f"scheduled__2024-01-{day:02d}T00:00:00.000000"
    database.sql(
        "INSERT INTO dag_run (dag_id, run_id, execution_date, state, run_type, clear_number, updated_at)"
        f" VALUES ('etl', '{run_id}', '2024-01-{day:02d}Z', 'failed', 'scheduled', 0, {when});"
        "INSERT INTO task_instance (dag_id, task_id, run_id, pool, pool_slots, state, updated_at)"
        f" VALUES ('etl', 'load', '{run_id}', 'p', 1, 'failed', {when})"
    )


@pytest.mark.parametrize(
    ("policy", "when", "states"),
    [
        ("skip", "'2020-01-01'", ["failed", "failed"]),
        ("overwrite", "now()", ["success", "success"]),
        ("newer", "now()", ["failed", "failed"]),
        ("newer", "'2020-01-01'", ["success", "success"]),
    ],
)
def test_a_run_that_is_there_under_another_id(database: Database, policy: str, when: str, states: list[str]) -> None:
    native_run(database, 2, when=when)
    lane = lane_of(airflow(), database)
    lane.into(database, policy)
    assert counts(database) == [6] * 5
    found = database.sql(
        "SELECT r.state || '|' || t.state || '|' || (x.dag_run_id = r.id) || '|' || (r.id > 0) FROM dag_run r"
        " JOIN task_instance t USING (dag_id, run_id) JOIN xcom x USING (dag_id, run_id) WHERE r.run_id LIKE '%01-02T%'"
    )
    assert found.split("|") == [*states, "true", "true"]
    differs = {table for table, sent in lane.sent().items() if lane.read_back(database)[table] != sent}
    assert differs == ({"dag_run", "task_instance"} if states[0] == "failed" else set())


@pytest.mark.parametrize(("ended", "state"), [("'2099-01-01'", "failed"), ("'2020-01-01'", "success")])
def test_what_ran_before_the_target_was_upgraded_to_2_5_is_compared_by_its_end(
    database: Database, ended: str, state: str
) -> None:
    """Airflow wrote down no change of a row until then; rows that were imported from such a one give way to a delta."""
    native_run(database, 2, when="NULL")
    database.sql(f"UPDATE dag_run SET end_date = {ended}; UPDATE task_instance SET end_date = {ended}")
    made = airflow(3)
    made.connection.execute("UPDATE dag_run SET updated_at = NULL")
    made.connection.execute("UPDATE task_instance SET updated_at = NULL")
    lane_of(made, database).into(database, "newer")
    states = "SELECT string_agg(state, ' ' ORDER BY run_id) FROM "
    assert database.sql(states + "dag_run") == database.sql(states + "task_instance") == f"success {state} success"
    made.connection.execute("UPDATE dag_run SET state = 'failed', end_date = '2024-02-01 00:00:00+00:00'")
    made.connection.execute("UPDATE task_instance SET state = 'failed', end_date = '2024-02-01 00:00:00+00:00'")
    lane_of(made, database, "b2").into(database, "newer")
    assert database.sql(states + "dag_run") == database.sql(states + "task_instance") == "failed failed failed"


@pytest.mark.parametrize(("when", "kept"), [("now()", True), ("'2020-01-01'", False)])
def test_what_has_no_date_goes_with_its_task_instance(database: Database, when: str, kept: bool) -> None:
    native_run(database, 2, when=when)
    database.sql(
        "UPDATE task_instance SET job_id = 5; INSERT INTO rendered_task_instance_fields (dag_id, task_id, run_id,"
        " map_index, rendered_fields) SELECT dag_id, task_id, run_id, map_index, '\"mine\"' FROM task_instance"
    )
    made = airflow()
    for day in (1, 2):
        made.of_task("rendered_task_instance_fields", "etl", "load", day, rendered_fields='"theirs"')
    lane_of(made, database).into(database, "newer")
    rendered = database.sql("SELECT rendered_fields FROM rendered_task_instance_fields ORDER BY run_id").split()
    assert rendered == ['"theirs"', '"mine"' if kept else '"theirs"']


def test_fail_names_every_conflict_and_writes_nothing(database: Database) -> None:
    for day in (2, 5):
        native_run(database, day)
    before = counts(database)
    with pytest.raises(history.Unfit, match="4 rows of this bundle already, nothing was written") as refused:
        lane_of(airflow(), database).into(database, "fail")
    for day in (2, 5):
        assert str(refused.value).count(f"etl scheduled__2024-01-{day:02d}T") == 1
    assert counts(database) == before
    database.sql("DELETE FROM dag_run")
    # what the target's DAG files state, too, is no conflict
    database.sql("INSERT INTO dataset (uri, extra, created_at, updated_at) VALUES ('s3://known', '{}', now(), now())")
    made = airflow()
    made.insert("dataset", uri="s3://known", extra="{}", created_at=moment(1), updated_at=moment(1), is_orphaned=0)
    assert lane_of(made, database).into(database, "fail")["left"] == []


def test_a_run_whose_date_another_run_has_is_listed_with_all_that_is_its(database: Database) -> None:
    native_run(database, 2, "manual__mine")
    answer = lane_of(airflow(), database).into(database, "overwrite")
    assert sums(answer, "left_out") == dict.fromkeys(("dag_run", "task_instance", "xcom", "task_fail"), 1)
    run = next(one for one in answer["listed"] if one["table"] == "dag_run")
    assert run["why"] == "another run on the target has its date"
    assert run["key"] == {"dag_id": "etl", "run_id": "scheduled__2024-01-02T00:00:00.000000"}
    assert counts(database) == [6, 6, 5, 6, 5]


def test_a_run_that_comes_in_between_is_met_all_the_same(database: Database) -> None:
    lane = lane_of(airflow(), database)
    target = database.target()
    target.begin()
    importing.make_ledger(target)
    assert set(importing.decide_modes(target, lane.bundle(), COUNTED).values()) == {"direct"}
    target.commit()
    native_run(database, 2)
    lane.into(database)
    assert counts(database) == [6] * 5
    wrong = "SELECT count(*) FROM xcom x JOIN dag_run r USING (dag_id, run_id) WHERE x.dag_run_id <> r.id"
    assert database.sql(wrong) == "0"


def test_rows_without_what_they_belong_to_are_listed(database: Database) -> None:
    made = airflow(2, "1.10.12")  # which has no foreign keys
    made.xcom("etl", "deleted", "k", b"1", 1)
    made.of_task("task_fail", "etl", "deleted", 2, duration=1)
    answer = lane_of(made, database).into(database)
    assert sums(answer, "left_out") == {"xcom": 1, "task_fail": 1}
    assert {one["why"] for one in answer["listed"]} == {"its task instance is not on the target"}
    assert counts(database) == [2] * 5


def test_task_instances_of_1_10_without_a_run(database: Database) -> None:
    made = airflow(2, "1.10.12")
    made.task("etl", "load", 9, start_date=moment(9), end_date=moment(9))
    made.xcom("etl", "load", "k", b"1", 9)
    lane = lane_of(made, database)
    assert lane.into(database)["listed"] == []
    assert counts(database)[:3] == [3, 3, 3] and lane.read_back(database) == lane.sent()
    assert database.sql("SELECT id FROM dag_run WHERE run_type = 'manual'") == "1"
    database.sql("DELETE FROM xcom WHERE dag_run_id = 1")
    gone = {"dag_id": "etl", "task_id": "load", "run_id": "manual__2024-01-09T00:00:00.000000+00:00"}
    # it was not there before, so that nothing else accounts for it
    assert named(lane, database, "xcom") == {"missing": [{**gone, "map_index": "-1", "key": "k"}]}
    assert lane_of(made, database, "b2").into(database)["listed"] == [] and counts(database)[:3] == [3, 3, 3]


def test_log_templates_go_by_their_text(databases: Databases) -> None:
    database = databases.new("2.5.1")
    made = airflow(3, "2.5.1")
    for number, text in enumerate(("mine {{ ti }}", database.sql("SELECT filename FROM log_template WHERE id = 2")), 7):
        search = database.sql("SELECT elasticsearch_id FROM log_template WHERE id = 2")
        made.insert("log_template", id=number, filename=text, elasticsearch_id=search, created_at=moment(1))
    made.connection.execute("UPDATE dag_run SET log_template_id = 6 + id WHERE id < 3")
    lane_of(made, database).into(database)
    # the third run never had one: its logs are brought to where those of new runs are, not to where the oldest looks
    assert database.sql("SELECT filename FROM log_template WHERE id = 1").startswith(
        "{{ ti.dag_id }}/{{ ti.task_id }}/"
    )
    assert database.sql("SELECT string_agg(log_template_id::text, ' ' ORDER BY id DESC) FROM dag_run") == "-7 2 2"
    assert database.sql("SELECT max(id) FROM log_template") == "2"  # what new runs take


def test_datasets_that_the_target_knows_keep_their_id(database: Database) -> None:
    database.sql("INSERT INTO dataset (uri, extra, created_at, updated_at) VALUES ('s3://known', '{}', now(), now())")
    made = airflow(2)
    for number, uri in enumerate(("s3://new", "s3://known"), 1):
        values = {"created_at": moment(1), "updated_at": moment(1), "is_orphaned": 0}
        made.insert("dataset", id=number, uri=uri, extra="{}", **values)
        event = {"timestamp": moment(1), "source_dag_id": "etl", "extra": "{}"}
        made.insert("dataset_event", id=number, dataset_id=number, **event)
        made.insert("dagrun_dataset_event", dag_run_id=number, event_id=number)
    lane = lane_of(made, database)
    lane.into(database)
    found = database.sql("SELECT d.uri, d.id > 0 FROM dataset_event e JOIN dataset d ON d.id = e.dataset_id ORDER BY 1")
    assert found.split() == ["s3://known|t", "s3://new|f"]
    differs = {table for table, sent in lane.sent().items() if lane.read_back(database)[table] != sent}
    assert differs == {"dataset"}  # the target's own dates of s3://known
    assert int(database.sql("SELECT count(*) FROM dagrun_dataset_event")) == 2
    database.sql("DELETE FROM dagrun_dataset_event WHERE event_id = -2")
    gone = {"run_id": "scheduled__2024-01-02T00:00:00.000000", "event_id": "-2"}
    assert named(lane, database, "dagrun_dataset_event") == {"missing": [gone]}


# ------------------------------------------------------------------------------------------------------------ killed


@pytest.mark.parametrize("seed", range(4))
def test_connections_that_are_cut_anywhere_lose_and_double_nothing(database: Database, seed: int) -> None:
    lane = lane_of(airflow(20), database)
    if seed % 2:
        native_run(database, 3)
    stop = threading.Event()

    def cut() -> None:
        while not stop.wait(0.01 + 0.03 * seed):
            database.server.sql(
                "postgres",
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                f" WHERE datname = '{database.name}' AND random() < 0.5",
            )

    cutter = threading.Thread(target=cut)
    cutter.start()
    tries = 0
    while tries < 12:
        tries += 1
        with contextlib.suppress(Exception):
            lane.into(database, "overwrite")
            break
        if tries == 6:
            stop.set()
    stop.set()
    cutter.join()
    lane.into(database, "overwrite")
    assert counts(database) == [20] * 5 and lane.read_back(database) == lane.sent()
    assert database.sql("SELECT relname FROM pg_class WHERE relname LIKE 'mwaa_migration_staging%'") == ""


def test_two_at_once_write_each_piece_once(database: Database) -> None:
    lane = lane_of(airflow(20), database)
    answers: list[Any] = []
    first = database.target()
    first.begin()
    importing.make_ledger(first)
    first.commit()
    threads = [threading.Thread(target=lambda: answers.append(lane.into(database))) for _number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [answer["left"] for answer in answers] == [[], []] and counts(database) == [20] * 5


def test_what_is_left_when_time_is_up_comes_with_the_next_call(database: Database) -> None:
    lane = lane_of(airflow(), database)
    answer = lane.into(database, until=0)
    assert answer["done"] == [] and len(answer["left"]) == len(lane.pieces) and counts(database) == [0] * 5
    assert lane.into(database)["left"] == [] and counts(database) == [6] * 5


def test_what_a_credential_that_expires_leaves_comes_with_the_next_call(database: Database) -> None:
    lane = lane_of(airflow(), database)
    given: list[Any] = []

    def fetch(piece: Any) -> bytes:
        if len(given) == 2:
            raise importing._expired("S3 does not give history/7 any more: HTTP 403 AccessDenied")
        given.append(piece)
        return lane.fetch(piece)

    answer = lane.into(database, fetch=fetch)
    assert sorted(answer["done"]) == sorted(piece["sha256"] for piece in given) and answer["left"]
    assert lane.into(database)["left"] == [] and counts(database) == [6] * 5


# ------------------------------------------------------------------------------------------------ pauses, indexes, drop


def test_pauses_are_written_down_once_and_come_back(database: Database) -> None:
    database.sql(
        "INSERT INTO dag (dag_id, is_paused, max_active_tasks, max_consecutive_failed_dag_runs,"
        " has_task_concurrency_limits) VALUES ('a', false, 1, 0, false), ('b', true, 1, 0, false),"
        " ('c', false, 1, 0, false), ('mwaa_agent', false, 1, 0, false)"
    )
    target = database.target()
    assert importing.pause_dags(target, "pause") == {"changed": ["a", "c"], "unpaused": ["a", "c"]}
    assert importing.pause_dags(target, "pause") == {"changed": [], "unpaused": ["a", "c"]}
    with pytest.raises(history.Unfit, match="DAGs to unpause: a, c"):
        importing.drop(target)
    assert importing.pause_dags(target, "resume", ["c"]) == {
        "changed": ["c"],
        "unpaused": ["a"],
        "waiting": [],
        "importing": [],
    }
    assert importing.pause_dags(target, "resume") == {"changed": ["a"], "unpaused": [], "waiting": [], "importing": []}
    assert (
        database.sql("SELECT string_agg(dag_id, ' ' ORDER BY dag_id) FROM dag WHERE NOT is_paused") == "a c mwaa_agent"
    )
    assert importing.drop(target) == {"dropped": ["mwaa_migration_ledger"]}
    assert importing.drop(target) == {"dropped": []}


def test_the_last_of_several_imports_resumes_what_was_paused(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    database.sql(
        "INSERT INTO dag (dag_id, is_paused, max_active_tasks, max_consecutive_failed_dag_runs,"
        " has_task_concurrency_limits) VALUES ('etl', false, 1, 0, false)"
    )
    target = database.target()
    importing.make_ledger(target)
    for bundle in ("a", "b"):
        importing.announce(target, bundle, 60)
        importing.pause_dags(target, "pause")
    importing._ended(target, "a")
    nothing = {"changed": [], "unpaused": ["etl"], "waiting": [], "importing": ["b"]}
    assert importing.pause_dags(target, "resume", bundles=["a"]) == nothing
    assert importing.pause_dags(target, "resume", bundles=["b"])["changed"] == [
        "etl"
    ]  # it stopped half way, and says so
    importing.pause_dags(target, "pause")
    monkeypatch.setattr(importing, "BELIEVED", -61)  # its last request is long ago
    importing.announce(target, "b", 60)
    assert importing.pause_dags(target, "resume", bundles=["a"])["changed"] == ["etl"]


def test_what_airflow_has_not_read_since_its_runs_came_has_no_next_run(database: Database) -> None:
    """Whoever unpauses it early would else get an interval that has run."""
    database.sql(
        "INSERT INTO dag (dag_id, is_paused, is_active, last_parsed_time, next_dagrun_create_after, max_active_tasks,"
        " max_consecutive_failed_dag_runs, has_task_concurrency_limits) VALUES"
        " ('etl', true, true, now(), '2024-01-01', 1, 0, false),"
        " ('read_again', true, true, now() + interval '1 hour', '2024-01-02', 1, 0, false)"
    )
    lane = lane_of(airflow(2), database)
    dates = "SELECT string_agg(dag_id || ' ' || coalesce(next_dagrun_create_after::date::text, '-'), ', ') FROM dag"
    lane.into(database)
    assert importing.finish(database.connect, lane.columns)["left_out"] == []
    assert sorted(database.sql(dates).split(", ")) == ["etl -", "read_again 2024-01-02"]


DDL = (
    "SELECT string_agg(d, E'\\n' ORDER BY d) FROM (SELECT indexdef AS d FROM pg_indexes WHERE schemaname = 'public'"
    " UNION ALL SELECT conrelid::regclass || ' ' || pg_get_constraintdef(oid) FROM pg_constraint) x"
)


def test_indexes_are_back_after_a_crash_and_what_has_no_parent_is_listed(database: Database) -> None:
    made = airflow(4, "1.10.12")
    made.xcom("etl", "deleted", "k", b"1", 1)
    lane = lane_of(made, database)
    importing.pause_dags(database.target(), "show")  # makes the ledger, whose own key is no difference
    before = database.sql(DDL)
    assert len(importing.drop_indexes(database.target(), lane.columns)) > 30 and database.sql(DDL) != before
    lane.into(database)
    with pytest.raises(history.Unfit, match="indexes to rebuild"):
        importing.drop(database.target())
    cut = database.target()  # a crash in the middle of rebuilding: some are back, one is half done
    cut.begin()
    (text,) = cut.rows("SELECT value FROM mwaa_migration_ledger WHERE name = 'ti_state'")[0]
    entry = importing.json.loads(text)
    importing._build(cut, entry)
    cut.connection.close()
    answer = importing.finish(database.connect, lane.columns)
    assert database.sql(DDL) == before
    assert answer["left_out"] == [{"table": "xcom", "why": "its task instance is not on the target", "rows": 1}]
    assert counts(database) == [4] * 5
    again = importing.finish(database.connect)  # what had to go is told whoever asks, and when
    assert again == {"built": [], "left_out": answer["left_out"]}


def test_indexes_stay_while_tasks_run(database: Database) -> None:
    native_run(database, 1)
    database.sql("UPDATE task_instance SET state = 'running'")
    before = database.sql(DDL)
    with pytest.raises(history.Unfit, match="tasks run on the target: etl.load"):
        importing.drop_indexes(database.target(), ["task_instance"])
    assert set(before.split("\n")) <= set(database.sql(DDL).split("\n"))


@pytest.mark.parametrize("passes", [True, False])
def test_indexes_stay_while_something_holds_a_lock(
    database: Database, monkeypatch: pytest.MonkeyPatch, passes: bool
) -> None:
    """A long query: meanwhile nobody waits for tables that are locked already."""
    native_run(database, 1)
    importing.pause_dags(database.target(), "show")
    before, holder, waited = database.sql(DDL), database.connect(), []
    holder.cursor().execute("SELECT * FROM xcom")

    def sleep(seconds: float) -> None:
        waited.append(seconds)
        database.sql("SET lock_timeout = 1; SELECT 1 FROM dag_run, log_template, task_instance")  # nothing is locked
        if passes:
            holder.rollback()

    monkeypatch.setattr(importing.time, "sleep", sleep)
    monkeypatch.setattr(importing, "LOCK_WAIT", 0.2)
    monkeypatch.setattr(importing, "LOCK_TRIES", 3)
    tables = ["dag_run", "task_instance", "xcom"]
    if passes:
        dropped = importing.drop_indexes(database.target(), tables)
        assert len(waited) == 1 and len(dropped) > 5
        importing.finish(database.connect)
    else:
        with pytest.raises(history.Unfit, match="something on the target holds a lock: stop what runs there"):
            importing.drop_indexes(database.target(), tables)
        assert len(waited) == 2
    holder.close()
    assert database.sql(DDL) == before


# --------------------------------------------------------------------------------------------------------- bad input


def test_a_corrupt_piece(database: Database) -> None:
    lane = lane_of(airflow(), database)
    piece = next(one for one in lane.pieces if one["table"] == "task_instance")
    whole = lane.bodies[piece["sha256"]]
    for broken in (whole[:-9], whole[:50] + b"x" + whole[51:], b""):
        lane.bodies[piece["sha256"]] = broken
        with pytest.raises(history.Unfit, match="a piece of task_instance is not the one that was exported"):
            lane.into(database)
        assert counts(database)[1] == 0
    lane.bodies[piece["sha256"]] = whole
    assert lane.into(database)["left"] == [] and counts(database) == [6] * 5


def test_a_manifest_that_lies_about_rows(database: Database) -> None:
    lane = lane_of(airflow(), database)
    wrong = copy.deepcopy(lane.pieces)
    next(one for one in wrong if one["table"] == "xcom")["rows"] += 1
    with pytest.raises(history.Unfit, match="a piece of xcom has 6 rows where 7 were exported"):
        lane.into(database, pieces=wrong)
    assert counts(database)[2] == 0


def test_a_disk_that_is_full(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    class Full(Exception):
        pgcode = "53100"

    lane = lane_of(airflow(), database)

    def copy_half(target: Any, statement: str, feed: Any) -> int:
        if "task_instance" in statement:
            raise Full()
        return real(target, statement, feed)

    real = importing.Target.copy
    monkeypatch.setattr(importing.Target, "copy", copy_half)
    with pytest.raises(
        history.Unfit, match="has no space left.*task_instance, piece .*nothing of this piece was written"
    ):
        lane.into(database)
    monkeypatch.setattr(importing.Target, "copy", real)
    assert counts(database)[:3] == [6, 0, 0]
    assert lane.into(database)["left"] == [] and counts(database) == [6] * 5


def test_another_source_is_refused_or_comes_beside(database: Database) -> None:
    target = database.target()
    assert importing.register(target, "first") == importing.register(target, "first") == 0
    lane = lane_of(airflow(), database)
    lane.into(database)
    with pytest.raises(history.Unfit, match="history of another source already"):
        importing.register(target, "second")
    shift = importing.register(target, "second", beside=True)
    assert shift == 10**8 == importing.register(target, "second")
    made = airflow(3)
    for table in ("dag_run", "task_instance", "xcom", "task_fail"):
        made.connection.execute(f"UPDATE {table} SET dag_id = 'other'")
    beside = lane_of(made, database, "b2")
    assert beside.into(database, shift=shift)["listed"] == []
    assert counts(database) == [9] * 5
    assert beside.read_back(database, (shift, None)) == beside.sent()
    assert lane.read_back(database, (0, shift)) == lane.sent()


def test_whose_rows_are_there_is_told_by_runs_once_the_ledger_is_gone(database: Database) -> None:
    """The cleanup drops it. The ids of another source would meet rows that they have nothing to do with."""
    target = database.target()

    def of(lane: Lane) -> Any:
        return lambda: importing._some_runs({"columns": lane.columns, "pieces": lane.pieces}, lane.fetch)

    first = lane_of(airflow(), database)
    first.into(database)
    importing.drop(target)
    assert importing.register(target, "first", runs=of(first)) == 0  # as it was: nothing comes twice
    importing.drop(target)
    made = airflow(3)
    for table in ("dag_run", "task_instance", "xcom", "task_fail", "log"):
        made.connection.execute(f"UPDATE {table} SET dag_id = 'other'")
    second = lane_of(made, database, "b2")
    with pytest.raises(history.Unfit, match="history of another source already"):
        importing.register(target, "second", runs=of(second))
    target.rollback()
    assert importing.register(target, "second", True, of(second)) == 10**8
    assert second.into(database, "newer", 10**8)["listed"] == [] and counts(database) == [9] * 5
    importing.drop(target)
    assert importing.register(target, "second", True, of(second)) == 10**8
    assert importing.register(target, "first", True, of(first)) == 0
    assert sums(lane_of(made, database, "b3").into(database, "newer", 10**8), "inserted") == {}
    assert first.read_back(database, (0, 10**8)) == first.sent()


def test_a_column_that_the_target_lacks_is_named_and_a_text_that_is_too_long_refused(databases: Databases) -> None:
    database = databases.new("2.5.1")
    made = airflow(2, "2.11.2")
    everything = Lane(made.engine(), None)  # as if nobody had looked at the target
    everything.pieces = [one for one in everything.pieces if one["table"] != "task_instance_history"]
    answer = everything.into(database)
    assert {"table": "log", "column": "owner_display_name"} in answer["lacking"]
    assert answer["listed"] == [] and counts(database) == [2] * 5
    made.insert("log", dag_id="etl", dttm=moment(1), event="e" * 31)
    longer = lane_of(made, database, "b2")
    with pytest.raises(history.Unfit, match="log.event has 31 characters where the target takes 30, at -3"):
        longer.into(database)


def test_texts_that_postgresql_does_not_hold_are_written_as_near_as_can_be_and_listed(database: Database) -> None:
    made = airflow(2)  # in SQLite, which holds anything
    made.of_task("rendered_task_instance_fields", "etl", "load", 1, rendered_fields='{"a": [NaN, -Infinity, 1.0]}')
    made.of_task("rendered_task_instance_fields", "etl", "load", 2, rendered_fields='{"ü":  1.0}')
    made.insert("log", dag_id="etl", dttm=moment(1), event="e", extra="a\0b")
    answer = lane_of(made, database).into(database)
    assert {table: row["mended"] for table, row in answer["tables"].items() if row["mended"]} == {
        "rendered_task_instance_fields": 1,
        "log": 1,
    }
    assert {(one["table"], one["why"].split()[0]) for one in answer["listed"]} == {
        ("rendered_task_instance_fields", "rendered_fields"),
        ("log", "extra"),
    }
    assert answer["more"] == 0
    rendered = database.sql("SELECT rendered_fields FROM rendered_task_instance_fields ORDER BY run_id").split("\n")
    assert rendered == ['{"a": ["NaN", "-Infinity", 1.0]}', '{"ü":  1.0}']
    assert database.sql("SELECT extra FROM log WHERE event = 'e'") == "a\ufffdb"


def test_differences_are_named_by_key(database: Database) -> None:
    lane = lane_of(airflow(), database)
    lane.into(database)
    database.sql(
        "UPDATE task_instance SET hostname = 'x' WHERE run_id LIKE '%01-02T%';"
        "DELETE FROM xcom WHERE run_id LIKE '%01-03T%';"
        "INSERT INTO task_fail (id, dag_id, task_id, run_id, map_index) SELECT -99, dag_id, task_id, run_id, -1"
        " FROM task_instance LIMIT 1"
    )
    back, sent = lane.read_back(database), lane.sent()
    assert {table for table in sent if back[table] != sent[table]} == {"task_instance", "xcom", "task_fail"}
    day = "scheduled__2024-01-{:02d}T00:00:00.000000"
    changed = {"dag_id": "etl", "task_id": "load", "run_id": day.format(2), "map_index": "-1"}
    assert named(lane, database, "task_instance") == {"changed": [changed]}
    missing = {**changed, "run_id": day.format(3), "key": "return_value"}
    assert named(lane, database, "xcom") == {"missing": [missing]}
    run = database.sql("SELECT run_id FROM task_fail WHERE id = -99")
    assert named(lane, database, "task_fail") == {"extra": [{"id": "-99", "run_id": run}]}


def test_what_airflow_touched_since_is_told_from_what_differs(database: Database) -> None:
    lane = lane_of(airflow(), database)
    lane.into(database)
    database.sql(
        "UPDATE dag_run SET updated_at = now(), last_scheduling_decision = now();"
        "UPDATE task_instance SET updated_at = now(), try_number = 2 WHERE run_id LIKE '%01-02T%';"
        "UPDATE task_instance SET updated_at = '2000-01-01', hostname = 'x' WHERE run_id LIKE '%01-03T%'"
    )
    day = "scheduled__2024-01-{:02d}T00:00:00.000000"
    cleared = {"dag_id": "etl", "task_id": "load", "run_id": day.format(2), "map_index": "-1"}
    assert lane.read_back(database)["dag_run"] != lane.sent()["dag_run"]
    assert named(lane, database, "dag_run") == {}  # the scheduler looked at them
    assert named(lane, database, "task_instance") == {
        "touched": [cleared],
        "changed": [{**cleared, "run_id": day.format(3)}],
    }


def test_keys_are_held_in_shares(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    lane = lane_of(airflow(30), database)
    lane.into(database)
    database.sql(
        "UPDATE task_instance SET hostname = 'x'; DELETE FROM task_fail WHERE id < -10; UPDATE log SET owner = 'x'"
    )
    whole = [named(lane, database, table) for table in ("task_instance", "task_fail", "log")]
    monkeypatch.setattr(importing, "HELD", 7)
    assert [named(lane, database, table, 30) for table in ("task_instance", "task_fail", "log")] == whole
    assert [len(keys) for one in whole for keys in one.values()] == [30, 20, 30]


def named(lane: Lane, database: Database, table: str, rows: int = 0) -> dict[str, Any]:
    """The lists of differences() that are not empty."""
    pieces = [piece for piece in lane.pieces if piece["table"] == table]
    columns = lane.columns[table]
    answer = importing.differences(database.engine(), table, columns, pieces, lane.fetch, lane.dags, "etl", rows=rows)
    assert answer["more"] == 0 and answer["met"] == []
    found = {what: answer[what] for what in ("missing", "extra", "changed", "touched") if answer[what]}
    assert {what: count for what, count in answer["counts"].items() if count} == {
        what: len(keys) for what, keys in found.items()
    }
    return found
