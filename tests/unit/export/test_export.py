# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""airflow_export from the plan to the manifest, with a host, a KMS and an S3 in memory."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

import fake_s3
import pytest
from ansible_collections.mwaa.migration.plugins.action.airflow_export import (
    ARGUMENT_SPEC,
    PIECE,
    Export,
    command_prefix,
    diff_text,
)
from ansible_collections.mwaa.migration.plugins.module_utils._bundle import Bundle, open_store
from ansible_collections.mwaa.migration.plugins.module_utils._errors import MigrationError
from ansible_collections.mwaa.migration.plugins.module_utils._lock import EXPORT, Lock, run_of
from ansible_collections.mwaa.migration.plugins.module_utils._sync.publish import publish
from ansible_collections.mwaa.migration.plugins.module_utils._sync.source import Target, open_source
from export_fakes import FakeAws, FakeHost


class World:
    """One host, one account."""

    def __init__(self) -> None:
        self.aws, self.host = FakeAws(), FakeHost()
        self.said: list[str] = []

    def export(self, check: bool = False, **params: Any) -> dict[str, Any]:
        options = {
            **{name: option.get("default") for name, option in ARGUMENT_SPEC.items()},
            "bundle": "s3://bucket/mig",
            "kms_key_id": "alias/key",
            "target_version": "2.11.2",
            **params,
        }
        return Export(options, self.aws, self.host, self.said.append, check).run()

    def bundle(self, where: str = "s3://bucket/mig") -> Bundle:
        bundle = Bundle.open(open_store(where, self.aws), self.aws)
        bundle.check()
        return bundle


@pytest.fixture
def world() -> World:
    return World()


def test_a_first_export_carries_everything(world: World) -> None:
    result = world.export()
    assert result["changed"]
    assert result["counts"] == {
        "variables": 2,
        "connections": 1,
        "pools": 1,
        "dags": 1,
        "default_connections_left_out": 1,
        "files": 3,
    }
    bundle = world.bundle()
    assert bundle.read_state("connections") == world.host.state["connections"]
    assert bundle.read_state("variables") == world.host.state["variables"]
    assert bundle.read("dags/b/c.py") == b"cc"
    assert bundle.read("plugins/p.py") == b"p"
    assert bundle.document("options.json")["portable"] == {"core.dags_are_paused_at_creation": "True"}
    assert bundle.document("inventory.json")["dags"] == [
        {"dag_id": "a", "fileloc": "/srv/airflow/dags/a.py", "is_paused": False}
    ]
    assert {"kind": "default_connection", "id": "sqlite_default"}.items() <= result["not_carried"][0].items()
    assert bundle.source["airflow_version"] == "2.10.3"


def test_a_bundle_may_have_any_name(world: World) -> None:
    assert world.export(bundle="s3://bucket/MyBucket/NoSuchBucket")["changed"]
    assert not world.export(bundle="s3://bucket/MyBucket/NoSuchBucket")["changed"]


def test_the_second_export_writes_nothing(world: World) -> None:
    world.export()
    world.aws.s3.writes.clear()
    world.host.sent.clear()
    result = world.export()
    assert not result["changed"]
    assert (world.aws.s3.writes, world.host.sent) == ([], [])
    assert result["files"] == {"added": [], "changed": [], "removed": [], "unchanged": 11}
    assert world.aws.kms.calls == ["GenerateDataKey", "Decrypt"]


