# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""``AWS::MWAA::Environment``: create, update, delete, import, drift, through the lab's MWAA control plane."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any

from mwaa_lab.aws import model
from mwaa_lab.aws.cloudformation import importing
from mwaa_lab.aws.cloudformation.drift import Reader
from mwaa_lab.aws.cloudformation.importing import Found, Importable
from mwaa_lab.aws.model import ApiError
from mwaa_lab.aws.mwaa import ControlPlane, Environment
from mwaa_lab.engine import EngineError

TYPE = "AWS::MWAA::Environment"

PROPERTIES = frozenset(
    # The registry schema of 2026-10-20.
    [
        "Name",
        "ExecutionRoleArn",
        "KmsKey",
        "AirflowVersion",
        "SourceBucketArn",
        "DagS3Path",
        "PluginsS3Path",
        "PluginsS3ObjectVersion",
        "RequirementsS3Path",
        "RequirementsS3ObjectVersion",
        "StartupScriptS3Path",
        "StartupScriptS3ObjectVersion",
        "AirflowConfigurationOptions",
        "EnvironmentClass",
        "MaxWorkers",
        "MinWorkers",
        "MaxWebservers",
        "MinWebservers",
        "Schedulers",
        "NetworkConfiguration",
        "LoggingConfiguration",
        "WeeklyMaintenanceWindowStart",
        "Tags",
        "WebserverAccessMode",
        "EndpointManagement",
        "WorkerReplacementStrategy",
    ]
)
_INTEGERS = ("MaxWorkers", "MinWorkers", "MaxWebservers", "MinWebservers", "Schedulers")
_ATTRIBUTES = (
    "Arn",
    "WebserverUrl",
    "CeleryExecutorQueue",
    "DatabaseVpcEndpointService",
    "WebserverVpcEndpointService",
)
_CREATE_ONLY = ("KmsKey", "EndpointManagement")


def install(control: ControlPlane) -> None:
    from ministack.services.cloudformation import provisioners

    provisioners._CUSTOM_NAME_REPLACEMENT[TYPE] = {"name": "Name", "requires_replacement": _requires_replacement}
    provisioners._STACK_TAG_PROPERTY[TYPE] = ("Tags", "map")

    def tag(name: str, record: dict[str, Any], tags: dict[str, str]) -> None:
        _retag(control.get(*_where(), name), {}, tags)

    importing.tagger(TYPE, tag)


def importable(control: ControlPlane) -> dict[str, Importable]:
    def find(name: str) -> Found | None:
        try:
            return name, _attributes(control.get(*_where(), name))
        except ApiError:
            return None

    return {TYPE: Importable(("Name",), find)}


def reader(control: ControlPlane) -> tuple[Reader, frozenset[str]]:
    """For drift detection: an environment's properties, but for the one that can only be written."""

    def read(name: str, expected: dict[str, Any]) -> dict[str, Any] | None:
        try:
            shown = control.get(*_where(), name).spec()
        except ApiError:
            return None
        found = {key: shown[key] for key in PROPERTIES if key in shown}
        logging = expected.get("LoggingConfiguration") or {}
        found["LoggingConfiguration"] = {
            module: {key: value for key, value in setting.items() if key in logging.get(module, ())}
            for module, setting in shown["LoggingConfiguration"].items()
            if module in logging
        }
        network = expected.get("NetworkConfiguration") or {}
        found["NetworkConfiguration"] = {
            key: value for key, value in shown["NetworkConfiguration"].items() if key in network
        }
        options = expected.get("AirflowConfigurationOptions")
        if isinstance(options, str):  # JSON text: only what it says counts, not how
            same = {key: _text(value) for key, value in _document(options).items()}
            now = shown.get("AirflowConfigurationOptions") or {}
            found["AirflowConfigurationOptions"] = options if same == now else json.dumps(now, sort_keys=True)
        return found

    return read, PROPERTIES - {"WorkerReplacementStrategy"}


