# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Finding an Airflow on a host, and speaking to the agent there.

PRIVATE to the collection: no promise is made to other collections.

Both go over an Ansible connection as a command and its stdin; nothing is written on the host. What comes back from
the agent is sealed with a key that lives for one call, because connection plugins show stdout at -vvv.
"""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import json
import re
import shlex
import zlib
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, Callable

from ansible_collections.mwaa.migration.plugins.module_utils._errors import MigrationError

with contextlib.suppress(ImportError):  # ansible-core brings it
    from cryptography.fernet import Fernet, InvalidToken

_FOLDER = Path(__file__).parent.parent / "agent"
AGENT = tuple(_FOLDER / f"{name}.py" for name in ("airflow_agent", "airflow_history", "airflow_logs"))
PROBE = _FOLDER / "find_airflow.sh"

#: run a command with stdin, give (exit code, stdout, stderr); the action plugin makes it from the connection
Run = Callable[[str, bytes], "tuple[int, str, str]"]

# reads the agent's files and runs the first, which finds the others in SOURCES; the request follows on stdin
BOOTSTRAP = (
    "import sys;f=sys.stdin.buffer;SOURCES=[f.read(int(n)) for n in f.readline().split()];"
    "exec(compile(SOURCES[0],'airflow_agent.py','exec'))"
)


@dataclass(frozen=True)
class Source:
    """An Airflow on a host: the interpreter to run, and where its environment is taken from."""

    python: str
    home: str | None = None
    config: str | None = None
    pid: int | None = None
    unit: str | None = None

    @property
    def request(self) -> dict[str, Any]:
        return {"airflow_home": self.home, "airflow_config": self.config, "pid": self.pid, "unit": self.unit}

    def __str__(self) -> str:
        return f"airflow_home {self.home} with {self.python}"


@dataclass
class Probe:
    """What the probe printed, line by line."""

    hostname: str = "the host"
    user: str = ""
    processes: list[dict[str, str]] = field(default_factory=list)
    units: list[dict[str, str]] = field(default_factory=list)
    homes: list[str] = field(default_factory=list)
    scripts: list[tuple[str, str]] = field(default_factory=list)
    near: list[str] = field(default_factory=list)
    docker: list[str] = field(default_factory=list)
    given: tuple[str, str] | None = None

    @classmethod
    def parse(cls, text: str) -> Probe:
        """MigrationError when it is not the probe's output (a login banner alone, no sh)."""
        probe, seen = cls(), False
        for line in text.splitlines():
            word, *rest = line.rstrip("\r").split("\t")[:-1] or [""]
            if word == "mwaa-probe":
                probe.hostname, probe.user, seen = rest[0] or "the host", rest[1], True
            elif word == "process":
                names = ("pid", "owner", "place", "readable", "python", "shebang", "home", "config", "command")
                probe.processes.append(dict(zip(names, rest)))
            elif word == "unit":
                probe.units.append(dict(zip(("path", "user", "python", "home"), rest)))
            elif word == "home" and _same(rest[0]) not in map(_same, probe.homes):
                probe.homes.append(rest[0])
            elif word == "script" and rest[1] and rest[1] not in [shebang for _script, shebang in probe.scripts]:
                probe.scripts.append((rest[0], rest[1]))
            elif word == "near" and rest[0] not in probe.near:
                probe.near.append(_same(rest[0]))
            elif word == "given":
                probe.given = (rest[0], rest[1].strip())
            elif word == "docker":
                probe.docker.append(rest[0])
        if not seen:
            raise MigrationError(
                "the host does not run a POSIX shell as expected: the search for Airflow printed nothing"
            )
        return probe


def probe_command(home: str | None) -> str:
    return f"sh -s -- {shlex.quote(home or '')}"


def find(run: Run, home: str | None = None, python: str | None = None) -> Source:
    """The Airflow of a host. home, python: what the user told.

    Raises MigrationError, in one sentence: none there, several there (all named), a home that is none.
    """
    code, stdout, stderr = run(probe_command(home), PROBE.read_bytes())
    if code != 0:
        raise MigrationError(f"the host cannot be searched for Airflow: {_last_line(stderr) or f'exit code {code}'}")
    return choose(Probe.parse(stdout), home, python)


