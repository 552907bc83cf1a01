# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Airflow's CLI through MWAA's endpoint. All CLI calls of this collection are made here.

PRIVATE to the collection: no promise is made to other collections.

The endpoint is POST https://{web server}/aws_mwaa/cli with a token of 60 s. It returns no exit code: `judge` says from
the output whether a command failed. Certificates are always verified.
"""

from __future__ import annotations

import base64
import binascii
import http.client
import json
import random
import re
import shlex
import ssl
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from typing import Any, Callable, NamedTuple

from ansible_collections.mwaa.migration.plugins.module_utils._errors import MigrationError, aws_errors
from ansible_collections.mwaa.migration.plugins.module_utils._mwaa import limits

BUDGET = 180.0  # seconds that one command may spend on being repeated
TIMEOUT = 600.0  # seconds to wait for one command's answer
LONGEST_PAUSE = 20.0
REDIRECTS = 3
CONNECT_TIMEOUT = 15.0  # a PRIVATE_ONLY web server swallows what comes from outside
EVER = 1000  # repeats: the budget ends them


class CliResult(NamedTuple):
    """What a command said.

    parsed: the JSON in stdout (of commands with -o json), else None. failed, reason: judged from the output.
    """

    stdout: str
    stderr: str
    parsed: Any
    failed: bool
    reason: str


class Answer(NamedTuple):
    """One HTTP answer."""

    status: int
    headers: Any  # .get(name)
    body: bytes


class CliError(MigrationError):
    """A command without a result. maybe_done: it may have taken effect all the same, and was not repeated."""

    def __init__(self, message: str, *, maybe_done: bool = False):
        super().__init__(message)
        self.maybe_done = maybe_done


class _Failure:
    """An attempt that brought no result. repeats: how often one of this kind is repeated."""

    def __init__(self, kind: str, repeats: int, sentence: str, *, maybe_done: bool = False):
        self.kind = kind
        self.repeats = repeats
        self.error = CliError(sentence, maybe_done=maybe_done)


class NotSent(Exception):
    """The request surely did not reach the web server."""


class Cli:
    """Commands of one environment, at most four at once. Thread-safe.

    client: boto3 'mwaa' client. environment: its name. ca_path: PEM file with certificate authorities that are trusted
    besides the system's, for TLS-inspecting proxies. tunnel: URL of the proxy that reaches inside (Aws.tunnel).
    post, clock: tests bring their own.
    """

    def __init__(
        self,
        client: Any,
        environment: str,
        *,
        ca_path: str | None = None,
        timeout: float = TIMEOUT,
        tunnel: str | None = None,
        post: Callable[[str, dict[str, str], bytes], Answer] | None = None,
        clock: Any = time,
    ):
        self.client = client
        self.environment = environment
        self._post = post or _poster(ca_path, timeout, tunnel)
        self._clock = clock
        self._slots = threading.BoundedSemaphore(limits.CLI_AT_ONCE)

    @classmethod
    def of(cls, aws: Any, environment: str, *, ca_path: str | None = None, timeout: float = TIMEOUT) -> Cli:
        """With the settings of a module: its authorities, and its way in. aws: _aws.Aws."""
        authorities = ca_path or aws.params.get("aws_ca_bundle")
        return cls(aws.client("mwaa"), environment, ca_path=authorities, timeout=timeout, tunnel=aws.tunnel)

    def unreachable(self) -> str:
        """Why the web server does not answer from here, as a sentence; '' when it does. Tried once."""
        try:
            outcome = self._attempt("version", f"airflow version in environment {self.environment}", True)
        except MigrationError as error:
            return error.message
        return outcome.error.message if isinstance(outcome, _Failure) and outcome.kind == "connect" else ""

    def run(self, command: str) -> CliResult:
        """Run one command, without the leading 'airflow': 'version', 'variables get name', 'dags list -o json'.

        Each attempt gets its own token (they live 60 s). Repeated inside the budget: what surely was not run (no
        connection; 401, 403 once with a new token; 503, too many at once) and, for commands that only read, also 5xx
        and broken connections. A command that ran and failed is a CliResult with `failed`. Raises MigrationError when
        it did not run, or nobody knows.
        """
        what = f"airflow {subcommand(command)} in environment {self.environment}"
        reads = not writes(command)
        deadline = self._clock.monotonic() + BUDGET
        failures: list[str] = []
        while True:
            with self._slots:
                outcome = self._attempt(command, what, reads)
            if isinstance(outcome, CliResult):
                return outcome
            failures.append(outcome.kind)
            pause = random.uniform(0.2, min(LONGEST_PAUSE, 2.0 ** len(failures)))  # noqa: S311
            if failures.count(outcome.kind) > outcome.repeats or self._clock.monotonic() + pause > deadline:
                raise outcome.error
            self._clock.sleep(pause)

    def _attempt(self, command: str, what: str, reads: bool) -> CliResult | _Failure:
        with aws_errors(f"get a CLI token for environment {self.environment}"):
            token = self.client.create_cli_token(Name=self.environment)
        host = token["WebServerHostname"]
        headers = {"Authorization": f"Bearer {token['CliToken']}", "Content-Type": "text/plain"}
        try:
            answer = self._follow(f"https://{host}/aws_mwaa/cli", headers, command.encode("utf-8"))
        except NotSent as exception:
            return _Failure("connect", 2, f"{what}: cannot connect to {host} ({exception}); {_unreachable(host)}")
        except ssl.SSLCertVerificationError as exception:
            return _Failure(
                "certificate",
                0,
                f"{what}: the certificate of {host} is not trusted ({exception.verify_message}); set ca_path (or"
                " aws_ca_bundle) to the"
                " certificate authority that signed it",
            )
        except OSError as exception:
            broke = f"{what}: the connection to {host} broke ({exception})"
            if reads:
                return _Failure("broken", EVER, f"{broke}; run again")
            return _Failure(
                "broken",
                0,
                f"{broke} and the command may have taken effect, so it was not repeated: look, then run again",
                maybe_done=True,
            )
        return self._read(command, what, reads, answer)

    def _read(self, command: str, what: str, reads: bool, answer: Answer) -> CliResult | _Failure:
        status = answer.status
        if status == 200:
            return _result(what, answer.body)
        if status in (401, 403):
            # perhaps the token expired on its way
            return _Failure(
                "token",
                1,
                f"{what}: the web server answered {status}, it does not accept the token; allow"
                " airflow:CreateCliToken on the"
                " environment for the caller, and check this machine's clock",
            )
        if status == 503:
            return _Failure(
                "busy",
                EVER,
                f"{what}: the web server kept answering 503, which it does when more than {limits.CLI_AT_ONCE}"
                " commands run at once;"
                " run again when fewer commands are running",
            )
        said = _excerpt(answer.body)
        if subcommand(command) not in limits.CLI_COMMANDS:
            return _Failure(
                "unsupported",
                0,
                f"{what}: MWAA does not support this command (HTTP {status}{said}); its list is"
                " https://docs.aws.amazon.com/mwaa/latest/userguide/airflow-cli-command-reference.html, and"
                " mwaa_rest_call reaches"
                " pools, connections and variables",
            )
        if status >= 500 and reads:
            return _Failure("server", 3, f"{what}: the web server answered {status}{said}; run again")
        doubt = " and the command may have taken effect: look, then run again" if status >= 500 else ""
        return _Failure("server", 0, f"{what}: the web server answered {status}{said}{doubt}", maybe_done=bool(doubt))

    def _follow(self, url: str, headers: dict[str, str], body: bytes) -> Answer:
        """POST, following redirects (Airflow 3's web server makes them) only to the same host over https, and only as
        POST.
        """
        origin = urllib.parse.urlsplit(url)
        for _redirect in range(REDIRECTS + 1):
            answer = self._post(url, headers, body)
            if answer.status not in (301, 302, 303, 307, 308):
                return answer
            target = urllib.parse.urljoin(url, answer.headers.get("Location") or "")
            parts = urllib.parse.urlsplit(target)
            if answer.status not in (307, 308):
                raise MigrationError(
                    f"the web server {origin.netloc} redirects with {answer.status}, which would lose the command:"
                    " it is no MWAA"
                    " web server, or a proxy is in between",
                )
            if parts.scheme != "https" or parts.netloc != origin.netloc:
                raise MigrationError(
                    f"the web server {origin.netloc} redirects to {parts.scheme}://{parts.netloc}: the token is"
                    " not sent there"
                )
            url = target
        raise MigrationError(f"the web server {origin.netloc} redirects in a circle")


def words(command: str) -> list[str]:
    """The command's words as a shell would split them; MigrationError when a quote is open."""
    try:
        return shlex.split(command)
    except ValueError:
        raise MigrationError("the command cannot be split into words: a quote is not closed") from None


def subcommand(command: str) -> str:
    """'variables set a b' -> 'variables set'; 'version' -> 'version'. Never an argument's value."""
    parts = words(command)
    two = " ".join(parts[:2])
    if two in limits.CLI_COMMANDS:
        return two
    if parts and parts[0] in limits.CLI_COMMANDS:
        return parts[0]
    return " ".join(part for part in parts[:2] if re.fullmatch(r"[a-z][a-z-]*", part))


def writes(command: str) -> bool:
    """Whether the command changes something or runs user code; unknown commands are taken to."""
    parts = words(command)
    if "-h" in parts or "--help" in parts:
        return False
    name = subcommand(command)
    if name == "db clean" and "--dry-run" in parts:
        return False
    return limits.CLI_COMMANDS.get(name, True)


_SECRET_FLAGS = ("--conn-password", "--conn-uri", "--conn-extra", "--conn-json", "--conn-login")


def secrets(command: str) -> set[str]:
    """The words of a command that are, or hold, secrets: to be masked wherever they show up."""
    parts = words(command)
    found: set[str] = set()
    if parts[:2] == ["variables", "set"]:
        found.update(part for part in parts[2:] if not part.startswith("-"))
        found.discard(next((part for part in parts[2:] if not part.startswith("-")), ""))  # the key
    for index, part in enumerate(parts):
        flag, equals, value = part.partition("=")
        if flag in _SECRET_FLAGS:
            found.add(value if equals else "".join(parts[index + 1 : index + 2]))
    return {secret for secret in found if secret}


# What Airflow's commands print when they fail, read from the sources of 2.10.3, 2.11.2 and 3.2.1 (airflow/cli, and the
# roles of the FAB provider). Messages of SystemExit go to standard error, those of `exit(1)` to standard output.
_USAGE = re.compile(
    r"^\s*(?:airflow command error: .+|airflow [\w -]+: error: .+|.*sub ?command not allowed.*)$",
    re.MULTILINE | re.IGNORECASE,
)
_EXITS = re.compile(
    r"^(?:(?:Variable|DAG:|Asset) .*does not exist.*|Asset alias .* does not exist\.|Did not find a connection .*"
    r"|A connection with .* already exists.*|Connection not found\.|Found more than one .*|More than one .*"
    r"|(?:Can not|Cannot|Could not) .*|Must (?:supply|provide) .*|(?:Either|Required) --.*|Missing .* file\.|Invalid .*"
    r"|Failed to .*|Failed\. .*|Configuration .* is not valid JSON.*|The URI provided .*|The following args are not .*"
    r"|conn-json is invalid.*|No such provider .*|DagRun failed|Cancelled"
    r"|--[\w-]+ can only be used .*|Option .*|Unknown .*)$",
    re.M,
)
_PRINTS = re.compile(r"^(?:(?:Role|Resource|Action) named '.*' does not exist|File '.*' does not exist)$", re.M)
_TRACEBACK = "Traceback (most recent call last)"
_LOG_RECORD = re.compile(r"^\[?\d{4}-\d\d-\d\d[T ]")
_CHAINED = ("During handling of the above exception", "The above exception was the direct cause")


def judge(stdout: str, stderr: str) -> str:
    """Why the command failed, as one line of its output; '' when nothing says that it failed.

    Standard error alone is no failure: Airflow warns there. A traceback is one, unless it belongs to a log record, as
    those of DAG files that cannot be imported do.
    """
    if _parsed(stdout) is not None:
        stdout = ""  # data that was asked for may hold any words
    for text, pattern in ((stderr, _USAGE), (stderr, _EXITS), (stdout, _USAGE), (stdout, _PRINTS)):
        found = pattern.search(text)
        if found:
            return _one_line(found.group(0))
    return _crash(stderr) or _crash(stdout)


def _crash(text: str) -> str:
    """The last line of a traceback that nobody caught."""
    before, crash, logged = "", "", False
    lines = iter(text.splitlines())
    for line in lines:
        if _TRACEBACK in line:
            if not before.startswith(_CHAINED):
                logged = bool(_LOG_RECORD.match(before))
            end = line
            for end in lines:
                if end.strip() and not end.startswith((" ", "│", "|")):
                    break
            if not logged:
                crash = end
            before = end
        elif line.strip():
            before = line
    return _one_line(crash)


def _one_line(text: str) -> str:
    return " ".join(text.split())[:500]


def did_nothing(stdout: str) -> bool:
    """Whether a command that writes found nothing to write: DAGs that are paused, or unpaused, already."""
    return bool(re.search(r"^No (?:un)?paused D(?:AGs|ags) were found", stdout, re.M))


def _result(what: str, body: bytes) -> CliResult:
    try:
        answer = json.loads(body)
        stdout = base64.b64decode(answer.get("stdout") or "").decode("utf-8", "replace")
        stderr = base64.b64decode(answer.get("stderr") or "").decode("utf-8", "replace")
    except (ValueError, AttributeError, binascii.Error):
        raise MigrationError(
            f"{what}: the web server did not answer as MWAA's does: a login page or a proxy is in between"
        ) from None
    reason = judge(stdout, stderr)
    return CliResult(stdout, stderr, None if reason else _parsed(stdout), bool(reason), reason)


def _parsed(stdout: str) -> Any:
    """The JSON list or object in a command's output, which warnings may precede."""
    lines = stdout.strip().splitlines()
    for index, line in enumerate(lines):
        if line[:1] in ("[", "{"):
            try:
                return json.loads("\n".join(lines[index:]))
            except ValueError:
                continue
    return None


def _excerpt(body: bytes) -> str:
    text = re.sub(r"<[^>]*>", " ", body.decode("utf-8", "replace"))
    text = " ".join(text.split())[:200]
    return f": {text}" if text else ""


def _unreachable(host: str) -> str:
    if "-vpce" in host or "vpce" in host.split(".")[0]:
        return "the web server is private: run this from inside its VPC, or set api_host to a host that is inside"
    return "check DNS, the proxy and, for a PRIVATE_ONLY environment, that this runs inside its VPC or api_host does"


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_args: Any, **_kwargs: Any) -> None:
        return None


