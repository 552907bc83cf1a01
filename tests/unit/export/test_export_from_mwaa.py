# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""airflow_export of an MWAA environment: code out of its bucket, options out of its settings, state by its agent."""

from __future__ import annotations

import base64
import io
import json
import secrets
import stat
import zipfile
from typing import Any

import pytest
from ansible_collections.mwaa.migration.plugins.action.airflow_export import ARGUMENT_SPEC, EnvironmentExport
from ansible_collections.mwaa.migration.plugins.action.airflow_history_export import ARGUMENT_SPEC as HISTORY_ARGUMENTS
from ansible_collections.mwaa.migration.plugins.action.airflow_history_export import export_environment
from ansible_collections.mwaa.migration.plugins.module_utils._bundle import Bundle, open_store
from ansible_collections.mwaa.migration.plugins.module_utils._errors import MigrationError
from ansible_collections.mwaa.migration.plugins.module_utils._mwaa.access import Access
from ansible_collections.mwaa.migration.plugins.module_utils._source_environment import (
    SourceEnvironment,
    judge_startup,
    seal_key,
)
from ansible_collections.mwaa.migration.plugins.module_utils._state import airflow_agent
from ansible_collections.mwaa.migration.plugins.module_utils._state.agent import AgentLane
from botocore.response import StreamingBody
from export_fakes import FakeAws, FakeHost, FakeS3
from fakes import aws_failure

PASSWORD = f"CANARY-smtp-{secrets.token_hex(4)}"
BUNDLE = "s3://bundles/airflow"
ARN = "arn:aws:airflow:eu-central-1:123456789012:environment/old"
DAG = b"from airflow import DAG\n"


class S3(FakeS3):
    """Bodies and listings as botocore has them."""

    def get_object(self, **params: Any) -> dict[str, Any]:
        reply = super().get_object(**params)
        content = reply["Body"].read()
        version = next(name for name, body in reversed(self.objects[params["Key"]]) if body == content)
        return {**reply, "Body": StreamingBody(io.BytesIO(content), len(content)), "VersionId": version}

    def get_paginator(self, name: str) -> Any:
        pages = super().get_paginator(name)
        listed = pages.paginate

        def paginate(**params: Any) -> Any:
            for page in listed(**params):
                yield {"Contents": [{**entry, "LastModified": self.now} for entry in page["Contents"]]}

        pages.paginate = paginate
        return pages


def packed(files: dict[str, bytes], links: tuple[str, ...] = ()) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
        for name in links:
            entry = zipfile.ZipInfo(name)
            entry.external_attr = (stat.S_IFLNK | 0o777) << 16
            archive.writestr(entry, "/etc/passwd")
    return buffer.getvalue()


class World(FakeAws):
    """An environment `old` with its bucket, and the bundle's, which is another prefix of the same store."""

    def __init__(self, version: str = "2.10.3") -> None:
        super().__init__()
        self.s3 = S3()
        self.host = FakeHost()
        self.asked: list[dict[str, Any]] = []
        self.left = 0
        self.environment: dict[str, Any] = {
            "Name": "old",
            "Arn": ARN,
            "Status": "AVAILABLE",
            "AirflowVersion": version,
            "SourceBucketArn": "arn:aws:s3:::old-bucket",
            "DagS3Path": "team/dags/",
            "ExecutionRoleArn": "arn:aws:iam::123456789012:role/old",
            "AirflowConfigurationOptions": {
                "core.parallelism": "64",
                "core.dags_are_paused_at_creation": "False",
                "acme.colour": "blue",
                "smtp.smtp_password": PASSWORD,
                "core.executor": "LocalExecutor",
            },
        }
        for path in ("a.py", "b/c.py", "mwaa_migration/airflow_agent.py", "b/__pycache__/c.pyc", "b/"):
            self.put(f"team/dags/{path}", DAG if path.endswith(".py") else b"")
        self.pin("Plugins", "plugins.zip", packed({"p.py": b"p", "q/data.json": b"{}", "q/x.pyc": b""}))
        self.pin("Requirements", "requirements.txt", b"apache-airflow-providers-http==4.0.0\nmine==1.2\n")
        self.pin("StartupScript", "startup.sh", b"#!/bin/sh\nexport REGION=eu\n")

    def put(self, key: str, content: bytes) -> str:
        return self.s3._store(key, content)["VersionId"]

    def pin(self, member: str, key: str, content: bytes) -> None:
        """The object as the environment has it, under a newer one that it does not have yet."""
        self.environment[f"{member}S3Path"] = key
        self.environment[f"{member}S3ObjectVersion"] = self.put(key, content)
        self.put(key, b"newer")

    def client(self, service: str, **_config: Any) -> Any:
        return self if service == "mwaa" else super().client(service)

    def get_environment(self, Name: str) -> dict[str, Any]:
        if Name != "old":
            raise aws_failure("ResourceNotFoundException", status=404)
        return {"Environment": self.environment}

    def get_paginator(self, _name: str) -> Any:
        return self

    def paginate(self) -> list[dict[str, Any]]:
        return [{"Environments": ["old"]}]

    def export(self, *, check: bool = False, **options: Any) -> dict[str, Any]:
        params = {name: spec.get("default") for name, spec in ARGUMENT_SPEC.items()}
        params.update(bundle=BUNDLE, kms_key_id=self.kms.arn, target_version="2.11.2", source_environment="old")
        params.update(options)
        source = Source(self)
        return EnvironmentExport(params, self, source, lambda _line: None, check).run()  # type: ignore[arg-type]

    def bundle(self) -> Bundle:
        return Bundle.open(open_store(BUNDLE, self), self)


