# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What MWAA does around an Airflow, rule by rule."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import Any

import pytest
from mwaa_lab.airflow import engine, tasklogs, versions
from mwaa_lab.engine import EngineError


def environment(**given: dict[str, str]) -> dict[str, str]:
    parts: dict[str, Any] = {"base": {}, "opinionated": {}, "startup": {}, "options": {}, "essential": {}, **given}
    return engine.process_environment(**parts)


def test_options_win_over_mwaas_opinions_and_the_startup_script() -> None:
    key = "AIRFLOW__CORE__PARALLELISM"

    assert environment(opinionated={key: "4"})[key] == "4"
    assert environment(opinionated={key: "4"}, startup={key: "8"})[key] == "8"
    assert environment(opinionated={key: "4"}, startup={key: "8"}, options={"core.parallelism": "16"})[key] == "16"


@pytest.mark.parametrize(
    "option", ["core.executor", "core.fernet_key", "database.sql_alchemy_conn", "core.load_examples"]
)
def test_essential_settings_are_set_in_vain_and_in_silence(option: str) -> None:
    key = engine.option_variable(option)

    assert environment(options={option: "mine"}, startup={key: "mine"}, essential={key: "MWAA's"})[key] == "MWAA's"


def test_reserved_settings_that_the_lab_does_not_set_do_not_arrive_either() -> None:
    found = environment(
        options={"celery.broker_url": "redis://", "metrics.statsd_host": "x", "celery.worker_autoscale": "5,5"}
    )

    assert found == {"AIRFLOW__CELERY__WORKER_AUTOSCALE": "5,5"}


def test_a_startup_script_cannot_change_what_mwaa_protects() -> None:
    found = environment(
        base={"PYTHONPATH": "guard"},
        startup={"PYTHONPATH": "evil", "AIRFLOW_HOME": "/x", "MWAA__X": "1", "AIRFLOW_VAR_A": "kept", "PATH": "/opt/x"},
    )

    assert found == {"PYTHONPATH": "guard", "AIRFLOW_VAR_A": "kept", "PATH": "/opt/x"}


@pytest.mark.parametrize(
    ("option", "variable"),
    [
        ("core.parallelism", "AIRFLOW__CORE__PARALLELISM"),
        ("secrets.backend_kwargs", "AIRFLOW__SECRETS__BACKEND_KWARGS"),
        ("celery.worker_autoscale", "AIRFLOW__CELERY__WORKER_AUTOSCALE"),
    ],
)
def test_options_become_variables(option: str, variable: str) -> None:
    assert engine.option_variable(option) == variable


def test_published_constraints_are_answered_from_the_labs_copies() -> None:
    url = "https://raw.githubusercontent.com/apache/airflow/constraints-2.11.2/constraints-3.12.txt"

    text = engine.rewrite_requirements(f'--constraint "{url}"\nboto3\n', Path("/home"), Path("/plugins"))

    assert text == f'--constraint "{versions.HERE}/constraints/2.11.2.txt"\nboto3\n'


@pytest.mark.parametrize("name", ["constraints-2.11.2/constraints-3.11.txt", "constraints-9.9.9/constraints-3.12.txt"])
def test_constraints_that_nobody_published_are_not_found(name: str) -> None:
    text = f"--constraint https://raw.githubusercontent.com/apache/airflow/{name}"

    with pytest.raises(EngineError, match="404 Client Error: Not Found"):
        engine.rewrite_requirements(text, Path("/home"), Path("/plugins"))


def test_mwaas_folders_in_requirements_are_the_labs() -> None:
    given = '--find-links /usr/local/airflow/plugins\n--constraint "/usr/local/airflow/dags/constraints.txt"\n'

    text = engine.rewrite_requirements(given, Path("/e/home"), Path("/e/plugins"))

    assert text == '--find-links /e/plugins\n--constraint "/e/home/dags/constraints.txt"\n'


