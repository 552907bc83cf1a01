# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The bundle: what is written is what is read, or it is refused with the file named."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import boto3
import pytest
from ansible_collections.mwaa.migration.plugins.module_utils._bundle import (
    FOUND,
    Bundle,
    LocalStore,
    StoredFile,
    canonical,
    changed_items,
    check_path,
    digest,
    open_store,
    state_path,
)
from ansible_collections.mwaa.migration.plugins.module_utils._errors import MigrationError
from botocore.config import Config
from export_fakes import FakeAws
from hypothesis import given, settings
from hypothesis import strategies as st

SOURCE = {"airflow_version": "2.10.3"}
TEXT = st.text(st.characters(exclude_categories=["Cs"]))  # what a database can hold: everything but surrogates


@pytest.fixture(params=["folder", "s3"])
def where(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path / "bundle") if request.param == "folder" else "s3://bucket/some/prefix"


@pytest.fixture
def aws() -> FakeAws:
    return FakeAws()


def make(where: str, aws: FakeAws) -> Bundle:
    store = open_store(where, aws)
    bundle = Bundle.create(store, aws, "alias/key", SOURCE)
    bundle.files["dags/a.py"] = store.write("dags/a.py", b"print(1)")
    for kind, items in (("variables", {"a": "CANARY-var-00000001"}), ("connections", {}), ("pools", {})):
        text = json.dumps(items).encode()
        stored = store.write(state_path(kind), bundle.seal(text))
        bundle.files[stored.path] = StoredFile(**{**stored.__dict__, "content": bundle.content_digest(text)})
    bundle.save()
    return bundle


def test_what_was_saved_is_opened(where: str, aws: FakeAws) -> None:
    made = make(where, aws)
    bundle = Bundle.open(open_store(where, aws), aws)
    bundle.check()
    assert bundle.files == made.files
    assert bundle.source == SOURCE
    assert bundle.read("dags/a.py") == b"print(1)"
    assert bundle.read_state("variables") == {"a": "CANARY-var-00000001"}
    assert bundle.digest_key == made.digest_key != bundle.data_key


def test_nothing_in_the_store_is_in_clear(where: str, aws: FakeAws) -> None:
    bundle = make(where, aws)
    for path in bundle.store.list():
        assert b"CANARY-" not in bundle.store.read(path)
        assert bundle.data_key not in bundle.store.read(path)


def test_no_bundle_is_one_sentence(where: str, aws: FakeAws) -> None:
    with pytest.raises(MigrationError, match="there is no bundle at .*: export one, or correct the name"):
        Bundle.open(open_store(where, aws), aws)


@pytest.mark.parametrize("change", ["files", "source", "created_at", "bundle_id", "mac"])
def test_an_altered_manifest_is_refused(where: str, aws: FakeAws, change: str) -> None:
    bundle = make(where, aws)
    manifest = json.loads(bundle.store.read("manifest.json"))
    manifest[change] = (
        manifest[change][1:] if isinstance(manifest[change], list) else {"x": "y"} if change == "source" else "00"
    )
    bundle.store.write("manifest.json", json.dumps(manifest).encode())
    with pytest.raises(MigrationError, match=r"manifest\.json was altered"):
        Bundle.open(open_store(where, aws), aws)


def test_a_manifest_of_another_schema_is_named(where: str, aws: FakeAws) -> None:
    bundle = make(where, aws)
    manifest = json.loads(bundle.store.read("manifest.json"))
    bundle.store.write("manifest.json", json.dumps({**manifest, "schema_version": 2}).encode())
    with pytest.raises(MigrationError, match="has schema version 2, this collection knows 1"):
        Bundle.open(open_store(where, aws), aws)


def test_a_folder_names_the_file_that_was_altered_and_the_one_that_is_missing(tmp_path: Path, aws: FakeAws) -> None:
    make(str(tmp_path), aws)
    (tmp_path / "dags/a.py").write_bytes(b"print(2)")
    (tmp_path / state_path("pools")).unlink()
    bundle = Bundle.open(open_store(str(tmp_path), aws), aws)
    with pytest.raises(MigrationError) as error:
        bundle.check()
    assert "dags/a.py does not match the bundle's manifest" in error.value.message
    assert "pools.json.sealed is missing although the manifest names it" in error.value.message


def test_a_newer_object_version_is_not_read(aws: FakeAws) -> None:
    make("s3://bucket/prefix", aws)
    aws.s3.put_object(Bucket="bucket", Key="prefix/dags/a.py", Body=b"evil code")
    bundle = Bundle.open(open_store("s3://bucket/prefix", aws), aws)
    assert bundle.read("dags/a.py") == b"print(1)"


