# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The door to the lab's hosts: an SSH server on 127.0.0.1 that runs commands as they would.

One key for all, and each host is a user name (hosts.py). Commands, standard streams, exit codes, SFTP and SCP work, so
any SSH client and Ansible's ssh connection do. There is no terminal behind it: the commands run as whoever started the
lab, in a home of their own.

All hosts stand inside the environments' VPC: TCP that is forwarded through them (``ssh -W``) arrives at AWS and at the
web servers from inside, and they alone know the names of private web servers.

``python -m mwaa_lab.ssh --dir DIR`` is the door of a lab without a source.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import signal
from collections.abc import Awaitable
from pathlib import Path
from typing import Any

import asyncssh

from mwaa_lab import hosts, processes
from mwaa_lab.engine import PRIVATE_DOMAIN
from mwaa_lab.hosts import Login
from mwaa_lab.labdir import LabDir, write_json

USER = hosts.SOURCE
HOST = "127.0.0.1"


def inside(lab: LabDir, host: str, port: int) -> tuple[str, int] | None:
    """Where a connection leads from a host in the VPC; None: nowhere that the lab knows."""
    server = json.loads((lab.path / "aws" / "server.json").read_text())
    if host.endswith(f"-vpce.{PRIVATE_DOMAIN}"):
        return HOST, int(server["inside"]["webserver"].rpartition(":")[2])
    if host not in (HOST, "localhost"):
        return None
    if str(port) == server["aws"].rpartition(":")[2]:
        return HOST, int(server["inside"]["aws"].rpartition(":")[2])
    return HOST, port


def make_keys(lab: LabDir) -> None:
    """The client's key pair and the host's, in ``DIR/ssh``."""
    lab.ssh.mkdir(mode=0o700, exist_ok=True)
    for name in ("id_ed25519", "host_ed25519"):
        place = lab.ssh / name
        if not place.exists():
            key = asyncssh.generate_private_key("ssh-ed25519", comment="mwaa-lab")
            place.touch(mode=0o600)
            key.write_private_key(place)
            key.write_public_key(place.with_suffix(".pub"))


def write_known_hosts(lab: LabDir, port: int) -> Path:
    """A known_hosts file with which StrictHostKeyChecking passes."""
    public = (lab.ssh / "host_ed25519.pub").read_text().split()
    place = lab.ssh / "known_hosts"
    place.write_text(f"[{HOST}]:{port} {public[0]} {public[1]}\n")
    return place


class _Server(asyncssh.SSHServer):
    def __init__(self, lab: LabDir, logins: dict[str, Login]) -> None:
        self.lab = lab
        self.logins = logins
        self.known = asyncssh.read_public_key(lab.ssh / "id_ed25519.pub")

    def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
        self.connection = conn

    def begin_auth(self, username: str) -> bool:
        return True  # nobody comes in without the key

    def validate_public_key(self, username: str, key: asyncssh.SSHKey) -> bool:
        return username in self.logins and key == self.known

    def public_key_auth_supported(self) -> bool:
        return True

    def connection_requested(self, dest_host: str, dest_port: int, orig_host: str, orig_port: int) -> Awaitable[Any]:
        try:
            place = inside(self.lab, dest_host, dest_port)
        except (OSError, ValueError):
            place = None
        if place is None:
            raise asyncssh.ChannelOpenError(
                asyncssh.OPEN_CONNECT_FAILED, f"nothing in the lab has the address {dest_host}:{dest_port}"
            )
        return self.connection.forward_connection(*place)


