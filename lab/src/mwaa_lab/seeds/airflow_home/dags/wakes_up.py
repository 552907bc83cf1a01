# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Unpauses itself wherever it is parsed first: on a target it would run at once."""

from datetime import datetime

from airflow import DAG
from airflow.operators.bash import BashOperator

with DAG(
    dag_id="wakes_up",
    start_date=datetime(2024, 1, 1),
    schedule="@daily",
    catchup=False,
    is_paused_upon_creation=False,
) as dag:
    BashOperator(task_id="ring", bash_command="echo awake on $(hostname)")
