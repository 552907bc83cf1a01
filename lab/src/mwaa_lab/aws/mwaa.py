# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The MWAA control plane: environments and their states, tags, tokens, InvokeRestApi and the CLI's gate.

Knows nothing of HTTP servers or of ministack: ``front.py`` brings requests, ``cloudformation.py`` brings resources,
``webserver.py`` brings what comes in over TLS. Threads: every method may be called from any.
"""

from __future__ import annotations

import base64
import concurrent.futures
import contextlib
import copy
import datetime
import json
import logging
import re
import secrets
import shlex
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import botocore.exceptions

from mwaa_lab.aws import limits
from mwaa_lab.aws.model import ApiError
from mwaa_lab.engine import PRIVATE_DOMAIN, AwsAccess, Engine, EngineError, EnvSpec

log = logging.getLogger("mwaa_lab.mwaa")

_LOG_MODULES = {
    "DagProcessingLogs": "DAGProcessing",
    "SchedulerLogs": "Scheduler",
    "WebserverLogs": "WebServer",
    "WorkerLogs": "Worker",
    "TaskLogs": "Task",
}
_LIVE = ("AVAILABLE", "UPDATE_FAILED", "UPDATING", "CREATING_SNAPSHOT", "ROLLING_BACK", "MAINTENANCE")
_SETTLED = ("AVAILABLE", "UPDATE_FAILED", "CREATE_FAILED", "UNAVAILABLE", "DELETED")
_SNAPSHOT_SECONDS = 0.3
_SERVICE_ACCOUNT = "210987654321"

Permitted = Callable[[str, str], bool | None]
"""Action and resource to what the caller's policies say; None: nothing at all of such calls."""


def invalid(message: str) -> ApiError:
    return ApiError(400, "ValidationException", message)


@dataclass(eq=False)
class Hold:
    """An UPDATING on order: how many GetEnvironment calls still see it (None: a timer ends it), whether all is down."""

    calls: int | None
    down: bool


@dataclass
class Environment:
    """One environment. ``shown`` is what GetEnvironment answers; ``lock`` guards it."""

    account: str
    region: str
    shown: dict[str, Any]
    lock: threading.RLock = field(default_factory=threading.RLock)
    held: Hold | None = None
    moving: bool = False
    """Its Airflow version is being changed."""
    cli_slots: threading.BoundedSemaphore = field(
        default_factory=lambda: threading.BoundedSemaphore(limits.CLI_AT_ONCE)
    )

    @property
    def name(self) -> str:
        return self.shown["Name"]

    @property
    def status(self) -> str:
        return self.shown["Status"]

    @property
    def down(self) -> bool:
        """Its web server does not answer."""
        return self.moving or (self.held is not None and self.held.down)

    @property
    def version(self) -> str:
        return self.shown["AirflowVersion"]

    @property
    def private_only(self) -> bool:
        return self.shown["WebserverAccessMode"] == "PRIVATE_ONLY"

    @property
    def private_name(self) -> str:
        """The web server's name in its VPC, like AWS's, and under a domain that exists nowhere."""
        return f"{uuid.uuid5(uuid.NAMESPACE_URL, self.shown['Arn'])}-vpce.{PRIVATE_DOMAIN}"

    def spec(self) -> EnvSpec:
        with self.lock:
            return {**copy.deepcopy(self.shown), "account": self.account, "region": self.region}


@dataclass(frozen=True)
class _Token:
    environment: Environment
    kind: str
    expires: float
    principal: str
    role: str = "Admin"


class Reply(Exception):
    """An answer of an environment's web server that is not 200: status, text body, headers."""

    def __init__(self, status: int, body: dict[str, Any], headers: dict[str, str] | None = None) -> None:
        super().__init__(status)
        self.status = status
        self.body = body
        self.headers = headers or {}


