# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An MWAA environment that is left: its agent as a DAG in it, its code in its bucket, its options in its settings.

PRIVATE to the collection: no promise is made to other collections.

Nothing of the environment is changed but the agent's own folder, which is taken out again: its requirements stay as
they are, and no DAG of its own is paused, since whatever is read is read in one snapshot of its database.
"""

from __future__ import annotations

import functools
import hashlib
import json
import re
import stat
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import IO, Any, cast

from ansible_collections.mwaa.migration.plugins.module_utils import (
    _cleanup,
    _options,
    _requirements,
    _startup,
    _versions,
)
from ansible_collections.mwaa.migration.plugins.module_utils._bundle import Bundle, canonical
from ansible_collections.mwaa.migration.plugins.module_utils._errors import (
    MigrationError,
    aws_errors,
    error_code,
    is_aws_error,
    is_missing,
)
from ansible_collections.mwaa.migration.plugins.module_utils._mwaa import environment as environments
from ansible_collections.mwaa.migration.plugins.module_utils._mwaa import limits
from ansible_collections.mwaa.migration.plugins.module_utils._mwaa.clone import telling
from ansible_collections.mwaa.migration.plugins.module_utils._mwaa.rest import RestClient, RestError
from ansible_collections.mwaa.migration.plugins.module_utils._state.agent import PORTION, AgentLane
from ansible_collections.mwaa.migration.plugins.module_utils._state.agent_starts import DAG_ID, POLL_DAG_ID
from ansible_collections.mwaa.migration.plugins.module_utils._state.airflow_agent import looks_secret, sealed_state
from ansible_collections.mwaa.migration.plugins.module_utils._state.rest import Masking, RestLane
from ansible_collections.mwaa.migration.plugins.module_utils._sync.archive import LIMIT
from ansible_collections.mwaa.migration.plugins.module_utils._sync.bucket import Bucket
from ansible_collections.mwaa.migration.plugins.module_utils._sync.tree import CHUNK, FileInfo, make_tree

READERS = 16  # objects read at once
GONE = ("DELETED", "DELETING", "CREATING", "CREATE_FAILED")
HISTORY_OF_3 = (
    "environment {name} has Airflow {version}, whose tasks have no way to the metadata database: its run history cannot"
    " be read from there, and AWS gives no other way to it; its state is carried all the same"
)
SOURCE_ARGUMENTS: dict[str, Any] = {
    "source_environment": {"type": "str"},
    "source_region": {"type": "str"},
    "source_profile": {"type": "str"},
    "source_role_arn": {"type": "str"},
    "source_kms_key_id": {"type": "str", "no_log": False},
    "source_agent": {"type": "str", "default": "removed", "choices": ["removed", "kept"]},
    "api_host": {"type": "str"},
    "wait_timeout": {"type": "int", "default": 1200},
}


def seal_key(params: dict[str, Any], bundle: Bundle | None, aws: Any, there: Any) -> str:
    """The KMS key that the agent's requests are sealed with. aws: the target's; there: the source's.

    Raises MigrationError where the bundle's key cannot be used at the source, and no other is given.
    """
    if params["source_kms_key_id"]:
        return str(params["source_kms_key_id"])
    key = str(params["kms_key_id"] or (bundle.key["kms_key_id"] if bundle else ""))
    if there.region != aws.region:
        raise MigrationError(
            f"the source is in {there.region} and the bundle's key in {aws.region}, where its execution role cannot use"
            f" it: set source_kms_key_id to a key in {there.region}"
        )
    if not key.startswith("arn:") and there.account_id != aws.account_id:
        raise MigrationError(
            f"the bundle's key {key} is another account's for the source: give kms_key_id as its ARN, or"
            " source_kms_key_id"
        )
    return key


class SourceEnvironment:
    """The environment that is left.

    aws: of the source (source_aws). timeout: seconds for a DAG run of the agent. history: its requests are to come.
    clock: has time(), monotonic() and sleep(); tests bring their own.
    """

    def __init__(self, aws: Any, name: str, timeout: float, *, history: bool = False, clock: Any = time):
        self.aws, self.name, self.timeout = aws, name, timeout
        self._history, self._clock = history, clock
        self._lane: AgentLane | None = None

    @functools.cached_property
    def environment(self) -> dict[str, Any]:
        """GetEnvironment's. Raises MigrationError where there is none that could be read."""
        found = environments.describe(self.aws.client("mwaa"), self.name)
        status = found["Status"] if found else None
        if found is None or status in GONE:
            there = environments.names(self.aws.client("mwaa"))
            raise MigrationError(
                f"environment {self.name} {f'is {status}' if status else 'does not exist'} in {self.aws.region}:"
                f" {'there are ' + ', '.join(there) if there else 'there is none at all'};"
                " correct source_environment or source_region"
            )
        if status in limits.BUSY or status == "UNAVAILABLE":
            raise MigrationError(
                f"environment {self.name} is {status}, so that no task of it can be counted on: run again when it is"
                " AVAILABLE"
            )
        return found

    @property
    def version(self) -> str:
        return str(self.environment["AirflowVersion"])

    @property
    def major(self) -> int:
        return environments.major(self.environment)

    @property
    def identity(self) -> dict[str, str]:
        """What the bundle knows the source by: a worker's host name, and the address of a database that nobody
        reaches, are others tomorrow.
        """
        arn = self.environment["Arn"]
        return {"airflow_version": self.version, "hostname": self.name, "database": arn}

    def history_is_unreadable(self) -> str | None:
        """Why the run history cannot be read; None where it can."""
        return HISTORY_OF_3.format(name=self.name, version=self.version) if self.major >= 3 else None

    # -- the agent

    def enter(self, kms_key_id: str) -> None:
        """Put the agent there, where it is not yet. kms_key_id: the key that its requests are sealed with.

        Raises MigrationError where nothing could be read: a task of Airflow 3 lists nothing, and REST does not answer.
        """
        lane = AgentLane(self.aws, self.environment, kms_key_id, history=self._history, clock=self._clock)
        if self.major >= 3 and not lane.access.rest:
            raise MigrationError(
                f"what environment {self.name}, Airflow {self.version}, holds is listed by its REST API alone, which"
                f" does not answer from here ({lane.access.reason}): set api_host to a host inside its VPC"
            )
        lane.install()
        self._lane = lane

    def ask(self, request: dict[str, Any]) -> dict[str, Any]:
        """The agent's result. Raises MigrationError with its own sentence; enter() comes before."""
        return cast(AgentLane, self._lane).run(request, self.timeout)

    def leave(self, kms_key_id: str) -> list[str]:
        """Take the agent out again, its rows in Airflow's database included. Returns what remains, as sentences."""
        keys = [] if "alias/" in kms_key_id else [kms_key_id]  # ListGrants takes no alias
        _removed, remains = _cleanup.take_out(self.aws, self.environment, keys, int(self.timeout), self._clock)
        return [f"{rest['what']} in {rest['where']} remain: {rest['reason']}" for rest in remains]

    @property
    def notes(self) -> list[str]:
        return self._lane.notes if self._lane else []

    # -- state

    def plan(self) -> dict[str, Any]:
        """The agent's plan of an environment: {"identity", "dags", "access"}, without this collection's own DAGs."""
        found = self.ask({"op": "plan", "bucket": True})
        if found["dags"] is None:
            rows = [row for page in self.rest.pages("/dags", "dags") for row in page]
            found["dags"] = [
                {"dag_id": row["dag_id"], "is_paused": bool(row.get("is_paused")), "fileloc": row.get("fileloc")}
                for row in sorted(rows, key=lambda row: str(row["dag_id"]))
            ]
        found["dags"] = [dag for dag in found["dags"] if dag["dag_id"] not in (DAG_ID, POLL_DAG_ID)]
        return found

    @functools.cached_property
    def rest(self) -> RestClient:
        return RestClient(self.aws.client("mwaa"), self.name, clock=self._clock)

    def state(self, request: dict[str, Any], bundle: Bundle) -> dict[str, Any]:
        """export_state's answer. request: its data key."""
        if self.major < 3:
            return self.ask(request)
        return self._state_of_3(request, bundle)

    def _state_of_3(self, request: dict[str, Any], bundle: Bundle) -> dict[str, Any]:
        """Airflow 3: REST lists names, descriptions and pools; the agent reads the values, portion by portion, since
        the time that one task takes grows as the square of the secrets that it has seen.
        """
        listed = {kind: self._listed(kind) for kind in ("variables", "connections")}
        listed["pools"], faults = self._pools()
        state: dict[str, dict[str, Any]] = {"variables": {}, "connections": {}, "pools": listed["pools"]}
        hidden = []
        for kind in ("variables", "connections"):
            names = sorted(listed[kind])
            for start in range(0, len(names), PORTION):
                part = names[start : start + PORTION]
                descriptions = {name: listed[kind][name]["description"] for name in part}
                answer = self.ask({**request, "ids": {kind: part}, "descriptions": {kind: descriptions}})
                faults += answer["faults"]
                hidden += answer["hidden"]
                read = json.loads(bundle.unseal(answer["sealed"][kind].encode(), kind))
                state[kind].update({name: canonical(kind, item) for name, item in read.items()})
        sealed = sealed_state(state, bundle.data_key)
        return {**sealed, "faults": faults, "defaults": [], "hidden": sorted(set(hidden))}

    def _listed(self, kind: str) -> dict[str, dict[str, Any]]:
        return self._rest_lane(kind).read()

    def _rest_lane(self, kind: str) -> RestLane:
        return RestLane(self.rest, kind, environments.version(self.environment), Masking(self.major))

    def _pools(self) -> tuple[dict[str, dict[str, Any]], list[dict[str, Any]]]:
        """(pools, what of them cannot be carried)"""
        try:
            return self._listed("pools"), []
        except RestError as error:
            if error.status != 500:
                raise
        pools, unseen = self._rest_lane("pools").read_one_by_one()
        reason = (
            f"the REST API of Airflow {self.version} answers 500 for a pool with unlimited slots (-1), and does not say"
            " which that is: make it at the target, if it is needed"
        )
        faults = [{"kind": "pool", "id": f"(unlimited {number + 1})", "reason": reason} for number in range(unseen)]
        return pools, faults

    # -- code

    def code(self) -> Code:
        return read_code(Bucket(self.aws, self.environment["SourceBucketArn"].rpartition(":")[2]), self.environment)

    @property
    def python(self) -> str | None:
        """The minor version that AWS gives this Airflow."""
        offer = _versions.OFFERS.get(self.version)
        return offer.python if offer else None


