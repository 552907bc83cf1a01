# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Publishing: compare what the sources bring with what stands in the bucket, and write what differs.

PRIVATE to the collection: no promise is made to other collections.

What is compared is content, by way of the index: an unchanged run lists the DAG folder (1,000 objects a request), reads
the index and looks at three objects.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Any, Callable

from ansible_collections.mwaa.migration.plugins.module_utils._dags import (
    AGENT_FOLDER,
    IGNORE_FILE,
    Facts,
    facts_of,
    kind_of,
)
from ansible_collections.mwaa.migration.plugins.module_utils._errors import (
    MigrationError,
    aws_error,
    aws_errors,
    explain,
    is_aws_error,
)
from ansible_collections.mwaa.migration.plugins.module_utils._progress import progress
from ansible_collections.mwaa.migration.plugins.module_utils._sync import archive, requirements
from ansible_collections.mwaa.migration.plugins.module_utils._sync.archive import Artefact, Packing, artefact
from ansible_collections.mwaa.migration.plugins.module_utils._sync.bucket import (
    NOT_TRIED,
    PART,
    PARTS_LIMIT,
    WORKERS,
    Bucket,
    Fingerprint,
    Found,
    Upload,
    Uploader,
)
from ansible_collections.mwaa.migration.plugins.module_utils._sync.index import Index, index_key
from ansible_collections.mwaa.migration.plugins.module_utils._sync.layout import (
    Layout,
    finding,
    lay_out,
    target_syntax_of,
)
from ansible_collections.mwaa.migration.plugins.module_utils._sync.merge import Merged, identity, merge
from ansible_collections.mwaa.migration.plugins.module_utils._sync.source import Source, Target
from ansible_collections.mwaa.migration.plugins.module_utils._sync.tree import FileInfo, Tree, Unstable, key_fault

UNKNOWN_VERSION = "unknown until published"  # the object version in check mode, where one would be written
ACTIONS = ("created", "updated", "unchanged", "deleted", "extra", "unstable")


@dataclass
class Change:
    """One object. action: created, updated, unchanged, deleted, extra (there, but not at the source), unstable (not
    written, because the source's file changed meanwhile).
    """

    key: str
    action: str
    size: int = 0
    digest: str = ""
    kind: str = "dag"
    stream: Callable[[], Iterator[bytes]] = field(default=lambda: iter(()))
    sources: list[str] = field(default_factory=list)
    artefact: Artefact | None = None
    found: Found | None = None
    error: str | None = None

    def build(self) -> None:
        """Make an artefact's content, once."""
        if self.artefact is not None:
            content = self.artefact.build()
            self.size, self.stream, self.artefact = content.size, content.stream, None

    @property
    def costly(self) -> bool:
        return self.artefact is not None and self.artefact.costly

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
    sources: Sequence[Source],
    target: Target,
    *,
    check_mode: bool,
    delete: bool = False,
    hold_back: bool = True,
    packing: Packing | None = None,
    before_writing: Callable[[], None] = lambda: None,
) -> dict[str, Any]:
    """Bring the bucket to what the sources are; returns what the module returns (without `diff`, see `diff_of`).

    Raises MigrationError naming every object that could not be written; what was written is remembered, so that a
    repeat does only the rest.
    """
    bucket = Bucket(aws, target.bucket)
    root = f"{target.dag_s3_path}/"
    with aws_errors(f"list s3://{target.bucket}/{root}"):
        present = bucket.list(root)
        if present is None and not check_mode:
            raise MigrationError(
                f"the bucket {target.bucket} does not exist; create it (versioned, private) and run again"
            )
        index = Index(*((None, None) if present is None else bucket.get_tagged(index_key(target.dag_s3_path))))
    here = None if present is None else bucket
    present = present or {}
    if delete and not any(source.dags.files for source in sources):
        raise MigrationError(
            "the source has no DAG file at all and delete is true: that would empty the DAG folder; check source"
        )

    merged = merge(sources, _known_facts(sources, index), target_syntax_of(target.airflow_version, target.options))
    for path in [path for path in merged.dags.files if key_fault(root + path)]:
        merged.dags.leave(path, key_fault(root + path) or "")
    for path in [path for path, info in merged.dags.files.items() if info.size > PART * PARTS_LIMIT]:
        merged.dags.leave(path, "it is larger than what S3 takes in parts of 8 MiB")
    layout = lay_out(
        merged.dags,
        merged.facts,
        {path: why for path, why in merged.early.items() if path in merged.dags.files} if hold_back else {},
        syntax=merged.syntax,
        folders=merged.folders,
        airflow_version=target.airflow_version,
        options=target.options,
    )
    layout.findings += merged.findings
    if not delete:
        _empty_our_ignore_files(layout, merged, root, index, present)

    changes = [_dag_change(merged, layout, root, path, present) for path in sorted(layout.files)]
    artefacts = _artefact_changes(here, merged, target, index, packing, layout.findings)
    changes += artefacts.values()
    if here is not None:
        _compare(here, index, [change for change in changes if change.found is not None], check_mode)
    for change in artefacts.values():
        if change.action != "unchanged" and not (check_mode and change.costly):
            change.build()
    changes += _extra_changes(merged, layout, root, index, present, delete)
    _note_takeovers(merged, index, changes, layout.findings)

    if here is not None and any(change.action in ("created", "updated") for change in changes):
        with aws_errors(f"reach the bucket {target.bucket}"):
            here.require_fit()
    if not check_mode and here is not None:
        if any(change.action in ("created", "updated", "deleted") for change in changes):
            before_writing()
        _apply(here, target, index, changes, merged.names)
    return _result(target, merged, layout, changes, artefacts, check_mode)


