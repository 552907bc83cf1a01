# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""plugins.zip: the plugins folder and wheels as one archive, the same for the same content; and where wheels come from.

PRIVATE to the collection: no promise is made to other collections.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Callable

from ansible_collections.mwaa.migration.plugins.module_utils._errors import MigrationError
from ansible_collections.mwaa.migration.plugins.module_utils._packages import packages
from ansible_collections.mwaa.migration.plugins.module_utils._progress import progress
from ansible_collections.mwaa.migration.plugins.module_utils._sync import requirements
from ansible_collections.mwaa.migration.plugins.module_utils._sync.tree import CHUNK, FileInfo, Tree, folder_tree
from ansible_collections.mwaa.migration.plugins.module_utils._versions import at_least, require

LIMIT = 1024**3  # bytes; MWAA user guide: plugins.zip is smaller than 1 GB
PIP_TIMEOUT = 1800  # seconds

EMPTY_ZIP = b"PK\x05\x06" + b"\x00" * 18

# what MWAA's images run on: Amazon Linux 2023 (glibc 2.34) from 2.7 on, Amazon Linux 2 (2.26) before
_GLIBC = {True: ("2_34", "2_31", "2_28", "2_27", "2_26", "2_24", "2_17"), False: ("2_26", "2_24", "2_17")}


@dataclass
class Content:
    """A content of `size` bytes that can be streamed again and again."""

    size: int
    stream: Callable[[], Iterator[bytes]]


@dataclass(frozen=True)
class Artefact:
    """plugins.zip, requirements.txt or startup.sh. `digest` is of what went in, so that the same input is the same
    artefact. costly: building takes downloads, which check mode does not make.
    """

    digest: str
    build: Callable[[], Content]
    costly: bool = False


def artefact(content: bytes) -> Artefact:
    return Artefact(hashlib.sha256(content).hexdigest(), lambda: Content(len(content), lambda: iter([content])))


@dataclass
class Packing:
    """Where wheels for plugins.zip come from. folder: on the controller; download: by pip, of what requirements.txt
    names and the folder lacks; indexes: URLs of package indexes, perhaps with credentials.
    """

    folder: str | None = None
    download: bool = False
    indexes: Sequence[str] = field(default_factory=tuple, repr=False)

    def __bool__(self) -> bool:
        return bool(self.folder or self.download)

    def tree(self) -> Tree:
        """The folder's wheels."""
        if not self.folder:
            return Tree({}, _nothing, kind="wheel")
        tree = folder_tree(self.folder, kind="wheel")
        tree.files = {path: info for path, info in tree.files.items() if requirements.wheel_name(path)}
        if not tree.files:
            raise MigrationError(f"the folder {self.folder} holds no wheel (*.whl); correct wheels")
        return tree


def plugins_zip(
    tree: Tree, packing: Packing | None = None, wanted: bytes = b"", airflow_version: str | None = None
) -> Artefact:
    """The plugins and wheels as one archive that is the same, byte for byte, for the same content.

    Sorted names, one date, stored and not deflated: what deflate makes differs between zlib versions, and each new
    object version costs the environment an update of 20 minutes. Downloads are made anew when the requirements, the
    target's version or the wheels at hand have changed, and not because an index has something newer.

    wanted: requirements.txt, for packing.download.
    """
    wheels = packing.tree() if packing else Tree({}, _nothing)
    trees = [tree, wheels]
    for path in sorted(set(tree.files) & set(wheels.files)):
        if tree.files[path] != wheels.files[path]:
            raise MigrationError(
                f"the wheel {path} is in the plugins folder and in wheels, and they differ; remove one"
            )
    listing = [[path, info.sha256] for path, info in sorted({**tree.files, **wheels.files}.items())]
    ingredients: list[object] = ["plugins.zip", 2, listing]
    download = bool(packing and packing.download and wanted)
    if download:
        if airflow_version is None:
            raise MigrationError("pack_requirements needs to know for which Airflow: set airflow_version")
        ingredients.append([require(airflow_version).python, hashlib.sha256(wanted).hexdigest()])
    _check_size(sum(info.size for one in trees for info in one.files.values()))

    def build() -> Content:
        with contextlib.ExitStack() as stack:
            if download and packing and airflow_version:
                place = stack.enter_context(tempfile.TemporaryDirectory(prefix="mwaa-wheels-"))
                trees.append(_downloaded(packing, wheels, wanted, airflow_version, Path(place)))
            return _zip(trees)

    return Artefact(hashlib.sha256(json.dumps(ingredients).encode()).hexdigest(), build, costly=download)


def _zip(trees: Sequence[Tree]) -> Content:
    entries = {path: one for one in reversed(trees) for path in one.files}
    _check_size(sum(one.files[path].size for path, one in entries.items()))
    file = tempfile.TemporaryFile(prefix="mwaa-plugins-")  # noqa: SIM115 - without a name, gone with this process
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for path in sorted(entries):
            entry = zipfile.ZipInfo(path, date_time=(1980, 1, 1, 0, 0, 0))
            entry.create_system = 3  # Unix, also where it is built elsewhere
            entry.file_size = entries[path].files[path].size
            chunks = entries[path].stream(path)
            first = next(chunks, b"")
            entry.external_attr = (0o100755 if first.startswith(b"#!") else 0o100644) << 16
            with archive.open(entry, "w") as member:
                member.write(first)
                for chunk in chunks:
                    member.write(chunk)
    return Content(file.tell(), lambda: _from_start(file))


