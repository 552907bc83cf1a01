# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Rules about subnets, routes, endpoints, security groups and network ACLs. Pure.

PRIVATE to the collection: no promise is made to other collections.

Sources: MWAA user guide, networking-about, vpc-create, vpc-security, vpc-vpe-create-access, configuring-networking,
vpc-endpoint-management. Nothing is sent through the network: routes, groups and ACLs are read and thought through, for
the ports that MWAA uses (443, and 5432 to its database).
"""

from __future__ import annotations

import ipaddress
import math
from collections.abc import Iterable, Iterator
from typing import Any

from ansible_collections.mwaa.migration.plugins.module_utils import _versions
from ansible_collections.mwaa.migration.plugins.module_utils._preflight import policy
from ansible_collections.mwaa.migration.plugins.module_utils._preflight.frame import Found, Snapshot, rule

AREA = "network"
ANYWHERE = ("0.0.0.0/0", "::/0")
HTTPS, DATABASE = 443, 5432
# where answers arrive: Linux's ephemeral ports, as MWAA's containers have them. AWS's own ACL for private subnets
# lets in 32768-65535 (VPC user guide, "Custom network ACLs")
EPHEMERAL = (32768, 60999)
# what private routing needs [UG vpc-vpe-create-access]: service -> type
ENDPOINTS = {
    "s3": "Gateway",
    "monitoring": "Interface",
    "logs": "Interface",
    "sqs": "Interface",
    "kms": "Interface",
    "airflow.api": "Interface",
    "airflow.env": "Interface",
    "airflow.ops": "Interface",
}
# an action that an endpoint's policy has to let through for MWAA's use of it
USES = {
    "monitoring": "cloudwatch:PutMetricData",
    "logs": "logs:PutLogEvents",
    "sqs": "sqs:SendMessage",
    "kms": "kms:Decrypt",
    "airflow.api": "airflow:GetEnvironment",
    "airflow.env": "airflow:CreateWebLoginToken",
    "airflow.ops": "airflow:PublishMetrics",
}


# --- subnets ----------------------------------------------------------------------------------------------------------


@rule("subnet-exists", AREA, why="MWAA refuses subnets that it does not find", source="UG networking-about")
def subnet_exists(s: Snapshot, found_subnets: Any) -> Iterator[Found]:
    """The subnets exist in this account and region."""
    there = {subnet["SubnetId"] for subnet in found_subnets}
    yield from _gone(s, [one for one in s["subnet_ids"] if one not in there], "private subnets of this region")


@rule("subnet-zones", AREA, why="MWAA spreads over two zones and refuses a single one", source="UG networking-about")
def subnet_zones(s: Snapshot, subnets: Any) -> Iterator[Found]:
    """The two subnets are in two zones."""
    zones = {subnet["AvailabilityZone"] for subnet in subnets}
    if len(subnets) > 1 and len(zones) == 1:
        yield Found(_ids(subnets), f"both are in {zones.pop()}", "give two private subnets of two zones of one VPC")


@rule("subnet-vpc", AREA, why="an environment lives in one VPC", source="UG networking-about")
def subnet_vpc(s: Snapshot, subnets: Any) -> Iterator[Found]:
    """The subnets are in one VPC."""
    vpcs = {subnet["VpcId"] for subnet in subnets}
    if len(vpcs) > 1:
        yield Found(_ids(subnets), f"they are in {' and '.join(sorted(vpcs))}", "give two subnets of one VPC")


@rule(
    "subnet-addresses",
    AREA,
    why="each container takes an address, and an update needs some twice",
    source="UG vpc-create",
)
def subnet_addresses(s: Snapshot, subnets: Any) -> Iterator[Found]:
    """The subnets have addresses left for every worker, scheduler and web server."""
    if s.environment is not None:
        return  # it has its addresses
    least = _share((s["min_workers"] or 1) + (s["schedulers"] or 2) + (s["min_webservers"] or 2))
    most = _share((s["max_workers"] or 10) + (s["schedulers"] or 2) + (s["max_webservers"] or 2))
    for subnet in subnets:
        free = subnet.get("AvailableIpAddressCount")
        if free is None or free >= most:
            continue
        yield Found(
            subnet["SubnetId"],
            f"{free} addresses are free; the environment takes {least} of them at least and {most} when it has grown",
            "give a larger subnet (a /24 is plenty), or set max_workers lower",
            severity="error" if free < least else "warning",
        )


@rule("shared-vpc", AREA, why="MWAA may not make its endpoints in another account's VPC", source="UG networking-about")
def shared_vpc(s: Snapshot, subnets: Any) -> Iterator[Found]:
    """In a VPC that another account shares, the endpoints are the customer's."""
    owners = {subnet.get("OwnerId") for subnet in subnets} - {None, s.account}
    if owners and s["endpoint_management"] != "CUSTOMER":
        yield Found(
            _ids(subnets),
            f"they belong to account {', '.join(sorted(owners))} and endpoint_management is SERVICE",
            "set endpoint_management to CUSTOMER and make the endpoints yourself, or give subnets of this account",
        )


