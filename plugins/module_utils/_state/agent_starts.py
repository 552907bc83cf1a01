# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Three ways to have the agent's DAG run: by REST, by the CLI, by its own schedule.

PRIVATE to the collection: no promise is made to other collections.

Whichever it is, the run's id is the request's id, and Airflow's database has a run id only once: that keeps a request
single use, and makes triggering it again harmless.
"""

from __future__ import annotations

import contextlib
import json
import shlex
import time
from collections.abc import Callable
from typing import Any, Protocol

from ansible_collections.mwaa.migration.plugins.module_utils._errors import MigrationError
from ansible_collections.mwaa.migration.plugins.module_utils._mwaa.cli import Cli, CliError
from ansible_collections.mwaa.migration.plugins.module_utils._mwaa.rest import RestClient, RestError
from ansible_collections.mwaa.migration.plugins.module_utils._progress import progress

DAG_ID, POLL_DAG_ID, TASK_ID = "mwaa_agent", "mwaa_agent_poll", "t"
TRIES = 5  # of a trigger whose answer was lost
CLI_PAUSE = 15.0  # seconds between two questions by CLI: each starts an Airflow on the web server
COMMANDS = {  # by major version; from 3 on there is REST
    1: {"unpause": "unpause", "trigger": "trigger_dag", "runs": "list_dag_runs"},
    2: {"unpause": "dags unpause", "trigger": "dags trigger", "runs": "dags list-runs -o json -d"},
}

Wait = Callable[[Callable[[], Any], Callable[[], str], str], Any]
"""(probe, describe, hint): AgentLane's wait for what precedes a run."""


class Starter(Protocol):
    delay: float  # seconds that a run may take to begin, beyond what the caller expects
    hint: str  # where to look when a run did not answer in time

    def prepare(self, timeout: float, wait: Wait) -> None:
        """Return when runs can be started. timeout: seconds that this should be so."""

    def trigger(self, identifier: str, what: str) -> None:
        """Start the run of a request, or see that it was started."""

    def state(self, identifier: str) -> str | None:
        """The run's state; None when nobody can say."""

    def refusal(self, identifier: str) -> str | None:
        """Why the agent did not serve the request, as its code; None when it did not say."""


class ByRest:
    delay = 0.0

    def __init__(self, rest: RestClient, environment: str, major: int, stamp: str, file: str):
        self.rest, self.environment, self.major, self.stamp, self.file = rest, environment, major, stamp, file
        self.hint = f"look at the task log of {DAG_ID} and at the workers of {environment}"

    def prepare(self, timeout: float, wait: Wait) -> None:
        wait(
            self._parsed,
            lambda: f"environment {self.environment}: waiting for Airflow to see the agent's DAG",
            f"look at the log group airflow-{self.environment}-DAGProcessing for {self.file}",
        )

    def _parsed(self) -> bool | None:
        reply = self.rest.call("GET", f"/dags/{DAG_ID}", ok=(404,))
        if reply.status == 404:
            self._raise_import_error()
            return None
        dag = reply.body or {}
        if dag.get("is_active") is False or dag.get("is_stale") is True:
            return None
        if not any(str(owner).strip() == f"mwaa_migration_{self.stamp}" for owner in dag.get("owners") or ()):
            self._raise_import_error()
            return None  # it is the file of before
        if dag.get("is_paused"):
            self.rest.call("PATCH", f"/dags/{DAG_ID}", {"update_mask": "is_paused"}, {"is_paused": False})
        return True

    def _raise_import_error(self) -> None:
        body = self.rest.call("GET", "/importErrors", {"limit": 100}, ok=(403, 404)).body or {}
        for error in body.get("import_errors") or []:
            if str(error.get("filename", "")).endswith(self.file):
                text = str(error.get("stack_trace", "")).strip().splitlines()
                raise MigrationError(f"Airflow cannot import the agent's DAG {self.file}: {(text or ['?'])[-1]}")

    def trigger(self, identifier: str, what: str) -> None:
        body: dict[str, Any] = {"dag_run_id": identifier, "conf": {"request": identifier}}
        if self.major >= 3:
            body["logical_date"] = None  # required there, and null is "now"
        for attempt in range(TRIES):
            try:
                self.rest.call("POST", f"/dags/{DAG_ID}/dagRuns", body=body, ok=(409,))
                return
            except RestError as error:
                if not error.maybe_done or attempt == TRIES - 1:
                    raise
                progress(f"{what}: the trigger was not answered, looking whether it arrived")
                with contextlib.suppress(RestError):  # the id is in Airflow once: a second trigger does no harm
                    if self.rest.call("GET", f"/dags/{DAG_ID}/dagRuns/{identifier}", ok=(404,)).status != 404:
                        return

    def state(self, identifier: str) -> str | None:
        reply = self.rest.call("GET", f"/dags/{DAG_ID}/dagRuns/{identifier}", ok=(404,), budget=0)
        return (reply.body or {}).get("state") if reply.status != 404 else None

    def refusal(self, identifier: str) -> str | None:
        # by the names of the XComs of all runs: the path of a value has no room for the id
        path = f"/dags/{DAG_ID}/dagRuns/~/taskInstances/{TASK_ID}/xcomEntries"
        for page in self.rest.pages(path, "xcom_entries"):
            for entry in page:
                name, _dot, code = str(entry.get("key")).partition(".")
                if name == identifier:
                    return code
        return None


