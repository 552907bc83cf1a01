# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whatever a folder holds: the bucket holds it afterwards, but for what is listed; and nobody else's is touched."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.mwaa.migration.plugins.module_utils._dags import AGENT_FOLDER
from ansible_collections.mwaa.migration.plugins.module_utils._sync import bucket as bucket_module
from ansible_collections.mwaa.migration.plugins.module_utils._sync.publish import publish
from ansible_collections.mwaa.migration.plugins.module_utils._sync.source import Source, Target
from ansible_collections.mwaa.migration.plugins.module_utils._sync.tree import debris, folder_tree
from fake_s3 import FakeS3
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

TARGET = Target("bucket", "dags", "plugins.zip", "requirements.txt", "startup.sh", airflow_version="2.11.2")
SLOW = [HealthCheck.too_slow, HealthCheck.function_scoped_fixture]

NAMES = st.one_of(
    st.sampled_from(
        [
            "a.py",
            "b.py",
            "a",
            "b",
            "lib",
            ".airflowignore",
            "__pycache__",
            "x.pyc",
            ".git",
            "x~",
            ".x.swp",
            "mwaa_migration",
        ]
    ),
    st.text(st.characters(blacklist_categories=("Cs",), blacklist_characters="/\0"), min_size=1, max_size=8).filter(
        lambda name: name not in (".", "..") and len(os.fsencode(name)) < 200
    ),
    st.binary(min_size=1, max_size=4)
    .filter(lambda raw: b"/" not in raw and b"\0" not in raw and raw not in (b".", b".."))
    .map(os.fsdecode),
    st.just("n" * 250),
)
CONTENTS = st.one_of(
    st.just(b""),
    st.binary(max_size=40),
    st.sampled_from(
        [
            b"from airflow import DAG\nDAG('a', is_paused_upon_creation=False)\n",
            b"from airflow import DAG\nDAG('a')\n",
            b"lib\n",
            b"[\n",
        ]
    ),
    st.binary(min_size=100, max_size=300),  # more than a part, see below
)
LINKS = st.sampled_from([".", "..", "a", "lib", "a.py", "../a", "nothing", "/etc"])
TREES = st.dictionaries(st.lists(NAMES, min_size=1, max_size=6).map(tuple), st.one_of(CONTENTS, LINKS), max_size=12)


def write(root: Path, tree: dict[tuple[str, ...], Any]) -> None:
    """What of it a file system takes: bytes are files, texts are links."""
    root.mkdir(exist_ok=True)
    for parts, what in tree.items():
        place = root.joinpath(*parts)
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(what, bytes):
                place.write_bytes(what)
            else:
                place.symlink_to(what)
        except OSError:
            continue


def expected(root: Path, listed: list[str]) -> dict[str, bytes]:
    """The folder as Airflow sees it, without debris and what is listed. Written without the code that it judges."""
    found: dict[str, bytes] = {}

    def shown(path: str) -> str:
        return path.encode("utf-8", "backslashreplace").decode()

    def walk(folder: str, prefix: str) -> None:
        for entry in sorted(os.scandir(folder), key=lambda one: one.name):
            path = prefix + entry.name
            if shown(path) in listed or debris(path, is_folder=entry.is_dir()):
                continue
            if entry.is_dir():
                walk(entry.path, path + "/")
            else:
                found[path] = Path(entry.path).read_bytes()

    walk(str(root), "")
    return found


def run(s3: FakeS3, *roots: Path, into: dict[Path, str] | None = None, **options: Any) -> dict[str, Any]:
    s3.calls.clear()
    sources = [Source(str(root), folder_tree(root), syntax="regexp", into=(into or {}).get(root, "")) for root in roots]
    return publish(s3, sources, TARGET, **{"check_mode": False, "hold_back": False, **options})


