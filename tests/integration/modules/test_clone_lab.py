# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""mwaa_environment_clone against the lab's control plane: settings, code, roles, other places, repeats."""

from __future__ import annotations

import json
import secrets
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.lab

CONSTRAINTS = "https://raw.githubusercontent.com/apache/airflow/constraints-{}/constraints-{}.txt"
REQUIREMENTS = f"""\
# ours
--constraint "{CONSTRAINTS.format("2.10.3", "3.11")}"
apache-airflow-providers-amazon==9.0.0
mine==1.0
"""
DAG = b"from airflow import DAG\nDAG('calm')\n"
EAGER = b"from airflow import DAG\nDAG('eager', is_paused_upon_creation=False)\n"


def canary(what: str) -> str:
    return f"CANARY-{what}-{secrets.token_hex(4)}"


@pytest.fixture
def clone(run_module: Any) -> Callable[..., dict[str, Any]]:
    return lambda *, check=False, **options: run_module("mwaa_environment_clone", check=check, diff=True, **options)


@pytest.fixture
def name() -> str:
    return f"clone-{uuid.uuid4().hex[:8]}"


@pytest.fixture
def source(lab: Any, base: Any) -> str:
    """An environment of 2.10.3 with everything that can be carried; its name."""
    s3, folder = lab.client("s3"), uuid.uuid4().hex[:8]
    put = {
        "plugins.zip": b"PK\x05\x06" + bytes(18),
        "requirements.txt": REQUIREMENTS.encode(),
        "startup.sh": b"export COLOUR=blue\n",
        "dags/calm.py": DAG,
        "dags/eager.py": EAGER,
    }
    versions = {
        path: s3.put_object(Bucket=base.bucket, Key=f"{folder}/{path}", Body=body)["VersionId"]
        for path, body in put.items()
    }
    for path in ("plugins.zip", "requirements.txt", "startup.sh"):  # newer ones, which the environment does not have
        s3.put_object(Bucket=base.bucket, Key=f"{folder}/{path}", Body=b"# newer")
    return base.environment(
        AirflowVersion="2.10.3",
        DagS3Path=f"{folder}/dags",
        PluginsS3Path=f"{folder}/plugins.zip",
        PluginsS3ObjectVersion=versions["plugins.zip"],
        RequirementsS3Path=f"{folder}/requirements.txt",
        RequirementsS3ObjectVersion=versions["requirements.txt"],
        StartupScriptS3Path=f"{folder}/startup.sh",
        StartupScriptS3ObjectVersion=versions["startup.sh"],
        MaxWorkers=7,
        WeeklyMaintenanceWindowStart="TUE:03:30",
        LoggingConfiguration={"TaskLogs": {"Enabled": True, "LogLevel": "WARNING"}},
        Tags={"team": "a"},
        AirflowConfigurationOptions={
            "core.parallelism": "8",
            "core.dags_are_paused_at_creation": "False",
            "smtp.smtp_password": canary("smtp"),
            "mine.endpoint": f"https://me:{canary('url')}@example.com",
            "mine.colour": canary("mine"),
            "secrets.backend": "airflow.providers.amazon.aws.secrets.secrets_manager.SecretsManagerBackend",
            "secrets.backend_kwargs": '{"connections_lookup_pattern": "^(?!aws_default$).*$"}',
        },
    )


def shown(lab: Any, name: str, **client: Any) -> dict[str, Any]:
    return lab.client("mwaa", **client).get_environment(Name=name)["Environment"]


def trust(**more: Any) -> str:
    services = ["airflow.amazonaws.com", "airflow-env.amazonaws.com"]
    statement = {"Effect": "Allow", "Principal": {"Service": services}, "Action": "sts:AssumeRole", **more}
    return json.dumps({"Version": "2012-10-17", "Statement": [statement]})


def writes(lab: Any, since: float) -> list[str]:
    return [line["operation"] for line in lab.journal(since) if line["access"] == "write"]