class ControlPlane:
    """All environments of all accounts and regions."""

    def __init__(
        self,
        engine: Engine,
        aws: AwsAccess,
        webserver: str,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
        as_of: datetime.date | None = None,
    ) -> None:
        self.engine = engine
        self._told = self._as_of = as_of
        self._aws = aws
        self._webserver = webserver
        self._clock = clock
        self._monotonic = monotonic
        self._clock_offset = 0.0
        self._environments: dict[tuple[str, str, str], Environment] = {}
        self._tokens: dict[str, _Token] = {}
        self._rest_calls: dict[tuple[str, str], deque[float]] = {}
        self._lock = threading.RLock()
        self._rest_pool = concurrent.futures.ThreadPoolExecutor(max_workers=64, thread_name_prefix="lab-rest")

    # --- the API -----------------------------------------------------------------------------------------------------

    def handle(
        self,
        operation: str,
        values: dict[str, Any],
        account: str,
        region: str,
        principal: str,
        inside: bool = False,
        permitted: Permitted = lambda action, resource: None,
    ) -> dict[str, Any]:
        """Run one operation on input that ``model.parse_input`` has let through; the output's members, or ApiError.

        ``inside``: the caller stands in the environment's VPC, which matters for a private web server. ``permitted``:
        what the caller's policies say of an action on a resource.
        """
        if operation == "ListEnvironments":
            return self._list(values, account, region)
        if operation == "CreateEnvironment":
            return {"Arn": self.create(values, account, region).shown["Arn"]}
        if operation in ("TagResource", "UntagResource", "ListTagsForResource"):
            return self._tags(operation, values, account)
        if operation == "PublishMetrics":
            raise invalid("PublishMetrics is for internal use and is no longer available.")
        environment = self.get(account, region, values["Name"])
        if operation == "GetEnvironment":
            with environment.lock:
                self._count_down(environment)
                return {"Environment": copy.deepcopy(environment.shown)}
        if operation == "UpdateEnvironment":
            self.update(environment, {key: value for key, value in values.items() if key != "Name"})
            return {"Arn": environment.shown["Arn"]}
        if operation == "DeleteEnvironment":
            self.delete(environment)
            return {}
        if operation == "CreateCliToken":
            arn = environment.shown["Arn"]
            if permitted("airflow:CreateCliToken", arn) is False:
                raise _denied(principal, "airflow:CreateCliToken", arn)
            token = self._token(environment, "cli", principal)
            return {"CliToken": token, "WebServerHostname": self.hostname(environment, inside)}
        if operation == "CreateWebLoginToken":
            identity = principal.split(":", 5)[-1]
            role = _airflow_role(environment, "airflow:CreateWebLoginToken", principal, permitted)
            return {
                "WebToken": self._token(environment, "web", principal, role),
                "WebServerHostname": self.hostname(environment, inside),
                "IamIdentity": identity,
                "AirflowIdentity": identity[:64],
            }
        if operation == "InvokeRestApi":
            if not inside and environment.private_only:
                raise ApiError(  # U: that it cannot be invoked from outside a VPC is documented, the answer is not
                    403,
                    "AccessDeniedException",
                    f"The web server of environment {environment.name} is private: "
                    "InvokeRestApi cannot be invoked from outside of a VPC.",
                )
            role = _airflow_role(environment, "airflow:InvokeRestApi", principal, permitted)
            return self._invoke(environment, values, role)
        raise ApiError(404, "UnknownOperationException", f"The lab does not know the operation {operation}.")

    def get(self, account: str, region: str, name: str) -> Environment:
        with self._lock:
            found = self._environments.get((account, region, name))
        if found is None:
            raise ApiError(404, "ResourceNotFoundException", f"Environment {name} not found.")
        return found

    def hostname(self, environment: Environment, inside: bool) -> str:
        """Where the web server is reached: a private name resolves nowhere but inside (the lab's SSH server maps it).

        U: which name is told where there are both; here the one that fits where the caller stands.
        """
        if environment.shown["WebserverAccessMode"] == "PUBLIC_ONLY":
            return self._webserver
        return environment.private_name if inside or environment.private_only else self._webserver

    def all(self) -> list[Environment]:
        with self._lock:
            return list(self._environments.values())

    def _list(self, values: dict[str, Any], account: str, region: str) -> dict[str, Any]:
        with self._lock:
            names = sorted(name for (a, r, name) in self._environments if (a, r) == (account, region))
        after = ""
        if values.get("NextToken"):
            try:
                after = base64.urlsafe_b64decode(values["NextToken"].encode()).decode()
            except ValueError:
                raise invalid("The NextToken is not valid.") from None
        rest = [name for name in names if name > after]
        page = rest[: values.get("MaxResults", 25)]
        answer: dict[str, Any] = {"Environments": page}
        if len(rest) > len(page):
            answer["NextToken"] = base64.urlsafe_b64encode(page[-1].encode()).decode()
        return answer

    def _tags(self, operation: str, values: dict[str, Any], account: str) -> dict[str, Any]:
        arn = values["ResourceArn"].split(":")
        environment = self.get(arn[4], arn[3], arn[5].partition("/")[2])
        if arn[4] != account:
            raise ApiError(403, "AccessDeniedException", "The environment belongs to another account.")
        with environment.lock:
            tags = environment.shown.setdefault("Tags", {})
            if operation == "TagResource":
                tags.update(values["Tags"])
            elif operation == "UntagResource":
                for key in values["tagKeys"]:
                    tags.pop(key, None)
            else:
                return {"Tags": dict(tags)}
        return {}

    # --- create, update, delete --------------------------------------------------------------------------------------

    def create(self, values: dict[str, Any], account: str, region: str) -> Environment:
        """Accept a new environment (status CREATING) and make it in the background."""
        name = values["Name"]
        version = values.get("AirflowVersion") or limits.offered(self.day())[-1]
        if fault := limits.not_offered(version, self.day()):
            raise invalid(fault)
        _check_numbers({**_defaults(values.get("EnvironmentClass")), **values})
        _check_options(values, version)
        with self._lock:
            if (account, region, name) in self._environments:
                raise invalid(f"Environment {name} already exists.")
        self._check_resources(values, account, region, values["NetworkConfiguration"]["SubnetIds"])
        now = self._clock()
        shown: dict[str, Any] = {
            "AirflowConfigurationOptions": {},
            "WebserverAccessMode": "PRIVATE_ONLY",
            "EndpointManagement": "SERVICE",
            "WeeklyMaintenanceWindowStart": "SUN:03:30",
            **_defaults(values.get("EnvironmentClass")),
            **{key: value for key, value in values.items() if key not in ("LoggingConfiguration", "Tags")},
            "AirflowVersion": version,
            "Name": name,
            "Status": "CREATING",
            "Arn": f"arn:{partition(region)}:airflow:{region}:{account}:environment/{name}",
            "CreatedAt": now,
            "ServiceRoleArn": (
                f"arn:{partition(region)}:iam::{account}:role/aws-service-role/airflow.amazonaws.com/"
                "AWSServiceRoleForAmazonMWAA"
            ),
            "CeleryExecutorQueue": (
                f"arn:{partition(region)}:sqs:{region}:{_SERVICE_ACCOUNT}:airflow-celery-{secrets.token_hex(8)}"
            ),
            "DatabaseVpcEndpointService": f"com.amazonaws.vpce.{region}.vpce-svc-{secrets.token_hex(8)}",
            "LoggingConfiguration": _logging(name, account, region, {}, values.get("LoggingConfiguration")),
            "LastUpdate": {"Status": "PENDING", "CreatedAt": now},
            "Tags": dict(values.get("Tags") or {}),
        }
        environment = Environment(account, region, shown)
        self._name_web_server(environment)
        with self._lock:
            if (account, region, name) in self._environments:
                raise invalid(f"Environment {name} already exists.")
            self._environments[account, region, name] = environment
        self._background(environment, lambda: self._create(environment))
        return environment

    def _name_web_server(self, environment: Environment) -> None:
        shown = environment.shown
        shown["WebserverUrl"] = self.hostname(environment, inside=False)
        if shown["WebserverAccessMode"] == "PUBLIC_ONLY":
            shown.pop("WebserverVpcEndpointService", None)
        else:
            service = f"com.amazonaws.vpce.{environment.region}.vpce-svc-{secrets.token_hex(8)}"
            shown.setdefault("WebserverVpcEndpointService", service)

    def _create(self, environment: Environment) -> None:
        try:
            # An account gets it with its first environment.
            iam = self._aws.client("iam", account=environment.account, region=environment.region)
            with contextlib.suppress(botocore.exceptions.ClientError):  # it is there
                iam.create_service_linked_role(AWSServiceName="airflow.amazonaws.com")
            self._make_log_groups(environment)
            self.engine.create(environment.spec())
        except Exception as error:  # noqa: BLE001 - whatever an engine raises is a failed creation
            self._finish(environment, "CREATE_FAILED", error)
        else:
            self._finish(environment, "AVAILABLE", None)

    def update(self, environment: Environment, changes: dict[str, Any]) -> None:
        """Accept an update (status UPDATING) and apply it in the background. Members left out stay as they are."""
        changes = copy.deepcopy(changes)
        strategy = changes.pop("WorkerReplacementStrategy", None)
        with environment.lock:
            if environment.status not in ("AVAILABLE", "UPDATE_FAILED", "MAINTENANCE"):
                raise invalid(
                    f"Environment {environment.name} cannot be updated while its status is {environment.status}."
                )
            old = copy.deepcopy(environment.shown)
            version = changes.get("AirflowVersion", environment.version)
            if version != environment.version:
                fault = limits.upgrade_fault(environment.version, version, self.day())
                if fault:
                    raise invalid(fault)
            merged = {**old, **changes}
            _check_numbers(merged)
            _check_options(merged, version)
            network = {**old["NetworkConfiguration"], **changes.get("NetworkConfiguration", {})}
            merged["NetworkConfiguration"] = network
            merged["LoggingConfiguration"] = _logging(
                environment.name,
                environment.account,
                environment.region,
                old["LoggingConfiguration"],
                changes.get("LoggingConfiguration"),
            )
            touched = {key for key in ("SourceBucketArn", "ExecutionRoleArn", "NetworkConfiguration") if key in changes}
            if touched:
                self._check_resources(merged, environment.account, environment.region, network["SubnetIds"])
            now = self._clock()
            pending = {"Status": "PENDING", "CreatedAt": now}
            if strategy:
                pending["WorkerReplacementStrategy"] = strategy
            merged.update(Status="UPDATING", LastUpdate=pending)
            environment.shown = merged
            self._name_web_server(environment)
        self._background(environment, lambda: self._update(environment, old, changes))

    def _update(self, environment: Environment, old: dict[str, Any], changes: dict[str, Any]) -> None:
        environment.moving = changes.get("AirflowVersion", old["AirflowVersion"]) != old["AirflowVersion"]
        before = environment.spec() | old
        try:
            self._make_log_groups(environment)
            if environment.moving:
                # The documented sequence of a version change: UPDATING, CREATING_SNAPSHOT, UPDATING.
                time.sleep(_SNAPSHOT_SECONDS)
                self._status(environment, "CREATING_SNAPSHOT")
                self.engine.snapshot(before)
                time.sleep(_SNAPSHOT_SECONDS)
                self._status(environment, "UPDATING")
            self.engine.update(environment.spec(), changes)
        except Exception as error:  # noqa: BLE001 - whatever an engine raises is a failed update
            status = self._roll_back(environment, before) if environment.moving else "UPDATE_FAILED"
            with environment.lock:
                kept = {key: environment.shown[key] for key in ("LastUpdate", "Status", "Tags")}
                environment.shown = {**old, **kept}
            self._finish(environment, status, error)
        else:
            self._finish(environment, "AVAILABLE", None)

    def _roll_back(self, environment: Environment, before: EnvSpec) -> str:
        """How a failed version change ends: what was there before is up again, or nothing is."""
        self._status(environment, "ROLLING_BACK")
        time.sleep(_SNAPSHOT_SECONDS)
        try:
            self.engine.roll_back(before)
        except Exception:  # noqa: BLE001 - whatever an engine raises, the environment is not usable
            log.exception("rolling %s back failed", environment.name)
            return "UNAVAILABLE"
        return "UPDATE_FAILED"

    def delete(self, environment: Environment) -> None:
        with environment.lock:
            if environment.status not in _SETTLED:
                raise invalid(
                    f"Environment {environment.name} cannot be deleted while its status is {environment.status}."
                )
            environment.shown["Status"] = "DELETING"
        self._background(environment, lambda: self._delete(environment))

    def _delete(self, environment: Environment) -> None:
        try:
            self.engine.delete(environment.spec())
        finally:
            with self._lock:
                self._environments.pop((environment.account, environment.region, environment.name), None)
                self._tokens = {key: it for key, it in self._tokens.items() if it.environment is not environment}
            self._status(environment, "DELETED")

    def wait(self, environment: Environment) -> None:
        """Block until nothing is going on any more. Raises EngineError when it did not end well."""
        while environment.status not in _SETTLED:
            time.sleep(0.1)
        if environment.status in ("CREATE_FAILED", "UPDATE_FAILED", "UNAVAILABLE"):
            error = environment.shown["LastUpdate"].get("Error", {})
            raise EngineError(error.get("ErrorCode", "INTERNAL_FAILURE"), error.get("ErrorMessage", environment.status))

    @staticmethod
    def _background(environment: Environment, work: Callable[[], None]) -> None:
        threading.Thread(target=work, name=f"lab-{environment.name}", daemon=True).start()

    @staticmethod
    def _status(environment: Environment, status: str) -> None:
        with environment.lock:
            environment.shown["Status"] = status

    def _finish(self, environment: Environment, status: str, error: Exception | None) -> None:
        last: dict[str, Any] = {"Status": "SUCCESS", "CreatedAt": self._clock()}
        if error is not None:
            code = error.code if isinstance(error, EngineError) else "INTERNAL_FAILURE"
            text = (str(error) or type(error).__name__)[:1024]
            last.update(Status="FAILED", Error={"ErrorCode": code, "ErrorMessage": text})
        with environment.lock:
            strategy = environment.shown["LastUpdate"].get("WorkerReplacementStrategy")
            if strategy:
                last["WorkerReplacementStrategy"] = strategy
            environment.moving = False
            environment.shown["LastUpdate"] = last
            environment.shown["Status"] = status

    # --- an update that somebody else makes ------------------------------------------------------------------------

    def hold(
        self, environment: str, seconds: float | None = None, calls: int | None = None, down: bool = False
    ) -> dict[str, Any]:
        """Let environments of this name be UPDATING for so many seconds or GetEnvironment calls, then AVAILABLE again.

        ``down``: their web servers do not answer meanwhile. :raises ValueError: no AVAILABLE one, or neither is given.
        """
        if (seconds is None) == (calls is None):
            raise ValueError("a hold is for so many seconds or for so many calls")
        found = [it for it in self.all() if it.name == environment and it.status in ("AVAILABLE", "UPDATE_FAILED")]
        if not found:
            raise ValueError(f"there is no environment {environment} that is AVAILABLE")
        for one in found:
            with one.lock:
                one.held = Hold(calls, down)
                one.shown["Status"] = "UPDATING"
                one.shown["LastUpdate"] = {"Status": "PENDING", "CreatedAt": self._clock()}
            if seconds is not None:
                timer = threading.Timer(seconds, self._let_go, (one, one.held))
                timer.daemon = True
                timer.start()
        return {"held": [one.shown["Arn"] for one in found]}

    def _count_down(self, environment: Environment) -> None:
        hold = environment.held
        if hold is not None and hold.calls is not None:
            hold.calls -= 1
            if hold.calls < 0:
                self._let_go(environment, hold)

    def _let_go(self, environment: Environment, hold: Hold | None) -> None:
        with environment.lock:
            if hold is not None and environment.held is hold:
                environment.held = None
                self._finish(environment, "AVAILABLE", None)

    def release(self) -> None:
        """End all holds."""
        for environment in self.all():
            self._let_go(environment, environment.held)

    # --- what an environment needs in its account --------------------------------------------------------------------

    def _check_resources(self, values: dict[str, Any], account: str, region: str, subnets: list[str]) -> None:
        def client(service: str) -> Any:
            return self._aws.client(service, account=account, region=region)

        _check_bucket(client("s3"), values["SourceBucketArn"].rpartition(":")[2], region)
        _check_network(client("ec2"), subnets, values["NetworkConfiguration"]["SecurityGroupIds"])
        _check_role(client("iam"), values["ExecutionRoleArn"], account)
        if values.get("KmsKey"):
            _check_key(client("kms"), values["KmsKey"])

    def _make_log_groups(self, environment: Environment) -> None:
        logs = self._aws.client("logs", account=environment.account, region=environment.region)
        for module in environment.shown["LoggingConfiguration"].values():
            if module["Enabled"]:
                with contextlib.suppress(logs.exceptions.ResourceAlreadyExistsException):
                    logs.create_log_group(logGroupName=module["CloudWatchLogGroupArn"].rpartition(":")[2])

    # --- tokens and calls into an environment ------------------------------------------------------------------------

    def day(self) -> datetime.date:
        """The day that the lab stands on, for what AWS offers: told, else today."""
        return self._as_of or datetime.datetime.fromtimestamp(self._clock(), datetime.timezone.utc).date()

    def stand_on(self, day: str | None) -> dict[str, str]:
        """Move to another day (``POST /_lab/as-of``); None: back to the one that the lab was started with."""
        self._as_of = datetime.date.fromisoformat(day) if day else self._told
        return {"as_of": self.day().isoformat()}

    def now(self) -> float:
        return self._clock() + self._clock_offset

    def expire_tokens(self) -> None:
        """Let every token and session issued so far be expired (``POST /_lab/expire-tokens``)."""
        with self._lock:
            self._clock_offset += limits.SESSION_SECONDS + 1

    def forget_throttling(self) -> None:
        with self._lock:
            self._rest_calls.clear()

    def _live(self, environment: Environment) -> None:
        if environment.status not in _LIVE:
            raise ApiError(
                404,
                "ResourceNotFoundException",
                f"Environment {environment.name} is not available: {environment.status}.",
            )

    def _token(self, environment: Environment, kind: str, principal: str, role: str = "Admin") -> str:
        self._live(environment)
        seconds = limits.SESSION_SECONDS if kind == "session" else limits.TOKEN_SECONDS
        token = secrets.token_urlsafe(48)
        with self._lock:
            self._tokens = {key: it for key, it in self._tokens.items() if it.expires > self.now()}
            self._tokens[token] = _Token(environment, kind, self.now() + seconds, principal, role)
        return token

    def _redeem(self, token: str, kind: str, inside: bool) -> _Token:
        with self._lock:
            found = self._tokens.get(token)
        if found is None or found.kind != kind or found.expires <= self.now():
            raise Reply(403, {"message": "Forbidden"})
        if found.environment.private_only and not inside:
            # At AWS there is nothing to connect to; the lab's environments share one public address.
            raise Reply(403, {"message": f"The web server of {found.environment.name} is private."})
        return found

    def _invoke(self, environment: Environment, values: dict[str, Any], role: str) -> dict[str, Any]:
        self._live(environment)
        if limits.version_tuple(environment.version) < limits.REST_SINCE:
            raise invalid("Update your environment to use InvokeRestApi")
        self._throttle(environment)
        query = values.get("QueryParameters")
        if query is not None and not isinstance(query, dict):
            raise invalid("QueryParameters must be a JSON object.")
        status, answer = self.rest(environment, values["Method"], values["Path"], query, values.get("Body"), role)
        if len(json.dumps(answer).encode()) > limits.REST_BYTES:
            # U: how MWAA words this is not documented, only the limit is.
            status, answer = 500, {"detail": "The response is larger than 6 MB."}
        if status >= 400:
            kind = "RestApiServerException" if status >= 500 else "RestApiClientException"
            raise ApiError(400, kind, "", RestApiStatusCode=status, RestApiResponse=answer)
        return {"RestApiStatusCode": status, "RestApiResponse": answer}

    def _throttle(self, environment: Environment) -> None:
        """10 calls in any one second for an account and region; more is answered 429 (U: the error's code)."""
        now = self._monotonic()
        with self._lock:
            calls = self._rest_calls.setdefault((environment.account, environment.region), deque())
            while calls and calls[0] <= now - 1.0:
                calls.popleft()
            if len(calls) >= limits.REST_PER_SECOND:
                raise ApiError(429, "ThrottlingException", "Rate exceeded")
            calls.append(now)

    def rest(
        self,
        environment: Environment,
        method: str,
        path: str,
        query: dict[str, Any] | None,
        body: Any,
        role: str = "Admin",
    ) -> tuple[int, Any]:
        """One call of Airflow's core REST API, given up after 10 s (the call itself may still take effect)."""
        if not path.startswith("/"):
            path = "/" + path
        if ".." in path.split("/"):
            return 404, {"detail": "Not Found"}
        if not body and method in ("GET", "DELETE"):
            body = None
        if environment.down:
            return 503, {"detail": "The Apache Airflow web server did not answer."}
        spec = {**environment.spec(), "airflow_role": role}
        future = self._rest_pool.submit(self.engine.rest, spec, method, path, query, body)
        try:
            status, answer = future.result(timeout=limits.REST_SECONDS)
        except concurrent.futures.TimeoutError:
            return 504, {"detail": "The request did not finish within 10 seconds."}
        except Exception as error:  # noqa: BLE001 - a web server that is down is an answer, not a crash of the lab
            return 503, {"detail": f"The Apache Airflow web server did not answer ({type(error).__name__})."}
        return status, {} if answer is None else answer

    def cli(
        self, token: str, command_line: str, inside: bool = False
    ) -> tuple[Environment, Callable[[], dict[str, str]]]:
        """Check token, allow-list and concurrency; the environment and what runs the command.

        Raises Reply 403 (token), 400 (unreadable), 500 (a command that MWAA does not run) or 503 (four already run).
        """
        environment = self._redeem(token, "cli", inside).environment
        try:
            argv = shlex.split(command_line)
        except ValueError:
            raise Reply(400, {"message": "The command cannot be parsed."}) from None
        command = limits.cli_command(argv)
        if not limits.cli_allowed(command, environment.version):
            raise Reply(500, {"message": f"sub command not allowed: {command}"})
        if environment.down or not environment.cli_slots.acquire(blocking=False):
            raise Reply(503, {"message": "Service Unavailable"})

        def run() -> dict[str, str]:
            try:
                stdout, stderr = self.engine.cli(environment.spec(), argv)
            finally:
                environment.cli_slots.release()
            return {
                "stdout": base64.b64encode(stdout.encode("utf-8", "surrogateescape")).decode(),
                "stderr": base64.b64encode(stderr.encode("utf-8", "surrogateescape")).decode(),
            }

        return environment, run

    def login(self, web_token: str, inside: bool = False) -> tuple[Environment, str]:
        """A web login token exchanged for a session of 12 hours. Raises Reply 403."""
        found = self._redeem(web_token, "web", inside)
        return found.environment, self._token(found.environment, "session", found.principal, found.role)

    def session(self, session: str, inside: bool = False) -> tuple[Environment, str]:
        """Whose session it is, and as which role of its Airflow. Raises Reply 401."""
        try:
            found = self._redeem(session, "session", inside)
            return found.environment, found.role
        except Reply:
            raise Reply(401, {"detail": "Unauthorized", "status": 401, "title": "Unauthorized"}) from None

    def peek(self, token: str) -> Environment | None:
        """Whose token this is, expired or not; for the journal alone."""
        with self._lock:
            found = self._tokens.get(token)
        return found.environment if found else None

    def close(self) -> None:
        self.engine.close()
        self._rest_pool.shutdown(wait=False, cancel_futures=True)


