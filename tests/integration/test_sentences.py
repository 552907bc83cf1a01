# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# ruff: noqa: E501 - a table
"""What a person reads when something is wrong: one sentence that says what, where and how to mend it. And no change.

The playbook runs once a stage, over one host for each thing that can be wrong, beside one with which nothing is.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import boto3
import pytest
import yaml

pytestmark = pytest.mark.lab

_FILE = Path(__file__).parents[1] / "e2e" / "conftest.py"
_SPEC = importlib.util.spec_from_file_location("lab_by_command", _FILE)
assert _SPEC and _SPEC.loader
_by_command = sys.modules["lab_by_command"] = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(_by_command)

ENVIRONMENT = "analytics-lab"
GROUP = ("mwaa_target", "airflow_source")
ALONE = {"ansible_control_path": "none"}  # else the connection of a host with the right key is used again
EVER = {"times": None}  # of a fault: every matching call


@dataclass(frozen=True)
class Case:
    """A host of the inventory with one thing that is wrong, the stages it is run through, and what is then said.

    variables: the host's, where {names} of `Stage.places` are filled in. faults: the lab's, for the stage's time.
    """

    name: str
    says: str  # a regular expression for the whole sentence
    stages: tuple[str, ...]
    variables: dict[str, Any] = field(default_factory=dict)
    faults: tuple[dict[str, Any], ...] = ()


def case(name: str, says: str, *stages: str, faults: Any = (), **variables: Any) -> Case:
    return Case(name, says, stages, variables, tuple(faults))


FINE = case("fine", "")
EVERY = ("export", "publish", "environment", "import", "verify")


ID = "[0-9A-Za-z-]+"  # AWS's request ids

EXPIRED = rf"the AWS credentials have expired \({ID}: ExpiredToken\w*, request id {ID}\); get new ones .*"
DENIED = rf"AWS denied it: .* \({ID}: AccessDenied\w*, request id {ID}\); allow .* in the caller's IAM policy .*"
KEY = r"arn:aws:kms:us-east-1:000000000000:key/\S+"

# fmt: off
CASES = [
    # the source
    case("wrong_port", r'.*Make sure this host can be reached over ssh: .*127.0.0.1 port 1: Connection refused', "export", ansible_port=1, **ALONE),
    case("wrong_key", r".*Make sure this host can be reached over ssh: .*Permission denied \(publickey\)\.", "export", ansible_ssh_private_key_file="{stranger}", **ALONE),
    case("no_home", r"airflow_home \S+-old does not exist on \S+; found there: \S+: name the folder that holds airflow.cfg", "export", export_airflow_home="{home}-old"),
    case("no_airflow", r"airflow_home \S+/empty on \S+ has no airflow.cfg \(it is empty .*: name Airflow's own home", "export", export_airflow_home="{empty}"),
    case("no_python", r"/usr/bin/true does not run the agent \(exit code 0\): set airflow_python to Airflow's own interpreter", "export", export_airflow_python="/usr/bin/true"),
    case("fernet_missing", r"No Fernet key is set \(neither \S+/fernet_missing/airflow.cfg nor AIRFLOW__CORE__FERNET_KEY\), but \d+ stored values are encrypted: put the key there .*nothing was exported", "export", export_airflow_home="{fernet_missing}", export_airflow_python="{python}"),
    case("fernet_wrong", r"The Fernet key from \S+/fernet_wrong/airflow.cfg \[core\] fernet_key opens none of the \d+ encrypted values: put the key there .*nothing was exported", "export", export_airflow_home="{fernet_wrong}", export_airflow_python="{python}"),
    case("fernet_invalid", r"The Fernet key from \S+/fernet_invalid/airflow.cfg \[core\] fernet_key is not a valid Fernet key: put Airflow's own key there", "export", export_airflow_home="{fernet_invalid}", export_airflow_python="{python}"),
    case("other_source", r"the bundle \S+ holds another Airflow \(airflow_home .*\): use a bundle of its own for this one", "export", migration_bundle="{bundle}/", export_airflow_home="{other_home}", export_airflow_python="{python}"),
    case("no_key", rf"cannot make a data key with the KMS key {KEY}: it does not exist: .* \(GenerateDataKey: NotFoundException, request id {ID}\); check its name, the region and the account", "export", migration_kms_key_id="arn:aws:kms:us-east-1:000000000000:key/11111111-2222-3333-4444-555555555555"),
    case("disabled_key", rf"cannot make a data key with the KMS key {KEY}: the key cannot be used: .* \(GenerateDataKey: DisabledException, request id {ID}\); enable it .*", "export", migration_kms_key_id="{disabled_key}"),
    case("no_bundle_bucket", rf"cannot read s3://nobody-has-this/analytics/(manifest|locks/export).json: it does not exist: .* \(GetObject: NoSuchBucket, request id {ID}\); check its name, the region and the account", "export", migration_bundle="s3://nobody-has-this/analytics"),
    case("bundle_elsewhere", r"the bundle's bucket mwaa-lab-elsewhere is in eu-west-1 and region is us-east-1: keep the bundle in a bucket in us-east-1, or set region to eu-west-1", *EVERY, migration_bundle="s3://{elsewhere}/analytics"),
    # AWS
    case("expired", rf"cannot read s3://\S+/(manifest|locks/\S+).json: {EXPIRED}", "export", "publish", "import", "verify", migration_bundle="{bundle}-expired", faults=[{"service": "s3", "match": "-expired", "error": "ExpiredToken", **EVER}]),
    case("expired_mwaa", rf"cannot read environment expired: {EXPIRED}", "environment", "import", "verify", migration_environment="expired", faults=[{"service": "mwaa", "match": "expired", "error": "ExpiredTokenException", **EVER}]),
    case("denied_bundle", rf"cannot read s3://\S+/(manifest|locks/\S+).json: {DENIED}", "export", "publish", "import", "verify", migration_bundle="{bundle}-denied", faults=[{"service": "s3", "match": "-denied", "error": "AccessDenied", **EVER}]),
    case("denied", rf"cannot read environment denied: {DENIED}", "environment", "import", "verify", migration_environment="denied", faults=[{"service": "mwaa", "match": "denied", "error": "AccessDeniedException", "message": "User: arn:aws:iam::000000000000:user/ann is not authorized to perform: airflow:GetEnvironment", **EVER}]),
    # the bundle
    case("no_bundle", r"there is no bundle at \S+ \(no manifest.json\): export one, or correct the name|\S+ is a bundle without manifest.json: .*; export again, nothing was published", *EVERY[1:], migration_bundle="{bundles}/none"),
    case("dag_altered", r".*dags/\S+ (is missing or altered; export again|does not match the bundle's manifest: export again)", "publish", migration_bundle="{bundles}/dag_altered"),
    case("state_altered", r".*state/\S+.json.sealed (are missing or altered; export again|does not match the bundle's manifest: export again)", "publish", "import", "verify", migration_bundle="{bundles}/state_altered"),
    case("file_missing", r".*(state/\S+.json.sealed are missing or altered; export again|(options.json|state/\S+) is missing although the manifest names it: export again)", *EVERY[1:], migration_bundle="{bundles}/file_missing"),
    case("version_gone", r".*state/connections.json.sealed is missing (or altered; export again|although the manifest names it: export again)", "publish", "import", migration_bundle="{bundle}-gone"),
    case("manifest_altered", r"\S+/manifest.json was altered after it was written \(.*\): remove the bundle and export again", *EVERY[1:], migration_bundle="{bundles}/manifest_altered"),
    case("manifest_broken", r"\S+/manifest.json is damaged \(no JSON object\): remove the bundle and export again", "import", migration_bundle="{bundles}/manifest_broken"),
    case("key_altered", r"\S+/manifest.json was altered: its key belongs to another bundle; remove it and export again", "import", migration_bundle="{bundles}/key_altered"),
    case("other_schema", r"\S+/manifest.json has schema version 2, this collection knows 1: use the version of the collection that exported it", *EVERY[1:], migration_bundle="{bundles}/other_schema"),
    case("key_disabled", rf"cannot open the bundle \S+ with its KMS key {KEY}: the key cannot be used: .* \(Decrypt: DisabledException, request id {ID}\); enable it .*", "publish", "import", migration_bundle="{bundle}-other_key"),
    # the target
    case("no_environment", r"(the )?environment nowhere does not exist.*: correct environment or region, or create it|.*environment nowhere does not exist, so it cannot be verified; run the environment stage first", "import", "verify", migration_environment="nowhere"),
    case("updating", r"environment busy is UPDATING(, so nothing was done: run again when it is AVAILABLE| and nothing was changed: what is asked for differs in .*; wait until it is AVAILABLE and run again)", "environment", "import", migration_environment="busy"),
    case("bucket_elsewhere", r".*the bucket mwaa-lab-elsewhere is in eu-west-1.*(: MWAA needs a bucket in its own region|; use a bucket there, or set region to the bucket's)", "publish", "environment", migration_environment="new", migration_bucket="{elsewhere}"),
    case("no_bucket", r".*the bucket nobody-has-this does not exist[:;] create it.*", "publish", "environment", migration_environment="new", migration_bucket="nobody-has-this"),
]
# AWS_* keys and a profile exclude each other, so this is a run of its own
PROFILE = case("profile", r"the AWS profile analytics-prd does not exist; correct profile \(or AWS_PROFILE\), or add it to ~/.aws/config", "export", "import", migration_profile="analytics-prd")
# a minute of growing pauses, which others need not wait for
THROTTLED = case("throttled", rf"cannot read environment throttled: AWS kept throttling the call although .* \(GetEnvironment: ThrottlingException, request id {ID}\); run again later, or ask AWS Support for a higher rate", "import", migration_environment="throttled", faults=[{"service": "mwaa", "match": "throttled", "error": "ThrottlingException", **EVER}])

# module: its list with a duplicate, and with five bad items of seven
LISTS = {
    "mwaa_variable_upsert": ("variables", "key", {"value": "CANARY-twice-00000001"}, [
        {"value": "CANARY-nokey-00000001"}, {"key": "no_value"}, {"key": "number", "value": 12345},
        {"key": "k" * 251, "value": "CANARY-long-00000001"}, {"key": "flag", "value": True},
    ]),
    "mwaa_connection_upsert": ("connections", "conn_id", {"conn_type": "http", "password": "CANARY-twice-00000002"}, [
        {"conn_type": "http", "password": "CANARY-noid-00000001"}, {"conn_id": "no_type", "password": "CANARY-notype-00000001"},
        {"conn_id": "port", "conn_type": "http", "port": 70000}, {"conn_id": "host", "conn_type": "http", "host": "h" * 501},
        {"conn_id": "i" * 251, "conn_type": "http"},
    ]),
    "mwaa_pool_upsert": ("pools", "name", {"slots": 3}, [
        {"slots": 1}, {"name": "no_slots"}, {"name": "few", "slots": -2}, {"name": "n" * 257, "slots": 1},
        {"name": "many", "slots": 2**31},
    ]),
}
# fmt: on


@dataclass
class Screen:
    """What one host's case showed."""

    sentence: str
    line: str  # the whole line on which Ansible shows it
    unreachable: bool = False


