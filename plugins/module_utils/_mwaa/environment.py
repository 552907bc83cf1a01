# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""MWAA environments: describe, create, update, delete, and wait for what that takes.

PRIVATE to the collection: no promise is made to other collections.
"""

from __future__ import annotations

import time
from typing import Any, Callable, NamedTuple

from ansible.module_utils.common.dict_transformations import camel_dict_to_snake_dict
from ansible_collections.mwaa.migration.plugins.module_utils._bundle import Bundle, open_store
from ansible_collections.mwaa.migration.plugins.module_utils._errors import (
    DENIED,
    Faults,
    MigrationError,
    aws_error,
    aws_errors,
    error_code,
    http_status,
    is_aws_error,
    is_missing,
    unless_missing,
)
from ansible_collections.mwaa.migration.plugins.module_utils._lock import held_in
from ansible_collections.mwaa.migration.plugins.module_utils._mwaa import limits, settings
from ansible_collections.mwaa.migration.plugins.module_utils._options import IGNORE_SYNTAX, PAUSED
from ansible_collections.mwaa.migration.plugins.module_utils._progress import wait_until
from ansible_collections.mwaa.migration.plugins.module_utils._stacks.stack import describe as describe_stack
from ansible_collections.mwaa.migration.plugins.module_utils._state.secrets import backend_options
from ansible_collections.mwaa.migration.plugins.module_utils._sync.bucket import Bucket
from ansible_collections.mwaa.migration.plugins.module_utils._sync.index import Index, index_key
from ansible_collections.mwaa.migration.plugins.module_utils._sync.source import beside
from ansible_collections.mwaa.migration.plugins.module_utils._versions import (
    STARTUP_SCRIPT,
    VERSIONS,
    at_least,
    ended,
)

INTERVAL = 30.0  # seconds between two looks at an environment, at most
CREATE_TIMEOUT = 3600  # seconds; documented: 20 to 30 minutes, "up to a couple of hours"
UPDATE_TIMEOUT = 7200  # seconds; a change of the Airflow version takes up to 2 h [UG upgrading-environment]
DELETE_TIMEOUT = 3600
_OPTIONS = ("airflow_configuration_options", "secret_configuration_options")
NOTICE = 60.0  # seconds within which GetEnvironment shows an operation that was accepted

CREATE_HINT = (
    "delete it (state: absent), mend the cause and create it again; usual causes are subnets without NAT or VPC"
    " endpoints,"
    " an execution role that MWAA cannot assume or that lacks rights on the bucket, the key or the log groups, and a"
    " security group without a rule for itself (AWS's runbook"
    " AWSSupport-TroubleshootMWAAEnvironmentCreation checks these)"
)
UPDATE_HINT = (
    "MWAA rolled back and the environment is usable as it was{had}; for requirements and plugins look at the log"
    " streams requirements_install_* of the groups airflow-{name}-Scheduler and airflow-{name}-Worker"
)


def describe(client: Any, name: str) -> dict[str, Any] | None:
    """GetEnvironment's Environment as botocore returns it (option values in clear!), None when there is none."""
    shown = unless_missing(lambda: client.get_environment(Name=name), f"read environment {name}")
    return shown["Environment"] if shown else None


def ready(ctx: Any, name: str) -> dict[str, Any] | None:
    """The environment, ready to be worked in. None in check mode where it does not exist yet."""
    environment = describe(ctx.aws.client("mwaa"), name)
    if environment is None:
        if ctx.check_mode:
            return None
        raise MigrationError(
            f"environment {name} does not exist in {ctx.aws.region}: correct environment or region, or create it"
        )
    if environment["Status"] not in limits.STEADY:
        raise MigrationError(
            f"environment {name} is {environment['Status']}, so nothing was done: run again when it is AVAILABLE"
        )
    return environment


def names(client: Any) -> list[str]:
    """The names of all environments of the account in the region."""
    with aws_errors("list the environments"):
        pages = client.get_paginator("list_environments").paginate()
        return sorted(name for page in pages for name in page["Environments"])


