# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What EC2 refuses: ids of nothing, networks that overlap, and the end of what is still in use.

``problem`` is also asked by CloudFormation's handlers, which do not come by EC2's own door.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterator

from mwaa_lab.aws.ec2.answers import Answer, Handler, Parameters, refused

Problem = tuple[str, str]
"""An error's code and its message."""

_MAKES = re.compile("Create|Associate|Attach|Run|Modify|Replace|Authorize|Revoke")
_IDS = {
    # A parameter's name, with or without an index: where what it names is kept, and what EC2 says where it is not.
    "VpcId": ("_vpcs", "InvalidVpcID.NotFound", "The vpc ID '{}' does not exist"),
    "SubnetId": ("_subnets", "InvalidSubnetID.NotFound", "The subnet ID '{}' does not exist"),
    "AddSubnetId": ("_subnets", "InvalidSubnetID.NotFound", "The subnet ID '{}' does not exist"),
    "GroupId": ("_security_groups", "InvalidGroup.NotFound", "The security group '{}' does not exist"),
    "SecurityGroupId": ("_security_groups", "InvalidGroup.NotFound", "The security group '{}' does not exist"),
    "AddSecurityGroupId": ("_security_groups", "InvalidGroup.NotFound", "The security group '{}' does not exist"),
    "RouteTableId": ("_route_tables", "InvalidRouteTableID.NotFound", "The routeTable ID '{}' does not exist"),
    "AddRouteTableId": ("_route_tables", "InvalidRouteTableID.NotFound", "The routeTable ID '{}' does not exist"),
    "AllocationId": ("_addresses", "InvalidAllocationID.NotFound", "The allocation ID '{}' does not exist"),
    "NatGatewayId": ("_nat_gateways", "InvalidNatGatewayID.NotFound", "The natGateway ID '{}' does not exist"),
    "GatewayId": ("_internet_gateways", "InvalidGatewayID.NotFound", "The gateway ID '{}' does not exist"),
    "InternetGatewayId": (
        "_internet_gateways",
        "InvalidInternetGatewayID.NotFound",
        "The internetGateway ID '{}' does not exist",
    ),
    "NetworkAclId": ("_network_acls", "InvalidNetworkAclID.NotFound", "The networkAcl ID '{}' does not exist"),
}


def install(actions: dict[str, Handler]) -> None:
    for action in list(actions):
        if _MAKES.match(action) or action in _RULES:
            actions[action] = _checked(action, actions[action])


def _checked(action: str, original: Handler) -> Handler:
    def handle(parameters: Parameters) -> Answer:

        if found := problem(action, parameters):
            return refused(*found)
        return original(parameters)

    return handle


def problem(action: str, parameters: Parameters) -> Problem | None:
    """Why EC2 would not do this; None where it would. Parameters as in a query: each value in a list."""
    flat = {key: value[0] if isinstance(value, list) else value for key, value in parameters.items()}
    if _MAKES.match(action) and (found := _of_nothing(flat)):
        return found
    rule = _RULES.get(action)
    return rule(flat) if rule else None


def _of_nothing(parameters: dict[str, str]) -> Problem | None:
    from ministack.services import ec2

    for key, value in parameters.items():
        name = re.sub(r"\.\d+$", "", key).rpartition(".")[2]
        if name not in _IDS or not value:
            continue
        store, code, message = _IDS[name]
        if name == "GatewayId" and not value.startswith("igw-"):
            continue  # a virtual private gateway, an endpoint, "local"
        if value not in getattr(ec2, store):
            return code, message.format(value)
    return None


# --- what is made ----------------------------------------------------------------------------------------------------


def _subnet(parameters: dict[str, str]) -> Problem | None:
    from ministack.services import ec2

    cidr, vpc = parameters.get("CidrBlock", ""), parameters.get("VpcId", "")
    try:
        network = ipaddress.ip_network(cidr)
    except ValueError:
        return "InvalidParameterValue", f"Value ({cidr}) for parameter cidrBlock is invalid."
    if not network.subnet_of(ipaddress.ip_network(ec2._vpcs[vpc]["CidrBlock"])):  # type: ignore[arg-type]
        return "InvalidSubnet.Range", f"The CIDR '{cidr}' is invalid."
    for other in ec2._subnets.values():
        if other["VpcId"] == vpc and network.overlaps(ipaddress.ip_network(other["CidrBlock"])):
            return "InvalidSubnet.Conflict", f"The CIDR '{cidr}' conflicts with another subnet"
    zone, region = parameters.get("AvailabilityZone"), ec2.get_region()
    if zone and zone not in (offered := [f"{region}{letter}" for letter in "abcdef"]):
        return (
            "InvalidParameterValue",
            f"Value ({zone}) for parameter availabilityZone is invalid. Subnets can currently only be created in the "
            f"following availability zones: {', '.join(offered)}.",
        )
    return None


def _association(parameters: dict[str, str]) -> Problem | None:
    from ministack.services import ec2

    table, subnet = parameters.get("RouteTableId", ""), parameters.get("SubnetId", "")
    if subnet and ec2._route_tables[table]["VpcId"] != ec2._subnets[subnet]["VpcId"]:
        return "InvalidParameterValue", f"Route table {table} and subnet {subnet} belong to different networks"
    for other in ec2._route_tables.values():
        if subnet and any(one.get("SubnetId") == subnet for one in other["Associations"]):
            return (
                "Resource.AlreadyAssociated",
                f"the specified association for route table {table} conflicts with an existing association",
            )
    return None


