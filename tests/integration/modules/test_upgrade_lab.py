# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""mwaa_environment_upgrade against the lab's control plane: the way, what goes along, and each end that it can have."""

from __future__ import annotations

import json
import secrets
import time
import uuid
from collections.abc import Callable
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


@pytest.fixture
def upgrade(run_module: Any) -> Callable[..., dict[str, Any]]:
    return lambda *, check=False, **options: run_module("mwaa_environment_upgrade", check=check, diff=True, **options)


@pytest.fixture
def environment(lab: Any, base: Any) -> str:
    """One of 2.10.3 with requirements and options; its name."""
    key = f"{uuid.uuid4().hex[:8]}/requirements.txt"
    version = lab.client("s3").put_object(Bucket=base.bucket, Key=key, Body=REQUIREMENTS.encode())["VersionId"]
    return base.environment(
        AirflowVersion="2.10.3",
        RequirementsS3Path=key,
        RequirementsS3ObjectVersion=version,
        AirflowConfigurationOptions={
            "webserver.expose_config": "True",
            "core.check_slas": "False",
            "smtp.smtp_password": f"CANARY-smtp-{secrets.token_hex(4)}",
        },
    )


def shown(lab: Any, name: str) -> dict[str, Any]:
    return lab.client("mwaa").get_environment(Name=name)["Environment"]


def requirements(lab: Any, base: Any, name: str) -> str:
    now = shown(lab, name)
    which = {"Key": now["RequirementsS3Path"], "VersionId": now["RequirementsS3ObjectVersion"]}
    return lab.client("s3").get_object(Bucket=base.bucket, **which)["Body"].read().decode()


def writes(lab: Any, since: float) -> list[str]:
    return [line["operation"] for line in lab.journal(since) if line["access"] == "write"]


def test_the_ladder_to_airflow_3(lab: Any, base: Any, upgrade: Any, environment: str) -> None:
    options = {"name": environment, "airflow_version": "3.2.1"}
    start = time.time()
    said = [upgrade(**options, check=True)]
    assert said[-1]["changed"] and writes(lab, start) == []
    assert [(hop["from"], hop["to"], hop["done"]) for hop in said[-1]["hops"]] == [
        ("2.10.3", "2.11.2", False),
        ("2.11.2", "3.2.1", False),
    ]
    assert said[-1]["diff"]["after"]["airflow_version"] == "3.2.1"
    outlook = "\n".join(said[-1]["outlook"])
    for part in ("2.10.3 to 2.11.2 to 3.2.1", "up to 4 hours", "expose_config becomes api.expose_config", "SLAs"):
        assert part in outlook, part

    start = time.time()
    said.append(upgrade(**options))
    assert said[-1]["changed"] and said[-1]["operation"] == "upgrade"
    assert [hop["done"] for hop in said[-1]["hops"]] == [True, True]
    assert said[-1]["environment"]["airflow_version"] == "3.2.1"
    assert writes(lab, start) == ["PutObject", "UpdateEnvironment"] * 2
    text = requirements(lab, base, environment)
    assert CONSTRAINTS.format("3.2.1", "3.12") in text and "providers-amazon==9.25.0" in text and "mine==1.0" in text
    now = shown(lab, environment)["AirflowConfigurationOptions"]
    assert now["api.expose_config"] == "True" and "webserver.expose_config" not in now
    assert now["scheduler.create_cron_data_intervals"] == now["scheduler.create_delta_data_intervals"] == "True"
    assert now["core.dag_ignore_file_syntax"] == "regexp"

    start = time.time()
    said.append(upgrade(**options))
    said.append(upgrade(**options, check=True))
    assert not said[-1]["changed"] and not said[-2]["changed"] and writes(lab, start) == []
    assert "CANARY" not in json.dumps(said)


def test_down_again_within_a_major_version(lab: Any, base: Any, upgrade: Any, environment: str) -> None:
    upgrade(name=environment, airflow_version="2.11.2")
    result = upgrade(name=environment, airflow_version="2.10.3")
    assert [hop["to"] for hop in result["hops"]] == ["2.10.3"]
    assert "providers-amazon==9.0.0" in requirements(lab, base, environment)


def test_a_failure_leaves_it_usable_and_says_why(lab: Any, base: Any, upgrade: Any, environment: str) -> None:
    lab.admin("POST", "stub", {"fail_update": "No matching distribution found for mine==1.0"})
    result = upgrade(name=environment, airflow_version="3.2.1")
    assert result["failed"] and result["environment"] == {"name": environment, "status": "UPDATE_FAILED"}
    for part in (
        "was not moved from Airflow 2.10.3 to 2.11.2",
        "INCORRECT_CONFIGURATION: No matching distribution found for mine==1.0",
        "MWAA rolled back",
        "with Airflow 2.10.3",
        f"airflow-{environment}-Scheduler",
    ):
        assert part in result["msg"], part
    assert requirements(lab, base, environment) == REQUIREMENTS  # the version that it has pinned is the old one

    lab.admin("POST", "stub", {"fail_update": None})
    start = time.time()
    assert upgrade(name=environment, airflow_version="2.11.2")["environment"]["airflow_version"] == "2.11.2"
    assert writes(lab, start) == ["UpdateEnvironment"]  # the requirements are there from the first time


