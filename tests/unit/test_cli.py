# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""mwaa_cli_exec and the client under it: tokens, redirects, what is repeated, and failure without an exit code."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from ansible_collections.mwaa.migration.plugins.module_utils._errors import MigrationError
from ansible_collections.mwaa.migration.plugins.module_utils._mwaa import cli
from ansible_collections.mwaa.migration.plugins.module_utils._mwaa.cli import Answer, Cli, NotSent
from fakes import Clock

HOST = "web.example"


class FakeMwaa:
    def __init__(self) -> None:
        self.tokens = 0

    def create_cli_token(self, Name: str) -> dict[str, str]:  # noqa: N803
        self.tokens += 1
        return {"CliToken": f"CANARY-token-{self.tokens:08x}", "WebServerHostname": HOST}


class Web:
    """A web server: answers in the order they are given, each an Answer or an exception."""

    def __init__(self, *answers: Any):
        self.answers = list(answers)
        self.requests: list[tuple[str, str, bytes]] = []

    def __call__(self, url: str, headers: dict[str, str], body: bytes) -> Answer:
        self.requests.append((url, headers["Authorization"], body))
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


def said(stdout: str = "", stderr: str = "") -> Answer:
    body = {"stdout": base64.b64encode(stdout.encode()).decode(), "stderr": base64.b64encode(stderr.encode()).decode()}
    return Answer(200, {}, json.dumps(body).encode())


def http(status: int, body: str = "", **headers: str) -> Answer:
    return Answer(status, headers, body.encode())


def run(command: str, *answers: Any) -> tuple[cli.CliResult, Web, FakeMwaa]:
    web, mwaa = Web(*answers), FakeMwaa()
    return Cli(mwaa, "demo", post=web, clock=Clock()).run(command), web, mwaa


def test_a_command() -> None:
    result, web, _mwaa = run("dags list -o json", said('[{"dag_id": "daily"}]', "a warning"))
    assert result == ('[{"dag_id": "daily"}]', "a warning", [{"dag_id": "daily"}], False, "")
    assert web.requests == [(f"https://{HOST}/aws_mwaa/cli", "Bearer CANARY-token-00000001", b"dags list -o json")]


def test_json_after_warnings_is_found() -> None:
    result, _web, _mwaa = run(
        "dags list -o json", said('[2026-01-01] INFO - loading\n[{"dag_id": "a"},\n {"dag_id": "b"}]\n')
    )
    assert [row["dag_id"] for row in result.parsed] == ["a", "b"]


def test_redirects_are_posted_again_to_the_same_host_only() -> None:
    _result, web, _mwaa = run("version", http(307, Location="/aws_mwaa/cli/"), said("3.2.1"))
    assert [url for url, _token, _body in web.requests] == [
        f"https://{HOST}/aws_mwaa/cli",
        f"https://{HOST}/aws_mwaa/cli/",
    ]
    assert web.requests[1][2] == b"version"
    for location in ("https://evil.example/aws_mwaa/cli", f"http://{HOST}/aws_mwaa/cli", f"https://{HOST}:8443/"):
        with pytest.raises(MigrationError, match="the token is not sent there"):
            run("version", http(308, Location=location))
    with pytest.raises(MigrationError, match="would lose the command"):
        run("version", http(302, Location="/login"))
    with pytest.raises(MigrationError, match="in a circle"):
        run("version", *[http(307, Location="/aws_mwaa/cli")] * 5)


def test_too_many_at_once_is_repeated_with_a_token_of_its_own() -> None:
    _result, web, mwaa = run("variables set a b", http(503), http(503), said("Variable a created"))
    assert mwaa.tokens == 3 and len({token for _url, token, _body in web.requests}) == 3


def test_a_token_that_expired_is_renewed_once() -> None:
    result, _web, mwaa = run("version", http(403), said("2.11.2"))
    assert result.stdout == "2.11.2" and mwaa.tokens == 2
    with pytest.raises(MigrationError, match="does not accept the token"):
        run("version", http(403), http(403), said("never"))


@pytest.mark.parametrize("failure", [ConnectionResetError("reset"), http(502, "Bad Gateway")])
def test_a_broken_answer_is_repeated_only_for_commands_that_read(failure: Any) -> None:
    assert run("dags list", failure, said("ok"))[0].stdout == "ok"
    with pytest.raises(MigrationError, match="may have taken effect"):
        run("dags trigger daily", failure, said("twice"))


def test_a_web_server_out_of_reach() -> None:
    with pytest.raises(MigrationError, match="inside its VPC"):
        run("version", *[NotSent("timed out")] * 3, said("never"))


def test_a_command_that_mwaa_does_not_know() -> None:
    with pytest.raises(MigrationError, match="does not support this command.*mwaa_rest_call"):
        run("pools import pools.json", http(500, "<h1>sub command not allowed</h1>"))


def test_an_answer_that_is_no_mwaa() -> None:
    with pytest.raises(MigrationError, match="did not answer as MWAA"):
        run("version", http(200, "<html>Log in</html>"))


CRASH = """/usr/lib/x.py:3 RemovedInAirflow3Warning: this is deprecated
Traceback (most recent call last):
  File "/usr/bin/airflow", line 8, in <module>
    sys.exit(main())
ValueError: first

During handling of the above exception, another exception occurred:

Traceback (most recent call last):
  File "/usr/lib/airflow/cli.py", line 9
airflow.exceptions.DagNotFound: Dag id nope not found in DagModel
"""
BROKEN_DAG = """[2026-01-01T00:00:00.000+0000] {dagbag.py:387} ERROR - Failed to import: /usr/local/airflow/dags/bad.py
Traceback (most recent call last):
  File "/usr/local/airflow/dags/bad.py", line 1, in <module>
    raise ValueError("broken file")
ValueError: broken file
Error: Failed to load all files. For details, run `airflow dags list-import-errors`
"""


