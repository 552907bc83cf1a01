#!/usr/bin/python
# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: mwaa_preflight
short_description: Find what an Amazon MWAA environment would fail on, before it is created
version_added: 0.1.0
description:
  - MWAA takes 20 to 40 minutes to fail on a mistake that could have been seen at once. This module looks for such
    mistakes in a minute, before anything is created, and again in an environment that exists.
  - It reads the network (subnets, zones, routes, NAT gateways, VPC endpoints with their DNS and policies, security
    groups, network ACLs), the bucket and the objects in it, the KMS key, the execution role (trust, and permissions by
    IAM's simulation), what the caller may, quotas, the name, the version, the class and Airflow's options.
  - It writes nothing to AWS and sends nothing through the network. Routes, groups and policies are read and thought
    through.
  - What could not be read, because the caller may not, is a finding itself (C(could-not-check)), naming the missing IAM
    action. It never counts as passed.
  - For an environment that exists, O(name) alone is enough. What is given besides is what the environment is going to
    be changed to.
  - The findings are shown as a page on the screen.
options:
  name:
    description: The name of the environment, whether it exists or not.
    type: str
    required: true
  airflow_configuration_options:
    description: Airflow's options as V(section.option) and value. Their values are never shown.
    type: dict
  secret_configuration_options:
    description: Airflow's options whose values are secret.
    type: dict
  source_bucket:
    description: The name or the ARN of the bucket with DAGs, plugins and requirements.
    type: str
  dag_s3_path:
    description: The DAG folder in the bucket, such as V(dags).
    type: str
  execution_role_arn:
    description: The ARN of the role that the environment runs with.
    type: str
  subnet_ids:
    description: Two private subnets in two availability zones.
    type: list
    elements: str
  security_group_ids:
    description: One to five security groups.
    type: list
    elements: str
  dag_count:
    description:
      - How many DAGs the environment is going to have, to be held against its class.
      - By default the DAGs of O(bundle), or else the Python files in the DAG folder.
    type: int
  execution_role_policy:
    description:
      - A policy that the role O(execution_role_arn) is going to get besides what it has. It counts as if it were there.
    type: dict
  cloudformation_role_arn:
    description:
      - The role with which CloudFormation creates the environment. Its permissions are looked at in place of the
        caller's.
    type: str
  fail_on:
    description:
      - From which severity on findings make the task fail. With V(never) they are returned, and the play decides.
    type: str
    choices: [error, warning, never]
    default: error
  json_path:
    description: A file to write the findings to, as JSON. It is written before the task fails.
    type: path
  junit_path:
    description: A file to write the findings to, as JUnit XML, a test case for each rule.
    type: path
extends_documentation_fragment:
  - mwaa.migration._attributes
  - mwaa.migration._environment
  - mwaa.migration._attributes.aws
  - amazon.aws.common.modules
  - amazon.aws.region.modules
  - amazon.aws.boto3
attributes:
  check_mode:
    support: full
    details:
      - Nothing is changed in AWS in any mode. In check mode, no file is written either.
  diff_mode:
    support: N/A
    details:
      - This module changes nothing.
  idempotent:
    support: full
  action:
    description: Has an action plugin that shows the page. The module itself runs where the task does.
    support: full
seealso:
  - module: mwaa.migration.mwaa_environment
  - name: Rules of preflight
    description: Every rule with its source.
    link: https://github.com/mwaa-migration/mwaa.migration/blob/main/docs/preflight.md
author:
  - mwaa.migration contributors (@mwaa-migration)
"""

EXAMPLES = r"""
- name: Before an environment is created
  mwaa.migration.mwaa_preflight:
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
    dag_count: 120
    json_path: build/preflight.json
    junit_path: build/preflight.xml

- name: An environment as it is
  mwaa.migration.mwaa_preflight:
    name: analytics
    fail_on: never
  register: found

- name: Nothing that could be mended by adding a permission
  ansible.builtin.assert:
    that: found.findings | selectattr('id', 'match', 'role-|caller-') | length == 0

- name: Would an upgrade be possible?
  mwaa.migration.mwaa_preflight:
    name: analytics
    airflow_version: 3.2.1
"""

RETURN = r"""
findings:
  description:
    - What was found, the gravest first. On the screen they are a page; a task that fails returns them in the JSON file
      alone.
  returned: success
  type: list
  elements: dict
  contains:
    id:
      description: The rule, a stable word.
      type: str
      sample: route-to-internet-gateway
    severity:
      description: How grave it is, V(error), V(warning) or V(info).
      type: str
      sample: error
    resource:
      description: What it is about.
      type: str
      sample: subnet-0a1b2c3d4e5f60718
    what:
      description: What is wrong.
      type: str
      sample: its route table rtb-0a1b2c3d4e5f60718 sends 0.0.0.0/0 to igw-0a1b2c3d4e5f60718
    why:
      description: Why that matters.
      type: str
      sample: "MWAA runs in private subnets alone: creating fails, after half an hour"
    how:
      description: How to mend it.
      type: str
      sample: give the subnet a route table without this route (with a NAT gateway, or with VPC endpoints)
summary:
  description: Counts of findings by severity, and of rules.
  returned: always
  type: dict
  sample: {errors: 1, warnings: 0, infos: 0, checked: 54, passed: 53, not_checked: 0, not_applicable: 14}
checked:
  description:
    - The ids of the rules that looked. What has nothing to look at (no key, no requirements) is not among them.
  returned: success
  type: list
  elements: str
  sample: [subnet-exists, subnet-zones, route-to-internet-gateway]
not_checked:
  description: The ids of the rules that could not look, with the IAM action that was missing.
  returned: success
  type: list
  elements: dict
  sample: [{id: network-acl, action: "ec2:DescribeNetworkAcls", code: UnauthorizedOperation}]
environment:
  description: The name of the environment.
  returned: success
  type: str
  sample: analytics
exists:
  description: Whether the environment exists.
  returned: success
  type: bool
region:
  description: The region that was looked at.
  returned: success
  type: str
  sample: eu-central-1
account:
  description: The account that was looked at.
  returned: success
  type: str
  sample: "123456789012"
"""

from ansible_collections.mwaa.migration.plugins.module_utils._aws import run_module
from ansible_collections.mwaa.migration.plugins.module_utils._mwaa import settings
from ansible_collections.mwaa.migration.plugins.module_utils._preflight import check


def argument_spec():
    return {
        **settings.argument_spec(),
        "name": {"type": "str", "required": True},
        "dag_count": {"type": "int"},
        "execution_role_policy": {"type": "dict"},
        "cloudformation_role_arn": {"type": "str"},
        "fail_on": {"type": "str", "choices": list(check.FAIL_ON), "default": "error"},
        "json_path": {"type": "path"},
        "junit_path": {"type": "path"},
    }


def main():
    run_module(argument_spec(), check.run, mutually_exclusive=[("bundle", "bundles")])


if __name__ == "__main__":
    main()
