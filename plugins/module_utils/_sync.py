# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From a bundle or a folder to an environment's bucket: the DAG folder, plugins.zip, requirements.txt and startup.sh.

PRIVATE to the collection: no promise is made to other collections.

What is compared is content. An index in the bucket remembers the sha256 behind each ETag, so that an unchanged run
lists the DAG folder (1,000 objects a request) and reads one object, whatever the encryption. The index is a memory, not
a proof: an object whose ETag is not the remembered one is compared again (MD5 where the ETag is one, S3's own SHA-256
otherwise) or written again.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import io
import json
import re
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Callable

from ansible_collections.mwaa.migration.plugins.module_utils._bundle import (
    KINDS,
    MANIFEST,
    PROGRESS,
    Bundle,
    S3Store,
    open_store,
    state_path,
)
from ansible_collections.mwaa.migration.plugins.module_utils._dags import (
    AGENT_FOLDER,
    IGNORE_FILE,
    SYNTAX_OPTION,
    SYNTAXES,
    Facts,
    FileInfo,
    IgnoreRules,
    Tree,
    default_syntax,
    early_files,
    facts_of,
    folder_tree,
    ignore_lines,
    kind_of,
    make_tree,
    with_block,
)
from ansible_collections.mwaa.migration.plugins.module_utils._errors import (
    BAD_CREDENTIALS,
    DENIED,
    EXPIRED,
    MigrationError,
    aws_error,
    aws_errors,
    error_code,
    explain,
    is_aws_error,
    is_missing,
)
from ansible_collections.mwaa.migration.plugins.module_utils._progress import progress

INDEX_FOLDER = "mwaa-migration/published"
WORKERS = 24  # below the 32 connections of a client
UNKNOWN_VERSION = "unknown until published"  # the object version in check mode, where one would be written
PLUGINS_LIMIT = 1024**3  # documented MWAA limit: plugins.zip is smaller than 1 GB
INDEX_VERSION = 1

_MD5 = re.compile(r"[0-9a-f]{32}")
_HOPELESS = EXPIRED | BAD_CREDENTIALS | DENIED | {"NoSuchBucket"}
_EMPTY_ZIP = b"PK\x05\x06" + b"\x00" * 18


# --- what is published ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Artefact:
    """plugins.zip, requirements.txt or startup.sh. `digest` is of what went in, so that the same input is the same
    artefact.
    """

    digest: str
    build: Callable[[], bytes]


@dataclass
class Source:
    """All that is published. An artefact that is None is not there at the source."""

    dags: Tree
    plugins: Tree | None = None
    requirements: Artefact | None = None
    startup_script: Artefact | None = None
    syntax: str | None = None  # of the source's .airflowignore files; None: not known


@dataclass(frozen=True)
class Target:
    """Where it goes. Keys are in `bucket`; `airflow_version` is None where it is not known yet."""

    bucket: str
    dag_s3_path: str
    plugins_s3_path: str
    requirements_s3_path: str
    startup_script_s3_path: str
    airflow_version: str | None = None
    options: Mapping[str, str] = field(default_factory=dict)

    @property
    def index_key(self) -> str:
        return f"{INDEX_FOLDER}/{self.dag_s3_path.replace('/', '~')}.json"


def beside(dag_s3_path: str, name: str) -> str:
    """'dags', 'plugins.zip' -> 'plugins.zip'; 'team/dags', 'plugins.zip' -> 'team/plugins.zip'."""
    folder = dag_s3_path.rpartition("/")[0]
    return f"{folder}/{name}" if folder else name


def artefact(content: bytes) -> Artefact:
    return Artefact(hashlib.sha256(content).hexdigest(), lambda: content)


