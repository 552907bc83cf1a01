# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""``mwaa-lab`` without a lab."""

from __future__ import annotations

from pathlib import Path

import pytest
from mwaa_lab import base, cli
from mwaa_lab.labdir import LabDir, write_json


@pytest.mark.parametrize("command", ["env", "status", "journal"])
def test_what_needs_a_lab_says_so(command: str, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="There is no lab in"):
        cli.main([command, "--dir", str(tmp_path)])


def test_down_without_a_lab_is_no_failure(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cli.main(["down", "--dir", str(tmp_path / "none")])

    assert "there is no lab in" in capsys.readouterr().err


def test_down_leaves_a_folder_that_is_no_lab(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")

    cli.main(["down", "--dir", str(tmp_path)])

    assert (tmp_path / "thesis.txt").exists()


def test_up_refuses_a_version_that_it_does_not_have(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"no Airflow 1\.2\.3"):
        cli.main(["up", "--dir", str(tmp_path / "lab"), "--source", "1.2.3"])
    assert not (tmp_path / "lab").exists()


def test_a_dead_lab_is_called_dead(tmp_path: Path) -> None:
    lab = LabDir(tmp_path / "lab")
    lab.create({"source": "2.10.3", "seed_data": "none", "engine": "stub"})
    write_json(lab.file, {**lab.read(), "ready": True})

    assert cli._dead(lab) == ["server is dead", "postgres is dead", "host is dead"]
    with pytest.raises(SystemExit, match="is not up"):
        cli.main(["env", "--dir", str(lab.path)])
    lab.remove()


def test_the_execution_role_names_bucket_and_key() -> None:
    policy = base._execution_policy("b", "arn:key", "us-east-1", "000000000000")

    named = [statement for statement in policy["Statement"] if "Resource" in statement]
    allowed = {action: statement["Resource"] for statement in named for action in statement["Action"]}
    assert allowed["s3:GetObject*"] == ["arn:aws:s3:::b", "arn:aws:s3:::b/*"]
    assert allowed["kms:Decrypt"] == "arn:key"


def test_env_turns_away_what_the_shell_holds_for_the_real_aws(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cli, "env", lambda _lab: {"AWS_REGION": "us-east-1"})
    monkeypatch.setenv("AWS_PROFILE", "analytics-prod")
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "https://s3.example.com")
    monkeypatch.setenv("AWS_CA_BUNDLE", "/etc/ssl/ca.pem")

    cli.main(["env", "--dir", str(tmp_path)])

    told = capsys.readouterr().out.splitlines()
    assert {"unset AWS_PROFILE", "unset AWS_ENDPOINT_URL_S3", "export AWS_REGION=us-east-1"} <= set(told)
    assert not any("CA_BUNDLE" in line for line in told)


@pytest.mark.parametrize(("version", "day"), [("2.5.1", "2025-12-30"), ("2.11.2", ""), ("1.2.3", "")])
def test_the_day_of_an_ended_version(version: str, day: str, capsys: pytest.CaptureFixture[str]) -> None:
    cli.main(["as-of", version])

    assert capsys.readouterr().out.strip() == day


def test_a_day_is_written_as_one(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["up", "--as-of", "yesterday"])
    assert "'yesterday' is not a day" in capsys.readouterr().err
