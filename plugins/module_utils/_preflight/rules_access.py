# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Rules about the execution role and about whoever creates the environment. Pure.

PRIVATE to the collection: no promise is made to other collections.

Sources: MWAA user guide, mwaa-create-role, access-policies, cross-service-confused-deputy-prevention,
t-create-update-environment. What may be done is IAM's own answer (SimulatePrincipalPolicy), with permission boundaries
and, where AWS tells, service control policies; policies of bucket and key are read besides.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ansible_collections.mwaa.migration.plugins.module_utils._preflight import permissions, policy
from ansible_collections.mwaa.migration.plugins.module_utils._preflight.frame import Found, Snapshot, rule

ROLE, CALLER = "role", "caller"
SERVICES = ("airflow.amazonaws.com", "airflow-env.amazonaws.com")
WHY_CALLER = "MWAA tries it with the caller's own credentials before it creates anything"
ASKED = "UG access-policies; IAM simulation"
_HOW = {
    "boundary": "allow it in the permissions boundary, which leaves it out",
    "organization": "ask whoever owns the organization's service control policies: they deny it, or have conditions,"
    " which the simulation does not weigh",
    "explicitDeny": "take away the statement that denies it",
}


@rule("role-account", ROLE, why="MWAA assumes roles of the environment's own account", source="UG mwaa-create-role")
def role_account(s: Snapshot) -> Iterator[Found]:
    """The execution role is of this account."""
    role = s["execution_role_arn"]
    if role and role.count(":") >= 5 and role.split(":")[4] != s.account:
        yield Found(
            role, f"it is of account {role.split(':')[4]}, the caller of {s.account}", f"give a role of {s.account}"
        )


@rule("role-exists", ROLE, why="the environment runs with it", source="UG mwaa-create-role")
def role_exists(s: Snapshot, found_role: Any) -> Iterator[Found]:
    """The execution role exists."""
    arn = s["execution_role_arn"]
    if not found_role:
        yield Found(arn, "does not exist", "create it, with MWAA's trust and permissions")
    elif found_role["Arn"] != arn:
        yield Found(arn, f"the role of this name is {found_role['Arn']}", "give the whole ARN, with its path")


@rule("role-trust", ROLE, why="MWAA cannot assume it: creating fails, or tasks do", source="UG mwaa-create-role")
def role_trust(s: Snapshot, role: Any) -> Iterator[Found]:
    """The execution role trusts airflow and airflow-env."""
    trust = role.get("AssumeRolePolicyDocument")
    missing = [
        service
        for service in SERVICES
        if not any(
            service in policy.principals(one, "Service") and policy.covers_action(one, "sts:AssumeRole")
            for one in policy.statements(trust, "Allow")
        )
    ]
    if missing:
        yield Found(
            role["Arn"],
            f"its trust policy leaves out {' and '.join(missing)}",
            f"let {' and '.join(missing)} sts:AssumeRole it",
        )


@rule(
    "role-trust-condition",
    ROLE,
    why="creating succeeds, and then every task fails to assume the role",
    source="UG cross-service-confused-deputy-prevention; AWS, upgrading guide (discovery-preflight)",
)
def role_trust_condition(s: Snapshot, role: Any) -> Iterator[Found]:
    """Conditions of the trust policy are met by this environment, and do not name another."""
    known = {"aws:sourcearn": s.arn, "aws:sourceaccount": s.account}
    trust = role.get("AssumeRolePolicyDocument")
    for service in SERVICES:
        about = [one for one in policy.statements(trust, "Allow") if service in policy.principals(one, "Service")]
        unmet = [[test for test in policy.conditions(one) if _unmet(test, known)] for one in about]
        if about and all(unmet):
            _operator, key, values = unmet[0][0]
            shown = {"aws:sourcearn": "aws:SourceArn", "aws:sourceaccount": "aws:SourceAccount"}[key]
            yield Found(
                role["Arn"],
                f"its trust of {service} has a condition on {shown} that names {', '.join(values)}",
                f"add {known[key]} to the condition",
            )
            return
    for statement in policy.statements(trust, "Deny"):
        always = policy.covers_action(statement, "sts:AssumeRole") and all(
            key in known and policy.holds(operator, values, known[key])
            for operator, key, values in policy.conditions(statement)
        )
        if always and {"*", *SERVICES} & set(policy.principals(statement, "Service")):
            yield Found(role["Arn"], "its trust policy denies MWAA to assume it", "take that statement away")


@rule(
    "role-permissions",
    ROLE,
    why="what the role may not, the environment cannot: logs stay empty, tasks stay queued",
    source="UG mwaa-create-role; IAM simulation; verify_env",
)
def role_permissions(
    s: Snapshot, role: Any, denied_to_role: Any, bucket_policy: Any = None, key_policy: Any = None
) -> Iterator[Found]:
    """The execution role may what MWAA needs, by IAM's simulation."""
    denied = [one for one in denied_to_role if not _by_resource(one, role["Arn"], bucket_policy, key_policy)]
    yield from _listed(role["Arn"], denied, "it may not")


@rule(
    "role-lists-buckets",
    ROLE,
    why="AWS's own policy for the role denies it: tasks see the names of all buckets",
    source="UG mwaa-create-role; verify_env",
    severity="info",
)
def role_lists_buckets(s: Snapshot, role: Any, lists_buckets: Any) -> Iterator[Found]:
    """The execution role may not list all buckets of the account."""
    if lists_buckets:
        yield Found(role["Arn"], "it may s3:ListAllMyBuckets", "deny it, if DAGs do not need it")


