# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Another Airflow version for an environment, in place and with its history: the way there, and going it.

PRIVATE to the collection: no promise is made to other collections.

Source of the rules: MWAA user guide, "Upgrading an environment". Where a run was killed the environment says how far it
came, so that the next one goes on from there.
"""

from __future__ import annotations

import datetime
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.mwaa.migration.plugins.module_utils._errors import Faults, MigrationError, aws_errors
from ansible_collections.mwaa.migration.plugins.module_utils._lock import stop_if_left_behind
from ansible_collections.mwaa.migration.plugins.module_utils._mwaa import clone, environment, limits, settings
from ansible_collections.mwaa.migration.plugins.module_utils._options import moved
from ansible_collections.mwaa.migration.plugins.module_utils._progress import progress, span
from ansible_collections.mwaa.migration.plugins.module_utils._requirements import repin
from ansible_collections.mwaa.migration.plugins.module_utils._sync.bucket import Bucket
from ansible_collections.mwaa.migration.plugins.module_utils._sync.requirements import masked
from ansible_collections.mwaa.migration.plugins.module_utils._versions import (
    VERSIONS,
    at_least,
    numbers,
    offered,
    refused,
)

TIMEOUT = 4 * 3600  # seconds a hop: MWAA says up to 2 h, and CloudFormation waits for up to 15 h
CROSSING = (2, 11)  # the only minor version between Airflow 2 and 3
# whose image has the corrections of data that go before a downgrade to 2.11.2 (amazon-mwaa-docker-images, 2026-08-20)
_NOT_PREPARED = ("3.3.1", "2.11.2")


# --- the way: pure ----------------------------------------------------------------------------------------------------


def hops(current: str, target: str, today: datetime.date | None = None) -> list[str]:
    """The versions that an environment takes one after the other, the last one being the target; [] when it is there.

    Within a major version every way is open, down too. Between 2 and 3 it leads through the newest 2.11.
    Raises MigrationError where there is no way, naming why and what there is instead.
    """
    if current == target:
        return []
    no = refused(target, today)
    if no:
        raise MigrationError(f"Airflow {target} cannot be moved to: {no}")
    old, new = numbers(current), numbers(target)
    if old[0] < 2 or new[0] < 2:
        raise MigrationError(
            f"Airflow {current} cannot become {target} in place: MWAA moves environments from 2.x on; clone it under"
            " another name (mwaa_environment_clone) and migrate what is in it"
        )
    if old[0] == new[0]:
        return [target]
    day = today or datetime.datetime.now(datetime.timezone.utc).date()
    between = [version for version in offered(day) if numbers(version)[:2] == CROSSING]
    if not between:
        raise MigrationError(
            f"Airflow {current} cannot become {target}: the way leads through 2.11, which MWAA does not have now"
        )
    newest = max(between, key=numbers)
    if new[:2] == CROSSING:
        return [target]
    if old[:2] == CROSSING and old >= numbers(newest):  # newer than this collection: down first would be a detour
        return [target]
    return [newest, target]


@dataclass
class Hop:
    """One change of the version, with what goes along. requirements: None where the file stays as it is."""

    source: str
    target: str
    options: dict[str, str]
    options_now: dict[str, str]
    notes: dict[str, Any]
    requirements: str | None = None
    repinned: list[dict[str, str]] = field(default_factory=list)
    findings: list[str] = field(default_factory=list)
    seconds: float | None = None  # None: not gone yet

    def as_result(self) -> dict[str, Any]:
        return {
            "from": self.source,
            "to": self.target,
            "options": {key: self.notes[key] for key in ("renamed", "rewritten", "unknown", "dropped")}
            | {"added": sorted(self.notes["added"])},
            "requirements": self.repinned,
            "findings": self.findings,
            "done": self.seconds is not None,
        }


def route(
    versions: list[str], current: str, options: dict[str, str], requirements: str | None, own: dict[str, str]
) -> list[Hop]:
    """The hops with the options and the requirements of each. own: options that the last one is to have."""
    found = []
    for version in versions:
        if version in VERSIONS:
            notes = moved(options, current, version)
            made = repin(requirements, current, version) if requirements is not None else None
        else:
            newer = f"Airflow {version} is newer than this collection: options and requirements stay"
            notes = {**moved({}, current, version), "options": options, "findings": [newer]}
            made = None
        hop = Hop(current, version, notes["options"], options, notes)
        if version == versions[-1]:
            hop.options = {**hop.options, **own}
        hop.findings = [*notes["findings"], *(made.findings if made else [])]
        if (current, version) == _NOT_PREPARED:
            hop.findings.append(
                "AWS's image of Airflow 3.3.1 prepares its data for a downgrade to 2.11.0 and 3.0.6, not to 2.11.2:"
                " take 2.11.0, or try it on a clone first"
            )
        if made is not None and made.changed:
            hop.requirements, hop.repinned, requirements = made.text, made.changed, made.text
        found.append(hop)
        current, options = version, hop.options
    return found


def outlook(shown: dict[str, Any], way: list[Hop]) -> list[str]:
    """What is going to happen, a sentence each, for who has to decide."""
    if not way:
        return [f"environment {shown['Name']} has Airflow {shown['AirflowVersion']} already: nothing is to be done"]
    steps = " to ".join([way[0].source, *(hop.target for hop in way)])
    said = [
        f"environment {shown['Name']} goes from Airflow {steps}, in place: {len(way)}"
        f" {'change' if len(way) == 1 else 'changes'} of the version, each with a snapshot of its database before",
        f"all its running tasks end, and it does not answer for up to {2 * len(way)} hours; a large database makes that"
        " longer (airflow db clean makes it smaller)",
    ]
    for hop in way:
        said += [
            f"{hop.target}: requirements.txt takes {one['name']} {one['target']} for {one['source']}"
            for one in hop.repinned
        ]
        said += [f"{hop.target}: option {old} becomes {new}" for old, new in sorted(hop.notes["renamed"].items())]
        said += [f"{hop.target}: option {one['name']} goes: {one['reason']}" for one in hop.notes["dropped"]]
        said += [
            f"{hop.target}: option {one['name']} does nothing any more: {one['reason']}" for one in hop.notes["unknown"]
        ]
        said += [f"{hop.target}: option {name} is added" for name in sorted(hop.notes["added"])]
        said += [f"{hop.target}: {finding}" for finding in hop.findings]
    last = way[-1].target
    if at_least(last, "3.0") and not at_least(way[0].source, "3.0"):
        said.append("no history can be loaded into it afterwards: Airflow 3 lets no task into its database")
        if shown.get("WebserverAccessMode") == "PUBLIC_ONLY":
            said.append(
                "its web server is PUBLIC_ONLY: workers of Airflow 3 have to reach it, so that its subnets need a way"
                " to the internet"
            )
    return said


# --- going it ---------------------------------------------------------------------------------------------------------


def upgrade(ctx: Any) -> dict[str, Any]:
    """The module's body."""
    params = ctx.params
    name, target = params["name"], params["airflow_version"]
    own = _checked_input(params)
    client = ctx.aws.client("mwaa")
    shown = environment.describe(client, name)
    if shown is None:
        there = environment.names(client)
        raise MigrationError(
            f"environment {name} does not exist in {ctx.aws.region}:"
            f" {'there are ' + ', '.join(there) if there else 'there is none at all'}"
        )
    timeout = params["wait_timeout"] or TIMEOUT
    waited = False
    if shown["Status"] in limits.BUSY and shown["Status"] != "DELETING":
        if ctx.check_mode:
            ctx.warn(f"environment {name} is {shown['Status']}: what is left to do is known when that has ended")
        else:  # perhaps ours, before we were killed
            progress(f"environment {name} is {shown['Status']}: waiting for that first")
            shown, waited = environment.finished(client, name, timeout), True
    if shown["Status"] in ("DELETING", "UNAVAILABLE", "CREATE_FAILED"):
        raise MigrationError(environment.no_way(shown), environment=environment.brief(shown))
    way = _way(ctx, shown, target, own)
    stack = environment.owner(ctx, shown) if way else None
    if stack:
        versions = ", then ".join(hop.target for hop in way)
        raise MigrationError(
            f"environment {name} belongs to the CloudFormation stack {stack}, and was not changed here: change"
            f" AirflowVersion in its template, to {versions}; where the migration deployed it, that is the"
            " playbook migrate with migration_airflow_version and --tags environment",
            environment=environment.brief(shown),
        )
    own_objects = _own_objects(ctx, shown) if way else {}  # a missing file is said before the first change
    secret = _secret(shown, way)
    result = {
        "changed": bool(way),
        "from_version": shown["AirflowVersion"],
        "outlook": outlook(shown, way),
        "diff": _diff(shown, way, secret),
    }
    if not ctx.check_mode:
        for number, hop in enumerate(way, 1):
            stop_if_left_behind()
            progress(f"environment {name}: Airflow {hop.source} to {hop.target} ({number} of {len(way)})")
            shown = _go(ctx, client, shown, hop, way, timeout, own_objects if number == len(way) else {})
    return {
        **result,
        "hops": [hop.as_result() for hop in way],
        "operation": "upgrade" if way else ("wait" if waited else "none"),
        "environment": environment.shown(shown, secret),
    }


