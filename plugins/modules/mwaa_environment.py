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
  - For environments that no CloudFormation stack owns. Where a stack owns the environment, change it through the stack.
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
  bundle:
    description:
      - A bundle that M(mwaa.migration.airflow_export) filled, V(s3://bucket/prefix) or a folder.
      - Its portable options are set, and O(airflow_configuration_options) over them; what else the environment has set
        stays.
      - O(plugins_s3_path), O(requirements_s3_path) and O(startup_script_s3_path) default to where
        M(mwaa.migration.mwaa_dags_sync) put them. A startup script needs Airflow 2.2.2.
      - C(core.dags_are_paused_at_creation) is C(True), whatever the options say, so that nothing runs before the
        cutover.
    type: str
  bundles:
    description:
      - Several bundles that enter this environment together, instead of O(bundle).
      - Where two bring different values of an option, and O(airflow_configuration_options) does not say which it is to
        be, nothing is done and each such option is named with both.
    type: list
    elements: str
  kms_key_id:
    description: The ARN of the KMS key that sealed the bundle, where that key belongs to another account.
    type: str
  airflow_version:
    description:
      - The Airflow version, such as V(2.11.2). MWAA's newest when an environment is created without it.
      - A version that AWS has ended is warned about, and it is AWS that refuses it.
      - A change upgrades or downgrades in place. It ends all running tasks and makes the environment unavailable for
        up to two hours.
    type: str
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
  plugins_s3_path:
    description:
      - The plugins archive in the bucket, such as V(plugins.zip).
      - MWAA cannot take plugins away again. To be rid of them, give an archive that is empty.
    type: str
  plugins_s3_object_version:
    description:
      - The version id of the plugins archive. When it is not given, the object's current version is looked up and
        pinned.
    type: str
  requirements_s3_path:
    description:
      - The requirements file in the bucket, such as V(requirements.txt).
      - MWAA cannot take requirements away again. To be rid of them, give a file that is empty.
    type: str
  requirements_s3_object_version:
    description:
      - The version id of the requirements file. When it is not given, the object's current version is looked up and
        pinned.
    type: str
  startup_script_s3_path:
    description:
      - The startup script in the bucket, such as V(startup.sh). Needs Airflow 2.2.2.
      - MWAA cannot take the script away again. To be rid of it, give a script that does nothing.
    type: str
  startup_script_s3_object_version:
    description:
      - The version id of the startup script. When it is not given, the object's current version is looked up and
        pinned.
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
  kms_key:
    description:
      - The id or the ARN of a single-region KMS key that encrypts the environment. Aliases are not supported by MWAA.
      - Fixed when the environment is created. AWS's own key when it is not given.
    type: str
  endpoint_management:
    description:
      - Who makes the VPC endpoints of the environment. V(SERVICE) is MWAA, V(CUSTOMER) is you.
      - Fixed when the environment is created.
      - With V(CUSTOMER), creating returns when the environment is C(PENDING). The result names the services to which
        endpoints are needed.
    type: str
    choices: [SERVICE, CUSTOMER]
  webserver_access_mode:
    description:
      - From where the web server can be reached.
      - V(PUBLIC_AND_PRIVATE) needs Airflow 3.2 and botocore 1.43.30 or newer.
    type: str
    choices: [PRIVATE_ONLY, PUBLIC_ONLY, PUBLIC_AND_PRIVATE]
  environment_class:
    description:
      - The class, such as V(mw1.small). MWAA knows C(mw1.micro), C(mw1.small), C(mw1.medium), C(mw1.large),
        C(mw1.xlarge) and C(mw1.2xlarge).
    type: str
  min_workers:
    description: The least number of workers, 1 or more.
    type: int
  max_workers:
    description: The greatest number of workers, 1 or more. The quota is 25 unless AWS raised it.
    type: int
  schedulers:
    description: The number of schedulers, 1 for V(mw1.micro), 2 to 5 for other classes.
    type: int
  min_webservers:
    description: The least number of web servers, 1 for V(mw1.micro), 2 to 5 for other classes.
    type: int
  max_webservers:
    description: The greatest number of web servers, 1 for V(mw1.micro), 2 to 5 for other classes.
    type: int
  airflow_configuration_options:
    description:
      - Airflow's options as V(section.option) and value, such as C(core.dags_are_paused_at_creation).
      - The whole set. Options that the environment has and that are not here are removed, unless they are in
        O(secret_configuration_options). An empty dictionary removes all. When it is not given, the options stay as
        they are.
      - Names have at most 64 characters, values 1 to 65536 printable ASCII characters. Booleans and numbers are
        written as Airflow writes them.
    type: dict
  secret_configuration_options:
    description:
      - Airflow's options whose values are secret. They are set over O(airflow_configuration_options), or over the
        current options when that is not given. Their values are never logged, shown in a diff or returned.
      - An option must not be in both.
    type: dict
  secrets_backend:
    description:
      - Let the environment look in AWS Secrets Manager before its database. Sets C(secrets.backend) and
        C(secrets.backend_kwargs) over O(airflow_configuration_options), or over the current options when that is not
        given. Arguments of the backend that are set already stay.
      - The connection C(aws_default), which every task looks up, is never looked for there, as MWAA itself has it.
      - The execution role needs a policy for it, see the role mwaa.migration.environment.
    type: dict
    suboptions:
      prefix:
        description: What names of secrets begin with. V(airflow) makes C(airflow/connections/<id>) and
          C(airflow/variables/<key>).
        type: str
        default: airflow
      connections_lookup_pattern:
        description: A regular expression of the connections that are looked for. Needs Airflow 2.6.3.
        type: str
      variables_lookup_pattern:
        description: A regular expression of the variables that are looked for. Needs Airflow 2.6.3.
        type: str
  logging_configuration:
    description:
      - What is written to CloudWatch Logs. Logs that are not given stay as they are.
    type: dict
    suboptions:
      dag_processing_logs:
        description: The logs of the DAG processor.
        type: dict
        suboptions: &log
          enabled:
            description: Whether the log is written.
            type: bool
            required: true
          log_level:
            description: The least level that is written.
            type: str
            choices: [CRITICAL, ERROR, WARNING, INFO, DEBUG]
            required: true
      scheduler_logs:
        description: The logs of the scheduler.
        type: dict
        suboptions: *log
      task_logs:
        description: The logs of tasks.
        type: dict
        suboptions: *log
      webserver_logs:
        description: The logs of the web server.
        type: dict
        suboptions: *log
      worker_logs:
        description: The logs of the workers.
        type: dict
        suboptions: *log
  weekly_maintenance_window_start:
    description:
      - When the weekly maintenance window begins, as DAY:HH:MM in UTC on the half hour, such as V(TUE:03:30).
    type: str
  worker_replacement_strategy:
    description:
      - How workers are replaced by this update. V(FORCED) ends their tasks, V(GRACEFUL) lets them finish for up to 12
        hours.
      - It is sent with an update and is no property of the environment. MWAA's default is V(FORCED).
    type: str
    choices: [FORCED, GRACEFUL]
  tags:
    description:
      - The tags, at most 50. Keys have at most 128, values at most 256 characters. When it is not given, tags stay as
        they are.
    type: dict
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
from ansible_collections.mwaa.migration.plugins.module_utils._mwaa import environment, limits, settings


def argument_spec():
    log = {
        "type": "dict",
        "options": {
            "enabled": {"type": "bool", "required": True},
            "log_level": {"type": "str", "choices": list(limits.LOG_LEVELS), "required": True},
        },
    }
    return {
        "name": {"type": "str", "required": True},
        "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
        "bundle": {"type": "str"},
        "bundles": {"type": "list", "elements": "str"},
        "kms_key_id": {"type": "str", "no_log": False},
        "airflow_version": {"type": "str"},
        "source_bucket": {"type": "str"},
        "dag_s3_path": {"type": "str"},
        "plugins_s3_path": {"type": "str"},
        "plugins_s3_object_version": {"type": "str"},
        "requirements_s3_path": {"type": "str"},
        "requirements_s3_object_version": {"type": "str"},
        "startup_script_s3_path": {"type": "str"},
        "startup_script_s3_object_version": {"type": "str"},
        "execution_role_arn": {"type": "str"},
        "subnet_ids": {"type": "list", "elements": "str"},
        "security_group_ids": {"type": "list", "elements": "str"},
        "kms_key": {"type": "str", "no_log": False},
        "endpoint_management": {"type": "str", "choices": ["SERVICE", "CUSTOMER"]},
        "webserver_access_mode": {"type": "str", "choices": list(limits.ACCESS_MODES)},
        "environment_class": {"type": "str"},
        "min_workers": {"type": "int"},
        "max_workers": {"type": "int"},
        "schedulers": {"type": "int"},
        "min_webservers": {"type": "int"},
        "max_webservers": {"type": "int"},
        "airflow_configuration_options": {"type": "dict"},
        "secret_configuration_options": {"type": "dict", "no_log": True},
        "secrets_backend": {
            "type": "dict",
            "no_log": False,
            "options": {
                "prefix": {"type": "str", "default": "airflow"},
                "connections_lookup_pattern": {"type": "str"},
                "variables_lookup_pattern": {"type": "str"},
            },
        },
        "logging_configuration": {"type": "dict", "options": dict.fromkeys(sorted(settings.LOGS), log)},
        "weekly_maintenance_window_start": {"type": "str"},
        "worker_replacement_strategy": {"type": "str", "choices": list(limits.REPLACEMENT_STRATEGIES)},
        "tags": {"type": "dict"},
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
