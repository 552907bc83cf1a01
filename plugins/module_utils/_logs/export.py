# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Task logs from a host into its bundle, page by page.

PRIVATE to the collection: no promise is made to other collections.

The agent lists the logs of ended runs; what the bundle has not is sent, several logs to an object, by presigned URLs or
in the answer. Where the source keeps its logs in S3 too, the bundle only says where: the copying reads them there.
After each page the record is written, so that whatever is killed, the next run goes on with what is missing.
"""

from __future__ import annotations

import base64
import datetime
import hashlib
import secrets
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, cast

from ansible_collections.mwaa.migration.plugins.module_utils._bundle import Bundle, S3Store
from ansible_collections.mwaa.migration.plugins.module_utils._errors import (
    Faults,
    MigrationError,
    aws_error,
    is_aws_error,
    is_missing,
)
from ansible_collections.mwaa.migration.plugins.module_utils._history import Ask
from ansible_collections.mwaa.migration.plugins.module_utils._history.airflow_history import S3_REFUSES
from ansible_collections.mwaa.migration.plugins.module_utils._logs.record import (
    PARTS,
    Record,
    attempt_of,
    is_sealed,
    listed,
)

ROUND_SECONDS = 60  # no log is begun after
FIRST_SECONDS = 15
URL_SECONDS = 900
URLS = 64  # of objects of about 4 MB, in one round
PER_URL = 4 << 20  # bytes of logs for which one more URL is given; they shrink to a tenth
ROUND_BYTES = 1 << 30  # of logs
THREADS = 16
ATTEMPTS = 3
STATES = ("failed", "all")


@dataclass(frozen=True)
class Options:
    """Which logs. days: how long ago a task may have ended, in days."""

    state: str = "failed"
    days: int | None = None
    dags: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    transport: str = "auto"

    def check(self, what: str) -> None:
        faults = Faults(what)
        if self.days is not None and self.days < 1:
            faults.add(f"days is {self.days}: say at least one, or leave it out for all")
        faults.raise_if_any()

    def since(self, now: float | None = None) -> str | None:
        if self.days is None:
            return None
        at = datetime.datetime.fromtimestamp(time.time() if now is None else now, datetime.timezone.utc)
        return (at - datetime.timedelta(days=self.days)).strftime("%Y-%m-%dT%H:%M:%SZ")


class Exporter:
    """One export of one host's logs.

    ask: the host's agent. identity: its answer to `inspect`. bundle: that of the same source, with its state. lock:
    taken before the first write. show: takes lines for who watches. s3: a client that reads the source's remote logs.
    """

    def __init__(
        self,
        ask: Ask,
        bundle: Bundle,
        identity: dict[str, Any],
        options: Options,
        *,
        lock: Any,
        show: Callable[[str], None] = lambda _line: None,
        s3: Any = None,
        check_mode: bool = False,
        clock: Any = time,
    ):
        options.check("airflow_logs_export")
        bundle.check_source(identity)
        if options.transport == "s3" and not isinstance(bundle.store, S3Store):
            raise MigrationError(f"transport s3 needs a bundle in S3, not {bundle.store.url}: use transport connection")
        self.ask, self.bundle, self.host, self.options = ask, bundle, identity["hostname"], options
        self.store, self.lock, self.check_mode, self._clock = bundle.store, lock, check_mode, clock
        self._s3, self._show = s3, lambda text: show(f"airflow_logs_export: {text}")
        self._over_s3 = options.transport != "connection" and not is_sealed(bundle)
        self._id, self._round = secrets.token_hex(8), 0
        self.counts = {"listed": 0, "sent": 0, "unchanged": 0, "remote": 0}
        self.bytes = 0
        self.not_carried: list[dict[str, str]] = []
        self.findings: list[str] = []
        self.dags: set[str] = set()
        self._nowhere = 0  # attempts without a log
        self._said = 0.0

    def run(self) -> dict[str, Any]:
        started = self._clock.monotonic()
        self.record = Record.open(self.bundle) or Record(self.bundle)
        changed, open_runs, page = False, 0, None  # type: bool, int, dict[str, Any] | None
        while page is None or page["next"] is not None:
            page = self._page(page["next"] if page else None)
            open_runs = open_runs or page["open"]
            changed = self._take(page) or changed
        if open_runs:
            self.findings.append(f"{open_runs} runs have not ended: their logs are taken when they have")
        if self._nowhere:
            places = f"on {self.host}{', in S3' if self._remote else ''} or in the bundle"
            self.findings.append(
                f"{self._nowhere} attempts that the database counts have no log {places}: they are carried where"
                " another host of the installation has them and is exported, too"
            )
        return {
            "changed": changed,
            "bundle": self.store.url,
            "host": self.host,
            "base_log_folder": page["base"],
            "remote_base_log_folder": page["remote"],
            "logs": self.counts,
            "bytes": self.bytes,
            "dags": len(self.dags),
            "not_carried": listed(self.not_carried, f"on {self.host}"),
            "findings": self.findings,
            "duration": round(self._clock.monotonic() - started, 1),
        }

    # -- listing

    def _page(self, after: Any) -> dict[str, Any]:
        request = {
            "op": "list_logs",
            "dags": list(self.options.dags) or None,
            "exclude": list(self.options.exclude) or None,
            "since": self.options.since(),
            "state": self.options.state,
            "after": after,
            "remote": True,
        }
        page = self.ask(request)
        remote = page["remote"]
        if after is None and remote and not remote.startswith("s3://"):
            where = remote.partition("?")[0]
            self.findings.append(
                f"the source keeps its logs in {where} too: only what is in its log folder is taken from here"
                + ("; mwaa_logs_copy takes a log group as source_log_group" if remote.startswith("cloudwatch:") else "")
            )
        self._remote = remote if remote and remote.startswith("s3://") else None
        return page

    def _take(self, page: dict[str, Any]) -> bool:
        """Everything of a page that the bundle has not; whether there was anything."""
        by_dag: dict[str, list[dict[str, Any]]] = {}
        for entry in page["logs"]:
            by_dag.setdefault(entry["dag_id"], []).append(entry)
        wanted: list[dict[str, Any]] = []
        remote: list[dict[str, Any]] = []
        for dag_id, entries in by_dag.items():
            known = {attempt_of(one): one for one in self.record.entries(dag_id)}
            new = [entry for entry in entries if not self._is_known(entry, known.get(attempt_of(entry)))]
            there = self._in_s3(new) if self._remote else []
            remote += there
            kept = {id(entry) for entry in there}
            local = (entry for entry in entries if id(entry) not in kept)
            self.not_carried += [one for entry in local if (one := self._split(entry, known.get(attempt_of(entry))))]
            mine = [entry for entry in new if id(entry) not in kept and entry["size"] is not None]
            wanted += mine
            gone = [entry for entry in new if id(entry) not in kept and entry["size"] is None]
            self._nowhere += sum(entry["ran"] for entry in gone)
            self.counts["listed"] += len(entries) - len(gone)
            self.counts["unchanged"] += len(entries) - len(new)
            self.dags.update([dag_id] if len(entries) > len(gone) else [])
        self.counts["remote"] += len(remote)
        if self.check_mode or not (wanted or remote):
            self.counts["sent"] += len(wanted) if self.check_mode else 0
            return bool(wanted or remote)
        self.lock.take()
        objects, sent = self._send(wanted)
        self._keep([*remote, *sent], objects)
        return bool(remote or sent)

    def _is_known(self, entry: dict[str, Any], known: dict[str, Any] | None) -> bool:
        """Whether the bundle has this log: as it is here, or of another host, or in S3."""
        if known is None:
            return False
        if known.get("remote"):
            return True
        if known["host"] != self.host:  # this host may have another part of it: the larger one is taken
            return entry["size"] is None or known["size"] >= entry["size"]
        return entry["size"] is None or (known["size"], known["mtime"]) == (entry["size"], entry["mtime"])

    def _split(self, entry: dict[str, Any], known: dict[str, Any] | None) -> dict[str, str] | None:
        """The smaller part of a log that two hosts have parts of, as that of a task in reschedule mode; else None."""
        if known is None or known.get("remote") or known["host"] == self.host or not entry["size"]:
            return None
        if (known["size"], known["mtime"]) == (entry["size"], entry["mtime"]):
            return None  # the very same file, in a folder that the hosts share
        kept, left = (known["size"], known["host"]), (entry["size"], self.host)
        if kept[0] < left[0]:
            kept, left = left, kept
        if not left[0]:
            return None
        reason = f"{left[0]} bytes of it lie on {left[1]}: the larger part, {kept[0]} bytes on {kept[1]}, is carried"
        return {"kind": "log", "id": f"{attempt_of(entry)} on {left[1]}", "reason": reason}

    def _in_s3(self, entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Those that lie in the source's remote folder, with what they are there."""
        bucket, _slash, prefix = str(self._remote)[len("s3://") :].partition("/")

        def head(entry: dict[str, Any]) -> dict[str, Any] | None:
            key = f"{prefix}/{entry['path']}".lstrip("/")
            try:
                reply = self._s3.head_object(Bucket=bucket, Key=key)
            except Exception as exception:
                if not is_aws_error(exception):
                    raise
                if is_missing(exception):
                    return None
                raise aws_error(exception, f"look for the source's logs in {self._remote}") from exception
            return {"remote": f"s3://{bucket}/{key}", "etag": reply["ETag"].strip('"'), "size": reply["ContentLength"]}

        with ThreadPoolExecutor(THREADS) as pool:
            found = list(zip(entries, pool.map(head, entries)))
        there = []
        for entry, about in found:
            if about is not None:
                entry.update(about, host=self.host)
                there.append(entry)
        return there

    # -- sending

    def _send(self, wanted: list[dict[str, Any]]) -> tuple[dict[str, list[Any]], list[dict[str, Any]]]:
        """({path: [size, sha256, version_id]} of objects, entries with their pieces)"""
        objects: dict[str, list[Any]] = {}
        pending, sent, idle = list(wanted), [], 0
        self._total = getattr(self, "_total", 0) + len(wanted)
        while pending:
            batch = list(self._batch(pending))
            answer = self._answer(batch)
            paths = self._objects(answer, objects)
            moved = bool(answer["lost"])
            done: set[int] = set()
            for one in answer["logs"]:
                entry = batch[one["n"]]
                pieces = [[paths[number], at, packed, size] for number, at, packed, size in one["pieces"]]
                entry.setdefault("pieces", []).extend(pieces)
                moved = True
                if one.get("more"):
                    entry["from"] = one["more"]
                    continue
                entry.pop("from", None)
                entry.update(host=self.host)
                self.bytes += sum(piece[3] for piece in entry["pieces"])
                self.counts["sent"] += 1
                sent.append(entry)
                done.add(one["n"])
            for one in answer["lost"]:
                self.not_carried.append(
                    {"kind": "log", "id": str(attempt_of(batch[one["n"]])), "reason": f"cannot be read: {one['why']}"}
                )
                done.add(one["n"])
            # what was not finished comes first
            rest = [entry for number, entry in enumerate(batch) if number not in done]
            pending = [*rest, *pending[len(batch) :]]
            idle = 0 if moved else idle + 1
            if idle >= ATTEMPTS:
                raise MigrationError(
                    f"the source's agent sent none of {len(pending)} logs in {ATTEMPTS} rounds; what is exported"
                    " already stays, run it again to go on"
                )
            self._say()
        return objects, sent

    def _batch(self, pending: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        room = ROUND_BYTES if self._over_s3 else 2 * ROUND_BYTES // URLS
        for number, entry in enumerate(pending):
            room -= entry["size"]
            if number and room < 0:
                return
            yield entry

    def _answer(self, batch: list[dict[str, Any]]) -> dict[str, Any]:
        request: dict[str, Any] = {
            "op": "export_logs",
            "logs": [
                {"n": number, "path": entry["path"], "size": entry["size"], "from": entry.get("from")}
                for number, entry in enumerate(batch)
            ],
        }
        if not self._over_s3:
            return self.ask(request)
        first = self._round == 0
        self._round += 1
        store = cast(S3Store, self.store)
        puts = []
        for number in range(URLS + max(entry["size"] for entry in batch) // PER_URL):
            path = f"{PARTS}{self._id}/{self._round:05d}-{number:04d}"
            url, headers = store.presign_new(path, URL_SECONDS)
            puts.append({"path": path, "url": url, "headers": headers})
        request.update(puts=puts, seconds=FIRST_SECONDS if first else ROUND_SECONDS, impatient=first)
        try:
            return self.ask(request)
        except MigrationError as error:
            if not error.message.startswith(S3_REFUSES) or not first:
                raise
            if self.options.transport == "s3":
                raise MigrationError(
                    f"the source's logs cannot be put into {self.store.url}: {error.message}: use transport connection,"
                    " or let the host reach S3"
                ) from None
            self._show(f"{error.message}; logs go over the connection")
            self._over_s3 = False
            return {"objects": [], "logs": [], "lost": [], "left": []}

    def _objects(self, answer: dict[str, Any], objects: dict[str, list[Any]]) -> list[str]:
        """Paths of the answer's objects; those that came in it are put into the bundle."""
        paths = []
        for number, one in enumerate(answer["objects"]):
            if one is None:
                paths.append("")
                continue
            path, version_id = one["path"], one.get("version_id")
            if "data" in one:
                body = base64.b64decode(one["data"])
                if hashlib.sha256(body).hexdigest() != one["sha256"]:
                    raise MigrationError("logs were altered between the source and here: run it again")
                self._round += 1
                path = f"{PARTS}{self._id}/c{self._round:05d}-{number:04d}"
                stored = self.store.write(path, self.bundle.seal(body) if is_sealed(self.bundle) else body)
                version_id = stored.version_id
            objects[path] = [one["size"], one["sha256"], version_id]
            paths.append(path)
        return paths

    def _keep(self, entries: list[dict[str, Any]], objects: dict[str, list[Any]]) -> None:
        by_dag: dict[str, list[dict[str, Any]]] = {}
        for entry in entries:
            by_dag.setdefault(entry["dag_id"], []).append(entry)
        for dag_id, found in sorted(by_dag.items()):
            self.record.add(dag_id, found, objects)
        self.record.remote = self._remote or self.record.remote
        if self.host not in self.record.hosts:
            self.record.hosts.append(self.host)
        self.lock.check()
        self.record.save()

    def _say(self) -> None:
        now = self._clock.monotonic()
        if now - self._said >= 5.0:
            self._said = now
            self._show(f"{self.counts['sent']} of {self._total} logs that are listed so far, {self.bytes / 1e6:.1f} MB")
