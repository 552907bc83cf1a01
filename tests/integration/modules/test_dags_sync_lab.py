# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""mwaa_dags_sync against S3: what reaches the bucket, and what the journal says of a repeat."""

from __future__ import annotations

import io
import random
import time
import zipfile
from collections.abc import Iterator
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


@pytest.fixture
def faults(lab: Any) -> Iterator[Any]:
    """faults({rule}, {rule}) -> these hold from now on; faults() -> none."""

    def order(*rules: dict[str, Any]) -> None:
        lab.admin("POST", "faults", list(rules))

    yield order
    order()


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
    assert len(lab.journal(before)) < 10


def test_large_binaries_go_in_parts_and_a_lost_index_writes_nothing_twice(
    lab: Any, run_module: Any, new_bucket: Any, tmp_path: Path
) -> None:
    model = random.Random(1).randbytes(20 << 20)
    (tmp_path / "a.py").write_bytes(CALM)
    (tmp_path / "model.bin").write_bytes(model)
    bucket = new_bucket()
    before = time.time()
    assert run_module("mwaa_dags_sync", source=str(tmp_path), bucket=bucket)["counts"]["created"] == 2
    assert sum(line["operation"] == "UploadPart" for line in lab.journal(before)) == 3
    assert content(lab, bucket, "dags/model.bin") == model
    lab.client("s3").delete_object(Bucket=bucket, Key="mwaa-migration/published/dags.json")
    before = time.time()
    assert not run_module("mwaa_dags_sync", source=str(tmp_path), bucket=bucket)["changed"]
    (only,) = writes(lab, before)
    assert "mwaa-migration/published/dags.json" in only


def test_bad_weather_ends_in_the_same_bucket(
    lab: Any, run_module: Any, new_bucket: Any, tmp_path: Path, faults: Any
) -> None:
    for number in range(60):
        (tmp_path / f"dag_{number:02}.py").write_text(f"from airflow import DAG\nDAG('d{number}')\n")
    (tmp_path / "model.bin").write_bytes(bytes(9 << 20))
    bucket = new_bucket()
    faults(
        {"service": "s3", "operation": "PutObject", "error": "SlowDown", "times": 5, "skip": 3},
        {"service": "s3", "operation": "PutObject", "error": "InternalError", "times": 2},
        {"service": "s3", "operation": "UploadPart", "reset": True, "times": 1},
        {"service": "s3", "operation": "PutObject", "reset": True, "after": True, "times": 2},
    )
    assert run_module("mwaa_dags_sync", source=str(tmp_path), bucket=bucket)["counts"]["created"] == 61
    faults()
    assert run_module("mwaa_dags_sync", source=str(tmp_path), bucket=bucket)["counts"]["unchanged"] == 61
    versions = lab.client("s3").list_multipart_uploads(Bucket=bucket)
    assert not versions.get("Uploads")


def test_credentials_that_expire_halfway_are_one_sentence_and_the_rest_is_done_later(
    lab: Any, run_module: Any, new_bucket: Any, tmp_path: Path, faults: Any
) -> None:
    for number in range(100):
        (tmp_path / f"dag_{number:02}.py").write_text(f"from airflow import DAG\nDAG('d{number}')\n")
    bucket = new_bucket()
    faults({"service": "s3", "operation": "PutObject", "error": "ExpiredToken", "skip": 40, "times": None})
    failed = run_module("mwaa_dags_sync", source=str(tmp_path), bucket=bucket)
    assert failed["failed"] and "the AWS credentials have expired" in failed["msg"] and "run again" in failed["msg"]
    faults()
    result = run_module("mwaa_dags_sync", source=str(tmp_path), bucket=bucket)
    assert result["counts"]["created"] + result["counts"]["unchanged"] == 100 and result["counts"]["unchanged"] == 40
    assert not run_module("mwaa_dags_sync", source=str(tmp_path), bucket=bucket)["changed"]


def test_two_bundles_into_one_environment(lab: Any, run_module: Any, new_bucket: Any, make_bundle: Any) -> None:
    sales = make_bundle({**FILES, "requirements.txt": b"boto3\npandas==2.1.0\n"})
    finance = make_bundle({**FILES, "requirements.txt": b"boto3\n", "startup.sh": b"export A=1\n"})
    bucket = new_bucket()
    sources = [{"source": sales, "into": "sales", "exclude": ["helpers/"]}, {"source": finance, "into": "finance"}]
    arguments = {"sources": sources, "bucket": bucket, "airflow_version": "2.11.2"}
    check = run_module("mwaa_dags_sync", **arguments, check=True)
    result = run_module("mwaa_dags_sync", **arguments)
    assert [item["key"] for item in result["results"]] == [item["key"] for item in check["results"]]
    keys = {item["key"] for item in result["results"]}
    assert "dags/finance/helpers/sql.py" in keys and "dags/sales/helpers/sql.py" not in keys
    assert content(lab, bucket, "requirements.txt") == b"boto3\npandas==2.1.0\n"
    assert content(lab, bucket, "dags/sales/.airflowignore").startswith(
        b"^sales/.*?(?:helpers)\n# BEGIN mwaa.migration"
    )
    assert not run_module("mwaa_dags_sync", **arguments)["changed"]
    # one of them alone, and what it has no longer
    alone = run_module("mwaa_dags_sync", **{**sources[1], "exclude": ["helpers/"]}, bucket=bucket, delete=True)
    assert [item["key"] for item in alone["results"] if item["action"] == "deleted"] == ["dags/finance/helpers/sql.py"]
    assert content(lab, bucket, "dags/sales/calm.py") == CALM

    other = make_bundle({**FILES, "requirements.txt": b"pandas==2.2.0\n"})
    before = time.time()
    arguments["sources"] = [sources[0], {"source": other, "into": "sales"}]
    refused = run_module("mwaa_dags_sync", **arguments)
    assert f"pandas is pandas==2.1.0 in {sales} and pandas==2.2.0 in {other}" in refused["msg"]
    assert writes(lab, before) == []


def test_a_private_web_server_is_a_finding_until_the_wheels_are_packed(
    lab: Any, base: Any, run_module: Any, tmp_path: Path
) -> None:
    name = base.environment(WebserverAccessMode="PRIVATE_ONLY", DagS3Path="private/dags")
    (tmp_path / "dags").mkdir()
    (tmp_path / "dags" / "a.py").write_bytes(CALM)
    (tmp_path / "wheels").mkdir()
    (tmp_path / "wheels" / "mine-1.0-py3-none-any.whl").write_bytes(b"wheel")
    (tmp_path / "requirements.txt").write_text("mine==1.0\n")
    arguments = {
        "source": str(tmp_path / "dags"),
        "requirements": str(tmp_path / "requirements.txt"),
        "environment": name,
    }
    (finding,) = run_module("mwaa_dags_sync", **arguments, check=True)["findings"]
    assert "the web server is private and reaches no package index" in finding["what"]
    result = run_module("mwaa_dags_sync", **arguments, wheels=str(tmp_path / "wheels"))
    assert result["findings"] == []
    assert content(lab, base.bucket, result["requirements_s3_path"]).startswith(b"--find-links /usr/local/airflow/pl")
    assert not run_module("mwaa_dags_sync", **arguments, wheels=str(tmp_path / "wheels"))["changed"]
