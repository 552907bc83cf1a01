# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""mwaa_environment_clone: what is carried, for whom policies are made, and what is said of each fault."""

from __future__ import annotations

import copy
import json
from typing import Any

import botocore.session
import pytest
from ansible_collections.mwaa.migration.plugins.module_utils._mwaa.clone import carried, differences, secret_options
from ansible_collections.mwaa.migration.plugins.module_utils._mwaa.rescope import Place, rescoped, trust_faults
from botocore.model import ServiceModel
from fakes import REGION, aws_failure
from test_environment import EXISTING, ROLE, FakeMwaa, FakeS3

CREATE = botocore.session.get_session().get_service_model("mwaa").operation_model("CreateEnvironment").input_shape
TRUST = {
    "Statement": [
        {
            "Effect": "Allow",
            "Principal": {"Service": ["airflow.amazonaws.com", "airflow-env.amazonaws.com"]},
            "Action": "sts:AssumeRole",
        }
    ]
}
SOURCE = {
    **EXISTING,
    "Name": "old",
    "Arn": f"arn:aws:airflow:{REGION}:123456789012:environment/old",
    "AirflowVersion": "2.10.3",
    "CreatedAt": "2026-01-01",
    "ServiceRoleArn": "arn:aws:iam::123456789012:role/aws-service-role/x",
    "WebserverUrl": "x.airflow.amazonaws.com",
    "CeleryExecutorQueue": "arn:aws:sqs:x:1:airflow-celery-1",
    "DatabaseVpcEndpointService": "com.amazonaws.vpce.x",
    "PluginsS3Path": "",
    "Tags": {"team": "a", "aws:cloudformation:stack-name": "s"},
}
CLONE = {"source": "old", "name": "new"}


# --- what is carried --------------------------------------------------------------------------------------------------


def test_what_create_does_not_take_is_left_out_by_the_model_of_the_api() -> None:
    fields = carried(CREATE, SOURCE)
    assert set(fields) == {
        "AirflowVersion",
        "SourceBucketArn",
        "DagS3Path",
        "ExecutionRoleArn",
        "NetworkConfiguration",
        "AirflowConfigurationOptions",
        "EnvironmentClass",
        "MaxWorkers",
        "LoggingConfiguration",
        "Tags",
    }
    assert fields["LoggingConfiguration"] == {"TaskLogs": {"Enabled": True, "LogLevel": "INFO"}}
    assert fields["Tags"] == {"team": "a"}


def test_a_field_that_aws_adds_is_carried_by_the_botocore_that_knows_it() -> None:
    service = ServiceModel(
        {
            "shapes": {
                "In": {
                    "type": "structure",
                    "required": ["Name"],
                    "members": {"Name": {"shape": "Text"}, "Shiny": {"shape": "Shiny"}, "Tags": {"shape": "Map"}},
                },
                "Shiny": {"type": "structure", "required": ["Key"], "members": {"Key": {"shape": "Text"}}},
                "Text": {"type": "string"},
                "Map": {"type": "map", "key": {"shape": "Text"}, "value": {"shape": "Text"}, "min": 1},
            }
        }
    )
    shape = service.shape_for("In")
    assert carried(shape, {"Name": "old", "Shiny": {"Key": "k", "Arn": "a"}, "Dull": 1}) == {"Shiny": {"Key": "k"}}
    assert carried(shape, {"Shiny": {"Arn": "a"}, "Tags": {}}) == {}


def test_the_same_in_other_words_is_no_difference() -> None:
    key = "0a0a0a0a-1111-2222-3333-444444444444"
    wanted = {
        "KmsKey": key,
        "EndpointManagement": "SERVICE",
        "DagS3Path": "dags/",
        "NetworkConfiguration": {"SubnetIds": ["b", "a"], "SecurityGroupIds": ["s"]},
    }
    there = {
        "KmsKey": f"arn:aws:kms:x:1:key/{key}",
        "DagS3Path": "dags",
        "NetworkConfiguration": {"SubnetIds": ["a", "b"], "SecurityGroupIds": ["s"]},
        "MinWorkers": 1,
    }
    assert differences(wanted, there) == []
    assert differences({**wanted, "MinWorkers": 2, "DagS3Path": "other"}, there) == ["DagS3Path", "MinWorkers"]


