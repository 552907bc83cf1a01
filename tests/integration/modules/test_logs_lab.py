# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Task logs from a host's folder, S3 and CloudWatch into an environment's log group, where CloudWatch is strict."""

from __future__ import annotations

import datetime
import gzip
import importlib.util
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from fnmatch import fnmatchcase
from pathlib import Path
from string import Template
from types import SimpleNamespace
from typing import Any

import pytest
from ansible_collections.mwaa.migration.plugins.module_utils._aws import Aws
from ansible_collections.mwaa.migration.plugins.module_utils._bundle import Bundle, open_store
from ansible_collections.mwaa.migration.plugins.module_utils._errors import MigrationError
from ansible_collections.mwaa.migration.plugins.module_utils._history import airflow_history
from ansible_collections.mwaa.migration.plugins.module_utils._lock import held
from ansible_collections.mwaa.migration.plugins.module_utils._logs.export import Exporter, Options
from ansible_collections.mwaa.migration.plugins.module_utils._logs.layout import Attempt, path_of, stream_of
from ansible_collections.mwaa.migration.plugins.module_utils._logs.record import Record
from mwaa_lab.cli import SECRET_KEY

ROOT = Path(__file__).parents[3]
_SPEC = importlib.util.spec_from_file_location("airflow_logs", ROOT / "plugins" / "agent" / "airflow_logs.py")
assert _SPEC and _SPEC.loader
airflow_logs = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(airflow_logs)

NOW = time.time()
IDENTITY = {"hostname": "airflow-1", "airflow_home": "/opt/airflow", "database": "postgresql://db/airflow"}
pytestmark = pytest.mark.lab


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def iso(at: float) -> str:
    return datetime.datetime.fromtimestamp(at, datetime.timezone.utc).isoformat()


class Host:
    """A log folder whose files the agent's own code sends; what the database says of them is said here."""

    def __init__(self, folder: Path, remote: str | None = None):
        self.base, self.remote, self.entries = folder.resolve(), remote, []  # type: Path, str | None, list[dict[str, Any]]
        self.asked: list[str] = []
        self.unreachable = ""

    def log(
        self,
        attempt: Attempt,
        text: str,
        *,
        ended: float = NOW,
        lasted: float = 60,
        state: str = "failed",
        old: bool = False,
    ) -> None:
        date = iso(ended - 60).replace("+00:00", "").partition(".")[0] + "+00:00"
        path = f"{attempt.dag_id}/{attempt.task_id}/{date}/{attempt.attempt}.log" if old else path_of(attempt)
        file = self.base / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        dates = {"start": iso(ended - lasted), "end": iso(ended), "ended": iso(ended), "date": date}
        about = {"state": state, **dates, "own": False, "zone": 0}
        self.entries.append({**attempt._asdict(), **about, "path": path, "size": len(text.encode()), "mtime": 1})

    def ask(self, request: dict[str, Any]) -> dict[str, Any]:
        self.asked.append(request["op"])
        agent = SimpleNamespace(
            _option=lambda _section, name: str(self.base) if name == "base_log_folder" else "",
            AgentError=lambda _code, message: MigrationError(message),
        )
        if request["op"] == "export_logs":
            for place in request.get("puts") or ():
                place["url"] = self.unreachable or place["url"]
            return json.loads(json.dumps(airflow_logs.operate(agent, airflow_history, request)))
        found = [
            entry
            for entry in self.entries
            if (request["state"] == "all" or entry["state"] == "failed")
            and (not request["since"] or entry["end"] >= request["since"].replace("Z", "+00:00"))
        ]
        found = json.loads(json.dumps(found))
        return {"logs": found, "next": None, "base": str(self.base), "remote": self.remote, "open": 0}


@pytest.fixture
def aws(options: dict[str, Any]) -> Aws:
    """With the secret that the lab knows: it checks presigned URLs."""
    return Aws.for_plugin({**options, "secret_key": SECRET_KEY})


