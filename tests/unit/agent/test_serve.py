# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Inside an environment: a request is served when it is genuine, ours, fresh, and for the first time."""

from __future__ import annotations

import base64
import io
import json
import os
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from agent_loading import load
from cryptography.fernet import Fernet

ID, NOW = "r" + "ab12" * 8, 1_000_000.0
URL = "https://bucket.s3.amazonaws.com/answer?X-Amz-Signature=CANARY-url"
OURS = "arn:aws:kms:eu-central-1:123456789012:key/1"


class Kms:
    key = os.urandom(32)

    def decrypt(self, CiphertextBlob: bytes, EncryptionContext: dict[str, str], **_more: Any) -> dict[str, Any]:  # noqa: N803
        expected = {"mwaa-migration": "agent-request", "request": ID, "environment": "demo"}
        if _more["KeyId"] != OURS or CiphertextBlob == b"a stranger's":
            self.refuse("IncorrectKeyException")
        if CiphertextBlob != b"wrapped" or EncryptionContext != expected:
            self.refuse("InvalidCiphertextException")
        return {"Plaintext": self.key}

    @staticmethod
    def refuse(code: str) -> None:
        error = RuntimeError(code)
        error.response = {"Error": {"Code": code}}  # type: ignore[attr-defined]
        raise error


class S3:
    def __init__(self, body: bytes | None, answer: bytes | None = None) -> None:
        self.body, self.answer, self.asked = body, answer, ""

    def get_object(self, Bucket: str, Key: str) -> dict[str, Any]:  # noqa: N803
        self.asked = f"{Bucket}/{Key}"
        body = self.answer if Key.endswith(".answer") else self.body
        if body is None:
            raise RuntimeError("NoSuchKey")
        return {"Body": io.BytesIO(body)}


def envelope(inner: dict[str, Any] | None = None, **outer: Any) -> bytes:
    request = {"op": "digest_state", "id": ID, "environment": "demo", "expires_at": NOW + 60, "answer_url": URL}
    request.update(inner or {})
    sealed = Fernet(base64.urlsafe_b64encode(Kms.key)).encrypt(json.dumps(request).encode()).decode()
    document = {
        "version": 1,
        "id": ID,
        "environment": "demo",
        "expires_at": NOW + 60,
        "wrapped_key": base64.b64encode(b"wrapped").decode(),
        "sealed": sealed,
    }
    return json.dumps({**document, **outer}).encode()


@pytest.fixture
def serve(agent: ModuleType, monkeypatch: pytest.MonkeyPatch) -> Any:
    served: list[dict[str, Any]] = []
    monkeypatch.delenv("AIRFLOW_ENV_NAME", raising=False)
    monkeypatch.setitem(agent.OPERATIONS, "digest_state", lambda request: served.append(request) or {"digests": {}})
    monkeypatch.setattr(agent, "ANSWER_PAUSES", (0.0, 0.0, 0.0))

    def run(
        body: bytes | None,
        identifier: Any = ID,
        run_id: str = ID,
        try_number: int = 1,
        results: tuple[tuple[str, bool], ...] = (("", False),),
        answered: bytes | None = None,
    ) -> dict[str, Any]:
        """The answer as who asked opens it, or the refusal; served: how often it was."""
        served.clear()
        put, left = [], list(results)

        def leave(url: str, answer: bytes) -> tuple[str, bool]:
            assert url == URL
            put.append(answer)
            return left.pop(0)

        refusal = agent.serve(
            identifier,
            run_id,
            try_number,
            "bucket",
            "prefix",
            "demo",
            S3(body, answered),
            Kms(),
            OURS,
            now=lambda: NOW,
            put=leave,
        )
        answer = refusal or agent.open_answer(put[-1], ID, Kms.key)
        assert bool(served) == bool(answer.get("ok") or answer.get("code") == "unanswered")
        return {**answer, "puts": put}

    return run


def code_of(answer: dict[str, Any]) -> str:
    return answer["code"] if "code" in answer else answer["error"]["code"]


