# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""MWAA environments that are real Airflows: what the service does around an Airflow, as far as it is known.

Files of an environment, under ``environments/ACCOUNT/REGION/NAME``: ``environment.json`` (port and keys, mode 600),
``home`` (AIRFLOW_HOME), and per build ``build-N`` with the overlay venv, the plugins and pip's log. An update makes a
new build beside the running one and switches only when that is whole, so a failing one leaves what was there.
"""

from __future__ import annotations

import contextlib
import fnmatch
import io
import json
import re
import shutil
import subprocess
import threading
import time
import zipfile
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from mwaa_lab import processes
from mwaa_lab.airflow import install, versions
from mwaa_lab.airflow.database import OnPostgres
from mwaa_lab.airflow.instance import Airflow, fernet_key, secret
from mwaa_lab.airflow.postgres import Postgres
from mwaa_lab.airflow.tasklogs import LogShipper
from mwaa_lab.engine import EngineError, EngineSettings, EnvSpec
from mwaa_lab.labdir import LabDir, LabError, write_json

MIRROR_SECONDS = 2.0
"""How often bucket and logs are looked at. MWAA: about 30 s."""

HEALTHY_SECONDS = 180.0

PIP_SECONDS = 9 * 60
STARTUP_SECONDS = 5 * 60
"""MWAA's own limits (amazon-mwaa-docker-images)."""

BAD_CONFIGURATION = "INCORRECT_CONFIGURATION"

RESERVED = [
    "AIRFLOW__CELERY__BROKER_URL",
    "AIRFLOW__CELERY__RESULT_BACKEND",
    "AIRFLOW__CELERY__CELERY_CONFIG_OPTIONS",
    "AIRFLOW__CELERY__WORKER_ENABLE_REMOTE_CONTROL",
    "AIRFLOW__CELERY_BROKER_TRANSPORT_OPTIONS__*",
    "AIRFLOW__CORE__EXECUTOR",
    "AIRFLOW__CORE__FERNET_KEY",
    "AIRFLOW__CORE__LOAD_EXAMPLES",
    "AIRFLOW__CORE__SQL_ALCHEMY_CONN",
    "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN",
    "AIRFLOW__LOGGING__LOGGING_CONFIG_CLASS",
    "AIRFLOW__OPERATORS__DEFAULT_QUEUE",
    "AIRFLOW__METRICS__STATSD_*",
    "AIRFLOW__WEBSERVER__SECRET_KEY",
    "AIRFLOW__WEBSERVER__CONFIG_FILE",
    "AIRFLOW__WEBSERVER__COOKIE_SECURE",
    "AIRFLOW__WEBSERVER__BASE_URL",
    "AIRFLOW__API__BASE_URL",
    "AIRFLOW__API__SECRET_KEY",
    "AIRFLOW__FAB__CONFIG_FILE",
    "AIRFLOW__SCHEDULER__STANDALONE_DAG_PROCESSOR",
    "AIRFLOW__CORE__AUTH_MANAGER",
    "AIRFLOW__CORE__EXECUTION_API_SERVER_URL",
    "AIRFLOW__CORE__MULTI_TEAM",
    "AIRFLOW__TRIGGERER__QUEUES_ENABLED",
    "AIRFLOW__API_AUTH__JWT_*",
    "AIRFLOW__AWS_MWAA__REDIRECT_URL",
    "AIRFLOW__CORE__DATABASE_ACCESS_ISOLATION",
]
"""What a user's option or startup script sets in vain: MWAA puts its own value last and says nothing."""

PROTECTED = [
    "AIRFLOW_ENV_ID",
    "AIRFLOW_ENV_NAME",
    "AIRFLOW_HOME",
    "AIRFLOW_TASK_REVISION_ID",
    "AIRFLOW_VERSION",
    "JWT_PUBLIC_KEY",
    "AWS_REGION",
    "AWS_DEFAULT_REGION",
    "CUSTOMER_ACCOUNT_ID",
    "ECS_*",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_EXECUTION_ENV",
    "PYTHONPATH",
    "PYTHONUNBUFFERED",
    "WATCHTOWER_VERSION",
    "USE_NON_CRITICAL_LOGGING",
    "MWAA__*",
    "AIRFLOW_CONN_AWS_DEFAULT",
]
"""Environment variables that a startup script sets in vain."""

