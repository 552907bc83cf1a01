# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""EC2 as a preflight and a stack see it: gateways, routes, endpoints, instances, and what is refused."""

from __future__ import annotations

import itertools
import json
import time
from typing import Any

import pytest
from botocore.exceptions import ClientError

pytestmark = pytest.mark.lab

_numbers = itertools.count(1)


class Vpc:
    """A VPC with two subnets."""

    def __init__(self, ec2: Any, **attributes: bool) -> None:
        net = f"10.{100 + next(_numbers)}"
        self.id = ec2.create_vpc(CidrBlock=f"{net}.0.0/16")["Vpc"]["VpcId"]
        for name, value in attributes.items():
            ec2.modify_vpc_attribute(VpcId=self.id, **{name: {"Value": value}})
        self.net = net
        self.subnets = [
            ec2.create_subnet(VpcId=self.id, CidrBlock=f"{net}.{number}.0/24", AvailabilityZone=f"us-east-1{zone}")[
                "Subnet"
            ]["SubnetId"]
            for number, zone in enumerate("ab")
        ]


@pytest.fixture
def ec2(lab: Any) -> Any:
    return lab.client("ec2")


@pytest.fixture
def vpc(ec2: Any) -> Vpc:
    return Vpc(ec2, EnableDnsHostnames=True)


def until(read: Any, wanted: str) -> list[str]:
    seen = [read()]
    while seen[-1] != wanted:
        time.sleep(0.05)
        seen.append(read())
    return seen


def test_a_nat_gateway_takes_its_time_and_holds_its_address(ec2, vpc):
    address = ec2.allocate_address(Domain="vpc")
    made = ec2.create_nat_gateway(SubnetId=vpc.subnets[0], AllocationId=address["AllocationId"])["NatGateway"]

    def shown() -> dict[str, Any]:
        return ec2.describe_nat_gateways(Filter=[{"Name": "vpc-id", "Values": [vpc.id]}])["NatGateways"][0]

    assert until(lambda: shown()["State"], "available")[0] == "pending" == made["State"]
    assert shown()["NatGatewayAddresses"][0]["PublicIp"] == address["PublicIp"]
    assert shown()["NatGatewayAddresses"][0]["PrivateIp"].startswith(f"{vpc.net}.0.")
    with pytest.raises(ClientError, match="InvalidIPAddress.InUse"):
        ec2.release_address(AllocationId=address["AllocationId"])
    with pytest.raises(ClientError, match="DependencyViolation"):
        ec2.delete_subnet(SubnetId=vpc.subnets[0])

    table = ec2.create_route_table(VpcId=vpc.id)["RouteTable"]["RouteTableId"]
    ec2.create_route(RouteTableId=table, DestinationCidrBlock="0.0.0.0/0", NatGatewayId=made["NatGatewayId"])
    ec2.delete_nat_gateway(NatGatewayId=made["NatGatewayId"])
    routes = ec2.describe_route_tables(RouteTableIds=[table])["RouteTables"][0]["Routes"]
    assert [route["State"] for route in routes] == ["active", "blackhole"]
    ec2.release_address(AllocationId=address["AllocationId"])
    ec2.delete_subnet(SubnetId=vpc.subnets[0])


def test_which_route_table_a_subnet_has(ec2, vpc):
    table = ec2.create_route_table(VpcId=vpc.id)["RouteTable"]["RouteTableId"]
    association = ec2.associate_route_table(RouteTableId=table, SubnetId=vpc.subnets[0])["AssociationId"]
    of_vpc = {"Name": "vpc-id", "Values": [vpc.id]}

    def tables(name: str, value: str) -> list[str]:
        found = ec2.describe_route_tables(Filters=[of_vpc, {"Name": name, "Values": [value]}])["RouteTables"]
        return [one["RouteTableId"] for one in found]

    assert tables("association.subnet-id", vpc.subnets[0]) == [table]
    assert tables("association.subnet-id", vpc.subnets[1]) == []
    main = tables("association.main", "true")
    assert len(main) == 1 and main != [table]
    with pytest.raises(ClientError, match="Resource.AlreadyAssociated"):
        ec2.associate_route_table(RouteTableId=main[0], SubnetId=vpc.subnets[0])
    ec2.disassociate_route_table(AssociationId=association)
    assert tables("association.subnet-id", vpc.subnets[0]) == []


