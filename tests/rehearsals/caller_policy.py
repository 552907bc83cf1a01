# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs every playbook in a lab that holds callers to their policies, each as a user who has the policies that
docs/caller-policy.md names for it and no others; prints what was denied, and what nobody needed.

python tests/rehearsals/caller_policy.py [--everything]

--everything: the users may do everything, and nothing stops at the first denial. That is how the policies were found.
tests/integration/test_caller_policy.py runs the same.
"""

from __future__ import annotations

import fnmatch
import importlib.util
import json
import os
import re
import secrets
import string
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import yaml

ROOT = Path(__file__).resolve().parents[2]
_SPEC = importlib.util.spec_from_file_location("lab_of_policies", ROOT / "tests/e2e/conftest.py")
assert _SPEC and _SPEC.loader
_by_command = sys.modules["lab_of_policies"] = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(_by_command)

ACCOUNT, REGION = "000000000000", "us-east-1"
FOLDER = ROOT / "docs/caller-policy"
LIMIT = 6144  # characters of a managed policy, white space not counted [IAM quotas]
_ALLOW = {"Effect": "Allow", "Action": "*", "Resource": "*"}
EVERYTHING = {"Version": "2012-10-17", "Statement": [_ALLOW]}
_KEY = ("kms:Decrypt*", "kms:Describe*", "kms:Encrypt*", "kms:GenerateDataKey*", "kms:ReEncrypt*")
_FOR_LOGS = {"kms:EncryptionContext:aws:logs:arn": f"arn:aws:logs:{REGION}:{ACCOUNT}:*"}
KEY_POLICY = {
    "Version": "2012-10-17",
    "Statement": [
        {**_ALLOW, "Action": "kms:*", "Principal": {"AWS": f"arn:aws:iam::{ACCOUNT}:root"}},
        {
            **_ALLOW,
            "Action": list(_KEY),
            "Principal": {"Service": f"logs.{REGION}.amazonaws.com"},
            "Condition": {"ArnLike": _FOR_LOGS},
        },
    ],
}

# Allowed, and asked for by no run here, but when … By action, or `policy/action`.
UNSEEN = {
    "s3:AbortMultipartUpload": "an upload of more than 8 MB breaks off",
    "migrate/s3:DeleteObject": "a file that was published is no longer in the bundle",
    "migrate/s3:GetObjectVersion": "the environment pins a version of its own (`environment_*_s3_object_version`)",
    "airflow:CreateCliToken": "Airflow before 2.4.3, and private web servers that do not answer",
    "airflow:DeleteEnvironment": "CloudFormation takes away an environment whose creation failed",
    "s3:DeleteBucket": "CloudFormation takes away the bucket of a base stack whose creation failed",
    "s3:DeleteBucketPolicy": "the same",
    "kms:ScheduleKeyDeletion": "the same, of its key",
    "ec2:DescribeInstances": "`migration_adopt` names the source's host or its instance",
    "s3:GetAccountPublicAccessBlock": "the bucket itself does not block all public access",
    "s3:ListAllMyBuckets": "S3 refuses the bucket: it may be another account's",
    "s3:GetBucketLocation": "S3 does not say the bucket's region unasked",
    "secretsmanager:DeleteSecret": "`import_prune`, or a secret that the source has no more",
    "secretsmanager:DescribeSecret": "a secret with this name is there, and is not the migration's own",
    "secretsmanager:PutSecretValue": "a value has changed since the last import",
    "secretsmanager:RestoreSecret": "a secret with this name waits for its deletion",
    "secretsmanager:UpdateSecret": "a description or a key has changed since the last import",
    "upgrade/s3:ListBucket": "a file is missing: S3 says so only to whoever may list",
    "logs:FilterLogEvents": "the environment is there, and has written logs",
    **dict.fromkeys(
        (
            "LogGroups/logs:DescribeLogGroups",
            "TaskLogs/logs:CreateLogStream",
            "TaskLogs/logs:GetLogEvents",
            "TaskLogs/logs:PutLogEvents",
            "SourceEnvironment/airflow:GetEnvironment",
            "SourceStreams/logs:DescribeLogStreams",
            "SourceStreams/logs:GetLogEvents",
            "SourceLogBucket/s3:ListBucket",
            "SourceLogs/s3:GetObject",
            "Archive/s3:PutObject",
        ),
        "`migration_logs` is set",
    ),
    "cleanup/s3:DeleteObject": "an environment with Airflow 2, where Airflow itself removes the agent's rows",
    "cleanup/s3:GetObject": "an environment with Airflow 2, where Airflow itself removes the agent's rows",
    "cleanup/s3:PutObject": "an environment with Airflow 2, where Airflow itself removes the agent's rows",
    "cleanup/kms:Decrypt": "an environment with Airflow 2, where Airflow itself removes the agent's rows",
    "cleanup/kms:GenerateDataKey": "an environment with Airflow 2, where Airflow itself removes the agent's rows",
}


def policies() -> dict[str, dict[str, Any]]:
    """docs/caller-policy/*.json by their names, with placeholders."""
    return {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(FOLDER.glob("*.json"))}


def size(policy: dict[str, Any]) -> int:
    """Characters, as IAM counts them."""
    return len("".join(json.dumps(policy).split()))


def filled(policy: dict[str, Any], values: dict[str, str]) -> dict[str, Any]:
    """With names for placeholders. :raises KeyError: one is not known."""
    return json.loads(string.Template(json.dumps(policy)).substitute(values))


@dataclass(frozen=True)
class Use:
    """A run of a playbook, and the policies that docs/caller-policy.md names for it."""

    name: str
    playbook: str
    policies: tuple[str, ...]
    variables: dict[str, Any] = field(default_factory=dict)
    tags: str = ""
    places: dict[str, str] = field(default_factory=dict)
    """Placeholders that are other than the inventory's."""
    service_role: tuple[str, ...] = ()
    """Policies of the role that CloudFormation acts as."""
    fails: bool = False
    """At the end, for what a stub environment does not have."""
    leaves: str = ""
    """The environment that is the source, where that is no host."""


_BUNDLE = "s3://mwaa-lab-bundle/analytics-lab"
_DIRECT = {
    "migration_deploy": "direct",
    "migration_environment": "direct",
    "migration_airflow_version": "3.2.1",
    "migration_dag_s3_path": "direct/dags",
    "migration_bundle": _BUNDLE,
    "migration_lane": "secrets_manager",
}
_GREEN = {
    "migration_bundle": "s3://green-bundles/green",
    "migration_environment": "green",
    "migration_adopt": {},
    "mwaa_stack_bucket_name": "green-airflow",
    "mwaa_stack_bundle_bucket_name": "green-bundles",
    "mwaa_stack_create_key": True,
}
_GREEN_PLACES = {
    "Environment": "green",
    "Bucket": "green-airflow",
    "BundleBucket": "green-bundles",
    "BundlePrefix": "green",
}
_REFERENCE = {"smtp.smtp_password": "resolve:secretsmanager:airflow/smtp:SecretString:password"}
_ROLE = f"arn:aws:iam::{ACCOUNT}:role/cloudformation"

USES = (
    Use(
        "rehearse",
        "rehearse.yml",
        ("preflight", "migrate", "environment", "stacks", "stacks-adopt"),
        {
            "migration_adopt": "adopt",
            "rehearsal_report": "report",
            "verify_wait_timeout": 20,
            "mwaa_stack_role_reads_bundle": True,
            "mwaa_stack_environment_secret_references": _REFERENCE,
        },
        fails=True,
    ),
    Use("preflight", "preflight.yml", ("preflight", "environment")),
    Use(
        "migrate again",
        "migrate.yml",
        ("preflight", "migrate", "environment", "stacks", "stacks-adopt"),
        {
            "migration_adopt": "adopt",
            "environment_max_workers": 7,
            "mwaa_stack_tags": {"team": "a"},
            "mwaa_stack_environment_secret_references": _REFERENCE,
        },
        tags="base,publish,environment",
    ),
    Use(
        "migrate directly",
        "migrate.yml",
        ("preflight", "migrate", "environment", "secrets-manager"),
        {**_DIRECT, "environment_tags": {"team": "a"}, "verify_fail": False, "verify_wait_timeout": 20},
        tags="preflight,publish,environment,import,verify",
        places={"Environment": "direct"},
    ),
    Use(
        "change it directly",
        "migrate.yml",
        ("migrate", "environment", "secrets-manager"),
        {**_DIRECT, "environment_tags": {"group": "a"}, "environment_max_workers": 7},
        tags="environment",
        places={"Environment": "direct"},
    ),
    # of Airflow 3, from which a stub lets the agent be taken out again
    Use(
        "export an environment",
        "migrate.yml",
        ("migrate", "source-environment"),
        {**_DIRECT, "migration_bundle": f"{_BUNDLE}/direct", "migration_history": True},
        tags="export",
        places={"SourceEnvironment": "direct"},
        leaves="direct",
    ),
    Use(
        "clone",
        "clone.yml",
        ("preflight", "environment", "clone"),
        {
            "clone_source": "analytics-lab",
            "clone_name": "cloned",
            "clone_execution_role_arn": f"arn:aws:iam::{ACCOUNT}:role/cloned",
            "clone_airflow_version": "3.0.6",
            "clone_write_role_policy": True,
        },
        places={"Environment": "cloned", "Role": "cloned"},
    ),
    Use(
        "upgrade",
        "upgrade.yml",
        ("upgrade",),
        {"upgrade_environment": "cloned", "upgrade_airflow_version": "3.2.1", "upgrade_confirm": "cloned"},
        places={"Environment": "cloned"},
    ),
    # on Airflow 2 Airflow itself has to remove the agent's rows, which no stub does
    Use(
        "cleanup",
        "cleanup.yml",
        ("cleanup",),
        {**_DIRECT, "cleanup_keep_bundle_days": 0, "cleanup_wait_timeout": 60},
        places={"Environment": "direct"},
    ),
    Use("teardown", "teardown.yml", ("stacks", "stacks-adopt")),
    Use("make anew", "migrate.yml", ("migrate", "stacks", "stacks-new"), _GREEN, tags="base", places=_GREEN_PLACES),
    Use("remove it", "teardown.yml", ("stacks", "stacks-new"), _GREEN, places=_GREEN_PLACES),
    Use(
        "make anew as another role",
        "migrate.yml",
        ("migrate", "stacks"),
        {
            "migration_environment": "ends",
            "migration_adopt": {},
            "mwaa_stack_connectivity": "endpoints",
            "migration_cloudformation_role_arn": _ROLE,
        },
        tags="base",
        places={"Environment": "ends", "Bucket": "ends-*", "BundlePrefix": "ends"},
        service_role=("stacks-new",),
    ),
    Use(
        "remove that",
        "teardown.yml",
        ("stacks",),
        {"migration_environment": "ends", "migration_cloudformation_role_arn": _ROLE},
        places={"Environment": "ends", "Bucket": "ends-*"},
        service_role=("stacks-new",),
    ),
)

TEARDOWN = [
    {
        "hosts": "mwaa_target",
        "gather_facts": False,
        "module_defaults": {"group/mwaa.migration.aws": {"region": REGION}},
        "tasks": [
            {"ansible.builtin.include_role": {"name": "mwaa.migration.mwaa_stack", "tasks_from": "teardown"}},
        ],
    }
]


class World:
    """A lab that enforces IAM, what is in it beforehand, and its users."""

    def __init__(self, folder: Path, everything: bool = False) -> None:
        self.folder, self.everything = folder, everything
        self.lab = _by_command.Lab(folder / "lab")
        self.policies = policies()
        self._users = 0

    def up(self) -> None:
        self.lab.up("--engine", "stub", "--source", "2.10.3", "--seed-data", "small", "--enforce-iam")
        self.prepare()

    def prepare(self) -> None:
        """What there is before anybody migrates."""
        self.env = self.lab.environment()
        self.iam, kms, s3, logs = (self.lab.client(name) for name in ("iam", "kms", "s3", "logs"))
        self.key = kms.create_key(Description="the environment's", Policy=json.dumps(KEY_POLICY))["KeyMetadata"]["Arn"]
        bundles = self.env["MWAA_LAB_KMS_KEY_ID"]
        for bucket, key in (("MWAA_LAB_BUCKET", self.key), ("MWAA_LAB_BUNDLE_BUCKET", bundles)):
            default = {"SSEAlgorithm": "aws:kms", "KMSMasterKeyID": key}
            rules = {"Rules": [{"ApplyServerSideEncryptionByDefault": default}]}
            s3.put_bucket_encryption(Bucket=self.env[bucket], ServerSideEncryptionConfiguration=rules)
        logs.create_log_group(logGroupName="/team/airflow")
        own = self.env["MWAA_LAB_ROLE_ARN"].rpartition("/")[2]
        trust = self.iam.get_role(RoleName=own)["Role"]["AssumeRolePolicyDocument"]
        self._role("cloned", trust)
        policy = self.iam.get_role_policy(RoleName=own, PolicyName="execution")["PolicyDocument"]
        self.iam.put_role_policy(RoleName="cloned", PolicyName="execution", PolicyDocument=json.dumps(policy))
        # of the trust that MWAA needs, a half is there: so the base stack has something to add
        trust["Statement"][0]["Principal"]["Service"] = "airflow.amazonaws.com"
        self.iam.update_assume_role_policy(RoleName=own, PolicyDocument=json.dumps(trust))
        # what a run that was killed left
        read = json.dumps({"Version": "2012-10-17", "Statement": [{**_ALLOW, "Action": "s3:GetObject"}]})
        self.iam.put_role_policy(RoleName=own, PolicyName="mwaa-migration-temporary-direct", PolicyDocument=read)
        role = self.env["MWAA_LAB_ROLE_ARN"]
        context = {"EncryptionContextEquals": {"mwaa-migration": "agent-request", "environment": "direct"}}
        grant = {"Operations": ["Decrypt"], "Name": "mwaa-migration-left", "Constraints": context}
        kms.create_grant(KeyId=bundles, GranteePrincipal=role, **grant)
        read = json.dumps({"Version": "2012-10-17", "Statement": [{**_ALLOW, "Action": "sqs:ListQueues"}]})
        managed = self.iam.create_policy(PolicyName="team", PolicyDocument=read)["Policy"]["Arn"]
        self.iam.attach_role_policy(RoleName=own, PolicyArn=managed)
        secret = json.dumps({"password": "CANARY-smtp-" + secrets.token_hex(4)})
        self.lab.client("secretsmanager").create_secret(Name="airflow/smtp", SecretString=secret)
        service = {"Effect": "Allow", "Principal": {"Service": "cloudformation.amazonaws.com"}}
        statement = {**service, "Action": "sts:AssumeRole"}
        self._role("cloudformation", {"Version": "2012-10-17", "Statement": [statement]})
        # the lab's role knows nothing of the environment's key, and `direct` writes no policy
        use = {"Effect": "Allow", "Action": list(_KEY), "Resource": self.key}
        for role in (own, "cloned"):
            document = json.dumps({"Version": "2012-10-17", "Statement": [use]})
            self.iam.put_role_policy(RoleName=role, PolicyName="key", PolicyDocument=document)

    def _role(self, name: str, trust: dict[str, Any]) -> None:
        self.iam.create_role(RoleName=name, AssumeRolePolicyDocument=json.dumps(trust))

    def down(self) -> None:
        self.lab.command("down", check=False)

    def values(self, use: Use) -> dict[str, str]:
        """What the placeholders stand for."""
        found = {
            "Partition": "aws",
            "Region": REGION,
            "Account": ACCOUNT,
            "Environment": "analytics-lab",
            "Bucket": self.env["MWAA_LAB_BUCKET"],
            "Role": self.env["MWAA_LAB_ROLE_ARN"].rpartition("/")[2],
            "EnvironmentKeyArn": self.key,
            "BundleBucket": self.env["MWAA_LAB_BUNDLE_BUCKET"],
            "BundlePrefix": "analytics-lab",
            "BundleKeyArn": self.env["MWAA_LAB_KMS_KEY_ID"],
            "SecretsPrefix": "airflow",
            "SecretsKeyArn": self.env["MWAA_LAB_KMS_KEY_ID"],
            "OptionSecret": "airflow/smtp",
            "LogGroup": "/team/airflow",
            "CallerArn": f"arn:aws:iam::{ACCOUNT}:user/{self._name(use)}",
            "SourceEnvironment": "analytics-lab",
            "SourceBucket": self.env["MWAA_LAB_BUCKET"],
            "SourceRole": self.env["MWAA_LAB_ROLE_ARN"].rpartition("/")[2],
            "SourceKeyArn": self.key,
            "CloudFormationRole": "cloudformation",
            **use.places,
        }
        found.setdefault("BaseStack", f"{found['Environment']}-base")
        found.setdefault("EnvironmentStack", f"{found['Environment']}-environment")
        return found

    def user(self, use: Use, without: str = "") -> dict[str, str]:
        """A new user with these policies, and its keys as variables.

        without: an action that is taken away, or a statement's (`Sid/action`).
        """
        self._users += 1
        name = self._name(use)
        self.iam.create_user(UserName=name)
        if self.everything:
            self.iam.put_user_policy(UserName=name, PolicyName="p", PolicyDocument=json.dumps(EVERYTHING))
        else:
            for policy, document in self.documents(use.policies, use, without):
                self.iam.put_user_policy(UserName=name, PolicyName=policy, PolicyDocument=json.dumps(document))
        for policy, document in self.documents(use.service_role, use):
            self.iam.put_role_policy(RoleName="cloudformation", PolicyName=policy, PolicyDocument=json.dumps(document))
        key = self.iam.create_access_key(UserName=name)["AccessKey"]
        return {"AWS_ACCESS_KEY_ID": key["AccessKeyId"], "AWS_SECRET_ACCESS_KEY": key["SecretAccessKey"]}

    def _name(self, use: Use) -> str:
        return f"{use.name.replace(' ', '-')}-{self._users}"

    def documents(self, names: tuple[str, ...], use: Use, without: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
        for name in names:
            document = filled(self.policies[name], self.values(use))
            for statement in document["Statement"]:
                kept = [one for one in statement["Action"] if without not in (one, f"{statement['Sid']}/{one}")]
                statement["Action"] = kept
            document["Statement"] = [one for one in document["Statement"] if one["Action"]]
            yield name, document

    def play(self, use: Use, *words: str, without: str = "") -> Any:
        """Run it. Afterwards `self.taken` has what its calls took, `self.denied` what they were denied."""
        begun = len(self._journal())
        variables = dict(use.variables)
        if variables.get("migration_adopt") == "adopt":
            inventory = yaml.safe_load((ROOT / "inventories/lab/group_vars/all.yml").read_text(encoding="utf-8"))
            more = {"kms_key_id": self.key, "log_groups": ["/team/airflow"]}
            variables["migration_adopt"] = {**inventory["migration_adopt"], **more}
        if "rehearsal_report" in variables:
            variables["rehearsal_report"] = str(self.folder / "report.json")
        if variables.get("migration_deploy") == "direct":
            variables |= {"environment_kms_key": self.key, "preflight_kms_key": self.key}
        playbook = use.playbook
        if playbook == "teardown.yml":
            path = self.folder / playbook
            path.write_text(yaml.safe_dump(TEARDOWN), encoding="utf-8")
            playbook = os.path.relpath(path, ROOT / "playbooks")
        tags = ["--tags", use.tags] if use.tags else []
        given = [*tags, "-e", json.dumps(variables), *words]
        self.lab.inventory = ("-i", "inventories/lab")
        if use.leaves:
            inventories = ("inventories/lab-hosts/mwaa.yml", "inventories/lab/target.yml")
            self.lab.inventory = tuple(word for path in inventories for word in ("-i", path))
            given = ["-e", "@inventories/lab/group_vars/all.yml", *given]
        user = {**self.user(use, without), "MWAA_LAB_SOURCE_ENVIRONMENT": use.leaves}
        play = self.lab.play(playbook, *given, env=user)
        self.taken: dict[str, set[str]] = {}
        self.denied: set[str] = set()
        whose = (f":user/{self._name(use)}", "role/cloudformation")
        for call in self._journal()[begun:]:
            if call["caller"] not in ("user", "cloudformation") or not any(one in call["principal"] for one in whose):
                continue
            refused = str(call["error"] or "")
            if refused.startswith(("AccessDenied", "UnauthorizedOperation")) or call["status"] == 403:
                self.denied.add(f"{call['service']} {call['operation']}: {call.get('action')}")
                continue
            for action, resources in (call.get("action") or {}).items():
                self.taken.setdefault(action, set()).update(resources)
        return play

    def _journal(self) -> list[dict[str, Any]]:
        text = (self.folder / "lab/journal.jsonl").read_text(encoding="utf-8")
        return [json.loads(line) for line in text.splitlines()]

    def admin(self, what: str, document: Any) -> Any:
        url = f"{self.env['AWS_ENDPOINT_URL']}/_lab/{what}"
        with urlopen(Request(url, data=json.dumps(document).encode(), method="POST")) as answer:
            return json.load(answer)


def sentence(play: Any) -> str:
    """What the failed task said."""
    found = re.findall(r'fatal: .*?"msg": ("(?:[^"\\]|\\.)*")', play.output, re.DOTALL)
    return json.loads(found[-1]) if found else play.output[-2000:]


class Coverage:
    """Which statements of the policies were used, over several uses."""

    def __init__(self, world: World) -> None:
        self.world, self.used = world, set[tuple[str, str, str]]()
        self.missing: dict[str, set[str]] = {}

    def add(self, use: Use) -> None:
        documents = list(self.world.documents((*use.policies, *use.service_role), use))
        for action, resources in self.world.taken.items():
            for resource in resources:
                found = [
                    (name, statement["Sid"], action)
                    for name, document in documents
                    for statement in document["Statement"]
                    if action in statement["Action"] and _covers(statement["Resource"], resource)
                ]
                self.used.update(found)
                if not found:
                    self.missing.setdefault(use.name, set()).add(f"{action} on {resource}")

    def superfluous(self) -> list[str]:
        """'policy, statement: action' that no use needed and that UNSEEN does not explain."""
        return [
            f"{name}, {statement['Sid']}: {action}"
            for name, policy in self.world.policies.items()
            for statement in policy["Statement"]
            for action in statement["Action"]
            if (name, statement["Sid"], action) not in self.used
            and not {action, f"{statement['Sid']}/{action}", f"{name}/{action}"} & UNSEEN.keys()
        ]


def _covers(patterns: str | list[str], resource: str) -> bool:
    # the lab says `*` where no resource is named, which only `*` covers
    several = [patterns] if isinstance(patterns, str) else patterns
    return any(fnmatch.fnmatchcase(resource, pattern.replace("[", "[[]")) for pattern in several)


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        world = World(Path(folder), everything="--everything" in sys.argv)
        coverage = Coverage(world)
        wanted = [word for word in sys.argv[1:] if not word.startswith("-")]
        try:
            world.up()
            for use in USES:
                if wanted and use.name not in wanted:
                    continue
                play = world.play(use)
                coverage.add(use)
                print(f"{use.name}: {'ends' if play.returncode == 0 else 'FAILS: ' + sentence(play)}", flush=True)
                for denied in sorted(world.denied):
                    print("  denied:", denied, flush=True)
                for missing in sorted(coverage.missing.get(use.name, ())):
                    print("  missing:", missing, flush=True)
        finally:
            world.down()
    for one in coverage.superfluous():
        print("superfluous:", one)


if __name__ == "__main__":
    main()
