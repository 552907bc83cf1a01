# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How an Airflow version (versions.py) gets onto this machine.

A version is installed once per machine into a shared base (``MWAA_LAB_CACHE``); an environment gets a small overlay
venv that sees the base's packages behind its own: a requirements.txt lands in the overlay as MWAA's lands in ~/.local.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from mwaa_lab.airflow.versions import HERE, VERSIONS, Version
from mwaa_lab.labdir import LabError

REPO = Path(__file__).parents[4]

AIRFLOW_SCRIPT = """\
#!{python}
import sys

from airflow.__main__ import main

sys.exit(main())
"""

# Airflow 2.0's webserver looks for it on PATH.
GUNICORN_SCRIPT = """\
#!{python}
import sys

from gunicorn.app.wsgiapp import run

sys.exit(run())
"""

AIRFLOW_1_SCRIPT = """\
#!{python}
from airflow.bin.cli import CLIFactory

arguments = CLIFactory.get_parser().parse_args()
arguments.func(arguments)
"""


def published_constraints(airflow: str, python: str) -> Path | None:
    """Our copy of the Airflow project's constraints-AIRFLOW/constraints-PYTHON.txt; None: there is none."""
    path = HERE / "constraints" / f"{airflow}.txt"
    if not path.is_file():
        return None
    if airflow in VERSIONS:
        return path if python == VERSIONS[airflow].python else None
    return path if f"/constraints-{airflow}/constraints-{python}.txt" in path.read_text() else None


def cache() -> Path:
    """Where what is worth keeping between labs lies."""
    told = os.environ.get("MWAA_LAB_CACHE")
    if told:
        return Path(told).expanduser().absolute()
    if (REPO / "galaxy.yml").is_file():
        return REPO / ".cache" / "lab"
    return Path.home() / ".cache" / "mwaa-lab"


@contextlib.contextmanager
def locked(name: str) -> Iterator[None]:
    """One process on this machine at a time."""
    folder = cache()
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / f"{name}.lock").open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def installer_environment() -> dict[str, str]:
    """For uv and pip, the only programs of the lab that may leave the machine: the user's own settings for indexes and
    certificates, without the guard and without AWS.
    """
    return {
        key: value
        for key, value in os.environ.items()
        if key not in ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV") and not key.startswith("AWS_")
    }


def find_uv() -> Path:
    """:raises LabError: there is none."""
    places = [Path(sys.prefix) / "bin" / "uv", REPO / ".cache" / "uv" / "bin" / "uv"]
    if on_path := shutil.which("uv"):
        places.insert(1, Path(on_path))
    for place in places:
        if place.is_file():
            return place
    raise LabError("The lab installs Airflows with uv and found none: pip install uv.")


def _uv(*arguments: str | Path) -> str:
    run = subprocess.run(
        [find_uv(), *arguments], env=installer_environment(), stdin=subprocess.DEVNULL, capture_output=True, text=True
    )
    if run.returncode:
        raise LabError(f"uv {arguments[0]} {arguments[1]} failed:\n{run.stderr.strip()[-2000:]}")
    return run.stdout


def uv_pip(python: Path, *arguments: str | Path) -> None:
    """Install into a venv. :raises LabError: with uv's words."""
    _uv("pip", "install", "--quiet", "--compile-bytecode", "--python", python, *arguments)


def _is(candidate: Path, wanted: str) -> Path | None:
    """The real executable behind a candidate (a shim, a link) if it is that version and works."""
    with contextlib.suppress(OSError, subprocess.TimeoutExpired):
        # ssl and sqlite3: an interpreter that was built without them installs nothing and runs no Airflow.
        probe = (
            "import sys, ssl, sqlite3; "
            "print('%d.%d' % sys.version_info[:2], getattr(sys, '_base_executable', 0) or sys.executable)"
        )
        run = subprocess.run([candidate, "-Ic", probe], capture_output=True, text=True, timeout=20)
        if run.returncode == 0:
            found, _blank, executable = run.stdout.strip().partition(" ")
            if found == wanted:
                return Path(executable)
    return None


