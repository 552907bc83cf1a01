# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A new environment that is as another one: its settings, its code, and what its execution role may do.

PRIVATE to the collection: no promise is made to other collections.

What CreateEnvironment takes of what GetEnvironment shows is read from botocore's model of the API, so that a field that
AWS adds is carried by the botocore that knows it. A clone is made once: an environment of its name that is there and
differs is not changed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

from ansible_collections.mwaa.migration.plugins.module_utils._dags import default_syntax
from ansible_collections.mwaa.migration.plugins.module_utils._errors import (
    DENIED,
    Faults,
    MigrationError,
    aws_errors,
    error_code,
    is_aws_error,
)
from ansible_collections.mwaa.migration.plugins.module_utils._lock import stop_if_left_behind
from ansible_collections.mwaa.migration.plugins.module_utils._mwaa import environment, limits, rescope, settings
from ansible_collections.mwaa.migration.plugins.module_utils._options import IGNORE_SYNTAX, PAUSED, known_options, moved
from ansible_collections.mwaa.migration.plugins.module_utils._progress import progress
from ansible_collections.mwaa.migration.plugins.module_utils._requirements import repin
from ansible_collections.mwaa.migration.plugins.module_utils._sync.bucket import Bucket, Fingerprint, Upload, Uploader
from ansible_collections.mwaa.migration.plugins.module_utils._sync.publish import UNKNOWN_VERSION, publish
from ansible_collections.mwaa.migration.plugins.module_utils._sync.source import Source, Target
from ansible_collections.mwaa.migration.plugins.module_utils._sync.tree import FileInfo, make_tree
from ansible_collections.mwaa.migration.plugins.module_utils._versions import VERSIONS, refused

HERE = ("subnet_ids", "security_group_ids", "source_bucket")  # of one account and region
COUNTS = ("Schedulers", "MinWebservers", "MaxWebservers", "MinWorkers", "MaxWorkers")
REQUIREMENTS = "RequirementsS3Path"
# a URL with a password, a key that is known by its beginning
_CREDENTIAL = re.compile(
    r"://[^/\s:@]*:[^/\s@]+@|\bAKIA[0-9A-Z]{16}\b|\"(password|secret|token)[a-z_]*\"\s*:", re.IGNORECASE
)
_ROLE_POLICY = "mwaa-clone-{name}"


# --- settings: pure ---------------------------------------------------------------------------------------------------


def taken(shape: Any, value: Any) -> Any:
    """What an operation takes of a value that another one returned; None: nothing of it.

    shape: botocore's of the input. Members that the input has not are dropped, and so is what it takes only with more
    (a required member is missing), or not empty.
    """
    if value is None or value == "":
        return None
    if shape.type_name == "structure":
        kept = {
            name: one for name, member in shape.members.items() if (one := taken(member, value.get(name))) is not None
        }
        return kept if kept and set(shape.required_members) <= set(kept) else None
    if shape.type_name == "list":
        kept_list = [one for item in value if (one := taken(shape.member, item)) is not None]
        return kept_list if len(kept_list) >= shape.metadata.get("min", 0) else None
    if shape.type_name == "map":
        return dict(value) if len(value) >= shape.metadata.get("min", 0) else None
    return value


def carried(shape: Any, shown: dict[str, Any]) -> dict[str, Any]:
    """The input of CreateEnvironment that makes such an environment, without Name. shown: GetEnvironment's."""
    fields = {
        name: one
        for name, member in shape.members.items()
        if name != "Name" and (one := taken(member, shown.get(name))) is not None
    }
    tags = {key: value for key, value in (shown.get("Tags") or {}).items() if not key.startswith("aws:")}
    fields.pop("Tags", None)
    return {**fields, **({"Tags": tags} if tags else {})}


def objects_of(shape: Any) -> dict[str, str]:
    """{path: version} of the members that name an object of the bucket."""
    versions = {name: name.replace("S3Path", "S3ObjectVersion") for name in shape.members if name.endswith("S3Path")}
    return {path: version for path, version in versions.items() if version in shape.members}