# --- who may call into an environment --------------------------------------------------------------------------------


def _denied(principal: str, action: str, resource: str) -> ApiError:
    words = f"User: {principal} is not authorized to perform: {action} on resource: {resource}"
    return ApiError(403, "AccessDeniedException", words)


def _airflow_role(environment: Environment, action: str, principal: str, permitted: Permitted) -> str:
    """The role of Airflow that a caller has: the highest that its policies allow (U: how AWS chooses among several)."""
    resource = environment.shown["Arn"].replace(":environment/", ":role/")
    for role in limits.AIRFLOW_ROLES:
        answer = permitted(action, f"{resource}/{role}")
        if answer is not False:
            return role  # also where the policies say nothing: the lab enforces no IAM
    raise _denied(principal, action, f"{resource}/Admin")


def partition(region: str) -> str:
    """Which AWS a Region belongs to, as ARNs name it."""
    return {"cn": "aws-cn", "us-gov": "aws-us-gov"}.get(region[: 6 if region.startswith("us-gov") else 2], "aws")


# --- rules that need no state ----------------------------------------------------------------------------------------


def _defaults(environment_class: str | None) -> dict[str, Any]:
    micro = environment_class == "mw1.micro"
    return {
        "EnvironmentClass": "mw1.small",
        "MinWorkers": 1,
        "MaxWorkers": 1 if micro else 10,
        "Schedulers": 1 if micro else 2,
        "MinWebservers": 1 if micro else 2,
        "MaxWebservers": 1 if micro else 2,
    }


