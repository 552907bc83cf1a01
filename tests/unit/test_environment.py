# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""mwaa_environment and mwaa_environment_info: what is asked of AWS, and what is said."""

from __future__ import annotations

import contextlib
import copy
import io
import json
from collections.abc import Iterator
from typing import Any

import pytest
from ansible_collections.mwaa.migration.plugins.module_utils._errors import MigrationError
from ansible_collections.mwaa.migration.plugins.module_utils._mwaa import environment
from ansible_collections.mwaa.migration.plugins.module_utils._sync.bucket import Found
from ansible_collections.mwaa.migration.plugins.module_utils._sync.index import Index
from fakes import REGION, aws_failure, check_input

ROLE = "arn:aws:iam::123456789012:role/airflow"
GIVEN = {
    "name": "demo",
    "airflow_version": "2.11.2",
    "source_bucket": "example-airflow",
    "dag_s3_path": "dags",
    "execution_role_arn": ROLE,
    "subnet_ids": ["subnet-b", "subnet-a"],
    "security_group_ids": ["sg-1"],
}
EXISTING = {
    "Name": "demo",
    "Arn": f"arn:aws:airflow:{REGION}:123456789012:environment/demo",
    "Status": "AVAILABLE",
    "AirflowVersion": "2.11.2",
    "SourceBucketArn": "arn:aws:s3:::example-airflow",
    "DagS3Path": "dags",
    "ExecutionRoleArn": ROLE,
    "NetworkConfiguration": {"SubnetIds": ["subnet-a", "subnet-b"], "SecurityGroupIds": ["sg-1"]},
    "AirflowConfigurationOptions": {"core.parallelism": "8", "smtp.smtp_password": "CANARY-smtp-0a0a0a0a"},
    "EnvironmentClass": "mw1.small",
    "MaxWorkers": 10,
    "LoggingConfiguration": {
        "TaskLogs": {
            "Enabled": True,
            "LogLevel": "INFO",
            "CloudWatchLogGroupArn": "arn:aws:logs:::log-group:airflow-demo-Task",
        }
    },
    "Tags": {"team": "a"},
    "LastUpdate": {"Status": "SUCCESS", "CreatedAt": "2026-01-01"},
}


class FakeMwaa:
    """MWAA in memory. `statuses`: what the environment goes through after an operation, a status a look."""

    def __init__(self, *environments: dict[str, Any], statuses: tuple[str, ...] = ("CREATING", "AVAILABLE")):
        self.environments = {one["Name"]: copy.deepcopy(one) for one in environments}
        self.statuses = list(statuses)
        self.after: list[str] = []
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self.refuse: dict[str, Exception] = {}
        self.error: dict[str, str] | None = None

    def _called(self, operation: str, params: dict[str, Any]) -> None:
        check_input("mwaa", operation, params)
        if not operation.startswith(("Get", "List")):
            self.calls.append((operation, params))
        if operation in self.refuse:
            raise self.refuse[operation]

    @property
    def writes(self) -> list[str]:
        return [operation for operation, _params in self.calls]

    def get_environment(self, **params: Any) -> dict[str, Any]:
        self._called("GetEnvironment", params)
        if params["Name"] not in self.environments:
            raise aws_failure("ResourceNotFoundException", operation="GetEnvironment", status=404)
        environment = self.environments[params["Name"]]
        if self.after:
            environment["Status"] = self.after.pop(0)
            if environment["Status"] == "DELETED":
                del self.environments[params["Name"]]
            if environment["Status"].endswith("FAILED") and self.error:
                environment["LastUpdate"]["Error"] = self.error
        return {"Environment": copy.deepcopy(environment)}

    def get_paginator(self, _operation: str) -> Any:
        names = sorted(self.environments)
        pages = [{"Environments": names[:1]}, {"Environments": names[1:]}]
        return type("Paginator", (), {"paginate": lambda _self: pages})()

    def create_environment(self, **params: Any) -> dict[str, Any]:
        self._called("CreateEnvironment", params)
        self.environments[params["Name"]] = {
            **params,
            "Arn": f"arn:aws:airflow:{REGION}:123456789012:environment/{params['Name']}",
            "Status": "CREATING",
            "LastUpdate": {"Status": "PENDING", "CreatedAt": "2026-02-02"},
        }
        self.after = list(self.statuses)
        return {}

    def update_environment(self, **params: Any) -> dict[str, Any]:
        self._called("UpdateEnvironment", params)
        environment = self.environments[params.pop("Name")]
        environment["NetworkConfiguration"].update(params.pop("NetworkConfiguration", {}))
        environment.update(params)
        environment["LastUpdate"] = {"Status": "PENDING", "CreatedAt": "2026-02-02"}
        self.after = list(self.statuses)
        return {}

    def delete_environment(self, **params: Any) -> dict[str, Any]:
        self._called("DeleteEnvironment", params)
        self.after = ["DELETING", "DELETED"]
        return {}

    def tag_resource(self, **params: Any) -> dict[str, Any]:
        self._called("TagResource", params)
        self.environments["demo"].setdefault("Tags", {}).update(params["Tags"])
        return {}

    def untag_resource(self, **params: Any) -> dict[str, Any]:
        self._called("UntagResource", params)
        for key in params["tagKeys"]:
            del self.environments["demo"]["Tags"][key]
        return {}


