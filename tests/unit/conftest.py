# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whole modules in process, with clients of our own in place of boto3's."""

from __future__ import annotations

import importlib
import json
import threading
import time
from typing import Any

import pytest
from ansible.module_utils.testing import patch_module_args
from ansible_collections.mwaa.migration.plugins.module_utils import _aws
from fakes import REGION, Clock


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Nobody waits in a unit test."""
    fake, real, here = Clock(), (time.sleep, time.monotonic), threading.get_ident()
    # this thread's alone: one that another test has left behind would make the time fly

    def sleep(seconds: float) -> None:
        (fake.sleep if threading.get_ident() == here else real[0])(seconds)

    monkeypatch.setattr(time, "sleep", sleep)

    def monotonic() -> float:
        return fake.monotonic() if threading.get_ident() == here else real[1]()

    monkeypatch.setattr(time, "monotonic", monotonic)
    return fake


@pytest.fixture
def run_module(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """run_module("mwaa_environment", {options}, {"mwaa": fake, "s3": fake}, check=True) -> what the module returns."""
    for name in ("AWS_PROFILE", "AWS_ENDPOINT_URL", "AWS_SESSION_TOKEN", "AWS_SECURITY_TOKEN", "AWS_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)

    def run(
        name: str,
        options: dict[str, Any],
        clients: dict[str, Any] | None = None,
        *,
        check: bool = False,
        diff: bool = True,
    ) -> dict[str, Any]:
        module = importlib.import_module(f"ansible_collections.mwaa.migration.plugins.modules.{name}")
        if clients is not None:
            monkeypatch.setattr(_aws.Aws, "client", lambda _self, service, **_config: clients[service])
        arguments = {
            "region": REGION,
            "access_key": "000000000000",
            "secret_key": "CANARY-secret-key-00000000",
            **options,
            "_ansible_check_mode": check,
            "_ansible_diff": diff,
        }
        with patch_module_args(arguments), pytest.raises(SystemExit):
            module.main()
        return json.loads(capsys.readouterr().out)

    return run
