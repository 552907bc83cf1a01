# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The journal: one JSON line for every AWS call and every call of an environment's web server.

Names only, never values: which bucket and key, environment, secret or parameter was touched, by whom, and whether the
call could change anything. Tests assert "no writes" and "no secret left the host" on it.
"""

from __future__ import annotations

import json
import re
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO
from urllib.parse import parse_qs

from mwaa_lab.aws import model

_READS = re.compile(
    r"(Get|List|Describe|Head|Lookup|Search|Select|Query|Scan|BatchGet|Filter|Test|Validate|Estimate|Check|Simulate|Preview"
    r"|Detect|Start(Live|Query)|Stop(Query)|Assume|Decode|Download|Export)"
)
_READS_BY_EFFECT = frozenset(
    # Nothing is different in the account afterwards, whatever the verb.
    {
        "kms:Encrypt",
        "kms:Decrypt",
        "kms:ReEncrypt",
        "kms:GenerateDataKey",
        "kms:GenerateDataKeyWithoutPlaintext",
        "kms:GenerateRandom",
        "kms:GenerateMac",
        "kms:VerifyMac",
        "kms:Sign",
        "kms:Verify",
        "mwaa:CreateCliToken",
        "mwaa:CreateWebLoginToken",
    }
)

# Members that name a thing. Whatever is not in this list never reaches the journal.
_NAMING = [
    "Name",
    "Names",
    "Path",
    "EnvironmentName",
    "ResourceArn",
    "SecretId",
    "SecretIdList",
    "KeyId",
    "AliasName",
    "TargetKeyId",
    "StackName",
    "ChangeSetName",
    "StackSetName",
    "logGroupName",
    "logGroupNamePrefix",
    "logGroupIdentifier",
    "logStreamName",
    "logStreamNamePrefix",
    "RoleName",
    "RoleArn",
    "PolicyName",
    "PolicyArn",
    "UserName",
    "GroupName",
    "GroupId",
    "InstanceProfileName",
    "VpcId",
    "SubnetId",
    "VpcEndpointId",
    "NatGatewayId",
    "AllocationId",
    "RouteTableId",
    "InternetGatewayId",
    "TableName",
    "QueueUrl",
    "QueueName",
    "TopicArn",
    "FunctionName",
    "Bucket",
    "Key",
]
_LONGEST_NAME = 512


@dataclass
class Call:
    """One request as far as the journal, faults and rules need to know it."""

    service: str
    operation: str
    principal: str = ""
    caller: str = "user"
    region: str = ""
    keys: dict[str, Any] = field(default_factory=dict)
    access: str = ""
    inside: bool = False
    """Came in from inside the VPC."""
    needs: list[Any] = field(default_factory=list)
    """``permissions.Need``: the IAM actions that it took."""

    def classify(self) -> None:
        """Set ``access``: read when nothing can be different afterwards, else write."""
        if self.service == "mwaa" and self.operation == "InvokeRestApi":
            reads = self.keys.get("method") == "GET" or str(self.keys.get("path", "")).endswith("/list")
        elif self.service == "webserver":
            return
        else:
            reads = bool(_READS.match(self.operation)) or f"{self.service}:{self.operation}" in _READS_BY_EFFECT
        self.access = "read" if reads else "write"


def names(operation: str, service: str, labels: dict[str, str], headers: dict[str, str], body: bytes) -> dict[str, Any]:
    """The names in a request: path labels, and the members of a JSON or form body that name things."""
    found: dict[str, Any] = {}
    for key, value in labels.items():
        if key in _NAMING:
            found[_plain(key)] = value[:_LONGEST_NAME]
    if service == "mwaa" and "name" in found:
        found["environment"] = found.pop("name")
    if service == "s3":
        if operation == "DeleteObjects":
            found["keys"] = [
                _unescape(key) for key in re.findall(r"<Key>(.*?)</Key>", body.decode("utf-8", "replace"), re.DOTALL)
            ]
        return found
    document: dict[str, Any] = {}
    kind = headers.get("content-type", "")
    if "x-www-form-urlencoded" in kind:
        document = {key: value[0] for key, value in parse_qs(body.decode("utf-8", "replace")).items()}
    elif body[:1] == b"{":
        try:
            document = json.loads(body)
        except ValueError:
            return found
    for key in _NAMING:
        given = document.get(key)
        if isinstance(given, str):
            found.setdefault(_plain(key), given[:_LONGEST_NAME])
        elif isinstance(given, list) and all(isinstance(item, str) for item in given):
            found.setdefault(_plain(key), [item[:_LONGEST_NAME] for item in given])
    if service == "mwaa" and operation == "InvokeRestApi":
        for key in ("Method", "Path"):
            if isinstance(document.get(key), str):
                found[_plain(key)] = document[key][:_LONGEST_NAME]
    return found


def _actions(needs: list[Any]) -> dict[str, list[str]]:
    """IAM action to the resources that it was needed on."""
    found: dict[str, list[str]] = {}
    for need in needs:
        resources = found.setdefault(need.action, [])
        if need.resource not in resources:
            resources.append(need.resource)
    return found


def _plain(member: str) -> str:
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", member).lower()


def _unescape(text: str) -> str:
    return text.replace("&lt;", "<").replace("&gt;", ">").replace("&quot;", '"').replace("&amp;", "&")


def operation_of(
    signing_name: str, method: str, raw_path: str, query: dict[str, list[str]], headers: dict[str, str], body: bytes
) -> tuple[str, dict[str, str]]:
    """The operation's name whatever the protocol (JSON target, query Action, REST path), and the labels of its path."""
    target = headers.get("x-amz-target", "")
    if "." in target:
        return target.rsplit(".", 1)[-1], {}
    if "Action" in query:
        return query["Action"][0], {}
    if "x-www-form-urlencoded" in headers.get("content-type", ""):
        action = parse_qs(body.decode("utf-8", "replace")).get("Action")
        if action:
            return action[0], {}
    operation, labels = model.rest_operation(signing_name, method, raw_path, query, headers)
    return operation or f"{method} request", labels


class Journal:
    """Appends lines to ``path``; one line a call, flushed, so that a killed server loses none."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._file: TextIO = path.open("a", encoding="utf-8")

    def write(self, call: Call, *, time: float, seconds: float, status: int, error: str | None) -> None:
        line = {
            "time": round(time, 6),
            "service": call.service,
            "operation": call.operation,
            "access": call.access,
            "principal": call.principal,
            "caller": call.caller,
            "region": call.region,
            "inside": call.inside,
            "keys": call.keys,
            "action": _actions(call.needs),
            "status": status,
            "error": error,
            "seconds": round(seconds, 3),
        }
        text = json.dumps(line, ensure_ascii=False)
        with self._lock:
            self._file.write(text + "\n")
            self._file.flush()

    def close(self) -> None:
        with self._lock:
            self._file.close()
