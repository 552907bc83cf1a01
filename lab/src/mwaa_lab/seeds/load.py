# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs in the source's own Python: writes seed state through Airflow's models, so that Airflow encrypts it itself, and
registers the DAGs.

Reads one JSON document on standard input. Doing it twice leaves what doing it once leaves. Airflow 1.10 to 3.0; Python
3.6 syntax.
"""

import json
import sys

from airflow import settings
from airflow.models import Connection, DagBag, DagModel, Pool, Variable
from sqlalchemy import text

try:
    from airflow.utils.session import create_session
except ImportError:
    from airflow.utils.db import create_session
try:
    from airflow.utils.db import create_default_connections
except ImportError:  # 1.10's initdb has made them
    create_default_connections = None
try:
    from airflow.models.dagbundle import DagBundleModel
except ImportError:
    DagBundleModel = None


def put(row, values):
    """What this version has no column for is left out."""
    for field, value in values.items():
        if hasattr(type(row), field):
            setattr(row, field, value)


def load_state(session, state):
    variables = {row.key: row for row in session.query(Variable)}
    for key, given in state["variables"].items():
        row = variables.get(key) or Variable(key=key)
        row.set_val(given["value"])
        put(row, {"description": given["description"]})
        session.add(row)
    connections = {row.conn_id: row for row in session.query(Connection)}
    for conn_id, given in state["connections"].items():
        # Built empty and then filled: the constructor refuses ids and "corrects" hosts that older Airflows wrote.
        row = connections.get(conn_id) or Connection()
        row.conn_id = conn_id
        put(row, {field: given[field] for field in ("conn_type", "description", "host", "login", "schema", "port")})
        row.set_password(given["password"])
        try:
            row.set_extra(given["extra"])
        except ValueError:  # Airflow 3 takes no extra that is not JSON
            continue
        session.add(row)
    pools = {row.pool: row for row in session.query(Pool)}
    for name, given in state["pools"].items():
        row = pools.get(name) or Pool(pool=name)
        put(row, given)
        session.add(row)
    known = {row.dag_id for row in session.query(DagModel)}
    more = {}
    if DagBundleModel is not None:
        if not session.query(DagBundleModel).filter_by(name="dags-folder").count():
            session.add(DagBundleModel(name="dags-folder"))
            session.flush()
        more = {"bundle_name": "dags-folder", "is_stale": False}
    for dag_id in state["paused"]:
        if dag_id not in known:  # known before it is parsed, so that it never starts
            row = DagModel(dag_id=dag_id)
            put(row, dict(more, is_paused=True, is_active=True, owners="airflow"))
            session.add(row)


def load_users(session, state):
    """By SQL: the models of users moved four times, their tables never did."""

    def ask(sql, **values):
        return session.execute(text(sql), values)

    def insert(table, **values):
        number = (ask(f"select max(id) from {table}").scalar() or 0) + 1
        names = ["id"] + sorted(values)
        marks = ", ".join(":" + name for name in names)
        ask("insert into {} ({}) values ({})".format(table, ", ".join(names), marks), id=number, **values)
        return number

    roles = {name: number for number, name in ask("select id, name from ab_role").fetchall()}
    if state["desk"] not in roles:
        roles[state["desk"]] = insert("ab_role", name=state["desk"])
        allowed = "select permission_view_id from ab_permission_view_role where role_id = :role"
        for (number,) in ask(allowed, role=roles["Viewer"]).fetchall():
            insert("ab_permission_view_role", permission_view_id=number, role_id=roles[state["desk"]])
    known = {name for (name,) in ask("select username from ab_user").fetchall()}
    for given in state["users"]:
        if given["username"] not in known:
            values = {key: value for key, value in given.items() if key != "role"}
            number = insert("ab_user", active=True, **values)
            insert("ab_user_role", user_id=number, role_id=roles[given["role"]])
    if session.get_bind().dialect.name == "postgresql":
        for table in ("ab_role", "ab_user", "ab_user_role", "ab_permission_view_role"):
            ask(f"select setval('{table}_id_seq', (select max(id) from {table}))")


def main():
    state = json.load(sys.stdin)
    with create_session() as session:
        if state["default_connections"] and create_default_connections is not None:
            create_default_connections(session=session)
        load_users(session, state)
        load_state(session, state)
    if DagBundleModel is not None:
        return  # the dag processor registers the DAGs
    # All files in one process: the scheduler forks for each, which takes it minutes when they are many.
    try:
        bag = DagBag(include_examples=False, read_dags_from_db=False)
    except TypeError:  # 1.10
        for dag in DagBag(include_examples=False).dags.values():
            dag.sync_to_db()
        return
    try:
        bag.sync_to_db(processor_subdir=settings.DAGS_FOLDER)
    except TypeError:
        bag.sync_to_db()


main()
