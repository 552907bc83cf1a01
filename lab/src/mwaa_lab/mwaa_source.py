# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The environment that is left, where the lab's source is one of MWAA (`mwaa-lab up --source mwaa:2.10.3`).

It has a bucket and a role of its own, the seed's DAGs, plugins and options as an environment has them, and the seed's
state: written by a real Airflow's own models, or, in a stub, through its REST API.
"""

from __future__ import annotations

import contextlib
import io
import json
import subprocess
import time
import urllib.request
import zipfile
from collections.abc import Callable
from typing import Any

from botocore.exceptions import ClientError

from mwaa_lab.airflow import versions
from mwaa_lab.airflow.versions import Version
from mwaa_lab.aws import limits
from mwaa_lab.base import client, execution_role, make_bucket
from mwaa_lab.labdir import LabDir, LabError
from mwaa_lab.seeds import eras
from mwaa_lab.seeds import state as seed
from mwaa_lab.source import RUN_SECONDS, SEEDS

PREFIX = "mwaa:"
NAME = "analytics-old"
BUCKET = "mwaa-lab-source"
ROLE = "mwaa-lab-source-execution"
CREATE_SECONDS = 900.0
STARTUP = "#!/bin/sh\nexport REPORT_BUCKET=acme-reports-prod\nexport REPORT_PREFIX=daily/emea\n"
OPTIONS = {
    "core.dags_are_paused_at_creation": "False",
    "core.default_task_retries": "2",
    "core.max_active_runs_per_dag": "3",
    "scheduler.catchup_by_default": "False",
    "acme.region_code": "eu",
}


def version_of(source: str) -> str | None:
    """``mwaa:2.10.3`` → ``2.10.3``; None: the source is none of MWAA."""
    return source[len(PREFIX) :] if source.startswith(PREFIX) else None


def prepare(lab: LabDir, base: dict[str, Any], version: str, say: Callable[[str], None]) -> str:
    """Make the environment and fill it. Returns its name. :raises LabError: it cannot be made."""
    row, asked = versions.version(version), lab.read()["asked"]
    secret = seed.canary(lab.id)
    with_seed = asked["seed_data"] != "none"
    make_bucket(client(lab, "s3"), BUCKET)
    say(f"source: environment {NAME}, Airflow {version}")
    _create(lab, base, row, secret("cfg-smtp-password") if with_seed else None)
    if not with_seed:
        return NAME
    state = (seed.large if asked["seed_data"] == "large" else seed.small)(secret)
    state["default_connections"] = not row.since(2)  # a sensor of 1.10's seed looks one up
    if asked["engine"] == "stub":
        _load_by_rest(lab, state)
    else:
        _load(lab, row, state)
    _upload_dags(lab, row)  # last: a DAG that is to be paused is known as such before it is seen
    say("source: " + ", ".join(f"{len(state[kind])} {kind}" for kind in ("variables", "connections", "pools")))
    if asked["engine"] != "stub":
        _wait_for_runs(lab, row, say)
    return NAME


def _create(lab: LabDir, base: dict[str, Any], row: Version, password: str | None) -> None:
    s3, mwaa, iam = client(lab, "s3"), client(lab, "mwaa"), client(lab, "iam")
    objects = {"RequirementsS3Path": ("requirements.txt", _requirements(row).encode())}
    objects["PluginsS3Path"] = ("plugins.zip", _plugins(row))
    if row.since(2, 2):
        objects["StartupScriptS3Path"] = ("startup.sh", STARTUP.encode())
    named = {}
    for member, (key, content) in objects.items():
        named[member] = key
        put = s3.put_object(Bucket=BUCKET, Key=key, Body=content)
        named[member.replace("S3Path", "S3ObjectVersion")] = put["VersionId"]
    last, today = limits.last_day(row.airflow), lab.read()["asked"]["as_of"]
    if last:
        _as_of(lab, last.isoformat())
    logs = ("DagProcessingLogs", "SchedulerLogs", "TaskLogs", "WebserverLogs", "WorkerLogs")
    mwaa.create_environment(
        Name=NAME,
        AirflowVersion=row.airflow,
        SourceBucketArn=f"arn:aws:s3:::{BUCKET}",
        DagS3Path="dags",
        ExecutionRoleArn=execution_role(lab, iam, ROLE, BUCKET, None),
        NetworkConfiguration={"SubnetIds": base["subnet_ids"], "SecurityGroupIds": base["security_group_ids"]},
        WebserverAccessMode="PUBLIC_ONLY",
        LoggingConfiguration={name: {"Enabled": True, "LogLevel": "INFO"} for name in logs},
        AirflowConfigurationOptions={**OPTIONS, **({"smtp.smtp_password": password} if password else {})},
        **named,
    )
    deadline = time.monotonic() + CREATE_SECONDS
    while (environment := mwaa.get_environment(Name=NAME)["Environment"])["Status"] == "CREATING":
        if time.monotonic() > deadline:
            break
        time.sleep(0.3)
    if last:
        _as_of(lab, today)
    if environment["Status"] != "AVAILABLE":
        why = (environment.get("LastUpdate") or {}).get("Error") or {}
        raise LabError(
            f"The environment {NAME} is {environment['Status']}: {why.get('ErrorMessage', 'no reason given')}"
        )


def _requirements(row: Version) -> str:
    """A pin of the user's own, and one that the constraints name; 1.10 has no providers."""
    own = eras.packages(row, (SEEDS / "extra-packages.txt").read_text()).splitlines()
    provider = "\napache-airflow-providers-http" if row.since(2) else ""
    return "\n".join(line for line in own if line.startswith("cowsay")) + f"{provider}\n"


