# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Options: each one ends in exactly one list."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.mwaa.migration.plugins.module_utils import _versions
from ansible_collections.mwaa.migration.plugins.module_utils._options import (
    LISTS,
    OPTIONS,
    classify,
    known_options,
    not_carried,
    option_versions,
    renamed,
)
from hypothesis import given, settings
from hypothesis import strategies as st


def option(name: str, value: str | None, secret: bool = False) -> dict[str, Any]:
    section, _dot, key = name.rpartition(".")
    return {"section": section, "key": key, "origin": "airflow.cfg", "secret": secret, "value": value}


def where(name: str, value: str | None = "1", target: str = "2.11.2", source: str = "2.10.3", **other: Any) -> str:
    result = classify([option(name, value, **other)], source, target)
    found = [kind for kind in LISTS if any(one["name"] == name for one in result[kind])]
    new = result["renamed"].get(name, name)
    if new in result["portable"] and new not in [one["name"] for one in result["added"]]:
        found.append(f"{new}={result['portable'][new]}")
    assert len(found) == 1, found
    return found[0]


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("core.parallelism", "16", "core.parallelism=16"),
        ("celery.worker_autoscale", "8,4", "celery.worker_autoscale=8,4"),
        ("core.executor", "LocalExecutor", "reserved"),
        ("core.dags_folder", "/srv/dags", "reserved"),
        ("metrics.statsd_host", "x", "reserved"),
        ("database.sql_alchemy_pool_size", "5", "reserved"),
        ("scheduler.dag_processor_manager_log", "x", "unknown"),
        ("my_company.bucket", "x", "unknown"),
        ("smtp.smtp_password", "x", "secret"),
        ("secrets.backend_kwargs", "{}", "secret"),
        ("core.default_timezone", "Zürich", "not_representable"),
        ("email.subject_template", "/etc/airflow/subject", "reserved"),
        ("core.lazy_load_plugins", "", "not_representable"),
        ("email.from_email", "a\nb", "not_representable"),
        ("email.from_email", "x" * 65537, "not_representable"),
        # old names of Airflow 1.10 and early 2.x
        ("core.dag_concurrency", "5", "core.max_active_tasks_per_dag=5"),
        ("core.logging_level", "DEBUG", "logging.logging_level=DEBUG"),
        ("scheduler.max_threads", "3", "scheduler.parsing_processes=3"),
        ("kubernetes.namespace", "x", "reserved"),
        ("webserver.session_lifetime_days", "3", "unknown"),
    ],
)
def test_into_2_11(name: str, value: str, expected: str) -> None:
    assert where(name, value) == expected


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("webserver.navbar_color", "#fff", "fab.navbar_color=#fff"),
        ("scheduler.dag_dir_list_interval", "60", "dag_processor.refresh_interval=60"),
        ("scheduler.max_threads", "3", "dag_processor.parsing_processes=3"),
        ("triggerer.default_capacity", "9", "triggerer.capacity=9"),
        ("webserver.base_url", "http://x", "reserved"),
        ("core.check_slas", "False", "unknown"),
        ("webserver.default_ui_timezone", "CET", "unknown"),
        ("scheduler.catchup_by_default", "True", "scheduler.catchup_by_default=True"),
    ],
)
def test_into_3(name: str, value: str, expected: str) -> None:
    assert where(name, value, "3.2.1") == expected


def test_a_secret_is_listed_by_name_only() -> None:
    result = classify([option("celery.some_option", None, secret=True)], "2.10.3", "2.11.2")
    assert [one["name"] for one in result["secret"]] == ["celery.some_option"]


def test_the_target_stays_paused_whatever_the_source_had() -> None:
    result = classify([option("core.dags_are_paused_at_creation", "False")], "2.10.3", "2.11.2")
    assert result["portable"]["core.dags_are_paused_at_creation"] == "True"
    assert "the source has core.dags_are_paused_at_creation = False" in result["findings"][0]
    assert classify([], "2.10.3", "2.11.2")["findings"] == []


