# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An Airflow 2.10 in which things happen at random, written to its database as Airflow writes them."""

from __future__ import annotations

import datetime
import json
import pickle
import random
from collections.abc import Callable
from typing import Any

OF_TASKS = (
    "xcom",
    "rendered_task_instance_fields",
    "task_fail",
    "task_reschedule",
    "task_instance_note",
    "task_map",
    "task_instance_history",
)
DAGS = ("etl", "report", "ünicode.dag")


class MovingAirflow:
    """sql: runs a statement with ? for its values, and gives the rows."""

    def __init__(self, sql: Callable[..., list[Any]], seed: int):
        self.sql, self.dice = sql, random.Random(seed)
        self.clock, self.tries = datetime.datetime(2025, 1, 1), 0
        for dag in DAGS:
            sql("INSERT INTO dag (dag_id, is_paused) VALUES (?, ?)", dag, False)

    def now(self) -> str:
        self.clock += datetime.timedelta(seconds=self.dice.randint(1, 60))
        return self.clock.isoformat(" ", "microseconds")

    def insert(self, table: str, **values: Any) -> None:
        marks = ", ".join("?" * len(values))
        self.sql(f"INSERT INTO {table} ({', '.join(values)}) VALUES ({marks})", *values.values())

    def some_run(self, states: str = "'success', 'failed'") -> tuple[int, str, str] | None:
        rows = self.sql(f"SELECT id, dag_id, run_id FROM dag_run WHERE state IN ({states}) ORDER BY id")
        return tuple(self.dice.choice(rows)) if rows else None

    def some_task(self, run: tuple[int, str, str]) -> str | None:
        rows = self.sql("SELECT task_id FROM task_instance WHERE dag_id = ? AND run_id = ? ORDER BY task_id", *run[1:])
        return self.dice.choice(rows)[0] if rows else None

    def go(self, steps: int) -> None:
        for _step in range(steps):
            what = self.dice.choice(self.THINGS)
            what(self)

    # things that happen

    def begin_run(self) -> None:
        dag, at = self.dice.choice(DAGS), self.now()
        run_id = f"scheduled__{at}"
        self.insert(
            "dag_run",
            dag_id=dag,
            run_id=run_id,
            execution_date=at,
            state="running",
            run_type="scheduled",
            external_trigger=False,
            queued_at=at,
            start_date=at,
            clear_number=0,
            conf=pickle.dumps({"n": self.dice.random()}),
            updated_at=at,
        )
        run = self.sql("SELECT id, dag_id, run_id FROM dag_run WHERE run_id = ?", run_id)[0]
        for task in ("extract", "load", "send")[: self.dice.randint(1, 3)]:
            self.insert(
                "task_instance",
                dag_id=dag,
                task_id=task,
                run_id=run_id,
                map_index=-1,
                pool="default_pool",
                pool_slots=1,
                try_number=0,
                state="running",
                start_date=at,
                updated_at=at,
                executor_config=pickle.dumps({}),
            )
            self.push(tuple(run), task)

    def push(self, run: tuple[int, str, str], task: str) -> None:
        own = {"dag_id": run[1], "task_id": task, "run_id": run[2], "map_index": -1}
        for key in ("return_value", "k")[: self.dice.randint(0, 2)]:
            value = json.dumps(self.dice.random()).encode()
            self.insert("xcom", dag_run_id=run[0], key=key, value=value, timestamp=self.now(), **own)
        self.insert("rendered_task_instance_fields", rendered_fields=json.dumps({"x": self.dice.random()}), **own)
        if self.dice.random() < 0.3:
            self.insert("task_fail", start_date=self.now(), end_date=self.now(), duration=3, **own)

    def end_run(self) -> None:
        run = self.some_run("'running', 'queued'")
        if run is None:
            return
        tasks = self.sql(
            "SELECT task_id FROM task_instance WHERE dag_id = ? AND run_id = ? AND state IS NULL", *run[1:]
        )
        for (task,) in tasks:
            self.forget(run, task, ("xcom", "rendered_task_instance_fields"))
            self.push(run, task)
        at, ended = self.now(), self.dice.choice(["success", "failed"])
        self.sql(
            "UPDATE task_instance SET state = ?, end_date = ?, duration = ?, updated_at = ?"
            " WHERE dag_id = ? AND run_id = ? AND (state IS NULL OR state = 'running')",
            *(ended, at, self.dice.random(), at, *run[1:]),
        )
        self.sql("UPDATE dag_run SET state = ?, end_date = ?, updated_at = ? WHERE id = ?", ended, at, at, run[0])

    def clear(self) -> None:
        run = self.some_run()
        task = run and self.some_task(run)
        if not run or not task:
            return
        at = self.now()
        self.tries += 1
        self.insert(
            "task_instance_history",
            dag_id=run[1],
            task_id=task,
            run_id=run[2],
            map_index=-1,
            try_number=self.tries,
            pool="default_pool",
            pool_slots=1,
            updated_at=at,
        )
        self.sql(
            "UPDATE task_instance SET state = NULL, updated_at = ? WHERE dag_id = ? AND run_id = ? AND task_id = ?",
            *(at, *run[1:], task),
        )
        self.sql(
            "UPDATE dag_run SET state = 'queued', queued_at = ?, start_date = NULL, clear_number = clear_number + 1,"
            " updated_at = ? WHERE id = ?",
            *(at, at, run[0]),
        )

    def clear_and_end(self) -> None:
        self.clear()
        self.end_run()

    def edit_note(self) -> None:
        run = self.some_run()
        if run is None:
            return
        at = self.now()
        self.sql("UPDATE dag_run_note SET content = ?, updated_at = ? WHERE dag_run_id = ?", f"n{at}", at, run[0])
        if not self.sql("SELECT 1 FROM dag_run_note WHERE dag_run_id = ?", run[0]):
            self.insert("dag_run_note", dag_run_id=run[0], content="note", created_at=at, updated_at=at)

    def push_again(self) -> None:
        run = self.some_run()
        task = run and self.some_task(run)
        if run and task:
            self.forget(run, task, ("xcom",))
            own = {"dag_id": run[1], "task_id": task, "run_id": run[2], "map_index": -1}
            self.insert("xcom", dag_run_id=run[0], key="again", value=b"1", timestamp=self.now(), **own)

    def trim_rendered(self) -> None:
        run = self.some_run()
        if run:
            self.sql("DELETE FROM rendered_task_instance_fields WHERE dag_id = ? AND run_id = ?", *run[1:])

    def forget(self, run: tuple[int, str, str], task: str, tables: tuple[str, ...]) -> None:
        for table in tables:
            self.sql(f"DELETE FROM {table} WHERE dag_id = ? AND run_id = ? AND task_id = ?", *run[1:], task)

    def delete_task(self) -> None:
        run = self.some_run()
        task = run and self.some_task(run)
        if run and task:
            self.forget(run, task, (*OF_TASKS, "task_instance"))

    def delete_run(self) -> None:
        run = self.some_run("'success', 'failed', 'queued'")
        if run:
            for table in (*OF_TASKS, "task_instance"):
                self.sql(f"DELETE FROM {table} WHERE dag_id = ? AND run_id = ?", *run[1:])
            self.sql("DELETE FROM dag_run_note WHERE dag_run_id = ?", run[0])
            self.sql("DELETE FROM dag_run WHERE id = ?", run[0])

    def log(self) -> None:
        self.insert("log", dag_id=self.dice.choice(DAGS), dttm=self.now(), event="cli", extra="a\tb\\N\n")

    def toggle(self) -> None:
        self.sql("UPDATE dag SET is_paused = NOT is_paused WHERE dag_id = ?", self.dice.choice(DAGS))

    THINGS = (
        *(begin_run, begin_run, begin_run, end_run, end_run, end_run, log, clear, clear_and_end),
        *(edit_note, push_again, trim_rendered, delete_task, delete_run, toggle),
    )