@rule(
    "vpc-dns",
    AREA,
    why="without it the names of MWAA's endpoints and database lead nowhere",
    source="UG networking-about",
)
def vpc_dns(s: Snapshot, vpc: Any, vpc_dns: Any, subnets: Any = None, route_tables: Any = None) -> Iterator[Found]:
    """The VPC resolves names and gives host names."""
    off = [name for name, on in vpc_dns.items() if not on]
    if not off:
        return
    # private DNS of one's own endpoints needs the host names; a VPC with a way out has done without by default
    bearable = off == ["enableDnsHostnames"] and route_tables is not None and not isolated(subnets or [], route_tables)
    yield Found(
        vpc,
        f"{' and '.join(off)} {'are' if len(off) > 1 else 'is'} off",
        f"switch {' and '.join(off)} on",
        severity="warning" if bearable else None,
    )


# --- routes -----------------------------------------------------------------------------------------------------------


@rule(
    "route-to-internet-gateway",
    AREA,
    why="MWAA runs in private subnets alone: creating fails, after half an hour",
    source="UG networking-about",
)
def route_to_internet_gateway(s: Snapshot, subnets: Any, route_tables: Any) -> Iterator[Found]:
    """No subnet has a route to an internet gateway."""
    for table, theirs in _by_table(subnets, route_tables):
        for route in _routes(table):
            if str(route.get("GatewayId", "")).startswith("igw-"):
                yield Found(
                    _ids(theirs),
                    f"the route table {table['RouteTableId']} sends {_destination(route)} to {route['GatewayId']}",
                    "give the subnets a route table without this route (with a NAT gateway, or with VPC endpoints)",
                )


@rule(
    "route-blackhole",
    AREA,
    why="what is sent there is lost",
    source="UG networking-about; verify_env",
    severity="warning",
)
def route_blackhole(s: Snapshot, subnets: Any, route_tables: Any) -> Iterator[Found]:
    """No route leads to something that is gone."""
    for table, _theirs in _by_table(subnets, route_tables):
        for route in _routes(table):
            if route.get("State") == "blackhole":
                yield Found(
                    table["RouteTableId"],
                    f"its route of {_destination(route)} leads to {_target(route)}, which is gone",
                    "remove the route, or let it lead to something that is there",
                    severity="error" if _destination(route) in ANYWHERE else None,
                )


@rule(
    "nat-gateway-state", AREA, why="nothing gets out, and MWAA cannot reach its services", source="UG networking-about"
)
def nat_gateway_state(s: Snapshot, subnets: Any, route_tables: Any, nat_gateways: Any) -> Iterator[Found]:
    """The NAT gateways that routes lead to work."""
    for nat in _nats(subnets, route_tables, nat_gateways):
        if nat["State"] != "available":
            yield Found(nat["NatGatewayId"], f"it is {nat['State']}", "make a NAT gateway that works and route to it")


