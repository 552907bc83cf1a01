# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Faults on order: rules that make matching calls slow, fail, or lose their connection.

``POST /_lab/faults`` takes a list of rules and replaces the ones before it; each rule::

    {"service": "mwaa", "operation": "GetEnvironment", "times": 2, "error": "ThrottlingException", "status": 429}

- ``service``, ``operation``: shell patterns of what the journal names (``mwaa``, ``s3``, ``webserver``); default ``*``.
- ``match``: text that must occur in one of the call's names (bucket, key, environment, path, ...).
- ``times``: how many matching calls are hit, null for all (default 1); ``skip``: how many pass untouched before.
- ``latency_ms``: wait first. With neither ``error`` nor ``reset`` the call then goes on as usual.
- ``error`` (code), ``status`` (default 400; 503 for SlowDown and the like), ``message``: answer in the service's shape.
- ``reset``: drop the connection without an answer; with ``after`` the call takes effect first.
- ``caller``: ``user`` (default), ``service``, ``environment`` or ``*``.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
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
    caller: str = "user"
    fired: int = 0

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


class Faults:
    """The rules that hold now. Thread-safe."""

    def __init__(self) -> None:
        self._rules: list[Rule] = []
        self._lock = threading.Lock()

    def replace(self, rules: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Raises ValueError, naming the rule, for a member that no rule has."""
        fresh = []
        for index, given in enumerate(rules):
            try:
                fresh.append(Rule(**{key: value for key, value in given.items() if key != "fired"}))
            except TypeError as wrong:
                raise ValueError(f"fault rule {index}: {wrong}") from None
        with self._lock:
            self._rules = fresh
        return self.show()

    def show(self) -> list[dict[str, Any]]:
        with self._lock:
            return [dict(vars(rule)) for rule in self._rules]

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
                rule.fired += 1
                return rule
        return None
