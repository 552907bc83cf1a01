#!/usr/bin/python
# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: mwaa_cli_exec
short_description: Run an Airflow CLI command in an Amazon MWAA environment
version_added: 0.1.0
description:
  - Runs one command of Airflow's CLI on the web server of an MWAA environment and returns what it printed.
  - MWAA allows the commands of
    U(https://docs.aws.amazon.com/mwaa/latest/userguide/airflow-cli-command-reference.html). Pools, and the import and
    export of connections and variables, are not among them. M(mwaa.migration.mwaa_rest_call) reaches these.
  - MWAA returns no exit code. Whether a command failed is judged from what it printed. Use C(failed_when) with
    RV(stdout) and RV(stderr) to judge otherwise.
  - Each attempt takes a token of its own. What surely was not run is repeated (the web server runs four commands at
    once). A command that writes and may have taken effect is not.
  - A private web server is reached only from inside its VPC. Name a host there with O(api_host), or let the task run
    there with C(delegate_to).
options:
  command:
    description:
      - The command without the leading C(airflow), such as V(version) or V(dags list -o json). Quote as in a shell.
      - Nobody can answer a prompt. Commands that ask need V(--yes).
      - The values of C(variables set) and the login, password, extra, URI and JSON of C(connections add) are masked
        in all output of this module. Ansible itself
        prints the items of a loop. Set C(no_log) or C(loop_control.label) on a task that loops over secrets.
    type: str
    required: true
  ca_path:
    description:
      - A PEM file with certificate authorities that are trusted besides the system's, for proxies that inspect TLS.
      - O(aws_ca_bundle) when it is not given. Certificates are always verified.
    type: path
  timeout:
    description:
      - How many seconds to wait for the command's answer.
    type: int
    default: 600
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
    support: partial
    details:
      - Commands that only read are run, all others are skipped and said to change something.
  diff_mode:
    support: none
  idempotent:
    support: N/A
    details:
      - Commands are run each time. Commands that only read change nothing, all others are said to change something.
seealso:
  - module: mwaa.migration.mwaa_rest_call
author:
  - mwaa.migration contributors (@mwaa-migration)
"""

EXAMPLES = r"""
- name: DAGs that could not be imported
  mwaa.migration.mwaa_cli_exec:
    environment: analytics
    command: dags list-import-errors -o json
  register: import_errors
  failed_when: import_errors is failed or import_errors.json | default([], true) | length > 0

- name: A value with blanks
  mwaa.migration.mwaa_cli_exec:
    environment: analytics
    command: "variables set greeting {{ 'good morning' | quote }}"

- name: Old rows, after the last answer to a prompt
  mwaa.migration.mwaa_cli_exec:
    environment: analytics
    command: db clean --clean-before-timestamp 2025-01-01 --yes
    timeout: 1800
"""

RETURN = r"""
stdout:
  description: What the command printed.
  returned: when it was run
  type: str
  sample: 2.11.2
stderr:
  description: What the command printed to standard error. Airflow writes warnings there.
  returned: when it was run
  type: str
stdout_lines:
  description: RV(stdout), by line.
  returned: when it was run
  type: list
  elements: str
json:
  description: The JSON in RV(stdout), of commands with C(-o json). Null when there is none.
  returned: when it was run
  type: raw
  sample:
    - dag_id: daily
subcommand:
  description: The command without its arguments.
  returned: always
  type: str
  sample: dags list
msg:
  description: Why the command is taken to have failed, or why it was skipped.
  returned: when it failed or was skipped
  type: str
error:
  description: AWS's error code and request id.
  returned: when AWS refused the token
  type: dict
  contains:
    code:
      description: The error code.
      type: str
      returned: always
      sample: ResourceNotFoundException
    request_id:
      description: The id of the request, for AWS Support.
      type: str
      returned: always
      sample: 6f6d3b0e-8a3c-4a55-9f3c-6f0b3c0f3a11
"""

from ansible_collections.mwaa.migration.plugins.module_utils._aws import run_module
from ansible_collections.mwaa.migration.plugins.module_utils._errors import MigrationError
from ansible_collections.mwaa.migration.plugins.module_utils._mwaa import cli


def body(ctx):
    params = ctx.params
    command = params["command"].strip()
    # The option is no_log, so that the system's log does not get it. In results only its secrets are masked: else a
    # command such as 'version' would be masked wherever the word stands.
    ctx.hide(cli.secrets(command), instead_of=params["command"])
    subcommand = cli.subcommand(command)
    if not subcommand:
        raise MigrationError("command must begin with a command of Airflow's CLI, such as: dags list")
    changed = cli.writes(command)
    if ctx.check_mode and changed:
        return {
            "changed": True,
            "skipped": True,
            "subcommand": subcommand,
            "msg": f"check mode: airflow {subcommand} was not run",
        }
    client = cli.Cli.of(ctx.aws, params["environment"], ca_path=params["ca_path"], timeout=params["timeout"])
    answer = client.run(command)
    result = {
        "changed": changed and not cli.did_nothing(answer.stdout),
        "subcommand": subcommand,
        "stdout": answer.stdout,
        "stdout_lines": answer.stdout.splitlines(),
        "stderr": answer.stderr,
        "json": answer.parsed,
    }
    if answer.failed:
        raise MigrationError(
            f"airflow {subcommand} failed in environment {params['environment']}: {answer.reason}", **result
        )
    return result


def main():
    run_module(
        {
            "environment": {"type": "str", "required": True},
            "api_host": {"type": "str"},
            "command": {"type": "str", "required": True, "no_log": True},
            "ca_path": {"type": "path"},
            "timeout": {"type": "int", "default": 600},
        },
        body,
    )


if __name__ == "__main__":
    main()
