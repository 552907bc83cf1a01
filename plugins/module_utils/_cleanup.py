# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Takes away what a migration brought into an environment for its own use, and nothing else.

PRIVATE to the collection: no promise is made to other collections.

First everything is looked for; then, unless something is at work, it is removed in an order that leaves nothing
behind: what could start a run, the grants, the rows in Airflow's database, the objects with all their versions, and the
lock last. Each step finds nothing to do when it is done again.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ansible_collections.mwaa.migration.plugins.module_utils import _lock
from ansible_collections.mwaa.migration.plugins.module_utils._bundle import (
    MANIFEST,
    PROGRESS,
    S3Store,
    Store,
    open_store,
    url_signer,
)
from ansible_collections.mwaa.migration.plugins.module_utils._errors import (
    DENIED,
    MigrationError,
    aws_errors,
    error_code,
    is_aws_error,
    is_missing,
)
from ansible_collections.mwaa.migration.plugins.module_utils._mwaa import limits
from ansible_collections.mwaa.migration.plugins.module_utils._mwaa.environment import bundles_of, describe
from ansible_collections.mwaa.migration.plugins.module_utils._mwaa.rest import RestClient
from ansible_collections.mwaa.migration.plugins.module_utils._progress import wait_until
from ansible_collections.mwaa.migration.plugins.module_utils._stacks.base import temporary_policy_name
from ansible_collections.mwaa.migration.plugins.module_utils._state.agent import (
    DAG_FILE,
    AgentLane,
    purge,
    source_file,
    versions,
)
from ansible_collections.mwaa.migration.plugins.module_utils._state.agent_starts import DAG_ID, POLL_DAG_ID

DAG_IDS = (DAG_ID, POLL_DAG_ID)
ARGUMENT_SPEC: dict[str, Any] = {
    "environment": {"type": "str", "required": True},
    "bundle": {"type": "str"},
    "bundles": {"type": "list", "elements": "str"},
    "keep_bundle_days": {"type": "int"},
    "kms_key_id": {"type": "str", "no_log": False},
    "source_environments": {
        "type": "list",
        "elements": "dict",
        "options": {
            "name": {"type": "str", "required": True},
            "region": {"type": "str"},
            "profile": {"type": "str"},
            "role_arn": {"type": "str"},
            "kms_key_id": {"type": "str", "no_log": False},
        },
    },
    "api_host": {"type": "str"},
    "wait_timeout": {"type": "int", "default": 1200},
}
INTERVAL = 10.0
SILENCE = 75.0  # seconds without a report: MWAA sees a deletion after about 30 s and parses every 30 s [UG mwaa-faqs]
# of a bundle, beside what its manifest names: what was brought, run history and task logs
OURS = re.compile(
    r"ledger/[^/]+\.json|(history|logs)/(manifest|progress)\.json|history/(parts|interim)/.+|logs/(lists|parts|ledger)/.+"
)
GRANT = "mwaa-migration-"  # what the names of our grants begin with


@dataclass
class Step:
    """One kind of thing to remove. count: how many there are."""

    what: str
    where: str
    count: int
    remove: Callable[[], None]


def cleanup(ctx: Any, clock: Any = time) -> dict[str, Any]:
    """The body of migration_cleanup. Raises MigrationError, before anything was removed where something is at work."""
    return _Cleanup(ctx, clock).run()


def take_out(
    aws: Any, environment: dict[str, Any], keys: list[str], timeout: int, clock: Any = time
) -> tuple[list[dict[str, Any]], list[dict[str, str]]]:
    """Remove the agent from an environment that is left. environment: GetEnvironment's. keys: of its requests.

    What it has just answered ends a moment later: that is waited for.
    Returns what was removed and what remains, as cleanup() does. Raises MigrationError while it serves another request.
    """
    inside = _Inside(aws, environment, keys, timeout, clock, left=True)
    inside.wait_until_served()
    removed = _removed(inside.steps(), check_mode=False)
    inside.say_what_remains()
    return removed, inside.remains


@dataclass
class _Source:
    """A bundle, and what its manifest says."""

    store: Store
    manifest: dict[str, Any]


