# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reading policies of IAM, as far as preflight has to: trust, buckets, keys and endpoints. Pure.

PRIVATE to the collection: no promise is made to other collections.

What a role or the caller may do is asked of IAM's own simulation; this is for the policies on resources, which the
simulation of a principal leaves out.
"""

from __future__ import annotations

import json
import operator
import re
from collections.abc import Iterator
from typing import Any, Callable
from urllib.parse import unquote


def document(policy: Any) -> dict[str, Any]:
    """A policy as a dict: IAM's API gives some URL-encoded, some as text, some parsed. {} where it is none."""
    if isinstance(policy, dict):
        return policy
    try:
        found = json.loads(unquote(policy) if str(policy).startswith("%7B") else policy)
    except (TypeError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def statements(policy: Any, effect: str) -> Iterator[dict[str, Any]]:
    for statement in listed(document(policy).get("Statement")):
        if isinstance(statement, dict) and statement.get("Effect") == effect:
            yield statement


def listed(value: Any) -> list[Any]:
    if value is None:
        return []
    return value if isinstance(value, list) else [value]


def like(pattern: str, text: str) -> bool:
    """IAM's wildcards * and ?."""
    regex = re.escape(pattern).replace(r"\*", ".*").replace(r"\?", ".")
    return re.fullmatch(regex, text, re.DOTALL) is not None


def covers_action(statement: dict[str, Any], action: str) -> bool:
    """Names of actions are compared without case."""
    if "NotAction" in statement:
        return not any(like(str(one).lower(), action.lower()) for one in listed(statement["NotAction"]))
    return any(like(str(one).lower(), action.lower()) for one in listed(statement.get("Action")))


def covers_resource(statement: dict[str, Any], resource: str) -> bool:
    """A trust policy has no resources and covers all."""
    if "NotResource" in statement:
        return not any(like(str(one), resource) for one in listed(statement["NotResource"]))
    return "Resource" not in statement or any(like(str(one), resource) for one in listed(statement["Resource"]))


def principals(statement: dict[str, Any], kind: str) -> list[str]:
    """kind: "AWS" or "Service". "*" means everybody, of every kind."""
    given = statement.get("Principal")
    if isinstance(given, str):
        return [given]
    return [str(one) for one in listed((given or {}).get(kind))]


def covers_principal(statement: dict[str, Any], arn: str) -> bool:
    """Whether a statement is about this role or user: by its ARN, its account, or everybody."""
    account = arn.split(":")[4]
    names = {"*", arn, account, f"{arn.rsplit(':', 1)[0]}:root"}
    if "NotPrincipal" in statement:
        given = statement["NotPrincipal"]
        named = listed(given if isinstance(given, str) else given.get("AWS"))
        return not any(one in ("*", arn) for one in named)  # an account that is excepted excepts none of its roles
    return any(one in names for one in principals(statement, "AWS"))


def conditions(statement: dict[str, Any]) -> Iterator[tuple[str, str, list[str]]]:
    """(operator in lower case, key in lower case, values)."""
    for test, tests in (statement.get("Condition") or {}).items():
        for key, values in (tests or {}).items():
            yield test.lower(), key.lower(), [str(one) for one in listed(values)]


def holds(test: str, values: list[str], actual: str) -> bool | None:
    """Whether a test of a condition holds for an actual value; None for operators that are not known here."""
    base = test.replace("forallvalues:", "").replace("foranyvalue:", "")
    base = base[: -len("ifexists")] if base.endswith("ifexists") else base
    if base in ("stringlike", "arnlike", "arnequals"):
        return any(like(value, actual) for value in values)
    if base == "bool":
        return actual.lower() in [value.lower() for value in values]
    if base == "stringequals":
        return actual in values
    if base.startswith("numeric"):
        return _numeric(base, values, actual)
    if base == "stringequalsignorecase":
        return actual.lower() in [value.lower() for value in values]
    if base in ("stringnotlike", "arnnotlike", "arnnotequals"):
        return not any(like(value, actual) for value in values)
    if base == "stringnotequals":
        return actual not in values
    return None


_NUMERIC: dict[str, Callable[[float, float], bool]] = {
    "numericequals": operator.eq,
    "numericnotequals": operator.ne,
    "numericlessthan": operator.lt,
    "numericlessthanequals": operator.le,
    "numericgreaterthan": operator.gt,
    "numericgreaterthanequals": operator.ge,
}


def _numeric(base: str, values: list[str], actual: str) -> bool | None:
    try:
        found = [_NUMERIC[base](float(actual), float(value)) for value in values]
    except (KeyError, ValueError):
        return None
    return all(found) if base == "numericnotequals" else any(found)
