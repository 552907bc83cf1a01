# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the cleanup removes, in which order, and what it leaves alone, against buckets that keep versions."""

from __future__ import annotations

import datetime
import io
import json
import subprocess
import sys
from email.utils import format_datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ansible_collections.mwaa.migration.plugins.module_utils._cleanup import ARGUMENT_SPEC, cleanup
from ansible_collections.mwaa.migration.plugins.module_utils._errors import MigrationError
from ansible_collections.mwaa.migration.plugins.module_utils._mwaa.access import Access
from ansible_collections.mwaa.migration.plugins.module_utils._state.agent import AgentLane
from botocore.exceptions import ClientError
from fakes import Clock, aws_failure

ROLE = "arn:aws:iam::111122223333:role/execution"
AGENT = ("dags/mwaa_migration/airflow_agent.py", "dags/mwaa_migration/mwaa_agent.py")
THEIRS = (
    "dags/daily.py", "dags/mwaa_migration_of_mine.py", "mwaa-migration/other/requests/x.json", "plugins.zip",
    "mwaa-migration/demo/manifest.json",  # a bundle that was put there, and is kept
)  # fmt: skip


class S3:
    meta = SimpleNamespace(endpoint_url="http://127.0.0.1:1")

    def __init__(self, world: World) -> None:
        self.world = world
        self.versions: list[tuple[str, str, bytes | None]] = []  # (key, version, content; None: a delete marker)

    def put_object(self, Bucket: str, Key: str, Body: bytes, **_condition: str) -> None:
        self.versions.append((Key, f"v{len(self.versions)}", Body))
        self.world.log.append(f"put {Key}")

    def delete_object(self, Bucket: str, Key: str) -> None:
        self.versions.append((Key, f"v{len(self.versions)}", None))
        self.world.log.append(f"delete {Key}")

    def delete_objects(self, Bucket: str, Delete: dict[str, Any]) -> dict[str, Any]:
        gone = {(entry["Key"], entry["VersionId"]) for entry in Delete["Objects"]}
        self.versions = [entry for entry in self.versions if entry[:2] not in gone]
        self.world.log += [f"purge {key}" for key in sorted({key for key, _version in gone})]
        return self.world.refusal

    def current(self) -> dict[str, bytes]:
        latest = {key: content for key, _version, content in self.versions}
        return {key: content for key, content in latest.items() if content is not None}

    def get_object(self, Bucket: str, Key: str) -> dict[str, Any]:
        if Key.endswith("cleanup.json"):
            self.world.parse()
        if Key not in self.current():
            raise aws_failure("NoSuchKey", status=404)
        now = datetime.datetime.fromtimestamp(self.world.now, datetime.timezone.utc)
        headers = {"HTTPHeaders": {"date": format_datetime(now)}}
        return {
            "Body": io.BytesIO(self.current()[Key]), "LastModified": now, "ETag": "x", "ResponseMetadata": headers,
        }  # fmt: skip

    def generate_presigned_url(self, *_all: Any, Params: dict[str, str], ExpiresIn: int) -> str:
        return f"https://bucket/{Params['Key']}?X-Amz-Signature=CANARY-url"

    def get_paginator(self, name: str) -> Any:
        def paginate(Bucket: str, Prefix: str) -> list[dict[str, Any]]:
            if name == "list_objects_v2":
                return [{"Contents": [{"Key": key, "Size": 1} for key in self.current() if key.startswith(Prefix)]}]
            rows = [row for row in self.versions if row[0].startswith(Prefix)]
            return [
                {
                    "Versions": [{"Key": k, "VersionId": v} for k, v, content in rows if content is not None],
                    "DeleteMarkers": [{"Key": k, "VersionId": v} for k, v, content in rows if content is None],
                }
            ]

        return SimpleNamespace(paginate=paginate)


