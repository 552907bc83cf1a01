# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One lab with a real source for the whole file; every test goes on from where the last one left the environment."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent


@dataclass
class Play:
    """What a playbook run said and did."""

    returncode: int
    output: str
    recap: dict[str, dict[str, int]] = field(default_factory=dict)

    @property
    def changed(self) -> int:
        return sum(host["changed"] for host in self.recap.values())

    @property
    def message(self) -> str:
        """The failure, without Ansible's frame."""
        found = re.search(r'"msg": (".*")', self.output)
        return json.loads(found.group(1)) if found else self.output[-2000:]


class Lab:
    def __init__(self, folder: Path):
        self.folder = folder

    def command(self, *words: str, check: bool = True) -> str:
        done = subprocess.run(
            [str(BIN / "mwaa-lab"), *words, "--dir", str(self.folder)], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0 or not check, f"mwaa-lab {' '.join(words)}: {done.stdout}{done.stderr}"
        return done.stdout

    def up(self, *words: str) -> None:
        self.command("up", *words)

    def down(self) -> None:
        self.command("down")

    def status(self) -> dict:
        return json.loads(self.command("status", "--json"))

    def journal(self) -> list[dict]:
        return [json.loads(line) for line in self.command("journal", "--json").splitlines()]

    def environment(self) -> dict[str, str]:
        exports = re.findall(r"export (\w+)=(.*)", self.command("env"))
        values = {name: value.strip("'\"") for name, value in exports}
        return {
            **os.environ,
            **values,
            "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
            "ANSIBLE_COLLECTIONS_PATH": str(ROOT / ".cache/collections"),
            "ANSIBLE_LOCAL_TEMP": str(self.folder / "ansible-tmp"),
            "PATH": f"{BIN}:{os.environ['PATH']}",
        }

    def start(self, playbook: str, *words: str, env: dict[str, str] | None = None) -> subprocess.Popen:
        return subprocess.Popen(
            [str(BIN / "ansible-playbook"), "-i", "inventories/lab", f"playbooks/{playbook}", *words],
            cwd=ROOT,
            env={**self.environment(), **(env or {})},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def play(self, playbook: str, *words: str, env: dict[str, str] | None = None) -> Play:
        process = self.start(playbook, *words, env=env)
        output = process.communicate()[0]
        recap = {
            host: {name: int(number) for name, number in re.findall(r"(\w+)=(\d+)", counts)}
            for host, counts in re.findall(r"^(\S+)\s+: (ok=.*)$", output, re.MULTILINE)
        }
        return Play(process.returncode, output, recap)

    def source_python(self, script: str, **variables: str) -> str:
        """Run a script with the source Airflow's own Python, as an operator on that host would."""
        source = self.status()["source"]
        env = {**os.environ, "AIRFLOW_HOME": source["airflow_home"], "PYTHONPATH": "", **variables}
        env["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"] = source["database_url"]
        done = subprocess.run(
            [source["python"], "-c", script], env=env, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout


def kill_group(process: subprocess.Popen) -> None:
    """kill -9 of a playbook and of everything it started."""
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def wait_for(condition, seconds: float, what: str) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"{what}: not within {seconds:.0f} s"
        time.sleep(0.3)


@pytest.fixture(scope="session")
def lab(tmp_path_factory):
    lab = Lab(tmp_path_factory.mktemp("lab"))
    try:
        lab.up("--source", "2.10.3", "--seed-data", "small")
        yield lab
    finally:
        lab.command("down", check=False)
