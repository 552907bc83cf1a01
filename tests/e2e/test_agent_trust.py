# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The agent in real Airflows: it serves who holds the KMS key, nobody else, and leaves without a trace.

Whoever triggers runs here does so with all of Airflow's rights: what protects is that a request cannot be made without
the key. In order: each test goes on where the one before left the environment.
"""

from __future__ import annotations

import base64
import json
import os
import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import boto3
import pytest
from ansible_collections.mwaa.migration.plugins.module_utils._cleanup import ARGUMENT_SPEC, cleanup
from ansible_collections.mwaa.migration.plugins.module_utils._errors import MigrationError
from ansible_collections.mwaa.migration.plugins.module_utils._mwaa.access import Access
from ansible_collections.mwaa.migration.plugins.module_utils._state.agent import AgentLane, versions
from botocore.config import Config
from botocore.exceptions import ClientError
from cryptography.fernet import Fernet
from mwaa_lab.seeds import state as seeds
from test_state_lanes import Environment

pytestmark = pytest.mark.e2e

WAIT = 240
ANOTHER = "r" + "5" * 32
STATE = ("variable", "connection", "slot_pool")


class Served:
    """An environment and its agent."""

    def __init__(self, running: Environment):
        self.running, self.version = running, running.version
        self.secret = seeds.canary("trust")("request")
        self.lane = self.make()

    def make(self, **options: Any) -> AgentLane:
        environment = self.aws.client("mwaa").get_environment(Name=self.running.name)["Environment"]
        return AgentLane(self.aws, environment, self.running.key, **options)

    @property
    def aws(self) -> Any:
        return self.running.aws

    @property
    def write(self) -> dict[str, Any]:
        """A request that would write, were it served."""
        return {
            "op": "import_state",
            "variables": {"stolen": {"value": self.secret, "description": None}},
            "on_conflict": "overwrite",
            "prune": False,
            "digest_key": base64.b64encode(os.urandom(32)).decode(),
        }

    def read(self, **lane: Any) -> dict[str, Any]:
        """What any Airflow's tasks may: digests of what is, or is not, there."""
        request = {"op": "digest_state", "ids": {"variables": ["nothing"]}, "digest_key": self.write["digest_key"]}
        return (lane.get("lane") or self.lane).run(request, WAIT)

    def assumed(self, role: str) -> Callable[[str], Any]:
        """client(service) of who is only this in Airflow."""
        arn = f"arn:aws:iam::000000000000:role/mwaa-lab-{role.lower()}"
        key = self.aws.client("sts").assume_role(RoleArn=arn, RoleSessionName="somebody")["Credentials"]
        names = {"aws_access_key_id": "AccessKeyId", "aws_secret_access_key": "SecretAccessKey"}
        names["aws_session_token"] = "SessionToken"
        session = boto3.session.Session(**{name: key[field] for name, field in names.items()}, region_name="us-east-1")
        config = Config(inject_host_prefix=False, retries={"total_max_attempts": 1})
        return lambda service: session.client(service, endpoint_url=os.environ["AWS_ENDPOINT_URL"], config=config)

    def rest(self, method: str, path: str, body: Any = None) -> Any:
        call = {"Name": self.running.name, "Method": method, "Path": path}
        return self.aws.client("mwaa").invoke_rest_api(**call, **({"Body": body} if body is not None else {}))

    def trigger(self, run_id: str, conf: Any) -> str:
        """A run of the agent that the lane knows nothing of: its state in the end."""
        body = {"dag_run_id": run_id, "conf": conf, **({"logical_date": None} if self.version[0] == "3" else {})}
        self.rest("POST", "/dags/mwaa_agent/dagRuns", body)
        return self.ended(run_id)

    def ended(self, run_id: str) -> str:
        deadline = time.monotonic() + WAIT
        while time.monotonic() < deadline:
            state = self.rest("GET", f"/dags/mwaa_agent/dagRuns/{run_id}")["RestApiResponse"]["state"]
            if state in ("success", "failed"):
                return state
            time.sleep(1)
        raise AssertionError(f"run {run_id} did not end")

    def dump(self, *tables: str) -> str:
        """These tables, or all of the database, as text."""
        text = self.running.dump("--data-only", *[word for table in tables for word in ("-t", table)])
        # each dump of newer programs has a random word against injected commands
        return "\n".join(line for line in text.splitlines() if not line.startswith("\\"))

    def objects(self) -> list[str]:
        """Keys of all versions of requests, answers and the agent's files."""
        s3, lane = self.aws.client("s3"), self.lane
        return [
            key for prefix in ("mwaa-migration/", f"{lane.folder}/") for key, _v in versions(s3, lane.bucket, prefix)
        ]

    def grants(self) -> list[str]:
        found = self.aws.client("kms").list_grants(KeyId=self.running.key)["Grants"]
        return [grant["Name"] for grant in found if grant.get("Name", "").startswith("mwaa-migration-")]


