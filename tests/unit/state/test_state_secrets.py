# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Secrets Manager: where an environment looks, what its role may, and how connections are written there."""

from __future__ import annotations

import json
import re

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.mwaa.migration.plugins.filter.secrets_policy import secrets_policy
from ansible_collections.mwaa.migration.plugins.module_utils._errors import MigrationError
from ansible_collections.mwaa.migration.plugins.module_utils._state.model import Connection
from ansible_collections.mwaa.migration.plugins.module_utils._state.secrets import (
    BACKEND,
    Backend,
    backend_options,
    policy,
    read_connection,
    write_connection,
)

ROLE = "arn:aws-cn:iam::111122223333:role/mwaa"


def test_options_keep_mwaas_own_pattern() -> None:
    options = backend_options("airflow", "3.2.1")
    assert options["secrets.backend"] == BACKEND
    assert json.loads(options["secrets.backend_kwargs"]) == {
        "connections_prefix": "airflow/connections",
        "variables_prefix": "airflow/variables",
        "connections_lookup_pattern": "^(?!aws_default$).*$",
    }
    assert re.fullmatch(r"[ -~]+", options["secrets.backend_kwargs"])


def test_a_pattern_of_ones_own_still_keeps_aws_default_out() -> None:
    options = backend_options("airflow", "2.11.2", connections_lookup_pattern="^team_|aws")
    pattern = json.loads(options["secrets.backend_kwargs"])["connections_lookup_pattern"]
    assert [bool(re.match(pattern, name)) for name in ("team_a", "aws_x", "aws_default", "b")] == [True, True, False, 0]
    again = backend_options("airflow", "2.11.2", options)
    assert again == options  # not wrapped a second time


def test_arguments_that_are_there_stay() -> None:
    there = {"secrets.backend": BACKEND, "secrets.backend_kwargs": '{"region_name": "eu-west-1", "sep": "/"}'}
    arguments = json.loads(backend_options("team/a", "2.8.1", there)["secrets.backend_kwargs"])
    assert arguments["region_name"] == "eu-west-1" and arguments["variables_prefix"] == "team/a/variables"


def test_no_pattern_where_the_provider_fails_over_it() -> None:
    assert "pattern" not in backend_options("airflow", "2.0.2")["secrets.backend_kwargs"]
    with pytest.raises(MigrationError, match="knows no lookup patterns"):
        backend_options("airflow", "2.5.1", variables_lookup_pattern="^a")


@pytest.mark.parametrize(
    ("prefix", "options", "fault"),
    [
        ("airflow", {"secrets.backend": "acme.Vault"}, "secrets.backend is acme.Vault"),
        ("airflow", {"secrets.backend_kwargs": "nonsense"}, "is no JSON object"),
        ("a b", {}, "the prefix 'a b'"),
        ("airflow/", {}, "no / at its end"),
    ],
)
def test_what_cannot_be_set(prefix: str, options: dict[str, str], fault: str) -> None:
    with pytest.raises(MigrationError, match=fault):
        backend_options(prefix, "3.2.1", options)


def test_which_ids_are_looked_up_where() -> None:
    backend = Backend.of(backend_options("team/a", "3.2.1", variables_lookup_pattern="^secret_"))
    assert backend and backend.name("connections", "db") == "team/a/connections/db"
    assert backend.asks("connections", "db") and not backend.asks("connections", "AWS_default")
    assert backend.asks("variables", "secret_x") and not backend.asks("variables", "x")
    assert Backend.of({}) is None and Backend.of({"secrets.backend": "acme.Vault"}) is None


def test_the_policy_names_the_secrets_of_the_prefix_alone() -> None:
    document = policy("airflow", "cn-north-1", ROLE)
    [read, listing] = document["Statement"]
    assert read["Resource"] == [
        "arn:aws-cn:secretsmanager:cn-north-1:111122223333:secret:airflow/connections/*",
        "arn:aws-cn:secretsmanager:cn-north-1:111122223333:secret:airflow/variables/*",
    ]
    assert "secretsmanager:GetSecretValue" in read["Action"] and not re.search("Put|Create|Delete", str(read))
    assert listing == {"Effect": "Allow", "Action": "secretsmanager:ListSecrets", "Resource": "*"}
    assert policy("airflow", "cn-north-1", ROLE, "arn:key")["Statement"][2]["Action"] == "kms:Decrypt"


WHOLE = Connection(
    "c", "google_cloud", "not read there", "Host.Internal", "l@g:n/", "p%w d", "s/1", 5432, '{ "a":1.0, "a": [] }'
)


@pytest.mark.parametrize("version", [(2, 2, 2), (2, 5, 1), (2, 11, 2), (3, 2, 1)])
def test_every_field_to_the_letter(version: tuple[int, ...]) -> None:
    text, losses = write_connection(WHOLE, version)
    assert not losses and text.startswith("{" if version > (2, 3) else "google-cloud://")


def test_what_the_oldest_cannot_read_back_is_told() -> None:
    assert set(write_connection(WHOLE, (2, 0, 2)).losses) == {"extra"}
    plain = Connection("c", "http", host="h", schema="", extra='{"a": "1", "b": "x y"}')
    assert not write_connection(plain, (2, 0, 2)).losses
    assert write_connection(Connection("c", "http"), (2, 0, 2)).losses == {"host": "", "schema": ""}


@pytest.mark.parametrize(
    ("item", "losses"),
    [
        (Connection("c", "my-type"), {"conn_type": "my_type"}),
        (Connection("c", "http", password="", extra="", port=0), {"password": None, "extra": None, "port": None}),
    ],
)
def test_what_json_does_not_keep(item: Connection, losses: dict[str, object]) -> None:
    assert write_connection(item, (3, 2, 1)).losses == losses


def test_secrets_that_others_wrote() -> None:
    written = read_connection('{"user": "u", "pass": "p", "engine": "postgresql", "extra": {"a": 1}}', (3, 2, 1))
    assert written["login"] == "u" and written["conn_type"] == "postgres" and written["extra"] == '{"a": 1}'
    assert read_connection("http://u:p%40@h:80/s?__extra__=%7B%7D", (3, 2, 1))["password"] == "p@"
    with pytest.raises(ValueError, match="no JSON object"):
        read_connection("{broken", (3, 2, 1))


def test_the_filter_refuses_what_makes_no_arn() -> None:
    role = "arn:aws:iam::111122223333:role/mwaa"
    with pytest.raises(AnsibleFilterError, match="'' is not a region: set migration_region, or AWS_REGION"):
        secrets_policy(role, "")
    with pytest.raises(AnsibleFilterError, match="not the ARN of a role"):
        secrets_policy("mwaa", "eu-central-1")
    assert secrets_policy(role, "eu-central-1")["Version"] == "2012-10-17"
