# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""plugins.zip with wheels: the same bytes for the same content, and no credential where anyone could see it."""

from __future__ import annotations

import hashlib
import io
import json
import secrets
import subprocess
import zipfile
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.mwaa.migration.plugins.module_utils._errors import MigrationError
from ansible_collections.mwaa.migration.plugins.module_utils._sync import archive
from ansible_collections.mwaa.migration.plugins.module_utils._sync.archive import Packing, plugins_zip
from ansible_collections.mwaa.migration.plugins.module_utils._sync.publish import UNKNOWN_VERSION, publish
from ansible_collections.mwaa.migration.plugins.module_utils._sync.source import Source, Target
from ansible_collections.mwaa.migration.plugins.module_utils._sync.tree import folder_tree
from fake_s3 import FakeS3

TARGET = Target("bucket", "dags", "plugins.zip", "requirements.txt", "startup.sh", airflow_version="2.11.2")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "dags").mkdir()
    (tmp_path / "dags" / "a.py").write_text("a = 1\n")
    (tmp_path / "wheels").mkdir()
    (tmp_path / "wheels" / "mine-1.4-py3-none-any.whl").write_bytes(b"the wheel")
    (tmp_path / "wheels" / "README").write_text("no wheel")
    return tmp_path


def source(folder: Path, requirements: bytes = b"") -> Source:
    plugins = folder_tree(folder / "plugins") if (folder / "plugins").is_dir() else None
    return Source("here", folder_tree(folder / "dags"), plugins, requirements, syntax="regexp")


def names(content: bytes) -> list[str]:
    with zipfile.ZipFile(io.BytesIO(content)) as opened:
        assert opened.testzip() is None
        return opened.namelist()


class Pip:
    """pip as the module sees it: it puts wheels into --dest, and remembers how it was called."""

    def __init__(self, *wheels: str, complaint: str = ""):
        self.wheels, self.complaint = wheels, complaint
        self.command: list[str] = []
        self.given = ""
        self.downloads = 0

    def __call__(self, command: list[str], **more: Any) -> subprocess.CompletedProcess[bytes]:
        if "download" not in command:
            return subprocess.CompletedProcess(command, 0, b"pip 25.0", b"")
        self.command, self.given = command, more["input"].decode()
        self.downloads += 1
        if self.complaint:
            return subprocess.CompletedProcess(command, 1, b"", self.complaint.encode())
        place = next(Path(part.partition("=")[2]) for part in command if part.startswith("--dest="))
        for wheel in self.wheels:
            (place / wheel).write_bytes(wheel.encode())
        return subprocess.CompletedProcess(command, 0, b"", b"")


@pytest.fixture
def pip(monkeypatch: pytest.MonkeyPatch) -> Any:
    def install(fake: Pip) -> Pip:
        monkeypatch.setattr(archive.subprocess, "run", fake)
        return fake

    return install


def test_a_folder_of_wheels_goes_into_the_archive_beside_the_plugins(folder: Path) -> None:
    (folder / "plugins").mkdir()
    (folder / "plugins" / "p.py").write_text("p = 1\n")
    s3 = FakeS3()
    wanted = (
        b'--constraint "https://c/2.11.2.txt"\n--index-url https://i/\nmine @ file:///x/mine-1.4-py3-none-any.whl\n'
    )
    packing = Packing(str(folder / "wheels"))
    first = publish(s3, [source(folder, wanted)], TARGET, check_mode=False, packing=packing)
    assert names(s3.objects["plugins.zip"][0]) == ["mine-1.4-py3-none-any.whl", "p.py"]
    assert s3.objects["requirements.txt"][0] == (b"--find-links /usr/local/airflow/plugins\n--no-index\nmine==1.4\n")
    again = publish(s3, [source(folder, wanted)], TARGET, check_mode=False, packing=packing)
    assert not again["changed"] and again["plugins_s3_object_version"] == first["plugins_s3_object_version"]


