# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One running Airflow: its interpreter, home, database, processes and REST API. What MWAA adds is in engine.py."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import http.client
import json
import os
import re
import secrets
import subprocess
import threading
import time
import urllib.parse
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mwaa_lab import processes
from mwaa_lab.airflow import install, versions
from mwaa_lab.airflow.database import Database
from mwaa_lab.labdir import LabDir, LabError

ADMIN = "mwaa-lab-admin"
"""The Airflow user whom InvokeRestApi acts as. Its password is random and made anew for each Airflow."""


def secret() -> str:
    return secrets.token_hex(24)


def fernet_key() -> str:
    return base64.urlsafe_b64encode(os.urandom(32)).decode()


@dataclass
class Airflow:
    """``key`` names it among the lab's processes and databases; ``environ`` is what its processes get."""

    lab: LabDir
    database: Database
    supervisor: processes.Supervisor
    row: versions.Version
    key: str
    home: Path
    python: Path
    environ: dict[str, str] = field(default_factory=dict)
    port: int = 0
    password: str = field(default_factory=secret)
    _tokens: dict[str, str] = field(default_factory=dict)
    _users: set[str] = field(default_factory=set)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    # --- settings ----------------------------------------------------------------------------------------------------

    def essential(self, fernet: str, database_url: str, web_secret: str) -> dict[str, str]:
        """Settings without which this Airflow is not the one that we mean."""
        values = {
            "AIRFLOW_HOME": str(self.home),
            "AIRFLOW__CORE__FERNET_KEY": fernet,
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__CORE__EXECUTOR": self.executor,
            f"AIRFLOW__{self.row.database_section}__SQL_ALCHEMY_CONN": database_url,
            **self.row.web_authentication,
        }
        if self.row.major < 3:
            values["AIRFLOW__WEBSERVER__SECRET_KEY"] = web_secret
        else:
            values |= self.addresses()
            values["AIRFLOW__API__SECRET_KEY"] = web_secret
            values["AIRFLOW__API_AUTH__JWT_SECRET"] = hashlib.sha512(web_secret.encode()).hexdigest()
        return values

    @property
    def executor(self) -> str:
        """Airflow 3 has no SequentialExecutor any more: LocalExecutor does with SQLite."""
        return "LocalExecutor" if self.row.major >= 3 else self.database.executor

    def addresses(self) -> dict[str, str]:
        """Where Airflow 3's parts find its API server."""
        server = f"http://127.0.0.1:{self.port}"
        return {"AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{server}/execution/", "AIRFLOW__API__BASE_URL": server}

    def modest(self) -> dict[str, str]:
        """Settings that keep an Airflow quick to react and small on a machine that runs several."""
        values = {
            "AIRFLOW__CORE__PARALLELISM": "4",
            "AIRFLOW__LOGGING__COLORED_CONSOLE_LOG": "False",
            "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "False",
        }
        if self.row.major >= 3:
            return values | {
                "AIRFLOW__API__WORKERS": "1",
                "AIRFLOW__DAG_PROCESSOR__REFRESH_INTERVAL": "3",
                "AIRFLOW__DAG_PROCESSOR__PARSING_PROCESSES": "1",
                "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "30",
            }
        values |= {
            "AIRFLOW__SCHEDULER__DAG_DIR_LIST_INTERVAL": "3",
            "AIRFLOW__SCHEDULER__PARSING_PROCESSES": "1",
            "AIRFLOW__SCHEDULER__MIN_FILE_PROCESS_INTERVAL": "30",
            "AIRFLOW__SCHEDULER__SCHEDULER_HEARTBEAT_SEC": "2",
            "AIRFLOW__WEBSERVER__WORKERS": "1",
            "AIRFLOW__WEBSERVER__WORKER_REFRESH_INTERVAL": "0",
            "AIRFLOW__WEBSERVER__SHOW_TRIGGER_FORM_IF_NO_PARAMS": "False",
        }
        if self.row.major < 2:  # its scheduler makes runs and queues tasks only when it parses a file
            values |= {"AIRFLOW__SCHEDULER__MIN_FILE_PROCESS_INTERVAL": "3", "AIRFLOW__SCHEDULER__MAX_THREADS": "3"}
        return values

    # --- database ----------------------------------------------------------------------------------------------------

    def create_database(self) -> None:
        """A migrated database with roles and the admin user; from a dump kept per version, which the first one makes.

        Airflow's own migration takes 5 to 12 s of CPU, the dump well under one.
        """
        if not self.database.create():
            return
        # The base's folder name carries the lock's digest: another lock, another dump.
        dump = install.cache() / "databases" / f"{install.base(self.row).name}{self.database.suffix}"
        if not dump.exists():
            with install.locked(f"database-{self.row.airflow}"):
                if not dump.exists():
                    self._migrate(dump)
        self.database.load(dump)
        # PBKDF2 of few rounds: this password guards nothing that leaves the machine and is checked at each 2.x call.
        salt = secrets.token_hex(8)
        digest = hashlib.pbkdf2_hmac("sha256", self.password.encode(), salt.encode(), 1000).hex()
        self.database.sql(
            f"update ab_user set password = 'pbkdf2:sha256:1000${salt}${digest}' where username = '{ADMIN}'"
        )

    def _migrate(self, dump: Path) -> None:
        home = self.lab.temp / f"{self.key}-template"
        home.mkdir(exist_ok=True)
        scratch = self.database.scratch(home)
        scratch.drop()
        scratch.create()
        builder = Airflow(self.lab, scratch, self.supervisor, self.row, home.name, home, self.python)
        builder.environ = self.lab.environment(
            **builder.modest(),
            **builder.essential(fernet_key(), scratch.url, secret()),
            # They would be encrypted with a key that no Airflow of the lab has.
            AIRFLOW__CORE__LOAD_DEFAULT_CONNECTIONS="False",
        )
        for argv in self.row.database_commands(ADMIN):
            run = builder.run(argv, timeout=300)
            if run.returncode:
                raise LabError(
                    f"airflow {' '.join(argv[:2])} of {self.row.airflow} failed: {run.stderr.strip()[-1500:]}"
                )
        # Looking at the command line leaves rows behind that no new environment has.
        scratch.sql("delete from log; delete from job")
        dump.parent.mkdir(parents=True, exist_ok=True)
        scratch.dump(dump)
        scratch.drop()

    # --- processes ---------------------------------------------------------------------------------------------------

    def start(self, only: tuple[str, ...] = ()) -> None:
        """Start the components, or only those named."""
        for component, argv in self.row.components(self.port).items():
            if not only or component in only:
                self._start(component, argv, nice=5)

    def start_triggerer(self) -> None:
        """What no start-up waits for: it is rarely needed at once, and as heavy as the scheduler until it is up."""
        if argv := self.row.triggerer:
            self._start("triggerer", argv, nice=10)

    def _start(self, component: str, argv: list[str], nice: int) -> None:
        for stale in self.home.glob(f"airflow-{component}*.pid"):
            stale.unlink()
        self.supervisor.start(
            processes.Watched(
                f"{self.key}.{component}",
                [str(self.python), str(self.python.parent / "airflow"), *argv],
                {**self.environ, "MWAA_AIRFLOW_COMPONENT": component},
                self.home / "logs" / f"{component}.out",
                cwd=self.home,
                nice=nice,
            )
        )

    def stop(self, grace: float = 3.0) -> None:
        self.supervisor.stop(f"{self.key}.", grace)
        self._tokens = {}

    def pids(self) -> list[int]:
        return [entry.pid for entry in processes.members(processes.records(self.lab, f"{self.key}."))]

    def wait_healthy(self, timeout: float) -> None:
        """Until web server and scheduler say that they are well. :raises LabError: they do not."""
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            if self.healthy():
                return
            if failing := self.supervisor.failed(f"{self.key}."):
                raise LabError(f"{failing.name} keeps dying:\n{tail(failing.log)}")
            time.sleep(0.3)
        raise LabError(
            f"{self.key} is not healthy after {timeout:.0f} s:\n{tail(self.home / 'logs' / 'scheduler.out')}"
        )

    def answers(self) -> bool:
        """The web server speaks, whatever it says of the other parts."""
        with contextlib.suppress(OSError):
            return self._request("GET", self.row.health[0], None, {}, timeout=3)[0] == 200
        return False

    def healthy(self) -> bool:
        path, parts = self.row.health
        try:
            status, body = self._request("GET", path, None, {}, timeout=3)
        except OSError:
            return False
        return status == 200 and all((body.get(part) or {}).get("status") == "healthy" for part in parts)

    # --- being used --------------------------------------------------------------------------------------------------

    def run(self, argv: list[str], timeout: float = 600) -> subprocess.CompletedProcess[str]:
        """Run ``airflow ARGV`` with this Airflow's settings."""
        return subprocess.run(
            [self.python, self.python.parent / "airflow", *argv],
            env=self.environ,
            cwd=self.home,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout,
        )

    def rest(
        self,
        method: str,
        path: str,
        query: dict[str, Any] | None,
        body: Any,
        timeout: float = 60,
        role: str = "Admin",
    ) -> tuple[int, Any]:
        """Call the core REST API as a user with this role of Airflow's. :raises OSError: it does not answer."""
        target = self.row.api + urllib.parse.quote(path, safe="/~:@!$&'()*+,;=%")
        if query:
            flat = {k: _text(v) for k, v in query.items() if v is not None}
            target += "?" + urllib.parse.urlencode(flat, doseq=True)
        status, reply = self._request(method, target, body, self._authorization(role), timeout)
        if status == 401 and self.row.major >= 3:  # the token's life is over, or the api-server has a new secret
            self._tokens.pop(role, None)
            status, reply = self._request(method, target, body, self._authorization(role), timeout)
        return status, reply

    def _authorization(self, role: str) -> dict[str, str]:
        with self._lock:
            user = self._user(role)
            if self.row.major < 3:
                return {"Authorization": "Basic " + base64.b64encode(f"{user}:{self.password}".encode()).decode()}
            if role not in self._tokens:
                login = {"username": user, "password": self.password}
                status, reply = self._request("POST", "/auth/token", login, {}, 30)
                if status not in (200, 201):
                    raise OSError(f"the api-server gives no token: {status} {reply}")
                self._tokens[role] = reply["access_token"]
            return {"Authorization": f"Bearer {self._tokens[role]}"}

    def _user(self, role: str) -> str:
        """Whom a role's calls are made as; made when it is first asked for, with the admin's password."""
        name = f"mwaa-lab-{role.lower()}"
        if name != ADMIN and name not in self._users:
            self.database.sql(
                "insert into ab_user (id, first_name, last_name, username, password, active, email) "
                f"select (select max(id) + 1 from ab_user), 'mwaa-lab', '{role}', '{name}', password, active, "
                f"'{name}@example.invalid' from ab_user where username = '{ADMIN}' "
                f"and not exists (select 1 from ab_user where username = '{name}'); "
                "insert into ab_user_role (id, user_id, role_id) "
                "select (select max(id) + 1 from ab_user_role), u.id, r.id from ab_user u, ab_role r "
                f"where u.username = '{name}' and r.name = '{role}' "
                "and not exists (select 1 from ab_user_role x where x.user_id = u.id)"
            )
            self._users.add(name)
        return name

    def _request(self, method: str, target: str, body: Any, headers: dict[str, str], timeout: float) -> tuple[int, Any]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        try:
            data = None if body is None else json.dumps(body).encode()
            extra = {"Content-Type": "application/json"} if body is not None else {}
            connection.request(method, target, data, {"Accept": "application/json", **extra, **headers})
            reply = connection.getresponse()
            raw = reply.read()
        except http.client.HTTPException as problem:
            raise OSError(f"{type(problem).__name__} from {target.split('?')[0]}") from problem
        finally:
            connection.close()
        try:
            return reply.status, json.loads(raw) if raw else None
        except ValueError:
            return reply.status, raw.decode(errors="replace")


def _text(value: Any) -> Any:
    """Query values as Airflow's own clients write them."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return [_text(item) for item in value] if isinstance(value, list) else value


def tail(log: Path, size: int = 1500) -> str:
    """The end of a log, without colours."""
    try:
        with log.open("rb") as handle:
            handle.seek(max(0, log.stat().st_size - size))
            return re.sub(r"\x1b\[[0-9;]*m", "", handle.read().decode(errors="replace")).strip()
    except OSError:
        return ""
