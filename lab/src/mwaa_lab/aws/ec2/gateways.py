# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""NAT gateways that take their time and hold an address, routes into nothing, and which network ACL a subnet has."""

from __future__ import annotations

import ipaddress
import random
import time
from typing import Any

from mwaa_lab.aws.ec2.answers import Answer, Handler, Parameters, answered, refused

SECONDS = 0.3
"""How long a NAT gateway or an endpoint is pending."""


def install(actions: dict[str, Handler]) -> None:
    actions["CreateNatGateway"] = _create(actions["CreateNatGateway"])
    actions["DescribeNatGateways"] = _describe
    actions["DeleteNatGateway"] = _delete(actions["DeleteNatGateway"])
    actions["DescribeRouteTables"] = _routes(actions["DescribeRouteTables"])
    actions["DescribeNetworkAcls"] = _acls(actions["DescribeNetworkAcls"])
    actions["ReplaceNetworkAclAssociation"] = _replace_acl(actions["ReplaceNetworkAclAssociation"])


def identifier(prefix: str) -> str:
    return f"{prefix}-0{random.getrandbits(64):016x}"


def free_address(subnet: str) -> str:
    """An address of a subnet that nobody has; the first four and the last are AWS's."""
    from ministack.services import ec2

    taken = {one["PrivateIpAddress"] for one in (*ec2._network_interfaces.values(), *ec2._instances.values())}
    taken |= {one.get("PrivateIp") for one in ec2._nat_gateways.values()}
    hosts = list(ipaddress.ip_network(ec2._subnets[subnet]["CidrBlock"]))[4:-1]
    return next(str(host) for host in hosts if str(host) not in taken)


# --- NAT gateways ----------------------------------------------------------------------------------------------------


def _create(original: Handler) -> Handler:
    def handle(parameters: Parameters) -> Answer:
        from ministack.services import ec2

        known = set(ec2._nat_gateways)
        answer = original(parameters)
        for name in set(ec2._nat_gateways) - known:
            record = ec2._nat_gateways[name]
            ready = time.monotonic() + SECONDS
            record.update(State="pending", PrivateIp=free_address(record["SubnetId"]), _ready=ready)
            if address := ec2._addresses.get(record["AllocationId"]):
                address["AssociationId"] = identifier("eipassoc")
            answer = answered("CreateNatGateway", _shown(record, "natGateway"))
        return answer

    return handle


def _settle() -> None:
    from ministack.services import ec2

    for record in ec2._nat_gateways.values():
        if record["State"] == "pending" and time.monotonic() >= record.get("_ready", 0.0):
            record["State"] = "available"


def _shown(record: dict[str, Any], tag: str = "item") -> str:
    from ministack.services import ec2

    address = ec2._addresses.get(record.get("AllocationId") or "") or {}
    public = f"<allocationId>{record['AllocationId']}</allocationId>" if record.get("AllocationId") else ""
    if address:
        public += f"<publicIp>{address['PublicIp']}</publicIp><associationId>{address['AssociationId']}</associationId>"
    return f"""<{tag}>
        <natGatewayId>{record["NatGatewayId"]}</natGatewayId>
        <subnetId>{record["SubnetId"]}</subnetId>
        <vpcId>{record["VpcId"]}</vpcId>
        <state>{record["State"]}</state>
        <connectivityType>{record["ConnectivityType"]}</connectivityType>
        <createTime>{record["CreateTime"]}</createTime>
        <natGatewayAddressSet><item>
            {public}<privateIp>{record.get("PrivateIp", "")}</privateIp><isPrimary>true</isPrimary>
            <status>succeeded</status>
        </item></natGatewayAddressSet>
        {ec2._tag_set_xml(record["NatGatewayId"])}
    </{tag}>"""


def _describe(parameters: Parameters) -> Answer:
    from ministack.services import ec2

    _settle()
    wanted = ec2._parse_member_list(parameters, "NatGatewayId")
    for name in wanted:
        if name not in ec2._nat_gateways:
            return refused("NatGatewayNotFound", f"NatGateway {name} was not found")
    items = "".join(_shown(one) for name, one in ec2._nat_gateways.items() if not wanted or name in wanted)
    return answered("DescribeNatGateways", f"<natGatewaySet>{items}</natGatewaySet>")


def _delete(original: Handler) -> Handler:
    def handle(parameters: Parameters) -> Answer:
        from ministack.services import ec2

        answer = original(parameters)
        record = ec2._nat_gateways.get(ec2._p(parameters, "NatGatewayId")) or {}
        if address := ec2._addresses.get(record.get("AllocationId") or ""):
            address["AssociationId"] = None
        return answer

    return handle


# --- routes ----------------------------------------------------------------------------------------------------------


def _routes(original: Handler) -> Handler:
    """A route whose gateway is gone is a black hole."""

    def handle(parameters: Parameters) -> Answer:
        from ministack.services import ec2

        for name in ec2._parse_member_list(parameters, "RouteTableId"):
            if name not in ec2._route_tables:
                return refused("InvalidRouteTableID.NotFound", f"The routeTable ID '{name}' does not exist")
        for table in ec2._route_tables.values():
            for route in table["Routes"]:
                route["State"] = "active" if _leads_somewhere(route, table["VpcId"]) else "blackhole"
        return original(parameters)

    return handle


def _leads_somewhere(route: dict[str, Any], vpc: str) -> bool:
    from ministack.services import ec2

    if nat := route.get("NatGatewayId"):
        return (ec2._nat_gateways.get(nat) or {}).get("State") in ("pending", "available")
    gateway = route.get("GatewayId") or ""
    if gateway.startswith("igw-"):
        attached = (ec2._internet_gateways.get(gateway) or {}).get("Attachments", [])
        return any(one["VpcId"] == vpc for one in attached)
    return True


# --- network ACLs ----------------------------------------------------------------------------------------------------


def _associate() -> None:
    """Each subnet has one: that of its VPC, where it was given none."""
    from ministack.services import ec2

    for acl in ec2._network_acls.values():
        acl["Associations"] = [one for one in acl["Associations"] if one["SubnetId"] in ec2._subnets]
    held = {one["SubnetId"] for acl in ec2._network_acls.values() for one in acl["Associations"]}
    for name, subnet in ec2._subnets.items():
        acl = ec2._network_acls.get((ec2._vpcs.get(subnet["VpcId"]) or {}).get("DefaultNetworkAclId", ""))
        if acl and name not in held:
            acl["Associations"].append({"NetworkAclAssociationId": identifier("aclassoc"), "SubnetId": name})


def _acls(original: Handler) -> Handler:
    def handle(parameters: Parameters) -> Answer:
        _associate()
        return original(parameters)

    return handle


def _replace_acl(original: Handler) -> Handler:
    def handle(parameters: Parameters) -> Answer:
        from ministack.services import ec2

        _associate()
        old = ec2._p(parameters, "AssociationId")
        subnet = next(
            (
                one["SubnetId"]
                for acl in ec2._network_acls.values()
                for one in acl["Associations"]
                if one["NetworkAclAssociationId"] == old
            ),
            None,
        )
        if subnet is None:
            return refused("InvalidAssociationID.NotFound", f"The association ID '{old}' does not exist")
        answer = original(parameters)
        for acl in ec2._network_acls.values():
            for one in acl["Associations"]:
                one["SubnetId"] = one["SubnetId"] or subnet
        return answer

    return handle
