# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""mwaa_environment_template: the template of an environment's stack, and what is kept out of it."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import cfnlint.api
import pytest
import yaml
from ansible_collections.mwaa.migration.plugins.module_utils._mwaa import environment, settings
from ansible_collections.mwaa.migration.plugins.module_utils._stacks import base, environment_template
from cfnlint.schema import PROVIDER_SCHEMA_MANAGER
from fakes import REGION, aws_failure
from test_environment import EXISTING, FakeMwaa, FakeS3

EXPORTS = {
    "VpcId": "vpc-1",
    "SubnetIds": "subnet-b,subnet-a",
    "SubnetId1": "subnet-b",
    "SubnetId2": "subnet-a",
    "SecurityGroupIds": "sg-1,sg-2",
    "BucketName": "example-airflow",
    "BucketArn": "arn:aws:s3:::example-airflow",
    "RoleName": "airflow",
    "RoleArn": "arn:aws:iam::123456789012:role/airflow",
}
GIVEN = {"name": "demo", "base_stack": "demo-base", "airflow_version": "2.11.2", "environment_class": "mw1.small"}
KEY = "arn:aws:kms:eu-central-1:123456789012:key/11111111-2222-3333-4444-555555555555"


class Stacks:
    """CloudFormation with the base stack, and the stack that owns the environment."""

    def __init__(
        self,
        exports: dict[str, str] | None = None,
        owner: str = "CREATE_COMPLETE",
        holder: str = "",
        says: dict[str, str] | None = None,
        properties: dict[str, Any] | None = None,
    ):
        self.exports, self.owner, self.holder = EXPORTS if exports is None else exports, owner, holder
        self.says = {"smtp.smtp_password": "{{resolve:ssm:a}}"} if says is None else says
        self.properties = properties or {}

    def get_template(self, StackName: str, TemplateStage: str) -> dict[str, Any]:  # noqa: N803
        assert (StackName, TemplateStage) == ("demo-environment", "Original")
        properties = {"Name": "demo", "AirflowConfigurationOptions": self.says, **self.properties}
        resource = {"Type": "AWS::MWAA::Environment", "Properties": properties}
        return {"TemplateBody": {"Resources": {"Environment": resource}}}

    def describe_stacks(self, StackName: str) -> dict[str, Any]:  # noqa: N803
        if StackName == "demo-base" and self.exports:
            outputs = [
                {"OutputKey": name, "OutputValue": value, "ExportName": f"demo-base-{name}"}
                for name, value in self.exports.items()
            ]
            return {"Stacks": [{"StackName": StackName, "StackStatus": "UPDATE_COMPLETE", "Outputs": outputs}]}
        if StackName == "demo-environment":
            return {"Stacks": [{"StackName": StackName, "StackStatus": self.owner}]}
        raise aws_failure("ValidationError", f"Stack with id {StackName} does not exist")

    def describe_stack_resources(self, PhysicalResourceId: str) -> dict[str, Any]:  # noqa: N803
        if not self.holder:
            raise aws_failure("ValidationError", f"Stack for {PhysicalResourceId} does not exist")
        row = {"ResourceType": "AWS::MWAA::Environment", "ResourceStatus": "IMPORT_COMPLETE", "StackName": self.holder}
        return {"StackResources": [{**row, "PhysicalResourceId": PhysicalResourceId}]}


@pytest.fixture
def make(run_module: Any) -> Any:
    """make({options}) -> what the module returns."""

    def run(given: dict[str, Any], *there: Any, s3: Any = None, stacks: Any = None, check: bool = False) -> Any:
        clients = {"mwaa": FakeMwaa(*there), "s3": s3 or FakeS3(), "cloudformation": stacks or Stacks()}
        result = run_module("mwaa_environment_template", given, clients, check=check)
        assert clients["mwaa"].writes == []
        return result

    return run


