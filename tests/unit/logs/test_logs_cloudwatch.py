# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Streams are written whole and once, whatever the network does; the fake refuses what CloudWatch refuses."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from ansible_collections.mwaa.migration.plugins.module_utils._errors import MigrationError
from ansible_collections.mwaa.migration.plugins.module_utils._logs import cloudwatch
from ansible_collections.mwaa.migration.plugins.module_utils._logs.cloudwatch import Differs, Group
from ansible_collections.mwaa.migration.plugins.module_utils._logs.lines import Event
from botocore.exceptions import ConnectionClosedError
from fakes import Clock, aws_failure
from hypothesis import given, settings
from hypothesis import strategies as st
from mwaa_lab.aws import rules
from mwaa_lab.aws.model import ApiError

DAY = 24 * 3600 * 1000
NOW = 1_800_000_000_000


class Time(Clock):
    def time(self) -> float:
        return NOW / 1000


class FakeLogs:
    """One log group. weather: asked before and after each call that writes; what it raises is raised."""

    def __init__(self, retention: int | None = None):
        self.streams: dict[str, list[dict[str, Any]]] = {}
        self.retention = retention
        self.calls: list[str] = []
        self.weather: Callable[[str, bool], None] = lambda _call, _after: None
        self.hidden = 0  # events that cannot be read yet, at the next reading
        self._lock = threading.Lock()

    def client(self, _service: str) -> FakeLogs:
        return self

    def create_log_stream(self, logGroupName: str, logStreamName: str) -> dict[str, Any]:
        self.calls.append("create")
        self.weather("create", False)
        with self._lock:
            if logStreamName in self.streams:
                raise aws_failure("ResourceAlreadyExistsException")
            self.streams[logStreamName] = []
        self.weather("create", True)
        return {}

    def put_log_events(self, logGroupName: str, logStreamName: str, logEvents: list[dict[str, Any]]) -> dict[str, Any]:
        self.calls.append("put")
        self.weather("put", False)
        try:
            kept, info = rules.log_events(logEvents, NOW, self.retention)
        except ApiError as error:
            raise aws_failure(error.code, error.message) from None
        self.streams[logStreamName] = sorted([*self.streams[logStreamName], *kept], key=lambda one: one["timestamp"])
        self.weather("put", True)
        return {"rejectedLogEventsInfo": info} if info else {}

    def get_log_events(self, logGroupName: str, logStreamName: str, startFromHead: bool, nextToken: str = "f/0") -> Any:
        self.calls.append("get")
        assert startFromHead
        at = int(nextToken[2:])
        there = self.streams[logStreamName]
        there, self.hidden = there[: len(there) - self.hidden], 0
        return {"events": there[at : at + 3], "nextForwardToken": f"f/{min(at + 3, len(there))}"}

    def messages(self, stream: str) -> list[tuple[int, str]]:
        return [(one["timestamp"], one["message"]) for one in self.streams[stream]]