def major(environment: dict[str, Any]) -> int:
    """1, 2 or 3: of Airflow's version. Paths and bodies of the REST API differ by it."""
    return int(str(environment.get("AirflowVersion") or "2").partition(".")[0])


def version(environment: dict[str, Any]) -> tuple[int, ...]:
    """Airflow's version as numbers: (2, 10, 3)."""
    return tuple(int(part) for part in str(environment.get("AirflowVersion") or "2").split(".")[:3])


def shown(environment: dict[str, Any] | None, secret: set[str] | None = None) -> dict[str, Any] | None:
    """What a module returns of an environment: snake_case, times as text, values of secret Airflow options masked."""
    if environment is None:
        return None
    options = settings.masked(
        {"airflow_configuration_options": environment.get("AirflowConfigurationOptions") or {}}, secret or set()
    )
    plain = {key: value for key, value in environment.items() if key not in ("AirflowConfigurationOptions", "Tags")}
    return {
        **_texts(camel_dict_to_snake_dict(plain)),
        **options,
        "tags": dict(environment.get("Tags") or {}),
    }


def brief(environment: dict[str, Any]) -> dict[str, Any]:
    """What a failure returns of an environment: Ansible prints all of it after the sentence."""
    return {"name": environment["Name"], "status": environment["Status"]}


def stack_of(environment: dict[str, Any]) -> str | None:
    """The name of the CloudFormation stack that owns it: what a stack makes or imports, it tags; None: nobody does."""
    return (environment.get("Tags") or {}).get("aws:cloudformation:stack-name")


def owner(ctx: Any, environment: dict[str, Any]) -> str | None:
    """stack_of, where that stack still is: an environment that a deleted stack left behind keeps the stack's tags."""
    stack = stack_of(environment)
    if stack is None:
        return None
    try:
        found = describe_stack(
            ctx.aws.client("cloudformation"), environment["Tags"].get("aws:cloudformation:stack-id") or stack
        )
    except MigrationError as error:
        if error.code not in DENIED:
            raise
        return stack  # not allowed to look: the tags count
    return stack if found else None


def bundles_of(params: dict[str, Any]) -> list[str]:
    """What `bundle` or `bundles` names."""
    return params.get("bundles") or [bundle for bundle in [params.get("bundle")] if bundle]


class Brought(NamedTuple):
    """What bundles bring: options, and the names of those that a source has and no bundle holds, as they are secret."""

    options: dict[str, str]
    secret: list[str]


