# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Rules about the bucket, what lies in it, and the KMS key. Pure.

PRIVATE to the collection: no promise is made to other collections.

Sources: MWAA user guide, mwaa-s3-bucket, custom-keys-certs, configuring-dag-import-plugins, working-dags-dependencies,
using-startup-script; images: github.com/aws/amazon-mwaa-docker-images.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from ansible_collections.mwaa.migration.plugins.module_utils import _startup, _versions
from ansible_collections.mwaa.migration.plugins.module_utils._dags import IgnoreRules, default_syntax
from ansible_collections.mwaa.migration.plugins.module_utils._mwaa import limits, settings
from ansible_collections.mwaa.migration.plugins.module_utils._packages import CONSTRAINTS
from ansible_collections.mwaa.migration.plugins.module_utils._preflight import policy
from ansible_collections.mwaa.migration.plugins.module_utils._preflight.frame import Found, Snapshot, rule
from ansible_collections.mwaa.migration.plugins.module_utils._preflight.rules_network import isolated
from ansible_collections.mwaa.migration.plugins.module_utils._sync import requirements as pip

BUCKET, FILES, KEY = "bucket", "files", "key"
SWITCHES = ("BlockPublicAcls", "IgnorePublicAcls", "BlockPublicPolicy", "RestrictPublicBuckets")
# what people copy along with their DAGs [verify_env, check_airflowignore]
NOISE = (".git/", "__pycache__/", ".ipynb_checkpoints/")
READS = (
    "s3:GetObject",
    "s3:GetObjectVersion",
    "s3:ListBucket",
    "s3:GetBucketPublicAccessBlock",
    "s3:GetBucketVersioning",
)
KEY_USES = ("kms:Decrypt", "kms:GenerateDataKey")
LOG_USES = ("kms:Encrypt", "kms:Decrypt", "kms:ReEncryptTo", "kms:GenerateDataKey", "kms:DescribeKey")
# keys of conditions whose value a call of MWAA has for sure
TRUE_FOR_MWAA = {
    "aws:securetransport": "true",
    "s3:tlsversion": "1.2",  # at least: AWS's endpoints take no less
    "aws:principalisawsservice": "false",
    "aws:viaawsservice": "false",
}


# --- the bucket -------------------------------------------------------------------------------------------------------


@rule("bucket-exists", BUCKET, why="MWAA reads DAGs, plugins and requirements from it", source="UG mwaa-s3-bucket")
def bucket_exists(s: Snapshot, bucket: Any) -> Iterator[Found]:
    """The bucket exists and is the account's."""
    if bucket["state"] == "missing":
        yield Found(s.bucket, "does not exist", f"create it in {s.region}, versioned, with all public access blocked")
    elif bucket["state"] == "foreign":
        yield Found(s.bucket, "belongs to another account", f"give a bucket of {s.account}")
    elif bucket["state"] == "denied":
        yield Found(
            s.bucket,
            "the caller may not s3:ListBucket on it, so that nobody knows whose it is",
            f"see that it is a bucket of {s.account}, or allow the caller s3:ListBucket on it",
            severity="warning",
        )


@rule("bucket-region", BUCKET, why="MWAA takes a bucket of its own region only", source="UG mwaa-s3-bucket")
def bucket_region(s: Snapshot, bucket: Any) -> Iterator[Found]:
    """The bucket is in the environment's region."""
    if bucket["state"] == "there" and bucket["region"] != s.region:
        yield Found(
            s.bucket, f"is in {bucket['region']}, the environment in {s.region}", f"give a bucket in {s.region}"
        )


@rule(
    "bucket-versioning",
    BUCKET,
    why="MWAA pins versions of objects and refuses a bucket without",
    source="UG mwaa-s3-bucket",
)
def bucket_versioning(s: Snapshot, versioning: Any) -> Iterator[Found]:
    """The bucket is versioned."""
    if versioning != "Enabled":
        yield Found(s.bucket, f"versioning is {versioning.lower()}", "enable versioning on it")