def test_the_ladder(lab: Any, base: Any, clone: Any, source: str, name: str) -> None:
    options = {"source": source, "name": name, "airflow_version": "2.11.2"}
    start = time.time()
    said = [clone(**options, check=True)]
    assert said[-1]["changed"] and said[-1]["environment"] is None and writes(lab, start) == []
    said.append(clone(**options))
    assert said[-1]["changed"] and said[-1]["environment"]["status"] == "AVAILABLE"
    start = time.time()
    said.append(clone(**options))
    said.append(clone(**options, check=True))
    assert not said[-1]["changed"] and not said[-2]["changed"] and writes(lab, start) == []
    assert "CANARY" not in json.dumps(said)

    old, new = shown(lab, source), shown(lab, name)
    for field in ("PluginsS3Path", "PluginsS3ObjectVersion", "StartupScriptS3Path", "StartupScriptS3ObjectVersion",
                  "DagS3Path", "MaxWorkers", "WeeklyMaintenanceWindowStart", "ExecutionRoleArn", "SourceBucketArn",
                  "EnvironmentClass", "WebserverAccessMode", "NetworkConfiguration", "Tags"):  # fmt: skip
        assert new[field] == old[field], field
    assert new["AirflowVersion"] == "2.11.2"
    assert new["LoggingConfiguration"]["TaskLogs"]["LogLevel"] == "WARNING"
    assert name in new["LoggingConfiguration"]["TaskLogs"]["CloudWatchLogGroupArn"]
    assert new["AirflowConfigurationOptions"] == {
        **old["AirflowConfigurationOptions"],
        "core.dags_are_paused_at_creation": "True",
    }
    made = lab.client("s3").get_object(
        Bucket=base.bucket, Key=new["RequirementsS3Path"], VersionId=new["RequirementsS3ObjectVersion"]
    )
    text = made["Body"].read().decode()
    assert new["RequirementsS3Path"].endswith("/requirements-2.11.2.txt")
    assert CONSTRAINTS.format("2.11.2", "3.12") in text and "providers-amazon==9.22.0" in text
    assert text.startswith("# ours\n") and text.endswith("mine==1.0\n")

    diff = said[1]["diff"]
    assert source in diff["before_header"] and name in diff["after_header"]
    after = diff["after"]["airflow_configuration_options"]
    assert after["core.parallelism"] == "8"
    assert {after[option] for option in ("smtp.smtp_password", "mine.endpoint", "mine.colour")} == {"***"}  # equal
    changed = clone(**{**options, "name": f"{name}-b"}, secret_configuration_options={"mine.colour": "red"}, check=True)
    assert changed["diff"]["after"]["airflow_configuration_options"]["mine.colour"] == "*** (differs)"


def test_a_clone_that_went_its_own_way_is_not_turned_back(lab: Any, clone: Any, source: str, name: str) -> None:
    assert clone(source=source, name=name)["changed"]
    lab.client("mwaa").update_environment(Name=name, MaxWorkers=9)
    while shown(lab, name)["Status"] != "AVAILABLE":
        time.sleep(0.05)
    start = time.time()
    result = clone(source=source, name=name)
    assert result["failed"] and "MaxWorkers" in result["msg"] and "nothing was changed" in result["msg"]
    assert writes(lab, start) == []


def test_killed_while_it_was_made_a_repeat_waits_for_it(lab: Any, clone: Any, source: str, name: str) -> None:
    started = clone(source=source, name=name, wait=False)
    assert started["environment"]["status"] in ("CREATING", "AVAILABLE")
    result = clone(source=source, name=name)
    assert not result["changed"] and result["environment"]["status"] == "AVAILABLE"


def test_all_faults_of_the_input_at_once(lab: Any, clone: Any) -> None:
    result = clone(
        source="no such one",
        name="1st",
        airflow_version="2.5.1",
        execution_role_arn="role/x",
        subnet_ids=["subnet-1"],
    )
    for part in (
        "source 'no such one'",
        "must begin with a letter",
        "ended Airflow 2.5.1",
        "execution_role_arn",
        "subnet_ids",
    ):
        assert part in result["msg"], part


def test_a_region_and_a_profile_that_do_not_exist(run_module: Any, source: str, name: str) -> None:
    result = run_module(
        "mwaa_environment_clone", source=source, name=name, source_region="mars-1", airflow_version="2.9.9"
    )
    assert "'mars-1' is not an AWS region" in result["msg"] and "MWAA has no Airflow 2.9.9" in result["msg"]
    result = run_module("mwaa_environment_clone", source=source, name=name, source_profile="nobody")
    assert "profile nobody does not exist" in result["msg"]


def test_an_environment_that_does_not_exist_is_answered_with_those_that_do(clone: Any, source: str, name: str) -> None:
    result = clone(source="nothere", name=name)
    assert "environment nothere does not exist in us-east-1: there are" in result["msg"] and source in result["msg"]


def test_what_only_aws_refuses_is_said_in_a_sentence(clone: Any, source: str, name: str) -> None:
    result = clone(source=source, name=name, max_workers=400)
    assert result["failed"] and result["error"]["code"] == "ValidationException"
    assert result["msg"].startswith(f"cannot create environment {name}: AWS refused it: ")


@pytest.mark.parametrize(
    ("code", "status", "advice"),
    [
        ("AccessDeniedException", 403, "allow the named action"),
        ("ServiceQuotaExceededException", 402, "ask for a higher quota"),
    ],
)
def test_a_refusal_says_what_to_do(
    lab: Any, clone: Any, source: str, name: str, code: str, status: int, advice: str
) -> None:
    lab.admin(
        "POST", "faults", [{"service": "mwaa", "operation": "CreateEnvironment", "error": code, "status": status}]
    )
    result = clone(source=source, name=name)
    assert result["failed"] and result["error"]["code"] == code and advice in result["msg"]


