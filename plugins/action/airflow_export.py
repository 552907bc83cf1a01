# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""airflow_export, on the controller: carries the agent to the source, and what it finds into the bundle.

The source is a host, or an MWAA environment, where the agent is a DAG and code lies in a bucket.
"""

from __future__ import annotations

import base64
import json
import os
import shlex
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, cast

from ansible.plugins.action import ActionBase
from ansible_collections.mwaa.migration.plugins.action.progress import ActionModule as Showing
from ansible_collections.mwaa.migration.plugins.module_utils import (
    _access,
    _hosts,
    _options,
    _requirements,
    _startup,
    _versions,
)
from ansible_collections.mwaa.migration.plugins.module_utils._aws import AWS_ARGUMENT_SPEC, Aws
from ansible_collections.mwaa.migration.plugins.module_utils._bundle import (
    KINDS,
    MANIFEST,
    PROGRESS,
    SINGULAR,
    Bundle,
    S3Store,
    Store,
    StoredFile,
    changed_items,
    open_store,
    sha256,
    state_path,
)
from ansible_collections.mwaa.migration.plugins.module_utils._errors import MigrationError, aws_error, is_aws_error
from ansible_collections.mwaa.migration.plugins.module_utils._lock import EXPORT, breaks_lock, controller, held, run_of
from ansible_collections.mwaa.migration.plugins.module_utils._lock import Run as Owner
from ansible_collections.mwaa.migration.plugins.module_utils._source import Agent, Run, find
from ansible_collections.mwaa.migration.plugins.module_utils._source_environment import (
    SOURCE_ARGUMENTS,
    Code,
    SourceEnvironment,
    seal_key,
)

PIECE = 4 << 20  # bytes of files in one answer over the connection
ROUND = 100  # presigned URLs handed over at once
THREADS = 8  # requests to S3 at once
URL_SECONDS = 900  # a round must be done by then; the next one gets new URLs
ATTEMPTS = 3  # for a file that changes while it is read
SHOW_EVERY = 5.0  # seconds

ARGUMENT_SPEC: dict[str, Any] = {
    "bundle": {"type": "str", "required": True},
    "kms_key_id": {"type": "str", "no_log": False},
    "target_version": {"type": "str", "required": True},
    "airflow_home": {"type": "str"},
    "airflow_python": {"type": "str"},
    "airflow_command_prefix": {"type": "raw"},
    "transport": {"type": "str", "default": "auto", "choices": ["auto", "s3", "connection"]},
    "environment_variables": {"type": "str", "default": "list", "choices": list(_startup.CHOICES)},
    "environment": {"type": "str"},
    "state": {"type": "str", "default": "exported", "choices": ["exported", "listed"]},
    "hosts": {"type": "dict", "default": {}},
    "on_difference": {"type": "str", "default": "fail", "choices": ["fail", "list"]},
    **SOURCE_ARGUMENTS,
}


class Export:
    """One export. Nothing is written before the source has answered everything; the manifest is written last."""

    def __init__(
        self,
        params: dict[str, Any],
        aws: Aws,
        run: Run,
        show: Callable[[str], None],
        check_mode: bool,
        owner: Owner | None = None,
    ):
        self.params, self.aws, self.show, self.check_mode = params, aws, show, check_mode
        self.owner = owner or run_of(os.getpid(), passing=True)
        _versions.require(params["target_version"])
        self.store: Store = open_store(params["bundle"], aws)
        if params["transport"] == "s3" and not isinstance(self.store, S3Store):
            raise MigrationError(f"transport s3 needs a bundle in S3, not {params['bundle']}: use transport connection")
        self._remote = run
        self.not_carried: list[dict[str, str]] = []
        self.findings: list[str] = []
        self.lost: list[dict[str, str]] = []  # files that changed or vanished while they were sent
        self.stored: dict[str, StoredFile] = {}

    def run(self) -> dict[str, Any]:
        if self.check_mode:
            return self._run()
        with held(self.store, EXPORT, self.owner) as self.lock:
            return self._run()

    def _run(self) -> dict[str, Any]:
        started = time.monotonic()
        self._find()
        self.store.check_place()
        seen = state_of_writing(self.store)
        bundle = Bundle.resume(self.store, self.aws, self.params["kms_key_id"])
        if bundle is None and not self.params["kms_key_id"]:
            raise MigrationError(
                f"there is no bundle at {self.store.url} yet: set kms_key_id to the key that is to seal it"
            )
        plan, state = self._ask(bundle)
        identity = plan["identity"]
        source = {
            key: identity[key] for key in ("airflow_version", "python_version", "hostname", "airflow_home", "database")
        }
        if bundle is not None:
            bundle.check_source(source)
        if bundle is None and not self.check_mode:
            bundle = Bundle.create(self.store, self.aws, self.params["kms_key_id"], source)
            state = self._state(bundle)
        documents = self._documents(plan, state)
        files, roots = self._wanted(plan)
        listing = self.store.list()
        changes = self._changes(bundle, files, documents, state, listing)
        changed = bundle is None or self._must_write(bundle, changes, source)
        if not self.check_mode and bundle is not None and changed:
            self.lock.take()
            if state_of_writing(self.store) != seen:
                raise MigrationError(
                    f"{self.store.url} was written to by another export while this one read the source: run it again"
                )
            bundle.source = source
            self._write(bundle, changes, files, roots, documents, state, plan)
        self._leave(bundle)
        counts = dict(identity["counts"] if state is None else {**state["counts"], "dags": identity["counts"]["dags"]})
        counts["default_connections_left_out"] = len(state["defaults"]) if state else 0
        counts["files"] = len(files)
        names = {kind: changes.names(kind) for kind in ("added", "changed", "removed")}
        return {
            "changed": changed,
            "bundle": self.store.url,
            "bundle_id": bundle.bundle_id if bundle else None,
            "source": {
                **source,
                **{key: identity[key] for key in ("executor", "dags_folder", "plugins_folder", "user", "python")},
            },
            "target_version": self.params["target_version"],
            "counts": counts,
            "access": self.access,
            "state": changes.state,
            "files": {**names, "unchanged": len(changes.unchanged)},
            "not_carried": self.not_carried,
            "findings": self.findings,
            "duration": round(time.monotonic() - started, 1),
        }

    # -- asking

    def _find(self) -> None:
        self.agent = Agent(self._remote, find(self._remote, self.params["airflow_home"], self.params["airflow_python"]))

    def _leave(self, bundle: Bundle | None) -> None:
        """Nothing of the agent is left on a host."""

    def _state(self, bundle: Bundle) -> dict[str, Any]:
        return self.agent.call(self._state_request(bundle))

    def _ask(self, bundle: Bundle | None) -> tuple[dict[str, Any], dict[str, Any] | None]:
        requests: list[dict[str, Any]] = [{"op": "plan"}]
        if bundle is not None:
            requests.append(self._state_request(bundle))
        self.show(f"airflow_export: reading {self.agent.source}")
        answers = self.agent.calls(requests)
        sentence = answers[0]["identity"]["fernet"]["sentence"]
        if sentence:
            raise MigrationError(sentence)
        return answers[0], answers[1] if bundle is not None else None

    def _state_request(self, bundle: Bundle) -> dict[str, Any]:
        return {
            "op": "export_state",
            "data_key": base64.b64encode(bundle.data_key).decode(),
            "environment": _startup.sealed(self.params["environment_variables"], self.params["target_version"]),
        }

    def _documents(self, plan: dict[str, Any], state: dict[str, Any] | None) -> dict[str, bytes]:
        """requirements.txt, options.json and inventory.json; fills not_carried and findings."""
        identity, target = plan["identity"], self.params["target_version"]
        requirements, options, variables = self._derived(plan)
        defaults = state["defaults"] if state else []
        self.not_carried += state["faults"] if state else identity["faults"]
        self.not_carried += [
            {
                "kind": "default_connection",
                "id": conn_id,
                "reason": f"untouched since Airflow {identity['airflow_version']} made it",
            }
            for conn_id in defaults
        ]
        self.not_carried += variables.not_carried
        self.findings += variables.findings
        ended = _versions.ended(target)
        self.findings += [ended] if ended else []
        self._elsewhere(plan)
        proposal = self._access(plan["access"])
        comparison = self._compared(plan)
        for name, listing in sorted(plan["files"].items()):
            if not listing["exists"]:
                self.findings.append(f"the source's {name} folder {listing['root']} does not exist")
            if listing["caches"]:
                self.findings.append(
                    f"{name}: {listing['caches']} compiled caches and version control folders are left out"
                )
            for skipped in listing["skipped"]:
                self.not_carried.append(
                    {"kind": "file", "id": f"{name}/{skipped['path']}", "reason": skipped["reason"]}
                )
        self.not_carried += requirements.not_carried + _options.not_carried(options)
        self.findings += requirements.findings + options["findings"]
        fernet = identity["fernet"]
        if fernet["lookalikes"]:
            self.findings.append(
                f"{fernet['lookalikes']} values look like Fernet ciphertext but are stored as clear text;"
                " they are carried as they are"
            )
        documents = {"startup.sh": variables.script.encode()} if variables.script else {}
        if comparison.differences:
            documents["hosts.json"] = _json(comparison.differences)
        return {
            **documents,
            "access.json": _json(proposal),
            "access.md": _access.render(proposal).encode(),
            **({"requirements.txt": requirements.text.encode()} if requirements.text else {}),
            "options.json": _json(options),
            "inventory.json": _json(
                {
                    "source": {
                        key: identity[key]
                        for key in ("airflow_version", "python_version", "hostname", "airflow_home", "dags_folder")
                    },
                    "target_version": target,
                    "counts": state["counts"] if state else identity["counts"],
                    "default_connections": defaults,
                    "dags": plan["dags"],
                    "requirements": {"changed": requirements.changed, "left_to_image": requirements.left_to_image},
                    "not_carried": self.not_carried,
                    "findings": self.findings,
                }
            ),
        }

    def _derived(self, plan: dict[str, Any]) -> tuple[_requirements.Requirements, dict[str, Any], _startup.Decision]:
        """What the target's version makes of what is installed, configured and set in the environment."""
        identity, target = plan["identity"], self.params["target_version"]
        return (
            _requirements.derive(plan["distributions"], identity["python_version"], target),
            _options.classify(plan["options"], identity["airflow_version"], target),
            _startup.decide(plan["environment"], self.params["environment_variables"], target),
        )

    def _elsewhere(self, plan: dict[str, Any]) -> None:
        identity = plan["identity"]
        if identity["secrets_backend"]:
            self.findings.append(
                f"the source also reads variables and connections from {identity['secrets_backend']}:"
                " what lies there is not carried; configure the same backend for the environment"
            )
        for path in identity["unreadable"]:
            self.findings.append(
                f"{path}, from which systemd takes Airflow's environment, is not readable for {identity['user']}:"
                " what is set there was not seen; become a user who may read it"
            )
        for bundle in plan["dag_bundles_elsewhere"]:
            reason = f"its DAGs come by {bundle['classpath']}, not from a folder: check them out, publish that folder"
            self.not_carried.append({"kind": "dag_bundle", "id": bundle["name"], "reason": reason})
        for name in sorted(plan["files"]):
            if name.startswith("dags/"):
                self.findings.append(
                    f"the DAG bundle {name[len('dags/') :]} becomes the folder {name}: what its DAGs import from their"
                    " own folder by name is found there no more"
                )

    def _access(self, access: dict[str, Any]) -> dict[str, Any]:
        partition = self.aws.caller["Arn"].split(":")[1]
        proposal = _access.propose(
            access,
            partition=partition,
            region=self.aws.region,
            account=self.aws.account_id,
            environment=self.params["environment"],
        )
        self.access = _access.counts(proposal)
        if self.access["users"] or self.access["custom_roles"]:
            self.findings.append(
                f"{self.access['users']} users and {self.access['custom_roles']} roles of the source's own are not"
                " carried, MWAA lets IAM principals in: access.md in the bundle lists them and proposes policies"
            )
        return proposal

    def _compared(self, plan: dict[str, Any]) -> _hosts.Comparison:
        """Other hosts of the same installation; MigrationError where they differ and that is not to be."""
        identity = plan["identity"]
        mine = {**{key: identity[key] for key in ("hostname", "airflow_version")}, "files": plan["files"]}
        comparison = _hosts.compare(mine, self.params["hosts"])
        if comparison.differences and self.params["on_difference"] == "fail":
            raise MigrationError(
                f"the hosts of this installation do not hold the same: {_hosts.sentence(comparison)}: make them equal,"
                f" or set on_difference to list to carry what {identity['hostname']} holds"
            )
        self.not_carried += comparison.not_carried
        return comparison

    def _wanted(self, plan: dict[str, Any]) -> tuple[dict[str, dict[str, Any]], dict[str, str]]:
        files, roots = {}, {}
        for name, listing in plan["files"].items():
            roots[name] = listing["root"]
            for file in listing["files"]:
                files[f"{name}/{file['path']}"] = {**file, "root": name}
        return files, roots

    # -- comparing

    def _changes(
        self,
        bundle: Bundle | None,
        files: dict[str, dict[str, Any]],
        documents: dict[str, bytes],
        state: dict[str, Any] | None,
        listing: dict[str, tuple[int, str | None]],
    ) -> Changes:
        changes = Changes(bundle)
        named = bundle.files if bundle else {}
        stored = {**bundle.stored, **bundle.files} if bundle else {}

        def there(path: str, digest: str) -> StoredFile | None:
            for known in (named.get(path), bundle.stored.get(path) if bundle else None):
                if known and known.sha256 == digest and self.store.holds(known, listing):
                    return known
            return None

        known_files = {path: there(path, file["sha256"]) for path, file in files.items()}
        # what arrived just before an export was interrupted is in the store and in no record
        left = [path for path in files if known_files[path] is None and path in listing and path not in named]
        with ThreadPoolExecutor(THREADS) as pool:
            known_files.update(zip(left, pool.map(lambda path: self.store.find(path, files[path]["sha256"]), left)))
        for path, known in known_files.items():
            changes.add(path, known)
        for path, data in documents.items():
            changes.add(path, there(path, sha256(data)))
        for kind in KINDS:
            path = state_path(kind)
            known = stored.get(path)
            same = bool(
                state and known and known.content == state["content"][kind] and self.store.holds(known, listing)
            )
            if state is not None or bundle is None:
                changes.add(path, known if same else None)
            if state is not None and bundle is not None and not same:
                before = self._before(bundle, kind) if path in named else {}
                after = json.loads(bundle.unseal(state["sealed"][kind].encode(), path))
                differing: dict[str, list[str]] = {}
                for identifier, how in changed_items(before, after, kind):
                    differing.setdefault(how, []).append(identifier)
                changes.state[kind] = differing
        changes.removed = sorted(set(named) - set(files) - set(documents) - {state_path(kind) for kind in KINDS})
        return changes

    @staticmethod
    def _before(bundle: Bundle, kind: str) -> dict[str, Any]:
        try:
            return bundle.read_state(kind)
        except MigrationError:
            return {}  # lost or altered in the store: it is about to be written anew

    def _must_write(self, bundle: Bundle, changes: Changes, source: dict[str, Any]) -> bool:
        return bool(
            changes.missing or changes.removed or set(changes.unchanged) - set(bundle.files) or bundle.source != source
        )

    # -- writing

    def _write(
        self,
        bundle: Bundle,
        changes: Changes,
        files: dict[str, dict[str, Any]],
        roots: dict[str, str],
        documents: dict[str, bytes],
        state: dict[str, Any] | None,
        plan: dict[str, Any],
    ) -> None:
        self.stored = dict(changes.unchanged)
        sending = [path for path in changes.missing if path in files]
        if sending:
            bundle.save_progress(self.stored)
            self._send(bundle, sending, files, roots)
        if self.lost:
            documents = self._documents_again(plan, state)
        for path, data in documents.items():
            if path in changes.missing or sha256(data) != self.stored[path].sha256:
                self.stored[path] = self.store.write(path, data)
        for kind in KINDS:
            path = state_path(kind)
            if state is not None and path in changes.missing:
                file = self.store.write(path, state["sealed"][kind].encode())
                self.stored[path] = StoredFile(**{**file.__dict__, "content": state["content"][kind]})
        self.lock.check()  # the manifest is what makes all of this count
        bundle.files = self.stored
        bundle.save()
        for path in changes.removed:
            self.store.delete(path)

    def _documents_again(self, plan: dict[str, Any], state: dict[str, Any] | None) -> dict[str, bytes]:
        self.not_carried, self.findings = [], []
        documents = self._documents(plan, state)
        self.not_carried += self.lost
        inventory = json.loads(documents["inventory.json"])
        inventory["not_carried"] = self.not_carried
        return {**documents, "inventory.json": _json(inventory)}

    def _send(self, bundle: Bundle, paths: list[str], files: dict[str, dict[str, Any]], roots: dict[str, str]) -> None:
        progress = Progress(self.show, len(paths), sum(files[path]["size"] for path in paths))
        presigned = self.params["transport"] != "connection" and isinstance(self.store, S3Store)
        for root in sorted(roots):
            pending = [path for path in paths if files[path]["root"] == root]
            if presigned and pending:
                pending, presigned = self._send_presigned(bundle, pending, files, roots[root], progress)
            if pending:
                self._send_over_connection(bundle, pending, files, roots[root], progress)

    def _send_presigned(
        self, bundle: Bundle, paths: list[str], files: dict[str, dict[str, Any]], root: str, progress: Progress
    ) -> tuple[list[str], bool]:
        """(paths that are left for the connection, whether presigned URLs work from the host)."""
        store = cast(S3Store, self.store)  # transport s3 means one
        queue, attempts = list(paths), dict.fromkeys(paths, 0)
        while queue:
            round_, queue = queue[:ROUND], queue[ROUND:]
            puts = []
            for path in round_:
                file = files[path]
                url, headers = store.presign_put(path, file["size"], file["sha256"], URL_SECONDS)
                puts.append(
                    {
                        "path": file["path"],
                        "size": file["size"],
                        "sha256": file["sha256"],
                        "url": url,
                        "headers": headers,
                    }
                )
            names = {files[path]["path"]: path for path in round_}
            answers = self.agent.call({"op": "export_files", "root": root, "puts": puts})["files"]
            for answer in answers:
                path, status = names.pop(answer["path"]), answer["status"]
                file = files[path]
                if status == "sent":
                    self.stored[path] = StoredFile(
                        path, file["size"], file["sha256"], answer["version_id"], answer["etag"]
                    )
                    progress.done(file["size"])
                elif status == "changed":
                    attempts[path] += 1
                    files[path] = {**file, "size": answer["size"], "sha256": answer["sha256"]}
                    if attempts[path] < ATTEMPTS:
                        queue.append(path)
                    else:
                        self._lost(path, "it changed each time it was read")
                elif status == "vanished":
                    self._lost(path, "it vanished while the export ran")
                else:
                    reason = f"the host cannot put into {self.store.url} with presigned URLs ({answer['reason']})"
                    if self.params["transport"] == "s3":
                        raise MigrationError(f"{reason}: use transport connection, or let the host reach S3")
                    self.show(f"airflow_export: {reason}; files go over the connection")
                    return [path, *names.values(), *queue], False
            queue += names.values()
            bundle.save_progress(self.stored)
        return [], True

    def _send_over_connection(
        self, bundle: Bundle, paths: list[str], files: dict[str, dict[str, Any]], root: str, progress: Progress
    ) -> None:
        small = [path for path in paths if files[path]["size"] <= PIECE]
        with ThreadPoolExecutor(THREADS) as pool:
            for batch in _batches(small, lambda path: files[path]["size"]):
                retry = self._send_batch(pool, batch, files, root, progress)
                for path in retry:
                    self._send_whole(path, files, root, progress)
                bundle.save_progress(self.stored)
        for path in paths:
            if files[path]["size"] > PIECE:
                self._send_whole(path, files, root, progress)
                bundle.save_progress(self.stored)

    def _send_batch(
        self,
        pool: ThreadPoolExecutor,
        batch: list[str],
        files: dict[str, dict[str, Any]],
        root: str,
        progress: Progress,
    ) -> list[str]:
        """Many small files in one answer; gives back those that were not what the plan said."""
        request = {"op": "export_files", "root": root, "max_bytes": 2 * PIECE}
        names = {files[path]["path"]: path for path in batch}
        answers = self.agent.call({**request, "paths": [{"path": name} for name in names]})["files"]
        writes, retry = [], set(batch)
        for answer in answers:
            path = names[answer["path"]]
            if answer.get("vanished"):
                retry.discard(path)
                self._lost(path, "it vanished while the export ran")
            elif "data" in answer and answer["end"]:
                data = base64.b64decode(answer["data"])
                if sha256(data) == files[path]["sha256"]:
                    retry.discard(path)
                    writes.append((path, data))
        for file in pool.map(lambda one: self.store.write(*one), writes):
            self.stored[file.path] = file
            progress.done(file.size)
        return [path for path in batch if path in retry]

    def _send_whole(self, path: str, files: dict[str, dict[str, Any]], root: str, progress: Progress) -> None:
        """One file piece by piece, as often as it takes to read it unchanged."""
        name = files[path]["path"]
        for _attempt in range(ATTEMPTS):
            answer = self.agent.call({"op": "measure", "root": root, "paths": [name]})["files"][0]
            if "error" in answer:
                self._lost(
                    path,
                    "it vanished while the export ran" if answer["vanished"] else f"cannot be read: {answer['error']}",
                )
                return
            try:
                file = self.store.write_stream(path, self._pieces(root, name, answer["size"]))
            except _Changed:
                continue
            if file.sha256 == answer["sha256"]:
                files[path] = {**files[path], "size": file.size, "sha256": file.sha256}
                self.stored[path] = file
                progress.done(file.size)
                return
        self._lost(path, "it changed each time it was read")

    def _pieces(self, root: str, name: str, size: int) -> Iterator[bytes]:
        offset = 0
        while True:
            request = {
                "op": "export_files",
                "root": root,
                "paths": [{"path": name, "offset": offset}],
                "max_bytes": PIECE,
            }
            answer = self.agent.call(request)["files"][0]
            if "data" not in answer:
                raise _Changed()
            data = base64.b64decode(answer["data"])
            offset += len(data)
            if offset > size:
                raise _Changed()
            yield data
            if answer["end"]:
                return

    def _lost(self, path: str, reason: str) -> None:
        self.stored.pop(path, None)
        self.lost.append({"kind": "file", "id": path, "reason": reason})


