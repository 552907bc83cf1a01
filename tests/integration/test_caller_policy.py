# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every playbook under the policies that docs/caller-policy.md names for it, in a lab that holds callers to them.

The uses build on one another, so they run in their order; what was used is compared with what is allowed at the end.
"""

from __future__ import annotations

import importlib.util
import re
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.lab

ROOT = Path(__file__).resolve().parents[2]
_SPEC = importlib.util.spec_from_file_location("caller_policy", ROOT / "tests/rehearsals/caller_policy.py")
assert _SPEC and _SPEC.loader
caller_policy = sys.modules["caller_policy"] = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(caller_policy)

PAGE = (ROOT / "docs/caller-policy.md").read_text(encoding="utf-8")
USES = {use.name: use for use in caller_policy.USES}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    world = caller_policy.World(tmp_path_factory.mktemp("policies"))
    try:
        world.up()
        yield world
    finally:
        world.down()


@pytest.fixture(scope="module")
def coverage(world: Any) -> Any:
    return caller_policy.Coverage(world)


def ended(use: Any, play: Any) -> bool:
    """Or failed only because a stub environment makes no DAGs in loops."""
    if use.fails:
        return "Something is neither equal nor listed" in caller_policy.sentence(play)
    return play.returncode == 0


@pytest.mark.parametrize("name", [*USES])
def test_it_runs_under_its_policies(world: Any, coverage: Any, name: str) -> None:
    play = world.play(USES[name])
    assert ended(USES[name], play), play.output[-6000:]
    assert world.denied == set()
    assert "could-not-check" not in play.output
    coverage.add(USES[name])
    assert coverage.missing == {}


def test_nothing_is_allowed_that_nobody_needs(coverage: Any) -> None:
    assert coverage.superfluous() == []


# An action is taken away; where it is missed, and what is said of it.
_ENVIRONMENT, _NEW = "mwaa-lab-environment/", "s3://mwaa-lab-bundle/analytics-lab/new"
AWAY = [
    ("ec2:DescribeRouteTables", "preflight", {"preflight_fail_on": "warning"}, "preflight", ""),
    ("iam:PassRole", "migrate directly", {"migration_environment": "new"}, "environment", "role/mwaa-lab-execution"),
    ("airflow:UpdateEnvironment", "change it directly", {"environment_max_workers": 3}, "environment", "/direct"),
    ("Files/s3:PutObject", "migrate directly", {"migration_dag_s3_path": "new/dags"}, "publish", _ENVIRONMENT),
    ("cloudformation:ExecuteChangeSet", "make anew", {}, "base", "stack/green-base/"),
    ("ec2:CreateVpc", "make anew", {}, "base", "vpc/*"),
    ("kms:GenerateDataKey", "rehearse", {"migration_bundle": _NEW}, "export", ":key/"),
]  # fmt: skip


@pytest.mark.parametrize(("action", "name", "variables", "tags", "resource"), AWAY, ids=[one[0] for one in AWAY])
def test_what_is_missing_is_named(
    world: Any, action: str, name: str, variables: dict[str, Any], tags: str, resource: str
) -> None:
    use = USES[name]
    places = {**use.places, **({"Environment": "new"} if "migration_environment" in variables else {})}
    tags = tags if use.playbook == "migrate.yml" else ""
    play = world.play(replace(use, variables={**use.variables, **variables}, tags=tags, places=places), without=action)
    assert play.returncode != 0
    said = " ".join(play.output.split()) if name == "preflight" else caller_policy.sentence(play)
    assert action.rpartition("/")[2] in said, said[-3000:]
    assert resource in said


# --- the page --------------------------------------------------------------------------------------------------------


def test_the_page_names_for_each_playbook_what_it_runs_under() -> None:
    rows = re.findall(r"^\| `(\w+)`[^|]*\| (.*) \|$", PAGE, re.MULTILINE)
    named = {playbook: set(re.findall(r"\]\(caller-policy/([\w-]+)\.json\)", cell)) for playbook, cell in rows}
    for use in USES.values():
        playbook = use.playbook.removesuffix(".yml")
        assert set(use.policies) <= named[playbook], use.name


def test_each_policy_is_one_managed_policy_and_explained() -> None:
    for name, policy in caller_policy.policies().items():
        assert caller_policy.size(policy) * 2 < caller_policy.LIMIT * 1.5, name  # room for long names
        assert f"caller-policy/{name}.json" in PAGE
    for action in caller_policy.UNSEEN:
        assert action.rpartition("/")[2] in PAGE, action
