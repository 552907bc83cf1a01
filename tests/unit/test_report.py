# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The report: its shape is promised, its page is readable."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.mwaa.migration.plugins.module_utils._errors import MigrationError
from ansible_collections.mwaa.migration.plugins.module_utils._report import build, render, verdict, write

VERIFICATION: dict[str, Any] = {
    "equal": True,
    "source": {"airflow_version": "2.10.3"},
    "target": {"airflow_version": "2.11.2"},
    "parity": {
        "variables": {"source": 1212, "target": 1212, "equal": 1212},
        "connections": {"source": 48, "target": 47, "equal": 47},
        "pools": {"source": 6, "target": 6, "equal": 6},
        "dags": {"source": 31, "target": 30, "equal": 30},
    },
    "not_carried": [
        {"kind": "connection", "id": "my conn", "reason": "the REST API refuses this conn_id"},
        {
            "kind": "dag_file",
            "id": "team/eager.py",
            "reason": "held back until the cutover: is_paused_upon_creation is not True",
        },
        *({"kind": "option", "id": f"core.option_{number}", "reason": "MWAA sets it itself"} for number in range(20)),
    ],
    "findings": [
        {
            "severity": "warning",
            "where": "dags/factory.yaml:3",
            "what": "sets is_paused_upon_creation to false; a DAG factory that reads it would start its DAGs",
            "mend": "set it to true, or hide the DAG file that reads it, until the cutover",
        },
        {
            "severity": "error",
            "where": "connection:db",
            "what": "password is different",
            "mend": "run the import stage again",
        },
    ],
}
STAGES = [
    {"name": "export", "results": [{"changed": True, "duration": 4.21}]},
    {"name": "publish", "results": [{"changed": False, "skipped": True}]},
    {"name": "import", "results": [{"changed": False, "duration": 1.0}, {"changed": True, "duration": 2.5}, {}]},
]


def report(**changes: Any) -> dict[str, Any]:
    return build(source={}, target={}, stages=STAGES, verification={**VERIFICATION, **changes})


def test_the_shape_is_the_promised_one() -> None:
    made = report()
    assert list(made) == ["source", "target", "stages", "stacks", "parity", "not_carried", "findings"]
    assert made["source"] == {"airflow_version": "2.10.3"} and made["target"] == {"airflow_version": "2.11.2"}
    assert made["parity"]["dags"] == {"source": 31, "target": 30, "equal": 30}
    assert set(made["not_carried"][0]) == {"kind", "id", "reason"}


def test_stages_add_up_their_tasks_and_those_that_did_not_run_are_left_out() -> None:
    assert report()["stages"] == [
        {"name": "export", "seconds": 4.2, "changed": True},
        {"name": "import", "seconds": 3.5, "changed": True},
    ]


def test_what_was_deployed_by_which_stack_as_it_was_in_the_end() -> None:
    def stack(name: str, status: str, **outputs: str) -> dict[str, Any]:
        return {"changed": True, "duration": 1.0, "stack": {"name": name, "status": status, "outputs": outputs}}

    base = stack("demo-base", "UPDATE_COMPLETE", VpcId="vpc-1", SubnetIds="subnet-1,subnet-2", RoleName="airflow")
    results = [stack("demo-base", "IMPORT_COMPLETE"), base, {"stack": None}]
    environment = stack("demo-environment", "CREATE_COMPLETE", EnvironmentName="demo", WebserverUrl="x")
    stages = [{"name": "base", "results": results}, {"name": "environment", "results": [environment]}]
    made = build(source={}, target={}, stages=stages, verification=None)
    assert [(one["name"], one["status"]) for one in made["stacks"]] == [
        ("demo-base", "UPDATE_COMPLETE"),
        ("demo-environment", "CREATE_COMPLETE"),
    ]
    page = render(made)
    assert "   demo-base (UPDATE_COMPLETE): VPC vpc-1, subnets subnet-1,subnet-2, role" in page
    assert "   demo-environment (CREATE_COMPLETE): environment demo" in page
    assert "stacks" not in "\n".join(render(report()))


