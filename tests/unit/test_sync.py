# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Publishing to a bucket: what is written, what is not, and in which order."""

from __future__ import annotations

import base64
import dataclasses
import datetime
import hashlib
import io
import json
import threading
import time
import zipfile
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.mwaa.migration.plugins.module_utils._dags import IgnoreRules
from ansible_collections.mwaa.migration.plugins.module_utils._errors import MigrationError
from ansible_collections.mwaa.migration.plugins.module_utils._sync import bucket as bucket_module
from ansible_collections.mwaa.migration.plugins.module_utils._sync.archive import plugins_zip
from ansible_collections.mwaa.migration.plugins.module_utils._sync.index import Index
from ansible_collections.mwaa.migration.plugins.module_utils._sync.publish import UNKNOWN_VERSION, diff_of, publish
from ansible_collections.mwaa.migration.plugins.module_utils._sync.source import Source, Target, beside, find_target
from ansible_collections.mwaa.migration.plugins.module_utils._sync.tree import folder_tree
from fake_s3 import FakeS3

EAGER = "from airflow import DAG\nDAG('eager', is_paused_upon_creation=False)\n"
CALM = "from airflow import DAG\nDAG('calm')\n"
TARGET = Target("bucket", "dags", "plugins.zip", "requirements.txt", "startup.sh", airflow_version="2.11.2")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    dags = tmp_path / "dags"
    (dags / "team").mkdir(parents=True)
    (dags / "calm.py").write_text(CALM)
    (dags / "team" / "more.py").write_text(CALM.replace("calm", "more"))
    return dags


def run(s3: FakeS3, folder: Path, *, check: bool = False, **options: Any) -> dict[str, Any]:
    s3.calls.clear()
    plugins = folder.parent / "plugins"
    source = Source(
        str(folder),
        folder_tree(folder),
        plugins=folder_tree(plugins) if plugins.is_dir() else None,
        requirements=b"boto3\n",
        syntax=options.pop("syntax", "regexp"),
    )
    return publish(s3, [source], options.pop("target", TARGET), check_mode=check, **options)


def test_everything_once_then_nothing(folder: Path) -> None:
    s3 = FakeS3()
    first = run(s3, folder)
    assert first["changed"]
    assert first["counts"] == {"created": 3, "updated": 0, "unchanged": 0, "deleted": 0, "extra": 0, "unstable": 0}
    assert s3.objects["dags/team/more.py"][0] == (folder / "team" / "more.py").read_bytes()

    second = run(s3, folder)
    assert not second["changed"] and second["counts"]["unchanged"] == 3
    assert s3.calls == [
        ("list", "dags/"),
        ("get", "mwaa-migration/published/dags.json"),
        ("head", "requirements.txt"),
    ]
    assert second["requirements_s3_object_version"] == first["requirements_s3_object_version"]


def test_two_at_one_moment_neither_forgets_what_the_other_published(folder: Path) -> None:
    """The second to end would write an index that knows nothing of the first one's files."""
    s3, index = FakeS3(), "mwaa-migration/published/dags.json"
    meanwhile = b'{"version": 2, "objects": {}, "facts": {"theirs": {}}}'
    put = s3.put_object

    def another_ends_first(Key: str, **given: Any) -> dict[str, Any]:
        if Key == "dags/calm.py" and index not in s3.objects:
            s3._store(index, meanwhile, "theirs", "")
        return put(Key=Key, **given)

    s3.put_object = another_ends_first  # type: ignore[method-assign]
    with pytest.raises(MigrationError, match="somebody else published to s3://bucket/dags/ at the same moment.*again"):
        run(s3, folder)
    assert s3.objects[index][0] == meanwhile
    assert not run(s3, folder)["changed"]  # what lies there is compared, and is its own from now on
    assert json.loads(s3.objects[index][0])["objects"].keys() >= {"dags/calm.py", "requirements.txt"}


def test_the_answer_to_an_index_that_was_written_is_lost_and_all_is_well(folder: Path) -> None:
    s3, put = FakeS3(), FakeS3.put_object

    def repeated(Key: str, **given: Any) -> dict[str, Any]:
        """As botocore does it: the second call meets what the first one wrote."""
        put(s3, Key=Key, **given)
        return put(s3, Key=Key, **given)

    s3.put_object = repeated  # type: ignore[method-assign]
    assert run(s3, folder)["changed"]
    assert not run(s3, folder)["changed"]


