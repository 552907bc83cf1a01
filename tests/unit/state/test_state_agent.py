# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The agent lane against an environment that has the real agent's door, and nothing behind it."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import threading
from types import SimpleNamespace
from typing import Any

import pytest
from ansible_collections.mwaa.migration.plugins.module_utils._errors import MigrationError
from ansible_collections.mwaa.migration.plugins.module_utils._state import agent as lane_module
from ansible_collections.mwaa.migration.plugins.module_utils._state import airflow_agent
from ansible_collections.mwaa.migration.plugins.module_utils._state.agent import AgentLane
from botocore.exceptions import ClientError
from fakes import aws_failure

ENVIRONMENT = {
    "Name": "demo",
    "AirflowVersion": "2.11.2",
    "SourceBucketArn": "arn:aws:s3:::bucket",
    "DagS3Path": "dags",
    "ExecutionRoleArn": "arn:aws:iam::111122223333:role/execution",
}
DAG = "dags/mwaa_migration/mwaa_agent.py"
AGENT = "dags/mwaa_migration/airflow_agent.py"


class S3:
    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.keeps_versions = False  # who may delete objects may not delete versions
        self.written: list[str] = []

    meta = SimpleNamespace(endpoint_url="https://s3.eu-central-1.amazonaws.com")

    def put_object(self, Bucket: str, Key: str, Body: bytes) -> dict[str, str]:
        self.objects[Key] = Body
        self.written.append(Key)
        return {"VersionId": f"v{len(self.written)}"}

    def generate_presigned_url(self, operation: str, Params: dict[str, str], ExpiresIn: int) -> str:
        assert operation == "put_object" and ExpiresIn >= 60
        return f"https://{Params['Bucket']}/{Params['Key']}"

    def get_object(self, Bucket: str, Key: str) -> dict[str, Any]:
        if Key not in self.objects:
            raise aws_failure("NoSuchKey", status=404)
        return {"Body": SimpleNamespace(read=lambda: self.objects[Key])}

    def delete_object(self, Bucket: str, Key: str, VersionId: str = "") -> None:
        if VersionId and self.keeps_versions:
            raise aws_failure("AccessDenied", operation="DeleteObject")
        self.objects.pop(Key, None)


class Kms:
    ours = "alias/key"

    def __init__(self) -> None:
        self.keys: dict[bytes, tuple[bytes, dict[str, str]]] = {}
        self.grants: dict[str, dict[str, Any]] = {}
        self.granted = True

    def generate_data_key(self, KeyId: str, NumberOfBytes: int, EncryptionContext: dict[str, str]) -> dict[str, Any]:
        blob = os.urandom(16)
        self.keys[blob] = (os.urandom(NumberOfBytes), EncryptionContext)
        return {"Plaintext": self.keys[blob][0], "CiphertextBlob": blob, "KeyId": "arn:key"}

    def create_grant(self, **arguments: Any) -> dict[str, str]:
        if not self.granted:
            raise aws_failure("AccessDeniedException", operation="CreateGrant")
        self.grants["g"] = arguments
        return {"GrantId": "g", "GrantToken": "token"}

    def revoke_grant(self, KeyId: str, GrantId: str) -> None:
        del self.grants[GrantId]

    def decrypt(self, CiphertextBlob: bytes, EncryptionContext: dict[str, str], **more: Any) -> dict[str, bytes]:
        key, context = self.keys[CiphertextBlob]
        if (
            context != EncryptionContext
            or (self.grants and more.get("GrantTokens") != ["token"])
            or more["KeyId"] != self.ours
        ):
            raise aws_failure("InvalidCiphertextException")
        return {"Plaintext": key}