class ByCli:
    """Before 2.4.3. The CLI returns no exit code; its triggers are judged by what they print."""

    delay = 60.0

    def __init__(self, cli: Cli, environment: str, major: int, clock: Any = time):
        self.cli, self.environment, self.major, self._clock = cli, environment, major, clock
        self.commands = COMMANDS[major]
        self.hint = f"look at the task log of {DAG_ID} and at the workers of {environment}"
        self._asked_at, self._said = float("-inf"), ""

    def _slowly(self) -> bool:
        """Whether it is time for another question."""
        if self._clock.monotonic() - self._asked_at < CLI_PAUSE:
            return False
        self._asked_at = self._clock.monotonic()
        return True

    def prepare(self, timeout: float, wait: Wait) -> None:
        def unpaused() -> bool | None:
            if not self._slowly():
                return None
            answer = self.cli.run(f"{self.commands['unpause']} {DAG_ID}")  # says so, too, when it is not paused
            self._said = answer.reason
            return None if answer.failed or DAG_ID not in answer.stdout else True

        wait(
            unpaused,
            lambda: f"environment {self.environment}: waiting for Airflow to see the agent's DAG",
            f"look at the log group airflow-{self.environment}-DAGProcessing for {DAG_ID}",
        )

    def trigger(self, identifier: str, what: str) -> None:
        conf = shlex.quote(json.dumps({"request": identifier}))
        for attempt in range(TRIES):
            try:
                answer = self.cli.run(f"{self.commands['trigger']} -r {identifier} -c {conf} {DAG_ID}")
            except CliError as error:
                if not error.maybe_done or attempt == TRIES - 1:
                    raise
                progress(f"{what}: the trigger was not answered, trying again")
                continue
            if self.major < 2 and f"Dag id {DAG_ID} not found" in answer.reason and attempt < TRIES - 1:
                # 1.10 reads the DAG's file where the command runs, which may see the bucket later than the scheduler
                progress(f"{what}: waiting for the web server to see the agent's DAG")
                self._clock.sleep(CLI_PAUSE)
                continue
            if answer.failed and "already exists" not in answer.reason.lower():
                raise MigrationError(f"{what} could not be started: {answer.reason}")
            return

    def state(self, identifier: str) -> str | None:
        if not self._slowly():
            return None
        answer = self.cli.run(f"{self.commands['runs']} {DAG_ID}")
        for row in _printed(answer.stdout) if self.major < 2 else answer.parsed or []:
            if isinstance(row, dict) and row.get("run_id") == identifier:
                return row.get("state")
        return None

    def refusal(self, identifier: str) -> str | None:
        return None


def _printed(text: str) -> list[dict[str, str]]:
    """The runs in what Airflow 1.10 prints for people: id | run_id | state | execution_date | start date |"""
    rows = [[cell.strip() for cell in line.split("|")] for line in text.splitlines()]
    return [{"run_id": row[1], "state": row[2]} for row in rows if len(row) == 6]


class BySchedule:
    """Nothing can be called: a DAG that runs every minute looks for requests. Only the answer tells."""

    delay = 600.0  # a new DAG file is seen after about 300 s [UG mwaa-faqs], then it runs every minute

    def __init__(self, environment: str, install: Callable[[float], None]):
        self._install = install
        self.hint = (
            f"{environment} cannot be called from here, so that Airflow alone knows: look at the log groups"
            f" airflow-{environment}-DAGProcessing and -Task for {POLL_DAG_ID} and {DAG_ID}, which must not be paused,"
            " or set api_host to a host inside the VPC"
        )

    def prepare(self, timeout: float, wait: Wait) -> None:
        self._install(timeout + self.delay)

    def trigger(self, identifier: str, what: str) -> None:
        progress(f"{what}: waiting for {POLL_DAG_ID}, which starts it by its schedule")

    def state(self, identifier: str) -> str | None:
        return None

    def refusal(self, identifier: str) -> str | None:
        return None
