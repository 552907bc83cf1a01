# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From the source's airflow.cfg and AIRFLOW__ variables to AirflowConfigurationOptions. Rules as data, and their application.

PRIVATE to the collection: no promise is made to other collections.

Each option that the source set ends in exactly one list: portable, reserved (MWAA's own, or bound to the source's host), secret,
unknown (the target has no such option) or not_representable. Values are kept of portable ones only.

OPTIONS and RENAMED are generated (tests/tables/generate.py) from real Airflows with the providers of MWAA's images.
"""

# ruff: noqa: E501

from __future__ import annotations

import fnmatch
import functools
import re
from collections.abc import Callable
from typing import Any

from ansible_collections.mwaa.migration.plugins.module_utils import _versions

LISTS = ("reserved", "secret", "unknown", "not_representable")
# CreateEnvironment's model: names and values of AirflowConfigurationOptions
NAME = re.compile(r"[a-z]+([a-z0-9._]*[a-z0-9_]+)?\Z")
NAME_LENGTH = 64
VALUE = re.compile(r"[ -~]+\Z")
VALUE_LENGTH = 65536

OWN = "MWAA sets it itself and ignores any other value"
HOST = "it describes the source's host"
LOGS = "MWAA keeps task logs in CloudWatch and reads them nowhere else"
EXECUTOR = "it belongs to an executor that MWAA does not run"
QUEUE = "MWAA has its own queue"
# a name, or a section with an asterisk; source: MWAA's images (setup_environment.py) and user guide, "Configuration options"
RESERVED = {
    "core.executor": OWN,
    "core.fernet_key": OWN + "; values are carried in clear and encrypted anew",
    "core.load_examples": OWN,
    "core.auth_manager": OWN,
    "core.execution_api_server_url": OWN,
    "core.internal_api_url": OWN,
    "core.internal_api_secret_key": OWN,
    "core.database_access_isolation": OWN,
    "core.multi_team": "MWAA refuses it",
    "triggerer.queues_enabled": "MWAA refuses it",
    "celery.broker_url": QUEUE,
    "celery.result_backend": OWN,
    "celery.celery_config_options": OWN,
    "celery.worker_enable_remote_control": OWN,
    "celery.flower_*": "MWAA runs no Flower",
    "celery_broker_transport_options.*": QUEUE,
    "celery_result_backend_transport_options.*": QUEUE,
    "operators.default_queue": QUEUE,
    "database.sql_alchemy_*": "MWAA has its own database",
    "database.sql_engine_*": "MWAA has its own database",
    "database.alembic_ini_file_path": HOST,
    "database.load_default_connections": OWN,
    "logging.logging_config_class": OWN,
    "logging.remote_*": LOGS,
    "logging.google_key_path": LOGS,
    "logging.encrypt_s3_logs": LOGS,
    "logging.delete_local_logs": LOGS,
    "logging.task_log_reader": LOGS,
    "elasticsearch.*": LOGS,
    "elasticsearch_configs.*": LOGS,
    "opensearch.*": LOGS,
    "opensearch_configs.*": LOGS,
    "metrics.statsd_*": "MWAA publishes the metrics to CloudWatch",
    "webserver.secret_key": OWN,
    "api.secret_key": OWN,
    "webserver.config_file": OWN,
    "fab.config_file": OWN,
    "webserver.cookie_secure": OWN,
    "fab.cookie_secure": OWN,
    "webserver.base_url": OWN,
    "api.base_url": OWN,
    "cli.*": OWN,
    "api_auth.*": OWN,
    "execution_api.*": OWN,
    "workers.execution_api_*": OWN,
    "scheduler.standalone_dag_processor": OWN,
    "dag_processor.dag_bundle_*": "MWAA reads DAGs from its bucket",
    "aws_auth_manager.*": OWN,
    "aws_batch_executor.*": EXECUTOR,
    "aws_ecs_executor.*": EXECUTOR,
    "aws_lambda_executor.*": EXECUTOR,
    "celery_kubernetes_executor.*": EXECUTOR,
    "dask.*": EXECUTOR,
    "kubernetes.*": EXECUTOR,
    "kubernetes_environment_variables.*": EXECUTOR,
    "kubernetes_executor.*": EXECUTOR,
    "local_kubernetes_executor.*": EXECUTOR,
    "mesos.*": EXECUTOR,
    "core.dags_folder": "MWAA mirrors the DAG folder of its bucket to its own place",
    "core.plugins_folder": "MWAA unpacks plugins.zip to its own place",
    "core.hostname_callable": HOST,
    "core.default_impersonation": HOST,
    "core.daemon_umask": HOST,
    "core.unit_test_mode": HOST,
    "debug.*": HOST,
    "kerberos.*": HOST,
    "logging.base_log_folder": HOST,
    "logging.*_log_location": HOST,
    "logging.dag_processor_child_process_log_directory": HOST,
    "logging.worker_log_server_*": HOST,
    "logging.trigger_log_server_*": HOST,
    "scheduler.child_process_log_directory": HOST,
    "scheduler.scheduler_health_check_server_*": HOST,
    "webserver.web_server_*": HOST,
    "webserver.access_logfile": HOST,
    "webserver.error_logfile": HOST,
    "webserver.workers": "MWAA sizes its web servers",
    "webserver.worker_class": "MWAA sizes its web servers",
    "webserver.enable_proxy_fix": HOST,
    "webserver.proxy_fix_*": HOST,
    "fab.enable_proxy_fix": HOST,
    "fab.proxy_fix_*": HOST,
    "api.host": HOST,
    "api.port": HOST,
    "api.workers": "MWAA sizes its web servers",
    "api.ssl_*": HOST,
    "api.access_logfile": HOST,
}
# of these, what MWAA's images set over whatever an environment says (setup_environment.py, essential options)
ESSENTIAL = (
    "api.base_url",
    "api.secret_key",
    "api_auth.jwt_*",
    "celery.broker_url",
    "celery.celery_config_options",
    "celery.result_backend",
    "celery.worker_enable_remote_control",
    "core.auth_manager",
    "core.execution_api_server_url",
    "core.executor",
    "core.fernet_key",
    "core.load_examples",
    "core.multi_team",
    "database.sql_alchemy_conn",
    "logging.logging_config_class",
    "metrics.statsd_*",
    "operators.default_queue",
    "scheduler.standalone_dag_processor",
    "triggerer.queues_enabled",
    "webserver.base_url",
    "webserver.config_file",
    "webserver.cookie_secure",
    "webserver.secret_key",
)
# names that tell a secret, whatever the value (the agent marks more: Airflow's own list, and URLs with a password)
SECRET = re.compile(
    r"(^|_)(password|passwd|secret|secrets|token|key|credential|credentials|dsn|kwargs)(_|$)|sql_alchemy_conn|broker_url|result_backend$"
)
# renamed, but the new one takes another unit or meaning: the value does not travel
NOT_THE_SAME = {
    "webserver.session_lifetime_days": "session_lifetime_minutes took its place and counts minutes: set that",
    "webserver.force_log_out_after": "session_lifetime_minutes took its place: set that",
    "api.access_logfile": "api.log_config took its place and means something else",
    "core.check_slas": "Airflow 3 has no SLAs; deadlines took their place",
}
CATCHES_UP = "DAGs that do not say catchup catch up in Airflow 2 and do not in Airflow 3: set scheduler.catchup_by_default to keep it"
PAUSED = "core.dags_are_paused_at_creation"
DATA_INTERVALS = ("scheduler.create_cron_data_intervals", "scheduler.create_delta_data_intervals")
IGNORE_SYNTAX = "core.dag_ignore_file_syntax"
CATCHUP = "scheduler.catchup_by_default"
REFUSED = ("core.multi_team", "triggerer.queues_enabled")  # by MWAA's API from Airflow 3.2 on, whatever the value
# classes that moved, by the major version that no longer has the old path (Airflow's and its providers' release notes)
MOVED_CLASSES = {
    2: {
        "airflow.contrib.secrets.aws_secrets_manager.": "airflow.providers.amazon.aws.secrets.secrets_manager.",
        "airflow.contrib.secrets.aws_systems_manager.": "airflow.providers.amazon.aws.secrets.systems_manager.",
        "airflow.contrib.secrets.azure_key_vault.AzureKeyVaultBackend": "airflow.providers.microsoft.azure.secrets.key_vault.AzureKeyVaultBackend",
        "airflow.contrib.secrets.gcp_secrets_manager.CloudSecretsManager": "airflow.providers.google.cloud.secrets.secret_manager.CloudSecretManager",
        "airflow.contrib.secrets.hashicorp_vault.": "airflow.providers.hashicorp.secrets.vault.",
    },
    3: {
        f"airflow.api.auth.backend.{name}": f"airflow.providers.fab.auth_manager.api.auth.backend.{name}"
        for name in ("basic_auth", "kerberos_auth", "session")
    },
}


def classify(options: list[dict[str, Any]], source_version: str, target_version: str) -> dict[str, Any]:
    """The content of options.json.

    options: the agent's list ({"section", "key", "origin", "secret", "value"}).
    Returns {"target_version", "portable": {name: value}, "renamed": {old: new}, "added": [{"name", "value", "reason"}], the LISTS of
    {"name", "reason"}, "findings": [sentence]}.
    """
    known = known_options(target_version)
    result: dict[str, Any] = {
        "target_version": target_version,
        "portable": {},
        "renamed": {},
        "added": [],
        "findings": [],
    }
    result.update({name: [] for name in LISTS})
    majors = (int(source_version.split(".")[0]), int(target_version.split(".")[0]))

    def put(where: str, name: str, reason: str) -> None:
        result[where].append({"name": name, "reason": reason})

    # where an old and a new name are both set, Airflow takes the new one: the options with names of today come first
    pairs = [(f"{option['section']}.{option['key']}", option) for option in options]
    for old, option in sorted(pairs, key=lambda pair: (pair[0] not in known, pair[0])):
        new = _renamed(old, known)
        given = option["value"]
        value = _rewritten(given, majors[1]) if isinstance(given, str) else given
        if old in NOT_THE_SAME and old not in known:
            put("unknown", old, NOT_THE_SAME[old])
        elif any(map(_reserved, _names(old))):
            put("reserved", old, next(filter(None, map(_reserved, _names(old)))))
        elif option["secret"] or SECRET.search(option["key"]):
            put("secret", old, "it may hold a secret, which options show to everyone who may read the environment")
        elif new not in known:
            put("unknown", old, _unknown(old, target_version))
        elif (
            isinstance(value, str) and re.match(r"^(file://)?/\S", value) and not new.startswith(("api.", "webserver."))
        ):
            put("reserved", old, f"{HOST} (a path there)")
        elif len(new) > NAME_LENGTH or not NAME.match(new):
            put(
                "not_representable",
                old,
                f"MWAA takes names of up to {NAME_LENGTH} lower-case letters, digits, dots and underscores",
            )
        elif not value:
            put("not_representable", old, "MWAA takes no empty values")
        elif len(value) > VALUE_LENGTH or not VALUE.match(value):
            put(
                "not_representable",
                old,
                f"MWAA takes values of up to {VALUE_LENGTH} printable ASCII characters, without line breaks",
            )
        elif new == PAUSED:
            if value.strip().lower() not in ("true", "t", "1", "yes"):
                result["findings"].append(
                    f"the source has {PAUSED} = {value}; the target keeps True, so that nothing runs early"
                )
        elif new in result["portable"] and result["portable"][new] != value:
            put("unknown", old, f"{new} is set already, by its new name")
        else:
            result["portable"][new] = value
            if new != old:
                result["renamed"][old] = new
            if value != given:
                result["findings"].append(
                    f"{new} names a class where Airflow {target_version} has it, not where the source has"
                )
    _add(result, PAUSED, "True", "nothing on the target may run before the cutover")
    if majors[0] < 3 <= majors[1]:
        for name in DATA_INTERVALS:
            _add(result, name, "True", "Airflow 3 would else move every logical date by one interval and skip one")
        if IGNORE_SYNTAX not in result["portable"]:
            _add(result, IGNORE_SYNTAX, "regexp", "Airflow 3 would else read .airflowignore as globs")
        if not any(f"{one['section']}.{one['key']}" == CATCHUP for one in options):
            result["findings"].append(CATCHES_UP)
    if target_version not in option_versions():
        result["findings"].append(
            f"options were judged by the list of Airflow {_nearest(target_version)}, which is closest to {target_version}"
        )
    for name in LISTS:
        result[name].sort(key=lambda one: one["name"])
    return result


def moved(options: dict[str, str], source_version: str, target_version: str) -> dict[str, Any]:
    """An environment's own options as another version of Airflow in MWAA knows them. Secrets stay in them.

    Unlike what a host had set (`classify`), all of it was set for MWAA: what no Airflow knows is the user's own code's and stays. So does
    what the target knows no more, because it does no harm, and its value may be nowhere else; `unknown` lists it.
    Returns {"options": {name: value}, "renamed": {old: new}, "rewritten": [name], "unknown": [{"name", "reason"}],
    "dropped": [{"name", "reason"}], "added": {name: value}, "findings": [sentence]}.
    """
    known, before = known_options(target_version), known_options(source_version)
    majors = (int(source_version.split(".")[0]), int(target_version.split(".")[0]))
    result: dict[str, Any] = {
        "options": {},
        "renamed": {},
        "rewritten": [],
        "unknown": [],
        "dropped": [],
        "added": {},
        "findings": [],
    }

    def put(where: str, name: str, reason: str) -> None:
        result[where].append({"name": name, "reason": reason})

    for old, value in sorted(options.items(), key=lambda pair: (pair[0] not in known, pair[0])):
        new = _renamed(old, known)
        if new not in known:
            new = next(
                (one for one in sorted(renamed()) if one in known and old in _names(one) and one not in NOT_THE_SAME),
                old,
            )
        if old in REFUSED and _versions.at_least(target_version, "3.2"):
            put("dropped", old, "MWAA refuses it")
            continue
        if old in NOT_THE_SAME and old not in known:
            put("unknown", old, NOT_THE_SAME[old])
            new = old
        elif new not in known and old in before:
            put("unknown", old, f"Airflow {target_version} has no such option")
        elif new in result["options"]:
            if result["options"][new] != value:
                put("dropped", old, f"{new} is set already, by its new name")
            continue
        result["options"][new] = rewritten = _rewritten(value, majors[1])
        if new != old:
            result["renamed"][old] = new
        if rewritten != value:
            result["rewritten"].append(new)
    needed: dict[str, str] = {}
    if majors[0] < 3 <= majors[1]:
        needed = {**dict.fromkeys(DATA_INTERVALS, "True"), IGNORE_SYNTAX: "regexp"}
        if CATCHUP not in options:
            result["findings"].append(CATCHES_UP)
    elif majors[1] < 3 <= majors[0]:
        needed = {IGNORE_SYNTAX: "glob"}
    for name, value in needed.items():
        if name not in result["options"] and name in known:
            result["options"][name] = result["added"][name] = value
    return result


def classify_own(
    options: dict[str, str], source_version: str, target_version: str, telling: Callable[[str, str], bool]
) -> dict[str, Any]:
    """The content of options.json of an environment that is left. telling: whether name and value tell a secret.

    Unlike `classify`, what no Airflow knows is carried, since it was set for the user's own code; and so are paths, which are MWAA's.
    """
    whole = moved(options, source_version, target_version)
    old_names = {new: old for old, new in whole["renamed"].items()}
    gone = {one["name"] for one in whole["unknown"]}
    result: dict[str, Any] = {
        "target_version": target_version,
        "portable": {},
        "renamed": {},
        "added": [],
        "findings": list(whole["findings"]),
        **{name: [] for name in LISTS},
        "unknown": whole["unknown"] + whole["dropped"],
    }
    for new, value in sorted(whole["options"].items()):
        old = old_names.get(new, new)
        if old in gone or new in whole["added"]:
            continue
        why = next(filter(None, map(ignored, _names(new))), None)
        if why:
            result["reserved"].append({"name": old, "reason": why})
        elif telling(old, value) or telling(new, value):
            reason = "it may hold a secret, which a bundle does not keep in clear: give it to the environment that is entered"
            result["secret"].append({"name": old, "reason": reason})
        elif new == PAUSED:
            if value.strip().lower() not in ("true", "t", "1", "yes"):
                result["findings"].append(
                    f"the source has {PAUSED} = {value}; the target keeps True, so that nothing runs early"
                )
        else:
            result["portable"][new] = value
            if new != old:
                result["renamed"][old] = new
    _add(result, PAUSED, "True", "nothing on the target may run before the cutover")
    for name, value in whole["added"].items():
        _add(result, name, value, "what it stands for in Airflow differs between the two versions")
    for name in LISTS:
        result[name].sort(key=lambda one: one["name"])
    return result


def _rewritten(value: str, major: int) -> str:
    for since, classes in MOVED_CLASSES.items():
        for old, new in classes.items():
            if major >= since:
                value = re.sub(rf"(?<![\w.]){re.escape(old)}", new, value)
    return value


def not_carried(options: dict[str, Any]) -> list[dict[str, str]]:
    """The lists of classify() as {"kind": "option", "id", "reason"}."""
    return [{"kind": "option", "id": one["name"], "reason": one["reason"]} for name in LISTS for one in options[name]]


def _add(result: dict[str, Any], name: str, value: str, reason: str) -> None:
    result["portable"][name] = value
    result["added"].append({"name": name, "value": value, "reason": reason})


def _unknown(name: str, target_version: str) -> str:
    section = name.split(".")[0]
    if section in {line.split(":")[0] for line in OPTIONS.splitlines()}:
        return f"Airflow {target_version} has no such option"
    return f"neither Airflow {target_version} nor a provider that MWAA brings has a section {section}; set it if your own code reads it"


def _reserved(name: str) -> str | None:
    for pattern, reason in RESERVED.items():
        if pattern == name or ("*" in pattern and re.match(re.escape(pattern).replace(r"\*", ".*") + r"\Z", name)):
            return reason
    return None


def ignored(name: str) -> str | None:
    """Why MWAA takes no notice of an option, whatever its value; None where it does."""
    return _reserved(name) if any(fnmatch.fnmatchcase(name, one) for one in ESSENTIAL) else None


def name_in(name: str, version: str) -> str:
    """What a version of Airflow in MWAA calls an option that another knows by this name."""
    return _renamed(name, known_options(version))


def _renamed(name: str, known: frozenset[str]) -> str:
    """What the target calls an option: itself where it is known, else the first of its later names that is."""
    return next((one for one in _names(name) if one in known), name)


@functools.cache
def _names(name: str) -> tuple[str, ...]:
    """An option's name and the names that later Airflows gave it."""
    names, at = [name], 0
    while at < len(names) and len(names) < 10:
        names += renamed().get(names[at], [])
        section, _dot, key = names[at].partition(".")
        names += [f"{new[:-2]}.{key}" for new in renamed().get(f"{section}.*", [])]
        at += 1
    return tuple(names)


