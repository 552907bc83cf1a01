# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Takes the agent's rows and tables out of an Airflow's database, 1.10 to 2.x. It stands in the place of its DAG file,
and defines no DAG.

Uploaded as mwaa_migration/mwaa_agent.py by the cleanup, and deleted by it when it has nothing left to do. Airflow
before 3 parses DAG files with its database at hand; a task could not remove its own row, and Airflow's own "delete DAG"
keeps the audit log. What was deleted is told by a URL that takes this one report.
"""

import datetime
import json
import re

from airflow import settings

REPORT_URL = "@REPORT_URL@"
UNTIL = int("@UNTIL@")  # seconds since 1970
TABLES = str("@TABLES@") != "kept"  # of an environment that is left, they are another migration's

DAGS = "dag_id in ('mwaa_agent', 'mwaa_agent_poll')"
FILES = "like '%/mwaa_migration/mwaa_agent%'"


def statements(tables):
    """(table, condition, parameters) of what to delete, in an order that foreign keys allow.

    tables: {name: names of its columns}, those that refer to others first.
    """
    runs = "dag_run_id in (select id from dag_run where %s)" % DAGS
    for table, columns in tables.items():
        if "dag_id" in columns:
            yield table, DAGS, {}
        elif "dag_run_id" in columns:
            yield table, runs, {}
        elif "fileloc" in columns:
            yield table, "fileloc " + FILES, {}
        elif table == "import_error":
            yield table, "filename " + FILES, {}
    if "ab_view_menu" in tables:  # resources of Airflow's permissions, made for each DAG
        names = {"name%d" % number: name for number, name in enumerate(_resources())}
        menus = "name in (%s)" % ", ".join(":" + name for name in sorted(names))
        views = "view_menu_id in (select id from ab_view_menu where %s)" % menus
        yield (
            "ab_permission_view_role",
            "permission_view_id in (select id from ab_permission_view where %s)" % views,
            names,
        )
        yield "ab_permission_view", views, names
        yield "ab_view_menu", menus, names


def _resources():
    kinds = ("", "DAG:", "DAG Run:")  # 1.10 calls them as the DAG
    return [kind + dag_id for kind in kinds for dag_id in ("mwaa_agent", "mwaa_agent_poll")]


def run():
    import sqlalchemy

    metadata = sqlalchemy.MetaData()
    metadata.reflect(bind=settings.engine)
    tables = {}  # type: dict
    counts = {}  # type: dict
    for table in reversed(metadata.sorted_tables):
        tables[table.name] = [column.name for column in table.columns]
    with settings.engine.begin() as connection:
        rows = connection.execute(sqlalchemy.text(NEEDED)) if TABLES and LEDGER in tables else []
        waiting = [row[0] for row in rows]
        if waiting:
            return report({"waiting": waiting})
        for table, condition, parameters in statements(tables):
            statement = sqlalchemy.text("delete from %s where %s" % (table, condition))
            deleted = connection.execute(statement, parameters).rowcount
            if deleted > 0:
                counts[table] = counts.get(table, 0) + deleted
        for table in own_tables(tables) if TABLES else ():
            connection.execute(sqlalchemy.text("drop table %s" % table))
            counts[table] = 1
    return report({"rows": counts})


LEDGER = "mwaa_migration_ledger"
# names of indexes to make again and of DAGs to resume: nothing else knows them
NEEDED = "select name from %s where bundle = '' and kind in ('ddl', 'unpaused') order by name limit 20" % LEDGER


def own_tables(tables):
    """The ledger of history's import, and what it stages rows in."""
    return sorted(name for name in tables if name == LEDGER or re.match(r"mwaa_migration_staging_[0-9]+$", name))


def report(said):
    from urllib.request import Request, build_opener

    body = json.dumps(said).encode("ascii")
    try:
        build_opener().open(Request(REPORT_URL, data=body, method="PUT"), timeout=20).close()
    except Exception as error:  # the next parsing tries again; the URL is a permission, and is not named
        raise RuntimeError("the report could not be put into S3: %s" % type(error).__name__) from None


if (datetime.datetime.utcnow() - datetime.datetime(1970, 1, 1)).total_seconds() < UNTIL:
    run()
