# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What CloudFormation lacks in ministack: ``AWS::MWAA::Environment``, some network types, and their import."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from mwaa_lab.aws import model
from mwaa_lab.aws.model import ApiError
from mwaa_lab.aws.mwaa import ControlPlane, Environment
from mwaa_lab.engine import AwsAccess, EngineError

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


def install(control: ControlPlane, aws: AwsAccess) -> None:
    """Teach ministack's CloudFormation the types; ``hooks.check()`` has seen that what this takes hold of is there."""
    from ministack.services import ec2
    from ministack.services.cloudformation import changesets, provisioners, stacks

    handlers, lookups = provisioners._RESOURCE_HANDLERS, changesets._IMPORT_LOOKUPS
    handlers[TYPE] = _environment_handlers(control)
    lookups[TYPE] = (("Name",), lambda name: _import_problem(control, name))
    provisioners._CUSTOM_NAME_REPLACEMENT[TYPE] = {"name": "Name", "requires_replacement": _requires_replacement}
    provisioners._STACK_TAG_PROPERTY[TYPE] = ("Tags", "map")

    network = _network_handlers(aws)
    handlers.update(network)
    _importable(handlers, lookups, "AWS::EC2::VPC", "VpcId", ec2._vpcs, ("VpcId", "CidrBlock"))
    _importable(handlers, lookups, "AWS::EC2::Subnet", "SubnetId", ec2._subnets, ("SubnetId", "AvailabilityZone"))
    _importable(handlers, lookups, "AWS::EC2::SecurityGroup", "Id", ec2._security_groups, ("GroupId", "VpcId"))

    # These call back into the lab's AWS or wait for an environment, so they must not sit on ministack's event loop.
    blocking = stacks._runs_on_worker_thread
    stacks._runs_on_worker_thread = lambda kind: kind == TYPE or kind in network or blocking(kind)


# --- AWS::MWAA::Environment ------------------------------------------------------------------------------------------


def _environment_handlers(control: ControlPlane) -> dict[str, Callable[..., Any]]:
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

    def adopt(identifier: dict[str, str]) -> tuple[str, dict[str, Any]]:
        environment = control.get(*_where(), identifier["Name"])
        return environment.name, _attributes(environment)

    return {"create": create, "update": update, "delete": delete, "import": adopt}


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
    body = {key: value for key, value in properties.items() if key != "Name" and value is not None}
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


def _import_problem(control: ControlPlane, name: str) -> str | None:
    from ministack.services.cloudformation import changesets

    try:
        control.get(*_where(), name)
    except ApiError:
        return changesets._IMPORT_NOT_FOUND.format(type=TYPE, value=name)
    return None


# --- network types ---------------------------------------------------------------------------------------------------


def _network_handlers(aws: AwsAccess) -> dict[str, dict[str, Callable[..., Any]]]:
    """Types that ministack has the API for and no handler: made through that API."""

    def ec2() -> Any:
        account, region = _where()
        return aws.client("ec2", account=account, region=region)

    def create_eip(logical_id: str, properties: dict[str, Any], stack: str) -> tuple[str, dict[str, Any]]:
        made = ec2().allocate_address(Domain="vpc")
        return made["PublicIp"], {"AllocationId": made["AllocationId"], "PublicIp": made["PublicIp"]}

    def delete_eip(address: str, properties: dict[str, Any]) -> None:
        client = ec2()
        for found in client.describe_addresses(PublicIps=[address])["Addresses"]:
            client.release_address(AllocationId=found["AllocationId"])

    def create_nat(logical_id: str, properties: dict[str, Any], stack: str) -> tuple[str, dict[str, Any]]:
        wanted = {key: properties[key] for key in ("SubnetId", "AllocationId", "ConnectivityType") if key in properties}
        gateway = ec2().create_nat_gateway(**wanted)["NatGateway"]["NatGatewayId"]
        return gateway, {"NatGatewayId": gateway}

    def delete_nat(gateway: str, properties: dict[str, Any]) -> None:
        ec2().delete_nat_gateway(NatGatewayId=gateway)

    def permission(properties: dict[str, Any], peer: str) -> dict[str, Any]:
        rule: dict[str, Any] = {"IpProtocol": str(properties["IpProtocol"])}
        rule.update({key: int(properties[key]) for key in ("FromPort", "ToPort") if key in properties})
        if peer in properties:
            rule["UserIdGroupPairs"] = [{"GroupId": properties[peer]}]
        if "CidrIp" in properties:
            rule["IpRanges"] = [{"CidrIp": properties["CidrIp"]}]
        return rule

    def rule_handlers(direction: str, peer: str) -> dict[str, Callable[..., Any]]:
        def create(logical_id: str, properties: dict[str, Any], stack: str) -> tuple[str, dict[str, Any]]:
            authorize = getattr(ec2(), f"authorize_security_group_{direction}")
            made = authorize(GroupId=properties["GroupId"], IpPermissions=[permission(properties, peer)])
            rules = made.get("SecurityGroupRules") or [{}]
            identifier = rules[0].get("SecurityGroupRuleId", f"{stack}-{logical_id}")
            return identifier, {"Id": identifier}

        def delete(identifier: str, properties: dict[str, Any]) -> None:
            revoke = getattr(ec2(), f"revoke_security_group_{direction}")
            revoke(GroupId=properties["GroupId"], IpPermissions=[permission(properties, peer)])

        return {"create": create, "delete": delete}

    return {
        "AWS::EC2::EIP": {"create": create_eip, "delete": delete_eip},
        "AWS::EC2::NatGateway": {"create": create_nat, "delete": delete_nat},
        "AWS::EC2::SecurityGroupIngress": rule_handlers("ingress", "SourceSecurityGroupId"),
        "AWS::EC2::SecurityGroupEgress": rule_handlers("egress", "DestinationSecurityGroupId"),
    }


def _importable(
    handlers: dict[str, Any], lookups: dict[str, Any], kind: str, key: str, store: Any, attributes: tuple[str, ...]
) -> None:
    """Let an IMPORT change set adopt resources of a type that ministack can create but not import."""
    from ministack.services.cloudformation import changesets

    def adopt(identifier: dict[str, str]) -> tuple[str, dict[str, Any]]:
        record = store[identifier[key]]
        return identifier[key], {name: record.get(name, "") for name in attributes}

    def problem(value: str) -> str | None:
        return None if value in store else changesets._IMPORT_NOT_FOUND.format(type=kind, value=value)

    handlers[kind]["import"] = adopt
    lookups[kind] = ((key,), problem)