@pytest.fixture
def bundle(monkeypatch: pytest.MonkeyPatch) -> Any:
    """bundle({options}, secret=[names]) -> what is in the bundle that the module opens."""

    def made(portable: dict[str, str], *, secret: tuple[str, ...] = (), files: tuple[str, ...] = ()) -> None:
        class Bundle:
            def __init__(self) -> None:
                self.files = dict.fromkeys(files)

            @classmethod
            def open(cls, *_where: Any) -> Any:
                return cls()

            def document(self, _path: str) -> Any:
                secrets = [{"name": name, "reason": "it may hold a secret"} for name in secret]
                return {"portable": portable, "secret": secrets, "target_version": "2.11.2"}

        monkeypatch.setattr(environment, "Bundle", Bundle)
        monkeypatch.setattr(environment, "open_store", lambda url, _aws: url)

    return made


def properties(result: dict[str, Any]) -> dict[str, Any]:
    assert not result.get("failed"), result.get("msg")
    return result["template"]["Resources"]["Environment"]["Properties"]


def faults_of_cfn_lint(template: dict[str, Any]) -> list[str]:
    text = yaml.safe_dump(template, sort_keys=False)
    for short in ("subnet-a", "subnet-b", "sg-1"):  # ids are longer
        text = text.replace(short, f"{short[:-1]}{'0' * 16}a")
    found = cfnlint.api.lint(text, regions=[REGION])
    return [f"{one.rule.id} {one.message}" for one in found]


# --- what the template says -----------------------------------------------------------------------------------------


def test_network_bucket_and_role_are_imported_from_the_base_stack(make: Any) -> None:
    result = make(GIVEN)

    def imported(name: str) -> dict[str, Any]:
        return {"Fn::ImportValue": {"Fn::Sub": f"${{BaseStackName}}-{name}"}}

    assert properties(result) == {
        "Name": "demo",
        "AirflowVersion": "2.11.2",
        "DagS3Path": "dags",
        "EnvironmentClass": "mw1.small",
        "SourceBucketArn": imported("BucketArn"),
        "ExecutionRoleArn": imported("RoleArn"),
        "NetworkConfiguration": {
            "SubnetIds": [imported("SubnetId1"), imported("SubnetId2")],
            "SecurityGroupIds": {"Fn::Split": [",", imported("SecurityGroupIds")]},
        },
    }
    template = result["template"]
    assert template["Parameters"]["BaseStackName"]["Default"] == "demo-base"
    assert sorted(template["Outputs"]) == ["EnvironmentArn", "EnvironmentName", "WebserverUrl"]
    assert faults_of_cfn_lint(template) == []
    names = {name for names in environment_template.EXPORTS.values() for name in names}
    assert names <= {*base.EXPORTS, *base.OPTIONAL_EXPORTS}


EVERYTHING = {
    **GIVEN,
    "dag_s3_path": "airflow/dags/",
    "plugins_s3_path": "plugins.zip",
    "plugins_s3_object_version": "p1",
    "requirements_s3_path": "requirements.txt",
    "startup_script_s3_path": "startup.sh",
    "endpoint_management": "SERVICE",
    "webserver_access_mode": "PRIVATE_ONLY",
    "min_workers": 1,
    "max_workers": 7,
    "schedulers": 2,
    "min_webservers": 2,
    "max_webservers": 3,
    "airflow_configuration_options": {"core.parallelism": 8, "core.x_y": True},
    "secret_references": {"smtp.smtp_password": "resolve:secretsmanager:airflow/smtp:SecretString:password"},
    "logging_configuration": {log: {"enabled": True, "log_level": "INFO"} for log in settings.LOGS},
    "weekly_maintenance_window_start": "SUN:03:30",
    "worker_replacement_strategy": "GRACEFUL",
    "tags": {"team": "data"},
}


