# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Run history out of PostgreSQL, beside `psql \\copy | gzip -1` two tables at once: seconds, CPU of both sides, memory.

python tests/benchmarks/bench_history.py [--task-instances 1000000] [--nasty] [--rounds 3] [--folder DIR] [--publish]

Both read the same tables of one PostgreSQL, in turns, into local files. What is measured is a whole process each time,
with its start; the agent's also plans, joins each row to its run, reads pickles and digests every row. CPU of the
server is that of its backends that ended meanwhile. psql has to be on the PATH.

"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import harness
import history_rows
from mwaa_lab import processes
from mwaa_lab.airflow import install, postgres
from mwaa_lab.airflow.database import OnPostgres
from mwaa_lab.airflow.instance import Airflow
from mwaa_lab.airflow.versions import VERSIONS
from mwaa_lab.labdir import LabDir

NAME = "history"
VERSION = "2.10.3"
TABLES = ("xcom", "task_instance", "log", "job", "dag_run", "task_fail")  # the largest first
EXPORT = """
import json, os, resource, sys
request = json.load(sys.stdin)
sys.path.insert(0, request["agent"])
import airflow_history as history, psycopg2
connect = lambda snapshot=None: history.Engine("postgresql", psycopg2.connect(**request["connection"]), snapshot)
bare = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
engine = connect()
plan = history.make_plan(engine, tables=request["tables"])
engine.close()
def put(place, body):
    with open(os.path.join(request["folder"], place["path"]), "wb") as file:
        file.write(body)
places = [{"path": "%d.gz" % number} for number in range(15000)]
done = history.export_parts(connect, plan["parts"], plan["scope"], b"k" * 32, places, put, 2)
assert not done["left"], done["failed"]
done["above_bare_kb"] = done["peak_kb"] - bare
json.dump(done, sys.stdout)
"""


class Source:
    """A lab's PostgreSQL with the generated history; what is in the folder already is used again."""

    def __init__(self, folder: Path, task_instances: int, nasty: bool):
        self.lab = LabDir(folder)
        if not self.lab.exists():
            self.lab.create({})
        postgres.SETTINGS.update(shared_buffers="2GB", max_wal_size="16GB")
        self.server = postgres.Postgres(self.lab)
        self.server.ensure()
        self.name = f"history-{task_instances}{'-nasty' * nasty}"
        self.python = install.base(VERSIONS[VERSION]) / "bin" / "python"
        self.database = OnPostgres(self.server, self.name)
        if self.server.create(self.name):
            self.server.drop(self.name)
            row = VERSIONS[VERSION]
            airflow = Airflow(self.lab, self.database, None, row, self.name, self.lab.path, self.python)  # type: ignore[arg-type]
            airflow.create_database()
            history_rows.fill(self.database.sql, task_instances, nasty)
        self.connection = {"host": "127.0.0.1", "port": self.server.port, "user": "postgres", "dbname": self.name}

    def cpu(self) -> float:
        """Seconds of the server and of its children that ended."""
        record = processes.alive(self.lab, postgres.NAME)
        assert record
        fields = Path(f"/proc/{record.pid}/stat").read_text().rpartition(")")[2].split()
        return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")


def measured(source: Source, argv: list[Any], stdin: str) -> dict[str, Any]:
    before, used, begun = source.cpu(), resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    environ = {**os.environ, "LC_ALL": "C.UTF-8"}
    run = subprocess.run(argv, input=stdin, capture_output=True, text=True, env=environ, check=False)
    seconds = time.monotonic() - begun
    if run.returncode:
        sys.exit(run.stderr[-2000:])
    time.sleep(0.5)  # until the server has seen its backends end
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    client = after.ru_utime + after.ru_stime - used.ru_utime - used.ru_stime
    return {"seconds": seconds, "client": client, "server": source.cpu() - before, "out": run.stdout}


