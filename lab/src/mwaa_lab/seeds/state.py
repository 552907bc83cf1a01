# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The state that a source is born with: what users have, and what breaks careless tools.

Every secret is a canary, ``CANARY-<what>-<hex8>``, so a search for ``CANARY-`` finds each one that leaks.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from typing import Any

Canary = Callable[[str], str]
"""What it guards → the secret."""


def canary(lab_id: str) -> Canary:
    """The canaries of one lab: the same each time, different from any other lab's."""

    def make(what: str) -> str:
        return f"CANARY-{what}-{hashlib.sha256(f'{lab_id}/{what}'.encode()).hexdigest()[:8]}"

    return make


def pem(secret: str) -> str:
    """Something in the shape of a private key. CRLF, as Windows tools leave it."""
    body = "MIIEowIBAAKCAQEA" + "b3BlbnNzaC1rZXktdjEAAAAABG5vbmUAAAA/+" * 6
    lines = [secret, *(body[i : i + 64] for i in range(0, len(body), 64))]
    return "\r\n".join(["-----BEGIN RSA PRIVATE KEY-----", *lines, "-----END RSA PRIVATE KEY-----", ""])  # gitleaks:allow


def variables(secret: Canary) -> dict[str, dict[str, str | None]]:
    """{key: {"value", "description"}}"""
    plain: dict[str, str] = {
        "environment": "production",
        "report_recipients": "finance@example.com,ops@example.com",
        "etl_config": json.dumps({"tables": ["orders", "items"], "batch": 500, "nested": {"deep": [1, 2.50, None]}}, indent=2),
        "compact_json": '{"b":1,"a":2,"b":3}',
        "json_list": "[1, 2, 3]",
        "json_string": '"str"',
        "json_null": "null",
        "json_true": "true",
        "scientific": "1e5",
        "big_decimal": "12345678901234567890.123456789",
        "big_integer": "123456789012345678901234567890",
        "leading_zeros": "000123",
        "wrapped_value": '{"value": 5}',
        "wrapped_described": '{"value": 5, "description": "inner"}',
        "empty": "",
        "blank": "   ",
        "multi_line": "first line\nsecond line\n\tindented\n\nlast line\n",
        "windows_lines": "one\r\ntwo\r\n",
        "unicode": "Zürich – Größe 5 € 日本語 🚀 \u202eright-to-left",
        "unicode_json": '{"stadt": "Köln", "emoji": "🚀"}',
        "escapes": '\\n is not a newline, \\u00e9 is not é, "quotes" and \\ backslashes',
        "jinja": "{{ ds }} {% raw %}{{ not_rendered }}{% endraw %}",
        "shell": "$(touch /tmp/never) `touch /tmp/never` ; rm -rf $HOME && echo 'quoted'",
        "url": "https://user@host.example/path?a=1&b=%20#frag",
        "looks_encrypted": "gAAAAAB-not-really-a-fernet-token",
        "html": "<script>alert('x')</script> &amp;",
        "dots.and.dots": "a key with dots",
        "key with blanks": "a key with blanks",
        "slash/key": "a key with a slash",
        "clé": "a key that is not ASCII",
        "UPPER_Case": "keys have case",
        "upper_case": "and differ by it",
        "hundred_kilobytes": "".join(f"{n:08d}," for n in range(11_378)),
        "x" * 240: "a key as long as they get",
    }
    hidden: dict[str, str] = {
        "api_key": secret("var-api-key"),
        "vault_password": secret("var-vault-password"),
        "service_secret": json.dumps({"client_id": "etl", "client_secret": secret("var-client-secret")}),
        "deploy_private_key": pem(secret("var-private-key")),
        "plain_name_hidden_inside": json.dumps({"user": "etl", "password": secret("var-nested-password")}),
        "access_token": secret("var-access-token"),
    }
    described = {"environment": "Where we are", "api_key": "Weather service – rotate in March", "empty": "Empty on purpose"}
    return {k: {"value": v, "description": described.get(k)} for k, v in {**plain, **hidden}.items()}


