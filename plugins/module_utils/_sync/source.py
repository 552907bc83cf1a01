# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where it comes from and where it goes: bundles, folders, and the places in an environment's bucket.

PRIVATE to the collection: no promise is made to other collections.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ansible_collections.mwaa.migration.plugins.module_utils._bundle import (
    KINDS,
    MANIFEST,
    PROGRESS,
    Bundle,
    S3Store,
    Store,
    open_store,
    state_path,
)
from ansible_collections.mwaa.migration.plugins.module_utils._dags import IGNORE_FILE, SYNTAX_OPTION, default_syntax
from ansible_collections.mwaa.migration.plugins.module_utils._errors import Faults, MigrationError
from ansible_collections.mwaa.migration.plugins.module_utils._sync.tree import (
    FileInfo,
    Tree,
    folder_tree,
    make_tree,
    select,
)

_INTO = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]*(/[A-Za-z0-9_-][A-Za-z0-9_.-]*)*")


@dataclass
class Source:
    """What one source brings. What is None is not there at the source.

    name: its url or absolute folder, by which the index knows what is its own. into: the folder in the DAG folder.
    syntax: of its .airflowignore files; None: not known. dag_ids: those that the bundle says it has, with their files.
    """

    name: str
    dags: Tree
    plugins: Tree | None = None
    requirements: bytes | None = None
    startup_script: bytes | None = None
    syntax: str | None = None
    into: str = ""
    dag_ids: dict[str, str] = field(default_factory=dict)
    store: Store | None = None  # of a bundle: where its lock is


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
    private: bool = False  # the web server reaches no package index


def beside(dag_s3_path: str, name: str) -> str:
    """'dags', 'plugins.zip' -> 'plugins.zip'; 'team/dags', 'plugins.zip' -> 'team/plugins.zip'."""
    folder = dag_s3_path.rpartition("/")[0]
    return f"{folder}/{name}" if folder else name


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
        private=here.get("WebserverAccessMode") == "PRIVATE_ONLY",
        **keys,
    )


def open_sources(aws: Any, params: Mapping[str, Any]) -> list[Source]:
    """What `sources` or `source` names, each a bundle, checked against its manifest, or a plain folder.

    The files that the options name stand in place of the sources' (startup_script_joins: behind theirs).
    Raises MigrationError: no such folder, no bundle there, a bundle that does not match its manifest.
    """
    wanted = params.get("sources") or [
        {name: params.get(name) for name in ("source", "into", "include", "exclude")},
    ]
    faults = Faults("sources")
    for number, one in enumerate(wanted):
        into = (one.get("into") or "").strip("/")
        if into and not _INTO.fullmatch(into):
            faults.add(f"into {into!r} of number {number + 1} is no folder of letters, digits, _, - and .")
    names = [(one["source"], (one.get("into") or "").strip("/")) for one in wanted]
    for twice in sorted({name for name in names if names.count(name) > 1}):
        faults.add(f"{twice[0]} is given twice with the same into")
    faults.raise_if_any()
    found = [open_source(aws, {**params, **one}, with_dags=len(wanted) > 1) for one in wanted]
    given = {
        option: _given(option, params[option]) for option in ("requirements", "startup_script") if params.get(option)
    }
    # given once, it counts for all of them; merging finds the same content once
    for number, source in enumerate(found):
        if params.get("plugins"):
            source.plugins = folder_tree(params["plugins"], kind="plugin_file")
        if "requirements" in given:
            source.requirements = given["requirements"]
        if "startup_script" in given:
            if params.get("startup_script_joins") and source.startup_script is not None:
                source.startup_script = _joined(source.startup_script, given["startup_script"])
            elif not params.get("startup_script_joins") or number == 0:
                source.startup_script = given["startup_script"]
        source.syntax = params.get("ignore_syntax") or source.syntax
    return found