def _route(parameters: dict[str, str]) -> Problem | None:
    from ministack.services import ec2

    table, cidr = parameters.get("RouteTableId", ""), parameters.get("DestinationCidrBlock")
    if cidr and any(route.get("DestinationCidrBlock") == cidr for route in ec2._route_tables[table]["Routes"]):
        return "RouteAlreadyExists", f"The route identified by {cidr} already exists."
    gateway, vpc = parameters.get("GatewayId", ""), ec2._route_tables[table]["VpcId"]
    if gateway.startswith("igw-"):
        attached = [one["VpcId"] for one in ec2._internet_gateways[gateway].get("Attachments", [])]
        if vpc not in attached:
            return (
                "InvalidParameterValue",
                f"route table {table} and network gateway {gateway} belong to different networks",
            )
    return None


def _attachment(parameters: dict[str, str]) -> Problem | None:
    from ministack.services import ec2

    vpc, gateway = parameters.get("VpcId", ""), parameters.get("InternetGatewayId", "")
    for name, other in ec2._internet_gateways.items():
        if name != gateway and any(one["VpcId"] == vpc for one in other.get("Attachments", [])):
            return "InvalidParameterValue", f"Network {vpc} already has an internet gateway attached"
    return None


def _gateway(parameters: dict[str, str]) -> Problem | None:
    from ministack.services import ec2

    if not parameters.get("SubnetId"):
        return "MissingParameter", "The request must contain the parameter SubnetId"
    if (parameters.get("ConnectivityType") or "public") == "private":
        return None
    allocation = parameters.get("AllocationId")
    if not allocation:
        return "MissingParameter", "The request must contain the parameter AllocationId"
    if ec2._addresses[allocation]["AssociationId"]:
        return "Resource.AlreadyAssociated", f"Elastic IP address [{allocation}] is already associated"
    return None


# --- what is removed -------------------------------------------------------------------------------------------------


def _users(key: str, value: str) -> Iterator[str]:
    """What stands in a subnet, or wears a security group: instances, NAT gateways, network interfaces, endpoints."""
    from ministack.services import ec2

    for instance in ec2._instances.values():
        if instance["State"]["Name"] != "terminated" and value in (
            [instance["SubnetId"]] if key == "SubnetId" else [one["GroupId"] for one in instance["SecurityGroups"]]
        ):
            yield instance["InstanceId"]
    for interface in ec2._network_interfaces.values():
        if value in ([interface["SubnetId"]] if key == "SubnetId" else [one["GroupId"] for one in interface["Groups"]]):
            yield interface["NetworkInterfaceId"]
    if key == "SubnetId":
        for gateway in ec2._nat_gateways.values():
            if gateway["SubnetId"] == value and gateway["State"] in ("pending", "available"):
                yield gateway["NatGatewayId"]


def _in_use(key: str, kind: str) -> Callable[[dict[str, str]], Problem | None]:
    def rule(parameters: dict[str, str]) -> Problem | None:
        value = parameters.get(key, "")
        used = list(_users(key, value))
        return (
            ("DependencyViolation", f"The {kind} '{value}' has dependencies and cannot be deleted.") if used else None
        )

    return rule


def _group(parameters: dict[str, str]) -> Problem | None:
    from ministack.services import ec2

    group = parameters.get("GroupId", "")
    named = [
        other["GroupId"]
        for other in ec2._security_groups.values()
        if other["GroupId"] != group
        for permission in (*other["IpPermissions"], *other["IpPermissionsEgress"])
        if any(peer.get("GroupId") == group for peer in permission.get("UserIdGroupPairs") or [])
    ]
    if named or list(_users("GroupId", group)):
        return "DependencyViolation", f"resource {group} has a dependent object"
    return None


def _vpc(parameters: dict[str, str]) -> Problem | None:
    from ministack.services import ec2

    vpc = parameters.get("VpcId", "")
    gateways = [one for one in ec2._nat_gateways.values() if one["State"] in ("pending", "available")]
    if any(one["VpcId"] == vpc for one in (*ec2._vpc_endpoints.values(), *gateways)):
        return "DependencyViolation", f"The vpc '{vpc}' has dependencies and cannot be deleted."
    return None


def _internet_gateway(parameters: dict[str, str]) -> Problem | None:
    from ministack.services import ec2

    gateway = parameters.get("InternetGatewayId", "")
    if (ec2._internet_gateways.get(gateway) or {}).get("Attachments"):
        return "DependencyViolation", f"The internetGateway '{gateway}' has dependencies and cannot be deleted."
    return None


def _table(parameters: dict[str, str]) -> Problem | None:
    from ministack.services import ec2

    table = parameters.get("RouteTableId", "")
    if (ec2._route_tables.get(table) or {}).get("Associations"):
        return "DependencyViolation", f"The routeTable '{table}' has dependencies and cannot be deleted."
    return None


def _address(parameters: dict[str, str]) -> Problem | None:
    from ministack.services import ec2

    record = ec2._addresses.get(parameters.get("AllocationId", ""))
    if record and record["AssociationId"]:
        return "InvalidIPAddress.InUse", f"Address {record['PublicIp']} is in use."
    return None


_RULES: dict[str, Callable[[dict[str, str]], Problem | None]] = {
    "CreateSubnet": _subnet,
    "AssociateRouteTable": _association,
    "CreateRoute": _route,
    "AttachInternetGateway": _attachment,
    "CreateNatGateway": _gateway,
    "DeleteSubnet": _in_use("SubnetId", "subnet"),
    "DeleteSecurityGroup": _group,
    "DeleteVpc": _vpc,
    "DeleteInternetGateway": _internet_gateway,
    "DeleteRouteTable": _table,
    "ReleaseAddress": _address,
}
