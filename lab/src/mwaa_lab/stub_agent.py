# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs the migration's own DAG files for the stub engine: the real files of the bucket over a stand-in for Airflow.

``python -m mwaa_lab.stub_agent`` is one parse or one task: JSON on stdin, JSON on stdout (``parse`` and ``run`` are its
two ends). What the files do with S3, KMS and each other is theirs; Airflow's database is the stub's dictionaries. On
Airflow 3 the agent uses the task SDK, which is stood in for; on 2.x its operations on the database are.
"""

from __future__ import annotations

import base64
import importlib.util
import json
import subprocess
import sys
import tempfile
import traceback
import types
from pathlib import Path
from typing import Any

FOLDER = "mwaa_migration"
NO_DATABASE = {"AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": "airflow-db-not-allowed:///"}


def parse(files: dict[str, str], name: str, version: str, environ: dict[str, str]) -> dict[str, Any]:
    """``{"dags": {dag_id: {"owner", "schedule", "paused"}}, "error": None or a traceback}`` of one of the files."""
    return _child({"name": name, "version": version}, files, environ)


def run(
    files: dict[str, str],
    name: str,
    version: str,
    environ: dict[str, str],
    run_id: str,
    conf: dict[str, Any],
    state: dict[str, Any],
) -> dict[str, Any]:
    """Run the only task of a file's DAG.

    ``{"error": None or a sentence, "skipped", "xcoms": {key: value}, "triggers": [{"dag_id", "run_id", "conf"}],
    "changes": {kind: {id: item, or None where it was deleted}}}``.
    """
    task = {"run_id": run_id, "conf": conf, "state": state}
    return _child({"name": name, "version": version, "task": task}, files, environ)


def _child(order: dict[str, Any], files: dict[str, str], environ: dict[str, str]) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="mwaa-lab-stub-") as folder:
        for name, text in files.items():
            place = Path(folder) / name
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text(text)
        done = subprocess.run(
            [sys.executable, "-m", "mwaa_lab.stub_agent"],
            input=json.dumps({**order, "folder": folder}),
            env={**environ, **(NO_DATABASE if order["version"].startswith("3.") else {})},
            capture_output=True,
            text=True,
            timeout=300,
        )
    if done.returncode:
        return {"dags": {}, "error": done.stderr.strip()[-2000:] or "the stand-in for Airflow died"}
    return json.loads(done.stdout.splitlines()[-1])


# --- the child -------------------------------------------------------------------------------------------------------


class Skip(Exception):
    """AirflowSkipException."""


class Airflow:
    """The stand-in: what the files import, and what they did with it."""

    def __init__(self, version: str, state: dict[str, Any]) -> None:
        self.version = version
        self.state = state
        self.dags: list[Any] = []
        self.triggers: list[dict[str, Any]] = []
        self.xcoms: dict[str, Any] = {}
        self.changes: dict[str, dict[str, Any]] = {}

    def set(self, kind: str, identifier: str, item: dict[str, Any] | None) -> None:
        self.changes.setdefault(kind, {})[identifier] = item
        if item is None:
            self.state[kind].pop(identifier, None)
        else:
            self.state[kind][identifier] = item

    def install(self) -> None:
        """Put the modules where ``import`` finds them; what is not among them is an ImportError, as it should be."""
        airflow, current = self, []

        class DAG:
            def __init__(self, dag_id: str, schedule: Any = None, **options: Any) -> None:
                self.dag_id, self.schedule, self.options = dag_id, schedule, options
                self.tasks: list[Any] = []
                airflow.dags.append(self)

            def __enter__(self) -> DAG:
                current.append(self)
                return self

            def __exit__(self, *_problem: Any) -> None:
                current.pop()

        class Operator:
            def __init__(self, task_id: str, **options: Any) -> None:
                self.task_id = task_id
                vars(self).update(options)
                current[-1].tasks.append(self)

        class PythonOperator(Operator):
            python_callable: Any

            def execute(self, context: dict[str, Any]) -> Any:
                return self.python_callable(**context)

        class TriggerDagRunOperator(Operator):
            trigger_dag_id: str
            trigger_run_id: str
            conf: dict[str, Any]

            def execute(self, context: dict[str, Any]) -> None:
                trigger_dag(self.trigger_dag_id, self.trigger_run_id, self.conf)

        def trigger_dag(dag_id: str, run_id: str, conf: dict[str, Any], **_more: Any) -> None:
            airflow.triggers.append({"dag_id": dag_id, "run_id": run_id, "conf": conf})

        class Variable:
            @staticmethod
            def get(key: str, default: Any = None) -> Any:
                found = airflow.state["variables"].get(key)
                return default if found is None else found["value"]

            @staticmethod
            def set(key: str, value: str, description: str | None = None) -> None:
                airflow.set("variables", key, {"value": value, "description": description})

        class BaseHook:
            @staticmethod
            def get_connection(conn_id: str) -> Any:
                found = airflow.state["connections"].get(conn_id)
                if found is None:
                    raise KeyError(conn_id)
                return types.SimpleNamespace(conn_id=conn_id, **found)

        _module("airflow", __version__=self.version, DAG=DAG)
        if self.version.startswith("3."):
            _module("airflow.sdk", DAG=DAG, Variable=Variable, BaseHook=BaseHook)
            _module("airflow.sdk.exceptions", AirflowSkipException=Skip)
            for name in ("providers", "providers.standard", "providers.standard.operators"):
                _module(f"airflow.{name}")
            operators = "airflow.providers.standard.operators"
        else:
            _module("airflow.exceptions", AirflowSkipException=Skip)
            _module("airflow.api")
            _module("airflow.api.common")
            _module("airflow.api.common.trigger_dag", trigger_dag=trigger_dag)
            _module("airflow.operators")
            operators = "airflow.operators"
        _module(f"{operators}.python", PythonOperator=PythonOperator)
        _module(f"{operators}.trigger_dagrun", TriggerDagRunOperator=TriggerDagRunOperator)


def _module(name: str, **members: Any) -> None:
    made = types.ModuleType(name)
    made.__path__ = []
    vars(made).update(members)
    sys.modules[name] = made


def main() -> None:
    order = json.load(sys.stdin)
    task = order.get("task")
    airflow = Airflow(order["version"], (task or {}).get("state") or {})
    airflow.install()
    place = Path(order["folder"]) / order["name"]
    spec = importlib.util.spec_from_file_location("mwaa_lab_dag", place)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception:  # noqa: BLE001 - whatever a DAG file raises is its import error
        answer: dict[str, Any] = {"dags": {}, "error": traceback.format_exc(limit=-2)}
    else:
        answer = {"dags": {dag.dag_id: _described(dag) for dag in airflow.dags}, "error": None}
    if task and answer["error"] is None:
        answer = _execute(airflow, module, task)
    print(json.dumps(answer))


def _described(dag: Any) -> dict[str, Any]:
    owner = (dag.options.get("default_args") or {}).get("owner", "airflow")
    return {"owner": owner, "schedule": dag.schedule, "paused": dag.options.get("is_paused_upon_creation")}


def _execute(airflow: Airflow, module: types.ModuleType, task: dict[str, Any]) -> dict[str, Any]:
    load = getattr(module, "load_agent", None)
    if load is not None and not airflow.version.startswith("3."):
        setattr(module, "load_agent", lambda: _on_the_stub(load(), airflow))  # noqa: B010 - a module's member
    instance = types.SimpleNamespace(try_number=1, xcom_push=lambda key, value: airflow.xcoms.update({key: value}))
    context = {"dag_run": types.SimpleNamespace(run_id=task["run_id"], conf=task["conf"]), "ti": instance}
    error, skipped = None, False
    try:
        airflow.dags[0].tasks[0].execute(context)
    except Skip:
        skipped = True
    except Exception as problem:  # noqa: BLE001 - a failed task
        error = f"{type(problem).__name__}: {problem}"
    done = {"xcoms": airflow.xcoms, "triggers": airflow.triggers, "changes": airflow.changes}
    return {"error": error, "skipped": skipped, **done}


def _on_the_stub(agent: Any, airflow: Airflow) -> Any:
    """The agent with its operations on Airflow 2's database done on the stub's dictionaries."""

    def digests(key: bytes, kind: str, identifier: str) -> dict[str, str]:
        item = agent.canonical(kind, airflow.state[kind][identifier])
        return {field: agent.digest(key, kind, identifier, field, value) for field, value in item.items()}

    def digest_state(request: dict[str, Any]) -> dict[str, Any]:
        key = base64.b64decode(request["digest_key"])
        wanted: dict[str, list[str] | None] = request.get("ids") or dict.fromkeys(agent.KINDS)
        found = {}
        for kind in (kind for kind in agent.KINDS if kind in wanted):
            stored = airflow.state[kind]
            asked = wanted[kind]
            names = sorted(stored) if asked is None else asked
            found[kind] = {name: digests(key, kind, name) if name in stored else None for name in names}
        return {"digests": found, "errors": {}, "notes": [], "airflow_version": airflow.version}

    def import_state(request: dict[str, Any]) -> dict[str, Any]:
        conflict = request.get("on_conflict") or "overwrite"
        results: dict[str, dict[str, str]] = {}
        reasons: dict[str, dict[str, str]] = {}
        given = [kind for kind in agent.KINDS if request.get(kind) is not None]
        for kind in given:
            results[kind], stored = {}, airflow.state[kind]
            for name, item in sorted(request[kind].items()):
                if name not in stored:
                    results[kind][name] = "created"
                elif agent.canonical(kind, stored[name]) == agent.canonical(kind, item):
                    results[kind][name] = "unchanged"
                else:
                    results[kind][name] = {"overwrite": "updated", "keep": "kept", "fail": "failed"}[conflict]
                    if conflict != "overwrite":
                        reasons.setdefault(kind, {})[name] = "exists with another content"
            if prune := request.get("prune"):
                gone = set(stored) - set(request[kind]) - {agent.DEFAULT_POOL, *agent.KEPT_CONNECTIONS}
                gone -= set(request.get("spared") or ())
                results[kind].update(dict.fromkeys(gone & set(prune) if isinstance(prune, list) else gone, "deleted"))
        if conflict == "fail" and reasons:
            failed = {kind: dict.fromkeys(names, "failed") for kind, names in reasons.items()}
            return {"applied": False, "results": failed, "reasons": reasons, "digests": {}}
        for kind in given:
            for name, status in results[kind].items():
                if status in ("created", "updated"):
                    airflow.set(kind, name, agent.canonical(kind, request[kind][name]))
                elif status == "deleted":
                    airflow.set(kind, name, None)
        after = {}
        if request.get("digest_key"):
            key = base64.b64decode(request["digest_key"])
            after = {k: {n: digests(key, k, n) for n in results[k] if n in airflow.state[k]} for k in given}
        return {"applied": True, "results": results, "reasons": reasons, "digests": after}

    def list_dags(_request: dict[str, Any]) -> dict[str, Any]:
        return {"dags": airflow.state["dags"], "import_errors": airflow.state["import_errors"]}

    def inspect(_request: dict[str, Any]) -> dict[str, Any]:
        counts = {kind: len(airflow.state[kind]) for kind in agent.KINDS}
        fernet = {"sentence": None, "lookalikes": 0}
        more = {"counts": {**counts, "dags": len(airflow.state["dags"])}, "faults": [], "fernet": fernet}
        return {**agent._who(airflow.version), "airflow_home": "/usr/local/airflow", "database": "stub", **more}

    def plan(request: dict[str, Any]) -> dict[str, Any]:
        access = {"model": "fab", "users": [], "roles": {}, "access_control": []}
        return {"identity": inspect(request), "dags": airflow.state["dags"], "access": access}

    def export_state(request: dict[str, Any]) -> dict[str, Any]:
        state = {
            kind: {name: agent.canonical(kind, item) for name, item in airflow.state[kind].items()}
            for kind in agent.KINDS
        }
        sealed = agent.sealed_state(state, base64.b64decode(request["data_key"]))
        return {**sealed, "faults": [], "defaults": []}

    def no_history(_request: dict[str, Any]) -> None:
        raise agent.AgentError("no_history", "the lab's stub engine has no database: history needs the engine airflow")

    needed = [name for name in agent.OPERATIONS if "history" in name] + ["pause_dags"]
    agent.OPERATIONS.update(dict.fromkeys(needed, no_history))
    agent.OPERATIONS.update(digest_state=digest_state, import_state=import_state, list_dags=list_dags)
    agent.OPERATIONS.update(inspect=inspect, plan=plan, export_state=export_state)
    return agent


if __name__ == "__main__":
    main()
