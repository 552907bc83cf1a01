# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The seed as a user of each Airflow version would have written it.

The files are kept once, in the words of Airflow 2.10; what another version says otherwise is replaced, what it cannot
have is left out.
"""

from __future__ import annotations

from mwaa_lab.airflow.versions import Version

ONLY: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = {
    "dags/taskflow_orders.py": ((2,), (99,)),
    "dags/contrib_calendar.py": ((0,), (2,)),
    "dags/legacy_2x_only.py": ((0,), (3,)),
}
"""File → from which version, and before which, it can be imported. All others always can (or never, on purpose)."""

WORDS: tuple[tuple[tuple[int, ...], str, str], ...] = (
    ((2, 4), "schedule=", "schedule_interval="),
    ((2, 3), "price.expand(order=orders())", '[price({"id": 1, "total": 40}), price({"id": 2, "total": 2})]'),
    ((2,), "airflow.operators.bash ", "airflow.operators.bash_operator "),
    ((2,), "airflow.operators.python ", "airflow.operators.python_operator "),
    ((2,), "airflow.operators.dummy ", "airflow.operators.dummy_operator "),
    ((2,), "airflow.hooks.base ", "airflow.hooks.base_hook "),
    ((2,), "python_callable=transform", "python_callable=transform, provide_context=True"),
    ((2,), '{"can_read", "can_edit"}', '{"can_dag_read", "can_dag_edit"}'),
)
"""(since, the words, what was said before)"""

PACKAGES = (((3, 8), "cowsay==6.1", "cowsay==5.0"),)
"""(Python since, a package of extra-packages.txt, what an older Python can have)"""

Section = dict[str, str]


def belongs(row: Version, path: str) -> bool:
    """A file of the seed is one that this version can have."""
    since, before = ONLY.get(path, ((0,), (99,)))
    return since <= row.parts < before


def runs(row: Version, wanted: dict[str, int]) -> dict[str, int]:
    """How many runs each DAG has had soon after the source starts."""
    return {dag_id: count for dag_id, count in wanted.items() if belongs(row, f"dags/{dag_id}.py")}


def words(row: Version, text: str) -> str:
    """The text of a DAG file in the words of this version."""
    for since, new, old in WORDS:
        if not row.since(*since):
            text = text.replace(new, old)
    return text


def packages(row: Version, text: str) -> str:
    """extra-packages.txt for this version's Python."""
    python = tuple(map(int, row.python.split(".")))
    for since, new, old in PACKAGES:
        if python < since:
            text = text.replace(new, old)
    return text


def configuration(row: Version, text: str) -> str:
    """airflow.cfg with the sections and names that this version reads."""
    sections: dict[str, list[str]] = {}
    head: list[str] = []
    lines = head
    for line in text.splitlines():
        if line.startswith("["):
            lines = sections.setdefault(line.strip("[]"), [])
        elif line:
            lines.append(line)
    if not row.since(2, 3):  # [database] came
        sections["core"] += sections.pop("database")
        sections["api"] = [line.replace("auth_backends", "auth_backend") for line in sections["api"]]
    if not row.since(2, 2):
        sections["core"] = [
            line.replace("max_active_tasks_per_dag", "dag_concurrency")
            for line in _without(sections["core"], "dag_concurrency")
        ]
    if not row.since(2):
        sections["core"] += sections.pop("logging")
        sections["scheduler"] += sections.pop("metrics")
        sections["webserver"].append("rbac = True")
        sections["core"] = [
            line.replace("= 45.0", "= 45") for line in _without(sections["core"], "sensitive_var_conn_names")
        ]
        sections["api"] = ["auth_backend = airflow.api.auth.backend.deny_all"]
    if row.since(3):
        sections["core"].append("auth_manager = airflow.providers.fab.auth_manager.fab_auth_manager.FabAuthManager")
        key = next(line for line in sections["webserver"] if line.startswith("secret_key"))
        sections["webserver"] = _without(sections["webserver"], "secret_key")
        sections["api"] = [key, "maximum_page_limit = 200"]
        sections["api_auth"] = ["jwt_secret = @CANARY:cfg-jwt-secret@"]
    parts = [head, *([f"[{name}]", *lines] for name, lines in sections.items())]
    return "\n\n".join("\n".join(part) for part in parts) + "\n"


def _without(lines: list[str], name: str) -> list[str]:
    return [line for line in lines if line.partition("=")[0].strip() != name]
