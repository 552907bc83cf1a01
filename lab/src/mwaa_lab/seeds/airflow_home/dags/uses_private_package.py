# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Imports a package that is on no index: it cannot work on a target that was not given it."""

from datetime import datetime

import acme_datalib
from airflow import DAG
from airflow.operators.python import PythonOperator

with DAG(dag_id="uses_private_package", start_date=datetime(2024, 1, 1), schedule=None, catchup=False) as dag:
    PythonOperator(task_id="double", python_callable=acme_datalib.double, op_args=[21])
