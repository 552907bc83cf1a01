# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who may do what at the source, and what IAM would have to say for it to be so in MWAA: proposed, not carried.

PRIVATE to the collection: no promise is made to other collections.

MWAA signs people in by IAM: a principal that may call airflow:CreateWebLoginToken (or InvokeRestApi) on
`role/<environment>/<Role>` enters with that one of five Airflow roles (user guide, "Accessing an Amazon MWAA
environment"). Its users and roles come into being by that, so those of the source stay behind.
"""

from __future__ import annotations

import json
import re
from typing import Any

MWAA_ROLES = ("Admin", "Op", "User", "Viewer", "Public")  # from the most powerful one down

# what a right at the source takes in MWAA: the first that fits (FAB's names of 1.10, 2.x and 3.x)
_DAG = re.compile(r"^(DAG|DAG Run|DAG Runs|DAGs|Task Instance|Task Instances|all_dags)(:|$)")
_SECURITY = re.compile(r"^(List )?(User|Role|Permission|View Menu)|^Security$")  # to see these is Admin's alone
_OPERATION = re.compile(
    r"^(Connections?|Variables?|Pools?|Configurations?|Configs?|Providers?|XComs?|Connection|Variable|Pool|XCom)"
    r"(ModelView)?$|^ConfigurationView$"
)
_WRITES = re.compile(r"edit|create|delete|add|post|clear|trigger|run$|paused|success|failed|mulnotes|action|varimport")
_OWN_DATA = re.compile(r"^(My |Reset|UserInfo)|.*(userinfo|resetmypassword)")


def propose(
    access: dict[str, Any], *, partition: str, region: str, account: str, environment: str | None
) -> dict[str, Any]:
    """The content of access.json.

    access: the agent's {"model", "users", "roles": {name: [[action, resource]]}, "access_control"}. environment: its
    name, None while that is open.
    """
    roles = {name: _map(name, rights) for name, rights in access["roles"].items()}
    for user in access["users"]:
        for name in user["roles"]:
            roles.setdefault(name, _map(name, []))
    for entry in access["access_control"]:
        for name in entry["roles"] or ():
            roles.setdefault(name, _map(name, [["can_read", "DAGs"]]))
    needed = sorted({role["mwaa_role"] for role in roles.values()} | {"Admin"}, key=MWAA_ROLES.index)
    place = environment or "ENVIRONMENT"
    users = [
        {**user, "mwaa_role": min((roles[name]["mwaa_role"] for name in user["roles"]), key=MWAA_ROLES.index)}
        if user["roles"]
        else {**user, "mwaa_role": None}
        for user in access["users"]
    ]
    return {
        "note": "Users, roles and rights are not carried. This file holds personal data.",
        "model": access["model"],
        "users": users,
        "roles": roles,
        "access_control": access["access_control"],
        "policies": {role: policy(role, partition, region, account, place) for role in needed},
    }


def policy(role: str, partition: str, region: str, account: str, environment: str) -> dict[str, Any]:
    """The IAM policy that lets its holder into an environment with one of MWAA_ROLES."""
    where = f"arn:{partition}:airflow:{region}:{account}"
    statements = [
        {
            "Effect": "Allow",
            "Action": ["airflow:CreateWebLoginToken", "airflow:InvokeRestApi"],
            "Resource": [f"{where}:role/{environment}/{role}"],
        }
    ]
    if role == "Admin":  # the CLI asks for no role: whoever has a token may do everything it offers
        statements.append(
            {
                "Effect": "Allow",
                "Action": ["airflow:CreateCliToken"],
                "Resource": [f"{where}:environment/{environment}"],
            }
        )
    return {"Version": "2012-10-17", "Statement": statements}


def counts(proposal: dict[str, Any]) -> dict[str, int]:
    """What may be on a screen: numbers."""
    return {
        "users": len(proposal["users"]),
        "roles": len(proposal["roles"]),
        "custom_roles": sum(role["custom"] for role in proposal["roles"].values()),
        "dags_with_access_control": len(
            {entry["dag_id"] or entry["path"] for entry in proposal["access_control"]}
            | {dag for role in proposal["roles"].values() for dag in role["dags"]}
        ),
    }


def _map(name: str, rights: list[list[str]]) -> dict[str, Any]:
    """A role of the source as {"mwaa_role", "reason", "custom", "dags": those it is limited to, "permissions"}."""
    if name in MWAA_ROLES:
        return {"mwaa_role": name, "reason": "MWAA has it", "custom": False, "dags": [], "permissions": len(rights)}
    dags = sorted({dag for _action, resource in rights if (dag := _dag(resource))})
    level, reason = "Public", "it has no rights"
    for action, resource in rights:
        found, why = _needs(action, resource)
        if MWAA_ROLES.index(found) < MWAA_ROLES.index(level):
            level, reason = found, why
    all_dags = any(resource in ("DAGs", "all_dags", "DAG Runs") for _action, resource in rights)
    if dags and not all_dags:
        reason += (
            f"; the source limits it to {len(dags)} DAG(s), MWAA's {level} sees all of them: an Airflow role of its own"
            ' can be made in the environment (user guide, "Restrict an Amazon MWAA user\'s access to a subset of DAGs")'
        )
    limited = [] if all_dags else dags
    return {"mwaa_role": level, "reason": reason, "custom": True, "dags": limited, "permissions": len(rights)}


def _dag(resource: str) -> str | None:
    match = re.match(r"^(?:DAG|DAG Run|DAG Runs|Task Instance):(.+)$", resource)
    return match.group(1) if match else None


def _needs(action: str, resource: str) -> tuple[str, str]:
    writes = bool(_WRITES.search(action))
    what = f"it may {action} on {'DAG:…' if _dag(resource) else resource}"
    if _OWN_DATA.match(resource) or _OWN_DATA.match(action):
        return "Viewer", what
    if _SECURITY.match(resource):
        return "Admin", what
    if writes and _OPERATION.match(resource):
        return "Op", what
    # 1.10 calls a DAG's rights by the DAG's id alone
    if action == "can_dag_edit" or (writes and (_DAG.match(resource) or resource == "Airflow")):
        return "User", what
    return "Viewer", what


def render(proposal: dict[str, Any]) -> str:
    """access.md: the same for a reader."""
    lines = [
        "# Users and access",
        "",
        "Airflow's users, roles and rights are not carried: MWAA lets IAM principals in, as one of five roles.",
        "This page holds personal data. It lies in the bundle alone.",
        "",
        "## Roles",
        "",
        "| source | in MWAA | why |",
        "|---|---|---|",
    ]
    for name, role in sorted(proposal["roles"].items()):
        lines.append(f"| {_cell(name)} | {role['mwaa_role']} | {_cell(role['reason'])} |")
    lines += ["", "## Users", "", "| user | e-mail | active | roles | in MWAA |", "|---|---|---|---|---|"]
    for user in proposal["users"]:
        cells = (
            user["username"],
            user.get("email") or "",
            "yes" if user.get("active") else "no",
            ", ".join(user["roles"]) or "none",
            user["mwaa_role"] or "no access",
        )
        lines.append("| " + " | ".join(map(_cell, cells)) + " |")
    lines += ["", "## DAGs with access control of their own", ""]
    for entry in proposal["access_control"]:
        name = entry["dag_id"] or entry["path"]
        roles = entry["roles"]
        said = (
            "not literal in the code"
            if roles is None
            else "; ".join(f"{role}: {roles[role]}" for role in sorted(roles))
        )
        lines.append(f"- {_cell(str(name))} ({_cell(entry['path'])}): {_cell(said)}")
    for name, role in sorted(proposal["roles"].items()):
        lines += [f"- {_cell(dag)}: {_cell(name)}" for dag in role["dags"]]
    if lines[-1] == "":
        lines.append("None.")
    lines += [
        "",
        "## Policies",
        "",
        "One for each role that is needed; attach it to the principals that are to have it.",
        "",
    ]
    for role, document in proposal["policies"].items():
        lines += [f"### {role}", "", "```json", json.dumps(document, indent=2), "```", ""]
    return "\n".join(lines).rstrip() + "\n"


def _cell(text: str) -> str:
    """Names are others' text: they make neither cells nor markup."""
    shown = "".join(character if character.isprintable() else "?" for character in text)
    return re.sub(r"([\\|`*_<>\[\]#])", r"\\\1", shown)