def test_every_property_of_an_environment_can_be_said_and_cfn_lint_knows_it(make: Any) -> None:
    result = make(EVERYTHING, s3=FakeS3(requirements="r1", startup="s1"), stacks=Stacks({**EXPORTS, "KmsKeyArn": KEY}))
    made = properties(result)
    assert faults_of_cfn_lint(result["template"]) == []
    known = PROVIDER_SCHEMA_MANAGER.get_resource_schema(REGION, "AWS::MWAA::Environment").schema
    read_only = {path.split("/")[2] for path in known["readOnlyProperties"]}
    logs = {path.split("/")[3] for path in known["readOnlyProperties"] if "LoggingConfiguration" in path}
    assert set(made) == set(known["properties"]) - (read_only - {"LoggingConfiguration"})
    assert set(made["LoggingConfiguration"]) == logs
    assert made["DagS3Path"] == "airflow/dags"
    assert (made["RequirementsS3ObjectVersion"], made["PluginsS3ObjectVersion"]) == ("r1", "p1")
    assert made["AirflowConfigurationOptions"] == {
        "core.parallelism": "8",
        "core.x_y": "True",
        "smtp.smtp_password": "{{resolve:secretsmanager:airflow/smtp:SecretString:password}}",
    }
    assert made["KmsKey"] == {"Fn::ImportValue": {"Fn::Sub": "${BaseStackName}-KmsKeyArn"}}
    assert "airflow_configuration_options" not in result["settings"]
    assert result["settings"]["requirements_s3_object_version"] == "r1"


def test_without_a_base_stack_everything_stands_in_the_template(make: Any) -> None:
    own = {
        "name": "demo",
        "source_bucket": "example-airflow",
        "execution_role_arn": EXPORTS["RoleArn"],
        "subnet_ids": ["subnet-b", "subnet-a"],
        "security_group_ids": ["sg-1"],
    }
    result = make(own)
    assert properties(result)["SourceBucketArn"] == "arn:aws:s3:::example-airflow"
    assert properties(result)["NetworkConfiguration"] == {
        "SubnetIds": ["subnet-a", "subnet-b"],
        "SecurityGroupIds": ["sg-1"],
    }
    assert "Parameters" not in result["template"] and faults_of_cfn_lint(result["template"]) == []
    missing = make({"name": "demo", "subnet_ids": ["subnet-b", "subnet-a"]})
    assert missing["msg"] == (
        "environment demo: without base_stack it needs execution_role_arn, source_bucket, security_group_ids"
    )


@pytest.mark.parametrize(
    ("policy", "on_replacement"), [("RetainExceptOnCreate", "Retain"), ("Retain", "Retain"), ("Delete", "Delete")]
)
def test_what_becomes_of_it_with_its_stack(make: Any, policy: str, on_replacement: str) -> None:
    template = make({**GIVEN, "deletion_policy": policy})["template"]
    resource = template["Resources"]["Environment"]
    assert (resource["DeletionPolicy"], resource["UpdateReplacePolicy"]) == (policy, on_replacement)
    assert faults_of_cfn_lint(template) == []


def test_the_order_of_subnets_is_that_of_the_environment_that_is_there(make: Any) -> None:
    # EXISTING has subnet-a first, the base stack exports subnet-b first
    names = [
        subnet["Fn::ImportValue"]["Fn::Sub"].rpartition("-")[2]
        for subnet in properties(make(GIVEN, {**EXISTING, "AirflowConfigurationOptions": {}}))["NetworkConfiguration"][
            "SubnetIds"
        ]
    ]
    assert names == ["SubnetId2", "SubnetId1"]


def test_what_would_need_another_environment_is_refused(make: Any) -> None:
    there = {**EXISTING, "AirflowConfigurationOptions": {}, "EndpointManagement": "SERVICE"}
    moved = Stacks({**EXPORTS, "SubnetId1": "subnet-c", "KmsKeyArn": KEY})
    said = make({**GIVEN, "endpoint_management": "CUSTOMER"}, there, stacks=moved)["msg"]
    assert said.startswith("environment demo: ") and "MWAA fixes this when an environment is created" in said
    for part in ("subnet_ids is subnet-a, subnet-b and cannot become subnet-a, subnet-c", "kms_key is", "endpoint_man"):
        assert part in said, part


