# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The bundle: what is carried, in an S3 prefix or a local folder, under an authenticated manifest.

PRIVATE to the collection: no promise is made to other collections.

A random data key per bundle is wrapped by KMS and bound to the bundle's id. State is sealed with it (Fernet) and
stays so at rest. The manifest names every file with size, sha256 and, in S3, object version, and is authenticated
with a key derived from the data key: who can write to the bucket but not use the KMS key cannot bring code or rows
into an environment.
"""

from __future__ import annotations

import base64
import contextlib
import datetime
import fcntl
import hashlib
import hmac
import json
import os
import re
import secrets
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

from ansible_collections.mwaa.migration.plugins.module_utils._errors import (
    MigrationError,
    aws_error,
    aws_errors,
    error_code,
    is_aws_error,
    is_missing,
)

try:
    from cryptography.fernet import Fernet, InvalidToken
except ImportError:  # ansible-core brings it; Bundle says so where it is missing
    Fernet = None  # type: ignore[assignment, misc]

SCHEMA_VERSION = 1
MANIFEST = "manifest.json"
PROGRESS = "export.progress.json"
KINDS = ("variables", "connections", "pools")
SINGULAR = {"variables": "variable", "connections": "connection", "pools": "pool"}
FIELDS = {
    "variables": ("value", "description"),
    "connections": ("conn_type", "description", "host", "login", "password", "schema", "port", "extra"),
    "pools": ("slots", "description", "include_deferred"),
}
REMEDY = "remove the bundle and export again"
PART = 8 << 20  # bytes; S3 multipart parts are at least 5 MiB
THREADS = 8


@dataclass(frozen=True)
class StoredFile:
    """A file of the bundle as the manifest names it.

    size: bytes. sha256: hex, of what is stored. version_id, etag: S3's. content: HMAC-SHA256 (hex) of what a sealed
    file holds, by which an unchanged content is known although every sealing looks different.
    """

    path: str
    size: int
    sha256: str
    version_id: str | None = None
    etag: str | None = None
    content: str | None = None


@dataclass(frozen=True)
class Tagged:
    """A file as it is now. tag: another one for every content. age: seconds, by the store's clock."""

    data: bytes
    tag: str
    age: float


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def check_path(path: str) -> str:
    """The path, when it is a relative one that stays inside; MigrationError otherwise."""
    parts = path.split("/")
    if not path or path.startswith("/") or "\0" in path or any(part in ("", ".", "..") for part in parts):
        raise MigrationError(f"{path!r} is no path of a bundle's file")
    return path


# --------------------------------------------------------------------------------------------------------------- stores


class Store(ABC):
    """Where files are kept. Paths are relative, with slashes."""

    url: str

    @abstractmethod
    def read(self, path: str, version_id: str | None = None) -> bytes:
        """Raises MigrationError (code NotFound where there is no such file)."""

    def stream(self, path: str, version_id: str | None = None) -> Iterator[bytes]:
        """The same in chunks, so that memory does not grow with the size."""
        yield self.read(path, version_id)

    @abstractmethod
    def write_stream(self, path: str, chunks: Iterable[bytes]) -> StoredFile:
        """Write what the chunks make up; all of it or nothing. Memory does not grow with the size."""

    @abstractmethod
    def list(self, prefix: str = "") -> dict[str, tuple[int, str | None]]:
        """{path: (size in bytes, etag or None)} of all files whose path starts with prefix."""

    @abstractmethod
    def delete(self, path: str) -> None:
        """Nothing happens where there is no such file."""

    @abstractmethod
    def read_tagged(self, path: str) -> Tagged | None:
        """None where there is no such file."""

    @abstractmethod
    def write_if(self, path: str, data: bytes, tag: str | None) -> bool:
        """Write in one step, but only while the file has this tag (None: while there is none); whether it was done."""

    @abstractmethod
    def delete_if(self, path: str, tag: str) -> bool:
        """Delete in one step, but only while the file has this tag; whether it was done."""

    @abstractmethod
    def holds(self, file: StoredFile, listing: dict[str, tuple[int, str | None]]) -> bool:
        """Whether this very content is there; listing: what list() said."""

    @abstractmethod
    def find(self, path: str, sha256_hex: str) -> StoredFile | None:
        """What lies there already, when it has this content (an interrupted export left it)."""

    def check_place(self) -> None:  # noqa: B027 - any folder will do
        """Raises MigrationError where a bundle must not be kept."""

    def write(self, path: str, data: bytes) -> StoredFile:
        return self.write_stream(path, [data])

    def exists(self, path: str) -> bool:
        return path in self.list(path)


