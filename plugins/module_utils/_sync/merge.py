# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Several sources as one: each in its folder, with one plugins folder, one requirements.txt and one startup script.

PRIVATE to the collection: no promise is made to other collections.

All that contradicts itself is said at once, with both names.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Callable

from ansible_collections.mwaa.migration.plugins.module_utils._dags import (
    IGNORE_FILE,
    Facts,
    IgnoreRules,
    early_files,
    imported_files,
)
from ansible_collections.mwaa.migration.plugins.module_utils._errors import Faults
from ansible_collections.mwaa.migration.plugins.module_utils._sync import requirements
from ansible_collections.mwaa.migration.plugins.module_utils._sync.archive import merged_plugins
from ansible_collections.mwaa.migration.plugins.module_utils._sync.layout import finding
from ansible_collections.mwaa.migration.plugins.module_utils._sync.source import Source
from ansible_collections.mwaa.migration.plugins.module_utils._sync.tree import FileInfo, Tree

_EXPORT = re.compile(rb"^\s*(?:export\s+)?([A-Za-z_][A-Za-z0-9_]*)=(.*)$", re.MULTILINE)


@dataclass
class Merged:
    """All sources, as they will stand on the target. owners: the names of the sources that have a path."""

    dags: Tree
    owners: dict[str, list[str]]
    facts: dict[str, Facts]
    early: dict[str, tuple[int, str]]
    plugins: Tree | None
    requirements: bytes | None
    startup_script: bytes | None
    syntax: str | None
    names: list[str]
    folders: list[str]
    findings: list[dict[str, str]] = field(default_factory=list)


def merge(
    sources: Sequence[Source], known: Mapping[str, tuple[Mapping[str, Facts], Mapping[str, Facts]]], syntax: str | None
) -> Merged:
    """known: facts by path of each source (by name and folder, see `identity`): of its DAG files, of its plugins.
    syntax: how the target reads .airflowignore, for sources that do not say how theirs is written; None: not known.

    Raises MigrationError naming every conflict.
    """
    faults = Faults("the sources cannot become one environment")
    ignore_files = {identity(source): _ignore_files(source) for source in sources}
    written = {source.syntax or syntax for source in sources if ignore_files[identity(source)]} or {
        source.syntax for source in sources
    }
    if len(written) > 1 and len(sources) > 1:
        listed = " and ".join(f"{source.syntax or syntax} in {source.name}" for source in sources)
        faults.add(f"their {IGNORE_FILE} files are written as {listed}, and an environment reads one syntax")
    agreed = next(iter(written)) if len(written) == 1 else None

    files: dict[str, FileInfo] = {}
    owners: dict[str, list[str]] = {}
    streams: dict[str, Callable[[], Iterator[bytes]]] = {}
    dags = Tree(files, lambda path: streams[path]())
    facts: dict[str, Facts] = {}
    early: dict[str, tuple[int, str]] = {}
    findings: list[dict[str, str]] = []
    for source in sources:
        its_facts, its_plugins = known[identity(source)]
        composed = _placed_ignore_files(source, ignore_files[identity(source)], agreed or "regexp")
        for path, info in source.dags.files.items():
            placed, content = place(source, path), composed.get(path)
            if content is not None:
                info = FileInfo(len(content), hashlib.sha256(content).hexdigest())
            if placed in files and files[placed] != info:
                faults.add(f"the DAG file {placed} differs between {owners[placed][0]} and {source.name}")
                continue
            owners.setdefault(placed, []).append(source.name)
            files[placed] = info
            streams[placed] = _stream(source.dags, path, content)
            if path in its_facts:
                facts[placed] = its_facts[path]
        early.update({place(source, path): why for path, why in early_files(its_facts, its_plugins).items()})
        for kind, number in source.dags.left_out.items():
            dags.left_out[kind] = dags.left_out.get(kind, 0) + number
        dags.not_carried += [{**item, "id": place(source, item["id"])} for item in source.dags.not_carried]
        findings += _lost_imports(source, its_facts)
    _check_paths(files, owners, faults)
    _check_dag_ids(sources, faults)
    plugins, conflicts = merged_plugins([(source.name, source.plugins) for source in sources])
    for conflict in conflicts:
        faults.add(conflict)
    texts = [(source.name, source.requirements) for source in sources if source.requirements is not None]
    wanted, conflicts = requirements.merge(texts) if texts else (None, [])
    for conflict in conflicts:
        faults.add(conflict)
    script = _merged_scripts(sources, faults)
    if not faults.found and len(sources) > 1:
        _check_hidden(sources, ignore_files, dags, agreed or "regexp", faults)
    faults.raise_if_any()
    names = sorted({source.name for source in sources})
    folders = sorted({source.into for source in sources})
    return Merged(dags, owners, facts, early, plugins, wanted, script, agreed, names, folders, findings)


def identity(source: Source) -> str:
    return f"{source.name} {source.into}"


def place(source: Source, path: str) -> str:
    return f"{source.into}/{path}" if source.into else path


def _stream(tree: Tree, path: str, content: bytes | None) -> Callable[[], Iterator[bytes]]:
    return lambda: tree.stream(path) if content is None else iter([content])


# --- .airflowignore in a folder of its own ----------------------------------------------------------------------------


