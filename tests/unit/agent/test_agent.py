# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The agent's parts that need no Airflow. With real Airflows it is tested in tests/integration and tests/e2e."""

from __future__ import annotations

import ast
import base64
import hashlib
import io
import json
import os
import threading
import tracemalloc
import zlib
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from agent_loading import load
from ansible_collections.mwaa.migration.plugins.module_utils import _bundle
from cryptography.fernet import Fernet
from hypothesis import given, settings
from hypothesis import strategies as st

JSON = st.none() | st.booleans() | st.integers() | st.text()


# -- one canonicalisation on both sides


@settings(max_examples=50, deadline=None)
@given(kind=st.sampled_from(_bundle.KINDS), identifier=st.text(), field=st.text(), value=JSON)
def test_agent_and_bundle_agree_on_digests(
    agent: ModuleType, kind: str, identifier: str, field: str, value: Any
) -> None:
    key = b"0" * 32
    assert agent.digest(key, kind, identifier, field, value) == _bundle.digest(key, kind, identifier, field, value)


def test_agent_and_bundle_agree_on_fields(agent: ModuleType) -> None:
    assert agent.FIELDS == _bundle.FIELDS
    assert agent.SINGULAR == _bundle.SINGULAR
    for kind, item in (("variables", "x"), ("variables", {"value": "x"}), ("pools", {"slots": 1}), ("connections", {})):
        assert agent.canonical(kind, item) == _bundle.canonical(kind, item)


def test_it_is_python_3_6(agent: ModuleType) -> None:
    for name in ("airflow_agent", "mwaa_agent_dag"):
        source = (Path(agent.__file__).parent / f"{name}.py").read_text()
        ast.parse(source, feature_version=(3, 6))
        assert "from __future__ import annotations" not in source


# -- rows


class Cipher:
    """Writes ciphertext as text in brackets."""

    def decrypt(self, stored: str | None, flag: bool) -> str | None:
        return stored[1:-1] if flag and stored else stored

    def encrypt(self, value: str | None) -> tuple[str | None, bool]:
        return (f"[{value}]", True) if value else (value, False)


class Table:
    def __init__(self, *columns: str) -> None:
        self.c = dict.fromkeys(columns)


@settings(max_examples=50, deadline=None)
@given(values=st.fixed_dictionaries({field: st.none() | st.text() for field in _bundle.FIELDS["connections"]}))
def test_a_row_is_read_as_it_was_written(agent: ModuleType, values: dict[str, Any]) -> None:
    table = Table(*_bundle.FIELDS["connections"])
    row = agent.encode("connections", values, Cipher(), table)
    assert agent.decode("connections", row, Cipher()) == values
    assert not values["password"] or row["is_encrypted"]


def test_an_old_airflow_has_fewer_columns(agent: ModuleType) -> None:
    row = agent.encode("variables", {"value": "v", "description": "d"}, Cipher(), Table("val"))
    assert row == {"val": "[v]", "is_encrypted": True}
    assert agent.decode("pools", {"slots": 3}, Cipher())["include_deferred"] is False


# -- asking and answering


def ask(agent: ModuleType, monkeypatch: pytest.MonkeyPatch, request: dict[str, Any]) -> dict[str, Any]:
    monkeypatch.setattr(agent, "enter", lambda source: None)
    key = Fernet.generate_key()
    read, write = os.pipe()
    line = json.dumps({**request, "transport_key": key.decode()}).encode() + b"\n"
    agent.main(io.BytesIO(line), write)
    os.close(write)
    with os.fdopen(read) as file:
        text = file.read()
    assert text.startswith(agent.BEGIN)
    assert text.strip().endswith(agent.END)
    token = "".join(text.split("\n")[1:-2])
    return json.loads(zlib.decompress(Fernet(key).decrypt(base64.b64decode(token))))


