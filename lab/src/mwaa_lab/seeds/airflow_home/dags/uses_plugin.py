# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An operator and a macro that come from the plugins folder."""

from datetime import datetime

from acme.operators import GreetOperator
from airflow import DAG

with DAG(dag_id="uses_plugin", start_date=datetime(2024, 1, 1), schedule="@once", catchup=False) as dag:
    GreetOperator(task_id="greet", name="{{ ds }}")
