# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Run history out of an Airflow's database: one canonical line a row, whatever the engine and the version.

The second file of the agent, handed over together with airflow_agent.py, which calls it (`operate`) and gives itself
along: errors, versions and the way in are the agent's. Python 3.6 syntax, the standard library and what every Airflow
ships.

A line is a row in PostgreSQL's COPY text format, columns in the order of TABLES: first surrogate ids and references to
them, negated (they never meet what the target's own sequences give, and are the same in every delta), then dag_id (or
what stands for it), then the rest; a pickle or an XCom's value comes last. Times are UTC, microseconds without trailing
zeros; floats the shortest text that reads back equal; pickles are plain JSON (see `plain`). The digest of a table and
DAG is the number of its lines and the sum modulo 2**128 of a keyed hash of each, without the surrogate ids: the same
rows give the same digest on every engine and version, in any order.
"""

import array
import base64
import bisect
import datetime
import fnmatch
import fractions
import hashlib
import io
import json
import math
import os
import pickletools
import re
import resource
import select
import struct
import sys
import threading
import time
import zlib

# ------------------------------------------------------------------------------------------------- what is carried
#
# One line a column: name, kind, the version that brought it (nothing: 1.10.12), and after = what stands for it where
# the source has none (nothing: NULL). Kinds:
#   id    the row's own surrogate: negated, not digested
#   ref   a reference to a surrogate: negated, not digested
#   text, int, bool, float, json, time
#   value bytes, in the escapes of bytea (an XCom's value; pickled ones become JSON)
#   plain a pickle, as JSON
# A name with a dot is a column of a join (r: the row's run); name=alias.column where it is not called as it is there.
# unit: run (dag_run itself), of_run (belongs to one), own (stands alone, cut by its id), whole (never cut)
# key: the natural key. phase: rows of a phase refer to earlier phases only. dag: the column that names the DAG.
# at: the column that says how old a row of unit own or whole is.

TABLES = {}


def _table(name, phase, unit, key, columns, dag="dag_id", at=None, joins="", where=""):
    found = []
    for line in filter(str.strip, columns.splitlines()):
        words, _sign, default = line.strip().partition(" = ")
        words = words.split()
        canonical, _sign, source = words[0].rpartition("=")
        found.append(
            {
                "name": canonical or source.rpartition(".")[2],
                "source": source,
                "kind": words[1],
                "since": words[2] if len(words) > 2 else "1.10",
                "default": default.strip() or None,
            }
        )
    TABLES[name] = {
        "name": name,
        "phase": phase,
        "unit": unit,
        "key": tuple(key.split()),
        "columns": tuple(found),
        "dag": dag,
        "at": at,
        "joins": joins,
        "where": where,
    }


_table(
    "dag",
    0,
    "whole",
    "dag_id",
    """
    dag_id      text
    is_paused   bool
    """,
)
_table(
    "log_template",
    0,
    "whole",
    "filename elasticsearch_id",
    """
    id                id    2.3
    filename          text  2.3
    elasticsearch_id  text  2.3
    created_at        time  2.3
    """,
    dag=None,
)
_table(
    "job",
    0,
    "own",
    "id",
    """
    id                id
    dag_id            text
    state             text
    job_type          text
    start_date        time
    end_date          time
    latest_heartbeat  time
    executor_class    text
    hostname          text
    unixname          text
    """,
    at="latest_heartbeat",
    # those that run are the source's own; on a target Airflow would take them for dead ones and clean up after them
    where="(t.state IS NULL OR t.state NOT IN ('running', 'restarting'))",
)
_table(
    "dataset",
    0,
    "own",
    "uri",
    """
    id           id    2.4
    uri          text  2.4
    extra        json  2.4
    created_at   time  2.4
    updated_at   time  2.4
    is_orphaned  bool  2.5 = 'f'
    """,
    dag=None,
)
_table(
    "dataset_alias",
    0,
    "own",
    "name",
    """
    id    id    2.10
    name  text  2.10
    """,
    dag=None,
)
_table(
    "dag_run",
    1,
    "run",
    "dag_id run_id",
    """
    id                        id
    creating_job_id           ref   2.0
    log_template_id           ref   2.3
    dag_id                    text
    run_id                    text
    execution_date            time
    state                     text
    run_type                  text  2.0 = run_type
    external_trigger          bool
    queued_at                 time  2.1
    start_date                time
    end_date                  time
    data_interval_start       time  2.2
    data_interval_end         time  2.2
    last_scheduling_decision  time  2.0
    dag_hash                  text  2.0
    clear_number              int   2.8 = 0
    updated_at                time  2.5
    conf                      plain
    """,
)
_INSTANCE = """
    job_id                ref
    queued_by_job_id      ref    2.0
    dag_id                text
    task_id               text
    run_id                text   2.2 = run_id
    map_index             int    2.3 = -1
    try_number            int
    max_tries             int
    state                 text
    start_date            time
    end_date              time
    duration              float
    hostname              text
    unixname              text
    pool                  text
    pool_slots            int    1.10 = 1
    queue                 text
    priority_weight       int
    operator              text
    custom_operator_name  text   2.7
    queued_dttm           time
    pid                   int
    external_executor_id  text   2.0
    executor              text   2.10
    rendered_map_index    text   2.9
    task_display_name     text   2.9
    next_method           text   2.2
    next_kwargs           json   2.2
    updated_at            time   2.5
    executor_config       plain
    """
_table("task_instance", 2, "of_run", "dag_id task_id run_id map_index", _INSTANCE)
_table(
    "task_instance_history",
    3,
    "of_run",
    "dag_id task_id run_id map_index try_number",
    "id id 2.10\n" + _INSTANCE,
)
_table(
    "task_fail",
    3,
    "of_run",
    "id",
    """
    id          id
    dag_id      text
    task_id     text
    run_id      text  2.3 = run_id
    map_index   int   2.3 = -1
    start_date  time
    end_date    time
    duration    int
    """,
)
_table(
    "xcom",
    3,
    "of_run",
    "dag_id task_id run_id map_index key",
    """
    dag_run_id=r.id  ref   1.10
    dag_id           text
    task_id          text
    run_id           text  2.3 = run_id
    map_index        int   2.3 = -1
    key              text  1.10 = ''
    timestamp        time
    value            value
    """,
)
_table(
    "rendered_task_instance_fields",
    3,
    "of_run",
    "dag_id task_id run_id map_index",
    """
    dag_id           text
    task_id          text
    run_id           text  2.3 = run_id
    map_index        int   2.3 = -1
    rendered_fields  json
    k8s_pod_yaml     json  2.0
    """,
)
_table(
    "task_reschedule",
    3,
    "of_run",
    "id",
    """
    id               id
    dag_id           text
    task_id          text
    run_id           text  2.2 = run_id
    map_index        int   2.3 = -1
    try_number       int
    start_date       time
    end_date         time
    duration         int
    reschedule_date  time
    """,
)
_table(
    "task_map",
    3,
    "of_run",
    "dag_id task_id run_id map_index",
    """
    dag_id     text  2.3
    task_id    text  2.3
    run_id     text  2.3
    map_index  int   2.3
    length     int   2.3
    keys       json  2.3
    """,
)
_table(
    "dag_run_note",
    2,
    "of_run",
    "dag_id run_id",
    """
    dag_run_id  ref   2.5
    r.dag_id    text  2.5
    r.run_id    text  2.5
    content     text  2.5
    created_at  time  2.5
    updated_at  time  2.5
    """,
)
_table(
    "task_instance_note",
    3,
    "of_run",
    "dag_id task_id run_id map_index",
    """
    dag_id      text  2.5
    task_id     text  2.5
    run_id      text  2.5
    map_index   int   2.5
    content     text  2.5
    created_at  time  2.5
    updated_at  time  2.5
    """,
)
_table(
    "sla_miss",
    3,
    "whole",
    "task_id dag_id execution_date",
    """
    dag_id             text
    task_id            text
    execution_date     time
    email_sent         bool
    timestamp          time
    description        text
    notification_sent  bool
    """,
    at="execution_date",
)
_table(
    "log",
    3,
    "own",
    "id",
    """
    id                  id
    dag_id              text
    dttm                time
    task_id             text
    run_id              text  2.9
    map_index           int   2.3
    try_number          int   2.10
    event               text
    execution_date      time
    owner               text
    owner_display_name  text  2.8
    extra               text
    """,
    at="dttm",
)
_table(
    "dataset_event",
    1,
    "own",
    "id",
    """
    id                id    2.4
    dataset_id        ref   2.4
    source_dag_id     text  2.4
    d.uri             text  2.4
    source_task_id    text  2.4
    source_run_id     text  2.4
    source_map_index  int   2.4
    timestamp         time  2.4
    extra             json  2.4
    """,
    dag="source_dag_id",
    at="timestamp",
    joins="LEFT JOIN dataset d ON d.id = t.dataset_id",
)
_table(
    "dagrun_dataset_event",
    2,
    "of_run",
    "dag_run_id event_id",
    """
    dag_run_id    ref   2.4
    event_id      ref   2.4
    r.dag_id      text  2.4
    r.run_id      text  2.4
    d.uri         text  2.4
    e.timestamp   time  2.4
    """,
    joins="LEFT JOIN dataset_event e ON e.id = t.event_id LEFT JOIN dataset d ON d.id = e.dataset_id",
)
_table(
    "dataset_alias_dataset",
    1,
    "whole",
    "name uri",
    """
    alias_id    ref   2.10
    dataset_id  ref   2.10
    a.name      text  2.10
    d.uri       text  2.10
    """,
    dag=None,
    joins="LEFT JOIN dataset_alias a ON a.id = t.alias_id LEFT JOIN dataset d ON d.id = t.dataset_id",
)
_table(
    "dataset_alias_dataset_event",
    2,
    "whole",
    "alias_id event_id",
    """
    alias_id     ref   2.10
    event_id     ref   2.10
    e.source_dag_id  text  2.10
    a.name       text  2.10
    d.uri        text  2.10
    e.timestamp  time  2.10
    """,
    dag="source_dag_id",
    joins="LEFT JOIN dataset_alias a ON a.id = t.alias_id LEFT JOIN dataset_event e ON e.id = t.event_id"
    " LEFT JOIN dataset d ON d.id = e.dataset_id",
)

# columns of those tables that no line has, and why: a plan says it where they hold something
LEFT_OUT = {
    "task_instance": {
        "trigger_id": "triggers live at the source: a deferred task has nothing to wait for elsewhere",
        "trigger_timeout": "without its trigger the target's scheduler would fail the task when it is over",
    },
    "dag_run_note": {"user_id": "users are not carried"},
    "task_instance_note": {"user_id": "users are not carried"},
}
LEFT_OUT["task_instance_history"] = LEFT_OUT["task_instance"]

TERMINAL = ("success", "failed")
# a task instance in one of these makes its run an open one, whatever the run's own state: a target's scheduler would
# take it for a dead task
IN_FLIGHT = ("running", "restarting", "queued")
# what a target's runs are never mixed up with: our own DAGs, and those of AWS's and others' migration tools
OWN_DAGS = (
    "mwaa_agent*",
    "db_export",
    "db_import",
    "backup_metadata",
    "restore_metadata",
    "cleanup_metadata",
    "mwaa_export_data",
    "mwaa_import_data",
)

PIECE = 8 << 20  # bytes of a finished object
BATCH = 1 << 18  # bytes of lines that are hashed and compressed at once
PART = 128 << 20  # bytes of a table in one part, about
LISTED = 1000  # entries of a kind that an answer names; the rest is counted


def columns_of(name, schema, omit=()):
    """The columns of this table's lines at a source with this schema, in the order of the line. omit: names that the
    target lacks. What the source lacks is there all the same, as its default.
    """
    columns = [column for column in TABLES[name]["columns"] if column["name"] not in omit]
    first = [column for column in columns if column["kind"] in ("id", "ref")]
    last = [column for column in columns if column["kind"] in ("value", "plain")]
    dag = [column for column in columns if column["name"] == TABLES[name]["dag"]]
    rest = [column for column in columns if column not in first + dag + last]
    return first + dag + rest + last


def tables_of(schema):
    """The tables that this source has, parents first."""
    names = [name for name in TABLES if name in schema]
    return sorted(names, key=lambda name: (TABLES[name]["phase"], list(TABLES).index(name)))


def losses(source, target):
    """[{"table", "column" or None, "why"}]: what the source's schema has and the target's cannot hold, table by table.

    source, target: {table: {column: type}}, as `schema` reads them.
    """
    found = []
    for name in tables_of(source):
        if name not in target:
            found.append({"table": name, "column": None, "why": "the target has no such table"})
            continue
        for column in TABLES[name]["columns"]:
            if "." in column["source"] or column["name"] not in source[name] or _is_link(name, column["name"], target):
                continue
            if column["name"] not in target[name]:
                found.append({"table": name, "column": column["name"], "why": "the target has no such column"})
        for column, why in sorted(LEFT_OUT.get(name, {}).items()):
            if column in source[name]:
                found.append({"table": name, "column": column, "why": why})
    return found


def omitted(target):
    """{table: [columns]} that lines for a target with this schema leave out, whatever the source has."""
    out = {}
    for name in tables_of(target):
        for column in TABLES[name]["columns"]:
            if "." not in column["source"] and column["name"] not in target[name]:
                if not _is_link(name, column["name"], target):
                    out.setdefault(name, []).append(column["name"])
    return out


def _is_link(table, column, target):
    """Whether a target of before 2.2 (2.3) finds the row's run by its execution_date instead."""
    own = {one["source"] for one in TABLES[table]["columns"]}
    return column == "run_id" and "execution_date" in target[table] and "execution_date" not in own


