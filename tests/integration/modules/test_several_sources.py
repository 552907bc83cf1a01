# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Several installations into one environment, and one into several: the playbook, from publishing to the verdict."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from mwaa_lab.cli import SECRET_KEY

pytestmark = pytest.mark.lab

ROOT = Path(__file__).resolve().parents[3]
STAGES = "publish,environment,import,verify"
SECRETS = {team: f"CANARY-{team}-{uuid.uuid4().hex[:8]}" for team in ("sales", "finance")}


def dag(name: str) -> bytes:
    return f"from airflow import DAG\nDAG({name!r})\n".encode()


def options(**portable: str) -> bytes:
    return json.dumps({"portable": {name.replace("__", "."): value for name, value in portable.items()}}).encode()


def inventory(team: str, **dags: str) -> dict[str, Any]:
    return {"dags": [{"dag_id": name, "fileloc": f"/srv/{team}/dags/{path}"} for name, path in dags.items()]}


@dataclass
class Play:
    returncode: int
    output: str

    @property
    def changed(self) -> dict[str, int]:
        """By task that changed something, how many hosts or items."""
        found: dict[str, int] = {}
        for task, lines in re.findall(
            r"^TASK \[(?:mwaa\.migration\.)?(.*?)\] \*+\n(.*?)(?=^TASK|^PLAY|\Z)", self.output, re.M | re.S
        ):
            if number := len(re.findall(r"^changed:", lines, re.M)):
                found[task] = found.get(task, 0) + number
        return found

    @property
    def message(self) -> str:
        found = re.search(r'"msg": (".*?[^\\]")', self.output)
        return json.loads(found[1]) if found else self.output[-3000:]


