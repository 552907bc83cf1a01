# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Variables, connections and pools as Airflow stores them, and the checks a whole list passes before anything is done.

PRIVATE to the collection: no promise is made to other collections.

Values are what Airflow stores: a variable's value and a connection's extra are text, never parsed and written anew.
Limits are those of Airflow's tables (models/variable.py, models/connection.py, models/pool.py of 2.11.2 and 3.2.1).
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple, Optional, Union

from ansible_collections.mwaa.migration.plugins.module_utils._bundle import FIELDS, SINGULAR
from ansible_collections.mwaa.migration.plugins.module_utils._errors import Faults

ID_MAX = 250  # variable.key, connection.conn_id
POOL_NAME_MAX = 256  # slot_pool.pool
TEXT_MAX = {"conn_type": 500, "host": 500, "schema": 500}  # characters; the other columns are unlimited text
INT_MAX = 2**31 - 1
PORT_MAX = 65535
UNLIMITED_SLOTS = -1  # both majors take -1 as "unlimited" and refuse less

ID_OPTION = {"variables": "key", "connections": "conn_id", "pools": "name"}
SECRET_FIELDS = {"variables": ("value",), "connections": ("login", "password", "extra"), "pools": ()}


@dataclass(frozen=True)
class Variable:
    """key; value: text, as stored; description: text or None."""

    kind: ClassVar[str] = "variables"
    id: str
    value: str = field(repr=False)
    description: Optional[str] = None


@dataclass(frozen=True)
class Connection:
    """conn_id and its eight fields; extra is the JSON text as stored, not its content."""

    kind: ClassVar[str] = "connections"
    id: str
    conn_type: str
    description: Optional[str] = None
    host: Optional[str] = None
    login: Optional[str] = field(default=None, repr=False)
    password: Optional[str] = field(default=None, repr=False)
    schema: Optional[str] = None
    port: Optional[int] = None
    extra: Optional[str] = field(default=None, repr=False)


@dataclass(frozen=True)
class Pool:
    """name; slots: -1 is unlimited; include_deferred: deferred tasks count as running (Airflow 2.7 and later)."""

    kind: ClassVar[str] = "pools"
    id: str
    slots: int
    description: Optional[str] = None
    include_deferred: bool = False


Item = Union[Variable, Connection, Pool]
CLASSES: dict[str, Any] = {"variables": Variable, "connections": Connection, "pools": Pool}


class NotCarried(NamedTuple):
    """What does not arrive as it is, and why. kind in the singular, as reports show it."""

    kind: str
    id: str
    reason: str

    def shown(self) -> dict[str, str]:
        return self._asdict()


def values(item: Item) -> dict[str, Any]:
    """{field: value} of an item, every field, in the order of the bundle."""
    return {name: getattr(item, name) for name in FIELDS[item.kind]}


def from_options(kind: str, rows: Iterable[Any]) -> list[Item]:
    """A module's list. Raises MigrationError that names every bad item with its index and id, and every duplicate."""
    faults = Faults(f"{kind} are not valid, nothing was done")
    option = ID_OPTION[kind]
    items: list[Item] = []
    seen: dict[str, int] = {}
    for index, row in enumerate(rows):
        if not isinstance(row, dict):
            faults.add(f"index {index}: a dictionary with {option} is needed")
            continue
        identifier = row.get(option)
        where = f"index {index} ({option} {identifier!r})" if identifier else f"index {index}"
        fields = {name: row.get(name) for name in FIELDS[kind]}
        found = [*id_faults(kind, identifier), *_convert(kind, fields), *_field_faults(kind, fields)]
        if isinstance(identifier, str) and identifier:
            if identifier in seen:
                faults.add(f"index {seen[identifier]} and index {index} both define {option} {identifier!r}")
                continue
            seen[identifier] = index
        for fault in found:
            faults.add(f"{where}: {fault}")
        if not found:
            items.append(CLASSES[kind](id=identifier, **fields))
    faults.raise_if_any()
    return items


