# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""History of real Airflows into real environments of other versions, by the playbook.

Afterwards Airflow itself is asked: REST API and UI show every run, and the environment's scheduler goes on where the
source's left off. The tests of a pair run in their order.
"""

from __future__ import annotations

import datetime
import hashlib
import html
import json
import re
import time
from collections.abc import Iterator
from http.cookiejar import CookieJar
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlencode
from urllib.request import HTTPCookieProcessor, build_opener

import pytest
from conftest import Lab, Play, wait_for
from mwaa_lab.airflow import mariadb
from mwaa_lab.labdir import LabDir, LabError
from mwaa_lab.seeds import eras
from mwaa_lab.source import Source

pytestmark = pytest.mark.e2e

PAIRS = [
    ("2.10.3", "postgresql", "2.11.2"),
    ("1.10.15", "postgresql", "2.11.2"),
    ("2.2.2", "postgresql", "2.10.3"),
    ("2.0.2", "postgresql", "2.10.3"),
    ("1.10.12", "postgresql", "2.5.1"),
    ("2.5.1", "sqlite", "2.10.3"),
    ("2.10.3", "mariadb", "2.11.2"),
]
STEP = datetime.timedelta(minutes=2)
# ticks: due again while the migration lasts. quiet: had its last interval, and catches nothing up. stumbles: tried
# twice, and failed.
DAGS = """
from datetime import datetime, timedelta
from airflow import DAG
from airflow.operators.bash import BashOperator
from airflow.operators.python import PythonOperator

START = datetime({start:%Y, %m, %d, %H, %M})

with DAG(dag_id="ticks", start_date=START, schedule="*/2 * * * *", catchup=True, max_active_runs=1) as ticks:
    BashOperator(task_id="say", bash_command="echo {{{{ ts }}}}")

with DAG(dag_id="quiet", start_date=datetime(2024, 1, 1), schedule="@hourly", catchup=False) as quiet:
    BashOperator(task_id="say", bash_command="echo {{{{ ts }}}}")

with DAG(
    dag_id="stumbles",
    start_date=datetime(2024, 1, 1),
    schedule="@once",
    default_args={{"retries": 1, "retry_delay": timedelta(seconds=1)}},
) as stumbles:
    second = BashOperator(task_id="second", bash_command="test {{{{ ti.try_number }}}} -gt 1")
    found = PythonOperator(task_id="found", python_callable=lambda: {{"names": ["\u00fc", None], "part": 0.1}})
    found >> second >> BashOperator(task_id="never", bash_command="exit 1")
