# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Everything that a lab starts can be found and ended again."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from mwaa_lab import processes
from mwaa_lab.labdir import LabDir, LabError, write_json

STUBBORN = (
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('ready', flush=True); time.sleep(60)"
)


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[LabDir]:
    made = LabDir(tmp_path / "lab")
    made.create({})
    yield made
    processes.stop_all(made, grace=0.2)
    made.remove()


def start(lab: LabDir, name: str, code: str) -> subprocess.Popen[bytes]:
    return processes.spawn(
        lab, name, [sys.executable, "-c", code], lab.environment(PYTHONPATH=""), lab.logs / f"{name}.log"
    )


def until(condition: object, seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.02)


def test_a_process_is_remembered_until_it_is_stopped(lab: LabDir) -> None:
    process = start(lab, "sleeper", "import time; time.sleep(60)")

    found = processes.alive(lab, "sleeper")
    assert found is not None and found.pid == process.pid
    processes.stop_named(lab, "sleeper")

    assert process.wait(5) == -signal.SIGTERM
    assert processes.records(lab) == []


def test_a_pid_that_somebody_else_has_now_is_not_ours(lab: LabDir) -> None:
    stranger = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], start_new_session=True)
    try:
        long_ago = processes.Record("old", stranger.pid, 1, processes._boot_id())
        write_json(lab.run / f"old.{stranger.pid}.json", long_ago.__dict__)

        assert not long_ago.alive
        assert processes.members([long_ago]) == []
        assert processes.stop_all(lab) == 0
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


def test_what_ignores_sigterm_is_killed(lab: LabDir) -> None:
    process = start(lab, "stubborn", STUBBORN)
    until(lambda: "ready" in (lab.logs / "stubborn.log").read_text())

    assert processes.stop_all(lab, grace=0.3) == 1
    assert process.wait(5) == -signal.SIGKILL


def test_what_hangs_is_ended_too(lab: LabDir) -> None:
    process = start(lab, "stopped", "import time; time.sleep(60)")
    os.kill(process.pid, signal.SIGSTOP)
    until(lambda: processes.stat(process.pid).state == "T")  # type: ignore[union-attr]

    processes.stop_all(lab, grace=1.0)

    assert process.wait(5) in (-signal.SIGTERM, -signal.SIGKILL)


def test_children_are_ended_when_their_parent_is_long_dead(lab: LabDir) -> None:
    """Forks stay in the session; programs that leave it still carry the marker."""
    family = (
        "import os, subprocess, sys, time\n"
        "if os.fork() == 0: time.sleep(60)\n"
        "subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'], start_new_session=True)\n"
        "print('ready', flush=True); time.sleep(60)"
    )
    process = start(lab, "parent", family)
    until(lambda: "ready" in (lab.logs / "parent.log").read_text())
    process.kill()
    process.wait()

    left = processes.members(processes.records(lab), lab.id)
    assert len(left) == 2
    processes.stop_all(lab, grace=2.0)

    assert processes.members(processes.records(lab), lab.id) == []


def test_another_lab_is_left_alone(lab: LabDir, tmp_path: Path) -> None:
    other = LabDir(tmp_path / "other")
    other.create({})
    try:
        process = start(other, "sleeper", "import time; time.sleep(60)")
        processes.stop_all(lab)
        assert process.poll() is None
    finally:
        processes.stop_all(other)
        other.remove()


def test_a_supervised_process_comes_back_and_stays_away_once_stopped(lab: LabDir) -> None:
    supervisor = processes.Supervisor(lab)
    argv = [sys.executable, "-c", "import time; time.sleep(60)"]
    supervisor.start(processes.Watched("kept.one", argv, lab.environment(PYTHONPATH=""), lab.logs / "kept.log"))
    first = processes.alive(lab, "kept.one")
    assert first is not None

    os.kill(first.pid, signal.SIGKILL)
    until(lambda: (found := processes.alive(lab, "kept.one")) is not None and found.pid != first.pid)
    assert "kept.one" in (lab.logs / "supervisor.log").read_text()

    supervisor.stop("kept.", grace=2.0)
    assert processes.alive(lab, "kept.one") is None
    assert supervisor.failed("kept.") is None


def test_a_folder_with_other_things_in_it_is_refused(tmp_path: Path) -> None:
    (tmp_path / "precious.txt").write_text("mine")

    with pytest.raises(LabError, match="not empty and not a lab"):
        LabDir(tmp_path).create({})

    LabDir(tmp_path).remove()
    assert (tmp_path / "precious.txt").read_text() == "mine"


def test_a_lab_removes_its_folder_and_its_temporary_one(tmp_path: Path) -> None:
    lab = LabDir(tmp_path / "lab")
    lab.create({})
    temp = lab.temp
    assert temp.is_dir()

    lab.remove()

    assert not lab.path.exists() and not temp.exists()


def test_processes_get_nothing_of_the_users_environment(lab: LabDir, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_PROFILE", "production")
    monkeypatch.setenv("AIRFLOW_HOME", "/home/me/airflow")

    environ = lab.environment()

    assert "AWS_PROFILE" not in environ and "AIRFLOW_HOME" not in environ


def test_a_lab_whose_folder_is_deleted_ends_by_itself(lab: LabDir) -> None:
    keeper = (
        "import sys, time; from mwaa_lab import processes; from mwaa_lab.labdir import LabDir\n"
        f"processes.end_with_folder(LabDir({str(lab.path)!r}), 0.05); print('ready', flush=True); time.sleep(60)"
    )
    others, keepers = start(lab, "other", "import time; time.sleep(60)"), start(lab, "keeper", keeper)
    temp = lab.temp

    until(lambda: "ready" in (lab.logs / "keeper.log").read_text())
    shutil.rmtree(lab.path)

    assert keepers.wait(20) == 0 and others.wait(20) != 0
    assert not temp.exists()
    lab.create({})
