# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A log as events of CloudWatch, and these in batches that PutLogEvents takes. Pure.

PRIVATE to the collection: no promise is made to other collections.

An event is a message: the line that begins with a time, and those after it up to the next one, as Airflow's own handler
sends it. Joined by newlines the events are the log again.

Limits: reference of PutLogEvents. 10,000 events; 1,048,576 bytes, counted as UTF-8 and 26 for each event; in order;
within 24 hours; none older than 14 days or than the group's retention, none more than 2 hours ahead.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

BATCH_EVENTS = 10_000
BATCH_BYTES = 1_048_576
OVERHEAD = 26
EVENT_BYTES = BATCH_BYTES - OVERHEAD
MESSAGE_BYTES = 256_000  # a message is cut between its lines beyond that
SPAN = 24 * 3600 * 1000 - 1  # milliseconds
OLDEST = 14 * 24 * 3600 * 1000
NEWEST = 2 * 3600 * 1000

_BRACKET = re.compile(
    rb"\[(\d{4})-(\d\d)-(\d\d)(?:T|,? )(\d\d):(\d\d):(\d\d)(?:[.,](\d{1,6}))?\d*\s?(Z|UTC|[+-]\d\d:?\d\d)?\]"
)
_JSON = re.compile(
    rb'\{[^{}]{0,200}?"timestamp": ?"(\d{4})-(\d\d)-(\d\d)[T ](\d\d):(\d\d):(\d\d)(?:[.,](\d{1,6}))?\d*\s?'
    rb'(Z|[+-]\d\d:?\d\d)?"'
)


class Event(NamedTuple):
    """timestamp: milliseconds since 1970, UTC."""

    timestamp: int
    message: str

    @property
    def size(self) -> int:
        return len(self.message.encode()) + OVERHEAD


class Dates(NamedTuple):
    """What is known of an attempt: milliseconds, or None. zone: seconds that times without one are ahead of UTC."""

    start: int | None = None
    end: int | None = None
    zone: int = 0


def milliseconds(iso: str | None) -> int | None:
    """Of ISO 8601 as the agent and CloudWatch write it; UTC where it names no zone."""
    if not iso:
        return None
    moment = datetime.datetime.fromisoformat(re.sub(r"[Zz]$", "+00:00", iso))
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=datetime.timezone.utc)
    return int(moment.timestamp() * 1000)


def time_of(line: bytes, zone: int = 0) -> int | None:
    """The time that a line of Airflow's begins with, in milliseconds; None where it begins with none."""
    found = (_BRACKET if line[:1] == b"[" else _JSON).match(line)
    if found is None:
        return None
    year, month, day, hour, minute, second = (int(part) for part in found.groups()[:6])
    fraction = int((found[7] or b"0").ljust(6, b"0")[:3])
    try:
        moment = datetime.datetime(year, month, day, hour, minute, second, tzinfo=datetime.timezone.utc)
    except ValueError:
        return None
    offset = zone
    if found[8] in (b"Z", b"UTC"):
        offset = 0
    elif found[8]:
        digits = found[8][1:].replace(b":", b"")
        offset = (int(digits[:2]) * 60 + int(digits[2:])) * 60 * (-1 if found[8][:1] == b"-" else 1)
    return int(moment.timestamp() - offset) * 1000 + fraction


DAY = 24 * 3600 * 1000


def events(chunks: Iterable[bytes], dates: Dates | None = None) -> Iterator[Event]:
    """The events of a log, in the order of its lines.

    A line without a time belongs to the one before it. What comes before the first time has that, or where the log has
    none, the attempt's. A time that cannot be the attempt's (more than a day outside of it: a quotation) is none. Where
    a time is before the former one's, the former one's holds: CloudWatch would order them otherwise.
    """
    dates = dates or Dates()
    first: list[bytes] = []  # lines before any time
    message: list[bytes] = []
    size, now = 0, None  # size: bytes of message, or of first
    low = None if dates.start is None else dates.start - DAY
    high = None if dates.end is None else dates.end + DAY
    for line in _lines(chunks):
        at = time_of(line, dates.zone)
        if at is not None and ((low is not None and at < low) or (high is not None and at > high)):
            at = None
        if at is not None and now is None:
            yield from _cut(at, first)
            first, size, now = [], 0, at
        elif now is None:
            first.append(line)
            size += len(line) + 1
            if size >= MESSAGE_BYTES:
                now, size = _fallback(dates), 0
                yield from _cut(now, first)
                first = []
            continue
        if (at is not None or size + len(line) >= MESSAGE_BYTES) and message:
            yield from _cut(now, message)
            message, size = [], 0
        now = max(now, at) if at is not None else now
        message.append(line)
        size += len(line) + 1
    if first:
        now = _fallback(dates)
        yield from _cut(now, first)
    if message and now is not None:
        yield from _cut(now, message)


def _fallback(dates: Dates) -> int:
    return dates.start if dates.start is not None else dates.end if dates.end is not None else 0


def _cut(at: int, lines: list[bytes]) -> Iterator[Event]:
    """One event, or several of a line that is longer than CloudWatch takes. An empty one is none: AWS takes none."""
    text = b"\n".join(lines).decode("utf-8", "replace")
    if len(text) * 4 <= EVENT_BYTES or len(text.encode()) <= EVENT_BYTES:
        if text:
            yield Event(at, text)
        return
    data = text.encode()
    while data:
        end = min(len(data), EVENT_BYTES)
        while end < len(data) and data[end] & 0xC0 == 0x80:  # not inside a character
            end -= 1
        yield Event(at, data[:end].decode())
        data = data[end:]


def _lines(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Without their newlines. A line longer than an event is given in pieces, so that memory stays bounded."""
    rest = b""
    for chunk in chunks:
        *whole, rest = (rest + chunk).split(b"\n")
        yield from whole
        while len(rest) > 4 * EVENT_BYTES:
            yield rest[:EVENT_BYTES]
            rest = rest[EVENT_BYTES:]
    if rest:
        yield rest


def batches(found: Iterable[Event]) -> Iterator[list[Event]]:
    """Events in order, as many to a batch as one call takes."""
    batch: list[Event] = []
    size = 0
    for event in found:
        more = event.size
        if batch and (
            len(batch) >= BATCH_EVENTS or size + more > BATCH_BYTES or event.timestamp - batch[0].timestamp > SPAN
        ):
            yield batch
            batch, size = [], 0
        batch.append(event)
        size += more
    if batch:
        yield batch