def test_a_key_of_another_bundle_does_not_open_it(where: str, aws: FakeAws, tmp_path: Path) -> None:
    other = make(str(tmp_path / "other"), aws)
    bundle = make(where, aws)
    manifest = json.loads(bundle.store.read("manifest.json"))
    bundle.store.write("manifest.json", json.dumps({**manifest, "key": other.key}).encode())
    with pytest.raises(MigrationError, match="its key belongs to another bundle"):
        Bundle.open(open_store(where, aws), aws)


def test_a_bundle_that_a_stranger_sealed_is_refused(where: str, aws: FakeAws) -> None:
    aws.kms.arn = theirs = "arn:aws:kms:eu-central-1:999999999999:key/1"  # with a grant for us, KMS opens it
    make(where, aws)
    store = open_store(where, aws)
    with pytest.raises(MigrationError, match="a key of another account: if it is yours, give that ARN as kms_key_id"):
        Bundle.open(store, aws)
    with pytest.raises(MigrationError, match="a key of another account"):
        Bundle.resume(store, aws, "alias/key")
    assert Bundle.open(store, aws, theirs).read("dags/a.py") == b"print(1)"


def test_an_interrupted_export_is_resumed_with_its_key(where: str, aws: FakeAws) -> None:
    store = open_store(where, aws)
    assert Bundle.resume(store, aws) is None
    begun = Bundle.create(store, aws, "alias/key", SOURCE)
    stored = {"dags/a.py": store.write("dags/a.py", b"1")}
    begun.save_progress(stored)
    resumed = Bundle.resume(store, aws)
    assert resumed is not None
    assert (resumed.data_key, resumed.bundle_id) == (begun.data_key, begun.bundle_id)
    assert (resumed.files, resumed.stored) == ({}, stored)
    resumed.files = stored
    resumed.save()
    assert not store.exists("export.progress.json")
    assert Bundle.open(store, aws).files == stored


def test_half_an_export_cannot_be_put_in_the_manifests_place(where: str, aws: FakeAws) -> None:
    bundle = make(where, aws)
    bundle.save_progress({"dags/a.py": bundle.files["dags/a.py"]})
    bundle.store.write("manifest.json", bundle.store.read("export.progress.json"))
    with pytest.raises(MigrationError, match=r"manifest\.json was altered"):
        Bundle.open(open_store(where, aws), aws)


