# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What EC2 lacks in ministack: what it refuses, its filters, how gateways, endpoints and instances look,
and how full subnets are.

``hooks.check()`` has seen that all that is taken hold of here is there.
"""

from __future__ import annotations

from mwaa_lab.aws.ec2 import endpoints, filters, gateways, instances, strict, subnets


def install() -> None:
    from ministack.services import ec2

    actions = ec2._ACTION_MAP
    endpoints.install(actions)
    gateways.install(actions)
    instances.install(actions)
    subnets.install(actions)
    filters.install(actions)
    strict.install(actions)