class EnvironmentExport(Export):
    """The same of an MWAA environment. Its agent answers for what is in Airflow; code comes out of its bucket.

    Check mode puts no agent there: what only Airflow knows is then taken to be as it was.
    """

    UNSEEN = ("inventory.json", "access.json", "access.md")

    def __init__(
        self,
        params: dict[str, Any],
        aws: Aws,
        source: SourceEnvironment,
        show: Callable[[str], None],
        check_mode: bool,
        owner: Owner | None = None,
    ):
        super().__init__(params, aws, lambda _command, _stdin: (1, "", ""), show, check_mode, owner)
        refuse_host_options(params, {**OF_A_HOST, **OF_ITS_STATE})
        self.source = source
        self.bundle: Bundle | None = None

    def _find(self) -> None:
        self.show(f"airflow_export: reading the bucket of environment {self.source.name}")
        self.code: Code = self.source.code()

    def _ask(self, bundle: Bundle | None) -> tuple[dict[str, Any], dict[str, Any] | None]:
        self.bundle = bundle
        self.key = seal_key(self.params, bundle, self.aws, self.source.aws)
        plan = self._unasked() if self.check_mode else self._asked()
        plan.update(files=self.code.listings, dag_bundles_elsewhere=[])
        plan["identity"] = {
            "secrets_backend": None,
            "fernet": {"sentence": None, "lookalikes": 0},
            "faults": [],
            **plan["identity"],
            **self.source.identity,
            "unreadable": [],
        }
        return plan, self._state(bundle) if bundle is not None and not self.check_mode else None

    def _asked(self) -> dict[str, Any]:
        self.source.enter(self.key)
        plan = self.source.plan()
        counts = plan["identity"].get("counts") or {}
        plan["identity"]["counts"] = {**counts, "dags": len(plan["dags"])}
        return plan

    def _unasked(self) -> dict[str, Any]:
        before = self.bundle.source if self.bundle else {}
        names = ("python", "python_version", "user", "airflow_home", "executor", "dags_folder", "plugins_folder")
        identity = {**dict.fromkeys(names), "python_version": self.source.python, **before}
        counts = dict.fromkeys((*KINDS, "dags"))
        access: dict[str, Any] = {"model": "unknown", "users": [], "roles": {}, "access_control": []}
        return {"identity": {**identity, "counts": counts}, "dags": [], "access": access}

    def _state(self, bundle: Bundle) -> dict[str, Any]:
        return self.source.state(self._state_request(bundle), bundle)

    def _documents(self, plan: dict[str, Any], state: dict[str, Any] | None) -> dict[str, bytes]:
        self.findings += self.code.findings
        documents = super()._documents(plan, state)
        if self.check_mode:
            self.findings.append(
                f"check mode puts no agent into environment {self.source.name}: its state, DAGs and users were not read"
            )
            before = self.bundle.files if self.bundle else {}
            documents.update({name: self.bundle.read(name) for name in self.UNSEEN if self.bundle and name in before})
        elif plan["access"]["model"] == "unknown":
            self.findings.append("a task of Airflow 3 does not see users and their roles: access.md names none")
        for name in (state or {}).get("hidden") or ():
            self.findings.append(f"{name} is set in the environment and hides what its database holds: it is carried")
        return documents

    def _derived(self, plan: dict[str, Any]) -> tuple[_requirements.Requirements, dict[str, Any], _startup.Decision]:
        return self.code.derived(self.source, self.params["target_version"])

    def _send(self, bundle: Bundle, paths: list[str], files: dict[str, dict[str, Any]], roots: dict[str, str]) -> None:
        progress = Progress(self.show, len(paths), sum(files[path]["size"] for path in paths))

        def carry(path: str) -> StoredFile:
            return self.store.write_stream(path, self.code.open[path]())

        with ThreadPoolExecutor(THREADS) as pool:
            for batch in _batches(paths, lambda path: files[path]["size"]):
                for file in pool.map(carry, batch):
                    if file.sha256 != files[file.path]["sha256"]:
                        self._lost(file.path, "it changed each time it was read")
                        continue
                    self.stored[file.path] = file
                    progress.done(file.size)
                bundle.save_progress(self.stored)

    def _leave(self, bundle: Bundle | None) -> None:
        self.findings += self.source.notes
        if self.check_mode or self.params["source_agent"] == "kept":
            return
        self.show(f"airflow_export: taking the agent out of environment {self.source.name}")
        self.findings += self.source.leave(self.key)