class FakeS3:
    """A bucket as MWAA wants it, unless told otherwise."""

    def __init__(
        self,
        *,
        region: str = REGION,
        versioning: str = "Enabled",
        blocked: bool = True,
        missing: bool = False,
        **objects: str,
    ):
        self.region = region
        self.versioning = versioning
        self.blocked = blocked
        self.missing = missing
        self.objects = objects  # key without its dot -> version id
        self.index = Index(None)  # of what was published

    def get_object(self, Bucket: str, Key: str) -> dict[str, Any]:  # noqa: N803
        if Key != "mwaa-migration/published/dags.json" or not self.index.objects:
            raise aws_failure("NoSuchKey", operation="GetObject", status=404)
        return {"Body": io.BytesIO(self.index.encode()), "ETag": '"index"'}

    def head_bucket(self, **_params: Any) -> dict[str, Any]:
        if self.missing:
            raise aws_failure("404", operation="HeadBucket", status=404)
        return {"ResponseMetadata": {"HTTPHeaders": {"x-amz-bucket-region": self.region}}}

    def get_bucket_versioning(self, **_params: Any) -> dict[str, Any]:
        return {"Status": self.versioning}

    def get_public_access_block(self, **_params: Any) -> dict[str, Any]:
        if not self.blocked:
            raise aws_failure("NoSuchPublicAccessBlockConfiguration", status=404)
        switches = ("BlockPublicAcls", "IgnorePublicAcls", "BlockPublicPolicy", "RestrictPublicBuckets")
        return {"PublicAccessBlockConfiguration": dict.fromkeys(switches, True)}

    def head_object(self, Bucket: str, Key: str) -> dict[str, Any]:  # noqa: N803
        name = Key.split(".")[0]
        if name not in self.objects:
            raise aws_failure("404", operation="HeadObject", status=404)
        return {"VersionId": self.objects[name]}


@pytest.fixture
def ensure(run_module: Any, clock: Any) -> Any:
    def run(
        mwaa: FakeMwaa, options: dict[str, Any], *, s3: FakeS3 | None = None, check: bool = False
    ) -> dict[str, Any]:
        return run_module("mwaa_environment", options, {"mwaa": mwaa, "s3": s3 or FakeS3()}, check=check)

    return run


# --- create ---------------------------------------------------------------------------------------------------------


def test_creates_waits_and_is_done_the_second_time(ensure: Any) -> None:
    mwaa = FakeMwaa(statuses=("CREATING", "CREATING", "AVAILABLE"))
    first = ensure(mwaa, GIVEN)
    assert first["changed"] and first["operation"] == "create"
    assert first["environment"]["status"] == "AVAILABLE"
    assert first["diff"]["before"] == {} and first["diff"]["after"]["airflow_version"] == "2.11.2"
    second = ensure(mwaa, GIVEN)
    assert not second["changed"] and second["operation"] == "none"
    assert mwaa.writes == ["CreateEnvironment"]


def test_check_mode_creates_nothing_and_says_what_it_would(ensure: Any) -> None:
    mwaa = FakeMwaa()
    result = ensure(mwaa, GIVEN, check=True)
    assert result["changed"] and result["environment"] is None and mwaa.writes == []
    assert result["diff"]["after"]["source_bucket"] == "example-airflow"


