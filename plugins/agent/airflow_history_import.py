# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Run history into an Airflow's PostgreSQL: pieces of canonical lines (airflow_history.py) become rows, each once.

The third file of the agent. Python 3.6 syntax, the standard library and psycopg2, which every Airflow on PostgreSQL
ships.

A piece is one transaction: its rows and its entry in the ledger, a table beside Airflow's own, come together or not at
all; whoever comes second with the same piece waits for the first and finds it done. Where a table has no row that could
be met (asked of the database before the first piece, and kept in the ledger), COPY writes into the table itself. Else
the lines go to a staging table that lives as long as the transaction, and from there by INSERT … SELECT … ON CONFLICT,
references found again by what the rows are called.
"""

import base64
import hashlib
import itertools
import json
import pickle
import re
import threading
import time
import zlib

history = None  # the module airflow_history


def bind(module):
    """The module that knows tables and lines; it lies beside this file, or was handed over with it."""
    global history
    history = module
    module.OPERATIONS.update(OPERATIONS)


LEDGER = "mwaa_migration_ledger"
STAGING = "mwaa_migration_staging"
POLICIES = ("skip", "overwrite", "newer", "fail")
LISTED = 100  # keys that the ledger remembers of one piece; the rest is counted
SPAN = 100000000  # a second source's ids lie this far below the first's
LOWEST = -(1 << 31)
FEED = 1 << 18  # bytes given to COPY at once
TRIES = 3
AGAIN = "remove the bundle's history/manifest.json and export the history again"

# tables whose lines are rows as they are, wherever nothing is met: COPY goes straight into them
DIRECT = (
    "job",
    "dag_run",
    "task_instance",
    "task_instance_history",
    "task_fail",
    "xcom",
    "rendered_task_instance_fields",
    "task_reschedule",
    "task_map",
    "task_instance_note",
    "sla_miss",
    "log",
)
# references in a line that are found by other columns of it: column -> (alias, join, what the row is then)
_RUN = ("r", "LEFT JOIN dag_run r ON r.dag_id = s.dag_id AND r.run_id = s.run_id", "id")
_DATASET = ("d", "LEFT JOIN dataset d ON d.uri = s.uri", "id")
_ALIAS = ("a", "LEFT JOIN dataset_alias a ON a.name = s.name", "id")
FOUND = {
    "xcom": {"dag_run_id": _RUN},
    "dag_run_note": {"dag_run_id": _RUN},
    "dataset_event": {"dataset_id": _DATASET},
    "dagrun_dataset_event": {"dag_run_id": _RUN},
    "dataset_alias_dataset": {"alias_id": _ALIAS, "dataset_id": _DATASET},
    "dataset_alias_dataset_event": {"alias_id": _ALIAS},
}
# tables of which a row may have another id than its own, there already or made: the ledger notes which
NAMED = ("dag_run", "dataset", "dataset_alias")
# tables whose rows a target has by itself, from its DAG files: to have them already is no conflict
SHARED = ("dag", "log_template", "dataset", "dataset_alias")
# what stands for NULL where the target takes none
FILLED = {
    "pool": "'default_pool'",
    "pool_slots": "1",
    "map_index": "-1",
    "key": "''",
    "run_type": "'manual'",
    "clear_number": "0",
    "is_orphaned": "false",
    "rendered_fields": "'{}'",
    "length": "0",
    "extra": "'{}'",
    "created_at": "now()",
    "updated_at": "now()",
}
# and for columns that no line has, by their type
FILLED_BY_TYPE = (
    ("timestamp", "now()"),
    ("bool", "false"),
    ("json", "'{}'"),
    ("character", "''"),
    ("text", "''"),
    ("integer", "0"),
    ("bigint", "0"),
    ("double", "0"),
)
STAGED = {
    "id": "bigint",
    "ref": "bigint",
    "text": "text",
    "int": "bigint",
    "bool": "boolean",
    "float": "double precision",
    "json": "text",
    "time": "timestamptz",
    "value": "bytea",
    "plain": "bytea",
}
# rows without a date: those of a task instance that the target itself ran last are the target's
OF_INSTANCES = ("rendered_task_instance_fields", "task_map")
# when a row was last changed, the columns that say so in order; tables that are not named follow the bundle
CHANGED = {
    "dag_run": ("end_date", "start_date"),
    "task_instance": ("end_date", "start_date"),
    "task_instance_history": ("end_date", "start_date"),
    "xcom": ("timestamp",),
    "dag_run_note": (),
    "task_instance_note": (),
    "dataset": (),
    "sla_miss": ("timestamp",),
}


# ------------------------------------------------------------------------------------------------------------- target


class Target(object):
    """A connection (psycopg2) to the database that history goes into, and what that database says of its tables."""

    def __init__(self, connection, search_path=None):
        self.connection, self.search_path = connection, search_path
        connection.rollback()
        connection.set_session(isolation_level="READ COMMITTED", readonly=False, autocommit=False)
        self.begin()
        self.columns = self._columns()
        self.keys = self._keys()
        self.parents = self._parents()
        self.commit()

    def begin(self):
        """Settings last as long as the transaction: a proxy may give the next one another connection."""
        settings = [
            ("TimeZone", "UTC"),
            ("DateStyle", "ISO, YMD"),
            ("client_encoding", "UTF8"),
            ("standard_conforming_strings", "on"),
            ("bytea_output", "hex"),
            ("statement_timeout", "0"),
            ("idle_in_transaction_session_timeout", "0"),
        ]
        if self.connection.server_version >= 170000:
            settings.append(("transaction_timeout", "0"))
        if self.search_path:
            settings.append(("search_path", self.search_path))
        calls = ", ".join("set_config(%s, %s, true)" % tuple(map(history.literal, one)) for one in settings)
        self.rows("SELECT " + calls)

    def rows(self, statement, values=None):
        cursor = self.connection.cursor()
        try:
            cursor.execute(statement, values)
            return cursor.fetchall() if cursor.description else []
        finally:
            cursor.close()

    def run(self, statement, values=None):
        """The number of rows that it concerned."""
        cursor = self.connection.cursor()
        try:
            cursor.execute(statement, values)
            return cursor.rowcount
        finally:
            cursor.close()

    def copy(self, statement, feed):
        cursor = self.connection.cursor()
        try:
            cursor.copy_expert(statement, feed, FEED)
            return cursor.rowcount
        except Exception:
            if feed.failure:  # psycopg2 makes a cancelled query of it
                raise feed.failure from None
            raise
        finally:
            cursor.close()

    def commit(self):
        self.connection.commit()

    def rollback(self):
        """True if the connection lives on."""
        try:
            self.connection.rollback()
            return not self.connection.closed
        except Exception:
            return False

    def schema(self):
        """{table: {column: type}}, as a plan takes its target."""
        return {table: {name: one["type"] for name, one in self.columns[table].items()} for table in self.columns}

    def _columns(self):
        found = {}
        for table, column, kind, required, default, length in self.rows(
            "SELECT c.relname, a.attname, format_type(a.atttypid, NULL), a.attnotnull, a.atthasdef,"
            " CASE WHEN a.atttypid = 'varchar'::regtype AND a.atttypmod > 4 THEN a.atttypmod - 4 END"
            " FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid JOIN pg_namespace n ON n.oid = c.relnamespace"
            " WHERE n.nspname = ANY (current_schemas(false)) AND c.relkind IN ('r', 'p') AND c.relname = ANY (%s)"
            " AND a.attnum > 0 AND NOT a.attisdropped ORDER BY c.relname, a.attnum",
            (sorted(history.TABLES),),
        ):
            found.setdefault(table, {})[column] = {
                "type": kind,
                "required": required,
                "default": default,
                "length": length,
            }
        return found

    def _keys(self):
        """{table: the columns of the unique index that says which rows are the same}: the one with names, not ids."""
        found = {}
        for table, columns in self.rows(
            "SELECT c.relname, array_agg(a.attname::text ORDER BY a.attnum) FROM pg_index i"
            " JOIN pg_class c ON c.oid = i.indrelid JOIN pg_namespace n ON n.oid = c.relnamespace"
            " JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = ANY (i.indkey::int2[])"
            " WHERE n.nspname = ANY (current_schemas(false)) AND c.relname = ANY (%s) AND i.indisunique"
            " AND i.indpred IS NULL AND i.indexprs IS NULL GROUP BY i.indexrelid, c.relname",
            (sorted(history.TABLES),),
        ):
            found.setdefault(table, []).append(tuple(columns))
        return {
            table: min(ways, key=lambda columns: ("id" in columns, "run_id" not in columns, columns))
            for table, ways in found.items()
        }

    def _parents(self):
        """{table: [(columns, parent, its columns)]}: foreign keys, those too that wait in the ledger to be built."""
        found = {}
        statements = self.rows(
            "SELECT c.relname, pg_get_constraintdef(k.oid) FROM pg_constraint k JOIN pg_class c ON c.oid = k.conrelid"
            " JOIN pg_namespace n ON n.oid = c.relnamespace WHERE k.contype = 'f' AND c.relname = ANY (%s)"
            " AND n.nspname = ANY (current_schemas(false))",
            (sorted(history.TABLES),),
        )
        if has_ledger(self):
            for (text,) in self.rows("SELECT value FROM %s WHERE kind = 'ddl'" % LEDGER):
                entry = json.loads(text)
                if entry["type"] == "constraint":
                    statements.append((entry["table"], entry["definition"]))
        for table, text in statements:
            match = re.match(r"FOREIGN KEY \(([^)]+)\) REFERENCES (?:[^.(]+\.)?([^.(]+)\(([^)]+)\)", text)
            if match:
                columns, parent, others = match.groups()
                found.setdefault(table, []).append((columns.split(", "), parent.strip('"'), others.split(", ")))
        return found


def has_ledger(target):
    return target.rows("SELECT to_regclass(%s)", (LEDGER,))[0][0] is not None


def make_ledger(target):
    if not has_ledger(target):
        target.run(
            "CREATE TABLE IF NOT EXISTS %s (bundle text, kind text, name text, value text, rows bigint,"
            " at timestamptz DEFAULT now(), PRIMARY KEY (bundle, kind, name))" % LEDGER
        )


def _note(target, bundle, kind, name, value=None, rows=None):
    """False: it was there before (and then is as it was)."""
    return bool(
        target.run(
            "INSERT INTO %s (bundle, kind, name, value, rows) VALUES (%%s, %%s, %%s, %%s, %%s)"
            " ON CONFLICT DO NOTHING" % LEDGER,
            (bundle, kind, name, value, rows),
        )
    )


def _noted(target, bundle, kind):
    """{name: value}"""
    return dict(target.rows("SELECT name, value FROM %s WHERE bundle = %%s AND kind = %%s" % LEDGER, (bundle, kind)))


# -------------------------------------------------------------------------------------------------------------- lines


class _Feed(object):
    """File-like, for COPY … FROM STDIN: a piece's lines as the table takes them, holding a batch of them at most."""

    def __init__(self, body, amend=None):
        self.body, self.amend = memoryview(body), amend
        self.engine = zlib.decompressobj(31)
        self.given = self.left = b""
        self.at = 0
        self.failure = None

    def read(self, size=FEED):
        try:
            return self._read(size)
        except Exception as error:
            self.failure = error
            raise

    def _read(self, size):
        if self.amend is None:
            return self._unpack(size)
        if not self.given:
            self.given = self._amended()
        part, self.given = self.given[:size], self.given[size:]
        return part

    def _unpack(self, size):
        while not self.engine.eof:
            rest = self.engine.unconsumed_tail
            if not rest and self.at < len(self.body):
                rest = self.body[self.at : self.at + 65536]
                self.at += len(rest)
            made = self.engine.decompress(rest, size)
            if made:
                return made
            if not rest:
                raise history.Unfit("a piece ends in the middle")
        return b""

    def _amended(self):
        parts, held = [self.left], len(self.left)
        while True:
            data = self._unpack(FEED)
            parts.append(data)
            held += len(data)
            if not data or (b"\n" in data and held >= FEED):
                break
        text = b"".join(parts)
        end = text.rfind(b"\n") + 1
        self.left = text[end:]
        if not end:
            return b""
        amend = self.amend
        return b"".join([amend(line) for line in text[:end].splitlines(True)])

    def lines(self):
        """One by one."""
        rest = b""
        while True:
            data = self._unpack(FEED)
            if not data:
                return
            parts = (rest + data).split(b"\n")
            rest = parts.pop()
            for line in parts:
                yield line + b"\n"


