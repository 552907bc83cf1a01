# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""VPC endpoints: which services have one, their names, network interfaces, groups, policies and routes."""

from __future__ import annotations

import json
import time
from typing import Any
from xml.sax.saxutils import escape

from mwaa_lab.aws.ec2.answers import Answer, Handler, Parameters, answered, refused
from mwaa_lab.aws.ec2.gateways import SECONDS, free_address, identifier

ALLOW_ALL = '{"Statement":[{"Action":"*","Effect":"Allow","Principal":"*","Resource":"*"}]}'
_INTERFACE = ("airflow.api", "airflow.env", "airflow.ops", "ecs", "s3", "sts")
_PRIVATE_NAMES = {"airflow.api": "api.airflow", "airflow.env": "env.airflow", "airflow.ops": "ops.airflow"}
_PRIVATE_NAMES.update({"ecr.api": "api.ecr", "ecr.dkr": "*.dkr.ecr"})


def install(actions: dict[str, Handler]) -> None:
    from ministack.services import ec2

    ec2._VPCE_INTERFACE_SERVICES = tuple(dict.fromkeys((*ec2._VPCE_INTERFACE_SERVICES, *_INTERFACE)))
    actions["CreateVpcEndpoint"] = _create
    actions["ModifyVpcEndpoint"] = _modify
    actions["DescribeVpcEndpoints"] = _describe
    actions["DeleteVpcEndpoints"] = _delete(actions["DeleteVpcEndpoints"])
    actions["DescribeVpcEndpointServices"] = _services(actions["DescribeVpcEndpointServices"])


def _short(service: str) -> str:
    """``com.amazonaws.us-east-1.airflow.api``: airflow.api."""
    return service.split(".", 3)[3] if service.count(".") >= 3 else service


def private_name(service: str) -> str:
    """The name that a service has inside of a VPC with private DNS."""
    from ministack.services import ec2

    return f"{_PRIVATE_NAMES.get(_short(service), _short(service))}.{ec2.get_region()}.amazonaws.com"


def _create(parameters: Parameters) -> Answer:
    from ministack.services import ec2

    vpc, service = ec2._p(parameters, "VpcId"), ec2._p(parameters, "ServiceName")
    kind = ec2._p(parameters, "VpcEndpointType") or "Gateway"
    offered = ec2._VPCE_GATEWAY_SERVICES if kind == "Gateway" else ec2._VPCE_INTERFACE_SERVICES
    if service not in (f"com.amazonaws.{ec2.get_region()}.{name}" for name in offered) and not service.startswith(
        "com.amazonaws.vpce."
    ):
        if kind == "Gateway" and _short(service) in ec2._VPCE_INTERFACE_SERVICES:
            return refused("InvalidParameter", f"The service {service} has no Gateway endpoints.")
        return refused("InvalidServiceName", f"The Vpc Endpoint Service '{service}' does not exist")
    subnets = ec2._parse_member_list(parameters, "SubnetId")
    zones = [ec2._subnets[one]["AvailabilityZone"] for one in subnets]
    if any(ec2._subnets[one]["VpcId"] != vpc for one in subnets):
        return refused("InvalidParameter", "All subnets of an endpoint must be in its VPC.")
    if len(set(zones)) < len(zones):
        return refused("DuplicateSubnetsInSameZone", "Found another VPC endpoint subnet in the availability zone")
    private = kind == "Interface" and (ec2._p(parameters, "PrivateDnsEnabled") or "true").lower() == "true"
    if private and (problem := _private_problem(vpc, service)):
        return problem
    name = identifier("vpce")
    groups = ec2._parse_member_list(parameters, "SecurityGroupId")
    record = {
        "VpcEndpointId": name,
        "VpcEndpointType": kind,
        "VpcId": vpc,
        "ServiceName": service,
        "State": "available" if kind == "Gateway" else "pending",
        "_ready": time.monotonic() + SECONDS,
        "RouteTableIds": ec2._parse_member_list(parameters, "RouteTableId"),
        "SubnetIds": [],
        "SecurityGroupIds": groups or ([ec2._vpcs[vpc]["DefaultSecurityGroupId"]] if kind == "Interface" else []),
        "NetworkInterfaceIds": [],
        "PrivateDnsEnabled": private,
        "PolicyDocument": ec2._p(parameters, "PolicyDocument") or ALLOW_ALL,
        "OwnerId": ec2.get_account_id(),
        "CreationTimestamp": ec2._now_ts(),
    }
    ec2._vpc_endpoints[name] = record
    ec2._parse_tag_specs(parameters, "vpc-endpoint", name)
    for subnet in subnets:
        _enter(record, subnet)
    for table in record["RouteTableIds"]:
        _route(record, table)
    return answered("CreateVpcEndpoint", _shown(record, "vpcEndpoint"))