def test_no_way_back(lab: Any, upgrade: Any, environment: str) -> None:
    lab.admin("POST", "stub", {"fail_update": "broken", "fail_roll_back": "the snapshot is gone"})
    result = upgrade(name=environment, airflow_version="2.11.2")
    assert "is UNAVAILABLE" in result["msg"] and "AWS Support" in result["msg"]
    again = upgrade(name=environment, airflow_version="2.11.2")
    assert again["failed"] and "is UNAVAILABLE" in again["msg"]


def test_what_another_run_began_is_waited_for(lab: Any, upgrade: Any, environment: str) -> None:
    lab.client("mwaa").update_environment(Name=environment, AirflowVersion="2.11.2")
    result = upgrade(name=environment, airflow_version="2.11.2")
    assert not result["changed"]
    assert result["environment"]["airflow_version"] == "2.11.2"


def test_own_requirements_go_with_the_last_change(lab: Any, base: Any, upgrade: Any, environment: str) -> None:
    key = f"{environment}/mine.txt"
    version = lab.client("s3").put_object(Bucket=base.bucket, Key=key, Body=b"mine==2.0\n")["VersionId"]
    result = upgrade(
        name=environment,
        airflow_version="3.2.1",
        requirements_s3_path=key,
        airflow_configuration_options={"core.parallelism": 9},
    )
    now = shown(lab, environment)
    assert (now["RequirementsS3Path"], now["RequirementsS3ObjectVersion"]) == (key, version), result
    assert now["AirflowConfigurationOptions"]["core.parallelism"] == "9"


@pytest.mark.parametrize(
    ("version", "sentence"),
    [
        ("2.5.1", "AWS ended Airflow 2.5.1 on 2025-12-30"),
        ("2.11.1", "MWAA has no Airflow 2.11.1"),
        ("latest", "MWAA has no Airflow latest: take one of"),
    ],
)
def test_versions_that_there_are_not(lab: Any, upgrade: Any, environment: str, version: str, sentence: str) -> None:
    start = time.time()
    result = upgrade(name=environment, airflow_version=version)
    assert result["failed"] and sentence in result["msg"] and writes(lab, start) == []


def test_an_environment_of_a_stack_is_named_with_its_stack(lab: Any, base: Any, upgrade: Any) -> None:
    name = f"up-{uuid.uuid4().hex[:8]}"
    properties = {**base.settings(Name=name), "AirflowVersion": "2.10.3"}
    template = {"Resources": {"Environment": {"Type": "AWS::MWAA::Environment", "Properties": properties}}}
    cloudformation = lab.client("cloudformation")
    cloudformation.create_stack(StackName=f"{name}-stack", TemplateBody=json.dumps(template))
    cloudformation.get_waiter("stack_create_complete").wait(StackName=f"{name}-stack", WaiterConfig={"Delay": 1})
    start = time.time()
    result = upgrade(name=name, airflow_version="3.2.1")
    assert f"belongs to the CloudFormation stack {name}-stack" in result["msg"]
    assert "to 2.11.2, then 3.2.1" in result["msg"] and writes(lab, start) == []
    assert not upgrade(name=name, airflow_version="2.10.3")["changed"]
    cloudformation.delete_stack(StackName=f"{name}-stack")


def test_the_playbook_says_what_happens_and_does_it_once_confirmed(lab: Any, play: Any, environment: str) -> None:
    given = {"upgrade_environment": environment, "upgrade_airflow_version": "3.2.1"}
    start = time.time()
    code, said = play("upgrade.yml", "--check", "--diff", **given)
    assert code == 0 and "changed=1" in said, said
    assert "2.10.3 to 2.11.2 to 3.2.1" in said and "all its running tasks end" in said
    code, said = play("upgrade.yml", **given)
    assert code == 2 and f"run again with -e upgrade_confirm={environment}" in said and "2.11.2 to 3.2.1" in said
    assert writes(lab, start) == []
    code, said = play("upgrade.yml", "-vvv", **given, upgrade_confirm=environment)
    assert code == 0 and "changed=1" in said, said
    for part in ("2.10.3 to 2.11.2 (1 of 2)", "UPDATING", "2.11.2 to 3.2.1 (2 of 2)"):
        assert f"[localhost] environment {environment}: " in said and part in said, part
    assert "CANARY" not in said
    code, said = play("upgrade.yml", **given)
    assert code == 0 and "changed=0" in said and "has Airflow 3.2.1 already" in said, said


def test_killed_on_the_way_the_next_run_goes_on(lab: Any, play: Any, environment: str) -> None:
    lab.admin("POST", "stub", {"update_seconds": 3})
    given = {"upgrade_environment": environment, "upgrade_airflow_version": "3.2.1", "upgrade_confirm": environment}
    code, said = play("upgrade.yml", kill_at="UPDATING (0 s)", **given)
    assert code == -9, said
    start = time.time()
    code, said = play("upgrade.yml", **given)
    assert code == 0 and shown(lab, environment)["AirflowVersion"] == "3.2.1", said
    assert "2.11.2 to 3.2.1 (1 of 1)" in said
    assert writes(lab, start) == ["PutObject", "UpdateEnvironment"]
