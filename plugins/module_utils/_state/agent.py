# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The agent lane: one DAG run inside the environment does what only Airflow can do there.

PRIVATE to the collection: no promise is made to other collections.

A request is sealed with a KMS data key that is bound to its id and environment, lies in the environment's bucket
while it is served, expires, and is deleted whatever happens. What starts the run carries its id only. The answer (ids,
statuses, digests; never values) comes back to the bucket, sealed for this request, by a URL that lets the agent put
this one object. Writes happen in Airflow's own process, so nothing of them reaches its audit log.
"""

from __future__ import annotations

import base64
import contextlib
import functools
import hashlib
import json
import pkgutil
import re
import secrets
import time
from collections.abc import Callable
from typing import Any

from ansible_collections.mwaa.migration.plugins.module_utils._bundle import url_signer
from ansible_collections.mwaa.migration.plugins.module_utils._errors import (
    DENIED,
    THROTTLED,
    TRANSIENT,
    MigrationError,
    aws_errors,
    error_code,
    is_aws_error,
    is_missing,
)
from ansible_collections.mwaa.migration.plugins.module_utils._mwaa.access import Access, reach
from ansible_collections.mwaa.migration.plugins.module_utils._mwaa.cli import Cli
from ansible_collections.mwaa.migration.plugins.module_utils._mwaa.environment import major
from ansible_collections.mwaa.migration.plugins.module_utils._mwaa.environment import version as airflow_version
from ansible_collections.mwaa.migration.plugins.module_utils._mwaa.rest import RestClient
from ansible_collections.mwaa.migration.plugins.module_utils._progress import progress, span, wait_until
from ansible_collections.mwaa.migration.plugins.module_utils._state import agent_starts
from ansible_collections.mwaa.migration.plugins.module_utils._state.airflow_agent import open_answer

try:
    from cryptography.fernet import Fernet
except ImportError:  # ansible-core brings it; run() says so where it is missing
    Fernet = None  # type: ignore[assignment,misc]

PREFIX = "mwaa-migration"  # of requests and answers, outside of the DAG folder: they are no code
FOLDER = "mwaa_migration"  # in the DAG folder
AGENT_FILE, DAG_FILE, POLL_FILE = "airflow_agent.py", "mwaa_agent.py", "mwaa_agent_poll.py"
HISTORY_FILES = ("airflow_history.py", "airflow_history_import.py")  # beside the agent's own, where history is wanted
TELLING = ("import_history", "export_history")  # requests that say how far they are while they run
PARSE_SECONDS = 600.0  # MWAA sees a new DAG file after about 300 s [UG mwaa-faqs]
CHANGE_SECONDS = 300.0  # and a changed one after about 30 s [UG mwaa-faqs]
POLL_SECONDS = 3600  # that the polling DAG is good for beyond the wait it was made for
INTERVAL = 5.0
PORTION = 100  # values that one task of Airflow 3 reads
LOST = "lost"  # code of the error where a run ended without an answer: its worker died, as a rule
MARGIN = 300.0  # a request outlives the wait for it: the clocks of two machines differ


class AgentLane:
    """The agent in one environment.

    environment: GetEnvironment's Environment. kms_key_id: the key that seals requests; None where nothing will be run.
    access: what can be called, where that is known. clock: has time(), monotonic() and sleep(); tests bring their own.
    history: its requests are among those to come. A module that says so imports _history.agent_files, which has
    Ansible send these files with it.
    """

    name = "agent"

    def __init__(
        self,
        aws: Any,
        environment: dict[str, Any],
        kms_key_id: str | None,
        *,
        rest: RestClient | None = None,
        access: Access | None = None,
        history: bool = False,
        clock: Any = time,
    ):
        self.aws, self.environment, self.kms_key_id = aws, environment, kms_key_id
        self.more_files = HISTORY_FILES if history else ()
        self.env_name = environment["Name"]
        self.major = major(environment)
        self.bucket = environment["SourceBucketArn"].split(":::")[-1]
        self.folder = f"{environment['DagS3Path'].strip('/')}/{FOLDER}"
        self.prefix = f"{PREFIX}/{self.env_name}"  # environments may share a bucket
        self.requests = f"{self.prefix}/requests/"
        self.notes: list[str] = []  # what was done beside the request itself, for who reads the result
        self.uploaded = False
        self._rest, self._access, self._clock = rest, access, clock

    @functools.cached_property
    def access(self) -> Access:
        return self._access or reach(self.aws, self.environment)

    @property
    def start(self) -> str:
        """How runs are started: rest, cli (before 3, without REST), or schedule (nothing can be called)."""
        if self.access.rest:
            return "rest"
        return "cli" if self.access.cli and self.major < 3 else "schedule"

    @functools.cached_property
    def starter(self) -> agent_starts.Starter:
        if self.start == "rest":
            rest = self._rest or RestClient(self.aws.client("mwaa"), self.env_name, clock=self._clock)
            return agent_starts.ByRest(rest, self.env_name, self.major, self.stamp, f"{FOLDER}/{DAG_FILE}")
        if self.start == "cli":
            return agent_starts.ByCli(Cli.of(self.aws, self.env_name), self.env_name, self.major, self._clock)
        return agent_starts.BySchedule(self.env_name, self._install_poll)

    # -- installing

    @functools.cached_property
    def stamp(self) -> str:
        """Of the DAG's file as this environment needs it; Airflow shows it as the DAG's owner."""
        return hashlib.sha256(self._shell("mwaa_agent_dag.py", STAMP="")).hexdigest()[:12]

    def _shell(self, source: str, **more: str) -> bytes:
        shell = source_file(source).decode()
        constants = {
            "BUCKET": self.bucket,
            "PREFIX": self.prefix,
            "ENVIRONMENT": self.env_name,
            "KMS_KEY": self.kms_key_id,
        }
        for name, value in {**constants, **more}.items():
            shell = shell.replace(f'"@{name}@"', json.dumps(value or ""))
        return shell.encode()

    def files(self) -> dict[str, bytes]:
        """{key in the bucket: content} of the agent as this environment needs it."""
        shell = self._shell("mwaa_agent_dag.py", STAMP=self.stamp)
        sources = {f"{self.folder}/{name}": source_file(name) for name in (*self.more_files, AGENT_FILE)}
        return {**sources, f"{self.folder}/{DAG_FILE}": shell}

    def install(self) -> bool:
        """Upload the agent's files where they are missing or differ, the DAG last. Whether any was."""
        for key, content in self.files().items():
            if self._content(key) != content:
                self._upload(key, content, "the agent")
                self.uploaded = True
        if self.uploaded:
            self.notes.append(f"the agent was uploaded to s3://{self.bucket}/{self.folder}/")
        return self.uploaded

    def _install_poll(self, timeout: float) -> None:
        """See to it that the polling DAG goes on for `timeout` seconds. It ends by itself some time after."""
        key, now = f"{self.folder}/{POLL_FILE}", self._clock.time()
        there = re.search(rb'UNTIL = int\("(\d+)"\)', self._content(key) or b"")
        until = int(there[1]) if there and int(there[1]) > now + timeout else int(now + timeout + POLL_SECONDS)
        content = self._shell("mwaa_agent_poll_dag.py", UNTIL=str(until))
        if self._content(key) != content:
            self._upload(key, content, "the agent's polling DAG")

    def _upload(self, key: str, content: bytes, what: str) -> None:
        with aws_errors(f"upload {what} to s3://{self.bucket}/{key}"):
            self.aws.client("s3").put_object(Bucket=self.bucket, Key=key, Body=content)

    # -- running

    def run(self, request: dict[str, Any], timeout: float) -> dict[str, Any]:
        """Have the agent answer one request ({"op": …}); install() comes before. timeout: seconds, for the run itself.

        counted: in the request, is not sent. {"before": counts, "of": counts}, what was done before this request and
        what there is in all, for who watches (see _Tale).
        Returns the agent's result. Raises MigrationError with the agent's own sentence where it refuses or fails.
        """
        ready = max(timeout, PARSE_SECONDS)
        self.starter.prepare(ready, lambda probe, what, hint: self._wait(probe, ready, what, hint))
        request = {**request, "agent_sha256": _sha256(AGENT_FILE)}
        if self.more_files:
            # not in the stamp: the DAG's file stays as it is, so that Airflow need not read it again for them
            request["agent_files"] = {name: _sha256(name) for name in self.more_files}
        parts = _portions(request) if self.major >= 3 else [request]
        answers = []
        for number, part in enumerate(parts):
            if number:
                progress(f"environment {self.env_name}: the agent has read {number} of {len(parts)} portions")
            answers.append(self._current(part, timeout))
        return answers[0] if len(answers) == 1 else _together(answers)

    def _current(self, request: dict[str, Any], timeout: float) -> dict[str, Any]:
        """One run of the agent in its present version, which may take a while to arrive."""
        began = self._clock.monotonic()
        while True:
            try:
                return self._once(request, timeout + self.starter.delay)
            except MigrationError as error:
                if error.code != "outdated" or self._clock.monotonic() - began > CHANGE_SECONDS:
                    raise
            progress(f"environment {self.env_name}: waiting for the new version of the agent to arrive")
            self._clock.sleep(INTERVAL)

    def _once(self, request: dict[str, Any], timeout: float) -> dict[str, Any]:
        identifier = "r" + secrets.token_hex(16)
        what = f"agent run {identifier} in environment {self.env_name}"
        sent = _Sent(self, identifier)
        request = dict(request)
        tale = _Tale(request.pop("counted", None) or {}) if request["op"] in TELLING else None
        try:
            envelope, data_key = self._seal(sent, request, timeout)
            with aws_errors(f"upload the request of {what} to s3://{self.bucket}/{sent.key}"):
                reply = self.aws.client("s3").put_object(
                    Bucket=self.bucket, Key=sent.key, Body=json.dumps(envelope).encode()
                )
            sent.lies[sent.key] = reply.get("VersionId")
            self.starter.trigger(identifier, what)
            answer = self._wait_for_answer(sent, data_key, what, timeout, tale)
        finally:
            sent.forget()
        if not answer.get("ok"):
            error = answer.get("error") or {}
            raise MigrationError(f"{what}: {error.get('message', 'the agent did not say why')}", code=error.get("code"))
        return answer["result"]

    def _wait(self, probe: Callable[[], Any], timeout: float, describe: Callable[[], str], hint: str) -> Any:
        return wait_until(probe, timeout=timeout, interval=INTERVAL, describe=describe, hint=hint, clock=self._clock)

    def _wait_for_answer(
        self, sent: _Sent, data_key: bytes, what: str, timeout: float, tale: _Tale | None
    ) -> dict[str, Any]:
        """The answer, once it lies there. A run that ended without one is a failure, told as soon as it is known.

        What goes wrong while asking how the run stands is no failure, as the answer alone counts: an environment that
        is being updated has no web server for a while.
        """
        state, trouble = "", ""

        def answered() -> dict[str, Any] | None:
            nonlocal state, trouble
            ended = state in ("success", "failed")
            try:
                body = self._content(sent.answer_key, sent)
            except MigrationError as error:
                if error.code is not None and error.code not in THROTTLED | TRANSIENT:
                    raise
                trouble = f"; {error.message}"  # S3's moods, or the connection broke in the middle of the answer
                return None
            if body is not None:
                answer = open_answer(body, sent.identifier, data_key)
                if answer is not None:
                    return answer
                trouble = (
                    "; what lies there as its answer was not sealed for this request: who else writes to this bucket?"
                )
            if ended:
                raise self._unanswered(sent, what, state, trouble)
            try:
                state = self.starter.state(sent.identifier) or state
            except MigrationError as error:
                trouble = f"; {error.message}"
            return None

        def describe() -> str:
            if tale is None:
                return f"{what}: {state or 'started'}{trouble}"
            with contextlib.suppress(MigrationError):  # a courtesy
                tale.hear(self._content(sent.tale_key), self._clock.monotonic())
            return f"{what}: {state or 'started'}{tale}{trouble}"

        hint = f"{self.starter.hint}; raise wait_timeout"
        return self._wait(answered, timeout, describe, hint)

    def _unanswered(self, sent: _Sent, what: str, state: str, trouble: str) -> MigrationError:
        refusal = None
        with contextlib.suppress(MigrationError):
            refusal = self.starter.refusal(sent.identifier)
        stream = f"dag_id={agent_starts.DAG_ID}/run_id={sent.identifier}"
        if airflow_version(self.environment) < (2, 3):
            stream = f"{agent_starts.DAG_ID}/{agent_starts.TASK_ID}"
        log = f"look at the log group airflow-{self.env_name}-Task for {stream}"
        if refusal == "unanswered":
            return MigrationError(
                f"{what} was served and may have done all it was to do, but its answer could not be put into S3:"
                f" {log}{trouble}",
                code=refusal,
            )
        if refusal:
            return MigrationError(f"{what} was refused ({refusal}): {log}{trouble}", code=refusal)
        return MigrationError(f"{what} ended as {state} without an answer: {log}{trouble}", code=LOST)

    def _seal(self, sent: _Sent, request: dict[str, Any], timeout: float) -> tuple[dict[str, Any], bytes]:
        if not self.kms_key_id:
            raise MigrationError("lane agent needs a key to seal its request with: set kms_key_id or bundle")
        if Fernet is None:
            raise MigrationError("lane agent needs Python's cryptography where the module runs: install cryptography")
        kms = self.aws.client("kms")
        context = {"mwaa-migration": "agent-request", "request": sent.identifier, "environment": self.env_name}
        with aws_errors(f"make a data key with the KMS key {self.kms_key_id}"):
            key = kms.generate_data_key(KeyId=self.kms_key_id, NumberOfBytes=32, EncryptionContext=context)
        seconds = int(timeout + MARGIN)
        identity = {
            "id": sent.identifier,
            "environment": self.env_name,
            "expires_at": int(self._clock.time()) + seconds,
        }
        urls = {"answer_url": self._upload_url(sent.answer_key, seconds)}
        if request["op"] in TELLING:
            urls["progress_url"] = self._upload_url(sent.tale_key, seconds)
            sent.lies[sent.tale_key] = None
        sealed = Fernet(base64.urlsafe_b64encode(key["Plaintext"])).encrypt(
            json.dumps({**request, **identity, **urls}).encode()
        )
        envelope = {
            "version": 1,
            **identity,
            "wrapped_key": base64.b64encode(key["CiphertextBlob"]).decode(),
            "sealed": sealed.decode(),
        }
        token, sent.revoke = self._grant(kms, key["KeyId"], sent.identifier, context)
        if token:
            envelope["grant_token"] = token
        return envelope, key["Plaintext"]

    def _upload_url(self, key: str, seconds: int) -> str:
        with aws_errors(f"sign an upload to s3://{self.bucket}/{key}"):
            return url_signer(self.aws).generate_presigned_url(
                "put_object", Params={"Bucket": self.bucket, "Key": key}, ExpiresIn=seconds
            )

    def _grant(
        self, kms: Any, key_id: str, identifier: str, context: dict[str, str]
    ) -> tuple[str | None, Callable[[], None] | None]:
        """Let the execution role open this one request, and nothing else, until it is answered.

        Where grants may not be made, the role must be allowed to kms:Decrypt by itself: that is tried, and noted.
        """
        try:
            grant = kms.create_grant(
                KeyId=key_id,
                GranteePrincipal=self.environment["ExecutionRoleArn"],
                Operations=["Decrypt"],
                Constraints={"EncryptionContextEquals": context},
                Name=f"mwaa-migration-{identifier}",
            )
        except Exception as exception:
            if not is_aws_error(exception) or error_code(exception) not in DENIED:
                raise
            self.notes.append(
                f"no grant could be made on {self.kms_key_id}: the execution role needs kms:Decrypt on it by its policy"
            )
            return None, None
        return grant.get("GrantToken"), lambda: kms.revoke_grant(KeyId=key_id, GrantId=grant["GrantId"])

    def _content(self, key: str, sent: _Sent | None = None) -> bytes | None:
        try:
            reply = self.aws.client("s3").get_object(Bucket=self.bucket, Key=key)
            if sent is not None:
                sent.lies[key] = reply.get("VersionId")
            return reply["Body"].read()
        except Exception as exception:
            if is_aws_error(exception) and is_missing(exception):
                return None
            if not is_aws_error(exception):
                raise
            with aws_errors(f"read s3://{self.bucket}/{key}"):
                raise


