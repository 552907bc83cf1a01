# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is done to the environment's bucket: list, look, and write many objects at once.

PRIVATE to the collection: no promise is made to other collections.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import threading
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Callable

from ansible_collections.mwaa.migration.plugins.module_utils._errors import (
    BAD_CREDENTIALS,
    DENIED,
    EXPIRED,
    MigrationError,
    error_code,
    explain,
    is_aws_error,
    is_missing,
)
from ansible_collections.mwaa.migration.plugins.module_utils._sync.tree import CHUNK, Unstable

WORKERS = 24  # below the 32 connections of a client
PART = 8 << 20  # bytes; what is larger goes up in parts of this size, as the AWS CLI's
PARTS_LIMIT = 10_000  # [S3 multipart upload limits]
IN_FLIGHT = 96 << 20  # bytes of content in memory while objects are written

# somebody else was faster, is at it, or has taken the object away
OVERTAKEN = {"PreconditionFailed", "ConditionalRequestConflict", "NoSuchKey", "412", "409"}
HOPELESS = EXPIRED | BAD_CREDENTIALS | DENIED | {"NoSuchBucket"}
NOT_TRIED = "not tried, because of the error above"


@dataclass(frozen=True)
class Found:
    """An object as S3 shows it. etag without quotes; modified: seconds since 1970; checksum: S3's SHA-256, in base64,
    "…-3" when it is the one of three parts' checksums. What was not asked for is None.
    """

    size: int
    etag: str
    modified: int | None = None
    version_id: str | None = None
    checksum: str | None = None


class Bucket:
    """The few things that are done to one bucket. Raises botocore's exceptions; thread-safe."""

    def __init__(self, aws: Any, name: str):
        self.name = name
        self.client = aws.client("s3")
        self._region = aws.region

    def require_fit(self) -> None:
        """Raises MigrationError where MWAA would not take the bucket: in another region, without versions."""
        answer = self.client.head_bucket(Bucket=self.name)
        headers = answer.get("ResponseMetadata", {}).get("HTTPHeaders", {})
        region = answer.get("BucketRegion") or headers.get("x-amz-bucket-region") or self._region
        if region != self._region:
            raise MigrationError(
                f"the bucket {self.name} is in {region}, and MWAA takes only a bucket in the environment's region,"
                f" {self._region}; use a bucket there, or set region to the bucket's"
            )
        if self.client.get_bucket_versioning(Bucket=self.name).get("Status") != "Enabled":
            raise MigrationError(
                f"the bucket {self.name} has no versioning, and MWAA takes only a versioned bucket;"
                f" switch it on: aws s3api put-bucket-versioning --bucket {self.name}"
                " --versioning-configuration Status=Enabled"
            )

    def list(self, prefix: str) -> dict[str, Found] | None:
        """{key: Found}; None where there is no such bucket."""
        found: dict[str, Found] = {}
        try:
            for page in self.client.get_paginator("list_objects_v2").paginate(Bucket=self.name, Prefix=prefix):
                for item in page.get("Contents", []):
                    modified = int(item["LastModified"].timestamp())
                    found[item["Key"]] = Found(item["Size"], item["ETag"].strip('"'), modified)
        except Exception as exception:
            if is_aws_error(exception) and error_code(exception) == "NoSuchBucket":
                return None
            raise
        return found

    def head(self, key: str, version_id: str | None = None) -> Found | None:
        """One version of an object, the newest where none is named; None where there is none."""
        which = {"VersionId": version_id} if version_id else {}
        try:
            answer = self.client.head_object(Bucket=self.name, Key=key, ChecksumMode="ENABLED", **which)
        except Exception as exception:
            if is_aws_error(exception) and is_missing(exception):
                return None
            raise
        return Found(
            answer["ContentLength"],
            answer["ETag"].strip('"'),
            version_id=answer.get("VersionId"),
            checksum=answer.get("ChecksumSHA256"),
        )

    def get(self, key: str) -> bytes | None:
        return self.get_tagged(key)[0]

    def get_tagged(self, key: str) -> tuple[bytes | None, str | None]:
        """(content, the tag that this content has); None, None where there is none."""
        try:
            answer = self.client.get_object(Bucket=self.name, Key=key)
            return answer["Body"].read(), answer["ETag"]
        except Exception as exception:
            if is_aws_error(exception) and is_missing(exception):
                return None, None
            raise

    def put_if(self, key: str, content: bytes, tag: str | None) -> bool:
        """put(), but only while the object has this tag (None: while there is none); whether it is there now."""
        condition = {"IfNoneMatch": "*"} if tag is None else {"IfMatch": tag}
        try:
            self.client.put_object(
                Bucket=self.name, Key=key, Body=content, ContentLength=len(content), ChecksumSHA256=_sha256(content),
                **condition,
            )  # fmt: skip
        except Exception as exception:
            if not is_aws_error(exception) or error_code(exception) not in OVERTAKEN:
                raise
            return self.get(key) == content  # it may have been this very call, repeated because its answer was lost
        return True

    def stream(self, key: str, version_id: str | None = None) -> Iterator[bytes]:
        """The content of one version of an object, the newest where none is named."""
        which = {"VersionId": version_id} if version_id else {}
        yield from self.client.get_object(Bucket=self.name, Key=key, **which)["Body"].iter_chunks(CHUNK)

    def put(self, key: str, content: bytes) -> Found:
        """One PUT with its length and its SHA-256 as a header: S3 refuses what arrived damaged, and nothing is sent in
        chunks.
        """
        answer = self.client.put_object(
            Bucket=self.name, Key=key, Body=content, ContentLength=len(content), ChecksumSHA256=_sha256(content)
        )
        return Found(len(content), answer["ETag"].strip('"'), version_id=answer.get("VersionId"))

    def delete(self, keys: Sequence[str]) -> dict[str, str]:
        """{key: reason} of those that could not be deleted. In a versioned bucket the older versions stay."""
        failed: dict[str, str] = {}
        for start in range(0, len(keys), 1000):  # documented S3 limit
            answer = self.client.delete_objects(
                Bucket=self.name,
                Delete={"Objects": [{"Key": key} for key in keys[start : start + 1000]], "Quiet": True},
            )
            failed.update(
                {item["Key"]: f"{item.get('Message')} ({item.get('Code')})" for item in answer.get("Errors", [])}
            )
        return failed


