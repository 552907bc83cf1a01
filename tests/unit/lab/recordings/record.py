# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Record what a real Airflow answers to the steps of a recording: ``PYTHON record.py airflow-2.11.2.json``.

PYTHON is the interpreter of that Airflow (``mwaa-lab install 2.11.2`` makes one). The application runs in process on an
empty SQLite database and the file's answers are written anew; ``test_lab_stub.py`` holds the stub engine to them.
"""

from __future__ import annotations

import base64
import json
import os
import sys
import tempfile
from pathlib import Path

home = Path(tempfile.mkdtemp())
os.environ.update(
    AIRFLOW_HOME=str(home),
    AIRFLOW__CORE__LOAD_EXAMPLES="False",
    AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS="True",
    AIRFLOW__CORE__FERNET_KEY=base64.urlsafe_b64encode(b"1" * 32).decode(),
    AIRFLOW__LOGGING__LOGGING_LEVEL="ERROR",
    AIRFLOW__API__AUTH_BACKENDS="airflow.api.auth.backend.default",
    AIRFLOW__API_AUTH__JWT_SECRET="x" * 64,
    AIRFLOW__WEBSERVER__SECRET_KEY="x",
)
(home / "webserver_config.py").write_text(
    "from flask_appbuilder.const import AUTH_DB\nAUTH_TYPE = AUTH_DB\n"
    "AUTH_ROLE_PUBLIC = 'Admin'\nWTF_CSRF_ENABLED = False\n"
)

from airflow import __version__  # noqa: E402
from airflow.utils.db import upgradedb  # noqa: E402


def client_v1():
    from airflow.www.app import create_app

    app = create_app(testing=True)
    app.config.update(AUTH_ROLE_PUBLIC="Admin", PROPAGATE_EXCEPTIONS=False)
    app.testing = False
    client = app.test_client()

    def call(method, path, query, body):
        given = {} if body is None else {"json": body}
        answer = client.open("/api/v1" + path, method=method, query_string=query, **given)
        return answer.status_code, answer.get_json(silent=True)

    return call


def client_v2():
    from airflow.api_fastapi.app import create_app
    from starlette.testclient import TestClient

    client = TestClient(create_app(), raise_server_exceptions=False)
    token = client.get("/auth/token").json()["access_token"]

    def call(method, path, query, body):
        headers = {"Authorization": f"Bearer {token}"}
        answer = client.request(method, "/api/v2" + path, params=query, json=body, headers=headers)
        try:
            return answer.status_code, answer.json()
        except ValueError:
            return answer.status_code, None

    return call


def main():
    file = Path(sys.argv[1])
    recording = json.loads(file.read_text())
    assert __version__ == recording["airflow"], f"{file} is of Airflow {recording['airflow']}, this is {__version__}"
    upgradedb()
    call = client_v2() if __version__.startswith("3.") else client_v1()
    for step in recording["steps"]:
        step["status"], step["answer"] = call(step["method"], step["path"], step["query"], step["body"])
    lines = ",\n".join("  " + json.dumps(step) for step in recording["steps"])
    file.write_text(f'{{"airflow": "{__version__}", "steps": [\n{lines}\n]}}\n')


main()