def test_exactly_what_changed_is_written_and_named(world: World) -> None:
    world.export()
    world.aws.s3.writes.clear()
    world.host.sent.clear()
    world.host.state["variables"]["region"] = "us"
    world.host.state["variables"]["new"] = "CANARY-var-00000002"
    world.host.state["connections"]["db"]["password"] = "CANARY-pw-00000002"
    world.host.files["dags"]["a.py"] = b"changed"
    del world.host.files["plugins"]["p.py"]
    predicted = world.export(check=True)
    assert world.aws.s3.writes == []
    result = world.export()
    for one in (predicted, result):
        assert one["changed"]
        assert one["state"] == {
            "variables": {"added": ["new"], "changed": ["region"]},
            "connections": {"changed": ["db"]},
        }
        assert one["files"]["changed"] == [
            "dags/a.py",
            "inventory.json",  # counts a variable more
            "state/connections.json.sealed",
            "state/variables.json.sealed",
        ]
        assert one["files"]["removed"] == ["plugins/p.py"]
    assert world.host.sent == ["a.py"]
    assert "mig/state/pools.json.sealed" not in world.aws.s3.writes
    assert "delete mig/plugins/p.py" in world.aws.s3.writes
    assert world.bundle().read("dags/a.py") == b"changed"
    assert diff_text(result).splitlines() == [
        "+ variable new",
        "~ variable region",
        "~ connection db",
        "- plugins/p.py",
        "~ dags/a.py",
        "~ inventory.json",
    ]


def test_check_mode_makes_no_key_and_writes_nothing(world: World) -> None:
    result = world.export(check=True)
    assert result["changed"]
    assert result["bundle_id"] is None
    assert "dags/a.py" in result["files"]["added"]
    assert (world.aws.kms.calls, world.aws.s3.writes, world.host.sent) == ([], [], [])
    assert not any(request["op"] == "export_files" for request in world.host.requests)