@pytest.fixture
def bundle(make_bundle: Any, aws: Any) -> Any:
    """A bundle of the host's Airflow."""

    def make(where: str = "") -> Bundle:
        bundle = Bundle.open(open_store(make_bundle({}, where=where), aws), aws)
        bundle.source.update(IDENTITY)
        bundle.save()
        return bundle

    return make


@pytest.fixture
def export(aws: Any) -> Any:
    def run(host: Host, bundle: Bundle, check_mode: bool = False, **options: Any) -> dict[str, Any]:
        with held(bundle.store, "export") as lock:
            return Exporter(
                host.ask,
                bundle,
                {**IDENTITY, "airflow_version": "2.10.3"},
                Options(**{"state": "all", **options}),
                lock=lock,
                s3=aws.client("s3"),
                check_mode=check_mode,
            ).run()

    return run


@pytest.fixture
def environment(base: Any) -> Callable[..., str]:
    def make(version: str = "2.11.2") -> str:
        logging = {"TaskLogs": {"Enabled": True, "LogLevel": "INFO"}}
        return base.environment(AirflowVersion=version, LoggingConfiguration=logging)

    return make


def streams(lab: Any, name: str, every: int = 1) -> dict[str, list[str]]:
    """{stream: messages} of an environment's task logs, read by the lab's own eyes; the messages of every so many."""
    logs, group, found = lab.client("logs"), f"airflow-{name}-Task", {}  # type: Any, str, dict[str, list[str]]
    for page in logs.get_paginator("describe_log_streams").paginate(logGroupName=group):
        time.sleep(0.05)  # the rates hold for tests too
        for stream in page["logStreams"]:
            found[stream["logStreamName"]] = []
    for stream in list(found)[::every]:
        found[stream] = messages(logs, group, stream)
    return found


def messages(logs: Any, group: str, stream: str) -> list[str]:
    text, token = [], {}  # type: list[str], dict[str, str]
    while True:
        time.sleep(0.05)  # the rates hold for tests too
        page = logs.get_log_events(logGroupName=group, logStreamName=stream, startFromHead=True, **token)
        text += [event["message"] for event in page["events"]]
        if page["nextForwardToken"] == token.get("nextToken"):
            return text
        token = {"nextToken": page["nextForwardToken"]}


def lines(attempt: Attempt, count: int, at: float = NOW - 60) -> str:
    """A log as Airflow 2 writes it, with a message of two lines."""
    stamps = [iso(round(at + number * 0.001, 3)).replace("+00:00", "+0000") for number in range(count)]
    return "".join(f"[{stamp}] {{x.py:1}} INFO - {attempt} {n}\n  more of {n}\n" for n, stamp in enumerate(stamps))


def writes(lab: Any, since: float) -> list[dict[str, Any]]:
    return [one for one in lab.journal(since) if one["access"] == "write" and "locks/" not in str(one["keys"])]


def attempts(tasks: int, tries: int, dag: str = "etl") -> list[Attempt]:
    return [
        Attempt(
            f"{dag}_{task % 7}", f"scheduled__2026-01-{task % 28 + 1:02d}T01:02:03+00:00", f"t{task}", mapped, number
        )
        for task in range(tasks)
        for mapped in [task % 3 - 1]
        for number in range(1, tries + 1)
    ]