# ---------------------------------------------------------------------------------------------------------- engines


class Engine(object):
    """One DB-API connection inside one read-only snapshot.

    name: postgresql, mysql or sqlite (as SQLAlchemy says). snapshot: the id of another connection's snapshot to look
    at (PostgreSQL). writable: it may make temporary tables (PostgreSQL).
    """

    def __init__(self, name, connection, snapshot=None, search_path=None, writable=False):
        self.name, self.connection, self.writable = name, connection, writable
        begin = getattr(self, "_begin_" + name, None)
        if begin is None:
            raise Unfit("the metadata database is %s: history is read from PostgreSQL, MySQL and SQLite" % name)
        self.version, self.search_path = 0, search_path
        begin(snapshot)
        self.schema = self._schema()

    def _begin_postgresql(self, snapshot=None):
        self.connection.rollback()
        self.connection.set_client_encoding("UTF8")
        self.connection.set_session(isolation_level="REPEATABLE READ", readonly=not self.writable, autocommit=False)
        self.version = self.connection.server_version
        self.rows("SET LOCAL statement_timeout = 0")
        if snapshot:
            self.rows("SET TRANSACTION SNAPSHOT %s" % literal(snapshot))
        settings = {
            "TimeZone": "UTC",
            "DateStyle": "ISO, YMD",
            "IntervalStyle": "postgres",
            # before 12 the shortest text is not what the server prints: exact digits, made shorter in `_Lines`
            "extra_float_digits": "1" if self.version >= 120000 else "3",
            "idle_in_transaction_session_timeout": "0",
            "transaction_timeout": "0",  # since 17
            # the source has other work to do
            "max_parallel_workers_per_gather": "0",
        }
        if self.search_path:
            settings["search_path"] = self.search_path
        known = {row[0].lower(): row[1] for row in self.rows("SELECT name, setting FROM pg_settings")}
        if int(known["work_mem"]) < 32768:  # runs are hashed
            settings["work_mem"] = "32MB"
        for setting in sorted(settings):
            if setting.lower() in known:
                self.rows("SELECT set_config(%s, %s, true)" % (literal(setting), literal(settings[setting])))

    def _begin_mysql(self, _snapshot):
        # SET NAMES alone leaves the driver with the letters of Airflow's own connection. These are of MySQLdb and
        # PyMySQL, of PyMySQL before 1.1, and of mysql.connector.
        for name in ("set_character_set", "set_charset", "set_charset_collation"):
            if hasattr(self.connection, name):
                getattr(self.connection, name)("utf8mb4")
                break
        # MySQL's and MariaDB's own, each unknown to the other
        limits = ("max_execution_time", "max_statement_time")
        rows = self.rows("SHOW SESSION VARIABLES WHERE Variable_name IN (%s)" % ", ".join(map(literal, limits)))
        for statement in ["SET SESSION %s = 0" % _str(row[0]) for row in rows] + [
            "SET SESSION sql_mode = 'ANSI_QUOTES,NO_BACKSLASH_ESCAPES'",
            "SET SESSION time_zone = '+00:00'",
            "SET NAMES utf8mb4",
            "SET SESSION net_write_timeout = 3600",
            "SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ",
            "START TRANSACTION WITH CONSISTENT SNAPSHOT",
        ]:
            self.rows(statement)

    def _begin_sqlite(self, _snapshot):
        self.connection.isolation_level = None
        if not getattr(self.connection, "in_transaction", False):
            self.rows("BEGIN")
        self.rows("SELECT count(*) FROM sqlite_master")  # the snapshot begins with the first reading

    def rows(self, statement):
        cursor = self.connection.cursor()
        try:
            cursor.execute(statement)
            return list(cursor.fetchall()) if cursor.description else []
        finally:
            cursor.close()

    def stream(self, statement):
        """Rows one by one, without holding the result: by a server-side cursor where the driver has one."""
        factory = None
        if self.name == "mysql":
            module = type(self.connection).__module__.split(".")[0]
            try:
                factory = __import__(module + ".cursors", fromlist=["SSCursor"]).SSCursor
            except (ImportError, AttributeError):  # mysql.connector streams by itself
                factory = None
        cursor = self.connection.cursor(factory) if factory else self.connection.cursor()
        try:
            cursor.execute(statement)
            yield from cursor  # a row may hold 10 MB
        finally:
            cursor.close()

    def each(self, statement, take):
        """take(integers of a row), row by row, without holding the result."""
        if self.name != "postgresql":
            for row in self.stream(statement):
                take(*map(int, row))
            return
        cursor = self.connection.cursor()
        try:
            cursor.copy_expert("COPY (%s) TO STDOUT" % statement, _Integers(take))
        finally:
            cursor.close()

    def close(self):
        self.connection.rollback()

    def snapshot(self):
        """{"id", "xmin", "at"}: the id for other connections, xmin for a delta; None where the engine has none."""
        if self.name != "postgresql":
            return {"id": None, "xmin": None, "at": _now()}
        try:
            identifier = self.rows("SELECT pg_export_snapshot()")[0][0]
        except Exception:  # a standby of before 10, or a proxy: one connection then does all
            self.connection.rollback()
            self._begin_postgresql()
            identifier = None
        xmin = self.rows("SELECT txid_snapshot_xmin(txid_current_snapshot())")[0][0]
        return {"id": identifier, "xmin": int(xmin), "at": _now()}

    def _schema(self):
        """{table: {column: the engine's type}} of the tables that are carried, and of those they are joined with."""
        found = {}
        if self.name == "sqlite":
            for (table,) in self.rows("SELECT name FROM sqlite_master WHERE type = 'table'"):
                if table in TABLES:
                    rows = self.rows("PRAGMA table_info(%s)" % name_of(table))
                    found[table] = {row[1]: str(row[2]).lower() for row in rows}
            return found
        where = "table_schema = database()" if self.name == "mysql" else "table_schema = ANY (current_schemas(false))"
        wanted = ", ".join(literal(table) for table in sorted(TABLES))
        for table, column, kind in self.rows(
            "SELECT table_name, column_name, data_type FROM information_schema.columns"
            " WHERE %s AND table_name IN (%s)" % (where, wanted)
        ):
            found.setdefault(_str(table), {})[_str(column)] = _str(kind).lower()
        return found

    def iso(self, expression):
        """A time as the text that run ids hold."""
        if self.name == "postgresql":
            return "to_char((%s) AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US+00:00')" % expression
        if self.name == "mysql":
            return "date_format(%s, '%%Y-%%m-%%dT%%H:%%i:%%s.%%f+00:00')" % expression
        return "(replace(%s, ' ', 'T') || '+00:00')" % expression

    def joined(self, *texts):
        return "concat(%s)" % ", ".join(texts) if self.name == "mysql" else "(%s)" % " || ".join(texts)

    def moment(self, iso):
        """A time that a request names (ISO 8601, UTC) as a literal."""
        at = iso.replace("T", " ").replace("Z", "").split("+")[0]
        at += "" if "." in at else ".000000"
        return literal(at + "+00") + "::timestamptz" if self.name == "postgresql" else literal(at)


class _Integers(object):
    """File-like, for COPY … TO STDOUT."""

    def __init__(self, take):
        self.take = take

    def write(self, line):
        self.take(*map(int, line.split(b"\t")))


class Unfit(Exception):
    """One sentence for the user."""


def literal(text):
    """A string in SQL. All engines are told to take backslashes as they are."""
    return "'%s'" % text.replace("'", "''")


def name_of(identifier):
    return '"%s"' % identifier.replace('"', '""')


def _str(value):
    return value.decode("utf-8") if isinstance(value, bytes) else value


def _now():
    return datetime.datetime.utcnow().isoformat() + "Z"


# ------------------------------------------------------------------------------------------------ the canonical SELECT


def statement(engine, part, scope):
    """(SELECT of a part's lines, its columns). See `plan` for part and scope."""
    table = TABLES[part["table"]]
    name, unit, orphans = part["table"], table["unit"], bool(part.get("orphans"))
    schema = engine.schema
    columns = columns_of(name, schema, (scope.get("omit") or {}).get(name) or ())
    has = schema[name]
    conditions, source = [], "%s t" % name_of(name)
    if unit in ("run", "of_run"):
        alias = "t" if unit == "run" else "r"
        runs = _orphans(engine) + " " + alias if orphans else "dag_run %s" % alias
        if orphans and unit == "run":
            has = ORPHAN_COLUMNS
        source = runs
        if unit == "of_run":
            source += " JOIN %s t ON %s" % (name_of(name), _link(has))
        if not orphans:
            conditions += _closed(engine, alias, scope)
            conditions += _carried(engine, alias, part, scope)
        conditions += _of_dags("%s.dag_id" % alias, scope) + _of_age(engine, alias, scope)
    else:
        conditions += _chosen_alone(engine, table, scope)
        if scope.get("after"):
            conditions.append(_changed_alone(engine, name, scope["after"]))
    if table["joins"]:
        source += " " + table["joins"]
    if table["where"]:
        conditions.append(table["where"])
    if name == "xcom" and "id" in has:
        conditions.append("NOT " + _OUTDATED)
    if not orphans:
        ranged = _ranged(name, schema)
        if scope.get("runs") is not None and unit == "of_run":
            ranged = "r.id"  # a delta's parts are cut by their runs
        for bound, sign in (("lo", ">="), ("hi", "<")):
            if part.get(bound) is not None:
                conditions.append("%s %s %d" % (ranged, sign, part[bound]))
    selected = ", ".join(_expression(engine, name, column, has, orphans) for column in columns)
    where = " WHERE " + " AND ".join(conditions) if conditions else ""
    return "SELECT %s FROM %s%s" % (selected, source, where), columns


# 1.10 has no key over XComs: two tries at once could leave two, of which it reads the newer one
_OUTDATED = (
    "EXISTS (SELECT 1 FROM xcom n WHERE n.dag_id = t.dag_id AND n.task_id = t.task_id"
    " AND n.execution_date = t.execution_date AND coalesce(n.{0}, '') = coalesce(t.{0}, '')"
    " AND (n.{1} > t.{1} OR n.{1} = t.{1} AND n.id > t.id))"
).format('"key"', '"timestamp"')


