# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The only file that imports amazon.aws and boto3: sessions, clients, and the frame of every module.

PRIVATE to the collection: no promise is made to other collections.

Credentials, region and endpoint are amazon.aws's common options, so `module_defaults` and the environment mean the same
here as there. The switch that the lab needs (AWS_DISABLE_HOST_PREFIX_INJECTION) is botocore's own, since 1.38.
"""

from __future__ import annotations

import functools
import os
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Callable, NoReturn

from ansible.module_utils.basic import env_fallback
from ansible.module_utils.common.warnings import get_warning_messages
from ansible_collections.amazon.aws.plugins.module_utils.botocore import (
    boto3_conn,
    get_aws_connection_info,
    get_aws_region,
)
from ansible_collections.amazon.aws.plugins.module_utils.common import set_collection_info
from ansible_collections.amazon.aws.plugins.module_utils.modules import AnsibleAWSModule, aws_argument_spec
from ansible_collections.mwaa.migration.plugins.module_utils._errors import (
    MigrationError,
    aws_error,
    is_aws_error,
    never_sent,
)

try:
    import boto3.session
    import botocore
    import botocore.config
    import botocore.credentials
    import botocore.exceptions
    import botocore.session
except ImportError:
    botocore = None  # AnsibleAWSModule says so

COLLECTION_VERSION = "0.1.0"
BOTOCORE_FLOOR = "1.38.0"  # AWS_DISABLE_HOST_PREFIX_INJECTION; InvokeRestApi came with 1.36
MAX_ATTEMPTS = 10
TUNNEL = "MWAA_MIGRATION_TUNNEL"  # names the file with the URL that Aws.tunnel returns
RENEW = 1800  # seconds before its end that a role's session is renewed: URLs are signed for less
MAX_CONNECT_ATTEMPTS = 3  # an endpoint that nobody answers at is not worth ten attempts (about a minute)


def _argument_spec() -> dict[str, Any]:
    spec = aws_argument_spec()
    # AWX 24 hands the session token of its AWS credential over as AWS_SECURITY_TOKEN only; amazon.aws does not read
    # that and would sign with the key alone.
    spec["session_token"] = dict(
        spec["session_token"], fallback=(env_fallback, ["AWS_SESSION_TOKEN", "AWS_SECURITY_TOKEN"])
    )
    return spec


AWS_ARGUMENT_SPEC: dict[str, Any] = _argument_spec()


class Aws:
    """Clients for one set of credentials. Thread-safe; clients are made once each.

    Raises MigrationError (unknown profile, no region, unknown region, too old botocore, missing boto3) when a client is
    asked for, not when this is made: bodies validate their input first.
    """

    def __init__(self, params: dict[str, Any], name: str = "mwaa.migration"):
        """params: amazon.aws's common options, as AnsibleModule or validate_argument_spec returns them."""
        self.params = params
        self._name = name
        self._lock = threading.RLock()
        self._clients: dict[Any, Any] = {}
        self._identity: dict[str, str] | None = None
        self._region: str | None = None
        self._assumed: Any = None  # credentials of a role, which renew themselves

    @classmethod
    def for_plugin(cls, params: dict[str, Any], name: str = "mwaa.migration") -> Aws:
        """For action plugins: params validated against AWS_ARGUMENT_SPEC (others are ignored)."""
        set_collection_info("mwaa.migration", COLLECTION_VERSION)
        return cls({key: params.get(key, AWS_ARGUMENT_SPEC[key].get("default")) for key in AWS_ARGUMENT_SPEC}, name)

    def client(self, service: str, *, region: str | None = None, **config: Any) -> Any:
        """The boto3 client of a service ('mwaa', 's3', 'kms', 'sts', …), with botocore's standard retries.

        region: another region than the configured one. config: botocore Config settings that differ
        (max_pool_connections, …).
        """
        key = (service, region, repr(sorted(config.items())))
        with self._lock:
            if key not in self._clients:
                self._clients[key] = self._connect(service, region or self.region, config)
            return self._clients[key]

    def elsewhere(self, *, region: str | None = None, profile: str | None = None, role_arn: str | None = None) -> Aws:
        """The same with another region, profile or role; with none of them, this one.

        The role is assumed with these credentials, or with the profile's, at once, and anew before each session ends.
        Raises MigrationError.
        """
        if not (region or profile or role_arn):
            return self
        params = dict(self.params)
        if profile:
            params.update(profile=profile, access_key=None, secret_key=None, session_token=None)
        if region:
            params["region"] = region
        other = Aws(params, self._name)
        other._assumed = None if profile else self._assumed
        if role_arn:
            sts, session = other.client("sts"), {"RoleArn": role_arn, "RoleSessionName": "mwaa-migration"}
            assume = botocore.credentials.create_assume_role_refresher(sts, session)
            try:
                assumed = botocore.credentials.RefreshableCredentials.create_from_metadata(
                    metadata=assume(), refresh_using=assume, method="assume-role", advisory_timeout=RENEW
                )
            except Exception as exception:
                if not is_aws_error(exception):
                    raise
                raise aws_error(exception, f"assume the role {role_arn}") from exception
            none = dict.fromkeys(("profile", "access_key", "secret_key", "session_token"))
            other = Aws({**params, **none, "region": other.region}, self._name)
            other._assumed = assumed
        return other

    def model(self, service: str, operation: str) -> Any:
        """botocore's model of an operation; its input_shape says what AWS takes."""
        self._check_sdk()
        return botocore.session.get_session().get_service_model(service).operation_model(operation)

    @property
    def region(self) -> str:
        """The configured region; checked against the shapes of region names that botocore knows."""
        with self._lock:
            if self._region is None:
                self._check_sdk()
                if not self.params.get("access_key"):
                    self._check_profile()
                region = get_aws_region(self)
                if not region:
                    raise MigrationError("no AWS region is set: set region (or AWS_REGION, or region in the profile)")
                try:
                    botocore.session.get_session().get_partition_for_region(region)
                except Exception as exception:
                    raise MigrationError(
                        f"{region!r} is not an AWS region: set region (or AWS_REGION) to one such as eu-central-1"
                    ) from exception
                self._region = region
            return self._region

    @functools.cached_property
    def tunnel(self) -> str | None:
        """URL of the proxy that reaches inside, of a task with api_host; None without one.

        The action plugin `progress` leaves it, with its credential, in a file of this user's alone.
        """
        path = os.environ.get(TUNNEL) if self.params.get("api_host") else None
        if path is None:
            if self.params.get("api_host"):
                raise MigrationError("api_host works where the task runs on the controller: set connection to local")
            return None
        try:
            return Path(path).read_text(encoding="utf-8").strip()
        except OSError as error:
            raise MigrationError(
                f"api_host works for the user who runs ansible-playbook ({error.strerror}): leave become out"
            ) from None

    def through(self, tunnel: str) -> Aws:
        """The same, with MWAA's API reached through this proxy: for an action plugin, which opened it itself."""
        other = Aws(self.params, self._name)
        other._assumed = self._assumed
        other.__dict__["tunnel"] = tunnel
        return other

    @property
    def account_id(self) -> str:
        """The 12 digits of the caller's account."""
        return self.caller["Account"]

    @property
    def caller(self) -> dict[str, str]:
        """STS GetCallerIdentity: Account, Arn, UserId."""
        with self._lock:
            if self._identity is None:
                try:
                    self._identity = self.client("sts").get_caller_identity()
                except Exception as exception:
                    if not is_aws_error(exception):
                        raise
                    raise aws_error(exception, "find out who is calling AWS") from exception
            return self._identity

    def require_botocore(self, version: str, reason: str) -> None:
        """MigrationError unless botocore is at least `version`; reason: 'for webserver_access_mode …'."""
        self._check_sdk(version, reason)

    # amazon.aws's helpers speak to a module through these three names
    def fail_json(self, msg: str, **_details: Any) -> NoReturn:
        if "Passing both a profile and access tokens" in msg:
            raise MigrationError(
                "both a profile and keys are given: leave profile out, or clear access_key, secret_key and"
                " session_token (also AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN and"
                " AWS_SECURITY_TOKEN in the environment)"
            )
        raise MigrationError(msg)

    def fail_json_aws(self, exception: BaseException, msg: str | None = None, **_details: Any) -> NoReturn:
        if is_aws_error(exception):
            raise aws_error(exception, "connect to AWS") from exception
        raise MigrationError(f"{msg or 'cannot connect to AWS'}: {exception}") from exception

    def warn(self, _message: str) -> None:
        pass

    def _connect(self, service: str, region: str, config: dict[str, Any]) -> Any:
        self._check_sdk()
        _configured, endpoint, arguments = get_aws_connection_info(self)
        settings: dict[str, Any] = {
            "retries": {"mode": "standard", "total_max_attempts": MAX_ATTEMPTS},
            "connect_timeout": 10,
            "tcp_keepalive": True,
            "max_pool_connections": 32,
        }
        if service == "mwaa" and self.tunnel:  # AWS's other services are reached from here
            settings["proxies"] = {"http": self.tunnel, "https": self.tunnel}
        settings.update(config)
        connect = boto3_conn if self._assumed is None else self._boto3_conn_of_role
        client = connect(
            self,
            conn_type="client",
            resource=service,
            region=region,
            endpoint=endpoint,
            config=botocore.config.Config(**settings),
            **arguments,
        )
        client.meta.events.register_first("needs-retry", _give_up_connecting)
        if service == "mwaa":
            # botocore would send a POST again that may have taken effect: _mwaa/rest.py decides what is repeated
            client.meta.events.register_first(
                "needs-retry.mwaa.InvokeRestApi", functools.partial(_repeat_nothing, client)
            )
        if service == "logs":  # events of a call that may have taken effect would be there twice: _logs/cloudwatch.py
            client.meta.events.register_first(
                "needs-retry.cloudwatch-logs.PutLogEvents", functools.partial(_repeat_nothing, client)
            )
        return client

    def _boto3_conn_of_role(
        self, _self: Aws, *, resource: str, region: str, endpoint: str | None, config: Any, **arguments: Any
    ) -> Any:
        """As amazon.aws's boto3_conn, which takes keys alone, with credentials that renew themselves."""
        session = botocore.session.get_session()
        session.register_component("credential_provider", SimpleNamespace(load_credentials=lambda: self._assumed))
        if arguments.get("aws_config"):
            config = config.merge(arguments["aws_config"])
        try:
            return boto3.session.Session(botocore_session=session).client(
                resource, region_name=region, endpoint_url=endpoint, config=config, verify=arguments["verify"]
            )
        except (ValueError, botocore.exceptions.BotoCoreError) as exception:
            self.fail_json_aws(exception, msg="cannot connect to AWS")

    def _check_profile(self) -> None:
        # amazon.aws takes an unknown profile for "no region"
        profile = self.params.get("profile")
        if profile and profile not in botocore.session.get_session().available_profiles:
            raise MigrationError(
                f"the AWS profile {profile} does not exist; correct profile (or AWS_PROFILE), or add it to"
                " ~/.aws/config",
            )

    def _check_sdk(self, version: str = BOTOCORE_FLOOR, reason: str = "for this collection") -> None:
        if botocore is None:
            raise MigrationError(
                f"boto3 is not installed for {sys.executable}: install boto3 and botocore>={BOTOCORE_FLOOR} there"
            )
        if _version(botocore.__version__) < _version(version):
            raise MigrationError(
                f"botocore {botocore.__version__} of {sys.executable} is too old {reason}: {version} or newer is"
                " needed;"
                f" pip install --upgrade boto3 'botocore>={version}'"
            )