def plugins_zip(tree: Tree) -> Artefact:
    """The plugins folder as one archive that is the same, byte for byte, for the same files.

    Sorted names, one date, stored and not deflated: what deflate makes differs between zlib versions, and each new
    object version costs the environment an update of 20 minutes.
    """
    listing = [[path, info.sha256] for path, info in sorted(tree.files.items())]
    digest = hashlib.sha256(json.dumps(["plugins.zip", 1, listing]).encode()).hexdigest()
    size = sum(info.size for info in tree.files.values())
    if size > PLUGINS_LIMIT:
        raise MigrationError(
            f"the plugins folder holds {size:,} bytes and MWAA takes a plugins.zip of less than 1 GB;"
            " move what is not code out of it, to S3"
        )

    def build() -> bytes:
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
            for path in sorted(tree.files):
                content = tree.read(path)
                entry = zipfile.ZipInfo(path, date_time=(1980, 1, 1, 0, 0, 0))
                entry.create_system = 3  # Unix, also where it is built elsewhere
                entry.external_attr = (0o100755 if content.startswith(b"#!") else 0o100644) << 16
                archive.writestr(entry, content)
        return buffer.getvalue()

    return Artefact(digest, build)


def find_target(params: Mapping[str, Any], environment: Mapping[str, Any] | None) -> Target:
    """What the module's options say, and for the rest what the environment (as GetEnvironment shows it; None: not
    there) says.
    """
    here = environment or {}
    bucket = params["bucket"] or str(here.get("SourceBucketArn") or "").rpartition(":")[2]
    if not bucket:
        raise MigrationError(
            f"the environment {params['environment']} does not exist, so that its bucket is not known;"
            " set bucket and dag_s3_path, or correct the environment's name or the region"
        )
    dags = (params["dag_s3_path"] or here.get("DagS3Path") or "dags").strip("/")
    if not dags:
        raise MigrationError("dag_s3_path is empty: MWAA needs a folder in the bucket, such as dags")
    keys = {}
    for option, shown, name in (
        ("plugins_s3_path", "PluginsS3Path", "plugins.zip"),
        ("requirements_s3_path", "RequirementsS3Path", "requirements.txt"),
        ("startup_script_s3_path", "StartupScriptS3Path", "startup.sh"),
    ):
        keys[option] = params[option] or here.get(shown) or beside(dags, name)
    return Target(
        bucket,
        dags,
        airflow_version=params["airflow_version"] or here.get("AirflowVersion"),
        options=here.get("AirflowConfigurationOptions") or {},
        **keys,
    )


def open_source(aws: Any, params: Mapping[str, Any]) -> Source:
    """A bundle, checked against its manifest, or a plain folder; with the files that the options name instead of the
    bundle's.

    Raises MigrationError: no such folder, no bundle there, a bundle that does not match its manifest.
    """
    where = str(params["source"])
    if where.startswith("s3://") or (Path(where).expanduser() / "manifest.json").is_file():
        source = _bundle_source(aws, where, params["kms_key_id"])
    else:
        source = Source(folder_tree(where))
        if PROGRESS in source.dags.files or any(state_path(kind) in source.dags.files for kind in KINDS):
            raise MigrationError(
                f"{where} is a bundle without {MANIFEST}: its export did not end; export again, nothing was published"
            )
    if params["plugins"]:
        source.plugins = folder_tree(params["plugins"])
    for option in ("requirements", "startup_script"):
        if params[option]:
            try:
                setattr(source, option, artefact(Path(params[option]).expanduser().read_bytes()))
            except OSError as error:
                raise MigrationError(f"cannot read {option} {params[option]}: {error.strerror}") from error
    source.syntax = params["ignore_syntax"] or source.syntax
    return source


def _bundle_source(aws: Any, url: str, kms_key_id: str | None) -> Source:
    bundle = Bundle.open(open_store(url, aws), aws, kms_key_id)
    check_bundle(bundle)
    paths = bundle.files
    return Source(
        bundle_tree(bundle, "dags/"),
        bundle_tree(bundle, "plugins/"),
        artefact(bundle.read("requirements.txt")) if "requirements.txt" in paths else None,
        artefact(bundle.read("startup.sh")) if "startup.sh" in paths else None,
        source_syntax(bundle),
    )


def check_bundle(bundle: Bundle) -> None:
    """Refuse a bundle of which any file is not what the manifest says, naming all of them.

    Where the store tells contents apart by itself (S3's ETags), no file is read; what is published is checked again
    when it is read.
    """
    listing = bundle.store.list()
    other = sorted(path for path, file in bundle.files.items() if not bundle.store.holds(file, listing))
    if other:
        raise MigrationError(
            f"the bundle {bundle.store.url} does not match its manifest: {', '.join(other)}"
            f" {'is' if len(other) == 1 else 'are'} missing or altered; export again"
        )
    bundle.check(path for path, file in bundle.files.items() if isinstance(bundle.store, S3Store) and not file.etag)


