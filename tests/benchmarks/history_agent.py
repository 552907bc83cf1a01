# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Run by an Airflow's own Python: the agent's requests, one after another, with pieces in local files.

One JSON document on stdin: agent (its folder), connection (psycopg2's), folder (of the pieces), requests. Those are the
agent's own; "export" makes a plan and exports all of it. The answer: {"answers", "bare_kb", "peak_kb"}.
"""

import json
import resource
import sys
from pathlib import Path

DIGEST_KEY = b"k" * 32


def peak():
    return max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))


def main():
    document = json.load(sys.stdin)
    folder = Path(document["folder"])
    sys.path.insert(0, document["agent"])
    import airflow_history as history
    import airflow_history_import as importing
    import psycopg2

    importing.bind(history)

    def fetch(piece):
        return (folder / piece["path"]).read_bytes()

    def put(place, body):
        (folder / place["path"]).write_bytes(body)

    class Source:
        name, search_path = "postgresql", None

        def connect(self, snapshot=None, writable=False):
            connection = psycopg2.connect(**document["connection"])
            return history.Engine("postgresql", connection, snapshot, writable=writable)

    source, importing.get_piece = Source(), fetch

    def export(name, plan=None, parts=None, **options):
        """All of a new plan, or these parts of an earlier one; names of pieces begin with the name."""
        if plan is None:
            engine = source.connect()
            plan = history.make_plan(engine, **options)
            engine.close()
        chosen = [part for part in plan["parts"] if parts is None or part["n"] in parts]
        places = [{"path": f"{name}-{number}.gz"} for number in range(60000)]
        done = history.export_parts(source.connect, chosen, plan["scope"], DIGEST_KEY, places, put, 2)
        if parts is None:
            assert not done["left"], done["failed"]
        pieces, digests = [], {}
        for part in done["parts"]:
            keys = {"table": part["table"], "orphans": bool(plan["parts"][part["n"]].get("orphans"))}
            pieces += [dict(entry, **keys) for entry in part["objects"]]
            for dag, (rows, digest) in part["digests"].items():
                count, total = digests.setdefault(part["table"], {}).get(dag, (0, 0))
                digests[part["table"]][dag] = (count + rows, (total + int(digest, 16)) % 2**128)
        pieces.sort(key=lambda piece: history.TABLES[piece["table"]]["phase"])
        seconds = [[part["table"], part["rows"], part["raw"], part["seconds"]] for part in done["parts"]]
        return {
            "plan": {key: plan[key] for key in ("scope", "columns", "mark", "parts")},
            "left": done["left"],
            "pieces": pieces,
            "digests": {
                table: {dag: [rows, f"{total:032x}"] for dag, (rows, total) in found.items()}
                for table, found in digests.items()
            },
            "rows": sum(part["rows"] for part in done["parts"]),
            "bytes": sum(part["bytes"] for part in done["parts"]),
            "by_table": seconds,
        }

    bare, answers = peak(), []
    for request in document["requests"]:
        name = request.pop("op")
        if name == "export":
            answers.append(export(**request))
        else:
            answers.append(history.OPERATIONS[name](source, request))
    json.dump({"answers": answers, "bare_kb": bare, "peak_kb": peak()}, sys.stdout)


if __name__ == "__main__":
    main()
