# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""``mwaa-lab``: a lab's life on the command line."""

from __future__ import annotations

import argparse
import contextlib
import datetime
import json
import os
import re
import shlex
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from mwaa_lab import hosts, mwaa_source, processes
from mwaa_lab.airflow import install, versions
from mwaa_lab.aws import limits
from mwaa_lab.base import make_base
from mwaa_lab.labdir import LabDir, LabError, write_json

SERVER = "server"
DOOR = "door"
ACCOUNT = "000000000000"
# Unlike any name: Ansible masks a secret key wherever its text stands, in buckets and paths too.
SECRET_KEY = "lab+only/no-secret+at-all"
REGION = "us-east-1"
DEFAULT_DIR = ".lab"
DENIALS = ("AccessDenied", "AccessDeniedException", "UnauthorizedOperation")
# What a shell may hold for the real AWS, and what would turn calls or signatures away from the lab.
FOREIGN = re.compile(
    r"AWS_(DEFAULT_PROFILE|PROFILE|SESSION_TOKEN|SECURITY_TOKEN|IGNORE_CONFIGURED_ENDPOINT_URLS|ENDPOINT_URL_\w+)"
)


class Progress:
    """Lines with the seconds since the start, on standard error: standard output is for what is asked for."""

    def __init__(self) -> None:
        self.began = time.monotonic()

    def __call__(self, line: str) -> None:
        print(f"{time.monotonic() - self.began:6.1f} s  {line}", file=sys.stderr, flush=True)


# --- up ---------------------------------------------------------------------------------------------------------------


def up(lab: LabDir, asked: dict[str, Any]) -> None:
    """Start a lab, or say that it is up; ``asked`` holds the options of the command line, None where not given.

    :raises LabError: it cannot start; what had started is stopped again.
    """
    source, seed_data, engine = asked["source"], asked["seed_data"], asked["engine"]
    say = Progress()
    if lab.exists():
        known = lab.read()
        if known.get("ready") and not _dead(lab):
            if known["asked"] != asked:
                given = {f"--{key.replace('_', '-')}": value for key, value in known["asked"].items() if value}
                was = " ".join(key if value is True else f"{key} {value}" for key, value in given.items())
                raise LabError(f"The lab in {lab.path} is up with {was}: take it down first, or use another --dir.")
            say(f"the lab in {lab.path} is already up")
            return
        why = ", ".join(_dead(lab)) or "it never became ready"
        say(f"the lab in {lab.path} was left half up ({why}): taking it down")
        down(lab, quiet=True)
    if source != "none":
        versions.version(mwaa_source.version_of(source) or source)
    lab.create(asked)
    try:
        with ThreadPoolExecutor(2) as pool:
            aws = pool.submit(_start_aws, lab, asked, say)
            host = pool.submit(_start_source, lab, source, seed_data, engine, say)
            for part in (aws, host):
                part.result()
        write_json(lab.file, {**lab.read(), "base": aws.result()}, mode=0o600)
        if version := mwaa_source.version_of(source):
            name = mwaa_source.prepare(lab, aws.result(), version, say)
            write_json(lab.file, {**lab.read(), "source_environment": name}, mode=0o600)
    except BaseException as problem:
        say("stopping what had started")
        with contextlib.suppress(Exception):
            processes.stop_all(lab)
        if isinstance(problem, LabError):
            raise LabError(f"{problem} (logs: {lab.logs}; mwaa-lab down --dir {lab.path} removes them)") from problem
        raise
    write_json(lab.file, {**lab.read(), "ready": True}, mode=0o600)
    say(f"the lab in {lab.path} is up")


def _dead(lab: LabDir) -> list[str]:
    """Parts that should run and do not."""
    asked = lab.read()["asked"]
    parts = [SERVER]
    if not _on_a_host(asked["source"]):
        parts += [DOOR]
    else:
        database = asked.get("source_database") or "postgresql"
        parts += {"postgresql": ["postgres"], "mariadb": ["mariadb"], "sqlite": []}[database] + ["host"]
    return [f"{part} is dead" for part in parts if not processes.alive(lab, part)]


