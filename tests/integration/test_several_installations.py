# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Several installations into one environment, the whole rehearsal: exported over SSH, each into its own bundle.

In the lab one Airflow plays both: all of its state arrives from both, its DAG files from the first.
"""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

pytestmark = pytest.mark.lab

_FILE = Path(__file__).parents[1] / "e2e" / "conftest.py"
_SPEC = importlib.util.spec_from_file_location("lab_of_several", _FILE)
assert _SPEC and _SPEC.loader
_by_command = sys.modules["lab_of_several"] = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(_by_command)

SALES, FINANCE = "s3://{bucket}/sales", "s3://{bucket}/finance"


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Any]:
    lab = _by_command.Lab(tmp_path / "lab")
    try:
        lab.up("--engine", "stub", "--source", "2.10.3", "--seed-data", "small")
        yield lab
    finally:
        lab.command("down", check=False)


def inventory(bucket: str) -> dict[str, Any]:
    lab = _by_command.ROOT / "inventories/lab"
    ssh = yaml.safe_load((lab / "source.yml").read_text())["airflow_source"]["hosts"]["lab_source"]
    common = yaml.safe_load((lab / "group_vars/all.yml").read_text())
    del common["migration_bundle"]
    sales, finance = SALES.format(bucket=bucket), FINANCE.format(bucket=bucket)
    target = {
        "ansible_connection": "local",
        "ansible_python_interpreter": "{{ ansible_playbook_python }}",
        "migration_sources": [
            {"source": sales, "into": "sales"},
            {"source": finance, "into": "finance", "exclude": ["*"]},
        ],
    }
    return {
        "all": {"vars": common},
        "airflow_source": {
            "hosts": {
                "airflow_sales": {**ssh, "migration_bundle": sales},
                "airflow_finance": {**ssh, "migration_bundle": finance},
            }
        },
        "mwaa_target": {"children": {"mwaa_lab": {"hosts": {"lab_target": target}}}},
    }


def test_from_export_to_report(lab: Any, tmp_path: Path) -> None:
    env = lab.environment()
    path, report = tmp_path / "inventory.yml", tmp_path / "report.json"
    path.write_text(yaml.safe_dump(inventory(env["MWAA_LAB_BUNDLE_BUCKET"])))
    words = ("-i", str(path), "--limit", "airflow_sales,airflow_finance,lab_target", "-e", f"rehearsal_report={report}")
    play = lab.play("rehearse.yml", *words, "-e", "verify_wait_timeout=60")
    # stub environments only read DAG files: ids that a loop makes are not found there, and nothing else is wrong
    assert play.recap["airflow_sales"]["failed"] == play.recap["airflow_finance"]["failed"] == 0, play.output
    found = json.loads(report.read_text())
    stages = ["export", "base", "preflight", "publish", "environment", "import", "verify"]
    assert [stage["name"] for stage in found["stages"]] == stages
    counts = found["parity"]["variables"]
    assert counts["source"] and counts["source"] % 2 == 0  # of both
    assert any(item["reason"].startswith("not selected") for item in found["not_carried"] if item["kind"] == "dag")
    wrong = [finding["where"] for finding in found["findings"] if finding["severity"] == "error"]
    assert wrong == ["DAG load_eu", "DAG load_us"], play.output
