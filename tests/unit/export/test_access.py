# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.mwaa.migration.plugins.module_utils._access import counts, propose, render

PLACE = {"partition": "aws-cn", "region": "cn-north-1", "account": "111122223333", "environment": "demo"}


def proposal(roles: dict[str, list[list[str]]], users: Any = (), access_control: Any = ()) -> dict[str, Any]:
    access = {"model": "fab", "users": list(users), "roles": roles, "access_control": list(access_control)}
    return propose(access, **PLACE)


@pytest.mark.parametrize(
    ("rights", "expected"),
    [
        ([], "Public"),
        ([["can_read", "DAGs"], ["menu_access", "Browse"]], "Viewer"),
        ([["can_edit", "My Password"]], "Viewer"),
        ([["can_userinfo", "UserDBModelView"]], "Viewer"),
        ([["can_edit", "DAG:sales"]], "User"),
        ([["can_dag_edit", "sales"]], "User"),  # 1.10
        ([["can_trigger", "Airflow"]], "User"),  # 1.10
        ([["can_create", "Connections"]], "Op"),
        ([["can_add", "VariableModelView"]], "Op"),  # 1.10
        ([["can_create", "Users"], ["can_read", "DAGs"]], "Admin"),
        ([["can_add", "RoleModelView"]], "Admin"),  # 1.10
    ],
)
def test_a_role_of_ones_own_becomes_the_nearest(rights: list[list[str]], expected: str) -> None:
    role = proposal({"Mine": rights})["roles"]["Mine"]
    assert role["mwaa_role"] == expected
    assert role["custom"]


def test_airflows_own_roles_stay_what_they_are() -> None:
    roles = proposal({"Op": [["can_create", "Users"]], "Public": []})["roles"]
    assert [roles[name]["mwaa_role"] for name in ("Op", "Public")] == ["Op", "Public"]


def test_a_role_limited_to_some_dags_is_said_to_become_wider() -> None:
    role = proposal({"Sales": [["can_read", "DAG:sales"], ["can_edit", "DAG:sales"], ["can_read", "DAG:tax"]]})[
        "roles"
    ]["Sales"]
    assert role["dags"] == ["sales", "tax"]
    assert "MWAA's User sees all of them" in role["reason"]


def test_policies_name_the_roles_and_the_partition() -> None:
    policies = proposal({"Viewer": []})["policies"]
    assert list(policies) == ["Admin", "Viewer"]
    assert policies["Viewer"]["Statement"] == [
        {
            "Effect": "Allow",
            "Action": ["airflow:CreateWebLoginToken", "airflow:InvokeRestApi"],
            "Resource": ["arn:aws-cn:airflow:cn-north-1:111122223333:role/demo/Viewer"],
        }
    ]
    cli = policies["Admin"]["Statement"][1]
    assert cli["Action"] == ["airflow:CreateCliToken"]
    assert cli["Resource"] == ["arn:aws-cn:airflow:cn-north-1:111122223333:environment/demo"]


def test_a_user_takes_the_most_powerful_of_his_roles() -> None:
    users = [
        {"username": "a", "roles": ["Viewer", "Ops"], "active": True},
        {"username": "b", "roles": [], "active": True},
    ]
    found = proposal({"Viewer": [], "Ops": [["can_create", "Pools"]]}, users)
    assert [user["mwaa_role"] for user in found["users"]] == ["Op", None]
    assert counts(found) == {"users": 2, "roles": 2, "custom_roles": 1, "dags_with_access_control": 0}


def test_access_control_in_the_code_counts_and_unknown_roles_are_told() -> None:
    found = proposal({}, access_control=[{"dag_id": "a", "path": "dags/a.py", "roles": {"Desk": ["can_read"]}}])
    assert found["roles"]["Desk"]["mwaa_role"] == "Viewer"
    assert counts(found)["dags_with_access_control"] == 1


def test_the_page_lists_all_and_takes_names_as_text() -> None:
    users = [{"username": "eve|<b>\x1b", "email": "e@x", "active": False, "roles": ["Viewer"]}]
    control = [{"dag_id": None, "path": "dags/a.py", "roles": None}]
    page = render(proposal({"Viewer": [], "Desk": [["can_read", "DAG:a"]]}, users, control))
    assert "| eve\\|\\<b\\>? | e@x | no | Viewer | Viewer |" in page
    assert "not literal in the code" in page
    assert "- a: Desk" in page
    assert "\x1b" not in page