def pickled(text):
    """The bytes that Airflow stores for a `plain` field, as COPY's text format spells them."""
    # protocol 4: every Python that runs Airflow 2 reads it
    return b"\\\\x" + base64.b16encode(pickle.dumps(history.unplain(text), 4)).lower()


def amender(columns, templates=None):
    """What to do with each line before COPY, None: nothing.

    templates: {sent id: id on the target, "": the id for runs that have none}, of log_template.
    """
    known = {}
    plain = columns[-1][1] == "plain"
    names = [name for name, _kind in columns]
    at = names.index("log_template_id") if templates and "log_template_id" in names else None

    def amend(line):
        if plain:
            head, _tab, last = line.rpartition(b"\t")
            if last != b"\\N\n":
                made = known.get(last)
                if made is None:
                    made = pickled(history.unescaped(last[:-1].decode("utf-8", "surrogatepass"))) + b"\n"
                    if len(last) < 4096 and len(known) < 2048:
                        known[last] = made
                line = head + b"\t" + made
        if at is not None:
            fields = line.split(b"\t", at + 1)
            sent = fields[at].decode("ascii")
            fields[at] = templates.get(sent, templates[""])
            line = b"\t".join(fields)
        return line

    # splitlines breaks at \r and others too, which no line has: COPY's text format escapes them
    return amend if plain or at is not None else None


class _Careful(object):
    """Lines field by field, once PostgreSQL has refused them: SQLite and MySQL hold texts that it does not. Those
    become the nearest that it holds, and are listed; one that is too long for its column is refused by key.
    """

    def __init__(self, mapping, amend):
        self.mapping, self.amend = mapping, amend
        self.count, self.listed = 0, []

    def __call__(self, line):
        fields, whys = line[:-1].decode("utf-8", "surrogatepass").split("\t"), []
        for at, (name, kind) in enumerate(self.mapping.columns):
            if kind not in ("text", "json") or fields[at] == history.NULL:
                continue
            value = held = history.unescaped(fields[at])
            held = held.replace("\0", "\ufffd").encode("utf-16", "surrogatepass").decode("utf-16", "replace")
            if kind == "json":
                held = _json_that_fits(held)
            limit = self.mapping.has.get(name, {}).get("length")
            if limit and len(held) > limit:
                raise history.Unfit(
                    "%s.%s has %d characters where the target takes %d, at %s"
                    % (self.mapping.table, name, len(held), limit, " ".join(map(str, self._key(fields).values())))
                )
            if held != value:
                fields[at] = history.escaped(held)
                whys.append("%s has what PostgreSQL does not hold; it is written as near as can be" % name)
        if whys:
            self.count += 1
            if len(self.listed) < LISTED:
                self.listed.append({"why": "; ".join(whys), "key": self._key(fields)})
        line = ("\t".join(fields) + "\n").encode("utf-8")
        return self.amend(line) if self.amend else line

    def _key(self, fields):
        row = dict(zip((name for name, _kind in self.mapping.columns), fields))
        return {name: history.unescaped(row[name]) for name in self.mapping.key_names()}


def _json_that_fits(text):
    """NaN and infinities as text; what is no JSON as a JSON string; else the text as it is."""
    odd = []

    def constant(name):
        odd.append(name)
        return name

    try:
        value = json.loads(text, parse_constant=constant)
    except (ValueError, RecursionError):
        return json.dumps(text)
    return json.dumps(value) if odd else text


# --------------------------------------------------------------------------------------------------------- the mapping


class Mapping(object):
    """How the lines of a table become the target's rows.

    columns: [[name, kind]] of the lines. shift: what is taken off surrogate ids.
    """

    def __init__(self, target, table, columns, shift=0):
        self.table, self.columns, self.shift = table, [tuple(column) for column in columns], shift
        self.has, self.instances = target.columns[table], target.columns.get("task_instance", ())
        self.key = target.keys.get(table)
        lines = dict(self.columns)
        found = dict(FOUND.get(table, {}))
        if "run_id" in lines and "run_id" not in self.has and "execution_date" not in lines:
            found["execution_date"] = _RUN[:2] + ("execution_date",)
        self.found = {name: way for name, way in found.items() if name in self.has}
        joined = history.TABLES[table]["joins"]
        named = {column["name"] for column in history.TABLES[table]["columns"] if "." in column["source"]}
        self.lacking = [
            name
            for name in lines
            if name not in self.has and name not in named and not (name == "run_id" and "execution_date" in self.found)
        ]
        self.targets = []  # (column, expression, whether the target wants a value)
        for name, kind in self.columns:
            if name in self.has and name not in self.found:
                self.targets.append((name, self._expression(name, kind), self.has[name]["required"]))
        for name, (alias, _join, column) in sorted(self.found.items()):
            self.targets.append((name, "%s.%s" % (alias, column), False))
        self.made = [name for name, one in self.has.items() if one["required"] and not one["default"]]
        self.made = [name for name in self.made if name not in {entry[0] for entry in self.targets}]
        for name in self.made:
            self.targets.append((name, _filled_by_type(self.has[name]["type"]), False))
        self.joins = " ".join(sorted({join for _alias, join, _column in self.found.values()}))
        self.parents = self._fits(target)
        self.can_be_direct = (
            table in DIRECT
            and not shift
            and not self.lacking
            and not self.made
            and not joined
            and all(name in lines for name in self.found)
        )

    def _expression(self, name, kind):
        expression = "s." + history.name_of(name)
        if kind in ("id", "ref") and self.shift and name != "log_template_id":
            expression = "(%s - %d)" % (expression, self.shift)
        key = [one for one in self.key or () if one in {column for column, _kind in self.columns}]
        named = kind == "id" and key and "id" not in self.key and len(key) == len(self.key)
        if named:
            # SQLite gives the number of a deleted row to the next one: that one then takes a number of the target's
            other = " OR ".join("o.{0} IS DISTINCT FROM s.{0}".format(history.name_of(one)) for one in key)
            expression = (
                "CASE WHEN EXISTS (SELECT 1 FROM {0} o WHERE o.id = {1} AND ({2})) THEN NULL ELSE {1} END"
            ).format(self.table, expression, other)
        if named or kind == "id" and self.table == "dag_run":
            # as does a run that was made up for its task instances, which has none
            expression = "coalesce(%s, nextval(pg_get_serial_sequence('%s', 'id')))" % (expression, self.table)
        if kind == "json":
            expression = "CAST(%s AS %s)" % (expression, self.has[name]["type"])
        if self.has[name]["required"] and name in FILLED:
            filled = FILLED[name]
            if kind == "json":
                filled = "CAST(%s AS %s)" % (filled, self.has[name]["type"])
            expression = "coalesce(%s, %s)" % (expression, filled)
        return expression

    def _fits(self, target):
        """[(condition, why a row for which it is not true is left out)]"""
        fits = []
        for _name, (alias, _join, column) in sorted(self.found.items()):
            what = {"r": "its run", "d": "its dataset", "a": "its dataset alias"}[alias]
            fits.append(("%s.%s IS NOT NULL" % (alias, column), what + " is not on the target"))
        expressions = {name: expression for name, expression, _required in self.targets}
        for columns, parent, others in target.parents.get(self.table, []):
            if not all(name in expressions for name in columns) or any(name in self.found for name in columns):
                continue
            pairs = ["p.%s = %s" % (other, expressions[name]) for name, other in zip(columns, others)]
            exists = "EXISTS (SELECT 1 FROM %s p WHERE %s)" % (history.name_of(parent), " AND ".join(pairs))
            if not all(self.has[name]["required"] for name in columns):
                nulls = ["%s IS NULL" % expressions[name] for name in columns]
                exists = "(%s OR %s)" % (" OR ".join(nulls), exists)
            fits.append((exists, "its %s is not on the target" % _WORDS.get(parent, parent)))
        for name, expression, required in self.targets:
            if required and name not in FILLED and name != "id":
                fits.append(("%s IS NOT NULL" % expression, "it has no %s" % name))
        if self.table == "dag_run":
            fits.append(
                (
                    "NOT EXISTS (SELECT 1 FROM dag_run o WHERE o.dag_id = s.dag_id"
                    " AND o.execution_date = s.execution_date AND o.run_id <> s.run_id)",
                    "another run on the target has its date",
                )
            )
        return fits

    def staging(self, name):
        columns = ", ".join("%s %s" % (history.name_of(name), STAGED[kind]) for name, kind in self.columns)
        return "CREATE UNLOGGED TABLE %s (%s)" % (name, columns)

    def insert(self, staging, policy):
        """One statement; gives (inserted, updated)."""
        columns = ", ".join(history.name_of(name) for name, _expression, _required in self.targets)
        expressions = ", ".join(expression for _name, expression, _required in self.targets)
        where = " AND ".join(condition for condition, _why in self.parents) or "true"
        return (
            "WITH w AS (INSERT INTO %s AS t (%s) SELECT %s FROM %s s %s WHERE %s ON CONFLICT %s"
            " RETURNING xmax = 0 AS new) SELECT count(*) FILTER (WHERE new), count(*) FILTER (WHERE NOT new) FROM w"
            % (history.name_of(self.table), columns, expressions, staging, self.joins, where, self._conflict(policy))
        )

    def _conflict(self, policy):
        kept = set(self.key or ()) | {"id"}
        values = [name for name, _expression, _required in self.targets if name not in kept and name not in self.made]
        if policy in ("skip", "fail") or not self.key or not values:
            return "DO NOTHING"
        setting = ", ".join("%s = excluded.%s" % ((history.name_of(name),) * 2) for name in values)
        differ = "(%s) IS DISTINCT FROM (%s)" % (
            ", ".join(self._comparable("t", name) for name in values),
            ", ".join(self._comparable("excluded", name) for name in values),
        )
        if policy == "newer":
            differ += " AND " + self._newer()
        key = ", ".join(map(history.name_of, self.key))
        return "(%s) DO UPDATE SET %s WHERE %s" % (key, setting, differ)

    def _comparable(self, alias, name):
        qualified = "%s.%s" % (alias, history.name_of(name))
        return qualified + "::text" if self.has[name]["type"] == "json" else qualified

    def _newer(self):
        """Whether the bundle's row is newer: an imported one that the target has not touched since has what its source
        said of updated_at, which is nothing before 2.5.
        """
        if self.table in OF_INSTANCES:
            return self._not_ran_here()
        if self.table not in CHANGED:
            return "true"
        lines = {name for name, _expression, _required in self.targets}
        ways = [name for name in ("updated_at",) + CHANGED[self.table] if name in lines and name in self.has]
        if not ways:
            return "true"
        if "updated_at" not in self.has:
            return self._later(ways)
        # a row that differs at the same moment was changed where no one writes moments down: at the source
        sent = "coalesce(%s)" % ", ".join("excluded." + history.name_of(name) for name in ways)
        other = self._later([name for name in ways if name != "updated_at"])
        if other != "true" and "run_id" in self.has:
            # a row that the target itself wrote before it was upgraded to 2.5
            run = "SELECT 1 FROM dag_run o WHERE o.dag_id = t.dag_id AND o.run_id = t.run_id AND o.id > 0"
            other = "(NOT %s OR %s)" % ("t.id > 0" if self.table == "dag_run" else "EXISTS (%s)" % run, other)
        return "CASE WHEN t.updated_at IS NOT NULL THEN %s >= t.updated_at ELSE %s END" % (sent, other)

    @staticmethod
    def _later(ways):
        if not ways:
            return "true"
        there, sent = (
            "coalesce(%s)" % ", ".join("%s.%s" % (alias, history.name_of(name)) for name in ways)
            for alias in ("t", "excluded")
        )
        return "(%s IS NULL OR %s >= %s)" % (there, sent, there)

    def _not_ran_here(self):
        """The numbers of jobs are the target's own where they are no imported ones."""
        names = ["dag_id", "task_id", "run_id" if "run_id" in self.has else "execution_date", "map_index"]
        names = [name for name in names if name in self.has]
        if not all(name in self.instances for name in names):  # 2.2 knows one by its run, the other by its date
            return "true"
        same = " AND ".join("i.{0} = t.{0}".format(history.name_of(name)) for name in names)
        return "NOT EXISTS (SELECT 1 FROM task_instance i WHERE %s AND i.job_id > 0)" % same

    def left_out(self, staging):
        """A SELECT of the rows that the INSERT did not take: why, and their key."""
        reasons = " ".join(
            "WHEN NOT coalesce(%s, false) THEN %s" % (condition, history.literal(why))
            for condition, why in self.parents
        )
        if not reasons:
            return None
        return (
            "SELECT why, count(*) OVER (), %s FROM (SELECT CASE %s END AS why, s.* FROM %s s %s) x"
            " WHERE why IS NOT NULL LIMIT %d"
            % (", ".join(self._key_columns("x")), reasons, staging, self.joins, LISTED)
        )

    def conflicts(self, staging):
        """A SELECT of the staged rows that the target has already: how many, and their key."""
        expressions = {name: expression for name, expression, _required in self.targets}
        pairs = " AND ".join("t.%s = %s" % (history.name_of(name), expressions[name]) for name in self.key)
        return "SELECT count(*) OVER (), %s FROM %s s %s JOIN %s t ON %s LIMIT %d" % (
            ", ".join(self._key_columns("s")),
            staging,
            self.joins,
            history.name_of(self.table),
            pairs,
            LISTED,
        )

    def _key_columns(self, alias):
        return ["%s.%s::text" % (alias, history.name_of(name)) for name in self.key_names()]

    def key_names(self):
        lines = {name for name, _kind in self.columns}
        return [name for name in history.TABLES[self.table]["key"] if name in lines]


