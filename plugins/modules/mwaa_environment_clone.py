#!/usr/bin/python
# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: mwaa_environment_clone
short_description: Make a new Amazon MWAA environment that is as another one
version_added: 0.1.0
description:
  - Reads an environment and creates a new one with its settings, in the same account and region or in others, with the
    same Airflow version or another one. An option that is given here takes the place of what the source has.
  - What CreateEnvironment takes of what GetEnvironment shows is read from botocore's model of the API. Log groups,
    empty tags and tags of AWS (C(aws:)) are left out.
  - Airflow's options are carried as the new version knows them. Renamed ones take their new name, backends of Airflow
    1.10 their new path, and what the new version does not know is listed. C(core.dags_are_paused_at_creation) is
    C(True), unless O(airflow_configuration_options) says otherwise, because the source's DAGs go on running.
  - C(requirements.txt) is pinned anew for another version. DAGs, plugins, requirements and the startup script are
    copied to the new environment's bucket where that is another one, and their object versions are pinned. DAG files
    that would start by themselves are held back there, in C(.airflowignore).
  - Connections, variables, pools and history are not settings, and are not carried. They are what
    C(mwaa.migration.migrate) moves.
  - Everything is checked before the first write, and all faults are reported at once.
  - A clone is made once. When the new environment exists already, nothing is written. The module waits for what is in
    progress, and fails when the environment is another one than the clone would be, naming what differs.
options:
  source:
    description: The name of the environment that is cloned.
    type: str
    required: true
  source_region:
    description: The region of the source. The same as O(region) when it is not given.
    type: str
  source_profile:
    description:
      - The profile to read the source with, where the new environment is in another account. O(profile) is then that of
        the new one.
    type: str
  source_role_arn:
    description: The ARN of a role that is assumed to read the source.
    type: str
  name:
    description: The name of the new environment. A letter, then letters, digits, V(-) and V(_), at most 80 characters.
    type: str
    required: true
  airflow_version:
    description:
      - The Airflow version of the new environment, such as V(2.11.2). The source's when it is not given.
      - A version that AWS has ended is refused.
    type: str
  execution_role_arn:
    description:
      - The role of the new environment. It has to exist, and its trust policy has to let the new environment assume it.
      - The source's when it is not given. Required in another account.
    type: str
  write_role_policy:
    description:
      - Whether to write RV(execution_role.policy) to the role, as an inline policy of its own named
        C(mwaa-clone-<name>). Nothing else on the role is touched.
    type: bool
    default: false
  source_bucket:
    description:
      - The name or the ARN of the new environment's bucket. The source's when it is not given. Required in another
        account or region.
    type: str
  dag_s3_path:
    description: The DAG folder in the bucket. The source's when it is not given.
    type: str
  plugins_s3_path:
    description: A plugins archive in the new environment's bucket, in the place of the source's.
    type: str
  requirements_s3_path:
    description:
      - A requirements file in the new environment's bucket, in the place of the source's. It is taken as it is.
    type: str
  startup_script_s3_path:
    description: A startup script in the new environment's bucket, in the place of the source's.
    type: str
  subnet_ids:
    description: Two private subnets. The source's when not given. Required in another account or region.
    type: list
    elements: str
  security_group_ids:
    description:
      - One to five security groups. The source's when not given. Required in another account or region.
    type: list
    elements: str
  kms_key:
    description:
      - The id or the ARN of the key that encrypts the new environment, or V('') for AWS's own.
      - The source's when it is not given. In another account or region it has to be given, if the source has a key.
    type: str
  webserver_access_mode:
    description: From where the web server can be reached. As the source's when it is not given.
    type: str
    choices: [PRIVATE_ONLY, PUBLIC_ONLY, PUBLIC_AND_PRIVATE]
  environment_class:
    description:
      - The class, such as V(mw1.small). The source's when it is not given.
      - To and from V(mw1.micro), which has one of each, numbers of workers, schedulers and web servers are not carried.
    type: str
  min_workers:
    description: The least number of workers. The source's when it is not given.
    type: int
  max_workers:
    description: The greatest number of workers. The source's when it is not given.
    type: int
  airflow_configuration_options:
    description: Airflow's options that are set over the source's, as V(section.option) and value.
    type: dict
  secret_configuration_options:
    description:
      - The same for options whose values are secret.
      - Values of options that look secret, hold a credential, or are no option of Airflow's, are never logged, shown in
        a diff or returned, also those of the source.
    type: dict
  tags:
    description: Tags that are set over the source's.
    type: dict
  wait:
    description: Whether to wait until the environment is there. Progress is shown on the screen while it lasts.
    type: bool
    default: true
  wait_timeout:
    description: How many seconds to wait at most. 3600 when it is not given.
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
    details: Nothing is written. Versions of objects that would be copied are not known then.
  diff_mode:
    support: full
    details: The diff is the one between the source and its clone. Secret values are masked, and said to differ.
  idempotent:
    support: full
seealso:
  - module: mwaa.migration.mwaa_environment
  - module: mwaa.migration.mwaa_environment_upgrade
  - module: mwaa.migration.mwaa_preflight
author:
  - mwaa.migration contributors (@mwaa-migration)
"""

EXAMPLES = r"""
- name: The same with a newer Airflow
  mwaa.migration.mwaa_environment_clone:
    source: analytics
    name: analytics-211
    airflow_version: 2.11.2
    write_role_policy: true # it names the source's log groups

