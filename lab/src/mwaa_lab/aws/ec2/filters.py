# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filters of the Describe calls, by what is in the answer; EC2 refuses a filter that it does not know."""

from __future__ import annotations

import fnmatch
from collections.abc import Callable
from xml.etree import ElementTree

from mwaa_lab.aws.ec2.answers import Answer, Handler, Parameters, refused

NAMESPACE = "http://ec2.amazonaws.com/doc/2016-11-15/"
_NS = f"{{{NAMESPACE}}}"

FILTERS: dict[str, tuple[str, dict[str, str]]] = {
    # Each call: the list in its answer, and where a filter finds its value in one of its items.
    "DescribeVpcs": (
        "vpcSet",
        {
            "cidr": "cidrBlock",
            "cidr-block-association.cidr-block": "cidrBlockAssociationSet/item/cidrBlock",
            "dhcp-options-id": "dhcpOptionsId",
            "is-default": "isDefault",
            "owner-id": "ownerId",
            "state": "state",
            "vpc-id": "vpcId",
        },
    ),
    "DescribeSubnets": (
        "subnetSet",
        {
            "availability-zone": "availabilityZone",
            "availability-zone-id": "availabilityZoneId",
            "cidr": "cidrBlock",
            "cidr-block": "cidrBlock",
            "default-for-az": "defaultForAz",
            "map-public-ip-on-launch": "mapPublicIpOnLaunch",
            "owner-id": "ownerId",
            "state": "state",
            "subnet-id": "subnetId",
            "vpc-id": "vpcId",
        },
    ),
    "DescribeSecurityGroups": (
        "securityGroupInfo",
        {
            "description": "groupDescription",
            "group-id": "groupId",
            "group-name": "groupName",
            "ip-permission.cidr": "ipPermissions/item/ipRanges/item/cidrIp",
            "ip-permission.group-id": "ipPermissions/item/groups/item/groupId",
            "ip-permission.protocol": "ipPermissions/item/ipProtocol",
            "owner-id": "ownerId",
            "vpc-id": "vpcId",
        },
    ),
    "DescribeRouteTables": (
        "routeTableSet",
        {
            "association.main": "associationSet/item/main",
            "association.route-table-association-id": "associationSet/item/routeTableAssociationId",
            "association.route-table-id": "associationSet/item/routeTableId",
            "association.subnet-id": "associationSet/item/subnetId",
            "owner-id": "ownerId",
            "route-table-id": "routeTableId",
            "route.destination-cidr-block": "routeSet/item/destinationCidrBlock",
            "route.gateway-id": "routeSet/item/gatewayId",
            "route.nat-gateway-id": "routeSet/item/natGatewayId",
            "route.state": "routeSet/item/state",
            "vpc-id": "vpcId",
        },
    ),
    "DescribeInternetGateways": (
        "internetGatewaySet",
        {
            "attachment.state": "attachmentSet/item/state",
            "attachment.vpc-id": "attachmentSet/item/vpcId",
            "internet-gateway-id": "internetGatewayId",
            "owner-id": "ownerId",
        },
    ),
    "DescribeNatGateways": (
        "natGatewaySet",
        {"nat-gateway-id": "natGatewayId", "state": "state", "subnet-id": "subnetId", "vpc-id": "vpcId"},
    ),
    "DescribeNetworkAcls": (
        "networkAclSet",
        {
            "association.association-id": "associationSet/item/networkAclAssociationId",
            "association.network-acl-id": "associationSet/item/networkAclId",
            "association.subnet-id": "associationSet/item/subnetId",
            "default": "default",
            "network-acl-id": "networkAclId",
            "owner-id": "ownerId",
            "vpc-id": "vpcId",
        },
    ),
    "DescribeVpcEndpoints": (
        "vpcEndpointSet",
        {
            "service-name": "serviceName",
            "vpc-endpoint-id": "vpcEndpointId",
            "vpc-endpoint-state": "state",
            "vpc-endpoint-type": "vpcEndpointType",
            "vpc-id": "vpcId",
        },
    ),
    "DescribeNetworkInterfaces": (
        "networkInterfaceSet",
        {
            "addresses.private-ip-address": "privateIpAddressesSet/item/privateIpAddress",
            "attachment.instance-id": "attachment/instanceId",
            "description": "description",
            "group-id": "groupSet/item/groupId",
            "interface-type": "interfaceType",
            "network-interface-id": "networkInterfaceId",
            "private-ip-address": "privateIpAddress",
            "status": "status",
            "subnet-id": "subnetId",
            "vpc-id": "vpcId",
        },
    ),
    "DescribeAddresses": (
        "addressesSet",
        {
            "allocation-id": "allocationId",
            "association-id": "associationId",
            "domain": "domain",
            "instance-id": "instanceId",
            "network-interface-id": "networkInterfaceId",
            "private-ip-address": "privateIpAddress",
            "public-ip": "publicIp",
        },
    ),
    "DescribeInstances": (
        "reservationSet",
        {
            "availability-zone": "instancesSet/item/placement/availabilityZone",
            "dns-name": "instancesSet/item/dnsName",
            "image-id": "instancesSet/item/imageId",
            "instance-id": "instancesSet/item/instanceId",
            "instance-state-code": "instancesSet/item/instanceState/code",
            "instance-state-name": "instancesSet/item/instanceState/name",
            "instance-type": "instancesSet/item/instanceType",
            "instance.group-id": "instancesSet/item/groupSet/item/groupId",
            "ip-address": "instancesSet/item/ipAddress",
            "network-interface.addresses.private-ip-address": "instancesSet/item/privateIpAddress",
            "private-dns-name": "instancesSet/item/privateDnsName",
            "private-ip-address": "instancesSet/item/privateIpAddress",
            "subnet-id": "instancesSet/item/subnetId",
            "vpc-id": "instancesSet/item/vpcId",
        },
    ),
}
_NAMED = {"DescribeAddresses": ("PublicIp", "publicIp")}
"""What a call is also asked for by name, where ministack does not look."""
_TAGS = {"DescribeInstances": "instancesSet/item/tagSet/item"}


