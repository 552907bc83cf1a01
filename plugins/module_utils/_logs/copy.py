# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Task logs into an environment's log group, and what CloudWatch does not take into an archive in S3.

PRIVATE to the collection: no promise is made to other collections.

What was done is kept in the bundle's ledger, DAG by DAG. What a killed run did after it last wrote that down is found
in the streams themselves, so nothing is doubled.
"""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import ExitStack
from typing import Any

from ansible_collections.mwaa.migration.plugins.module_utils._bundle import Bundle, S3Store, open_store
from ansible_collections.mwaa.migration.plugins.module_utils._errors import MigrationError
from ansible_collections.mwaa.migration.plugins.module_utils._lock import Lock, held
from ansible_collections.mwaa.migration.plugins.module_utils._logs import sources
from ansible_collections.mwaa.migration.plugins.module_utils._logs.cloudwatch import Differs, Done, Group
from ansible_collections.mwaa.migration.plugins.module_utils._logs.layout import (
    archive_path,
    index_path,
    keeps_templates,
    unfit,
)
from ansible_collections.mwaa.migration.plugins.module_utils._logs.record import Copied, Record, listed
from ansible_collections.mwaa.migration.plugins.module_utils._logs.sources import Found, Log, Wanted
from ansible_collections.mwaa.migration.plugins.module_utils._mwaa.environment import describe
from ansible_collections.mwaa.migration.plugins.module_utils._progress import progress
from ansible_collections.mwaa.migration.plugins.module_utils._select import Selection

THREADS = 16
SAVE_LOGS, SAVE_SECONDS = 500, 15.0  # when the ledger is written meanwhile
SAY = 5.0

ARGUMENT_SPEC: dict[str, Any] = {
    "environment": {"type": "str", "required": True},
    "bundle": {"type": "str", "required": True},
    "kms_key_id": {"type": "str", "no_log": False},
    "state": {"type": "str", "default": "failed", "choices": ["failed", "all"]},
    "days": {"type": "int"},
    "dags": {"type": "list", "elements": "str", "default": []},
    "exclude": {"type": "list", "elements": "str", "default": []},
    "source_environment": {"type": "str"},
    "source_log_group": {"type": "str"},
    "source_s3": {"type": "str"},
    "source_region": {"type": "str"},
    "source_profile": {"type": "str"},
    "source_role_arn": {"type": "str"},
    "archive": {"type": "str"},
}


def task_group(environment: dict[str, Any]) -> tuple[str, bool]:
    """(name of the log group of task logs, whether they are enabled). environment: as GetEnvironment has it."""
    logs = (environment.get("LoggingConfiguration") or {}).get("TaskLogs") or {}
    name = str(logs.get("CloudWatchLogGroupArn") or "").partition(":log-group:")[2].removesuffix(":*")
    return name or f"airflow-{environment['Name']}-Task", bool(logs.get("Enabled"))


class Copy:
    """One run of the module. clock: has time(), monotonic() and sleep()."""

    def __init__(self, params: dict[str, Any], aws: Any, check_mode: bool, clock: Any = time):
        self.params, self.aws, self.check_mode, self._clock = params, aws, check_mode, clock
        if params["days"] is not None and params["days"] < 1:
            raise MigrationError(f"days is {params['days']}: say at least one, or leave it out for all")
        for name in ("source_s3", "archive"):
            if params[name] and not str(params[name]).startswith("s3://"):
                raise MigrationError(f"{name} is {params[name]}: say s3://bucket/prefix")
        self.store = open_store(params["bundle"], aws)
        self.counts = {"logs": 0, "copied": 0, "unchanged": 0, "events": 0, "archived": 0}
        self.rejected = {"too_old": 0, "too_new": 0}
        self.found = Found()
        self._guard = threading.Lock()
        self._said = 0.0

    def run(self) -> dict[str, Any]:
        started = self._clock.monotonic()
        environment = describe(self.aws.client("mwaa"), self.params["environment"])
        if environment is None:
            missing = f"the environment {self.params['environment']} does not exist"
            if self.check_mode:  # as before the first migration
                return {"changed": False, "skipped": True, "msg": f"{missing} yet: which logs it lacks is known then"}
            raise MigrationError(f"{missing}: create it first, or correct environment")
        name, enabled = task_group(environment)
        self.group = Group(self.aws, name, self._clock)
        if not enabled or not self.group.look():
            raise MigrationError(
                f"the environment {self.params['environment']}"
                + (" has no task logs" if not enabled else f"'s log group {name} does not exist")
                + ": enable task logs (environment_logs, or LoggingConfiguration.TaskLogs) so that logs have a place"
            )
        version = environment["AirflowVersion"]
        bucket = environment["SourceBucketArn"].rpartition(":")[2]
        self.archive_url = self.params["archive"] or f"s3://{bucket}/task-logs/{self.params['environment']}"
        self.archive = open_store(self.archive_url, self.aws)
        bundle = Bundle.open(self.store, self.aws, self.params["kms_key_id"])
        days = self.params["days"]
        wanted = Wanted(
            version,
            Selection(self.params["dags"] or None, self.params["exclude"]),
            keeps_templates(version, environment.get("AirflowConfigurationOptions") or {}),
            None if days is None else int((self._clock.time() - days * 86400) * 1000),
            self.params["state"] == "failed",
        )
        with ExitStack() as stack:
            lock = None if self.check_mode else stack.enter_context(held(self.store, self.params["environment"]))
            for dag_id, logs in self._sources(bundle, wanted):
                self._dag(bundle, dag_id, logs, lock)
        changed = self.counts["copied"] + self.counts["archived"] > 0
        return {
            "changed": changed,
            "environment": self.params["environment"],
            "log_group": name,
            "archive": self.archive_url if self.counts["archived"] or self._archived_before else None,
            "logs": self.counts,
            "rejected": self.rejected,
            "not_carried": listed(self.found.not_carried, f"of {self.store.url}"),
            "duration": round(self._clock.monotonic() - started, 1),
        }

    _archived_before = False

    @property
    def _prefix(self) -> str:
        return self.archive.prefix if isinstance(self.archive, S3Store) else ""

    def _sources(self, bundle: Bundle, wanted: Wanted) -> Iterator[tuple[str, list[Log]]]:
        record = Record.open(bundle)
        source = self.aws.elsewhere(
            region=self.params["source_region"],
            profile=self.params["source_profile"],
            role_arn=self.params["source_role_arn"],
        )
        groups = [self.params["source_log_group"]] if self.params["source_log_group"] else []
        name = self.params["source_environment"]
        if name:
            environment = describe(source.client("mwaa"), name)
            groups.append(task_group(environment)[0] if environment else f"airflow-{name}-Task")
        if record is None and not groups and not self.params["source_s3"]:
            raise MigrationError(
                f"the bundle {self.store.url} has no logs: run airflow_logs_export first, or name source_environment,"
                " source_log_group or source_s3",
                code="NoBundle" if self.check_mode else None,
            )
        # whatever is wrong is said before the first log is written
        url, found = self.params["source_s3"], [Group(source, group_name, self._clock) for group_name in groups]
        runs = sources.history_of(bundle) if url or found else sources.Runs(None)
        for where in [*([url] if url else []), *(f"the log group {group.name}" for group in found)]:
            sources.needs_history(wanted, runs, where)
        for group in found:
            if not group.look():
                raise MigrationError(
                    f"the log group {group.name} does not exist: correct source_environment or source_log_group, or the"
                    " source's region"
                )
        if record is not None:
            yield from sources.of_bundle(record, wanted, source.client("s3"))
        if url:
            yield from sources.of_s3(url, wanted, source.client("s3"), runs, self.found)
        for group in found:
            # an environment of the same name in the place of the former one has its log group
            here = self.group.name, self.aws.region, self.aws.account_id
            kept = (group.name, source.region, source.account_id) == here
            yield from sources.of_group(group, wanted, runs, self.found, kept=kept)

    # -- a DAG

    def _dag(self, bundle: Bundle, dag_id: str, logs: list[Log], lock: Lock | None) -> None:
        ledger = Copied(bundle, self.params["environment"], dag_id)
        self.counts["logs"] += len(logs)
        todo = []
        for log in logs:
            if reason := unfit(log.stream):
                self.found.leave(str(log.attempt), f"{reason}: it is in the archive alone")
            known = ledger.get(log.attempt)
            if known is not None and self._is_there(log, known):
                self.counts["unchanged"] += 1
                self._archived_before = self._archived_before or bool(known.get("archived"))
            else:
                todo.append(log)
        if lock is None:  # a look
            self.counts["copied"] += len(todo)
            return
        if todo:
            lock.take()
            try:
                self._all(dag_id, todo, ledger, lock)
            finally:
                ledger.save()
        self._index(dag_id, ledger, lock)

    def _is_there(self, log: Log, known: dict[str, Any]) -> bool:
        """Whether the ledger knows this very log, where it would be brought now."""
        kept = (known["tag"], known["stream"], known["group"]) == (log.tag, log.stream, self.group.identity)
        return kept and known.get("archive") in (None, self.archive_url)

    def _all(self, dag_id: str, todo: list[Log], ledger: Copied, lock: Lock) -> None:
        """All of them, several at once. After a failure no other is begun; what was begun is written down."""
        saved_at, failure = self._clock.monotonic(), None  # type: float, BaseException | None
        queue = iter(todo)
        waiting: dict[Future[Any], Log] = {}
        with ThreadPoolExecutor(THREADS) as pool:
            while True:
                while failure is None and len(waiting) < 2 * THREADS and (log := next(queue, None)) is not None:
                    waiting[pool.submit(self._one, log)] = log
                if not waiting:
                    break
                for future in wait(waiting, return_when=FIRST_COMPLETED).done:
                    log = waiting.pop(future)
                    error = future.exception()
                    if isinstance(error, (Differs, sources.Gone)):
                        self.found.leave(str(log.attempt), error.message)
                    elif error is not None:
                        failure = failure or error
                    elif (
                        ledger.put(log.attempt, self._known(log, *future.result())) >= SAVE_LOGS
                        or self._clock.monotonic() - saved_at >= SAVE_SECONDS
                    ):
                        lock.check()
                        ledger.save()
                        saved_at = self._clock.monotonic()
                self._say(dag_id)
        if failure is not None:
            raise failure

    def _one(self, log: Log) -> tuple[Done, dict[str, Any] | None]:
        archived, nameless = None, unfit(log.stream) is not None
        try:
            done = Done() if nameless else self.group.write(log.stream, log.events)
            if nameless or done.old or done.new:
                path = archive_path(log.attempt, self._prefix)
                stored = self.archive.write_stream(path, log.packed())
                archived = {"key": path, "size": stored.size, "sha256": stored.sha256}
        finally:
            log.forget()
        with self._guard:
            self.counts["copied"] += bool(done.put or done.made)
            self.counts["unchanged"] += not (done.put or done.made or archived)
            self.counts["events"] += done.put
            self.counts["archived"] += bool(archived)
            self.rejected["too_old"] += done.old
            self.rejected["too_new"] += done.new
        return done, archived

    def _known(self, log: Log, done: Done, archived: dict[str, Any] | None) -> dict[str, Any]:
        known: dict[str, Any] = {
            "tag": log.tag,
            "stream": log.stream,
            "events": done.here,
            "group": self.group.identity,
        }
        if archived:
            known.update(
                archived=archived, archive=self.archive_url, too_old=done.old, too_new=done.new, about=log.about
            )
        return known

    def _index(self, dag_id: str, ledger: Copied, lock: Lock) -> None:
        """One line a log of the DAG that is in the archive, as JSON; written where it is not as the ledger says."""

        def lines() -> Iterator[bytes]:
            for attempt, known in ledger.archived(self.archive_url):
                line = {
                    **attempt._asdict(),
                    **{name: value for name, value in (known.get("about") or {}).items() if value is not None},
                    **known["archived"],
                    "log_stream": known["stream"],
                    "events_in_cloudwatch": known["events"],
                    "events_too_old": known["too_old"],
                    "events_too_new": known["too_new"],
                }
                yield json.dumps(line, sort_keys=True, ensure_ascii=False).encode() + b"\n"

        digest = hashlib.sha256()
        for line in lines():
            digest.update(line)
        state = f"{self.archive_url} {digest.hexdigest()}"
        if ledger.indexed != state and next(lines(), None) is not None:
            lock.take()
            lock.check()
            self.archive.write_stream(index_path(dag_id, self._prefix), lines())
            ledger.index(state)

    def _say(self, dag_id: str) -> None:
        now = self._clock.monotonic()
        if now - self._said >= SAY:
            self._said = now
            done = self.counts["copied"] + self.counts["archived"]
            progress(f"mwaa_logs_copy: {done} logs, {self.counts['events']} events, now {dag_id}")
