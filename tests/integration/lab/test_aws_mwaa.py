# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The MWAA control plane by boto3: every operation, and what it refuses."""

from __future__ import annotations

import json
import time
import uuid
from typing import Any

import pytest
from botocore.exceptions import ClientError, WaiterError

pytestmark = pytest.mark.lab


def refused(call: Any, **arguments: Any) -> tuple[str, str]:
    """Code and message of the error that the call ends in."""
    with pytest.raises(ClientError) as caught:
        call(**arguments)
    error = caught.value.response["Error"]
    return error["Code"], error["Message"]


def test_an_environment_lives_from_creating_to_gone(lab, base, mwaa):
    settings = base.settings(AirflowVersion="2.11.2", Tags={"team": "data"}, MaxWorkers=5, WebserverAccessMode=None)
    lab.admin("POST", "stub", {"hold": True})
    arn = mwaa.create_environment(**settings)["Arn"]
    name = settings["Name"]
    assert arn == f"arn:aws:airflow:us-east-1:000000000000:environment/{name}"
    assert mwaa.get_environment(Name=name)["Environment"]["Status"] == "CREATING"
    assert refused(mwaa.delete_environment, Name=name)[0] == "ValidationException"
    lab.admin("POST", "stub", {"hold": False})
    shown = base.settled(name)
    assert shown["Status"] == "AVAILABLE"
    assert shown["LastUpdate"]["Status"] == "SUCCESS"
    assert (shown["MaxWorkers"], shown["MinWorkers"], shown["EnvironmentClass"]) == (5, 1, "mw1.small")
    assert shown["WebserverAccessMode"] == "PRIVATE_ONLY"
    task_logs = shown["LoggingConfiguration"]["TaskLogs"]
    assert task_logs["Enabled"] is True
    assert task_logs["CloudWatchLogGroupArn"].endswith(f":log-group:airflow-{name}-Task")
    groups = lab.client("logs").describe_log_groups(logGroupNamePrefix=f"airflow-{name}-")["logGroups"]
    assert [group["logGroupName"] for group in groups] == [f"airflow-{name}-Task"]
    lab.admin("POST", "stub", {"hold": True})
    mwaa.delete_environment(Name=name)
    assert mwaa.get_environment(Name=name)["Environment"]["Status"] == "DELETING"
    lab.admin("POST", "stub", {"hold": False})
    with pytest.raises(mwaa.exceptions.ResourceNotFoundException):
        while mwaa.get_environment(Name=name):
            time.sleep(0.05)
    # As on AWS, the log groups stay.
    assert lab.client("logs").describe_log_groups(logGroupNamePrefix=f"airflow-{name}-")["logGroups"]


def test_an_update_changes_what_it_names_and_nothing_else(lab, base, mwaa):
    name = base.environment(MaxWorkers=5, AirflowConfigurationOptions={"core.parallelism": "8"})
    lab.admin("POST", "stub", {"hold": True})
    mwaa.update_environment(
        Name=name,
        MinWorkers=2,
        AirflowConfigurationOptions={"core.parallelism": "9"},
        LoggingConfiguration={"SchedulerLogs": {"Enabled": True, "LogLevel": "WARNING"}},
        WorkerReplacementStrategy="GRACEFUL",
    )
    assert mwaa.get_environment(Name=name)["Environment"]["Status"] == "UPDATING"
    assert refused(mwaa.update_environment, Name=name, MinWorkers=3)[0] == "ValidationException"
    lab.admin("POST", "stub", {"hold": False})
    shown = base.settled(name)
    assert (shown["MinWorkers"], shown["MaxWorkers"]) == (2, 5)
    assert shown["AirflowConfigurationOptions"] == {"core.parallelism": "9"}
    assert shown["LoggingConfiguration"]["SchedulerLogs"]["LogLevel"] == "WARNING"
    assert shown["LoggingConfiguration"]["TaskLogs"]["Enabled"] is True
    assert shown["LastUpdate"]["WorkerReplacementStrategy"] == "GRACEFUL"


def test_a_failed_update_is_rolled_back_and_says_why(lab, base, mwaa):
    name = base.environment(MaxWorkers=5)
    lab.admin("POST", "stub", {"fail_update": "requirements.txt cannot be installed"})
    mwaa.update_environment(Name=name, MaxWorkers=7)
    shown = base.settled(name)
    assert shown["Status"] == "UPDATE_FAILED"
    assert shown["MaxWorkers"] == 5
    assert shown["LastUpdate"]["Status"] == "FAILED"
    assert shown["LastUpdate"]["Error"] == {
        "ErrorCode": "INCORRECT_CONFIGURATION",
        "ErrorMessage": "requirements.txt cannot be installed",
    }
    lab.admin("POST", "stub", {"fail_update": None})
    mwaa.update_environment(Name=name, MaxWorkers=7)
    assert base.settled(name)["MaxWorkers"] == 7