def test_a_bucket_of_its_own_gets_the_code(
    lab: Any, base: Any, clone: Any, source: str, name: str, new_bucket: Any
) -> None:
    bucket = new_bucket()
    base.block(bucket)
    options = {"source": source, "name": name, "source_bucket": bucket}
    start = time.time()
    planned = clone(**options, check=True)
    assert writes(lab, start) == []
    assert [one["changed"] for one in planned["code"]["objects"]] == [True, True, True]
    result = clone(**options)
    old, new, s3 = shown(lab, source), shown(lab, name), lab.client("s3")
    for kind in ("Plugins", "Requirements", "StartupScript"):
        path, version = f"{kind}S3Path", f"{kind}S3ObjectVersion"
        bodies = [
            s3.get_object(Bucket=where, Key=one[path], VersionId=one[version])["Body"].read()
            for where, one in ((base.bucket, old), (bucket, new))
        ]
        assert bodies[0] == bodies[1] and old[path] == new[path]
    keys = {item["Key"] for item in s3.list_objects_v2(Bucket=bucket)["Contents"]}
    assert {f"{old['DagS3Path']}/calm.py", f"{old['DagS3Path']}/eager.py"} <= keys
    hidden = s3.get_object(Bucket=bucket, Key=f"{old['DagS3Path']}/.airflowignore")["Body"].read()
    assert b"eager" in hidden and b"calm" not in hidden  # it would start beside the source's
    assert result["code"]["dags"]["held_back"]
    assert not clone(**options)["changed"]


def test_another_account_and_region(
    lab: Any, clone: Any, source: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The source's account is reached by a profile; the new environment is in the other one."""
    profiles = tmp_path / "credentials"
    profiles.write_text("[old]\naws_access_key_id = 000000000000\naws_secret_access_key = lab\n")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(profiles))
    there = {"key": "111111111111", "region": "eu-west-1"}
    given = {
        "source": source,
        "source_region": "us-east-1",
        "source_profile": "old",
        "name": name,
        "region": "eu-west-1",
        "access_key": "111111111111",
    }
    result = clone(**given)
    for option in (
        "another account and region",
        "subnet_ids",
        "security_group_ids",
        "source_bucket",
        "execution_role_arn",
    ):
        assert option in result["msg"], option
    ec2, s3, iam = (lab.client(service, **there) for service in ("ec2", "s3", "iam"))
    vpc = ec2.create_vpc(CidrBlock="10.9.0.0/16")["Vpc"]["VpcId"]
    subnets = [
        ec2.create_subnet(VpcId=vpc, CidrBlock=f"10.9.{number}.0/24", AvailabilityZone=f"eu-west-1{zone}")["Subnet"][
            "SubnetId"
        ]
        for number, zone in enumerate("ab")
    ]
    group = ec2.create_security_group(GroupName=name, Description="clone", VpcId=vpc)["GroupId"]
    s3.create_bucket(Bucket=name, CreateBucketConfiguration={"LocationConstraint": "eu-west-1"})
    s3.put_bucket_versioning(Bucket=name, VersioningConfiguration={"Status": "Enabled"})
    switches = ("BlockPublicAcls", "IgnorePublicAcls", "BlockPublicPolicy", "RestrictPublicBuckets")
    s3.put_public_access_block(Bucket=name, PublicAccessBlockConfiguration=dict.fromkeys(switches, True))
    role = iam.create_role(RoleName=name, AssumeRolePolicyDocument=trust())["Role"]["Arn"]
    full = {
        **given,
        "subnet_ids": subnets,
        "security_group_ids": [group],
        "source_bucket": name,
        "execution_role_arn": role,
    }
    result = clone(**full)
    assert result.get("changed"), result.get("msg")
    made = shown(lab, name, **there)
    assert made["Arn"] == f"arn:aws:airflow:eu-west-1:111111111111:environment/{name}" and made["MaxWorkers"] == 7
    assert not clone(**full)["changed"]


POLICY = {
    "Version": "2012-10-17",
    "Statement": [
        {
            "Effect": "Allow",
            "Action": "airflow:PublishMetrics",
            "Resource": "arn:aws:airflow:us-east-1:000000000000:environment/{}",
        },
        {"Effect": "Allow", "Action": "cloudwatch:PutMetricData", "Resource": "*"},
    ],
}


@pytest.fixture
def with_policy(lab: Any, base: Any, source: str, name: str) -> Any:
    """The source's role names the source; its other tests do not see that afterwards."""
    iam, role = lab.client("iam"), base.role.rpartition("/")[2]
    iam.put_role_policy(RoleName=role, PolicyName="mwaa", PolicyDocument=json.dumps(POLICY).replace("{}", source))
    yield role
    for policy in {"mwaa", f"mwaa-clone-{name}"} & set(iam.list_role_policies(RoleName=role)["PolicyNames"]):
        iam.delete_role_policy(RoleName=role, PolicyName=policy)