CONSTRAINT_LINE = re.compile(r"-c |--constraint ")
"""How MWAA decides that a requirements.txt brings constraints of its own: anywhere on any line, comments included."""

CONSTRAINT_URL = re.compile(
    r"https://raw\.githubusercontent\.com/apache/airflow/constraints-([0-9a-z.]+)/constraints-([0-9.]+)\.txt"
)


def matches(name: str, patterns: list[str]) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


def option_variable(option: str) -> str:
    """``core.parallelism`` → ``AIRFLOW__CORE__PARALLELISM``, as MWAA writes configuration options."""
    return "AIRFLOW__" + option.replace(".", "__", 1).replace(".", "_").upper()


def process_environment(
    base: dict[str, str],
    opinionated: dict[str, str],
    startup: dict[str, str],
    options: dict[str, str],
    essential: dict[str, str],
) -> dict[str, str]:
    """What an environment's processes get.

    Later wins: machine, MWAA's opinions, startup script, configuration options, MWAA's essentials.
    """
    asked = {option_variable(name): value for name, value in options.items()}
    return {
        **base,
        **opinionated,
        **{k: v for k, v in startup.items() if not matches(k, RESERVED) and not matches(k, PROTECTED)},
        **{k: v for k, v in asked.items() if not matches(k, RESERVED)},
        **essential,
    }


def rewrite_requirements(text: str, home: Path, plugins: Path) -> str:
    """requirements.txt as this machine can install it.

    MWAA's folders are ours; constraint files that the Airflow project publishes are answered from the lab's own copies.

    :raises EngineError: a published constraints file that does not exist (or of which the lab has no copy).
    """

    def answer(found: re.Match[str]) -> str:
        copy = install.published_constraints(found[1], found[2])
        if copy is None:
            raise EngineError(
                BAD_CONFIGURATION,
                "Unable to install requirements.txt: ERROR: Could not open requirements file: 404 Client Error: "
                f"Not Found for url: {found[0]} (the lab answers for {', '.join(sorted(known_constraints()))})",
            )
        return str(copy)

    text = CONSTRAINT_URL.sub(answer, text)
    return text.replace("/usr/local/airflow/plugins", str(plugins)).replace(
        "/usr/local/airflow/dags", str(home / "dags")
    )


def known_constraints() -> list[str]:
    return [p.stem for p in (versions.HERE / "constraints").glob("*.txt") if not p.stem.endswith("-essential")]


def extract_plugins(archive: bytes, place: Path) -> None:
    """Unpack plugins.zip. :raises EngineError: it is no zip, or holds a path that leaves the folder."""
    try:
        with zipfile.ZipFile(io.BytesIO(archive)) as plugins:
            for name in plugins.namelist():
                parts = PurePosixPath(name).parts
                if name.startswith("/") or ".." in parts:
                    raise EngineError(
                        BAD_CONFIGURATION, f"plugins.zip holds {name!r}, which leaves the plugins folder."
                    )
            plugins.extractall(place)
    except zipfile.BadZipFile as problem:
        raise EngineError(BAD_CONFIGURATION, f"plugins.zip is not a zip archive: {problem}") from problem


@dataclass
class Build:
    """The part of an environment that an update may replace."""

    path: Path
    python: Path
    artefacts: dict[str, str]
    """What it was made of; the same again needs no new one."""
    startup: dict[str, str] = field(default_factory=dict)

    @property
    def plugins(self) -> Path:
        return self.path / "plugins"