class _Multipart:
    """One object in parts. It appears when it is complete, and not at all when it is not."""

    def __init__(self, bucket: Bucket, key: str):
        self._client, self._where = bucket.client, {"Bucket": bucket.name, "Key": key}
        answer = self._client.create_multipart_upload(**self._where, ChecksumAlgorithm="SHA256")
        self._where["UploadId"] = answer["UploadId"]

    def add(self, number: int, content: bytes) -> dict[str, Any]:
        checksum = _sha256(content)
        answer = self._client.upload_part(
            **self._where, PartNumber=number, Body=content, ContentLength=len(content), ChecksumSHA256=checksum
        )
        return {"PartNumber": number, "ETag": answer["ETag"], "ChecksumSHA256": checksum}

    def complete(self, parts: list[dict[str, Any]], size: int) -> Found:
        answer = self._client.complete_multipart_upload(**self._where, MultipartUpload={"Parts": parts})
        return Found(size, answer["ETag"].strip('"'), version_id=answer.get("VersionId"))

    def abort(self) -> None:
        with contextlib.suppress(Exception):  # the reason why it is aborted is the one to tell
            self._client.abort_multipart_upload(**self._where)


# --- writing many objects ---------------------------------------------------------------------------------------------


@dataclass
class Upload:
    """An object to write; afterwards `found`, or `error`, or `unstable` says what became of it.

    stream: the content of exactly `size` bytes; raises where it is not what was announced.
    """

    key: str
    size: int
    stream: Callable[[], Iterator[bytes]]
    found: Found | None = None
    error: str | None = None
    unstable: str | None = None  # the source's file vanished or changed: nothing was written


