#!/usr/bin/python
# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: migration_lock
short_description: Give back the locks that this run holds in bundles
version_added: 0.1.0
description:
  - The modules that write take a lock in the bundle before their first write, one for the export and one for each
    environment, so that two operators do not work on one migration at once. The run of C(ansible-playbook) keeps it
    between its tasks. This gives it back, for the next one to go on at once.
  - A run that has ended without it is replaced at once by one on the same machine, and after ten minutes without a sign
    of life by one elsewhere. A user who knows that nobody works there says C(-e migration_break_lock=true).
options:
  bundles:
    description: The bundles, each V(s3://bucket/prefix) or a folder.
    type: list
    elements: str
    required: true
  environment:
    description:
      - Give back the lock of this environment and the export's, and none of another environment, where the same run may
        still be at work. All of the run's without it.
    type: str
  state:
    description: V(released) gives back this run's own locks; others' stay.
    type: str
    default: released
    choices: [released]
extends_documentation_fragment:
  - mwaa.migration._attributes.aws
  - amazon.aws.common.modules
  - amazon.aws.region.modules
  - amazon.aws.boto3
attributes:
  check_mode:
    description: Can run in check_mode and return changed status prediction without modifying target
    support: full
    details:
      - Nothing is read or written. In check mode no module takes a lock.
  diff_mode:
    description: Will return details on what has changed (or possibly needs changing in check_mode), when in diff mode
    support: none
  idempotent:
    description: When run again with the same arguments and nothing else happened, it changes nothing.
    support: full
    details:
      - A lock is a run's own and no part of what is managed, so giving it back is no change.
author:
  - mwaa.migration contributors (@mwaa-migration)
"""

EXAMPLES = r"""
- name: Let the next one go on
  mwaa.migration.migration_lock:
    bundles: [s3://my-migration/airflow-prod]
    environment: analytics
"""

RETURN = r"""
released:
  description: The locks that this run held, as bundle and name.
  returned: success
  type: list
  elements: str
  sample: [s3://my-migration/airflow-prod export, s3://my-migration/airflow-prod analytics]
"""

from typing import Any

from ansible_collections.mwaa.migration.plugins.module_utils import _lock
from ansible_collections.mwaa.migration.plugins.module_utils._aws import Context, run_module
from ansible_collections.mwaa.migration.plugins.module_utils._bundle import open_store


def body(ctx: Context) -> dict[str, Any]:
    released = []
    names = [ctx.params["environment"], _lock.EXPORT] if ctx.params["environment"] else None
    for url in [] if ctx.check_mode else sorted(set(ctx.params["bundles"])):
        store = open_store(url, ctx.aws)
        released += [f"{store.url} {name}" for name in _lock.release(store, names)]
    return {"changed": False, "released": released}


def main() -> None:
    run_module(
        {
            "bundles": {"type": "list", "elements": "str", "required": True},
            "environment": {"type": "str"},
            "state": {"type": "str", "default": "released", "choices": ["released"]},
        },
        body,
    )


if __name__ == "__main__":
    main()
