# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From what is installed beside the source's Airflow to a requirements.txt for an environment.

PRIVATE to the collection: no promise is made to other collections.

What the user chose is what nothing else requires. Of that, what Airflow and MWAA's image bring is left to them; what
the target's constraints name stays unpinned, because the constraint decides; the rest is pinned to the source's
version.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.mwaa.migration.plugins.module_utils import _versions
from ansible_collections.mwaa.migration.plugins.module_utils._packages import Packages, normal, packages
from ansible_collections.mwaa.migration.plugins.module_utils._sync.requirements import masked

try:
    from packaging.markers import InvalidMarker, Marker, UndefinedEnvironmentName
    from packaging.specifiers import InvalidSpecifier, SpecifierSet
except ImportError:  # ansible-core brings it
    Marker = None  # type: ignore[assignment, misc]
    SpecifierSet = None  # type: ignore[assignment, misc]

AIRFLOW = {"apache-airflow", "apache-airflow-core", "apache-airflow-task-sdk", "apache-airflow-ctl"}
TOOLS = {"pip", "setuptools", "wheel", "uv", "distribute", "pkg-resources"}
BACKPORT = "apache-airflow-backport-providers-"
# a line of a requirements.txt: name, extras, version, what comes behind (a marker, a hash, a comment)
_LINE = re.compile(
    r"^(?P<name>[A-Za-z0-9][A-Za-z0-9._-]*)(?P<extras>\s*\[[^\]]*\])?"
    r"(?P<wanted>\s*(?:[=<>!~]=?=?\s*[^\s;#,\\]+\s*,?\s*)*)(?P<rest>(?:\s*[;#\\].*|\s+--hash.*)?)$"
)
_CONSTRAINT = re.compile(r"^(?:-c|--constraint)[\s=]+(?P<where>.+?)\s*(?:\s#.*)?$")
_OFFICIAL = re.compile(r"/constraints-\d[\w.]*/constraints-(no-providers-|source-providers-)?\d+\.\d+\.txt")


@dataclass
class Requirements:
    """text: the file. changed: {"name", "source", "target"} of what changes its version. left_to_image: names."""

    text: str
    changed: list[dict[str, str]] = field(default_factory=list)
    left_to_image: list[str] = field(default_factory=list)
    not_carried: list[dict[str, str]] = field(default_factory=list)
    findings: list[str] = field(default_factory=list)


def derive(distributions: list[dict[str, Any]], source_python: str, target_version: str) -> Requirements:
    """distributions: the agent's list ({"name", "version", "requires", "origin"}). source_python: such as "3.11.7"."""
    target = packages(target_version)
    result = Requirements("")
    installed = {normal(one["name"]): one for one in distributions}
    lost = {name for name, one in installed.items() if one["origin"]}
    for name in sorted(lost):
        if name not in AIRFLOW | TOOLS:
            reason = f"installed as {installed[name]['origin']}: build a wheel, or copy the code into dags or plugins"
            result.not_carried.append({"kind": "requirement", "id": installed[name]["name"], "reason": reason})
    # what only a package that stays behind requires has to be named itself
    required = {
        need
        for name, one in installed.items()
        if name not in lost
        for need in needs(one["requires"], source_python)
        if need != name
    }
    lines: dict[str, str] = {}
    for name, one in sorted(installed.items()):
        if name in lost or name in required or name in AIRFLOW or name in TOOLS:
            continue
        version = one["version"]
        if name.startswith(BACKPORT):
            provider = "apache-airflow-providers-" + name[len(BACKPORT) :]
            if provider not in target.constrained:
                reason = f"Airflow {target_version} has no provider {provider} in its constraints"
                result.not_carried.append({"kind": "requirement", "id": one["name"], "reason": reason})
                continue
            result.findings.append(f"{one['name']} {version} becomes {provider} {target.constrained[provider]}")
            name = provider
        if name in target.image:
            result.left_to_image.append(name)
        elif name in target.constrained:
            lines[name] = name
        elif "+" in version or not re.match(r"^[0-9][0-9a-zA-Z.!_-]*$", version):
            reason = f"version {version} is a local one, which no package index has: build a wheel"
            result.not_carried.append({"kind": "requirement", "id": one["name"], "reason": reason})
            continue
        elif name.startswith("apache-airflow-providers-"):
            lines[name] = name
            result.findings.append(
                f"{name} is not in the constraints of Airflow {target_version}: pip takes the newest that fits"
            )
        else:
            lines[name] = f"{name}=={version}"
        pin = target.constrained.get(name)
        if pin and pin != version:
            result.changed.append({"name": name, "source": version, "target": pin})
    minor = ".".join(source_python.split(".")[:2])
    pinned = [line for line in lines.values() if "==" in line]
    if pinned and minor != target.python:
        result.findings.append(
            f"the environment has Python {target.python}, the source {minor}: check that wheels exist for "
            + ", ".join(pinned)
        )
    result.text = "\n".join([target.constraint_line, *(lines[name] for name in sorted(lines))]) + "\n"
    return result