def _outdated(engine, scope, tables):
    """As a loss."""
    if "xcom" not in tables or "id" not in engine.schema["xcom"]:
        return []
    conditions = " AND ".join([_OUTDATED] + _of_dags("t.dag_id", scope))
    count = engine.rows("SELECT count(*) FROM xcom t WHERE " + conditions)[0][0]
    why = "%d values stay that have a newer one under the same key, which is what Airflow 1.10 reads" % count
    return [{"table": "xcom", "column": None, "why": why}] if count else []


def _strays(engine, scope, tables, orphans):
    """As losses: what is left of runs that were deleted without it, which Airflow could until 2.2."""
    found = []
    for name in tables:
        has = engine.schema[name]
        if TABLES[name]["unit"] != "of_run" or not _has_date(has, name):
            continue
        source = "%s t LEFT JOIN dag_run r ON %s" % (name_of(name), _link(has))
        conditions = ["r.id IS NULL"] + _of_dags("t.dag_id", scope)
        if orphans:
            made_up = " LEFT JOIN %s o ON o.dag_id = t.dag_id AND o.execution_date = t.execution_date"
            source += made_up % _orphans(engine)
            conditions.append("o.dag_id IS NULL")
        count = engine.rows("SELECT count(*) FROM %s WHERE %s" % (source, " AND ".join(conditions)))[0][0]
        if count:
            found.append({"table": name, "column": None, "why": "rows that belong to no run stay: %d" % count})
    return found


def _qualified(table, name):
    source = [column["source"] for column in table["columns"] if column["name"] == name][0]
    return source if "." in source else "t." + name_of(source)


def _link(has):
    """How a row finds its run: by id, by run_id, and before 2.2 (2.3 for some tables) by its execution_date."""
    if "dag_run_id" in has and "dag_id" not in has:
        return "t.dag_run_id = r.id"
    if "run_id" in has:
        return "t.dag_id = r.dag_id AND t.run_id = r.run_id"
    return "t.dag_id = r.dag_id AND t.execution_date = r.execution_date"


def _ranged(name, schema):
    """The number that a table is cut by. Its own, where it has one with an index: a part is then read without the rest.
    Task instances and others without one are found by their runs.
    """
    if TABLES[name]["unit"] == "of_run":
        if "dag_run_id" in schema[name]:
            return "t.dag_run_id"
        if "id" not in schema[name]:
            return "r.id"
    return "t.id"


def _closed(engine, alias, scope):
    """Runs that ended, and that the plan did not find in flight: what has begun or ended since comes with the delta."""
    conditions = ["%s.state IN (%s)" % (alias, ", ".join(literal(state) for state in TERMINAL))]
    if scope.get("last") is not None:
        conditions.append("%s.id <= %d" % (alias, scope["last"]))
    held = scope.get("open") or []
    if held:
        ids = ", ".join("%d" % one for one in held)
        # unnest makes PostgreSQL look them up by hash, whatever its version
        rows = "SELECT unnest(ARRAY[%s]::int[])" % ids if engine.name == "postgresql" else ids
        conditions.append("%s.id NOT IN (%s)" % (alias, rows))
    return conditions


def _carried(engine, alias, part, scope):
    """A delta carries the runs that it names."""
    if scope.get("runs") is None:
        return []
    low, high = part.get("lo"), part.get("hi")
    ids = unpacked_ids(scope["runs"])
    ids = ids[
        0 if low is None else bisect.bisect_left(ids, low) : None if high is None else bisect.bisect_left(ids, high)
    ]
    if ids and low is not None and len(ids) == high - low:
        return []
    listed = ", ".join("%d" % one for one in ids) or "NULL"
    return [
        "%s.id IN (%s)" % (alias, "SELECT unnest(ARRAY[%s]::int[])" % listed if engine.name == "postgresql" else listed)
    ]


def _of_dags(column, scope):
    """only: nothing else; not: all but these. Rows without a DAG travel when no DAGs were asked for."""
    only, without = scope.get("only"), scope.get("not") or []
    if only is not None:
        return ["%s IN (%s)" % (column, ", ".join(literal(one) for one in only) or "NULL")]
    if without:
        names = ", ".join(literal(one) for one in without)
        return ["(%s IS NULL OR %s NOT IN (%s))" % (column, column, names)]
    return []


def _of_age(engine, alias, scope):
    """Runs that ended before `since` stay."""
    if not scope.get("since"):
        return []
    ended = "coalesce(%(a)s.end_date, %(a)s.start_date, %(a)s.execution_date)" % {"a": alias}
    return ["%s >= %s" % (ended, engine.moment(scope["since"]))]


def _chosen_alone(engine, table, scope):
    """Rows that belong to no run, by DAG and age."""
    conditions = []
    if table["dag"]:
        qualified = table["dag"] if "." in table["dag"] else _qualified(table, table["dag"])
        conditions += _of_dags(qualified, scope)
    if scope.get("since") and table["at"]:
        conditions.append("t.%s >= %s" % (name_of(table["at"]), engine.moment(scope["since"])))
    return conditions


ORPHAN_COLUMNS = dict.fromkeys(
    "id dag_id run_id execution_date state run_type external_trigger start_date end_date".split(), "text"
)


def _orphans(engine):
    """Runs for task instances of before 2.2 that have none (`airflow run`, deleted runs): manual ones, since those
    have no say in what the scheduler makes next; failed if one of their tasks is.
    """
    moving = ", ".join(literal(state) for state in IN_FLIGHT + ("scheduled", "up_for_retry", "up_for_reschedule"))
    return (
        "(SELECT NULL AS id, i.dag_id, %s AS run_id, i.execution_date,"
        " CASE WHEN sum(CASE WHEN i.state IN ('failed', 'upstream_failed') THEN 1 ELSE 0 END) > 0"
        " THEN 'failed' ELSE 'success' END AS state, 'manual' AS run_type, %s AS external_trigger,"
        " min(i.start_date) AS start_date, max(i.end_date) AS end_date FROM task_instance i"
        " WHERE NOT EXISTS (SELECT 1 FROM dag_run d WHERE d.dag_id = i.dag_id"
        " AND d.execution_date = i.execution_date) GROUP BY i.dag_id, i.execution_date"
        " HAVING sum(CASE WHEN i.state IN (%s) THEN 1 ELSE 0 END) = 0)"
        % (
            engine.joined("'manual__'", engine.iso("i.execution_date")),
            "true" if engine.name == "postgresql" else "1",
            moving,
        )
    )


def _expression(engine, table, column, has, orphans):
    """The SQL of one column; in PostgreSQL it is what COPY prints, elsewhere what CONVERTERS take."""
    source, kind = column["source"], column["kind"]
    alias, _dot, name = source.rpartition(".")
    qualified = "%s.%s" % (alias or "t", name_of(name))
    if table == "dag_run" and name == "run_id" and not orphans:
        if has.get("run_type") is None:  # 1.10 lets it be NULL
            return "coalesce(t.run_id, %s)" % engine.joined("'manual__'", engine.iso("t.execution_date"))
        return qualified
    if not alias and name not in has:
        return _default(engine, column)
    if kind in ("id", "ref"):
        return "NULL" if orphans and source in ("id", "r.id") else "-" + qualified
    if column["default"] and column["default"] not in ("run_id", "run_type"):
        default = column["default"]
        if kind == "bool":
            default = {"'f'": "false"}[default] if engine.name == "postgresql" else "0"
        qualified = "coalesce(%s, %s)" % (qualified, default)
    if engine.name == "postgresql":
        if kind == "time" and has.get(name) == "timestamp without time zone":
            return "(%s AT TIME ZONE 'UTC')" % qualified
        if kind == "value":
            return "encode(%s, 'escape')" % qualified
        if kind == "plain":
            return "encode(%s, 'hex')" % qualified
    elif engine.name == "mysql" and kind == "float":
        return "(%s + 0e0)" % qualified  # FLOAT prints six digits and holds more
    return qualified


def _default(engine, column):
    default = column["default"]
    if default == "run_id":  # the run is found by its date
        return "coalesce(r.run_id, %s)" % engine.joined("'manual__'", engine.iso("r.execution_date"))
    if default == "run_type":  # as Airflow 2's own upgrade tells them
        return (
            "CASE WHEN substr(t.run_id, 1, 11) = 'scheduled__' THEN 'scheduled'"
            " WHEN substr(t.run_id, 1, 9) = 'backfill_' THEN 'backfill' ELSE 'manual' END"
        )
    if default is None:
        return "NULL"
    if column["kind"] == "bool":
        return {"'f'": "false"}[default] if engine.name == "postgresql" else "0"
    return default


# ------------------------------------------------------------------------------------------------------ values as text

_ESCAPES = {92: "\\\\", 8: "\\b", 9: "\\t", 10: "\\n", 11: "\\v", 12: "\\f", 13: "\\r"}
_BYTES = {byte: "\\%03o" % byte for byte in [0] + list(range(128, 256))}
_BYTES[92] = "\\\\"
NULL = "\\N"


def escaped(text):
    """A string as COPY's text format has it."""
    return text.translate(_ESCAPES)


_UNESCAPED = re.compile(r"\\(.)", re.DOTALL)
_BACK = {value[1]: chr(key) for key, value in _ESCAPES.items()}


def unescaped(field):
    """The reverse of escaped (str), None for NULL."""
    return None if field == NULL else _UNESCAPED.sub(lambda match: _BACK[match.group(1)], field)


def bytes_text(data):
    """Bytes as PostgreSQL's encode(…, 'escape') has them."""
    return data.decode("latin-1").translate(_BYTES)


_OCTAL = re.compile(rb"\\(\\|[0-7]{3})")


def text_bytes(text):
    """The reverse of bytes_text."""
    return _OCTAL.sub(
        lambda match: b"\\" if match.group(1) == b"\\" else bytes((int(match.group(1), 8),)), text.encode("latin-1")
    )


def float_text(value):
    """The shortest text that reads back equal, spelled as PostgreSQL 12 and later do."""
    value = float(value)
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "Infinity" if value > 0 else "-Infinity"
    shortest = repr(value)
    if abs(value) >= 9007199254740992.0:
        figures = len(re.sub(r"e.*|\D", "", shortest).strip("0"))
        while _is_boundary(value, shortest):
            shortest, figures = "%.*e" % (figures, value), figures + 1
    sign, digits, exponent = re.match(r"(-?)([0-9.]+)(?:e([-+]?\d+))?$", shortest).groups()
    whole, _dot, fraction = digits.partition(".")
    fraction = "" if fraction == "0" else fraction
    point = len(whole) + int(exponent or 0)
    figures = (whole + fraction).lstrip("0")
    point -= len(whole + fraction) - len(figures)
    figures = figures.rstrip("0")
    if not figures:
        return sign + "0"
    if -4 < point <= 15:
        if point <= 0:
            return sign + "0." + "0" * -point + figures
        if point >= len(figures):
            return sign + figures + "0" * (point - len(figures))
        return sign + figures[:point] + "." + figures[point:]
    mantissa = figures[0] + ("." + figures[1:] if figures[1:] else "")
    return "%s%se%s%02d" % (sign, mantissa, "-" if point <= 0 else "+", abs(point - 1))


def _is_boundary(value, text):
    """Whether the text lies in the middle of two floats: where it reads back equal Python takes it, PostgreSQL not."""
    step = fractions.Fraction(2) ** (math.frexp(value)[1] - 53)
    off = abs(fractions.Fraction(text)) - abs(fractions.Fraction(value))
    # below a power of two floats lie twice as close
    return off == step / 2 or -off == (step / 4 if abs(math.frexp(value)[0]) == 0.5 else step / 2)


def time_text(value):
    """A UTC time of any driver, spelled as PostgreSQL does."""
    text = str(value)
    match = re.match(r"(\d{4}-\d\d-\d\d)[ T](\d\d:\d\d:\d\d)(?:\.(\d{1,6}))?(\+00(:?00)?|Z)?$", text)
    if not match:
        raise ValueError("no time in UTC")
    fraction = (match.group(3) or "").rstrip("0")
    return "%s %s%s+00" % (match.group(1), match.group(2), "." + fraction if fraction else "")


