# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which IAM actions on which resources a request needs, and what CloudFormation and MWAA do in their caller's name.

As the Service Authorization Reference has them; of CloudFormation's types, what the registry's handlers call for the
properties that are set. MWAA's dry run: the user guide's AmazonMWAAFullApiAccess.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from mwaa_lab.aws import hooks

SERVICE_LINKED_ROLE = "aws-service-role/airflow.amazonaws.com/AWSServiceRoleForAmazonMWAA"

Properties = dict[str, Any]


@dataclass(frozen=True)
class Need:
    """One action on one resource, with the condition keys that the request brings (lower case)."""

    action: str
    resource: str = "*"
    context: dict[str, Any] = field(default_factory=dict, compare=False)


@dataclass(frozen=True)
class Request:
    """A signed request, as far as it decides what it needs."""

    service: str
    """As it was signed for."""
    operation: str
    method: str
    path: str
    headers: dict[str, str]
    query: dict[str, list[str]]
    body: bytes
    account: str
    region: str

    def arn(self, rest: str, service: str = "", region: bool = True, account: bool = True) -> str:
        where = f"{self.region if region else ''}:{self.account if account else ''}"
        return f"arn:aws:{service or self.service}:{where}:{rest}"

    @property
    def form(self) -> dict[str, list[str]]:
        """Query string and form."""
        if "x-www-form-urlencoded" not in self.headers.get("content-type", ""):
            return self.query
        return {**parse_qs(self.body.decode("utf-8", "replace"), keep_blank_values=True), **self.query}

    @property
    def document(self) -> dict[str, Any]:
        """The JSON body."""
        try:
            found = json.loads(self.body) if self.body[:1] == b"{" else {}
        except ValueError:
            return {}
        return found if isinstance(found, dict) else {}

    def value(self, *names: str) -> str:
        """The first of these parameters that the form has."""
        form = self.form
        return next((form[name][0] for name in names if form.get(name)), "")


def of(request: Request) -> list[Need]:
    """What a request needs, its main action first; an InvokeRestApi and its like are the control plane's own matter."""
    special = _SERVICES.get(request.service)
    return special(request) if special else [Need(_action(request))]


def _action(request: Request) -> str:
    return f"{hooks.iam_namespace(request.service)}:{request.operation}"


def _reads_names(operation: str) -> bool:
    return operation.startswith(("Describe", "List"))


# --- service by service ----------------------------------------------------------------------------------------------


def _s3(request: Request) -> list[Need]:
    if request.path.startswith("/v20180820/"):  # S3 Control
        kind = request.operation.replace("PublicAccessBlock", "AccountPublicAccessBlock")
        return [Need(f"s3:{kind}")]
    needs = [
        Need(action, resource, context)
        for action, resource, context in hooks.s3_needs(
            request.method, request.path, request.headers, request.query, request.body
        )
    ]
    found = list(needs)
    for need in needs:
        key = hooks.s3_key(need.action, need.resource, request.headers)
        if key:
            via = {"kms:viaservice": f"s3.{request.region}.amazonaws.com"}
            writes = need.action == "s3:PutObject"
            found.append(Need("kms:GenerateDataKey" if writes else "kms:Decrypt", key, via))
    return found


_EC2_TYPES = {
    "VpcId": "vpc",
    "SubnetId": "subnet",
    "GroupId": "security-group",
    "SecurityGroupId": "security-group",
    "RouteTableId": "route-table",
    "InternetGatewayId": "internet-gateway",
    "NatGatewayId": "natgateway",
    "AllocationId": "elastic-ip",
    "VpcEndpointId": "vpc-endpoint",
    "NetworkAclId": "network-acl",
    "NetworkInterfaceId": "network-interface",
    "InstanceId": "instance",
}
_EC2_PREFIXES = {
    "vpc": "vpc",
    "subnet": "subnet",
    "sg": "security-group",
    "rtb": "route-table",
    "igw": "internet-gateway",
    "nat": "natgateway",
    "eipalloc": "elastic-ip",
    "vpce": "vpc-endpoint",
    "acl": "network-acl",
    "eni": "network-interface",
    "i": "instance",
}
_EC2_MADE = {
    "CreateVpc": "vpc",
    "CreateSubnet": "subnet",
    "CreateSecurityGroup": "security-group",
    "CreateRouteTable": "route-table",
    "CreateInternetGateway": "internet-gateway",
    "CreateNatGateway": "natgateway",
    "AllocateAddress": "elastic-ip",
    "CreateVpcEndpoint": "vpc-endpoint",
    "CreateNetworkInterface": "network-interface",
    "RunInstances": "instance",
}


def _ec2(request: Request) -> list[Need]:
    action = f"ec2:{request.operation}"
    if _reads_names(request.operation):
        return [Need(action)]
    form, resources = request.form, []
    made = _EC2_MADE.get(request.operation)
    if made:
        resources.append(request.arn(f"{made}/*"))
    for name, values in sorted(form.items()):
        plain = re.sub(r"\.\d+$", "", name)
        if request.operation.endswith("Route") and plain != "RouteTableId":
            continue  # where it leads to is not asked about
        if plain in _EC2_TYPES:
            resources.append(request.arn(f"{_EC2_TYPES[plain]}/{values[0]}"))
        elif plain == "ResourceId":
            kind = _EC2_PREFIXES.get(values[0].partition("-")[0], "*")
            resources.append(request.arn(f"{kind}/{values[0]}"))
    tags = hooks.tag_context("ec2", action, request.body, form)
    needs = [Need(action, resource, tags) for resource in dict.fromkeys(resources)] or [Need(action, "*", tags)]
    if made and any(name.startswith("TagSpecification.") for name in form):
        context = {**tags, "ec2:createaction": request.operation}
        needs.append(Need("ec2:CreateTags", request.arn(f"{made}/*"), context))
    return needs


def role_arn(account: str, name: str) -> str:
    """Of a role by its name; one that exists may have a path."""
    path = SERVICE_LINKED_ROLE if name == SERVICE_LINKED_ROLE.rpartition("/")[2] else name
    return hooks.role_arn(name) or f"arn:aws:iam::{account}:role/{path}"


def _iam(request: Request) -> list[Need]:
    def arn(rest: str) -> str:
        return request.arn(rest, region=False)

    operation, value = request.operation, request.value
    resource, context = "*", hooks.tag_context("iam", f"iam:{operation}", request.body, request.form)
    if operation == "CreateServiceLinkedRole":
        service = value("AWSServiceName")
        airflow = service == "airflow.amazonaws.com"
        path = SERVICE_LINKED_ROLE if airflow else f"aws-service-role/{service}/AWSServiceRoleFor*"
        resource, context = arn(f"role/{path}"), {"iam:awsservicename": service}
    elif value("RoleName"):
        made = operation == "CreateRole"
        resource = (
            arn(f"role{value('Path') or '/'}{value('RoleName')}")
            if made
            else role_arn(request.account, value("RoleName"))
        )
    elif value("InstanceProfileName"):
        resource = arn(f"instance-profile/{value('InstanceProfileName')}")
    elif value("UserName"):
        resource = arn(f"user/{value('UserName')}")
    elif value("GroupName"):
        resource = arn(f"group/{value('GroupName')}")
    elif value("PolicyArn", "PolicySourceArn"):
        resource = value("PolicyArn", "PolicySourceArn")
    elif value("PolicyName"):
        resource = arn(f"policy{value('Path') or '/'}{value('PolicyName')}")
    if value("PolicyArn"):
        context["iam:policyarn"] = value("PolicyArn")
    if value("PermissionsBoundary"):
        context["iam:permissionsboundary"] = value("PermissionsBoundary")
    return [Need(f"iam:{operation}", resource, context)]


def _sts(request: Request) -> list[Need]:
    if request.operation in ("GetCallerIdentity", "GetSessionToken"):
        return []  # nobody can be denied these
    return [Need(f"sts:{request.operation}", request.value("RoleArn") or "*")]


def _kms(request: Request) -> list[Need]:
    operation, given = request.operation, request.document
    if operation in ("CreateKey", "ListKeys", "ListAliases", "GenerateRandom"):
        return [Need(f"kms:{operation}", "*", hooks.tag_context("kms", f"kms:{operation}", request.body, {}))]
    context: dict[str, Any] = {}
    constraints = given.get("Constraints") or {}
    pairs: Any = given.get("EncryptionContext") or next(iter(constraints.values()), {})
    if isinstance(pairs, dict) and pairs:
        context = {f"kms:encryptioncontext:{key}".lower(): value for key, value in pairs.items()}
        context["kms:encryptioncontextkeys"] = list(pairs)
    if operation == "CreateGrant":
        context["kms:granteeprincipal"] = given.get("GranteePrincipal")
        context["kms:grantoperations"] = given.get("Operations") or []
        context["kms:grantisforawsresource"] = "false"
        if constraints:
            context["kms:grantconstrainttype"] = next(iter(constraints))
    if operation == "ReEncrypt":
        source = hooks.kms_key(str(given.get("SourceKeyId") or ""), str(given.get("CiphertextBlob") or ""))
        target = hooks.kms_key(str(given.get("DestinationKeyId") or ""))
        return [Need("kms:ReEncryptFrom", source or "*", context), Need("kms:ReEncryptTo", target or "*", context)]
    key = hooks.kms_key(
        str(given.get("KeyId") or given.get("TargetKeyId") or ""), str(given.get("CiphertextBlob") or "")
    )
    needs = [Need(f"kms:{operation}", key or "*", context)]
    if operation.endswith("Alias"):
        needs.insert(0, Need(f"kms:{operation}", request.arn(str(given.get("AliasName") or "alias/*"))))
        needs = [need for need in needs if need.resource != "*"]
    return needs


def _secretsmanager(request: Request) -> list[Need]:
    operation, given = request.operation, request.document
    action = f"secretsmanager:{operation}"
    tags = hooks.tag_context("secretsmanager", action, request.body, {})

    def arn(name: str) -> str:
        # A secret that does not exist yet has six characters that nobody knows.
        return hooks.secret_arn(name) or (name if name.startswith("arn:") else request.arn(f"secret:{name}-??????"))

    def key(name: str, verb: str) -> list[Need]:
        found = hooks.kms_key(str(given.get("KmsKeyId") or hooks.secret_key(name) or ""))
        context = {
            "kms:viaservice": f"secretsmanager.{request.region}.amazonaws.com",
            "kms:encryptioncontext:secretarn": arn(name),
        }
        return [Need(f"kms:{verb}", found, context)] if found else []

    name = str(given.get("SecretId") or given.get("Name") or "")
    if operation == "BatchGetSecretValue":
        wanted = [str(one) for one in given.get("SecretIdList") or []]
        read = [Need("secretsmanager:GetSecretValue", arn(one)) for one in wanted]
        return [Need(action), *read, *(need for one in wanted for need in key(one, "Decrypt"))]
    if not name:
        return [Need(action)]
    needs = [Need(action, arn(name), {**tags, "secretsmanager:name": name})]
    if operation == "CreateSecret" and given.get("Tags"):
        needs.append(Need("secretsmanager:TagResource", arn(name), tags))
    if operation == "GetSecretValue":
        needs += key(name, "Decrypt")
    elif operation in ("CreateSecret", "PutSecretValue", "UpdateSecret"):
        needs += key(name, "GenerateDataKey") + key(name, "Decrypt")
    return needs


def _ssm(request: Request) -> list[Need]:
    given = request.document
    names = given.get("Names") or [given.get("Name") or given.get("Path") or given.get("ResourceId")]
    resources = [request.arn("parameter/" + str(name).lstrip("/")) for name in names if name]
    context = hooks.tag_context("ssm", _action(request), request.body, {})
    return [Need(_action(request), resource, context) for resource in resources] or [Need(_action(request))]


_LOG_GROUP_ALONE = ("TagResource", "UntagResource", "ListTagsForResource")
_LOG_STREAMS = ("PutLogEvents", "GetLogEvents", "CreateLogStream", "DeleteLogStream")
_LOG_NOTHING = ("GetQueryResults", "StopQuery", "DescribeQueries", "DescribeExportTasks", "CancelExportTask")


def _logs(request: Request) -> list[Need]:
    operation, given = request.operation, request.document
    action = f"logs:{operation}"
    context = hooks.tag_context("logs", action, request.body, {})
    if operation in _LOG_GROUP_ALONE:
        return [Need(action, str(given.get("resourceArn") or "*"), context)]
    if operation == "DescribeLogGroups":
        return [Need(action, request.arn("log-group:*"))]
    if operation in _LOG_NOTHING:
        return [Need(action)]
    names = [given.get("logGroupName"), given.get("logGroupIdentifier"), *(given.get("logGroupNames") or [])]
    groups = [str(name).rpartition("log-group:")[2].removesuffix(":*") for name in names if name]
    stream = f"log-stream:{given.get('logStreamName') or ''}" if operation in _LOG_STREAMS else "*"
    return [Need(action, request.arn(f"log-group:{group}:{stream}"), context) for group in groups] or [Need(action)]


_STACK_NOTHING = (
    "ListStacks",
    "ListExports",
    "ListImports",
    "ValidateTemplate",
    "DescribeStackDriftDetectionStatus",
    "EstimateTemplateCost",
    "DescribeAccountLimits",
)


def _cloudformation(request: Request) -> list[Need]:
    operation, name, role = request.operation, request.value("StackName"), request.value("RoleARN")
    action = f"cloudformation:{operation}"
    change_set = request.value("ChangeSetName")
    if not name and change_set.startswith("arn:"):
        name = hooks.stack_of_change_set(change_set)
    context: dict[str, Any] = hooks.tag_context("cloudformation", action, request.body, request.form)
    if role:
        context["cloudformation:rolearn"] = role
    if change_set:
        context["cloudformation:changesetname"] = change_set
    resource = "*"
    if name and operation not in _STACK_NOTHING:
        resource = name if name.startswith("arn:") else hooks.stack_arn(name) or request.arn(f"stack/{name}/*")
    needs = [Need(action, resource, context)]
    if template := request.value("TemplateURL"):
        needs.append(Need("s3:GetObject", _object_of(template)))
    if role:
        needs.append(pass_role(role, "cloudformation.amazonaws.com"))
    return needs


def _object_of(url: str) -> str:
    parts = urlsplit(url)
    path = unquote(parts.path).lstrip("/")
    bucket = re.match(r"(.+)\.s3[.-]", parts.netloc)
    return f"arn:aws:s3:::{bucket[1]}/{path}" if bucket else f"arn:aws:s3:::{path}"


def pass_role(role: str, service: str) -> Need:
    return Need("iam:PassRole", role, {"iam:passedtoservice": service})


_ROLE_CALLS = ("InvokeRestApi", "CreateWebLoginToken")


def _airflow(request: Request) -> list[Need]:
    if request.operation in (*_ROLE_CALLS, "CreateCliToken"):
        return []  # asked for by the control plane, which knows the environment and its roles
    name = unquote(request.path.rstrip("/").rpartition("/")[2])
    resource = "*"
    if request.operation.endswith(("TagResource", "TagsForResource")) or request.operation == "UntagResource":
        resource = unquote(request.path.partition("/tags/")[2])
    elif request.operation != "ListEnvironments":
        resource = request.arn(f"environment/{name}")
    tags = request.document.get("Tags")
    context: dict[str, Any] = {}
    if isinstance(tags, dict) and tags:
        context = {f"aws:requesttag/{key}".lower(): value for key, value in tags.items()}
        context["aws:tagkeys"] = list(tags)
    return [Need(f"airflow:{request.operation}", resource, context)]


def _datapipeline(request: Request) -> list[Need]:
    return [Need(f"datapipeline:{request.operation}")]


_SERVICES: dict[str, Callable[[Request], list[Need]]] = {
    "airflow": _airflow,
    "cloudformation": _cloudformation,
    "datapipeline": _datapipeline,
    "ec2": _ec2,
    "iam": _iam,
    "kms": _kms,
    "logs": _logs,
    "s3": _s3,
    "secretsmanager": _secretsmanager,
    "ssm": _ssm,
    "sts": _sts,
}


# --- MWAA, in its caller's name --------------------------------------------------------------------------------------

_KEY_ACTIONS = (
    "DescribeKey",
    "ListGrants",
    "CreateGrant",
    "RevokeGrant",
    "Decrypt",
    "Encrypt",
    "GenerateDataKey",
    "GenerateDataKeyWithoutPlaintext",
    "ReEncryptFrom",
    "ReEncryptTo",
)


def dry_run(values: dict[str, Any], account: str, region: str) -> list[Need]:
    """What MWAA tries with its caller's own permissions before it makes an environment.

    :param values: CreateEnvironment's input.
    """

    def ec2(rest: str) -> str:
        return f"arn:aws:ec2:{region}:{account}:{rest}"

    network = values.get("NetworkConfiguration") or {}
    subnets = [ec2(f"subnet/{one}") for one in network.get("SubnetIds") or []]
    groups = [ec2(f"security-group/{one}") for one in network.get("SecurityGroupIds") or []]
    vpcs = [ec2(f"vpc/{one}") for one in hooks.vpcs_of(network.get("SubnetIds") or [])]
    needs = [pass_role(values["ExecutionRoleArn"], "airflow.amazonaws.com")]
    if hooks.role_arn(SERVICE_LINKED_ROLE.rpartition("/")[2]) is None:
        context = {"iam:awsservicename": "airflow.amazonaws.com"}
        role = f"arn:aws:iam::{account}:role/{SERVICE_LINKED_ROLE}"
        needs.append(Need("iam:CreateServiceLinkedRole", role, context))
    needs += [Need(f"ec2:Describe{kind}") for kind in ("SecurityGroups", "Subnets", "Vpcs")]
    needs.append(Need("s3:GetEncryptionConfiguration", values["SourceBucketArn"]))
    needs += [Need("ec2:CreateVpcEndpoint", one) for one in (ec2("vpc-endpoint/*"), *vpcs, *subnets, *groups)]
    needs += [Need("ec2:CreateNetworkInterface", one) for one in (ec2("network-interface/*"), *subnets, *groups)]
    if values.get("KmsKey"):
        given = values["KmsKey"].removeprefix("key/")
        key = hooks.kms_key(given) or (given if given.startswith("arn:") else f"arn:aws:kms:{region}:{account}:key/*")
        needs += [Need(f"kms:{verb}", key, {"kms:grantisforawsresource": "true"}) for verb in _KEY_ACTIONS]
    return needs


def update(values: dict[str, Any]) -> list[Need]:
    """What MWAA tries before it updates an environment: a role can only be put in by who may pass it."""
    role = values.get("ExecutionRoleArn")
    return [pass_role(role, "airflow.amazonaws.com")] if role else []


# --- CloudFormation, in its caller's name ----------------------------------------------------------------------------


@dataclass(frozen=True)
class Kind:
    """What CloudFormation calls for resources of one type. Actions without ``service:`` are the type's own."""

    service: str
    resource: str
    """ARN's end with ``{id}`` (``*`` where it does not exist yet), or ``*``."""
    create: tuple[str, ...]
    delete: tuple[str, ...]
    read: tuple[str, ...]
    update: tuple[str, ...] = ()
    properties: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """What more a property takes, when it is set or changes."""
    named: str = ""
    """The property that is the name, for one that does not exist yet."""
    beside: dict[str, str] = field(default_factory=dict)
    """Of EC2: properties that name resources which the creation is checked on, too."""
    owner: str = ""
    """The property that names the resource that is changed, where this is only a part of it."""
    regional: bool = True
    tags: str = ""
    """The action that gives tags: CloudFormation tags all that it makes."""
    watched: bool = True
    """The first action of reading tells when a step is done."""


def _in_ec2(kind: str, create: str, delete: str, read: str, *reads: str, **more: Any) -> Kind:
    return Kind("ec2", f"{kind}/{{id}}", (create,), (delete,), (read, *reads), **{"tags": "CreateTags", **more})


_BUCKET_READS = (
    "GetAccelerateConfiguration",
    "GetLifecycleConfiguration",
    "GetBucketPublicAccessBlock",
    "GetAnalyticsConfiguration",
    "GetBucketCORS",
    "GetEncryptionConfiguration",
    "GetInventoryConfiguration",
    "GetBucketLogging",
    "GetMetricsConfiguration",
    "GetBucketNotification",
    "GetBucketVersioning",
    "GetReplicationConfiguration",
    "GetBucketWebsite",
    "GetBucketObjectLockConfiguration",
    "GetBucketTagging",
    "GetBucketOwnershipControls",
    "GetIntelligentTieringConfiguration",
    "GetBucketAbac",
    "GetBucketMetadataTableConfiguration",
    "ListTagsForResource",
    "ListBucket",
)
_VPC = {"VpcId": "vpc"}
_ROUTES = {"owner": "RouteTableId", "tags": ""}
_RULES = {"owner": "GroupId", "tags": ""}

KINDS: dict[str, Kind] = {
    "AWS::EC2::VPC": _in_ec2(
        "vpc",
        "CreateVpc",
        "DeleteVpc",
        "DescribeVpcs",
        "DescribeVpcAttribute",
        "DescribeVpcEncryptionControls",
        "DescribeSecurityGroups",
        "DescribeNetworkAcls",
        properties=dict.fromkeys(("EnableDnsSupport", "EnableDnsHostnames"), ("ModifyVpcAttribute",)),
    ),
    "AWS::EC2::Subnet": _in_ec2(
        "subnet",
        "CreateSubnet",
        "DeleteSubnet",
        "DescribeSubnets",
        "DescribeNetworkAcls",
        beside=_VPC,
        properties={"MapPublicIpOnLaunch": ("ModifySubnetAttribute",)},
    ),
    "AWS::EC2::SecurityGroup": _in_ec2(
        "security-group",
        "CreateSecurityGroup",
        "DeleteSecurityGroup",
        "DescribeSecurityGroups",
        beside=_VPC,
        properties={
            "SecurityGroupIngress": ("AuthorizeSecurityGroupIngress",),
            "SecurityGroupEgress": ("AuthorizeSecurityGroupEgress", "RevokeSecurityGroupEgress"),
        },
    ),
    "AWS::EC2::SecurityGroupIngress": _in_ec2(
        "security-group",
        "AuthorizeSecurityGroupIngress",
        "RevokeSecurityGroupIngress",
        "DescribeSecurityGroupRules",
        **_RULES,
    ),
    "AWS::EC2::SecurityGroupEgress": _in_ec2(
        "security-group",
        "AuthorizeSecurityGroupEgress",
        "RevokeSecurityGroupEgress",
        "DescribeSecurityGroupRules",
        **_RULES,
    ),
    "AWS::EC2::InternetGateway": _in_ec2(
        "internet-gateway", "CreateInternetGateway", "DeleteInternetGateway", "DescribeInternetGateways"
    ),
    "AWS::EC2::VPCGatewayAttachment": _in_ec2(
        "vpc", "AttachInternetGateway", "DetachInternetGateway", "DescribeInternetGateways", owner="VpcId", tags=""
    ),
    "AWS::EC2::RouteTable": _in_ec2(
        "route-table", "CreateRouteTable", "DeleteRouteTable", "DescribeRouteTables", beside=_VPC
    ),
    "AWS::EC2::Route": _in_ec2(
        "route-table", "CreateRoute", "DeleteRoute", "DescribeRouteTables", update=("ReplaceRoute",), **_ROUTES
    ),
    "AWS::EC2::SubnetRouteTableAssociation": _in_ec2(
        "route-table", "AssociateRouteTable", "DisassociateRouteTable", "DescribeRouteTables", **_ROUTES
    ),
    "AWS::EC2::EIP": _in_ec2("elastic-ip", "AllocateAddress", "ReleaseAddress", "DescribeAddresses"),
    "AWS::EC2::NatGateway": _in_ec2(
        "natgateway",
        "CreateNatGateway",
        "DeleteNatGateway",
        "DescribeNatGateways",
        beside={"SubnetId": "subnet", "AllocationId": "elastic-ip"},
    ),
    "AWS::EC2::VPCEndpoint": _in_ec2(
        "vpc-endpoint",
        "CreateVpcEndpoint",
        "DeleteVpcEndpoints",
        "DescribeVpcEndpoints",
        "DescribeVpcs",
        "DescribeSubnets",
        "DescribeSecurityGroups",
        update=("ModifyVpcEndpoint",),
        beside={
            "VpcId": "vpc",
            "SubnetIds": "subnet",
            "SecurityGroupIds": "security-group",
            "RouteTableIds": "route-table",
        },
    ),
    "AWS::S3::Bucket": Kind(
        "s3",
        "{id}",
        ("CreateBucket",),
        ("DeleteBucket",),
        _BUCKET_READS,
        named="BucketName",
        regional=False,
        tags="PutBucketTagging",
        watched=False,
        properties={
            "VersioningConfiguration": ("PutBucketVersioning",),
            "BucketEncryption": ("PutEncryptionConfiguration",),
            "PublicAccessBlockConfiguration": ("PutBucketPublicAccessBlock",),
            "LifecycleConfiguration": ("PutLifecycleConfiguration",),
            "LoggingConfiguration": ("PutBucketLogging",),
            "OwnershipControls": ("PutBucketOwnershipControls",),
            "NotificationConfiguration": ("PutBucketNotification",),
            "CorsConfiguration": ("PutBucketCORS",),
        },
    ),
    "AWS::S3::BucketPolicy": Kind(
        "s3",
        "{id}",
        ("PutBucketPolicy",),
        ("DeleteBucketPolicy",),
        ("GetBucketPolicy",),
        update=("PutBucketPolicy",),
        owner="Bucket",
        regional=False,
    ),
    "AWS::IAM::Role": Kind(
        "iam",
        "role/{id}",
        ("CreateRole",),
        ("DeleteRole",),
        ("GetRole", "ListAttachedRolePolicies", "ListRolePolicies", "GetRolePolicy"),
        named="RoleName",
        regional=False,
        tags="TagRole",
        properties={
            "AssumeRolePolicyDocument": ("UpdateAssumeRolePolicy",),
            "Policies": ("PutRolePolicy", "DeleteRolePolicy"),
            "ManagedPolicyArns": ("AttachRolePolicy", "DetachRolePolicy"),
            "PermissionsBoundary": ("PutRolePermissionsBoundary",),
            "MaxSessionDuration": ("UpdateRole",),
            "Description": ("UpdateRole",),
        },
    ),
    "AWS::IAM::RolePolicy": Kind(
        "iam",
        "role/{id}",
        ("PutRolePolicy",),
        ("DeleteRolePolicy",),
        ("GetRolePolicy",),
        update=("PutRolePolicy",),
        owner="RoleName",
        regional=False,
    ),
    "AWS::IAM::ManagedPolicy": Kind(
        "iam",
        "policy/{id}",
        ("CreatePolicy",),
        ("DeletePolicy",),
        ("GetPolicy", "GetPolicyVersion", "ListEntitiesForPolicy"),
        named="ManagedPolicyName",
        watched=False,
        regional=False,
        properties={"PolicyDocument": ("CreatePolicyVersion", "ListPolicyVersions", "DeletePolicyVersion")},
    ),
    "AWS::KMS::Key": Kind(
        "kms",
        "key/{id}",
        ("CreateKey",),
        ("ScheduleKeyDeletion",),
        ("DescribeKey", "GetKeyPolicy", "GetKeyRotationStatus", "ListResourceTags"),
        tags="TagResource",
        watched=False,
        properties={"EnableKeyRotation": ("EnableKeyRotation",), "KeyPolicy": ("PutKeyPolicy",)},
    ),
    "AWS::KMS::Alias": Kind(
        "kms",
        "{id}",
        ("CreateAlias",),
        ("DeleteAlias",),
        ("ListAliases",),
        ("UpdateAlias",),
        named="AliasName",
        watched=False,
    ),
    "AWS::Logs::LogGroup": Kind(
        "logs",
        "log-group:{id}:*",
        ("CreateLogGroup",),
        ("DeleteLogGroup",),
        (
            "DescribeLogGroups",
            "ListTagsForResource",
            "DescribeIndexPolicies",
            "DescribeResourcePolicies",
            "GetDataProtectionPolicy",
        ),
        named="LogGroupName",
        tags="TagResource",
        properties={"RetentionInDays": ("PutRetentionPolicy",), "KmsKeyId": ("AssociateKmsKey",)},
    ),
    "AWS::SecretsManager::Secret": Kind(
        "secretsmanager",
        "secret:{id}-??????",
        ("CreateSecret",),
        ("DeleteSecret",),
        ("DescribeSecret",),
        update=("UpdateSecret",),
        named="Name",
        tags="TagResource",
        properties={"GenerateSecretString": ("GetRandomPassword",)},
    ),
    "AWS::SSM::Parameter": Kind(
        "ssm",
        "parameter/{id}",
        ("PutParameter",),
        ("DeleteParameter",),
        ("GetParameters",),
        update=("PutParameter",),
        named="Name",
    ),
    "AWS::MWAA::Environment": Kind(
        "airflow",
        "environment/{id}",
        ("CreateEnvironment",),
        ("DeleteEnvironment",),
        ("GetEnvironment",),
        update=("UpdateEnvironment",),
        named="Name",
        tags="TagResource",
    ),
}
_WITHOUT_RESOURCE = re.compile(
    r"ec2:Describe|kms:(CreateKey|ListAliases)|secretsmanager:GetRandomPassword|logs:Describe(LogGroups|ResourcePolicies)"
)
# Only an update calls these for a property: creation has it among its own arguments, or needs no more for it.
_UPDATE_ONLY = frozenset(
    [
        "UpdateAssumeRolePolicy",
        "UpdateRole",
        "DeleteRolePolicy",
        "DetachRolePolicy",
        "CreatePolicyVersion",
        "ListPolicyVersions",
        "DeletePolicyVersion",
        "PutKeyPolicy",
    ]
)