@pytest.fixture(scope="module", params=["2.11.2", "3.2.1", "2.2.2"])
def served(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with Environment.running(tmp_path_factory.mktemp("trust") / "lab", request.param) as running:
        yield Served(running)


def test_it_serves_and_nothing_of_it_stays(served: Served) -> None:
    assert served.lane.start == ("cli" if served.version == "2.2.2" else "rest")
    served.lane.install()
    assert "digests" in served.read()
    assert not [key for key in served.objects() if "/requests/" in key] and not served.grants()
    dump = served.dump()
    assert "X-Amz-Signature" not in dump and served.running.key not in served.dump("xcom", "log")
    assert "mwaa_agent" not in served.dump("xcom")


def altered(envelope: dict[str, Any]) -> dict[str, Any]:
    sealed = envelope["sealed"]
    return {**envelope, "sealed": sealed[:-30] + ("A" if sealed[-30] != "A" else "B") + sealed[-29:]}


def test_requests_that_are_not_the_keys_holders_do_nothing(served: Served) -> None:
    before = served.dump(*STATE)
    lane = served.lane

    def strangers_key(envelope: dict[str, Any]) -> dict[str, Any]:
        forged = strangers_request(served, lane, served.aws.client("kms"), envelope["id"])
        return {**envelope, "wrapped_key": forged["wrapped_key"], "sealed": forged["sealed"]}

    def anothers(envelope: dict[str, Any]) -> dict[str, Any]:
        genuine, _key = lane_seal(SimpleNamespace(identifier=ANOTHER, answer_key="x", revoke=None), served.write, 60)
        return {**envelope, "wrapped_key": genuine["wrapped_key"], "sealed": genuine["sealed"]}

    attacks: dict[str, tuple[Callable[[dict[str, Any]], dict[str, Any]], str]] = {
        "altered": (altered, "tampered"),
        "sealed with a stranger's key": (strangers_key, "outdated|tampered"),
        "another request's content": (anothers, "tampered"),
        "for another environment": (lambda envelope: {**envelope, "environment": "other"}, "foreign"),
        "not there": (lambda _envelope: {}, "tampered"),
    }
    lane_seal = lane._seal
    for name, (attack, code) in attacks.items():
        lane = served.make()
        seal = lane._seal
        lane._seal = lambda *given, seal=seal, attack=attack: _first(attack, seal(*given))  # type: ignore[method-assign]
        if "stranger" in name:
            lane.run = lambda request, timeout, lane=lane: lane._once(request, timeout)  # type: ignore[method-assign]
        with pytest.raises(MigrationError) as refused:
            lane.run(served.write, 60)
        if lane.start == "rest":
            assert refused.value.code in code.split("|"), (name, refused.value.message)
        assert served.dump(*STATE) == before, name
    assert not [key for key in served.objects() if "/requests/" in key]
    # "another request" was never taken back, as if its run had been killed: the cleanup will find it
    assert served.grants() == [f"mwaa-migration-{ANOTHER}"]


def _first(change: Callable[[Any], Any], pair: tuple[Any, Any]) -> tuple[Any, Any]:
    return change(pair[0]), pair[1]


def test_an_expired_request_is_refused_by_its_own_date(served: Served) -> None:
    before = served.dump(*STATE)
    past = SimpleNamespace(time=lambda: time.time() - 7200, monotonic=time.monotonic, sleep=time.sleep)
    with pytest.raises(MigrationError, match="has expired") as refused:
        served.make(clock=past).run(served.write, 60)
    assert refused.value.code == "expired" and served.dump(*STATE) == before


def test_a_request_is_served_once_whoever_asks_again(served: Served) -> None:
    if served.version == "2.2.2":
        pytest.skip("runs are made and cleared by REST here")
    kept: dict[str, Any] = {}
    lane = served.make()
    seal = lane._seal
    lane._seal = lambda *given: (kept.update(sealed=seal(*given)), kept["sealed"])[1]  # type: ignore[method-assign]
    served.read(lane=lane)
    envelope = kept["sealed"][0]
    key = f"{lane.requests}{envelope['id']}.json"
    served.aws.client("s3").put_object(Bucket=lane.bucket, Key=key, Body=json.dumps(envelope).encode())
    before = served.dump(*STATE)
    try:
        conf = {"request": envelope["id"]}
        with pytest.raises(Exception, match="RestApiClientException"):  # Airflow has that run already
            served.trigger(envelope["id"], conf)
        assert served.trigger("r" + "0" * 32, conf) == "failed"
        assert served.trigger("somebody", {"request": "../../secrets"}) == "failed"
        assert served.trigger("nobody", {}) == "failed"
        cleared = {"dry_run": False, "dag_run_id": envelope["id"], "only_failed": False, "reset_dag_runs": True}
        served.rest("POST", "/dags/mwaa_agent/clearTaskInstances", cleared)
        assert served.ended(envelope["id"]) == "failed"
    finally:
        served.aws.client("s3").delete_object(Bucket=lane.bucket, Key=key)
    assert served.dump(*STATE) == before
    codes = {
        line.partition(".")[2].split("\t")[0]
        for line in served.dump("xcom").splitlines()
        if f"{envelope['id']}." in line
    }
    assert codes == {"replayed"}


@pytest.mark.parametrize("role", ["Op", "User", "Viewer"])
def test_who_is_no_admin_cannot_make_it_do_anything(served: Served, role: str) -> None:
    """As such a caller of MWAA, and even with the bucket open to them: a run without a request of the key's holder."""
    as_role = served.assumed(role)
    mwaa, before = as_role("mwaa"), served.dump(*STATE)
    with pytest.raises(ClientError) as denied:
        mwaa.create_cli_token(Name=served.running.name)
    assert denied.value.response["Error"]["Code"] == "AccessDeniedException"
    lane = served.make()
    forged = strangers_request(served, lane, as_role("kms"))
    key = f"{lane.requests}{forged['id']}.json"
    as_role("s3").put_object(Bucket=lane.bucket, Key=key, Body=json.dumps(forged).encode())
    try:
        for run_id in (forged["id"], f"{role}-asks"):
            body = {"dag_run_id": run_id, "conf": {"request": forged["id"], "op": "import_state"}}
            body |= {"logical_date": None} if served.version.startswith("3") else {}
            call = {"Name": served.running.name, "Method": "POST", "Path": "/dags/mwaa_agent/dagRuns", "Body": body}
            try:
                mwaa.invoke_rest_api(**call)
            except ClientError as error:
                assert served.version == "2.2.2" or error.response.get("RestApiStatusCode") == 403, error
                continue  # there is no REST API, or Airflow refuses this role
            assert role != "Viewer" and served.ended(run_id) == "failed"
    finally:
        served.aws.client("s3").delete_object(Bucket=lane.bucket, Key=key)
    assert served.dump(*STATE) == before and served.secret not in served.dump()
    assert not [key for key in served.objects() if key.endswith(".answer")]


def strangers_request(served: Served, lane: AgentLane, kms: Any, identifier: str = "") -> dict[str, Any]:
    """A request that is right in all but its key, which the maker has the use of."""
    identifier = identifier or "r" + os.urandom(16).hex()
    context = {"mwaa-migration": "agent-request", "request": identifier, "environment": lane.env_name}
    foreign = kms.create_key()["KeyMetadata"]["KeyId"]
    key = kms.generate_data_key(KeyId=foreign, NumberOfBytes=32, EncryptionContext=context)
    identity = {"id": identifier, "environment": lane.env_name, "expires_at": int(time.time()) + 900}
    request = {**served.write, **identity, "answer_url": "http://127.0.0.1:9/"}
    sealed = Fernet(base64.urlsafe_b64encode(key["Plaintext"])).encrypt(json.dumps(request).encode())
    wrapped = base64.b64encode(key["CiphertextBlob"]).decode()
    return {"version": 1, **identity, "wrapped_key": wrapped, "sealed": sealed.decode()}


def test_it_starts_by_its_schedule_where_nothing_can_be_called(served: Served) -> None:
    lane = served.make(access=Access(False, False, "Nothing can be called."))
    since = time.time()
    assert lane.start == "schedule"
    lane.install()
    assert "digests" in served.read(lane=lane)
    calls = [json.loads(line) for line in (served.running.folder / "journal.jsonl").read_text().splitlines()]
    mine = [call["operation"] for call in calls if call["time"] >= since and call["caller"] == "user"]
    assert mine and not {"InvokeRestApi", "CreateCliToken", "Cli"} & set(mine)


def test_writing_leaves_its_value_where_it_belongs_alone(served: Served) -> None:
    result = served.lane.run(served.write, WAIT)
    assert result["results"]["variables"]["stolen"] == "created"
    if served.version != "2.2.2":  # the script that looks there knows newer tables
        assert served.running.holds()["variables"]["stolen"]["value"] == served.secret
    assert served.secret not in served.dump()  # Fernet's in the one place, nothing elsewhere
    logs = served.aws.client("logs")
    group = f"airflow-{served.running.name}-Task"
    with_logs = [found["logGroupName"] for found in logs.describe_log_groups(logGroupNamePrefix=group)["logGroups"]]
    for name in with_logs:
        for page in logs.get_paginator("filter_log_events").paginate(logGroupName=name):
            assert not [event for event in page["events"] if served.secret in event["message"]]


def options(served: Served, *, check: bool = False) -> Any:
    params: dict[str, Any] = dict.fromkeys(ARGUMENT_SPEC)
    params.update(environment=served.running.name, kms_key_id=served.running.key, wait_timeout=WAIT)
    return SimpleNamespace(params=params, aws=served.aws, check_mode=check, diff_mode=True, warn=print)


def test_cleanup_leaves_no_trace_in_bucket_and_database(served: Served) -> None:
    state = served.dump(*STATE)
    shown = cleanup(options(served, check=True))
    assert shown["changed"] and served.objects()
    assert cleanup(options(served))["changed"]
    assert not served.objects() and not served.grants()
    traces = _tables_with("mwaa_agent", served.dump())
    if served.version.startswith("2"):
        assert not traces
    else:
        assert traces <= {"log", "ab_view_menu"}  # the names of its permissions, which Airflow 3 makes for each DAG
    assert served.dump(*STATE) == state
    again = cleanup(options(served))
    assert not again["changed"]
    stays = {"log": "audit log", "ab_view_menu": "among the permissions"}
    listed = {table for table, words in stays.items() if any(words in rest["what"] for rest in again["remains"])}
    assert traces <= listed, again["remains"]
    assert bool(listed) == (not served.version.startswith("2"))


def _tables_with(word: str, dump: str) -> set[str]:
    found, table = set(), ""
    for line in dump.splitlines():
        if line.startswith("COPY "):
            table = line.split()[1].removeprefix("public.")
        elif word in line and not line.startswith("--"):
            found.add(table)
    return found
