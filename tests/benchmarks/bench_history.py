# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Run history out of a PostgreSQL and into another database, beside mwaa-dr 2.2.0 and beside what psql can do at best.

python tests/benchmarks/bench_history.py [--task-instances 1000000] [--rounds 3] [--folder DIR] [--publish]
python tests/benchmarks/bench_history.py --memory 35000,350000,1750000 [--folder DIR] [--publish]

All read the same tables of one PostgreSQL, in turns, into local files, and write into fresh databases of the same
server. What is measured is a whole process each time, with its start; CPU of the server is that of its backends that
ended meanwhile. mwaa-dr comes from its package, into an environment of its own (.cache/benchmarks). With --folder the
filled databases stay, and are used again.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any, Callable

import harness
import history_rows
from mwaa_lab import processes
from mwaa_lab.airflow import install, postgres
from mwaa_lab.airflow.database import OnPostgres
from mwaa_lab.airflow.instance import Airflow
from mwaa_lab.airflow.versions import VERSIONS
from mwaa_lab.labdir import LabDir

HERE = Path(__file__).parent
CACHE = harness.ROOT / ".cache" / "benchmarks"
PEER = "mwaa-dr==2.2.0"
VERSION = "2.10.3"
TABLES = ("xcom", "task_instance", "log", "job", "dag_run", "task_fail")  # what mwaa-dr carries too; the largest first
# into tables with foreign keys: whose rows have to be there before
AFTER = {"task_instance": {"dag_run"}, "xcom": {"task_instance"}, "task_fail": {"task_instance"}}
INTO = ("dag_run", "log", "job", "task_instance", "xcom", "task_fail")
_NAMES = ", ".join(f"'{name}'" for name in TABLES)
PLAIN = f"""
SELECT 'index', format('DROP INDEX %I', indexname), indexdef FROM pg_indexes WHERE schemaname = 'public'
  AND tablename IN ({_NAMES}) AND indexname NOT IN (SELECT conname FROM pg_constraint)
UNION ALL SELECT 'key', format('ALTER TABLE %s DROP CONSTRAINT %I', conrelid::regclass, conname),
  format('ALTER TABLE %s ADD CONSTRAINT %I %s', conrelid::regclass, conname, pg_get_constraintdef(oid))
  FROM pg_constraint WHERE contype = 'f' AND conrelid::regclass::text IN ({_NAMES})
"""
LABELS = {
    "copy": "psql: two `\\copy` at once, `gzip -1`",
    "copy_rebuilt": "psql, indexes and foreign keys made after",
    "agent": "this collection's agent",
    "agent_rebuilt": "the agent, `rebuild_indexes`",
    "peer": "mwaa-dr 2.2.0",
}


