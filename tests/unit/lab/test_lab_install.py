# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Versions are rows and locks; interpreters are found or named."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from mwaa_lab.airflow import install, versions
from mwaa_lab.labdir import LabError

ROWS = list(versions.VERSIONS.values())


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.airflow)
def test_a_version_has_its_lock_and_mwaas_constraints(row: versions.Version) -> None:
    pins = dict(line.split("==") for line in row.lock.read_text().split())

    assert pins["apache-airflow"] == row.airflow
    assert {"pip", "psycopg2-binary"} <= set(pins)
    assert not row.since(2) or "apache-airflow-providers-amazon" in pins
    assert not row.since(2, 9) or "apache-airflow-providers-fab" in pins
    if row.since(2):
        assert install.published_constraints(row.airflow, row.python) == row.constraints
    if row.since(2, 9):  # older images brought none
        assert f"apache-airflow=={row.airflow}" in row.essential.read_text()


def test_an_unknown_version_is_refused_with_those_there_are() -> None:
    with pytest.raises(LabError, match=r"no Airflow 1\.0.*2\.11\.2"):
        versions.version("1.0")


def test_an_interpreter_on_path_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = f"{sys.version_info.major}.{sys.version_info.minor}"
    (tmp_path / f"python{wanted}").symlink_to(sys.executable)
    monkeypatch.setenv("PATH", str(tmp_path))

    assert install._is(install.find_python(wanted, "a test"), wanted)


def test_a_shim_that_runs_nothing_is_passed_by(tmp_path: Path) -> None:
    shim = tmp_path / "python3.12"
    shim.write_text("#!/bin/sh\necho 'pyenv: python3.12: command not found' >&2\nexit 127\n")
    shim.chmod(0o755)

    assert install._is(shim, "3.12") is None


def test_an_interpreter_that_cannot_be_had_is_named_with_who_needed_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nothing(*arguments: object) -> str:
        raise LabError("uv python install failed: no network")

    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("PYENV_ROOT", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(install, "_uv", nothing)

    with pytest.raises(LabError, match=r"Python 3\.77 is needed by Airflow 9\.9.*no network"):
        install.find_python("3.77", "Airflow 9.9")


def test_the_installer_gets_the_users_index_and_neither_guard_nor_aws(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", "https://index.example/simple")
    monkeypatch.setenv("PYTHONPATH", "/guard")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "x")

    environ = install.installer_environment()

    assert environ["PIP_INDEX_URL"] == "https://index.example/simple"
    assert "PYTHONPATH" not in environ and "AWS_SECRET_ACCESS_KEY" not in environ
