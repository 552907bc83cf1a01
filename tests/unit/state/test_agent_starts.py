# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How the agent is started where there is no REST, and how it is found out what can be called."""

from __future__ import annotations

import functools
import json
import re
from types import SimpleNamespace
from typing import Any

import pytest
from ansible_collections.mwaa.migration.plugins.module_utils._errors import MigrationError
from ansible_collections.mwaa.migration.plugins.module_utils._mwaa import access as access_module
from ansible_collections.mwaa.migration.plugins.module_utils._mwaa.access import Access, reach
from ansible_collections.mwaa.migration.plugins.module_utils._mwaa.cli import CliError, CliResult
from ansible_collections.mwaa.migration.plugins.module_utils._mwaa.rest import RestClient, RestError
from ansible_collections.mwaa.migration.plugins.module_utils._state import agent_starts
from ansible_collections.mwaa.migration.plugins.module_utils._state.agent import AgentLane
from botocore.exceptions import ReadTimeoutError
from fakes import Clock, aws_failure

ID = "r" + "ab12" * 8


class Cli:
    """The command line of Airflow 1.10 or 2.2: answers by command, each once; the last one stays."""

    def __init__(self, **answers: list[Any]):
        self.answers, self.asked = answers, []

    def run(self, command: str) -> CliResult:
        self.asked.append(command)
        words = command.split()
        said = self.answers[words[words[0] == "dags"].replace("-", "_")]
        answer = said.pop(0) if len(said) > 1 else said[0]
        if isinstance(answer, Exception):
            raise answer
        if isinstance(answer, list):
            return CliResult(json.dumps(answer), "", answer, False, "")
        failed = answer.startswith("!")
        return CliResult("" if failed else answer, answer[1:] if failed else "", None, failed, answer[1:] * failed)


def starter(cli: Cli, major: int = 2) -> tuple[agent_starts.ByCli, Clock]:
    clock = Clock()
    return agent_starts.ByCli(cli, "old", major, clock), clock  # type: ignore[arg-type]


def test_the_cli_waits_until_airflow_knows_the_dag_and_asks_slowly() -> None:
    cli = Cli(unpause=["!DagNotFound", "!DagNotFound", "Dag: mwaa_agent, paused: False"])
    by_cli, clock = starter(cli)

    def wait(probe: Any, _describe: Any, _hint: str) -> Any:
        while (value := probe()) is None:
            clock.sleep(1)
        return value

    by_cli.prepare(600, wait)
    assert len(cli.asked) == 3 and clock.now - 1000 >= 2 * agent_starts.CLI_PAUSE


def test_a_trigger_whose_answer_was_lost_is_made_again_under_the_same_id() -> None:
    lost = CliError("the connection broke", maybe_done=True)
    cli = Cli(trigger=[lost, "!DagRunAlreadyExists: A Dag Run already exists for dag id mwaa_agent"])
    starter(cli)[0].trigger(ID, "the run")
    assert cli.asked == [f"""dags trigger -r {ID} -c '{{"request": "{ID}"}}' mwaa_agent"""] * 2


def test_a_trigger_that_surely_failed_is_said_and_not_repeated() -> None:
    cli = Cli(trigger=["!airflow.exceptions.DagNotFound: Dag id mwaa_agent not found in DagModel"])
    with pytest.raises(MigrationError, match="could not be started: .*not found in DagModel"):
        starter(cli)[0].trigger(ID, "the run")
    cli = Cli(trigger=[CliError("the web server does not answer")])
    with pytest.raises(CliError, match="does not answer"):
        starter(cli)[0].trigger(ID, "the run")
    assert len(cli.asked) == 1


def test_the_cli_says_how_a_run_stands() -> None:
    rows = [{"run_id": "other", "state": "failed"}, {"run_id": ID, "state": "running"}]
    by_cli, clock = starter(Cli(list_runs=[rows, "No data found"]))
    assert by_cli.state(ID) == "running"
    assert by_cli.state(ID) is None  # too early to ask again
    clock.sleep(agent_starts.CLI_PAUSE)
    assert by_cli.state(ID) is None