@rule(
    "bucket-public-access",
    BUCKET,
    why="MWAA refuses a bucket that could become public",
    source="UG mwaa-s3-bucket; verify_env",
)
def bucket_public_access(s: Snapshot, public_access: Any) -> Iterator[Found]:
    """The bucket, or the account, blocks all public access."""
    off = [switch for switch in SWITCHES if switch not in public_access]
    if off:
        yield Found(
            s.bucket,
            f"{', '.join(off)} {'are' if len(off) > 1 else 'is'} off",
            "set all four switches of its public access block",
        )


@rule(
    "bucket-key",
    BUCKET,
    why="MWAA opens objects with the environment's key and with no other",
    source="UG custom-keys-certs",
)
def bucket_key(s: Snapshot, bucket_key: Any, key: Any = None) -> Iterator[Found]:
    """The key that encrypts the bucket is the environment's."""
    if not bucket_key or bucket_key.endswith(":alias/aws/s3") or bucket_key == "alias/aws/s3":
        return
    ours = key["Arn"] if key else None
    if key and key.get("KeyManager") == "AWS":
        return
    if bucket_key != ours and not (s["kms_key"] and bucket_key.endswith(s["kms_key"].rpartition("/")[2])):
        yield Found(
            s.bucket,
            f"it is encrypted with {bucket_key}, the environment with {ours or 'a key of AWS'}",
            f"set kms_key to {bucket_key} (when the environment is created), or encrypt the bucket otherwise",
        )


@rule(
    "bucket-policy",
    BUCKET,
    why="a denial in the bucket's policy outweighs what the role may",
    source="UG mwaa-s3-bucket",
)
def bucket_policy(s: Snapshot, bucket_policy: Any) -> Iterator[Found]:
    """The bucket's policy does not shut the execution role out."""
    role = s["execution_role_arn"]
    if not role:
        return
    own = f"arn:{s.partition}:s3:::{s.bucket}"
    for statement in policy.statements(bucket_policy, "Deny"):
        if not policy.covers_principal(statement, role):
            continue
        denied = [
            action
            for action in READS
            if policy.covers_action(statement, action)
            and policy.covers_resource(
                statement, f"{own}/{s['dag_s3_path'] or 'dags'}/a.py" if "Object" in action else own
            )
        ]
        certain = _certain(statement, role)
        if denied and certain is not False:
            name = statement.get("Sid") or "a statement without Sid"
            doubt = (
                ""
                if certain
                else f", under conditions ({', '.join(sorted({key for _o, key, _v in policy.conditions(statement)}))})"
            )
            yield Found(
                s.bucket,
                f"its policy ({name}) denies the execution role {', '.join(denied)}{doubt}",
                f"except {role} from the statement",
                severity=None if certain else "warning",
            )


@rule(
    "dag-folder",
    FILES,
    why="the environment starts without any DAG",
    source="UG configuring-dag-folder",
    severity="warning",
)
def dag_folder(s: Snapshot, dag_keys: Any) -> Iterator[Found]:
    """There is something in the DAG folder."""
    if not dag_keys and not s.published:
        yield Found(
            f"s3://{s.bucket}/{s['dag_s3_path']}",
            "there is no object in it",
            "publish the DAGs, or correct dag_s3_path",
        )


@rule(
    "dag-folder-noise",
    FILES,
    why="Airflow parses what is no DAG, again and again",
    source="verify_env",
    severity="info",
)
def dag_folder_noise(s: Snapshot, dag_keys: Any, airflowignore: Any) -> Iterator[Found]:
    """What is no DAG is not in the DAG folder, or is ignored there."""
    syntax = (s["airflow_configuration_options"] or {}).get("core.dag_ignore_file_syntax") or default_syntax(s.version)
    rules = IgnoreRules({".airflowignore": airflowignore.encode()}, syntax)
    for noise in NOISE:
        found = sum(f"/{noise}" in f"/{key}" and not rules.hides(key) for key in dag_keys)
        if found:
            yield Found(
                f"s3://{s.bucket}/{s['dag_s3_path']}",
                f"{found} objects are in {noise}",
                f"delete them, or name {noise.strip('/')} in .airflowignore",
            )


# --- plugins, requirements, startup script ----------------------------------------------------------------------------