def test_values_that_nobody_may_see() -> None:
    options = {
        "core.parallelism": "8",
        "smtp.smtp_password": "x",
        "core.default_timezone": "https://me:word@example.com",
        "mine.own": "blue",
        "secrets.backend": "a.b.C",
    }
    assert secret_options(options, "2.11.2") == {"smtp.smtp_password", "core.default_timezone", "mine.own"}


# --- the role ---------------------------------------------------------------------------------------------------------

KEY = "0a0a0a0a-1111-2222-3333-444444444444"
OLD = Place("old", "us-west-2", "111111111111", "old-bucket", f"arn:aws:kms:us-west-2:111111111111:key/{KEY}")
NEW = Place("new", "eu-central-1", "222222222222", "new-bucket", "arn:aws:kms:eu-central-1:222222222222:key/other")


@pytest.mark.parametrize(
    ("was", "becomes"),
    [
        ("arn:aws:airflow:{}:environment/old", "arn:aws:airflow:{}:environment/new"),
        ("arn:aws:airflow:{}:role/old/Op", "arn:aws:airflow:{}:role/new/Op"),
        ("arn:aws:airflow:{}:environment/older", "arn:aws:airflow:{}:environment/older"),
        ("arn:aws:logs:{}:log-group:airflow-old-*", "arn:aws:logs:{}:log-group:airflow-new-*"),
        ("arn:aws:logs:{}:log-group:airflow-old-Task:*", "arn:aws:logs:{}:log-group:airflow-new-Task:*"),
        ("arn:aws:logs:{}:log-group:airflow-old-T*", "arn:aws:logs:{}:log-group:airflow-new-T*"),
        ("arn:aws:logs:{}:log-group:airflow-old-eu-Task", "arn:aws:logs:{}:log-group:airflow-old-eu-Task"),
        ("arn:aws:logs:{}:log-group:airflow-older-*", "arn:aws:logs:{}:log-group:airflow-older-*"),
        ("arn:aws:s3:::old-bucket/*", "arn:aws:s3:::new-bucket/*"),
        ("arn:aws:s3:::old-bucket-2/*", "arn:aws:s3:::old-bucket-2/*"),
        ("arn:aws:sqs:us-west-2:*:airflow-celery-*", "arn:aws:sqs:eu-central-1:*:airflow-celery-*"),
        (f"arn:aws:kms:{{}}:key/{KEY}", "arn:aws:kms:{}:key/other"),
        ("arn:aws:kms:*:111111111111:key/*", "arn:aws:kms:*:222222222222:key/*"),
        ("arn:aws:secretsmanager:{}:secret:airflow/*", "arn:aws:secretsmanager:{}:secret:airflow/*"),
        ("*", "*"),
    ],
)
def test_resources_follow_the_environment(was: str, becomes: str) -> None:
    """{}: the region and the account, the old ones and the new ones."""
    was, becomes = was.format("us-west-2:111111111111"), becomes.format("eu-central-1:222222222222")
    (statement,) = rescoped("p", {"Statement": {"Effect": "Allow", "Action": "*", "Resource": [was]}}, OLD, NEW)
    assert statement.what["Resource"] == [becomes] and statement.changed == (was != becomes) and not statement.left


def test_data_stays_where_it_is_and_is_named() -> None:
    table = "arn:aws:dynamodb:us-west-2:111111111111:table/orders"
    (statement,) = rescoped("p", {"Statement": [{"Effect": "Allow", "Action": "*", "Resource": table}]}, OLD, NEW)
    assert statement.what["Resource"] == table and statement.left == (table,) and not statement.changed


def test_conditions_follow_too() -> None:
    condition = {
        "StringLike": {"kms:ViaService": ["sqs.us-west-2.amazonaws.com", "s3.us-west-2.amazonaws.com"]},
        "StringEquals": {"aws:ResourceAccount": "111111111111", "aws:RequestedRegion": "us-west-2"},
    }
    document = {"Statement": [{"Effect": "Allow", "Action": "kms:*", "NotResource": "*", "Condition": condition}]}
    (statement,) = rescoped("p", document, OLD, NEW)
    assert statement.what["Condition"] == {
        "StringLike": {"kms:ViaService": ["sqs.eu-central-1.amazonaws.com", "s3.eu-central-1.amazonaws.com"]},
        "StringEquals": {"aws:ResourceAccount": "222222222222", "aws:RequestedRegion": "eu-central-1"},
    }


def _trust(**more: Any) -> dict[str, Any]:
    return {"Statement": [{**TRUST["Statement"][0], **more}]}


