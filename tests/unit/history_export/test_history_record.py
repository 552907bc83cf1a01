# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a bundle holds of history: whole, authentic, in the order in which it is brought in."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest
from agent_in_process import World
from ansible_collections.mwaa.migration.plugins.module_utils._bundle import Bundle, S3Store
from ansible_collections.mwaa.migration.plugins.module_utils._errors import MigrationError
from ansible_collections.mwaa.migration.plugins.module_utils._history.record import (
    MANIFEST,
    PARTS,
    PROGRESS,
    HistoryExport,
    Record,
    source_name,
)
from export_fakes import FakeAws

BODY = b"a piece"


@pytest.fixture
def bundle(monkeypatch: pytest.MonkeyPatch) -> Bundle:
    return World(monkeypatch).bundle()


def part(n: int, table: str, path: str = "", **of: Any) -> dict[str, Any]:
    digest = hashlib.sha256(BODY).hexdigest()
    piece = {"path": path or f"{PARTS}e1/{n}.gz", "size": len(BODY), "sha256": digest, "rows": 1, "raw": 9}
    return {"n": n, "table": table, "lo": 1, "hi": 2, "rows": 1, "digests": {}, "faults": [], "objects": [piece], **of}


def export(*parts: dict[str, Any], **of: Any) -> HistoryExport:
    known = {"id": "e1", "at": "2026-01-01T00:00:00Z", "airflow_version": "2.10.3", "target_version": "2.11.2"}
    return HistoryExport(**{**known, "dialect": "sqlite", "filters": {}, "parts": list(parts), **of})


def recorded(bundle: Bundle, *exports: HistoryExport) -> Record:
    record = Record(bundle, "abc")
    for one in exports:
        record.add(one)
    record.save()
    opened = Record.open(bundle)
    assert opened
    return opened


def test_what_was_saved_is_read_again(bundle: Bundle) -> None:
    assert Record.open(bundle) is None
    first, second = export(part(0, "dag_run"), mark={"xmin": 1}), export(id="e2", after="e1", mark={"xmin": 2})
    record = recorded(bundle, first, second)
    assert record.source == "abc"
    assert [one.id for one in record.exports] == ["e1", "e2"]
    assert record.exports[1].as_document() == second.as_document()
    assert [one.mark for one in record.exports] == [None, {"xmin": 2}]  # megabytes, of use to the next plan alone


def test_the_scope_is_kept_without_the_ids_of_a_delta(bundle: Bundle) -> None:
    record = recorded(bundle, export(scope={"omit": {}, "hash": "blake2b", "runs": "…", "after": {"xmin": 1}}))
    assert record.exports[0].scope == {"omit": {}, "hash": "blake2b"}


@pytest.mark.parametrize("field", ["source", "exports", "bundle_id"])
def test_what_somebody_changed_is_refused(bundle: Bundle, field: str) -> None:
    recorded(bundle, export(part(0, "dag_run")))
    document = json.loads(bundle.store.read(MANIFEST))
    document[field] = [] if field == "exports" else "another"
    bundle.store.write(MANIFEST, json.dumps(document).encode())
    with pytest.raises(MigrationError, match="history/manifest.json was altered .* remove history/ there"):
        Record.open(bundle)


def test_half_an_export_cannot_be_put_in_the_place_of_a_whole_one(bundle: Bundle) -> None:
    bundle.write_document(PROGRESS, {"source": "abc", "exports": []})
    bundle.store.write(MANIFEST, bundle.store.read(PROGRESS))
    with pytest.raises(MigrationError, match="was altered"):
        Record.open(bundle)