@rule("object-missing", FILES, why="MWAA refuses a path without an object", source="UG configuring-dag-import-plugins")
def object_missing(s: Snapshot, objects: Any) -> Iterator[Found]:
    """Plugins, requirements and startup script are where they are said to be."""
    for path, one in objects.items():
        if one is None and s[path] not in s.published:
            version = s[settings.PINNED[path]]
            yield Found(
                f"s3://{s.bucket}/{s[path]}",
                f"{path}: {'the version ' + version + ' of it' if version else 'it'} does not exist",
                "upload it first, or correct the path" + (" or the version" if version else ""),
            )


@rule("object-version", FILES, why="MWAA takes an object by its version", source="UG mwaa-s3-bucket")
def object_version(s: Snapshot, objects: Any, versioning: Any) -> Iterator[Found]:
    """Plugins, requirements and startup script have versions."""
    for path, one in objects.items():
        if one and one["version"] == "null" and versioning == "Enabled":
            yield Found(
                f"s3://{s.bucket}/{one['key']}",
                f"{path}: it was uploaded before versioning was enabled and has no version",
                "upload it again",
            )


@rule(
    "object-outdated",
    FILES,
    why="the environment goes on with the old one until it is updated",
    source="UG mwaa-faqs",
    severity="info",
)
def object_outdated(s: Snapshot, objects: Any) -> Iterator[Found]:
    """The environment uses what was uploaded last."""
    for path, one in objects.items():
        if one and s.environment and one["latest"] and one["version"] not in ("null", one["latest"]):
            yield Found(
                f"s3://{s.bucket}/{one['key']}",
                f"{path}: a newer version was uploaded than the environment uses",
                "update the environment, if the newer one is wanted",
            )


@rule(
    "plugins-archive",
    FILES,
    why="MWAA unpacks it as it is and goes on without what it cannot read",
    source="UG configuring-dag-import-plugins",
)
def plugins_archive(s: Snapshot, plugins: Any) -> Iterator[Found]:
    """plugins.zip is an archive, of less than 1 GB, and has the plugins at its top."""
    where = f"s3://{s.bucket}/{s['plugins_s3_path']}"
    names = plugins["names"]
    if names is None:
        yield Found(where, "it is no zip archive", "make it with zip -r plugins.zip . inside of the plugins folder")
        return
    if plugins["size"] > limits.ARCHIVE_MAX:
        yield Found(
            where,
            f"it has {plugins['size']:,} bytes, MWAA recommends less than 1 GB",
            "leave out what the environment does not need",
            severity="warning",
        )
    tops = {name.split("/")[0] for name in names if name.strip("/")}
    if tops == {"plugins"} and any(name.endswith(".py") for name in names):
        yield Found(
            where,
            "all of it lies in a folder plugins/, and becomes /usr/local/airflow/plugins/plugins/",
            "zip the contents of the folder, not the folder",
            severity="warning",
        )
    outside = [name for name in names if name.startswith("/") or ".." in name.split("/")]
    if outside:
        yield Found(
            where, f"it has names outside of its folder ({outside[0]})", "make the archive anew, with relative names"
        )


@rule(
    "requirements-constraint",
    FILES,
    why="pip else may replace what Airflow itself needs, or MWAA forces its own constraints",
    source="UG working-dags-dependencies; image, user_requirements.py",
    severity="warning",
)
def requirements_constraint(s: Snapshot, requirements: Any) -> Iterator[Found]:
    """requirements.txt has the constraints of this very Airflow, and not in a comment."""
    where = f"s3://{s.bucket}/{s['requirements_s3_path']}"
    lines = pip.parse(requirements)
    if not any(line.name for line in lines):
        return
    given = [line.value for line in lines if line.option == "--constraint"]
    offline = any(line.option == "--no-index" for line in lines)
    offer = _versions.OFFERS.get(s.version)
    mine = CONSTRAINTS.format(version=s.version, python=offer.python if offer else "3.12")
    add = f'begin it with --constraint "{mine}"'
    if offline:
        if given:
            yield Found(
                where,
                "it has --no-index and --constraint",
                "leave --constraint out: wheels from plugins.zip are taken as they are",
                severity="error",
            )
        return
    if not given:
        # MWAA looks for the words anywhere, comments included [image]
        comment = re.search(r"(-c |--constraint )", requirements)
        if comment:
            yield Found(
                where,
                "its constraint stands in a comment: pip does not see it, and MWAA takes it for one and adds none",
                add,
                severity="error",
            )
        elif _versions.at_least(s.version, "2.7.2"):
            yield Found(where, "it has no --constraint, so that MWAA forces its own", add, severity="info")
        else:
            yield Found(where, "it has no --constraint", add)
        return
    for value in given:
        found = re.search(
            r"constraints-(\d+\.\d+\.\d+)/constraints-(?:no-providers-|source-providers-)?(\d+\.\d+)\.txt", value
        )
        if found and (found.group(1) != s.version or (offer and found.group(2) != offer.python)):
            yield Found(
                where,
                f"its constraints are those of Airflow {found.group(1)} with Python {found.group(2)}, the"
                f" environment has {s.version}" + (f" with Python {offer.python}" if offer else ""),
                add,
                severity="error",
            )


