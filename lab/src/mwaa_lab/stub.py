# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An engine without an Airflow: each environment is a few dictionaries that answer as Airflow's REST API and CLI would.

For tests of what surrounds Airflow: states, limits, idempotence, masking, paging, faults. The answers are those of
Airflow 2.11 (``/api/v1``) and 3.2 (``/api/v2``), odd ones included; what such tests do not need is a plain 404.
"""

from __future__ import annotations

import ast
import contextlib
import copy
import fnmatch
import json
import os
import posixpath
import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any
from urllib.parse import unquote

from botocore.exceptions import ClientError

from mwaa_lab import stub_agent
from mwaa_lab.aws.limits import version_tuple
from mwaa_lab.engine import EngineError, EngineSettings, EnvSpec

Answer = tuple[int, Any]

_OPTIONS: dict[str, Any] = {
    "create_seconds": 0.5,
    "update_seconds": 0.5,
    "delete_seconds": 0.2,
    "rest_seconds": 0.0,
    "cli_seconds": 0.0,
    "hold": False,  # creations, updates and deletions wait until it is false again
    "fail_create": None,  # a message: creations fail with it until it is None again
    "fail_update": None,
    "fail_roll_back": None,  # a message: a version change that failed cannot be undone, and ends UNAVAILABLE
    "run_state": "success",  # how a run of an unpaused DAG ends
    "xcom": {},  # dag_id -> the value of every XCom entry of its runs
    "schedule_seconds": None,  # how often DAGs of the migration's own that have a schedule run; none of the others does
}


class StubEngine:
    """See ``mwaa_lab.engine.Engine``. Options come from ``MWAA_LAB_STUB_<NAME>`` (JSON) and ``POST /_lab/stub``."""

    def __init__(self, settings: EngineSettings) -> None:
        self._aws = settings.aws
        self._airflows: dict[tuple[str, str, str], Airflow] = {}
        self._lock = threading.Lock()
        self.options = dict(_OPTIONS)
        for name in _OPTIONS:
            text = os.environ.get(f"MWAA_LAB_STUB_{name.upper()}")
            if text:
                self.options[name] = json.loads(text)

    def configure(self, options: dict[str, Any]) -> dict[str, Any]:
        given = dict(options)
        if given.pop("reset", False):
            self.options = dict(_OPTIONS)
        unknown = set(given) - set(_OPTIONS)
        if unknown:
            raise ValueError(
                f"the stub engine has no option {', '.join(sorted(unknown))}; it has {', '.join(_OPTIONS)}"
            )
        self.options.update(given)
        return dict(self.options)

    def create(self, env: EnvSpec) -> None:
        self._take_time("create_seconds")
        if self.options["fail_create"]:
            raise EngineError("INCORRECT_CONFIGURATION", self.options["fail_create"])
        self._check_objects(env)
        with self._lock:
            self._airflows[_key(env)] = Airflow(settings=_settings(env))
        threading.Thread(target=self._schedule, args=(dict(env),), name="stub scheduler", daemon=True).start()

    def update(self, env: EnvSpec, changes: dict[str, Any]) -> None:
        self._take_time("update_seconds")
        airflow, settings = self._airflow(env), _settings(env)
        # What asks for nothing new cannot fail: CloudFormation's rollback of an update asks for what is there.
        if self.options["fail_update"] and (airflow is None or airflow.settings != settings):
            raise EngineError("INCORRECT_CONFIGURATION", self.options["fail_update"])
        self._check_objects(env)
        if airflow is not None:
            airflow.settings = settings

    def snapshot(self, env: EnvSpec) -> None:
        """Its database is a few dictionaries, which every version reads."""

    def roll_back(self, env: EnvSpec) -> None:
        if self.options["fail_roll_back"]:
            raise EngineError("INTERNAL", self.options["fail_roll_back"])

    def delete(self, env: EnvSpec) -> None:
        self._take_time("delete_seconds")
        with self._lock:
            self._airflows.pop(_key(env), None)

    def _take_time(self, option: str) -> None:
        time.sleep(self.options[option])
        while self.options["hold"]:
            time.sleep(0.02)

    def _schedule(self, env: EnvSpec) -> None:
        """The scheduler of one environment: the migration's own DAGs by their schedules, all others never."""
        airflow, last = self._airflow(env), time.monotonic()
        while airflow is not None and self._airflow(env) is airflow:
            time.sleep(0.2)
            every = self.options["schedule_seconds"]
            if every is None or time.monotonic() - last < every:
                continue
            last = time.monotonic()
            api = V1(airflow, env["AirflowVersion"], self._dags(env))
            for dag_id, dag in api.dags().dags.items():
                if dag.get("schedule") and not airflow.paused.get(dag_id):
                    with airflow.lock:
                        run = api.trigger(dag_id, {"dag_run_id": f"minutely__{_now()}"})
                        run["begun"] = True
                    self._work(env, api, dag_id, run)

    def _start(self, env: EnvSpec, api: _Api) -> None:
        """Let runs of the migration's own DAGs begin."""
        for dag_id, run in api.fresh_runs():
            threading.Thread(target=self._work, args=(env, api, dag_id, run), daemon=True).start()

    def _work(self, env: EnvSpec, api: _Api, dag_id: str, run: dict[str, Any]) -> None:
        """One run: its task over the stand-in for Airflow, and what it changed."""
        airflow, dag = api.airflow, api.dags().dags[dag_id]
        with airflow.one_at_a_time:  # max_active_runs
            run.update(state="running", start_date=_now())
            with airflow.lock:
                bag = api.dags()
                state = {kind: copy.deepcopy(getattr(airflow, kind)) for kind in ("variables", "connections", "pools")}
                state["dags"] = [
                    {
                        "dag_id": name,
                        "is_paused": airflow.paused[name],
                        "fileloc": f"/usr/local/airflow/dags/{it['file']}",
                    }
                    for name, it in sorted(bag.dags.items())
                ]
                state["import_errors"] = [
                    {"filename": name, "stack_trace": text.strip().splitlines()[-1]}
                    for name, text in bag.errors.items()
                ]
            task = (run["dag_run_id"], run["conf"], state)
            done = stub_agent.run(dag["code"], dag["file"], env["AirflowVersion"], self._task_environment(env), *task)
            with airflow.lock:
                for kind, items in done.get("changes", {}).items():
                    stored = getattr(airflow, kind)
                    for identifier, item in items.items():
                        stored.pop(identifier, None)
                        if item is not None:
                            stored[identifier] = item
                for key, value in done.get("xcoms", {}).items():
                    airflow.xcoms.append({"dag_id": dag_id, "run_id": run["dag_run_id"], "key": key, "value": value})
                run.update(state="failed" if done["error"] else "success", end_date=_now(), note=done["error"])
            for wanted in done.get("triggers", []):
                with airflow.lock, contextlib.suppress(_Problem):  # a run id that is taken
                    api.trigger(wanted["dag_id"], {"dag_run_id": wanted["run_id"], "conf": wanted["conf"]})
        self._start(env, api)

    def _task_environment(self, env: EnvSpec) -> dict[str, str]:
        kept = {name: os.environ[name] for name in ("PATH", "PYTHONPATH", "TMPDIR") if name in os.environ}
        return {**kept, **self._aws.environ(env), "AIRFLOW_ENV_NAME": env["Name"]}

    def close(self) -> None:
        self.options["hold"] = False
        self._airflows.clear()

    def describe(self, env: EnvSpec) -> dict[str, Any]:
        return {"engine": "stub", "pids": []}

    def rest(self, env: EnvSpec, method: str, path: str, query: dict[str, Any] | None, body: Any) -> Answer:
        time.sleep(self.options["rest_seconds"])
        airflow = self._airflow(env)
        if airflow is None:
            return 503, {"detail": "The web server is not up."}
        api = (V2 if env["AirflowVersion"].startswith("3.") else V1)(airflow, env["AirflowVersion"], self._dags(env))
        if not may(env.get("airflow_role", "Admin"), method, path):
            return 403, api.problem(_Problem(403, "Forbidden" if isinstance(api, V2) else None, "Forbidden"))
        with airflow.lock:
            given = {key: value for key, value in (query or {}).items() if value is not None}
            answer = api.answer(method, path, given, body)
        self._start(env, api)
        return answer

    def cli(self, env: EnvSpec, argv: list[str]) -> tuple[str, str]:
        time.sleep(self.options["cli_seconds"])
        airflow = self._airflow(env)
        if airflow is None:
            return "", "The web server is not up."
        with airflow.lock:
            dags = self._dags(env)
            answer = Cli(airflow, env["AirflowVersion"], dags).run(argv)
        self._start(env, V1(airflow, env["AirflowVersion"], dags))
        return answer

    def _airflow(self, env: EnvSpec) -> Airflow | None:
        with self._lock:
            return self._airflows.get(_key(env))

    def _check_objects(self, env: EnvSpec) -> None:
        s3, bucket = self._aws.s3(env), _bucket(env)
        for member in ("Plugins", "Requirements", "StartupScript"):
            path = env.get(f"{member}S3Path")
            if not path:
                continue
            wanted = {"VersionId": env[f"{member}S3ObjectVersion"]} if env.get(f"{member}S3ObjectVersion") else {}
            try:
                s3.head_object(Bucket=bucket, Key=path, **wanted)
            except s3.exceptions.ClientError:
                version = f" in version {wanted['VersionId']}" if wanted else ""
                raise EngineError(
                    "INCORRECT_CONFIGURATION", f"Cannot read s3://{bucket}/{path}{version} ({member}S3Path)."
                ) from None

    def _dags(self, env: EnvSpec) -> Callable[[], DagBag]:
        """The DAG folder's content, read from the bucket when somebody asks."""

        def read() -> DagBag:
            airflow = self._airflow(env)
            if airflow is None:
                return DagBag({}, {})
            with contextlib.suppress(ClientError):  # the execution role may not read it: there are no DAGs
                return look(airflow)
            return DagBag({}, {})

        def look(airflow: Airflow) -> DagBag:
            s3, bucket, prefix = self._aws.s3(env), _bucket(env), env["DagS3Path"].strip("/") + "/"
            found: dict[str, str] = {}
            ignored: dict[str, list[str]] = {}  # by the folder that the .airflowignore stands in
            for page in s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix):
                for item in page.get("Contents", []):
                    name = item["Key"][len(prefix) :]
                    if name.endswith(".py") or posixpath.basename(name) == ".airflowignore":
                        mark = (item["Key"], item["ETag"])
                        if mark not in airflow.files:
                            content = s3.get_object(Bucket=bucket, Key=item["Key"])["Body"].read()
                            airflow.files[mark] = content.decode("utf-8", "replace")
                        if posixpath.basename(name) == ".airflowignore":
                            lines = airflow.files[mark].splitlines()
                            ignored[posixpath.dirname(name)] = [line.partition("#")[0].strip() for line in lines]
                        elif name.endswith(".py"):
                            found[name] = airflow.files[mark]
            paused = (env.get("AirflowConfigurationOptions") or {}).get("core.dags_are_paused_at_creation", "True")
            syntax = _ignore_syntax(env)
            seen = {name: text for name, text in found.items() if not _is_ignored(name, ignored, syntax)}
            own = {name: text for name, text in seen.items() if name.startswith(f"{stub_agent.FOLDER}/")}
            bag = parse_dags({name: text for name, text in seen.items() if name not in own})
            self._parse_own(env, airflow, own, bag)
            for dag_id, dag in bag.dags.items():
                default = dag["paused"] if dag["paused"] is not None else paused.lower() == "true"
                airflow.paused.setdefault(dag_id, default)
            airflow.run_state, airflow.xcom = self.options["run_state"], self.options["xcom"]
            return bag

        return read

    def _parse_own(self, env: EnvSpec, airflow: Airflow, own: dict[str, str], bag: DagBag) -> None:
        """The migration's own DAG files are run to be read, as Airflow does; once for each content."""
        for name in sorted(name for name in own if not _never_dags(name)):
            mark = (name, own[name])
            if mark not in airflow.parsed:
                airflow.parsed[mark] = stub_agent.parse(
                    {name: own[name]}, name, env["AirflowVersion"], self._task_environment(env)
                )
            found = airflow.parsed[mark]
            if found["error"]:
                bag.errors[name] = found["error"]
            for dag_id, dag in found["dags"].items():
                bag.dags[dag_id] = {"file": name, "code": own, **dag}


