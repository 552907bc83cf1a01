# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
name: temporary_policy
short_description: What a role needs while a migration lasts
version_added: 0.1.0
author:
  - mwaa.migration contributors (@mwaa-migration)
description:
  - An IAM policy document that lets the role read bundles. Partition and account are the role's own.
  - For O(amazon.aws.iam_policy#module:policy_json). The name C(mwaa-migration-temporary-) and the entered environment's
    is the one that the playbook C(cleanup) looks for.
options:
  _input:
    description: The ARN of the role.
    type: str
    required: true
  region:
    description: The region of the environment.
    type: str
    required: true
  bundles:
    description: The bundles, each C(s3://bucket/prefix). Folders need no rights.
    type: list
    elements: str
    default: []
  kms_key:
    description: The key that encrypts the bundles, by id or ARN, where there is one.
    type: str
seealso:
  - module: amazon.aws.iam_policy
"""

EXAMPLES = r"""
- name: Let the environment's role read the bundle
  amazon.aws.iam_policy:
    iam_type: role
    iam_name: "{{ role_arn | split('/') | last }}"
    policy_name: mwaa-migration-temporary-analytics
    policy_json: >-
      {{ role_arn | mwaa.migration.temporary_policy(region='eu-central-1', bundles=['s3://migrations/analytics']) }}
    state: present
  vars:
    role_arn: arn:aws:iam::111122223333:role/analytics
"""

RETURN = r"""
_value:
  description: The policy document; none where nothing is needed.
  type: dict
"""

import re
from typing import Any, Callable, Optional

from ansible.errors import AnsibleFilterError
from ansible_collections.mwaa.migration.plugins.module_utils._stacks.base import Place
from ansible_collections.mwaa.migration.plugins.module_utils._stacks.base import temporary_policy as policy


def temporary_policy(
    role_arn: str,
    region: str,
    bundles: Optional[list[str]] = None,
    kms_key: Optional[str] = None,
) -> Optional[dict[str, Any]]:
    found = re.fullmatch(r"arn:(aws[a-z-]*):iam::(\d{12}):role/.+", str(role_arn))
    if not found:
        raise AnsibleFilterError(f"temporary_policy: {role_arn!r} is not the ARN of a role")
    if kms_key and ":alias/" in f":{kms_key}":
        raise AnsibleFilterError("temporary_policy: a policy cannot name a key by its alias: give the key's id or ARN")
    place = Place(found.group(1), region, found.group(2))
    key = place.key_arn(kms_key) if kms_key else None
    return policy(place, bundles or [], kms_key_arn=key)


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"temporary_policy": temporary_policy}
