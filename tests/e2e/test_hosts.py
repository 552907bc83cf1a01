# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One real Airflow, exported from hosts as users have them: the stand-ins of lab/README.md, "The source's hosts"."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.e2e

REPO = Path(__file__).parents[2]
PLAYBOOK = """\
- hosts: airflow_source
  gather_facts: false
  roles: [{role: mwaa.migration.export}]
"""


def command(*argv: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(argv, cwd=REPO, env={**os.environ, **(env or {})}, capture_output=True, text=True)


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """A lab with a real source whose hosts have an old python3; its exports."""
    folder = str(tmp_path_factory.mktemp("hosts") / "lab")
    cli = [sys.executable, "-m", "mwaa_lab.cli"]
    options = ["--engine", "stub", "--source", "2.10.3", "--source-python-host", "3.7"]
    done = command(*cli, "up", "--dir", folder, *options)
    try:
        assert done.returncode == 0, done.stderr
        lines = command(*cli, "env", "--dir", folder).stdout.splitlines()
        yield dict(shlex.split(line)[1].split("=", 1) for line in lines if line.startswith("export "))
    finally:
        command(*cli, "down", "--dir", folder)


def export(lab: dict[str, str], tmp_path: Path, hosts: str, *more: str) -> tuple[int, str]:
    (tmp_path / "export.yml").write_text(PLAYBOOK)
    inventories = [f"inventories/lab-hosts/{hosts}.yml", "inventories/lab/target.yml"]
    argv = ["ansible-playbook", *[word for place in inventories for word in ("-i", place)]]
    argv += ["-e", "@inventories/lab/group_vars/all.yml", *more, str(tmp_path / "export.yml")]
    done = command(*argv, env={**lab, "MWAA_LAB_ENVIRONMENT": f"from-{hosts}"})
    return done.returncode, " ".join((done.stdout + done.stderr).split())


@pytest.mark.parametrize("hosts", ["become", "old-python", "compose", "workers"])
def test_everything_is_exported_from(lab, tmp_path, hosts):
    code, output = export(lab, tmp_path, hosts)
    assert code == 0, output
    again, output = export(lab, tmp_path, hosts)
    assert (again, "changed=0" in output) == (0, True), output


def test_hosts_that_differ_are_named_or_listed(lab, tmp_path):
    code, output = export(lab, tmp_path, "drifted")
    assert code != 0
    assert "the hosts of this installation do not hold the same: lab_drifted" in output
    assert "alone holds dags/only_on_the_drifted_host.py" in output
    assert export(lab, tmp_path, "drifted", "-e", json.dumps({"export_on_difference": "list"}))[0] == 0
