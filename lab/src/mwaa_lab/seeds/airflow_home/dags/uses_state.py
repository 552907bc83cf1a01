# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Needs the migrated state: a variable and a connection, looked up when it runs."""

from datetime import datetime

from airflow import DAG
from airflow.hooks.base import BaseHook
from airflow.models import Variable
from airflow.operators.python import PythonOperator


def look():
    connection = BaseHook.get_connection("warehouse")
    return [Variable.get("report_recipients"), connection.host, bool(connection.password)]


with DAG(dag_id="uses_state", start_date=datetime(2024, 1, 1), schedule=None, catchup=False) as dag:
    PythonOperator(task_id="look", python_callable=look, pool="reports")
