# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""mwaa_dags_sync beside community.aws.s3_sync: 2,000 DAG files, 20 ms latency a call.

python tests/benchmarks/bench_dags_sync.py [--files 2000] [--latency 20] [--rounds 3] [--publish]
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import harness

OURS, THEIRS = "mwaa_dags_sync", "s3_sync"
TASK = """from datetime import datetime
from airflow import DAG
from airflow.operators.bash import BashOperator

with DAG("dag_{number:04}", start_date=datetime(2024, 1, 1), schedule="@daily", catchup=False) as dag:
    BashOperator(task_id="t", bash_command="echo {number}")
"""


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--files", type=int, default=2000)
    parser.add_argument("--latency", type=int, default=20, help="milliseconds that each call takes longer")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--publish", action="store_true", help="write docs/performance.md")
    options = parser.parse_args()
    with harness.lab() as lab, tempfile.TemporaryDirectory(prefix="mwaa-benchmark-") as place:
        folder = Path(place)
        for number in range(options.files):
            path = folder / f"team_{number % 20:02}" / f"dag_{number:04}.py"
            path.parent.mkdir(exist_ok=True)
            path.write_text(TASK.format(number=number))
        text = measure(lab, folder, options)
    print(text)
    if options.publish:
        harness.publish("DAG files", text)


def measure(lab: harness.Lab, folder: Path, options: argparse.Namespace) -> str:
    s3 = lab.client("s3")
    requests: dict[str, int] = {}
    inside: list[float] = []

    def bucket(program: str, number: int) -> str:
        name = f"{program.replace('_', '-')}-{number}"
        s3.create_bucket(Bucket=name)
        s3.put_bucket_versioning(Bucket=name, VersioningConfiguration={"Status": "Enabled"})
        return name

    def run(program: str, number: int, kind: str) -> float:
        name = f"{program.replace('_', '-')}-{number}"
        arguments: dict[str, Any] = {
            OURS: {"source": str(folder), "bucket": name, "dag_s3_path": "dags"},
            THEIRS: {"file_root": str(folder), "bucket": name, "key_prefix": "dags"},
        }[program]
        module = {OURS: "mwaa.migration.mwaa_dags_sync", THEIRS: "community.aws.s3_sync"}[program]
        before = time.time()
        seconds, result = lab.run(module, region="us-east-1", **arguments)
        requests[f"{kind} {program}"] = lab.requests(before)
        if program == OURS and kind == "repeat":
            inside.append(result["duration"])
            assert not result["changed"], "the repeat changed something"
        return seconds

    def first(program: str) -> Any:
        def turn(number: int) -> float:
            lab.slow_down(0)
            bucket(program, number)
            lab.slow_down(options.latency)
            seconds = run(program, number, "first")
            listed = sum(
                page["KeyCount"]
                for page in s3.get_paginator("list_objects_v2").paginate(
                    Bucket=f"{program.replace('_', '-')}-{number}", Prefix="dags/"
                )
            )
            assert listed == options.files, f"{program} published {listed} of {options.files} files"
            return seconds

        return turn

    def repeat(program: str) -> Any:
        return lambda number: run(program, number, "repeat")

    print("first upload, each into a bucket of its own", flush=True)
    uploads = harness.in_turns({program: first(program) for program in (OURS, THEIRS)}, options.rounds)
    print("repeat without a change", flush=True)
    repeats = harness.in_turns({program: repeat(program) for program in (OURS, THEIRS)}, options.rounds)
    rows = [
        "| | `mwaa_dags_sync` | `community.aws.s3_sync` | ratio |",
        "|---|---|---|---|",
    ]
    for title, kind, runs in (("first upload", "first", uploads), ("repeat, nothing changed", "repeat", repeats)):
        rows.append(f"| {title} | {runs.spread(OURS)} | {runs.spread(THEIRS)} | {runs.ratio(THEIRS, OURS):.1f} |")
        rows.append(f"| AWS calls of it | {requests[f'{kind} {OURS}']:,} | {requests[f'{kind} {THEIRS}']:,} | |")
    return "\n".join(
        [
            "## DAG files",
            "",
            f"{options.files:,} DAG files of {len(TASK)} bytes in 20 folders, {options.latency} ms added to each S3"
            f" call by the lab; {options.rounds} rounds, both programs in turns, the medians (and extremes) of the"
            " module's whole process. `s3_sync` runs with its defaults (date and size compared). Inside the module the"
            f" repeat of `mwaa_dags_sync` took {sorted(inside)[len(inside) // 2]:.2f} s.",
            "",
            *rows,
            "",
            f"Machine: {harness.machine()}. The lab's S3 is a Python program on the same cores, so that it bounds the"
            " faster one.",
            "",
            f"`python tests/benchmarks/bench_dags_sync.py --files {options.files} --latency {options.latency}"
            f" --rounds {options.rounds} --publish`",
        ]
    )


if __name__ == "__main__":
    main()