def _private_problem(vpc: str, service: str) -> Answer | None:
    from ministack.services import ec2

    record = ec2._vpcs[vpc]
    if not record.get("EnableDnsSupport", True) or not record.get("EnableDnsHostnames", bool(record["IsDefault"])):
        return refused(
            "InvalidParameter",
            "Enabling private DNS requires both enableDnsSupport and enableDnsHostnames VPC attributes set to true "
            f"for {vpc}",
        )
    for other in ec2._vpc_endpoints.values():
        if other["VpcId"] == vpc and other["ServiceName"] == service and other.get("PrivateDnsEnabled"):
            return refused(
                "InvalidParameter",
                "private-dns-enabled cannot be set because there is already a conflicting DNS domain for "
                f"{private_name(service)} in the VPC {vpc}",
            )
    return None


def _enter(record: dict[str, Any], subnet: str) -> None:
    """An endpoint's network interface in a subnet."""
    from ministack.services import ec2

    name = identifier("eni")
    ec2._network_interfaces[name] = {
        "NetworkInterfaceId": name,
        "SubnetId": subnet,
        "VpcId": record["VpcId"],
        "AvailabilityZone": ec2._subnets[subnet]["AvailabilityZone"],
        "Description": f"VPC Endpoint Interface {record['VpcEndpointId']}",
        "OwnerId": ec2.get_account_id(),
        "Status": "in-use",
        "PrivateIpAddress": free_address(subnet),
        "InterfaceType": "vpc_endpoint",
        "SourceDestCheck": True,
        "MacAddress": "02:00:00:00:00:01",
        "Groups": [
            {"GroupId": group, "GroupName": ec2._security_groups[group]["GroupName"]}
            for group in record["SecurityGroupIds"]
        ],
        "Attachment": None,
    }
    record["SubnetIds"].append(subnet)
    record["NetworkInterfaceIds"].append(name)


def _leave(record: dict[str, Any], subnet: str) -> None:
    from ministack.services import ec2

    for name in list(record.get("NetworkInterfaceIds", [])):
        if (ec2._network_interfaces.get(name) or {}).get("SubnetId") == subnet:
            del ec2._network_interfaces[name]
            record["NetworkInterfaceIds"].remove(name)
    record["SubnetIds"].remove(subnet)


def _route(record: dict[str, Any], table: str) -> None:
    """A gateway endpoint is a route to its service's addresses."""
    from ministack.services import ec2

    if record["VpcEndpointType"] == "Gateway":
        ec2._route_tables[table]["Routes"].append(
            {
                "DestinationPrefixListId": ec2._aws_pl_id_from_name(record["ServiceName"]),
                "GatewayId": record["VpcEndpointId"],
                "State": "active",
                "Origin": "CreateRoute",
            }
        )


def _unroute(record: dict[str, Any], table: str) -> None:
    from ministack.services import ec2

    if held := ec2._route_tables.get(table):
        held["Routes"] = [one for one in held["Routes"] if one.get("GatewayId") != record["VpcEndpointId"]]


