# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the agent takes from a host's environment: systemd units, environment variables, code that reads them."""

from __future__ import annotations

import base64
import json
import os
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from cryptography.fernet import Fernet
from hypothesis import given, settings
from hypothesis import strategies as st

# -- sealing without the cryptography package


@settings(max_examples=30, deadline=None)
@given(st.binary(max_size=100))
def test_what_openssl_seals_any_fernet_opens(agent: ModuleType, data: bytes) -> None:
    key = Fernet.generate_key()
    assert Fernet(key).decrypt(agent.SystemFernet(key).encrypt(data)) == data


def test_a_large_state_is_sealed_in_one_piece_and_no_two_seals_are_alike(agent: ModuleType) -> None:
    key, data = Fernet.generate_key(), b"x" * (3 << 20)
    first, second = (agent.SystemFernet(key).encrypt(data) for _time in range(2))
    assert first != second
    assert Fernet(key).decrypt(first) == data


# -- systemd


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("A=plain", "plain"),
        ('A="two words" ', "two words"),
        ("export A=x", "x"),
        ("A=one two  ", "one two"),
        ('A={"new_pricing": true}', '{"new_pricing": true}'),  # quotes inside are no quotes
        ("A='single $x \\n'", "single $x \\n"),
        ('A="a\\"b\\\\c\\$d\\q"', 'a"b\\c$d\\q'),
        ('A="multi\nline"', "multi\nline"),
        ("A=a\\\nb", "ab"),
        ("A=x # no comment", "x # no comment"),
        ("# A=x\nA=y", "y"),
        ("; A=x\nno variable\nA=y", "y"),
        ("A=", ""),
        ("A=x\r\n", "x"),
    ],
)
def test_an_environment_file_is_read_as_systemd_reads_it(
    agent: ModuleType, tmp_path: Path, line: str, expected: str
) -> None:
    file = tmp_path / "env"
    file.write_text(f"FIRST=1\n{line}\nLAST=2\n", newline="")
    assert agent.environment_file(str(file)) == {"FIRST": "1", "A": expected, "LAST": "2"}