class LocalStore(Store):
    """A folder. Files appear by rename, readable by their owner only."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.url = str(folder)

    def read(self, path: str, version_id: str | None = None) -> bytes:
        return b"".join(self.stream(path, version_id))

    def stream(self, path: str, version_id: str | None = None) -> Iterator[bytes]:
        try:
            with (self.folder / check_path(path)).open("rb") as opened:
                while chunk := opened.read(PART):
                    yield chunk
        except FileNotFoundError:
            raise MigrationError(f"{self.url}/{path} does not exist", code="NotFound") from None
        except OSError as error:
            raise MigrationError(f"{self.url}/{path} cannot be read: {error.strerror}") from None

    def write_stream(self, path: str, chunks: Iterable[bytes]) -> StoredFile:
        target = self.folder / check_path(path)
        hasher, size = hashlib.sha256(), 0
        try:
            target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            descriptor, name = tempfile.mkstemp(prefix=".mwaa-", dir=target.parent)
            temporary = Path(name)
            try:
                with os.fdopen(descriptor, "wb") as file:
                    for chunk in chunks:
                        file.write(chunk)
                        hasher.update(chunk)
                        size += len(chunk)
                temporary.replace(target)
            except BaseException:
                temporary.unlink(missing_ok=True)
                raise
        except OSError as error:
            raise MigrationError(f"{self.url}/{path} cannot be written: {error.strerror}") from None
        return StoredFile(path, size, hasher.hexdigest())

    def list(self, prefix: str = "") -> dict[str, tuple[int, str | None]]:
        found: dict[str, tuple[int, str | None]] = {}
        for file in self.folder.rglob("*") if self.folder.is_dir() else ():
            path = file.relative_to(self.folder).as_posix()
            if path.startswith(prefix) and file.is_file() and not file.name.startswith(".mwaa-"):
                found[path] = (file.stat().st_size, None)
        return found

    def delete(self, path: str) -> None:
        target = self.folder / check_path(path)
        target.unlink(missing_ok=True)
        for parent in target.relative_to(self.folder).parents[:-1]:
            with contextlib.suppress(OSError):  # not empty
                (self.folder / parent).rmdir()

    def read_tagged(self, path: str) -> Tagged | None:
        target = self.folder / check_path(path)
        try:
            data = target.read_bytes()
            return Tagged(data, sha256(data), max(0.0, time.time() - target.stat().st_mtime))
        except FileNotFoundError:
            return None
        except OSError as error:
            raise MigrationError(f"{self.url}/{path} cannot be read: {error.strerror}") from None

    def write_if(self, path: str, data: bytes, tag: str | None) -> bool:
        with self._alone(path):
            now = self.read_tagged(path)
            if (now.tag if now else None) != tag:
                return False
            self.write(path, data)
            return True

    def delete_if(self, path: str, tag: str) -> bool:
        with self._alone(path):
            now = self.read_tagged(path)
            if now is None or now.tag != tag:
                return False
            self.delete(path)
            return True

    @contextlib.contextmanager
    def _alone(self, path: str) -> Iterator[None]:
        """Nobody else looks and writes meanwhile. The bundle's own folder stands for it: those in it come and go."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            folder = os.open(self.folder, os.O_RDONLY)
            try:
                fcntl.flock(folder, fcntl.LOCK_EX)
                yield
            finally:
                os.close(folder)
        except OSError as error:
            raise MigrationError(f"{self.url}/{path} cannot be written: {error.strerror}") from None

    def holds(self, file: StoredFile, listing: dict[str, tuple[int, str | None]]) -> bool:
        if listing.get(file.path, (None,))[0] != file.size:
            return False
        hasher = hashlib.sha256()
        with (self.folder / file.path).open("rb") as opened:
            for chunk in iter(lambda: opened.read(1 << 20), b""):
                hasher.update(chunk)
        return hasher.hexdigest() == file.sha256

    def find(self, path: str, sha256_hex: str) -> StoredFile | None:
        size = self.list(path).get(path, (None,))[0]
        file = None if size is None else StoredFile(path, size, sha256_hex)
        return file if file and self.holds(file, {path: (file.size, None)}) else None