def test_each_subnet_has_a_network_acl(ec2, vpc):
    def acl(subnet: str) -> dict[str, Any]:
        wanted = [{"Name": "association.subnet-id", "Values": [subnet]}]
        found = ec2.describe_network_acls(Filters=wanted)["NetworkAcls"]
        assert len(found) == 1
        return found[0]

    assert acl(vpc.subnets[0])["IsDefault"] is True
    own = ec2.create_network_acl(VpcId=vpc.id)["NetworkAcl"]["NetworkAclId"]
    held = next(one for one in acl(vpc.subnets[0])["Associations"] if one["SubnetId"] == vpc.subnets[0])
    ec2.replace_network_acl_association(AssociationId=held["NetworkAclAssociationId"], NetworkAclId=own)
    assert acl(vpc.subnets[0])["NetworkAclId"] == own
    assert acl(vpc.subnets[1])["IsDefault"] is True


def test_an_interface_endpoint_has_names_interfaces_groups_and_a_policy(ec2, vpc):
    group = ec2.create_security_group(GroupName="endpoints", Description="e", VpcId=vpc.id)["GroupId"]
    policy = {"Statement": [{"Effect": "Allow", "Principal": "*", "Action": "airflow:*", "Resource": "*"}]}
    made = ec2.create_vpc_endpoint(
        VpcId=vpc.id,
        VpcEndpointType="Interface",
        ServiceName="com.amazonaws.us-east-1.airflow.api",
        SubnetIds=vpc.subnets,
        SecurityGroupIds=[group],
        PolicyDocument=json.dumps(policy),
    )["VpcEndpoint"]["VpcEndpointId"]

    def shown() -> dict[str, Any]:
        wanted = [{"Name": "service-name", "Values": ["com.amazonaws.us-east-1.airflow.*"]}]
        found = ec2.describe_vpc_endpoints(Filters=[*wanted, {"Name": "vpc-id", "Values": [vpc.id]}])
        return found["VpcEndpoints"][0]

    assert until(lambda: shown()["State"], "available")[0] == "pending"
    endpoint = shown()
    assert endpoint["PrivateDnsEnabled"] is True
    assert "api.airflow.us-east-1.amazonaws.com" in [one["DnsName"] for one in endpoint["DnsEntries"]]
    assert sorted(endpoint["SubnetIds"]) == sorted(vpc.subnets)
    assert endpoint["Groups"] == [{"GroupId": group, "GroupName": "endpoints"}]
    assert json.loads(endpoint["PolicyDocument"]) == policy
    interfaces = ec2.describe_network_interfaces(NetworkInterfaceIds=endpoint["NetworkInterfaceIds"])
    assert {one["SubnetId"] for one in interfaces["NetworkInterfaces"]} == set(vpc.subnets)
    with pytest.raises(ClientError, match="conflicting DNS domain"):
        ec2.create_vpc_endpoint(
            VpcId=vpc.id, VpcEndpointType="Interface", ServiceName=endpoint["ServiceName"], SubnetIds=vpc.subnets
        )
    with pytest.raises(ClientError, match="DependencyViolation"):
        ec2.delete_security_group(GroupId=group)

    ec2.modify_vpc_endpoint(VpcEndpointId=made, PrivateDnsEnabled=False, RemoveSubnetIds=vpc.subnets[:1])
    assert (shown()["PrivateDnsEnabled"], shown()["SubnetIds"]) == (False, vpc.subnets[1:])
    ec2.delete_vpc_endpoints(VpcEndpointIds=[made])
    ec2.delete_security_group(GroupId=group)


def test_private_names_need_the_vpcs_dns(ec2):
    plain = Vpc(ec2)
    with pytest.raises(ClientError, match="requires both enableDnsSupport and enableDnsHostnames"):
        ec2.create_vpc_endpoint(
            VpcId=plain.id,
            VpcEndpointType="Interface",
            ServiceName="com.amazonaws.us-east-1.logs",
            SubnetIds=plain.subnets,
        )


