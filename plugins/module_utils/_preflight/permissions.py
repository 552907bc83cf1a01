# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which actions an environment's role needs, and whoever creates it. Data.

PRIVATE to the collection: no promise is made to other collections.

Sources: MWAA user guide, "Amazon MWAA execution role" (mwaa-create-role) and "Accessing an Amazon MWAA environment"
(access-policies: AmazonMWAAFullApiAccess). Patterns there, such as s3:List*, stand here as the actions that MWAA calls.
"""

from __future__ import annotations

from typing import Any, NamedTuple

ELSEWHERE = "111122223333"  # MWAA's queues, and AWS's own keys, belong to other accounts
SERVICE = "airflow.amazonaws.com"
LINKED_ROLE = "AWSServiceRoleForAmazonMWAA"
# keys of conditions that hold for all of these calls
ALWAYS = {"aws:SecureTransport": "true", "aws:PrincipalIsAWSService": "false", "kms:GrantIsForAWSResource": "true"}

# of the role on the queue between scheduler and workers
QUEUE_ACTIONS = (
    "sqs:ChangeMessageVisibility",
    "sqs:DeleteMessage",
    "sqs:GetQueueAttributes",
    "sqs:GetQueueUrl",
    "sqs:ReceiveMessage",
    "sqs:SendMessage",
)


class Need(NamedTuple):
    """actions on one resource, asked with a condition's keys. purpose: what cannot be done without."""

    resource: str
    actions: tuple[str, ...]
    context: dict[str, str]
    purpose: str


def of_role(snapshot: Any, key_arn: str | None) -> list[Need]:
    """Of the execution role. key_arn: of the environment's own key; None: AWS's."""
    partition, region, account, name = snapshot.partition, snapshot.region, snapshot.account, snapshot.name
    bucket = f"arn:{partition}:s3:::{snapshot.bucket}"
    group = f"arn:{partition}:logs:{region}:{account}:log-group:airflow-{name}-Task"
    key = key_arn or f"arn:{partition}:kms:{region}:{ELSEWHERE}:key/preflight"
    use = ("kms:Decrypt", "kms:DescribeKey", "kms:Encrypt", "kms:GenerateDataKey")
    needs = [
        Need(snapshot.arn, ("airflow:PublishMetrics",), {}, "metrics"),
        Need(
            bucket,
            ("s3:GetBucketLocation", "s3:GetBucketPublicAccessBlock", "s3:GetBucketVersioning", "s3:ListBucket"),
            {},
            "the bucket",
        ),
        Need(f"{bucket}/{snapshot['dag_s3_path'] or 'dags'}/a.py", ("s3:GetObject", "s3:GetObjectVersion"), {}, "DAGs"),
        Need(
            "*", ("cloudwatch:PutMetricData", "logs:DescribeLogGroups", "s3:GetAccountPublicAccessBlock"), {}, "metrics"
        ),
        Need(group, ("logs:CreateLogGroup",), {}, "logs"),
        Need(
            f"{group}:log-stream:a",
            ("logs:CreateLogStream", "logs:DescribeLogStreams", "logs:GetLogEvents", "logs:PutLogEvents"),
            {},
            "logs",
        ),
        Need(
            f"arn:{partition}:sqs:{region}:{ELSEWHERE}:airflow-celery-a",
            QUEUE_ACTIONS,
            {},
            "tasks",
        ),
        Need(key, use, {"kms:ViaService": f"sqs.{region}.amazonaws.com"}, "tasks in the queue"),
    ]
    if key_arn:
        needs.append(Need(key, use, {"kms:ViaService": f"s3.{region}.amazonaws.com"}, "objects of the bucket"))
    return needs


def of_caller(snapshot: Any, key_arn: str | None, vpc: str | None) -> dict[str, list[Need]]:
    """Of whoever creates or updates the environment, by the rule that judges them."""
    partition, region, account = snapshot.partition, snapshot.region, snapshot.account
    here = f"arn:{partition}:ec2:{region}:{account}"
    verb = "Update" if snapshot.environment else "Create"
    needs: dict[str, list[Need]] = {
        "caller-environment": [
            Need(snapshot.arn, (f"airflow:{verb}Environment", "airflow:GetEnvironment"), {}, "the environment")
        ],
        "caller-rest-api": [
            Need(
                f"arn:{partition}:airflow:{region}:{account}:role/{snapshot.name}/Admin",
                ("airflow:InvokeRestApi",),
                {},
                "Airflow's REST API",
            )
        ],
    }
    if snapshot["execution_role_arn"]:
        needs["caller-pass-role"] = [
            Need(snapshot["execution_role_arn"], ("iam:PassRole",), {"iam:PassedToService": SERVICE}, "the role")
        ]
    if snapshot.environment is None:
        linked = f"arn:{partition}:iam::{account}:role/aws-service-role/{SERVICE}/{LINKED_ROLE}"
        needs["caller-service-linked-role"] = [
            Need(linked, ("iam:CreateServiceLinkedRole",), {"iam:AWSServiceName": SERVICE}, "MWAA's own role")
        ]
        if vpc and snapshot["endpoint_management"] != "CUSTOMER":
            # MWAA tries these with the caller's own credentials before it begins (UG t-create-update-environment)
            subnet = f"{here}:subnet/{snapshot['subnet_ids'][0]}"
            group = f"{here}:security-group/{(snapshot['security_group_ids'] or ['*'])[0]}"
            endpoint = ("ec2:CreateVpcEndpoint",)
            needs["caller-network"] = [
                Need(f"{here}:vpc-endpoint/*", endpoint, {}, "endpoints"),
                Need(f"{here}:vpc/{vpc}", endpoint, {}, "endpoints"),
                Need(subnet, (*endpoint, "ec2:CreateNetworkInterface"), {}, "endpoints"),
                Need(group, endpoint, {}, "endpoints"),
                Need(f"{here}:network-interface/*", ("ec2:CreateNetworkInterface",), {}, "interfaces"),
                Need(
                    "*",
                    (
                        "ec2:DescribeRouteTables",
                        "ec2:DescribeSecurityGroups",
                        "ec2:DescribeSubnets",
                        "ec2:DescribeVpcs",
                    ),
                    {},
                    "the network",
                ),
            ]
        if snapshot["source_bucket"]:
            bucket = f"arn:{partition}:s3:::{snapshot.bucket}"
            needs["caller-environment"].append(Need(bucket, ("s3:GetEncryptionConfiguration",), {}, "the bucket"))
    if key_arn and snapshot.environment is None:
        needs["caller-key"] = [
            Need(
                key_arn,
                (
                    "kms:CreateGrant",
                    "kms:Decrypt",
                    "kms:DescribeKey",
                    "kms:Encrypt",
                    "kms:GenerateDataKey",
                    "kms:ListGrants",
                    "kms:RevokeGrant",
                ),
                {},
                "the key",
            )
        ]
    return needs