_WORDS = {"dag_run": "run", "task_instance": "task instance", "log_template": "log template"}


def _filled_by_type(kind):
    for start, value in FILLED_BY_TYPE:
        if kind.startswith(start):
            return "CAST(%s AS %s)" % (value, kind)
    raise history.Unfit("the target wants a value of type %s that no source has" % kind)


# ------------------------------------------------------------------------------------------------------------ one piece


class Bundle(object):
    """What pieces have in common.

    identifier: of the bundle. columns: {table: [[name, kind]]} of its lines. dags: the DAG ids it carries. policy: one
    of POLICIES. shift: see `register`.
    """

    def __init__(self, identifier, columns, dags, policy="skip", shift=0):
        if policy not in POLICIES:
            raise history.Unfit("no policy is called %s: there are %s" % (policy, ", ".join(POLICIES)))
        self.identifier, self.columns, self.dags = identifier, columns, list(dags)
        self.policy, self.shift = policy, shift


def import_piece(target, bundle, piece, body, templates=None):
    """One piece, in one transaction. Gives what the ledger then says of it, None: another had done it before.

    piece: {"table", "sha256", "rows"}. body: the bytes of a gzip file. Raises Unfit; then nothing of it was written.
    """
    table = piece["table"]
    _check(piece, body)
    if table not in target.columns:
        raise history.Unfit("the target has no table %s: leave it out of the plan" % table)
    mode = "staged" if piece.get("orphans") else _mode(target, bundle, table)
    while True:
        try:
            return _import_piece(target, bundle, piece, body, mode, templates)
        except history.Unfit:
            target.rollback()
            raise
        except Exception as error:
            target.rollback()
            code = getattr(error, "pgcode", None) or ""
            # what was not there when it was looked for has come since, or a row has no parent
            if mode == "direct" and code[:2] == "23":
                target.begin()
                mode = "staged"
                _change_mode(target, bundle, table)
            elif code[:2] == "22" and mode != "careful":
                mode = "careful"
            else:
                raise


def _check(piece, body):
    if hashlib.sha256(body).hexdigest() != piece["sha256"]:
        raise history.Unfit(
            "a piece of %s is not the one that was exported (%s): its sha256 differs; %s"
            % (piece["table"], _place(piece), AGAIN)
        )


def _import_piece(target, bundle, piece, body, mode, templates):
    table, name = piece["table"], "%s:%s" % (piece["table"], piece["sha256"])
    target.begin()
    if not _note(target, bundle.identifier, "piece", name):
        target.rollback()
        return None
    special = {"dag": _import_dags, "log_template": _import_templates}.get(table)
    if special:
        entry = special(target, bundle, _Feed(body))
    else:
        mapping = Mapping(target, table, bundle.columns[table], bundle.shift)
        amend = amender(mapping.columns, templates if table == "dag_run" else None)
        careful = _Careful(mapping, amend) if mode == "careful" else None
        write = _write_direct if mode == "direct" else _write_staged
        entry = write(target, bundle, mapping, _Feed(body, careful or amend))
        if careful:
            entry["mended"] = careful.count
            entry["listed"] += careful.listed
    if entry["rows"] != piece["rows"]:
        raise history.Unfit(
            "a piece of %s has %d rows where %d were exported (%s)"
            % (table, entry["rows"], piece["rows"], _place(piece))
        )
    entry["table"] = table
    target.run(
        "UPDATE %s SET value = %%s, rows = %%s, at = clock_timestamp() WHERE bundle = %%s AND kind = 'piece'"
        " AND name = %%s" % LEDGER,
        (json.dumps(entry), entry["rows"], bundle.identifier, name),
    )
    target.commit()
    return entry


def _place(piece):
    return piece.get("path") or piece["sha256"][:12]


def _entry(rows, inserted=0, updated=0, left_out=0, listed=()):
    return {
        "rows": rows,
        "inserted": inserted,
        "updated": updated,
        "left_out": left_out,
        "mended": 0,
        "kept": rows - inserted - updated - left_out,
        "listed": list(listed),
    }


def _write_direct(target, bundle, mapping, feed):
    columns = ", ".join(history.name_of(name) for name, _kind in mapping.columns)
    rows = target.copy("COPY %s (%s) FROM STDIN" % (history.name_of(mapping.table), columns), feed)
    return _entry(rows, rows)


def _stage(target, mapping, feed):
    name = "%s_%d" % (STAGING, target.connection.get_backend_pid())
    target.run(mapping.staging(name))
    return name, target.copy("COPY %s FROM STDIN" % name, feed)


def _write_staged(target, bundle, mapping, feed):
    staging, rows = _stage(target, mapping, feed)
    if bundle.policy == "fail" and mapping.table not in SHARED:
        met = target.rows(mapping.conflicts(staging)) if mapping.key else []
        if met:
            raise history.Unfit(_conflict_sentence(mapping.table, met[0][0], mapping.key_names(), met[0][1:]))
    _note_numbers(target, bundle, mapping, staging, "met", "made")
    inserted, updated = target.rows(mapping.insert(staging, bundle.policy))[0]
    _note_numbers(target, bundle, mapping, staging, "made", "met")
    left_out, listed = 0, []
    if inserted + updated < rows:
        statement = mapping.left_out(staging)
        for row in target.rows(statement) if statement else ():
            left_out = row[1]
            listed.append({"why": row[0], "key": dict(zip(mapping.key_names(), row[2:]))})
    target.run("DROP TABLE %s" % staging)
    return _entry(rows, inserted, updated, left_out, listed)


def _note_numbers(target, bundle, mapping, staging, kind, other):
    """Numbers of the target's sequences that these rows have: met (the row was there before) or made (it got one)."""
    if mapping.table not in NAMED:
        return
    key = " AND ".join("t.%s = s.%s" % ((history.name_of(name),) * 2) for name in mapping.key)
    target.run(
        "INSERT INTO %s (bundle, kind, name) SELECT %%s, %%s, t.id::text FROM %s s JOIN %s t ON %s WHERE t.id > 0"
        " AND NOT EXISTS (SELECT 1 FROM %s l WHERE l.kind = %%s AND l.name = t.id::text) ON CONFLICT DO NOTHING"
        % (LEDGER, staging, history.name_of(mapping.table), key, LEDGER),
        (bundle.identifier, "%s:%s" % (kind, mapping.table), "%s:%s" % (other, mapping.table)),
    )


def _conflict_sentence(table, count, names, first):
    return "the target has %d rows of this bundle already in %s, the first is %s: choose another on_conflict" % (
        count,
        table,
        ", ".join("%s=%s" % pair for pair in zip(names, first)),
    )


def _fields(columns, line):
    fields = line[:-1].decode("utf-8", "surrogatepass").split("\t")
    return {name: history.unescaped(field) for (name, _kind), field in zip(columns, fields)}


def _import_dags(target, bundle, feed):
    """What the source says of pause goes to the ledger: the target's own switches are `pause_dags`'s."""
    rows = 0
    for line in feed.lines():
        row = _fields(bundle.columns["dag"], line)
        target.run(
            "INSERT INTO %s (bundle, kind, name, value) VALUES (%%s, 'source_dag', %%s, %%s)"
            " ON CONFLICT (bundle, kind, name) DO UPDATE SET value = excluded.value" % LEDGER,
            (bundle.identifier, row["dag_id"], row["is_paused"]),
        )
        rows += 1
    return _entry(rows, rows)


def _import_templates(target, bundle, feed):
    """Templates by their text: one that the target lacks keeps its negated id, so that it never is the newest."""
    rows = inserted = 0
    for line in feed.lines():
        row = _fields(bundle.columns["log_template"], line)
        texts = (row["filename"], row["elasticsearch_id"])
        find = "SELECT max(id) FROM log_template WHERE filename = %s AND elasticsearch_id = %s"
        found = target.rows(find, texts)[0][0]
        if found is None:
            found = int(row["id"]) - bundle.shift
            inserted += target.run(
                "INSERT INTO log_template (id, filename, elasticsearch_id, created_at)"
                " VALUES (%s, %s, %s, coalesce(%s::timestamptz, now()))",
                (found,) + texts + (row["created_at"],),
            )
        _note(target, bundle.identifier, "template", row["id"], str(found))
        rows += 1
    return _entry(rows, inserted)


def templates_of(target, bundle):
    """{sent id: the target's} as the bytes of fields; "" for runs that never had one, or whose was not carried: the one
    that the target's new runs take, as their task logs are brought to where that looks for them (NULL would be the
    oldest, which is another in 2.3 to 2.6). Empty before 2.3.
    """
    if "log_template" not in target.columns:
        return {}
    found = {"": target.rows("SELECT max(id) FROM log_template WHERE id > 0")[0][0]}
    found.update(_noted(target, bundle.identifier, "template"))
    return {sent: history.NULL.encode() if there is None else b"%d" % int(there) for sent, there in found.items()}


# ------------------------------------------------------------------------------------------------- what can conflict


def decide_modes(target, bundle, tables):
    """{table: "direct" or "staged"}, asked once before a table's first piece, and kept in the ledger."""
    known = _noted(target, bundle.identifier, "mode")
    for table in tables:
        if table in known or table not in target.columns:
            continue
        free = table in DIRECT and Mapping(target, table, bundle.columns[table], bundle.shift).can_be_direct
        free = free and _is_free(target, bundle, table, known)
        _note(target, bundle.identifier, "mode", table, "direct" if free else "staged")
        known[table] = "direct" if free else "staged"
    return known