def url_signer(aws: Any) -> Any:
    """The S3 client that signs URLs for others. aws: _aws.Aws."""
    # The default signs URLs in the old way in some regions, without headers. And presigned URLs name S3's global
    # endpoint, which a new bucket of another region does not have yet (307), unless the style says otherwise.
    real = ".amazonaws." in aws.client("s3").meta.endpoint_url
    return aws.client("s3", signature_version="s3v4", **({"s3": {"addressing_style": "virtual"}} if real else {}))


class S3Store(Store):
    """A prefix of a bucket. Encryption at rest is the bucket's default."""

    def __init__(self, bucket: str, prefix: str, aws: Any):
        self.bucket, self.prefix = bucket, prefix.strip("/")
        self.url = f"s3://{bucket}/{self.prefix}".rstrip("/")
        self._aws = aws

    @property
    def _s3(self) -> Any:
        return self._aws.client("s3")

    def check_place(self) -> None:
        """A bucket of another region would do for S3's client, but not for presigned URLs nor for who promised that
        the data stays in its region.
        """
        try:
            reply = self._s3.head_bucket(Bucket=self.bucket)
        except Exception as exception:
            if not is_aws_error(exception):
                raise
            reply = getattr(exception, "response", {})  # why it failed is told by the call that needs the bucket
        headers = (reply.get("ResponseMetadata") or {}).get("HTTPHeaders") or {}
        region = reply.get("BucketRegion") or headers.get("x-amz-bucket-region") or self._aws.region
        if region != self._aws.region:
            raise MigrationError(
                f"the bundle's bucket {self.bucket} is in {region} and region is {self._aws.region}:"
                f" keep the bundle in a bucket in {self._aws.region}, or set region to {region}"
            )

    def key(self, path: str) -> str:
        return f"{self.prefix}/{check_path(path)}" if self.prefix else check_path(path)

    def read(self, path: str, version_id: str | None = None) -> bytes:
        return b"".join(self.stream(path, version_id))

    def stream(self, path: str, version_id: str | None = None) -> Iterator[bytes]:
        arguments = {"Bucket": self.bucket, "Key": self.key(path)}
        if version_id:
            arguments["VersionId"] = version_id
        try:
            body = self._s3.get_object(**arguments)["Body"]
            while chunk := body.read(PART):
                yield chunk
        except Exception as exception:
            if not is_aws_error(exception):
                raise
            if is_missing(exception) and error_code(exception) != "NoSuchBucket":
                what = f" (version {version_id})" if version_id else ""
                raise MigrationError(f"{self.url}/{path}{what} does not exist", code="NotFound") from exception
            raise aws_error(exception, f"read {self.url}/{path}") from exception

    def write_stream(self, path: str, chunks: Iterable[bytes]) -> StoredFile:
        hasher, size = hashlib.sha256(), 0
        buffer = bytearray()
        upload: _Multipart | None = None
        with aws_errors(f"write {self.url}/{path}"):
            try:
                for chunk in chunks:
                    hasher.update(chunk)
                    size += len(chunk)
                    buffer += chunk
                    if len(buffer) >= PART:
                        upload = upload or _Multipart(self._s3, self.bucket, self.key(path))
                        upload.add(bytes(buffer))
                        buffer.clear()
                if upload is None:
                    checksum = base64.b64encode(hasher.digest()).decode()
                    reply = self._s3.put_object(
                        Bucket=self.bucket, Key=self.key(path), Body=bytes(buffer), ChecksumSHA256=checksum
                    )
                else:
                    if buffer:
                        upload.add(bytes(buffer))
                    reply = upload.complete()
            except BaseException:
                if upload is not None:
                    upload.abort()
                raise
        return StoredFile(path, size, hasher.hexdigest(), _version(reply.get("VersionId")), _etag(reply.get("ETag")))

    def list(self, prefix: str = "") -> dict[str, tuple[int, str | None]]:
        found: dict[str, tuple[int, str | None]] = {}
        start = f"{self.prefix}/" if self.prefix else ""
        with aws_errors(f"list {self.url}"):
            pages = self._s3.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=start + prefix)
            for page in pages:
                for entry in page.get("Contents", []):
                    found[entry["Key"][len(start) :]] = (entry["Size"], _etag(entry.get("ETag")))
        return found

    def delete(self, path: str) -> None:
        with aws_errors(f"delete {self.url}/{path}"):
            self._s3.delete_object(Bucket=self.bucket, Key=self.key(path))

    def read_tagged(self, path: str) -> Tagged | None:
        try:
            reply = self._s3.get_object(Bucket=self.bucket, Key=self.key(path))
        except Exception as exception:
            if not is_aws_error(exception):
                raise
            if is_missing(exception) and error_code(exception) != "NoSuchBucket":
                return None
            raise aws_error(exception, f"read {self.url}/{path}") from exception
        date = reply["ResponseMetadata"]["HTTPHeaders"].get("date")
        now = parsedate_to_datetime(date) if date else datetime.datetime.now(datetime.timezone.utc)
        age = (now - reply["LastModified"]).total_seconds()
        return Tagged(reply["Body"].read(), reply["ETag"], max(0.0, age))

    def write_if(self, path: str, data: bytes, tag: str | None) -> bool:
        condition = {"IfNoneMatch": "*"} if tag is None else {"IfMatch": tag}
        try:
            self._s3.put_object(Bucket=self.bucket, Key=self.key(path), Body=data, **condition)
        except Exception as exception:
            return self._overtaken(exception, f"write {self.url}/{path}")
        return True

    def delete_if(self, path: str, tag: str) -> bool:
        try:
            self._s3.delete_object(Bucket=self.bucket, Key=self.key(path), IfMatch=tag)
        except Exception as exception:
            return self._overtaken(exception, f"delete {self.url}/{path}")
        return True

    @staticmethod
    def _overtaken(exception: Exception, action: str) -> bool:
        """False where another one was faster, or is at it, or has taken the file away; what else is wrong is raised."""
        if is_aws_error(exception):
            error = aws_error(exception, action)
            if error.code in ("PreconditionFailed", "ConditionalRequestConflict", "NoSuchKey", "412", "409"):
                return False
            raise error from exception
        raise exception

    def holds(self, file: StoredFile, listing: dict[str, tuple[int, str | None]]) -> bool:
        size, etag = listing.get(file.path, (None, None))
        return size == file.size and (file.etag is None or etag == file.etag)

    def find(self, path: str, sha256_hex: str) -> StoredFile | None:
        try:
            reply = self._s3.head_object(Bucket=self.bucket, Key=self.key(path), ChecksumMode="ENABLED")
        except Exception as exception:
            if not is_aws_error(exception):
                raise
            return None  # it is sent again, then
        if reply.get("ChecksumSHA256") != base64.b64encode(bytes.fromhex(sha256_hex)).decode():
            return None
        version, etag = _version(reply.get("VersionId")), _etag(reply.get("ETag"))
        return StoredFile(path, reply["ContentLength"], sha256_hex, version, etag)

    def presign_put(self, path: str, size: int, sha256_hex: str, seconds: int) -> tuple[str, dict[str, str]]:
        """A URL that lets one put exactly this content there, and the headers to send.

        Signed with it are the length, the checksum and the encryption. seconds: how long it is good for.
        """
        checksum = base64.b64encode(bytes.fromhex(sha256_hex)).decode()
        encryption = self._encryption()
        parameters = {
            "Bucket": self.bucket,
            "Key": self.key(path),
            "ContentLength": size,
            "ChecksumSHA256": checksum,
            **{name: value for name, (_header, value) in encryption.items()},
        }
        client = url_signer(self._aws)
        with aws_errors(f"sign an upload to {self.url}"):
            url = client.generate_presigned_url("put_object", Params=parameters, ExpiresIn=seconds)
        headers = {"x-amz-checksum-sha256": checksum, **dict(encryption.values())}
        return url, headers

    def presign_new(self, path: str, seconds: int) -> tuple[str, dict[str, str]]:
        """A URL that lets one put whatever there, of any length, and the headers to send: for what is not known
        beforehand. Signed with it is the encryption. seconds: how long it is good for.
        """
        encryption = self._encryption()
        parameters = {"Bucket": self.bucket, "Key": self.key(path)}
        parameters.update({name: value for name, (_header, value) in encryption.items()})
        with aws_errors(f"sign an upload to {self.url}"):
            url = url_signer(self._aws).generate_presigned_url("put_object", Params=parameters, ExpiresIn=seconds)
        return url, dict(encryption.values())

    def _encryption(self) -> dict[str, tuple[str, str]]:
        """The bucket's default encryption as put_object's parameters with their headers; {} if not readable."""
        if not hasattr(self, "_default_encryption"):
            self._default_encryption: dict[str, tuple[str, str]] = {}
            try:
                reply = self._s3.get_bucket_encryption(Bucket=self.bucket)
                rule = reply["ServerSideEncryptionConfiguration"]["Rules"][0]["ApplyServerSideEncryptionByDefault"]
            except Exception as exception:
                if not is_aws_error(exception):
                    raise
                return self._default_encryption
            header = "x-amz-server-side-encryption"
            self._default_encryption["ServerSideEncryption"] = (header, rule["SSEAlgorithm"])
            if rule.get("KMSMasterKeyID"):
                self._default_encryption["SSEKMSKeyId"] = (f"{header}-aws-kms-key-id", rule["KMSMasterKeyID"])
        return self._default_encryption


