# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A versioned bucket in memory that is as picky as S3."""

from __future__ import annotations

import base64
import datetime
import hashlib
import io
import threading
from typing import Any

from botocore.exceptions import ClientError

EPOCH = datetime.datetime(2026, 1, 1, tzinfo=datetime.timezone.utc)


class FakeS3:
    """A versioned bucket in memory. kms: ETags are no MD5. refuse: keys whose PUT fails, with the error code."""

    def __init__(self, *, kms: bool = False, region: str = "us-east-1", versioning: str = "Enabled"):
        self.objects: dict[str, tuple[bytes, str, str, str | None]] = {}  # key -> content, etag, version, checksum
        self.calls: list[tuple[str, str]] = []
        self.refuse: dict[str, str] = {}
        self.kms, self.region, self.versioning = kms, region, versioning
        self.modified: dict[str, datetime.datetime] = {}
        self.uploads: dict[str, dict[int, bytes]] = {}  # multipart ones that are neither complete nor aborted
        self._versions = 0
        self._lock = threading.Lock()

    def client(self, service: str) -> FakeS3:
        assert service == "s3"
        return self

    def writes(self) -> list[str]:
        return [key for name, key in self.calls if name in ("put", "delete")]

    def head_bucket(self, Bucket: str) -> dict[str, Any]:
        return {"BucketRegion": "us-east-1", "ResponseMetadata": {"HTTPHeaders": {}}}

    def get_bucket_versioning(self, Bucket: str) -> dict[str, Any]:
        return {"Status": self.versioning}

    def get_object(self, Bucket: str, Key: str) -> dict[str, Any]:
        self.calls.append(("get", Key))
        content, etag, _version, _checksum = self._object(Key, "GetObject")
        return {"Body": io.BytesIO(content), "ETag": f'"{etag}"'}

    def head_object(self, Bucket: str, Key: str, ChecksumMode: str) -> dict[str, Any]:
        self.calls.append(("head", Key))
        content, etag, version, checksum = self._object(Key, "HeadObject")
        answer = {"ContentLength": len(content), "ETag": f'"{etag}"', "VersionId": version}
        return {**answer, "ChecksumSHA256": checksum} if checksum else answer

    def get_paginator(self, name: str) -> FakeS3:
        assert name == "list_objects_v2"
        return self

    def paginate(self, Bucket: str, Prefix: str) -> list[dict[str, Any]]:
        self.calls.append(("list", Prefix))
        return [
            {
                "Contents": [
                    {
                        "Key": key,
                        "Size": len(content),
                        "ETag": f'"{etag}"',
                        "LastModified": self.modified.get(key, EPOCH),
                    }
                    for key, (content, etag, _version, _checksum) in sorted(self.objects.items())
                    if key.startswith(Prefix)
                ]
            }
        ]

    def put_object(
        self,
        Bucket: str,
        Key: str,
        Body: bytes,
        ContentLength: int,
        ChecksumSHA256: str,
        IfMatch: str | None = None,
        IfNoneMatch: str | None = None,
    ) -> dict[str, Any]:
        self.calls.append(("put", Key))
        if Key in self.refuse:
            raise _error(self.refuse[Key], "PutObject")
        there = f'"{self.objects[Key][1]}"' if Key in self.objects else None
        if (IfMatch and there != IfMatch) or (IfNoneMatch and there):
            raise _error("PreconditionFailed" if there else "NoSuchKey", "PutObject")
        assert ContentLength == len(Body)
        assert base64.b64decode(ChecksumSHA256) == hashlib.sha256(Body).digest()
        return self._store(Key, Body, hashlib.md5(Body).hexdigest(), ChecksumSHA256)

    def create_multipart_upload(self, Bucket: str, Key: str, ChecksumAlgorithm: str) -> dict[str, Any]:
        self.calls.append(("begin", Key))
        if Key in self.refuse:
            raise _error(self.refuse[Key], "CreateMultipartUpload")
        self.uploads[Key] = {}
        return {"UploadId": Key}

    def upload_part(
        self,
        Bucket: str,
        Key: str,
        UploadId: str,
        PartNumber: int,
        Body: bytes,
        ContentLength: int,
        ChecksumSHA256: str,
    ) -> dict[str, Any]:
        self.calls.append(("part", Key))
        assert base64.b64decode(ChecksumSHA256) == hashlib.sha256(Body).digest()
        self.uploads[UploadId][PartNumber] = Body
        return {"ETag": f'"{hashlib.md5(Body).hexdigest()}"'}

    def complete_multipart_upload(
        self, Bucket: str, Key: str, UploadId: str, MultipartUpload: dict[str, Any]
    ) -> dict[str, Any]:
        self.calls.append(("put", Key))
        parts = self.uploads.pop(UploadId)
        named = MultipartUpload["Parts"]
        assert [part["PartNumber"] for part in named] == list(range(1, len(parts) + 1))
        bodies = [parts[number] for number in sorted(parts)]
        etag = hashlib.md5(b"".join(hashlib.md5(body).digest() for body in bodies)).hexdigest()
        checksum = hashlib.sha256(b"".join(hashlib.sha256(body).digest() for body in bodies)).digest()
        suffix = f"-{len(bodies)}"
        return self._store(Key, b"".join(bodies), etag + suffix, base64.b64encode(checksum).decode() + suffix)

    def abort_multipart_upload(self, Bucket: str, Key: str, UploadId: str) -> dict[str, Any]:
        self.calls.append(("abort", Key))
        del self.uploads[UploadId]
        return {}

    def _store(self, key: str, content: bytes, etag: str, checksum: str) -> dict[str, Any]:
        with self._lock:
            self._versions += 1
            if self.kms:
                etag = hashlib.md5(b"%d" % self._versions).hexdigest() + etag[32:]
            self.objects[key] = (content, etag, f"v{self._versions}", checksum)
            self.modified[key] = EPOCH + datetime.timedelta(seconds=self._versions)
            return {"ETag": f'"{etag}"', "VersionId": f"v{self._versions}"}

    def delete_objects(self, Bucket: str, Delete: dict[str, Any]) -> dict[str, Any]:
        for item in Delete["Objects"]:
            self.calls.append(("delete", item["Key"]))
            self.objects.pop(item["Key"], None)
        return {}

    def _object(self, key: str, operation: str) -> tuple[bytes, str, str, str | None]:
        if key not in self.objects:
            raise _error("NoSuchKey", operation)
        return self.objects[key]


def _error(code: str, operation: str) -> ClientError:
    return ClientError({"Error": {"Code": code, "Message": "no"}, "ResponseMetadata": {"RequestId": "R1"}}, operation)
