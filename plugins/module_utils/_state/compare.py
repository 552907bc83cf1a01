# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What has to be done to make the target's state the wanted one: a pure function.

PRIVATE to the collection: no promise is made to other collections.

REST hides secrets. A field that it hides is known by its digest (from the agent, or of what was last applied) or
not at all; what is not known counts as different where writing is allowed, and is shown as unknown where it is not.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Optional

from ansible_collections.mwaa.migration.plugins.module_utils._bundle import FIELDS
from ansible_collections.mwaa.migration.plugins.module_utils._state.model import SECRET_FIELDS, Item, values

MASK = "********"
STARS = "***"  # what Airflow shows in place of a secret

# Never pruned. default_pool: Airflow needs it and refuses. aws_default: MWAA looks it up in every task.
KEPT = {"variables": (), "connections": ("aws_default",), "pools": ("default_pool",)}

# (id, field, value) -> whether the target holds this; None: not known
Remembered = Callable[[str, str, Any], Optional[bool]]


@dataclass(frozen=True)
class Hidden:
    """A field of which REST shows only whether it is there (present), or a masked or re-written form (shown).

    present: None where even that is not told.
    """

    present: Optional[bool] = None
    shown: Optional[str] = None

    def contradicts(self, value: Any) -> bool:
        """Whether the stored value can not be this one. False means: it may be."""
        if self.present is not None and self.present != (value is not None):
            return True
        return self.shown is not None and value is not None and not _fits(self.shown, value)


@dataclass(frozen=True)
class Change:
    """One item: created, updated, unchanged, kept, conflict, deleted, or unknown.

    unknown: nothing is known to differ, but something is not known.

    index: its place in the wanted list; None when it is only in the target. item: None when deleted.
    changed, unknown: names of fields.
    """

    id: str
    index: Optional[int]
    item: Optional[Item]
    action: str
    changed: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()
    before: Optional[dict[str, Any]] = None

    @property
    def writes(self) -> bool:
        return self.action in ("created", "updated", "deleted", "unknown")


def compare(
    kind: str,
    wanted: Iterable[Item],
    current: dict[str, dict[str, Any]],
    remembered: Remembered,
    *,
    on_conflict: str = "overwrite",
    prune: bool = False,
    spared: Iterable[str] = (),
    prunable: Optional[set[str]] = None,
) -> list[Change]:
    """The changes, in the order of `wanted`, then what is pruned.

    current: {id: {field: value or Hidden}}. on_conflict: overwrite; keep (what exists stays as it is); fail (what
    exists and differs, or is not known to be equal, is a conflict). spared: ids that prune leaves alone although
    not wanted. prunable: ids that prune may delete; None: any.
    """
    changes, ids = [], set(spared)
    for index, item in enumerate(wanted):
        ids.add(item.id)
        there = current.get(item.id)
        if there is None:
            changes.append(Change(item.id, index, item, "created", tuple(FIELDS[kind])))
            continue
        changed, unknown = [], []
        for name, value in values(item).items():
            same = _same(there.get(name), value, item.id, name, remembered)
            if same is None:
                unknown.append(name)
            elif not same:
                changed.append(name)
        action = "updated" if changed else "unknown" if unknown else "unchanged"
        if action != "unchanged" and on_conflict == "keep":
            action = "kept"
        elif action != "unchanged" and on_conflict == "fail":
            action = "conflict"
        changes.append(Change(item.id, index, item, action, tuple(changed), tuple(unknown), there))
    if prune:
        gone = set(current) - ids - set(KEPT[kind])
        for identifier in sorted(gone if prunable is None else gone & prunable):
            changes.append(Change(identifier, None, None, "deleted", before=current[identifier]))
    return changes


def diff(kind: str, change: Change) -> dict[str, Any] | None:
    """{"before", "after"} of what differs; secrets are eight stars whatever they are, with a word about them beside."""
    if change.action in ("unchanged", "kept"):
        return None
    before, after = {}, {}
    for name in FIELDS[kind]:
        if change.before is not None:
            before[name] = _shown(kind, name, change.before.get(name))
        if change.item is not None:
            after[name] = _shown(kind, name, getattr(change.item, name))
            if change.before is not None and _is_secret(kind, name):
                if name in change.changed:
                    after[name] = f"{MASK} (changed)"
                elif name in change.unknown:
                    after[name] = f"{MASK} (unknown)"
                else:
                    after[name] = before[name]
    return {"before": before, "after": after}


def _is_secret(kind: str, name: str) -> bool:
    return name in SECRET_FIELDS[kind]


def _shown(kind: str, name: str, value: Any) -> Any:
    if isinstance(value, Hidden):
        return None if value.present is False else MASK
    return MASK if _is_secret(kind, name) and value is not None else value


def _same(there: Any, value: Any, identifier: str, name: str, remembered: Remembered) -> bool | None:
    if not isinstance(there, Hidden):
        return there == value
    if there.contradicts(value):
        return False
    if value is None and there.present is False:
        return True
    known = remembered(identifier, name, value)
    if known is None and there.shown is not None and there.shown == value and STARS not in value:
        # JSON comes back written anew: another spelling of the same content can only be told by digests
        return True
    return known


def _fits(shown: str, value: str) -> bool:
    """Whether Airflow may show `value` as `shown`: parts as stars, JSON written anew."""
    if STARS not in shown and shown == value:
        return True
    try:
        return _fits_node(json.loads(shown), json.loads(value))
    except (ValueError, RecursionError):
        return STARS in shown


def _fits_node(shown: Any, value: Any) -> bool:
    if isinstance(shown, str) and STARS in shown:
        return True
    if isinstance(shown, dict) and isinstance(value, dict):
        return shown.keys() == value.keys() and all(_fits_node(shown[key], value[key]) for key in shown)
    if isinstance(shown, list) and isinstance(value, list):
        return len(shown) == len(value) and all(map(_fits_node, shown, value))
    # by repr: Airflow's JSON may hold NaN, which differs from itself
    return type(shown) is type(value) and repr(shown) == repr(value)
