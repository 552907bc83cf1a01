# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An environment's settings: from module options to API fields and back, validated and compared. Pure, no calls.

PRIVATE to the collection: no promise is made to other collections.

Both sides are brought to the same flat form, a dict by option name, so that comparing is comparing dicts. An option
that is not given is not in the dict and is not touched.
"""

from __future__ import annotations

import re
from typing import Any, NamedTuple

from ansible_collections.mwaa.migration.plugins.module_utils._errors import Faults
from ansible_collections.mwaa.migration.plugins.module_utils._mwaa import limits
from ansible_collections.mwaa.migration.plugins.module_utils._versions import STARTUP_SCRIPT, at_least

# option -> field of GetEnvironment, CreateEnvironment and UpdateEnvironment that holds it as it is
PLAIN = {
    "airflow_version": "AirflowVersion",
    "dag_s3_path": "DagS3Path",
    "endpoint_management": "EndpointManagement",
    "environment_class": "EnvironmentClass",
    "execution_role_arn": "ExecutionRoleArn",
    "kms_key": "KmsKey",
    "max_webservers": "MaxWebservers",
    "max_workers": "MaxWorkers",
    "min_webservers": "MinWebservers",
    "min_workers": "MinWorkers",
    "plugins_s3_object_version": "PluginsS3ObjectVersion",
    "plugins_s3_path": "PluginsS3Path",
    "requirements_s3_object_version": "RequirementsS3ObjectVersion",
    "requirements_s3_path": "RequirementsS3Path",
    "schedulers": "Schedulers",
    "startup_script_s3_object_version": "StartupScriptS3ObjectVersion",
    "startup_script_s3_path": "StartupScriptS3Path",
    "webserver_access_mode": "WebserverAccessMode",
    "weekly_maintenance_window_start": "WeeklyMaintenanceWindowStart",
}
LOGS = {
    "dag_processing_logs": "DagProcessingLogs",
    "scheduler_logs": "SchedulerLogs",
    "task_logs": "TaskLogs",
    "webserver_logs": "WebserverLogs",
    "worker_logs": "WorkerLogs",
}
# S3 objects whose version MWAA pins: option of the path -> option of the version
PINNED = {
    "plugins_s3_path": "plugins_s3_object_version",
    "requirements_s3_path": "requirements_s3_object_version",
    "startup_script_s3_path": "startup_script_s3_object_version",
}
IMMUTABLE = ("subnet_ids", "kms_key", "endpoint_management")  # not in UpdateEnvironment
REQUIRED = (
    "execution_role_arn",
    "source_bucket",
    "dag_s3_path",
    "subnet_ids",
    "security_group_ids",
)  # by CreateEnvironment

MASK = "***"
# options of Airflow and its providers whose values are credentials or hold some
_SECRET_OPTION = re.compile(
    r"passw|secret|token|fernet|credential|private_key|api_key|access_key|sql_alchemy_conn|result_backend|broker_url"
    r"|backend_kwargs|_conn$|_dsn$|conn_uri"
)
_NOT_SECRET = re.compile(
    r"secrets[._](backend|use_cache|cache_ttl_seconds)$|_(expiration|lifetime|ttl|seconds|class|method)$"
    r"|(^|[._])(masked_secret|secret_mask_adapter|passwords_file|engine_options)$"
)


def looks_secret(option: str) -> bool:
    """Whether the name of an Airflow option says that its value is secret."""
    return bool(_SECRET_OPTION.search(option)) and not _NOT_SECRET.search(option)


def argument_spec() -> dict[str, Any]:
    """The options of modules that create environments (documented in the fragment _environment)."""
    log = {
        "type": "dict",
        "options": {
            "enabled": {"type": "bool", "required": True},
            "log_level": {"type": "str", "choices": list(limits.LOG_LEVELS), "required": True},
        },
    }
    return {
        "bundle": {"type": "str"},
        "bundles": {"type": "list", "elements": "str"},
        "kms_key_id": {"type": "str", "no_log": False},
        "airflow_version": {"type": "str"},
        "source_bucket": {"type": "str"},
        "dag_s3_path": {"type": "str"},
        "plugins_s3_path": {"type": "str"},
        "plugins_s3_object_version": {"type": "str"},
        "requirements_s3_path": {"type": "str"},
        "requirements_s3_object_version": {"type": "str"},
        "startup_script_s3_path": {"type": "str"},
        "startup_script_s3_object_version": {"type": "str"},
        "execution_role_arn": {"type": "str"},
        "subnet_ids": {"type": "list", "elements": "str"},
        "security_group_ids": {"type": "list", "elements": "str"},
        "kms_key": {"type": "str", "no_log": False},
        "endpoint_management": {"type": "str", "choices": ["SERVICE", "CUSTOMER"]},
        "webserver_access_mode": {"type": "str", "choices": list(limits.ACCESS_MODES)},
        "environment_class": {"type": "str"},
        "min_workers": {"type": "int"},
        "max_workers": {"type": "int"},
        "schedulers": {"type": "int"},
        "min_webservers": {"type": "int"},
        "max_webservers": {"type": "int"},
        "airflow_configuration_options": {"type": "dict"},
        "secret_configuration_options": {"type": "dict", "no_log": True},
        "secrets_backend": {
            "type": "dict",
            "no_log": False,
            "options": {
                "prefix": {"type": "str", "default": "airflow"},
                "connections_lookup_pattern": {"type": "str"},
                "variables_lookup_pattern": {"type": "str"},
            },
        },
        "logging_configuration": {"type": "dict", "options": dict.fromkeys(sorted(LOGS), log)},
        "weekly_maintenance_window_start": {"type": "str"},
        "worker_replacement_strategy": {"type": "str", "choices": list(limits.REPLACEMENT_STRATEGIES)},
        "tags": {"type": "dict"},
    }


class Change(NamedTuple):
    """The way from the current settings to the desired ones."""

    before: dict[str, Any]  # of the settings that differ
    after: dict[str, Any]
    immutable: list[str]  # sentences about differences that no update can make
    tags_to_set: dict[str, str]
    tags_to_remove: list[str]

    @property
    def settings(self) -> dict[str, Any]:
        """What UpdateEnvironment has to be sent."""
        return {name: value for name, value in self.after.items() if name != "tags"}

    def __bool__(self) -> bool:
        return bool(self.after)


def desired(params: dict[str, Any]) -> dict[str, Any]:
    """The flat form of what a task asks for. Raises MigrationError naming every fault.

    params: mwaa_environment's options. `secret_configuration_options` stays a dict of its own until `merged_options`.
    """
    faults = Faults(f"environment {params['name']}")
    wanted = judged(params, faults)
    faults.raise_if_any()
    return wanted


def judged(params: dict[str, Any], faults: Faults) -> dict[str, Any]:
    """`desired`, with faults added to `faults`, each beginning with the option that it is about."""
    wanted: dict[str, Any] = {
        name: params[name] for name in PLAIN if params.get(name) is not None and params.get(name) != ""
    }
    _check_name(params["name"], faults)
    _check_plain(wanted, faults)
    _check_counts(params, faults)
    if params.get("source_bucket"):
        wanted["source_bucket"] = _bucket_name(params["source_bucket"], faults)
    for path in ("dag_s3_path", *PINNED):
        if params.get(path):
            wanted[path] = _relative(path, params[path], faults)
    for path, version in PINNED.items():
        if version in wanted and path not in wanted:
            faults.add(f"{version} is given without {path}")
    _check_network(params, wanted, faults)
    for name in ("airflow_configuration_options", "secret_configuration_options"):
        if params.get(name) is not None:
            wanted[name] = _options(name, params[name], faults)
    for twice in sorted(
        set(wanted.get("airflow_configuration_options", {})) & set(wanted.get("secret_configuration_options", {}))
    ):
        faults.add(f"{twice} is in both airflow_configuration_options and secret_configuration_options")
    if params.get("logging_configuration"):
        logs = {name: value for name, value in params["logging_configuration"].items() if value is not None}
        if logs:
            wanted["logging_configuration"] = logs
    if params.get("tags") is not None:
        wanted["tags"] = _tags(params["tags"], faults)
    return wanted


def merged_options(wanted: dict[str, Any], current_options: dict[str, str]) -> None:
    """Make `wanted` hold the full map: given options replace the current ones, secret ones are merged over them."""
    secret = wanted.pop("secret_configuration_options", None)
    if secret:
        wanted["airflow_configuration_options"] = {
            **wanted.get("airflow_configuration_options", current_options),
            **secret,
        }


def current(environment: dict[str, Any]) -> dict[str, Any]:
    """The flat form of what GetEnvironment says."""
    flat: dict[str, Any] = {
        name: environment[field] for name, field in PLAIN.items() if environment.get(field) is not None
    }
    network = environment.get("NetworkConfiguration") or {}
    flat["subnet_ids"] = sorted(network.get("SubnetIds") or [])
    flat["security_group_ids"] = sorted(network.get("SecurityGroupIds") or [])
    if environment.get("SourceBucketArn"):
        flat["source_bucket"] = environment["SourceBucketArn"].split(":::", 1)[-1]
    for path in ("dag_s3_path", *PINNED):
        if path in flat:
            flat[path] = flat[path].strip("/")
    flat["airflow_configuration_options"] = dict(environment.get("AirflowConfigurationOptions") or {})
    logging = environment.get("LoggingConfiguration") or {}
    flat["logging_configuration"] = {
        name: {"enabled": bool(logging[field].get("Enabled")), "log_level": logging[field].get("LogLevel")}
        for name, field in LOGS.items()
        if field in logging
    }
    flat["tags"] = dict(environment.get("Tags") or {})
    flat.setdefault("endpoint_management", "SERVICE")
    return flat


def compare(now: dict[str, Any], wanted: dict[str, Any], *, purge_tags: bool) -> Change:
    """What has to change, both sides in flat form (options merged, versions pinned)."""
    before: dict[str, Any] = {}
    after: dict[str, Any] = {}
    immutable: list[str] = []
    for name, value in wanted.items():
        if name in ("tags", "logging_configuration"):
            continue
        was = now.get(name)
        if name == "kms_key" and was is not None and _key_id(was) == _key_id(value):
            continue
        if was == value:
            continue
        if name in IMMUTABLE:
            immutable.append(f"{name} is {_shown(was)} and cannot become {_shown(value)}")
        else:
            before[name], after[name] = was, value
    if "logging_configuration" in wanted:
        was = now["logging_configuration"]
        full = {**was, **wanted["logging_configuration"]}
        if full != was:
            before["logging_configuration"], after["logging_configuration"] = was, full
    for path, version in PINNED.items():
        if path in after or version in after:
            # the API takes a version only together with its path
            before.update({path: now.get(path), version: now.get(version)})
            after.update({name: wanted[name] for name in (path, version) if name in wanted})
    tags_to_set: dict[str, str] = {}
    tags_to_remove: list[str] = []
    if "tags" in wanted:
        tags_to_set = {key: value for key, value in wanted["tags"].items() if now["tags"].get(key) != value}
        if purge_tags:
            tags_to_remove = sorted(
                key for key in now["tags"] if key not in wanted["tags"] and not key.startswith("aws:")
            )
        if tags_to_set or tags_to_remove:
            before["tags"] = now["tags"]
            kept = {key: value for key, value in now["tags"].items() if key not in tags_to_remove}
            after["tags"] = {**kept, **tags_to_set}
    return Change(before, after, immutable, tags_to_set, tags_to_remove)


def request(settings: dict[str, Any], *, partition: str, create: bool) -> dict[str, Any]:
    """The fields of CreateEnvironment (create) or UpdateEnvironment. partition: 'aws', 'aws-cn', …"""
    fields: dict[str, Any] = {PLAIN[name]: value for name, value in settings.items() if name in PLAIN}
    if "source_bucket" in settings:
        fields["SourceBucketArn"] = f"arn:{partition}:s3:::{settings['source_bucket']}"
    network = {}
    if create and "subnet_ids" in settings:
        network["SubnetIds"] = settings["subnet_ids"]
    if "security_group_ids" in settings:
        network["SecurityGroupIds"] = settings["security_group_ids"]
    if network:
        fields["NetworkConfiguration"] = network
    if "airflow_configuration_options" in settings:
        fields["AirflowConfigurationOptions"] = settings["airflow_configuration_options"]
    if "logging_configuration" in settings:
        fields["LoggingConfiguration"] = {
            LOGS[name]: {"Enabled": value["enabled"], "LogLevel": value["log_level"]}
            for name, value in settings["logging_configuration"].items()
        }
    if create and settings.get("tags"):  # an empty map is refused
        fields["Tags"] = settings["tags"]
    return fields


def masked(settings: dict[str, Any], secret: set[str], other: dict[str, Any] | None = None) -> dict[str, Any]:
    """Settings in flat form, fit to be shown: values of secret Airflow options are masked.

    secret: names that the task called secret; names that look secret are masked too. other: the other side of a diff,
    so that a masked value that differs shows as different.
    """
    if "airflow_configuration_options" not in settings:
        return dict(settings)
    theirs = (other or {}).get("airflow_configuration_options") or {}
    shown = {}
    for name, value in (settings["airflow_configuration_options"] or {}).items():
        if name in secret or looks_secret(name):
            value = f"{MASK} (differs)" if name in theirs and theirs[name] != value else MASK
        shown[name] = value
    return {**settings, "airflow_configuration_options": shown}


def _check_name(name: str, faults: Faults) -> None:
    if not limits.NAME.fullmatch(name) or len(name) > limits.NAME_MAX:
        faults.add(f"name must begin with a letter and hold at most {limits.NAME_MAX} letters, digits, - and _")


def _check_plain(wanted: dict[str, Any], faults: Faults) -> None:
    role = wanted.get("execution_role_arn")
    if role and (not limits.ROLE_ARN.fullmatch(role) or len(role) > limits.ARN_MAX):
        faults.add(f"execution_role_arn {role!r} is not the ARN of an IAM role (arn:aws:iam::123456789012:role/name)")
    version = wanted.get("airflow_version")
    if version and (not limits.VERSION.fullmatch(version) or len(version) > limits.VERSION_MAX):
        faults.add(f"airflow_version {version!r} is not a version such as 2.11.2")
    if version and wanted.get("startup_script_s3_path") and not at_least(version, STARTUP_SCRIPT):
        faults.add(f"startup_script_s3_path needs Airflow {STARTUP_SCRIPT} or newer, airflow_version is {version}")
    key = wanted.get("kms_key")
    if key and "alias/" in key:
        faults.add("kms_key is an alias, which MWAA does not support: give the key's id or ARN")
    elif key and not limits.KMS_KEY.fullmatch(key):
        faults.add(f"kms_key {key!r} is neither the id nor the ARN of a single-region key")
    window = wanted.get("weekly_maintenance_window_start")
    if window and not limits.MAINTENANCE_WINDOW.fullmatch(window):
        faults.add(
            f"weekly_maintenance_window_start {window!r} must be DAY:HH:MM in UTC, on the half hour, such as TUE:03:30"
        )
    if (
        wanted.get("webserver_access_mode") == "PUBLIC_AND_PRIVATE"
        and version
        and _numbers(version) < limits.ACCESS_MODE_BOTH_SINCE
    ):
        faults.add(f"webserver_access_mode PUBLIC_AND_PRIVATE needs Airflow 3.2 or newer, airflow_version is {version}")


def _check_counts(params: dict[str, Any], faults: Faults) -> None:
    for name in ("min_workers", "max_workers", "min_webservers", "max_webservers", "schedulers"):
        if params.get(name) is not None and params[name] < 1:
            faults.add(f"{name} is {params[name]}, it must be 1 or more")
    if (params.get("schedulers") or 0) > limits.SCHEDULERS_MAX:
        faults.add(f"schedulers is {params['schedulers']}, MWAA takes at most {limits.SCHEDULERS_MAX}")
    for low, high in (("min_workers", "max_workers"), ("min_webservers", "max_webservers")):
        if params.get(low) is not None and params.get(high) is not None and params[low] > params[high]:
            faults.add(f"{low} is {params[low]} and {high} is {params[high]}: the minimum is above the maximum")


def _check_network(params: dict[str, Any], wanted: dict[str, Any], faults: Faults) -> None:
    subnets = params.get("subnet_ids")
    if subnets is not None:
        if len(set(subnets)) != limits.SUBNETS or len(subnets) != limits.SUBNETS:
            faults.add(
                f"subnet_ids must be {limits.SUBNETS} different private subnets in two availability zones,"
                f" {len(subnets)} are given"
            )
        for index, subnet in enumerate(subnets):
            if not limits.SUBNET_ID.fullmatch(subnet):
                faults.add(f"subnet_ids[{index}] {subnet!r} is not a subnet id")
        wanted["subnet_ids"] = sorted(subnets)
    groups = params.get("security_group_ids")
    if groups is not None:
        if not 1 <= len(groups) <= limits.SECURITY_GROUPS_MAX:
            faults.add(
                f"security_group_ids must be 1 to {limits.SECURITY_GROUPS_MAX} security groups, {len(groups)} are given"
            )
        for index, group in enumerate(groups):
            if not limits.SECURITY_GROUP_ID.fullmatch(group):
                faults.add(f"security_group_ids[{index}] {group!r} is not the id of a security group")
        wanted["security_group_ids"] = sorted(groups)


def _bucket_name(bucket: str, faults: Faults) -> str:
    arn = bucket if bucket.startswith("arn:") else f"arn:aws:s3:::{bucket}"
    if not limits.BUCKET_ARN.fullmatch(arn):
        faults.add(f"source_bucket {bucket!r} is neither the name nor the ARN of a bucket (no folder, no trailing /)")
    return arn.split(":::", 1)[-1]


def _relative(option: str, path: str, faults: Faults) -> str:
    if path.startswith("s3://"):
        faults.add(f"{option} {path!r} must be a path inside the bucket, without s3:// and the bucket's name")
    if len(path) > limits.S3_PATH_MAX:
        faults.add(f"{option} has {len(path)} characters, MWAA takes {limits.S3_PATH_MAX}")
    return path.strip("/")


def _options(parameter: str, options: dict[Any, Any], faults: Faults) -> dict[str, str]:
    texts: dict[str, str] = {}
    for name, value in options.items():
        where = f"{parameter}[{name}]"
        if not limits.OPTION_NAME.fullmatch(str(name)) or len(str(name)) > limits.OPTION_NAME_MAX:
            faults.add(
                f"{where}: the name must be section.option in lower case, at most {limits.OPTION_NAME_MAX} characters"
            )
        if isinstance(value, bool):
            value = str(value)  # True and False, as Airflow writes them
        elif isinstance(value, (int, float)):
            value = str(value)
        if not isinstance(value, str):
            faults.add(
                f"{where}: the value must be a text or a number, not"
                f" {'null' if value is None else type(value).__name__}"
            )
            continue
        # the value itself is not repeated: it may be secret
        if value == "":
            faults.add(f"{where}: MWAA takes no empty value; leave the option out")
        elif not limits.OPTION_VALUE.fullmatch(value):
            faults.add(f"{where}: MWAA takes printable ASCII only (no line break, no umlaut)")
        elif len(value) > limits.OPTION_VALUE_MAX:
            faults.add(f"{where}: the value has {len(value)} characters, MWAA takes {limits.OPTION_VALUE_MAX}")
        texts[str(name)] = value
    return texts


def _tags(tags: dict[Any, Any], faults: Faults) -> dict[str, str]:
    if len(tags) > limits.TAGS_MAX:
        faults.add(f"tags: {len(tags)} are given, MWAA takes {limits.TAGS_MAX}")
    texts = {str(key): "" if value is None else str(value) for key, value in tags.items()}
    for key, value in texts.items():
        if not 1 <= len(key) <= limits.TAG_KEY_MAX or not limits.TAG.fullmatch(key):
            faults.add(f"tags[{key}]: the key must have 1 to {limits.TAG_KEY_MAX} letters, digits, spaces and _.:/=+-@")
        if key.startswith("aws:"):
            faults.add(f"tags[{key}]: keys that begin with aws: are AWS's own")
        if not 1 <= len(value) <= limits.TAG_VALUE_MAX or not limits.TAG.fullmatch(value):
            faults.add(
                f"tags[{key}]: the value must have 1 to {limits.TAG_VALUE_MAX} letters, digits, spaces and _.:/=+-@"
            )
    return texts


def _key_id(key: str) -> str:
    return key.rsplit("/", 1)[-1]


def _shown(value: Any) -> str:
    if value is None:
        return "AWS's own"
    return ", ".join(value) if isinstance(value, list) else str(value)


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".") if part.isdigit())