def _denied(identity: str, creator: str, denied: Any, key_policy: Any = None) -> Iterator[Found]:
    """What one of permissions.of_caller's sets came to."""
    left = [one for one in denied.get(identity) or [] if not _by_resource(one, creator, None, key_policy)]
    yield from _listed(creator, left, "it may not")


@rule("caller-environment", CALLER, why=WHY_CALLER, source=ASKED)
def caller_environment(s: Snapshot, creator: Any, denied_to_creator: Any) -> Iterator[Found]:
    """Whoever creates the environment may create, or update, it."""
    yield from _denied("caller-environment", creator, denied_to_creator)


@rule("caller-pass-role", CALLER, why=WHY_CALLER, source=ASKED)
def caller_pass_role(s: Snapshot, creator: Any, denied_to_creator: Any) -> Iterator[Found]:
    """Whoever creates the environment may pass the execution role to MWAA."""
    yield from _denied("caller-pass-role", creator, denied_to_creator)


@rule("caller-network", CALLER, why=WHY_CALLER, source=ASKED)
def caller_network(s: Snapshot, creator: Any, denied_to_creator: Any, vpc: Any) -> Iterator[Found]:
    """Whoever creates the environment may make endpoints and interfaces in its VPC."""
    yield from _denied("caller-network", creator, denied_to_creator)


@rule("caller-key", CALLER, why=WHY_CALLER, source=ASKED)
def caller_key(s: Snapshot, creator: Any, denied_to_creator: Any, key: Any, key_policy: Any = None) -> Iterator[Found]:
    """Whoever creates the environment may use its key and grant it."""
    yield from _denied("caller-key", creator, denied_to_creator, key_policy)


@rule(
    "caller-rest-api", CALLER, why="what enters by Airflow's REST API does not enter", source=ASKED, severity="warning"
)
def caller_rest_api(s: Snapshot, creator: Any, denied_to_creator: Any) -> Iterator[Found]:
    """Whoever creates the environment may call its REST API as Admin."""
    yield from _denied("caller-rest-api", creator, denied_to_creator)


@rule(
    "caller-service-linked-role",
    CALLER,
    why="MWAA makes it with the first environment of an account",
    source="UG mwaa-slr; IAM simulation",
)
def caller_service_linked_role(s: Snapshot, creator: Any, linked_role: Any, denied_to_creator: Any) -> Iterator[Found]:
    """MWAA's service-linked role is there, or may be made."""
    if not linked_role:
        yield from _listed(
            creator,
            denied_to_creator.get("caller-service-linked-role") or [],
            f"{permissions.LINKED_ROLE} does not exist yet, and it may not",
        )


# --- helpers ----------------------------------------------------------------------------------------------------------


def _unmet(test: tuple[str, str, list[str]], known: dict[str, str]) -> bool:
    operator, key, values = test
    return key in known and policy.holds(operator, values, known[key]) is False


def _listed(principal: str, denied: list[Any], begins: str) -> Iterator[Found]:
    """One finding for all that IAM denies to somebody, and one for what it would perhaps not deny in earnest."""
    doubtful = [one for one in denied if one[2] == "organization" or one[2].startswith("condition ")]
    yield from _found(principal, [one for one in denied if one not in doubtful], begins)
    for found in _found(principal, doubtful, f"by IAM's simulation {begins}"):
        yield found._replace(severity="warning")


def _found(principal: str, denied: list[Any], begins: str) -> Iterator[Found]:
    if not denied:
        return
    by_resource: dict[str, list[str]] = {}
    for need, action, _how in denied:
        by_resource.setdefault(need.resource, []).append(action)
    what = "; ".join(f"{', '.join(actions)} on {resource}" for resource, actions in by_resource.items())
    ways = dict.fromkeys(_way(how) for _need, _action, how in denied)
    contexts = {key: value for need, _action, _how in denied for key, value in need.context.items()}
    under = f" (with {', '.join(f'{key} {value}' for key, value in contexts.items())})" if contexts else ""
    yield Found(principal, f"{begins} {what}{under}", "; ".join(ways))


def _way(how: str) -> str:
    kind, _space, keys = how.partition(" ")
    if kind == "condition":
        return f"see that its policies' conditions on {keys}, which are not known here, let it"
    return _HOW.get(how, "allow it in its policies")


def _by_resource(denied: Any, principal: str, bucket_policy: Any, key_policy: Any) -> bool:
    """Whether the resource's own policy allows it to this very principal, which the simulation leaves out."""
    need, action, how = denied
    if how != "implicitDeny" or not principal:
        return False
    text = {"s3": bucket_policy, "kms": key_policy}.get(action.partition(":")[0])
    return any(
        _names(one, principal) and policy.covers_action(one, action) and _on(one, need.resource, action)
        for one in policy.statements(text, "Allow")
    )


def _names(statement: dict[str, Any], principal: str) -> bool:
    return principal in policy.principals(statement, "AWS") and not statement.get("Condition")


def _on(statement: dict[str, Any], resource: str, action: str) -> bool:
    return action.startswith("kms:") or policy.covers_resource(statement, resource)
