#!/usr/bin/python
# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: migration_report
short_description: Write a migration's report and show its summary
version_added: 0.1.0
description:
  - Puts together what the stages returned, writes it as one JSON document, and shows a page of it on the screen.
  - The report holds ids, counts, seconds and reasons. It never holds values.
  - It runs where Ansible runs. The host that it is run for is never contacted.
options:
  path:
    description: The file to write. It is written whole or not at all. Without it, nothing is written.
    type: path
  environment:
    description: The name of the environment, for the page's title.
    type: str
  source:
    description: The source. RV(ignore:airflow_version) is what counts; by default what O(verification) says.
    type: dict
    default: {}
  target:
    description: The target. RV(ignore:airflow_version) is what counts; by default what O(verification) says.
    type: dict
    default: {}
  stages:
    description: The stages, in the order they ran. A stage whose tasks did not run is left out.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: The stage's name.
        type: str
        required: true
      results:
        description:
          - What the stage's tasks registered. Their RV(ignore:duration), in seconds, is added up; one that changed
            something makes the stage changed.
        type: list
        elements: raw
        default: []
  verification:
    description: What M(mwaa.migration.mwaa_verify) registered. Without it, parity is unknown.
    type: dict
extends_documentation_fragment:
  - mwaa.migration._attributes
attributes:
  check_mode:
    support: full
    details:
      - Shows the page and writes no file.
  diff_mode:
    support: none
  idempotent:
    support: full
  action:
    description: Runs as an action plugin on the controller.
    support: full
seealso:
  - module: mwaa.migration.mwaa_verify
author:
  - mwaa.migration contributors (@mwaa-migration)
"""

EXAMPLES = r"""
- name: Write the report
  mwaa.migration.migration_report:
    path: build/rehearsal/report.json
    environment: prod
    stages:
      - name: export
        results: "{{ [hostvars[groups.airflow_source[0]].export_result | default({})] }}"
      - name: publish
        results: "{{ [publish_result | default({})] }}"
      - name: verify
        results: "{{ [verify_result | default({})] }}"
    verification: "{{ verify_result | default({}) }}"
"""

RETURN = r"""
report:
  description: The document that is written.
  returned: always
  type: dict
  contains:
    source:
      description: The source.
      type: dict
      sample: {airflow_version: 2.10.3}
    target:
      description: The target.
      type: dict
      sample: {airflow_version: 2.11.2}
    stages:
      description: The stages that ran, with their seconds and whether they changed anything.
      type: list
      elements: dict
      sample: [{name: export, seconds: 4.2, changed: true}]
    stacks:
      description: The stacks that M(mwaa.migration.cloudformation_change_set) returned among them, with their outputs.
      type: list
      elements: dict
      sample: [{name: analytics-environment, status: CREATE_COMPLETE, outputs: {EnvironmentName: analytics}}]
    parity:
      description: Counts of variables, connections, pools and DAGs at the source, at the target, and equal.
      type: dict
      sample: {variables: {source: 12, target: 12, equal: 12}}
    not_carried:
      description: What was not carried, and why.
      type: list
      elements: dict
      sample: [{kind: connection, id: my conn, reason: Airflow's REST API refuses this conn_id}]
    findings:
      description: What deserves a look.
      type: list
      elements: dict
summary:
  description: The page, in lines of at most 80 columns.
  returned: always
  type: list
  elements: str
equal:
  description: Whether everything is equal or listed; null when that is not known.
  returned: always
  type: bool
"""
