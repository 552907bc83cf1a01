# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Finding an Airflow: what the probe prints, and which one is meant."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from ansible_collections.mwaa.migration.plugins.module_utils._errors import MigrationError
from ansible_collections.mwaa.migration.plugins.module_utils._source import (
    PROBE,
    Agent,
    Probe,
    Source,
    choose,
    find,
    probe_command,
)
from export_fakes import FakeHost

HEAD = "mwaa-probe\thost1\tec2-user\t/home/ec2-user\t\n"


def process(pid: int, home: str, python: str = "/venv/bin/python", **other: str) -> str:
    fields = {
        "owner": "airflow",
        "place": "host",
        "readable": "yes",
        "shebang": "",
        "config": "",
        "command": "webserver",
    }
    fields.update(other)
    cells = [str(pid), fields["owner"], fields["place"], fields["readable"], python, fields["shebang"], home]
    return "\t".join(["process", *cells, fields["config"], fields["command"], ""]) + "\n"


def chosen(*lines: str, home: str | None = None, python: str | None = None) -> Source:
    return choose(Probe.parse(HEAD + "".join(lines)), home, python)


def refused(*lines: str, home: str | None = None, python: str | None = None) -> str:
    with pytest.raises(MigrationError) as error:
        chosen(*lines, home=home, python=python)
    return error.value.message


def test_one_running_airflow_the_scheduler_first() -> None:
    lines = (process(7, "/srv/airflow"), process(9, "/srv/airflow/", command="scheduler"))
    assert chosen(*lines) == Source("/venv/bin/python", "/srv/airflow/", pid=9)


def test_the_interpreter_of_a_bare_name_is_in_the_script() -> None:
    assert chosen(process(7, "/a", "python3", shebang="/opt/v/bin/python3")).python == "/opt/v/bin/python3"


def test_several_are_listed() -> None:
    message = refused(process(7, "/a"), process(8, "/b"))
    assert "airflow_home /a with /venv/bin/python; airflow_home /b with /venv/bin/python" in message
    assert message.endswith("set airflow_home, or airflow_python too")
    assert chosen(process(7, "/a"), process(8, "/b"), home="/b/").pid == 8


def test_a_unit_when_nothing_runs() -> None:
    unit = "unit\t/etc/systemd/system/airflow.service\tairflow\t/v/bin/python\t/srv/airflow\t\n"
    assert chosen(unit) == Source("/v/bin/python", "/srv/airflow", unit="/etc/systemd/system/airflow.service")
    assert chosen(unit, process(7, "/srv/airflow")).pid == 7


def test_a_process_that_hides_its_environment_is_told_by_its_unit() -> None:
    wiped = process(7, "", "/v/bin/python", readable="wiped")
    unit = "unit\t/etc/systemd/system/airflow.service\tairflow\t/v/bin/python\t/srv/airflow\t\n"
    other = "unit\t/etc/systemd/system/other.service\tother\t/w/bin/python\t/srv/other\t\n"
    expected = Source("/v/bin/python", "/srv/airflow", unit="/etc/systemd/system/airflow.service")
    assert chosen(wiped, other, unit) == expected
    assert chosen(wiped, other, unit, home="/srv/airflow") == expected
    assert chosen(wiped, "home\t/opt/airflow\t\n") == Source("/v/bin/python", "/opt/airflow")
    assert refused(wiped).endswith("but its home is not to be seen: set airflow_home")


def test_a_home_and_one_script() -> None:
    lines = ("home\t/opt/airflow\t\n", "script\t/v/bin/airflow\t/v/bin/python\t\n")
    assert chosen(*lines) == Source("/v/bin/python", "/opt/airflow")
    assert "several Pythons" in refused(*lines, "script\t/w/bin/airflow\t/w/bin/python\t\n")
    assert "several Airflow homes (/opt/airflow, /home/x/airflow)" in refused(*lines, "home\t/home/x/airflow\t\n")


