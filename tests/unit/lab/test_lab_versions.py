# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""In what the lab's Airflows differ, and the seed in the words of each."""

from __future__ import annotations

import configparser
from pathlib import Path

import pytest
from mwaa_lab.airflow.database import OnSqlite
from mwaa_lab.airflow.versions import VERSIONS, Version, version
from mwaa_lab.labdir import LabError
from mwaa_lab.seeds import eras, state
from mwaa_lab.source import SEEDS

EVERY = pytest.mark.parametrize("row", VERSIONS.values(), ids=lambda row: row.airflow)
DAGS = SEEDS / "airflow_home" / "dags"


def configuration(row: Version) -> configparser.RawConfigParser:
    parser = configparser.RawConfigParser()  # strict: an option twice is an error, as it is to Airflow
    parser.read_string(eras.configuration(row, (SEEDS / "airflow.cfg").read_text()))
    return parser


@EVERY
def test_the_database_is_configured_where_the_version_reads_it(row: Version) -> None:
    section = "database" if row.since(2, 3) else "core"

    assert configuration(row).get(section, "sql_alchemy_conn") == "@DATABASE_URL@"
    assert row.database_section == section.upper()


def test_airflow_1_keeps_logging_in_core_and_asks_for_its_new_interface() -> None:
    parser = configuration(version("1.10.12"))

    assert parser.get("core", "base_log_folder") == "@AIRFLOW_HOME@/logs"
    assert parser.get("webserver", "rbac") == "True"
    assert not parser.has_section("logging")


def test_airflow_3_has_users_only_with_fab() -> None:
    parser = configuration(version("3.0.6"))

    assert parser.get("core", "auth_manager").endswith("FabAuthManager")
    assert "CANARY" in parser.get("api", "secret_key") and not parser.has_option("webserver", "secret_key")


def test_airflow_2_10_reads_the_file_as_it_is() -> None:
    plain = configparser.RawConfigParser()
    plain.read(SEEDS / "airflow.cfg")

    assert configuration(version("2.10.3")) == plain


@EVERY
def test_dag_files_speak_the_versions_words(row: Version) -> None:
    for path in DAGS.rglob("*.py"):
        text = eras.words(row, path.read_text())
        compile(text, path.name, "exec")
        assert ("schedule=" in text) <= row.since(2, 4), path.name
        assert ("airflow.operators.bash import" in text) <= row.since(2), path.name


def test_files_that_a_version_cannot_have_are_left_out() -> None:
    def has(airflow: str) -> set[str]:
        return {name for name in eras.ONLY if eras.belongs(version(airflow), name)}

    assert has("1.10.15") == {"dags/contrib_calendar.py", "dags/legacy_2x_only.py"}
    assert has("2.0.2") == has("2.10.3") == {"dags/taskflow_orders.py", "dags/legacy_2x_only.py"}
    assert has("3.0.6") == {"dags/taskflow_orders.py"}


def test_every_file_with_an_era_is_there() -> None:
    assert all((SEEDS / "airflow_home" / name).is_file() for name in eras.ONLY)
    assert set(state.RUNS) <= {path.stem for path in DAGS.glob("*.py")}


def test_an_old_python_gets_packages_that_it_can_run() -> None:
    assert "cowsay==5.0" in eras.packages(version("2.2.2"), "cowsay==6.1\n")
    assert "cowsay==6.1" in eras.packages(version("2.5.1"), "cowsay==6.1\n")


def test_commands_follow_the_version() -> None:
    def words(airflow: str) -> list[str]:
        return [" ".join(command[:2]) for command in version(airflow).database_commands("admin")]

    assert words("1.10.12") == ["initdb", "sync_perm", "create_user --firstname"]
    assert words("2.5.1") == ["db init", "sync-perm", "users create"]
    assert words("2.8.1") == ["db migrate", "sync-perm", "users create"]
    assert set(version("2.11.2").components(1)) == {"webserver", "scheduler"}
    assert set(version("3.2.1").components(1)) == {"api-server", "scheduler", "dag-processor"}
    assert not version("2.0.2").triggerer and version("2.2.2").triggerer == ["triggerer"]


def test_every_role_of_airflow_has_a_user() -> None:
    users = state.users(state.canary("lab"))

    assert {user["role"] for user in users} == {"Admin", "Op", "User", "Viewer", "Public", state.DESK}
    assert all("CANARY-user-" in user["password"] for user in users)


def test_a_sqlite_database_lives_through_a_dump(tmp_path: Path) -> None:
    first, second = OnSqlite(tmp_path / "a.db"), OnSqlite(tmp_path / "b.db")
    assert first.create()
    first.sql("create table t (a, b); insert into t values (1, null)")
    first.dump(tmp_path / "dump")
    second.load(tmp_path / "dump")

    assert second.sql("select * from t") == "1|\n"
    assert not second.create()
    with pytest.raises(LabError, match="no such table"):
        second.sql("select * from u")
    second.drop()
    assert not second.file.exists()