def test_a_genuine_request_is_served_and_answered_under_seal(serve: Any) -> None:
    answer = serve(envelope())
    [body] = answer.pop("puts")
    assert answer == {"ok": True, "result": {"digests": {}}, "id": ID}
    assert b"digests" not in base64.urlsafe_b64decode(body)


def test_a_request_does_not_pass_for_its_answer(agent: ModuleType, serve: Any) -> None:
    sealed = json.loads(envelope())["sealed"].encode()
    assert agent.open_answer(sealed, ID, Kms.key) is None
    [body] = serve(envelope())["puts"]
    assert agent.open_answer(body, "r" + "0" * 32, Kms.key) is None
    assert agent.open_answer(body, ID, os.urandom(32)) is None
    assert agent.open_answer(b"junk", ID, Kms.key) is None


def test_an_answer_that_s3_does_not_take_is_put_again_and_then_said(serve: Any) -> None:
    assert serve(envelope(), results=(("HTTP 503 SlowDown", True), ("", False)))["ok"]
    lost = serve(envelope(), results=(("timeout", True),) * 4)
    assert lost["code"] == "unanswered" and len(lost["puts"]) == 4 and "CANARY-" not in lost["message"]
    assert len(serve(envelope(), results=(("HTTP 403 AccessDenied", False),))["puts"]) == 1


def test_a_run_that_was_deleted_and_triggered_again_is_not_served_again(serve: Any) -> None:
    first = serve(envelope())
    again = serve(envelope(), answered=first["puts"][0])
    assert again["code"] == "replayed" and "answered already" in again["message"] and not again["puts"]


def test_who_sent_it_is_told_what_was_wrong_inside_and_the_run_what_was_wrong_outside(serve: Any) -> None:
    assert serve(envelope({"expires_at": NOW - 1}))["puts"]
    assert not serve(envelope(sealed="gAAAAABmx"))["puts"]


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (None, "missing"),
        (b"no json", "tampered"),
        (b"[]", "tampered"),
        (envelope(version=2), "tampered"),
        (envelope(environment="other"), "foreign"),
        (envelope({"environment": "other"}), "foreign"),
        (envelope({"id": "r" + "0" * 32}), "tampered"),
        (envelope({"expires_at": NOW - 1}), "expired"),
        (envelope({"expires_at": None}), "expired"),
        (envelope({"expires_at": NOW - 1}, expires_at=NOW + 1000), "expired"),
        (envelope(wrapped_key=base64.b64encode(b"another").decode()), "tampered"),
        (envelope(wrapped_key=base64.b64encode(b"a stranger's").decode(), grant_token="theirs"), "outdated"),
        (envelope(sealed="gAAAAABmx"), "tampered"),
        (envelope({"op": "export_files"}), "unknown_operation"),
        (envelope({"op": "export_files"}), "unknown_operation"),
        (envelope({"answer_url": None}), "tampered"),
    ],
)
def test_everything_else_is_refused_by_name(serve: Any, body: bytes | None, code: str) -> None:
    assert code_of(serve(body)) == code


@pytest.mark.parametrize(
    "how",
    [
        {"try_number": 2},
        {"run_id": "r" + "0" * 32},
        {"run_id": "manual__2026-01-01"},
    ],
)
def test_a_request_is_served_once(serve: Any, how: dict[str, Any]) -> None:
    assert serve(envelope(), **how)["code"] == "replayed"


@pytest.mark.parametrize("identifier", [None, "", "../../x", "r", "rabc1234", ID + "0", ID.upper(), {"a": 1}])
def test_malformed_ids_reach_no_bucket(serve: Any, identifier: Any) -> None:
    refusal = serve(None, identifier=identifier, run_id=str(identifier))
    assert refusal["code"] == "tampered" and refusal["id"] is None


