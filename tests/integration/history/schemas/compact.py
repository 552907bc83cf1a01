# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From `pg_dump --schema-only` of an Airflow's database to what its history needs: one statement a line.

python compact.py < dump.sql > 2.10.3.sql

Kept: the tables that history is carried in and those that they refer to, with every index, key, default and check.
The rows of log_template that a new Airflow of the version has are the last line of each, written by hand.
"""

from __future__ import annotations

import re
import sys

HISTORY = [
    "dag",
    "log_template",
    "job",
    "dataset",
    "dataset_alias",
    "dag_run",
    "dataset_event",
    "dataset_alias_dataset",
    "task_instance",
    "dag_run_note",
    "dagrun_dataset_event",
    "dataset_alias_dataset_event",
    "task_instance_history",
    "task_fail",
    "xcom",
    "rendered_task_instance_fields",
    "task_reschedule",
    "task_map",
    "task_instance_note",
    "sla_miss",
    "log",
]
SHORT = {
    "character varying": "varchar",
    "timestamp with time zone": "timestamptz",
    "double precision": "float8",
    "public.": "",
}
ABOUT = re.compile(r"(?:CREATE TABLE|ALTER TABLE ONLY|CREATE UNIQUE INDEX \S+ ON|CREATE INDEX \S+ ON) (\S+)")
SERIAL = re.compile(r"ALTER TABLE ONLY (\S+) ALTER COLUMN (\S+) SET DEFAULT nextval")


def compact(dump: str) -> str:
    lines = [line for line in dump.splitlines() if not line.startswith(("--", "\\"))]
    statements = [re.sub(r"\s+", " ", one).strip() for one in "\n".join(lines).split(";\n")]
    for long, short in SHORT.items():
        statements = [one.replace(long, short) for one in statements]
    found = [(about.group(1), one) for one in statements if (about := ABOUT.match(one))]
    tables, known = set(HISTORY), set()
    while tables != known:  # what these refer to belongs to them
        known = set(tables)
        for table, one in found:
            if table in known and (parent := re.search(r" REFERENCES (\w+)\(", one)):
                tables.add(parent.group(1))
    serial = {match.groups() for _table, one in found if (match := SERIAL.match(one))}
    kept = []
    for table, one in found:
        if table not in tables or SERIAL.match(one):
            continue
        if one.startswith("CREATE TABLE"):
            for _table, column in (pair for pair in serial if pair[0] == table):
                one = one.replace(f"( {column} integer NOT NULL", f"( {column} serial NOT NULL")
        kept.append(one.replace("( ", "(").replace(" )", ")") + ";\n")
    return "".join(kept)


if __name__ == "__main__":
    sys.stdout.write(compact(sys.stdin.read()))
