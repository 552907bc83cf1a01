# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs in the source's own Python: writes seed state through Airflow's models, so that Airflow encrypts it itself, and
registers the DAGs.

Reads one JSON document on standard input. Doing it twice leaves what doing it once leaves.
"""

import json
import sys

from airflow import settings
from airflow.models import Connection, DagBag, DagModel, Pool, Variable
from airflow.utils.db import create_default_connections
from airflow.utils.session import create_session



def main():
    state = json.load(sys.stdin)
    with create_session() as session:
        if state["default_connections"]:
            create_default_connections(session=session)
        variables = {row.key: row for row in session.query(Variable)}
        for key, given in state["variables"].items():
            row = variables.get(key) or Variable(key=key)
            row.set_val(given["value"])
            row.description = given["description"]
            session.add(row)
        connections = {row.conn_id: row for row in session.query(Connection)}
        for conn_id, given in state["connections"].items():
            # Built empty and then filled: the constructor refuses ids and "corrects" hosts that older Airflows wrote.
            row = connections.get(conn_id) or Connection()
            row.conn_id = conn_id
            for field in ("conn_type", "description", "host", "login", "schema", "port"):
                setattr(row, field, given[field])
            row.set_password(given["password"])
            row.set_extra(given["extra"])
            session.add(row)
        pools = {row.pool: row for row in session.query(Pool)}
        for name, given in state["pools"].items():
            row = pools.get(name) or Pool(pool=name)
            for field, value in given.items():
                setattr(row, field, value)
            session.add(row)
        known = {row.dag_id for row in session.query(DagModel)}
        for dag_id in state["paused"]:
            if dag_id not in known:  # known before it is parsed, so that it never starts
                session.add(DagModel(dag_id=dag_id, is_paused=True, is_active=True, owners="airflow"))
    # All files in one process: the scheduler forks for each, which takes it minutes when they are many.
    DagBag(include_examples=False, read_dags_from_db=False).sync_to_db(processor_subdir=settings.DAGS_FOLDER)


main()