class Source(SourceEnvironment):
    """Its agent answers as a host's would; how requests get there is tested with the lane."""

    def __init__(self, world: World) -> None:
        super().__init__(world, world.environment["Name"], 600)
        self.world = world

    def enter(self, kms_key_id: str) -> None:
        assert kms_key_id == self.world.kms.arn

    def leave(self, kms_key_id: str) -> list[str]:
        self.world.left += 1
        return ["task logs of the agent's runs in airflow-old-Task remain: sentences"]

    def ask(self, request: dict[str, Any]) -> dict[str, Any]:
        self.world.asked.append(request)
        if request["op"] == "plan":
            plan = self.world.host.op_plan(request)
            own = [{"dag_id": name, "is_paused": False, "fileloc": "x"} for name in ("mwaa_agent", "mwaa_agent_poll")]
            return {"identity": plan["identity"], "access": plan["access"], "dags": plan["dags"] + own}
        return self.world.host.op_export_state(request)


def test_it_looks_in_the_bundle_as_if_it_came_from_a_host() -> None:
    world = World()
    result = world.export()
    bundle = world.bundle()
    assert result["changed"] and world.left == 1
    assert {path for path in bundle.files if path.startswith(("dags/", "plugins/"))} == {
        "dags/a.py", "dags/b/c.py", "plugins/p.py", "plugins/q/data.json"
    }  # fmt: skip
    assert bundle.read("plugins/p.py") == b"p"  # the version that the environment has, not the newest
    assert bundle.read("startup.sh") == b"#!/bin/sh\nexport REGION=eu\n"
    lines = bundle.read("requirements.txt").decode().splitlines()
    assert "mine==1.2" in lines and "apache-airflow-providers-http==4.0.0" not in lines  # pinned anew
    assert bundle.read_state("variables")["note"]["value"].startswith("CANARY")
    inventory = bundle.document("inventory.json")
    assert [dag["dag_id"] for dag in inventory["dags"]] == ["a"]
    assert bundle.source["database"] == ARN and bundle.source["hostname"] == "old"
    assert "CANARY" not in json.dumps(result)
    assert any("task logs of the agent's runs in airflow-old-Task remain" in text for text in result["findings"])


def test_again_it_changes_nothing_and_what_changed_is_sent_alone() -> None:
    world = World()
    world.export()
    writes = len(world.s3.writes)
    assert not world.export()["changed"] and len(world.s3.writes) == writes
    world.put("team/dags/a.py", b"changed")
    files = world.export()["files"]
    assert (files["changed"], files["added"]) == (["dags/a.py"], [])
    assert world.bundle().read("dags/a.py") == b"changed"


def test_options_are_carried_as_they_are_but_for_secrets_and_what_would_start_dags() -> None:
    world = World()
    result = world.export()
    options = world.bundle().document("options.json")
    assert options["portable"] == {
        "acme.colour": "blue",  # its own code's
        "core.dags_are_paused_at_creation": "True",
        "core.parallelism": "64",
    }
    left = {one["id"] for one in result["not_carried"] if one["kind"] == "option"}
    assert left == {"smtp.smtp_password", "core.executor"}
    everything = b"".join(content for versions in world.s3.objects.values() for _version, content in versions)
    assert PASSWORD.encode() not in everything


def test_check_mode_asks_no_agent_and_writes_nothing() -> None:
    world = World()
    before = len(world.s3.writes)
    first = world.export(check=True)
    assert first["changed"] and not world.asked and not world.left and len(world.s3.writes) == before
    world.export()
    before, asked = len(world.s3.writes), len(world.asked)
    again = world.export(check=True)
    assert not again["changed"] and any("check mode puts no agent" in text for text in again["findings"])
    world.put("team/dags/new.py", b"new")
    assert world.export(check=True)["files"]["added"] == ["dags/new.py"]
    assert len(world.asked) == asked and len(world.s3.writes) == before + 1


