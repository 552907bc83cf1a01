# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The Airflow versions that MWAA has or had, with their Pythons and days.

PRIVATE to the collection: no promise is made to other collections.

Sources: MWAA user guide, "Apache Airflow versions" and its document history. An ended version cannot be created or
moved to; environments that have it keep running and can be changed otherwise. It is AWS that refuses: here it is only
said.
"""

from __future__ import annotations

import datetime
from dataclasses import dataclass

from ansible_collections.mwaa.migration.plugins.module_utils._errors import MigrationError


@dataclass(frozen=True)
class Offer:
    """An Airflow version of MWAA.

    first: the day from which environments of it could be created. last: the last such day, None while there is no end.
    """

    version: str
    python: str
    first: datetime.date
    last: datetime.date | None = None

    @property
    def numbers(self) -> tuple[int, ...]:
        return numbers(self.version)


def _offer(version: str, python: str, first: str, last: str | None = None) -> Offer:
    return Offer(
        version, python, datetime.date.fromisoformat(first), datetime.date.fromisoformat(last) if last else None
    )


OFFERS = {
    offer.version: offer
    for offer in (
        _offer("1.10.12", "3.7", "2020-11-24", "2024-02-21"),
        _offer("2.0.2", "3.7", "2021-05-26", "2024-04-29"),
        _offer("2.2.2", "3.7", "2022-01-27", "2024-06-27"),
        _offer("2.4.3", "3.10", "2023-01-05", "2025-12-30"),
        _offer("2.5.1", "3.10", "2023-04-11", "2025-12-30"),
        _offer("2.6.3", "3.10", "2023-08-02", "2025-12-30"),
        _offer("2.7.2", "3.11", "2023-11-06"),
        _offer("2.8.1", "3.11", "2024-02-23"),
        _offer("2.9.2", "3.11", "2024-07-09"),
        _offer("2.10.1", "3.11", "2024-09-26"),
        _offer("2.10.3", "3.11", "2024-12-18"),
        _offer("2.11.0", "3.12", "2026-01-07"),
        _offer("2.11.2", "3.12", "2026-07-21"),
        _offer("3.0.6", "3.12", "2025-10-01"),
        _offer("3.2.1", "3.12", "2026-05-19"),
        _offer("3.3.1", "3.12", "2026-09-01"),
    )
}
VERSIONS = tuple(OFFERS)

# the first Airflow version of MWAA that has it (user guide, the pages of these names)
STARTUP_SCRIPT = "2.2.2"


def numbers(version: str) -> tuple[int, ...]:
    """'2.10.3' -> (2, 10, 3), to compare versions; what follows the numbers ('rc1') is left out."""
    found: list[int] = []
    for part in version.split("."):
        digits = part[: len(part) - len(part.lstrip("0123456789"))]
        if not digits:
            break
        found.append(int(digits))
    return tuple(found)


def at_least(version: str, first: str) -> bool:
    return numbers(version) >= numbers(first)


def require(version: str) -> Offer:
    """MigrationError unless MWAA has or had this version."""
    if version not in OFFERS:
        raise MigrationError(f"MWAA has no Airflow {version}: set target_version to one of {', '.join(VERSIONS)}")
    return OFFERS[version]


def ended(version: str, today: datetime.date | None = None) -> str | None:
    """A sentence to warn with where AWS takes a version no more; None where it does, or where it is not known."""
    offer = OFFERS.get(version)
    day = today or _today()
    if offer is None or offer.last is None or day <= offer.last:
        return None
    return f"AWS ended Airflow {version} on {offer.last:%Y-%m-%d}: it refuses to create such an environment"


def refused(version: str, today: datetime.date | None = None) -> str | None:
    """Why AWS is not going to take a version for an environment; None where it does, or where it is newer than this."""
    if version in OFFERS:
        return ended(version, today)
    if numbers(version) > OFFERS[VERSIONS[-1]].numbers:
        return None
    return f"MWAA has no Airflow {version}: take one of {', '.join(offered(today or _today()))}"


def in_place(before: str, after: str) -> tuple[str, str] | None:
    """Why MWAA cannot bring an environment from one version to another in place, and the way there; None where it can.

    User guide, "Upgrading the Apache Airflow version": up and down within a major version; between 2 and 3 only 2.11.
    """
    old, new = numbers(before), numbers(after)
    if not old or not new or old[0] == new[0]:
        return None
    if {old[0], new[0]} != {2, 3}:
        return f"no way in place leads from Airflow {before} to {after}", "migrate into a new environment"
    if (old if old[0] == 2 else new)[:2] == (2, 11):
        return None
    way = f"upgrade to 2.11.2 first, and from there to {after}" if old[0] == 2 else "go back to 2.11.2 instead"
    return f"between Airflow 2 and 3 the way leads by 2.11 alone, not from {before} to {after}", way


def _today() -> datetime.date:
    return datetime.datetime.now(datetime.timezone.utc).date()


def offered(today: datetime.date) -> tuple[str, ...]:
    """The versions that an environment can be created with on a day, oldest first."""
    return tuple(
        version for version, one in OFFERS.items() if one.first <= today and (one.last is None or today <= one.last)
    )