def _portions(request: dict[str, Any]) -> list[dict[str, Any]]:
    """digest_state in several requests: each value that a task of Airflow 3 reads makes its supervisor and itself
    compile the pattern of all secrets seen so far anew (SecretsMasker.add_mask, 3.2.1): time grows as the square.
    """
    ids = request.get("ids") if request["op"] == "digest_state" else None
    parts = [
        {**request, "ids": {kind: named[start : start + PORTION]}}
        for kind, named in (ids or {}).items()
        if named is not None
        for start in range(0, len(named), PORTION)
    ]
    unnamed = {kind: named for kind, named in (ids or {}).items() if not named}
    return [*([{**request, "ids": unnamed}] if unnamed else []), *parts] if len(parts) > 1 else [request]


def _together(answers: list[dict[str, Any]]) -> dict[str, Any]:
    """The answers to the portions of one digest_state, as if it had been asked at once."""
    whole: dict[str, Any] = {**answers[0], "digests": {}, "errors": {}, "notes": []}
    for answer in answers:
        for part in ("digests", "errors"):
            for kind, found in (answer.get(part) or {}).items():
                whole[part].setdefault(kind, {}).update(found)
        whole["notes"] += [note for note in answer.get("notes") or [] if note not in whole["notes"]]
    return whole


