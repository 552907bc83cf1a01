# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The control plane's limits and states in examples, with clocks that stand still."""

from __future__ import annotations

import contextlib
import datetime
import threading
from typing import Any

import pytest

pytest.importorskip("mwaa_lab", reason="the lab is not installed in this environment")

from mwaa_lab.aws import hooks, limits, mwaa  # noqa: E402
from mwaa_lab.aws.model import ApiError  # noqa: E402
from mwaa_lab.aws.mwaa import ControlPlane, Environment, Reply  # noqa: E402
from mwaa_lab.engine import AwsAccess, EngineError  # noqa: E402


class Engine:
    """An engine that does what the test says."""

    def __init__(self) -> None:
        self.answer: Any = lambda: (200, {})
        self.update_fails: Exception | None = None
        self.roll_back_fails: Exception | None = None
        self.done: list[tuple[str, str]] = []
        self.seen: Any = lambda: None

    def rest(self, env, method, path, query, body):
        return self.answer()

    def cli(self, env, argv):
        return " ".join(argv), ""

    def update(self, env, changes):
        self.done.append(("update", env["AirflowVersion"]))
        self.seen()
        if self.update_fails:
            raise self.update_fails

    def snapshot(self, env):
        self.done.append(("snapshot", env["AirflowVersion"]))

    def roll_back(self, env):
        self.done.append(("roll back", env["AirflowVersion"]))
        if self.roll_back_fails:
            raise self.roll_back_fails


class Plane:
    """A control plane with one AVAILABLE environment and a clock."""

    def __init__(self, version: str = "2.11.2") -> None:
        self.engine, self.now = Engine(), 1000.0
        self.control = ControlPlane(
            self.engine,  # type: ignore[arg-type]
            AwsAccess("http://127.0.0.1:1"),
            "127.0.0.1:2",
            clock=lambda: self.now,
            monotonic=lambda: self.now,
            as_of=datetime.date(2026, 11, 21),
        )
        shown = {
            "Name": "e",
            "Arn": "arn:aws:airflow:us-east-1:000000000000:environment/e",
            "Status": "AVAILABLE",
            "AirflowVersion": version,
            "WebserverAccessMode": "PUBLIC_ONLY",
            "EnvironmentClass": "mw1.small",
            "MinWorkers": 1,
            "MaxWorkers": 10,
            "Schedulers": 2,
            "MinWebservers": 2,
            "MaxWebservers": 2,
            "DagS3Path": "dags",
            "Tags": {},
            "NetworkConfiguration": {"SubnetIds": ["subnet-1", "subnet-2"], "SecurityGroupIds": ["sg-1"]},
            "LoggingConfiguration": {"TaskLogs": {"Enabled": False, "LogLevel": "INFO"}},
            "LastUpdate": {},
        }
        self.environment = Environment("000000000000", "us-east-1", shown)
        self.control._environments["000000000000", "us-east-1", "e"] = self.environment

    def call(self, operation: str, **values: Any) -> dict[str, Any]:
        return self.control.handle(
            operation, {"Name": "e", **values}, "000000000000", "us-east-1", "arn:aws:iam::0:root"
        )

    def rest(self) -> dict[str, Any]:
        return self.call("InvokeRestApi", Method="GET", Path="/version")

    def update(self, **changes: Any) -> list[str]:
        """Update and wait; the statuses that were gone through."""
        seen: list[str] = []
        original = ControlPlane._status

        def status(environment: Environment, value: str) -> None:
            seen.append(value)
            original(environment, value)

        self.control._status = status  # type: ignore[method-assign]
        self.control._make_log_groups = lambda environment: None  # type: ignore[method-assign]
        self.call("UpdateEnvironment", **changes)
        with contextlib.suppress(EngineError):
            self.control.wait(self.environment)
        return ["UPDATING", *seen, self.environment.status]


