# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whatever the night brings: a stage succeeds or says one sentence, and run again in calm it ends equal.

Each weather is drawn from its seed, so a failure is repeated by its number.
"""

from __future__ import annotations

import random
import time
from typing import Any

import pytest
from ansible_collections.mwaa.migration.plugins.module_utils._state import agent as agent_lane
from mwaa_lab.cli import SECRET_KEY

pytestmark = pytest.mark.lab

SECRET = "CANARY-weather-00c0ffee"
VARIABLES = {f"v{n}": {"value": f"value {n}", "description": None} for n in range(25)}
VARIABLES |= {f"password_{n}": {"value": f"{SECRET}{n}", "description": "d"} for n in range(5)}
CONNECTIONS = {
    f"c{n}": {"conn_type": "http", "host": f"h{n}", "password": f"{SECRET}{n}", "extra": '{"region": "eu"}'}
    for n in range(20)
}
POOLS = {f"p{n}": {"slots": n + 1, "description": "d", "include_deferred": False} for n in range(8)}
STATE = {"variables": VARIABLES, "connections": CONNECTIONS, "pools": POOLS}
DAGS = {f"dags/team{n % 3}/dag_{n}.py": f"# {n}\n".encode() * 50 for n in range(30)}

TROUBLE: tuple[dict[str, Any], ...] = (
    {"error": "ThrottlingException"},
    {"error": "InternalServerException"},
    {"error": "ServiceUnavailableException"},
    {"error": "SlowDown"},
    {"reset": True},
    {"reset": True, "after": True},
    {"truncate": True},
    {"error": "InternalServerException", "after": True},
    {"latency_ms": 300},
    {"error": "ExpiredTokenException"},
)
CALLS = (
    ("mwaa", "InvokeRestApi"),
    ("mwaa", "GetEnvironment"),
    ("s3", "PutObject"),
    ("s3", "GetObject"),
    ("s3", "ListObjectsV2"),
    ("s3", "*"),
    ("kms", "*"),
)


def weather(seed: int) -> list[dict[str, Any]]:
    """Six troubles somewhere in the first calls of a stage."""
    chance = random.Random(seed)  # noqa: S311
    rules = []
    for _number in range(6):
        service, operation = chance.choice(CALLS)
        trouble = chance.choice(TROUBLE)
        rules.append(
            {
                "service": service,
                "operation": operation,
                "skip": chance.randrange(25),
                "times": chance.randrange(1, 4),
                **trouble,
            }
        )
    return rules


def one_sentence(result: dict[str, Any]) -> None:
    """A failure is a sentence for people: no trace, no secret, nothing over several lines."""
    text = result["msg"]
    assert "Traceback" not in text and "\n" not in text and len(text) > 30, text
    assert "exception" not in result, result["exception"]
    assert SECRET not in str(result)


def stages(environment: str, bundle: str, bucket: str, lane: str) -> list[tuple[str, dict[str, Any]]]:
    upserts = [(f"mwaa_{kind[:-1]}_upsert", {"lane": lane}) for kind in ("pools", "connections", "variables")]
    into = [*upserts, ("mwaa_verify", {"wait_timeout": 120})]
    given = {"environment": environment, "bundle": bundle}
    return [("mwaa_dags_sync", {"source": bundle, "bucket": bucket}), *((name, {**given, **own}) for name, own in into)]


@pytest.mark.parametrize(
    ("version", "lane", "seed"), [("2.11.2", "auto", 0), ("2.11.2", "rest", 1), ("3.2.1", "auto", 3)]
)
def test_success_or_one_sentence_and_in_calm_equal(
    lab: Any,
    run_module: Any,
    make_bundle: Any,
    new_bucket: Any,
    mwaa: Any,
    base: Any,
    version: str,
    lane: str,
    seed: int,
    options: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    options["secret_key"] = SECRET_KEY  # the lab verifies presigned URLs, which the agent's answer goes to
    monkeypatch.setattr(agent_lane, "INTERVAL", 0.3)
    bundle, bucket = make_bundle(DAGS, **STATE), new_bucket()
    base.block(bucket)
    environment = base.environment(AirflowVersion=version, SourceBucketArn=f"arn:aws:s3:::{bucket}")
    for name, given in stages(environment, bundle, bucket, lane):
        lab.admin("POST", "faults", weather(seed))
        result = run_module(name, **given)
        lab.admin("POST", "faults", [])
        if result.get("failed"):
            one_sentence(result)
            result = run_module(name, **given)
        assert not result.get("failed"), result["msg"]
        again = run_module(name, **given)
        assert not again.get("failed"), again["msg"]
        assert not again["changed"], name
    time.sleep(1)  # of the ten calls a second that MWAA allows

    def shown(kind: str) -> Any:
        query = {"limit": 100}
        call = mwaa.invoke_rest_api(Name=environment, Method="GET", Path=f"/{kind}", QueryParameters=query)
        return call["RestApiResponse"]

    assert {row["key"]: row["value"] for row in shown("variables")["variables"]}.keys() == VARIABLES.keys()
    assert {row["connection_id"] for row in shown("connections")["connections"]} == CONNECTIONS.keys()
    assert {row["name"] for row in shown("pools")["pools"]} == {*POOLS, "default_pool"}
    listed = lab.client("s3").list_objects_v2(Bucket=bucket, Prefix="dags/team")
    assert {entry["Key"] for entry in listed["Contents"]} == DAGS.keys()