OF_A_HOST = {"airflow_home": None, "airflow_python": None, "airflow_command_prefix": None}  # with their defaults
OF_ITS_STATE = {"hosts": None, "state": "exported", "transport": "auto", "environment_variables": "list"}


def refuse_host_options(params: dict[str, Any], options: dict[str, Any]) -> None:
    """MigrationError where some of these, which are a host's, are given for an environment."""
    given = [name for name, default in options.items() if (params.get(name) or default) != default]
    if given:
        raise MigrationError(
            f"with source_environment, {', '.join(given)} {'has' if len(given) == 1 else 'have'} no meaning (its"
            " startup.sh is carried as it is, its code comes out of its bucket): leave it out"
        )


class _Changed(Exception):
    """A file is not what it was when its reading began."""


class Changes:
    """What differs between the source and the bundle: paths, and names of state items."""

    def __init__(self, bundle: Bundle | None):
        self._named = bundle.files if bundle else {}
        self.unchanged: dict[str, StoredFile] = {}
        self.missing: list[str] = []
        self.removed: list[str] = []
        self.state: dict[str, dict[str, list[str]]] = {}

    def add(self, path: str, stored: StoredFile | None) -> None:
        if stored is None:
            self.missing.append(path)
        else:
            self.unchanged[path] = stored

    def names(self, how: str) -> list[str]:
        """Paths that are added, changed or removed, for the reader; a resumed file counts as added."""
        if how == "removed":
            return self.removed
        resumed = [path for path in self.unchanged if path not in self._named]
        return sorted(path for path in self.missing + resumed if (path in self._named) == (how == "changed"))


