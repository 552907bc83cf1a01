# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The agent: everything that runs inside an Airflow's own interpreter.

Python 3.6 syntax, the standard library and what every Airflow ships; Airflow 1.10 to 3.x. It imports nothing of the
collection. Run history is a file of its own, airflow_history.py, that travels with this one.

Two ways in:
- on a host, `main()`: the source of this file and one JSON request come on stdin, one sealed answer goes to stdout
  between two marker lines, and nothing is written on the host;
- in MWAA, `serve()`: called by mwaa_agent_dag.py with a request id; it answers with ids, statuses, digests and
  reasons, and with values only where the environment is the source, sealed with the bundle's key.

Rows are read and written as columns, not through Variable and Connection objects: those hand every secret to
Airflow's masker, whose cost grows with the square of their number, and their readers turn undecryptable values into
None.
"""

import ast
import base64
import configparser
import errno
import glob
import hashlib
import hmac
import io
import json
import logging
import logging.config
import os
import re
import shlex
import socket
import sys
import threading
import time
import types
import zlib

VERSION = 1
BEGIN = "-----BEGIN MWAA MIGRATION AGENT-----"
END = "-----END MWAA MIGRATION AGENT-----"
CHUNK = 1 << 20  # bytes read at once: memory does not grow with a file

KINDS = ("variables", "connections", "pools")
SINGULAR = {"variables": "variable", "connections": "connection", "pools": "pool"}
FIELDS = {
    "variables": ("value", "description"),
    "connections": ("conn_type", "description", "host", "login", "password", "schema", "port", "extra"),
    "pools": ("slots", "description", "include_deferred"),
}
# field -> column, where they differ; and the columns that hold ciphertext with the column that says so
# (airflow/models/{variable,connection}.py)
COLUMNS = {"variables": {"value": "val"}, "connections": {}, "pools": {}}
SEALED = {
    "variables": {"value": "is_encrypted"},
    "connections": {"password": "is_encrypted", "extra": "is_extra_encrypted"},
    "pools": {},
}
DEFAULT_POOL = "default_pool"
NO_ID = "(NULL)"  # what a row without an id is called
# MWAA looks this one up itself, in every task: an import never removes it
KEPT_CONNECTIONS = ("aws_default",)

SKIPPED_FOLDERS = ("__pycache__", ".git", ".svn", ".hg")


class AgentError(Exception):
    """One sentence for the user; `code` is its name for programs."""

    def __init__(self, code, message):
        Exception.__init__(self, message)
        self.code = code
        self.message = message


# ---------------------------------------------------------------------------------------------------------------- entry


def handle(request):
    """One request in, one answer out: {"ok": true, "result": …} or {"ok": false, "error": {"code", "message"}}.

    Exceptions of libraries are reduced to their class: their texts may repeat values (SQLAlchemy's do).
    """
    try:
        operation = OPERATIONS.get(request.get("op"))
        if operation is None:
            raise AgentError("unknown_operation", "the agent knows no operation %r" % (request.get("op"),))
        return {"ok": True, "result": operation(request)}
    except AgentError as error:
        return {"ok": False, "error": {"code": error.code, "message": error.message}}
    except MemoryError:
        return {"ok": False, "error": {"code": "memory", "message": "the agent ran out of memory"}}
    except Exception as error:
        where = _where(error)
        message = "%s failed inside Airflow: %s at %s" % (request.get("op"), type(error).__name__, where)
        return {"ok": False, "error": {"code": "failed", "message": message}}


def batch(request):
    """Several requests in one interpreter (importing Airflow costs seconds); the first failure ends it."""
    answers = []
    for one in request["requests"]:
        answers.append(handle(one))
        if not answers[-1]["ok"]:
            break
    return answers


def main(stdin, stdout_fd):
    """One JSON line with `op`, `source` and `transport_key` (a Fernet key) on stdin; the answer, sealed with that
    key, on stdout_fd.
    """
    request = json.loads(stdin.readline().decode("utf-8"))
    key = request.pop("transport_key", None)
    try:
        enter(request.get("source") or {})
        answer = handle(request)
    except AgentError as error:
        answer = {"ok": False, "error": {"code": error.code, "message": error.message}}
    body = zlib.compress(json.dumps(answer).encode("utf-8"), 6)
    answer = None  # of which there are enough copies now
    if key:
        try:
            body = fernet(key.encode("ascii")).encrypt(body)
        except AgentError as error:
            answer = {"ok": False, "error": {"code": error.code, "message": error.message}}
            body = zlib.compress(json.dumps(answer).encode("utf-8"))
    # the connection plugins split lines and some add their own: keep ours short and marked
    text = base64.b64encode(body)
    with io.open(stdout_fd, "wb", closefd=False) as out:
        out.write(BEGIN.encode("ascii") + b"\n")
        for start in range(0, len(text), 16384):  # not all of them at once: it may be megabytes
            out.write(text[start : start + 16384] + b"\n")
        out.write(END.encode("ascii") + b"\n")


REQUEST_ID = re.compile(r"^r[0-9a-f]{32}$")


def serve(identifier, run_id, try_number, bucket, prefix, environment, s3, kms, kms_key_id, now=time.time, put=None):
    """The request of this id, if it is genuine, ours, fresh and used for the first time. For mwaa_agent_dag.py.

    s3, kms: boto3 clients. kms_key_id: the key that requests are sealed with. put: function (url, body) that leaves the
    answer, which is sealed for who sent the request.
    Returns None when it did; otherwise the refusal {"id", "code", "message"}, for who looks at the run: id is None when
    the run names no request. Codes: replayed, tampered, foreign, expired, missing, outdated, unanswered.
    """
    known = identifier if isinstance(identifier, str) and REQUEST_ID.match(identifier) else None
    try:
        if known is None:
            raise AgentError("tampered", "the request's id is malformed")
        if try_number != 1:
            raise AgentError("replayed", "a request is served at its first try only, this is try %s" % try_number)
        if identifier != run_id:
            raise AgentError("replayed", "request %s belongs to another run than %s" % (identifier, run_id))
        name = os.environ.get("AIRFLOW_ENV_NAME")
        if name and name != environment:
            raise AgentError(
                "foreign", "this agent was installed for environment %s, it runs in %s" % (environment, name)
            )
        if _is_there(s3, bucket, "%s/requests/%s.answer" % (prefix, identifier)):
            # who may delete a run and trigger it again under its id would have it served twice
            raise AgentError("replayed", "request %s has been answered already" % identifier)
        request, key = _open_request(identifier, bucket, prefix, environment, s3, kms, kms_key_id)
        try:
            _check_request(request, identifier, environment, now())
        except AgentError as error:
            answer = {"ok": False, "error": {"code": error.code, "message": error.message}}
        else:
            answer = handle(request)
        answer["id"] = identifier
        _deliver(request["answer_url"], _seal_answer(answer, identifier, key), put or _put_answer)
    except AgentError as error:
        return {"id": known, "code": error.code, "message": error.message}
    return None


def _is_there(s3, bucket, key):
    try:
        s3.get_object(Bucket=bucket, Key=key)["Body"].close()
    except Exception:  # none, as a rule; what cannot be read says nothing
        return False
    return True


def _answer_key(identifier, key):
    """The Fernet key of a request's answer: another one than the request's, so that neither passes for the other."""
    digest = hmac.new(key, b"mwaa-migration answer " + identifier.encode("ascii"), hashlib.sha256).digest()
    return base64.urlsafe_b64encode(digest)


def _seal_answer(answer, identifier, key):
    from cryptography.fernet import Fernet

    body = zlib.compress(json.dumps(answer).encode("utf-8"), 6)
    return Fernet(_answer_key(identifier, key)).encrypt(body)


def open_answer(sealed, identifier, key):
    """The other end of _seal_answer; None for what was not sealed with this request's key."""
    from cryptography.fernet import Fernet, InvalidToken

    try:
        answer = json.loads(zlib.decompress(Fernet(_answer_key(identifier, key)).decrypt(sealed)).decode("utf-8"))
    except (InvalidToken, ValueError, zlib.error):
        return None
    return answer if isinstance(answer, dict) and answer.get("id") == identifier else None


ANSWER_PAUSES = (1.0, 3.0, 9.0)  # seconds between attempts to leave an answer


def _deliver(url, body, put):
    """Leave the answer where the request says. Putting the same object twice does no harm."""
    for pause in ANSWER_PAUSES + (None,):
        reason, repeat = put(url, body)
        if not reason:
            return
        if not repeat or pause is None:
            break
        time.sleep(pause)
    raise AgentError("unanswered", "the request was served, but its answer could not be put into S3: %s" % reason)


def _put_answer(url, body):
    """("", False), or (why not, whether another attempt may help). Never the URL, which is a permission."""
    from urllib.error import HTTPError, URLError
    from urllib.request import Request, build_opener

    try:
        with build_opener().open(Request(url, data=body, method="PUT"), timeout=60) as response:
            response.read()
        return "", False
    except HTTPError as error:
        code = re.search(r"<Code>([^<]{1,60})</Code>", error.read(4096).decode("utf-8", "replace"))
        return "HTTP %d %s" % (error.code, code.group(1) if code else ""), error.code >= 500
    except URLError as error:
        return type(error.reason).__name__, True
    except Exception as error:
        return type(error).__name__, True


class Progress(object):
    """Counts of what a request has done so far, left now and then where its sender looks. Never fails, never waits.

    url: takes one small object; None: nobody asks. put: as in serve().
    """

    def __init__(self, url, put=None, pause=5.0):
        self.url, self.put, self.pause = url, put or _put_answer, pause
        self.counts = {}
        self.thread, self.ended = None, threading.Event()

    def add(self, **counts):
        for name in counts:
            self.counts[name] = self.counts.get(name, 0) + counts[name]
        if self.url and self.thread is None:  # not before: what forks, forks first
            self.thread = threading.Thread(target=self._tell)
            self.thread.daemon = True
            self.thread.start()

    def _tell(self):
        told = None
        while not self.ended.wait(self.pause):
            now = dict(self.counts)
            if now != told:
                self.put(self.url, json.dumps(now).encode("ascii"))
                told = now

    def end(self):
        self.ended.set()
        if self.thread is not None:
            self.thread.join()


def _open_request(identifier, bucket, prefix, environment, s3, kms, kms_key_id):
    """(the request, its key), both known to come from who may use the KMS key."""
    from cryptography.fernet import Fernet, InvalidToken

    key = "%s/requests/%s.json" % (prefix, identifier)
    try:
        envelope = json.loads(s3.get_object(Bucket=bucket, Key=key)["Body"].read().decode("utf-8"))
    except ValueError:
        raise AgentError("tampered", "s3://%s/%s is no JSON" % (bucket, key)) from None
    except Exception as error:
        raise AgentError("missing", "s3://%s/%s cannot be read (%s)" % (bucket, key, _aws_code(error))) from None
    if not isinstance(envelope, dict):
        raise AgentError("tampered", "s3://%s/%s is no request" % (bucket, key))
    if envelope.get("version") != 1:
        raise AgentError(
            "tampered", "request %s has version %r, this agent knows 1" % (identifier, envelope.get("version"))
        )
    if envelope.get("environment") != environment:
        raise AgentError("foreign", "request %s is for another environment than %s" % (identifier, environment))
    # Nothing of the envelope is believed: a key bound to another id or environment does not open. Nor does any other
    # KMS key: whoever owns one can let this role use it (the grant's token comes with the request).
    context = {"mwaa-migration": "agent-request", "request": identifier, "environment": environment}
    try:
        wrapped = base64.b64decode(envelope["wrapped_key"])
        # a grant made a moment ago is valid everywhere only with its token
        tokens = {"GrantTokens": [envelope["grant_token"]]} if envelope.get("grant_token") else {}
        opened = kms.decrypt(KeyId=kms_key_id, CiphertextBlob=wrapped, EncryptionContext=context, **tokens)
        data_key = opened["Plaintext"]
    except Exception as error:
        if _aws_code(error) == "IncorrectKeyException":
            raise AgentError(
                "outdated", "the agent was installed for another KMS key than the one of request %s" % identifier
            ) from None
        raise AgentError(
            "tampered", "KMS does not open the key of request %s (%s)" % (identifier, _aws_code(error))
        ) from None
    try:
        sealed = envelope["sealed"].encode("ascii")
        request = json.loads(Fernet(base64.urlsafe_b64encode(data_key)).decrypt(sealed).decode("utf-8"))
    except (InvalidToken, ValueError, KeyError, AttributeError, TypeError):
        raise AgentError("tampered", "request %s was altered after it was sealed" % identifier) from None
    if not isinstance(request.get("answer_url"), str):
        raise AgentError("tampered", "request %s does not say where its answer goes" % identifier)
    return request, data_key


def _check_request(request, identifier, environment, now):
    if request.get("id") != identifier:
        raise AgentError("tampered", "the sealed part of request %s carries another id" % identifier)
    if request.get("environment") != environment:
        raise AgentError(
            "foreign", "the sealed part of request %s is for another environment than %s" % (identifier, environment)
        )
    expires = request.get("expires_at")
    if not isinstance(expires, (int, float)) or now >= expires:
        raise AgentError("expired", "request %s has expired: send a new one" % identifier)
    files = dict(request.get("agent_files") or {})
    if request.get("agent_sha256"):
        files[os.path.basename(os.path.abspath(__file__))] = request["agent_sha256"]
    for name in sorted(files):
        if _sha256_beside(name) != files[name]:
            raise AgentError("outdated", "the environment still has the agent's files of before (%s)" % name)
    if request.get("op") not in IN_ENVIRONMENT:
        raise AgentError("unknown_operation", "operation %r is not served inside an environment" % (request.get("op"),))


def _sha256_beside(name):
    """Of a file in this one's folder; None where there is none."""
    try:
        with io.open(os.path.join(os.path.dirname(os.path.abspath(__file__)), name), "rb") as opened:
            return hashlib.sha256(opened.read()).hexdigest()
    except (IOError, OSError):
        return None


def _aws_code(error):
    return (getattr(error, "response", None) or {}).get("Error", {}).get("Code") or type(error).__name__


def _where(error):
    trace, frames = error.__traceback__, []
    while trace is not None:
        code = trace.tb_frame.f_code
        frames.append("%s:%d" % ("/".join(code.co_filename.split("/")[-2:]), trace.tb_lineno))
        trace = trace.tb_next
    return frames[-1] if len(frames) < 2 else "%s (called from %s)" % (frames[-1], frames[min(1, len(frames) - 2)])


# -------------------------------------------------------------------------------------- entering an Airflow on a host


def enter(source):
    """Take over the environment that the source's Airflow runs with, and make sure that importing it writes nothing.

    source: {"airflow_home", "airflow_config", "pid", "unit"}, each optional. AgentError when there is no Airflow home
    there: importing Airflow with a wrong AIRFLOW_HOME would create one.
    """
    sys.dont_write_bytecode = True
    ORIGINS.clear()
    for name in os.environ:
        ORIGINS[name] = "the environment of %s" % _user()
    if source.get("unit"):
        _adopt(unit_environment(source["unit"]), "unit %s" % source["unit"])
    if source.get("pid"):
        _adopt(process_environment(source["pid"]), "process %s" % source["pid"])
    for name, option in (("AIRFLOW_HOME", "airflow_home"), ("AIRFLOW_CONFIG", "airflow_config")):
        if source.get(option):
            os.environ[name] = source[option]
    for entry in reversed(os.environ.get("PYTHONPATH", "").split(os.pathsep)):
        if entry and entry not in sys.path:
            sys.path.insert(0, entry)
    _check_home()
    _quiet_logging()


ORIGINS = {}  # environment variable -> where its value came from


def _user():
    import pwd

    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return "uid %d" % os.getuid()


def _adopt(variables, origin):
    for name, value in variables.items():
        if name.startswith("LD_") or name in ("PYTHONHOME", "PYTHONSTARTUP"):
            continue
        os.environ[name] = value
        ORIGINS[name] = origin


def process_environment(pid):
    try:
        with io.open("/proc/%d/environ" % int(pid), "rb") as file:
            entries = file.read().split(b"\0")
    except (IOError, OSError):
        return {}  # it has ended meanwhile, or belongs to someone else: the configuration file still speaks
    pairs = (os.fsdecode(entry).partition("=") for entry in entries if b"=" in entry)
    return {name: value for name, _sign, value in pairs if name}


UNIT_FOLDERS = (
    "/etc/systemd/system",
    "/run/systemd/system",
    "/usr/local/lib/systemd/system",
    "/usr/lib/systemd/system",
)
UNREADABLE = []  # files that a unit takes its environment from, and that we may not read


def unit_environment(path):
    """The variables of a systemd unit and its drop-ins, as systemd.exec(5) puts them together: Environment=, over it
    the files of EnvironmentFile=, later ones win; an empty assignment forgets those before it; UnsetEnvironment= last.
    """
    variables, files, unset = {}, [], []
    for file in [path] + _drop_ins(path):
        for line in _unit_lines(file):
            name, _sign, value = line.partition("=")
            name, value = name.strip(), value.strip()
            if name == "Environment":
                if not value:
                    variables = {}
                for word in unit_words(value):
                    key, _sign, content = word.partition("=")
                    variables[key] = content.replace("%%", "%")
            elif name == "EnvironmentFile":
                files = files + [unit_words(value)[0] if value[0] in "\"'" else value] if value else []
            elif name == "UnsetEnvironment":
                unset = unset + unit_words(value) if value else []
    for pattern in files:
        pattern = pattern.lstrip("-").replace("%%", "%")
        for file in sorted(glob.glob(pattern)) or [pattern]:
            variables.update(environment_file(file))
    for word in unset:
        name, sign, value = word.partition("=")
        if not sign or variables.get(name) == value:
            variables.pop(name, None)
    return variables


def _drop_ins(path):
    """NAME.service.d/*.conf of all unit folders, in the order in which systemd reads them: by name, and of two with one
    name that of the folder that comes first.
    """
    unit = os.path.basename(path)
    told = [folder for folder in os.environ.get("SYSTEMD_UNIT_PATH", "").split(":") if folder]
    found = {}
    for folder in reversed([os.path.dirname(path)] + told + list(UNIT_FOLDERS)):
        for drop_in in glob.glob(os.path.join(glob.escape(folder), glob.escape(unit) + ".d", "*.conf")):
            found[os.path.basename(drop_in)] = drop_in
    return [found[name] for name in sorted(found)]


def environment_file(path):
    """The variables of an EnvironmentFile= (systemd.exec(5)); `export ` before a name is taken as well."""
    variables, text, at = {}, _text_of(path), 0
    while at < len(text):
        match = re.compile(r"[ \t]*(?:export[ \t]+)?([A-Za-z_][A-Za-z0-9_]*)[ \t]*=[ \t]*").match(text, at)
        if match:
            variables[match.group(1)], at = _unquoted(text, match.end())
        else:  # a comment, an empty line or what no variable is
            end = re.compile(r"(?:\\\n|[^\n])*\n?").match(text, at).end()
            at = end if end > at else len(text)
    return variables


def _unquoted(text, at):
    """(value, where the next line begins) of an assignment whose value begins at `at`.

    Quotes may span lines, and are quotes only where a value or what follows another quoted part begins.
    """
    value, kept, quote, begun = [], 0, None, False
    while at < len(text):
        character, following = text[at], text[at + 1 : at + 2]
        at += 1
        if quote is None and character == "\n":
            break
        if character == quote:
            quote, begun = None, False
            continue
        if quote != "'" and character == "\\" and following:
            at += 1
            if following != "\n":
                value += character + following if quote and following not in '"\\`$' else following
                kept = len(value)
            begun = True
            continue
        if quote is None and not begun:
            if character in "\"'":
                quote = character
                continue
            if character in " \t\r":
                continue
            begun = True
        value.append(character)
        if quote or character not in " \t\r":
            kept = len(value)
    return "".join(value[:kept]), at  # without the blanks at the end that were not quoted


def unit_words(text):
    """The words of Environment=: parted by blanks, in quotes of either kind, with the escapes of C."""
    try:
        return shlex.split(text)
    except ValueError:
        return text.split()


def _unit_lines(path):
    text = _text_of(path).replace("\\\n", " ")
    return [line.strip() for line in text.splitlines() if line.strip() and line.strip()[0] not in "#;"]


def _text_of(path):
    try:
        with io.open(path, encoding="utf-8", errors="surrogateescape", newline="\n") as file:
            return file.read().replace("\r\n", "\n")
    except (IOError, OSError) as error:
        if error.errno in (errno.EACCES, errno.EPERM) and path not in UNREADABLE:
            UNREADABLE.append(path)
        return ""


def _check_home():
    home = os.path.expanduser(os.environ.get("AIRFLOW_HOME") or "~/airflow")
    host = socket.gethostname()
    if not os.path.isdir(home):
        raise AgentError(
            "wrong_home", "airflow_home %s does not exist on %s: name the folder that holds airflow.cfg" % (home, host)
        )
    os.environ["AIRFLOW_HOME"] = home
    config = os.path.expanduser(os.environ.get("AIRFLOW_CONFIG") or os.path.join(home, "airflow.cfg"))
    if os.path.isfile(config):
        if not os.access(config, os.R_OK):
            raise AgentError(
                "not_permitted",
                "%s on %s is not readable for %s: use become with Airflow's own user" % (config, host, _user()),
            )
        return
    if any(
        os.environ.get("AIRFLOW__%s__SQL_ALCHEMY_CONN%s" % (s, v))
        for s in ("DATABASE", "CORE")
        for v in ("", "_CMD", "_SECRET")
    ):
        # configured by its environment alone: Airflow would write a new airflow.cfg (and make up a Fernet key); it
        # does not into this
        os.environ["AIRFLOW_CONFIG"] = os.devnull
        return
    try:
        found = sorted(os.listdir(home))
    except OSError as error:
        raise AgentError(
            "not_permitted", "airflow_home %s on %s cannot be listed: %s" % (home, host, os.strerror(error.errno))
        ) from None
    listing = (
        "is empty"
        if not found
        else "holds %s%s" % (", ".join(found[:6]), " and %d more" % (len(found) - 6) if len(found) > 6 else "")
    )
    raise AgentError(
        "wrong_home",
        "airflow_home %s on %s has no airflow.cfg (it %s) and no environment variable names a database:"
        " name Airflow's own home" % (home, host, listing),
    )


def _quiet_logging():
    """Keep Airflow's logging from writing: its handlers create folders on import, which would belong to whoever runs
    the agent.
    """
    configure = logging.config.dictConfig

    def silent(config):
        handlers = {name: {"class": "logging.NullHandler"} for name in config.get("handlers") or {}}
        loggers = {}
        for name, logger in (config.get("loggers") or {}).items():
            loggers[name] = {key: logger[key] for key in ("handlers", "filters") if key in logger}
        # the filters stay: Airflow does not start without its secrets masker
        configure(
            {
                "version": 1,
                "disable_existing_loggers": False,
                "filters": config.get("filters") or {},
                "handlers": handlers,
                "loggers": loggers,
            }
        )

    logging.config.dictConfig = silent
    logging.disable(logging.CRITICAL)


# -------------------------------------------------------------------------------------------------------------- sealing


def fernet(key):
    """Something with encrypt(bytes) -> bytes. Airflow 1.10 ships the cryptography package only with its extra `crypto`;
    where it is missing, OpenSSL's AES is called as it is: Python's own hashlib brings it.
    """
    try:
        from cryptography.fernet import Fernet
    except ImportError:
        return SystemFernet(key)
    return Fernet(key)


def _has_cryptography():
    try:
        import cryptography.fernet  # noqa: F401
    except ImportError:
        return False
    return True


class SystemFernet(object):
    """Fernet (github.com/fernet/spec): 0x80, time, IV, AES-128-CBC with PKCS7 padding by libcrypto, HMAC-SHA256."""

    def __init__(self, key):
        raw = base64.urlsafe_b64decode(key)
        self._sign, self._encrypt = raw[:16], raw[16:]
        self._crypto = _libcrypto()

    def encrypt(self, data):
        vector = os.urandom(16)
        body = b"\x80" + int(time.time()).to_bytes(8, "big") + vector + self._cbc(vector, data)
        return base64.urlsafe_b64encode(body + hmac.new(self._sign, body, hashlib.sha256).digest())

    def _cbc(self, vector, data):
        import ctypes

        crypto = self._crypto
        context = crypto.EVP_CIPHER_CTX_new()
        if not context:
            raise MemoryError()
        try:
            out = ctypes.create_string_buffer(len(data) + 32)
            written, last = ctypes.c_int(0), ctypes.c_int(0)
            done = (
                crypto.EVP_EncryptInit_ex(context, crypto.EVP_aes_128_cbc(), None, self._encrypt, vector)
                and crypto.EVP_EncryptUpdate(context, out, ctypes.byref(written), data, len(data))
                and crypto.EVP_EncryptFinal_ex(context, ctypes.byref(out, written.value), ctypes.byref(last))
            )
        finally:
            crypto.EVP_CIPHER_CTX_free(context)
        if done != 1:
            raise AgentError("no_cryptography", "OpenSSL on this host does not encrypt (AES-128-CBC)")
        return out.raw[: written.value + last.value]


def _libcrypto():
    import ctypes
    import ctypes.util

    try:
        import _hashlib as linked
    except ImportError:  # a Python that was built without OpenSSL
        linked = None
    pointer, number, text = ctypes.c_void_p, ctypes.c_int, ctypes.c_char_p
    signatures = {
        "EVP_CIPHER_CTX_new": (pointer, []),
        "EVP_CIPHER_CTX_free": (None, [pointer]),
        "EVP_aes_128_cbc": (pointer, []),
        "EVP_EncryptInit_ex": (number, [pointer, pointer, pointer, text, text]),
        "EVP_EncryptUpdate": (number, [pointer, pointer, pointer, text, number]),
        "EVP_EncryptFinal_ex": (number, [pointer, pointer, pointer]),
    }
    # what hashlib is linked with is what this Python trusts; a search comes last: it starts programs that write files
    for place in (
        lambda: getattr(linked, "__file__", None),
        lambda: None,
        lambda: ctypes.util.find_library("crypto"),
    ):
        try:
            library = ctypes.CDLL(place())
            for name in signatures:
                function = getattr(library, name)
                function.restype, function.argtypes = signatures[name]
            return library
        except (OSError, AttributeError, TypeError):
            continue
    raise AgentError(
        "no_cryptography",
        "%s has neither the cryptography package nor a libcrypto, so nothing can be sealed there:"
        " install apache-airflow[crypto] on the source" % sys.executable,
    )


# --------------------------------------------------------------------------------------------------------- the metadata


def airflow_version():
    try:
        import airflow
    except ImportError as error:
        raise AgentError(
            "no_airflow",
            "%s has no Airflow (%s): name Airflow's own interpreter in airflow_python" % (sys.executable, error),
        ) from None
    except Exception as error:
        text = "%s: %s" % (type(error).__name__, _one_line(error))
        raise AgentError(
            "broken_airflow",
            "Airflow does not start with %s and %s: %s" % (sys.executable, os.environ.get("AIRFLOW_HOME"), text),
        ) from None
    try:
        from airflow.version import version
    except ImportError:
        version = airflow.__version__
    return version


def _one_line(error):
    text = " ".join(str(error).split())
    return re.sub(r"://[^/@\s]*@", "://***@", text)[:300]


def in_task_sdk():
    """Whether this is a task of Airflow 3, where the database is out of reach (task-sdk's block_orm_access)."""
    if int(airflow_version().split(".")[0]) < 3:
        return False
    variable = os.environ.get("AIRFLOW__DATABASE__SQL_ALCHEMY_CONN", "")
    return variable.startswith("airflow-db-not-allowed") or _option("database", "sql_alchemy_conn").startswith(
        "airflow-db-not-allowed"
    )


def _conf():
    from airflow.configuration import conf

    return conf


def _option(section, key, default=""):
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            value = _conf().get(section, key)
        except Exception:
            return default
    return default if value is None else str(value)


class Database(object):
    """The metadata database through Airflow's own settings. A context manager; nothing is committed unless commit()
    is called.
    """

    def __enter__(self):
        version = airflow_version()
        if in_task_sdk():
            raise AgentError(
                "no_database",
                "Airflow %s gives its tasks no way to the metadata database; that takes Airflow 2 or the REST lane"
                % version,
            )
        from airflow import settings

        self.url = str(settings.SQL_ALCHEMY_CONN or "")
        self._check_sqlite()
        self.session = settings.Session()
        try:
            self._check_tables()
        except AgentError:
            self.session.close()
            raise
        except Exception as error:
            self.session.close()
            raise AgentError(
                "database",
                "the metadata database %s cannot be read: %s" % (self.name, _one_line(getattr(error, "orig", error))),
            ) from None
        return self

    def __exit__(self, kind, error, trace):
        self.session.rollback()
        self.session.close()

    @property
    def name(self):
        return database_name(self.url)

    def _check_sqlite(self):
        # connecting to a missing file would create it
        path = self.url.partition("sqlite:///")[2].partition("?")[0]
        if path and not os.path.isfile(path):
            raise AgentError(
                "database",
                "the metadata database %s does not exist: airflow_home %s is not that of a running Airflow"
                % (path, os.environ.get("AIRFLOW_HOME")),
            )

    def _check_tables(self):
        from sqlalchemy import inspect

        tables = set(inspect(self.session.get_bind()).get_table_names())
        missing = sorted({"variable", "connection", "slot_pool"} - tables)
        if missing:
            raise AgentError(
                "database",
                "the metadata database %s has no table %s: airflow_home %s is not that of a running Airflow"
                % (self.name, " and ".join(missing), os.environ.get("AIRFLOW_HOME")),
            )

    def table(self, kind):
        from airflow.models import Connection, Pool, Variable

        return {"variables": Variable, "connections": Connection, "pools": Pool}[kind].__table__

    def key_column(self, kind):
        return self.table(kind).c[{"variables": "key", "connections": "conn_id", "pools": "pool"}[kind]]

    def ids(self, kind):
        key = self.key_column(kind)
        return sorted(row[0] for row in self.session.query(key.label("x_id")).filter(key.isnot(None)))

    def rows(self, kind):
        """Every row as a dict of column -> stored value, plus "#id" (the name) and "#row" (the primary key), in order
        of creation.
        """
        table, key = self.table(kind), self.key_column(kind)
        names = [COLUMNS[kind].get(field, field) for field in FIELDS[kind]] + sorted(set(SEALED[kind].values()))
        columns = [table.c[name] for name in names if name in table.c]
        selected = [key.label("x_id"), table.c.id.label("x_row")] + [c.label("c_" + c.name) for c in columns]
        for row in self.session.query(*selected).order_by(table.c.id).yield_per(1000):
            stored = dict(zip(("#id", "#row"), row[:2]))
            stored.update((column.name, value) for column, value in zip(columns, row[2:]))
            yield stored


def database_name(url):
    """A database's URL without its user, password and parameters."""
    return re.sub(r"://[^/]*@", "://", url).partition("?")[0] or "(none)"


class Undecryptable(Exception):
    pass


class Cipher(object):
    """Airflow's own Fernet, and how well it fits what is stored."""

    def __init__(self):
        self.problem = None
        self.fernet = None
        try:
            from airflow.models.crypto import get_fernet

            self.fernet = get_fernet()
        except Exception:
            self.problem = "invalid"
        self.encrypted = self.undecryptable = self.clear = self.lookalikes = 0

    @property
    def has_key(self):
        return bool(getattr(self.fernet, "is_encrypted", False))

    def decrypt(self, stored, flag):
        """A stored value in clear, exactly. Raises Undecryptable."""
        if stored is None or stored == "" or not flag:
            if stored:
                self.clear += 1
                self.lookalikes += stored.startswith("gAAAAA")
            return stored
        self.encrypted += 1
        try:
            if not self.has_key:
                raise Undecryptable()
            return self.fernet.decrypt(stored.encode("utf-8")).decode("utf-8")
        except Exception:
            self.undecryptable += 1
            raise Undecryptable() from None

    def encrypt(self, value):
        """(stored, flag). Airflow itself stores empty strings in clear."""
        if value is None or value == "":
            return value, False
        if self.problem:
            raise AgentError("fernet", self.sentence())
        return self.fernet.encrypt(value.encode("utf-8")).decode("ascii"), self.has_key

    @property
    def status(self):
        if self.problem:
            return self.problem
        if self.encrypted and not self.has_key:
            return "missing"
        if self.encrypted and self.undecryptable == self.encrypted:
            return "wrong"
        if self.undecryptable:
            return "partly_wrong"
        return "ok" if self.has_key else "none"

    def sentence(self):
        used = "the Fernet key from %s" % origin_of("core", "fernet_key")
        if self.status == "invalid":
            return "%s is not a valid Fernet key: put Airflow's own key there" % _capital(used)
        if self.status == "missing" and not _has_cryptography():
            return (
                "%d stored values are encrypted, and %s has no cryptography package to open them with:"
                " install apache-airflow[crypto] there, nothing was exported" % (self.encrypted, sys.executable)
            )
        if self.status == "missing":
            return (
                "No Fernet key is set (%s), but %d stored values are encrypted:"
                " put the key there with which Airflow stored them, nothing was exported"
                % (
                    origin_of("core", "fernet_key"),
                    self.encrypted,
                )
            )
        return (
            "%s opens none of the %d encrypted values: put the key there with which Airflow stored them,"
            " nothing was exported"
            % (
                _capital(used),
                self.encrypted,
            )
        )

    def report(self):
        return {
            "status": self.status,
            "source": origin_of("core", "fernet_key"),
            "encrypted": self.encrypted,
            "undecryptable": self.undecryptable,
            "clear": self.clear,
            "lookalikes": self.lookalikes,
        }


def _capital(text):
    return text[:1].upper() + text[1:]


def decode(kind, row, cipher):
    """A stored row as {field: value}. The one reading of a row; export, digests and comparisons all use it. Raises
    Undecryptable.
    """
    values, failed = {}, False
    for field in FIELDS[kind]:
        stored = row.get(COLUMNS[kind].get(field, field))
        if field in SEALED[kind]:
            try:
                stored = cipher.decrypt(stored, row.get(SEALED[kind][field]))
            except Undecryptable:
                failed = True
        elif field == "include_deferred":
            stored = bool(stored)  # the column came with 2.7
        values[field] = stored
    if failed:
        raise Undecryptable()
    return values


def encode(kind, values, cipher, table):
    """The reverse of decode: {column: stored} for the columns that this Airflow has."""
    stored = {}
    for field in FIELDS[kind]:
        value, column = values.get(field), COLUMNS[kind].get(field, field)
        if field in SEALED[kind]:
            value, flag = cipher.encrypt(value)
            stored[SEALED[kind][field]] = flag
        if column in table.c:
            stored[column] = value
    return stored


def canonical(kind, item):
    """An item as the bundle has it (a variable may be a bare string) as {field: value} with every field."""
    if kind == "variables" and not isinstance(item, dict):
        item = {"value": item}
    values = {field: item.get(field) for field in FIELDS[kind]}
    if kind == "pools":
        values["include_deferred"] = bool(values["include_deferred"])
    return values


def digest(key, kind, identifier, field, value):
    """HMAC-SHA256 (hex) that proves one field equal without showing it; _bundle.py has the same line."""
    message = json.dumps([SINGULAR.get(kind, kind), identifier, field, value], ensure_ascii=True, separators=(",", ":"))
    return hmac.new(key, message.encode("ascii"), hashlib.sha256).hexdigest()


def read_state(kinds=KINDS, database=None, cipher=None):
    """({kind: {id: {field: value}}}, cipher, [{"kind", "id", "reason"}] of rows that cannot be read)."""
    cipher = cipher or Cipher()
    state, faults = {}, []

    def read(database):
        for kind in kinds:
            state[kind] = {}
            for row in database.rows(kind):
                identifier = row["#id"]
                if identifier is None:  # most columns of names allow it, and nothing can ask for such a row
                    faults.append(_fault(kind, NO_ID, "has no id (NULL), so nothing can use it"))
                    continue
                if identifier in state[kind]:
                    # 1.10 allows several connections of one id and picks one at random
                    faults.append(
                        _fault(kind, identifier, "there are several rows with this id; the oldest is carried")
                    )
                    continue
                try:
                    state[kind][identifier] = decode(kind, row, cipher)
                except Undecryptable:
                    faults.append(
                        _fault(
                            kind,
                            identifier,
                            "cannot be decrypted with the Fernet key from %s" % origin_of("core", "fernet_key"),
                        )
                    )

    if database is not None:
        read(database)
    else:
        with Database() as opened:
            read(opened)
    return state, cipher, faults


def _fault(kind, identifier, reason):
    return {"kind": SINGULAR[kind], "id": identifier, "reason": reason}


def default_connections():
    """What this Airflow itself creates on `db init`: {conn_id: {field: value}}; None when it cannot be known."""
    try:
        from airflow.utils import db

        if hasattr(db, "get_default_connections"):
            made = list(db.get_default_connections())
        else:
            made = []
            original = db.merge_conn
            db.merge_conn = lambda connection, session=None: made.append(connection)
            try:
                db.create_default_connections(session=object())
            finally:
                db.merge_conn = original
    except Exception:
        return None
    fields = FIELDS["connections"]
    return {connection.conn_id: {field: getattr(connection, field, None) for field in fields} for connection in made}


def _is_untouched(values, default):
    return all(_loose(field, values[field]) == _loose(field, default[field]) for field in FIELDS["connections"])


def _loose(field, value):
    if field == "extra" and value:
        try:
            return json.dumps(json.loads(value), sort_keys=True)
        except ValueError:
            return value
    return value or None


# -------------------------------------------------------------------------------------------------- operations: state


def inspect(request):
    """Who this Airflow is and how it stands. Reads every row (to prove the Fernet key), returns none."""
    version = airflow_version()
    with Database() as database:
        state, cipher, faults = read_state(database=database)
        counts = {kind: len(state[kind]) for kind in KINDS}
        counts["dags"] = len(_dags(database))
        name, dialect = database.name, database.session.get_bind().dialect.name
    sentence = cipher.sentence() if cipher.status in ("invalid", "missing", "wrong") else None
    return dict(
        _who(version),
        database=name,
        dialect=dialect,
        fernet=dict(cipher.report(), sentence=sentence),
        counts=counts,
        faults=faults,
    )


def _who(version):
    """What an Airflow is, without its database."""
    return {
        "agent_version": VERSION,
        "airflow_version": version,
        "python_version": "%d.%d.%d" % sys.version_info[:3],
        "python": sys.executable,
        "hostname": socket.gethostname(),
        "user": _user(),
        "airflow_home": os.environ.get("AIRFLOW_HOME"),
        "airflow_config": config_path(),
        "executor": _option("core", "executor"),
        "dags_folder": _option("core", "dags_folder"),
        "plugins_folder": _option("core", "plugins_folder"),
        "secrets_backend": _option("secrets", "backend") or None,
    }


def export_state(request):
    """Variables, connections and pools in the format of Airflow's own import, sealed with data_key (base64 of 32
    bytes).

    Fails as a whole when the Fernet key is missing or wrong; single unreadable rows and untouched defaults are listed.
    With `ids`, in a task of Airflow 3: of these alone (_export_by_sdk).
    """
    data_key = base64.b64decode(request["data_key"])
    if request.get("ids") is not None:
        return _export_by_sdk(request, data_key)
    state, cipher, faults = read_state()
    if cipher.status in ("invalid", "missing", "wrong"):
        raise AgentError("fernet_" + cipher.status, cipher.sentence())
    left_out = []
    defaults = default_connections()
    added, wrong = environment_state(request.get("environment"))
    faults += wrong
    if not request.get("include_defaults"):
        for identifier in sorted((set(defaults or ()) & set(state["connections"])) - set(added["connections"])):
            if _is_untouched(state["connections"][identifier], defaults[identifier]):
                del state["connections"][identifier]
                left_out.append(identifier)
    for key in sorted(state["variables"]):
        if state["variables"][key]["value"] is None:
            del state["variables"][key]
            faults.append(_fault("variables", key, "has no value (NULL)"))
    for kind in sorted(added):
        for identifier in sorted(added[kind]):
            item = added[kind][identifier]
            if item["description"] is None:  # an environment variable has none: it hides the row's value alone
                item = dict(item, description=state[kind].get(identifier, item)["description"])
            state[kind][identifier] = item
    return dict(
        sealed_state(state, data_key),
        faults=faults,
        defaults=left_out,
        defaults_known=defaults is not None,
        fernet=cipher.report(),
    )


def sealed_state(state, data_key):
    """{"sealed", "content", "counts"}, each by kind. state: {kind: {id: {field: value}}}, with every field."""
    seal = fernet(base64.urlsafe_b64encode(data_key))
    sealed, content = {}, {}
    key = hmac.new(data_key, b"digest", hashlib.sha256).digest()
    for kind in sorted(state):
        text = state_text(kind, state[kind])
        content[kind] = hmac.new(key, text, hashlib.sha256).hexdigest()
        sealed[kind] = seal.encrypt(text).decode("ascii")
    return {"sealed": sealed, "content": content, "counts": {kind: len(state[kind]) for kind in state}}


def _export_by_sdk(request, data_key):
    """Airflow 3, inside a task: the values of the variables and connections in `ids`, with the descriptions that REST
    has shown ({kind: {id: text}}); what cannot be read is listed. Pools are no secret: REST shows them whole.
    """
    ids = {kind: request["ids"][kind] for kind in KINDS[:2] if kind in request["ids"]}
    state, unreadable, _notes = _read_by_sdk(sorted(ids), ids)
    descriptions = request.get("descriptions") or {}
    faults = [{"kind": kind, "id": name, "reason": unreadable[(kind, name)]} for kind, name in sorted(unreadable)]
    for kind in ids:
        for identifier in ids[kind]:
            values = state[kind].get(identifier)
            if values is not None:
                description = (descriptions.get(kind) or {}).get(identifier)
                state[kind][identifier] = canonical(kind, dict(values, description=description))
            elif (SINGULAR[kind], identifier) not in unreadable:
                faults.append(_fault(kind, identifier, "it was gone when the agent looked for it"))
    prefixes = {"variables": "AIRFLOW_VAR_", "connections": "AIRFLOW_CONN_"}
    hidden = [prefixes[kind] + name.upper() for kind in ids for name in ids[kind]]
    return dict(sealed_state(state, data_key), faults=faults, hidden=[name for name in hidden if name in os.environ])


def state_text(kind, items):
    """The bytes of <kind>.json. Values stay strings and every character is written in ASCII: nothing is re-encoded on
    the way.
    """
    if kind == "variables":
        items = {
            key: item if item["description"] is not None else item["value"]
            for key, item in ((key, items[key]) for key in items)
        }
    return json.dumps(items, ensure_ascii=True, sort_keys=True, separators=(",", ":")).encode("ascii")


def digest_state(request):
    """{kind: {id: {field: digest} or None where there is no such id}} for the ids asked for (null: all there are)."""
    key = base64.b64decode(request["digest_key"])
    wanted = request.get("ids") or {}
    kinds = [kind for kind in KINDS if kind in wanted] if wanted else list(KINDS)
    if in_task_sdk():
        state, unreadable, notes = _read_by_sdk(kinds, wanted)
    else:
        state, cipher, faults = read_state(kinds)
        unreadable = {(fault["kind"], fault["id"]): fault["reason"] for fault in faults}
        notes = []
    digests, errors = {}, {}
    for kind in kinds:
        if kind not in state:
            continue
        identifiers = wanted.get(kind)
        digests[kind] = {}
        for identifier in sorted(state[kind]) if identifiers is None else identifiers:
            values = state[kind].get(identifier)
            if values is not None:
                digests[kind][identifier] = {
                    field: digest(key, kind, identifier, field, values[field]) for field in values
                }
                continue
            digests[kind][identifier] = None
            reason = unreadable.get((SINGULAR[kind], identifier))
            if reason:
                errors.setdefault(kind, {})[identifier] = reason
    return {"digests": digests, "errors": errors, "notes": notes, "airflow_version": airflow_version()}


def _read_by_sdk(kinds, wanted):
    """Airflow 3, inside a task: single look-ups through the execution API. No descriptions, no pools, no listing."""
    from airflow.sdk import Variable

    try:
        from airflow.sdk import BaseHook
    except ImportError:
        try:
            from airflow.sdk.bases.hook import BaseHook
        except ImportError:  # 3.0
            from airflow.hooks.base import BaseHook
    state, unreadable, notes = {}, {}, []
    nothing = object()
    for kind in kinds:
        if kind == "pools" or wanted.get(kind) is None:
            notes.append(
                "%s: a task of Airflow 3 can %s; compare them by REST"
                % (kind, "not see them" if kind == "pools" else "not list them")
            )
            continue
        state[kind] = {}
        for identifier in wanted[kind]:
            if not fits_execution_api(identifier):
                unreadable[(SINGULAR[kind], identifier)] = UNNAMEABLE
                continue
            try:
                if kind == "variables":
                    value = Variable.get(identifier, default=nothing)
                    if value is not nothing:
                        state[kind][identifier] = {"value": value}
                else:
                    connection = BaseHook.get_connection(identifier)
                    fields = [field for field in FIELDS[kind] if field != "description"]
                    state[kind][identifier] = {field: getattr(connection, field, None) for field in fields}
            except Exception as error:
                unreadable[(SINGULAR[kind], identifier)] = type(error).__name__
    notes.append("descriptions are not visible to a task of Airflow 3; compare them by REST")
    return state, unreadable, notes


UNNAMEABLE = "a task of Airflow 3 cannot name it: its id goes into a URL as it is"


def fits_execution_api(identifier):
    """Airflow 3.2.1 puts ids into the execution API's URLs unquoted: some would name another one, some end the whole
    task.
    """
    if re.search(r"[\x00-\x1f\x7f?#%\\]", identifier) or identifier != identifier.strip():
        return False
    return all(part not in ("", ".", "..") for part in identifier.split("/"))


def import_state(request):
    """Write variables, connections and pools in one transaction: all of it or nothing, but for single items that this
    Airflow's tables cannot hold (status "refused", with the reason).

    request: variables, connections, pools (each optional, as in the bundle); on_conflict overwrite|keep|fail; prune
    (true, or a list of the ids that may go; only kinds that were given; default_pool, aws_default and the ids in
    spared stay); digest_key (base64,
    optional: digests of what is then stored are returned).
    Returns {"applied", "results": {kind: {id: status}}, "reasons": {kind: {id: reason}}, "digests"}.
    """
    conflict = request.get("on_conflict") or "overwrite"
    if conflict not in ("overwrite", "keep", "fail"):
        raise AgentError("invalid", "on_conflict is overwrite, keep or fail, not %r" % (conflict,))
    if in_task_sdk():
        return _import_by_sdk(request, conflict)
    given = [kind for kind in KINDS if request.get(kind) is not None]
    with Database() as database:
        cipher = Cipher()
        reasons = {}
        for kind in given:
            for identifier, reason in _invalid(kind, request[kind], database.table(kind)):
                found = reasons.setdefault(kind, {})
                found[identifier] = "; ".join([found[identifier], reason] if identifier in found else [reason])
        unfit = {kind: set(reasons.get(kind) or ()) for kind in given}
        stored, cipher, faults = read_state(given, database, cipher)
        if cipher.status == "invalid":
            raise AgentError("fernet_invalid", cipher.sentence())
        exists = {kind: set(stored[kind]) for kind in given}
        for fault in faults:
            kind = fault["kind"] + "s"
            if fault["id"] != NO_ID:
                exists[kind].add(fault["id"])  # an unreadable row is there all the same: it counts as different
        results, conflicts = {}, {}
        for kind in given:
            results[kind] = {}
            for identifier in sorted(request[kind]):
                wanted = canonical(kind, request[kind][identifier])
                if identifier in unfit[kind]:
                    results[kind][identifier] = "refused"
                elif identifier not in exists[kind]:
                    results[kind][identifier] = "created"
                elif stored[kind].get(identifier) == _known_columns(
                    kind, wanted, database.table(kind), stored[kind].get(identifier)
                ):
                    results[kind][identifier] = "unchanged"
                elif conflict == "overwrite":
                    results[kind][identifier] = "updated"
                elif conflict == "keep":
                    results[kind][identifier] = "kept"
                    reasons.setdefault(kind, {})[identifier] = "exists with another content"
                else:
                    conflicts.setdefault(kind, {})[identifier] = "exists with another content (on_conflict is fail)"
            if request.get("prune"):
                gone = exists[kind] - set(request[kind]) - set(request.get("spared") or ())
                if isinstance(request["prune"], list):
                    gone &= set(request["prune"])
                for identifier in sorted(gone):
                    if (kind, identifier) == ("pools", DEFAULT_POOL) or (
                        kind == "connections" and identifier in KEPT_CONNECTIONS
                    ):
                        continue
                    results[kind][identifier] = "deleted"
        if conflicts:
            return _refused(conflicts)
        _write(database, cipher, request, results)
        digests = {}
        if request.get("digest_key"):
            key = base64.b64decode(request["digest_key"])
            after, _cipher, _faults = read_state(given, database)
            for kind in given:
                items = ((identifier, after[kind].get(identifier)) for identifier in results[kind])
                digests[kind] = {
                    identifier: {field: digest(key, kind, identifier, field, values[field]) for field in values}
                    for identifier, values in items
                    if values is not None
                }
        try:
            database.session.commit()
        except Exception as error:
            raise AgentError(
                "database", "the database refused the import (%s), nothing was written" % type(error).__name__
            ) from None
    return {"applied": True, "results": results, "reasons": reasons, "digests": digests}


def _import_by_sdk(request, conflict):
    """Airflow 3, inside a task: variables only, one by one through the execution API, which writes no audit log."""
    from airflow.sdk import Variable

    if conflict != "overwrite" or request.get("prune") or any(request.get(kind) for kind in KINDS[1:]):
        raise AgentError("invalid", "a task of Airflow 3 can only overwrite variables: use REST for all else")
    key = base64.b64decode(request["digest_key"]) if request.get("digest_key") else None
    nothing = object()
    results, reasons, digests = {}, {}, {}
    for identifier in sorted(request["variables"]):
        wanted = canonical("variables", request["variables"][identifier])
        if not fits_execution_api(identifier):
            results[identifier], reasons[identifier] = "failed", UNNAMEABLE
            continue
        try:
            existed = Variable.get(identifier, default=nothing) is not nothing
            Variable.set(identifier, wanted["value"], description=wanted["description"])
            arrived = Variable.get(identifier, default=nothing) == wanted["value"]  # set() swallows errors
        except Exception as error:
            results[identifier], reasons[identifier] = "failed", type(error).__name__
            continue
        if not arrived:
            results[identifier] = "failed"
            reasons[identifier] = "it reads back differently: a secrets backend or environment variable hides it"
            continue
        results[identifier] = "updated" if existed else "created"
        if key:
            digests[identifier] = {"value": digest(key, "variables", identifier, "value", wanted["value"])}
    return {
        "applied": True,
        "results": {"variables": results},
        "reasons": {"variables": reasons},
        "digests": {"variables": digests},
    }


def _refused(reasons):
    results = {kind: dict.fromkeys(reasons[kind], "failed") for kind in reasons}
    return {"applied": False, "results": results, "reasons": reasons, "digests": {}}


def _known_columns(kind, wanted, table, current):
    """`wanted` with the fields that this Airflow has no column for taken from what is there (so that they do not
    count as different).
    """
    if current is None:
        return wanted
    return {
        field: wanted[field] if COLUMNS[kind].get(field, field) in table.c else current[field] for field in FIELDS[kind]
    }


def _invalid(kind, items, table):
    """(id, reason) for every item that this Airflow's tables cannot hold."""
    key = {"variables": "key", "connections": "conn_id", "pools": "pool"}[kind]
    for identifier in sorted(items):
        values = canonical(kind, items[identifier])
        if not identifier:
            yield identifier, "the id is empty"
        longest = _limit(table.c[key])
        if longest and len(identifier) > longest:
            yield identifier, "the id has %d characters, %d fit" % (len(identifier), longest)
        for field in FIELDS[kind]:
            value, column = values[field], COLUMNS[kind].get(field, field)
            if value is None or column not in table.c:
                continue
            if field in ("port", "slots"):
                if isinstance(value, bool) or not isinstance(value, int) or abs(value) >= 2**31:
                    yield identifier, "%s is no integer that fits" % field
            elif field != "include_deferred":
                limit = _limit(table.c[column])
                if not isinstance(value, str):
                    yield identifier, "%s is no string" % field
                elif "\0" in value:
                    yield identifier, "%s contains a NUL character" % field
                elif any(0xD800 <= ord(character) <= 0xDFFF for character in value):
                    yield identifier, "%s contains a lone surrogate" % field
                elif limit and (_sealed_length(value) if field in SEALED[kind] else len(value)) > limit:
                    sealed = ", encrypted" if field in SEALED[kind] else ""
                    yield identifier, "%s has %d characters, %d fit%s" % (field, len(value), limit, sealed)
        if kind == "variables" and values["value"] is None:
            yield identifier, "value is missing"
        if kind == "connections" and not values["conn_type"]:
            yield identifier, "conn_type is missing"
        if kind == "pools" and values["slots"] is None:
            yield identifier, "slots is missing"


def _limit(column):
    """The characters that a column holds, None where there is no end: PostgreSQL's TEXT has none, whatever is said."""
    from sqlalchemy import Text

    return None if isinstance(column.type, Text) else getattr(column.type, "length", None)


def _sealed_length(value):
    """The characters of a Fernet token: version, time, vector and digest, and the padded text, in base64."""
    size = 57 + 16 * (len(value.encode("utf-8")) // 16 + 1)
    return (size + 2) // 3 * 4


def _write(database, cipher, request, results):
    session = database.session
    try:
        for kind in results:
            table, key = database.table(kind), database.key_column(kind)
            for identifier, status in results[kind].items():
                if status == "deleted":
                    session.execute(table.delete().where(key == identifier))
                elif status in ("created", "updated"):
                    values = encode(kind, canonical(kind, request[kind][identifier]), cipher, table)
                    if status == "created":
                        session.execute(table.insert().values(**dict(values, **{key.name: identifier})))
                    else:
                        session.execute(table.update().where(key == identifier).values(**values))
        session.flush()
    except AgentError:
        raise
    except Exception as error:
        session.rollback()
        raise AgentError(
            "database", "the database refused the import (%s), nothing was written" % type(error).__name__
        ) from None


# ------------------------------------------------------------------------------------- operations: what else there is


def plan(request):
    """Everything but secrets that an export decides on: identity, files, distributions, options, environment variables,
    DAGs, users and their rights.

    bucket: true in MWAA, where code, requirements, options and startup script are in the environment's bucket and
    settings: the answer leaves them out. A task of Airflow 3 sees neither DAGs nor users.
    """
    if request.get("bucket"):
        return _plan_in_environment(request)
    identity = inspect(request)
    folders, elsewhere = code_folders()
    files = {name: list_files(folders[name]) for name in folders}
    reads = scan(folders, files)
    with Database() as database:
        dags = _dags(database)
        stored = {kind: database.ids(kind) for kind in ("variables", "connections")}
        access = _access(database, reads["access_control"])
    return {
        "identity": dict(identity, unreadable=list(UNREADABLE)),
        "files": files,
        "dag_bundles_elsewhere": elsewhere,
        "distributions": distributions(),
        "options": options(),
        "environment": environment_variables(stored, reads),
        "dags": dags,
        "access": access,
    }


def _plan_in_environment(request):
    folders, _elsewhere = code_folders()
    reads = scan(folders, {name: list_files(folders[name]) for name in folders})
    if in_task_sdk():
        access = {"model": "unknown", "users": [], "roles": {}, "access_control": reads["access_control"]}
        return {"identity": _who(airflow_version()), "dags": None, "access": access}
    with Database() as database:
        return {
            "identity": inspect(request),
            "dags": _dags(database),
            "access": _access(database, reads["access_control"]),
        }


def listing(_request):
    """The code of this host alone, to compare the hosts of one installation: needs no database."""
    version = airflow_version()
    folders, _elsewhere = code_folders()
    return {
        "hostname": socket.gethostname(),
        "airflow_version": version,
        "airflow_home": os.environ.get("AIRFLOW_HOME"),
        "files": {name: list_files(folders[name]) for name in folders},
    }


def code_folders():
    """({name: folder}, [{"name", "reason"}] of DAG bundles that are no folder here).

    Airflow 3 has DAG bundles: the first one that is a folder is `dags`, every other one `dags/NAME`.
    """
    folders, elsewhere = {}, []
    for bundle in _dag_bundles():
        path = (bundle.get("kwargs") or {}).get("path") or _option("core", "dags_folder")
        if not str(bundle.get("classpath")).endswith(".LocalDagBundle"):
            elsewhere.append({"name": str(bundle.get("name")), "classpath": str(bundle.get("classpath"))})
        elif "dags" not in folders:
            folders["dags"] = path
        elif path not in folders.values():
            name = re.sub(r"^[.]+|[^A-Za-z0-9_.-]", "_", str(bundle.get("name")))
            while "dags/%s" % name in folders or os.path.lexists(os.path.join(folders["dags"], name)):
                name += "_"  # two bundles, or a bundle and a folder of the first one, are not mixed up
            folders["dags/%s" % name] = path
    folders.setdefault("dags", _option("core", "dags_folder"))
    folders["plugins"] = _option("core", "plugins_folder")
    return folders, elsewhere


def _dag_bundles():
    if int(airflow_version().split(".")[0]) >= 3:
        try:
            bundles = json.loads(_option("dag_processor", "dag_bundle_config_list", "[]"))
            if bundles and all(isinstance(bundle, dict) for bundle in bundles):
                return bundles
        except ValueError:
            pass
    return [{"name": "dags-folder", "classpath": "airflow.dag_processing.bundles.local.LocalDagBundle"}]


# ------------------------------------------------------------------------------------- what DAG files read, and rights

SCANNED = 2 * CHUNK  # bytes of a file
WORTH_PARSING = re.compile(rb"environ|getenv|Variable|conn_id|get_connection|access_control|\b(?:var|conn)\.")
TEMPLATES = re.compile(r"\{[{%][^{}]*?\b(var\.(?:value|json)|conn)\.([A-Za-z_][A-Za-z0-9_]*)")


def scan(folders, files):
    """What the code names literally: {"environ": {name: [path]}, "variables": [key], "connections": [conn_id],
    "access_control": [{"dag_id", "path", "roles"}]}. Nothing is imported or run.
    """
    found = {"environ": {}, "variables": set(), "connections": set(), "access_control": []}
    for name in sorted(folders):
        for file in files[name]["files"]:
            if not file["path"].endswith(".py") or file["size"] > SCANNED:
                continue
            try:
                with io.open(os.path.join(files[name]["root"], file["path"]), "rb") as opened:
                    code = opened.read(SCANNED)
                if WORTH_PARSING.search(code):
                    _scan_code(ast.parse(code), "%s/%s" % (name, file["path"]), found)
            except (IOError, OSError, SyntaxError, ValueError, RecursionError, MemoryError):
                continue  # it is carried as it is; what it reads is not known
    return {
        "environ": found["environ"],
        "variables": sorted(found["variables"]),
        "connections": sorted(found["connections"]),
        "access_control": found["access_control"],
    }


def _scan_code(tree, path, found):
    for node in ast.walk(tree):
        name = None
        if isinstance(node, ast.Subscript) and _called(node.value) == "environ":
            # ast.Index came between until Python 3.8
            name = _literal(node.slice.value if type(node.slice).__name__ == "Index" else node.slice)
        elif isinstance(node, ast.Compare) and _called(node.comparators[0]) == "environ":
            name = _literal(node.left)
        elif isinstance(node, ast.Call):
            _scan_call(node, path, found)
        elif _literal(node) is not None:
            for kind, identifier in TEMPLATES.findall(_literal(node)):
                found["connections" if kind == "conn" else "variables"].add(identifier)
        if name:
            _read_by(found, name, path)


def _scan_call(node, path, found):
    called, first = _called(node.func), _literal(node.args[0]) if node.args else None
    owner = _called(node.func.value) if isinstance(node.func, ast.Attribute) else None
    if first and (called == "getenv" or (owner == "environ" and called in ("get", "pop", "setdefault"))):
        _read_by(found, first, path)
    elif first and owner == "Variable" and called in ("get", "get_variable_from_secrets", "setdefault"):
        found["variables"].add(first)
    elif first and called in ("get_connection", "get_connections", "get_connection_from_secrets"):
        found["connections"].add(first)
    elif first and owner == "Connection" and called == "get":
        found["connections"].add(first)
    given = {keyword.arg: keyword.value for keyword in node.keywords if keyword.arg}
    for name in given:
        if name.endswith("conn_id") and _literal(given[name]):
            found["connections"].add(_literal(given[name]))
    if "access_control" in given and called in ("DAG", "dag"):
        try:
            roles = ast.literal_eval(given["access_control"])
        except (ValueError, SyntaxError, TypeError):
            roles = None
        dag_id = _literal(given.get("dag_id")) or (first if called == "DAG" else None)
        found["access_control"].append({"dag_id": dag_id, "path": path, "roles": _plain(roles)})


def _read_by(found, name, path):
    paths = found["environ"].setdefault(name, [])
    if path not in paths:
        paths.append(path)


def _called(node):
    """The last name of `a.b.c` or `c`."""
    return getattr(node, "attr", None) or getattr(node, "id", None)


def _literal(node):
    """The text of a string literal (ast.Constant from Python 3.8 on, ast.Str before), or None."""
    value = getattr(node, "value", None) if type(node).__name__ == "Constant" else getattr(node, "s", None)
    return value if isinstance(value, str) else None


def _plain(value):
    if isinstance(value, dict):
        return {str(key): _plain(value[key]) for key in value}
    if isinstance(value, (list, tuple, set, frozenset)):
        return sorted(str(item) for item in value)
    return None if value is None else str(value)


def environment_variables(stored, reads):
    """[{"name", "kind", "origin", "ids", "hides", "secret", "value", "read_by"}] of AIRFLOW_VAR_* (kind variable),
    AIRFLOW_CONN_* (connection), and others (plain) that DAG files read and that Airflow's own processes have.

    ids: what a variable or connection is called; Airflow asks for the name in capitals, so the spelling is that of the
    database or of the code, and small letters where neither names it. A secret's value is None.
    """
    own = {name for name in ORIGINS if not ORIGINS[name].startswith("the ")} or set(os.environ)
    found = []
    for name in sorted(os.environ):
        match = re.match(r"^AIRFLOW_(VAR|CONN)_(.+)$", name)
        value, secret = os.environ[name], looks_secret(name, os.environ[name])
        entry = {"name": name, "origin": ORIGINS.get(name), "read_by": reads["environ"].get(name, [])[:3]}
        if match:
            kind = {"VAR": "variables", "CONN": "connections"}[match.group(1)]
            hides = [identifier for identifier in stored[kind] if identifier.upper() == match.group(2)]
            named = [identifier for identifier in reads[kind] if identifier.upper() == match.group(2)]
            entry.update(kind=SINGULAR[kind], hides=hides)
            entry["ids"] = sorted(set(hides + named)) or [match.group(2).lower()]
            secret = secret or kind == "connections"
        elif name in own and entry["read_by"]:
            entry.update(kind="plain", hides=[], ids=[])
        else:
            continue
        fits = not any(0xD800 <= ord(character) <= 0xDFFF for character in value)
        found.append(dict(entry, secret=secret, value=value if fits and not secret else None))
    return found


SECRET_WORD = re.compile(
    r"passw|passphrase|(^|_)pass(_|$)|pwd|secret|token|credential|api_?key|access_?key|private|(^|_)key(_|$)|auth|dsn"
    r"|signature|salt|conn_?str|connection_?string",
    re.IGNORECASE,
)
SECRET_VALUE = re.compile(
    r"://[^/\s:@]*:[^/\s@]+@|-----BEGIN |\b(AKIA|ASIA)[A-Z0-9]{12}|\bgh[pousr]_[A-Za-z0-9]{20}|\bxox[abprs]-"
    r"|\beyJ[\w-]+\.eyJ|\bgAAAAA|(?i:password|passwd|pwd|secret|token)[\"']?\s*[:=]"
)


def looks_secret(name, value):
    """Whether a name or a value looks like a secret; rather too often than too rarely."""
    return bool(SECRET_WORD.search(name) or SECRET_VALUE.search(value))


def environment_state(how):
    """({kind: {id: item}}, faults) of AIRFLOW_VAR_* and AIRFLOW_CONN_*. how: `all`, `secret` (those that look like it;
    connections always do), or None.
    """
    items, faults = {"variables": {}, "connections": {}}, []
    for entry in _environment_entries() if how else ():
        kind, value = entry["kind"] + "s", os.environ.get(entry["name"], "")
        if kind not in items or (how == "secret" and not entry["secret"]):
            continue
        try:
            value.encode("utf-8")
            item = {"value": value, "description": None} if kind == "variables" else _connection(value)
        except UnicodeEncodeError:
            faults.append(_fault(kind, entry["name"], "the environment variable is no text in UTF-8"))
            continue
        except Exception:
            faults.append(_fault(kind, entry["name"], "the environment variable is no connection that Airflow reads"))
            continue
        for identifier in entry["ids"]:
            items[kind][identifier] = item
    return items, faults


def _environment_entries():
    folders, _elsewhere = code_folders()
    reads = scan(folders, {name: list_files(folders[name]) for name in folders})
    with Database() as database:
        stored = {kind: database.ids(kind) for kind in ("variables", "connections")}
    return environment_variables(stored, reads)


def _connection(text):
    """A connection as Airflow makes it of AIRFLOW_CONN_*: a URI, or from 2.3 on JSON."""
    from airflow.models import Connection

    if text.startswith("{"):
        made = Connection.from_json(text, conn_id="x")
    else:
        made = Connection(conn_id="x", uri=text)
    values = {field: getattr(made, field, None) for field in FIELDS["connections"]}
    return canonical("connections", values)


def _access(database, access_control):
    """Users without their passwords, roles with their rights, DAGs with rights of their own: for a report, by name."""
    from sqlalchemy import inspect, text

    def rows(sql):
        return [tuple(row) for row in database.session.execute(text(sql))]

    tables = set(inspect(database.session.get_bind()).get_table_names())
    access = {"model": "none", "users": [], "roles": {}, "access_control": access_control}
    simple = _option("core", "simple_auth_manager_users")
    if "SimpleAuthManager" in _option("core", "auth_manager") and simple:
        access["model"] = "simple"
        for pair in simple.split(","):
            name, _colon, role = pair.strip().partition(":")
            access["users"].append({"username": name, "roles": [role.capitalize()], "active": True})
    elif "ab_user" in tables and not _without_rbac():
        access["model"] = "fab"
        belongs = {}
        for user, role in rows(
            "select ur.user_id, r.name from ab_user_role ur join ab_role r on r.id = ur.role_id order by r.name"
        ):
            belongs.setdefault(user, []).append(role)
        for user in rows("select id, username, first_name, last_name, email, active from ab_user order by username"):
            entry = dict(zip(("username", "first_name", "last_name", "email"), user[1:5]))
            access["users"].append(dict(entry, active=bool(user[5]), roles=belongs.get(user[0], [])))
        for (name,) in rows("select name from ab_role order by name"):
            access["roles"][name] = []
        for role, action, resource in rows(
            "select r.name, p.name, v.name from ab_permission_view_role x join ab_role r on r.id = x.role_id"
            " join ab_permission_view pv on pv.id = x.permission_view_id"
            " join ab_permission p on p.id = pv.permission_id"
            " join ab_view_menu v on v.id = pv.view_menu_id order by 1, 2, 3"
        ):
            access["roles"][role].append([action, resource])
    elif "users" in tables:  # 1.10 without RBAC: everyone who may log in may do everything, some also administrate
        access["model"] = "1.10"
        for user in rows("select username, email, superuser from users order by username"):
            role = "Admin" if user[2] else "Op"
            access["users"].append({"username": user[0], "email": user[1], "active": True, "roles": [role]})
    return access


def _without_rbac():
    """1.10 has both interfaces, and the tables of the new one even where the old one runs."""
    return airflow_version().startswith("1.") and _option("webserver", "rbac").strip().lower() not in ("true", "t", "1")


def _dags(database):
    from airflow.models import DagModel

    table = DagModel.__table__
    names = [
        name for name in ("dag_id", "is_paused", "is_active", "is_stale", "is_subdag", "fileloc") if name in table.c
    ]
    found = []
    for row in database.session.query(*[table.c[name] for name in names]).order_by(table.c.dag_id):
        dag = dict(zip(names, row))
        if dag.pop("is_active", True) is False or dag.pop("is_stale", False) or dag.pop("is_subdag", False):
            continue
        found.append({"dag_id": dag["dag_id"], "is_paused": bool(dag["is_paused"]), "fileloc": dag.get("fileloc")})
    return found


def list_dags(request):
    """{"dags": [{"dag_id", "is_paused", "fileloc"}], "import_errors": [{"filename", "stack_trace"}]}, of which the last
    line: what the scheduler has parsed, where no REST API tells. Airflow 2.
    """
    if in_task_sdk():
        raise AgentError("invalid", "a task of Airflow 3 has no database: list DAGs by REST")
    from sqlalchemy import text

    with Database() as database:
        errors = [
            {"filename": row[0], "stack_trace": ((row[1] or "").strip().splitlines() or [""])[-1]}
            for row in database.session.execute(text("SELECT filename, stacktrace FROM import_error ORDER BY filename"))
        ]
        return {"dags": _dags(database), "import_errors": errors}


def list_files(root):
    """{"root", "exists", "files": [{"path", "size", "sha256"}], "skipped": [{"path", "reason"}], "caches": n} of a
    folder.

    Symlinks that stay inside the folder are followed, others are listed; a file that changes while it is read is read
    again.
    """
    listing = {"root": root, "exists": bool(root) and os.path.isdir(root), "files": [], "skipped": [], "caches": 0}
    if listing["exists"]:
        real = os.path.realpath(root)
        _walk(real, real, "", {real}, listing)
        listing["files"].sort(key=lambda file: file["path"])
        listing["skipped"].sort(key=lambda file: file["path"])
    return listing


def _walk(root, folder, prefix, above, listing):
    try:
        names = sorted(os.listdir(folder))
    except OSError as error:
        listing["skipped"].append(
            {"path": prefix or ".", "reason": "the folder cannot be read: %s" % os.strerror(error.errno)}
        )
        return
    for name in names:
        path, full = prefix + name, os.path.join(folder, name)
        reason = _unfit(path)
        if reason:
            listing["skipped"].append({"path": _printable(path), "reason": reason})
            continue
        real = os.path.realpath(full)
        if os.path.islink(full):
            if not os.path.exists(full):
                listing["skipped"].append({"path": path, "reason": "a symlink to nothing"})
                continue
            if real != root and not real.startswith(root + os.sep):
                listing["skipped"].append(
                    {"path": path, "reason": "a symlink that leaves the folder, to %s" % _printable(real)}
                )
                continue
        if os.path.isdir(full):
            if name in SKIPPED_FOLDERS:
                listing["caches"] += 1
            elif real in above:
                listing["skipped"].append({"path": path, "reason": "a symlink to a folder above itself"})
            else:
                _walk(root, full, path + "/", above | {real}, listing)
        elif not os.path.isfile(full):
            listing["skipped"].append({"path": path, "reason": "neither a file nor a folder"})
        elif name.endswith((".pyc", ".pyo")):
            listing["caches"] += 1
        else:
            try:
                listing["files"].append(_measure(full, path))
            except (IOError, OSError) as error:
                if error.errno != errno.ENOENT:
                    listing["skipped"].append(
                        {"path": path, "reason": "cannot be read: %s" % os.strerror(error.errno or 0)}
                    )


def _unfit(path):
    try:
        length = len(path.encode("utf-8"))
    except UnicodeEncodeError:
        return "the name is no UTF-8"
    if length > 800:
        return "the path is too long for an object key of S3 (1024 bytes with its prefix)"
    if any(ord(character) < 32 or ord(character) == 127 for character in path):
        return "the name contains control characters"
    return None


def _printable(text):
    return text.encode("utf-8", "backslashreplace").decode("utf-8") if isinstance(text, str) else repr(text)


def _measure(full, path, attempts=3):
    for _attempt in range(attempts):
        hasher, size = hashlib.sha256(), 0
        with io.open(full, "rb") as file:
            before = os.fstat(file.fileno())
            for chunk in iter(lambda: file.read(CHUNK), b""):
                hasher.update(chunk)
                size += len(chunk)
            after = os.fstat(file.fileno())
        if (before.st_mtime, before.st_size) == (after.st_mtime, after.st_size) and size == after.st_size:
            break
    return {"path": path, "size": size, "sha256": hasher.hexdigest()}


def export_files(request):
    """File contents: pieces for the connection, or PUTs to presigned URLs.

    root: the folder. paths: [{"path", "offset"}] with max_bytes: pieces until that much is read ({"path", "offset",
    "data", "end"}).
    puts: [{"path", "size", "sha256", "url", "headers"}]: {"path", "status":
    sent|changed|vanished|unreachable|refused, …}. A URL is a permission: it is neither logged nor returned.
    """
    root = os.path.realpath(request["root"])
    if request.get("puts") is not None:
        return {"files": _put_all(root, request["puts"], request.get("threads") or 4)}
    budget, files = request.get("max_bytes") or 4 * CHUNK, []
    for wanted in request["paths"]:
        if budget <= 0:
            break
        path, offset = wanted["path"], wanted.get("offset") or 0
        try:
            with io.open(_inside(root, path), "rb") as file:
                file.seek(offset)
                data = file.read(budget)
                end = not file.read(1)
        except (IOError, OSError) as error:
            files.append(
                {"path": path, "error": os.strerror(error.errno or 0), "vanished": error.errno == errno.ENOENT}
            )
            continue
        budget -= max(len(data), 1024)
        files.append({"path": path, "offset": offset, "data": base64.b64encode(data).decode("ascii"), "end": end})
    return {"files": files}


def measure(request):
    """Size and sha256 of some files of a folder as they are now (for files that changed since the plan)."""
    root, files = os.path.realpath(request["root"]), []
    for path in request["paths"]:
        try:
            files.append(_measure(_inside(root, path), path))
        except (IOError, OSError) as error:
            files.append(
                {"path": path, "error": os.strerror(error.errno or 0), "vanished": error.errno == errno.ENOENT}
            )
    return {"files": files}


def _inside(root, path):
    full = os.path.realpath(os.path.join(root, path))
    if not full.startswith(root + os.sep):
        raise AgentError("outside", "%s is outside of %s" % (path, root))
    return full


def _put_all(root, puts, threads):
    from concurrent.futures import ThreadPoolExecutor

    if not puts:
        return []
    # the first alone: where S3 cannot be reached, one time-out is enough
    first = _put(root, puts[0])
    if first["status"] == "unreachable":
        return [first]
    with ThreadPoolExecutor(max_workers=threads) as pool:
        return [first] + list(pool.map(lambda put: _put(root, put), puts[1:]))


def _put(root, put):
    from urllib.error import HTTPError, URLError
    from urllib.request import Request, build_opener

    path = put["path"]
    try:
        full = _inside(root, path)
        now = _measure(full, path)
        if (now["size"], now["sha256"]) != (put["size"], put["sha256"]):
            return dict(now, status="changed")
        with io.open(full, "rb") as file:
            # an exact Content-Length: S3 refuses chunked uploads (501)
            headers = dict(put.get("headers") or {}, **{"Content-Length": str(put["size"])})
            body = file if put["size"] else b""
            request = Request(put["url"], data=body, headers=headers, method="PUT")
            with build_opener().open(request, timeout=30) as response:
                headers = response.headers
                return {
                    "path": path,
                    "status": "sent",
                    "version_id": headers.get("x-amz-version-id"),
                    "etag": (headers.get("ETag") or "").strip('"') or None,
                }
    except HTTPError as error:
        code = re.search(r"<Code>([^<]{1,60})</Code>", error.read(4096).decode("utf-8", "replace"))
        return {"path": path, "status": "refused", "reason": "HTTP %d %s" % (error.code, code.group(1) if code else "")}
    except URLError as error:
        return {
            "path": path,
            "status": "unreachable",
            "reason": type(error.reason).__name__ if error.reason else "URLError",
        }
    except (IOError, OSError) as error:
        if error.errno == errno.ENOENT:
            return {"path": path, "status": "vanished"}
        if isinstance(error, (socket.timeout, ConnectionError)):
            return {"path": path, "status": "unreachable", "reason": type(error).__name__}
        return {"path": path, "status": "vanished", "reason": os.strerror(error.errno or 0)}
    except Exception as error:
        return {"path": path, "status": "unreachable", "reason": type(error).__name__}


def distributions():
    """[{"name", "version", "requires", "origin"}] of what is installed; origin: None (an index), or where else it
    came from.
    """
    found = {}
    try:
        try:
            from importlib.metadata import distributions as installed
        except ImportError:
            from importlib_metadata import distributions as installed
        for distribution in installed():
            name = distribution.metadata["Name"]
            if name and name not in found:
                found[name] = {
                    "name": name,
                    "version": distribution.version,
                    "requires": list(distribution.requires or []),
                    "origin": _direct_url(distribution.read_text("direct_url.json")),
                }
                location = str(getattr(distribution, "_path", ""))
                if found[name]["origin"] is None and location.endswith(".egg-info") and "site-packages" not in location:
                    found[name]["origin"] = "editable, from %s" % os.path.dirname(location)
    except ImportError:
        import pkg_resources

        for distribution in pkg_resources.working_set:
            origin = None
            if "site-packages" not in (distribution.location or "site-packages"):
                origin = "editable, from %s" % distribution.location
            elif distribution.has_metadata("direct_url.json"):
                origin = _direct_url(distribution.get_metadata("direct_url.json"))
            found[distribution.project_name] = {
                "name": distribution.project_name,
                "version": distribution.version,
                "requires": [str(requirement) for requirement in distribution.requires()],
                "origin": origin,
            }
    return [found[name] for name in sorted(found)]


def _direct_url(text):
    """PEP 610 in words, without the user and password that a URL may carry."""
    if not text:
        return None
    try:
        record = json.loads(text)
    except ValueError:
        return "an unknown place"
    url = re.sub(r"://[^/@]*@", "://", str(record.get("url") or ""))
    if "vcs_info" in record:
        return "%s, from %s" % (record["vcs_info"].get("vcs") or "version control", url)
    if (record.get("dir_info") or {}).get("editable"):
        return "editable, from %s" % url
    return ("a local folder, from %s" if "dir_info" in record else "a direct URL, from %s") % url


# ----------------------------------------------------------------------------------------------- options, with origin

VARIANTS = ("_cmd", "_secret")
SECRET_NAME = re.compile(
    r"(^|_)(password|passwd|pass|secret|secrets|token|key|keys|credential|credentials|dsn|kwargs)(_|$)|sql_alchemy_conn|broker_url|result_backend$"
)


def config_path():
    home = os.environ.get("AIRFLOW_HOME") or os.path.expanduser("~/airflow")
    return os.path.expanduser(os.environ.get("AIRFLOW_CONFIG") or os.path.join(home, "airflow.cfg"))


def _config_file():
    parser = configparser.ConfigParser(interpolation=None, strict=False, allow_no_value=True)
    try:
        parser.read([config_path()], encoding="utf-8")
    except (configparser.Error, UnicodeDecodeError):
        pass
    return parser


def _sensitive():
    known = set()
    conf = _conf()
    for name in ("sensitive_config_values", "as_command_stdout"):
        try:
            known |= {(section.lower(), key.lower()) for section, key in getattr(conf, name)}
        except Exception:
            continue
    return known


def _environment_options():
    found = {}
    for name in os.environ:
        match = re.match(r"^AIRFLOW__([A-Z0-9_.]+?)__([A-Z0-9_]+)$", name)
        if match:
            found[(match.group(1).lower(), match.group(2).lower())] = name
    return found


def origin_of(section, key):
    """Where an option's value comes from, in words. Airflow's order: environment, airflow.cfg, then their _CMD and
    _SECRET variants.
    """
    parser, environment = _config_file(), _environment_options()
    for suffix in ("",) + VARIANTS:
        name = environment.get((section, key + suffix))
        if name:
            origin = ORIGINS.get(name)
            return "environment variable %s%s" % (
                name,
                " of %s" % origin if origin and not origin.startswith("the ") else "",
            )
        if not suffix and parser.has_option(section, key) and parser.get(section, key):
            return "%s [%s] %s" % (config_path(), section, key)
    for suffix in VARIANTS:
        if parser.has_option(section, key + suffix):
            return "%s [%s] %s" % (config_path(), section, key + suffix)
    return "neither %s nor AIRFLOW__%s__%s" % (config_path(), section.upper(), key.upper())


def options():
    """Every option that is set to something else than this Airflow's default: {"section", "key", "origin", "secret",
    "value"}.

    The value of a secret option is never read into the answer, nor are commands and secret paths that yield one.
    """
    try:
        from airflow.providers_manager import ProvidersManager

        # from 2.7 on, the providers bring the defaults of their own sections
        ProvidersManager().initialize_providers_configuration()
    except Exception:
        pass
    sensitive, parser, found = _sensitive(), _config_file(), {}
    for section in parser.sections():
        for key in parser[section]:
            if parser.defaults().get(key) == parser.get(section, key):
                continue
            found[(section, key)] = (
                "%s [%s] %s" % (config_path(), section, key),
                (parser.get(section, key) or "").replace("%%", "%"),
            )
    for (section, key), name in _environment_options().items():
        for known in list(found):  # AIRFLOW__ names cannot tell a dot in a section from an underscore
            if known[0].replace(".", "_") == section and known[1] == key:
                section = known[0]
        origin = ORIGINS.get(name)
        found[(section, key)] = (
            "environment variable %s%s" % (name, " of %s" % origin if origin and not origin.startswith("the ") else ""),
            os.environ[name],
        )
    listed = []
    for section, key in sorted(found):
        origin, value = found[(section, key)]
        base = key
        for suffix in VARIANTS:
            if key.endswith(suffix) and (
                (section, key[: -len(suffix)]) in sensitive or SECRET_NAME.search(key[: -len(suffix)])
            ):
                base = key[: -len(suffix)]
        secret = (
            base != key
            or (section, key) in sensitive
            or bool(SECRET_NAME.search(key))
            or bool(re.search(r"://[^/\s:@]*:[^/\s@]+@", value))
        )
        default = _default(section, key)
        if base == key and value == (default or ""):
            continue
        listed.append(
            {"section": section, "key": base, "origin": origin, "secret": secret, "value": None if secret else value}
        )
    return listed


def _default(section, key):
    conf = _conf()
    for read in (
        lambda: conf.get_default_value(section, key),
        lambda: conf.airflow_defaults.get(section, key),
        lambda: conf._default_values.get(section, key),
    ):
        try:
            value = read()
        except Exception:
            continue
        if value is not None:
            return str(value)
    return None


# ------------------------------------------------------------------------------------------------ operations: history

HISTORY = {}  # its modules, once they were needed


def _module(number, name):
    """The agent's file of this name: on a host it came on stdin with this one, in MWAA it lies beside it."""
    if name not in HISTORY:
        sources = globals().get("SOURCES")
        if sources:
            source = sources[number]
        else:
            with io.open(os.path.join(os.path.dirname(os.path.abspath(__file__)), name + ".py"), "rb") as opened:
                source = opened.read()
        module = types.ModuleType(name)
        exec(compile(source, name + ".py", "exec"), module.__dict__)
        HISTORY[name] = module
    return HISTORY[name]


def history(request):
    """An operation of airflow_history.py. `tell` in its request: function (unit=number done since the last call)."""
    progress = Progress(request.get("progress_url"))
    try:
        request = dict(request, tell=progress.add)
        return _module(1, "airflow_history").operate(types.SimpleNamespace(**globals()), request)
    finally:
        progress.end()


def history_import(request):
    """An operation of airflow_history_import.py, which is sent to no host: nothing is imported there."""
    _module(2, "airflow_history_import").bind(_module(1, "airflow_history"))
    return history(request)


def logs(request):
    """An operation of airflow_logs.py, which is sent to hosts alone: the logs of an environment are in CloudWatch."""
    agent = types.SimpleNamespace(**globals())
    return _module(2, "airflow_logs").operate(agent, _module(1, "airflow_history"), request)


OPERATIONS = {
    "batch": batch,
    "inspect": inspect,
    "plan": plan,
    "listing": listing,
    "list_dags": list_dags,
    "export_state": export_state,
    "export_files": export_files,
    "measure": measure,
    "digest_state": digest_state,
    "import_state": import_state,
    "plan_history": history,
    "export_history": history,
    "list_logs": logs,
    "export_logs": logs,
    "import_history": history_import,
    "finish_history": history_import,
    "history_progress": history_import,
    "verify_history": history_import,
    "deleted_history": history_import,
    "pause_dags": history_import,
    "drop_history": history_import,
}
IN_ENVIRONMENT = (
    "plan",
    "export_state",
    "digest_state",
    "import_state",
    "inspect",
    "list_dags",
    "plan_history",
    "export_history",
    "import_history",
    "finish_history",
    "history_progress",
    "verify_history",
    "deleted_history",
    "pause_dags",
    "drop_history",
)


if __name__ == "__main__":
    # whatever Airflow, its plugins or a configuration command print must not mix with the answer
    _answer = os.dup(1)
    _null = os.open(os.devnull, os.O_RDWR)
    os.dup2(_null, 1)
    os.dup2(_null, 2)
    sys.path[:] = [_entry for _entry in sys.path if _entry]
    main(sys.stdin.buffer, _answer)
