# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A MariaDB for a source: on 127.0.0.1 only, any login is let in. The system's, else Debian's packages, unpacked."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from functools import cached_property
from pathlib import Path

from mwaa_lab import processes
from mwaa_lab.airflow import install
from mwaa_lab.labdir import LabDir, LabError

NAME = "mariadb"
PACKAGES = ("mariadb-server-core", "mariadb-client-core", "mariadb-client", "liburing2", "libsnappy1v5", "libaio1")
DRIVER = "pymysql==1.1.1"
"""Of any Airflow: pure Python, 3.7 and later. mysqlclient has no wheels for Linux."""
SETTINGS = (
    "bind-address=127.0.0.1",
    "skip-grant-tables",
    "skip-name-resolve",
    "character-set-server=utf8mb4",
    "collation-server=utf8mb4_bin",
    "explicit-defaults-for-timestamp=1",
    "default-time-zone=+00:00",
    "max-connections=300",
)


def root() -> Path:
    """The folder under which usr/sbin/mariadbd and usr/bin/mariadb-dump are. :raises LabError: there is none."""
    if Path("/usr/sbin/mariadbd").exists() and Path("/usr/bin/mariadb-dump").exists():
        return Path("/")
    place = install.cache() / "mariadb"
    with install.locked("mariadb"):
        if place.exists():
            return place
        for tool in ("apt-get", "dpkg"):
            if not shutil.which(tool):
                raise LabError(f"There is no mariadbd, and no {tool} to get its packages with: install MariaDB.")
        draft = place.with_name(".mariadb")
        shutil.rmtree(draft, ignore_errors=True)
        packages = draft / "packages"
        packages.mkdir(parents=True)
        got = subprocess.run(["apt-get", "download", "-q", *PACKAGES], cwd=packages, capture_output=True, text=True)
        if got.returncode:
            raise LabError(f"There is no mariadbd, and apt-get cannot download it: {got.stderr.strip()[-200:]}")
        for package in packages.glob("*.deb"):
            subprocess.run(["dpkg", "-x", package, draft], check=True, capture_output=True)
        shutil.rmtree(packages)
        draft.rename(place)  # whole or not at all
    return place


class Programs:
    """MariaDB's, and what they need to be called with."""

    def __init__(self) -> None:
        self.root = root()
        libraries = [place for part in ("usr/lib", "lib") for place in self.root.glob(f"{part}/*-linux-gnu")]
        self.environment = {} if self.root == Path("/") else {"LD_LIBRARY_PATH": ":".join(map(str, libraries))}

    def client(self, program: str) -> list[str]:
        return [str(self.root / "usr" / "bin" / program), "--no-defaults", "--default-character-set=utf8mb4"]

    def server(self, data: Path) -> list[str]:
        share = self.root / "usr" / "share" / "mysql"
        argv = [str(self.root / "usr" / "sbin" / "mariadbd"), "--no-defaults", f"--datadir={data}"]
        argv += [f"--lc-messages-dir={share}", f"--character-sets-dir={share / 'charsets'}"]
        argv += ["--innodb-flush-log-at-trx-commit=0", "--innodb-buffer-pool-size=32M"]
        return [*argv, "--user=root"] if os.geteuid() == 0 else argv

    def initialise(self, data: Path) -> None:
        """:raises LabError: with the server's own last words."""
        (data / "mysql").mkdir(parents=True)
        share = self.root / "usr" / "share" / "mysql"
        tables = [(share / name).read_text() for name in ("mysql_system_tables.sql", "mysql_system_tables_data.sql")]
        run = subprocess.run(
            [*self.server(data), "--bootstrap"],
            input="use mysql;\n" + "\n".join(tables),
            text=True,
            env={"PATH": "/usr/bin:/bin", **self.environment},
            capture_output=True,
        )
        if run.returncode:
            raise LabError(f"MariaDB's tables could not be made: {run.stderr.strip()[-1000:]}")


class MariaDb:
    """The lab's server. ``DIR/mariadb/server.json`` holds its port, so any process of the lab can find it."""

    def __init__(self, lab: LabDir) -> None:
        self.lab = lab
        self.folder = lab.path / "mariadb"
        self.state = self.folder / "server.json"

    @cached_property
    def programs(self) -> Programs:
        return Programs()

    @property
    def port(self) -> int:
        return json.loads(self.state.read_text())["port"]

    def url(self, database: str, user: str = "root", password: str = "") -> str:
        login = f"{user}:{password}" if password else user
        return f"mysql+pymysql://{login}@127.0.0.1:{self.port}/{database}?charset=utf8mb4"

    def ensure(self) -> None:
        """Running when this returns. :raises LabError: it does not start, with its own last words."""
        if processes.alive(self.lab, NAME) and self.ready():
            return
        processes.stop_named(self.lab, NAME, 30)
        data = self.folder / "data"
        if not data.exists():
            draft = self.folder / f"data.{os.getpid()}"
            self.programs.initialise(draft)
            draft.rename(data)
        socket = f"--socket={self.lab.temp / 'mariadb'}"
        argv = [*self.programs.server(data), socket, *(f"--{setting}" for setting in SETTINGS)]
        processes.serve(
            self.lab, NAME, self.state, lambda port: [*argv, f"--port={port}"], self._environment(), self.ready
        )

    def _environment(self) -> dict[str, str]:
        return self.lab.environment(PYTHONPATH="", **self.programs.environment)

    def ready(self) -> bool:
        return self.state.exists() and self._client("mysql", "select 1", check=False).returncode == 0

    def _command(self, program: str, *words: str) -> list[str]:
        return [*self.programs.client(program), "--host=127.0.0.1", f"--port={self.port}", "--user=root", *words]

    def _client(self, database: str, sql: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        # The statements go by standard input: what is in arguments shows in the process list.
        run = subprocess.run(
            self._command("mariadb", "--batch", "--raw", "--skip-column-names", "--connect-timeout=5", database),
            env=self._environment(),
            input=sql,
            capture_output=True,
            text=True,
        )
        if check and run.returncode:
            raise LabError(f"MariaDB refused a statement in {database}: {run.stderr.strip()[-500:]}")
        return run

    def sql(self, database: str, statements: str) -> str:
        """Run statements; rows one a line, fields separated by |."""
        rows = [line.split("\t") for line in self._client(database, statements).stdout.splitlines()]
        return "".join("|".join("" if value == "NULL" else value for value in row) + "\n" for row in rows)

    def create(self, database: str) -> bool:
        """:return: False: it is there already."""
        if self.sql("mysql", f"show databases like '{database}'"):
            return False
        self.sql("mysql", f"create database `{database}` character set utf8mb4 collate utf8mb4_bin")
        return True

    def drop(self, database: str) -> None:
        self.sql("mysql", f"drop database if exists `{database}`")

    def dump(self, database: str, place: Path) -> None:
        """The whole database as SQL."""
        argv = self._command("mariadb-dump", "--single-transaction", "--hex-blob", database)
        processes.keep_output(argv, self._environment(), place)

    def load(self, database: str, place: Path) -> None:
        self._client(database, place.read_text())
