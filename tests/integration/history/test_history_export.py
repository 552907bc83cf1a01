# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""History out of a real PostgreSQL with each version's own tables and Python, held against the same rows in SQLite."""

from __future__ import annotations

import copy
import json
import pickle
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from import_lane import Databases
from mwaa_lab.airflow import install
from mwaa_lab.airflow.versions import VERSIONS
from small_airflow import KEY, SCHEMAS, Export, SmallAirflow, history, moment

ROOT = Path(__file__).parents[3]
HISTORY = ROOT / "plugins" / "agent" / "airflow_history.py"
SCRIPT = Path(__file__).parent / "on_postgres.py"

NASTY = [
    "",
    "\\N",
    "\\.",
    "a\tb\\tc",
    "line\nline\r\nline\r",
    "ü漢🎉",
    "'quoted' \"twice\" | ;",
    "\x01\x08\x0b\x0c\x1d\x7f\x85\u2028",
    " ",
]
FLOATS = [0.0, -0.0, 0.1, 1e15, 1e14, 123456789012345.6, 1e-05, 0.0001, 5e-324, 1.7976931348623157e308, 1 / 3, 1e22]
PICKLES: list[Any] = [{}, {"a": [1, 2.5, None, "ü\\"]}, {"t": (1, {2, 3}), "b": b"\x00\xff"}, {"n": float("inf")}, None]


class Source:
    """The database of one version on the lab's PostgreSQL, and the Python that reads it: the version's own, or ours."""

    def __init__(self, databases: Databases, version: str, own: bool = False):
        self.python = install.base(VERSIONS[version]) / "bin" / "python" if own else Path(sys.executable)
        self.database = databases.new(version)
        if "log_template" in SCHEMAS[version]:
            self.database.sql("delete from log_template")
        self.connection = self.database.settings

    def export(self, folder: Path, rows: list[Any] | None = None, **request: Any) -> dict[str, Any]:
        folder.mkdir(exist_ok=True)
        run = subprocess.run(
            [self.python, "-B", SCRIPT],
            input=json.dumps(
                {
                    "history": str(HISTORY),
                    "connection": self.connection,
                    "rows": rows or [],
                    "key": KEY.hex(),
                    "folder": str(folder),
                    **request,
                }
            ),
            env={"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8"},
            capture_output=True,
            text=True,
        )
        assert run.returncode == 0, run.stderr[-2000:]
        return json.loads(run.stdout)


def fill(airflow: SmallAirflow) -> None:
    """Rows with every kind of value that has gone wrong somewhere."""
    dice = random.Random(7)
    for day in range(1, 21):
        state = "success" if day % 7 else "running"
        values = {"conf": pickle.dumps(PICKLES[day % len(PICKLES)], 2 + day % 3), "queued_at": moment(day)}
        airflow.run("ünicode.dag" if day % 2 else "etl", day, state, **values)
    for day in range(1, 21):
        dag = "ünicode.dag" if day % 2 else "etl"
        for task in ("a" * 250, "b-ü"):
            airflow.task(
                dag,
                task,
                day,
                state=dice.choice(["success", "failed", None, "skipped", "deferred"]),
                duration=FLOATS[day % len(FLOATS)],
                hostname=NASTY[day % len(NASTY)],
                operator=dice.choice([None, "", "\\N"]),
                start_date=f"2024-01-{day:02d} 01:02:03.{dice.choice(['000000', '120000', '000001'])}",
                next_kwargs=dice.choice([None, '{"a": "b\\n"}', "{}"]),
                executor_config=pickle.dumps(PICKLES[day % len(PICKLES)]),
            )
            for number, text in enumerate(NASTY):
                airflow.xcom(dag, task, f"k{number}", json.dumps(text).encode(), day)
            airflow.xcom(dag, task, "bytes", bytes(range(1, 128)) + bytes(range(129, 256)), day)
            airflow.xcom(dag, task, "pickled", pickle.dumps(["ü", 1, None, {"a": float("nan")}]), day)
            airflow.of_task("task_fail", dag, task, day, duration=day, start_date=moment(day))
            airflow.of_task("rendered_task_instance_fields", dag, task, day, rendered_fields=json.dumps({"x": "ü\n"}))
            airflow.of_task(
                "task_reschedule",
                dag,
                task,
                day,
                try_number=1,
                duration=1,
                **dict.fromkeys(("start_date", "end_date", "reschedule_date"), moment(day)),
            )
            airflow.of_task("sla_miss", dag, task, day, email_sent=1, timestamp=moment(day), description=NASTY[day % 9])
    for number, text in enumerate(NASTY * 3):
        day = 1 + number % 20
        values = {"dag_id": dice.choice([None, "etl", "ünicode.dag"]), "owner": dice.choice(NASTY)}
        airflow.insert("log", dttm=moment(day), event="e", extra=text, execution_date=moment(day), **values)
        airflow.insert("job", dag_id="etl", state="success", hostname=text[:3], latest_heartbeat=moment(day))