def _is_free(target, bundle, table, modes):
    """Whether no row of the target can be met by one of the bundle's: neither by its id nor by what it is called."""
    has = target.columns[table]
    if "id" in has and target.rows("SELECT 1 FROM %s WHERE id < 0 LIMIT 1" % history.name_of(table)):
        return False
    if "id" in has and target.keys.get(table) == ("id",):
        return True
    if table == "xcom" and modes.get("dag_run") != "direct":
        return False
    return not target.rows("SELECT 1 FROM %s WHERE dag_id = ANY (%%s) LIMIT 1" % history.name_of(table), (bundle.dags,))


def _mode(target, bundle, table):
    target.begin()
    found = _noted(target, bundle.identifier, "mode").get(table, "staged")
    target.rollback()
    return found


def _change_mode(target, bundle, table):
    """From here on this table is staged; and with runs that are not all ours, everything that names them."""
    tables = sorted(DIRECT) if table == "dag_run" else [table]
    target.run(
        "UPDATE %s SET value = 'staged' WHERE bundle = %%s AND kind = 'mode' AND name = ANY (%%s)" % LEDGER,
        (bundle.identifier, tables),
    )
    target.commit()


def find_conflicts(target, bundle, piece, body):
    """(how many rows of a piece the target has already, [their keys]): nothing is written."""
    target.begin()
    try:
        if piece["table"] in SHARED or piece["table"] not in target.columns:
            return 0, []
        mapping = Mapping(target, piece["table"], bundle.columns[piece["table"]], bundle.shift)
        if not mapping.key:
            return 0, []
        staging, _rows = _stage(target, mapping, _Feed(body, amender(mapping.columns)))
        found = target.rows(mapping.conflicts(staging))
        names = mapping.key_names()
        return (found[0][0] if found else 0), [dict(zip(names, row[1:])) for row in found]
    finally:
        target.rollback()


