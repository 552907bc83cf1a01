# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The rest lane: variables, connections and pools through Airflow's REST API.

PRIVATE to the collection: no promise is made to other collections.

What Airflow's own code does, read and tried in 2.11.2 (/api/v1) and 3.2.1 (/api/v2), and what follows for us:
- Every write is noted in the table `log` with its body. A single connection call masks the password and those keys
  of extra that look sensitive; a single variable call masks the value only if the key looks sensitive; 3.x's bulk
  calls mask next to nothing. So secrets go by single calls, and a variable with a secret inside its JSON value does
  not go by REST at all (Masking.exposes).
- PATCH of a connection cannot take a password away, in both majors, and 3.x takes the password '***' for "as it
  was": these connections are deleted and made anew.
- 3.x's PATCH merges extra with what is there and writes the JSON anew; only where there is none it stores the text
  as it is: so it is taken away first.
- 2.x's POST of a variable overwrites; 3.x's answers 409.
- A path has 64 characters, so long ids are never put into one: 3.x's bulk delete names them in its body; 2.x has no
  way.
"""

from __future__ import annotations

import copy
import json
import re
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any
from urllib.parse import quote

from ansible_collections.mwaa.migration.plugins.module_utils._bundle import FIELDS, SINGULAR
from ansible_collections.mwaa.migration.plugins.module_utils._errors import DENIED, MigrationError
from ansible_collections.mwaa.migration.plugins.module_utils._mwaa import limits
from ansible_collections.mwaa.migration.plugins.module_utils._mwaa.rest import RestClient, RestError
from ansible_collections.mwaa.migration.plugins.module_utils._progress import progress
from ansible_collections.mwaa.migration.plugins.module_utils._state.compare import STARS, Change, Hidden
from ansible_collections.mwaa.migration.plugins.module_utils._state.model import (
    UNLIMITED_SLOTS,
    Connection,
    Item,
    NotCarried,
    Variable,
    json_object,
    values,
)

AT_ONCE = 8  # calls in flight, so that 1 s a call still makes use of the rate; RestClient paces them
BULK_ITEMS = 100  # entities of one bulk call, which must end within InvokeRestApi's 10 s
BULK_CHARACTERS = 512 * 1024  # of values of one bulk call
ATTEMPTS = 20  # of a call that is not repeated blindly; what stands before it waits for a service under load
CONN_ID = re.compile(r"[\w.-]{1,200}")  # helpers.validate_key (2.x), datamodels/connections.py (3.x)
PLAIN = re.compile(r"[A-Za-z0-9_.~-]+")  # needs no percent-encoding, whose way through MWAA is not documented
DEFERRED_SINCE = (2, 7)
FAILING = 20  # in a row: it is not that pools are unlimited
UNLISTABLE_SECONDS = 2.0  # a 500 that repeating does not mend

# DEFAULT_SENSITIVE_FIELDS (airflow/utils/log/secrets_masker.py of 2.11.2; airflow/_shared/secrets_masker of 3.2.1)
SENSITIVE = [
    "access_token",
    "api_key",
    "apikey",
    "authorization",
    "passphrase",
    "passwd",
    "password",
    "private_key",
    "proxy",
    "proxies",
    "secret",
    "token",
    "keyfile_dict",
    "service_account",
]
SENSITIVE_3 = ["access_key", "connection_string", "proxy_password"]


class Masking:
    """What the environment's Airflow masks, by its version and options (core.sensitive_var_conn_names, …)."""

    def __init__(self, major: int, options: dict[str, str] | None = None):
        options = options or {}
        more = options.get("core.sensitive_var_conn_names", "")
        names = [*SENSITIVE, *(SENSITIVE_3 if major >= 3 else []), *(name.strip() for name in more.split(","))]
        self.names = tuple(name for name in names if name)
        self.on = options.get("core.hide_sensitive_var_conn_fields", "True").strip().lower() not in ("false", "f", "0")

    def switched_on(self) -> Masking:
        """The same names, also where core.hide_sensitive_var_conn_fields is off."""
        other = copy.copy(self)
        other.on = True
        return other

    def hides(self, name: str) -> bool:
        """should_hide_value_for_key of both majors."""
        lowered = name.strip().lower()
        return self.on and any(sensitive in lowered for sensitive in self.names)

    def exposes(self, item: Item) -> str | None:
        """Why a single REST call would write a secret of this item into the log in clear; None where it would not."""
        if isinstance(item, Variable) and not self.hides(item.id):
            name = self._inside(_parsed(item.value))
            if name is not None:
                return f"its JSON value has the sensitive field {name!r}"
        return None

    def _inside(self, node: Any) -> str | None:
        if isinstance(node, dict):
            for name, value in node.items():
                if self.hides(name) and value not in (None, ""):
                    return name
        children = node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()
        return next((name for name in map(self._inside, children) if name is not None), None)