def test_a_failed_creation_says_why_and_can_be_deleted(lab, base, mwaa):
    lab.admin("POST", "stub", {"fail_create": "no capacity"})
    settings = base.settings()
    mwaa.create_environment(**settings)
    shown = base.settled(settings["Name"])
    assert (shown["Status"], shown["LastUpdate"]["Error"]["ErrorMessage"]) == ("CREATE_FAILED", "no capacity")
    assert refused(mwaa.create_cli_token, Name=settings["Name"])[0] == "ResourceNotFoundException"
    mwaa.delete_environment(Name=settings["Name"])


def test_versions_move_within_a_major_and_across_at_2_11(base, mwaa):
    name = base.environment(AirflowVersion="2.10.3")
    code, message = refused(mwaa.update_environment, Name=name, AirflowVersion="3.2.1")
    assert code == "ValidationException"
    assert "2.11" in message
    mwaa.update_environment(Name=name, AirflowVersion="2.11.2")
    assert base.settled(name)["AirflowVersion"] == "2.11.2"
    mwaa.update_environment(Name=name, AirflowVersion="3.2.1")
    assert base.settled(name)["AirflowVersion"] == "3.2.1"
    assert "end of support" in refused(mwaa.create_environment, **base.settings(AirflowVersion="2.4.3"))[1]
    assert "not supported" in refused(mwaa.create_environment, **base.settings(AirflowVersion="9.9"))[1]


def test_a_version_change_keeps_what_the_environment_holds(base, mwaa):
    name = base.environment(AirflowVersion="2.11.2")
    variable = {"Name": name, "Method": "POST", "Path": "/variables", "Body": {"key": "colour", "value": "green"}}
    mwaa.invoke_rest_api(**variable)
    mwaa.update_environment(Name=name, AirflowVersion="3.2.1")
    assert base.settled(name)["Status"] == "AVAILABLE"
    shown = mwaa.invoke_rest_api(Name=name, Method="GET", Path="/variables/colour")["RestApiResponse"]
    assert (shown["value"], "team_name" in shown) == ("green", True)  # as Airflow 3 answers


def test_a_failed_version_change_ends_at_the_old_version_or_nowhere(lab, base, mwaa):
    name = base.environment(AirflowVersion="2.11.2")
    lab.admin("POST", "stub", {"fail_update": "the migration broke"})
    mwaa.update_environment(Name=name, AirflowVersion="3.2.1")
    shown = base.settled(name)
    assert (shown["Status"], shown["AirflowVersion"]) == ("UPDATE_FAILED", "2.11.2")
    assert shown["LastUpdate"]["Error"]["ErrorMessage"] == "the migration broke"
    assert mwaa.invoke_rest_api(Name=name, Method="GET", Path="/version")["RestApiResponse"]["version"] == "2.11.2"
    lab.admin("POST", "stub", {"fail_roll_back": "the snapshot is gone"})
    mwaa.update_environment(Name=name, AirflowVersion="3.2.1")
    assert base.settled(name)["Status"] == "UNAVAILABLE"
    assert refused(mwaa.create_cli_token, Name=name)[0] == "ResourceNotFoundException"
    assert refused(mwaa.update_environment, Name=name, MaxWorkers=3)[0] == "ValidationException"
    mwaa.delete_environment(Name=name)


