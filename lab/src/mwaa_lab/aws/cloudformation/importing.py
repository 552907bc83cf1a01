# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which types an IMPORT change set can adopt, by which identifiers, and what an import does to a resource: its tags."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

Found = tuple[str, dict[str, Any]]
"""A resource's physical id, and the attributes that GetAtt knows of it."""


class Importable(NamedTuple):
    """A type's identifier (the registry schema's primaryIdentifier), and how a resource is looked up by it."""

    keys: tuple[str, ...]
    find: Callable[..., Found | None]


def install(types: dict[str, Importable]) -> None:
    """Let IMPORT change sets adopt these types, beside those that ministack can."""
    from ministack.services.cloudformation import changesets, provisioners

    for kind, importable in types.items():
        changesets._IMPORT_LOOKUPS[kind] = (importable.keys, _problem(kind, importable))
        provisioners._RESOURCE_HANDLERS[kind]["import"] = _adopt(importable)

    describe, owner, run = changesets._import_change, changesets._import_owner, changesets._import_resources_async

    def change(entry: dict[str, Any]) -> dict[str, Any]:
        made: dict[str, Any] = describe(entry)
        if entry["ResourceType"] in types and (found := _look(types, entry)):
            made["ResourceChange"]["PhysicalResourceId"] = found[0]
        return made

    def owned(entries: list[dict[str, Any]]) -> str | None:
        for entry in entries:
            found = _look(types, entry) if entry["ResourceType"] in types else None
            if found and (stack := _holder(entry["ResourceType"], found[0])):
                return f"{found[0]} already exists in stack {stack}"
        reason: str | None = owner([entry for entry in entries if entry["ResourceType"] not in types])
        return reason

    async def adopt(change_set: dict[str, Any], stack: dict[str, Any], new: bool) -> None:
        await run(change_set, stack, new)
        if stack["StackStatus"] == "IMPORT_COMPLETE":
            for entry in change_set["_resources_to_import"]:
                _tag(stack, entry["LogicalResourceId"])

    changesets._import_change = change
    changesets._import_owner = owned
    changesets._import_resources_async = adopt


def refuse_existing(kinds: tuple[str, ...]) -> None:
    """What is there under its name cannot be made; ministack would take it over, with what is in it."""
    from ministack.services.cloudformation import changesets, provisioners

    def refusing(kind: str, make: Callable[..., Found]) -> Callable[..., Found]:
        (key,), problem = changesets._IMPORT_LOOKUPS[kind]

        def create(logical_id: str, properties: dict[str, Any], stack: str) -> Found:
            name = properties.get(key)
            if name and problem(name) is None:
                raise ValueError(f"Resource of type '{kind}' with identifier '{name}' already exists.")
            return make(logical_id, properties, stack)

        return create

    for kind in kinds:
        handlers = provisioners._RESOURCE_HANDLERS[kind]
        handlers["create"] = refusing(kind, handlers["create"])


def _look(types: dict[str, Importable], entry: dict[str, Any]) -> Found | None:
    importable, identifier = types[entry["ResourceType"]], entry["ResourceIdentifier"]
    if any(key not in identifier for key in importable.keys):
        return None
    return importable.find(*(identifier[key] for key in importable.keys))


def _problem(kind: str, importable: Importable) -> Callable[..., str | None]:
    from ministack.services.cloudformation import changesets

    def problem(*values: str) -> str | None:
        if importable.find(*values) is not None:
            return None
        reason: str = changesets._IMPORT_NOT_FOUND.format(type=kind, value="|".join(values))
        return reason

    return problem


def _adopt(importable: Importable) -> Callable[[dict[str, str]], Found]:
    def adopt(identifier: dict[str, str]) -> Found:
        found = importable.find(*(identifier[key] for key in importable.keys))
        assert found is not None  # the problem was asked for just before
        return found

    return adopt


def _holder(kind: str, physical_id: str) -> str | None:
    """The stack that a resource is in."""
    from ministack.services import cloudformation

    for stack in cloudformation._stacks.values():
        if stack.get("StackStatus") != "DELETE_COMPLETE":
            for record in stack.get("_resources", {}).values():
                if (record.get("ResourceType"), record.get("PhysicalResourceId")) == (kind, physical_id):
                    return str(stack["StackId"])
    return None


# --- tags ------------------------------------------------------------------------------------------------------------


def _tag(stack: dict[str, Any], logical_id: str) -> None:
    """Put CloudFormation's tags on an imported resource, and touch nothing else of it."""
    from ministack.services.cloudformation import provisioners

    record = stack["_resources"][logical_id]
    kind, physical_id = record["ResourceType"], record["PhysicalResourceId"]
    if kind not in provisioners._STACK_TAG_PROPERTY or kind not in _TAGGERS and not kind.startswith("AWS::EC2::"):
        return
    name, _shape = provisioners._STACK_TAG_PROPERTY[kind]
    tagged = provisioners._with_stack_tags(
        kind, {}, stack.get("Tags") or [], stack["StackName"], stack["StackId"], logical_id
    )
    tags = provisioners._tag_map(tagged.get(name))
    _TAGGERS.get(kind, _tag_ec2)(physical_id, record, tags)


def _merged(have: list[dict[str, str]], tags: dict[str, str], key: str = "Key", value: str = "Value") -> list[Any]:
    return [tag for tag in have if tag.get(key) not in tags] + [{key: k, value: v} for k, v in tags.items()]


def _tag_ec2(physical_id: str, record: dict[str, Any], tags: dict[str, str]) -> None:
    from ministack.services import ec2

    resource = record["Attributes"].get("AllocationId", physical_id)  # an address is known to EC2 by its allocation
    ec2._tags[resource] = _merged(ec2._tags.get(resource) or [], tags)


def _tag_role(name: str, record: dict[str, Any], tags: dict[str, str]) -> None:
    from ministack.services import iam

    role = iam._roles[name]
    role["Tags"] = _merged(role.get("Tags") or [], tags)


def _tag_key(key: str, record: dict[str, Any], tags: dict[str, str]) -> None:
    from ministack.services import kms

    found = kms._keys[key]
    found["Tags"] = _merged(found.get("Tags") or [], tags, "TagKey", "TagValue")


def _tag_log_group(name: str, record: dict[str, Any], tags: dict[str, str]) -> None:
    from ministack.services import cloudwatch_logs as logs

    logs._log_groups[name].setdefault("tags", {}).update(tags)


def _tag_bucket(name: str, record: dict[str, Any], tags: dict[str, str]) -> None:
    from ministack.services import s3

    s3._bucket_tags[name] = {**(s3._bucket_tags.get(name) or {}), **tags}


def _tag_secret(name: str, record: dict[str, Any], tags: dict[str, str]) -> None:
    from ministack.services import secretsmanager

    secret = secretsmanager._secrets[name]
    secret["Tags"] = _merged(secret.get("Tags") or [], tags)


_TAGGERS: dict[str, Callable[[str, dict[str, Any], dict[str, str]], None]] = {
    "AWS::IAM::Role": _tag_role,
    "AWS::KMS::Key": _tag_key,
    "AWS::Logs::LogGroup": _tag_log_group,
    "AWS::S3::Bucket": _tag_bucket,
    "AWS::SecretsManager::Secret": _tag_secret,
}


def tagger(kind: str, put: Callable[[str, dict[str, Any], dict[str, str]], None]) -> None:
    """How a type of the lab's own is tagged."""
    _TAGGERS[kind] = put