class _Cleanup:
    def __init__(self, ctx: Any, clock: Any):
        self.ctx, self.aws, self.params, self._clock = ctx, ctx.aws, ctx.params, clock
        self.name: str = self.params["environment"]
        stores = [open_store(url, self.aws) for url in bundles_of(self.params)]
        self.sources = [_Source(store, _document(store, MANIFEST)) for store in stores]
        named = self.params["kms_key_id"]
        keys = [named] if named else [(one.manifest.get("key") or {}).get("kms_key_id") for one in self.sources]
        self.keys: list[str] = sorted({key for key in keys if key})

    def run(self) -> dict[str, Any]:
        if not self.sources or self.ctx.check_mode:
            return self._all()
        with contextlib.ExitStack() as stack:
            held = [(one.store, [stack.enter_context(lock) for lock in self._locks(one)]) for one in self.sources]
            for _store, locks in held:
                for lock in locks:
                    lock.take()
            result = self._all()
            for store, locks in held:
                result["remains"] += self._forget(store, locks)
        return result

    def _locks(self, source: _Source) -> list[contextlib.AbstractContextManager[_lock.Lock]]:
        names = {self.name}
        if self._goes(source):  # nobody may be at work with it, for whatever environment
            names |= {_lock.EXPORT, *(path[len("locks/") : -len(".json")] for path in source.store.list("locks/"))}
        return [_lock.held(source.store, name) for name in sorted(names)]

    def _forget(self, store: Store, locks: list[_lock.Lock]) -> list[dict[str, str]]:
        """Give these locks back, with all their versions, while they are still held. Returns what remains."""
        for lock in locks:
            lock.stop()
        try:
            if isinstance(store, S3Store):
                s3, keys = self.aws.client("s3"), [store.key(lock.path) for lock in locks]
                purge(
                    s3, store.bucket, [one for key in keys for one in versions(s3, store.bucket, key) if one[0] == key]
                )
        except MigrationError as error:
            return [_rest_of("versions of the lock", f"{store.url}/locks/", error.message)]
        finally:
            for lock in locks:
                lock.release()
        return []

    def _all(self) -> dict[str, Any]:
        environment = self._described(self.aws, self.name)
        insides = [self._inside(self.aws, environment, self.keys)] if environment else []
        remains: list[dict[str, str]] = []
        for source in self.params["source_environments"] or []:
            inside = self._left(source)
            if isinstance(inside, _Inside):
                insides.append(inside)
            else:
                remains.append(inside)
        for inside in insides:
            inside.refuse_while_serving()
        policy = _Policy(self.name, self.aws, environment)
        steps = [step for inside in insides for step in inside.steps()]
        steps.append(policy.step())
        steps += [self._bundle(one.store) for one in self.sources if self._goes(one)]
        removed = _removed(steps, self.ctx.check_mode)
        for inside in insides:
            inside.say_what_remains()
        result: dict[str, Any] = {
            "changed": bool(removed),
            "removed": removed,
            "remains": [*(one for inside in insides for one in inside.remains), *policy.remains, *remains],
            "retire": [step for source in self.sources for step in self._retire(source)],
        }
        if self.ctx.diff_mode:
            lines = "".join(f"{item['count']} {item['what']}, {item['where']}\n" for item in removed)
            result["diff"] = {"before": lines, "after": ""}
        return result

    def _inside(self, aws: Any, environment: dict[str, Any], keys: list[str], *, left: bool = False) -> _Inside:
        return _Inside(aws, environment, keys, self.params["wait_timeout"], self._clock, left=left)

    def _left(self, source: dict[str, str | None]) -> _Inside | dict[str, str]:
        """source: one of source_environments, each of which may be in another region or account. What remains, of one
        that is not there.
        """
        name, key = str(source["name"]), source["kms_key_id"]
        aws = self.aws.elsewhere(region=source["region"], profile=source["profile"], role_arn=source["role_arn"])
        environment = self._described(aws, name)
        if environment is None:
            why = f"it is not in {aws.region} (any more), so that its bucket is not known; correct its region if it is"
            return _rest_of("the agent, if it is there", f"environment {name}", why)
        return self._inside(aws, environment, sorted({*self.keys, *([key] if key else [])}), left=True)

    @staticmethod
    def _described(aws: Any, name: str) -> dict[str, Any] | None:
        environment = describe(aws.client("mwaa"), name)
        status = (environment or {}).get("Status")
        if status in limits.BUSY:
            raise MigrationError(
                f"environment {name} is {status}, so nothing was removed: run again when it is AVAILABLE"
            )
        return environment

    def _bundle(self, store: Store) -> Step:
        paths = _paths(store)
        count = len([path for path in store.list() if paths(path)])
        return Step("files of the bundle", store.url, count, lambda: _remove_bundle(self.aws, store, paths))

    def _goes(self, bundle: _Source) -> bool:
        days = self.params["keep_bundle_days"]
        if days is None:
            return False
        try:
            created = datetime.datetime.fromisoformat(str(bundle.manifest["created_at"]).replace("Z", "+00:00"))
        except (KeyError, ValueError):
            return days == 0  # it does not say how old it is
        return self._clock.time() - created.timestamp() >= days * 86400

    def _retire(self, bundle: _Source) -> list[str]:
        """What may be switched off once this environment runs the DAGs, in the order to do it."""
        source = bundle.manifest.get("source") or {}
        if not source:
            return []
        airflow = f"Airflow {source.get('airflow_version', '?')}"
        where = source.get("hostname") or "the source"
        if str(source.get("database")).startswith("arn:"):
            return self._retire_environment(bundle, airflow, where)
        home = f" (AIRFLOW_HOME {source['airflow_home']})" if source.get("airflow_home") else ""
        database = f", {source['database']}," if isinstance(source.get("database"), str) else ""
        steps = [
            f"Pause what is not paused yet in {airflow} on {where}, and let running tasks end",
            f"Stop and disable its scheduler, workers, triggerer and web server on {where}{home}",
            f"Back up its metadata database{database} for as long as your history has to be kept, then switch it off",
            "Take back what only the source used: its users, keys, security group rules, and secrets that were rotated",
        ]
        return steps + self._keep(bundle)

    def _retire_environment(self, bundle: _Source, airflow: str, name: str) -> list[str]:
        return [
            f"Pause what is not paused yet in environment {name} ({airflow}), and let running tasks end",
            f"Delete environment {name}; its database goes with it, for good: carry first what of its history is to be"
            " kept",
            "Take back what only it used: its bucket's DAG folder, execution role, log groups and security group rules",
            *self._keep(bundle),
        ]

    def _keep(self, bundle: _Source) -> list[str]:
        if self._goes(bundle):
            return []
        return [f"Keep the bundle {bundle.store.url} until you are sure, then remove it with keep_bundle_days: 0"]


