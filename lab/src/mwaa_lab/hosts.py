# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The hosts behind the lab's SSH server: each a user name, with a home, a PATH and commands of its own.

They are stand-ins. All of them are this machine and this user: what keeps one identity from another's files on a real
host (permissions, process lists, containers) is not there; what a login finds, and what a command runs in, is.

- ``airflow``: the source, logged in as the user that its Airflow runs under
- ``ops``: the same host, logged in as somebody who must become ``airflow`` to see anything (``sudo``)
- ``compose``: a host whose Airflow is in containers (``docker compose exec``, ``docker exec``, ``docker ps``)
- ``worker``, ``drifted``: further hosts of the installation, with DAG folders of their own; the second one's differs
- ``bastion``: a host with nothing on it
"""

from __future__ import annotations

import json
import shlex
import shutil
from dataclasses import dataclass
from pathlib import Path

from mwaa_lab.airflow import install
from mwaa_lab.labdir import LabDir

SOURCE, OPS, COMPOSE, WORKER, DRIFTED, BASTION = "airflow", "ops", "compose", "worker", "drifted", "bastion"

EXTRA_DAG = """\
# Left behind on this host alone.
from airflow import DAG

DAG("only_on_the_drifted_host", start_date=__import__("datetime").datetime(2024, 1, 1))
"""

COMPOSE_FILE = """\
# What the lab's stand-in for docker looks for; a real one would build the containers from it.
services:
  scheduler: {{image: "apache/airflow:{version}", command: scheduler}}
  webserver: {{image: "apache/airflow:{version}", command: webserver}}
"""

SUDO = """\
#!/bin/sh
# The lab's stand-in for sudo: another identity is another environment (HOME, PATH, what a login finds), no other uid.
user=root
while [ $# -gt 0 ]; do
  case "$1" in
    -u|--user) user=$2; shift 2 ;;
    --user=*) user=${1#--user=}; shift ;;
    -p|-g|-C|-D|-R|-T) shift 2 ;;
    --) shift; break ;;
    -*) shift ;;
    *) break ;;
  esac
done
identity=@IDENTITIES@/$user.sh
[ -f "$identity" ] || { echo "sudo: unknown user $user" >&2; exit 1; }
[ $# -gt 0 ] || { echo "usage: sudo [-HSn] [-u user] command" >&2; exit 1; }
exec env -i /bin/sh -c '. "$0"; exec "$@"' "$identity" "$@"
"""

DOCKER = """\
#!/bin/sh
# The lab's stand-in for docker: a "container" is an environment (AIRFLOW_HOME, PATH, variables) on this very machine.
fail() { echo "$2" >&2; exit "$1"; }
inside() {
  home=$(. @CONTAINER@; printf %s "$HOME")
  cd "${dir:-$home}" || exit 126
  exec env -i /bin/sh -c '. "$0"; eval "$1"; shift; exec "$@"' @CONTAINER@ "$more" "$@"
}
quote() { printf "'%s'" "$(printf %s "$1" | sed "s/'/'\\\\\\\\''/g")"; }
file=; more=; dir=; stdin=
case "${0##*/}" in docker-compose) set -- compose "$@" ;; esac
case "$1" in
  ps)
    shift
    format='{{.Names}}  {{.Image}}  Up 3 weeks'
    while [ $# -gt 0 ]; do
      case "$1" in --format) format=$2; shift ;; --format=*) format=${1#--format=} ;; esac
      shift
    done
    for name in airflow-scheduler-1 airflow-webserver-1; do
      printf '%s\\n' "$format" | sed "s/{{ *[.]Names *}}/$name/g; s|{{ *[.]Image *}}|apache/airflow:@VERSION@|g"
    done
    exit 0 ;;
  compose)
    shift
    while [ $# -gt 0 ]; do
      case "$1" in
        -f|--file) file=$2; shift 2 ;;
        --file=*) file=${1#--file=}; shift ;;
        -p|--project-name|--project-directory|--env-file|--profile) shift 2 ;;
        -*) shift ;;
        *) break ;;
      esac
    done
    if [ -z "$file" ]; then
      for name in compose.yaml compose.yml docker-compose.yml docker-compose.yaml; do [ -f "$name" ] && file=$name; done
      [ -n "$file" ] || fail 14 "no configuration file provided: not found"
    fi
    [ -f "$file" ] || fail 14 "open $file: no such file or directory"
    case "$1" in
      ps) printf 'scheduler\\nwebserver\\n'; exit 0 ;;
      exec) shift; stdin=yes ;;
      *) fail 1 "the lab's stand-in for docker does not know: docker compose $1" ;;
    esac
    known='scheduler webserver' ;;
  exec) shift; known='airflow-scheduler-1 airflow-webserver-1' ;;
  *) fail 1 "the lab's stand-in for docker does not know: docker $1" ;;
