# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Nothing in a lab reaches beyond this machine."""

from __future__ import annotations

import subprocess
import sys

import pytest
from mwaa_lab.labdir import GUARD


def attempt(code: str) -> str:
    """What a guarded interpreter says when it runs the code."""
    program = (
        "import socket, urllib.request\n"
        f"try:\n    {code}\n    print('no error')\n"
        "except Exception as error:\n    print(type(error).__name__, error)"
    )
    run = subprocess.run(
        [sys.executable, "-c", program], env={"PYTHONPATH": str(GUARD)}, capture_output=True, text=True
    )
    return run.stdout.strip()


@pytest.mark.parametrize(
    ("code", "host"),
    [
        ("socket.create_connection(('192.0.2.1', 80), 1)", "192.0.2.1"),
        ("socket.socket().connect(('192.0.2.1', 80))", "192.0.2.1"),
        ("socket.socket().connect_ex(('192.0.2.1', 80))", "192.0.2.1"),
        ("socket.socket(socket.AF_INET6).connect(('2001:db8::1', 80))", "2001:db8::1"),
        ("socket.socket(type=socket.SOCK_DGRAM).sendto(b'x', ('192.0.2.1', 53))", "192.0.2.1"),
        ("socket.getaddrinfo('sts.us-east-1.amazonaws.com', 443)", "sts.us-east-1.amazonaws.com"),
        ("socket.gethostbyname('example.com')", "example.com"),
        ("urllib.request.urlopen('https://example.com', timeout=1)", "example.com"),
        ("socket.create_connection(('169.254.169.254', 80), 1)", "169.254.169.254"),
        ("socket.socket(socket.AF_INET6).connect(('::ffff:192.0.2.1', 80))", "::ffff:192.0.2.1"),
    ],
)
def test_the_world_is_refused_by_name(code: str, host: str) -> None:
    said = attempt(code)

    assert "mwaa-lab guard: -c tried to" in said
    assert repr(host) in said


@pytest.mark.parametrize(
    "code",
    [
        "s = socket.create_server(('127.0.0.1', 0)); socket.create_connection(s.getsockname()).close()",
        "socket.getaddrinfo('localhost', 80)",
        "socket.getaddrinfo(None, 80)",
        "a, b = socket.socketpair(); a.send(b'x')",
        "socket.socket(type=socket.SOCK_DGRAM).sendto(b'x', ('127.0.0.1', 9))",
    ],
)
def test_this_machine_is_open(code: str) -> None:
    assert attempt(code) == "no error"


def test_children_inherit_the_guard() -> None:
    child = "import socket; socket.getaddrinfo('example.com', 80)"
    run = f"subprocess.run([sys.executable, '-c', {child!r}], capture_output=True, text=True)"
    code = f"import subprocess, sys; raise OSError({run}.stderr)"

    assert "mwaa-lab guard" in attempt(code)
