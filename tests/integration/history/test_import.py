# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""History of every version into the real tables of those that MWAA has had."""

from __future__ import annotations

import json
import pickle
from datetime import datetime
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from import_lane import Database, Databases, Lane
from small_airflow import SmallAirflow, moment
from test_history_export import fill

pytestmark = pytest.mark.lab

SOURCES = ("1.10.12", "1.10.15", "2.0.2", "2.2.2", "2.4.3", "2.5.1", "2.7.2", "2.9.2", "2.10.3", "2.11.2")
TARGETS = ("2.0.2", "2.2.2", "2.5.1", "2.8.1", "2.10.3", "2.11.2")


def later(source: str, target: str) -> bool:
    return [int(part) for part in source.split(".")] <= [int(part) for part in target.split(".")]


# all are for `make e2e-all`; CI has those into the oldest and the newest kind of tables
IN_CI = ("2.2.2", "2.11.2")
PAIRS = [
    pytest.param(source, target, marks=() if target in IN_CI else pytest.mark.slow)
    for source in SOURCES
    for target in TARGETS
    if later(source, target)
]


@pytest.mark.parametrize(("source", "target"), PAIRS)
def test_what_comes_out_again_is_what_went_in(databases: Databases, source: str, target: str) -> None:
    airflow = SmallAirflow(source)
    fill(airflow)
    database = databases.new(target)
    lane = Lane(airflow.engine(), database.schema())
    answer = lane.into(database)
    assert answer["left"] == [] and answer["listed"] == [] and answer["lacking"] == []
    assert lane.read_back(database) == lane.sent()


TEXTS = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0"), max_size=40)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=10,
)
ROWS = st.fixed_dictionaries(
    {
        "conf": JSON,
        "hostname": st.none() | TEXTS,
        # beyond 2**53 PostgreSQL and Python may spell the same number differently
        "duration": st.none() | st.floats(-1e15, 1e15) | st.sampled_from([float("inf"), float("-inf"), float("nan")]),
        "pid": st.none() | st.integers(-(2**31), 2**31 - 1),
        "config": JSON,
        "start": st.none() | st.datetimes(datetime(1, 1, 1), datetime(9999, 12, 31)),
        "value": st.none() | st.binary(max_size=60).filter(lambda data: data[:1] != b"\x80"),
        "rendered": JSON,
        "key": TEXTS,
        "extra": st.none() | TEXTS,
        "paused": st.booleans(),
    }
)
EMPTIED = "dag_run, task_instance, xcom, log, rendered_task_instance_fields, dataset"


@pytest.fixture(scope="module")
def reused(databases: Databases) -> Database:
    return databases.new("2.11.2")


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.lists(ROWS, min_size=1, max_size=20), direct=st.booleans())
def test_any_row_arrives_as_it_was(reused: Database, rows: list[dict[str, Any]], direct: bool) -> None:
    reused.sql(f"SET lock_timeout = '5s'; TRUNCATE {EMPTIED} CASCADE; DROP TABLE IF EXISTS mwaa_migration_ledger")
    airflow = SmallAirflow("2.10.3")
    for day, row in enumerate(rows, 1):
        start = row["start"] and row["start"].isoformat(" ", "microseconds")
        airflow.run("etl", day, conf=pickle.dumps(row["conf"]), start_date=start, external_trigger=row["paused"])
        values = {name: row[name] for name in ("hostname", "duration", "pid")}
        airflow.task("etl", "load", day, executor_config=pickle.dumps(row["config"]), start_date=start, **values)
        airflow.xcom("etl", "load", row["key"], row["value"], day)
        rendered = json.dumps(row["rendered"], ensure_ascii=False)
        airflow.of_task("rendered_task_instance_fields", "etl", "load", day, rendered_fields=rendered)
        airflow.insert("log", dag_id="etl", dttm=moment(day), event="e", extra=row["extra"])
    lane = Lane(airflow.engine(), reused.schema())
    pieces = lane.pieces if direct else [{**piece, "orphans": True} for piece in lane.pieces]  # those are staged
    answer = lane.into(reused, pieces=pieces)
    assert answer["listed"] == []
    assert lane.read_back(reused) == lane.sent()
