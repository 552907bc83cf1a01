# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Faults on order: rules that make matching calls slow, fail, or lose their connection.

``POST /_lab/faults`` takes a list of rules and replaces the ones before it; each rule::

    {"service": "mwaa", "operation": "GetEnvironment", "times": 2, "error": "ThrottlingException", "status": 429}

- ``service``, ``operation``: shell patterns of what the journal names (``mwaa``, ``s3``, ``webserver``); default ``*``.
- ``match``: text that must occur in one of the call's names (bucket, key, environment, path, ...).
- ``times``: how many matching calls are hit, null for all (default 1); ``skip``: how many pass untouched before.
- ``per_second``: only calls beyond so many in any one second are hit, as by a service that throttles (``times``: null).
- ``latency_ms``: wait first. With nothing else the call then goes on as usual.
- ``error`` (code), ``status`` (default 400; 503 for SlowDown and the like), ``message``: answer in the service's shape.
  ``ExpiredToken`` takes the code and status that the service has for it; ``RestApiServerException`` and
  ``RestApiClientException`` say ``airflow_status`` (504, 404).
- ``reset``: drop the connection without an answer.
- ``truncate``: send half of the answer's body under the length of the whole, then close the connection.
- ``after``: the call takes effect first; what fails is its answer (``reset``, ``error``).
- ``hold``: the environment of ``{"environment": name, "seconds": s, "calls": n, "down": true}`` is UPDATING from now
  on, for so long or so many GetEnvironment calls; with ``down`` its web server answers 503. The call itself goes on.
- ``caller``: ``user`` (default), ``service``, ``environment`` or ``*``.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

from mwaa_lab.aws.journal import Call

_STATUS = {
    "SlowDown": 503,
    "ServiceUnavailable": 503,
    "ServiceUnavailableException": 503,
    "InternalError": 500,
    "InternalFailure": 500,
    "InternalServerException": 500,
    "InternalServerError": 500,
    "AccessDenied": 403,
    "AccessDeniedException": 403,
    "ExpiredToken": 403,
    "ExpiredTokenException": 403,
    "ThrottlingException": 429,
    "TooManyRequestsException": 429,
}


@dataclass
class Rule:
    service: str = "*"
    operation: str = "*"
    match: str | None = None
    times: int | None = 1
    skip: int = 0
    latency_ms: int = 0
    error: str | None = None
    status: int | None = None
    message: str | None = None
    reset: bool = False
    after: bool = False
    truncate: bool = False
    per_second: int | None = None
    airflow_status: int | None = None
    hold: dict[str, Any] | None = None
    caller: str = "user"
    fired: int = 0
    _passed: deque[float] = field(default_factory=deque)

    @property
    def answers(self) -> bool:
        """Whether the caller gets an error of ours."""
        return bool(self.error or self.status)

    @property
    def http_status(self) -> int:
        return self.status or _STATUS.get(self.error or "", 400)

    def fits(self, call: Call) -> bool:
        if not (fnmatchcase(call.service, self.service) and fnmatchcase(call.operation, self.operation)):
            return False
        if not fnmatchcase(call.caller, self.caller):
            return False
        if self.match is None:
            return True
        values = [item for value in call.keys.values() for item in (value if isinstance(value, list) else [value])]
        return any(self.match in str(value) for value in values)

    def spares(self, now: float) -> bool:
        """Whether this call is within the rate that the rule allows."""
        if self.per_second is None:
            return False
        while self._passed and self._passed[0] <= now - 1.0:
            self._passed.popleft()
        if len(self._passed) >= self.per_second:
            return False
        self._passed.append(now)
        return True


class Faults:
    """The rules that hold now. Thread-safe."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._rules: list[Rule] = []
        self._lock = threading.Lock()

    def replace(self, rules: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Raises ValueError, naming the rule, for a member that no rule has."""
        fresh = []
        for index, given in enumerate(rules):
            try:
                fresh.append(Rule(**{key: value for key, value in given.items() if key not in ("fired", "_passed")}))
            except TypeError as wrong:
                raise ValueError(f"fault rule {index}: {wrong}") from None
        with self._lock:
            self._rules = fresh
        return self.show()

    def show(self) -> list[dict[str, Any]]:
        with self._lock:
            return [{key: value for key, value in vars(rule).items() if key != "_passed"} for rule in self._rules]

    def take(self, call: Call) -> Rule | None:
        """The first rule that hits this call, with its count taken; None lets the call through."""
        with self._lock:
            for rule in self._rules:
                if not rule.fits(call):
                    continue
                if rule.skip > 0:
                    rule.skip -= 1
                    continue
                if rule.times is not None and rule.fired >= rule.times:
                    continue
                if rule.spares(self._clock()):
                    continue
                rule.fired += 1
                return rule
        return None
