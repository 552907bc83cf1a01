#!/usr/bin/python
# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: mwaa_environment_template
short_description: Make the CloudFormation template of an Amazon MWAA environment
version_added: 0.1.0
description:
  - Makes the template of a stack that holds one environment of Amazon MWAA, and changes nothing. For
    M(mwaa.migration.cloudformation_change_set), or to be kept in a repository of one's own.
  - The environment becomes what M(mwaa.migration.mwaa_environment) would make of the same options, with the options
    and the artefacts of a bundle. Object versions of requirements, plugins and startup script are pinned.
  - VPC, bucket, role and key are taken from what another stack exports, O(base_stack).
  - A template is read by everyone who may read the stack. An option that is secret has to be given in
    O(secret_references); else it is refused, and all such options are named at once.
  - Options that the environment has already and that are not given here stay, where there is O(bundle), as in
    M(mwaa.migration.mwaa_environment).
  - What the template of the stack that owns the environment says, and is not given here, stays, too, so that one that
    was imported is not changed by what nobody said. A secret option that this template does not name has to be given
    in O(secret_references).
options:
  name:
    description:
      - The name of the environment. A letter, then letters, digits, V(-) and V(_), at most 80 characters.
      - It cannot be changed, and the names of the log groups derive from it.
    type: str
    required: true
  base_stack:
    description:
      - The stack whose exports C(<stack>-BucketArn), C(<stack>-RoleArn), C(<stack>-SubnetId1), C(<stack>-SubnetId2),
        C(<stack>-SecurityGroupIds) and, where it exports one, C(<stack>-KmsKeyArn) the environment uses. The template
        has it as the default of its parameter C(BaseStackName).
      - Where O(source_bucket), O(execution_role_arn), O(subnet_ids), O(security_group_ids) or O(kms_key) are given
        too, they are compared with what it exports, and a difference is refused.
      - In check mode it need not be there yet.
    type: str
  source_bucket:
    description: The name or the ARN of the bucket with DAGs, plugins and requirements. Required without O(base_stack).
    type: str
  dag_s3_path:
    description: The DAG folder in the bucket, such as V(dags).
    type: str
    default: dags
  execution_role_arn:
    description: The ARN of the role that the environment runs with. Required without O(base_stack).
    type: str
  subnet_ids:
    description: Exactly two private subnets in two availability zones. Required without O(base_stack).
    type: list
    elements: str
  security_group_ids:
    description: One to five security groups. Required without O(base_stack).
    type: list
    elements: str
  airflow_configuration_options:
    description:
      - Airflow's options as V(section.option) and value, such as C(core.dags_are_paused_at_creation).
      - Names have at most 64 characters, values 1 to 65536 printable ASCII characters. Booleans and numbers are
        written as Airflow writes them.
    type: dict
  secret_configuration_options:
    description:
      - Options whose values are secret, as M(mwaa.migration.mwaa_environment) takes them. Each of them is refused
        here, unless it is in O(secret_references), too.
    type: dict
  secret_references:
    description:
      - Options whose values CloudFormation takes from AWS Secrets Manager when it creates or updates the environment,
        as V(resolve:secretsmanager:<secret>:SecretString:<key>), or from a parameter of Systems Manager,
        V(resolve:ssm:<name>). The braces of a dynamic reference may be left out, as they mean something else to
        Ansible.
      - CloudFormation looks a value up when something about the environment changes in the template, and not when the
        secret does.
    type: dict
    default: {}
  deletion_policy:
    description:
      - What becomes of the environment when its stack is deleted. V(RetainExceptOnCreate) and V(Retain) leave it as
        it is, V(Delete) deletes it with its metadata database.
      - An environment whose creation failed is removed with V(RetainExceptOnCreate), and holds its name with V(Retain).
    type: str
    choices: [RetainExceptOnCreate, Retain, Delete]
    default: RetainExceptOnCreate
extends_documentation_fragment:
  - mwaa.migration._attributes.info_module
  - mwaa.migration._attributes.aws
  - mwaa.migration._environment
  - mwaa.migration._environment.interim
  - amazon.aws.common.modules
  - amazon.aws.region.modules
  - amazon.aws.boto3
seealso:
  - module: mwaa.migration.cloudformation_change_set
  - module: mwaa.migration.mwaa_environment
author:
  - mwaa.migration contributors (@mwaa-migration)
"""

EXAMPLES = r"""
- name: An environment on what another stack exports
  mwaa.migration.mwaa_environment_template:
    name: analytics
    base_stack: analytics-base
    airflow_version: 2.11.2
    environment_class: mw1.small
    requirements_s3_path: requirements.txt
    airflow_configuration_options:
      core.dags_are_paused_at_creation: true
    secret_references:
      smtp.smtp_password: resolve:secretsmanager:airflow/smtp:SecretString:password
    logging_configuration:
      scheduler_logs: {enabled: true, log_level: WARNING}
      task_logs: {enabled: true, log_level: INFO}
  register: made

- name: Deploy it
  mwaa.migration.cloudformation_change_set:
    stack_name: analytics-environment
    template_body: "{{ made.template }}"

- name: Keep it as YAML
  ansible.builtin.copy:
    content: "{{ made.template | to_nice_yaml(indent=2, sort_keys=false) }}"
    dest: analytics.yaml
    mode: "0644"
"""

RETURN = r"""
template:
  description: The template, a dictionary whose order is fit to be read.
  returned: success
  type: dict
settings:
  description:
    - What the environment is to have, by this module's options, with what the bundle brings and the pinned versions.
    - For parameters of a template of one's own. Options are left out; they are in RV(template).
  returned: success
  type: dict
  sample:
    airflow_version: 2.11.2
    requirements_s3_path: requirements.txt
    requirements_s3_object_version: 3HL4kqtJvjVBH40Nrjfkd
environment:
  description: The environment as it is now, where there is one. Null where there is none.
  returned: success
  type: dict
  contains:
    status:
      description: Its status.
      type: str
      returned: always
      sample: AVAILABLE
    stack:
      description: The stack that owns it; null where none does.
      type: str
      returned: always
      sample: analytics-environment
left_out:
  description:
    - The secret options of the bundles' sources that the environment does not get, because no bundle holds their
      values and O(secret_references) does not name them.
  returned: success
  type: list
  elements: str
  sample: [smtp.smtp_password]
error:
  description: AWS's error code and request id.
  returned: when AWS refused a call
  type: dict
  contains:
    code:
      description: The error code.
      type: str
      returned: always
      sample: AccessDenied
    request_id:
      description: The id of the request, for AWS Support.
      type: str
      returned: always
      sample: 6f6d3b0e-8a3c-4a55-9f3c-6f0b3c0f3a11
"""

from ansible_collections.mwaa.migration.plugins.module_utils._aws import run_module
from ansible_collections.mwaa.migration.plugins.module_utils._mwaa import settings
from ansible_collections.mwaa.migration.plugins.module_utils._stacks import environment


def argument_spec():
    return {
        **settings.argument_spec(),
        "interim": {"type": "bool", "default": False},
        "name": {"type": "str", "required": True},
        "base_stack": {"type": "str"},
        "dag_s3_path": {"type": "str", "default": "dags"},
        "secret_references": {"type": "dict", "default": {}, "no_log": False},
        "deletion_policy": {
            "type": "str",
            "choices": ["RetainExceptOnCreate", "Retain", "Delete"],
            "default": "RetainExceptOnCreate",
        },
    }


def main():
    run_module(argument_spec(), environment.made, mutually_exclusive=[("bundle", "bundles")])


if __name__ == "__main__":
    main()