def events_of(count: int, step: int = 1000, start: int = NOW - DAY) -> list[Event]:
    return [Event(start + number // 2 * step, f"line {number}") for number in range(count)]


def group_of(logs: FakeLogs) -> Group:
    group = Group(logs, "airflow-prod-Task", Time())
    group.retention_days = logs.retention
    return group


def test_a_new_stream_is_written_without_being_read() -> None:
    logs, events = FakeLogs(), events_of(20_001)
    done = group_of(logs).write("s", lambda: events)
    assert logs.messages("s") == events and (done.here, done.put, done.old, done.new) == (20_001, 20_001, 0, 0)
    assert logs.calls == ["create", "put", "put", "put"]


def test_what_is_there_is_not_written_again() -> None:
    logs, events = FakeLogs(), events_of(10)
    group_of(logs).write("s", lambda: events)
    logs.calls.clear()
    done = group_of(logs).write("s", lambda: events)
    assert "put" not in logs.calls and (done.here, done.put) == (10, 0)


def test_a_run_that_was_killed_between_two_batches_is_gone_on_with() -> None:
    logs, events = FakeLogs(), events_of(9)
    logs.streams["s"] = [event._asdict() for event in events[:4]]
    done = group_of(logs).write("s", lambda: events)
    assert logs.messages("s") == events and (done.here, done.put) == (9, 5)


def test_what_was_put_last_may_not_be_readable_yet() -> None:
    logs, events = FakeLogs(), events_of(9)
    logs.streams["s"] = [event._asdict() for event in events]
    logs.hidden = 3
    done = group_of(logs).write("s", lambda: events)
    assert logs.messages("s") == events and done.put == 0


@pytest.mark.parametrize("after", [False, True])
def test_a_reset_is_looked_into_before_anything_is_repeated(after: bool) -> None:
    logs, events = FakeLogs(), events_of(20_001)
    broken = iter([2])

    def weather(call: str, then: bool) -> None:
        if call == "put" and then is after and logs.calls.count("put") == 2 and next(broken, None):
            raise ConnectionClosedError(endpoint_url="x")

    logs.weather = weather
    done = group_of(logs).write("s", lambda: events)
    assert logs.messages("s") == events and done.here == 20_001


def test_throttling_is_waited_out() -> None:
    logs, events = FakeLogs(), events_of(5)
    refusals = iter(range(4))

    def weather(call: str, then: bool) -> None:
        if not then and next(refusals, None) is not None:
            raise aws_failure("ThrottlingException")

    logs.weather = weather
    assert group_of(logs).write("s", lambda: events).put == 5 and logs.messages("s") == events


def test_a_stream_with_other_events_is_left_as_it_is() -> None:
    logs, events = FakeLogs(), events_of(5)
    logs.streams["s"] = [{"timestamp": NOW - DAY + 1, "message": "another log"}]
    with pytest.raises(Differs, match="holds 1 events that are not of this log, and lacks 5"):
        group_of(logs).write("s", lambda: events)
    assert len(logs.streams["s"]) == 1


@pytest.mark.parametrize(("retention", "age"), [(None, 14), (7, 7), (30, 14)])
def test_what_is_too_old_is_not_even_tried(retention: int | None, age: int) -> None:
    logs = FakeLogs(retention)
    events = [Event(NOW - days * DAY + DAY // 2, f"{days}") for days in range(20, 0, -1)] + [Event(NOW + DAY, "later")]
    done = group_of(logs).write("s", lambda: events)
    assert [message for _at, message in logs.messages("s")] == [str(days) for days in range(age, 0, -1)]
    assert (done.put, done.old, done.new) == (age, 20 - age, 1)
    assert group_of(logs).write("none", lambda: events[:3]).old == 3 and "none" not in logs.streams


def test_what_cloudwatch_rejects_all_the_same_is_counted() -> None:
    logs = FakeLogs(retention=3)
    group = group_of(logs)
    group.retention_days = None  # somebody set it a moment ago
    events = [Event(NOW - days * DAY, f"{days}") for days in range(6, 0, -1)]
    done = group.write("s", lambda: events)
    assert (done.put, done.old, done.here) == (3, 3, 3)


def test_a_call_that_fails_for_good_says_why() -> None:
    logs = FakeLogs()

    def weather(call: str, then: bool) -> None:
        raise aws_failure("AccessDeniedException", "not authorized to perform: logs:CreateLogStream")

    logs.weather = weather
    with pytest.raises(MigrationError, match="logs:CreateLogStream"):
        group_of(logs).write("s", lambda: events_of(1))


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_in_any_weather_no_event_is_doubled_or_lost(data: st.DataObject) -> None:
    """Runs are killed and connections break at any call, before or after it took effect."""
    times = sorted(data.draw(st.lists(st.integers(0, 20), max_size=25)))
    events = [Event(NOW - DAY + at, data.draw(st.sampled_from("ab"))) for at in times]
    logs = FakeLogs()

    class Killed(Exception):
        pass

    def weather(call: str, then: bool) -> None:
        fate = data.draw(st.sampled_from(["fine", "fine", "fine", "reset", "kill"]))
        if fate == "reset":
            raise ConnectionClosedError(endpoint_url="x")
        if fate == "kill":
            raise Killed

    def small(found: Iterator[Event]) -> Iterator[list[Event]]:
        yield from ([event] for event in found)

    logs.weather = weather
    original, cloudwatch.batches = cloudwatch.batches, small
    try:
        for _run in range(5):
            try:
                group_of(logs).write("s", lambda: events)
                break
            except (Killed, MigrationError):
                continue
        logs.weather = lambda _call, _after: None
        group_of(logs).write("s", lambda: events)
    finally:
        cloudwatch.batches = original
    assert sorted(logs.messages("s")) == sorted(events)
