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

pytestmark = [pytest.mark.lab, pytest.mark.slow]

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


# Where the bundle is still there, the runs that are denied something have their turn.
_LAST = [*USES].index("cleanup")


def runs(world: Any, coverage: Any, name: str) -> None:
    play = world.play(USES[name])
    assert ended(USES[name], play), play.output[-6000:]
    assert world.denied == set()
    assert "could-not-check" not in play.output
    coverage.add(USES[name])
    assert coverage.missing == {}


@pytest.mark.parametrize("name", [*USES][:_LAST])
def test_it_runs_under_its_policies(world: Any, coverage: Any, name: str) -> None:
    runs(world, coverage, name)


# An action is taken away; the run where it is missed, and whose resource is named.
_OFF = {"migration_environment": "off", "migration_adopt": {}, "migration_bundle": "s3://mwaa-lab-bundle/off"}
ANEW = replace(
    USES["make anew"], variables=_OFF, places={"Environment": "off", "Bucket": "off-*", "BundlePrefix": "off"}
)
DIRECT, CHANGE = USES["migrate directly"], USES["change it directly"]
_NEW = {"migration_bundle": "s3://mwaa-lab-bundle/analytics-lab/new"}
AWAY = [
    ("ec2:DescribeRouteTables", USES["preflight"], {"preflight_fail_on": "warning"}, "", ""),
    ("kms:GenerateDataKey", USES["rehearse"], _NEW, "", ":key/"),
    ("s3:PutObject", DIRECT, {"migration_dag_s3_path": "new/dags"}, "publish", "mwaa-lab-environment/new/dags/"),
    ("iam:PassRole", DIRECT, {"migration_environment": "new"}, "environment", "role/mwaa-lab-execution"),
    ("airflow:UpdateEnvironment", CHANGE, {"environment_max_workers": 3}, "environment", "environment/direct"),
    ("cloudformation:ExecuteChangeSet", ANEW, {}, "base", "stack/off-base/"),
    ("ec2:CreateVpc", ANEW, {}, "base", "vpc/*"),
]


@pytest.mark.parametrize(("action", "use", "variables", "tags", "resource"), AWAY, ids=[one[0] for one in AWAY])
def test_what_is_missing_is_named(
    world: Any, action: str, use: Any, variables: dict[str, Any], tags: str, resource: str
) -> None:
    new = {"Environment": "new"} if "migration_environment" in variables else {}
    use = replace(use, variables={**use.variables, **variables}, tags=tags, places={**use.places, **new})
    # of the bundle's bucket it stays: the lock would be missed first
    play = world.play(use, without=f"Files/{action}" if action.startswith("s3:") else action)
    assert play.returncode != 0
    said = " ".join(play.output.split()) if use.playbook == "preflight.yml" else caller_policy.sentence(play)
    assert action in said, said[-3000:]
    assert resource in said


@pytest.mark.parametrize("name", [*USES][_LAST:])
def test_and_what_comes_last(world: Any, coverage: Any, name: str) -> None:
    runs(world, coverage, name)


def test_nothing_is_allowed_that_nobody_needs(coverage: Any) -> None:
    assert coverage.superfluous() == []


# --- the page --------------------------------------------------------------------------------------------------------


def test_the_page_names_for_each_playbook_what_it_runs_under() -> None:
    named: dict[str, set[str]] = {}
    for cell, policies in re.findall(r"^\| (`.+?) \| (.+) \|$", PAGE, re.MULTILINE):
        for playbook in re.findall(r"`(\w+)`", cell):
            links = re.findall(r"\]\(caller-policy/([\w-]+)\.json\)", policies)
            named.setdefault(playbook, set()).update(links)
    for use in USES.values():
        playbook = use.playbook.removesuffix(".yml")
        assert set(use.policies) <= named[playbook], use.name


def test_each_policy_is_one_managed_policy_and_explained() -> None:
    for name, policy in caller_policy.policies().items():
        assert caller_policy.size(policy) * 2 < caller_policy.LIMIT * 1.5, name  # room for long names
        assert f"caller-policy/{name}.json" in PAGE
    for action in caller_policy.UNSEEN:
        assert action.rpartition("/")[2] in PAGE, action