# --- code -------------------------------------------------------------------------------------------------------------


@dataclass
class Code:
    """What an environment runs, out of its bucket.

    listings: "dags" and "plugins" as the agent's plan has them of a host. open: {path in the bundle: its content}.
    requirements, startup: their text, None where there is none.
    """

    listings: dict[str, dict[str, Any]]
    open: dict[str, Callable[[], Iterator[bytes]]] = field(repr=False)
    requirements: bytes | None = None
    startup: bytes | None = None
    findings: list[str] = field(default_factory=list)

    def derived(
        self, source: SourceEnvironment, target_version: str
    ) -> tuple[_requirements.Requirements, dict[str, Any], _startup.Decision]:
        """What the target's version makes of requirements.txt, options and startup.sh."""
        options = _options.classify_own(
            source.environment.get("AirflowConfigurationOptions") or {}, source.version, target_version, telling
        )
        requirements, variables = _requirements.Requirements(""), _startup.Decision()
        try:
            if self.requirements:
                requirements = _requirements.repin(self.requirements.decode(), source.version, target_version)
        except UnicodeDecodeError:
            requirements.not_carried.append(_no_text("requirements.txt"))
        wheels = [name for name in map(_wheel_python, self.open) if name]
        if wheels and source.python and source.python != _versions.require(target_version).python:
            requirements.findings.append(
                f"plugins.zip holds wheels for the source's Python {source.python} alone ({', '.join(wheels[:5])}"
                f"{' and more' if len(wheels) > 5 else ''}): pack them for Airflow {target_version}"
            )
        if self.startup and not _versions.at_least(target_version, _versions.STARTUP_SCRIPT):
            reason = f"Airflow {target_version} in MWAA has no startup script"
            variables.not_carried.append({"kind": "file", "id": "startup.sh", "reason": reason})
        elif self.startup:
            try:
                variables.script = self.startup.decode()
            except UnicodeDecodeError:
                variables.not_carried.append(_no_text("startup.sh"))
        return requirements, options, variables