def _on_a_host(source: str) -> bool:
    return source != "none" and not mwaa_source.version_of(source)


def _start_aws(lab: LabDir, asked: dict[str, Any], say: Progress) -> dict[str, Any]:
    server_file = lab.path / "aws" / "server.json"
    log = lab.logs / "aws.log"
    for attempt in range(3):
        argv = [
            sys.executable,
            "-m",
            "mwaa_lab.aws.server",
            "--dir",
            str(lab.path),
            "--engine",
            asked["engine"],
            "--account",
            ACCOUNT,
        ]
        argv += ["--as-of", asked["as_of"]] if asked["as_of"] else []
        argv += ["--enforce-iam"] if asked.get("enforce_iam") else []
        argv += ["--http-port", str(processes.free_port()), "--tls-port", str(processes.free_port())]
        environ = {**install.installer_environment(), **lab.environment()}
        server = processes.spawn(lab, SERVER, argv, environ, log)
        deadline = time.monotonic() + 90
        while server.poll() is None and time.monotonic() < deadline:
            if server_file.exists():
                say("AWS answers")
                base = make_base(lab, with_source=_on_a_host(asked["source"]))
                say("account prepared: VPC, role, key, buckets")
                return base
            time.sleep(0.05)
        processes.stop_named(lab, SERVER)
        words = log.read_text(errors="replace")[-1500:]
        if "in use" not in words or attempt == 2:
            raise LabError(f"The emulated AWS does not start:\n{words.strip()}")
    raise AssertionError


def _start_source(lab: LabDir, source: str, seed_data: str, engine: str, say: Progress) -> None:
    if not _on_a_host(source):
        _start_door(lab)
        if engine == "stub":
            return
    if engine == "airflow" or lab.read()["asked"].get("source_database") not in ("mariadb", "sqlite"):
        from mwaa_lab.airflow.postgres import Postgres

        Postgres(lab).ensure()
        say("PostgreSQL answers")
    if not _on_a_host(source):
        return
    from mwaa_lab import source as host

    if version := lab.read()["asked"].get("source_python_host"):
        hosts.give_python(lab, version)
    host.prepare(lab, source, seed_data, say)
    host.start(lab)
    say("source: SSH answers")
    if seed_data != "none":
        host.wait_for_runs(lab, say)


def _start_door(lab: LabDir) -> None:
    """The SSH server of a lab without a source: there is still a host inside the VPC."""
    door, log = lab.ssh / "server.json", lab.logs / "door.log"
    argv = [sys.executable, "-m", "mwaa_lab.ssh", "--dir", str(lab.path)]
    process = processes.spawn(lab, DOOR, argv, {**install.installer_environment(), **lab.environment()}, log)
    deadline = time.monotonic() + 60
    while not door.exists():
        if process.poll() is not None or time.monotonic() > deadline:
            raise LabError(f"The lab's SSH server does not start: {log.read_text(errors='replace')[-1500:].strip()}")
        time.sleep(0.05)


def endpoints(lab: LabDir) -> dict[str, Any]:
    """:raises LabError: the lab is not up."""
    file = lab.path / "aws" / "server.json"
    if not lab.exists():
        raise LabError(f"There is no lab in {lab.path}: mwaa-lab up --dir {lab.path}")
    if not file.exists() or not processes.alive(lab, SERVER):
        raise LabError(f"The lab in {lab.path} is not up, its AWS is dead: mwaa-lab up (or down) --dir {lab.path}")
    return json.loads(file.read_text())


def aws_environment(lab: LabDir) -> dict[str, str]:
    """What any AWS client needs to reach the lab and nothing else."""
    return {
        "AWS_ENDPOINT_URL": endpoints(lab)["aws"],
        "AWS_DISABLE_HOST_PREFIX_INJECTION": "true",
        "AWS_ACCESS_KEY_ID": ACCOUNT,
        "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
        "AWS_DEFAULT_REGION": REGION,
        "AWS_REGION": REGION,
        "AWS_EC2_METADATA_DISABLED": "true",
    }


