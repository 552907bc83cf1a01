# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Stacks created, updated and filled with existing resources by change sets. A killed run is gone on with.

PRIVATE to the collection: no promise is made to other collections.

A change set's name is made from what it asks for, and its description says what it is for. So a run after kill -9 knows
its own: it executes it if it can still be executed, waits if it is being executed, and removes what nobody will use.
"""

from __future__ import annotations

import functools
import re
import time
from collections.abc import Callable
from typing import Any

from ansible_collections.mwaa.migration.plugins.module_utils._errors import (
    Faults,
    MigrationError,
    aws_error,
    aws_errors,
    error_code,
    is_aws_error,
    unless_missing,
)
from ansible_collections.mwaa.migration.plugins.module_utils._progress import progress
from ansible_collections.mwaa.migration.plugins.module_utils._stacks import drift, template
from ansible_collections.mwaa.migration.plugins.module_utils._stacks import stack as stacks

PREFIX = "mwaa-migration-"
MARK = "mwaa.migration"
TO_EXECUTE, TO_REVIEW, TO_LOOK = "to be executed", "to be reviewed", "a preview, to be removed"
ATTEMPTS = 3  # when somebody else changes something between our look and our call
GONE = ("ChangeSetNotFound", "ChangeSetNotFoundException")
NO_CHANGES = ("The submitted information didn't contain changes", "No updates are to be performed")
NAME = re.compile(r"[a-zA-Z][-a-zA-Z0-9]{0,127}")
MASKABLE = 4  # characters; masking shorter texts would mangle whatever is shown


class Overtaken(Exception):
    """Somebody else changed the stack or the change set after we looked, perhaps the module of a killed playbook."""


def present(ctx: Any, before_writing: Callable[[], None]) -> dict[str, Any]:
    """state: present. ctx: _aws.Context of cloudformation_change_set.

    before_writing: raises MigrationError where this run must not write any more: it has ended, or another one works.
    """
    wanted = Wanted(ctx.params)
    run = Run(ctx, wanted, before_writing)
    for _attempt in range(ATTEMPTS):
        try:
            return run.present()
        except Overtaken:
            continue
    raise MigrationError(
        f"stack {wanted.stack_name}: it was changed again and again while this was prepared: find out who else works on"
        " it, and run again"
    )


def absent(ctx: Any) -> dict[str, Any]:
    """state: absent: the named change set alone, and the empty stack that was made for it."""
    stack_name, name = ctx.params["stack_name"], ctx.params["change_set_name"]
    client = ctx.aws.client("cloudformation")
    stack = stacks.describe(client, stack_name)
    found = [one for one in _listed(client, stack_name) if one["ChangeSetName"] == name] if stack else []
    result: dict[str, Any] = {
        "changes": [],
        "drift": [],
        "change_set": None,
        "operation": "delete" if found else "none",
    }
    if found and found[0].get("ExecutionStatus") == "EXECUTE_IN_PROGRESS":
        raise MigrationError(f"change set {name} of stack {stack_name} is being executed and cannot be deleted now")
    if found and not ctx.check_mode:
        _delete(client, stack_name, name)
        stack = _without_empty(client, stack, stacks.Deadline(ctx.params["wait_timeout"]))
    before = f"change set {name}\n" if found else ""
    return {
        "changed": bool(found),
        "stack": stacks.shown(stack),
        **result,
        "diff": {"before": before, "after": ""},
    }


class Wanted:
    """What the task asks for, checked before any call. Raises MigrationError naming all faults."""

    def __init__(self, params: dict[str, Any]):
        self.stack_name: str = params["stack_name"]
        self.type: str = params["type"]
        self.url: str | None = params["template_url"]
        body = params["template_body"]
        self.text = template.written(body) if isinstance(body, (dict, str)) and body else None
        self.document = template.read(self.text)
        self.parameters = params["parameters"] or {}
        self.tags: dict[str, str] | None = (
            None if params["tags"] is None else {key: _plain(value) for key, value in params["tags"].items()}
        )
        self.imports: list[dict[str, Any]] = params["resources_to_import"] or []
        self.capabilities: list[str] = params["capabilities"] or []
        self.role_arn: str | None = params["role_arn"]
        self.name: str | None = params["change_set_name"]
        self._check()

    def _check(self) -> None:
        faults = Faults(f"stack {self.stack_name}")
        if not NAME.fullmatch(self.stack_name):
            faults.add("stack_name is a letter and then letters, digits and hyphens, 128 characters at most")
        if self.name and not NAME.fullmatch(self.name):
            faults.add("change_set_name is a letter and then letters, digits and hyphens, 128 characters at most")
        if not (self.text or self.url):
            faults.add("template_body is neither a dictionary nor a text, or is empty")
        size = len(self.text.encode()) if self.text else 0
        if size > template.INLINE_LIMIT:
            faults.add(
                f"the template has {size:,} bytes, and CloudFormation takes {template.INLINE_LIMIT:,} in a call: upload"
                " it to a bucket and give its template_url"
            )
        for key, value in self.parameters.items():
            if isinstance(value, dict):
                faults.add(f"parameter {key} is a dictionary: parameters are texts, or lists of texts")
        if self.tags and len(self.tags) > 50:
            faults.add("a stack takes 50 tags at most")
        if self.imports and self.type != "import":
            faults.add("resources_to_import needs type: import")
        names = [one["logical_resource_id"] for one in self.imports]
        for name in sorted({name for name in names if names.count(name) > 1}):
            faults.add(f"resources_to_import names {name} twice")
        for one in self.imports:
            self._check_import(one, faults)
        faults.raise_if_any()

    def _check_import(self, one: dict[str, Any], faults: Faults) -> None:
        name = one["logical_resource_id"]
        if not one["resource_identifier"]:
            faults.add(f"resources_to_import: {name} has no resource_identifier")
        if self.document is None:
            return
        resource = (self.document.get("Resources") or {}).get(name)
        if resource is None:
            faults.add(f"resources_to_import: the template has no resource {name}")
        elif resource.get("Type") != one["resource_type"]:
            faults.add(
                f"resources_to_import: {name} is {resource.get('Type')} in the template, not {one['resource_type']}"
            )
        elif not resource.get("DeletionPolicy"):
            faults.add(
                f"resources_to_import: {name} has no DeletionPolicy in the template, which an import needs: Retain"
                " leaves it alone when the stack is deleted"
            )

    def source(self) -> dict[str, Any]:
        return {"TemplateURL": self.url} if self.url else {"TemplateBody": self.text}


class Run:
    """One call of the module. Steps that need the same things are its methods."""

    def __init__(self, ctx: Any, wanted: Wanted, before_writing: Callable[[], None]):
        self.ctx, self.wanted, self.before_writing = ctx, wanted, before_writing
        self.client = ctx.aws.client("cloudformation")
        self.deadline = stacks.Deadline(ctx.params["wait_timeout"], time)
        self.name = wanted.stack_name
        self.writes = not ctx.check_mode or ctx.params["preview"]
        self.waited = False
        self.cleared = False
        self.summary: dict[str, Any] = {}
        self.secret: set[str] = set()  # parameters with NoEcho

    # --- the order of things -------------------------------------------------------------------------------------

    def present(self) -> dict[str, Any]:
        self._read_summary()
        stack = self._at_rest(stacks.describe(self.client, self.name))
        stack = self._usable(stack)
        kind = self._kind(stack)
        if kind is None:
            return self._result(stack, [], changed=self.cleared)
        request, left = self._request(kind, stack)
        if kind == "IMPORT" and not left:
            return self._result(stack, [], changed=self.cleared, drift=self._drift(stack, fresh=False))
        if not self.writes:
            return self._compare(kind, stack, request)
        return self._change(kind, stack, request)

    def _read_summary(self) -> None:
        """What CloudFormation says about the template: its parameters, which of them are secret, its capabilities."""
        self._unmask(None)
        with aws_errors(f"read the template of stack {self.name}"):
            summary = self.summary = self.client.get_template_summary(**self.wanted.source())
        self._unmask({one["ParameterKey"] for one in summary.get("Parameters") or [] if _true(one.get("NoEcho"))})
        faults = Faults(f"stack {self.name}")
        given = set(self.wanted.capabilities)
        for capability in summary.get("Capabilities") or []:
            enough = {capability, "CAPABILITY_NAMED_IAM"} if capability == "CAPABILITY_IAM" else {capability}
            if capability != "CAPABILITY_AUTO_EXPAND" and not enough & given:  # change sets do not ask for that one
                reason = (summary.get("CapabilitiesReason") or "").rstrip(".")
                faults.add(f"capabilities lacks {capability}" + (f" ({reason})" if reason else ""))
        known = {one["ParameterKey"] for one in summary.get("Parameters") or []}
        unknown = sorted(set(self.wanted.parameters) - known)
        if unknown:
            faults.add(f"the template has no parameter {', '.join(unknown)}")
        faults.raise_if_any()

    def _unmask(self, secret: set[str] | None) -> None:
        """parameters is no_log as a whole until it is known which of them are secret (None: no look at the server)."""
        if secret is None:
            body = self.wanted.text
            if body is None or "NoEcho" in body:
                return
            secret = set()
        self.secret = secret
        credentials = {self.ctx.params.get(key) for key in ("secret_key", "session_token")}
        hidden = {text for key in secret for text in _texts(self.wanted.parameters.get(key))}
        for key, value in self.wanted.parameters.items():
            for text in _texts(value) if key not in secret else ():
                if text not in hidden and text not in credentials:
                    self.ctx.hide(set(), instead_of=text)
        for text in hidden:
            if len(text) < MASKABLE:
                self.ctx.hide(set(), instead_of=text)

    def _at_rest(self, stack: dict[str, Any] | None) -> dict[str, Any] | None:
        """Wait for what goes on with the stack, perhaps begun by a run of ours that was killed."""
        if stack is None or not stacks.busy(stack):
            return stack
        if not self.writes:
            self.ctx.warn(f"stack {self.name} is {stack['StackStatus']}: this compares with what it is changing to")
            return stack
        self.waited = True
        events = stacks.Events(self.client, stack["StackId"])
        with aws_errors(f"read the events of stack {self.name}"):
            events.rewind()
        ended = stacks.wait(self.client, stack, events, self.deadline)
        return ended if ended else stacks.describe(self.client, self.name)

    def _usable(self, stack: dict[str, Any] | None) -> dict[str, Any] | None:
        """The stack as a change set can take it; what a failed creation left is removed if it holds nothing."""
        if stack is None:
            return None
        way_out = stacks.stuck(self.client, stack)
        if way_out:
            raise MigrationError(way_out, stack=stacks.brief(stack))
        if stack["StackStatus"] != "ROLLBACK_COMPLETE":
            return stack
        held = stacks.resources(self.client, stack["StackId"])
        if held:
            names = ", ".join(f"{one['LogicalResourceId']} ({one.get('PhysicalResourceId', '')})" for one in held[:5])
            raise MigrationError(
                f"stack {self.name} is ROLLBACK_COMPLETE, its creation failed, and it still holds {names}: delete the"
                f" stack (aws cloudformation delete-stack --stack-name {self.name}), which leaves what is retained;"
                " then import that (type: import), or delete it, and run again",
                stack=stacks.brief(stack),
            )
        if not self.writes:
            return None  # it would be removed, and made anew
        if self.ctx.params["preview"]:
            raise MigrationError(
                f"stack {self.name} is ROLLBACK_COMPLETE, what a failed creation left, and a preview removes nothing:"
                " run without preview, which removes it as it is empty"
            )
        self.before_writing()
        _delete_stack(self.client, stack, self.deadline)
        self.cleared = True
        return None

    def _kind(self, stack: dict[str, Any] | None) -> str | None:
        """CREATE, UPDATE or IMPORT; None where there is nothing to do."""
        new = stack is None or stack["StackStatus"] == stacks.REVIEW
        asked = self.wanted.type
        if asked == "import":
            return "IMPORT"
        if asked == "create" and not new:
            return None
        if asked == "update" and new:
            raise MigrationError(f"stack {self.name} does not exist and cannot be updated: type auto creates it")
        return "CREATE" if new else "UPDATE"

    # --- the request ---------------------------------------------------------------------------------------------

    def _request(self, kind: str, stack: dict[str, Any] | None) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        """CreateChangeSet's arguments but for name and description, and what is left to be imported."""
        wanted = self.wanted
        request: dict[str, Any] = {"StackName": self.name, "ChangeSetType": kind, **wanted.source()}
        left = wanted.imports
        if kind == "IMPORT":
            left = self._left_to_import(stack)
            if stack is not None and stack["StackStatus"] != stacks.REVIEW and left:
                request.update(self._added_to(stack, left))
            request["ResourcesToImport"] = [
                {
                    "ResourceType": one["resource_type"],
                    "LogicalResourceId": one["logical_resource_id"],
                    "ResourceIdentifier": {key: str(value) for key, value in one["resource_identifier"].items()},
                }
                for one in left
            ]
        elif wanted.tags is not None:  # an import cannot change the stack's tags
            request["Tags"] = [{"Key": key, "Value": value} for key, value in wanted.tags.items()]
        request["Parameters"] = self._parameters(kind, stack)
        if wanted.capabilities:
            request["Capabilities"] = wanted.capabilities
        if wanted.role_arn:
            request["RoleARN"] = wanted.role_arn
        return request, left

    def _parameters(self, kind: str, stack: dict[str, Any] | None) -> list[dict[str, Any]]:
        """What is not given keeps the stack's value, a new one has the template's default."""
        new = kind == "CREATE" or stack is None or stack["StackStatus"] == stacks.REVIEW
        kept = set() if new else {one["ParameterKey"] for one in stack.get("Parameters") or []}  # type: ignore[union-attr]
        request, missing = [], []
        for one in self.summary.get("Parameters") or []:
            key = one["ParameterKey"]
            value = template.parameter_text(self.wanted.parameters.get(key))
            if value is not None:
                request.append({"ParameterKey": key, "ParameterValue": value})
            elif key in kept:
                request.append({"ParameterKey": key, "UsePreviousValue": True})
            elif "DefaultValue" not in one:
                missing.append(key)
        if missing:
            raise MigrationError(
                f"stack {self.name}: parameters lacks {', '.join(missing)}, for which the template has no default"
            )
        return request

    def _left_to_import(self, stack: dict[str, Any] | None) -> list[dict[str, Any]]:
        """Without what is in this very stack already. Raises MigrationError where a name there is something else."""
        if stack is None or stack["StackStatus"] == stacks.REVIEW:
            return self.wanted.imports
        held = {
            one["LogicalResourceId"]: one
            for one in stacks.resources(self.client, stack["StackId"])
            if one["ResourceStatus"] not in ("DELETE_SKIPPED", "IMPORT_ROLLBACK_COMPLETE")  # it has been here
        }
        faults, left = Faults(f"stack {self.name}"), []
        for one in self.wanted.imports:
            there = held.get(one["logical_resource_id"])
            if there is None:
                left.append(one)
                continue
            physical = there.get("PhysicalResourceId") or ""
            values = [str(value) for value in one["resource_identifier"].values()]
            if not {physical, *re.split(r"[|/:]", physical)} & set(values):
                faults.add(
                    f"{one['logical_resource_id']} is {physical} in the stack already, and {'|'.join(values)} was to be"
                    " imported under this name: choose another logical_resource_id"
                )
        faults.raise_if_any()
        return left

    def _added_to(self, stack: dict[str, Any], left: list[dict[str, Any]]) -> dict[str, Any]:
        """The stack's own template with the resources that are imported: an import may change nothing else."""
        own = template.read(self._template(stack))
        if own is None or self.wanted.document is None:
            return {}
        brought = self.wanted.document.get("Resources") or {}
        names = [one["logical_resource_id"] for one in left]
        merged = {**own, "Resources": {**(own.get("Resources") or {}), **{name: brought[name] for name in names}}}
        return {"TemplateBody": template.written(merged)}

    def _template(self, stack: dict[str, Any]) -> dict[str, Any] | str:
        with aws_errors(f"read the template of stack {self.name}"):
            answer = self.client.get_template(StackName=stack["StackId"], TemplateStage="Original")
        return answer["TemplateBody"]

    # --- check mode ----------------------------------------------------------------------------------------------

    def _compare(self, kind: str, stack: dict[str, Any] | None, request: dict[str, Any]) -> dict[str, Any]:
        """Check mode: what can be told without a change set; the rest is unknown, and said so."""
        fresh = stack is None or stack["StackStatus"] == stacks.REVIEW
        old = None if fresh else self._template(stack)  # type: ignore[arg-type]
        new = request.get("TemplateBody")
        unknown = [] if new else ["what the template behind template_url changes"]
        before, after = template.read(old), template.read(new)
        changes: list[dict[str, Any]] = []
        if kind == "IMPORT":
            changes = [template.imported(one) for one in request["ResourcesToImport"]]
        elif after is not None and (before is not None or old is None):
            changes = template.compared(before or {}, after)
        differs = old is None or kind == "IMPORT" or (bool(new) and not template.same(old, new))
        now, then, secret = self._parameter_values(None if fresh else stack, request)
        unknown += [f"whether the secret parameter {key} changes" for key in secret]
        if self.summary.get("DeclaredTransforms"):
            unknown.append(f"what {', '.join(self.summary['DeclaredTransforms'])} makes of the template")
        tags_now, tags_then = self._tag_values(None if fresh else stack)
        changed = differs or now != then or tags_now != tags_then
        if unknown and not fresh:
            self.ctx.warn(f"stack {self.name}: unknown until preview: true is set: {'; '.join(unknown)}")
        return self._result(stack, changes, changed=changed, diff=self._diff(stack, request, changes, old))

    def _parameter_values(
        self, stack: dict[str, Any] | None, request: dict[str, Any]
    ) -> tuple[dict[str, str], dict[str, str], list[str]]:
        """The stack's and the wanted parameters, secrets masked; names of secrets whose change nobody can see."""
        now = {one["ParameterKey"]: one.get("ParameterValue", "") for one in (stack or {}).get("Parameters") or []}
        asked = {one["ParameterKey"]: one for one in request["Parameters"]}
        then: dict[str, str] = {}
        for one in self.summary.get("Parameters") or []:
            key = one["ParameterKey"]
            default = one.get("DefaultValue", "") if key not in asked else now.get(key, "")
            then[key] = asked.get(key, {}).get("ParameterValue", default)
        for values in (now, then):
            for key in set(values) & self.secret:
                values[key] = template.HIDDEN
        given = {key for key, one in asked.items() if "ParameterValue" in one}
        return now, then, sorted(given & self.secret & set(now))

    def _tag_values(self, stack: dict[str, Any] | None) -> tuple[dict[str, str], dict[str, str]]:
        now = {one["Key"]: one["Value"] for one in (stack or {}).get("Tags") or []}
        wanted = self.wanted.tags
        return now, now if wanted is None or self.wanted.type == "import" else wanted

    # --- the change set ------------------------------------------------------------------------------------------

    def _change(self, kind: str, stack: dict[str, Any] | None, request: dict[str, Any]) -> dict[str, Any]:
        params, client = self.ctx.params, self.client
        preview, execute = params["preview"], params["execute"]
        old = self._template(stack) if self.ctx.diff_mode and stack and stack["StackStatus"] != stacks.REVIEW else None
        described, made = self._made(kind, stack, request)
        if described is None:
            return self._result(stack, [], changed=self.cleared)
        raw = [one["ResourceChange"] for one in described["Changes"] if one.get("ResourceChange")]
        changes = [template.described(one) for one in raw]
        diff = self._diff(stack, request, changes, old)
        name, stack_id = described["ChangeSetName"], described["StackId"]
        if preview:
            self._forget(stack_id, name)
            result = self._result(stack, changes, changed=self.ctx.check_mode, diff=diff)
            return {**result, "operation": "preview"}
        lost = template.destroying(raw)
        if lost and not params["allow_replacement"]:
            if execute:
                self._forget(stack_id, name)
            raise MigrationError(
                f"stack {self.name}: nothing was changed, because {' and '.join(lost)}; set allow_replacement: true if"
                " that is wanted, or take the change back"
            )
        shown = {"name": name, "id": described["ChangeSetId"], "type": kind.lower()}
        if not execute:
            now = stacks.describe(client, stack_id)
            return {**self._result(now, changes, changed=made or self.cleared, diff=diff), "change_set": shown}
        ended = self._executed(described)
        result = self._result(ended, changes, changed=True, diff=diff)
        if kind == "IMPORT":
            result["drift"] = self._drift(ended, fresh=True)
        return {**result, "operation": kind.lower(), "change_set": {**shown, "status": "EXECUTE_COMPLETE"}}

    def _made(
        self, kind: str, stack: dict[str, Any] | None, request: dict[str, Any]
    ) -> tuple[dict[str, Any] | None, bool]:
        """The change set, ready; and whether it was made now. None where there is nothing to change."""
        client = self.client
        purpose = TO_LOOK if self.ctx.params["preview"] else TO_EXECUTE if self.ctx.params["execute"] else TO_REVIEW
        mark = self._fingerprint(request)
        name = self.wanted.name or PREFIX + ("preview-" if purpose == TO_LOOK else "") + mark
        found = self._swept(stack, name, mark)
        if found is None:
            description = f"{MARK} {mark}: {purpose}"
            self.before_writing()
            try:
                identity = client.create_change_set(ChangeSetName=name, Description=description, **request)["Id"]
            except Exception as exception:
                if not is_aws_error(exception):
                    raise
                raise self._refused(exception, kind) from exception
        else:
            identity = found["ChangeSetId"]
            progress(f"stack {self.name}: goes on with change set {name}")
        described = self._ready(identity, name)
        if described["Status"] != "FAILED":
            return described, found is None
        reason = described.get("StatusReason") or "CloudFormation gives no reason"
        reason = stacks.validated(client, reason, ChangeSetName=described["ChangeSetId"]) or reason
        self._forget(described["StackId"], name)
        if any(words in reason for words in NO_CHANGES):
            return None, False
        raise MigrationError(f"stack {self.name}: the change set failed: {self._explained(stacks.plain(reason), kind)}")

    def _fingerprint(self, request: dict[str, Any]) -> str:
        parameters = [
            (one["ParameterKey"], None if one["ParameterKey"] in self.secret else one.get("ParameterValue"))
            for one in request["Parameters"]
        ]
        rest = {key: value for key, value in request.items() if key not in ("Parameters", "TemplateBody")}
        return template.fingerprint(request.get("TemplateBody") or "", sorted(parameters, key=str), rest)

    def _reusable(self) -> bool:
        """Whether a change set of the same name surely holds the same: not with secrets, nor what a URL had then."""
        return self.wanted.url is None and not self.secret & set(self.wanted.parameters)

    def _swept(self, stack: dict[str, Any] | None, name: str, mark: str) -> dict[str, Any] | None:
        """Our own change set, where it can be used as it is; others of ours that nobody will use are deleted."""
        if stack is None:
            return None
        own = None
        for one in _listed(self.client, self.name):
            description = one.get("Description") or ""
            ours = description.startswith(MARK)
            pending = one["Status"] in ("CREATE_PENDING", "CREATE_IN_PROGRESS")
            usable = pending or one.get("ExecutionStatus") == "AVAILABLE"
            if one["ChangeSetName"] == name:
                if not ours and usable:
                    raise MigrationError(
                        f"stack {self.name} has a change set {name} that this module did not make: execute it, delete"
                        " it (state: absent), or choose another change_set_name"
                    )
                unused = not (usable and self._reusable() and description.startswith(f"{MARK} {mark}:"))
                own = None if unused else one
            else:
                kept = pending or (usable and description.endswith(TO_REVIEW))
                unused = ours and one["ChangeSetName"].startswith(PREFIX) and not kept
            if unused and one.get("ExecutionStatus") != "EXECUTE_IN_PROGRESS":
                self.before_writing()
                _delete(self.client, self.name, one["ChangeSetId"])
        return own

    def _ready(self, identity: str, name: str) -> dict[str, Any]:
        seen = {"status": "CREATE_PENDING"}

        def probe() -> dict[str, Any] | None:
            described = _described(self.client, self.name, identity)
            seen["status"] = described["Status"]
            return described if described["Status"] in ("CREATE_COMPLETE", "FAILED") else None

        return self.deadline.wait(
            probe,
            lambda: f"stack {self.name}: change set {name} {seen['status']}",
            hint="run again, which waits on, with a larger wait_timeout",
        )

    def _executed(self, described: dict[str, Any]) -> dict[str, Any]:
        """Execute and wait. Raises MigrationError with the first cause when the operation fails."""
        client, stack_id = self.client, described["StackId"]
        before = stacks.describe(client, stack_id)
        if before is None:
            raise MigrationError(f"stack {self.name} disappeared before its change set was executed: run again")
        events = stacks.Events(client, stack_id)
        with aws_errors(f"read the events of stack {self.name}"):
            events.skip()
        self.before_writing()
        try:
            client.execute_change_set(
                ChangeSetName=described["ChangeSetId"],
                StackName=stack_id,
                ClientRequestToken=described["ChangeSetId"].rpartition("/")[2],
            )
        except Exception as exception:
            if not is_aws_error(exception):
                raise
            # botocore repeats a call whose answer was lost, and then it runs already
            status = _described(client, self.name, described["ChangeSetId"], must=False).get("ExecutionStatus")
            if status not in ("EXECUTE_IN_PROGRESS", "EXECUTE_COMPLETE", "EXECUTE_FAILED"):
                raise self._refused(exception, "") from exception
            with aws_errors(f"read the events of stack {self.name}"):
                events.rewind()
        ended = stacks.wait(client, before, events, self.deadline, started=True)
        if ended is None or ended["StackStatus"] not in stacks.SUCCESS:
            raise stacks.failure(client, self.name, ended, events)
        return ended

    def _forget(self, stack_id: str, name: str) -> None:
        """Delete the change set, and the stack that was only made to hold it."""
        self.before_writing()
        _delete(self.client, stack_id, name)
        _without_empty(self.client, stacks.describe(self.client, stack_id), self.deadline)

    def _refused(self, exception: BaseException, kind: str) -> BaseException:
        began = error_code(exception) == "ValidationError" and re.search(r"is in \w+_IN_PROGRESS state", str(exception))
        if began or error_code(exception) in (*GONE, "AlreadyExistsException"):
            return Overtaken()
        error = aws_error(exception, f"change stack {self.name}")
        error.message = self._explained(error.message, kind)
        return error

    def _explained(self, reason: str, kind: str) -> str:
        if "already exists in stack" in reason:
            return f"{reason}; a resource is in one stack at most: leave it out of resources_to_import"
        if kind == "IMPORT" and "cannot modify or add [Outputs]" in reason:
            return f"{reason}; leave Outputs out of the import's template, an update adds them"
        hint = stacks.advice(reason)
        return f"{reason}; {hint}" if hint else reason

    # --- what is returned ----------------------------------------------------------------------------------------

    def _drift(self, stack: dict[str, Any] | None, *, fresh: bool) -> list[dict[str, Any]]:
        """fresh: right after an import. Otherwise a detection that was made is read, and one that was not, made."""
        if not self.ctx.params["detect_drift"] or stack is None:
            return []
        if self.ctx.check_mode and drift.status(stack) == "NOT_CHECKED":
            return []
        if fresh or drift.status(stack) == "NOT_CHECKED":
            for warning in drift.detect(self.client, stack, self.deadline):
                self.ctx.warn(warning)
        found = drift.read(self.client, stack)
        for one in found:
            self.ctx.warn(drift.sentence(self.name, one))
        return found

    def _diff(
        self,
        stack: dict[str, Any] | None,
        request: dict[str, Any],
        changes: list[dict[str, Any]],
        old: dict[str, Any] | str | None,
    ) -> list[dict[str, Any]]:
        if not self.ctx.diff_mode:
            return []
        fresh = stack is None or stack["StackStatus"] == stacks.REVIEW
        parts: list[dict[str, Any]] = []
        new = request.get("TemplateBody")
        if new and (old is None or not template.same(old, new)):
            parts.append(_texts_diff(f"stack {self.name}: template", template.shown(old), template.shown(new)))
        now, then, _secret = self._parameter_values(None if fresh else stack, request)
        tags_now, tags_then = self._tag_values(None if fresh else stack)
        for what, before, after in (("parameters", now, then), ("tags", tags_now, tags_then)):
            if before != after:
                parts.append(_texts_diff(f"stack {self.name}: {what}", _lines(before), _lines(after)))
        if changes:
            lines = "".join(f"  {template.line(one)}\n" for one in changes)
            parts.append({"prepared": f"stack {self.name}: changes\n{lines}"})
        return parts

    def _result(
        self,
        stack: dict[str, Any] | None,
        changes: list[dict[str, Any]],
        *,
        changed: bool,
        drift: list[dict[str, Any]] | None = None,
        diff: list[dict[str, Any]] | None = None,
    ) -> dict[str, Any]:
        return {
            "changed": changed,
            "operation": "wait" if self.waited else "none",
            "stack": stacks.shown(stack),
            "changes": changes,
            "drift": drift or [],
            "change_set": None,
            "diff": diff or [],
        }