def test_check_mode_says_the_same_and_writes_nothing(folder: Path) -> None:
    s3 = FakeS3()
    check = run(s3, folder, check=True)
    assert s3.writes() == [] and check["counts"]["created"] == 3
    assert check["requirements_s3_object_version"] == UNKNOWN_VERSION
    real = run(s3, folder)
    assert [(item["key"], item["action"]) for item in check["results"]] == [
        (item["key"], item["action"]) for item in real["results"]
    ]
    assert not run(s3, folder, check=True)["changed"]


def test_one_changed_file_is_one_change(folder: Path) -> None:
    s3 = FakeS3()
    run(s3, folder)
    (folder / "calm.py").write_text(CALM + "# new\n")
    result = run(s3, folder)
    assert [item["key"] for item in result["results"] if item["changed"]] == ["dags/calm.py"]
    assert s3.writes() == ["dags/calm.py", "mwaa-migration/published/dags.json"]


def test_an_object_that_someone_else_changed_is_brought_back(folder: Path) -> None:
    s3 = FakeS3()
    run(s3, folder)
    s3.put_object("bucket", "dags/calm.py", b"other", 5, base64.b64encode(hashlib.sha256(b"other").digest()).decode())
    assert run(s3, folder)["counts"]["updated"] == 1
    assert s3.objects["dags/calm.py"][0] == CALM.encode()


@pytest.mark.parametrize("kms", [False, True])
def test_without_the_index_nothing_is_written_twice(folder: Path, kms: bool) -> None:
    s3 = FakeS3(kms=kms)  # with KMS the ETag says nothing; the checksum that was sent with the PUT does
    run(s3, folder)
    del s3.objects["mwaa-migration/published/dags.json"]
    result = run(s3, folder)
    assert not result["changed"]
    assert s3.writes() == ["mwaa-migration/published/dags.json"]
    assert not [key for name, key in s3.calls if name == "get" and key.startswith("dags/")]


def test_a_damaged_index_is_no_index(folder: Path) -> None:
    s3 = FakeS3()
    run(s3, folder)
    content, etag, version, checksum = s3.objects["mwaa-migration/published/dags.json"]
    s3.objects["mwaa-migration/published/dags.json"] = (content[:-9], etag, version, checksum)
    assert not run(s3, folder)["changed"]


def test_deletes_only_when_asked_and_never_the_agent(folder: Path) -> None:
    s3 = FakeS3()
    run(s3, folder)
    (folder / "calm.py").unlink()
    for key in ("dags/mwaa_migration/mwaa_agent.py", "dags/folder/"):
        s3.objects[key] = (b"", "e", "v", None)
    kept = run(s3, folder)
    assert not kept["changed"] and kept["extra"] == ["dags/calm.py"]
    assert run(s3, folder, check=True, delete=True)["counts"]["deleted"] == 1
    gone = run(s3, folder, delete=True)
    assert gone["counts"]["deleted"] == 1 and "dags/calm.py" not in s3.objects
    assert "dags/mwaa_migration/mwaa_agent.py" in s3.objects and "dags/folder/" in s3.objects
    assert not run(s3, folder, delete=True)["changed"]


def test_an_empty_source_does_not_empty_the_bucket(tmp_path: Path) -> None:
    (tmp_path / "dags").mkdir()
    with pytest.raises(MigrationError, match="no DAG file at all and delete is true"):
        run(FakeS3(), tmp_path / "dags", delete=True)


def test_eager_files_are_held_back_and_hidden_first(folder: Path) -> None:
    (folder / "eager.py").write_text(EAGER)
    s3 = FakeS3()
    result = run(s3, folder)
    assert result["held_back"] == [{"path": "eager.py", "line": 2, "reason": "is_paused_upon_creation is not True"}]
    assert s3.writes()[0] == "dags/.airflowignore" and "dags/eager.py" in s3.objects
    assert b"\n^eager\\.py$\n" in s3.objects["dags/.airflowignore"][0]
    assert not run(s3, folder)["changed"]

    released = run(s3, folder, hold_back=False)
    assert released["held_back"] == []
    assert [item["key"] for item in released["results"] if item["changed"]] == ["dags/.airflowignore"]
    assert s3.objects["dags/.airflowignore"][0] == b""
    assert not run(s3, folder, hold_back=False)["changed"]


