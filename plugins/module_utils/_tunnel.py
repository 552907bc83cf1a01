# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A proxy on this machine whose connections leave from another host, through that host's own SSH connection.

PRIVATE to the collection: no promise is made to other collections.

For a web server that answers only inside its VPC. Nothing is needed on the host but that its SSH server forwards TCP.
TLS is between the module and AWS: the host sees what any router on the way would see.
"""

from __future__ import annotations

import base64
import contextlib
import hmac
import secrets
import socket
import subprocess
import tempfile
import threading
import urllib.parse
from collections.abc import Callable
from typing import Any

HEAD = 65536  # bytes that the head of a request may have
PATIENCE = 30.0  # seconds for a request's head, and for ssh to end once a side has hung up
CHUNK = 65536


class Tunnel:
    """Listens on 127.0.0.1 until closed. Takes CONNECT, and requests with an absolute URL (http).

    command: makes ssh's arguments that connect standard input and output to "host:port", as `ssh -W` does.
    """

    def __init__(self, command: Callable[[str], list[bytes]]):
        self._command = command
        self._password = secrets.token_urlsafe(24)
        self._closed = False
        self._children: set[subprocess.Popen[bytes]] = set()
        self._lock = threading.Lock()
        self.trouble = ""  # what ssh said last, when a connection did not come about
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        """With the credential without which nothing is forwarded: other users of this machine reach its ports too."""
        return f"http://tunnel:{self._password}@127.0.0.1:{self._listener.getsockname()[1]}"

    def check(self) -> str:
        """Why nothing can be forwarded, in ssh's words; '' when the SSH connection stands and forwards.

        Asks for a port that nobody listens at: that the far side says so is the sign. What module calls would spend
        minutes on, as they repeat what never arrived, is known in a moment.
        """
        try:
            done = subprocess.run(
                self._command("127.0.0.1:1"),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=2 * PATIENCE,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as exception:
            return str(exception)
        said = done.stderr.decode("utf-8", "replace")
        refused = [line for line in said.splitlines() if "open failed" in line or "forward" in line]
        if done.returncode == 0 or (refused and not any("prohibited" in line.lower() for line in refused)):
            return ""
        return _last_line(refused[0] if refused else said, done.returncode)

    def close(self) -> None:
        self._closed = True
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        with self._lock:
            children = list(self._children)
        for child in children:
            child.kill()
        self._thread.join(PATIENCE)

    def _listen(self) -> None:
        while not self._closed:
            try:
                client, _address = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client:
            client.settimeout(PATIENCE)
            try:
                head, rest = _read_head(client)
                target, first = self._understand(head)
            except _Refused as refused:
                with contextlib.suppress(OSError):
                    client.sendall(f"HTTP/1.1 {refused}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode())
                return
            except OSError:
                return
            client.settimeout(None)
            self._forward(client, target, first + rest, answer=not first)

    def _understand(self, head: bytes) -> tuple[str, bytes]:
        """("host:port", what is sent there first: nothing for CONNECT)."""
        try:
            request, *lines = head.decode("latin-1").split("\r\n")
            method, url, _version = request.split(" ")
        except ValueError:
            raise _Refused("400 Bad Request") from None
        headers = [line for line in lines if line]
        given = next(
            (line.partition(":")[2] for line in headers if line.lower().startswith("proxy-authorization:")), ""
        )
        wanted = base64.b64encode(f"tunnel:{self._password}".encode()).decode()
        if not hmac.compare_digest(given.strip().rpartition(" ")[2].encode(), wanted.encode()):
            raise _Refused('407 Proxy Authentication Required\r\nProxy-Authenticate: Basic realm="tunnel"')
        if method == "CONNECT":
            return _address(url, None), b""
        try:
            parts = urllib.parse.urlsplit(url)
        except ValueError:
            raise _Refused("400 Bad Request") from None
        if parts.scheme != "http" or not parts.netloc:
            raise _Refused("400 Bad Request")
        path = urllib.parse.urlunsplit(("", "", parts.path or "/", parts.query, ""))
        kept = [line for line in headers if line.partition(":")[0].lower() not in _HOP]
        # one request a connection: the next one may go elsewhere
        lines = [f"{method} {path} HTTP/1.1", *kept, "Connection: close", "", ""]
        return _address(parts.netloc, 80), "\r\n".join(lines).encode("latin-1")

    def _forward(self, client: socket.socket, target: str, first: bytes, answer: bool) -> None:
        with tempfile.TemporaryFile() as said:
            try:
                ssh = subprocess.Popen(
                    self._command(target), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=said, bufsize=0
                )
            except OSError as exception:
                self.trouble = f"ssh cannot be run: {exception}"
                return
            with self._lock:
                self._children.add(ssh)
            moved = _Moved()
            try:
                if answer:  # before it is known: ssh does not say when it has arrived
                    client.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
                if first:
                    ssh.stdin.write(first)  # type: ignore[union-attr]
                feed = threading.Thread(target=_feed, args=(client, ssh.stdin), daemon=True)
                feed.start()
                _drain(ssh.stdout, client, moved)
            except OSError:
                pass
            finally:
                with contextlib.suppress(OSError):
                    ssh.stdin.close()  # type: ignore[union-attr]
                try:
                    ssh.wait(PATIENCE)
                except subprocess.TimeoutExpired:
                    ssh.kill()
                    ssh.wait()
                ssh.stdout.close()  # type: ignore[union-attr]
                with self._lock:
                    self._children.discard(ssh)
                if ssh.returncode and not moved.any and not self._closed:
                    said.seek(0)
                    self.trouble = _last_line(said.read(8192).decode("utf-8", "replace"), ssh.returncode)
                with contextlib.suppress(OSError):
                    client.shutdown(socket.SHUT_RDWR)


_HOP = ("proxy-authorization", "proxy-connection", "connection", "keep-alive")


def _last_line(said: str, code: int) -> str:
    lines = said.strip().splitlines()
    return " ".join((lines or [f"ssh ended with {code}"])[-1].split())[:300]


class _Refused(Exception):
    """Its text is the status line of the answer."""


class _Moved:
    any = False


def _address(netloc: str, default: int | None) -> str:
    """'host:port' as ssh -W takes it. What could be an option of ssh, or a second argument, is refused."""
    try:
        parts = urllib.parse.urlsplit(f"//{netloc}")
        host, port = parts.hostname or "", parts.port or default
    except ValueError:
        host, port = "", None
    if not port or not host or not all(character.isalnum() or character in ".-_:" for character in host):
        raise _Refused("400 Bad Request")
    if host.startswith("-"):
        raise _Refused("400 Bad Request")
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _read_head(client: socket.socket) -> tuple[bytes, bytes]:
    data = b""
    while b"\r\n\r\n" not in data:
        chunk = client.recv(CHUNK)
        if not chunk or len(data) > HEAD:
            raise _Refused("400 Bad Request")
        data += chunk
    head, _end, rest = data.partition(b"\r\n\r\n")
    return head, rest


def _feed(client: socket.socket, stdin: Any) -> None:
    with contextlib.suppress(OSError, ValueError):
        while chunk := client.recv(CHUNK):
            stdin.write(chunk)
    with contextlib.suppress(OSError, ValueError):
        stdin.close()


def _drain(stdout: Any, client: socket.socket, moved: _Moved) -> None:
    while chunk := stdout.read(CHUNK):
        moved.any = True
        client.sendall(chunk)
