# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Operators the classic way; three days in the past, so that it has run."""

from datetime import datetime, timedelta

from airflow import DAG
from airflow.operators.bash import BashOperator
from airflow.operators.python import PythonOperator


def transform(ds, **_context):
    return {"day": ds, "rows": len(ds)}


with DAG(
    dag_id="classic_etl",
    start_date=datetime(2024, 1, 1),
    end_date=datetime(2024, 1, 3),
    schedule="@daily",
    catchup=True,
    max_active_runs=3,
    default_args={"owner": "data-platform", "retries": 1, "retry_delay": timedelta(seconds=5)},
    tags=["etl", "nightly"],
) as dag:
    extract = BashOperator(task_id="extract", bash_command="echo extracting {{ ds }}")
    shape = PythonOperator(task_id="transform", python_callable=transform)
    extract >> shape
