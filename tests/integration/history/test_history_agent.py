# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The agent with a real Airflow: as a host runs it, with pieces put by URL and by the connection."""

from __future__ import annotations

import base64
import subprocess
import threading
import zlib
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.mwaa.migration.plugins.module_utils import _source
from import_lane import Databases
from small_airflow import KEY, SCHEMAS, Export, SmallAirflow
from test_history_export import SOURCES, Source, digests, fill, same_rows

# what a bare `import airflow` with its models needs is not ours
BARE = "import airflow, airflow.models, resource; print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"


class Store(BaseHTTPRequestHandler):
    objects: dict[str, bytes] = {}

    def do_PUT(self) -> None:
        self.objects[self.path] = self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("x-amz-version-id", f"v-{len(self.objects)}")
        self.end_headers()

    def log_message(self, *_arguments: Any) -> None:
        """Tests are quiet."""


@pytest.fixture
def store() -> Iterator[str]:
    Store.objects = {}
    server = ThreadingHTTPServer(("127.0.0.1", 0), Store)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


def agent_of(source: Source, home: Path) -> _source.Agent:
    """The agent as it is carried to a host whose Airflow has this home."""
    home.mkdir()
    url = source.database.server.url(source.database.name)
    (home / "airflow.cfg").write_text(
        "".join(f"[{section}]\nsql_alchemy_conn = {url}\nload_examples = False\n" for section in ("core", "database"))
    )
    environment = {"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", "HOME": str(home)}

    def run(command: str, stdin: bytes) -> tuple[int, str, str]:
        done = subprocess.run(command, shell=True, input=stdin, capture_output=True, env=environment)
        return done.returncode, done.stdout.decode(), done.stderr.decode()

    return _source.Agent(run, _source.Source(str(source.python), str(home)))


@pytest.mark.e2e
@pytest.mark.parametrize("version", SOURCES)
def test_a_host_exports_by_url(databases: Databases, store: str, tmp_path: Path, version: str) -> None:
    airflow = SmallAirflow(version)
    fill(airflow)
    here = Export(airflow.engine(), target=SCHEMAS["2.11.2"])
    source = Source(databases, version, own=True)
    source.export(tmp_path / "rows", same_rows(airflow), texts=False)
    agent = agent_of(source, tmp_path / "home")
    plan = agent.call({"op": "plan_history", "target": SCHEMAS["2.11.2"], "part_bytes": 1 << 16})
    assert plan["airflow_version"] == version
    assert plan["dialect"] == "postgresql" and plan["losses"] == here.plan["losses"]
    puts = [{"path": f"history/{number}", "url": f"{store}/{number}?signature"} for number in range(300)]
    answer = agent.call(
        {
            "op": "export_history",
            "parts": plan["parts"],
            "scope": plan["scope"],
            "puts": puts,
            "digest_key": base64.b64encode(KEY).decode(),
        }
    )
    assert answer["left"] == answer["failed"] == []
    assert digests(answer) == digests({"parts": here.results})
    urls = {put["path"]: put["url"].partition("127.0.0.1")[2].partition("/")[2] for put in puts}
    for part in answer["parts"]:
        bodies = [Store.objects["/" + urls[entry["path"]]] for entry in part["objects"]]
        assert b"".join(zlib.decompress(body, 31) for body in bodies).count(b"\n") == part["rows"]
        assert all(entry["version_id"].startswith("v-") for entry in part["objects"])
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "AIRFLOW_HOME": str(tmp_path / "home")}
    bare = subprocess.run([source.python, "-c", BARE], capture_output=True, env=environment, check=True)
    assert answer["peak_kb"] - int(bare.stdout.split()[-1]) < 64 << 10
    assert list((tmp_path / "home").glob("**/*history*")) == []


@pytest.mark.e2e
def test_a_host_that_reaches_no_s3_answers_with_the_pieces(databases: Databases, tmp_path: Path) -> None:
    airflow = SmallAirflow("2.10.3")
    fill(airflow)
    here = Export(airflow.engine())
    source = Source(databases, "2.10.3", own=True)
    source.export(tmp_path / "rows", same_rows(airflow), texts=False)
    agent = agent_of(source, tmp_path / "home")
    plan = agent.call({"op": "plan_history"})
    request = {"op": "export_history", "scope": plan["scope"], "digest_key": base64.b64encode(KEY).decode()}
    answer = agent.call({**request, "parts": plan["parts"]})
    assert digests(answer) == digests({"parts": here.results})
    for part in answer["parts"]:
        lines = b"".join(zlib.decompress(base64.b64decode(entry["data"]), 31) for entry in part["objects"])
        assert sorted(lines.decode().split("\n")) == sorted(here.texts[part["table"]].split("\n"))