def connections(secret: Canary) -> dict[str, dict[str, Any]]:
    """{conn_id: fields as `airflow connections export` names them; extra is a string or None}"""

    def conn(conn_type: str, **fields: Any) -> dict[str, Any]:
        blank = dict.fromkeys(("description", "host", "login", "password", "schema", "port", "extra"))
        if isinstance(fields.get("extra"), dict):
            fields["extra"] = json.dumps(fields["extra"])
        return {"conn_type": conn_type, **blank, **fields}

    hostile = "p@ss:w/ord?#[]%20&=+ é€"
    return {
        "warehouse": conn(
            "postgres",
            description="The warehouse – read only",
            host="warehouse.internal.example",
            login="etl",
            password=secret("conn-warehouse"),
            schema="dwh",
            port=5432,
            extra={"sslmode": "require", "keepalives_idle": 30},
        ),
        "uri_hostile": conn(
            "mysql",
            host="db.internal.example",
            login="us/er@corp:x",
            password=f"{hostile} {secret('conn-hostile')}",
            schema="ä/b c",
            port=3306,
        ),
        "aws_prod": conn(
            "aws",
            login="AKIAIOSFODNN7EXAMPLE",
            password=secret("conn-aws"),
            extra={"region_name": "eu-west-1", "role_arn": "arn:aws:iam::123456789012:role/etl", "aws_session_token": secret("conn-token")},
        ),
        "sftp_partner": conn(
            "sftp",
            host="sftp.partner.example",
            login="drop",
            port=22,
            extra={"private_key": pem(secret("conn-sftp-key")), "no_host_key_check": "false"},
        ),
        "gcp": conn(
            "google_cloud_platform",
            extra={
                "extra__google_cloud_platform__project": "acme",
                "keyfile_dict": json.dumps({"type": "service_account", "private_key": pem(secret("conn-gcp-key"))}),
            },
        ),
        "http_api": conn(
            "http",
            host="https://api.example.com",
            password=secret("conn-http"),
            extra={"Authorization": f"Bearer {secret('conn-bearer')}", "timeout": 30},
        ),
        "windows_host": conn("ssh", host="win.internal.example", login="svc", password=f"{secret('conn-crlf')}\r\nsecond line"),
        "snowflake": conn(
            "snowflake",
            host="acme.snowflakecomputing.com",
            login="ETL",
            password=secret("conn-snowflake"),
            schema="PUBLIC",
            extra={"account": "acme", "warehouse": "WH", "role": "ETL", "database": "RAW"},
        ),
        "slack": conn("slackwebhook", host="https://hooks.slack.example/services", password=secret("conn-slack")),
        "smtp_relay": conn("smtp", host="smtp.internal.example", login="airflow", password=secret("conn-smtp"), port=587),
        "spark": conn("spark", host="yarn", extra={"queue": "etl", "deploy-mode": "cluster"}),
        "generic_blank": conn("generic"),
        "empty_strings": conn("generic", host="", login="", password="", schema="", extra=""),
        "extra_is_no_json": conn("generic", host="legacy", extra=f"key=value;secret={secret('conn-raw-extra')}"),
        "extra_is_a_list": conn("generic", host="legacy", extra=f'["{secret("conn-list-extra")}"]'),
        "extra_spaced": conn("generic", extra='{ "b" : 1.0,  "a" : "\\u00e9" , "big": 12345678901234567890.123456789 }'),
        "unicode_conn": conn("http", host="müller.example", login="jürgen", password=f"Straße {secret('conn-unicode')}"),
        "dots.conn-id_1": conn("http", host="dots.example"),
        "conn with blanks": conn("http", host="blanks.example", password=secret("conn-blanks")),
        "conn/slash": conn("http", host="slash.example"),
        "port_zero": conn("http", host="zero.example", port=0),
        "custom_type": conn("acme_mainframe", host="mf.internal.example", login="BATCH", password=secret("conn-mainframe")),
        "looks_encrypted": conn("http", host="x.example", password="gAAAAAB-not-really-a-fernet-token"),
        "long_password": conn("jdbc", host="jdbc:acme://db.internal.example/x", password=secret("conn-long") + "y" * 3000),
    }