def test_a_stack_whose_version_change_fails_is_rolled_back(lab, base, mwaa):
    settings = base.settings(AirflowVersion="2.11.2", MaxWorkers=5)
    stacks, stack = lab.client("cloudformation"), settings["Name"]

    def template(**changes):
        resource = {"Type": "AWS::MWAA::Environment", "Properties": {**settings, **changes}}
        return json.dumps({"Resources": {"Environment": resource}})

    stacks.create_stack(StackName=stack, TemplateBody=template())
    stacks.get_waiter("stack_create_complete").wait(StackName=stack, WaiterConfig={"Delay": 1})
    lab.admin("POST", "stub", {"fail_update": "the migration broke"})
    stacks.update_stack(StackName=stack, TemplateBody=template(AirflowVersion="3.2.1", MaxWorkers=7))
    with pytest.raises(WaiterError):
        stacks.get_waiter("stack_update_complete").wait(StackName=stack, WaiterConfig={"Delay": 1})
    assert stacks.describe_stacks(StackName=stack)["Stacks"][0]["StackStatus"] == "UPDATE_ROLLBACK_COMPLETE"
    events = stacks.describe_stack_events(StackName=stack)["StackEvents"]
    assert any("the migration broke" in event.get("ResourceStatusReason", "") for event in events)
    shown = mwaa.get_environment(Name=stack)["Environment"]
    assert (shown["AirflowVersion"], shown["MaxWorkers"]) == ("2.11.2", 5)
    lab.admin("POST", "stub", {"fail_update": None})
    stacks.update_stack(StackName=stack, TemplateBody=template(AirflowVersion="3.2.1"))
    stacks.get_waiter("stack_update_complete").wait(StackName=stack, WaiterConfig={"Delay": 1})
    assert mwaa.get_environment(Name=stack)["Environment"]["AirflowVersion"] == "3.2.1"


def test_what_is_offered_is_a_matter_of_the_day(lab, base, mwaa):
    lab.admin("POST", "as-of", {"day": "2024-04-29"})
    name = base.environment(AirflowVersion="2.0.2")
    assert "not supported" in refused(mwaa.create_environment, **base.settings(AirflowVersion="2.11.2"))[1]
    lab.admin("POST", "as-of", {"day": None})
    # What runs goes on, and can be updated, but not moved back to.
    mwaa.update_environment(Name=name, MaxWorkers=4)
    assert base.settled(name)["AirflowVersion"] == "2.0.2"
    code, message = refused(mwaa.invoke_rest_api, Name=name, Path="/dags", Method="GET")
    assert (code, message) == ("ValidationException", "Update your environment to use InvokeRestApi")
    assert "end of support" in refused(mwaa.create_environment, **base.settings(AirflowVersion="2.0.2"))[1]


def test_names_are_unique_in_account_and_region(lab, base, mwaa):
    name = base.environment()
    assert "already exists" in refused(mwaa.create_environment, **base.settings(Name=name))[1]
    assert refused(lab.client("mwaa", region="eu-west-1").get_environment, Name=name)[0] == "ResourceNotFoundException"
    assert refused(lab.client("mwaa", key="111111111111").get_environment, Name=name)[0] == "ResourceNotFoundException"


def test_lists_come_in_pages(lab, base):
    mwaa = lab.client("mwaa")
    made = {base.environment() for _ in range(3)}
    pages = list(mwaa.get_paginator("list_environments").paginate(PaginationConfig={"PageSize": 2}))
    assert len(pages) > 1
    assert made <= {name for page in pages for name in page["Environments"]}
    assert refused(mwaa.list_environments, NextToken="nonsense")[0] == "ValidationException"


def test_tags(base, mwaa):
    name = base.environment(Tags={"team": "data"})
    arn = mwaa.get_environment(Name=name)["Environment"]["Arn"]
    mwaa.tag_resource(ResourceArn=arn, Tags={"stage": "prod", "owner": "me"})
    mwaa.untag_resource(ResourceArn=arn, tagKeys=["team", "owner"])
    assert mwaa.list_tags_for_resource(ResourceArn=arn)["Tags"] == {"stage": "prod"}
    assert mwaa.get_environment(Name=name)["Environment"]["Tags"] == {"stage": "prod"}
    assert refused(mwaa.list_tags_for_resource, ResourceArn=arn + "x")[0] == "ResourceNotFoundException"


def test_input_is_checked_against_the_service_model(lab, base):
    mwaa = lab.client("mwaa", parameter_validation=False)
    code, message = refused(
        mwaa.create_environment,
        **base.settings(
            Name="9-is-no-letter",
            ExecutionRoleArn=None,
            WebserverAccessMode="SOMETIMES",
            Schedulers=6,
            AirflowConfigurationOptions={"core.secret": "CANARY-option-0badcafe\n"},
            NetworkConfiguration={"SubnetIds": base.subnets[:1], "SecurityGroupIds": []},
        ),
    )
    assert code == "ValidationException"
    assert message.startswith("7 validation errors detected: ")
    assert "Value null at 'executionRoleArn'" in message
    assert "Member must satisfy enum value set: [PRIVATE_ONLY, PUBLIC_ONLY, PUBLIC_AND_PRIVATE]" in message
    assert "CANARY" not in message
    assert refused(mwaa.create_environment, **base.settings(MaxWorkers="many"))[0] == "SerializationException"