class _Unconnected(OSError):
    """Connecting failed, TLS included: nothing of the request has been sent."""


class _Connection(http.client.HTTPSConnection):
    """Two time-outs: connecting is quick or hopeless, an answer takes as long as the command."""

    def connect(self) -> None:
        answer_timeout, self.timeout = self.timeout, CONNECT_TIMEOUT
        try:
            super().connect()
        except ssl.SSLCertVerificationError:
            raise
        except OSError as exception:
            raise _Unconnected(str(exception)) from None
        self.sock.settimeout(answer_timeout)


class _Https(urllib.request.HTTPSHandler):
    def __init__(self, context: ssl.SSLContext):
        super().__init__(context=context)
        self.trusted = context

    def https_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(_Connection, req, context=self.trusted)  # type: ignore[arg-type]


class _Tunnel(urllib.request.BaseHandler):
    """Sends everything through one proxy, whatever the environment's variables say."""

    handler_order = 100  # before urllib's own ProxyHandler

    def __init__(self, url: str):
        parts = urllib.parse.urlsplit(url)
        self.address = f"{parts.hostname}:{parts.port}"
        self.credential = base64.b64encode(f"{parts.username}:{parts.password}".encode()).decode()

    def https_open(self, req: urllib.request.Request) -> None:
        req.add_header("Proxy-authorization", f"Basic {self.credential}")  # goes into CONNECT, not beyond
        req.set_proxy(self.address, "http")