def _never_dags(name: str) -> bool:
    return name.startswith(f"{stub_agent.FOLDER}/airflow_")  # the agent's own files


def may(role: str, method: str, path: str) -> bool:
    """Whether one of Airflow's default roles may make this call, as far as the stub answers it (FAB's security.py)."""
    rank = ("Public", "Viewer", "User", "Op", "Admin").index(role)
    kind = path.strip("/").partition("/")[0]
    if rank >= 3 or kind in ("health", "monitor", "version"):
        return True
    if kind == "dags":
        return rank >= (1 if method == "GET" else 2)
    return rank >= 1 and method == "GET" and kind in ("importErrors", "pools", "eventLogs")


def _key(env: EnvSpec) -> tuple[str, str, str]:
    return env["account"], env["region"], env["Name"]


def _settings(env: EnvSpec) -> dict[str, Any]:
    """What an update can change of an environment."""
    return copy.deepcopy({key: value for key, value in env.items() if key not in ("Status", "LastUpdate", "Tags")})


def _bucket(env: EnvSpec) -> str:
    return env["SourceBucketArn"].rpartition(":")[2]


# --- what an Airflow knows -------------------------------------------------------------------------------------------


@dataclass
class Airflow:
    """The state of one environment's metadata database, as far as the stub has one."""

    settings: dict[str, Any] = field(default_factory=dict)
    variables: dict[str, dict[str, Any]] = field(default_factory=dict)
    connections: dict[str, dict[str, Any]] = field(default_factory=dict)
    pools: dict[str, dict[str, Any]] = field(
        default_factory=lambda: {
            "default_pool": {"slots": 128, "description": "Default pool", "include_deferred": False}
        }
    )
    paused: dict[str, bool] = field(default_factory=dict)
    runs: dict[str, dict[str, dict[str, Any]]] = field(default_factory=dict)
    files: dict[tuple[str, str], str] = field(default_factory=dict)
    parsed: dict[tuple[str, str], dict[str, Any]] = field(default_factory=dict)
    xcoms: list[dict[str, Any]] = field(default_factory=list)
    one_at_a_time: threading.Lock = field(default_factory=threading.Lock)
    run_state: str = "success"
    xcom: dict[str, Any] = field(default_factory=dict)
    lock: threading.RLock = field(default_factory=threading.RLock)


@dataclass
class DagBag:
    dags: dict[str, dict[str, Any]]
    errors: dict[str, str]


def _ignore_syntax(env: EnvSpec) -> str:
    default = "regexp" if int(env["AirflowVersion"].split(".")[0]) < 3 else "glob"
    return (env.get("AirflowConfigurationOptions") or {}).get("core.dag_ignore_file_syntax") or default


def _is_ignored(name: str, patterns: dict[str, list[str]], syntax: str) -> bool:
    """patterns: by folder. Regular expressions are matched with the path in the DAG folder, globs in their own."""
    for folder, lines in patterns.items():
        if folder and not name.startswith(f"{folder}/"):
            continue
        wanted = [line for line in lines if line]
        if syntax == "regexp":
            if any(re.search(pattern, name) for pattern in wanted):
                return True
            continue
        inner = name[len(folder) + 1 :] if folder else name
        globs = [pattern.strip("/") for pattern in wanted]
        if any(fnmatch.fnmatch(inner, glob) or fnmatch.fnmatch(inner, f"{glob}/*") for glob in globs):
            return True
    return False


def parse_dags(files: dict[str, str]) -> DagBag:
    """DAG ids that files name in the open, and the files that do not compile. Nothing of them is run."""
    bag = DagBag({}, {})
    for name, text in sorted(files.items()):
        try:
            tree = ast.parse(text)
        except (SyntaxError, ValueError) as error:
            bag.errors[name] = f"Traceback (most recent call last):\n  File {name!r}\n{type(error).__name__}: {error}\n"
            continue
        for node in ast.walk(tree):
            for dag_id, paused in _dag_ids(node):
                bag.dags[dag_id] = {"file": name, "paused": paused}
    return bag


def _dag_ids(node: ast.AST) -> list[tuple[str, bool | None]]:
    found = []
    calls: list[tuple[ast.expr, str | None]] = []
    if isinstance(node, ast.FunctionDef):
        calls = [(decorator, node.name) for decorator in node.decorator_list]
    elif isinstance(node, ast.Call):
        calls = [(node, None)]
    for expression, default in calls:
        target = expression.func if isinstance(expression, ast.Call) else expression
        name = target.attr if isinstance(target, ast.Attribute) else getattr(target, "id", "")
        if name != ("dag" if default else "DAG"):
            continue
        dag_id: Any = default
        paused: Any = None
        if isinstance(expression, ast.Call):
            if expression.args and isinstance(expression.args[0], ast.Constant):
                dag_id = expression.args[0].value
            for keyword in expression.keywords:
                if isinstance(keyword.value, ast.Constant):
                    dag_id = keyword.value.value if keyword.arg == "dag_id" else dag_id
                    paused = keyword.value.value if keyword.arg == "is_paused_upon_creation" else paused
        if isinstance(dag_id, str):
            found.append((dag_id, paused))
    return found


