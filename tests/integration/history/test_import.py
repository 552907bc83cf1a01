# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""History of every version into the real tables of those that MWAA has had."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from import_lane import Databases, Lane  # noqa: E402
from mwaa_lab.airflow.postgres import Postgres  # noqa: E402
from mwaa_lab.labdir import LabDir  # noqa: E402
from small_airflow import SmallAirflow  # noqa: E402
from test_history_export import fill  # noqa: E402

pytestmark = pytest.mark.lab

SOURCES = ("1.10.12", "1.10.15", "2.0.2", "2.2.2", "2.4.3", "2.5.1", "2.7.2", "2.9.2", "2.10.3", "2.11.2")
TARGETS = ("2.0.2", "2.2.2", "2.5.1", "2.8.1", "2.10.3", "2.11.2")


@pytest.fixture(scope="module")
def databases(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Databases]:
    from mwaa_lab import processes

    lab = LabDir(tmp_path_factory.mktemp("history") / "lab")
    lab.create({})
    try:
        Postgres(lab).ensure()
        yield Databases(lab)
    finally:
        processes.stop_all(lab)
        lab.remove()


def later(source: str, target: str) -> bool:
    return [int(part) for part in source.split(".")] <= [int(part) for part in target.split(".")]


PAIRS = [(source, target) for source in SOURCES for target in TARGETS if later(source, target)]


@pytest.mark.parametrize(("source", "target"), PAIRS)
def test_what_comes_out_again_is_what_went_in(databases: Databases, source: str, target: str) -> None:
    airflow = SmallAirflow(source)
    fill(airflow)
    database = databases.new(target)
    lane = Lane(airflow.engine(), database.schema())
    answer = lane.into(database)
    assert answer["left"] == [] and answer["listed"] == [] and answer["lacking"] == []
    assert lane.read_back(database) == lane.sent()