def take_from_bundles(ctx: Any, environment: dict[str, Any] | None) -> Brought:
    """Complete the parameters with what bundles bring: their portable options, and the keys that publish used.

    environment: as GetEnvironment shows it, None where there is none. In check mode there may be no bundle yet; then
    what is known without it is taken. For an interim environment (option `interim`) next to nothing is.
    Raises MigrationError where two bundles bring an option differently.
    """
    params = ctx.params
    interim = params.get("interim")
    if interim:
        for option in (*settings.PINNED, *settings.PINNED.values(), *_OPTIONS):
            params[option] = None
        if params["webserver_access_mode"] == "PUBLIC_AND_PRIVATE":  # from Airflow 3.2 on
            params["webserver_access_mode"] = "PUBLIC_ONLY"
    version = _version(params, environment)
    portable: dict[str, dict[str, str]] = {}
    secret: set[str] = set()
    files: list[str] = []
    for url in bundles_of(params):
        try:
            bundle = Bundle.open(open_store(url, ctx.aws), ctx.aws, params["kms_key_id"])
        except MigrationError as error:
            if not (ctx.check_mode and error.code == "NoBundle"):
                raise
            ctx.warn(f"{error.message}; the options that it brings are known after the first export")
            continue
        document = bundle.document("options.json")
        portable[url] = document["portable"]
        if interim:
            portable[url] = {name: value for name, value in document["portable"].items() if name == IGNORE_SYNTAX}
            continue
        secret |= {option["name"] for option in document.get("secret") or []}
        files += bundle.files
        made_for = document.get("target_version")
        if made_for and version and made_for != version:
            ctx.warn(
                f"the bundle {url} was exported for Airflow {made_for} and environment {params['name']} is to have"
                f" {version}: export again for this version, whose options and requirements differ"
            )
    given = {**(params["airflow_configuration_options"] or {}), **(params["secret_configuration_options"] or {})}
    brought = one_of_each(portable, {*given, PAUSED})
    params["airflow_configuration_options"] = {
        **brought,
        **(params["airflow_configuration_options"] or {}),
        PAUSED: "True",
    }
    published = {} if interim else _published(ctx, environment)
    for option, (kind, path, name) in {
        "plugins_s3_path": ("plugins", "plugins/", "plugins.zip"),
        "requirements_s3_path": ("requirements", "requirements.txt", "requirements.txt"),
        "startup_script_s3_path": ("startup_script", "startup.sh", "startup.sh"),
    }.items():
        if params[option]:
            continue
        key = published.get(kind)
        if key is None and any(file.startswith(path) for file in files):
            key = beside(_dag_s3_path(params, environment), name)
        if key and kind == "startup_script" and version and not at_least(version, STARTUP_SCRIPT):
            ctx.warn(
                f"Airflow {version} of MWAA runs no startup script ({STARTUP_SCRIPT} is the first that does): what"
                f" {key} sets is not set"
            )
            continue
        params[option] = key
    return Brought(brought, sorted(secret))


def one_of_each(portable: dict[str, dict[str, str]], decided: set[str]) -> dict[str, str]:
    """The options of several bundles ({url: options}) as one set, without those that are decided otherwise.

    Raises MigrationError naming every option of which two bundles have different values.
    """
    faults = Faults("the bundles cannot become one environment")
    first: dict[str, tuple[str, str]] = {}
    for url, options in portable.items():
        for name, value in options.items():
            if name in decided:
                continue
            other, theirs = first.setdefault(name, (url, value))
            if theirs != value:
                values = ("one value", "another") if settings.looks_secret(name) else (theirs, value)
                faults.add(
                    f"{name} is {values[0]} in {other} and {values[1]} in {url}:"
                    " say in airflow_configuration_options which it is to be"
                )
    faults.raise_if_any()
    return {name: value for name, (_url, value) in first.items()}


def _published(ctx: Any, environment: dict[str, Any] | None) -> dict[str, str]:
    """{"plugins": key, …} of what publish put into the bucket. Where that cannot be told, the bundle's files tell."""
    bucket = ctx.params["source_bucket"] or (environment or {}).get("SourceBucketArn") or ""
    if not bucket:
        return {}
    with aws_errors(f"read the index in {bucket}"):
        index = Bucket(ctx.aws, bucket.rpartition(":")[2]).get(index_key(_dag_s3_path(ctx.params, environment)))
    return Index(index).artefacts


def _dag_s3_path(params: dict[str, Any], environment: dict[str, Any] | None) -> str:
    return (params["dag_s3_path"] or (environment or {}).get("DagS3Path") or "dags").strip("/")


def _version(params: dict[str, Any], environment: dict[str, Any] | None) -> str | None:
    """The Airflow version that the environment is going to have; None: MWAA's newest."""
    return params["airflow_version"] or (environment or {}).get("AirflowVersion")


def present(ctx: Any) -> dict[str, Any]:
    """state: present. ctx: _aws.Context of mwaa_environment. A bundle is locked before the first write."""
    bundles = [] if ctx.check_mode else bundles_of(ctx.params)
    stores = [open_store(bundle, ctx.aws) for bundle in bundles]
    with held_in(stores, ctx.params["name"]) as take:
        return _present(ctx, take)


