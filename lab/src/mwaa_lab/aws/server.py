# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""``python -m mwaa_lab.aws.server``: the emulated AWS of one lab, as one process.

Serves AWS over HTTP and the environments' web server over TLS, on 127.0.0.1 only and each twice: as seen from outside
and from inside of the environments' VPC. Writes ``aws/server.json`` in
the lab's folder when all answer, ``journal.jsonl`` while it runs, and stops its environments when it is told to stop.
"""

from __future__ import annotations

import argparse
import asyncio
import concurrent.futures
import datetime
import importlib
import json
import logging
import os
import signal
import sys
from pathlib import Path
from typing import Any

from mwaa_lab.labdir import LabDir
from mwaa_lab.processes import end_with_folder, free_port

HOST = "127.0.0.1"


def arguments(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="mwaa_lab.aws.server", description="The emulated AWS of one lab.")
    parser.add_argument("--dir", type=Path, required=True, help="the lab's folder")
    parser.add_argument("--http-port", type=int, required=True, help="AWS's endpoint")
    parser.add_argument("--tls-port", type=int, required=True, help="the environments' web server")
    parser.add_argument("--inside-http-port", type=int, help="AWS's endpoint as seen from inside the VPC")
    parser.add_argument("--inside-tls-port", type=int, help="the web servers as seen from inside the VPC")
    parser.add_argument("--engine", choices=("stub", "airflow"), default="stub")
    parser.add_argument("--account", default="000000000000", help="account of access keys that name none")
    parser.add_argument("--as-of", type=datetime.date.fromisoformat, help="the day whose versions AWS offers (today)")
    parser.add_argument("--enforce-iam", action="store_true", help="hold callers to their policies")
    parser.add_argument("--log-level", default="WARNING")
    options = parser.parse_args(argv)
    options.inside_http_port = options.inside_http_port or free_port()
    options.inside_tls_port = options.inside_tls_port or free_port()
    return options


def prepare_ministack(options: argparse.Namespace) -> None:
    """Set what ministack reads from the environment when it is imported: this port, this machine only, nothing kept."""
    from mwaa_lab.cli import SECRET_KEY

    os.environ.update(
        AWS_SECRET_ACCESS_KEY=SECRET_KEY,  # presigned URLs are verified with it, header signatures are not
        GATEWAY_PORT=str(options.http_port),
        BIND_HOST=HOST,
        MINISTACK_HOST="localhost",
        MINISTACK_ACCOUNT_ID=options.account,
        MINISTACK_REGION="us-east-1",
        LOG_LEVEL=options.log_level,
        PERSIST_STATE="0",
        S3_PERSIST="0",
        AUTH="false",
        USE_SSL="0",
        IOT_MTLS_ENABLED="0",
        SFTP_ENABLED="0",
        # A Docker daemon of the user's is none of the lab's business.
        DOCKER_HOST="unix:///nonexistent/mwaa-lab.sock",
        AWS_EC2_METADATA_DISABLED="true",
    )


def make_engine(kind: str, settings: Any) -> Any:
    if kind == "stub":
        from mwaa_lab.stub import StubEngine

        return StubEngine(settings)
    return importlib.import_module("mwaa_lab.airflow.engine").AirflowEngine(settings)


def _remember_connections() -> None:
    """Let each request know its connection, so that a fault can cut it."""
    from hypercorn.asyncio.tcp_server import TCPServer

    from mwaa_lab.aws.front import CONNECTION

    original = TCPServer.run

    async def run(self: Any) -> None:
        CONNECTION.set(self.writer.transport)
        await original(self)

    setattr(TCPServer, "run", run)  # noqa: B010 - mypy will not have a method assigned


def _config(port: int, **more: Any) -> Any:
    from hypercorn.config import Config

    config = Config()
    config.bind = [f"{HOST}:{port}"]
    config.keep_alive_timeout = 75
    config.graceful_timeout = 2
    config.shutdown_timeout = 3
    config.loglevel = "WARNING"
    config.accesslog = None
    for key, value in more.items():
        setattr(config, key, value)
    return config


async def serve(options: argparse.Namespace) -> None:
    """Run until SIGTERM or SIGINT."""
    prepare_ministack(options)
    from hypercorn.asyncio import serve as hypercorn

    from mwaa_lab.aws import account, cloudformation, ec2, hooks
    from mwaa_lab.aws.faults import Faults
    from mwaa_lab.aws.front import Front
    from mwaa_lab.aws.iam import Authority
    from mwaa_lab.aws.journal import Journal
    from mwaa_lab.aws.mwaa import ControlPlane
    from mwaa_lab.aws.rates import Rates
    from mwaa_lab.aws.tls import make_certificates
    from mwaa_lab.aws.webserver import WebServer
    from mwaa_lab.engine import AwsAccess, EngineSettings

    hooks.check()
    hooks.limit_log_events()
    hooks.strict_secrets()
    hooks.name_service_linked_role()
    folder = options.dir / "aws"
    folder.mkdir(parents=True, exist_ok=True)
    certificates = make_certificates(folder)
    webserver = f"{HOST}:{options.tls_port}"
    # MWAA itself and what runs in its environments stand inside.
    aws = AwsAccess(f"http://{HOST}:{options.inside_http_port}")
    engine = make_engine(options.engine, EngineSettings(dir=options.dir, aws=aws, webserver=webserver))
    control = ControlPlane(engine, aws, webserver, as_of=options.as_of)
    cloudformation.install(control)
    ec2.install()
    account.install()
    journal, faults, rates = Journal(options.dir / "journal.jsonl"), Faults(), Rates()
    authority = Authority(journal, options.enforce_iam)
    authority.guard_stacks()
    pool = concurrent.futures.ThreadPoolExecutor(max_workers=128, thread_name_prefix="lab")
    # hypercorn types ASGI more narrowly than the protocol is.
    fronts: list[Any] = [
        Front(hooks.application(), control, journal, faults, pool, rates, authority, inside) for inside in (False, True)
    ]
    webs: list[Any] = [WebServer(control, journal, faults, pool, inside) for inside in (False, True)]
    _remember_connections()

    stopping = asyncio.Event()
    for name in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(name, stopping.set)

    async def trigger() -> None:
        await stopping.wait()

    tls = {"certfile": str(certificates.chain), "keyfile": str(certificates.key), "alpn_protocols": ["http/1.1"]}
    places = [
        (fronts[0], _config(options.http_port)),
        (fronts[1], _config(options.inside_http_port)),
        (webs[0], _config(options.tls_port, **tls)),
        (webs[1], _config(options.inside_tls_port, **tls)),
    ]
    servers = [asyncio.create_task(hypercorn(app, config, shutdown_trigger=trigger)) for app, config in places]
    try:
        announce = asyncio.create_task(_announce(options, certificates.ca, journal.path))
        done, _ = await asyncio.wait([*servers, announce], return_when=asyncio.FIRST_EXCEPTION)
        for task in done:
            task.result()
    finally:
        stopping.set()
        await asyncio.gather(*servers, return_exceptions=True)
        await asyncio.to_thread(control.close)
        journal.close()
        (folder / "server.json").unlink(missing_ok=True)
        pool.shutdown(wait=False, cancel_futures=True)


async def _announce(options: argparse.Namespace, ca: Path, journal: Path) -> None:
    """Write ``aws/server.json`` as soon as all ports answer."""
    for port in (options.http_port, options.tls_port, options.inside_http_port, options.inside_tls_port):
        while True:
            try:
                _, writer = await asyncio.open_connection(HOST, port)
                writer.close()
                break
            except OSError:
                await asyncio.sleep(0.05)
    file = options.dir / "aws" / "server.json"
    draft = file.with_suffix(".new")
    draft.write_text(
        json.dumps(
            {
                "pid": os.getpid(),
                "aws": f"http://{HOST}:{options.http_port}",
                "webserver": f"{HOST}:{options.tls_port}",
                "inside": {
                    "aws": f"http://{HOST}:{options.inside_http_port}",
                    "webserver": f"{HOST}:{options.inside_tls_port}",
                },
                "ca": str(ca),
                "journal": str(journal),
                "account": options.account,
                "engine": options.engine,
            }
        )
    )
    draft.replace(file)


def main() -> None:
    options = arguments()
    logging.basicConfig(
        level=options.log_level, format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.stderr
    )
    # These log what they send and receive.
    for name in ("botocore", "boto3", "urllib3", "s3transfer"):
        logging.getLogger(name).setLevel(logging.ERROR)
    from mwaa_lab.aws.hooks import MinistackChanged

    if (lab := LabDir(options.dir)).exists():  # a server may also run on its own
        end_with_folder(lab)
    try:
        asyncio.run(serve(options))
    except MinistackChanged as changed:
        sys.exit(f"mwaa-lab: {changed}")
    # Threads of engines and of ministack may still be waiting for something; nothing of theirs is worth waiting for.
    sys.stderr.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