def test_an_agent_that_was_copied_to_another_environment(serve: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW_ENV_NAME", "copy")
    assert serve(envelope())["code"] == "foreign"
    monkeypatch.setenv("AIRFLOW_ENV_NAME", "demo")
    assert serve(envelope())["ok"]


# -- the DAG around it


class Dag:
    made: list[Dag] = []

    def __init__(self, dag_id: str, schedule: Any = "unset", **options: Any) -> None:
        self.dag_id, self.options = dag_id, {**options, "schedule": schedule}
        self.tasks: list[Any] = []
        Dag.made.append(self)

    def __enter__(self) -> Dag:
        return self

    def __exit__(self, *_error: Any) -> None:
        pass


class OldDag(Dag):
    def __init__(self, dag_id: str, schedule_interval: Any = "unset", **options: Any) -> None:
        super().__init__(dag_id, schedule_interval, **options)


class Operator:
    made: list[dict[str, Any]] = []

    def __init__(self, **options: Any) -> None:
        Operator.made.append(options)


class OldOperator(Operator):
    """1.10 calls the function without the context unless it is told to."""

    def __init__(self, provide_context: bool = False, **options: Any) -> None:
        super().__init__(**options)
        assert provide_context


@pytest.fixture(
    params=[(Dag, "python", Operator), (OldDag, "python", Operator), (OldDag, "python_operator", OldOperator)]
)
def shell(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    dag, where, operator = request.param
    airflow, operators, python = (
        ModuleType(name) for name in ("airflow", "airflow.operators", f"airflow.operators.{where}")
    )
    airflow.DAG = dag  # type: ignore[attr-defined]
    python.PythonOperator = operator  # type: ignore[attr-defined]
    for module in (airflow, operators, python):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    return load("mwaa_agent_dag")


def test_the_dag_runs_only_when_asked(shell: ModuleType) -> None:
    dag = shell.dag
    assert dag.dag_id == "mwaa_agent"
    assert dag.options["schedule"] is None
    assert dag.options["max_active_runs"] == 1
    assert dag.options["is_paused_upon_creation"] is False
    assert dag.options["default_args"]["retries"] == 0
    assert "access_control" not in dag.options  # it takes no right from anybody, and leaves rows behind
    assert Operator.made[-1]["task_id"] == "t"


def test_the_path_of_a_run_fits_into_invoke_rest_api(shell: ModuleType) -> None:
    assert len(f"/dags/{shell.DAG_ID}/dagRuns/{ID}") <= 64
    assert len(f"/dags/{shell.DAG_ID}/dagRuns/~/taskInstances/{shell.TASK_ID}/xcomEntries") <= 64


@pytest.fixture
def run_shell(shell: ModuleType, monkeypatch: pytest.MonkeyPatch) -> Any:
    boto3 = ModuleType("boto3")
    clients = {"s3": S3(envelope({"environment": "@ENVIRONMENT@"}, environment="@ENVIRONMENT@")), "kms": Kms()}
    boto3.client = lambda name, **_more: clients[name]  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "boto3", boto3)
    pushed: dict[str, str] = {}

    class Instance:
        try_number = 1

        def xcom_push(self, key: str, value: str) -> None:
            pushed[key] = value

    class Run:
        run_id, conf = ID, {"request": ID}

    return lambda: (shell.serve(dag_run=Run(), ti=Instance()), pushed), pushed, clients["s3"]


def test_a_refusal_fails_the_run_and_is_named_in_an_xcom(
    shell: ModuleType, run_shell: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    run, pushed, s3 = run_shell
    with pytest.raises(shell.Refused, match="another KMS key"):
        run()  # sealed with another key than the one filled in here
    assert list(pushed) == [f"{ID}.outdated"]
    assert s3.asked == f"@BUCKET@/@PREFIX@/requests/{ID}.json"
    assert capsys.readouterr().out == ""


def test_an_answer_leaves_nothing_in_airflow(
    shell: ModuleType, run_shell: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    loaded = shell.load_agent()
    monkeypatch.setattr(loaded, "serve", lambda *_all, **_more: None)
    monkeypatch.setattr(shell, "load_agent", lambda: loaded)
    assert run_shell[0]() == (None, {})
    assert capsys.readouterr().out == ""


def test_the_placeholders_are_what_the_upload_replaces() -> None:
    text = (Path(__file__).parents[3] / "plugins/agent/mwaa_agent_dag.py").read_text()
    for name in ("BUCKET", "PREFIX", "ENVIRONMENT", "KMS_KEY", "STAMP"):
        assert text.count(f'"@{name}@"') == 1