class Unlistable(MigrationError):
    """Pools that Airflow 2 cannot list: open_slots of an unlimited pool is infinite, which its schema refuses."""


class Failure(Exception):
    """An item that was not applied. final: nothing else will be either (throttled, denied, no answer)."""

    def __init__(self, reason: str, final: bool):
        super().__init__(reason)
        self.final = final


def without_empty_texts(item: Connection, major: int) -> tuple[Connection, NotCarried | None]:
    """The connection with null where this major version of Airflow keeps no empty text."""
    notes = []
    if item.password == "":
        item = replace(item, password=None)
        notes.append("password: an empty text arrives as null, Airflow stores no empty password")
    if item.extra == "" and major >= 3:
        item = replace(item, extra=None)
        notes.append("extra: an empty text arrives as null, Airflow 3 would make {} of it")
    return item, NotCarried("connection", item.id, "; ".join(notes)) if notes else None


class RestLane:
    """One kind of state of one environment.

    version: Airflow's, as numbers. masking: what that Airflow masks in its log.
    """

    name = "rest"

    def __init__(self, rest: RestClient, kind: str, version: tuple[int, ...], masking: Masking):
        if version < limits.REST_SINCE:
            since = ".".join(map(str, limits.REST_SINCE))
            raise MigrationError(
                f"Airflow {'.'.join(map(str, version))} of environment {rest.environment} has no REST API in MWAA"
                f" (it came with {since}): upgrade the environment first"
            )
        self.rest, self.kind, self.version, self.masking = rest, kind, version, masking
        self.major = version[0]

    # -- reading

    def read(self) -> dict[str, dict[str, Any]]:
        """{id: {field: value or Hidden}} of all there is, in pages."""
        key = {"variables": "key", "connections": "connection_id", "pools": "name"}[self.kind]
        found = {}
        budget = UNLISTABLE_SECONDS if self.kind == "pools" and self.version < (3, 2) else None
        try:
            for rows in self.rest.pages(f"/{self.kind}", self.kind, {"order_by": "id"}, budget=budget):
                for row in rows:
                    found[row[key]] = {name: self._field(name, row) for name in FIELDS[self.kind]}
        except RestError as error:
            if "open_slots" in error.detail:
                raise Unlistable(
                    f"environment {self.rest.environment} has a pool with unlimited slots (-1), which Airflow 2's"
                    " REST API fails to list (500): use lane agent"
                ) from None
            raise
        return found

    def read_one_by_one(self) -> tuple[dict[str, dict[str, Any]], int]:
        """As read(), of pools in pages of one: (those that are shown, how many are not).

        Airflow 3.0 answers 500, without a reason, where a page has a pool with unlimited slots (-1).
        """
        found: dict[str, dict[str, Any]] = {}
        failed: list[int] = []
        offset = 0
        while True:
            query = {"order_by": "id", "limit": 1, "offset": offset}
            try:
                rows = self.rest.call("GET", "/pools", query, budget=0).body["pools"]
            except RestError as error:
                if error.status != 500 or failed[-FAILING:] == list(range(offset - FAILING, offset)):
                    raise
                rows = [None]
                failed.append(offset)
            if not rows:
                return found, len(failed)
            for row in filter(None, rows):
                found[row["name"]] = {name: self._field(name, row) for name in FIELDS["pools"]}
            offset += 1

    def read_each(self, identifiers: Iterable[str]) -> dict[str, dict[str, Any]]:
        """As read(), of these pools alone and one by one, where all of them cannot be listed.

        An unlimited pool answers 500 by itself too. So it is there, with -1 slots, and its other fields stay unknown.
        """
        found = {}
        for identifier in identifiers:
            hidden: dict[str, Any] = {name: Hidden() for name in FIELDS[self.kind]}
            if len(self._path(identifier)) > limits.REST_PATH_MAX:
                found[identifier] = hidden
                continue
            try:
                reply = self.rest.call("GET", self._path(identifier), ok=(404,), budget=0)
            except RestError as error:
                if "open_slots" not in error.detail:
                    raise
                found[identifier] = {**hidden, "slots": -1}
                continue
            if reply.status != 404:
                found[identifier] = {name: self._field(name, reply.body) for name in FIELDS[self.kind]}
        return found

    def _field(self, name: str, row: dict[str, Any]) -> Any:
        value = row.get(name)
        if name == "include_deferred":
            return bool(value)  # 2.6 and older know no such field
        if self.major < 3:
            return Hidden() if name in ("password", "extra") else value
        if name == "password":
            return Hidden(present=value is not None)
        if name == "extra":
            return Hidden(present=value is not None, shown=value)
        if name == "value" and (STARS in str(value) or _is_json(str(value))):
            return Hidden(present=True, shown=value)
        return value

    # -- what can arrive

    def adapt(self, item: Item) -> tuple[Item | None, NotCarried | None]:
        """The item as this lane can bring it (None: not at all), and what of it does not arrive as it is."""

        def refused(reason: str) -> tuple[None, NotCarried]:
            return None, NotCarried(SINGULAR[self.kind], item.id, reason)

        if isinstance(item, Connection):
            if not CONN_ID.fullmatch(item.id):
                return refused("REST takes ids of letters, digits, '_', '.', '-' with at most 200 characters")
            if item.extra and not self._takes_extra(item.extra):
                return refused("extra is no JSON object, which Airflow's REST API refuses")
            return without_empty_texts(item, self.major)
        if isinstance(item, Variable):
            reason = self.masking.exposes(item)
            if reason:
                return refused(
                    f"{reason}, which REST would write into the audit log in clear; set kms_key_id or bundle"
                )
        elif item.slots == UNLIMITED_SLOTS and self.major < 3:
            return refused("unlimited slots (-1) break the list of pools of Airflow 2's REST API; use lane agent")
        elif item.include_deferred and self.version < DEFERRED_SINCE:
            note = "include_deferred: Airflow has it from 2.7 on"
            return replace(item, include_deferred=False), NotCarried(SINGULAR[self.kind], item.id, note)
        return item, None

    def _takes_extra(self, text: str) -> bool:
        # 2.x stores any text, but its log writer falls over JSON that is no object (www/decorators.py calls .items())
        return json_object(text) is not None or (self.major < 3 and not _is_json(text))

    def unreachable(self, change: Change) -> str | None:
        """Why this change of something that exists cannot be made although the item as such could be."""
        if change.action == "created" or self.major >= 3 or len(self._path(change.id)) <= limits.REST_PATH_MAX:
            return None
        if self.kind == "variables" and change.action != "deleted":
            return None  # POST overwrites
        return (
            f"it exists, and its path {self._path('')}… is longer than the {limits.REST_PATH_MAX} characters that MWAA"
            " takes; use lane agent"
        )

    # -- writing

    def apply(self, changes: list[Change], done: Callable[[list[Change]], None]) -> dict[str, str]:
        """Make the changes; `done` is told after each call. Returns {id: why not} of what was not applied.

        Can be stopped anywhere and run again. Items that Airflow refuses do not keep the others from being applied; a
        service that does not answer does.
        """
        self._require_masking(changes)
        errors: dict[str, str] = {}
        stop, lock = threading.Event(), threading.Lock()
        finished = 0

        def work(batch: list[Change]) -> None:
            nonlocal finished
            if stop.is_set():
                refused = {change.id: "not tried" for change in batch}
            else:
                try:
                    refused = self._bulk(batch) if len(batch) > 1 else self._single(batch[0])
                except Failure as failure:
                    refused = {change.id: str(failure) for change in batch}
                    if failure.final:
                        stop.set()
            with lock:
                errors.update(refused)
                finished += len(batch)
                done([change for change in batch if change.id not in refused])
                if finished % 50 < len(batch):
                    progress(f"{self.kind} of {self.rest.environment}: {finished} of {len(changes)} by REST")

        with ThreadPoolExecutor(AT_ONCE) as pool:
            for future in [pool.submit(work, batch) for batch in self._batches(changes)]:
                future.result()
        return errors

    def _require_masking(self, changes: list[Change]) -> None:
        if not self.masking.on and self.kind != "pools" and any(change.item is not None for change in changes):
            raise MigrationError(
                f"environment {self.rest.environment} has core.hide_sensitive_var_conn_fields=False, so Airflow would"
                f" write secrets of {self.kind} into its audit log in clear; remove that option, or use lane agent on"
                " Airflow 2"
            )

    def _batches(self, changes: list[Change]) -> Iterable[list[Change]]:
        """Bulk calls for what holds no secret on 3.x, a call each for the rest. A batch has one action."""
        batch: list[Change] = []
        size = 0
        for change in sorted(changes, key=lambda change: change.item is None):
            if self.major < 3 or not self._bulky(change):
                yield [change]
                continue
            length = sum(len(str(value)) for value in values(change.item).values()) if change.item else 0
            same_kind = not batch or (batch[0].item is None) == (change.item is None)
            if batch and (len(batch) >= BULK_ITEMS or size + length > BULK_CHARACTERS or not same_kind):
                yield batch
                batch, size = [], 0
            batch.append(change)
            size += length
        if batch:
            yield batch

    def _bulky(self, change: Change) -> bool:
        if change.item is None or self.kind == "pools":
            return True
        return isinstance(change.item, Variable) and not self.masking.hides(change.id)

    def _bulk(self, batch: list[Change]) -> dict[str, str]:
        action: dict[str, Any]
        if batch[0].item is None:
            action = {
                "action": "delete",
                "entities": [change.id for change in batch],
                "action_on_non_existence": "skip",
            }
        else:
            entities = [self._body(change.item) for change in batch if change.item]
            action = {"action": "create", "entities": entities, "action_on_existence": "overwrite"}
        answer = self._call("PATCH", f"/{self.kind}", {"actions": [action]}).get(action["action"]) or {}
        if batch[0].item is None:
            missed: set[str] = set()
        else:
            missed = {change.id for change in batch} - set(answer.get("success") or [])
        reasons = (
            "; ".join(str(error.get("error"))[:200] for error in answer.get("errors") or [])
            or "Airflow did not say why"
        )
        if answer.get("errors") and not missed:
            missed = {change.id for change in batch}
        return dict.fromkeys(missed, reasons)

    def _single(self, change: Change) -> dict[str, str]:
        item = change.item
        if self.major >= 3 and self._bulky(change):
            return self._bulk([change])
        if item is None:
            self._delete(change.id)
        elif self.kind == "variables" and self.major < 3:
            self._post_until(item, lambda: self._arrived(item))  # it overwrites
        elif change.action == "created":
            self._create(item)
        elif isinstance(item, Connection):
            self._update_connection(item, change)
        else:
            self._update(item)
        return {}

    def _create(self, item: Item) -> None:
        if self._post_until(item, lambda: self._exists(item.id)):
            return
        # it was there after all: an earlier, unanswered POST, or someone else's
        if isinstance(item, Connection):
            self._update_connection(item, None)
        else:
            self._update(item)

    def _post_until(self, item: Item, exists: Callable[[], bool]) -> bool:
        """POST, again where it has got lost. False: the item exists and is not known to be ours."""
        for attempt in range(ATTEMPTS):
            try:
                return self._call("POST", f"/{self.kind}", self._body(item), ok=(409,)) is not None
            except RestError as error:
                if not error.maybe_done or attempt + 1 == ATTEMPTS:
                    raise Failure(error.message, final=True) from None
            if exists():
                return False
        return False

    def _update_connection(self, item: Connection, change: Change | None) -> None:
        """change: None where nothing is known of what is there."""
        fields = set(FIELDS["connections"]) if change is None else {*change.changed, *change.unknown}
        before = (change.before if change else None) or {}
        password = before.get("password")
        had_password = not (isinstance(password, Hidden) and password.present is False)
        if (
            ("password" in fields and item.password is None and had_password)
            or (self.major >= 3 and "password" in fields and item.password == STARS)
            or not self._fits_path(item.id)
        ):
            self._remake(item)
            return
        extra = before.get("extra")
        had_extra = not (isinstance(extra, Hidden) and extra.present is False)
        identity = {"connection_id": item.id, "conn_type": item.conn_type}
        body = {name: value for name, value in values(item).items() if name in fields}
        if body.get("password", "") is None:
            del body["password"]  # there is none; v1 takes no null
        if self.major >= 3 and body.get("extra") is not None:
            self._replace_extra(item.id, {**identity, "extra": None}, {**identity, **body}, had_extra)
        else:
            self._call("PATCH", self._path(item.id), {**identity, **body})

    def _replace_extra(self, identifier: str, without: dict[str, Any], whole: dict[str, Any], had_extra: bool) -> None:
        """Take extra away and store the new one. Storing is not repeated by itself: the second time would merge."""
        for attempt in range(ATTEMPTS):
            if had_extra:
                self._call("PATCH", self._path(identifier), without)
            try:
                self._call("PATCH", self._path(identifier), whole, once=True)
                return
            except RestError as error:
                if attempt + 1 == ATTEMPTS:
                    raise Failure(error.message, final=True) from None
            had_extra = True

    def _update(self, item: Item) -> None:
        if self._fits_path(item.id):
            self._call("PATCH", self._path(item.id), self._body(item, whole=True))
        else:
            self._remake(item)

    def _remake(self, item: Item) -> None:
        """Deleted and made anew. Looking whether a lost POST arrived waits, too, until the service answers again."""
        self._delete(item.id)
        self._post_until(item, lambda: self._exists(item.id))

    def _delete(self, identifier: str) -> None:
        if self.major >= 3 and not self._fits_path(identifier):
            action = {"action": "delete", "entities": [identifier], "action_on_non_existence": "skip"}
            self._call("PATCH", f"/{self.kind}", {"actions": [action]})
        else:
            self._call("DELETE", self._path(identifier), ok=(404,))

    def _arrived(self, item: Item) -> bool:
        """Whether a variable of Airflow 2 is there as it was sent, as far as that can be asked."""
        if not self._fits_path(item.id):
            return False
        there = self._call("GET", self._path(item.id), ok=(404,)) or {}
        return all(there.get(name) == value for name, value in values(item).items())

    def _exists(self, identifier: str) -> bool:
        if self._fits_path(identifier):
            return self._call("GET", self._path(identifier), ok=(404,)) is not None
        return identifier in self.read()

    def _body(self, item: Item, whole: bool = False) -> dict[str, Any]:
        """What a POST or bulk create sends; nulls are left out (v1 refuses some) unless `whole`, to take away."""
        name = {"variables": "key", "connections": "connection_id", "pools": "name"}[self.kind]
        body = {name: item.id, **values(item)}
        if self.kind == "pools" and self.version < DEFERRED_SINCE:
            del body["include_deferred"]
        if whole and not (self.kind == "variables" and self.major < 3):
            return body
        return {key: value for key, value in body.items() if value is not None}

    def _fits_path(self, identifier: str) -> bool:
        path = self._path(identifier)
        return len(path) <= limits.REST_PATH_MAX and (self.major < 3 or PLAIN.fullmatch(identifier) is not None)

    def _path(self, identifier: str) -> str:
        return f"/{self.kind}/{quote(identifier, safe='')}"

    def _call(self, method: str, path: str, body: Any = None, ok: tuple[int, ...] = (), once: bool = False) -> Any:
        """The body of the answer ({} where there is none); None for a status of `ok`."""
        try:
            reply = self.rest.call(method, path, body=body, ok=ok, once=once)
        except RestError as error:
            if error.maybe_done:
                raise
            refused = error.status is not None and 400 <= error.status < 500 and error.status != 429
            denied = error.status in (401, 403) or error.code in DENIED
            raise Failure(error.message, final=denied or not refused) from None
        return None if reply.status in ok else reply.body or {}


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True
