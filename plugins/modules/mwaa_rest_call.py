#!/usr/bin/python
# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: mwaa_rest_call
short_description: Call Airflow's REST API in an Amazon MWAA environment
version_added: 0.1.0
description:
  - Calls Airflow's REST API through MWAA's InvokeRestApi, which needs IAM permissions and no way to the web server
    (unless that is private).
  - MWAA allows 10 calls a second, 10 seconds and 6 MB for an answer, and paths of 64 characters. Calls are paced, and
    throttled calls repeated. 5xx and broken connections are repeated too, but not for V(POST), which may have taken
    effect.
  - Airflow 2 answers as its API v1, Airflow 3 as its API v2. Both hide passwords. What is read cannot be written back.
  - Needs Airflow 2.4.3 or newer.
options:
  path:
    description:
      - The path without the API's version, such as V(/dags) or V(/variables/name). At most 64 characters.
    type: str
    required: true
  method:
    description:
      - The HTTP method.
    type: str
    choices: [GET, POST, PATCH, PUT, DELETE]
    default: GET
  query:
    description:
      - Query parameters.
    type: dict
  body:
    description:
      - The JSON body. It is never logged or returned, as it may hold secrets.
    type: raw
  all_pages:
    description:
      - Read all pages of a collection, 100 rows each. RV(body) is then the list of all rows.
      - Only with O(method=GET).
    type: bool
    default: false
  status_code:
    description:
      - HTTP statuses that are an answer and no failure, besides 2xx, such as V(404) to look whether something exists.
    type: list
    elements: int
    default: []
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
      - V(GET) is called, all other methods are skipped and said to change something.
  diff_mode:
    support: none
  idempotent:
    support: N/A
    details:
      - Calls are made each time. V(GET) changes nothing, all other methods are said to change something.
seealso:
  - module: mwaa.migration.mwaa_cli_exec
author:
  - mwaa.migration contributors (@mwaa-migration)
"""

EXAMPLES = r"""
- name: All variables' keys
  mwaa.migration.mwaa_rest_call:
    environment: analytics
    path: /variables
    all_pages: true
  register: variables

- name: Is there a pool?
  mwaa.migration.mwaa_rest_call:
    environment: analytics
    path: /pools/etl
    status_code: [404]
  register: pool

- name: Make it
  mwaa.migration.mwaa_rest_call:
    environment: analytics
    method: POST
    path: /pools
    body:
      name: etl
      slots: 8
  when: pool.status == 404
"""

RETURN = r"""
status:
  description: The HTTP status of Airflow's answer.
  returned: when Airflow answered
  type: int
  sample: 200
body:
  description: Airflow's answer. A list of all rows with O(all_pages=true).
  returned: when Airflow answered
  type: raw
  sample:
    total_entries: 1
    pools:
      - name: default_pool
        slots: 128
msg:
  description: Why the call failed, or why it was skipped.
  returned: when it failed or was skipped
  type: str
error:
  description: AWS's error code and request id.
  returned: when AWS refused the call
  type: dict
  contains:
    code:
      description: The error code.
      type: str
      returned: always
      sample: RestApiClientException
    request_id:
      description: The id of the request, for AWS Support.
      type: str
      returned: always
      sample: 6f6d3b0e-8a3c-4a55-9f3c-6f0b3c0f3a11
"""

from ansible_collections.mwaa.migration.plugins.module_utils._aws import run_module
from ansible_collections.mwaa.migration.plugins.module_utils._errors import MigrationError
from ansible_collections.mwaa.migration.plugins.module_utils._mwaa import limits, rest


def body(ctx):
    params = ctx.params
    method, path = params["method"], params["path"]
    if params["all_pages"] and method != "GET":
        raise MigrationError(f"all_pages works only with method GET, not {method}")
    rest.check(method, path, params["environment"])
    if ctx.check_mode and method != "GET":
        return {"changed": True, "skipped": True, "msg": f"check mode: {method} {path} was not called"}
    client = rest.RestClient(ctx.aws.client("mwaa"), params["environment"])
    if params["all_pages"]:
        rows = [row for page in client.pages(path, None, params["query"]) for row in page]
        return {"changed": False, "status": 200, "body": rows}
    reply = client.call(method, path, params["query"], params["body"], ok=tuple(params["status_code"]))
    return {"changed": method != "GET" and reply.status < 300, "status": reply.status, "body": reply.body}


def main():
    run_module(
        {
            "environment": {"type": "str", "required": True},
            "api_host": {"type": "str"},
            "path": {"type": "str", "required": True},
            "method": {"type": "str", "choices": list(limits.REST_METHODS), "default": "GET"},
            "query": {"type": "dict"},
            "body": {"type": "raw", "no_log": True},
            "all_pages": {"type": "bool", "default": False},
            "status_code": {"type": "list", "elements": "int", "default": []},
        },
        body,
    )


if __name__ == "__main__":
    main()
