# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The agent on Python 3.6, the oldest that Airflow ran on: it gives the digests that this Python gives."""

from __future__ import annotations

import json
import pickle
import shutil
import sqlite3
import subprocess
from pathlib import Path

import pytest
from small_airflow import KEY, ROOT, Export, SmallAirflow

SCRIPT = """
import json, sqlite3, sys
sys.path.insert(0, sys.argv[1])
import airflow_history as history
connect = lambda _snapshot: history.Engine("sqlite", sqlite3.connect(sys.argv[2]))
plan, places, bodies = history.make_plan(connect(None)), [{"path": str(n)} for n in range(99)], []
answer = history.export_parts(
    connect, plan["parts"], plan["scope"], sys.argv[3].encode(), places, lambda place, body: bodies.append(body)
)
delta = history.make_plan(connect(None), after=plan["mark"])
print(json.dumps({"parts": answer["parts"], "left": answer["left"], "delta": [delta["delta"], delta["deleted"]]}))
"""


def python() -> str | None:
    """pyenv's python3.6 on the PATH may be one that says that there are others."""
    here = [*(Path.home() / ".pyenv" / "versions").glob("3.6.*/bin/python"), shutil.which("python3.6")]
    return next(
        (str(one) for one in here if one and subprocess.run([one, "-V"], capture_output=True, check=False).stdout), None
    )


PYTHON = python()


@pytest.mark.skipif(not PYTHON, reason="there is no Python 3.6 here")
@pytest.mark.parametrize("version", ["1.10.12", "2.2.2"])
def test_an_old_python_reads_what_this_one_reads(tmp_path: Path, version: str) -> None:
    airflow = SmallAirflow(version)
    for day in (1, 2):
        airflow.run("etl", day, conf=pickle.dumps({"day": (day, {1.5, 2.5})}, 2))
        airflow.task("etl", "load", day, duration=1e17 + day)
        airflow.xcom("etl", "load", "k", pickle.dumps(["ü", day], 3), day)
    airflow.task("ghost", "load", 3)
    with sqlite3.connect(tmp_path / "airflow.db") as file:
        airflow.connection.backup(file)
    words = [str(PYTHON), "-c", SCRIPT, str(ROOT / "plugins" / "agent"), str(tmp_path / "airflow.db"), KEY.decode()]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert answer["left"] == [] and answer["delta"] == [True, {"tables": {}, "rows": {}, "more": 0}]
    here = Export(airflow.engine())
    assert [part["digests"] for part in answer["parts"]] == [result["digests"] for result in here.results]