def _bytes(value):
    return value.encode("utf-8") if isinstance(value, str) else bytes(value)


def _json_text(value):
    return escaped(value if isinstance(value, str) else _str(value) if isinstance(value, bytes) else json.dumps(value))


CONVERTERS = {
    "id": str,
    "ref": str,
    "int": lambda value: str(int(value)),
    "bool": lambda value: "t" if value else "f",
    "text": lambda value: escaped(value if isinstance(value, str) else _str(value)),
    "json": _json_text,
    "time": time_text,
    "float": float_text,
    "value": lambda value: escaped(bytes_text(_bytes(value))),
    "plain": lambda value: "".join("%02x" % byte for byte in _bytes(value)),
}


def line_of(row, columns):
    """A row of any driver as PostgreSQL's COPY would print it. The last columns are made plain later, as there."""
    fields = []
    try:
        for value, column in zip(row, columns):
            fields.append(NULL if value is None else CONVERTERS[column["kind"]](value))
    except (ValueError, TypeError, AttributeError):
        column = columns[len(fields)]
        raise Unfit("the %s of a row is no %s" % (column["name"], column["kind"])) from None
    return ("\t".join(fields) + "\n").encode("utf-8", "surrogatepass")


# ---------------------------------------------------------------------------------------------------------- pickles
#
# A machine of our own reads them: it knows the opcodes that build plain data, calls nothing that a pickle names but
# the constructors below, with arguments of the right types, and gives up on depth, size and number of steps.


class Unreadable(Exception):
    """Why a pickle is not carried, without its content."""


PICKLE_BYTES = 16 << 20  # of the pickle, and of its texts when it is written down
PICKLE_STEPS = 1000000  # opcodes, and values when it is written down: shared references multiply
PICKLE_DEPTH = 100
PICKLE_KEYS = 10000  # of one dictionary or set that are no text, and values in one of them


class _Name(object):
    """A global of a pickle: a pair of words, nothing that was looked up."""

    def __init__(self, module, name):
        self.path = ("builtins" if module == "__builtin__" else module, name)  # Python 2's name


def _at_most(types, *arguments):
    return all(type(argument) in types for argument in arguments)


def _make_moment(kind, arguments):
    """datetime's own constructors, from the bytes of its pickles or from numbers."""
    if not arguments or not _at_most((int, bytes, str, datetime.timezone), *arguments):
        raise Unreadable("it has a %s that is malformed" % kind.__name__)
    first = arguments[0]
    if isinstance(first, str):
        first = first.encode("utf-8")
    return kind(first, *arguments[1:])


def _make_zone(arguments):
    if len(arguments) != 1 or not _at_most((datetime.timedelta,), *arguments):
        raise Unreadable("it has a time zone that is malformed")
    return datetime.timezone(arguments[0])


def _make_bytes(arguments):
    if not arguments:
        return b""
    if len(arguments) != 2 or not _at_most((str,), *arguments) or arguments[1] != "latin1":
        raise Unreadable("it has bytes that are malformed")
    return arguments[0].encode("latin-1")


def _make_delta(arguments):
    if not _at_most((int,), *arguments):
        raise Unreadable("it has a timedelta that is malformed")
    return datetime.timedelta(*arguments)


def _make_set(kind, arguments):
    if len(arguments) > 1 or not _at_most((list,), *arguments):
        raise Unreadable("it has a set that is malformed")
    return kind(_hashable(arguments[0]) if arguments else ())


def _hashable(items, held=0):
    """The items, to be keys beside `held` others: none that hashing would not get to the end of, and not so many that
    somebody could have chosen them for the time that telling them apart takes, as texts cannot be.
    """
    if held + len(items) > PICKLE_KEYS and not all(type(item) in (str, bytes) for item in items):
        raise Unreadable("it has more than %d keys that are no text" % PICKLE_KEYS)
    for item in items:
        if type(item) in (tuple, frozenset):
            _weigh(item, 0, [PICKLE_KEYS])
    return items


def _weigh(item, depth, left):
    left[0] -= len(item)
    if depth == 10 or left[0] < 0:
        raise Unreadable("it has a key that is nested too deeply")
    for one in item:
        if type(one) in (tuple, frozenset):
            _weigh(one, depth + 1, left)


def _pairs(items, held=0):
    if len(items) % 2:
        raise Unreadable("it has a key without a value")
    return dict(zip(_hashable(items[::2], held), items[1::2]))


def _make_dict(arguments):
    if arguments and not (len(arguments) == 1 and isinstance(arguments[0], list) and not arguments[0]):
        raise Unreadable("it has a dictionary that is malformed")
    return {}


CONSTRUCTORS = {
    ("datetime", "datetime"): lambda given: _make_moment(datetime.datetime, given),
    ("datetime", "date"): lambda given: _make_moment(datetime.date, given),
    ("datetime", "time"): lambda given: _make_moment(datetime.time, given),
    ("datetime", "timedelta"): _make_delta,
    ("datetime", "timezone"): _make_zone,
    ("_codecs", "encode"): _make_bytes,
    ("builtins", "bytes"): _make_bytes,
    ("collections", "OrderedDict"): _make_dict,
    ("builtins", "dict"): _make_dict,
    ("builtins", "set"): lambda given: _make_set(set, given),
    ("builtins", "frozenset"): lambda given: _make_set(frozenset, given),
}
_MARK = object()
_SIMPLE = {
    "NONE": None,
    "NEWTRUE": True,
    "NEWFALSE": False,
}
_LITERALS = frozenset(
    "INT BININT BININT1 BININT2 LONG LONG1 LONG4 FLOAT BINFLOAT UNICODE BINUNICODE SHORT_BINUNICODE BINUNICODE8"
    " BINBYTES SHORT_BINBYTES BINBYTES8 STRING BINSTRING SHORT_BINSTRING".split()
)
_DECIMAL = frozenset("INT LONG FLOAT PUT GET".split())  # reading them takes the square of their length
_BYTE_STRINGS = frozenset("BINSTRING SHORT_BINSTRING".split())
_EMPTY = {"EMPTY_LIST": list, "EMPTY_DICT": dict, "EMPTY_SET": set}


def read_pickle(data):
    """The plain value of a pickle, protocols 0 to 5. Nothing of it is run. Raises Unreadable."""
    if len(data) > PICKLE_BYTES:
        raise Unreadable("it has more than %d MB" % (PICKLE_BYTES >> 20))
    try:
        return _Machine().run(data)
    except Unreadable:
        raise
    except RecursionError:
        raise Unreadable("it is nested too deeply") from None
    except Exception:
        raise Unreadable("it is no pickle, or a broken one") from None


def _of_python_2(text):
    """A str of Python 2, which was bytes: text where it is UTF-8."""
    data = text.encode("latin-1")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return data


class _Machine(object):
    def run(self, data):
        self.stack, self.memo, steps = [], {}, 0
        stream = io.BytesIO(data)
        while True:
            code = stream.read(1)
            if not code:
                raise Unreadable("it has no end")
            opcode = pickletools.code2op[code.decode("latin-1")]
            steps += 1
            if steps > PICKLE_STEPS:
                raise Unreadable("it has more than %d steps" % PICKLE_STEPS)
            if opcode.name in _DECIMAL and data.find(b"\n", stream.tell(), stream.tell() + 4000) < 0:
                raise Unreadable("it has a number of thousands of digits")
            argument = opcode.arg.reader(stream) if opcode.arg else None
            name = opcode.name
            if name in _LITERALS:
                if isinstance(argument, int) and argument.bit_length() > 10000:
                    raise Unreadable("it has a number of thousands of digits")
                self.stack.append(_of_python_2(argument) if name in _BYTE_STRINGS else argument)
            elif name in _SIMPLE:
                self.stack.append(_SIMPLE[name])
            elif name in _EMPTY:
                self.stack.append(_EMPTY[name]())
            elif name == "STOP":
                value = self.stack.pop()
                if self.stack or isinstance(value, _Name):
                    raise Unreadable("it is no value")
                return value
            elif name in ("MEMOIZE", "PUT", "BINPUT", "LONG_BINPUT"):
                self.memo[len(self.memo) if name == "MEMOIZE" else argument] = self.stack[-1]
            elif name in ("GET", "BINGET", "LONG_BINGET"):
                self.stack.append(self.memo[argument])
            elif name not in ("PROTO", "FRAME"):
                act = getattr(self, "_" + name.lower(), None)
                if act is None:
                    raise Unreadable("it has the instruction %s" % name)
                act(argument)

    def _since_mark(self):
        items = []
        while True:
            item = self.stack.pop()
            if item is _MARK:
                items.reverse()
                return items
            items.append(item)

    def _mark(self, _argument):
        self.stack.append(_MARK)

    def _pop(self, _argument):
        self.stack.pop()

    def _pop_mark(self, _argument):
        self._since_mark()

    def _dup(self, _argument):
        self.stack.append(self.stack[-1])

    def _append(self, _argument):
        item = self.stack.pop()
        self._plain(list).append(item)

    def _appends(self, _argument):
        items = self._since_mark()
        self._plain(list).extend(items)

    def _plain(self, kind):
        if not isinstance(self.stack[-1], kind):
            raise Unreadable("it fills something that is no %s" % kind.__name__)
        return self.stack[-1]

    def _list(self, _argument):
        self.stack.append(self._since_mark())

    def _tuple(self, _argument):
        self.stack.append(tuple(self._since_mark()))

    def _empty_tuple(self, _argument):
        self.stack.append(())

    def _tuple1(self, _argument):
        self.stack[-1:] = [tuple(self.stack[-1:])]

    def _tuple2(self, _argument):
        self.stack[-2:] = [tuple(self.stack[-2:])]

    def _tuple3(self, _argument):
        self.stack[-3:] = [tuple(self.stack[-3:])]

    def _dict(self, _argument):
        items = self._since_mark()
        self.stack.append(_pairs(items))

    def _setitem(self, _argument):
        value, key = self.stack.pop(), self.stack.pop()
        filled = self._plain(dict)
        filled[_hashable([key], len(filled))[0]] = value

    def _setitems(self, _argument):
        items = self._since_mark()
        filled = self._plain(dict)
        filled.update(_pairs(items, len(filled)))

    def _additems(self, _argument):
        items = self._since_mark()
        filled = self._plain(set)
        filled.update(_hashable(items, len(filled)))

    def _frozenset(self, _argument):
        self.stack.append(frozenset(_hashable(self._since_mark())))

    def _global(self, argument):
        self.stack.append(_Name(*argument.split(" ", 1)))

    def _stack_global(self, _argument):
        name, module = self.stack.pop(), self.stack.pop()
        if not _at_most((str,), name, module):
            raise Unreadable("it names something that is no name")
        self.stack.append(_Name(module, name))

    def _reduce(self, _argument):
        arguments, function = self.stack.pop(), self.stack.pop()
        if not isinstance(function, _Name) or not isinstance(arguments, tuple):
            raise Unreadable("it calls something that is no name")
        maker = CONSTRUCTORS.get(function.path)
        if maker is None:
            raise Unreadable("it calls %s" % _printable(".".join(function.path)))
        self.stack.append(maker(arguments))


class _Budget(object):
    """What may be written down: references that are shared come out as often as they are referred to."""

    def __init__(self):
        self.values, self.size = 0, 0

    def take(self, value, depth):
        self.values += 1
        if self.values > PICKLE_STEPS:
            raise Unreadable("written down it has more than %d values" % PICKLE_STEPS)
        if depth > PICKLE_DEPTH:
            raise Unreadable("it is nested more than %d deep" % PICKLE_DEPTH)
        if type(value) in (str, bytes):
            self.size += len(value)
            if self.size > PICKLE_BYTES:
                raise Unreadable("written down it has more than %d MB" % (PICKLE_BYTES >> 20))


def _printable(name):
    return re.sub(r"[^A-Za-z0-9_.]", "?", name)[:80]


