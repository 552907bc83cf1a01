# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What tests of the export share: KMS and S3 in memory, and a host whose agent answers from a dict."""

from __future__ import annotations

import base64
import datetime
import hashlib
import io
import json
import os
import zlib
from types import SimpleNamespace
from typing import Any

from ansible_collections.mwaa.migration.plugins.module_utils._bundle import Bundle
from botocore.exceptions import ClientError
from cryptography.fernet import Fernet
from fakes import aws_failure, check_input


class FakeKms:
    """Wraps by remembering; refuses another context, as KMS does."""

    arn = "arn:aws:kms:eu-central-1:123456789012:key/1"

    def __init__(self) -> None:
        self.wrapped: dict[bytes, tuple[bytes, dict[str, str]]] = {}
        self.calls: list[str] = []

    def generate_data_key(self, **params: Any) -> dict[str, Any]:
        check_input("kms", "GenerateDataKey", params)
        self.calls.append("GenerateDataKey")
        key, blob = os.urandom(32), os.urandom(40)
        self.wrapped[blob] = (key, params["EncryptionContext"])
        return {"Plaintext": key, "CiphertextBlob": blob, "KeyId": self.arn}

    def decrypt(self, **params: Any) -> dict[str, Any]:
        check_input("kms", "Decrypt", params)
        self.calls.append("Decrypt")
        key, context = self.wrapped.get(params["CiphertextBlob"], (b"", None))
        if context != params["EncryptionContext"]:
            raise aws_failure("InvalidCiphertextException", operation="Decrypt")
        return {"Plaintext": key, "KeyId": self.arn}


def _etag(body: bytes) -> str:
    return f'"{hashlib.md5(body).hexdigest()}"'  # noqa: S324


class FakeS3:
    """One versioned bucket."""

    meta = SimpleNamespace(endpoint_url="https://s3.eu-central-1.amazonaws.com")

    def __init__(self) -> None:
        self.objects: dict[str, list[tuple[str, bytes]]] = {}
        self.writes: list[str] = []
        self.uploads: dict[str, list[bytes]] = {}
        self.fail_after: int | None = None  # writes until the network goes
        self.now = datetime.datetime(2026, 11, 21, 7, tzinfo=datetime.timezone.utc)
        self.ages: dict[str, float] = {}  # seconds

    def put_object(self, **params: Any) -> dict[str, Any]:
        check_input("s3", "PutObject", params)
        versions = self.objects.get(params["Key"])
        if params.get("IfNoneMatch") == "*" and versions:
            raise aws_failure("PreconditionFailed", status=412)
        if params.get("IfMatch") and (not versions or _etag(versions[-1][1]) != params["IfMatch"]):
            raise aws_failure("PreconditionFailed" if versions else "NoSuchKey", status=412 if versions else 404)
        return self._store(params["Key"], params["Body"])

    def _store(self, key: str, body: bytes) -> dict[str, Any]:
        if self.fail_after is not None and len(self.writes) >= self.fail_after:
            raise aws_failure("ServiceUnavailable", status=503)
        self.writes.append(key)
        version = f"v{len(self.writes)}"
        self.objects.setdefault(key, []).append((version, body))
        return {"VersionId": version, "ETag": _etag(body)}

    def head_bucket(self, **params: Any) -> dict[str, Any]:
        return {"BucketRegion": FakeAws.region}

    def get_object(self, **params: Any) -> dict[str, Any]:
        check_input("s3", "GetObject", params)
        for version, body in reversed(self.objects.get(params["Key"], [])):
            if params.get("VersionId") in (None, version):
                modified = self.now - datetime.timedelta(seconds=self.ages.get(params["Key"], 0))
                date = self.now.strftime("%a, %d %b %Y %H:%M:%S GMT")
                metadata = {"HTTPHeaders": {"date": date}}
                reply = {"ETag": _etag(body), "LastModified": modified, "ResponseMetadata": metadata}
                return {"Body": io.BytesIO(body), **reply}
        missing = aws_failure("NoSuchKey", operation="GetObject", status=404)
        missing.response["Error"]["Key"] = params["Key"]  # as S3 says it
        raise missing

    def head_object(self, **params: Any) -> dict[str, Any]:
        check_input("s3", "HeadObject", params)
        if params["Key"] not in self.objects:
            raise aws_failure("404", operation="HeadObject", status=404)
        version, body = self.objects[params["Key"]][-1]
        checksum = base64.b64encode(hashlib.sha256(body).digest()).decode()
        etag = _etag(body)
        return {"ContentLength": len(body), "VersionId": version, "ETag": etag, "ChecksumSHA256": checksum}

    def delete_object(self, **params: Any) -> dict[str, Any]:
        check_input("s3", "DeleteObject", params)
        versions = self.objects.get(params["Key"])
        if versions and params.get("IfMatch") not in (None, _etag(versions[-1][1])):
            raise aws_failure("PreconditionFailed", operation="DeleteObject", status=412)
        if self.objects.pop(params["Key"], None) is not None:
            self.writes.append("delete " + params["Key"])
        return {}

    def get_paginator(self, _name: str) -> Any:
        fake = self

        class Pages:
            def paginate(self, **params: Any) -> Any:
                for key in sorted(fake.objects):
                    if key.startswith(params["Prefix"]):
                        body = fake.objects[key][-1][1]
                        yield {
                            "Contents": [{"Key": key, "Size": len(body), "ETag": f'"{hashlib.md5(body).hexdigest()}"'}]
                        }

        return Pages()

    def create_multipart_upload(self, **params: Any) -> dict[str, Any]:
        self.uploads[params["Key"]] = []
        return {"UploadId": "u"}

    def upload_part(self, **params: Any) -> dict[str, Any]:
        check_input("s3", "UploadPart", params)
        self.uploads[params["Key"]].append(params["Body"])
        return {"ETag": f'"{params["PartNumber"]}"'}

    def complete_multipart_upload(self, **params: Any) -> dict[str, Any]:
        return self._store(params["Key"], b"".join(self.uploads.pop(params["Key"])))

    def abort_multipart_upload(self, **params: Any) -> None:
        self.uploads.pop(params["Key"], None)

    def get_bucket_encryption(self, **_params: Any) -> dict[str, Any]:
        raise ClientError({"Error": {"Code": "AccessDenied"}}, "GetBucketEncryption")

    def generate_presigned_url(self, _operation: str, Params: dict[str, Any], ExpiresIn: int) -> str:  # noqa: N803
        check_input("s3", "PutObject", Params)
        assert ExpiresIn <= 900
        return f"https://s3.test/{Params['Key']}?X-Amz-Signature=CANARY-url-00000001"