SENSITIVE = [
    "access_key",
    "access_token",
    "api_key",
    "apikey",
    "authorization",
    "connection_string",
    "passphrase",
    "passwd",
    "password",
    "private_key",
    "proxy",
    "proxy_password",
    "proxies",
    "secret",
    "token",
    "keyfile_dict",
    "service_account",
]
_DEPTH = 5


def is_sensitive(name: Any) -> bool:
    return isinstance(name, str) and any(word in name.strip().lower() for word in SENSITIVE)


def redact(value: Any, name: Any = None, depth: int = 0) -> Any:
    """Airflow's secrets masker by key names."""
    if depth > _DEPTH:
        return value
    if is_sensitive(name):
        return _redact_all(value, depth)
    if isinstance(value, dict):
        return {key: redact(item, key, depth + 1) for key, item in value.items()}
    if isinstance(value, list):
        return [redact(item, None, depth + 1) for item in value]
    return value


def _redact_all(value: Any, depth: int) -> Any:
    if depth > _DEPTH or isinstance(value, str):
        return "***"
    if isinstance(value, dict):
        return {key: _redact_all(item, depth + 1) for key, item in value.items()}
    if isinstance(value, list):
        return [_redact_all(item, depth + 1) for item in value]
    return value


def merge(new: Any, old: Any, name: Any = None) -> Any:
    """Airflow 3 keeps the old secret where a body brings back the mask that stood for it."""
    if isinstance(new, dict) and isinstance(old, dict):
        return {key: merge(item, old.get(key), key if not is_sensitive(name) else name) for key, item in new.items()}
    return old if new == "***" and is_sensitive(name) else new


def _now() -> str:
    return datetime.now(timezone.utc).isoformat()


class _Problem(Exception):
    def __init__(self, status: int, detail: Any, title: str = "") -> None:
        super().__init__(status)
        self.status, self.detail, self.title = status, detail, title


class _Api:
    """Routing and paging that both API versions share; ``routes`` has method, path pattern, and who answers."""

    routes: list[tuple[str, str, str]] = []
    page = 100

    def __init__(self, airflow: Airflow, version: str, dags: Callable[[], DagBag]) -> None:
        self.airflow = airflow
        self.version = version
        self.dags = dags
        self.query: dict[str, Any] = {}
        self.body: Any = None

    def answer(self, method: str, path: str, query: dict[str, Any], body: Any) -> Answer:
        self.query, self.body = query, body
        allowed = False
        for wanted, pattern, name in self.routes:
            match = re.fullmatch(pattern, path.rstrip("/") or "/")
            if match is None:
                continue
            allowed = True
            if wanted == method:
                try:
                    return getattr(self, name)(*[unquote(group) for group in match.groups()])
                except _Problem as problem:
                    return problem.status, self.problem(problem)
        return self.no_route(method_known=allowed)

    def problem(self, problem: _Problem) -> dict[str, Any]:
        raise NotImplementedError

    def no_route(self, *, method_known: bool) -> Answer:
        raise NotImplementedError

    def bad_page(self, name: str, value: Any) -> _Problem:
        raise NotImplementedError

    def slice(self, items: list[Any]) -> list[Any]:
        numbers = {"limit": self.page, "offset": 0}
        for name in numbers:
            value = self.query.get(name, numbers[name])
            try:
                numbers[name] = int(value)
            except (TypeError, ValueError):
                raise self.bad_page(name, value) from None
            if numbers[name] < 0:
                raise self.bad_page(name, value)
        return items[numbers["offset"] : numbers["offset"] + min(numbers["limit"] or self.page, 100)]

    def mask(self) -> list[str]:
        mask = self.query.get("update_mask")
        if mask is None:
            return []
        words = mask if isinstance(mask, list) else str(mask).split(",")
        return [word.strip() for word in words if word.strip()]

    def matching(self, items: dict[str, Any], parameter: str) -> list[str]:
        pattern = str(self.query.get(parameter) or "")
        wanted = re.compile(
            ".*".join(re.escape(part) for part in re.split("[%~]", pattern)).replace("_", "."), re.IGNORECASE
        )
        return [key for key in items if wanted.search(key)] if pattern.strip("%~") else list(items)

    def dag(self, dag_id: str) -> dict[str, Any]:
        found = self.dags().dags.get(dag_id)
        if found is None:
            raise self.no_dag(dag_id)
        return found

    def no_dag(self, dag_id: str) -> _Problem:
        return _Problem(404, f"The DAG with dag_id: {dag_id} was not found", "DAG not found")

    def run(self, dag_id: str, run_id: str) -> dict[str, Any]:
        self.dag(dag_id)
        found = self.airflow.runs.get(dag_id, {}).get(run_id)
        if found is None:
            raise _Problem(
                404, f"The DagRun with dag_id: `{dag_id}` and run_id: `{run_id}` was not found", "DAGRun not found"
            )
        own = "code" in self.dag(dag_id)
        if found["state"] == "queued" and not self.airflow.paused.get(dag_id) and not own:
            # Seen once as queued, then it has run: enough for whoever polls.
            found.update(state=self.airflow.run_state, start_date=_now(), end_date=_now())
        return found

    def trigger(self, dag_id: str, body: dict[str, Any]) -> dict[str, Any]:
        if dag_id not in self.dags().dags:
            raise _Problem(404, f"DAG with dag_id: '{dag_id}' not found", "DAG not found")
        run_id = body.get("dag_run_id") or f"manual__{_now()}"
        if run_id.startswith(("scheduled__", "backfill__")):
            raise _Problem(400, f"The run_id {run_id!r} is reserved for {run_id.partition('_')[0]} runs", "Bad Request")
        runs = self.airflow.runs.setdefault(dag_id, {})
        if run_id in runs:
            raise _Problem(409, f"DAGRun with DAG ID: '{dag_id}' and DAGRun ID: '{run_id}' already exists", "Conflict")
        moment = body.get("logical_date") or _now()
        runs[run_id] = {
            "dag_id": dag_id,
            "dag_run_id": run_id,
            "logical_date": moment,
            "data_interval_start": moment,
            "data_interval_end": moment,
            "start_date": None,
            "end_date": None,
            "last_scheduling_decision": None,
            "state": "queued",
            "run_type": "manual",
            "conf": body.get("conf") or {},
            "note": body.get("note"),
        }
        return runs[run_id]

    def fresh_runs(self) -> list[tuple[str, dict[str, Any]]]:
        """Queued runs of the migration's own DAGs that may begin; they count as begun."""
        found = []
        with self.airflow.lock:
            for dag_id, runs in self.airflow.runs.items():
                for run in runs.values():
                    waits = run["state"] == "queued" and not run.get("begun") and not self.airflow.paused.get(dag_id)
                    if waits and "code" in self.dags().dags.get(dag_id, {}):
                        run["begun"] = True
                        found.append((dag_id, run))
        return found

    def delete_dag(self, dag_id: str) -> Answer:
        self.dag(dag_id)
        self.airflow.runs.pop(dag_id, None)
        self.airflow.paused.pop(dag_id, None)
        self.airflow.xcoms = [entry for entry in self.airflow.xcoms if entry["dag_id"] != dag_id]
        return 204, None

    def list_xcoms(self, dag_id: str, run_id: str, task_id: str) -> Answer:
        self.dag(dag_id)
        found = [
            {"key": entry["key"], "dag_id": dag_id, "task_id": task_id, "map_index": -1}
            for entry in self.airflow.xcoms
            if entry["dag_id"] == dag_id and run_id in ("~", entry["run_id"])
        ]
        return 200, {"xcom_entries": self.slice(found), "total_entries": len(found)}

    def xcom_entry(self, dag_id: str, run_id: str, task_id: str, key: str) -> dict[str, Any]:
        run = self.run(dag_id, run_id)
        if dag_id not in self.airflow.xcom:
            raise _Problem(404, f"XCom entry with key: `{key}` not found", "XCom entry not found")
        return {
            "key": key,
            "timestamp": _now(),
            "logical_date": run["logical_date"],
            "map_index": -1,
            "task_id": task_id,
            "dag_id": dag_id,
            "value": self.airflow.xcom[dag_id],
        }

    def health(self) -> Answer:
        beat = _now()
        return 200, {
            "metadatabase": {"status": "healthy"},
            "scheduler": {"status": "healthy", "latest_scheduler_heartbeat": beat},
            "triggerer": {"status": "healthy", "latest_triggerer_heartbeat": beat},
            "dag_processor": {"status": "healthy", "latest_dag_processor_heartbeat": beat},
        }

    def version_info(self) -> Answer:
        return 200, {"version": self.version, "git_version": None}

    def import_errors(self) -> Answer:
        errors = [
            {"import_error_id": index + 1, "timestamp": _now(), "filename": name, "stack_trace": text}
            for index, (name, text) in enumerate(self.dags().errors.items())
        ]
        return 200, {"import_errors": self.slice(errors), "total_entries": len(errors)}

    def get_config(self) -> Answer:
        raise _Problem(403, "Your Airflow administrator chose not to expose the configuration.", "Forbidden")