def differences(wanted: dict[str, Any], there: dict[str, Any]) -> list[str]:
    """The fields in which an environment is not what is wanted. Both are inputs of CreateEnvironment."""
    found = []
    for name, value in sorted(wanted.items()):
        if name == "Name" or value == UNKNOWN_VERSION:
            continue
        if _normal(name, value) != _normal(name, there.get(name)):
            found.append(name)
    return found


def _normal(name: str, value: Any) -> Any:
    if name == "KmsKey":
        return str(value or "").rsplit("/", 1)[-1]
    if name == "EndpointManagement":
        return value or "SERVICE"
    if name == "AirflowConfigurationOptions":
        return value or {}
    if isinstance(value, dict):
        return {key: _normal(key, one) for key, one in value.items()}
    if isinstance(value, list):
        return sorted(value, key=str)
    return value.strip("/") if name.endswith("S3Path") and isinstance(value, str) else value


def secret_options(options: dict[str, str], version: str) -> set[str]:
    """Names of the options whose values are not to be seen: by the name, by the value, or because nobody knows them."""
    known = known_options(version)
    return {
        name
        for name, value in options.items()
        if settings.looks_secret(name) or _CREDENTIAL.search(value) or name not in known
    }


# --- doing it ---------------------------------------------------------------------------------------------------------


@dataclass
class _Plan:
    """What the clone is going to be. fields: CreateEnvironment's input. repinned: what changed in requirements.txt."""

    source: dict[str, Any]
    fields: dict[str, Any]
    old: rescope.Place
    new: rescope.Place
    version: str
    secret: set[str]
    options: dict[str, Any]
    bucket: str
    own_objects: set[str]  # fields of objects that the task names itself
    repinned: list[dict[str, str]] = field(default_factory=list)
    findings: list[str] = field(default_factory=list)
    requirements: bytes | None = None

    @property
    def same_bucket(self) -> bool:
        return self.old.bucket == self.new.bucket


def clone(ctx: Any) -> dict[str, Any]:
    """The module's body: checks everything first, names all faults at once, and makes the environment."""
    params = ctx.params
    name = params["name"]
    source_aws = ctx.aws.elsewhere(region=params["source_region"], profile=params["source_profile"])
    faults = Faults(f"environment {params['source']} cannot be cloned as {name}")
    wanted = _checked_input(ctx, source_aws, faults)
    faults.raise_if_any()
    source_aws = source_aws.elsewhere(role_arn=params["source_role_arn"])

    source = environment.describe(source_aws.client("mwaa"), params["source"])
    if source is None or source["Status"] in ("DELETED", "DELETING", "CREATE_FAILED"):
        there = environment.names(source_aws.client("mwaa"))
        what = "does not exist" if source is None else f"is {source['Status']}"
        raise MigrationError(
            f"environment {params['source']} {what} in {source_aws.region}:"
            f" {'there are ' + ', '.join(there) if there else 'there is none at all'}; correct source or source_region"
        )
    plan = _plan(ctx, source_aws, source, wanted, faults)
    faults.raise_if_any()
    existing = environment.describe(ctx.aws.client("mwaa"), name)
    if existing is not None and existing["Status"] != "DELETED":
        return _already_there(ctx, source_aws, plan, existing)

    _check_place(ctx, plan, wanted, faults)
    role = _role(ctx, source_aws, plan, faults)
    _requirements(ctx, source_aws, plan, faults)
    faults.raise_if_any()
    code = _carry_code(ctx, source_aws, plan, wanted)
    _write_role_policy(ctx, plan, role)
    result = {**_result(plan), "changed": True, "operation": "create", "code": code, "execution_role": role}
    result["diff"] = _diff(plan)
    if ctx.check_mode:
        return {**result, "environment": None}
    stop_if_left_behind()
    made = environment.create(
        ctx.aws.client("mwaa"),
        plan.fields,
        is_it=lambda found: not differences(plan.fields, carried(_shape(ctx), found)),
        timeout=(params["wait_timeout"] or environment.CREATE_TIMEOUT) if params["wait"] else None,
    )
    return {**result, "environment": environment.shown(made, plan.secret)}


