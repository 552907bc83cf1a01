# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is written down twice says the same twice."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from ansible_collections.mwaa.migration.plugins.module_utils import _aws

ROOT = Path(__file__).resolve().parents[2]
RUNTIME = yaml.safe_load((ROOT / "meta" / "runtime.yml").read_text())
MODULES = {path.stem: path.read_text() for path in (ROOT / "plugins" / "modules").glob("*.py")}


def test_the_version_is_galaxys() -> None:
    assert yaml.safe_load((ROOT / "galaxy.yml").read_text())["version"] == _aws.COLLECTION_VERSION


def test_the_action_group_holds_all_modules_that_speak_to_aws() -> None:
    """module_defaults group/mwaa.migration.aws would else miss one, or give one options that it does not have."""
    speaking = {name for name, text in MODULES.items() if "amazon.aws.common.modules" in text}
    assert {name for name in RUNTIME["action_groups"]["aws"] if isinstance(name, str)} == speaking


def test_modules_that_wait_or_go_through_a_host_have_the_plugin_for_it() -> None:
    pattern = re.compile(r"^  wait_timeout:$|_options[.](agent_wait|api_host)$", re.MULTILINE)
    waiting = {name for name, text in MODULES.items() if pattern.search(text)}
    own_plugin = {path.stem for path in (ROOT / "plugins" / "action").glob("*.py")}
    assert waiting - own_plugin <= set(RUNTIME["plugin_routing"]["modules"])
    assert set(RUNTIME["plugin_routing"]["modules"]) <= set(MODULES)


@pytest.mark.parametrize("name", sorted(MODULES))
def test_modules_say_what_check_mode_does(name: str) -> None:
    documentation = yaml.safe_load(re.search(r'DOCUMENTATION = r"""(.*?)"""', MODULES[name], re.DOTALL).group(1))  # type: ignore[union-attr]
    fragments = documentation.get("extends_documentation_fragment", [])
    said = documentation.get("attributes", {})
    for attribute in ("check_mode", "diff_mode", "idempotent"):
        told = "mwaa.migration._state" in fragments and attribute != "idempotent"  # the three upserts share it
        assert attribute in said or told or "mwaa.migration._attributes.info_module" in fragments, attribute


def test_nothing_is_brought_in_of_a_source_that_one_of_several_hosts_failed_to_export() -> None:
    """Ansible goes on with the next play as long as one host of this one is left."""
    export, *others = yaml.safe_load((ROOT / "playbooks" / "migrate.yml").read_text())
    assert "airflow_source" in export["hosts"] and "mwaa_source" in export["hosts"]
    assert export["any_errors_fatal"] is True
    assert others


def test_no_stage_needs_the_region_or_the_profile_as_a_variable() -> None:
    """migrate.yml leaves them to AWS's own configuration; roles check all their defaults before they begin."""
    for path in [*(ROOT / "playbooks").glob("*.yml"), *(ROOT / "roles").glob("*/[dt]*/*.yml")]:
        for line in path.read_text().splitlines():
            assert not re.search(r"migration_(region|profile)\b(?! \| default\()", line), f"{path}: {line}"


def test_every_stage_behind_the_export_knows_several_sources() -> None:
    """With migration_sources no host has to have a migration_bundle, and a role would not begin without it."""
    for path in (ROOT / "roles").glob("*/defaults/main.yml"):
        if path.parts[-3] != "export":
            assert '"{{ migration_bundle }}"' not in path.read_text(), path


@pytest.mark.parametrize("stage", ["publish", "import", "history", "logs"])
def test_what_a_stage_leaves_behind_is_listed_by_verify(stage: str) -> None:
    listed = yaml.safe_load((ROOT / "roles" / "verify" / "defaults" / "main.yml").read_text())["verify_not_carried"]
    tasks = "".join(path.read_text() for path in (ROOT / "roles" / stage / "tasks").glob("*.yml"))
    name = re.search(rf"\b{stage}_(not_carried|result\.not_carried)", listed)
    assert name and name[0].partition(".")[0] in tasks
