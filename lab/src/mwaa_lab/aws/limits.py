# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What MWAA is known to be strict about, as data: versions, classes, limits, the CLI's allow-list.

Sources: the MWAA User Guide and API reference; "U" marks what AWS does not document, where the lab had to choose.
"""

from __future__ import annotations

import datetime

_DAYS = {
    # version: first day, last day ("" while it is offered). Days before 2.7.2's first one are from AWS's announcements.
    "1.10.12": ("2020-11-24", "2024-02-21"),
    "2.0.2": ("2021-05-26", "2024-04-29"),
    "2.2.2": ("2022-01-27", "2024-06-27"),
    "2.4.3": ("2023-01-23", "2025-12-30"),
    "2.5.1": ("2023-04-11", "2025-12-30"),
    "2.6.3": ("2023-08-02", "2025-12-30"),
    "2.7.2": ("2023-11-06", ""),
    "2.8.1": ("2024-02-23", ""),
    "2.9.2": ("2024-07-09", ""),
    "2.10.1": ("2024-09-26", ""),
    "2.10.3": ("2024-12-18", ""),
    "3.0.6": ("2025-10-01", ""),
    "2.11.0": ("2026-01-07", ""),
    "3.2.1": ("2026-05-19", ""),
    "2.11.2": ("2026-07-21", ""),
    "3.3.1": ("2026-09-01", ""),
}
"""Every version that MWAA ever offered, and when it could be chosen (User Guide, "Apache Airflow versions")."""


def offered(day: datetime.date) -> list[str]:
    """Versions that an environment can be created with or moved to on that day, oldest first."""
    text = day.isoformat()
    return sorted((v for v, (first, last) in _DAYS.items() if first <= text <= (last or text)), key=version_tuple)


def last_day(version: str) -> datetime.date | None:
    """The last day on which AWS offers a version; None: no end is announced, or it is none of MWAA's."""
    last = _DAYS.get(version, ("", ""))[1]
    return datetime.date.fromisoformat(last) if last else None


def not_offered(version: str, day: datetime.date) -> str | None:
    """Why an environment cannot have this version on that day; None when it can."""
    possible = offered(day)
    if version in possible:
        return None
    if version in _DAYS and day.isoformat() > _DAYS[version][0]:
        return f"Apache Airflow version {version} has reached its end of support on Amazon MWAA."
    return f"Apache Airflow version {version} is not supported. Valid versions are: {', '.join(possible)}."


CLASSES = ("mw1.micro", "mw1.small", "mw1.medium", "mw1.large", "mw1.xlarge", "mw1.2xlarge")
MOST_WORKERS = 25
MOST_WEBSERVERS = 5

TOKEN_SECONDS = 60
SESSION_SECONDS = 12 * 3600
REST_SINCE = (2, 4, 3)
REST_PER_SECOND = 10
REST_SECONDS = 10.0
REST_BYTES = 6 * 1024 * 1024
CLI_AT_ONCE = 4

AIRFLOW_ROLES = ("Admin", "Op", "User", "Viewer", "Public")
"""What a principal can be in an environment, by the resource that its policy names (User Guide, "Accessing MWAA")."""

REFUSED_OPTIONS = ("core.multi_team", "triggerer.queues_enabled")
"""The two options that the API refuses from Airflow 3.2 on; others that are reserved are silently ignored."""


def version_tuple(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".") if part.isdigit())


_V1 = (1, 10)
_V2 = (2, 0)
_V3 = (3, 0)
_FOREVER = (99,)
_CLI: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = {
    # command: first version that has it, first version that no longer has it
    "clear": (_V1, _V2),
    "dag_state": (_V1, _V2),
    "delete_dag": (_V1, _V2),
    "list_dag_runs": (_V1, _V2),
    "list_tasks": (_V1, _V2),
    "next_execution": (_V1, _V2),
    "pause": (_V1, _V2),
    "pool": (_V1, _V2),
    "render": (_V1, _V2),
    "run": (_V1, _V2),
    "show_dag": (_V1, _V2),
    "task_failed_deps": (_V1, _V2),
    "task_state": (_V1, _V2),
    "test": (_V1, _V2),
    "trigger_dag": (_V1, _V2),
    "unpause": (_V1, _V2),
    "variables": (_V1, _V2),
    "cheat-sheet": (_V2, _FOREVER),
    "version": (_V1, _FOREVER),
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
        "dag_state",
        "list_dag_runs",
        "list_tasks",
        "next_execution",
        "render",
        "show_dag",
        "task_failed_deps",
        "task_state",
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
    words = [word for word in argv[:2] if not word.startswith("-")]
    # `variables` is a command of 1.10 (variables --set …) and a group of commands since (variables set …).
    if argv and argv[0] in _CLI and words != ["variables", *argv[1:2]]:
        return argv[0]
    return " ".join(words)


def cli_allowed(command: str, version: str) -> bool:
    """Whether MWAA's web server runs this command for this Airflow version (User Guide, "CLI command reference")."""
    if command not in _CLI:
        return False
    first, gone = _CLI[command]
    return first <= version_tuple(version) < gone


def cli_reads(command: str) -> bool:
    return command in _CLI_READS


def upgrade_fault(old: str, new: str, day: datetime.date) -> str | None:
    """Why an environment cannot move from one version to another in place on that day; None when it can.

    Within a major version up and down; 2.11.x to 3.x and back. Which other jumps MWAA refuses is not documented (U).
    """
    if fault := not_offered(new, day):
        return fault
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