def _shape(ctx: Any) -> Any:
    return ctx.aws.model("mwaa", "CreateEnvironment").input_shape


def _checked_input(ctx: Any, source_aws: Any, faults: Faults) -> dict[str, Any]:
    """What can be told without a call: names, versions, regions, profiles, ARNs."""
    params = ctx.params
    wanted: dict[str, Any] = {}
    with faults.collecting():
        wanted = settings.desired(params)
    if not limits.NAME.fullmatch(params["source"]) or len(params["source"]) > limits.NAME_MAX:
        faults.add(f"source {params['source']!r} is no name of an environment")
    fault = refused(params["airflow_version"]) if params["airflow_version"] else None
    if fault:
        faults.add(fault)
    if params["source_role_arn"] and not limits.ROLE_ARN.fullmatch(params["source_role_arn"]):
        faults.add(f"source_role_arn {params['source_role_arn']!r} is not the ARN of an IAM role")
    for aws in dict.fromkeys((ctx.aws, source_aws)):
        with faults.collecting():
            aws.region  # noqa: B018 - region and profile are checked when it is read
    return wanted


def _plan(ctx: Any, source_aws: Any, source: dict[str, Any], wanted: dict[str, Any], faults: Faults) -> _Plan:
    params = ctx.params
    _arn, partition, _service, region, account, _name = source["Arn"].split(":", 5)
    old_bucket = source["SourceBucketArn"].rpartition(":")[2]
    old = rescope.Place(source["Name"], region, account, old_bucket, source.get("KmsKey"), partition)
    here = account if source_aws is ctx.aws else ctx.aws.account_id
    away = [what for what, moves in (("account", here != account), ("region", ctx.aws.region != region)) if moves]
    if not away and params["name"] == params["source"]:
        faults.add("the clone needs another name, region or account than its source")
    if away:
        missing = [option for option in HERE if option not in wanted]
        if "account" in away and "execution_role_arn" not in wanted:
            missing.append("execution_role_arn")
        if source.get("KmsKey") and params["kms_key"] is None:
            missing.append("kms_key ('' for AWS's own)")
        if missing:
            faults.add(f"another {' and '.join(away)} than the source's needs {', '.join(missing)}")
    role = wanted.get("execution_role_arn")
    if role and role.split(":")[4] != here:
        faults.add(f"execution_role_arn is of account {role.split(':')[4]}, and the environment would be in {here}")

    fields = carried(_shape(ctx), source)
    version = wanted.get("airflow_version") or source["AirflowVersion"]
    gone = refused(version) if "airflow_version" not in wanted else None
    if gone:
        faults.add(f"{gone}; set airflow_version")
    if params["kms_key"] == "":
        fields.pop("KmsKey", None)
    classes = {wanted.get("environment_class", fields.get("EnvironmentClass")), fields.get("EnvironmentClass")}
    if len(classes) > 1 and "mw1.micro" in classes:  # which has one of each, and all others two and more
        for count in COUNTS:
            fields.pop(count, None)
    options = moved(fields.get("AirflowConfigurationOptions") or {}, source["AirflowVersion"], version)
    findings = [f"option {one['name']} is not carried: {one['reason']}" for one in options["dropped"]]
    findings += [f"option {one['name']} does nothing any more: {one['reason']}" for one in options["unknown"]]
    findings += options["findings"]
    own = {**wanted.get("airflow_configuration_options", {}), **wanted.get("secret_configuration_options", {})}
    full = {**options["options"], **own}
    own_objects = {settings.PLAIN[name] for name in settings.PINNED if name in wanted}
    if PAUSED not in own and full.get(PAUSED, "True").strip().lower() not in ("true", "t", "1", "yes"):
        full[PAUSED] = options["added"][PAUSED] = "True"
        findings.append(f"{PAUSED} is True in the clone: else its DAGs would start beside the source's")
    given = {key: value for key, value in wanted.items() if not key.endswith("_configuration_options")}
    given["tags"] = {**fields.pop("Tags", {}), **wanted.get("tags", {})}
    asked = settings.request(given, partition=_partition(ctx.aws.region), create=True)
    for nested in ("NetworkConfiguration", "LoggingConfiguration"):
        if nested in fields or nested in asked:
            fields[nested] = {**fields.get(nested, {}), **asked.pop(nested, {})}
    fields = {**fields, **asked, "Name": params["name"], "AirflowVersion": version}
    fields["AirflowConfigurationOptions"] = full
    if not full:
        del fields["AirflowConfigurationOptions"]
    for path, pinned in objects_of(_shape(ctx)).items():
        if path in own_objects:
            fields.pop(pinned, None)  # of the source's object
    secret = secret_options(full, version) | set(wanted.get("secret_configuration_options", {}))
    secret |= secret_options(source.get("AirflowConfigurationOptions") or {}, source["AirflowVersion"])
    ctx.hide(
        {value for option, value in full.items() if option in secret and len(value) > 5 and telling(option, value)}
    )
    bucket = fields["SourceBucketArn"].rpartition(":")[2]
    new = rescope.Place(params["name"], ctx.aws.region, here, bucket, fields.get("KmsKey"), _partition(ctx.aws.region))
    if version not in VERSIONS:
        findings.append(
            f"Airflow {version} is newer than what this collection knows: options and requirements go as they are"
        )
    return _Plan(source, fields, old, new, version, secret, options, bucket, own_objects, findings=findings)