RUNS_OF_1 = f"""

------------------------------------------------------------
DAG RUNS
------------------------------------------------------------
id  | run_id               | state      | execution_date       | state_date           |

7   | {ID} | success    | 2026-11-21T10:00:00+00:00 | 2026-11-21T10:00:01.5+00:00 |
6   | rother | failed     | 2026-11-21T09:00:00+00:00 | 2026-11-21T09:00:01.5+00:00 |
"""


def test_airflow_1_is_asked_in_its_own_words() -> None:
    cli = Cli(
        unpause=[
            "!AttributeError: 'NoneType' object has no attribute 'set_is_paused'",
            "Dag: mwaa_agent, paused: False",
        ],
        trigger_dag=["Created <DagRun mwaa_agent>"],
        list_dag_runs=["No dag runs for mwaa_agent", RUNS_OF_1],
    )
    by_cli, clock = starter(cli, major=1)

    def wait(probe: Any, _describe: Any, _hint: str) -> Any:
        while (value := probe()) is None:
            clock.sleep(1)
        return value

    by_cli.prepare(600, wait)
    by_cli.trigger(ID, "the run")
    clock.sleep(agent_starts.CLI_PAUSE)
    assert by_cli.state(ID) is None
    clock.sleep(agent_starts.CLI_PAUSE)
    assert by_cli.state(ID) == "success"
    conf = f"""'{{"request": "{ID}"}}'"""
    assert cli.asked == [
        *["unpause mwaa_agent"] * 2,
        f"trigger_dag -r {ID} -c {conf} mwaa_agent",
        *["list_dag_runs mwaa_agent"] * 2,
    ]


def test_airflow_1_reads_the_file_on_the_web_server_which_may_see_it_later() -> None:
    unseen = "!airflow.exceptions.DagNotFound: Dag id mwaa_agent not found"
    cli = Cli(trigger_dag=[unseen, unseen, "Created <DagRun mwaa_agent>"])
    starter(cli, major=1)[0].trigger(ID, "the run")
    assert len(cli.asked) == 3
    with pytest.raises(MigrationError, match="could not be started: .*DagNotFound"):
        starter(Cli(trigger_dag=[unseen]), major=1)[0].trigger(ID, "the run")


ENVIRONMENT = {
    "Name": "demo",
    "AirflowVersion": "2.2.2",
    "SourceBucketArn": "arn:aws:s3:::bucket",
    "DagS3Path": "dags/",
    "ExecutionRoleArn": "arn:aws:iam::111122223333:role/execution",
}


@pytest.mark.parametrize(
    ("version", "access", "start"),
    [
        ("2.11.2", Access(True, True, ""), "rest"),
        ("3.2.1", Access(True, True, ""), "rest"),
        ("1.10.12", Access(False, True, ""), "cli"),
        ("2.2.2", Access(False, True, ""), "cli"),
        ("2.2.2", Access(False, False, ""), "schedule"),
        ("3.2.1", Access(False, True, ""), "schedule"),  # its CLI wants other words, and is no way before REST
        ("3.2.1", Access(False, False, ""), "schedule"),
    ],
)
def test_the_start_follows_from_what_can_be_called(version: str, access: Access, start: str) -> None:
    lane = AgentLane(SimpleNamespace(), {**ENVIRONMENT, "AirflowVersion": version}, "key", access=access)
    assert lane.start == start


class Bucket:
    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.written = 0

    def get_object(self, Bucket: str, Key: str) -> dict[str, Any]:
        if Key not in self.objects:
            raise aws_failure("NoSuchKey", status=404)
        return {"Body": SimpleNamespace(read=lambda: self.objects[Key])}

    def put_object(self, Bucket: str, Key: str, Body: bytes) -> None:
        self.objects[Key] = Body
        self.written += 1