def _present(ctx: Any, before_writing: Callable[[], None]) -> dict[str, Any]:
    params = ctx.params
    name = params["name"]
    wanted = settings.desired(params)
    if wanted.get("webserver_access_mode") == "PUBLIC_AND_PRIVATE":
        ctx.aws.require_botocore(limits.ACCESS_MODE_BOTH_BOTOCORE, "for webserver_access_mode PUBLIC_AND_PRIVATE")
    client = ctx.aws.client("mwaa")
    environment = describe(client, name)
    if environment and environment["Status"] == "DELETED":
        environment = None
    wanted, _brought = asked(ctx, environment)
    secret = set(wanted.get("secret_configuration_options", {}))
    for option in sorted(wanted.get("airflow_configuration_options", {})):
        if settings.looks_secret(option):
            ctx.warn(f"{option} looks secret: give it in secret_configuration_options, which is never logged")
    if environment is None:
        look_in_secrets_manager(params, wanted, {}, _version(params, None))
        return _create(ctx, client, wanted, secret, before_writing)

    status = environment["Status"]
    if status in ("DELETING", "UNAVAILABLE", "CREATE_FAILED"):
        raise MigrationError(no_way(environment), environment=brief(environment))
    now = settings.current(environment)
    if bundles_of(params):  # a migration adds; whoever wants the exact map gives no bundle
        wanted["airflow_configuration_options"] = {
            **now["airflow_configuration_options"],
            **wanted.get("airflow_configuration_options", {}),
        }
    look_in_secrets_manager(params, wanted, now["airflow_configuration_options"], _version(params, environment))
    settings.merged_options(wanted, now["airflow_configuration_options"])
    bucket = wanted.get("source_bucket", now.get("source_bucket", ""))
    new_bucket = "source_bucket" in wanted and wanted["source_bucket"] != now.get("source_bucket")
    prepare_bucket(ctx, name, bucket, wanted, whole=new_bucket)
    change = settings.compare(now, wanted, purge_tags=params["purge_tags"])
    if change.immutable:
        raise MigrationError(
            f"environment {name}: {'; '.join(change.immutable)}; MWAA fixes this when an environment is created:"
            " leave it as it is, or create an environment with another name"
        )
    if status in limits.BUSY and status != "MAINTENANCE" and change:
        raise MigrationError(
            f"environment {name} is {status} and nothing was changed: what is asked for differs in"
            f" {', '.join(sorted(change.after))}; wait until it is AVAILABLE and run again",
            environment=brief(environment),
        )
    if not change:
        result = {"changed": False, "operation": "none"}
        if status in limits.BUSY and params["wait"] and not ctx.check_mode:
            # an operation that asked for this very state, perhaps ours before we were killed
            environment = finished(client, name, _timeout(params, status))
            left = settings.compare(settings.current(environment), wanted, purge_tags=params["purge_tags"])
            if left:
                raise MigrationError(
                    f"environment {name} became {environment['Status']} with other settings than asked for"
                    f" ({', '.join(sorted(left.after))}): somebody else changed it; run again to change it",
                    environment=brief(environment),
                )
            result["operation"] = "wait"
        return {**result, "environment": shown(environment, secret), **_diff({}, {}, secret)}

    stack = owner(ctx, environment)
    if stack:
        raise MigrationError(
            f"environment {name} belongs to the CloudFormation stack {stack}, so nothing was changed: what is asked for"
            f" differs in {', '.join(sorted(change.after))}; change it through the stack (migration_deploy: stacks)",
            environment=brief(environment),
        )
    diff = _diff(change.before, change.after, secret)
    if ctx.check_mode:
        return {"changed": True, "operation": "update", "environment": shown(environment, secret), **diff}
    before_writing()
    return {**_update(ctx, client, environment, change, secret), **diff}