@pytest.mark.parametrize(
    ("line", "own"),
    [("--constraint x.txt", True), ("# --constraint x.txt", True), ("-c x.txt", True), ("boto3==1.0", False)],
)
def test_a_constraint_line_counts_wherever_it_stands(line: str, own: bool) -> None:
    """MWAA looks for it with a regular expression, comments included."""
    assert bool(engine.CONSTRAINT_LINE.search(line)) is own


def plugins_zip(*names: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name in names:
            archive.writestr(name, "x = 1\n")
    return buffer.getvalue()


def test_plugins_are_extracted(tmp_path: Path) -> None:
    engine.extract_plugins(plugins_zip("plugin.py", "pkg/__init__.py"), tmp_path)

    assert sorted(p.name for p in tmp_path.rglob("*.py")) == ["__init__.py", "plugin.py"]


@pytest.mark.parametrize("archive", [b"no zip", plugins_zip("../outside.py"), plugins_zip("/etc/outside.py")])
def test_bad_plugins_are_refused(tmp_path: Path, archive: bytes) -> None:
    with pytest.raises(EngineError, match=r"plugins\.zip"):
        engine.extract_plugins(archive, tmp_path / "plugins")
    assert not list(tmp_path.glob("*.py"))


def test_only_a_change_of_artefacts_makes_a_new_build() -> None:
    spec = {"SourceBucketArn": "arn:aws:s3:::b", "DagS3Path": "dags", "RequirementsS3Path": "r.txt", "MaxWorkers": 3}

    assert engine._artefacts(spec) == engine._artefacts({**spec, "MaxWorkers": 9})
    assert engine._artefacts(spec) != engine._artefacts({**spec, "RequirementsS3ObjectVersion": "2"})


def test_streams_are_named_as_mwaa_names_them() -> None:
    path = Path("dag_id=d/run_id=scheduled__2024-01-01T00:00:00+00:00/task_id=t/attempt=1.log")

    assert tasklogs.stream(path) == "dag_id=d/run_id=scheduled__2024-01-01T00_00_00+00_00/task_id=t/attempt=1.log"


class Logs:
    """Takes what CloudWatch would."""

    def __init__(self) -> None:
        self.events: dict[str, list[str]] = {}
        self.calls = 0

    def create_log_group(self, **_: Any) -> None: ...

    def create_log_stream(self, **_: Any) -> None: ...

    def put_log_events(self, *, logGroupName: str, logStreamName: str, logEvents: list[dict[str, Any]]) -> None:  # noqa: N803
        self.calls += 1
        assert len(logEvents) <= 10_000
        assert sum(len(event["message"].encode()) + 26 for event in logEvents) <= 1_048_576
        self.events.setdefault(f"{logGroupName}:{logStreamName}", []).extend(event["message"] for event in logEvents)


LOGGED = {"Name": "demo", "LoggingConfiguration": {"TaskLogs": {"Enabled": True, "LogLevel": "INFO"}}}


def test_task_logs_arrive_once_and_whole(tmp_path: Path) -> None:
    log = tmp_path / "dag_id=d" / "run_id=r" / "task_id=t" / "attempt=1.log"
    log.parent.mkdir(parents=True)
    shipper, logs = tasklogs.LogShipper(tmp_path, "dag_id=*/**/*.log"), Logs()

    log.write_text("one\ntw")
    shipper.ship(logs, LOGGED)
    log.write_text("one\ntwo\n")
    shipper.ship(logs, LOGGED)
    shipper.ship(logs, LOGGED)

    assert logs.events == {"airflow-demo-Task:dag_id=d/run_id=r/task_id=t/attempt=1.log": ["one", "two"]}


def test_long_logs_go_in_batches_that_cloudwatch_takes() -> None:
    logs = Logs()

    tasklogs.put(logs, "g", "s", "\n".join(["x" * 1000] * 3000 + ["é" * 300_000]))

    assert len(logs.events["g:s"]) == 3001 and logs.calls > 3


def test_disabled_logs_are_not_shipped(tmp_path: Path) -> None:
    logs = Logs()
    tasklogs.LogShipper.once(logs, {"Name": "demo", "LoggingConfiguration": {}}, "Scheduler", "s", "text")

    assert logs.events == {}