def test_what_is_no_longer_held_back_stays_hidden_until_it_is_replaced(folder: Path) -> None:
    (folder / "eager.py").write_text(EAGER)
    s3 = FakeS3()
    run(s3, folder)
    (folder / "eager.py").write_text(CALM)
    (folder / "other.py").write_text(EAGER.replace("eager", "other"))
    s3.calls.clear()
    hidden: list[bytes] = []
    put = s3.put_object

    def watch(**params: Any) -> Any:
        if params["Key"].endswith(".py"):
            hidden.append(s3.objects["dags/.airflowignore"][0])
        return put(**params)

    s3.put_object = watch  # type: ignore[method-assign]
    run(s3, folder)
    assert len(hidden) == 2
    assert all(b"^eager\\.py$" in lines and b"^other\\.py$" in lines for lines in hidden)
    last = s3.objects["dags/.airflowignore"][0]
    assert b"eager" not in last and b"^other\\.py$" in last
    assert not run(s3, folder)["changed"]


def test_what_the_source_hides_is_never_seen_not_even_while_it_is_published(folder: Path) -> None:
    (folder / "eager.py").write_text(EAGER)
    (folder / ".airflowignore").write_text("eager\n")
    s3 = FakeS3()
    assert run(s3, folder)["held_back"] == []
    assert s3.writes()[0] == "dags/.airflowignore"
    (folder / "eager.py").write_text(EAGER + "# new\n")
    (folder / ".airflowignore").write_text("eager|old\n")
    run(s3, folder)
    assert s3.writes()[:3] == ["dags/.airflowignore", "dags/eager.py", "dags/.airflowignore"]


def test_an_object_of_somebody_elses_is_no_reason_to_take_the_lock(folder: Path) -> None:
    s3, taken = FakeS3(), []
    run(s3, folder, before_writing=lambda: taken.append("first"))
    s3.objects["dags/theirs.py"] = (b"", "e", "v", None)
    assert run(s3, folder, before_writing=lambda: taken.append("second"))["counts"]["extra"] == 1
    assert taken == ["first"]


def test_what_an_exception_kept_from_being_written_is_not_remembered_as_written(folder: Path) -> None:
    s3 = FakeS3()
    run(s3, folder)
    (folder / "calm.py").write_text(CALM + "# new\n")
    put = s3.put_object

    def broken(**params: Any) -> Any:
        if params["Key"] == "dags/calm.py":
            raise KeyboardInterrupt
        return put(**params)

    s3.put_object = broken  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        run(s3, folder)
    s3.put_object = put  # type: ignore[method-assign]
    assert [item["key"] for item in run(s3, folder)["results"] if item["changed"]] == ["dags/calm.py"]


def test_the_sources_ignore_file_is_carried_with_the_block_below_it(folder: Path) -> None:
    (folder / "eager.py").write_text(EAGER)
    (folder / ".airflowignore").write_text("team\n")
    s3 = FakeS3()
    result = run(s3, folder)
    assert result["ignored"] == ["team/more.py"] and "dags/team/more.py" in s3.objects
    assert s3.objects["dags/.airflowignore"][0].startswith(b"team\n# BEGIN mwaa.migration")
    released = run(s3, folder, hold_back=False)
    assert released["counts"]["updated"] == 1 and s3.objects["dags/.airflowignore"][0] == b"team\n"


def test_a_file_that_is_hidden_already_is_not_held_back(folder: Path) -> None:
    (folder / "eager.py").write_text(EAGER)
    (folder / ".airflowignore").write_text("eager\n")
    assert run(FakeS3(), folder)["held_back"] == []