def _modify(parameters: Parameters) -> Answer:
    from ministack.services import ec2

    record = ec2._vpc_endpoints.get(ec2._p(parameters, "VpcEndpointId"))
    if record is None:
        name = ec2._p(parameters, "VpcEndpointId")
        return refused("InvalidVpcEndpointId.NotFound", f"The Vpc Endpoint Id '{name}' does not exist")
    private = ec2._p(parameters, "PrivateDnsEnabled").lower()
    wanted = private == "true" and not record.get("PrivateDnsEnabled")
    if wanted and (problem := _private_problem(record["VpcId"], record["ServiceName"])):
        return problem
    if private:
        record["PrivateDnsEnabled"] = private == "true"
    if policy := ec2._p(parameters, "PolicyDocument"):
        record["PolicyDocument"] = policy
    if ec2._p(parameters, "ResetPolicy").lower() == "true":
        record["PolicyDocument"] = ALLOW_ALL
    given = {
        f"{what}{key}": ec2._parse_member_list(parameters, f"{what}{key}Id")
        for what in ("Add", "Remove")
        for key in ("RouteTable", "Subnet", "SecurityGroup")
    }
    groups = [one for one in record["SecurityGroupIds"] if one not in given["RemoveSecurityGroup"]]
    record["SecurityGroupIds"] = groups + [one for one in given["AddSecurityGroup"] if one not in groups]
    for name in record.get("NetworkInterfaceIds", []):
        ec2._network_interfaces[name]["Groups"] = [
            {"GroupId": one, "GroupName": ec2._security_groups[one]["GroupName"]} for one in record["SecurityGroupIds"]
        ]
    for table in given["RemoveRouteTable"]:
        if table in record["RouteTableIds"]:
            record["RouteTableIds"].remove(table)
            _unroute(record, table)
    for table in given["AddRouteTable"]:
        if table not in record["RouteTableIds"]:
            record["RouteTableIds"].append(table)
            _route(record, table)
    for subnet in given["RemoveSubnet"]:
        if subnet in record["SubnetIds"]:
            _leave(record, subnet)
    for subnet in given["AddSubnet"]:
        if subnet not in record["SubnetIds"]:
            _enter(record, subnet)
    return answered("ModifyVpcEndpoint", "<return>true</return>")


def _delete(original: Handler) -> Handler:
    def handle(parameters: Parameters) -> Answer:
        from ministack.services import ec2

        for name in ec2._parse_member_list(parameters, "VpcEndpointId"):
            if record := ec2._vpc_endpoints.get(name):
                for subnet in list(record["SubnetIds"]):
                    _leave(record, subnet)
                for table in record["RouteTableIds"]:
                    _unroute(record, table)
        return original(parameters)

    return handle


def _describe(parameters: Parameters) -> Answer:
    from ministack.services import ec2

    wanted = ec2._parse_member_list(parameters, "VpcEndpointId")
    for name in wanted:
        if name not in ec2._vpc_endpoints:
            return refused("InvalidVpcEndpointId.NotFound", f"The Vpc Endpoint Id '{name}' does not exist")
    for record in ec2._vpc_endpoints.values():
        if record["State"] == "pending" and time.monotonic() >= record.get("_ready", 0.0):
            record["State"] = "available"
    items = "".join(_shown(one) for name, one in ec2._vpc_endpoints.items() if not wanted or name in wanted)
    return answered("DescribeVpcEndpoints", f"<vpcEndpointSet>{items}</vpcEndpointSet>")


def entries(record: dict[str, Any]) -> list[dict[str, str]]:
    """The DNS names of an interface endpoint: its own, one in each zone, and the service's own name inside."""
    from ministack.services import ec2

    if record["VpcEndpointType"] != "Interface":
        return []
    region, service = ec2.get_region(), ".".join(reversed(_short(record["ServiceName"]).split(".")))
    name = f"{record['VpcEndpointId']}-{record['VpcEndpointId'][-8:]}"
    zones = [ec2._subnets[one]["AvailabilityZone"] for one in record["SubnetIds"] if one in ec2._subnets]
    own = [f"{name}.{service}.{region}.vpce.amazonaws.com"]
    own += [f"{name}-{zone}.{service}.{region}.vpce.amazonaws.com" for zone in zones]
    found = [{"DnsName": one, "HostedZoneId": "Z7HUB22UULQXV"} for one in own]
    if record.get("PrivateDnsEnabled"):
        found.append({"DnsName": private_name(record["ServiceName"]), "HostedZoneId": "ZONEIDPENDING"})
    return found