@rule(
    "nat-gateway-subnet",
    AREA,
    why="a NAT gateway reaches the internet only from a public subnet",
    source="VPC user guide, NAT gateways",
)
def nat_gateway_subnet(s: Snapshot, subnets: Any, route_tables: Any, nat_gateways: Any) -> Iterator[Found]:
    """The NAT gateways stand in subnets with a route to an internet gateway, or to a firewall before it."""
    for nat in _nats(subnets, route_tables, nat_gateways):
        if nat.get("ConnectivityType", "public") != "public" or nat["State"] not in ("available", "pending"):
            continue
        if not nat.get("SubnetId"):
            continue  # a regional one is in no subnet
        table = table_of({"SubnetId": nat["SubnetId"], "VpcId": nat.get("VpcId")}, route_tables)
        onward = {**table, "Routes": [route for route in _routes(table) if not route.get("NatGatewayId")]}
        if not _leads_everywhere(onward):
            yield Found(
                nat["NatGatewayId"],
                f"its subnet {nat.get('SubnetId')} has no route to an internet gateway",
                "put the NAT gateway into a public subnet",
            )


# --- endpoints --------------------------------------------------------------------------------------------------------


@rule(
    "endpoints-missing",
    AREA,
    why="without NAT each of these services is reached through an endpoint, or not at all",
    source="UG vpc-vpe-create-access",
)
def endpoints_missing(s: Snapshot, vpc: Any, subnets: Any, route_tables: Any, endpoints: Any) -> Iterator[Found]:
    """Subnets without a way out have an endpoint for every service that MWAA uses."""
    if not isolated(subnets, route_tables):
        return
    there = {_service(endpoint, s) for endpoint in endpoints if _alive(endpoint)}
    missing = [service for service in ENDPOINTS if service not in there]
    if not missing:
        return
    how = f"make the endpoints com.amazonaws.{s.region}.… for them (s3 as a gateway), or a NAT gateway"
    shared = {subnet.get("OwnerId") for subnet in subnets} - {None, s.account}
    beyond = sorted({target for subnet in subnets for target in _beyond(table_of(subnet, route_tables))})
    if shared:
        yield Found(
            vpc,
            f"the subnets have no way out, and this account sees no endpoint for {', '.join(missing)}",
            f"see that account {', '.join(sorted(shared))}, whose VPC it is, has them there",
            severity="warning",
            why="endpoints of a shared VPC are seen by its owner alone, and without them nothing works",
        )
    elif beyond:
        yield Found(
            vpc,
            f"the subnets have no way to the internet, and their VPC no endpoint for {', '.join(missing)}",
            f"see that they are reached by {', '.join(beyond)}, or {how}",
            severity="warning",
            why="they may be in another VPC, with the names that lead there: that is not looked at",
        )
    else:
        yield Found(vpc, f"the subnets have no way out, and there is no endpoint for {', '.join(missing)}", how)


@rule(
    "endpoint-private-dns",
    AREA,
    why="the service's name else leads to the internet, which these subnets do not reach",
    source="UG vpc-vpe-create-access",
)
def endpoint_private_dns(s: Snapshot, subnets: Any, route_tables: Any, endpoints: Any) -> Iterator[Found]:
    """Interface endpoints of subnets without a way out have private DNS on."""
    if not isolated(subnets, route_tables):
        return
    named = {_service(one, s) for one in _needed(endpoints, s) if one.get("PrivateDnsEnabled")}
    for endpoint in _needed(endpoints, s):
        interface = endpoint.get("VpcEndpointType") == "Interface"
        if interface and not endpoint.get("PrivateDnsEnabled") and _service(endpoint, s) not in {*named, "s3"}:
            yield Found(
                endpoint["VpcEndpointId"],
                f"the endpoint of {_service(endpoint, s)} has private DNS off",
                "switch private DNS on",
            )