def test_all_faults_are_reported_at_once_and_nothing_is_called(ensure: Any) -> None:
    mwaa = FakeMwaa()
    result = ensure(
        mwaa,
        {
            **GIVEN,
            "name": "1demo",
            "subnet_ids": ["subnet-a"],
            "kms_key": "alias/airflow",
            "min_workers": 5,
            "max_workers": 2,
            "airflow_configuration_options": {"core.x": "", "Core.Y": "ü", "core.z": None},
            "secret_configuration_options": {"core.x": "CANARY-option-0b0b0b0b\n"},
            "weekly_maintenance_window_start": "TUE:03:15",
            "tags": {"": "a"},
            "plugins_s3_path": "s3://bucket/plugins.zip",
        },
    )
    assert result["failed"] and mwaa.calls == []
    assert ": 13 faults: (1) " in result["msg"] and "faults" not in result
    for part in (
        "name must begin",
        "subnet_ids",
        "alias",
        "min_workers is 5",
        "core.x]: MWAA takes no empty value",
        "ASCII",
        "null",
        "in both",
        "TUE:03:15",
        "tags[]",
        "inside the bucket",
    ):
        assert part in result["msg"], part
    assert "CANARY" not in json.dumps(result)


def test_what_creating_needs_is_named_together(ensure: Any) -> None:
    result = ensure(FakeMwaa(), {"name": "demo", "dag_s3_path": "dags"})
    assert "does not exist" in result["msg"]
    for option in ("execution_role_arn", "source_bucket", "subnet_ids", "security_group_ids"):
        assert option in result["msg"]


@pytest.mark.parametrize(
    ("bucket", "sentence"),
    [
        (FakeS3(missing=True), "the bucket example-airflow does not exist"),
        (FakeS3(region="us-east-1"), "is in us-east-1 and the environment in eu-central-1"),
        (FakeS3(versioning="Suspended"), "is not versioned"),
        (FakeS3(blocked=False), "does not block all public access"),
    ],
)
def test_a_bucket_that_mwaa_would_refuse(ensure: Any, bucket: FakeS3, sentence: str) -> None:
    mwaa = FakeMwaa()
    result = ensure(mwaa, GIVEN, s3=bucket)
    assert sentence in result["msg"] and mwaa.writes == []


def test_object_versions_are_pinned(ensure: Any) -> None:
    mwaa = FakeMwaa()
    ensure(mwaa, {**GIVEN, "requirements_s3_path": "requirements.txt"}, s3=FakeS3(requirements="v7"))
    (_operation, params), *_rest = mwaa.calls
    assert params["RequirementsS3Path"] == "requirements.txt" and params["RequirementsS3ObjectVersion"] == "v7"


def test_an_object_that_is_not_there(ensure: Any) -> None:
    result = ensure(FakeMwaa(), {**GIVEN, "plugins_s3_path": "plugins.zip"})
    assert "s3://example-airflow/plugins.zip does not exist: upload it first" in result["msg"]
    planned = ensure(FakeMwaa(), {**GIVEN, "plugins_s3_path": "plugins.zip"}, check=True)
    assert planned["changed"] and "does not exist yet" in json.dumps(planned["warnings"])


def test_create_failed_tells_mwaas_reason_and_what_to_do(ensure: Any) -> None:
    mwaa = FakeMwaa(statuses=("CREATING", "CREATE_FAILED"))
    mwaa.error = {"ErrorCode": "INCORRECT_CONFIGURATION", "ErrorMessage": "You may need to check the execution role."}
    result = ensure(mwaa, GIVEN)
    assert result["failed"]
    assert "CREATE_FAILED (INCORRECT_CONFIGURATION: You may need to check the execution role)" in result["msg"]
    assert "state: absent" in result["msg"]


def test_customer_endpoints_creating_returns_with_the_services_to_connect(ensure: Any) -> None:
    mwaa = FakeMwaa(statuses=("CREATING", "PENDING", "AVAILABLE"))
    given = {**GIVEN, "endpoint_management": "CUSTOMER"}
    assert ensure(mwaa, given)["environment"]["status"] == "PENDING"
    again = ensure(mwaa, given)
    assert again["environment"]["status"] == "AVAILABLE" and not again["changed"]


def test_waiting_ends_at_wait_timeout_and_says_how_to_go_on(ensure: Any, clock: Any) -> None:
    mwaa = FakeMwaa(statuses=("CREATING",) * 1000)
    result = ensure(mwaa, {**GIVEN, "wait_timeout": 300})
    assert "environment demo: CREATING: not finished after 5 min 0 s" in result["msg"] and "run again" in result["msg"]
    assert 1300 <= clock.now < 1310


# --- update ---------------------------------------------------------------------------------------------------------


