# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a migration came to: one JSON document for machines, one calm page for people.

PRIVATE to the collection: no promise is made to other collections.

Nothing here holds values: ids, names of fields, counts, seconds and reasons.
"""

from __future__ import annotations

import json
import os
import re
import tempfile
import textwrap
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ansible_collections.mwaa.migration.plugins.module_utils._errors import MigrationError

KINDS = ("variables", "connections", "pools", "dags")
_TITLES = {"variables": "Variables", "connections": "Connections", "pools": "Pools", "dags": "DAGs"}
_PLURALS = {"history": "entries of history"}
# what is listed under these singular kinds counts beside the row of the table
_ROW_OF = {"variable": "variables", "connection": "connections", "pool": "pools", "dag": "dags", "dag_file": "dags"}
_IDS_SHOWN = 12
# tables of run history, in the words of Airflow's pages and in the order that the page has them
_TABLES = {
    "dag_run": "DAG runs",
    "dag_run_note": "their notes",
    "task_instance": "Task instances",
    "task_instance_note": "their notes",
    "task_instance_history": "earlier tries",
    "task_fail": "failures",
    "task_reschedule": "reschedules",
    "task_map": "mapped lengths",
    "rendered_task_instance_fields": "rendered fields",
    "sla_miss": "SLA misses",
    "xcom": "XComs",
    "log": "Audit log",
    "job": "Jobs",
    "dataset": "Datasets",
    "dataset_event": "their events",
    "dagrun_dataset_event": "events of runs",
    "dataset_alias": "their aliases",
    "dataset_alias_dataset": "aliases of datasets",
    "dataset_alias_dataset_event": "aliases of events",
}
# outputs of stacks, in words
_HELD = {
    "VpcId": "VPC",
    "SubnetIds": "subnets",
    "SecurityGroupIds": "security groups",
    "BucketName": "bucket",
    "RoleName": "role",
    "KmsKeyArn": "key",
    "BundleBucketName": "bundle's bucket",
    "EnvironmentName": "environment",
}


def build(
    *,
    source: Mapping[str, Any],
    target: Mapping[str, Any],
    stages: Iterable[Mapping[str, Any]],
    verification: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """The report. Keys: source, target, stages, stacks, parity, not_carried, findings.

    stages: [{"name", "results": [registered results of its tasks]}], in the order they ran; one whose tasks did not run
    (left out by tags) is left out. verification: what mwaa_verify returned; None when it did not run.
    """
    stages, checked = list(stages), verification or {}
    parity = checked.get("parity") or {}
    return {
        "source": {"airflow_version": _version(source) or _version(checked.get("source"))},
        "target": {"airflow_version": _version(target) or _version(checked.get("target"))},
        "stages": [stage for stage in (_stage(given) for given in stages) if stage],
        "stacks": _stacks(stages),
        "parity": {
            kind: {count: (parity.get(kind) or {}).get(count) for count in ("source", "target", "equal")}
            for kind in KINDS
        }
        | ({"history": parity["history"]} if parity.get("history") else {}),
        "not_carried": [
            {"kind": item["kind"], "id": item["id"], "reason": item["reason"]}
            for item in checked.get("not_carried") or []
        ],
        "findings": list(checked.get("findings") or []),
    }


def _version(side: Any) -> str | None:
    return str(side["airflow_version"]) if side and side.get("airflow_version") else None


def _stage(given: Mapping[str, Any]) -> dict[str, Any] | None:
    ran = [
        result
        for result in given.get("results") or []
        if isinstance(result, Mapping) and result and not result.get("skipped")
    ]
    if not ran:
        return None
    return {
        "name": str(given["name"]),
        "seconds": round(sum(float(result.get("duration") or 0) for result in ran), 1),
        "changed": any(bool(result.get("changed")) for result in ran),
    }


def _stacks(stages: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The stacks that cloudformation_change_set returned, as they were in the end."""
    found = {}
    for result in (result for given in stages for result in given.get("results") or []):
        stack = result.get("stack") if isinstance(result, Mapping) else None
        if isinstance(stack, Mapping) and stack.get("name"):
            found[stack["name"]] = {key: stack.get(key) for key in ("name", "status", "outputs")}
    return list(found.values())


def write(path: str | Path, report: Mapping[str, Any]) -> None:
    """Write it as JSON, whole or not at all. Raises MigrationError."""
    write_text(path, json.dumps(report, indent=2, ensure_ascii=False) + "\n")