@rule(
    "endpoint-subnets",
    AREA,
    why="a zone without its own interface loses the service when the other zone fails",
    source="UG vpc-vpe-create-access",
    severity="warning",
)
def endpoint_subnets(s: Snapshot, subnets: Any, route_tables: Any, endpoints: Any) -> Iterator[Found]:
    """Interface endpoints of subnets without a way out are in both subnets."""
    if not isolated(subnets, route_tables):
        return
    for endpoint in _needed(endpoints, s):
        if endpoint.get("VpcEndpointType") != "Interface":
            continue
        missing = [one["SubnetId"] for one in subnets if one["SubnetId"] not in (endpoint.get("SubnetIds") or [])]
        if missing:
            yield Found(
                endpoint["VpcEndpointId"],
                f"the endpoint of {_service(endpoint, s)} is not in {' and '.join(missing)}",
                "add the environment's subnets to it",
            )


@rule(
    "endpoint-routes",
    AREA,
    why="a gateway endpoint serves the route tables that it is in, and no others",
    source="UG vpc-vpe-create-access",
)
def endpoint_routes(s: Snapshot, subnets: Any, route_tables: Any, endpoints: Any) -> Iterator[Found]:
    """The gateway endpoint of S3 is in the route tables of subnets without a way out."""
    if not isolated(subnets, route_tables):
        return
    s3 = [one for one in _needed(endpoints, s) if _service(one, s) == "s3"]
    if not s3 or any(one.get("VpcEndpointType") == "Interface" and one.get("PrivateDnsEnabled") for one in s3):
        return
    served = {table for one in s3 for table in one.get("RouteTableIds") or []}
    missing = {table_of(subnet, route_tables).get("RouteTableId") for subnet in subnets} - served
    if missing:
        yield Found(
            s3[0]["VpcEndpointId"],
            f"the endpoint of s3 is not in the route table {' and '.join(sorted(filter(None, missing)))}",
            "associate it with the route tables of the environment's subnets",
        )


@rule("endpoint-security-group", AREA, why="calls to the service never arrive", source="UG vpc-vpe-create-access")
def endpoint_security_group(
    s: Snapshot, subnets: Any, groups: Any, endpoints: Any, endpoint_groups: Any
) -> Iterator[Found]:
    """The security groups of endpoints let the environment in on port 443."""
    mine = {group["GroupId"] for group in groups}
    for endpoint in _used(endpoints, s):
        theirs = [endpoint_groups.get(one["GroupId"]) for one in endpoint.get("Groups") or []]
        if not theirs or None in theirs:
            continue  # of another account, which alone sees them
        if not _lets_in(theirs, HTTPS, mine, subnets):
            lists = _prefix_lists(theirs, "IpPermissions", HTTPS)
            yield Found(
                endpoint["VpcEndpointId"],
                f"the groups of the endpoint of {_service(endpoint, s)} do not let the environment in on port 443"
                + _unless(lists),
                f"allow TCP 443 from {', '.join(sorted(mine))} in {_ids(theirs, 'GroupId')}",
                severity="warning" if lists else None,
            )


@rule(
    "endpoint-policy",
    AREA,
    why="the endpoint refuses what its policy does not allow, whatever roles may",
    source="UG vpc-vpe-create-access",
)
def endpoint_policy(s: Snapshot, endpoints: Any, subnets: Any, route_tables: Any) -> Iterator[Found]:
    """The policies of endpoints let MWAA's calls through; S3's also the images' layers."""
    tables = {table_of(subnet, route_tables).get("RouteTableId") for subnet in subnets}
    for endpoint in _used(endpoints, s, tables):
        text = endpoint.get("PolicyDocument")
        if not policy.document(text):
            continue  # AWS's default, which allows all
        service = _service(endpoint, s)
        if service == "s3":
            layers = f"arn:{s.partition}:s3:::prod-{s.region}-starport-layer-bucket/a"
            asked = {f"{layers[:-1]}*": ("s3:GetObject", layers)}
            if s["source_bucket"]:
                own = f"arn:{s.partition}:s3:::{s.bucket}"
                asked[f"{own}/*"] = ("s3:GetObject", f"{own}/{s['dag_s3_path'] or 'dags'}/a.py")
                asked[own] = ("s3:ListBucket", own)
        else:
            asked = {"*": (USES[service], "*")}
        refused = [shown for shown, (action, resource) in asked.items() if not _passes(text, action, resource)]
        if refused:
            what = (
                f"lets s3:GetObject and s3:ListBucket not reach {', '.join(refused)}"
                if service == "s3"
                else f"does not allow {USES[service]}"
            )
            yield Found(
                endpoint["VpcEndpointId"],
                f"the policy of the endpoint of {service} {what}",
                "allow it in the endpoint's policy"
                + (" (the layers of MWAA's images come from the starport bucket)" if service == "s3" else ""),
            )


