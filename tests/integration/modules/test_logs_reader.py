# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The target's own reader (CloudwatchTaskHandler of each version's provider) finds what was brought."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.mwaa.migration.plugins.module_utils._logs.cloudwatch import Group
from ansible_collections.mwaa.migration.plugins.module_utils._logs.layout import Attempt, stream_of
from ansible_collections.mwaa.migration.plugins.module_utils._logs.lines import Dates, events
from mwaa_lab.airflow import install
from mwaa_lab.airflow.versions import VERSIONS

pytestmark = [pytest.mark.lab, pytest.mark.e2e]

# what Airflow asks of a task instance when its page shows a log
SCRIPT = """
import datetime, json, os, sys
from types import SimpleNamespace
given = json.load(sys.stdin)
from airflow.configuration import conf
from airflow.providers.amazon.aws.log.cloudwatch_task_handler import CloudwatchTaskHandler
import airflow.utils.log.file_task_handler as reader
reader._ensure_ti = lambda ti, session: ti  # there is no database here
template = conf.get("logging", "log_filename_template")
try:
    handler = CloudwatchTaskHandler("/tmp/none", given["arn"])
except TypeError:  # before 2.3
    handler = CloudwatchTaskHandler("/tmp/none", given["arn"], template)
date = datetime.datetime(2024, 1, 2, 3, 4, 5, tzinfo=datetime.timezone.utc)
for one in given["attempts"]:
    run = SimpleNamespace(logical_date=date, execution_date=date, run_id=one["run_id"], data_interval_start=None, data_interval_end=None)
    run.get_log_template = lambda *a, **k: SimpleNamespace(filename=template)
    run.get_log_filename_template = lambda *a, **k: template
    ti = SimpleNamespace(**one, execution_date=date, logical_date=date, end_date=None, try_number=one["attempt"])
    ti.get_dagrun = lambda *a, **k: run
    one["stream"] = handler._render_filename(ti, one["attempt"])
    if given["read"]:
        text = getattr(handler, "io", handler).get_cloudwatch_logs(one["stream"], ti)
        one["text"] = text if isinstance(text, str) else "\\n".join(event["message"] for event in text)
json.dump(given["attempts"], sys.stdout)
"""  # noqa: E501
RUN = "manual__2024-01-02T03:04:05.678901+00:00"
ATTEMPTS = [Attempt("etl", RUN, "load", -1, n) for n in (1, 2, 3)] + [Attempt("etl.ü", RUN, "g.mapped", 4, 1)]


def asked(version: str, tmp_path: Path, environment: dict[str, str], **given: Any) -> list[dict[str, Any]]:
    python = install.base(VERSIONS[version]) / "bin" / "python"
    attempts = [{key: value for key, value in one._asdict().items() if key != "suffix"} for one in ATTEMPTS]
    done = subprocess.run(
        [python, "-W", "ignore", "-c", SCRIPT],
        input=json.dumps({"attempts": attempts, **given}),
        env={"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", "AIRFLOW_HOME": str(tmp_path), "HOME": "/tmp", **environment},
        capture_output=True,
        text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout[done.stdout.index("[{") :])


@pytest.mark.parametrize("version", ["2.0.2", "2.2.2", "2.5.1", "2.8.1", "2.10.3", "2.11.2", "3.2.1"])
def test_streams_are_called_as_each_version_looks_for_them(version: str, tmp_path: Path) -> None:
    arn = "arn:aws:logs:us-east-1:000000000000:log-group:g"
    for attempt, found in zip(ATTEMPTS, asked(version, tmp_path, {}, arn=arn, read=False)):
        assert found["stream"] == stream_of(attempt, version, date="2024-01-02T03:04:05+00:00")


@pytest.mark.parametrize("version", ["2.10.3", "2.11.2"])
def test_airflow_reads_each_attempts_own_log(lab: Any, aws: Any, version: str, tmp_path: Path) -> None:
    name = f"airflow-reader-{version.replace('.', '-')}-Task"
    lab.client("logs").create_log_group(logGroupName=name)
    group = Group(aws, name)
    stamp = "2099-01-01T00:00:00.000+0000"
    for attempt in ATTEMPTS:
        text = f"[{stamp}] {{x.py:1}} INFO - {attempt}\n  goes on\n"
        now = int(group._clock.time() * 1000)
        # dated now: the line's own time lies outside of the attempt
        group.write(stream_of(attempt, version), lambda text=text, now=now: events([text.encode()], Dates(now, now)))
    arn = f"arn:aws:logs:us-east-1:000000000000:log-group:{name}"
    for attempt, found in zip(ATTEMPTS, asked(version, tmp_path, lab.environment, arn=arn, read=True)):
        assert f"INFO - {attempt}\n  goes on" in found["text"]