class Bench:
    """A lab's PostgreSQL with generated histories, and what runs against it."""

    def __init__(self, folder: Path, work: Path):
        self.lab, self.work = LabDir(folder), work
        if not self.lab.exists():
            self.lab.create({})
        postgres.SETTINGS.update(shared_buffers="2GB", max_wal_size="16GB")
        self.server = postgres.Postgres(self.lab)
        self.server.ensure()
        self.python = install.base(VERSIONS[VERSION]) / "bin" / "python"
        self.made = 0
        self._fresh("empty", lambda database: None)

    def _fresh(self, name: str, fill: Callable[[OnPostgres], None]) -> OnPostgres:
        """The database of this name, made once: half of one is thrown away."""
        database, draft = OnPostgres(self.server, name), OnPostgres(self.server, f"{name}-draft")
        if self.server.sql("postgres", f"SELECT 1 FROM pg_database WHERE datname = '{name}'").strip():
            return database
        draft.drop()
        row = VERSIONS[VERSION]
        Airflow(self.lab, draft, None, row, name, self.lab.path, self.python).create_database()  # type: ignore[arg-type]
        fill(draft)
        draft.sql("VACUUM ANALYZE")
        self.server.replace(name, draft.name)
        return database

    def history(self, task_instances: int) -> str:
        """The database with the history of this size, to be read only."""
        name = f"history-{task_instances}"
        self._fresh(name, lambda draft: history_rows.fill(draft.sql, task_instances, beside=True))
        return name

    def copy_of(self, name: str) -> str:
        self.made += 1
        copy = f"work-{self.made}"
        self.server.drop(copy)
        self.server.sql("postgres", f'CREATE DATABASE "{copy}" TEMPLATE "{name}" STRATEGY FILE_COPY')
        self.server.sql("postgres", "CHECKPOINT")
        return copy

    def target(self) -> str:
        return self.copy_of("empty")

    def connection(self, database: str) -> dict[str, Any]:
        return {"host": "127.0.0.1", "port": self.server.port, "user": "postgres", "dbname": database}

    def cpu(self) -> float:
        """Seconds of the server and of its children that ended."""
        record = processes.alive(self.lab, postgres.NAME)
        assert record
        fields = Path(f"/proc/{record.pid}/stat").read_text().rpartition(")")[2].split()
        return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")

    def measured(self, act: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """What act gives, with seconds, and CPU seconds of both sides."""
        before, used, begun = self.cpu(), resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
        found = act()
        seconds = time.monotonic() - begun
        time.sleep(0.5)  # until the server has seen its backends end
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        client = after.ru_utime + after.ru_stime - used.ru_utime - used.ru_stime
        return {**found, "seconds": seconds, "client": client, "server": self.cpu() - before}

    def psql(self, database: str) -> str:
        login = f"-h 127.0.0.1 -p {self.server.port} -U postgres -d {database}"
        return f"{postgres.binaries()}/psql -X -q -v ON_ERROR_STOP=1 {login}"

    def counts(self, database: str) -> dict[str, int]:
        counted = " UNION ALL ".join(f"SELECT '{name}', count(*) FROM {name}" for name in TABLES)
        lines = self.server.sql(database, counted).split()
        return {name: int(rows) for name, rows in (line.split("|") for line in lines)}

    # ------------------------------------------------------------------------------------------------------- psql

    def copy_out(self, source: str, folder: Path) -> dict[str, Any]:
        one = f"set -o pipefail; {self.psql(source)} -c '\\copy (select * from {{}}) to stdout' | gzip -1"
        run(["xargs", "-P", "2", "-I{}", "bash", "-c", one + f" > {folder}/{{}}.gz"], "\n".join(TABLES))
        return {"bytes": sum(file.stat().st_size for file in folder.glob("*.gz"))}

    def copy_in(self, target: str, folder: Path, rebuild: bool = False) -> dict[str, Any]:
        plain = [line.split("|", 2) for line in self.server.sql(target, PLAIN).splitlines()] if rebuild else []
        if plain:
            self.server.sql(target, "; ".join(drop for _kind, drop, _make in reversed(plain)))

        def load(name: str) -> None:
            line = f"gzip -dc {folder}/{name}.gz | {self.psql(target)} -c '\\copy {name} from stdin'"
            run(["bash", "-c", f"set -o pipefail; {line}"])

        after = {} if rebuild else AFTER
        two_at_once({name: lambda name=name: load(name) for name in INTO}, after)
        for kind in ("index", "key"):
            made = [make for one, _drop, make in plain if one == kind]
            two_at_once({make: lambda make=make: run(["bash", "-c", self.psql(target)], make) for make in made}, {})
        return {}

    # ------------------------------------------------------------------------------------------------------ agent

    def agent(self, database: str, folder: Path, *requests: dict[str, Any]) -> dict[str, Any]:
        document = {"agent": str(harness.ROOT / "plugins" / "agent"), "folder": str(folder), "requests": requests}
        document["connection"] = self.connection(database)
        return json.loads(run([self.python, "-B", HERE / "history_agent.py"], json.dumps(document)))

    def agent_out(self, source: str, folder: Path, name: str = "b1", **options: Any) -> dict[str, Any]:
        options = {"tables": TABLES, **options}
        said = self.agent(source, folder, {"op": "export", "name": name, **options})
        return {**said["answers"][0], "above": said["peak_kb"] - said["bare_kb"]}

    def agent_in(
        self, target: str, folder: Path, export: dict[str, Any], bundle: str = "b1", rebuild: bool = False
    ) -> dict[str, Any]:
        about = {"bundle": bundle, "source": "bench", "columns": export["plan"]["columns"], "policy": "newer"}
        about["dags"] = sorted({dag for table in export["digests"].values() for dag in table} - {"\\N", ""})
        requests = [
            {"op": "import_history", **about, "pieces": export["pieces"], "rebuild_indexes": rebuild},
            {"op": "finish_history", "tables": list(about["columns"])},
        ]
        said = self.agent(target, folder, *requests)
        answer = said["answers"][0]
        assert not answer["left"], answer["left"]
        rows = {key: sum(row[key] for row in answer["tables"].values()) for key in ("rows", "inserted", "updated")}
        return {**rows, "listed": len(answer["listed"]), "above": said["peak_kb"] - said["bare_kb"]}

    def verify(self, target: str, folder: Path, export: dict[str, Any]) -> dict[str, Any]:
        tables = [name for name in export["digests"] if name not in ("dag", "log_template")]
        request = {
            **{"op": "verify_history", "source": "bench", "columns": export["plan"]["columns"], "tables": tables},
            **{"scope": export["plan"]["scope"], "digest_key": "a2tra2tra2tra2tra2tra2tra2tra2tra2tra2tra2s="},
            "dags": sorted({dag for table in export["digests"].values() for dag in table} - {"\\N", ""}),
        }
        said = self.agent(target, folder, request)["answers"][0]["digests"]
        for table in tables:
            assert said[table] == export["digests"][table], f"{table} did not arrive as it was"
        return {}

    # ------------------------------------------------------------------------------------------------------- peer

    def peer_python(self) -> Path:
        """An environment of its own: mwaa-dr from its package, and the Airflow that the lab has."""
        folder = CACHE / PEER.replace("==", "-")
        python = folder / "bin" / "python"
        if not (folder / "ready").exists():
            uv = harness.ROOT / ".cache" / "uv" / "bin" / "uv"
            run([uv, "venv", "--quiet", "--allow-existing", "--python", self.python.resolve(), folder])
            run([uv, "pip", "install", "--quiet", "--python", python, PEER])
            airflow = "import airflow, pathlib; print(pathlib.Path(airflow.__file__).parents[1])"
            place = "import sysconfig; print(sysconfig.get_paths()['purelib'])"
            lines = run([self.python, "-c", airflow]), run([python, "-c", place])
            (Path(lines[1].strip().splitlines()[-1]) / "airflow.pth").write_text(lines[0].strip().splitlines()[-1])
            (folder / "ready").touch()
        return python

    def peer(self, what: str, database: str, folder: Path) -> dict[str, Any]:
        home = folder / "home"
        home.mkdir(exist_ok=True)
        environment = {
            "AIRFLOW_HOME": str(home),
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": self.server.url(database),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        }
        said = json.loads(
            run([self.peer_python(), "-B", HERE / "history_peer.py", what], more=environment).splitlines()[-1]
        )
        size = sum(file.stat().st_size for file in (home / "dags" / "data").glob("*.csv"))
        return {
            "bytes": size,
            "peak": said["peak_kb"],
            "above": said["peak_kb"] - said["bare_kb"],
            "tables": said["seconds"],
        }


def run(argv: list[Any], stdin: str = "", more: dict[str, str] | None = None) -> str:
    environ = {**os.environ, "LC_ALL": "C.UTF-8", **(more or {})}
    done = subprocess.run(argv, input=stdin, capture_output=True, text=True, env=environ, check=False)
    if done.returncode:
        sys.exit(f"{argv[:3]} ended with {done.returncode}: {done.stderr[-2000:]}")
    return done.stdout


def two_at_once(jobs: dict[str, Callable[[], None]], after: dict[str, set[str]]) -> None:
    """All of these, each when what it comes after is done."""
    waiting, running, done = list(jobs), {}, set()  # type: ignore[var-annotated]
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        while waiting or running:
            ready = [name for name in waiting if after.get(name, set()) <= done]
            for name in ready[: 2 - len(running)]:
                waiting.remove(name)
                running[pool.submit(jobs[name])] = name
            for future in concurrent.futures.wait(running, return_when=concurrent.futures.FIRST_COMPLETED).done:
                future.result()
                done.add(running.pop(future))


def in_turns(bench: Bench, size: int, number: int) -> dict[str, dict[str, Any]]:
    """One round: {what was done: what it took}."""
    found: dict[str, dict[str, Any]] = {}
    folders = {name: bench.work / f"{name}-{number}" for name in ("copy", "agent", "peer")}
    for folder in folders.values():
        folder.mkdir()
    source = bench.copy_of(bench.history(size))
    rows = bench.counts(source)

    def take(name: str, act: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        found[name] = bench.measured(act)
        shown = {key: value for key, value in found[name].items() if isinstance(value, (int, float))}
        print(number + 1, name, {key: round(value, 2) for key, value in shown.items()}, flush=True)
        return found[name]

    outs = {
        "copy": lambda: bench.copy_out(source, folders["copy"]),
        "agent": lambda: bench.agent_out(source, folders["agent"]),
        "peer": lambda: bench.peer("backup", source, folders["peer"]),
    }
    names = list(outs)
    for name in names[number % 3 :] + names[: number % 3]:  # the first one changes
        take(f"{name} out", outs[name])
    export = found["agent out"]
    targets = {}
    ins = {
        "copy": lambda target: bench.copy_in(target, folders["copy"]),
        "copy_rebuilt": lambda target: bench.copy_in(target, folders["copy"], rebuild=True),
        "agent": lambda target: bench.agent_in(target, folders["agent"], export),
        "agent_rebuilt": lambda target: bench.agent_in(target, folders["agent"], export, rebuild=True),
        "peer": lambda target: bench.peer("restore", target, folders["peer"]),
    }
    names = list(ins)
    for name in names[number % 5 :] + names[: number % 5]:
        targets[name] = bench.target()
        take(f"{name} in", lambda name=name: ins[name](targets[name]))
        arrived = bench.counts(targets[name])
        # mwaa-dr leaves jobs out that belong to no DAG, and each database has a few log rows of its own
        short = {table: rows[table] - arrived[table] for table in TABLES if arrived[table] < rows[table]}
        assert not short or (name == "peer" and set(short) <= {"job"}), f"{name} lost {short}"
        if name != "agent":
            bench.server.drop(targets[name])
    target, folder = targets["agent"], folders["agent"]
    take("verify", lambda: bench.verify(target, folder, export))
    take("again", lambda: bench.agent_in(target, folder, export))
    other = take("beside out", lambda: bench.agent_out(source, folder, "beside", tables=history_rows.BESIDE))
    take("beside in", lambda: bench.agent_in(target, folder, other, "beside"))
    take("staged", lambda: bench.agent_in(target, folder, export, "b2"))
    assert found["staged"]["inserted"] == found["staged"]["updated"] == 0
    bench.server.sql(source, history_rows.CHANGE)
    delta = take("delta out", lambda: bench.agent_out(source, folder, "delta", after=export["plan"]["mark"]))
    take("delta in", lambda: bench.agent_in(target, folder, delta, "b3"))
    for database in (target, source):
        bench.server.drop(database)
    run(["rm", "-rf", *folders.values()])
    return found


def report(size: int, rounds: list[dict[str, dict[str, Any]]]) -> str:
    def middle(name: str, key: str) -> float:
        return median(one[name][key] for one in rounds)

    def spread(name: str) -> str:
        each = [one[name]["seconds"] for one in rounds]
        return f"{median(each):.1f}" + (f" ({min(each):.1f} to {max(each):.1f})" if len(each) > 1 else "")

    def times(slow: str, fast: str) -> str:
        return f"{middle(slow, 'seconds') / middle(fast, 'seconds'):.2f}"

    last = rounds[-1]
    rows = last["agent out"]["rows"]
    # memory: above a bare start of the same Python
    head = "| | seconds | rows/s | CPU: client | CPU: server | MB written | MB, largest process |"
    lines = [
        "## Run history",
        "",
        f"{rows:,} rows: {size:,} task instances, {size // 5:,} runs, {size // 2:,} XComs, {size:,} log rows and what"
        f" belongs to them, Airflow {VERSION} on both sides, one PostgreSQL without fsync; {len(rounds)} rounds, all in"
        " turns, medians (and extremes).",
        "",
        "### Export",
        "",
        head,
        "|---|---|---|---|---|---|---|",
    ]
    for name in ("copy", "agent", "peer"):
        key = f"{name} out"
        above = f"{middle(key, 'above') / 1024:.0f}" if "above" in last[key] else ""
        columns = [LABELS[name], spread(key), f"{rows / middle(key, 'seconds'):,.0f}"]
        columns += [f"{middle(key, side):.1f}" for side in ("client", "server")]
        columns += [f"{middle(key, 'bytes') / 1e6:,.0f}", above]
        lines.append(f"| {' | '.join(columns)} |")
    lines += [
        "",
        f"The agent needs {times('agent out', 'copy out')} of the time of the two pipelines and is"
        f" {times('peer out', 'agent out')} times as fast as mwaa-dr, with"
        f" {middle('agent out', 'bytes') / middle('peer out', 'bytes'):.2f} of its bytes.",
        "",
        "### Import into empty tables",
        "",
        head.replace(" MB written |", ""),
        "|---|---|---|---|---|---|",
    ]
    for name in ("copy", "copy_rebuilt", "agent", "agent_rebuilt", "peer"):
        key = f"{name} in"
        above = f"{middle(key, 'above') / 1024:.0f}" if "above" in last[key] else ""
        columns = [LABELS[name], spread(key), f"{rows / middle(key, 'seconds'):,.0f}"]
        columns += [f"{middle(key, side):.1f}" for side in ("client", "server")] + [above]
        lines.append(f"| {' | '.join(columns)} |")
    lines += [
        "",
        f"With all indexes the agent needs {times('agent in', 'copy in')} of the time of two COPYs and is"
        f" {times('peer in', 'agent in')} times as fast as mwaa-dr; with `rebuild_indexes`"
        f" {times('agent_rebuilt in', 'copy_rebuilt in')} of what psql needs for the same,"
        f" {times('peer in', 'agent_rebuilt in')} times as fast as mwaa-dr. The agent's figures hold its ledger and"
        " ANALYZE at the end; mwaa-dr writes to local files, and its processes are forked from one that has imported"
        " Airflow, which its tasks are not. Memory is what the largest process has above its bare start.",
        "",
        "### What else there is",
        "",
        "| | seconds | rows | |",
        "|---|---|---|---|",
    ]
    for name, label, key, note in (
        ("verify", "verify: counts and digests of all that arrived", "", "all equal"),
        ("again", "the same import again", "rows", "nothing is read or written"),
        ("staged", "another full export of the same rows", "rows", "each is looked at, none changed"),
        ("delta out", "delta: one run of 100 new, one of 100 cleared, one of 1,000 deleted; export", "rows", ""),
        ("delta in", "its import", "rows", ""),
        ("beside out", "the tables that neither peer carries, export", "rows", ""),
        ("beside in", "their import", "rows", ""),
    ):
        count = f"{last[name][key]:,}" if key else f"{rows:,}"
        lines.append(f"| {label} | {spread(name)} | {count} | {note} |")
    spent: dict[str, float] = {}
    for table, _rows, _raw, seconds in last["agent out"]["by_table"]:
        spent[table] = spent.get(table, 0) + seconds
    parts = ", ".join(f"{table} {seconds:.1f}" for table, seconds in sorted(spent.items(), key=lambda one: -one[1]))
    lines += [
        "",
        f"Where the time goes: an export's seconds by table, over both processes: {parts} s. An import's client uses"
        f" {middle('agent in', 'client'):.1f} of {middle('agent in', 'client') + middle('agent in', 'server'):.1f} CPU"
        f" seconds; the rest is the server's, and indexes and foreign keys are"
        f" {middle('agent in', 'server') - middle('agent_rebuilt in', 'server'):.1f} s more of it when they are kept"
        " row by row than when they are made at the end.",
        "",
        f"Machine: {harness.machine()}. `python tests/benchmarks/bench_history.py --task-instances {size} --rounds"
        f" {len(rounds)} --publish`",
    ]
    return "\n".join(lines)


def memory(bench: Bench, sizes: list[int]) -> str:
    lines = [
        "## Memory of an export and an import",
        "",
        "Megabytes of the largest process above a bare start of the same Python with the agent's files.",
        "",
        "| task instances | rows | export | import |",
        "|---|---|---|---|",
    ]
    for size in sizes:
        folder = bench.work / f"memory-{size}"
        folder.mkdir()
        source = bench.history(size)
        export = bench.agent_out(source, folder)
        target = bench.target()
        arrived = bench.agent_in(target, folder, export)
        bench.server.drop(target)
        run(["rm", "-rf", folder])
        above = [f"{one['above'] / 1024:.0f}" for one in (export, arrived)]
        lines.append(f"| {size:,} | {export['rows']:,} | {' | '.join(above)} |")
        print(lines[-1], flush=True)
    lines += ["", f"`python tests/benchmarks/bench_history.py --memory {','.join(map(str, sizes))} --publish`"]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task-instances", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--memory", help="sizes, with commas: only the memory of each")
    parser.add_argument("--folder", type=Path, help="of the lab: kept, and used again")
    parser.add_argument("--publish", action="store_true", help="write docs/performance.md")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="history-") as temporary:
        bench = Bench(arguments.folder or Path(temporary) / "lab", Path(temporary))
        try:
            if arguments.memory:
                text = memory(bench, [int(size) for size in arguments.memory.split(",")])
            else:
                bench.peer_python()
                size = arguments.task_instances
                text = report(size, [in_turns(bench, size, number) for number in range(arguments.rounds)])
        finally:
            for number in range(1, bench.made + 1):
                bench.server.drop(f"work-{number}")
            processes.stop_all(bench.lab)
            if not arguments.folder:
                bench.lab.remove()
    print(text)
    if arguments.publish:
        harness.publish("history memory" if arguments.memory else "history", text)


if __name__ == "__main__":
    main()