def install(actions: dict[str, Handler]) -> None:
    ElementTree.register_namespace("", NAMESPACE)
    for action, (place, known) in FILTERS.items():
        actions[action] = _filtered(action, actions[action], place, known)


def _filtered(action: str, original: Handler, place: str, known: dict[str, str]) -> Handler:
    from ministack.services import ec2

    tags = _TAGS.get(action, "tagSet/item")

    def wanted(name: str) -> Callable[[ElementTree.Element], list[str]]:
        if name.startswith("tag:"):
            return lambda item: [
                value for key, value in _pairs(item, tags) if key == name.partition(":")[2] and value is not None
            ]
        if name in ("tag-key", "tag-value"):
            return lambda item: [pair[name == "tag-value"] for pair in _pairs(item, tags)]
        return lambda item: [element.text or "" for element in item.findall(_path(known[name]))]

    def handle(parameters: Parameters) -> Answer:
        filters = ec2._parse_filters(parameters)
        for name in filters:
            if name not in known and not name.startswith("tag:") and name not in ("tag-key", "tag-value"):
                return refused("InvalidParameterValue", f"The filter '{name}' is invalid")
        conditions = [(wanted(name), values) for name, values in filters.items()]
        if action in _NAMED and (named := ec2._parse_member_list(parameters, _NAMED[action][0])):
            path = _path(_NAMED[action][1])
            conditions.append((lambda item: [element.text or "" for element in item.findall(path)], named))
        given = {key: value for key, value in parameters.items() if not key.startswith("Filter.")}
        status, headers, body = original(given)
        if status >= 400 or not conditions:
            return status, headers, body
        root = ElementTree.fromstring(body)
        items = root.find(_path(place))
        for item in list(items) if items is not None else []:
            if not all(_matches(read(item), values) for read, values in conditions):
                assert items is not None
                items.remove(item)
        return status, headers, ElementTree.tostring(root, encoding="utf-8", xml_declaration=True)

    return handle


def _path(path: str) -> str:
    return "/".join(f"{_NS}{step}" for step in path.split("/"))


def _pairs(item: ElementTree.Element, path: str) -> list[tuple[str, str]]:
    return [(tag.findtext(f"{_NS}key", ""), tag.findtext(f"{_NS}value", "")) for tag in item.findall(_path(path))]


def _matches(found: list[str], wanted: list[str]) -> bool:
    return any(fnmatch.fnmatchcase(value, pattern) for value in found for pattern in wanted)
