# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Task logs as a real Airflow's own database, models and templates say where they are: old and new layouts."""

from __future__ import annotations

import base64
import zlib
from pathlib import Path
from typing import Any

import pytest
from import_lane import Databases
from small_airflow import SCHEMAS, SmallAirflow, moment
from test_history_agent import Store, agent_of, store  # noqa: F401 - a fixture
from test_history_export import Source, same_rows

NEW = (
    "dag_id={{ ti.dag_id }}/run_id={{ ti.run_id }}/task_id={{ ti.task_id }}/"
    "{% if ti.map_index >= 0 %}map_index={{ ti.map_index }}/{% endif %}attempt={{ try_number }}.log"
)
OLD = "{{ ti.dag_id }}/{{ ti.task_id }}/{{ ts }}/{{ try_number }}.log"
CUSTOM = "{{ dag_run.run_type }}/{{ ti.dag_id }}-{{ ds_nodash }}-{{ ti.task_id }}.{{ try_number }}"


class Host:
    """An Airflow of a version with two DAGs, and its log folder."""

    def __init__(self, databases: Databases, version: str, tmp_path: Path, template: str | None = None):
        self.home = tmp_path / "home"
        self.airflow = SmallAirflow(version)
        self.templates = "log_template" in SCHEMAS[version]
        self.source = Source(databases, version, own=True)
        self.agent = agent_of(self.source, self.home)
        # the former test's configuration has no log settings
        text = (self.home / "airflow.cfg").read_text()
        place = f"base_log_folder = {self.home / 'logs'}\n"
        if template:
            place += f"log_filename_template = {template.replace('%', '%%')}\n"
        sections = "[core]\n" + place if version.startswith("1.") else "[logging]\n" + place
        text = text.replace("[core]\n", sections) if version.startswith("1.") else text + sections
        (self.home / "airflow.cfg").write_text(text)

    def ready(self) -> None:
        for table in ("variable", "connection", "slot_pool"):  # by which the agent knows Airflow's database
            self.source.database.sql(f'CREATE TABLE IF NOT EXISTS "{table}" (id integer)')
        self.source.export(self.home / "rows", same_rows(self.airflow), texts=False)

    def log(self, path: str, text: str) -> None:
        file = self.home / "logs" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    def listed(self, **request: Any) -> dict[str, Any]:
        return self.agent.call({"op": "list_logs", "state": "all", **request})


def keys(answer: dict[str, Any]) -> list[tuple[Any, ...]]:
    names = ("dag_id", "run_id", "task_id", "map_index", "attempt", "suffix")
    return [tuple(one[name] for name in names) for one in answer["logs"]]


@pytest.mark.e2e
@pytest.mark.parametrize("version", ["1.10.12", "1.10.15", "2.0.2", "2.2.2"])
def test_old_layouts_are_found_by_their_runs(databases: Databases, tmp_path: Path, version: str) -> None:
    host = Host(databases, version, tmp_path, OLD)
    for day in (1, 2):
        host.airflow.run("etl", day)
        host.airflow.task("etl", "load", day, "failed" if day == 1 else "success", try_number=2, end_date=moment(day))
    host.airflow.run("etl", 3, "running")
    host.airflow.task("etl", "load", 3, "running")
    orphan = "run_id" not in SCHEMAS[version]["task_instance"]
    if orphan:
        host.airflow.task("lone", "by_hand", 5, end_date=moment(5))
    host.ready()
    for day in (1, 2, 3):
        for number in (1, 2):
            host.log(f"etl/load/2024-01-0{day}T00:00:00+00:00/{number}.log", f"day {day}, {number}\n")
    host.log("lone/by_hand/2024-01-05T00:00:00+00:00/1.log", "by hand\n")
    answer = host.listed()
    runs = [f"scheduled__2024-01-0{day}T00:00:00.000000" for day in (1, 2)]
    expected = [("etl", run, "load", -1, number, "") for run in runs for number in (1, 2)]
    if orphan:
        expected.append(("lone", "manual__2024-01-05T00:00:00.000000+00:00", "by_hand", -1, 1, ""))
    assert keys(answer) == expected and answer["next"] is None and answer["open"] == 1
    assert not any(one["own"] for one in answer["logs"]) and answer["base"] == str(host.home / "logs")
    assert {one["date"] for one in answer["logs"][:2]} == {"2024-01-01T00:00:00+00:00"}
    failed = host.listed(state="failed")
    assert keys(failed) == expected[:2] and {one["state"] for one in failed["logs"]} == {"failed"}
    assert keys(host.listed(since="2024-01-02T00:00:00Z", dags=["e*"])) == expected[2:4]
    assert keys(host.listed(exclude=["etl"])) == expected[4:]


