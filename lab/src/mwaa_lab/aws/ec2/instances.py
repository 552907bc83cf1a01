# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Instances: an address of their subnet, and a public one where the subnet or the call gives it."""

from __future__ import annotations

import re

from mwaa_lab.aws.ec2.answers import Answer, Handler, Parameters, answered
from mwaa_lab.aws.ec2.gateways import free_address

_NONE = re.compile(rb"<(ipAddress|dnsName|keyName)></\1>")


def install(actions: dict[str, Handler]) -> None:
    actions["RunInstances"] = _run(actions["RunInstances"])
    actions["DescribeInstances"] = _describe(actions["DescribeInstances"])


def _run(original: Handler) -> Handler:
    def handle(parameters: Parameters) -> Answer:
        from ministack.services import ec2

        nested = "NetworkInterface.1"
        given = dict(parameters)
        for key in ("SubnetId", "PrivateIpAddress"):
            if value := ec2._p(parameters, f"{nested}.{key}"):
                given[key] = [value]
        for number, group in enumerate(ec2._parse_member_list(parameters, f"{nested}.SecurityGroupId"), 1):
            given[f"SecurityGroupId.{number}"] = [group]
        known = set(ec2._instances)
        answer = original(given)
        made = [one for name, one in ec2._instances.items() if name not in known]
        for instance in made:
            subnet = ec2._subnets[instance["SubnetId"]]
            instance["PrivateIpAddress"] = ""
            private = ec2._p(given, "PrivateIpAddress") or free_address(subnet["SubnetId"])
            asked = ec2._p(parameters, f"{nested}.AssociatePublicIpAddress")
            public = asked.lower() == "true" if asked else subnet["MapPublicIpOnLaunch"]
            dashed = private.replace(".", "-")
            instance.update(PrivateIpAddress=private, PrivateDnsName=f"ip-{dashed}.ec2.internal")
            if not public:
                instance.update(PublicIpAddress="", PublicDnsName="")
            instance["Placement"]["AvailabilityZone"] = subnet["AvailabilityZone"]
        if made:
            shown = _describe(ec2._describe_instances)(
                {f"InstanceId.{number}": [one["InstanceId"]] for number, one in enumerate(made, 1)}
            )[2]
            items = re.findall(rb"<instancesSet>(.*?)</instancesSet>", shown, re.DOTALL)
            inner = b"<instancesSet>" + b"".join(items) + b"</instancesSet>"
            owner = f"<ownerId>{ec2.get_account_id()}</ownerId>"
            owner += f"<reservationId>r-{made[0]['InstanceId'][2:]}</reservationId>"
            answer = answered("RunInstances", inner.decode() + owner)
        return answer

    return handle


def _describe(original: Handler) -> Handler:
    """What an instance does not have is not in the answer."""

    def handle(parameters: Parameters) -> Answer:
        status, headers, body = original(parameters)
        return status, headers, _NONE.sub(b"", body)

    return handle