def choose(probe: Probe, home: str | None = None, python: str | None = None) -> Source:
    """Running Airflows come before systemd units, those before folders that only look like one."""
    candidates = _candidates(probe)
    if home:
        return _with_home(
            probe, [one for one in candidates if one.home and _same(one.home) == _same(home)], home, python
        )
    if python:
        matching = [one for one in candidates if one.python == python]
        if len({_same(one.home or "") for one in matching}) > 1:
            raise _several(probe, matching)
        if matching:
            return matching[0]
        if len(probe.homes) > 1:
            raise MigrationError(
                f"{probe.hostname} has several Airflow homes ({', '.join(probe.homes)}): set airflow_home"
            )
        return Source(python, probe.homes[0] if probe.homes else None)
    distinct: dict[tuple[str, str], Source] = {}
    for one in candidates:
        distinct.setdefault((_same(one.home or ""), one.python), one)
    if len(distinct) > 1:
        raise _several(probe, list(distinct.values()))
    if distinct:
        return _home_of(probe, next(iter(distinct.values())))
    if len(probe.homes) > 1:
        raise MigrationError(f"{probe.hostname} has several Airflow homes ({', '.join(probe.homes)}): set airflow_home")
    if probe.homes and len(probe.scripts) == 1:
        return Source(probe.scripts[0][1], probe.homes[0])
    if probe.homes and probe.scripts:
        found = ", ".join(shebang for _script, shebang in probe.scripts)
        raise MigrationError(f"{probe.hostname} has several Pythons with Airflow ({found}): set airflow_python")
    raise _none(probe)


def _home_of(probe: Probe, source: Source) -> Source:
    """The source with its home, where the process does not tell it."""
    if source.home:
        return source
    if len(probe.homes) == 1:
        return dataclasses.replace(source, home=probe.homes[0])
    raise MigrationError(
        f"Airflow runs on {probe.hostname} with {source.python}, but its home is not to be seen: set airflow_home"
    )


def _candidates(probe: Probe) -> list[Source]:
    units = [
        Source(unit["python"], unit["home"] or None, unit=unit["path"])
        for unit in probe.units
        if unit["python"].startswith("/")
    ]
    running = []
    for process in sorted(probe.processes, key=lambda one: (one["command"] != "scheduler", int(one["pid"]))):
        if process["place"] != "host" or process["readable"] == "no":
            continue
        python = process["python"] if process["python"].startswith("/") else process["shebang"]
        if not python:
            continue
        if process["readable"] == "yes":
            running.append(Source(python, process["home"] or None, process["config"] or None, pid=int(process["pid"])))
        else:
            running += [unit for unit in units if unit.python == python][:1] or [Source(python)]
    return running or units


def _with_home(probe: Probe, matching: list[Source], home: str, python: str | None) -> Source:
    state, listing = probe.given or ("home", "")
    others = [one for one in probe.homes if _same(one) != _same(home)]
    hint = f"; found there: {', '.join(others)}" if others else ""
    if state == "missing":
        raise MigrationError(
            f"airflow_home {home} does not exist on {probe.hostname}{hint}: name the folder that holds airflow.cfg"
        )
    if state == "folder" and not matching:
        holds = f"holds {listing}" if listing else "is empty or not readable"
        raise MigrationError(
            f"airflow_home {home} on {probe.hostname} has no airflow.cfg (it {holds}){hint}: name Airflow's own home"
        )
    if python:
        matching = [one for one in matching if one.python == python] or matching
    if matching:
        return dataclasses.replace(matching[0], python=python or matching[0].python, home=home)
    for unit in probe.units:
        if unit["home"] and _same(unit["home"]) == _same(home) and unit["python"].startswith("/"):
            return Source(python or unit["python"], home, unit=unit["path"])
    if python:
        return Source(python, home)
    inside = [one for one in probe.near if one.startswith(_same(home) + "/")]
    pythons = inside or probe.near or [shebang for _script, shebang in probe.scripts]
    if len(pythons) != 1:
        found = (
            f"several Pythons have Airflow ({', '.join(pythons)})" if pythons else "no Python with Airflow was found"
        )
        raise MigrationError(
            f"{found} for airflow_home {home} on {probe.hostname}: set airflow_python to Airflow's own interpreter"
        )
    return Source(pythons[0], home)