@pytest.mark.parametrize(
    "tasks", [pytest.param(10, id="50 logs"), pytest.param(1000, marks=pytest.mark.slow, id="5,000 logs")]
)
def test_every_log_is_found_under_its_own_run_and_attempt(
    lab: Any, tmp_path: Path, bundle: Any, export: Any, environment: Any, run_module: Any, tasks: int
) -> None:
    host, target, kept = Host(tmp_path / "logs"), environment(), bundle()
    for attempt in attempts(tasks, 5):
        host.log(attempt, lines(attempt, 3))
    exported = export(host, kept)
    assert exported["changed"] and exported["logs"]["sent"] == 5 * tasks and exported["not_carried"] == []
    result = run_module("mwaa_logs_copy", environment=target, bundle=kept.store.url, state="all")
    assert result["logs"] == {
        "logs": 5 * tasks,
        "copied": 5 * tasks,
        "unchanged": 0,
        "archived": 0,
        "events": 15 * tasks,
    }
    found = streams(lab, target, every=max(1, tasks // 40))
    assert set(found) == {stream_of(attempt, "2.11.2") for attempt in attempts(tasks, 5)}
    for attempt in attempts(tasks, 5):
        text = "\n".join(found[stream_of(attempt, "2.11.2")]) + "\n"
        assert text in ("\n", lines(attempt, 3)) and (text != "\n" or tasks > 40)
    assert sum(map(len, found.values())) >= 3 * min(5 * tasks, 200)
    # again: nothing is written, neither at the source's end nor at the target's
    since = time.time()
    assert export(host, kept)["changed"] is False
    again = run_module("mwaa_logs_copy", environment=target, bundle=kept.store.url, state="all")
    assert again["changed"] is False and again["logs"]["unchanged"] == 5 * tasks and writes(lab, since) == []


def test_old_layouts_states_days_and_dags(
    lab: Any, tmp_path: Path, bundle: Any, export: Any, environment: Any, run_module: Any
) -> None:
    host, new, old, kept = Host(tmp_path / "logs"), environment(), environment("2.10.3"), bundle()
    good, bad, other = attempts(3, 1)
    host.log(good, lines(good, 1), state="success", old=True)
    host.log(bad, lines(bad, 1), old=True)
    host.log(other, lines(other, 1), ended=NOW - 3 * 86400)
    assert export(host, kept, check_mode=True)["logs"]["sent"] == 3 and export(host, kept)["logs"]["sent"] == 3
    result = run_module("mwaa_logs_copy", environment=new, bundle=kept.store.url, days=2)
    assert result["logs"]["copied"] == 1 and set(streams(lab, new)) == {stream_of(bad, "2.11.2")}
    everything = {"environment": new, "bundle": kept.store.url, "state": "all"}
    assert run_module("mwaa_logs_copy", check=True, **everything)["logs"]["copied"] == 2
    assert len(streams(lab, new)) == 1
    assert run_module("mwaa_logs_copy", exclude=["etl_2"], **everything)["logs"]["copied"] == 1
    assert run_module("mwaa_logs_copy", **everything)["logs"]["copied"] == 1
    assert set(streams(lab, new)) == {stream_of(one, "2.11.2") for one in (good, bad, other)}
    # another environment has a ledger of its own
    assert run_module("mwaa_logs_copy", **{**everything, "environment": old})["logs"]["copied"] == 3


def test_what_is_too_old_is_in_the_archive_with_an_index(
    lab: Any, tmp_path: Path, bundle: Any, export: Any, environment: Any, run_module: Any, base: Any
) -> None:
    host, target, kept = Host(tmp_path / "logs"), environment(), bundle()
    recent, both, old = attempts(3, 1, "ünicode")
    host.log(recent, lines(recent, 5))
    host.log(both, lines(both, 5, NOW - 15 * 86400) + lines(both, 4), ended=NOW - 100, lasted=15 * 86400)
    host.log(old, lines(old, 5, NOW - 90 * 86400), ended=NOW - 90 * 86400)
    export(host, kept)
    result = run_module("mwaa_logs_copy", environment=target, bundle=kept.store.url, state="all")
    assert result["logs"] == {"logs": 3, "copied": 2, "unchanged": 0, "archived": 2, "events": 9}
    assert result["rejected"] == {"too_old": 10, "too_new": 0}
    assert result["archive"] == f"s3://{base.bucket}/task-logs/{target}"
    found = streams(lab, target)
    assert set(found) == {stream_of(one, "2.11.2") for one in (recent, both)}
    s3, prefix = lab.client("s3"), f"task-logs/{target}/"
    for attempt in (both, old):
        index = s3.get_object(Bucket=base.bucket, Key=f"{prefix}index/dag_id={attempt.dag_id}.jsonl")["Body"].read()
        (line,) = map(json.loads, index.splitlines())
        assert Attempt(*(line[name] for name in Attempt._fields)) == attempt and line["state"] == "failed"
        assert line["events_in_cloudwatch"] == (4 if attempt == both else 0) and line["events_too_old"] == 5
        body = s3.get_object(Bucket=base.bucket, Key=prefix + line["key"])["Body"].read()
        assert gzip.decompress(body).decode() == (host.base / path_of(attempt)).read_text()
    since = time.time()
    again = run_module("mwaa_logs_copy", environment=target, bundle=kept.store.url, state="all")
    assert again["changed"] is False and again["archive"] == result["archive"] and writes(lab, since) == []


@pytest.mark.parametrize(
    "weather", ["throttled", pytest.param("reset before", marks=pytest.mark.slow), "reset after", "500 after"]
)
def test_weather_doubles_and_loses_nothing(
    lab: Any, tmp_path: Path, bundle: Any, export: Any, environment: Any, run_module: Any, weather: str
) -> None:
    host, target, kept = Host(tmp_path / "logs"), environment(), bundle()
    for attempt in attempts(3, 2):
        host.log(attempt, lines(attempt, 3))
    export(host, kept)
    put = {"service": "logs", "operation": "PutLogEvents"}
    rules = {
        "throttled": [
            {"service": "logs", "operation": "*", "per_second": 3, "times": 20, "error": "ThrottlingException"},
        ],
        "reset before": [{**put, "reset": True, "times": 2}],
        "reset after": [{**put, "reset": True, "after": True, "times": 2}],
        "500 after": [{**put, "error": "InternalFailure", "status": 500, "after": True, "times": 2}],
    }
    lab.admin("POST", "faults", rules[weather])
    result = run_module("mwaa_logs_copy", environment=target, bundle=kept.store.url, state="all")
    assert result["logs"]["copied"] == 6, result
    fired = lab.admin("GET", "faults")
    assert all(rule["fired"] for rule in fired)
    lab.admin("POST", "faults", [])
    found = streams(lab, target)
    for attempt in attempts(3, 2):
        assert "\n".join(found[stream_of(attempt, "2.11.2")]) + "\n" == lines(attempt, 3)


RUN = """
import json, sys
from ansible.module_utils.testing import patch_module_args
from ansible_collections.mwaa.migration.plugins.modules import mwaa_logs_copy
with patch_module_args(json.load(sys.stdin)):
    mwaa_logs_copy.main()
"""


@pytest.mark.slow
def test_killed_between_batches_it_goes_on(
    lab: Any, tmp_path: Path, bundle: Any, export: Any, environment: Any, run_module: Any, options: Any
) -> None:
    host, target, kept = Host(tmp_path / "logs"), environment(), bundle()
    for attempt in attempts(3, 1):
        host.log(attempt, lines(attempt, 12_000))
    export(host, kept)
    lab.admin("POST", "faults", [{"service": "logs", "operation": "PutLogEvents", "latency_ms": 300, "times": None}])
    for kill_at in (2, 3):
        since = time.time()
        process = subprocess.Popen([sys.executable, "-c", RUN], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
        assert process.stdin
        process.stdin.write(
            json.dumps({**options, "environment": target, "bundle": kept.store.url, "state": "all"}).encode()
        )
        process.stdin.close()
        while sum(one["operation"] == "PutLogEvents" for one in lab.journal(since)) < kill_at:
            assert process.poll() is None
            time.sleep(0.02)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    lab.admin("POST", "faults", [])
    result = run_module("mwaa_logs_copy", environment=target, bundle=kept.store.url, state="all")
    assert result["logs"]["copied"] + result["logs"]["unchanged"] == 3 and result["logs"]["events"] < 36_000
    found = streams(lab, target)
    for attempt in attempts(3, 1):
        assert "\n".join(found[stream_of(attempt, "2.11.2")]) + "\n" == lines(attempt, 12_000)


@pytest.mark.slow
def test_logs_of_another_environment(
    lab: Any, bundle: Any, environment: Any, run_module: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    logs, source, target, kept = lab.client("logs"), environment("2.10.3"), environment(), bundle()
    group = f"airflow-{source}-Task"
    for number, attempt in enumerate(attempts(55, 1)):
        stream = stream_of(attempt, "2.10.3")
        logs.create_log_stream(logGroupName=group, logStreamName=stream)
        time.sleep(0.02)
        events = [{"timestamp": int(NOW * 1000) - 5000 + n, "message": f"{attempt} {n}"} for n in range(number + 1)]
        logs.put_log_events(logGroupName=group, logStreamName=stream, logEvents=events)
    logs.create_log_stream(logGroupName=group, logStreamName="something else")
    arguments = {"environment": target, "bundle": kept.store.url, "source_environment": source}
    began = time.time()
    refused = run_module("mwaa_logs_copy", **arguments)
    assert refused["failed"] and "the bundle has no history" in refused["msg"]
    result = run_module("mwaa_logs_copy", state="all", **arguments)
    assert result["logs"]["copied"] == 55 and result["logs"]["events"] == 55 * 56 // 2
    assert [one["id"] for one in result["not_carried"]] == ["something else"]
    found = {stream_of(one, "2.11.2"): [] for one in attempts(55, 1)}
    found = {stream: messages(logs, f"airflow-{target}-Task", stream) for stream in found}
    for number, attempt in enumerate(attempts(55, 1)):
        assert found[stream_of(attempt, "2.11.2")] == [f"{attempt} {n}" for n in range(number + 1)]
    since = time.time()
    again = run_module("mwaa_logs_copy", state="all", **arguments)
    assert again["logs"]["unchanged"] == 55 and writes(lab, since) == []
    assert not [one for one in lab.journal(since) if one["operation"] == "GetLogEvents"]

    # what was asked of CloudWatch is what docs/caller-policy/logs.json allows
    text = (ROOT / "docs" / "caller-policy" / "logs.json").read_text()
    names = {"Partition": "aws", "Region": "us-east-1", "Account": "000000000000"}
    policy = Template(text).safe_substitute(names, Environment=target, SourceEnvironment=source)
    statements = json.loads(policy)["Statement"]
    asked = {
        (action, resource)
        for call in lab.journal(began)
        if call["service"] == "logs"
        for action, resources in call["action"].items()
        for resource in resources
    }
    assert {action for action, _resource in asked} >= {"logs:DescribeLogStreams", "logs:PutLogEvents"}
    for action, resource in asked:
        allowed = [one for one in statements if action in one["Action"] and fnmatchcase(resource, one["Resource"])]
        assert allowed, f"{action} on {resource}"


def test_remote_logs_in_s3_are_read_there(
    lab: Any, tmp_path: Path, bundle: Any, export: Any, environment: Any, run_module: Any, new_bucket: Any
) -> None:
    bucket, target, kept = new_bucket(), environment(), bundle()
    host, s3 = Host(tmp_path / "logs", remote=f"s3://{bucket}/airflow"), lab.client("s3")
    for attempt in attempts(5, 2):
        host.log(attempt, lines(attempt, 3))
        if attempt.attempt == 1:
            s3.put_object(Bucket=bucket, Key=f"airflow/{path_of(attempt)}", Body=lines(attempt, 4))
    exported = export(host, kept)
    assert exported["logs"] == {"listed": 10, "sent": 5, "unchanged": 0, "remote": 5}
    result = run_module("mwaa_logs_copy", environment=target, bundle=kept.store.url, state="all")
    assert result["logs"]["events"] == 35
    found = streams(lab, target)
    for attempt in attempts(5, 2):
        text = lines(attempt, 4 if attempt.attempt == 1 else 3)
        assert "\n".join(found[stream_of(attempt, "2.11.2")]) + "\n" == text
    # without anybody to ask: by the keys alone
    alone, lone = environment(), bundle()
    arguments = {"environment": alone, "bundle": lone.store.url, "source_s3": f"s3://{bucket}/airflow", "state": "all"}
    assert run_module("mwaa_logs_copy", **arguments)["logs"]["copied"] == 5
    assert set(streams(lab, alone)) == {stream_of(one, "2.11.2") for one in attempts(5, 1)}


def test_a_folder_as_bundle_keeps_logs_sealed_and_values_stay_out_of_sight(
    lab: Any, tmp_path: Path, bundle: Any, export: Any, environment: Any, run_module: Any
) -> None:
    canary = f"CANARY-log-{secrets.token_hex(4)}"
    host, target, kept = Host(tmp_path / "logs"), environment(), bundle(str(tmp_path / "bundle"))
    (attempt,) = attempts(1, 1)
    host.log(attempt, lines(attempt, 2) + f"password {canary}\n")
    answers = [export(host, kept)]
    answers.append(run_module("mwaa_logs_copy", environment=target, bundle=kept.store.url, state="all"))
    assert canary in "".join(streams(lab, target)[stream_of(attempt, "2.11.2")])
    texts = [json.dumps(answers).encode(), (lab.folder / "journal.jsonl").read_bytes()]
    for file in (tmp_path / "bundle").rglob("*"):
        if file.is_file():
            body = file.read_bytes()
            texts += [body, gzip.decompress(body) if body[:2] == b"\x1f\x8b" else b""]
    assert not any(canary.encode() in text for text in texts)


def test_a_host_that_reaches_no_s3_sends_its_logs_over_the_connection(
    lab: Any, tmp_path: Path, bundle: Any, export: Any, environment: Any, run_module: Any
) -> None:
    host, kept = Host(tmp_path / "logs"), bundle()
    host.unreachable = f"http://127.0.0.1:{free_port()}/"
    (small, large) = attempts(2, 1)
    host.log(small, lines(small, 2))
    text = lines(large, 1) + "".join(f"{number:0100d}\n" for number in range(200_000))  # more than one answer holds
    host.log(large, text)
    with pytest.raises(MigrationError, match="use transport connection, or let the host reach S3"):
        export(host, kept, transport="s3")
    assert export(host, kept)["logs"]["sent"] == 2 and host.asked.count("export_logs") > 3
    record = Record.open(kept)
    assert record
    for attempt, expected in ((small, lines(small, 2)), (large, text)):
        (entry,) = [one for one in record.entries(attempt.dag_id) if one["task_id"] == attempt.task_id]
        packed = b"".join(record.object(path)[at : at + size] for path, at, size, _raw in entry["pieces"])
        assert gzip.decompress(packed).decode() == expected
    assert export(host, kept)["changed"] is False


def test_what_cannot_be_is_said_in_one_sentence(
    lab: Any, tmp_path: Path, bundle: Any, export: Any, environment: Any, run_module: Any, base: Any
) -> None:
    kept = bundle()
    off = base.environment(LoggingConfiguration={"TaskLogs": {"Enabled": False, "LogLevel": "INFO"}})
    result = run_module("mwaa_logs_copy", environment=off, bundle=kept.store.url)
    assert f"the environment {off} has no task logs: enable task logs" in result["msg"]
    result = run_module("mwaa_logs_copy", environment="none", bundle=kept.store.url)
    assert "the environment none does not exist" in result["msg"]
    target = environment()
    result = run_module("mwaa_logs_copy", environment=target, bundle=kept.store.url)
    assert "has no logs: run airflow_logs_export first" in result["msg"]
    host = Host(tmp_path / "logs")
    (attempt,) = attempts(1, 1)
    host.log(attempt, lines(attempt, 2))
    export(host, kept)
    part = next(path for path in kept.store.list("logs/parts/"))
    # a version of the object is named: what comes after does not matter, but a damaged list does
    s3, bucket = lab.client("s3"), kept.store.bucket
    versions = s3.list_object_versions(Bucket=bucket, Prefix=f"bundle/{part}")["Versions"]
    s3.delete_object(Bucket=bucket, Key=f"bundle/{part}", VersionId=versions[0]["VersionId"])
    result = run_module("mwaa_logs_copy", environment=target, bundle=kept.store.url)
    assert "is missing although the logs' manifest names it" in result["msg"]
    manifest = json.loads(kept.store.read("logs/manifest.json"))
    manifest["hosts"] = ["another"]
    kept.store.write("logs/manifest.json", json.dumps(manifest).encode())
    result = run_module("mwaa_logs_copy", environment=target, bundle=kept.store.url)
    assert "was altered" in result["msg"]