def test_only_what_differs_is_sent(ensure: Any) -> None:
    mwaa = FakeMwaa(EXISTING, statuses=("UPDATING", "AVAILABLE"))
    result = ensure(mwaa, {**GIVEN, "max_workers": 20})
    assert result["changed"] and result["operation"] == "update"
    assert result["diff"] == {"before": {"max_workers": 10}, "after": {"max_workers": 20}}
    assert mwaa.calls == [("UpdateEnvironment", {"MaxWorkers": 20})]


def test_a_success_from_before_is_not_taken_for_the_updates_result(ensure: Any) -> None:
    mwaa = FakeMwaa(EXISTING, statuses=("AVAILABLE", "UPDATING", "UPDATE_FAILED"))
    mwaa.error = {"ErrorCode": "X", "ErrorMessage": "pip failed"}
    update = mwaa.update_environment

    def update_unnoticed(**params: Any) -> dict[str, Any]:
        update(**params)
        mwaa.environments["demo"]["LastUpdate"] = copy.deepcopy(EXISTING["LastUpdate"])
        return {}

    mwaa.update_environment = update_unnoticed  # type: ignore[method-assign]
    result = ensure(mwaa, {"name": "demo", "max_workers": 20})
    assert result["failed"] and "UPDATE_FAILED (X: pip failed)" in result["msg"] and "rolled back" in result["msg"]


def test_options_are_replaced_secrets_merged_and_nothing_secret_is_shown(ensure: Any) -> None:
    mwaa = FakeMwaa(EXISTING, statuses=("UPDATING", "AVAILABLE"))
    result = ensure(
        mwaa,
        {
            "name": "demo",
            "airflow_configuration_options": {"core.parallelism": 16, "core.load_examples": False},
            "secret_configuration_options": {
                "smtp.smtp_password": "CANARY-new-0c0c0c0c",
                "mine.value": "CANARY-mine-0d0d0d0d",
            },
        },
    )
    sent = mwaa.calls[0][1]["AirflowConfigurationOptions"]
    assert sent == {
        "core.parallelism": "16",
        "core.load_examples": "False",
        "smtp.smtp_password": "CANARY-new-0c0c0c0c",
        "mine.value": "CANARY-mine-0d0d0d0d",
    }
    assert "CANARY" not in json.dumps(result)
    after = result["diff"]["after"]["airflow_configuration_options"]
    assert after["smtp.smtp_password"] == "*** (differs)" and after["core.parallelism"] == "16"


def test_a_changed_secret_alone_is_a_change_and_the_other_options_stay(ensure: Any) -> None:
    mwaa = FakeMwaa(EXISTING, statuses=("UPDATING", "AVAILABLE"))
    same = {"name": "demo", "secret_configuration_options": {"smtp.smtp_password": "CANARY-smtp-0a0a0a0a"}}
    assert not ensure(mwaa, same)["changed"]
    other = {"name": "demo", "secret_configuration_options": {"smtp.smtp_password": "CANARY-other-0e0e0e0e"}}
    assert ensure(mwaa, other, check=True)["changed"] and mwaa.writes == []
    assert ensure(mwaa, other)["changed"]
    assert mwaa.calls[0][1]["AirflowConfigurationOptions"]["core.parallelism"] == "8"


def test_a_secret_in_the_open_options_is_warned_about(ensure: Any) -> None:
    result = ensure(
        FakeMwaa(EXISTING),
        {"name": "demo", "airflow_configuration_options": {"smtp.smtp_password": "x1x2"}},
        check=True,
    )
    assert "secret_configuration_options" in json.dumps(result["warnings"])


def test_all_immutable_differences_are_named_in_one_error(ensure: Any) -> None:
    mwaa = FakeMwaa(EXISTING)
    key = "0a0a0a0a-1111-2222-3333-444444444444"
    result = ensure(
        mwaa,
        {
            **GIVEN,
            "subnet_ids": ["subnet-a", "subnet-c"],
            "kms_key": key,
            "endpoint_management": "CUSTOMER",
            "max_workers": 2,
        },
    )
    for part in ("subnet_ids is subnet-a, subnet-b", "kms_key is AWS's own", "endpoint_management is SERVICE"):
        assert part in result["msg"]
    assert mwaa.writes == []


def test_a_key_is_the_same_by_id_and_by_arn(ensure: Any) -> None:
    key = "0a0a0a0a-1111-2222-3333-444444444444"
    mwaa = FakeMwaa({**EXISTING, "KmsKey": f"arn:aws:kms:{REGION}:123456789012:key/{key}"})
    assert not ensure(mwaa, {"name": "demo", "kms_key": key})["changed"]


