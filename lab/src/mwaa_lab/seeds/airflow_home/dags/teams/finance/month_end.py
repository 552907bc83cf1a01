# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Imports a helper from its own package and reads a file that lies beside the DAGs."""

from datetime import datetime
from pathlib import Path

from airflow import DAG
from airflow.operators.python import PythonOperator
from teams.finance.money import cents

QUERY = (Path(__file__).parents[2] / "sql" / "month_end.sql").read_text()

with DAG(dag_id="finance_month_end", start_date=datetime(2024, 1, 1), schedule="@monthly", catchup=False) as dag:
    PythonOperator(task_id="close", python_callable=cents, op_args=[12.34], params={"query": QUERY})
