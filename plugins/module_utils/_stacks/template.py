# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Templates, parameters and lists of changes as values: written, compared and shown. Nothing here calls AWS.

PRIVATE to the collection: no promise is made to other collections.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

INLINE_LIMIT = 51_200  # bytes of a TemplateBody [CloudFormation quotas]
HIDDEN = "********"
REPLACED = "True"  # ResourceChange.Replacement of a resource that is replaced, in AWS's words
MAYBE = "Conditional"
NAMED = ("AWS::MWAA::Environment",)


def written(body: dict[str, Any] | str) -> str:
    """A template as the text that is sent: readable JSON of a dictionary, compact where it would be too long.

    ASCII alone: GetTemplate makes a question mark of each other character [cloudformation-coverage-roadmap 814], and
    what is adopted next is added to what it says.
    """
    if isinstance(body, str):
        return body
    readable = json.dumps(body, indent=2, default=str) + "\n"
    if len(readable.encode()) <= INLINE_LIMIT:
        return readable
    return json.dumps(body, separators=(",", ":"), default=str)


def read(text: dict[str, Any] | str | None) -> dict[str, Any] | None:
    """A template as a dictionary; None where it is YAML, which CloudFormation alone reads with its short forms."""
    if isinstance(text, dict) or text is None:
        return text
    try:
        document = json.loads(text)
    except ValueError:
        return None
    return document if isinstance(document, dict) else None


def same(one: dict[str, Any] | str, other: dict[str, Any] | str) -> bool:
    """Whether two templates say the same as far as that can be told without CloudFormation."""
    return _comparable(one) == _comparable(other)


def _comparable(template: dict[str, Any] | str) -> Any:
    document = read(template)
    if document is not None:
        return json.loads(json.dumps(document, default=str))
    return [line.rstrip() for line in str(template).strip().splitlines()]


def shown(template: dict[str, Any] | str | None) -> str:
    """A template as a diff shows it."""
    if template is None:
        return ""
    document = read(template)
    if document is None:
        return str(template).strip() + "\n"
    return json.dumps(document, indent=2, ensure_ascii=False, default=str) + "\n"