def bundle_tree(bundle: Bundle, prefix: str) -> Tree:
    """The files of the bundle below `prefix`, read with their sha256 checked."""
    files = {
        path[len(prefix) :]: FileInfo(file.size, file.sha256)
        for path, file in bundle.files.items()
        if path.startswith(prefix)
    }
    return make_tree(files, lambda path: bundle.read(prefix + path))


def source_syntax(bundle: Bundle) -> str | None:
    """The syntax of the source's .airflowignore files: what it has set, otherwise its version's default."""
    options = bundle.document("options.json") if "options.json" in bundle.files else {}
    chosen = (options.get("portable") or {}).get(SYNTAX_OPTION)
    if isinstance(chosen, dict):
        chosen = chosen.get("value")
    version = bundle.source.get("airflow_version")
    return chosen or (default_syntax(version) if version else None)


@dataclass
class Layout:
    """A DAG folder as it will stand on the target."""

    files: dict[str, FileInfo]
    composed: dict[str, bytes]  # .airflowignore files that are not the source's, byte for byte
    rules: IgnoreRules
    facts: dict[str, Facts]
    held_back: list[dict[str, Any]]
    ignored: list[str]
    needed_options: dict[str, str]
    findings: list[dict[str, str]]


def lay_out(
    source: Source,
    facts: dict[str, Facts],
    plugin_facts: Mapping[str, Facts],
    *,
    hold_back: bool,
    airflow_version: str | None = None,
    options: Mapping[str, str] | None = None,
) -> Layout:
    """The DAG folder with the files that would start by themselves hidden.

    facts: by path. airflow_version, options: the target's, where known; they tell the syntax that it reads
    .airflowignore in.
    """
    findings: list[dict[str, str]] = []
    needed: dict[str, str] = {}
    tree = source.dags
    ignore_files = {
        path: with_block(tree.read(path), []) for path in tree.files if path.rpartition("/")[2] == IGNORE_FILE
    }
    target_syntax = (options or {}).get(SYNTAX_OPTION) or (default_syntax(airflow_version) if airflow_version else None)
    syntax = source.syntax or target_syntax or "regexp"
    rules = IgnoreRules(ignore_files, syntax)
    ignored = sorted(path for path in tree.files if path not in ignore_files and rules.hides(path))
    for place in rules.invalid:
        findings.append(
            _finding(
                "warning",
                place,
                f"this pattern is no valid {syntax} and Airflow passes it over",
                "correct it at the source",
            )
        )

    held: list[dict[str, Any]] = []
    if hold_back:
        for path, (line, reason) in early_files(facts, plugin_facts).items():
            if not rules.hides(path):
                held.append({"path": path, "line": line or None, "reason": reason})
    composed = _with_held_back(ignore_files, [item["path"] for item in held])
    now_hidden = IgnoreRules(composed, syntax)
    known = {item["path"] for item in held}
    for path, found in sorted(facts.items()):
        if found.dag and path not in known and now_hidden.hides(path) and not rules.hides(path):
            held.append({"path": path, "line": None, "reason": "its path ends like that of a file that is held back"})
    for path, content in list(composed.items()):
        original = tree.files.get(path)
        if original is not None and hashlib.sha256(content).hexdigest() == original.sha256:
            del composed[path]

    if target_syntax != syntax and rules:
        if (options or {}).get(SYNTAX_OPTION) and target_syntax:
            raise MigrationError(
                f"the DAG folder's {IGNORE_FILE} is written as {syntax} and the environment reads it as"
                f" {target_syntax}; set its option {SYNTAX_OPTION} to {syntax} and run again"
            )
        if airflow_version or source.syntax:
            needed[SYNTAX_OPTION] = syntax
    for path, found in sorted(facts.items()):
        if found.early and kind_of(path) == "data":
            findings.append(
                _finding(
                    "warning",
                    f"{path}:{found.early}",
                    "sets is_paused_upon_creation to false; a DAG factory that reads it would start its DAGs",
                    "set it to true, or hide the DAG file that reads it, until the cutover",
                )
            )
    if rules.hides(f"{AGENT_FOLDER}/mwaa_agent.py"):
        findings.append(
            _finding(
                "warning",
                IGNORE_FILE,
                f"a pattern hides {AGENT_FOLDER}/, so that the agent lane cannot work",
                f"narrow the pattern so that it does not match {AGENT_FOLDER}/mwaa_agent.py",
            )
        )

    files = dict(tree.files)
    for path, content in composed.items():
        files[path] = FileInfo(len(content), hashlib.sha256(content).hexdigest())
    return Layout(files, composed, rules, facts, held, ignored, needed, findings)


