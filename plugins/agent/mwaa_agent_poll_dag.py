# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Starts the agent where nobody can call this Airflow: looks for requests every minute. Airflow 1.10 to 3.x.

It is uploaded as mwaa_migration/mwaa_agent_poll.py with the constants filled in. It opens nothing: each request found
is served by a run of mwaa_agent whose run id is the request's, so one id is served once, as Airflow's database has a
run id only once. After UNTIL this file defines no DAG: nothing of it goes on by itself.
"""

import datetime
import inspect
import re
import time

try:
    from airflow.sdk import DAG
except ImportError:
    from airflow import DAG
try:
    from airflow.providers.standard.operators.trigger_dagrun import TriggerDagRunOperator
except ImportError:
    try:
        from airflow.operators.trigger_dagrun import TriggerDagRunOperator
    except ImportError:
        from airflow.operators.dagrun_operator import TriggerDagRunOperator
try:
    from airflow.exceptions import AirflowSkipException
except ImportError:
    from airflow.sdk.exceptions import AirflowSkipException

BUCKET = "@BUCKET@"
PREFIX = "@PREFIX@"
UNTIL = int("@UNTIL@")  # seconds since 1970

DAG_ID = "mwaa_agent_poll"
AGENT_DAG_ID = "mwaa_agent"
REQUEST = re.compile(r"/requests/(r[0-9a-f]{32})\.(json|answer)$")


def pending(s3):
    """Ids of requests that lie there and are not answered, oldest first."""
    found, answered = {}, set()
    for page in s3.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=PREFIX + "/requests/"):
        for entry in page.get("Contents", []):
            match = REQUEST.search(entry["Key"])
            if match and match.group(2) == "answer":
                answered.add(match.group(1))
            elif match:
                found[match.group(1)] = entry["LastModified"]
    return [identifier for identifier in sorted(found, key=found.__getitem__) if identifier not in answered]


class Start(TriggerDagRunOperator):
    """Triggers the agent for one request: the oldest, and each minute the next, so that none waits behind another."""

    def execute(self, context):
        import boto3

        waiting = pending(boto3.client("s3"))
        if not waiting:
            raise AirflowSkipException("no request waits")
        identifier = waiting[int(time.time() // 60) % len(waiting)]
        try:
            from airflow.api.common.trigger_dag import trigger_dag
        except ImportError:
            try:
                from airflow.api.common.experimental.trigger_dag import trigger_dag
            except ImportError:
                trigger_dag = None
        if _has_database() and trigger_dag:
            try:
                trigger_dag(dag_id=AGENT_DAG_ID, run_id=identifier, conf={"request": identifier})
            except Exception as error:
                if type(error).__name__ != "DagRunAlreadyExists":
                    raise
            return None
        self.trigger_run_id = identifier
        self.conf = {"request": identifier}
        self.skip_when_already_exists = True
        return super().execute(context)


def _has_database():
    from airflow import __version__

    return int(__version__.split(".")[0]) < 3


def build():
    parameters = inspect.signature(DAG.__init__).parameters
    options = {
        "schedule" if "schedule" in parameters else "schedule_interval": "* * * * *",  # 2.4 renamed it
        "start_date": datetime.datetime(2020, 1, 1),
        "end_date": datetime.datetime(1970, 1, 1) + datetime.timedelta(seconds=UNTIL),
        "catchup": False,
        "is_paused_upon_creation": False,
        "max_active_runs": 1,
        "default_args": {"retries": 0, "owner": "mwaa_migration"},
        "tags": ["mwaa_migration"],
    }
    with DAG(DAG_ID, **options) as dag:
        Start(task_id="start", trigger_dag_id=AGENT_DAG_ID)
    return dag


if time.time() < UNTIL:
    dag = build()