def test_from_2_to_3_no_logical_date_is_skipped() -> None:
    names = ["scheduler.create_cron_data_intervals", "scheduler.create_delta_data_intervals"]
    for target, expected in (("2.11.2", False), ("3.0.6", True), ("3.2.1", True)):
        portable = classify([], "2.10.3", target)["portable"]
        assert [name in portable for name in names] == [expected, expected]
    assert names[0] not in classify([], "3.0.6", "3.2.1")["portable"]


def test_an_old_and_a_new_name_that_disagree() -> None:
    result = classify(
        [option("core.dag_concurrency", "5"), option("core.max_active_tasks_per_dag", "6")], "2.1.0", "2.11.2"
    )
    assert result["portable"]["core.max_active_tasks_per_dag"] == "6"
    assert [one["id"] for one in not_carried(result)] == ["core.dag_concurrency"]


def test_the_tables_read() -> None:
    for version in _versions.VERSIONS:
        known = known_options(version)
        assert {"core.parallelism", "celery.worker_concurrency", "smtp.smtp_host"} <= known
        assert ("webserver.navbar_color" in known) != version.startswith("3.")
        assert ("core.sql_alchemy_conn" in known) == (version in ("1.10.12", "2.0.2", "2.2.2"))
        assert ("dag_processor.refresh_interval" in known) == version.startswith("3.")
    assert OPTIONS
    assert renamed()["core.sql_alchemy_conn"] == ["database.sql_alchemy_conn"]
    assert "2.11.2" in option_versions()


def test_an_old_airflow_into_an_old_and_into_a_new_one() -> None:
    old = [
        option("core.dag_concurrency", "5"),
        option("core.sql_alchemy_pool_size", "5"),  # reserved by the name of today too
        option("celery.celeryd_concurrency", "4"),
        option("scheduler.statsd_host", "h"),
        option("webserver.rbac", "True"),
    ]
    for target, name in (("2.0.2", "core.dag_concurrency"), ("2.5.1", "core.max_active_tasks_per_dag")):
        result = classify(old, "1.10.15", target)
        assert result["portable"][name] == "5"
        assert result["portable"]["celery.worker_concurrency"] == "4"
        assert [one["name"] for one in result["reserved"]] == ["core.sql_alchemy_pool_size", "scheduler.statsd_host"]
        assert [one["name"] for one in result["unknown"]] == ["webserver.rbac"]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from(sorted(known_options("2.10.3")) + ["x.y", "X.Y", "core.ü"]), st.text(max_size=20)),
        max_size=10,
        unique_by=lambda one: one[0],
    ),
    st.sampled_from(_versions.VERSIONS),
)
def test_nothing_gets_lost_and_everything_fits(options: list, target: str) -> None:
    result = classify([option(name, value) for name, value in options], "2.10.3", target)
    added = {one["name"] for one in result["added"]}
    origin = {new: old for old, new in result["renamed"].items()}
    carried = {origin.get(name, name) for name in result["portable"] if name not in added}
    listed = [one["name"] for kind in LISTS for one in result[kind]]
    assert len(listed) == len(set(listed))
    assert carried | set(listed) | added >= {name for name, _value in options}
    for name, value in result["portable"].items():
        assert 1 <= len(name) <= 64
        assert value
        assert value.isascii()
        assert value.isprintable()


def test_no_version_in_the_middle_lacks_what_those_around_it_have() -> None:
    before, here, after = map(known_options, ("2.5.1", "2.6.3", "2.7.2"))
    assert not (before & after) - here
    assert "webserver.instance_name" in here


def test_a_class_that_moved_is_named_where_the_target_has_it() -> None:
    """Airflow 3's web server would not start otherwise."""
    given = [option("api.auth_backend", "airflow.api.auth.backend.session")]
    made = classify(given, "2.2.2", "3.2.1")
    assert made["portable"]["fab.auth_backends"] == "airflow.providers.fab.auth_manager.api.auth.backend.session"
    assert any(finding.startswith("fab.auth_backends names a class") for finding in made["findings"])
    assert classify(given, "2.2.2", "2.11.2")["portable"]["api.auth_backends"] == "airflow.api.auth.backend.session"