def test_an_unknown_operation_is_named(agent: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    answer = ask(agent, monkeypatch, {"op": "drop"})
    assert answer == {
        "ok": False,
        "error": {"code": "unknown_operation", "message": "the agent knows no operation 'drop'"},
    }


def test_an_answer_of_all_the_pieces_that_one_may_hold_is_sealed_in_64_mb(
    agent: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    def pieces(_request: dict[str, Any]) -> dict[str, Any]:
        return {"data": base64.b64encode(os.urandom(load("airflow_history").INLINE)).decode()}

    monkeypatch.setitem(agent.OPERATIONS, "export_history", pieces)
    monkeypatch.setattr(agent, "enter", lambda source: None)
    line = json.dumps({"op": "export_history", "transport_key": Fernet.generate_key().decode()}).encode() + b"\n"
    with Path(os.devnull).open("wb") as nowhere:
        tracemalloc.start()
        try:
            agent.main(io.BytesIO(line), nowhere.fileno())
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    assert 20 << 20 < peak < 64 << 20


def test_no_exception_tells_a_value(agent: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(request: dict[str, Any]) -> None:
        raise ValueError("[parameters: ('CANARY-param-00000001',)]")

    monkeypatch.setitem(agent.OPERATIONS, "plan", broken)
    answer = ask(agent, monkeypatch, {"op": "batch", "requests": [{"op": "plan"}, {"op": "inspect"}]})
    assert len(answer["result"]) == 1
    message = answer["result"][0]["error"]["message"]
    assert message.startswith("plan failed inside Airflow: ValueError at ")
    assert "CANARY-" not in message


# -- homes and environments


@pytest.fixture
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name in list(os.environ):
        if name.startswith("AIRFLOW"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("AIRFLOW_HOME", "")  # restored at the end, whatever the agent sets
    monkeypatch.setenv("AIRFLOW_CONFIG", "")
    return monkeypatch


def test_a_home_without_airflow_cfg_is_refused_before_airflow_could_write_one(
    agent: ModuleType, tmp_path: Path, clean_environment: pytest.MonkeyPatch
) -> None:
    (tmp_path / "dags").mkdir()
    clean_environment.setenv("AIRFLOW_HOME", str(tmp_path))
    with pytest.raises(agent.AgentError, match=r"has no airflow.cfg \(it holds dags\) and no environment variable"):
        agent._check_home()
    clean_environment.setenv("AIRFLOW_HOME", str(tmp_path / "nope"))
    with pytest.raises(agent.AgentError, match="nope does not exist on"):
        agent._check_home()


def test_a_home_that_is_configured_by_its_environment_alone(
    agent: ModuleType, tmp_path: Path, clean_environment: pytest.MonkeyPatch
) -> None:
    clean_environment.setenv("AIRFLOW_HOME", str(tmp_path))
    clean_environment.setenv("AIRFLOW__DATABASE__SQL_ALCHEMY_CONN_CMD", "cat /run/secret")
    agent._check_home()
    assert os.environ["AIRFLOW_CONFIG"] == os.devnull


def test_a_units_variables(agent: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "env").write_text("# comment\nexport A=1\nB='two words'\nAIRFLOW__CORE__FERNET_KEY=a=b=\nbad line\n")
    unit = tmp_path / "airflow.service"
    unit.write_text(
        f'[Service]\nEnvironment="C=x y" D=100%%\nEnvironment=E=5 \\\n F=6\nEnvironmentFile=-{tmp_path}/env\n'
        "EnvironmentFile=-/nonexistent\nExecStart=/v/bin/airflow scheduler\n"
    )
    (tmp_path / "airflow.service.d").mkdir()
    (tmp_path / "airflow.service.d" / "10.conf").write_text("[Service]\nEnvironment=D=drop-in\n")
    assert agent.unit_environment(str(unit)) == {
        "A": "1",
        "B": "two words",
        "AIRFLOW__CORE__FERNET_KEY": "a=b=",
        "C": "x y",
        "D": "drop-in",
        "E": "5",
        "F": "6",
    }


def test_a_process_environment_is_taken_over_with_its_origin(
    agent: ModuleType, tmp_path: Path, clean_environment: pytest.MonkeyPatch
) -> None:
    (tmp_path / "airflow.cfg").write_text("")
    variables = {"AIRFLOW_HOME": str(tmp_path), "AIRFLOW_VAR_X": "CANARY-env-00000001", "LD_PRELOAD": "evil.so"}
    clean_environment.setattr(agent, "process_environment", lambda pid: variables)
    clean_environment.setattr(agent, "_quiet_logging", lambda: None)
    clean_environment.setenv("AIRFLOW_VAR_X", "")
    agent.enter({"pid": 42})
    assert os.environ["AIRFLOW_VAR_X"] == "CANARY-env-00000001"
    assert agent.ORIGINS["AIRFLOW_VAR_X"] == "process 42"
    assert os.environ.get("LD_PRELOAD") != "evil.so"


# -- files


def test_files_of_a_folder(agent: ModuleType, tmp_path: Path) -> None:
    root = tmp_path / "dags"
    (root / "sub").mkdir(parents=True)
    (root / "a.py").write_bytes(b"a")
    (root / "sub" / "ü.txt").write_bytes(b"")
    (root / "inside.py").symlink_to("a.py")
    (root / "outside.py").symlink_to("/etc/hostname")
    (root / "dangling").symlink_to("nowhere")
    (root / "sub" / "loop").symlink_to("..")
    (root / "sub" / "again").symlink_to(root / "sub")
    (root / "__pycache__").mkdir()
    (root / "__pycache__" / "a.pyc").write_bytes(b"")
    (root / "new\nline").write_bytes(b"")
    os.mkfifo(root / "pipe")
    listing = agent.list_files(str(root))
    assert [file["path"] for file in listing["files"]] == ["a.py", "inside.py", "sub/ü.txt"]
    assert listing["files"][0] == {"path": "a.py", "size": 1, "sha256": hashlib.sha256(b"a").hexdigest()}
    assert {one["path"]: one["reason"].split(",")[0] for one in listing["skipped"]} == {
        "dangling": "a symlink to nothing",
        "new\nline": "the name contains control characters",
        "outside.py": "a symlink that leaves the folder",
        "pipe": "neither a file nor a folder",
        "sub/again": "a symlink to a folder above itself",
        "sub/loop": "a symlink to a folder above itself",
    }
    assert listing["caches"] == 1
    assert agent.list_files(str(tmp_path / "nope"))["exists"] is False


def test_a_folder_that_is_itself_a_symlink(agent: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "a.py").write_bytes(b"a")
    (tmp_path / "dags").symlink_to("real")
    assert [file["path"] for file in agent.list_files(str(tmp_path / "dags"))["files"]] == ["a.py"]


def test_pieces_stay_within_their_budget_and_the_folder(agent: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "big").write_bytes(b"0123456789" * 500)
    request = {"op": "export_files", "root": str(tmp_path), "max_bytes": 2000}
    first = agent.handle({**request, "paths": [{"path": "big"}]})["result"]["files"]
    assert [(one["offset"], one["end"], len(one["data"])) for one in first] == [(0, False, 2668)]
    last = agent.handle({**request, "paths": [{"path": "big", "offset": 4000}, {"path": "big"}]})["result"]["files"]
    assert last[0]["end"]
    gone = agent.handle({**request, "paths": [{"path": "nope"}]})["result"]["files"]
    assert gone[0]["vanished"]
    outside = agent.handle({**request, "paths": [{"path": "../secret"}]})
    assert outside["error"]["code"] == "outside"


class Bucket(BaseHTTPRequestHandler):
    """As strict as S3: an exact length, no chunks, the signed checksum."""

    got: dict[str, tuple[bytes, dict[str, str]]] = {}

    def do_PUT(self) -> None:  # noqa: N802
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.path.startswith("/refused") or "chunked" in self.headers.get("Transfer-Encoding", ""):
            self.send_response(403)
            self.end_headers()
            self.wfile.write(b"<Error><Code>AccessDenied</Code></Error>")
            return
        self.got[self.path] = (body, dict(self.headers))
        self.send_response(200)
        self.send_header("x-amz-version-id", "v1")
        self.send_header("ETag", '"e1"')
        self.end_headers()

    def log_message(self, *arguments: Any) -> None:
        pass


@pytest.fixture(scope="module")
def s3() -> Any:
    server = HTTPServer(("127.0.0.1", 0), Bucket)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


def put(agent: ModuleType, root: Path, url: str, path: str, data: bytes) -> dict[str, Any]:
    request = {
        "path": path,
        "size": len(data),
        "sha256": hashlib.sha256(data).hexdigest(),
        "url": url,
        "headers": {"x-a": "b"},
    }
    return agent.handle({"op": "export_files", "root": str(root), "puts": [request]})["result"]["files"][0]


def test_a_put_sends_exactly_what_was_signed(
    agent: ModuleType, tmp_path: Path, s3: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    for name, data in (("a.py", b"x" * 3_000_000), ("empty", b"")):
        (tmp_path / name).write_bytes(data)
        sent = put(agent, tmp_path, f"{s3}/{name}?X-Amz-Signature=CANARY-url-00000001", name, data)
        assert sent == {"path": name, "status": "sent", "version_id": "v1", "etag": "e1"}
        body, headers = Bucket.got[f"/{name}?X-Amz-Signature=CANARY-url-00000001"]
        assert body == data
        assert headers["Content-Length"] == str(len(data))
        assert headers["X-A"] == "b"


def test_a_put_that_cannot_be(agent: ModuleType, tmp_path: Path, s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    (tmp_path / "a.py").write_bytes(b"now")
    assert put(agent, tmp_path, s3, "a.py", b"then") == {
        "path": "a.py",
        "status": "changed",
        "size": 3,
        "sha256": hashlib.sha256(b"now").hexdigest(),
    }
    assert put(agent, tmp_path, s3, "gone.py", b"")["status"] == "vanished"
    refused = put(agent, tmp_path, f"{s3}/refused?CANARY-url-00000002", "a.py", b"now")
    assert refused == {"path": "a.py", "status": "refused", "reason": "HTTP 403 AccessDenied"}
    unreachable = put(agent, tmp_path, "http://127.0.0.1:1/x?CANARY-url-00000003", "a.py", b"now")
    assert unreachable["status"] == "unreachable"
    assert "CANARY-" not in json.dumps([refused, unreachable])


def test_where_a_distribution_came_from(agent: ModuleType) -> None:
    assert agent._direct_url(None) is None
    records = {
        '{"url": "https://user:CANARY-pw-00000001@git.test/x", "vcs_info": {"vcs": "git"}}': "git, from https://git.test/x",
        '{"url": "file:///srv/x", "dir_info": {"editable": true}}': "editable, from file:///srv/x",
        '{"url": "file:///srv/x", "dir_info": {}}': "a local folder, from file:///srv/x",
        '{"url": "https://x.test/x.whl", "archive_info": {}}': "a direct URL, from https://x.test/x.whl",
    }
    for text, words in records.items():
        assert agent._direct_url(text) == words


@pytest.mark.parametrize(
    ("key", "secret"),
    [
        ("smtp_password", True),
        ("fernet_key", True),
        ("sentry_dsn", True),
        ("backend_kwargs", True),
        ("sql_alchemy_conn", True),
        ("result_backend", True),
        ("parallelism", False),
        ("result_backend_sqlalchemy_engine_options", False),
        ("monkey_business", False),
    ],
)
def test_names_that_tell_a_secret(agent: ModuleType, key: str, secret: bool) -> None:
    assert bool(agent.SECRET_NAME.search(key)) is secret