@pytest.mark.parametrize(
    ("trust", "fault"),
    [
        (TRUST, None),
        (_trust(Principal={"Service": "airflow-env.amazonaws.com"}), None),
        (_trust(Principal={"Service": "ec2.amazonaws.com"}), "does not let airflow-env.amazonaws.com"),
        (_trust(Principal="*"), "does not let"),
        (_trust(Effect="Deny"), "does not let"),
        (_trust(Condition={"ArnLike": {"aws:SourceArn": f"{OLD.arn}"}}), "aws:SourceArn is"),
        (_trust(Condition={"ArnLike": {"aws:SourceArn": [OLD.arn, "arn:aws:airflow:*:*:environment/*"]}}), None),
        (_trust(Condition={"StringEquals": {"aws:SourceAccount": "111111111111"}}), "aws:SourceAccount is"),
        (_trust(Condition={"StringEquals": {"aws:SourceAccount": "222222222222"}}), None),
    ],
)
def test_whether_the_new_environment_can_assume_the_role(trust: dict[str, Any], fault: str | None) -> None:
    found = trust_faults(trust, NEW)
    assert found == [] if fault is None else fault in found[0]


class FakeIam:
    """One role, trusted by MWAA. policies: inline ones; attached: {arn: document}."""

    def __init__(self, policies: dict[str, Any] | None = None, attached: dict[str, Any] | None = None):
        self.policies, self.attached = policies or {}, attached or {}
        self.denied = ""
        self.written: list[str] = []

    def _look(self, operation: str) -> None:
        if operation == self.denied:
            raise aws_failure("AccessDenied", "no", operation=operation, status=403)

    def get_role(self, RoleName: str) -> dict[str, Any]:  # noqa: N803
        self._look("GetRole")
        if RoleName != "airflow":
            raise aws_failure("NoSuchEntity", operation="GetRole", status=404)
        return {"Role": {"Arn": ROLE, "AssumeRolePolicyDocument": TRUST}}

    def get_paginator(self, operation: str) -> Any:
        self._look(operation)
        names = {"PolicyNames": sorted(self.policies)}
        attached = {"AttachedPolicies": [{"PolicyArn": arn, "PolicyName": arn[-3:]} for arn in sorted(self.attached)]}
        page = names if operation == "list_role_policies" else attached
        return type("Paginator", (), {"paginate": lambda _self, **_role: [page]})()

    def get_role_policy(self, RoleName: str, PolicyName: str) -> dict[str, Any]:  # noqa: N803
        if PolicyName not in self.policies:
            raise aws_failure("NoSuchEntity", operation="GetRolePolicy", status=404)
        return {"PolicyDocument": self.policies[PolicyName]}

    def put_role_policy(self, RoleName: str, PolicyName: str, PolicyDocument: str) -> None:  # noqa: N803
        self.written.append(PolicyName)
        self.policies[PolicyName] = json.loads(PolicyDocument)

    def get_policy(self, PolicyArn: str) -> dict[str, Any]:  # noqa: N803
        return {"Policy": {"DefaultVersionId": "v3"}}

    def get_policy_version(self, PolicyArn: str, VersionId: str) -> dict[str, Any]:  # noqa: N803
        assert VersionId == "v3"
        return {"PolicyVersion": {"Document": self.attached[PolicyArn]}}


# --- the module -------------------------------------------------------------------------------------------------------


@pytest.fixture
def clone(run_module: Any, clock: Any) -> Any:
    def run(
        mwaa: FakeMwaa, options: dict[str, Any], iam: FakeIam | None = None, *, check: bool = False, sts: Any = None
    ) -> dict[str, Any]:
        clients = {"mwaa": mwaa, "s3": FakeS3(), "iam": iam or FakeIam(), "sts": sts}
        return run_module("mwaa_environment_clone", options, clients, check=check)

    return run


def test_a_clone_and_its_repeat(clone: Any) -> None:
    mwaa = FakeMwaa(SOURCE)
    result = clone(mwaa, CLONE)
    ((operation, sent),) = mwaa.calls
    assert operation == "CreateEnvironment" and result["environment"]["status"] == "AVAILABLE"
    assert sent == {**carried(CREATE, SOURCE), "Name": "new"}
    assert result["findings"] == ["both environments run the DAGs of s3://example-airflow/dags"]
    assert "CANARY" not in json.dumps(result)
    again = clone(mwaa, CLONE)
    assert not again["changed"] and again["operation"] == "none" and mwaa.writes == ["CreateEnvironment"]


