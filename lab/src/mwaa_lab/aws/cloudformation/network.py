# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""EC2 types that ministack has no handler for, and the import of all that a network is made of.

They are made through EC2's own calls, so that what EC2 refuses (aws/ec2.py) fails a stack too.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any
from xml.etree import ElementTree

from mwaa_lab.aws.cloudformation.importing import Found, Importable
from mwaa_lab.aws.ec2 import strict
from mwaa_lab.aws.ec2.endpoints import entries

Properties = dict[str, Any]
Handlers = dict[str, Callable[..., Any]]


def importable() -> dict[str, Importable]:
    from ministack.services import ec2

    def stored(store: Any, attributes: Callable[[dict[str, Any]], dict[str, Any]]) -> Callable[[str], Found | None]:
        return lambda identifier: (identifier, attributes(store[identifier])) if identifier in store else None

    def vpc(record: dict[str, Any]) -> dict[str, Any]:
        return {
            "VpcId": record["VpcId"],
            "CidrBlock": record["CidrBlock"],
            "DefaultSecurityGroup": record.get("DefaultSecurityGroupId", ""),
            "DefaultNetworkAcl": record.get("DefaultNetworkAclId", ""),
        }

    def route(table: str, cidr: str) -> Found | None:
        routes = (ec2._route_tables.get(table) or {}).get("Routes", [])
        return (f"{table}|{cidr}", {}) if any(_destination(one) == cidr for one in routes) else None

    def address(public: str, allocation: str) -> Found | None:
        record = ec2._addresses.get(allocation)
        if record is None or record["PublicIp"] != public:
            return None
        return public, {"AllocationId": allocation, "PublicIp": public}

    def attachment(kind: str, network: str) -> Found | None:
        gateways = ec2._internet_gateways if kind == "IGW" else ec2._vpn_gateways
        for gateway in gateways.values():
            if any(one.get("VpcId") == network for one in gateway.get("Attachments", [])):
                return f"{kind}|{network}", {}
        return None

    def association(identifier: str) -> Found | None:
        for table in ec2._route_tables.values():
            for one in table["Associations"]:
                if one["RouteTableAssociationId"] == identifier and not one.get("Main"):
                    return identifier, {"Id": identifier}
        return None

    def rule(outwards: bool) -> Callable[[str], Found | None]:
        return lambda identifier: (identifier, {"Id": identifier}) if security_rule(identifier, outwards) else None

    return {
        "AWS::EC2::VPC": Importable(("VpcId",), stored(ec2._vpcs, vpc)),
        "AWS::EC2::Subnet": Importable(
            ("SubnetId",), stored(ec2._subnets, lambda one: _some(one, "SubnetId", "VpcId", "AvailabilityZone"))
        ),
        "AWS::EC2::SecurityGroup": Importable(
            ("Id",), stored(ec2._security_groups, lambda one: {**_some(one, "GroupId", "VpcId"), "Id": one["GroupId"]})
        ),
        "AWS::EC2::RouteTable": Importable(
            ("RouteTableId",), stored(ec2._route_tables, lambda one: _some(one, "RouteTableId"))
        ),
        "AWS::EC2::Route": Importable(("RouteTableId", "CidrBlock"), route),
        "AWS::EC2::NatGateway": Importable(
            ("NatGatewayId",), stored(ec2._nat_gateways, lambda one: _some(one, "NatGatewayId"))
        ),
        "AWS::EC2::EIP": Importable(("PublicIp", "AllocationId"), address),
        "AWS::EC2::InternetGateway": Importable(
            ("InternetGatewayId",), stored(ec2._internet_gateways, lambda one: _some(one, "InternetGatewayId"))
        ),
        "AWS::EC2::VPCGatewayAttachment": Importable(("AttachmentType", "VpcId"), attachment),
        "AWS::EC2::SubnetRouteTableAssociation": Importable(("Id",), association),
        "AWS::EC2::SecurityGroupIngress": Importable(("Id",), rule(outwards=False)),
        "AWS::EC2::SecurityGroupEgress": Importable(("Id",), rule(outwards=True)),
        "AWS::EC2::VPCEndpoint": Importable(("Id",), stored(ec2._vpc_endpoints, _endpoint_attributes)),
    }


def _some(record: dict[str, Any], *keys: str) -> dict[str, Any]:
    return {key: record.get(key, "") for key in keys}


def _destination(route: dict[str, Any]) -> str | None:
    for key in ("DestinationCidrBlock", "DestinationIpv6CidrBlock", "DestinationPrefixListId"):
        if route.get(key):
            return str(route[key])
    return None


def security_rule(identifier: str, outwards: bool) -> tuple[dict[str, Any], dict[str, Any]] | None:
    """A security group and the one rule of it that has this id."""
    from ministack.services import ec2

    for group in ec2._security_groups.values():
        for one in group["IpPermissionsEgress" if outwards else "IpPermissions"]:
            if ec2._sg_rule_id(group["GroupId"], outwards, one) == identifier:
                return group, one
    return None