TAG = "__mwaa_migration__"


def plain(value):
    """A value of read_pickle as JSON: itself where JSON has it, else {TAG: kind, "value": …}. Raises Unreadable."""
    take = _Budget().take

    def walk(value, depth):
        take(value, depth)
        kind = type(value)
        if value is None or kind in (bool, int, float, str):
            return value
        if kind is list:
            return [walk(item, depth + 1) for item in value]
        if kind is dict:
            if all(isinstance(key, str) for key in value) and TAG not in value:
                return {walk(key, depth): walk(value[key], depth + 1) for key in value}
            pairs = [[walk(key, depth + 1), walk(value[key], depth + 1)] for key in value]
            return {TAG: "dict", "value": pairs}
        if kind is tuple:
            return {TAG: "tuple", "value": [walk(item, depth + 1) for item in value]}
        if kind in (set, frozenset):
            items = [walk(item, depth + 1) for item in value]
            return {TAG: kind.__name__, "value": sorted(items, key=lambda item: json.dumps(item, sort_keys=True))}
        if kind is bytes:
            return {TAG: "bytes", "value": base64.b64encode(value).decode("ascii")}
        if kind is datetime.timedelta:
            return {TAG: "timedelta", "value": [value.days, value.seconds, value.microseconds]}
        if kind is datetime.timezone:
            return {TAG: "timezone", "value": walk(value.utcoffset(None), depth + 1)}
        if kind in (datetime.datetime, datetime.time):
            zone = walk(value.tzinfo, depth + 1)
            parts = [getattr(value, part) for part in _PARTS[kind]]
            return {TAG: kind.__name__, "value": parts, "zone": zone, "fold": value.fold}
        if kind is datetime.date:
            return {TAG: "date", "value": [value.year, value.month, value.day]}
        raise Unreadable("it holds a %s" % _printable(kind.__name__))

    try:
        return json.dumps(walk(value, 0))
    except (ValueError, RecursionError):  # an integer of thousands of digits
        raise Unreadable("it cannot be written down") from None


_PARTS = {
    datetime.datetime: ("year", "month", "day", "hour", "minute", "second", "microsecond"),
    datetime.time: ("hour", "minute", "second", "microsecond"),
}


def unplain(text):
    """The reverse of `plain`."""

    def build(value):
        if isinstance(value, list):
            return [build(item) for item in value]
        if not isinstance(value, dict):
            return value
        kind = value.get(TAG)
        if kind is None:
            return {key: build(value[key]) for key in value}
        content = value["value"]
        if kind == "dict":
            return {_key(build(key)): build(item) for key, item in content}
        if kind == "tuple":
            return tuple(build(item) for item in content)
        if kind == "set":
            return {_key(build(item)) for item in content}
        if kind == "frozenset":
            return frozenset(_key(build(item)) for item in content)
        if kind == "bytes":
            return base64.b64decode(content)
        if kind == "timedelta":
            return datetime.timedelta(*content)
        if kind == "timezone":
            return datetime.timezone(build(content))
        if kind == "date":
            return datetime.date(*content)
        zone = build(value["zone"])
        return {"datetime": datetime.datetime, "time": datetime.time}[kind](*content, tzinfo=zone, fold=value["fold"])

    return build(json.loads(text))


def _key(value):
    return tuple(value) if isinstance(value, list) else value


def xcom_text(data):
    """(bytes that Airflow 2 stores for a pickled XCom, what changed or None). Raises Unreadable: what JSON has no
    spelling for.
    """
    value, changed = read_pickle(data), []
    take = _Budget().take

    def walk(value, depth):
        take(value, depth)
        kind = type(value)
        if value is None or kind in (bool, int, float, str):
            return
        if kind in (list, tuple):
            if kind is tuple:
                changed.append("a tuple became a list")
            for item in value:
                walk(item, depth + 1)
        elif kind is dict:
            for key in value:
                if not isinstance(key, str):
                    raise Unreadable("it holds a dictionary whose keys are not all text")
                take(key, depth)
                walk(value[key], depth + 1)
        else:
            raise Unreadable("it holds a %s" % _printable(kind.__name__))

    walk(value, 0)
    try:
        return json.dumps(value).encode("utf-8"), changed[0] if changed else None
    except ValueError:
        raise Unreadable("it cannot be written down") from None


# ------------------------------------------------------------------------------------------------------------- lines


class _Lines(object):
    """File-like, for COPY … TO STDOUT: takes one line a call, makes pickles plain, digests, compresses, hands over
    pieces. Holds one batch, one line and one piece, whatever the table's size.

    sink: function (bytes of a gzip file, its rows, its bytes uncompressed); None: lines are digested only.
    """

    def __init__(self, table, columns, hasher, sink, old=False, floats=()):
        self.table, self.columns, self.sink, self.hash = table, columns, sink, hasher
        self.skip = sum(1 for column in columns if column["kind"] in ("id", "ref"))
        self.grouped = TABLES[table]["dag"] is not None
        last = columns[-1]["kind"]
        self.amend = {"plain": self._plain, "value": self._old_value if old else self._value}.get(last)
        self.floats = floats
        self.totals, self.rows, self.raw = {}, 0, 0
        self.faults, self.more = [], 0
        self.known = {}
        self.batch, self.held = [], 0
        self._open_piece()

    def write(self, line):
        self.batch.append(line)
        self.held += len(line)
        if self.held >= BATCH:
            self._take()

    def close(self):
        self._take()
        if self.piece_rows and self.sink:
            self._close_piece()

    def digests(self):
        """{dag_id: [rows, hex]}; "" for tables without DAGs and \\N for rows without one."""
        return {
            unescaped(dag.decode("utf-8", "surrogatepass")) if dag != b"\\N" else NULL: [
                rows,
                "%032x" % (total % (1 << 128)),
            ]
            for dag, (rows, total) in self.totals.items()
        }

    def _take(self):
        batch, self.batch, self.held = self.batch, [], 0
        if self.floats:
            batch = [self._short_floats(line) for line in batch]
        if self.amend:
            batch = [self.amend(line) for line in batch]
        self._digest(batch)
        self.piece_rows += len(batch)
        self.rows += len(batch)
        if self.sink is None:
            return
        if len(batch) == 1 and len(batch[0]) > BATCH:
            view = memoryview(batch[0])
            for start in range(0, len(view), 1 << 20):
                self._compress(view[start : start + (1 << 20)])
        elif batch:
            self._compress(b"".join(batch))
        if self.size > PIECE - BATCH - 65536:
            self._close_piece()
            self._open_piece()

    def _digest(self, batch):
        totals, parts, number, fresh = self.totals, self.skip + self.grouped, int.from_bytes, self.hash.copy
        for line in batch:
            # the DAG's id stands for the line's group, so it need not be hashed
            fields = line.split(b"\t", parts) if len(line) < BATCH else _cut(line, parts)
            dag = fields[-2] if self.grouped else b""
            entry = totals.get(dag)
            if entry is None:
                entry = totals[dag] = [0, 0]
            one = fresh()
            one.update(fields[-1])
            entry[0] += 1
            entry[1] += number(one.digest()[:16], "big")

    def _open_piece(self):
        self.compressor = zlib.compressobj(1, zlib.DEFLATED, 31)
        self.done, self.size, self.piece_rows, self.piece_raw = [], 0, 0, 0

    def _compress(self, data):
        made = self.compressor.compress(data)
        self.piece_raw += len(data)
        self.raw += len(data)
        if made:
            self.done.append(made)
            self.size += len(made)

    def _close_piece(self):
        self.done.append(self.compressor.flush())
        self.compressor = None
        body = b"".join(self.done)
        self.done = []
        self.sink(body, self.piece_rows, self.piece_raw)

    def _short_floats(self, line):
        fields = line.split(b"\t")
        for index in self.floats:
            if fields[index] != b"\\N":
                fields[index] = float_text(fields[index].decode("ascii")).encode("ascii")
        return b"\t".join(fields)

    def _plain(self, line):
        head, _tab, last = line.rpartition(b"\t")
        if last == b"\\N\n":
            return line
        text = self.known.get(last)
        if text is None:
            try:
                text = escaped(plain(read_pickle(bytes.fromhex(last[:-1].decode("ascii"))))).encode("utf-8") + b"\n"
            except Unreadable as error:
                self._fault(line, "%s cannot be read: %s" % (self.columns[-1]["name"], error))
                return head + b"\t\\N\n"
            if len(last) < 4096 and len(self.known) < 2048:
                self.known[last] = text
        return head + b"\t" + text

    def _value(self, line):
        return self._unpickled(line) if b"\t\\\\200" in line else line

    def _old_value(self, line):
        """1.10 on Python 2 pickled as text."""
        last = line.rpartition(b"\t")[2]
        if last == b"\\N\n" or last.startswith(b"\\\\200"):
            return self._value(line)
        try:
            json.loads(self._stored(last).decode("utf-8"))
        except ValueError:
            return self._unpickled(line, sure=False)
        return line

    def _stored(self, last):
        return text_bytes(unescaped(last[:-1].decode("utf-8")))

    def _unpickled(self, line, sure=True):
        head, _tab, last = line.rpartition(b"\t")
        if sure and not last.startswith(b"\\\\200"):
            return line
        try:
            stored, changed = xcom_text(self._stored(last))
        except Unreadable as error:
            self._fault(line, "the pickled value is left out: %s" % error)
            return head + b"\t\\N\n"
        if changed:
            self._fault(line, changed)
        return head + b"\t" + escaped(bytes_text(stored)).encode("ascii") + b"\n"

    def _fault(self, line, what):
        if len(self.faults) >= LISTED:
            self.more += 1
            return
        fields = line.decode("utf-8", "replace").rstrip("\n").split("\t")
        names = [column["name"] for column in self.columns]
        key = {name: unescaped(fields[names.index(name)]) for name in TABLES[self.table]["key"] if name in names}
        self.faults.append({"table": self.table, "key": key, "what": what})


def _cut(line, count):
    """split(b"\\t", count) without a copy of the rest, which may be large."""
    fields, at = [], 0
    for _field in range(count):
        end = line.index(b"\t", at)
        fields.append(line[at:end])
        at = end + 1
    return fields + [memoryview(line)[at:]]


def hash_of(name, key):
    """The keyed hash that digests are sums of, 16 bytes of it: blake2b, or sha256 where a source in FIPS mode knows
    no other (the plan's scope says which, so that both sides take the same).
    """
    return hashlib.blake2b(key=key[:64], digest_size=16) if name == "blake2b" else hashlib.sha256(key)


def _known_hash():
    try:
        hash_of("blake2b", b"")
    except (ValueError, AttributeError):
        return "sha256"
    return "blake2b"


def export_part(engine, part, scope, key, sink):
    """One part's lines into the sink (None: they are digested only). Gives {"rows", "raw", "digests", "faults",
    "more_faults"}.

    engine: an Engine. part: {"table", "lo", "hi", "orphans"} as planned. key: bytes, of the digests.
    """
    sql, columns = statement(engine, part, scope)
    floats = [index for index, column in enumerate(columns) if column["kind"] == "float"]
    # dag_run has had a run_type since 2.0
    old = "run_type" not in engine.schema.get("dag_run", {})
    exact = engine.name != "postgresql" or engine.version >= 120000
    lines = _Lines(part["table"], columns, hash_of(scope["hash"], key), sink, old, () if exact else floats)
    if engine.name == "postgresql":
        cursor = engine.connection.cursor()
        try:
            cursor.copy_expert("COPY (%s) TO STDOUT" % sql, lines)
        finally:
            cursor.close()
    else:
        for row in engine.stream(sql):
            lines.write(line_of(row, columns))
    lines.close()
    return {
        "rows": lines.rows,
        "raw": lines.raw,
        "digests": lines.digests(),
        "faults": lines.faults,
        "more_faults": lines.more,
    }


# -------------------------------------------------------------------------------------------------------------- plan