def needs(requires: list[str], python: str) -> set[str]:
    """The names that a distribution requires by itself, without its extras (Airflow's extras name every provider)."""
    found = set()
    for requirement in requires:
        match = re.match(r"^\s*([A-Za-z0-9][A-Za-z0-9._-]*)", requirement)
        if match and _applies(requirement.partition(";")[2], python):
            found.add(normal(match.group(1)))
    return found


def _applies(marker: str, python: str) -> bool:
    if not marker.strip():
        return True
    if re.search(r"\bextra\s*==", marker):
        return False
    if Marker is None:
        return True
    try:
        environment = {"python_version": ".".join(python.split(".")[:2]), "python_full_version": python, "extra": ""}
        environment.update(sys_platform="linux", platform_system="Linux", os_name="posix")
        return Marker(marker).evaluate(environment)
    except (InvalidMarker, UndefinedEnvironmentName):
        return True


def repin(text: str, source_version: str, target_version: str) -> Requirements:
    """A requirements.txt that was made for one version of MWAA's Airflow, for another one.

    What the target's constraints contradict takes their version, because pip would refuse it; everything else, comments
    too, stays as it is written. `changed` has {"name", "source", "target"}, the constraints file among them.
    Raises MigrationError where MWAA never had the target version.
    """
    target, result = packages(target_version), Requirements(text)
    if source_version == target_version:
        return result
    old = _versions.OFFERS.get(source_version)
    other_python = old is not None and old.python != target.python
    offline = re.search(r"^\s*--no-index\b", text, re.MULTILINE) is not None
    own_pins: list[str] = []
    constraints = [found["where"] for line in text.splitlines() if (found := _CONSTRAINT.match(line.strip()))]
    theirs = not all(map(_OFFICIAL.search, constraints))
    lines = []
    for line in text.splitlines():
        constraint = _CONSTRAINT.match(line.strip())
        if constraint:
            line = _constraint(line, constraint["where"].strip("'\""), target, result)
        elif not offline:
            line = _requirement(line, target, result, own_pins, airflow_alone=theirs)
        lines.append(line)
    if result.changed:
        result.text = "\n".join(lines) + "\n"
    if offline and other_python and old is not None:
        result.findings.append(
            f"the requirements come from plugins.zip alone (--no-index), whose wheels were made for Python"
            f" {old.python}, and Airflow {target_version} has {target.python}: pack them again for it"
        )
    elif own_pins and other_python and old is not None:
        result.findings.append(
            f"Airflow {target_version} has Python {target.python}, {source_version} has {old.python}: check that wheels"
            f" exist for {', '.join(own_pins)}"
        )
    return result


def _constraint(line: str, where: str, target: Packages, result: Requirements) -> str:
    if not _OFFICIAL.search(where):
        result.findings.append(
            f"the constraints {masked(where)} are your own: see that they are made for Airflow {target.version} and"
            f" Python {target.python}"
        )
        return line
    if _OFFICIAL.search(target.constraint_line)[0] == _OFFICIAL.search(where)[0]:  # type: ignore[index]
        return line
    result.changed.append(
        {
            "name": "--constraint",
            "source": where.rpartition("/constraints-")[0].rpartition("-")[2],
            "target": target.version,
        }
    )
    return target.constraint_line


def _requirement(line: str, target: Packages, result: Requirements, own_pins: list[str], *, airflow_alone: bool) -> str:
    found = _LINE.match(line.strip())
    if not found:
        return line
    if airflow_alone and normal(found["name"]) not in AIRFLOW:
        return line
    name, wanted = normal(found["name"]), re.sub(r"\s+", "", found["wanted"])
    exact = wanted[2:] if re.fullmatch(r"==[^,*=]+", wanted) else None
    new_name = found["name"]
    if name.startswith(BACKPORT):
        provider = "apache-airflow-providers-" + name[len(BACKPORT) :]
        if provider not in target.constrained:
            result.findings.append(
                f"{name} has no provider in the constraints of Airflow {target.version}: look for it"
            )
            return line
        name = new_name = provider
    pin = target.version if name == "apache-airflow" else target.constrained.get(name)
    if pin is None:
        if name.startswith("apache-airflow-providers-"):
            result.findings.append(
                f"{name} is not in the constraints of Airflow {target.version}: see that {wanted or 'its newest'} works"
                " with it"
            )
        elif exact:
            own_pins.append(f"{name}=={exact}")
        return line
    if new_name == found["name"] and (not wanted or _allows(wanted, pin)):
        return line
    if "--hash" in found["rest"] or found["rest"].strip().endswith("\\"):
        result.findings.append(
            f"{name}{wanted} has hashes, and Airflow {target.version} is constrained to {pin}: write it anew"
        )
        return line
    result.changed.append({"name": name, "source": exact or wanted or found["name"], "target": pin})
    behind = line.strip()[len(line.strip()[: found.start("rest")].rstrip()) :]
    return f"{new_name}{(found['extras'] or '').strip()}=={pin}{behind}"


def _allows(wanted: str, pin: str) -> bool:
    if SpecifierSet is None:
        return wanted == f"=={pin}"
    try:
        return SpecifierSet(wanted).contains(pin, prereleases=True)
    except InvalidSpecifier:
        return True  # pip is going to say what is wrong with it