def _checked_input(params: dict[str, Any]) -> dict[str, str]:
    """The task's own options, as texts. Raises MigrationError naming every fault."""
    faults = Faults(f"environment {params['name']}")
    wanted: dict[str, Any] = {}
    with faults.collecting():
        wanted = settings.desired(params)
    no = refused(params["airflow_version"])
    if no:
        faults.add(f"it cannot be moved to Airflow {params['airflow_version']}: {no}")
    faults.raise_if_any()
    return wanted.get("airflow_configuration_options", {})


def _way(ctx: Any, shown: dict[str, Any], target: str, own: dict[str, str]) -> list[Hop]:
    versions = hops(shown["AirflowVersion"], target)
    key, text = shown.get("RequirementsS3Path"), None
    if versions and key and ctx.params["repin_requirements"]:
        bucket = _bucket(ctx, shown)
        with aws_errors(f"read s3://{bucket.name}/{key}"):
            content = b"".join(bucket.stream(key, shown.get("RequirementsS3ObjectVersion")))
        text = content.decode("utf-8", "surrogateescape")
    way = route(versions, shown["AirflowVersion"], shown.get("AirflowConfigurationOptions") or {}, text, own)
    if way and ctx.params["requirements_s3_path"]:  # which is made for the last version
        way[-1].requirements, way[-1].repinned = None, []
    return way


