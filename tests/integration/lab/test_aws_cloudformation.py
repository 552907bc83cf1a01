# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""CloudFormation: AWS::MWAA::Environment by the stock amazon.aws.cloudformation module, failures, and import."""

from __future__ import annotations

import json
import subprocess
import sys
import uuid
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError, WaiterError

pytestmark = pytest.mark.lab

TEMPLATE = Path(__file__).parent / "data" / "environment_stack.yaml"


def cloudformation(lab: Any, **arguments: Any) -> dict[str, Any]:
    """Run amazon.aws.cloudformation as a user would; the module's result."""
    command = [str(Path(sys.executable).parent / "ansible"), "localhost", "-m", "amazon.aws.cloudformation"]
    command += ["-a", json.dumps(arguments), "-e", f"ansible_python_interpreter={sys.executable}"]
    environment = {
        **lab.environment,
        "ANSIBLE_LOCALHOST_WARNING": "false",
        "ANSIBLE_HOME": str(lab.folder / "ansible"),
    }
    output = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert "=> {" in output.stdout, output.stdout + output.stderr
    return json.loads(output.stdout[output.stdout.index("=> {") + 3 :])


def test_a_stack_with_an_environment(lab, mwaa):
    name = f"stack-{uuid.uuid4().hex[:8]}"
    wanted = {
        "stack_name": name,
        "template": str(TEMPLATE),
        "capabilities": ["CAPABILITY_IAM"],
        "template_parameters": {"EnvName": name},
    }
    made = cloudformation(lab, **wanted)
    assert made["changed"] is True, made
    assert made["stack_outputs"]["Url"] == f"127.0.0.1:{lab.tls}"
    assert made["stack_outputs"]["Name"] == name
    assert made["stack_outputs"]["TaskLogs"].endswith(f"airflow-{name}-Task")
    shown = mwaa.get_environment(Name=name)["Environment"]
    assert shown["Status"] == "AVAILABLE"
    assert shown["Arn"] == made["stack_outputs"]["Arn"]
    assert shown["AirflowConfigurationOptions"] == {"core.default_task_retries": "1", "core.load_examples": "false"}
    assert shown["Tags"]["team"] == "data"

    assert cloudformation(lab, **wanted)["changed"] is False

    wanted["template_parameters"]["MaxWorkers"] = "7"
    assert cloudformation(lab, **wanted)["changed"] is True
    shown = mwaa.get_environment(Name=name)["Environment"]
    assert (shown["Status"], shown["MaxWorkers"]) == ("AVAILABLE", 7)

    assert cloudformation(lab, stack_name=name, state="absent")["changed"] is True
    assert name not in mwaa.list_environments()["Environments"]


def test_what_mwaa_refuses_rolls_the_stack_back(lab, mwaa):
    name = f"bad-{uuid.uuid4().hex[:8]}"
    made = cloudformation(
        lab,
        stack_name=name,
        template=str(TEMPLATE),
        template_parameters={"EnvName": name, "Versioning": "Suspended"},
        capabilities=["CAPABILITY_IAM"],
        on_create_failure="ROLLBACK",
    )
    assert "ROLLBACK_COMPLETE" in made["events"][0]
    reasons = [event.get("ResourceStatusReason", "") for event in stack_events(lab, name)]
    assert any("must have versioning enabled" in reason for reason in reasons)
    assert name not in mwaa.list_environments()["Environments"]


def stack_events(lab: Any, stack: str) -> list[dict[str, Any]]:
    return lab.client("cloudformation").describe_stack_events(StackName=stack)["StackEvents"]


def environment_template(properties: dict[str, Any], **more: Any) -> str:
    resource = {"Type": "AWS::MWAA::Environment", "Properties": properties, **more}
    return json.dumps({"Resources": {"Env": resource}})


