# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Rehearses pairs of versions one after another and writes what came of it to docs/matrix.md.

    make matrix                                  every pair of PAIRS
    make matrix PAIRS="1.10.15:2.5.1 2.2.2:2.10.3:sqlite"

What was seen of each pair is kept in docs/matrix.json, so that a run of some pairs renews their rows and no other.
A pair that could not be rehearsed (an interpreter that is missing) says so in its row; it never counts as passed.
"""

from __future__ import annotations

import argparse
import datetime
import json
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
REPORT = ROOT / "build" / "rehearsal" / "report.json"
KINDS = ("variables", "connections", "pools", "dags")
PAIRS = (
    "1.10.12:2.11.2",
    "1.10.15:2.5.1",
    "2.0.2:2.0.2",
    "2.2.2:2.10.3",
    "2.5.1:2.11.2",
    "2.8.1:3.2.1",
    "2.10.3:2.11.2",
    "2.10.3:3.2.1",
    "3.0.6:3.3.1",
    "1.10.12:2.11.2:sqlite",
    "2.2.2:2.10.3:sqlite",
    "2.5.1:2.11.2:sqlite",
)
HEAD = """\
# Rehearsed pairs

Written by `make matrix`. Each row is one `make rehearse SOURCE=… TARGET=… [SOURCE_DATABASE=sqlite]`: a real Airflow of
the source's version, with the lab's seed of state, into a real one of the target's. "equal/source": how many of the
source's items are equal in the target, byte for byte; the rest is listed with its reason in the report of that run.
"listed" counts everything that the report lists: also options, requirements, files and untouched defaults. "stages" is
the time of export to verify, on a machine that did other work beside it.

| source | database | target | variables | connections | pools | DAGs | listed | stages | result | on |
|---|---|---|--:|--:|--:|--:|--:|--:|---|---|
"""


def rehearse(source: str, target: str, database: str) -> dict[str, Any]:
    """Run one pair. The row: what report.json says, the seconds of the whole, and how it ended."""
    REPORT.unlink(missing_ok=True)
    log = ROOT / "build" / "rehearsal" / f"{source}-{target}-{database}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    with log.open("w") as output:
        words = ["make", "rehearse", f"SOURCE={source}", f"TARGET={target}", f"SOURCE_DATABASE={database}"]
        code = subprocess.run(words, cwd=ROOT, stdout=output, stderr=subprocess.STDOUT, check=False).returncode
    row: dict[str, Any] = {
        "seconds": round(time.monotonic() - began),
        "on": datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
    }
    if not REPORT.exists():
        return {**row, "result": "not rehearsed", "why": _last_words(log)}
    report = json.loads(REPORT.read_text())
    return {
        **row,
        "result": "equal or listed" if code == 0 else "not equal",
        "parity": report["parity"],
        "listed": len(report["not_carried"]),
        "stages": round(sum(stage["seconds"] for stage in report["stages"])),
    }


def _last_words(log: Path) -> str:
    text = log.read_text(errors="replace")
    failed = re.search(r"""^fatal: .*?"msg": "(.*?)"[,}]""", text, re.MULTILINE)
    refused = [line.strip() for line in text.splitlines() if line.startswith("mwaa-lab: ")]
    return (failed.group(1) if failed else (refused or ["see its log in build/rehearsal"])[-1])[:200].replace("|", "/")


def page(rows: dict[str, dict[str, Any]]) -> str:
    """docs/matrix.md."""
    lines = []
    for pair in sorted(rows, key=_order):
        source, target, database = pair.split(":")
        row = rows[pair]
        parity = row.get("parity") or {}
        counts = [_count(parity.get(kind)) for kind in KINDS]
        stages = f"{row['stages']} s" if "stages" in row else "–"
        result = row["result"] + (f": {row['why']}" if row.get("why") else "")
        cells = [source, database, target, *counts, str(row.get("listed", "–")), stages, result, row["on"]]
        lines.append(f"| {' | '.join(cells)} |\n")
    return HEAD + "".join(lines)


def _count(parity: dict[str, int] | None) -> str:
    return f"{parity['equal']}/{parity['source']}" if parity and None not in parity.values() else "–"


def _order(pair: str) -> tuple[Any, ...]:
    source, target, database = pair.split(":")
    return [int(part) for part in source.split(".")], [int(part) for part in target.split(".")], database


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pairs", nargs="*", default=PAIRS, metavar="SOURCE:TARGET[:DATABASE]")
    kept, written = ROOT / "docs" / "matrix.json", ROOT / "docs" / "matrix.md"
    rows = json.loads(kept.read_text()) if kept.exists() else {}
    good = True
    for pair in parser.parse_args().pairs:
        source, target, database = (*pair.split(":"), "postgresql")[:3]
        print(f"{source} ({database}) -> {target} ...", flush=True)
        row = rehearse(source, target, database)
        print(f"  {row['result']}{': ' + row['why'] if row.get('why') else ''} ({row['seconds']} s)", flush=True)
        good = good and row["result"] == "equal or listed"
        rows[f"{source}:{target}:{database}"] = row
        kept.write_text(json.dumps(rows, indent=1, sort_keys=True) + "\n")
        written.write_text(page(rows))
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
