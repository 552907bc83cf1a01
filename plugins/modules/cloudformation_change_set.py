#!/usr/bin/python
# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: cloudformation_change_set
short_description: Create or update a stack, or import existing resources into one, by a change set
version_added: 0.1.0
description:
  - Makes a CloudFormation change set, shows what it changes, executes it, and shows the stack's events until that is
    done. Unlike M(amazon.aws.cloudformation) it imports existing resources into a stack, and refuses to replace
    or delete one unless it was told to.
  - CloudFormation itself decides whether something changes, so that changes behind macros and references are seen too.
    Where nothing does, no change set is left behind.
  - A change set is named after what it asks for. After an interruption (C(kill -9) included) a new run goes on. It
    waits for an operation in progress, executes the change set that was left, and deletes those of this module that
    nobody will use. Change sets of others are never touched, but executing one makes CloudFormation delete all others.
  - What a failed creation left (C(ROLLBACK_COMPLETE)) is removed when it holds no resources.
options:
  stack_name:
    description: The stack's name.
    type: str
    required: true
  state:
    description:
      - V(present) creates or changes the stack.
      - V(absent) deletes the change set O(change_set_name), and the stack if it was only made for it and holds nothing.
        No other stack is deleted. For that there is M(amazon.aws.cloudformation).
    type: str
    choices: [present, absent]
    default: present
  type:
    description:
      - V(auto) creates the stack where there is none, and updates it otherwise.
      - V(create) creates it where there is none, and leaves one alone that is there.
      - V(update) updates it, and fails where there is none.
      - V(import) takes O(resources_to_import) into the stack, which is made where there is none. What is in it already
        is left out, so that running it again changes nothing. An import changes nothing else. It adds no outputs and
        sets no tags, which an update does afterwards.
    type: str
    choices: [auto, create, update, import]
    default: auto
  template_body:
    description:
      - The template, as a dictionary or as text (JSON or YAML). At most 51200 bytes.
      - Read a file with the lookup P(ansible.builtin.file#lookup). Its C({{resolve:…}}) then stays as it is, while
        Ansible would take one in a playbook for a template of its own.
      - Either O(template_body) or O(template_url) is needed with O(state=present).
    type: raw
  template_url:
    description: Where the template lies in S3, for one of up to 1 MB.
    type: str
  parameters:
    description:
      - The template's parameters. Lists are joined with commas.
      - One that is not given keeps the value that the stack has, and has the template's default in a new stack.
      - Values of parameters with C(NoEcho) are never shown.
    type: dict
  resources_to_import:
    description: The resources that O(type=import) takes into the stack.
    type: list
    elements: dict
    suboptions:
      resource_type:
        description: The type, such as V(AWS::S3::Bucket).
        type: str
        required: true
      logical_resource_id:
        description: The name in the template, where the resource needs a C(DeletionPolicy).
        type: str
        required: true
      resource_identifier:
        description:
          - What names it, such as the C(BucketName) of a bucket. C(aws cloudformation get-template-summary) says what a
            type needs.
        type: dict
        required: true
  capabilities:
    description:
      - What the template may make. C(CAPABILITY_NAMED_IAM) includes C(CAPABILITY_IAM).
    type: list
    elements: str
    choices: [CAPABILITY_IAM, CAPABILITY_NAMED_IAM, CAPABILITY_AUTO_EXPAND]
    default: []
  role_arn:
    description:
      - The role that CloudFormation assumes, for this and for later operations on the stack. Without one it acts with
        the rights of the caller, or with the role that the stack has from before.
    type: str
  tags:
    description:
      - The stack's tags, which CloudFormation puts on its resources too. Those that the stack has and that are not here
        are removed. When it is not given, they stay as they are.
    type: dict
    aliases: [resource_tags]
  change_set_name:
    description:
      - The name of the change set. By default it is made from what is asked for, C(mwaa-migration-) and 16 digits.
      - Required with O(state=absent).
    type: str
  execute:
    description:
      - Whether the change set is executed. With V(false) it is left to be reviewed. A later run with the same arguments
        and O(execute=true) executes that very one, but one with O(template_url) or with secret parameters, which is
        made anew.
    type: bool
    default: true
  preview:
    description:
      - Ask CloudFormation what would change, and execute nothing. The change set, and the empty stack that one needs
        where there is no stack yet, are removed again.
      - This makes and deletes change sets in check mode too. Without it check mode compares the template, the
        parameters and the tags with the stack's and writes nothing.
    type: bool
    default: false
  detect_drift:
    description:
      - With O(type=import), whether the stack's resources are then compared with the template, by property.
      - A run that has nothing to import returns what was found last, or looks when that has not been done.
    type: bool
    default: true
  allow_replacement:
    description:
      - Whether a change set is executed that replaces or deletes a resource. Otherwise the module fails and names it.
      - A resource that leaves the stack and is kept (C(DeletionPolicy) C(Retain)) is not deleted.
    type: bool
    default: false
  wait_timeout:
    description:
      - How many seconds to wait at most, for all that the task waits for. An MWAA environment takes 20 to 40 minutes,
        and a change of its Airflow version up to two hours.
    type: int
    default: 9000
  lock:
    description:
      - Take the lock of a migration before anything is written, and keep it while this lasts, so that two operators
        do not work on its stacks at once. See M(mwaa.migration.migration_lock).
    type: dict
    suboptions:
      environment:
        description: The environment that is migrated into.
        type: str
        required: true
      bundles:
        description: Its bundles, each V(s3://bucket/prefix) or a folder, without one whose bucket is yet to be made.
        type: list
        elements: str
        required: true
extends_documentation_fragment:
  - mwaa.migration._attributes
  - mwaa.migration._attributes.aws
  - amazon.aws.common.modules
  - amazon.aws.region.modules
  - amazon.aws.boto3
attributes:
  check_mode:
    support: full
    details:
      - What only CloudFormation can know is warned about as unknown, unless O(preview) is set.
  diff_mode:
    support: full
    details:
      - Shows the template, the parameters and the tags before and after, and a line for each resource that changes.
        Dynamic references are not resolved.
  idempotent:
    support: full
notes:
  - Of CloudFormation it calls C(DescribeStacks), C(GetTemplateSummary), C(GetTemplate), C(ListStackResources),
    C(ListChangeSets), C(CreateChangeSet), C(DescribeChangeSet), C(ExecuteChangeSet), C(DeleteChangeSet) and
    C(DescribeStackEvents). After a failure also C(DescribeEvents), for the empty stack that a failed creation left
    C(DeleteStack), for drift C(DetectStackDrift), C(DescribeStackDriftDetectionStatus) and
    C(DescribeStackResourceDrifts). What is done to the stack's resources is done with the caller's rights, or with
    those of O(role_arn).
seealso:
  - module: amazon.aws.cloudformation
  - module: amazon.aws.cloudformation_info
author:
  - mwaa.migration contributors (@mwaa-migration)
"""

EXAMPLES = r"""
- name: A stack, created or updated
  mwaa.migration.cloudformation_change_set:
    stack_name: mwaa-base
    template_body: "{{ lookup('file', 'base.template') }}"
    parameters:
      Connectivity: nat
    capabilities: [CAPABILITY_NAMED_IAM]
    tags:
      team: analytics

- name: An existing bucket becomes part of a stack
  mwaa.migration.cloudformation_change_set:
    stack_name: mwaa-base
    type: import
    template_body:
      Resources:
        Bucket:
          Type: AWS::S3::Bucket
          DeletionPolicy: Retain
          UpdateReplacePolicy: Retain
          Properties:
            BucketName: example-airflow
            VersioningConfiguration:
              Status: Enabled
    resources_to_import:
      - resource_type: AWS::S3::Bucket
        logical_resource_id: Bucket
        resource_identifier:
          BucketName: example-airflow
  register: adopted
  failed_when: adopted is failed or adopted.drift

- name: Its name is exported, which an import cannot do
  mwaa.migration.cloudformation_change_set:
    stack_name: mwaa-base
    type: update
    template_body: "{{ lookup('file', 'base-with-outputs.json') }}"

- name: With --check, ask CloudFormation itself
  mwaa.migration.cloudformation_change_set:
    stack_name: mwaa-environment
    template_body: "{{ lookup('file', 'environment.yaml') }}"
    preview: "{{ ansible_check_mode }}"

- name: A change set for somebody to look at
  mwaa.migration.cloudformation_change_set:
    stack_name: mwaa-environment
    template_body: "{{ lookup('file', 'environment.yaml') }}"
    change_set_name: october
    execute: false

- name: It is not wanted
  mwaa.migration.cloudformation_change_set:
    stack_name: mwaa-environment
    change_set_name: october
    state: absent
"""

RETURN = r"""
stack:
  description: The stack afterwards. Null when there is none. When the module fails, its name and status alone.
  returned: always
  type: dict
  contains:
    name:
      description: Its name.
      type: str
      returned: always
      sample: mwaa-base
    id:
      description: Its ARN.
      type: str
      returned: success
      sample: arn:aws:cloudformation:eu-central-1:123456789012:stack/mwaa-base/2f1a0c50-0000-11f1-8de9-0242ac120002
    status:
      description: Its status.
      type: str
      returned: always
      sample: UPDATE_COMPLETE
    outputs:
      description: Its outputs.
      type: dict
      returned: success
      sample:
        BucketName: example-airflow
    exports:
      description: What of these is exported, by the export's name.
      type: dict
      returned: success
      sample:
        mwaa-base-BucketName: example-airflow
operation:
  description:
    - What was done. V(wait) is waiting for an operation that was already in progress and left nothing to change.
  returned: success
  type: str
  sample: update
changes:
  description:
    - What changes, a resource an entry. In check mode what a comparison of two templates shows, when both are JSON or
      dictionaries.
  returned: success
  type: list
  elements: dict
  contains:
    logical_resource_id:
      description: The name in the template.
      type: str
      returned: always
      sample: Environment
    physical_resource_id:
      description: The resource itself.
      type: str
      returned: when it exists
      sample: analytics
    resource_type:
      description: Its type.
      type: str
      returned: always
      sample: AWS::MWAA::Environment
    action:
      description: V(Add), V(Modify), V(Remove), V(Import) or V(Dynamic), as CloudFormation says it.
      type: str
      returned: always
      sample: Modify
    replacement:
      description: V(True), V(False) or V(Conditional), as CloudFormation says it; V(unknown) without a change set.
      type: str
      returned: always
      sample: "False"
    properties:
      description: The properties and attributes that change.
      type: list
      elements: str
      returned: always
      sample: [MaxWorkers]
    policy_action:
      description: What becomes of a resource that is removed or replaced.
      type: str
      returned: when a resource is removed or replaced
      sample: Retain
drift:
  description:
    - What is otherwise than the template of an import says, a property an entry. Values whose name looks secret are
      masked.
  returned: success
  type: list
  elements: dict
  contains:
    logical_resource_id:
      description: The name in the template.
      type: str
      returned: always
      sample: Bucket
    resource_type:
      description: Its type.
      type: str
      returned: always
      sample: AWS::S3::Bucket
    property_path:
      description: The property.
      type: str
      returned: always
      sample: /VersioningConfiguration/Status
    expected:
      description: What the template says.
      type: str
      returned: always
      sample: Enabled
    actual:
      description: What it is.
      type: str
      returned: always
      sample: Suspended
    kind:
      description: V(changed), V(added), V(removed), or V(deleted) when the whole resource is gone.
      type: str
      returned: always
      sample: changed
change_set:
  description: The change set that was executed, or is left to be reviewed. Null when there is none.
  returned: success
  type: dict
  sample:
    name: mwaa-migration-6f6d3b0e8a3c4a55
    id: arn:aws:cloudformation:eu-central-1:123456789012:changeSet/mwaa-migration-6f6d3b0e8a3c4a55/5e0e
    type: update
    status: EXECUTE_COMPLETE
error:
  description: AWS's error code and request id.
  returned: when AWS refused a call
  type: dict
  contains:
    code:
      description: The error code.
      type: str
      returned: always
      sample: ValidationError
    request_id:
      description: The id of the request, for AWS Support.
      type: str
      returned: always
      sample: 6f6d3b0e-8a3c-4a55-9f3c-6f0b3c0f3a11
"""

from ansible_collections.mwaa.migration.plugins.module_utils._aws import run_module
from ansible_collections.mwaa.migration.plugins.module_utils._bundle import open_store
from ansible_collections.mwaa.migration.plugins.module_utils._lock import held_in, this_run
from ansible_collections.mwaa.migration.plugins.module_utils._stacks import change_set


def argument_spec():
    return {
        "stack_name": {"type": "str", "required": True},
        "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
        "type": {"type": "str", "choices": ["auto", "create", "update", "import"], "default": "auto"},
        "template_body": {"type": "raw"},
        "template_url": {"type": "str"},
        "parameters": {"type": "dict", "no_log": True},  # those without NoEcho are shown once they are known
        "resources_to_import": {
            "type": "list",
            "elements": "dict",
            "options": {
                "resource_type": {"type": "str", "required": True},
                "logical_resource_id": {"type": "str", "required": True},
                "resource_identifier": {"type": "dict", "required": True},
            },
        },
        "capabilities": {
            "type": "list",
            "elements": "str",
            "choices": ["CAPABILITY_IAM", "CAPABILITY_NAMED_IAM", "CAPABILITY_AUTO_EXPAND"],
            "default": [],
        },
        "role_arn": {"type": "str"},
        "tags": {"type": "dict", "aliases": ["resource_tags"]},
        "change_set_name": {"type": "str"},
        "execute": {"type": "bool", "default": True},
        "preview": {"type": "bool", "default": False},
        "detect_drift": {"type": "bool", "default": True},
        "allow_replacement": {"type": "bool", "default": False},
        "wait_timeout": {"type": "int", "default": 9000},
        "lock": {
            "type": "dict",
            "options": {
                "environment": {"type": "str", "required": True},
                "bundles": {"type": "list", "elements": "str", "required": True},
            },
        },
    }


def body(ctx):
    if ctx.params["state"] == "absent":
        return change_set.absent(ctx)
    lock = ctx.params["lock"]
    if lock is None or ctx.check_mode:
        return change_set.present(ctx, this_run().goes_on)
    stores = [open_store(url, ctx.aws) for url in lock["bundles"]]
    with held_in(stores, lock["environment"], some_to_come=True) as take:

        def before_writing():
            this_run().goes_on()  # also where there is no bundle yet
            take()

        return change_set.present(ctx, before_writing)


def main():
    run_module(
        argument_spec(),
        body,
        mutually_exclusive=[("template_body", "template_url")],
        required_if=[
            ("state", "present", ("template_body", "template_url"), True),
            ("state", "absent", ("change_set_name",)),
            ("type", "import", ("resources_to_import",)),
        ],
    )


if __name__ == "__main__":
    main()