def foreign() -> list[str]:
    """Names in this process's environment that do not belong in a shell that talks to the lab."""
    return sorted(filter(FOREIGN.fullmatch, os.environ))


# --- env, status, journal ---------------------------------------------------------------------------------------------


def env(lab: LabDir) -> dict[str, str]:
    """Everything that a shell, a test or a playbook needs to know."""
    known = status(lab)
    base, source = known["base"], known["source"]
    values = {
        **aws_environment(lab),
        "MWAA_LAB_DIR": str(lab.path),
        "MWAA_LAB_CA": known["endpoints"]["ca"],
        "AWS_CA_BUNDLE": known["endpoints"]["ca"],  # what AWS clients trust: the web server of an environment, too
        "MWAA_LAB_BUCKET": base["bucket"],
        "MWAA_LAB_BUNDLE_BUCKET": base["bundle_bucket"],
        "MWAA_LAB_ROLE_ARN": base["role_arn"],
        "MWAA_LAB_SUBNET_IDS": ",".join(base["subnet_ids"]),
        "MWAA_LAB_SECURITY_GROUP_IDS": ",".join(base["security_group_ids"]),
        "MWAA_LAB_KMS_KEY_ID": base["kms_key_id"],
        "MWAA_LAB_VPC_ID": base["vpc_id"],
    }
    if left := lab.read().get("source_environment"):
        values["MWAA_LAB_SOURCE_ENVIRONMENT"] = left
    door = known["ssh"]
    values |= {f"MWAA_LAB_SSH_{name.upper()}": str(door[name]) for name in ("host", "port", "key")}
    if source:
        values |= {
            f"MWAA_LAB_SOURCE_{name.upper()}": str(source["ssh"][name]) for name in ("host", "port", "user", "key")
        }
        if lab.read()["asked"].get("source_python_host"):
            values["MWAA_LAB_HOST_PYTHON"] = str(lab.path / "hosts" / "bin" / "everywhere" / "python3")
        values["MWAA_LAB_SOURCE_INSTANCE_ID"] = base["instance_id"]
        values |= {"MWAA_LAB_SOURCE_HOME": source["airflow_home"], "MWAA_LAB_SOURCE_PYTHON": source["python"]}
    return values


def status(lab: LabDir) -> dict[str, Any]:
    """:raises LabError: the lab is not up."""
    from mwaa_lab import source as host

    server = endpoints(lab)
    with urllib.request.urlopen(f"{server['aws']}/_lab/environments", timeout=60) as reply:
        environments = json.load(reply)
    return {
        "endpoints": {"aws": server["aws"], "webserver": server["webserver"], "ca": server["ca"]},
        "as_of": lab.read()["asked"].get("as_of"),
        "base": lab.read().get("base", {}),
        "source": host.Source(lab).describe(),
        "ssh": json.loads((lab.ssh / "server.json").read_text()),
        "environments": [
            {
                "name": found["Name"],
                "status": found["Status"],
                "airflow_version": found["AirflowVersion"],
                **{key: found["engine"].get(key) for key in ("airflow_home", "python", "database_url")},
                "pids": found["engine"].get("pids", []),
            }
            for found in environments
        ],
        "journal": server["journal"],
    }