class World(Clock):
    """An environment after a migration."""

    def __init__(self, version: str = "2.11.2") -> None:
        super().__init__()
        self.log: list[str] = []
        self.params: dict[str, Any] = {}
        self.refusal: dict[str, Any] = {}
        self.s3 = S3(self)
        self.environment = {
            "Name": "demo", "AirflowVersion": version, "SourceBucketArn": "arn:aws:s3:::bucket", "DagS3Path": "dags",
            "ExecutionRoleArn": ROLE, "WebserverAccessMode": "PUBLIC_ONLY",
        }  # fmt: skip
        self.dags: dict[str, dict[str, Any]] = {"mwaa_agent": {"is_stale": False}}
        self.runs: list[dict[str, str]] = [{"dag_run_id": "rold", "state": "success"}]
        self.parsed = 0
        self.rows: dict[str, Any] | None = None  # what a parse reports instead
        self.grants = [
            {"Name": "mwaa-migration-r1", "GrantId": "g1", "GranteePrincipal": ROLE, "Constraints": of("demo")},
            {"Name": "mwaa-migration-r2", "GrantId": "g2", "GranteePrincipal": ROLE, "Constraints": of("other")},
            {"Name": "somebody's", "GrantId": "g3", "GranteePrincipal": ROLE, "Constraints": of("demo")},
            {"GrantId": "g4", "GranteePrincipal": ROLE},
        ]
        self.policies = {("execution", "own"), ("execution", "mwaa-migration-temporary-other")}
        for key in (*AGENT, AGENT[1], "mwaa-migration/demo/requests/r1.json", *THEIRS):
            self.s3.put_object("bucket", key, b"{}")
        self.log.clear()

    time = Clock.monotonic
    region = "eu-central-1"

    @property
    def tunnel(self) -> None:
        return None

    def client(self, service: str, **_config: Any) -> Any:
        return self.s3 if service == "s3" else self

    def elsewhere(self, **_where: Any) -> World:
        return self

    def parse(self) -> None:
        """Airflow 2 parses what stands in the place of the agent's DAG file, now and then."""
        text = self.s3.current()[AGENT[1]].decode()
        assert "CANARY-url" in text and "settings.engine" in text
        self.parsed += 1
        if self.parsed % 2 == 0:
            if self.rows is None:
                self.dags.clear()
            report = self.rows or {"rows": {"dag": 1} if self.parsed == 2 else {}}
            self.s3.put_object("bucket", "mwaa-migration/demo/cleanup.json", json.dumps(report).encode())

    def get_environment(self, Name: str) -> dict[str, Any]:
        if not self.environment or Name not in ("demo", "old"):
            raise aws_failure("ResourceNotFoundException", status=404)
        old = {"Name": "old", "ExecutionRoleArn": f"{ROLE}-old", "DagS3Path": "old-dags"} if Name == "old" else {}
        return {"Environment": {**self.environment, **old}}

    def get_role_policy(self, RoleName: str, PolicyName: str) -> dict[str, Any]:
        if (RoleName, PolicyName) not in self.policies:
            raise aws_failure("NoSuchEntity", status=404)
        return {}

    def delete_role_policy(self, RoleName: str, PolicyName: str) -> None:
        self.policies.remove((RoleName, PolicyName))

    def get_paginator(self, name: str) -> Any:
        assert name == "list_grants"
        return SimpleNamespace(paginate=lambda KeyId: [{"Grants": list(self.grants)}])

    def revoke_grant(self, KeyId: str, GrantId: str) -> None:
        self.grants = [grant for grant in self.grants if grant["GrantId"] != GrantId]
        self.log.append(f"revoke {GrantId}")

    def invoke_rest_api(self, Name: str, Method: str, Path: str, QueryParameters: Any = None, Body: Any = None) -> Any:
        name = Path.split("/")[2] if Path.startswith("/dags/") else ""
        if Path.endswith("/dagRuns"):
            return reply({"dag_runs": self.runs})
        if name not in self.dags or Name == "old":
            raise ClientError(
                {"Error": {"Code": "RestApiClientException"}, "RestApiStatusCode": 404, "RestApiResponse": {}}, "x"
            )
        if Method == "DELETE":
            self.log.append(f"DELETE {Path}")
            return reply(self.dags.pop(name))
        if not [key for key in self.s3.current() if key in AGENT]:
            self.dags[name]["is_stale"] = True
            return reply(self.dags[name])
        return reply(self.dags[name])

    def clean(self, check: bool = False, **options: Any) -> dict[str, Any]:
        params: dict[str, Any] = dict.fromkeys(ARGUMENT_SPEC)
        params.update({"environment": "demo", "kms_key_id": "key", "wait_timeout": 600, **options})
        return cleanup(SimpleNamespace(params=params, aws=self, check_mode=check, diff_mode=True), clock=self)


def left(name: str, **how: str) -> dict[str, Any]:
    """One of source_environments, as the module has it."""
    return {**dict.fromkeys(("region", "profile", "role_arn", "kms_key_id")), "name": name, **how}


def of(environment: str) -> dict[str, Any]:
    return {"EncryptionContextEquals": {"environment": environment}}