def _own_objects(ctx: Any, shown: dict[str, Any]) -> dict[str, str]:
    """The fields of the objects that the task names itself, with their versions. Raises MigrationError."""
    own = {option: ctx.params[option].strip("/") for option in settings.PINNED if ctx.params[option]}
    if own:
        environment.prepare_bucket(ctx, shown["Name"], _bucket(ctx, shown).name, own, whole=False)
    return {settings.PLAIN[option]: value for option, value in own.items()}


def _go(
    ctx: Any,
    client: Any,
    shown: dict[str, Any],
    hop: Hop,
    way: list[Hop],
    timeout: float,
    own_objects: dict[str, str],
) -> dict[str, Any]:
    """One hop: the requirements, then the update. Returns the environment as it is then."""
    name = shown["Name"]
    fields: dict[str, Any] = {"AirflowVersion": hop.target}
    if hop.options != hop.options_now:
        fields["AirflowConfigurationOptions"] = hop.options
    if hop.requirements is not None:
        fields["RequirementsS3Path"] = shown["RequirementsS3Path"]
        fields["RequirementsS3ObjectVersion"] = _upload(ctx, shown, hop.requirements)
    fields.update(own_objects)
    if ctx.params["worker_replacement_strategy"]:
        fields["WorkerReplacementStrategy"] = ctx.params["worker_replacement_strategy"]
    start = datetime.datetime.now(datetime.timezone.utc)
    try:
        now = environment.update(client, shown, fields, timeout=timeout) or shown
    except MigrationError as error:
        raise _failed(client, name, hop, way, error) from error
    if now["AirflowVersion"] != hop.target:
        raise MigrationError(
            f"environment {name} is {now['Status']} with Airflow {now['AirflowVersion']} and not {hop.target}: somebody"
            " else changed it meanwhile; run again",
            environment=environment.brief(now),
        )
    hop.seconds = (datetime.datetime.now(datetime.timezone.utc) - start).total_seconds()
    progress(f"environment {name}: Airflow {hop.target} after {span(hop.seconds)}")
    return now


