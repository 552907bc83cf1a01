# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The agent lane: one DAG run inside the environment does what only Airflow can do there.

PRIVATE to the collection: no promise is made to other collections.

A request is sealed with a KMS data key that is bound to its id and environment, lies in the environment's bucket
while it is served, expires, and is deleted whatever happens. What triggers the run carries its id only. The answer
(ids, statuses, digests; never values) is read as an XCom. Writes happen in Airflow's own process, so nothing of
them reaches its audit log.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import pkgutil
import secrets
import time
from collections.abc import Callable
from typing import Any

from ansible_collections.mwaa.migration.plugins.module_utils._errors import (
    DENIED,
    MigrationError,
    aws_errors,
    error_code,
    is_aws_error,
    is_missing,
)
from ansible_collections.mwaa.migration.plugins.module_utils._mwaa.environment import major
from ansible_collections.mwaa.migration.plugins.module_utils._mwaa.rest import RestClient, RestError
from ansible_collections.mwaa.migration.plugins.module_utils._progress import progress, wait_until

try:
    from cryptography.fernet import Fernet
except ImportError:  # ansible-core brings it; run() says so where it is missing
    Fernet = None  # type: ignore[assignment,misc]

DAG_ID = "mwaa_agent"
TASK_ID = "t"
XCOM_KEY = "r"
PREFIX = "mwaa-migration"  # of requests, outside of the DAG folder: they are no code
FOLDER = "mwaa_migration"  # in the DAG folder
AGENT_FILE, DAG_FILE = "airflow_agent.py", "mwaa_agent.py"
PARSE_SECONDS = 600.0  # MWAA sees a new DAG file after about 300 s [UG mwaa-faqs]
CHANGE_SECONDS = 300.0  # and a changed one after about 30 s [UG mwaa-faqs]
INTERVAL = 5.0
MARGIN = 300.0  # a request outlives the wait for it: the clocks of two machines differ


