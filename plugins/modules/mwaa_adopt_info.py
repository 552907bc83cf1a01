#!/usr/bin/python
# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: mwaa_adopt_info
short_description: Templates that take existing resources into a CloudFormation stack for Amazon MWAA
version_added: 0.1.0
description:
  - Finds what an MWAA environment stands on (VPC, subnets, security groups, bucket, execution role, KMS key, log
    groups) and reads it, and returns two templates for M(mwaa.migration.cloudformation_change_set).
  - RV(import_template) says of each resource what is the case, so that importing it changes nothing and drift detection
    finds nothing. Everything in it is retained when the stack is removed.
  - RV(base_template) adds, by a following update, the exports, MWAA's services to those that the role trusts already,
    and the role's least-privilege policy as a resource of its own. Nothing else of the role is touched.
  - What goes on with the stack, perhaps begun by a run that was killed, is waited for, up to an hour.
  - What another stack holds already is referred to, not imported. What the stack O(stack_name) holds already stays as
    the stack says it, so that running it again changes nothing.
  - What is not given is taken from O(parameters), then from the environment where O(adopt_environment) is set, then
    from the instance.
options:
  stack_name:
    description: The stack that takes the resources in. It need not exist.
    type: str
    required: true
  adopt_environment:
    description: Adopt the environment, too, into O(environment_stack). It has to exist and to be AVAILABLE.
    type: bool
    default: false
  environment_stack:
    description: The stack that takes the environment in.
    type: str
  vpc_id:
    description: The VPC. That of the subnets, where it is not given.
    type: str
  subnet_ids:
    description: Two private subnets in two zones.
    type: list
    elements: str
  security_group_ids:
    description: One to five security groups. Their rules are no part of the templates.
    type: list
    elements: str
  bucket:
    description: The environment's bucket.
    type: str
  bundle_bucket:
    description: The bucket of the bundle, where the stack is to hold that, too.
    type: str
  role:
    description: The execution role, by name or ARN. Its inline policies are no part of the templates.
    type: str
  kms_key_id:
    description: The customer-managed key that encrypts the environment, by id, ARN or alias.
    type: str
  log_groups:
    description: Log groups.
    type: list
    elements: str
  parameters:
    description:
      - A document with C(VpcId), C(BucketName), C(RoleName), C(GroupId), C(SubnetId1), C(SubnetId2) and, if there is
        one, C(KmsKeyId); also in the form of the AWS CLI's C(--parameters).
      - A dictionary, JSON text, or the path of a JSON file.
    type: raw
  instance_id:
    description:
      - An EC2 instance, such as the one that the source runs on. Its VPC and security groups are taken, and of the VPC
        two subnets in two zones that have no route to an internet gateway.
    type: str
  instance_address:
    description: The same by the instance's private or public address or DNS name.
    type: str
  secrets_prefix:
    description: Let the role read secrets in AWS Secrets Manager whose names begin with this, as C(airflow).
    type: str
  secrets_kms_key_arn:
    description: The key that encrypts these secrets, where it is not AWS's own.
    type: str
extends_documentation_fragment:
  - mwaa.migration._options.environment
  - mwaa.migration._attributes.info_module
  - mwaa.migration._attributes.aws
  - amazon.aws.common.modules
  - amazon.aws.region.modules
  - amazon.aws.boto3
seealso:
  - module: mwaa.migration.cloudformation_change_set
author:
  - mwaa.migration contributors (@mwaa-migration)
"""

EXAMPLES = r"""
- name: Look at what is there
  mwaa.migration.mwaa_adopt_info:
    stack_name: analytics-base
    environment: analytics
    parameters:
      VpcId: vpc-0123456789abcdef0
      BucketName: analytics-airflow
      RoleName: analytics-airflow
      GroupId: sg-0cccccccccccccccc
      SubnetId1: subnet-0aaaaaaaaaaaaaaaa
      SubnetId2: subnet-0bbbbbbbbbbbbbbbb
  register: existing

- name: Take it into a stack as it is
  when: existing.resources_to_import | length > 0
  mwaa.migration.cloudformation_change_set:
    stack_name: analytics-base
    type: import
    template_body: "{{ existing.import_template }}"
    resources_to_import: "{{ existing.resources_to_import }}"
    capabilities: [CAPABILITY_NAMED_IAM]

- name: Export it, and let the role work
  mwaa.migration.cloudformation_change_set:
    stack_name: analytics-base
    template_body: "{{ existing.base_template }}"
    capabilities: [CAPABILITY_NAMED_IAM]

- name: The network of the instance that Airflow runs on
  mwaa.migration.mwaa_adopt_info:
    stack_name: analytics-base
    environment: analytics
    instance_id: i-0123456789abcdef0
    bucket: analytics-airflow
    role: analytics-airflow
"""

RETURN = r"""
resources:
  description: The resources, and which stack each belongs to.
  returned: success
  type: list
  elements: dict
  contains:
    kind:
      description:
        - V(vpc), V(subnet), V(security_group), V(bucket), V(bundle_bucket), V(role), V(kms_key), V(log_group) or
          V(environment).
      type: str
      returned: always
      sample: subnet
    type:
      description: Its type in CloudFormation.
      type: str
      returned: always
      sample: AWS::EC2::Subnet
    id:
      description: Its id or name.
      type: str
      returned: always
      sample: subnet-0aaaaaaaaaaaaaaaa
    arn:
      description: Its ARN, of types that are known by one.
      type: str
      returned: always
      sample: arn:aws:ec2:eu-central-1:111122223333:subnet/subnet-0aaaaaaaaaaaaaaaa
    logical_id:
      description: Its name in the template.
      type: str
      returned: always
      sample: Subnet1
    stack:
      description: The stack that it belongs to; none where it is to be imported.
      type: str
      returned: always
      sample: network
values:
  description: The values of what RV(base_template) exports, under the same names.
  returned: success
  type: dict
  sample:
    VpcId: vpc-0123456789abcdef0
    SubnetIds: subnet-0aaaaaaaaaaaaaaaa,subnet-0bbbbbbbbbbbbbbbb
resources_to_import:
  description: For O(mwaa.migration.cloudformation_change_set#module:resources_to_import). Empty when all is imported.
  returned: success
  type: list
  elements: dict
  sample:
    - resource_type: AWS::EC2::VPC
      logical_resource_id: Vpc
      resource_identifier: {VpcId: vpc-0123456789abcdef0}
import_template:
  description: The template of the import. Empty when all is imported.
  returned: success
  type: dict
  sample: {Resources: {Vpc: {Type: "AWS::EC2::VPC", DeletionPolicy: Retain}}}
base_template:
  description: The template of the update that follows.
  returned: success
  type: dict
  sample:
    Outputs: {VpcId: {Value: {Ref: Vpc}, Export: {Name: {"Fn::Sub": "${AWS::StackName}-VpcId"}}}}
environment_to_import:
  description:
    - The same for the environment and O(environment_stack). Empty when it is in a stack already, or not adopted.
  returned: success
  type: list
  elements: dict
  sample: []
environment_template:
  description:
    - The template of the environment's import. Its Airflow options are left out where any looks secret.
  returned: success
  type: dict
  sample: {}
found_by:
  description: Where each option's value was found.
  returned: success
  type: dict
  sample: {vpc_id: instance i-0123456789abcdef0, bucket: options}
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
from ansible_collections.mwaa.migration.plugins.module_utils._stacks.adopt import ARGUMENT_SPEC, adopt


def main():
    run_module(ARGUMENT_SPEC, adopt, mutually_exclusive=[("instance_id", "instance_address")])


if __name__ == "__main__":
    main()
