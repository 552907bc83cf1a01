# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From an Airflow of any version to the tables of another: what tests of the import have in common."""

from __future__ import annotations

import hashlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import psycopg2
from mwaa_lab.airflow.postgres import Postgres
from mwaa_lab.labdir import LabDir

ROOT = Path(__file__).parents[3]
sys.path.insert(0, str(ROOT / "tests" / "unit" / "history"))
from small_airflow import KEY, SCHEMAS, VERSIONS, history  # noqa: E402

DDL = Path(__file__).parent / "schemas"


def load() -> ModuleType:
    path = ROOT / "plugins" / "agent" / "airflow_history_import.py"
    spec = importlib.util.spec_from_file_location("tested_airflow_history_import", path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.bind(history)
    return module


importing = load()
NOT_ROWS = ("dag", "log_template")  # the target's own: pause state goes to the ledger, templates go by their text


class Databases:
    """Databases of any version on the lab's PostgreSQL: the tables that history needs, as Airflow makes them."""

    def __init__(self, lab: LabDir):
        self.lab, self.server, self.made = lab, Postgres(lab), 0
        self.templates: dict[str, str] = {}

    def new(self, version: str, name: str = "") -> Database:
        self.made += 1
        name = name or f"target-{self.made}"
        self.server.copy(self._template(version), name)
        return Database(self.server, name, version)

    def _template(self, version: str) -> str:
        """One that has the version's tables, which may be those of an older one."""
        if version not in self.templates:
            tables = next(one for one in reversed(VERSIONS[: VERSIONS.index(version) + 1]) if ddl(one).exists())
            self.templates[version] = f"template-{tables}"
            if self.server.create(f"template-{tables}"):
                self.server.load(f"template-{tables}", ddl(tables))
            made = Database(self.server, f"template-{tables}", version).schema()
            columns = {table: set(made.get(table, ())) for table in SCHEMAS[version]}
            assert columns == {table: set(names) for table, names in SCHEMAS[version].items()}, f"schemas/ of {version}"
        return self.templates[version]


def ddl(version: str) -> Path:
    return DDL / f"{version}.sql"


class Database:
    def __init__(self, server: Postgres, name: str, version: str):
        self.server, self.name, self.version = server, name, version
        self.settings = {"host": "127.0.0.1", "port": server.port, "user": "postgres", "dbname": name}

    def connect(self) -> Any:
        return psycopg2.connect(**self.settings)

    def sql(self, statements: str) -> str:
        return self.server.sql(self.name, statements).strip()

    def target(self) -> Any:
        return importing.Target(self.connect())

    def engine(self) -> Any:
        return history.Engine("postgresql", self.connect())

    def schema(self) -> dict[str, dict[str, str]]:
        engine = self.engine()
        engine.connection.close()
        return engine.schema


class Lane:
    """A source's history, exported for a target's schema."""

    def __init__(self, engine: Any, schema: Any, name: str = "b1", **options: Any):
        self.name = name
        self.plan = history.make_plan(engine, target=schema, **{"part_bytes": 1 << 16, **options})
        self.columns = self.plan["columns"]
        self.pieces: list[dict[str, Any]] = []
        self.bodies: dict[str, bytes] = {}
        self.digests: dict[str, dict[str, list[Any]]] = {}
        self.faults: list[dict[str, Any]] = []
        for part in self.plan["parts"]:
            sink = lambda body, rows, raw, part=part: self._keep(part, body, rows)  # noqa: E731
            result = history.export_part(engine, part, self.plan["scope"], KEY, sink)
            self.faults += result["faults"]
            for dag, (rows, digest) in result["digests"].items():
                count, total = self.digests.setdefault(part["table"], {}).get(dag, [0, "0"])
                total = (int(total, 16) + int(digest, 16)) % 2**128
                self.digests[part["table"]][dag] = [count + rows, f"{total:032x}"]
        self.dags = sorted({dag for table in self.digests.values() for dag in table if dag != "\\N"})

    def _keep(self, part: dict[str, Any], body: bytes, rows: int) -> None:
        digest = hashlib.sha256(body).hexdigest()
        piece = {"table": part["table"], "sha256": digest, "rows": rows, "size": len(body)}
        if part.get("orphans"):
            piece["orphans"] = True
        self.pieces.append(piece)
        self.bodies[digest] = body

    def fetch(self, piece: dict[str, Any]) -> bytes:
        return self.bodies[piece["sha256"]]

    def bundle(self, policy: str = "skip", shift: int = 0) -> Any:
        return importing.Bundle(self.name, self.columns, self.dags, policy, shift)

    def into(self, database: Database, policy: str = "skip", shift: int = 0, **options: Any) -> dict[str, Any]:
        options = {"pieces": self.pieces, "fetch": self.fetch, **options}
        return importing.import_parts(database.connect, self.bundle(policy, shift), **options)

    def read_back(self, database: Database, shifts: tuple[int, int | None] = (0, None)) -> dict[str, Any]:
        engine = database.engine()
        try:
            tables = [table for table in self.columns if table not in NOT_ROWS]
            found = importing.verify(engine, tables, self.columns, self.plan["scope"], KEY, self.dags, shifts)
        finally:
            engine.connection.close()
        return {table: digests for table, digests in found.items() if digests}

    def sent(self) -> dict[str, Any]:
        return {table: digests for table, digests in self.digests.items() if table not in NOT_ROWS}