@pytest.mark.parametrize(
    ("stdout", "stderr", "reason"),
    [
        ("", "Variable nope does not exist\n", "Variable nope does not exist"),
        (
            "",
            "x.py:22 RemovedInAirflow3Warning: old\n\nairflow command error: unrecognized arguments: x",
            None,
        ),
        ("", "usage: airflow dags list [-h]\nairflow dags list: error: unrecognized arguments: --nope", None),
        ("", CRASH, "airflow.exceptions.DagNotFound: Dag id nope not found in DagModel"),
        ("", BROKEN_DAG + CRASH, "airflow.exceptions.DagNotFound: Dag id nope not found in DagModel"),
        ("", "A connection with `conn_id`=db already exists.", None),
        ("", "Did not find a connection with `conn_id`=db", None),
        ("", "Configuration '{bad' is not valid JSON. Error: Expecting property name", None),
        ("", "Can not find dag 'nope'", None),
        ("Role named 'nope' does not exist", "", None),
    ],
)
def test_failure_is_told_from_the_output(stdout: str, stderr: str, reason: str | None) -> None:
    said = cli.judge(stdout, stderr)
    assert said and (reason is None or said == reason)


@pytest.mark.parametrize(
    ("stdout", "stderr"),
    [
        ("2.11.2", ""),
        ("ok", "/usr/lib/x.py:3: RemovedInAirflow3Warning: this is deprecated and not found to be useful"),
        ("Variable a created", ""),
        ("Dag: daily, paused: False", "[2026-01-01T00:00:00] {dagbag.py:545} INFO - Filling up the DagBag"),
        ("good", BROKEN_DAG),
        (BROKEN_DAG + "good", ""),
        ('[{"dag_id": "x", "error": "Traceback (most recent call last):\\nValueError: no"}]', ""),
        ("No data found", ""),
        ("No paused DAGs were found", ""),
    ],
)
def test_what_is_no_failure(stdout: str, stderr: str) -> None:
    assert cli.judge(stdout, stderr) == ""


def test_what_reads_and_what_writes() -> None:
    reads = [
        "version",
        "dags list -o json",
        "variables get x",
        "tasks state d t 2026-01-01",
        "db clean --dry-run -y",
        "dags trigger -h",
    ]
    writing = [
        "variables set a b",
        "dags trigger d",
        "db clean -y",
        "connections add x",
        "tasks test d t",
        "something new",
    ]
    assert not any(cli.writes(command) for command in reads)
    assert all(cli.writes(command) for command in writing)


def test_the_secrets_of_a_command() -> None:
    assert cli.secrets("variables set key 'two words' -j") == {"two words"}
    assert cli.secrets("connections add db --conn-type http --conn-password p1 --conn-extra='{\"a\": 1}'") == {
        "p1",
        '{"a": 1}',
    }
    assert cli.secrets("dags list") == set()
    with pytest.raises(MigrationError, match="a quote is not closed"):
        cli.secrets("variables set a 'b")


def cli_module(
    run_module: Any, monkeypatch: pytest.MonkeyPatch, command: str, *answers: Any, check: bool = False
) -> tuple[dict[str, Any], Web]:
    web = Web(*answers)
    monkeypatch.setattr(cli, "_poster", lambda *_settings: web)
    options = {"environment": "demo", "command": command}
    return run_module("mwaa_cli_exec", options, {"mwaa": FakeMwaa()}, check=check), web


def test_the_module_returns_what_was_said(run_module: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    result, _web = cli_module(run_module, monkeypatch, "version", said("version 2.11.2\n"))
    assert not result["changed"]
    assert (result["stdout"], result["json"], result["subcommand"]) == ("version 2.11.2\n", None, "version")


def test_the_module_skips_in_check_mode_what_writes(run_module: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    result, web = cli_module(run_module, monkeypatch, "dags unpause daily", check=True)
    assert (
        result["skipped"]
        and result["changed"]
        and "airflow dags unpause was not run" in result["msg"]
        and web.requests == []
    )
    result, web = cli_module(run_module, monkeypatch, "dags list", said("daily"), check=True)
    assert result["stdout"] == "daily" and not result["changed"]


def test_the_module_fails_with_the_commands_own_words_and_keeps_the_output(
    run_module: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    result, _web = cli_module(run_module, monkeypatch, "variables get nope", said("", "Variable nope does not exist\n"))
    assert (
        result["failed"]
        and result["msg"] == "airflow variables get failed in environment demo: Variable nope does not exist"
    )
    assert result["stderr"] == "Variable nope does not exist\n"


def test_unpausing_again_changes_nothing(run_module: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = [said("Dag: daily, paused: False"), said("No paused DAGs were found")]
    changed = [cli_module(run_module, monkeypatch, "dags unpause daily", answer)[0]["changed"] for answer in answers]
    assert changed == [True, False]


def test_secrets_of_a_command_are_masked_everywhere(run_module: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    secret = "CANARY-value-03030303"
    result, web = cli_module(
        run_module, monkeypatch, f"variables set k {secret}", said(f"Variable k created: {secret}")
    )
    assert secret.encode() in web.requests[0][2] and result["changed"]
    assert "CANARY" not in json.dumps(result)
