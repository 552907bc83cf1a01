# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import datetime

import pytest
from ansible_collections.mwaa.migration.plugins.module_utils import _versions
from ansible_collections.mwaa.migration.plugins.module_utils._errors import MigrationError


def test_versions_are_in_order_and_their_days_too() -> None:
    assert [one.numbers for one in _versions.OFFERS.values()] == sorted(
        one.numbers for one in _versions.OFFERS.values()
    )
    assert all(one.last is None or one.first < one.last for one in _versions.OFFERS.values())


def test_an_ended_version_is_named_with_its_day() -> None:
    day = datetime.date(2026, 1, 1)
    assert _versions.ended("2.11.2", day) is None
    assert _versions.ended("2.5.1", datetime.date(2025, 12, 30)) is None
    assert _versions.ended("2.5.1", day) == (
        "AWS ended Airflow 2.5.1 on 2025-12-30: it refuses to create such an environment"
    )
    assert _versions.ended("9.9.9", day) is None


def test_what_was_offered_on_a_day() -> None:
    assert _versions.offered(datetime.date(2021, 12, 1)) == ("1.10.12", "2.0.2")
    assert _versions.offered(datetime.date(2023, 5, 1)) == ("1.10.12", "2.0.2", "2.2.2", "2.4.3", "2.5.1")
    assert "3.3.1" in _versions.offered(datetime.date(2026, 11, 21))


def test_a_version_that_never_was() -> None:
    with pytest.raises(MigrationError, match="MWAA has no Airflow 1.10.15"):
        _versions.require("1.10.15")


@pytest.mark.parametrize(("text", "expected"), [("2.10.3", (2, 10, 3)), ("3.0.0rc1", (3, 0, 0)), ("x", ())])
def test_numbers(text: str, expected: tuple[int, ...]) -> None:
    assert _versions.numbers(text) == expected
    assert _versions.at_least("2.10.3", "2.4.3")
    assert not _versions.at_least("2.0.2", _versions.STARTUP_SCRIPT)
