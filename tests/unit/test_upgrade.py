# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""mwaa_environment_upgrade: the way between versions, requirements and options on it, and how each end is told."""

from __future__ import annotations

import datetime
import io
import json
from typing import Any

import pytest
from ansible_collections.mwaa.migration.plugins.module_utils._errors import MigrationError
from ansible_collections.mwaa.migration.plugins.module_utils._mwaa.upgrade import hops
from ansible_collections.mwaa.migration.plugins.module_utils._options import moved
from ansible_collections.mwaa.migration.plugins.module_utils._requirements import repin
from fakes import aws_failure
from test_environment import EXISTING, FakeMwaa

TODAY = datetime.date(2026, 11, 21)
CONSTRAINTS = "https://raw.githubusercontent.com/apache/airflow/constraints-{}/constraints-{}.txt"


# --- the way ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("current", "target", "way"),
    [
        ("2.10.3", "2.10.3", []),
        ("2.10.3", "2.11.2", ["2.11.2"]),
        ("2.7.2", "2.10.1", ["2.10.1"]),
        ("2.11.2", "2.10.3", ["2.10.3"]),  # down within a major version
        ("2.5.1", "2.11.2", ["2.11.2"]),  # from an ended one
        ("3.0.6", "3.3.1", ["3.3.1"]),
        ("3.3.1", "3.2.1", ["3.2.1"]),
        ("2.10.3", "3.2.1", ["2.11.2", "3.2.1"]),
        ("2.11.2", "3.2.1", ["3.2.1"]),
        ("2.11.0", "3.2.1", ["2.11.2", "3.2.1"]),  # the documented way leads through the newest 2.11
        ("2.11.3", "3.3.1", ["3.3.1"]),  # newer than this collection: never down before up
        ("3.2.1", "2.11.2", ["2.11.2"]),
        ("3.2.1", "2.11.0", ["2.11.0"]),
        ("3.2.1", "2.10.3", ["2.11.2", "2.10.3"]),
        ("3.3.1", "3.4.0", ["3.4.0"]),  # newer than this collection
        ("2.10.3", "4.0.1", ["2.11.2", "4.0.1"]),
    ],
)
def test_the_way(current: str, target: str, way: list[str]) -> None:
    assert hops(current, target, TODAY) == way


@pytest.mark.parametrize(
    ("current", "target", "sentence"),
    [
        ("2.10.3", "2.5.1", "AWS ended Airflow 2.5.1 on 2025-12-30"),
        ("2.10.3", "2.9.3", "MWAA has no Airflow 2.9.3: take one of 2.7.2, "),
        ("1.10.12", "2.11.2", "clone it under another name"),
    ],
)
def test_no_way(current: str, target: str, sentence: str) -> None:
    with pytest.raises(MigrationError, match=sentence):
        hops(current, target, TODAY)


def test_before_there_was_a_2_11_no_way_led_to_3() -> None:
    with pytest.raises(MigrationError, match=r"leads through 2\.11, which MWAA does not have"):
        hops("2.10.3", "3.0.6", datetime.date(2025, 11, 1))


# --- requirements -----------------------------------------------------------------------------------------------------


def test_what_the_new_constraints_contradict_takes_their_version() -> None:
    text = (
        "# kept\n"
        f'-c "{CONSTRAINTS.format("2.10.3", "3.11")}"\n'
        "apache-airflow[celery]==2.10.3\n"
        "apache-airflow-providers-amazon == 9.0.0  # aws\n"
        "pandas>=2.1,<3\n"
        "requests\n"
        "\n"
        "mine==1.2; python_version > '3'\n"
        "./plugins/x.whl\n"
    )
    made = repin(text, "2.10.3", "2.11.2")
    assert made.text == (
        "# kept\n"
        f'--constraint "{CONSTRAINTS.format("2.11.2", "3.12")}"\n'
        "apache-airflow[celery]==2.11.2\n"
        "apache-airflow-providers-amazon==9.22.0  # aws\n"
        "pandas>=2.1,<3\n"
        "requests\n"
        "\n"
        "mine==1.2; python_version > '3'\n"
        "./plugins/x.whl\n"
    )
    assert [one["name"] for one in made.changed] == [
        "--constraint",
        "apache-airflow",
        "apache-airflow-providers-amazon",
    ]
    assert made.findings == ["Airflow 2.11.2 has Python 3.12, 2.10.3 has 3.11: check that wheels exist for mine==1.2"]
    assert repin(made.text, "2.11.2", "2.11.2").text == made.text


