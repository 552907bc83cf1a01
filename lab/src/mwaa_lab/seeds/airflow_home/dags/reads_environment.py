# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Needs environment variables of the host's units: one that it insists on, one that it can do without."""

import os
from datetime import datetime

from airflow import DAG
from airflow.operators.python import PythonOperator

PREFIX = os.getenv("REPORT_PREFIX", "reports")


def place():
    return "s3://" + os.environ["REPORT_BUCKET"] + "/" + PREFIX


with DAG(dag_id="reads_environment", start_date=datetime(2024, 1, 1), schedule=None, catchup=False) as dag:
    PythonOperator(task_id="place", python_callable=place)
