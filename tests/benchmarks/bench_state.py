# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The three upserts beside a loop over Airflow's CLI and a loop of Ansible tasks: 1,000 connections, 2,000 variables,
100 pools. The loops are run for 20 items and scaled, and the page says so.

python tests/benchmarks/bench_state.py [--version 3.2.1] [--engine airflow] [--lane auto] [--publish]
"""

from __future__ import annotations

import argparse
import json
import secrets
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import harness
from ansible_collections.mwaa.migration.plugins.module_utils._state import secrets as secrets_manager

MEASURED = 20
NAME = "state"
MODULES = {
    "connections": "mwaa.migration.mwaa_connection_upsert",
    "variables": "mwaa.migration.mwaa_variable_upsert",
    "pools": "mwaa.migration.mwaa_pool_upsert",
}
# docs.aws.amazon.com/secretsmanager/latest/userguide/reference_limits.html
RATES = (
    "Secrets Manager takes 50 CreateSecret a second of an account in a Region, 50 of PutSecretValue, UpdateSecret and"
    " their like together, 100 BatchGetSecretValue and 100 ListSecrets, none of them adjustable; the lab throttles at"
    f" the same rates. The module begins no more than {secrets_manager.WRITES_PER_SECOND:.0f} writes and"
    f" {secrets_manager.READS_PER_SECOND:.0f} reads a second, and reads {secrets_manager.BATCH} secrets a call; the"
    " other calls look at what the environment has and at what Airflow's database has of these."
)
LOOP = """
- hosts: localhost
  gather_facts: false
  tasks:
    - mwaa.migration.mwaa_rest_call:
        environment: {name}
        region: us-east-1
        method: POST
        path: /connections
        body: "{{{{ item }}}}"
      loop: {rows}
      no_log: true
