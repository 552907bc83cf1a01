# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""mwaa_dags_sync against S3: what reaches the bucket, and what the journal says of a repeat."""

from __future__ import annotations

import io
import time
import zipfile
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.lab

CALM = b"from airflow import DAG\nDAG('calm')\n"
EAGER = b"from airflow import DAG\nDAG('eager', is_paused_upon_creation=False)\n"
FILES = {
    "dags/calm.py": CALM,
    "dags/eager.py": EAGER,
    "dags/.airflowignore": b"helpers\n",
    "dags/helpers/sql.py": b"X = 'CANARY-dag-0badcafe'\n",
    "plugins/my_plugin.py": b"x = 1\n",
    "requirements.txt": b"--constraint x\nboto3\n",
}


def content(lab: Any, bucket: str, key: str) -> bytes:
    return lab.client("s3").get_object(Bucket=bucket, Key=key)["Body"].read()


def writes(lab: Any, since: float) -> list[str]:
    return [f"{line['operation']} {line.get('keys')}" for line in lab.journal(since) if line["access"] == "write"]


def test_a_bundle_check_run_again_change(lab: Any, run_module: Any, new_bucket: Any, make_bundle: Any) -> None:
    url, bucket = make_bundle(FILES), new_bucket()
    arguments = {"source": url, "bucket": bucket, "airflow_version": "2.11.2"}
    before = time.time()
    check = run_module("mwaa_dags_sync", **arguments, check=True, diff=True)
    assert check["changed"] and check["counts"]["created"] == 6
    assert "dags/calm.py (new" in check["diff"]["after"] and "CANARY-" not in str(check)
    assert writes(lab, before) == []

    first = run_module("mwaa_dags_sync", **arguments)
    assert first["changed"] and first["counts"] == check["counts"]
    assert [item["path"] for item in first["held_back"]] == ["eager.py"] and first["ignored"] == ["helpers/sql.py"]
    assert content(lab, bucket, "dags/helpers/sql.py") == FILES["dags/helpers/sql.py"]
    ignore = content(lab, bucket, "dags/.airflowignore")
    assert ignore.startswith(b"helpers\n# BEGIN mwaa.migration") and b"\n^eager\\.py$\n" in ignore
    with zipfile.ZipFile(io.BytesIO(content(lab, bucket, "plugins.zip"))) as archive:
        assert archive.namelist() == ["my_plugin.py"]
    version = lab.client("s3").head_object(Bucket=bucket, Key="plugins.zip")["VersionId"]
    assert first["plugins_s3_object_version"] == version

    before = time.time()
    again = run_module("mwaa_dags_sync", **arguments)
    assert not again["changed"] and again["plugins_s3_object_version"] == version
    assert writes(lab, before) == []
    assert not run_module("mwaa_dags_sync", **arguments, check=True)["changed"]


def test_a_folder_to_an_environments_own_places(lab: Any, base: Any, run_module: Any, tmp_path: Path) -> None:
    name = base.environment(DagS3Path="team/dags")
    (tmp_path / "a.py").write_bytes(CALM)
    result = run_module("mwaa_dags_sync", source=str(tmp_path), environment=name)
    assert result["bucket"] == base.bucket and result["results"][0]["key"] == "team/dags/a.py"
    (tmp_path / "a.py").unlink()
    (tmp_path / "b.py").write_bytes(CALM)
    result = run_module("mwaa_dags_sync", source=str(tmp_path), environment=name, delete=True)
    assert {item["key"]: item["action"] for item in result["results"]} == {
        "team/dags/a.py": "deleted",
        "team/dags/b.py": "created",
    }
    assert not run_module("mwaa_dags_sync", source=str(tmp_path), environment=name, delete=True)["changed"]


@pytest.mark.parametrize("local", [False, True])
def test_a_bundle_that_was_altered_is_refused(
    lab: Any, run_module: Any, new_bucket: Any, make_bundle: Any, tmp_path: Path, local: bool
) -> None:
    url, bucket = make_bundle(FILES, where=str(tmp_path / "bundle") if local else ""), new_bucket()
    if local:
        (tmp_path / "bundle" / "dags" / "calm.py").write_bytes(CALM.replace(b"calm", b"evil"))
    else:
        place, _slash, prefix = url[len("s3://") :].partition("/")
        lab.client("s3").put_object(Bucket=place, Key=f"{prefix}/dags/calm.py", Body=CALM.replace(b"calm", b"evil"))
    before = time.time()
    result = run_module("mwaa_dags_sync", source=url, bucket=bucket)
    assert result["failed"] and "does not match its manifest: dags/calm.py is missing or altered" in result["msg"]
    assert writes(lab, before) == []


def test_one_sentence_and_no_change(lab: Any, run_module: Any, new_bucket: Any, tmp_path: Path) -> None:
    (tmp_path / "a.py").write_bytes(CALM)
    place = str(tmp_path)
    before = time.time()
    for arguments, sentence in [
        ({"source": place, "environment": "nowhere"}, "the environment nowhere does not exist, so that its bucket"),
        ({"source": place, "bucket": "no-such-bucket-here"}, "the bucket no-such-bucket-here does not exist"),
        ({"source": "s3://no-such-bucket-here/x", "bucket": "b"}, "NoSuchBucket"),
        ({"source": f"s3://{new_bucket()}/x", "bucket": "b"}, "there is no bundle at"),
        ({"source": str(tmp_path / "nothing"), "bucket": "b"}, "does not exist; correct source"),
        ({"source": place, "bucket": "b", "requirements": str(tmp_path / "r.txt")}, "cannot read requirements"),
    ]:
        result = run_module("mwaa_dags_sync", **arguments)
        assert result["failed"] and sentence in result["msg"], result["msg"]
    assert [line for line in writes(lab, before) if "CreateBucket" not in line and "Versioning" not in line] == []


def test_a_bucket_in_another_region(lab: Any, run_module: Any, tmp_path: Path) -> None:
    (tmp_path / "a.py").write_bytes(CALM)
    name = f"elsewhere-{int(time.time())}"
    lab.client("s3", region="eu-west-1").create_bucket(
        Bucket=name, CreateBucketConfiguration={"LocationConstraint": "eu-west-1"}
    )
    result = run_module("mwaa_dags_sync", source=str(tmp_path), bucket=name)
    assert result["failed"] and f"the bucket {name} is in eu-west-1" in result["msg"]


def test_two_thousand_files_in_few_requests(lab: Any, run_module: Any, new_bucket: Any, tmp_path: Path) -> None:
    for number in range(2000):
        path = tmp_path / f"team{number % 20:02}" / f"dag_{number:04}.py"
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"from airflow import DAG\nDAG('d{number}')\n")
    bucket = new_bucket()
    assert run_module("mwaa_dags_sync", source=str(tmp_path), bucket=bucket)["counts"]["created"] == 2000
    before = time.time()
    assert run_module("mwaa_dags_sync", source=str(tmp_path), bucket=bucket)["counts"]["unchanged"] == 2000
    assert len(lab.journal(before)) <= 6