# --- what is to be done -----------------------------------------------------------------------------------------------


def _known_facts(sources: Sequence[Source], index: Index) -> dict[str, tuple[dict[str, Facts], dict[str, Facts]]]:
    """Facts by path of each source's DAG files and plugins. Only content that the index does not know is read; what is
    gone is forgotten, but for other sources'.
    """
    trees = [tree for source in sources for tree in (source.dags, source.plugins) if tree is not None]
    wanted: dict[str, list[tuple[Tree, str]]] = {}
    for tree in trees:
        for path, info in tree.files.items():
            key = _facts_key(path, info)
            if key:
                wanted.setdefault(key, []).append((tree, path))
    unread = [key for key in wanted if key not in index.facts]

    def learn(key: str) -> tuple[str, Facts | None]:
        facts = None
        for tree, path in wanted[key]:
            try:
                facts = facts or facts_of(kind_of(path), tree.read(path))
            except Unstable as exception:
                tree.leave(path, exception.message)
        return key, facts

    large = [key for key in unread if any(tree.files[path].size > PART for tree, path in wanted[key])]
    with ThreadPoolExecutor(WORKERS) as pool:
        learned = dict(pool.map(learn, set(unread) - set(large)))
    learned.update(map(learn, large))  # one at a time: each is in memory as a whole
    index.facts = {
        key: found
        for key in sorted(wanted)
        for found in [learned.get(key) or index.facts.get(key)]
        if found is not None
    }

    def of(tree: Tree | None) -> dict[str, Facts]:
        files = tree.files if tree else {}
        return {path: index.facts.get(_facts_key(path, info), Facts()) for path, info in files.items()}

    return {identity(source): (of(source.dags), of(source.plugins)) for source in sources}


def _facts_key(path: str, info: FileInfo) -> str:
    kind = kind_of(path)
    if kind == "other" or (kind == "data" and info.size > PART):  # no DAG factory's
        return ""
    return f"{kind}:{info.sha256}"


def _empty_our_ignore_files(
    layout: Layout, merged: Merged, root: str, index: Index, present: Mapping[str, Found]
) -> None:
    """An .airflowignore that was published for a block that is gone: left as it is, it would go on hiding DAGs."""
    for key in sorted(set(index.objects) & set(present)):
        path = key[len(root) :] if key.startswith(root) else ""
        ours = index.sources(key) and index.sources(key) <= set(merged.names)
        if ours and path.rpartition("/")[2] == IGNORE_FILE and path not in layout.files:
            content = artefact(b"")
            layout.composed[path] = b""
            layout.files[path] = FileInfo(0, content.digest)