def test_the_agent_stays_for_the_history_when_that_is_said() -> None:
    world = World()
    world.export(source_agent="kept")
    assert world.left == 0


def test_names_in_plugins_zip_that_lead_elsewhere_are_listed() -> None:
    world = World()
    names = {"../evil.py": b"", "/etc/x": b"", "fine.py": b"x", "a/./b.py": b""}
    world.pin("Plugins", "plugins.zip", packed(names, links=("link.py",)))
    result = world.export()
    listed = {one["id"]: one["reason"] for one in result["not_carried"] if one["kind"] == "file"}
    assert set(listed) == {"plugins/../evil.py", "plugins//etc/x", "plugins/a/./b.py", "plugins/link.py"}
    assert listed["plugins/link.py"] == "a symlink in plugins.zip"
    assert [path for path in world.bundle().files if path.startswith("plugins/")] == ["plugins/fine.py"]


@pytest.mark.parametrize("content", [b"no archive at all", packed({"p.py": b"p" * 100})[:-30]], ids=["none", "cut off"])
def test_a_broken_archive_is_refused_before_anything_is_asked_or_written(content: bytes) -> None:
    world = World()
    world.pin("Plugins", "plugins.zip", content)
    before = len(world.s3.writes)
    with pytest.raises(MigrationError, match=r"s3://old-bucket/plugins\.zip is no zip archive"):
        world.export()
    assert not world.asked and len(world.s3.writes) == before


def test_a_damaged_member_is_refused() -> None:
    content = bytearray(packed({"p.py": b"p" * 1000}))
    content[40] ^= 0xFF
    world = World()
    world.pin("Plugins", "plugins.zip", bytes(content))
    with pytest.raises(MigrationError, match="is no zip archive that can be read"):
        world.export()


def test_an_object_that_the_environment_names_and_nobody_has() -> None:
    world = World()
    del world.s3.objects["startup.sh"]
    with pytest.raises(MigrationError, match=r"startup\.sh \(version v\d+\) is gone, which the environment old names"):
        world.export()


def test_without_plugins_requirements_and_startup_script() -> None:
    world = World()
    for member in ("Plugins", "Requirements", "StartupScript"):
        del world.environment[f"{member}S3Path"]
    world.export()
    assert not {"requirements.txt", "startup.sh"} & set(world.bundle().files)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"source_environment": "old", "airflow_home": "/srv"}, "airflow_home has no meaning"),
        ({"environment_variables": "state", "transport": "s3"}, "transport, environment_variables have no meaning"),
    ],
)
def test_options_of_a_host_are_refused(options: dict[str, Any], match: str) -> None:
    with pytest.raises(MigrationError, match=match):
        World().export(**options)


@pytest.mark.parametrize(("status", "match"), [("UPDATING", "is UPDATING, so that"), ("DELETING", "is DELETING in eu")])
def test_an_environment_that_cannot_be_read_now(status: str, match: str) -> None:
    world = World()
    world.environment["Status"] = status
    with pytest.raises(MigrationError, match=match):
        world.export()


def test_an_environment_that_is_not_there_is_told_with_those_that_are() -> None:
    with pytest.raises(MigrationError, match="environment mine does not exist in eu-central-1: there are old"):
        SourceEnvironment(World(), "mine", 1).environment  # noqa: B018


def test_what_startup_sh_sets_of_secrets_is_told_by_name() -> None:
    [finding] = judge_startup(f"export DB_PASSWORD={PASSWORD}\nexport REGION=eu\n# export API_KEY=x\n".encode())
    assert "DB_PASSWORD" in finding and "REGION" not in finding and "API_KEY" not in finding
    assert PASSWORD not in finding


def test_the_bundles_key_does_not_serve_another_region_or_account() -> None:
    here, there = World(), World()
    params = {"source_kms_key_id": None, "kms_key_id": "alias/bundles"}
    assert seal_key(params, None, here, there) == "alias/bundles"
    there.account_id = "999999999999"
    with pytest.raises(MigrationError, match="give kms_key_id as its ARN"):
        seal_key(params, None, here, there)
    there.region = "us-east-1"
    with pytest.raises(MigrationError, match="set source_kms_key_id to a key in us-east-1"):
        seal_key(params, None, here, there)
    assert seal_key({**params, "source_kms_key_id": "mine"}, None, here, there) == "mine"


# -- Airflow 3


class SourceOf3(Source):
    """REST lists; a task reads values one by one, and one of them it cannot name."""

    COUNT = 250
    version = "3.2.1"

    def enter(self, kms_key_id: str) -> None:
        pass

    def _listed(self, kind: str) -> dict[str, dict[str, Any]]:
        if kind == "variables":
            return {f"v{number:03}": {"description": f"d{number}"} for number in range(self.COUNT)}
        if kind == "connections":
            return {"db": {"description": None}, "a?b": {"description": None}}
        return {"default_pool": {"slots": 1, "description": None, "include_deferred": True}}

    def ask(self, request: dict[str, Any]) -> dict[str, Any]:
        self.world.asked.append(request)
        return airflow_agent.export_state(request)


