# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Written for Airflow 2: an argument and an operator that Airflow 3 no longer has."""

from datetime import datetime

from airflow import DAG
from airflow.operators.dummy import DummyOperator

with DAG(dag_id="legacy_2x_only", start_date=datetime(2024, 1, 1), schedule_interval="@weekly", catchup=False) as dag:
    DummyOperator(task_id="nothing")