def write_text(path: str | Path, text: str) -> None:
    """Write a file whole or not at all. Raises MigrationError."""
    where = Path(path).expanduser()
    temporary = ""
    try:
        where.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(prefix=f".{where.name}.", dir=where.parent)
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        Path(temporary).chmod(0o644)
        Path(temporary).replace(where)
    except OSError as error:
        if temporary:
            Path(temporary).unlink(missing_ok=True)
        raise MigrationError(
            f"cannot write the report {where}: {error.strerror}; set path to a folder that can be written"
        ) from error


def verdict(report: Mapping[str, Any], equal: bool | None) -> tuple[str, str]:
    """(how it stands: 'good', 'bad' or 'open', one sentence). equal: as mwaa_verify says; None: unknown or not
    verified.
    """
    errors = sum(1 for finding in report["findings"] if finding.get("severity") == "error")
    if equal is None:
        return "open", "Not everything could be compared."
    if not equal:
        return (
            "bad",
            f"Not equal: {errors} {'error needs' if errors == 1 else 'errors need'} mending, see the findings.",
        )
    if report["not_carried"]:
        return "good", "Everything is equal, or listed with its reason."
    return "good", "Everything is equal."


def render(
    report: Mapping[str, Any],
    *,
    width: int = 80,
    environment: str | None = None,
    path: str | None = None,
    equal: bool | None = None,
    ascii_only: bool = False,
) -> list[str]:
    """The page, as lines without colour, none of them longer than `width` unless a single word is."""
    page = Page(max(60, min(width, 120)), ascii_only)
    versions = [report["source"]["airflow_version"], report["target"]["airflow_version"]]
    page.title(
        f"Airflow {versions[0] or '?'}",
        f"{environment + ' on ' if environment else ''}MWAA {versions[1] or '?'}",
    )
    _parity(page, report)
    _stages(page, report)
    _deployed(page, report)
    _not_carried(page, report)
    _findings(page, report)
    page.rule()
    warnings = sum(1 for finding in report["findings"] if finding.get("severity") == "warning")
    if warnings:
        page.line(f"{warnings} warning{'s need' if warnings != 1 else ' needs'} you before the cutover.")
    page.line(verdict(report, equal)[1])
    if path:
        page.line(f"Report: {path}")
    return page.lines


def _parity(page: Page, report: Mapping[str, Any]) -> None:
    listed = dict.fromkeys(KINDS, 0)
    for item in report["not_carried"]:
        row = "dags" if item["kind"] == "file" and item["id"].startswith("dags/") else _ROW_OF.get(item["kind"])
        if row:
            listed[row] += 1
    # what is listed may not be in the source's number (a variable of the host's environment): an error decides
    errors = (finding for finding in report["findings"] if finding.get("severity") == "error")
    faulty = {_ROW_OF.get(str(finding.get("where")).partition(" ")[0]) for finding in errors}
    rows = []
    for kind in KINDS:
        counts = report["parity"][kind]
        known = [counts[name] for name in ("source", "target", "equal")]
        good = kind not in faulty and counts["source"] - counts["equal"] <= listed[kind] if None not in known else False
        mark = "" if None in known else page.good if good else page.bad
        rows.append(
            [_TITLES[kind], *(page.number(count) for count in known), page.number(listed[kind], zero=True), mark]
        )
    history = _history(page, report)
    if history:  # one table, so that numbers stand below one another
        rows += [[""] * 6, ["History, rows", *[""] * 5], *history]
    page.table(["", "source", "target", "equal", "listed", ""], rows)


def _history(page: Page, report: Mapping[str, Any]) -> list[list[str]]:
    """Tables of run history that a side has a row in."""
    history = report["parity"].get("history") or {}
    order = list(_TABLES)
    rows = []
    for table in sorted(history, key=lambda name: (order.index(name) if name in order else len(order), name)):
        counts = history[table]
        known = [counts[name] for name in ("source", "target", "equal")]
        listed = counts.get("listed") or 0
        if not any(known):
            continue
        title = _TABLES.get(table, table)
        mark = "" if None in known else page.good if counts["source"] - counts["equal"] <= listed else page.bad
        numbers = [page.number(count) for count in known]
        rows.append([title if title[0].isupper() else f"  {title}", *numbers, page.number(listed, zero=True), mark])
    return rows


def _stages(page: Page, report: Mapping[str, Any]) -> None:
    if not report["stages"]:
        return
    rows = [
        [stage["name"].capitalize(), f"{stage['seconds']:,.1f} s", "changed" if stage["changed"] else "unchanged"]
        for stage in report["stages"]
    ]
    if len(rows) > 1:
        rows.append(["Together", f"{sum(stage['seconds'] for stage in report['stages']):,.1f} s", ""])
    page.blank()
    page.table(None, rows, left={2})