def _with_held_back(ignore_files: Mapping[str, bytes], paths: list[str]) -> dict[str, bytes]:
    """The .airflowignore files with the block: in the root's, and in a nearer one where a negation would undo it."""
    composed = dict(ignore_files)

    def add(where: str, wanted: list[str]) -> None:
        folder = where.rpartition("/")[0]
        lines = [line for path in wanted for line in ignore_lines(path, folder)]
        composed[where] = with_block(ignore_files.get(where, b""), lines)

    def visible() -> list[str]:
        both = [IgnoreRules(composed, syntax) for syntax in SYNTAXES]
        return [path for path in paths if not all(rules.hides(path) for rules in both)]

    if paths:
        add(IGNORE_FILE, paths)
    nearer: dict[str, list[str]] = {}
    for path in visible():
        folders = path.split("/")[:-1]
        around = ["/".join([*folders[:depth], IGNORE_FILE]) for depth in range(len(folders), 0, -1)]
        nearer.setdefault(next((place for place in around if place in composed), IGNORE_FILE), []).append(path)
    for where, wanted in nearer.items():
        if where != IGNORE_FILE:
            add(where, wanted)
    if visible():
        raise MigrationError(
            f"these files unpause themselves and no line of {IGNORE_FILE} can hide them: {', '.join(visible())};"
            " set is_paused_upon_creation=True in them and run again"
        )
    return composed


def _finding(severity: str, where: str, what: str, mend: str) -> dict[str, str]:
    return {"severity": severity, "where": where, "what": what, "mend": mend}


# --- the bucket -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Found:
    """An object as S3 lists it. etag without quotes."""

    size: int
    etag: str
    version_id: str | None = None
    sha256: str | None = None


class Bucket:
    """The few things that are done to one bucket. Raises botocore's exceptions; thread-safe."""

    def __init__(self, aws: Any, name: str):
        self.name = name
        self.client = aws.client("s3")
        self._region = aws.region

    def exists(self) -> bool:
        """Raises MigrationError when it is in another region than the environment, which MWAA does not take."""
        try:
            answer = self.client.head_bucket(Bucket=self.name)
        except Exception as exception:
            if is_aws_error(exception) and is_missing(exception):
                return False
            raise
        headers = answer.get("ResponseMetadata", {}).get("HTTPHeaders", {})
        region = answer.get("BucketRegion") or headers.get("x-amz-bucket-region") or self._region
        if region != self._region:
            raise MigrationError(
                f"the bucket {self.name} is in {region}, and MWAA takes only a bucket in the environment's region,"
                f" {self._region};"
                " use a bucket there, or set region to the bucket's"
            )
        return True

    def versioned(self) -> bool:
        return self.client.get_bucket_versioning(Bucket=self.name).get("Status") == "Enabled"

    def list(self, prefix: str) -> dict[str, Found]:
        found: dict[str, Found] = {}
        for page in self.client.get_paginator("list_objects_v2").paginate(Bucket=self.name, Prefix=prefix):
            for item in page.get("Contents", []):
                found[item["Key"]] = Found(item["Size"], item["ETag"].strip('"'))
        return found

    def head(self, key: str) -> Found | None:
        try:
            answer = self.client.head_object(Bucket=self.name, Key=key, ChecksumMode="ENABLED")
        except Exception as exception:
            if is_aws_error(exception) and is_missing(exception):
                return None
            raise
        checksum = answer.get("ChecksumSHA256")
        # "…-3": the checksum of the parts' checksums, which says nothing about the whole
        whole = base64.b64decode(checksum).hex() if checksum and "-" not in checksum else None
        return Found(answer["ContentLength"], answer["ETag"].strip('"'), answer.get("VersionId"), whole)

    def get(self, key: str) -> bytes | None:
        try:
            return self.client.get_object(Bucket=self.name, Key=key)["Body"].read()
        except Exception as exception:
            if is_aws_error(exception) and is_missing(exception):
                return None
            raise

    def put(self, key: str, content: bytes) -> Found:
        """One PUT with its length and its SHA-256 as a header: S3 refuses what arrived damaged, and nothing is sent in
        chunks.
        """
        digest = hashlib.sha256(content)
        answer = self.client.put_object(
            Bucket=self.name,
            Key=key,
            Body=content,
            ContentLength=len(content),
            ChecksumSHA256=base64.b64encode(digest.digest()).decode(),
        )
        return Found(len(content), answer["ETag"].strip('"'), answer.get("VersionId"), digest.hexdigest())

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


