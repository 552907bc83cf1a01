# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The folder that a lab lives in: where everything is, and nothing about how it works."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import uuid
from pathlib import Path
from typing import Any

MARKER = "MWAA_LAB_PROCESS"
"""Environment variable that every process of a lab carries; its value is the lab's id. Never exported to users."""

GUARD = Path(__file__).parent / "guard"
"""Goes on PYTHONPATH of everything that a lab starts."""


class LabError(Exception):
    """One sentence for the person at the screen: what is wrong, where, how to mend it."""


class LabDir:
    """A lab's folder. ``lab.json`` in it holds the lab's id and what ``up`` was asked for."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path).expanduser().absolute()
        self.file = self.path / "lab.json"
        self.run = self.path / "run"
        self.logs = self.path / "logs"
        self.postgres = self.path / "postgres"
        self.source = self.path / "source"
        self.environments = self.path / "environments"
        self.ssh = self.path / "ssh"

    def exists(self) -> bool:
        return self.file.is_file()

    def create(self, asked: dict[str, Any]) -> None:
        """Make the folder. :raises LabError: it is there, not empty, and no lab."""
        if not self.exists() and self.path.is_dir() and any(self.path.iterdir()):
            raise LabError(f"{self.path} is not empty and not a lab: choose another --dir.")
        for folder in (self.path, self.run, self.logs):
            folder.mkdir(parents=True, exist_ok=True)
        self.path.chmod(0o711)  # an unprivileged PostgreSQL walks through it
        write_json(self.file, {"id": uuid.uuid4().hex, "asked": asked})
        self.temp.mkdir(mode=0o777, exist_ok=True)
        self.temp.chmod(0o1777)

    def read(self) -> dict[str, Any]:
        return json.loads(self.file.read_text())

    @property
    def id(self) -> str:
        return self.read()["id"]

    @property
    def temp(self) -> Path:
        """TMPDIR of all processes; not in the folder, since paths of sockets in it must fit 108 bytes."""
        name, base = f"mwaa-lab-{self.id[:12]}", Path(tempfile.gettempdir())
        return base if base.name == name else base / name  # what the lab started has this folder as its TMPDIR

    def remove(self) -> None:
        """Delete the folder and the temporary one."""
        if self.exists():
            shutil.rmtree(self.temp, ignore_errors=True)
            shutil.rmtree(self.path, ignore_errors=True)

    def environment(self, **more: str) -> dict[str, str]:
        """A clean environment for a process of this lab: nothing of the user's own leaks into it."""
        return {
            "PATH": "/usr/local/bin:/usr/bin:/bin",
            "HOME": str(self.path),
            "LANG": "C.UTF-8",
            "TZ": "UTC",
            "TMPDIR": str(self.temp),
            "PYTHONPATH": str(GUARD),
            "PYTHONUNBUFFERED": "1",
            "AWS_EC2_METADATA_DISABLED": "true",
            MARKER: self.id,
            **more,
        }


def write_json(path: Path, value: Any, mode: int = 0o644) -> None:
    """Write whole or not at all."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.touch(mode=mode)
    draft.write_text(json.dumps(value, indent=1))
    draft.replace(path)
