# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One stack: how it stands, what happens to it while one waits, why an operation failed and what can be done then.

PRIVATE to the collection: no promise is made to other collections.
"""

from __future__ import annotations

import re
import time
from typing import Any

from ansible_collections.mwaa.migration.plugins.module_utils._errors import (
    EXPIRED,
    MigrationError,
    aws_error,
    aws_errors,
    error_code,
    is_aws_error,
    is_throttle,
    is_transient,
    unless_missing,
)
from ansible_collections.mwaa.migration.plugins.module_utils._progress import progress, span, wait_until

INTERVAL = 15.0  # seconds between two looks at a stack, at most
NOTICE = 60.0  # seconds within which an operation that was accepted shows in the stack's status or events
STACK = "AWS::CloudFormation::Stack"
REVIEW = "REVIEW_IN_PROGRESS"
_BEGINNINGS = ("CREATE_IN_PROGRESS", "UPDATE_IN_PROGRESS", "DELETE_IN_PROGRESS", "IMPORT_IN_PROGRESS")
_GOES_ON = "CloudFormation goes on by itself, and a new run waits for it"


def says_missing(exception: BaseException) -> bool:
    """Whether CloudFormation said, in its way (a ValidationError), that there is no such stack."""
    return error_code(exception) == "ValidationError" and "does not exist" in str(exception)


def describe(client: Any, name: str) -> dict[str, Any] | None:
    """The stack (name or id) as DescribeStacks shows it; None when there is none or it was deleted."""
    shown = unless_missing(lambda: client.describe_stacks(StackName=name), f"read stack {name}", says_missing)
    stack = shown["Stacks"][0] if shown else None
    return None if stack is None or stack["StackStatus"] == "DELETE_COMPLETE" else stack


def busy(stack: dict[str, Any]) -> bool:
    """Whether an operation runs on it. A stack that only has a change set to be reviewed is not busy."""
    return stack["StackStatus"].endswith("_IN_PROGRESS") and stack["StackStatus"] != REVIEW


def resources(client: Any, name: str) -> list[dict[str, Any]]:
    """What the stack holds: ListStackResources without what was deleted."""
    found: list[dict[str, Any]] = []
    token: dict[str, str] = {}
    while True:
        with aws_errors(f"list the resources of stack {name}"):
            page = client.list_stack_resources(StackName=name, **token)
        found += page.get("StackResourceSummaries") or []
        if not page.get("NextToken"):
            return [one for one in found if one["ResourceStatus"] != "DELETE_COMPLETE"]
        token = {"NextToken": page["NextToken"]}


def shown(stack: dict[str, Any] | None) -> dict[str, Any] | None:
    """What the module returns of a stack."""
    if stack is None:
        return None
    outputs = stack.get("Outputs") or []
    return {
        "name": stack["StackName"],
        "id": stack["StackId"],
        "status": stack["StackStatus"],
        "outputs": {one["OutputKey"]: one["OutputValue"] for one in outputs},
        "exports": {one["ExportName"]: one["OutputValue"] for one in outputs if one.get("ExportName")},
    }


def brief(stack: dict[str, Any]) -> dict[str, Any]:
    """What a failure returns of a stack: Ansible prints all of it after the sentence."""
    return {"name": stack["StackName"], "status": stack["StackStatus"]}


# --- events ----------------------------------------------------------------------------------------------------------


class Events:
    """The events of one stack's operation, each once, oldest first."""

    def __init__(self, client: Any, stack_id: str):
        self.client, self.stack_id = client, stack_id
        self.all: list[dict[str, Any]] = []
        self._last: str | None = None

    def skip(self) -> None:
        """What happened so far belongs to an earlier operation."""
        page = self._page({})
        self._last = page[0][0]["EventId"] if page[0] else None

    def rewind(self) -> None:
        """Take in what the operation in progress has done so far, back to its beginning."""
        found: list[dict[str, Any]] = []
        token: dict[str, str] = {}
        while True:
            events, token = self._page(token)
            for event in events:
                found.append(event)
                if _is_stack(event) and event["ResourceStatus"] in _BEGINNINGS:
                    token = {}
                    break
            if not token:
                break
        self.all = found[::-1]
        self._last = found[0]["EventId"] if found else None

    def news(self) -> list[dict[str, Any]]:
        """What happened since the last look."""
        found: list[dict[str, Any]] = []
        token: dict[str, str] = {}
        while True:
            events, token = self._page(token)
            for event in events:
                if event["EventId"] == self._last:
                    token = {}
                    break
                found.append(event)
            if not token:
                break
        if found:
            self._last = found[0]["EventId"]
        self.all += found[::-1]
        return found[::-1]

    def _page(self, token: dict[str, str]) -> tuple[list[dict[str, Any]], dict[str, str]]:
        answer = self.client.describe_stack_events(StackName=self.stack_id, **token)
        following = {"NextToken": answer["NextToken"]} if answer.get("NextToken") else {}
        return answer.get("StackEvents") or [], following

    def in_work(self) -> list[str]:
        """The resources that are being worked on."""
        last = {event["LogicalResourceId"]: event for event in self.all if not _is_stack(event)}
        return sorted(name for name, event in last.items() if event["ResourceStatus"].endswith("_IN_PROGRESS"))