def same_rows(airflow: SmallAirflow) -> list[Any]:
    """What SQLite holds, for PostgreSQL: parents first."""
    rows = []
    for table in history.tables_of(airflow.schema):
        names = list(airflow.schema[table])
        for row in airflow.connection.execute(f'SELECT {", ".join(map(history.name_of, names))} FROM "{table}"'):
            values = {
                name: {"hex": value.hex()} if isinstance(value, bytes) else value for name, value in zip(names, row)
            }
            rows.append([table, {name: value for name, value in values.items() if value is not None}])
    return rows


def digests(exported: dict[str, Any]) -> dict[tuple[str, str], tuple[int, int]]:
    found: dict[tuple[str, str], tuple[int, int]] = {}
    for part in exported["parts"]:
        for dag, (rows, digest) in part["digests"].items():
            count, total = found.get((part["table"], dag), (0, 0))
            found[part["table"], dag] = (count + rows, (total + int(digest, 16)) % 2**128)
    return found


SOURCES = ("1.10.12", "1.10.15", "2.0.2", "2.2.2", "2.5.1", "2.8.1", "2.10.3", "2.11.2")


@pytest.mark.parametrize(
    ("version", "own"),
    [
        *(pytest.param(version, False, marks=pytest.mark.lab) for version in SOURCES),
        *(pytest.param(version, True, marks=pytest.mark.e2e) for version in SOURCES),
    ],
)
def test_postgresql_says_the_same_as_sqlite(databases: Databases, tmp_path: Path, version: str, own: bool) -> None:
    airflow = SmallAirflow(version)
    fill(airflow)
    if "run_id" not in airflow.schema["task_instance"]:  # of before 2.2: task instances without a run
        airflow.task("etl", "alone", 28, start_date=moment(28))
        airflow.xcom("etl", "alone", "k", b"1", 28)
        airflow.task("etl", "at_work", 29, state="running")
    here = Export(airflow.engine())
    source = Source(databases, version, own)
    there = source.export(tmp_path / "pieces", same_rows(copy.copy(airflow)))
    for table, text in here.texts.items():
        assert sorted(there["texts"].get(table, "").split("\n")) == sorted(text.split("\n")), table
    assert digests(there["exported"]) == digests({"parts": here.results})
    assert there["plan"]["open"] == here.plan["open"]
    assert there["exported"]["left"] == []
    faults = [fault for part in there["exported"]["parts"] for fault in part["faults"]]
    by_key = lambda fault: json.dumps(fault, sort_keys=True)  # noqa: E731
    assert sorted(faults, key=by_key) == sorted(here.faults, key=by_key)


@pytest.fixture(scope="module")
def large(databases: Databases) -> Source:
    """5,000 task instances and everything nasty that belongs to them."""
    import history_rows

    source = Source(databases, "2.10.3")
    history_rows.fill(source.database.sql, 5000, nasty=True)
    return source


def small_parts(**more: Any) -> dict[str, Any]:
    return {"options": {"part_bytes": 1 << 19}, "texts": False, **more}


@pytest.mark.lab
def test_what_is_interrupted_is_resumed_part_by_part(large: Source, tmp_path: Path) -> None:
    whole = large.export(tmp_path / "whole", **small_parts())["exported"]
    assert whole["left"] == whole["failed"] == [] and len(whole["parts"]) > 30
    first = large.export(tmp_path / "first", **small_parts(places=9))["exported"]
    assert first["left"] and len(first["parts"]) + len(first["left"]) == len(whole["parts"])
    second = large.export(tmp_path / "second", **small_parts(parts=first["left"]))["exported"]
    assert second["left"] == []
    assert digests({"parts": first["parts"] + second["parts"]}) == digests(whole)


@pytest.mark.lab
def test_the_digest_does_not_know_how_it_was_cut(large: Source, tmp_path: Path) -> None:
    fine = large.export(tmp_path / "fine", **small_parts())["exported"]
    coarse = large.export(tmp_path / "coarse", texts=False, processes=1)["exported"]
    assert digests(fine) == digests(coarse)