class _Multipart:
    def __init__(self, s3: Any, bucket: str, key: str):
        self._s3, self._target = s3, {"Bucket": bucket, "Key": key}
        self._id = s3.create_multipart_upload(**self._target)["UploadId"]
        self._parts: list[dict[str, Any]] = []

    def add(self, data: bytes) -> None:
        number = len(self._parts) + 1
        reply = self._s3.upload_part(**self._target, UploadId=self._id, PartNumber=number, Body=data)
        self._parts.append({"PartNumber": number, "ETag": reply["ETag"]})

    def complete(self) -> dict[str, Any]:
        return self._s3.complete_multipart_upload(
            **self._target, UploadId=self._id, MultipartUpload={"Parts": self._parts}
        )

    def abort(self) -> None:
        with contextlib.suppress(Exception):
            self._s3.abort_multipart_upload(**self._target, UploadId=self._id)


def _version(version_id: str | None) -> str | None:
    return version_id if version_id and version_id != "null" else None


def _etag(etag: str | None) -> str | None:
    return etag.strip('"') if etag else None


def open_store(url_or_path: str, aws: Any) -> Store:
    """s3://bucket/prefix or a local folder (which need not exist yet). aws: Aws, used for S3 only."""
    if url_or_path.startswith("s3://"):
        bucket, _slash, prefix = url_or_path[len("s3://") :].partition("/")
        if not re.fullmatch(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]", bucket):
            raise MigrationError(f"{url_or_path} names no bucket: say s3://bucket/prefix")
        return S3Store(bucket, prefix, aws)
    if re.match(r"^[a-z0-9]+://", url_or_path):
        raise MigrationError(f"{url_or_path} is neither s3://bucket/prefix nor a folder")
    return LocalStore(Path(url_or_path).expanduser().absolute())