def _from_start(file: IO[bytes]) -> Iterator[bytes]:
    file.seek(0)
    while chunk := file.read(CHUNK):
        yield chunk


def _check_size(size: int) -> None:
    if size >= LIMIT:
        raise MigrationError(
            f"plugins and wheels hold {size:,} bytes and MWAA takes a plugins.zip of less than 1 GB;"
            " move what is not code out of it, to S3"
        )


def _nothing(_path: str) -> Iterator[bytes]:
    return iter(())


# --- wheels from an index ---------------------------------------------------------------------------------------------


def _downloaded(packing: Packing, wheels: Tree, wanted: bytes, airflow_version: str, place: Path) -> Tree:
    """The wheels that pip finds for the environment's Python, without those that its image brings in that version."""
    python, image = require(airflow_version).python, packages(airflow_version)
    at_hand = wheel_versions(wheels)
    command = [
        *_pip(),
        "download",
        "--quiet",
        "--disable-pip-version-check",
        "--no-input",
        "--only-binary=:all:",
        f"--python-version={python}",
        "--implementation=cp",
        *(f"--platform=manylinux_{glibc}_x86_64" for glibc in _GLIBC[at_least(airflow_version, "2.7")]),
        "--platform=manylinux2014_x86_64",
        *([f"--find-links={Path(packing.folder).expanduser().absolute()}"] if packing.folder else []),
        f"--dest={place}",
        "--requirement=/dev/stdin",  # URLs of indexes hold credentials, and arguments are seen by everyone
    ]
    progress(f"downloading wheels for Python {python}")
    text = requirements.for_download(wanted, at_hand, packing.indexes)
    try:
        done = subprocess.run(command, input=text.encode(), capture_output=True, timeout=PIP_TIMEOUT, check=False)
    except subprocess.TimeoutExpired:
        raise MigrationError(f"pip did not finish in {PIP_TIMEOUT} seconds; give a folder of wheels instead") from None
    if done.returncode:
        raise MigrationError(
            f"pip found no wheels for what requirements.txt names: {_complaint(done.stderr, packing.indexes)};"
            " build a wheel of it and give its folder as wheels, or correct requirements.txt"
        )
    tree = folder_tree(place, kind="wheel")
    for path in list(tree.files):
        known = requirements.wheel_name(path)
        if known and known[0] in image.image and image.constrained.get(known[0]) == known[1]:
            del tree.files[path]
    return tree


def wheel_versions(tree: Tree) -> dict[str, str]:
    """{name: version}."""
    return dict(filter(None, (requirements.wheel_name(path) for path in sorted(tree.files))))


def _pip() -> list[str]:
    """pip of this Python, any pip, or the one that uv fetches. It picks wheels for another Python, so any will do."""
    own = [sys.executable, "-m", "pip"]
    if subprocess.run([*own, "--version"], capture_output=True, check=False).returncode == 0:
        return own
    for name in ("pip3", "pip"):
        found = shutil.which(name)
        if found:
            return [found]
    uv = shutil.which("uv")
    if uv:
        return [uv, "tool", "run", "--quiet", "pip"]
    raise MigrationError(
        "pack_requirements needs pip on the controller and there is none; install pip or uv there, or give a folder of"
        " wheels"
    )


def _complaint(stderr: bytes, secrets: Sequence[str]) -> str:
    text = stderr.decode("utf-8", "replace")
    for url in secrets:
        text = text.replace(url, requirements.masked(url))
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    told = [line for line in lines if re.match(r"WARNING: .*(\b40[137]\b|[Cc]redential|SSL|[Cc]onnection)", line)][:1]
    told += [line for line in lines if line.startswith("ERROR")][-2:]
    said = "; ".join(line.partition(": ")[2] for line in told) or (lines or ["it ended without a word"])[-1]
    return requirements.masked(said).rstrip(".")


def merged_plugins(sources: Sequence[tuple[str, Tree | None]]) -> tuple[Tree | None, list[str]]:
    """(one plugins folder, what contradicts itself). The same file twice is one; another content is a conflict."""
    trees = [(name, tree) for name, tree in sources if tree is not None]
    if not trees:
        return None, []
    owners: dict[str, tuple[str, Tree]] = {}
    files: dict[str, FileInfo] = {}
    conflicts = []
    merged = Tree(files, lambda path: owners[path][1].stream(path), kind="plugin_file")
    for name, tree in trees:
        for path, info in tree.files.items():
            if path in files and files[path] != info:
                conflicts.append(f"the plugin {path} differs between {owners[path][0]} and {name}")
            elif path not in files:
                files[path], owners[path] = info, (name, tree)
        for kind, number in tree.left_out.items():
            merged.left_out[kind] = merged.left_out.get(kind, 0) + number
        merged.not_carried += tree.not_carried
    return merged, conflicts