"""


def items(numbers: argparse.Namespace) -> dict[str, list[dict[str, Any]]]:
    """Every connection has a password; one variable of ten has a key that Airflow masks."""
    return {
        "connections": [
            {
                "conn_id": f"warehouse_{number}",
                "conn_type": "postgres",
                "host": f"db{number}.internal",
                "port": 5432,
                "login": "etl",
                "password": f"CANARY-password-{secrets.token_hex(4)}",
                "extra": json.dumps({"sslmode": "require", "token": secrets.token_hex(8)}),
            }
            for number in range(numbers.connections)
        ],
        "variables": [
            {"key": f"team_{number}_{'password' if number % 10 == 0 else 'setting'}", "value": f"value {number} " * 8}
            for number in range(numbers.variables)
        ],
        "pools": [{"name": f"pool_{number}", "slots": number + 1} for number in range(numbers.pools)],
    }


def environment(lab: harness.Lab, version: str, lane: str) -> None:
    given, mwaa = lab.environment, lab.client("mwaa")
    asked_first = secrets_manager.backend_options("airflow", version) if lane == "secrets_manager" else {}
    mwaa.create_environment(
        Name=NAME,
        AirflowVersion=version,
        ExecutionRoleArn=given["MWAA_LAB_ROLE_ARN"],
        SourceBucketArn=f"arn:aws:s3:::{given['MWAA_LAB_BUCKET']}",
        DagS3Path="dags",
        WebserverAccessMode="PUBLIC_ONLY",
        AirflowConfigurationOptions=asked_first,
        NetworkConfiguration={
            "SubnetIds": given["MWAA_LAB_SUBNET_IDS"].split(","),
            "SecurityGroupIds": given["MWAA_LAB_SECURITY_GROUP_IDS"].split(",")[:1],
        },
    )
    while (status := mwaa.get_environment(Name=NAME)["Environment"]["Status"]) == "CREATING":
        time.sleep(1)
    assert status == "AVAILABLE", status


def cli_loop(lab: harness.Lab, rows: list[dict[str, Any]]) -> float:
    """Seconds of one `connections add` each, one after another, each with a token of its own, as scripts do it."""
    begin = time.monotonic()
    for row in rows:
        lab.run(
            "mwaa.migration.mwaa_cli_exec",
            environment=NAME,
            region="us-east-1",
            ca_path=lab.environment["MWAA_LAB_CA"],
            command=f"connections add cli_{row['conn_id']} --conn-type {row['conn_type']} --conn-host {row['host']}",
        )
    return time.monotonic() - begin


def ansible_loop(lab: harness.Lab, rows: list[dict[str, Any]]) -> float:
    """Seconds of one task that loops over rows, the playbook's own start taken off."""
    with tempfile.TemporaryDirectory(prefix="mwaa-benchmark-") as place:
        took = []
        for number in (1, len(rows) + 1):
            bodies = [
                {"connection_id": f"loop_{number}_{index}_{row['conn_id']}"}
                | {name: row[name] for name in ("conn_type", "host", "password")}
                for index, row in enumerate((rows * 2)[:number])
            ]
            playbook = Path(place) / f"{number}.yml"
            playbook.write_text(LOOP.format(name=NAME, rows=json.dumps(bodies)))
            begin = time.monotonic()
            command = [str(Path(sys.executable).parent / "ansible-playbook"), str(playbook)]
            done = subprocess.run(command, env=lab.environment, capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stdout[-2000:]
            took.append(time.monotonic() - begin)
    return took[1] - took[0]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--version", default="3.2.1")
    parser.add_argument("--engine", default="airflow", choices=["airflow", "stub"])
    parser.add_argument("--lane", default="auto")
    parser.add_argument("--connections", type=int, default=1000)
    parser.add_argument("--variables", type=int, default=2000)
    parser.add_argument("--pools", type=int, default=100)
    parser.add_argument("--publish", action="store_true", help="write docs/performance.md")
    options = parser.parse_args()
    with harness.lab(options.engine) as lab:
        environment(lab, options.version, options.lane)
        text = measure(lab, options)
    print(text)
    if options.publish:
        lane = "" if options.lane == "auto" else f" {options.lane}"
        harness.publish(f"State {options.version}{lane}", text)


def measure(lab: harness.Lab, options: argparse.Namespace) -> str:
    wanted, rows, seconds = items(options), [], 0.0
    common = {"environment": NAME, "region": "us-east-1", "lane": options.lane}
    key = {"kms_key_id": lab.environment["MWAA_LAB_KMS_KEY_ID"]}
    if options.version.startswith("2"):  # the agent's DAG is parsed once, and MWAA's minutes for it are not ours
        lab.run(MODULES["variables"], **common, **key, variables=[{"key": "first", "value": "x"}])
    for kind, module in MODULES.items():
        before = time.time()
        took, result = lab.run(module, **common, **key, **{kind: wanted[kind]})
        calls = lab.requests(before)
        assert result["counts"] == {"created": len(wanted[kind])}, result["counts"]
        again, repeat = lab.run(module, **common, **key, **{kind: wanted[kind]})
        assert not repeat["changed"], repeat["counts"]
        seconds += took
        rows.append(
            f"| {len(wanted[kind]):,} {kind} | {result['lane']} | {took:.1f} s | {calls:,} | {calls / took:.1f} |"
            f" {again:.1f} s |"
        )
    some = wanted["connections"][:MEASURED]
    total = sum(map(len, wanted.values()))
    loops = {
        "a loop over the CLI": cli_loop(lab, some) / len(some) * total,
        "a loop of Ansible tasks (`mwaa_rest_call`)": ansible_loop(lab, some) / len(some) * total,
    }
    loop_rows = [f"| {name} | {took / 60:.1f} min (scaled) | {took / seconds:.1f} |" for name, took in loops.items()]
    return "\n".join(
        [
            f"## Variables, connections and pools into Airflow {options.version}"
            + ("" if options.lane == "auto" else f" by `{options.lane}`"),
            "",
            f"One task each, {'a real Airflow' if options.engine == 'airflow' else 'the stub engine'} in the lab, lane"
            f" `{options.lane}`. Every connection has a password and a token in `extra`, one variable of ten a key that"
            " Airflow masks. Seconds are of the module's whole process; AWS calls are counted by the lab.",
            "",
            "| | lane | first | AWS calls | calls a second | repeat, nothing changed |",
            "|---|---|---|---|---|---|",
            *rows,
            f"| **all of them** | | **{seconds:.1f} s** | | | |",
            "",
            *([RATES, ""] if options.lane == "secrets_manager" else []),
            f"Beside it, {MEASURED} calls measured and scaled to {total:,}:",
            "",
            "| | all of them | ratio |",
            "|---|---|---|",
            *loop_rows,
            "",
            f"Machine: {harness.machine()}. The environment runs on the same cores.",
            "",
            f"`python tests/benchmarks/bench_state.py --version {options.version} --engine {options.engine}"
            f" --lane {options.lane} --publish`",
        ]
    )


if __name__ == "__main__":
    main()