@rule(
    "access-mode-internet",
    AREA,
    why="tasks of Airflow 3 speak to the web server, which these subnets do not reach: all of them fail",
    source="UG configuring-networking",
)
def access_mode_internet(s: Snapshot, subnets: Any, route_tables: Any) -> Iterator[Found]:
    """Airflow 3 in subnets without a way out has a web server inside."""
    if (
        _versions.at_least(s.version, "3")
        and s["webserver_access_mode"] == "PUBLIC_ONLY"
        and isolated(subnets, route_tables)
    ):
        other = "PRIVATE_ONLY" + (" or PUBLIC_AND_PRIVATE" if _versions.at_least(s.version, "3.2") else "")
        yield Found(
            s.name,
            f"webserver_access_mode is PUBLIC_ONLY, Airflow is {s.version}, and the subnets have no way out",
            f"set webserver_access_mode to {other}, or give the subnets a NAT gateway",
        )


# --- security groups --------------------------------------------------------------------------------------------------


@rule("security-group-exists", AREA, why="MWAA refuses security groups that it does not find", source="UG vpc-security")
def security_group_exists(s: Snapshot, found_groups: Any) -> Iterator[Found]:
    """The security groups exist."""
    there = {group["GroupId"] for group in found_groups}
    gone = [one for one in s["security_group_ids"] if one not in there]
    yield from _gone(s, gone, "security groups of the subnets' VPC")


@rule("security-group-vpc", AREA, why="a security group works in its own VPC alone", source="UG vpc-security")
def security_group_vpc(s: Snapshot, vpc: Any, groups: Any) -> Iterator[Found]:
    """The security groups are in the subnets' VPC."""
    for group in groups:
        if group["VpcId"] != vpc:
            yield Found(
                group["GroupId"], f"it is in {group['VpcId']}, the subnets are in {vpc}", f"give a group of {vpc}"
            )


@rule(
    "security-group-self",
    AREA,
    why="scheduler, workers and database speak to each other through it: creating hangs, then fails",
    source="UG vpc-security",
)
def security_group_self(s: Snapshot, subnets: Any, groups: Any) -> Iterator[Found]:
    """The security groups let themselves in: all traffic, or TCP 443 and 5432."""
    mine = {group["GroupId"] for group in groups}
    closed = [port for port in (HTTPS, DATABASE) if not _lets_in(groups, port, mine, subnets)]
    if closed:
        lists = _prefix_lists(groups, "IpPermissions", *closed)
        yield Found(
            ", ".join(sorted(mine)),
            f"no inbound rule lets the group itself in on port {' and '.join(map(str, closed))}" + _unless(lists),
            "add an inbound rule for all traffic whose source is the group itself",
            severity="warning" if lists else None,
        )


