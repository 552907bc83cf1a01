# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The agent as a DAG of an MWAA environment, Airflow 2.0 to 3.x: a shell around airflow_agent.py, which lies beside it.

It is uploaded as mwaa_migration/mwaa_agent.py with the four constants filled in, and removed by the cleanup. A run
takes nothing but a request id from its conf; the request itself is sealed in the bucket, bound to this environment,
expires and is served once. The short names keep the path of its result,
/dags/mwaa_agent/dagRuns/<id>/taskInstances/t/xcomEntries/r, within InvokeRestApi's 64 characters.
"""

import datetime
import inspect
import json
import os

try:
    from airflow.sdk import DAG
except ImportError:
    from airflow import DAG
try:
    from airflow.providers.standard.operators.python import PythonOperator
except ImportError:
    from airflow.operators.python import PythonOperator

BUCKET = "@BUCKET@"
PREFIX = "@PREFIX@"
ENVIRONMENT = "@ENVIRONMENT@"
KMS_KEY = "@KMS_KEY@"

DAG_ID = "mwaa_agent"
TASK_ID = "t"
XCOM_KEY = "r"


def load_agent():
    import importlib.util

    path = os.path.join(os.path.dirname(os.path.abspath(__file__)), "airflow_agent.py")
    spec = importlib.util.spec_from_file_location("mwaa_migration_airflow_agent", path)
    agent = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(agent)
    return agent


def serve(**context):
    """Pushes the answer as the XCom `r`: ids, statuses, digests and reasons. Nothing is logged and nothing returned."""
    import boto3

    run, instance = context["dag_run"], context["ti"]
    answer = load_agent().serve(
        (run.conf or {}).get("request"),
        run_id=run.run_id,
        try_number=instance.try_number,
        bucket=BUCKET,
        prefix=PREFIX,
        environment=ENVIRONMENT,
        s3=boto3.client("s3"),
        kms=boto3.client("kms"),
        kms_key_id=KMS_KEY,
    )
    instance.xcom_push(key=XCOM_KEY, value=json.dumps(answer))


def build():
    parameters = inspect.signature(DAG.__init__).parameters
    options = {
        "schedule" if "schedule" in parameters else "schedule_interval": None,  # 2.4 renamed it
        "start_date": datetime.datetime(2020, 1, 1),
        "catchup": False,
        "is_paused_upon_creation": False,
        "max_active_runs": 1,
        "default_args": {"retries": 0, "owner": "mwaa_migration"},
        "tags": ["mwaa_migration"],
        "access_control": {"Admin": {"can_read", "can_edit", "can_delete"}},
    }
    with DAG(DAG_ID, **options) as dag:
        PythonOperator(task_id=TASK_ID, python_callable=serve)
    return dag


dag = build()
