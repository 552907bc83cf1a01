# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The TaskFlow way, with a mapped task."""

from datetime import datetime

from airflow.decorators import dag, task


@dag(start_date=datetime(2024, 1, 1), schedule="@once", catchup=False, tags=["orders"])
def taskflow_orders():
    @task
    def orders():
        return [{"id": 1, "total": 40}, {"id": 2, "total": 2}]

    @task
    def price(order):
        return order["total"] * 100

    @task
    def total(prices):
        return sum(prices)

    total(price.expand(order=orders()))


flow = taskflow_orders()
