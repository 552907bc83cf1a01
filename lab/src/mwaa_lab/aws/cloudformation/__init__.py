# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What CloudFormation lacks in ministack, part by part.

``hooks.check()`` has seen that all that is taken hold of here is there.
"""

from __future__ import annotations

from mwaa_lab.aws.cloudformation import drift, environment, iam, importing, network, s3, stacks
from mwaa_lab.aws.mwaa import ControlPlane


def install(control: ControlPlane) -> None:
    """Teach ministack's CloudFormation the types of the lab, and its rules."""
    from ministack.services.cloudformation import changesets, provisioners
    from ministack.services.cloudformation import stacks as engine

    handlers = provisioners._RESOURCE_HANDLERS
    handlers[environment.TYPE] = environment.handlers(control)
    iam.install(handlers)
    s3.install(handlers)
    # These wait, or call back into the lab's AWS, so they must not sit on ministack's event loop.
    waiting = network.install(handlers) | {environment.TYPE}
    blocking = engine._runs_on_worker_thread
    engine._runs_on_worker_thread = lambda kind: kind in waiting or blocking(kind)

    environment.install(control)
    types = network.importable() | iam.importable() | s3.importable() | environment.importable(control)
    importing.install(types)
    importing.refuse_existing(("AWS::IAM::Role", "AWS::KMS::Alias", "AWS::Logs::LogGroup"))
    drift.install({environment.TYPE: environment.reader(control)})
    stacks.install(lambda: {kind: keys for kind, (keys, _problem) in changesets._IMPORT_LOOKUPS.items()})
    provisioners._STACK_TAG_PROPERTY.update(
        dict.fromkeys(("AWS::EC2::EIP", "AWS::EC2::NatGateway", "AWS::S3::Bucket"), ("Tags", "list"))
    )
    provisioners._REPLACING_PROPERTIES.update(_CREATE_ONLY)
    provisioners._CONDITIONALLY_REPLACING_PROPERTIES.update(_SOMETIMES_CREATE_ONLY)


# From the registry schemas: a change of these replaces the resource, and of no other.
_CREATE_ONLY = {
    environment.TYPE: ("Name", "KmsKey", "EndpointManagement"),
    "AWS::EC2::EIP": ("Domain", "NetworkBorderGroup", "TransferAddress", "IpamPoolId", "Address"),
    "AWS::EC2::InternetGateway": (),
    "AWS::EC2::NatGateway": ("SubnetId", "AllocationId", "ConnectivityType", "VpcId", "PrivateIpAddress"),
    "AWS::EC2::Route": ("RouteTableId", "DestinationCidrBlock", "DestinationIpv6CidrBlock", "DestinationPrefixListId"),
    "AWS::EC2::RouteTable": ("VpcId",),
    "AWS::EC2::SecurityGroup": ("GroupName", "GroupDescription", "VpcId"),
    "AWS::EC2::SecurityGroupEgress": (
        "GroupId",
        "IpProtocol",
        "FromPort",
        "ToPort",
        "CidrIp",
        "CidrIpv6",
        "DestinationSecurityGroupId",
        "DestinationPrefixListId",
    ),
    "AWS::EC2::SecurityGroupIngress": (
        "GroupId",
        "GroupName",
        "IpProtocol",
        "FromPort",
        "ToPort",
        "CidrIp",
        "CidrIpv6",
        "SourceSecurityGroupId",
        "SourceSecurityGroupOwnerId",
        "SourceSecurityGroupName",
        "SourcePrefixListId",
    ),
    "AWS::EC2::Subnet": ("VpcId", "CidrBlock", "AvailabilityZone", "AvailabilityZoneId", "Ipv6Native", "OutpostArn"),
    "AWS::EC2::SubnetRouteTableAssociation": ("SubnetId", "RouteTableId"),
    "AWS::EC2::VPC": ("CidrBlock", "Ipv4IpamPoolId", "Ipv4NetmaskLength"),
    "AWS::EC2::VPCEndpoint": ("VpcId", "ServiceName", "VpcEndpointType", "ServiceNetworkArn"),
    "AWS::EC2::VPCGatewayAttachment": ("VpcId",),
    "AWS::IAM::Policy": (),
    "AWS::IAM::RolePolicy": ("PolicyName", "RoleName"),
    "AWS::KMS::Key": (),
    "AWS::Logs::LogGroup": ("LogGroupName",),
    "AWS::S3::Bucket": ("BucketName",),
    "AWS::S3::BucketPolicy": ("Bucket",),
    "AWS::SecretsManager::Secret": ("Name",),
}
_SOMETIMES_CREATE_ONLY = {
    environment.TYPE: ("NetworkConfiguration",),  # subnets are, security groups are not
    "AWS::EC2::VPC": ("InstanceTenancy",),
}
