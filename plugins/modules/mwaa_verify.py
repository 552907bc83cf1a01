#!/usr/bin/python
# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: mwaa_verify
short_description: Verify that what is in a bundle is in an MWAA environment, equal or listed
version_added: 0.1.0
description:
  - Compares every variable, connection and pool of a bundle with those of an environment, field by field, secrets too.
    Both sides become digests that are keyed with the bundle's key; the environment's are computed inside it, by a DAG
    run of this collection's agent, so that no secret leaves it.
  - Compares every DAG file with the environment's bucket, waits until the environment has parsed them, and finds every
    DAG of the source there.
  - Where the environment looks into AWS Secrets Manager first, what is there is what is compared; it is read, and
    digested, where this module runs.
  - An Airflow 2 whose REST API does not exist (before 2.4.3) or cannot be reached is compared by the agent alone. Of
    such an Airflow 3 variables and connections are compared, the rest is said not to be.
  - Compares run history, where the bundle has some, by row counts and digests of every table and DAG (O(history)).
  - What differs is named by id and field, rows by their keys. Values are never shown.
  - What is not equal has to be listed with a reason, by the export (in the bundle), by an earlier stage
    (O(not_carried)), or because it is held back until the cutover. Everything else is an error.
  - Nothing is changed. The agent's two files are brought to the bucket where they are missing.
