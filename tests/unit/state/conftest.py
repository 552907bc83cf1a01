# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Airflows without Airflow: the lab's stub behind InvokeRestApi, with the traits of the real ones that matter to us."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
from ansible_collections.mwaa.migration.plugins.module_utils._mwaa.rest import RestClient
from ansible_collections.mwaa.migration.plugins.module_utils._state.rest import Masking, RestLane
from botocore.exceptions import ClientError, ReadTimeoutError
from mwaa_lab.stub import V1, V2, Airflow, DagBag


class Clock:
    """Time that passes only when somebody sleeps."""

    def __init__(self) -> None:
        self.now, self._lock = 1000.0, threading.Lock()

    def time(self) -> float:
        return self.now

    monotonic = time

    def sleep(self, seconds: float) -> None:
        with self._lock:
            self.now += seconds


class Target:
    """One environment.

    calls: (method, path, body) of every call that arrived. fault(n, method, path): what happens to call n.
    """

    def __init__(self, version: str):
        self.version, self.airflow = version, Airflow()
        self.calls: list[tuple[str, str, Any]] = []
        self.fault: Callable[[int, str, str], str | None] = lambda *_call: None
        self._lock = threading.Lock()
        self.rest = RestClient(self, "demo", clock=Clock())

    def lane(self, kind: str, options: dict[str, str] | None = None) -> RestLane:
        version = tuple(map(int, self.version.split(".")))
        return RestLane(self.rest, kind, version, Masking(version[0], options))

    def invoke_rest_api(
        self, Name: str, Method: str, Path: str, QueryParameters: Any = None, Body: Any = None
    ) -> dict[str, Any]:
        with self._lock:
            self.calls.append((Method, Path, Body))
            fault = self.fault(len(self.calls), Method, Path)
            if fault == "throttled":
                raise ClientError(
                    {"Error": {"Code": "ThrottlingException"}, "ResponseMetadata": {"HTTPStatusCode": 429}},
                    "InvokeRestApi",
                )
            if fault == "lost":
                raise ReadTimeoutError(endpoint_url="https://env.airflow")
            api = (V2 if self.version.startswith("3") else V1)(self.airflow, self.version, lambda: DagBag({}, {}))
            passwords = {name: connection["password"] for name, connection in self.airflow.connections.items()}
            query = {key: value for key, value in (QueryParameters or {}).items() if value is not None}
            status, body = api.answer(Method, Path, query, Body)
            for name, connection in self.airflow.connections.items():
                # Connection.set_password of both majors: nothing takes a password away
                connection["password"] = connection["password"] or passwords.get(name)
            if fault == "answer lost":
                raise ReadTimeoutError(endpoint_url="https://env.airflow")
            if status >= 400:
                kind = "RestApiServerException" if status >= 500 else "RestApiClientException"
                raise ClientError(
                    {
                        "Error": {"Code": kind},
                        "RestApiStatusCode": status,
                        "RestApiResponse": body,
                        "ResponseMetadata": {"HTTPStatusCode": 400},
                    },
                    "InvokeRestApi",
                )
            return {"RestApiStatusCode": status, "RestApiResponse": body}

    def holds(self, kind: str) -> dict[str, dict[str, Any]]:
        """{id: {field: value}} of what is stored."""
        stored = getattr(self.airflow, kind)
        if kind == "variables":
            return {name: {"value": row["value"], "description": row["description"]} for name, row in stored.items()}
        return {
            name: {field: value for field, value in row.items() if field != "team_name"} for name, row in stored.items()
        }


@pytest.fixture(params=["2.11.2", "3.2.1"])
def target(request: pytest.FixtureRequest) -> Target:
    """The same test against both majors."""
    return Target(request.param)


@pytest.fixture
def make_target() -> type[Target]:
    return Target