@pytest.mark.parametrize("value", ["", "two\nlines", "naïve"])
def test_option_values_are_printable_ascii(lab, base, value):
    mwaa = lab.client("mwaa", parameter_validation=False)
    code, _ = refused(mwaa.create_environment, **base.settings(AirflowConfigurationOptions={"core.x": value}))
    assert code == "ValidationException"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"EnvironmentClass": "mw1.gigantic"}, "EnvironmentClass"),
        ({"MinWorkers": 5, "MaxWorkers": 2}, "must not be greater than MaxWorkers"),
        ({"MaxWorkers": 26}, "must not be greater than 25"),
        ({"Schedulers": 1}, "Schedulers must be between 2 and 5"),
        ({"EnvironmentClass": "mw1.micro", "MaxWorkers": 2}, "must be 1 for the environment class mw1.micro"),
        ({"DagS3Path": "/dags"}, "must be relative to the bucket"),
        ({"KmsKey": "alias/lab"}, "an alias is not supported"),
        ({"AirflowConfigurationOptions": {"core.multi_team": "True"}}, "core.multi_team cannot be set"),
        ({"AirflowVersion": "2.11.2", "WebserverAccessMode": "PUBLIC_AND_PRIVATE"}, "3.2.1 or later"),
    ],
)
def test_what_the_model_lets_through_and_mwaa_does_not(base, mwaa, changes, words):
    code, message = refused(mwaa.create_environment, **base.settings(**changes))
    assert code == "ValidationException"
    assert words in message


def test_the_bucket_must_be_there_versioned_private_and_in_the_region(lab, base, mwaa):
    s3 = lab.client("s3")

    def attempt(bucket: str) -> str:
        code, message = refused(mwaa.create_environment, **base.settings(SourceBucketArn=f"arn:aws:s3:::{bucket}"))
        assert code == "ValidationException"
        return message

    bucket = f"odd-{uuid.uuid4().hex[:8]}"
    assert "NoSuchBucket" in attempt(bucket)
    s3.create_bucket(Bucket=bucket)
    assert "must have versioning enabled" in attempt(bucket)
    s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    assert "must block all public access" in attempt(bucket)
    far = f"far-{uuid.uuid4().hex[:8]}"
    lab.client("s3", region="eu-west-1").create_bucket(
        Bucket=far, CreateBucketConfiguration={"LocationConstraint": "eu-west-1"}
    )
    assert "is in eu-west-1. It must be in the same AWS Region as the environment (us-east-1)" in attempt(far)


def test_network_and_role_must_exist(lab, base, mwaa):
    ec2 = lab.client("ec2")
    same_zone = ec2.create_subnet(VpcId=base.vpc, CidrBlock="10.1.9.0/24", AvailabilityZone="us-east-1a")["Subnet"]
    for network, words in (
        ([base.subnets[0], same_zone["SubnetId"]], "two different Availability Zones"),
        ([base.subnets[0], "subnet-0123456789abcdef0"], "subnet"),
    ):
        given = {"SubnetIds": network, "SecurityGroupIds": [base.group]}
        assert words in refused(mwaa.create_environment, **base.settings(NetworkConfiguration=given))[1]
    given = {"SubnetIds": base.subnets, "SecurityGroupIds": ["sg-0123456789abcdef0"]}
    assert "security group" in refused(mwaa.create_environment, **base.settings(NetworkConfiguration=given))[1]
    role = "arn:aws:iam::000000000000:role/nobody"
    assert "does not exist" in refused(mwaa.create_environment, **base.settings(ExecutionRoleArn=role))[1]


def test_the_rest_api_answers_and_its_errors_have_their_own_types(base, mwaa):
    name = base.environment(AirflowVersion="3.2.1")
    made = mwaa.invoke_rest_api(Name=name, Method="POST", Path="/variables", Body={"key": "a", "value": "1"})
    assert made["RestApiStatusCode"] == 201
    with pytest.raises(mwaa.exceptions.RestApiClientException) as caught:
        mwaa.invoke_rest_api(Name=name, Method="POST", Path="/variables", Body={"key": "a", "value": "1"})
    assert caught.value.response["RestApiStatusCode"] == 409
    assert "already exists" in caught.value.response["RestApiResponse"]["detail"]
    page = mwaa.invoke_rest_api(Name=name, Method="GET", Path="/variables", QueryParameters={"limit": 1})
    assert page["RestApiResponse"]["total_entries"] == 1
    assert mwaa.invoke_rest_api(Name=name, Method="DELETE", Path="/variables/a")["RestApiStatusCode"] == 204
    code, message = refused(mwaa.invoke_rest_api, Name=name, Method="GET", Path="/" + "x" * 64)
    assert (code, "less than or equal to 64" in message) == ("ValidationException", True)
    with pytest.raises(mwaa.exceptions.RestApiClientException):
        mwaa.invoke_rest_api(Name=name, Method="GET", Path="/auth/fab/v1/users")


