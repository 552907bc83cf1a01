# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Nothing that the lab starts may reach beyond this machine.

On PYTHONPATH of every process of a lab, so Python runs it before anything else. An audit hook sees each socket call of
the interpreter, whoever makes it and however (asyncio, ssl, a fork), and cannot be taken out again. Python before 3.8
has no such hooks: there the socket module's own functions and methods are wrapped. What is not Python (curl in a
BashOperator) neither sees: lab/README.md says so. Python 3.6 syntax: the oldest that an Airflow of the lab runs on.
"""

import ipaddress
import os
import socket
import sys

_INTERNET = (socket.AF_INET, socket.AF_INET6)
_NAMES = {"", "localhost", "localhost.localdomain", "ip6-localhost", "0.0.0.0", "::", socket.gethostname().lower()}  # noqa: S104


class LabGuardError(PermissionError):
    """A socket to somewhere that is not this machine."""


def _local(host):
    if host is None:
        return True
    if isinstance(host, (bytes, bytearray)):
        host = bytes(host).decode("ascii", "replace")
    host = str(host).lower()
    if host in _NAMES:
        return True
    try:
        address = ipaddress.ip_address(host.split("%")[0])
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback


def _check(host, what):
    if not _local(host):
        program = " ".join(sys.argv[:2]) if getattr(sys, "argv", None) else sys.executable
        raise LabGuardError(
            f"mwaa-lab guard: {program or sys.executable} tried to {what} {host!r}; "
            "nothing in the lab may leave this machine."
        )


def _check_address(sock, address, what):
    if getattr(sock, "family", None) in _INTERNET and isinstance(address, tuple) and address:
        _check(address[0], what)


def _hook(event, arguments):
    if event in ("socket.connect", "socket.sendto", "socket.sendmsg"):
        _check_address(arguments[0], arguments[1], "connect to" if event == "socket.connect" else "send to")
    elif event == "socket.getaddrinfo" or event.startswith("socket.gethostby"):
        _check(arguments[0], "look up")


def _wrap():
    """What the audit hook does, for an interpreter without one."""

    def method(name, what, of):
        original = getattr(socket.socket, name)

        def guarded(self, *arguments):
            _check_address(self, of(arguments), what)
            return original(self, *arguments)

        setattr(socket.socket, name, guarded)

    def function(name):
        original = getattr(socket, name)

        def guarded(host, *arguments, **named):
            _check(host, "look up")
            return original(host, *arguments, **named)

        setattr(socket, name, guarded)

    def only(arguments):
        return arguments[0] if arguments else None

    def last(arguments):
        return arguments[-1] if arguments else None

    method("connect", "connect to", only)
    method("connect_ex", "connect to", only)
    method("sendto", "send to", last)
    method("sendmsg", "send to", last)
    for name in ("getaddrinfo", "gethostbyname", "gethostbyname_ex", "gethostbyaddr"):
        function(name)


if hasattr(sys, "addaudithook"):
    sys.addaudithook(_hook)
else:
    _wrap()

if os.environ.get("AWS_ENDPOINT_URL"):
    import old_botocore

    old_botocore.install()
