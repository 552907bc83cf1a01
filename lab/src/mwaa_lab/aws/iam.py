# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Callers held to their policies: users, assumed roles, execution roles, and CloudFormation in its caller's name.

Off unless asked for; what a call needs is written into the journal either way. The account's own key may do everything.
"""

from __future__ import annotations

import contextvars
import fnmatch
import json
import re
import time
import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from mwaa_lab.aws import hooks, permissions
from mwaa_lab.aws.journal import Call, Journal
from mwaa_lab.aws.model import ApiError
from mwaa_lab.aws.permissions import Need

_SESSION = "AmazonMWAA-airflow"
_INTO_ENVIRONMENTS = ("airflow:InvokeRestApi", "airflow:CreateWebLoginToken", "airflow:CreateCliToken")


@dataclass(frozen=True)
class Caller:
    """Who makes a call: by the access key, or the role that a service stands in."""

    key: str
    account: str
    region: str
    role: str = ""
    """Name of an execution role, or of CloudFormation's service role."""
    session: str = _SESSION
    unbound: bool = False
    """MWAA itself, whose rights are AWS's own matter."""
    called_via: str = ""

    def resolve(self) -> Any:
        """ministack's PrincipalInfo, or its AuthError; None: may do everything."""
        if self.unbound:
            return None
        found = hooks.role(self.account, self.role, self.session) if self.role else hooks.caller(self.key, self.account)
        return None if getattr(found, "policies", ()) is None else found


@dataclass(frozen=True)
class Actor:
    """Whom CloudFormation acts for."""

    caller: Caller
    arn: str


ACTING: contextvars.ContextVar[Actor | None] = contextvars.ContextVar("lab_acting", default=None)


class Denied(Exception):
    """``message`` as AWS words it."""

    def __init__(self, principal: str, need: Need, why: str) -> None:
        super().__init__(need.action)
        self.principal = principal
        self.need = need
        self.why = why

    def message(self, quote: str = "") -> str:
        what = f"{quote}{self.need.resource}{quote}"
        return f"User: {self.principal} is not authorized to perform: {self.need.action} on resource: {what} {self.why}"


class Authority:
    """Says whether a caller may, and whether that matters."""

    def __init__(self, journal: Journal, enforced: bool = False) -> None:
        self._journal = journal
        self._told = self.enforced = enforced

    def reset(self) -> None:
        self.enforced = self._told

    def configure(self, given: dict[str, Any]) -> dict[str, bool]:
        """``POST /_lab/iam``. :raises ValueError: it says something else than ``enforce``."""
        if set(given) - {"enforce"} or not isinstance(given.get("enforce", False), bool):
            raise ValueError('iam is told {"enforce": true} or false')
        self.enforced = given.get("enforce", self.enforced)
        return {"enforce": self.enforced}

    def demand(self, caller: Caller, needs: Iterable[Need]) -> None:
        """Nothing, if the caller may do all of it or nobody is held to anything. :raises Denied: :raises ApiError:"""
        if not self.enforced:
            return
        who = caller.resolve()
        if who is None:
            return
        if hasattr(who, "code"):
            raise ApiError(403, str(who.code), str(who.message))
        for need in needs:
            if denied := _denied(who, need, caller):
                raise denied

    def permitted(self, caller: Caller, need: Need) -> bool | None:
        """Whether the caller may call into an environment.

        None: whoever it is may do everything, or its policies say nothing of such calls and nobody is held to them.
        """
        who = caller.resolve()
        if who is None or hasattr(who, "code"):
            return None
        actions = [one for policy in who.policies for statement in policy for one in statement.actions]
        says = any(fnmatch.fnmatchcase(named.lower(), one.lower()) for one in actions for named in _INTO_ENVIRONMENTS)
        if not self.enforced and not says:
            return None
        return _denied(who, need, caller) is None

    # --- CloudFormation ----------------------------------------------------------------------------------------------

    def in_stack(
        self,
        kind: str,
        step: str,
        identifier: str,
        old: dict[str, Any],
        new: dict[str, Any],
        actor: Actor | None,
        stack: str = "",
    ) -> None:
        """One step of a stack operation. :raises ValueError: in CloudFormation's words, when it is not allowed."""
        if actor is not None:
            caller = actor.caller
            needs = permissions.of_resource(kind, step, identifier, old, new, caller.account, caller.region, stack)
            self._for_stack(actor, needs, f"{step.capitalize()} {kind}", identifier or str(new.get("Name") or ""), step)

    def _for_stack(self, actor: Actor, needs: list[Need], operation: str, name: str, step: str) -> None:
        if not needs:
            return
        call = Call("cloudformation", operation, actor.arn, "cloudformation", actor.caller.region, {"name": name})
        call.access = "read" if step == "read" else "write"
        call.needs = needs
        error = None
        try:
            self.demand(actor.caller, needs)
        except Denied as denied:
            error = "AccessDenied"
            words = f'Resource handler returned message: "{denied.message()}" '
            raise ValueError(f"{words}(RequestToken: {uuid.uuid4()}, HandlerErrorCode: AccessDenied)") from None
        finally:
            self._journal.write(call, time=time.time(), seconds=0.0, status=403 if error else 200, error=error)

    def guard_stacks(self) -> None:
        """Let every step of ministack's CloudFormation be taken in the name of whoever asked for it."""
        from ministack.services.cloudformation import provisioners, stacks

        handlers = provisioners._RESOURCE_HANDLERS
        for kind in permissions.KINDS:
            if kind in handlers:
                handlers[kind] = self._guarded(kind, handlers[kind])
        resolve = stacks._resolve_dynamic_references

        def resolved(value: Any, *rest: Any, **more: Any) -> Any:
            if (actor := ACTING.get()) is not None:
                self._for_stack(actor, _references(value, actor.caller), "Resolve references", "", "read")
            return resolve(value, *rest, **more)

        stacks._resolve_dynamic_references = resolved

    def _guarded(self, kind: str, handler: dict[str, Any]) -> dict[str, Any]:
        found = dict(handler)

        def create(logical_id: str, properties: dict[str, Any], stack: str) -> Any:
            self.in_stack(kind, "create", "", {}, properties, ACTING.get(), stack)
            return handler["create"](logical_id, properties, stack)

        def update(identifier: str, old: dict[str, Any], new: dict[str, Any], *rest: Any) -> Any:
            self.in_stack(kind, "update", identifier, old, new, ACTING.get())
            return handler["update"](identifier, old, new, *rest)

        def delete(identifier: str, properties: dict[str, Any], *rest: Any) -> Any:
            self.in_stack(kind, "delete", identifier, properties or {}, {}, ACTING.get())
            return handler["delete"](identifier, properties, *rest)

        def adopt(identifier: dict[str, str]) -> Any:
            named = identifier.get(permissions.KINDS[kind].owner) or next(iter(identifier.values()))
            self.in_stack(kind, "read", named, identifier, {}, ACTING.get())
            return handler["import"](identifier)

        for step, guard in (("create", create), ("update", update), ("delete", delete), ("import", adopt)):
            if step in handler:
                found[step] = guard
        return found