def asked(ctx: Any, environment: dict[str, Any] | None) -> tuple[dict[str, Any], Brought]:
    """What a task asks for in flat form, with what its bundles bring. environment: as GetEnvironment shows it.

    Raises MigrationError naming every fault.
    """
    brought = take_from_bundles(ctx, environment) if bundles_of(ctx.params) else Brought({}, [])
    wanted = settings.desired(ctx.params)
    gone = ended(wanted["airflow_version"]) if "airflow_version" in wanted else None
    if gone and wanted["airflow_version"] != (environment or {}).get("AirflowVersion"):
        ctx.warn(gone)
    return wanted, brought


def look_in_secrets_manager(
    params: dict[str, Any], wanted: dict[str, Any], current_options: dict[str, str], version: str | None
) -> None:
    """Set the options of `secrets_backend` over the given ones, or over the current ones when none are given."""
    asked = params.get("secrets_backend")
    if not asked:
        return
    options = wanted.get("airflow_configuration_options", current_options)
    secret = wanted.get("secret_configuration_options", {})
    made = backend_options(
        asked["prefix"],
        version or VERSIONS[-1],
        {**options, **secret},
        connections_lookup_pattern=asked.get("connections_lookup_pattern"),
        variables_lookup_pattern=asked.get("variables_lookup_pattern"),
    )
    wanted["airflow_configuration_options"] = {**options, **made}
    for name in made:
        secret.pop(name, None)


def absent(ctx: Any) -> dict[str, Any]:
    """state: absent. The environment's metadata database goes with it, and nobody can bring it back."""
    params = ctx.params
    name = params["name"]
    client = ctx.aws.client("mwaa")
    environment = describe(client, name)
    if environment is None or environment["Status"] == "DELETED":
        return {"changed": False, "operation": "none", "environment": None, **_diff({}, {}, set())}
    status = environment["Status"]
    diff = _diff({"name": name, "status": status}, {}, set())
    changed = status != "DELETING"
    if changed and status in limits.BUSY:
        raise MigrationError(
            f"environment {name} is {status} and cannot be deleted now: wait until it is AVAILABLE or has failed,"
            " and run again",
            environment=brief(environment),
        )
    if not ctx.check_mode:
        if changed:
            with aws_errors(f"delete environment {name}"):
                client.delete_environment(Name=name)
        if params["wait"]:
            _wait_gone(client, name, params["wait_timeout"] or DELETE_TIMEOUT)
            environment = None
        else:
            environment = describe(client, name)
    operation = "delete" if changed else ("wait" if params["wait"] else "none")
    return {"changed": changed, "operation": operation, "environment": shown(environment), **diff}


def _create(
    ctx: Any, client: Any, wanted: dict[str, Any], secret: set[str], before_writing: Callable[[], None]
) -> dict[str, Any]:
    params = ctx.params
    name = params["name"]
    settings.merged_options(wanted, {})
    missing = [option for option in settings.REQUIRED if not wanted.get(option)]
    if missing:
        raise MigrationError(f"environment {name} does not exist, and creating it needs {', '.join(missing)}")
    prepare_bucket(ctx, name, wanted["source_bucket"], wanted, whole=True)
    diff = _diff({}, {"name": name, **wanted}, secret)
    if ctx.check_mode:
        return {"changed": True, "operation": "create", "environment": None, **diff}
    partition = wanted["execution_role_arn"].split(":")[1]
    before_writing()
    environment = create(
        client,
        {"Name": name, **settings.request(wanted, partition=partition, create=True)},
        is_it=lambda found: not settings.compare(settings.current(found), wanted, purge_tags=False),
        timeout=(params["wait_timeout"] or CREATE_TIMEOUT) if params["wait"] else None,
    )
    return {"changed": True, "operation": "create", "environment": shown(environment, secret), **diff}