def test_a_3_x_source_is_read_in_portions_and_what_cannot_be_read_is_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World("3.2.1")
    secret = f"CANARY-value-{secrets.token_hex(4)}"

    def read(kinds: list[str], wanted: dict[str, list[str]]) -> Any:
        state: dict[str, Any] = {}
        for kind in kinds:
            fields = {"value": secret} if kind == "variables" else {"conn_type": "http", "password": secret}
            state[kind] = {name: dict(fields) for name in wanted[kind] if "?" not in name and name != "v007"}
        return (
            state,
            {("connection", name): "it cannot be named" for name in wanted.get("connections", []) if "?" in name},
            [],
        )

    monkeypatch.setattr(airflow_agent, "_read_by_sdk", read)
    monkeypatch.setenv("AIRFLOW_VAR_V001", "x")
    source = SourceOf3(world)
    source.enter("key")
    bundle = Bundle.create(open_store(BUNDLE, world), world, world.kms.arn, {})
    request = {"op": "export_state", "data_key": base64.b64encode(bundle.data_key).decode()}
    state = source.state(request, bundle)
    assert state["counts"] == {"variables": 249, "connections": 1, "pools": 1}
    assert sorted((one["kind"], one["id"]) for one in state["faults"]) == [("connection", "a?b"), ("variable", "v007")]
    assert state["hidden"] == ["AIRFLOW_VAR_V001"]
    variables = json.loads(bundle.unseal(state["sealed"]["variables"].encode()))
    assert variables["v003"] == {"value": secret, "description": "d3"}
    assert max(len(names) for one in world.asked for names in one["ids"].values()) == 100
    assert secret not in json.dumps(state)


def test_a_private_3_x_source_is_refused_before_anything_is_put_there(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World("3.2.1")
    closed = Access(False, False, "The web server is private and cannot be reached.")
    monkeypatch.setattr(AgentLane, "access", closed)
    before = len(world.s3.writes)
    with pytest.raises(
        MigrationError, match=r"alone, which does not answer from here .* set api_host to a host inside"
    ):
        SourceEnvironment(world, "old", 1).enter("key")
    assert len(world.s3.writes) == before


def test_what_is_sealed_in_portions_has_the_digest_of_what_is_sealed_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else every export of a 3.x source would write its state anew."""
    world = World("3.2.1")
    bundle = Bundle.create(open_store(BUNDLE, world), world, world.kms.arn, {})
    monkeypatch.setattr(
        airflow_agent,
        "_read_by_sdk",
        lambda kinds, ids: ({k: {n: {"value": "1"} for n in ids[k]} for k in kinds}, {}, []),
    )
    source = SourceOf3(world)
    source.enter("key")
    request = {"op": "export_state", "data_key": base64.b64encode(bundle.data_key).decode()}
    first, second = source.state(request, bundle), source.state(request, bundle)
    assert first["content"] == second["content"] and first["sealed"] != second["sealed"]


def test_the_history_of_a_3_x_source_cannot_be_read_and_that_is_said_without_failing() -> None:
    world = World("3.2.1")
    source, params = Source(world), {name: spec.get("default") for name, spec in HISTORY_ARGUMENTS.items()}
    bundle = Bundle.create(open_store(BUNDLE, world), world, world.kms.arn, {})
    bundle.save()
    params.update(bundle=BUNDLE, kms_key_id=world.kms.arn, target_version="2.11.2", source_environment="old")
    result = export_environment(params, world, source, lambda _line: None, False, None)  # type: ignore[arg-type]
    assert not result["changed"] and not world.asked and world.left == 1
    assert result["findings"][0].startswith("environment old has Airflow 3.2.1, whose tasks have no way")
    assert [(one["kind"], one["id"]) for one in result["not_carried"]] == [("history", "old")]


def test_check_mode_knows_of_history_only_whether_it_was_exported() -> None:
    world = World()
    world.export()
    params = {name: spec.get("default") for name, spec in HISTORY_ARGUMENTS.items()}
    params.update(bundle=BUNDLE, kms_key_id=world.kms.arn, target_version="2.11.2", source_environment="old")
    asked, writes = len(world.asked), len(world.s3.writes)
    result = export_environment(params, world, Source(world), lambda _line: None, True, None)  # type: ignore[arg-type]
    assert result["changed"] and "check mode puts no agent" in result["findings"][0]
    assert (len(world.asked), len(world.s3.writes), world.left) == (asked, writes, 1)