# --- through EC2's calls ---------------------------------------------------------------------------------------------


def call(action: str, **parameters: Any) -> ElementTree.Element:
    """One call of EC2, with its query parameters. Raises ValueError in CloudFormation's words for what it refuses."""
    from ministack.services import ec2

    given = {key: [str(value)] for key, value in parameters.items() if value is not None}
    status, _headers, body = ec2._ACTION_MAP[action](given)
    root = ElementTree.fromstring(body)
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]
    if status >= 400:
        raise ValueError(_message(root.findtext(".//Code", ""), root.findtext(".//Message", "")))
    return root


def _message(code: str, message: str) -> str:
    kind = "NotFound" if code.endswith("NotFound") else "InvalidRequest"
    return f'Resource handler returned message: "{message} (Service: Ec2, Status Code: 400)" (HandlerErrorCode: {kind})'


def _retag(resource: str, new: Properties, old: Properties | None = None) -> None:
    from ministack.services.cloudformation import provisioners

    provisioners._ec2_apply_tags(resource, new, old)


def install(handlers: dict[str, Handlers]) -> set[str]:
    """Add the handlers. :return: the types that wait for something."""
    handlers["AWS::EC2::EIP"] = _address_handlers()
    handlers["AWS::EC2::NatGateway"] = _nat_handlers()
    handlers["AWS::EC2::SecurityGroupIngress"] = _rule_handlers("Ingress", "SourceSecurityGroupId")
    handlers["AWS::EC2::SecurityGroupEgress"] = _rule_handlers("Egress", "DestinationSecurityGroupId")
    handlers["AWS::EC2::VPCEndpoint"] = _endpoint_handlers()
    for kind, (makes, removes, key) in _THROUGH.items():
        _check(handlers[kind], makes, removes, key)
    return {"AWS::EC2::NatGateway", "AWS::EC2::VPCEndpoint"}


_THROUGH = {
    # ministack makes and removes these without asking EC2, which would refuse some: its calls, and its word for the id.
    "AWS::EC2::VPC": ("CreateVpc", "DeleteVpc", "VpcId"),
    "AWS::EC2::Subnet": ("CreateSubnet", "DeleteSubnet", "SubnetId"),
    "AWS::EC2::SecurityGroup": ("CreateSecurityGroup", "DeleteSecurityGroup", "GroupId"),
    "AWS::EC2::RouteTable": ("CreateRouteTable", "DeleteRouteTable", "RouteTableId"),
    "AWS::EC2::Route": ("CreateRoute", None, ""),
    "AWS::EC2::SubnetRouteTableAssociation": ("AssociateRouteTable", None, ""),
    "AWS::EC2::InternetGateway": ("CreateInternetGateway", "DeleteInternetGateway", "InternetGatewayId"),
    "AWS::EC2::VPCGatewayAttachment": ("AttachInternetGateway", None, ""),
}


def _check(handler: Handlers, makes: str, removes: str | None, key: str) -> None:
    make, remove = handler["create"], handler["delete"]

    def create(logical_id: str, properties: Properties, stack: str) -> Found:
        plain = {name: value for name, value in properties.items() if isinstance(value, str)}
        if found := strict.problem(makes, plain):
            raise ValueError(_message(*found))
        made: Found = make(logical_id, properties, stack)
        return made

    def delete(physical_id: str, properties: Properties) -> None:
        if removes and (found := strict.problem(removes, {key: physical_id})):
            raise ValueError(_message(*found))
        remove(physical_id, properties)

    handler.update(create=create, delete=delete)


def _address_handlers() -> Handlers:
    def found(public: str) -> dict[str, Any] | None:
        from ministack.services import ec2

        return next((one for one in ec2._addresses.values() if one["PublicIp"] == public), None)

    def create(logical_id: str, properties: Properties, stack: str) -> Found:
        made = call("AllocateAddress", Domain="vpc")
        public, allocation = made.findtext("publicIp", ""), made.findtext("allocationId", "")
        _retag(allocation, properties)
        return public, {"AllocationId": allocation, "PublicIp": public}

    def update(public: str, old: Properties, new: Properties, stack: str) -> Found:
        record = found(public)
        if record is None:
            raise ValueError(f"Address '{public}' not found.")
        _retag(record["AllocationId"], new, old)
        return public, {"AllocationId": record["AllocationId"], "PublicIp": public}

    def delete(public: str, properties: Properties) -> None:
        if record := found(public):
            call("ReleaseAddress", AllocationId=record["AllocationId"])

    return {"create": create, "update": update, "delete": delete}


