# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The index: what was published to a bucket, kept beside it.

PRIVATE to the collection: no promise is made to other collections.

It remembers the SHA-256 behind each key together with what S3 shows of the object (ETag, size, time), so that an
unchanged run reads no object, whatever the encryption (with SSE-KMS and for multipart objects an ETag is no MD5). It is
a memory, not a proof: an object that does not look as remembered is compared again, or written again. And it says whose
a key is: only what is remembered here, as this source's, is ever deleted.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from ansible_collections.mwaa.migration.plugins.module_utils._dags import Facts
from ansible_collections.mwaa.migration.plugins.module_utils._sync.bucket import Found

FOLDER = "mwaa-migration/published"
VERSION = 2


def index_key(dag_s3_path: str) -> str:
    """One index for each DAG folder: environments may share a bucket."""
    return f"{FOLDER}/{dag_s3_path.strip('/').replace('/', '~')}.json"


class Index:
    """objects: by key {"digest", "etag", "size", "modified", "version_id", "sources", "kind"}; digest is the content's
    SHA-256, or for artefacts the digest of what went in; kind: "dag", "plugins", "requirements", "startup_script".
    facts: by content, see `_dags.Facts`.
    """

    def __init__(self, raw: bytes | None, tag: str | None = None):
        """raw, tag: its object as it was read, and what S3 calls this content; None where there is none."""
        self.objects: dict[str, dict[str, Any]] = {}
        self.facts: dict[str, Facts] = {}
        self.tag = tag
        self._raw = raw
        try:
            stored = json.loads(raw) if raw else {}
            if stored.get("version") == VERSION:
                self.objects = {str(key): dict(known) for key, known in stored["objects"].items()}
                self.facts = {key: Facts.from_json(value) for key, value in stored["facts"].items()}
        except (ValueError, TypeError, KeyError, AttributeError):
            self.objects, self.facts = {}, {}  # a damaged memory is no memory: everything is compared again

    def remember(self, key: str, kind: str, found: Found, digest: str, sources: Iterable[str]) -> None:
        self.objects[key] = {
            "kind": kind,
            "digest": digest,
            "etag": found.etag,
            "size": found.size,
            "modified": found.modified,
            "version_id": found.version_id,
            "sources": sorted(set(sources)),
        }

    def unchanged(self, key: str, found: Found) -> bool:
        """Whether the object is still the one that was written: then its content is the remembered one."""
        known = self.objects.get(key)
        return (
            known is not None
            and (known.get("etag"), known.get("size")) == (found.etag, found.size)
            and all(
                None in (known.get(name), value) or known.get(name) == value
                for name, value in (("modified", found.modified), ("version_id", found.version_id))
            )
        )

    def knows(self, key: str, found: Found, digest: str) -> bool:
        return self.unchanged(key, found) and self.objects[key]["digest"] == digest

    def sources(self, key: str) -> set[str]:
        """Which sources' this key is; empty: it is not ours."""
        return set(self.objects.get(key, {}).get("sources") or [])

    @property
    def artefacts(self) -> dict[str, str]:
        """{"plugins": key, "requirements": key, "startup_script": key} of those that were published."""
        return {known["kind"]: key for key, known in self.objects.items() if known.get("kind", "dag") != "dag"}

    def encode(self) -> bytes:
        stored = {
            "version": VERSION,
            "objects": self.objects,
            "facts": {key: facts.as_json() for key, facts in self.facts.items()},
        }
        return json.dumps(stored, sort_keys=True, separators=(",", ":")).encode()

    @property
    def changed(self) -> bool:
        return self.encode() != (self._raw or b"")