def test_without_a_verification_parity_is_unknown_not_zero() -> None:
    made = build(source={"airflow_version": "2.10.3"}, target={}, stages=[], verification=None)
    assert made["parity"]["pools"] == {"source": None, "target": None, "equal": None}
    assert verdict(made, None)[0] == "open"


@pytest.mark.parametrize("width", [80, 120])
@pytest.mark.parametrize("ascii_only", [False, True])
def test_the_page_keeps_its_width(width: int, ascii_only: bool) -> None:
    lines = render(
        report(), width=width, environment="prod", path="build/rehearsal/report.json", equal=True, ascii_only=ascii_only
    )
    assert max(len(line) for line in lines) <= width
    assert not ascii_only or all(line.isascii() for line in lines)
    assert "\x1b" not in "".join(lines)
    assert "and 8 more" in " ".join(" ".join(lines).split())


def test_the_page_says_how_it_stands() -> None:
    assert render(report(), equal=True)[-1] == " Everything is equal, or listed with its reason."
    assert render(report(not_carried=[], findings=[]), equal=True)[-1] == " Everything is equal."
    assert render(report(), equal=False)[-1] == " Not equal: 1 error needs mending, see the findings."


def test_errors_are_shown_first() -> None:
    lines = render(report(), equal=False)
    places = [next(index for index, line in enumerate(lines) if word in line) for word in ("error: ", "warning: ")]
    assert places == sorted(places)


def test_it_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "build" / "report.json"
    write(path, report())
    assert json.loads(path.read_text())["parity"]["pools"]["equal"] == 6
    with pytest.raises(TypeError):
        write(path, {"not": object()})
    assert json.loads(path.read_text())["parity"]["pools"]["equal"] == 6
    (tmp_path / "file").write_text("")
    with pytest.raises(MigrationError, match="cannot write the report"):
        write(tmp_path / "file" / "report.json", {})


HISTORY = {
    "dag_run": {"source": 200_000, "target": 200_012, "equal": 200_000, "listed": 0},
    "task_instance": {"source": 1_000_000, "target": 1_000_000, "equal": 999_998, "listed": 2},
    "xcom": {"source": 500, "target": 499, "equal": 499, "listed": 0},
    "dataset": {"source": 0, "target": 0, "equal": 0, "listed": 0},
}


def test_history_has_its_own_rows_below_the_others() -> None:
    found = report(parity={**VERIFICATION["parity"], "history": HISTORY})
    assert found["parity"]["history"] == HISTORY
    page = render(found)
    start = page.index(" History, rows")
    assert page[start + 1 : start + 4] == [
        " DAG runs          200,000    200,012   200,000         –  ✓",
        " Task instances  1,000,000  1,000,000   999,998         2  ✓",
        " XComs                 500        499       499         –  ✗",
    ]


def test_a_missing_variable_is_no_tick_however_much_is_listed() -> None:
    counts = {"source": 41, "target": 40, "equal": 40}
    made = report(not_carried=[{"kind": "variable", "id": f"of_the_host_{n}", "reason": "r"} for n in range(3)])
    made["parity"]["variables"] = counts
    made["findings"] = [{"severity": "error", "where": "variable region", "what": "is missing", "mend": ""}]
    [row] = [line for line in render(made, equal=False) if line.startswith(" Variables")]
    assert row.endswith("✗")


def test_a_report_without_history_says_nothing_of_it() -> None:
    assert "history" not in report()["parity"]
    assert not [line for line in render(report()) if "History" in line]


def test_history_that_nobody_could_look_at_is_unknown() -> None:
    unknown = {"dag_run": {"source": 7, "target": None, "equal": None, "listed": 0}}
    page = render(report(parity={**VERIFICATION["parity"], "history": unknown}))
    assert page[page.index(" History, rows") + 1].split() == ["DAG", "runs", "7", "?", "?", "–"]
