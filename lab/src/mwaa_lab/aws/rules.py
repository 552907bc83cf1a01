# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where other services are strict and ministack is not: S3, CloudWatch Logs, Secrets Manager, SSM. Pure functions."""

from __future__ import annotations

import json
import re
from typing import Any

from mwaa_lab.aws.journal import Call
from mwaa_lab.aws.model import ApiError

_DAY = 24 * 3600 * 1000
_LOG_EVENTS = 10_000
_LOG_BYTES = 1_048_576
_LOG_EVENT_OVERHEAD = 26
_LOG_OLDEST = 14 * _DAY
_LOG_NEWEST = 2 * 3600 * 1000
_LOG_PAGE_BYTES = 1_048_576
_LOG_STREAM = re.compile(r"[^:*]{1,512}")
_SECRET_BYTES = 65_536
_SECRETS_AT_ONCE = 20
_SECRET_NAME = re.compile(r"[A-Za-z0-9/_+=.@!-]{1,512}")
_PARAMETER_CHARACTERS = {"Standard": 4096, "Advanced": 8192, "Intelligent-Tiering": 8192}


def refuse(call: Call, headers: dict[str, str], body: bytes) -> ApiError | None:
    """Why AWS would not take this request; None when it would."""
    if call.service == "s3":
        return _refuse_s3(call, headers)
    if call.service in ("secretsmanager", "ssm") and call.access == "write":
        return _refuse_name(call) or _refuse_size(call, body)
    if call.operation == "BatchGetSecretValue" and len(call.keys.get("secret_id_list", ())) > _SECRETS_AT_ONCE:
        return ApiError(
            400,
            "ValidationException",
            "1 validation error detected: Value at 'secretIdList' failed to satisfy constraint: "
            f"Member must have length less than or equal to {_SECRETS_AT_ONCE}",
        )
    return None


def _refuse_name(call: Call) -> ApiError | None:
    name = str(call.keys.get("name") or "")
    if call.operation == "CreateSecret" and not _SECRET_NAME.fullmatch(name):
        return ApiError(
            400,
            "ValidationException",
            "Invalid name. Must be a valid name containing alphanumeric characters, or any of the following: -/_+=.@!",
        )
    return None


def _refuse_s3(call: Call, headers: dict[str, str]) -> ApiError | None:
    # S3 takes HTTP's chunked encoding only for its own aws-chunked uploads, which announce their decoded length.
    chunked = "chunked" in headers.get("transfer-encoding", "").lower()
    if chunked and call.access == "write" and "x-amz-decoded-content-length" not in headers:
        return ApiError(
            501,
            "NotImplemented",
            "A header you provided implies functionality that is not implemented",
            Header="Transfer-Encoding",
        )
    return None


def _refuse_size(call: Call, body: bytes) -> ApiError | None:
    try:
        given = json.loads(body)
    except ValueError:
        return None
    if call.service == "secretsmanager" and len(str(given.get("SecretString") or "").encode()) > _SECRET_BYTES:
        return ApiError(
            400,
            "ValidationException",
            "1 validation error detected: Value at 'secretString' failed to satisfy constraint: "
            f"Member must have length less than or equal to {_SECRET_BYTES}",
        )
    if call.service == "ssm" and call.operation == "PutParameter":
        tier = given.get("Tier") or "Standard"
        most = _PARAMETER_CHARACTERS.get(tier, 4096)
        if len(str(given.get("Value") or "")) > most:
            return ApiError(
                400,
                "ValidationException",
                f"{tier} tier parameters support a maximum parameter value of {most} characters.",
            )
    return None


def log_stream(name: str) -> ApiError | None:
    """Why CreateLogStream would not take this name; None when it would."""
    if _LOG_STREAM.fullmatch(name):
        return None
    return ApiError(
        400,
        "InvalidParameterException",
        f"1 validation error detected: Value '{name}' at 'logStreamName' failed to satisfy constraint: "
        "Member must satisfy regular expression pattern: [^:*]* and have length less than or equal to 512",
    )


def log_page(messages: list[str]) -> int:
    """How many of these messages one answer of GetLogEvents holds: as many as fit in 1 MB, at least one."""
    size = 0
    for number, message in enumerate(messages):
        size += len(message.encode()) + _LOG_EVENT_OVERHEAD
        if number and size > _LOG_PAGE_BYTES:
            return number
    return len(messages)


def log_events(
    events: list[dict[str, Any]], now: int, retention_days: int | None
) -> tuple[list[dict[str, Any]], dict[str, int]]:
    """The events of one PutLogEvents call that CloudWatch Logs takes, and its rejectedLogEventsInfo.

    ``now`` and timestamps in milliseconds. Raises ApiError InvalidParameterException when the whole batch is refused:
    more than 10,000 events or 1,048,576 bytes (UTF-8 plus 26 an event), not chronological, a span of over 24 hours.
    Single events are left out when older than 14 days or the group's retention, or more than 2 hours in the future.
    """

    def refused(message: str) -> ApiError:
        return ApiError(400, "InvalidParameterException", message)

    if not events:
        raise refused("1 validation error detected: Value '[]' at 'logEvents' failed to satisfy constraint: "
                      "Member must have length greater than or equal to 1")  # fmt: skip
    if len(events) > _LOG_EVENTS:
        raise refused(
            "1 validation error detected: Value at 'logEvents' failed to satisfy constraint: "
            f"Member must have length less than or equal to {_LOG_EVENTS}"
        )
    if any(not event.get("message") for event in events):
        raise refused(
            "1 validation error detected: Value at 'logEvents.message' failed to satisfy constraint: "
            "Member must have length greater than or equal to 1"
        )
    size = sum(len(event["message"].encode()) + _LOG_EVENT_OVERHEAD for event in events)
    if size > _LOG_BYTES:
        raise refused(f"Upload too large: {size} bytes exceeds limit of {_LOG_BYTES}")
    times = [event["timestamp"] for event in events]
    if any(later < earlier for earlier, later in zip(times, times[1:])):
        raise refused("Log events in a single PutLogEvents request must be in chronological order.")
    if times[-1] - times[0] > _DAY:
        raise refused("The batch of log events in a single PutLogEvents request cannot span more than 24 hours.")
    info: dict[str, int] = {}
    too_old = sum(time < now - _LOG_OLDEST for time in times)
    expired = sum(time < now - retention_days * _DAY for time in times) if retention_days else 0
    too_new = next((index for index, time in enumerate(times) if time > now + _LOG_NEWEST), None)
    if too_old:
        info["tooOldLogEventEndIndex"] = too_old
    if expired > too_old:
        info["expiredLogEventEndIndex"] = expired
    if too_new is not None:
        info["tooNewLogEventStartIndex"] = too_new
    return events[max(too_old, expired) : too_new], info