class Uploader:
    """Writes objects with one pool of threads, whatever their sizes, and never more than IN_FLIGHT bytes in memory.

    After an error that will hit all others too (denied, expired) what was not begun is not tried.
    """

    def __init__(self, bucket: Bucket, finished: Callable[[], None]):
        """finished: called after each object, in any thread."""
        self._bucket, self._finished = bucket, finished
        self._budget = _Budget(IN_FLIGHT)
        self.stopped = False

    def write(self, uploads: Iterable[Upload]) -> None:
        with ThreadPoolExecutor(WORKERS) as pool:
            futures: list[Future[None]] = []
            for upload in uploads:
                if upload.size > PART:
                    futures.append(self._feed(pool, upload))
                else:
                    self._budget.take(upload.size)
                    futures.append(pool.submit(self._small, upload))
            for future in futures:
                future.result()

    def _small(self, upload: Upload) -> None:
        try:
            with self._judged(upload):
                self._go_on()
                upload.found = self._bucket.put(upload.key, b"".join(upload.stream()))
        finally:
            self._budget.give(upload.size)
            self._finished()

    def _feed(self, pool: ThreadPoolExecutor, upload: Upload) -> Future[None]:
        """Read here, send there: parts wait in the pool among other objects."""
        parts: list[Future[dict[str, Any]]] = []
        multipart: _Multipart | None = None
        with self._judged(upload):
            try:
                self._go_on()
                multipart = _Multipart(self._bucket, upload.key)
                for number, content in enumerate(in_parts(upload.stream()), 1):
                    self._go_on()
                    self._budget.take(len(content))
                    parts.append(pool.submit(self._part, multipart, number, content))
            except BaseException:
                _give_up(multipart, parts)
                raise
        return pool.submit(self._complete, upload, multipart, parts)

    def _part(self, multipart: _Multipart, number: int, content: bytes) -> dict[str, Any]:
        try:
            return multipart.add(number, content)
        finally:
            self._budget.give(len(content))

    def _complete(self, upload: Upload, multipart: _Multipart | None, parts: list[Future[dict[str, Any]]]) -> None:
        # its parts stand before it in the pool's queue, so that waiting for them cannot last for ever
        try:
            if multipart is None or upload.error or upload.unstable:
                return
            with self._judged(upload):
                try:
                    upload.found = multipart.complete([part.result() for part in parts], upload.size)
                except BaseException:
                    _give_up(multipart, parts)
                    raise
        finally:
            self._finished()

    def _go_on(self) -> None:
        if self.stopped:
            raise MigrationError(NOT_TRIED)

    @contextlib.contextmanager
    def _judged(self, upload: Upload) -> Iterator[None]:
        try:
            yield
        except Unstable as exception:
            upload.unstable = exception.message
        except MigrationError as exception:
            upload.error = exception.message
        except Exception as exception:
            if not is_aws_error(exception):
                raise
            upload.error = explain(exception)
            if error_code(exception) in HOPELESS:
                self.stopped = True


def _give_up(multipart: _Multipart | None, parts: Iterable[Future[Any]]) -> None:
    for part in parts:
        with contextlib.suppress(Exception):
            part.result()  # what arrives after the abort would stay, and be paid for
    if multipart:
        multipart.abort()


class _Budget:
    def __init__(self, size: int):
        self._left, self._change = size, threading.Condition()
        self._size = size

    def take(self, size: int) -> None:
        with self._change:
            self._change.wait_for(lambda: self._left >= size or self._left == self._size)
            self._left -= size

    def give(self, size: int) -> None:
        with self._change:
            self._left += size
            self._change.notify_all()


def in_parts(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """The same bytes in pieces of PART, the last one smaller."""
    buffer = bytearray()
    for chunk in chunks:
        buffer += chunk
        while len(buffer) >= PART:
            yield bytes(buffer[:PART])
            del buffer[:PART]
    if buffer:
        yield bytes(buffer)


# --- comparing --------------------------------------------------------------------------------------------------------


class Fingerprint:
    """What S3 may show of a content: its MD5 and SHA-256, and those of its parts where it went up in parts."""

    def __init__(self, chunks: Iterable[bytes]):
        md5, sha256 = hashlib.md5(usedforsecurity=False), hashlib.sha256()
        md5s, sha256s, count = b"", b"", 0
        for part in in_parts(chunks):
            md5.update(part)
            sha256.update(part)
            md5s += hashlib.md5(part, usedforsecurity=False).digest()
            sha256s += hashlib.sha256(part).digest()
            count += 1
        self._etags = {md5.hexdigest(), f"{hashlib.md5(md5s, usedforsecurity=False).hexdigest()}-{count}"}
        self._checksums = {_text(sha256.digest()), f"{_text(hashlib.sha256(sha256s).digest())}-{count}"}

    def is_of(self, found: Found) -> bool:
        """Whether the object surely has this content. False says nothing where the ETag is no MD5 and no checksum is
        known.
        """
        return found.etag in self._etags or found.checksum in self._checksums


def _sha256(content: bytes) -> str:
    return _text(hashlib.sha256(content).digest())


def _text(digest: bytes) -> str:
    return base64.b64encode(digest).decode()
