# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What copying remembers: the archive's index is whole whatever was killed, and what is there is not brought again."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ansible_collections.mwaa.migration.plugins.module_utils._bundle import LocalStore
from ansible_collections.mwaa.migration.plugins.module_utils._errors import MigrationError
from ansible_collections.mwaa.migration.plugins.module_utils._logs import copy
from ansible_collections.mwaa.migration.plugins.module_utils._logs.copy import Copy
from ansible_collections.mwaa.migration.plugins.module_utils._logs.layout import Attempt, index_path, stream_of
from ansible_collections.mwaa.migration.plugins.module_utils._logs.lines import Event
from ansible_collections.mwaa.migration.plugins.module_utils._logs.sources import Gone, Log
from test_logs_cloudwatch import DAY, NOW, FakeLogs, Time, group_of


class Ledgers:
    """Documents of a bundle, in memory."""

    def __init__(self) -> None:
        self.documents: dict[str, str] = {}

    def read_document(self, path: str, _remedy: str = "") -> Any:
        return json.loads(self.documents[path]) if path in self.documents else None

    def write_document(self, path: str, body: dict[str, Any]) -> None:
        self.documents[path] = json.dumps(body)


class Lock:
    taken = 0

    def take(self) -> None:
        self.taken += 1

    def check(self) -> None:
        pass


class World:
    """A log group, an archive and a ledger; each run is another Copy."""

    def __init__(self, folder: Path):
        self.folder, self.bundle, self.logs, self.lock = folder, Ledgers(), FakeLogs(), Lock()

    def run(self, *logs: Log, archive: str = "archive", breaks: str = "") -> Copy:
        params = {"days": None, "source_s3": None, "archive": None, "environment": "prod", "bundle": str(self.folder)}
        made = Copy(params, None, check_mode=False, clock=Time())
        made.group = group_of(self.logs)
        made.archive, made.archive_url = LocalStore(self.folder / archive), archive
        if breaks:

            def write_stream(path: str, chunks: Any, former: Any = made.archive.write_stream) -> Any:
                if path.startswith(breaks):
                    raise KeyboardInterrupt
                return former(path, chunks)

            made.archive.write_stream = write_stream  # type: ignore[method-assign]
        made._dag(self.bundle, "etl", list(logs), self.lock)  # type: ignore[arg-type]
        return made

    def index(self, archive: str = "archive") -> list[dict[str, Any]]:
        file = self.folder / archive / index_path("etl")
        return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def log(task: str, *ages: int, tag: str = "t", stream: str | None = None) -> Log:
    """A log with a line of each age in days."""
    attempt = Attempt("etl", "r", task)
    events = [Event(NOW - age * DAY - 1, f"{age}") for age in ages]
    packed = gzip.compress("\n".join(event.message for event in events).encode())
    return Log(attempt, stream or stream_of(attempt, "2.11.2"), tag, lambda: events, lambda: [packed])


def test_a_run_that_was_killed_before_the_index_is_made_good_by_the_next(world: World) -> None:
    with pytest.raises(KeyboardInterrupt):
        world.run(log("old", 90), log("new", 1), breaks="index/")
    assert world.index() == []
    again = world.run(log("old", 90), log("new", 1))
    assert again.counts["unchanged"] == 2 and [line["task_id"] for line in world.index()] == ["old"]
    taken = world.lock.taken
    world.run(log("old", 90), log("new", 1))
    assert world.lock.taken == taken  # and the third one writes nothing


def test_another_archive_gets_all_of_it(world: World) -> None:
    world.run(log("old", 90), log("new", 1))
    moved = world.run(log("old", 90), log("older", 99), log("new", 1), archive="elsewhere")
    assert moved.counts["archived"] == 2 and moved.counts["unchanged"] == 1
    lines = world.index("elsewhere")
    assert [line["task_id"] for line in lines] == ["old", "older"]
    assert all((world.folder / "elsewhere" / line["key"]).is_file() for line in lines)


def test_what_another_run_wrote_is_no_change(world: World) -> None:
    assert world.run(log("a", 1)).counts["copied"] == 1
    seen = world.run(log("a", 1, tag="the same, of another source"))
    assert (seen.counts["copied"], seen.counts["unchanged"], seen.counts["events"]) == (0, 1, 0)


def test_a_log_goes_where_the_target_looks_now(world: World) -> None:
    """As 2.11.2 is not Airflow 3 (layout.keeps_templates)."""
    world.run(log("a", 1))
    assert world.run(log("a", 1, stream="by/its/own/template")).counts["copied"] == 1
    assert set(world.logs.streams) == {log("a").stream, "by/its/own/template"}


def test_a_log_whose_stream_cannot_have_its_name_is_in_the_archive_and_listed(world: World) -> None:
    odd = log("new", 1, stream="dag_id=etl/run_id=a*b/task_id=new/attempt=1.log")
    done = world.run(odd, log("a", 1))
    assert (done.counts["copied"], done.counts["archived"]) == (1, 1) and len(world.logs.streams) == 1
    assert [line["task_id"] for line in world.index()] == ["new"]
    again = world.run(odd, log("a", 1))
    assert again.counts["unchanged"] == 2
    for one in (done, again):
        assert [entry["reason"].rpartition(": ")[2] for entry in one.found.not_carried] == [
            "it is in the archive alone"
        ]


def test_the_index_names_the_object_of_a_log_whose_ids_are_too_long_for_a_key(world: World) -> None:
    world.run(log("日" * 330, 90))
    [line] = world.index()
    assert line["task_id"] == "日" * 330 and line["key"].startswith("long/")
    assert gzip.decompress((world.folder / "archive" / line["key"]).read_bytes())


def test_one_that_is_gone_is_listed_and_the_others_come(world: World) -> None:
    def gone() -> Any:
        raise Gone("s3://logs/x, where the source had put it, is gone")

    lost = Log(Attempt("etl", "r", "lost"), "s", "t", gone, lambda: [])
    done = world.run(lost, *(log(f"t{number}", 1) for number in range(50)))
    assert done.counts["copied"] == 50
    assert [(one["id"], one["reason"][:6]) for one in done.found.not_carried] == [("etl r lost attempt 1", "s3://l")]


def test_before_the_environment_is_there_a_look_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(copy, "describe", lambda *_given: None)
    params = {"days": None, "source_s3": None, "archive": None, "environment": "prod", "bundle": str(tmp_path)}
    aws: Any = SimpleNamespace(client=lambda _name: None)
    result = Copy(params, aws, check_mode=True).run()
    assert result["skipped"] and "the environment prod does not exist yet" in result["msg"]
    with pytest.raises(MigrationError, match="does not exist: create it first"):
        Copy(params, aws, check_mode=False).run()
