# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The files of a folder or of a bundle, without what nobody wants there, and with what cannot be carried listed.

PRIVATE to the collection: no promise is made to other collections.

Paths are relative to the folder, with "/". Contents are streamed: memory does not grow with a file's size.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import stat
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Callable

from ansible_collections.mwaa.migration.plugins.module_utils._dags import AGENT_FOLDER, IgnoreRules
from ansible_collections.mwaa.migration.plugins.module_utils._errors import MigrationError

CHUNK = 1 << 20  # bytes
KEY_LIMIT = 1024  # bytes of UTF-8 [S3 object keys]
ATTEMPTS = 3  # at reading a file that changes meanwhile

_BYTECODE = (".pyc", ".pyo")
_VERSION_CONTROL = {".git", ".hg", ".svn"}
_CACHES = {".mypy_cache", ".pytest_cache", ".ruff_cache"}
_EDITORS = {".idea", ".vscode", ".ipynb_checkpoints"}
_LEFTOVER = re.compile(r"^(.*~|\.#.*|#.*#|\..*\.sw[a-p]|\.DS_Store|Thumbs\.db|\.nfs[0-9a-f]+)$")
_UNLISTABLE = re.compile("[\x00-\x1f\x7f\ufffe\uffff]")  # no XML can hold them, and S3 speaks XML


class Unstable(MigrationError):
    """A file that vanished or changed after it was listed. It is listed and not published, the next run has it."""


@dataclass(frozen=True)
class FileInfo:
    """size in bytes; sha256 in hex, of the whole content."""

    size: int
    sha256: str


@dataclass
class Tree:
    """The files of one folder, wherever they are.

    stream: the content in chunks; it raises before its end when this is not the content that was listed (Unstable when
    a folder's file is another now, MigrationError when a bundle's does not match its manifest).
    """

    files: dict[str, FileInfo]
    stream: Callable[[str], Iterator[bytes]]
    left_out: dict[str, int] = field(default_factory=dict)  # {"bytecode": 12, "version_control": 3, "agent": 2}
    not_carried: list[dict[str, str]] = field(default_factory=list)
    kind: str = "dag_file"  # of not_carried

    def read(self, path: str) -> bytes:
        return b"".join(self.stream(path))

    def leave(self, path: str, reason: str) -> None:
        """List it instead of carrying it."""
        self.files.pop(path, None)
        shown = path.encode("utf-8", "backslashreplace").decode()
        self.not_carried.append({"kind": self.kind, "id": shown, "reason": reason})

    def skip(self, kind: str) -> None:
        self.left_out[kind] = self.left_out.get(kind, 0) + 1


def debris(path: str, *, is_folder: bool = False) -> str | None:
    """What kind of thing nobody wants in an environment this is; None: it is wanted.

    Compiled Python (another Python would not load it), version control, caches of tools, leftovers of editors, and this
    collection's own agent, which is installed for each environment by itself.
    """
    folders = path.split("/")
    name = "" if is_folder else folders.pop()
    if "__pycache__" in folders or name.endswith(_BYTECODE):
        return "bytecode"
    if not _VERSION_CONTROL.isdisjoint(folders):
        return "version_control"
    if not _CACHES.isdisjoint(folders):
        return "cache"
    if not _EDITORS.isdisjoint(folders) or _LEFTOVER.match(name):
        return "editor"
    if folders[:1] == [AGENT_FOLDER]:
        return "agent"
    return None


def make_tree(
    files: Mapping[str, FileInfo], stream: Callable[[str], Iterator[bytes]], *, kind: str = "dag_file"
) -> Tree:
    """A Tree without debris. Names that cannot be S3 keys are listed as not carried."""
    tree = Tree({}, stream, kind=kind)
    for path in sorted(files):
        if accept(tree, path, files):
            tree.files[path] = files[path]
    return tree


def accept(tree: Tree, path: str, beside: Iterable[str]) -> bool:
    """Whether the file is to be carried; otherwise it is counted or listed. beside: paths around it."""
    unwanted = debris(path)
    if unwanted:
        tree.skip(unwanted)
        if path.endswith(_BYTECODE) and "__pycache__" not in path.split("/") and path[:-1] not in beside:
            tree.leave(path, "compiled Python without its source: another Python cannot load it")
        return False
    fault = key_fault(path)
    if fault:
        tree.leave(path, fault)
    return fault is None


def key_fault(key: str) -> str | None:
    """Why this cannot be the key of an S3 object; None: it can."""
    try:
        size = len(key.encode("utf-8"))
    except UnicodeEncodeError:
        return "the name is not valid UTF-8, so it cannot be the key of an S3 object"
    if size > KEY_LIMIT:
        return f"its key would have {size:,} bytes, and S3 takes {KEY_LIMIT:,}"
    if _UNLISTABLE.search(key):
        return "the name holds control characters, which S3 cannot list"
    return None