@dataclass
class Environment:
    """A running environment."""

    spec: EnvSpec
    path: Path
    airflow: Airflow
    keys: dict[str, str]
    build: Build | None = None
    snapshot: str = ""
    """The database that a version change can be undone with, while one is on its way."""
    stop: threading.Event = field(default_factory=threading.Event)
    mirrored: dict[str, tuple[str, int]] = field(default_factory=dict)
    mirror_lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def name(self) -> str:
        return self.spec["Name"]

    @property
    def bucket(self) -> str:
        return self.spec["SourceBucketArn"].rsplit(":", 1)[-1]


class AirflowEngine:
    """The Engine (engine.py) whose environments are real."""

    def __init__(self, settings: EngineSettings) -> None:
        self.settings = settings
        self.lab = LabDir(settings.dir)
        self.postgres = Postgres(self.lab)
        self.supervisor = processes.Supervisor(self.lab)
        self.environments: dict[tuple[str, str, str], Environment] = {}

    # --- Engine ------------------------------------------------------------------------------------------------------

    def create(self, env: EnvSpec) -> None:
        try:
            row = versions.version(env["AirflowVersion"])
        except LabError as problem:
            raise EngineError(BAD_CONFIGURATION, str(problem)) from problem
        path = self.lab.environments / env["account"] / env["region"] / env["Name"]
        home = path / "home"
        (home / "dags").mkdir(parents=True, exist_ok=True)
        key = "env-" + re.sub(r"[^a-zA-Z0-9-]", "-", f"{env['Name']}-{env['account']}-{env['region']}")
        try:
            self.postgres.ensure()
            database = OnPostgres(self.postgres, key)
            airflow = Airflow(self.lab, database, self.supervisor, row, key, home, install.base(row) / "bin" / "python")
            airflow.port = processes.free_port()
            keys = {"fernet_key": fernet_key(), "secret_key": secret()}
            found = Environment(dict(env), path, airflow, keys)
            write_json(path / "environment.json", {"port": airflow.port, **keys}, mode=0o600)
            self.environments[_key(env)] = found
            self._mirror(found, found.spec)
            found.build = self._build(found, env, 1)
            airflow.python = found.build.python
            airflow.create_database()
        except (LabError, OSError, subprocess.SubprocessError, ClientError, BotoCoreError) as problem:
            raise EngineError("INTERNAL", f"{type(problem).__name__}: {problem}") from problem
        try:
            self._start(found, env, found.build)
        except (LabError, OSError) as problem:
            airflow.stop()
            raise EngineError(BAD_CONFIGURATION, f"The environment did not become healthy: {problem}") from problem
        threading.Thread(target=self._follow, args=(found,), name=f"follow {key}", daemon=True).start()

    def update(self, env: EnvSpec, changes: dict[str, Any]) -> None:
        found = self._find(env)
        if env["AirflowVersion"] != found.airflow.row.airflow:
            self._change_version(found, env)
            return
        before, old = found.spec, found.build
        assert old is not None
        number = int(old.path.name.rpartition("-")[2]) + 1
        try:
            if _source(env) != _source(before):
                self._mirror(found, env)
            build = self._build(found, env, number) if _artefacts(env) != old.artefacts else old
        except (LabError, OSError, subprocess.SubprocessError, ClientError, BotoCoreError) as problem:
            raise EngineError("INTERNAL", f"{type(problem).__name__}: {problem}") from problem
        if build is old and _processes(env) == _processes(before):
            found.spec = dict(env)  # sizes, tags, windows: nothing of it is in the processes
            return
        try:
            self._start(found, env, build)
        except (LabError, OSError) as problem:
            with contextlib.suppress(LabError, OSError):
                self._start(found, before, old)
            if build is not old:
                shutil.rmtree(build.path, ignore_errors=True)
            raise EngineError(BAD_CONFIGURATION, f"The environment did not become healthy: {problem}") from problem
        found.spec, found.build = dict(env), build
        if build is not old:
            shutil.rmtree(old.path, ignore_errors=True)

    def snapshot(self, env: EnvSpec) -> None:
        found = self._find(env)
        try:
            found.airflow.stop()
            self.postgres.copy(found.airflow.key, f"{found.airflow.key}-snapshot")
        except (LabError, OSError) as problem:
            raise EngineError("INTERNAL", f"No snapshot could be taken: {problem}") from problem
        found.snapshot = f"{found.airflow.key}-snapshot"

    def roll_back(self, env: EnvSpec) -> None:
        found = self._find(env)
        assert found.build is not None
        try:
            found.airflow.stop()
            if found.snapshot:
                self.postgres.replace(found.airflow.key, found.snapshot)
                found.snapshot = ""
            self._forget_settings(found)
            self._start(found, env, found.build)
        except (LabError, OSError) as problem:
            raise EngineError("INTERNAL", f"The environment could not be rolled back: {problem}") from problem
        self._remove_builds(found)

    def _change_version(self, found: Environment, env: EnvSpec) -> None:
        """Another Airflow on the database that is there, migrated by Airflow itself. Keys, home and port stay.

        :raises EngineError: what ``roll_back`` then undoes.
        """
        old, build = found.airflow, found.build
        assert build is not None
        number = int(build.path.name.rpartition("-")[2]) + 1
        try:
            row = versions.version(env["AirflowVersion"])
            new = replace(found, spec=dict(env), airflow=replace(old, row=row, environ={}))
            self._mirror(new, env)
            new.build = self._build(new, env, number)
            if row.parts < old.row.parts:  # only the newer one knows the way down
                self._database(old, ["db", "downgrade", "--to-version", row.airflow, "--yes"])
            self._forget_settings(new)
            new.airflow.python, new.airflow.environ = new.build.python, self._environ(new, env, new.build)
            self._database(new.airflow, row.migrate_command)
            try:
                self._start(new, env, new.build)
            except (LabError, OSError) as problem:
                raise EngineError(BAD_CONFIGURATION, f"The environment did not become healthy: {problem}") from problem
        except (LabError, OSError, subprocess.SubprocessError, ClientError, BotoCoreError) as problem:
            raise EngineError("INTERNAL", f"{type(problem).__name__}: {problem}") from problem
        found.spec, found.airflow, found.build = new.spec, new.airflow, new.build
        self.postgres.drop(found.snapshot)
        found.snapshot = ""
        self._remove_builds(found)

    @staticmethod
    def _database(airflow: Airflow, command: list[str]) -> None:
        run = airflow.run(command)
        (airflow.home / "logs").mkdir(exist_ok=True)
        (airflow.home / "logs" / "migrate.out").write_text(run.stdout + run.stderr)
        if run.returncode:
            words = f"{run.stderr.strip() or run.stdout.strip()}"[-1000:]
            said = f"airflow {' '.join(command)} of {airflow.row.airflow}"
            raise EngineError("INTERNAL", f"The metadata database could not be migrated: {said} failed: {words}")

    @staticmethod
    def _forget_settings(found: Environment) -> None:
        """Files that an Airflow writes with its own version's defaults, which another one would read as ours."""
        for name in ("airflow.cfg", "webserver_config.py"):
            (found.airflow.home / name).unlink(missing_ok=True)

    @staticmethod
    def _remove_builds(found: Environment) -> None:
        for path in found.path.glob("build-*"):
            if found.build is None or path != found.build.path:
                shutil.rmtree(path, ignore_errors=True)

    def delete(self, env: EnvSpec) -> None:
        found = self.environments.pop(_key(env), None)
        if found is None:
            return
        found.stop.set()
        with contextlib.suppress(Exception):
            found.airflow.stop()
        with contextlib.suppress(Exception):
            found.airflow.database.drop()
            if found.snapshot:
                self.postgres.drop(found.snapshot)
        with found.mirror_lock:
            shutil.rmtree(found.path, ignore_errors=True)

    def cli(self, env: EnvSpec, argv: list[str]) -> tuple[str, str]:
        run = self._find(env).airflow.run(argv)
        return run.stdout, run.stderr

    def rest(self, env: EnvSpec, method: str, path: str, query: dict[str, Any] | None, body: Any) -> tuple[int, Any]:
        try:
            return self._find(env).airflow.rest(method, path, query, body, role=env.get("airflow_role", "Admin"))
        except OSError as problem:
            return 503, {
                "title": "Service Unavailable",
                "status": 503,
                "detail": f"the web server does not answer: {problem}",
            }

    def describe(self, env: EnvSpec) -> dict[str, Any]:
        found = self.environments.get(_key(env))
        if found is None:
            return {}
        return {
            "airflow_home": str(found.airflow.home),
            "python": str(found.airflow.python),
            "database_url": found.airflow.database.url,
            "pids": found.airflow.pids(),
        }

    def configure(self, options: dict[str, Any]) -> dict[str, Any]:
        if options:
            raise ValueError("real Airflows cannot be told to behave: " + ", ".join(options))
        return {}

    def close(self) -> None:
        for found in list(self.environments.values()):
            found.stop.set()
            found.airflow.stop()

    # --- building and starting ---------------------------------------------------------------------------------------

    def _find(self, env: EnvSpec) -> Environment:
        if _key(env) not in self.environments:
            raise EngineError("INTERNAL", f"The lab runs no environment {env['Name']}.")
        return self.environments[_key(env)]

    def _build(self, found: Environment, env: EnvSpec, number: int) -> Build:
        """Interpreter, plugins and startup variables for what env asks.

        :raises EngineError: what the user gave is at fault.
        """
        path = found.path / f"build-{number}"
        shutil.rmtree(path, ignore_errors=True)
        python = install.overlay(found.airflow.row, path / "venv")
        build = Build(path, python, _artefacts(env))
        build.plugins.mkdir()
        try:
            if archive := self._artefact(env, "Plugins"):
                extract_plugins(archive, build.plugins)
            if script := self._artefact(env, "StartupScript"):
                if not found.airflow.row.startup_script:
                    raise EngineError(
                        BAD_CONFIGURATION, f"Airflow {found.airflow.row.airflow} takes no startup script: 2.2.2 does."
                    )
                build.startup = self._run_startup(found, env, build, script)
            if requirements := self._artefact(env, "Requirements"):
                self._install(found, env, build, requirements.decode("utf-8", "replace"))
        except BaseException:
            shutil.rmtree(path, ignore_errors=True)
            raise
        return build

    def _artefact(self, env: EnvSpec, kind: str) -> bytes | None:
        """The object, in the version, that an environment names for its plugins, requirements or startup script."""
        key = env.get(f"{kind}S3Path")
        if not key:
            return None
        bucket = env["SourceBucketArn"].rsplit(":", 1)[-1]
        version = env.get(f"{kind}S3ObjectVersion")
        try:
            reply = self.settings.aws.s3(env).get_object(
                Bucket=bucket, Key=key.lstrip("/"), **({"VersionId": version} if version else {})
            )
            return reply["Body"].read()
        except ClientError as problem:
            code = problem.response["Error"].get("Code", "")
            raise EngineError(
                BAD_CONFIGURATION, f"Unable to read s3://{bucket}/{key} version {version or 'latest'}: {code}"
            ) from problem

    def _install(self, found: Environment, env: EnvSpec, build: Build, text: str) -> None:
        """pip install as MWAA does it; the log goes to the environment's log group as requirements_install_*."""
        row = found.airflow.row
        listed = build.path / "requirements.txt"
        listed.write_text(rewrite_requirements(text, found.airflow.home, build.plugins))
        constraints = []
        if row.constrained:
            if row.essential.exists():
                constraints += ["--constraint", str(row.essential)]
            if not any(CONSTRAINT_LINE.search(line) for line in text.splitlines()):
                constraints += ["--constraint", str(row.constraints)]
        options = {option_variable(k): v for k, v in (env.get("AirflowConfigurationOptions") or {}).items()}
        argv = [
            build.python,
            "-m",
            "pip",
            "install",
            "--no-input",
            "--disable-pip-version-check",
            "--no-warn-script-location",
        ]
        try:
            run = subprocess.run(
                [*map(str, argv), *constraints, "--requirement", str(listed)],
                env={**install.installer_environment(), **build.startup, **options, "PIP_ROOT_USER_ACTION": "ignore"},
                cwd=build.path,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                timeout=PIP_SECONDS,
            )
            output, failed = run.stdout, run.returncode != 0
        except subprocess.TimeoutExpired as late:
            output, failed = str(late.output or "") + "\nERROR: pip took longer than 9 minutes", True
        (build.path / "requirements_install.log").write_text(output)
        LogShipper.once(
            self.settings.aws.logs(env), env, "Scheduler", f"requirements_install_{int(time.time())}", output
        )
        if failed:
            words = output[max(0, output.find("ERROR")) :].strip()[:1500]
            raise EngineError(BAD_CONFIGURATION, f"Unable to install requirements.txt: {words}")

    def _run_startup(self, found: Environment, env: EnvSpec, build: Build, script: bytes) -> dict[str, str]:
        """Run the startup script; the variables that it exports."""
        place = build.path / "startup.sh"
        place.write_bytes(script)
        before = self._environ(found, env, build)
        # The script is sourced, then its environment printed behind a zero byte, out of reach of what it prints itself.
        shell = 'source "$0" >&2 || exit $?; printf "\\0"; env -0'
        try:
            run = subprocess.run(
                ["bash", "-c", shell, place],
                env={**before, "MWAA_AIRFLOW_COMPONENT": "scheduler"},
                cwd=build.path,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=STARTUP_SECONDS,
            )
        except subprocess.TimeoutExpired as late:
            raise EngineError(BAD_CONFIGURATION, "The startup script took longer than 5 minutes.") from late
        LogShipper.once(
            self.settings.aws.logs(env),
            env,
            "Scheduler",
            f"startup_script_execution_{int(time.time())}",
            run.stderr.decode(),
        )
        if run.returncode:
            words = run.stderr.decode(errors="replace").strip()[-500:]
            raise EngineError(BAD_CONFIGURATION, f"The startup script failed with exit code {run.returncode}: {words}")
        printed = run.stdout.split(b"\0", 1)[-1].decode(errors="replace")
        after = dict(entry.split("=", 1) for entry in printed.split("\0") if "=" in entry)
        shells_own = {"_", "SHLVL", "PWD", "OLDPWD", "MWAA_AIRFLOW_COMPONENT"}
        return {k: v for k, v in after.items() if before.get(k) != v and k not in shells_own}

    def _environ(self, found: Environment, env: EnvSpec, build: Build) -> dict[str, str]:
        airflow, row = found.airflow, found.airflow.row
        lookup = json.dumps({"connections_lookup_pattern": "^(?!aws_default$).*$"})
        opinionated = {
            **airflow.modest(),
            "AIRFLOW__SCHEDULER__SCHEDULE_AFTER_TASK_EXECUTION": "False",
            "AIRFLOW__SCHEDULER__TASK_QUEUED_TIMEOUT": "1800.0",
        }
        if row.secrets_pattern:
            opinionated["AIRFLOW__SECRETS__BACKEND_KWARGS"] = lookup
        if row.major >= 3:
            opinionated["AIRFLOW__WORKERS__SECRETS_BACKEND_KWARGS"] = lookup
        essential = {
            **airflow.essential(found.keys["fernet_key"], airflow.database.url, found.keys["secret_key"]),
            **self.settings.aws.environ(env),
            "AIRFLOW_ENV_NAME": env["Name"],
            "AIRFLOW_ENV_ID": env["Arn"],
            "AIRFLOW_VERSION": row.airflow,
            "AIRFLOW_CONN_AWS_DEFAULT": "aws://",
            "AWS_EXECUTION_ENV": "Amazon_MWAA_" + row.airflow.replace(".", ""),
            "CUSTOMER_ACCOUNT_ID": env["account"],
            "AIRFLOW__METRICS__STATSD_ON": "False",
        }
        machine = self.lab.environment(HOME=str(airflow.home))
        machine["PATH"] = f"{build.python.parent}:{machine['PATH']}"
        options = env.get("AirflowConfigurationOptions") or {}
        return process_environment(machine, opinionated, build.startup, options, essential)

    def _start(self, found: Environment, env: EnvSpec, build: Build) -> None:
        """Run what env and build say in place of what runs. :raises LabError: it does not become healthy."""
        airflow = found.airflow
        airflow.stop()
        link = airflow.home / "plugins"
        link.unlink(missing_ok=True)
        link.symlink_to(build.plugins)
        airflow.python = build.python
        airflow.environ = self._environ(found, env, build)
        airflow.start()
        airflow.wait_healthy(HEALTHY_SECONDS)
        airflow.start_triggerer()

    # --- following bucket and logs -----------------------------------------------------------------------------------

    def _follow(self, found: Environment) -> None:
        logs = self.settings.aws.logs(found.spec)
        shipper = LogShipper(found.airflow.home / "logs", found.airflow.row.task_logs)
        while not found.stop.wait(MIRROR_SECONDS):
            with contextlib.suppress(ClientError, BotoCoreError, OSError):
                self._mirror(found, found.spec)
            shipper.pattern = found.airflow.row.task_logs  # a version change may have brought another
            with contextlib.suppress(ClientError, BotoCoreError, OSError):
                shipper.ship(logs, found.spec)
            with contextlib.suppress(LabError, OSError):
                self.postgres.ensure()

    def _mirror(self, found: Environment, env: EnvSpec) -> None:
        """Make the DAG folder what the bucket's is; only what changed is fetched."""
        bucket, prefix = _source(env)
        prefix = prefix.strip("/") + "/"
        s3 = self.settings.aws.s3(env)
        folder = found.airflow.home / "dags"
        with found.mirror_lock:
            if found.stop.is_set():
                return
            there: dict[str, tuple[str, int]] = {}
            for page in s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix):
                for entry in page.get("Contents", []):
                    name = entry["Key"][len(prefix) :]
                    if name and not name.endswith("/") and ".." not in PurePosixPath(name).parts:
                        there[name] = (entry["ETag"], entry["Size"])
            draft = found.path / "download"
            for name, version in there.items():
                if found.mirrored.get(name) == version:
                    continue
                draft.write_bytes(s3.get_object(Bucket=bucket, Key=prefix + name)["Body"].read())
                place = folder / name
                place.parent.mkdir(parents=True, exist_ok=True)
                draft.replace(place)
                found.mirrored[name] = version
            for name in set(found.mirrored) - set(there):
                (folder / name).unlink(missing_ok=True)
                for parent in list((folder / name).parents):
                    if parent == folder or not _empty(parent):
                        break
                    parent.rmdir()
                del found.mirrored[name]


def _empty(folder: Path) -> bool:
    """Holds nothing but bytecode."""
    left = [entry for entry in folder.iterdir() if entry.name != "__pycache__"] if folder.is_dir() else [folder]
    if not left:
        shutil.rmtree(folder / "__pycache__", ignore_errors=True)
    return not left


def _key(env: EnvSpec) -> tuple[str, str, str]:
    return env["account"], env["region"], env["Name"]


def _source(env: EnvSpec) -> tuple[str, str]:
    return env["SourceBucketArn"].rsplit(":", 1)[-1], env["DagS3Path"]


def _artefacts(env: EnvSpec) -> dict[str, str]:
    """What a build is made of. Options are in it where pip or the startup script may read them."""
    kinds = ("Plugins", "Requirements", "StartupScript")
    found = {f: str(env[f]) for kind in kinds for f in (f"{kind}S3Path", f"{kind}S3ObjectVersion") if env.get(f)}
    return {**found, "bucket": _source(env)[0]} if found else {}


def _processes(env: EnvSpec) -> Any:
    """What the processes get from the environment's settings besides the build."""
    return env.get("AirflowConfigurationOptions") or {}, env["ExecutionRoleArn"]