def _partition(region: str) -> str:
    if region.startswith("cn-"):
        return "aws-cn"
    return "aws-us-gov" if "-gov-" in region else "aws"


def telling(option: str, value: str) -> bool:
    """Whether an option's value is a secret by its name or by itself."""
    return settings.looks_secret(option) or bool(_CREDENTIAL.search(value))


def _already_there(ctx: Any, source_aws: Any, plan: _Plan, existing: dict[str, Any]) -> dict[str, Any]:
    """A repeat: wait for what is in progress, then say whether it is the clone. Nothing is written."""
    name, operation = existing["Name"], "none"
    if (
        existing["Status"] in limits.BUSY
        and existing["Status"] != "DELETING"
        and not ctx.check_mode
        and ctx.params["wait"]
    ):
        timeout = ctx.params["wait_timeout"] or environment.CREATE_TIMEOUT
        pending_is_final = existing.get("EndpointManagement") == "CUSTOMER"
        existing = environment.finished(ctx.aws.client("mwaa"), name, timeout, pending_is_final=pending_is_final)
        operation = "wait"
    if existing["Status"] in ("DELETING", "CREATE_FAILED", "UNAVAILABLE"):
        raise MigrationError(environment.no_way(existing), environment=environment.brief(existing))
    _requirements(ctx, source_aws, plan, Faults(name))
    wanted = dict(plan.fields)
    for path, version in objects_of(_shape(ctx)).items():
        if not plan.same_bucket or path in plan.own_objects:
            wanted.pop(version, None)  # which one it became is known by the environment alone
    found = differences(wanted, carried(_shape(ctx), existing))
    if found:
        raise MigrationError(
            f"environment {name} exists and is not what the clone of {plan.source['Name']} would be: it differs in"
            f" {', '.join(found)}; nothing was changed. Change it with mwaa_environment or through its stack, or clone"
            " under another name",
            environment=environment.brief(existing),
        )
    return {
        **_result(plan),
        "changed": False,
        "operation": operation,
        "environment": environment.shown(existing, plan.secret),
        "code": {},
        "execution_role": {},
        "diff": {"before": {}, "after": {}},
    }