esac
while [ $# -gt 0 ]; do
  case "$1" in
    -e|--env) more="$more export $(quote "$2");"; shift 2 ;;
    --env=*) more="$more export $(quote "${1#--env=}");"; shift ;;
    -w|--workdir) dir=$2; shift 2 ;;
    -u|--user|--index) shift 2 ;;
    -i|-it|-ti|--interactive) stdin=yes; shift ;;
    -*) shift ;;
    *) break ;;
  esac
done
service=$1
shift
case " $known " in *" $service "*) : ;; *) fail 1 "service \\"$service\\" is not running" ;; esac
[ $# -gt 0 ] || fail 1 "docker exec requires at least 2 arguments"
[ -n "$stdin" ] || exec </dev/null
inside "$@"
"""


@dataclass(frozen=True)
class Login:
    """What a user name stands for: the home and the environment of a host's login."""

    home: Path
    environ: dict[str, str]


def give_instance(lab: LabDir, identifier: str) -> None:
    """Let the source's host be this EC2 instance: cloud-init writes down which, and the SSH server knows where."""
    place = _cloud(lab) / "data" / "instance-id"
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text(f"{identifier}\n")


def _cloud(lab: LabDir) -> Path:
    return lab.path / "hosts" / "cloud"


def command_on(lab: LabDir, user: str, command: str) -> str:
    """A command as a host runs it: what the source's host has under /var/lib/cloud is in the lab's folder."""
    return command.replace("/var/lib/cloud", str(_cloud(lab))) if user in (SOURCE, OPS) else command


def give_python(lab: LabDir, version: str) -> None:
    """Let python3 be X.Y on all hosts of the source. :raises LabError: there is none."""
    _link(_bin(lab, "everywhere") / "python3", install.find_python(version, "mwaa-lab up --source-python-host"))


def bastion(lab: LabDir) -> Login:
    return _login(lab, BASTION)


def logins(lab: LabDir, source: Login) -> dict[str, Login]:
    """All hosts of a lab that has a source; ``source`` is its own login, as whoever runs the Airflow there."""
    known = json.loads((lab.source / "source.json").read_text())
    everywhere = _bin(lab, "everywhere")
    # Ansible hands files to whom it becomes with setfacl; here they are everybody's anyway.
    _script(everywhere / "setfacl", "#!/bin/sh\n")
    source = _with_path(source, everywhere)
    found = {SOURCE: source}
    identities = lab.path / "hosts" / "identities"
    identities.mkdir(parents=True, exist_ok=True)
    sudo = _bin(lab, "sudo")
    _script(sudo / "sudo", SUDO.replace("@IDENTITIES@", shlex.quote(str(identities))))
    found[OPS] = _with_path(_login(lab, OPS), sudo, everywhere)
    found[COMPOSE] = _compose(lab, known, everywhere)
    for name in (WORKER, DRIFTED):
        found[name] = _with_path(_worker(lab, name, known, source), everywhere)
    found[BASTION] = bastion(lab)
    for name, login in {**found, "root": _with_path(_login(lab, "root"), everywhere)}.items():
        _exports(identities / f"{name}.sh", login.environ)
    return found


def _login(lab: LabDir, name: str) -> Login:
    home = lab.path / "hosts" / name
    home.mkdir(parents=True, exist_ok=True)
    return Login(home, lab.environment(HOME=str(home), USER=name, LOGNAME=name, SHELL="/bin/sh"))


def _with_path(login: Login, *folders: Path) -> Login:
    path = ":".join([*map(str, folders), login.environ["PATH"]])
    return Login(login.home, {**login.environ, "PATH": path})


def _bin(lab: LabDir, name: str) -> Path:
    folder = lab.path / "hosts" / "bin" / name
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _script(place: Path, text: str) -> None:
    place.write_text(text)
    place.chmod(0o755)


def _link(place: Path, target: Path) -> None:
    place.unlink(missing_ok=True)
    place.symlink_to(target)


def _exports(place: Path, environ: dict[str, str]) -> None:
    """An environment as a shell reads it; it may hold the source's secrets."""
    place.touch(mode=0o600)
    place.write_text("".join(f"export {name}={shlex.quote(value)}\n" for name, value in environ.items()))


def _settings(environment_file: Path) -> dict[str, str]:
    lines = [line for line in environment_file.read_text().splitlines() if line and not line.startswith("#")]
    return dict(line.split("=", 1) for line in lines)


def _compose(lab: LabDir, known: dict[str, str], everywhere: Path) -> Login:
    login = _login(lab, COMPOSE)
    project = login.home / "airflow"
    project.mkdir(exist_ok=True)
    (project / "docker-compose.yaml").write_text(COMPOSE_FILE.format(version=known["airflow_version"]))
    container = lab.path / "hosts" / "container.sh"
    python = Path(known["python"])
    environ = lab.environment(
        HOME=str(Path(known["airflow_home"]).parent), **_settings(Path(known["environment_file"]))
    )
    _exports(container, {**environ, "PATH": f"{python.parent}:{environ['PATH']}"})
    folder = _bin(lab, "docker")
    text = DOCKER.replace("@CONTAINER@", shlex.quote(str(container))).replace("@VERSION@", known["airflow_version"])
    for name in ("docker", "docker-compose"):
        _script(folder / name, text)
    return _with_path(login, folder, everywhere)


def _worker(lab: LabDir, name: str, known: dict[str, str], source: Login) -> Login:
    """A host that runs workers of the source's installation: its own files, the same database and packages."""
    login = _login(lab, name)
    home, main = login.home / "airflow", Path(known["airflow_home"])
    etc = login.home / "etc"
    etc.mkdir(exist_ok=True)
    for folder in ("dags", "plugins"):
        shutil.rmtree(home / folder, ignore_errors=True)
        if (main / folder).is_dir():
            shutil.copytree(main / folder, home / folder, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    for given, place in (
        (main / "airflow.cfg", home / "airflow.cfg"),
        (Path(known["environment_file"]), etc / "airflow.env"),
    ):
        place.parent.mkdir(parents=True, exist_ok=True)
        place.touch(mode=0o600)
        # The paths are this host's; the database is the installation's.
        lines = [
            line if "sqlite:" in line else line.replace(str(main), str(home)) for line in given.read_text().splitlines()
        ]
        place.write_text("\n".join(lines) + "\n")
    _link(login.home / "venv", Path(known["python"]).parent.parent)
    unit = f"[Service]\nEnvironmentFile={etc}/airflow.env\nUser={SOURCE}\n"
    unit += f"ExecStart={login.home}/venv/bin/python {login.home}/venv/bin/airflow celery worker\n"
    (etc / "airflow-worker.service").write_text(unit)
    if name == DRIFTED:
        _drift(home / "dags")
    return Login(login.home, {**login.environ, "SYSTEMD_UNIT_PATH": str(etc)})


def _drift(dags: Path) -> None:
    """What happens to a DAG folder that is deployed by hand: a file more, one changed, one missing."""
    files = sorted(path for path in dags.glob("*.py"))
    if files:
        files[0].write_text(files[0].read_text() + "\n# A hotfix that was made on this host alone.\n")
    if len(files) > 1:
        files[-1].unlink()
    dags.mkdir(parents=True, exist_ok=True)
    (dags / "only_on_the_drifted_host.py").write_text(EXTRA_DAG)