class Index:
    """What was published, by key: sha256, etag, version_id and, for artefacts, the digest of what went in. And facts by
    content.
    """

    def __init__(self, raw: bytes | None):
        self.objects: dict[str, dict[str, Any]] = {}
        self.facts: dict[str, Facts] = {}
        self._raw = raw
        try:
            stored = json.loads(raw) if raw else {}
            if stored.get("version") == INDEX_VERSION:
                self.objects = dict(stored["objects"])
                self.facts = {key: Facts.from_json(value) for key, value in stored["facts"].items()}
        except (ValueError, TypeError, KeyError, AttributeError):
            self.objects, self.facts = {}, {}  # a damaged memory is no memory: everything is compared again

    def remember(self, key: str, found: Found, digest: str) -> None:
        self.objects[key] = {"digest": digest, "etag": found.etag, "version_id": found.version_id}

    def knows(self, key: str, found: Found, digest: str) -> bool:
        known = self.objects.get(key)
        return known is not None and known["etag"] == found.etag and known["digest"] == digest

    def encode(self) -> bytes:
        stored = {
            "version": INDEX_VERSION,
            "objects": self.objects,
            "facts": {key: facts.as_json() for key, facts in self.facts.items()},
        }
        return json.dumps(stored, sort_keys=True, separators=(",", ":")).encode()

    @property
    def changed(self) -> bool:
        return self.encode() != (self._raw or b"")


# --- publishing -------------------------------------------------------------------------------------------------------


@dataclass
class Change:
    """One object. action: created, updated, unchanged, deleted, extra (there, but not at the source)."""

    key: str
    action: str
    size: int = 0
    digest: str = ""
    read: Callable[[], bytes] = bytes
    found: Found | None = None
    error: str | None = None

    def as_result(self) -> dict[str, Any]:
        result = {
            "key": self.key,
            "action": "failed" if self.error else self.action,
            "changed": not self.error and self.action in ("created", "updated", "deleted"),
            "size": self.size,
        }
        if self.error:
            result["error"] = self.error
        return result


