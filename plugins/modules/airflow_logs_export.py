# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""airflow_logs_export is an action plugin (plugins/action/airflow_logs_export.py); this is its documentation."""

from __future__ import annotations

DOCUMENTATION = r"""
module: airflow_logs_export
short_description: Export the task logs of an Airflow on a host into its bundle
version_added: 0.1.0
description:
  - Reads the task logs of an Apache Airflow from its log folder and puts them, compressed, into the bundle that
    M(mwaa.migration.airflow_export) made of it. Runs one agent with Airflow's own Python through the connection of the
    host; nothing is installed or written there.
  - Airflow's database tells which tasks there were, and Airflow's own templates where their logs are. So all layouts
    are read, C(dag_id/task_id/execution_date/try.log), C(dag_id=…/run_id=…/task_id=…/attempt=N.log) and custom ones
    (C(log_filename_template), table C(log_template)), and each log is known by its run and attempt.
  - Where the source keeps its logs in S3 (C(remote_base_log_folder)), the bundle says only where; these are read by
    M(mwaa.migration.mwaa_logs_copy). Logs of runs that have not ended are taken when they have.
  - Running it again sends only what is new. An interrupted export goes on where it was. Where tasks run on several
    hosts, run it on each of them, one after another, with the same bundle.
options:
  bundle:
    description: The bundle of this Airflow, V(s3://bucket/prefix) or a folder of the controller.
    type: str
    required: true
  kms_key_id:
    description: The ARN of the KMS key that sealed the bundle, needed only where that is another account's.
    type: str
  state:
    description: V(failed) takes the logs of tasks that ended as failed, all their attempts. V(all) takes all.
    type: str
    default: failed
    choices: [failed, all]
  days:
    description: Only logs of tasks that ended in the last so many days. All of them when it is not given.
    type: int
  dags:
    description: Patterns (V(*), V(?), V([…])) of the DAGs whose logs are taken. All of them when it is empty.
    type: list
    elements: str
    default: []
  exclude:
    description: Patterns of DAGs whose logs are not taken.
    type: list
    elements: str
    default: []
  transport:
    description:
      - How logs leave the host.
      - V(s3) hands presigned URLs to the host, which has to reach S3. V(connection) carries them through the host's
        connection and the controller. V(auto) tries V(s3) and falls back to V(connection).
    type: str
    default: auto
    choices: [auto, s3, connection]
  airflow_home:
    description: The source's E(AIRFLOW_HOME), the folder that holds C(airflow.cfg). It is found when not given.
    type: str
  airflow_python:
    description: The Python interpreter that runs the source's Airflow. It is found when not given.
    type: str
  airflow_command_prefix:
    description:
      - What the commands on the host are put behind, for an Airflow that runs in a container; as for
        M(mwaa.migration.airflow_export).
    type: raw
extends_documentation_fragment:
  - amazon.aws.common.modules
  - amazon.aws.region.modules
  - amazon.aws.boto3
attributes:
  check_mode:
    description: Can run in check_mode and return changed status prediction without modifying target
    support: full
    details:
      - Nothing is written. C(sent) of RV(logs) then is what would be sent.
  diff_mode:
    description: Will return details on what has changed (or possibly needs changing in check_mode), when in diff mode
    support: none
  idempotent:
    description: When run again with the same arguments and nothing else happened, it changes nothing.
    support: full
notes:
  - It runs as the user of the connection or of C(become), which has to be able to read C(airflow.cfg), the database and
    the log folder.
  - Logs may hold secrets that tasks wrote into them. In a bucket they rest under its encryption, in a folder they are
    sealed with the bundle's key.
author:
  - mwaa.migration contributors (@mwaa-migration)
seealso:
  - module: mwaa.migration.airflow_export
  - module: mwaa.migration.mwaa_logs_copy
"""

EXAMPLES = r"""
- name: Export the logs of failed tasks of the last 30 days
  mwaa.migration.airflow_logs_export:
    bundle: s3://my-migration/airflow-prod
    days: 30
  become: true
  become_user: airflow

- name: Export all logs but those of test DAGs
  mwaa.migration.airflow_logs_export:
    bundle: s3://my-migration/airflow-prod
    state: all
    exclude: ["test_*"]
"""

RETURN = r"""
bundle:
  description: Where the bundle is.
  returned: success
  type: str
  sample: s3://my-migration/airflow-prod
host:
  description: The host, as it calls itself.
  returned: success
  type: str
  sample: airflow-1
base_log_folder:
  description: The log folder.
  returned: success
  type: str
  sample: /opt/airflow/logs
remote_base_log_folder:
  description: Where the source keeps its logs too; null where it does not.
  returned: success
  type: str
  sample: s3://my-logs/airflow
logs:
  description:
    - How many logs there are (C(listed)), how many were sent (C(sent)), lie in S3 already (C(remote)) and were in the
      bundle before (C(unchanged)).
  returned: success
  type: dict
  sample: {listed: 5000, sent: 1200, remote: 0, unchanged: 3800}
bytes:
  description: Bytes of the logs that were sent, before their compression.
  returned: success
  type: int
  sample: 104857600
dags:
  description: How many DAGs they belong to.
  returned: success
  type: int
  sample: 40
not_carried:
  description: Logs that stay behind, with the reason. Of more than 1,000 an entry says how many there are besides.
  returned: success
  type: list
  elements: dict
  contains:
    kind: {description: "V(log).", type: str, returned: always}
    id: {description: Whose log it is., type: str, returned: always}
    reason: {description: Why it stays behind., type: str, returned: always}
findings:
  description: What one should know, sentence by sentence.
  returned: success
  type: list
  elements: str
  sample: ["2 runs have not ended: their logs are taken when they have"]
duration:
  description: Seconds it took.
  returned: success
  type: float
  sample: 12.1
"""