@rule(
    "requirements-offline",
    FILES,
    why="a private web server, and subnets without a way out, reach no package index",
    source="UG best-practices-dependencies",
)
def requirements_offline(
    s: Snapshot, requirements: Any, subnets: Any = None, route_tables: Any = None, plugins: Any = None
) -> Iterator[Found]:
    """Where there is no way to a package index, requirements come as wheels in plugins.zip."""
    where = f"s3://{s.bucket}/{s['requirements_s3_path']}"
    lines = pip.parse(requirements)
    names = [line for line in lines if line.name]
    offline = any(line.option == "--no-index" for line in lines)
    cut = subnets is not None and route_tables is not None and isolated(subnets, route_tables)
    private = s["webserver_access_mode"] == "PRIVATE_ONLY" or s["webserver_access_mode"] is None
    if names and not offline and (private or cut):
        reason = "the subnets have no way out" if cut else "the web server is private"
        yield Found(
            where,
            f"{reason}, and pip is to install {len(names)} package{'s' if len(names) > 1 else ''} from an index",
            "pack the wheels into plugins.zip (pack_requirements of mwaa_dags_sync) and install with --no-index",
            severity=None if cut else "warning",
        )
    if offline and names and not any(name.endswith(".whl") for name in (plugins or {}).get("names") or []):
        yield Found(where, "it has --no-index, and plugins.zip holds no wheel", "pack the wheels into plugins.zip")


@rule(
    "requirements-lines",
    FILES,
    why="what MWAA cannot install it leaves out, or rolls back over",
    source="UG best-practices-dependencies",
    severity="warning",
)
def requirements_lines(s: Snapshot, requirements: Any, plugins: Any = None) -> Iterator[Found]:
    """requirements.txt names what MWAA can install, and shows no credentials."""
    where = f"s3://{s.bucket}/{s['requirements_s3_path']}"
    packed = any(name.endswith(".whl") for name in (plugins or {}).get("names") or [])
    for one in pip.findings(requirements.encode(), where, private=False, packed=packed):
        yield Found(where, one["what"], one["mend"])
    lines = pip.parse(requirements)
    constrained = any(line.option == "--constraint" for line in lines) or any(
        line.option == "--no-index" for line in lines
    )
    loose = [
        line.name for line in lines if line.name and not line.place and not re.search(r"[=<>~!]=|[<>]|===", line.text)
    ]
    if loose and not constrained and not _versions.at_least(s.version, "2.7.2"):
        some = ", ".join(loose[:5]) + (" and more" if len(loose) > 5 else "")
        yield Found(
            where,
            f"{some} have neither version nor constraint: each update may install others",
            "pin them, or add --constraint",
            severity="info",
        )