@pytest.fixture
def plane(monkeypatch: pytest.MonkeyPatch) -> Plane:
    monkeypatch.setattr(mwaa, "_SNAPSHOT_SECONDS", 0)
    return Plane()


def test_ten_rest_calls_in_any_second(plane):
    for _ in range(10):
        plane.now += 0.05
        plane.rest()
    with pytest.raises(ApiError) as caught:
        plane.rest()
    assert (caught.value.status, caught.value.code) == (429, "ThrottlingException")
    plane.now += 0.56  # the first call is more than a second ago, the second is not
    plane.rest()
    with pytest.raises(ApiError):
        plane.rest()
    plane.now += 1
    plane.rest()


def test_a_rest_call_is_given_up(plane, monkeypatch):
    monkeypatch.setattr(limits, "REST_SECONDS", 0.01)
    forever = threading.Event()
    plane.engine.answer = lambda: forever.wait()
    with pytest.raises(ApiError) as caught:
        plane.rest()
    forever.set()
    assert (caught.value.code, caught.value.members["RestApiStatusCode"]) == ("RestApiServerException", 504)


def test_a_web_server_that_is_down_is_an_answer(plane):
    def down() -> Any:
        raise ConnectionRefusedError

    plane.engine.answer = down
    with pytest.raises(ApiError) as caught:
        plane.rest()
    assert (caught.value.code, caught.value.members["RestApiStatusCode"]) == ("RestApiServerException", 503)


def test_an_answer_may_have_six_megabytes(plane):
    fits = "x" * (limits.REST_BYTES - 2)
    plane.engine.answer = lambda: (200, fits)
    assert plane.rest()["RestApiResponse"] == fits
    plane.engine.answer = lambda: (200, fits + "x")
    with pytest.raises(ApiError):
        plane.rest()


def test_before_2_4_3_there_is_no_rest_api():
    with pytest.raises(ApiError, match="Update your environment to use InvokeRestApi"):
        Plane("2.2.2").rest()


def test_four_commands_at_once(plane):
    token = plane.call("CreateCliToken")["CliToken"]
    running = [plane.control.cli(token, "version")[1] for _ in range(4)]
    with pytest.raises(Reply) as caught:
        plane.control.cli(token, "version")
    assert caught.value.status == 503
    assert running[0]()["stdout"] == "dmVyc2lvbg=="
    plane.control.cli(token, "version")


def test_a_token_lives_sixty_seconds(plane):
    token = plane.call("CreateCliToken")["CliToken"]
    plane.now += 59.9
    plane.control.cli(token, "version")
    plane.now += 0.1
    with pytest.raises(Reply) as caught:
        plane.control.cli(token, "version")
    assert caught.value.status == 403


def test_a_login_lives_twelve_hours(plane):
    _, session = plane.control.login(plane.call("CreateWebLoginToken")["WebToken"])
    plane.now += 12 * 3600 - 1
    assert plane.control.session(session)[0].name == "e"
    plane.now += 1
    with pytest.raises(Reply) as caught:
        plane.control.session(session)
    assert caught.value.status == 401


def test_a_version_change_takes_a_snapshot(plane):
    assert plane.update(AirflowVersion="3.2.1") == ["UPDATING", "CREATING_SNAPSHOT", "UPDATING", "AVAILABLE"]
    assert plane.environment.version == "3.2.1"
    assert plane.engine.done == [("snapshot", "2.11.2"), ("update", "3.2.1")]


def test_an_update_of_the_same_version_takes_none(plane):
    assert plane.update(AirflowVersion="2.11.2", MaxWorkers=3) == ["UPDATING", "AVAILABLE"]
    assert plane.engine.done == [("update", "2.11.2")]


