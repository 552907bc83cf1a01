#!/usr/bin/python
# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: mwaa_dags_sync
short_description: Publish DAGs, plugins, requirements and a startup script to an MWAA environment's bucket
version_added: 0.1.0
description:
  - Brings a bundle, or a folder of DAGs, to the bucket of an MWAA environment. It works before the environment exists,
    so that this is created once, with its plugins and requirements.
  - Content is compared, not dates. A repeat without a change lists the DAG folder, reads one index object and writes
    nothing.
  - The plugins folder becomes a C(plugins.zip) that is the same, byte for byte, for the same files, so that an
    unchanged plugins folder never makes a new object version and never restarts an environment.
  - Files that C(.airflowignore) hides are carried all the same, because DAGs import them; the C(.airflowignore) files
    are carried with them, so that the target's Airflow looks for DAGs exactly where the source's did.
  - Nothing starts early. DAG files that set C(is_paused_upon_creation) to something other than C(True), and those that
    import such a file, are uploaded and hidden by a marked block in C(.airflowignore). The block goes up before the
    files do. They are listed in RV(held_back).
  - Compiled Python (C(__pycache__), C(*.pyc)) and version control folders are left out and counted in RV(left_out).
  - A bundle that does not match its manifest is refused with the file named, before anything is published.
