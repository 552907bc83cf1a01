# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""requirements.txt files: several as one, and one that needs no package index.

PRIVATE to the collection: no promise is made to other collections.

The format is pip's: https://pip.pypa.io/en/stable/reference/requirements-file-format/
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from ansible_collections.mwaa.migration.plugins.module_utils._packages import normal

# MWAA user guide, "Managing Python dependencies in requirements.txt": plugins.zip is unpacked there
OFFLINE = "--find-links /usr/local/airflow/plugins\n--no-index\n"

_LONG = {"-c": "--constraint", "-i": "--index-url", "-f": "--find-links", "-r": "--requirement", "-e": "--editable"}
_INDEX_OPTIONS = {"--index-url", "--extra-index-url", "--find-links", "--no-index", "--trusted-host", "--constraint"}
_ONE_ONLY = {"--index-url", "--constraint"}
_NAME = re.compile(r"^([A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?)\s*(\[[^\]]*\])?\s*(.*)$", re.DOTALL)
_WHEEL = re.compile(r"([A-Za-z0-9_.]+)-([^-/\\]+)(?:-\d[^-/\\]*)?-[^-/\\]+-[^-/\\]+-[^-/\\]+\.whl(?=$|[\s#?;])")
_CREDENTIAL = re.compile(r"(://)[^/\s@'\"]+@")


@dataclass(frozen=True)
class Line:
    """text: as written, joined where it went over several lines. option: such as --index-url; name: normalised."""

    text: str
    option: str | None = None
    name: str | None = None

    @property
    def value(self) -> str:
        """Of an option, without quotes."""
        return re.split(r"[\s=]+", self.text, maxsplit=1)[-1].strip("'\" ")

    @property
    def place(self) -> bool:
        """Whether it names a place instead of a package: a file, a folder, a repository."""
        what = self.text.partition(" @ ")[2] or self.text
        return self.option == "--editable" or (
            self.option is None
            and bool(re.match(r"(file:|\.{0,2}/|[a-z]+\+[a-z]+:|https?:|[^\s;]+\.(whl|zip|gz)\b)", what))
        )


def parse(text: str) -> list[Line]:
    lines = []
    for line in re.sub(r"\\\r?\n", " ", text).splitlines():
        line = re.sub(r"(^|\s+)#.*$", "", line).strip()
        if not line:
            continue
        if line.startswith("-"):
            option = re.split(r"[\s=]", line, maxsplit=1)[0]
            lines.append(Line(line, option=_LONG.get(option, option)))
            continue
        found, wheel = _NAME.match(line), _WHEEL.search(line)
        if wheel and " @ " not in line:
            lines.append(Line(line, name=normal(wheel.group(1))))
        elif found and not re.match(r"[a-z]+(\+[a-z]+)?://|file:|\.{0,2}/", line):
            lines.append(Line(line, name=normal(found.group(1))))
        else:
            egg = re.search(r"#egg=([\w.-]+)", line)
            lines.append(Line(line, name=normal(egg.group(1)) if egg else None))
    return lines


def masked(text: str) -> str:
    """Without the credentials that URLs carry."""
    return _CREDENTIAL.sub(r"\1***@", text)


def merge(files: Sequence[tuple[str, bytes]]) -> tuple[bytes, list[str]]:
    """(one file, what contradicts itself). files: the source's name and its requirements.txt.

    The same line is there once, a name alone gives way to the same name with a version; what else differs contradicts.
    """
    if len(files) == 1:
        return files[0][1], []
    conflicts: list[str] = []
    options: dict[str, str] = {}
    single: dict[str, tuple[str, str]] = {}
    packages: dict[str, tuple[str, Line]] = {}
    for source, content in files:
        for line in parse(content.decode("utf-8", "replace")):
            if line.option:
                first = single.setdefault(line.option, (source, line.value)) if line.option in _ONE_ONLY else None
                if first and first[1] != line.value:
                    conflicts.append(
                        f"{line.option} is {masked(first[1])} in {first[0]} and {masked(line.value)} in {source}"
                    )
                elif not first or first[0] == source:
                    options.setdefault(line.text, line.option)
                continue
            key = line.name or line.text
            other = packages.get(key)
            if other is None or _bare(other[1]):
                packages[key] = (source, line)
            elif not _bare(line) and _squeezed(other[1].text) != _squeezed(line.text):
                conflicts.append(f"{key} is {masked(other[1].text)} in {other[0]} and {masked(line.text)} in {source}")
    lines = [*options, *(line.text for _key, (_source, line) in sorted(packages.items()))]
    return ("\n".join(lines) + "\n").encode(), conflicts


def _bare(line: Line) -> bool:
    return line.name is not None and normal(line.text) == line.name


def _squeezed(text: str) -> str:
    return re.sub(r"\s+", "", text).lower()


def wheel_name(file: str) -> tuple[str, str] | None:
    """'my_lib-1.0-py3-none-any.whl' -> ('my-lib', '1.0'); None: no name of a wheel."""
    found = _WHEEL.fullmatch(file)
    return (normal(found.group(1)), found.group(2)) if found else None


def offline(content: bytes, wheels: dict[str, str]) -> bytes:
    """The requirements for pip without an index: wheels come from plugins.zip, and there are no constraints, as the
    MWAA user guide has it. wheels: {name: version} of those that are known; what names a wheel by its place names it by
    its version then.
    """
    kept = []
    for line in parse(content.decode("utf-8", "replace")):
        if line.option in _INDEX_OPTIONS:
            continue
        kept.append(f"{line.name}=={wheels[line.name]}" if line.place and line.name in wheels else line.text)
    return (OFFLINE + "".join(f"{line}\n" for line in kept)).encode()


def for_download(content: bytes, wheels: dict[str, str], indexes: Sequence[str]) -> str:
    """What pip is given to find out which wheels are needed. indexes: URLs, the first one instead of the file's."""
    lines = parse(content.decode("utf-8", "replace"))
    text = []
    for number, url in enumerate(indexes):
        text.append(f"{'--extra-index-url' if number else '--index-url'} {url}")
    for line in lines:
        if indexes and line.option == "--index-url":
            continue
        text.append(f"{line.name}=={wheels[line.name]}" if line.place and line.name in wheels else line.text)
    return "".join(f"{line}\n" for line in text)


def findings(content: bytes, where: str, *, private: bool, packed: bool) -> list[dict[str, str]]:
    """What will not work on MWAA, or shows a secret. private: the web server reaches no package index."""
    found = []
    lines = parse(content.decode("utf-8", "replace"))
    for line in lines:
        if _CREDENTIAL.search(line.text) and "${" not in line.text:
            found.append(
                _warning(
                    where,
                    f"a URL with a credential is published in clear: {masked(line.text)}",
                    "write ${AIRFLOW__SECTION__KEY} in its place and set that option in the environment, or pack the"
                    " wheels",
                )
            )
        if line.place and not packed:
            found.append(
                _warning(
                    where,
                    f"{masked(line.text)} names a place that the environment may not have",
                    "build a wheel of it, put it into a folder, and give that folder as wheels",
                )
            )
    names = [line.name for line in lines if line.name]
    if private and not packed and names:
        found.append(
            _warning(
                where,
                "the web server is private and reaches no package index, so that pip cannot install "
                + ", ".join(names[:5])
                + (f" and {len(names) - 5} more" if len(names) > 5 else ""),
                "set pack_requirements, or give a folder of wheels",
            )
        )
    return found


def _warning(where: str, what: str, mend: str) -> dict[str, str]:
    return {"severity": "warning", "where": where, "what": what, "mend": mend}