# --------------------------------------------------------------------------------------------------------------- bundle


def digest(key: bytes, kind: str, identifier: str, field: str, value: Any) -> str:
    """HMAC-SHA256 (hex) of one field, by which both ends compare without showing it; kind in plural or singular."""
    message = json.dumps([SINGULAR.get(kind, kind), identifier, field, value], ensure_ascii=True, separators=(",", ":"))
    return hmac.new(key, message.encode(), hashlib.sha256).hexdigest()


def canonical(kind: str, item: Any) -> dict[str, Any]:
    """An item as a bundle holds it (a variable may be a bare string) as {field: value} with every field."""
    if kind == "variables" and not isinstance(item, dict):
        item = {"value": item}
    values = {field: item.get(field) for field in FIELDS[kind]}
    if kind == "pools":
        values["include_deferred"] = bool(values["include_deferred"])
    return values


def new_data_key(aws: Any, kms_key_id: str, context: dict[str, str]) -> tuple[bytes, bytes]:
    """(32 bytes for memory only, the same wrapped by KMS)."""
    with aws_errors(f"make a data key with the KMS key {kms_key_id}"):
        reply = aws.client("kms").generate_data_key(KeyId=kms_key_id, NumberOfBytes=32, EncryptionContext=context)
    return reply["Plaintext"], reply["CiphertextBlob"]


