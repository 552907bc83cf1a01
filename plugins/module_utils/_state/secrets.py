# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Variables and connections in AWS Secrets Manager, where Airflow's SecretsManagerBackend looks them up.

PRIVATE to the collection: no promise is made to other collections.

How a secret is read there, from the sources of the Amazon provider (1.3.0, 2.4.0, 6.0.0, 7.1.0, 8.16.0, 9.0.0 to
9.34.0) and of Airflow's Connection (2.0.2, 2.2.2, 2.5.1, 2.8.1, 2.10.3, 2.11.2, 3.2.1, task SDK 1.0 to 1.3):
- From Airflow 2.3 on a text that starts with { is JSON, whose `extra`, when it is text, is kept to the letter. No
  description is read. A port of 0 and an extra of '' are none. conn_type postgresql becomes postgres, - becomes _.
- Before, it is a URI. 2.2 takes extra to the letter from its query parameter __extra__; 2.0 knows only flat
  parameters, which it writes as JSON anew. No host and no schema are ''. A host is lower-cased unless each capital
  letter is percent-encoded.
- Lookup patterns are known from provider 7.3.0 on; MWAA has a newer one from Airflow 2.6.3 on. 1.3.0 fails over them.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit

from ansible_collections.mwaa.migration.plugins.module_utils._errors import MigrationError, aws_errors, error_code
from ansible_collections.mwaa.migration.plugins.module_utils._progress import Pacer
from ansible_collections.mwaa.migration.plugins.module_utils._state.model import (
    Connection,
    Item,
    Variable,
    json_object,
    values,
)

BACKEND = "airflow.providers.amazon.aws.secrets.secrets_manager.SecretsManagerBackend"
OLD_BACKENDS = ("airflow.contrib.secrets.aws_secrets_manager.SecretsManagerBackend",)  # 1.10; 2.x moved it
# MWAA's own default for connections (start-up code of its images): every task looks aws_default up
KEEPS_OUT = "^(?!aws_default$)"
PATTERNS_SINCE = (2, 6)
JSON_SINCE = (2, 3)
EXTRA_KEY_SINCE = (2, 1)
NAME = re.compile(r"[A-Za-z0-9/_+=.@-]{1,512}")  # of a secret: CreateSecret's reference
VALUE_MAX = 65536  # bytes
CARRIED = ("conn_type", "host", "login", "password", "schema", "port", "extra")


# ---------------------------------------------------------------------------------------------- the environment's side


@dataclass(frozen=True)
class Backend:
    """Where an environment's Airflow looks: the prefix of each kind (None: not at all) and which ids it looks for."""

    prefixes: dict[str, str | None]
    patterns: dict[str, str | None]
    separator: str = "/"

    @classmethod
    def of(cls, options: Mapping[str, str] | None) -> Backend | None:
        """By GetEnvironment's AirflowConfigurationOptions; None where Secrets Manager is not looked at."""
        options = options or {}
        if options.get("secrets.backend") != BACKEND:
            return None
        given = json_object(options.get("secrets.backend_kwargs") or "{}") or {}
        kinds = ("connections", "variables")
        return cls(
            {kind: given.get(f"{kind}_prefix", f"airflow/{kind}") for kind in kinds},
            {kind: given.get(f"{kind}_lookup_pattern") for kind in kinds},
            given.get("sep", "/"),
        )

    def name(self, kind: str, identifier: str) -> str:
        prefix = (self.prefixes[kind] or "").rstrip(self.separator)
        return f"{prefix}{self.separator}{identifier}" if prefix else identifier

    def belongs(self, kind: str, name: str) -> bool:
        """Whether a secret's name is that of an id of this kind, and of no other."""
        start = self.name(kind, "")
        others = [
            self.name(other, "") for other, prefix in self.prefixes.items() if other != kind and prefix is not None
        ]
        return name.startswith(start) and not any(name.startswith(other) for other in others if other.startswith(start))

    def asks(self, kind: str, identifier: str) -> bool:
        """Whether Secrets Manager is asked for this id before the database."""
        pattern = self.patterns.get(kind)
        if self.prefixes.get(kind) is None:
            return False
        try:
            return not pattern or re.match(pattern, identifier, re.IGNORECASE) is not None
        except re.error:
            return False


def backend_options(
    prefix: str,
    airflow_version: str,
    options: Mapping[str, str] | None = None,
    *,
    connections_lookup_pattern: str | None = None,
    variables_lookup_pattern: str | None = None,
) -> dict[str, str]:
    """The two options that make an environment look in Secrets Manager first: {"secrets.backend", "….backend_kwargs"}.

    prefix: of the secrets' names, without a slash at its end: airflow for airflow/connections/<id>.
    options: those the environment has or is about to get; their backend_kwargs stay, but for what is said here.
    What MWAA keeps out by default, aws_default, stays out whatever pattern is given. Raises MigrationError.
    """
    options = options or {}
    present = options.get("secrets.backend")
    if present not in (None, BACKEND, *OLD_BACKENDS):
        raise MigrationError(
            f"secrets.backend is {present}, and an environment has one backend: take secrets_backend or that away"
        )
    if NAME.fullmatch(prefix) is None or prefix.endswith("/"):
        raise MigrationError(
            f"the prefix {prefix!r} of the secrets has letters, digits and /_+=.@- only and no / at its end"
        )
    text = options.get("secrets.backend_kwargs") or "{}"
    arguments = json_object(text)
    if arguments is None:
        raise MigrationError("secrets.backend_kwargs is no JSON object: correct it, or take it away")
    given = {
        "connections_lookup_pattern": connections_lookup_pattern or arguments.get("connections_lookup_pattern"),
        "variables_lookup_pattern": variables_lookup_pattern or arguments.get("variables_lookup_pattern"),
    }
    for name, pattern in given.items():
        try:
            re.compile(pattern or "")
        except (re.error, TypeError) as error:
            raise MigrationError(f"{name} {pattern!r} is no regular expression: {error}") from None
    version = tuple(int(part) for part in airflow_version.split(".")[:3])
    if version < PATTERNS_SINCE:
        if any(given.values()):
            raise MigrationError(
                f"Airflow {airflow_version} of MWAA has an Amazon provider that knows no lookup patterns (7.3.0 does):"
                " leave them out"
            )
        given = {}
    else:
        own = given["connections_lookup_pattern"]
        kept = own or f"{KEEPS_OUT}.*$"
        given["connections_lookup_pattern"] = kept if kept.startswith(KEEPS_OUT) else f"{KEEPS_OUT}(?:{kept})"
    merged = {
        **arguments,
        "connections_prefix": f"{prefix}/connections",
        "variables_prefix": f"{prefix}/variables",
        **{name: pattern for name, pattern in given.items() if pattern},
    }
    return {"secrets.backend": BACKEND, "secrets.backend_kwargs": json.dumps(merged, sort_keys=True)}


def policy(prefix: str, region: str, role_arn: str, kms_key_arn: str | None = None) -> dict[str, Any]:
    """What an execution role needs to read the secrets, and nothing else: an IAM policy document.

    role_arn: of the execution role, which tells partition and account. kms_key_arn: the customer's key that encrypts
    them, None for Secrets Manager's own.
    """
    partition, account = role_arn.split(":")[1], role_arn.split(":")[4]
    statements: list[dict[str, Any]] = [
        {
            "Effect": "Allow",
            "Action": [
                "secretsmanager:GetResourcePolicy",
                "secretsmanager:GetSecretValue",
                "secretsmanager:DescribeSecret",
                "secretsmanager:ListSecretVersionIds",
            ],
            "Resource": [
                f"arn:{partition}:secretsmanager:{region}:{account}:secret:{prefix}/{kind}/*"
                for kind in ("connections", "variables")
            ],
        },
        {"Effect": "Allow", "Action": "secretsmanager:ListSecrets", "Resource": "*"},
    ]
    if kms_key_arn:
        statements.append({"Effect": "Allow", "Action": "kms:Decrypt", "Resource": kms_key_arn})
    return {"Version": "2012-10-17", "Statement": statements}


# ------------------------------------------------------------------------------------------------------ a secret's text


class Text(NamedTuple):
    """What lies in the secret, and what of the connection reads back differently there: {field: how it reads}."""

    text: str
    losses: dict[str, Any]


def write_connection(item: Connection, version: tuple[int, ...]) -> Text:
    """The text that reads back as this connection, or as near to it as that Airflow can.

    Raises ValueError where nothing reads back.
    """
    text = _json(item) if version >= JSON_SINCE else _uri(item, version)
    back = read_connection(text, version)
    return Text(text, {name: back[name] for name in CARRIED if back[name] != getattr(item, name)})


def read_connection(text: str, version: tuple[int, ...]) -> dict[str, Any]:
    """The fields that Airflow makes of a secret. Raises ValueError where it makes none."""
    text = text.strip()
    if version >= JSON_SINCE:
        fields = json_object(text) if text.startswith("{") else None
        if fields is not None:
            return _read_json(fields, version)
        if text.startswith("{"):
            raise ValueError("no JSON object")
    return _read_uri(text, version)


def _json(item: Connection) -> str:
    fields = {name: value for name, value in values(item).items() if name in CARRIED}
    return json.dumps({name: value for name, value in fields.items() if value is not None})


# what the provider takes for the same (SecretsManagerBackend._standardize_secret_keys)
_WORDS = {
    "login": ("login", "user", "username", "user_name"),
    "password": ("password", "pass", "key"),
    "host": ("host", "remote_host", "server"),
    "port": ("port",),
    "schema": ("database", "schema"),
    "conn_type": ("conn_type", "conn_id", "connection_type", "engine"),
    "extra": ("extra",),
}


def _read_json(fields: dict[str, Any], version: tuple[int, ...]) -> dict[str, Any]:
    found = {name: next((fields[key] for key in fields if key in words), None) for name, words in _WORDS.items()}
    extra = found["extra"] or None
    found["extra"] = extra if extra is None or isinstance(extra, str) else json.dumps(extra)
    found["conn_type"] = _conn_type(found["conn_type"] or "")
    found["port"] = int(found["port"]) if found["port"] else None
    # Connection.set_password of the model passes '' by; the task SDK of 3.x keeps it
    found["password"] = found["password"] or None
    if version >= (3,) and found["extra"] is not None and json_object(found["extra"]) is None:
        raise ValueError("extra is no JSON object")
    return {name: found[name] for name in CARRIED}


def _conn_type(text: str) -> str:
    return "postgres" if text == "postgresql" else text.replace("-", "_")


def _uri(item: Connection, version: tuple[int, ...]) -> str:
    """As Connection.get_uri makes it, with capital letters of the host encoded, and extra always in __extra__."""
    if not re.fullmatch(r"[a-z][a-z0-9_-]*", item.conn_type):
        raise ValueError("its conn_type cannot begin a URI")
    uri = f"{quote(item.conn_type.replace('_', '-'), safe='')}://"
    if item.login is not None or item.password is not None:
        uri += quote(item.login or "", safe="")
        uri += "" if item.password is None else ":" + quote(item.password, safe="")
        uri += "@"
    host = quote(item.host or "", safe="")
    uri += re.sub(r"(%[0-9A-F]{2})|([A-Z])", lambda m: m[1] or f"%{ord(m[2]):02X}", host)
    uri += f":{item.port}" if item.port else ""
    uri += f"/{quote(item.schema or '', safe='')}"
    if item.extra:
        flat = json_object(item.extra) or {}
        if version >= EXTRA_KEY_SINCE:
            uri += "?" + urlencode({"__extra__": item.extra})
        elif flat and all(isinstance(value, str) for value in flat.values()):
            uri += "?" + urlencode(flat)
    return uri


def _read_uri(text: str, version: tuple[int, ...]) -> dict[str, Any]:
    parts = urlsplit(text)
    host = unquote(parts.hostname or "")
    if "/" in host:
        host = unquote(parts.netloc.rsplit("@", 1)[-1].split(":", 1)[0])
    extra = None
    if parts.query:
        query = dict(parse_qsl(parts.query, keep_blank_values=True))
        extra = query["__extra__"] if version >= EXTRA_KEY_SINCE and "__extra__" in query else json.dumps(query)
    return {
        "conn_type": _conn_type(parts.scheme),
        "host": host,
        "login": unquote(parts.username) if parts.username else parts.username,
        # Connection.set_password passes '' by
        "password": unquote(parts.password) if parts.password else None,
        "schema": unquote(parts.path[1:]),
        "port": parts.port,
        "extra": extra,
    }


# ----------------------------------------------------------------------------------------------------------- the store

TAG = "mwaa-migration"  # its value is the environment that the secret was made for
BUNDLE_TAG = "mwaa-migration-bundle"  # its value is the bundle's id
WRITES_PER_SECOND = 45.0  # CreateSecret, PutSecretValue, DeleteSecret: 50 each [Secrets Manager quotas]
READS_PER_SECOND = 90.0  # BatchGetSecretValue, ListSecrets: 100 each [Secrets Manager quotas]
BATCH = 20  # secrets of one BatchGetSecretValue
RECOVERY_DAYS = 7  # the least that DeleteSecret takes: what was pruned by mistake can be had back


@dataclass(frozen=True)
class Held:
    """A secret that is there. text: None where it cannot be read (binary, or deleted). ours: made by this collection
    for this environment, and with a bundle from that bundle. deleted: scheduled for deletion.
    """

    name: str
    text: str | None
    ours: bool
    deleted: bool = False

    def __repr__(self) -> str:
        return f"Held({self.name!r}, ours={self.ours}, deleted={self.deleted})"


class SecretStore:
    """The secrets of one kind that one environment's Airflow asks for. Values stay in memory.

    kms_key_id: the key that encrypts new ones; None: Secrets Manager's own. bundle_id: None for lists.
    """

    AT_ONCE = 8

    def __init__(
        self,
        aws: Any,
        kind: str,
        backend: Backend,
        version: tuple[int, ...],
        environment: str,
        *,
        kms_key_id: str | None = None,
        bundle_id: str | None = None,
        clock: Any = time,
    ):
        self.aws, self.kind, self.backend, self.version, self.environment = aws, kind, backend, version, environment
        self.kms_key_id, self.bundle_id = kms_key_id, bundle_id
        self._reads, self._writes = Pacer(READS_PER_SECOND, clock), Pacer(WRITES_PER_SECOND, clock)

    def name(self, identifier: str) -> str:
        return self.backend.name(self.kind, identifier)

    def refuses(self, item: Item) -> str | None:
        """Why this item cannot be a secret that Airflow finds; None where it can."""
        if not self.backend.asks(self.kind, item.id):
            return "this environment's lookup pattern keeps it out of Secrets Manager; use another lane"
        if NAME.fullmatch(self.name(item.id)) is None:
            return "the name of a secret has letters, digits and /_+=.@- only, 512 at most; use another lane"
        try:
            text = self._text(item)
        except ValueError as error:
            return f"this Airflow makes no connection of such a secret ({error}); use another lane"
        if not text:
            return "value: a secret is never empty; use another lane"
        if len(text.encode()) > VALUE_MAX:
            return f"it has {len(text.encode()):,} bytes, and a secret has {VALUE_MAX:,} at most; use another lane"
        return None

    def fields(self, held: Held) -> dict[str, Any] | None:
        """What Airflow reads out of a secret; None where that is nothing."""
        if held.text is None:
            return None
        if self.kind == "variables":
            return {"value": held.text}
        try:
            return read_connection(held.text, self.version)
        except ValueError:
            return None

    def _text(self, item: Item) -> str:
        return item.value if isinstance(item, Variable) else write_connection(item, self.version).text  # type: ignore[arg-type]

    # -- reading

    def read(self, wanted: Iterable[str]) -> dict[str, Held]:
        """{id: Held} of the wanted ones that exist, and of ours. Only of the wanted ones the text is read."""
        listed = self._list()
        found = {key: Held(self.name(key), None, ours, deleted) for key, (ours, deleted) in listed.items()}
        names = {self.name(identifier): identifier for identifier in wanted}
        # ListSecrets lags by minutes, so what it did not name is asked for too
        ask = [name for name, identifier in names.items() if not listed.get(identifier, (False, False))[1]]
        client = self.aws.client("secretsmanager")
        batches = [ask[start : start + BATCH] for start in range(0, len(ask), BATCH)]

        def get(batch: list[str]) -> dict[str, Any]:
            self._reads.wait()
            with aws_errors(f"read secrets of environment {self.environment}"):
                return client.batch_get_secret_value(SecretIdList=batch)

        with ThreadPoolExecutor(self.AT_ONCE) as pool:
            for reply in pool.map(get, batches):
                for error in reply.get("Errors") or ():
                    self._judge(error, names, found)
                for value in reply.get("SecretValues") or ():
                    identifier = names[value["Name"]]
                    ours = listed[identifier][0] if identifier in listed else self._is_ours(value["Name"])
                    found[identifier] = Held(value["Name"], value.get("SecretString"), ours)
        return found

    def _judge(self, error: dict[str, Any], names: dict[str, str], found: dict[str, Held]) -> None:
        code, name = error.get("ErrorCode"), str(error.get("SecretId"))
        if code == "ResourceNotFoundException":
            found.pop(names.get(name, ""), None)
        elif code == "InvalidRequestException" and name in names:
            found[names[name]] = Held(name, None, self._is_ours(name), deleted=True)
        else:
            raise MigrationError(
                f"cannot read the secret {name} ({code}): allow secretsmanager:GetSecretValue on it, and kms:Decrypt"
                " on its key"
            )

    def _list(self) -> dict[str, tuple[bool, bool]]:
        """{id: (ours, scheduled for deletion)} of all that are surely of this kind."""
        prefix = self.name("")
        found = {}
        paginator = self.aws.client("secretsmanager").get_paginator("list_secrets")
        filters = [{"Key": "name", "Values": [prefix]}] if prefix else []
        with aws_errors(f"list the secrets {prefix}* of environment {self.environment}"):
            for page in paginator.paginate(
                Filters=filters, IncludePlannedDeletion=True, PaginationConfig={"PageSize": 100}
            ):
                self._reads.wait()
                for secret in page.get("SecretList") or ():
                    if self.backend.belongs(self.kind, secret["Name"]):
                        ours = self._ours(secret.get("Tags"))
                        found[secret["Name"][len(prefix) :]] = (ours, bool(secret.get("DeletedDate")))
        return found

    def _is_ours(self, name: str) -> bool:
        self._reads.wait()
        with aws_errors(f"read whose secret {name} is"):
            return self._ours(self.aws.client("secretsmanager").describe_secret(SecretId=name).get("Tags"))

    def _ours(self, tags: Any) -> bool:
        found = {tag["Key"]: tag.get("Value") for tag in tags or ()}
        return found.get(TAG) == self.environment and (
            self.bundle_id is None or found.get(BUNDLE_TAG) == self.bundle_id
        )

    # -- writing

    def put(self, item: Item, held: Held | None) -> None:
        """Create the secret, or give the one that is there this text. What is scheduled for deletion is restored."""
        name, text = self.name(item.id), self._text(item)
        client = self.aws.client("secretsmanager")
        tags = {TAG: self.environment, **({BUNDLE_TAG: self.bundle_id} if self.bundle_id else {})}
        with aws_errors(f"write the secret {name}"):
            if held is None:
                self._writes.wait()
                try:
                    # botocore repeats it with the same ClientRequestToken, which makes a second one no second one
                    client.create_secret(
                        Name=name,
                        SecretString=text,
                        Tags=[{"Key": key, "Value": value} for key, value in tags.items()],
                        **({"KmsKeyId": self.kms_key_id} if self.kms_key_id else {}),
                    )
                    return
                except Exception as exception:
                    if error_code(exception) not in ("ResourceExistsException", "InvalidRequestException"):
                        raise
                    held = Held(name, None, False, error_code(exception) == "InvalidRequestException")
            if held.deleted:
                self._writes.wait()
                client.restore_secret(SecretId=name)
            self._writes.wait()
            if self.kms_key_id:
                client.update_secret(SecretId=name, SecretString=text, KmsKeyId=self.kms_key_id)
            else:
                client.put_secret_value(SecretId=name, SecretString=text)

    def delete(self, identifier: str) -> None:
        """It can be restored for a week."""
        name = self.name(identifier)
        self._writes.wait()
        with aws_errors(f"delete the secret {name}"):
            self.aws.client("secretsmanager").delete_secret(SecretId=name, RecoveryWindowInDays=RECOVERY_DAYS)
