# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Generates the tables of plugins/module_utils/_packages.py and _options.py: the Airflow versions that MWAA has or had.

    generate.py packages --constraints DIR --locks DIR
    generate.py options PYTHON...

`packages` prints PACKAGES. DIR/mwaa-VERSION.txt are the constraints and DIR/mwaa-VERSION*.txt the locks (what an
environment of that version has installed), as amazon-mwaa-docker-images carries them
(images/airflow/VERSION/etc/airflow_constraints.txt and mwaa_essential_constraints.txt), those of 2.8.1 and before as
aws-mwaa-local-runner does (DIR/localrunner-VERSION.txt).

`options` prints OPTIONS and RENAMED. PYTHON are interpreters of virtual environments with Airflow, oldest version
first, each installed from MWAA's constraints.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import tempfile
import textwrap
from pathlib import Path

VERSIONS = (
    *("1.10.12", "2.0.2", "2.2.2", "2.4.3", "2.5.1", "2.6.3", "2.7.2", "2.8.1", "2.9.2", "2.10.1", "2.10.3", "2.11.0"),
    *("2.11.2", "3.0.6", "3.2.1", "3.3.1"),
)

DUMP = r"""
import json, sys, warnings
warnings.simplefilter("ignore")
from airflow.configuration import conf
from airflow.version import version
from airflow.providers_manager import ProvidersManager
ProvidersManager().initialize_providers_configuration()
known = conf.configuration_description
renamed = {"%s.%s" % old[:2]: "%s.%s" % new for new, old in conf.deprecated_options.items()}
for new, olds in getattr(conf, "many_to_one_deprecated_options", {}).items():
    renamed.update({"%s.%s" % old[:2]: "%s.%s" % new for old in olds})
sections = {old[0]: new for new, old in conf.deprecated_sections.items()}
if version.startswith("3."):
    from airflow.cli.commands.config_command import CONFIGS_CHANGES
    for change in CONFIGS_CHANGES:
        if change.renamed_to:
            old, new = change.config, change.renamed_to
            renamed.setdefault("%s.%s" % (old.section, old.option), "%s.%s" % (new.section, new.option))
json.dump({"version": version, "options": {s: sorted(known[s]["options"]) for s in known}, "renamed": renamed,
           "sections": sections}, open(sys.argv[1], "w"))
"""


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def pins(path: Path) -> dict[str, str]:
    found = {}
    for line in path.read_text().splitlines():
        match = re.match(r"^([A-Za-z0-9._-]+)(?:\[[^]]*\])?==([^\s;]+)", line)
        if match:
            found[normal(match.group(1))] = match.group(2)
    return found


def packages(constraints: Path, locks: Path) -> None:
    constrained, image = {}, {}
    for version in VERSIONS:
        names = [constraints / f"mwaa-{version}.txt", constraints / f"localrunner-{version}.txt"]
        constrained[version] = pins(next(path for path in names if path.exists()))
        installed: set[str] = {"psycopg2", "pycurl"}  # MWAA's images build these two; the locks have psycopg2-binary
        candidates = sorted(locks.glob(f"mwaa-{version}-py*.txt"))
        if version == "1.10.12":  # locked by its day, not by MWAA's constraints
            candidates = sorted(locks.glob("airflow-1.10.12-py*.txt"))
        if version == "2.10.1":  # no lock of its own: the same image with other pins
            candidates = sorted(locks.glob("mwaa-2.10.3-py*.txt"))
        if version.startswith("3.") and not any("-fab" in path.name for path in candidates):
            candidates += sorted(locks.glob("mwaa-3.3.1-py*-fab.txt"))  # MWAA 3 has the FAB auth manager
        for path in candidates:
            installed |= set(pins(path))
        essential = constraints / f"mwaa-{version}-essential.txt"
        if essential.exists():
            installed |= set(pins(essential))
            constrained[version].update(pins(essential))
        image[version] = installed
    for name in sorted(set().union(*constrained.values())):
        cells, before = [], None
        for version in VERSIONS:
            pin = constrained[version].get(name)
            cell = "-" if pin is None else pin + ("*" if name in image[version] else "")
            cells.append("=" if cell == before else cell)
            before = cell
        row = " ".join([name, *cells])
        print(textwrap.fill(row, 150, subsequent_indent="  ", break_on_hyphens=False, break_long_words=False))


def options(pythons: list[str]) -> None:
    dumps = []
    for python in pythons:
        with tempfile.TemporaryDirectory() as home:
            out = Path(home) / "out.json"
            subprocess.run(
                [python, "-c", DUMP, str(out)], check=True, env={"AIRFLOW_HOME": home, "PATH": "/usr/bin:/bin"}
            )
            dumps.append(json.loads(out.read_text()))
    versions = [dump["version"] for dump in dumps]
    print("#", *versions)
    sections: dict[str, dict[str, list[int]]] = {}
    for index, dump in enumerate(dumps):
        for section, names in dump["options"].items():
            for name in names:
                sections.setdefault(section, {}).setdefault(name, []).append(index)
    gap = versions.index("2.6.3")  # its description lacks what has no default, and its Airflow takes it all the same
    for names in sections.values():
        for present in names.values():
            if {gap - 1, gap + 1} <= set(present) and gap not in present:
                present.insert(present.index(gap + 1), gap)
    for section in sorted(sections):
        words = []
        for name, present in sorted(sections[section].items()):
            if present == list(range(len(versions))):
                words.append(name)
                continue
            start = present[0]
            for index, following in zip(present, present[1:] + [-1]):
                if following != index + 1:
                    until = "" if index == len(versions) - 1 else versions[index]
                    words.append(f"{name}@{versions[start] if start else ''}-{until}")
                    start = following
        print(f"{section}: {' '.join(words)}")
    for major in ("2", "3"):
        renamed: dict[str, str] = {}
        for dump in dumps:
            if dump["version"].startswith(major):
                renamed.update(dump["renamed"])
                renamed.update({f"{old}.*": f"{new}.*" for old, new in dump["sections"].items()})
        print(f"# renamed in {major}")
        for old in sorted(renamed):
            print(old, renamed[old])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("packages")
    one.add_argument("--constraints", type=Path, required=True)
    one.add_argument("--locks", type=Path, required=True)
    other = commands.add_parser("options")
    other.add_argument("pythons", nargs="+")
    arguments = parser.parse_args()
    if arguments.command == "packages":
        packages(arguments.constraints, arguments.locks)
    else:
        options(arguments.pythons)


if __name__ == "__main__":
    main()
