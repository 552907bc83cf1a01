# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The Airflow versions that the lab can run, and in what they differ: one row each, and the release that changed it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mwaa_lab.labdir import LabError

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Version:
    """An Airflow version: what MWAA runs it on, or (1.10, 2.8) what those who ran it themselves did."""

    airflow: str
    python: str
    built_by: str = ""
    """Day of the newest build tools with which its source distributions can be built; empty: any."""

    @property
    def parts(self) -> tuple[int, ...]:
        return tuple(map(int, self.airflow.split(".")))

    @property
    def major(self) -> int:
        return self.parts[0]

    def since(self, *release: int) -> bool:
        """This version is that release or a newer one."""
        return self.parts >= release

    # --- in what versions differ -------------------------------------------------------------------------------------

    @property
    def api(self) -> str:
        """Path of the core REST API."""
        return "/api/v2" if self.since(3) else "/api/v1"

    @property
    def health(self) -> tuple[str, tuple[str, ...]]:
        """Where the web server says how the parts are, and the parts that must be well."""
        if self.since(3):
            return "/api/v2/monitor/health", ("metadatabase", "scheduler", "dag_processor")
        return "/health", ("metadatabase", "scheduler")

    @property
    def database_section(self) -> str:
        """Where sql_alchemy_conn and its like are configured: [core] until 2.3."""
        return "DATABASE" if self.since(2, 3) else "CORE"

    @property
    def web_authentication(self) -> dict[str, str]:
        """Settings with which users and roles are kept in the database and REST calls may bring a password."""
        fab = "airflow.providers.fab.auth_manager"
        if self.since(3):
            return {"AIRFLOW__CORE__AUTH_MANAGER": f"{fab}.fab_auth_manager.FabAuthManager"}
        if not self.since(2):
            return {
                "AIRFLOW__WEBSERVER__RBAC": "True",
                "AIRFLOW__API__AUTH_BACKEND": "airflow.api.auth.backend.default",
            }
        backends = f"{fab}.api.auth.backend" if self.since(2, 9) else "airflow.api.auth.backend"
        if not self.since(2, 3):
            return {"AIRFLOW__API__AUTH_BACKEND": f"{backends}.basic_auth"}
        return {"AIRFLOW__API__AUTH_BACKENDS": f"{backends}.basic_auth,{backends}.session"}

    def database_commands(self, admin: str) -> list[list[str]]:
        """What fills an empty database: tables, permissions, a user of that name who may do everything."""
        names = ["--firstname", "mwaa-lab", "--lastname", "admin", "--email", "lab@example.invalid", "--role", "Admin"]
        if not self.since(2):
            names += ["--username", admin, "--use_random_password"]
            return [["initdb"], ["sync_perm"], ["create_user", *names]]
        names += ["--username", admin, "--use-random-password"]
        return [["db", "migrate" if self.since(2, 7) else "init"], ["sync-perm"], ["users", "create", *names]]

    @property
    def migrate_command(self) -> list[str]:
        """What brings an older version's database to this one's shape."""
        return ["db", "migrate" if self.since(2, 7) else "upgrade"]

    def components(self, port: int) -> dict[str, list[str]]:
        """The long-running commands, by component, without whose health nothing works."""
        scheduler = ["scheduler", "--skip-serve-logs"] if self.since(2, 2) else ["scheduler"]
        if self.since(3):
            api = ["api-server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
            return {"api-server": api, "scheduler": scheduler, "dag-processor": ["dag-processor"]}
        log = "--access-logfile" if self.since(2) else "--access_logfile"
        webserver = ["webserver", "--hostname", "127.0.0.1", "--port", str(port), log, "/dev/null"]
        return {"webserver": webserver, "scheduler": scheduler}

    @property
    def triggerer(self) -> list[str]:
        """The command for what deferred tasks wait in; empty: there is none before 2.2."""
        return [] if not self.since(2, 2) else ["triggerer", "--skip-serve-logs"] if self.since(2, 6) else ["triggerer"]

    @property
    def seed_components(self) -> tuple[str, ...]:
        """What a source must run so that its DAGs run; Airflow 3's tasks speak to the API server."""
        return ("api-server", "scheduler", "dag-processor") if self.since(3) else ("scheduler",)

    @property
    def task_logs(self) -> str:
        """Pattern of the files of task logs, under the folder of logs."""
        return "dag_id=*/**/*.log" if self.since(2, 3) else "*/*/*T*/*.log"

    @property
    def startup_script(self) -> bool:
        """MWAA runs one (AWS: from 2.2.2)."""
        return self.since(2, 2, 2)

    @property
    def constrained(self) -> bool:
        """MWAA brings its constraints to a requirements.txt that has none (AWS: from 2.7.2)."""
        return self.since(2, 7)

    @property
    def secrets_pattern(self) -> bool:
        """The amazon provider of this version knows lookup patterns, and MWAA sets one."""
        return self.since(2, 6)

    # --- files -------------------------------------------------------------------------------------------------------

    @property
    def lock(self) -> Path:
        """Exact pins, by the constraints that MWAA's image of this version carries (with the FAB provider on 3.x)."""
        return HERE / "locks" / f"{self.airflow}.txt"

    @property
    def constraints(self) -> Path:
        """The upstream constraints of this version, as MWAA's image carries them."""
        return HERE / "constraints" / f"{self.airflow}.txt"

    @property
    def essential(self) -> Path:
        """Pins that MWAA lets nobody change (mwaa_essential_constraints.txt)."""
        return HERE / "constraints" / f"{self.airflow}-essential.txt"


VERSIONS = {
    row.airflow: row
    for row in (
        Version("1.10.12", "3.7", built_by="2020-08-28"),
        Version("1.10.15", "3.7", built_by="2021-03-19"),
        Version("2.0.2", "3.7", built_by="2021-08-01"),
        Version("2.2.2", "3.7"),
        Version("2.5.1", "3.10"),
        Version("2.8.1", "3.11"),
        Version("2.10.3", "3.11"),
        Version("2.11.2", "3.12"),
        Version("3.0.6", "3.12"),
        Version("3.2.1", "3.12"),
        Version("3.3.1", "3.12"),
    )
}


def version(airflow: str) -> Version:
    """:raises LabError: no such row."""
    if airflow not in VERSIONS:
        raise LabError(f"The lab has no Airflow {airflow}: it has {', '.join(VERSIONS)}.")
    return VERSIONS[airflow]