def test_creation_that_fails_late_leaves_nothing(lab, base, mwaa):
    cfn, name = lab.client("cloudformation"), f"late-{uuid.uuid4().hex[:8]}"
    lab.admin("POST", "stub", {"fail_create": "the web server did not start"})
    cfn.create_stack(StackName=name, TemplateBody=environment_template(base.settings(Name=name)))
    with pytest.raises(WaiterError):
        cfn.get_waiter("stack_create_complete").wait(StackName=name, WaiterConfig={"Delay": 1})
    reasons = [event.get("ResourceStatusReason", "") for event in stack_events(lab, name)]
    assert any("the web server did not start" in reason for reason in reasons)
    assert name not in mwaa.list_environments()["Environments"]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"Colour": "blue"}, "extraneous key [Colour] is not permitted"),
        ({"EnvironmentClass": "mw1.gigantic"}, "EnvironmentClass mw1.gigantic is not valid"),
        ({"AirflowConfigurationOptions": {"core.x": "two\nlines"}}, "regular expression pattern"),
    ],
)
def test_properties_are_checked(lab, base, changes, words):
    cfn, name = lab.client("cloudformation"), f"props-{uuid.uuid4().hex[:8]}"
    cfn.create_stack(StackName=name, TemplateBody=environment_template(base.settings(Name=name, **changes)))
    with pytest.raises(WaiterError):
        cfn.get_waiter("stack_create_complete").wait(StackName=name, WaiterConfig={"Delay": 1})
    assert any(words in event.get("ResourceStatusReason", "") for event in stack_events(lab, name))


def test_what_needs_a_new_environment_is_refused_under_the_same_name(lab, base, mwaa):
    cfn, name = lab.client("cloudformation"), f"fixed-{uuid.uuid4().hex[:8]}"
    settings = base.settings(Name=name)
    cfn.create_stack(StackName=name, TemplateBody=environment_template(settings))
    cfn.get_waiter("stack_create_complete").wait(StackName=name, WaiterConfig={"Delay": 1})
    cfn.update_stack(StackName=name, TemplateBody=environment_template({**settings, "EndpointManagement": "CUSTOMER"}))
    with pytest.raises(WaiterError):
        cfn.get_waiter("stack_update_complete").wait(StackName=name, WaiterConfig={"Delay": 1})
    reasons = [event.get("ResourceStatusReason", "") for event in stack_events(lab, name)]
    assert any("custom-named resource requires replacing" in reason for reason in reasons)
    with pytest.raises(ClientError, match="No updates are to be performed"):
        cfn.update_stack(StackName=name, TemplateBody=environment_template(settings))


def test_an_environment_and_its_network_are_imported(lab, base, mwaa):
    cfn, name = lab.client("cloudformation"), base.environment()
    stack = f"import-{uuid.uuid4().hex[:8]}"

    def kept(kind: str, properties: dict[str, Any]) -> dict[str, Any]:
        return {"Type": kind, "DeletionPolicy": "Retain", "UpdateReplacePolicy": "Retain", "Properties": properties}

    resources = {
        "Env": kept("AWS::MWAA::Environment", base.settings(Name=name)),
        "Vpc": kept("AWS::EC2::VPC", {"CidrBlock": "10.1.0.0/16"}),
        "Subnet": kept("AWS::EC2::Subnet", {"VpcId": base.vpc, "CidrBlock": "10.1.0.0/24"}),
        "Group": kept("AWS::EC2::SecurityGroup", {"GroupDescription": "lab", "VpcId": base.vpc}),
    }
    identifiers = {
        "Env": {"Name": name},
        "Vpc": {"VpcId": base.vpc},
        "Subnet": {"SubnetId": base.subnets[0]},
        "Group": {"Id": base.group},
    }
    cfn.create_change_set(
        StackName=stack,
        ChangeSetName="import",
        ChangeSetType="IMPORT",
        TemplateBody=json.dumps({"Resources": resources}),
        ResourcesToImport=[
            {"ResourceType": resources[key]["Type"], "LogicalResourceId": key, "ResourceIdentifier": value}
            for key, value in identifiers.items()
        ],
    )
    cfn.get_waiter("change_set_create_complete").wait(
        StackName=stack, ChangeSetName="import", WaiterConfig={"Delay": 1}
    )
    cfn.execute_change_set(StackName=stack, ChangeSetName="import")
    cfn.get_waiter("stack_import_complete").wait(StackName=stack, WaiterConfig={"Delay": 1})
    outputs = {"Url": {"Value": {"Fn::GetAtt": ["Env", "WebserverUrl"]}}}
    resources["Env"]["Properties"]["MaxWorkers"] = 9
    cfn.update_stack(StackName=stack, TemplateBody=json.dumps({"Resources": resources, "Outputs": outputs}))
    cfn.get_waiter("stack_update_complete").wait(StackName=stack, WaiterConfig={"Delay": 1})
    assert mwaa.get_environment(Name=name)["Environment"]["MaxWorkers"] == 9
    cfn.delete_stack(StackName=stack)
    cfn.get_waiter("stack_delete_complete").wait(StackName=stack, WaiterConfig={"Delay": 1})
    assert mwaa.get_environment(Name=name)["Environment"]["Status"] == "AVAILABLE"