def copy(source: Source, folder: Path) -> dict[str, Any]:
    """The limit: two pipelines at once."""
    psql = f"psql -X -q -h 127.0.0.1 -p {source.server.port} -U postgres -d {source.name}"
    one = f"{psql} -c '\\copy (select * from {{}}) to stdout' | gzip -1 > {folder}/{{}}.gz"
    found = measured(source, ["xargs", "-P", "2", "-I{}", "sh", "-c", one], "\n".join(TABLES))
    return {**found, "bytes": sum(file.stat().st_size for file in folder.glob("*.gz"))}


def agent(source: Source, folder: Path) -> dict[str, Any]:
    request = {"connection": source.connection, "folder": str(folder), "tables": TABLES}
    request["agent"] = str(harness.ROOT / "plugins" / "agent")
    found = measured(source, [source.python, "-B", "-c", EXPORT], json.dumps(request))
    answer = json.loads(found.pop("out"))
    found["rows"] = sum(part["rows"] for part in answer["parts"])
    found["bytes"] = sum(part["bytes"] for part in answer["parts"])
    found["above"] = answer["above_bare_kb"] / 1024
    found["parts"] = [(part["table"], part["rows"], part["raw"], part["seconds"]) for part in answer["parts"]]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task-instances", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--nasty", action="store_true")
    parser.add_argument("--folder", type=Path, help="of the lab: kept, and used again")
    parser.add_argument("--publish", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="history-") as temporary:
        source = Source(arguments.folder or Path(temporary) / "lab", arguments.task_instances, arguments.nasty)
        results: dict[str, list[dict[str, Any]]] = {"copy": [], "agent": []}
        try:
            for number in range(arguments.rounds):
                for name in ("copy", "agent") if number % 2 == 0 else ("agent", "copy"):
                    out = Path(temporary) / f"{name}-{number}"
                    out.mkdir()
                    results[name].append({"copy": copy, "agent": agent}[name](source, out))
                    for file in out.iterdir():
                        file.unlink()
                    shown = {key: value for key, value in results[name][-1].items() if key not in ("out", "parts")}
                    print(name, {key: round(value, 2) for key, value in shown.items()}, flush=True)
        finally:
            processes.stop_all(source.lab)
            if not arguments.folder:
                source.lab.remove()
    print(text := report(arguments, results))
    if arguments.publish:
        harness.publish(NAME, text)


def report(arguments: argparse.Namespace, results: dict[str, list[dict[str, Any]]]) -> str:
    def middle(name: str, key: str) -> float:
        return median(one[key] for one in results[name])

    last = results["agent"][-1]
    lines = [
        "## Run history: export from PostgreSQL",
        "",
        f"{last['rows']:,} rows ({arguments.task_instances:,} task instances{', nasty' * arguments.nasty}),"
        f" medians of {arguments.rounds}; {harness.machine()}.",
        "",
        "| | seconds | CPU client | CPU server | MB written |",
        "|---|---|---|---|---|",
    ]
    for name, label in (("copy", "`psql \\copy \\| gzip -1`, two at once"), ("agent", "agent, two processes")):
        keys = ("seconds", "client", "server")
        columns = [f"{middle(name, key):.1f}" for key in keys] + [f"{middle(name, 'bytes') / 1e6:.0f}"]
        lines.append(f"| {label} | {' | '.join(columns)} |")
    total = {name: middle(name, "client") + middle(name, "server") for name in results}
    lines += [
        "",
        f"Agent to limit: {middle('agent', 'seconds') / middle('copy', 'seconds'):.2f} of the seconds,"
        f" {total['agent'] / total['copy']:.2f} of the CPU, {middle('agent', 'bytes') / middle('copy', 'bytes'):.2f} of"
        f" the bytes; {last['rows'] / middle('agent', 'seconds'):,.0f} rows/s;"
        f" {middle('agent', 'above'):.0f} MB a process above its bare start.",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
