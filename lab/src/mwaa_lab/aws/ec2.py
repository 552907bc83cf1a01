# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What EC2 lacks in ministack."""

from __future__ import annotations

from typing import Any


def install() -> None:
    pass


def endpoint_entries(record: dict[str, Any]) -> list[dict[str, str]]:
    return []
