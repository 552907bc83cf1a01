# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is read of a folder, and what is listed instead."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.mwaa.migration.plugins.module_utils._errors import MigrationError
from ansible_collections.mwaa.migration.plugins.module_utils._sync import tree as tree_module
from ansible_collections.mwaa.migration.plugins.module_utils._sync.tree import (
    FileInfo,
    Unstable,
    folder_tree,
    key_fault,
    make_tree,
    select,
)


def tree_of(paths: list[str]) -> Any:
    return make_tree({path: FileInfo(0, "") for path in paths}, lambda _path: iter(()))


def reasons(tree: Any) -> dict[str, str]:
    return {item["id"]: item["reason"] for item in tree.not_carried}


def test_debris_is_left_out_and_counted() -> None:
    tree = tree_of(
        [
            "a.py",
            "__pycache__/a.cpython-311.pyc",
            "b.pyc",
            "b.py",
            "lost.pyc",
            ".git/config",
            "x/.git/HEAD",
            ".gitignore",
            ".a.py.swp",
            "a.py~",
            "sub/.#a.py",
            ".idea/x.xml",
            ".ruff_cache/y",
        ]
    )
    assert sorted(tree.files) == [".gitignore", "a.py", "b.py"]
    assert tree.left_out == {"bytecode": 3, "version_control": 2, "editor": 4, "cache": 1}
    assert list(reasons(tree)) == ["lost.pyc"]


def test_the_agent_of_an_earlier_migration_is_not_carried_on() -> None:
    tree = tree_of(["mwaa_migration/mwaa_agent.py", "dag.py"])
    assert (list(tree.files), tree.left_out) == (["dag.py"], {"agent": 1})


def test_links_inside_are_followed_and_others_listed(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "secret.py").write_text("x = 1")
    dags = tmp_path / "dags"
    (dags / "lib").mkdir(parents=True)
    (dags / "lib" / "tool.py").write_text("x = 1")
    (dags / "same").symlink_to("lib")
    (dags / "one.py").symlink_to("lib/tool.py")
    (dags / "out").symlink_to(tmp_path / "elsewhere")
    (dags / "out.py").symlink_to(tmp_path / "elsewhere" / "secret.py")
    (dags / "nothing").symlink_to("no-such-file")
    (dags / "lib" / "up").symlink_to(dags)
    (dags / "self").symlink_to("self")
    tree = folder_tree(dags)
    assert sorted(tree.files) == ["lib/tool.py", "one.py", "same/tool.py"]
    assert tree.read("same/tool.py") == b"x = 1"
    assert reasons(tree) == {
        "lib/up": "a symlink to a folder above itself",
        "same/up": "a symlink to a folder above itself",
        "nothing": "a symlink to nothing",
        "self": "a symlink to nothing",
        "out": "a symlink that leaves the folder",
        "out.py": "a symlink that leaves the folder",
    }


def test_a_folder_that_is_itself_a_link_is_read(tmp_path: Path) -> None:
    (tmp_path / "release-7").mkdir()
    (tmp_path / "release-7" / "a.py").write_text("")
    (tmp_path / "current").symlink_to("release-7")
    assert list(folder_tree(tmp_path / "current").files) == ["a.py"]


def test_what_is_no_file_or_has_no_name_for_s3_is_listed(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "socket"))
        for name in ("line\nbreak.py", "uml\udce4ut.py", "plain.py"):
            (tmp_path / name).write_text("")
        tree = folder_tree(tmp_path)
    assert list(tree.files) == ["plain.py"]
    assert reasons(tree) == {
        "pipe": "neither a file nor a folder",
        "socket": "neither a file nor a folder",
        "line\nbreak.py": "the name holds control characters, which S3 cannot list",
        "uml\\udce4ut.py": "the name is not valid UTF-8, so it cannot be the key of an S3 object",
    }


def test_keys_have_at_most_1024_bytes() -> None:
    assert key_fault("dags/" + "a" * 1019) is None
    assert key_fault("dags/" + "ä" * 510) == "its key would have 1,025 bytes, and S3 takes 1,024"


def test_what_cannot_be_read_is_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a.py", "b.py"):
        (tmp_path / name).write_text(name)
    measure = tree_module._measure

    def refuse(file: str) -> FileInfo:
        if file.endswith("a.py"):
            raise PermissionError(13, "Permission denied")
        return measure(file)

    monkeypatch.setattr(tree_module, "_measure", refuse)
    tree = folder_tree(tmp_path)
    assert list(tree.files) == ["b.py"]
    assert reasons(tree) == {"a.py": "cannot be read: Permission denied"}


@pytest.mark.parametrize("after", ["a = 2", "a = 1 # longer", "a", None])
def test_a_file_that_is_another_now_is_noticed_before_its_end(tmp_path: Path, after: str | None) -> None:
    (tmp_path / "a.py").write_text("a = 1")
    tree = folder_tree(tmp_path)
    if after is None:
        (tmp_path / "a.py").unlink()
    else:
        (tmp_path / "a.py").write_text(after)
    with pytest.raises(Unstable, match=r"a\.py (changed while|vanished while)"):
        tree.read("a.py")


def test_a_missing_folder_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(MigrationError, match="does not exist; correct source"):
        folder_tree(tmp_path / "nothing")


@pytest.mark.parametrize(
    ("include", "exclude", "chosen"),
    [
        ([], [], ["a.py", "b.sql", "team/.airflowignore", "team/a.py", "team/x/c.py"]),
        (["team/"], [], ["team/.airflowignore", "team/a.py", "team/x/c.py"]),
        (["/*.py"], [], ["a.py", "team/.airflowignore"]),
        (["*.py"], ["team/x"], ["a.py", "team/.airflowignore", "team/a.py"]),
        ([], ["a.py", ".airflowignore"], ["b.sql", "team/x/c.py"]),
    ],
)
def test_globs_choose_as_gitignores_do(include: list[str], exclude: list[str], chosen: list[str]) -> None:
    tree = tree_of(["a.py", "b.sql", "team/.airflowignore", "team/a.py", "team/x/c.py"])
    assert sorted(select(tree, include, exclude, ".airflowignore").files) == chosen
