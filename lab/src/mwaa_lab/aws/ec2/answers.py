# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How ministack's EC2 is spoken to: a query's parameters, each value in a list; status, headers and XML come back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Parameters = dict[str, Any]
Answer = tuple[int, dict[str, str], bytes]
Handler = Callable[[Parameters], Answer]


def answered(action: str, inner: str) -> Answer:
    from ministack.services import ec2

    found: Answer = ec2._xml(200, f"{action}Response", inner)
    return found


def refused(code: str, message: str) -> Answer:
    from ministack.services import ec2

    found: Answer = ec2._error(code, message, 400)
    return found
