# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The body of mwaa_preflight: what is asked for and what there is become a snapshot, and the rules judge it.

PRIVATE to the collection: no promise is made to other collections.
"""

from __future__ import annotations

import datetime
from typing import Any

from ansible_collections.mwaa.migration.plugins.module_utils import _versions
from ansible_collections.mwaa.migration.plugins.module_utils._bundle import Bundle, open_store
from ansible_collections.mwaa.migration.plugins.module_utils._errors import (
    Faults,
    MigrationError,
    error_code,
    is_aws_error,
    is_missing,
)
from ansible_collections.mwaa.migration.plugins.module_utils._mwaa import environment, settings
from ansible_collections.mwaa.migration.plugins.module_utils._preflight import (
    report,
    rules_access,
    rules_environment,
    rules_network,
    rules_storage,
)
from ansible_collections.mwaa.migration.plugins.module_utils._preflight.frame import (
    SEVERITIES,
    Result,
    Snapshot,
    Unread,
    judge,
)
from ansible_collections.mwaa.migration.plugins.module_utils._preflight.gather import Reader
from ansible_collections.mwaa.migration.plugins.module_utils._progress import progress

RULES = (rules_access, rules_environment, rules_network, rules_storage)  # each declares its own to the frame
FAIL_ON = ("error", "warning", "never")
# of an environment that exists: not what it is made of
_NOT_TAKEN = ("tags",)


def run(ctx: Any) -> dict[str, Any]:
    """What mwaa_preflight returns. Raises MigrationError, with all of it, where findings are as severe as fail_on."""
    snapshot = _snapshot(ctx)
    progress(f"preflight of {snapshot.name}: reading AWS")
    Reader(ctx.aws, snapshot, ctx.params["cloudformation_role_arn"], ctx.params["execution_role_policy"]).read_all()
    result = judge(snapshot)
    document = report.document(snapshot, result)
    if not ctx.check_mode:
        if ctx.params["json_path"]:
            report.write_json(ctx.params["json_path"], document)
        if ctx.params["junit_path"]:
            report.write_junit(ctx.params["junit_path"], snapshot, result)
    grave = [finding for finding in result.findings if is_grave(finding.severity, ctx.params["fail_on"])]
    if grave:
        raise MigrationError(_sentence(snapshot, result, ctx), **document)
    return {"changed": False, **document}


def is_grave(severity: str, fail_on: str) -> bool:
    return fail_on != "never" and SEVERITIES.index(severity) <= SEVERITIES.index(fail_on)


def _sentence(snapshot: Snapshot, result: Result, ctx: Any) -> str:
    counts = [
        f"{count} {severity}{'s' if count != 1 else ''}"
        for severity in SEVERITIES[:2]
        if (count := result.count(severity))
    ]
    where = ctx.params["json_path"] if not ctx.check_mode else None
    return (
        f"environment {snapshot.name}: preflight found {' and '.join(counts)}; mend them and run again, or set fail_on"
        f" to go on{f' (all of them: {where})' if where else ''}"
    )


def _snapshot(ctx: Any) -> Snapshot:
    params, caller = ctx.params, ctx.aws.caller
    name = params["name"]
    existing = _existing(ctx.aws.client("mwaa"), name)
    shown = existing if isinstance(existing, dict) and existing else None
    given = frozenset(option for option in settings.argument_spec() if params.get(option) is not None)
    faults = Faults(name)
    published, dag_count = _from_bundles(ctx, shown, faults)
    now = settings.current(shown) if shown else {}
    asked = {option: params[option] for option in settings.argument_spec() if params.get(option) is not None}
    wanted = settings.judged({"name": name, **_base(now, asked), **asked}, faults)
    for nonsense in ("execution_role_arn", "source_bucket"):
        if any(fault.startswith(f"{nonsense} ") for fault in faults.found):
            del wanted[nonsense]  # one fault, and nothing to look at
    options = now.get("airflow_configuration_options", {})
    if environment.bundles_of(params):  # a migration adds to what is there
        wanted["airflow_configuration_options"] = {**options, **wanted.get("airflow_configuration_options", {})}
    version = wanted.setdefault("airflow_version", _newest())
    try:
        environment.look_in_secrets_manager(params, wanted, options, version)
    except MigrationError as error:
        faults.add(f"secrets_backend: {error.message}")
    settings.merged_options(wanted, options)
    facts = {"existing": existing}
    if params["dag_count"] is not None or dag_count is not None:
        facts["dag_count"] = params["dag_count"] if params["dag_count"] is not None else dag_count
    arn = caller["Arn"]
    return Snapshot(
        name=name,
        region=ctx.aws.region,
        account=caller["Account"],
        caller=arn,
        partition=arn.split(":")[1],
        today=datetime.datetime.now(datetime.timezone.utc).date(),
        wanted=wanted,
        given=given,
        environment=shown,
        faults=faults.found,
        published=published,
        facts=facts,
    )


def _existing(client: Any, name: str) -> dict[str, Any] | Unread:
    try:
        found = client.get_environment(Name=name)["Environment"]
        return {} if found["Status"] == "DELETED" else found
    except Exception as exception:
        if not is_aws_error(exception):
            raise
        code = error_code(exception) or type(exception).__name__
        # a name that is none is said by a rule
        if is_missing(exception) or code in ("ValidationException", "ParamValidationError"):
            return {}
        return Unread("airflow:GetEnvironment", code, code == "AccessDeniedException")


def _base(now: dict[str, Any], asked: dict[str, Any]) -> dict[str, Any]:
    """What the environment has, without what another path or another access would replace."""
    base = {option: value for option, value in now.items() if option not in _NOT_TAKEN}
    for path, version in settings.PINNED.items():
        if asked.get(path) and asked[path] != base.get(path):
            base.pop(version, None)
    return base


def _from_bundles(ctx: Any, shown: dict[str, Any] | None, faults: Faults) -> tuple[frozenset[str], int | None]:
    """Take what bundles bring into the parameters; the keys that they will publish, and how many DAGs they hold."""
    params = ctx.params
    bundles = environment.bundles_of(params)
    if not bundles:
        return frozenset(), None
    before = {path: params[path] for path in settings.PINNED}
    count = 0
    try:
        environment.take_from_bundles(ctx, shown)
        for url in bundles:
            bundle = Bundle.open(open_store(url, ctx.aws), ctx.aws, params["kms_key_id"])
            if "inventory.json" in bundle.files:
                count += len(bundle.document("inventory.json").get("dags") or [])
    except MigrationError as error:
        if error.code == "NoBundle":
            ctx.warn(f"{error.message}; the options that it brings are known after the first export")
        else:
            faults.add(f"bundle: {error.message}")
        return frozenset({""}), None
    brought = {params[path] for path in settings.PINNED if params[path] and not before[path]}
    return frozenset({"", *brought}), count


def _newest() -> str:
    """What MWAA takes where no version is given."""
    offered = _versions.offered(datetime.datetime.now(datetime.timezone.utc).date())
    return max(offered, key=_versions.numbers)
