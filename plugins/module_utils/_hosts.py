# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Several hosts of one installation: do their schedulers and workers hold the same code?

PRIVATE to the collection: no promise is made to other collections.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

SHOWN = 5


@dataclass
class Comparison:
    """differences: {host that differs: {"airflow_version": [here, there], "missing", "other", "more": [path]}}."""

    differences: dict[str, dict[str, Any]] = field(default_factory=dict)
    not_carried: list[dict[str, str]] = field(default_factory=list)


def digest(listing: dict[str, Any]) -> dict[str, Any]:
    """The agent's listing as a host hands it to the one that exports: no paths of its own, only hashes."""
    return {
        "hostname": listing["hostname"],
        "airflow_version": listing["airflow_version"],
        "files": _flat(listing["files"]),
    }


def compare(mine: dict[str, Any], others: dict[str, Any]) -> Comparison:
    """mine: the exporting host's listing. others: {inventory name: what digest() gave there}."""
    comparison, here = Comparison(), _flat(mine["files"])
    for host in sorted(others):
        there = others[host]["files"]
        found: dict[str, Any] = {
            "missing": sorted(here.keys() - there.keys()),
            "other": sorted(path for path in here.keys() & there.keys() if here[path] != there[path]),
            "more": sorted(there.keys() - here.keys()),
        }
        found = {what: paths for what, paths in found.items() if paths}
        if others[host]["airflow_version"] != mine["airflow_version"]:
            found["airflow_version"] = [mine["airflow_version"], others[host]["airflow_version"]]
        if not found:
            continue
        comparison.differences[host] = found
        for path in found.get("more", []):
            comparison.not_carried.append({"kind": "file", "id": path, "reason": f"it lies on {host} alone"})
        for path in found.get("other", []):
            reason = f"{host} holds another content; that of {mine['hostname']} is carried"
            comparison.not_carried.append({"kind": "host_file", "id": f"{host}:{path}", "reason": reason})
    return comparison


def sentence(comparison: Comparison) -> str:
    """'worker-1 lacks dags/a.py and holds another dags/b.py; …'."""
    parts = []
    for host, found in comparison.differences.items():
        said = [
            f"{verb} {_some(found[what])}"
            for what, verb in (("missing", "lacks"), ("other", "holds another"), ("more", "alone holds"))
            if what in found
        ]
        if "airflow_version" in found:
            said.append(f"runs Airflow {found['airflow_version'][1]}, not {found['airflow_version'][0]}")
        parts.append(f"{host} {' and '.join(said)}")
    return "; ".join(parts)


def _some(paths: list[str]) -> str:
    more = f" and {len(paths) - SHOWN} more" if len(paths) > SHOWN else ""
    return ", ".join(paths[:SHOWN]) + more


def _flat(files: dict[str, Any]) -> dict[str, str]:
    return {f"{name}/{file['path']}": file["sha256"] for name in files for file in files[name]["files"]}