def _dag_change(merged: Merged, layout: Layout, root: str, path: str, present: Mapping[str, Found]) -> Change:
    info, content, key = layout.files[path], layout.composed.get(path), root + path
    return Change(
        key,
        "updated" if key in present else "created",
        info.size,
        info.sha256,
        stream=functools.partial(merged.dags.stream, path) if content is None else lambda: iter([content]),
        sources=merged.owners.get(path) or merged.names,
        found=present.get(key),
    )


def _artefact_changes(
    bucket: Bucket | None,
    merged: Merged,
    target: Target,
    index: Index,
    packing: Packing | None,
    findings: list[dict[str, str]],
) -> dict[str, Change]:
    """plugins, requirements and startup_script, those that there are. bucket: None where it does not exist yet."""
    wanted = _artefacts(merged, target, packing, findings)
    changes: dict[str, Change] = {}
    for kind, key in (
        ("plugins", target.plugins_s3_path),
        ("requirements", target.requirements_s3_path),
        ("startup_script", target.startup_script_s3_path),
    ):
        made = wanted.get(kind)
        if made is None:
            theirs = index.sources(key)
            if not theirs or not theirs <= set(merged.names):
                continue
            made = _nothing(kind)  # MWAA cannot take one away again: an empty one stands for none
        changes[kind] = Change(key, "created", 0, made.digest, kind, sources=merged.names, artefact=made)
    if bucket is not None:
        with aws_errors(f"look at the artefacts in s3://{target.bucket}"), ThreadPoolExecutor(WORKERS) as pool:
            for change, found in zip(changes.values(), pool.map(bucket.head, [one.key for one in changes.values()])):
                if found is not None:
                    change.found, change.action, change.size = found, "updated", found.size
    return changes


def _artefacts(
    merged: Merged, target: Target, packing: Packing | None, findings: list[dict[str, str]]
) -> dict[str, Artefact]:
    made: dict[str, Artefact] = {}
    packed = bool(packing)
    if merged.requirements is not None:
        findings += requirements.findings(
            merged.requirements, target.requirements_s3_path, private=target.private, packed=packed
        )
        content = merged.requirements
        if packing:
            content = requirements.offline(content, archive.wheel_versions(packing.tree()))
        made["requirements"] = artefact(content)
    if packing or (merged.plugins and merged.plugins.files):
        made["plugins"] = archive.plugins_zip(
            merged.plugins or Tree({}, lambda _path: iter(())),
            packing,
            merged.requirements or b"",
            target.airflow_version,
        )
    if merged.startup_script is not None:
        made["startup_script"] = artefact(merged.startup_script)
    return made


def _nothing(kind: str) -> Artefact:
    return artefact(
        {"plugins": archive.EMPTY_ZIP, "requirements": b"# nothing to install\n", "startup_script": b"#!/bin/sh\n"}[
            kind
        ]
    )


def _extra_changes(
    merged: Merged, layout: Layout, root: str, index: Index, present: Mapping[str, Found], delete: bool
) -> list[Change]:
    """What is there and not wanted. Deleted is only what these sources alone have published, as it was published."""
    names = set(merged.names)
    unsure = {item["id"] for item in merged.dags.not_carried}  # still at the source, but not as something to carry
    changes = []
    for key in sorted(present):
        path = key[len(root) :]
        if path in layout.files or key.endswith("/") or path.startswith(f"{AGENT_FOLDER}/"):  # "/": the console's
            continue
        owners = index.sources(key)
        ours = bool(owners) and owners <= names and index.unchanged(key, present[key])
        gone = delete and ours and path not in unsure and not any(path.startswith(f"{folder}/") for folder in unsure)
        changes.append(Change(key, "deleted" if gone else "extra", present[key].size))
        if not gone and not owners and path.rpartition("/")[2] == IGNORE_FILE:
            layout.findings.append(
                finding(
                    key,
                    f"this {IGNORE_FILE} in the bucket is not the source's and may hide DAGs of the source",
                    "delete it from the bucket, or add it to the source",
                )
            )
    return changes


