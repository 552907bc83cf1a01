# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""History by the playbook, killed again and again: what is in the environment at the end is what an undisturbed run
leaves.

python tests/soak/soak_playbook.py [--kills 50] [--seed 1] [--runs 5000] [--source 2.10.3] [--target 2.11.2]

One lab with real Airflows on both sides. What is killed, by chance: ansible-playbook with all that it started, the
environment's agent, its worker with the agent in it, its scheduler with all its workers, the connections to its
database. Each round exports into
a bundle of its own and brings the history in, with as many runs of the playbook as it takes; then every row is
compared by SQL of its own, and the digests by the playbook's verification. The environment's history is removed before
the next.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psycopg2

HERE = Path(__file__).resolve().parent
TESTS = HERE.parent
sys.path[:0] = [str(TESTS / "integration/history")]
from compare import CLOSED, contents, differences  # noqa: E402
from mwaa_lab import processes  # noqa: E402
from mwaa_lab.labdir import LabDir  # noqa: E402

_SPEC = importlib.util.spec_from_file_location("lab_by_command", TESTS / "e2e" / "conftest.py")
assert _SPEC
assert _SPEC.loader
_by_command = sys.modules["lab_by_command"] = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(_by_command)

WAYS = ("playbook", "agent", "worker", "scheduler", "connections")
# Airflow sees after five minutes that a task's worker or scheduler is gone; a soak has not that time fifty times.
OPTIONS = {"scheduler.scheduler_zombie_task_threshold": "30", "scheduler.orphaned_tasks_check_interval": "30"}
EMPTY = r"'\x80047d942e'"
ROWS = r"""
INSERT INTO dag_run (dag_id, run_id, execution_date, state, run_type, start_date, end_date, clear_number, conf,
    external_trigger, data_interval_start, data_interval_end)
  SELECT 'soak_' || n % 20, 'scheduled__ü ' || n, timestamptz '2020-01-01Z' + n * interval '1 h',
    CASE WHEN n % 9 = 0 THEN 'failed' ELSE 'success' END, 'scheduled', timestamptz '2020-01-01Z' + n * interval '61 m',
    timestamptz '2020-01-01Z' + n * interval '62 m', 0, {empty}, false, timestamptz '2020-01-01Z' + n * interval '1 h',
    timestamptz '2020-01-01Z' + n * interval '2 h' FROM generate_series(1, {runs}) n;
INSERT INTO task_instance (dag_id, task_id, run_id, state, pool, pool_slots, try_number, start_date, end_date, duration,
    hostname, executor_config, queue, next_kwargs, map_index)
  SELECT dag_id, 't' || t, run_id, (ARRAY['success', NULL, 'failed', 'skipped'])[1 + (id + t) % 4], 'p', 1, 2,
    start_date, end_date, id / 7.0, E'a\r\n\tb\\', {empty}, '', '{{"a":  "ü\\n"}}', t - 1
  FROM dag_run, generate_series(0, 2) t WHERE dag_id LIKE 'soak\_%';
INSERT INTO xcom (dag_run_id, dag_id, task_id, run_id, map_index, key, value, timestamp)
  SELECT id, dag_id, 't0', run_id, -1, 'return_value', convert_to(repeat(md5(id::text) || E'\\\\\t', 50), 'UTF8'),
    end_date FROM dag_run WHERE dag_id LIKE 'soak\_%';
INSERT INTO log (dttm, dag_id, task_id, run_id, event, owner, extra)
  SELECT end_date, dag_id, 't0', run_id, 'success', '', E'line\r\nline\\N' FROM dag_run WHERE dag_id LIKE 'soak\_%';
INSERT INTO task_fail (dag_id, task_id, run_id, map_index, start_date, end_date, duration)
  SELECT dag_id, 't0', run_id, -1, start_date, end_date, 60 FROM dag_run WHERE dag_id LIKE 'soak\_%' AND id % 3 = 0;
INSERT INTO rendered_task_instance_fields (dag_id, task_id, run_id, map_index, rendered_fields)
  SELECT dag_id, 't0', run_id, -1, '{{"cmd":  "a\nü"}}' FROM dag_run WHERE dag_id LIKE 'soak\_%' AND id % 2 = 0;
INSERT INTO dag_run_note (dag_run_id, content, created_at, updated_at)
  SELECT id, E'seen\nü\\', end_date, end_date FROM dag_run WHERE dag_id LIKE 'soak\_%' AND id % 5 = 0
"""
# what an import made, of which there is nothing else in the environment
AWAY = """
DELETE FROM dag_run WHERE id < 0; DELETE FROM log WHERE id < 0; DELETE FROM job WHERE id < 0; DELETE FROM sla_miss;
DELETE FROM dataset_event WHERE id < 0; DELETE FROM dataset WHERE id < 0; DROP TABLE IF EXISTS mwaa_migration_ledger
"""


