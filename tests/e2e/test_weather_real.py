# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whatever the night brings to a real environment: each stage succeeds or says one sentence, and in calm all is equal.

As tests/integration/modules/test_weather.py has it for stub environments, with what only a real one does: an update by
somebody else in the middle that takes the web server away, and writes that outlast the ten seconds of InvokeRestApi.
"""

from __future__ import annotations

import importlib
import json
import os
import random
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import pytest
from ansible.module_utils.testing import patch_module_args
from ansible_collections.mwaa.migration.plugins.module_utils._bundle import Bundle, open_store, state_path

sys.path.insert(0, str(Path(__file__).parent))
from test_state_lanes import Environment

pytestmark = pytest.mark.e2e

SECRET = "CANARY-weather-00c0ffee"
SLOW = {"error": "RestApiServerException", "airflow_status": 504, "after": True, "latency_ms": 10000}
TROUBLE: tuple[dict[str, Any], ...] = (
    {"error": "ThrottlingException"},
    {"error": "InternalServerException"},
    {"error": "ServiceUnavailableException"},
    {"reset": True},
    {"reset": True, "after": True},
    {"truncate": True},
    {"error": "InternalServerException", "after": True},
    {"error": "ExpiredTokenException"},
    SLOW,
)
CALLS = (("mwaa", "InvokeRestApi"), ("mwaa", "InvokeRestApi"), ("mwaa", "GetEnvironment"), ("s3", "*"), ("kms", "*"))


def state(generation: int) -> dict[str, dict[str, Any]]:
    """Of each generation other ids and, under the same ones, other values."""
    variables: dict[str, Any] = {f"g{generation}_v{n}": f"value {n}" for n in range(12)}
    variables |= {f"password_{n}": {"value": f"{SECRET}{generation}{n}", "description": "d"} for n in range(6)}
    connections = {
        f"{name}{n}": {
            "conn_type": "http",
            "host": f"h{generation}",
            "password": f"{SECRET}{generation}{n}",
            "extra": "{}",
        }
        for name in (f"g{generation}_c", "c")
        for n in range(8)
    }
    pools = {
        f"{name}{n}": {"slots": n + generation, "description": "d"}
        for name in (f"g{generation}_p", "p")
        for n in range(3)
    }
    return {"variables": variables, "connections": connections, "pools": pools}


def weather(seed: int, environment: str) -> list[dict[str, Any]]:
    """Five troubles somewhere in the first calls of a stage, and an update by somebody else in every other one."""
    chance = random.Random(seed)  # noqa: S311
    rules = []
    for _number in range(5):
        service, operation = chance.choice(CALLS)
        trouble = chance.choice(TROUBLE)
        if trouble is SLOW and operation != "InvokeRestApi":
            trouble = {"latency_ms": 2000}
        where = {
            "service": service,
            "operation": operation,
            "skip": chance.randrange(12),
            "times": chance.randrange(1, 3),
        }
        rules.append({**where, **trouble})
    if chance.random() < 0.5:
        hold = {"environment": environment, "seconds": chance.randrange(2, 6), "down": chance.random() < 0.5}
        rules.insert(0, {"service": "*", "operation": "*", "skip": chance.randrange(20), "times": 1, "hold": hold})
    return rules


class Troubled(Environment):
    def admin(self, what: str, document: Any) -> None:
        data = json.dumps(document).encode()
        with urlopen(Request(f"{os.environ['AWS_ENDPOINT_URL']}/_lab/{what}", data=data, method="POST")) as answer:
            answer.read()

    def bundle(self, generation: int) -> str:
        url = f"s3://{os.environ['MWAA_LAB_BUNDLE_BUCKET']}/g{generation}"
        store = open_store(url, self.aws)
        bundle = Bundle.create(store, self.aws, self.key, {"airflow_version": "2.10.3", "python_version": "3.11.9"})
        documents = {"inventory.json": b'{"dags": []}', "options.json": b"{}"}
        documents |= {f"dags/g{generation}/{n}.py": f"# {generation} {n}\n".encode() for n in range(10)}
        sealed = {state_path(kind): bundle.seal(json.dumps(rows).encode()) for kind, rows in state(generation).items()}
        for path, content in {**documents, **sealed}.items():
            bundle.files[path] = store.write(path, content)
        bundle.save()
        return url

    def settle(self) -> None:
        deadline = time.monotonic() + 60
        mwaa = self.aws.client("mwaa")
        while time.monotonic() < deadline:
            shown = mwaa.get_environment(Name=self.name)["Environment"]["Status"]
            if shown == "AVAILABLE":
                return
            time.sleep(0.5)
        raise AssertionError(shown)


@pytest.fixture(scope="module", params=["2.11.2", "3.2.1"])
def troubled(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Troubled]:
    with Troubled.running(tmp_path_factory.mktemp("weather") / "lab", request.param) as running:
        yield running


@pytest.fixture
def run_module(capsys: pytest.CaptureFixture[str]) -> Any:
    def run(name: str, **given: Any) -> dict[str, Any]:
        module = importlib.import_module(f"ansible_collections.mwaa.migration.plugins.modules.{name}")
        with patch_module_args(given), pytest.raises(SystemExit):
            module.main()
        return json.loads(capsys.readouterr().out)

    return run


def one_sentence(result: dict[str, Any]) -> None:
    text = result["msg"]
    assert "Traceback" not in text and "\n" not in text and len(text) > 30, text
    assert "exception" not in result, result["exception"]


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_success_or_one_sentence_and_in_calm_equal(troubled: Troubled, run_module: Any, seed: int) -> None:
    bundle, bucket = troubled.bundle(seed), os.environ["MWAA_LAB_BUCKET"]
    into = {"environment": troubled.name, "bundle": bundle}
    stages = [
        ("mwaa_dags_sync", {"source": bundle, "bucket": bucket}),
        *((f"mwaa_{kind}_upsert", into) for kind in ("pool", "connection", "variable")),
        ("mwaa_verify", {**into, "wait_timeout": 200}),
    ]
    said = []
    for number, (name, given) in enumerate(stages):
        troubled.admin("faults", weather(100 * seed + number, troubled.name))
        result = run_module(name, **given)
        troubled.admin("faults", [])
        said.append(f"{name}: {result['msg'] if result.get('failed') else 'success'}")
        troubled.settle()
        if result.get("failed"):
            one_sentence(result)
            result = run_module(name, **given)
        assert not result.get("failed"), result["msg"]
        assert SECRET not in str(result)
        again = run_module(name, **given)
        assert not again.get("failed"), again["msg"]
        assert not again["changed"], name
    print(*said, sep="\n")
    held, wanted = troubled.holds(), state(seed)
    for kind, rows in wanted.items():
        for identifier, row in rows.items():
            fields = row if isinstance(row, dict) else {"value": row}
            assert held[kind][identifier].items() >= fields.items(), identifier
    for earlier in range(1, seed):  # and nothing of what was there has gone
        assert all(state(earlier)[kind].keys() <= held[kind].keys() for kind in wanted)
    assert held["pools"].keys() - {"default_pool"} == {
        name for one in range(1, seed + 1) for name in state(one)["pools"]
    }
    assert not [line for line in held["log"] if SECRET in line]
