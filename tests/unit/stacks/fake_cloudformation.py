# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""CloudFormation in memory: stacks that move on a status a look, change sets, events, refusals, and sudden death.

It follows AWS where the lab's does not have to: an executed change set and all others of its stack are gone, a look
after an execution still shows the status of before, pages are small.
"""

from __future__ import annotations

import copy
import itertools
import json
from typing import Any

from fakes import REGION, aws_failure, check_input

ACCOUNT = "123456789012"
NO_CHANGES = "The submitted information didn't contain changes. Submit different information to create a change set."
IN_WORK = {"CREATE": "CREATE_IN_PROGRESS", "UPDATE": "UPDATE_IN_PROGRESS", "IMPORT": "IMPORT_IN_PROGRESS"}


class Killed(BaseException):
    """kill -9: nothing that comes after it in the program is done."""


class FakeCloudFormation:
    """One account's CloudFormation in one region.

    calls: the writes, in order, as (operation, parameters).
    fail: {logical id: reason}: resources whose next creation or change fails.
    kill: where the caller dies: after how many calls, or "before X" or "after X", X an operation.
    refuse: {operation: [exception, …]}: answers to the next calls of it.
    lag: how many looks after an execution still show the status of before.
    replacing: properties whose change replaces a resource.
    """

    def __init__(self, *, lag: int = 1, looks: int = 1):
        self.stacks: dict[str, dict[str, Any]] = {}
        self.change_sets: dict[str, dict[str, Any]] = {}
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self.reads: list[str] = []
        self.fail: dict[str, str] = {}
        self.kill: int | str | None = None
        self.count = 0
        self._leaving: list[dict[str, Any]] = []  # deleted change sets are listed once more
        self.refuse: dict[str, list[Exception]] = {}
        self.elsewhere: set[str] = set()  # physical ids that another stack holds
        self.drifts: list[dict[str, Any]] = []
        self.detections = 0
        self.validation: list[dict[str, Any]] = []
        self.replacing = {"BucketName", "LogGroupName"}
        self.lag, self.looks = lag, looks
        self._numbers = itertools.count(1)

    # --- what tests look at ------------------------------------------------------------------------------------------

    @property
    def writes(self) -> list[str]:
        return [operation for operation, _params in self.calls]

    def names(self, stack_name: str) -> list[str]:
        """Names of the stack's change sets."""
        return [one["ChangeSetName"] for one in self.change_sets.values() if one["StackName"] == stack_name]

    def has(self, stack_name: str, status: str, document: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
        """Put a stack there."""
        document = document or {"Resources": {}}
        stack = self._new(stack_name, status)
        stack["_template"] = json.dumps(document)
        stack["_resources"] = {
            name: self._resource(name, one) for name, one in (document.get("Resources") or {}).items()
        }
        self._outputs(stack, document)
        stack.update(more)
        return stack

    # --- the API -----------------------------------------------------------------------------------------------------

    def __getattr__(self, method: str) -> Any:
        operation = "".join(word.capitalize() for word in method.split("_"))
        handler = type(self).__dict__.get(f"_do_{method}")
        if handler is None:
            raise AttributeError(method)

        def call(**params: Any) -> dict[str, Any]:
            check_input("cloudformation", operation, params)
            write = operation.startswith(("Create", "Delete", "Execute", "Update"))
            (self.calls.append((operation, params)) if write else self.reads.append(operation))
            self.count += 1
            if self.kill == f"before {operation}":
                raise Killed(operation)
            try:
                if self.refuse.get(operation):
                    raise self.refuse[operation].pop(0)
                return copy.deepcopy(handler(self, **params))
            finally:
                if self.kill in (self.count, f"after {operation}"):
                    raise Killed(operation)

        return call

    def _do_describe_stacks(self, StackName: str) -> dict[str, Any]:
        stack = self._stack(StackName, "DescribeStacks", deleted=StackName.startswith("arn:"))
        self._move(stack)
        shown = {key: value for key, value in stack.items() if not key.startswith("_")}
        if stack["_lag"] > 0:
            stack["_lag"] -= 1
            shown["StackStatus"] = stack["_before"]
        return {"Stacks": [shown]}

    def _do_list_stack_resources(self, StackName: str, NextToken: str = "") -> dict[str, Any]:
        stack = self._stack(StackName, "ListStackResources")
        return self._page(list(stack["_resources"].values()), NextToken, "StackResourceSummaries", 2)

    def _do_describe_stack_events(self, StackName: str, NextToken: str = "") -> dict[str, Any]:
        stack = self._stack(StackName, "DescribeStackEvents", deleted=True)
        return self._page(stack["_events"][::-1], NextToken, "StackEvents", 3)

    def _do_get_template(self, StackName: str, TemplateStage: str = "") -> dict[str, Any]:
        text = self._stack(StackName, "GetTemplate")["_template"]
        try:
            return {"TemplateBody": json.loads(text)}  # as botocore does
        except ValueError:
            return {"TemplateBody": text}

    def _do_get_template_summary(self, TemplateBody: str = "", TemplateURL: str = "") -> dict[str, Any]:
        document = self._document(TemplateBody)
        parameters = []
        for name, one in (document.get("Parameters") or {}).items():
            shown = {"ParameterKey": name, "NoEcho": bool(one.get("NoEcho"))}
            parameters.append({**shown, **({"DefaultValue": str(one["Default"])} if "Default" in one else {})})
        answer: dict[str, Any] = {"Parameters": parameters}
        if any(one["Type"].startswith("AWS::IAM::") for one in document["Resources"].values()):
            answer["Capabilities"] = ["CAPABILITY_NAMED_IAM"]
            answer["CapabilitiesReason"] = "The following resource(s) require capabilities: [AWS::IAM::Role]"
        if document.get("Transform"):
            answer["DeclaredTransforms"] = [document["Transform"]]
        return answer

    def _do_list_change_sets(self, StackName: str, NextToken: str = "") -> dict[str, Any]:
        stack = self._stack(StackName, "ListChangeSets")
        found = [one for one in [*self._leaving, *self.change_sets.values()] if one["StackId"] == stack["StackId"]]
        page = self._page([self._public(one) for one in found], NextToken, "Summaries", 1)
        if "NextToken" not in page:
            self._leaving = [one for one in self._leaving if one not in found]
        return page

    def _do_create_change_set(self, StackName: str, ChangeSetName: str, **params: Any) -> dict[str, Any]:
        kind = params["ChangeSetType"]
        stack = self._existing(StackName)
        if stack and stack["StackStatus"].endswith("_IN_PROGRESS") and stack["StackStatus"] != "REVIEW_IN_PROGRESS":
            raise self._invalid(f"Stack:{stack['StackId']} is in {stack['StackStatus']} state and can not be updated.")
        if stack and kind == "CREATE" and stack["StackStatus"] != "REVIEW_IN_PROGRESS":
            raise aws_failure("AlreadyExistsException", f"Stack [{StackName}] already exists")
        if stack is None and kind == "UPDATE":
            raise self._invalid(f"Stack [{StackName}] does not exist")
        if stack and ChangeSetName in self.names(StackName):
            raise aws_failure("AlreadyExistsException", f"ChangeSet {ChangeSetName} already exists")
        if stack is None:
            stack = self._new(StackName, "REVIEW_IN_PROGRESS")
            self._event(stack, None, "REVIEW_IN_PROGRESS", "User Initiated")
        number = next(self._numbers)
        made = {
            "ChangeSetName": ChangeSetName,
            "ChangeSetId": f"arn:aws:cloudformation:{REGION}:{ACCOUNT}:changeSet/{ChangeSetName}/{number}",
            "StackName": StackName,
            "StackId": stack["StackId"],
            "Description": params.get("Description", ""),
            "Status": "CREATE_IN_PROGRESS",
            "ExecutionStatus": "UNAVAILABLE",
            "_kind": kind,
            "_params": params,
            "_text": params.get("TemplateBody") or json.dumps(self._document("")),
        }
        made["_changes"], made["_reason"] = self._changes(stack, made)
        self.change_sets[made["ChangeSetId"]] = made
        return {"Id": made["ChangeSetId"], "StackId": stack["StackId"]}

    def _do_describe_change_set(self, ChangeSetName: str, StackName: str = "", NextToken: str = "") -> dict[str, Any]:
        one = self._change_set(ChangeSetName, StackName, "DescribeChangeSet")
        page = self._page(one["_changes"], NextToken, "Changes", 1)
        answer = {**self._public(one), **page}
        if one["Status"] == "CREATE_IN_PROGRESS":  # from the next look on
            one["Status"] = "FAILED" if one["_reason"] else "CREATE_COMPLETE"
            one["StatusReason"] = one["_reason"] or ""
            one["ExecutionStatus"] = "UNAVAILABLE" if one["_reason"] else "AVAILABLE"
            answer["Changes"] = []
            answer.pop("NextToken", None)
        return answer

    def _do_execute_change_set(
        self, ChangeSetName: str, StackName: str = "", ClientRequestToken: str = ""
    ) -> dict[str, Any]:
        one = self._change_set(ChangeSetName, StackName, "ExecuteChangeSet")
        if one["ExecutionStatus"] != "AVAILABLE":
            raise aws_failure("InvalidChangeSetStatus", f"ChangeSet [{ChangeSetName}] cannot be executed")
        one["ExecutionStatus"] = "EXECUTE_IN_PROGRESS"
        stack = self._existing(one["StackId"])
        assert stack
        for other in [other for other in self.change_sets.values() if other["StackId"] == stack["StackId"]]:
            if other is not one:
                del self.change_sets[other["ChangeSetId"]]
        stack["_before"], stack["_lag"] = stack["StackStatus"], self.lag
        stack["StackStatus"] = IN_WORK[one["_kind"]]
        stack["_script"] = self._script(stack, one)
        self._event(stack, None, stack["StackStatus"], "User Initiated")
        return {}

    def _do_delete_change_set(self, ChangeSetName: str, StackName: str = "") -> dict[str, Any]:
        for identity, one in list(self.change_sets.items()):
            same_stack = not StackName or StackName in (one["StackName"], one["StackId"])
            if identity == ChangeSetName or (one["ChangeSetName"] == ChangeSetName and same_stack):
                del self.change_sets[identity]
                self._leaving.append({**one, "Status": "DELETE_IN_PROGRESS", "ExecutionStatus": "UNAVAILABLE"})
        return {}

    def _do_delete_stack(self, StackName: str) -> dict[str, Any]:
        stack = self._stack(StackName, "DeleteStack")
        if stack.get("EnableTerminationProtection"):
            raise self._invalid(
                f"Stack [{stack['StackName']}] cannot be deleted while TerminationProtection is enabled"
            )
        stack["_before"], stack["_lag"] = stack["StackStatus"], self.lag
        stack["StackStatus"] = "DELETE_IN_PROGRESS"
        self._event(stack, None, "DELETE_IN_PROGRESS", "User Initiated")
        stack["_script"] = [[]] * self.looks + [[(None, "DELETE_COMPLETE", "")]]
        return {}

    def _do_detect_stack_drift(self, StackName: str) -> dict[str, Any]:
        self.detections += 1
        self._stack(StackName, "DetectStackDrift")["_detected"] = 0
        return {"StackDriftDetectionId": StackName}

    def _do_describe_stack_drift_detection_status(self, StackDriftDetectionId: str) -> dict[str, Any]:
        stack = self._stack(StackDriftDetectionId, "DescribeStackDriftDetectionStatus")
        stack["_detected"] += 1
        if stack["_detected"] < 2:
            return {"DetectionStatus": "DETECTION_IN_PROGRESS"}
        found = "DRIFTED" if self.drifts else "IN_SYNC"
        stack["DriftInformation"] = {"StackDriftStatus": found}
        return {"DetectionStatus": "DETECTION_COMPLETE", "StackDriftStatus": found}

    def _do_describe_stack_resource_drifts(
        self, StackName: str, StackResourceDriftStatusFilters: list[str], NextToken: str = ""
    ) -> dict[str, Any]:
        shown = [one for one in self.drifts if one["StackResourceDriftStatus"] in StackResourceDriftStatusFilters]
        return self._page(shown, NextToken, "StackResourceDrifts", 1)

    def _do_describe_events(self, Filters: dict[str, Any], **_where: str) -> dict[str, Any]:
        return {"OperationEvents": self.validation}

    # --- inside ------------------------------------------------------------------------------------------------------

    def _new(self, name: str, status: str) -> dict[str, Any]:
        stack: dict[str, Any] = {
            "StackName": name,
            "StackId": f"arn:aws:cloudformation:{REGION}:{ACCOUNT}:stack/{name}/{next(self._numbers)}",
            "StackStatus": status,
            "Parameters": [],
            "Tags": [],
            "Outputs": [],
            "_template": "",
            "_resources": {},
            "_events": [],
            "_script": [],
            "_lag": 0,
            "_before": status,
        }
        self.stacks[stack["StackId"]] = stack
        return stack

    def _existing(self, name: str) -> dict[str, Any] | None:
        found = [
            stack
            for stack in self.stacks.values()
            if name in (stack["StackName"], stack["StackId"]) and stack["StackStatus"] != "DELETE_COMPLETE"
        ]
        return found[0] if found else None

    def _stack(self, name: str, operation: str, *, deleted: bool = False) -> dict[str, Any]:
        stack = self._existing(name) or (self.stacks.get(name) if deleted else None)
        if stack is None:
            raise aws_failure("ValidationError", f"Stack with id {name} does not exist", operation=operation)
        return stack

    def _change_set(self, name: str, stack_name: str, operation: str) -> dict[str, Any]:
        for identity, one in self.change_sets.items():
            if identity == name or (one["ChangeSetName"] == name and stack_name in (one["StackName"], one["StackId"])):
                return one
        raise aws_failure("ChangeSetNotFound", f"ChangeSet [{name}] does not exist", operation=operation, status=404)

    def _invalid(self, message: str) -> Exception:
        return aws_failure("ValidationError", message)

    def _document(self, text: str) -> dict[str, Any]:
        try:
            return json.loads(text)
        except ValueError:  # tests with YAML or a URL are about other things than resources
            return {"Resources": {"Group": {"Type": "AWS::Logs::LogGroup"}}}

    def _public(self, one: dict[str, Any]) -> dict[str, Any]:
        return {key: value for key, value in one.items() if not key.startswith("_")}

    def _page(self, items: list[Any], token: str, key: str, size: int) -> dict[str, Any]:
        start = int(token or 0)
        page: dict[str, Any] = {key: items[start : start + size]}
        return {**page, "NextToken": str(start + size)} if start + size < len(items) else page

    def _resource(self, name: str, one: dict[str, Any], status: str = "CREATE_COMPLETE") -> dict[str, Any]:
        properties = one.get("Properties") or {}
        physical = next((properties[key] for key in ("BucketName", "LogGroupName") if key in properties), f"{name}-1")
        return {
            "LogicalResourceId": name,
            "PhysicalResourceId": physical,
            "ResourceType": one["Type"],
            "ResourceStatus": status,
        }

    def _outputs(self, stack: dict[str, Any], document: dict[str, Any]) -> None:
        stack["Outputs"] = [
            {
                "OutputKey": key,
                "OutputValue": str(one["Value"]),
                **({"ExportName": one["Export"]["Name"]} if "Export" in one else {}),
            }
            for key, one in (document.get("Outputs") or {}).items()
        ]

    def _effective(self, params: dict[str, Any], stack: dict[str, Any]) -> dict[str, str]:
        now = {one["ParameterKey"]: one["_value"] for one in stack.get("_parameters", [])}
        document = self._document(params.get("TemplateBody", ""))
        values = {
            name: str(one["Default"]) for name, one in (document.get("Parameters") or {}).items() if "Default" in one
        }
        for one in params.get("Parameters", []):
            key = one["ParameterKey"]
            values[key] = now[key] if one.get("UsePreviousValue") else one["ParameterValue"]
        return values

    def _changes(self, stack: dict[str, Any], made: dict[str, Any]) -> tuple[list[dict[str, Any]], str | None]:
        params = made["_params"]
        old, new = self._document(stack["_template"] or '{"Resources": {}}'), self._document(made["_text"])
        before, after = old.get("Resources") or {}, new.get("Resources") or {}
        if self.validation:
            return [], "The following hook(s)/validation failed: use the DescribeEvents API for detailed information."
        found = []
        if made["_kind"] == "IMPORT":
            if old.get("Outputs") != new.get("Outputs"):
                raise self._invalid("As part of the import operation, you cannot modify or add [Outputs]")
            if {name: after.get(name) for name in before} != before:
                raise self._invalid("You have modified resources in your template that are not being imported")
            for one in params["ResourcesToImport"]:
                physical = "|".join(one["ResourceIdentifier"].values())
                if physical in self.elsewhere:
                    return [], f"{physical} already exists in stack arn:aws:cloudformation:::stack/other/1"
                found.append(self._resource_change(one["LogicalResourceId"], one["ResourceType"], "Import"))
            return found, None
        for name, one in after.items():
            if name not in before:
                found.append(self._resource_change(name, one["Type"], "Add"))
            elif before[name] != one:
                found.append(self._modification(name, before[name], one))
        for name, one in before.items():
            if name not in after:
                change = self._resource_change(name, one["Type"], "Remove")
                change["ResourceChange"]["PolicyAction"] = one.get("DeletionPolicy", "Delete")
                found.append(change)
        rest = (
            old.get("Outputs") != new.get("Outputs"),
            self._effective(params, stack)
            != {one["ParameterKey"]: one["_value"] for one in stack.get("_parameters", [])},
            "Tags" in params and params["Tags"] != stack["Tags"],
            made["_kind"] == "CREATE",
        )
        return found, None if found or any(rest) else NO_CHANGES

    def _resource_change(self, name: str, kind: str, action: str, **more: Any) -> dict[str, Any]:
        change = {"Action": action, "LogicalResourceId": name, "ResourceType": kind, "Details": [], **more}
        return {"Type": "Resource", "ResourceChange": change}

    def _modification(self, name: str, old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
        before, after = old.get("Properties") or {}, new.get("Properties") or {}
        keys = sorted(key for key in {*before, *after} if before.get(key) != after.get(key))
        details = [
            {
                "Target": {
                    "Attribute": "Properties",
                    "Name": key,
                    "RequiresRecreation": "Always" if key in self.replacing else "Never",
                },
                "Evaluation": "Static",
                "ChangeSource": "DirectModification",
            }
            for key in keys
        ]
        replaced = "True" if self.replacing & set(keys) else "False"
        physical = self._resource(name, old)["PhysicalResourceId"]
        return self._resource_change(
            name, new["Type"], "Modify", Replacement=replaced, Details=details, PhysicalResourceId=physical
        )

    def _script(self, stack: dict[str, Any], one: dict[str, Any]) -> list[list[tuple[str | None, str, str]]]:
        """What the looks to come find, each a list of (logical id, status, reason)."""
        kind = one["_kind"]
        changed = [
            change["ResourceChange"] for change in one["_changes"] if change["ResourceChange"]["Action"] != "Remove"
        ]
        work = [(change["LogicalResourceId"], f"{kind}_IN_PROGRESS", "") for change in changed]
        steps: list[list[tuple[str | None, str, str]]] = [work] + [[] for _ in range(self.looks)]
        bad = [name for name, _status, _reason in work if name in self.fail]
        if bad:
            name = bad[0]
            rolled = {"CREATE": "ROLLBACK", "UPDATE": "UPDATE_ROLLBACK", "IMPORT": "IMPORT_ROLLBACK"}[kind]
            others = [
                (other, f"{kind}_FAILED", "Resource creation cancelled") for other, *_ in work if other not in bad
            ]
            steps.append([(name, f"{kind}_FAILED", self.fail.pop(name)), *others])
            reason = f"The following resource(s) failed to create: [{name}]. Rollback requested by user."
            steps.append([(None, f"{rolled}_IN_PROGRESS", reason)])
            steps.append([(None, f"{rolled}_COMPLETE", "")])
            return steps
        steps.append([(name, f"{kind}_COMPLETE", "") for name, *_ in work])
        steps.append([(None, f"{kind}_COMPLETE", "")])
        stack["_next"] = one
        return steps

    def _move(self, stack: dict[str, Any]) -> None:
        if not stack["_script"]:
            return
        for name, status, reason in stack["_script"].pop(0):
            self._event(stack, name, status, reason)
            if name is None:
                stack["StackStatus"] = status
        if not stack["_script"]:
            self._finish(stack)

    def _finish(self, stack: dict[str, Any]) -> None:
        one = stack.pop("_next", None)
        for identity, other in list(self.change_sets.items()):
            if other["StackId"] == stack["StackId"]:
                del self.change_sets[identity]
        if one is None:
            return
        text, params = one["_text"], one["_params"]
        document = self._document(text)
        secret = {name for name, each in (document.get("Parameters") or {}).items() if each.get("NoEcho")}
        values = self._effective(params, stack)
        stack["_template"] = text
        stack["_parameters"] = [{"ParameterKey": key, "_value": value} for key, value in values.items()]
        stack["Parameters"] = [
            {"ParameterKey": key, "ParameterValue": "****" if key in secret else value} for key, value in values.items()
        ]
        stack["Tags"] = params.get("Tags", stack["Tags"])
        stack["DriftInformation"] = {"StackDriftStatus": "NOT_CHECKED"}
        stack["_resources"] = {name: self._resource(name, each) for name, each in document["Resources"].items()}
        self._outputs(stack, document)

    def _event(self, stack: dict[str, Any], name: str | None, status: str, reason: str) -> None:
        kind = next(
            (
                change["ResourceChange"]["ResourceType"]
                for one in self.change_sets.values()
                for change in one["_changes"]
                if change["ResourceChange"]["LogicalResourceId"] == name
            ),
            "AWS::Logs::LogGroup",
        )
        stack["_events"].append(
            {
                "EventId": f"event-{next(self._numbers)}",
                "StackId": stack["StackId"],
                "LogicalResourceId": name or stack["StackName"],
                "PhysicalResourceId": "" if name else stack["StackId"],
                "ResourceType": kind if name else "AWS::CloudFormation::Stack",
                "ResourceStatus": status,
                "ResourceStatusReason": reason,
            }
        )