@functools.cache
def renamed() -> dict[str, list[str]]:
    return {line.split()[0]: line.split()[1:] for line in RENAMED.splitlines()}


def option_versions() -> tuple[str, ...]:
    return tuple(version for version in _versions.VERSIONS if version != "2.10.1")  # 2.10.3 stands for it


def _nearest(version: str) -> str:
    """The version whose list stands for this one: the last of those before it, or the first."""
    if version == "2.10.1":
        return "2.10.3"
    before = [one for one in option_versions() if _versions.at_least(version, one)]
    return before[-1] if before else option_versions()[0]


@functools.cache
def known_options(version: str) -> frozenset[str]:
    """section.key of every option that this Airflow and MWAA's providers know."""
    order = {one: index for index, one in enumerate(option_versions())}
    at = order[_nearest(version)]
    known, section = set(), ""
    for word in OPTIONS.split():
        if word.endswith(":"):
            section = word[:-1]
            continue
        name, _at, present = word.partition("@")
        first, _dash, last = present.partition("-")
        if (not first or order[first] <= at) and (not last or at <= order[last]):
            known.add(f"{section}.{name}")
    return frozenset(known)


# section: option… ; option@first-last where not every version has it
OPTIONS = """\
admin: hide_sensitive_variable_fields@-2.0.2 sensitive_variable_fields@2.0.2-2.0.2
api: access_control_allow_headers@2.2.2- access_control_allow_methods@2.2.2- access_control_allow_origins@2.2.2-
  access_logfile@3.0.6-3.0.6 auth_backend@-2.2.2 auth_backends@2.4.3-2.11.2 auto_refresh_interval@3.2.1-
  base_url@3.0.6- client_ssl_cert@3.2.1- client_ssl_key@3.2.1- client_use_public_certs@3.3.1- dag_cache_size@3.3.1-
  dag_cache_ttl@3.3.1- default_wrap@3.2.1- enable_experimental_api@2.0.2-2.11.2 enable_swagger_ui@3.0.6-
  enable_xcom_deserialize_support@2.7.2-3.0.6 expose_config@3.0.6- expose_stacktrace@3.0.6- fallback_page_limit@2.0.2-
  google_key_path@2.0.2-2.11.2 google_oauth2_audience@2.0.2-2.11.2 grid_view_sorting_order@3.2.1-
  hide_paused_dags_by_default@3.2.1- host@3.0.6- instance_name@3.2.1- log_config@3.2.1- log_fetch_timeout_sec@3.2.1-
  log_stream_buffer_size@3.2.1- maximum_page_limit@2.0.2- port@3.0.6- require_confirmation_dag_change@3.2.1-
  secret_key@3.0.6- server_type@3.2.1- ssl_ca_file@3.3.1- ssl_cert@3.0.6- ssl_cert_reqs@3.3.1- ssl_key@3.0.6-
  theme@3.2.1- worker_refresh_batch_size@3.2.1- worker_refresh_interval@3.2.1- worker_timeout@3.0.6- workers@3.0.6-
api_auth: jwt_algorithm@3.0.6- jwt_audience@3.0.6- jwt_cli_expiration_time@3.0.6- jwt_expiration_time@3.0.6-
  jwt_issuer@3.0.6- jwt_kid@3.0.6- jwt_leeway@3.0.6- jwt_private_key_path@3.0.6- jwt_secret@3.0.6-
  trusted_jwks_url@3.0.6-
atlas: host@-2.6.3 host@3.2.1- password@-2.6.3 password@3.2.1- port@-2.6.3 port@3.2.1- sasl_enabled@-2.6.3
  sasl_enabled@3.2.1- username@-2.6.3 username@3.2.1-
aws: cloudwatch_task_handler_json_serializer@2.8.1- s3_task_handler_acl_policy@3.3.1- session_factory@2.7.2-
aws_auth_manager: avp_policy_store_id@2.8.1- conn_id@2.8.1- enable@2.8.1-2.10.3 region_name@2.9.2-
  saml_metadata_url@2.8.1-
aws_batch_executor: check_health_on_startup@2.9.2- conn_id@2.9.2- job_definition@2.9.2- job_name@2.9.2-
  job_queue@2.9.2- max_submit_job_attempts@2.9.2- region_name@2.9.2- submit_job_kwargs@2.9.2-
aws_ecs_executor: assign_public_ip@2.8.1- capacity_provider_strategy@2.9.2- check_health_on_startup@2.8.1-
  cluster@2.8.1- conn_id@2.8.1- container_name@2.8.1- launch_type@2.8.1- max_run_task_attempts@2.8.1-
  platform_version@2.8.1- region_name@2.8.1- run_task_kwargs@2.8.1- security_groups@2.8.1- subnets@2.8.1-
  task_definition@2.8.1-
aws_lambda_executor: check_health_on_startup@2.11.2- conn_id@2.11.2- dead_letter_queue_url@2.11.2-
  end_wait_timeout@2.11.2- function_name@2.11.2- max_invoke_attempts@2.11.2-2.11.2 max_invoke_attempts@3.2.1-
  max_run_task_attempts@3.0.6-3.0.6 qualifier@2.11.2- queue_url@2.11.2- region_name@2.11.2-
callbacks: callback_execution_timeout@3.3.1-
celery: broker_url celery_app_name celery_config_options default_queue@-2.0.2 extra_celery_config@2.11.0-
  flower_basic_auth flower_host flower_port flower_url_prefix json_logs@3.3.1- mp_forkserver_preload@3.3.1-
  mp_start_method@3.3.1- operation_timeout pool result_backend
  result_backend_sqlalchemy_engine_options@2.6.3- ssl_active ssl_cacert ssl_cert ssl_key ssl_mutual_tls@3.3.1-
  stalled_task_timeout@2.4.3-2.5.1 sync_parallelism task_acks_late@2.9.2- task_adoption_timeout@2.0.2-2.5.1
  task_publish_max_retries@2.0.2- task_track_started@2.0.2- worker_autoscale
  worker_concurrency worker_enable_remote_control@2.4.3- worker_log_server_port@-2.0.2 worker_precheck@2.0.2-2.10.3
  worker_precheck@3.2.1- worker_prefetch_multiplier@2.0.2- worker_umask@2.0.2-2.2.2 worker_umask@2.11.2-
celery_broker_transport_options: sentinel_kwargs@2.7.2- visibility_timeout
celery_kubernetes_executor: kubernetes_queue@2.0.2-
celery_result_backend_transport_options: master_name@2.11.2-2.11.2 master_name@3.2.1- sentinel_kwargs@2.11.2-2.11.2
  sentinel_kwargs@3.2.1-
cli: api_client@-2.11.2 endpoint_url@-2.11.2
common.io: state_store_objectstorage_compression@3.3.1- state_store_objectstorage_path@3.3.1-
  state_store_objectstorage_threshold@3.3.1- xcom_objectstorage_compression@2.9.2- xcom_objectstorage_path@2.9.2-
  xcom_objectstorage_threshold@2.9.2-
connection_test: max_concurrency@3.3.1- reaper_interval@3.3.1- timeout@3.3.1-
core: allow_double_dot_in_ids@3.3.1- allowed_deserialization_classes@2.5.1-
  allowed_deserialization_classes_regexp@2.9.2- asset_manager_class@3.0.6- asset_manager_kwargs@3.0.6-
  auth_manager@2.7.2- base_log_folder@-1.10.12 check_slas@-2.11.2 colored_console_log@-1.10.12
  colored_formatter_class@-1.10.12 colored_log_format@-1.10.12 compress_serialized_dags@2.4.3- daemon_umask@2.4.3-
  dag_concurrency@-2.0.2 dag_discovery_safe_mode dag_file_processor_timeout@-2.11.2 dag_ignore_file_syntax@2.4.3-
  dag_processor_manager_log_location@-1.10.12 dag_run_conf_overrides_params dagbag_import_error_traceback_depth@2.0.2-
  dagbag_import_error_tracebacks@2.0.2- dagbag_import_timeout dags_are_paused_at_creation dags_folder
  database_access_isolation@2.7.2-3.0.6 dataset_manager_class@2.4.3-2.11.2
  dataset_manager_kwargs@2.4.3-2.11.2 default_impersonation
  default_pool_task_slot_count@2.2.2- default_task_execution_timeout@2.4.3- default_task_retries
  default_task_retry_delay@2.4.3- default_task_weight_rule@2.2.2- default_timezone donot_pickle@-3.0.6
  enable_xcom_pickling@-2.11.2 encrypt_s3_logs@-1.10.12 execute_tasks_new_python_interpreter@2.0.2-
  execution_api_server_url@3.0.6- executor fab_logging_level@-1.10.12 fernet_key hide_sensitive_var_conn_fields@2.2.2-
  hostname_callable internal_api_secret_key@2.10.3-3.0.6 internal_api_url@2.7.2-3.0.6 killed_task_cleanup_time
  lazy_discover_providers@2.0.2- lazy_load_plugins@2.0.2- load_default_connections@-2.2.2 load_examples
  log_filename_template@-1.10.12 log_format@-1.10.12 log_processor_filename_template@-1.10.12
  logging_config_class@-1.10.12 logging_level@-1.10.12 max_active_runs_per_dag max_active_tasks_per_dag@2.2.2-
  max_consecutive_failed_dag_runs_per_dag@2.9.2- max_db_retries@2.0.2-2.2.2 max_map_length@2.4.3-
  max_num_rendered_ti_fields_per_task@-3.0.6 max_task_retry_delay@2.6.3- max_templated_field_length@2.9.2-
  might_contain_dag_callable@2.6.3- min_serialized_dag_fetch_interval@-3.0.6 min_serialized_dag_update_interval
  mp_forkserver_preload@3.3.1- mp_start_method@2.5.1-3.0.6 mp_start_method@3.3.1-
  multi_team@3.2.1- num_dag_runs_to_retain_rendered_fields@3.2.1- parallelism plugins_folder
  remote_base_log_folder@-1.10.12 remote_log_conn_id@-1.10.12 remote_logging@-1.10.12 rerun_with_latest_version@3.3.1-
  secure_mode@-1.10.12 security sensitive_var_conn_names@2.2.2- simple_auth_manager_all_admins@3.0.6-
  simple_auth_manager_passwords_file@3.0.6- simple_auth_manager_users@3.0.6- simple_log_format@-1.10.12
  sql_alchemy_conn@-2.2.2 sql_alchemy_connect_args@-2.2.2 sql_alchemy_max_overflow@-2.2.2
  sql_alchemy_pool_enabled@-2.2.2 sql_alchemy_pool_pre_ping@-2.2.2 sql_alchemy_pool_recycle@-2.2.2
  sql_alchemy_pool_size@-2.2.2 sql_alchemy_schema@-2.2.2 sql_engine_collation_for_ids@2.0.2-2.2.2
  sql_engine_encoding@-2.2.2 store_dag_code@-2.0.2 store_serialized_dags@-1.10.12
  strict_dataset_uri_validation@2.9.2-2.11.2 task_log_reader@-1.10.12 task_runner@-2.11.2
  task_success_overtime@2.10.3- team_name_cache_ttl@3.3.1- test_connection@2.7.2- unit_test_mode
  worker_precheck@-1.10.12 xcom_backend
dag_processor: bundle_refresh_check_interval@3.0.6- dag_bundle_config_list@3.0.6- dag_bundle_storage_path@3.0.6-
  dag_file_processor_timeout@3.0.6- dag_version_inflation_check_level@3.2.1- disable_bundle_versioning@3.0.6-
  file_parsing_sort_mode@3.0.6- health_check_threshold@3.2.1- max_callbacks_per_loop@3.0.6-
  min_file_process_interval@3.0.6- parsing_pre_import_modules@3.0.6- parsing_processes@3.0.6-
  print_stats_interval@3.0.6- refresh_interval@3.0.6- stale_bundle_cleanup_age_threshold@3.0.6-
  stale_bundle_cleanup_interval@3.0.6- stale_bundle_cleanup_min_versions@3.0.6- stale_dag_threshold@3.0.6-
dask: cluster_address@-2.6.3 tls_ca@-2.6.3 tls_cert@-2.6.3 tls_key@-2.6.3
database: alembic_ini_file_path@2.7.2- check_migrations@2.6.3- external_db_managers@3.0.6-
  load_default_connections@2.4.3-2.11.2 max_db_retries@2.4.3- migration_batch_size@3.0.6- sql_alchemy_conn@2.4.3-
  sql_alchemy_conn_async@3.2.1- sql_alchemy_connect_args@2.4.3-
  sql_alchemy_connect_args_async@3.2.1- sql_alchemy_engine_args@2.4.3-
  sql_alchemy_max_overflow@2.4.3- sql_alchemy_pool_enabled@2.4.3- sql_alchemy_pool_pre_ping@2.4.3-
  sql_alchemy_pool_recycle@2.4.3- sql_alchemy_pool_size@2.4.3- sql_alchemy_schema@2.4.3-
  sql_alchemy_session_maker@2.10.3- sql_engine_collation_for_ids@2.4.3-
  sql_engine_encoding@2.4.3-
debug: fail_fast@-2.11.2
elasticsearch: end_of_log_mark@-2.6.3 end_of_log_mark@3.2.1- frontend@-2.6.3 frontend@3.2.1- host@-2.6.3 host@3.2.1-
  host_field@2.2.2-2.6.3 host_field@3.2.1- index_patterns@2.6.3-2.6.3 index_patterns@3.2.1- json_fields@-2.6.3
  json_fields@3.2.1- json_format@-2.6.3 json_format@3.2.1- log_id_template@-2.6.3 log_id_template@3.2.1-
  offset_field@2.2.2-2.6.3 offset_field@3.2.1- target_index@3.2.1- write_stdout@-2.6.3 write_stdout@3.2.1-
  write_to_es@3.2.1-
elasticsearch_configs: use_ssl@-2.6.3 use_ssl@3.2.1- verify_certs@-2.6.3 verify_certs@3.2.1-
email: default_email_on_failure@2.0.2- default_email_on_retry@2.0.2- email_backend email_conn_id@2.2.2-
  from_email@2.4.3- html_content_template@2.0.2-
  ssl_context@2.7.2- subject_template@2.0.2-
execution_api: jwt_audience@3.0.6- jwt_expiration_time@3.0.6- otel_trace_propagation@3.3.1-
fab: access_denied_message@3.0.6- auth_backends@3.0.6- auth_rate_limit@2.9.2- auth_rate_limited@2.9.2-
  auth_role_public@3.3.1- cache_ttl@3.2.1- config_file@3.0.6- cookie_samesite@3.2.1- cookie_secure@3.2.1-
  enable_proxy_fix@3.0.6- expose_hostname@3.0.6- navbar_color@3.0.6- navbar_hover_color@3.0.6-
  navbar_text_color@3.0.6- navbar_text_hover_color@3.0.6- proxy_fix_x_for@3.0.6- proxy_fix_x_host@3.0.6-
  proxy_fix_x_port@3.0.6- proxy_fix_x_prefix@3.0.6- proxy_fix_x_proto@3.0.6- session_backend@3.0.6-
  session_lifetime_minutes@3.0.6- update_fab_perms@2.9.2-
github_enterprise: api_rev@-2.2.2
hive: default_hive_mapred_queue@-2.6.3 default_hive_mapred_queue@3.2.1- mapred_job_name_template@2.0.2-2.5.1
imap: ssl_context@2.7.2-2.11.2
kerberos: ccache forwardable@2.2.2- include_ip@2.2.2- keytab kinit_path principal reinit_frequency
kubernetes: affinity@-1.10.12 airflow_configmap@-1.10.12 airflow_local_settings_configmap@-1.10.12
  cluster_context@-2.4.3 config_file@-2.4.3 dags_in_image@-1.10.12 dags_volume_claim@-1.10.12
  dags_volume_host@-1.10.12 dags_volume_mount_point@-1.10.12 dags_volume_subpath@-1.10.12 delete_option_kwargs@-2.4.3
  delete_worker_pods@-2.4.3 delete_worker_pods_on_failure@-2.4.3 enable_tcp_keepalive@2.0.2-2.4.3
  env_from_configmap_ref@-1.10.12 env_from_secret_ref@-1.10.12 fs_group@-1.10.12 gcp_service_account_keys@-1.10.12
  git_branch@-1.10.12 git_dags_folder_mount_point@-1.10.12 git_password@-1.10.12 git_repo@-1.10.12
  git_ssh_key_secret_name@-1.10.12 git_ssh_known_hosts_configmap_name@-1.10.12 git_subpath@-1.10.12
  git_sync_container_repository@-1.10.12 git_sync_container_tag@-1.10.12 git_sync_credentials_secret@-1.10.12
  git_sync_depth@-1.10.12 git_sync_dest@-1.10.12 git_sync_init_container_name@-1.10.12 git_sync_rev@-1.10.12
  git_sync_root@-1.10.12 git_sync_run_as_user@-1.10.12 git_user@-1.10.12 image_pull_secrets@-1.10.12 in_cluster@-2.4.3
  kube_client_request_args@-2.4.3 logs_volume_claim@-1.10.12 logs_volume_host@-1.10.12 logs_volume_subpath@-1.10.12
  multi_namespace_mode@-2.4.3 namespace@-2.4.3 pod_template_file@-2.4.3 run_as_user@-1.10.12 tcp_keep_cnt@2.0.2-2.4.3
  tcp_keep_idle@2.0.2-2.4.3 tcp_keep_intvl@2.0.2-2.4.3 tolerations@-1.10.12 verify_ssl@2.2.2-2.4.3
  worker_container_image_pull_policy@-1.10.12 worker_container_repository@-2.4.3 worker_container_tag@-2.4.3
  worker_pods_creation_batch_size@-2.4.3 worker_pods_pending_timeout@2.2.2-2.4.3
  worker_pods_pending_timeout_batch_size@2.2.2-2.4.3 worker_pods_pending_timeout_check_interval@2.2.2-2.4.3
  worker_pods_queued_check_interval@2.2.2-2.4.3 worker_service_account_name@-1.10.12
kubernetes_executor: api_client_retry_configuration@2.6.3-2.6.3 api_client_retry_configuration@3.2.1-
  cluster_context@2.5.1-2.5.1 config_file@2.5.1-2.5.1 delete_option_kwargs@2.5.1-2.6.3 delete_option_kwargs@3.2.1-
  delete_worker_pods@2.5.1-2.6.3 delete_worker_pods@3.2.1- delete_worker_pods_on_failure@2.5.1-2.6.3
  delete_worker_pods_on_failure@3.2.1- enable_tcp_keepalive@2.5.1-2.6.3 enable_tcp_keepalive@3.2.1-
  in_cluster@2.5.1-2.6.3 in_cluster@3.2.1- kube_client_request_args@2.5.1-2.6.3 kube_client_request_args@3.2.1-
  logs_task_metadata@3.2.1- multi_namespace_mode@2.5.1-2.6.3 multi_namespace_mode@3.2.1-
  multi_namespace_mode_namespace_list@2.6.3-2.6.3 multi_namespace_mode_namespace_list@3.2.1- namespace@2.5.1-2.6.3
  namespace@3.2.1- pod_template_file@2.5.1-2.6.3 pod_template_file@3.2.1- ssl_ca_cert@2.6.3-2.6.3 ssl_ca_cert@3.2.1-
  tcp_keep_cnt@2.5.1-2.6.3 tcp_keep_cnt@3.2.1- tcp_keep_idle@2.5.1-2.6.3 tcp_keep_idle@3.2.1-
  tcp_keep_intvl@2.5.1-2.6.3 tcp_keep_intvl@3.2.1- verify_ssl@2.5.1-2.6.3 verify_ssl@3.2.1-
  worker_container_repository@2.5.1-2.6.3 worker_container_repository@3.2.1- worker_container_tag@2.5.1-2.6.3
  worker_container_tag@3.2.1- worker_pods_creation_batch_size@2.5.1-2.6.3 worker_pods_creation_batch_size@3.2.1-
  worker_pods_pending_timeout@2.5.1-2.5.1 worker_pods_pending_timeout_batch_size@2.5.1-2.5.1
  worker_pods_pending_timeout_check_interval@2.5.1-2.5.1 worker_pods_queued_check_interval@2.5.1-2.6.3
  worker_pods_queued_check_interval@3.2.1-
ldap: basedn@-1.10.12 bind_password@-1.10.12 bind_user@-1.10.12 cacert@-1.10.12 data_profiler_filter@-1.10.12
  group_member_attr@-1.10.12 ignore_malformed_schema@-1.10.12 search_scope@-1.10.12 superuser_filter@-1.10.12
  uri@-1.10.12 user_filter@-1.10.12 user_name_attr@-1.10.12
lineage: backend@-3.0.6 max_assets_per_collector@3.2.1- max_extras_per_collector@3.2.1-
local_kubernetes_executor: kubernetes_queue@2.4.3-2.6.3 kubernetes_queue@3.2.1-
logging: base_log_folder@2.0.2- callsite_parameters@3.2.1- celery_logging_level@2.4.3-
  celery_stdout_stderr_separation@2.7.2- color_log_error_keywords@2.10.3- color_log_warning_keywords@2.10.3-
  colored_console_log@2.0.2- colored_formatter_class@2.0.2-3.0.6 colored_log_format@2.0.2-3.0.6
  dag_processor_child_process_log_directory@3.0.6- dag_processor_log_format@2.4.3- dag_processor_log_target@2.4.3-
  dag_processor_manager_log_location@2.0.2-2.11.2 dag_processor_manager_log_stdout@2.9.2-2.11.2
  delete_local_logs@2.6.3- enable_task_context_logger@2.8.1-2.11.2 encrypt_s3_logs@2.0.2- extra_logger_names@2.2.2-
  extra_loggers@2.0.2-2.0.2 fab_logging_level@2.0.2- file_task_handler_new_file_permissions@2.6.3-
  file_task_handler_new_folder_permissions@2.6.3- google_key_path@2.0.2- interleave_timestamp_parser@2.7.2-
  json_logs@3.2.1- log_filename_template@2.0.2- log_format@2.0.2- log_formatter_class@2.4.3-
  log_processor_filename_template@2.0.2-2.11.2 log_timestamp_format@3.2.1- logging_config_class@2.0.2-
  logging_level@2.0.2- min_length_masked_secret@3.0.6- namespace_levels@3.2.1- remote_base_log_folder@2.0.2-
  remote_log_conn_id@2.0.2- remote_logging@2.0.2- remote_task_handler_kwargs@2.6.3- secret_mask_adapter@2.6.3-
  simple_log_format@2.0.2- task_log_prefix_template@2.0.2- task_log_reader@2.0.2- trigger_log_server_port@2.6.3-
  use_historical_filename_templates@2.11.2-2.11.2 uvicorn_logging_level@3.2.1- worker_log_server_port@2.2.2-
mesos: authenticate@-1.10.12 checkpoint@-1.10.12 default_principal@-1.10.12 default_secret@-1.10.12
  docker_image_slave@-1.10.12 failover_timeout@-1.10.12 framework_name@-1.10.12 master@-1.10.12 task_cpu@-1.10.12
  task_memory@-1.10.12
metrics: legacy_names_on@3.2.1- metrics_allow_list@2.6.3- metrics_block_list@2.6.3-
  metrics_use_pattern_match@2.9.2-2.11.2 otel_debugging_on@2.7.2- otel_host@2.6.3- otel_interval_milliseconds@2.6.3-
  otel_on@2.6.3- otel_port@2.6.3- otel_prefix@2.6.3- otel_service@2.10.3- otel_ssl_active@2.7.2-
  stat_name_handler@2.0.2- statsd_allow_list@2.0.2-2.5.1 statsd_custom_client_path@2.0.2- statsd_datadog_enabled@2.0.2- statsd_datadog_metrics_tags@2.6.3-
  statsd_datadog_tags@2.0.2- statsd_disabled_tags@2.6.3- statsd_host@2.0.2- statsd_influxdb_enabled@2.6.3-
  statsd_ipv6@3.0.6- statsd_on@2.0.2- statsd_port@2.0.2- statsd_prefix@2.0.2- timer_unit_consistency@2.11.0-2.11.2
opensearch: end_of_log_mark@3.2.1- host@3.2.1- host_field@3.2.1- index_patterns@3.2.1- index_patterns_callable@3.2.1-
  json_fields@3.2.1- json_format@3.2.1- log_id_template@3.2.1- offset_field@3.2.1- password@3.2.1- port@3.2.1-
  username@3.2.1- write_stdout@3.2.1-
opensearch_configs: ca_certs@3.2.1- http_compress@3.2.1- ssl_assert_hostname@3.2.1- ssl_show_warn@3.2.1-
  use_ssl@3.2.1- verify_certs@3.2.1-
operators: allow_illegal_arguments@2.0.2-2.11.2 default_cpus default_deferrable@2.7.2- default_disk default_gpus
  default_owner default_queue@2.2.2- default_ram
postgres: azure_oauth_scope@2.11.2-2.11.2 azure_oauth_scope@3.2.1-
profiling: memray_detailed_tracing@3.3.1- memray_trace_components@3.2.1-
scheduler: allow_trigger_in_future@-2.11.2 allowed_run_id_pattern@2.6.3- authenticate@-1.10.12 catchup_by_default
  child_process_log_directory@-2.11.2 clean_tis_without_dagrun_interval@2.0.2-2.0.2 create_cron_data_intervals@2.9.2-
  create_delta_data_intervals@2.11.0- dag_dir_list_interval@-2.11.2 dag_stale_not_seen_duration@2.4.3-3.0.6
  dagrun_metrics_interval@3.2.1- deactivate_stale_dags_interval@2.4.3-2.4.3 dependency_detector@2.2.2-2.2.2
  enable_health_check@2.4.3- enable_tracemalloc@3.0.6- file_parsing_sort_mode@2.2.2-2.11.2
  ignore_first_depends_on_past_by_default@2.4.3- job_heartbeat_sec local_task_job_heartbeat_sec@2.7.2-2.11.2
  max_callbacks_per_loop@2.4.3-2.11.2 max_dagruns_per_loop_to_schedule@2.0.2- max_dagruns_to_create_per_loop@2.0.2-
  max_threads@-1.10.12 max_tis_per_query min_file_process_interval@-2.11.2 num_runs only_idle@3.2.1-
  orphaned_tasks_check_interval@2.0.2- parsing_cleanup_interval@2.5.1- parsing_pre_import_modules@2.6.3-2.11.2
  parsing_processes@2.0.2-2.11.2 partition_mapper_max_downstream_keys@3.3.1- pool_metrics_interval@2.0.2-
  print_stats_interval@-2.11.2 processor_poll_interval@-2.0.2 run_duration@-1.10.12
  running_metrics_interval@3.0.6-3.0.6 schedule_after_task_execution@2.0.2-2.11.2
  scheduler_health_check_server_host@2.8.1- scheduler_health_check_server_port@2.4.3- scheduler_health_check_threshold
  scheduler_heartbeat_sec scheduler_idle_sleep_time@2.2.2- scheduler_zombie_task_threshold@-2.11.2
  stale_dag_threshold@2.6.3-2.11.2 standalone_dag_processor@2.4.3-2.11.2 statsd_allow_list@-1.10.12
  statsd_host@-1.10.12 statsd_on@-1.10.12 statsd_port@-1.10.12 statsd_prefix@-1.10.12
  task_instance_heartbeat_sec@3.0.6- task_instance_heartbeat_timeout@3.0.6-
  task_instance_heartbeat_timeout_detection_interval@3.0.6- task_queued_timeout@2.6.3-
  task_queued_timeout_check_interval@2.6.3- ti_metrics_interval@3.2.1- trigger_timeout_check_interval@2.2.2-
  use_job_schedule use_row_level_locking@2.0.2- zombie_detection_interval@2.4.3-2.11.2
sdk: coordinators@3.3.1- queue_to_coordinator@3.3.1-
secrets: backend backend_kwargs cache_ttl_seconds@2.7.2- use_cache@2.7.2-
sensors: default_timeout@2.4.3-
sentry: before_send@2.2.2- sentry_dsn sentry_on@2.0.2-
smart_sensor: sensors_enabled@2.0.2-2.2.2 shard_code_upper_limit@2.0.2-2.2.2 shards@2.0.2-2.2.2
  use_smart_sensor@2.0.2-2.2.2
smtp: smtp_host smtp_mail_from smtp_password@-2.11.2 smtp_port smtp_retry_limit@2.0.2-
  smtp_ssl smtp_starttls smtp_timeout@2.0.2- smtp_user@-2.11.2
smtp_provider: ssl_context@2.9.2-2.10.3 templated_email_subject_path@2.9.2-2.10.3
  templated_html_content_path@2.9.2-2.10.3
standard: venv_install_method@3.0.6-
state_store: backend@3.3.1- clear_on_success@3.3.1- default_retention_days@3.3.1- max_value_storage_bytes@3.3.1-
  state_cleanup_batch_size@3.3.1-
traces: otel_debug_traces_on@3.2.1- otel_debugging_on@2.10.3- otel_host@2.10.3- otel_on@2.10.3- otel_port@2.10.3-
  otel_service@2.10.3- otel_ssl_active@2.10.3- otel_task_log_event@2.10.3-2.11.2
  task_runner_flush_timeout_milliseconds@3.2.1-
triggerer: blocked_main_thread_warning_threshold@3.3.1- capacity@3.0.6- default_capacity@2.2.2-2.11.2
  job_heartbeat_sec@2.6.3- max_trigger_to_select_per_loop@3.2.1- on_kill_timeout@3.3.1- queues_enabled@3.2.1-
  runner_health_check_threshold@3.3.1- shared_stream_ack_timeout@3.3.1- shared_stream_cohort_grace_period@3.3.1-
  shared_stream_subscriber_queue_size@3.3.1- triggerer_health_check_threshold@2.7.2-
usage_data_collection: enabled@2.10.3-2.10.3
webserver: access_denied_message@2.7.2-2.11.2 access_logfile@-2.11.2 access_logformat@2.0.2-2.11.2
  allow_raw_html_descriptions@2.8.1-2.11.2 allowed_payload_size@2.8.1-2.11.2 analytics_id@-2.11.2 analytics_tool@-2.11.2 analytics_url@2.9.2-2.11.2
  audit_view_excluded_events@2.4.3-3.0.6 audit_view_included_events@2.4.3-3.0.6
  auth_rate_limit@2.6.3-2.9.2 auth_rate_limited@2.6.3-2.9.2 authenticate@-1.10.12 auto_refresh_interval@2.2.2-3.0.6
  base_url@-2.11.2 caching_hash_method@2.6.3-2.11.2 config_file@2.7.2-2.11.2 cookie_samesite@-2.11.2
  cookie_secure@-2.11.2 dag_default_view@-2.11.2 dag_orientation@-2.11.2 default_dag_run_display_number@-2.11.2
  default_ui_timezone@-2.11.2 default_wrap@-3.0.6 demo_mode@-2.0.2 enable_proxy_fix@-2.11.2
  enable_swagger_ui@2.6.3-2.11.2 error_logfile@-2.11.2 expose_config@-2.11.2 expose_hostname@-2.11.2
  expose_stacktrace@-2.11.2 filter_by_owner@-1.10.12 force_log_out_after@-1.10.12 grid_view_sorting_order@2.7.2-3.0.6
  hide_paused_dags_by_default@-3.0.6 instance_name@2.2.2-3.0.6
  instance_name_has_markup@2.4.3-3.0.6 log_animation_speed@-2.11.2 log_auto_tailing_offset@-2.11.2
  log_fetch_delay_sec@-2.11.2 log_fetch_timeout_sec@-3.0.6 max_form_memory_size@2.11.0-2.11.2
  max_form_parts@2.11.0-2.11.2 navbar_color@-2.11.2 navbar_hover_color@2.9.2-2.11.2
  navbar_logo_text_color@2.9.2-2.11.2 navbar_text_color@2.8.1-2.11.2 navbar_text_hover_color@2.9.2-2.11.2
  num_recent_configurations_for_trigger@2.9.2-2.11.2 owner_mode@-1.10.12 page_size@-3.0.6 proxy_fix_x_for@-2.11.2
  proxy_fix_x_host@-2.11.2 proxy_fix_x_port@-2.11.2 proxy_fix_x_prefix@-2.11.2 proxy_fix_x_proto@-2.11.2 rbac@-1.10.12
  reload_on_plugin_change@-2.11.2 require_confirmation_dag_change@2.9.2-3.0.6 run_internal_api@2.7.2-2.11.2
  secret_key@-2.11.2 session_backend@2.4.3-2.11.2 session_lifetime_days@-1.10.12 session_lifetime_minutes@2.0.2-2.11.2
  show_recent_stats_for_completed_runs@2.0.2-2.11.2 show_trigger_form_if_no_params@2.7.2-2.11.2
  update_fab_perms@-2.9.2 warn_deployment_exposure@2.4.3-3.0.6 web_server_host@-2.11.2
  web_server_master_timeout@-2.11.2 web_server_port@-2.11.2 web_server_ssl_cert@-2.11.2 web_server_ssl_key@-2.11.2
  web_server_worker_timeout@-2.11.2 worker_class@-2.11.2 worker_refresh_batch_size@-2.11.2
  worker_refresh_interval@-2.11.2 workers@-2.11.2 x_frame_enabled@-2.11.2
workers: execution_api_retries@3.0.6- execution_api_retry_wait_max@3.0.6- execution_api_retry_wait_min@3.0.6-
  execution_api_timeout@3.2.1- max_failed_heartbeats@3.0.6- min_heartbeat_interval@3.0.6- missing_dag_retries@3.2.1-
  missing_dag_retry_delay@3.2.1- secrets_backend@3.0.6- secrets_backend_kwargs@3.0.6- socket_cleanup_timeout@3.0.6-
  state_store_backend@3.3.1-
"""