def _deployed(page: Page, report: Mapping[str, Any]) -> None:
    if not report["stacks"]:
        return
    page.heading("Deployed by stacks")
    for stack in report["stacks"]:
        outputs = stack["outputs"] or {}
        held = ", ".join(f"{word} {outputs[name]}" for name, word in _HELD.items() if outputs.get(name))
        page.paragraph(f"{stack['name']} ({stack['status']}): {held or 'nothing that it says'}", indent=2)


def _not_carried(page: Page, report: Mapping[str, Any]) -> None:
    groups: dict[tuple[str, str], list[str]] = {}
    for item in report["not_carried"]:
        groups.setdefault((item["kind"], item["reason"]), []).append(str(item["id"]))
    if not groups:
        return
    page.heading(f"Listed, not carried ({len(report['not_carried']):,})")
    for (kind, reason), ids in sorted(groups.items()):
        name = kind.replace("_", " ")
        page.paragraph(
            f"{len(ids):,} {name if len(ids) == 1 or name.endswith('s') else _PLURALS.get(name, name + 's')}: {reason}",
            indent=2,
        )
        shown = ", ".join(sorted(ids, key=_natural)[:_IDS_SHOWN])
        more = f" and {len(ids) - _IDS_SHOWN:,} more" if len(ids) > _IDS_SHOWN else ""
        page.paragraph(shown + more, indent=6, hang=0)


def _natural(text: str) -> list[Any]:
    return [(int(part), "") if part.isdigit() else (0, part) for part in re.split(r"(\d+)", text)]


def _findings(page: Page, report: Mapping[str, Any]) -> None:
    if not report["findings"]:
        return
    order = {"error": 0, "warning": 1}
    findings = sorted(report["findings"], key=lambda finding: order.get(str(finding.get("severity")), 2))
    page.heading(f"Findings ({len(findings):,})")
    for finding in findings:
        parts = [str(finding.get(name) or "") for name in ("severity", "where", "what")]
        page.paragraph(": ".join(part for part in parts if part), indent=2)
        if finding.get("mend"):
            page.paragraph(f"{page.arrow} {finding['mend']}", indent=6, hang=2)


class Page:
    """Lines of at most `width` columns with one column of margin."""

    def __init__(self, width: int, ascii_only: bool):
        self.width, self.rule_width = width, 80
        self.lines: list[str] = []
        self.dash, self.arrow, self.good, self.bad, self.none = (
            ("-", "->", "ok", "!!", "-") if ascii_only else ("─", "→", "✓", "✗", "–")
        )

    def title(self, left: str, right: str) -> None:
        self.blank()
        self.line(f"{left}  {self.arrow}  {right}")
        self.rule(blank_before=False)

    def rule(self, blank_before: bool = True) -> None:
        if blank_before:
            self.blank()
        self.line(self.dash * (min(self.width, self.rule_width) - 2))

    def heading(self, text: str) -> None:
        self.blank()
        self.line(text)

    def blank(self) -> None:
        self.lines.append("")

    def line(self, text: str) -> None:
        self.lines.append(f" {text}".rstrip())

    def paragraph(self, text: str, indent: int, hang: int = 2) -> None:
        margin = " " * (indent + 1)
        self.lines += textwrap.wrap(
            " ".join(text.split()),
            self.width - 1,
            initial_indent=margin,
            subsequent_indent=margin + " " * hang,
            break_long_words=False,
            break_on_hyphens=False,
        )

    def pair(self, left: str, right: str) -> None:
        """Two things on a line, the second at its end; below the first where there is no room."""
        room = self.width - 2 - len(left) - len(right)
        if room >= 2:
            self.line(f"{left}{' ' * room}{right}")
        else:
            self.line(left)
            self.paragraph(right, indent=4, hang=0)

    def number(self, value: int | None, zero: bool = False) -> str:
        if value is None:
            return "?"
        return self.none if zero and not value else f"{value:,}"

    def table(self, header: list[str] | None, rows: list[list[str]], left: set[int] | None = None) -> None:
        everything = ([header] if header else []) + rows
        widths = [max(len(row[column]) for row in everything) for column in range(len(everything[0]))]
        widths = [max(width, 11 if column == 0 else 8) if column < 5 else width for column, width in enumerate(widths)]
        for row in everything:
            cells = [
                cell.ljust(widths[column]) if column == 0 or column in (left or ()) else cell.rjust(widths[column])
                for column, cell in enumerate(row)
            ]
            self.line("  ".join(cells))
