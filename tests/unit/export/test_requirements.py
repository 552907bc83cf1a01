# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""requirements.txt: what the user chose, as the target's constraints want it."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.mwaa.migration.plugins.module_utils import _versions
from ansible_collections.mwaa.migration.plugins.module_utils._errors import MigrationError
from ansible_collections.mwaa.migration.plugins.module_utils._packages import packages
from ansible_collections.mwaa.migration.plugins.module_utils._requirements import derive, needs


def installed(name: str, version: str = "1.0", *requires: str, origin: str | None = None) -> dict[str, Any]:
    return {"name": name, "version": version, "requires": list(requires), "origin": origin}


AIRFLOW = installed(
    "apache-airflow", "2.10.3", "requests>=2", 'pandas>=2; extra == "pandas"', "apache-airflow-providers-http"
)


def lines(*distributions: dict[str, Any], target: str = "2.11.2") -> list[str]:
    return derive([AIRFLOW, *distributions], "3.12.1", target).text.splitlines()


def test_the_constraint_comes_first() -> None:
    url = "https://raw.githubusercontent.com/apache/airflow/constraints-{}/constraints-{}.txt"
    assert lines() == [f'--constraint "{url.format("2.11.2", "3.12")}"']
    assert lines(target="2.10.3") == [f'--constraint "{url.format("2.10.3", "3.11")}"']


def test_what_nothing_requires_is_the_users() -> None:
    chosen = lines(
        installed("Requests", "2.0"),  # Airflow requires it
        installed("pandas", "2.0"),  # an extra of Airflow's, chosen by the user; the constraints name it
        installed("my-tool", "3.1", "Tool_Helper>1"),
        installed("tool-helper", "2"),
        installed("pip"),
        installed("setuptools"),
        installed("boto3", "1.30"),  # the image brings it
    )
    assert chosen[1:] == ["my-tool==3.1", "pandas"]


def test_changes_of_version_are_listed() -> None:
    result = derive([installed("pandas", "1.0"), installed("boto3", "1.0")], "3.12.1", "2.11.2")
    pins = packages("2.11.2").constrained
    assert result.changed == [
        {"name": "boto3", "source": "1.0", "target": pins["boto3"]},
        {"name": "pandas", "source": "1.0", "target": pins["pandas"]},
    ]
    assert result.left_to_image == ["boto3"]


def test_what_no_index_has_is_listed_and_what_it_needs_is_named() -> None:
    result = derive(
        [
            installed("mycorp", "1", "left_pad>=1", origin="editable, from file:///srv/mycorp"),
            installed("forked", "1", origin="git, from https://git.test/forked"),
            installed("left-pad", "1.2"),
            installed("torchy", "2.0+cu118"),
        ],
        "3.12.1",
        "2.11.2",
    )
    assert result.text.splitlines()[1:] == ["left-pad==1.2"]
    assert {one["id"]: one["kind"] for one in result.not_carried} == dict.fromkeys(
        ["mycorp", "forked", "torchy"], "requirement"
    )
    assert "git, from https://git.test/forked" in next(
        one["reason"] for one in result.not_carried if one["id"] == "forked"
    )


def test_backport_providers_of_1_10_become_providers() -> None:
    result = derive([installed("apache-airflow-backport-providers-snowflake", "2021.3.3")], "3.7.1", "2.11.2")
    assert result.text.splitlines()[1:] == ["apache-airflow-providers-snowflake"]
    assert "becomes apache-airflow-providers-snowflake" in result.findings[0]


def test_another_python_is_a_finding_where_something_is_pinned() -> None:
    assert (
        "the environment has Python 3.12, the source 3.11" in derive([installed("x")], "3.11.7", "2.11.2").findings[0]
    )
    assert derive([installed("pandas")], "3.11.7", "2.11.2").findings == []


def test_markers_and_extras() -> None:
    requires = [
        "a",
        'b; python_version < "3.8"',
        'c; extra == "x"',
        "d[extra]>=1 ; python_version >= '3.8'",
        "e (>=1.0)",
    ]
    assert needs(requires, "3.11.7") == {"a", "d", "e"}
    assert needs(requires, "3.7.1") == {"a", "b", "e"}


def test_every_version_has_its_table() -> None:
    for version in _versions.VERSIONS:
        table = packages(version)
        web = "fastapi" if version.startswith("3.") else "flask"
        assert {"boto3", "celery", web} <= table.image <= set(table.constrained)
        assert len(table.constrained) > 300
    assert packages("2.10.3").constrained["apache-airflow-providers-amazon"] == "9.0.0"
    assert packages("2.0.2").constrained["boto3"] == "1.17.54"
    with pytest.raises(MigrationError, match="MWAA has no Airflow 2.4.2"):
        packages("2.4.2")