def _note_takeovers(merged: Merged, index: Index, changes: Iterable[Change], findings: list[dict[str, str]]) -> None:
    """What another source has published and this run replaces."""
    names = set(merged.names)
    taken: dict[str, list[str]] = {}
    for change in changes:
        others = index.sources(change.key) - names
        if change.action == "updated" and others:
            taken.setdefault(", ".join(sorted(others)), []).append(change.key)
    for others, keys in taken.items():
        findings.append(
            finding(
                ", ".join(keys[:5]) + (f" and {len(keys) - 5} more" if len(keys) > 5 else ""),
                f"published from {others} before, and replaced by {' and '.join(merged.names)}",
                "where both are wanted, give them together as sources, or each a folder of its own (into)",
            )
        )


def _compare(bucket: Bucket, index: Index, changes: Iterable[Change], check_mode: bool) -> None:
    """Mark as unchanged what stands in the bucket already. Objects are read only as far as HEAD."""

    def judge(change: Change) -> None:
        found = change.found
        if found is None:
            return
        if index.knows(change.key, found, change.digest):
            change.action = "unchanged"
            return
        if index.unchanged(change.key, found):
            return  # it is what was published before, and that was other content
        if change.costly and check_mode:
            return  # not known without downloads
        change.build()
        if change.size != found.size:
            return
        try:
            content = Fingerprint(change.stream())
        except Unstable:
            return  # said when it is written
        if not content.is_of(found) and found.checksum is None:
            # encrypted with KMS, the ETag is no MD5: ask for the checksum that this module's PUTs carry
            asked = bucket.head(change.key)
            found = replace(found, checksum=asked.checksum) if asked and asked.etag == found.etag else found
        if content.is_of(found):
            change.action, change.found = "unchanged", found

    with aws_errors(f"compare objects of s3://{bucket.name}"), ThreadPoolExecutor(WORKERS) as pool:
        list(pool.map(judge, changes))


# --- doing it ---------------------------------------------------------------------------------------------------------


def _meanwhile(bucket: Bucket, change: Change) -> Change:
    """What an .airflowignore says while files are replaced: all that it hid, and all that it will hide."""
    both = (bucket.get(change.key) or b"") + b"\n" + b"".join(change.stream())
    return replace(change, size=len(both), stream=lambda: iter([both]))


def _apply(
    bucket: Bucket,
    target: Target,
    index: Index,
    changes: list[Change],
    names: list[str],
) -> None:
    where = f"s3://{bucket.name}/{target.dag_s3_path}/"
    writes = [change for change in changes if change.action in ("created", "updated")]
    ignore = [change for change in writes if change.key.rpartition("/")[2] == IGNORE_FILE]
    others = [change for change in writes if change.key.rpartition("/")[2] != IGNORE_FILE]
    # MWAA may mirror the bucket at any moment: what hides a file is there before the file, and until it is replaced
    replaced = [change for change in ignore if change.action == "updated"] if others else []
    with aws_errors(f"read {where}{IGNORE_FILE}"):
        meanwhile = [_meanwhile(bucket, change) for change in replaced]
    created = [change for change in ignore if change not in replaced]
    phases = [created + meanwhile, others, replaced]
    gone = [change for change in changes if change.action == "deleted"]
    done = 0

    def finished() -> None:
        nonlocal done
        done += 1
        if done % 250 == 0:
            progress(f"published {done:,} of {len(writes):,} objects to {where}")

    uploader = Uploader(bucket, finished)
    written: list[Change] = []
    try:
        for phase in phases:
            uploads = [Upload(change.key, change.size, change.stream) for change in phase]
            try:
                uploader.write(uploads)
            finally:
                for change, upload in zip(phase, uploads):
                    change.error = upload.error or change.error
                    if upload.unstable:
                        change.action, change.error = "unstable", None
                    elif upload.found:
                        change.found = upload.found
                        written += [] if change in meanwhile else [change]
            if any(change.error for change in phase):
                uploader.stopped = True  # never the files without what hides them
        for change, first in zip(replaced, meanwhile):
            change.error = first.error or change.error
        if gone and not uploader.stopped:
            _delete(bucket, gone)
    finally:
        _remember(bucket, target, index, changes, written, names)
    failed = [change for change in changes if change.error]
    if failed:
        first = next(change for change in failed if change.error != NOT_TRIED)
        keys = ", ".join(change.key for change in failed)
        raise MigrationError(
            f"{len(failed)} of {len(writes) + len(gone)} objects could not be published to s3://{bucket.name}:"
            f" {first.key}: {first.error}. Failed: {keys}. {len(written)} were written and stay; run again to do the"
            " rest",
            changed=bool(written),
            results=[change.as_result() for change in changes if change.action != "unchanged"],
        )


