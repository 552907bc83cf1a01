# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Rules about the environment itself: its name, version, class, options, quotas and log groups. Pure.

PRIVATE to the collection: no promise is made to other collections.

Sources: MWAA user guide, airflow-versions, upgrading-environment, environment-class, mwaa-quotas,
configuring-env-variables, connections-secrets-manager, monitoring-airflow; the API's model in botocore; images:
github.com/aws/amazon-mwaa-docker-images.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from ansible_collections.mwaa.migration.plugins.module_utils import _options, _versions
from ansible_collections.mwaa.migration.plugins.module_utils._mwaa import limits, settings
from ansible_collections.mwaa.migration.plugins.module_utils._preflight.frame import Found, Snapshot, rule
from ansible_collections.mwaa.migration.plugins.module_utils._state import secrets

ENVIRONMENT, OPTIONS, LOGS = "environment", "options", "logs"
_OPTION = re.compile(r"(airflow_configuration_options|secret_configuration_options)\[(.*?)\]: ", re.DOTALL)
_SETTING = re.compile(r"[a-z0-9_]+(\[\d+\])?")
_PATTERN_OPTION = "secrets.backend_kwargs"
# groups by the part of LoggingConfiguration that makes MWAA write them [UG monitoring-airflow]
LOG_GROUPS = {
    "dag_processing_logs": "DAGProcessing",
    "scheduler_logs": "Scheduler",
    "task_logs": "Task",
    "webserver_logs": "WebServer",
    "worker_logs": "Worker",
}


# --- what the API takes -----------------------------------------------------------------------------------------------


@rule(
    "setting-refused", ENVIRONMENT, why="the API refuses it at once", source="the API's model; UG, page of each setting"
)
def setting_refused(s: Snapshot) -> Iterator[Found]:
    """Every setting is one that the API takes."""
    for fault in s.faults:
        if not _OPTION.match(fault):
            found = _SETTING.match(fault)
            yield Found(found.group() if found else s.name, fault, "correct it")


@rule("setting-missing", ENVIRONMENT, why="an environment cannot be created without", source="the API's model")
def setting_missing(s: Snapshot, existing: Any) -> Iterator[Found]:
    """What an environment cannot be created without is given."""
    refused = tuple(fault.partition(" ")[0] for fault in s.faults)  # setting-refused says it of these
    missing = [] if existing else [name for name in settings.REQUIRED if not s[name] and name not in refused]
    if missing:
        yield Found(
            s.name,
            f"there is no such environment, and {', '.join(missing)} {'are' if len(missing) > 1 else 'is'} not given",
            "give what is missing",
        )


@rule(
    "setting-fixed",
    ENVIRONMENT,
    why="it is fixed when an environment is created",
    source="the API's model (UpdateEnvironment)",
)
def setting_fixed(s: Snapshot, existing: Any) -> Iterator[Found]:
    """Of an environment that exists, what is asked for can be changed."""
    if not existing:
        return
    asked = {name: value for name, value in s.wanted.items() if name in s.given and name in settings.IMMUTABLE}
    for sentence in settings.compare(settings.current(existing), asked, purge_tags=False).immutable:
        yield Found(s.name, sentence, "leave it as it is, or create an environment with another name")


@rule(
    "environment-status",
    ENVIRONMENT,
    why="nothing can be changed in it as it is",
    source="the API's model; UG upgrading-environment",
)
def environment_status(s: Snapshot, existing: Any) -> Iterator[Found]:
    """An environment that exists is AVAILABLE, or rolled back and usable."""
    if not existing:
        return
    status = existing["Status"]
    if status in limits.BUSY:
        yield Found(s.name, f"it is {status}", "wait until it is AVAILABLE", severity="warning")
    elif status not in limits.STEADY:
        error = (existing.get("LastUpdate") or {}).get("Error") or {}
        reason = f" ({error['ErrorMessage'].rstrip('.')})" if error.get("ErrorMessage") else ""
        yield Found(s.name, f"it is {status}{reason}", "delete it, or choose another name")


@rule(
    "environment-health",
    ENVIRONMENT,
    why="DAGs are not read, or their tasks not started",
    source="verify_env (health by REST)",
    severity="warning",
)
def environment_health(s: Snapshot, health: Any) -> Iterator[Found]:
    """The components of an Airflow that runs say that they are well."""
    ill = [f"{name} is {status}" for name, status in health.items() if status != "healthy"]
    if ill:
        yield Found(s.name, ", ".join(ill), f"look into the log groups airflow-{s.name}-Scheduler and -DAGProcessing")