class _Policy:
    """The right that the execution role was given for as long as the migration lasts (roles/mwaa_stack, iam)."""

    def __init__(self, name: str, aws: Any, environment: dict[str, Any] | None):
        """name: of the environment that is entered."""
        self._aws, self.name = aws, temporary_policy_name(name)
        self.remains: list[dict[str, str]] = []
        self._role = str(environment["ExecutionRoleArn"]).rpartition("/")[2] if environment else ""

    def step(self) -> Step:
        return Step("temporary policies", f"of {self._role}", int(self._is_there()), self._remove)

    def _is_there(self) -> bool:
        if not self._role:
            return False
        try:
            self._aws.client("iam").get_role_policy(RoleName=self._role, PolicyName=self.name)
        except Exception as exception:
            if not is_aws_error(exception):
                raise
            if error_code(exception) in DENIED:
                why = "iam:GetRolePolicy is not allowed, so it could not be looked for"
                self.remains.append(_rest_of(f"policy {self.name}", f"role {self._role}", why))
                return False
            if error_code(exception) == "NoSuchEntity":
                return False
            with aws_errors(f"read policies of role {self._role}"):
                raise
        return True

    def _remove(self) -> None:
        with aws_errors(f"remove policy {self.name} of role {self._role}"):
            self._aws.client("iam").delete_role_policy(RoleName=self._role, PolicyName=self.name)