def test_nothing_answers_while_the_version_changes(plane):
    token = plane.call("CreateCliToken")["CliToken"]
    found: list[Any] = []

    def look() -> None:
        with pytest.raises(ApiError) as caught:
            plane.rest()
        with pytest.raises(Reply) as refused:
            plane.control.cli(token, "version")
        found.extend([caught.value.members["RestApiStatusCode"], refused.value.status])

    plane.engine.seen = look
    plane.update(AirflowVersion="3.2.1")
    assert found == [503, 503]
    assert plane.rest()["RestApiStatusCode"] == 200


def test_the_strategy_is_shown(plane):
    plane.update(AirflowVersion="3.2.1", WorkerReplacementStrategy="GRACEFUL")
    last = plane.environment.shown["LastUpdate"]
    assert (last["Status"], last["WorkerReplacementStrategy"]) == ("SUCCESS", "GRACEFUL")


def test_a_failed_version_change_rolls_back(plane):
    plane.engine.update_fails = EngineError("INCORRECT_CONFIGURATION", "no")
    seen = plane.update(AirflowVersion="3.2.1", MaxWorkers=3)
    assert seen == ["UPDATING", "CREATING_SNAPSHOT", "UPDATING", "ROLLING_BACK", "UPDATE_FAILED"]
    assert (plane.environment.version, plane.environment.shown["MaxWorkers"]) == ("2.11.2", 10)
    assert plane.engine.done[-1] == ("roll back", "2.11.2")
    assert plane.environment.shown["LastUpdate"]["Error"]["ErrorMessage"] == "no"
    assert plane.rest()["RestApiStatusCode"] == 200


def test_a_version_change_that_cannot_be_rolled_back_leaves_nothing_usable(plane):
    plane.engine.update_fails = EngineError("INTERNAL", "no way up")
    plane.engine.roll_back_fails = EngineError("INTERNAL", "no way down")
    assert plane.update(AirflowVersion="3.2.1")[-2:] == ["ROLLING_BACK", "UNAVAILABLE"]
    assert plane.environment.shown["LastUpdate"]["Error"]["ErrorMessage"] == "no way up"
    with pytest.raises(ApiError):
        plane.rest()
    with pytest.raises(ApiError, match="cannot be updated while its status is UNAVAILABLE"):
        plane.call("UpdateEnvironment", MaxWorkers=3)


def test_an_engine_that_crashes_is_a_failed_update(plane):
    plane.engine.update_fails = RuntimeError("boom")
    assert plane.update(MaxWorkers=3)[-1] == "UPDATE_FAILED"
    assert plane.environment.shown["LastUpdate"]["Error"] == {"ErrorCode": "INTERNAL_FAILURE", "ErrorMessage": "boom"}


@pytest.mark.parametrize("status", ["CREATING", "UPDATING", "DELETING", "CREATE_FAILED", "UNAVAILABLE"])
def test_updates_need_an_environment_that_is_at_rest(plane, status):
    plane.environment.shown["Status"] = status
    with pytest.raises(ApiError, match=f"cannot be updated while its status is {status}"):
        plane.call("UpdateEnvironment", MaxWorkers=3)


@pytest.mark.parametrize("status", ["CREATING", "DELETING", "CREATE_FAILED"])
def test_tokens_need_an_environment_that_lives(plane, status):
    plane.environment.shown["Status"] = status
    for operation in ("CreateCliToken", "CreateWebLoginToken"):
        with pytest.raises(ApiError) as caught:
            plane.call(operation)
        assert caught.value.code == "ResourceNotFoundException"


def test_a_changed_ministack_is_named(monkeypatch):
    hooks.check()
    monkeypatch.setitem(hooks._NAMES, "ministack.services.ec2", ("_vpcs", "_moons"))
    with pytest.raises(hooks.MinistackChanged, match=r"no longer has ministack\.services\.ec2\._moons"):
        hooks.check()
    monkeypatch.setattr(hooks, "PINNED", "0.1")
    with pytest.raises(hooks.MinistackChanged, match=r"needs ministack 0\.1 and found 1\.5\.33"):
        hooks.check()
