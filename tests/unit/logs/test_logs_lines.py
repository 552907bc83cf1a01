# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A log as events, and events in batches that CloudWatch takes."""

from __future__ import annotations

import pytest
from ansible_collections.mwaa.migration.plugins.module_utils._logs.lines import (
    BATCH_BYTES,
    BATCH_EVENTS,
    DAY,
    EVENT_BYTES,
    OVERHEAD,
    Dates,
    Event,
    batches,
    events,
    milliseconds,
    time_of,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from mwaa_lab.aws import rules

AT = 1704164645678  # 2024-01-02T03:04:05.678Z


@pytest.mark.parametrize(
    ("line", "zone", "expected"),
    [
        ("[2024-01-02T03:04:05.678+0000] {taskinstance.py:1157} INFO - x", 0, AT),
        ("[2024-01-02T04:04:05.678+0100] {a.py:1} INFO - x", 0, AT),
        ("[2024-01-02T04:04:05.678+01:00] {a.py:1} INFO - x", 0, AT),
        ("[2024-01-01T22:34:05.678-0430] {a.py:1} INFO - x", 0, AT),
        ("[2024-01-02 03:04:05,678] {a.py:1} INFO - x", 0, AT),
        ("[2024-01-02 05:04:05,678] {a.py:1} INFO - x", 7200, AT),
        ("[2024-01-02 03:04:05] x", 0, AT - 678),
        ("[2024-01-02, 03:04:05 UTC] {a.py:1} INFO - x", 7200, AT - 678),
        ('{"timestamp":"2024-01-02T03:04:05.678901Z","level":"info","event":"x"}', 0, AT),
        ('{"event": "x", "timestamp": "2024-01-02T03:04:05.678"}', 3600, AT - 3600_000),
        ("[2024-13-02 03:04:05,678] no month", 0, None),
        ("  [2024-01-02 03:04:05,678] quoted", 0, None),
        ("[base] SELECT 1", 0, None),
        ("", 0, None),
    ],
)
def test_the_time_of_a_line(line: str, zone: int, expected: int | None) -> None:
    assert time_of(line.encode(), zone) == expected


def test_a_message_of_several_lines_is_one_event_of_its_first_lines_time() -> None:
    text = "*** Reading\n[2024-01-02T03:04:05.678+0000] a\n  b\n\nc\n[2024-01-02T03:04:06.000+0000] d\n"
    assert list(events([text.encode()])) == [
        Event(AT, "*** Reading"),
        Event(AT, "[2024-01-02T03:04:05.678+0000] a\n  b\n\nc"),
        Event(AT + 322, "[2024-01-02T03:04:06.000+0000] d"),
    ]


def test_a_log_without_times_has_those_of_its_attempt() -> None:
    assert list(events([b"a\nb"], Dates(start=5, end=9))) == [Event(5, "a\nb")]
    assert list(events([b"a"], Dates(end=9))) == [Event(9, "a")]
    assert list(events([b""])) == list(events([b"\n"])) == []


def test_time_never_goes_back_and_a_quoted_time_is_none() -> None:
    lines = ["[2024-01-02 03:04:05,678] a", "[2024-01-02 03:04:04,000] b", "[2031-01-01 00:00:00,000] quoted"]
    found = list(events(["\n".join(lines).encode()], Dates(start=AT - DAY, end=AT + 1000)))
    assert found == [Event(AT, lines[0]), Event(AT, "\n".join(lines[1:]))]


def test_what_is_longer_than_an_event_is_cut_between_lines_or_characters() -> None:
    many = b"[2024-01-02 03:04:05,678] first\n" + b"x" * 1000 + (b"\n" + b"y" * 1000) * 1500
    cut = list(events([many]))
    assert "\n".join(event.message for event in cut).encode() == many and len(cut) > 1
    one = ("[2024-01-02 03:04:05,678] " + "ü" * EVENT_BYTES).encode()
    cut = list(events(one[at : at + 70001] for at in range(0, len(one), 70001)))
    assert "".join(event.message for event in cut).encode() == one and len(cut) == 3
    assert all(event.size <= BATCH_BYTES for event in cut) and {event.timestamp for event in cut} == {AT}


LINES = st.lists(
    st.one_of(
        st.text(st.characters(codec="utf-8", exclude_characters="\n"), max_size=40),
        st.integers(0, 10**9).map(lambda ms: f"[{_iso(AT + ms)}] " + "x" * (ms % 50)),
    ),
    max_size=60,
)


def _iso(ms: int) -> str:
    import datetime

    moment = datetime.datetime.fromtimestamp(ms / 1000, datetime.timezone.utc)
    return moment.strftime("%Y-%m-%d %H:%M:%S,") + f"{ms % 1000:03d}"


@settings(max_examples=200, deadline=None)
@given(LINES, st.integers(1, 50))
def test_events_are_in_order_and_make_up_the_log(lines: list[str], step: int) -> None:
    data = "\n".join(lines).encode()
    found = list(events(data[at : at + step] for at in range(0, len(data), step)))
    assert [event.timestamp for event in found] == sorted(event.timestamp for event in found)
    assert all(event.message for event in found)
    whole = "\n".join(event.message for event in found)
    # an empty message before the first time is no event, and the last newline ends a line
    assert whole.strip("\n") == "\n".join(lines).strip("\n")


@settings(max_examples=100, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.integers(0, 3 * DAY), st.sampled_from([1, 10, 1000, 300_000, EVENT_BYTES - 3]), st.sampled_from("aü")
        ),
        max_size=30,
    ),
    st.integers(0, 12_000),
)
def test_every_batch_is_what_cloudwatch_takes(spread: list[tuple[int, int, str]], more: int) -> None:
    given_events = [Event(AT + at, letter * (size // len(letter.encode()) or 1)) for at, size, letter in spread]
    given_events += [Event(AT + number % 7, "x") for number in range(more)]
    given_events.sort(key=lambda event: event.timestamp)
    found = list(batches(given_events))
    assert [event for batch in found for event in batch] == given_events
    for batch in found:
        assert 0 < len(batch) <= BATCH_EVENTS
        assert sum(len(event.message.encode()) + OVERHEAD for event in batch) <= BATCH_BYTES
        # the lab's own reading of the same limits
        kept, info = rules.log_events([event._asdict() for event in batch], AT, None)
        assert info == {} or kept is not None


def test_dates_as_the_agent_writes_them() -> None:
    assert milliseconds("2024-01-02T03:04:05.678000+00:00") == milliseconds("2024-01-02T03:04:05.678Z") == AT
    assert milliseconds("2024-01-02T03:04:05.678000") == AT and milliseconds(None) is None