class _Inside:
    """What is the agent's in one environment. left: nothing was published into it by this migration."""

    def __init__(
        self, aws: Any, environment: dict[str, Any], keys: list[str], timeout: int, clock: Any, *, left: bool = False
    ):
        self.aws, self.environment, self.timeout, self._clock = aws, environment, timeout, clock
        self.left = left
        self.name: str = environment["Name"]
        self.lane = AgentLane(aws, environment, None, clock=clock)
        self.remains: list[dict[str, str]] = []
        s3 = aws.client("s3")
        self.files = versions(s3, self.lane.bucket, f"{self.lane.folder}/")
        self.work = [one for prefix in self._work() for one in versions(s3, self.lane.bucket, prefix)]
        self.grants = [grant for key in keys for grant in self._grants(key)]
        self.dags = self._known_dags()

    def steps(self) -> list[Step]:
        bucket = f"s3://{self.lane.bucket}"
        return [
            Step("KMS grants", f"of {self.name}'s execution role", len(self.grants), self._revoke),
            Step("DAGs of the agent and their rows", f"Airflow of {self.name}", len(self.dags), self._forget_dags),
            Step(
                "versions of the agent's files",
                f"{bucket}/{self.lane.folder}/",
                len(self.files),
                lambda: self._purge(f"{self.lane.folder}/"),
            ),
            Step(
                f"versions of requests{',' if not self.left else ' and'} answers"
                f"{'' if self.left else ' and the index of what was published'}",
                f"{bucket}/",
                len(self.work),
                lambda: self._purge(*self._work()),
            ),
        ]

    # -- looking

    def _work(self) -> tuple[str, ...]:
        own = self.lane.requests, f"{self.lane.prefix}/cleanup.json"
        if self.left:
            return own
        index = str(self.environment.get("DagS3Path", "")).strip("/").replace("/", "~")
        return *own, f"mwaa-migration/published/{index}.json"

    def _known_dags(self) -> list[str]:
        if self.lane.access.rest:
            rest = self._rest()
            return [dag_id for dag_id in DAG_IDS if rest.call("GET", f"/dags/{dag_id}", ok=(404,)).status != 404]
        if not self.files:
            return []
        if self.lane.major >= 3:
            self.remains.append(_rest_of("rows of the agent's DAGs", self.name, self.lane.access.reason))
            return []
        return list(DAG_IDS)  # nobody can be asked: what had files may have rows

    def _rest(self) -> RestClient:
        return RestClient(self.aws.client("mwaa"), self.name, clock=self._clock)

    def _grants(self, key: str) -> list[tuple[str, str]]:
        """(key, grant's id)"""
        if "alias/" in key:
            why = "KMS lists those of a key, not of an alias: give the key's ARN as kms_key_id, to remove killed runs'"
            self.remains.append(_rest_of("KMS grants", key, why))
            return []
        kms, role = self.aws.client("kms"), self.environment["ExecutionRoleArn"]
        try:
            pages = kms.get_paginator("list_grants").paginate(KeyId=key)
            grants = [grant for page in pages for grant in page["Grants"]]
        except Exception as exception:
            if not is_aws_error(exception):
                raise
            if error_code(exception) in DENIED:
                self.remains.append(
                    _rest_of(
                        "KMS grants",
                        key,
                        "kms:ListGrants is not allowed, so those of killed runs could not be looked for",
                    )
                )
                return []
            if is_missing(exception):
                return []
            with aws_errors(f"list the grants of {key}"):
                raise
        found = []
        for grant in grants:
            context = (grant.get("Constraints") or {}).get("EncryptionContextEquals") or {}
            ours = grant.get("Name", "").startswith(GRANT) and context.get("environment") == self.name
            if ours and grant.get("GranteePrincipal") == role:
                found.append((key, grant["GrantId"]))
        return found

    def wait_until_served(self) -> None:
        with contextlib.suppress(MigrationError):  # the refusal says it better
            self._wait(lambda: None if self._serving() else True, "the agent's last run to end")
        self.refuse_while_serving()

    def _serving(self) -> list[str]:
        running = self._running()
        return self._pending() if running is None else running  # where nobody can be asked, the requests tell

    def refuse_while_serving(self) -> None:
        running = self._serving()
        if running:
            raise MigrationError(
                f"the agent is serving {', '.join(running)} in environment {self.name}: nothing was removed;"
                " wait until that has ended, and run again"
            )

    def _running(self) -> list[str] | None:
        """Ids of runs that have not ended; None where nobody can be asked."""
        if not self.lane.access.rest:
            return None
        reply = self._rest().call(
            "GET", f"/dags/{DAG_ID}/dagRuns", {"state": ["queued", "running"], "limit": 100}, ok=(404,)
        )
        runs = (reply.body or {}).get("dag_runs") or [] if reply.status != 404 else []
        return [run["dag_run_id"] for run in runs if run.get("state") in ("queued", "running")]

    def _pending(self) -> list[str]:
        """Ids of requests that lie there and have not expired."""
        s3, now, pending = self.aws.client("s3"), self._clock.time(), []
        with aws_errors(f"read the requests in s3://{self.lane.bucket}/{self.lane.requests}"):
            pages = s3.get_paginator("list_objects_v2").paginate(Bucket=self.lane.bucket, Prefix=self.lane.requests)
            keys = [entry["Key"] for page in pages for entry in page.get("Contents", [])]
            for key in keys:
                if key.endswith(".json"):
                    envelope = _json(s3.get_object(Bucket=self.lane.bucket, Key=key)["Body"].read())
                    expires = envelope.get("expires_at")
                    if isinstance(expires, (int, float)) and expires > now:
                        pending.append(str(envelope.get("id"))[:40])
        return pending

    # -- removing

    def _revoke(self) -> None:
        for key, identifier in self.grants:
            with aws_errors(f"revoke grants of {key}"):
                self.aws.client("kms").revoke_grant(KeyId=key, GrantId=identifier)

    def _forget_dags(self) -> None:
        if self.lane.major >= 3:
            self._forget_by_rest()
        else:
            self._forget_by_parsing()

    def _forget_by_rest(self) -> None:
        """Airflow 3: once its files are gone, Airflow deletes a DAG with its rows, except those of the audit log."""
        self._purge(f"{self.lane.folder}/")
        rest = self._rest()

        def gone() -> bool | None:
            left = False
            for dag_id in DAG_IDS:
                dag = rest.call("GET", f"/dags/{dag_id}", ok=(404,))
                if dag.status != 404:
                    left = True
                    if (dag.body or {}).get("is_stale"):  # before, its file would bring it back
                        rest.call("DELETE", f"/dags/{dag_id}", ok=(404,))
            return None if left else True

        self._wait(gone, "Airflow to see that the agent's files are gone, and to forget its DAGs")

    def _forget_by_parsing(self) -> None:
        """Airflow 2: what stands in the place of the DAG's file has the database when it is parsed."""
        lane, s3 = self.lane, self.aws.client("s3")
        timeout = self.timeout
        report = f"{lane.prefix}/cleanup.json"
        self._purge(report)  # of a cleanup that was interrupted: it says nothing of what has been since
        with aws_errors(f"sign an upload to s3://{lane.bucket}/{report}"):
            url = url_signer(self.aws).generate_presigned_url(
                "put_object", Params={"Bucket": lane.bucket, "Key": report}, ExpiresIn=timeout + 60
            )
        text = source_file("mwaa_agent_cleanup.py").decode()
        text = text.replace('"@REPORT_URL@"', json.dumps(url)).replace(
            "@UNTIL@", str(int(self._clock.time()) + timeout)
        )
        text = text.replace("@TABLES@", "kept" if self.left else "removed")
        dag_file = f"{lane.folder}/{DAG_FILE}"
        with aws_errors(f"replace the agent's DAG file in s3://{lane.bucket}/{lane.folder}/"):
            for key in {key for key, _version in versions(s3, lane.bucket, f"{lane.folder}/")} - {dag_file}:
                s3.delete_object(Bucket=lane.bucket, Key=key)
            s3.put_object(Bucket=lane.bucket, Key=dag_file, Body=text.encode())
        seen: dict[str, Any] = {"last": None, "rows": "not parsed yet"}

        def clean() -> bool | None:
            try:
                reply = s3.get_object(Bucket=lane.bucket, Key=report)
                said, body = str(reply.get("LastModified")), _json(reply["Body"].read())
            except Exception as exception:
                if not is_aws_error(exception) or not is_missing(exception):
                    raise
                return None
            if said == seen["last"]:
                return None
            if body.get("waiting"):
                raise MigrationError(
                    f"the import of history into environment {self.name} is not at its end, its ledger still knows"
                    f" indexes to make again or DAGs to resume ({', '.join(map(str, body['waiting'][:10]))}): run"
                    " mwaa_history_import again, then the cleanup"
                )
            seen["last"], seen["rows"] = said, f"{sum((body.get('rows') or {}).values())} rows deleted"
            # twice, the second time without finding anything: another scheduler may have had the file of before
            if not body.get("rows"):
                return True
            with aws_errors(f"replace the agent's DAG file in s3://{lane.bucket}/{lane.folder}/"):
                # changed, it is parsed again at once, however long min_file_process_interval is there
                s3.put_object(Bucket=lane.bucket, Key=dag_file, Body=f"{text}# after {said}\n".encode())
            return None

        self._wait(clean, "Airflow to parse the file that removes the agent's rows", lambda: str(seen["rows"]))
        self._purge(f"{lane.folder}/")
        quiet: dict[str, Any] = {"versions": [], "since": self._clock.monotonic()}

        def silent() -> bool | None:
            there, now = versions(s3, lane.bucket, report), self._clock.monotonic()
            if there != quiet["versions"]:
                quiet.update(versions=there, since=now)
            return True if now - quiet["since"] >= SILENCE else None

        self._wait(silent, "the last parsing of that file, which is deleted")
        self._purge(report)

    def _wait(self, probe: Callable[[], Any], what: str, state: Callable[[], str] = lambda: "") -> None:
        wait_until(
            probe,
            timeout=self.timeout,
            interval=INTERVAL,
            describe=lambda: f"environment {self.name}: waiting for {what}{f' ({state()})' if state() else ''}",
            hint=f"look at the log group airflow-{self.name}-DAGProcessing, and run again",
            clock=self._clock,
        )

    def _purge(self, *prefixes: str) -> None:
        s3 = self.aws.client("s3")
        purge(s3, self.lane.bucket, [one for prefix in prefixes for one in versions(s3, self.lane.bucket, prefix)])

    # -- saying

    def say_what_remains(self) -> None:
        logs = (self.environment.get("LoggingConfiguration") or {}).get("TaskLogs") or {}
        if logs.get("Enabled"):
            self.remains.append(
                _rest_of(
                    "task logs of the agent's runs",
                    f"airflow-{self.name}-Task",
                    "they hold sentences, no values; their group's retention ends them",
                )
            )
        if self.lane.major >= 3 and self.lane.access.rest:
            reason = (
                "Airflow 3 has no way to delete them, and shows no row of a DAG that is gone; where the agent ran, they"
                " say that it was there, and who triggered it"
            )
            for what in ("rows of the audit log", "names of the agent's DAGs among the permissions"):
                self.remains.append(_rest_of(what, f"Airflow of {self.name}", reason))