def publish(
    aws: Any,
    source: Source,
    target: Target,
    *,
    check_mode: bool,
    delete: bool = False,
    hold_back: bool = True,
) -> dict[str, Any]:
    """Bring the bucket to what the source is; returns what the module returns (without `diff`, see `diff_of`).

    Raises MigrationError naming every object that could not be written; what was written is remembered, so that a
    repeat does only the rest.
    """
    bucket = Bucket(aws, target.bucket)
    with aws_errors(f"reach the bucket {target.bucket}"):
        exists = bucket.exists()
        if not exists and not check_mode:
            raise MigrationError(
                f"the bucket {target.bucket} does not exist; create it (versioned, private) and run again"
            )
        if exists and not bucket.versioned():
            raise MigrationError(
                f"the bucket {target.bucket} has no versioning, and MWAA takes only a versioned bucket;"
                f" switch it on: aws s3api put-bucket-versioning --bucket {target.bucket}"
                " --versioning-configuration Status=Enabled"
            )
    with aws_errors(f"list s3://{target.bucket}/{target.dag_s3_path}/"):
        index = Index(bucket.get(target.index_key) if exists else None)
        present = bucket.list(f"{target.dag_s3_path}/") if exists else {}

    if delete and not source.dags.files:
        raise MigrationError(
            "the source has no DAG file at all and delete is true: that would empty the DAG folder; check source"
        )
    facts, plugin_facts = _known_facts(source, index)
    layout = lay_out(
        source,
        facts,
        plugin_facts,
        hold_back=hold_back,
        airflow_version=target.airflow_version,
        options=target.options,
    )
    root = f"{target.dag_s3_path}/"
    if not delete:
        _empty_our_ignore_files(layout, root, index, present)

    changes = [_dag_change(source, layout, root, path, present) for path in sorted(layout.files)]
    artefacts = _artefact_changes(bucket if exists else None, source, target, index)
    changes += artefacts.values()
    _compare(bucket, index, [change for change in changes if change.found is not None])
    for change in artefacts.values():
        if change.action != "unchanged":
            built = change.read()
            change.size, change.read = len(built), functools.partial(bytes, built)  # built once
    changes += _extra_changes(layout, root, present, delete)

    if not check_mode:
        _apply(bucket, target, index, changes, held_back=bool(layout.held_back))
    return _result(target, source, layout, changes, artefacts, check_mode)


def _empty_our_ignore_files(layout: Layout, root: str, index: Index, present: Mapping[str, Found]) -> None:
    """An .airflowignore that was published for a block that is gone: left as it is, it would go on hiding DAGs."""
    for key in sorted(set(index.objects) & set(present)):
        path = key[len(root) :] if key.startswith(root) else ""
        if path.rpartition("/")[2] == IGNORE_FILE and path not in layout.files:
            layout.composed[path] = b""
            layout.files[path] = FileInfo(0, hashlib.sha256(b"").hexdigest())


def _dag_change(source: Source, layout: Layout, root: str, path: str, present: Mapping[str, Found]) -> Change:
    info, content, key = layout.files[path], layout.composed.get(path), root + path
    read = functools.partial(source.dags.read, path) if content is None else functools.partial(bytes, content)
    return Change(
        key, "updated" if key in present else "created", info.size, info.sha256, read=read, found=present.get(key)
    )


def _artefact_changes(bucket: Bucket | None, source: Source, target: Target, index: Index) -> dict[str, Change]:
    """plugins, requirements and startup_script, those that there are. bucket: None where it does not exist yet."""
    plugins = plugins_zip(source.plugins) if source.plugins and source.plugins.files else None
    changes: dict[str, Change] = {}
    for kind, key, wanted in (
        ("plugins", target.plugins_s3_path, plugins),
        ("requirements", target.requirements_s3_path, source.requirements),
        ("startup_script", target.startup_script_s3_path, source.startup_script),
    ):
        if wanted is None:
            if key not in index.objects:
                continue
            wanted = _nothing(kind)  # MWAA cannot take one away again: an empty one stands for none
        with aws_errors(f"read s3://{target.bucket}/{key}"):
            found = bucket.head(key) if bucket else None
        changes[kind] = Change(key, "updated" if found else "created", 0, wanted.digest, read=wanted.build, found=found)
    return changes


def _extra_changes(layout: Layout, root: str, present: Mapping[str, Found], delete: bool) -> list[Change]:
    extra = [
        key
        for key in sorted(present)
        if key[len(root) :] not in layout.files
        and not key.endswith("/")  # the console's folders
        and not key.startswith(f"{root}{AGENT_FOLDER}/")
    ]
    for key in extra:
        if not delete and key.rpartition("/")[2] == IGNORE_FILE:
            layout.findings.append(
                _finding(
                    "warning",
                    key,
                    f"this {IGNORE_FILE} in the bucket is not the source's and may hide DAGs of the source",
                    "delete it, or run with delete: true",
                )
            )
    return [Change(key, "deleted" if delete else "extra", present[key].size) for key in extra]