def test_dags_do_not_start_beside_the_sources(clone: Any) -> None:
    source = copy.deepcopy(SOURCE)
    source["AirflowConfigurationOptions"] = {"core.dags_are_paused_at_creation": "False"}
    mwaa = FakeMwaa(source)
    assert clone(mwaa, CLONE)["options"]["added"] == ["core.dags_are_paused_at_creation"]
    assert mwaa.calls[0][1]["AirflowConfigurationOptions"] == {"core.dags_are_paused_at_creation": "True"}
    own = {"airflow_configuration_options": {"core.dags_are_paused_at_creation": False}}
    clone(mwaa, {**CLONE, "name": "newer", **own})
    assert mwaa.calls[1][1]["AirflowConfigurationOptions"] == {"core.dags_are_paused_at_creation": "False"}


def test_a_clone_of_1_10(clone: Any) -> None:
    source = copy.deepcopy(SOURCE)
    source["AirflowVersion"] = "1.10.12"
    source["AirflowConfigurationOptions"] = {
        "secrets.backend": "airflow.contrib.secrets.aws_secrets_manager.SecretsManagerBackend",
        "core.dag_concurrency": "8",
    }
    mwaa = FakeMwaa(source)
    assert "AWS ended Airflow 1.10.12" in clone(mwaa, CLONE)["msg"] and mwaa.writes == []
    clone(mwaa, {**CLONE, "airflow_version": "2.11.2"})
    assert mwaa.calls[0][1]["AirflowConfigurationOptions"] == {
        "secrets.backend": "airflow.providers.amazon.aws.secrets.secrets_manager.SecretsManagerBackend",
        "core.max_active_tasks_per_dag": "8",
    }


def test_over_what_the_source_has(clone: Any) -> None:
    mwaa = FakeMwaa(SOURCE)
    options = {
        **CLONE,
        "environment_class": "mw1.large",
        "airflow_configuration_options": {"core.parallelism": 16},
        "secret_configuration_options": {"smtp.smtp_password": "CANARY-new-0c0c0c0c"},
        "tags": {"owner": "me"},
        "kms_key": "",
    }
    result = clone(mwaa, options)
    sent = mwaa.calls[0][1]
    assert sent["EnvironmentClass"] == "mw1.large" and sent["Tags"] == {"team": "a", "owner": "me"}
    assert sent["AirflowConfigurationOptions"] == {
        "core.parallelism": "16",
        "smtp.smtp_password": "CANARY-new-0c0c0c0c",
    }
    assert result["diff"]["after"]["airflow_configuration_options"]["smtp.smtp_password"] == "*** (differs)"
    assert "CANARY" not in json.dumps(result)


@pytest.mark.parametrize(("there", "asked"), [("mw1.small", "mw1.micro"), ("mw1.micro", "mw1.small")])
def test_to_and_from_the_smallest_class_numbers_are_the_classs_own(clone: Any, there: str, asked: str) -> None:
    counts = {"Schedulers": 2, "MinWebservers": 2, "MaxWebservers": 2, "MinWorkers": 1, "MaxWorkers": 10}
    mwaa = FakeMwaa({**SOURCE, **counts, "EnvironmentClass": there})
    clone(mwaa, {**CLONE, "environment_class": asked, "max_workers": 1})
    sent = mwaa.calls[0][1]
    assert {name: sent[name] for name in counts if name in sent} == {"MaxWorkers": 1}


def test_only_the_statements_that_name_the_source_are_written(clone: Any) -> None:
    log = "arn:aws:logs:{}:123456789012:log-group:airflow-{}-*".format
    inline = {"Statement": [{"Effect": "Allow", "Action": "logs:*", "Resource": log(REGION, "old")}]}
    data = {"Statement": [{"Effect": "Allow", "Action": "s3:*", "Resource": "arn:aws:s3:::data/*"}]}
    attached = {"arn:aws:iam::123456789012:policy/own": data, "arn:aws:iam::aws:policy/AdministratorAccess": {}}
    iam = FakeIam({"mwaa": inline}, attached)
    mwaa = FakeMwaa(SOURCE)
    result = clone(mwaa, {**CLONE, "write_role_policy": True}, iam)
    assert iam.written == ["mwaa-clone-new"] and result["execution_role"]["written"]
    assert iam.policies["mwaa-clone-new"]["Statement"] == [
        {"Effect": "Allow", "Action": "logs:*", "Resource": log(REGION, "new")}
    ]


