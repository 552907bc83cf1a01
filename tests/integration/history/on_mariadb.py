# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The lab's MariaDB, with tables as Airflow makes them on MySQL."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mwaa_lab import processes
from mwaa_lab.airflow.mariadb import MariaDb
from mwaa_lab.labdir import LabDir

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


class MariaDB:
    """A server of its own, in a folder; `stop` when done."""

    def __init__(self, folder: Path):
        self.lab = LabDir(folder)
        self.lab.create({})
        server = MariaDb(self.lab)
        server.ensure()
        self.port = server.port

    def stop(self) -> None:
        processes.stop_all(self.lab)
        self.lab.remove()

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