# --- single calls ----------------------------------------------------------------------------------------------------


def _listed(client: Any, stack_name: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    token: dict[str, str] = {}
    while True:
        page = unless_missing(
            functools.partial(client.list_change_sets, StackName=stack_name, **token),
            f"list the change sets of stack {stack_name}",
            stacks.says_missing,
        )
        if page is None:
            return []
        found += page.get("Summaries") or []
        if not page.get("NextToken"):
            return found
        token = {"NextToken": page["NextToken"]}


def _described(client: Any, stack_name: str, identity: str, *, must: bool = True) -> dict[str, Any]:
    """DescribeChangeSet with all its Changes; {} where it cannot be read and need not be."""
    whole: dict[str, Any] = {}
    changes: list[dict[str, Any]] = []
    token: dict[str, str] = {}
    while True:
        try:
            page = client.describe_change_set(ChangeSetName=identity, **token)
        except Exception as exception:
            if not is_aws_error(exception):
                raise
            if not must:
                return {}
            if error_code(exception) in GONE:
                raise Overtaken from exception
            raise aws_error(exception, f"read a change set of stack {stack_name}") from exception
        whole = whole or page
        changes += page.get("Changes") or []
        if not page.get("NextToken"):
            return {**whole, "Changes": changes}
        token = {"NextToken": page["NextToken"]}


def _delete(client: Any, stack_name: str, name: str) -> None:
    """Delete a change set; it is no fault when there is none."""
    try:
        client.delete_change_set(**({} if name.startswith("arn:") else {"StackName": stack_name}), ChangeSetName=name)
    except Exception as exception:
        if not is_aws_error(exception):
            raise
        if error_code(exception) not in GONE and not stacks.says_missing(exception):
            raise aws_error(exception, f"delete change set {name} of stack {stack_name}") from exception


def _delete_stack(client: Any, stack: dict[str, Any], deadline: stacks.Deadline) -> None:
    name = stack["StackName"]
    events = stacks.Events(client, stack["StackId"])
    try:
        with aws_errors(f"delete stack {name}, which is {stack['StackStatus']} and empty"):
            events.skip()
            client.delete_stack(StackName=stack["StackId"])
    except MigrationError as error:
        error.message += f"; {stacks.advice(error.message)}" if stacks.advice(error.message) else ""
        raise
    ended = stacks.wait(client, stack, events, deadline, started=True)
    if ended is not None:
        raise stacks.failure(client, name, ended, events)


def _without_empty(client: Any, stack: dict[str, Any] | None, deadline: stacks.Deadline) -> dict[str, Any] | None:
    """Delete the stack if it only was made to hold a change set, and holds none any more."""
    if stack is None or stack["StackStatus"] != stacks.REVIEW:
        return stack
    left = [one for one in _listed(client, stack["StackId"]) if not one["Status"].startswith("DELETE_")]
    if left or stacks.resources(client, stack["StackId"]):
        return stack
    _delete_stack(client, stack, deadline)
    return None


def _true(value: Any) -> bool:
    return str(value).lower() == "true"


def _plain(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _texts(value: Any) -> list[str]:
    """The texts of a parameter, as AnsibleModule masks them."""
    if isinstance(value, list):
        return [text for one in value for text in _texts(one)]
    return [] if value is None or isinstance(value, bool) else [str(value)]


def _lines(values: dict[str, str]) -> str:
    return "".join(f"{key}: {value}\n" for key, value in sorted(values.items()))


def _texts_diff(what: str, before: str, after: str) -> dict[str, str]:
    return {"before_header": what, "after_header": what, "before": before, "after": after}
