# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""IAM roles of the lab's account that one can assume to be somebody else in an environment's Airflow.

``arn:aws:iam::000000000000:role/mwaa-lab-viewer`` and its like (``-admin``, ``-op``, ``-user``, ``-public``): their
policies name one of MWAA's five roles in all environments, as AWS documents for users (User Guide, "Accessing MWAA").
"""

from __future__ import annotations

import json
from typing import Any

from mwaa_lab.aws.limits import AIRFLOW_ROLES


def policy(role: str, account: str) -> dict[str, Any]:
    """What a principal needs to be ``role``; only an Admin gets tokens for the CLI, which asks for no role."""
    statements = [
        {
            "Effect": "Allow",
            "Action": ["airflow:InvokeRestApi", "airflow:CreateWebLoginToken"],
            "Resource": f"arn:aws:airflow:*:{account}:role/*/{role}",
        }
    ]
    if role == "Admin":
        resource = f"arn:aws:airflow:*:{account}:environment/*"
        statements.append({"Effect": "Allow", "Action": ["airflow:CreateCliToken"], "Resource": resource})
    return {"Version": "2012-10-17", "Statement": statements}


def make(iam: Any, account: str) -> None:
    """Create them. iam: a boto3 client."""
    trust = {"Effect": "Allow", "Principal": {"AWS": f"arn:aws:iam::{account}:root"}, "Action": "sts:AssumeRole"}
    for role in AIRFLOW_ROLES:
        name = f"mwaa-lab-{role.lower()}"
        document = json.dumps({"Version": "2012-10-17", "Statement": [trust]})
        iam.create_role(RoleName=name, AssumeRolePolicyDocument=document)
        iam.put_role_policy(RoleName=name, PolicyName="airflow", PolicyDocument=json.dumps(policy(role, account)))