def test_an_answer_above_six_megabytes_is_an_error(base, mwaa):
    name = base.environment(AirflowVersion="2.11.2")
    for index in range(4):
        body = {"key": f"big{index}", "value": "x" * 1_900_000}
        mwaa.invoke_rest_api(Name=name, Method="POST", Path="/variables", Body=body)
    with pytest.raises(mwaa.exceptions.RestApiServerException):
        mwaa.invoke_rest_api(Name=name, Method="GET", Path="/variables")


def test_publish_metrics_is_not_offered(mwaa):
    assert refused(mwaa.publish_metrics, EnvironmentName="x", MetricData=[])[0] == "ValidationException"


def test_a_missing_requirements_object_fails_the_creation(base, mwaa):
    settings = base.settings(RequirementsS3Path="requirements.txt", RequirementsS3ObjectVersion="nothing")
    mwaa.create_environment(**settings)
    shown = base.settled(settings["Name"])
    assert shown["Status"] == "CREATE_FAILED"
    assert "requirements.txt" in shown["LastUpdate"]["Error"]["ErrorMessage"]


def test_the_server_survives_nonsense(lab):
    import http.client

    for method, path, headers in (
        ("PUT", "/environments/%zz", {}),
        ("PATCH", "/environments/x", {"Content-Type": "application/json"}),
        ("GET", "/environments/x", {"Authorization": "AWS4-HMAC-SHA256 Credential=nonsense"}),
        ("POST", "/tags/arn%3Anonsense", {}),
    ):
        auth = "AWS4-HMAC-SHA256 Credential=000000000000/20260101/us-east-1/airflow/aws4_request"
        connection = http.client.HTTPConnection("127.0.0.1", lab.http)
        connection.request(method, path, body=b"\xff{", headers={"Authorization": auth, **headers})
        assert connection.getresponse().status >= 400
    assert lab.admin("GET", "health")["status"] == "ok"


def test_china_has_arns_of_its_own(lab):
    region, ec2, s3 = "cn-north-1", lab.client("ec2", region="cn-north-1"), lab.client("s3", region="cn-north-1")
    vpc = ec2.create_vpc(CidrBlock="10.2.0.0/16")["Vpc"]["VpcId"]
    subnets = [
        ec2.create_subnet(VpcId=vpc, CidrBlock=f"10.2.{n}.0/24", AvailabilityZone=region + zone)["Subnet"]["SubnetId"]
        for n, zone in enumerate("ab")
    ]
    group = ec2.create_security_group(GroupName="cn", Description="lab", VpcId=vpc)["GroupId"]
    s3.create_bucket(Bucket="lab-in-china", CreateBucketConfiguration={"LocationConstraint": region})
    s3.put_bucket_versioning(Bucket="lab-in-china", VersioningConfiguration={"Status": "Enabled"})
    blocks = ("BlockPublicAcls", "IgnorePublicAcls", "BlockPublicPolicy", "RestrictPublicBuckets")
    s3.put_public_access_block(Bucket="lab-in-china", PublicAccessBlockConfiguration=dict.fromkeys(blocks, True))
    trust = {"Effect": "Allow", "Principal": {"Service": "airflow-env.amazonaws.com"}, "Action": "sts:AssumeRole"}
    lab.client("iam").create_role(RoleName="cn", AssumeRolePolicyDocument=json.dumps({"Statement": [trust]}))
    mwaa = lab.client("mwaa", region=region)
    mwaa.create_environment(
        Name="china",
        ExecutionRoleArn="arn:aws-cn:iam::000000000000:role/cn",
        SourceBucketArn="arn:aws-cn:s3:::lab-in-china",
        DagS3Path="dags",
        WebserverAccessMode="PUBLIC_ONLY",
        NetworkConfiguration={"SubnetIds": subnets, "SecurityGroupIds": [group]},
    )
    while (shown := mwaa.get_environment(Name="china")["Environment"])["Status"] == "CREATING":
        time.sleep(0.05)
    assert (shown["Status"], shown["Arn"]) == (
        "AVAILABLE",
        "arn:aws-cn:airflow:cn-north-1:000000000000:environment/china",
    )
    assert mwaa.invoke_rest_api(Name="china", Path="/version", Method="GET")["RestApiStatusCode"] == 200