options:
  source:
    description:
      - What is published. The URL of a bundle (V(s3://bucket/prefix)), the folder of a bundle (it holds
        C(manifest.json)), or a plain folder of DAGs.
    type: str
    required: true
  kms_key_id:
    description: The ARN of the KMS key that sealed the bundle, where that key belongs to another account.
    type: str
  plugins:
    description: A folder whose files become C(plugins.zip), instead of the bundle's.
    type: path
  requirements:
    description: A file that becomes C(requirements.txt), instead of the bundle's.
    type: path
  startup_script:
    description: A shell script that becomes C(startup.sh), instead of the bundle's.
    type: path
  environment:
    description:
      - The environment whose bucket is written. Where it exists, O(bucket), O(dag_s3_path), O(airflow_version) and the
        paths of plugins, requirements and startup script are taken from it unless they are given.
    type: str
  bucket:
    description: The bucket, for before the environment exists.
    type: str
  dag_s3_path:
    description: The DAG folder in the bucket. The environment's, otherwise V(dags).
    type: str
  plugins_s3_path:
    description: The key of C(plugins.zip). The environment's, otherwise beside the DAG folder.
    type: str
  requirements_s3_path:
    description: The key of C(requirements.txt). The environment's, otherwise beside the DAG folder.
    type: str
  startup_script_s3_path:
    description: The key of C(startup.sh). The environment's, otherwise beside the DAG folder.
    type: str
  airflow_version:
    description:
      - The Airflow version of the environment, for before it exists. Airflow 3 reads C(.airflowignore) in another
        syntax than Airflow 2 does, see RV(airflow_configuration_options).
    type: str
  ignore_syntax:
    description:
      - The syntax of the source's C(.airflowignore) files. By default what the bundle says of its source; for a plain
        folder, the environment's own.
    type: str
    choices: [regexp, glob]
  delete:
    description:
      - Delete from the DAG folder what the source does not have. Only the DAG folder is touched, and in it never the
        folder C(mwaa_migration).
      - By default such objects are only listed, in RV(extra).
    type: bool
    default: false
  hold_back:
    description: Hide DAG files that would start by themselves. V(false) takes the block out of C(.airflowignore) again.
    type: bool
    default: true
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
    details:
      - Shows names and sizes, never content, which may hold secrets.
  idempotent:
    support: full
seealso:
  - module: mwaa.migration.airflow_export
  - module: mwaa.migration.mwaa_environment
  - module: mwaa.migration.mwaa_verify
author:
  - mwaa.migration contributors (@mwaa-migration)
"""

EXAMPLES = r"""
- name: Publish a bundle before the environment exists
  mwaa.migration.mwaa_dags_sync:
    source: s3://my-migration-bundles/prod
    bucket: my-airflow-bucket
    dag_s3_path: dags
    airflow_version: 2.11.2
  register: published

- name: Create the environment once, with plugins and requirements
  mwaa.migration.mwaa_environment:
    name: prod
    plugins_s3_path: "{{ published.plugins_s3_path }}"
    plugins_s3_object_version: "{{ published.plugins_s3_object_version }}"
    requirements_s3_path: "{{ published.requirements_s3_path }}"
    requirements_s3_object_version: "{{ published.requirements_s3_object_version }}"
    airflow_configuration_options: "{{ published.airflow_configuration_options }}"

- name: Bring a folder of DAGs to a running environment, and delete what it does not have
  mwaa.migration.mwaa_dags_sync:
    source: airflow/dags
    environment: prod
    delete: true
"""

RETURN = r"""
bucket:
  description: The bucket.
  returned: always
  type: str
  sample: my-airflow-bucket
dag_s3_path:
  description: The DAG folder in the bucket.
  returned: always
  type: str
  sample: dags
plugins_s3_path:
  description: The key of C(plugins.zip); null when there are no plugins.
  returned: always
  type: str
  sample: plugins.zip
plugins_s3_object_version:
  description: Its object version. In check mode V(unknown until published) where a new one would be written.
  returned: always
  type: str
  sample: 3sL4kqtJlcpXroDTDmJ
requirements_s3_path:
  description: The key of C(requirements.txt); null when there are no requirements.
  returned: always
  type: str
  sample: requirements.txt
requirements_s3_object_version:
  description: Its object version, as RV(plugins_s3_object_version).
  returned: always
  type: str
startup_script_s3_path:
  description: The key of C(startup.sh); null when there is no startup script.
  returned: always
  type: str
  sample: startup.sh
startup_script_s3_object_version:
  description: Its object version, as RV(plugins_s3_object_version).
  returned: always
  type: str
results:
  description: One entry an object, unchanged ones too.
  returned: always
  type: list
  elements: dict
  contains:
    key:
      description: The object's key.
      type: str
      sample: dags/daily.py
    action:
      description: What happened to it. V(extra) is in the DAG folder and not at the source.
      type: str
      sample: updated
    changed:
      description: Whether it was written or deleted.
      type: bool
    size:
      description: Bytes, of what is new where it is written.
      type: int
    error:
      description: Why it failed.
      returned: when it failed
      type: str
counts:
  description: How many objects were created, updated, unchanged, deleted and extra.
  returned: always
  type: dict
  sample: {created: 1, updated: 0, unchanged: 212, deleted: 0, extra: 0}
held_back:
  description: DAG files that are uploaded and hidden until the cutover.
  returned: always
  type: list
  elements: dict
  contains:
    path:
      description: The file, relative to the DAG folder.
      type: str
    line:
      description: The line that unpauses its DAGs; null when an imported file does.
      type: int
    reason:
      description: Why.
      type: str
  sample: [{path: eager.py, line: 12, reason: is_paused_upon_creation is not True}]
ignored:
  description: Files that the source's own C(.airflowignore) hides. They are carried.
  returned: always
  type: list
  elements: str
ignore_syntax:
  description: The syntax in which C(.airflowignore) is published.
  returned: always
  type: str
  sample: regexp
left_out:
  description: How many files were left out, by kind.
  returned: always
  type: dict
  sample: {bytecode: 12}
extra:
  description: Objects in the DAG folder that the source does not have.
  returned: always
  type: list
  elements: str
not_carried:
  description: Files that cannot be carried.
  returned: always
  type: list
  elements: dict
  sample: [{kind: dag_file, id: old.pyc, reason: "compiled Python without its source: another Python cannot load it"}]
findings:
  description: What deserves a look.
  returned: always
  type: list
  elements: dict
  contains:
    severity:
      description: Always V(warning).
      type: str
    where:
      description: The file.
      type: str
    what:
      description: What is wrong.
      type: str
    mend:
      description: What to do.
      type: str
airflow_configuration_options:
  description: Options that the environment needs, so that it reads C(.airflowignore) as the source did.
  returned: always
  type: dict
  sample: {core.dag_ignore_file_syntax: regexp}
"""

from typing import Any

from ansible_collections.mwaa.migration.plugins.module_utils._aws import Context, run_module
from ansible_collections.mwaa.migration.plugins.module_utils._mwaa import environment
from ansible_collections.mwaa.migration.plugins.module_utils._sync import diff_of, find_target, open_source, publish


def body(ctx: Context) -> dict[str, Any]:
    described = None
    if ctx.params["environment"]:
        described = environment.describe(ctx.aws.client("mwaa"), ctx.params["environment"])
    target = find_target(ctx.params, described)
    source = open_source(ctx.aws, ctx.params)
    result = publish(
        ctx.aws,
        source,
        target,
        check_mode=ctx.check_mode,
        delete=ctx.params["delete"],
        hold_back=ctx.params["hold_back"],
    )
    if ctx.diff_mode:
        result["diff"] = diff_of(result)
    return result


def main() -> None:
    run_module(
        {
            "source": {"type": "str", "required": True},
            "kms_key_id": {"type": "str", "no_log": False},
            "plugins": {"type": "path"},
            "requirements": {"type": "path"},
            "startup_script": {"type": "path"},
            "environment": {"type": "str"},
            "bucket": {"type": "str"},
            "dag_s3_path": {"type": "str"},
            "plugins_s3_path": {"type": "str"},
            "requirements_s3_path": {"type": "str"},
            "startup_script_s3_path": {"type": "str"},
            "airflow_version": {"type": "str"},
            "ignore_syntax": {"type": "str", "choices": ["regexp", "glob"]},
            "delete": {"type": "bool", "default": False},
            "hold_back": {"type": "bool", "default": True},
        },
        body,
        required_one_of=[["environment", "bucket"]],
    )


if __name__ == "__main__":
    main()