options:
  bundle:
    description:
      - The bundle, V(s3://bucket/prefix) or a local folder.
      - Required unless O(sources) are given.
    type: str
  into:
    description: The folder in the DAG folder that its files went to, as O(mwaa.migration.mwaa_dags_sync#module:into).
    type: str
  include:
    description: Which of its DAG files were published, as O(mwaa.migration.mwaa_dags_sync#module:include).
    type: list
    elements: str
  exclude:
    description: Which of these were not.
    type: list
    elements: str
  sources:
    description:
      - Several bundles in one environment, instead of O(bundle), all that were published there together
        (O(mwaa.migration.mwaa_dags_sync#module:sources)). Each is compared by itself; requirements and plugins are
        compared as what all of them make.
    type: list
    elements: dict
    suboptions:
      source:
        description: The bundle, as O(bundle).
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
      select:
        description: What of its state was carried, as O(select).
        type: dict
  not_carried:
    description: What earlier stages listed as not carried, each with C(kind), C(id) and C(reason).
    type: list
    elements: dict
    default: []
    suboptions:
      kind:
        description: V(variable), V(connection), V(pool), V(dag), V(dag_file) or any other word.
        type: str
        required: true
      id:
        description: Its id.
        type: str
        required: true
      reason:
        description: Why it was not carried.
        type: str
        required: true
      source:
        description: Which of O(sources) it is of. All of them when it is not given.
        type: str
  findings:
    description: Findings of earlier stages, as dictionaries or sentences. They are returned with those of this one.
    type: list
    elements: raw
    default: []
  select:
    description:
      - What was carried, and under which names, as the import had it. C(variables), C(connections) and C(pools), each
        with C(include), C(exclude) and C(rename), as O(mwaa.migration.mwaa_variable_upsert#module:include) and its
        neighbours.
    type: dict
  history:
    description:
      - Whether the bundle's run history is compared, table by table and DAG by DAG. V(auto) does so where the bundle
        has one, V(true) fails where it has none.
      - On Airflow 2 all of it is compared by digests, computed inside the environment. On Airflow 3, where no task
        reaches the database, that was done before the upgrade (M(mwaa.migration.mwaa_history_interim)); what the REST
        API shows of each DAG's oldest runs, newest ones and some in between is compared again.
    type: str
    choices: [auto, 'true', 'false']
    default: auto
  kms_key_id:
    description: The KMS key that requests to the agent are sealed with. By default the bundle's.
    type: str
  wait_timeout:
    description: Seconds to wait until the environment has parsed the DAGs, and until the agent has answered.
    type: int
    default: 900
  fail:
    description: Fail when something is neither equal nor listed. With V(false) it is only returned.
    type: bool
    default: true
extends_documentation_fragment:
  - mwaa.migration._options.environment
  - mwaa.migration._options.api_host
  - mwaa.migration._attributes
  - mwaa.migration._attributes.aws
  - amazon.aws.common.modules
  - amazon.aws.region.modules
  - amazon.aws.boto3
attributes:
  check_mode:
    support: full
    details:
      - No DAG run is made. What REST shows is compared; secrets are unknown, and RV(equal) is null unless something
        differs.
      - An environment that does not exist yet is unknown, too.
  diff_mode:
    support: none
    details:
      - This module changes nothing. What differs is in RV(findings).
  idempotent:
    support: full
seealso:
  - module: mwaa.migration.mwaa_dags_sync
  - module: mwaa.migration.migration_report
author:
  - mwaa.migration contributors (@mwaa-migration)
"""

EXAMPLES = r"""
- name: Verify
  mwaa.migration.mwaa_verify:
    environment: prod
    bundle: s3://my-migration-bundles/prod

- name: Verify, knowing what the import could not carry, and go on whatever comes
  mwaa.migration.mwaa_verify:
    environment: prod
    bundle: s3://my-migration-bundles/prod
    not_carried: "{{ import_connections_result.not_carried }}"
    fail: false
  register: verified

- name: Verify two sources in one environment
  mwaa.migration.mwaa_verify:
    environment: prod
    sources:
      - source: s3://my-migration-bundles/sales
        into: sales
      - source: s3://my-migration-bundles/finance
        into: finance
        select:
          variables: {exclude: ["tmp_*"]}
"""

RETURN = r"""
equal:
  description: Whether everything is equal or listed. Null when that could not be found out (check mode).
  returned: always
  type: bool
parity:
  description:
    - How many there are in the bundle (C(source)), how many of these in the environment (C(target)), and how many are
      equal in every field (C(equal)). What only the environment has is in RV(differences) and not counted here.
    - DAGs are counted by their ids. Null is unknown.
    - C(history), where the bundle has one, holds the same by table, in rows, and how many of those that are not equal
      are C(listed).
  returned: always
  type: dict
  sample:
    variables: {source: 12, target: 12, equal: 12}
    connections: {source: 8, target: 8, equal: 8}
    pools: {source: 3, target: 3, equal: 3}
    dags: {source: 31, target: 30, equal: 30}
    history:
      dag_run: {source: 5110, target: 5110, equal: 5110, listed: 0}
      task_instance: {source: 40880, target: 40880, equal: 40878, listed: 2}
source:
  description: The source, as the bundle names it.
  returned: always
  type: dict
  sample: {airflow_version: 2.10.3}
target:
  description: The environment.
  returned: always
  type: dict
  sample: {airflow_version: 2.11.2, environment: prod}
not_carried:
  description: What is listed, of all stages, each once.
  returned: always
  type: list
  elements: dict
  contains:
    kind:
      description: What it is.
      type: str
    id:
      description: Its id.
      type: str
    reason:
      description: Why it is not carried.
      type: str
  sample: [{kind: dag_file, id: eager.py, reason: "held back until the cutover: is_paused_upon_creation is not True"}]
findings:
  description: Errors are neither equal nor listed; warnings deserve a look.
  returned: always
  type: list
  elements: dict
  contains:
    severity:
      description: V(error), V(warning) or V(note).
      type: str
    where:
      description: What is concerned.
      type: str
    what:
      description: What is wrong, without values.
      type: str
    mend:
      description: What to do.
      type: str
  sample:
    - {severity: error, where: connection db, what: password differs, mend: "run the import stage with on_conflict:
      overwrite"}
differences:
  description:
    - By kind, ids that are missing, ids and fields that are different or unknown, and ids that only the environment
      has.
    - Of C(history), by table and DAG, keys of rows that are C(missing), C(extra), C(changed) or C(touched) in the
      environment since, 100 of each at most, and their C(counts).
  returned: always
  type: dict
  sample:
    connections: {missing: [], different: {db: [password]}, unknown: {}, extra: [aws_default]}
sources:
  description: RV(equal), RV(parity) and RV(differences) of each bundle.
  returned: when there are several
  type: list
  elements: dict
  sample:
    - source: s3://my-migration-bundles/sales
      equal: true
      parity: {variables: {source: 12, target: 12, equal: 12}}
      differences: {variables: {missing: [], different: {}, unknown: {}, extra: []}}
duration:
  description: Seconds that it took.
  returned: success
  type: float
"""

from typing import Any

from ansible_collections.mwaa.migration.plugins.module_utils._aws import Context, run_module
from ansible_collections.mwaa.migration.plugins.module_utils._verify import verify


def body(ctx: Context) -> dict[str, Any]:
    return verify(ctx.aws, ctx.params, check_mode=ctx.check_mode)


def main() -> None:
    placed = {
        "into": {"type": "str"},
        "include": {"type": "list", "elements": "str"},
        "exclude": {"type": "list", "elements": "str"},
    }
    run_module(
        {
            "environment": {"type": "str", "required": True},
            "api_host": {"type": "str"},
            "bundle": {"type": "str"},
            **placed,
            "sources": {
                "type": "list",
                "elements": "dict",
                "options": {
                    "source": {"type": "str", "required": True},
                    **placed,
                    "select": {"type": "dict"},
                },
            },
            "not_carried": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "options": {
                    "kind": {"type": "str", "required": True},
                    "id": {"type": "str", "required": True},
                    "reason": {"type": "str", "required": True},
                    "source": {"type": "str"},
                },
            },
            "findings": {"type": "list", "elements": "raw", "default": []},
            "select": {"type": "dict"},
            "history": {"type": "str", "choices": ["auto", "true", "false"], "default": "auto"},
            "kms_key_id": {"type": "str", "no_log": False},
            "wait_timeout": {"type": "int", "default": 900},
            "fail": {"type": "bool", "default": True},
        },
        body,
        mutually_exclusive=[(name, "sources") for name in ("bundle", "select", *placed)],
        required_one_of=[("bundle", "sources")],
    )


if __name__ == "__main__":
    main()
