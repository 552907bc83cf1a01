# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Task logs on their way to CloudWatch: group and stream names as MWAA has them, one event a line."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path
from typing import Any

from botocore.exceptions import ClientError

GROUPS = {
    "DAGProcessing": "DagProcessingLogs",
    "Scheduler": "SchedulerLogs",
    "Task": "TaskLogs",
    "WebServer": "WebserverLogs",
    "Worker": "WorkerLogs",
}
"""Log group suffix → key in LoggingConfiguration."""

BATCH_EVENTS = 5_000
BATCH_BYTES = 500_000
LINE_BYTES = 200_000
"""Below the limits of PutLogEvents: 10,000 events, 1,048,576 bytes with 26 for each event."""


def group(env: dict[str, Any], kind: str) -> str:
    return f"airflow-{env['Name']}-{kind}"


def enabled(env: dict[str, Any], kind: str) -> bool:
    return bool(((env.get("LoggingConfiguration") or {}).get(GROUPS[kind]) or {}).get("Enabled"))


def stream(relative: Path) -> str:
    """Name of the stream of a task's log: its path, in which CloudWatch allows no colon."""
    return relative.as_posix().replace(":", "_")


class LogShipper:
    """Follows the task logs of one environment, each from where the last round stopped."""

    def __init__(self, folder: Path, pattern: str) -> None:
        self.folder = folder
        self.pattern = pattern
        self.done: dict[Path, int] = {}
        self.known: set[tuple[str, str]] = set()

    def ship(self, logs: Any, env: dict[str, Any]) -> None:
        """Send what is new."""
        if not enabled(env, "Task"):
            return
        for path in sorted(self.folder.glob(self.pattern)):
            position = self.done.get(path, 0)
            if path.stat().st_size <= position:
                continue
            with path.open("rb") as handle:
                handle.seek(position)
                new = handle.read()
            end = new.rfind(b"\n") + 1  # an unfinished line waits for its end
            if not end:
                continue
            name = stream(path.relative_to(self.folder))
            self._open(logs, group(env, "Task"), name)
            put(logs, group(env, "Task"), name, new[:end].decode("utf-8", "replace"))
            self.done[path] = position + end

    def _open(self, logs: Any, group_name: str, name: str) -> None:
        if (group_name, name) not in self.known:
            make(logs, group_name, name)
            self.known.add((group_name, name))

    @staticmethod
    def once(logs: Any, env: dict[str, Any], kind: str, name: str, text: str) -> None:
        """One whole log, such as pip's. Nothing depends on it, so its failing is no failure."""
        if enabled(env, kind) and text.strip():
            with contextlib.suppress(ClientError):
                make(logs, group(env, kind), name)
                put(logs, group(env, kind), name, text)


def make(logs: Any, group_name: str, name: str) -> None:
    """Group and stream, if they are not there."""
    calls = (
        (logs.create_log_group, {"logGroupName": group_name}),
        (logs.create_log_stream, {"logGroupName": group_name, "logStreamName": name}),
    )
    for call, arguments in calls:
        try:
            call(**arguments)
        except ClientError as problem:
            if problem.response["Error"]["Code"] != "ResourceAlreadyExistsException":
                raise


def put(logs: Any, group_name: str, name: str, text: str) -> None:
    """Lines as events of now, in batches that CloudWatch takes."""
    batch: list[dict[str, Any]] = []
    size = 0

    def send() -> None:
        if batch:
            logs.put_log_events(logGroupName=group_name, logStreamName=name, logEvents=batch)

    now = int(time.time() * 1000)
    for line in text.splitlines():
        if not line:
            continue
        message = line.encode()[:LINE_BYTES].decode("utf-8", "ignore")
        length = len(message.encode()) + 26
        if len(batch) >= BATCH_EVENTS or size + length > BATCH_BYTES:
            send()
            batch, size = [], 0
        batch.append({"timestamp": now, "message": message})
        size += length
    send()