class AgentLane:
    """The agent in one environment.

    environment: GetEnvironment's Environment. kms_key_id: the key that seals requests; None where nothing will be run.
    clock: has time(), monotonic() and sleep(); tests bring their own.
    """

    name = "agent"

    def __init__(
        self,
        aws: Any,
        environment: dict[str, Any],
        kms_key_id: str | None,
        *,
        rest: RestClient | None = None,
        clock: Any = time,
    ):
        self.aws, self.environment, self.kms_key_id = aws, environment, kms_key_id
        self.env_name = environment["Name"]
        self.major = major(environment)
        self.bucket = environment["SourceBucketArn"].split(":::")[-1]
        self.folder = f"{environment['DagS3Path'].strip('/')}/{FOLDER}"
        self.notes: list[str] = []  # what was done beside the request itself, for who reads the result
        self._rest = rest or RestClient(aws.client("mwaa"), self.env_name)
        self._clock = clock

    # -- installing

    def files(self) -> dict[str, bytes]:
        """{key in the bucket: content} of the agent as this environment needs it."""
        shell = _source("mwaa_agent_dag.py").decode()
        constants = {"BUCKET": self.bucket, "PREFIX": PREFIX, "ENVIRONMENT": self.env_name, "KMS_KEY": self.kms_key_id}
        for name, value in constants.items():
            shell = shell.replace(f"@{name}@", value or "")
        return {f"{self.folder}/{AGENT_FILE}": _source(AGENT_FILE), f"{self.folder}/{DAG_FILE}": shell.encode()}

    def install(self) -> bool:
        """Upload the agent's files where they are missing or differ, the DAG last. Whether any was."""
        s3, uploaded = self.aws.client("s3"), False
        for key, content in self.files().items():
            there = self._content(key)
            if there == content:
                continue
            with aws_errors(f"upload the agent to s3://{self.bucket}/{key}"):
                s3.put_object(Bucket=self.bucket, Key=key, Body=content)
            uploaded = True
        if uploaded:
            self.notes.append(f"the agent was uploaded to s3://{self.bucket}/{self.folder}/")
        return uploaded

    def remove(self) -> bool:
        """Take the agent's files, requests and DAG rows away. Whether there were any."""
        s3, removed = self.aws.client("s3"), False
        with aws_errors(f"remove the agent from s3://{self.bucket}"):
            for prefix in (f"{self.folder}/", f"{PREFIX}/requests/"):
                for page in s3.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=prefix):
                    for entry in page.get("Contents", []):
                        s3.delete_object(Bucket=self.bucket, Key=entry["Key"])
                        removed = True
        reply = self._rest.call("DELETE", f"/dags/{DAG_ID}", ok=(404,))
        return removed or reply.status != 404

    # -- running

    def run(self, request: dict[str, Any], timeout: float) -> dict[str, Any]:
        """Have the agent answer one request ({"op": …}); install() comes before. timeout: seconds, for the run itself.

        Returns the agent's result. Raises MigrationError with the agent's own sentence where it refuses or fails.
        """
        self._wait_for_dag(max(timeout, PARSE_SECONDS))
        request = {**request, "agent_sha256": hashlib.sha256(_source(AGENT_FILE)).hexdigest()}
        began = self._clock.monotonic()
        while True:
            try:
                return self._once(request, timeout)
            except MigrationError as error:
                if error.code != "outdated" or self._clock.monotonic() - began > CHANGE_SECONDS:
                    raise
            progress(f"environment {self.env_name}: waiting for the new version of the agent to arrive")
            self._clock.sleep(INTERVAL)

    def _once(self, request: dict[str, Any], timeout: float) -> dict[str, Any]:
        identifier = "r" + secrets.token_hex(4)[:7]
        what = f"agent run {identifier} in environment {self.env_name}"
        revoke, key = None, f"{PREFIX}/requests/{identifier}.json"
        try:
            envelope, revoke = self._seal(identifier, request, timeout)
            with aws_errors(f"upload the request of {what} to s3://{self.bucket}/{key}"):
                self.aws.client("s3").put_object(Bucket=self.bucket, Key=key, Body=json.dumps(envelope).encode())
            self._trigger(identifier, what)
            state = self._wait_for_end(identifier, what, timeout)
            answer = self._answer(identifier, what, state)
        finally:
            self._forget(key, revoke)
        if answer.get("id") != identifier:
            raise MigrationError(f"{what}: the answer belongs to another request: is another DAG named {DAG_ID}?")
        if not answer.get("ok"):
            error = answer.get("error") or {}
            raise MigrationError(f"{what}: {error.get('message', 'the agent did not say why')}", code=error.get("code"))
        return answer["result"]

    def _seal(
        self, identifier: str, request: dict[str, Any], timeout: float
    ) -> tuple[dict[str, Any], Callable[[], None] | None]:
        if not self.kms_key_id:
            raise MigrationError("lane agent needs a key to seal its request with: set kms_key_id or bundle")
        if Fernet is None:
            raise MigrationError("lane agent needs Python's cryptography where the module runs: install cryptography")
        kms = self.aws.client("kms")
        context = {"mwaa-migration": "agent-request", "request": identifier, "environment": self.env_name}
        with aws_errors(f"make a data key with the KMS key {self.kms_key_id}"):
            key = kms.generate_data_key(KeyId=self.kms_key_id, NumberOfBytes=32, EncryptionContext=context)
        identity = {
            "id": identifier,
            "environment": self.env_name,
            "expires_at": int(self._clock.time() + timeout + MARGIN),
        }
        sealed = Fernet(base64.urlsafe_b64encode(key["Plaintext"])).encrypt(
            json.dumps({**request, **identity}).encode()
        )
        envelope = {
            "version": 1,
            **identity,
            "wrapped_key": base64.b64encode(key["CiphertextBlob"]).decode(),
            "sealed": sealed.decode(),
        }
        token, revoke = self._grant(kms, key["KeyId"], identifier, context)
        if token:
            envelope["grant_token"] = token
        return envelope, revoke

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

    def _forget(self, key: str, revoke: Callable[[], None] | None) -> None:
        """Delete the request and its grant; never hides why the run failed."""
        for attempt in (lambda: self.aws.client("s3").delete_object(Bucket=self.bucket, Key=key), revoke):
            if attempt is not None:
                try:
                    attempt()
                except Exception as exception:
                    if not is_aws_error(exception):
                        raise
                    self.notes.append(f"s3://{self.bucket}/{key} or its grant could not be removed")

    def _wait_for_dag(self, timeout: float) -> None:
        def parsed() -> bool | None:
            reply = self._rest.call("GET", f"/dags/{DAG_ID}", ok=(404,))
            if reply.status == 404:
                self._raise_import_error()
                return None
            dag = reply.body or {}
            if dag.get("is_active") is False or dag.get("is_stale") is True:
                return None
            if dag.get("is_paused"):
                self._rest.call("PATCH", f"/dags/{DAG_ID}", {"update_mask": "is_paused"}, {"is_paused": False})
            return True

        wait_until(
            parsed,
            timeout=timeout,
            interval=INTERVAL,
            describe=lambda: f"environment {self.env_name}: waiting for Airflow to see the agent's DAG",
            hint=f"look at the log group airflow-{self.env_name}-DAGProcessing for {FOLDER}/{DAG_FILE}",
            clock=self._clock,
        )

    def _raise_import_error(self) -> None:
        body = self._rest.call("GET", "/importErrors", {"limit": 100}, ok=(403, 404)).body or {}
        for error in body.get("import_errors") or []:
            if str(error.get("filename", "")).endswith(f"{FOLDER}/{DAG_FILE}"):
                text = str(error.get("stack_trace", "")).strip().splitlines()
                raise MigrationError(
                    f"Airflow cannot import the agent's DAG {FOLDER}/{DAG_FILE}: {(text or ['?'])[-1]}"
                )

    def _trigger(self, identifier: str, what: str) -> None:
        body: dict[str, Any] = {"dag_run_id": identifier, "conf": {"request": identifier}}
        if self.major >= 3:
            body["logical_date"] = None  # required there, and null is "now"
        for attempt in range(5):
            try:
                self._rest.call("POST", f"/dags/{DAG_ID}/dagRuns", body=body, ok=(409,))
                return
            except RestError as error:
                if not error.maybe_done or attempt == 4:
                    raise
                progress(f"{what}: the trigger was not answered, trying again")

    def _wait_for_end(self, identifier: str, what: str, timeout: float) -> str:
        state = "queued"

        def ended() -> str | None:
            nonlocal state
            state = (self._rest.call("GET", f"/dags/{DAG_ID}/dagRuns/{identifier}").body or {}).get("state", state)
            return state if state in ("success", "failed") else None

        return wait_until(
            ended,
            timeout=timeout,
            interval=INTERVAL,
            describe=lambda: f"{what}: {state}",
            hint=f"look at the task log of {DAG_ID} and at the workers of {self.env_name}; raise wait_timeout",
            clock=self._clock,
        )

    def _answer(self, identifier: str, what: str, state: str) -> dict[str, Any]:
        path = f"/dags/{DAG_ID}/dagRuns/{identifier}/taskInstances/{TASK_ID}/xcomEntries/{XCOM_KEY}"
        reply = self._rest.call("GET", path, ok=(404,))
        if reply.status == 404:
            raise MigrationError(
                f"{what} ended as {state} without an answer: look at the log group airflow-{self.env_name}-Task for"
                f" dag_id={DAG_ID}/run_id={identifier}"
            )
        answer = (reply.body or {}).get("value")
        for _layer in range(2):  # 3.x may show a text as JSON
            if isinstance(answer, str):
                with contextlib.suppress(ValueError):
                    answer = json.loads(answer)
        if not isinstance(answer, dict):
            raise MigrationError(f"{what}: the answer is not the agent's")
        return answer

    def _content(self, key: str) -> bytes | None:
        try:
            return self.aws.client("s3").get_object(Bucket=self.bucket, Key=key)["Body"].read()
        except Exception as exception:
            if is_aws_error(exception) and is_missing(exception):
                return None
            if not is_aws_error(exception):
                raise
            with aws_errors(f"read s3://{self.bucket}/{key}"):
                raise


def _source(name: str) -> bytes:
    """A file of plugins/agent, which lies beside this one as a link; also inside the archive that Ansible makes."""
    content = pkgutil.get_data(__package__, name)
    if content is None:
        raise MigrationError(f"{name} of the collection is missing: install the collection again")
    return content


def _packed() -> None:
    """Never called: Ansible puts into a module's archive what it sees imported, and _source() reads it there."""
    from ansible_collections.mwaa.migration.plugins.module_utils._state import (  # noqa: F401
        airflow_agent,
        mwaa_agent_dag,
    )