_DAG_ROUTES = [
    ("GET", "/dags", "get_dags"),
    ("PATCH", "/dags", "patch_dags"),
    ("GET", "/dags/([^/]+)", "get_dag"),
    ("GET", "/dags/([^/]+)/details", "get_dag"),
    ("PATCH", "/dags/([^/]+)", "patch_dag"),
    ("GET", "/dags/([^/]+)/dagRuns", "get_runs"),
    ("POST", "/dags/([^/]+)/dagRuns", "post_run"),
    ("GET", "/dags/([^/]+)/dagRuns/([^/]+)", "get_run"),
    ("DELETE", "/dags/([^/]+)/dagRuns/([^/]+)", "delete_run"),
    ("GET", "/dags/([^/]+)/dagRuns/([^/]+)/taskInstances", "get_tasks"),
    ("GET", "/dags/([^/]+)/dagRuns/([^/]+)/taskInstances/([^/]+)/xcomEntries/([^/]+)", "get_xcom"),
    ("GET", "/dags/([^/]+)/dagRuns/([^/]+)/taskInstances/([^/]+)/xcomEntries", "list_xcoms"),
    ("DELETE", "/dags/([^/]+)", "delete_dag"),
    ("GET", "/importErrors", "import_errors"),
    ("GET", "/version", "version_info"),
    ("GET", "/config", "get_config"),
]
_STATE_ROUTES = [
    (method, f"/{kind}s{item}", f"{method.lower()}_{kind}{'' if item or method == 'POST' else 's'}")
    for kind in ("variable", "connection", "pool")
    for method, item in (("GET", ""), ("POST", ""), ("GET", "/(.+)"), ("PATCH", "/(.+)"), ("DELETE", "/(.+)"))
]

_CONNECTION_FIELDS = ("conn_type", "description", "host", "login", "schema", "port", "password", "extra")
_KEY = re.compile(r"[\w.-]+")