@pytest.fixture
def play(lab: Any, base: Any, tmp_path: Path) -> Any:
    """play(sources={host: variables}, targets={host: variables}, "--tags", …) -> Play, of playbooks/migrate.yml."""
    here = {"ansible_connection": "local", "ansible_python_interpreter": "{{ ansible_playbook_python }}"}
    common = {
        "migration_region": "us-east-1",
        "migration_airflow_version": "2.11.2",
        "migration_webserver_access_mode": "PUBLIC_ONLY",
        "migration_bucket": base.bucket,
        "migration_execution_role_arn": base.role,
        "migration_subnet_ids": base.subnets,
        "migration_security_group_ids": [base.group],
        "verify_wait_timeout": 60,
        "preflight_fail_on": "never",  # the network here has no way out
    }

    def run(targets: dict[str, Any], *words: str, **variables: Any) -> Play:
        hosts = {name: {**here, **its} for name, its in targets.items()}
        path = tmp_path / f"{uuid.uuid4().hex}.yml"
        path.write_text(yaml.safe_dump({"mwaa_target": {"hosts": hosts, "vars": {**common, **variables}}}))
        done = subprocess.run(
            [Path(sys.executable).parent / "ansible-playbook", "-i", path, "playbooks/migrate.yml", *words],
            cwd=ROOT,
            env={
                **os.environ,
                **lab.environment,
                "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
                "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
                "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
                "ANSIBLE_COLLECTIONS_PATH": str(ROOT / ".cache/collections"),
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        return Play(done.returncode, done.stdout)

    return run


@pytest.fixture
def teams(lab: Any, make_bundle: Any, new_bucket: Any) -> dict[str, str]:
    """Two bundles of one key: {team: url}."""
    bucket = new_bucket()
    key = lab.client("kms").create_key()["KeyMetadata"]["KeyId"]
    files: dict[str, dict[str, bytes]] = {
        "sales": {
            "dags/team/orders.py": dag("orders"),
            "plugins/shared.py": b"x = 1\n",
            "requirements.txt": b"boto3\n",
            "options.json": options(core__parallelism="16", core__default_timezone="utc"),
        },
        "finance": {
            "dags/ledger.py": dag("ledger"),
            "dags/sandbox/try.py": dag("try"),
            "plugins/shared.py": b"x = 1\n",
            "requirements.txt": b"xlrd==2.0.1\n",
            "options.json": options(core__parallelism="16", celery__worker_autoscale="8,2"),
        },
    }
    inventories = {
        "sales": inventory("sales", orders="team/orders.py"),
        "finance": inventory("finance", ledger="ledger.py", **{"try": "sandbox/try.py"}),
    }
    return {
        team: make_bundle(
            files[team],
            inventory=inventories[team],
            where=f"s3://{bucket}/{team}",
            key=key,
            variables={"region": "eu", "token": SECRETS[team]},
            connections={"db": {"conn_type": "postgres", "host": team, "password": SECRETS[team]}},
            pools={"default_pool": {"slots": 128, "description": "Default pool", "include_deferred": False}},
        )
        for team in files
    }


def sources(teams: dict[str, str]) -> list[dict[str, Any]]:
    """Each in a folder of its own, and what both have under names of its own."""

    def own(team: str) -> dict[str, Any]:
        rename = [{"match": "token|db", "to": rf"{team}_\g<0>"}]
        return {"variables": {"rename": rename}, "connections": {"rename": rename}}

    return [
        {"source": teams["sales"], "into": "sales", "select": own("sales")},
        {"source": teams["finance"], "into": "finance", "exclude": ["sandbox/"], "select": own("finance")},
    ]


def names(mwaa: Any, environment: str, path: str, key: str, field: str) -> set[str]:
    answer = mwaa.invoke_rest_api(Name=environment, Method="GET", Path=path)["RestApiResponse"]
    return {row[field] for row in answer[key]}


def test_several_into_one(lab: Any, mwaa: Any, play: Any, teams: dict[str, str]) -> None:
    name = f"both-{uuid.uuid4().hex[:8]}"
    given = {
        "migration_environment": name,
        "migration_dag_s3_path": f"{name}/dags",
        "migration_sources": sources(teams),
        "migration_kms_key_id": kms_key(lab, teams["sales"]),
    }
    began = time.time()
    check = play({"both": given}, "--tags", STAGES, "--check", "--diff")
    assert check.returncode == 0, check.output
    assert [line for line in lab.journal(began) if line["access"] == "write"] == []
    first = play({"both": given}, "--tags", STAGES)
    assert first.returncode == 0, first.output
    assert names(mwaa, name, "/variables", "variables", "key") == {"region", "sales_token", "finance_token"}
    assert names(mwaa, name, "/connections", "connections", "connection_id") >= {"sales_db", "finance_db"}
    shown = mwaa.get_environment(Name=name)["Environment"]
    assert shown["AirflowConfigurationOptions"] == {
        "core.parallelism": "16",
        "core.default_timezone": "utc",
        "celery.worker_autoscale": "8,2",
        "core.dags_are_paused_at_creation": "True",
    }
    assert shown["RequirementsS3Path"] == f"{name}/requirements.txt"
    again = play({"both": given}, "--tags", STAGES)
    assert (again.returncode, again.changed) == (0, {}), again.output
    assert "CANARY-" not in check.output + first.output + again.output
    # the locks of both are given back
    for url in teams.values():
        bucket, _, prefix = url.removeprefix("s3://").partition("/")
        assert not lab.client("s3").list_objects_v2(Bucket=bucket, Prefix=f"{prefix}/locks/").get("Contents")


def test_what_two_sources_bring_differently_is_one_sentence(lab: Any, play: Any, make_bundle: Any) -> None:
    """And nothing is done: there is no environment yet, but that is not what is said."""
    url = make_bundle({}, pools={"default_pool": {"slots": 128}, "etl": {"slots": 4}})
    key = kms_key(lab, url)
    other = make_bundle({}, key=key, pools={"default_pool": {"slots": 64}, "etl": {"slots": 4}})
    given = {
        "migration_environment": "nowhere",
        "migration_sources": [{"source": url}, {"source": other}],
        "migration_kms_key_id": key,
    }
    refused = play({"both": given}, "--tags", "import")
    assert refused.returncode != 0
    assert refused.message == (
        f"the sources cannot become one environment, nothing was done: 1 pool of {url} and {other} differs:"
        " default_pool (slots); exclude or rename it in the select of one of the two"
    )


def kms_key(lab: Any, url: str) -> str:
    bucket, _, prefix = url.removeprefix("s3://").partition("/")
    manifest = json.load(lab.client("s3").get_object(Bucket=bucket, Key=f"{prefix}/manifest.json")["Body"])
    return manifest["key"]["kms_key_id"]


def test_one_into_several(lab: Any, mwaa: Any, play: Any, teams: dict[str, str]) -> None:
    """Each environment has its own choice of state and of DAG files."""
    word = uuid.uuid4().hex[:8]
    targets = {
        team: {
            "migration_environment": f"{team}-{word}",
            "migration_dag_s3_path": f"{team}-{word}/dags",
            "migration_select": {"variables": {"include": [variable]}, "connections": {"include": []}},
            "publish_include": [folder],
        }
        for team, variable, folder in (("one", "region", "/ledger.py"), ("two", "token", "sandbox/"))
    }
    given = {"migration_bundle": teams["finance"], "migration_kms_key_id": kms_key(lab, teams["finance"])}
    done = play(targets, "--tags", STAGES, **given)
    assert done.returncode == 0, done.output
    for team, variable, path in (("one", "region", "ledger.py"), ("two", "token", "sandbox/try.py")):
        assert names(mwaa, f"{team}-{word}", "/variables", "variables", "key") == {variable}
        where = mwaa.get_environment(Name=f"{team}-{word}")["Environment"]
        listed = lab.client("s3").list_objects_v2(
            Bucket=where["SourceBucketArn"].rpartition(":")[2], Prefix=where["DagS3Path"] + "/"
        )
        keys = {entry["Key"].removeprefix(where["DagS3Path"] + "/") for entry in listed["Contents"]}
        assert {key for key in keys if key.endswith(".py") and not key.startswith("mwaa_migration")} == {path}
