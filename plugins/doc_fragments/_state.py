# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations


class ModuleDocFragment:
    """What mwaa_variable_upsert, mwaa_connection_upsert and mwaa_pool_upsert share."""

    DOCUMENTATION = r"""
options:
  bundle:
    description:
      - The URL of a bundle (V(s3://bucket/prefix)) or its folder. What it has sealed is opened inside the module, so
        that no secret passes through Ansible. Prefer it for whatever has secrets.
      - Exactly one of a list and O(bundle) is needed.
    type: str
  include:
    description: Ids that are carried, as patterns with C(*), C(?) and C([…]), where case counts.
    type: list
    elements: str
    default: ["*"]
  exclude:
    description: Ids that are not, although O(include) has them.
    type: list
    elements: str
    default: []
  rename:
    description:
      - Names that the target has for what is carried. Of each id the first rule is taken that matches it.
      - Two ids that would become one, and names that Airflow does not take, are refused before anything is done.
    type: list
    elements: dict
    default: []
    suboptions:
      match:
        description: A regular expression (Python's) for the whole id.
        type: str
        required: true
      to:
        description: What it becomes. C(\1) and C(\g<name>) stand for groups of O(rename[].match).
        type: str
        required: true
  beside:
    description:
      - The other bundles that enter the same environment. What one of them brings under the same id, and otherwise, is
        refused before anything is done, all of it with both names.
    type: list
    elements: dict
    suboptions:
      source:
        description: The bundle.
        type: str
        required: true
      select:
        description: What of it is carried, as O(mwaa.migration.mwaa_verify#module:select).
        type: dict
  lane:
    description:
      - The way into the environment.
      - V(agent) is one DAG run that writes everything in one transaction inside Airflow. It is for Airflow 2, needs
        a key (O(kms_key_id) or O(bundle)), leaves nothing in the audit log and compares secrets by itself. It is
        started by REST, before Airflow 2.4.3 by the CLI, and where neither can be reached by its own schedule. On
        Airflow 3 it writes variables only.
      - V(rest) is Airflow's REST API, which MWAA has from Airflow 2.4.3 on, one call for each item that can hold a
        secret. Airflow notes these calls in its audit log, where it masks what looks sensitive to it by its name.
      - V(cli) is Airflow's CLI, for variables that hold no secret where there is nothing else. Its arguments stand in
        the audit log, and how MWAA reads quotes is not documented, so it takes words of letters, digits and
        C(_@%+=:,./-) only. Connections and pools are not carried by it.
      - V(secrets_manager) is AWS Secrets Manager, which Airflow asks before its own database once O(environment) has
        been told to (O(mwaa.migration.mwaa_environment#module:secrets_backend)). Copies in the database are taken
        out. Pools are always in the database, and go as with V(auto).
      - V(auto) takes V(agent) on Airflow 2 where there is a key, otherwise V(rest). Where REST cannot be had, variables
        go by V(cli) on Airflow 2 without a key and by V(agent) on Airflow 3, and all else is refused. It says why in
        RV(ignore:lane_reason).
    type: str
    choices: [auto, rest, cli, agent, secrets_manager]
    default: auto
  on_conflict:
    description:
      - What is done about items that exist and differ.
      - V(overwrite) writes them.
      - V(keep) leaves them as they are.
      - V(fail) writes nothing at all and names all of them. One whose secrets cannot be compared counts as different.
      - With lane V(secrets_manager) a secret that somebody else made is such an item.
    type: str
    choices: [overwrite, keep, fail]
    default: overwrite
  prune:
    description:
      - Delete what is not wanted any more. With O(bundle) that is what this bundle brought earlier and has no more,
        so that several sources can enter one environment; with a list it is everything else.
      - C(default_pool) and the connection C(aws_default), which MWAA looks up in every task, always stay.
      - With lane V(secrets_manager) only secrets that this module made for O(environment) are deleted. They can be
        restored for seven days.
    type: bool
    default: false
  becomes:
    description:
      - The Airflow version that O(environment) is upgraded to afterwards, such as V(3.2.1). A connection that this
        version would fall over, since its extra is no JSON object, is listed and not carried.
    type: str
  kms_key_id:
    description:
      - The KMS key (id, ARN or alias) that seals what is handed to the agent. The bundle's key by default.
      - The execution role gets a grant to decrypt this one request, which is revoked when it is answered. Where you
        may not create grants, the role needs C(kms:Decrypt) on the key by its own policy.
      - With lane V(rest) on Airflow 3 it lets secrets be compared by digests, by a DAG run that writes nothing.
    type: str
  secrets_prefix:
    description:
      - What the names of secrets begin with, as in C(airflow/connections/ID) and C(airflow/variables/KEY). By default
        it is what O(environment) looks for, and another one is refused.
    type: str
  secrets_kms_key_id:
    description:
      - The KMS key that encrypts secrets, by default Secrets Manager's own. The execution role needs C(kms:Decrypt)
        on it.
    type: str
attributes:
  check_mode:
    support: full
    details:
      - Nothing is written, no object and no DAG run. What cannot be read is compared with what was last applied from
        the bundle, and shown as V(unknown) where that says nothing.
  diff_mode:
    support: full
    details:
      - Secrets are shown as C(********), with the word C(changed) or C(unknown); neither values nor lengths are.
"""
