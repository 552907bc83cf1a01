# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Run by an Airflow's own Python, whatever its age: rows into a PostgreSQL, and the agent's export out of it.

One JSON request on stdin: history (path), connection (psycopg2's), rows, options (of make_plan), key, folder,
processes, parts (their numbers; all), places (how many pieces may be left), kill_at (a piece that ends its process).
"""

import hashlib
import json
import os
import resource
import signal
import sys
import zlib
from pathlib import Path


def load(path):
    sys.path.insert(0, str(Path(path).parent))
    import airflow_history

    return airflow_history


def insert(connection, schema, rows):
    import psycopg2

    cursor = connection.cursor()
    for table, values in rows:
        for column, value in values.items():
            if schema[table][column] == "boolean" and value is not None:
                values[column] = bool(value)
            elif isinstance(value, dict):  # bytes
                values[column] = psycopg2.Binary(bytes.fromhex(value["hex"]))
        names = ", ".join(f'"{name}"' for name in values)
        marks = ", ".join(["%s"] * len(values))
        cursor.execute(f'INSERT INTO "{table}" ({names}) VALUES ({marks})', list(values.values()))
    connection.commit()


def main():
    request = json.load(sys.stdin)
    history = load(request["history"])
    import psycopg2

    opened = []

    def connect(snapshot=None):
        opened.append(psycopg2.connect(**request["connection"]))
        return history.Engine("postgresql", opened[-1], snapshot)

    engine = connect()
    insert(psycopg2.connect(**request["connection"]), engine.schema, request.get("rows") or [])
    engine = connect()
    plan = history.make_plan(engine, **(request.get("options") or {}))
    engine.close()
    wanted = request.get("parts")
    parts = [part for part in plan["parts"] if wanted is None or part["n"] in wanted]
    folder = Path(request["folder"])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    def put(place, body):
        if place["path"] == request.get("kill_at"):
            os.kill(os.getpid(), signal.SIGKILL)
        (folder / place["path"]).write_bytes(body)

    places = [{"path": f"piece-{number:04d}.gz"} for number in range(request.get("places", 200))]
    exported = history.export_parts(
        connect, parts, plan["scope"], bytes.fromhex(request["key"]), places, put, request.get("processes", 2)
    )
    texts = {}
    for part in exported["parts"]:
        for entry in part["objects"]:
            body = (folder / entry["path"]).read_bytes()
            assert hashlib.sha256(body).hexdigest() == entry["sha256"] and len(body) == entry["size"]
            if request.get("texts", True):
                text = zlib.decompress(body, 31).decode("utf-8")
                texts[part["table"]] = texts.get(part["table"], "") + text
    memory = [resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    answer = {"plan": plan, "exported": exported, "texts": texts, "rss_kb": [before] + memory}
    json.dump(answer, sys.stdout)


if __name__ == "__main__":
    main()