@rule("security-group-outbound", AREA, why="MWAA's containers cannot speak to its services", source="UG vpc-security")
def security_group_outbound(
    s: Snapshot, subnets: Any, groups: Any, route_tables: Any, endpoints: Any = None
) -> Iterator[Found]:
    """The security groups let the environment out."""
    mine = {group["GroupId"] for group in groups}
    rules = [one for group in groups for one in group.get("IpPermissionsEgress") or []]
    inside = [
        port for port in (HTTPS, DATABASE) if not any(_permits(one, port, mine, _networks(subnets)) for one in rules)
    ]
    if inside:
        lists = _prefix_lists(groups, "IpPermissionsEgress", *inside)
        yield Found(
            ", ".join(sorted(mine)),
            f"no outbound rule leads to port {' and '.join(map(str, inside))} of the environment itself"
            + _unless(lists),
            "add an outbound rule for all traffic to 0.0.0.0/0",
            severity="warning" if lists else None,
        )
        return
    everywhere = any(_permits(one, HTTPS, set(), [ipaddress.ip_network(ANYWHERE[0])]) for one in rules)
    named = {_service(one, s) for one in _used(endpoints or [], s)}
    # S3 is outside of the VPC where a gateway leads to it, and inside by an interface that has its name
    stores = "s3" in named or bool(_prefix_lists(groups, "IpPermissionsEgress", HTTPS))
    rest = isolated(subnets, route_tables) or named >= set(ENDPOINTS) - {"s3"}
    if not everywhere and not (stores and rest):
        yield Found(
            ", ".join(sorted(mine)),
            "no outbound rule leads to port 443 outside of the VPC, where S3 and MWAA's other services are",
            "add an outbound rule for all traffic to 0.0.0.0/0, or for TCP 443 to S3's prefix list where all else has"
            " endpoints",
        )


@rule("network-acl", AREA, why="what an ACL stops is lost without a trace", source="UG vpc-security; verify_env")
def network_acl(s: Snapshot, subnets: Any, network_acls: Any, route_tables: Any) -> Iterator[Found]:
    """Network ACLs let through port 443 and 5432 between the subnets, and the way out; both ways."""
    world = ipaddress.ip_network(ANYWHERE[0])
    answers = f"{EPHEMERAL[0]}-{EPHEMERAL[1]} (answers)"
    by_acl: dict[str, tuple[dict[str, Any], list[dict[str, Any]]]] = {}
    for subnet in subnets:
        acl = _acl_of(subnet, network_acls)
        if acl is not None:
            by_acl.setdefault(acl["NetworkAclId"], (acl, []))[1].append(subnet)
    for identity, (acl, theirs) in by_acl.items():
        # what stays inside of a subnet passes no ACL
        peers = _networks([one for one in subnets if any(one is not mine for mine in theirs)])
        stopped = [
            f"{'outbound' if outbound else 'inbound'} {name}"
            for outbound in (True, False)
            for ports, name in (((HTTPS,) * 2, "443"), ((DATABASE,) * 2, "5432"), (EPHEMERAL, answers))
            if not all(_acl_allows(acl, outbound, ports, peer) for peer in peers)
        ]
        if not isolated(theirs, route_tables):
            if "outbound 443" not in stopped and not _acl_allows(acl, True, (HTTPS, HTTPS), world):
                stopped.append("outbound 443 to the internet")
            if f"inbound {answers}" not in stopped and not _acl_allows(acl, False, EPHEMERAL, world):
                stopped.append(f"inbound {answers} from the internet")
        if stopped:
            yield Found(
                identity,
                f"the network ACL of {_ids(theirs)} stops {', '.join(stopped)}",
                "allow all traffic both ways in it and filter by security groups, or allow these ports",
            )


# --- helpers ----------------------------------------------------------------------------------------------------------


def _gone(s: Snapshot, ids: list[str], give: str) -> Iterator[Found]:
    if ids:
        yield Found(
            ", ".join(ids), f"{'they do' if len(ids) > 1 else 'it does'} not exist in {s.region}", f"give {give}"
        )