def fingerprint(*parts: Any) -> str:
    """16 hexadecimal digits of what was asked for."""
    text = json.dumps([_comparable(part) if isinstance(part, str) else part for part in parts], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def parameter_text(value: Any) -> str | None:
    """A parameter as CloudFormation takes it: text; a list with commas, true and false; None keeps the stack's."""
    if value is None:
        return None
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return ",".join(str(parameter_text(one)) for one in value)
    return str(value)


# --- changes ---------------------------------------------------------------------------------------------------------


def compared(before: dict[str, Any], after: dict[str, Any]) -> list[dict[str, Any]]:
    """The changes between two templates that can be seen without CloudFormation. Whether one replaces is unknown."""
    old, new = before.get("Resources") or {}, after.get("Resources") or {}
    found = []
    for name in [*new, *(name for name in old if name not in new)]:
        if name not in old:
            found.append(_change(name, new[name], "Add"))
        elif name not in new:
            found.append(_change(name, old[name], "Remove", policy=old[name].get("DeletionPolicy")))
        elif old[name] != new[name]:
            found.append(
                _change(name, new[name], "Modify", replacement="unknown", properties=_differing(old[name], new[name]))
            )
    return found


def _change(
    name: str,
    resource: dict[str, Any],
    action: str,
    *,
    replacement: str = "False",
    properties: list[str] | None = None,
    policy: str | None = None,
) -> dict[str, Any]:
    return {
        "logical_resource_id": name,
        "resource_type": str(resource.get("Type", "")),
        "action": action,
        "replacement": replacement,
        "properties": properties or [],
        **({"policy_action": policy} if policy else {}),
    }


def _differing(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    before, after = old.get("Properties") or {}, new.get("Properties") or {}
    attributes = {key for key in {*old, *new} - {"Properties"} if old.get(key) != new.get(key)}
    return sorted({key for key in {*before, *after} if before.get(key) != after.get(key)} | attributes)


def imported(entry: dict[str, Any]) -> dict[str, Any]:
    """The change that an entry of ResourcesToImport asks for."""
    return _change(entry["LogicalResourceId"], {"Type": entry["ResourceType"]}, "Import")


def described(change: dict[str, Any]) -> dict[str, Any]:
    """A ResourceChange of DescribeChangeSet as this collection returns it. Values of properties are never asked for."""
    properties = set()
    for detail in change.get("Details") or []:
        target = detail.get("Target") or {}
        attribute = target.get("Attribute") or ""
        properties.add(target.get("Name") or attribute if attribute == "Properties" else attribute)
    result = {
        "logical_resource_id": change["LogicalResourceId"],
        "resource_type": change.get("ResourceType", ""),
        "action": change["Action"],
        "replacement": change.get("Replacement") or "False",
        "properties": sorted(properties - {""}),
    }
    for key, name in (("PhysicalResourceId", "physical_resource_id"), ("PolicyAction", "policy_action")):
        if change.get(key):
            result[name] = change[key]
    return result


def destroying(changes: list[dict[str, Any]]) -> list[str]:
    """What of DescribeChangeSet's ResourceChanges replaces or deletes a resource, a phrase each.

    A change that CloudFormation calls conditional only because it refers to another resource that is changed in place
    is none: the reference stays what it was. Nor is one of a resource that has to have a name (NAMED): CloudFormation
    refuses to replace it under that, and calls a change of an environment's security groups conditional.
    """
    by_name = {change["LogicalResourceId"]: change for change in changes}
    lost = {name for name, change in by_name.items() if change.get("Replacement") == REPLACED}
    candidates = {
        name
        for name, change in by_name.items()
        if change.get("Replacement") == MAYBE and change.get("ResourceType") not in NAMED
    }
    while True:
        more = {name for name in candidates - lost if _may_replace(by_name[name], lost, set(by_name))}
        if not more:
            break
        lost |= more
    found = []
    for name, change in by_name.items():
        what = f"{name} ({change.get('ResourceType', '')})"
        if name in lost:
            because = sorted(
                {
                    str((detail.get("Target") or {}).get("Name") or (detail.get("Target") or {}).get("Attribute"))
                    for detail in change.get("Details") or []
                    if (detail.get("Target") or {}).get("RequiresRecreation") in ("Always", "Conditionally")
                }
            )
            certainty = "is replaced" if change.get("Replacement") == REPLACED else "may be replaced"
            found.append(f"{what} {certainty}" + (f" (by its new {', '.join(because)})" if because else ""))
        elif change["Action"] == "Remove" and change.get("PolicyAction") != "Retain":
            found.append(f"{what} is deleted")
    return found


def _may_replace(change: dict[str, Any], lost: set[str], changed: set[str]) -> bool:
    for detail in change.get("Details") or []:
        if (detail.get("Target") or {}).get("RequiresRecreation") not in ("Always", "Conditionally"):
            continue
        cause = str(detail.get("CausingEntity") or "").partition(".")[0]
        if detail.get("Evaluation") != "Dynamic" or cause not in changed or cause in lost:
            return True
    return not change.get("Details")


SIGNS = {"Add": "+", "Modify": "~", "Remove": "-", "Import": "<"}


def line(change: dict[str, Any]) -> str:
    """One change as one line: '~ Environment (AWS::MWAA::Environment): MaxWorkers'."""
    action, replacement = change["action"], change["replacement"]
    sign = "!" if replacement in (REPLACED, MAYBE) and action == "Modify" else SIGNS.get(action, "?")
    words = {
        "Add": "is added",
        "Import": "is imported",
        "Remove": "leaves the stack and is kept" if change.get("policy_action") == "Retain" else "is deleted",
    }.get(action, "")
    if action == "Modify":
        kinds = {
            REPLACED: "is REPLACED",
            MAYBE: "is changed, perhaps REPLACED",
            "unknown": "is changed, whether replaced is unknown until a preview",
        }
        words = kinds.get(replacement, "is changed")
    properties = f": {', '.join(change['properties'])}" if change["properties"] else ""
    return f"{sign} {change['logical_resource_id']} ({change['resource_type']}) {words}{properties}"