def _no_text(name: str) -> dict[str, str]:
    return {"kind": "file", "id": name, "reason": "it is no text in UTF-8"}


def _wheel_python(path: str) -> str | None:
    """The name of a wheel that one minor version of Python alone can load."""
    name = path.rpartition("/")[2]
    return name if re.search(r"-cp3\d+-cp3\d+m?-[^-]+\.whl$", name) else None


def read_code(bucket: Bucket, environment: dict[str, Any]) -> Code:
    """The DAG folder as it is now; plugins, requirements and startup script in the versions that the environment has.

    Raises MigrationError naming the object that is gone, or is no archive.
    """
    code = Code({}, {})
    _read_dags(code, bucket, environment["DagS3Path"].strip("/"))
    _read_plugins(code, bucket, environment)
    for member, name in (("Requirements", "requirements"), ("StartupScript", "startup")):
        found = _object(bucket, environment, member)
        setattr(code, name, found.read() if found else None)
    if code.startup:
        code.findings += judge_startup(code.startup)
    return code


def _read_dags(code: Code, bucket: Bucket, folder: str) -> None:
    prefix = f"{folder}/"
    with aws_errors(f"list s3://{bucket.name}/{prefix}"):
        found = bucket.list(prefix)
    if found is None:
        raise MigrationError(f"the environment's bucket {bucket.name} does not exist")
    sizes = {key[len(prefix) :]: FileInfo(one.size, one.etag) for key, one in found.items() if not key.endswith("/")}
    tree = make_tree(sizes, lambda _path: iter(()))
    with ThreadPoolExecutor(READERS) as pool:
        measured = list(pool.map(lambda path: _measure(bucket, prefix + path), tree.files))
    files = []
    for path, one in zip(tree.files, measured):
        if one is None:  # since it was listed
            continue
        size, digest, version = one
        files.append({"path": path, "size": size, "sha256": digest})
        code.open[f"dags/{path}"] = functools.partial(bucket.stream, prefix + path, version)
    code.listings["dags"] = _listing(f"s3://{bucket.name}/{folder}", files, tree)