@rule(
    "name-in-stack",
    ENVIRONMENT,
    why="the stack goes on claiming the name, and two would own the environment",
    source="CloudFormation user guide",
    severity="warning",
)
def name_in_stack(s: Snapshot, claiming_stack: Any) -> Iterator[Found]:
    """No stack claims the name of an environment that does not exist."""
    if claiming_stack:
        yield Found(
            s.name,
            f"the stack {claiming_stack} has an environment of this name, which does not exist",
            f"delete the stack {claiming_stack}, or choose another name",
        )


# --- quotas, class ----------------------------------------------------------------------------------------------------


@rule("quota-environments", ENVIRONMENT, why="MWAA creates no more", source="UG mwaa-quotas")
def quota_environments(s: Snapshot, existing: Any, environments: Any, quotas: Any) -> Iterator[Found]:
    """The account may have one environment more in this region."""
    most = _quota(quotas, "environments", limits.QUOTA_ENVIRONMENTS)
    if not existing and len(environments) >= most:
        yield Found(
            s.region,
            f"there are {len(environments)} environments, and the quota is {most}",
            "ask for a higher quota (Service Quotas, Amazon MWAA), or delete one",
        )


@rule("quota-workers", ENVIRONMENT, why="the API refuses more than the quota", source="UG mwaa-quotas")
def quota_workers(s: Snapshot, quotas: Any) -> Iterator[Found]:
    """max_workers and max_webservers are within the quotas."""
    for name, words, documented in (
        ("max_workers", "workers", limits.QUOTA_WORKERS),
        ("max_webservers", "web", limits.QUOTA_WEBSERVERS),
    ):
        most = _quota(quotas, words, documented)
        if (s[name] or 0) > most:
            yield Found(
                name,
                f"{name} is {s[name]}, and the quota is {most}",
                f"set {name} lower, or ask for a higher quota first",
            )


@rule(
    "class-known",
    ENVIRONMENT,
    why="the API refuses classes that it does not know",
    source="UG environment-class",
    severity="warning",
)
def class_known(s: Snapshot) -> Iterator[Found]:
    """The environment class is one that the user guide names."""
    if s["environment_class"] and s["environment_class"] not in limits.CLASSES:
        yield Found(
            "environment_class",
            f"{s['environment_class']} is not in the user guide",
            f"give one of {', '.join(limits.CLASSES)}",
        )


@rule("class-counts", ENVIRONMENT, why="the API refuses other numbers for the class", source="UG environment-class")
def class_counts(s: Snapshot) -> Iterator[Found]:
    """Schedulers, workers and web servers are as many as the class has."""
    micro = s["environment_class"] == "mw1.micro"
    allowed = {"schedulers": (2, 5), "min_webservers": (2, 5), "max_webservers": (2, 99)}  # the quota has the last word
    if micro:
        allowed = dict.fromkeys((*allowed, "max_workers"), (1, 1))
    elif not _versions.at_least(s.version, "2"):
        allowed["schedulers"] = (1, 1)
    for name, (low, high) in allowed.items():
        if s[name] is not None and not low <= s[name] <= high:
            words = str(low) if low == high else f"{low} to {min(high, 5)}"
            yield Found(
                name,
                f"{name} is {s[name]}, and {s['environment_class'] or 'the class'} has {words}",
                f"give {words}",
            )


@rule(
    "class-capacity",
    ENVIRONMENT,
    why="the schedulers fall behind, and runs begin late or not at all",
    source="UG environment-class",
    severity="warning",
)
def class_capacity(s: Snapshot, dag_count: Any = None, dag_keys: Any = None) -> Iterator[Found]:
    """The class is made for that many DAGs."""
    capacity = limits.CLASS_DAGS.get(s["environment_class"] or "mw1.small")
    files = sum(key.endswith(".py") and not key.endswith("__init__.py") for key in dag_keys or [])
    count, counted = (dag_count, "DAGs") if dag_count is not None else (files, "Python files in the DAG folder")
    if capacity and count > capacity:
        fitting = next((name for name, most in limits.CLASS_DAGS.items() if most >= count), "a second environment")
        yield Found(
            "environment_class",
            f"{s['environment_class'] or 'mw1.small'} is for up to {capacity} DAGs, and there are {count} {counted}",
            f"take {fitting}",
        )


# --- version ----------------------------------------------------------------------------------------------------------