def select(tree: Tree, include: list[str], exclude: list[str], always: str) -> Tree:
    """The files that the patterns choose (globs as .gitignore has them); what is not chosen is counted as `excluded`.

    always: the name of files that only `exclude` takes away (.airflowignore: without it other files would be DAGs).
    """
    if not (include or exclude):
        return tree
    wanted, unwanted = (_globs(patterns) for patterns in (include, exclude))
    chosen = Tree({}, tree.stream, dict(tree.left_out), list(tree.not_carried), tree.kind)
    for path, info in tree.files.items():
        kept = not include or wanted.hides(path) or path.rpartition("/")[2] == always
        if kept and not unwanted.hides(path):
            chosen.files[path] = info
        else:
            chosen.skip("excluded")
    return chosen


def _globs(patterns: list[str]) -> IgnoreRules:
    # one pattern a line, and "#" would start a comment there
    return IgnoreRules({".airflowignore": "\n".join(text.replace("#", "?") for text in patterns).encode()}, "glob")


# --- a local folder ---------------------------------------------------------------------------------------------------


def folder_tree(root: str | Path, *, kind: str = "dag_file") -> Tree:
    """The Tree of a local folder.

    Links that stay inside are followed, as Airflow does. Listed are links that leave the folder or run in a circle,
    what is neither file nor folder, and what cannot be read or changes while it is read.
    Raises MigrationError when there is no such folder or it cannot be read at all.
    """
    base = Path(root).expanduser()
    if not base.is_dir():
        raise MigrationError(f"the folder {base} does not exist; correct source to a folder or to the url of a bundle")
    real = os.path.realpath(base)
    try:
        next(base.iterdir(), None)
    except OSError as error:
        raise MigrationError(f"the folder {base} cannot be read: {error.strerror}; allow it and run again") from None

    def stream(path: str) -> Iterator[bytes]:
        return _checked(f"{real}/{path}", path, tree.files[path])

    tree = Tree({}, stream, kind=kind)
    _walk(tree, real, real, "", frozenset([real]))
    return tree


def _walk(tree: Tree, root: str, folder: str, prefix: str, above: frozenset[str]) -> None:
    """folder: its real path. above: the real paths of the folders around it, itself included."""
    try:
        with os.scandir(folder) as found:
            entries = sorted(found, key=lambda entry: entry.name)
    except OSError as error:
        tree.leave(prefix.rstrip("/"), f"the folder cannot be read: {error.strerror}")
        return
    names = {prefix + entry.name for entry in entries}
    for entry in entries:
        path = prefix + entry.name
        real = entry.path
        try:
            if entry.is_symlink():
                real = os.path.realpath(entry.path)
                if real != root and not real.startswith(root + os.sep):
                    tree.leave(path, "a symlink that leaves the folder")
                    continue
            mode = Path(real).stat().st_mode
        except OSError as error:
            tree.leave(path, _why(error, entry.is_symlink()))
            continue
        if stat.S_ISDIR(mode):
            unwanted = debris(path, is_folder=True)
            if unwanted:
                tree.skip(unwanted)
            elif real in above:
                tree.leave(path, "a symlink to a folder above itself")
            else:
                _walk(tree, root, real, path + "/", above | {real})
        elif not stat.S_ISREG(mode):
            tree.leave(path, "neither a file nor a folder")
        elif accept(tree, path, names):
            try:
                tree.files[path] = _measure(real)
            except Unstable as error:
                tree.leave(path, error.message)
            except OSError as error:
                tree.leave(path, _why(error))


def _why(error: OSError, is_link: bool = False) -> str:
    if is_link and error.errno in (errno.ENOENT, errno.ELOOP):
        return "a symlink to nothing"
    if error.errno == errno.ENOENT:
        return "vanished while the folder was read"
    return f"cannot be read: {error.strerror}"


def _measure(file: str) -> FileInfo:
    for _attempt in range(ATTEMPTS):
        hasher, size = hashlib.sha256(), 0
        with Path(file).open("rb", buffering=0) as opened:
            before = os.fstat(opened.fileno())
            while chunk := opened.read(CHUNK):
                hasher.update(chunk)
                size += len(chunk)
            after = os.fstat(opened.fileno())
        if size == after.st_size and (before.st_size, before.st_mtime_ns) == (after.st_size, after.st_mtime_ns):
            return FileInfo(size, hasher.hexdigest())
    raise Unstable("changes while it is read")


def _checked(file: str, path: str, info: FileInfo) -> Iterator[bytes]:
    hasher, size = hashlib.sha256(), 0
    try:
        with Path(file).open("rb", buffering=0) as opened:
            while chunk := opened.read(CHUNK):
                size += len(chunk)
                if size > info.size:
                    break
                hasher.update(chunk)
                if size < info.size:
                    yield chunk
                else:
                    last = chunk
    except OSError as error:
        raise Unstable(f"{path} {_why(error)}; run again when the folder rests") from None
    if size != info.size or hasher.hexdigest() != info.sha256:
        raise Unstable(f"{path} changed while it was being published; run again when the folder rests")
    if info.size:
        yield last  # only now: who stops at the announced length has seen the check