def _ignore_files(source: Source) -> dict[str, bytes]:
    return {path: source.dags.read(path) for path in source.dags.files if path.rpartition("/")[2] == IGNORE_FILE}


def _placed_ignore_files(source: Source, ignore_files: Mapping[str, bytes], syntax: str) -> dict[str, bytes]:
    """Those whose text changes: globs are relative to their file, regular expressions to the whole DAG folder."""
    if not source.into or syntax != "regexp":
        return {}
    return {path: moved_patterns(content, source.into) for path, content in ignore_files.items()}


def moved_patterns(content: bytes, into: str) -> bytes:
    """Regular expressions that match `into/path` where the given ones match `path`, and nothing elsewhere."""
    text = content.decode("utf-8", "surrogateescape")
    return "\n".join(_moved(line, into) for line in re.split(r"\r\n|\r|\n", text)).encode("utf-8", "surrogateescape")


def _moved(line: str, into: str) -> str:
    pattern = re.sub(r"\s*#.*", "", line)
    if not pattern:
        return line
    try:
        re.compile(pattern)
    except re.error:
        return line  # Airflow passes it over, here and there
    start = "^" + re.escape(f"{into}/")
    flags = re.match(r"\(\?([aiLmsux]+)\)", pattern)
    body = _anchored(pattern[flags.end() :] if flags else pattern, f"(?<={start})")
    return f"{start}.*?(?{flags.group(1) if flags else ''}:{body})"


def _anchored(pattern: str, start: str) -> str:
    """With `^` and `\\A` meaning the start of the path in the folder."""
    out, position, in_class = "", 0, False
    while position < len(pattern):
        char = pattern[position]
        if char == "\\":
            pair = pattern[position : position + 2]
            out += start if pair == "\\A" and not in_class else pair
            position += 2
            continue
        if char == "[" and not in_class:
            in_class = True
            opened = "".join(re.findall(r"^\[\^?\]?", pattern[position:]))
            out += opened
            position += len(opened)
            continue
        in_class = in_class and char != "]"
        out += start if char == "^" and not in_class else char
        position += 1
    return out


def _check_hidden(
    sources: Sequence[Source],
    ignore_files: Mapping[str, Mapping[str, bytes]],
    dags: Tree,
    syntax: str,
    faults: Faults,
) -> None:
    """No source's .airflowignore hides another's files."""
    together = IgnoreRules(
        {path: dags.read(path) for path in dags.files if path.rpartition("/")[2] == IGNORE_FILE}, syntax
    )
    for source in sources:
        alone = IgnoreRules(ignore_files[identity(source)], syntax)
        wrong = [
            path
            for path in source.dags.files
            if path not in ignore_files[identity(source)] and alone.hides(path) != together.hides(place(source, path))
        ]
        if wrong:
            faults.add(
                f"the {IGNORE_FILE} files of the others change what Airflow sees of {source.name}"
                f" ({', '.join(wrong[:5])}{', …' if len(wrong) > 5 else ''}):"
                " give each source a folder of its own (into)"
            )


# --- what contradicts itself ------------------------------------------------------------------------------------------


def _check_paths(files: Mapping[str, FileInfo], owners: Mapping[str, list[str]], faults: Faults) -> None:
    """S3 can hold both `a` and `a/b`, the folder that MWAA makes of it cannot."""
    said: set[str] = set()
    for path in files:
        folder = path.rpartition("/")[0]
        while folder and folder not in said:
            if folder in files:
                said.add(folder)
                faults.add(f"{folder} is a file in {owners[folder][0]} and a folder in {owners[path][0]}")
            folder = folder.rpartition("/")[0]


def _check_dag_ids(sources: Sequence[Source], faults: Faults) -> None:
    seen: dict[str, Source] = {}
    for source in sources:
        for dag_id, path in sorted(source.dag_ids.items()):
            other = seen.setdefault(dag_id, source)
            if other is not source and place(other, other.dag_ids[dag_id]) != place(source, path):
                faults.add(f"the DAG {dag_id} is in {other.name} and in {source.name}; exclude one of its files")


def _merged_scripts(sources: Sequence[Source], faults: Faults) -> bytes | None:
    scripts: dict[bytes, str] = {}
    for source in sources:
        if source.startup_script is not None:
            scripts.setdefault(source.startup_script, source.name)
    values: dict[bytes, tuple[bytes, str]] = {}
    for script, name in scripts.items():
        own: dict[bytes, bytes] = dict(_EXPORT.findall(script))
        for variable, value in own.items():
            other = values.setdefault(variable, (value, name))
            if other[0] != value:  # values are not repeated: they may be secret
                faults.add(f"the startup scripts of {other[1]} and {name} set {variable.decode()} to different values")
    return b"\n".join(script.rstrip(b"\n") + b"\n" for script in scripts) if scripts else None


def _lost_imports(source: Source, facts: Mapping[str, Facts]) -> list[dict[str, str]]:
    """Airflow imports from the DAG folder, not from a folder in it."""
    if not source.into:
        return []
    return [
        finding(
            place(source, path),
            f"imports {', '.join(found)}, which now lies in the folder {source.into}",
            f"put what is shared into plugins, or import it from {source.into.replace('/', '.')}",
        )
        for path, found in sorted(imported_files(facts).items())
    ]