def open_source(aws: Any, params: Mapping[str, Any], *, with_dags: bool = False) -> Source:
    """One of them: source, into, include, exclude, kms_key_id. with_dags: fill in `dag_ids`."""
    where = str(params["source"])
    if where.startswith("s3://") or (Path(where).expanduser() / MANIFEST).is_file():
        source = _bundle_source(aws, where, params.get("kms_key_id"), with_dags)
    else:
        source = Source(str(Path(where).expanduser().absolute()), folder_tree(where))
        if PROGRESS in source.dags.files or any(state_path(kind) in source.dags.files for kind in KINDS):
            raise MigrationError(
                f"{where} is a bundle without {MANIFEST}: its export did not end; export again, nothing was published"
            )
    source.dags = select(source.dags, params.get("include") or [], params.get("exclude") or [], IGNORE_FILE)
    source.dag_ids = {
        dag_id: path
        for dag_id, place in source.dag_ids.items()
        for path in [_within(place, source.dags.files)]
        if path is not None
    }
    source.into = (params.get("into") or "").strip("/")
    return source


def _given(option: str, path: str) -> bytes:
    try:
        return Path(path).expanduser().read_bytes()
    except OSError as error:
        raise MigrationError(f"cannot read {option} {path}: {error.strerror}") from error


def _joined(first: bytes, second: bytes) -> bytes:
    """Two shell scripts as one; the second's first line (#!) becomes a comment among others."""
    return first.rstrip(b"\n") + b"\n\n" + second


def _within(place: str, paths: Mapping[str, Any]) -> str | None:
    """'/opt/airflow/dags/team/a.py' -> 'team/a.py' where there is such a file."""
    parts = place.strip("/").split("/")
    return next((tail for start in range(len(parts)) if (tail := "/".join(parts[start:])) in paths), None)


def _bundle_source(aws: Any, url: str, kms_key_id: str | None, with_dags: bool) -> Source:
    bundle = Bundle.open(open_store(url, aws), aws, kms_key_id)
    check_bundle(bundle)
    paths = bundle.files
    inventory = bundle.document("inventory.json") if "inventory.json" in paths else {}
    dags = bundle_tree(bundle, "dags/")
    for item in inventory.get("not_carried") or []:  # it is at the source: what was published of it is not deleted
        if item["kind"] == "file" and item["id"].startswith("dags/"):
            path = item["id"][len("dags/") :]
            dags.not_carried.append({"kind": "dag_file", "id": path, "reason": item["reason"]})
    return Source(
        bundle.store.url,
        dags,
        bundle_tree(bundle, "plugins/", kind="plugin_file"),
        bundle.read("requirements.txt") if "requirements.txt" in paths else None,
        bundle.read("startup.sh") if "startup.sh" in paths else None,
        source_syntax(bundle),
        dag_ids={
            str(dag["dag_id"]): str(dag.get("path") or dag.get("fileloc") or "")
            for dag in (inventory.get("dags") or [] if with_dags else [])
        },
        store=bundle.store,
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


def bundle_tree(bundle: Bundle, prefix: str, *, kind: str = "dag_file") -> Tree:
    """The files of the bundle below `prefix`, read with their sha256 checked."""
    files = {
        path[len(prefix) :]: FileInfo(file.size, file.sha256)
        for path, file in bundle.files.items()
        if path.startswith(prefix)
    }

    def stream(path: str) -> Iterator[bytes]:
        return bundle.stream(prefix + path)

    return make_tree(files, stream, kind=kind)


def source_syntax(bundle: Bundle) -> str | None:
    """The syntax of the source's .airflowignore files: what it has set, otherwise its version's default."""
    options = bundle.document("options.json") if "options.json" in bundle.files else {}
    chosen = (options.get("portable") or {}).get(SYNTAX_OPTION)
    if isinstance(chosen, dict):
        chosen = chosen.get("value")
    version = bundle.source.get("airflow_version")
    return chosen or (default_syntax(version) if version else None)
