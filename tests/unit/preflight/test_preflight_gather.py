# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How facts are read: each failure a fact, nothing written, archives without downloading them."""

from __future__ import annotations

import io
import threading
import zipfile
from types import SimpleNamespace
from typing import Any, Callable

import preflight_setups as setups
import pytest
from ansible_collections.mwaa.migration.plugins.module_utils._errors import MigrationError
from ansible_collections.mwaa.migration.plugins.module_utils._preflight import check, gather
from ansible_collections.mwaa.migration.plugins.module_utils._preflight.frame import Unread
from ansible_collections.mwaa.migration.plugins.modules.mwaa_preflight import argument_spec
from fakes import aws_failure


class FakeAws:
    """Clients whose operations are told by "service.operation"; whatever is not told is denied."""

    def __init__(self, **answers: Any):
        self.region = setups.REGION
        self.caller = {"Account": setups.ACCOUNT, "Arn": f"arn:aws:sts::{setups.ACCOUNT}:assumed-role/deployer/me"}
        self.calls: list[str] = []
        self._answers = {name.replace("__", "."): answer for name, answer in answers.items()}
        self._lock = threading.Lock()

    def client(self, service: str) -> Any:
        aws = self

        class Client:
            def __getattr__(self, operation: str) -> Callable[..., Any]:
                return lambda **given: aws._call(f"{service}.{operation}", given)

            def get_paginator(self, operation: str) -> Any:
                return SimpleNamespace(paginate=lambda **given: [aws._call(f"{service}.{operation}", given)])

        return Client()

    def _call(self, name: str, given: dict[str, Any]) -> Any:
        with self._lock:
            self.calls.append(name)
        answer = self._answers.get(name)
        if answer is None:
            raise aws_failure("AccessDenied", status=403)
        if isinstance(answer, Exception):
            raise answer
        return answer(**given) if callable(answer) else answer


def facts_of(aws: FakeAws, change: Callable[[Any], Any] = lambda snapshot: None, principal: str | None = None) -> Any:
    snapshot = setups.with_nat()
    snapshot.facts = {"existing": {}}
    change(snapshot)
    gather.Reader(aws, snapshot, principal).read_all()
    return snapshot.facts


DENIES = {"Policy": setups.policy(setups.deny("*", "s3:GetObject*"))}
BUCKET = {"ResponseMetadata": {"HTTPHeaders": {"x-amz-bucket-region": setups.REGION}}}


def test_what_is_denied_is_a_fact_and_not_the_end() -> None:
    facts = facts_of(FakeAws())
    assert facts["found_subnets"] == Unread("ec2:DescribeSubnets", "AccessDenied", True)
    # what hangs on it names the action that it really lacks
    assert facts["route_tables"] == facts["network_acls"] == facts["found_subnets"]
    assert facts["environments"] == Unread("airflow:ListEnvironments", "AccessDenied", True)
    assert facts["quotas"].action == "servicequotas:ListServiceQuotas"
    assert facts["bucket"] == {"state": "denied", "region": None}  # S3 says no more to who may not
    assert facts["versioning"] == Unread("s3:GetBucketVersioning", "AccessDenied", True)  # each says so itself


def test_what_fails_otherwise_is_not_called_denied() -> None:
    facts = facts_of(FakeAws(mwaa__list_environments=aws_failure("InternalServerException", status=500)))
    assert facts["environments"] == Unread("airflow:ListEnvironments", "InternalServerException", False)


def test_a_session_that_ends_meanwhile_lacks_no_permission() -> None:
    facts = facts_of(FakeAws(mwaa__list_environments=aws_failure("ExpiredTokenException", status=403)))
    assert facts["environments"] == Unread("airflow:ListEnvironments", "ExpiredTokenException", False)


def test_every_fact_is_read_once_although_many_ask_for_it() -> None:
    aws = FakeAws(ec2__describe_subnets={"Subnets": setups.with_nat().facts["subnets"]})
    facts_of(aws)
    assert aws.calls.count("ec2.describe_subnets") == 1


def test_independent_reads_run_side_by_side() -> None:
    """The first of them waits until five others are under way: one after another, that would never be."""
    under_way, enough = [0], threading.Event()

    class Slow(FakeAws):
        def _call(self, name: str, given: dict[str, Any]) -> Any:
            with self._lock:
                under_way[0] += 1
                if under_way[0] == 6:
                    enough.set()
            assert enough.wait(30), "no other read began while this one lasted"
            raise aws_failure("AccessDenied", status=403)

    facts_of(Slow())
    assert enough.is_set()