def test_the_same_version_leaves_every_byte() -> None:
    text = "apache-airflow-providers-amazon==1.0.0\r\nno-newline==1"
    assert repin(text, "2.10.3", "2.10.3").text == text
    assert repin("requests\r\nno-newline", "2.10.3", "2.11.2").text == "requests\r\nno-newline"


def test_backports_of_1_10_become_providers() -> None:
    made = repin("apache-airflow-backport-providers-amazon==2020.10.29\n", "1.10.12", "2.11.2")
    assert made.text == "apache-airflow-providers-amazon==9.22.0\n"


@pytest.mark.parametrize(
    ("text", "finding"),
    [
        ("--find-links /usr/local/airflow/plugins\n--no-index\nmine==1.0\n", "wheels were made for Python 3.11"),
        ("--constraint /usr/local/airflow/dags/mine.txt\npandas==1.0.0\n", "are your own"),
        ("boto3==1.35.1 --hash=sha256:00\n", "has hashes"),
        ("apache-airflow-providers-mine==1.0\n", "is not in the constraints of Airflow 2.11.2"),
    ],
)
def test_what_cannot_be_pinned_anew_stays_and_is_named(text: str, finding: str) -> None:
    made = repin(text, "2.10.3", "2.11.2")
    assert made.text == text and finding in made.findings[0]


def test_a_password_in_the_url_of_the_constraints_is_not_repeated() -> None:
    (finding,) = repin("-c https://me:CANARY@example.com/c.txt\npandas\n", "2.10.3", "2.11.2").findings
    assert "example.com/c.txt are your own" in finding and "CANARY" not in finding


# --- options ----------------------------------------------------------------------------------------------------------


def test_options_get_the_names_and_paths_of_the_new_version() -> None:
    backend = "airflow.contrib.secrets.aws_secrets_manager.SecretsManagerBackend"
    given = {"secrets.backend": backend, "core.dag_concurrency": "8", "webserver.rbac": "True", "mine.own": backend}
    made = moved(given, "1.10.12", "2.11.2")
    new = "airflow.providers.amazon.aws.secrets.secrets_manager.SecretsManagerBackend"
    assert made["options"] == {
        "secrets.backend": new,
        "core.max_active_tasks_per_dag": "8",
        "webserver.rbac": "True",  # it does no harm, and nobody else may have its value
        "mine.own": new,
    }
    assert made["renamed"] == {"core.dag_concurrency": "core.max_active_tasks_per_dag"}
    assert made["rewritten"] == ["secrets.backend", "mine.own"]
    assert [one["name"] for one in made["unknown"]] == ["webserver.rbac"] and made["dropped"] == []


def test_from_2_to_3_no_logical_date_is_skipped() -> None:
    made = moved({"scheduler.create_cron_data_intervals": "False"}, "2.11.2", "3.2.1")
    assert made["options"]["scheduler.create_cron_data_intervals"] == "False"  # the user's own word
    assert made["added"] == {"scheduler.create_delta_data_intervals": "True", "core.dag_ignore_file_syntax": "regexp"}
    assert moved({}, "2.10.3", "2.11.2")["added"] == moved({}, "3.0.6", "3.2.1")["added"] == {}


def test_there_and_back_options_have_their_old_names() -> None:
    given = {"webserver.expose_config": "True", "scheduler.dag_dir_list_interval": "60", "core.check_slas": "False"}
    there = moved(given, "2.11.2", "3.2.1")
    assert there["options"]["api.expose_config"] == "True"
    back = moved(there["options"], "3.2.1", "2.11.2")["options"]
    assert {name: back[name] for name in given} == given


def test_what_mwaa_refuses_is_dropped_and_the_newer_name_wins() -> None:
    made = moved({"core.multi_team": "True", "api.page_size": "7", "api.fallback_page_limit": "9"}, "3.0.6", "3.2.1")
    assert made["options"] == {"api.fallback_page_limit": "9"}
    assert {one["name"] for one in made["dropped"]} == {"core.multi_team", "api.page_size"}


# --- the module -------------------------------------------------------------------------------------------------------


class FakeS3:
    """One requirements.txt with versions v1, v2, …"""

    def __init__(self, text: str):
        self.versions = [text.encode()]
        self.puts = 0

    def _which(self, version: str | None) -> bytes:
        return self.versions[int(version[1:]) - 1] if version else self.versions[-1]

    def get_object(self, Bucket: str, Key: str, VersionId: str | None = None) -> dict[str, Any]:  # noqa: N803
        return {"Body": _Body(self._which(VersionId)), "ETag": '"x"'}

    def head_object(self, Bucket: str, Key: str, ChecksumMode: str = "") -> dict[str, Any]:  # noqa: N803
        if Key == "gone.zip":
            raise aws_failure("404", status=404)
        return {"ContentLength": len(self.versions[-1]), "ETag": '"x"', "VersionId": f"v{len(self.versions)}"}

    def put_object(self, Body: bytes, **_others: Any) -> dict[str, Any]:  # noqa: N803
        self.versions.append(Body)
        self.puts += 1
        return {"ETag": '"x"', "VersionId": f"v{len(self.versions)}"}