@rule(
    "startup-script",
    FILES,
    why="MWAA runs it by sh on every container: one that fails there keeps Airflow from starting",
    source="UG using-startup-script",
    severity="warning",
)
def startup_script(s: Snapshot, startup_script: Any) -> Iterator[Found]:
    """The startup script is a script that a shell reads, and sets nothing that MWAA sets anew."""
    where = f"s3://{s.bucket}/{s['startup_script_s3_path']}"
    if not startup_script.strip():
        return
    if "\r\n" in startup_script:
        yield Found(where, "its lines end as Windows writes them (CRLF)", "convert it (dos2unix)", severity="error")
    first = startup_script.lstrip("\ufeff").split("\n")[0]
    if startup_script.startswith("\ufeff"):
        yield Found(
            where, "it begins with a byte order mark, before the #!", "save it as UTF-8 without one", severity="error"
        )
    elif not first.startswith("#!"):
        yield Found(where, "its first line does not begin with #!", "begin it with #!/bin/sh")
    elif not re.match(r"#!\s*(/usr)?/bin/(env\s+)?(ba)?sh\b", first):
        yield Found(where, f"its first line is {first[:40]}, and MWAA runs it by a shell", "begin it with #!/bin/sh")
    names = re.findall(r"^\s*(?:export|declare -x)\s+([A-Za-z_]\w*)=", startup_script, re.MULTILINE)
    # AIRFLOW__ variables below MWAA's own options do count [image, setup_environment.py]
    reserved = sorted({name for name in names if _startup.RESERVED.match(name) and not name.startswith("AIRFLOW__")})
    if reserved:
        yield Found(where, f"it sets {', '.join(reserved)}, which MWAA sets anew", "leave that out", severity="info")


# --- the key ----------------------------------------------------------------------------------------------------------


@rule(
    "key-exists",
    KEY,
    why="MWAA refuses a key that it does not find, and takes no other region's",
    source="UG custom-keys-certs",
)
def key_exists(s: Snapshot, found_key: Any) -> Iterator[Found]:
    """The key exists, in the environment's region."""
    if "elsewhere" in found_key:
        yield Found(
            s["kms_key"],
            f"it is in {found_key['elsewhere']}, the environment in {s.region}",
            f"give a key in {s.region}",
        )
    elif not found_key:
        yield Found(s["kms_key"], f"does not exist in {s.region}", "give the id or the ARN of a key of this region")


@rule("key-state", KEY, why="nothing that it encrypts can be opened", source="UG custom-keys-certs")
def key_state(s: Snapshot, key: Any) -> Iterator[Found]:
    """The key is enabled."""
    if key["KeyState"] != "Enabled":
        yield Found(
            key["Arn"], f"it is {key['KeyState']}", "enable it (or cancel its deletion first), or give another key"
        )


@rule("key-spec", KEY, why="MWAA's services encrypt with symmetric keys alone", source="UG custom-keys-certs")
def key_spec(s: Snapshot, key: Any) -> Iterator[Found]:
    """The key is symmetric and for encryption."""
    spec, usage = key.get("KeySpec", "SYMMETRIC_DEFAULT"), key.get("KeyUsage", "ENCRYPT_DECRYPT")
    if spec != "SYMMETRIC_DEFAULT" or usage != "ENCRYPT_DECRYPT":
        yield Found(key["Arn"], f"it is a key of {spec} for {usage}", "give a symmetric key for encryption")


@rule("key-multi-region", KEY, why="MWAA does not support them", source="UG custom-keys-certs")
def key_multi_region(s: Snapshot, key: Any) -> Iterator[Found]:
    """The key is of a single region."""
    if key.get("MultiRegion"):
        yield Found(key["Arn"], "it is a multi-region key", "give a single-region key")


@rule(
    "key-policy-logs",
    KEY,
    why="MWAA encrypts the log groups with it: without this creating fails",
    source="UG mwaa-create-role (customer-managed key); verify_env",
)
def key_policy_logs(s: Snapshot, key: Any, key_policy: Any) -> Iterator[Found]:
    """The key's policy lets CloudWatch Logs use it."""
    names = {f"logs.{s.region}.amazonaws.com", "logs.amazonaws.com", f"logs.{s.region}.amazonaws.com.cn"}
    allowed = [
        statement
        for statement in policy.statements(key_policy, "Allow")
        if names & set(policy.principals(statement, "Service"))
    ]
    missing = [use for use in LOG_USES if not any(policy.covers_action(one, use) for one in allowed)]
    if missing:
        yield Found(
            key["Arn"],
            f"its policy does not allow logs.{s.region}.amazonaws.com {', '.join(missing)}",
            "add the statement for CloudWatch Logs of MWAA's user guide (Execution role, customer-managed key)",
        )
        return
    group = f"arn:{s.partition}:logs:{s.region}:{s.account}:log-group:airflow-{s.name}-Task"
    if not any(_fits(one, {"kms:encryptioncontext:aws:logs:arn": group}) for one in allowed):
        yield Found(
            key["Arn"],
            f"its policy allows CloudWatch Logs other log groups than airflow-{s.name}-…",
            f"let kms:EncryptionContext:aws:logs:arn be arn:{s.partition}:logs:{s.region}:{s.account}:*",
        )