def diff_of(result: Mapping[str, Any]) -> dict[str, str]:
    """Names, sizes and what happens; never content, which may hold secrets."""
    before = [f"{item['key']}" for item in result["results"] if item["action"] in ("updated", "deleted")]
    after = [
        f"{item['key']} ({'new' if item['action'] == 'created' else 'changed'}, {item['size']:,} bytes)"
        for item in result["results"]
        if item["action"] in ("created", "updated")
    ]
    where = f"s3://{result['bucket']}/{result['dag_s3_path']}"
    return {
        "before_header": f"{where} (before)",
        "after_header": f"{where} (after)",
        "before": "".join(f"{line}\n" for line in before),
        "after": "".join(f"{line}\n" for line in after),
    }


def _nothing(kind: str) -> Artefact:
    return artefact(
        {"plugins": _EMPTY_ZIP, "requirements": b"# nothing to install\n", "startup_script": b"#!/bin/sh\n"}[kind]
    )


def _known_facts(source: Source, index: Index) -> tuple[dict[str, Facts], dict[str, Facts]]:
    """Facts by path, of DAG files and of plugins. Only content that the index does not know is read; what is gone is
    forgotten.
    """
    trees = [source.dags, source.plugins or Tree({}, source.dags.read)]
    wanted: dict[str, tuple[Tree, str]] = {}
    for tree in trees:
        for path, info in tree.files.items():
            kind = kind_of(path)
            if kind != "other":
                wanted.setdefault(f"{kind}:{info.sha256}", (tree, path))
    unread = [key for key in wanted if key not in index.facts]

    def learn(key: str) -> tuple[str, Facts]:
        tree, path = wanted[key]
        return key, facts_of(kind_of(path), tree.read(path))

    with ThreadPoolExecutor(WORKERS) as pool:
        learned = dict(pool.map(learn, unread))
    index.facts = {key: learned[key] if key in learned else index.facts[key] for key in sorted(wanted)}
    dags, plugins = (
        {
            path: index.facts[f"{kind_of(path)}:{info.sha256}"] if kind_of(path) != "other" else Facts()
            for path, info in tree.files.items()
        }
        for tree in trees
    )
    return dags, plugins


def _compare(bucket: Bucket, index: Index, changes: Iterable[Change]) -> None:
    """Mark as unchanged what stands in the bucket already. Objects are read only as far as HEAD."""

    def judge(change: Change) -> None:
        found = change.found
        if found is None:
            return
        if index.knows(change.key, found, change.digest):
            change.action = "unchanged"
            return
        if change.key in index.objects and index.objects[change.key]["etag"] == found.etag:
            return  # it is what was published before, and that was other content
        content = change.read()
        if len(content) != found.size:
            return
        same = (
            bool(_MD5.fullmatch(found.etag)) and found.etag == hashlib.md5(content, usedforsecurity=False).hexdigest()
        )
        if not same:
            # encrypted with KMS, the ETag is no MD5: ask for the checksum that this module's PUTs carry
            found = bucket.head(change.key) or found
            same = found.sha256 == hashlib.sha256(content).hexdigest()
        if same:
            change.action = "unchanged"
            index.remember(change.key, found, change.digest)

    with aws_errors(f"compare objects of s3://{bucket.name}"), ThreadPoolExecutor(WORKERS) as pool:
        list(pool.map(judge, changes))


def _meanwhile(bucket: Bucket, change: Change) -> Change:
    """What an .airflowignore says while files are replaced: all that it hid, and all that it will hide."""
    return replace(change, read=lambda: (bucket.get(change.key) or b"") + b"\n" + change.read())