# old name, then the new one (in Airflow 2, in Airflow 3)
RENAMED = """\
admin.hide_sensitive_variable_fields core.hide_sensitive_var_conn_fields
admin.sensitive_variable_fields core.sensitive_var_conn_names
api.access_control_allow_origin api.access_control_allow_origins
api.access_logfile api.log_config
api.auth_backend api.auth_backends fab.auth_backends
api.auth_backends fab.auth_backends
api.page_size api.fallback_page_limit
celery.celery_broker_url celery.broker_url
celery.celery_result_backend celery.result_backend
celery.celery_ssl_active celery.ssl_active
celery.celery_ssl_cert celery.ssl_cert
celery.celery_ssl_key celery.ssl_key
celery.celeryd_concurrency celery.worker_concurrency
celery.default_queue operators.default_queue
celery.stalled_task_timeout scheduler.task_queued_timeout
celery.task_adoption_timeout scheduler.task_queued_timeout
celery.worker_log_server_port logging.worker_log_server_port
core.base_log_folder logging.base_log_folder
core.colored_console_log logging.colored_console_log
core.colored_formatter_class logging.colored_formatter_class
core.colored_log_format logging.colored_log_format
core.dag_concurrency core.max_active_tasks_per_dag
core.dag_file_processor_timeout dag_processor.dag_file_processor_timeout
core.dag_processor_manager_log_location logging.dag_processor_manager_log_location
core.dataset_manager_class core.asset_manager_class
core.dataset_manager_kwargs core.asset_manager_kwargs
core.encrypt_s3_logs logging.encrypt_s3_logs
core.fab_logging_level logging.fab_logging_level
core.interleave_timestamp_parser logging.interleave_timestamp_parser
core.load_default_connections database.load_default_connections
core.log_filename_template logging.log_filename_template
core.log_format logging.log_format
core.log_processor_filename_template logging.log_processor_filename_template
core.logging_config_class logging.logging_config_class
core.logging_level logging.logging_level
core.max_db_retries database.max_db_retries
core.max_num_rendered_ti_fields_per_task core.num_dag_runs_to_retain_rendered_fields
core.non_pooled_task_slot_count core.default_pool_task_slot_count
core.remote_base_log_folder logging.remote_base_log_folder
core.remote_log_conn_id logging.remote_log_conn_id
core.remote_logging logging.remote_logging
core.simple_log_format logging.simple_log_format
core.sql_alchemy_conn database.sql_alchemy_conn
core.sql_alchemy_connect_args database.sql_alchemy_connect_args
core.sql_alchemy_max_overflow database.sql_alchemy_max_overflow
core.sql_alchemy_pool_enabled database.sql_alchemy_pool_enabled
core.sql_alchemy_pool_pre_ping database.sql_alchemy_pool_pre_ping
core.sql_alchemy_pool_recycle database.sql_alchemy_pool_recycle
core.sql_alchemy_pool_size database.sql_alchemy_pool_size
core.sql_alchemy_schema database.sql_alchemy_schema
core.sql_engine_collation_for_ids database.sql_engine_collation_for_ids
core.sql_engine_encoding database.sql_engine_encoding
core.task_log_prefix_template logging.task_log_prefix_template
core.task_log_reader logging.task_log_reader
core.use_historical_filename_templates logging.use_historical_filename_templates
core.worker_precheck celery.worker_precheck
elasticsearch.elasticsearch_end_of_log_mark elasticsearch.end_of_log_mark
elasticsearch.elasticsearch_frontend elasticsearch.frontend
elasticsearch.elasticsearch_host elasticsearch.host
elasticsearch.elasticsearch_json_fields elasticsearch.json_fields
elasticsearch.elasticsearch_json_format elasticsearch.json_format
elasticsearch.elasticsearch_log_id_template elasticsearch.log_id_template
elasticsearch.elasticsearch_write_stdout elasticsearch.write_stdout
kubernetes.* kubernetes_executor.*
kubernetes_executor.worker_pods_pending_timeout scheduler.task_queued_timeout
kubernetes_executor.worker_pods_pending_timeout_check_interval scheduler.task_queued_timeout_check_interval
metrics.statsd_allow_list metrics.metrics_allow_list
metrics.statsd_block_list metrics.metrics_block_list
policy.airflow_local_settings policy.task_policy
scheduler.child_process_log_directory logging.dag_processor_child_process_log_directory
scheduler.dag_dir_list_interval dag_processor.refresh_interval
scheduler.deactivate_stale_dags_interval scheduler.parsing_cleanup_interval
scheduler.file_parsing_sort_mode dag_processor.file_parsing_sort_mode
scheduler.local_task_job_heartbeat_sec scheduler.task_instance_heartbeat_sec
scheduler.max_callbacks_per_loop dag_processor.max_callbacks_per_loop
scheduler.max_threads scheduler.parsing_processes dag_processor.parsing_processes
scheduler.min_file_process_interval dag_processor.min_file_process_interval
scheduler.parsing_pre_import_modules dag_processor.parsing_pre_import_modules
scheduler.parsing_processes dag_processor.parsing_processes
scheduler.print_stats_interval dag_processor.print_stats_interval
scheduler.processor_poll_interval scheduler.scheduler_idle_sleep_time
scheduler.running_metrics_interval scheduler.ti_metrics_interval
scheduler.scheduler_zombie_task_threshold scheduler.task_instance_heartbeat_timeout
scheduler.stale_dag_threshold dag_processor.stale_dag_threshold
scheduler.stat_name_handler metrics.stat_name_handler
scheduler.statsd_allow_list metrics.statsd_allow_list
scheduler.statsd_custom_client_path metrics.statsd_custom_client_path
scheduler.statsd_datadog_enabled metrics.statsd_datadog_enabled
scheduler.statsd_datadog_metrics_tags metrics.statsd_datadog_metrics_tags
scheduler.statsd_datadog_tags metrics.statsd_datadog_tags
scheduler.statsd_host metrics.statsd_host
scheduler.statsd_on metrics.statsd_on
scheduler.statsd_port metrics.statsd_port
scheduler.statsd_prefix metrics.statsd_prefix
scheduler.zombie_detection_interval scheduler.task_instance_heartbeat_timeout_detection_interval
triggerer.default_capacity triggerer.capacity
webserver.access_denied_message fab.access_denied_message
webserver.access_logfile api.access_logfile
webserver.auth_rate_limit fab.auth_rate_limit
webserver.auth_rate_limited fab.auth_rate_limited
webserver.auto_refresh_interval api.auto_refresh_interval
webserver.base_url api.base_url
webserver.config_file fab.config_file
webserver.cookie_samesite fab.cookie_samesite
webserver.cookie_secure fab.cookie_secure
webserver.default_wrap api.default_wrap
webserver.enable_proxy_fix fab.enable_proxy_fix
webserver.enable_swagger_ui api.enable_swagger_ui
webserver.expose_config api.expose_config
webserver.expose_hostname fab.expose_hostname
webserver.force_log_out_after fab.session_lifetime_minutes
webserver.grid_view_sorting_order api.grid_view_sorting_order
webserver.hide_paused_dags_by_default api.hide_paused_dags_by_default
webserver.instance_name api.instance_name
webserver.log_fetch_timeout_sec api.log_fetch_timeout_sec
webserver.navbar_color fab.navbar_color
webserver.navbar_hover_color fab.navbar_hover_color
webserver.navbar_text_color fab.navbar_text_color
webserver.navbar_text_hover_color fab.navbar_text_hover_color
webserver.page_size api.page_size
webserver.proxy_fix_x_for fab.proxy_fix_x_for
webserver.proxy_fix_x_host fab.proxy_fix_x_host
webserver.proxy_fix_x_port fab.proxy_fix_x_port
webserver.proxy_fix_x_prefix fab.proxy_fix_x_prefix
webserver.proxy_fix_x_proto fab.proxy_fix_x_proto
webserver.require_confirmation_dag_change api.require_confirmation_dag_change
webserver.secret_key api.secret_key
webserver.session_backend fab.session_backend
webserver.session_lifetime_days fab.session_lifetime_minutes
webserver.session_lifetime_minutes fab.session_lifetime_minutes
webserver.update_fab_perms fab.update_fab_perms
webserver.web_server_host api.host
webserver.web_server_port api.port
webserver.web_server_ssl_cert api.ssl_cert
webserver.web_server_ssl_key api.ssl_key
webserver.web_server_worker_timeout api.worker_timeout
webserver.workers api.workers
workers.execution_api_server_url core.execution_api_server_url
workers.missing_dag_retires workers.missing_dag_retries
"""