def test_what_pip_finds_is_packed_but_for_what_the_image_brings(folder: Path, pip: Any) -> None:
    from ansible_collections.mwaa.migration.plugins.module_utils._packages import packages

    target = packages("2.11.2")
    brought = next(name for name in sorted(target.image) if "-" not in name)
    fake = pip(Pip("wanted-2.0-py3-none-any.whl", f"{brought}-{target.constrained[brought]}-py3-none-any.whl"))
    s3, canary = FakeS3(), f"CANARY-index-{secrets.token_hex(4)}"
    index = f"https://robot:{canary}@packages.example/simple"
    packing = Packing(str(folder / "wheels"), True, [index, "https://second.example/simple"])
    wanted = b"--index-url https://other.example/simple\nmine @ file:///x/mine-1.4-py3-none-any.whl\nwanted>=2\n"

    check = publish(s3, [source(folder, wanted)], TARGET, check_mode=True, packing=packing)
    assert fake.downloads == 0 and check["plugins_s3_object_version"] == UNKNOWN_VERSION
    result = publish(s3, [source(folder, wanted)], TARGET, check_mode=False, packing=packing)
    assert names(s3.objects["plugins.zip"][0]) == ["mine-1.4-py3-none-any.whl", "wanted-2.0-py3-none-any.whl"]
    assert fake.given.splitlines() == [
        f"--index-url {index}",
        "--extra-index-url https://second.example/simple",
        "mine==1.4",
        "wanted>=2",
    ]
    assert "--python-version=3.12" in fake.command and "--platform=manylinux_2_28_x86_64" in fake.command
    everything = json.dumps([result, check, fake.command]) + "".join(str(found[0]) for found in s3.objects.values())
    assert canary not in everything + repr(packing)

    assert not publish(s3, [source(folder, wanted)], TARGET, check_mode=False, packing=packing)["changed"]
    assert fake.downloads == 1  # the same requirements are the same archive
    publish(s3, [source(folder, wanted + b"more\n")], TARGET, check_mode=False, packing=packing)
    assert fake.downloads == 2


def test_what_pip_says_is_told_without_credentials(folder: Path, pip: Any) -> None:
    canary = f"CANARY-index-{secrets.token_hex(4)}"
    complaint = f"WARNING: x\nERROR: Could not find wanted at https://robot:{canary}@i/simple\nERROR: No matching one\n"
    pip(Pip(complaint=complaint))
    packing = Packing(None, True, [f"https://robot:{canary}@i/simple"])
    s3 = FakeS3()
    with pytest.raises(MigrationError, match="pip found no wheels .*No matching one; build a wheel") as caught:
        publish(s3, [source(folder, b"wanted\n")], TARGET, check_mode=False, packing=packing)
    assert canary not in caught.value.message and s3.writes() == []


def test_a_pip_that_was_killed_is_a_sentence_too(folder: Path, pip: Any) -> None:
    pip(Pip(complaint=" "))
    with pytest.raises(MigrationError, match="names: it ended without a word; build a wheel"):
        publish(FakeS3(), [source(folder, b"wanted\n")], TARGET, check_mode=False, packing=Packing(None, True))


def test_faults_of_wheels(folder: Path) -> None:
    with pytest.raises(MigrationError, match="holds no wheel"):
        Packing(str(folder / "dags")).tree()
    (folder / "plugins").mkdir()
    (folder / "plugins" / "mine-1.4-py3-none-any.whl").write_bytes(b"another")
    with pytest.raises(MigrationError, match=r"mine-1\.4-py3-none-any\.whl is in the plugins folder and in wheels"):
        plugins_zip(folder_tree(folder / "plugins"), Packing(str(folder / "wheels")))
    with pytest.raises(MigrationError, match="for which Airflow: set airflow_version"):
        plugins_zip(folder_tree(folder / "dags"), Packing(None, True), b"pandas\n", None)


def test_the_limit_of_a_gigabyte_is_told_before_anything_is_read(folder: Path) -> None:
    with (folder / "wheels" / "big-1.0-py3-none-any.whl").open("wb") as file:
        file.truncate(1024)
    tree = folder_tree(folder / "wheels")
    tree.files = {path: type(info)(1024**3, info.sha256) for path, info in tree.files.items()}
    with pytest.raises(MigrationError, match="MWAA takes a plugins.zip of less than 1 GB"):
        plugins_zip(tree)


def test_the_archive_is_the_same_whatever_order_and_date(folder: Path) -> None:
    first = b"".join(plugins_zip(folder_tree(folder / "wheels")).build().stream())
    for path in (folder / "wheels").iterdir():
        path.touch()
    assert (
        hashlib.sha256(first).digest()
        == hashlib.sha256(b"".join(plugins_zip(folder_tree(folder / "wheels")).build().stream())).digest()
    )
