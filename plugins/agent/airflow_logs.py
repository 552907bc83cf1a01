# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Task logs out of an Airflow's log folder: which file is whose, by this Airflow's own database and templates.

A file of the agent that goes to hosts alone; airflow_agent.py calls it (`operate`) and gives itself and airflow_history
along. Python 3.6 syntax, the standard library and what every Airflow ships. Read only.

A log is looked for where Airflow would look for it: the template of its run (log_template, or the configuration) is
rendered for each attempt. So any layout does, and every file is known by run and attempt, not guessed from its name.
"""

import base64
import datetime
import fnmatch
import glob
import hashlib
import io
import os
import time
import zlib

RUNS = 200  # of one query
LISTED = 10000  # logs in one answer
READ = 256 << 10  # bytes read at once
MEMBER = 8 << 20  # bytes of a log in one gzip member: what a reader holds
OBJECT = 4 << 20  # compressed bytes after which an object is closed
INLINE = 24 << 20  # bytes in one answer, where S3 cannot be reached from here
TERMINAL = ("success", "failed")
DEFAULT_OLD = "{{ ti.dag_id }}/{{ ti.task_id }}/{{ ts }}/{{ try_number }}.log"


def operate(agent, history, request):
    """One of OPERATIONS. agent, history: the other files of the agent."""
    try:
        return OPERATIONS[request["op"]](agent, history, request)
    except history.Unfit as error:
        raise agent.AgentError("logs", str(error)) from None


# ------------------------------------------------------------------------------------------------------------ settings


def setting(agent, name):
    """An option of [logging], which was in [core] before Airflow 2."""
    return agent._option("logging", name) or agent._option("core", name)


def folders(agent):
    """{"base": the log folder, "remote": the URL of remote logs or None}"""
    remote = setting(agent, "remote_logging").lower() in ("true", "t", "1")
    base = setting(agent, "base_log_folder") or os.path.join(os.environ.get("AIRFLOW_HOME", ""), "logs")
    url = setting(agent, "remote_base_log_folder").rstrip("/") if remote else ""
    return {"base": os.path.realpath(os.path.expanduser(base)), "remote": url or None}


class Templates(object):
    """How the log files of a run are named."""

    def __init__(self, agent, session, unfit):
        self.unfit, self.compiled = unfit, {}
        self.configured = setting(agent, "log_filename_template") or DEFAULT_OLD
        try:
            from airflow.models.tasklog import LogTemplate

            rows = session.query(LogTemplate.id, LogTemplate.filename).order_by(LogTemplate.id).all()
        except ImportError:
            rows = []
        self.texts = {row[0]: row[1] for row in rows}
        # a run of before Airflow 2.3 has none: the first one is what was configured then
        self.oldest = rows[0][1] if rows else self.configured

    def path(self, run, task, attempt):
        """The path below the log folder."""
        text = self.texts.get(run.get("log_template_id"), self.oldest)
        try:
            return self._render(text, run, task, attempt)
        except Exception as error:
            raise self.unfit(
                "log_filename_template %r cannot be filled in for a task that has ended (%s): logs are found by dag_id,"
                " task_id, run_id, map_index, try_number and dates alone" % (text, type(error).__name__)
            ) from None

    def _render(self, text, run, task, attempt):
        date = run["execution_date"]
        ts = date.isoformat() if date is not None else ""
        if "{{" not in text and "{%" not in text:
            start, end = run.get("data_interval_start"), run.get("data_interval_end")
            return text.format(
                dag_id=task["dag_id"],
                task_id=task["task_id"],
                run_id=run["run_id"],
                data_interval_start=start.isoformat() if start else "",
                data_interval_end=end.isoformat() if end else "",
                execution_date=ts,
                logical_date=ts,
                try_number=attempt,
            )
        if text not in self.compiled:
            import jinja2

            self.compiled[text] = jinja2.Template(text, undefined=jinja2.StrictUndefined)
        ds = date.strftime("%Y-%m-%d") if date is not None else ""
        instance = _Named(dict(task, run_id=run["run_id"], execution_date=date, try_number=attempt))
        instance.map_index = task.get("map_index", -1)
        return self.compiled[text].render(
            ti=instance,
            task_instance=instance,
            dag_run=_Named(dict(run, execution_date=date, logical_date=date)),
            dag=_Named({"dag_id": task["dag_id"]}),
            task=_Named({"task_id": task["task_id"], "dag_id": task["dag_id"]}),
            run_id=run["run_id"],
            execution_date=date,
            logical_date=date,
            ts=ts,
            ds=ds,
            ds_nodash=ds.replace("-", ""),
            ts_nodash=date.strftime("%Y%m%dT%H%M%S") if date is not None else "",
            try_number=attempt,
        )


class _Named(object):
    def __init__(self, values):
        self.__dict__.update(values)


# ------------------------------------------------------------------------------------------------------------- listing


def list_logs(agent, history, request):
    """The logs of ended runs, DAG by DAG, run by run.

    dags, exclude: patterns. since: ISO 8601, of the task's end. state: failed or all. after: what the former answer
    gave as `next`. remote: attempts whose file is not here are listed too, without a size. limit.
    -> {"logs": [{dag_id, run_id, task_id, map_index, attempt, suffix, state, start, end, ended, ran, date, own, zone,
    path, size, mtime}], "next": None at the end, "base", "remote", "open": runs that have not ended}
    state, ended: how and when the task ended, for all of its attempts. start, end: of this one, as far as known.
    ran: some host has run the task; one that was skipped, or never got that far, has no logs.
    own: its run has a template of its own (in log_template), which the run keeps wherever its history goes.
    zone: seconds that the host's clock was ahead of UTC: before Airflow 2.3 lines have local times without a zone.
    """
    if hasattr(time, "tzset"):
        time.tzset()  # TZ may be of Airflow's own process
    where = folders(agent)
    after, limit = request.get("after"), request.get("limit") or LISTED
    answer = {"logs": [], "next": None, "base": where["base"], "remote": where["remote"], "open": 0}
    with agent.Database() as database:
        reader = _Reader(agent, history, database.session, request, where)
        if after is None:
            answer["open"] = reader.open_runs()
        for dag_id in reader.dags(after["dag"] if after else None):
            at = after if after and after["dag"] == dag_id else {"dag": dag_id, "run": None, "orphan": None}
            while at is not None:
                logs, at = reader.some(dag_id, at)
                answer["logs"] += logs
                if len(answer["logs"]) >= limit:
                    answer["next"] = at or {"dag": dag_id, "run": None, "orphan": None, "done": True}
                    return answer
    return answer


class _Reader(object):
    def __init__(self, agent, history, session, request, where):
        from airflow.models import DagRun, TaskInstance

        self.agent, self.history, self.session, self.request = agent, history, session, request
        self.base, self.remote = where["base"], bool(request.get("remote"))
        self.runs, self.tasks = DagRun.__table__, TaskInstance.__table__
        self.by_run_id = "run_id" in self.tasks.c
        self.templates = Templates(agent, session, history.Unfit)
        self.since = _moment(request["since"]) if request.get("since") else None
        try:
            from airflow.models.taskinstancehistory import TaskInstanceHistory

            self.attempts = TaskInstanceHistory.__table__
        except ImportError:
            self.attempts = None

    def dags(self, first):
        """DAG ids in order, from `first` on."""
        column, wanted = self.tasks.c.dag_id, []
        for (dag_id,) in self.session.query(column.label("x_dag")).distinct():
            patterns = self.request.get("dags") or ["*"]
            if dag_id is None or (first is not None and dag_id < first):
                continue
            if any(fnmatch.fnmatchcase(dag_id, one) for one in list(self.history.OWN_DAGS)):
                continue
            if any(fnmatch.fnmatchcase(dag_id, one) for one in self.request.get("exclude") or ()):
                continue
            if any(fnmatch.fnmatchcase(dag_id, one) for one in patterns):
                wanted.append(dag_id)
        return sorted(wanted)

    def open_runs(self):
        from sqlalchemy import func, or_

        state = self.runs.c.state
        query = self.session.query(func.count().label("x_n")).select_from(self.runs)
        return int(query.filter(or_(state.is_(None), state.notin_(TERMINAL))).scalar() or 0)

    def some(self, dag_id, at):
        """(logs of some runs of the DAG, where to go on or None)"""
        if at.get("done"):
            return [], None
        if at["orphan"] is None:
            runs = self._runs(dag_id, at["run"])
            if runs:
                logs = self._logs(dag_id, runs)
                return logs, {"dag": dag_id, "run": runs[-1]["id"], "orphan": None}
            if self.by_run_id:
                return [], None
        runs = self._orphans(dag_id, at["orphan"])
        if not runs:
            return [], None
        return self._logs(dag_id, runs), {"dag": dag_id, "run": None, "orphan": _iso(runs[-1]["execution_date"])}

    def _runs(self, dag_id, after):
        names = ("id", "run_id", "execution_date", "logical_date", "state", "start_date", "end_date", "log_template_id")
        names += ("data_interval_start", "data_interval_end", "run_type", "external_trigger")
        columns = [self.runs.c[name] for name in names if name in self.runs.c]
        query = self.session.query(*[column.label("x_" + column.name) for column in columns])
        query = query.filter(self.runs.c.dag_id == dag_id, self.runs.c.state.in_(TERMINAL))
        if after is not None:
            query = query.filter(self.runs.c.id > after)
        found = query.order_by(self.runs.c.id).limit(RUNS).all()
        runs = [dict(zip([column.name for column in columns], row)) for row in found]
        for run in runs:
            run["execution_date"] = _pendulum(run.get("execution_date", run.get("logical_date")))
            run["run_id"] = run["run_id"] or "manual__" + _run_date(run["execution_date"])
        return runs

    def _orphans(self, dag_id, after):
        """Task instances of before Airflow 2.2 without a run, under the run that history makes up for them."""
        from sqlalchemy import and_, exists

        date, runs = self.tasks.c.execution_date, self.runs.c
        query = self.session.query(date.label("x_date")).distinct().filter(self.tasks.c.dag_id == dag_id)
        query = query.filter(~exists().where(and_(runs.dag_id == dag_id, runs.execution_date == date)))
        if after is not None:
            query = query.filter(date > _moment(after))
        return [
            {
                "run_id": "manual__" + _run_date(row[0]),
                "execution_date": _pendulum(row[0]),
                "id": None,
                "dag_id": dag_id,
            }
            for row in query.order_by(date).limit(RUNS)
        ]

    def _logs(self, dag_id, runs):
        link = "run_id" if self.by_run_id else "execution_date"
        by_link = {_key(run[link]): run for run in runs}
        earlier = self._earlier(dag_id, runs)
        names = ["dag_id", "task_id", link, "try_number", "state", "start_date", "end_date", "map_index", "hostname"]
        names += ["job_id", "queue", "operator", "pool", "unixname"]
        columns = [self.tasks.c[name] for name in names if name in self.tasks.c]
        query = self.session.query(*[column.label("x_" + column.name) for column in columns])
        query = query.filter(self.tasks.c.dag_id == dag_id, self.tasks.c[link].in_([run[link] for run in runs]))
        if self.request.get("state") == "failed":
            query = query.filter(self.tasks.c.state == "failed")
        found = []
        for row in query.yield_per(1000):
            task = dict(zip([column.name for column in columns], row))
            run = by_link.get(_key(task[link]))
            ended = task["end_date"] or task["start_date"]
            if run is None or (self.since is not None and ended is not None and _utc(ended) < self.since):
                continue
            found += self._of_task(run, task, earlier)
        order = {run["run_id"]: number for number, run in enumerate(runs)}
        found.sort(key=lambda one: (order[one["run_id"]], one["task_id"], one["map_index"], one["attempt"]))
        return found

    def _earlier(self, dag_id, runs):
        """{(run_id, task_id, map_index, attempt): (start, end)} of earlier attempts, from Airflow 2.10 on."""
        if self.attempts is None:
            return {}
        column = self.attempts.c
        wanted = [column[name] for name in ("run_id", "task_id", "map_index", "try_number", "start_date", "end_date")]
        query = self.session.query(*[one.label("x_" + one.name) for one in wanted])
        query = query.filter(column.dag_id == dag_id, column.run_id.in_([run["run_id"] for run in runs]))
        return {tuple(row[:4]): (row[4], row[5]) for row in query}

    def _of_task(self, run, task, earlier):
        """Every attempt whose file is there; beyond what the database counts, as long as there is one more."""
        tries, attempt, logs = int(task["try_number"] or 0), 0, []
        number = task.get("map_index")
        number = -1 if number is None else int(number)
        while True:
            attempt += 1
            path = self.templates.path(run, task, attempt)
            files = self._files(path)
            if not files and attempt > tries:
                return logs
            dates = earlier.get((run["run_id"], task["task_id"], number, attempt))
            if dates is None and attempt >= tries:
                dates = task["start_date"], task["end_date"]
            for suffix, size, mtime in files or ([("", None, None)] if self.remote and attempt <= tries else []):
                # of an earlier attempt only its file tells: the run's start is a later one since it was cleared
                start, end = dates or (None, task["end_date"] if mtime is None else _instant(mtime))
                logs.append(
                    {
                        "dag_id": task["dag_id"],
                        "run_id": run["run_id"],
                        "task_id": task["task_id"],
                        "map_index": number,
                        "attempt": attempt,
                        "suffix": suffix,
                        "state": task["state"],
                        "start": _iso(start),
                        "end": _iso(end),
                        "ended": _iso(task["end_date"] or task["start_date"]),
                        "ran": bool(task.get("hostname")),
                        "date": _iso(run["execution_date"]),
                        "own": run.get("log_template_id") is not None,
                        "zone": _zone(mtime, end),
                        "path": path + suffix,
                        "size": size,
                        "mtime": mtime,
                    }
                )

    def _files(self, path):
        """[(suffix, size, mtime)]: the log, and those that a triggerer wrote for it."""
        found = []
        full = os.path.join(self.base, path)
        for name in [full] + sorted(glob.glob(glob.escape(full) + ".trigger.*.log")):
            try:
                inside(self.base, name, self.history.Unfit)
                about = os.stat(name)
            except (OSError, self.history.Unfit):
                continue
            if os.path.isfile(name):
                found.append((name[len(full) :], about.st_size, int(about.st_mtime)))
        return found


def inside(base, path, unfit):
    """The path, when it is a file of the folder whatever links lead to it."""
    full = os.path.realpath(os.path.join(base, path))
    if not full.startswith(base.rstrip(os.sep) + os.sep):
        raise unfit("%s is outside of the log folder %s" % (path, base))
    return full


def _moment(iso):
    text = iso.replace("Z", "").split("+")[0]
    form = "%Y-%m-%dT%H:%M:%S.%f" if "." in text else "%Y-%m-%dT%H:%M:%S"
    return datetime.datetime.strptime(text, form).replace(tzinfo=datetime.timezone.utc)


def _instant(mtime):
    return datetime.datetime.fromtimestamp(mtime, datetime.timezone.utc)


def _zone(mtime, end):
    """Of a log that is elsewhere, by when the task ended: hosts of one installation have one clock."""
    if mtime is None and end is None:
        return 0
    return time.localtime(mtime if mtime is not None else _utc(end).timestamp()).tm_gmtoff


def _utc(date):
    """SQLite and MySQL may give times without a zone: they are UTC."""
    return date.replace(tzinfo=datetime.timezone.utc) if date.tzinfo is None else date


def _pendulum(date):
    """What a template is given: its isoformat() is part of paths."""
    if date is None:
        return None
    date = _utc(date)
    try:
        import pendulum

        return pendulum.instance(date)
    except Exception:
        return date


def _iso(date):
    return None if date is None else _utc(date).isoformat()


def _run_date(date):
    """As history makes up run ids."""
    return _utc(date).strftime("%Y-%m-%dT%H:%M:%S.%f+00:00")


def _key(value):
    return _utc(value).timestamp() if isinstance(value, datetime.datetime) else value


# ------------------------------------------------------------------------------------------------------------- sending


def export_logs(agent, history, request):
    """Some logs, compressed, several to an object.

    logs: [{"n", "path", "size"}]. puts: [{"path", "url", "headers"}]; without them the objects are in the answer (data,
    base64), and a log may come in several answers: "from" is where to go on. seconds: no log is begun after.
    impatient: S3 is tried once, to know early whether it is there.
    -> {"objects": [{path, size, sha256, version_id, etag[, data]}], "logs": [{n, size, pieces: [[object, at, bytes,
    size]][, more]}], "lost": [{n, why}], "left": [n]}
    A piece is a gzip member of its own in the object, from `at` on; the pieces of a log one after another are a gzip
    file of it. size: of the bytes that were read. more: where the rest of it begins.
    """
    base, puts = folders(agent)["base"], request.get("puts")
    until = time.time() + request["seconds"] if request.get("seconds") else None
    pauses = () if request.get("impatient") else history.PAUSES
    objects = _Objects(puts, lambda place, body: history.put_piece(place, body, pauses))
    answer = {"logs": [], "lost": [], "left": []}
    for wanted in request["logs"]:
        if (until is not None and time.time() > until) or objects.full(wanted.get("size") or 0):
            answer["left"].append(wanted["n"])
            continue
        try:
            with io.open(inside(base, wanted["path"], history.Unfit), "rb") as file:
                file.seek(wanted.get("from") or 0)
                answer["logs"].append(_send(wanted["n"], file, objects))
        except (IOError, OSError) as error:
            answer["lost"].append({"n": wanted["n"], "why": os.strerror(error.errno or 0)})
    objects.close()
    # what did not get its place is still to be sent
    whole = [one for one in answer["logs"] if all(piece[0] in objects.done for piece in one["pieces"])]
    answer["left"] += [one["n"] for one in answer["logs"] if one not in whole]
    answer["logs"] = whole
    answer["objects"] = [objects.done.get(number) for number in range(objects.number)]
    return answer


def _send(number, file, objects):
    total, pieces, end = 0, [], False
    while not end and (objects.puts is not None or total < 2 * MEMBER):
        packer = zlib.compressobj(6, zlib.DEFLATED, 31)
        at, size, packed = objects.here(), 0, 0
        while size < MEMBER:
            chunk = file.read(READ)
            if not chunk:
                end = True
                break
            size += len(chunk)
            packed += objects.add(packer.compress(chunk))
        if size or not pieces:
            packed += objects.add(packer.flush())
            pieces.append([objects.number, at, packed, size])
            total += size
        objects.cut()
    entry = {"n": number, "size": total, "pieces": pieces}
    if not end:
        entry["more"] = file.tell()
    return entry


class _Objects(object):
    """Fills objects one after another; two at most are in memory."""

    def __init__(self, puts, put):
        from concurrent.futures import ThreadPoolExecutor

        self.puts, self.put = puts, put
        self.number, self.data, self.sent, self.done = 0, bytearray(), None, {}
        self.pool, self.inline = ThreadPoolExecutor(1), 0

    def here(self):
        return len(self.data)

    def full(self, size):
        """Whether a log of this size may have no place any more."""
        if self.puts is None:
            return self.inline + len(self.data) + size // 2 > INLINE and bool(self.inline or self.data)
        # a log takes an object for every MEMBER of it, at most
        return self.number + 2 + size // MEMBER > len(self.puts) and bool(self.number or self.data)

    def add(self, data):
        self.data += data
        return len(data)

    def cut(self):
        """Between two members: an object that is large enough goes."""
        if len(self.data) >= OBJECT:
            self._go()

    def _go(self):
        body, number = bytes(self.data), self.number
        self.data, self.number = bytearray(), self.number + 1
        self.inline += len(body)
        self._wait()
        if self.puts is not None and number >= len(self.puts):
            return
        self.sent = self.pool.submit(self._put, number, body)

    def _put(self, number, body):
        entry = {"path": None, "size": len(body), "sha256": hashlib.sha256(body).hexdigest()}
        if self.puts is None:
            entry["data"] = base64.b64encode(body).decode("ascii")
        else:
            entry["path"] = self.puts[number]["path"]
            entry.update(self.put(self.puts[number], body))
        self.done[number] = entry

    def _wait(self):
        if self.sent is not None:
            self.sent.result()
            self.sent = None

    def close(self):
        if self.data:
            self._go()
        self._wait()
        self.pool.shutdown()


OPERATIONS = {"list_logs": list_logs, "export_logs": export_logs}