def _removed(steps: list[Step], check_mode: bool) -> list[dict[str, Any]]:
    """Do what there is to do. Returns it, as the module does."""
    todo = [step for step in steps if step.count]
    for step in todo:
        if not check_mode:
            step.remove()
    return [{"what": step.what, "where": step.where, "count": step.count} for step in todo]


def _document(store: Store, path: str) -> dict[str, Any]:
    """Read as it lies there, for its dates and names alone: nothing that it says is opened or run."""
    try:
        return _json(store.read(path))
    except MigrationError as error:
        if error.code != "NotFound":
            raise
        return {}


def _paths(store: Store) -> Callable[[str], bool]:
    """Which paths are the bundle's. It may lie in a folder, or a bucket, with other things."""
    named = {MANIFEST, PROGRESS}
    for document in (_document(store, MANIFEST), _document(store, PROGRESS)):
        named |= {str(entry.get("path")) for entry in document.get("files") or [] if isinstance(entry, dict)}
    return lambda path: path in named or OURS.fullmatch(path) is not None


def _remove_bundle(aws: Any, store: Store, paths: Callable[[str], bool]) -> None:
    """All of it but the locks; last what tells the names of the others."""
    for last in (False, True):
        if isinstance(store, S3Store):
            s3, prefix = aws.client("s3"), f"{store.prefix}/" if store.prefix else ""
            found = [(key, one) for key, one in versions(s3, store.bucket, prefix) if paths(key[len(prefix) :])]
            purge(s3, store.bucket, [one for one in found if (one[0][len(prefix) :] in (MANIFEST, PROGRESS)) is last])
            continue
        for path in store.list():
            if paths(path) and (path in (MANIFEST, PROGRESS)) is last:
                store.delete(path)


def _rest_of(what: str, where: str, reason: str) -> dict[str, str]:
    return {"what": what, "where": where, "reason": reason}


def _json(body: bytes) -> dict[str, Any]:
    try:
        document = json.loads(body)
    except ValueError:
        return {}
    return document if isinstance(document, dict) else {}
