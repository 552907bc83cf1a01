# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which attempt a log belongs to, and where Airflow looks for it. Pure.

PRIVATE to the collection: no promise is made to other collections.

Sources: log_filename_template in Airflow's configuration (2.3 brought the new one; MWAA has it from 2.4.3 on); names of
streams in CloudwatchTaskHandler._render_filename of the Amazon provider (1.3 to 9.39: the path with : replaced by _);
whose template holds in DagRun.get_log_template (2.3 to 3.3.1);
what CloudWatch takes in CreateLogStream's reference, and S3 in "Creating object key names".
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from typing import NamedTuple

from ansible_collections.mwaa.migration.plugins.module_utils import _versions

STREAM_MAX = 512  # characters
KEY_MAX = 1024  # bytes
HISTORICAL = "logging.use_historical_filename_templates"
_NEW = re.compile(
    r"dag_id=(?P<dag_id>[^/]+)/run_id=(?P<run_id>.+)/task_id=(?P<task_id>[^/]+)/(?:map_index=(?P<map_index>\d+)/)?"
    r"attempt=(?P<attempt>\d+)\.log(?P<suffix>\.trigger\..+)?",
    re.DOTALL,
)
_OLD = re.compile(
    r"(?P<dag_id>[^/=]+)/(?P<task_id>[^/=]+)/(?P<date>\d{4}-\d\d-\d\dT\d\d[:_]\d\d[:_]\d\d(?:\.\d+)?(?:[+-]\d\d[:_]\d\d|Z)?)/"
    r"(?P<attempt>\d+)\.log(?P<suffix>\.trigger\..+)?"
)


class Attempt(NamedTuple):
    """One log. map_index: -1 of a task that is not mapped. suffix: "", or .trigger.<id>.log of a triggerer's part."""

    dag_id: str
    run_id: str
    task_id: str
    map_index: int = -1
    attempt: int = 1
    suffix: str = ""

    def __str__(self) -> str:
        mapped = f" [{self.map_index}]" if self.map_index >= 0 else ""
        return f"{self.dag_id} {self.run_id} {self.task_id}{mapped} attempt {self.attempt}{self.suffix}"


class Dated(NamedTuple):
    """A log of the old layout: it names its run's date (ISO 8601, UTC), not the run."""

    dag_id: str
    date: str
    task_id: str
    attempt: int
    suffix: str = ""


def parse(path: str) -> Attempt | Dated | None:
    """Whose log a path, a key or the name of a stream is. In streams : is written as _, in run ids too."""
    new = _NEW.fullmatch(path)
    if new:
        index = new["map_index"]
        return Attempt(
            new["dag_id"],
            new["run_id"],
            new["task_id"],
            int(index) if index else -1,
            int(new["attempt"]),
            new["suffix"] or "",
        )
    old = _OLD.fullmatch(path)
    if old:
        day, _t, time = old["date"].partition("T")
        date = f"{day}T{time.replace('_', ':')}"
        return Dated(old["dag_id"], date, old["task_id"], int(old["attempt"]), old["suffix"] or "")
    return None


def path_of(attempt: Attempt) -> str:
    """Airflow's own layout from 2.3 on."""
    mapped = f"map_index={attempt.map_index}/" if attempt.map_index >= 0 else ""
    return (
        f"dag_id={attempt.dag_id}/run_id={attempt.run_id}/task_id={attempt.task_id}/{mapped}"
        f"attempt={attempt.attempt}.log{attempt.suffix}"
    )


def old_path_of(attempt: Attempt, date: str) -> str:
    """Airflow's own layout before 2.3. date: the run's, as ISO 8601."""
    return f"{attempt.dag_id}/{attempt.task_id}/{date}/{attempt.attempt}.log{attempt.suffix}"


def keeps_templates(version: str, options: Mapping[str, str]) -> bool:
    """Whether Airflow looks for a log by the template that its run has (log_template), and not by the configured one.

    options: the environment's. The table came with 2.3; 2.11.1 leaves it aside unless told otherwise, 3 does not.
    """
    if _versions.at_least(version, "2.11.1") and not _versions.at_least(version, "3.0"):
        return str(options.get(HISTORICAL, "")).strip().lower() in ("true", "t", "1")
    return _versions.at_least(version, "2.3")


def stream_of(attempt: Attempt, version: str, *, date: str | None = None, own: str | None = None) -> str:
    """Where the target looks for a log.

    version: the target's Airflow. date: the run's. own: the path by the template of the run itself, which the run
    brings along with its history; None where the run has none, or the target does not ask it (keeps_templates): then
    the target's own template holds.
    """
    if own:
        path = own
    elif date and not _versions.at_least(version, "2.3"):
        path = old_path_of(attempt, date)
    else:
        path = path_of(attempt)
    return path.replace(":", "_")


def unfit(stream: str) -> str | None:
    """Why CloudWatch takes no stream of this name; None where it does."""
    if len(stream) > STREAM_MAX:
        return f"the name of its stream would have {len(stream)} characters, CloudWatch takes {STREAM_MAX}"
    if "*" in stream:
        return "the name of its stream would have a *, which CloudWatch does not take"
    return None


def archive_path(attempt: Attempt, prefix: str = "") -> str:
    """Where a log lies in the archive, below its prefix: one object, whatever characters its ids have."""
    dag_id, run_id, task_id = map(_segment, attempt[:3])
    path = path_of(attempt._replace(dag_id=dag_id, run_id=run_id, task_id=task_id))
    return _short(prefix, f"{path}.gz", "long/", ".log.gz")


def index_path(dag_id: str, prefix: str = "") -> str:
    """Where the lines of a DAG lie: each names its log's object."""
    return _short(prefix, f"index/dag_id={_segment(dag_id)}.jsonl", "index/long-", ".jsonl")


def _short(prefix: str, path: str, head: str, tail: str) -> str:
    """A path that would make a key longer than S3 takes has a digest in the place of its ids."""
    if len(f"{prefix}/{path}".encode()) <= KEY_MAX:
        return path
    return f"{head}{hashlib.sha256(path.encode()).hexdigest()}{tail}"


def _segment(text: str) -> str:
    return re.sub(r"[%/\\\x00-\x1f\x7f]", lambda found: f"%{ord(found[0]):02X}", text)