def create(
    client: Any, fields: dict[str, Any], *, is_it: Callable[[dict[str, Any]], bool], timeout: float | None
) -> dict[str, Any] | None:
    """CreateEnvironment, and wait until that is done; the environment as GetEnvironment shows it then.

    fields: the operation's input. is_it: whether an environment is what was asked for. timeout: seconds; None: do not
    wait. Raises MigrationError.
    """
    name = fields["Name"]
    try:
        client.create_environment(**fields)
    except Exception as exception:
        if not is_aws_error(exception):
            raise
        # the SDK may have repeated a call that had succeeded: then the environment is there, and as it was asked for
        environment = describe(client, name) if error_code(exception) == "ValidationException" else None
        if environment is None or not is_it(environment):
            raise aws_error(exception, f"create environment {name}") from exception
    if timeout is None:
        return describe(client, name)
    # with CUSTOMER, MWAA waits for endpoints that only the customer can make, with names that it tells now
    return finished(client, name, timeout, pending_is_final=fields.get("EndpointManagement") == "CUSTOMER")


def update(
    client: Any, environment: dict[str, Any], fields: dict[str, Any], *, timeout: float | None
) -> dict[str, Any] | None:
    """UpdateEnvironment, and wait until that is done; the environment as GetEnvironment shows it then.

    environment: as it is now. fields: the operation's input without Name. timeout: seconds; None: do not wait.
    """
    name = environment["Name"]
    with aws_errors(f"update environment {name}"):
        client.update_environment(Name=name, **fields)
    return describe(client, name) if timeout is None else finished(client, name, timeout, before=environment)


def _update(
    ctx: Any, client: Any, environment: dict[str, Any], change: settings.Change, secret: set[str]
) -> dict[str, Any]:
    params = ctx.params
    name = params["name"]
    if change.tags_to_remove:
        with aws_errors(f"remove tags from environment {name}"):
            client.untag_resource(ResourceArn=environment["Arn"], tagKeys=change.tags_to_remove)
    if change.tags_to_set:
        with aws_errors(f"tag environment {name}"):
            client.tag_resource(ResourceArn=environment["Arn"], Tags=change.tags_to_set)
    if change.settings:
        partition = environment["Arn"].split(":")[1]
        fields = settings.request(change.settings, partition=partition, create=False)
        if params.get("worker_replacement_strategy"):
            fields["WorkerReplacementStrategy"] = params["worker_replacement_strategy"]
        timeout = (params["wait_timeout"] or UPDATE_TIMEOUT) if params["wait"] else None
        environment = update(client, environment, fields, timeout=timeout) or environment
        return {"changed": True, "operation": "update", "environment": shown(environment, secret)}
    return {"changed": True, "operation": "update", "environment": shown(describe(client, name), secret)}


def finished(
    client: Any,
    name: str,
    timeout: float,
    *,
    before: dict[str, Any] | None = None,
    pending_is_final: bool = False,
    clock: Any = time,
) -> dict[str, Any]:
    """Wait until the operation in progress has ended; raises MigrationError with MWAA's reason when it failed.

    before: the environment as it was when the operation was asked for: its old status is not taken for the result.
    """
    seen: dict[str, Any] = {"status": "accepted", "busy": False}
    start = clock.monotonic()

    def probe() -> dict[str, Any] | None:
        environment = describe(client, name)
        if environment is None:
            raise MigrationError(f"environment {name} disappeared while it was waited for: somebody deleted it")
        seen["status"] = status = environment["Status"]
        if status in limits.BUSY:
            seen["busy"] = True
            if status == "PENDING" and not pending_is_final:
                services = [
                    environment.get("DatabaseVpcEndpointService"),
                    environment.get("WebserverVpcEndpointService"),
                ]
                seen["status"] = (
                    f"PENDING, waits for VPC endpoints to {' and '.join(filter(None, services)) or 'its services'}"
                )
            return environment if status == "PENDING" and pending_is_final else None
        unnoticed = before is not None and not seen["busy"] and _stamp(environment) == _stamp(before)
        if unnoticed and clock.monotonic() - start < NOTICE:
            return None
        return environment

    environment = wait_until(
        probe,
        timeout=timeout,
        interval=INTERVAL,
        describe=lambda: f"environment {name}: {seen['status']}",
        clock=clock,
        hint="it goes on in AWS; run again to go on waiting, with a larger wait_timeout",
    )
    if environment["Status"] in limits.FAILED:
        raise MigrationError(no_way(environment), environment=brief(environment))
    return environment