@rule(
    "key-policy-role",
    KEY,
    why="where the key's policy does not speak of the account, no policy of a role helps",
    source="KMS developer guide, default key policy",
)
def key_policy_role(s: Snapshot, key: Any, key_policy: Any, role: Any) -> Iterator[Found]:
    """The key's policy lets the account's policies decide, or names the execution role."""
    about = [one for one in policy.statements(key_policy, "Allow") if policy.covers_principal(one, role["Arn"])]
    missing = [use for use in KEY_USES if not any(policy.covers_action(one, use) for one in about)]
    if missing:
        yield Found(
            key["Arn"],
            f"its policy gives neither the account nor the execution role {' and '.join(missing)}",
            f"allow arn:{s.partition}:iam::{s.account}:root kms:*, or {role['Arn']} these actions",
        )
    for statement in policy.statements(key_policy, "Deny"):
        denied = [use for use in KEY_USES if policy.covers_action(statement, use)]
        if denied and policy.covers_principal(statement, role["Arn"]) and _certain(statement, role["Arn"]):
            yield Found(
                key["Arn"],
                f"its policy ({statement.get('Sid') or 'a statement without Sid'}) denies the execution role"
                f" {' and '.join(denied)}",
                f"except {role['Arn']} from the statement",
            )


@rule(
    "key-policy-condition",
    KEY,
    why="the key opens for the old environment and not for this one",
    source="AWS, upgrading guide (discovery-preflight)",
    severity="warning",
)
def key_policy_condition(s: Snapshot, key: Any, key_policy: Any) -> Iterator[Found]:
    """No condition of the key's policy names another environment."""
    for statement in policy.statements(key_policy, "Allow"):
        for _operator, name, values in policy.conditions(statement):
            others = [one for one in values if ":environment/" in one and not policy.like(one, s.arn)]
            if others and not any(policy.like(one, s.arn) for one in values):
                yield Found(
                    key["Arn"],
                    f"its policy ({statement.get('Sid') or 'a statement without Sid'}) has a condition on {name} that"
                    f" names {', '.join(others)}",
                    f"add {s.arn} to it",
                )


@rule(
    "key-grants",
    KEY,
    why="MWAA uses the key by its grants: without them it cannot open what it stored",
    source="UG custom-keys-certs",
    severity="warning",
)
def key_grants(s: Snapshot, key: Any, key_grants: Any) -> Iterator[Found]:
    """An environment that exists has its grants on the key."""
    if not any("airflow" in grantee for grantee in key_grants):
        yield Found(
            key["Arn"],
            f"none of its {len(key_grants)} grants is MWAA's",
            "somebody revoked them: ask AWS Support, or create the environment anew",
        )


# --- helpers ----------------------------------------------------------------------------------------------------------


def _certain(statement: dict[str, Any], role: str) -> bool | None:
    """Whether a Deny's conditions apply to calls of MWAA with this role: True, False, or None where it depends."""
    account = role.split(":")[4]
    known = {
        **TRUE_FOR_MWAA,
        "aws:principalarn": role,
        "aws:principalaccount": account,
        "kms:calleraccount": account,
    }
    answer: bool | None = True
    for operator, key, values in policy.conditions(statement):
        held = policy.holds(operator, values, known[key]) if key in known else None
        if held is False:
            return False
        if held is None:
            answer = None
    return answer


def _fits(statement: dict[str, Any], known: dict[str, str]) -> bool:
    """Whether an Allow's conditions can be fulfilled: those on what is known are."""
    return not any(
        policy.holds(operator, values, known[key]) is False
        for operator, key, values in policy.conditions(statement)
        if key in known
    )