def _check_numbers(values: dict[str, Any]) -> None:
    if values["EnvironmentClass"] not in limits.CLASSES:
        raise invalid(
            f"EnvironmentClass {values['EnvironmentClass']} is not valid. Valid values: {', '.join(limits.CLASSES)}."
        )
    micro = values["EnvironmentClass"] == "mw1.micro"
    for low, high, most in (
        ("MinWorkers", "MaxWorkers", limits.MOST_WORKERS),
        ("MinWebservers", "MaxWebservers", limits.MOST_WEBSERVERS),
    ):
        if values[low] > values[high]:
            raise invalid(f"{low} ({values[low]}) must not be greater than {high} ({values[high]}).")
        if values[high] > most:
            raise invalid(f"{high} ({values[high]}) must not be greater than {most}.")
    if micro:
        for name in ("MaxWorkers", "Schedulers", "MinWebservers", "MaxWebservers"):
            if values[name] != 1:
                raise invalid(f"{name} must be 1 for the environment class mw1.micro.")
    elif not 2 <= values["Schedulers"] <= 5:
        raise invalid("Schedulers must be between 2 and 5 for this environment class.")
    elif values["MinWebservers"] < 2:
        raise invalid("MinWebservers must be between 2 and 5 for this environment class.")


def _check_options(values: dict[str, Any], version: str) -> None:
    if limits.version_tuple(version) >= (3, 2):
        for name in limits.REFUSED_OPTIONS:
            if name in (values.get("AirflowConfigurationOptions") or {}):
                raise invalid(f"The Apache Airflow configuration option {name} cannot be set.")
    elif values.get("WebserverAccessMode") == "PUBLIC_AND_PRIVATE":
        raise invalid("WebserverAccessMode PUBLIC_AND_PRIVATE needs Apache Airflow 3.2.1 or later.")
    for member in ("DagS3Path", "PluginsS3Path", "RequirementsS3Path", "StartupScriptS3Path"):
        if str(values.get(member) or "").startswith("/"):
            raise invalid(f"{member} must be relative to the bucket: it must not begin with a slash.")
    if not (values.get("DagS3Path") or "").strip("/"):
        raise invalid("DagS3Path must name a folder of the bucket.")