class _Body(io.BytesIO):
    def iter_chunks(self, _size: int) -> Any:
        return iter([self.read()])


OLD = {
    **EXISTING,
    "AirflowVersion": "2.10.3",
    "RequirementsS3Path": "requirements.txt",
    "RequirementsS3ObjectVersion": "v1",
}
MOVE = {"name": "demo", "airflow_version": "3.2.1"}
STATUSES = ("UPDATING", "CREATING_SNAPSHOT", "UPDATING", "AVAILABLE")


@pytest.fixture
def upgrade(run_module: Any, clock: Any) -> Any:
    def run(
        mwaa: FakeMwaa, options: dict[str, Any], s3: FakeS3 | None = None, *, check: bool = False
    ) -> dict[str, Any]:
        clients = {"mwaa": mwaa, "s3": s3 or FakeS3("apache-airflow-providers-amazon==9.0.0\n")}
        return run_module("mwaa_environment_upgrade", options, clients, check=check)

    return run


def test_each_change_takes_its_requirements_and_options_along(upgrade: Any) -> None:
    mwaa, s3 = FakeMwaa(OLD, statuses=STATUSES), FakeS3("apache-airflow-providers-amazon==9.0.0\n")
    result = upgrade(mwaa, {**MOVE, "worker_replacement_strategy": "GRACEFUL"}, s3)
    first, second = (params for _operation, params in mwaa.calls)
    assert first == {
        "AirflowVersion": "2.11.2",
        "RequirementsS3Path": "requirements.txt",
        "RequirementsS3ObjectVersion": "v2",
        "WorkerReplacementStrategy": "GRACEFUL",
    }
    assert second["AirflowVersion"] == "3.2.1" and second["RequirementsS3ObjectVersion"] == "v3"
    assert second["AirflowConfigurationOptions"]["scheduler.create_cron_data_intervals"] == "True"
    assert s3.versions[1:] == [
        b"apache-airflow-providers-amazon==9.22.0\n",
        b"apache-airflow-providers-amazon==9.25.0\n",
    ]
    assert result["from_version"] == "2.10.3" and [hop["done"] for hop in result["hops"]] == [True, True]
    assert "CANARY" not in json.dumps(result)
    assert not upgrade(mwaa, MOVE, s3)["changed"] and s3.puts == 2


def test_a_file_of_ones_own_that_is_missing_is_said_before_the_first_change(upgrade: Any) -> None:
    mwaa, s3 = FakeMwaa(OLD, statuses=STATUSES), FakeS3("apache-airflow-providers-amazon==9.0.0\n")
    result = upgrade(mwaa, {**MOVE, "plugins_s3_path": "gone.zip"}, s3)
    assert result["failed"] and "gone.zip does not exist" in result["msg"]
    assert mwaa.writes == [] and s3.puts == 0


def test_requirements_of_ones_own_go_with_the_last_change_and_nothing_is_made_for_it(upgrade: Any) -> None:
    mwaa, s3 = FakeMwaa(OLD, statuses=STATUSES), FakeS3("apache-airflow-providers-amazon==9.0.0\n")
    result = upgrade(mwaa, {**MOVE, "requirements_s3_path": "mine.txt"}, s3)
    first, second = (params for _operation, params in mwaa.calls)
    assert (first["RequirementsS3Path"], second["RequirementsS3Path"]) == ("requirements.txt", "mine.txt")
    assert s3.puts == 1 and result["hops"][1]["requirements"] == []


def test_check_mode_shows_the_way_and_writes_nothing(upgrade: Any) -> None:
    mwaa, s3 = FakeMwaa(OLD), FakeS3("apache-airflow-providers-amazon==9.0.0\n")
    result = upgrade(mwaa, MOVE, s3, check=True)
    assert result["changed"] and mwaa.writes == [] and s3.puts == 0
    assert "2.10.3 to 2.11.2 to 3.2.1" in result["outlook"][0] and "up to 4 hours" in result["outlook"][1]
    after = result["diff"]["after"]
    assert after["airflow_version"] == "3.2.1" and after["requirements"][0] == "apache-airflow-providers-amazon 9.22.0"
    assert after["airflow_configuration_options"]["smtp.smtp_password"] == "***"