@pytest.mark.e2e
@pytest.mark.parametrize("version", ["2.5.1", "2.10.3"])
def test_each_run_is_looked_for_by_its_own_template(databases: Databases, tmp_path: Path, version: str) -> None:
    host = Host(databases, version, tmp_path)
    for number, text in enumerate((OLD, NEW, CUSTOM), 1):
        host.airflow.insert("log_template", id=number, filename=text, elasticsearch_id="", created_at=moment(1))
    for day, template in ((1, None), (2, 2), (3, 3)):
        host.airflow.run("etl", day, log_template_id=template)
        host.airflow.task("etl", "load", day, try_number=1, start_date=moment(day), end_date=moment(day))
    host.airflow.task("etl", "mapped", 2, map_index=7, try_number=3, end_date=moment(2))
    if "task_instance_history" in SCHEMAS[version]:
        host.airflow.of_task(
            "task_instance_history", "etl", "mapped", 2, map_index=7, try_number=1, start_date=moment(9),
            end_date=moment(9), pool="p", pool_slots=1,
        )  # fmt: skip
    host.ready()
    run = "scheduled__2024-01-0{}T00:00:00.000000"
    mapped = f"dag_id=etl/run_id={run.format(2)}/task_id=mapped/map_index=7"
    host.log("etl/load/2024-01-01T00:00:00+00:00/1.log", "old\n")
    host.log(f"dag_id=etl/run_id={run.format(2)}/task_id=load/attempt=1.log", "new\n")
    host.log(f"{mapped}/attempt=1.log", "first\n")
    host.log(f"{mapped}/attempt=1.log.trigger.12.log", "triggerer\n")
    host.log(f"{mapped}/attempt=4.log", "one more than the database counts\n")
    host.log("scheduled/etl-20240103-load.1", "custom\n")
    (host.home / "logs" / mapped / "attempt=2.log").symlink_to("/etc/hostname")
    answer = host.listed()
    assert keys(answer) == [
        ("etl", run.format(1), "load", -1, 1, ""),
        ("etl", run.format(2), "load", -1, 1, ""),
        ("etl", run.format(2), "mapped", 7, 1, ""),
        ("etl", run.format(2), "mapped", 7, 1, ".trigger.12.log"),
        ("etl", run.format(2), "mapped", 7, 4, ""),
        ("etl", run.format(3), "load", -1, 1, ""),
    ]
    assert [one["own"] for one in answer["logs"]] == [False, True, True, True, True, True]
    if "task_instance_history" in SCHEMAS[version]:
        assert answer["logs"][2]["start"] == "2024-01-09T00:00:00+00:00"
    first = host.listed(limit=1)
    assert len(first["logs"]) == 6 and first["next"] == {"dag": "etl", "run": 3, "orphan": None}
    assert host.listed(after=first["next"])["logs"] == []
    remote = host.listed(remote=True, dags=["etl"])  # attempts that may lie elsewhere
    assert [one["attempt"] for one in remote["logs"] if one["size"] is None] == [2, 3]


@pytest.mark.e2e
def test_logs_are_sent_by_url_or_in_the_answer(databases: Databases, store: str, tmp_path: Path) -> None:  # noqa: F811
    host = Host(databases, "2.10.3", tmp_path)
    host.airflow.insert("log_template", id=1, filename=NEW, elasticsearch_id="", created_at=moment(1))
    host.ready()
    texts = {"a.log": "a\n" * 10, "empty.log": "", "large.log": "0123456789abcde\n" * (20 << 16)}
    for name, text in texts.items():
        host.log(name, text)
    logs = [{"n": number, "path": name, "size": len(text)} for number, (name, text) in enumerate(texts.items())]
    logs.append({"n": 3, "path": "../airflow.cfg", "size": 1})
    puts = [{"path": f"logs/{number}", "url": f"{store}/{number}"} for number in range(10)]
    with pytest.raises(Exception, match="outside of the log folder"):
        host.agent.call({"op": "export_logs", "logs": logs, "puts": puts})
    logs[3]["path"] = "gone.log"
    answer = host.agent.call({"op": "export_logs", "logs": logs, "puts": puts})
    assert answer["lost"] == [{"n": 3, "why": "No such file or directory"}] and answer["left"] == []
    bodies = [Store.objects[f"/{one['path'][5:]}"] for one in answer["objects"]]
    assert unpacked(answer, bodies) == list(texts.values())
    answer = host.agent.call({"op": "export_logs", "logs": logs[:3]})
    bodies = [base64.b64decode(one["data"]) for one in answer["objects"]]
    assert answer["logs"][2]["more"] == 16 << 20
    assert unpacked(answer, bodies) == [texts["a.log"], "", texts["large.log"][: 16 << 20]]


def unpacked(answer: dict[str, Any], bodies: list[bytes]) -> list[str]:
    texts = []
    for one in answer["logs"]:
        members = [bodies[number][at : at + size] for number, at, size, _raw in one["pieces"]]
        assert one["size"] == sum(piece[3] for piece in one["pieces"])
        texts.append(b"".join(zlib.decompress(member, 31) for member in members).decode())
    return texts
