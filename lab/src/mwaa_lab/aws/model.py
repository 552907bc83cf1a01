# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""AWS's description of its services, as botocore ships it: which operation a request is, and whether its input holds.

Nothing about MWAA's shapes is written by hand here, so a newer botocore brings a newer MWAA.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote

import botocore.loaders
import botocore.model

_BOTOCORE_NAME = {"airflow": "mwaa", "monitoring": "cloudwatch", "states": "stepfunctions", "email": "ses"}
"""Signing name -> botocore's name, where they differ."""


class ApiError(Exception):
    """An error as the service answers it: HTTP status, error code, message, and further body members."""

    def __init__(self, status: int, code: str, message: str, **members: Any) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.members = members


@functools.cache
def service_model(signing_name: str) -> botocore.model.ServiceModel | None:
    """The botocore model of the service that signs as ``signing_name``; None when botocore knows no such service."""
    name = _BOTOCORE_NAME.get(signing_name, signing_name)
    try:
        raw = botocore.loaders.Loader().load_service_model(name, "service-2")
    except (botocore.exceptions.UnknownServiceError, botocore.exceptions.DataNotFoundError):
        return None
    return botocore.model.ServiceModel(raw, service_name=name)


class _Route:
    """One operation of a REST service: method, path pattern, and the query members that tell it from its neighbours."""

    def __init__(self, operation: botocore.model.OperationModel) -> None:
        self.operation = operation.name
        http = operation.http
        self.method = http["method"].upper()
        path, _, query = http["requestUri"].partition("?")
        self.query: dict[str, str] = {}
        self.headers: list[str] = []
        for part in filter(None, query.split("&")):
            key, _, value = part.partition("=")
            self.query[key] = "" if value.startswith("{") else value
        shape = operation.input_shape
        if shape is not None:
            for member in shape.required_members:
                where = shape.members[member].serialization
                if where.get("location") == "querystring":
                    self.query.setdefault(where.get("name", member), "")
                elif where.get("location") == "header":
                    self.headers.append(where.get("name", member).lower())
        # A label may hold an encoded slash (ARNs do): the path is matched still encoded, so it stays one segment.
        pattern = re.sub(r"\\\{(\w+)\\\+\\\}", r"(?P<\1>.+)", re.escape(path.rstrip("/") or "/"))
        pattern = re.sub(r"\\\{(\w+)\\\}", r"(?P<\1>[^/]+)", pattern)
        self.path = re.compile(pattern + "/?")
        self.weight = (len(self.query) + len(self.headers), path.count("/") - path.count("{"))


@functools.cache
def _routes(signing_name: str) -> tuple[_Route, ...]:
    model = service_model(signing_name)
    if model is None or model.metadata["protocol"] not in ("rest-json", "rest-xml"):
        return ()
    routes = [_Route(model.operation_model(name)) for name in model.operation_names]
    return tuple(sorted(routes, key=lambda route: route.weight, reverse=True))


def rest_operation(
    signing_name: str, method: str, raw_path: str, query: Mapping[str, Any], headers: Mapping[str, str]
) -> tuple[str | None, dict[str, str]]:
    """Which operation of a REST service a request is, and the labels of its path (``Name``, ``Bucket``, ``Key``)."""
    for route in _routes(signing_name):
        if route.method != method:
            continue
        match = route.path.fullmatch(raw_path)
        if match is None:
            continue
        if not all(name in headers for name in route.headers):
            continue
        if all(key in query and (not value or value in query[key]) for key, value in route.query.items()):
            return route.operation, {key: unquote(value) for key, value in match.groupdict().items()}
    return None, {}


def parse_input(
    operation: botocore.model.OperationModel, labels: Mapping[str, str], query: Mapping[str, list[str]], body: bytes
) -> dict[str, Any]:
    """The operation's input members from path, query and JSON body, checked against the model.

    Raises ApiError SerializationException for a wrong JSON type and ValidationException, naming every fault at once,
    for what the model's constraints refuse. Members that the model does not know are dropped, as AWS does.
    """
    shape = operation.input_shape
    if shape is None:
        return {}
    try:
        document = json.loads(body) if body.strip() else {}
    except ValueError:
        raise ApiError(400, "SerializationException", "Unable to parse the request body as JSON") from None
    if not isinstance(document, dict):
        raise ApiError(400, "SerializationException", "Start of structure or map found where not expected.")
    values: dict[str, Any] = {}
    for member, member_shape in shape.members.items():
        where = member_shape.serialization
        name = where.get("name", member)
        if where.get("location") == "uri":
            values[member] = labels.get(name)
        elif where.get("location") == "querystring":
            given = query.get(name)
            if given:
                values[member] = list(given) if member_shape.type_name == "list" else _number(member_shape, given[0])
        elif document.get(name) is not None:
            values[member] = document[name]
    check_types(shape, values, "")
    faults = list(_faults(shape, values, ""))
    if faults:
        raise ApiError(400, "ValidationException", _sentence(faults))
    return {member: value for member, value in values.items() if value is not None}


def _number(shape: botocore.model.Shape, text: str) -> Any:
    if shape.type_name not in ("integer", "long"):
        return text
    try:
        return int(text)
    except ValueError:
        raise ApiError(400, "SerializationException", "STRING_VALUE can not be converted to an Integer") from None