def test_a_failed_change_says_why_and_what_runs_now(upgrade: Any) -> None:
    mwaa = FakeMwaa(OLD, statuses=("UPDATING", "ROLLING_BACK", "UPDATE_FAILED"))
    mwaa.error = {"ErrorCode": "INCORRECT_CONFIGURATION", "ErrorMessage": "No matching distribution found for mine."}
    update = mwaa.update_environment

    def rolled_back(**params: Any) -> dict[str, Any]:
        update(**params)
        mwaa.environments["demo"]["AirflowVersion"] = "2.10.3"
        return {}

    mwaa.update_environment = rolled_back  # type: ignore[method-assign]
    result = upgrade(mwaa, MOVE)
    assert result["failed"] and result["environment"] == {"name": "demo", "status": "UPDATE_FAILED"}
    assert result["msg"].startswith(
        "environment demo was not moved from Airflow 2.10.3 to 2.11.2 (INCORRECT_CONFIGURATION: No matching"
        " distribution found for mine): MWAA rolled back, and it can be used as it was, with Airflow 2.10.3"
    )
    assert mwaa.writes == ["UpdateEnvironment"] and [hop["done"] for hop in result["hops"]] == [False, False]


@pytest.mark.parametrize(
    ("statuses", "sentence"),
    [
        (("UPDATING", "UNAVAILABLE"), "is UNAVAILABLE: MWAA could not roll back; ask AWS Support"),
        (("UPDATING",) * 5000, "not finished after 4 h 0 min; it goes on in AWS; run again"),
    ],
)
def test_other_ends(upgrade: Any, statuses: tuple[str, ...], sentence: str) -> None:
    result = upgrade(FakeMwaa(OLD, statuses=statuses), MOVE)
    assert result["failed"] and sentence in result["msg"] and "from Airflow 2.10.3 to 2.11.2" in result["msg"]


def test_aws_refuses_the_change(upgrade: Any) -> None:
    mwaa = FakeMwaa({**OLD, "Status": "UPDATE_FAILED"})  # of another time
    mwaa.refuse["UpdateEnvironment"] = aws_failure("ValidationException", "Upgrade to 2.11.2 is not possible")
    result = upgrade(mwaa, MOVE)
    assert (
        "AWS refused it: Upgrade to 2.11.2 is not possible" in result["msg"]
        and result["error"]["code"] == "ValidationException"
    )


@pytest.mark.parametrize("status", ["MAINTENANCE", "ROLLING_BACK", "UPDATING"])
def test_what_is_in_progress_is_waited_for_first(upgrade: Any, status: str) -> None:
    mwaa = FakeMwaa({**OLD, "Status": status}, statuses=STATUSES)
    mwaa.after = [status, status, "AVAILABLE"]
    assert upgrade(mwaa, {**MOVE, "airflow_version": "2.11.2"})["changed"] and mwaa.writes == ["UpdateEnvironment"]


def test_what_was_in_progress_and_failed_is_not_tried_again_at_once(upgrade: Any) -> None:
    mwaa = FakeMwaa({**OLD, "Status": "ROLLING_BACK"})
    mwaa.after, mwaa.error = ["ROLLING_BACK", "UPDATE_FAILED"], {"ErrorCode": "X", "ErrorMessage": "pip failed"}
    result = upgrade(mwaa, MOVE)
    assert "is UPDATE_FAILED (X: pip failed): MWAA rolled back and the environment is usable" in result["msg"]
    assert mwaa.writes == []


def test_nothing_left_to_do_but_to_wait(upgrade: Any) -> None:
    mwaa = FakeMwaa({**OLD, "AirflowVersion": "3.2.1", "Status": "UPDATING"})
    mwaa.after = ["UPDATING", "UPDATING", "AVAILABLE"]
    result = upgrade(mwaa, MOVE)
    assert not result["changed"] and result["operation"] == "wait" and result["environment"]["status"] == "AVAILABLE"


def test_an_environment_that_does_not_exist(upgrade: Any) -> None:
    assert "there are demo" in upgrade(FakeMwaa(OLD), {**MOVE, "name": "dmeo"})["msg"]


def test_somebody_else_changed_it_meanwhile(upgrade: Any) -> None:
    mwaa = FakeMwaa(OLD, statuses=STATUSES)
    update = mwaa.update_environment

    def other(**params: Any) -> dict[str, Any]:
        update(**params)
        mwaa.environments["demo"]["AirflowVersion"] = "2.10.3"
        return {}

    mwaa.update_environment = other  # type: ignore[method-assign]
    assert "somebody else changed it" in upgrade(mwaa, MOVE)["msg"]