def test_a_newer_object_version_is_a_change_and_travels_with_its_path(ensure: Any) -> None:
    mwaa = FakeMwaa(
        {**EXISTING, "RequirementsS3Path": "requirements.txt", "RequirementsS3ObjectVersion": "v1"},
        statuses=("UPDATING", "AVAILABLE"),
    )
    given = {"name": "demo", "requirements_s3_path": "requirements.txt", "worker_replacement_strategy": "GRACEFUL"}
    assert not ensure(mwaa, given, s3=FakeS3(requirements="v1"))["changed"]
    assert ensure(mwaa, given, s3=FakeS3(requirements="v2"))["changed"]
    assert mwaa.calls[0][1] == {
        "RequirementsS3Path": "requirements.txt",
        "RequirementsS3ObjectVersion": "v2",
        "WorkerReplacementStrategy": "GRACEFUL",
    }


def test_logs_that_are_not_given_are_sent_as_they_are(ensure: Any) -> None:
    mwaa = FakeMwaa(EXISTING, statuses=("UPDATING", "AVAILABLE"))
    ensure(mwaa, {"name": "demo", "logging_configuration": {"worker_logs": {"enabled": True, "log_level": "ERROR"}}})
    assert mwaa.calls[0][1]["LoggingConfiguration"] == {
        "TaskLogs": {"Enabled": True, "LogLevel": "INFO"},
        "WorkerLogs": {"Enabled": True, "LogLevel": "ERROR"},
    }


def test_tags_need_no_update_of_the_environment(ensure: Any) -> None:
    mwaa = FakeMwaa(EXISTING)
    result = ensure(mwaa, {"name": "demo", "tags": {"owner": "me"}})
    assert mwaa.writes == ["UntagResource", "TagResource"]
    assert result["environment"]["tags"] == {"owner": "me"}
    assert not ensure(mwaa, {"name": "demo", "tags": {}, "purge_tags": False})["changed"]


class Stacks:
    """CloudFormation, where a stack has a status or is gone."""

    def __init__(self, status: str | None):
        self.status = status

    def describe_stacks(self, StackName: str) -> dict[str, Any]:  # noqa: N803
        if self.status is None:
            raise aws_failure("ValidationError", f"Stack with id {StackName} does not exist")
        return {"Stacks": [{"StackName": "analytics", "StackStatus": self.status}]}


OWNED = {**EXISTING, "Tags": {"team": "a", "aws:cloudformation:stack-name": "analytics"}}


@pytest.mark.parametrize("check", [False, True])
def test_what_a_stack_owns_is_not_changed_here(run_module: Any, check: bool) -> None:
    mwaa = FakeMwaa(OWNED)
    clients = {"mwaa": mwaa, "s3": FakeS3(), "cloudformation": Stacks("UPDATE_COMPLETE")}
    result = run_module("mwaa_environment", {"name": "demo", "max_workers": 3}, clients, check=check)
    assert result["failed"] and mwaa.writes == []
    assert "belongs to the CloudFormation stack analytics" in result["msg"] and "max_workers" in result["msg"]


def test_what_a_stack_owns_is_fine_as_it_is_and_is_deleted(run_module: Any, clock: Any) -> None:
    mwaa = FakeMwaa(OWNED)
    clients = {"mwaa": mwaa, "cloudformation": Stacks("UPDATE_COMPLETE")}
    assert run_module("mwaa_environment", {"name": "demo", "max_workers": 10}, clients)["changed"] is False
    assert run_module("mwaa_environment", {"name": "demo", "state": "absent"}, clients)["changed"] is True


@pytest.mark.parametrize("status", [None, "DELETE_COMPLETE"])
def test_a_stack_that_is_gone_owns_nothing(run_module: Any, clock: Any, status: str | None) -> None:
    mwaa = FakeMwaa(OWNED, statuses=("UPDATING", "AVAILABLE"))
    clients = {"mwaa": mwaa, "s3": FakeS3(), "cloudformation": Stacks(status)}
    assert run_module("mwaa_environment", {"name": "demo", "max_workers": 3}, clients)["changed"] is True


# --- statuses -------------------------------------------------------------------------------------------------------


def test_an_environment_that_is_updating_is_left_alone(ensure: Any) -> None:
    mwaa = FakeMwaa({**EXISTING, "Status": "UPDATING"})
    result = ensure(mwaa, {"name": "demo", "max_workers": 20, "environment_class": "mw1.large"})
    assert "environment demo is UPDATING and nothing was changed" in result["msg"]
    assert "environment_class, max_workers" in result["msg"] and mwaa.writes == []


