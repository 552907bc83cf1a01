# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An Airflow's metadata database in memory: the tables of a version, and a few rows in its own spelling."""

from __future__ import annotations

import importlib.util
import json
import pickle
import sqlite3
import zlib
from pathlib import Path
from types import ModuleType
from typing import Any

ROOT = Path(__file__).parents[3]
SCHEMA_FILE = ROOT / "plugins" / "module_utils" / "_history" / "schemas.json"
KEY = b"k" * 32


def load() -> ModuleType:
    path = ROOT / "plugins" / "agent" / "airflow_history.py"
    spec = importlib.util.spec_from_file_location("tested_airflow_history", path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


history = load()


def schemas() -> dict[str, dict[str, dict[str, str]]]:
    """{version: {table: {column: PostgreSQL's type}}}, oldest first ("as before" in the file: nothing changed)."""
    found: dict[str, Any] = {}
    before: dict[str, Any] = {}
    for version, tables in json.loads(SCHEMA_FILE.read_text()).items():
        before = {name: before[name] if columns == "as before" else columns for name, columns in tables.items()}
        found[version] = before
    return found


SCHEMAS = schemas()
VERSIONS = list(SCHEMAS)
BLOBS = ("bytea",)


class SmallAirflow:
    """`run` and `task` know how the version spells what they are told; `insert` takes columns as they are."""

    def __init__(self, version: str):
        self.version, self.schema = version, SCHEMAS[version]
        self.connection = sqlite3.connect(":memory:", check_same_thread=False)
        for table, columns in self.schema.items():
            kinds = {"bytea": "BLOB", "double precision": "FLOAT", "integer": "INTEGER", "boolean": "BOOLEAN"}
            spelled = ", ".join(
                f'"{column}" {"INTEGER PRIMARY KEY" if column == "id" else kinds.get(kind, "TEXT")}'
                for column, kind in columns.items()
            )
            self.connection.execute(f'CREATE TABLE "{table}" ({spelled})')
        self.connection.commit()

    def insert(self, table: str, **values: Any) -> int:
        columns = {name: value for name, value in values.items() if name in self.schema[table]}
        names = ", ".join(f'"{name}"' for name in columns)
        marks = ", ".join("?" for _name in columns)
        cursor = self.connection.execute(f'INSERT INTO "{table}" ({names}) VALUES ({marks})', list(columns.values()))
        self.connection.commit()
        return int(cursor.lastrowid or 0)

    def run(self, dag_id: str, day: int = 1, state: str | None = "success", **values: Any) -> int:
        at = moment(day)
        return self.insert(
            "dag_run",
            **{
                "dag_id": dag_id,
                "run_id": f"scheduled__{at.replace(' ', 'T')}",
                "execution_date": at,
                "state": state,
                "run_type": "scheduled",
                "external_trigger": 0,
                "start_date": at,
                "end_date": at if state in ("success", "failed") else None,
                "clear_number": 0,
                "conf": pickle.dumps({}),
                **values,
            },
        )

    def of_task(self, table: str, dag_id: str, task_id: str, day: int = 1, **values: Any) -> int:
        at = moment(day)
        run = self.connection.execute(
            "SELECT id, run_id FROM dag_run WHERE dag_id = ? AND execution_date = ?", (dag_id, at)
        ).fetchone() or (None, None)
        return self.insert(
            table,
            **{
                "dag_id": dag_id,
                "task_id": task_id,
                "run_id": run[1],
                "dag_run_id": run[0],
                "execution_date": at,
                "map_index": -1,
                **values,
            },
        )

    def task(self, dag_id: str, task_id: str, day: int = 1, state: str | None = "success", **values: Any) -> int:
        filled = {
            "state": state,
            "try_number": 1,
            "max_tries": 0,
            "duration": 1.5,
            "pool": "default_pool",
            "pool_slots": 1,
            "executor_config": pickle.dumps({}),
        }
        return self.of_task("task_instance", dag_id, task_id, day, **{**filled, **values})

    def xcom(self, dag_id: str, task_id: str, key: str, value: bytes, day: int = 1, **values: Any) -> int:
        return self.of_task("xcom", dag_id, task_id, day, key=key, value=value, timestamp=moment(day), **values)

    def engine(self) -> Any:
        return history.Engine("sqlite", self.connection)


def moment(day: int) -> str:
    return f"2024-01-{day:02d} 00:00:00.000000"


class Pieces:
    """A sink that keeps what it gets."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []

    def __call__(self, body: bytes, _rows: int, _raw: int) -> None:
        self.bodies.append(body)


class Export:
    """Everything that a plan of this engine carries."""

    def __init__(self, engine: Any, **options: Any):
        self.plan = history.make_plan(engine, **options)
        self.texts: dict[str, str] = {}
        self.results: list[dict[str, Any]] = []
        for part in self.plan["parts"]:
            pieces = Pieces()
            result = history.export_part(engine, part, self.plan["scope"], KEY, pieces)
            self.results.append({**result, "table": part["table"]})
            text = b"".join(zlib.decompress(piece, 31) for piece in pieces.bodies).decode("utf-8", "surrogatepass")
            self.texts[part["table"]] = self.texts.get(part["table"], "") + text

    def rows(self, table: str) -> list[dict[str, str | None]]:
        names = [name for name, _kind in self.plan["columns"][table]]
        return [
            dict(zip(names, map(history.unescaped, line.split("\t")))) for line in self.texts[table].split("\n")[:-1]
        ]

    def digests(self, table: str) -> dict[str, list[Any]]:
        found: dict[str, list[Any]] = {}
        for result in self.results:
            if result["table"] == table:
                for dag, (rows, digest) in result["digests"].items():
                    count, total = found.get(dag, [0, "0"])
                    found[dag] = [count + rows, f"{(int(total, 16) + int(digest, 16)) % 2**128:032x}"]
        return found

    @property
    def faults(self) -> list[dict[str, Any]]:
        return [fault for result in self.results for fault in result["faults"]]
