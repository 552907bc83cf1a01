# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What benchmarks share: a lab of their own, modules in processes of their own, turns, medians, a page of results."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any, Callable
from urllib.request import Request, urlopen

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "performance.md"

_RUN = """
import importlib, json, sys
from ansible.module_utils.testing import patch_module_args
module = importlib.import_module(sys.argv[1])
with patch_module_args(json.load(sys.stdin)):
    module.main()
"""


@dataclass
class Lab:
    """A lab with stub environments; `environment` leads every AWS client to it."""

    folder: Path
    environment: dict[str, str]

    def slow_down(self, milliseconds: int, services: str = "s3") -> None:
        """Every call of the service takes this much longer."""
        rules = [{"service": services, "times": None, "latency_ms": milliseconds}] if milliseconds else []
        request = Request(  # noqa: S310 - the lab's own address
            f"{self.environment['AWS_ENDPOINT_URL']}/_lab/faults", json.dumps(rules).encode(), method="POST"
        )
        with urlopen(request) as answer:  # noqa: S310
            answer.read()

    def client(self, service: str) -> Any:
        import boto3
        from botocore.config import Config

        names = {"aws_access_key_id": "AWS_ACCESS_KEY_ID", "aws_secret_access_key": "AWS_SECRET_ACCESS_KEY"}
        return boto3.session.Session().client(
            service,
            endpoint_url=self.environment["AWS_ENDPOINT_URL"],
            region_name="us-east-1",
            config=Config(inject_host_prefix=False),
            **{option: self.environment[name] for option, name in names.items()},
        )

    def requests(self, since: float) -> int:
        """How many AWS calls users made since then."""
        lines = (self.folder / "journal.jsonl").read_text().splitlines()
        return sum(1 for line in map(json.loads, lines) if line["time"] >= since and line["caller"] == "user")

    def run(self, module: str, **arguments: Any) -> tuple[float, dict[str, Any]]:
        """(seconds of the module's process, what it returned). module: such as community.aws.s3_sync."""
        namespace, collection, name = module.split(".")
        start = time.monotonic()
        done = subprocess.run(
            [sys.executable, "-c", _RUN, f"ansible_collections.{namespace}.{collection}.plugins.modules.{name}"],
            input=json.dumps(arguments),
            text=True,
            capture_output=True,
            env=self.environment,
            check=False,
        )
        seconds = time.monotonic() - start
        try:
            result = json.loads(done.stdout)
        except ValueError:
            raise SystemExit(f"{module} returned no JSON:\n{done.stdout}\n{done.stderr}") from None
        if result.get("failed"):
            raise SystemExit(f"{module} failed: {result.get('msg')}")
        return seconds, result


@contextlib.contextmanager
def lab(engine: str = "stub") -> Iterator[Lab]:
    with tempfile.TemporaryDirectory(prefix="mwaa-benchmark-") as place:
        folder = Path(place) / "lab"
        command = [str(Path(sys.executable).parent / "mwaa-lab")]
        subprocess.run(
            [*command, "up", "--dir", str(folder), "--source", "none", "--engine", engine], check=True, timeout=300
        )
        try:
            said = subprocess.run(
                [*command, "env", "--dir", str(folder)], check=True, capture_output=True, text=True
            ).stdout
            given = dict(re.findall(r"^export ([A-Z_]+)='?(.*?)'?$", said, re.MULTILINE))
            gone = re.findall(r"^unset (.+)$", said, re.MULTILINE)
            environment = {**os.environ, **given}
            for name in " ".join(gone).split():
                environment.pop(name, None)
            yield Lab(folder, environment)
        finally:
            subprocess.run([*command, "down", "--dir", str(folder)], check=False)


@dataclass
class Runs:
    """Seconds of each program, in the order of its turns."""

    seconds: dict[str, list[float]] = field(default_factory=dict)

    def of(self, program: str) -> float:
        return median(self.seconds[program])

    def spread(self, program: str) -> str:
        runs = self.seconds[program]
        return f"{self.of(program):.2f} s ({min(runs):.2f} to {max(runs):.2f})"

    def ratio(self, slow: str, fast: str) -> float:
        return self.of(slow) / self.of(fast)


def in_turns(programs: dict[str, Callable[[int], float]], rounds: int) -> Runs:
    """Run all programs `rounds` times, one after another, the first one changing: a machine that gets slower meanwhile
    is slower for all. Programs get the round's number and return seconds.
    """
    runs = Runs({name: [] for name in programs})
    names = list(programs)
    for number in range(rounds):
        for name in names if number % 2 == 0 else reversed(names):
            seconds = programs[name](number)
            runs.seconds[name].append(seconds)
            print(f"round {number + 1}: {name} {seconds:.2f} s", flush=True)
    return runs


def machine() -> str:
    """The machine in words, with what ran on it."""
    import ansible.release
    import botocore

    model = ""
    with contextlib.suppress(OSError):
        found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
        model = f" ({found.group(1).strip()})" if found else ""
    load = f", load {os.getloadavg()[0]:.1f} at the end" if hasattr(os, "getloadavg") else ""
    return (
        f"{os.cpu_count()} cores{model}, {platform.system()} {platform.machine()}, Python {platform.python_version()},"
        f" ansible-core {ansible.release.__version__}, botocore {botocore.__version__}{load}"
    )


def publish(part: str, text: str) -> None:
    """Put the results into the page's section of this name, and leave the others as they are."""
    begin, end = f"<!-- {part} -->", f"<!-- end of {part} -->"
    page = PAGE.read_text() if PAGE.exists() else "# Performance\n\nWritten by the programs in `tests/benchmarks`.\n"
    section = f"{begin}\n{text.strip()}\n{end}"
    if begin in page:
        page = page[: page.index(begin)] + section + page[page.index(end) + len(end) :]
    else:
        page = f"{page.rstrip()}\n\n{section}\n"
    PAGE.write_text(page)
