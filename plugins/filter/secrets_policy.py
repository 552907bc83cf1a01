# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
name: secrets_policy
short_description: What an execution role needs to read Airflow's secrets in AWS Secrets Manager
version_added: 0.1.0
author:
  - mwaa.migration contributors (@mwaa-migration)
description:
  - An IAM policy document that lets the role read the variables and connections that Airflow keeps in AWS Secrets
    Manager, and no other secret. Partition and account are the role's own.
  - For O(amazon.aws.iam_policy#module:policy_json), with the role of an environment that has
    O(mwaa.migration.mwaa_environment#module:secrets_backend).
options:
  _input:
    description: The ARN of the execution role.
    type: str
    required: true
  region:
    description: The region of the secrets.
    type: str
    required: true
  prefix:
    description: What the names of the secrets begin with.
    type: str
    default: airflow
  kms_key_arn:
    description: The ARN of the key that encrypts the secrets, where that is not Secrets Manager's own.
    type: str
seealso:
  - module: mwaa.migration.mwaa_connection_upsert
  - module: amazon.aws.iam_policy
"""

EXAMPLES = r"""
- name: Let the execution role read Airflow's secrets
  amazon.aws.iam_policy:
    iam_type: role
    iam_name: "{{ role_arn | split('/') | last }}"
    policy_name: airflow-secrets
    policy_json: "{{ role_arn | mwaa.migration.secrets_policy(region='eu-central-1') }}"
    state: present
  vars:
    role_arn: arn:aws:iam::111122223333:role/mwaa-prod
"""

RETURN = r"""
_value:
  description: The policy document.
  type: dict
"""

import re
from typing import Any, Callable, Optional

from ansible.errors import AnsibleFilterError
from ansible_collections.mwaa.migration.plugins.module_utils._state.secrets import policy


def secrets_policy(
    role_arn: str, region: str, prefix: str = "airflow", kms_key_arn: Optional[str] = None
) -> dict[str, Any]:
    if not re.fullmatch(r"arn:aws[a-z-]*:iam::\d{12}:role/.+", str(role_arn)):
        raise AnsibleFilterError(f"secrets_policy: {role_arn!r} is not the ARN of a role")
    if not re.fullmatch(r"[a-z]{2}[a-z0-9-]+", str(region)):
        raise AnsibleFilterError(f"secrets_policy: {region!r} is not a region: set migration_region, or AWS_REGION")
    return policy(prefix, region, role_arn, kms_key_arn)


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"secrets_policy": secrets_policy}