def _logging(name: str, account: str, region: str, old: dict[str, Any], given: dict[str, Any] | None) -> dict[str, Any]:
    """Every module's setting; task logs at INFO are the default, modules that an update leaves out stay."""
    result = {}
    for member, group in _LOG_MODULES.items():
        setting = {"Enabled": member == "TaskLogs", "LogLevel": "INFO", **old.get(member, {})}
        setting.update((given or {}).get(member) or {})
        setting["CloudWatchLogGroupArn"] = (
            f"arn:{partition(region)}:logs:{region}:{account}:log-group:airflow-{name}-{group}"
        )
        result[member] = setting
    return result


def _check_bucket(s3: Any, bucket: str, region: str) -> None:
    try:
        home = s3.get_bucket_location(Bucket=bucket).get("LocationConstraint") or "us-east-1"
    except botocore.exceptions.ClientError as error:
        raise invalid(f"Unable to access the S3 bucket {bucket}: {error.response['Error'].get('Code')}.") from None
    if home != region:
        raise invalid(
            f"The S3 bucket {bucket} is in {home}. It must be in the same AWS Region as the environment ({region})."
        )
    if s3.get_bucket_versioning(Bucket=bucket).get("Status") != "Enabled":
        raise invalid(f"The S3 bucket {bucket} must have versioning enabled.")
    try:
        block = s3.get_public_access_block(Bucket=bucket)["PublicAccessBlockConfiguration"]
    except botocore.exceptions.ClientError:
        block = {}
    wanted = ("BlockPublicAcls", "IgnorePublicAcls", "BlockPublicPolicy", "RestrictPublicBuckets")
    if not all(block.get(key) for key in wanted):
        raise invalid(f"The S3 bucket {bucket} must block all public access.")