class V1(_Api):
    """Airflow 2.11's ``/api/v1``."""

    routes = [*_DAG_ROUTES, *_STATE_ROUTES, ("GET", "/health", "health")]
    _ERRORS = {
        400: "BadRequest",
        403: "PermissionDenied",
        404: "NotFound",
        405: "MethodNotAllowed",
        409: "AlreadyExists",
    }

    def problem(self, problem: _Problem) -> dict[str, Any]:
        anchor = self._ERRORS.get(problem.status, "Unknown")
        return {
            "detail": problem.detail,
            "status": problem.status,
            "title": problem.title,
            "type": f"https://airflow.apache.org/docs/apache-airflow/{self.version}/stable-rest-api-ref.html"
            f"#section/Errors/{anchor}",
        }

    def no_route(self, *, method_known: bool) -> Answer:
        if method_known:
            status, title, detail = 405, "Method Not Allowed", "The method is not allowed for the requested URL."
        else:
            status, title = 404, "Not Found"
            detail = (
                "The requested URL was not found on the server. If you entered the URL manually please check your "
                "spelling and try again."
            )
        return status, {"detail": detail, "status": status, "title": title, "type": "about:blank"}

    def bad_page(self, name: str, value: Any) -> _Problem:
        if str(value).lstrip("-").isdigit():
            return _Problem(400, None, "Page limit must be a positive integer")
        return _Problem(400, f"Wrong type, expected 'integer' for query parameter '{name}'", "Bad Request")

    def _load(
        self, fields: dict[str, type | tuple[type, ...]], required: tuple[str, ...], title: str
    ) -> dict[str, Any]:
        """A JSON body as the API's schema takes it: types by the OpenAPI document, members by marshmallow."""
        if not isinstance(self.body, dict):
            raise _Problem(400, "Request body must not be empty", "Bad Request")
        for name, value in self.body.items():
            kinds = fields.get(name)
            if kinds and (not isinstance(value, kinds) or (isinstance(value, bool) and kinds is int)):
                first = kinds[0] if isinstance(kinds, tuple) else kinds
                word = {str: "string", int: "integer", bool: "boolean"}[first]
                raise _Problem(400, f"{value!r} is not of type '{word}' - '{name}'", "Bad Request")
        wrong = {name: ["Unknown field."] for name in self.body if name not in fields}
        wrong.update({name: ["Missing data for required field."] for name in required if name not in self.body})
        if wrong:
            raise _Problem(400, str(wrong), title)
        return dict(self.body)

    def _masked(self, data: dict[str, Any], fixed: tuple[str, ...]) -> dict[str, Any]:
        mask = self.mask()
        for name in mask:
            if name in fixed or name not in data:
                raise _Problem(400, f"'{name}' is unknown or cannot be updated.", "Bad Request")
        return {name: data[name] for name in mask} if mask else data

    # variables

    def _show_variable(self, key: str) -> dict[str, Any]:
        return {"description": self.airflow.variables[key]["description"], "key": key, **self._value(key)}

    def _value(self, key: str) -> dict[str, Any]:
        return {"value": self.airflow.variables[key]["value"]}

    def _variable(self, key: str) -> dict[str, Any]:
        if key not in self.airflow.variables:
            raise _Problem(404, "Variable does not exist", "Variable not found")
        return self.airflow.variables[key]

    def _load_variable(self) -> dict[str, Any]:
        fields: dict[str, Any] = {"key": str, "value": str, "description": (str, type(None))}
        data = self._load(fields, ("key", "value"), "Invalid Variable schema")
        if data.get("description", "") is None:
            raise _Problem(400, "{'description': ['Field may not be null.']}", "Invalid Variable schema")
        return data

    def get_variables(self) -> Answer:
        items = [self._show_variable(key) for key in self.slice(list(self.airflow.variables))]
        return 200, {"variables": items, "total_entries": len(self.airflow.variables)}

    def get_variable(self, key: str) -> Answer:
        self._variable(key)
        return 200, self._show_variable(key)

    def post_variable(self) -> Answer:
        data = self._load_variable()
        # 2.x overwrites without a word; the row is deleted and made anew.
        self.airflow.variables.pop(data["key"], None)
        self.airflow.variables[data["key"]] = {"value": data["value"], "description": data.get("description")}
        return 200, data

    def patch_variable(self, key: str) -> Answer:
        data = self._load_variable()
        if data["key"] != key:
            raise _Problem(400, "key from request body doesn't match uri parameter", "Invalid post body")
        variable = self._variable(key)
        # 2.x knows the value as `val` by now, so a mask that names `value` is refused.
        data = self._masked(data, ("key", "value"))
        variable.update({name: data[name] for name in ("value", "description") if name in data})
        return 200, self._show_variable(key)

    def delete_variable(self, key: str) -> Answer:
        if key not in self.airflow.variables:
            raise self.no_variable_to_delete(key)
        del self.airflow.variables[key]
        return 204, None

    def no_variable_to_delete(self, key: str) -> _Problem:
        return _Problem(404, None, "Variable not found")

    # connections

    _CONNECTION: dict[str, Any] = {
        "connection_id": str,
        "conn_type": str,
        "port": (int, type(None)),
        "password": str,
        **{name: (str, type(None)) for name in ("description", "host", "login", "schema", "extra")},
    }

    def _store_connection(self, conn_id: str, data: dict[str, Any]) -> None:
        """Airflow's set_password does nothing for an empty or missing one: it cannot be taken away, only replaced."""
        connection = self.airflow.connections.setdefault(conn_id, dict.fromkeys(_CONNECTION_FIELDS))
        connection.update(
            {name: value for name, value in data.items() if name in connection and (name != "password" or value)}
        )

    @staticmethod
    def _is_object(text: str) -> bool:
        """Also true for what is no JSON at all, which 2.x takes."""
        try:
            return isinstance(json.loads(text), dict)
        except ValueError:
            return True

    def _show_connection(self, conn_id: str, *, extra: bool) -> dict[str, Any]:
        connection = self.airflow.connections[conn_id]
        shown: dict[str, Any] = {"connection_id": conn_id}
        shown.update({name: connection[name] for name in _CONNECTION_FIELDS if name not in ("password", "extra")})
        if extra:
            text = connection["extra"]
            try:
                shown["extra"] = json.dumps(redact(json.loads(text))) if text is not None else None
            except ValueError:
                shown["extra"] = text
        return shown

    def _connection(self, conn_id: str) -> dict[str, Any]:
        if conn_id not in self.airflow.connections:
            raise _Problem(404, f"The Connection with connection_id: `{conn_id}` was not found", "Connection not found")
        return self.airflow.connections[conn_id]

    def get_connections(self) -> Answer:
        items = [self._show_connection(key, extra=False) for key in self.slice(list(self.airflow.connections))]
        return 200, {"connections": items, "total_entries": len(self.airflow.connections)}

    def get_connection(self, conn_id: str) -> Answer:
        self._connection(conn_id)
        return 200, self._show_connection(conn_id, extra=True)

    def post_connection(self) -> Answer:
        data = self._load(self._CONNECTION, ("connection_id", "conn_type"), "Bad Request")
        conn_id = data.pop("connection_id")
        if len(conn_id) > 200:
            raise _Problem(400, "The key has to be less than 200 characters", "Bad Request")
        if not _KEY.fullmatch(conn_id):
            raise _Problem(
                400,
                f"The key {conn_id!r} has to be made of alphanumeric characters, dashes, "
                "dots and underscores exclusively",
                "Bad Request",
            )
        if conn_id in self.airflow.connections:
            raise _Problem(409, f"Connection already exist. ID: {conn_id}", "Conflict")
        if data.get("extra") and not self._is_object(data["extra"]):
            raise _Problem(500, None, "Internal Server Error")  # 2.x's audit log stumbles over JSON that is no object
        self._store_connection(conn_id, data)
        return 200, self._show_connection(conn_id, extra=True)

    def patch_connection(self, conn_id: str) -> Answer:
        data = self._load(self._CONNECTION, (), "Bad Request")
        self._connection(conn_id)
        if data.get("connection_id") and data["connection_id"] != conn_id:
            raise _Problem(400, "The connection_id cannot be updated.", "Bad Request")
        data = self._masked(data, ("connection_id",))
        self._store_connection(conn_id, data)
        return 200, self._show_connection(conn_id, extra=True)

    def delete_connection(self, conn_id: str) -> Answer:
        self._connection(conn_id)
        del self.airflow.connections[conn_id]
        return 204, None

    # pools

    _POOL: dict[str, Any] = {"name": str, "slots": int, "description": (str, type(None)), "include_deferred": bool}

    def _pool_shape(self) -> dict[str, Any]:
        """include_deferred came with 2.7."""
        old = version_tuple(self.version) < (2, 7)
        return {field: kind for field, kind in self._POOL.items() if not old or field != "include_deferred"}

    def _show_pool(self, name: str) -> dict[str, Any]:
        pool = self.airflow.pools[name]
        # 2.x: the answer breaks Airflow's own schema, of the pool and of any page it is on; 3.x shows -1
        if pool["slots"] == -1 and not isinstance(self, V2):
            raise _Problem(500, "inf is not of type 'integer' ... On instance['open_slots']: inf", "Server Error")
        used = dict.fromkeys(
            ("occupied_slots", "running_slots", "queued_slots", "scheduled_slots", "deferred_slots"), 0
        )
        shown = {"name": name, **pool, **used, "open_slots": pool["slots"]}
        return {field: value for field, value in shown.items() if field in self._pool_shape() or field not in pool}

    def _pool(self, name: str) -> dict[str, Any]:
        if name not in self.airflow.pools or "/" in name:  # 2.x has no route to a pool with a slash in its name
            raise _Problem(404, f"Pool with name:'{name}' not found", "Not Found")
        return self.airflow.pools[name]

    def _missing(self) -> None:
        missing = {"name", "slots"} - set(self.body or {})
        if missing:
            raise _Problem(400, f"Missing required property(ies): {sorted(missing)}", "Bad Request")

    def get_pools(self) -> Answer:
        items = [self._show_pool(name) for name in self.slice(list(self.airflow.pools))]
        return 200, {"pools": items, "total_entries": len(self.airflow.pools)}

    def get_pool(self, name: str) -> Answer:
        self._pool(name)
        return 200, self._show_pool(name)

    def post_pool(self) -> Answer:
        self._missing()
        data = self._load(self._pool_shape(), (), "Bad Request")
        name = data.pop("name")
        if name in self.airflow.pools:
            raise _Problem(409, f"Pool: {name} already exists", "Conflict")
        self.airflow.pools[name] = {"description": None, "include_deferred": False, **data}
        return 200, self._show_pool(name)

    def patch_pool(self, name: str) -> Answer:
        mask, body = self.mask(), self.body if isinstance(self.body, dict) else {}
        only = bool(mask) and set(mask) <= {"slots", "include_deferred"}
        if name == "default_pool" and body.get("name") != "default_pool" and not only:
            raise _Problem(400, "Default Pool's name can't be modified", "Bad Request")
        pool = self._pool(name)
        data = {"include_deferred": False, **self._load(self._pool_shape(), (), "Bad Request")}
        if mask:
            data = {field: data[field] for field in mask if field in data}
        else:
            self._missing()
        fresh = data.pop("name", name)
        pool.update(data)
        if fresh != name:
            self.airflow.pools[fresh] = self.airflow.pools.pop(name)
        return 200, self._show_pool(fresh)

    def delete_pool(self, name: str) -> Answer:
        if name == "default_pool":
            raise _Problem(400, "Default Pool can't be deleted", "Bad Request")
        self._pool(name)
        del self.airflow.pools[name]
        return 204, None

    # DAGs and runs

    def _show_dag(self, dag_id: str) -> dict[str, Any]:
        return {
            "dag_id": dag_id,
            "dag_display_name": dag_id,
            "root_dag_id": None,
            "is_paused": self.airflow.paused[dag_id],
            "is_active": True,
            "is_subdag": False,
            "has_import_errors": False,
            "fileloc": f"/usr/local/airflow/dags/{self.dags().dags[dag_id]['file']}",
            "owners": [self.dags().dags[dag_id].get("owner", "airflow")],
            "description": None,
            "schedule_interval": None,
            "tags": [],
        }

    def _all_dags(self) -> list[str]:
        dags = self.dags().dags
        names = sorted(self.matching(dags, "dag_id_pattern"))
        paused = self.query.get("paused")
        if paused is not None:
            names = [name for name in names if self.airflow.paused[name] == (str(paused).lower() == "true")]
        return names

    def get_dags(self) -> Answer:
        names = self._all_dags()
        return 200, {"dags": [self._show_dag(name) for name in self.slice(names)], "total_entries": len(names)}

    def get_dag(self, dag_id: str) -> Answer:
        self.dag(dag_id)
        return 200, self._show_dag(dag_id)

    def _wanted_pause(self) -> bool:
        if not isinstance(self.body, dict) or not isinstance(self.body.get("is_paused"), bool):
            raise _Problem(400, "{'is_paused': ['Missing data for required field.']}", "Bad Request")
        return self.body["is_paused"]

    def patch_dag(self, dag_id: str) -> Answer:
        paused = self._wanted_pause()
        self.dag(dag_id)
        self.airflow.paused[dag_id] = paused
        return 200, self._show_dag(dag_id)

    def patch_dags(self) -> Answer:
        paused = self._wanted_pause()
        if not self.query.get("dag_id_pattern"):
            raise _Problem(400, "Missing query parameter 'dag_id_pattern'", "Bad Request")
        names = self._all_dags()
        for name in names:
            self.airflow.paused[name] = paused
        return 200, {"dags": [self._show_dag(name) for name in names], "total_entries": len(names)}

    def _show_run(self, run: dict[str, Any]) -> dict[str, Any]:
        run = {key: value for key, value in run.items() if key != "begun"}
        return {**run, "execution_date": run["logical_date"], "external_trigger": True}

    def get_runs(self, dag_id: str) -> Answer:
        if dag_id == "~":
            runs = [run for runs in self.airflow.runs.values() for run in runs.values()]
        else:
            self.check_runs(dag_id)
            runs = list(self.airflow.runs.get(dag_id, {}).values())
        shown = [self._show_run(run) for run in runs]
        return 200, {"dag_runs": self.slice(shown), "total_entries": len(shown)}

    def check_runs(self, dag_id: str) -> None:
        """2.x lists the runs of a DAG that is not there: none."""

    def post_run(self, dag_id: str) -> Answer:
        return 200, copy.deepcopy(
            self._show_run(self.trigger(dag_id, self.body if isinstance(self.body, dict) else {}))
        )

    def get_run(self, dag_id: str, run_id: str) -> Answer:
        return 200, self._show_run(self.run(dag_id, run_id))

    def delete_run(self, dag_id: str, run_id: str) -> Answer:
        self.run(dag_id, run_id)
        del self.airflow.runs[dag_id][run_id]
        return 204, None

    def get_tasks(self, dag_id: str, run_id: str) -> Answer:
        self.run(dag_id, run_id)
        return 200, {"task_instances": [], "total_entries": 0}

    def get_xcom(self, dag_id: str, run_id: str, task_id: str, key: str) -> Answer:
        entry = self.xcom_entry(dag_id, run_id, task_id, key)
        # v1 shows the value as text, whatever it is.
        return 200, {**entry, "execution_date": entry["logical_date"], "value": str(entry["value"])}