class Bundle:
    """A bundle in a store. `files` is what the manifest names (or will name, once saved)."""

    def __init__(self, store: Store, bundle_id: str, data_key: bytes, key: dict[str, str], source: dict[str, Any]):
        if Fernet is None:
            raise MigrationError("the Python package cryptography is missing on the controller: install it")
        self.store, self.bundle_id, self.source = store, bundle_id, source
        self.key = key  # {"kms_key_id", "wrapped"}
        self.data_key = data_key
        self.created_at = datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
        self.files: dict[str, StoredFile] = {}
        self.stored: dict[str, StoredFile] = {}  # what an interrupted export stored and no manifest names yet
        self.fernet = Fernet(base64.urlsafe_b64encode(data_key))
        self.digest_key = self._derive(b"digest")
        self._mac_key = self._derive(b"manifest")

    def __repr__(self) -> str:
        return f"Bundle({self.store.url!r}, {self.bundle_id!r})"

    # -- finding and keeping

    @classmethod
    def create(cls, store: Store, aws: Any, kms_key_id: str, source: dict[str, Any]) -> Bundle:
        """A new one, in memory: nothing is written before save() or save_progress()."""
        bundle_id = secrets.token_hex(16)
        data_key, wrapped = new_data_key(aws, kms_key_id, _context(bundle_id))
        return cls(store, bundle_id, data_key, {"kms_key_id": kms_key_id, "wrapped": _text(wrapped)}, source)

    @classmethod
    def open(cls, store: Store, aws: Any, kms_key_id: str | None = None) -> Bundle:
        """The one whose manifest is in the store. MigrationError where there is none, or it is not authentic.

        kms_key_id: the ARN of the key that sealed it, needed only where that is another account's.
        Files are checked when they are read, and all of them by check().
        """
        store.check_place()
        document = _document(store, MANIFEST)
        if document is None:
            raise MigrationError(
                f"there is no bundle at {store.url} (no {MANIFEST}): export one, or correct the name",
                code="NoBundle",
            )
        return cls._from(store, aws, document, MANIFEST, kms_key_id)

    @classmethod
    def resume(cls, store: Store, aws: Any, kms_key_id: str | None = None) -> Bundle | None:
        """The existing bundle with what an interrupted export has stored already; None where there is neither."""
        store.check_place()
        manifest, progress = _document(store, MANIFEST), _document(store, PROGRESS)
        if manifest is None:
            return None if progress is None else cls._from(store, aws, progress, PROGRESS, kms_key_id)
        bundle = cls._from(store, aws, manifest, MANIFEST, kms_key_id)
        if progress is not None and progress.get("bundle_id") == bundle.bundle_id:
            bundle._authenticate(progress, PROGRESS)
            bundle.stored = {entry["path"]: StoredFile(**entry) for entry in progress["files"]}
        return bundle

    @classmethod
    def _from(
        cls, store: Store, aws: Any, document: dict[str, Any], name: str, kms_key_id: str | None = None
    ) -> Bundle:
        if document.get("schema_version") != SCHEMA_VERSION:
            raise MigrationError(
                f"{store.url}/{name} has schema version {document.get('schema_version')!r}, this collection knows"
                f" {SCHEMA_VERSION}: use the version of the collection that exported it"
            )
        try:
            bundle_id, key = document["bundle_id"], document["key"]
            wrapped = base64.b64decode(key["wrapped"])
        except (KeyError, TypeError, ValueError):
            raise MigrationError(f"{store.url}/{name} is damaged: remove the bundle and export again") from None
        try:
            reply = aws.client("kms").decrypt(CiphertextBlob=wrapped, EncryptionContext=_context(bundle_id))
        except Exception as exception:
            if not is_aws_error(exception):
                raise
            error = aws_error(exception, f"open the bundle {store.url} with its KMS key {key.get('kms_key_id')}")
            if error.code == "InvalidCiphertextException":
                raise MigrationError(
                    f"{store.url}/{name} was altered: its key belongs to another bundle; remove it and export again",
                    code=error.code,
                ) from exception
            raise error from exception
        _check_key(f"{store.url}/{name}", reply["KeyId"], aws, kms_key_id)
        bundle = cls(store, bundle_id, reply["Plaintext"], key, document.get("source") or {})
        bundle._authenticate(document, name)
        files = {check_path(entry["path"]): StoredFile(**entry) for entry in document["files"]}
        bundle.files, bundle.stored = (files, {}) if name == MANIFEST else ({}, files)
        bundle.created_at = document["created_at"]
        return bundle

    def save(self) -> None:
        """Write the manifest, last of all, and forget the progress of the export."""
        self.store.write(MANIFEST, self._text(self.files, MANIFEST))
        self.store.delete(PROGRESS)
        self.stored = {}

    def save_progress(self, stored: dict[str, StoredFile]) -> None:
        """Remember what is stored already, so that an interrupted export goes on from here."""
        self.store.write(PROGRESS, self._text(stored, PROGRESS))

    def _text(self, files: dict[str, StoredFile], name: str) -> bytes:
        document = {
            "schema_version": SCHEMA_VERSION,
            "bundle_id": self.bundle_id,
            "created_at": self.created_at,
            "source": self.source,
            "key": self.key,
            "files": [
                {
                    name: value
                    for name, value in asdict(files[path]).items()
                    if value is not None or name == "version_id"
                }
                for path in sorted(files)
            ],
        }
        return json.dumps({**document, "mac": self._mac(document, name)}, indent=1, sort_keys=True).encode() + b"\n"

    def _mac(self, document: dict[str, Any], name: str) -> str:
        """name: of the file, so that one document cannot be put in another's place (half an export for a manifest)."""
        text = json.dumps([name, document], sort_keys=True, separators=(",", ":"))
        return hmac.new(self._mac_key, text.encode(), hashlib.sha256).hexdigest()

    def _authenticate(self, document: dict[str, Any], name: str, remedy: str = REMEDY) -> None:
        body = {key: value for key, value in document.items() if key != "mac"}
        if not hmac.compare_digest(str(document.get("mac")), self._mac(body, name)):
            raise MigrationError(
                f"{self.store.url}/{name} was altered after it was written (its authentication code does not fit):"
                f" {remedy}"
            )

    def read_document(self, path: str, remedy: str = REMEDY) -> dict[str, Any] | None:
        """A JSON file that write_document left, None where there is none.

        remedy: what to do where it was altered, for the sentence.
        """
        document = _document(self.store, path, remedy)
        if document is None:
            return None
        self._authenticate(document, path, remedy)
        if document["schema_version"] != SCHEMA_VERSION:
            raise MigrationError(
                f"{self.store.url}/{path} has schema version {document['schema_version']!r}, this collection knows"
                f" {SCHEMA_VERSION}: use the version of the collection that exported it"
            )
        return document

    def write_document(self, path: str, body: dict[str, Any]) -> None:
        """A JSON file beside the manifest, authenticated as that is, and bound to its path."""
        document = {**body, "schema_version": SCHEMA_VERSION, "bundle_id": self.bundle_id}
        text = json.dumps({**document, "mac": self._mac(document, path)}, sort_keys=True)
        self.store.write(path, text.encode() + b"\n")

    def _derive(self, purpose: bytes) -> bytes:
        return hmac.new(self.data_key, purpose, hashlib.sha256).digest()

    def check_source(self, identity: dict[str, Any]) -> None:
        """MigrationError when this bundle holds another Airflow. identity: as the agent's `inspect` gives it."""
        for name in ("airflow_home", "database"):
            if self.source.get(name) != identity[name]:
                raise MigrationError(
                    f"the bundle {self.store.url} holds another Airflow"
                    f" ({name} {self.source.get(name)}, not {identity[name]}): use a bundle of its own for this one"
                )

    # -- files

    def read(self, path: str) -> bytes:
        """A file of the manifest, as it was exported; MigrationError naming it where it is missing or differs."""
        return b"".join(self.stream(path))

    def stream(self, path: str) -> Iterator[bytes]:
        """The same in chunks. It raises before the last chunk where the file differs: what stops there has no file."""
        file = self.files.get(path)
        if file is None:
            raise MigrationError(f"the bundle {self.store.url} has no file {path}")
        hasher, size, last = hashlib.sha256(), 0, b""
        try:
            for chunk in self.store.stream(path, file.version_id):
                hasher.update(chunk)
                size += len(chunk)
                if size > file.size:
                    break
                if last:
                    yield last
                last = chunk
        except MigrationError as error:
            if error.code == "NotFound":
                raise MigrationError(
                    f"{self.store.url}/{path} is missing although the manifest names it: export again"
                ) from None
            raise
        if size != file.size or hasher.hexdigest() != file.sha256:
            raise MigrationError(f"{self.store.url}/{path} does not match the bundle's manifest: export again")
        yield last

    def check(self, paths: Iterable[str] | None = None) -> None:
        """Read all files (or these) and refuse the bundle when one does not match; every such file is named."""

        def fault(path: str) -> str | None:
            try:
                self.read(path)
            except MigrationError as error:
                return error.message
            return None

        with ThreadPoolExecutor(THREADS) as pool:
            faults = [text for text in pool.map(fault, sorted(self.files if paths is None else paths)) if text]
        if faults:
            raise MigrationError(
                "; ".join(faults[:20]) + (f"; and {len(faults) - 20} more" if len(faults) > 20 else "")
            )

    def document(self, path: str) -> Any:
        """A JSON file of the manifest (options.json, inventory.json)."""
        return json.loads(self.read(path))

    # -- state

    def read_state(self, kind: str) -> dict[str, Any]:
        """Variables, connections or pools as Airflow's own import reads them; opened in memory only."""
        return json.loads(self.unseal(self.read(state_path(kind)), state_path(kind)))

    def seal(self, data: bytes) -> bytes:
        return self.fernet.encrypt(data)

    def unseal(self, token: bytes, name: str = "it") -> bytes:
        try:
            return self.fernet.decrypt(token)
        except InvalidToken:
            raise MigrationError(
                f"{name} was not sealed with the key of the bundle {self.store.url}: export again"
            ) from None

    def content_digest(self, data: bytes) -> str:
        """What StoredFile.content holds for a sealed file with this content."""
        return hmac.new(self.digest_key, data, hashlib.sha256).hexdigest()

    def digest(self, kind: str, identifier: str, field: str, value: Any) -> str:
        return digest(self.digest_key, kind, identifier, field, value)

    def digests(self, kind: str, identifier: str, item: Any) -> dict[str, str]:
        """{field: digest} of one item, to compare with the agent's."""
        values = canonical(kind, item)
        return {field: self.digest(kind, identifier, field, values[field]) for field in values}

    def ledger(self, environment: str) -> Ledger:
        return Ledger(self, environment)


