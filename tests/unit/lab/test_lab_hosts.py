# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The lab's hosts without an SSH server: what each login finds, and the stand-ins for sudo and docker."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("mwaa_lab", reason="the lab is not installed in this environment")

from mwaa_lab import hosts  # noqa: E402
from mwaa_lab.hosts import Login  # noqa: E402
from mwaa_lab.labdir import LabDir  # noqa: E402


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[LabDir]:
    """A lab's folder with a source that nobody started."""
    made = LabDir(tmp_path / "lab")
    made.create({"source": "2.10.3"})
    home = made.source / "home" / "airflow"
    (home / "dags" / "sub").mkdir(parents=True)
    for name in ("a.py", "b.py", "sub/c.py"):
        (home / "dags" / name).write_text(f"# {name}\n")
    (home / "airflow.cfg").write_text(f"[core]\ndags_folder = {home}/dags\n")
    python = made.source / "home" / "venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.symlink_to(sys.executable)
    settings = made.source / "etc" / "airflow.env"
    settings.parent.mkdir()
    settings.write_text(f'# units read this\nAIRFLOW_HOME={home}\nAIRFLOW_VAR_ODD=it\'s "$HOME"\n')
    known = {"airflow_version": "2.10.3", "airflow_home": str(home), "python": str(python)}
    (made.source / "source.json").write_text(json.dumps({**known, "environment_file": str(settings)}))
    yield made
    made.remove()


@pytest.fixture
def logins(lab: LabDir) -> dict[str, Login]:
    home = lab.source / "home"
    return hosts.logins(lab, Login(home, lab.environment(HOME=str(home), USER="airflow")))


def run(login: Login, command: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    argv = ["/bin/sh", "-c", command]
    return subprocess.run(argv, env=login.environ, cwd=login.home, input=stdin, capture_output=True, text=True)


def test_every_host_has_a_home_of_its_own(logins):
    assert list(logins) == ["airflow", "ops", "compose", "worker", "drifted", "bastion"]
    assert {name: run(login, "echo $HOME").stdout.strip() for name, login in logins.items()} == {
        name: str(login.home) for name, login in logins.items()
    }


@pytest.mark.parametrize(("user", "answer"), [("airflow", "i-0abc\n"), ("ops", "i-0abc\n"), ("bastion", "")])
def test_the_sources_host_knows_which_instance_it_is(logins, lab, user, answer):
    hosts.give_instance(lab, "i-0abc")
    command = hosts.command_on(lab, user, "cat /var/lib/cloud/data/instance-id")
    assert run(logins[user], command).stdout == answer


def test_sudo_as_ansible_calls_it(logins, lab):
    done = run(
        logins["ops"], "sudo -H -S -n -u airflow /bin/sh -c 'echo BECOME-SUCCESS-abc ; echo $HOME $USER; cat'", "in"
    )
    assert done.stdout == f"BECOME-SUCCESS-abc\n{lab.source / 'home'} airflow\nin"
    assert run(logins["ops"], "sudo -u airflow /bin/sh -c 'exit 7'").returncode == 7


def test_sudo_leaves_the_callers_variables_behind(logins):
    done = run(logins["ops"], "MINE=1 sudo -u airflow /bin/sh -c 'echo $MINE-$MWAA_LAB_PROCESS'")
    assert done.stdout == f"-{logins['ops'].environ['MWAA_LAB_PROCESS']}\n"


def test_nobody_becomes_somebody_whom_the_lab_does_not_know(logins):
    done = run(logins["ops"], "sudo -n -u postgres true")
    assert (done.returncode, done.stderr) == (1, "sudo: unknown user postgres\n")
    assert "sudo" not in run(logins["bastion"], "command -v sudo").stdout.replace("/usr/bin/sudo", "")


@pytest.mark.parametrize(
    "prefix",
    [
        "docker compose -f airflow/docker-compose.yaml exec -T scheduler",
        "cd airflow && docker compose exec -T webserver",
        "docker-compose -f airflow/docker-compose.yaml exec -T -u airflow scheduler",
        "docker exec -i airflow-scheduler-1",
    ],
)
def test_a_command_in_a_container(logins, lab, prefix):
    code = "import os, sys; print(os.environ['AIRFLOW_HOME'], os.environ['AIRFLOW_VAR_ODD'], sys.stdin.read())"
    done = run(logins["compose"], f'{prefix} python -c "{code}"', "through stdin")
    assert (done.stderr, done.stdout) == ("", f'{lab.source}/home/airflow it\'s "$HOME" through stdin\n')
    assert run(logins["compose"], f"{prefix} /bin/sh -c 'exit 3'").returncode == 3


def test_the_host_of_containers_has_no_airflow_itself(logins):
    done = run(logins["compose"], "echo [$AIRFLOW_HOME]; docker ps --format '{{.Names}} {{.Image}}' | grep -i airflow")
    lines = done.stdout.splitlines()
    assert lines == ["[]", *[f"airflow-{name}-1 apache/airflow:2.10.3" for name in ("scheduler", "webserver")]]


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("docker compose -f none.yaml exec -T scheduler true", "open none.yaml: no such file or directory"),
        ("docker compose exec -T scheduler true", "no configuration file provided: not found"),
        ("docker exec airflow-triggerer-1 true", 'service "airflow-triggerer-1" is not running'),
        ("docker run alpine true", "does not know: docker run"),
    ],
)
def test_what_docker_would_refuse(logins, command, words):
    done = run(logins["compose"], command)
    assert done.returncode != 0
    assert words in done.stderr


def test_docker_exec_gives_variables_and_no_input_unless_asked(logins):
    command = "docker exec -e \"A=it's b\" --env C=d -w / airflow-scheduler-1 /bin/sh -c 'cat; echo $A $C; pwd'"
    assert run(logins["compose"], command, "not read").stdout == "it's b d\n/\n"


def test_hosts_of_one_installation_have_their_own_files(logins):
    def dags(name: str) -> dict[str, str]:
        folder = logins[name].home / "airflow" / "dags"
        return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*.py")}

    source, worker, drifted = dags("airflow"), dags("worker"), dags("drifted")
    assert worker == source
    assert set(source) - set(drifted) == {"b.py"}
    assert set(drifted) - set(source) == {"only_on_the_drifted_host.py"}
    assert drifted["a.py"] != source["a.py"]
    assert (logins["worker"].home / "airflow" / "airflow.cfg").read_text().endswith("/hosts/worker/airflow/dags\n")
    assert "airflow-worker.service" in run(logins["worker"], "ls $SYSTEMD_UNIT_PATH").stdout


def test_an_older_python_comes_first_where_it_was_asked_for(lab):
    hosts.give_python(lab, "{}.{}".format(*sys.version_info))
    home = lab.source / "home"
    made = hosts.logins(lab, Login(home, lab.environment(HOME=str(home))))
    assert run(made["airflow"], "command -v python3").stdout == f"{lab.path}/hosts/bin/everywhere/python3\n"