_REQUIRED = object()


class V2(V1):
    """Airflow 3.2's ``/api/v2``: other status codes, FastAPI's errors, masking, and bulk actions."""

    routes = [
        ("PATCH", "/variables", "bulk_variables"),
        ("PATCH", "/connections", "bulk_connections"),
        ("PATCH", "/pools", "bulk_pools"),
        ("GET", "/monitor/health", "health"),
        *_DAG_ROUTES,
        *_STATE_ROUTES,
    ]
    page = 50

    def problem(self, problem: _Problem) -> dict[str, Any]:
        return {"detail": problem.detail}

    def no_route(self, *, method_known: bool) -> Answer:
        return (405, {"detail": "Method Not Allowed"}) if method_known else (404, {"error": "API route not found"})

    def bad_page(self, name: str, value: Any) -> _Problem:
        fault = {
            "type": "greater_than_equal",
            "loc": ["query", name],
            "msg": "Input should be greater than or equal to 0",
            "input": str(value),
        }
        if not str(value).lstrip("-").isdigit():
            fault["type"] = "int_parsing"
            fault["msg"] = "Input should be a valid integer, unable to parse string as an integer"
        return self._unprocessable([fault])

    def no_dag(self, dag_id: str) -> _Problem:
        return _Problem(404, f"The Dag with ID: `{dag_id}` was not found")

    def check_runs(self, dag_id: str) -> None:
        self.dag(dag_id)

    def no_variable_to_delete(self, key: str) -> _Problem:
        return _Problem(404, f"The Variable with key: `{key}` was not found")

    @staticmethod
    def _unprocessable(faults: list[dict[str, Any]]) -> _Problem:
        return _Problem(422, faults)

    def _strict(self, body: Any, fields: dict[str, tuple[Any, Any]], where: list[Any]) -> dict[str, Any]:
        """A body checked as pydantic's strict models do: ``fields`` maps a name to (types, default or _REQUIRED)."""
        if not isinstance(body, dict):
            raise self._unprocessable([{"type": "missing", "loc": where, "msg": "Field required", "input": body}])
        faults = []
        for name in body:
            if name not in fields:
                faults.append(
                    {
                        "type": "extra_forbidden",
                        "loc": [*where, name],
                        "msg": "Extra inputs are not permitted",
                        "input": body[name],
                    }
                )
        for name, (kinds, default) in fields.items():
            if name not in body:
                if default is _REQUIRED:
                    faults.append({"type": "missing", "loc": [*where, name], "msg": "Field required", "input": body})
            elif kinds is not None:
                value = body[name]
                wrong_bool = isinstance(value, bool) and bool not in (kinds if isinstance(kinds, tuple) else (kinds,))
                if wrong_bool or not isinstance(value, kinds):
                    expected = kinds[0] if isinstance(kinds, tuple) else kinds
                    kind, word = {
                        str: ("string_type", "string"),
                        int: ("int_type", "integer"),
                        bool: ("bool_type", "boolean"),
                        list: ("list_type", "list"),
                    }[expected]
                    text = f"Input should be a valid {word}"
                    if expected is int and isinstance(value, str):
                        kind, text = "int_parsing", text + ", unable to parse string as an integer"
                    faults.append({"type": kind, "loc": [*where, name], "msg": text, "input": value})
        if faults:
            raise self._unprocessable(faults)
        return dict(body)

    @staticmethod
    def _unique() -> _Problem:
        return _Problem(
            409,
            {
                "reason": "Unique constraint violation",
                "statement": "hidden",
                "orig_error": "hidden",
                "message": "Serious error when handling your request. Check logs for more details",
            },
        )

    # variables

    def _value(self, key: str) -> dict[str, Any]:
        text = self.airflow.variables[key]["value"]
        try:
            shown = json.dumps(redact(json.loads(text)))  # so `1e5` is shown as `100000.0`, and "é" as "\u00e9"
        except ValueError:
            shown = redact(text, key)
        return {"value": shown, "is_encrypted": True, "team_name": None}

    def _variable(self, key: str) -> dict[str, Any]:
        if key not in self.airflow.variables:
            raise _Problem(404, f"The Variable with key: `{key}` was not found")
        return self.airflow.variables[key]

    _VARIABLE: dict[str, tuple[Any, Any]] = {
        "key": (str, _REQUIRED),
        "value": (None, _REQUIRED),
        "description": ((str, type(None)), None),
        "team_name": ((str, type(None)), None),
    }

    def _check_variable(self, body: Any, where: list[Any]) -> dict[str, Any]:
        data = self._strict(body, self._VARIABLE, where)
        if len(data["key"]) > 250:
            raise self._unprocessable(
                [
                    {
                        "type": "string_too_long",
                        "loc": [*where, "key"],
                        "msg": "String should have at most 250 characters",
                        "input": data["key"],
                    }
                ]
            )
        return data

    def get_variables(self) -> Answer:
        names = self.matching(self.airflow.variables, "variable_key_pattern")
        return 200, {
            "variables": [self._show_variable(key) for key in self.slice(names)],
            "total_entries": len(names),
        }

    def post_variable(self) -> Answer:
        data = self._check_variable(self.body, ["body"])
        if data["key"] in self.airflow.variables:
            raise _Problem(409, f"The Variable with key: `{data['key']}` already exists")
        self.airflow.variables[data["key"]] = {"value": str(data["value"]), "description": data.get("description")}
        return 201, self._show_variable(data["key"])

    def _apply_variable(self, key: str, body: Any, mask: list[str], where: list[Any]) -> None:
        data = self._check_variable(body, where)
        if data["key"] != key:
            raise _Problem(400, "Invalid body, key from request body doesn't match uri parameter")
        variable = self._variable(key)
        if "key" in mask:
            raise _Problem(
                400, "Update not allowed: the following fields are immutable and cannot be modified: {'key'}"
            )
        for name in ("value", "description"):
            if name in data and (not mask or name in mask):
                variable[name] = str(data[name]) if name == "value" else data[name]

    def patch_variable(self, key: str) -> Answer:
        self._apply_variable(key, self.body, self.mask(), ["body"])
        return 200, self._show_variable(key)

    # connections

    _CONNECTION_BODY: dict[str, tuple[Any, Any]] = {
        "connection_id": (str, _REQUIRED),
        "conn_type": (str, _REQUIRED),
        "port": ((int, type(None)), None),
        **{
            name: ((str, type(None)), None)
            for name in ("description", "host", "login", "schema", "password", "extra", "team_name")
        },
    }

    def _show_connection(self, conn_id: str, *, extra: bool) -> dict[str, Any]:
        connection = self.airflow.connections[conn_id]
        shown = {"connection_id": conn_id, **connection, "team_name": None}
        if connection["password"] is not None:
            shown["password"] = "***"
        if connection["extra"]:
            shown["extra"] = json.dumps(redact(json.loads(connection["extra"])))
        return shown

    def _check_connection(self, body: Any, where: list[Any]) -> dict[str, Any]:
        data = self._strict(body, self._CONNECTION_BODY, where)
        faults = []
        conn_id = data["connection_id"]
        if len(conn_id) > 200:
            faults.append(("string_too_long", "connection_id", "String should have at most 200 characters", conn_id))
        elif not _KEY.fullmatch(conn_id):
            faults.append(
                ("string_pattern_mismatch", "connection_id", "String should match pattern '^[\\w.-]+$'", conn_id)
            )
        if data.get("extra") == "":
            data["extra"] = "{}"
        if data.get("extra") is not None:
            message = "Value error, The `extra` field must be a valid JSON object (e.g., {'key': 'value'})"
            try:
                if not isinstance(json.loads(data["extra"]), dict):
                    faults.append(("value_error", "extra", message, data["extra"]))
            except ValueError:
                message += ", but encountered non-JSON in `extra` field"
                faults.append(("value_error", "extra", message, data["extra"]))
        if faults:
            raise self._unprocessable(
                [
                    {"type": kind, "loc": [*where, name], "msg": text, "input": value}
                    for kind, name, text, value in faults
                ]
            )
        data.pop("team_name", None)
        return data

    def get_connections(self) -> Answer:
        names = self.matching(self.airflow.connections, "connection_id_pattern")
        items = [self._show_connection(name, extra=True) for name in self.slice(names)]
        return 200, {"connections": items, "total_entries": len(names)}

    def post_connection(self) -> Answer:
        data = self._check_connection(self.body, ["body"])
        conn_id = data.pop("connection_id")
        if conn_id in self.airflow.connections:
            raise self._unique()
        self._store_connection(conn_id, data)
        return 201, self._show_connection(conn_id, extra=True)

    def _apply_connection(self, conn_id: str, data: dict[str, Any], mask: list[str]) -> None:
        connection = self._connection(conn_id)
        for name, value in data.items():
            if name == "connection_id" or (mask and name not in mask):
                continue
            if name == "password":
                value = merge(value, connection["password"], "password")
            elif name == "extra" and value is not None and connection["extra"] is not None:
                value = json.dumps(merge(json.loads(value), json.loads(connection["extra"])))
            self._store_connection(conn_id, {name: value})

    def _connection(self, conn_id: str) -> dict[str, Any]:
        if conn_id not in self.airflow.connections:
            raise _Problem(404, f"The Connection with connection_id: `{conn_id}` was not found")
        return self.airflow.connections[conn_id]

    def patch_connection(self, conn_id: str) -> Answer:
        data = self._check_connection(self.body, ["body"])
        if data["connection_id"] != conn_id:
            raise _Problem(400, "The connection_id in the request body does not match the URL parameter")
        self._apply_connection(conn_id, data, self.mask())
        return 200, self._show_connection(conn_id, extra=True)

    # pools

    _POOL_BODY: dict[str, tuple[Any, Any]] = {
        "name": (str, _REQUIRED),
        "slots": (int, _REQUIRED),
        "description": ((str, type(None)), None),
        "include_deferred": (bool, False),
        "team_name": ((str, type(None)), None),
    }

    def _check_pool(self, body: Any, where: list[Any], fields: dict[str, tuple[Any, Any]]) -> dict[str, Any]:
        data = self._strict(body, fields, where)
        if data.get("slots") is not None and data["slots"] < -1:
            raise self._unprocessable(
                [
                    {
                        "type": "greater_than_equal",
                        "loc": [*where, "slots"],
                        "msg": "Input should be greater than or equal to -1",
                        "input": data["slots"],
                    }
                ]
            )
        data.pop("team_name", None)
        return data

    def _pool(self, name: str) -> dict[str, Any]:
        if name not in self.airflow.pools:
            raise _Problem(404, f"The Pool with name: `{name}` was not found")
        return self.airflow.pools[name]

    def _show_pool(self, name: str) -> dict[str, Any]:
        return {**super()._show_pool(name), "team_name": None}

    def get_pools(self) -> Answer:
        names = self.matching(self.airflow.pools, "pool_name_pattern")
        return 200, {"pools": [self._show_pool(name) for name in self.slice(names)], "total_entries": len(names)}

    def post_pool(self) -> Answer:
        data = self._check_pool(self.body, ["body"], self._POOL_BODY)
        name = data.pop("name")
        if name in self.airflow.pools:
            raise self._unique()
        self.airflow.pools[name] = {"description": None, "include_deferred": False, **data}
        return 201, self._show_pool(name)

    def _apply_pool(self, name: str, data: dict[str, Any], mask: list[str]) -> None:
        pool = self._pool(name)
        if name == "default_pool":
            if not mask or not set(mask) <= {"slots", "include_deferred"}:
                raise _Problem(400, "Only slots and included_deferred can be modified on Default Pool")
        else:
            missing = {"name", "slots", "include_deferred"} - set(data)
            if missing:
                raise self._unprocessable(
                    [
                        {
                            "type": "missing",
                            "loc": ["pool" if field == "name" else field],
                            "msg": "Field required",
                            "input": data,
                        }
                        for field in ("name", "slots", "include_deferred")
                        if field in missing
                    ]
                )
        pool.update({key: value for key, value in data.items() if key != "name" and (not mask or key in mask)})

    def patch_pool(self, name: str) -> Answer:
        fields = {
            # The patch body's alias of the name is `pool`; `name` is taken too.
            "pool": ((str, type(None)), None),
            "name": ((str, type(None)), None),
            "slots": ((int, type(None)), None),
            "description": ((str, type(None)), None),
            "include_deferred": ((bool, type(None)), None),
            "team_name": ((str, type(None)), None),
        }
        data = self._check_pool(self.body, ["body"], fields)
        data["name"] = data.pop("pool", None) or data.get("name")
        if data["name"] is None:
            del data["name"]
        elif data["name"] != name:
            raise _Problem(400, "Invalid body, pool name from request body doesn't match uri parameter")
        self._apply_pool(name, data, self.mask())
        return 200, self._show_pool(name)

    # bulk

    def bulk_variables(self) -> Answer:
        def store(data: dict[str, Any]) -> None:
            value = data["value"]
            text = json.dumps(value, indent=2) if isinstance(value, (dict, list)) else str(value)
            self.airflow.variables[data["key"]] = {"value": text, "description": data.get("description")}

        return self._bulk(
            "variables with these keys",
            "key",
            self.airflow.variables,
            self._check_variable,
            store,
            lambda data, mask: self._apply_variable(data["key"], data, mask, ["body"]),
            flushed=True,
        )

    def bulk_connections(self) -> Answer:
        def store(data: dict[str, Any]) -> None:
            # Over an existing one every field is set, those left out to nothing.
            self._store_connection(data["connection_id"], {**dict.fromkeys(_CONNECTION_FIELDS), **data})

        return self._bulk(
            "connections with these connection_ids",
            "connection_id",
            self.airflow.connections,
            self._check_connection,
            store,
            # 3.2 does not look at the action's mask here.
            lambda data, mask: self._apply_connection(data["connection_id"], data, []),
        )

    def bulk_pools(self) -> Answer:
        def store(data: dict[str, Any]) -> None:
            values = {key: value for key, value in data.items() if key != "name"}
            self.airflow.pools[data["name"]] = {"description": None, "include_deferred": False, **values}

        return self._bulk(
            "pools with these pool names",
            "name",
            self.airflow.pools,
            lambda body, where: self._check_pool(body, where, self._POOL_BODY),
            store,
            lambda data, mask: self._apply_pool(data["name"], {"include_deferred": False, **data}, mask),
        )

    def _bulk(
        self,
        words: str,
        key: str,
        existing: dict[str, Any],
        check: Callable[[Any, list[Any]], dict[str, Any]],
        store: Callable[[dict[str, Any]], None],
        apply: Callable[[dict[str, Any], list[str]], None],
        *,
        flushed: bool = False,
    ) -> Answer:
        """``flushed``: whether a later action of the same request sees what an earlier one created."""
        actions = self._strict(self.body, {"actions": (list, _REQUIRED)}, ["body"])["actions"]
        checked: list[tuple[dict[str, Any], list[Any]]] = []
        for index, action in enumerate(actions):
            kind = action.get("action") if isinstance(action, dict) else None
            if kind not in ("create", "update", "delete") or not isinstance(action.get("entities"), list):
                raise self._unprocessable(
                    [{"type": "union_tag_invalid", "loc": ["body", "actions", index], "msg": "Input tag is not valid"}]
                )
            where = ["body", "actions", index, kind, "entities"]
            entities = [
                item if kind == "delete" else check(item, [*where, place])
                for place, item in enumerate(action["entities"])
            ]
            checked.append((action, entities))
        results: dict[str, Any] = {"create": None, "update": None, "delete": None}
        start = set(existing)
        for action, entities in checked:
            kind = action["action"]
            known = set(existing) if flushed else start
            result = results[kind] = results[kind] or {"success": [], "errors": []}
            ids = [entity if isinstance(entity, str) else entity[key] for entity in entities]
            there, absent = [i for i in ids if i in known], [i for i in ids if i not in known]
            rule = action.get("action_on_existence" if kind == "create" else "action_on_non_existence", "fail")
            try:
                if kind == "create" and rule == "fail" and there:
                    raise _Problem(409, f"The {words}: { {*there} } already exist.")
                if kind != "create" and rule == "fail" and absent:
                    raise _Problem(404, f"The {words}: { {*absent} } were not found.")
                for entity, name in zip(entities, ids):
                    if kind == "create" and not (rule == "skip" and name in there):
                        store(entity)
                    elif kind == "update" and name in there:
                        apply(entity, action.get("update_mask") or [])
                    elif kind == "delete" and name in there:
                        del existing[name]
                    else:
                        continue
                    result["success"].append(name)
            except _Problem as problem:
                result["errors"].append({"error": str(problem.detail), "status_code": problem.status})
        return 200, results

    # DAGs and runs

    def _show_dag(self, dag_id: str) -> dict[str, Any]:
        file = self.dags().dags[dag_id]["file"]
        return {
            "dag_id": dag_id,
            "dag_display_name": dag_id,
            "is_paused": self.airflow.paused[dag_id],
            "is_stale": False,
            "bundle_name": "dags-folder",
            "bundle_version": None,
            "relative_fileloc": file,
            "fileloc": f"/usr/local/airflow/dags/{file}",
            "description": None,
            "timetable_summary": None,
            "tags": [],
            "has_import_errors": False,
            "owners": [self.dags().dags[dag_id].get("owner", "airflow")],
        }

    def _show_run(self, run: dict[str, Any]) -> dict[str, Any]:
        run = {key: value for key, value in run.items() if key != "begun"}
        return {**run, "queued_at": run["logical_date"], "run_after": run["logical_date"], "dag_versions": []}

    def post_run(self, dag_id: str) -> Answer:
        body = self.body if isinstance(self.body, dict) else {}
        if "logical_date" not in body:
            raise self._unprocessable(
                [{"type": "missing", "loc": ["body", "logical_date"], "msg": "Field required", "input": body}]
            )
        return 200, copy.deepcopy(self._show_run(self.trigger(dag_id, body)))

    def get_xcom(self, dag_id: str, run_id: str, task_id: str, key: str) -> Answer:
        entry = self.xcom_entry(dag_id, run_id, task_id, key)
        return 200, {**entry, "run_id": run_id, "dag_display_name": dag_id, "run_after": entry["logical_date"]}