class Context:
    """What a module's body works with."""

    def __init__(self, module: AnsibleAWSModule, aws: Aws):
        self.module = module
        self.params: dict[str, Any] = module.params
        self.check_mode: bool = module.check_mode
        self.diff_mode: bool = module._diff
        self.aws = aws

    def warn(self, message: str) -> None:
        self.module.warn(message)

    def hide(self, secrets: set[str], *, instead_of: str | None = None) -> None:
        """Mask these texts in all the module returns. instead_of: a no_log text that need not be masked as a whole."""
        self.module.no_log_values.discard(instead_of)
        self.module.no_log_values.update(secrets)


def run_module(
    argument_spec: dict[str, Any],
    body: Callable[[Context], dict[str, Any]],
    *,
    supports_check_mode: bool = True,
    **kwargs: Any,
) -> None:
    """The main() of every module: AnsibleAWSModule, the body, one sentence on failure.

    argument_spec: the module's own options; the common AWS options are added. kwargs: required_if and the like.
    body: returns the arguments of exit_json. MigrationError and botocore's exceptions become fail_json with `msg` and,
    where AWS answered, `error: {code, request_id}`. Anything else is a bug and shows as one.
    """
    set_collection_info("mwaa.migration", COLLECTION_VERSION)
    module = AnsibleAWSModule(
        argument_spec={**AWS_ARGUMENT_SPEC, **argument_spec},
        default_args=False,
        supports_check_mode=supports_check_mode,
        **kwargs,
    )
    failure: MigrationError | None = None
    result: dict[str, Any] = {}
    start = time.monotonic()
    try:
        result = body(Context(module, Aws(module.params, module._name)))
    except MigrationError as exception:
        if module.check_mode and exception.code == "NoBundle":  # as before the first export
            module.warn(f"{exception.message}; what this task would do is known after the first export")
            result = {"changed": False, "skipped": True, "msg": exception.message}
        else:
            failure = exception
    except Exception as exception:
        if not is_aws_error(exception):
            raise
        failure = aws_error(exception)
    if get_warning_messages():  # ansible-core returns them: amazon.aws would again, in a way that is deprecated
        module._warnings = []
    # outside of the except blocks: fail_json would add the traceback, whose exceptions repeat what was sent
    if failure is not None:
        module.fail_json(**failure.as_failure())
    module.exit_json(**{"duration": round(time.monotonic() - start, 2), **result})


def _give_up_connecting(caught_exception: BaseException | None = None, attempts: int = 0, **_event: Any) -> None:
    if caught_exception is not None and attempts >= MAX_CONNECT_ATTEMPTS and never_sent(caught_exception):
        raise caught_exception


def _repeat_nothing(
    client: Any,
    operation: Any = None,
    response: Any = None,
    caught_exception: BaseException | None = None,
    **_event: Any,
) -> None:
    if caught_exception is not None:
        raise caught_exception
    http, parsed = response
    if http.status_code >= 300:
        raise client.exceptions.from_code((parsed.get("Error") or {}).get("Code"))(parsed, operation.name)


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(".")[:3] if part.isdigit())