def from_bundle(kind: str, state: dict[str, Any]) -> tuple[list[Item], list[NotCarried]]:
    """The bundle's JSON in the format of Airflow's own CLI. What no Airflow of today can hold is listed, not fatal."""
    items: list[Item] = []
    refused: list[NotCarried] = []
    for identifier, stored in state.items():
        row = stored if isinstance(stored, dict) else {"value": stored}
        fields = {name: row.get(name) for name in FIELDS[kind]}
        if kind == "pools":
            fields["include_deferred"] = bool(fields["include_deferred"])
        found = [*id_faults(kind, identifier), *_field_faults(kind, fields)]
        if found:
            refused.append(NotCarried(SINGULAR[kind], identifier, "; ".join(found)))
        else:
            items.append(CLASSES[kind](id=identifier, **fields))
    return items, refused


def as_state(items: Iterable[Item]) -> dict[str, dict[str, Any]]:
    """{id: {field: value}}, the bundle's format and what the agent's import_state takes."""
    return {item.id: values(item) for item in items}


def json_object(text: str) -> dict[str, Any] | None:
    """The object that a text holds as JSON, as Airflow parses it; None where it is something else."""
    try:
        parsed = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return parsed if isinstance(parsed, dict) else None


def _convert(kind: str, fields: dict[str, Any]) -> list[str]:
    """Make of YAML's types what Airflow stores, where there is only one way; faults where there is not."""
    faults = []
    if kind == "variables" and isinstance(fields["value"], (dict, list)):
        fields["value"] = json.dumps(fields["value"], ensure_ascii=False)
    elif kind == "variables" and isinstance(fields["value"], (bool, int, float)):
        faults.append("value is a number or boolean, whose spelling YAML has changed already: put it in quotes")
        fields["value"] = ""
    if kind == "connections":
        if isinstance(fields["extra"], dict):
            fields["extra"] = json.dumps(fields["extra"], ensure_ascii=False)
        if isinstance(fields["port"], str) and fields["port"].strip().isdigit():
            fields["port"] = int(fields["port"])
        if fields["port"] == "":
            fields["port"] = None
    if kind == "pools":
        if isinstance(fields["slots"], str) and fields["slots"].strip().lstrip("-").isdigit():
            fields["slots"] = int(fields["slots"])
        fields["include_deferred"] = bool(fields["include_deferred"])
    return faults


def id_faults(kind: str, identifier: Any) -> list[str]:
    """Why Airflow's tables cannot hold this id."""
    option = ID_OPTION[kind]
    if identifier is None or identifier == "":
        return [f"{option} is missing"]
    if not isinstance(identifier, str):
        return [f"{option} must be text"]
    longest = POOL_NAME_MAX if kind == "pools" else ID_MAX
    if len(identifier) > longest:
        return [f"{option} has {len(identifier)} characters, Airflow takes {longest}"]
    return [f"{option} {fault}" for fault in _text_faults(identifier)]


def _field_faults(kind: str, fields: dict[str, Any]) -> list[str]:
    faults = []
    required = {"variables": "value", "connections": "conn_type", "pools": "slots"}[kind]
    if fields[required] is None or (kind == "connections" and fields[required] == ""):
        faults.append(f"{required} is missing")
    for name, value in fields.items():
        if value is None or name == "include_deferred":
            continue
        if name in ("port", "slots"):
            faults += _number_faults(name, value)
        elif not isinstance(value, str):
            faults.append(f"{name} must be text")  # never with the value: it may be a secret
        else:
            faults += [f"{name} {fault}" for fault in _text_faults(value)]
            if len(value) > TEXT_MAX.get(name, len(value)):
                faults.append(f"{name} has {len(value)} characters, Airflow takes {TEXT_MAX[name]}")
    return faults


def _number_faults(name: str, value: Any) -> list[str]:
    if isinstance(value, bool) or not isinstance(value, int):
        return [f"{name} must be a whole number"]
    if name == "port" and not 0 <= value <= PORT_MAX:
        return [f"port {value} is not between 0 and {PORT_MAX}"]
    if name == "slots" and not UNLIMITED_SLOTS <= value <= INT_MAX:
        return [f"slots {value} is not -1 (unlimited), 0 or more"]
    return []


def _text_faults(text: str) -> list[str]:
    if "\0" in text:
        return ["contains a NUL character, which PostgreSQL cannot hold"]
    if any("\ud800" <= character <= "\udfff" for character in text):
        return ["contains a lone surrogate, which is no Unicode text"]
    return []