@rule("version-offered", ENVIRONMENT, why="MWAA refuses versions that it does not have", source="UG airflow-versions")
def version_offered(s: Snapshot) -> Iterator[Found]:
    """The Airflow version is one of MWAA's."""
    if s.version == (s.environment or {}).get("AirflowVersion"):
        return
    offer = _versions.OFFERS.get(s.version)
    take = f"take one of {', '.join(_versions.offered(s.today))}"
    if offer is None:
        newer = _versions.refused(s.version, s.today) is None
        yield Found(
            "airflow_version",
            f"MWAA is not known to have Airflow {s.version}",
            take,
            severity="warning" if newer else None,
        )
    elif s.today < offer.first:
        yield Found("airflow_version", f"MWAA has Airflow {s.version} from {offer.first} on", take)


@rule(
    "version-ended",
    ENVIRONMENT,
    why="AWS creates no environment with it and moves none to it",
    source="UG airflow-versions",
)
def version_ended(s: Snapshot) -> Iterator[Found]:
    """AWS has not ended the Airflow version."""
    gone = _versions.ended(s.version, s.today)
    if not gone:
        return
    if s.version == (s.environment or {}).get("AirflowVersion"):
        yield Found(
            s.name,
            f"its Airflow {s.version} is no longer supported by AWS",
            "upgrade it",
            severity="info",
            why="it goes on running, without security fixes, and cannot be made again",
        )
    else:
        yield Found("airflow_version", gone, f"take one of {', '.join(_versions.offered(s.today))}")


@rule("version-path", ENVIRONMENT, why="MWAA refuses the change", source="UG upgrading-environment")
def version_path(s: Snapshot, existing: Any) -> Iterator[Found]:
    """An environment that exists can be brought to the version in place."""
    now = existing.get("AirflowVersion")
    no_way = _versions.in_place(now, s.version) if now else None
    if no_way:
        yield Found("airflow_version", *no_way)


# --- options ----------------------------------------------------------------------------------------------------------


@rule(
    "option-refused",
    OPTIONS,
    why="the API refuses names and values of other forms",
    source="the API's model (AirflowConfigurationOptions)",
)
def option_refused(s: Snapshot) -> Iterator[Found]:
    """Names and values of Airflow's options are of the form that the API takes."""
    for fault in s.faults:
        found = _OPTION.match(fault)
        if found:
            yield Found(found.group(2), fault[found.end() :], "correct it, or leave the option out")
    if _versions.at_least(s.version, "3.2"):
        for name in _options.REFUSED:
            if name in _given_options(s):
                yield Found(
                    name,
                    "MWAA refuses this option",
                    "leave it out",
                    why="it is one of two that the API does not take from Airflow 3.2 on",
                )


@rule(
    "option-ignored",
    OPTIONS,
    why="it looks set and is not, and nobody says so",
    source="image, setup_environment.py; UG configuring-env-variables",
    severity="warning",
)
def option_ignored(s: Snapshot) -> Iterator[Found]:
    """No option is one that MWAA silently overrides."""
    for name in _given_options(s):
        reason = _options.ignored(name)
        if reason and not (name in _options.REFUSED and _versions.at_least(s.version, "3.2")):
            yield Found(name, f"it has no effect: {reason}", "leave it out")


@rule(
    "option-renamed",
    OPTIONS,
    why="Airflow reads the new name, and the old one at best with a warning",
    source="Airflow's configuration reference",
    severity="warning",
)
def option_renamed(s: Snapshot) -> Iterator[Found]:
    """No option has a name that this Airflow has given up for another."""
    known = _options.known_options(s.version)
    for name in _given_options(s):
        new = _options.name_in(name, s.version)
        if name not in known and new != name:
            yield Found(name, f"in Airflow {s.version} it is {new}", f"write {new}")


@rule(
    "option-unknown",
    OPTIONS,
    why="nobody reads it, or your own code alone",
    source="Airflow's configuration reference",
    severity="info",
)
def option_unknown(s: Snapshot) -> Iterator[Found]:
    """Options of Airflow's own sections are ones that this Airflow knows."""
    known = _options.known_options(s.version)
    sections = {name.rpartition(".")[0] for name in known} - {"mwaa"}
    for name in _given_options(s):
        mine = name.rpartition(".")[0] in sections and name not in known and _options.name_in(name, s.version) == name
        if mine and not _options.ignored(name):
            yield Found(name, f"Airflow {s.version} has no such option", "correct its name, or leave it out")


