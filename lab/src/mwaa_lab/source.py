# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The Airflow that is left: a host's own Airflow with a home, a configuration, DAGs that ran and state to carry.

``python -m mwaa_lab.source --dir DIR`` is the host: it keeps the scheduler running and answers SSH. ``prepare`` makes
it beforehand. Under ``DIR/source``: ``home`` (the SSH user's home, with ``airflow``, AIRFLOW_HOME, and ``venv``) and
``etc`` (systemd's EnvironmentFile and units, as the host would have them).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mwaa_lab import processes, ssh
from mwaa_lab.airflow import install, mariadb, versions
from mwaa_lab.airflow.database import Database, OnMariaDb, OnPostgres, OnSqlite
from mwaa_lab.airflow.instance import Airflow, fernet_key, tail
from mwaa_lab.airflow.postgres import Postgres
from mwaa_lab.labdir import LabDir, LabError, write_json
from mwaa_lab.seeds import eras
from mwaa_lab.seeds import state as seed

SEEDS = Path(__file__).parent / "seeds"
KEY = "source"
HOST_PROCESS = "host"
RUN_SECONDS = 400.0
START_SECONDS = 60.0
PARSE_SECONDS = {"none": "30", "small": "300", "large": "3600"}
"""After how long Airflow 2 reads a DAG file again that has not changed, by the seeds there are."""

SETUP = """\
from setuptools import setup

setup(name="acme-datalib", version="3.2.1.dev4", packages=["acme_datalib"])
"""

UNIT = """\
[Unit]
Description=Airflow {component}
After=network.target postgresql.service

[Service]
EnvironmentFile={environment}
User=airflow
ExecStart={venv}/python {venv}/airflow {component}
Restart=on-failure
RestartSec=5s

[Install]
WantedBy=multi-user.target
"""


@dataclass(frozen=True)
class Source:
    """Where the source's things are."""

    lab: LabDir

    @property
    def home(self) -> Path:
        return self.lab.source / "home"

    @property
    def airflow_home(self) -> Path:
        return self.home / "airflow"

    @property
    def python(self) -> Path:
        return self.home / "venv" / "bin" / "python"

    @property
    def environment_file(self) -> Path:
        return self.lab.source / "etc" / "airflow.env"

    @property
    def file(self) -> Path:
        return self.lab.source / "source.json"

    def airflow(self, supervisor: processes.Supervisor | None = None) -> Airflow:
        """The source's Airflow as its systemd units start it."""
        known = json.loads(self.file.read_text())
        row = versions.version(known["airflow_version"])
        airflow = Airflow(
            self.lab,
            self.database(known["database"]),
            supervisor or processes.Supervisor(self.lab),
            row,
            KEY,
            self.airflow_home,
            self.python,
            port=known["port"],
        )
        lines = [line for line in self.environment_file.read_text().splitlines() if line and not line.startswith("#")]
        host = self.lab.environment(HOME=str(self.home), USER=ssh.USER, LOGNAME=ssh.USER)
        host["PATH"] = f"{self.python.parent}:{host['PATH']}"
        # The modest settings go to these processes alone: they are the machine's, not part of what is migrated.
        # Files that changed are parsed at once however long this is; the others need not keep a core busy. But Airflow
        # 2.2 forgets when the next run of a DAG is due that has all the active runs it may have, until then.
        modest = airflow.modest()
        if row.major == 2:
            modest["AIRFLOW__SCHEDULER__MIN_FILE_PROCESS_INTERVAL"] = PARSE_SECONDS[known["seed_data"]]
        if row.major >= 3:
            modest |= airflow.addresses()
        airflow.environ = {**host, **modest, **dict(line.split("=", 1) for line in lines)}
        return airflow

    def database(self, kind: str) -> Database:
        """``kind``: postgresql, mariadb or sqlite."""
        if kind == "mariadb":
            return OnMariaDb(mariadb.MariaDb(self.lab), KEY)
        if kind == "sqlite":
            return OnSqlite(self.airflow_home / "airflow.db")
        return OnPostgres(Postgres(self.lab), KEY)

    def login_environment(self) -> dict[str, str]:
        """What a command over SSH finds: a login's environment, not that of the units."""
        environ = self.lab.environment(HOME=str(self.home), USER=ssh.USER, LOGNAME=ssh.USER, SHELL="/bin/sh")
        # Last on PATH and only for a machine that has no python3 of its own: Ansible's modules need one.
        environ["PATH"] += f":{self.lab.source / 'bin'}"
        environ["SYSTEMD_UNIT_PATH"] = str(self.environment_file.parent)  # where systemd would look for units
        return environ

    def describe(self) -> dict[str, Any] | None:
        """For ``mwaa-lab status``; None: the lab has no source."""
        if not self.file.exists():
            return None
        known = json.loads(self.file.read_text())
        door = self.lab.ssh / "server.json"
        return {
            **known,
            "pids": [entry.pid for entry in processes.members(processes.records(self.lab, f"{KEY}."))],
            "ssh": json.loads(door.read_text()) if door.exists() else None,
        }


def prepare(lab: LabDir, airflow_version: str, seed_data: str, say: Callable[[str], None]) -> None:
    """Make the source. :raises LabError: it cannot be made."""
    source = Source(lab)
    row = versions.version(airflow_version)
    install.base(row, say)
    for folder in (source.airflow_home, source.environment_file.parent, lab.source / "bin"):
        folder.mkdir(parents=True, exist_ok=True)
    python3 = lab.source / "bin" / "python3"
    if not python3.exists():
        python3.symlink_to(sys.executable)
    secret = seed.canary(lab.id)
    kind = lab.read()["asked"].get("source_database") or "postgresql"
    database = source.database(kind)
    login, password = "airflow", secret("database-password")
    database.ensure()
    url = database.url_of(login, password)

    install.overlay(row, source.home / "venv")
    if kind == "mariadb":
        install.uv_pip(source.python, mariadb.DRIVER)
    if seed_data != "none":
        _install_extras(source, row)
    values = {
        "@AIRFLOW_HOME@": str(source.airflow_home),
        "@DATABASE_URL@": url,
        "@FERNET_KEY@": fernet_key(),
        "= LocalExecutor": "= LocalExecutor" if row.major >= 3 else f"= {database.executor}",
    }
    configuration = eras.configuration(row, (SEEDS / "airflow.cfg").read_text())
    _render(configuration, source.airflow_home / "airflow.cfg", values, secret)
    _render((SEEDS / "airflow.env").read_text(), source.environment_file, values, secret)
    for component in row.components(8080):
        unit = UNIT.format(component=component, environment=source.environment_file, venv=source.python.parent)
        (source.environment_file.parent / f"airflow-{component}.service").write_text(unit)
    write_json(
        source.file,
        {
            "airflow_version": row.airflow,
            "airflow_home": str(source.airflow_home),
            "python": str(source.python),
            "database": kind,
            "database_url": url,
            "environment_file": str(source.environment_file),
            "seed_data": seed_data,
            "port": processes.free_port(),
        },
        mode=0o600,
    )
    airflow = source.airflow()
    say(f"source: Airflow {row.airflow}: database")
    airflow.create_database()
    if kind == "postgresql":
        role = f"create role {login} superuser login password '{password}'"
        database.sql(f"do $$ begin {role}; exception when duplicate_object then null; end $$")
    (source.airflow_home / "dags").mkdir(exist_ok=True)
    (source.airflow_home / "plugins").mkdir(exist_ok=True)
    if seed_data == "none":
        return
    _write_files(source, row)
    if seed_data == "large":
        many = source.airflow_home / "dags" / "tenants"
        many.mkdir(exist_ok=True)
        for number in range(seed.LARGE_DAG_FILES):
            (many / f"tenant_{number:04d}.py").write_text(eras.words(row, seed.large_dag(number)))
    state = seed.large(secret) if seed_data == "large" else seed.small(secret)
    say("source: " + ", ".join(f"{len(state[kind])} {kind}" for kind in ("variables", "connections", "pools", "users")))
    _load(airflow, state)


def _write_files(source: Source, row: versions.Version) -> None:
    """DAGs and plugins, as this version's users have them."""
    tree = SEEDS / "airflow_home"
    for path in sorted(tree.rglob("*")):
        name = path.relative_to(tree).as_posix()
        if path.is_dir() or "__pycache__" in name or not eras.belongs(row, name):
            continue
        place = source.airflow_home / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(eras.words(row, path.read_text()) if path.suffix == ".py" else path.read_text())


def _render(text: str, place: Path, values: dict[str, str], secret: seed.Canary) -> None:
    for name, value in values.items():
        text = text.replace(name, value)
    start = "@CANARY:"
    while start in text:
        before, _, rest = text.partition(start)
        what, _, after = rest.partition("@")
        text = before + secret(what) + after
    place.touch(mode=0o600)
    place.write_text(text)


def _install_extras(source: Source, row: versions.Version) -> None:
    """What a host gathers: packages that Airflow did not bring, and one of the company's own, editable."""
    listed = source.home / "src" / "extra-packages.txt"
    listed.parent.mkdir(exist_ok=True)
    listed.write_text(eras.packages(row, (SEEDS / "extra-packages.txt").read_text()))
    install.uv_pip(source.python, "--no-deps", "-r", listed)
    checkout = source.home / "src" / "acme-datalib"
    shutil.copytree(
        SEEDS / "private", checkout, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info")
    )
    if row.since(2, 9):
        install.uv_pip(source.python, "--no-deps", "--no-index", "--no-build-isolation", "--editable", checkout)
        return
    # Its setuptools makes nothing editable out of a pyproject.toml alone.
    (checkout / "pyproject.toml").unlink()
    (checkout / "setup.py").write_text(SETUP)
    words = [str(source.python), "setup.py", "--quiet", "develop", "--no-deps"]
    run = subprocess.run(words, cwd=checkout, env=install.installer_environment(), capture_output=True, text=True)
    if run.returncode:
        raise LabError(f"acme-datalib could not be installed: {run.stderr.strip()[-500:]}")


def _load(airflow: Airflow, state: dict[str, Any]) -> None:
    """Through standard input: seed secrets are secrets."""
    run = subprocess.run(
        [airflow.python, SEEDS / "load.py"],
        env=airflow.environ,
        cwd=airflow.home,
        input=json.dumps(state),
        capture_output=True,
        text=True,
        timeout=300,
    )
    if run.returncode:
        raise LabError(f"The source's state could not be written: {run.stderr.strip()[-1500:]}")
    if not airflow.row.since(2):  # later ones write the access_control of a DAG when they register it
        airflow.run(["sync_perm"])


def start(lab: LabDir) -> None:
    """Start the host process and wait until SSH answers. :raises LabError: it does not."""
    log = lab.logs / "host.log"
    door = lab.ssh / "server.json"
    door.unlink(missing_ok=True)
    argv = [sys.executable, "-m", "mwaa_lab.source", "--dir", str(lab.path)]
    host = processes.spawn(lab, HOST_PROCESS, argv, {**install.installer_environment(), **lab.environment()}, log)
    deadline = time.monotonic() + START_SECONDS + 60
    while not door.exists():
        if host.poll() is not None or time.monotonic() > deadline:
            raise LabError(f"The source's host does not start: {tail(log)}")
        time.sleep(0.05)


def wait_for_runs(lab: LabDir, say: Callable[[str], None]) -> None:
    """Until the seed's DAGs have run. :raises LabError: they do not."""
    source = Source(lab)
    airflow = source.airflow()
    deadline = time.monotonic() + RUN_SECONDS
    wanted = eras.runs(airflow.row, seed.RUNS)
    while time.monotonic() < deadline:
        rows = airflow.database.sql("select dag_id, count(*) from dag_run where state = 'success' group by dag_id")
        done = {dag_id: int(count) for dag_id, count in (row.split("|") for row in rows.split())}
        if all(done.get(dag_id, 0) >= count for dag_id, count in wanted.items()):
            say(f"source: {sum(done.values())} DAG runs done")
            return
        time.sleep(0.5)
    log = tail(airflow.home / "logs" / "scheduler.out")
    raise LabError(
        f"The source's DAGs did not finish in {RUN_SECONDS:.0f} s; they had run {done}. Its scheduler says:\n{log}"
    )


class Host:
    """The machine that the source runs on, as far as the lab has one."""

    def __init__(self, lab: LabDir) -> None:
        self.lab = lab
        self.source = Source(lab)
        self.supervisor = processes.Supervisor(lab)

    async def run(self) -> None:
        """Until SIGTERM."""
        stopping = asyncio.Event()
        for name in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(name, stopping.set)
        processes.end_with_folder(self.lab)
        airflow = self.source.airflow(self.supervisor)
        first, *others = airflow.row.seed_components
        airflow.start((first,))
        deadline = time.monotonic() + START_SECONDS
        while others and not await asyncio.to_thread(airflow.answers):
            # A task of Airflow 3 that finds no API server fails, and is tried again only after its retry delay.
            if stopping.is_set() or time.monotonic() > deadline:
                break
            await asyncio.sleep(0.3)
        if others:
            airflow.start(tuple(others))
        acceptor = await ssh.serve(self.lab, processes.free_port(), self.source.home, self.source.login_environment())
        while not stopping.is_set():
            try:
                await asyncio.wait_for(stopping.wait(), 3)
            except TimeoutError:
                await asyncio.to_thread(airflow.database.ensure)
        acceptor.close()
        await asyncio.to_thread(airflow.stop)


def main() -> None:
    parser = argparse.ArgumentParser(prog="mwaa_lab.source", description="The host of a lab's source.")
    parser.add_argument("--dir", required=True)
    asyncio.run(Host(LabDir(parser.parse_args().dir)).run())


if __name__ == "__main__":
    main()