class Progress:
    """Says on the screen how far the files are, now and then."""

    def __init__(self, show: Callable[[str], None], files: int, size: int):
        self._show, self._files, self._size = show, files, size
        self._sent_files = self._sent = 0
        self._last = time.monotonic()

    def done(self, size: int) -> None:
        self._sent_files += 1
        self._sent += size
        if time.monotonic() - self._last >= SHOW_EVERY:
            self._last = time.monotonic()
            self._show(
                f"airflow_export: {self._sent_files} of {self._files} files,"
                f" {_megabytes(self._sent)} of {_megabytes(self._size)}"
            )


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.1f} MB" if size >= 1e5 else f"{size / 1e3:.1f} kB"


def diff_text(result: dict[str, Any]) -> str:
    """For --diff: names with + - ~, never values."""
    signs = {"added": "+", "removed": "-", "changed": "~"}
    lines = [
        f"{signs[how]} {SINGULAR[kind]} {identifier}"
        for kind in KINDS
        for how in signs
        for identifier in result["state"].get(kind, {}).get(how, [])
    ]
    sealed = {state_path(kind) for kind in KINDS}
    lines += [f"{signs[how]} {path}" for how in signs for path in result["files"][how] if path not in sealed]
    return "".join(f"{line}\n" for line in lines)


