# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What tests of modules share: AWS's refusals, botocore's own check of parameters, time that nobody waits for."""

from __future__ import annotations

import functools
from typing import Any

import botocore.session
import botocore.validate
from botocore.exceptions import ClientError

REGION = "eu-central-1"


def aws_failure(
    code: str, message: str = "", *, operation: str = "Operation", status: int = 400, **members: Any
) -> ClientError:
    """What boto3 raises when AWS refuses a call."""
    return ClientError(
        {
            "Error": {"Code": code, "Message": message},
            "ResponseMetadata": {"HTTPStatusCode": status, "RequestId": "11111111-2222", "HTTPHeaders": {}},
            **members,
        },
        operation,
    )


@functools.cache
def _input_shape(service: str, operation: str) -> Any:
    return botocore.session.get_session().get_service_model(service).operation_model(operation).input_shape


def check_input(service: str, operation: str, params: dict[str, Any]) -> None:
    """Fail as botocore does when the parameters are not what the operation takes."""
    report = botocore.validate.ParamValidator().validate(params, _input_shape(service, operation))
    assert not report.has_errors(), report.generate_report()


class Clock:
    """Time that passes only when somebody sleeps."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.slept: list[float] = []

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds
