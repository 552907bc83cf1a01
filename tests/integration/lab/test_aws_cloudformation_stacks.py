# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""CloudFormation's rules of change sets, imports and drift, as they are on AWS."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable
from typing import Any

import pytest
from botocore.exceptions import ClientError

pytestmark = pytest.mark.lab

NAMED_IAM = ["CAPABILITY_NAMED_IAM"]


def kept(kind: str, properties: dict[str, Any], **more: Any) -> dict[str, Any]:
    policies = {"DeletionPolicy": "Retain", "UpdateReplacePolicy": "Retain"}
    return {"Type": kind, **policies, "Properties": properties, **more}


class Stack:
    """One stack with a name of its own, and the few steps that tests take with it."""

    def __init__(self, lab: Any, name: str) -> None:
        self.cfn = lab.client("cloudformation")
        self.name = name

    def change_set(self, kind: str, resources: dict[str, Any], **more: Any) -> dict[str, Any]:
        """A change set, once it is made or has failed; of an IMPORT with \"identifiers\"."""
        wanted = more.pop("identifiers", {})
        if wanted:
            more["ResourcesToImport"] = [
                {"ResourceType": resources[key]["Type"], "LogicalResourceId": key, "ResourceIdentifier": value}
                for key, value in wanted.items()
            ]
        template = {"Resources": resources, **more.pop("template", {})}
        made = self.cfn.create_change_set(
            StackName=self.name,
            ChangeSetName=f"c-{uuid.uuid4().hex[:6]}",
            ChangeSetType=kind,
            TemplateBody=json.dumps(template),
            Capabilities=more.pop("Capabilities", NAMED_IAM),
            **more,
        )
        while True:
            shown = self.cfn.describe_change_set(ChangeSetName=made["Id"])
            if shown["Status"] not in ("CREATE_PENDING", "CREATE_IN_PROGRESS"):
                return shown
            time.sleep(0.05)

    def run(self, kind: str, resources: dict[str, Any], **more: Any) -> str:
        """Make a change set and execute it; the stack's status afterwards."""
        made = self.change_set(kind, resources, **more)
        assert made["Status"] == "CREATE_COMPLETE", made["StatusReason"]
        self.cfn.execute_change_set(ChangeSetName=made["ChangeSetId"])
        return self.settled()

    def shown(self) -> dict[str, Any]:
        return self.cfn.describe_stacks(StackName=self.name)["Stacks"][0]

    def settled(self) -> str:
        while (status := self.shown()["StackStatus"]).endswith("_IN_PROGRESS"):
            time.sleep(0.05)
        return status

    def delete(self) -> None:
        self.cfn.delete_stack(StackName=self.name)
        self.cfn.get_waiter("stack_delete_complete").wait(StackName=self.name, WaiterConfig={"Delay": 1})

    def drift(self) -> dict[str, dict[str, Any]]:
        """What drift detection finds, by logical id; a detection takes its time."""
        detection = self.cfn.detect_stack_drift(StackName=self.name)["StackDriftDetectionId"]
        seen = []
        while not seen or seen[-1]["DetectionStatus"] == "DETECTION_IN_PROGRESS":
            seen.append(self.cfn.describe_stack_drift_detection_status(StackDriftDetectionId=detection))
            time.sleep(0.05)
        assert seen[0]["DetectionStatus"] == "DETECTION_IN_PROGRESS"
        assert seen[-1]["DetectionStatus"] == "DETECTION_COMPLETE"
        found = self.cfn.describe_stack_resource_drifts(StackName=self.name)["StackResourceDrifts"]
        return {one["LogicalResourceId"]: one for one in found}


@pytest.fixture
def stack(lab: Any) -> Callable[..., Stack]:
    return lambda what="stack": Stack(lab, f"{what}-{uuid.uuid4().hex[:8]}")


class Network:
    """A VPC with all that can be in one, made by plain calls."""

    def __init__(self, lab: Any) -> None:
        ec2 = self.ec2 = lab.client("ec2")
        self.vpc = ec2.create_vpc(CidrBlock="10.7.0.0/16")["Vpc"]["VpcId"]
        self.subnet = ec2.create_subnet(VpcId=self.vpc, CidrBlock="10.7.1.0/24", AvailabilityZone="us-east-1a")[
            "Subnet"
        ]["SubnetId"]
        self.group = ec2.create_security_group(GroupName="g", Description="of tests", VpcId=self.vpc)["GroupId"]
        self.rule = ec2.authorize_security_group_ingress(
            GroupId=self.group,
            IpPermissions=[{"IpProtocol": "-1", "UserIdGroupPairs": [{"GroupId": self.group}]}],
        )["SecurityGroupRules"][0]["SecurityGroupRuleId"]
        self.gateway = ec2.create_internet_gateway()["InternetGateway"]["InternetGatewayId"]
        ec2.attach_internet_gateway(InternetGatewayId=self.gateway, VpcId=self.vpc)
        self.address = ec2.allocate_address(Domain="vpc")
        self.nat = ec2.create_nat_gateway(SubnetId=self.subnet, AllocationId=self.address["AllocationId"])[
            "NatGateway"
        ]["NatGatewayId"]
        self.table = ec2.create_route_table(VpcId=self.vpc)["RouteTable"]["RouteTableId"]
        ec2.create_route(RouteTableId=self.table, DestinationCidrBlock="0.0.0.0/0", NatGatewayId=self.nat)
        self.association = ec2.associate_route_table(RouteTableId=self.table, SubnetId=self.subnet)["AssociationId"]
        self.endpoint = ec2.create_vpc_endpoint(
            VpcId=self.vpc, ServiceName="com.amazonaws.us-east-1.s3", RouteTableIds=[self.table]
        )["VpcEndpoint"]["VpcEndpointId"]

    def resources(self) -> dict[str, tuple[dict[str, Any], dict[str, str]]]:
        """Each resource as a template has it, and its identifier."""
        return {
            "Vpc": (kept("AWS::EC2::VPC", {"CidrBlock": "10.7.0.0/16"}), {"VpcId": self.vpc}),
            "Subnet": (
                kept(
                    "AWS::EC2::Subnet",
                    {"VpcId": self.vpc, "CidrBlock": "10.7.1.0/24", "MapPublicIpOnLaunch": False},
                ),
                {"SubnetId": self.subnet},
            ),
            "Group": (
                kept("AWS::EC2::SecurityGroup", {"GroupDescription": "of tests", "VpcId": self.vpc}),
                {"Id": self.group},
            ),
            "Rule": (
                kept(
                    "AWS::EC2::SecurityGroupIngress",
                    {"GroupId": self.group, "IpProtocol": "-1", "SourceSecurityGroupId": self.group},
                ),
                {"Id": self.rule},
            ),
            "Gateway": (kept("AWS::EC2::InternetGateway", {}), {"InternetGatewayId": self.gateway}),
            "Attachment": (
                kept("AWS::EC2::VPCGatewayAttachment", {"VpcId": self.vpc, "InternetGatewayId": self.gateway}),
                {"AttachmentType": "IGW", "VpcId": self.vpc},
            ),
            "Address": (
                kept("AWS::EC2::EIP", {"Domain": "vpc"}),
                {"PublicIp": self.address["PublicIp"], "AllocationId": self.address["AllocationId"]},
            ),
            "Nat": (
                kept(
                    "AWS::EC2::NatGateway",
                    {"SubnetId": self.subnet, "AllocationId": self.address["AllocationId"]},
                ),
                {"NatGatewayId": self.nat},
            ),
            "Table": (kept("AWS::EC2::RouteTable", {"VpcId": self.vpc}), {"RouteTableId": self.table}),
            "Route": (
                kept(
                    "AWS::EC2::Route",
                    {
                        "RouteTableId": self.table,
                        "DestinationCidrBlock": "0.0.0.0/0",
                        "NatGatewayId": self.nat,
                    },
                ),
                {"RouteTableId": self.table, "CidrBlock": "0.0.0.0/0"},
            ),
            "Association": (
                kept(
                    "AWS::EC2::SubnetRouteTableAssociation",
                    {"RouteTableId": self.table, "SubnetId": self.subnet},
                ),
                {"Id": self.association},
            ),
            "Endpoint": (
                kept(
                    "AWS::EC2::VPCEndpoint",
                    {
                        "VpcId": self.vpc,
                        "ServiceName": "com.amazonaws.us-east-1.s3",
                        "RouteTableIds": [self.table],
                    },
                ),
                {"Id": self.endpoint},
            ),
        }


def test_a_network_is_imported_checked_for_drift_and_left_alone(lab, stack):
    network, imported = Network(lab), stack("network")
    resources = {key: one[0] for key, one in network.resources().items()}
    identifiers = {key: one[1] for key, one in network.resources().items()}
    assert imported.run("IMPORT", resources, identifiers=identifiers) == "IMPORT_COMPLETE"

    # In this state AWS checks for drift too; four types it cannot check.
    drifts = imported.drift()
    assert set(resources) - set(drifts) == {"Rule", "Attachment", "Association", "Endpoint"}
    assert {one["StackResourceDriftStatus"] for one in drifts.values()} == {"IN_SYNC"}

    tags = network.ec2.describe_vpcs(VpcIds=[network.vpc])["Vpcs"][0]["Tags"]
    assert {"Key": "aws:cloudformation:stack-name", "Value": imported.name} in tags

    network.ec2.modify_vpc_attribute(VpcId=network.vpc, EnableDnsHostnames={"Value": True})
    network.ec2.modify_subnet_attribute(SubnetId=network.subnet, MapPublicIpOnLaunch={"Value": True})
    network.ec2.delete_route(RouteTableId=network.table, DestinationCidrBlock="0.0.0.0/0")
    drifts = imported.drift()
    assert drifts["Vpc"]["StackResourceDriftStatus"] == "IN_SYNC"  # what a template does not say is not checked
    assert drifts["Subnet"]["PropertyDifferences"] == [
        {
            "PropertyPath": "/MapPublicIpOnLaunch",
            "ExpectedValue": "false",
            "ActualValue": "true",
            "DifferenceType": "NOT_EQUAL",
        }
    ]
    assert drifts["Route"]["StackResourceDriftStatus"] == "DELETED"

    imported.delete()
    assert network.ec2.describe_subnets(SubnetIds=[network.subnet])["Subnets"]
    assert network.ec2.describe_nat_gateways(NatGatewayIds=[network.nat])["NatGateways"][0]["State"] != "deleted"


def test_identity_storage_and_logs_are_imported(lab, stack):
    name = f"adopted-{uuid.uuid4().hex[:8]}"
    iam, s3, kms = lab.client("iam"), lab.client("s3"), lab.client("kms")
    trust = {
        "Version": "2012-10-17",
        "Statement": [
            {"Effect": "Allow", "Principal": {"Service": "airflow.amazonaws.com"}, "Action": "sts:AssumeRole"}
        ],
    }
    policy = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "s3:Get*", "Resource": "*"}]}
    iam.create_role(RoleName=name, AssumeRolePolicyDocument=json.dumps(trust))
    iam.put_role_policy(RoleName=name, PolicyName="inline", PolicyDocument=json.dumps(policy))
    managed = iam.create_policy(PolicyName=name, PolicyDocument=json.dumps(policy))["Policy"]["Arn"]
    s3.create_bucket(Bucket=name)
    s3.put_bucket_versioning(Bucket=name, VersioningConfiguration={"Status": "Enabled"})
    s3.put_bucket_encryption(
        Bucket=name,
        ServerSideEncryptionConfiguration={
            "Rules": [{"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "AES256"}}]
        },
    )
    deny = {**policy, "Statement": [{"Effect": "Deny", "Principal": "*", "Action": "s3:*", "Resource": "*"}]}
    s3.put_bucket_policy(Bucket=name, Policy=json.dumps(deny))
    key = kms.create_key(Description="of tests")["KeyMetadata"]["KeyId"]
    secret = lab.client("secretsmanager").create_secret(Name=name, SecretString="canary")["ARN"]
    lab.client("logs").create_log_group(logGroupName=f"/lab/{name}")

    resources = {
        "Role": kept("AWS::IAM::Role", {"RoleName": name, "AssumeRolePolicyDocument": trust}),
        "Inline": kept("AWS::IAM::RolePolicy", {"RoleName": name, "PolicyName": "inline", "PolicyDocument": policy}),
        "Managed": kept("AWS::IAM::ManagedPolicy", {"ManagedPolicyName": name, "PolicyDocument": policy}),
        "Bucket": kept(
            "AWS::S3::Bucket",
            {
                "BucketName": name,
                "VersioningConfiguration": {"Status": "Enabled"},
                "BucketEncryption": {
                    "ServerSideEncryptionConfiguration": [{"ServerSideEncryptionByDefault": {"SSEAlgorithm": "AES256"}}]
                },
            },
        ),
        "BucketPolicy": kept("AWS::S3::BucketPolicy", {"Bucket": name, "PolicyDocument": deny}),
        "Key": kept("AWS::KMS::Key", {"Description": "of tests"}),
        "Secret": kept("AWS::SecretsManager::Secret", {"Name": name}),
        "Logs": kept("AWS::Logs::LogGroup", {"LogGroupName": f"/lab/{name}"}),
    }
    identifiers = {
        "Role": {"RoleName": name},
        "Inline": {"PolicyName": "inline", "RoleName": name},
        "Managed": {"PolicyArn": managed},
        "Bucket": {"BucketName": name},
        "BucketPolicy": {"Bucket": name},
        "Key": {"KeyId": key},
        "Secret": {"Id": secret},
        "Logs": {"LogGroupName": f"/lab/{name}"},
    }
    imported = stack()
    summary = imported.cfn.get_template_summary(TemplateBody=json.dumps({"Resources": resources}))
    listed = {
        one["LogicalResourceIds"][0]: one["ResourceIdentifiers"] for one in summary["ResourceIdentifierSummaries"]
    }
    assert listed == {logical_id: list(identifier) for logical_id, identifier in identifiers.items()}
    assert imported.run("IMPORT", resources, identifiers=identifiers) == "IMPORT_COMPLETE"
    drifts = imported.drift()
    assert {key: one["StackResourceDriftStatus"] for key, one in drifts.items()} == dict.fromkeys(resources, "IN_SYNC")
    assert iam.get_role(RoleName=name)["Role"]["AssumeRolePolicyDocument"] == trust

    s3.put_bucket_versioning(Bucket=name, VersioningConfiguration={"Status": "Suspended"})
    iam.put_role_policy(RoleName=name, PolicyName="inline", PolicyDocument=json.dumps(policy).replace("Get", "List"))
    kms.update_key_description(KeyId=key, Description="changed")
    drifts = imported.drift()
    assert drifts["Bucket"]["PropertyDifferences"][0]["PropertyPath"] == "/VersioningConfiguration/Status"
    assert drifts["Inline"]["StackResourceDriftStatus"] == "MODIFIED"
    assert drifts["Key"]["PropertyDifferences"][0]["ActualValue"] == "changed"

    imported.delete()
    assert iam.get_role_policy(RoleName=name, PolicyName="inline")
    assert kms.describe_key(KeyId=key)["KeyMetadata"]["KeyState"] == "Enabled"


def test_an_environments_drift_is_told_by_property(lab, base, mwaa, stack):
    name = base.environment(AirflowConfigurationOptions={"core.load_examples": "False"}, MaxWorkers=5)
    imported = stack()
    settings = base.settings(Name=name, AirflowConfigurationOptions={"core.load_examples": "False"}, MaxWorkers=5)
    settings["LoggingConfiguration"] = {"TaskLogs": {"Enabled": True, "LogLevel": "INFO"}}
    resources = {"Env": kept("AWS::MWAA::Environment", settings)}
    assert imported.run("IMPORT", resources, identifiers={"Env": {"Name": name}}) == "IMPORT_COMPLETE"
    assert imported.drift()["Env"]["StackResourceDriftStatus"] == "IN_SYNC"
    assert mwaa.get_environment(Name=name)["Environment"]["Tags"]["aws:cloudformation:stack-name"] == imported.name

    mwaa.update_environment(Name=name, MaxWorkers=6, AirflowConfigurationOptions={"core.load_examples": "True"})
    base.settled(name)
    found = imported.drift()["Env"]["PropertyDifferences"]
    assert {(one["PropertyPath"], one["ExpectedValue"], one["ActualValue"]) for one in found} == {
        ("/MaxWorkers", "5", "6"),
        ("/AirflowConfigurationOptions/core.load_examples", "False", "True"),
    }


class TestImportsRules:
    def template(self, base: Any) -> dict[str, Any]:
        return {"Vpc": kept("AWS::EC2::VPC", {"CidrBlock": "10.1.0.0/16"})}

    def test_outputs_come_with_an_update(self, base, stack):
        imported, resources = stack(), self.template(base)
        identifiers, outputs = {"Vpc": {"VpcId": base.vpc}}, {"Outputs": {"Id": {"Value": {"Ref": "Vpc"}}}}
        with pytest.raises(ClientError, match=r"you cannot modify or add \[Outputs\]"):
            imported.change_set("IMPORT", resources, identifiers=identifiers, template=outputs)
        assert imported.run("IMPORT", resources, identifiers=identifiers) == "IMPORT_COMPLETE"
        # Outputs alone change no resource, and are a change all the same.
        assert imported.change_set("UPDATE", resources, template=outputs)["Changes"] == []
        assert imported.run("UPDATE", resources, template=outputs) == "UPDATE_COMPLETE"
        assert imported.shown()["Outputs"] == [{"OutputKey": "Id", "OutputValue": base.vpc, "Description": ""}]

        again = imported.change_set("UPDATE", resources, template=outputs)
        assert (again["Status"], again["ExecutionStatus"]) == ("FAILED", "UNAVAILABLE")
        assert "didn't contain changes" in again["StatusReason"]

        second = stack().change_set("IMPORT", resources, identifiers=identifiers)
        assert second["Status"] == "FAILED"
        assert f"already exists in stack {imported.shown()['StackId']}" in second["StatusReason"]
        imported.delete()

    def test_a_deletion_policy_is_needed(self, base, stack):
        resources = {"Vpc": {"Type": "AWS::EC2::VPC", "Properties": {"CidrBlock": "10.1.0.0/16"}}}
        with pytest.raises(ClientError, match="must have DeletionPolicy attribute"):
            stack().change_set("IMPORT", resources, identifiers={"Vpc": {"VpcId": base.vpc}})

    def test_nothing_else_changes(self, base, stack):
        resources = self.template(base) | {"More": kept("AWS::EC2::InternetGateway", {})}
        with pytest.raises(ClientError, match=r"\[More\] is missing from ResourceToImport list"):
            stack().change_set("IMPORT", resources, identifiers={"Vpc": {"VpcId": base.vpc}})

    def test_what_is_not_there(self, base, stack):
        made = stack().change_set("IMPORT", self.template(base), identifiers={"Vpc": {"VpcId": "vpc-0"}})
        assert made["Status"] == "FAILED"
        assert "'vpc-0' was not found" in made["StatusReason"]


def test_capabilities_are_asked_for(stack):
    resources = {
        "Role": {"Type": "AWS::IAM::Role", "Properties": {"RoleName": "r", "AssumeRolePolicyDocument": {}}},
    }
    asked = r"InsufficientCapabilitiesException.*Requires capabilities : \[CAPABILITY_NAMED_IAM\]"
    with pytest.raises(ClientError, match=asked):
        stack().change_set("CREATE", resources, Capabilities=["CAPABILITY_IAM"])


def test_a_stack_in_review_is_there_before_its_change_set_runs(stack):
    made = stack()
    resources = {"Logs": {"Type": "AWS::Logs::LogGroup", "Properties": {}}}
    first = made.change_set("CREATE", resources)
    assert made.shown()["StackStatus"] == "REVIEW_IN_PROGRESS"
    second = made.change_set("CREATE", resources)
    assert first["StackId"] == second["StackId"]
    made.cfn.execute_change_set(ChangeSetName=second["ChangeSetId"])
    assert made.settled() == "CREATE_COMPLETE"
    assert [one["ChangeSetId"] for one in made.cfn.list_change_sets(StackName=made.name)["Summaries"]] == [
        second["ChangeSetId"]
    ]
    with pytest.raises(ClientError, match="already exists and cannot be created again"):
        made.change_set("CREATE", resources)
    made.delete()


# --- changes ---------------------------------------------------------------------------------------------------------


def details(change_set: dict[str, Any], logical_id: str) -> dict[str, Any]:
    return next(
        one["ResourceChange"]
        for one in change_set["Changes"]
        if one["ResourceChange"]["LogicalResourceId"] == logical_id
    )


def test_what_a_change_would_do_to_an_environment(lab, base, stack):
    made, name = stack(), f"env-{uuid.uuid4().hex[:8]}"
    settings = base.settings(Name=name, MaxWorkers=5)
    assert made.run("CREATE", {"Env": kept("AWS::MWAA::Environment", settings)}) == "CREATE_COMPLETE"

    in_place = made.change_set("UPDATE", {"Env": kept("AWS::MWAA::Environment", {**settings, "MaxWorkers": 6})})
    change = details(in_place, "Env")
    assert (change["Action"], change["Replacement"], change["Scope"]) == ("Modify", "False", ["Properties"])
    assert change["Details"][0]["Target"] == {
        "Attribute": "Properties",
        "Name": "MaxWorkers",
        "RequiresRecreation": "Never",
    }

    replaced = made.change_set("UPDATE", {"Env": kept("AWS::MWAA::Environment", {**settings, "Name": f"{name}-2"})})
    change = details(replaced, "Env")
    assert (change["Replacement"], change["PolicyAction"]) == ("True", "ReplaceAndRetain")

    network = {**settings["NetworkConfiguration"], "SubnetIds": settings["NetworkConfiguration"]["SubnetIds"][::-1]}
    perhaps = made.change_set(
        "UPDATE", {"Env": kept("AWS::MWAA::Environment", {**settings, "NetworkConfiguration": network})}
    )
    assert details(perhaps, "Env")["Replacement"] == "Conditional"
    removed = made.change_set("UPDATE", {"Logs": kept("AWS::Logs::LogGroup", {})})
    assert [one["ResourceChange"]["Action"] for one in removed["Changes"]] == ["Remove", "Add"]


def test_a_failed_update_leaves_the_environment_as_it_was(lab, base, mwaa, stack):
    made, name = stack(), f"env-{uuid.uuid4().hex[:8]}"
    settings = base.settings(Name=name, MaxWorkers=5)
    group = {"Type": "AWS::Logs::LogGroup", "Properties": {"LogGroupName": f"/lab/{name}"}}
    assert made.run("CREATE", {"Env": kept("AWS::MWAA::Environment", settings)}) == "CREATE_COMPLETE"
    lab.client("logs").create_log_group(logGroupName=f"/lab/{name}")  # so that the stack's cannot be made
    changed = {
        "Env": kept("AWS::MWAA::Environment", {**settings, "MaxWorkers": 7}),
        "Logs": {**group, "DependsOn": "Env"},
    }
    assert made.run("UPDATE", changed) == "UPDATE_ROLLBACK_COMPLETE"
    assert base.settled(name)["MaxWorkers"] == 5
    events = made.cfn.describe_stack_events(StackName=made.name)["StackEvents"]
    failed = [one for one in events if one["ResourceStatus"].endswith("_FAILED")]
    assert (failed[-1]["LogicalResourceId"], "already exists" in failed[-1]["ResourceStatusReason"]) == ("Logs", True)


def test_what_is_retained_stays_when_it_leaves_the_template_or_is_replaced(lab, stack):
    made, logs, name = stack(), lab.client("logs"), f"/lab/{uuid.uuid4().hex[:8]}"

    def group(number: int, **policies: str) -> dict[str, Any]:
        return {"Type": "AWS::Logs::LogGroup", "Properties": {"LogGroupName": f"{name}-{number}"}, **policies}

    def there() -> list[str]:
        found = logs.describe_log_groups(logGroupNamePrefix=name)["logGroups"]
        return [one["logGroupName"].rpartition("-")[2] for one in found]

    resources = {
        "Kept": group(1, DeletionPolicy="Retain", UpdateReplacePolicy="Retain"),
        "Lost": group(2),
        "AsLongAsMade": group(3, DeletionPolicy="RetainExceptOnCreate"),
        "Replaced": group(4, UpdateReplacePolicy="Retain"),
    }
    assert made.run("CREATE", resources) == "CREATE_COMPLETE"
    assert made.run("UPDATE", {"Replaced": group(5)}) == "UPDATE_COMPLETE"
    assert there() == ["1", "3", "5"]
    assert made.run("UPDATE", {"Replaced": group(6, UpdateReplacePolicy="Retain")}) == "UPDATE_COMPLETE"
    made.delete()
    assert there() == ["1", "3", "5"]


def test_a_failed_creation_leaves_nothing_but_the_stack(lab, stack):
    made = stack()
    resources = {
        "Vpc": {"Type": "AWS::EC2::VPC", "Properties": {"CidrBlock": "10.8.0.0/16"}},
        "Subnet": {"Type": "AWS::EC2::Subnet", "Properties": {"VpcId": {"Ref": "Vpc"}, "CidrBlock": "10.9.0.0/24"}},
    }
    assert made.run("CREATE", resources) == "ROLLBACK_COMPLETE"
    vpcs = lab.client("ec2").describe_vpcs(Filters=[{"Name": "cidr", "Values": ["10.8.0.0/16"]}])["Vpcs"]
    assert vpcs == []
    with pytest.raises(ClientError, match=r"is in ROLLBACK_COMPLETE state and can not be updated"):
        made.change_set("UPDATE", resources)
    made.delete()


def test_an_export_that_is_imported_holds_its_stack(stack):
    base, user = stack("base"), stack("user")
    name = f"{base.name}-VpcId"
    vpc = {"Vpc": {"Type": "AWS::EC2::VPC", "Properties": {"CidrBlock": "10.6.0.0/16"}}}
    outputs = {"Outputs": {"Id": {"Value": {"Ref": "Vpc"}, "Export": {"Name": {"Fn::Sub": "${AWS::StackName}-VpcId"}}}}}
    assert base.run("CREATE", vpc, template=outputs) == "CREATE_COMPLETE"
    subnet = {"VpcId": {"Fn::ImportValue": {"Fn::Sub": "${Base}-VpcId"}}, "CidrBlock": "10.6.0.0/24"}
    parameters = {"Parameters": {"Base": {"Type": "String", "Default": base.name}}}
    resources = {"Subnet": {"Type": "AWS::EC2::Subnet", "Properties": subnet}}
    assert user.run("CREATE", resources, template=parameters) == "CREATE_COMPLETE"
    assert base.cfn.list_imports(ExportName=name)["Imports"] == [user.name]
    with pytest.raises(ClientError, match=f"Export {name} is imported by stack {user.name}"):
        base.cfn.delete_stack(StackName=base.name)
    user.delete()
    base.delete()


def test_a_secret_is_resolved_at_deployment_and_shown_nowhere(lab, base, mwaa, stack):
    made, canary, name = stack(), f"CANARY-option-{uuid.uuid4().hex[:8]}", f"env-{uuid.uuid4().hex[:8]}"
    lab.client("secretsmanager").create_secret(Name=name, SecretString=json.dumps({"dsn": canary}))
    lab.client("ssm").put_parameter(Name=f"/lab/{name}", Value="3", Type="String")
    options = {
        "sentry.sentry_dsn": f"{{{{resolve:secretsmanager:{name}:SecretString:dsn}}}}",
        "core.default_task_retries": f"{{{{resolve:ssm:/lab/{name}}}}}",
    }
    settings = base.settings(Name=name, AirflowConfigurationOptions=options)
    assert made.run("CREATE", {"Env": kept("AWS::MWAA::Environment", settings)}) == "CREATE_COMPLETE"
    assert mwaa.get_environment(Name=name)["Environment"]["AirflowConfigurationOptions"] == {
        "sentry.sentry_dsn": canary,
        "core.default_task_retries": "3",
    }
    shown = [
        made.cfn.get_template(StackName=made.name, TemplateStage=stage)["TemplateBody"]
        for stage in ("Original", "Processed")
    ]
    shown += [made.shown(), made.cfn.describe_stack_events(StackName=made.name)["StackEvents"]]
    assert canary not in str(shown)
    assert "{{resolve:secretsmanager:" in str(shown)


def test_a_stack_keeps_the_role_that_it_was_given(lab, stack):
    iam, made, name = lab.client("iam"), stack(), f"cfn-{uuid.uuid4().hex[:8]}"
    trust = {
        "Version": "2012-10-17",
        "Statement": [
            {"Effect": "Allow", "Principal": {"Service": "cloudformation.amazonaws.com"}, "Action": "sts:AssumeRole"}
        ],
    }
    role = iam.create_role(RoleName=name, AssumeRolePolicyDocument=json.dumps(trust))["Role"]["Arn"]
    resources = {"Logs": {"Type": "AWS::Logs::LogGroup", "Properties": {}}}
    with pytest.raises(ClientError, match="is invalid or cannot be assumed"):
        made.change_set("CREATE", resources, RoleARN=f"{role}-not")
    assert made.run("CREATE", resources, RoleARN=role) == "CREATE_COMPLETE"
    assert made.shown()["RoleARN"] == role
    made.delete()


def test_conditions_and_several_stacks_side_by_side(stack):
    stacks = [stack() for _ in range(3)]
    template = {
        "Parameters": {"Logs": {"Type": "String"}},
        "Conditions": {"HasLogs": {"Fn::Equals": [{"Ref": "Logs"}, "yes"]}},
    }
    resources = {
        "Gateway": {"Type": "AWS::EC2::InternetGateway"},
        "Logs": {"Type": "AWS::Logs::LogGroup", "Condition": "HasLogs"},
    }
    for made, answer in zip(stacks, ("yes", "no", "yes"), strict=True):
        made.change_set(
            "CREATE",
            resources,
            template=template,
            Parameters=[{"ParameterKey": "Logs", "ParameterValue": answer}],
        )
    for made in stacks:
        made.cfn.execute_change_set(
            ChangeSetName=made.cfn.list_change_sets(StackName=made.name)["Summaries"][0]["ChangeSetId"]
        )
    assert [made.settled() for made in stacks] == ["CREATE_COMPLETE"] * 3
    found = [made.cfn.describe_stack_resources(StackName=made.name)["StackResources"] for made in stacks]
    assert [sorted(one["LogicalResourceId"] for one in each) for each in found] == [
        ["Gateway", "Logs"],
        ["Gateway"],
        ["Gateway", "Logs"],
    ]


def test_a_bucket_of_a_stack(lab, stack):
    s3, made, name = lab.client("s3"), stack(), f"made-{uuid.uuid4().hex[:8]}"
    rules = [{"Id": "bundles", "Status": "Enabled", "Prefix": "bundles/", "ExpirationInDays": 30}]
    properties = {
        "BucketName": name,
        "VersioningConfiguration": {"Status": "Enabled"},
        "PublicAccessBlockConfiguration": {"BlockPublicAcls": True, "IgnorePublicAcls": True},
        "BucketEncryption": {
            "ServerSideEncryptionConfiguration": [{"ServerSideEncryptionByDefault": {"SSEAlgorithm": "aws:kms"}}]
        },
        "LifecycleConfiguration": {"Rules": rules},
        "OwnershipControls": {"Rules": [{"ObjectOwnership": "BucketOwnerEnforced"}]},
        "Tags": [{"Key": "team", "Value": "data"}],
    }
    assert made.run("CREATE", {"Bucket": {"Type": "AWS::S3::Bucket", "Properties": properties}}) == "CREATE_COMPLETE"
    assert made.drift()["Bucket"]["StackResourceDriftStatus"] == "IN_SYNC"
    encryption = s3.get_bucket_encryption(Bucket=name)["ServerSideEncryptionConfiguration"]["Rules"][0]
    assert encryption["ApplyServerSideEncryptionByDefault"]["SSEAlgorithm"] == "aws:kms"
    assert s3.get_bucket_lifecycle_configuration(Bucket=name)["Rules"][0]["Expiration"] == {"Days": 30}
    tags = {one["Key"]: one["Value"] for one in s3.get_bucket_tagging(Bucket=name)["TagSet"]}
    assert (tags["team"], tags["aws:cloudformation:stack-name"]) == ("data", made.name)

    s3.put_object(Bucket=name, Key="a", Body=b"a")
    made.cfn.delete_stack(StackName=made.name)
    assert made.settled() == "DELETE_FAILED"
    reasons = [
        one.get("ResourceStatusReason", "")
        for one in made.cfn.describe_stack_events(StackName=made.name)["StackEvents"]
    ]
    assert any("is not empty" in reason for reason in reasons)
