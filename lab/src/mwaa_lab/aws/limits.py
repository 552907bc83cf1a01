# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What MWAA is known to be strict about, as data: versions, classes, limits, the CLI's allow-list.

Sources: the MWAA User Guide and API reference; "U" marks what AWS does not document, where the lab had to choose.
"""

from __future__ import annotations

VERSIONS = ("2.7.2", "2.8.1", "2.9.2", "2.10.1", "2.10.3", "2.11.0", "2.11.2", "3.0.6", "3.2.1", "3.3.1")
"""Versions that an environment can be created with or moved to (User Guide, "Apache Airflow versions")."""
ENDED_VERSIONS = ("1.10.12", "2.0.2", "2.2.2", "2.4.3", "2.5.1", "2.6.3")
LATEST = VERSIONS[-1]

CLASSES = ("mw1.micro", "mw1.small", "mw1.medium", "mw1.large", "mw1.xlarge", "mw1.2xlarge")
MOST_WORKERS = 25
MOST_WEBSERVERS = 5

TOKEN_SECONDS = 60
SESSION_SECONDS = 12 * 3600
REST_PER_SECOND = 10
REST_SECONDS = 10.0
REST_BYTES = 6 * 1024 * 1024
CLI_AT_ONCE = 4

REFUSED_OPTIONS = ("core.multi_team", "triggerer.queues_enabled")
"""The two options that the API refuses from Airflow 3.2 on; others that are reserved are silently ignored."""


def version_tuple(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".") if part.isdigit())


_V2 = (2, 0)
_V3 = (3, 0)
_FOREVER = (99,)
_CLI: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = {
    # command: first version that has it, first version that no longer has it
    "cheat-sheet": (_V2, _FOREVER),
    "version": (_V2, _FOREVER),
    "assets details": (_V3, _FOREVER),
    "assets list": (_V3, _FOREVER),
    "assets materialize": (_V3, _FOREVER),
    "backfill create": (_V3, _FOREVER),
    "connections add": (_V2, _FOREVER),
    "connections delete": (_V2, _FOREVER),
    "dags backfill": ((2, 2), _V3),
    "dags delete": (_V2, _FOREVER),
    "dags list": (_V2, _FOREVER),
    "dags list-import-errors": ((2, 6), _FOREVER),
    "dags list-jobs": (_V2, _FOREVER),
    "dags list-runs": (_V2, _FOREVER),
    "dags next-execution": (_V2, _FOREVER),
    "dags pause": (_V2, _FOREVER),
    "dags report": (_V2, _FOREVER),
    "dags reserialize": ((2, 4), _FOREVER),
    "dags show": (_V2, _FOREVER),
    "dags state": (_V2, _FOREVER),
    "dags test": (_V2, _FOREVER),
    "dags trigger": (_V2, _FOREVER),
    "dags unpause": (_V2, _FOREVER),
    "db clean": ((2, 4), _FOREVER),
    "providers behaviours": (_V2, _FOREVER),
    "providers get": (_V2, _FOREVER),
    "providers hooks": (_V2, _FOREVER),
    "providers links": (_V2, _FOREVER),
    "providers list": (_V2, _FOREVER),
    "providers notifications": ((2, 8), _FOREVER),
    "providers secrets": (_V2, _FOREVER),
    "providers triggerer": ((2, 7), _FOREVER),
    "providers widgets": (_V2, _FOREVER),
    "roles add-perms": ((2, 6), _FOREVER),
    "roles create": ((2, 6), _FOREVER),
    "roles del-perms": ((2, 6), _FOREVER),
    "roles list": (_V2, _FOREVER),
    "tasks clear": (_V2, _FOREVER),
    "tasks failed-deps": (_V2, _FOREVER),
    "tasks list": (_V2, _FOREVER),
    "tasks render": (_V2, _FOREVER),
    "tasks run": (_V2, _V3),
    "tasks state": (_V2, _FOREVER),
    "tasks states-for-dag-run": (_V2, _FOREVER),
    "tasks test": (_V2, _FOREVER),
    "variables delete": (_V2, _FOREVER),
    "variables get": (_V2, _FOREVER),
    "variables list": (_V2, _FOREVER),
    "variables set": (_V2, _FOREVER),
}
_CLI_READS = frozenset(
    [
        "cheat-sheet",
        "version",
        "assets details",
        "assets list",
        "dags list",
        "dags list-import-errors",
        "dags list-jobs",
        "dags list-runs",
        "dags next-execution",
        "dags report",
        "dags show",
        "dags state",
        "providers behaviours",
        "providers get",
        "providers hooks",
        "providers links",
        "providers list",
        "providers notifications",
        "providers secrets",
        "providers triggerer",
        "providers widgets",
        "roles list",
        "tasks failed-deps",
        "tasks list",
        "tasks render",
        "tasks state",
        "tasks states-for-dag-run",
        "variables get",
        "variables list",
    ]
)


def cli_command(argv: list[str]) -> str:
    """The command's name without its arguments: ``variables set``, ``version``."""
    if argv and argv[0] in _CLI:
        return argv[0]
    return " ".join(word for word in argv[:2] if not word.startswith("-"))


def cli_allowed(command: str, version: str) -> bool:
    """Whether MWAA's web server runs this command for this Airflow version (User Guide, "CLI command reference")."""
    if command not in _CLI:
        return False
    first, gone = _CLI[command]
    return first <= version_tuple(version) < gone


def cli_reads(command: str) -> bool:
    return command in _CLI_READS


def upgrade_fault(old: str, new: str) -> str | None:
    """Why an environment cannot move from one version to another in place; None when it can.

    Within a major version up and down; 2.11.x to 3.x and back. Which other jumps MWAA refuses is not documented (U).
    """
    if new in ENDED_VERSIONS:
        return f"Apache Airflow version {new} has reached its end of support on Amazon MWAA."
    if new not in VERSIONS:
        return f"Apache Airflow version {new} is not supported. Valid versions are: {', '.join(VERSIONS)}."
    before, after = version_tuple(old), version_tuple(new)
    if before[0] == after[0]:
        return None
    crossing = before if before[0] == 2 else after
    if crossing[:2] == (2, 11):
        return None
    return (
        f"An environment cannot be updated from Apache Airflow {old} to {new}: "
        "between version 2 and version 3 only 2.11 can be upgraded from or downgraded to."
    )