def test_a_negation_further_down_does_not_release_a_held_back_file(folder: Path) -> None:
    (folder / "team" / "eager.py").write_text(EAGER)
    (folder / "team" / ".airflowignore").write_text("!eager.py\n")
    s3 = FakeS3()
    run(s3, folder, syntax="glob")
    assert s3.objects["dags/team/.airflowignore"][0].endswith(b"\n/eager.py\n# END mwaa.migration\n")


def test_held_back_files_are_hidden_whatever_syntax_the_environment_reads(folder: Path) -> None:
    (folder / "eager.py").write_text(EAGER)
    s3 = FakeS3()
    result = run(s3, folder, target=dataclasses.replace(TARGET, airflow_version="3.2.1"))
    assert result["airflow_configuration_options"] == {}  # there is no pattern of the source's
    for syntax in ("regexp", "glob"):
        assert IgnoreRules({".airflowignore": s3.objects["dags/.airflowignore"][0]}, syntax).hides("eager.py")


def test_a_file_that_is_hidden_with_another_is_listed_too(folder: Path) -> None:
    (folder / "eager.py").write_text(EAGER)
    (folder / "team" / "eager.py").write_text(CALM)
    held = run(FakeS3(), folder)["held_back"]
    assert [item["path"] for item in held] == ["eager.py", "team/eager.py"]
    assert held[1]["reason"] == "its path ends like that of a file that is held back"


def test_the_sources_patterns_keep_their_meaning_on_airflow_3(folder: Path) -> None:
    (folder / ".airflowignore").write_text("^team/\n")
    newer = dataclasses.replace(TARGET, airflow_version="3.2.1")
    result = run(FakeS3(), folder, target=newer)
    assert result["airflow_configuration_options"] == {"core.dag_ignore_file_syntax": "regexp"}
    with pytest.raises(MigrationError, match="set its option core.dag_ignore_file_syntax to regexp"):
        run(
            FakeS3(),
            folder,
            target=dataclasses.replace(newer, options={"core.dag_ignore_file_syntax": "glob"}),
        )


def test_a_pattern_that_hides_the_agent_is_a_finding(folder: Path) -> None:
    (folder / ".airflowignore").write_text("mwaa\n")
    assert "so that the agent lane cannot work" in run(FakeS3(), folder)["findings"][0]["what"]


def test_someone_elses_ignore_file_is_a_finding(folder: Path) -> None:
    s3 = FakeS3()
    s3.objects["dags/.airflowignore"] = (b".*", "e", "v", None)
    assert "may hide DAGs of the source" in run(s3, folder)["findings"][0]["what"]


def test_plugins_are_the_same_archive_for_the_same_files(folder: Path, tmp_path: Path) -> None:
    plugins = folder.parent / "plugins"
    plugins.mkdir()
    (plugins / "b.py").write_text("b = 1")
    (plugins / "a.sh").write_text("#!/bin/sh\n")
    s3 = FakeS3(kms=True)
    first = run(s3, folder)
    content = s3.objects["plugins.zip"][0]
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        assert archive.namelist() == ["a.sh", "b.py"]
        assert [entry.external_attr >> 16 & 0o777 for entry in archive.infolist()] == [0o755, 0o644]
    for path in plugins.iterdir():
        path.touch()  # another date, the same content
    assert run(s3, folder)["plugins_s3_object_version"] == first["plugins_s3_object_version"]
    assert b"".join(plugins_zip(folder_tree(plugins)).build().stream()) == content
    (plugins / "b.py").write_text("b = 2")
    assert run(s3, folder)["plugins_s3_object_version"] != first["plugins_s3_object_version"]


def test_plugins_that_are_gone_become_an_empty_archive(folder: Path) -> None:
    plugins = folder.parent / "plugins"
    plugins.mkdir()
    (plugins / "a.py").write_text("a = 1")
    s3 = FakeS3()
    run(s3, folder)
    (plugins / "a.py").unlink()
    result = run(s3, folder)
    assert result["plugins_s3_path"] == "plugins.zip"  # MWAA cannot take it away again
    assert zipfile.ZipFile(io.BytesIO(s3.objects["plugins.zip"][0])).namelist() == []
    assert not run(s3, folder)["changed"]