def test_an_operation_that_asked_for_the_same_is_waited_for(ensure: Any) -> None:
    mwaa = FakeMwaa({**EXISTING, "Status": "UPDATING"})
    mwaa.after = ["UPDATING", "CREATING_SNAPSHOT", "UPDATING", "AVAILABLE"]
    result = ensure(mwaa, GIVEN)
    assert not result["changed"] and result["operation"] == "wait" and result["environment"]["status"] == "AVAILABLE"


@pytest.mark.parametrize(
    ("status", "sentence"),
    [
        ("DELETING", "is being deleted"),
        ("UNAVAILABLE", "MWAA could not roll back"),
        ("CREATE_FAILED", "delete it (state: absent)"),
        ("ROLLING_BACK", "is ROLLING_BACK and nothing was changed"),
        ("CREATING_SNAPSHOT", "is CREATING_SNAPSHOT and nothing was changed"),
    ],
)
def test_statuses_in_which_nothing_can_be_changed(ensure: Any, status: str, sentence: str) -> None:
    mwaa = FakeMwaa({**EXISTING, "Status": status})
    result = ensure(mwaa, {"name": "demo", "max_workers": 20})
    assert sentence in result["msg"] and mwaa.writes == []


def test_update_failed_is_usable(ensure: Any) -> None:
    mwaa = FakeMwaa({**EXISTING, "Status": "UPDATE_FAILED"}, statuses=("UPDATING", "AVAILABLE"))
    assert not ensure(mwaa, GIVEN)["changed"]
    assert ensure(mwaa, {**GIVEN, "max_workers": 20})["changed"]


# --- delete ---------------------------------------------------------------------------------------------------------


def test_absent_deletes_waits_and_is_done_the_second_time(ensure: Any) -> None:
    mwaa = FakeMwaa(EXISTING)
    gone = {"name": "demo", "state": "absent"}
    assert ensure(mwaa, gone, check=True)["changed"] and mwaa.writes == []
    assert ensure(mwaa, gone)["environment"] is None
    assert mwaa.writes == ["DeleteEnvironment"]
    assert not ensure(mwaa, gone)["changed"]


def test_an_environment_that_is_busy_is_not_deleted(ensure: Any) -> None:
    mwaa = FakeMwaa({**EXISTING, "Status": "UPDATING"})
    assert "cannot be deleted now" in ensure(mwaa, {"name": "demo", "state": "absent"})["msg"] and mwaa.writes == []


# --- errors of AWS --------------------------------------------------------------------------------------------------


def test_a_refused_call_names_what_was_tried_code_and_request_id(ensure: Any) -> None:
    mwaa = FakeMwaa()
    mwaa.refuse["CreateEnvironment"] = aws_failure(
        "ValidationException", "Unable to read the bucket.", operation="CreateEnvironment"
    )
    result = ensure(mwaa, GIVEN)
    assert result["msg"] == (
        "cannot create environment demo: AWS refused it: Unable to read the bucket"
        " (CreateEnvironment: ValidationException, request id 11111111-2222)"
    )
    assert result["error"] == {"code": "ValidationException", "request_id": "11111111-2222"}


def test_a_create_that_succeeded_unnoticed_is_waited_for(ensure: Any) -> None:
    mwaa = FakeMwaa()
    create = mwaa.create_environment

    def twice(**params: Any) -> None:
        create(**params)
        raise aws_failure(
            "ValidationException", "Environment with name demo already exists", operation="CreateEnvironment"
        )

    mwaa.create_environment = twice  # type: ignore[method-assign,assignment]
    result = ensure(mwaa, GIVEN)
    assert result["changed"] and result["environment"]["status"] == "AVAILABLE"


# --- from a bundle ----------------------------------------------------------------------------------------------------


@pytest.fixture
def bundle(monkeypatch: pytest.MonkeyPatch) -> Any:
    """bundle(portable={…}, files=[…]) -> what the module opens; bundle(missing=True) -> there is none;
    bundle(sales={…}, finance={…}) -> the portable options by the last word of the URL.
    """

    def make(
        portable: dict[str, str] | None = None,
        files: tuple[str, ...] = (),
        missing: bool = False,
        **others: dict[str, str],
    ) -> None:
        class Bundle:
            def __init__(self, url: str):
                self.url = url

            @classmethod
            def open(cls, url: Any, _aws: Any, *_more: Any) -> Any:
                if missing:
                    raise MigrationError("there is no bundle at s3://b/x", code="NoBundle")
                return cls(url)

            @property
            def files(self) -> dict[str, Any]:
                return dict.fromkeys(files)

            def document(self, _path: str) -> Any:
                its = others.get(self.url.rpartition("/")[2], portable or {})
                return {"portable": its, "target_version": "2.11.2"}

        monkeypatch.setattr(environment, "Bundle", Bundle)
        monkeypatch.setattr(environment, "open_store", lambda url, _aws: url)
        monkeypatch.setattr(environment, "held_in", lambda stores, name: taking(taken, stores, name))

    taken: list[Any] = []
    make.taken = taken  # type: ignore[attr-defined]
    return make


