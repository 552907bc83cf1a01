# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What an MWAA environment *is* in the lab: the seam between the emulated control plane and the Airflows behind it.

The control plane (``mwaa_lab.aws``) owns names, states, limits and tokens. An engine owns the Airflow: ``StubEngine``
(``mwaa_lab.stub``) keeps one in memory, ``AirflowEngine`` (``mwaa_lab.airflow.engine``) runs real ones.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import boto3
from botocore.config import Config

EnvSpec = dict[str, Any]
"""An environment as GetEnvironment shows it, plus ``account`` and ``region``. Engines read it and never change it."""

PRIVATE_DOMAIN = "mwaa-lab.invalid"
"""Of private web servers' names: it exists nowhere, so they lead nowhere but through the lab's SSH server."""

SERVICE_KEY_PREFIX = "LABSERVICE-"
ROLE_KEY_PREFIX = "LABROLE-"


class EngineError(Exception):
    """A create or update that ends in CREATE_FAILED / UPDATE_FAILED, with what LastUpdate.Error will say.

    ``code`` as MWAA has it (``INCORRECT_CONFIGURATION`` is the one that users meet), ``message`` without secrets.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


@functools.cache
def _client(endpoint: str, service: str, account: str, region: str, role: str) -> Any:
    # Kept, because making one costs more than most calls; clients may be shared between threads.
    return boto3.session.Session().client(
        service,
        endpoint_url=endpoint,
        region_name=region,
        aws_access_key_id=f"{SERVICE_KEY_PREFIX}{account}" + (f"-{role}" if role else ""),
        aws_secret_access_key="lab",
        config=Config(
            s3={"addressing_style": "path"},
            inject_host_prefix=False,
            retries={"mode": "standard", "max_attempts": 4},
            max_pool_connections=32,
        ),
    )


@dataclass(frozen=True)
class AwsAccess:
    """How what runs inside the lab reaches the lab's AWS.

    The access key id names the account and who is calling (``front.py`` reads it), so the journal can tell the
    service's own calls and those of an environment's processes from the user's.
    """

    endpoint: str

    def client(self, service: str, *, account: str, region: str, role: str = "") -> Any:
        """A boto3 client that acts as the MWAA service (principal ``airflow.amazonaws.com``) in that account.

        ``role``: in the name of this execution role, whose policies then count where IAM is enforced.
        """
        return _client(self.endpoint, service, account, region, role)

    def s3(self, env: EnvSpec) -> Any:
        return self._in_role("s3", env)

    def logs(self, env: EnvSpec) -> Any:
        return self._in_role("logs", env)

    def _in_role(self, service: str, env: EnvSpec) -> Any:
        role = env["ExecutionRoleArn"].rpartition("/")[2]
        return self.client(service, account=env["account"], region=env["region"], role=role)

    def environ(self, env: EnvSpec) -> dict[str, str]:
        """Environment variables that give a process the environment's execution role and nothing beyond the lab."""
        role = env["ExecutionRoleArn"].rsplit("/", 1)[-1]
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_DISABLE_HOST_PREFIX_INJECTION": "true",
            "AWS_ACCESS_KEY_ID": f"{ROLE_KEY_PREFIX}{env['account']}-{role}",
            "AWS_SECRET_ACCESS_KEY": "lab",
            "AWS_REGION": env["region"],
            "AWS_DEFAULT_REGION": env["region"],
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_CONFIG_FILE": "/dev/null",
            "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
        }


@dataclass(frozen=True)
class EngineSettings:
    """What the server gives every engine: the lab's folder, its AWS, and ``host:port`` of the TLS front."""

    dir: Path
    aws: AwsAccess
    webserver: str


class Engine(Protocol):
    """All methods block, are called from several threads at once (never two creates/updates/deletes of one environment)
    and may take as long as they need; the control plane applies MWAA's time limits itself.
    """

    def create(self, env: EnvSpec) -> None:
        """Return when the environment is usable. Raises EngineError."""

    def update(self, env: EnvSpec, changes: dict[str, Any]) -> None:
        """Bring the environment to ``env`` (already with the changes); ``changes`` holds what the call sent.

        Raises EngineError after having gone back to what was there before: UPDATE_FAILED means rolled back and usable.
        Where the Airflow version changes, ``snapshot`` came before, and going back is ``roll_back``'s.
        """

    def snapshot(self, env: EnvSpec) -> None:
        """Stop the Airflow and keep a copy of its database: a change of its version begins. Raises EngineError."""

    def roll_back(self, env: EnvSpec) -> None:
        """After a version change that failed: ``env``, which is the old one, runs again on the snapshot's database.

        Raises EngineError: it does not, and the environment is UNAVAILABLE.
        """

    def delete(self, env: EnvSpec) -> None:
        """Stop and remove everything of the environment; never raises for one that is half made."""

    def cli(self, env: EnvSpec, argv: list[str]) -> tuple[str, str]:
        """Run ``airflow *argv``; stdout and stderr. The exit code is lost, as on MWAA."""

    def rest(self, env: EnvSpec, method: str, path: str, query: dict[str, Any] | None, body: Any) -> tuple[int, Any]:
        """Call Airflow's core REST API (``/api/v1`` before Airflow 3, then ``/api/v2``); ``path`` has no prefix.

        As a user with Airflow's role ``env["airflow_role"]`` (Admin, Op, User, Viewer, Public).
        """

    def describe(self, env: EnvSpec) -> dict[str, Any]:
        """What ``mwaa-lab status`` shows beyond the control plane: airflow_home, python, database_url, pids."""

    def configure(self, options: dict[str, Any]) -> dict[str, Any]:
        """``POST /_lab/stub``: change behaviour for tests; what holds now. Raises ValueError on unknown names."""

    def close(self) -> None:
        """Stop everything; called once when the server stops."""