def test_the_polling_dag_ends_by_itself_and_is_renewed_only_when_that_is_too_early() -> None:
    bucket, clock = Bucket(), Clock()
    clock.time = clock.monotonic  # type: ignore[attr-defined]
    aws = SimpleNamespace(client=lambda _service: bucket)
    lane = AgentLane(aws, ENVIRONMENT, "key", access=Access(False, False, ""), clock=clock)
    [key] = ["dags/mwaa_migration/mwaa_agent_poll.py"]

    def until() -> int:
        lane.starter.prepare(600, lambda *_all: None)
        return int(re.search(rb'UNTIL = int\("(\d+)"\)', bucket.objects[key])[1])  # type: ignore[index]

    first = until()
    assert first > clock.now + 600 and until() == first and bucket.written == 1
    clock.sleep(first - clock.now - 100)
    assert until() > first and bucket.written == 2


# -- what can be called


class Doors:
    def __init__(self, rest: Any = None, cli: str = ""):
        self.rest, self.cli, self.tried = rest, cli, []
        self.tunnel: str | None = None

    def client(self, _service: str) -> Doors:
        return self


@pytest.fixture
def doors(monkeypatch: pytest.MonkeyPatch) -> Doors:
    found = Doors()

    class Rest:
        def __init__(self, *_all: Any, **_more: Any):
            pass

        def call(self, *_call: Any) -> None:
            found.tried.append("rest")
            if found.rest:
                raise found.rest

    class Command:
        of = staticmethod(lambda *_all: Command())

        def unreachable(self) -> str:
            found.tried.append("cli")
            return found.cli

    monkeypatch.setattr(access_module, "RestClient", Rest)
    monkeypatch.setattr(access_module, "Cli", Command)
    return found


def environment(version: str, mode: str) -> dict[str, Any]:
    return {**ENVIRONMENT, "AirflowVersion": version, "WebserverAccessMode": mode}


def test_a_public_web_server_is_taken_at_its_word(doors: Doors) -> None:
    assert reach(doors, environment("2.11.2", "PUBLIC_ONLY"))[:2] == (True, True)
    assert reach(doors, environment("3.2.1", "PUBLIC_AND_PRIVATE"))[:2] == (True, True)
    old = reach(doors, environment("2.2.2", "PUBLIC_ONLY"))
    assert old[:2] == (False, True) and "begins with 2.4.3" in old.reason
    assert not doors.tried


def test_a_connection_that_breaks_once_is_no_closed_door(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(access_module, "RestClient", functools.partial(RestClient, clock=Clock()))
    failures: list[Exception] = [ReadTimeoutError(endpoint_url="https://env.airflow")]

    def invoke_rest_api(**_call: Any) -> dict[str, Any]:
        if failures:
            raise failures.pop()
        return {"RestApiStatusCode": 200, "RestApiResponse": {}}

    client = SimpleNamespace(invoke_rest_api=invoke_rest_api)
    aws = SimpleNamespace(client=lambda _service: client, tunnel=None)
    assert reach(aws, environment("2.11.2", "PRIVATE_ONLY")).rest


def test_a_private_one_is_tried_once_each_way(doors: Doors) -> None:
    assert reach(doors, environment("2.11.2", "PRIVATE_ONLY"))[:2] == (True, True)
    assert doors.tried == ["rest"]
    doors.rest = RestError("AWS denied it", code="AccessDeniedException")
    assert reach(doors, environment("2.11.2", "PRIVATE_ONLY"))[:2] == (False, True)
    doors.cli, doors.tried = "cannot connect", []
    closed = reach(doors, environment("3.2.1", "PRIVATE_ONLY"))
    assert closed[:2] == (False, False) and "cannot be reached: AWS denied it" in closed.reason
    assert doors.tried == ["rest", "cli"]
    doors.tunnel = "http://127.0.0.1:1"
    assert "cannot be reached through api_host" in reach(doors, environment("3.2.1", "PRIVATE_ONLY")).reason


@pytest.mark.parametrize(
    "error",
    [
        RestError("Airflow answered 503", status=503, code="RestApiServerException"),
        RestError("throttled", code="ThrottlingException"),
    ],
)
def test_a_door_that_answers_badly_is_there(doors: Doors, error: RestError) -> None:
    doors.rest = error
    assert reach(doors, environment("2.11.2", "PRIVATE_ONLY")).rest