def _check_network(ec2: Any, subnets: list[str], groups: list[str]) -> None:
    try:
        found = ec2.describe_subnets(SubnetIds=subnets)["Subnets"]
    except botocore.exceptions.ClientError as error:
        raise invalid(f"The subnets are not valid: {error.response['Error'].get('Message')}.") from None
    if len({subnet["SubnetId"] for subnet in found}) != 2:
        raise invalid(f"The environment needs two different subnets that exist; given: {', '.join(subnets)}.")
    if len({subnet["AvailabilityZone"] for subnet in found}) != 2:
        raise invalid("The subnets must be in two different Availability Zones.")
    networks = {subnet["VpcId"] for subnet in found}
    if len(networks) != 1:
        raise invalid("The subnets must be in the same VPC.")
    try:
        security = ec2.describe_security_groups(GroupIds=groups)["SecurityGroups"]
    except botocore.exceptions.ClientError as error:
        raise invalid(f"The security groups are not valid: {error.response['Error'].get('Message')}.") from None
    if {group["GroupId"] for group in security} != set(groups):
        raise invalid(f"The security groups must exist; given: {', '.join(groups)}.")
    if {group["VpcId"] for group in security} != networks:
        raise invalid("The security groups must be in the VPC of the subnets.")


def _check_role(iam: Any, arn: str, account: str) -> None:
    if arn.split(":")[4] != account:
        raise invalid(f"The execution role {arn} must belong to the account of the environment.")
    try:
        role = iam.get_role(RoleName=arn.rsplit("/", 1)[-1])["Role"]
    except botocore.exceptions.ClientError:
        raise invalid(f"The execution role {arn} does not exist.") from None
    trust = role["AssumeRolePolicyDocument"]
    if "airflow-env.amazonaws.com" not in (trust if isinstance(trust, str) else json.dumps(trust)):
        raise invalid(f"The execution role {arn} must be assumable by airflow-env.amazonaws.com.")


def _check_key(kms: Any, key: str) -> None:
    if "alias/" in key:
        raise invalid("KmsKey must be a key id or a key ARN: an alias is not supported.")
    try:
        about = kms.describe_key(KeyId=re.sub(r"^key/", "", key))["KeyMetadata"]
    except botocore.exceptions.ClientError:
        raise invalid(f"The KMS key {key} does not exist in the environment's account and Region.") from None
    if about.get("MultiRegion"):
        raise invalid("KmsKey must not be a multi-Region key.")
    if not about.get("Enabled", True):
        raise invalid(f"The KMS key {key} is not enabled.")
