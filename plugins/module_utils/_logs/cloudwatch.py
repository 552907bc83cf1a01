# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""CloudWatch Logs: reading streams whole, and writing them so that no event is doubled or lost.

PRIVATE to the collection: no promise is made to other collections.

PutLogEvents knows no idempotence. So a call is repeated only when it surely did nothing (throttled, never sent); where
that is not known, as after a reset or in a run after one that was killed, the stream is read and what it lacks is put.

Rates: CloudWatch Logs quotas, calls a second of an account in a region. GetLogEvents has 10 in some regions and 25 to
30 in others: the higher rate is tried until it is refused.
"""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import Any, cast

from ansible_collections.mwaa.migration.plugins.module_utils._errors import (
    MigrationError,
    aws_error,
    aws_errors,
    error_code,
    is_aws_error,
    is_throttle,
    is_transient,
    never_sent,
)
from ansible_collections.mwaa.migration.plugins.module_utils._logs.lines import (
    NEWEST,
    OLDEST,
    Event,
    batches,
)
from ansible_collections.mwaa.migration.plugins.module_utils._progress import Pacer

SETTLE = 5.0  # seconds until what was put can be read for sure
ATTEMPTS = 6
MARGIN = 15 * 60 * 1000  # milliseconds: an event that is nearly too old would be by the time it arrives
DAY = 24 * 3600 * 1000
CREATE_PACE, PUT_PACE, READ_PACE, READ_SLOW, LIST_PACE = 45.0, 800.0, 24.0, 9.0, 22.0


class Differs(MigrationError):
    """A stream holds what is not of this log."""


class _Unknown(Exception):
    """A call of which nobody knows whether it took effect."""


@dataclass
class Done:
    """What became of a log's events. here: in the stream now. old, new: out of what CloudWatch takes, by what was known
    before or by its answer. put: written by this run. made: the stream is this run's.
    """

    here: int = 0
    put: int = 0
    old: int = 0
    new: int = 0
    made: bool = False


class Group:
    """One log group. Threads share it, and its rates."""

    def __init__(self, aws: Any, name: str, clock: Any = time):
        self.name, self._clock = name, clock
        self._client = aws.client("logs")
        self.retention_days: int | None = None
        self.identity = name  # another one when the group was deleted and made again
        self._paces = {
            "create": Pacer(CREATE_PACE, clock),
            "put": Pacer(PUT_PACE, clock),
            "read": Pacer(READ_PACE, clock),
            "list": Pacer(LIST_PACE, clock),
        }

    # -- reading

    def look(self) -> bool:
        """Whether it is there; reads its retention."""
        with aws_errors(f"read the log group {self.name}"):
            pages = self._client.get_paginator("describe_log_groups").paginate(logGroupNamePrefix=self.name)
            for page in pages:
                for group in page["logGroups"]:
                    if group["logGroupName"] == self.name:
                        self.retention_days = group.get("retentionInDays")
                        self.identity = f"{self.name} {group.get('creationTime')}"
                        return True
        return False

    def streams(self) -> Iterator[dict[str, Any]]:
        """All of them, in the order of their names."""
        token: dict[str, Any] = {}
        while True:
            page = self._call("list", f"list the streams of {self.name}", self._client.describe_log_streams,
                              logGroupName=self.name, orderBy="LogStreamName", **token)  # fmt: skip
            yield from page["logStreams"]
            if not page.get("nextToken"):
                return
            token = {"nextToken": page["nextToken"]}

    def read(self, stream: str) -> Iterator[Event]:
        """All events, page by page, in CloudWatch's order: by time, then as they came."""
        token: dict[str, Any] = {}
        while True:
            page = self._call("read", f"read {self.name}, stream {stream}", self._client.get_log_events,
                              logGroupName=self.name, logStreamName=stream, startFromHead=True, **token)  # fmt: skip
            yield from (Event(event["timestamp"], event["message"]) for event in page["events"])
            if page["nextForwardToken"] == token.get("nextToken"):
                return
            token = {"nextToken": page["nextForwardToken"]}

    # -- writing

    def cutoff(self) -> tuple[int, int]:
        """(the oldest, the newest) timestamp that is taken now."""
        now = int(self._clock.time() * 1000)
        age = min(OLDEST, (self.retention_days or 10_000) * DAY)
        return now - age + MARGIN, now + NEWEST - MARGIN

    def write(self, stream: str, events: Callable[[], Iterable[Event]]) -> Done:
        """Bring a log's events into a stream, as far as CloudWatch takes them. events: gives them anew at each call.

        Raises Differs where the stream holds others, and nothing was written then.
        """
        oldest, newest = self.cutoff()
        done = Done()

        def fitting() -> Iterator[Event]:
            done.old = done.new = 0
            for event in events():
                if event.timestamp < oldest:
                    done.old += 1
                elif event.timestamp > newest:
                    done.new += 1
                else:
                    yield event

        if next(iter(fitting()), None) is None and (done.old or done.new):
            return done  # nobody would find anything there
        fresh = done.made = self._create(stream)
        for attempt in range(ATTEMPTS):
            done.here, rejected = 0, Done()
            lacking: Iterable[Event] = fitting()
            if not fresh or attempt:
                done.here, missing = self._compare(stream, fitting, oldest, settle=attempt > 0)
                if missing and attempt == 0:  # what a killed run put last may not be readable yet
                    done.here, missing = self._compare(stream, fitting, oldest, settle=True)
                if not missing:
                    break
                lacking = (event for event, there in _aligned(fitting(), self._there(stream, oldest)) if not there)
            try:
                for batch in batches(lacking):
                    old, new = self._put(stream, batch)
                    rejected.old, rejected.new = rejected.old + old, rejected.new + new
                    done.put += len(batch) - old - new
                    done.here += len(batch) - old - new
                break
            except _Unknown as unknown:
                if attempt + 1 == ATTEMPTS:
                    raise aws_error(
                        cast(Exception, unknown.__cause__), f"write to {self.name}, stream {stream}"
                    ) from unknown
        done.old, done.new = done.old + rejected.old, done.new + rejected.new
        return done

    def _create(self, stream: str) -> bool:
        """Whether it is new: then it is surely empty."""
        try:
            self._call("create", f"make the stream {stream} in {self.name}", self._client.create_log_stream,
                       logGroupName=self.name, logStreamName=stream)  # fmt: skip
        except MigrationError as error:
            if error.code != "ResourceAlreadyExistsException":
                raise
            return False
        return True

    def _there(self, stream: str, oldest: int) -> Iterator[Event]:
        # those that have become too old since they were put are not asked for again either
        return (event for event in self.read(stream) if event.timestamp >= oldest)

    def _compare(
        self, stream: str, events: Callable[[], Iterable[Event]], oldest: int, settle: bool
    ) -> tuple[int, int]:
        """(events that are there, events that are lacking); Differs where there are others."""
        if settle:
            self._clock.sleep(SETTLE)
        here = missing = foreign = 0
        for _event, there in _aligned(events(), self._there(stream, oldest)):
            here += there is True
            missing += there is False
            foreign += there is None
        if foreign and missing:
            raise Differs(
                f"the stream {stream} of {self.name} holds {foreign} events that are not of this log, and lacks"
                f" {missing} of its: it was left as it is"
            )
        return here, missing

    def _put(self, stream: str, batch: list[Event]) -> tuple[int, int]:
        """(how many were too old, how many too new), by CloudWatch's answer."""
        events = [{"timestamp": event.timestamp, "message": event.message} for event in batch]
        reply = self._call("put", f"write to {self.name}, stream {stream}", self._client.put_log_events, True,
                           logGroupName=self.name, logStreamName=stream, logEvents=events)  # fmt: skip
        info = reply.get("rejectedLogEventsInfo") or {}
        old = max(info.get("tooOldLogEventEndIndex", 0), info.get("expiredLogEventEndIndex", 0))
        first_new = info.get("tooNewLogEventStartIndex")
        return old, 0 if first_new is None else len(batch) - first_new

    def _call(self, pace: str, doing: str, function: Any, once: bool = False, /, **arguments: Any) -> dict[str, Any]:
        """Within the rate; throttles and the network's moods are waited out. once: not what may have taken effect."""
        for attempt in range(12):
            self._paces[pace].wait()
            try:
                return function(**arguments)
            except Exception as exception:
                if not is_aws_error(exception):
                    raise
                known = is_throttle(exception) or never_sent(exception)
                if known and pace == "read":
                    self._paces[pace] = Pacer(READ_SLOW, self._clock)
                if once and not known and is_transient(exception):
                    raise _Unknown from exception
                if attempt == 11 or not (known or is_transient(exception)) or error_code(exception) == "403":
                    raise aws_error(exception, doing) from exception
                self._clock.sleep(min(20.0, 0.2 * 2**attempt) * (0.5 + random.random() / 2))  # noqa: S311
        raise AssertionError("the last attempt returns or raises")


def _aligned(ours: Iterable[Event], theirs: Iterable[Event]) -> Iterator[tuple[Event, bool | None]]:
    """Our events with whether they are there, and with None theirs that are not ours. Both in order of time.

    Within a millisecond the order does not count: only that of the time is promised.
    """
    mine, other = groupby(ours, _timestamp), groupby(theirs, _timestamp)
    left, right = next(mine, None), next(other, None)
    while left is not None or right is not None:
        if left is not None and (right is None or left[0] < right[0]):
            yield from ((event, False) for event in left[1])
            left = next(mine, None)
        elif right is not None and (left is None or right[0] < left[0]):
            yield from ((event, None) for event in right[1])
            right = next(other, None)
        elif left is not None and right is not None:
            there = Counter(right[1])
            for event in left[1]:
                found = there[event] > 0
                there[event] -= found
                yield event, found
            yield from ((event, None) for event in there.elements())
            left, right = next(mine, None), next(other, None)


def _timestamp(event: Event) -> int:
    return event.timestamp
