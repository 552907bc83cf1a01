# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""mwaa_environment_template: what a template needs to know of AWS. It reads, and writes nothing.

PRIVATE to the collection: no promise is made to other collections.
"""

from __future__ import annotations

from typing import Any

from ansible_collections.mwaa.migration.plugins.module_utils._errors import (
    Faults,
    MigrationError,
    aws_error,
    aws_errors,
    error_code,
    is_aws_error,
)
from ansible_collections.mwaa.migration.plugins.module_utils._mwaa import environment as mwaa
from ansible_collections.mwaa.migration.plugins.module_utils._mwaa import settings
from ansible_collections.mwaa.migration.plugins.module_utils._stacks import environment_template as templates
from ansible_collections.mwaa.migration.plugins.module_utils._stacks.stack import describe as describe_stack
from ansible_collections.mwaa.migration.plugins.module_utils._stacks.template import written

OPTIONS = "airflow_configuration_options"


def made(ctx: Any) -> dict[str, Any]:
    """The module's result. ctx: _aws.Context of mwaa_environment_template. Raises MigrationError."""
    params = ctx.params
    name = params["name"]
    settings.desired(params)
    exports = _exports(ctx)
    there = mwaa.describe(ctx.aws.client("mwaa"), name)
    if there and there["Status"] == "DELETED":
        there = None
    if there and there["Status"] in ("DELETING", "UNAVAILABLE", "CREATE_FAILED"):
        raise MigrationError(mwaa.no_way(there), environment=mwaa.brief(there))
    stack = (mwaa.owner(ctx, there) or _holding(ctx.aws.client("cloudformation"), name)) if there else None
    wanted, brought = mwaa.asked(ctx, there)
    _complete(params, wanted)
    fixed = settings.compare(settings.current(there), wanted, purge_tags=False).immutable if there else []
    if fixed:
        raise MigrationError(
            f"environment {name}: {'; '.join(fixed)}; MWAA fixes this when an environment is created: leave it as it"
            " is, or create an environment with another name"
        )
    said = _said(ctx, stack)
    left_out = _options(ctx, wanted, brought, there, written(said))
    mwaa.prepare_bucket(ctx, name, wanted.get("source_bucket", ""), wanted, whole=bool(wanted.get("source_bucket")))
    template = templates.template(
        name,
        wanted,
        partition=wanted.get("execution_role_arn", "arn:aws").split(":")[1],
        base_stack=params["base_stack"],
        subnets=templates.subnet_exports(exports, there),
        deletion_policy=params["deletion_policy"],
        strategy=params["worker_replacement_strategy"],
        said=templates.properties(said, name),
    )
    return {
        "changed": False,
        "template": template,
        "settings": {option: value for option, value in wanted.items() if option != OPTIONS},
        "environment": {"status": there["Status"], "stack": stack} if there else None,
        "left_out": left_out,
    }


def _holding(client: Any, name: str) -> str | None:
    """The stack that holds the environment, asked of CloudFormation: whether an import tags it is not documented."""
    try:
        rows = client.describe_stack_resources(PhysicalResourceId=name)["StackResources"]
    except Exception as exception:
        if error_code(exception) == "ValidationError":  # no stack has it
            return None
        if not is_aws_error(exception):
            raise
        raise aws_error(exception, f"look for the stack of environment {name}") from exception
    mine = [row for row in rows if row["ResourceType"] == templates.TYPE and row.get("PhysicalResourceId") == name]
    return next((row["StackName"] for row in mine if not row["ResourceStatus"].startswith("DELETE_")), None)


def _said(ctx: Any, stack: str | None) -> dict[str, Any] | str:
    """The template of the stack that owns the environment; empty where none does."""
    if stack is None:
        return ""
    with aws_errors(f"read the template of stack {stack}"):
        return ctx.aws.client("cloudformation").get_template(StackName=stack, TemplateStage="Original")["TemplateBody"]


def _exports(ctx: Any) -> dict[str, str]:
    """The base stack's exports, taken into the parameters that are not given. Empty: there is no base stack (yet)."""
    params, base = ctx.params, ctx.params["base_stack"]
    if not base:
        return {}
    stack = describe_stack(ctx.aws.client("cloudformation"), base)
    if stack is None:
        if not ctx.check_mode:
            raise MigrationError(
                f"the base stack {base} does not exist in {ctx.aws.region}: run the stage base first (--tags base), or"
                " correct its name"
            )
        ctx.warn(f"the base stack {base} does not exist yet: what it exports is known after the stage base")
        return {}
    exports = templates.exported(stack)
    faults = Faults(f"environment {params['name']} on the base stack {base}")
    with faults.collecting():
        for option, value in templates.from_exports(exports).items():
            given = params[option]
            if given and _same(option, given) != _same(option, value):
                faults.add(f"{option} is {_text(given)} and the stack exports {_text(value)}: correct one of them")
            params[option] = value
        if params["kms_key"] and not exports.get("KmsKeyArn"):
            faults.add(f"kms_key is {params['kms_key']} and the stack exports no KmsKeyArn: adopt the key into it")
    faults.raise_if_any()
    return exports


def _same(option: str, value: Any) -> Any:
    if isinstance(value, list):
        return sorted(value)
    separator = {"source_bucket": ":::", "kms_key": "/"}.get(option)
    return value.rsplit(separator, 1)[-1] if separator else value


def _text(value: Any) -> str:
    return ", ".join(value) if isinstance(value, list) else str(value)


def _complete(params: dict[str, Any], wanted: dict[str, Any]) -> None:
    missing = [option for option in settings.REQUIRED if not wanted.get(option)]
    if missing and not params["base_stack"]:
        raise MigrationError(f"environment {params['name']}: without base_stack it needs {', '.join(missing)}")


def _options(
    ctx: Any, wanted: dict[str, Any], brought: mwaa.Brought, there: dict[str, Any] | None, said: str
) -> list[str]:
    """Make `wanted` hold all options as the template has them. Returns what is left out. Raises naming all secrets.

    said: the template of the stack that owns the environment. A secret option that it names came from there; one that
    it does not name would be lost without a word, such as that of an environment that was just adopted.
    """
    params = ctx.params
    name = params["name"]
    faults = Faults(f"environment {name}")
    references = templates.references(params["secret_references"], faults)
    secret = {
        option: value
        for option, value in wanted.pop("secret_configuration_options", {}).items()
        if option not in references
    }
    now = settings.current(there)[OPTIONS] if there else {}
    if mwaa.bundles_of(params):  # as mwaa_environment: a migration adds
        gone = set(references) | {
            option for option in now if option in said and templates.holds_secret(option, now[option])
        }
        wanted[OPTIONS] = {
            **{option: value for option, value in now.items() if option not in gone},
            **wanted.get(OPTIONS, {}),
        }
    elif OPTIONS not in wanted and (references or secret):
        wanted[OPTIONS] = {}
    version = params["airflow_version"] or (there or {}).get("AirflowVersion")
    mwaa.look_in_secrets_manager(params, wanted, {}, version)
    plain = {option: value for option, value in wanted.get(OPTIONS, {}).items() if option not in references}
    templates.refuse_secrets(plain, secret, faults, brought=set(brought.options))
    faults.raise_if_any()
    if references or OPTIONS in wanted:
        wanted[OPTIONS] = dict(sorted({**plain, **references}.items()))
    left_out = sorted(set(brought.secret) - set(references))
    if left_out:
        ctx.warn(
            f"environment {name} is made without {', '.join(left_out)}: the source has a secret there, which no bundle"
            " holds; put it into AWS Secrets Manager and name it in secret_references"
        )
    return left_out
