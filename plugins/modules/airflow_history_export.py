# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""airflow_history_export is an action plugin (plugins/action/airflow_history_export.py); this is its documentation."""

from __future__ import annotations

DOCUMENTATION = r"""
module: airflow_history_export
short_description: Export an Airflow's run history into its bundle
version_added: 0.1.0
description:
  - Reads DAG runs, task instances and their history, XComs, the audit log, jobs, SLA misses, rendered fields,
    reschedules, notes, dataset events and the DAGs' pause state out of the metadata database of an Apache Airflow
    1.10.12 to 2.11.2 on PostgreSQL, MySQL or SQLite, and puts them into the bundle that
    M(mwaa.migration.airflow_export) made.
  - Only runs that have ended are carried, each as a whole. What is running, queued or deferred is listed.
  - Runs one agent with Airflow's own Python through the connection of the host. Nothing is installed or written
    there, not even a temporary file, and memory does not grow with the tables.
  - Tables are read in parts, by several processes that look at one snapshot of the database. Killed anywhere and run
    again, it goes on with the parts that are missing. What changed while it read is carried at its end.
  - When an export with the same filters is complete, the next one carries what has changed since and lists what is
    gone. When nothing has changed, nothing is written. With other filters everything is exported anew.
  - What has changed is told exactly on PostgreSQL. MySQL and SQLite tell it by dates and by numbers of rows, so the
    last hour before the former export is read again, and a row that somebody changed by hand without a date is not
    seen. It comes where everything is exported anew, after C(history/) was removed from the bundle.
  - With O(source_environment), the agent runs as a DAG in that MWAA environment, puts the parts into the bundle by
    presigned URLs, for which its role needs no rights, and is taken out again. No DAG is paused, because one round
    reads one snapshot. The history of an environment of Airflow 3 cannot be read from a task. That is no failure, it is
    listed.
  - Pickles are never loaded. What Airflow 1.10 pickled is read by a reader of plain data; what that does not
    understand is listed by its key.
options:
  bundle:
    description:
      - Where the bundle is, V(s3://bucket/prefix) or a folder of the controller. It has to exist.
      - In a bucket, history is encrypted as the bucket encrypts; in a folder, with the bundle's own key.
    type: str
    required: true
  kms_key_id:
    description: The ARN of the KMS key that sealed the bundle, needed only where that is another account's.
    type: str
  target_version:
    description:
      - The Airflow version of the environment that is entered. What its tables lack is left out and listed.
      - History enters Airflow 3 by 2.11.2, whose tables count then.
    type: str
    required: true
  dags:
    description: Patterns of DAG ids, such as V(etl_*). Nothing means all DAGs, and rows that belong to none.
    type: list
    elements: str
    default: []
  exclude:
    description: Patterns of DAG ids that stay behind.
    type: list
    elements: str
    default: []
  tables:
    description: Names of the tables that are carried. Nothing means all of them.
    type: list
    elements: str
    default: []
  since:
    description:
      - Runs that ended before stay behind. A number of days, or a day or time in ISO 8601, in UTC where it names no
        zone. A number of days is counted once, for the first export; what follows has the same beginning.
    type: str
  processes:
    description: How many processes read the database at once. MySQL and SQLite are read by one.
    type: int
    default: 2
  transport:
    description:
      - How history leaves the host.
      - V(s3) hands presigned URLs to the host, which has to reach S3.
      - V(connection) carries it through the host's connection and the controller, in small parts.
      - V(auto) tries V(s3) and falls back to V(connection).
    type: str
    default: auto
    choices: [auto, s3, connection]
  airflow_home:
    description:
      - The source's E(AIRFLOW_HOME), the folder that holds C(airflow.cfg).
      - It is found in running processes, systemd units and the usual folders when not given.
    type: str
  airflow_python:
    description:
      - The Python interpreter that runs the source's Airflow.
      - It is found in running processes, systemd units and virtual environments when not given.
    type: str
  airflow_command_prefix:
    description:
      - What the commands on the host are put behind, for an Airflow that runs in a container. A command line, taken as
        it is, or a list of its words. It has to hand on stdin.
    type: raw
extends_documentation_fragment:
  - mwaa.migration._options.source
  - mwaa.migration._options.source_agent
  - mwaa.migration._options.api_host
  - mwaa.migration._options.agent_wait
  - amazon.aws.common.modules
  - amazon.aws.region.modules
  - amazon.aws.boto3
attributes:
  check_mode:
    description: Can run in check_mode and return changed status prediction without modifying target
    support: full
    details:
      - The database is asked for a plan, and nothing is written. Rows and bytes are estimates for large tables.
      - With O(source_environment), no agent is put there, so that it is known only whether there is an export yet.
  diff_mode:
    description: Will return details on what has changed (or possibly needs changing in check_mode), when in diff mode
    support: none
  idempotent:
    description: When run again with the same arguments and nothing else happened, it changes nothing.
    support: full
notes:
  - It runs as the user of the connection or of C(become), which has to be able to read C(airflow.cfg) and the
    database; best is Airflow's own user. The source goes on working meanwhile. An SQLite that is not in WAL mode is the
    exception. Nobody can write to it while a round reads it, which takes a minute or so, and Airflow may fail with
    C(database is locked).
  - The connection has to be able to hand stdin to a command, as V(ssh), V(local) and V(community.docker.docker) do.
  - One run or XCom that alone makes more than 24 MB compressed goes by S3 only.
author:
  - mwaa.migration contributors (@mwaa-migration)
seealso:
  - module: mwaa.migration.airflow_export
  - module: mwaa.migration.mwaa_history_import
"""