class _Tale:
    """How far a request is, as the agent tells: counts by unit ("pieces", "parts", "rows"), never values.

    counted: {"before": {unit: number}, "of": {unit: number}}, each optional.
    """

    def __init__(self, counted: dict[str, dict[str, int]]):
        self.before, self.of = counted.get("before") or {}, counted.get("of") or {}
        self.now: dict[str, int] = {}
        self.first: tuple[float, int] | None = None
        self.rate = 0.0  # rows a second

    def hear(self, body: bytes | None, at: float) -> None:
        """body: what lies at the URL; who can write to the bucket could have written it. at: seconds of a clock."""
        try:
            said = json.loads(body or b"{}")
            now = {unit: int(number) for unit, number in said.items() if unit in ("parts", "pieces", "rows")}
        except (ValueError, TypeError, AttributeError):
            return
        if not now or now == self.now:
            return
        self.now, rows = now, now.get("rows", 0)
        self.first = self.first or (at, rows)
        if at > self.first[0]:
            self.rate = (rows - self.first[1]) / (at - self.first[0])

    def __str__(self) -> str:
        if not self.now:
            return ""
        texts = []
        for unit, number in self.now.items():
            done = number + self.before.get(unit, 0)
            of = f" of {self.of[unit]:,}" if unit in self.of else ""
            texts.append(f"{done:,}{of} {unit}")
        left = self.of.get("rows", 0) - self.before.get("rows", 0) - self.now.get("rows", 0)
        if self.rate >= 1:
            texts.append(f"{self.rate:,.0f} rows/s")
            if left > 0:
                texts.append(f"{span(left / self.rate)} left")
        return ", " + ", ".join(texts)


