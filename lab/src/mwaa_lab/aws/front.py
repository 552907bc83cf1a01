# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The front door: one ASGI application before ministack.

Every request passes here. It is named (service, operation, who, which names), met by faults and by the rules that
ministack lacks, answered by the MWAA control plane or handed to ministack, and written into the journal.
"""

from __future__ import annotations

import asyncio
import contextvars
import dataclasses
import json
import logging
import re
import time
import uuid
from collections.abc import Awaitable, Callable, MutableMapping
from concurrent.futures import Executor
from typing import Any
from urllib.parse import parse_qs
from xml.sax.saxutils import escape

from mwaa_lab.aws import hooks, iam, model, permissions, rules
from mwaa_lab.aws.faults import Faults, Rule
from mwaa_lab.aws.journal import Call, Journal, names, operation_of
from mwaa_lab.aws.model import ApiError
from mwaa_lab.aws.mwaa import ControlPlane, Environment
from mwaa_lab.aws.rates import Rates
from mwaa_lab.engine import ROLE_KEY_PREFIX, SERVICE_KEY_PREFIX

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]

log = logging.getLogger("mwaa_lab.front")

CONNECTION: contextvars.ContextVar[Any] = contextvars.ContextVar("lab_connection")
"""The transport of the connection that the current request came in on (``server.py`` sets it), to drop it on order."""

_CREDENTIAL = re.compile(r"Credential=([^,/]+)/\d{8}/([^/]+)/([^/]+)/aws4_request")
_ERROR_CODE = re.compile(rb"<Code>([^<]+)</Code>")
_STREAMED = ("PutObject", "UploadPart")
_SERVICE_NAMES = {"airflow": "mwaa"}


class Gone(Exception):
    """The connection was dropped on order; there is nobody to answer."""


class Identity:
    """Who signed a request: access key, region, signing name, and what the lab makes of the key."""

    def __init__(self, headers: dict[str, str], query: dict[str, list[str]]) -> None:
        found = _CREDENTIAL.search(headers.get("authorization", ""))
        if not found and "X-Amz-Credential" in query:
            found = _CREDENTIAL.search("Credential=" + query["X-Amz-Credential"][0])
        # An older kind of presigned S3 URL names its key alone.
        older = query.get("AWSAccessKeyId", [""])[0]
        self.key, self.region, self.signing_name = found.groups() if found else (older, "", "s3")
        self.caller = "user"
        self.account_key = self.key
        self.role = ""
        if self.key.startswith(SERVICE_KEY_PREFIX):
            # MWAA itself; with a role's name, what it does in an environment's execution role.
            self.caller = "service"
            self.account_key, _, self.role = self.key[len(SERVICE_KEY_PREFIX) :].partition("-")
            self.principal = _assumed(self.account_key, self.role) if self.role else "airflow.amazonaws.com"
        elif self.key.startswith(ROLE_KEY_PREFIX):
            self.caller = "environment"
            self.account_key, _, self.role = self.key[len(ROLE_KEY_PREFIX) :].partition("-")
            self.principal = _assumed(self.account_key, self.role)
        else:
            self.principal = hooks.principal(self.key) if self.key else "anonymous"

    def rewrite(self, headers: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
        """The headers with the lab's own kinds of key replaced by the account's, which ministack understands."""
        if self.key == self.account_key:
            return headers
        old, new = f"Credential={self.key}/".encode(), f"Credential={self.account_key}/".encode()
        return [(key, value.replace(old, new) if key.lower() == b"authorization" else value) for key, value in headers]


def _assumed(account: str, role: str) -> str:
    return f"arn:aws:sts::{account}:assumed-role/{role}/AmazonMWAA-airflow"


class Front:
    """The ASGI application that ``server.py`` serves over HTTP."""

    def __init__(
        self,
        ministack: App,
        control: ControlPlane,
        journal: Journal,
        faults: Faults,
        pool: Executor,
        rates: Rates,
        authority: iam.Authority,
        inside: bool = False,
    ) -> None:
        self._inside = inside
        self._ministack = ministack
        self._control = control
        self._journal = journal
        self._faults = faults
        self._pool = pool
        self._rates = rates
        self._authority = authority

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan" and self._inside:
            await lifespan(receive, send)  # ministack starts once, with the listener outside
        elif scope["type"] != "http":
            await self._ministack(scope, receive, send)
        elif scope["path"].startswith("/_lab/"):
            await self._admin(scope, receive, send)
        elif scope["path"].startswith("/_ministack/") or scope["method"] == "OPTIONS":
            await self._ministack(scope, receive, send)
        else:
            await self._serve(scope, receive, send)

    async def _serve(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        started, clock = time.time(), time.monotonic()
        headers = {key.decode("latin-1").lower(): value.decode("latin-1") for key, value in scope["headers"]}
        query = parse_qs(scope.get("query_string", b"").decode("latin-1"), keep_blank_values=True)
        raw_path = (scope.get("raw_path") or scope["path"].encode()).partition(b"?")[0].decode("latin-1")
        who = Identity(headers, query)
        scope["headers"] = who.rewrite(list(scope["headers"]))
        # Objects are passed through as they come; everything else is small and read first, for its names.
        operation, labels = operation_of(who.signing_name, scope["method"], raw_path, query, headers, b"")
        body = b""
        if not (who.signing_name == "s3" and operation in _STREAMED):
            body = await read(receive)
            receive = _replay(body)
            operation, labels = operation_of(who.signing_name, scope["method"], raw_path, query, headers, body)
        call = Call(
            service=_SERVICE_NAMES.get(who.signing_name, who.signing_name),
            operation=operation,
            principal=who.principal,
            caller=who.caller,
            region=who.region,
            inside=self._inside,
        )
        call.keys = names(operation, call.service, labels, headers, body)
        call.classify()
        account = hooks.stand(who.account_key, who.region or "us-east-1")
        request = permissions.Request(
            who.signing_name,
            operation,
            scope["method"],
            scope["path"],
            headers,
            query,
            body,
            account,
            who.region or "us-east-1",
        )
        caller = iam.Caller(
            who.key, account, request.region, who.role, unbound=who.caller == "service" and not who.role
        )
        call.needs = _needs(request)

        def note(answer: Answer) -> None:
            seconds = time.monotonic() - clock
            self._journal.write(call, time=started, seconds=seconds, status=answer.status, error=answer.error_code())

        answer = Answer(send, note, scope["method"])
        try:
            await self._answer(call, who, caller, request, labels, scope, receive, answer)
        except Gone:
            answer.error = answer.error or "(connection dropped)"
        except Exception as error:  # the lab goes on whatever one request brings
            log.error("%s %s failed: %s", call.service, call.operation, type(error).__name__, exc_info=error)
            if not answer.status:
                await respond_error(
                    answer.send, call, headers, ApiError(500, "InternalServerException", "The lab failed; see its log.")
                )
        finally:
            answer.finish()

    async def _answer(
        self,
        call: Call,
        who: Identity,
        caller: iam.Caller,
        request: permissions.Request,
        labels: dict[str, str],
        scope: MutableMapping[str, Any],
        receive: Receive,
        answer: Answer,
    ) -> None:
        headers = request.headers
        rule = self._faults.take(call)
        fault = (
            self._expired(call, who, headers)
            or self._unauthorized(call, caller, headers)
            or rules.refuse(call, headers, request.body)
        )
        if fault is None and call.caller == "user":
            fault = self._rates.refuse(call, who.account_key)
        if call.operation in _STREAMED and (
            fault is not None or (rule is not None and rule.answers and not rule.after)
        ):
            # Whoever is still sending must be able to finish, or it would see a broken pipe instead of the answer.
            await read(receive)
        if rule is not None:
            if rule.hold:
                self._control.hold(**rule.hold)
            await before(rule)
            if rule.answers and not rule.after:
                await respond_error(answer.send, call, headers, ordered(rule, call, headers))
                return
            answer.swallow = rule.after and (rule.reset or rule.answers)
            answer.truncate = rule.truncate
        if fault is not None:
            await respond_error(answer.send, call, headers, fault)
        elif call.service == "mwaa":
            await self._mwaa(call, who, caller, request, labels, answer)
        else:
            if call.service == "cloudformation":
                iam.ACTING.set(_actor(call, caller, request))
            await self._ministack(scope, receive, answer.send)
        if rule is not None and rule.after and rule.answers:
            answer.swallow = False
            await respond_error(answer.send, call, headers, ordered(rule, call, headers))
        elif answer.swallow:
            drop()
        elif answer.truncate:
            drop(sent=True)

    @staticmethod
    def _expired(call: Call, who: Identity, headers: dict[str, str]) -> ApiError | None:
        return expired(call, headers) if hooks.expired(who.key) else None

    def _unauthorized(self, call: Call, caller: iam.Caller, headers: dict[str, str]) -> ApiError | None:
        if self._authority.enforced and not caller.key:
            code = "AccessDenied" if call.service == "s3" else "MissingAuthenticationToken"
            return ApiError(403, code, "Missing Authentication Token" if code[0] == "M" else "Access Denied")
        try:
            self._authority.demand(caller, call.needs)
        except iam.Denied as denied:
            return iam.refusal(call, headers, denied)
        except ApiError as nobody:
            return iam.unknown(call, headers, nobody)
        return None

    async def _mwaa(
        self,
        call: Call,
        who: Identity,
        caller: iam.Caller,
        request: permissions.Request,
        labels: dict[str, str],
        answer: Answer,
    ) -> None:
        service = model.service_model("airflow")
        if service is None or call.operation not in service.operation_names:
            await respond_error(answer.send, call, request.headers, ApiError(404, "UnknownOperationException", ""))
            return

        def permitted(action: str, resource: str) -> bool | None:
            need = permissions.Need(action, resource)
            may = self._authority.permitted(caller, need)
            if may is not False or not call.needs:
                call.needs = [need]
            return may

        def work() -> dict[str, Any]:
            values = model.parse_input(service.operation_model(call.operation), labels, request.query, request.body)
            more = []
            if call.operation == "CreateEnvironment":
                more = permissions.dry_run(values, request.account, request.region)
            elif call.operation == "UpdateEnvironment":
                more = permissions.update(values)
            call.needs = [*call.needs, *more]
            self._authority.demand(caller, more)
            return self._control.handle(
                call.operation, values, request.account, request.region, who.principal, self._inside, permitted
            )

        try:
            here = contextvars.copy_context()  # whose account it is, for what is looked up
            result = await asyncio.get_running_loop().run_in_executor(self._pool, here.run, work)
        except iam.Denied as denied:
            await respond_error(answer.send, call, request.headers, iam.refusal(call, request.headers, denied))
        except ApiError as error:
            await respond_error(answer.send, call, request.headers, error)
        else:
            await respond(answer.send, 200, json.dumps(result).encode(), "application/json")

    # --- /_lab/ ------------------------------------------------------------------------------------------------------

    async def _admin(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        body = await read(receive)
        what = (scope["method"], scope["path"])
        try:
            given = json.loads(body) if body.strip() else None
            result = await asyncio.get_running_loop().run_in_executor(self._pool, self._administer, what, given)
        except KeyError:
            await respond(send, 404, json.dumps({"error": f"no such thing: {' '.join(what)}"}).encode())
        except (ValueError, TypeError) as wrong:
            await respond(send, 400, json.dumps({"error": str(wrong)}).encode())
        else:
            await respond(send, 200, json.dumps(result).encode())

    def _administer(self, what: tuple[str, str], given: Any) -> Any:
        if what == ("GET", "/_lab/health"):
            return {"status": "ok", "environments": len(self._control.all())}
        if what == ("GET", "/_lab/environments"):
            return [_described(self._control, environment) for environment in self._control.all()]
        if what == ("GET", "/_lab/faults"):
            return self._faults.show()
        if what == ("POST", "/_lab/faults"):
            return self._faults.replace(given if isinstance(given, list) else [given] if given else [])
        if what in (("GET", "/_lab/stub"), ("POST", "/_lab/stub")):
            return self._control.engine.configure(given or {})
        if what == ("POST", "/_lab/expire-tokens"):
            self._control.expire_tokens()
            return {}
        if what == ("POST", "/_lab/expire-sessions"):
            return {"expired": hooks.expire_sessions()}
        if what[0] == "POST" and (named := re.fullmatch(r"/_lab/environments/([^/]+)/hold", what[1])):
            return self._control.hold(environment=named[1], **(given or {}))
        if what in (("GET", "/_lab/iam"), ("POST", "/_lab/iam")):
            return self._authority.configure(given or {})
        if what == ("POST", "/_lab/as-of"):
            return self._control.stand_on((given or {}).get("day"))
        if what == ("POST", "/_lab/reset"):
            self._faults.replace([])
            self._control.stand_on(None)
            self._control.release()
            self._authority.reset()
            self._rates.forget()
            self._control.forget_throttling()
            try:
                return self._control.engine.configure({"reset": True})
            except ValueError:  # an engine with nothing to set
                return {}
        raise KeyError(what)


def _needs(request: permissions.Request) -> list[permissions.Need]:
    try:
        return permissions.of(request)
    except Exception as error:  # a request that nobody can read is refused by the service, not by us
        log.error("%s %s: %s", request.service, request.operation, type(error).__name__, exc_info=error)
        return [permissions.Need(f"{hooks.iam_namespace(request.service)}:{request.operation}")]


def _actor(call: Call, caller: iam.Caller, request: permissions.Request) -> iam.Actor:
    """Whom CloudFormation acts for: the role that the stack has or is given, else its caller."""
    role = request.value("RoleARN") or hooks.stack_role(request.value("StackName"))
    via = "cloudformation.amazonaws.com"
    if not role:
        return iam.Actor(dataclasses.replace(caller, called_via=via), call.principal)
    name, session = role.rpartition("/")[2], "AWSCloudFormation"
    arn = f"arn:aws:sts::{caller.account}:assumed-role/{name}/{session}"
    return iam.Actor(iam.Caller("", caller.account, caller.region, name, session), arn)


def _described(control: ControlPlane, environment: Environment) -> dict[str, Any]:
    spec = environment.spec()
    engine = control.engine.describe(spec)
    # Users put secrets into options; whoever only wants to know what runs does not need them.
    spec.pop("AirflowConfigurationOptions", None)
    return {**spec, "engine": engine}


class Answer:
    """Watches what is sent: the status and, for an error, its code. Can keep it all from the client.

    ``note`` is called once, before the end of the answer leaves: who has the answer finds the call in the journal.
    """

    def __init__(self, send: Send, note: Callable[[Answer], None], method: str) -> None:
        self._send = send
        self._note: Callable[[Answer], None] | None = note
        self._bodiless = method == "HEAD"
        self._left: int | None = None
        self.status = 0
        self.swallow = False
        self.truncate = False
        self.error: str | None = None
        self._body = b""

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            for key, value in message.get("headers", []):
                if key.lower() == b"x-amzn-errortype":
                    self.error = value.decode("latin-1").partition(":")[0]
                elif key.lower() == b"content-length":
                    self._left = int(value)
            if self._bodiless or self._left == 0 or self.status in (204, 304):
                self.finish()
        elif message["type"] == "http.response.body":
            if self.status >= 400 and len(self._body) < 8192:
                self._body += message.get("body", b"")[:8192]
            if self._left is not None:
                self._left -= len(message.get("body", b""))
            if not message.get("more_body") or self._left == 0:
                self.finish()
        if self.swallow:
            return
        if self.truncate and message["type"] == "http.response.body":
            body = message.get("body", b"")
            message = {**message, "body": body[: len(body) // 2], "more_body": True}
            self.swallow = True
        await self._send(message)

    def finish(self) -> None:
        if self._note is not None:
            note, self._note = self._note, None
            note(self)

    def error_code(self) -> str | None:
        if self.status < 400 or self.error:
            return self.error
        found = _ERROR_CODE.search(self._body)
        if found:
            return found.group(1).decode("latin-1")
        try:
            document = json.loads(self._body)
            return str(document.get("__type") or document.get("code") or self.status).rpartition("#")[2]
        except (ValueError, AttributeError):
            return str(self.status)


async def lifespan(receive: Receive, send: Send) -> None:
    """An application that has nothing to start and nothing to stop."""
    while True:
        message = await receive()
        await send({"type": message["type"] + ".complete"})
        if message["type"] == "lifespan.shutdown":
            return


async def before(rule: Rule) -> None:
    """What a fault does before anything else: wait, drop the connection."""
    if rule.latency_ms:
        await asyncio.sleep(rule.latency_ms / 1000)
    if rule.reset and not rule.after:
        drop()


def drop(*, sent: bool = False) -> None:
    """Cut the connection of the current request (the client sees a reset) and stop working on it.

    ``sent``: what was written so far still reaches the client.
    """
    transport = CONNECTION.get(None)
    if transport is not None:
        transport.close() if sent else transport.abort()
    raise Gone


def ordered(rule: Rule, call: Call, headers: dict[str, str]) -> ApiError:
    """The error that a rule asks for."""
    if rule.error == "ExpiredToken":
        error = expired(call, headers)
        return ApiError(error.status, error.code, rule.message or error.message)
    if rule.error in ("RestApiServerException", "RestApiClientException"):
        status = rule.airflow_status or (504 if rule.error == "RestApiServerException" else 404)
        answer = {"detail": rule.message or "Fault of the lab"}
        return ApiError(400, rule.error, "", RestApiStatusCode=status, RestApiResponse=answer)
    return ApiError(rule.http_status, rule.error or "InternalFailure", rule.message or "Fault of the lab")


def expired(call: Call, headers: dict[str, str]) -> ApiError:
    """What each kind of service says to credentials whose time is over."""
    if call.service == "s3":
        return ApiError(400, "ExpiredToken", "The provided token has expired.")
    if "x-www-form-urlencoded" in headers.get("content-type", ""):
        return ApiError(403, "ExpiredToken", "The security token included in the request is expired")
    status = 400 if "x-amz-target" in headers else 403
    return ApiError(status, "ExpiredTokenException", "The security token included in the request is expired")


async def read(receive: Receive) -> bytes:
    chunks = []
    while True:
        message = await receive()
        if message["type"] != "http.request":
            raise Gone
        chunks.append(message.get("body", b""))
        if not message.get("more_body"):
            return b"".join(chunks)


def _replay(body: bytes) -> Receive:
    given = False
    never = asyncio.Event()

    async def receive() -> Message:
        nonlocal given
        if given:
            await never.wait()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return receive


async def respond(
    send: Send,
    status: int,
    body: bytes,
    kind: str = "application/json",
    more: list[tuple[bytes, bytes]] | None = None,
) -> None:
    headers = [
        (b"content-type", kind.encode()),
        (b"content-length", str(len(body)).encode()),
        (b"x-amzn-requestid", str(uuid.uuid4()).encode()),
        *(more or []),
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def respond_error(send: Send, call: Call, headers: dict[str, str], error: ApiError) -> None:
    """An error in the shape that the service's clients understand."""
    code, message = escape(error.code), escape(error.message)
    if call.service == "s3":
        members = "".join(f"<{key}>{escape(str(value))}</{key}>" for key, value in error.members.items())
        text = f"<Error><Code>{code}</Code><Message>{message}</Message>{members}<RequestId>lab</RequestId></Error>"
        kind = "application/xml"
    elif call.service == "ec2":
        text = (
            f"<Response><Errors><Error><Code>{code}</Code><Message>{message}</Message></Error></Errors>"
            f"<RequestID>{uuid.uuid4()}</RequestID></Response>"
        )
        kind = "text/xml"
    elif "x-www-form-urlencoded" in headers.get("content-type", ""):
        side = "Sender" if error.status < 500 else "Receiver"
        text = (
            f"<ErrorResponse><Error><Type>{side}</Type><Code>{code}</Code><Message>{message}</Message></Error>"
            f"<RequestId>{uuid.uuid4()}</RequestId></ErrorResponse>"
        )
        kind = "text/xml"
    else:
        document = {"__type": error.code, **error.members}
        if error.message:
            document["message"] = error.message
        text, kind = json.dumps(document), "application/json"
    await respond(
        send, error.status, text.encode(), kind, [(b"x-amzn-errortype", error.code.encode("latin-1", "replace"))]
    )
