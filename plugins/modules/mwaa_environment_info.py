#!/usr/bin/python
# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: mwaa_environment_info
short_description: Describe Amazon MWAA environments
version_added: 0.1.0
description:
  - Describes one environment of Amazon MWAA, or all of the account in the region.
options:
  name:
    description:
      - The name of the environment. All when it is not given.
    type: str
extends_documentation_fragment:
  - mwaa.migration._attributes.info_module
  - mwaa.migration._attributes.aws
  - amazon.aws.common.modules
  - amazon.aws.region.modules
  - amazon.aws.boto3
seealso:
  - module: mwaa.migration.mwaa_environment
author:
  - mwaa.migration contributors (@mwaa-migration)
"""

EXAMPLES = r"""
- name: All environments of the region
  mwaa.migration.mwaa_environment_info:
  register: all

- name: Wait for an environment that somebody else is updating
  mwaa.migration.mwaa_environment_info:
    name: analytics
  register: found
  until: found.environments | length == 1 and found.environments[0].status == 'AVAILABLE'
  retries: 60
  delay: 60
"""

RETURN = r"""
environments:
  description:
    - The environments as GetEnvironment describes them, in snake_case, by name. Empty when there is none of the name.
    - Values of Airflow options whose names look secret are masked.
  returned: success
  type: list
  elements: dict
  sample:
    - name: analytics
      status: AVAILABLE
      arn: arn:aws:airflow:eu-central-1:123456789012:environment/analytics
      airflow_version: 2.11.2
      airflow_configuration_options:
        core.dags_are_paused_at_creation: "True"
      tags: {}
error:
  description: AWS's error code and request id.
  returned: when AWS refused a call
  type: dict
  contains:
    code:
      description: The error code.
      type: str
      returned: always
      sample: AccessDeniedException
    request_id:
      description: The id of the request, for AWS Support.
      type: str
      returned: always
      sample: 6f6d3b0e-8a3c-4a55-9f3c-6f0b3c0f3a11
"""

from ansible_collections.mwaa.migration.plugins.module_utils._aws import run_module
from ansible_collections.mwaa.migration.plugins.module_utils._mwaa import environment


def body(ctx):
    client = ctx.aws.client("mwaa")
    wanted = [ctx.params["name"]] if ctx.params["name"] else environment.names(client)
    found = (environment.describe(client, name) for name in wanted)
    return {"changed": False, "environments": [environment.shown(one) for one in found if one is not None]}


def main():
    run_module({"name": {"type": "str"}}, body)


if __name__ == "__main__":
    main()