def dags(s3: FakeS3, folder: str = "dags/") -> dict[str, bytes]:
    return {key[len(folder) :]: found[0] for key, found in s3.objects.items() if key.startswith(folder)}


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Parts of 64 bytes, and room for four of them: contents of 300 bytes are large."""
    monkeypatch.setattr(bucket_module, "PART", 64)
    monkeypatch.setattr(bucket_module, "IN_FLIGHT", 256)


@settings(max_examples=60, deadline=None, suppress_health_check=SLOW)
@given(before=TREES, after=TREES, kms=st.booleans(), lost=st.booleans())
def test_the_bucket_is_the_folder_but_for_what_is_listed(
    small_parts: None, before: dict[Any, Any], after: dict[Any, Any], kms: bool, lost: bool
) -> None:
    with tempfile.TemporaryDirectory() as place:
        root, s3 = Path(place) / "dags", FakeS3(kms=kms)
        theirs = {"dags/theirs.py": b"not ours", f"dags/{AGENT_FOLDER}/agent.py": b"the agent's"}
        for key, content in theirs.items():
            s3.objects[key] = (content, "e" * 32, "v", None)
        write(root, before)
        run(s3, root)
        _clear(root)
        write(root, after)
        if lost:  # nothing is written twice then, and nothing deleted
            s3.objects.pop("mwaa-migration/published/dags.json", None)
            s3.objects = {key: found for key, found in s3.objects.items() if key in theirs}
        can_delete = bool(folder_tree(root).files)
        plan = run(s3, root, check_mode=True, delete=can_delete)
        result = run(s3, root, delete=can_delete)
        assert [(item["key"], item["action"]) for item in plan["results"]] == [
            (item["key"], item["action"]) for item in result["results"]
        ]
        listed = [item["id"] for item in result["not_carried"]]
        wanted = expected(root, listed)
        there = dags(s3)
        assert {path: there.get(path) for path in wanted} == wanted
        if can_delete:
            mine = {path: content for path, content in there.items() if f"dags/{path}" not in theirs}
            kept = {path for path in mine if path not in wanted}
            # what is listed now stays as it was: it is still at the source
            assert all(any(path == one or path.startswith(f"{one}/") for one in listed) for path in kept)
        assert {key: s3.objects[key][0] for key in theirs if key != "dags/theirs.py" or "theirs.py" not in wanted} == {
            key: content for key, content in theirs.items() if key != "dags/theirs.py" or "theirs.py" not in wanted
        }
        assert s3.uploads == {}
        assert not run(s3, root, delete=can_delete)["changed"] and s3.writes() == []


def _clear(root: Path) -> None:
    for current, folders, names in os.walk(root, topdown=False):
        for name in names:
            Path(current, name).unlink()
        for name in folders:
            one = Path(current, name)
            one.unlink() if one.is_symlink() else one.rmdir()


@settings(max_examples=25, deadline=None, suppress_health_check=SLOW)
@given(one=TREES, other=TREES, later=TREES, together=st.booleans())
def test_what_one_source_deletes_is_never_anothers(
    small_parts: None, one: dict[Any, Any], other: dict[Any, Any], later: dict[Any, Any], together: bool
) -> None:
    with tempfile.TemporaryDirectory() as place:
        first, second, s3 = Path(place) / "one", Path(place) / "other", FakeS3()
        folders = {first: "first", second: "second"}
        write(first, {**one, ("keep.py",): b"x = 1"})
        write(second, {**other, ("keep.py",): b"x = 2"})
        if together:
            run(s3, first, second, into=folders)
        else:
            run(s3, first, into=folders)
            run(s3, second, into=folders)
        theirs = dags(s3, "dags/second/")
        assert theirs["keep.py"] == b"x = 2"
        _clear(first)
        write(first, {**later, ("keep.py",): b"x = 3"})
        result = run(s3, first, into=folders, delete=True)
        assert dags(s3, "dags/second/") == theirs
        assert not [item for item in result["results"] if item["changed"] and "second/" in item["key"]]
        assert dags(s3, "dags/first/")["keep.py"] == b"x = 3"
