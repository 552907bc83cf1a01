# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Broken at the source too: nobody has looked after it."""

from datetime import datetime

import acme_gone_for_years
from airflow import DAG

with DAG(dag_id="broken_import", start_date=datetime(2024, 1, 1), schedule=None) as dag:
    acme_gone_for_years.task("never")
