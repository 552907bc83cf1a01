# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The DAG folder as it will stand on the target, with the files that would start by themselves hidden.

PRIVATE to the collection: no promise is made to other collections.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ansible_collections.mwaa.migration.plugins.module_utils._dags import (
    AGENT_FOLDER,
    IGNORE_FILE,
    SYNTAX_OPTION,
    SYNTAXES,
    Facts,
    IgnoreRules,
    default_syntax,
    ignore_lines,
    kind_of,
    with_block,
)
from ansible_collections.mwaa.migration.plugins.module_utils._errors import MigrationError
from ansible_collections.mwaa.migration.plugins.module_utils._sync.tree import FileInfo, Tree


@dataclass
class Layout:
    """A DAG folder as it will stand on the target."""

    files: dict[str, FileInfo]
    composed: dict[str, bytes]  # .airflowignore files that are not the source's, byte for byte
    rules: IgnoreRules
    facts: Mapping[str, Facts]
    held_back: list[dict[str, Any]]
    ignored: list[str]
    needed_options: dict[str, str]
    findings: list[dict[str, str]]


def lay_out(
    tree: Tree,
    facts: Mapping[str, Facts],
    early: Mapping[str, tuple[int, str]],
    *,
    syntax: str | None,
    folders: Iterable[str] = ("",),
    airflow_version: str | None = None,
    options: Mapping[str, str] | None = None,
) -> Layout:
    """Hide what would start by itself, in .airflowignore.

    facts: by path. early: {path: (line, reason)} of what is to be held back. syntax: of the tree's .airflowignore
    files; None: not known. folders: the sources' own, each of which hides its files by itself, so that publishing one
    leaves the others alone. airflow_version, options: the target's, where known; they tell the syntax that it reads.
    """
    findings: list[dict[str, str]] = []
    needed: dict[str, str] = {}
    ignore_files = {
        path: with_block(tree.read(path), []) for path in tree.files if path.rpartition("/")[2] == IGNORE_FILE
    }
    known_syntax = syntax
    target_syntax = target_syntax_of(airflow_version, options)
    syntax = syntax or target_syntax or "regexp"
    rules = IgnoreRules(ignore_files, syntax)
    ignored = sorted(path for path in tree.files if path not in ignore_files and rules.hides(path))
    for place in rules.invalid:
        findings.append(
            finding(
                place,
                f"this pattern is no valid {syntax} and Airflow passes it over",
                "correct it at the source",
            )
        )

    held: list[dict[str, Any]] = [
        {"path": path, "line": line or None, "reason": reason}
        for path, (line, reason) in sorted(early.items())
        if not rules.hides(path)
    ]
    composed = _with_held_back(ignore_files, [item["path"] for item in held], sorted(folders, key=len, reverse=True))
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
        if airflow_version or known_syntax:
            needed[SYNTAX_OPTION] = syntax
    for path, found in sorted(facts.items()):
        if found.early and kind_of(path) == "data":
            findings.append(
                finding(
                    f"{path}:{found.early}",
                    "sets is_paused_upon_creation to false; a DAG factory that reads it would start its DAGs",
                    "set it to true, or hide the DAG file that reads it, until the cutover",
                )
            )
    if rules.hides(f"{AGENT_FOLDER}/mwaa_agent.py"):
        findings.append(
            finding(
                IGNORE_FILE,
                f"a pattern hides {AGENT_FOLDER}/, so that the agent lane cannot work",
                f"narrow the pattern so that it does not match {AGENT_FOLDER}/mwaa_agent.py",
            )
        )

    files = dict(tree.files)
    for path, content in composed.items():
        files[path] = FileInfo(len(content), hashlib.sha256(content).hexdigest())
    return Layout(files, composed, rules, facts, held, ignored, needed, findings)


def _with_held_back(
    ignore_files: Mapping[str, bytes], paths: list[str], folders_of_sources: list[str]
) -> dict[str, bytes]:
    """The .airflowignore files with the block: in the source's own, and in a nearer one where a negation would undo it.

    folders_of_sources: the inner ones first.
    """
    composed = dict(ignore_files)

    def outer(path: str) -> str:
        folder = next((one for one in folders_of_sources if one and path.startswith(f"{one}/")), "")
        return f"{folder}/{IGNORE_FILE}" if folder else IGNORE_FILE

    def add(where: str, wanted: list[str]) -> None:
        folder = where.rpartition("/")[0]
        lines = [line for path in wanted for line in ignore_lines(path, folder)]
        composed[where] = with_block(ignore_files.get(where, b""), lines)

    def visible() -> list[str]:
        both = [IgnoreRules(composed, syntax) for syntax in SYNTAXES]
        return [path for path in paths if not all(rules.hides(path) for rules in both)]

    by_place: dict[str, list[str]] = {}
    for path in paths:
        by_place.setdefault(outer(path), []).append(path)
    for where, wanted in by_place.items():
        add(where, wanted)
    nearer: dict[str, list[str]] = {}
    for path in visible():
        folders = path.split("/")[:-1]
        around = ["/".join([*folders[:depth], IGNORE_FILE]) for depth in range(len(folders), 0, -1)]
        nearer.setdefault(next((place for place in around if place in composed), IGNORE_FILE), []).append(path)
    for where, wanted in nearer.items():
        if where not in by_place:
            add(where, wanted)
    if visible():
        raise MigrationError(
            f"these files unpause themselves and no line of {IGNORE_FILE} can hide them: {', '.join(visible())};"
            " set is_paused_upon_creation=True in them and run again"
        )
    return composed


def target_syntax_of(airflow_version: str | None, options: Mapping[str, str] | None) -> str | None:
    """The syntax in which the target reads .airflowignore; None: not known."""
    return (options or {}).get(SYNTAX_OPTION) or (default_syntax(airflow_version) if airflow_version else None)


def finding(where: str, what: str, mend: str) -> dict[str, str]:
    return {"severity": "warning", "where": where, "what": what, "mend": mend}