def _nat_handlers() -> Handlers:
    def create(logical_id: str, properties: Properties, stack: str) -> Found:
        from ministack.services import ec2

        wanted = {key: properties.get(key) for key in ("SubnetId", "AllocationId", "ConnectivityType")}
        gateway = call("CreateNatGateway", **wanted).findtext("natGateway/natGatewayId", "")
        _retag(gateway, properties)
        while ec2._nat_gateways[gateway]["State"] == "pending":
            time.sleep(0.05)
            call("DescribeNatGateways")  # it is by being asked for that time passes for a gateway
        return gateway, {"NatGatewayId": gateway}

    def update(gateway: str, old: Properties, new: Properties, stack: str) -> Found:
        _retag(gateway, new, old)
        return gateway, {"NatGatewayId": gateway}

    def delete(gateway: str, properties: Properties) -> None:
        from ministack.services import ec2

        if gateway in ec2._nat_gateways:
            call("DeleteNatGateway", NatGatewayId=gateway)

    return {"create": create, "update": update, "delete": delete}


def _rule_handlers(direction: str, peer: str) -> Handlers:
    def create(logical_id: str, properties: Properties, stack: str) -> Found:
        given: dict[str, Any] = {
            "GroupId": properties["GroupId"],
            "IpPermissions.1.IpProtocol": properties["IpProtocol"],
            "IpPermissions.1.FromPort": properties.get("FromPort"),
            "IpPermissions.1.ToPort": properties.get("ToPort"),
        }
        for key, place, member in (
            (peer, "Groups", "GroupId"),
            ("CidrIp", "IpRanges", "CidrIp"),
            ("CidrIpv6", "Ipv6Ranges", "CidrIpv6"),
        ):
            if key in properties:
                given[f"IpPermissions.1.{place}.1.{member}"] = properties[key]
                given[f"IpPermissions.1.{place}.1.Description"] = properties.get("Description")
        made = call(f"AuthorizeSecurityGroup{direction}", **given)
        identifier = made.findtext("securityGroupRuleSet/item/securityGroupRuleId", "")
        return identifier, {"Id": identifier}

    def delete(identifier: str, properties: Properties) -> None:
        held = security_rule(identifier, direction == "Egress")
        if held:
            call(
                f"RevokeSecurityGroup{direction}",
                **{"GroupId": held[0]["GroupId"], "SecurityGroupRuleId.1": identifier},
            )

    return {"create": create, "delete": delete}


def _endpoint_handlers() -> Handlers:
    lists = {"RouteTableIds": "RouteTableId", "SubnetIds": "SubnetId", "SecurityGroupIds": "SecurityGroupId"}

    def settled(name: str) -> Found:
        from ministack.services import ec2

        while ec2._vpc_endpoints[name]["State"] == "pending":
            time.sleep(0.05)
            call("DescribeVpcEndpoints")
        return name, _endpoint_attributes(ec2._vpc_endpoints[name])

    def create(logical_id: str, properties: Properties, stack: str) -> Found:
        given = {key: properties.get(key) for key in ("VpcId", "ServiceName", "VpcEndpointType")}
        given["PrivateDnsEnabled"] = str(properties.get("PrivateDnsEnabled", False)).lower()
        given["PolicyDocument"] = _policy(properties)
        for key, member in lists.items():
            given |= _numbered(member, properties.get(key) or [])
        name = call("CreateVpcEndpoint", **given).findtext("vpcEndpoint/vpcEndpointId", "")
        _retag(name, properties)
        return settled(name)

    def update(name: str, old: Properties, new: Properties, stack: str) -> Found:
        given: dict[str, Any] = {"VpcEndpointId": name, "PolicyDocument": _policy(new)}
        if "PolicyDocument" in old and "PolicyDocument" not in new:
            given["ResetPolicy"] = "true"
        if "PrivateDnsEnabled" in new or "PrivateDnsEnabled" in old:
            given["PrivateDnsEnabled"] = str(new.get("PrivateDnsEnabled", False)).lower()
        for key, member in lists.items():
            before, after = old.get(key) or [], new.get(key) or []
            given |= _numbered(f"Add{member}", [one for one in after if one not in before])
            given |= _numbered(f"Remove{member}", [one for one in before if one not in after])
        call("ModifyVpcEndpoint", **given)
        _retag(name, new, old)
        return settled(name)

    def delete(name: str, properties: Properties) -> None:
        call("DeleteVpcEndpoints", **{"VpcEndpointId.1": name})

    return {"create": create, "update": update, "delete": delete}


def _numbered(member: str, values: list[str]) -> dict[str, str]:
    return {f"{member}.{number}": value for number, value in enumerate(values, 1)}


def _policy(properties: Properties) -> str | None:
    document = properties.get("PolicyDocument")
    return document if document is None or isinstance(document, str) else json.dumps(document)


def _endpoint_attributes(record: dict[str, Any]) -> dict[str, Any]:
    return {
        "Id": record["VpcEndpointId"],
        "CreationTimestamp": record.get("CreationTimestamp", ""),
        "NetworkInterfaceIds": record.get("NetworkInterfaceIds", []),
        "DnsEntries": [f"{entry['HostedZoneId']}:{entry['DnsName']}" for entry in entries(record)],
    }