def test_an_interrupted_export_does_not_send_again_what_arrived(world: World) -> None:
    world.host.files["dags"] = {f"{number}.py": b"x" * (PIECE // 2) + b"%d" % number for number in range(6)}
    world.aws.s3.fail_after = 5
    with pytest.raises(Exception, match="ServiceUnavailable"):
        world.export()
    arrived = [key for key in world.aws.s3.writes if key.startswith("mig/dags/")]
    assert arrived
    world.aws.s3.fail_after = None
    world.host.sent.clear()
    world.aws.s3.writes.clear()
    assert world.export()["changed"]
    assert not {f"mig/dags/{path}" for path in world.host.sent} & set(arrived)
    assert "mig/export.progress.json" not in world.aws.s3.objects
    assert [key for key in world.aws.s3.writes if "/locks/" not in key][-2] == "mig/manifest.json"
    assert len(world.bundle().files) == 6 + 1 + 3 + 5
    assert world.aws.kms.calls.count("GenerateDataKey") == 1


def test_a_file_that_the_store_lost_is_sent_again(world: World) -> None:
    world.export()
    del world.aws.s3.objects["mig/dags/a.py"]
    del world.aws.s3.objects["mig/state/variables.json.sealed"]
    world.host.sent.clear()
    assert world.export()["changed"]
    assert world.host.sent == ["a.py"]
    world.bundle()


def test_presigned_urls_where_the_host_reaches_s3(world: World) -> None:
    world.host.s3_reachable = world.aws.s3
    result = world.export(transport="s3")
    assert result["files"]["added"]
    assert world.bundle().read("dags/b/c.py") == b"cc"
    assert not any(request.get("paths") for request in world.host.requests)


def test_auto_falls_back_to_the_connection_and_s3_does_not(world: World) -> None:
    with pytest.raises(
        MigrationError, match="cannot put into s3://bucket/mig with presigned URLs .*: use transport connection"
    ):
        world.export(transport="s3")
    world.export(transport="auto")
    assert any("files go over the connection" in line for line in world.said)
    world.bundle()


def test_transport_s3_needs_s3(world: World, tmp_path: Path) -> None:
    with pytest.raises(MigrationError, match="transport s3 needs a bundle in S3"):
        world.export(transport="s3", bundle=str(tmp_path))


@pytest.mark.parametrize("transport", ["s3", "connection"])
def test_a_file_that_changes_once_arrives_as_it_is_then(world: World, transport: str) -> None:
    world.host.s3_reachable = world.aws.s3
    changes = iter([b"second"])

    def change(path: str) -> None:
        if path == "a.py":
            for content in changes:
                world.host.files["dags"]["a.py"] = content

    world.host.before_read = change
    result = world.export(transport=transport)
    assert world.bundle().read("dags/a.py") == b"second"
    assert not [one for one in result["not_carried"] if one["kind"] == "file"]


@pytest.mark.parametrize("transport", ["s3", "connection"])
def test_files_that_never_hold_still_or_vanish_are_listed(world: World, transport: str) -> None:
    world.host.s3_reachable = world.aws.s3
    count = iter(range(1000))

    def change(path: str) -> None:
        if path == "a.py":
            world.host.files["dags"]["a.py"] = b"%d" % next(count)
        if path == "b/c.py":
            world.host.files["dags"].pop("b/c.py", None)

    world.host.before_read = change
    result = world.export(transport=transport)
    lost = {one["id"]: one["reason"] for one in result["not_carried"] if one["kind"] == "file"}
    assert lost == {"dags/a.py": "it changed each time it was read", "dags/b/c.py": "it vanished while the export ran"}
    bundle = world.bundle()
    assert "dags/a.py" not in bundle.files
    assert bundle.document("inventory.json")["not_carried"] == result["not_carried"]


def test_big_files_come_in_pieces(world: World, tmp_path: Path) -> None:
    world.host.files["dags"]["big"] = bytes(range(256)) * (3 * PIECE // 256) + b"end"
    world.export(bundle=str(tmp_path))
    assert world.bundle(str(tmp_path)).read("dags/big") == world.host.files["dags"]["big"]
    assert max(map(len, world.host.stdout)) < 3 * PIECE


def test_a_wrong_fernet_key_is_the_agents_sentence_and_nothing_is_made(world: World) -> None:
    world.host.fernet_sentence = "The Fernet key from airflow.cfg opens none of the 46 encrypted values"
    for check in (False, True):
        with pytest.raises(MigrationError, match="opens none of the 46 encrypted values"):
            world.export(check=check)
    assert (world.aws.kms.calls, world.aws.s3.writes) == ([], [])


def test_another_airflow_does_not_enter_a_bundle(world: World) -> None:
    world.export()
    world.host.agent_home = "/srv/other"
    with pytest.raises(MigrationError, match="holds another Airflow .*: use a bundle of its own"):
        world.export()


@pytest.mark.parametrize(
    ("params", "sentence"),
    [
        ({"kms_key_id": None}, "there is no bundle at s3://bucket/mig yet: set kms_key_id"),
        ({"target_version": "2.4.1"}, "MWAA has no Airflow 2.4.1: set target_version to one of"),
        ({"bundle": "http://x/y"}, "is neither s3://bucket/prefix nor a folder"),
    ],
)
def test_wrong_options_are_one_sentence(world: World, params: dict[str, Any], sentence: str) -> None:
    with pytest.raises(MigrationError, match=sentence):
        world.export(**params)
    assert world.aws.s3.writes == []


def test_no_secret_is_seen_outside_of_sealed_data(world: World, tmp_path: Path) -> None:
    """What -vvv shows are commands and stdout; what is left are results, the screen and the bundle."""
    world.host.files["dags"]["a.py"] = b"password = 'CANARY-code-00000001'"
    result = world.export(bundle=str(tmp_path))
    seen = [json.dumps(result), diff_text(result), *world.said, *world.host.stdout, *world.host.commands]
    assert not any("CANARY-" in text for text in seen)
    for request in world.host.requests:
        assert request["transport_key"] not in "".join(seen)
    sealed = [path for path in tmp_path.rglob("*") if path.is_file() and path.name != "a.py"]
    assert not any(b"CANARY-" in path.read_bytes() for path in sealed)


# -- environment variables


def variable(name: str, kind: str = "plain", **more: Any) -> dict[str, Any]:
    read_by = ["dags/a.py"] if kind == "plain" else []
    entry = {"name": name, "kind": kind, "origin": "unit u", "ids": [], "hides": [], "secret": False, "value": "v"}
    return {**entry, "read_by": read_by, **more}


def test_environment_variables_go_where_they_are_told(world: World) -> None:
    world.host.environment = [
        variable("REGION", value="eu central's"),
        variable("API_TOKEN", secret=True, value=None),
        variable("AIRFLOW_VAR_FLAGS", "variable", ids=["flags"], value="1"),
        variable("AIRFLOW_CONN_LEDGER", "connection", ids=["ledger"], secret=True, value=None),
    ]
    listed = world.export(check=True)
    assert {one["id"] for one in listed["not_carried"]} >= {one["name"] for one in world.host.environment}
    result = world.export(environment_variables="startup_script")
    assert "secret" in [request.get("environment") for request in world.host.requests]
    assert world.bundle().read("startup.sh").decode().splitlines()[2:] == [
        "export REGION='eu central'\"'\"'s'",
        "export AIRFLOW_VAR_FLAGS=1",
    ]
    assert {one["id"]: one["kind"] for one in result["not_carried"]}["API_TOKEN"] == "environment_variable"
    assert "AIRFLOW_CONN_LEDGER is set in unit u and becomes the connection ledger" in result["findings"]
    # chosen otherwise, the script goes
    result = world.export(environment_variables="list")
    assert result["files"]["removed"] == ["startup.sh"]


# -- users


def test_people_are_in_the_bundle_and_not_on_the_screen(world: World) -> None:
    world.host.access = {
        "model": "fab",
        "users": [{"username": "bob", "email": "bob@trading.example", "active": True, "roles": ["Viewer"]}],
        "roles": {"Viewer": [["can_read", "DAGs"]]},
        "access_control": [],
    }
    result = world.export(environment="demo")
    assert result["access"] == {"users": 1, "roles": 1, "custom_roles": 0, "dags_with_access_control": 0}
    assert "bob" not in json.dumps(result) + "".join(world.said)
    bundle = world.bundle()
    assert bundle.document("access.json")["users"][0]["mwaa_role"] == "Viewer"
    assert b"bob@trading.example" in bundle.read("access.md")
    assert any("1 users and 0 roles" in finding for finding in result["findings"])


# -- several hosts of one installation


def listing(world: World, **changes: bytes | None) -> dict[str, Any]:
    files = {"dags/a.py": b"a", "dags/b/c.py": b"cc", "plugins/p.py": b"p"}
    files.update({name.replace("__", "/") + ".py": data for name, data in changes.items()})
    digests = {path: hashlib.sha256(data).hexdigest() for path, data in files.items() if data is not None}
    return {"hostname": "w", "airflow_version": "2.10.3", "files": digests}


def test_hosts_that_hold_the_same_are_no_matter(world: World) -> None:
    world.export(hosts={"worker-1": listing(world)})
    assert "hosts.json" not in world.bundle().files


def test_hosts_that_differ_are_refused_or_listed_by_path_and_host(world: World) -> None:
    hosts = {"worker-1": listing(world, dags__a=b"other", dags__b__c=None), "worker-2": listing(world, dags__x=b"more")}
    with pytest.raises(MigrationError) as caught:
        world.export(hosts=hosts)
    assert (
        "worker-1 lacks dags/b/c.py and holds another dags/a.py; worker-2 alone holds dags/x.py" in caught.value.message
    )
    assert world.aws.s3.objects == {}
    result = world.export(hosts=hosts, on_difference="list")
    assert {"kind": "file", "id": "dags/x.py", "reason": "it lies on worker-2 alone"} in result["not_carried"]
    assert world.bundle().document("hosts.json")["worker-1"] == {"missing": ["dags/b/c.py"], "other": ["dags/a.py"]}


def test_what_could_not_be_read_at_the_source_is_not_deleted_from_the_target(tmp_path: Path) -> None:
    aws, s3 = FakeAws(), fake_s3.FakeS3()
    target = Target("bucket", "dags", "plugins.zip", "requirements.txt", "startup.sh", airflow_version="2.11.2")

    def export_and_publish(files: dict[str, bytes], not_carried: list[dict[str, str]]) -> dict[str, Any]:
        bundle = Bundle.create(open_store(str(tmp_path), aws), aws, "alias/key", {"airflow_version": "2.10.3"})
        documents = {"inventory.json": json.dumps({"not_carried": not_carried}).encode(), "options.json": b"{}"}
        for path, content in {**files, **documents}.items():
            bundle.files[path] = bundle.store.write(path, content)
        bundle.save()
        source = open_source(aws, {"source": str(tmp_path)})
        return publish(s3, [source], target, check_mode=False, delete=True)

    files = {f"dags/{name}.py": b"" for name in ("kept", "gone", "denied", "team/a")}
    export_and_publish(files, [])
    denied = [
        {"kind": "file", "id": f"dags/{name}", "reason": "cannot be read: Permission denied"}
        for name in ("denied.py", "team")
    ]
    result = export_and_publish({"dags/kept.py": b""}, denied)
    assert [one["key"] for one in result["results"] if one["action"] == "deleted"] == ["dags/gone.py"]
    assert result["extra"] == ["dags/denied.py", "dags/team/a.py"]
    assert {one["id"] for one in result["not_carried"]} == {"denied.py", "team"}


# -- one at a time


def test_two_exports_at_once_and_one_goes_on(world: World) -> None:
    other = dataclasses.replace(run_of(1), user="ada", host="ctl-2", place="x")
    Lock(open_store("s3://bucket/mig", world.aws), EXPORT, other).take()
    with pytest.raises(MigrationError, match="ada on ctl-2 .* has been exporting into it since"):
        world.export()
    assert list(world.aws.s3.objects) == ["mig/locks/export.json"]


def test_a_look_needs_no_lock(world: World) -> None:
    Lock(
        open_store("s3://bucket/mig", world.aws), EXPORT, dataclasses.replace(run_of(1), host="ctl-2", place="x")
    ).take()
    assert world.export(check=True)["changed"]


def test_without_the_lock_no_manifest_is_written(world: World) -> None:
    send = world.host.op_export_files

    def slowly(request: dict[str, Any]) -> dict[str, Any]:
        other = dataclasses.replace(run_of(1, breaks=True), user="ada", host="ctl-2", place="x")
        lock = Lock(open_store("s3://bucket/mig", world.aws), EXPORT, other)
        lock.take()
        held_here[0].refresh()
        return send(request)

    held_here: list[Lock] = []
    keep = Export._write

    def write(self: Export, *arguments: Any) -> None:
        held_here.append(self.lock)
        keep(self, *arguments)

    world.host.op_export_files = slowly  # type: ignore[method-assign]
    with pytest.MonkeyPatch.context() as patch, pytest.raises(MigrationError, match="taken away while this ran"):
        patch.setattr(Export, "_write", write)
        world.export()
    assert "mig/manifest.json" not in world.aws.s3.objects


def test_a_bundle_that_another_export_wrote_to_meanwhile_is_not_overwritten(world: World) -> None:
    world.export()
    world.host.files["dags"]["new.py"] = b"n"
    read = world.host.op_export_state

    def slowly(request: dict[str, Any]) -> dict[str, Any]:
        world.aws.s3._store("mig/manifest.json", world.aws.s3.objects["mig/manifest.json"][-1][1] + b" ")
        return read(request)

    world.host.op_export_state = slowly  # type: ignore[method-assign]
    with pytest.raises(MigrationError, match="was written to by another export while this one read"):
        world.export()


def test_a_prefix_is_a_command_line_or_its_words() -> None:
    assert command_prefix(None) == ""
    assert command_prefix("docker compose exec -T scheduler ") == "docker compose exec -T scheduler"
    assert command_prefix(["docker", "exec", "-i", "my airflow"]) == "docker exec -i 'my airflow'"
    for wrong in ({"a": 1}, [["a"]], "a\nb"):
        with pytest.raises(MigrationError, match="airflow_command_prefix"):
            command_prefix(wrong)