def _is_stack(event: dict[str, Any]) -> bool:
    return event.get("ResourceType") == STACK and event.get("PhysicalResourceId") == event.get("StackId")


def tell(name: str, event: dict[str, Any], *, importing: bool = False) -> None:
    """Show an event while it is new: what has ended, and what failed with the reason."""
    status = event["ResourceStatus"]
    if importing and status == "UPDATE_COMPLETE":
        return  # the stack's tags, which each imported resource gets afterwards
    if status.endswith("_IN_PROGRESS") and not _is_stack(event):
        return  # what is in work stands in the line of the wait
    what = "" if _is_stack(event) else f" {event['LogicalResourceId']} ({event['ResourceType']})"
    reason = event.get("ResourceStatusReason") or ""
    telling = status.endswith("_FAILED") or (_is_stack(event) and not _CONSEQUENCE.search(reason))
    why = f": {plain(reason)}" if reason and telling else ""
    progress(f"stack {name}:{what} {status}{why}")


# --- waiting ---------------------------------------------------------------------------------------------------------


class Deadline:
    """One time limit for all that a module waits for. clock: has monotonic() and sleep()."""

    def __init__(self, seconds: float, clock: Any = time):
        self.seconds, self.clock = seconds, clock
        self._end = clock.monotonic() + seconds

    def left(self) -> float:
        return max(0.0, self._end - self.clock.monotonic())

    def wait(self, probe: Any, what: Any, *, interval: float = INTERVAL, hint: str = "") -> Any:
        """wait_until with what is left. The sentence of a wait that took too long names the whole limit."""
        left = self.left()
        try:
            return wait_until(probe, timeout=left, interval=interval, describe=what, clock=self.clock, hint=hint)
        except MigrationError as error:
            if error.code in EXPIRED:
                raise MigrationError(
                    f"{error.message}; {_GOES_ON}", code=error.code, request_id=error.request_id
                ) from None
            error.message = error.message.replace(
                f"not finished after {span(left)}", f"not finished after {span(self.seconds)}"
            )
            raise


def wait(
    client: Any, stack: dict[str, Any], events: Events, deadline: Deadline, *, started: bool = False
) -> dict[str, Any] | None:
    """Wait until the operation on a stack has ended, showing its events; the stack then, None when it was deleted.

    started: it was asked for just now: the status of before is not taken for its end, which its events tell too.
    """
    name, identity = stack["StackName"], stack["StackId"]
    seen: dict[str, Any] = {"status": stack["StackStatus"], "begun": not started}
    start = deadline.clock.monotonic()

    def probe() -> dict[str, Any] | None:
        try:
            now = client.describe_stacks(StackName=identity)["Stacks"][0]
            for event in events.news():
                tell(
                    name, event, importing=bool(events.all and events.all[0]["ResourceStatus"] == "IMPORT_IN_PROGRESS")
                )
        except Exception as exception:
            if not is_aws_error(exception):
                raise
            if is_throttle(exception) or is_transient(exception):
                return None  # botocore has repeated it already; the operation goes on meanwhile
            if says_missing(exception):
                return {}
            raise aws_error(exception, f"read stack {name}") from exception
        seen["status"] = now["StackStatus"]
        seen["begun"] |= busy(now) or now["StackStatus"] != stack["StackStatus"]
        if busy(now):
            return None
        of_the_stack = [event["ResourceStatus"] for event in events.all if _is_stack(event)]
        ended = seen["begun"] or of_the_stack[-1:] == [seen["status"]]
        return now if ended or deadline.clock.monotonic() - start >= NOTICE else None

    def what() -> str:
        work = events.in_work()
        listed = ", ".join(work[:3]) + (f" and {len(work) - 3} more" if len(work) > 3 else "")
        return f"stack {name}: {seen['status']}" + (f", {listed}" if listed else "")

    ended = deadline.wait(
        probe, what, hint=f"{_GOES_ON}; give it a larger wait_timeout, which counts all waits of the task"
    )
    return None if not ended or ended["StackStatus"] == "DELETE_COMPLETE" else ended


