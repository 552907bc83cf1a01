# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Modules against one emulated AWS with stub environments. Each test brings its own buckets."""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.testing import patch_module_args

_FILE = Path(__file__).parents[1] / "lab" / "conftest.py"
_SPEC = importlib.util.spec_from_file_location("lab_conftest", _FILE)
assert _SPEC and _SPEC.loader
_lab_conftest = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(_lab_conftest)
lab, base, mwaa = _lab_conftest.lab, _lab_conftest.base, _lab_conftest.mwaa
_no_faults_left = _lab_conftest._no_faults_left

REGION = "us-east-1"
ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def options(lab: Any, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The common AWS options that lead to the lab."""
    for name, value in lab.environment.items():
        if name.startswith("AWS_"):
            monkeypatch.setenv(name, value)
    return {
        "region": REGION,
        "access_key": "000000000000",
        "secret_key": "CANARY-secret-key-00000000",
        "endpoint_url": lab.endpoint,
    }


@pytest.fixture
def run_module(options: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> Any:
    """run_module("mwaa_dags_sync", source=…, check=True) -> what the module returns, also when it fails."""

    def run(name: str, /, *, check: bool = False, diff: bool = False, **given: Any) -> dict[str, Any]:
        module = importlib.import_module(f"ansible_collections.mwaa.migration.plugins.modules.{name}")
        arguments = {**options, **given, "_ansible_check_mode": check, "_ansible_diff": diff}
        with patch_module_args(arguments), pytest.raises(SystemExit):
            module.main()
        return json.loads(capsys.readouterr().out)

    return run


@pytest.fixture
def play(lab: Any) -> Any:
    """play("clone.yml", "--check", clone_source=…) -> (return code, what ansible-playbook said).

    A playbook of the collection by its name, or any by its path.
    """

    def run(
        playbook: str | Path,
        *words: str,
        kill_at: str | None = None,
        on_line: Callable[[str, subprocess.Popen[str]], object] = lambda _line, _process: None,
        without: tuple[str, ...] = (),
        **variables: Any,
    ) -> tuple[int, str]:
        """kill_at: kill -9 it and all that it started as soon as it says this. on_line: true where it is not listened
        to any further. without: environment variables.
        """
        environment = {
            **os.environ,
            **lab.environment,
            "PATH": os.environ["PATH"],
            "ANSIBLE_COLLECTIONS_PATH": str(ROOT / ".cache/collections"),
            "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
            "ANSIBLE_PYTHON_INTERPRETER": sys.executable,
            "PYTHONUNBUFFERED": "1",
        }
        process = subprocess.Popen(
            [
                Path(sys.executable).parent / "ansible-playbook",
                *("-i", "localhost,", "-c", "local", ROOT / "playbooks" / playbook, *words),
                *("-e", json.dumps(variables)),
            ],
            env={name: value for name, value in environment.items() if name not in without},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        assert process.stdout
        output = ""
        for line in process.stdout:
            output += line
            if on_line(line, process):
                break
            if kill_at and kill_at in line:
                os.killpg(process.pid, signal.SIGKILL)
        return process.wait(), output

    return run


@pytest.fixture
def new_bucket(lab: Any) -> Any:
    """new_bucket() -> the name of a new, versioned, private bucket."""

    def make() -> str:
        name = f"modules-{uuid.uuid4().hex[:8]}"
        lab.client("s3").create_bucket(Bucket=name)
        lab.client("s3").put_bucket_versioning(Bucket=name, VersioningConfiguration={"Status": "Enabled"})
        return name

    return make


@pytest.fixture
def aws(options: dict[str, Any]) -> Any:
    """Aws, as plugins use it."""
    from ansible_collections.mwaa.migration.plugins.module_utils._aws import Aws

    return Aws.for_plugin(options)


@pytest.fixture
def make_bundle(lab: Any, aws: Any, new_bucket: Any) -> Any:
    """make_bundle({"dags/a.py": b"…"}, variables={…}, inventory={…}) -> its url; a sealed and authenticated one."""
    from ansible_collections.mwaa.migration.plugins.module_utils._bundle import Bundle, open_store, state_path

    def make(
        files: dict[str, bytes],
        *,
        inventory: dict[str, Any] | None = None,
        where: str = "",
        key: str = "",
        **state: Any,
    ) -> str:
        url = where or f"s3://{new_bucket()}/bundle"
        store = open_store(url, aws)
        sealing = key or lab.client("kms").create_key()["KeyMetadata"]["KeyId"]
        bundle = Bundle.create(store, aws, sealing, {"airflow_version": "2.10.3", "python_version": "3.11.9"})
        documents = {"inventory.json": json.dumps(inventory or {"dags": []}).encode(), "options.json": b"{}"}
        sealed = {
            state_path(kind): bundle.seal(json.dumps(state.get(kind) or {}).encode())
            for kind in ("variables", "connections", "pools")
        }
        for path, content in {**documents, **files, **sealed}.items():
            bundle.files[path] = store.write(path, content)
        bundle.save()
        return url

    return make