FOUND = "#found"  # among an item's fields in the ledger: it was there, equal, before this bundle brought anything


class Ledger:
    """What was last applied to an environment, as digests: the memory of fields that the environment does not show.

    It is written by save() only. MigrationError when it was altered by someone without the bundle's key.
    """

    def __init__(self, bundle: Bundle, environment: str):
        self._bundle, self._path = bundle, f"ledger/{check_path(environment)}.json"
        document = bundle.read_document(self._path)
        self._entries: dict[str, dict[str, dict[str, str]]] = document["entries"] if document else {}
        self._environment = environment
        self._changed = False

    def get(self, kind: str, identifier: str) -> dict[str, str] | None:
        """{field: digest} as last applied; kind: variables, connections or pools."""
        return self._entries.get(kind, {}).get(identifier)

    def put(self, kind: str, identifier: str, digests: dict[str, str] | None) -> None:
        """Remember (or, with None, forget) an item."""
        if digests == self.get(kind, identifier):
            return
        self._changed = True
        if digests is None:
            self._entries[kind].pop(identifier, None)
        else:
            self._entries.setdefault(kind, {})[identifier] = dict(digests)

    def ids(self, kind: str) -> set[str]:
        """What was brought; not what was found there, equal by itself."""
        return {identifier for identifier, known in self._entries.get(kind, {}).items() if FOUND not in known}

    def save(self) -> bool:
        """Write it if anything changed; whether it was written."""
        if not self._changed:
            return False
        self._bundle.write_document(self._path, {"environment": self._environment, "entries": self._entries})
        self._changed = False
        return True


