# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The proxy of api_host, with a small program in ssh's place that connects its standard streams as `ssh -W` does."""

from __future__ import annotations

import base64
import http.server
import socket
import sys
import threading
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.mwaa.migration.plugins.action.progress import quiet
from ansible_collections.mwaa.migration.plugins.module_utils._errors import MigrationError
from ansible_collections.mwaa.migration.plugins.module_utils._mwaa.cli import NotSent, _poster, _Tunnel
from ansible_collections.mwaa.migration.plugins.module_utils._tunnel import Tunnel

RELAY = """
import os, socket, sys, threading
host, _colon, port = sys.argv[1].rpartition(":")
if host == "nowhere":
    sys.exit("channel 0: open failed: connect failed: Name or service not known")
there = socket.create_connection(("127.0.0.1", int(port)))
def feed():
    while data := os.read(0, 65536):
        there.sendall(data)
    there.shutdown(socket.SHUT_WR)
threading.Thread(target=feed, daemon=True).start()
while data := there.recv(65536):
    os.write(1, data)
"""


class Inside(http.server.BaseHTTPRequestHandler):
    seen: list[tuple[str, dict[str, str], bytes]] = []

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        Inside.seen.append((self.path, {key.lower(): value for key, value in self.headers.items()}, body))
        self.send_response(200)
        self.send_header("Content-Length", "5")
        self.end_headers()
        self.wfile.write(b"there")

    def log_message(self, *_arguments: Any) -> None:
        pass


@pytest.fixture
def inside() -> Iterator[int]:
    Inside.seen.clear()
    server = http.server.HTTPServer(("127.0.0.1", 0), Inside)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield server.server_address[1]
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def tunnel() -> Iterator[Tunnel]:
    opened = Tunnel(lambda target: [sys.executable.encode(), b"-c", RELAY.encode(), target.encode()])
    yield opened
    opened.close()


def raw(tunnel: Tunnel, head: str, credential: bool = True) -> bytes:
    parts = urllib.parse.urlsplit(tunnel.url)
    secret = base64.b64encode(f"{parts.username}:{parts.password}".encode()).decode()
    with socket.create_connection(("127.0.0.1", parts.port or 0)) as client:
        line = f"Proxy-Authorization: Basic {secret}\r\n" if credential else ""
        client.sendall(f"{head}\r\n{line}\r\n".encode())
        client.shutdown(socket.SHUT_WR)
        answer = b""
        while data := client.recv(65536):
            answer += data
        return answer


def test_plain_http_goes_through_without_the_proxys_own_headers(tunnel: Tunnel, inside: int) -> None:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({"http": tunnel.url}))
    url = f"http://web.inside:{inside}/restapi/demo?x=1"
    for body in (b"one", b"x" * 200_000):
        assert opener.open(url, data=body).read() == b"there"
    path, headers, body = Inside.seen[-1]
    assert (path, headers["host"], len(body)) == ("/restapi/demo?x=1", f"web.inside:{inside}", 200_000)
    assert not [name for name in headers if name.startswith("proxy")]


def test_connect_is_a_plain_pipe(tunnel: Tunnel, inside: int) -> None:
    parts = urllib.parse.urlsplit(tunnel.url)
    secret = base64.b64encode(f"{parts.username}:{parts.password}".encode()).decode()
    with socket.create_connection(("127.0.0.1", parts.port or 0)) as client:
        client.sendall(f"CONNECT web.inside:{inside} HTTP/1.1\r\nProxy-Authorization: Basic {secret}\r\n\r\n".encode())
        assert client.recv(100).startswith(b"HTTP/1.1 200 ")
        client.sendall(b"POST /x HTTP/1.0\r\nContent-Length: 2\r\n\r\nhi")
        answer = b""
        while data := client.recv(65536):
            answer += data
    assert answer.endswith(b"there") and Inside.seen[-1][2] == b"hi"


def test_who_does_not_know_the_credential_gets_nowhere(tunnel: Tunnel, inside: int) -> None:
    assert b" 407 " in raw(tunnel, f"CONNECT web.inside:{inside} HTTP/1.1", credential=False)
    assert b" 407 " in raw(tunnel, f"CONNECT web.inside:{inside} HTTP/1.1\r\nProxy-Authorization: Basic x", False)
    assert not Inside.seen


