# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Nothing that the lab starts may reach beyond this machine.

On PYTHONPATH of every process of a lab, so Python runs it before anything else. An audit hook sees each socket call of
the interpreter, whoever makes it and however (asyncio, ssl, a fork), and cannot be taken out again. What is not Python
(curl in a BashOperator) it does not see: lab/README.md says so. Python 3.8 syntax: the oldest that has audit hooks.
"""

import ipaddress
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


def _hook(event, arguments):
    if event in ("socket.connect", "socket.sendto", "socket.sendmsg"):
        sock, address = arguments[0], arguments[1]
        if getattr(sock, "family", None) in _INTERNET and isinstance(address, tuple) and address:
            _check(address[0], "connect to" if event == "socket.connect" else "send to")
    elif event == "socket.getaddrinfo" or event.startswith("socket.gethostby"):
        _check(arguments[0], "look up")


sys.addaudithook(_hook)
