#!/usr/bin/python
# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: mwaa_logs_copy
short_description: Bring task logs into an Amazon MWAA environment's log group, and old ones into an archive
version_added: 0.1.0
description:
  - Brings the logs of a bundle (M(mwaa.migration.airflow_logs_export)), of another environment's log group, or of a
    folder of remote logs in S3 into the CloudWatch log group of an environment's task logs, each attempt into the
    stream in which the environment's Airflow looks for it.
  - CloudWatch takes no event that is older than 14 days or than the group's retention. A log that has such events goes
    to an archive in S3, whole and compressed, as
    C(dag_id=…/run_id=…/task_id=…/[map_index=…/]attempt=N.log.gz). What CloudWatch takes of it goes there all the same.
    C(index/dag_id=….jsonl) of the archive has a line for each of them, with DAG, run, task, map index and attempt.
    It says where each lies (C(key)), since ids that are too long for a key of S3 are a digest there.
  - Nothing is written twice. What was copied is kept in the bundle's ledger; what a run wrote that was killed, or whose
    answer was lost, is found by reading the stream. Several streams are read and written at once, within the rates of
    CloudWatch.
  - What CloudWatch says that it did not take (C(rejectedLogEventsInfo)) is counted in RV(rejected), and archived.
  - A stream that holds other events than those of the log is left as it is and listed. So is a log whose stream would
    have a name that CloudWatch does not take; it goes to the archive alone.
options:
  bundle:
    description:
      - The bundle whose logs are copied, and that keeps the ledger, V(s3://bucket/prefix) or a folder of the
        controller.
      - Its history tells which tasks failed, and which run an old log belongs to, where logs come from elsewhere.
    type: str
    required: true
  kms_key_id:
    description: The ARN of the KMS key that sealed the bundle, needed only where that is another account's.
    type: str
  state:
    description:
      - V(failed) takes the logs of tasks that ended as failed, all their attempts. V(all) takes all.
      - Of a log group and of a folder in S3 only the bundle's history tells what failed.
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
  source_environment:
    description: The name of an MWAA environment that is left, whose task logs are brought.
    type: str
  source_log_group:
    description: A log group whose streams are task logs too, as an Airflow with remote logs in CloudWatch has it.
    type: str
  source_s3:
    description:
      - A folder of remote logs in S3, V(s3://bucket/prefix), whose Airflow nobody can ask any more.
      - Not needed for logs of a bundle, which says itself where they lie.
    type: str
  archive:
    description:
      - Where logs go that CloudWatch does not take, V(s3://bucket/prefix).
      - C(task-logs/<environment>) in the environment's bucket when it is not given.
    type: str
extends_documentation_fragment:
  - mwaa.migration._options.environment
  - mwaa.migration._options.source
  - amazon.aws.common.modules
  - amazon.aws.region.modules
  - amazon.aws.boto3
attributes:
  check_mode:
    description: Can run in check_mode and return changed status prediction without modifying target
    support: full
    details:
      - It counts as C(copied) what the ledger does not have. Which of these streams are there is not looked up,
        nor is what CloudWatch would not take.
  diff_mode:
    description: Will return details on what has changed (or possibly needs changing in check_mode), when in diff mode
    support: none
  idempotent:
    description: When run again with the same arguments and nothing else happened, it changes nothing.
    support: full
notes:
  - The environment's task logs have to be enabled.
  - Logs are not looked through for secrets. What a task wrote into its log is in the environment's log group then, too.
  - Airflow's page shows of a log what is no later than 30 seconds after the task's end. Events keep their own times.
author:
  - mwaa.migration contributors (@mwaa-migration)
seealso:
  - module: mwaa.migration.airflow_logs_export
  - module: mwaa.migration.airflow_export
"""

EXAMPLES = r"""
- name: Bring the logs of failed tasks of the last 30 days
  mwaa.migration.mwaa_logs_copy:
    environment: prod
    bundle: s3://my-migration/airflow-prod
    days: 30

- name: Bring all logs of another environment
  mwaa.migration.mwaa_logs_copy:
    environment: analytics-211
    bundle: s3://my-migration/analytics
    source_environment: analytics
    state: all
    archive: s3://my-archive/airflow-logs
"""

RETURN = r"""
environment:
  description: The environment.
  returned: success
  type: str
  sample: prod
log_group:
  description: The log group of its task logs.
  returned: success
  type: str
  sample: airflow-prod-Task
archive:
  description: Where logs are that CloudWatch did not take; null where there are none.
  returned: success
  type: str
  sample: s3://prod-airflow/task-logs/prod
logs:
  description:
    - How many logs there are (C(logs)), how many were copied by this run (C(copied)), were brought before
      (C(unchanged)) and went to the archive (C(archived)), and how many events were written (C(events)).
    - A log of which CloudWatch took a part counts as copied and as archived.
  returned: success
  type: dict
  sample: {logs: 5000, copied: 4200, unchanged: 0, archived: 800, events: 181200}
rejected:
  description: How many events CloudWatch does not take, because they are too old or lie in the future.
  returned: success
  type: dict
  sample: {too_old: 22400, too_new: 0}
not_carried:
  description: Logs that stay behind, with the reason. Of more than 1,000 an entry says how many there are besides.
  returned: success
  type: list
  elements: dict
  contains:
    kind: {description: "V(log).", type: str, returned: always}
    id: {description: Whose log it is., type: str, returned: always}
    reason: {description: Why it stays behind., type: str, returned: always}
duration:
  description: Seconds it took.
  returned: success
  type: float
  sample: 92.5
"""

from typing import Any

from ansible_collections.mwaa.migration.plugins.module_utils._aws import Context, run_module
from ansible_collections.mwaa.migration.plugins.module_utils._logs.copy import ARGUMENT_SPEC, Copy


def body(ctx: Context) -> dict[str, Any]:
    return Copy(ctx.params, ctx.aws, ctx.check_mode).run()


def main() -> None:
    run_module(ARGUMENT_SPEC, body)


if __name__ == "__main__":
    main()