@contextlib.contextmanager
def taking(taken: list[Any], stores: list[str], name: str) -> Iterator[Any]:
    yield lambda: taken.append((stores, name))


def test_a_secret_option_of_the_task_wins_over_the_bundles_portable_one(ensure: Any, bundle: Any) -> None:
    bundle({"smtp.smtp_user": "of the source", "core.parallelism": "16"})
    mwaa = FakeMwaa(EXISTING, statuses=("UPDATING", "AVAILABLE"))
    given = {**GIVEN, "bundle": "s3://b/x", "secret_configuration_options": {"smtp.smtp_user": "CANARY-user-0a0a0a0a"}}
    assert ensure(mwaa, given)["changed"]
    options = mwaa.environments["demo"]["AirflowConfigurationOptions"]
    assert (options["smtp.smtp_user"], options["core.parallelism"]) == ("CANARY-user-0a0a0a0a", "16")
    assert bundle.taken == [(["s3://b/x"], "demo")]  # the lock, before the one write
    assert not ensure(mwaa, given)["changed"] and len(bundle.taken) == 1


def test_before_the_first_export_check_mode_shows_what_is_known(ensure: Any, bundle: Any) -> None:
    bundle(missing=True)
    given = {**GIVEN, "bundle": "s3://b/x", "airflow_configuration_options": {"core.parallelism": 4}}
    result = ensure(FakeMwaa(), given, check=True)
    assert result["diff"]["after"]["airflow_configuration_options"] == {
        "core.parallelism": "4",
        "core.dags_are_paused_at_creation": "True",
    }
    assert "the options that it brings are known after the first export" in str(result["warnings"])
    assert ensure(FakeMwaa(), given)["msg"] == "there is no bundle at s3://b/x"


def test_what_was_published_is_taken_with_its_version(ensure: Any, bundle: Any) -> None:
    bundle(files=("requirements.txt", "dags/a.py"))
    s3 = FakeS3(requirements="r1", plugins="p1", startup="s1")
    # wheels were packed, and a script of the user's was published: the bundle knows neither
    s3.index.remember("plugins.zip", "plugins", Found(1, "e"), "d", ["s3://b/x"])
    s3.index.remember("startup.sh", "startup_script", Found(1, "e"), "d", ["s3://b/x"])
    mwaa = FakeMwaa()
    ensure(mwaa, {**GIVEN, "bundle": "s3://b/x"}, s3=s3)
    created = mwaa.environments["demo"]
    assert [created[f"{part}S3ObjectVersion"] for part in ("Requirements", "Plugins", "StartupScript")] == [
        "r1",
        "p1",
        "s1",
    ]


def test_a_version_without_startup_scripts_is_created_without_and_says_so(ensure: Any, bundle: Any) -> None:
    bundle(files=("startup.sh",))
    mwaa = FakeMwaa()
    result = ensure(mwaa, {**GIVEN, "bundle": "s3://b/x", "airflow_version": "2.0.2"}, s3=FakeS3(startup="s1"))
    assert "StartupScriptS3Path" not in mwaa.environments["demo"]
    assert "runs no startup script (2.2.2 is the first that does)" in str(result["warnings"])
    assert "AWS ended Airflow 2.0.2 on 2024-04-29" in str(result["warnings"])
    assert "export again for this version" in str(result["warnings"])
    refused = ensure(FakeMwaa(), {**GIVEN, "airflow_version": "2.0.2", "startup_script_s3_path": "startup.sh"})
    assert "startup_script_s3_path needs Airflow 2.2.2 or newer, airflow_version is 2.0.2" in refused["msg"]