"""
NAME = "analytics-lab"  # of the lab's inventory
PASSWORD = "a word that is no secret"  # noqa: S105
OURS = ("ticks", "quiet", "stumbles")


def moment(text: str) -> datetime.datetime:
    """A date of a database or of the API, which is UTC where it names no zone."""
    found = datetime.datetime.fromisoformat(text.strip().replace("Z", "+00:00"))
    return found if found.tzinfo else found.replace(tzinfo=datetime.timezone.utc)


class Pair:
    """A source that has run, and the environment that its history is brought into."""

    def __init__(self, lab: Lab, source: str, database: str, target: str):
        self.lab, self.target = lab, target
        self.report = lab.folder / "report.json"
        self.ended = lab.day_of(target)
        days = ("--as-of", self.ended) if self.ended else ()
        lab.up("--source", source, "--source-database", database, "--seed-data", "none", *days)
        self.airflow = Source(LabDir(lab.folder)).airflow()
        self._run_dags()
        self.runs = self._runs()
        self.last = {dag: max(date for date, _state in self.runs[dag].values()) for dag in OURS}

    # -- the source

    def sql(self, statement: str) -> list[list[str]]:
        return [row.split("|") for row in self.airflow.database.sql(statement).splitlines() if row]

    def _run_dags(self) -> None:
        """Our DAGs run at the source, and are paused there, as at a cut-over. A run of ticks that is under way then is
        not carried, and the last: one runs at a time.
        """
        start = datetime.datetime.now(datetime.timezone.utc) - 6 * STEP
        (self.airflow.home / "dags/ours.py").write_text(eras.words(self.airflow.row, DAGS.format(start=start)))
        wanted = {"ticks": 3, "quiet": 1, "stumbles": 1}
        names = ", ".join(f"'{dag}'" for dag in OURS)

        def ended() -> bool:
            rows = self.sql("select dag_id, count(*) from dag_run where state in ('success', 'failed') group by dag_id")
            found = {dag: int(count) for dag, count in rows}
            return all(found.get(dag, 0) >= count for dag, count in wanted.items())

        wait_for(
            lambda: len(self.sql(f"select 1 from dag where dag_id in ({names})")) == len(OURS), 400, "ours.py is parsed"
        )
        self.sql(f"update dag set is_paused = false where dag_id in ({names})")
        wait_for(ended, 400, "the source has run our DAGs")
        self.sql(f"update dag set is_paused = true where dag_id in ({names})")
        # What the scheduler had in hand by then may still start a task; two beats on, it has not.
        for _number in range(2):
            last = self._beat()
            wait_for(lambda last=last: self._beat() != last, 200, "the scheduler's next beat")
        if self.airflow.row.since(2, 2):  # runs of paused DAGs end when their tasks have, within a minute
            wait_for(lambda: not self._ending(), 300, "the runs under way end")

    def _ending(self) -> list[list[str]]:
        return self.sql(
            "select r.run_id from dag_run r join task_instance t on r.dag_id = t.dag_id and r.run_id = t.run_id"
            " where r.state = 'running' and t.state in ('queued', 'running', 'success', 'failed')"
        )

    def _beat(self) -> list[list[str]]:
        return self.sql("select max(latest_heartbeat) from job where job_type = 'SchedulerJob'")

    def _runs(self) -> dict[str, dict[str, tuple[datetime.datetime, str]]]:
        """{DAG: {run that has ended: (logical date, state)}}"""
        found: dict[str, dict[str, tuple[datetime.datetime, str]]] = {}
        ended = "select dag_id, run_id, execution_date, state from dag_run where state in ('success', 'failed')"
        for dag, run, date, state in self.sql(ended):
            found.setdefault(dag, {})[run] = (moment(date), state)
        return found

    def tries(self) -> dict[tuple[str, str], tuple[int, str]]:
        """{(run, task): (tries, state)} of stumbles."""
        joined = "r.run_id = t.run_id" if self.airflow.row.since(2, 2) else "r.execution_date = t.execution_date"
        rows = self.sql(
            "select r.run_id, t.task_id, t.try_number, t.state from task_instance t join dag_run r"
            f" on r.dag_id = t.dag_id and {joined} where t.dag_id = 'stumbles'"
        )
        return {(run, task): (int(number), state) for run, task, number, state in rows}

    # -- the environment

    def migrate(self, *words: str) -> Play:
        given = {"migration_airflow_version": self.target, "migration_deploy": "direct", "migration_history": True}
        given["rehearsal_report"] = str(self.report)
        if self.ended:
            given["preflight_fail_on"] = "never"
        return self.lab.play("rehearse.yml", "-e", json.dumps(given), *words)

    def rest(self, method: str, path: str, query: dict[str, Any] | None = None, body: Any = None) -> Any:
        mwaa = self.lab.client("mwaa")
        given: dict[str, Any] = {"QueryParameters": query} if query else {}
        if body is not None:
            given["Body"] = body
        for _attempt in range(10):
            try:
                answer = mwaa.invoke_rest_api(Name=NAME, Method=method, Path=path, **given)
                return answer["RestApiResponse"]
            except mwaa.exceptions.RestApiServerException as error:  # a busy machine: not within 10 s
                last = error
                time.sleep(1)
        raise last

    def shown(self, dag: str) -> dict[str, tuple[datetime.datetime, str]]:
        """The environment's runs as the source's are told."""
        rows = self.rest("GET", f"/dags/{dag}/dagRuns", {"limit": 100})["dag_runs"]
        return {row["dag_run_id"]: (moment(row["logical_date"]), row["state"]) for row in rows}

    def tasks(self, dag: str) -> list[dict[str, Any]]:
        """Of all its runs. A path has 64 characters at most, so the runs are not in it."""
        body = {"dag_ids": [dag], "page_limit": 100}
        return self.rest("POST", "/dags/~/dagRuns/~/taskInstances/list", body=body)["task_instances"]

    def browser(self) -> Browser:
        """Somebody who looks at the environment's UI."""
        where = next((self.lab.folder / "environments").rglob(f"{NAME}/environment.json"))
        salt = "0123456789abcdef"
        digest = hashlib.pbkdf2_hmac("sha256", PASSWORD.encode(), salt.encode(), 1000).hex()
        self.lab.execute(
            "insert into ab_user (id, first_name, last_name, username, password, active, email)"
            f" values (9001, 'a', 'b', 'looker', 'pbkdf2:sha256:1000${salt}${digest}', true, 'looker@example.invalid')"
            " on conflict do nothing;"
            " insert into ab_user_role (id, user_id, role_id) select 9001, 9001, id from ab_role where name = 'Admin'"
            " on conflict do nothing"
        )
        return Browser(json.loads(where.read_text())["port"])


class Browser:
    """Somebody who is logged in at the web server of an Airflow 2."""

    def __init__(self, port: int):
        self.address = f"http://127.0.0.1:{port}"
        self.opener = build_opener(HTTPCookieProcessor(CookieJar()))
        token = re.search(r'name="csrf_token"[^>]*value="([^"]+)"', self.page("/login/"))
        assert token
        form = {"username": "looker", "password": PASSWORD, "csrf_token": token.group(1)}
        with self.opener.open(f"{self.address}/login/", urlencode(form).encode(), timeout=60) as answer:
            assert "/login" not in answer.url, answer.read().decode()[-2000:]

    def page(self, path: str, **query: Any) -> str:
        target = f"{path}?{urlencode(query)}" if query else path
        try:
            with self.opener.open(f"{self.address}{target}", timeout=60) as answer:
                body = answer.read().decode()
                assert path.startswith("/login") or "/login" not in answer.url, f"{target}: not logged in"
                return body
        except HTTPError as error:
            raise AssertionError(f"{target}: {error.code}\n{error.read().decode()[-3000:]}") from None


