# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a source and a target hold, row by row, by SQL of its own: a second opinion that uses nothing of the agent.

Rows are named by what does not change on the way (DAG, run, task, URI, numbers of jobs), so that the two are equal when
every row arrived once and as it was.
"""

from __future__ import annotations

import pickle
from typing import Any

import psycopg2.extensions

RUN = "JOIN dag_run r ON r.dag_id = t.dag_id AND r.run_id = t.run_id"
BY_ID = "JOIN dag_run r ON r.id = t.dag_run_id"
# table: joins, what stands for the references, whether it belongs to runs
TABLES = {
    "job": ("", "", False),
    "dag_run": ("", "@t.creating_job_id", True),
    "task_instance": (RUN, "@t.job_id @t.queued_by_job_id", True),
    "task_instance_history": (RUN, "@t.job_id @t.queued_by_job_id", True),
    "task_fail": (RUN, "", True),
    "xcom": (BY_ID, "r.dag_id r.run_id", True),
    "rendered_task_instance_fields": (RUN, "", True),
    "task_reschedule": (RUN, "", True),
    "task_map": (RUN, "", True),
    "task_instance_note": (RUN, "", True),
    "dag_run_note": (BY_ID, "r.dag_id r.run_id", True),
    "sla_miss": ("", "", False),
    "log": ("", "", False),
    "dataset": ("", "", False),
    "dataset_event": ("JOIN dataset d ON d.id = t.dataset_id", "d.uri", False),
    "dagrun_dataset_event": (
        f"{BY_ID} JOIN dataset_event e ON e.id = t.event_id JOIN dataset d ON d.id = e.dataset_id",
        "r.dag_id r.run_id d.uri e.timestamp",
        True,
    ),
}
# surrogates, and what a target has no use for
LEFT_OUT = [
    "id",
    "dag_run_id",
    "dataset_id",
    "event_id",
    "creating_job_id",
    "job_id",
    "queued_by_job_id",
    "log_template_id",
    "user_id",
    "trigger_id",
    "trigger_timeout",
]
CLOSED = (
    "{run}.state IN ('success', 'failed') AND NOT EXISTS (SELECT 1 FROM task_instance o WHERE o.dag_id = {run}.dag_id"
    " AND o.run_id = {run}.run_id AND o.state IN ('running', 'restarting', 'queued'))"
)
PICKLED = ("conf", "executor_config")


def contents(connection: Any, source: bool, imported: bool = False) -> dict[str, list[str]]:
    """{table: its rows as text, in order}. source: only what is carried, references as the target has them.

    imported: only rows of negative number, or of a run that has one: a target's own are left out.
    """
    found = {}
    psycopg2.extensions.register_type(psycopg2.extensions.UNICODE, connection)
    with connection.cursor() as cursor:
        cursor.execute("SET TIME ZONE 'UTC'; SET extra_float_digits = 1; SET bytea_output = 'hex'")
        for table, (joins, extras, of_run) in TABLES.items():
            names = columns_of(cursor, table)
            selected = [f"t.{name}" for name in names]
            for extra in extras.split():
                selected.append(f"{'-' if source else ''}{extra[1:]}" if extra.startswith("@") else extra)
            where = CLOSED.format(run="t" if table == "dag_run" else "r") if of_run and source else "true"
            if table == "job" and source:
                where = "t.state IS DISTINCT FROM 'running'"
            if imported and table != "sla_miss":
                where = "r.id < 0" if of_run and table != "dag_run" else "t.id < 0"
            texts = [one if one[2:] in PICKLED else f"({one})::text" for one in selected]
            cursor.execute(f"SELECT {', '.join(texts)} FROM {table} t {joins} WHERE {where}")
            rows = []
            for row in cursor.fetchall():
                values = [
                    repr(pickle.loads(value)) if isinstance(value, memoryview) else value  # noqa: S301 - made by us
                    for value in row
                ]
                rows.append(repr(values))
            found[table] = sorted(rows)
    connection.rollback()
    return found


def columns_of(cursor: Any, table: str) -> list[str]:
    """Those that are compared, in the order of their names."""
    cursor.execute(
        "SELECT column_name FROM information_schema.columns WHERE table_schema = 'public' AND table_name = %s",
        (table,),
    )
    return sorted(name for (name,) in cursor.fetchall() if name not in LEFT_OUT)


def differences(first: dict[str, list[str]], second: dict[str, list[str]]) -> dict[str, dict[str, list[str]]]:
    """{table: {"missing": rows of the first alone, "extra": of the second alone}}, three of each; {} when equal."""
    found = {}
    for table in first:
        if first[table] != second[table]:
            here, there = set(first[table]), set(second[table])
            found[table] = {
                "rows": [str(len(first[table])), str(len(second[table]))],
                "missing": sorted(here - there)[:3],
                "extra": sorted(there - here)[:3],
            }
    return found