def state_of_writing(store: Store) -> list[str | None]:
    """Which manifest and which progress lie there: it changes with every export that writes."""
    return [there.tag if (there := store.read_tagged(path)) else None for path in (MANIFEST, PROGRESS)]


def _json(document: Any) -> bytes:
    return json.dumps(document, indent=1, sort_keys=True).encode() + b"\n"


def _batches(paths: Iterable[str], size: Callable[[str], int]) -> Iterator[list[str]]:
    batch: list[str] = []
    total = 0
    for path in paths:
        if batch and (total + size(path) > PIECE or len(batch) >= 500):
            yield batch
            batch, total = [], 0
        batch.append(path)
        total += size(path)
    if batch:
        yield batch


def command_prefix(given: Any) -> str:
    """airflow_command_prefix as one piece of a command line: a list is quoted, a string is taken as it is."""
    if given is None or (isinstance(given, str) and "\n" not in given):
        return (given or "").strip()
    if isinstance(given, list) and all(isinstance(word, (str, int)) for word in given):
        return shlex.join(str(word) for word in given)
    raise MigrationError("airflow_command_prefix is neither a command line nor a list of its words")


def listing(run: Run, params: dict[str, Any]) -> dict[str, Any]:
    """The hashes of what one host holds, for the host that exports to compare with."""
    agent = Agent(run, find(run, params["airflow_home"], params["airflow_python"]))
    return {"listing": _hosts.digest(agent.call({"op": "listing"}))}


