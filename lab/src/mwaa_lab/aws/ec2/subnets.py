# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How many addresses a subnet has left: those of its network, without AWS's five and those that interfaces took."""

from __future__ import annotations

import ipaddress

from mwaa_lab.aws.ec2.answers import Answer, Handler, Parameters

_RESERVED = 5


def install(actions: dict[str, Handler]) -> None:
    original = actions["DescribeSubnets"]

    def describe(parameters: Parameters) -> Answer:
        from ministack.services import ec2

        taken = [interface.get("SubnetId") for interface in ec2._network_interfaces.values()]
        for identity, subnet in ec2._subnets.items():
            size = ipaddress.ip_network(subnet["CidrBlock"]).num_addresses
            subnet["AvailableIpAddressCount"] = max(0, size - _RESERVED - taken.count(identity))
        return original(parameters)

    actions["DescribeSubnets"] = describe