- name: A copy in another account
  mwaa.migration.mwaa_environment_clone:
    source: analytics
    source_profile: analytics-old
    name: analytics
    region: eu-west-1
    profile: analytics-new
    source_region: eu-central-1
    source_bucket: example-airflow-new
    execution_role_arn: arn:aws:iam::210987654321:role/airflow-analytics
    subnet_ids:
      - subnet-0a1b2c3d4e5f60718
      - subnet-08f7e6d5c4b3a2910
    security_group_ids:
      - sg-0a1b2c3d4e5f60718
    kms_key: '' # AWS's own
"""

RETURN = r"""
environment:
  description:
    - The new environment as GetEnvironment describes it, in snake_case. Values of secret Airflow options are masked.
    - Null in check mode, when there is none yet.
    - When the module fails because of how the environment is, its C(name) and C(status) alone.
  returned: always
  type: dict
  sample:
    name: analytics-211
    status: AVAILABLE
source:
  description: The environment that was cloned, in the same way.
  returned: success
  type: dict
  sample:
    name: analytics
    status: AVAILABLE
settings:
  description:
    - How the new environment is, or is going to be, in words of M(mwaa.migration.mwaa_environment), so that
      M(mwaa.migration.mwaa_preflight) can be asked about it. Values of secret Airflow options are masked.
  returned: success
  type: dict
  sample:
    airflow_version: 2.11.2
    source_bucket: example-airflow
operation:
  description: What was done, or would be done in check mode. V(create), V(wait) or V(none).
  returned: success
  type: str
  sample: create
options:
  description: What became of Airflow's options, by name.
  returned: success
  type: dict
  contains:
    renamed:
      description: Old names and new ones.
      type: dict
      returned: always
      sample:
        core.dag_concurrency: core.max_active_tasks_per_dag
    rewritten:
      description: Options whose value names a class that has another path now.
      type: list
      elements: str
      returned: always
      sample: [secrets.backend]
    unknown:
      description: Options that the new version knows no more, with the C(name) and the C(reason). They are carried.
      type: list
      elements: dict
      returned: always
      sample:
        - name: webserver.rbac
          reason: Airflow 2.11.2 has no such option
    dropped:
      description: Options that are not carried, with the C(name) and the C(reason).
      type: list
      elements: dict
      returned: always
      sample:
        - name: core.dag_concurrency
          reason: core.max_active_tasks_per_dag is set already, by its new name
    added:
      description: Options that the source does not have, and without which the clone would not do the same.
      type: list
      elements: str
      returned: always
      sample: [core.dags_are_paused_at_creation]
requirements:
  description: What was pinned anew in requirements.txt, with the C(name), the C(source)'s version and the C(target)'s.
  returned: success
  type: list
  elements: dict
  sample:
    - name: apache-airflow-providers-amazon
      source: 9.0.0
      target: 9.22.0
code:
  description:
    - What was copied to the new environment's C(bucket). C(objects) are plugins, requirements and startup script, each
      with its C(key), C(size), C(version), and whether it C(changed). C(dags) counts files, and lists what
      was held back.
    - Empty when the environment was there before.
  returned: success
  type: dict
  sample:
    bucket: example-airflow-new
    objects:
      - key: plugins.zip
        changed: true
        size: 18211
        version: 3HL4kqtJvjVBH40Nrjfkd
    dags:
      counts:
        created: 12
execution_role:
  description: The role of the new environment. Empty when the environment was there before.
  returned: success
  type: dict
  contains:
    arn:
      description: Its ARN.
      type: str
      returned: always
      sample: arn:aws:iam::123456789012:role/airflow-analytics
    policy:
      description:
        - What it needs for the new environment, as a policy. These are the statements of the source's role that name
          the source, made for the new environment. For another role they are all statements of the source's role.
        - Null where there is nothing to add, or the caller may not read the policies.
      type: dict
      returned: always
      sample:
        Version: "2012-10-17"
        Statement:
          - Effect: Allow
            Action: airflow:PublishMetrics
            Resource: arn:aws:airflow:eu-central-1:123456789012:environment/analytics-211
    policy_name:
      description: The name under which the policy is written.
      type: str
      returned: always
      sample: mwaa-clone-analytics-211
    written:
      description: Whether it was written, or would be in check mode.
      type: bool
      returned: with O(write_role_policy)
findings:
  description: What is to be looked at, a sentence each.
  returned: success
  type: list
  elements: str
  sample:
    - both environments run the DAGs of s3://example-airflow/dags
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
from ansible_collections.mwaa.migration.plugins.module_utils._mwaa import clone, limits


def argument_spec():
    return {
        "source": {"type": "str", "required": True},
        "source_region": {"type": "str"},
        "source_profile": {"type": "str"},
        "source_role_arn": {"type": "str"},
        "name": {"type": "str", "required": True},
        "airflow_version": {"type": "str"},
        "execution_role_arn": {"type": "str"},
        "write_role_policy": {"type": "bool", "default": False},
        "source_bucket": {"type": "str"},
        "dag_s3_path": {"type": "str"},
        "plugins_s3_path": {"type": "str"},
        "requirements_s3_path": {"type": "str"},
        "startup_script_s3_path": {"type": "str"},
        "subnet_ids": {"type": "list", "elements": "str"},
        "security_group_ids": {"type": "list", "elements": "str"},
        "kms_key": {"type": "str", "no_log": False},
        "webserver_access_mode": {"type": "str", "choices": list(limits.ACCESS_MODES)},
        "environment_class": {"type": "str"},
        "min_workers": {"type": "int"},
        "max_workers": {"type": "int"},
        "airflow_configuration_options": {"type": "dict"},
        "secret_configuration_options": {"type": "dict", "no_log": True},
        "tags": {"type": "dict"},
        "wait": {"type": "bool", "default": True},
        "wait_timeout": {"type": "int"},
    }


def main():
    run_module(argument_spec(), clone.clone)


if __name__ == "__main__":
    main()