def test_another_bundles_record_is_refused(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    other = World(monkeypatch).bundle()
    recorded(other, export())
    bundle.store.write(MANIFEST, other.store.read(MANIFEST))
    with pytest.raises(MigrationError, match="was altered"):
        Record.open(bundle)


def test_what_is_no_json_is_damaged(bundle: Bundle) -> None:
    bundle.store.write(MANIFEST, b"{half")
    with pytest.raises(MigrationError, match="is damaged .* remove history/ there and export the history again"):
        Record.open(bundle)


def test_digests_of_parts_are_added() -> None:
    high = f"{2**128 - 1:032x}"
    one = export(
        part(0, "dag_run", digests={"a": [2, high], "b": [1, "0" * 31 + "5"]}),
        part(1, "dag_run", digests={"a": [3, "0" * 31 + "2"]}),
        part(2, "log", digests={"\\N": [1, "0" * 31 + "7"]}),
        part(3, "log_template", digests={"": [1, "0" * 32]}),
    )
    assert one.digests()["dag_run"] == {"a": [5, f"{1:032x}"], "b": [1, f"{5:032x}"]}
    assert one.dags() == ["a", "b"]
    assert one.rows("dag_run") == 2 and one.rows("xcom") == 0


def test_pieces_come_parents_first_and_know_whose_they_are() -> None:
    parts = [part(0, "xcom"), part(1, "dag_run", orphans=True), part(2, "job"), part(3, "task_instance")]
    pieces = export(*parts).pieces()
    assert [(piece["table"], piece["phase"], piece["orphans"]) for piece in pieces] == [
        ("job", 0, False),
        ("dag_run", 1, True),
        ("task_instance", 2, False),
        ("xcom", 3, False),
    ]


def test_a_piece_that_is_missing_or_another_one_is_named(bundle: Bundle) -> None:
    record = recorded(bundle, export(part(0, "dag_run"), part(1, "job")))
    (missing, other) = record.exports[0].pieces()
    bundle.store.write(other["path"], b"b piece")
    with pytest.raises(MigrationError, match=f"{missing['path']} is missing although the history's manifest names it"):
        record.read(missing)
    with pytest.raises(MigrationError, match=f"{other['path']} does not match the history's manifest"):
        record.read(other)
    bundle.store.write(other["path"], BODY)
    assert record.read(other) == BODY


def test_one_airflow_has_one_name_whatever_the_bundle() -> None:
    server = {"database": "postgresql://db/airflow", "airflow_home": "/srv", "hostname": "a"}
    assert source_name(server) == source_name({**server, "hostname": "b"})
    assert source_name(server) != source_name({**server, "database": "postgresql://db/other"})
    assert source_name(server, "2024-01-01") != source_name(server, "2024-05-05")
    file = {**server, "database": "sqlite:////srv/airflow.db"}
    assert source_name(file) != source_name({**file, "hostname": "b"})


def test_everything_that_stays_behind_is_listed() -> None:
    one = export(
        part(
            0,
            "xcom",
            faults=[{"table": "xcom", "key": {"dag_id": "etl", "key": "m"}, "what": "left out"}],
            more_faults=2,
        ),
        open=[
            {"dag_id": "etl", "run_id": "r1", "state": "running", "tasks": {"queued": 2}},
            {"dag_id": "etl", "run_id": "r2", "state": "queued", "tasks": {}, "again": True},
            {"dag_id": "etl", "run_id": "r3", "state": "queued", "tasks": {}, "again": True, "half": True},
        ],
        more_open=7,
        deferred=[{"dag_id": "etl", "task_id": "wait", "run_id": "r0", "map_index": -1}],
        losses=[{"table": "sla_miss", "column": None, "why": "the target has no such table"}],
        deleted={"tables": {}, "rows": {"xcom": 3}, "more": 3},
        filters={"dags": [], "exclude": ["tmp_*", "restore_*"], "tables": [], "since": None},
        scope={"only": None, "not": ["db_export", "mwaa_agent", "restore_metadata", "tmp_1"]},
    )
    assert {(item["kind"], item["id"]): item["reason"] for item in one.not_carried()} == {
        ("run", "etl r1"): "it is running with tasks in flight (2 queued); runs are carried when they have ended",
        ("run", "etl r2"): "it is queued again: the target keeps what it has; runs are carried when they have ended",
        ("run", "etl r3"): "it is queued again, since it was cleared while it was exported: the target may have a part"
        " of it alone, until it has ended and another export and import bring it whole; runs are carried when they have"
        " ended",
        ("run", "others"): "7 more that had not ended",
        ("task_instance", "etl wait r0 -1"): "deferred: it is carried without the trigger that it waits for",
        ("history", "DAG db_export"): "it has the name of a migration tool's own DAG",
        ("history", "sla_miss"): "the target has no such table",
        ("history", "xcom etl m"): "left out",
        ("history", "others"): "2 more values that could not be carried as they were",
        ("history", "xcom (deleted)"): "3 rows that an earlier export carried are gone at the source: deletions are not"
        " carried",
    }


def test_of_many_values_that_stay_behind_the_others_are_counted() -> None:
    faults = [{"table": "xcom", "key": {"key": f"k{n}"}, "what": "left out"} for n in range(1400)]
    listed = export(part(0, "xcom", faults=faults[:700], more_faults=5), part(1, "xcom", faults=faults[700:]))
    *named, others = listed.not_carried()
    assert [one["id"] for one in named] == [f"xcom k{n}" for n in range(1000)]
    assert others["reason"].startswith("405 more values")


def test_an_upload_of_unknown_length_signs_the_encryption_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    aws = FakeAws()
    signed: list[dict[str, Any]] = []

    def sign(_operation: str, Params: dict[str, Any], ExpiresIn: int) -> str:  # noqa: N803
        signed.append(Params)
        return "https://s3.test/signed"

    rule = {"SSEAlgorithm": "aws:kms", "KMSMasterKeyID": "arn:aws:kms:eu-central-1:123456789012:key/1"}
    encryption = {"Rules": [{"ApplyServerSideEncryptionByDefault": rule}]}
    reply = {"ServerSideEncryptionConfiguration": encryption}
    monkeypatch.setattr(aws.s3, "get_bucket_encryption", lambda **_params: reply, raising=False)
    monkeypatch.setattr(aws.s3, "generate_presigned_url", sign)
    url, headers = S3Store("bucket", "mig", aws).presign_new("history/parts/e1/1.gz", 900)
    assert url == "https://s3.test/signed"
    assert set(signed[0]) == {"Bucket", "Key", "ServerSideEncryption", "SSEKMSKeyId"}
    assert signed[0]["Key"] == "mig/history/parts/e1/1.gz"
    assert headers == {
        "x-amz-server-side-encryption": "aws:kms",
        "x-amz-server-side-encryption-aws-kms-key-id": rule["KMSMasterKeyID"],
    }
