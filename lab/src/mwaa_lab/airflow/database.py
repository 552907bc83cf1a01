# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The database of one Airflow: in the lab's PostgreSQL or MariaDB, or a file of SQLite as small installations have."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol, Self

from mwaa_lab.airflow.mariadb import MariaDb
from mwaa_lab.airflow.postgres import Postgres
from mwaa_lab.labdir import LabError


class Database(Protocol):
    """What an Airflow's life needs of its database, whichever it is."""

    suffix: str
    """Of a file that holds a whole database."""
    executor: str
    """What Airflow 2 can run on it."""

    @property
    def url(self) -> str:
        """As SQLAlchemy has it."""

    def url_of(self, user: str, password: str) -> str:
        """The same with a login, where there is one."""

    def ensure(self) -> None:
        """Running when this returns."""

    def create(self) -> bool:
        """:return: False: it is there already."""

    def drop(self) -> None:
        """Gone, also if it never was."""

    def sql(self, statements: str) -> str:
        """Run statements; rows one a line, fields separated by |."""

    def dump(self, place: Path) -> None:
        """The whole database into a file."""

    def load(self, place: Path) -> None:
        """A dump into a database that was just created."""

    def scratch(self, home: Path) -> Database:
        """An empty one of the same kind."""


@dataclass(frozen=True)
class _OnServer:
    server: Postgres | MariaDb
    name: str
    executor = "LocalExecutor"

    @property
    def url(self) -> str:
        return self.server.url(self.name)

    def url_of(self, user: str, password: str) -> str:
        return self.server.url(self.name, user, password)

    def ensure(self) -> None:
        self.server.ensure()

    def create(self) -> bool:
        return self.server.create(self.name)

    def drop(self) -> None:
        self.server.drop(self.name)

    def sql(self, statements: str) -> str:
        return self.server.sql(self.name, statements)

    def dump(self, place: Path) -> None:
        self.server.dump(self.name, place)

    def load(self, place: Path) -> None:
        self.server.load(self.name, place)

    def scratch(self, home: Path) -> Self:
        return replace(self, name=f"{self.name}-template")


@dataclass(frozen=True)
class OnPostgres(_OnServer):
    server: Postgres
    suffix = ".sql"


@dataclass(frozen=True)
class OnMariaDb(_OnServer):
    server: MariaDb
    suffix = ".mariadb.sql"


@dataclass(frozen=True)
class OnSqlite:
    file: Path
    suffix = ".sqlite"
    executor = "SequentialExecutor"

    @property
    def url(self) -> str:
        return f"sqlite:///{self.file}"

    def url_of(self, user: str, password: str) -> str:
        return self.url

    def ensure(self) -> None:
        """A file is always there."""

    def create(self) -> bool:
        return not self.file.exists()

    def drop(self) -> None:
        self.file.unlink(missing_ok=True)

    def sql(self, statements: str) -> str:
        try:
            with contextlib.closing(sqlite3.connect(self.file, timeout=30)) as connection, connection:
                rows = []
                for statement in statements.split(";"):
                    rows += connection.execute(statement).fetchall()
        except sqlite3.Error as problem:
            raise LabError(f"SQLite refused a statement in {self.file}: {problem}") from problem
        return "".join("|".join("" if value is None else str(value) for value in row) + "\n" for row in rows)

    def dump(self, place: Path) -> None:
        draft = place.with_name(f".{place.name}.{os.getpid()}")
        _copy(self.file, draft)
        draft.replace(place)

    def load(self, place: Path) -> None:
        _copy(place, self.file)

    def scratch(self, home: Path) -> Database:
        return OnSqlite(home / "airflow.db")


def _copy(source: Path, target: Path) -> None:
    """By SQLite itself: what lies in its journal belongs to it."""
    target.touch(mode=0o600)
    with contextlib.closing(sqlite3.connect(source)) as old, contextlib.closing(sqlite3.connect(target)) as new:
        old.backup(new)