@rule(
    "secrets-backend",
    OPTIONS,
    why="Airflow does not start with it, or asks Secrets Manager for aws_default in every task",
    source="UG connections-secrets-manager; image",
)
def secrets_backend(s: Snapshot) -> Iterator[Found]:
    """The arguments of the secrets backend are JSON, and keep MWAA's aws_default out."""
    options = s["airflow_configuration_options"] or {}
    text, backend = options.get(_PATTERN_OPTION), options.get("secrets.backend")
    if text is None:
        return
    try:
        arguments = json.loads(text)
    except ValueError:
        arguments = None
    if not isinstance(arguments, dict):
        yield Found(
            _PATTERN_OPTION, "its value is no JSON object", 'write {"connections_prefix": "airflow/connections", …}'
        )
        return
    if backend is None:
        yield Found(
            _PATTERN_OPTION,
            "it is set and secrets.backend is not",
            "set secrets.backend too, or leave it out",
            severity="warning",
        )
        return
    if backend not in (secrets.BACKEND, *secrets.OLD_BACKENDS):
        return
    for name in ("connections_lookup_pattern", "variables_lookup_pattern"):
        try:
            re.compile(arguments.get(name) or "")
        except (re.error, TypeError):
            yield Found(_PATTERN_OPTION, f"its {name} is no regular expression", "correct it")
            return
    pattern = arguments.get("connections_lookup_pattern")
    knows = _versions.numbers(s.version) >= secrets.PATTERNS_SINCE
    looks = arguments.get("connections_prefix", "") is not None
    if knows and looks and (not pattern or re.match(pattern, "aws_default")):
        yield Found(
            _PATTERN_OPTION,
            "its connections_lookup_pattern takes aws_default in, which MWAA's own default leaves out",
            f"begin the pattern with {secrets.KEEPS_OUT}",
            severity="warning",
        )


# --- logs -------------------------------------------------------------------------------------------------------------


@rule(
    "log-group-key",
    LOGS,
    why="MWAA cannot write into a group whose key it may not use",
    source="UG monitoring-airflow",
    severity="warning",
)
def log_group_key(s: Snapshot, log_groups: Any, found_key: Any = None) -> Iterator[Found]:
    """Log groups that are there already are encrypted with the environment's key, or AWS's."""
    ours = (found_key or {}).get("Arn")
    for name, group in log_groups.items():
        if group.get("kmsKeyId") and group["kmsKeyId"] != ours:
            yield Found(
                name,
                f"it is encrypted with {group['kmsKeyId']}, the environment with {ours or 'a key of AWS'}",
                "take the key away from the group (aws logs disassociate-kms-key)",
            )


@rule(
    "log-group-retention",
    LOGS,
    why="older logs are gone, and logs older than that cannot be brought in",
    source="UG monitoring-airflow; CloudWatch Logs, PutLogEvents",
    severity="info",
)
def log_group_retention(s: Snapshot, log_groups: Any) -> Iterator[Found]:
    """Log groups that are there already keep what is to be brought into them."""
    for name, group in log_groups.items():
        days = group.get("retentionInDays")
        if days and s.environment is None:
            yield Found(
                name,
                f"it is there from before and keeps logs for {days} day{'s' if days > 1 else ''}",
                "set the retention that you want",
            )


@rule(
    "log-groups",
    LOGS,
    why="creating them failed, and what happens inside is nowhere to be seen",
    source="UG t-create-update-environment; verify_env",
    severity="warning",
)
def log_groups(s: Snapshot, existing: Any, log_groups: Any) -> Iterator[Found]:
    """An environment that exists has a log group for each log that it writes."""
    if not existing or existing["Status"] not in limits.STEADY:
        return
    enabled = [name for name, log in (s["logging_configuration"] or {}).items() if log.get("enabled")]
    missing = [
        f"airflow-{s.name}-{LOG_GROUPS[name]}"
        for name in enabled
        if f"airflow-{s.name}-{LOG_GROUPS[name]}" not in log_groups
    ]
    if missing:
        yield Found(
            s.name,
            f"there is no log group {', '.join(missing)}",
            "let the execution role logs:CreateLogGroup, and update the environment",
        )


@rule("log-errors", LOGS, why="something in the environment does not work", source="verify_env", severity="info")
def log_errors(s: Snapshot, failing_logs: Any) -> Iterator[Found]:
    """Schedulers, workers and web servers wrote no errors in the last hour."""
    for group, streams in failing_logs.items():
        shown = ", ".join(sorted(streams)[:3]) + (" and others" if len(streams) > 3 else "")
        yield Found(group, f"errors were written in the last hour ({shown})", "read them in CloudWatch Logs")


# --- helpers ----------------------------------------------------------------------------------------------------------


def _quota(quotas: dict[str, float], word: str, documented: int) -> int:
    """The account's quota whose name begins with a word; the documented one where AWS lists none."""
    return int(next((value for name, value in quotas.items() if name.startswith(word)), documented))


def _given_options(s: Snapshot) -> list[str]:
    return sorted(s["airflow_configuration_options"] or {})
