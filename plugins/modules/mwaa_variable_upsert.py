#!/usr/bin/python
# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: mwaa_variable_upsert
short_description: Bring variables into an MWAA environment
version_added: 0.1.0
description:
  - Creates and updates Airflow variables, thousands in one task. All of them are checked before anything is
    written, and everything that is wrong is reported at once.
  - Values are text and arrive byte for byte. What cannot arrive so is listed in RV(not_carried).
  - Values are secrets to this module and are masked in everything Ansible shows. Ansible masks by searching its
    output for the text, so that a short value such as V(1) or V(prod) makes stars of unrelated output. O(bundle)
    avoids that, and keeps secrets out of Ansible altogether.
  - With lane V(rest), a variable whose key looks harmless but whose JSON value has a sensitive field would be
    written into Airflow's audit log in clear. On Airflow 3 such a variable is written by a task where there is a
    key; without a key it is not carried.
options:
  variables:
    description: The variables. Each is written whole, a field that is left out becomes empty.
    type: list
    elements: dict
    suboptions:
      key:
        description: The key, required, at most 250 characters.
        type: str
      value:
        description:
          - The value, required. Text is stored as it is. A dictionary or list is stored as JSON.
          - Numbers and booleans are refused, because YAML has changed their spelling already (C(1e5), C(007),
            C(yes)). Put them in quotes.
        type: raw
      description:
        description: A description.
        type: str
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
      - On Airflow 3, sensitive values and the spelling of JSON cannot be read back. They are compared by digests
        with O(kms_key_id) or O(bundle), and otherwise written again.
seealso:
  - module: mwaa.migration.mwaa_connection_upsert
  - module: mwaa.migration.mwaa_pool_upsert
  - module: mwaa.migration.mwaa_verify
author:
  - mwaa.migration contributors (@mwaa-migration)
"""

EXAMPLES = r"""
- name: Bring the variables of a bundle
  mwaa.migration.mwaa_variable_upsert:
    environment: prod
    bundle: s3://my-migration-bundles/prod

- name: Set two variables, leave them alone where they exist
  mwaa.migration.mwaa_variable_upsert:
    environment: prod
    variables:
      - key: region
        value: eu-central-1
        description: Where the data is
      - key: tables
        value: [orders, customers]
    on_conflict: keep
"""

RETURN = r"""
results:
  description: What became of each item, in the order of the list, then what was pruned.
  returned: always, also on failure after something was written
  type: list
  elements: dict
  contains:
    id:
      description: The key, in the environment.
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
      description: V(variable).
      type: str
    id:
      description: The key.
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
    "key": {"type": "str", "no_log": False},
    "value": {"type": "raw", "no_log": True},
    "description": {"type": "str"},
}


def main() -> None:
    run_module(
        argument_spec("variables", FIELDS),
        lambda ctx: upsert(ctx, "variables"),
        mutually_exclusive=[("variables", "bundle")],
        required_one_of=[("variables", "bundle")],
    )


if __name__ == "__main__":
    main()
