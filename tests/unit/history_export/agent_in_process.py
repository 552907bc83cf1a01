# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The agent's history in this process, on a small Airflow in SQLite; KMS and S3 in memory."""

from __future__ import annotations

import json
import sys
import zlib
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).parents[1] / name) for name in ("history", "export")]
from ansible_collections.mwaa.migration.plugins.module_utils._bundle import Bundle, open_store  # noqa: E402
from ansible_collections.mwaa.migration.plugins.module_utils._errors import MigrationError  # noqa: E402
from ansible_collections.mwaa.migration.plugins.module_utils._history.export import Exporter, Options  # noqa: E402
from ansible_collections.mwaa.migration.plugins.module_utils._history.record import Record  # noqa: E402
from ansible_collections.mwaa.migration.plugins.module_utils._lock import EXPORT, held, run_of  # noqa: E402
from export_fakes import FakeAws  # noqa: E402
from small_airflow import SmallAirflow, history  # noqa: E402

BUNDLE = "s3://bucket/mig"


class Killed(BaseException):
    """kill -9, as far as one process can play it: nothing catches it."""


class World:
    """One Airflow, one account, one bundle that has its state already.

    s3_from_source: whether the source's host reaches S3. kill_after: requests until the controller is killed.
    part_bytes: of the plan, small so that a small Airflow has many parts. broken: tables whose parts fail.
    """

    def __init__(self, monkeypatch: Any, where: str = BUNDLE, version: str = "2.10.3"):
        self.airflow, self.aws, self.where = SmallAirflow(version), FakeAws(), where
        self.identity = {
            "airflow_version": version,
            "hostname": "host1",
            "airflow_home": "/srv/airflow",
            "database": "sqlite:////srv/airflow/airflow.db",
        }
        self.s3_from_source = True
        self.kill_after: int | None = None
        self.kill_before_answer = False
        self.part_bytes: int | None = 400
        self.broken: dict[str, str] = {}
        self.parts_a_round: int | None = None
        self.requests: list[dict[str, Any]] = []
        self.said: list[str] = []
        monkeypatch.setattr(history, "put_piece", self._put)
        store = open_store(where, self.aws)
        bundle = Bundle.create(store, self.aws, "alias/key", self.identity)
        bundle.save()

    # -- the source

    def connect(self, _snapshot: Any = None) -> Any:
        return self.airflow.engine()

    def ask(self, request: dict[str, Any]) -> dict[str, Any]:
        if self.kill_after is not None and len(self.requests) >= self.kill_after and not self.kill_before_answer:
            raise Killed
        request = json.loads(json.dumps(request))
        self.requests.append(request)
        if request["op"] == "plan_history" and self.part_bytes:
            request["part_bytes"] = self.part_bytes
        failed = []
        if request["op"] == "export_history":
            failed = [
                {"n": part["n"], "error": self.broken[part["table"]]}
                for part in request["parts"]
                if part["table"] in self.broken
            ]
            request["parts"] = [part for part in request["parts"] if part["table"] not in self.broken]
            request["parts"] = request["parts"][: self.parts_a_round]
            request.pop("seconds", None)
        try:
            answer = history.OPERATIONS[request["op"]](self, request)
        except history.Unfit as error:
            raise MigrationError(str(error)) from None
        answer["airflow_version"] = self.airflow.version
        if failed:
            answer["failed"] += failed
        if self.kill_after is not None and len(self.requests) >= self.kill_after:
            raise Killed  # what the agent did is done, and nobody heard of it
        return json.loads(json.dumps(answer))

    def _put(self, place: dict[str, Any], body: bytes, pauses: Any = history.PAUSES) -> dict[str, Any]:
        if not self.s3_from_source:
            raise history.Unfit(f"{history.S3_REFUSES} {place['path']} from here: ConnectionRefusedError")
        reply = self.aws.s3._store(place["url"].split("?")[0][len("https://s3.test/") :], body)
        return {"version_id": reply["VersionId"], "etag": reply["ETag"].strip('"')}

    # -- the controller

    def bundle(self) -> Bundle:
        return Bundle.open(open_store(self.where, self.aws), self.aws)

    def export(self, check: bool = False, **options: Any) -> dict[str, Any]:
        self.requests.clear()
        bundle, options = self.bundle(), {"target_version": "2.11.2", **options}
        with held(bundle.store, EXPORT, run_of(1, passing=True)) as lock:
            exporter = Exporter(
                self.ask,
                bundle,
                self.identity,
                Options(**options),
                lock=lock,
                show=self.said.append,
                check_mode=check,
            )
            return exporter.run()

    def record(self) -> Record:
        record = Record.open(self.bundle())
        assert record
        return record

    def rows(self, table: str) -> list[dict[str, str | None]]:
        """What the bundle has of a table, all exports one after the other."""
        found = []
        for export in self.record().exports:
            names = [name for name, _kind in export.columns.get(table, [])]
            for piece in export.pieces():
                if piece["table"] == table:
                    text = zlib.decompress(self.record().read(piece), 31).decode("utf-8", "surrogatepass")
                    found += [
                        dict(zip(names, map(history.unescaped, line.split("\t")))) for line in text.split("\n")[:-1]
                    ]
        return found

    def keys(self, prefix: str = "history/") -> list[str]:
        return sorted(self.bundle().store.list(prefix))
