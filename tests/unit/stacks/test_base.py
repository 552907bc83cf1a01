# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Trust, rights and outputs of a base stack; and that files/base.template says the same as the functions."""

from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.mwaa.migration.plugins.filter.temporary_policy import FilterModule
from ansible_collections.mwaa.migration.plugins.module_utils._stacks.base import (
    EXPORTS,
    OPTIONAL_EXPORTS,
    Place,
    execution_policy,
    extended_trust,
    outputs,
    temporary_policy,
    untrusted,
)

HERE = Path(__file__).resolve().parents[3] / "roles" / "mwaa_stack"
PLACE = Place("aws", "eu-central-1", "111122223333")
BOTH = ["airflow.amazonaws.com", "airflow-env.amazonaws.com"]
KEY = "arn:aws:kms:eu-central-1:111122223333:key/one"


def trust(*statements: dict[str, Any]) -> dict[str, Any]:
    return {"Version": "2012-10-17", "Statement": list(statements)}


def allowed(services: Any, **more: Any) -> dict[str, Any]:
    return {"Effect": "Allow", "Principal": {"Service": services}, "Action": "sts:AssumeRole", **more}


# --- the trust


def test_a_trust_that_is_complete_stays_the_very_same() -> None:
    document = trust(allowed(["ec2.amazonaws.com", *BOTH]))
    assert extended_trust(document, PLACE, "demo") is document


def test_what_is_trusted_already_stays_with_its_conditions() -> None:
    strict = allowed("ec2.amazonaws.com", Condition={"StringEquals": {"sts:ExternalId": "x"}})
    document = trust(strict, allowed("airflow.amazonaws.com"))
    before = copy.deepcopy(document)
    extended = extended_trust(document, PLACE, "demo")
    assert document == before
    assert extended["Statement"] == [*before["Statement"], allowed(["airflow-env.amazonaws.com"])]
    assert extended_trust(extended, PLACE, "demo") is extended


@pytest.mark.parametrize(
    ("condition", "holds"),
    [
        ({"StringEquals": {"aws:SourceAccount": "111122223333"}}, True),
        ({"StringEquals": {"AWS:SourceAccount": ["999999999999", "111122223333"]}}, True),
        ({"ArnLike": {"aws:SourceArn": "arn:aws:airflow:eu-central-1:111122223333:environment/*"}}, True),
        ({"ArnLike": {"aws:SourceArn": "arn:aws:airflow:eu-central-1:111122223333:environment/demo"}}, True),
        ({"ArnLike": {"aws:SourceArn": "arn:aws:airflow:eu-central-1:111122223333:environment/old"}}, False),
        ({"StringEquals": {"aws:SourceAccount": "999999999999"}}, False),
        ({"Bool": {"aws:SecureTransport": "true"}}, False),  # not known to hold
    ],
)
def test_a_condition_that_names_another_environment_is_no_trust_in_this_one(condition: Any, holds: bool) -> None:
    assert untrusted(trust(allowed(BOTH, Condition=condition)), PLACE, "demo") == ([] if holds else BOTH)


@pytest.mark.parametrize(
    "statement",
    [
        {**allowed(BOTH), "Effect": "Deny"},
        {**allowed(BOTH), "Action": "sts:TagSession"},
        {**allowed(BOTH), "Principal": {"AWS": "arn:aws:iam::111122223333:root"}},
        {"Effect": "Allow", "NotPrincipal": {"Service": "ec2.amazonaws.com"}, "Action": "sts:AssumeRole"},
    ],
)
def test_what_is_no_trust(statement: dict[str, Any]) -> None:
    assert untrusted(trust(statement), PLACE, "demo") == BOTH


def test_documents_that_are_written_shortly() -> None:
    document = {"Statement": {**allowed("airflow.amazonaws.com"), "Action": ["STS:*"]}}
    assert untrusted(document, PLACE, "demo") == ["airflow-env.amazonaws.com"]
    assert len(extended_trust(document, PLACE, "demo")["Statement"]) == 2


# --- the rights


def actions(policy: dict[str, Any]) -> set[str]:
    found = [one["Action"] for one in policy["Statement"] if one["Effect"] == "Allow"]
    return {action for one in found for action in ([one] if isinstance(one, str) else one)}


def test_nothing_of_another_environment_or_bucket_is_allowed() -> None:
    policy = execution_policy(PLACE, "demo", "bucket")
    everywhere = {one["Action"] for one in policy["Statement"] if one.get("Resource") == "*"}
    assert everywhere == {"s3:GetAccountPublicAccessBlock", "logs:DescribeLogGroups", "cloudwatch:PutMetricData"}
    assert not [action for action in actions(policy) if action.startswith(("s3:Put", "s3:Delete", "iam:"))]
    # a Deny would take from an adopted role what it may by its other policies
    assert {one["Effect"] for one in policy["Statement"]} == {"Allow"}


