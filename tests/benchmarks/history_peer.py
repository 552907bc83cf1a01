# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""mwaa-dr's own table functions, in a Python that has Airflow and mwaa-dr: python history_peer.py backup|restore

Its tables of run history, in the order of its DAGs, four processes at once, into local files (its LOCAL_FS). Airflow is
imported once and the processes are forked, which its tasks are not: that favours it. Prints {"peak_kb", "seconds":
{table: …}}; a table that fails ends with its error.
"""

import json
import os
import resource
import sys
import time
from pathlib import Path

AT_ONCE = 4
TABLES = ("xcom", "task_instance", "log", "job", "dag_run", "task_fail")
AFTER = {
    "backup": {"task_instance": {"xcom"}},
    "restore": {
        "task_instance": {"job", "dag_run"},
        "task_fail": {"task_instance", "dag_run"},
        "xcom": {"task_instance", "dag_run"},
    },
}


def main():
    from airflow import settings

    settings.initialize()
    from mwaa_dr.v_2_10.dr_factory import DRFactory_2_10

    class Run:
        conf = {}

    factory = DRFactory_2_10(dag_id="dr", storage_type="LOCAL_FS")
    tables = {table.name: table for table in factory.tables()}
    waiting, running, done, took, peak = set(TABLES), {}, set(), {}, 0
    Path(os.environ["AIRFLOW_HOME"], "dags", "data").mkdir(parents=True, exist_ok=True)
    while waiting or running:
        for name in TABLES:
            if name in waiting and len(running) < AT_ONCE and AFTER[sys.argv[1]].get(name, set()) <= done:
                waiting.discard(name)
                pid = os.fork()
                if not pid:
                    settings.engine.dispose()
                    os.dup2(2, 1)
                    getattr(tables[name], sys.argv[1])(dag_run=Run())
                    os._exit(0)
                running[pid] = (name, time.time())
        pid, status, usage = os.wait4(-1, 0)
        name, begun = running.pop(pid)
        if status:
            sys.exit(f"{sys.argv[1]} of {name} ended with {status}")
        done.add(name)
        took[name], peak = time.time() - begun, max(peak, usage.ru_maxrss)
    bare = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print("\n" + json.dumps({"peak_kb": peak, "bare_kb": bare, "seconds": took}))


if __name__ == "__main__":
    main()