def _pyenv_homes() -> list[Path]:
    """Where pyenv may keep its versions: as told, by default, and where PATH or this very interpreter come from."""
    homes = [Path(os.environ["PYENV_ROOT"])] if os.environ.get("PYENV_ROOT") else []
    homes.append(Path.home() / ".pyenv")
    for folder in (*os.environ.get("PATH", "").split(os.pathsep), sys.base_prefix):
        path = Path(folder)
        homes += [parent.parent for parent in (path, *path.parents) if parent.name in ("shims", "versions")]
    return list(dict.fromkeys(homes))


def find_python(wanted: str, needed_by: str) -> Path:
    """An interpreter of version X.Y: on PATH, pyenv's, uv's own, else fetched by uv.

    :raises LabError: cannot be had; names the version and what needed it.
    """

    def candidates() -> Iterator[Path]:
        for folder in os.environ.get("PATH", "").split(os.pathsep):
            if folder and (Path(folder) / f"python{wanted}").exists():
                yield Path(folder) / f"python{wanted}"
        for home in _pyenv_homes():
            yield from sorted(home.glob(f"versions/{wanted}.*/bin/python{wanted}"), reverse=True)
        with contextlib.suppress(LabError):
            yield Path(_uv("python", "find", "--no-python-downloads", wanted).strip())
        _uv("python", "install", wanted)
        yield Path(_uv("python", "find", wanted).strip())

    try:
        for candidate in candidates():
            if found := _is(candidate, wanted):
                return found
    except LabError as problem:
        raise LabError(
            f"Python {wanted} is needed by {needed_by}, is not on PATH or among pyenv's, and could not be fetched: "
            f"install it. {' '.join(str(problem).split())}"
        ) from problem
    raise LabError(f"Python {wanted} is needed by {needed_by} and was not found: install it.")


def site_packages(venv: Path, row: Version) -> Path:
    return venv / "lib" / f"python{row.python}" / "site-packages"


def base(row: Version, say: Callable[[str], None] = lambda _line: None) -> Path:
    """The shared venv of a version; installed when it is not there.

    Made beside its place and renamed, so that what is there is whole; its name carries the lock's digest, so a changed
    lock is a new base.
    """
    digest = hashlib.sha256(row.lock.read_bytes()).hexdigest()[:10]
    place = cache() / "airflow" / f"{row.airflow}-py{row.python}-{digest}"
    stamp = place / "mwaa-lab.json"
    if stamp.is_file() and (place / "bin" / "python").exists():
        return place
    with locked(f"airflow-{row.airflow}"):
        if stamp.is_file() and (place / "bin" / "python").exists():
            return place
        began = time.monotonic()
        python = find_python(row.python, f"Airflow {row.airflow}")
        say(f"installing Airflow {row.airflow} for {python}")
        draft = place.with_name(f".{place.name}.{os.getpid()}")
        for old in place.parent.glob(f".{row.airflow}-*"):
            shutil.rmtree(old, ignore_errors=True)
        shutil.rmtree(place, ignore_errors=True)
        draft.parent.mkdir(parents=True, exist_ok=True)
        _uv("venv", "--quiet", "--relocatable", "--no-project", "--python", python, draft)
        # What has no wheel is built: with the tools of its day, where today's no longer can.
        built = ["--exclude-newer", row.built_by] if row.built_by else []
        uv_pip(draft / "bin" / "python", "--no-deps", *built, "-r", row.lock)
        seconds = round(time.monotonic() - began, 1)
        (draft / stamp.name).write_text(json.dumps({"airflow": row.airflow, "python": str(python), "seconds": seconds}))
        draft.rename(place)
        say(f"installed Airflow {row.airflow} in {seconds} s")
    return place


def overlay(row: Version, place: Path) -> Path:
    """A venv of its own in front of the version's base. :return: its interpreter."""
    shared = base(row)
    python = json.loads((shared / "mwaa-lab.json").read_text())["python"]
    _uv("venv", "--quiet", "--no-project", "--python", python, place)
    site = site_packages(place, row)
    # addsitedir, not a bare path: the base has .pth files of its own.
    (site / "_mwaa_lab_base.pth").write_text(f"import site; site.addsitedir({str(site_packages(shared, row))!r})\n")
    interpreter = place / "bin" / "python"
    scripts = {"airflow": AIRFLOW_SCRIPT if row.since(2) else AIRFLOW_1_SCRIPT, "gunicorn": GUNICORN_SCRIPT}
    for name, text in scripts.items():
        script = place / "bin" / name
        script.write_text(text.format(python=interpreter))
        script.chmod(0o755)
    return interpreter
