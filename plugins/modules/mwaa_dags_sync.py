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
  - Content is compared, not dates. A repeat without a change lists the DAG folder (1,000 objects a request), reads one
    index object, looks at no more than three others and writes nothing.
  - The plugins folder becomes a C(plugins.zip) that is the same, byte for byte, for the same files, so that an
    unchanged plugins folder never makes a new object version and never restarts an environment.
  - Files that C(.airflowignore) hides are carried all the same, because DAGs import them; the C(.airflowignore) files
    are carried with them, so that the target's Airflow looks for DAGs exactly where the source's did.
  - Nothing starts early. DAG files that set C(is_paused_upon_creation) to something other than C(True), and those that
    import such a file, are uploaded and hidden by a marked block in C(.airflowignore). The block goes up before the
    files do. They are listed in RV(held_back).
  - Compiled Python (C(__pycache__), C(*.pyc)), version control, caches of tools and leftovers of editors are left out
    and counted in RV(left_out).
  - Links that stay inside of a folder are followed. Links that leave it or run in a circle, names that are no UTF-8 or
    too long for S3, what is neither file nor folder, and what cannot be read, vanishes or changes while it is read are
    listed in RV(not_carried). No object is ever half of a file.
  - Objects are written in parallel, large ones in parts. An index beside the DAG folder remembers the SHA-256 behind
    each object and whose it is, so that objects whose ETag is no MD5 (SSE-KMS, parts) are known without being read.
  - A bundle that does not match its manifest is refused with the file named, before anything is published.
options:
  source:
    description:
      - What is published. The URL of a bundle (V(s3://bucket/prefix)), the folder of a bundle (it holds
        C(manifest.json)), or a plain folder of DAGs.
      - Required unless O(sources) are given.
    type: str
  into:
    description:
      - A folder in the DAG folder that the source's files go to, such as V(team_a). Its C(.airflowignore) files then
        count in that folder alone.
      - Airflow imports from the DAG folder and not from folders in it, so files that import others of their source by
        an absolute name are listed in RV(findings).
    type: str
  include:
    description:
      - Which of the source's DAG files are published, as globs that are read as C(.gitignore) reads them, such as
        V(team_a/), V(*.py) or V(/daily/**/etl_*.py). All, when it is not given. C(.airflowignore) files come along.
    type: list
    elements: str
  exclude:
    description: Which of these are not, as globs of the same kind.
    type: list
    elements: str
  sources:
    description:
      - Several sources for one environment, instead of O(source). Their requirements, plugins and startup scripts
        become one of each. What contradicts itself (two versions of a package, two contents of a file, one C(dag_id)
        twice) is refused at once, with both names.
    type: list
    elements: dict
    suboptions:
      source:
        description: A bundle or a folder, as O(source).
        type: str
        required: true
      into:
        description: As O(into).
        type: str
      include:
        description: As O(include).
        type: list
        elements: str
      exclude:
        description: As O(exclude).
        type: list
        elements: str
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
  startup_script_joins:
    description: Put O(startup_script) behind the bundle's script instead of in its place.
    type: bool
    default: false
  pack_requirements:
    description:
      - Download what C(requirements.txt) names as wheels for the environment's Python, put them into C(plugins.zip),
        and let C(requirements.txt) find them there (C(--find-links), C(--no-index)).
      - A private web server reaches no package index, so with V(PRIVATE_ONLY) this is the way to have requirements.
      - pip of the controller makes the downloads, with its own configuration; markers of requirements are judged by the
        controller's platform. They are made anew when the requirements or O(airflow_version) have changed, and in check
        mode not at all.
    type: bool
    default: false
  package_indexes:
    description:
      - The URLs of the package indexes for O(pack_requirements), the first one instead of the index that
        C(requirements.txt) or pip's configuration names. Credentials in them are given to pip on its standard input,
        and are neither published nor shown.
    type: list
    elements: str
  wheels:
    description:
      - A folder of wheels on the controller that are put into C(plugins.zip), with C(requirements.txt) as for
        O(pack_requirements). For packages that no index has; together with O(pack_requirements), what it lacks is
        downloaded.
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
      - Delete from the DAG folder what the source has no longer. Only what this module has published from this very
        source is deleted, and only while it stands as it was published; what others put there, and what other sources
        brought, is listed in RV(extra).
      - By default nothing is deleted.
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

- name: Two Airflows into one environment whose web server is private
  mwaa.migration.mwaa_dags_sync:
    environment: shared
    pack_requirements: true
    sources:
      - source: s3://my-migration-bundles/sales
        into: sales
      - source: s3://my-migration-bundles/finance
        into: finance
        exclude: [sandbox/]

- name: Bring a folder of DAGs to a running environment, and delete what it has no longer
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
      description:
        - What happened to it. V(extra) is in the DAG folder and not at the source. V(unstable) was not written, because
          the file vanished or changed while it was being published.
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
  description: How many objects were created, updated, unchanged, deleted, extra and unstable.
  returned: always
  type: dict
  sample: {created: 1, updated: 0, unchanged: 212, deleted: 0, extra: 0, unstable: 0}
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
  description:
    - How many files, and folders as a whole, were left out, by kind. V(excluded) are those that O(include) and
      O(exclude) left out.
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
from ansible_collections.mwaa.migration.plugins.module_utils._lock import held_in
from ansible_collections.mwaa.migration.plugins.module_utils._mwaa import environment
from ansible_collections.mwaa.migration.plugins.module_utils._sync.archive import Packing
from ansible_collections.mwaa.migration.plugins.module_utils._sync.publish import diff_of, publish
from ansible_collections.mwaa.migration.plugins.module_utils._sync.source import find_target, open_sources


def body(ctx: Context) -> dict[str, Any]:
    params = ctx.params
    described = None
    if params["environment"]:
        described = environment.describe(ctx.aws.client("mwaa"), params["environment"])
    indexes = params["package_indexes"] or []
    ctx.hide(set(indexes))
    sources, target = open_sources(ctx.aws, params), find_target(params, described)
    stores = [] if ctx.check_mode else [source.store for source in sources if source.store]
    with held_in(stores, params["environment"] or target.bucket) as take:
        result = publish(
            ctx.aws,
            sources,
            target,
            check_mode=ctx.check_mode,
            delete=params["delete"],
            hold_back=params["hold_back"],
            packing=Packing(params["wheels"], params["pack_requirements"], indexes),
            before_writing=take,
        )
    if ctx.diff_mode:
        result["diff"] = diff_of(result)
    return result


def main() -> None:
    globs = {"type": "list", "elements": "str"}
    one = {"into": {"type": "str"}, "include": globs, "exclude": globs}
    run_module(
        {
            "source": {"type": "str"},
            **one,
            "sources": {
                "type": "list",
                "elements": "dict",
                "options": {"source": {"type": "str", "required": True}, **one},
            },
            "kms_key_id": {"type": "str", "no_log": False},
            "plugins": {"type": "path"},
            "requirements": {"type": "path"},
            "startup_script": {"type": "path"},
            "startup_script_joins": {"type": "bool", "default": False},
            "pack_requirements": {"type": "bool", "default": False},
            "package_indexes": {"type": "list", "elements": "str", "no_log": True},
            "wheels": {"type": "path"},
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
        required_one_of=[["environment", "bucket"], ["source", "sources"]],
        mutually_exclusive=[["source", "sources"], *([name, "sources"] for name in one)],
    )


if __name__ == "__main__":
    main()
