# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""airflow_export is an action plugin (plugins/action/airflow_export.py); this is its documentation."""

from __future__ import annotations

DOCUMENTATION = r"""
module: airflow_export
short_description: Export an Airflow's state, code and configuration into a sealed bundle
version_added: 0.1.0
description:
  - Reads variables, connections, pools, the DAG and plugin folders, what is installed and what is configured from
    an Apache Airflow on a host, or from an MWAA environment, and puts them into a bundle in S3 or in a local folder.
  - Runs one agent with Airflow's own Python through the connection of the host. Nothing is installed or written
    there, and the host needs no AWS credentials, no boto3 and no Python that Ansible's modules would need.
  - Variables, connections and pools are exact, passwords included, and sealed on the host with the bundle's data
    key, which KMS wraps. A source without the cryptography package (1.10 without its extra) seals with OpenSSL.
    No secret is ever an argument, an environment variable, a file or a return value.
  - A missing or wrong Fernet key, with which Airflow's own export succeeds with nulls or ciphertext, fails the export.
  - With O(source_environment), the agent runs as a DAG in that environment, and is taken out again. Nothing else of the
    environment is changed, its requirements least of all, and no DAG is paused, because all that is read is read in one
    snapshot of its database. DAG files, C(plugins.zip), C(requirements.txt), C(startup.sh) and options come out of its
    bucket and its settings, in the versions that it runs. They are put into the bundle as a host's are.
  - A task of Airflow 3 has no way to the database. From such an environment, names, descriptions and pools are listed
    by the REST API, and values are read by the agent through the task SDK. What cannot be read that way is listed.
  - Running it again sends only what changed, and writes nothing when nothing did. An interrupted export goes on
    where it was.
options:
  bundle:
    description: Where the bundle is, V(s3://bucket/prefix) or a folder of the controller.
    type: str
    required: true
  kms_key_id:
    description:
      - The KMS key that wraps the data key of a new bundle.
      - Required as long as there is no bundle; an existing one keeps its key.
    type: str
  target_version:
    description: The Airflow version of the environment that is entered; requirements and options are derived for it.
    type: str
    required: true
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
  transport:
    description:
      - How DAG and plugin files leave the host.
      - V(s3) hands presigned URLs to the host, each good for exactly one content; the host has to reach S3.
      - V(connection) carries them through the host's connection and the controller.
      - V(auto) tries V(s3) and falls back to V(connection).
    type: str
    default: auto
    choices: [auto, s3, connection]
  airflow_command_prefix:
    description:
      - What the commands on the host are put behind, for an Airflow that runs in a container. Airflow and its Python
        are then looked for inside.
      - A command line, taken as it is, or a list of its words. It has to hand on stdin, as C(docker compose exec -T)
        does, with a stand-in for which it was tried.
    type: raw
  environment_variables:
    description:
      - What becomes of E(AIRFLOW_VAR_*), E(AIRFLOW_CONN_*) and of other variables that DAG files read by name and that
        Airflow's own processes have.
      - V(list) carries none and lists them.
      - V(state) makes variables and connections of the first two, which replace what they hide in the database, and
        lines in C(startup.sh) of the others.
      - V(startup_script) makes connections of E(AIRFLOW_CONN_*), and lines in C(startup.sh) of the others;
        E(AIRFLOW_VAR_*) that look like a secret become variables.
      - What looks like a secret never gets into C(startup.sh). Before Airflow 2.2.2 there is none, E(AIRFLOW_VAR_*)
        become variables and the others are listed.
    type: str
    default: list
    choices: [list, state, startup_script]
  environment:
    description: The name of the environment that is entered, for the IAM policies that are proposed.
    type: str
  state:
    description:
      - V(exported) exports.
      - V(listed) only lists what files this host holds, for another host of the same installation to compare with.
    type: str
    default: exported
    choices: [exported, listed]
  hosts:
    description:
      - The other hosts of the same installation, each with the RV(listing) it returned.
      - Their DAG and plugin files are compared with those of this host, which are carried.
    type: dict
    default: {}
  on_difference:
    description:
      - What happens where hosts differ. V(fail) refuses, with paths and hosts; V(list) carries what this host holds
        and lists the others'.
    type: str
    default: fail
    choices: [fail, list]
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
      - Nothing is written and no key is made. An existing bundle is opened, which asks KMS to decrypt its key.
      - With O(source_environment), no agent is put there, so that its state, DAGs and users are not compared.
  diff_mode:
    description: Will return details on what has changed (or possibly needs changing in check_mode), when in diff mode
    support: full
    details:
      - Names only, never values.
  idempotent:
    description: When run again with the same arguments and nothing else happened, it changes nothing.
    support: full
notes:
  - It runs as the user of the connection or of C(become), which has to be able to read C(airflow.cfg) and the
    database; best is Airflow's own user.
  - The connection has to be able to hand stdin to a command, as V(ssh), V(local) and V(community.docker.docker) do.
author:
  - mwaa.migration contributors (@mwaa-migration)
seealso:
  - module: mwaa.migration.mwaa_variable_upsert
  - module: mwaa.migration.mwaa_connection_upsert
  - module: mwaa.migration.mwaa_pool_upsert
  - module: mwaa.migration.mwaa_dags_sync
"""

