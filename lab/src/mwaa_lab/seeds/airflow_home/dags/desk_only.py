# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""For the trading desk's own role alone."""

from datetime import datetime

from airflow import DAG
from airflow.operators.bash import BashOperator

with DAG(
    dag_id="desk_only",
    start_date=datetime(2024, 1, 1),
    schedule=None,
    catchup=False,
    access_control={"Trading desk": {"can_read", "can_edit"}},
) as dag:
    BashOperator(task_id="trade", bash_command="echo trading")
