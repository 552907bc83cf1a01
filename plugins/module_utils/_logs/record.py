# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a bundle holds of task logs, and what of them was brought into an environment.

PRIVATE to the collection: no promise is made to other collections.

`logs/manifest.json` names lists, lists name logs and the objects in which they lie; all of it is authenticated from the
bundle's key down. It may be read at any time: what it names is there. A ledger a DAG and environment says what was
copied: it is written as work goes on.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import threading
from collections import OrderedDict
from collections.abc import Iterable
from typing import Any

from ansible_collections.mwaa.migration.plugins.module_utils._bundle import Bundle, S3Store, check_path, sha256
from ansible_collections.mwaa.migration.plugins.module_utils._errors import MigrationError
from ansible_collections.mwaa.migration.plugins.module_utils._logs.layout import Attempt

FOLDER = "logs/"
MANIFEST = FOLDER + "manifest.json"
LISTS = FOLDER + "lists/"
PARTS = FOLDER + "parts/"
LEDGER = FOLDER + "ledger/"
LISTED = 1000  # logs by name in what is returned
REMEDY = f"remove {FOLDER} there and export the logs again"
CACHED = 6  # objects of at most about 12 MB


def is_sealed(bundle: Bundle) -> bool:
    """Whether objects are sealed with the bundle's key. A bucket encrypts what it keeps, a folder does not."""
    return not isinstance(bundle.store, S3Store)


def listed(not_carried: list[dict[str, str]], where: str) -> list[dict[str, str]]:
    """What stays behind, as all stages list it: the first by name, of the others how many there are."""
    more = len(not_carried) - LISTED
    others = {"kind": "log", "id": f"others, {where}", "reason": f"{more} more logs are not named here"}
    return not_carried[:LISTED] + ([others] if more > 0 else [])


def attempt_of(entry: dict[str, Any]) -> Attempt:
    return Attempt(
        entry["dag_id"], entry["run_id"], entry["task_id"], entry["map_index"], entry["attempt"], entry["suffix"]
    )


