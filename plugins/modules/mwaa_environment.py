#!/usr/bin/python
# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: mwaa_environment
short_description: Create, update or delete an Amazon MWAA environment
version_added: 0.1.0
description:
  - Creates, updates or deletes an environment of Amazon Managed Workflows for Apache Airflow (MWAA), and waits until
    that is done.
  - For environments that no CloudFormation stack owns. What would change one that a stack owns is refused, and the
    stack is named; M(mwaa.migration.mwaa_environment_template) makes the template that changes it.
  - All options are checked against MWAA's documented limits before the first call, and all faults are reported at
    once. Before an environment is created, its bucket is checked too. It has to be in the environment's region,
    versioned, and has to block public access.
  - An option that is not given is not changed.
  - When the module is interrupted while it waits, running it again goes on waiting. An environment on which another
    operation is in progress is not changed, and the module fails with one sentence.
options:
  name:
    description:
      - The name of the environment. A letter, then letters, digits, V(-) and V(_), at most 80 characters.
      - It cannot be changed, and the names of the log groups derive from it.
    type: str
    required: true
  state:
    description:
      - V(present) creates or updates the environment.
      - V(absent) deletes it, and its metadata database with all connections, variables and history. Nobody can bring
        them back.
    type: str
    choices: [present, absent]
    default: present
  airflow_configuration_options:
    description:
      - Airflow's options as V(section.option) and value, such as C(core.dags_are_paused_at_creation).
      - The whole set. Options that the environment has and that are not here are removed, unless they are in
        O(secret_configuration_options). An empty dictionary removes all. When it is not given, the options stay as
        they are.
      - With O(bundle), what else the environment has set stays.
      - Names have at most 64 characters, values 1 to 65536 printable ASCII characters. Booleans and numbers are
        written as Airflow writes them.
    type: dict
  secret_configuration_options:
    description:
      - Airflow's options whose values are secret. They are set over O(airflow_configuration_options), or over the
        current options when that is not given. Their values are never logged, shown in a diff or returned.
      - An option must not be in both.
    type: dict
  source_bucket:
    description:
      - The name or the ARN of the bucket with DAGs, plugins and requirements.
      - Required when the environment is created.
    type: str
  dag_s3_path:
    description:
      - The DAG folder in the bucket, such as V(dags).
      - Required when the environment is created.
    type: str
  execution_role_arn:
    description:
      - The ARN of the role that the environment runs with.
      - Required when the environment is created.
    type: str
  subnet_ids:
    description:
      - Exactly two private subnets in two availability zones.
      - Required when the environment is created, and fixed then.
    type: list
    elements: str
  security_group_ids:
    description:
      - One to five security groups.
      - Required when the environment is created.
    type: list
    elements: str
  purge_tags:
    description:
      - Whether tags that the environment has and that are not in O(tags) are removed. Tags of AWS (C(aws:)) never are.
    type: bool
    default: true
  wait:
    description:
      - Whether to wait until the operation is done. Progress is shown on the screen while it lasts.
    type: bool
    default: true
  wait_timeout:
    description:
      - How many seconds to wait at most. 3600 for creating and deleting, 7200 for updating when it is not given.
    type: int
extends_documentation_fragment:
  - mwaa.migration._attributes
  - mwaa.migration._environment
  - mwaa.migration._environment.interim
  - mwaa.migration._attributes.aws
  - amazon.aws.common.modules
  - amazon.aws.region.modules
  - amazon.aws.boto3
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
  idempotent:
    support: full
seealso:
  - module: mwaa.migration.mwaa_environment_info
author:
  - mwaa.migration contributors (@mwaa-migration)
"""

EXAMPLES = r"""
- name: An environment
  mwaa.migration.mwaa_environment:
    name: analytics
    airflow_version: 2.11.2
    environment_class: mw1.small
    source_bucket: example-airflow
    dag_s3_path: dags
    requirements_s3_path: requirements.txt
    execution_role_arn: arn:aws:iam::123456789012:role/airflow-analytics
    subnet_ids:
      - subnet-0a1b2c3d4e5f60718
      - subnet-08f7e6d5c4b3a2910
    security_group_ids:
      - sg-0a1b2c3d4e5f60718
    webserver_access_mode: PRIVATE_ONLY
    airflow_configuration_options:
      core.dags_are_paused_at_creation: true
      celery.worker_autoscale: 10,2
    secret_configuration_options:
      smtp.smtp_password: "{{ smtp_password }}"
    tags:
      team: analytics

- name: An environment for what two installations had
  mwaa.migration.mwaa_environment:
    name: analytics
    bundles:
      - s3://example-migration/sales
      - s3://example-migration/finance
    airflow_configuration_options:
      core.parallelism: 64 # they differ in it

- name: More workers, nothing else
  mwaa.migration.mwaa_environment:
    name: analytics
    min_workers: 2
    max_workers: 10

- name: The newest uploaded requirements, letting running tasks finish
  mwaa.migration.mwaa_environment:
    name: analytics
    requirements_s3_path: requirements.txt
    worker_replacement_strategy: GRACEFUL

- name: Start an upgrade and look later
  mwaa.migration.mwaa_environment:
    name: analytics
    airflow_version: 3.2.1
    wait: false

- name: No environment
  mwaa.migration.mwaa_environment:
    name: analytics
    state: absent
"""

RETURN = r"""
environment:
  description:
    - The environment as GetEnvironment describes it, in snake_case. Values of secret Airflow options are masked.
    - Null when there is none, also when check mode would create it.
    - When the module fails because of how the environment is, its C(name) and C(status) alone.
  returned: always
  type: dict
  sample:
    name: analytics
    status: AVAILABLE
    arn: arn:aws:airflow:eu-central-1:123456789012:environment/analytics
    airflow_version: 2.11.2
    webserver_url: 0123-4567.c1.eu-central-1.airflow.amazonaws.com
    source_bucket_arn: arn:aws:s3:::example-airflow
    requirements_s3_path: requirements.txt
    requirements_s3_object_version: 3HL4kqtJvjVBH40Nrjfkd
    airflow_configuration_options:
      core.dags_are_paused_at_creation: "True"
      smtp.smtp_password: "***"
    tags:
      team: analytics
operation:
  description:
    - What was done, or would be done in check mode. V(wait) is waiting for an operation that was already in progress.
  returned: success
  type: str
  sample: update
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
from ansible_collections.mwaa.migration.plugins.module_utils._mwaa import environment, settings


def argument_spec():
    return {
        **settings.argument_spec(),
        "interim": {"type": "bool", "default": False},
        "name": {"type": "str", "required": True},
        "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
        "purge_tags": {"type": "bool", "default": True},
        "wait": {"type": "bool", "default": True},
        "wait_timeout": {"type": "int"},
    }


def body(ctx):
    if ctx.params["state"] == "absent":
        return environment.absent(ctx)
    return environment.present(ctx)


def main():
    run_module(argument_spec(), body, mutually_exclusive=[("bundle", "bundles")])


if __name__ == "__main__":
    main()