def _poster(ca_path: str | None, timeout: float, tunnel: str | None) -> Callable[[str, dict[str, str], bytes], Answer]:
    context = ssl.create_default_context()
    if ca_path:
        try:
            context.load_verify_locations(cafile=ca_path)
        except OSError as exception:
            raise MigrationError(f"ca_path {ca_path} cannot be read as PEM certificates: {exception}") from exception
    opener = urllib.request.build_opener(
        _Https(context),
        _NoRedirect(),
        *([urllib.request.ProxyHandler({}), _Tunnel(tunnel)] if tunnel else []),
    )

    def post(url: str, headers: dict[str, str], body: bytes) -> Answer:
        request = urllib.request.Request(url, data=body, headers=headers, method="POST")  # noqa: S310
        try:
            with opener.open(request, timeout=timeout) as answer:
                return Answer(answer.status, answer.headers, answer.read())
        except urllib.error.HTTPError as answer:
            with answer:
                return Answer(answer.code, answer.headers, answer.read())
        except urllib.error.URLError as exception:
            cause = exception.reason
            if isinstance(cause, ssl.SSLCertVerificationError):
                raise cause from None
            if isinstance(cause, _Unconnected):
                raise NotSent(str(cause)) from None
            raise OSError(str(cause)) from None
        except http.client.HTTPException as exception:
            raise OSError(f"{type(exception).__name__}: {exception}") from None

    return post