def of_resource(
    kind: str, step: str, identifier: str, old: Properties, new: Properties, account: str, region: str, stack: str = ""
) -> list[Need]:
    """What CloudFormation calls to create, update, delete or read a resource.

    :param step: ``create``, ``update``, ``delete`` or ``read`` (import, drift).
    :param stack: whose name the names begin with that CloudFormation finds by itself.
    :param identifier: physical id; empty for one that does not exist yet. :return: nothing for a type not in KINDS.
    """
    about = KINDS.get(kind)
    if about is None:
        return []
    properties = new or old
    name = str(properties.get(about.owner) or identifier) if about.owner else identifier
    made_up = (stack.lower() if about.service == "s3" else stack) + "-*" if stack and about.named else "*"
    name = name or str(properties.get(about.named) or made_up)
    where = f"{region if about.regional else ''}:{'' if about.service == 's3' else account}"

    def arn(rest: str) -> str:
        return f"arn:aws:{about.service}:{where}:{rest}"

    if about.service == "iam" and name != "*":
        resource = name if name.startswith("arn:") else _named_in_iam(about, name, account)
    elif about.service == "kms" and kind.endswith("Key") and name != "*":
        resource = hooks.kms_key(name) or arn(f"key/{name}")
    elif name.startswith("arn:"):
        resource = name
    else:
        resource = arn(about.resource.format(id=name.lstrip("/") if about.service == "ssm" else name))

    def needs(actions: Iterable[str]) -> list[Need]:
        named = [f"{about.service}:{action}" for action in dict.fromkeys(actions)]
        return [Need(action, "*" if _WITHOUT_RESOURCE.match(action) else resource) for action in named]

    touched = [key for key in about.properties if new.get(key) not in (None, "", [], {})]
    if step == "update":
        touched = [key for key in about.properties if new.get(key) != old.get(key)]
    more = [action for key in touched for action in about.properties[key]]
    first = about.read[:1] if about.watched else ()
    if step == "read":
        return needs(about.read)
    if step == "delete":
        return [*needs((*about.delete, *first)), *_emptying(kind, old, resource)]
    if step == "update":
        changes_tags = [about.tags] if about.tags and new.get("Tags") != old.get("Tags") else []
        found = needs((*about.update, *more, *changes_tags, *first))
        return [*found, *update(_changed(old, new))] if about.service == "airflow" else found
    found = needs([action for action in (*about.create, *more, about.tags) if action and action not in _UPDATE_ONLY])
    for key, part in about.beside.items():
        given = new.get(key) or []
        for one in [given] if isinstance(given, str) else given:
            found.append(Need(f"{about.service}:{about.create[0]}", arn(f"{part}/{one}")))
    found += needs(first)
    if about.service == "airflow":
        found += dry_run(new, account, region)
    return found


def _named_in_iam(about: Kind, name: str, account: str) -> str:
    kind = about.resource.partition("/")[0]
    return role_arn(account, name) if kind == "role" else f"arn:aws:iam::{account}:{kind}/{name}"


def _emptying(kind: str, old: Properties, resource: str) -> list[Need]:
    """A role is only deleted without policies."""
    if kind != "AWS::IAM::Role":
        return []
    found = [Need("iam:DeleteRolePolicy", resource)] if old.get("Policies") else []
    return found + ([Need("iam:DetachRolePolicy", resource)] if old.get("ManagedPolicyArns") else [])


def _changed(old: Properties, new: Properties) -> Properties:
    return {key: value for key, value in new.items() if value != old.get(key)}
