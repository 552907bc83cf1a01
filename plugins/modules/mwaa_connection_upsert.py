#!/usr/bin/python
# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: mwaa_connection_upsert
short_description: Bring connections into an MWAA environment
version_added: 0.1.0
description:
  - Creates and updates Airflow connections, thousands in one task. All of them are checked before anything is
    written, and everything that is wrong is reported at once.
  - Every field arrives byte for byte, C(extra) included. What cannot arrive so is listed in RV(not_carried), such
    as an id that Airflow's REST API refuses or an C(extra) that is no JSON object on Airflow 3.
  - O(connections[].password) and O(connections[].extra) are secrets to this module and are masked in everything
    Ansible shows. Ansible masks by searching its output for the text, so that a short password makes stars of
    unrelated output. O(bundle) avoids that, and keeps secrets out of Ansible altogether.
  - O(connections[].login) is no secret to Ansible, because masking names such as V(root) would make its output
    unreadable. It is masked in diffs. Where a login is a secret, use O(bundle) or C(no_log) for the task.
  - With lane V(rest), Airflow notes each call in its audit log. There it masks the password and those keys of
    C(extra) that look sensitive to it. Add other names to C(core.sensitive_var_conn_names) of the environment
    before you import.
  - A connection whose password is taken away is deleted and created anew by lane V(rest), because Airflow's API
    cannot do it otherwise.
  - Lane V(secrets_manager) writes JSON, before Airflow 2.3 a URI, and reads it back as that Airflow does before it is
    sent. A description is never read there; other fields that would be are a reason not to carry the connection.
options:
  connections:
    description: The connections. Each is written whole, a field that is left out becomes empty.
    type: list
    elements: dict
    suboptions:
      conn_id:
        description:
          - The id, required, at most 250 characters. Lane V(rest) takes letters, digits, C(_), C(.), C(-), at most 200.
        type: str
      conn_type:
        description: The type, required.
        type: str
      description:
        description: A description.
        type: str
      host:
        description: The host.
        type: str
      login:
        description: The user.
        type: str
      password:
        description: The password.
        type: str
      schema:
        description: The schema.
        type: str
      port:
        description: The port, 0 to 65535.
        type: raw
      extra:
        description: JSON as text, stored as it is, or a dictionary, stored as JSON.
        type: raw
extends_documentation_fragment:
  - mwaa.migration._state
  - mwaa.migration._options.environment
  - mwaa.migration._options.agent_wait
  - mwaa.migration._options.api_host
  - mwaa.migration._attributes
  - mwaa.migration._attributes.aws
  - amazon.aws.common.modules
  - amazon.aws.region.modules
  - amazon.aws.boto3
attributes:
  idempotent:
    support: full
    details:
      - With lane V(rest), C(password) and C(extra) cannot be read back. They are compared by digests (Airflow 3,
        with O(kms_key_id) or O(bundle)) or with what was last applied (O(bundle)), and otherwise written again.
seealso:
  - module: mwaa.migration.mwaa_variable_upsert
  - module: mwaa.migration.mwaa_pool_upsert
  - module: mwaa.migration.mwaa_verify
author:
  - mwaa.migration contributors (@mwaa-migration)
"""

EXAMPLES = r"""
- name: Bring the connections of a bundle
  mwaa.migration.mwaa_connection_upsert:
    environment: prod
    bundle: s3://my-migration-bundles/prod

- name: Set one connection in a single transaction inside Airflow
  mwaa.migration.mwaa_connection_upsert:
    environment: prod
    kms_key_id: alias/migration
    connections:
      - conn_id: warehouse
        conn_type: postgres
        host: db.internal
        port: 5432
        login: etl
        password: "{{ warehouse_password }}"
        extra:
          sslmode: require

- name: Bring one team's connections under names of their own, and delete what that team's source has no more
  mwaa.migration.mwaa_connection_upsert:
    environment: prod
    bundle: s3://my-migration-bundles/team-a
    include: ["warehouse*", "api_*"]
    exclude: ["*_tmp"]
    rename:
      - match: (.+)
        to: team_a_\1
    prune: true

- name: Keep connections in AWS Secrets Manager
  mwaa.migration.mwaa_connection_upsert:
    environment: prod
    bundle: s3://my-migration-bundles/prod
    lane: secrets_manager
    secrets_kms_key_id: alias/airflow-secrets
"""

RETURN = r"""
results:
  description: What became of each item, in the order of the list, then what was pruned.
  returned: always, also on failure after something was written
  type: list
  elements: dict
  contains:
    id:
      description: The conn_id, in the environment.
      type: str
    renamed_from:
      description: The id in the source, where that is another one.
      type: str
    index:
      description: Its place in the list, null for what was pruned.
      type: int
    changed:
      description: Whether it was changed, or would be in check mode.
      type: bool
    action:
      description:
        - V(created), V(updated), V(unchanged), V(kept), V(deleted), or V(unknown) in check mode, where something
          cannot be compared without a write.
      type: str
    lane:
      description: The lane that it took.
      type: str
    store:
      description: Which store answers for it, V(metastore) (Airflow's own database) or V(secrets_manager).
      type: str
    reason:
      description: Why it counts as different although nothing is known to differ, or why it was kept.
      type: str
    diff:
      description: C(before) and C(after), with secrets masked. Null when nothing changes.
      type: dict
    error:
      description: Why it was not applied.
      type: str
counts:
  description: How many items had each action.
  returned: success
  type: dict
  sample: {"created": 3, "unchanged": 40}
lane:
  description: The lane that was taken.
  returned: success
  type: str
  sample: agent
lane_reason:
  description: Why, in one sentence.
  returned: success
  type: str
  sample: One DAG run on Airflow 2.11.2 applies and compares everything, and its audit log shows nothing of it.
not_carried:
  description: What does not arrive as it is.
  returned: always
  type: list
  elements: dict
  contains:
    kind:
      description: V(connection).
      type: str
    id:
      description: The conn_id.
      type: str
    reason:
      description: Why, and what arrives instead if anything does.
      type: str
notes:
  description: What was done beside, such as uploading the agent.
  returned: when there is something to say
  type: list
  elements: str
"""

from ansible_collections.mwaa.migration.plugins.module_utils._aws import run_module
from ansible_collections.mwaa.migration.plugins.module_utils._state.upsert import argument_spec, upsert

FIELDS = {
    "conn_id": {"type": "str"},
    "conn_type": {"type": "str"},
    "description": {"type": "str"},
    "host": {"type": "str"},
    "login": {"type": "str", "no_log": False},
    "password": {"type": "str", "no_log": True},
    "schema": {"type": "str"},
    "port": {"type": "raw"},
    "extra": {"type": "raw", "no_log": True},
}


def main() -> None:
    run_module(
        argument_spec("connections", FIELDS),
        lambda ctx: upsert(ctx, "connections"),
        mutually_exclusive=[("connections", "bundle")],
        required_one_of=[("connections", "bundle")],
    )


if __name__ == "__main__":
    main()