def reply(body: Any) -> dict[str, Any]:
    return {"RestApiStatusCode": 200, "RestApiResponse": body}


@pytest.mark.parametrize("version", ["2.11.2", "3.2.1"])
def test_ours_goes_with_all_versions_theirs_stays_and_again_changes_nothing(version: str) -> None:
    world = World(version)
    shown = world.clean(check=True)
    assert shown["changed"] and not world.log
    done = world.clean()
    assert done["removed"] == shown["removed"] and done["diff"]["before"] and not done["diff"]["after"]
    assert {key for key, _version, _content in world.s3.versions} == set(THEIRS)
    assert [grant["GrantId"] for grant in world.grants] == ["g2", "g3", "g4"] and not world.dags
    again = world.clean()
    assert not again["changed"] and not again["removed"]
    assert len(again["remains"]) == (0 if version[0] == "2" else 2)
    assert all("Airflow 3 has no way" in rest["reason"] for rest in again["remains"])


def test_on_airflow_2_rows_go_before_the_file_that_removes_them_and_after_a_parsing_that_found_none() -> None:
    world = World()
    world.clean()
    put, first_purge = world.log.index(f"put {AGENT[1]}"), world.log.index(f"purge {AGENT[0]}")
    assert world.log.index(f"delete {AGENT[0]}") < put < first_purge and world.parsed >= 4
    assert not [line for line in world.log if line.startswith("DELETE")]  # that would be told in the audit log


def test_an_airflow_that_parses_a_file_only_when_it_has_changed_is_not_waited_for_in_vain() -> None:
    """scheduler.min_file_process_interval may be an hour."""

    class Slow(World):
        seen = ""

        def parse(self) -> None:
            latest = [version for key, version, _content in self.s3.versions if key == AGENT[1]][-1]
            if latest != self.seen:
                self.seen = latest
                super().parse()
                super().parse()

    world = Slow()
    assert world.clean()["changed"] and not world.dags
    assert {key for key, _version, _content in world.s3.versions} == set(THEIRS)


def test_an_import_of_history_that_is_not_at_its_end_is_a_sentence() -> None:
    world = World()
    world.rows = {"waiting": ["etl", "ti_state"]}
    with pytest.raises(MigrationError, match=r"not at its end.* \(etl, ti_state\): run mwaa_history_import again"):
        world.clean()
    assert world.dags


def test_a_report_that_comes_after_the_file_is_gone_goes_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing but the agent's files was there; a scheduler that has not seen their end yet reports once more."""
    world = World()
    world.s3.versions = [row for row in world.s3.versions if not row[0].startswith("mwaa-migration/demo/requests/")]
    purge, late = world.s3.delete_objects, []

    def slow(Bucket: str, Delete: dict[str, Any]) -> dict[str, Any]:
        reply = purge(Bucket, Delete)
        if not late:
            late.append(world.s3.put_object("bucket", "mwaa-migration/demo/cleanup.json", b"{}"))
        return reply

    monkeypatch.setattr(world.s3, "delete_objects", slow)
    assert world.clean()["changed"] and late
    assert {key for key, _version, _content in world.s3.versions} == set(THEIRS)


def test_a_report_of_an_interrupted_cleanup_says_nothing_of_now() -> None:
    world = World()
    world.s3.put_object("bucket", "mwaa-migration/demo/cleanup.json", b'{"rows": {}}')
    assert world.clean()["changed"] and world.parsed >= 4 and not world.dags
    assert {key for key, _version, _content in world.s3.versions} == set(THEIRS)


def test_rows_of_a_private_airflow_3_stay_and_are_not_said_to_be_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World("3.2.1")
    monkeypatch.setattr(AgentLane, "access", Access(False, False, "The web server is private."))
    done = world.clean()
    assert "DAGs of the agent and their rows" not in [entry["what"] for entry in done["removed"]]
    assert [(entry["what"], entry["reason"]) for entry in done["remains"]] == [
        ("rows of the agent's DAGs", "The web server is private.")
    ]


def test_on_airflow_3_a_dag_is_deleted_once_its_file_is_gone() -> None:
    world = World("3.2.1")
    world.clean()
    assert world.log.index(f"purge {AGENT[1]}") < world.log.index("DELETE /dags/mwaa_agent")


def test_nothing_is_removed_while_a_request_is_served() -> None:
    world = World()
    world.runs.append({"dag_run_id": "rnow", "state": "running"})
    with pytest.raises(MigrationError, match="the agent is serving rnow in environment demo: nothing was removed"):
        world.clean()
    assert not world.log


