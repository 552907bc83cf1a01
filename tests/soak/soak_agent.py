# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The agent's export and import of a nasty history, killed again and again: the end is that of an undisturbed one.

python tests/soak/soak_agent.py [--kills 50] [--seed 1] [--task-instances 10000]

What is killed, by chance: the agent's process, one of its workers, its connections, the PostgreSQL itself. Each round
exports, imports, verifies by the agent's digests and compares every row by SQL of its own; rounds go on until there
were as many kills as asked for. The lab, its server and the source stay the same.
"""

from __future__ import annotations

import argparse
import contextlib
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
sys.path[:0] = [str(TESTS / name) for name in ("integration/history", "unit/history", "benchmarks")]
import history_rows  # noqa: E402
from compare import contents, differences  # noqa: E402
from import_lane import Database, Databases  # noqa: E402
from mwaa_lab import processes  # noqa: E402
from mwaa_lab.airflow import postgres  # noqa: E402
from mwaa_lab.labdir import LabDir  # noqa: E402

AGENT = TESTS.parent / "plugins" / "agent"
KEY = "a2tra2tra2tra2tra2tra2tra2tra2tra2tra2tra2s="
WAYS = ("agent", "worker", "connections", "server")


class Soak:
    def __init__(self, databases: Databases, folder: Path, dice: random.Random, kills: int):
        self.databases, self.folder, self.dice, self.wanted = databases, folder, dice, kills
        self.kills: dict[str, int] = dict.fromkeys(WAYS, 0)

    @property
    def done(self) -> int:
        return sum(self.kills.values())

    def ask(self, database: Database, request: dict[str, Any], disturbed: bool) -> dict[str, Any] | None:
        """The agent's answer; None: something was killed, and it has none."""
        settings = {**database.settings, "connect_timeout": 10}
        document = {"agent": str(AGENT), "folder": str(self.folder), "connection": settings, "requests": [request]}
        argv = [sys.executable, "-B", str(TESTS / "benchmarks" / "history_agent.py")]
        began = time.monotonic()
        with subprocess.Popen(argv, stdin=-1, stdout=-1, stderr=-1, text=True, start_new_session=True) as process:
            assert process.stdin
            process.stdin.write(json.dumps(document))
            process.stdin.close()
            process.stdin = None
            way = ""
            if disturbed and self.done < self.wanted:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(self.dice.uniform(0.1, self.usual.get(request["op"], 2.0)))
                if process.poll() is None:
                    way = self.dice.choice(WAYS)
                    self.kill(way, process.pid, database)
            out, err = process.communicate(timeout=600)
        if process.returncode == 0:
            if not way:
                self.usual[request["op"]] = time.monotonic() - began
            answer: dict[str, Any] = json.loads(out)["answers"][0]
            return answer
        if not way:
            raise SystemExit(f"{request['op']} failed undisturbed: {err[-3000:]}")
        return None

    usual: dict[str, float] = {}
    """Seconds of an undisturbed request: kills fall anywhere in it."""

    def kill(self, way: str, pid: int, database: Database) -> None:
        self.kills[way] += 1
        print(f"  kill {self.done}: {way}", flush=True)
        if way == "worker":
            found = [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
            pid = self.dice.choice(found or [pid])
        if way in ("agent", "worker"):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        elif way == "connections":
            end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{}' AND random() < 0.7"
            database.server.sql("postgres", end.format(database.name))
        else:
            record = processes.alive(self.databases.lab, postgres.NAME)
            assert record
            os.kill(record.pid, signal.SIGKILL)
            for _turn in range(200):  # its children end when they notice
                if processes.alive(self.databases.lab, postgres.NAME) is None:
                    break
                time.sleep(0.05)
            time.sleep(1)
            database.server.ensure()

    def until(self, database: Database, request: dict[str, Any], disturbed: bool) -> dict[str, Any]:
        while True:
            answer = self.ask(database, request, disturbed)
            if answer is not None:
                return answer

    def export(self, source: Database, schema: Any, name: str, disturbed: bool) -> dict[str, Any]:
        """As a driver does it: a plan, then its parts until none is left."""
        first = {"op": "export", "name": name, "target": schema, "part_bytes": 1 << 19, "parts": []}
        plan = self.until(source, first, disturbed)["plan"]
        left, pieces, digests, turn = [part["n"] for part in plan["parts"]], [], {}, 0
        while left:
            turn += 1
            request = {"op": "export", "name": f"{name}-{turn}", "plan": plan, "parts": left}
            answer = self.ask(source, request, disturbed)
            if answer is None:
                continue
            left = answer["left"]
            pieces += answer["pieces"]
            for table, found in answer["digests"].items():
                for dag, (rows, digest) in found.items():
                    count, total = digests.setdefault(table, {}).get(dag, (0, "0"))
                    total = f"{(int(total, 16) + int(digest, 16)) % 2**128:032x}"
                    digests[table][dag] = [count + rows, total]
        return {"plan": plan, "pieces": pieces, "digests": digests}

    def bring(self, target: Database, export: dict[str, Any], disturbed: bool, rebuild: bool) -> None:
        about = {"bundle": "b1", "source": "soak", "columns": export["plan"]["columns"], "policy": "newer"}
        about["dags"] = sorted({dag for table in export["digests"].values() for dag in table} - {"\\N", ""})
        request = {"op": "import_history", **about, "pieces": export["pieces"], "rebuild_indexes": rebuild}
        while self.until(target, request, disturbed)["left"]:
            pass
        self.until(target, {"op": "finish_history", "tables": list(about["columns"])}, disturbed)
        tables = [name for name in export["digests"] if name not in ("dag", "log_template")]
        verify = {
            **about,
            "op": "verify_history",
            "scope": export["plan"]["scope"],
            "digest_key": KEY,
            "tables": tables,
        }
        digests = self.until(target, verify, False)["digests"]
        unlike = [name for name in tables if digests[name] != export["digests"][name]]
        assert not unlike, f"digests differ: {unlike}"
        left = target.sql("SELECT relname FROM pg_class WHERE relname LIKE 'mwaa_migration_staging%'")
        assert left == "", left


def everything(database: Database) -> dict[str, list[str]]:
    connection = psycopg2.connect(**database.settings)
    try:
        return contents(connection, source=False)
    finally:
        connection.close()


def indexes(database: Database) -> str:
    return database.sql(
        "SELECT string_agg(d, E'\\n' ORDER BY d) FROM (SELECT indexdef AS d FROM pg_indexes WHERE schemaname = 'public'"
        " UNION ALL SELECT conrelid::regclass || ' ' || pg_get_constraintdef(oid) FROM pg_constraint) x"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--task-instances", type=int, default=10_000)
    arguments = parser.parse_args()
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="soak-") as place:
        lab = LabDir(Path(place) / "lab")
        lab.create({})
        try:
            databases = Databases(lab)
            databases.server.ensure()
            soak = Soak(databases, Path(place), random.Random(arguments.seed), arguments.kills)
            source = databases.new("2.10.3", "source")
            history_rows.fill(source.sql, arguments.task_instances, nasty=True)
            undisturbed = databases.new("2.11.2", "undisturbed")
            schema = undisturbed.schema()
            soak.bring(undisturbed, soak.export(source, schema, "whole", False), False, False)
            wanted, made = everything(undisturbed), indexes(undisturbed)
            rows = sum(map(len, wanted.values()))
            said = psycopg2.connect(**source.settings)
            assert differences(contents(said, source=True), wanted) == {}, "even undisturbed"
            said.close()
            print(f"undisturbed: {rows:,} rows", flush=True)
            number = 0
            while soak.done < arguments.kills:
                number += 1
                target = databases.new("2.11.2", f"round-{number}")
                export = soak.export(source, schema, f"round-{number}", True)
                soak.bring(target, export, True, number % 3 == 0)
                found = differences(wanted, everything(target))
                assert found == {}, found
                assert indexes(target) == made, "indexes are not what they were"
                databases.server.drop(target.name)
                for file in Path(place).glob(f"round-{number}-*.gz"):
                    file.unlink()
                print(f"round {number}: {soak.done} kills, all {rows:,} rows equal", flush=True)
        finally:
            processes.stop_all(lab)
            lab.remove()
    minutes = (time.monotonic() - began) / 60
    print(f"{soak.done} kills {soak.kills} in {number} rounds and {minutes:.1f} minutes: nothing lost or doubled")


if __name__ == "__main__":
    main()
