# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The source's seed is what users have; its secrets are canaries."""

from __future__ import annotations

import json
import re

import pytest
from mwaa_lab.seeds import state
from mwaa_lab.source import SEEDS

CANARY = re.compile(r"CANARY-[a-z0-9-]+-[0-9a-f]{8}")
SECRET = state.canary("lab")


def test_a_canary_is_recognisable_and_a_labs_own() -> None:
    assert re.fullmatch(CANARY, SECRET("conn-x"))
    assert SECRET("conn-x") == state.canary("lab")("conn-x") != state.canary("other")("conn-x")


def test_every_password_is_a_canary() -> None:
    known = {"looks_encrypted"}
    for name, connection in state.connections(SECRET).items():
        password = connection["password"]
        assert not password or name in known or CANARY.search(password), name


@pytest.mark.parametrize("value", ["1e5", '"str"', "12345678901234567890.123456789", "", '{"value": 5}'])
def test_values_that_careless_tools_change_are_there(value: str) -> None:
    assert value in {variable["value"] for variable in state.variables(SECRET).values()}


def test_there_is_a_value_of_a_hundred_kilobytes() -> None:
    assert len(state.variables(SECRET)["hundred_kilobytes"]["value"] or "") >= 100 * 1024 - 10


def test_large_is_small_and_more() -> None:
    small, large = state.small(SECRET), state.large(SECRET)

    assert (len(large["connections"]), len(large["variables"]), len(large["pools"])) == (1000, 2000, 100)
    assert all(
        large[kind][key] == value
        for kind in ("connections", "variables", "pools")
        for key, value in small[kind].items()
    )
    json.dumps(large)


def test_generated_dags_compile() -> None:
    compile(state.large_dag(7), "tenant_0007.py", "exec")


def test_the_seed_files_hold_no_secret_of_their_own() -> None:
    for name in ("airflow.cfg", "airflow.env"):
        for line in (SEEDS / name).read_text().splitlines():
            if re.match(r"(?i).*(password|secret_key|token|license_key|dsn)\w* *=", line):
                assert "@CANARY:" in line, line