def state_path(kind: str) -> str:
    return f"state/{kind}.json.sealed"


def changed_items(before: dict[str, Any], after: dict[str, Any], kind: str) -> Iterator[tuple[str, str]]:
    """(id, added|changed|removed) between two states of a kind."""
    for identifier in sorted({*before, *after}):
        if identifier not in before:
            yield identifier, "added"
        elif identifier not in after:
            yield identifier, "removed"
        elif canonical(kind, before[identifier]) != canonical(kind, after[identifier]):
            yield identifier, "changed"


def _check_key(where: str, arn: str, aws: Any, named: str | None) -> None:
    """Refuse what was sealed with a stranger's key.

    KMS opens with any key that we are allowed to use, and who owns a key can allow it to us: a manifest that was
    replaced in the bucket, with a key and a grant from another account, would open too, and all else would fit.
    """
    account = _account(arn)
    if account != _account(named or "") and account != aws.account_id:
        raise MigrationError(
            f"{where} was sealed with {arn}, a key of another account: if it is yours, give that ARN as kms_key_id;"
            " if not, somebody replaced the bundle"
        )


def _account(arn: str) -> str:
    """arn:aws:kms:REGION:ACCOUNT:key/ID -> ACCOUNT; '' for an id or an alias."""
    return arn.split(":")[4] if arn.startswith("arn:") else ""


def _context(bundle_id: str) -> dict[str, str]:
    return {"mwaa-migration": bundle_id}


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _document(store: Store, path: str, remedy: str = REMEDY) -> dict[str, Any] | None:
    try:
        text = store.read(path)
    except MigrationError as error:
        if error.code == "NotFound":
            return None
        raise
    try:
        document = json.loads(text)
    except ValueError:
        document = None
    if not isinstance(document, dict):
        raise MigrationError(f"{store.url}/{path} is damaged (no JSON object): {remedy}")
    return document