def _failed(client: Any, name: str, hop: Hop, way: list[Hop], error: MigrationError) -> MigrationError:
    """What a night operator has to know: why, which version runs now, whether it can be used, what to do."""
    now = environment.describe(client, name) or {"Name": name, "Status": "DELETED", "AirflowVersion": "?"}
    if now["Status"] == "UPDATE_FAILED" and error.code is None:  # and AWS had taken the update
        reason = (now.get("LastUpdate") or {}).get("Error") or {}
        why = f"{reason.get('ErrorCode', 'no code')}: {str(reason.get('ErrorMessage', '')).rstrip('.')}"
        text = (
            f"environment {name} was not moved from Airflow {hop.source} to {hop.target} ({why}): MWAA rolled back, and"
            f" it can be used as it was, with Airflow {now['AirflowVersion']} and its history;"
            f" {environment.UPDATE_HINT.format(name=name, had='').partition('; ')[2]}; mend the cause and run again"
        )
    else:
        text = f"environment {name}, from Airflow {hop.source} to {hop.target}: {error.message}"
    return MigrationError(
        text,
        code=error.code,
        request_id=error.request_id,
        environment=environment.brief(now),
        hops=[one.as_result() for one in way],
    )


def _upload(ctx: Any, shown: dict[str, Any], text: str) -> str:
    """The requirements as a new version of their object; its newest version where that has them already."""
    bucket, key = _bucket(ctx, shown), shown["RequirementsS3Path"]
    content = text.encode("utf-8", "surrogateescape")
    with aws_errors(f"write s3://{bucket.name}/{key}"):
        there = bucket.head(key)
        if there is not None and there.version_id and bucket.get(key) == content:
            return there.version_id
        version = bucket.put(key, content).version_id
    if not version or version == "null":
        raise MigrationError(f"the bucket {bucket.name} has no versioning, which MWAA needs: enable it and run again")
    progress(f"s3://{bucket.name}/{key} written")
    return version


def _bucket(ctx: Any, shown: dict[str, Any]) -> Bucket:
    return Bucket(ctx.aws, shown["SourceBucketArn"].rpartition(":")[2])


def _secret(shown: dict[str, Any], way: list[Hop]) -> set[str]:
    secret = clone.secret_options(shown.get("AirflowConfigurationOptions") or {}, shown["AirflowVersion"])
    for hop in way:
        secret |= clone.secret_options(hop.options, hop.target)
    return secret


def _diff(shown: dict[str, Any], way: list[Hop], secret: set[str]) -> dict[str, Any]:
    if not way:
        return {"before": {}, "after": {}}
    before = {"airflow_version": way[0].source, "airflow_configuration_options": way[0].options_now}
    after = {"airflow_version": way[-1].target, "airflow_configuration_options": way[-1].options}
    pinned: dict[str, list[str]] = {"before": [], "after": []}
    for hop in way:
        for one in hop.repinned:
            pinned["before"].append(f"{one['name']} {masked(one['source'])}")
            pinned["after"].append(f"{one['name']} {one['target']}")
    return {
        "before": {**settings.masked(before, secret), "requirements": pinned["before"]},
        "after": {**settings.masked(after, secret, before), "requirements": pinned["after"]},
    }