def _apply(
    bucket: Bucket,
    target: Target,
    index: Index,
    changes: list[Change],
    *,
    held_back: bool,
) -> None:
    writes = [change for change in changes if change.action in ("created", "updated")]
    ignore = [change for change in writes if change.key.rpartition("/")[2] == IGNORE_FILE]
    others = [change for change in writes if change.key.rpartition("/")[2] != IGNORE_FILE]
    # MWAA may mirror the bucket at any moment: what hides a file is there before the file, and until it is replaced
    replaced = [change for change in ignore if change.action == "updated"] if held_back and others else []
    meanwhile = [_meanwhile(bucket, change) for change in replaced]
    created = [change for change in ignore if change not in replaced]
    phases = [created + meanwhile, others, replaced] if held_back or not ignore else [others, ignore]
    done = 0
    written: set[str] = set()
    stop: list[str] = []

    def write(change: Change) -> None:
        if stop:
            change.error = "not tried, because of the error above"
            return
        try:
            content = change.read()
            change.size = len(content)
            change.found = bucket.put(change.key, content)
            if change not in meanwhile:
                written.add(change.key)
        except MigrationError as exception:
            change.error = exception.message
        except Exception as exception:
            if not is_aws_error(exception):
                raise
            change.error = explain(exception)
            if error_code(exception) in _HOPELESS:
                stop.append(change.key)

    try:
        for phase in phases:
            with ThreadPoolExecutor(WORKERS) as pool:
                for finished in as_completed([pool.submit(write, change) for change in phase]):
                    finished.result()
                    done += 1
                    if done % 250 == 0:
                        progress(
                            f"published {done:,} of {len(writes):,} objects to s3://{bucket.name}/{target.dag_s3_path}/"
                        )
            if any(change.error for change in phase):
                stop.append("phase")  # never the files without what hides them
        for change, first in zip(replaced, meanwhile):
            change.error = first.error or change.error
        gone = [change for change in changes if change.action == "deleted"]
        if gone and not stop:
            try:
                failed = bucket.delete([change.key for change in gone])
            except Exception as exception:
                if not is_aws_error(exception):
                    raise
                failed = {change.key: explain(exception) for change in gone}
            for change in gone:
                change.error = failed.get(change.key)
    finally:
        for change in changes:
            if change.key in written and change.found and not change.error:  # not what an exception kept from it
                index.remember(change.key, change.found, change.digest)
            elif change.action == "deleted" and not change.error:
                index.objects.pop(change.key, None)
        wanted = {change.key for change in changes if change.action != "extra"}
        index.objects = {key: known for key, known in index.objects.items() if key in wanted}
        failed_changes = [change for change in changes if change.error]
        if index.changed:
            try:
                bucket.put(target.index_key, index.encode())
            except Exception as exception:
                if not is_aws_error(exception):
                    raise
                if not failed_changes:  # otherwise the first reason is the one to tell
                    raise aws_error(exception, f"write s3://{bucket.name}/{target.index_key}") from exception
    if failed_changes:
        first = next(change for change in failed_changes if not str(change.error).startswith("not tried"))
        names = ", ".join(change.key for change in failed_changes)
        number = sum(1 for change in writes if not change.error)
        raise MigrationError(
            f"{len(failed_changes)} of {len(writes) + len(gone)} objects could not be published to s3://{bucket.name}:"
            f" {first.key}: {first.error}. Failed: {names}. {number} were written and stay; run again to do the rest",
            changed=number > 0,
            results=[change.as_result() for change in changes if change.action != "unchanged"],
        )


def _result(
    target: Target,
    source: Source,
    layout: Layout,
    changes: list[Change],
    artefacts: Mapping[str, Change],
    check_mode: bool,
) -> dict[str, Any]:
    counts = {"created": 0, "updated": 0, "unchanged": 0, "deleted": 0, "extra": 0}
    for change in changes:
        counts[change.action] += 1
    left_out = dict(source.dags.left_out)
    for kind, number in (source.plugins.left_out if source.plugins else {}).items():
        left_out[kind] = left_out.get(kind, 0) + number
    result: dict[str, Any] = {
        "changed": bool(counts["created"] or counts["updated"] or counts["deleted"]),
        "bucket": target.bucket,
        "dag_s3_path": target.dag_s3_path,
        "results": [change.as_result() for change in changes],
        "counts": counts,
        "held_back": layout.held_back,
        "ignored": layout.ignored,
        "ignore_syntax": layout.rules.syntax,
        "left_out": left_out,
        "extra": [change.key for change in changes if change.action == "extra"],
        "not_carried": source.dags.not_carried + (source.plugins.not_carried if source.plugins else []),
        "findings": layout.findings,
        "airflow_configuration_options": layout.needed_options,
    }
    for kind in ("plugins", "requirements", "startup_script"):
        made = artefacts.get(kind)
        version: str | None = None
        if made is not None:
            if check_mode and made.action != "unchanged":
                version = UNKNOWN_VERSION
            else:
                version = made.found.version_id if made.found else None
        result[f"{kind}_s3_path"] = made.key if made else None
        result[f"{kind}_s3_object_version"] = version
    return result
