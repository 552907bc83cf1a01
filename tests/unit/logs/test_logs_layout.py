# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whose a log is, and where the target's Airflow looks for it."""

from __future__ import annotations

import re

import pytest
from ansible_collections.mwaa.migration.plugins.module_utils._logs.layout import (
    Attempt,
    Dated,
    archive_path,
    index_path,
    keeps_templates,
    parse,
    path_of,
    stream_of,
    unfit,
)

RUN = "manual__2024-01-02T03:04:05.678901+00:00"
LOAD = Attempt("etl", RUN, "load", attempt=2)
MAPPED = Attempt("etl", RUN, "load", 7, 3)


def test_airflows_own_names_are_read_back() -> None:
    for attempt in (LOAD, MAPPED, LOAD._replace(suffix=".trigger.12.log"), Attempt("ü.d-1", "a b", "g.t")):
        assert parse(path_of(attempt)) == attempt
    assert path_of(MAPPED) == f"dag_id=etl/run_id={RUN}/task_id=load/map_index=7/attempt=3.log"


@pytest.mark.parametrize("date", ["2024-01-02T03:04:05+00:00", "2024-01-02T03:04:05.678901+00:00"])
def test_the_old_layout_names_a_date_in_folders_and_in_streams(date: str) -> None:
    assert parse(f"etl/load/{date}/2.log") == Dated("etl", date, "load", 2)
    assert parse(f"etl/load/{date}/2.log".replace(":", "_")) == Dated("etl", date, "load", 2)


@pytest.mark.parametrize(
    "path", ["scheduler/latest", "etl/load/2.log", "dag_processor_manager/x.log", "", "etl/load/x/1.log"]
)
def test_other_files_are_nobodys(path: str) -> None:
    assert parse(path) is None


@pytest.mark.parametrize("version", ["2.4.3", "2.5.1", "2.10.3", "2.11.2", "3.2.1"])
def test_new_targets_look_by_run_and_attempt(version: str) -> None:
    name = "dag_id=etl/run_id=manual__2024-01-02T03_04_05.678901+00_00/task_id=load/attempt=2.log"
    assert stream_of(LOAD, version, date="2024-01-02T03:04:05+00:00") == name


@pytest.mark.parametrize("version", ["1.10.12", "2.0.2", "2.2.2"])
def test_old_targets_look_by_date(version: str) -> None:
    assert stream_of(LOAD, version, date="2024-01-02T03:04:05+00:00") == "etl/load/2024-01-02T03_04_05+00_00/2.log"


def test_a_run_keeps_the_template_that_its_history_brings() -> None:
    assert stream_of(LOAD, "2.11.2", own="team/etl/2024-01-02T03:04/2.txt") == "team/etl/2024-01-02T03_04/2.txt"


@pytest.mark.parametrize(
    ("version", "kept"),
    [("2.2.2", False), ("2.4.3", True), ("2.10.3", True), ("2.11.0", True), ("2.11.2", False), ("3.2.1", True)],
)
def test_2_11_1_looks_by_the_configured_template_alone(version: str, kept: bool) -> None:
    """DagRun.get_log_template of each version."""
    assert keeps_templates(version, {}) is kept
    assert keeps_templates("2.11.2", {"logging.use_historical_filename_templates": "True"})


def test_what_cloudwatch_takes_as_a_name() -> None:
    assert unfit(stream_of(LOAD, "2.11.2")) is None
    assert "512" in str(unfit("x" * 513)) and "*" in str(unfit("a*b"))


def test_the_archive_has_one_object_a_log_whatever_the_ids() -> None:
    assert archive_path(LOAD) == f"dag_id=etl/run_id={RUN}/task_id=load/attempt=2.log.gz"
    odd = Attempt("a", "../../x/task_id=y", "t\n%")
    assert archive_path(odd) == "dag_id=a/run_id=..%2F..%2Fx%2Ftask_id=y/task_id=t%0A%25/attempt=1.log.gz"
    assert index_path("a/b") == "index/dag_id=a%2Fb.jsonl"


def test_a_key_that_s3_would_not_take_has_a_digest_in_the_place_of_its_ids() -> None:
    long = LOAD._replace(dag_id="日" * 120, run_id="月" * 120, task_id="年" * 80)
    path, prefix = archive_path(long), "p" * 100
    assert "dag_id=" in path and 900 < len(path.encode()) <= 1024  # it fits, but not below a prefix
    shorter, other = (archive_path(one, prefix) for one in (long, long._replace(attempt=3)))
    assert re.fullmatch("long/[0-9a-f]{64}[.]log[.]gz", shorter) and shorter != other
    assert archive_path(LOAD, prefix) == archive_path(LOAD)
    assert re.fullmatch("index/long-[0-9a-f]{64}[.]jsonl", index_path("日" * 340))