def _result(plan: _Plan) -> dict[str, Any]:
    return {
        "source": environment.shown(plan.source, plan.secret),
        "settings": settings.masked(settings.current(plan.fields), plan.secret),
        "options": {key: plan.options[key] for key in ("renamed", "rewritten", "unknown", "dropped")}
        | {"added": sorted(plan.options["added"])},
        "requirements": plan.repinned,
        "findings": plan.findings,
    }


def _diff(plan: _Plan) -> dict[str, Any]:
    """The source's settings and the clone's: what is equal does not show."""
    before, after = settings.current(plan.source), settings.current(plan.fields)
    before["tags"] = {key: value for key, value in before["tags"].items() if not key.startswith("aws:")}
    return {
        "before_header": f"environment {plan.old.name} ({plan.old.account}, {plan.old.region})",
        "after_header": f"environment {plan.new.name} ({plan.new.account}, {plan.new.region})",
        "before": settings.masked(before, plan.secret),
        "after": settings.masked(after, plan.secret, before),
    }


# --- where it is going to be ------------------------------------------------------------------------------------------


def _check_place(ctx: Any, plan: _Plan, wanted: dict[str, Any], faults: Faults) -> None:
    """The bucket, and the objects in it that the task names itself."""
    own = {name: wanted[name] for name in settings.PINNED if name in wanted}
    with faults.collecting():
        environment.prepare_bucket(ctx, plan.new.name, plan.bucket, own, whole=True)
    plan.fields.update({settings.PLAIN[name]: value for name, value in own.items()})


def _role(ctx: Any, source_aws: Any, plan: _Plan, faults: Faults) -> dict[str, Any]:
    """The execution role: whether the new environment can assume it, and the policy that it lacks."""
    arn, source_arn = plan.fields["ExecutionRoleArn"], plan.source["ExecutionRoleArn"]
    name = arn.rpartition("/")[2]
    told: dict[str, Any] = {"arn": arn, "policy_name": _ROLE_POLICY.format(name=plan.new.name)[:128], "policy": None}
    try:
        with aws_errors(f"look at the execution role {name}"):
            role = ctx.aws.client("iam").get_role(RoleName=name)["Role"]
    except MigrationError as error:
        if error.code in DENIED:
            ctx.warn(f"the caller may not look at the execution role {name} (iam:GetRole): it is not checked")
        elif error.code in ("NoSuchEntity", "NoSuchEntityException"):
            faults.add(f"the execution role {arn} does not exist: create it, or correct execution_role_arn")
        else:
            raise
        return told
    if role["Arn"] != arn:
        faults.add(f"execution_role_arn is {arn}, and the role of that name is {role['Arn']}")
    for fault in rescope.trust_faults(_document(role["AssumeRolePolicyDocument"]), plan.new):
        faults.add(f"execution role {name}: {fault}")
    try:
        statements, managed = _statements(source_aws.client("iam"), source_arn.rpartition("/")[2], plan)
    except MigrationError as error:
        if error.code not in DENIED:
            raise
        ctx.warn(f"the caller may not read the policies of {source_arn}: see that {arn} has what the environment needs")
        return told
    # the same role has the rest already; another one gets all of it
    kept = [one.what for one in statements if one.changed or arn != source_arn]
    if kept:
        told["policy"] = {"Version": "2012-10-17", "Statement": _without_twins(kept)}
    if managed and arn != source_arn:
        plan.findings.append(
            f"the source's role has policies of AWS, which are to be attached to {name}: {', '.join(managed)}"
        )
    left = sorted({one for statement in statements for one in statement.left})
    if left:
        plan.findings.append(f"policies of the role name what stays where it is: {', '.join(left)}")
    if kept and not ctx.params["write_role_policy"]:
        plan.findings.append(
            f"{len(kept)} statements of the source's role are returned as execution_role.policy, made for"
            f" {plan.new.name}: see that {name} has them, or set write_role_policy"
        )
    return told