def test_the_roles_policy_is_made_for_the_new_environment(
    lab: Any, clone: Any, source: str, name: str, with_policy: str
) -> None:
    iam, mine = lab.client("iam"), f"mwaa-clone-{name}"
    options, before = {"source": source, "name": name}, iam.list_role_policies(RoleName=with_policy)["PolicyNames"]
    told = clone(**options, check=True)
    (statement,) = told["execution_role"]["policy"]["Statement"]
    assert statement["Resource"] == f"arn:aws:airflow:us-east-1:000000000000:environment/{name}"
    assert any("write_role_policy" in finding for finding in told["findings"])
    assert iam.list_role_policies(RoleName=with_policy)["PolicyNames"] == before

    start = time.time()
    assert (
        clone(**options, write_role_policy=True, check=True)["execution_role"]["written"] and writes(lab, start) == []
    )
    assert clone(**options, write_role_policy=True)["changed"]
    written = iam.get_role_policy(RoleName=with_policy, PolicyName=mine)["PolicyDocument"]
    assert written == told["execution_role"]["policy"]
    assert source in json.dumps(iam.get_role_policy(RoleName=with_policy, PolicyName="mwaa")["PolicyDocument"])


def test_another_role_gets_all_statements(lab: Any, clone: Any, source: str, name: str, with_policy: str) -> None:
    iam = lab.client("iam")
    other = iam.create_role(RoleName=name, AssumeRolePolicyDocument=trust())["Role"]["Arn"]
    result = clone(source=source, name=name, execution_role_arn=other, write_role_policy=True)
    assert len(result["execution_role"]["policy"]["Statement"]) == 2
    assert iam.list_role_policies(RoleName=name)["PolicyNames"] == [f"mwaa-clone-{name}"]


def test_a_role_that_the_new_environment_cannot_assume(lab: Any, base: Any, clone: Any, source: str, name: str) -> None:
    """MWAA would make the environment, and its tasks would fail."""
    condition = {"ArnLike": {"aws:SourceArn": f"arn:aws:airflow:us-east-1:000000000000:environment/{source}"}}
    role = lab.client("iam").create_role(RoleName=name, AssumeRolePolicyDocument=trust(Condition=condition))
    start = time.time()
    result = clone(source=source, name=name, execution_role_arn=role["Role"]["Arn"])
    assert "names another environment: aws:SourceArn is" in result["msg"] and f"environment/{name}" in result["msg"]
    result = clone(
        source=source, name=name, execution_role_arn="arn:aws:iam::000000000000:role/nobody", source_bucket="gone-xyz"
    )
    assert "role/nobody does not exist" in result["msg"] and "bucket gone-xyz does not exist" in result["msg"]
    assert writes(lab, start) == []


def test_the_preflight_of_a_clone_knows_the_policy_that_the_role_is_going_to_get(
    lab: Any, play: Any, source: str, name: str, with_policy: str
) -> None:
    """And judges no value that it does not see: secrets.backend_kwargs is masked."""
    role = lab.client("iam").create_role(RoleName=name, AssumeRolePolicyDocument=trust())["Role"]["Arn"]
    given = {"clone_source": source, "clone_name": name, "clone_execution_role_arn": role}
    for written in (False, True):
        start = time.time()
        code, said = play("clone.yml", "--check", **given, clone_write_role_policy=written)
        assert code == 0 and writes(lab, start) == [], said
        assert ("airflow:PublishMetrics" in said) is not written, said
        assert "role-permissions" in said and "secrets-backend" not in said  # that policy is not all it takes


def test_the_playbook_takes_a_few_words(lab: Any, play: Any, source: str, name: str) -> None:
    given = {"clone_source": source, "clone_name": name, "clone_airflow_version": "2.11.2"}
    code, said = play("clone.yml", **given)
    assert code == 2 and "Look for what it would fail on" in said  # this lab's subnets lead nowhere
    assert name not in lab.client("mwaa").list_environments()["Environments"]
    given["clone_preflight_fail_on"] = "never"
    start = time.time()
    code, said = play("clone.yml", "--check", "--diff", **given)
    assert code == 0 and writes(lab, start) == [], said
    assert '+    "airflow_version": "2.11.2"' in said and f"+++ after: environment {name}" in said
    code, said = play("clone.yml", "-vvv", "--diff", **given)
    assert code == 0 and "changed=1" in said and f"environment {name}: CREATING" in said, said
    assert "both environments run the DAGs of" in said and "CANARY" not in said
    code, said = play("clone.yml", **given)
    assert code == 0 and "changed=0" in said, said
