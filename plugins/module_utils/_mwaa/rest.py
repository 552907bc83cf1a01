# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Airflow's REST API through MWAA's InvokeRestApi. All REST calls of this collection are made here.

PRIVATE to the collection: no promise is made to other collections.

MWAA adds the API's version: paths are '/variables', not '/api/v1/variables'. Only Airflow's core API is reachable.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

from ansible_collections.mwaa.migration.plugins.module_utils._errors import (
    DENIED,
    MigrationError,
    error_code,
    explain,
    is_aws_error,
    is_throttle,
    is_transient,
    never_sent,
    request_id,
)
from ansible_collections.mwaa.migration.plugins.module_utils._mwaa import limits
from ansible_collections.mwaa.migration.plugins.module_utils._progress import Pacer

BUDGET = 120.0  # seconds that one call may spend on being repeated
LONGEST_PAUSE = 20.0
# what a body names rather than holds: not masked in Airflow's messages
_NAMES = {"connection_id", "conn_id", "conn_type", "key", "name", "dag_id", "dag_run_id", "run_id", "task_id", "action"}


class Reply(NamedTuple):
    """What Airflow answered: HTTP status and the JSON body (None when empty)."""

    status: int
    body: Any


class RestError(MigrationError):
    """A REST call that did not succeed.

    status: Airflow's HTTP status; None when the call never got an answer of Airflow's (denied, throttled, broken
    connection).
    detail: Airflow's explanation, without anything of the body that was sent.
    maybe_done: the call may have taken effect although it failed, and was therefore not repeated.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int | None = None,
        detail: str = "",
        maybe_done: bool = False,
        code: str | None = None,
        request_id: str | None = None,
    ):
        super().__init__(message, code=code, request_id=request_id)
        self.status = status
        self.detail = detail
        self.maybe_done = maybe_done


class RestClient:
    """Calls of one environment, paced below MWAA's limit. Thread-safe: threads share the pace.

    client: boto3 'mwaa' client of _aws.Aws (which repeats nothing by itself here). environment: its name.
    budget: seconds one call may be repeated for. clock: has monotonic() and sleep(); tests bring their own.
    """

    def __init__(self, client: Any, environment: str, *, clock: Any = time, budget: float = BUDGET):
        self.client = client
        self.environment = environment
        self._clock = clock
        self._budget = budget
        self._pace = Pacer(limits.REST_PACE, clock)

    def call(
        self,
        method: str,
        path: str,
        query: dict[str, Any] | None = None,
        body: Any = None,
        ok: tuple[int, ...] = (),
        budget: float | None = None,
        once: bool = False,
        reads: bool = False,
    ) -> Reply:
        """One call. ok: HTTP statuses beyond 2xx that are an answer and not a failure, such as (404,).

        budget: another one. once: the call must not take effect twice; every POST is such a call, but one that only
        reads, with its filters in the body.

        Throttled calls and those that surely were not sent are repeated, with growing random pauses, inside the budget.
        5xx and broken connections are repeated too, but not for POST and `once`: it may have taken effect
        (RestError.maybe_done). Raises RestError.
        """
        method = method.upper()
        where = check(method, path, self.environment)
        request: dict[str, Any] = {"Name": self.environment, "Method": method, "Path": path}
        if query:
            request["QueryParameters"] = query
        if body is not None:
            request["Body"] = body
        deadline = self._clock.monotonic() + (self._budget if budget is None else budget)
        attempt = 0
        while True:
            self._pace.wait()
            try:
                answer = self.client.invoke_rest_api(**request)
                return Reply(int(answer.get("RestApiStatusCode", 200)), answer.get("RestApiResponse"))
            except Exception as exception:
                if not is_aws_error(exception):
                    raise
                failure, repeat = self._judge(exception, where, once or (method == "POST" and not reads), body)
                if failure.status is not None and failure.status in ok:
                    return Reply(failure.status, _airflow_body(exception))
                pause = random.uniform(0.1, min(LONGEST_PAUSE, 0.5 * 2**attempt))  # noqa: S311
                if not repeat or self._clock.monotonic() + pause > deadline:
                    raise failure from None  # the cause repeats what was sent
            attempt += 1
            self._clock.sleep(pause)

    def pages(
        self,
        path: str,
        key: str | None = None,
        query: dict[str, Any] | None = None,
        budget: float | None = None,
    ) -> Iterator[list[Any]]:
        """All pages of a collection: yields the list of rows of each page.

        key: the name of the list in the answer ('variables', 'connections', 'dags', …); None: the only list there is.
        budget: as in call().
        """
        offset = 0
        while True:
            wanted = {**(query or {}), "limit": limits.REST_PAGE, "offset": offset}
            body = self.call("GET", path, wanted, budget=budget).body
            rows = _rows(body, key, path)
            if rows or offset == 0:
                yield rows
            offset += len(rows)
            # an environment may allow less than 100 rows a page (api.maximum_page_limit): only the total tells the end
            if not rows or offset >= int(body.get("total_entries", 0)):
                return

    def _judge(self, exception: BaseException, where: str, once: bool, body: Any) -> tuple[RestError, bool]:
        code = error_code(exception)
        identity = {"code": code, "request_id": request_id(exception)}
        if code in ("RestApiClientException", "RestApiServerException"):
            status = int(exception.response.get("RestApiStatusCode") or 0) or None  # type: ignore[attr-defined]
            detail = _detail(_airflow_body(exception), body)
            message = f"{where}: Airflow answered {status}{': ' + detail if detail else ''}"
            if code == "RestApiClientException" and status != 429:
                return RestError(message, status=status, detail=detail, **identity), False
            server_side = status != 429
            if server_side and once:
                message += "; it may have taken effect, so it was not repeated: look, then run again"
                return RestError(message, status=status, detail=detail, maybe_done=True, **identity), False
            return RestError(message, status=status, detail=detail, **identity), True
        message = _masked(explain(exception, f"call {where}"), body)
        if code in DENIED:
            message += (
                "; airflow:InvokeRestApi is allowed on role ARNs"
                " (arn:aws:airflow:REGION:ACCOUNT:role/ENVIRONMENT/Admin), not on the"
                " environment's, and a PRIVATE_ONLY web server answers only inside its VPC"
            )
        if is_throttle(exception) or never_sent(exception):
            return RestError(message, **identity), True
        if is_transient(exception):
            if once:
                message += "; it may have taken effect, so it was not repeated: look, then run again"
                return RestError(message, maybe_done=True, **identity), False
            return RestError(message, **identity), True
        return RestError(message, **identity), False


def check(method: str, path: str, environment: str) -> str:
    """Refuse what MWAA would refuse, or misunderstand. Returns how the call is named in messages."""
    where = f"{method} {path} of environment {environment}"
    if method not in limits.REST_METHODS:
        raise RestError(f"{where}: the method must be one of {', '.join(limits.REST_METHODS)}")
    if not path.startswith("/"):
        raise RestError(f"{where}: the path must start with /, for example /dags")
    if path.startswith(("/api/v1", "/api/v2")):
        raise RestError(f"{where}: leave /api/v1 or /api/v2 out, MWAA adds it")
    if "?" in path:
        raise RestError(f"{method} {path.split('?')[0]}: give what follows the ? as query")
    if len(path) > limits.REST_PATH_MAX:
        raise RestError(
            f"{where}: the path has {len(path)} characters, MWAA takes {limits.REST_PATH_MAX};"
            " ask the collection with query parameters instead, or use mwaa_cli_exec"
        )
    return where


def _airflow_body(exception: BaseException) -> Any:
    return exception.response.get("RestApiResponse")  # type: ignore[attr-defined]


def _rows(body: Any, key: str | None, path: str) -> list[Any]:
    if not isinstance(body, dict):
        raise RestError(f"GET {path} did not answer with pages: it is not a collection")
    if key is None:
        lists = [name for name, value in body.items() if isinstance(value, list)]
        if len(lists) != 1:
            raise RestError(f"GET {path} did not answer with one list of rows: it is not a collection")
        key = lists[0]
    return body.get(key) or []


def _detail(body: Any, sent: Any) -> str:
    """Airflow's explanation, short: 2.x {title, detail}; 3.x {detail: text | {reason, …} | [{loc, msg, input}]}.

    What was sent is masked in it, before anything is cut or joined: half a secret would not be found.
    """
    if not isinstance(body, dict):
        return _masked(str(body), sent)[:500] if body else ""
    detail = body.get("detail") or body.get("title") or body.get("message") or ""
    if isinstance(detail, dict):
        # not `statement` and `orig_error`: they hold SQL with values
        detail = detail.get("reason") or detail.get("message") or ""
    if isinstance(detail, list):
        # not `input` and `ctx`: they repeat what was sent
        detail = "; ".join(
            f"{'.'.join(str(part) for part in item.get('loc', ()))}: {item.get('msg', '')}"
            for item in detail
            if isinstance(item, dict)
        )
    return " ".join(_masked(str(detail), sent).split())[:500]


def _masked(text: str, body: Any) -> str:
    for value in sorted(set(_texts(body)), key=len, reverse=True):
        for form in (value, repr(value)[1:-1], json.dumps(value)[1:-1]):
            text = text.replace(form, "***")
    return text


def _texts(node: Any, key: str = "") -> Iterator[str]:
    if isinstance(node, dict):
        for name, value in node.items():
            yield from _texts(value, name)
    elif isinstance(node, (list, tuple)):
        for value in node:
            yield from _texts(value, key)
    elif isinstance(node, str) and len(node) >= 4 and key not in _NAMES:
        yield node