def print_status(known: dict[str, Any], lab: LabDir) -> None:
    """For people: what is where, what lives."""

    def row(label: str, *values: str) -> None:
        print(f"  {label:<12}{'  '.join(value for value in values if value)}".rstrip())

    def airflow(found: dict[str, Any]) -> None:
        row("home", found.get("airflow_home") or "")
        row("python", found.get("python") or "")
        row("database", (found.get("database_url") or "").rpartition("@")[2])
        row("processes", " ".join(map(str, found["pids"])) or "none: dead")

    print(f"mwaa-lab in {lab.path}")
    row("AWS", known["endpoints"]["aws"], f"account {ACCOUNT}", REGION)
    row("web server", f"https://{known['endpoints']['webserver']}", f"CA {known['endpoints']['ca']}")
    row("buckets", known["base"].get("bucket", ""), known["base"].get("bundle_bucket", ""))
    row("journal", known["journal"])
    door = known["ssh"]
    row("ssh", f"{door['host']}:{door['port']}", f"users {' '.join(door['users'])}", f"key {door['key']}")
    if known["as_of"]:
        row("as of", known["as_of"], "what AWS offered on that day")
    if source := known["source"]:
        print(f"\nsource  Airflow {source['airflow_version']}, {source['seed_data']} seed data")
        airflow(source)
        if door := source["ssh"]:
            options = f"-i {door['key']} -p {door['port']} -o UserKnownHostsFile={door['known_hosts']}"
            row("ssh", f"ssh {options} {door['user']}@{door['host']}")
    for found in known["environments"]:
        print(f"\nenvironment {found['name']}  {found['status']}  Airflow {found['airflow_version']}")
        if found["airflow_home"]:
            airflow(found)
    if not known["environments"]:
        print('\nno environments yet: create one with any AWS client (eval "$(mwaa-lab env)")')


def journal(lab: LabDir, as_json: bool) -> None:
    """Every AWS call so far; for people without those by which the service itself looks after its environments."""
    path = Path(endpoints(lab)["journal"])
    with contextlib.suppress(FileNotFoundError), path.open(encoding="utf-8") as lines:
        for line in lines:
            if as_json:
                print(line.rstrip("\n"))
                continue
            call = json.loads(line)
            if call["caller"] == "service":
                continue
            moment = time.strftime("%H:%M:%S", time.localtime(call["time"]))
            keys = " ".join(f"{name}={value}" for name, value in call["keys"].items())
            outcome = f"  {call['status']} {call['error']}" if call["error"] else ""
            what = f"{call['access']:<5}  {call['service']}:{call['operation']}"
            print(f"{moment}  {what}  {keys}  ({call['caller']}){outcome}")


def taken(lines: Iterable[str]) -> dict[str, dict[str, list[str]]]:
    """By principal: every IAM action that its calls took, and the resources; so much a policy has to allow.

    Of users and roles outside, and of CloudFormation in their name; without what was denied.
    """
    found: dict[str, dict[str, set[str]]] = {}
    for line in lines:
        call = json.loads(line)
        if call["caller"] in ("user", "cloudformation") and call["error"] not in DENIALS:
            for action, resources in (call.get("action") or {}).items():
                found.setdefault(call["principal"], {}).setdefault(action, set()).update(resources)
    return {who: {name: sorted(on) for name, on in sorted(all_of.items())} for who, all_of in sorted(found.items())}


def actions(lab: LabDir, as_json: bool) -> None:
    path = Path(endpoints(lab)["journal"])
    shown = taken(path.read_text(encoding="utf-8").splitlines() if path.exists() else [])
    if as_json:
        print(json.dumps(shown, indent=1))
        return
    for principal, all_of in shown.items():
        print(principal)
        for action, resources in all_of.items():
            print(f"  {action}", *resources, sep="\n    ")


# --- down -------------------------------------------------------------------------------------------------------------


def down(lab: LabDir, quiet: bool = False, keep: bool = False) -> None:
    """End everything that the lab started, and remove its folder (unless keep)."""
    say = Progress()
    if not lab.exists():
        if not quiet:
            say(f"there is no lab in {lab.path}")
        return
    killed = processes.stop_all(lab)
    if keep:
        for entry in lab.run.glob("*.json"):
            entry.unlink()
    else:
        lab.remove()
    if not quiet:
        hung = f"; {killed} did not stop when asked and were killed" if killed else ""
        say(f"the lab in {lab.path} is down{hung}")


# --- install ----------------------------------------------------------------------------------------------------------