def _listing(root: str, files: list[dict[str, Any]], tree: Any) -> dict[str, Any]:
    skipped = [{"path": item["id"], "reason": item["reason"]} for item in tree.not_carried]
    caches = sum(count for kind, count in tree.left_out.items() if kind != "agent")
    return {"root": root, "exists": True, "files": files, "skipped": skipped, "caches": caches}


def _measure(bucket: Bucket, key: str) -> tuple[int, str, str | None] | None:
    """(size, sha256, version) of an object as it is now; None where it has gone since it was listed."""
    with aws_errors(f"read s3://{bucket.name}/{key}"):
        try:
            reply = bucket.client.get_object(Bucket=bucket.name, Key=key)
        except Exception as exception:
            if not is_aws_error(exception) or not is_missing(exception) or error_code(exception) == "NoSuchBucket":
                raise
            return None
        hasher, size = hashlib.sha256(), 0
        while chunk := reply["Body"].read(CHUNK):
            hasher.update(chunk)
            size += len(chunk)
    version = reply.get("VersionId")
    return size, hasher.hexdigest(), version if version != "null" else None


def _object(bucket: Bucket, environment: dict[str, Any], member: str) -> IO[bytes] | None:
    """An object that the environment's settings name, in the version that they name, in a file without a name."""
    key, version = environment.get(f"{member}S3Path"), environment.get(f"{member}S3ObjectVersion")
    if not key:
        return None
    where = f"s3://{bucket.name}/{key}{f' (version {version})' if version else ''}"
    file = tempfile.TemporaryFile(prefix="mwaa-source-")  # noqa: SIM115 - without a name, gone with this process
    try:
        with aws_errors(f"read {where}"):
            for chunk in bucket.stream(key, version):
                file.write(chunk)
    except MigrationError as error:
        if error.code in ("NoSuchKey", "NoSuchVersion", "404"):
            raise MigrationError(
                f"{where} is gone, which the environment {environment['Name']} names in {member}S3Path: restore it, or"
                " update the environment to an object that is there",
                code=error.code,
            ) from None
        raise
    file.seek(0)
    return file