def test_a_caller_who_may_not_look_at_roles_is_told_so_and_goes_on(clone: Any) -> None:
    for denied in ("GetRole", "list_role_policies"):
        iam, mwaa = FakeIam(), FakeMwaa(SOURCE)
        iam.denied = denied
        result = clone(mwaa, CLONE, iam)
        assert result["changed"] and "the caller may not" in json.dumps(result["warnings"])


@pytest.mark.parametrize(
    ("code", "status", "advice"),
    [
        ("ThrottlingException", 429, "run again later, or ask AWS Support for a higher rate"),
        ("AccessDeniedException", 403, "allow the named action in the caller's IAM policy"),
        ("LimitExceededException", 400, "ask for a higher quota"),
        ("ServiceQuotaExceededException", 402, "ask for a higher quota"),
        ("InternalServerException", 500, "give the request id to AWS Support"),
        ("InternalFailure", 500, "give the request id to AWS Support"),
    ],
)
def test_each_refusal_of_aws_says_what_to_do(clone: Any, code: str, status: int, advice: str) -> None:
    mwaa = FakeMwaa(SOURCE)
    mwaa.refuse["CreateEnvironment"] = aws_failure(code, "no", operation="CreateEnvironment", status=status)
    result = clone(mwaa, CLONE)
    assert result["failed"] and result["error"]["code"] == code and advice in result["msg"]
    assert result["msg"].startswith("cannot create environment new: ")


def test_what_aws_repeats_of_a_secret_is_not_shown(clone: Any) -> None:
    mwaa = FakeMwaa(SOURCE)
    told = "Value '{smtp.smtp_password=CANARY-smtp-0a0a0a0a}' at 'airflowConfigurationOptions' failed"
    mwaa.refuse["CreateEnvironment"] = aws_failure("ValidationException", told, operation="CreateEnvironment")
    result = clone(mwaa, CLONE)
    assert "airflowConfigurationOptions" in result["msg"] and "CANARY" not in json.dumps(result)


def test_creating_fails(clone: Any) -> None:
    mwaa = FakeMwaa(SOURCE, statuses=("CREATING", "CREATE_FAILED"))
    mwaa.error = {"ErrorCode": "INCORRECT_CONFIGURATION", "ErrorMessage": "no way to S3"}
    assert "CREATE_FAILED (INCORRECT_CONFIGURATION: no way to S3)" in clone(mwaa, CLONE)["msg"]
    again = clone(mwaa, CLONE)
    assert again["failed"] and "state: absent" in again["msg"] and mwaa.writes == ["CreateEnvironment"]


def test_the_same_name_in_the_same_place(clone: Any) -> None:
    assert "needs another name, region or account" in clone(FakeMwaa(SOURCE), {**CLONE, "name": "old"})["msg"]


class FakeSts:
    def __init__(self) -> None:
        self.assumed: list[str] = []

    def assume_role(self, RoleArn: str, RoleSessionName: str) -> dict[str, Any]:  # noqa: N803
        self.assumed.append(RoleArn)
        if "nobody" in RoleArn:
            raise aws_failure("AccessDenied", "not authorized", operation="AssumeRole", status=403)
        keys = {"AccessKeyId": "k", "SecretAccessKey": "CANARY-key-11111111", "SessionToken": "t"}
        return {"Credentials": {**keys, "Expiration": "2999-01-01T00:00:00Z"}}

    def get_caller_identity(self) -> dict[str, str]:
        return {"Account": "123456789012"}


def test_a_source_that_is_read_as_another_role(clone: Any) -> None:
    sts, reader = FakeSts(), "arn:aws:iam::123456789012:role/reader"
    result = clone(FakeMwaa(SOURCE), {**CLONE, "source_role_arn": reader}, sts=sts)
    assert result["changed"] and sts.assumed == [reader] and "CANARY" not in json.dumps(result)
    result = clone(FakeMwaa(SOURCE), {**CLONE, "source_role_arn": reader.replace("reader", "nobody")}, sts=sts)
    assert "cannot assume the role arn:aws:iam::123456789012:role/nobody: AWS denied it" in result["msg"]
    assert "is not the ARN of an IAM role" in clone(FakeMwaa(SOURCE), {**CLONE, "source_role_arn": "reader"})["msg"]