def test_only_reads_are_called() -> None:
    aws = FakeAws(
        ec2__describe_subnets={"Subnets": setups.with_nat().facts["subnets"]},
        s3__head_bucket=BUCKET,
        iam__get_role={"Role": {"Arn": setups.ROLE}},
        kms__describe_key={"KeyMetadata": {"Arn": setups.KEY, "KeyState": "Enabled"}},
    )
    facts_of(aws)
    verbs = {name.partition(".")[2].split("_")[0] for name in aws.calls}
    assert verbs <= {"describe", "get", "list", "head", "simulate", "filter"}


def test_things_of_other_vpcs_are_left_out() -> None:
    other = {"RouteTableId": "rtb-9", "VpcId": "vpc-9"}
    aws = FakeAws(
        ec2__describe_subnets={"Subnets": setups.with_nat().facts["subnets"]},
        ec2__describe_route_tables={"RouteTables": [other, {"RouteTableId": "rtb-1", "VpcId": setups.VPC}]},
    )
    assert [table["RouteTableId"] for table in facts_of(aws)["route_tables"]] == ["rtb-1"]


def test_a_missing_subnet_hides_what_hangs_on_it() -> None:
    facts = facts_of(FakeAws(ec2__describe_subnets={"Subnets": setups.with_nat().facts["subnets"][:1]}))
    assert len(facts["found_subnets"]) == 1
    assert facts["subnets"] is facts["vpc"] is facts["route_tables"] is None


@pytest.mark.parametrize(
    ("answer", "state"),
    [
        (BUCKET, {"state": "there", "region": setups.REGION}),
        (aws_failure("404", status=404), {"state": "missing", "region": None}),
        ({"BucketRegion": "us-east-1"}, {"state": "there", "region": "us-east-1"}),
    ],
    ids=["here", "missing", "elsewhere"],
)
def test_where_the_bucket_is(answer: Any, state: dict[str, Any]) -> None:
    facts = facts_of(FakeAws(s3__head_bucket=answer))
    assert facts["bucket"] == state
    if state != {"state": "there", "region": setups.REGION}:
        assert facts["versioning"] is facts["dag_keys"] is None  # nothing is asked of it


@pytest.mark.parametrize(("name", "state"), [("somebody-s", "foreign"), (setups.BUCKET, "denied")])
def test_a_bucket_that_may_not_be_listed_is_looked_for_among_the_accounts_own(name: str, state: str) -> None:
    refused = aws_failure("403", status=403)
    facts = facts_of(FakeAws(s3__head_bucket=refused, s3__list_buckets={"Buckets": [{"Name": name}]}))
    assert facts["bucket"]["state"] == state
    assert (facts["versioning"] is None) == (state == "foreign")


def test_a_bucket_encrypted_with_awss_own_key_has_no_key_of_the_customers() -> None:
    rule = {"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "aws:kms"}}
    encryption = {"ServerSideEncryptionConfiguration": {"Rules": [rule]}}
    key = {"KeyMetadata": {"Arn": setups.KEY, "KeyManager": "AWS", "KeyState": "Enabled"}}
    facts = facts_of(FakeAws(s3__head_bucket=BUCKET, s3__get_bucket_encryption=encryption, kms__describe_key=key))
    assert facts["bucket_key"] == ""


@pytest.mark.parametrize(
    "nonsense",
    [
        {"execution_role_arn": "admin"},
        {"execution_role_arn": "arn:aws:iam"},
        {"kms_key": "arn:"},
        {"kms_key": "arn:aws:kms"},
        {"source_bucket": "a b"},
        {"airflow_version": "three"},
        {"subnet_ids": ["", "x"]},
    ],
    ids=str,
)
def test_nonsense_is_a_finding_and_no_crash(nonsense: dict[str, Any]) -> None:
    found = run(FakeAws(mwaa__get_environment=NONE, s3__head_bucket=BUCKET, s3__get_bucket_policy=DENIES), **nonsense)
    ids = [finding["id"] for finding in found["findings"]]
    assert "setting-refused" in ids or found["summary"]["errors"]
    missing = [one["what"] for one in found["findings"] if one["id"] == "setting-missing"]
    assert not any(name in what for what in missing for name in nonsense)


@pytest.mark.parametrize("account", [True, False], ids=["the account blocks", "the account cannot be read"])
def test_the_accounts_block_counts_for_its_buckets(account: bool) -> None:
    block = {"PublicAccessBlockConfiguration": dict.fromkeys(setups.with_nat().facts["public_access"], True)}
    answers = {"s3control__get_public_access_block": block} if account else {}
    none = aws_failure("NoSuchPublicAccessBlockConfiguration", status=404)
    facts = facts_of(FakeAws(s3__head_bucket=BUCKET, s3__get_public_access_block=none, **answers))
    assert len(facts["public_access"]) == (4 if account else 0)


def archive(size: int) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_STORED) as file:
        file.writestr("big.bin", b"\0" * size)
        file.writestr("acme_plugin.py", b"")
    return content.getvalue()


