# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The environments' web server over TLS: the CLI endpoint, its tokens and limits, and the login for REST sessions."""

from __future__ import annotations

import base64
import http.client
import json
import ssl
from typing import Any
from urllib.parse import urlencode

import pytest

pytestmark = pytest.mark.lab


def send(lab: Any, method: str, path: str, body: str = "", **headers: str) -> tuple[int, Any, dict[str, str]]:
    context = ssl.create_default_context(cafile=str(lab.ca))
    connection = http.client.HTTPSConnection("127.0.0.1", lab.tls, context=context)
    connection.request(method, path, body=body.encode(), headers={key.title(): value for key, value in headers.items()})
    answer = connection.getresponse()
    text = answer.read()
    return answer.status, json.loads(text) if text else None, dict(answer.getheaders())


def command(lab: Any, mwaa: Any, name: str, line: str, path: str = "/aws_mwaa/cli") -> tuple[int, str, str]:
    token = mwaa.create_cli_token(Name=name)["CliToken"]
    status, answer, _ = send(lab, "POST", path, line, authorization=f"Bearer {token}")
    if status != 200:
        return status, "", answer["message"]
    return status, *(base64.b64decode(answer[key]).decode() for key in ("stdout", "stderr"))


def test_a_command_and_its_output(lab, base, mwaa):
    name = base.environment(AirflowVersion="2.11.2")
    assert command(lab, mwaa, name, "version") == (200, "2.11.2\n", "")
    assert command(lab, mwaa, name, "variables set greeting 'hello there'")[:2] == (200, "Variable greeting created\n")
    assert command(lab, mwaa, name, "variables get greeting")[1] == "hello there\n"
    assert json.loads(command(lab, mwaa, name, "variables list -o json")[1]) == [{"key": "greeting"}]
    # A failed command is a 200 too: there is no exit code.
    assert command(lab, mwaa, name, "variables get nothing")[0::2] == (200, "Variable nothing does not exist\n")


def test_airflow_3_redirects_to_the_slash(lab, base, mwaa):
    name = base.environment(AirflowVersion="3.2.1")
    token = mwaa.create_cli_token(Name=name)["CliToken"]
    status, _, headers = send(lab, "POST", "/aws_mwaa/cli", "version", authorization=f"Bearer {token}")
    assert (status, headers["location"]) == (307, "/aws_mwaa/cli/")
    assert command(lab, mwaa, name, "version", "/aws_mwaa/cli/") == (200, "3.2.1\n", "")


@pytest.mark.parametrize(
    ("version", "line"),
    [
        ("2.11.2", "db migrate"),
        ("2.11.2", "pools list"),
        ("2.11.2", "variables export -"),
        ("2.11.2", "backfill create"),
        ("3.2.1", "tasks run a b c"),
        ("3.2.1", "users list"),
    ],
)
def test_commands_that_mwaa_does_not_run(lab, base, mwaa, version, line):
    name = base.environment(AirflowVersion=version)
    status, _, message = command(lab, mwaa, name, line, "/aws_mwaa/cli/")
    assert (status, message) == (500, f"sub command not allowed: {' '.join(line.split()[:2])}")


def test_tokens_are_for_one_thing_and_one_minute(lab, base, mwaa):
    name = base.environment(AirflowVersion="2.11.2")
    web, cli = mwaa.create_web_login_token(Name=name)["WebToken"], mwaa.create_cli_token(Name=name)["CliToken"]
    for token in ("", "nonsense", web):
        assert send(lab, "POST", "/aws_mwaa/cli", "version", authorization=f"Bearer {token}")[0] == 403
    for _ in range(2):  # within its minute a token can be used again
        assert send(lab, "POST", "/aws_mwaa/cli", "version", authorization=f"Bearer {cli}")[0] == 200
    lab.admin("POST", "expire-tokens")
    assert send(lab, "POST", "/aws_mwaa/cli", "version", authorization=f"Bearer {cli}")[0] == 403
    assert send(lab, "POST", "/aws_mwaa/login", urlencode({"token": web}))[0] == 403


@pytest.mark.parametrize(
    ("version", "login", "cookie", "api"),
    [
        ("2.11.2", "/aws_mwaa/login", "session", "/api/v1"),
        ("3.2.1", "/pluginsv2/aws_mwaa/login", "_token", "/api/v2"),
    ],
)
def test_a_web_login_opens_the_rest_api(lab, base, mwaa, version, login, cookie, api):
    name = base.environment(AirflowVersion=version)
    token = mwaa.create_web_login_token(Name=name)["WebToken"]
    status, _, headers = send(lab, "POST", login, urlencode({"token": token}))
    key, _, value = headers["set-cookie"].partition(";")[0].partition("=")
    assert (status, key) == (200, cookie)
    credentials = {"cookie": f"session={value}"} if cookie == "session" else {"authorization": f"Bearer {value}"}
    status, answer, _ = send(lab, "GET", f"{api}/version", **credentials)
    assert (status, answer["version"]) == (200, version)
    # No limit of 64 characters on this way.
    assert send(lab, "GET", f"{api}/variables/{'x' * 80}", **credentials)[0] == 404
    assert send(lab, "GET", f"{api}/version")[0] == 401
    lab.admin("POST", "expire-tokens")
    assert send(lab, "GET", f"{api}/version", **credentials)[0] == 401


def test_the_certificate_is_the_labs_own(lab):
    with pytest.raises(ssl.SSLCertVerificationError):
        http.client.HTTPSConnection("127.0.0.1", lab.tls, context=ssl.create_default_context()).request("GET", "/")