class Soak:
    def __init__(self, lab: Any, dice: random.Random, target: str, kills: int):
        self.lab, self.dice, self.target, self.wanted = lab, dice, target, kills
        self.kills = dict.fromkeys(WAYS, 0)
        self.usual = 30.0

    @property
    def done(self) -> int:
        return sum(self.kills.values())

    @property
    def database(self) -> str:
        return self.lab.status()["environments"][0]["database_url"].replace("postgresql+psycopg2", "postgresql")

    def rows(self) -> dict[str, list[str]]:
        """What was imported: the agent's own runs and jobs have other numbers."""
        connection = psycopg2.connect(self.database)
        try:
            with connection, connection.cursor() as cursor:
                cursor.execute(f"SELECT count(*) FROM dag_run r WHERE id < 0 AND NOT ({CLOSED.format(run='r')})")
                assert cursor.fetchone() == (0,), "runs in flight arrived"
            return contents(connection, source=False, imported=True)
        finally:
            connection.close()

    def words(self, bundle: str, tags: str) -> list[str]:
        place = f"s3://{self.lab.environment()['MWAA_LAB_BUNDLE_BUCKET']}/{bundle}"
        given = {
            "migration_airflow_version": self.target,
            "migration_deploy": "direct",
            "migration_history": True,
            "environment_configuration_options": OPTIONS,
            "migration_bundle": place,
            "rehearsal_report": str(self.lab.folder / "report.json"),
        }
        return ["rehearse.yml", "-e", json.dumps(given), *(["--tags", tags] if tags else [])]

    def play(self, bundle: str, tags: str, disturbed: bool) -> bool:
        """One run of the playbook; False: it has to run again."""
        began = time.monotonic()
        process = self.lab.start(*self.words(bundle, tags))
        killed = False
        while disturbed and self.done < self.wanted:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.communicate(timeout=self.dice.uniform(1, self.usual))
            if process.poll() is not None:
                break
            killed = self.kill(self.dice.choice(WAYS), process) or killed
        output = process.communicate()[0] or ""
        if process.returncode == 0 and not killed and "history" in tags:
            self.usual = time.monotonic() - began
        if process.returncode and not killed:
            raise SystemExit(f"the playbook failed undisturbed:\n{output[-5000:]}")
        return process.returncode == 0

    def kill(self, way: str, process: Any) -> bool:
        """Whether there was one at this moment."""
        if way == "playbook":
            os.killpg(process.pid, signal.SIGKILL)
        elif way == "connections":
            with psycopg2.connect(self.database) as connection, connection.cursor() as cursor:
                cursor.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                    " WHERE datname = current_database() AND pid <> pg_backend_pid()"
                )
        else:
            found = self.environment_processes(way)
            if not found:
                return False
            for pid in found:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        self.kills[way] += 1
        print(f"  kill {self.done}: {way}", flush=True)
        return True

    def environment_processes(self, way: str) -> list[int]:
        """What to kill: the whole session that the scheduler leads, or the agent's task in it (the process that runs it
        and those that share the work), or this with the process that watches over it.
        """
        lab = LabDir(self.lab.folder)
        leaders = [record for record in processes.records(lab, "env-") if record.name.endswith(".scheduler")]
        found = {}
        for one in processes.members(leaders):
            with contextlib.suppress(OSError):
                found[one.pid] = (Path(f"/proc/{one.pid}/cmdline").read_bytes().decode(errors="replace"), one.parent)
        if way == "scheduler":
            return list(found)
        watch = {pid for pid, (line, _parent) in found.items() if "task supervisor" in line and "'mwaa_agent'" in line}
        inside = {pid for pid, (_line, parent) in found.items() if parent in watch}
        inside |= {pid for pid, (_line, parent) in found.items() if parent in inside}
        return list(inside) if way == "agent" else list(watch | inside)

    def round(self, number: int, disturbed: bool) -> None:
        bundle, tries = f"soak-{number}", 0
        tags = "" if number == 0 else "export,history"
        while not self.play(bundle, tags, disturbed):
            tries += 1
            assert tries < 60, "it does not come to an end"
            _by_command.wait_for(self.lab.healthy, 600, "the environment answers again")
        assert self.play(bundle, "verify", False)
        parity = json.loads((self.lab.folder / "report.json").read_text())["parity"]["history"]
        assert parity
        for table, found in parity.items():
            assert found["equal"] == found["source"], (table, found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--runs", type=int, default=5000)
    parser.add_argument("--source", default="2.10.3")
    parser.add_argument("--target", default="2.11.2")
    arguments = parser.parse_args()
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="soak-") as place:
        lab = _by_command.Lab(Path(place) / "lab")
        try:
            lab.up("--source", arguments.source, "--seed-data", "none")
            url = lab.status()["source"]["database_url"].replace("postgresql+psycopg2", "postgresql")
            source = psycopg2.connect(url)
            with source, source.cursor() as cursor:
                cursor.execute(ROWS.format(runs=arguments.runs, empty=EMPTY))
            soak = Soak(lab, random.Random(arguments.seed), arguments.target, arguments.kills)
            soak.round(0, disturbed=False)
            wanted = soak.rows()
            total = sum(map(len, wanted.values()))
            print(f"undisturbed: {total:,} rows after {time.monotonic() - began:.0f} s", flush=True)
            number = 0
            while soak.done < arguments.kills:
                number += 1
                lab.execute(AWAY)
                soak.round(number, disturbed=True)
                found = differences(wanted, soak.rows())
                assert found == {}, found
                print(f"round {number}: {soak.done} kills, all {total:,} rows equal", flush=True)
        finally:
            lab.command("down", check=False)
    minutes = (time.monotonic() - began) / 60
    print(f"{soak.done} kills {soak.kills} in {number} rounds and {minutes:.0f} minutes: nothing lost or doubled")


if __name__ == "__main__":
    main()
