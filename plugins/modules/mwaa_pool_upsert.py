#!/usr/bin/python
# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: mwaa_pool_upsert
short_description: Bring pools into an MWAA environment
version_added: 0.1.0
description:
  - Creates and updates Airflow pools, hundreds in one task. All of them are checked before anything is written, and
    everything that is wrong is reported at once.
  - C(default_pool) exists in every environment and is updated where it is in the list.
options:
  pools:
    description: The pools. Each is written whole, a field that is left out becomes empty.
    type: list
    elements: dict
    suboptions:
      name:
        description: The name, required, at most 256 characters.
        type: str
      slots:
        description: The number of slots, required. V(-1) is unlimited.
        type: raw
      description:
        description: A description.
        type: str
      include_deferred:
        description: Whether deferred tasks take slots. Airflow has it from 2.7 on.
        type: bool
        default: false
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
      - Pools hold no secrets, everything is compared.
seealso:
  - module: mwaa.migration.mwaa_variable_upsert
  - module: mwaa.migration.mwaa_connection_upsert
  - module: mwaa.migration.mwaa_verify
author:
  - mwaa.migration contributors (@mwaa-migration)
"""

EXAMPLES = r"""
- name: Bring the pools of a bundle
  mwaa.migration.mwaa_pool_upsert:
    environment: prod
    bundle: s3://my-migration-bundles/prod

- name: Have these pools and no others
  mwaa.migration.mwaa_pool_upsert:
    environment: prod
    pools:
      - name: warehouse
        slots: 4
        description: What the warehouse bears
      - name: default_pool
        slots: 64
    prune: true
"""

RETURN = r"""
results:
  description: What became of each item, in the order of the list, then what was pruned.
  returned: always, also on failure after something was written
  type: list
  elements: dict
  contains:
    id:
      description: The name, in the environment.
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
      description: V(pool).
      type: str
    id:
      description: The name.
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
    "name": {"type": "str"},
    "slots": {"type": "raw"},
    "description": {"type": "str"},
    "include_deferred": {"type": "bool", "default": False},
}


def main() -> None:
    run_module(
        argument_spec("pools", FIELDS),
        lambda ctx: upsert(ctx, "pools"),
        mutually_exclusive=[("pools", "bundle")],
        required_one_of=[("pools", "bundle")],
    )


if __name__ == "__main__":
    main()
