# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A MariaDB on 127.0.0.1 that nobody installs: the system's, or Debian's packages unpacked into .cache/mariadb."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[3]
CACHE = ROOT / ".cache" / "mariadb"
PACKAGES = ("mariadb-server-core", "liburing2", "libsnappy1v5", "libaio1")
# Airflow's own columns on MySQL, by what PostgreSQL calls them
KINDS = {
    "bytea": "LONGBLOB",
    "double precision": "FLOAT",
    "boolean": "TINYINT(1)",
    "timestamp with time zone": "TIMESTAMP(6) NULL",
    "timestamp without time zone": "DATETIME(6) NULL",
    "json": "JSON",
    "text": "LONGTEXT",
}


class Missing(Exception):
    """Why there is none, for the reason of a skipped test."""


def folder() -> Path:
    """The root under which usr/sbin/mariadbd is. Raises Missing."""
    if Path("/usr/sbin/mariadbd").exists():
        return Path("/")
    root = CACHE / "root"
    if not (root / "usr" / "sbin" / "mariadbd").exists():
        for tool in ("apt-get", "dpkg"):
            if not shutil.which(tool):
                raise Missing(f"there is no mariadbd, and no {tool} to get its packages with")
        shutil.rmtree(CACHE, ignore_errors=True)
        packages = CACHE / "packages"
        packages.mkdir(parents=True)
        got = subprocess.run(["apt-get", "download", "-q", *PACKAGES], cwd=packages, capture_output=True, text=True)
        if got.returncode:
            raise Missing(f"there is no mariadbd, and apt-get cannot download it: {got.stderr.strip()[-200:]}")
        for package in packages.glob("*.deb"):
            subprocess.run(["dpkg", "-x", package, CACHE / "part"], check=True, capture_output=True)
        (CACHE / "part").rename(root)  # whole or not at all
    return root


class MariaDB:
    """A server of its own, in a folder; `stop` when done."""

    def __init__(self, data: Path):
        root, self.data = folder(), data
        libraries = [root / part / "x86_64-linux-gnu" for part in ("usr/lib", "lib")]
        self.environment = {"PATH": "/usr/bin:/bin", "LD_LIBRARY_PATH": ":".join(map(str, libraries))}
        share = root / "usr" / "share" / "mysql"
        self.command = [
            str(root / "usr" / "sbin" / "mariadbd"),
            "--no-defaults",
            f"--datadir={data}",
            f"--lc-messages-dir={share}",
            f"--character-sets-dir={share / 'charsets'}",
            "--innodb-flush-log-at-trx-commit=0",
            "--innodb-buffer-pool-size=32M",
        ]
        if os.geteuid() == 0:
            self.command.append("--user=root")
        (data / "mysql").mkdir(parents=True)
        tables = [(share / name).read_text() for name in ("mysql_system_tables.sql", "mysql_system_tables_data.sql")]
        subprocess.run(
            [*self.command, "--bootstrap"],
            input="use mysql;\n" + "\n".join(tables),
            text=True,
            env=self.environment,
            capture_output=True,
            check=True,
        )
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        options = ["--skip-grant-tables", "--bind-address=127.0.0.1", f"--port={self.port}", f"--socket={data / 's'}"]
        with (data / "server.log").open("wb") as log:
            self.process = subprocess.Popen(
                [*self.command, *options], env=self.environment, stdout=log, stderr=subprocess.STDOUT
            )
        self._wait()

    def _wait(self) -> None:
        for _attempt in range(300):
            try:
                self.connect(None).close()
                return
            except Exception:
                if self.process.poll() is not None:
                    break
                time.sleep(0.1)
        raise Missing(f"mariadbd does not start: {(self.data / 'server.log').read_text()[-500:]}")

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(60)

    def connect(self, database: str | None, **options: Any) -> Any:
        import pymysql

        options = {"charset": "utf8mb4", **options}
        return pymysql.connect(host="127.0.0.1", port=self.port, user="root", database=database, **options)

    def create(self, name: str, schema: dict[str, dict[str, str]]) -> None:
        """A database with these tables ({table: {column: PostgreSQL's type}}), as Airflow makes them on MySQL."""
        connection = self.connect(None, autocommit=True)
        with connection.cursor() as cursor:
            cursor.execute(f"CREATE DATABASE `{name}` CHARACTER SET utf8mb4 COLLATE utf8mb4_bin")
            cursor.execute(f"USE `{name}`")
            for table, columns in schema.items():
                described = []
                for column, kind in columns.items():
                    spelled = "INT AUTO_INCREMENT PRIMARY KEY" if column == "id" else KINDS.get(kind, kind)
                    if column != "id" and spelled == "character varying":
                        spelled = "LONGTEXT" if column in ("extra", "description", "content") else "VARCHAR(255)"
                    described.append(f"`{column}` {spelled}")
                cursor.execute(f"CREATE TABLE `{table}` ({', '.join(described)}) ROW_FORMAT=DYNAMIC")
        connection.close()


def copy(airflow: Any, connection: Any) -> None:
    """All rows of a SmallAirflow."""
    with connection.cursor() as cursor:
        for table, columns in airflow.schema.items():
            names = list(columns)
            for row in airflow.connection.execute(f'SELECT {", ".join(map(quoted, names))} FROM "{table}"').fetchall():
                marks = ", ".join(["%s"] * len(names))
                listed = ", ".join(f"`{name}`" for name in names)
                cursor.execute(f"INSERT INTO `{table}` ({listed}) VALUES ({marks})", row)
    connection.commit()


def quoted(name: str) -> str:
    return f'"{name}"'
