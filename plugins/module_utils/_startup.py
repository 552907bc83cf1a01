# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What becomes of the source's environment variables: state, startup.sh, or a line in the report.

PRIVATE to the collection: no promise is made to other collections.

MWAA runs startup.sh before Airflow on every worker, scheduler and web server, and what it exports Airflow sees (user
guide, "Using a startup script"). It lies in the bucket in clear, so nothing that looks like a secret goes there.
"""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.mwaa.migration.plugins.module_utils import _versions

CHOICES = ("list", "state", "startup_script")
# user guide, "Reserved environment variables": MWAA sets them anew whatever the script says
RESERVED = re.compile(
    r"^(AIRFLOW_HOME|AIRFLOW_CONFIG|AIRFLOW_CONN_AWS_DEFAULT|AIRFLOW_CONSOLE_LOGS_ENABLED|AIRFLOW_CONSOLE_LOG_LEVEL"
    r"|AIRFLOW_CTX_.*|AIRFLOW_ENV_NAME|AIRFLOW_TASK_.*|AIRFLOW__.*|AWS_REGION|AWS_EXECUTION_ENV|CELERY_LOG_FILE|FERNET_KEY|MWAA__?.*|PYTHONPATH"
    r"|SQL_ALCHEMY_CONN|XDG_.*)$"
)
# they describe the source's machine or its session
OWN = re.compile(
    r"^(HOME|USER|LOGNAME|SHELL|PWD|OLDPWD|PATH|LANG|LC_.*|TERM|TMPDIR|HOSTNAME|MAIL|SHLVL|_|INVOCATION_ID|JOURNAL_STREAM"
    r"|AWS_.*|NOTIFY_SOCKET|SYSTEMD_.*|VIRTUAL_ENV|PYTHON.*|LD_.*|SSH_.*|SUDO_.*"
    # the shell's own: to assign to some ends the script, and with it the environment's start; others change its meaning
    r"|UID|EUID|PPID|SHELLOPTS|BASH.*|IFS|ENV|CDPATH|PS[0-4])$"
)
# POSIX, "Name": anything else would be code in the script
NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


@dataclass
class Decision:
    """script: startup.sh, or None where there is nothing in it."""

    script: str | None = None
    findings: list[str] = field(default_factory=list)
    not_carried: list[dict[str, str]] = field(default_factory=list)


def sealed(choice: str, target_version: str) -> str | None:
    """Which AIRFLOW_VAR_* and AIRFLOW_CONN_* the agent makes state of: all, secret (connections always are), or None.

    A target without a startup script gets them all, rather than none.
    """
    if choice == "list":
        return None
    return "secret" if choice == "startup_script" and _has_script(target_version) else "all"


def _has_script(target_version: str) -> bool:
    return _versions.at_least(target_version, _versions.STARTUP_SCRIPT)


def decide(environment: list[dict[str, Any]], choice: str, target_version: str) -> Decision:
    """environment: the agent's list. choice: one of CHOICES."""
    decision, lines = Decision(), []
    scripts = choice != "list" and _has_script(target_version)
    state = sealed(choice, target_version)
    for entry in environment:
        name, kind = entry["name"], entry["kind"]
        where = f"{name} is set in {entry['origin'] or 'the environment'}"
        what = "environment_variable" if kind == "plain" else kind

        def leave(reason: str, what: str = what, name: str = name) -> None:
            decision.not_carried.append({"kind": what, "id": name, "reason": reason})

        if kind != "plain" and (state == "all" or (state == "secret" and entry["secret"])):
            how = ", which it hides at the source" if entry["hides"] else ""
            decision.findings.append(f"{where} and becomes the {kind} {' and '.join(entry['ids'])}{how}")
        elif kind != "plain" and choice == "list":
            if entry["hides"]:
                decision.findings.append(
                    f"{where} and hides the {kind} {' and '.join(entry['hides'])} at the source;"
                    " what the database holds is carried"
                )
            else:
                leave(f"{where} and not in the database: set environment_variables to state, or make it a {kind}")
        elif kind == "plain" and (RESERVED.match(name) or OWN.match(name)):
            reason = "MWAA sets it itself" if RESERVED.match(name) else "it describes the source's host"
            leave(f"{where} and read by {_paths(entry)}; {reason}")
        elif entry["secret"]:
            leave(
                f"{where}{' and read by ' + _paths(entry) if kind == 'plain' else ''}; it looks like a secret, which a"
                " startup script would show to everyone who may read the bucket: make it a connection or a variable"
            )
        elif entry["value"] is None:
            leave(f"{where} and is no text in UTF-8")
        elif scripts and not NAME.fullmatch(name):
            leave(f"{where}; no shell takes such a name, so a startup script cannot set it")
        elif scripts:
            lines.append(f"export {name}={shlex.quote(entry['value'])}")
        elif choice == "list":
            leave(f"{where} and read by {_paths(entry)}: set environment_variables to state or startup_script")
        else:
            leave(f"{where}; Airflow {target_version} in MWAA has no startup script")
    if lines:
        head = "# Environment variables of the Airflow that was left, as far as its DAGs read them. No secrets."
        decision.script = "\n".join(["#!/bin/sh", head, *lines]) + "\n"
        decision.findings.append(f"{len(lines)} environment variables are set in startup.sh")
    return decision


def _paths(entry: dict[str, Any]) -> str:
    return ", ".join(entry["read_by"])