# --- the CLI ---------------------------------------------------------------------------------------------------------


class Cli:
    """The few commands that tests run; others say so on stderr."""

    def __init__(self, airflow: Airflow, version: str, dags: Callable[[], DagBag]) -> None:
        self.airflow = airflow
        self.version = version
        self.dags = dags

    def run(self, argv: list[str]) -> tuple[str, str]:
        words, flags = _flags(argv)
        name = "_" + "_".join(words[: 1 if words[:1] == ["version"] else 2]).replace("-", "_")
        handler = getattr(self, name, None)
        if handler is None:
            return "", f"The lab's stub engine does not run `airflow {' '.join(words[:2])}`.\n"
        try:
            return handler(words[2:], flags), ""
        except (KeyError, IndexError, ValueError) as error:
            return "", f"{error.args[0] if error.args else error}\n"

    def _version(self, words: list[str], flags: dict[str, str]) -> str:
        return f"{self.version}\n"

    def _variables_list(self, words: list[str], flags: dict[str, str]) -> str:
        return _table([{"key": key} for key in self.airflow.variables], flags)

    def _variables_get(self, words: list[str], flags: dict[str, str]) -> str:
        if words[0] not in self.airflow.variables:
            raise KeyError(f"Variable {words[0]} does not exist")
        return self.airflow.variables[words[0]]["value"] + "\n"

    def _variables_set(self, words: list[str], flags: dict[str, str]) -> str:
        self.airflow.variables[words[0]] = {"value": words[1], "description": flags.get("description")}
        return f"Variable {words[0]} created\n"

    def _variables_delete(self, words: list[str], flags: dict[str, str]) -> str:
        self.airflow.variables.pop(words[0], None)
        return f"Variable {words[0]} deleted\n"

    def _connections_add(self, words: list[str], flags: dict[str, str]) -> str:
        if words[0] in self.airflow.connections:
            raise ValueError(f"A connection with `conn_id`={words[0]} already exists.")
        given = json.loads(flags["conn-json"]) if "conn-json" in flags else {}
        for name in _CONNECTION_FIELDS:
            flag = "conn-type" if name == "conn_type" else f"conn-{name}"
            if flag in flags:
                given[name] = int(flags[flag]) if name == "port" else flags[flag]
        self.airflow.connections[words[0]] = {name: given.get(name) for name in _CONNECTION_FIELDS}
        return f"Successfully added `conn_id`={words[0]}\n"

    def _connections_delete(self, words: list[str], flags: dict[str, str]) -> str:
        if words[0] not in self.airflow.connections:
            raise KeyError(f"Did not find a connection with `conn_id`={words[0]}")
        del self.airflow.connections[words[0]]
        return f"Successfully deleted connection with `conn_id`={words[0]}\n"

    def _dags_list(self, words: list[str], flags: dict[str, str]) -> str:
        rows = [
            {
                "dag_id": dag_id,
                "fileloc": f"/usr/local/airflow/dags/{dag['file']}",
                "owners": "airflow",
                "is_paused": str(self.airflow.paused[dag_id]),
            }
            for dag_id, dag in sorted(self.dags().dags.items())
        ]
        return _table(rows, flags)

    def _dags_list_import_errors(self, words: list[str], flags: dict[str, str]) -> str:
        errors = self.dags().errors
        if not errors:
            return "No data found\n"
        return _table([{"filepath": name, "error": text} for name, text in errors.items()], flags)

    def _pause(self, dag_id: str, paused: bool) -> str:
        if dag_id not in self.dags().dags:
            raise KeyError(f"No DAGs were found with dag_id: {dag_id}")
        self.airflow.paused[dag_id] = paused
        return f"Dag: {dag_id}, paused: {paused}\n"

    def _dags_pause(self, words: list[str], flags: dict[str, str]) -> str:
        return self._pause(words[0], True)

    def _dags_unpause(self, words: list[str], flags: dict[str, str]) -> str:
        return self._pause(words[0], False)

    def _dags_trigger(self, words: list[str], flags: dict[str, str]) -> str:
        api = V1(self.airflow, self.version, self.dags)
        body = {"dag_run_id": flags.get("run-id"), "conf": json.loads(flags["conf"]) if "conf" in flags else {}}
        try:
            run = api.trigger(words[0], body)
        except _Problem as problem:
            raise ValueError(str(problem.detail)) from None
        return _table([{"conf": run["conf"], "dag_id": words[0], "dag_run_id": run["dag_run_id"]}], flags)

    def _dags_delete(self, words: list[str], flags: dict[str, str]) -> str:
        api = V1(self.airflow, self.version, self.dags)
        try:
            api.delete_dag(words[0])
        except _Problem as problem:
            raise ValueError(str(problem.detail)) from None
        return "Removed 1 record(s)\n"

    def _dags_list_runs(self, words: list[str], flags: dict[str, str]) -> str:
        dag_id = flags.get("dag-id") or (words[0] if words else "")
        runs = self.airflow.runs.get(dag_id, {}).values()
        return _table([{"dag_id": dag_id, "run_id": run["dag_run_id"], "state": run["state"]} for run in runs], flags)