class Record:
    """A bundle's logs, DAG by DAG. Threads may read.

    remote: the URL of the source's remote logs, where entries without pieces lie. hosts: where logs came from.
    """

    def __init__(self, bundle: Bundle, document: dict[str, Any] | None = None):
        document = document or {}
        self.bundle = bundle
        self.remote: str | None = document.get("remote")
        self.hosts: list[str] = document.get("hosts") or []
        self.lists: dict[str, list[dict[str, Any]]] = document.get("lists") or {}
        self._objects: dict[str, tuple[int, str, str | None]] = {}
        self._cache: OrderedDict[str, bytes] = OrderedDict()
        self._locks: dict[str, threading.Lock] = {}
        self._lock = threading.Lock()

    @classmethod
    def open(cls, bundle: Bundle) -> Record | None:
        """None where the bundle has no logs; MigrationError where it was altered."""
        document = bundle.read_document(MANIFEST, REMEDY)
        return None if document is None else cls(bundle, document)

    def save(self) -> None:
        self.bundle.write_document(MANIFEST, {"remote": self.remote, "hosts": self.hosts, "lists": self.lists})

    def dags(self) -> list[str]:
        return sorted(self.lists)

    def entries(self, dag_id: str) -> list[dict[str, Any]]:
        """As the agent lists them, with pieces: [[object, at, bytes, size]]. Of one log exported twice the newest."""
        found: dict[Attempt, dict[str, Any]] = {}
        for listed in self.lists.get(dag_id, []):
            body = self._checked(listed["path"], listed["size"], listed["sha256"], listed.get("version_id"))
            head, *lines = gzip.decompress(body).splitlines()
            for path, (size, digest, version_id) in json.loads(head)["objects"].items():
                self._objects[path] = (size, digest, version_id)
            for line in lines:
                entry = json.loads(line)
                found.pop(attempt_of(entry), None)
                found[attempt_of(entry)] = entry
        return list(found.values())

    def add(self, dag_id: str, entries: list[dict[str, Any]], objects: dict[str, list[Any]]) -> None:
        """One more list. objects: {path: [size, sha256, version_id]} of those that the entries name."""
        used = {piece[0] for entry in entries for piece in entry.get("pieces") or ()}
        head = json.dumps({"objects": {path: objects[path] for path in sorted(used)}}, sort_keys=True)
        lines = [head, *(json.dumps(entry, sort_keys=True) for entry in entries)]
        body = gzip.compress("\n".join(lines).encode(), 6, mtime=0)
        path = f"{LISTS}{_name(dag_id)}-{sha256(body)[:16]}.gz"
        stored = self.bundle.store.write(path, self.bundle.seal(body) if is_sealed(self.bundle) else body)
        self.lists.setdefault(dag_id, []).append(
            {
                "path": path,
                "size": len(body),
                "sha256": sha256(body),
                "version_id": stored.version_id,
                "count": len(entries),
            }
        )

    def object(self, path: str) -> bytes:
        """One object whole; a few are kept, since neighbours lie together."""
        with self._lock:
            if path in self._cache:
                self._cache.move_to_end(path)
                return self._cache[path]
            one = self._locks.setdefault(path, threading.Lock())
        with one:
            with self._lock:
                if path in self._cache:
                    return self._cache[path]
            size, digest, version_id = self._objects[path]
            body = self._checked(path, size, digest, version_id)
            with self._lock:
                self._cache[path] = body
                while len(self._cache) > CACHED:
                    self._cache.popitem(last=False)
                self._locks.pop(path, None)
            return body

    def _checked(self, path: str, size: int, digest: str, version_id: str | None) -> bytes:
        try:
            body = self.bundle.store.read(check_path(path), version_id)
        except MigrationError as error:
            if error.code == "NotFound":
                raise MigrationError(
                    f"{self.bundle.store.url}/{path} is missing although the logs' manifest names it: {REMEDY}"
                ) from None
            raise
        if is_sealed(self.bundle):
            body = self.bundle.unseal(body, path)
        if len(body) != size or hashlib.sha256(body).hexdigest() != digest:
            raise MigrationError(f"{self.bundle.store.url}/{path} does not match the logs' manifest: {REMEDY}")
        return body


class Copied:
    """The ledger of one DAG and environment: what of each log lies where. Threads may write.

    indexed: what the archive's index of the DAG is, as index() was told; None where there is none.
    """

    def __init__(self, bundle: Bundle, environment: str, dag_id: str):
        self._bundle, self._dag_id = bundle, dag_id
        self._path = f"{LEDGER}{check_path(environment)}/{_name(dag_id)}.json"
        document = bundle.read_document(self._path, "remove it there: streams are then compared one by one")
        self._logs: dict[str, dict[str, Any]] = document["logs"] if document else {}
        self.indexed: str | None = document.get("indexed") if document else None
        self._changed = 0
        self._lock = threading.Lock()

    def get(self, attempt: Attempt) -> dict[str, Any] | None:
        return self._logs.get(_key(attempt))

    def put(self, attempt: Attempt, known: dict[str, Any]) -> int:
        """How many are not saved yet."""
        with self._lock:
            if self._logs.get(_key(attempt)) != known:
                self._logs[_key(attempt)] = known
                self._changed += 1
            return self._changed

    def archived(self, archive: str) -> Iterable[tuple[Attempt, dict[str, Any]]]:
        """What lies in this archive, in order."""
        found = []
        for key, known in self._logs.items():
            if known.get("archived") and known.get("archive", archive) == archive:
                found.append((Attempt(self._dag_id, *json.loads(key)), known))
        return sorted(found, key=lambda one: one[0])

    def index(self, state: str) -> None:
        """The index has been written."""
        self.indexed, self._changed = state, self._changed + 1
        self.save()

    def save(self) -> None:
        with self._lock:
            if self._changed:
                document = {"dag_id": self._dag_id, "logs": self._logs, "indexed": self.indexed}
                self._bundle.write_document(self._path, document)
                self._changed = 0


def _key(attempt: Attempt) -> str:
    return json.dumps(attempt[1:])


def _name(dag_id: str) -> str:
    return hashlib.sha256(dag_id.encode()).hexdigest()[:24]