# --- failures --------------------------------------------------------------------------------------------------------

# reasons that only say that something else has failed
_CONSEQUENCE = re.compile(
    r"cancelled|^The following resource\(s\)|^User Initiated$|^$|^Rollback (requested|complete)", re.IGNORECASE
)
_HANDLER = re.compile(
    r'Resource handler returned message: "(?P<message>.*)"'
    r" \((RequestToken: [^,)]+, )?HandlerErrorCode: (?P<code>\w+)\)",
    re.DOTALL,
)


def plain(reason: str) -> str:
    """CloudFormation's reason without what nobody can use (tokens, proxies)."""
    reason = _HANDLER.sub(lambda found: f"{found['message'].rstrip('.')} ({found['code']})", reason)
    reason = re.sub(r"; Proxy: null|\.? Rollback requested by user\.?", "", reason)
    return " ".join(reason.split()).rstrip(".")


def root_cause(client: Any, events: list[dict[str, Any]], depth: int = 3) -> dict[str, Any] | None:
    """The event that made the operation fail: the first failure that is no consequence of another one.

    Inside a nested stack it is that stack's own first failure. events: of one operation, oldest first.
    """
    failed = [event for event in events if event["ResourceStatus"].endswith("_FAILED") and not _is_stack(event)]
    own = [event for event in failed if not _CONSEQUENCE.search(event.get("ResourceStatusReason") or "")]
    for event in own:
        nested = event.get("PhysicalResourceId") or ""
        if event.get("ResourceType") == STACK and nested.startswith("arn:") and depth:
            inside = Events(client, nested)
            try:
                inside.rewind()
            except Exception as exception:
                if not is_aws_error(exception):
                    raise
                return event
            return root_cause(client, inside.all, depth - 1) or event
        return event
    of_the_stack = [event for event in events if _is_stack(event) and not _CONSEQUENCE.search(_reason(event))]
    return of_the_stack[0] if of_the_stack else None


def validated(client: Any, reason: str, **where: str) -> str:
    """What CloudFormation's own check before the deployment found, where `reason` only names the call that says it.

    where: StackName or ChangeSetName, by its ARN. Empty where it cannot be had: the call is younger than the oldest
    botocore that this runs with, and older policies do not allow it.
    """
    if "DescribeEvents" not in reason or not hasattr(client, "describe_events"):
        return ""
    try:
        events = client.describe_events(Filters={"FailedEvents": True}, **where).get("OperationEvents") or []
    except Exception as exception:
        if not is_aws_error(exception):
            raise
        return ""
    found: list[str] = []
    for event in events:
        why = event.get("ValidationStatusReason") or event.get("HookStatusReason") or event.get("ResourceStatusReason")
        if not why or event.get("OperationId") != events[0].get("OperationId") or _CONSEQUENCE.search(why):
            continue
        place = f" {event['ValidationPath']}" if event.get("ValidationPath") else ""
        what = f"{event['LogicalResourceId']} ({event.get('ResourceType', '')}){place}: "
        found.append((what if event.get("LogicalResourceId") else "") + plain(why))
    return "; ".join(dict.fromkeys(found))


def _reason(event: dict[str, Any]) -> str:
    return event.get("ResourceStatusReason") or ""


