# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What Airflow makes of a DAG folder: what .airflowignore hides of it, and which files would start by themselves.

PRIVATE to the collection: no promise is made to other collections.

Paths are relative to the DAG folder, with "/". Nothing here executes a DAG file or speaks to AWS.
"""

from __future__ import annotations

import ast
import io
import re
import warnings
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

IGNORE_FILE = ".airflowignore"
SYNTAXES = ("regexp", "glob")  # core.dag_ignore_file_syntax; the default is regexp up to 2.x and glob from 3.0
SYNTAX_OPTION = "core.dag_ignore_file_syntax"
AGENT_FOLDER = "mwaa_migration"  # this collection's own files on the target: never taken from a source, never deleted

BLOCK_BEGIN = "# BEGIN mwaa.migration: held back until the cutover, because these files unpause themselves"
BLOCK_END = "# END mwaa.migration"

_BLOCK = re.compile(r"^# BEGIN mwaa\.migration\b.*?^# END mwaa\.migration[^\n]*(?:\n|\Z)", re.MULTILINE | re.DOTALL)
_EARLY_TEXT = re.compile(rb"is_paused_upon_creation['\"]?\s*[=:]\s*(?!True\b|None\b)\S")
_EARLY_DATA = re.compile(rb"is_paused_upon_creation['\"]?\s*:\s*['\"]?(?:false|no|off)\b", re.IGNORECASE)
_EARLY = "is_paused_upon_creation"


def default_syntax(airflow_version: str) -> str:
    """'2.10.3' -> 'regexp', '3.2.1' -> 'glob' (the default of core.dag_ignore_file_syntax)."""
    return "glob" if int(airflow_version.split(".")[0] or 0) >= 3 else "regexp"


# --- .airflowignore ---------------------------------------------------------------------------------------------------


class IgnoreRules:
    """What the .airflowignore files of a tree hide, judged as Airflow 2.3 to 3.x judge it (airflow/utils/file.py).

    regexp: searched in the path relative to the DAG folder, also for files in sub-folders. glob: gitignore's patterns,
    later ones win, those without an inner "/" match the name alone. A hidden folder is not entered, whatever is said
    inside. `#` starts a comment anywhere in a line; patterns that do not compile are passed over, as Airflow does, and
    are named in `invalid`.
    """

    def __init__(self, ignore_files: Mapping[str, bytes], syntax: str):
        """ignore_files: content by path, such as {".airflowignore": b"...", "team/.airflowignore": b"..."}."""
        self.syntax = syntax
        self.invalid: list[str] = []
        self._own: dict[str, list[_Rule]] = {}
        for path in sorted(ignore_files):
            folder = path[: -len(IGNORE_FILE)].rstrip("/")
            self._own[folder] = self._parse(folder, path, ignore_files[path])
        self._folders: dict[str, bool] = {}

    def __bool__(self) -> bool:
        return any(self._own.values())

    def hides(self, path: str) -> bool:
        """Whether Airflow passes the file `path` over when it looks for DAGs."""
        folder = path.rpartition("/")[0]
        return self._hides_folder(folder) or self._match(path, self._in_effect(folder), is_folder=False)

    def _hides_folder(self, folder: str) -> bool:
        if not folder:
            return False
        if folder not in self._folders:
            parent = folder.rpartition("/")[0]
            self._folders[folder] = self._hides_folder(parent) or self._match(
                folder, self._in_effect(parent), is_folder=True
            )
        return self._folders[folder]

    def _in_effect(self, folder: str) -> list[_Rule]:
        rules = list(self._own.get("", []))
        walked = ""
        for part in folder.split("/") if folder else []:
            walked = f"{walked}/{part}" if walked else part
            rules += self._own.get(walked, [])
        return rules

    def _match(self, path: str, rules: list[_Rule], is_folder: bool) -> bool:
        if self.syntax == "regexp":
            return any(rule.pattern.search(path) for rule in rules)
        hidden = False
        for rule in rules:
            if rule.relative_to is None:
                subject = path.rpartition("/")[2]
            else:
                subject = path[len(rule.relative_to) + 1 :] if rule.relative_to else path
            if rule.pattern.match(subject + "/" if is_folder else subject):
                hidden = rule.hides
        return hidden

    def _parse(self, folder: str, path: str, content: bytes) -> list[_Rule]:
        rules = []
        text = content.decode("utf-8", "replace").replace("\r\n", "\n").replace("\r", "\n")
        for number, line in enumerate(text.split("\n"), 1):
            pattern = re.sub(r"\s*#.*", "", line)
            if not pattern:
                continue
            try:
                rule = _Rule(re.compile(pattern)) if self.syntax == "regexp" else _glob_rule(pattern, folder)
            except re.error:
                self.invalid.append(f"{path}:{number}")
                continue
            if rule is not None:
                rules.append(rule)
        return rules


@dataclass(frozen=True)
class _Rule:
    pattern: re.Pattern[str]
    hides: bool = True
    relative_to: str | None = None  # the folder of the .airflowignore; None: the name alone is matched


def _glob_rule(line: str, folder: str) -> _Rule | None:
    pattern = line if line.endswith("\\ ") else line.rstrip()
    if not pattern or pattern == "/":
        return None
    anchored = pattern.startswith("/") or "/" in pattern.rstrip("/")  # as Airflow: judged with a leading "!"
    hides = not pattern.startswith("!")
    body = pattern if hides else pattern[1:]
    return _Rule(re.compile(_glob_regex(body)), hides, folder if anchored else None)


def _glob_regex(pattern: str) -> str:
    """gitignore's pattern as a regular expression for re.match: matches the named thing and, for a folder, all below
    it.
    """
    only_folders = pattern.endswith("/")
    segments = pattern.strip("/").split("/")
    regex = "" if "/" in pattern.rstrip("/") else "(?:.+/)?"
    for position, segment in enumerate(segments):
        last = position == len(segments) - 1
        if segment == "**":
            regex += ".+" if last else "(?:.+/)?"
        else:
            regex += ("[^/]+" if segment == "*" else _segment_regex(segment)) + ("" if last else "/")
    return f"^{regex}{'/.*' if only_folders else '(?:/.*)?'}$"


def _segment_regex(segment: str) -> str:
    regex, position = "", 0
    while position < len(segment):
        char = segment[position]
        position += 1
        if char == "\\" and position < len(segment):
            regex += re.escape(segment[position])
            position += 1
        elif char == "*":
            regex += "[^/]*"
        elif char == "?":
            regex += "[^/]"
        elif char == "[" and "]" in segment[position + 1 :]:
            end = segment.index("]", position + 1 + (segment[position] in "!^"))
            chosen = segment[position:end].replace("\\", "\\\\")
            regex += "[" + ("^" + chosen[1:] if chosen[0] in "!^" else chosen) + "]"
            position = end + 1
        else:
            regex += re.escape(char)
    return regex


def ignore_lines(path: str, folder: str = "") -> list[str]:
    """Two lines that hide this file, one in each syntax, so that it stays hidden whatever an environment is set to.

    folder: where the .airflowignore stands; globs are relative to it, regexps never. Read in the other syntax, the
    first line matches nothing, and the second what ends with the same path in another folder. `#` starts a comment.
    """
    inner = path[len(folder) + 1 :] if folder else path
    return [
        "^" + re.escape(path).replace("\\#", "\\x23") + "$",
        "/" + re.sub(r"([\\*?\[\] !])", r"\\\1", inner).replace("#", "?"),
    ]


def with_block(content: bytes, lines: Iterable[str]) -> bytes:
    """An .airflowignore with this migration's block holding `lines`, replacing an earlier block; without lines, with no
    block.
    """
    text = _BLOCK.sub("", content.decode("utf-8", "surrogateescape").replace("\r\n", "\n"))
    wanted = list(lines)
    if wanted:
        if text and not text.endswith("\n"):
            text += "\n"
        text += "\n".join([BLOCK_BEGIN, *wanted, BLOCK_END]) + "\n"
    elif text == content.decode("utf-8", "surrogateescape").replace("\r\n", "\n"):
        return content  # nothing of ours was there: byte for byte as found
    return text.encode("utf-8", "surrogateescape")


# --- what a file would do ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Facts:
    """What is known of a file from its text. Depends on the content and the kind of file alone, so it is cached by
    both.

    early: the first line that sets is_paused_upon_creation to something other than True or None, 0 if there is none.
    dag: may define DAGs, by Airflow's own heuristic (core.dag_discovery_safe_mode).
    imports: modules it imports, as written ("..common.factory" where relative).
    """

    early: int = 0
    dag: bool = False
    imports: tuple[str, ...] = ()

    def as_json(self) -> list[Any]:
        return [self.early, int(self.dag), list(self.imports)]

    @classmethod
    def from_json(cls, value: Any) -> Facts:
        early, dag, imports = value
        return cls(int(early), bool(dag), tuple(str(name) for name in imports))


def kind_of(path: str) -> str:
    """'python', 'zip', 'data' (YAML, JSON: DAG factories read them) or 'other'."""
    suffix = path.rpartition(".")[2].lower()
    return {"py": "python", "zip": "zip", "yaml": "data", "yml": "data", "json": "data"}.get(suffix, "other")


def facts_of(kind: str, content: bytes) -> Facts:
    """kind: as kind_of says."""
    if kind == "python":
        return _python_facts(content)
    if kind == "zip":
        return _zip_facts(content)
    if kind == "data":
        found = _EARLY_DATA.search(content)
        return Facts(early=_line_of(content, found.start()) if found else 0)
    return Facts()


def early_files(facts: Mapping[str, Facts], helpers: Mapping[str, Facts] | None = None) -> dict[str, tuple[int, str]]:
    """The Python files and archives that would start their DAGs by themselves: {path: (line, reason)}.

    A file that imports one that does is counted too: a DAG factory in a helper module, or in the plugins folder
    (`helpers`), starts the DAGs of who calls it.
    """
    modules: dict[str, str] = {}
    every: dict[str, Facts] = {}
    for prefix, group in (("plugins:", helpers or {}), ("", facts)):
        for path, found in group.items():
            if kind_of(path) in ("python", "zip"):
                every[prefix + path] = found
                if path.endswith(".py"):
                    modules[_module_name(path)] = prefix + path
    early = {path: (found.early, f"{_EARLY} is not True") for path, found in every.items() if found.early}
    grew = bool(early)
    imports = {path: _resolved(path, found, modules) for path, found in every.items()} if grew else {}
    while grew:
        grew = False
        for path, targets in imports.items():
            if path not in early:
                cause = next((target for target in targets if target in early), None)
                if cause:
                    early[path] = (0, f"imports {cause}, where {_EARLY} is not True")
                    grew = True
    return {path: why for path, why in sorted(early.items()) if not path.startswith("plugins:") and every[path].dag}


def imported_files(facts: Mapping[str, Facts]) -> dict[str, list[str]]:
    """{path: files of the same tree that it imports by their absolute name}."""
    modules = {_module_name(path): path for path in facts if path.endswith(".py")}
    found: dict[str, list[str]] = {}
    for path, known in facts.items():
        absolute = Facts(imports=tuple(name for name in known.imports if not name.startswith(".")))
        targets = _resolved(path, absolute, modules)
        if targets:
            found[path] = sorted(targets)
    return found


def _python_facts(content: bytes) -> Facts:
    lowered = content.lower()
    # Airflow's heuristic: "dag" and "airflow" occur (3.x: "asset" will do for "dag")
    dag = b"airflow" in lowered and (b"dag" in lowered or b"asset" in lowered)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the user's escapes, on the user's screen already
            module = ast.parse(content)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        # another Python's syntax: judged by its text, in doubt as early
        found = _EARLY_TEXT.search(content)
        names = re.findall(rb"^[ \t]*(?:from|import)[ \t]+([\w.]+)", content, re.MULTILINE)
        imports = tuple(sorted({name.decode() for name in names if not name.startswith(b"airflow")}))
        return Facts(_line_of(content, found.start()) if found else 0, dag, imports)
    early: list[int] = []
    imported: set[str] = set()
    for node in ast.walk(module):
        if isinstance(node, ast.keyword) and node.arg == _EARLY and _starts(node.value):
            early.append(node.value.lineno)
        elif isinstance(node, ast.Dict):
            early += [
                value.lineno
                for key, value in zip(node.keys, node.values)
                if isinstance(key, ast.Constant) and key.value == _EARLY and _starts(value)
            ]
        elif isinstance(node, (ast.Assign, ast.AnnAssign)):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            if node.value is not None and _starts(node.value) and any(_names_early(target) for target in targets):
                early.append(node.lineno)
        elif isinstance(node, ast.Import):
            imported |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            start = "." * node.level + (node.module or "")
            imported.add(start)
            imported |= {f"{start}{'' if start.endswith('.') else '.'}{alias.name}" for alias in node.names}
    return Facts(
        min(early, default=0), dag, tuple(sorted(name for name in imported if name.split(".")[0] != "airflow"))
    )


def _starts(value: ast.expr) -> bool:
    # what is not plainly True or None may be False when it runs
    return not (isinstance(value, ast.Constant) and (value.value is True or value.value is None))


def _names_early(target: ast.expr) -> bool:
    if isinstance(target, ast.Attribute):
        return target.attr == _EARLY
    return isinstance(target, ast.Subscript) and isinstance(target.slice, ast.Constant) and target.slice.value == _EARLY


def _zip_facts(content: bytes) -> Facts:
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            inside = [_python_facts(archive.read(name)) for name in archive.namelist() if name.endswith(".py")]
    except (zipfile.BadZipFile, RuntimeError, NotImplementedError, OSError, EOFError, ValueError):
        return Facts()
    early = next((found.early for found in inside if found.early), 0)
    names = {name for found in inside for name in found.imports if not name.startswith(".")}
    return Facts(early, any(found.dag for found in inside), tuple(sorted(names)))


def _module_name(path: str) -> str:
    name = path[: -len(".py")].replace("/", ".")
    return name[: -len(".__init__")] if name.endswith(".__init__") else name


def _resolved(path: str, found: Facts, modules: Mapping[str, str]) -> set[str]:
    """The files of the tree that an import runs: the module and the packages around it."""
    package = path.rpartition(":")[2].split("/")[:-1]
    targets: set[str] = set()
    for written in found.imports:
        bare = written.lstrip(".")
        level = len(written) - len(bare)
        parts = bare.split(".") if bare else []
        if level:
            if level - 1 > len(package):
                continue
            parts = package[: len(package) - (level - 1)] + parts
        for length in range(1, len(parts) + 1):
            target = modules.get(".".join(parts[:length]))
            if target and target != path:
                targets.add(target)
    return targets


def _line_of(content: bytes, offset: int) -> int:
    return content.count(b"\n", 0, offset) + 1