def test_what_is_too_long_for_a_template_is_a_sentence(make: Any) -> None:
    said = make({**GIVEN, "airflow_configuration_options": {"core.long": "x" * 60000, "core.short": "y"}})["msg"]
    assert "CloudFormation takes 51200" in said and "core.long (60000 characters)" in said


# --- the base stack -------------------------------------------------------------------------------------------------


def test_what_is_given_and_exported_has_to_be_the_same(make: Any) -> None:
    same = {
        "source_bucket": "arn:aws:s3:::example-airflow",
        "subnet_ids": ["subnet-a", "subnet-b"],
        "security_group_ids": ["sg-2", "sg-1"],
        "execution_role_arn": EXPORTS["RoleArn"],
    }
    assert properties(make({**GIVEN, **same})) == properties(make(GIVEN))
    other = {"source_bucket": "other", "subnet_ids": ["subnet-a", "subnet-c"], "kms_key": KEY}
    said = make({**GIVEN, **other})["msg"]
    assert said.startswith("environment demo on the base stack demo-base: 3 faults: (1) source_bucket is other and the")
    assert "subnet_ids is subnet-a, subnet-c and the stack exports subnet-b, subnet-a" in said
    assert "the stack exports no KmsKeyArn" in said


def test_a_base_stack_that_is_not_there_or_not_ready(make: Any) -> None:
    said = make(GIVEN, stacks=Stacks({}))["msg"]
    assert said == (
        f"the base stack demo-base does not exist in {REGION}: run the stage base first (--tags base), or correct its"
        " name"
    )
    without = {name: value for name, value in EXPORTS.items() if name not in ("RoleArn", "SubnetId2")}
    assert "exports no RoleArn, SubnetId2: run the stage base again" in make(GIVEN, stacks=Stacks(without))["msg"]


def test_check_mode_shows_the_template_before_there_is_a_base_stack(make: Any) -> None:
    first = make(GIVEN, stacks=Stacks({}), check=True)
    assert properties(first) == properties(make(GIVEN))
    assert "known after the stage base" in str(first["warnings"])


# --- options --------------------------------------------------------------------------------------------------------


def test_a_bundle_brings_what_it_brings_to_mwaa_environment(
    make: Any, run_module: Any, bundle: Any, clock: Any
) -> None:
    bundle({"core.parallelism": "16", "core.default_timezone": "utc"}, files=("requirements.txt", "dags/a.py"))
    given = {"name": "demo", "bundle": "s3://b/x", "airflow_configuration_options": {"core.parallelism": 4}}
    mwaa, s3 = FakeMwaa(EXISTING, statuses=("UPDATING", "AVAILABLE")), FakeS3(requirements="r1")
    mwaa.environments["demo"]["AirflowConfigurationOptions"] = {"core.killed_task_cleanup_time": "9"}
    before = dict(mwaa.environments["demo"])
    template = properties(make({**given, "base_stack": "demo-base"}, before, s3=s3))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(environment, "held_in", lambda *_where: contextlib.nullcontext(lambda: None))
        assert run_module("mwaa_environment", given, {"mwaa": mwaa, "s3": s3})["changed"]
    direct = mwaa.environments["demo"]
    for name in ("AirflowConfigurationOptions", "RequirementsS3Path", "RequirementsS3ObjectVersion"):
        assert template[name] == direct[name]
    assert template["AirflowConfigurationOptions"]["core.dags_are_paused_at_creation"] == "True"