def object_of(content: bytes) -> tuple[Callable[..., Any], list[int]]:
    """get_object of one object, and how many bytes each call took."""
    taken: list[int] = []

    def get_object(Bucket: str, Key: str, Range: str, **_more: Any) -> dict[str, Any]:
        first, last = (int(number) for number in Range.removeprefix("bytes=").split("-"))
        taken.append(last - first + 1)
        return {"Body": io.BytesIO(content[first : last + 1])}

    return get_object, taken


def test_of_a_large_archive_the_directory_alone_is_read() -> None:
    content = archive(20 * 1024 * 1024)
    get_object, taken = object_of(content)
    head = {"ContentLength": len(content), "VersionId": "v1"}
    facts = facts_of(FakeAws(s3__head_bucket=BUCKET, s3__head_object=head, s3__get_object=get_object))
    assert facts["plugins"]["names"] == ["big.bin", "acme_plugin.py"]
    assert sum(taken) < 5 * 1024 * 1024


@pytest.mark.parametrize("content", [b"", b"no archive", archive(10)[:-8]], ids=["empty", "text", "cut off"])
def test_what_is_no_archive(content: bytes) -> None:
    get_object, _taken = object_of(content)
    head = {"ContentLength": len(content), "VersionId": "v1"}
    facts = facts_of(FakeAws(s3__head_bucket=BUCKET, s3__head_object=head, s3__get_object=get_object))
    assert facts["plugins"] == {"size": len(content), "names": None}


def test_an_object_that_is_not_there_is_told_from_one_that_may_not_be_read() -> None:
    missing = facts_of(FakeAws(s3__head_bucket=BUCKET, s3__head_object=aws_failure("404", status=404)))
    assert missing["objects"]["requirements_s3_path"] is None
    denied = facts_of(FakeAws(s3__head_bucket=BUCKET))
    assert denied["objects"] == Unread("s3:GetObject", "AccessDenied", True)


def test_a_session_is_looked_at_as_its_role_path_included() -> None:
    arn = f"arn:aws:iam::{setups.ACCOUNT}:role/teams/deployer"
    assert facts_of(FakeAws(iam__get_role={"Role": {"Arn": arn}}))["creator"] == arn


def test_the_role_of_cloudformation_stands_for_the_caller() -> None:
    asked = []

    def simulate(PolicySourceArn: str, ActionNames: list[str], **_more: Any) -> dict[str, Any]:
        asked.append(PolicySourceArn)
        return {"EvaluationResults": [{"EvalActionName": name, "EvalDecision": "allowed"} for name in ActionNames]}

    arn = f"arn:aws:iam::{setups.ACCOUNT}:role/cloudformation"
    facts = facts_of(FakeAws(iam__simulate_principal_policy=simulate), principal=arn)
    assert facts["creator"] == arn and arn in asked


@pytest.mark.parametrize("place", ["whole", "by resource"])
def test_what_iam_denies_for_want_of_a_conditions_value_is_no_plain_denial(place: str) -> None:
    told: list[dict[str, Any]] = []

    def simulate(ActionNames: list[str], ContextEntries: list[dict[str, Any]], **_more: Any) -> dict[str, Any]:
        told.extend(ContextEntries)
        missing: dict[str, Any] = {"MissingContextValues": ["aws:SourceIp"]}
        missing = missing if place == "whole" else {"ResourceSpecificResults": [missing]}
        results = [{"EvalActionName": name, "EvalDecision": "explicitDeny", **missing} for name in ActionNames]
        return {"EvaluationResults": results}

    role = {"Role": {"Arn": setups.ROLE}}
    facts = facts_of(FakeAws(iam__get_role=role, iam__simulate_principal_policy=simulate))
    assert {how for _need, _action, how in facts["denied_to_role"]} == {"condition aws:SourceIp"}
    known = {one["ContextKeyName"]: one["ContextKeyValues"] for one in told}
    assert known["aws:RequestedRegion"] == [setups.REGION] and known["aws:PrincipalAccount"] == [setups.ACCOUNT]


