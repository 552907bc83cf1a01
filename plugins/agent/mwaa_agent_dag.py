# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The agent as a DAG of an MWAA environment, Airflow 1.10 to 3.x: a shell around airflow_agent.py beside it.

It is uploaded as mwaa_migration/mwaa_agent.py with the constants filled in, and removed by the cleanup. A run takes
nothing but a request id from its conf; the request itself is sealed in the bucket, bound to this environment, expires
and is served once. Its answer goes back to the bucket, sealed too: nothing of it is logged, returned or an XCom.
"""

import datetime
import inspect
import os

try:
    from airflow.sdk import DAG
except ImportError:
    from airflow import DAG
try:
    from airflow.providers.standard.operators.python import PythonOperator
except ImportError:
    try:
        from airflow.operators.python import PythonOperator
    except ImportError:
        from airflow.operators.python_operator import PythonOperator

BUCKET = "@BUCKET@"
PREFIX = "@PREFIX@"
ENVIRONMENT = "@ENVIRONMENT@"
KMS_KEY = "@KMS_KEY@"
STAMP = "@STAMP@"  # of these files' content: the owner that Airflow shows says which of them it has read

DAG_ID = "mwaa_agent"
TASK_ID = "t"


class Refused(Exception):
    """The sentence is all that the task's log gets."""


def load_agent():
    import importlib.util

    path = os.path.join(os.path.dirname(os.path.abspath(__file__)), "airflow_agent.py")
    spec = importlib.util.spec_from_file_location("mwaa_migration_airflow_agent", path)
    agent = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(agent)
    return agent


def serve(**context):
    """Serve the run's request. A refusal fails the run; the name of an XCom says which, as names can be listed."""
    import boto3

    run, instance = context["dag_run"], context["ti"]
    refusal = load_agent().serve(
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
    if refusal:
        if refusal["id"]:
            instance.xcom_push(key="%s.%s" % (refusal["id"], refusal["code"]), value=refusal["message"])
        raise Refused(refusal["message"])


def build():
    parameters = inspect.signature(DAG.__init__).parameters
    options = {
        "schedule" if "schedule" in parameters else "schedule_interval": None,  # 2.4 renamed it
        "start_date": datetime.datetime(2020, 1, 1),
        "catchup": False,
        "is_paused_upon_creation": False,
        "max_active_runs": 1,
        "default_args": {"retries": 0, "owner": "mwaa_migration_" + STAMP},
        "tags": ["mwaa_migration"],
    }
    named = inspect.signature(PythonOperator.__init__).parameters
    context = {"provide_context": True} if "provide_context" in named else {}  # 1.10 has to be asked for it
    with DAG(DAG_ID, **options) as dag:
        PythonOperator(task_id=TASK_ID, python_callable=serve, **context)
    return dag


dag = build()