class FakeAws:
    account_id = "123456789012"
    region = "eu-central-1"
    caller = {"Account": account_id, "Arn": f"arn:aws:iam::{account_id}:user/ada"}

    def __init__(self) -> None:
        self.kms, self.s3 = FakeKms(), FakeS3()

    def client(self, service: str, **_config: Any) -> Any:
        return {"kms": self.kms, "s3": self.s3}[service]


class FakeHost:
    """A host as a Run: the probe finds one Airflow; its agent answers from what the test put here."""

    PROBE = (
        "mwaa-probe\thost1\tairflow\t/home/airflow\t\n"
        "process\t42\tairflow\thost\tyes\t/venv/bin/python\t\t/srv/airflow\t\tscheduler\t\n"
    )

    def __init__(self) -> None:
        self.state: dict[str, dict[str, Any]] = {
            "variables": {"region": "eu", "note": {"value": "CANARY-var-00000001", "description": "d"}},
            "connections": {"db": {"conn_type": "postgres", "password": "CANARY-pw-00000001", "extra": None}},
            "pools": {"default_pool": {"slots": 128, "description": "", "include_deferred": False}},
        }
        self.files: dict[str, dict[str, bytes]] = {"dags": {"a.py": b"a", "b/c.py": b"cc"}, "plugins": {"p.py": b"p"}}
        self.options: list[dict[str, Any]] = []
        self.distributions: list[dict[str, Any]] = []
        self.fernet_sentence: str | None = None
        self.s3_reachable: FakeS3 | None = None
        self.sent: list[str] = []  # paths whose content left the host
        self.stdout: list[str] = []
        self.commands: list[str] = []
        self.requests: list[dict[str, Any]] = []
        self.before_read: Any = lambda path: None
        self.agent_home = "/srv/airflow"
        self.environment: list[dict[str, Any]] = []
        self.access: dict[str, Any] = {"model": "fab", "users": [], "roles": {}, "access_control": []}

    def __call__(self, command: str, stdin: bytes) -> tuple[int, str, str]:
        self.commands.append(command)
        if command.startswith("sh -s"):
            return 0, self.PROBE, ""
        lengths, _newline, rest = stdin.partition(b"\n")
        request = json.loads(rest[sum(map(int, lengths.split())) :])
        self.requests.append(request)
        body = zlib.compress(json.dumps(self._answer(request)).encode())
        token = base64.b64encode(Fernet(request["transport_key"]).encrypt(body)).decode()
        self.stdout.append(
            f"banner\n-----BEGIN MWAA MIGRATION AGENT-----\n{token}\n-----END MWAA MIGRATION AGENT-----\n"
        )
        return 0, self.stdout[-1], ""

    def _answer(self, request: dict[str, Any]) -> dict[str, Any]:
        if request["op"] == "batch":
            return {"ok": True, "result": [self._answer(one) for one in request["requests"]]}
        return {"ok": True, "result": getattr(self, "op_" + request["op"])(request)}

    def op_plan(self, _request: dict[str, Any]) -> dict[str, Any]:
        def listing(name: str) -> dict[str, Any]:
            files = [
                {"path": path, "size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
                for path, data in sorted(self.files[name].items())
            ]
            return {"root": f"/srv/airflow/{name}", "exists": True, "files": files, "skipped": [], "caches": 0}

        identity = {
            "airflow_version": "2.10.3",
            "python_version": "3.11.7",
            "python": "/venv/bin/python",
            "hostname": "host1",
            "user": "airflow",
            "airflow_home": self.agent_home,
            "database": "postgresql://db/airflow",
            "executor": "LocalExecutor",
            "dags_folder": "/srv/airflow/dags",
            "plugins_folder": "/srv/airflow/plugins",
            "secrets_backend": None,
            "fernet": {"sentence": self.fernet_sentence, "lookalikes": 0},
            "counts": {"variables": 2, "connections": 1, "pools": 1, "dags": 1},
            "faults": [],
            "unreadable": [],
        }
        return {
            "identity": identity,
            "files": {name: listing(name) for name in self.files},
            "distributions": self.distributions,
            "options": self.options,
            "environment": self.environment,
            "dag_bundles_elsewhere": [],
            "access": self.access,
            "dags": [{"dag_id": "a", "is_paused": False, "fileloc": "/srv/airflow/dags/a.py"}],
        }

    def op_export_state(self, request: dict[str, Any]) -> dict[str, Any]:
        key = base64.b64decode(request["data_key"])
        bundle = Bundle(None, "", key, {}, {})  # type: ignore[arg-type]
        texts = {kind: json.dumps(items, sort_keys=True).encode() for kind, items in self.state.items()}
        return {
            "sealed": {kind: bundle.seal(text).decode() for kind, text in texts.items()},
            "content": {kind: bundle.content_digest(text) for kind, text in texts.items()},
            "counts": {kind: len(items) for kind, items in self.state.items()},
            "faults": [],
            "defaults": ["sqlite_default"],
        }

    def _content(self, request: dict[str, Any], path: str) -> bytes | None:
        self.before_read(path)
        return self.files[request["root"].rsplit("/", 1)[1]].get(path)

    def op_measure(self, request: dict[str, Any]) -> dict[str, Any]:
        found = []
        for path in request["paths"]:
            data = self._content(request, path)
            if data is None:
                found.append({"path": path, "error": "gone", "vanished": True})
            else:
                found.append({"path": path, "size": len(data), "sha256": hashlib.sha256(data).hexdigest()})
        return {"files": found}

    def op_export_files(self, request: dict[str, Any]) -> dict[str, Any]:
        found: list[dict[str, Any]] = []
        for put in request.get("puts") or []:
            data = self._content(request, put["path"])
            if self.s3_reachable is None:
                found.append({"path": put["path"], "status": "unreachable", "reason": "ConnectionRefusedError"})
                break
            if data is None:
                found.append({"path": put["path"], "status": "vanished"})
            elif hashlib.sha256(data).hexdigest() != put["sha256"]:
                digest_ = hashlib.sha256(data).hexdigest()
                found.append({"path": put["path"], "status": "changed", "size": len(data), "sha256": digest_})
            else:
                key = put["url"].split("?")[0][len("https://s3.test/") :]
                reply = self.s3_reachable._store(key, data)
                self.sent.append(put["path"])
                etag = reply["ETag"].strip('"')
                found.append({"path": put["path"], "status": "sent", "version_id": reply["VersionId"], "etag": etag})
        for wanted in request.get("paths") or []:
            data = self._content(request, wanted["path"])
            if data is None:
                found.append({"path": wanted["path"], "error": "gone", "vanished": True})
                continue
            start = wanted.get("offset") or 0
            piece = data[start : start + request["max_bytes"]]
            self.sent.append(wanted["path"])
            found.append(
                {
                    "path": wanted["path"],
                    "offset": start,
                    "data": base64.b64encode(piece).decode(),
                    "end": start + len(piece) >= len(data),
                }
            )
        return {"files": found}