def table_of(subnet: dict[str, Any], tables: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """The subnet's own route table, or else the main one of its VPC; {} where neither is known."""
    main: dict[str, Any] = {}
    for table in tables:
        for association in table.get("Associations") or []:
            if association.get("SubnetId") == subnet["SubnetId"]:
                return table
            if association.get("Main") and table.get("VpcId") == subnet.get("VpcId"):
                main = table
    return main


def _by_table(subnets: Any, tables: Any) -> list[tuple[dict[str, Any], list[dict[str, Any]]]]:
    """Route tables with those of the subnets that use them."""
    found: dict[Any, tuple[dict[str, Any], list[dict[str, Any]]]] = {}
    for subnet in subnets:
        table = table_of(subnet, tables)
        found.setdefault(table.get("RouteTableId"), (table, []))[1].append(subnet)
    return list(found.values())


def way_out(subnet: dict[str, Any], tables: Iterable[dict[str, Any]]) -> bool:
    """Whether everything leads somewhere: to a NAT gateway or instance, a transit gateway, a firewall, a VPN."""
    return _leads_everywhere(table_of(subnet, tables))


def _leads_everywhere(table: dict[str, Any]) -> bool:
    """By a default route, or by halves of one. IPv4: AWS's services are not all reached by IPv6."""
    blocks: list[Any] = [
        ipaddress.ip_network(route["DestinationCidrBlock"], strict=False)
        for route in _routes(table)
        if route.get("DestinationCidrBlock") and route.get("State") != "blackhole"
    ]
    return ipaddress.ip_network(ANYWHERE[0]) in ipaddress.collapse_addresses(blocks)


def _beyond(table: dict[str, Any]) -> Iterator[str]:
    """What live routes lead to that is neither the VPC nor the internet nor a gateway endpoint of AWS's services."""
    for route in _routes(table):
        target = _target(route)
        gateway = target == "local" or target.startswith(("igw-", "eigw-"))
        service = target.startswith("vpce-") and route.get("DestinationPrefixListId")
        if route.get("State") != "blackhole" and not gateway and not service:
            yield target


def isolated(subnets: Iterable[dict[str, Any]], tables: Any) -> bool:
    """Whether one of the subnets has no way out."""
    return not all(way_out(subnet, tables) for subnet in subnets)


def _routes(table: dict[str, Any]) -> list[dict[str, Any]]:
    return table.get("Routes") or []


def _destination(route: dict[str, Any]) -> str:
    return str(
        route.get("DestinationCidrBlock")
        or route.get("DestinationIpv6CidrBlock")
        or route.get("DestinationPrefixListId")
    )


def _target(route: dict[str, Any]) -> str:
    names = (
        "NatGatewayId",
        "GatewayId",
        "TransitGatewayId",
        "InstanceId",
        "NetworkInterfaceId",
        "VpcPeeringConnectionId",
        "CoreNetworkArn",
        "LocalGatewayId",
        "CarrierGatewayId",
        "EgressOnlyInternetGatewayId",
    )
    return next((str(route[name]) for name in names if route.get(name)), "something")


def _nats(subnets: Any, tables: Any, gateways: Any) -> Iterator[dict[str, Any]]:
    """NAT gateways of the VPC that default routes of the subnets lead to, each once."""
    used = {
        route["NatGatewayId"]
        for subnet in subnets
        for route in _routes(table_of(subnet, tables))
        if route.get("NatGatewayId") and route.get("State") != "blackhole"
    }
    for gateway in gateways:
        if gateway["NatGatewayId"] in used:
            yield gateway


def _service(endpoint: dict[str, Any], s: Snapshot) -> str:
    return str(endpoint.get("ServiceName", "")).rpartition(f".{s.region}.")[2]


def _alive(endpoint: dict[str, Any]) -> bool:
    return str(endpoint.get("State", "available")).lower() in ("available", "pending")


def _needed(endpoints: Any, s: Snapshot) -> list[dict[str, Any]]:
    return [one for one in endpoints if _service(one, s) in ENDPOINTS and _alive(one)]


def _used(endpoints: Any, s: Snapshot, tables: set[Any] | None = None) -> list[dict[str, Any]]:
    """Endpoints that the environment's calls go through, also where there is a NAT gateway: an interface that has taken
    over the service's name, a gateway in a route table of the subnets.
    """
    return [
        one
        for one in _needed(endpoints, s)
        if (one.get("VpcEndpointType") == "Interface" and one.get("PrivateDnsEnabled"))
        or (
            tables is not None
            and one.get("VpcEndpointType") == "Gateway"
            and tables & set(one.get("RouteTableIds") or [])
        )
    ]


def _passes(text: Any, action: str, resource: str) -> bool:
    """Whether an endpoint's policy lets a call through. Denials with conditions are left out: they may not apply."""

    def about(statement: dict[str, Any]) -> bool:
        anything = resource == "*"
        return policy.covers_action(statement, action) and (anything or policy.covers_resource(statement, resource))

    denied = any(about(one) and not one.get("Condition") for one in policy.statements(text, "Deny"))
    return not denied and any(about(one) for one in policy.statements(text, "Allow"))


def _networks(subnets: Iterable[dict[str, Any]]) -> list[Any]:
    return [ipaddress.ip_network(subnet["CidrBlock"], strict=False) for subnet in subnets if subnet.get("CidrBlock")]


def _lets_in(groups: Any, port: int, sources: set[str], subnets: Any) -> bool:
    """Whether inbound rules let in the members of `sources`, or the subnets as a whole."""
    return any(
        _permits(one, port, sources, _networks(subnets)) for group in groups for one in group.get("IpPermissions") or []
    )


def _permits(permission: dict[str, Any], port: int, peers: set[str], networks: list[Any]) -> bool:
    """Whether a security group's rule covers a TCP port of one of the groups, or of all of the networks."""
    if not _port_in(permission, port):
        return False
    if any(pair.get("GroupId") in peers for pair in permission.get("UserIdGroupPairs") or []):
        return True
    given: list[Any] = [ipaddress.ip_network(one["CidrIp"], strict=False) for one in permission.get("IpRanges") or []]
    ranges = list(ipaddress.collapse_addresses(given))
    return bool(networks) and all(any(network.subnet_of(one) for one in ranges) for network in networks)


def _prefix_lists(groups: Any, key: str, *ports: int) -> list[str]:
    """The prefix lists that rules name for these ports. What they hold is not looked into."""
    rules = [one for group in groups for one in group.get(key) or []]
    return sorted(
        {
            named["PrefixListId"]
            for one in rules
            if all(_port_in(one, port) for port in ports)
            for named in one.get("PrefixListIds") or []
        }
    )


def _unless(lists: list[str]) -> str:
    return f", unless {' or '.join(lists)} does, which is not looked into" if lists else ""


def _port_in(permission: dict[str, Any], port: int) -> bool:
    protocol = str(permission.get("IpProtocol"))
    if protocol == "-1":
        return True
    return protocol in ("tcp", "6") and permission.get("FromPort", 0) <= port <= permission.get("ToPort", 65535)


def _acl_of(subnet: dict[str, Any], acls: Any) -> dict[str, Any] | None:
    default = None
    for acl in acls:
        if any(one.get("SubnetId") == subnet["SubnetId"] for one in acl.get("Associations") or []):
            return acl
        if acl.get("IsDefault"):
            default = acl
    return default


def _acl_allows(acl: dict[str, Any], outbound: bool, ports: tuple[int, int], network: Any) -> bool:
    """Entries allow it together, in their order, or one denies what is left. Who denies single ports or networks
    before means these.
    """
    left = [ports]
    for entry in sorted(acl.get("Entries") or [], key=lambda one: one["RuleNumber"]):
        if bool(entry.get("Egress")) != outbound or not entry.get("CidrBlock"):
            continue
        if str(entry.get("Protocol")) not in ("-1", "6", "tcp"):
            continue
        theirs = ipaddress.ip_network(entry["CidrBlock"], strict=False)
        span = entry.get("PortRange") or {}
        first, last = (0, 65535) if str(entry["Protocol"]) == "-1" else (span.get("From", 0), span.get("To", 65535))
        if not network.subnet_of(theirs):
            continue
        if entry["RuleAction"] == "allow":
            left = [
                (low, high)
                for start, end in left
                for low, high in ((start, min(end, first - 1)), (max(start, last + 1), end))
                if low <= high
            ]
            if not left:
                return True
        elif all(first <= start and end <= last for start, end in left):
            return False
    return False


def _share(containers: int) -> int:
    """Addresses in each of two subnets: half of the containers, and up to two endpoints of MWAA's own."""
    return math.ceil(containers / 2) + 2


def _ids(things: Iterable[dict[str, Any]], key: str = "SubnetId") -> str:
    return ", ".join(sorted(one[key] for one in things))