def test_several_bundles_options_become_one_set(ensure: Any, bundle: Any) -> None:
    bundle(
        sales={"core.parallelism": "16", "core.dags_are_paused_at_creation": "False", "celery.pool": "prefork"},
        finance={"core.parallelism": "16", "core.dags_are_paused_at_creation": "True", "core.default_timezone": "utc"},
    )
    mwaa = FakeMwaa(EXISTING, statuses=("UPDATING", "AVAILABLE"))
    given = {**GIVEN, "bundles": ["s3://b/sales", "s3://b/finance"]}
    assert ensure(mwaa, given)["changed"]
    options = mwaa.environments["demo"]["AirflowConfigurationOptions"]
    assert {name: options[name] for name in options if name != "smtp.smtp_password"} == {
        "core.parallelism": "16",
        "core.dags_are_paused_at_creation": "True",
        "celery.pool": "prefork",
        "core.default_timezone": "utc",
    }
    assert bundle.taken == [(given["bundles"], "demo")]  # both are locked
    assert not ensure(mwaa, given)["changed"]


def test_options_that_two_bundles_have_differently_are_named_with_both(ensure: Any, bundle: Any) -> None:
    bundle(
        sales={"core.parallelism": "16", "smtp.smtp_user": "a", "custom.api_token": "CANARY-a-0a0a0a0a"},
        finance={"core.parallelism": "32", "smtp.smtp_user": "b", "custom.api_token": "CANARY-b-0a0a0a0a"},
    )
    mwaa = FakeMwaa(EXISTING)
    given = {**GIVEN, "bundles": ["s3://b/sales", "s3://b/finance"]}
    said = ensure(mwaa, given)["msg"]
    assert said.startswith(
        "the bundles cannot become one environment: 3 faults: (1) core.parallelism is 16 in s3://b/sales and 32 in"
        " s3://b/finance: say in airflow_configuration_options which it is to be; (2) "
    )
    assert "custom.api_token is one value in s3://b/sales and another in s3://b/finance" in said
    assert "CANARY" not in said and mwaa.writes == []
    decided = {
        **given,
        "airflow_configuration_options": {"core.parallelism": 24},
        "secret_configuration_options": {"smtp.smtp_user": "c", "custom.api_token": "CANARY-c-0a0a0a0a"},
    }
    mwaa = FakeMwaa(EXISTING, statuses=("UPDATING", "AVAILABLE"))
    assert ensure(mwaa, decided)["changed"]
    assert mwaa.environments["demo"]["AirflowConfigurationOptions"]["core.parallelism"] == "24"


# --- Secrets Manager ------------------------------------------------------------------------------------------------


def test_secrets_manager_is_looked_at_first_and_other_options_stay(ensure: Any) -> None:
    mwaa = FakeMwaa(EXISTING, statuses=("UPDATING", "AVAILABLE"))
    given = {"name": "demo", "secrets_backend": {"prefix": "team/airflow", "connections_lookup_pattern": "^etl_"}}
    result = ensure(mwaa, given)
    options = mwaa.environments["demo"]["AirflowConfigurationOptions"]
    assert options["core.parallelism"] == "8" and options["smtp.smtp_password"] == "CANARY-smtp-0a0a0a0a"
    assert options["secrets.backend"].endswith(".SecretsManagerBackend")
    assert json.loads(options["secrets.backend_kwargs"]) == {
        "connections_prefix": "team/airflow/connections",
        "variables_prefix": "team/airflow/variables",
        "connections_lookup_pattern": "^(?!aws_default$)(?:^etl_)",
    }
    shown = result["environment"]["airflow_configuration_options"]
    assert shown["secrets.backend_kwargs"] == "***"  # the backend's arguments may hold a secret
    assert not ensure(mwaa, given)["changed"]


def test_another_secrets_backend_is_not_replaced(ensure: Any) -> None:
    given = {**GIVEN, "airflow_configuration_options": {"secrets.backend": "my.Vault"}, "secrets_backend": {}}
    assert "an environment has one backend" in ensure(FakeMwaa(), given)["msg"]


# --- info -----------------------------------------------------------------------------------------------------------


def test_info_of_all_of_one_and_of_none(run_module: Any) -> None:
    mwaa = FakeMwaa(EXISTING, {**EXISTING, "Name": "other"}, {**EXISTING, "Name": "third"})
    every = run_module("mwaa_environment_info", {}, {"mwaa": mwaa})
    assert [one["name"] for one in every["environments"]] == ["demo", "other", "third"]
    (one,) = run_module("mwaa_environment_info", {"name": "demo"}, {"mwaa": mwaa})["environments"]
    assert one["airflow_configuration_options"] == {"core.parallelism": "8", "smtp.smtp_password": "***"}
    assert one["logging_configuration"]["task_logs"]["log_level"] == "INFO"
    assert run_module("mwaa_environment_info", {"name": "nope"}, {"mwaa": mwaa})["environments"] == []