def test_an_environment_that_is_updating() -> None:
    world = World()
    world.environment["Status"] = "UPDATING"
    with pytest.raises(MigrationError, match="environment demo is UPDATING, so nothing was removed"):
        world.clean()
    assert not world.log


def test_where_nobody_can_be_asked_requests_that_have_not_expired_count_as_served(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = World()
    world.environment["AirflowVersion"] = "2.2.2"
    request = {"id": "r" + "1" * 32, "expires_at": world.now + 60}
    world.s3.put_object("bucket", "mwaa-migration/demo/requests/r1.json", json.dumps(request).encode())
    with pytest.raises(MigrationError, match="the agent is serving r1111"):
        world.clean()
    world.now += 120
    assert world.clean()["changed"]
    assert {key for key, _version, _content in world.s3.versions} == set(THEIRS)


def test_versions_that_may_not_be_deleted_are_a_sentence() -> None:
    world = World("3.2.1")
    world.refusal = {"Errors": [{"Key": AGENT[0], "Code": "AccessDenied"}]}
    with pytest.raises(MigrationError, match="allow s3:DeleteObjectVersion"):
        world.clean()


def test_grants_that_may_not_be_listed_are_said(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()

    def denied(KeyId: str) -> Any:
        raise aws_failure("AccessDeniedException", operation="ListGrants")

    monkeypatch.setattr(world, "get_paginator", lambda _name: SimpleNamespace(paginate=denied))
    [rest] = world.clean()["remains"]
    assert rest["what"] == "KMS grants" and "kms:ListGrants is not allowed" in rest["reason"]


def test_grants_of_an_alias_cannot_be_listed_which_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()
    monkeypatch.setattr(world, "get_paginator", lambda _name: pytest.fail("KMS takes no alias there"))
    [rest] = world.clean(kms_key_id="alias/bundles")["remains"]
    assert (rest["what"], rest["where"]) == ("KMS grants", "alias/bundles") and "the key's ARN" in rest["reason"]


def test_the_right_that_was_given_for_the_migration_goes_and_no_other() -> None:
    world = World()
    before = set(world.policies)
    world.policies.add(("execution", "mwaa-migration-temporary-demo"))
    done = world.clean()
    assert {"what": "temporary policies", "where": "of execution", "count": 1} in done["removed"]
    assert world.policies == before and not world.clean()["changed"]


def test_sources_in_two_regions_are_each_looked_for_in_their_own() -> None:
    """After runs that were killed in both: the agent and a grant of its are in each."""
    world, abroad = World(), World()
    abroad.region, abroad.now, worlds = "us-east-1", world.now, {None: world, "us-east-1": abroad}
    asked: list[dict[str, Any]] = []

    def elsewhere(**where: Any) -> World:
        asked.append(where)
        return worlds[where["region"]]

    world.elsewhere = elsewhere  # type: ignore[method-assign]
    there = left("old", region="us-east-1", role_arn="arn:aws:iam::444455556666:role/reader", kms_key_id="key-of-us")
    for one in (world, abroad):
        one.dags.clear()
        one.s3.put_object("bucket", "old-dags/mwaa_migration/airflow_agent.py", b"{}")
        one.s3.put_object("bucket", "mwaa-migration/old/requests/r9.json", b"{}")
    abroad.grants = [
        {"Name": "mwaa-migration-r9", "GrantId": "g9", "GranteePrincipal": f"{ROLE}-old", "Constraints": of("old")}
    ]
    looked: list[str] = []
    pages = abroad.get_paginator("list_grants").paginate
    paginator = SimpleNamespace(paginate=lambda KeyId: looked.append(KeyId) or (pages(KeyId) if "us" in KeyId else []))
    abroad.get_paginator = lambda _name: paginator  # type: ignore[method-assign]
    done = world.clean(source_environments=[left("old"), there])
    assert done["changed"] and not done["remains"] and looked == ["key", "key-of-us"] and not abroad.grants
    assert [one["role_arn"] for one in asked] == [None, there["role_arn"]]
    for one in (world, abroad):
        assert not [key for key in one.s3.current() if "old-dags/mwaa_migration" in key or "old/requests" in key]
    assert not world.clean(source_environments=[left("old"), there])["changed"]


def test_the_role_has_every_source_with_how_its_own_host_is_reached(tmp_path: Path) -> None:
    hosts = {
        "analytics-eu": {},
        "us": {"migration_source_environment": "analytics-us", "migration_source_region": "us-east-1",
               "migration_source_profile": "old", "migration_source_kms_key_id": "key-of-us"},
        "again": {"migration_source_environment": "analytics-eu"},
    }  # fmt: skip
    groups = {"mwaa_source": {"hosts": hosts}, "mwaa_target": {"hosts": {"demo": {"ansible_connection": "local"}}}}
    (tmp_path / "inventory.yml").write_text(json.dumps(groups))
    wanted = {"content": "{{ cleanup_source_environments | to_json }}", "dest": str(tmp_path / "said")}
    defaults = str(Path(__file__).parents[2] / "roles/cleanup/defaults/main.yml")
    play = {
        "hosts": "mwaa_target",
        "gather_facts": False,
        "vars": {"migration_source_region": "eu-west-1", "ansible_python_interpreter": sys.executable},
        "vars_files": [defaults],
        "tasks": [{"ansible.builtin.copy": wanted}],
    }
    (tmp_path / "play.yml").write_text(json.dumps([play]))
    command = [str(Path(sys.executable).parent / "ansible-playbook"), "-i", "inventory.yml", "play.yml"]
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
    of_each = json.loads((tmp_path / "said").read_text())
    none = dict.fromkeys(("region", "profile", "role_arn", "kms_key_id"), "")
    us = {"name": "analytics-us", "region": "us-east-1", "profile": "old", "kms_key_id": "key-of-us"}
    assert of_each == [{**none, "name": "analytics-eu"}, {**none, **us}]


def test_the_agent_goes_from_the_environment_that_is_left_too() -> None:
    """After a run that was killed: what was published belongs to another migration there, and stays."""
    world = World()
    world.dags.clear()
    theirs = ("old-dags/daily.py", "mwaa-migration/published/old-dags.json")
    ours = ("old-dags/mwaa_migration/airflow_agent.py", "mwaa-migration/old/requests/r9.json")
    for key in (*ours, *theirs):
        world.s3.put_object("bucket", key, b"{}")
    done = world.clean(source_environments=[left("old")])
    assert {"what": "versions of requests and answers", "where": "s3://bucket/", "count": 1} in done["removed"]
    assert set(theirs) < set(world.s3.current()) and not set(ours) & set(world.s3.current())
    assert not world.clean(source_environments=[left("old")])["changed"]


def test_a_source_that_is_not_there_is_said_with_where_it_was_looked_for() -> None:
    [gone] = World().clean(source_environments=[left("older")])["remains"]
    assert gone["where"] == "environment older" and "it is not in eu-central-1 (any more)" in gone["reason"]


def test_what_to_retire_of_an_environment_is_told_as_of_an_environment(bundle: Path) -> None:
    manifest = json.loads((bundle / "manifest.json").read_text())
    arn = "arn:aws:airflow:eu-central-1:111122223333:environment/old"
    manifest["source"] = {"airflow_version": "2.10.3", "hostname": "old", "database": arn}
    (bundle / "manifest.json").write_text(json.dumps(manifest))
    retire = World().clean(bundle=str(bundle))["retire"]
    assert retire[1].startswith("Delete environment old; its database goes with it")


def test_rights_that_cannot_be_looked_for_are_said(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()

    def denied(**_all: str) -> Any:
        raise aws_failure("AccessDenied", operation="GetRolePolicy")

    monkeypatch.setattr(world, "get_role_policy", denied)
    [rest] = world.clean()["remains"]
    assert rest["where"] == "role execution" and "iam:GetRolePolicy is not allowed" in rest["reason"]


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """A month old, at day 40 of the world's clock."""
    source = {"airflow_version": "2.10.3", "hostname": "airflow-1", "airflow_home": "/srv/airflow"}
    created = datetime.datetime.fromtimestamp(10 * 86400, datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
    manifest = {"created_at": created, "source": source, "key": {"kms_key_id": "key"}, "files": [{"path": "dags/a.py"}]}
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    (tmp_path / "dags").mkdir()
    (tmp_path / "dags/a.py").write_text("x")
    return tmp_path


@pytest.mark.parametrize(("days", "stays"), [(None, True), (31, True), (30, False), (0, False)])
def test_the_bundle_goes_when_it_is_old_enough(bundle: Path, days: int | None, stays: bool) -> None:
    world = World()
    world.now = 40 * 86400.0
    done = world.clean(bundle=str(bundle), keep_bundle_days=days)
    assert (bundle / "manifest.json").exists() is stays
    assert not list(bundle.rglob("locks/*.json"))
    assert ("files of the bundle" in [entry["what"] for entry in done["removed"]]) is not stays
    assert done["retire"][0].startswith("Pause what is not paused yet in Airflow 2.10.3 on airflow-1")
    assert any("keep_bundle_days: 0" in step for step in done["retire"]) is stays


def test_another_ones_lock_is_respected(bundle: Path) -> None:
    (bundle / "locks").mkdir()
    owner = {"user": "ada", "host": "elsewhere", "place": "p", "pid": 1, "born": "1"}
    (bundle / "locks/demo.json").write_text(json.dumps({"owner": owner, "since": "today"}))
    world = World()
    with pytest.raises(MigrationError, match="is locked: ada on elsewhere"):
        world.clean(bundle=str(bundle))
    assert not world.log


def test_of_a_folder_only_what_the_bundle_wrote_goes(bundle: Path) -> None:
    theirs = {"thesis.tex", "dags/mine.py", "ledger/notes.txt", "history/rome.tex", "logs/mine.log"}
    ours = {"ledger/demo.json", "history/manifest.json", "history/progress.json", "history/parts/a1/1-0001.gz"}
    ours |= {
        "history/interim/demo.json",
        "logs/manifest.json",
        "logs/lists/etl",
        "logs/parts/1",
        "logs/ledger/demo/etl",
    }
    for path in theirs | ours:
        (bundle / path).parent.mkdir(exist_ok=True, parents=True)
        (bundle / path).write_text("x")
    world = World()
    world.now = 40 * 86400.0
    world.clean(bundle=str(bundle), keep_bundle_days=0)
    left = {file.relative_to(bundle).as_posix() for file in bundle.rglob("*") if file.is_file()}
    assert left == theirs


def test_in_a_bucket_the_bundle_and_its_locks_go_with_all_versions_and_the_rest_stays() -> None:
    """The bundle is at the root of the environment's own bucket: nothing tells its files but the manifest."""
    world = World("3.2.1")
    manifest = {"created_at": "1970-01-01T00:00:00Z", "files": [{"path": "options.json"}, {"path": "state/pools"}]}
    for key in ("options.json", "options.json", "state/pools", "ledger/demo.json"):
        world.s3.put_object("bucket", key, b"{}")
    world.s3.put_object("bucket", "manifest.json", json.dumps(manifest).encode())
    done = world.clean(bundle="s3://bucket", keep_bundle_days=0)
    assert {"what": "files of the bundle", "where": "s3://bucket", "count": 4} in done["removed"]
    assert {key for key, _version, _content in world.s3.versions} == set(THEIRS)
    assert world.log.index("purge manifest.json") > world.log.index("purge options.json")


def test_a_bundle_that_another_environment_is_filled_from_stays(bundle: Path) -> None:
    (bundle / "locks").mkdir()
    owner = {"user": "ada", "host": "elsewhere", "place": "p", "pid": 1, "born": "1"}
    (bundle / "locks/other.json").write_text(json.dumps({"owner": owner, "since": "today"}))
    world = World()
    world.now = 40 * 86400.0
    with pytest.raises(MigrationError, match="locked: ada on elsewhere .* has been migrating into other"):
        world.clean(bundle=str(bundle), keep_bundle_days=0)
    assert not world.log and (bundle / "manifest.json").exists()
    assert world.clean(bundle=str(bundle))["changed"]  # which does not touch the bundle


def test_several_bundles_of_one_environment(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Each has its lock, its key, and its source; the younger one is kept."""
    young = tmp_path_factory.mktemp("young")
    manifest = {"created_at": "1970-02-08T00:00:00Z", "source": {"hostname": "airflow-2"}, "key": {"kms_key_id": "key"}}
    (young / "manifest.json").write_text(json.dumps(manifest))
    world = World()
    world.now = 40 * 86400.0
    done = world.clean(bundles=[str(bundle), str(young)], keep_bundle_days=30)
    assert (young / "manifest.json").exists() and not (bundle / "manifest.json").exists()
    assert not [*bundle.rglob("locks/*"), *young.rglob("locks/*")]
    paused = [step for step in done["retire"] if step.startswith("Pause")]
    assert [step.split(" on ")[1].split(",")[0] for step in paused] == ["airflow-1", "airflow-2"]


def test_without_an_environment_there_is_the_bundle_alone(bundle: Path) -> None:
    world = World()
    world.environment = {}
    world.now = 40 * 86400.0
    done = world.clean(bundle=str(bundle), keep_bundle_days=0)
    assert [entry["what"] for entry in done["removed"]] == ["files of the bundle"] and not world.log