def test_secrets_are_refused_and_all_are_named(make: Any, bundle: Any) -> None:
    bundle({"custom.api_token": "CANARY-bundle-0a0a0a0a"})
    said = make(
        {
            **GIVEN,
            "bundle": "s3://b/x",
            "airflow_configuration_options": {
                "smtp.smtp_password": "CANARY-plain-0a0a0a0a",
                "secrets.backend_kwargs": json.dumps({"token": "CANARY-kwargs-0a0a0a0a"}),
                "core.default_timezone": "{{resolve:secretsmanager:CANARY-of-others-0a0a0a0a}}",
            },
            "secret_configuration_options": {"custom.plain_name": "CANARY-secret-0a0a0a0a"},
            "secret_references": {"core.a": "resolve:ssm-secure:name", "core.b": "CANARY-not-a-reference-0a0a0a0a"},
        }
    )["msg"]
    assert said.startswith("environment demo: 7 faults: ")
    for part in (
        "secret_references[core.a] is neither",
        "secret_references[core.b] is neither",
        "the option core.default_timezone has {{resolve: in its value",
        "the option custom.api_token of the bundle looks secret",
        "custom.plain_name is given as a secret value",
        "the option secrets.backend_kwargs looks secret",
        "the option smtp.smtp_password looks secret",
    ):
        assert part in said, part
    assert "CANARY" not in said


def test_a_reference_takes_the_place_of_any_value(make: Any, bundle: Any) -> None:
    bundle({"custom.api_token": "CANARY-bundle-0a0a0a0a"}, secret=("smtp.smtp_password", "webserver.secret_key"))
    braces = "{{resolve:secretsmanager:arn:aws:secretsmanager:eu-central-1:123456789012:secret:smtp-a1b2c3}}"
    result = make(
        {
            **GIVEN,
            "bundle": "s3://b/x",
            "secret_configuration_options": {"sentry.sentry_dsn": "CANARY-dsn-0a0a0a0a"},
            "secret_references": {
                "smtp.smtp_password": braces,
                "custom.api_token": "resolve:ssm:/airflow/token:3",
                "sentry.sentry_dsn": "resolve:secretsmanager:sentry",
            },
        }
    )
    assert properties(result)["AirflowConfigurationOptions"] == {
        "core.dags_are_paused_at_creation": "True",
        "custom.api_token": "{{resolve:ssm:/airflow/token:3}}",
        "sentry.sentry_dsn": "{{resolve:secretsmanager:sentry}}",
        "smtp.smtp_password": braces,
    }
    assert "CANARY" not in json.dumps(result["template"])
    # what the source has and no bundle holds is said, and does not hinder
    assert result["left_out"] == ["webserver.secret_key"]
    assert "is made without webserver.secret_key" in str(result["warnings"])
    assert faults_of_cfn_lint(result["template"]) == []


def test_secrets_manager_is_looked_at_first(make: Any) -> None:
    made = properties(make({**GIVEN, "secrets_backend": {"prefix": "team/airflow"}}))["AirflowConfigurationOptions"]
    assert made["secrets.backend"].endswith(".SecretsManagerBackend")
    assert json.loads(made["secrets.backend_kwargs"])["variables_prefix"] == "team/airflow/variables"


# --- an environment that is there -----------------------------------------------------------------------------------

OWNED = {**EXISTING, "Tags": {"aws:cloudformation:stack-name": "demo-environment"}}


def test_what_it_has_stays_and_its_secrets_need_references(make: Any, bundle: Any) -> None:
    bundle({"core.parallelism": "16"})
    given = {**GIVEN, "bundle": "s3://b/x"}
    assert "the option smtp.smtp_password looks secret" in make(given, EXISTING)["msg"]
    there = {**EXISTING, "AirflowConfigurationOptions": {"core.parallelism": "8", "core.other": "1"}}
    result = make(given, there)
    assert result["environment"] == {"status": "AVAILABLE", "stack": None}
    options = properties(result)["AirflowConfigurationOptions"]
    assert (options["core.other"], options["core.parallelism"]) == ("1", "16")


