# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Two DAGs from one loop."""

from datetime import datetime

from airflow import DAG
from airflow.operators.bash import BashOperator

for region in ("eu", "us"):
    with DAG(dag_id=f"load_{region}", start_date=datetime(2024, 1, 1), schedule=None, catchup=False) as dag:
        BashOperator(task_id="load", bash_command=f"echo {region}")
    globals()[f"dag_{region}"] = dag
