# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""As 1.10 was written: operators from contrib, and results that are pickled."""

from datetime import datetime

from airflow import DAG
from airflow.contrib.sensors.file_sensor import FileSensor
from airflow.operators.python_operator import PythonOperator


def calendar():
    return {"as_of": datetime(2024, 1, 31), "holidays": {1, 6}, "raw": b"\x00\xff"}


with DAG(dag_id="contrib_calendar", start_date=datetime(2024, 1, 1), schedule_interval="@once", catchup=False) as dag:
    here = FileSensor(task_id="here", filepath="/etc/passwd", poke_interval=5)
    here >> PythonOperator(task_id="calendar", python_callable=calendar)