def test_a_gateway_endpoint_is_a_route(ec2, vpc):
    table = ec2.create_route_table(VpcId=vpc.id)["RouteTable"]["RouteTableId"]
    made = ec2.create_vpc_endpoint(VpcId=vpc.id, ServiceName="com.amazonaws.us-east-1.s3", RouteTableIds=[table])[
        "VpcEndpoint"
    ]

    def targets() -> list[str]:
        return [
            one["GatewayId"] for one in ec2.describe_route_tables(RouteTableIds=[table])["RouteTables"][0]["Routes"]
        ]

    assert (made["State"], made["RouteTableIds"]) == ("available", [table])
    assert targets() == ["local", made["VpcEndpointId"]]
    ec2.delete_vpc_endpoints(VpcEndpointIds=[made["VpcEndpointId"]])
    assert targets() == ["local"]


def test_which_services_have_endpoints(ec2):
    names = set(ec2.describe_vpc_endpoint_services()["ServiceNames"])
    wanted = ("airflow.api", "airflow.env", "airflow.ops", "s3", "logs", "monitoring", "sqs", "kms", "secretsmanager")
    assert {f"com.amazonaws.us-east-1.{name}" for name in wanted} <= names
    found = ec2.describe_vpc_endpoint_services(ServiceNames=["com.amazonaws.us-east-1.airflow.env"])["ServiceDetails"]
    assert found[0]["PrivateDnsName"] == "env.airflow.us-east-1.amazonaws.com"
    with pytest.raises(ClientError, match="InvalidServiceName"):
        ec2.describe_vpc_endpoint_services(ServiceNames=["com.amazonaws.us-east-1.nope"])


def test_an_instance_is_found_by_its_addresses(ec2, vpc):
    ec2.modify_subnet_attribute(SubnetId=vpc.subnets[1], MapPublicIpOnLaunch={"Value": True})
    made = [
        ec2.run_instances(ImageId="ami-00000001", MinCount=1, MaxCount=1, SubnetId=subnet)["Instances"][0]
        for subnet in vpc.subnets
    ]
    assert [("PublicIpAddress" in one, one["VpcId"], one["SubnetId"]) for one in made] == [
        (False, vpc.id, vpc.subnets[0]),
        (True, vpc.id, vpc.subnets[1]),
    ]
    assert made[0]["PrivateIpAddress"].startswith(f"{vpc.net}.0.")
    for name, value, instance in (
        ("private-ip-address", made[0]["PrivateIpAddress"], made[0]),
        ("ip-address", made[1]["PublicIpAddress"], made[1]),
        ("private-dns-name", made[1]["PrivateDnsName"], made[1]),
    ):
        found = ec2.describe_instances(
            Filters=[{"Name": name, "Values": [value]}, {"Name": "vpc-id", "Values": [vpc.id]}]
        )["Reservations"]
        assert [one["InstanceId"] for each in found for one in each["Instances"]] == [instance["InstanceId"]]


@pytest.mark.parametrize(
    ("call", "arguments", "code"),
    [
        ("create_subnet", {"VpcId": "vpc-0", "CidrBlock": "10.0.0.0/24"}, "InvalidVpcID.NotFound"),
        ("create_security_group", {"VpcId": "vpc-0", "GroupName": "g", "Description": "g"}, "InvalidVpcID.NotFound"),
        ("create_nat_gateway", {"SubnetId": "subnet-0"}, "InvalidSubnetID.NotFound"),
        ("create_route_table", {"VpcId": "vpc-0"}, "InvalidVpcID.NotFound"),
        ("associate_route_table", {"RouteTableId": "rtb-0", "SubnetId": "subnet-0"}, "InvalidRouteTableID.NotFound"),
        ("run_instances", {"MinCount": 1, "MaxCount": 1, "SubnetId": "subnet-0"}, "InvalidSubnetID.NotFound"),
        ("describe_subnets", {"Filters": [{"Name": "colour", "Values": ["blue"]}]}, "InvalidParameterValue"),
    ],
)
def test_what_is_not_there_is_refused(ec2, call, arguments, code):
    with pytest.raises(ClientError) as refused:
        getattr(ec2, call)(**arguments)
    assert refused.value.response["Error"]["Code"] == code


def test_subnets_lie_in_their_vpc_and_apart(ec2, vpc):
    for cidr, code in ((f"{vpc.net}.0.128/25", "InvalidSubnet.Conflict"), ("192.168.0.0/24", "InvalidSubnet.Range")):
        with pytest.raises(ClientError, match=code):
            ec2.create_subnet(VpcId=vpc.id, CidrBlock=cidr)