def _plugins(row: Version) -> bytes:
    """The plugins, and the company's own package, which every part of Airflow finds there."""
    found = {}
    for folder in (SEEDS / "airflow_home" / "plugins", SEEDS / "private"):
        for path in sorted(folder.rglob("*.py")):
            if "__pycache__" not in path.parts:
                found[path.relative_to(folder).as_posix()] = eras.words(row, path.read_text())
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in found.items():
            archive.writestr(name, text)
    return buffer.getvalue()


def _upload_dags(lab: LabDir, row: Version) -> None:
    s3, folder = client(lab, "s3"), SEEDS / "airflow_home" / "dags"
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_dir() or "__pycache__" in name or not eras.belongs(row, f"dags/{name}"):
            continue
        text = eras.words(row, path.read_text()) if path.suffix == ".py" else path.read_text()
        s3.put_object(Bucket=BUCKET, Key=f"dags/{name}", Body=text.encode())


def _load_by_rest(lab: LabDir, state: dict[str, Any]) -> None:
    """What REST takes of it; where there is no REST API the environment stays empty."""
    mwaa = client(lab, "mwaa")
    key = {"variables": "key", "connections": "connection_id", "pools": "name"}
    for kind, name in key.items():
        for identifier, item in state[kind].items():
            if identifier != "default_pool":
                body = {name: identifier, **item}
                with contextlib.suppress(ClientError):
                    mwaa.invoke_rest_api(Name=NAME, Method="POST", Path=f"/{kind}", Body=body)


def _engine(lab: LabDir) -> dict[str, Any]:
    from mwaa_lab.cli import endpoints

    with urllib.request.urlopen(f"{endpoints(lab)['aws']}/_lab/environments", timeout=60) as reply:
        return next(found["engine"] for found in json.load(reply) if found["Name"] == NAME)


def _load(lab: LabDir, row: Version, state: dict[str, Any]) -> None:
    """Through standard input: seed secrets are secrets."""
    engine = _engine(lab)
    [keys] = lab.environments.glob(f"*/*/{NAME}/environment.json")
    environ = lab.environment(
        AIRFLOW_HOME=engine["airflow_home"],
        AIRFLOW__CORE__FERNET_KEY=json.loads(keys.read_text())["fernet_key"],
        AIRFLOW__CORE__LOAD_EXAMPLES="False",
        **{f"AIRFLOW__{row.database_section}__SQL_ALCHEMY_CONN": engine["database_url"]},
        **row.web_authentication,
    )
    run = subprocess.run(
        [engine["python"], SEEDS / "load.py"],
        env=environ,
        cwd=engine["airflow_home"],
        input=json.dumps(state),
        capture_output=True,
        text=True,
        timeout=300,
    )
    if run.returncode:
        raise LabError(f"The state of environment {NAME} could not be written: {run.stderr.strip()[-1500:]}")


def _wait_for_runs(lab: LabDir, row: Version, say: Callable[[str], None]) -> None:
    from mwaa_lab.airflow.database import OnPostgres
    from mwaa_lab.airflow.postgres import Postgres

    key = _engine(lab)["database_url"].rpartition("/")[2].partition("?")[0]
    database, deadline = OnPostgres(Postgres(lab), key), time.monotonic() + RUN_SECONDS
    wanted = eras.runs(row, seed.RUNS)
    while True:
        rows = database.sql("select dag_id, count(*) from dag_run where state = 'success' group by dag_id")
        done = {dag_id: int(count) for dag_id, count in (line.split("|") for line in rows.split())}
        if all(done.get(dag_id, 0) >= count for dag_id, count in wanted.items()):
            say(f"source: {sum(done.values())} DAG runs done")
            return
        if time.monotonic() > deadline:
            raise LabError(
                f"The DAGs of environment {NAME} did not finish in {RUN_SECONDS:.0f} s; they had run {done}."
            )
        time.sleep(0.5)


def _as_of(lab: LabDir, day: str | None) -> None:
    """AWS on another day: environments of a version that it has ended were made while it had it."""
    from mwaa_lab.cli import endpoints

    body = json.dumps({"day": day}).encode()
    request = urllib.request.Request(f"{endpoints(lab)['aws']}/_lab/as-of", data=body, method="POST")
    urllib.request.urlopen(request, timeout=60).close()