class Asking(Showing):
    """What plugins that ask an agent at the source share: options, the connection, the screen, failures."""

    ARGUMENTS: dict[str, Any]
    _requires_connection = True
    _supports_check_mode = True
    _supports_diff = False

    def act(self, params: dict[str, Any], task_vars: dict[str, Any], owner: Owner) -> dict[str, Any]:
        """The plugin's own work; its result. Raises MigrationError. owner: who holds locks."""
        raise NotImplementedError

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result = ActionBase.run(self, tmp, task_vars)
        _validated, params = self.validate_argument_spec(argument_spec={**AWS_ARGUMENT_SPEC, **self.ARGUMENTS})
        failure: MigrationError | None = None
        try:
            result.update(self.act(params, task_vars or {}, run_of(controller(), breaks_lock(task_vars))))
        except MigrationError as exception:
            failure = exception
        except Exception as exception:
            if not is_aws_error(exception):
                raise
            failure = aws_error(exception)
        if failure is not None:
            result.update(failure.as_failure(), failed=True, changed=False)
        return result

    def host(self, params: dict[str, Any]) -> Run:
        """What runs commands on the source's host, for all plugins that ask an agent there."""
        if not self._connection.has_pipelining:
            raise MigrationError(
                f"the connection {self._connection.transport} cannot hand stdin to a command, which the agent"
                " needs: use ssh, local or community.docker.docker"
            )
        self._prefix = command_prefix(params["airflow_command_prefix"])
        return self._execute

    def _execute(self, command: str, stdin: bytes) -> tuple[int, str, str]:
        command = f"{self._prefix} {command}" if self._prefix else command
        done = self._low_level_execute_command(command, sudoable=True, in_data=stdin)
        return done["rc"], done["stdout"], done["stderr"]


class ActionModule(Asking):
    ARGUMENTS = ARGUMENT_SPEC
    _supports_diff = True

    def act(self, params: dict[str, Any], task_vars: dict[str, Any], owner: Owner) -> dict[str, Any]:
        show, check_mode = self._display.display, self._task.check_mode
        if params["source_environment"]:
            aws = Aws.for_plugin(params)
            with self.source_environment(params, aws, task_vars) as source:
                result = EnvironmentExport(params, aws, source, show, check_mode, owner).run()
        else:
            host = self.host(params)
            if params["state"] == "listed":
                return {**listing(host, params), "changed": False}
            result = Export(params, Aws.for_plugin(params), host, show, check_mode, owner).run()
        return {**result, "diff": {"prepared": diff_text(result)}} if self._task.diff else result