def _statements(iam: Any, role: str, plan: _Plan) -> tuple[list[rescope.Statement], list[str]]:
    """The statements of a role's own and attached policies, re-scoped; and the ARNs of policies that are AWS's."""
    with aws_errors(f"read the policies of the role {role}"):
        documents = {}
        for page in iam.get_paginator("list_role_policies").paginate(RoleName=role):
            for policy in page["PolicyNames"]:
                documents[policy] = iam.get_role_policy(RoleName=role, PolicyName=policy)["PolicyDocument"]
        managed = []
        for page in iam.get_paginator("list_attached_role_policies").paginate(RoleName=role):
            for attached in page["AttachedPolicies"]:
                arn = attached["PolicyArn"]
                if arn.split(":")[4] == "aws":
                    managed.append(arn)
                    continue
                version = iam.get_policy(PolicyArn=arn)["Policy"]["DefaultVersionId"]
                answer = iam.get_policy_version(PolicyArn=arn, VersionId=version)
                documents[attached["PolicyName"]] = answer["PolicyVersion"]["Document"]
    found = []
    for policy, document in sorted(documents.items()):
        found += rescope.rescoped(policy, _document(document), plan.old, plan.new)
    return found, managed


def _document(policy: Any) -> dict[str, Any]:
    """boto3 gives a dict, other emulations the text."""
    return json.loads(unquote(policy)) if isinstance(policy, str) else policy


