#!/usr/bin/python
# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: mwaa_history_import
short_description: Bring run history into an MWAA environment
version_added: 0.1.0
description:
  - Brings the DAG runs, task instances, XComs, audit rows and all else that M(mwaa.migration.airflow_history_export)
    put into a bundle, every export of it in its order. A DAG run of the agent in the environment reads the pieces from
    the bundle by URLs that are good for that alone, and writes them into Airflow's database.
  - Each piece is one transaction together with its entry in a ledger beside Airflow's tables. Whatever was killed goes
    on from there, no row is lost and none comes twice. A second run asks the ledger and sends nothing again.
  - While it runs, all DAGs of the environment but the agent's own are paused. Which were not is written down once, and
    these are resumed at the end, as soon as Airflow has read their files again. Before that it would run once more
    what has run already. A run that was killed leaves them paused until another one has come to its end, and
    M(mwaa.migration.migration_cleanup) refuses to forget them.
  - It is for environments of Airflow 2. History enters Airflow 3 by an upgrade, which C(playbooks/migrate.yml) does.
options:
  bundle:
    description:
      - The URL of the bundle (V(s3://bucket/prefix)) or its folder. From a folder, pieces travel inside the requests,
        which is slower.
    type: str
    required: true
  on_conflict:
    description:
      - What is done about rows that the environment has already. Rows are the same by what they are called (DAG, run,
        task, map index, key), not by their number.
      - V(newer) writes a row whose source changed it later than the environment did.
      - V(overwrite) writes them, V(skip) leaves them as they are.
      - V(fail) looks at everything first, writes nothing at all when there is any, and names them. A later export that
        carries a run anew meets the rows of the earlier one, and is refused, too.
    type: str
    choices: [newer, overwrite, skip, fail]
    default: newer
  rebuild_indexes:
    description:
      - Take plain indexes and foreign keys of the tables away before, and make them again after, which is faster for
        millions of rows. It is refused while any task runs.
      - They are written down in the ledger first. After a crash the next run of this module makes them again, and until
        then M(mwaa.migration.migration_cleanup) refuses to forget them.
    type: bool
    default: false
  beside:
    description:
      - Bring the history of another source beside the one that is there. Without it, a second source is refused, also
        after the cleanup that followed the first.
    type: bool
    default: false
  resume:
    description:
      - Resume at the end what was paused for the import. Without it, all DAGs stay paused, and another run with it
        resumes those that had not been.
    type: bool
    default: true
  workers:
    description: Connections to the database that write at the same time.
    type: int
    default: 2
  kms_key_id:
    description:
      - The KMS key (id, ARN or alias) that seals what is handed to the agent. The bundle's key by default.
    type: str
  wait_timeout:
    description:
      - Seconds to wait for one DAG run of the agent. For half of it the agent begins pieces, and is then asked again
        for those that are left. Making indexes again is one run.
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
    details:
      - Asking the environment would be a run of the agent. What this bundle has brought there is known from the bundle.
  diff_mode:
    support: none
  idempotent:
    support: full
seealso:
  - module: mwaa.migration.airflow_history_export
  - module: mwaa.migration.mwaa_verify
author:
  - mwaa.migration contributors (@mwaa-migration)
"""

EXAMPLES = r"""
- name: Bring the history of a bundle
  mwaa.migration.mwaa_history_import:
    environment: analytics-prod
    bundle: s3://migrations/analytics-prod

- name: Millions of rows into an environment where nothing runs
  mwaa.migration.mwaa_history_import:
    environment: analytics-prod
    bundle: s3://migrations/analytics-prod
    rebuild_indexes: true
    workers: 4
    wait_timeout: 3600
"""

RETURN = r"""
tables:
  description: What became of the rows of each table, over all runs and all exports of the bundle.
  returned: always, also on failure after something was written
  type: dict
  contains:
    source:
      description: Rows in the bundle.
      type: int
    rows:
      description: Rows of it that were brought so far.
      type: int
    pieces:
      description: Pieces of it that were brought so far.
      type: int
    inserted:
      description: New rows.
      type: int
    updated:
      description: Rows that were there and were written anew.
      type: int
    kept:
      description: Rows that were there and are as they were.
      type: int
    left_out:
      description: Rows that cannot be there, see RV(not_carried).
      type: int
    mended:
      description: Rows with a text that PostgreSQL does not hold, written as near as can be, see RV(not_carried).
      type: int
  sample:
    dag_run: {source: 400, rows: 400, pieces: 1, inserted: 400, updated: 0, kept: 0, left_out: 0, mended: 0}
exports:
  description: The bundle's exports, oldest first.
  returned: always, also on failure after something was written
  type: list
  elements: dict
  contains:
    id:
      description: Its id.
      type: str
    at:
      description: When it was planned.
      type: str
    delta:
      description: Whether it carries only what changed since the one before.
      type: bool
    pieces:
      description: Its pieces.
      type: int
    pieces_left:
      description: Those that are not there yet. In check mode, those that would be brought.
      type: int
    rows:
      description: Its rows.
      type: int
    rows_left:
      description: Those that are not there yet.
      type: int
brought:
  description: Pieces that this run brought.
  returned: always, also on failure after something was written
  type: int
resumed:
  description: DAGs that were paused for the import and were resumed.
  returned: always, also on failure after something was written
  type: list
  elements: str
not_carried:
  description: What does not arrive as it is. Keys of rows, never their values.
  returned: always, also on failure after something was written
  type: list
  elements: dict
  contains:
    kind:
      description: The table.
      type: str
    id:
      description: The row's key.
      type: str
    reason:
      description: Why.
      type: str
notes:
  description: What was done beside, such as uploading the agent.
  returned: when there is something to say
  type: list
  elements: str
"""

from ansible_collections.mwaa.migration.plugins.module_utils._aws import run_module
from ansible_collections.mwaa.migration.plugins.module_utils._history.target import ARGUMENT_SPEC, import_history


def main() -> None:
    run_module(ARGUMENT_SPEC, import_history)


if __name__ == "__main__":
    main()
