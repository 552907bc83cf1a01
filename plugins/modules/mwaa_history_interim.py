#!/usr/bin/python
# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: mwaa_history_interim
short_description: Lead run history into Airflow 3, by way of an environment of Airflow 2.11
version_added: 0.1.0
description:
  - In Airflow 3 no task reaches the database, so that run history cannot be loaded into it. It enters an environment of
    Airflow 2.11.2, is compared there by digest, and that environment is upgraded in place.
  - This module says what is due next on that way, and reads only. What is due is told by the environment and by a
    document in the bundle alone, so that a run that was killed anywhere goes on where it was.
  - With O(close) it ends the time on 2.11. It compares all of the history by digest, writes down in the bundle that it
    is equal, and takes away what the import had left in the environment's database. A history that is not equal is an
    error, and nothing is taken away.
  - An operation that the environment is busy with is waited for, as it may be the upgrade that a killed run had begun.
options:
  name:
    description: The environment's name. It need not exist.
    type: str
    required: true
  bundles:
    description: The bundles, V(s3://bucket/prefix) or local folders.
    type: list
    elements: str
    required: true
  airflow_version:
    description: The Airflow version that the environment is to have in the end. Below 3 nothing is due.
    type: str
    required: true
  close:
    description: Compare and take away what is left, where that is due.
    type: bool
    default: false
  kms_key_id:
    description: The bundles' KMS key, with which requests to the agent are sealed, too.
    type: str
  wait_timeout:
    description: Seconds to wait for the environment, and for each answer of the agent. 10800 when it is not given.
    type: int
extends_documentation_fragment:
  - mwaa.migration._options.api_host
  - mwaa.migration._attributes
  - mwaa.migration._attributes.aws
  - amazon.aws.common.modules
  - amazon.aws.region.modules
  - amazon.aws.boto3
attributes:
  check_mode:
    support: full
    details: Says what is due. It neither waits nor compares.
  diff_mode:
    support: none
    details:
      - What O(close) changes is no state that could be shown.
  idempotent:
    support: full
seealso:
  - module: mwaa.migration.mwaa_history_import
  - module: mwaa.migration.mwaa_environment_upgrade
  - module: mwaa.migration.mwaa_verify
author:
  - mwaa.migration contributors (@mwaa-migration)
"""

EXAMPLES = r"""
- name: See what is due on the way into Airflow 3
  mwaa.migration.mwaa_history_interim:
    name: prod
    bundles: [s3://my-migration-bundles/prod]
    airflow_version: 3.2.1
  register: interim

- name: End the time on 2.11, once the history is in
  mwaa.migration.mwaa_history_interim:
    name: prod
    bundles: [s3://my-migration-bundles/prod]
    airflow_version: 3.2.1
    close: true
  when: interim.fill
"""

RETURN = r"""
due:
  description:
    - V(make), there is no environment yet. V(fill), state and history are to enter it. V(close), the history is equal
      and its traces are still there. V(upgrade), it may become Airflow 3. V(done), there is nothing to do.
  returned: success
  type: str
  sample: upgrade
said:
  description: The same as a sentence.
  returned: success
  type: str
  sample: environment prod has the history, and becomes Airflow 3.2.1
airflow_version:
  description: The version that the environment is to have now.
  returned: success
  type: str
  sample: 2.11.2
interim:
  description: Whether the environment is not yet to be what it is to be in the end.
  returned: success
  type: bool
fill:
  description: Whether history is to be loaded.
  returned: success
  type: bool
parity:
  description: Rows of each table at the source, in the environment, and equal, and how many of the others are listed.
  returned: when O(close) compared, also when it failed
  type: dict
  sample:
    dag_run: {source: 5110, target: 5110, equal: 5110, listed: 0}
differences:
  description: What differs, by table and DAG, as M(mwaa.migration.mwaa_verify) has it.
  returned: when the history does not equal the bundle's
  type: dict
unpaused:
  description: DAGs that were not paused before the history came. They stay paused; the bundle remembers them.
  returned: when O(close) did something
  type: list
  elements: str
"""

from ansible_collections.mwaa.migration.plugins.module_utils._aws import run_module
from ansible_collections.mwaa.migration.plugins.module_utils._history.interim import passage


def main() -> None:
    run_module(
        {
            "name": {"type": "str", "required": True},
            "bundles": {"type": "list", "elements": "str", "required": True},
            "airflow_version": {"type": "str", "required": True},
            "close": {"type": "bool", "default": False},
            "kms_key_id": {"type": "str", "no_log": False},
            "api_host": {"type": "str"},
            "wait_timeout": {"type": "int"},
        },
        passage,
    )


if __name__ == "__main__":
    main()