def _wait_gone(client: Any, name: str, timeout: float, clock: Any = time) -> None:
    seen = {"status": "DELETING"}

    def probe() -> bool | None:
        environment = describe(client, name)
        if environment is None or environment["Status"] == "DELETED":
            return True
        seen["status"] = environment["Status"]
        return None

    wait_until(
        probe,
        timeout=timeout,
        interval=INTERVAL,
        describe=lambda: f"environment {name}: {seen['status']}",
        clock=clock,
        hint="it goes on in AWS; run again to go on waiting",
    )


def no_way(environment: dict[str, Any]) -> str:
    """The sentence about an environment that failed or is on its way out."""
    name, status = environment["Name"], environment["Status"]
    error = (environment.get("LastUpdate") or {}).get("Error") or {}
    reason = (
        f" ({error.get('ErrorCode', 'no code')}: {str(error.get('ErrorMessage', '')).rstrip('.')})" if error else ""
    )
    if status == "DELETING":
        return f"environment {name} is being deleted: wait until it is gone and run again, or choose another name"
    if status == "UNAVAILABLE":
        return (
            f"environment {name} is UNAVAILABLE{reason}: MWAA could not roll back; ask AWS Support, or delete it and"
            " create it again"
        )
    if status == "CREATE_FAILED":
        return f"environment {name} is CREATE_FAILED{reason}: {CREATE_HINT}"
    had = f", with Airflow {environment['AirflowVersion']}" if environment.get("AirflowVersion") else ""
    hint = UPDATE_HINT.format(name=name, had=had)
    return f"environment {name} is {status}{reason}: {hint}; mend the cause and run again"


def _stamp(environment: dict[str, Any]) -> str:
    return str((environment.get("LastUpdate") or {}).get("CreatedAt"))


def _timeout(params: dict[str, Any], status: str) -> float:
    return params["wait_timeout"] or (CREATE_TIMEOUT if status in ("CREATING", "PENDING") else UPDATE_TIMEOUT)


def _diff(before: dict[str, Any], after: dict[str, Any], secret: set[str]) -> dict[str, Any]:
    return {"diff": {"before": settings.masked(before, secret), "after": settings.masked(after, secret, before)}}


def _texts(node: Any) -> Any:
    if isinstance(node, dict):
        return {key: _texts(value) for key, value in node.items()}
    if isinstance(node, list):
        return [_texts(value) for value in node]
    return node.isoformat() if hasattr(node, "isoformat") else node


# --- the bucket -----------------------------------------------------------------------------------------------------


def prepare_bucket(ctx: Any, name: str, bucket: str, wanted: dict[str, Any], *, whole: bool) -> None:
    """Check the bucket (whole) and pin the objects that `wanted` names without a version; faults come together."""
    paths = [path for path, version in settings.PINNED.items() if path in wanted and version not in wanted]
    if not (whole or paths):
        return
    faults = Faults(f"environment {name}")
    s3 = ctx.aws.client("s3")
    if not whole or _check_bucket(ctx, s3, bucket, faults):
        for path in paths:
            version = _current_version(ctx, s3, bucket, wanted[path], path, faults)
            if version:
                wanted[settings.PINNED[path]] = version
    faults.raise_if_any()


def _check_bucket(ctx: Any, s3: Any, bucket: str, faults: Faults) -> bool:
    """MWAA's rules for its bucket [UG mwaa-s3-bucket]. Returns whether objects can be looked up in it."""
    try:
        answer = s3.head_bucket(Bucket=bucket)
    except Exception as exception:
        if not is_aws_error(exception):
            raise
        if is_missing(exception):
            faults.add(
                f"the bucket {bucket} does not exist: create it in {ctx.aws.region}, versioned, with public access"
                " blocked"
            )
            return False
        region = _header(exception, "x-amz-bucket-region")
        if region and region != ctx.aws.region:
            faults.add(_elsewhere(bucket, region, ctx.aws.region))
            return False
        if http_status(exception) == 403:
            faults.add(f"the bucket {bucket} belongs to another account or the caller may not s3:ListBucket on it")
            return False
        raise aws_error(exception, f"look at the bucket {bucket}") from exception
    region = answer.get("BucketRegion") or _region_of(s3, bucket, answer)
    if region and region != ctx.aws.region:
        faults.add(_elsewhere(bucket, region, ctx.aws.region))
        return False
    _check_versioning(ctx, s3, bucket, faults)
    _check_public_access(ctx, s3, bucket, faults)
    return True