def test_variants_of_keys_and_secrets() -> None:
    plain, own = execution_policy(PLACE, "demo", "b"), execution_policy(PLACE, "demo", "b", kms_key_arn=KEY)
    assert plain["Statement"][-1]["NotResource"] == "arn:aws:kms:*:111122223333:key/*"
    assert own["Statement"][-1]["Resource"] == KEY
    assert own["Statement"][-1]["Condition"]["StringLike"]["kms:ViaService"] == [
        "sqs.eu-central-1.amazonaws.com", "s3.eu-central-1.amazonaws.com",
    ]  # fmt: skip
    secrets = execution_policy(PLACE, "demo", "b", secrets_prefix="team", secrets_kms_key_arn=KEY)
    assert "secretsmanager:GetSecretValue" in actions(secrets) - actions(plain)
    assert "secret:team/connections/*" in str(secrets) and secrets["Statement"][-1]["Resource"] == KEY


def test_in_china_arns_and_service_names_differ() -> None:
    text = str(execution_policy(Place("aws-cn", "cn-north-1", "111122223333"), "demo", "b"))
    assert "arn:aws:" not in text and "sqs.cn-north-1.amazonaws.com.cn" in text


def test_temporary_rights_are_for_the_bundle_alone() -> None:
    read = temporary_policy(PLACE, ["s3://bundles/team/a", "/a/folder"])
    assert read is not None and actions(read) == {"s3:GetObject", "s3:GetObjectVersion", "s3:ListBucket"}
    assert [one["Resource"] for one in read["Statement"]] == ["arn:aws:s3:::bundles/team/a/*", "arn:aws:s3:::bundles"]
    sealed = temporary_policy(PLACE, ["s3://bundles"], kms_key_arn=KEY)
    assert sealed is not None and actions(sealed) == {*actions(read), "kms:Decrypt"}
    assert "arn:aws:s3:::bundles/*" in str(sealed)
    assert temporary_policy(PLACE, ["/a/folder"], kms_key_arn=KEY) is None


def test_the_filter_takes_partition_and_account_of_the_role_and_a_key_by_its_id() -> None:
    make = FilterModule().filters()["temporary_policy"]
    role = "arn:aws-cn:iam::444455556666:role/path/old"
    text = str(make(role, "cn-north-1", ["s3://b/p"], "1234"))
    assert "arn:aws-cn:s3:::b/p/*" in text and "arn:aws-cn:kms:cn-north-1:444455556666:key/1234" in text
    for words, arguments in (
        ("is not the ARN of a role", ("old", "cn-north-1")),
        ("by its alias", (role, "cn-north-1", ["s3://b/p"], "alias/x")),
    ):
        with pytest.raises(Exception, match=words):
            make(*arguments)


def test_outputs_are_exported_by_the_stacks_name_and_only_those_that_there_are() -> None:
    made = outputs({name: name.lower() for name in EXPORTS})
    assert list(made) == list(EXPORTS)
    assert made["VpcId"]["Export"] == {"Name": {"Fn::Sub": "${AWS::StackName}-VpcId"}}


# --- files/base.template


class Loader(yaml.SafeLoader):
    """CloudFormation's short form: !Ref x is {"Ref": "x"}, !Sub x is {"Fn::Sub": "x"}."""


def _long(loader: Loader, suffix: str, node: yaml.Node) -> dict[str, Any]:
    if isinstance(node, yaml.ScalarNode):
        value: Any = loader.construct_scalar(node)
        value = value.split(".") if suffix == "GetAtt" else value
    elif isinstance(node, yaml.SequenceNode):
        value = loader.construct_sequence(node, deep=True)
    else:
        value = loader.construct_mapping(node, deep=True)
    return {suffix if suffix in ("Ref", "Condition") else f"Fn::{suffix}": value}


Loader.add_multi_constructor("!", _long)
TEMPLATE = yaml.load((HERE / "files" / "base.template").read_text(), Loader=Loader)  # noqa: S506 - a SafeLoader