class _Sent:
    """One request while it is served: what lies in the bucket because of it, and the grant that opens it."""

    def __init__(self, lane: AgentLane, identifier: str):
        self.lane, self.identifier = lane, identifier
        self.key, self.answer_key = f"{lane.requests}{identifier}.json", f"{lane.requests}{identifier}.answer"
        self.tale_key = f"{lane.requests}{identifier}.progress"
        self.lies: dict[str, str | None] = {self.key: None}  # object -> its version, where the bucket has versions
        self.revoke: Callable[[], None] | None = None

    def forget(self) -> None:
        """Delete the objects and the grant; never hides why the run failed."""
        for key, version in self.lies.items():
            self._try(functools.partial(self._delete, key, version), f"s3://{self.lane.bucket}/{key}")
        if self.revoke is not None:
            self._try(self.revoke, f"the grant mwaa-migration-{self.identifier}")

    def _delete(self, key: str, version: str | None) -> None:
        s3, where = self.lane.aws.client("s3"), {"Bucket": self.lane.bucket, "Key": key}
        try:
            s3.delete_object(**where, **({"VersionId": version} if version and version != "null" else {}))
        except Exception as exception:
            if not is_aws_error(exception) or error_code(exception) not in DENIED or not version:
                raise
            s3.delete_object(**where)  # without the right to delete versions: what stays there is sealed

    def _try(self, attempt: Callable[[], None], what: str) -> None:
        try:
            attempt()
        except Exception as exception:
            if not is_aws_error(exception):
                raise
            self.lane.notes.append(f"{what} could not be removed")