_SHORT = {"o": "output", "d": "dag-id", "r": "run-id", "c": "conf", "y": "yes", "j": "json", "e": "exec-date"}
_SWITCHES = ("yes", "json", "verbose", "help")


def _flags(argv: list[str]) -> tuple[list[str], dict[str, str]]:
    words: list[str] = []
    flags: dict[str, str] = {}
    items = iter(argv)
    for item in items:
        if item.startswith("--"):
            name, equals, value = item[2:].partition("=")
            flags[name] = value if equals or name in _SWITCHES else next(items, "")
        elif re.fullmatch(r"-[a-z]", item):
            name = _SHORT.get(item[1], item[1])
            flags[name] = "" if name in _SWITCHES else next(items, "")
        else:
            words.append(item)
    return words, flags


def _table(rows: list[dict[str, Any]], flags: dict[str, str]) -> str:
    if flags.get("output") == "json":
        return json.dumps(rows) + "\n"
    if not rows:
        return "No data found\n"
    columns = list(rows[0])
    widths = [max(len(str(row[column])) for row in [dict(zip(columns, columns)), *rows]) for column in columns]
    lines = [
        " | ".join(str(row[column]).ljust(width) for column, width in zip(columns, widths)).rstrip()
        for row in [dict(zip(columns, columns)), *rows]
    ]
    lines.insert(1, "=+=".join("=" * width for width in widths))
    return "\n".join(lines) + "\n"