def _shown(record: dict[str, Any], tag: str = "item") -> str:
    from ministack.services import ec2

    def items(values: list[str]) -> str:
        return "".join(f"<item>{value}</item>" for value in values)

    policy = record.get("PolicyDocument") or ALLOW_ALL
    groups = "".join(
        f"<item><groupId>{one}</groupId><groupName>{escape(ec2._security_groups[one]['GroupName'])}</groupName></item>"
        for one in record.get("SecurityGroupIds", [])
        if one in ec2._security_groups
    )
    names = "".join(
        f"<item><dnsName>{one['DnsName']}</dnsName><hostedZoneId>{one['HostedZoneId']}</hostedZoneId></item>"
        for one in entries(record)
    )
    return f"""<{tag}>
        <vpcEndpointId>{record["VpcEndpointId"]}</vpcEndpointId>
        <vpcEndpointType>{record["VpcEndpointType"]}</vpcEndpointType>
        <vpcId>{record["VpcId"]}</vpcId>
        <serviceName>{record["ServiceName"]}</serviceName>
        <state>{record["State"]}</state>
        <policyDocument>{escape(policy if isinstance(policy, str) else json.dumps(policy))}</policyDocument>
        <routeTableIdSet>{items(record.get("RouteTableIds", []))}</routeTableIdSet>
        <subnetIdSet>{items(record.get("SubnetIds", []))}</subnetIdSet>
        <groupSet>{groups}</groupSet>
        <ipAddressType>ipv4</ipAddressType>
        <privateDnsEnabled>{str(bool(record.get("PrivateDnsEnabled"))).lower()}</privateDnsEnabled>
        <requesterManaged>false</requesterManaged>
        <networkInterfaceIdSet>{items(record.get("NetworkInterfaceIds", []))}</networkInterfaceIdSet>
        <dnsEntrySet>{names}</dnsEntrySet>
        <creationTimestamp>{record.get("CreationTimestamp", "")}</creationTimestamp>
        <ownerId>{record["OwnerId"]}</ownerId>
        {ec2._tag_set_xml(record["VpcEndpointId"])}
    </{tag}>"""


def _services(original: Handler) -> Handler:
    def handle(parameters: Parameters) -> Answer:
        from ministack.services import ec2

        offered = {
            f"com.amazonaws.{ec2.get_region()}.{name}"
            for name in (*ec2._VPCE_GATEWAY_SERVICES, *ec2._VPCE_INTERFACE_SERVICES)
        }
        for name in ec2._parse_member_list(parameters, "ServiceName"):
            if name not in offered:
                return refused("InvalidServiceName", f"The Vpc Endpoint Service '{name}' does not exist")
        status, headers, body = original(parameters)
        for short, private in _PRIVATE_NAMES.items():
            wrong = f"<privateDnsName>{short.rpartition('.')[2]}.{ec2.get_region()}.amazonaws.com</privateDnsName>"
            service = f"<serviceName>com.amazonaws.{ec2.get_region()}.{short}</serviceName>".encode()
            at = body.find(service)
            end = body.find(b"<serviceName>", at + 1) if at >= 0 else -1
            if at >= 0:
                part = body[at : end if end >= 0 else len(body)]
                right = f"<privateDnsName>{private}.{ec2.get_region()}.amazonaws.com</privateDnsName>"
                body = body.replace(part, part.replace(wrong.encode(), right.encode()))
        return status, headers, body

    return handle