def test_every_failed_key_is_named_and_the_rest_is_kept(folder: Path) -> None:
    s3 = FakeS3()
    s3.refuse = {"dags/calm.py": "InternalError", "requirements.txt": "InternalError"}
    with pytest.raises(
        MigrationError, match=r"2 of 3 objects .*Failed: dags/calm.py, requirements.txt. 1 were written"
    ) as caught:
        run(s3, folder)
    assert caught.value.details["changed"] is True
    s3.refuse = {}
    again = run(s3, folder)
    assert again["counts"]["unchanged"] == 1 and again["counts"]["created"] == 2


def test_denied_once_is_not_tried_two_thousand_times(folder: Path) -> None:
    for number in range(200):
        (folder / f"d{number:03}.py").write_text(CALM)
    s3 = FakeS3()
    s3.refuse = {f"dags/d{number:03}.py": "AccessDenied" for number in range(200)}
    with pytest.raises(MigrationError, match="AWS denied it"):
        run(s3, folder)
    assert len(s3.writes()) < 100


def test_nothing_is_uploaded_when_what_hides_it_was_refused(folder: Path) -> None:
    (folder / "eager.py").write_text(EAGER)
    s3 = FakeS3()
    s3.refuse = {"dags/.airflowignore": "InternalError"}
    with pytest.raises(MigrationError, match="dags/.airflowignore"):
        run(s3, folder)
    assert not [key for key in s3.objects if key.startswith("dags/")]


def test_a_bucket_mwaa_would_refuse_is_refused_before_anything_is_written(folder: Path) -> None:
    s3 = FakeS3(versioning="Suspended")
    with pytest.raises(MigrationError, match="has no versioning"):
        run(s3, folder)
    s3 = FakeS3(region="eu-west-1")
    with pytest.raises(MigrationError, match="the bucket bucket is in us-east-1, and MWAA takes only .* eu-west-1"):
        run(s3, folder)
    assert s3.writes() == []