def _check_versioning(ctx: Any, s3: Any, bucket: str, faults: Faults) -> None:
    try:
        status = s3.get_bucket_versioning(Bucket=bucket).get("Status")
    except Exception as exception:
        _uncertain(ctx, exception, f"whether the bucket {bucket} is versioned")
        return
    if status != "Enabled":
        faults.add(f"the bucket {bucket} is not versioned, which MWAA needs: enable versioning on it")


def _check_public_access(ctx: Any, s3: Any, bucket: str, faults: Faults) -> None:
    try:
        block = s3.get_public_access_block(Bucket=bucket)["PublicAccessBlockConfiguration"]
    except Exception as exception:
        if error_code(exception) != "NoSuchPublicAccessBlockConfiguration":
            _uncertain(ctx, exception, f"whether the bucket {bucket} blocks public access")
            return
        block = {}
    switches = ("BlockPublicAcls", "IgnorePublicAcls", "BlockPublicPolicy", "RestrictPublicBuckets")
    if not all(block.get(switch) for switch in switches):
        faults.add(
            f"the bucket {bucket} does not block all public access, which MWAA needs: set all four switches of its"
            " public access block"
        )


def _current_version(ctx: Any, s3: Any, bucket: str, key: str, option: str, faults: Faults) -> str | None:
    try:
        version = s3.head_object(Bucket=bucket, Key=key).get("VersionId")
    except Exception as exception:
        if not is_aws_error(exception):
            raise
        if not is_missing(exception):
            raise aws_error(exception, f"look up the version of s3://{bucket}/{key} ({option})") from exception
        if ctx.check_mode:  # what comes before would have uploaded it
            ctx.warn(f"{option}: s3://{bucket}/{key} does not exist yet, its version is unknown")
        else:
            faults.add(f"{option}: s3://{bucket}/{key} does not exist: upload it first")
        return None
    if not version or version == "null":
        faults.add(f"{option}: s3://{bucket}/{key} has no version: enable versioning on the bucket and upload it again")
        return None
    return version


def _region_of(s3: Any, bucket: str, answer: dict[str, Any]) -> str | None:
    header = ((answer.get("ResponseMetadata") or {}).get("HTTPHeaders") or {}).get("x-amz-bucket-region")
    if header:
        return header
    try:
        constraint = s3.get_bucket_location(Bucket=bucket).get("LocationConstraint")
    except Exception as exception:
        if not is_aws_error(exception):
            raise
        return None  # not allowed to ask: CreateEnvironment will say
    return {None: "us-east-1", "": "us-east-1", "EU": "eu-west-1"}.get(constraint, constraint)


def _elsewhere(bucket: str, region: str, ours: str) -> str:
    return f"the bucket {bucket} is in {region} and the environment in {ours}: MWAA needs a bucket in its own region"


def _uncertain(ctx: Any, exception: BaseException, what: str) -> None:
    if not is_aws_error(exception):
        raise exception
    if http_status(exception) != 403:
        raise aws_error(exception, f"find out {what}") from exception
    ctx.warn(f"the caller is not allowed to find out {what}; MWAA needs it")


def _header(exception: BaseException, name: str) -> str | None:
    metadata = exception.response.get("ResponseMetadata") if hasattr(exception, "response") else None
    return ((metadata or {}).get("HTTPHeaders") or {}).get(name)