def _delete(bucket: Bucket, gone: list[Change]) -> None:
    try:
        failed = bucket.delete([change.key for change in gone])
    except Exception as exception:
        if not is_aws_error(exception):
            raise
        failed = {change.key: explain(exception) for change in gone}
    for change in gone:
        change.error = failed.get(change.key)


def _remember(
    bucket: Bucket, target: Target, index: Index, changes: list[Change], written: list[Change], names: list[str]
) -> None:
    """Bring the index to what is known now, and write it where that is new. Says nothing where something has failed
    already: the first reason is the one to tell.
    """
    failed = any(change.error for change in changes)
    listed: dict[str, Found] = {}
    try:
        if any(change.kind == "dag" for change in written):
            listed = bucket.list(f"{target.dag_s3_path}/") or {}  # with the times that S3 gave the objects
        keep = {change.key for change in changes if change.action != "deleted" or change.error}
        for change in changes:
            if change in written or (change.action == "unchanged" and not change.error):
                found = change.found
                shown = listed.get(change.key)
                if found and shown and shown.etag == found.etag:
                    found = replace(found, modified=shown.modified)
                known = index.objects.get(change.key)
                claims = (index.sources(change.key) - set(names)) | set(change.sources)
                if found and known and index.knows(change.key, found, change.digest):
                    index.objects[change.key] = {**known, "sources": sorted(claims)}
                elif found:
                    index.remember(change.key, change.kind, found, change.digest, claims)
            elif change.action == "extra" and index.sources(change.key) - set(names):
                index.objects[change.key]["sources"] = sorted(index.sources(change.key) - set(names))
        kinds = {change.kind for change in changes if change.kind != "dag"}
        index.objects = {
            key: known
            for key, known in index.objects.items()
            if key in keep or (known.get("kind") != "dag" and known.get("kind") not in kinds)
        }
        # two runs at one moment: the later one would forget what the other has published, and whose it is
        if index.changed and not bucket.put_if(index_key(target.dag_s3_path), index.encode(), index.tag) and not failed:
            raise MigrationError(
                f"somebody else published to s3://{bucket.name}/{target.dag_s3_path}/ at the same moment, so that what"
                " this run wrote is not known to be its own: wait for the other one to end, and run again",
                changed=bool(written),
            )
    except Exception as exception:
        if not is_aws_error(exception):
            raise
        if not failed:
            raise aws_error(exception, f"write s3://{bucket.name}/{index_key(target.dag_s3_path)}") from exception


# --- what is said of it -----------------------------------------------------------------------------------------------


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


def _result(
    target: Target,
    merged: Merged,
    layout: Layout,
    changes: list[Change],
    artefacts: Mapping[str, Change],
    check_mode: bool,
) -> dict[str, Any]:
    counts = dict.fromkeys(ACTIONS, 0)
    for change in changes:
        counts[change.action] += 1
    left_out = dict(merged.dags.left_out)
    for kind, number in (merged.plugins.left_out if merged.plugins else {}).items():
        left_out[kind] = left_out.get(kind, 0) + number
    unstable = [
        {
            "kind": "dag_file",
            "id": change.key[len(target.dag_s3_path) + 1 :],
            "reason": "vanished or changed while it was being published; run again when the folder rests",
        }
        for change in changes
        if change.action == "unstable"
    ]
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
        "not_carried": list(
            chain(merged.dags.not_carried, merged.plugins.not_carried if merged.plugins else [], unstable)
        ),
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
