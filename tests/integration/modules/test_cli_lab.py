# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""mwaa_cli_exec against the lab's web server: TLS, tokens, four at once, refused commands."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

pytestmark = pytest.mark.lab


@pytest.fixture(scope="module", params=["2.11.2", "3.2.1"])
def name(base: Any, request: pytest.FixtureRequest) -> str:
    return base.environment(AirflowVersion=request.param)


@pytest.fixture
def run(run_module: Any, lab: Any, name: str) -> Any:
    def command(line: str, **options: Any) -> dict[str, Any]:
        return run_module("mwaa_cli_exec", environment=name, command=line, ca_path=str(lab.ca), **options)

    return command


def test_commands(run: Any) -> None:
    version = run("version")
    assert not version["changed"] and version["stdout"].strip() in ("2.11.2", "3.2.1")
    assert run("variables set greeting 'good morning'")["changed"]
    assert run("variables get greeting")["stdout"] == "good morning\n"
    listed = run("variables list -o json")
    assert listed["json"] == [{"key": "greeting"}]
    missing = run("variables get nope")
    assert missing["failed"] and missing["msg"].endswith("Variable nope does not exist")


def test_check_mode(run: Any) -> None:
    assert run("variables set greeting x", check=True)["skipped"]
    assert run("version", check=True)["stdout"]


def test_what_mwaa_does_not_run(run: Any) -> None:
    result = run("pools list")
    assert result["failed"] and "MWAA does not support this command" in result["msg"]


def test_secrets_are_masked(run: Any) -> None:
    results = [
        run("variables set token CANARY-variable-09090909"),
        run("connections add db --conn-type postgres --conn-password CANARY-password-09090909"),
        run("connections add db --conn-type postgres --conn-password CANARY-password-09090909"),
    ]
    assert [result["changed"] for result in results[:2]] == [True, True] and results[2]["failed"]
    assert "CANARY" not in json.dumps(results)


def test_an_untrusted_certificate(run_module: Any, name: str) -> None:
    result = run_module("mwaa_cli_exec", environment=name, command="version")
    assert result["failed"] and "is not trusted" in result["msg"] and "set ca_path" in result["msg"]


def test_ten_at_once_all_succeed(lab: Any, aws: Any, name: str) -> None:
    from ansible_collections.mwaa.migration.plugins.module_utils._mwaa.cli import Cli

    lab.admin("POST", "stub", {"cli_seconds": 0.3})
    others = [Cli(aws.client("mwaa"), name, ca_path=str(lab.ca)) for _number in range(10)]
    with ThreadPoolExecutor(10) as pool:
        results = list(pool.map(lambda one: one.run("version"), others))
    assert not any(result.failed for result in results)


def test_an_environment_that_is_not_there(run_module: Any) -> None:
    result = run_module("mwaa_cli_exec", environment="nowhere", command="version")
    assert "cannot get a CLI token for environment nowhere: it does not exist" in result["msg"]
