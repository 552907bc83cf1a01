# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""startup.sh: what a shell makes of it is what the source had, and nothing else is run."""

from __future__ import annotations

import subprocess
from typing import Any

import pytest
from ansible_collections.mwaa.migration.plugins.module_utils._startup import decide


def entry(name: str, value: str, kind: str = "plain") -> dict[str, Any]:
    given = {"origin": "unit airflow.service", "ids": ["x"], "hides": [], "secret": False, "read_by": ["dags/a.py"]}
    return {"name": name, "kind": kind, "value": value, **given}


@pytest.mark.parametrize("value", ["plain", "two words", "it's $HOME `id` \\ \"", "two\nlines", "", "ü€"])
def test_a_shell_reads_back_what_was_set(value: str) -> None:
    script = decide([entry("PLACE", value)], "startup_script", "2.11.2").script
    assert script is not None
    done = subprocess.run(["sh", "-c", script + 'printf %s "$PLACE"'], capture_output=True, text=True, check=True)
    assert done.stdout == value


@pytest.mark.parametrize("kind", ["plain", "variable"])
@pytest.mark.parametrize("name", ["spring.profile", "MY-FLAG", "A;touch /tmp/x;B", "A\ntouch /tmp/x", "1A", "A "])
def test_a_name_that_no_shell_takes_is_listed_and_never_a_line(name: str, kind: str) -> None:
    decision = decide([entry(name, "x", kind), entry("GOOD", "y")], "startup_script", "2.11.2")
    assert decision.script is not None
    assert decision.script.splitlines()[2:] == ["export GOOD=y"]
    assert [one["id"] for one in decision.not_carried] == [name]


@pytest.mark.parametrize("name", ["UID", "PPID", "SHELLOPTS", "BASH_ENV", "IFS", "PATH"])
def test_what_is_the_shells_own_would_break_the_script_and_stays(name: str) -> None:
    decision = decide([entry(name, "1000")], "startup_script", "2.11.2")
    assert decision.script is None
    assert "describes the source's host" in decision.not_carried[0]["reason"]
