# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A bucket's encryption, life cycle, ownership and tags; import of its policy, and of secrets."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from xml.etree import ElementTree

from mwaa_lab.aws.cloudformation.importing import Found, Importable

Properties = dict[str, Any]


def importable() -> dict[str, Importable]:
    from ministack.services import s3, secretsmanager

    def policy(bucket: str) -> Found | None:
        return (bucket, {}) if s3._bucket_policies.get(bucket) else None

    def secret(arn: str) -> Found | None:
        for name, record in secretsmanager._secrets.items():
            if record["ARN"] == arn and not record.get("DeletedDate"):
                return name, {"Id": arn, "Arn": arn}
        return None

    return {
        "AWS::S3::BucketPolicy": Importable(("Bucket",), policy),
        "AWS::SecretsManager::Secret": Importable(("Id",), secret),
    }


def install(handlers: dict[str, Any]) -> None:
    handlers["AWS::S3::Bucket"].update(_bucket_handlers(handlers["AWS::S3::Bucket"]))
    policy = handlers["AWS::S3::BucketPolicy"]
    create, update = policy["create"], policy["update"]

    # Ref of a bucket policy is the bucket's name.
    def create_policy(logical_id: str, properties: Properties, stack: str) -> Found:
        create(logical_id, properties, stack)
        return properties["Bucket"], {}

    def update_policy(physical_id: str, old: Properties, new: Properties, stack: str) -> Found:
        update(physical_id, old, new, stack)
        return new["Bucket"], {}

    policy.update(create=create_policy, update=update_policy)


_NAMESPACE = "http://s3.amazonaws.com/doc/2006-03-01/"


def _bucket_handlers(handlers: dict[str, Callable[..., Any]]) -> dict[str, Callable[..., Any]]:
    make, change, remove = handlers["create"], handlers["update"], handlers["delete"]

    def create(logical_id: str, properties: Properties, stack: str) -> Found:
        name, attributes = make(logical_id, properties, stack)
        try:
            _configure(name, {}, properties)
        except ValueError:
            remove(name, properties)
            raise
        return name, attributes

    def update(physical_id: str, old: Properties, new: Properties, stack: str) -> Found:
        name, attributes = change(physical_id, old, new, stack)
        _configure(name, old if name == physical_id else {}, new)
        return name, attributes

    def delete(physical_id: str, properties: Properties) -> None:
        from ministack.services import s3

        if physical_id in s3._buckets and (s3._buckets[physical_id]["objects"] or s3._bucket_has_versions(physical_id)):
            raise ValueError(
                'Resource handler returned message: "The bucket you tried to delete is not empty. You must delete all '
                'versions in the bucket. (Service: S3, Status Code: 409)" (HandlerErrorCode: GeneralServiceException)'
            )
        remove(physical_id, properties)

    return {"create": create, "update": update, "delete": delete}


def _configure(name: str, old: Properties, new: Properties) -> None:
    """Apply what ministack's handler leaves out, through S3's own calls; a property that is dropped is deleted."""
    from ministack.services import s3

    for key, render, put, drop in (
        ("BucketEncryption", encryption, s3._put_bucket_encryption, s3._delete_bucket_encryption),
        ("LifecycleConfiguration", lifecycle, s3._put_bucket_lifecycle, s3._delete_bucket_lifecycle),
        (
            "OwnershipControls",
            ownership,
            s3._put_bucket_ownership_controls,
            s3._delete_bucket_ownership_controls,
        ),
    ):
        if key in new:
            status, _headers, body = put(name, ElementTree.tostring(render(new[key])))
            if status >= 400:
                raise ValueError(f"Resource handler returned message: {body!r}")
        elif key in old:
            drop(name)
    versioning = (new.get("VersioningConfiguration") or {}).get("Status")
    if versioning == "Suspended" and s3._bucket_versioning.get(name):
        s3._bucket_versioning[name] = "Suspended"
    before = {tag["Key"] for tag in old.get("Tags") or []}
    tags = {key: value for key, value in (s3._bucket_tags.get(name) or {}).items() if key not in before}
    tags.update({tag["Key"]: str(tag["Value"]) for tag in new.get("Tags") or []})
    if tags:
        s3._bucket_tags[name] = tags
    else:
        s3._bucket_tags.pop(name, None)


def _tree(tag: str) -> ElementTree.Element:
    return ElementTree.Element(tag, xmlns=_NAMESPACE)


def _add(parent: ElementTree.Element, tag: str, value: Any = None) -> ElementTree.Element:
    element = ElementTree.SubElement(parent, tag)
    if value is not None:
        element.text = str(value).lower() if isinstance(value, bool) else str(value)
    return element


def encryption(properties: Properties) -> ElementTree.Element:
    root = _tree("ServerSideEncryptionConfiguration")
    for rule in properties.get("ServerSideEncryptionConfiguration") or []:
        element = _add(root, "Rule")
        if default := rule.get("ServerSideEncryptionByDefault"):
            inner = _add(element, "ApplyServerSideEncryptionByDefault")
            for key in ("SSEAlgorithm", "KMSMasterKeyID"):
                if key in default:
                    _add(inner, key, default[key])
        if "BucketKeyEnabled" in rule:
            _add(element, "BucketKeyEnabled", str(rule["BucketKeyEnabled"]).lower())
    return root


def ownership(properties: Properties) -> ElementTree.Element:
    root = _tree("OwnershipControls")
    for rule in properties.get("Rules") or []:
        _add(_add(root, "Rule"), "ObjectOwnership", rule["ObjectOwnership"])
    return root


def lifecycle(properties: Properties) -> ElementTree.Element:
    root = _tree("LifecycleConfiguration")
    for number, rule in enumerate(properties.get("Rules") or []):
        element = _add(root, "Rule")
        _add(element, "ID", rule.get("Id", f"rule-{number}"))
        _add(_add(element, "Filter"), "Prefix", rule.get("Prefix", ""))
        _add(element, "Status", rule.get("Status", "Enabled"))
        if "ExpirationInDays" in rule or "ExpiredObjectDeleteMarker" in rule:
            expiration = _add(element, "Expiration")
            if "ExpirationInDays" in rule:
                _add(expiration, "Days", rule["ExpirationInDays"])
            else:
                _add(expiration, "ExpiredObjectDeleteMarker", str(rule["ExpiredObjectDeleteMarker"]).lower())
        noncurrent = rule.get("NoncurrentVersionExpiration") or {}
        if "NoncurrentVersionExpirationInDays" in rule:
            noncurrent = {"NoncurrentDays": rule["NoncurrentVersionExpirationInDays"]}
        if noncurrent:
            inner = _add(element, "NoncurrentVersionExpiration")
            for key in ("NoncurrentDays", "NewerNoncurrentVersions"):
                if key in noncurrent:
                    _add(inner, key, noncurrent[key])
        if abort := rule.get("AbortIncompleteMultipartUpload"):
            _add(_add(element, "AbortIncompleteMultipartUpload"), "DaysAfterInitiation", abort["DaysAfterInitiation"])
    return root
