# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which ids are carried, and under which names: include and exclude by pattern, rename by rule.

PRIVATE to the collection: no promise is made to other collections.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

from ansible_collections.mwaa.migration.plugins.module_utils._errors import Faults, MigrationError

NOT_SELECTED = "not selected (include, exclude)"

ARGUMENT_SPEC: dict[str, Any] = {
    "include": {"type": "list", "elements": "str", "default": ["*"]},
    "exclude": {"type": "list", "elements": "str", "default": []},
    "rename": {
        "type": "list",
        "elements": "dict",
        "default": [],
        "options": {"match": {"type": "str", "required": True}, "to": {"type": "str", "required": True}},
    },
}


class Selected(NamedTuple):
    """ids: {id in the source: id in the target}, in the source's order. left: those that stay behind."""

    ids: dict[str, str]
    left: list[str]

    @property
    def renamed(self) -> dict[str, str]:
        """{id in the target: id in the source} where they differ."""
        return {new: old for old, new in self.ids.items() if new != old}


class Selection:
    """include, exclude: globs (`*`, `?`, `[…]`), case counts. rename: [{match, to}], the first that matches an id is
    taken; match: a regular expression for the whole id; to: what it becomes, with \\1 and \\g<name> for groups.

    Raises MigrationError with every bad rule.
    """

    def __init__(
        self,
        include: Iterable[str] | None = None,
        exclude: Iterable[str] | None = None,
        rename: Iterable[Mapping[str, str]] | None = None,
    ):
        self.include = ["*"] if include is None else list(include)
        self.exclude = list(exclude or ())
        self.rename: list[tuple[re.Pattern[str], str]] = []
        faults = Faults("rename is not valid, nothing was done")
        for index, rule in enumerate(rename or ()):
            try:
                pattern = re.compile(rule["match"], re.DOTALL)
                # a template is only read when something matches: this has all the groups, and matches everything
                re.compile(f"{rule['match']}|(?s:.*)", re.DOTALL).sub(rule["to"], "", count=1)
            except KeyError as error:
                faults.add(f"index {index}: {error.args[0]} is missing")
            except (re.error, IndexError) as error:
                faults.add(f"index {index} (match {rule['match']!r}, to {rule['to']!r}): {error}")
            else:
                self.rename.append((pattern, rule["to"]))
        faults.raise_if_any()

    @classmethod
    def of(cls, options: Mapping[str, Any] | None) -> Selection:
        """Of a dictionary with include, exclude and rename, each optional."""
        options = options or {}
        unknown = sorted(set(options) - set(ARGUMENT_SPEC))
        if unknown:
            raise MigrationError(f"a selection has include, exclude and rename, not {', '.join(map(repr, unknown))}")
        return cls(options.get("include"), options.get("exclude"), options.get("rename"))

    def takes(self, identifier: str) -> bool:
        return any(fnmatchcase(identifier, glob) for glob in self.include) and not any(
            fnmatchcase(identifier, glob) for glob in self.exclude
        )

    def name(self, identifier: str) -> str:
        """What the id becomes."""
        for pattern, template in self.rename:
            match = pattern.fullmatch(identifier)
            if match:
                return match.expand(template)
        return identifier

    def apply(self, identifiers: Iterable[str]) -> Selected:
        """Raises MigrationError naming all ids that would become empty, and all that would become the same."""
        ids: dict[str, str] = {}
        left: list[str] = []
        for identifier in identifiers:
            if self.takes(identifier):
                ids[identifier] = self.name(identifier)
            else:
                left.append(identifier)
        faults = Faults("rename makes no usable names, nothing was done")
        by_name: dict[str, list[str]] = {}
        for old, new in ids.items():
            by_name.setdefault(new, []).append(old)
        for new, olds in by_name.items():
            if not new:
                faults.add(f"{', '.join(map(repr, olds))} would have an empty name")
            elif len(olds) > 1:
                faults.add(f"{', '.join(map(repr, olds))} would all become {new!r}")
        faults.raise_if_any()
        return Selected(ids, left)