def _several(probe: Probe, sources: list[Source]) -> MigrationError:
    listed = "; ".join(str(one) for one in sources)
    return MigrationError(f"{probe.hostname} has several Airflows ({listed}): set airflow_home, or airflow_python too")


def _none(probe: Probe) -> MigrationError:
    hidden = sorted({one["owner"] for one in probe.processes if one["readable"] == "no"})
    if hidden:
        return MigrationError(
            f"Airflow runs on {probe.hostname} as {' and '.join(hidden)}, which {probe.user} cannot look into:"
            f" set become and become_user: {hidden[0]}"
        )
    contained = [one["pid"] for one in probe.processes if one["place"] == "container"]
    if probe.docker or contained:
        where = f"container {probe.docker[0]}" if probe.docker else f"a container (process {contained[0]})"
        return MigrationError(
            f"Airflow runs in {where} on {probe.hostname}: use that container as the host, with"
            " ansible_connection: community.docker.docker"
        )
    return MigrationError(
        f"no Airflow was found on {probe.hostname} (no process, no systemd unit, no usual home):"
        " set airflow_home and airflow_python"
    )


def _same(path: str) -> str:
    parts: list[str] = []
    for part in PurePosixPath(path).parts:
        if part == ".." and len(parts) > 1:
            parts.pop()
        else:
            parts.append(part)
    return str(PurePosixPath(*parts)) if parts else ""


class Agent:
    """The agent on one host. Each call starts it, asks and lets it go."""

    def __init__(self, run: Run, source: Source):
        self._run, self.source = run, source
        self._files = [file.read_bytes() for file in AGENT]
        self._answered = False

    def call(self, request: dict[str, Any]) -> Any:
        """The result of one operation; what the agent refuses becomes a MigrationError with its code."""
        answer = self._ask({**request, "source": self.source.request})
        if not answer["ok"]:
            raise MigrationError(answer["error"]["message"], agent_code=answer["error"]["code"])
        return answer["result"]

    def calls(self, requests: list[dict[str, Any]]) -> list[Any]:
        """Several operations in one start (importing Airflow costs seconds); the first refusal ends them."""
        answers = self.call({"op": "batch", "requests": requests})
        for answer in answers:
            if not answer["ok"]:
                raise MigrationError(answer["error"]["message"], agent_code=answer["error"]["code"])
        return [answer["result"] for answer in answers]

    def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        key = Fernet.generate_key()
        line = json.dumps({**request, "transport_key": key.decode()}).encode()
        sizes = b" ".join(b"%d" % len(file) for file in self._files)
        stdin = b"%s\n%s%s\n" % (sizes, b"".join(self._files), line)
        command = f"{shlex.quote(self.source.python)} -B -c {shlex.quote(BOOTSTRAP)}"
        code, stdout, stderr = self._run(command, stdin)
        found = re.search(r"-----BEGIN MWAA MIGRATION AGENT-----(.*?)-----END", stdout, re.DOTALL)
        if not found:
            reason = _last_line(stderr) or f"exit code {code}"
            if self._answered:
                raise MigrationError(
                    f"the agent on the source's host ended before it had answered ({reason}): was it killed, or is"
                    " memory short there? Run it again, it goes on where it was"
                )
            raise MigrationError(
                f"{self.source.python} does not run the agent ({reason}):"
                " set airflow_python to Airflow's own interpreter"
            )
        self._answered = True
        body = base64.b64decode("".join(found.group(1).split()))
        with contextlib.suppress(InvalidToken):  # an agent that cannot seal answers with an error only, in clear
            body = Fernet(key).decrypt(body)
        return json.loads(zlib.decompress(body))


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:200] if lines else ""