def pools() -> dict[str, dict[str, Any]]:
    return {
        "default_pool": {"slots": 64, "description": "Default pool, raised", "include_deferred": False},
        "reports": {"slots": 3, "description": "Reports – at most three", "include_deferred": True},
        "api calls": {"slots": 1, "description": "", "include_deferred": False},
        "backfill": {"slots": 0, "description": "Closed", "include_deferred": False},
        "unlimited": {"slots": -1, "description": "No limit", "include_deferred": False},
        "größe": {"slots": 5, "description": "Not ASCII", "include_deferred": True},
    }


PAUSED = ("finance_month_end", "legacy_2x_only", "load_us")
"""DAGs that somebody switched off."""

RUNS = {"classic_etl": 3, "taskflow_orders": 1, "uses_plugin": 1, "wakes_up": 1, "contrib_calendar": 1}
"""Runs that the source has had when `up` says that it is ready, of the DAGs that its version can have."""

DESK = "Trading desk"
"""A role of the users' own: what a Viewer may, and the DAGs that name it."""

USERS = {
    "ada": ("Ada", "Admin"),
    "olga": ("Olga", "Op"),
    "otto": ("Otto", "Op"),
    "uli": ("Uli", "User"),
    "vera": ("Vera", "Viewer"),
    "viktor": ("Viktor", "Viewer"),
    "pia": ("Pia", "Public"),
    "dora": ("Dora", DESK),
    "dario": ("Dario", DESK),
}
"""User name → first name, role."""


def users(secret: Canary) -> list[dict[str, str]]:
    """The hash of a password is a secret too; it is of no password."""
    return [
        {
            "username": name,
            "first_name": first,
            "last_name": "Example",
            "email": f"{name}@trading.example",
            "role": role,
            "password": f"pbkdf2:sha256:1000${secret(f'user-{name}')}${'0' * 64}",
        }
        for name, (first, role) in USERS.items()
    ]


def small(secret: Canary) -> dict[str, Any]:
    return {
        "variables": variables(secret),
        "connections": connections(secret),
        "pools": pools(),
        "default_connections": True,
        "paused": PAUSED,
        "users": users(secret),
        "desk": DESK,
    }


def large(secret: Canary) -> dict[str, Any]:
    """small, and enough more that a slow way shows: 1,000 connections, 2,000 variables, 100 pools (and 300 DAG files)."""
    state = small(secret)
    types = ("postgres", "mysql", "http", "aws", "ssh", "snowflake", "generic")
    for n in range(1000 - len(state["connections"])):
        state["connections"][f"tenant_{n:04d}"] = {
            "conn_type": types[n % len(types)],
            "description": f"Tenant {n}",
            "host": f"t{n}.internal.example",
            "login": f"user{n}",
            "password": secret(f"bulk-conn-{n}"),
            "schema": "main",
            "port": 1024 + n,
            "extra": json.dumps({"n": n, "token": secret(f"bulk-extra-{n}")}),
        }
    for n in range(2000 - len(state["variables"])):
        value = secret(f"bulk-var-{n}") if n % 10 == 0 else json.dumps({"tenant": n, "limits": [n, n * 2]})
        state["variables"][f"tenant_{n:04d}_{'secret' if n % 10 == 0 else 'config'}"] = {"value": value, "description": None}
    for n in range(100 - len(state["pools"])):
        state["pools"][f"pool_{n:03d}"] = {"slots": n % 16 + 1, "description": f"Pool {n}", "include_deferred": n % 2 == 0}
    return state


LARGE_DAG_FILES = 300


def large_dag(n: int) -> str:
    """The text of one of many DAG files."""
    return f'''"""Generated: tenant {n}."""

from datetime import datetime

from airflow import DAG
from airflow.operators.bash import BashOperator

with DAG(dag_id="tenant_{n:04d}", start_date=datetime(2024, 1, 1), schedule=None, catchup=False, tags=["tenant"]) as dag:
    BashOperator(task_id="extract", bash_command="echo {n}") >> BashOperator(task_id="load", bash_command="echo {n}")
'''