@pytest.mark.parametrize(
    ("region", "bucket", "endpoint", "start"),
    [
        ("eu-central-1", "bucket", None, "https://bucket.s3.eu-central-1.amazonaws.com/prefix/a%20b?"),
        ("us-east-1", "a.bucket", None, "https://s3.amazonaws.com/a.bucket/prefix/a%20b?"),
        ("eu-central-1", "bucket", "http://localhost:4566", "http://localhost:4566/bucket/prefix/a%20b?"),
    ],
)
def test_presigned_urls_name_the_regional_endpoint(
    region: str, bucket: str, endpoint: str | None, start: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Real:
        def client(self, service: str, **config: Any) -> Any:
            return boto3.client(
                service,
                region_name=region,
                endpoint_url=endpoint,
                aws_access_key_id="id",
                aws_secret_access_key="key",  # noqa: S106
                config=Config(**config),
            )

    store = open_store(f"s3://{bucket}/prefix", Real())
    monkeypatch.setattr(
        store, "_encryption", lambda: {"ServerSideEncryption": ("x-amz-server-side-encryption", "AES256")}
    )
    url, headers = store.presign_put("a b", 3, "00" * 32, 60)  # type: ignore[attr-defined]
    signed = parse_qs(urlsplit(url).query)["X-Amz-SignedHeaders"]
    assert url.startswith(start)
    assert signed == ["content-length;host;x-amz-checksum-sha256;x-amz-server-side-encryption"]
    assert sorted(headers) == ["x-amz-checksum-sha256", "x-amz-server-side-encryption"]


def test_the_ledger_remembers_and_shows_when_it_was_altered(where: str, aws: FakeAws) -> None:
    bundle = make(where, aws)
    ledger = bundle.ledger("demo")
    assert ledger.get("variables", "a") is None
    ledger.put("variables", "a", bundle.digests("variables", "a", "value"))
    assert ledger.save()
    assert not ledger.save()
    again = bundle.ledger("demo")
    assert again.get("variables", "a") == bundle.digests("variables", "a", {"value": "value", "description": None})
    again.put("variables", "b", {"value": "x", FOUND: ""})  # not brought
    assert again.ids("variables") == {"a"}
    assert bundle.ledger("other").get("variables", "a") is None
    document = json.loads(bundle.store.read("ledger/demo.json"))
    bundle.store.write("ledger/other.json", json.dumps(document).encode())
    with pytest.raises(MigrationError, match=r"ledger/other\.json was altered"):  # another environment's ledger
        bundle.ledger("other")
    document["entries"] = {}
    bundle.store.write("ledger/demo.json", json.dumps(document).encode())
    with pytest.raises(MigrationError, match="was altered"):
        bundle.ledger("demo")


def test_a_stream_is_written_whole_or_not_at_all(where: str, aws: FakeAws) -> None:
    store = open_store(where, aws)
    chunks = [bytes([number]) * (1 << 20) for number in range(20)]
    stored = store.write_stream("dags/big", iter(chunks))
    assert (stored.size, store.read("dags/big")) == (20 << 20, b"".join(chunks))
    assert store.holds(stored, store.list())

    def broken() -> object:
        yield from chunks
        raise OSError(5, "Input/output error")

    with pytest.raises((MigrationError, OSError)):
        store.write_stream("dags/big", broken())
    assert store.read("dags/big") == b"".join(chunks)
    assert aws.s3.uploads == {}


@pytest.mark.parametrize("path", ["", "/etc/passwd", "../x", "a/../../x", "a//b", "a/./b", "a\0b"])
def test_paths_stay_inside(path: str, where: str, aws: FakeAws) -> None:
    with pytest.raises(MigrationError):
        check_path(path)
    with pytest.raises(MigrationError):
        open_store(where, aws).write(path, b"")


@pytest.mark.parametrize("url", ["s3://", "s3://UPPER/x", "https://x/y"])
def test_urls_that_are_none(url: str, aws: FakeAws) -> None:
    with pytest.raises(MigrationError):
        open_store(url, aws)


def test_changed_items_treats_both_forms_of_a_variable_alike() -> None:
    before = {"same": "1", "changed": "1", "removed": ""}
    after = {"same": {"value": "1", "description": None}, "changed": {"value": "1", "description": "d"}, "added": ""}
    assert list(changed_items(before, after, "variables")) == [
        ("added", "added"),
        ("changed", "changed"),
        ("removed", "removed"),
    ]


def test_digests_tell_kinds_ids_fields_and_types_apart() -> None:
    key = b"k" * 32
    values = {
        digest(key, kind, identifier, field, value)
        for kind in ("variable", "connection")
        for identifier in ("a", "b")
        for field in ("value", "extra")
        for value in (None, "", "1", 1, "None", True)
    }
    assert len(values) == 2 * 2 * 2 * 6
    assert digest(key, "variables", "a", "value", "x") == digest(key, "variable", "a", "value", "x")


@settings(max_examples=50, deadline=None)
@given(
    variables=st.dictionaries(TEXT, st.one_of(TEXT, st.fixed_dictionaries({"value": TEXT, "description": TEXT}))),
    connections=st.dictionaries(
        TEXT,
        st.fixed_dictionaries(
            {
                "conn_type": TEXT,
                "password": st.none() | TEXT,
                "extra": st.none() | TEXT,
                "port": st.none() | st.integers(-(2**31), 2**31 - 1),
            }
        ),
    ),
)
def test_any_state_arrives_equal(variables: dict, connections: dict) -> None:
    """Whatever a variable or connection can hold comes out of the sealed file as it went in, types included."""
    aws = FakeAws()
    bundle = Bundle.create(open_store("s3://bucket/prefix", aws), aws, "key", {})
    for kind, items in (("variables", variables), ("connections", connections)):
        text = json.dumps(items, ensure_ascii=True, sort_keys=True).encode()
        bundle.files[state_path(kind)] = bundle.store.write(state_path(kind), bundle.seal(text))
    bundle.save()
    opened = Bundle.open(bundle.store, aws)
    assert opened.read_state("variables") == variables
    assert opened.read_state("connections") == connections
    assert not list(changed_items(variables, opened.read_state("variables"), "variables"))
    for key, item in variables.items():
        assert opened.digests("variables", key, item) == bundle.digests("variables", key, canonical("variables", item))


def test_a_full_disk_leaves_what_was_there_and_nothing_half_written(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    store.write("dags/a.py", b"before")

    def chunks() -> Iterator[bytes]:
        yield b"x" * 100
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(MigrationError, match="dags/a.py cannot be written: No space left on device"):
        store.write_stream("dags/a.py", chunks())
    assert store.read("dags/a.py") == b"before"
    assert [path.name for path in (tmp_path / "dags").iterdir()] == ["a.py"]
