# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Request rates of other services than MWAA, as far as a migration meets them: Secrets Manager, CloudWatch Logs.

Sources: AWS Secrets Manager User Guide, "AWS Secrets Manager quotas"; CloudWatch Logs User Guide, "CloudWatch Logs
quotas": per account and Region. Only users' calls count here, not what an environment looks up or logs.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable

from mwaa_lab.aws.journal import Call
from mwaa_lab.aws.model import ApiError

_SECRETS_MANAGER = {
    # operations that are counted together: calls a second
    ("DescribeSecret", "GetSecretValue"): 10_000,
    ("PutSecretValue", "ReplicateSecretToRegions", "UpdateSecret", "UpdateSecretVersionStage"): 50,
    ("DeleteResourcePolicy", "GetResourcePolicy", "PutResourcePolicy", "ValidateResourcePolicy"): 50,
    ("TagResource", "UntagResource"): 50,
    ("BatchGetSecretValue",): 100,
    ("ListSecrets",): 100,
    ("CreateSecret",): 50,
    ("DeleteSecret",): 50,
    ("GetRandomPassword",): 50,
    ("ListSecretVersionIds",): 50,
    ("RestoreSecret",): 50,
}
_LOGS = {
    ("CreateLogStream",): 50,
    ("DescribeLogGroups",): 10,
    ("DescribeLogStreams",): 25,
    ("FilterLogEvents",): 10,
    ("GetLogEvents",): 25,  # 10 in some Regions
    ("PutLogEvents",): 5_000,
}
_GROUPS = {
    (service, name): (names, rate)
    for service, known in (("secretsmanager", _SECRETS_MANAGER), ("logs", _LOGS))
    for names, rate in known.items()
    for name in names
}
VERSIONS = 100
"""Versions of a secret; AWS removes none that is younger than 24 hours, and no lab lives that long."""


class Rates:
    """What was called in the last second. Thread-safe."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._calls: dict[tuple[str, str, tuple[str, ...]], deque[float]] = {}
        self._versions: dict[tuple[str, str, str], int] = {}
        self._lock = threading.Lock()

    def refuse(self, call: Call, account: str) -> ApiError | None:
        """Why this call is too much; None when it is not, and then it counts."""
        group = _GROUPS.get((call.service, call.operation))
        if group is None:
            return None
        names, rate = group
        with self._lock:
            now, calls = self._clock(), self._calls.setdefault((account, call.region, names), deque())
            while calls and calls[0] <= now - 1.0:
                calls.popleft()
            if len(calls) >= rate:
                return ApiError(400, "ThrottlingException", "Rate exceeded")
            calls.append(now)
            return self._refuse_version(call, account) if call.service == "secretsmanager" else None

    def _refuse_version(self, call: Call, account: str) -> ApiError | None:
        secret = (account, call.region, str(call.keys.get("secret_id") or call.keys.get("name") or ""))
        if call.operation in ("CreateSecret", "DeleteSecret"):
            self._versions.pop(secret, None)
        elif call.operation in ("PutSecretValue", "UpdateSecret"):
            made = self._versions.setdefault(secret, 1)
            if made >= VERSIONS:
                return ApiError(
                    400,
                    "LimitExceededException",
                    f"You can't create more than {VERSIONS} versions of a secret in 24 hours.",
                )
            self._versions[secret] = made + 1
        return None

    def forget(self) -> None:
        with self._lock:
            self._calls.clear()
            self._versions.clear()