def test_units_drop_ins_and_their_files_in_systemds_order(
    agent: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, text in (
        ("one.env", "A=one\nB=one\n"),
        ("two.env", "B=two\n"),
        (
            "airflow.service",
            f'[Service]\nEnvironment=A=unit "C=c d" E=100%% GONE=x\nEnvironmentFile={tmp_path}/one.env\n',
        ),
        (
            "airflow.service.d/10-more.conf",
            f"[Service]\nEnvironmentFile=-{tmp_path}/t*.env\nEnvironmentFile=-/no/such\n",
        ),
        ("airflow.service.d/20-less.conf", "[Service]\nUnsetEnvironment=GONE\n# Environment=A=no\n"),
        ("airflow.service.d/notes.txt", "[Service]\nEnvironment=A=no\n"),
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    found = agent.unit_environment(str(tmp_path / "airflow.service"))
    assert found == {"A": "one", "B": "two", "C": "c d", "E": "100%"}
    (tmp_path / "airflow.service.d/30-reset.conf").write_text("[Service]\nEnvironmentFile=\nEnvironment=\n")
    assert agent.unit_environment(str(tmp_path / "airflow.service")) == {}


def test_a_file_that_may_not_be_read_is_told(
    agent: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def denied(*_arguments: Any, **_options: Any) -> Any:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(agent.io, "open", denied)
    monkeypatch.setattr(agent, "UNREADABLE", [])
    assert agent.environment_file("/etc/airflow.env") == {}
    assert agent.UNREADABLE == ["/etc/airflow.env"]


# -- what the code reads

CODE = """
import os
from os import environ, getenv
from airflow import DAG
from airflow.models import Variable
from airflow.hooks.base import BaseHook
A = os.environ["INDEXED"], os.environ.get("GOTTEN", ""), os.getenv("CALLED"), environ["BARE"], getenv("FREE")
if "ASKED" in os.environ: pass
name = "UNKNOWN"; B = os.environ[name]
Variable.get("Region"); Variable.get(name)
BaseHook.get_connection("ledger")
op = Op(postgres_conn_id="warehouse", sql="{{ var.value.price_table }} {{ conn.ftp_in.host }} {{ var.json.flags.x }}")
dag = DAG("sales", access_control={"Desk": {"can_read", "can_edit"}})
other = DAG(dag_id="tax", access_control=computed())
"""


def test_names_that_code_reads_are_found_without_running_it(agent: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text(CODE)
    (tmp_path / "broken.py").write_text("os.environ['X'")
    found = agent.scan({"dags": str(tmp_path)}, {"dags": agent.list_files(str(tmp_path))})
    assert sorted(found["environ"]) == ["ASKED", "BARE", "CALLED", "FREE", "GOTTEN", "INDEXED"]
    assert found["environ"]["BARE"] == ["dags/a.py"]
    assert found["variables"] == ["Region", "flags", "price_table"]
    assert found["connections"] == ["ftp_in", "ledger", "warehouse"]
    assert found["access_control"] == [
        {"dag_id": "sales", "path": "dags/a.py", "roles": {"Desk": ["can_edit", "can_read"]}},
        {"dag_id": "tax", "path": "dags/a.py", "roles": None},
    ]


@pytest.fixture
def environ(agent: ModuleType, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    given_: dict[str, str] = {}
    monkeypatch.setattr(agent.os, "environ", given_)
    monkeypatch.setattr(agent, "ORIGINS", {})
    return given_


def test_variables_are_told_by_the_spelling_that_is_used_and_secrets_stay(
    agent: ModuleType, environ: dict[str, str]
) -> None:
    environ.update(
        {
            "AIRFLOW_VAR_REGION": "eu",
            "AIRFLOW_VAR_K": "v",
            "AIRFLOW_VAR_API_TOKEN": "CANARY-var",
            "AIRFLOW_CONN_LEDGER": "postgres://u:CANARY-conn@h/s",
            "INDEXED": "plain",
            "DB": "postgres://u:CANARY-url@h/s",
            "UNREAD": "x",
        }
    )
    reads = {"environ": {"INDEXED": ["dags/a.py"], "DB": ["dags/a.py"]}, "variables": ["Region"], "connections": []}
    found = agent.environment_variables({"variables": ["k"], "connections": []}, reads)
    assert {one["name"]: (one["kind"], one["ids"], one["hides"], one["secret"]) for one in found} == {
        "AIRFLOW_VAR_REGION": ("variable", ["Region"], [], False),
        "AIRFLOW_VAR_K": ("variable", ["k"], ["k"], False),
        "AIRFLOW_VAR_API_TOKEN": ("variable", ["api_token"], [], True),
        "AIRFLOW_CONN_LEDGER": ("connection", ["ledger"], [], True),
        "INDEXED": ("plain", [], [], False),
        "DB": ("plain", [], [], True),
    }
    assert "CANARY" not in json.dumps(found)


def test_a_value_from_the_environment_hides_the_rows_and_nothing_else_of_it(
    agent: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    blank = dict.fromkeys(agent.FIELDS["connections"])
    rows = {
        "variables": {"k": {"value": "old", "description": "what it is for"}},
        "connections": {"ledger": {**blank, "conn_type": "http", "description": "theirs"}, "pg": blank},
        "pools": {},
    }
    given = {
        "variables": {"k": {"value": "new", "description": None}, "more": {"value": "x", "description": None}},
        "connections": {name: {**blank, "conn_type": "postgres"} for name in ("ledger", "pg")},
    }
    cipher = type("Cipher", (), {"status": "ok", "report": lambda _self: {}})()
    monkeypatch.setattr(agent, "read_state", lambda: (rows, cipher, []))
    monkeypatch.setattr(agent, "default_connections", lambda: {"pg": blank})
    monkeypatch.setattr(agent, "environment_state", lambda _how: (given, []))
    key = bytes(32)
    result = agent.export_state({"data_key": base64.b64encode(key).decode(), "environment": "all"})

    def opened(kind: str) -> Any:
        return json.loads(Fernet(base64.urlsafe_b64encode(key)).decrypt(result["sealed"][kind]))

    assert opened("variables") == {"k": {"value": "new", "description": "what it is for"}, "more": "x"}
    connections = opened("connections")
    assert (connections["ledger"]["conn_type"], connections["ledger"]["description"]) == ("postgres", "theirs")
    assert connections["pg"]["conn_type"] == "postgres"
    assert result["defaults"] == []  # it is no untouched default where the environment sets it


def test_openssl_is_found_without_a_search_that_starts_programs(
    agent: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    import ctypes.util

    def search(_name: str) -> str:
        raise AssertionError("ldconfig, gcc and ld")

    monkeypatch.setattr(ctypes.util, "find_library", search)
    assert agent.SystemFernet(Fernet.generate_key()).encrypt(b"x")


def test_what_only_the_login_has_is_not_airflows(agent: ModuleType, environ: dict[str, str]) -> None:
    environ.update({"MINE": "x", "ITS": "y"})
    agent.ORIGINS.update({"MINE": "the environment of ada", "ITS": "unit airflow.service"})
    reads = {"environ": {"MINE": ["dags/a.py"], "ITS": ["dags/a.py"]}, "variables": [], "connections": []}
    found = agent.environment_variables({"variables": [], "connections": []}, reads)
    assert [one["name"] for one in found] == ["ITS"]


@pytest.mark.parametrize(
    ("name", "value", "secret"),
    [
        ("REGION", "eu-central-1", False),
        ("KEYSTONE_HOST", "h", False),
        ("S3_KEY", "reports/2024", True),  # rather too often
        ("SMTP_PASSWORD", "x", True),
        ("GITHUB_AUTH", "x", True),
        ("URL", "https://a:b@c/", True),
        ("PEM", "-----BEGIN RSA PRIVATE KEY-----", True),
        ("ID", "AKIA" + "ABCDEFGHIJKLMNOP", True),
        ("CONF", '{"password": "x"}', True),
        ("CONF", '{"new_pricing": true}', False),
    ],
)
def test_what_looks_like_a_secret(agent: ModuleType, name: str, value: str, secret: bool) -> None:
    assert agent.looks_secret(name, value) is secret


# -- DAG bundles of Airflow 3


def test_dag_bundles_that_are_folders_and_others(agent: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    local = "airflow.dag_processing.bundles.local.LocalDagBundle"
    bundles = [
        {"name": "git", "classpath": "airflow.providers.git.bundles.git.GitDagBundle", "kwargs": {"subdir": "d"}},
        {"name": "main", "classpath": local, "kwargs": {}},
        {"name": "team a", "classpath": local, "kwargs": {"path": "/srv/team-a"}},
    ]
    options = {"dag_bundle_config_list": json.dumps(bundles), "dags_folder": "/srv/dags", "plugins_folder": "/srv/p"}
    monkeypatch.setattr(agent, "airflow_version", lambda: "3.0.6")
    monkeypatch.setattr(agent, "_option", lambda _section, key, default="": options.get(key, default))
    assert agent.code_folders() == (
        {"dags": "/srv/dags", "dags/team_a": "/srv/team-a", "plugins": "/srv/p"},
        [{"name": "git", "classpath": "airflow.providers.git.bundles.git.GitDagBundle"}],
    )
    monkeypatch.setattr(agent, "airflow_version", lambda: "2.10.3")
    assert agent.code_folders() == ({"dags": "/srv/dags", "plugins": "/srv/p"}, [])


def test_dag_bundles_with_like_names_are_not_mixed_up(
    agent: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "shared").mkdir()
    names = {"main": tmp_path, "team a": "/srv/1", "team_a": "/srv/2", "shared": "/srv/3", "..": "/srv/4"}
    local = "airflow.dag_processing.bundles.local.LocalDagBundle"
    bundles = [{"name": name, "classpath": local, "kwargs": {"path": str(names[name])}} for name in names]
    options = {"dag_bundle_config_list": json.dumps(bundles), "plugins_folder": "/srv/p"}
    monkeypatch.setattr(agent, "airflow_version", lambda: "3.0.6")
    monkeypatch.setattr(agent, "_option", lambda _section, key, default="": options.get(key, default))
    folders, _elsewhere = agent.code_folders()
    assert {name: folders[name] for name in folders if name.startswith("dags/")} == {
        "dags/team_a": "/srv/1",
        "dags/team_a_": "/srv/2",
        "dags/shared_": "/srv/3",
        "dags/_": "/srv/4",
    }


# -- a tree that is no good


def test_unreadable_and_vanishing_files_are_listed_and_the_rest_goes_on(
    agent: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("good.py", "gone.py", "denied.py", "broken-disk.py"):
        (tmp_path / name).write_text("x")
    measure = agent._measure

    def trouble(full: str, path: str) -> Any:
        number = {"gone.py": 2, "denied.py": 13, "broken-disk.py": 5}.get(path)
        if number:
            raise OSError(number, os.strerror(number))
        return measure(full, path)

    monkeypatch.setattr(agent, "_measure", trouble)
    listing = agent.list_files(str(tmp_path))
    assert [file["path"] for file in listing["files"]] == ["good.py"]
    assert {one["path"]: one["reason"] for one in listing["skipped"]} == {
        "denied.py": "cannot be read: Permission denied",
        "broken-disk.py": "cannot be read: Input/output error",
    }


def test_a_state_of_thousands_is_sealed_as_it_is(agent: ModuleType) -> None:
    items = {f"v{number}": {"value": "ü" * 100, "description": None} for number in range(20_000)}
    text = agent.state_text("variables", items)
    key = base64.urlsafe_b64encode(bytes(32))
    assert json.loads(Fernet(key).decrypt(agent.fernet(key).encrypt(text))) == {
        name: item["value"] for name, item in items.items()
    }