EXAMPLES = r"""
- name: Export the Airflow of this host
  mwaa.migration.airflow_export:
    bundle: s3://my-migration/airflow-prod
    kms_key_id: alias/migration
    target_version: 2.11.2
  become: true
  become_user: airflow

- name: Export an Airflow that runs in docker compose
  mwaa.migration.airflow_export:
    bundle: s3://my-migration/airflow-prod
    kms_key_id: alias/migration
    target_version: 2.11.2
    airflow_command_prefix: docker compose -f /srv/airflow/compose.yml exec -T airflow-scheduler
    environment_variables: state

- name: Export an MWAA environment of another account
  mwaa.migration.airflow_export:
    source_environment: analytics-old
    source_role_arn: arn:aws:iam::444455556666:role/mwaa-migration
    bundle: s3://my-migration/airflow-prod
    kms_key_id: arn:aws:kms:eu-central-1:111122223333:key/00000000-0000-0000-0000-000000000000
    target_version: 2.11.2
  delegate_to: localhost

- name: Look, and write nothing
  mwaa.migration.airflow_export:
    bundle: /var/tmp/bundle
    kms_key_id: alias/migration
    target_version: 2.11.2
    airflow_home: /srv/airflow
    airflow_python: /srv/airflow/venv/bin/python
  check_mode: true
  diff: true
"""

RETURN = r"""
bundle:
  description: The bundle.
  returned: success
  type: str
  sample: s3://my-migration/airflow-prod
bundle_id:
  description: Its identity, to which its key is bound; null in check mode as long as there is no bundle.
  returned: success
  type: str
  sample: 5f0c2a52b53a4c0f8f3f1f8c5a8f7d11
source:
  description: The Airflow that was read.
  returned: success
  type: dict
  contains:
    airflow_version:
      description: Its version.
      type: str
      sample: 2.10.3
    python_version:
      description: The version of its Python.
      type: str
      sample: 3.11.7
    hostname:
      description: The name of the host, or of the environment.
      type: str
      sample: airflow-1
    airflow_home:
      description: Its home.
      type: str
      sample: /opt/airflow
    database:
      description: Its metadata database, without user and password; of an environment, its ARN.
      type: str
      sample: postgresql+psycopg2://db.internal:5432/airflow
    executor:
      description: Its executor.
      type: str
      sample: CeleryExecutor
    dags_folder:
      description: Its DAG folder.
      type: str
      sample: /opt/airflow/dags
    plugins_folder:
      description: Its plugin folder.
      type: str
      sample: /opt/airflow/plugins
    user:
      description: The user that the agent ran as.
      type: str
      sample: airflow
    python:
      description: The interpreter that the agent ran with.
      type: str
      sample: /opt/airflow/venv/bin/python
target_version:
  description: The Airflow version that requirements and options were derived for.
  returned: success
  type: str
  sample: 2.11.2
counts:
  description: How many variables, connections, pools, dags, files and default_connections_left_out there are.
  returned: success
  type: dict
  sample: {variables: 12, connections: 7, pools: 3, dags: 40, files: 55, default_connections_left_out: 58}
access:
  description:
    - How many users, roles, roles of the source's own, and DAGs with access control there are. They are not carried.
    - C(access.md) and C(access.json) in the bundle list them, with MWAA's nearest roles and IAM policies.
  returned: success
  type: dict
  sample: {users: 9, roles: 6, custom_roles: 1, dags_with_access_control: 2}
listing:
  description: The host's files by hash.
  returned: when O(state=listed)
  type: dict
  sample: {hostname: airflow-2, airflow_version: 2.10.3, files: {}}
state:
  description: Names of the variables, connections and pools that are added, changed or removed, by kind. Never values.
  returned: success
  type: dict
  sample: {variables: {changed: [region]}}
files:
  description: Paths in the bundle that are added, changed and removed, and how many are unchanged.
  returned: success
  type: dict
  sample: {added: [], changed: [dags/etl.py], removed: [], unchanged: 57}
not_carried:
  description: Everything that is left behind, with the reason.
  returned: success
  type: list
  elements: dict
  contains:
    kind:
      description: >-
        One of variable, connection, default_connection, pool, file, host_file, dag_bundle, requirement, option,
        environment_variable.
      type: str
      sample: option
    id:
      description: Its name.
      type: str
      sample: core.executor
    reason:
      description: Why.
      type: str
      sample: MWAA sets it itself and ignores any other value
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
  sample: 4.2
"""