def test_a_wrong_home_says_what_was_found() -> None:
    assert refused("home\t/opt/airflow\t\n", "given\tmissing\t\t\n", home="/opt/airflwo") == (
        "airflow_home /opt/airflwo does not exist on host1; found there: /opt/airflow:"
        " name the folder that holds airflow.cfg"
    )
    message = refused("given\tfolder\tbin lib pyvenv.cfg \t\n", home="/opt/venv")
    assert message.startswith("airflow_home /opt/venv on host1 has no airflow.cfg (it holds bin lib pyvenv.cfg)")


def test_a_home_whose_interpreter_lies_near() -> None:
    near = ("given\thome\t\t\n", "near\t/srv/airflow/venv/bin/python\t\n", "near\t/srv/airflow/../other/bin/python\t\n")
    assert chosen(*near, home="/srv/airflow").python == "/srv/airflow/venv/bin/python"
    assert "no Python with Airflow was found" in refused("given\thome\t\t\n", home="/srv/airflow")


def test_a_told_interpreter_takes_its_process_environment() -> None:
    assert chosen(process(7, "/a"), "given\thome\t\t\n", home="/a", python="/x/python") == Source(
        "/x/python", "/a", pid=7
    )
    assert chosen(process(7, "/a"), python="/venv/bin/python").home == "/a"


def test_another_users_airflow_asks_for_become() -> None:
    message = refused(process(7, "", readable="no"))
    assert message == (
        "Airflow runs on host1 as airflow, which ec2-user cannot look into: set become and become_user: airflow"
    )


def test_a_container_is_named() -> None:
    assert "Airflow runs in container air_scheduler_1 on host1" in refused(
        process(7, "/opt/airflow", place="container"), "docker\tair_scheduler_1\tapache/airflow:2.10.3\t\n"
    )


def test_nothing_at_all() -> None:
    assert refused().startswith("no Airflow was found on host1 (no process, no systemd unit, no usual home)")
    with pytest.raises(MigrationError, match="printed nothing"):
        Probe.parse("Welcome to Ubuntu\n")


def test_the_probe_runs_in_a_plain_shell(tmp_path) -> None:
    (tmp_path / "airflow.cfg").write_text("")
    command = ["sh", "-c", probe_command(str(tmp_path))]
    done = subprocess.run(command, input=PROBE.read_text(), capture_output=True, text=True, check=True)
    probe = Probe.parse(done.stdout)
    assert probe.given == ("home", "airflow.cfg")


def test_the_agent_is_asked_over_stdin_and_answers_sealed() -> None:
    host = FakeHost()
    agent = Agent(host, find(host))
    assert agent.call({"op": "plan"})["identity"]["airflow_version"] == "2.10.3"
    assert host.commands[1].startswith("/venv/bin/python -B -c ")
    assert host.requests[0]["source"] == {
        "airflow_home": "/srv/airflow",
        "airflow_config": None,
        "pid": 42,
        "unit": None,
    }
    assert "2.10.3" not in host.stdout[0]
    assert json.dumps(host.requests[0]) not in "".join(host.commands)


def test_what_is_no_agent_is_one_sentence() -> None:
    def run(command: str, stdin: bytes) -> tuple[int, str, str]:
        return 127, "", "sh: 1: /nope: not found\n"

    with pytest.raises(
        MigrationError, match=r"/nope does not run the agent \(sh: 1: /nope: not found\): set airflow_python"
    ):
        Agent(run, Source("/nope")).call({"op": "plan"})


def test_the_probe_reads_the_home_from_a_units_drop_in(tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "airflow.env").write_text(f'AIRFLOW_HOME="{tmp_path}/home"\n')
    unit = tmp_path / "airflow-scheduler.service"
    unit.write_text("[Service]\nUser=airflow\nExecStart=/v/bin/python /v/bin/airflow scheduler\n")
    (tmp_path / f"{unit.name}.d").mkdir()
    (tmp_path / f"{unit.name}.d" / "10-env.conf").write_text(f"[Service]\nEnvironmentFile=-{tmp_path}/airflow.env\n")
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "SYSTEMD_UNIT_PATH": str(tmp_path)}
    done = subprocess.run(["sh", str(PROBE)], env=environment, capture_output=True, text=True, check=True)
    found = [one for one in Probe.parse(done.stdout).units if one["path"] == str(unit)]
    assert found == [{"path": str(unit), "user": "airflow", "python": "/v/bin/python", "home": f"{tmp_path}/home"}]