def make_plan(
    engine,
    dags=None,
    exclude=None,
    tables=None,
    since=None,
    target=None,
    part_bytes=PART,
    after=None,
):
    """What would be carried, cut into parts, and what would not.

    dags, exclude: patterns of DAG ids (fnmatch). tables: names, nothing: all. since: ISO 8601, UTC: runs that ended
    before stay. target: the target's schema, as `Engine` reads it. after: the mark of an earlier plan with
    the same filters: only what changed since, and what is gone.
    """
    schema = engine.schema
    missing = sorted({"dag_run", "task_instance"} - set(schema))
    if missing:
        raise Unfit("the metadata database has no table %s" % " and ".join(missing))
    unknown = sorted(set(tables or ()) - set(TABLES))
    if unknown:
        raise Unfit("no table of run history is called %s: known are %s" % (", ".join(unknown), ", ".join(TABLES)))
    scope = {"since": since, "omit": omitted(target) if target else {}, "hash": _known_hash()}
    scope.update(_chosen_dags(engine, dags, exclude))
    held = _open_runs(engine, scope)
    scope["open"] = sorted(held)
    lowest, highest = engine.rows("SELECT min(id), max(id) FROM dag_run")[0]
    scope["last"] = highest
    orphans = _has_orphans(engine)
    deferred = _deferred(engine, scope)
    names = [name for name in tables_of(schema) if (not tables or name in tables) and (not target or name in target)]
    fits = _fits(engine, [dags, exclude, tables, since], scope["omit"])
    why = _unfit_mark(engine, after, fits) if after else None
    former = None if why else after
    survey = _Survey(engine, scope, names, former, orphans)
    if former:
        scope.update(survey.scope(), open=[])
    parts, sizes = [], {}
    for name in names:
        rows, size = _size(engine, name)
        sizes[name] = {"rows": rows, "bytes": size}
        unit = TABLES[name]["unit"]
        if former:
            share = survey.changes.get(name, 0) / float(max(rows, survey.changes.get(name, 0), 1))
            size = int(size * share)
            ranges = survey.ranges(name, size, part_bytes)
        elif unit != "whole":
            low, high = lowest, highest
            ranged = _ranged(name, schema)
            if ranged != "r.id":
                low, high = engine.rows("SELECT min(%s), max(%s) FROM %s t" % (ranged, ranged, name_of(name)))[0]
            ranges = _ranges(low, high, size, part_bytes)
        else:
            ranges = [(None, None)]
        for low, high in ranges:
            parts.append({"table": name, "lo": low, "hi": high, "bytes": size // len(ranges)})
        if survey.has_orphans(name):
            # at most, which is what room is made for
            parts.append({"table": name, "lo": None, "hi": None, "orphans": True, "bytes": sizes[name]["bytes"]})
    for number, part in enumerate(parts):
        part["n"] = number
    return {
        "scope": scope,
        "parts": parts,
        "sizes": sizes,
        "columns": {
            name: [
                [column["name"], column["kind"]] for column in columns_of(name, schema, scope["omit"].get(name) or ())
            ]
            for name in sizes
        },
        "open": survey.open_runs(held),
        "more_open": max(len(held) - LISTED, 0),
        "deferred": deferred,
        "losses": (losses(schema, target) if target else [])
        + _outdated(engine, scope, names)
        + _strays(engine, scope, names, orphans),
        "orphans": orphans,
        "snapshot": {"at": _now()},
        "delta": former is not None,
        "full_why": why,
        "mark": dict(survey.mark, fits=fits),
        "changes": survey.changes,
        "deleted": survey.deleted,
    }


def _has_date(has, name):
    return name == "dag_run" or ("run_id" not in has and "execution_date" in has)


def _ranges(low, high, size, part_bytes):
    """[lo, hi) over the ids there are: as many as the table's bytes ask for, never more than ids."""
    if low is None:
        return []
    low, end = int(low), int(high) + 1
    count = max(1, min(-(-size // part_bytes), end - low))
    bounds = [low + (end - low) * index // count for index in range(count)] + [end]
    return list(zip(bounds, bounds[1:]))


def _size(engine, name):
    """(rows, bytes), both about: what planning needs does not justify reading a table."""
    rows, size = -1, 0
    if engine.name == "postgresql":
        relation = "%s::regclass" % literal(name_of(name))
        rows, size = engine.rows(
            "SELECT reltuples::bigint, pg_table_size(oid) FROM pg_class WHERE oid = %s" % relation
        )[0]
        if size > 64 << 20 and rows > 0:
            return int(rows), int(size)
    elif engine.name == "mysql":
        found = engine.rows(
            "SELECT table_rows, data_length FROM information_schema.tables WHERE table_schema = database()"
            " AND table_name = %s" % literal(name)
        )
        rows, size = found[0] if found else (-1, 0)
        if (size or 0) > 64 << 20:
            return int(rows), int(size)
    rows = engine.rows("SELECT count(*) FROM %s" % name_of(name))[0][0]
    if engine.name == "sqlite":
        size = int(rows) * 400
        if name == "xcom":
            size += int(engine.rows("SELECT coalesce(sum(length(value)), 0) FROM xcom")[0][0])
    return int(rows), int(size or 0)


def _chosen_dags(engine, dags, exclude):
    sources = ["SELECT DISTINCT dag_id FROM dag_run"]
    for name in tables_of(engine.schema):  # what is left of a deleted DAG may be its log rows alone
        table, has = TABLES[name], engine.schema[name]
        lone = table["unit"] in ("own", "whole") or name == "task_instance" and "run_id" not in has
        if lone and table["dag"] in has:
            sources.append("SELECT DISTINCT %s FROM %s" % (name_of(table["dag"]), name_of(name)))
    known = {row[0] for source in sources for row in engine.rows(source) if row[0]}

    def matching(patterns):
        return {one for one in known if any(fnmatch.fnmatchcase(one, pattern) for pattern in patterns)}

    without = matching(OWN_DAGS) | matching(exclude or ())
    if dags:
        return {"only": sorted(matching(dags) - without), "not": sorted(matching(dags) & without)}
    return {"only": None, "not": sorted(without)}


def _open_runs(engine, scope):
    """{id: {"dag_id", "run_id", "state", "tasks"}} of runs that are not carried yet."""
    link = _link(engine.schema["task_instance"])
    dags = "".join(" AND " + one for one in _of_dags("r.dag_id", scope))
    states = ", ".join(literal(state) for state in TERMINAL)
    found = {}
    for row in engine.rows(
        "SELECT r.id, r.dag_id, r.run_id, r.state FROM dag_run r WHERE (r.state IS NULL OR r.state NOT IN (%s))%s"
        % (states, dags)
    ):
        found[row[0]] = {"dag_id": row[1], "run_id": row[2], "state": row[3], "tasks": {}}
    for row in engine.rows(
        "SELECT r.id, r.dag_id, r.run_id, r.state, t.state, count(*) FROM dag_run r JOIN task_instance t ON %s"
        " WHERE t.state IN (%s)%s GROUP BY r.id, r.dag_id, r.run_id, r.state, t.state"
        % (link, ", ".join(literal(state) for state in IN_FLIGHT), dags)
    ):
        entry = found.setdefault(row[0], {"dag_id": row[1], "run_id": row[2], "state": row[3], "tasks": {}})
        entry["tasks"][row[4]] = int(row[5])
    return {int(one): found[one] for one in found}


def _deferred(engine, scope):
    """Deferred task instances of ended runs: carried, without the trigger that they wait for."""
    has = engine.schema["task_instance"]
    if "trigger_id" not in has:
        return []
    conditions = ["t.state = 'deferred'"] + _closed(engine, "r", scope) + _of_dags("r.dag_id", scope)
    names = [name for name in ("dag_id", "task_id", "run_id", "map_index") if name in has]
    rows = engine.rows(
        "SELECT %s FROM dag_run r JOIN task_instance t ON %s WHERE %s LIMIT %d"
        % (", ".join("t." + name for name in names), _link(has), " AND ".join(conditions), LISTED)
    )
    return [dict(zip(names, row)) for row in rows]


def _has_orphans(engine):
    if "run_id" in engine.schema["task_instance"]:
        return False
    return bool(engine.rows("SELECT 1 FROM %s o LIMIT 1" % _orphans(engine)))


# ------------------------------------------------------------------------------------------------------------- delta
#
# A mark is what a plan remembers of its snapshot for the next one: every run's id and how many rows it had in each
# table (a byte each, when packed), the runs in flight, and where the other tables ended. Parts are read from that
# snapshot or later ones: what changed in between is carried again, never missed.
#
# PostgreSQL tells each row that was written since by its xmin, exactly. SQLite and MySQL have dates and counts only
# (`_DATES`, an hour earlier than the mark): what they cannot tell is a row that was changed in place without a date
# (a conf or an XCom's value by hand, before 2.5 a state by SQL). What changed of a run is not told apart: the run is
# carried whole.

MARGIN = datetime.timedelta(hours=1)
CHUNK = 20000  # ids in one statement
_DATES = (
    "updated_at created_at start_date end_date queued_at queued_dttm last_scheduling_decision timestamp dttm"
    " latest_heartbeat reschedule_date"
).split()


def packed(numbers):
    """Integers of 0 … 2**32 - 1 as text: alike ones cost next to nothing."""
    data = array.array("I", numbers)
    if sys.byteorder == "big":
        data.byteswap()
    return base64.b64encode(zlib.compress(data.tobytes(), 6)).decode("ascii")


def unpacked(text):
    data = array.array("I", zlib.decompress(base64.b64decode(text)))
    if sys.byteorder == "big":
        data.byteswap()
    return data


def packed_ids(ids):
    """The same for ascending ids: steps of one cost nothing."""
    before, steps = 0, array.array("I")
    for one in ids:
        steps.append(one - before)
        before = one
    return packed(steps)


def unpacked_ids(text):
    ids, at = unpacked(text), 0
    for index, step in enumerate(ids):
        at += step
        ids[index] = at
    return ids


def _digest_of(value):
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode("utf-8")).hexdigest()[:32]


def lines_digest():
    """It changes with what lines are made of."""
    return _digest_of(TABLES)


def _fits(engine, filters, omit):
    """What must be the same for a mark to be of use."""
    return {
        "filters": _digest_of(filters),
        "target": _digest_of(omit),
        "schema": _digest_of([engine.name, sorted((name, sorted(has)) for name, has in engine.schema.items())]),
        "lines": lines_digest(),
        "server": _server(engine),
        "life": _life(engine),
    }


_UNFIT = (
    ("life", "the source's database was made anew since the last export"),
    ("server", "the source's database is another one than that of the last export, or was set back"),
    ("schema", "the source's Airflow was upgraded since the last export"),
    ("target", "the target's tables are others than those of the last export"),
    ("filters", "the last export was of other DAGs, tables or ages"),
    ("lines", "the last export was made by another version of this collection"),
)


def _unfit_mark(engine, mark, fits):
    """Why a delta cannot follow on this mark (a sentence), None: it can."""
    if not isinstance(mark, dict) or mark.get("form") != 1:
        return "the last export's mark is none that this version of the collection reads"
    for what, why in _UNFIT:
        known = mark["fits"].get(what)
        if known != fits[what] and not (what == "life" and None in (known, fits[what])):
            return why
    if engine.name == "postgresql":
        upto = int(engine.rows("SELECT txid_snapshot_xmax(txid_current_snapshot())")[0][0])
        if mark["xmin"] > upto:
            return dict(_UNFIT)["server"]
        if upto - mark["xmin"] >= (1 << 31) - 1000:
            return "the source's database has counted more than 2^31 transactions since the last export"
    return None


def _server(engine):
    """What names a database and its line of transactions: numbers of one say nothing in another."""
    if engine.name != "postgresql":
        return engine.rows("SELECT database()")[0][0] if engine.name == "mysql" else ""
    found = [engine.rows("SELECT oid::bigint FROM pg_database WHERE datname = current_database()")[0][0]]
    # with a restored backup the time line changes
    for function, value in (("pg_control_system", "system_identifier"), ("pg_control_checkpoint", "timeline_id")):
        oid = engine.rows("SELECT to_regprocedure(%s)::oid::bigint" % literal("pg_catalog.%s()" % function))[0][0]
        if oid and engine.rows("SELECT has_function_privilege(%d::oid, 'execute')" % oid)[0][0]:
            found.append(engine.rows("SELECT %s::text FROM %s()" % (value, function))[0][0])
    return "/".join(map(str, found))


def _life(engine):
    """What stays with a database through copies, backups and upgrades until it is made anew (`airflow db reset`), and
    numbers begin at 1 again: when Airflow wrote its first log template down. None: before 2.3.
    """
    if "log_template" not in engine.schema:
        return None
    rows = engine.rows("SELECT created_at FROM log_template WHERE id > 0 ORDER BY id LIMIT 1")
    return time_text(rows[0][0]) if rows and rows[0][0] else None


def _is_changed(engine, alias, name, after):
    """SQL: this row was written since."""
    if engine.name == "postgresql":
        # rows that were frozen long ago keep a number that comes round again: they are carried once more, at worst
        oldest = after["xmin"] % (1 << 32)
        oldest = oldest if oldest > 2 else (1 << 32) - 3  # the first numbers have no age
        return "age(%s.xmin) BETWEEN -1 AND (SELECT age('%d'::xid))" % (alias, oldest)
    moment = engine.moment(after["at"])
    dates = ["%s.%s >= %s" % (alias, column, moment) for column in _DATES if column in engine.schema[name]]
    return "(%s)" % " OR ".join(dates or ["1 = 0"])


def _changed_alone(engine, name, after):
    """SQL: this row of a table that belongs to no run is to be carried."""
    if _is_small(engine, name):
        return "1 = 1"  # as a whole, if at all
    ways = [_is_changed(engine, "t", name, after)]
    if engine.name != "postgresql":
        ways.append("t.id > %d" % after["last"].get(name, 0))
        going = unpacked_ids(after["going"]) if name == "job" else ()
        if going:
            ways.append("t.id IN (%s)" % ", ".join("%d" % one for one in going))
    return "(%s)" % " OR ".join(ways)


def _is_small(engine, name):
    """Tables that travel whole whenever anything in them is not as it was."""
    return name in ("dag", "log_template") or (TABLES[name]["unit"] == "whole" and engine.name != "postgresql")


class _Survey(object):
    """What there is (`mark`, for the next plan), and with a former mark what changed and what is gone since.

    Holds some bytes a run: 20 MB for a million of them.
    """

    def __init__(self, engine, scope, names, former, orphans):
        self.engine, self.base, self.former = engine, dict(scope), former
        self.after = self._after(former) if former else None
        self.changes = {}
        self.deleted = {"tables": {}, "rows": {}, "more": 0}
        self.mark = {"form": 1, "at": _now(), "xmin": None, "rows": {}, "last": {}, "small": {}}
        if engine.name == "postgresql":
            self.mark["xmin"] = int(engine.rows("SELECT txid_snapshot_xmin(txid_current_snapshot())")[0][0])
        self.mark["going"] = packed_ids(self._going(names))
        self.bounds, self.carry, self.with_orphans = {}, array.array("I"), set()
        self._runs([name for name in names if TABLES[name]["unit"] == "of_run"], "dag_run" in names)
        for name in names:
            if _is_small(engine, name):
                self._small(name)
            elif TABLES[name]["unit"] not in ("run", "of_run"):
                self._alone(name)
            elif orphans and _has_date(engine.schema[name], name):
                self._orphans(name)
        self.deleted["more"] = sum(self.deleted["rows"].values()) - sum(
            one.get("rows", 1) for keys in self.deleted["tables"].values() for one in keys
        )

    def _after(self, mark):
        at = datetime.datetime.strptime(mark["at"].rstrip("Z").partition(".")[0], "%Y-%m-%dT%H:%M:%S") - MARGIN
        last = {name: entry[0] for name, entry in mark["last"].items()}
        return {"xmin": mark["xmin"], "at": at.isoformat() + "Z", "last": last, "going": mark["going"]}

    def _going(self, names):
        """Jobs that are not carried yet, where nothing tells that they ended since."""
        if "job" not in names or self.engine.name == "postgresql":
            return []
        rows = self.engine.rows("SELECT t.id FROM job t WHERE NOT %s ORDER BY t.id" % TABLES["job"]["where"])
        return [int(row[0]) for row in rows]

    def scope(self):
        """What a delta's scope has beside a plan's."""
        return {"runs": packed_ids(self.carry), "after": self.after}

    # runs, and what belongs to them

    def _runs(self, names, themselves):
        engine, former = self.engine, self.former
        ids, ended, touched = array.array("I"), bytearray(), bytearray()

        def take(one, changed, terminal):
            ids.append(one)
            touched.append(changed)
            ended.append(terminal)

        changed = _is_changed(engine, "r", "dag_run", self.after) if former else "1 = 0"
        terminal = "CASE WHEN r.state IN (%s) THEN 1 ELSE 0 END" % ", ".join(literal(state) for state in TERMINAL)
        # one that goes again has no end: it is not gone
        of_age = ["(%s OR %s = 0)" % (one, terminal) for one in _of_age(engine, "r", self.base)]
        conditions = _of_dags("r.dag_id", self.base) + of_age
        engine.each(
            "SELECT r.id, CASE WHEN %s THEN 1 ELSE 0 END, %s FROM dag_run r%s ORDER BY r.id"
            % (
                changed,
                terminal,
                " WHERE " + " AND ".join(conditions) if conditions else "",
            ),
            take,
        )
        in_flight = set(self.base["open"])
        for index, one in enumerate(ids):
            if one in in_flight:
                ended[index] = 0
        known = unpacked_ids(former["ids"]) if former else array.array("I")
        never = set(unpacked_ids(former["never"])) if former else set()
        places = _places(ids, known)
        self.carried_before = {one for one in in_flight if former and one not in never and _found(known, one) >= 0}
        if former:
            waited = set(unpacked_ids(former["open"]))
            for index, one in enumerate(ids):
                if places[index] < 0 or one in waited:
                    touched[index] = 1
        for name in names:
            counts, fewer = array.array("I", bytes(4 * len(ids))), []

            def count(one, rows, changed, counts=counts):
                index = _found(ids, one)
                if index >= 0:
                    counts[index] = rows
                    touched[index] |= changed

            engine.each(_per_run(engine, name, self.after), count)
            if former and name in former["rows"]:
                before = unpacked(former["rows"][name])
                for index, place in enumerate(places):
                    if place < 0 or before[place] == counts[index]:
                        continue
                    # a table that was emptied leaves the rest of the run as it is
                    if counts[index]:
                        touched[index] = 1
                    if before[place] > counts[index] and ended[index]:
                        fewer.append((ids[index], before[place] - counts[index]))
                self._list_fewer(name, fewer)
            self.mark["rows"][name] = packed(counts)
        going = sorted(in_flight)
        self.mark.update(
            ids=packed_ids(ids),
            open=packed_ids(going),
            never=packed_ids(one for one in going if one not in self.carried_before),
        )
        if former:
            gone = array.array("I", (one for one, place in zip(known, _places(known, ids)) if place < 0))
            gone = array.array("I", (one for one in gone if one not in never))
            if gone and themselves:
                self.deleted["rows"]["dag_run"] = len(gone)
                self.deleted["tables"]["dag_run"] = [{"id": one} for one in gone[:LISTED]]
            at = array.array("I", (index for index in range(len(ids)) if touched[index] and ended[index]))
            self.carry = array.array("I", (ids[index] for index in at))
            if themselves and self.carry:
                self.changes["dag_run"] = len(self.carry)
            for name in names:
                counts = unpacked(self.mark["rows"][name])
                rows = sum(counts[index] for index in at)
                if rows:
                    self.changes[name] = rows

    def _list_fewer(self, name, fewer):
        if not fewer:
            return
        lost = dict(fewer[:LISTED])
        self.deleted["rows"][name] = sum(rows for _one, rows in fewer)
        self.deleted["tables"][name] = [
            {"dag_id": dag_id, "run_id": run_id, "rows": lost[one]}
            for one, dag_id, run_id in self.engine.rows(
                "SELECT id, dag_id, run_id FROM dag_run WHERE id IN (%s) ORDER BY id"
                % ", ".join("%d" % one for one in sorted(lost))
            )
        ]

    # tables that belong to no run

    def _small(self, name):
        self.mark["small"][name] = self._content({"table": name})
        # each import finds its runs' templates by the lines that came along
        needed = name == "log_template" and "dag_run" in self.changes
        if self.former and (needed or self.mark["small"][name] != self.former["small"].get(name)):
            rows = int(self.engine.rows("SELECT count(*) FROM %s" % name_of(name))[0][0])
            if rows:
                self.bounds[name] = (None, None)
                self.changes[name] = rows

    def _orphans(self, name):
        """Runs that were made up for task instances have no id to be known by: all of them, if anything is new."""
        self.mark["small"]["orphans:" + name] = content = self._content({"table": name, "orphans": True})
        if not self.former or content != self.former["small"].get("orphans:" + name):
            self.with_orphans.add(name)

    def _content(self, part):
        # no one but this plan and the next one compares it
        return _digest_of(export_part(self.engine, part, self.base, b"mark", None)["digests"])

    def _alone(self, name):
        engine, table = self.engine, TABLES[name]
        source = "%s t %s" % (name_of(name), table["joins"])
        where = " WHERE " + " AND ".join(_chosen_alone(engine, table, self.base) or ["1 = 1"])
        if "id" in engine.schema[name]:
            rows, last = engine.rows("SELECT count(*), max(t.id) FROM %s%s" % (source, where))[0]
            self.mark["last"][name] = [int(last or 0), int(rows)]
            if self.former and name in self.former["last"]:
                last, before = self.former["last"][name]
                rows = engine.rows("SELECT count(*) FROM %s%s AND t.id <= %d" % (source, where, last))[0][0]
                if rows < before:
                    self.deleted["rows"][name] = before - int(rows)
                    self.deleted["tables"][name] = [{"id_up_to": last, "rows": before - int(rows)}]
        if self.former:
            low, high = ("min(t.id)", "max(t.id)") if "id" in engine.schema[name] else ("NULL", "NULL")
            # as a part has them
            sql = statement(engine, {"table": name}, dict(self.base, after=self.after))[0]
            clause = sql[sql.index(" FROM %s t" % name_of(name)) :]
            rows, low, high = engine.rows("SELECT count(*), %s, %s%s" % (low, high, clause))[0]
            if rows:
                self.changes[name] = int(rows)
                self.bounds[name] = (low, high)

    # the plan

    def ranges(self, name, size, part_bytes):
        """[(lo, hi)] of a delta's parts of this table."""
        if not self.changes.get(name):
            return []
        if TABLES[name]["unit"] not in ("run", "of_run"):
            low, high = self.bounds[name]
            return [(None, None)] if low is None else _ranges(low, high, size, part_bytes)
        count = max(1, -(-size // part_bytes), -(-len(self.carry) // CHUNK))
        step = -(-len(self.carry) // count)
        starts = range(0, len(self.carry), step)
        return [(self.carry[at], self.carry[min(at + step, len(self.carry)) - 1] + 1) for at in starts]

    def has_orphans(self, name):
        return name in self.with_orphans

    def open_runs(self, held):
        order = sorted(held, key=lambda one: (held[one]["dag_id"], one))[:LISTED]
        return [dict(held[one], again=True) if one in self.carried_before else held[one] for one in order]


def _found(ids, one):
    """The index of an id in ascending ones, -1: it is not among them."""
    index = bisect.bisect_left(ids, one)
    return index if index < len(ids) and ids[index] == one else -1


def _places(wanted, present):
    """For each of `wanted` where it is in `present`, or -1; both ascending."""
    places, at = array.array("i"), 0
    for one in wanted:
        while at < len(present) and present[at] < one:
            at += 1
        places.append(at if at < len(present) and present[at] == one else -1)
    return places


def _per_run(engine, name, after):
    """SELECT of (run's id, its rows in this table, whether one of them was written since)."""
    has = engine.schema[name]
    changed = "max(CASE WHEN %s THEN 1 ELSE 0 END)" % _is_changed(engine, "t", name, after) if after else "0"
    if "dag_run_id" in has:
        return "SELECT t.dag_run_id, count(*), %s FROM %s t WHERE t.dag_run_id IS NOT NULL GROUP BY t.dag_run_id" % (
            changed,
            name_of(name),
        )
    link = "run_id" if "run_id" in has else "execution_date"
    return (
        "SELECT r.id, c.n, c.m FROM (SELECT t.dag_id, t.%s, count(*) AS n, %s AS m FROM %s t"
        " GROUP BY t.dag_id, t.%s) c JOIN dag_run r ON r.dag_id = c.dag_id AND r.%s = c.%s"
        % (link, changed, name_of(name), link, link, link)
    )


# ------------------------------------------------------------------------------------------------------------ export


class _NoRoom(Exception):
    """The objects that were allowed for are used up."""


class _Outbox(object):
    """Sends pieces while the next is made: one waits at most."""

    def __init__(self, take, put):
        self.take, self.put = take, put
        self.objects, self.thread, self.failure = [], None, None

    def __call__(self, body, rows, raw):
        self.wait()
        place = self.take()
        if place is None:
            raise _NoRoom()
        entry = {"size": len(body), "sha256": hashlib.sha256(body).hexdigest(), "rows": rows, "raw": raw}
        entry["path"] = place["path"]
        self.objects.append(entry)
        self.thread = threading.Thread(target=self._send, args=(place, body, entry))
        self.thread.daemon = True
        self.thread.start()

    def _send(self, place, body, entry):
        try:
            entry.update(self.put(place, body) or {})
        except Exception as error:
            self.failure = error

    def wait(self):
        if self.thread is not None:
            self.thread.join()
            self.thread = None
        if self.failure is not None:
            raise self.failure


class _Turns(object):
    """Numbers 0 … count - 1, each given once, to whichever process asks first: a pipe that was filled beforehand.

    Those that the pipe does not hold (16,384 as a rule) are given in another call.
    """

    def __init__(self, count):
        self.reader, self.writer = os.pipe()
        os.set_blocking(self.writer, False)
        try:
            for start in range(0, count, 1024):
                numbers = range(start, min(count, start + 1024))
                os.write(self.writer, b"".join(struct.pack("<I", number) for number in numbers))
        except BlockingIOError:
            pass

    def begin(self):
        """To be called in each process: the end of the pipe is seen when no writer is left."""
        os.close(self.writer)

    def take(self):
        data = os.read(self.reader, 4)
        return struct.unpack("<I", data)[0] if len(data) == 4 else None


def export_parts(connect, parts, scope, key, places, put, processes=2, until=None, clock=time.time, tell=None):
    """Parts by several processes that look at one snapshot. Gives {"parts": [results], "left": [n], "snapshot"}.

    connect: function (snapshot id or None) that gives an Engine. places: where pieces may go, used in any order;
    put(place, bytes) leaves one there and gives what is to be noted of it. until: no part is begun after (seconds since
    1970). A part that could not be finished is left, and its objects are not named.
    """
    engine = connect(None)
    try:
        snapshot = engine.snapshot()
        if engine.name != "postgresql" or snapshot["id"] is None:
            processes = 1
        processes = max(1, min(processes, len(parts)))
        # the largest first: the end is then shared evenly
        order = sorted(range(len(parts)), key=lambda index: -parts[index].get("bytes", 0))
        turns, rooms = _Turns(len(parts)), _Turns(len(places))

        def work(engine, report):
            turns.begin()
            rooms.begin()
            while until is None or clock() < until:
                turn = turns.take()
                if turn is None:
                    break
                part = parts[order[turn]]
                result = _export_one(engine, part, scope, key, lambda: _place(rooms, places), put)
                report(result)
                if result.get("full"):
                    break

        results = []

        def note(result):
            results.append(result)
            if tell and "rows" in result:
                tell(parts=1, rows=result["rows"])

        if processes == 1:
            work(engine, note)
        else:
            _in_processes(processes, lambda report: work(connect(snapshot["id"]), report), note, turns, rooms)
        os.close(turns.reader)
        os.close(rooms.reader)
    finally:
        engine.close()
    done = [result for result in results if "rows" in result]
    failed = [result for result in results if "error" in result]
    ready = {result["n"] for result in done}
    return {
        "parts": sorted(done, key=lambda result: result["n"]),
        "failed": failed,
        "left": [part["n"] for part in parts if part["n"] not in ready],
        "snapshot": snapshot,
        # of this process and of the largest that it started, Airflow included
        "peak_kb": max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)),
    }


def _place(rooms, places):
    number = rooms.take()
    return None if number is None else places[number]


def _export_one(engine, part, scope, key, take, put):
    outbox, begun = _Outbox(take, put), time.time()
    try:
        result = export_part(engine, part, scope, key, outbox)
        outbox.wait()
    except _NoRoom:
        return {"n": part["n"], "full": True}
    except Unfit as error:
        return {"n": part["n"], "error": str(error)}
    except MemoryError:
        raise
    except Exception as error:  # the texts of databases repeat values
        code = getattr(error, "pgcode", None) or ""
        return {"n": part["n"], "error": ("%s %s" % (type(error).__name__, code)).strip(), "full": True}
    result.update(n=part["n"], table=part["table"], objects=outbox.objects, seconds=round(time.time() - begun, 3))
    result["bytes"] = sum(entry["size"] for entry in outbox.objects)
    return result


def _in_processes(count, work, report, turns, rooms):
    """Forked: they share what is imported, and the turns. One that dies leaves its part undone, nothing else."""
    readers, children = {}, []
    sys.stdout.flush()
    for _number in range(count):
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            status = 1
            try:
                os.close(reader)
                with io.open(writer, "wb") as out:

                    def send(result, out=out):
                        out.write(json.dumps(result).encode("utf-8") + b"\n")
                        out.flush()

                    try:
                        work(send)
                    except Exception as error:
                        send({"n": -1, "error": type(error).__name__})
                status = 0
            finally:
                os._exit(status)
        os.close(writer)
        readers[reader] = b""
        children.append(child)
    turns.begin()
    rooms.begin()
    while readers:
        for reader in select.select(list(readers), [], [])[0]:
            data = os.read(reader, 1 << 16)
            if not data:
                os.close(reader)
                del readers[reader]
                continue
            lines = (readers[reader] + data).split(b"\n")
            readers[reader] = lines.pop()
            for line in lines:
                report(json.loads(line.decode("utf-8")))
    for child in children:
        os.waitpid(child, 0)


PAUSES = (1.0, 3.0, 9.0)  # seconds between attempts to send a piece
S3_REFUSES = "S3 does not take"  # by its beginning the controller knows the sentence


def put_piece(place, body, pauses=None):
    """PUT to a presigned URL, which is a permission: it is neither logged nor returned."""
    from urllib.error import HTTPError, URLError
    from urllib.request import Request, build_opener

    pauses = PAUSES if pauses is None else pauses
    for pause in pauses + (None,):
        reason, again = "", False
        try:
            headers = dict(place.get("headers") or {}, **{"Content-Length": str(len(body))})
            request = Request(place["url"], data=body, headers=headers, method="PUT")
            with build_opener().open(request, timeout=60 if pauses else 20) as response:
                response.read()
                return {
                    "version_id": response.headers.get("x-amz-version-id"),
                    "etag": (response.headers.get("ETag") or "").strip('"') or None,
                }
        except HTTPError as error:
            code = re.search(r"<Code>([^<]{1,60})</Code>", error.read(4096).decode("utf-8", "replace"))
            reason = "HTTP %d %s" % (error.code, code.group(1) if code else "")
            again = error.code >= 500
        except URLError as error:
            reason, again = type(error.reason).__name__, True
        except Exception as error:
            reason, again = type(error).__name__, True
        if not again or pause is None:
            raise Unfit("%s %s from here: %s" % (S3_REFUSES, place["path"], reason))
        time.sleep(pause)
    return None


# -------------------------------------------------------------------------------------------------------- operations


class _Source(object):
    """Connections to this Airflow's own database, as Airflow itself makes them."""

    def __init__(self, agent, database):
        self.engine = database.session.get_bind()
        self.name = self.engine.dialect.name
        schema = agent._option("database", "sql_alchemy_schema") or agent._option("core", "sql_alchemy_schema")
        self.search_path = name_of(schema) if schema else None
        self.kept = []

    def connect(self, snapshot=None, writable=False):
        # a pool of its own, with Airflow's ways to connect: what is set on these connections stays on them
        pool = self.engine.pool.recreate()
        checked_out = pool.connect()
        self.kept.append((pool, checked_out))
        raw = getattr(checked_out, "dbapi_connection", None) or checked_out.connection
        return Engine(self.name, raw, snapshot, self.search_path, writable)

    def close(self):
        for pool, checked_out in self.kept:
            checked_out.invalidate()
            pool.dispose()


def operate(agent, request):
    """One of OPERATIONS. agent: the module airflow_agent; what is refused is raised as its AgentError."""
    version = agent.airflow_version()
    if int(version.split(".")[0]) > 2:
        raise agent.AgentError(
            "no_history", "run history is read from and written to Airflow 1.10 and 2, this is %s" % version
        )
    try:
        with agent.Database() as database:
            source = _Source(agent, database)
            try:
                answer = OPERATIONS[request["op"]](source, request)
            finally:
                source.close()
    except Unfit as error:
        raise agent.AgentError("history", str(error)) from None
    answer["airflow_version"] = version
    return answer


def plan_history(source, request):
    """make_plan with the request's dags, exclude, tables, since, target, part_bytes and after."""
    engine = source.connect()
    plan = make_plan(
        engine,
        dags=request.get("dags"),
        exclude=request.get("exclude"),
        tables=request.get("tables"),
        since=request.get("since"),
        target=request.get("target"),
        part_bytes=request.get("part_bytes") or PART,
        after=request.get("after"),
    )
    plan["snapshot"] = engine.snapshot()
    plan["snapshot"]["id"] = None  # it ends with this call
    plan["dialect"] = engine.name
    return plan


INLINE = 6 << 20  # bytes of pieces in an answer, where S3 cannot be reached: sealing it takes eight times that
ALONE = 24 << 20  # of a part that cannot be cut
TOO_LARGE = "the parts are too large for one answer: plan them smaller, or ask for fewer"


def export_history(source, request):
    """Some parts of a plan.

    parts, scope: as planned. digest_key: base64. puts: [{"path", "url", "headers"}], more than enough of them; the
    answer says which were used. Without puts the pieces are in the answer (objects[].data, base64): INLINE bytes of
    them at most, or ALONE where a part says "alone".
    impatient: S3 is tried once, to know early whether it is there.
    processes (2), seconds: no part is begun after.
    """
    key = base64.b64decode(request["digest_key"])
    until = time.time() + request["seconds"] if request.get("seconds") else None
    if request.get("puts") is not None:
        return export_parts(
            source.connect,
            request["parts"],
            request["scope"],
            key,
            request["puts"],
            (lambda place, body: put_piece(place, body, ())) if request.get("impatient") else put_piece,
            request.get("processes") or 2,
            until,
            tell=request.get("tell"),
        )
    held = [0]
    most = ALONE if any(part.get("alone") for part in request["parts"]) else INLINE

    def keep(place, body):
        held[0] += len(body)
        if held[0] > most:
            raise Unfit(TOO_LARGE)
        return {"data": base64.b64encode(body).decode("ascii")}

    places = [{"path": "%d" % number} for number in range(64)]
    return export_parts(source.connect, request["parts"], request["scope"], key, places, keep, 1, until)


OPERATIONS = {
    "plan_history": plan_history,
    "export_history": export_history,
}