def install_versions(wanted: list[str]) -> None:
    """Venvs ahead of time. :raises LabError: one cannot be had; the others are installed."""
    say, problems = Progress(), []
    for name in wanted or list(versions.VERSIONS):
        try:
            place = install.base(versions.version(name), say)
            say(f"Airflow {name}: {place}")
        except LabError as problem:
            problems.append(str(problem))
    if problems:
        raise LabError("\n".join(problems))


def as_of(version: str) -> str:
    """The last day of a version that AWS has ended by today, for ``up --as-of``; empty for one that it offers."""
    last = limits.last_day(version)
    return last.isoformat() if last and last < datetime.datetime.now(datetime.timezone.utc).date() else ""


def _day(text: str) -> str:
    try:
        return datetime.date.fromisoformat(text).isoformat()
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a day: write it as 2025-12-30") from None


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="mwaa-lab", description="AWS, MWAA and a self-managed Airflow on this machine."
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, text: str) -> argparse.ArgumentParser:
        made = commands.add_parser(name, help=text, description=text)
        if name not in ("install", "as-of"):
            told = os.environ.get("MWAA_LAB_DIR") or DEFAULT_DIR
            made.add_argument("--dir", default=told, help="the lab's folder (MWAA_LAB_DIR, else %(default)s)")
        return made

    one = command("up", "start a lab, or say that it is up")
    one.add_argument(
        "--source",
        default="none",
        metavar="VERSION",
        help="Airflow to be left; mwaa:VERSION, an environment of MWAA; or none (default)",
    )
    one.add_argument("--seed-data", default="small", choices=("small", "large", "none"), help="what the source holds")
    one.add_argument("--engine", default="airflow", choices=("airflow", "stub"), help="what environments are")
    one.add_argument(
        "--source-database",
        default="postgresql",
        choices=("postgresql", "mariadb", "sqlite"),
        help="of the Airflow to be left",
    )
    one.add_argument(
        "--source-python-host", metavar="X.Y", help="what python3 is on the source's hosts (the machine's)"
    )
    one.add_argument("--as-of", type=_day, metavar="YYYY-MM-DD", help="the day whose versions AWS offers (today)")
    one.add_argument("--enforce-iam", action="store_true", help="hold callers to their IAM policies (not by default)")
    command("env", 'print exports for a shell: eval "$(mwaa-lab env)"')
    command("status", "show what is where").add_argument("--json", action="store_true")
    one = command("journal", "show every AWS call")
    one.add_argument("--json", action="store_true")
    one.add_argument("--actions", action="store_true", help="the IAM actions that the calls took, and on what")
    last = command("down", "stop everything that the lab started, and remove it")
    last.add_argument("--keep", action="store_true", help="keep the folder, to look at the logs")
    command("install", "install Airflows ahead of time").add_argument("versions", nargs="*", metavar="VERSION")
    command("as-of", "print the last day of an Airflow version that AWS has ended").add_argument("version")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    options = parse(argv)
    unwanted = foreign()
    for key in unwanted:  # boto3 would heed them here too
        del os.environ[key]
    try:
        if options.command == "install":
            install_versions(options.versions)
            return
        if options.command == "as-of":
            print(as_of(options.version))
            return
        lab = LabDir(options.dir)
        if options.command == "up":
            up(lab, {key: value for key, value in vars(options).items() if key not in ("command", "dir")})
        elif options.command == "env":
            values = env(lab)
            for key in unwanted:
                print(f"unset {key}")
            for key, value in values.items():
                print(f"export {key}={shlex.quote(value)}")
        elif options.command == "status":
            known = status(lab)
            print(json.dumps(known, indent=1)) if options.json else print_status(known, lab)
        elif options.command == "journal":
            (actions if options.actions else journal)(lab, options.json)
        else:
            down(lab, keep=options.keep)
        sys.stdout.flush()
    except BrokenPipeError:  # whoever read us has seen enough; nor may the interpreter's own last flush complain
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except LabError as problem:
        sys.exit(f"mwaa-lab: {problem}")
    except (OSError, subprocess.SubprocessError) as problem:
        sys.exit(f"mwaa-lab: {type(problem).__name__}: {problem}")


if __name__ == "__main__":
    main()