_HINTS = (
    (
        "TerminationProtection is enabled",
        "take the protection off (aws cloudformation update-termination-protection --no-enable-termination-protection)"
        " if it may go",
    ),
    (
        "denied by stack policy",
        "the stack's own policy forbids it: change that policy (aws cloudformation set-stack-policy), or leave the"
        " resource as it is",
    ),
    (
        "already exists",
        "import it into the stack (type: import), or give it another name",
    ),
    ("is not authorized to perform", "allow the action in the IAM policy of who deploys (or of role_arn)"),
    ("as it is in use by", "an export stays what it is while a stack imports it: change that stack first"),
    (
        "Maximum policy size",
        "a role's inline policies have 10,240 characters together: put others of its policies into managed ones",
    ),
)


def advice(reason: str) -> str:
    """What to do about a reason that is known; nothing about others."""
    return next((what for words, what in _HINTS if words in reason), "")


def failure(client: Any, name: str, stack: dict[str, Any] | None, events: Events) -> MigrationError:
    """Why an operation failed and what to do: the first cause, the state that it left, the next step."""
    cause = root_cause(client, events.all)
    status = stack["StackStatus"] if stack else "deleted"
    found = validated(client, _reason(cause), StackName=events.stack_id) if cause else ""
    if found:
        reason, said = found, f"stack {name} failed: {found}"
    elif cause is None:
        reason = plain((stack or {}).get("StackStatusReason") or "CloudFormation gives no reason")
        said = f"stack {name} failed: {reason}"
    else:
        reason = plain(_reason(cause))
        where = "" if _is_stack(cause) else f": {cause['LogicalResourceId']} ({cause['ResourceType']})"
        said = f"stack {name}{where} failed: {reason}"
    hint = advice(reason) or "mend the cause and run again"
    if status in _AFTER_FAILURE:
        said += f"; {_AFTER_FAILURE[status]} ({status}): {hint}"
    else:
        way_out = stuck(client, stack) if stack else None
        said += f"; {hint}" + (f"; {way_out}" if way_out else f" ({status})")
    return MigrationError(said, stack=brief(stack) if stack else {"name": name, "status": status})


_AFTER_FAILURE = {
    "ROLLBACK_COMPLETE": "what had been created was removed, and the next run removes the empty stack",
    "UPDATE_ROLLBACK_COMPLETE": "the stack was rolled back and is as it was",
    "IMPORT_ROLLBACK_COMPLETE": "nothing was imported and the resources are as they were",
    REVIEW: "nothing was created",
}
SUCCESS = {"CREATE_COMPLETE", "UPDATE_COMPLETE", "IMPORT_COMPLETE"}
_COMMAND = "aws cloudformation {action} --stack-name {name}"
_STUCK = {
    "CREATE_FAILED": ("rollback-stack", "it was created without rollback: roll it back"),
    "UPDATE_FAILED": ("rollback-stack", "it was updated without rollback: roll it back"),
    "ROLLBACK_FAILED": ("delete-stack", "the rollback of its creation failed: mend what {held} says, then delete it"),
    "DELETE_FAILED": (
        "delete-stack",
        "its deletion failed: mend what {held} says, then delete it again (--retain-resources keeps what cannot be"
        " deleted)",
    ),
    "UPDATE_ROLLBACK_FAILED": (
        "continue-update-rollback",
        "its rollback failed: mend what {held} says, then let the rollback go on (--resources-to-skip gives up on"
        " resources), which only you can decide",
    ),
    "IMPORT_ROLLBACK_FAILED": (
        "continue-update-rollback",
        "the rollback of an import failed: mend what {held} says, then let the rollback go on, which only you can"
        " decide",
    ),
}


def stuck(client: Any, stack: dict[str, Any]) -> str | None:
    """The way out of a state in which CloudFormation takes no change set; None where it takes one."""
    status, name = stack["StackStatus"], stack["StackName"]
    if status not in _STUCK:
        return None
    action, what = _STUCK[status]
    failed = [one for one in resources(client, name) if one["ResourceStatus"].endswith("_FAILED")]
    held = (
        ", ".join(
            f"{one['LogicalResourceId']} ({plain(one.get('ResourceStatusReason') or one['ResourceStatus'])})"
            for one in failed[:5]
        )
        or "its events"
    )
    return (
        f"stack {name} is {status}, {what.format(held=held)}: {_COMMAND.format(action=action, name=name)}; then run"
        " again"
    )