@pytest.fixture(scope="module", params=PAIRS, ids="-".join)
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    if "mariadb" in request.param:
        try:
            mariadb.root()
        except LabError as missing:
            pytest.skip(f"not run: {missing}")
    lab = Lab(tmp_path_factory.mktemp("pairs") / "lab")
    try:
        yield Pair(lab, *request.param)
    finally:
        lab.command("down", check=False)


def test_all_of_it_arrives(pair: Pair) -> None:
    play = pair.migrate()
    assert play.returncode == 0, play.output[-6000:]
    parity = json.loads(pair.report.read_text())["parity"]["history"]
    assert parity["dag_run"]["source"] == sum(len(runs) for runs in pair.runs.values())
    assert parity["task_instance"]["source"] > 0 and parity["xcom"]["source"] > 0
    assert all(table["equal"] + table["listed"] == table["source"] for table in parity.values()), parity


def test_the_api_lists_every_run_and_task(pair: Pair) -> None:
    for dag, runs in pair.runs.items():
        assert pair.shown(dag) == runs
    found = {(row["dag_run_id"], row["task_id"]): (row["try_number"], row["state"]) for row in pair.tasks("stumbles")}
    assert found == pair.tries()


def test_the_ui_shows_them(pair: Pair) -> None:
    browser = pair.browser()
    for dag in OURS:
        grid = json.loads(browser.page("/object/grid_data", dag_id=dag, num_runs=100))
        assert {row["run_id"] for row in grid["dag_runs"]} == set(pair.runs[dag])
        run, (date, _state) = max(pair.runs[dag].items(), key=lambda entry: entry[1][0])
        for page in ("grid", "graph", "calendar", "duration", "tries", "gantt", "details"):
            assert dag in browser.page(f"/dags/{dag}/{page}", dag_run_id=run, execution_date=date.isoformat()), page
        task = grid["groups"]["children"][0]["id"]
        where = {"dag_id": dag, "task_id": task, "execution_date": date.isoformat(), "map_index": -1}
        for page in ("/task", "/rendered-templates", "/xcom"):
            assert task in browser.page(page, **where), page
        if dag == "ticks":
            assert date.isoformat() in html.unescape(browser.page("/xcom", **where)), "what the task returned"
    for kind in ("dagrun", "taskinstance", "xcom", "log", "job"):
        assert "Traceback" not in browser.page(f"/{kind}/list/"), kind


def test_the_scheduler_goes_on_where_the_source_would_have(pair: Pair) -> None:
    """Every interval since, none before, none twice."""
    for dag in OURS:
        pair.rest("PATCH", f"/dags/{dag}", body={"is_paused": False})
    expected = pair.last["ticks"] + STEP

    def new(dag: str) -> dict[datetime.datetime, str]:
        return {date: state for run, (date, state) in pair.shown(dag).items() if run not in pair.runs[dag]}

    wait_for(lambda: "success" in new("ticks").values(), 400, "the next run of ticks")
    pair.rest("PATCH", "/dags/ticks", body={"is_paused": True})
    dates = sorted(new("ticks"))
    assert dates == [expected + number * STEP for number in range(len(dates))]
    hour = datetime.datetime.now(datetime.timezone.utc).replace(minute=0, second=0, microsecond=0)
    missed = [hour - datetime.timedelta(hours=1)] if hour - pair.last["quiet"] > datetime.timedelta(hours=1) else []
    assert sorted(new("quiet")) in ([], missed)
    assert new("stumbles") == {}


def test_a_run_that_was_brought_can_be_cleared_and_runs_again(pair: Pair) -> None:
    date = pair.last["quiet"]
    run = next(run for run, (when, _state) in pair.runs["quiet"].items() if when == date)

    def task() -> dict[str, Any]:
        [row] = [row for row in pair.tasks("quiet") if row["dag_run_id"] == run]
        return row

    before = task()
    cleared = {"dry_run": False, "only_failed": False, "reset_dag_runs": True}
    cleared |= {"start_date": date.isoformat(), "end_date": date.isoformat()}
    pair.rest("POST", "/dags/quiet/clearTaskInstances", body=cleared)
    wait_for(lambda: task()["state"] == "success" and task()["try_number"] > before["try_number"], 300, "one more try")
    assert pair.shown("quiet")[run][1] == "success"


def test_a_second_run_brings_nothing(pair: Pair) -> None:
    before = {dag: pair.shown(dag) for dag in OURS}
    play = pair.migrate()
    assert play.returncode == 0, play.output[-6000:]
    assert {dag: pair.shown(dag) for dag in OURS} == before