def handlers(control: ControlPlane) -> dict[str, Callable[..., Any]]:
    def create(logical_id: str, properties: dict[str, Any], stack: str) -> tuple[str, dict[str, Any]]:
        account, region = _where()
        name = properties.get("Name") or f"{stack}-{logical_id}"
        values = _input("CreateEnvironment", name, properties)
        try:
            environment = control.create(values, account, region)
        except ApiError as refused:
            raise ValueError(_handler_message(refused.message, "InvalidRequest")) from None
        try:
            control.wait(environment)
        except EngineError as failed:
            control.delete(environment)
            raise ValueError(_handler_message(failed.message, "NotStabilized")) from None
        return name, _attributes(environment)

    def update(name: str, old: dict[str, Any], new: dict[str, Any], stack: str) -> tuple[str, dict[str, Any]]:
        environment = control.get(*_where(), name)
        changed = {key: value for key, value in new.items() if key in PROPERTIES and value != old.get(key)}
        unknown = set(new) - PROPERTIES
        if unknown:
            raise ValueError(_extraneous(unknown))
        tags = changed.pop("Tags", None)
        changed.pop("Name", None)
        try:
            if changed:
                if "NetworkConfiguration" in changed:
                    groups = new["NetworkConfiguration"].get("SecurityGroupIds")
                    changed["NetworkConfiguration"] = {"SecurityGroupIds": groups}
                values = _input("UpdateEnvironment", name, changed)
                control.update(environment, {key: value for key, value in values.items() if key != "Name"})
                control.wait(environment)
            if tags is not None or old.get("Tags"):
                _retag(environment, _document(old.get("Tags")), _document(new.get("Tags")))
        except ApiError as refused:
            raise ValueError(_handler_message(refused.message, "InvalidRequest")) from None
        except EngineError as failed:
            raise ValueError(_handler_message(failed.message, "NotStabilized")) from None
        return name, _attributes(environment)

    def delete(name: str, properties: dict[str, Any]) -> None:
        try:
            environment = control.get(*_where(), name)
        except ApiError:
            return
        control.delete(environment)
        control.wait(environment)

    return {"create": create, "update": update, "delete": delete}


def _where() -> tuple[str, str]:
    from ministack.core.responses import get_account_id, get_region

    return get_account_id(), get_region()


def _handler_message(message: str, code: str) -> str:
    return f'Resource handler returned message: "{message}" (HandlerErrorCode: {code})'


def _extraneous(names: set[str]) -> str:
    listed = ", ".join(f"#: extraneous key [{name}] is not permitted" for name in sorted(names))
    return f"Properties validation failed for resource with message: [{listed}]"


def _document(value: Any) -> dict[str, Any]:
    """A property that is an object, or the same written as JSON text (Tags and AirflowConfigurationOptions)."""
    if isinstance(value, str):
        value = json.loads(value)
    return dict(value or {})


def _input(operation: str, name: str, properties: dict[str, Any]) -> dict[str, Any]:
    """The properties as the API's input. Raises ValueError, in CloudFormation's words, for what it would refuse."""
    unknown = set(properties) - PROPERTIES
    if unknown:
        raise ValueError(_extraneous(unknown))
    body = {key: copy.deepcopy(value) for key, value in properties.items() if key != "Name" and value is not None}
    for key in _INTEGERS:
        if key in body:
            body[key] = int(body[key])
    if "AirflowConfigurationOptions" in body:
        options = _document(body["AirflowConfigurationOptions"])
        body["AirflowConfigurationOptions"] = {key: _text(value) for key, value in options.items()}
    if "Tags" in body:
        body["Tags"] = {key: str(value) for key, value in _document(body["Tags"]).items()}
        if not body["Tags"]:
            del body["Tags"]
    for setting in (body.get("LoggingConfiguration") or {}).values():
        setting.pop("CloudWatchLogGroupArn", None)
        if isinstance(setting.get("Enabled"), str):
            setting["Enabled"] = setting["Enabled"].lower() == "true"
    if operation == "CreateEnvironment":
        body.pop("WorkerReplacementStrategy", None)
    else:
        for key in _CREATE_ONLY:
            body.pop(key, None)
    service = model.service_model("airflow")
    assert service is not None
    try:
        return model.parse_input(service.operation_model(operation), {"Name": name}, {}, json.dumps(body).encode())
    except ApiError as refused:
        raise ValueError(_handler_message(refused.message, "InvalidRequest")) from None


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _attributes(environment: Environment) -> dict[str, Any]:
    shown = environment.spec()
    found = {name: shown.get(name, "") for name in _ATTRIBUTES}
    for module, setting in shown["LoggingConfiguration"].items():
        found[f"LoggingConfiguration.{module}.CloudWatchLogGroupArn"] = setting["CloudWatchLogGroupArn"]
    return found


def _retag(environment: Environment, old: dict[str, Any], new: dict[str, Any]) -> None:
    with environment.lock:
        tags = environment.shown.setdefault("Tags", {})
        for key in set(old) - set(new):
            tags.pop(key, None)
        tags.update({key: str(value) for key, value in new.items()})


def _requires_replacement(old: dict[str, Any], new: dict[str, Any]) -> bool:
    def fixed(properties: dict[str, Any]) -> tuple[Any, ...]:
        subnets = (properties.get("NetworkConfiguration") or {}).get("SubnetIds")
        return (*(properties.get(key) for key in _CREATE_ONLY), subnets)

    return fixed(old) != fixed(new)