def _denied(who: Any, need: Need, caller: Caller) -> Denied | None:
    context = need.context
    if caller.called_via:
        context = {**context, "aws:calledvia": [caller.called_via], "aws:calledviafirst": caller.called_via}
    result = hooks.decide(who, need.action, need.resource, context, caller.region)
    if result.decision == "Allow":
        return None
    if result.decision == "Deny":
        kind = "resource" if result.resource_policy_arn else "identity"
        return Denied(who.arn, need, f"with an explicit deny in {'an' if kind[0] == 'i' else 'a'} {kind}-based policy")
    return Denied(who.arn, need, f"because no identity-based policy allows the {need.action} action")


def _references(value: Any, caller: Caller) -> list[Need]:
    """What it takes to resolve dynamic references."""
    found = []
    for service, name in re.findall(
        r"\{\{resolve:(secretsmanager|ssm|ssm-secure):([^}]+)\}\}", json.dumps(value, default=str)
    ):
        if service == "secretsmanager":
            arn = re.match(r"arn:aws:secretsmanager:[^:]*:[^:]*:secret:[^:]+", name)
            plain = arn[0] if arn else name.partition(":")[0]
            unknown = f"arn:aws:secretsmanager:{caller.region}:{caller.account}:secret:{plain}-??????"
            found.append(Need("secretsmanager:GetSecretValue", hooks.secret_arn(plain) or unknown))
        else:
            plain = name.partition(":")[0].lstrip("/")
            found.append(Need("ssm:GetParameters", f"arn:aws:ssm:{caller.region}:{caller.account}:parameter/{plain}"))
    return list(dict.fromkeys(found))


# --- refusals in the words of each service ---------------------------------------------------------------------------


def refusal(call: Call, headers: dict[str, str], denied: Denied) -> ApiError:
    if call.service == "s3":
        return ApiError(403, "AccessDenied", denied.message('"'))
    if call.service == "ec2":
        words = f"You are not authorized to perform this operation. {denied.message()}"
        return ApiError(403, "UnauthorizedOperation", words)
    if "x-www-form-urlencoded" in headers.get("content-type", ""):
        return ApiError(403, "AccessDenied", denied.message())
    return ApiError(400 if "x-amz-target" in headers else 403, "AccessDeniedException", denied.message())


def unknown(call: Call, headers: dict[str, str], error: ApiError) -> ApiError:
    """What each kind of service says to a key that is nobody's."""
    words = "The security token included in the request is invalid."
    if call.service == "s3":
        return ApiError(403, "InvalidAccessKeyId", "The AWS Access Key Id you provided does not exist in our records.")
    if call.service == "ec2":
        return ApiError(401, "AuthFailure", "AWS was not able to validate the provided access credentials")
    if "x-www-form-urlencoded" in headers.get("content-type", ""):
        return ApiError(403, "InvalidClientTokenId", words)
    return ApiError(400 if "x-amz-target" in headers else 403, "UnrecognizedClientException", words)