@pytest.mark.parametrize(
    "head",
    [
        "CONNECT -oProxyCommand=x:1 HTTP/1.1",
        "CONNECT a$b:1 HTTP/1.1",
        "CONNECT host HTTP/1.1",
        "GET /relative HTTP/1.1",
        "GET ftp://a/ HTTP/1.1",
        "GET http://[/ HTTP/1.1",
        "nonsense",
    ],
)
def test_what_is_no_address_never_becomes_an_argument_of_ssh(tunnel: Tunnel, head: str) -> None:
    assert b" 400 " in raw(tunnel, head) and not tunnel.trouble


def test_what_ssh_says_is_kept_for_the_sentence(tunnel: Tunnel) -> None:
    raw(tunnel, "CONNECT nowhere:443 HTTP/1.1")
    assert tunnel.trouble == "channel 0: open failed: connect failed: Name or service not known"


@pytest.mark.parametrize(
    ("said", "trouble"),
    [
        ("channel 0: open failed: connect failed: Connection refused\\nstdio forwarding failed", ""),
        ("mux_client_request_stdio_fwd: session request failed\\nstdio forwarding failed", ""),
        (
            "channel 0: open failed: administratively prohibited: open failed\\nstdio forwarding failed",
            "channel 0: open failed: administratively prohibited: open failed",
        ),
        ("a banner\\nairflow@host: Permission denied (publickey).", "airflow@host: Permission denied (publickey)."),
        ("", "ssh ended with 1"),
    ],
)
def test_whether_the_host_forwards_is_known_beforehand(said: str, trouble: str) -> None:
    tunnel = Tunnel(lambda _target: [sys.executable.encode(), b"-c", f"import sys; sys.exit('{said}' or 1)".encode()])
    assert tunnel.check() == trouble
    tunnel.close()


def test_ssh_is_quiet_however_loud_the_playbook_is() -> None:
    assert quiet([b"ssh", b"-vvv", b"-o", b"BatchMode=yes", b"host"]) == [b"ssh", b"-o", b"BatchMode=yes", b"host"]


def test_closing_ends_what_is_open(tunnel: Tunnel, inside: int) -> None:
    raw(tunnel, f"CONNECT web.inside:{inside} HTTP/1.1")
    tunnel.close()
    with pytest.raises(OSError):
        raw(tunnel, f"CONNECT web.inside:{inside} HTTP/1.1")


def test_the_cli_takes_the_tunnel_even_where_no_proxy_is_wanted(
    tunnel: Tunnel, inside: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("no_proxy", "*")
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), _Tunnel(tunnel.url))
    with pytest.raises(urllib.error.URLError):  # what stands inside speaks no TLS, but it was reached
        opener.open(f"https://web.inside:{inside}/aws_mwaa/cli", data=b"version")
    assert not tunnel.trouble


def test_what_ends_before_tls_stands_was_not_sent(tunnel: Tunnel) -> None:
    """The proxy says yes before ssh has arrived, so that the end comes in the middle of TLS."""
    post = _poster(None, 5.0, tunnel.url)
    with pytest.raises(NotSent):
        post("https://nowhere:443/aws_mwaa/cli", {}, b"variables set a b")


def test_api_host_without_the_plugin_around_it_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from ansible_collections.mwaa.migration.plugins.module_utils._aws import TUNNEL, Aws

    monkeypatch.delenv(TUNNEL, raising=False)
    with pytest.raises(MigrationError, match="set connection to local"):
        assert Aws({"api_host": "bastion"}).tunnel
    assert Aws({}).tunnel is None


def test_api_host_of_another_user_is_a_sentence(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from ansible_collections.mwaa.migration.plugins.module_utils._aws import TUNNEL, Aws

    monkeypatch.setenv(TUNNEL, str(tmp_path / "of another user"))
    with pytest.raises(MigrationError, match="leave become out"):
        assert Aws({"api_host": "bastion"}).tunnel