def _without_twins(statements: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Statements of several policies in one: no two the same, no Sid twice."""
    found: list[dict[str, Any]] = []
    sids: set[str] = set()
    for statement in statements:
        if statement.get("Sid") in sids:
            statement = {key: value for key, value in statement.items() if key != "Sid"}
        if statement not in found:
            found.append(statement)
            sids.add(statement.get("Sid", ""))
    return found


def _write_role_policy(ctx: Any, plan: _Plan, role: dict[str, Any]) -> None:
    if not ctx.params["write_role_policy"] or not role["policy"]:
        return
    name, policy = role["arn"].rpartition("/")[2], role["policy_name"]
    iam = ctx.aws.client("iam")
    with aws_errors(f"read the policy {policy} of the role {name}"):
        try:
            there = _document(iam.get_role_policy(RoleName=name, PolicyName=policy)["PolicyDocument"])
        except Exception as exception:
            if not is_aws_error(exception) or error_code(exception) not in ("NoSuchEntity", "NoSuchEntityException"):
                raise
            there = None
    role["written"] = there != role["policy"]
    if role["written"] and not ctx.check_mode:
        with aws_errors(f"write the policy {policy} of the role {name}"):
            iam.put_role_policy(RoleName=name, PolicyName=policy, PolicyDocument=json.dumps(role["policy"]))
        progress(f"role {name}: policy {policy} written")


# --- code -------------------------------------------------------------------------------------------------------------


def _requirements(ctx: Any, source_aws: Any, plan: _Plan, faults: Faults) -> None:
    """What requirements.txt is to be; plan.requirements stays None where the source's object serves as it is."""
    key = plan.source.get(REQUIREMENTS)
    if not key or REQUIREMENTS in plan.own_objects or plan.version not in VERSIONS:
        return
    content = b""
    with faults.collecting(), aws_errors(f"read s3://{plan.old.bucket}/{key}"):
        version = plan.source.get("RequirementsS3ObjectVersion")
        content = b"".join(Bucket(source_aws, plan.old.bucket).stream(key, version))
    try:
        text = content.decode()
    except UnicodeDecodeError:
        plan.findings.append(f"s3://{plan.old.bucket}/{key} is no text in UTF-8: it goes as it is")
        return
    made = repin(text, plan.source["AirflowVersion"], plan.version)
    plan.findings += made.findings
    plan.repinned = made.changed
    if made.changed:
        plan.requirements = made.text.encode()
        if plan.same_bucket:  # the source's next update would else take this one
            stem, dot, ending = key.rpartition(".")
            plan.fields[REQUIREMENTS] = f"{stem or ending}-{plan.version}{dot + ending if stem else ''}"
            plan.fields["RequirementsS3ObjectVersion"] = UNKNOWN_VERSION


def _carry_code(ctx: Any, source_aws: Any, plan: _Plan, wanted: dict[str, Any]) -> dict[str, Any]:
    """DAGs, plugins, requirements and startup script into the new environment's bucket; their versions are pinned."""
    code: dict[str, Any] = {"bucket": plan.bucket, "objects": [], "dags": {}}
    source, target = Bucket(source_aws, plan.old.bucket), Bucket(ctx.aws, plan.new.bucket)
    for path, version in objects_of(_shape(ctx)).items():
        key = plan.fields.get(path)
        if not key or path in plan.own_objects:
            continue
        if path == REQUIREMENTS and plan.requirements is not None:
            done = _carry(ctx, target, key, [plan.requirements], len(plan.requirements))
        elif plan.same_bucket:
            continue
        else:
            old_key, old_version = plan.source[path], plan.source.get(version)
            with aws_errors(f"look at s3://{source.name}/{old_key}"):
                found = source.head(old_key, old_version)
            if found is None:
                raise MigrationError(f"s3://{source.name}/{old_key} ({version} {old_version}) is gone: name {path}")
            done = _carry(ctx, target, key, (source, old_key, old_version), found.size)
        code["objects"].append(done)
        plan.fields[version] = done["version"]
    if not plan.same_bucket or plan.fields["DagS3Path"].strip("/") != plan.source["DagS3Path"].strip("/"):
        code["dags"] = _carry_dags(ctx, source, plan)
    else:
        plan.findings.append(f"both environments run the DAGs of s3://{plan.bucket}/{plan.source['DagS3Path']}")
    return code


def _carry(ctx: Any, target: Bucket, key: str, content: Any, size: int) -> dict[str, Any]:
    """One object, byte by byte; not written where it is there already."""

    def stream() -> Iterator[bytes]:
        return iter(content) if isinstance(content, list) else content[0].stream(content[1], content[2])

    with aws_errors(f"compare s3://{target.name}/{key}"):
        there = target.head(key)
        same = there is not None and there.size == size and Fingerprint(stream()).is_of(there)
    if same or ctx.check_mode:
        version = there.version_id if same and there else UNKNOWN_VERSION
        return {"key": key, "changed": not same, "size": size, "version": version}
    upload = Upload(key, size, stream)
    Uploader(target, lambda: progress(f"s3://{target.name}/{key} written")).write([upload])
    if upload.error or upload.found is None:
        raise MigrationError(f"s3://{target.name}/{key} cannot be written: {upload.error}")
    return {"key": key, "changed": True, "size": size, "version": upload.found.version_id}


def _carry_dags(ctx: Any, source: Bucket, plan: _Plan) -> dict[str, Any]:
    folder = plan.source["DagS3Path"].strip("/")
    with aws_errors(f"list s3://{source.name}/{folder}/"):
        listing = source.list(f"{folder}/") or {}
    files = {
        key[len(folder) + 1 :]: FileInfo(one.size, f"{one.etag}:{one.size}")
        for key, one in listing.items()
        if not key.endswith("/")
    }
    tree = make_tree(files, lambda path: source.stream(f"{folder}/{path}"))
    options = plan.source.get("AirflowConfigurationOptions") or {}
    syntax = options.get(IGNORE_SYNTAX) or default_syntax(plan.source["AirflowVersion"])
    result = publish(
        ctx.aws,
        [Source(f"s3://{source.name}/{folder}", tree, syntax=syntax)],
        Target(
            plan.new.bucket,
            plan.fields["DagS3Path"].strip("/"),
            plugins_s3_path="plugins.zip",
            requirements_s3_path="requirements.txt",
            startup_script_s3_path="startup.sh",
            airflow_version=plan.version,
            options=plan.fields.get("AirflowConfigurationOptions") or {},
        ),
        check_mode=ctx.check_mode,
    )
    plan.findings += [f"{one['where']}: {one['what']}; {one['mend']}" for one in result["findings"]]
    return {name: result[name] for name in ("counts", "not_carried", "held_back") if name in result}