def test_the_stack_that_owns_it_is_known_without_its_tag(make: Any) -> None:
    there = {**EXISTING, "AirflowConfigurationOptions": {}}
    assert make(GIVEN, there, stacks=Stacks(holder="demo-environment"))["environment"]["stack"] == "demo-environment"


def test_what_is_seen_of_a_stacks_own_secret_is_not_taken_for_an_option(make: Any, bundle: Any) -> None:
    bundle({})
    result = make({**GIVEN, "bundle": "s3://b/x"}, OWNED)
    assert result["environment"] == {"status": "AVAILABLE", "stack": "demo-environment"}
    assert "smtp.smtp_password" not in properties(result)["AirflowConfigurationOptions"]
    reference = {"smtp.smtp_password": "resolve:ssm:a"}
    left = make(
        {**GIVEN, "bundle": "s3://b/x", "secret_references": reference},
        OWNED,
        stacks=Stacks(owner="DELETE_COMPLETE"),
    )
    assert left["environment"]["stack"] is None and "CANARY" not in json.dumps(left)


def test_a_secret_that_its_stack_does_not_say_is_not_lost(make: Any, bundle: Any) -> None:
    bundle({})
    given = {**GIVEN, "bundle": "s3://b/x"}
    refused = make(given, OWNED, stacks=Stacks(says={}))  # as it is after its import
    assert "the option smtp.smtp_password looks secret" in refused["msg"] and "CANARY" not in json.dumps(refused)
    given["secret_references"] = {"smtp.smtp_password": "resolve:ssm:a"}
    options = properties(make(given, OWNED, stacks=Stacks(says={})))["AirflowConfigurationOptions"]
    assert options["smtp.smtp_password"] == "{{resolve:ssm:a}}"


def test_what_is_not_asked_for_stays_as_its_stack_says_it(make: Any, bundle: Any) -> None:
    """Of one that was adopted: to take EndpointManagement, or the key's name, out of the template is to replace it."""
    bundle({})
    imported = {
        "EndpointManagement": "SERVICE",
        "KmsKey": KEY.rpartition("/")[2],
        "MinWorkers": 2,
        "Tags": {"cost": "7"},
        "MaxWorkers": {"Ref": "Workers"},  # of a template of one's own: this one has no such parameter
        "WorkerReplacementStrategy": "GRACEFUL",
        "SourceBucketArn": "arn:aws:s3:::example-airflow",
        "LoggingConfiguration": {log: {"Enabled": True, "LogLevel": "INFO"} for log in ("TaskLogs", "WorkerLogs")},
    }
    given = {
        **GIVEN,
        "bundle": "s3://b/x",
        "environment_class": None,
        "logging_configuration": {"task_logs": {"enabled": True, "log_level": "ERROR"}},
    }
    stacks = Stacks({**EXPORTS, "KmsKeyArn": KEY}, properties=imported)
    made = properties(make({**given, "min_workers": 3}, {**OWNED, "KmsKey": imported["KmsKey"]}, stacks=stacks))
    assert (made["EndpointManagement"], made["KmsKey"]) == ("SERVICE", imported["KmsKey"])
    assert made["MinWorkers"] == 3 and made["Tags"] == {"cost": "7"}
    assert not {"MaxWorkers", "WorkerReplacementStrategy", "EnvironmentClass"} & set(made)
    assert made["SourceBucketArn"] == {"Fn::ImportValue": {"Fn::Sub": "${BaseStackName}-BucketArn"}}
    assert {log: said["LogLevel"] for log, said in made["LoggingConfiguration"].items()} == {
        "TaskLogs": "ERROR",
        "WorkerLogs": "INFO",
    }


@pytest.mark.parametrize("status", ["DELETING", "CREATE_FAILED", "UNAVAILABLE"])
def test_one_that_cannot_be_changed_is_a_sentence(make: Any, status: str) -> None:
    result = make(GIVEN, {**EXISTING, "Status": status})
    assert result["failed"] and f"environment demo is {status}" in result["msg"].replace("being deleted", "DELETING")
