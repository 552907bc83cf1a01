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
  bundle:
    description:
      - The URL of a bundle (V(s3://bucket/prefix)) or its folder. Its sealed variables are opened inside the
        module, so that no secret passes through Ansible. Prefer it for whatever has secrets.
      - Exactly one of O(variables) and O(bundle) is needed.
    type: str
  lane:
    description:
      - The way into the environment.
      - V(agent) is one DAG run that writes everything in one transaction inside Airflow. It is for Airflow 2, needs
        a key (O(kms_key_id) or O(bundle)), leaves nothing in the audit log and compares secrets by itself.
      - V(rest) is Airflow's REST API, one call for each item that can hold a secret. Airflow notes these calls in
        its audit log, where it masks what looks sensitive to it.
      - V(auto) takes V(agent) where it can be had and V(rest) otherwise, and says why in RV(lane_reason).
    type: str
    choices: [auto, rest, agent]
    default: auto
  on_conflict:
    description:
      - What is done about variables that exist and differ.
      - V(overwrite) writes them.
      - V(keep) leaves them as they are.
      - V(fail) writes nothing at all and names all of them. One whose secrets cannot be compared counts as different.
    type: str
    choices: [overwrite, keep, fail]
    default: overwrite
  prune:
    description:
      - Delete variables of the environment that are not wanted.
    type: bool
    default: false
  kms_key_id:
    description:
      - The KMS key (id, ARN or alias) that seals what is handed to the agent. The bundle's key by default.
      - The execution role gets a grant to decrypt this one request, which is revoked when it is answered. Where you
        may not create grants, the role needs C(kms:Decrypt) on the key by its own policy.
      - With lane V(rest) on Airflow 3 it lets secrets be compared by digests, by a DAG run that writes nothing.
    type: str
  wait_timeout:
    description: Seconds to wait for a DAG run of the agent. MWAA may take five minutes to see the agent's DAG first.
    type: int
    default: 1200
extends_documentation_fragment:
  - mwaa.migration._options.environment
  - mwaa.migration._attributes
  - mwaa.migration._attributes.aws
  - amazon.aws.common.modules
  - amazon.aws.region.modules
  - amazon.aws.boto3
attributes:
  check_mode:
    support: full
    details:
      - Nothing is written, no object and no DAG run. What REST does not show is compared with what was last applied
        from the bundle, and shown as V(unknown) where that says nothing.
  diff_mode:
    support: full
    details:
      - Secrets are shown as C(********), with the word C(changed) or C(unknown); neither values nor lengths are.
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
      description: The key.
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
  sample: One DAG run on Airflow 2.11.2 applies and compares everything, secrets too, and leaves no trace.
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
