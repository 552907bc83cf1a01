# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The page, the files and the documentation of preflight."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import preflight_setups as setups
import pytest
from ansible_collections.mwaa.migration.plugins.module_utils._preflight import check, report
from ansible_collections.mwaa.migration.plugins.module_utils._preflight.frame import RULES, Unread, judge

ROOT = Path(__file__).resolve().parents[3]


def found() -> dict[str, Any]:
    """One error, one warning, one note, and something that could not be looked at."""
    snapshot = setups.with_nat()
    snapshot.facts["groups"][0]["IpPermissions"] = []
    snapshot.facts["dag_count"] = 120
    snapshot.facts["lists_buckets"] = True
    snapshot.facts["network_acls"] = Unread("ec2:DescribeNetworkAcls", "UnauthorizedOperation", True)
    result = judge(snapshot)
    return {**report.document(snapshot, result), "snapshot": snapshot, "result": result}


PAGE = """
 Preflight of analytics, before it is created        eu-central-1, 123456789012
 ------------------------------------------------------------------------------

 !! security-group-self                                                    sg-1
     no inbound rule lets the group itself in on port 443 and 5432
     scheduler, workers and database speak to each other through it: creating
     hangs, then fails
     -> add an inbound rule for all traffic whose source is the group itself

 ! class-capacity                                             environment_class
     mw1.small is for up to 50 DAGs, and there are 120 DAGs
     the schedulers fall behind, and runs begin late or not at all
     -> take mw1.medium

 ! could-not-check                                      ec2:DescribeNetworkAcls
     ec2:DescribeNetworkAcls was denied (UnauthorizedOperation), so that nobody
     looked at network-acl
     what was not looked at may be wrong: it does not count as passed
     -> allow the caller ec2:DescribeNetworkAcls, or let somebody look who may

 i role-lists-buckets          arn:aws:iam::123456789012:role/airflow-analytics
     it may s3:ListAllMyBuckets
     AWS's own policy for the role denies it: tasks see the names of all
     buckets
     -> deny it, if DAGs do not need it

 ------------------------------------------------------------------------------
 1 error, 2 warnings, 1 note.
 77 rules looked, 74 of them found nothing; 1 could not look; 3 had nothing to
 look at.
 Report: preflight.json
""".strip("\n")


def test_the_page() -> None:
    lines = report.render(found(), width=80, ascii_only=True, paths=("preflight.json",))
    shown = "\n".join(line for line, _state in lines).strip("\n")
    assert shown == PAGE


@pytest.mark.parametrize("width", [60, 80, 120])
def test_no_line_is_longer_than_the_screen(width: int) -> None:
    lines = [line for line, _state in report.render(found(), width=width)]
    assert max(map(len, lines)) <= width
    assert any(len(line) > width - 4 for line in lines)  # and the room is used


def test_headings_have_the_colour_of_their_severity_and_empty_lines_have_none() -> None:
    shown = report.render(found(), ascii_only=True)
    states = {line.split()[1]: state for line, state in shown if line.startswith((" !", " i "))}
    assert states == {
        "security-group-self": "bad",
        "class-capacity": "open",
        "could-not-check": "open",
        "role-lists-buckets": None,
    }
    assert all(state is None for line, state in report.render(found()) if not line)


def test_nothing_found_says_what_was_seen() -> None:
    snapshot = setups.existing()
    shown = report.render(report.document(snapshot, judge(snapshot)))
    lines = [line for line, _state in shown]
    assert "Preflight of analytics, as it is" in lines[1]
    assert (" Nothing found.", "good") in shown
    assert "rules looked" in lines[-2] or "rules looked" in lines[-1]


def test_junit_has_a_case_for_each_rule_and_what_could_not_be_looked_at_is_no_pass() -> None:
    one = found()
    suite = ElementTree.fromstring(report.junit(one["snapshot"], one["result"])).find("testsuite")
    assert suite is not None
    assert (suite.get("tests"), suite.get("failures"), suite.get("errors")) == (str(len(RULES)), "2", "1")
    cases = {case.get("name"): case for case in suite}
    assert cases["security-group-self"].find("failure") is not None
    assert cases["network-acl"].find("error") is not None
    assert cases["role-lists-buckets"].find("failure") is None
    assert len(cases["subnet-zones"]) == 0
    assert cases["key-grants"].find("skipped") is not None
    assert cases["subnet-zones"].get("classname") == "preflight.network"


def test_what_xml_cannot_hold_breaks_no_file() -> None:
    snapshot = setups.with_nat()
    snapshot.wanted["environment_class"] = "mw1.\x00\x1b<&>"
    case = ElementTree.fromstring(report.junit(snapshot, judge(snapshot))).find(".//failure")
    assert case is not None and "mw1.??<&> is not in the user guide" in case.attrib["message"]


def test_files_are_whole_and_readable(tmp_path: Path) -> None:
    one = found()
    report.write_json(str(tmp_path / "deep" / "preflight.json"), report.document(one["snapshot"], one["result"]))
    report.write_junit(str(tmp_path / "preflight.xml"), one["snapshot"], one["result"])
    document = json.loads((tmp_path / "deep" / "preflight.json").read_text())
    assert [finding["id"] for finding in document["findings"]][0] == "security-group-self"
    assert document["not_checked"] == [
        {"id": "network-acl", "action": "ec2:DescribeNetworkAcls", "code": "UnauthorizedOperation"}
    ]
    ElementTree.parse(tmp_path / "preflight.xml")


@pytest.mark.parametrize(
    ("fail_on", "severities", "fails"),
    [
        ("error", ["error"], True),
        ("error", ["warning", "info"], False),
        ("warning", ["warning"], True),
        ("warning", ["info"], False),
        ("never", ["error"], False),
    ],
)
def test_which_findings_make_a_task_fail(fail_on: str, severities: list[str], fails: bool) -> None:
    assert any(check.is_grave(severity, fail_on) for severity in severities) is fails


def test_the_documentation_is_of_today() -> None:
    """Otherwise: python tests/tables/preflight.py > docs/preflight.md"""
    spec = importlib.util.spec_from_file_location("preflight_table", ROOT / "tests" / "tables" / "preflight.py")
    assert spec and spec.loader
    table = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(table)
    assert (ROOT / "docs" / "preflight.md").read_text() == table.page()
