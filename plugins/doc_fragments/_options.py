# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations


class ModuleDocFragment:
    """Options that several modules share."""

    # the environment that a module works in
    ENVIRONMENT = r"""
options:
  environment:
    description:
      - The name of the MWAA environment.
    type: str
    required: true
"""

    # of modules that speak to the Airflow in an environment
    API_HOST = r"""
options:
  api_host:
    description:
      - A host of the inventory that is inside the environment's VPC. Calls of MWAA's API and of its web server go
        through that host's SSH connection.
      - For environments whose web server is C(PRIVATE_ONLY). Nothing is needed on the host but that its SSH server
        forwards TCP; calls are signed, and TLS ends, where Ansible runs.
      - The host's connection has to be C(ssh), with a key or an agent. The task itself has to run on the controller.
    type: str
"""

    # of what has to do with an MWAA environment that is left
    SOURCE = r"""
options:
  source_region:
    description: The region of an MWAA environment that is left. The same as O(region) when it is not given.
    type: str
  source_profile:
    description: The profile to reach that environment with, where it is in another account.
    type: str
  source_role_arn:
    description: The ARN of a role that is assumed to reach that environment.
    type: str
"""

    # of those that put the agent into it
    SOURCE_AGENT = r"""
options:
  source_environment:
    description: The name of the MWAA environment that is left, where the source is one and no host.
    type: str
  source_kms_key_id:
    description:
      - The KMS key that requests to the agent in O(source_environment) are sealed with. The bundle's when it is not
        given, which another region cannot use.
    type: str
  source_agent:
    description:
      - What becomes of the agent in O(source_environment) when all was read. V(removed) takes it out again, with its
        rows in Airflow's database; V(kept) leaves it for the next task that needs it.
      - An export that fails, or is killed, leaves it, too. M(mwaa.migration.migration_cleanup) takes it out.
    type: str
    default: removed
    choices: [removed, kept]
"""

    # of modules that may have the agent run in an environment
    AGENT_WAIT = r"""
options:
  wait_timeout:
    description:
      - Seconds to wait for a DAG run of the agent. MWAA may take five minutes to see the agent's DAG first.
    type: int
    default: 1200
"""