def versions(s3: Any, bucket: str, prefix: str) -> list[tuple[str, str]]:
    """(key, version id) of everything below a prefix, delete markers too."""
    with aws_errors(f"list the versions of s3://{bucket}/{prefix}"):
        return [
            (entry["Key"], entry["VersionId"])
            for page in s3.get_paginator("list_object_versions").paginate(Bucket=bucket, Prefix=prefix)
            for entry in [*page.get("Versions", []), *page.get("DeleteMarkers", [])]
        ]


def purge(s3: Any, bucket: str, found: list[tuple[str, str]]) -> None:
    """Delete these versions for good. Raises MigrationError naming the first that could not be."""
    for start in range(0, len(found), 1000):  # what one call takes
        part = [{"Key": key, "VersionId": version} for key, version in found[start : start + 1000]]
        with aws_errors(f"delete versions in s3://{bucket}"):
            reply = s3.delete_objects(Bucket=bucket, Delete={"Objects": part, "Quiet": True})
        for error in reply.get("Errors") or []:
            raise MigrationError(
                f"s3://{bucket}/{error.get('Key')} could not be deleted with its versions ({error.get('Code')}):"
                " allow s3:DeleteObjectVersion on the bucket, and run again",
                code=error.get("Code"),
            )


def source_file(name: str) -> bytes:
    """A file of plugins/agent, which lies beside this one, or in _history, as a link; also inside the archive that
    Ansible makes.
    """
    package = __package__
    if name in HISTORY_FILES:
        package = package.rpartition(".")[0] + "._history"
    with contextlib.suppress(OSError):
        content = pkgutil.get_data(package, name)
        if content is not None:
            return content
    raise MigrationError(f"{name} of the collection is missing: install the collection again")


def _sha256(name: str) -> str:
    return hashlib.sha256(source_file(name)).hexdigest()


def _packed() -> None:
    """Never called: Ansible puts into a module's archive what it sees imported, and source_file() reads it there."""
    from ansible_collections.mwaa.migration.plugins.module_utils._state import (  # noqa: F401
        airflow_agent,
        mwaa_agent_cleanup,
        mwaa_agent_dag,
        mwaa_agent_poll_dag,
    )