class Stage:
    """The lab with everything that the cases need, and the playbook on it."""

    def __init__(self, lab: Any, folder: Path):
        self.lab, self.folder = lab, folder
        self.env = lab.environment()
        source = lab.status()["source"]
        self.home, self.python = Path(source["airflow_home"]), source["python"]
        self.bundle = f"s3://{self.env['MWAA_LAB_BUNDLE_BUCKET']}/{ENVIRONMENT}"
        self.places: dict[str, str] = {
            "bundle": self.bundle,
            "bundles": str(folder / "bundles"),
            "home": str(self.home),
            "python": self.python,
            "elsewhere": "mwaa-lab-elsewhere",
            "stranger": str(folder / "stranger"),
        }
        self.homes()
        self.account()
        self.migrate()
        self.bundles()
        self.environments()
        self.admin("faults", [fault for one in [*CASES, THROTTLED] for fault in one.faults])

    # -- what is there

    def homes(self) -> None:
        """Airflow homes beside the true one: the same database, another airflow.cfg."""
        config = (self.home / "airflow.cfg").read_text()
        assert re.search(r"(?m)^fernet_key = \S+$", config)
        keys = {
            "fernet_missing": "",
            "fernet_wrong": "Q0FOQVJZLXdyb25nLWZlcm5ldC1rZXktMDAwMDAwMDA=",  # "CANARY-wrong-fernet-key-00000000"
            "fernet_invalid": "CANARY-invalid-fernet-key-00000000",
        }
        for name, key in keys.items():
            text = re.sub(r"(?m)^fernet_key = .*$", f"fernet_key = {key}", config)
            self._home(name, text)
        self._home("other_home", config)
        (self.folder / "empty").mkdir()
        self.places["empty"] = str(self.folder / "empty")
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", self.places["stranger"]], check=True)

    def _home(self, name: str, config: str) -> None:
        home = self.folder / name
        home.mkdir()
        (home / "airflow.cfg").write_text(config)
        self.places[name] = str(home)

    def account(self) -> None:
        s3 = boto3.client(
            "s3",
            region_name="eu-west-1",
            endpoint_url=self.env["AWS_ENDPOINT_URL"],
            aws_access_key_id=self.env["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=self.env["AWS_SECRET_ACCESS_KEY"],
        )
        bucket = self.places["elsewhere"]
        s3.create_bucket(Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": "eu-west-1"})
        s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
        kms = self.lab.client("kms")
        self.places["disabled_key"] = kms.create_key()["KeyMetadata"]["Arn"]

    def migrate(self) -> None:
        """Once with everything right, and two bundles more."""
        sources = [
            FINE,
            case("other_key", "", migration_bundle="{bundle}-other_key", migration_kms_key_id="{disabled_key}"),
            case("loses_a_version", "", migration_bundle="{bundle}-gone"),
        ]
        play = self.play({"airflow_source": sources}, "--tags", "export")
        assert play.returncode == 0, play.output
        play = self.play({"mwaa_target": [FINE]}, "--tags", "publish,environment,import")
        assert play.returncode == 0, play.output
        self.lab.client("kms").disable_key(KeyId=self.places["disabled_key"])
        s3, bucket = self.lab.client("s3"), self.env["MWAA_LAB_BUNDLE_BUCKET"]
        key = f"{ENVIRONMENT}-gone/state/connections.json.sealed"
        version = s3.head_object(Bucket=bucket, Key=key)["VersionId"]
        s3.delete_object(Bucket=bucket, Key=key, VersionId=version)

    def bundles(self) -> None:
        """Copies of the true bundle, each altered in one way."""
        s3, bucket, prefix = self.lab.client("s3"), self.env["MWAA_LAB_BUNDLE_BUCKET"], f"{ENVIRONMENT}/"
        true = self.folder / "bundle"
        for entry in s3.list_objects_v2(Bucket=bucket, Prefix=prefix)["Contents"]:
            path = true / entry["Key"][len(prefix) :]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(s3.get_object(Bucket=bucket, Key=entry["Key"])["Body"].read())
        manifest = json.loads((true / "manifest.json").read_text())
        dag = next(file["path"] for file in manifest["files"] if file["path"].startswith("dags/"))
        other_key = {**manifest["key"], "wrapped": "Q0FOQVJZLW90aGVy"}
        copies: dict[str, dict[str, Any]] = {
            "dag_altered": {dag: b"import os; os.system('id')"},
            "state_altered": {
                f"state/{kind}.json.sealed": b"gAAAAABCANARY" for kind in ("variables", "connections", "pools")
            },
            "file_missing": {
                **{f"state/{kind}.json.sealed": None for kind in ("variables", "connections", "pools")},
                "options.json": None,
            },
            "manifest_altered": {
                "manifest.json": json.dumps({**manifest, "source": {"airflow_version": "1"}}).encode()
            },
            "manifest_broken": {"manifest.json": b'{"schema_version": 1'},
            "key_altered": {"manifest.json": json.dumps({**manifest, "key": other_key}).encode()},
            "other_schema": {"manifest.json": json.dumps({**manifest, "schema_version": 2}).encode()},
            "none": {"manifest.json": None},
        }
        for name, files in copies.items():
            copy = self.folder / "bundles" / name
            shutil.copytree(true, copy)
            for path, content in files.items():
                assert (copy / path).exists()
                (copy / path).unlink() if content is None else (copy / path).write_bytes(content)

    def environments(self) -> None:
        """One that is UPDATING and stays so."""
        mwaa = self.lab.client("mwaa")
        shown = mwaa.get_environment(Name=ENVIRONMENT)["Environment"]
        same = ("ExecutionRoleArn", "SourceBucketArn", "DagS3Path", "NetworkConfiguration", "AirflowVersion")
        mwaa.create_environment(Name="busy", **{name: shown[name] for name in same})
        _by_command.wait_for(lambda: self._status("busy") == "AVAILABLE", 60, "environment busy")
        self.admin("stub", {"hold": True})
        mwaa.update_environment(Name="busy", AirflowConfigurationOptions={"core.parallelism": "7"})

    def _status(self, name: str) -> str:
        return self.lab.client("mwaa").get_environment(Name=name)["Environment"]["Status"]

    def admin(self, what: str, document: Any) -> None:
        url = f"{self.env['AWS_ENDPOINT_URL']}/_lab/{what}"
        with urlopen(Request(url, data=json.dumps(document).encode(), method="POST")) as answer:
            json.load(answer)

    # -- running

    def run(self, stage: str, cases: list[Case] | None = None, *words: str, env: dict[str, str] | None = None) -> Any:
        """One stage over these cases, or over all that have it."""
        if cases is None:
            cases = [one for one in CASES if stage in one.stages]
            if stage != "verify":  # which needs an Airflow that runs the agent
                cases = [FINE, *cases]
        return self.play({GROUP[stage == "export"]: cases}, "--tags", stage, *words, env=env)

    def play(self, groups: dict[str, list[Case]], *words: str, playbook: str = "migrate.yml", env: Any = None) -> Any:
        """The playbook with an inventory of these cases."""
        inventories = _by_command.ROOT / "inventories/lab"
        common = yaml.safe_load((inventories / "group_vars/all.yml").read_text())
        ssh = yaml.safe_load((inventories / "source.yml").read_text())["airflow_source"]["hosts"]["lab_source"]
        here = {"ansible_connection": "local", "ansible_python_interpreter": "{{ ansible_playbook_python }}"}
        inventory: dict[str, Any] = {
            "all": {
                "vars": {
                    **common,
                    "import_lane": "rest",
                    "environment_wait_timeout": 5,
                    "verify_wait_timeout": 20,
                    "migration_bundle": self.bundle,
                }
            }
        }
        for group, cases in groups.items():
            of_group = ssh if group == GROUP[True] else here
            inventory[group] = {"hosts": {one.name: {**of_group, **self._variables(one, group)} for one in cases}}
        hosts = [name for group in groups for name in inventory[group]["hosts"]]
        path = self.folder / f"inventory-{time.monotonic_ns()}.yml"
        path.write_text(yaml.safe_dump(inventory))
        words = ("-i", str(path), "--limit", ",".join(hosts), "--forks", "6", "-e", "migration_deploy=direct", *words)
        return self.lab.play(playbook, *words, env=env)

    def _variables(self, one: Case, group: str) -> dict[str, Any]:
        # what is wrong at the source has a bundle of its own, which must never come into being
        own = {"migration_bundle": "{bundle}" if one is FINE or group == GROUP[False] else f"{{bundle}}-{one.name}"}
        own |= one.variables
        return {name: value.format(**self.places) if isinstance(value, str) else value for name, value in own.items()}


def screens(output: str) -> dict[str, Screen]:
    found = {}
    for match in re.finditer(r"^fatal: \[(\w+)\]: (FAILED|UNREACHABLE)! => (.*)$", output, re.MULTILINE):
        found[match[1]] = Screen(json.loads(match[3])["msg"], match[0], match[2] == "UNREACHABLE")
    return found


@pytest.fixture(scope="session")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    lab = _by_command.Lab(tmp_path_factory.mktemp("lab"))
    try:
        lab.up("--engine", "stub", "--source", "2.10.3", "--seed-data", "small")
        yield Stage(lab, tmp_path_factory.mktemp("stage"))
    finally:
        lab.command("down", check=False)


@dataclass
class Shown:
    """All that was run: {stage: {case: what it showed}}, the plays, and what the journal has of them."""

    screens: dict[str, dict[str, Screen]]
    plays: dict[str, Any]
    journal: list[dict[str, Any]]
    altered: list[str]  # objects of both buckets


@pytest.fixture(scope="session")
def shown(stage: Stage) -> Shown:
    since, kept = time.time(), set(stage.lab.objects())
    no_keys = {"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": "", "AWS_CONFIG_FILE": str(stage.folder / "none")}
    loud = [one for one in CASES if one.name in ("no_home", "fernet_wrong", "expired")]
    with ThreadPoolExecutor(1) as pool:
        slow = pool.submit(stage.run, "import", [THROTTLED])
        plays = {name: stage.run(name) for name in EVERY}
        plays |= {f"{name}_profile": stage.run(name, [PROFILE], env=no_keys) for name in PROFILE.stages}
        plays |= {"lists": stage.play({GROUP[False]: [FINE]}, playbook=lists(stage.folder))}
        plays |= {"loud": stage.run("export", loud, "-vvv"), "throttled": slow.result()}
    return Shown(
        {name: screens(play.output) for name, play in plays.items() if name != "loud"},
        plays,
        [line for line in stage.lab.journal() if line["time"] >= since and line["caller"] == "user"],
        sorted({key for key, _content in set(stage.lab.objects()) ^ kept}),
    )


def lists(folder: Path) -> str:
    """A playbook of two tasks a module: its list with a duplicate, its list with five bad items."""
    tasks, given = [], {}
    for module, (option, name, rest, bad) in LISTS.items():
        good = [{name: identifier, **rest} for identifier in ("orders", "other", "orders")]
        for what, items in (("twice", good), ("bad", [*good[:2], *bad])):
            given[f"{option}_{what}"] = items  # in a file of its own: Ansible shows the lines around a task that fails
            arguments = {"environment": ENVIRONMENT, option: f"{{{{ {option}_{what} }}}}", "lane": "rest"}
            task = {"name": f"{module} {what}", f"mwaa.migration.{module}": arguments, "ignore_errors": True}
            tasks.append(task)
    path = folder / "lists.yml"
    (folder / "lists_given.yml").write_text(yaml.safe_dump(given))
    play = {"hosts": "all", "gather_facts": False, "vars_files": ["lists_given.yml"], "tasks": tasks}
    path.write_text(yaml.safe_dump([play]))
    return os.path.relpath(path, _by_command.ROOT / "playbooks")


def failures(output: str) -> list[tuple[str, str]]:
    """(task, its line) of the playbook of lists."""
    return re.findall(r"^TASK \[(.*?)\].*?^(fatal: .*?)$", output, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize(
    ("run", "one"),
    [
        *((name, one) for one in CASES for name in one.stages),
        *((f"{name}_profile", PROFILE) for name in PROFILE.stages),
        ("throttled", THROTTLED),
    ],
    ids=lambda value: value if isinstance(value, str) else value.name,
)
def test_one_sentence(shown: Shown, run: str, one: Case) -> None:
    screen = shown.screens[run][one.name]
    assert re.fullmatch(one.says, screen.sentence), screen.sentence
    assert not re.search(r"[\[{]'|Traceback|<class|Error\(|\n", screen.sentence), screen.sentence
    assert len(screen.sentence) < 500, screen.sentence
    assert len(screen.line) < len(screen.sentence) + 450, screen.line  # what Ansible prints around it


@pytest.mark.parametrize("run", EVERY[:4])
def test_where_nothing_is_wrong_nothing_is_said(shown: Shown, run: str) -> None:
    recap = shown.plays[run].recap["fine"]
    assert (recap["failed"], recap["unreachable"], recap["changed"]) == (0, 0, 0), shown.plays[run].output


@pytest.mark.parametrize("module", LISTS)
def test_a_duplicate_is_named_by_both_indexes(shown: Shown, module: str) -> None:
    line = dict(failures(shown.plays["lists"].output))[f"{module} twice"]
    assert f"index 0 and index 2 both define {LISTS[module][1]} 'orders'" in line, line


@pytest.mark.parametrize("module", LISTS)
def test_all_bad_items_are_named_at_once(shown: Shown, module: str) -> None:
    line = dict(failures(shown.plays["lists"].output))[f"{module} bad"]
    assert "5 faults" in line, line
    assert [index for index in range(7) if re.search(rf"\({index - 1}\) index {index}\b", line)] == [2, 3, 4, 5, 6], (
        line
    )


def test_nothing_was_changed(shown: Shown) -> None:
    writes = [(line["operation"], line["keys"]) for line in shown.journal if line["access"] == "write"]
    assert shown.journal
    assert not writes
    assert not shown.altered


def test_no_secret_and_no_traceback_at_any_verbosity(shown: Shown) -> None:
    for name, play in shown.plays.items():
        assert "CANARY-" not in play.output, name
        assert "Traceback" not in play.output, name
    assert "opens none of the" in shown.plays["loud"].output and "ESTABLISH SSH" in shown.plays["loud"].output