def _read_plugins(code: Code, bucket: Bucket, environment: dict[str, Any]) -> None:
    file = _object(bucket, environment, "Plugins")
    if file is None:
        return
    where = f"s3://{bucket.name}/{environment['PluginsS3Path']}"
    try:
        archive = zipfile.ZipFile(file)
        entries = {entry.filename: entry for entry in archive.infolist() if not entry.is_dir()}
        if sum(entry.file_size for entry in entries.values()) >= LIMIT:
            raise MigrationError(f"{where} unpacks to 1 GB or more, which is more than plugins may be: make it smaller")
        unfit = {path: reason for path, entry in entries.items() if (reason := _unfit(entry))}
        sizes = {path: FileInfo(entry.file_size, "") for path, entry in entries.items() if path not in unfit}
        tree = make_tree(sizes, lambda _path: iter(()), kind="plugin_file")
        for path, reason in unfit.items():
            tree.leave(path, reason)
        files = []
        for path in tree.files:
            content = functools.partial(_member, archive, entries[path])
            hasher = hashlib.sha256()
            for chunk in content():
                hasher.update(chunk)
            files.append({"path": path, "size": entries[path].file_size, "sha256": hasher.hexdigest()})
            code.open[f"plugins/{path}"] = content
    except (zipfile.BadZipFile, NotImplementedError, EOFError, RuntimeError) as error:
        raise MigrationError(f"{where} is no zip archive that can be read: {error}") from None
    code.listings["plugins"] = _listing(where, files, tree)


def _unfit(entry: zipfile.ZipInfo) -> str | None:
    parts = entry.filename.split("/")
    if any(part in ("", ".", "..") for part in parts) or "\\" in entry.filename:
        return "its name in plugins.zip leads elsewhere"
    if stat.S_ISLNK(entry.external_attr >> 16):
        return "a symlink in plugins.zip"
    return "it is encrypted in plugins.zip" if entry.flag_bits & 1 else None


def _member(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> Iterator[bytes]:
    with archive.open(entry) as opened:
        while chunk := opened.read(CHUNK):
            yield chunk


_EXPORT = re.compile(r"^\s*(?:export\s+)?([A-Za-z_][A-Za-z0-9_]*)=(.*)$")


def judge_startup(script: bytes) -> list[str]:
    """Findings: what it sets that looks like a secret, by name. It is carried as it is, as it lies in the bucket."""
    names = []
    for line in script.decode("utf-8", "replace").splitlines():
        found = _EXPORT.match(line)
        if found and found[2].strip("'\" ") and looks_secret(found[1], found[2]):
            names.append(found[1])
    if not names:
        return []
    return [
        f"startup.sh sets {', '.join(dict.fromkeys(names))}, which looks like a secret; it is carried as it is, and"
        " everyone reads it who may read the bucket: make it a connection or a variable"
    ]
