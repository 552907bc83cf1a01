# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""migration_report in a playbook: a page on the screen, a file, and nothing of either in check mode's way."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.lab

PLAY = """
- hosts: localhost
  gather_facts: false
  tasks:
    - mwaa.migration.migration_report:
        path: "{{ path }}"
        environment: demo
        stages:
          - name: export
            results: "{{ [{'changed': true, 'duration': 4.5}, left_out_by_tags | default({})] }}"
        verification:
          equal: true
          source: {airflow_version: 2.10.3}
          target: {airflow_version: 2.11.2}
          parity:
            variables: {source: 12, target: 12, equal: 12}
            connections: {source: 8, target: 8, equal: 8}
            pools: {source: 3, target: 3, equal: 3}
            dags: {source: 31, target: 31, equal: 31}
          not_carried: []
          findings: []
      register: report
    - ansible.builtin.assert:
        that: report.equal
"""


def play(folder: Path, *words: str) -> str:
    (folder / "play.yml").write_text(PLAY)
    done = subprocess.run(
        [
            str(Path(sys.executable).parent / "ansible-playbook"),
            "play.yml",
            "-e",
            f"path={folder}/out/report.json",
            *words,
        ],
        cwd=folder,
        env={**os.environ, "LC_ALL": "C.UTF-8", "ANSIBLE_LOCALHOST_WARNING": "false", "ANSIBLE_HOME": str(folder)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_page_is_on_the_screen_and_the_document_in_the_file(tmp_path: Path) -> None:
    output = play(tmp_path)
    assert " Airflow 2.10.3  →  demo on MWAA 2.11.2\n" in output
    assert " Variables          12        12        12         –  ✓\n" in output
    assert " Everything is equal.\n" in output and "\x1b" not in output
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["stages"] == [{"name": "export", "seconds": 4.5, "changed": True}]


def test_check_mode_shows_the_page_and_writes_no_file(tmp_path: Path) -> None:
    assert " Everything is equal.\n" in play(tmp_path, "--check")
    assert not (tmp_path / "out").exists()