EXAMPLES = r"""
- name: Export the history of this host's Airflow
  mwaa.migration.airflow_history_export:
    bundle: s3://my-migration/airflow-prod
    target_version: 2.11.2
  become: true
  become_user: airflow

- name: Only the last 90 days, and no XComs
  mwaa.migration.airflow_history_export:
    bundle: s3://my-migration/airflow-prod
    target_version: 2.11.2
    since: "90"
    exclude: ["tmp_*"]
    tables: [dag, log_template, job, dag_run, task_instance, task_instance_history, log]

- name: See what would be carried, and what still runs
  mwaa.migration.airflow_history_export:
    bundle: s3://my-migration/airflow-prod
    target_version: 2.11.2
  check_mode: true
  register: history
"""

RETURN = r"""
bundle:
  description: The bundle.
  returned: success
  type: str
  sample: s3://my-migration/airflow-prod
export:
  description: The id of this export; null when nothing had changed, and in check mode.
  returned: success
  type: str
  sample: 9f0c2a52b53a4c0f
delta:
  description: Whether it carries only what has changed since the export before.
  returned: success
  type: bool
  sample: false
target_version:
  description: The version whose tables the history is cut to.
  returned: success
  type: str
  sample: 2.11.2
tables:
  description: Rows and compressed bytes by table; in check mode estimates, and bytes as they are in the database.
  returned: success
  type: dict
  sample: {dag_run: {rows: 200000, bytes: 9000000}, task_instance: {rows: 1000000, bytes: 90000000}}
parts:
  description: In how many parts the tables were read.
  returned: success
  type: int
  sample: 42
open:
  description:
    - Runs that have not ended (at most 1000), each with the number of its tasks in flight by state.
    - One with C(again) was carried before, and one with C(half) was cleared while it was exported. Of that one a target
      may have a part alone until it has ended and another export and import bring it whole.
  returned: success
  type: list
  elements: dict
  sample: [{dag_id: etl, run_id: scheduled__2026-01-01T00:00:00+00:00, state: running, tasks: {queued: 1}}]
more_open:
  description: How many more there are.
  returned: success
  type: int
  sample: 0
deferred:
  description: Deferred task instances of ended runs, which are carried without their triggers.
  returned: success
  type: list
  elements: dict
  sample: []
losses:
  description: Tables and columns that the source has and the target has not.
  returned: success
  type: list
  elements: dict
  sample: [{table: sla_miss, column: null, why: the target has no such table}]
faults:
  description: Values that could not be carried as they were, by their key (at most 1000). Never the values.
  returned: success
  type: list
  elements: dict
  sample:
    - {table: xcom, key: {dag_id: etl, task_id: load}, what: "the pickled value is left out: it calls os.system"}
deleted:
  description: What earlier exports carried and is gone at the source. It is not deleted elsewhere.
  returned: success
  type: dict
  contains:
    rows:
      description: How many rows, by table.
      type: dict
      sample: {xcom: 2}
    tables:
      description: Keys by table, as far as they are known (at most 1000 a table).
      type: dict
      sample: {xcom: [{dag_id: etl, run_id: manual__1, rows: 2}]}
    more:
      description: How many rows have no key here.
      type: int
      sample: 0
not_carried:
  description: Everything that stays behind, with the reason (at most 1000 entries).
  returned: success
  type: list
  elements: dict
  contains:
    kind:
      description: One of run, task_instance, history.
      type: str
      sample: run
    id:
      description: Its name.
      type: str
      sample: etl scheduled__2026-01-01T00:00:00+00:00
    reason:
      description: Why.
      type: str
      sample: it is running with tasks in flight (1 queued); runs are carried when they have ended
findings:
  description: What else a user should know.
  returned: success
  type: list
  elements: str
  sample: []
duration:
  description: Seconds.
  returned: success
  type: float
  sample: 42.0
"""
