# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Airflows without Airflow: the lab's stub behind InvokeRestApi, with the traits of the real ones that matter to us."""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import SimpleNamespace
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


class Secrets:
    """Secrets Manager as `aws.client("secretsmanager")`: names with texts, tags and whether they are to be deleted.

    lag: names that ListSecrets does not show yet.
    """

    def __init__(self) -> None:
        self.held: dict[str, dict[str, Any]] = {}
        self.calls: list[tuple[str, Any]] = []
        self.lag: set[str] = set()
        self._lock = threading.Lock()

    def texts(self) -> dict[str, str]:
        return {name: secret["SecretString"] for name, secret in self.held.items() if not secret["DeletedDate"]}

    def add(self, name: str, text: str, **tags: str) -> None:
        shown = [{"Key": key.replace("_", "-"), "Value": value} for key, value in tags.items()]
        self.held[name] = {"SecretString": text, "Tags": shown, "DeletedDate": None}

    def _live(self, operation: str, name: str) -> dict[str, Any]:
        if name not in self.held:
            raise ClientError({"Error": {"Code": "ResourceNotFoundException"}}, operation)
        if self.held[name]["DeletedDate"]:
            raise ClientError({"Error": {"Code": "InvalidRequestException"}}, operation)
        return self.held[name]

    def create_secret(self, Name: str, SecretString: str, Tags: Any, **more: Any) -> None:
        with self._lock:
            self.calls.append(("CreateSecret", Name))
            if Name in self.held:
                code = "InvalidRequestException" if self.held[Name]["DeletedDate"] else "ResourceExistsException"
                raise ClientError({"Error": {"Code": code}}, "CreateSecret")
            self.held[Name] = {"SecretString": SecretString, "Tags": Tags, "DeletedDate": None, **more}

    def put_secret_value(self, SecretId: str, SecretString: str) -> None:
        self.calls.append(("PutSecretValue", SecretId))
        self._live("PutSecretValue", SecretId)["SecretString"] = SecretString

    def delete_secret(self, SecretId: str, RecoveryWindowInDays: int) -> None:
        self.calls.append(("DeleteSecret", SecretId))
        self._live("DeleteSecret", SecretId)["DeletedDate"] = RecoveryWindowInDays

    def restore_secret(self, SecretId: str) -> None:
        self.calls.append(("RestoreSecret", SecretId))
        self.held[SecretId]["DeletedDate"] = None

    def describe_secret(self, SecretId: str) -> dict[str, Any]:
        return {"Tags": self.held[SecretId]["Tags"]}

    def get_paginator(self, _operation: str) -> Any:
        def paginate(Filters: list[Any], **_more: Any) -> Any:
            [prefix] = Filters[0]["Values"]
            rows = [
                {"Name": name, **{key: value for key, value in secret.items() if key != "SecretString"}}
                for name, secret in sorted(self.held.items())
                if name.startswith(prefix) and name not in self.lag
            ]
            return [{"SecretList": rows[start : start + 100]} for start in range(0, len(rows) or 1, 100)]

        return SimpleNamespace(paginate=paginate)

    def batch_get_secret_value(self, SecretIdList: list[str]) -> dict[str, Any]:
        assert len(SecretIdList) <= 20
        answer: dict[str, list[Any]] = {"SecretValues": [], "Errors": []}
        for name in SecretIdList:
            try:
                answer["SecretValues"].append({"Name": name, "SecretString": self._live("x", name)["SecretString"]})
            except ClientError as error:
                answer["Errors"].append({"SecretId": name, "ErrorCode": error.response["Error"]["Code"]})
        return answer


@pytest.fixture
def secrets() -> Secrets:
    return Secrets()


@pytest.fixture(params=["2.11.2", "3.2.1"])
def target(request: pytest.FixtureRequest) -> Target:
    """The same test against both majors."""
    return Target(request.param)


@pytest.fixture
def make_target() -> type[Target]:
    return Target
