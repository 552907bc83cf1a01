# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whatever a source's own Airflow takes into its database is in the bundle byte for byte, or listed with the reason.

What was taken is what its own models read back: what they refuse to store is no state, what they alter is theirs.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import Lab
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parents[1] / "unit/state"))
from state_items import ANY, EXTRA, IDS, LONG, MAYBE, TEXT
from test_export import export, opened

pytestmark = pytest.mark.e2e

THOROUGH = settings(deadline=None, phases=[Phase.generate], database=None, suppress_health_check=list(HealthCheck))
NUMBER = 250

# More than any target holds: ids that are missing, empty or too long, NUL, numbers out of range. SQLite takes it all.
ODD = st.none() | st.sampled_from(["", " ", "K" * 300, "nul\0byte", "gAAAAAB", "{{ x }}", "null", "'; --"])
FIELDS = {
    "variables": {"key": IDS | ODD, "value": ANY | LONG | ODD},
    "connections": {
        "conn_id": IDS | ODD,
        "conn_type": TEXT | ODD,
        "description": MAYBE,
        "host": MAYBE | ODD,
        "login": MAYBE | ODD,
        "password": MAYBE | ODD,
        "schema": MAYBE,
        "port": st.none() | st.integers(-1, 65536) | st.integers(-(2**31), 2**31 - 1),
        "extra": EXTRA | ODD,
    },
    "pools": {
        "pool": IDS | ODD,
        "slots": st.integers(-(2**31), 2**31 - 1),
        "description": MAYBE,
        "include_deferred": st.booleans(),
    },
}

# Each row in a transaction of its own; as Airflow encrypts it, and some in clear, as before there was a key.
LOAD = """
import json, os
from airflow import settings
from airflow.models import Connection, Pool, Variable
session, taken = settings.Session(), 0
for number, (kind, fields) in enumerate(json.load(open(os.environ["ITEMS"]))):
    made = {"variables": Variable, "connections": Connection, "pools": Pool}[kind]()
    try:
        for name, value in fields.items():
            if kind == "variables" and name == "value":
                name = "val"
            setattr(made, name, value)
        if number % 7 == 0 and kind == "variables":
            made._val, made.is_encrypted = fields["value"], False
        if number % 7 == 0 and kind == "connections":
            made._password, made.is_encrypted = fields["password"], False
            made._extra, made.is_extra_encrypted = fields["extra"], False
        session.add(made)
        session.commit()
        taken += 1
    except Exception:
        session.rollback()
print("TAKEN%d" % taken)
"""
READ = """
import json
from airflow import settings
from airflow.models import Connection, Pool, Variable
session = settings.Session()
fields = ("conn_type", "description", "host", "login", "password", "schema", "port", "extra")
print("STATE" + json.dumps({
    "variables": [[v.key, {"value": v.get_val(), "description": getattr(v, "description", None)}]
                  for v in session.query(Variable).order_by(Variable.id)],
    "connections": [[c.conn_id, {name: getattr(c, name, None) for name in fields}]
                    for c in session.query(Connection).order_by(Connection.id)],
    "pools": [[p.pool, {"slots": p.slots, "description": p.description,
                        "include_deferred": bool(getattr(p, "include_deferred", False))}]
              for p in session.query(Pool).order_by(Pool.id)],
}))
"""


def generated(number: int, start: int) -> list[tuple[str, dict[str, Any]]]:
    found: list[tuple[str, dict[str, Any]]] = []

    def some(kind: str) -> None:
        @seed(start)
        @settings(THOROUGH, max_examples=number)
        @given(item=st.fixed_dictionaries(FIELDS[kind]))
        def collect(item: dict[str, Any]) -> None:
            key = next(iter(FIELDS[kind]))
            if item[key] and len(found) % 4:
                item[key] = f"{item[key][:240]}{len(found)}"  # most are different ones
            found.append((kind, item))

        collect()

    for kind in FIELDS:
        some(kind)
    return found


@pytest.fixture(
    scope="module",
    params=[("1.10.12", "sqlite"), ("1.10.12", "postgresql"), ("2.2.2", "sqlite"), ("2.10.3", "postgresql")],
)
def source(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    version, database = request.param
    lab = Lab(tmp_path_factory.mktemp("lab"))
    try:
        lab.up("--source", version, "--source-database", database, "--seed-data", "none", "--engine", "stub")
        yield lab
    finally:
        lab.command("down", check=False)


def test_what_a_source_accepts_is_in_the_bundle_or_listed(
    source: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    items = tmp_path / "items.json"
    items.write_text(json.dumps(generated(NUMBER, 31)))
    taken = int(source.source_python(LOAD, ITEMS=str(items)).partition("TAKEN")[2])
    assert taken > NUMBER
    held = json.loads(source.source_python(READ).partition("STATE")[2])
    where = str(tmp_path / "bundle")
    result = export(source, where, transport="connection")
    assert result.get("changed"), result["msg"]
    listed = {(entry["kind"].replace("default_", ""), entry["id"]): entry["reason"] for entry in result["not_carried"]}
    bundle = opened(source, where, monkeypatch)
    for kind, rows in held.items():
        arrived = bundle.read_state(kind)
        for identifier, fields in rows:
            if (kind[:-1], "(NULL)" if identifier is None else identifier) in listed:
                continue
            assert identifier in arrived, f"{kind} {identifier!r} neither arrived nor is listed"
            item = arrived[identifier]
            item = item if isinstance(item, dict) else {"value": item, "description": None}
            assert item == fields, (kind, identifier)
        assert set(arrived) <= {identifier for identifier, _fields in rows}
        assert len(arrived) > NUMBER / 4
    assert not export(source, where, transport="connection")["changed"]
