#!/usr/bin/python
# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: migration_cleanup
short_description: Remove what a migration brought into an MWAA environment for its own use
version_added: 0.1.0
description:
  - Removes the agent, its DAGs with all their rows in Airflow's database, its requests and answers, the index of what
    was published, KMS grants that a killed run left, what the execution role was allowed while it lasted, and the
    migration's lock. In buckets, all versions of these go.
  - What was migrated stays as it is; so do DAG files, plugins, requirements, variables, connections and pools.
  - On Airflow 2, no row is left that names the agent. On Airflow 3, rows of the audit log and names of
    permissions stay, and are listed.
  - It refuses while the agent serves a request, and before it removes anything.
  - The agent is taken out of O(source_environments), too.
  - Returns what may be switched off at the source, in order. Nothing else there is touched.
options:
  bundle:
    description:
      - The bundle, C(s3://bucket/prefix) or a folder. Needed for its lock, for O(keep_bundle_days), and for RV(retire).
    type: str
  bundles:
    description: The bundles of several sources that entered this environment together, instead of O(bundle).
    type: list
    elements: str
  keep_bundle_days:
    description:
      - Remove the bundle, too, when it was exported at least that many days ago. V(0) removes it now.
      - Only what its manifest names goes, so that other things may lie beside it. It refuses while a run works with it.
      - Without it, the bundle is kept.
    type: int
  kms_key_id:
    description: The KMS key of requests, where it is not the bundle's.
    type: str
  source_environments:
    description: The MWAA environments that were left, where the sources were some, and how each of them is reached.
    type: list
    elements: dict
    suboptions:
      name:
        description: The name of the environment.
        type: str
        required: true
      region:
        description: Its region. The same as O(region) when it is not given.
        type: str
      profile:
        description: The profile to reach it with, where it is in another account.
        type: str
      role_arn:
        description: The ARN of a role that is assumed to reach it.
        type: str
      kms_key_id:
        description: The KMS key of requests to the agent there, where it is not the bundle's.
        type: str
  wait_timeout:
    description: Seconds to wait for Airflow to see that the agent is gone. MWAA may take five minutes.
    type: int
    default: 1200
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
  diff_mode:
    support: full
  idempotent:
    support: full
seealso:
  - module: mwaa.migration.mwaa_verify
author:
  - mwaa.migration contributors (@mwaa-migration)
"""

EXAMPLES = r"""
- name: Show what would be removed
  mwaa.migration.migration_cleanup:
    environment: analytics-prod
    bundle: s3://migrations/analytics-prod
  check_mode: true

- name: Remove it, and the bundle when it is older than a month
  mwaa.migration.migration_cleanup:
    environment: analytics-prod
    bundle: s3://migrations/analytics-prod
    keep_bundle_days: 30

- name: The same where the web server is private
  mwaa.migration.migration_cleanup:
    environment: analytics-prod
    bundle: s3://migrations/analytics-prod
    api_host: bastion

- name: The same where two MWAA environments in two regions were left
  mwaa.migration.migration_cleanup:
    environment: analytics-prod
    bundles: [s3://migrations/analytics-eu, s3://migrations/analytics-us]
    source_environments:
      - name: analytics-eu
      - name: analytics-us
        region: us-east-1
        role_arn: arn:aws:iam::444455556666:role/mwaa-migration
"""

RETURN = r"""
removed:
  description: What was removed, or would be in check mode.
  returned: success
  type: list
  elements: dict
  sample: [{what: versions of the agent's files, where: s3://analytics/dags/mwaa_migration/, count: 4}]
remains:
  description: What could not be removed, and why.
  returned: success
  type: list
  elements: dict
  sample:
    - what: rows of the audit log
      where: Airflow of analytics-prod
      reason: Airflow 3 has no way to delete them
retire:
  description: What may be switched off at the source, in the order to do it. Empty without a bundle.
  returned: success
  type: list
  elements: str
  sample: [Pause what is not paused yet in Airflow 2.10.3 on airflow-1]
msg:
  description: Why nothing was removed, or what could not be.
  returned: when it failed
  type: str
"""

from ansible_collections.mwaa.migration.plugins.module_utils._aws import run_module
from ansible_collections.mwaa.migration.plugins.module_utils._cleanup import ARGUMENT_SPEC, cleanup


def main():
    run_module(ARGUMENT_SPEC, cleanup, mutually_exclusive=[("bundle", "bundles")])


if __name__ == "__main__":
    main()