_JSON_TYPES: dict[str, tuple[type, ...]] = {
    "string": (str,),
    "integer": (int,),
    "long": (int,),
    "double": (int, float),
    "float": (int, float),
    "boolean": (bool,),
    "list": (list,),
    "map": (dict,),
    "structure": (dict,),
    "timestamp": (int, float, str),
}
_JSON_NAMES = {bool: "TRUE_VALUE", str: "STRING_VALUE", int: "NUMBER_VALUE", float: "NUMBER_VALUE"}


def check_types(shape: botocore.model.Shape, value: Any, path: str) -> None:
    """Refuse JSON values of a wrong kind, as the deserializer does before any constraint is looked at."""
    if value is None:
        return
    if getattr(shape, "is_document_type", False):
        return
    wanted = _JSON_TYPES.get(shape.type_name)
    wrong_bool = isinstance(value, bool) and shape.type_name != "boolean"
    if wanted and (wrong_bool or not isinstance(value, wanted)):
        got = _JSON_NAMES.get(type(value), "Start of structure or map")
        raise ApiError(
            400, "SerializationException", f"{got} can not be converted to {shape.type_name.capitalize()} at '{path}'"
        )
    if shape.type_name == "structure":
        for name, member in shape.members.items():
            check_types(member, value.get(name), _join(path, name))
    elif shape.type_name == "list":
        for index, item in enumerate(value):
            check_types(shape.member, item, f"{path}.{index + 1}.member")
    elif shape.type_name == "map":
        for item in value.values():
            check_types(shape.value, item, f"{path}.member")


def _join(path: str, member: str) -> str:
    name = member[:1].lower() + member[1:]
    return f"{path}.{name}" if path else name


def _sentence(faults: list[str]) -> str:
    plural = "s" if len(faults) > 1 else ""
    return f"{len(faults)} validation error{plural} detected: {'; '.join(faults)}"


def _faults(shape: botocore.model.Shape, value: Any, path: str) -> Any:
    """Sentences for all that the model's constraints refuse, in AWS's wording; sensitive values are left out."""
    if getattr(shape, "is_document_type", False):
        return
    if shape.type_name == "structure":
        for name in shape.required_members:
            if value.get(name) is None:
                yield f"Value null at '{_join(path, name)}' failed to satisfy constraint: Member must not be null"
        for name, member in shape.members.items():
            if value.get(name) is not None:
                yield from _faults(member, value[name], _join(path, name))
        return
    shown = "Value" if _sensitive(shape) else f"Value '{_show(value)}'"
    prefix = f"{shown} at '{path}' failed to satisfy constraint:"
    if shape.type_name == "map":
        keys = [text for key in value for text in _constraints(shape.key, key)]
        values = [text for item in value.values() for text in _constraints(shape.value, item)]
        if keys:
            yield f"{prefix} Map keys must satisfy constraint: [{_unique(keys)}]"
        if values:
            yield f"{prefix} Map value must satisfy constraint: [{_unique(values)}]"
    for text in _constraints(shape, value):
        yield f"{prefix} {text}"
    if shape.type_name == "list":
        if shape.member.type_name == "structure":
            for index, item in enumerate(value):
                yield from _faults(shape.member, item, f"{path}.{index + 1}.member")
        else:
            items = [text for item in value for text in _constraints(shape.member, item)]
            if items:
                yield f"{prefix} Member must satisfy constraint: [{_unique(items)}]"


def _unique(texts: list[str]) -> str:
    return ", ".join(dict.fromkeys(texts))


def _sensitive(shape: botocore.model.Shape) -> bool:
    if shape.metadata.get("sensitive"):
        return True
    return shape.type_name == "map" and bool(shape.value.metadata.get("sensitive"))


def _show(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}={_show(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(_show(item) for item in value) + "]"
    return str(value)


@functools.cache
def _pattern(text: str) -> re.Pattern[str]:
    """A Smithy pattern as Python has it: ``\\p{L}`` and ``\\p{N}`` are in ``\\w``, ``\\p{Z}`` is about ``\\s``."""
    text = text.replace(r"\p{L}", r"\w").replace(r"\p{N}", r"\d").replace(r"\p{Z}", r"\s")
    return re.compile(text, re.DOTALL if text == ".*" else 0)


def _constraints(shape: botocore.model.Shape, value: Any) -> list[str]:
    meta = shape.metadata
    found: list[str] = []
    if shape.type_name in ("string", "list", "map"):
        if "max" in meta and len(value) > meta["max"]:
            found.append(f"Member must have length less than or equal to {meta['max']}")
        if meta.get("min") and len(value) < meta["min"]:
            found.append(f"Member must have length greater than or equal to {meta['min']}")
    elif shape.type_name in ("integer", "long", "double", "float"):
        if "max" in meta and value > meta["max"]:
            found.append(f"Member must have value less than or equal to {meta['max']}")
        if "min" in meta and value < meta["min"]:
            found.append(f"Member must have value greater than or equal to {meta['min']}")
    if shape.type_name == "string":
        if meta.get("enum") and value not in meta["enum"]:
            found.append(f"Member must satisfy enum value set: [{', '.join(meta['enum'])}]")
        pattern = shape.metadata.get("pattern")
        if pattern and not _pattern(pattern).fullmatch(value):
            found.append(f"Member must satisfy regular expression pattern: {pattern}")
    return found
