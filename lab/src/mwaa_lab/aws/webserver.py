# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The web server of all environments, over TLS: the CLI endpoint, the login, and Airflow's REST API for a session.

One address for all: the token or session says which environment is meant, as on MWAA it names one.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import MutableMapping
from concurrent.futures import Executor
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import parse_qs

from mwaa_lab.aws import limits
from mwaa_lab.aws.faults import Faults, Rule
from mwaa_lab.aws.front import Answer, Gone, Receive, Send, before, drop, lifespan, log, read, respond
from mwaa_lab.aws.journal import Call, Journal
from mwaa_lab.aws.mwaa import ControlPlane, Reply

_TRUNCATE = "x-lab-truncate"  # between the parts of this module alone


class WebServer:
    """The ASGI application that ``server.py`` serves over TLS."""

    def __init__(
        self, control: ControlPlane, journal: Journal, faults: Faults, pool: Executor, inside: bool = False
    ) -> None:
        self._inside = inside
        self._control = control
        self._journal = journal
        self._faults = faults
        self._pool = pool

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await lifespan(receive, send)
        if scope["type"] != "http":
            return
        started, clock = time.time(), time.monotonic()
        headers = {key.decode("latin-1").lower(): value.decode("latin-1") for key, value in scope["headers"]}
        call = Call(
            service="webserver", operation=f"{scope['method']} {scope['path']}", access="read", inside=self._inside
        )

        def note(answer: Answer) -> None:
            error = answer.error or (str(answer.status) if answer.status >= 400 else None)
            seconds = time.monotonic() - clock
            self._journal.write(call, time=started, seconds=seconds, status=answer.status, error=error)

        answer = Answer(send, note, scope["method"])
        try:
            body = await read(receive)
            status, document, more = await self._answer(scope, headers, body, call)
            answer.truncate = bool(more.pop(_TRUNCATE, ""))
            encoded = [(key.encode(), value.encode("latin-1")) for key, value in more.items()]
            await respond(answer.send, status, json.dumps(document).encode(), "application/json", encoded)
            if answer.truncate:
                drop(sent=True)
        except Gone:
            answer.error = "(connection dropped)"
        except Exception as error:  # the lab goes on whatever one request brings
            log.error("web server: %s failed: %s", call.operation, type(error).__name__, exc_info=error)
            if not answer.status:
                await respond(answer.send, 500, b'{"message": "Internal Server Error"}')
        finally:
            answer.finish()

    async def _answer(
        self, scope: MutableMapping[str, Any], headers: dict[str, str], body: bytes, call: Call
    ) -> tuple[int, Any, dict[str, str]]:
        try:
            path, method = scope["path"], scope["method"]
            if path.rstrip("/") == "/aws_mwaa/cli":
                return await self._cli(path, method, headers, body, call)
            if path in ("/aws_mwaa/login", "/pluginsv2/aws_mwaa/login"):
                return await self._login(path, method, body, call)
            for prefix in ("/api/v1", "/api/v2"):
                if path.startswith(prefix + "/"):
                    return await self._rest(scope, prefix, headers, body, call)
            return 404, {"detail": "Not Found", "status": 404, "title": "Not Found"}, {}
        except Reply as reply:
            return reply.status, reply.body, reply.headers

    async def _in_thread(self, work: Any, *arguments: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._pool, work, *arguments)

    async def _fault(self, call: Call) -> Rule | None:
        """Apply a fault; the rule when the rest of it is for when the call took effect (``_ended``)."""
        rule = self._faults.take(call)
        if rule is None:
            return None
        if rule.hold:
            self._control.hold(**rule.hold)
        await before(rule)
        if rule.answers and not rule.after:
            raise _ordered(rule)
        return rule

    @staticmethod
    def _ended(
        rule: Rule | None, status: int, document: Any, headers: dict[str, str]
    ) -> tuple[int, Any, dict[str, str]]:
        """The answer of a call that took effect, or what a fault makes of it."""
        if rule is None:
            return status, document, headers
        if rule.after and rule.reset:
            drop()
        if rule.after and rule.answers:
            raise _ordered(rule)
        return status, document, {**headers, _TRUNCATE: "1"} if rule.truncate else headers

    async def _cli(
        self, path: str, method: str, headers: dict[str, str], body: bytes, call: Call
    ) -> tuple[int, Any, dict[str, str]]:
        call.operation = "Cli"
        token = _bearer(headers)
        environment = self._control.peek(token)
        text = body.decode("utf-8", "replace")
        command = limits.cli_command(text.split())
        call.keys = {"environment": environment.name if environment else None, "command": command}
        call.access = "read" if limits.cli_reads(command) else "write"
        if method != "POST":
            return 405, {"message": "Method Not Allowed"}, {}
        rule = await self._fault(call)
        if path == "/aws_mwaa/cli" and environment is not None and environment.version.startswith("3."):
            # From Airflow 3 on the endpoint is a mounted application, which redirects to its own root.
            return 307, {}, {"location": "/aws_mwaa/cli/"}
        _, run = self._control.cli(token, text, self._inside)
        try:
            answer = await self._in_thread(run)
        except Exception as error:  # a web server that is being replaced
            return 503, {"message": f"Service Unavailable ({type(error).__name__})"}, {}
        return self._ended(rule, 200, answer, {})

    async def _login(self, path: str, method: str, body: bytes, call: Call) -> tuple[int, Any, dict[str, str]]:
        call.operation = "Login"
        if method != "POST":
            return 405, {"message": "Method Not Allowed"}, {}
        token = parse_qs(body.decode("latin-1")).get("token", [""])[0]
        environment = self._control.peek(token)
        call.keys = {"environment": environment.name if environment else None}
        rule = await self._fault(call)
        if environment is not None and environment.version.startswith("3.") != path.startswith("/pluginsv2/"):
            return 404, {"detail": "Not Found"}, {}
        _, session = self._control.login(token, self._inside)
        name = "_token" if path.startswith("/pluginsv2/") else "session"
        return self._ended(rule, 200, {}, {"set-cookie": f"{name}={session}; Path=/; Secure; HttpOnly; SameSite=Lax"})

    async def _rest(
        self, scope: MutableMapping[str, Any], prefix: str, headers: dict[str, str], body: bytes, call: Call
    ) -> tuple[int, Any, dict[str, str]]:
        method = scope["method"]
        path = scope["raw_path"].partition(b"?")[0].decode("latin-1")[len(prefix) :]
        call.operation = "Rest"
        call.access = "read" if method == "GET" or path.endswith("/list") else "write"
        call.keys = {"method": method, "path": path[:512]}
        credential = _bearer(headers) if prefix == "/api/v2" else _cookie(headers, "session")
        environment, role = self._control.session(credential, self._inside)
        call.keys["environment"] = environment.name
        if environment.version.startswith("3.") != (prefix == "/api/v2"):
            return 404, {"detail": "Not Found"}, {}
        if limits.version_tuple(environment.version) < limits.REST_SINCE:
            return 403, {"detail": None, "status": 403, "title": "Forbidden", "type": "about:blank"}, {}
        rule = await self._fault(call)
        query = {
            key: values if len(values) > 1 else values[0]
            for key, values in parse_qs(scope["query_string"].decode("latin-1"), keep_blank_values=True).items()
        }
        try:
            document = json.loads(body) if body.strip() else None
        except ValueError:
            return 400, {"detail": "The request body is not JSON."}, {}
        status, answer = await self._in_thread(self._control.rest, environment, method, path, query, document, role)
        return self._ended(rule, status, answer, {})


def _ordered(rule: Rule) -> Reply:
    return Reply(rule.http_status, {"message": rule.message or rule.error or "Fault of the lab"})


def _bearer(headers: dict[str, str]) -> str:
    kind, _, token = headers.get("authorization", "").partition(" ")
    return token.strip() if kind.lower() == "bearer" else ""


def _cookie(headers: dict[str, str], name: str) -> str:
    try:
        cookie = SimpleCookie(headers.get("cookie", ""))
    except CookieError:
        return ""
    return cookie[name].value if name in cookie else ""