@pytest.mark.lab
def test_settings_of_the_database_change_nothing(large: Source, tmp_path: Path) -> None:
    plain = large.export(tmp_path / "plain", **small_parts())
    settings = {"client_encoding": "LATIN1", "datestyle": "German", "timezone": "Asia/Tokyo", "bytea_output": "escape"}
    settings |= {"extra_float_digits": "-5", "statement_timeout": "30", "default_transaction_isolation": "serializable"}
    options = " ".join(f"-c {name}={value}" for name, value in settings.items())
    other = large.export(tmp_path / "other", **small_parts(connection={**large.connection, "options": options}))
    assert digests(other["exported"]) == digests(plain["exported"])
    assert {dag for _table, dag in digests(other["exported"])} >= {"dag_ünï漢", "dag_001"}


@pytest.mark.lab
def test_a_process_that_is_killed_leaves_its_part_and_nothing_else(large: Source, tmp_path: Path) -> None:
    killed = large.export(tmp_path / "killed", **small_parts(kill_at="piece-0004.gz"))["exported"]
    assert len(killed["left"]) == 1
    again = large.export(tmp_path / "again", **small_parts(parts=killed["left"]))["exported"]
    whole = large.export(tmp_path / "whole", **small_parts())["exported"]
    assert digests({"parts": killed["parts"] + again["parts"]}) == digests(whole)


@pytest.mark.lab
def test_what_is_nasty_arrives_whole_and_what_is_not_over_is_listed(large: Source, tmp_path: Path) -> None:
    answer = large.export(tmp_path / "pieces")
    rows: dict[str, int] = {}
    for part in answer["exported"]["parts"]:
        rows[part["table"]] = rows.get(part["table"], 0) + part["rows"]
    sql = large.database.sql
    closed = "state IN ('success', 'failed')"
    for table in ("task_instance", "xcom", "task_fail", "task_reschedule", "task_map", "task_instance_note"):
        expected = sql(f"SELECT count(*) FROM {table} JOIN dag_run r USING (dag_id, run_id) WHERE r.{closed}")
        assert rows[table] == int(expected) > 0, table
    for table in ("log", "dataset", "dataset_event", "dagrun_dataset_event", "sla_miss", "job"):
        assert rows[table] == int(sql(f"SELECT count(*) FROM {table}")) > 0, table
    assert len(answer["plan"]["open"]) == 40 and len(answer["plan"]["deferred"]) == 20
    assert [part["faults"] for part in answer["exported"]["parts"] if part["faults"]] == []
    confs = {line.rpartition("\t")[2] for line in answer["texts"]["dag_run"].split("\n")[:-1]}
    assert {str(json.loads(history.unescaped(conf))) for conf in confs - {history.NULL}} == {
        "{}",
        str({"k": "vü\n\\N\tN", "n": float("nan")}),
    }


@pytest.mark.lab
def test_memory_does_not_grow_with_rows_and_xcoms_of_10_mb(databases: Databases, tmp_path: Path) -> None:
    source = Source(databases, "2.11.2")
    source.database.sql(
        r"""
INSERT INTO dag_run (id, dag_id, run_id, execution_date, state, run_type, clear_number)
  VALUES (1, 'etl', 'r', now(), 'success', 'manual', 0);
INSERT INTO task_instance (task_id, dag_id, run_id, pool, pool_slots) VALUES ('t', 'etl', 'r', 'p', 1);
INSERT INTO xcom (dag_run_id, task_id, map_index, key, dag_id, run_id, timestamp, value)
  SELECT 1, 't', -1, 'k' || n, 'etl', 'r', now(),
    convert_to('"' || repeat(md5(n::text) || '\\\\', 262144) || '"', 'UTF8') FROM generate_series(1, 12) n;
INSERT INTO log (dttm, event, extra) SELECT now(), 'e', repeat(md5(n::text), 10) FROM generate_series(1, 100000) n"""
    )
    answer = source.export(tmp_path / "pieces", texts=False, options={"tables": ["xcom", "log"]})
    assert sum(part["rows"] for part in answer["exported"]["parts"]) == 100012
    assert sum(part["raw"] for part in answer["exported"]["parts"]) > 150 << 20
    before, parent, worker = answer["rss_kb"]
    assert max(parent, worker) - before < 64 << 10, answer["rss_kb"]