async def _run(process: asyncssh.SSHServerProcess, command: str | None, home: Path, environ: dict[str, str]) -> None:
    """One command, or the shell that reads commands from standard input."""
    child = await asyncio.create_subprocess_exec(
        *(["/bin/sh", "-c", command] if command is not None else ["/bin/sh", "-s"]),
        env=environ,
        cwd=home,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,
    )
    assert child.stdin and child.stdout and child.stderr
    moved = _Moved()
    pumps = [
        asyncio.ensure_future(_pump(child.stdout, process.stdout, moved)),
        asyncio.ensure_future(_pump(child.stderr, process.stderr, moved)),
    ]
    feed = asyncio.ensure_future(_feed(process.stdin, child.stdin))
    gone = asyncio.ensure_future(process.channel.wait_closed())
    waiting = asyncio.ensure_future(child.wait())
    try:
        await asyncio.wait({waiting, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not waiting.done():  # the client went away: so does what it started
            return
        # What a command leaves running may hold its output open for ever: when nothing moves any more, it is over.
        before = -1
        while before != moved.bytes:
            before = moved.bytes
            await asyncio.wait(pumps, timeout=2)
            if all(pump.done() for pump in pumps) or gone.done():
                break
        if gone.done():
            return
        status = waiting.result()
        if status < 0:
            process.exit_with_signal(signal.Signals(-status).name[3:])
        else:
            process.exit(status)
    finally:
        for task in (*pumps, feed, gone, waiting):
            task.cancel()
        if child.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)


class _Moved:
    """How much of a command's output went to the client."""

    bytes = 0


async def _pump(source: asyncio.StreamReader, sink: asyncssh.SSHWriter, moved: _Moved) -> None:
    """Output to the client, no faster than it reads."""
    with contextlib.suppress(OSError, asyncssh.Error):
        while data := await source.read(65536):
            sink.write(data)
            await sink.drain()
            moved.bytes += len(data)


async def _feed(source: asyncssh.SSHReader, sink: asyncio.StreamWriter) -> None:
    """The client's input, no faster than the command reads; its end closes the command's input."""
    with contextlib.suppress(OSError, asyncssh.Error):
        while data := await source.read(65536):
            sink.write(data)
            await sink.drain()
    with contextlib.suppress(OSError):
        sink.close()


async def serve(lab: LabDir, port: int, home: Path, environ: dict[str, str]) -> asyncssh.SSHAcceptor:
    """Listen for all hosts of a lab with a source, whose own login finds ``home`` and ``environ``."""
    return await listen(lab, port, hosts.logins(lab, Login(home, environ)))


async def listen(lab: LabDir, port: int, logins: dict[str, Login]) -> asyncssh.SSHAcceptor:
    """Listen. ``DIR/ssh/server.json`` says how to get in."""
    make_keys(lab)

    async def handle(process: asyncssh.SSHServerProcess) -> None:
        user = process.get_extra_info("username")
        command = process.command and hosts.command_on(lab, user, process.command)
        await _run(process, command, logins[user].home, logins[user].environ)

    def sftp(channel: asyncssh.SSHServerChannel) -> asyncssh.SFTPServer:
        return _Sftp(channel, logins[channel.get_extra_info("username")].home)

    acceptor = await asyncssh.create_server(
        lambda: _Server(lab, logins),
        HOST,
        port,
        server_host_keys=[lab.ssh / "host_ed25519"],
        process_factory=handle,
        sftp_factory=sftp,
        allow_scp=True,
        encoding=None,
        line_editor=False,
        agent_forwarding=False,
        keepalive_interval=30,
    )
    known_hosts = write_known_hosts(lab, port)
    write_json(
        lab.ssh / "server.json",
        {
            "host": HOST,
            "port": port,
            "user": next(iter(logins)),
            "users": list(logins),
            "key": str(lab.ssh / "id_ed25519"),
            "known_hosts": str(known_hosts),
        },
    )
    return acceptor


class _Sftp(asyncssh.SFTPServer):
    """Relative paths begin at the home, as at any host."""

    def __init__(self, channel: asyncssh.SSHServerChannel, home: Path) -> None:
        super().__init__(channel)
        self.home = home

    def map_path(self, path: bytes) -> bytes:
        return os.fsencode(self.home / os.fsdecode(path))

    def reverse_map_path(self, path: bytes) -> bytes:
        return path

    async def realpath(self, path: bytes) -> bytes:
        return os.fsencode((self.home / os.fsdecode(path)).resolve())


async def _door(lab: LabDir) -> None:
    stopping = asyncio.Event()
    for name in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(name, stopping.set)
    acceptor = await listen(lab, processes.free_port(), {hosts.BASTION: hosts.bastion(lab)})
    await stopping.wait()
    acceptor.close()


def main() -> None:
    parser = argparse.ArgumentParser(prog="mwaa_lab.ssh", description="The door of a lab without a source.")
    parser.add_argument("--dir", required=True)
    asyncio.run(_door(LabDir(parser.parse_args().dir)))


if __name__ == "__main__":
    main()
