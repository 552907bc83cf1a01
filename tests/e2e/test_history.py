# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Run history of an Airflow 2.10.3 into an environment of 2.11.2, by the playbook: killed on the way, repeated, as a
delta, and without a trace of ours in the end. The tests run in their order.
"""

from __future__ import annotations

import json
import os
import pickle
import re
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from conftest import Lab, Leaks, Play, kill_group, wait_for
from mwaa_lab.labdir import LabDir
from mwaa_lab.source import Source

pytestmark = pytest.mark.e2e

# daily: 1,500 days of it have run, and one is still to come. idle: unpaused in the environment before history enters.
DAGS = """
from datetime import datetime
from airflow import DAG
from airflow.operators.bash import BashOperator

with DAG(
    dag_id="daily", start_date=datetime(2020, 1, 1), end_date=datetime(2024, 2, 9), schedule="@daily", catchup=True,
    is_paused_upon_creation=True,
) as daily:
    BashOperator(task_id="load", bash_command="true")

with DAG(dag_id="idle", start_date=datetime(2024, 1, 1), schedule=None) as idle:
    BashOperator(task_id="load", bash_command="true")
"""
RUNS = 1500
# what ran on those days: rows with something to hide, and XComs that do not shrink when they are compressed
ROWS = """
insert into dag_run (dag_id, execution_date, start_date, end_date, state, run_id, external_trigger, run_type, conf,
    data_interval_start, data_interval_end, log_template_id, clear_number, updated_at)
  select 'daily', day, day + interval '1 day', day + interval '25 h', case when n % 50 = 0 then 'failed' else 'success'
    end, 'scheduled__' || to_char(day at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS+00:00'), false, 'scheduled',
    decode('{conf}', 'hex'), day, day + interval '1 day', (select max(id) from log_template), 0, day + interval '25 h'
  from (select n, timestamptz '2020-01-01 00:00Z' + n * interval '1 day' as day from generate_series(0, {last}) n) made;
insert into task_instance (task_id, dag_id, run_id, map_index, start_date, end_date, duration, state, try_number,
    max_tries, hostname, unixname, pool, pool_slots, queue, operator, updated_at)
  select 'task_' || t, dag_id, run_id, -1, start_date, end_date, 3.25 * t,
    case when t = 0 then state else 'success' end, 1, 0, 'worker', 'airflow', 'default_pool', 1, 'default',
    'BashOperator', end_date
  from dag_run, generate_series(0, 3) t where dag_id = 'daily';
insert into xcom (dag_run_id, task_id, map_index, key, dag_id, run_id, value, timestamp)
  select id, 'task_' || t, -1, 'return_value', dag_id, run_id,
    convert_to(to_json('CANARY-xcom-{hex} ' || (select string_agg(md5(random()::text || id || g), '')
      from generate_series(1, 400) g))::text, 'UTF8'), end_date
  from dag_run, generate_series(0, 1) t where dag_id = 'daily';
insert into log (dttm, dag_id, task_id, event, owner, extra)
  select end_date, dag_id, 'task_0', 'success', 'airflow', '{{"password": "CANARY-log-{hex}"}}'
  from dag_run where dag_id = 'daily';
insert into rendered_task_instance_fields (dag_id, task_id, run_id, map_index, rendered_fields)
  select dag_id, 'task_0', run_id, -1, '{{"bash_command": "echo CANARY-rendered-{hex}"}}' from dag_run
  where dag_id = 'daily' and id % 10 = 0;
insert into task_fail (task_id, dag_id, run_id, map_index, start_date, end_date, duration)
  select 'task_0', dag_id, run_id, -1, start_date, end_date, 60 from dag_run
  where dag_id = 'daily' and state = 'failed';
"""


class Story:
    """A source with a past, and the environment that it enters."""

    def __init__(self, lab: Lab):
        self.lab, self.hex = lab, os.urandom(4).hex()
        lab.up("--source", "2.10.3", "--seed-data", "small")
        self.airflow = Source(LabDir(lab.folder)).airflow()
        (self.airflow.home / "dags" / "story.py").write_text(DAGS)
        wait_for(
            lambda: self.source("select count(*) from dag where dag_id in ('daily', 'idle')") == ["2"], 180, "DAGs"
        )
        conf = pickle.dumps({"token": f"CANARY-conf-{self.hex}"}, 2)
        self.airflow.database.sql(ROWS.format(conf=conf.hex(), hex=self.hex, last=RUNS - 1))
        self.leaks = Leaks(lab)
        self.outputs: list[str] = []

    def source(self, statement: str) -> list[str]:
        return self.airflow.database.sql(statement).split()

    def play(self, playbook: str, *words: str) -> Play:
        play = self.lab.play(playbook, *self.options(), *words, env={"TMPDIR": str(self.leaks.tmp)})
        self.outputs.append(play.output)
        return play

    def history(self, *words: str) -> Play:
        return self.play("migrate.yml", "--tags", "history", "-v", *words)

    @staticmethod
    def options() -> list[str]:
        return ["-e", "migration_deploy=direct", "-e", "migration_history=true"]

    def start(self, *words: str) -> Any:
        return self.lab.start("migrate.yml", *self.options(), "--tags", "history", *words)

    def until(self, process: Any, pattern: str) -> None:
        for line in process.stdout:
            self.outputs.append(line)
            if re.search(pattern, line):
                return
        kill_group(process)
        pytest.fail(f"{pattern} was not seen: {''.join(self.outputs)[-3000:]}")

    def process(self, title: str) -> int | None:
        """One of the environment's own, by the beginning of its title."""
        parents, titles = {}, {}
        for path in Path("/proc").glob("[0-9]*"):
            with suppress(OSError, IndexError):
                parents[int(path.name)] = int((path / "stat").read_text().rpartition(")")[2].split()[1])
                titles[int(path.name)] = (path / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        mine = set(self.lab.status()["environments"][0]["pids"])
        while more := {pid for pid, parent in parents.items() if parent in mine} - mine:
            mine |= more
        return next((pid for pid in sorted(mine) if re.search(title, titles.get(pid, ""))), None)

    def kill(self, title: str) -> None:
        wait_for(lambda: self.process(title), 180, title)
        time.sleep(2.0)
        with suppress(ProcessLookupError, TypeError):
            os.kill(self.process(title), signal.SIGKILL)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    lab = Lab(tmp_path_factory.mktemp("history"))
    try:
        yield Story(lab)
    finally:
        lab.command("down", check=False)


def result_of(play: Play) -> dict[str, Any]:
    """What the history's task returned, as -v shows it."""
    text = re.search(r"^(?:ok|changed): \[lab_target\] => \(item=.*?\) => (\{.*\})$", play.output, re.MULTILINE)
    assert text, play.output[-3000:]
    return json.loads(text.group(1))


def test_the_environment_is_there_before_its_history(story: Story) -> None:
    with story.leaks.watched():
        play = story.play("migrate.yml", "--skip-tags", "history,verify")
    assert play.returncode == 0, play.output[-3000:]
    story.lab.execute("update dag set is_paused = false where dag_id = 'idle'")


def test_killed_again_and_again(story: Story) -> None:
    # the playbook, while the agent looks, and while it writes; then parts of Airflow
    for pattern, pause in ((r"^TASK \[mwaa.migration.history : Bring", 1.0), (r"agent run .*: running", 3.0)):
        process = story.start()
        story.until(process, pattern)
        time.sleep(pause)
        kill_group(process)
    for title in (r"^airflow task runner: mwaa_agent", r"airflow scheduler"):  # the agent's task; who starts the next
        process = story.start()
        story.until(process, r"^TASK \[mwaa.migration.history : Bring")
        story.kill(title)
        story.outputs.append(process.communicate()[0])  # it may fail, with a sentence
    wait_for(story.lab.healthy, 180, "the environment's Airflow is started again")


def test_the_next_run_ends_equal(story: Story) -> None:
    with story.leaks.watched():
        play = story.play("migrate.yml", "-vvv", "--diff")
    assert play.returncode == 0, play.output[-4000:]
    ours = "dag_id = 'daily' and run_id like 'scheduled%'"
    for table in ("dag_run", "task_instance", "xcom", "task_fail", "rendered_task_instance_fields"):
        count = f"select count(*) from {table} where {ours}"
        assert story.lab.query(count) == story.source(count), table
    assert story.lab.query("select count(*) from log where event = 'success' and dag_id = 'daily'") == [str(RUNS)]
    digest = "select md5(string_agg(convert_from(value, 'UTF8'), '' order by run_id, task_id)) from xcom where " + ours
    assert story.lab.query(digest) == story.source(digest)


def test_what_was_unpaused_is_so_again_and_nothing_else(story: Story) -> None:
    unpaused = story.lab.query("select dag_id from dag where not is_paused and is_active order by 1")
    assert [dag for dag in unpaused if not dag.startswith("mwaa_agent")] == ["idle"]


def test_a_second_run_changes_nothing_and_sends_nothing(story: Story) -> None:
    runs = "select count(*) from dag_run where dag_id = 'mwaa_agent'"
    before = int(story.lab.query(runs)[0])
    play = story.history()
    assert play.returncode == 0 and play.changed == 0, play.output[-3000:]
    assert int(story.lab.query(runs)[0]) == before + 1  # asked once
    journal = len(story.lab.journal())
    play = story.history("--check", "--diff")
    assert play.returncode == 0 and play.changed == 0, play.output[-3000:]
    assert [call for call in story.lab.journal()[journal:] if call["access"] == "write"] == []


def test_a_delta_brings_what_is_new(story: Story) -> None:
    last = "(select id from dag_run where dag_id = 'daily' order by execution_date desc limit 1)"
    story.airflow.database.sql(
        f"update dag_run set state = 'failed', updated_at = now() where id = {last};"
        f"insert into log (dttm, dag_id, task_id, event, owner) values (now(), 'daily', 'task_0', 'clear', 'ada')"
    )
    play = story.play("migrate.yml", "--tags", "export,history", "-v")
    assert play.returncode == 0, play.output[-3000:]
    result = result_of(play)
    assert [one["delta"] for one in result["exports"]] == [False, True]
    assert 0 < result["exports"][1]["rows"] < 200
    newest = "select state from dag_run where dag_id = 'daily' order by execution_date desc limit 1"
    assert story.lab.query(newest) == ["failed"]
    assert story.lab.query("select count(*) from log where event = 'clear' and dag_id = 'daily'") == ["1"]


def test_the_scheduler_goes_on_where_the_source_left_off(story: Story) -> None:
    story.lab.execute("update dag set is_paused = false where dag_id = 'daily'")
    made = "select run_id from dag_run where dag_id = 'daily' and id > 0 order by execution_date"
    wait_for(lambda: story.lab.query(made), 120, "the next run")
    assert story.lab.query(made)[0].startswith("scheduled__2024-02-09")
    story.lab.execute("update dag set is_paused = true where dag_id = 'daily'")


def test_no_secret_was_seen_anywhere(story: Story) -> None:
    assert "CANARY-" not in "".join(story.outputs)
    assert story.leaks.found == []
    assert not [key for key, body in story.lab.objects() if b"CANARY-" in body]
    assert not [call for call in story.lab.journal() if "CANARY-" in json.dumps(call)]
    logs = [path for path in story.lab.folder.rglob("*.log") if path.is_file()]
    assert logs and not [path for path in logs if b"CANARY-" in path.read_bytes()]
    outside = "select count(*) from log where extra like '%CANARY-%' and id > 0 and dag_id is distinct from 'daily'"
    assert story.lab.query(outside) == ["0"]


def test_cleanup_leaves_the_history_and_nothing_of_ours(story: Story) -> None:
    play = story.play("cleanup.yml", "-e", "migration_target=mwaa_lab", "-e", "cleanup_keep_bundle_days=0")
    assert play.returncode == 0, play.output[-3000:]
    assert story.lab.query("select tablename from pg_tables where tablename like 'mwaa\\_migration%'") == []
    assert story.lab.query("select count(*) from dag_run where dag_id like 'mwaa\\_agent%'") == ["0"]
    counted = story.lab.query("select count(*) from dag_run where dag_id = 'daily'")
    assert int(counted[0]) >= RUNS
    bundle = story.lab.environment()["MWAA_LAB_BUNDLE_BUCKET"]
    assert not [key for key, _body in story.lab.objects() if key.startswith(bundle)]
