# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A run history of any size for Airflow 2.10 and 2.11 on PostgreSQL, the same one each time.

The server makes the rows itself (INSERT … SELECT), with plain indexes built after: a million task instances and what
belongs to them (2.9 M rows) in under two minutes. For 1,000,000 task instances: 200,000 runs of 180 DAGs, 1,000,000
log rows, 500,000 XComs of about 1.1 kB, 200,004 jobs, 20,000 task_fails. `nasty` adds what other tools are known to
lose: see NASTY.
"""

from __future__ import annotations

from typing import Callable

DAGS = 180
XCOM_TEXT = 70000  # characters that XComs are windows of

# Airflow's own pickle of {}
EMPTY = r"'\x80047d942e'::bytea"


def fill(sql: Callable[[str], str], task_instances: int = 100_000, nasty: bool = False, beside: bool = False) -> None:
    """Rows into a migrated, empty database. sql: runs statements as one who may switch foreign keys off."""
    runs = task_instances // 5
    sql(
        f"""
SET session_replication_role = replica;
SET client_min_messages = warning;
CREATE TEMP TABLE plain_index AS SELECT indexname, indexdef FROM pg_indexes WHERE schemaname = 'public'
  AND tablename IN ('dag_run', 'task_instance', 'xcom', 'log', 'job', 'task_fail')
  AND indexname NOT IN (SELECT conname FROM pg_constraint);
DO $$ DECLARE one record; BEGIN
  FOR one IN SELECT * FROM plain_index LOOP EXECUTE format('DROP INDEX %I', one.indexname); END LOOP; END $$;
DELETE FROM log; DELETE FROM job;

INSERT INTO dag (dag_id, is_paused, is_active, max_active_tasks, max_consecutive_failed_dag_runs,
  has_task_concurrency_limits, fileloc)
SELECT 'dag_' || lpad(d::text, 3, '0'), d % 10 = 0, true, 16, 0, false, '/dags/' || d || '.py'
FROM generate_series(0, {DAGS - 1}) d;

INSERT INTO job (id, dag_id, state, job_type, start_date, end_date, latest_heartbeat, executor_class, hostname,
  unixname)
SELECT j, CASE WHEN j <= 4 THEN NULL ELSE 'dag_' || lpad((j % {DAGS})::text, 3, '0') END, 'success',
  CASE WHEN j <= 2 THEN 'SchedulerJob' WHEN j <= 4 THEN 'TriggererJob' ELSE 'LocalTaskJob' END,
  timestamptz '2024-01-01 00:00Z' + j * interval '7 s', timestamptz '2024-01-01 00:01Z' + j * interval '7 s',
  timestamptz '2024-01-01 00:01Z' + j * interval '7.000123 s', 'LocalExecutor', 'worker-' || j % 9 || '.internal',
  'airflow'
FROM generate_series(1, {runs} + 4) j;

INSERT INTO dag_run (id, dag_id, queued_at, execution_date, start_date, end_date, state, run_id, creating_job_id,
  external_trigger, run_type, conf, data_interval_start, data_interval_end, last_scheduling_decision, dag_hash,
  log_template_id, updated_at, clear_number)
