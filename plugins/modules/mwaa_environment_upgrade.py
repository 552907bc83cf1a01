#!/usr/bin/python
# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: mwaa_environment_upgrade
short_description: Change the Airflow version of an Amazon MWAA environment in place
version_added: 0.1.0
description:
  - Moves an environment to another Airflow version with its history, connections and variables, up or down, and waits
    until that is done. All its running tasks end, and it does not answer for up to two hours a change.
  - Between Airflow 2 and 3 the way leads through the newest 2.11. The module goes it by itself, change by change.
  - For each version, C(requirements.txt) is pinned anew and uploaded as a new version of its object, and Airflow's
    options are given the names that this version knows. From 2 to 3, the options are added without which schedules
    would skip a logical date.
  - When a change fails, MWAA rolls back and the environment can be used as it was. The module fails with MWAA's reason.
  - Interrupted while it waits, it goes on where the environment stands when it is run again.
  - An environment that a CloudFormation stack owns is not changed. It is to be changed through its stack.
options:
  name:
    description: The name of the environment.
    type: str
    required: true
  airflow_version:
    description: The Airflow version that it is to have, such as V(3.2.1). A version that AWS has ended is refused.
    type: str
    required: true
  repin_requirements:
    description:
      - Whether requirements are made to fit each version. What its constraints contradict takes their version, the rest
        stays.
    type: bool
    default: true
  requirements_s3_path:
    description:
      - A requirements file of yours in the environment's bucket, made for O(airflow_version). It is taken with the last
        change, as it is.
    type: str
  plugins_s3_path:
    description: The same for a plugins archive.
    type: str
  startup_script_s3_path:
    description: The same for a startup script.
    type: str
  airflow_configuration_options:
    description: Airflow's options that are set with the last change, over those that the environment has.
    type: dict
  worker_replacement_strategy:
    description:
      - How workers are replaced. V(FORCED) ends their tasks, V(GRACEFUL) lets them finish for up to 12 hours, where
        MWAA can. MWAA's default is V(FORCED).
    type: str
    choices: [FORCED, GRACEFUL]
  wait_timeout:
    description: How many seconds to wait for each change at most. 14400 when it is not given.
    type: int
extends_documentation_fragment:
  - mwaa.migration._attributes
  - mwaa.migration._attributes.aws
  - amazon.aws.common.modules
  - amazon.aws.region.modules
  - amazon.aws.boto3
attributes:
  check_mode:
    support: full
    details: Shows all changes with their options and requirements, and writes nothing.
  diff_mode:
    support: full
  idempotent:
    support: full
seealso:
  - module: mwaa.migration.mwaa_environment
  - module: mwaa.migration.mwaa_environment_clone
author:
  - mwaa.migration contributors (@mwaa-migration)
"""

EXAMPLES = r"""
- name: To Airflow 3, by way of 2.11
  mwaa.migration.mwaa_environment_upgrade:
    name: analytics
    airflow_version: 3.2.1

- name: With requirements that were tried on a clone
  mwaa.migration.mwaa_environment_upgrade:
    name: analytics
    airflow_version: 2.11.2
    requirements_s3_path: requirements-2.11.2.txt
"""

RETURN = r"""
environment:
  description:
    - The environment as GetEnvironment describes it, in snake_case. Values of secret Airflow options are masked.
    - When the module fails because of how the environment is, its C(name) and C(status) alone.
  returned: always
  type: dict
  sample:
    name: analytics
    status: AVAILABLE
    airflow_version: 3.2.1
from_version:
  description: The Airflow version that it had.
  returned: success
  type: str
  sample: 2.10.3
operation:
  description:
    - What was done, or would be done in check mode. V(wait) is waiting for an operation that was already in progress.
  returned: success
  type: str
  sample: upgrade
outlook:
  description: What happens, a sentence each.
  returned: success
  type: list
  elements: str
  sample:
    - all its running tasks end, and it does not answer for up to 4 hours; a large database makes that longer
hops:
  description: The changes of the version, in their order.
  returned: success, and when a change failed
  type: list
  elements: dict
  contains:
    from:
      description: The version before.
      type: str
      returned: always
      sample: 2.10.3
    to:
      description: The version after.
      type: str
      returned: always
      sample: 2.11.2
    done:
      description: Whether it was made.
      type: bool
      returned: always
    options:
      description:
        - What becomes of Airflow's options, C(renamed), C(rewritten), C(dropped) and C(added). What is C(unknown) to
          the version stays, and does nothing.
      type: dict
      returned: always
    requirements:
      description: What is pinned anew in requirements.txt.
      type: list
      elements: dict
      returned: always
    findings:
      description: What is to be looked at, a sentence each.
      type: list
      elements: str
      returned: always
error:
  description: AWS's error code and request id.
  returned: when AWS refused a call
  type: dict
  contains:
    code:
      description: The error code.
      type: str
      returned: always
      sample: ValidationException
    request_id:
      description: The id of the request, for AWS Support.
      type: str
      returned: always
      sample: 6f6d3b0e-8a3c-4a55-9f3c-6f0b3c0f3a11
"""

from ansible_collections.mwaa.migration.plugins.module_utils._aws import run_module
from ansible_collections.mwaa.migration.plugins.module_utils._mwaa import limits, upgrade


def argument_spec():
    return {
        "name": {"type": "str", "required": True},
        "airflow_version": {"type": "str", "required": True},
        "repin_requirements": {"type": "bool", "default": True},
        "requirements_s3_path": {"type": "str"},
        "plugins_s3_path": {"type": "str"},
        "startup_script_s3_path": {"type": "str"},
        "airflow_configuration_options": {"type": "dict"},
        "worker_replacement_strategy": {"type": "str", "choices": list(limits.REPLACEMENT_STRATEGIES)},
        "wait_timeout": {"type": "int"},
    }


def main():
    run_module(argument_spec(), upgrade.upgrade)


if __name__ == "__main__":
    main()