@pytest.mark.parametrize("size", [10, 300])
def test_a_file_that_changes_while_it_is_published_is_listed_and_never_half_there(
    folder: Path, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    monkeypatch.setattr(bucket_module, "PART", 64)
    (folder / "data.bin").write_bytes(b"1" * size)
    (folder / "gone.bin").write_bytes(b"2" * size)
    s3 = FakeS3()
    put = s3.get_bucket_versioning

    def meanwhile(**params: Any) -> Any:  # after the folder was listed, before anything is written
        (folder / "data.bin").write_bytes(b"3" * size)
        (folder / "gone.bin").unlink()
        return put(**params)

    s3.get_bucket_versioning = meanwhile  # type: ignore[method-assign]
    result = run(s3, folder)
    assert [item["id"] for item in result["not_carried"]] == ["data.bin", "gone.bin"]
    assert result["counts"]["unstable"] == 2 and result["counts"]["created"] == 3
    assert "dags/calm.py" in s3.objects and not [key for key in s3.objects if key.endswith(".bin")]
    assert s3.uploads == {}
    s3.get_bucket_versioning = put  # type: ignore[method-assign]
    assert [item["key"] for item in run(s3, folder)["results"] if item["changed"]] == ["dags/data.bin"]


@pytest.mark.parametrize("kms", [False, True])
def test_large_files_go_in_parts_and_are_known_again(folder: Path, monkeypatch: pytest.MonkeyPatch, kms: bool) -> None:
    monkeypatch.setattr(bucket_module, "PART", 64)
    (folder / "model.bin").write_bytes(bytes(range(200)))
    s3 = FakeS3(kms=kms)
    run(s3, folder)
    assert s3.objects["dags/model.bin"][0] == bytes(range(200)) and s3.calls.count(("part", "dags/model.bin")) == 4
    assert not run(s3, folder)["changed"]
    del s3.objects["mwaa-migration/published/dags.json"]
    assert not run(s3, folder)["changed"]  # by the checksums of its parts
    s3.refuse = {"dags/model.bin": "AccessDenied"}
    (folder / "model.bin").write_bytes(bytes(200))
    with pytest.raises(MigrationError, match=r"dags/model\.bin: AWS denied it"):
        run(s3, folder)
    assert s3.objects["dags/model.bin"][0] == bytes(range(200)) and s3.uploads == {}


def test_memory_does_not_grow_with_what_is_written(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bucket_module, "PART", 64)
    monkeypatch.setattr(bucket_module, "IN_FLIGHT", 256)
    for number in range(40):
        (folder / f"f{number:02}.bin").write_bytes(b"x" * (10 + 20 * number))
    held, most, lock = 0, 0, threading.Lock()

    class Watched(FakeS3):
        def put_object(self, **params: Any) -> Any:
            return self._watched(super().put_object, params)

        def upload_part(self, **params: Any) -> Any:
            return self._watched(super().upload_part, params)

        def _watched(self, call: Any, params: dict[str, Any]) -> Any:
            nonlocal held, most
            with lock:
                held += len(params["Body"])
                most = max(most, held)
            try:
                time.sleep(0.001)
                return call(**params)
            finally:
                with lock:
                    held -= len(params["Body"])

    s3 = Watched()
    monkeypatch.setattr(Index, "encode", lambda _self: b"{}")  # the index comes alone, after all the others
    assert run(s3, folder)["counts"]["created"] == 43
    assert 64 < most <= 256


def test_an_object_that_was_written_anew_with_the_same_tag_is_looked_at_again(folder: Path) -> None:
    s3 = FakeS3()
    run(s3, folder)
    s3.modified["dags/calm.py"] += datetime.timedelta(hours=1)
    assert not run(s3, folder)["changed"] and s3.writes() == ["mwaa-migration/published/dags.json"]
    s3.modified["dags/calm.py"] += datetime.timedelta(hours=1)
    content, etag, version, checksum = s3.objects["dags/calm.py"]
    s3.objects["dags/calm.py"] = (b"y" * len(content), "f" * 32, version, None)  # another's, as long
    assert run(s3, folder)["counts"]["updated"] == 1


def test_only_what_is_ours_and_as_we_left_it_is_deleted(folder: Path) -> None:
    s3 = FakeS3()
    run(s3, folder)
    s3.objects["dags/theirs.py"] = (b"x", "e", "v", None)
    put = b"edited in the bucket"
    s3.put_object("b", "dags/team/more.py", put, len(put), base64.b64encode(hashlib.sha256(put).digest()).decode())
    (folder / "calm.py").unlink()
    (folder / "team" / "more.py").unlink()
    (folder / "new.py").write_text(CALM)
    result = run(s3, folder, delete=True)
    assert result["extra"] == ["dags/team/more.py", "dags/theirs.py"]
    assert "dags/calm.py" not in s3.objects and s3.objects["dags/team/more.py"][0] == put


def test_diff_shows_names_not_content(folder: Path) -> None:
    (folder / "calm.py").write_text("PASSWORD = 'CANARY-dag-0011aabb'\n")
    diff = diff_of(run(FakeS3(), folder, check=True))
    assert "dags/calm.py (new, 33 bytes)" in diff["after"]
    assert "CANARY-" not in json.dumps(diff)


def test_keys_are_beside_the_dag_folder_unless_the_environment_says_otherwise() -> None:
    assert (beside("dags", "plugins.zip"), beside("team/dags", "plugins.zip")) == ("plugins.zip", "team/plugins.zip")
    options = dict.fromkeys(
        [
            "environment",
            "bucket",
            "dag_s3_path",
            "plugins_s3_path",
            "requirements_s3_path",
            "startup_script_s3_path",
            "airflow_version",
        ]
    )
    shown = {
        "SourceBucketArn": "arn:aws:s3:::theirs",
        "DagS3Path": "x/dags/",
        "PluginsS3Path": "p.zip",
        "AirflowVersion": "2.11.2",
    }
    target = find_target(options, shown)
    assert (target.bucket, target.dag_s3_path, target.plugins_s3_path, target.requirements_s3_path) == (
        "theirs",
        "x/dags",
        "p.zip",
        "x/requirements.txt",
    )
    assert find_target({**options, "bucket": "mine"}, None).dag_s3_path == "dags"
    with pytest.raises(MigrationError, match="environment demo does not exist"):
        find_target({**options, "environment": "demo"}, None)
