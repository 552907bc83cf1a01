# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""migrate.yml with stacks: what it deploys, deploys again, changes in place, and what a kill -9 on the way leaves.

One stub lab for the file, and the tests run in their order. Each kill is of ansible-playbook with all that it started,
right when the journal shows the call that is named; the next run ends at the same stacks.
"""

from __future__ import annotations

import importlib.util
import json
import re
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import pytest
import yaml
from botocore.exceptions import ClientError

pytestmark = [pytest.mark.lab, pytest.mark.slow]

_FILE = Path(__file__).parents[1] / "e2e" / "conftest.py"
_SPEC = importlib.util.spec_from_file_location("lab_by_command", _FILE)
assert _SPEC and _SPEC.loader
_by_command = sys.modules["lab_by_command"] = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(_by_command)

ENVIRONMENT = "analytics-lab"
BASE, STACK = f"{ENVIRONMENT}-base", f"{ENVIRONMENT}-environment"
DEPLOY = ("--tags", "base,environment")


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    lab = _by_command.Lab(tmp_path_factory.mktemp("lab"))
    try:
        lab.up("--engine", "stub", "--source", "2.10.3", "--seed-data", "small")
        # publish reads what is to be adopted, as there is no base stack yet
        begun = lab.play("migrate.yml", "--tags", "export,publish")
        assert begun.returncode == 0, begun.output
        yield lab
    finally:
        lab.command("down", check=False)


def stack(lab: Any, name: str) -> dict[str, Any] | None:
    try:
        return lab.client("cloudformation").describe_stacks(StackName=name)["Stacks"][0]
    except ClientError as error:
        assert "does not exist" in str(error)
        return None


def change_sets(lab: Any, name: str) -> list[str]:
    found = lab.client("cloudformation").list_change_sets(StackName=name)["Summaries"]
    return [one["ChangeSetName"] for one in found if one["ExecutionStatus"] != "EXECUTE_COMPLETE"]


def called(lab: Any, begun: int, operation: str, name: str) -> bool:
    """Whether the journal has this call about this stack, since it had `begun` lines."""
    lines = (lab.folder / "journal.jsonl").read_text().splitlines()[begun:]
    calls = [json.loads(line) for line in lines if f'"{operation}"' in line]
    return any(name in json.dumps([call["keys"], call.get("action")]) for call in calls)


def so_far(lab: Any) -> int:
    return len((lab.folder / "journal.jsonl").read_text().splitlines())


def killed_at(lab: Any, operation: str, name: str, *words: str) -> None:
    """Start a deploy and kill it when the journal has this call about this stack."""
    # a change set that was made is not executed before the kill
    slow = {"service": "cloudformation", "operation": "DescribeChangeSet", "latency_ms": 20000, "times": None}
    admin(lab, "faults", [slow] if operation == "CreateChangeSet" else [])
    begun = so_far(lab)
    process = lab.start("migrate.yml", *DEPLOY, *words)
    deadline = time.monotonic() + 600
    while process.poll() is None:
        assert time.monotonic() < deadline, f"{operation} of {name} did not come"
        if called(lab, begun, operation, name):
            _by_command.kill_group(process)
            admin(lab, "faults", [])
            return
        time.sleep(0.05)
    pytest.fail(f"the run ended before {operation} of {name}: {process.stdout.read()[-3000:]}")


def deployed(lab: Any, *words: str) -> Any:
    play = lab.play("migrate.yml", *DEPLOY, *words)
    assert play.returncode == 0, play.output[-4000:]
    return play


def stub(lab: Any, **settings: Any) -> None:
    admin(lab, "stub", settings)


def admin(lab: Any, what: str, document: Any) -> None:
    url = f"{lab.environment()['AWS_ENDPOINT_URL']}/_lab/{what}"
    with urlopen(Request(url, data=json.dumps(document).encode(), method="POST")) as answer:
        json.load(answer)


def whole(lab: Any) -> None:
    """Both stacks are as a run that nobody killed leaves them."""
    for name in (BASE, STACK):
        found = stack(lab, name)
        assert found and re.fullmatch(r"(CREATE|UPDATE)_COMPLETE", found["StackStatus"]), found
        assert change_sets(lab, name) == [], name
    assert lab.client("mwaa").get_environment(Name=ENVIRONMENT)["Environment"]["Status"] == "AVAILABLE"
    stacks = lab.client("cloudformation").list_stacks()["StackSummaries"]
    assert sorted(one["StackName"] for one in stacks if one["StackStatus"] != "DELETE_COMPLETE") == [BASE, STACK]


def test_killed_everywhere_on_the_way_a_run_ends_at_both_stacks(lab: Any) -> None:
    stub(lab, create_seconds=15)
    for name, operation, status in (
        (BASE, "CreateChangeSet", "REVIEW_IN_PROGRESS"),  # an import that was not executed
        (BASE, "ExecuteChangeSet", "IMPORT_"),
        (BASE, "ExecuteChangeSet", "UPDATE_"),  # of exports, trust and policy
        (STACK, "CreateChangeSet", "REVIEW_IN_PROGRESS"),
        (STACK, "ExecuteChangeSet", "CREATE_IN_PROGRESS"),
    ):
        killed_at(lab, operation, name)
        found = stack(lab, name)
        assert found and found["StackStatus"].startswith(status), (name, operation, found)
    deployed(lab)  # it waits for the environment
    stub(lab, create_seconds=0)
    whole(lab)


def test_a_repeat_changes_nothing(lab: Any) -> None:
    play = deployed(lab)
    assert play.changed == 0, play.output
    whole(lab)
    exports = {output["OutputKey"]: output["OutputValue"] for output in stack(lab, BASE)["Outputs"]}
    env = lab.environment()
    assert exports["BucketName"] == env["MWAA_LAB_BUCKET"] and exports["RoleArn"] == env["MWAA_LAB_ROLE_ARN"]
    outputs = {output["OutputKey"]: output["OutputValue"] for output in stack(lab, STACK)["Outputs"]}
    shown = lab.client("mwaa").get_environment(Name=ENVIRONMENT)["Environment"]
    assert outputs == {
        "EnvironmentName": ENVIRONMENT,
        "EnvironmentArn": shown["Arn"],
        "WebserverUrl": shown["WebserverUrl"],
    }
    assert shown["AirflowConfigurationOptions"]["core.dags_are_paused_at_creation"] == "True"
    assert shown["RequirementsS3ObjectVersion"]


def test_check_mode_writes_nothing(lab: Any) -> None:
    before = len(lab.journal())
    play = deployed(lab, "--check", "--diff", "-e", "environment_max_workers=4")
    writes = [call for call in lab.journal()[before:] if call["access"] == "write" and call["caller"] == "user"]
    assert writes == []
    assert play.changed == 1 and "MaxWorkers" in play.output


def test_more_workers_in_place(lab: Any) -> None:
    created = lab.client("mwaa").get_environment(Name=ENVIRONMENT)["Environment"]["CreatedAt"]
    assert deployed(lab, "-e", "environment_max_workers=7").changed == 1
    shown = lab.client("mwaa").get_environment(Name=ENVIRONMENT)["Environment"]
    assert (shown["MaxWorkers"], shown["CreatedAt"]) == (7, created)
    whole(lab)


def test_killed_while_it_is_changed_a_run_ends_at_the_change(lab: Any) -> None:
    stub(lab, update_seconds=6)
    killed_at(lab, "CreateChangeSet", STACK, "-e", "environment_max_workers=8")
    killed_at(
        lab, "ExecuteChangeSet", STACK, "-e", "environment_max_workers=9"
    )  # the other change is not wanted any more
    deployed(lab, "-e", "environment_max_workers=9")
    stub(lab, update_seconds=0)
    assert lab.client("mwaa").get_environment(Name=ENVIRONMENT)["Environment"]["MaxWorkers"] == 9
    whole(lab)


def test_two_operators_do_not_deploy_at_once(lab: Any) -> None:
    """The lock of a run that lives is respected before a change set is made."""
    stub(lab, update_seconds=20)
    words = ("-e", "environment_max_workers=12")
    begun = so_far(lab)
    first = lab.start("migrate.yml", *DEPLOY, *words)
    try:
        _by_command.wait_for(lambda: called(lab, begun, "ExecuteChangeSet", STACK), 600, "the first run's change")
        second = lab.play("migrate.yml", *DEPLOY)
        assert second.returncode != 0 and "is locked" in second.message, second.output[-3000:]
    finally:
        output = first.communicate()[0]
    assert first.returncode == 0, output[-3000:]
    stub(lab, update_seconds=0)


def test_what_a_stack_owns_is_left_alone_without_it(lab: Any) -> None:
    play = lab.play("migrate.yml", "--tags", "environment", "-e", "migration_deploy=direct environment_max_workers=3")
    assert play.returncode != 0
    assert f"environment {ENVIRONMENT} belongs to the CloudFormation stack {STACK}" in play.message
    none = lab.play("migrate.yml", "--tags", "environment", "-e", "migration_deploy=none")
    assert none.returncode == 0 and none.changed == 0, none.output[-3000:]


def test_a_template_of_ones_own(lab: Any, tmp_path: Path) -> None:
    template = lab.client("cloudformation").get_template(StackName=STACK)["TemplateBody"]
    template["Parameters"]["Workers"] = {"Type": "Number"}
    template["Resources"]["Environment"]["Properties"]["MaxWorkers"] = {"Ref": "Workers"}
    path = tmp_path / "mine.json"
    path.write_text(json.dumps(template))
    own = (
        "-e",
        f"mwaa_stack_environment_template={path}",
        "-e",
        json.dumps({"mwaa_stack_environment_parameters": {"Workers": 5}}),
    )
    assert deployed(lab, *own).changed == 1
    assert lab.client("mwaa").get_environment(Name=ENVIRONMENT)["Environment"]["MaxWorkers"] == 5
    assert deployed(lab, *own).changed == 0
    options = template["Resources"]["Environment"]["Properties"]["AirflowConfigurationOptions"]
    options["core.dags_are_paused_at_creation"] = "False"
    path.write_text(json.dumps(template))
    play = lab.play("migrate.yml", *DEPLOY, *own)
    assert play.returncode != 0 and "core.dags_are_paused_at_creation True among" in play.message


def test_an_environment_outlives_its_stack_and_comes_back_by_its_name(lab: Any) -> None:
    cloudformation = lab.client("cloudformation")
    cloudformation.delete_stack(StackName=STACK)
    cloudformation.get_waiter("stack_delete_complete").wait(StackName=STACK, WaiterConfig={"Delay": 1})
    assert lab.client("mwaa").get_environment(Name=ENVIRONMENT)["Environment"]["Status"] == "AVAILABLE"
    play = lab.play("migrate.yml", *DEPLOY)
    assert play.returncode != 0
    assert f"environment {ENVIRONMENT} exists, and no stack owns it: migration_adopt" in play.message
    adopted = yaml.safe_load((_by_command.ROOT / "inventories/lab/group_vars/all.yml").read_text())["migration_adopt"]
    adopt = ("-e", json.dumps({"migration_adopt": {**adopted, "environment": True}}))
    deployed(lab, *adopt)
    assert deployed(lab, *adopt).changed == 0
    whole(lab)