class World:
    """S3, KMS and the REST API of an environment whose scheduler runs the agent at once."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.s3, self.kms, self.now = S3(), Kms(), 1_000_000.0
        self.requests: list[dict[str, Any]] = []
        self.seen = 0  # how often the DAG was looked for
        self.parsed_after, self.state, self.paused = 0, "success", False
        self.answer: dict[str, Any] = {"ok": True, "result": {"fine": True}}
        self.refusals: dict[str, dict[str, str] | None] = {}  # of each run; None where it answered
        self.owner: str | None = None  # of the DAG as Airflow has read it; None: the newest
        self.leave = self.put
        self.log: list[str] = []
        self.lose_trigger = False
        monkeypatch.setattr(airflow_agent, "handle", self.handle)
        self.lane = self.make()

    def make(self, **changes: Any) -> AgentLane:
        return AgentLane(self, {**ENVIRONMENT, **changes}, "alias/key", clock=self)

    def put(self, url: str, body: bytes) -> tuple[str, bool]:
        self.s3.put_object("bucket", url.removeprefix("https://bucket/"), body)
        return "", False

    def put_answer(self, url: str, body: bytes) -> tuple[str, bool]:
        return self.leave(url, body)  # what a test puts in its place

    def run_dag(self, identifier: str) -> None:
        key = self.lane.kms_key_id  # as installed
        self.refusals[identifier] = airflow_agent.serve(
            identifier, identifier, 1, "bucket", self.lane.prefix, "demo", self.s3, self.kms, key,
            now=self.time, put=self.put_answer,
        )  # fmt: skip

    def client(self, service: str, **_config: Any) -> Any:
        return {"s3": self.s3, "kms": self.kms, "mwaa": self}[service]

    def time(self) -> float:
        return self.now

    monotonic = time

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def handle(self, request: dict[str, Any]) -> dict[str, Any]:
        self.requests.append(request)
        return dict(self.answer)

    def invoke_rest_api(self, Name: str, Method: str, Path: str, QueryParameters: Any = None, Body: Any = None) -> Any:
        self.log.append(f"{Method} {Path}")
        assert len(Path) <= 64
        if Path == "/dags/mwaa_agent" and Method == "GET":
            self.seen += 1
            if self.seen <= self.parsed_after:
                raise self.missing()
            owner = self.owner or f"mwaa_migration_{self.lane.stamp}"
            return self.reply({"is_paused": self.paused, "is_active": True, "owners": [owner]})
        if Path == "/dags/mwaa_agent" and Method == "PATCH":
            self.paused = Body["is_paused"]
            return self.reply({})
        if Path == "/importErrors":
            return self.reply({"import_errors": [], "total_entries": 0})
        if Method == "POST":
            identifier = Body["dag_run_id"]
            assert Body["conf"] == {"request": identifier}
            if identifier in self.refusals:
                raise self.missing(409)
            self.run_dag(identifier)
            if self.lose_trigger:
                self.lose_trigger = False
                raise ClientError(
                    {"Error": {"Code": "RestApiServerException"}, "RestApiStatusCode": 504, "RestApiResponse": {}}, "x"
                )
            return self.reply({})
        if Path.endswith("/xcomEntries"):
            entries = [{"key": f"{name}.{no['code']}"} for name, no in self.refusals.items() if no]
            return self.reply({"xcom_entries": entries, "total_entries": len(entries)})
        refused = self.refusals[Path.split("/")[4]]
        return self.reply({"state": "failed" if refused else self.state})

    @staticmethod
    def reply(body: Any) -> dict[str, Any]:
        return {"RestApiStatusCode": 200, "RestApiResponse": body}

    @staticmethod
    def missing(status: int = 404) -> ClientError:
        return ClientError(
            {"Error": {"Code": "RestApiClientException"}, "RestApiStatusCode": status, "RestApiResponse": {}}, "x"
        )


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    return World(monkeypatch)


def test_installed_once_and_again_only_when_it_differs(world: World) -> None:
    assert world.lane.install() and world.s3.written == [AGENT, DAG]
    assert b'BUCKET = "bucket"' in world.s3.objects[DAG] and b'ENVIRONMENT = "demo"' in world.s3.objects[DAG]
    assert not world.make().install()
    world.s3.objects[AGENT] = b"older"
    assert world.make().install() and world.s3.written == [AGENT, DAG, AGENT]


def test_the_request_arrives_sealed_and_nothing_of_it_stays(world: World) -> None:
    seen: list[bytes] = []
    put = world.s3.put_object
    world.s3.put_object = lambda Bucket, Key, Body: (seen.append(Body), put(Bucket, Key, Body))[1]  # type: ignore[method-assign]
    assert world.lane.run({"op": "import_state", "variables": {"a": "CANARY-request-00000001"}}, 60) == {"fine": True}
    assert world.requests[0]["variables"] == {"a": "CANARY-request-00000001"}
    assert b"CANARY-" not in b"".join(seen) and not world.s3.objects and not world.kms.grants
    request, answer = seen
    assert json.loads(request)["id"] and b"fine" not in base64.urlsafe_b64decode(answer)


def test_the_role_may_open_this_request_only(world: World) -> None:
    made: list[dict[str, Any]] = []
    create = world.kms.create_grant
    world.kms.create_grant = lambda **arguments: (made.append(arguments), create(**arguments))[1]  # type: ignore[method-assign]
    world.lane.run({"op": "inspect"}, 60)
    [grant] = made
    assert grant["GranteePrincipal"] == ENVIRONMENT["ExecutionRoleArn"] and grant["Operations"] == ["Decrypt"]
    assert grant["Constraints"]["EncryptionContextEquals"]["environment"] == "demo"


def test_without_the_right_to_grant_it_is_tried_and_said(world: World) -> None:
    world.kms.granted = False
    assert world.lane.run({"op": "inspect"}, 60) == {"fine": True}
    assert "kms:Decrypt" in world.lane.notes[0]


def test_the_request_is_deleted_when_the_run_fails(world: World) -> None:
    world.run_dag = lambda identifier: world.refusals.update({identifier: None})  # type: ignore[method-assign]
    world.state = "failed"  # killed, say
    with pytest.raises(MigrationError, match="ended as failed without an answer.*airflow-demo-Task"):
        world.lane.run({"op": "inspect"}, 60)
    assert not world.s3.objects and not world.kms.grants


def test_who_may_not_delete_versions_deletes_objects(world: World) -> None:
    world.s3.keeps_versions = True
    assert world.lane.run({"op": "inspect"}, 60) == {"fine": True}
    assert not world.s3.objects and not world.lane.notes


@pytest.mark.parametrize("content", [b"junk", b"the request's own text"])
def test_an_answer_that_another_put_there_is_not_believed(world: World, content: bytes) -> None:
    def leave(url: str, body: bytes) -> tuple[str, bool]:
        key = url.removeprefix("https://bucket/")
        sealed = json.loads(world.s3.objects[key.replace(".answer", ".json")])["sealed"].encode()
        world.s3.put_object("bucket", key, sealed if content != b"junk" else content)
        return "", False

    world.leave = leave
    with pytest.raises(MigrationError, match="not sealed for this request: who else writes to this bucket"):
        world.lane.run({"op": "inspect"}, 60)
    assert len(world.requests) == 1


def test_what_the_agent_could_not_answer_is_not_asked_again(world: World) -> None:
    world.leave = lambda url, body: ("HTTP 403 AccessDenied", False)
    with pytest.raises(MigrationError, match="was served and may have done .*airflow-demo-Task"):
        world.lane.run({"op": "import_state"}, 60)
    assert len(world.requests) == 1


def test_runs_begin_when_airflow_has_read_this_very_file(world: World) -> None:
    world.owner = "mwaa_migration_000000000000"
    with pytest.raises(MigrationError, match="waiting for Airflow to see the agent's DAG"):
        world.lane.run({"op": "inspect"}, 60)
    assert not world.requests


def test_the_agents_own_sentence_is_told(world: World) -> None:
    world.answer = {"ok": False, "error": {"code": "fernet_invalid", "message": "the Fernet key is wrong"}}
    with pytest.raises(MigrationError, match="the Fernet key is wrong") as error:
        world.lane.run({"op": "import_state"}, 60)
    assert error.value.code == "fernet_invalid"


def test_it_waits_for_the_dag_and_unpauses_it(world: World) -> None:
    world.parsed_after, world.paused = 30, True
    world.lane.run({"op": "inspect"}, 60)
    assert world.seen == 31 and not world.paused


def test_a_dag_that_never_appears(world: World) -> None:
    world.parsed_after = 10**6
    with pytest.raises(
        MigrationError, match="waiting for Airflow to see the agent's DAG: not finished after.*DAGProcessing"
    ):
        world.lane.run({"op": "inspect"}, 60)
    assert not world.requests and "POST /dags/mwaa_agent/dagRuns" not in world.log


def test_a_lost_trigger_runs_once(world: World) -> None:
    world.lose_trigger = True
    assert world.lane.run({"op": "inspect"}, 60) == {"fine": True}
    assert len(world.requests) == 1 and world.log.count("POST /dags/mwaa_agent/dagRuns") == 1


def test_a_trigger_that_never_arrived_is_made_again_when_the_burst_is_over(world: World) -> None:
    invoke, burst = world.invoke_rest_api, 12

    def weather(**call: Any) -> Any:
        nonlocal burst
        if "/dagRuns" in call["Path"] and burst:
            burst -= 1
            raise ClientError(
                {"Error": {"Code": "RestApiServerException"}, "RestApiStatusCode": 503, "RestApiResponse": {}}, "x"
            )
        if call["Method"] == "GET" and "/dagRuns/" in call["Path"] and not world.refusals:
            raise world.missing()
        return invoke(**call)

    world.invoke_rest_api = weather  # type: ignore[method-assign]
    assert world.lane.run({"op": "inspect"}, 60) == {"fine": True}
    assert len(world.requests) == 1 and not burst


def test_an_older_agent_in_the_environment_is_waited_for(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    own = airflow_agent._sha256_beside("airflow_agent.py")
    monkeypatch.setattr(airflow_agent, "_sha256_beside", lambda _name: own if world.now > 1_000_012 else "older")
    assert world.lane.run({"op": "inspect"}, 60) == {"fine": True}
    assert len(world.requests) == 1 and world.log.count("POST /dags/mwaa_agent/dagRuns") > 1


def test_airflow_3_wants_a_logical_date(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    bodies: list[Any] = []
    invoke = world.invoke_rest_api
    monkeypatch.setattr(world, "invoke_rest_api", lambda **call: (bodies.append(call.get("Body")), invoke(**call))[1])
    world.make(AirflowVersion="3.2.1").run({"op": "inspect"}, 60)
    assert [body["logical_date"] for body in bodies if body] == [None]


def test_a_task_of_airflow_3_reads_a_portion_and_the_answers_are_one(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def handle(request: dict[str, Any]) -> dict[str, Any]:
        world.requests.append(request)
        digests = {kind: {name: {"value": "d"} for name in names} for kind, names in request["ids"].items()}
        return {"ok": True, "result": {"digests": digests, "errors": {}, "notes": ["no descriptions"]}}

    monkeypatch.setattr(airflow_agent, "handle", handle)
    ids = {"variables": [f"v{number}" for number in range(450)], "connections": ["c1", "c2"]}
    result = world.make(AirflowVersion="3.2.1").run({"op": "digest_state", "ids": ids}, 60)
    assert [len(names) for request in world.requests for names in request["ids"].values()] == [
        100,
        100,
        100,
        100,
        50,
        2,
    ]
    assert {kind: list(found) for kind, found in result["digests"].items()} == ids
    assert result["notes"] == ["no descriptions"]


def test_airflow_2_reads_all_at_once(world: World) -> None:
    world.lane.run({"op": "digest_state", "ids": {"variables": [str(number) for number in range(450)]}}, 60)
    assert len(world.requests) == 1


def test_the_files_are_those_of_the_collection() -> None:
    assert lane_module.source_file("airflow_agent.py").startswith(b"# Copyright: mwaa.migration")
    assert base64.b64encode(lane_module.source_file("mwaa_agent_dag.py"))


def test_the_shell_knows_the_only_key_that_it_opens_requests_of(world: World) -> None:
    world.lane.install()
    assert b'KMS_KEY = "alias/key"' in world.s3.objects[DAG]
    world.kms.ours = "alias/other"
    with pytest.raises(MigrationError, match="was refused \\(tampered\\)"):
        world.lane.run({"op": "inspect"}, 60)


def test_an_environment_that_goes_updating_meanwhile_may_still_answer(world: World) -> None:
    """Its web server is gone while the worker goes on: nobody knows how the run stands, and its answer arrives."""
    invoke, leave, late = world.invoke_rest_api, world.leave, []
    answers: list[tuple[str, bytes]] = []
    world.leave = lambda url, body: (answers.append((url, body)), ("", False))[1]

    def updating(**call: Any) -> Any:
        if answers and call["Method"] == "GET":
            late.append(call["Path"])
            if len(late) == 30:
                leave(*answers[0])
            raise ClientError(
                {"Error": {"Code": "RestApiServerException"}, "RestApiStatusCode": 503, "RestApiResponse": {}}, "x"
            )
        return invoke(**call)

    world.invoke_rest_api = updating  # type: ignore[method-assign]
    assert world.lane.run({"op": "inspect"}, 600) == {"fine": True}
    assert len(world.requests) == 1 and len(late) == 30


def test_when_it_never_answers_the_reason_is_in_the_sentence(world: World) -> None:
    world.leave = lambda url, body: ("", False)

    def state(_identifier: str) -> str:
        raise MigrationError("GET /dags/mwaa_agent/dagRuns/r1 of environment demo: Airflow answered 503")

    world.lane.starter.state = state  # type: ignore[method-assign]
    with pytest.raises(MigrationError, match="Airflow answered 503: not finished after 1 min.*raise wait_timeout"):
        world.lane.run({"op": "inspect"}, 60)
    assert len(world.requests) == 1 and not world.kms.grants


def test_a_bucket_that_throttles_ends_no_run(world: World) -> None:
    get, refused = world.s3.get_object, []

    def throttled(Bucket: str, Key: str) -> dict[str, Any]:
        if Key.endswith(".answer") and len(refused) < 3:
            refused.append(Key)
            raise aws_failure("SlowDown", status=503)
        return get(Bucket, Key)

    world.s3.get_object = throttled  # type: ignore[method-assign]
    assert world.lane.run({"op": "inspect"}, 60) == {"fine": True} and len(refused) == 3


def test_an_answer_that_is_cut_on_its_way_is_read_again(world: World) -> None:
    from botocore.exceptions import IncompleteReadError

    get, cut = world.s3.get_object, []

    def truncated(Bucket: str, Key: str) -> dict[str, Any]:
        reply = get(Bucket, Key)
        if Key.endswith(".answer") and len(cut) < 3:
            cut.append(Key)

            def read() -> bytes:
                raise IncompleteReadError(actual_bytes=1, expected_bytes=100)

            return {"Body": SimpleNamespace(read=read)}
        return reply

    world.s3.get_object = truncated  # type: ignore[method-assign]
    assert world.lane.run({"op": "inspect"}, 60) == {"fine": True}
    assert len(world.requests) == 1 and len(cut) == 3


@pytest.mark.parametrize("code", ["ExpiredToken", "AccessDenied"])
def test_credentials_that_end_meanwhile_are_one_sentence(world: World, code: str) -> None:
    get = world.s3.get_object

    def ended(Bucket: str, Key: str) -> dict[str, Any]:
        if Key.endswith(".answer"):
            raise aws_failure(code, status=403, operation="GetObject")
        return get(Bucket, Key)

    world.s3.get_object = ended  # type: ignore[method-assign]
    with pytest.raises(MigrationError, match="cannot read s3://bucket/mwaa-migration/demo/requests/r") as error:
        world.lane.run({"op": "inspect"}, 60)
    assert error.value.code == code and len(world.requests) == 1


# ------------------------------------------------------------------------------------------------------------ history


@pytest.fixture
def history(world: World, monkeypatch: pytest.MonkeyPatch) -> AgentLane:
    """A lane for history, in an environment whose agent finds beside itself what lies in the bucket."""

    def beside(name: str) -> str | None:
        body = world.s3.objects.get(f"dags/mwaa_migration/{name}")
        return None if body is None else hashlib.sha256(body).hexdigest()

    monkeypatch.setattr(airflow_agent, "_sha256_beside", beside)
    world.lane = AgentLane(world, ENVIRONMENT, "alias/key", history=True, clock=world)
    return world.lane


def test_history_brings_its_files_and_leaves_the_dag_as_it_is(world: World, history: AgentLane) -> None:
    world.make().install()
    state = dict(world.s3.objects)
    assert history.install() and history.stamp == world.make().stamp
    folder = "dags/mwaa_migration"
    assert world.s3.written[2:] == [f"{folder}/airflow_history.py", f"{folder}/airflow_history_import.py"]
    assert {key: world.s3.objects[key] for key in state} == state
    assert b"def import_history" in world.s3.objects[f"{folder}/airflow_history_import.py"]
    again = AgentLane(world, ENVIRONMENT, "alias/key", history=True, clock=world)
    assert not world.make().install() and not again.install()


@pytest.mark.parametrize("name", ["airflow_history.py", "airflow_history_import.py"])
@pytest.mark.parametrize("there", [None, b"of before"])
def test_each_file_of_history_is_waited_for(world: World, history: AgentLane, name: str, there: bytes | None) -> None:
    history.install()
    arrives = world.s3.objects.pop(f"dags/mwaa_migration/{name}")
    if there:
        world.s3.objects[f"dags/mwaa_migration/{name}"] = there
    sleep = world.sleep

    def sleeping(seconds: float) -> None:
        sleep(seconds)
        if world.now > 1_000_012:
            world.s3.objects[f"dags/mwaa_migration/{name}"] = arrives

    world.sleep = sleeping  # type: ignore[method-assign]
    assert history.run({"op": "history_progress"}, 60) == {"fine": True}
    assert len(world.requests) == 1 and world.log.count("POST /dags/mwaa_agent/dagRuns") > 1


def test_state_does_not_ask_for_the_files_of_history(world: World) -> None:
    world.lane.run({"op": "inspect"}, 60)
    assert "agent_files" not in world.requests[0] and "progress_url" not in world.requests[0]


def test_who_waits_sees_pieces_rows_and_the_time_left(
    world: World, history: AgentLane, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    monkeypatch.setattr("ansible_collections.mwaa.migration.plugins.module_utils._progress.progress", said.append)
    history.install()
    answers: list[tuple[str, bytes]] = []
    world.leave = lambda url, body: (answers.append((url, body)), ("", False))[1]  # comes later
    world.state = "running"
    done = [0]
    sleep = world.sleep

    def sleeping(seconds: float) -> None:
        sleep(seconds)
        done[0] += bool(answers)
        if 0 < done[0] < 9:
            counts = {"pieces": done[0], "rows": round(1000 * (world.now - 1_000_000))}
            url = world.requests[0]["progress_url"]
            world.put(url, json.dumps(counts).encode())
        elif done[0]:
            world.put(*answers[0])

    world.sleep = sleeping  # type: ignore[method-assign]
    counted = {"before": {"pieces": 3, "rows": 5000}, "of": {"pieces": 20, "rows": 100_000}}
    assert history.run({"op": "import_history", "counted": counted}, 600) == {"fine": True}
    assert "counted" not in world.requests[0]
    line = "running, 9 of 20 pieces, 10,222 of 100,000 rows, 1,000 rows/s, 1 min 30 s left"
    assert any(line in text for text in said), said
    assert not [key for key in world.s3.objects if "requests" in key]  # neither request, answer nor progress stays


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b"null", b'{"rows": "many"}', b'{"rows": null}', b'{"else": 1}', b"\xff"]
)
def test_what_others_write_there_is_not_shown(body: bytes) -> None:
    tale = lane_module._Tale({})
    tale.hear(body, 0.0)
    assert str(tale) == ""


def test_counts_are_left_now_and_then_and_nothing_fails_by_them() -> None:
    left: list[dict[str, int]] = []
    first = threading.Event()

    def put(url: str, body: bytes) -> tuple[str, bool]:
        assert url == "https://there"
        left.append(json.loads(body))
        first.set()
        return "HTTP 503", True

    progress = airflow_agent.Progress("https://there", put, pause=0.001)
    progress.add(pieces=1, rows=10)
    assert first.wait(10)
    progress.add(pieces=1, rows=5)
    progress.end()
    assert left[0] == {"pieces": 1, "rows": 10} and progress.counts == {"pieces": 2, "rows": 15}
    nobody = airflow_agent.Progress(None, put)
    nobody.add(rows=1)
    nobody.end()
    assert nobody.thread is None
