# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Waiting, and saying so while it lasts. All waits of this collection are made here.

PRIVATE to the collection: no promise is made to other collections.

A module cannot write to the screen. The action plugin `progress` gives it a file (named by MWAA_MIGRATION_PROGRESS) and
shows what is appended there. Without that variable nothing is written. Lines must never hold secrets.
"""

from __future__ import annotations

import os
import threading
import time
from typing import Any, Callable, TypeVar

from ansible_collections.mwaa.migration.plugins.module_utils._errors import MigrationError

VARIABLE = "MWAA_MIGRATION_PROGRESS"
QUIET = 15.0  # seconds between two lines that say the same

T = TypeVar("T")


def progress(text: str) -> None:
    """Show one line to who watches the playbook. Never fails: progress is a courtesy."""
    path = os.environ.get(VARIABLE)
    if not path:
        return
    try:
        # one write of one line, so that lines of several threads do not mix
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND)
    except OSError:
        return
    try:
        os.write(descriptor, (" ".join(text.split()) + "\n").encode("utf-8", "replace"))
    except OSError:
        pass
    finally:
        os.close(descriptor)


def wait_until(
    probe: Callable[[], T | None],
    *,
    timeout: float,
    interval: float,
    describe: Callable[[], str],
    clock: Any = time,
    hint: str = "",
) -> T:
    """Call `probe` until it returns something other than None, and return that.

    timeout, interval: seconds. Pauses start at 1 s and grow with the time waited (a tenth of it) up to `interval`, so
    that short waits are short and long ones are cheap.
    describe: what is waited for and how it stands, such as "environment demo: CREATING"; the time waited is added.
    clock: has monotonic() and sleep(); tests bring their own.
    hint: what to do when the time is over.
    Raises MigrationError when the time is over; what `probe` raises passes through.
    """
    start = clock.monotonic()
    said, said_at = "", start
    while True:
        value = probe()
        if value is not None:
            return value
        now = clock.monotonic()
        waited = now - start
        state = describe()
        if waited >= timeout:
            raise MigrationError(f"{state}: not finished after {span(timeout)}{'; ' + hint if hint else ''}")
        if state != said or now - said_at >= QUIET:
            progress(f"{state} ({span(waited)})")
            said, said_at = state, now
        clock.sleep(max(0.05, min(max(1.0, waited / 10), interval, timeout - waited)))


class Pacer:
    """Keeps calls below a rate. Threads share it. clock: has monotonic() and sleep()."""

    def __init__(self, per_second: float, clock: Any = time):
        self._pause, self._clock = 1.0 / per_second, clock
        self._lock, self._free_at = threading.Lock(), 0.0

    def wait(self) -> None:
        """Until it is one's turn."""
        with self._lock:
            now = self._clock.monotonic()
            turn = max(now, self._free_at)
            self._free_at = turn + self._pause
        if turn > now:
            self._clock.sleep(turn - now)


def span(seconds: float) -> str:
    """3725 -> '1 h 2 min'; 62 -> '1 min 2 s'; 5 -> '5 s'."""
    whole = round(seconds)
    if whole >= 3600:
        return f"{whole // 3600} h {whole % 3600 // 60} min"
    if whole >= 60:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole} s"