def register(target, source, beside=False, runs=None):
    """The shift of this source's ids. source: text that names it, the same in each of its bundles.

    The first source's ids are negated and that is all. Another one is refused unless `beside` says that it is meant;
    its ids then lie below all that are there. A ledger that was dropped knows no source, and the rows stay: whose they
    are is then told by their runs. runs: function that gives some of this source's, (negated id, dag_id, run_id).
    """
    make_ledger(target)
    target.commit()
    target.begin()
    target.run("LOCK TABLE %s IN SHARE ROW EXCLUSIVE MODE" % LEDGER)
    known = _noted(target, "", "source")
    if source not in known:
        shift, lowest = 0, 0
        for table in target.columns:
            if target.columns[table].get("id") and table != "log_template":  # which goes by its text
                found = target.rows("SELECT min(id) FROM %s" % history.name_of(table))[0][0]
                lowest = min(lowest, found or 0)
        former = _former_shift(target, runs() if runs and lowest else ())
        if former is not None and str(former) not in known.values():
            shift = former
        elif known or lowest:
            if not beside:
                raise history.Unfit(
                    "the target has history of another source already: set beside (the role's history_beside) to have"
                    " both"
                )
            shift = (-lowest // SPAN + 1) * SPAN
            if -shift - SPAN < LOWEST:
                raise history.Unfit("the target has no room for the ids of another source: they would end below -2^31")
        _note(target, "", "source", source, str(shift))
        known[source] = str(shift)
    target.commit()
    return int(known[source])


def _former_shift(target, runs):
    """Where an import that the ledger knows no more has put these runs, None: nowhere."""
    if not runs:
        return None
    found = target.rows(
        "SELECT v.id - r.id FROM unnest(%s::bigint[], %s::text[], %s::text[]) v(id, dag_id, run_id) JOIN dag_run r"
        " ON r.dag_id = v.dag_id AND r.run_id = v.run_id WHERE r.id < 0 AND r.id <= v.id AND (v.id - r.id) %% %s = 0"
        " GROUP BY 1 ORDER BY count(*) DESC LIMIT 1",
        tuple(map(list, zip(*runs))) + (SPAN,),
    )
    return found[0][0] if found else None


def _some_runs(request, fetch):
    """[(negated id, dag_id, run_id)] of one of the request's pieces."""
    names = [name for name, _kind in request["columns"].get("dag_run", ())]
    found = []
    for piece in request["pieces"]:
        if piece["table"] == "dag_run" and not piece.get("orphans"):
            body = fetch(piece)
            _check(piece, body)
            for line in itertools.islice(_Feed(body).lines(), LISTED * 10):
                row = dict(zip(names, line[:-1].decode("utf-8").split("\t")))
                texts = [history.unescaped(row[name]) for name in ("dag_id", "run_id")]
                found.append((int(row["id"]),) + tuple(texts))
            break
    return found


# ---------------------------------------------------------------------------------------------------------- many pieces


def import_parts(connect, bundle, pieces, fetch, workers=2, until=None, clock=time.time, search_path=None, tell=None):
    """Pieces in the order of their tables' phases, several at once. Gives what `progress` says, and:

    done, left: sha256 of pieces; lacking: [{"table", "column"}] that the target cannot hold.
    connect: function that gives a psycopg2 connection of its own. fetch(piece): its bytes. until: no piece is begun
    after (seconds since 1970). tell: see airflow_agent.history. Raises Unfit: what was finished before stays, and is
    not done again.
    """
    target = Target(connect(), search_path)
    try:
        target.begin()
        make_ledger(target)
        target.commit()
        unknown = sorted({piece["table"] for piece in pieces} - set(bundle.columns))
        if unknown:
            raise history.Unfit("the bundle does not say what the columns of %s are" % ", ".join(unknown))
        target.begin()
        done = set(_noted(target, bundle.identifier, "piece"))
        order = [name for name in history.TABLES if name in {piece["table"] for piece in pieces}]
        order.sort(key=lambda name: history.TABLES[name]["phase"])
        decide_modes(target, bundle, order)
        lacking = _lacking(target, bundle, order)
        target.commit()
        if bundle.policy == "fail":
            _refuse_conflicts(target, bundle, [one for one in pieces if _name(one) not in done], fetch)
        work = _Work(connect, bundle, fetch, until, clock, search_path, tell)
        for phase in sorted({history.TABLES[name]["phase"] for name in order}):
            waiting = [one for one in pieces if history.TABLES[one["table"]]["phase"] == phase]
            waiting = [one for one in waiting if _name(one) not in done]
            target.begin()
            templates = templates_of(target, bundle)
            target.commit()
            # the largest first: the end is then shared evenly
            waiting.sort(key=lambda one: -one.get("size", 0))
            work.run(waiting, templates, workers)
            done.update(work.done)
            if work.failure:
                raise work.failure
            if any(_name(one) not in done for one in waiting):
                break
        target.begin()
        answer = progress(target, bundle.identifier)
        answer["done"] = [one["sha256"] for one in pieces if _name(one) in done]
        answer["left"] = [one["sha256"] for one in pieces if _name(one) not in done]
        answer["lacking"] = lacking
        return answer
    finally:
        target.rollback()
        target.connection.close()


def _name(piece):
    return "%s:%s" % (piece["table"], piece["sha256"])


def _lacking(target, bundle, tables):
    found = []
    for table in tables:
        if table not in target.columns:
            found.append({"table": table, "column": None})
        elif table not in ("dag", "log_template"):
            mapping = Mapping(target, table, bundle.columns[table], bundle.shift)
            found += [{"table": table, "column": column} for column in mapping.lacking]
    return found


def _refuse_conflicts(target, bundle, pieces, fetch):
    """on_conflict fail: everything is looked at before anything is written."""
    modes = _noted(target, bundle.identifier, "mode")
    target.rollback()
    found, keys = 0, []
    for piece in pieces:
        if modes.get(piece["table"]) != "direct":
            count, some = find_conflicts(target, bundle, piece, fetch(piece))
            found += count
            keys += ["%s %s" % (piece["table"], " ".join(map(str, key.values()))) for key in some]
    if found:
        raise history.Unfit(
            "the target has %d rows of this bundle already, nothing was written; choose another on_conflict."
            " The first: %s" % (found, "; ".join(keys[:LISTED]))
        )


class _Work(object):
    """Threads, since what takes time is the server: each has a connection and takes the next piece."""

    def __init__(self, connect, bundle, fetch, until, clock, search_path, tell=None):
        self.connect, self.bundle, self.fetch, self.tell = connect, bundle, fetch, tell
        self.until, self.clock, self.search_path = until, clock, search_path
        self.done, self.failure, self.expired = set(), None, False
        self.lock = threading.Lock()

    def run(self, pieces, templates, workers):
        self.waiting, self.templates = list(reversed(pieces)), templates
        threads = [threading.Thread(target=self._work) for _number in range(max(1, min(workers, len(pieces))))]
        for thread in threads:
            thread.daemon = True
            thread.start()
        for thread in threads:
            thread.join()

    def _take(self):
        with self.lock:
            late = self.until is not None and self.clock() >= self.until
            late = late or self.expired or self.failure
            return self.waiting.pop() if self.waiting and not late else None

    def _work(self):
        target = None
        try:
            while True:
                piece = self._take()
                if piece is None:
                    return
                body = self.fetch(piece)
                for attempt in range(TRIES):
                    try:
                        target = target or Target(self.connect(), self.search_path)
                        import_piece(target, self.bundle, piece, body, self.templates)
                        break
                    except history.Unfit:
                        raise
                    except Exception as error:
                        if target is None or not target.rollback():
                            target = None
                        if attempt == TRIES - 1 or not _passes(error):
                            raise history.Unfit(sentence(error, piece)) from None
                        time.sleep(0.2 * (attempt + 1))
                with self.lock:
                    self.done.add(_name(piece))
                    if self.tell:
                        self.tell(pieces=1, rows=piece["rows"])
        except BaseException as error:
            with self.lock:
                if getattr(error, "expired", False):  # what is left is asked for again, with permissions anew
                    self.expired = True
                else:
                    self.failure = self.failure or error
        finally:
            if target is not None:
                target.connection.close()


def _passes(error):
    """Whether trying again may help: a lost connection, a server that restarts, a deadlock."""
    code = getattr(error, "pgcode", None)
    if code is None:
        return type(error).__name__ in ("OperationalError", "InterfaceError")
    return code[:2] in ("08", "40") or code in ("57P01", "57P02", "57P03", "53300")


# the texts of databases repeat values: ours do not
_SENTENCES = {
    "53100": "the target's database has no space left: let its storage grow, then run again",
    "53200": "the target's database has no memory left: run again with fewer workers",
    "42501": "the target's database user may not write here",
    "55P03": "something on the target holds a lock: stop what runs there, then run again",
    "22001": "a text is longer than the target's column",
    "22P02": "a value is not what the target's column takes",
    "22P05": "a text has a character that the target's database has no code for",
    "22021": "a text has a character that the target's database does not hold",
    "21000": "the piece has the same row twice",
}


def reason(error):
    code = getattr(error, "pgcode", None)
    what = _SENTENCES.get(code)
    if what is None and code is None and type(error).__name__ in ("OperationalError", "InterfaceError"):
        what = "the target's database cannot be reached or has ended the connection: run again"
    if what is None:
        what = "the target's database refuses it (%s %s)" % (type(error).__name__, code or "")
        name = getattr(getattr(error, "diag", None), "constraint_name", None)
        what += ", by %s" % name if name else ""
    return what


def sentence(error, piece):
    what = reason(error)
    column = getattr(getattr(error, "diag", None), "column_name", None)
    where = piece["table"] + (".%s" % column if column else "")
    return "%s (%s, piece %s); nothing of this piece was written" % (what, where, _place(piece))


def progress(target, identifier):
    """{"tables": {table: {"pieces", "rows", "inserted", "updated", "kept", "left_out", "mended"}}, "listed", "more"}"""
    tables, listed, more = {}, [], 0
    for (text,) in target.rows(
        "SELECT value FROM %s WHERE bundle = %%s AND kind = 'piece' ORDER BY at" % LEDGER, (identifier,)
    ):
        entry = json.loads(text)
        sums = tables.setdefault(entry["table"], dict.fromkeys(("pieces",) + _SUMS, 0))
        sums["pieces"] += 1
        for name in _SUMS:
            sums[name] += entry[name]
        room = max(history.LISTED - len(listed), 0)
        listed += [dict(one, table=entry["table"]) for one in entry["listed"][:room]]
        more += entry["left_out"] + entry["mended"] - len(entry["listed"][:room])
    return {"tables": tables, "listed": listed, "more": more}


_SUMS = ("rows", "inserted", "updated", "kept", "left_out", "mended")


# -------------------------------------------------------------------------------------------------------------- pauses


def _not_own(column):
    """SQL: this DAG is none of the migration's own. To be used in statements without parameters."""
    return "(%s)" % " AND ".join(
        "%s NOT LIKE %s" % (column, history.literal(one.replace("_", "\\_").replace("*", "%")))
        for one in history.OWN_DAGS
    )


def _alone(target):
    """Until the transaction ends, no import begins and no DAG is resumed."""
    target.rows("SELECT pg_advisory_xact_lock(hashtext(%s))", (LEDGER,))


def announce(target, bundle, seconds=0):
    """This bundle is being imported, for so many seconds and until its next request could have begun: meanwhile no
    import of another resumes a DAG.
    """
    target.begin()
    _alone(target)
    _note(target, "", "importing", bundle)
    target.run(
        "UPDATE %s SET at = clock_timestamp() + interval '%d seconds' WHERE bundle = '' AND kind = 'importing' AND name"
        " = %%s" % (LEDGER, seconds + BELIEVED),
        (bundle,),
    )
    target.commit()


def _ended(target, bundle):
    target.begin()
    target.run("DELETE FROM %s WHERE bundle = '' AND kind = 'importing' AND name = %%s" % LEDGER, (bundle,))
    target.commit()


BELIEVED = 600  # seconds in which an import's next request begins, or none does


def pause_dags(target, action, dags=None, bundles=()):
    """pause: what is unpaused is written down and paused, in one statement; what was written down stays so, however
    often this is called. resume: those of `dags` (nothing: all) that were written down are unpaused again, and no
    others; a DAG whose file Airflow has not read since its runs were imported is `waiting`, as its next run would
    still be the one that followed before. show: nothing. Gives {"changed": [dag_id], "unpaused": [those written down
    that are not unpaused yet], "waiting": [those of them that a resume did not take], "importing": [bundles but these
    that are being imported: nothing is resumed then, as the last of them does it]}.
    """
    target.begin()
    make_ledger(target)
    changed, waiting, importing = [], [], []
    if action == "pause":
        changed = target.rows(
            "WITH p AS (UPDATE dag SET is_paused = true WHERE is_paused IS NOT TRUE AND %s RETURNING dag_id),"
            " w AS (INSERT INTO %s (bundle, kind, name) SELECT '', 'unpaused', dag_id FROM p ON CONFLICT DO NOTHING)"
            " SELECT dag_id FROM p" % (_not_own("dag_id"), LEDGER)
        )
    elif action == "resume":
        _alone(target)
        found = target.rows(
            "SELECT name FROM %s WHERE bundle = '' AND kind = 'importing' AND at > clock_timestamp()" % LEDGER
        )
        importing = sorted(row[0] for row in found if row[0] not in bundles)
        known = _noted(target, "", "unpaused") if not importing else {}
        chosen = sorted(name for name in known if dags is None or name in dags)
        waiting = _not_read_since(target, chosen)
        changed = target.rows(
            "WITH w AS (DELETE FROM %s WHERE bundle = '' AND kind = 'unpaused' AND name = ANY (%%s) RETURNING name)"
            " UPDATE dag SET is_paused = false FROM w WHERE dag_id = w.name RETURNING dag_id" % LEDGER,
            (sorted(set(chosen) - set(waiting)),),
        )
    elif action != "show":
        raise history.Unfit("DAGs are paused, resumed or shown, not %s" % action)
    answer = {"changed": sorted(row[0] for row in changed), "unpaused": sorted(_noted(target, "", "unpaused"))}
    target.commit()
    return dict(answer, waiting=waiting, importing=importing) if action == "resume" else answer


def forget_next_runs(target):
    """Whoever unpauses a DAG before Airflow has read its file again must not get the run that followed when it had no
    history: an interval that has run. Without a date there is no next run, and reading the file computes it anew.
    """
    target.begin()
    if has_ledger(target) and "next_dagrun_create_after" in target.columns["dag"]:
        stale = _not_read_since(target, [row[0] for row in target.rows("SELECT dag_id FROM dag")])
        target.run("UPDATE dag SET next_dagrun_create_after = NULL WHERE dag_id = ANY (%s)", (stale,))
    target.commit()


def _not_read_since(target, dags):
    """Those DAGs that Airflow knows, can import, and has not read since the last piece of runs. Reading a DAG's file
    is what makes Airflow compute its next run.
    """
    has = target.columns["dag"]
    if "last_parsed_time" not in has:
        return []
    since = target.rows(
        "SELECT max(at) + interval '%d seconds' FROM %s WHERE kind = 'piece' AND split_part(name, ':', 1) = 'dag_run'"
        % (SKEW, LEDGER)
    )[0][0]
    if since is None:
        return []
    alive = [name + (" IS TRUE" if name == "is_active" else " IS NOT TRUE") for name in _ALIVE if name in has]
    rows = target.rows(
        "SELECT dag_id FROM dag WHERE dag_id = ANY (%%s) AND (last_parsed_time IS NULL OR last_parsed_time <= %%s)%s"
        " ORDER BY dag_id" % "".join(" AND " + one for one in alive),
        (list(dags), since),
    )
    return [row[0] for row in rows]


_ALIVE = ("is_active", "has_import_errors")
SKEW = 5  # seconds that the clocks of the database and of the scheduler may differ


# -------------------------------------------------------------------------------------------------------------- indexes


def drop_indexes(target, tables):
    """Plain indexes and foreign keys of these tables, into the ledger and away, in one transaction. Refused while
    anything but the agent runs. Gives the names.
    """
    target.begin()
    make_ledger(target)
    target.commit()
    tables = sorted(table for table in tables if table in target.columns)
    _lock_all(target, tables)
    running = target.rows(
        "SELECT dag_id, task_id FROM task_instance WHERE state IN (%s) AND %s LIMIT 3"
        % (", ".join(map(history.literal, history.IN_FLIGHT)), _not_own("dag_id"))
    )
    if running:
        target.rollback()
        raise history.Unfit(
            "indexes are not dropped while tasks run on the target: %s" % ", ".join("%s.%s" % row for row in running)
        )
    entries = [
        {"type": kind, "name": name, "table": table, "definition": definition}
        for kind, name, table, definition in target.rows(
            "SELECT 'constraint', k.conname, c.relname, pg_get_constraintdef(k.oid) FROM pg_constraint k"
            " JOIN pg_class c ON c.oid = k.conrelid JOIN pg_namespace n ON n.oid = c.relnamespace"
            " WHERE k.contype = 'f' AND c.relname = ANY (%s) AND n.nspname = ANY (current_schemas(false))"
            " UNION ALL SELECT 'index', i.relname, c.relname, pg_get_indexdef(i.oid) FROM pg_index x"
            " JOIN pg_class i ON i.oid = x.indexrelid JOIN pg_class c ON c.oid = x.indrelid"
            " JOIN pg_namespace n ON n.oid = c.relnamespace"
            " WHERE NOT x.indisunique AND c.relname = ANY (%s) AND n.nspname = ANY (current_schemas(false))",
            (tables, tables),
        )
    ]
    for entry in entries:
        _note(target, "", "ddl", entry["name"], json.dumps(entry))
        if entry["type"] == "index":
            target.run("DROP INDEX %s" % history.name_of(entry["name"]))
        else:
            table, name = history.name_of(entry["table"]), history.name_of(entry["name"])
            target.run("ALTER TABLE %s DROP CONSTRAINT %s" % (table, name))
    target.commit()
    return sorted(entry["name"] for entry in entries)


def _lock_all(target, tables):
    """These tables and those that they refer to, in a new transaction, or none of them: whoever waits for one that we
    have while we wait for another waits for a moment only.
    """
    for attempt in range(LOCK_TRIES):
        target.begin()
        parents = target.rows(
            "SELECT DISTINCT p.relname FROM pg_constraint k JOIN pg_class c ON c.oid = k.conrelid"
            " JOIN pg_namespace n ON n.oid = c.relnamespace JOIN pg_class p ON p.oid = k.confrelid"
            " WHERE k.contype = 'f' AND c.relname = ANY (%s) AND n.nspname = ANY (current_schemas(false))",
            (tables,),
        )
        names = sorted(set(tables) | {row[0] for row in parents})
        target.run("SET LOCAL statement_timeout = %d" % (1000 * LOCK_WAIT))
        try:
            if names:
                target.run("LOCK TABLE %s IN ACCESS EXCLUSIVE MODE" % ", ".join(map(history.name_of, names)))
            target.run("SET LOCAL statement_timeout = 0")
            return
        except Exception as error:
            if getattr(error, "pgcode", None) != "57014":  # the time is up
                raise
            target.rollback()
        if attempt < LOCK_TRIES - 1:
            time.sleep(LOCK_WAIT)
    raise history.Unfit(_SENTENCES["55P03"])


LOCK_WAIT, LOCK_TRIES = 3, 6  # seconds, and how often


def rebuild_indexes(connect, workers=2, search_path=None):
    """What the ledger says is missing, indexes before foreign keys, each in a transaction of its own. Gives their
    names.
    """
    target = Target(connect(), search_path)
    try:
        target.begin()
        entries = []
        if has_ledger(target):
            entries = [json.loads(text) for text in _noted(target, "", "ddl").values()]
        target.commit()
    finally:
        target.connection.close()
    built, failures, lock = [], [], threading.Lock()

    def work(waiting):
        mine = None
        try:
            mine = Target(connect(), search_path)
            while True:
                with lock:
                    some = waiting.pop() if waiting and not failures else None
                if some is None:
                    return
                for entry in some:
                    _build(mine, entry)
                    built.append(entry["name"])
        except BaseException as error:
            failures.append(error)
        finally:
            if mine is not None:
                mine.connection.close()

    for kind in ("index", "constraint"):
        chosen = [entry for entry in entries if entry["type"] == kind]
        # a foreign key locks both tables, so these come one after the other; of a table's indexes several at once
        waiting = [[entry] for entry in chosen] if kind == "index" else [chosen] if chosen else []
        threads = [threading.Thread(target=work, args=(waiting,)) for _number in range(min(workers, len(waiting)))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if failures:
            if isinstance(failures[0], history.Unfit):
                raise failures[0]
            raise history.Unfit(
                "indexes and foreign keys are not all back, run again: %s" % sentence(failures[0], {"table": kind})
            )
    return sorted(built)


_FOREIGN_KEY = re.compile(r"FOREIGN KEY \(([^)]+)\) REFERENCES ([^(]+)\(([^)]+)\)")


def _build(target, entry):
    target.begin()
    target.run("SET LOCAL maintenance_work_mem = '256MB'")
    target.run("DELETE FROM %s WHERE bundle = '' AND kind = 'ddl' AND name = %%s" % LEDGER, (entry["name"],))
    table, name = history.name_of(entry["table"]), history.name_of(entry["name"])
    if entry["type"] == "index":
        if not target.rows("SELECT to_regclass(%s)", (name,))[0][0]:
            target.run(entry["definition"])
    elif not target.rows("SELECT 1 FROM pg_constraint WHERE conname = %s", (entry["name"],)):
        statement = "ALTER TABLE %s ADD CONSTRAINT %s %s" % (table, name, entry["definition"])
        target.run("SAVEPOINT before")
        try:
            target.run(statement)
        except Exception as error:
            if getattr(error, "pgcode", None) != "23503":
                raise
            target.run("ROLLBACK TO SAVEPOINT before")
            columns, parent, others = _FOREIGN_KEY.match(entry["definition"]).groups()
            pairs = list(zip(columns.split(", "), others.split(", ")))
            present = " AND ".join("t.%s IS NOT NULL" % mine for mine, _theirs in pairs)
            same = " AND ".join("t.%s = p.%s" % pair for pair in pairs)
            count = target.run(
                "DELETE FROM %s t WHERE %s AND NOT EXISTS (SELECT 1 FROM %s p WHERE %s)"
                % (table, present, parent, same)
            )
            target.run(statement)
            why = "its %s is not on the target" % _WORDS.get(parent, parent)
            found = json.dumps({"table": entry["table"], "why": why, "rows": count})
            # a key may come back several times, after each import without it
            name = "%s %s" % (entry["name"], target.rows("SELECT clock_timestamp()::text")[0][0])
            _note(target, "", "left_out", name, found)
    target.commit()


def _left_out(target):
    """[{"table", "why", "rows"}]: rows without the parent that a key asks for, which had to go when it came back."""
    return [json.loads(text) for _name, text in sorted(_noted(target, "", "left_out").items())]


# -------------------------------------------------------------------------------------------------------------- verify


def verify(engine, tables, columns, scope, key, dags, shifts=(0, None), of_runs=False, since=None):
    """Digests of what was imported, read back: {table: {dag_id: [rows, hex]}}, comparable with an export's.

    of_runs: of the runs in the temporary table that `_stage_keys` made, nothing else of tables that belong to runs.
    since: nothing that is older, as of a plan.

    engine: history.Engine of the target. columns: {table: [[name, kind]]} of the lines. scope: the plan's (its hash).
    shifts: this source's shift and the next one's, which is where its ids end.
    """
    found = {}
    for table in tables:
        lines = _lines(table, columns[table], history.hash_of(scope["hash"], key), engine)
        alias = {"run": "t", "of_run": "r"}.get(history.TABLES[table]["unit"]) if of_runs else None
        same = "c.dag_id = {0}.dag_id AND c.run_id = {0}.run_id".format(alias)
        more = ["EXISTS (SELECT 1 FROM mwaa_migration_runs c WHERE %s)" % same] if alias else []
        _read_back(engine, table, columns[table], dags, shifts, lines, more=more, since=since)
        found[table] = lines.digests()
    return found


def _lines(table, columns, hasher, engine=None):
    """history._Lines that compresses nothing and keeps nothing. engine: what the lines come from, if not a piece."""
    described = [{"name": name, "kind": kind} for name, kind in columns]
    exact = engine is None or engine.version >= 120000  # before, PostgreSQL prints all digits (see export_part)
    floats = [at for at, (_name, kind) in enumerate(columns) if kind == "float" and not exact]
    lines = history._Lines(table, described, hasher, lambda *_piece: None, floats=floats)
    lines._compress = lambda data: None
    return lines


def _read_back(engine, table, columns, dags, shifts, out, dag=None, more=(), since=None):
    """The lines of what was imported into this table (of one DAG), as an export of the target would have them.

    more: conditions (SQL) beside.
    """
    described, names = history.TABLES[table], [name for name, _kind in columns]
    only = [dag] if dag is not None and described["dag"] else None
    if only is None and described["dag"] and _imported(engine, table, shifts) is None:
        only = list(dags)
    scope = {"only": only, "not": [], "open": [], "since": since}
    scope["omit"] = {table: [one["name"] for one in described["columns"] if one["name"] not in names]}
    sql, selected = history.statement(engine, {"table": table}, scope)
    if [column["name"] for column in selected] != names:
        raise history.Unfit("the lines of %s are not what this version of the agent writes" % table)
    mine = " AND ".join(list(filter(None, [_imported(engine, table, shifts)])) + list(more))
    if mine:
        # what follows the tables is the statement's own WHERE, if it has one: conditions in brackets are in the tables
        sql += (" AND " if " WHERE " in sql[sql.rindex(" FROM ") :] else " WHERE ") + mine
    cursor = engine.connection.cursor()
    try:
        cursor.copy_expert("COPY (%s) TO STDOUT" % sql, out)
    finally:
        cursor.close()
    out.close()


def _imported(engine, table, shifts):
    """SQL: the row, or its run, came with an import; None: nothing tells."""
    unit = history.TABLES[table]["unit"]
    alias = "r" if unit == "of_run" else "t"
    by = "dag_run" if unit in ("run", "of_run") else table
    if "id" not in engine.schema[by]:
        return None
    mine = "%s.id < %d" % (alias, -shifts[0])
    if shifts[1] is not None:
        mine += " AND %s.id >= %d" % (alias, -shifts[1])
    if by not in NAMED:
        return mine
    numbers = "SELECT name::int FROM %s WHERE kind IN ('met:%s', 'made:%s')" % (LEDGER, by, by)
    return "(%s OR %s.id IN (%s))" % (mine, alias, numbers)


def carried(tables, columns, exports, fetch, scope, key):
    """Digests of what several exports of one source come to, read from their pieces: {table: {dag_id: [rows, hex]}}.

    exports: [pieces], the oldest first, with those of dag_run always. A run that a later export has takes the place of
    the earlier one with all its rows; of what belongs to no run, a row with the same key does.
    """
    found = {}
    for table in tables:
        described, names = history.TABLES[table], [name for name, _kind in columns[table]]
        lines = _lines(table, columns[table], history.hash_of(scope["hash"], key))
        lines.amend = None  # they are plain already
        by_run = described["unit"] in ("run", "of_run")
        at = [names.index(name) for name in (("dag_id", "run_id") if by_run else described["key"]) if name in names]
        # SQLite gives the number of a deleted row to another run's: on the target that one took its place
        by_id = by_run and described["key"] == ("id",)
        later, numbers = set(), set()
        for number, pieces in reversed(list(enumerate(exports))):
            now, taken = set(), set()
            for piece in pieces:
                if piece["table"] == table:
                    for line in _Feed(fetch(piece)).lines():
                        name = _fields_at(line, at) if later or number else None
                        own = _fields_at(line, [0]) if by_id and (numbers or number) else None
                        if name not in later and own not in numbers:
                            lines.write(line)
                        if own:
                            taken.add(own)
                        if not by_run and number:
                            now.add(name)
            if by_run and number:
                now = _runs_of(pieces, columns["dag_run"], fetch)
            later |= now
            numbers |= taken
        lines.close()
        found[table] = lines.digests()
    return found


def _fields_at(line, at):
    fields = line.rstrip(b"\n").split(b"\t", max(at) + 1)
    return b"\t".join([fields[one] for one in at])


def _runs_of(pieces, columns, fetch):
    names = [name for name, _kind in columns]
    at = [names.index("dag_id"), names.index("run_id")]
    pieces = [one for one in pieces if one["table"] == "dag_run"]
    return {_fields_at(line, at) for piece in pieces for line in _Feed(fetch(piece)).lines()}


# what Airflow writes into a row that nobody touched: a row that differs in these alone is the same row
_OWN_TOUCH = ("updated_at", "last_scheduling_decision")


_BY_NAME = {"dag_run_id": "run_id", "alias_id": "name"}


class _Keys(object):
    """{what names a row: (digest of its line, its updated_at, its run)}, of one DAG.

    shift: these are lines of the target, whose ids are negated once more and lie so far off; None: the bundle's.
    share: (number, of), which of so many equal shares of the keys is held.
    """

    def __init__(self, table, columns, dag, shift=None, share=(0, 1)):
        self.share = share
        described, names = history.TABLES[table], [name for name, _kind in columns]
        # a reference to what the target may have under a number of its own is told by a name
        wanted = [_BY_NAME.get(name, name) if _BY_NAME.get(name) in names else name for name in described["key"]]
        self.names = [name for name in wanted if name in names]
        self.at = [names.index(name) for name in self.names]
        ids = sum(1 for _name, kind in columns if kind in ("id", "ref"))
        self.held = [at for at, name in enumerate(names) if at >= ids and name not in _OWN_TOUCH]
        self.stamp_at = names.index("updated_at") if "updated_at" in names else None
        self.dag_at = names.index(described["dag"]) if described["dag"] else None
        self.dag = history.escaped(dag).encode("utf-8") if dag != history.NULL else b"\\N"
        # a row that has a number for a key is told by its run, too: what becomes of that is judged by runs
        self.run_at = names.index("run_id") if "run_id" in names else None
        self.runs = {}
        self.found, self.shift = {}, shift
        numbers = {name for name, kind in columns if kind in ("id", "ref")} if shift is not None else ()
        self.ids = [names.index(name) for name in self.names if name in numbers]

    def take(self, line):
        fields = bytes(line).rstrip(b"\n").split(b"\t")
        own = self.dag_at is None or fields[self.dag_at] == self.dag
        if not own and self.names != ["id"]:
            return
        for at in self.ids:
            fields[at] = b"%d" % (self.shift - int(fields[at]))
        key = b"\t".join([fields[at] for at in self.at])
        if zlib.crc32(key) % self.share[1] != self.share[0]:
            return
        if own:
            digest = hashlib.sha256(b"\t".join([fields[at] for at in self.held])).digest()[:8]
            stamp = b"" if self.stamp_at is None or fields[self.stamp_at] == b"\\N" else fields[self.stamp_at]
            run = b"" if self.run_at is None else fields[self.run_at]
            self.found[key] = (digest, stamp, self.runs.setdefault(run, run))
        else:  # another DAG's row has taken the number
            self.found.pop(key, None)


HELD = 200000  # rows whose keys are held of each side, some 300 bytes a row


def differences(engine, table, columns, pieces, fetch, dags, dag, shifts=(0, None), rows=0, since=None):
    """Which rows of one DAG differ: {"missing", "extra", "changed", "touched": [key], LISTED of each at most, "counts":
    {each of these: how many}, "more": how many are not listed, "met": [run_id], "ran": bool}.

    touched: changed, and the target's updated_at is the later one. Times that Airflow writes by itself count nothing.
    met: runs of these keys that are the target's own, or that it has run since; rows of others are listed first. ran:
    whether the DAG has run on the target. pieces: all of this table; of two lines of one row the later piece's counts.
    rows: about how many the DAG has; both sides are read once for each HELD of them.
    """
    found = {what: [] for what in ("missing", "extra", "changed", "touched")}
    counts = dict.fromkeys(found, 0)
    shares, met = 1 + rows // HELD, set()
    for share in range(shares):
        there = _Keys(table, columns, dag, shifts[0], (share, shares))
        here = _Keys(table, columns, dag, share=(share, shares))
        _take_all(engine, table, columns, pieces, fetch, dags, dag, shifts, there, here, since)
        changed = [one for one in here.found if one in there.found and there.found[one][0] != here.found[one][0]]
        later = {one for one in changed if there.found[one][1] > here.found[one][1]}
        sides = (
            ("missing", [one for one in here.found if one not in there.found]),
            ("extra", [one for one in there.found if one not in here.found]),
            ("changed", [one for one in changed if one not in later]),
            ("touched", later),
        )
        runs = {one: (here.found.get(one) or there.found[one])[2] for _what, keys in sides for one in keys}
        own = _own_runs(engine, dag, {history.unescaped(run.decode("utf-8")) for run in runs.values() if run})
        met |= own
        own = {history.escaped(run).encode("utf-8") for run in own}
        for what, keys in sides:
            counts[what] += len(keys)
            ordered = sorted((runs[one] in own, one, runs[one]) for one in keys)
            found[what] = sorted(found[what] + ordered[:LISTED])[:LISTED]
    answer = {"counts": counts, "ran": _has_run(engine, dag)}
    answer["more"] = sum(max(count - LISTED, 0) for count in counts.values())
    by_run = here.run_at is not None and "run_id" not in here.names
    for what, keys in found.items():
        named = [one.split(b"\t") + ([run] if by_run else []) for _own, one, run in keys]
        names = here.names + (["run_id"] if by_run else [])
        answer[what] = [dict(zip(names, [history.unescaped(one.decode("utf-8")) for one in row])) for row in named]
    listed = {key["run_id"] for keys in found for key in answer[keys] if "run_id" in key}
    answer["met"] = sorted(met & listed)
    return answer


def _take_all(engine, table, columns, pieces, fetch, dags, dag, shifts, there, here, since):
    lines = _lines(table, columns, hashlib.sha256(), engine)
    lines._digest = lambda batch: [there.take(line) for line in batch] and None
    _read_back(engine, table, columns, dags, shifts, lines, dag if dag != history.NULL else None, since=since)
    for piece in pieces:
        for line in _Feed(fetch(piece)).lines():
            here.take(line)


def _own_runs(engine, dag, runs):
    """Those of these runs that the target had by itself, that are in flight there, or of which it ran a task since: the
    numbers of its jobs are no imported ones.
    """
    instance = engine.schema["task_instance"]
    same = "i.run_id = r.run_id" if "run_id" in instance else "i.execution_date = r.execution_date"
    return {
        row[0]
        for row in _asked(
            engine,
            "SELECT r.run_id FROM dag_run r WHERE r.dag_id = %%s AND r.run_id = ANY (%%s) AND (r.id IN (SELECT"
            " name::int FROM %s WHERE kind = 'met:dag_run') OR coalesce(r.state, '') NOT IN (%s) OR EXISTS (SELECT 1"
            " FROM task_instance i WHERE i.dag_id = r.dag_id AND %s AND i.job_id > 0))"
            % (LEDGER, ", ".join(map(history.literal, history.TERMINAL)), same),
            (dag, sorted(runs)),
        )
    }


def _has_run(engine, dag):
    """Whether the target itself has run something of this DAG."""
    return _asked(
        engine,
        "SELECT EXISTS (SELECT 1 FROM dag_run WHERE dag_id = %%s AND id > 0 AND id NOT IN (SELECT name::int FROM %s"
        " WHERE kind = 'made:dag_run')) OR EXISTS (SELECT 1 FROM task_instance WHERE dag_id = %%s AND job_id > 0)"
        % LEDGER,
        (dag, dag),
    )[0][0]


def _asked(engine, statement, values):
    cursor = engine.connection.cursor()
    try:
        cursor.execute(statement, values)
        return cursor.fetchall()
    finally:
        cursor.close()


# ------------------------------------------------------------------------------------------------------- what is gone
#
# Nothing is deleted on a target. What the source has no longer is told from the last export's mark, which knows each
# run of the source and which of its tables are empty, and from the lines that a later export brought of a run.


def _keys_of(table, columns):
    """(names of what tells rows of a run apart, how to read each of them from the target's row)"""
    names = [name for name, _kind in columns[table]]
    keys = ["dag_id", "run_id"]
    keys += [name for name in history.TABLES[table]["key"] if name in names and name not in keys + ["dag_run_id"]]
    return keys


def _stage_keys(engine, table, columns, exports, fetch):
    """A temporary table of the keys that exports have of this table's rows, and the number of the export."""
    names, kinds = [name for name, _kind in columns[table]], dict(columns[table])
    keys = _keys_of(table, columns) + (["id"] if table == "dag_run" else [])
    at = [names.index(name) for name in keys]
    made = "mwaa_migration_" + ("runs" if table == "dag_run" else "keys")
    described = ["%s %s" % (history.name_of(name), STAGED[kinds[name]]) for name in keys]
    engine.rows("CREATE TEMPORARY TABLE %s (%s, export int) ON COMMIT DROP" % (made, ", ".join(described)))
    cursor = engine.connection.cursor()
    try:
        for number, pieces in enumerate(exports):

            def amend(line, number=number):
                fields = line.rstrip(b"\n").split(b"\t")
                return b"\t".join([fields[one] for one in at] + [b"%d\n" % number])

            for piece in pieces:
                if piece["table"] == table:
                    cursor.copy_expert("COPY %s FROM STDIN" % made, _Feed(fetch(piece), amend), FEED)
    finally:
        cursor.close()
    if table == "dag_run":
        engine.rows(
            "DELETE FROM mwaa_migration_runs a USING mwaa_migration_runs b WHERE a.dag_id = b.dag_id"
            " AND a.run_id = b.run_id AND a.export < b.export"
        )
    else:
        engine.rows(
            "DELETE FROM mwaa_migration_keys s USING mwaa_migration_runs c WHERE c.dag_id = s.dag_id"
            " AND c.run_id = s.run_id AND c.export <> s.export"
        )
    engine.rows("ANALYZE " + made)


def _is_known(table, columns, shift):
    """SQL: the latest export that has the run has this row of it, too."""
    kinds, same = dict(columns[table]), []
    for name in _keys_of(table, columns):
        theirs = "s." + history.name_of(name)
        if kinds[name] in ("id", "ref") and shift:
            theirs = "(%s - %d)" % (theirs, shift)
        own = "r" if name in ("dag_id", "run_id") else "t"
        same.append("%s.%s = %s" % (own, history.name_of(name), theirs))
    return "EXISTS (SELECT 1 FROM mwaa_migration_keys s WHERE %s)" % " AND ".join(same)


def _stage_here(engine, mark, tables, shifts, scope):
    """A temporary table of the imported runs: their id here, whether a later export has them ("later"), "state" at the
    source ("there", "again": in flight, "gone") and "empty": a bit for each of these tables that has nothing of them.
    """
    engine.rows("CREATE TEMPORARY TABLE mwaa_migration_there (id bigint, again boolean, empty bigint) ON COMMIT DROP")
    if mark:
        ids, again = history.unpacked_ids(mark["ids"]), set(history.unpacked_ids(mark["open"]))
        empty = [0] * len(ids)
        for bit, table in enumerate(tables):
            if table in mark["rows"]:
                for index, rows in enumerate(history.unpacked(mark["rows"][table])):
                    if not rows:
                        empty[index] |= 1 << bit
        lines = (b"%d\t%s\t%d\n" % (one, b"t" if one in again else b"f", empty[index]) for index, one in enumerate(ids))
        cursor = engine.connection.cursor()
        try:
            cursor.copy_expert("COPY mwaa_migration_there FROM STDIN", _Made(lines), FEED)
        finally:
            cursor.close()
        engine.rows("ANALYZE mwaa_migration_there")
    engine.rows(
        "CREATE TEMPORARY TABLE mwaa_migration_here ON COMMIT DROP AS SELECT h.id, h.later, CASE"
        # the number may be another run's by now
        " WHEN NOT h.later AND EXISTS (SELECT 1 FROM mwaa_migration_runs o WHERE o.id = -h.source) THEN 'gone'"
        " WHEN p.again THEN 'again'"
        " WHEN p.id IS NULL AND h.source IS NOT NULL AND %s THEN 'gone' ELSE 'there' END AS state,"
        " coalesce(p.empty, 0) AS empty FROM (SELECT r.id, c.dag_id IS NOT NULL AS later,"
        " CASE WHEN c.dag_id IS NOT NULL THEN -c.id WHEN r.id < 0 THEN -r.id - %d END AS source FROM dag_run r"
        " LEFT JOIN mwaa_migration_runs c ON c.dag_id = r.dag_id AND c.run_id = r.run_id WHERE %s) h"
        " LEFT JOIN mwaa_migration_there p ON p.id = h.source"
        % (
            "true" if mark else "false",
            shifts[0],
            # the mark knows the runs of the DAGs and the age that were chosen
            " AND ".join(
                [_imported(engine, "task_instance", shifts)]
                + history._of_dags("r.dag_id", scope)
                + history._of_age(engine, "r", scope)
            ),
        )
    )
    engine.rows("ANALYZE mwaa_migration_here")


class _Made(object):
    """File-like, for COPY … FROM STDIN: lines that are made as they are read."""

    def __init__(self, lines):
        self.lines, self.left = lines, b""

    def read(self, size=FEED):
        parts, held = [self.left], len(self.left)
        while held < size:
            line = next(self.lines, None)
            if line is None:
                break
            parts.append(line)
            held += len(line)
        text = b"".join(parts)
        self.left = text[size:]
        return text[:size]


class _Named(object):
    """File-like, for COPY … TO STDOUT: the first lines' keys are kept, all go on."""

    def __init__(self, lines, table, columns, shift):
        names = [name for name, _kind in columns]
        wanted = ["dag_id", "task_id", "run_id", "map_index"] + list(history.TABLES[table]["key"])
        self.names = [name for name in dict.fromkeys(wanted) if name in names and name != "dag_run_id"]
        self.at = [names.index(name) for name in self.names]
        self.ids = {name for name, kind in columns if kind in ("id", "ref")}
        self.lines, self.shift, self.keys = lines, shift, []

    def write(self, line):
        self.lines.write(line)
        if len(self.keys) < history.LISTED:
            fields = line.rstrip(b"\n").split(b"\t")
            key = {name: history.unescaped(fields[at].decode("utf-8")) for name, at in zip(self.names, self.at)}
            # as the source has it
            self.keys.append({name: int(key[name]) - self.shift if name in self.ids else key[name] for name in key})

    def close(self):
        self.lines.close()


def deleted(engine, tables, columns, exports, fetch, mark, scope, key, dags, shifts=(0, None)):
    """Rows that were imported and that the source's last export knows no longer, in tables of runs:
    {"deleted": {table: [keys]}, "rows": {table: how many}, "more", and as digests {table: {dag_id: [rows, hex]}}:
    "lost" (rows of runs that a later export carried without them), "gone" (runs that are gone, and what runs lost of a
    table as a whole), "again" (runs that are in flight again: they stay as they are until they are carried)}.

    engine: writable. exports: [pieces], all but the first, oldest first. mark: the last plan's.
    """
    tables = [table for table in tables if history.TABLES[table]["unit"] in ("run", "of_run") and table in columns]
    _stage_keys(engine, "dag_run", columns, exports, fetch)
    _stage_here(engine, mark, tables, shifts, scope)
    states = {row[0] for row in engine.rows("SELECT DISTINCT state FROM mwaa_migration_here")}
    later, empty = engine.rows("SELECT bool_or(later), bit_or(empty) FROM mwaa_migration_here")[0]
    answer = {"deleted": {}, "rows": {}, "more": 0, "lost": {}, "gone": {}, "again": {}}
    for bit, table in enumerate(tables):
        # conditions on the run, as the temporary table has it
        wanted = {state: "h.state = %s" % history.literal(state) for state in ("gone", "again") if state in states}
        if (empty or 0) & 1 << bit:
            emptied = "h.state = 'there' AND h.empty & %d <> 0" % (1 << bit)
            wanted["gone"] = "(%s)" % " OR ".join([wanted[one] for one in wanted if one == "gone"] + [emptied])
        alias = "t" if table == "dag_run" else "r"
        here = "EXISTS (SELECT 1 FROM mwaa_migration_here h WHERE h.id = " + alias + ".id AND %s)"
        ways = {state: here % wanted[state] for state in wanted}
        if table != "dag_run":
            _stage_keys(engine, table, columns, exports, fetch)
            if later:
                known = _is_known(table, columns, shifts[0])
                ways = {
                    state: "(%s OR %s AND %s)"
                    % (here % ("NOT h.later AND " + wanted[state]), here % ("h.later AND " + wanted[state]), known)
                    for state in wanted
                }
                ways["lost"] = "%s AND NOT %s" % (here % "h.later", known)
        for what in sorted(ways):
            lines = _lines(table, columns[table], history.hash_of(scope["hash"], key), engine)
            out = _Named(lines, table, columns[table], shifts[0])
            _read_back(engine, table, columns[table], dags, shifts, out, more=[ways[what]])
            if lines.rows:
                answer[what][table] = lines.digests()
                if what != "again":
                    answer["deleted"].setdefault(table, []).extend(out.keys)
                    answer["rows"][table] = answer["rows"].get(table, 0) + lines.rows
        if table != "dag_run":
            engine.rows("DROP TABLE mwaa_migration_keys")
    for table, keys in answer["deleted"].items():
        del keys[history.LISTED :]
        answer["more"] += answer["rows"][table] - len(keys)
    return answer


# ----------------------------------------------------------------------------------------------------------------- end


def finish(connect, tables=(), workers=2, search_path=None):
    """After the last piece: indexes back, no next run of what Airflow has yet to read, and the planner told of what is
    there now. Gives {"built": [name], "left_out": see there}.
    """
    answer = {"built": rebuild_indexes(connect, workers, search_path), "left_out": []}

    def end(target):
        forget_next_runs(target)
        target.begin()
        if has_ledger(target):
            answer["left_out"] = _left_out(target)
        target.commit()
        for table in sorted(tables):
            if table in target.columns:
                target.begin()
                target.run("ANALYZE %s" % history.name_of(table))
                target.commit()

    _steadily(connect, search_path, end)
    return answer


def drop(target, kept=()):
    """The ledger, and staging tables if any were left. Refused while it holds what nobody else knows.

    kept: DAGs to unpause that the caller has written down elsewhere.
    """
    target.begin()
    dropped = []
    if has_ledger(target):
        waiting = [name for kind in ("ddl", "unpaused") for name in _noted(target, "", kind)]
        waiting = [name for name in waiting if name not in kept]
        if waiting:
            target.rollback()
            raise history.Unfit(
                "the ledger is still needed, for indexes to rebuild or DAGs to unpause: %s" % ", ".join(waiting[:10])
            )
        target.run("DROP TABLE %s" % LEDGER)
        dropped.append(LEDGER)
    for (name,) in target.rows(
        "SELECT c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.relkind = 'r'"
        " AND c.relname ~ %s AND n.nspname = ANY (current_schemas(false))",
        ("^%s_[0-9]+$" % STAGING,),
    ):
        target.run("DROP TABLE %s" % history.name_of(name))
        dropped.append(name)
    target.commit()
    return {"dropped": dropped}


# ------------------------------------------------------------------------------------------------------------ requests


def get_piece(piece):
    """Its bytes: from the request, or from a presigned URL, which is a permission and neither logged nor returned."""
    from urllib.error import HTTPError, URLError
    from urllib.request import Request, build_opener

    if piece.get("data") is not None:
        return base64.b64decode(piece["data"])
    for pause in history.PAUSES + (None,):
        expired = False
        try:
            request = Request(piece["url"], headers=dict(piece.get("headers") or {}))
            with build_opener().open(request, timeout=60) as response:
                body = response.read()
            if len(body) == piece.get("size", len(body)) or pause is None:
                return body  # its sha256 is looked at
            reason, again = "it ends in the middle", True
        except HTTPError as error:
            if error.code == 404:
                missing = "a piece of %s is missing in the bundle (%s): %s" % (piece["table"], _place(piece), AGAIN)
                raise history.Unfit(missing) from None
            text = error.read(4096).decode("utf-8", "replace")
            code = re.search(r"<Code>([^<]{1,60})</Code>", text)
            reason, again = "HTTP %d %s" % (error.code, code.group(1) if code else ""), error.code >= 500
            expired = code and code.group(1) == "ExpiredToken" or "Request has expired" in text
        except URLError as error:
            reason, again = type(error.reason).__name__, True
        except Exception as error:
            reason, again = type(error).__name__, True
        if expired:
            raise _expired("S3 does not give %s any more: %s; run again" % (_place(piece), reason))
        if not again or pause is None:
            raise history.Unfit("S3 does not give %s: %s" % (_place(piece), reason))
        time.sleep(pause)
    return None


def _expired(sentence):
    """A permission that ended before its time, with the credential that it was made with: another will do."""
    error = history.Unfit(sentence)
    error.expired = True
    return error


def _way_in(source):
    """(function that gives connections to write on, search path)"""
    if source.name != "postgresql":
        raise history.Unfit("history is written into PostgreSQL, the target's metadata database is %s" % source.name)
    return (lambda: source.connect().connection), source.search_path


def _with_target(source, act):
    return _steadily(*_way_in(source), act=act)


def _steadily(connect, search_path, act):
    """act(target), which can be done again, and is where the scheduler came in between. Raises Unfit."""
    for attempt in range(TRIES):
        target = None
        try:
            target = Target(connect(), search_path)
            return act(target)
        except Exception as error:
            if not hasattr(error, "pgcode"):  # it is not the database's
                raise
            if attempt == TRIES - 1 or not _passes(error):
                raise history.Unfit(reason(error)) from None
        finally:
            if target is not None:
                target.rollback()
                target.connection.close()
        time.sleep(0.2 * (attempt + 1))
    return None


def import_history(source, request):
    """Some pieces of a bundle; all DAGs but the agent's own are paused first.

    bundle, source: texts that name them. policy, columns, dags, beside, rebuild_indexes: see Bundle, register and
    drop_indexes. pieces: [{"table", "sha256", "size", "rows", "orphans", "path", "url" or "data"}]. workers (2).
    seconds: no piece is begun after.
    """
    connect, search_path = _way_in(source)

    def prepare(target):
        shift = register(target, request["source"], request.get("beside"), lambda: _some_runs(request, get_piece))
        announce(target, request["bundle"], request.get("seconds") or 0)
        pause_dags(target, "pause")
        target.begin()
        waiting = _noted(target, "", "ddl")
        target.commit()
        if request.get("rebuild_indexes") and not waiting:
            drop_indexes(target, request["columns"])
        return shift, waiting

    shift, waiting = _with_target(source, prepare)
    if waiting and not request.get("rebuild_indexes"):
        rebuild_indexes(connect, request.get("workers") or 2, search_path)
    bundle = Bundle(request["bundle"], request["columns"], request["dags"], request.get("policy") or "skip", shift)
    until = time.time() + request["seconds"] if request.get("seconds") else None
    workers = request.get("workers") or 2
    try:
        answer = import_parts(
            connect,
            bundle,
            request["pieces"],
            get_piece,
            workers,
            until,
            search_path=search_path,
            tell=request.get("tell"),
        )
    except history.Unfit:  # which is the end of it
        try:
            _with_target(source, lambda target: _ended(target, bundle.identifier))
        except Exception:  # nobody is held up for long
            pass
        raise
    counted = request.get("counted") or {"before": {"pieces": 0}, "of": {"pieces": len(answer["done"])}}
    over = counted["before"]["pieces"] + len(answer["done"]) >= counted["of"]["pieces"]
    _with_target(source, lambda target: (_ended if over else announce)(target, bundle.identifier))
    return answer


def finish_history(source, request):
    """finish, for the tables of the request."""
    connect, search_path = _way_in(source)
    return finish(connect, request.get("tables") or (), request.get("workers") or 2, search_path)


def history_progress(source, request):
    """What the ledger says: {"bundles": {name: progress, and the names of the pieces that are "done"}}, "sources" that
    were imported, what foreign keys left out when they came back ("left_out"), and what it holds for later, "indexes"
    to rebuild and DAGs to unpause ("unpaused"); of `bundle` what progress says. "lacking": what the target cannot hold
    of these columns.

    bundles: {name: {table: [[name, kind]]}}, the columns of each; bundle: the name of one.
    """
    bundles = request.get("bundles") or {}

    def look(target):
        target.begin()
        there = has_ledger(target)
        nothing = {"tables": {}, "listed": [], "more": 0}
        answer = {"bundles": {}, "lacking": [], "sources": [], "left_out": [], "indexes": [], "unpaused": []}
        for name in sorted(bundles):
            done = sorted(_noted(target, name, "piece")) if there else []
            answer["bundles"][name] = dict(progress(target, name) if there else nothing, done=done)
            found = _lacking(target, Bundle(name, bundles[name], ()), sorted(bundles[name]))
            answer["lacking"] += [one for one in found if one not in answer["lacking"]]
        if request.get("bundle"):
            answer.update(progress(target, request["bundle"]) if there else nothing)
        if there:
            answer["sources"] = sorted(_noted(target, "", "source"))
            answer["left_out"] = _left_out(target)
            answer["indexes"] = sorted(_noted(target, "", "ddl"))
            answer["unpaused"] = sorted(_noted(target, "", "unpaused"))
        return answer

    return _with_target(source, look)


def _shifts(target, source):
    """(this source's shift, the next one's or None): where its ids begin and end."""
    target.begin()
    if not has_ledger(target):
        raise history.Unfit("the target has no ledger of an import: there is nothing to compare with")
    known = sorted(int(shift) for shift in _noted(target, "", "source").values())
    mine = int(_noted(target, "", "source").get(source, -1))
    if mine < 0:
        raise history.Unfit("the target has no history of this source")
    return mine, min([shift for shift in known if shift > mine] or [None], key=lambda one: one or 0)


def verify_history(source, request):
    """{"digests": see verify, "differences": {table: {dag_id: see differences}}, "carried": see there}

    source, columns, scope, digest_key (base64), dags: as for the import. tables: some. differences: [{"table", "dag",
    "rows"}], asked for one by one, and pieces: {table: all of them} for these. exports: [pieces], asks for `carried`.
    since: of the target, nothing that is older.
    """

    found = _with_target(source, lambda target: _shifts(target, request["source"]))
    columns, key = request["columns"], base64.b64decode(request["digest_key"])
    answer = {"digests": {}, "differences": {}, "carried": {}}
    engine = source.connect()
    tables = [table for table in request.get("tables") or () if table in engine.schema]
    since = request.get("since")
    answer["digests"] = verify(engine, tables, columns, request["scope"], key, request["dags"], found, since=since)
    for one in request.get("differences") or ():
        table, dag = one["table"], one["dag"]
        pieces = request["pieces"][table]
        listed = differences(
            engine, table, columns[table], pieces, get_piece, request["dags"], dag, found, one["rows"], since
        )
        answer["differences"].setdefault(table, {})[dag] = listed
    if request.get("exports"):
        answer["carried"] = carried(tables, columns, request["exports"], get_piece, request["scope"], key)
    return answer


def deleted_history(source, request):
    """What `deleted` says. source, columns, scope, digest_key, dags, tables: as for verify_history; mark: the last
    export's; deltas: the pieces of each export but the first, oldest first.
    """
    found = _with_target(source, lambda target: _shifts(target, request["source"]))
    engine = source.connect(writable=True)
    tables = [table for table in request.get("tables") or request["columns"] if table in engine.schema]
    key = base64.b64decode(request["digest_key"])
    return deleted(
        engine,
        tables,
        request["columns"],
        request["deltas"],
        get_piece,
        request.get("mark"),
        request["scope"],
        key,
        request["dags"],
        found,
    )


def pauses(source, request):
    """pause_dags with action, dags and bundles. seconds: how long to wait for Airflow to read the DAGs to be resumed
    again.
    """

    def act(target):
        until = time.time() + (request.get("seconds") or 0)
        wanted = request["action"], request.get("dags"), request.get("bundles") or ()
        answer = pause_dags(target, *wanted)
        changed = answer["changed"]
        while answer.get("waiting") and time.time() < until:
            time.sleep(2.0)
            answer = pause_dags(target, *wanted)
            changed = sorted(set(changed) | set(answer["changed"]))
        return dict(answer, changed=changed)

    return _with_target(source, act)


OPERATIONS = {
    "import_history": import_history,
    "finish_history": finish_history,
    "history_progress": history_progress,
    "verify_history": verify_history,
    "deleted_history": deleted_history,
    "pause_dags": pauses,
    "drop_history": lambda source, request: _with_target(
        source, lambda target: drop(target, request.get("kept") or ())
    ),
}
