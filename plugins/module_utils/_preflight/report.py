# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What preflight found: a page for people, JSON and JUnit for machines.

PRIVATE to the collection: no promise is made to other collections.

Nothing here holds values of options: names, ids and ARNs, counts and reasons.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any
from xml.sax.saxutils import escape, quoteattr

from ansible_collections.mwaa.migration.plugins.module_utils._preflight.frame import (
    COULD_NOT_CHECK,
    RULES,
    Result,
    Snapshot,
    in_order,
)
from ansible_collections.mwaa.migration.plugins.module_utils._report import Page, write, write_text

_NO_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_NAMES = {"error": ("error", "errors"), "warning": ("warning", "warnings"), "info": ("note", "notes")}


def document(snapshot: Snapshot, result: Result) -> dict[str, Any]:
    """What the module returns and the JSON file holds."""
    return {
        "environment": snapshot.name,
        "region": snapshot.region,
        "account": snapshot.account,
        "exists": snapshot.environment is not None,
        "findings": [finding.as_dict() for finding in result.findings],
        "summary": result.summary,
        "checked": result.checked,
        "not_checked": [
            {"id": identity, "action": unread.action, "code": unread.code}
            for identity, unread in result.blocked.items()
        ],
    }


def write_json(path: str, found: Mapping[str, Any]) -> None:
    write(path, found)


def write_junit(path: str, snapshot: Snapshot, result: Result) -> None:
    """One test case for each rule: errors and warnings are failures, what could not be looked at is an error."""
    write_text(path, junit(snapshot, result))


def junit(snapshot: Snapshot, result: Result) -> str:
    cases = []
    failures = 0
    for one in in_order():
        identity = one.id
        about = [finding for finding in result.findings if finding.id == identity]
        grave = [finding for finding in about if finding.severity != "info"]
        inner = ""
        if identity in result.blocked:
            unread = result.blocked[identity]
            inner = f"<error type={quoteattr(unread.code)} message={quoteattr(f'{COULD_NOT_CHECK}: {unread.action}')}/>"
        elif grave:
            failures += 1
            text = "\n".join(f"{finding.resource}: {finding.what}; {finding.how}" for finding in grave)
            kind, message = quoteattr(grave[0].severity), quoteattr(grave[0].what)
            inner = f"<failure type={kind} message={message}>{escape(text)}</failure>"
        elif about:
            inner = f"<system-out>{escape(chr(10).join(f'{one.resource}: {one.what}' for one in about))}</system-out>"
        elif identity not in result.checked:
            inner = '<skipped message="nothing to look at"/>'
        place = f"classname={quoteattr('preflight.' + one.area)} name={quoteattr(identity)}"
        cases.append(f"    <testcase {place}>{inner}</testcase>")
    skipped = len(RULES) - len(result.checked) - len(result.blocked)
    text = "\n".join(
        [
            '<?xml version="1.0" encoding="UTF-8"?>',
            "<testsuites>",
            f'  <testsuite name={quoteattr("preflight " + snapshot.name)} tests="{len(RULES)}" failures="{failures}"'
            f' errors="{len(result.blocked)}" skipped="{skipped}">',
            *cases,
            "  </testsuite>",
            "</testsuites>",
            "",
        ]
    )
    return _NO_XML.sub("?", text)


def verdict(found: Mapping[str, Any]) -> tuple[str, str]:
    """(how it stands: 'good', 'open' or 'bad', one sentence), of what document() returns."""
    summary = found["summary"]
    counts = [
        f"{summary[f'{severity}s']} {names[summary[f'{severity}s'] != 1]}"
        for severity, names in _NAMES.items()
        if summary[f"{severity}s"]
    ]
    state = "bad" if summary["errors"] else "open" if summary["warnings"] else "good"
    return state, (", ".join(counts) if counts else "Nothing found") + "."


def render(
    found: Mapping[str, Any], *, width: int = 80, ascii_only: bool = False, paths: tuple[str, ...] = ()
) -> list[tuple[str, str | None]]:
    """The page as (line, how it stands, for its colour; None: plain), no line longer than `width`.

    found: what document() returns. paths: files that were written.
    """
    page = Page(max(60, min(width, 120)), ascii_only)
    page.rule_width = page.width
    lines: list[tuple[str, str | None]] = []

    def take(state: str | None = None) -> None:
        lines.extend((line, state) for line in page.lines)
        page.lines.clear()

    page.blank()
    kind = "as it is" if found["exists"] else "before it is created"
    page.pair(f"Preflight of {found['environment']}, {kind}", f"{found['region']}, {found['account']}")
    page.rule(blank_before=False)
    take()
    marks = {"error": (page.bad, "bad"), "warning": ("!", "open"), "info": ("i", None)}
    for finding in found["findings"]:
        mark, state = marks[finding["severity"]]
        page.blank()
        take()
        page.pair(f"{mark} {finding['id']}", finding["resource"])
        take(state)
        page.paragraph(finding["what"], indent=4, hang=0)
        page.paragraph(finding["why"], indent=4, hang=0)
        page.paragraph(f"{page.arrow} {finding['how']}", indent=4, hang=2)
        take()
    if found["findings"]:
        page.blank()
        page.rule(blank_before=False)
    take()
    state, sentence = verdict(found)
    page.line(sentence)
    take(state)
    summary = found["summary"]
    looked = f"{summary['checked']} rules looked, {summary['passed']} of them found nothing"
    more = [
        f"{summary['not_checked']} could not look" if summary["not_checked"] else "",
        f"{summary['not_applicable']} had nothing to look at" if summary["not_applicable"] else "",
    ]
    page.paragraph("; ".join([looked, *filter(None, more)]) + ".", indent=0, hang=0)
    for path in paths:
        page.line(f"Report: {path}")
    take()
    return lines