SELECT r, 'dag_' || lpad((r % {DAGS})::text, 3, '0'), at, at, at + interval '2.5 s', at + interval '62.123456 s',
  CASE WHEN r % 20 = 0 THEN 'failed' ELSE 'success' END,
  'scheduled__' || to_char(at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS+00:00'), 1 + r % 2, false, 'scheduled',
  {EMPTY}, at - interval '1 h', at, at + interval '63 s', md5((r % {DAGS})::text), (SELECT max(id) FROM log_template),
  at + interval '64 s', 0
FROM (SELECT r, timestamptz '2020-01-01 00:00Z' + (r / {DAGS}) * interval '1 h' AS at
  FROM generate_series(1, {runs}) r) made;

INSERT INTO task_instance (task_id, dag_id, run_id, map_index, start_date, end_date, duration, state, try_number,
  max_tries, hostname, unixname, job_id, pool, pool_slots, queue, priority_weight, operator, queued_dttm,
  queued_by_job_id, pid, executor_config, updated_at, custom_operator_name, task_display_name)
SELECT 'task_' || t, dag_id, run_id, -1, start_date + t * interval '1.000321 s',
  start_date + t * interval '9.5 s', 8.5 * t + (id % 1000) / 777.0, CASE WHEN id % 20 = 0 AND t = 4 THEN 'failed'
  ELSE 'success' END, 1 + id % 2, 2, 'worker-' || id % 9 || '.internal', 'airflow',
  5 + (id * 5 + t) % {runs}, 'default_pool', 1, 'default', 5 - t, 'PythonOperator', start_date, 1 + id % 2,
  1000 + id % 30000, {EMPTY}, end_date, '', 'task_' || t
FROM dag_run, generate_series(0, 4) t ORDER BY id, t;

INSERT INTO task_fail (task_id, dag_id, run_id, map_index, start_date, end_date, duration)
SELECT 'task_' || t, dag_id, run_id, -1, start_date, end_date, 60 FROM dag_run, generate_series(3, 4) t
WHERE id % 20 = 0 ORDER BY id;

INSERT INTO log (dttm, dag_id, task_id, run_id, map_index, event, execution_date, owner, owner_display_name, extra,
  try_number)
SELECT end_date + t * interval '1 s', dag_id, 'task_' || t, run_id, -1,
  (ARRAY['running', 'success', 'cli_task_run', 'trigger', 'clear'])[1 + (id + t) % 5], execution_date, 'airflow', NULL,
  CASE WHEN (id + t) % 5 = 2 THEN '{{"host_name": "worker-' || id % 9 || '", "full_command": "[airflow tasks run]"}}'
  END, 1
FROM dag_run, generate_series(0, 4) t ORDER BY id, t;

CREATE TEMP TABLE words AS SELECT string_agg(substr(md5(w::text), 1, 3 + w % 7) || ' ', '' ORDER BY w) AS text
  FROM generate_series(1, {XCOM_TEXT // 7}) w;
INSERT INTO xcom (dag_run_id, task_id, map_index, key, dag_id, run_id, value, timestamp)
SELECT id, 'task_' || t, -1, CASE WHEN t = 0 THEN 'return_value' ELSE 'rows_' || t END, dag_id, run_id,
  convert_to(to_json(substr(text, 1 + ((id::bigint * 7919 + t * 104729) % ({XCOM_TEXT} - 4000))::int,
    20 + ((id::bigint * 31 + t) % 2160)::int))::text, 'UTF8'), end_date
FROM words, dag_run, generate_series(0, 4, 2) t WHERE t = 0 OR (id + t) % 4 < 3 ORDER BY id, t;

DO $$ DECLARE one record; BEGIN
  FOR one IN SELECT * FROM plain_index LOOP EXECUTE one.indexdef; END LOOP; END $$;
SELECT setval('dag_run_id_seq', max(id)) FROM dag_run;
SELECT setval('job_id_seq', max(id)) FROM job;
"""
    )
    if beside:
        sql(BESIDE_ROWS)
    if nasty:
        sql(NASTY)
    sql("ANALYZE")


# tables that other tools do not carry, in plain rows: for 1,000,000 task instances 200,000 rendered fields, 100,000
# rows each of rescheduling and of former tries, 20,000 each of the rest
BESIDE = (
    "rendered_task_instance_fields",
    "task_reschedule",
    "task_instance_history",
    "task_map",
    "dag_run_note",
    "task_instance_note",
    "dataset",
    "dataset_event",
    "dagrun_dataset_event",
    "sla_miss",
)
BESIDE_ROWS = """
SET session_replication_role = replica;
INSERT INTO rendered_task_instance_fields (dag_id, task_id, run_id, map_index, rendered_fields, k8s_pod_yaml)
  SELECT dag_id, 'task_0', run_id, -1, json_build_object('bash_command', 'load ' || run_id, 'env', md5(run_id)), NULL
  FROM dag_run;
INSERT INTO task_reschedule (task_id, dag_id, run_id, map_index, try_number, start_date, end_date, duration,
    reschedule_date) SELECT 'task_1', dag_id, run_id, -1, 1, start_date, end_date, 60, end_date FROM dag_run
  WHERE id % 2 = 0;
INSERT INTO task_instance_history (task_id, dag_id, run_id, map_index, try_number, state, pool, pool_slots, duration,
    start_date, end_date, hostname, executor_config)
  SELECT task_id, dag_id, run_id, map_index, 1, 'failed', pool, pool_slots, 0.1, start_date, end_date, hostname,
    executor_config FROM task_instance WHERE try_number = 2 AND task_id = 'task_4';
INSERT INTO task_map (dag_id, task_id, run_id, map_index, length, keys)
  SELECT dag_id, 'task_2', run_id, -1, 5, NULL FROM dag_run WHERE id % 10 = 0;
INSERT INTO dag_run_note (dag_run_id, content, created_at, updated_at)
  SELECT id, 'seen, run again', end_date, end_date FROM dag_run WHERE id % 10 = 1;
INSERT INTO task_instance_note (task_id, dag_id, run_id, map_index, content, created_at, updated_at)
  SELECT 'task_0', dag_id, run_id, -1, 'the source was late', end_date, end_date FROM dag_run WHERE id % 10 = 2;
INSERT INTO dataset (id, uri, extra, created_at, updated_at, is_orphaned)
  SELECT n, 's3://bucket/' || n, '{}', now(), now(), false FROM generate_series(1001, 1100) n;
INSERT INTO dataset_event (dataset_id, extra, source_task_id, source_dag_id, source_run_id, source_map_index,
    timestamp)
  SELECT 1001 + id % 100, '{}', 'task_0', dag_id, run_id, -1, end_date FROM dag_run WHERE id % 10 = 3;
INSERT INTO dagrun_dataset_event (dag_run_id, event_id)
  SELECT r.id, e.id FROM dataset_event e JOIN dag_run r ON r.dag_id = e.source_dag_id AND r.run_id = e.source_run_id;
INSERT INTO sla_miss (task_id, dag_id, execution_date, email_sent, timestamp, description, notification_sent)
  SELECT 'task_0', dag_id, execution_date, true, end_date, '', false FROM dag_run WHERE id % 10 = 4;
"""
# a day later: one run of a hundred is new, one of a hundred had its tasks cleared and run again, one of a thousand is
# gone
CHANGE = """
INSERT INTO dag_run (dag_id, execution_date, start_date, end_date, state, run_id, external_trigger, run_type, conf,
    data_interval_start, data_interval_end, updated_at, clear_number, log_template_id)
  SELECT dag_id, execution_date + interval '50 y', now(), now(), 'success', 'later__' || id, false, 'scheduled', conf,
    now(), now(), now(), 0, log_template_id FROM dag_run WHERE id % 100 = 7;
INSERT INTO task_instance (task_id, dag_id, run_id, map_index, state, pool, pool_slots, try_number, start_date,
    end_date, duration, hostname, executor_config, updated_at)
  SELECT 'task_' || t, dag_id, run_id, -1, 'success', 'default_pool', 1, 1, now(), now(), 0.5, 'w', conf, now()
  FROM dag_run, generate_series(0, 4) t WHERE run_id LIKE 'later\\_\\_%';
INSERT INTO log (dttm, dag_id, task_id, run_id, map_index, event, owner)
  SELECT now(), dag_id, task_id, run_id, -1, 'success', 'airflow' FROM task_instance
  WHERE run_id LIKE 'later\\_\\_%';
UPDATE task_instance SET try_number = try_number + 1, hostname = 'again', updated_at = now() WHERE (dag_id, run_id) IN
  (SELECT dag_id, run_id FROM dag_run WHERE id % 100 = 8);
DELETE FROM dag_run WHERE id % 1000 = 9;
"""

# what raw COPY carries and other tools lose: empty strings against NULL, NULL states, runs in flight, deferred ones
# with their triggers and next_kwargs, line ends of all kinds, backslashes, \\N and \\. as text, unicode and very long
# ids, NaN, mapped tasks, cleared tasks with their XComs, conf and executor_config with content, 6 MB XComs, and the
# small tables
NASTY = r"""
SET session_replication_role = replica;
UPDATE task_instance SET queue = '', operator = '', external_executor_id = '', hostname = ''
  WHERE (dag_id, run_id) IN (SELECT dag_id, run_id FROM dag_run WHERE id % 50 = 1);
UPDATE task_instance SET hostname = E'a\r\nb\rc\td\\', state = NULL
  WHERE (dag_id, run_id) IN (SELECT dag_id, run_id FROM dag_run WHERE id % 50 = 2) AND task_id = 'task_1';
UPDATE dag_run SET dag_hash = '' WHERE id % 50 = 3;
UPDATE dag_run SET conf = '\x80047d94288c016b948c0876c3bc0a5c4e094e948c016e94477ff8000000000000752e' WHERE id % 50 = 4;
UPDATE task_instance SET executor_config = '\x80047d948c016b945d94284b014b0265732e', duration = 'NaN'
  WHERE (dag_id, run_id) IN (SELECT dag_id, run_id FROM dag_run WHERE id % 50 = 5) AND task_id = 'task_2';
UPDATE log SET
  extra = (ARRAY['', E'line\nline\r\nline\r', E'\\N', E'\\.', E'a\tb\\tc\\\\', 'ü漢🎉', '"q",|;'])[1 + id % 7],
  owner = CASE WHEN id % 3 = 0 THEN '' ELSE owner END WHERE id % 10 = 6;
INSERT INTO log (dttm, event, owner, extra) SELECT now(), 'cli_webserver', 'root', E'\\N' FROM generate_series(1, 40);
INSERT INTO dag_run (dag_id, execution_date, state, run_id, external_trigger, run_type, clear_number, log_template_id,
    start_date, end_date, data_interval_start, data_interval_end)
  SELECT CASE WHEN n % 2 = 0 THEN repeat('long_', 50) ELSE 'dag_ünï漢' END, timestamptz '2030-01-01 00:00Z'
    + n * interval '1 h', 'success', 'manual__ü ' || n, true, 'manual', 1, (SELECT max(id) FROM log_template), now(),
    now(), NULL, NULL FROM generate_series(1, 40) n;
INSERT INTO task_instance (task_id, dag_id, run_id, map_index, state, pool, pool_slots, try_number, duration)
  SELECT repeat('t', 250), dag_id, run_id, m, 'success', 'default_pool', 1, 1, 1e-7 * m FROM dag_run,
    generate_series(0, 4) m WHERE run_type = 'manual';
INSERT INTO dag_run (dag_id, execution_date, state, run_id, external_trigger, run_type, clear_number)
  SELECT 'dag_001', timestamptz '2031-01-01 00:00Z' + n * interval '1 h', (ARRAY['running', 'queued'])[1 + n % 2],
    'open__' || n, false, 'scheduled', 0 FROM generate_series(1, 40) n;
INSERT INTO task_instance (task_id, dag_id, run_id, map_index, state, pool, pool_slots)
  SELECT 'task_' || t, dag_id, run_id, -1, (ARRAY['success', 'running', 'queued', 'scheduled'])[1 + t],
    'default_pool', 1 FROM dag_run, generate_series(0, 3) t WHERE run_id LIKE 'open\_\_%';
INSERT INTO trigger (id, classpath, kwargs, created_date) SELECT n, 'a.B', '{}', now() FROM generate_series(1, 100) n;
UPDATE task_instance SET state = 'deferred', trigger_id = 1 + length(run_id) % 100, trigger_timeout = now(),
    next_method = 'execute_complete', next_kwargs = '{"__type": "dict", "__var": {"a": "b\nc"}}'
  WHERE (dag_id, run_id) IN (SELECT dag_id, run_id FROM dag_run WHERE id % 50 = 7) AND task_id = 'task_3';
INSERT INTO xcom (dag_run_id, task_id, map_index, key, dag_id, run_id, value, timestamp)
  SELECT id, 'task_1', -1, 'large_' || n, dag_id, run_id,
    convert_to(to_json((SELECT string_agg(md5((n * 200000 + i)::text), '') FROM generate_series(1, 187500) i))::text,
      'UTF8'), now() FROM dag_run, generate_series(1, 3) n WHERE id = 9;
INSERT INTO xcom (dag_run_id, task_id, map_index, key, dag_id, run_id, value, timestamp)
  SELECT id, 'task_1', -1, 'nan', dag_id, run_id, '{"a": NaN, "b": "\\u00fc\\\\N"}'::text::bytea, now()
  FROM dag_run WHERE id % 100 = 11
    AND EXISTS (SELECT 1 FROM task_instance t WHERE t.dag_id = dag_run.dag_id AND t.run_id = dag_run.run_id
      AND t.task_id = 'task_1');
INSERT INTO task_reschedule (task_id, dag_id, run_id, map_index, try_number, start_date, end_date, duration,
    reschedule_date) SELECT 'task_0', dag_id, run_id, -1, 1, start_date, end_date, 60, end_date FROM dag_run
  WHERE id % 14 = 1 AND end_date IS NOT NULL
    AND EXISTS (SELECT 1 FROM task_instance t WHERE t.dag_id = dag_run.dag_id AND t.run_id = dag_run.run_id
      AND t.task_id = 'task_0');
INSERT INTO rendered_task_instance_fields (dag_id, task_id, run_id, map_index, rendered_fields, k8s_pod_yaml)
  SELECT dag_id, 'task_0', run_id, -1, '{"cmd":  "a\nü", "b" : [1.0,1e5]}', NULL FROM dag_run WHERE id % 18 = 1
    AND EXISTS (SELECT 1 FROM task_instance t WHERE t.dag_id = dag_run.dag_id AND t.run_id = dag_run.run_id
      AND t.task_id = 'task_0');
INSERT INTO task_instance_history (task_id, dag_id, run_id, map_index, try_number, state, pool, pool_slots, duration)
  SELECT task_id, dag_id, run_id, map_index, 1, 'failed', pool, pool_slots, 0.1 FROM task_instance
  WHERE try_number = 2 AND task_id = 'task_4';
INSERT INTO task_map (dag_id, task_id, run_id, map_index, length, keys)
  SELECT dag_id, repeat('t', 250), run_id, 0, 5, '["a", "ü"]' FROM dag_run WHERE run_type = 'manual';
INSERT INTO dag_run_note (dag_run_id, content, created_at, updated_at)
  SELECT id, E'seen\nü\\', now(), now() FROM dag_run WHERE id % 100 = 12;
INSERT INTO task_instance_note (task_id, dag_id, run_id, map_index, content, created_at, updated_at)
  SELECT 'task_0', dag_id, run_id, -1, '', now(), now() FROM dag_run WHERE id % 50 = 13
    AND EXISTS (SELECT 1 FROM task_instance t WHERE t.dag_id = dag_run.dag_id AND t.run_id = dag_run.run_id
      AND t.task_id = 'task_0');
INSERT INTO dataset (uri, extra, created_at, updated_at, is_orphaned)
  SELECT 's3://bucket/ü/' || n, '{}', now(), now(), n = 5 FROM generate_series(1, 5) n;
INSERT INTO dataset_event (dataset_id, extra, source_task_id, source_dag_id, source_run_id, source_map_index,
    timestamp)
  SELECT 1 + id % 5, '{"a":1}', 'task_0', dag_id, run_id, -1, end_date FROM dag_run
  WHERE id % 120 = 1 AND end_date IS NOT NULL;
INSERT INTO dagrun_dataset_event (dag_run_id, event_id)
  SELECT r.id, e.id FROM dataset_event e JOIN dag_run r ON r.dag_id = e.source_dag_id AND r.run_id = e.source_run_id;
INSERT INTO sla_miss (task_id, dag_id, execution_date, email_sent, timestamp, description, notification_sent)
  SELECT 'task_0', dag_id, execution_date, true, end_date, '', NULL FROM dag_run WHERE id % 500 = 1;
"""