class Template:
    """files/base.template with parameters, as far as a policy needs it."""

    def __init__(self, **parameters: str) -> None:
        defaults = {name: str(one.get("Default", "")) for name, one in TEMPLATE["Parameters"].items()}
        self.values = {
            **defaults,
            **parameters,
            "AWS::Partition": "aws",
            "AWS::Region": "eu-central-1",
            "AWS::AccountId": "111122223333",
            "AWS::URLSuffix": "amazonaws.com",
            "Role": "role",
            "Bucket.Arn": "arn:aws:s3:::bucket",
            "Key.Arn": KEY,
        }

    def holds(self, condition: Any) -> bool:
        [(name, value)] = condition.items() if isinstance(condition, dict) else [("Condition", condition)]
        if name == "Condition":
            return self.holds(TEMPLATE["Conditions"][value])
        if name == "Fn::Equals":
            return self.of(value[0]) == self.of(value[1])
        found = [self.holds(one) for one in value]
        return {"Fn::Not": lambda: not found[0], "Fn::And": lambda: all(found), "Fn::Or": lambda: any(found)}[name]()

    def of(self, node: Any) -> Any:
        if isinstance(node, list):
            return [one for one in (self.of(one) for one in node) if one is not ...]
        if not isinstance(node, dict):
            return node
        if len(node) == 1:
            [(name, value)] = node.items()
            if name == "Ref":
                return ... if value == "AWS::NoValue" else self.values[value]
            if name == "Fn::GetAtt":
                return self.values[".".join(value)]
            if name == "Fn::Sub":
                return re.sub(r"\$\{([^}]+)\}", lambda found: self.values[found.group(1)], value)
            if name == "Fn::If":
                return self.of(value[1] if self.holds(value[0]) else value[2])
        return {key: self.of(value) for key, value in node.items()}


@pytest.mark.parametrize(
    ("parameters", "variant"),
    [
        ({}, {}),
        ({"CreateKey": "true"}, {"kms_key_arn": KEY}),
        ({"KmsKeyArn": f"{KEY}2"}, {"kms_key_arn": f"{KEY}2"}),
        ({"SecretsPrefix": "team"}, {"secrets_prefix": "team"}),
        ({"SecretsPrefix": "team", "SecretsKmsKeyArn": KEY}, {"secrets_prefix": "team", "secrets_kms_key_arn": KEY}),
        ({"SecretsKmsKeyArn": KEY}, {}),
    ],
)
def test_the_template_gives_the_rights_that_an_adopted_role_gets(parameters: Any, variant: dict[str, str]) -> None:
    template = Template(EnvironmentName="demo", **parameters)
    policy = template.of(TEMPLATE["Resources"]["ExecutionPolicy"]["Properties"])
    assert policy["PolicyDocument"] == execution_policy(PLACE, "demo", "bucket", **variant)
    assert policy["PolicyName"] == "mwaa-execution-demo"


def test_the_template_trusts_and_exports_the_same() -> None:
    role = TEMPLATE["Resources"]["Role"]["Properties"]["AssumeRolePolicyDocument"]
    assert untrusted(role, PLACE, "demo") == [] and extended_trust(trust(), PLACE, "demo") == role
    assert list(TEMPLATE["Outputs"]) == [*EXPORTS, *OPTIONAL_EXPORTS]
    for name, output in TEMPLATE["Outputs"].items():
        assert output["Export"] == outputs({name: "x"})[name]["Export"]
    assert {name for name, output in TEMPLATE["Outputs"].items() if "Condition" in output} == set(OPTIONAL_EXPORTS)


def test_buckets_and_key_are_retained_and_nothing_else_is() -> None:
    # but for a creation that fails: what it left would keep the next one from its names
    kept = {name for name, one in TEMPLATE["Resources"].items() if "DeletionPolicy" in one}
    assert {TEMPLATE["Resources"][name]["DeletionPolicy"] for name in kept} == {"RetainExceptOnCreate"}
    assert kept == {"Key", "Bucket", "BucketPolicy", "BundleBucket", "BundleBucketPolicy"}
    assert all(TEMPLATE["Resources"][name]["UpdateReplacePolicy"] == "Retain" for name in kept)


def test_the_role_gives_the_template_all_its_parameters() -> None:
    [task] = yaml.safe_load((HERE / "tasks" / "greenfield.yml").read_text())
    assert set(task["mwaa.migration.cloudformation_change_set"]["parameters"]) == set(TEMPLATE["Parameters"])


@pytest.mark.parametrize("name", ["KmsKeyArn", "SecretsKmsKeyArn"])
def test_a_key_is_an_arn_because_policies_take_no_other_name(name: str) -> None:
    pattern = re.compile(TEMPLATE["Parameters"][name]["AllowedPattern"])
    assert pattern.fullmatch("") and pattern.fullmatch(KEY)
    assert not pattern.fullmatch("alias/airflow") and not pattern.fullmatch(KEY.rpartition("/")[2])