def test_a_policy_that_the_role_is_going_to_get_counts() -> None:
    asked = []

    def simulate(PolicySourceArn: str, ActionNames: list[str], **more: Any) -> dict[str, Any]:
        asked.append((PolicySourceArn, more.get("PolicyInputList")))
        return {"EvaluationResults": []}

    def role(RoleName: str) -> Any:
        return {"Role": {"Arn": f"arn:aws:iam::{setups.ACCOUNT}:role/{RoleName}"}}

    aws = FakeAws(iam__get_role=role, iam__simulate_principal_policy=simulate)
    run(aws, execution_role_arn=setups.ROLE, execution_role_policy={"Statement": []})
    given = {principal.rpartition("/")[2]: policies for principal, policies in asked}
    assert given == {"airflow-analytics": ['{"Statement": []}'], "deployer": None}


def test_why_iam_denies_is_kept() -> None:
    def simulate(ActionNames: list[str], **_more: Any) -> dict[str, Any]:
        boundary = {"PermissionsBoundaryDecisionDetail": {"AllowedByPermissionsBoundary": False}}
        results = [{"EvalActionName": name, "EvalDecision": "implicitDeny", **boundary} for name in ActionNames]
        return {"EvaluationResults": results}

    role = {"Role": {"Arn": setups.ROLE}}
    facts = facts_of(FakeAws(iam__get_role=role, iam__simulate_principal_policy=simulate))
    assert {how for _need, _action, how in facts["denied_to_role"]} == {"boundary"}


def test_log_groups_of_an_environment_with_a_longer_name_are_not_its_own() -> None:
    names = ["airflow-analytics-Task", "airflow-analytics-eu-Task", "airflow-analytics-eu-Worker"]
    groups = {"logGroups": [{"logGroupName": name} for name in names]}
    assert list(facts_of(FakeAws(logs__describe_log_groups=groups))["log_groups"]) == ["airflow-analytics-Task"]


# --- from what is asked for to the snapshot ---------------------------------------------------------------------------


def run(aws: FakeAws, **given: Any) -> dict[str, Any]:
    params = {name: spec.get("default") for name, spec in argument_spec().items()}
    params.update({"name": setups.NAME, "fail_on": "never", **given})
    return check.run(SimpleNamespace(params=params, aws=aws, check_mode=False, warn=lambda text: None))


NONE = aws_failure("ResourceNotFoundException", status=404)


def test_without_any_right_to_read_everything_is_a_finding_and_nothing_has_passed_unseen() -> None:
    found = run(FakeAws(), subnet_ids=[setups.A, setups.B], source_bucket=setups.BUCKET)
    assert found["summary"]["not_checked"] > 20
    actions = {finding["resource"] for finding in found["findings"] if finding["id"] == "could-not-check"}
    assert {"airflow:GetEnvironment", "ec2:DescribeSubnets", "logs:DescribeLogGroups"} <= actions


def test_values_of_options_are_never_shown() -> None:
    options = {"core.a": "CANARY-one\n", "secrets.backend_kwargs": "CANARY-two", "core.fernet_key": "CANARY-three"}
    found = run(FakeAws(mwaa__get_environment=NONE), airflow_configuration_options=options)
    assert {"option-refused", "secrets-backend", "option-ignored"} <= {one["id"] for one in found["findings"]}
    assert "CANARY" not in str(found)


def test_what_an_environment_has_counts_where_nothing_else_is_asked_for() -> None:
    environment = setups.existing().environment
    found = run(FakeAws(mwaa__get_environment={"Environment": environment}), airflow_version="3.2.1")
    ids = {finding["id"] for finding in found["findings"]}
    assert found["exists"]
    assert not {"setting-missing", "version-path", "setting-fixed"} & ids  # 2.11.2 goes to 3.2.1, nothing is missing


def test_a_task_that_fails_brings_all_that_was_found() -> None:
    with pytest.raises(MigrationError) as caught:
        run(FakeAws(mwaa__get_environment=NONE), fail_on="error")
    assert "preflight found" in caught.value.message
    assert caught.value.details["findings"] and caught.value.details["checked"]
