"""The command `graft-server`."""

from __future__ import annotations

import argparse
import asyncio
import gc
import logging
import os
import signal
import sys
import threading
from collections.abc import Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import grpc
import msgspec
from grpc_health.v1 import health_pb2, health_pb2_grpc

from graft_server import environment
from graft_server.app import App, place_of, trunks_of
from graft_server.backbones.graphs.cache_folder import open_cache
from graft_server.completion import SHELLS, completion_script
from graft_server.domain.errors import DomainError
from graft_server.frontends.grpc.targets import is_local, reached_by, through_proxy
from graft_server.jobs.local.pool import LocalJobs
from graft_server.settings import ENVIRONMENT_PREFIX, SETTINGS, Settings, load

_log = logging.getLogger(__name__)
HURRY_S = 3.0
"""The time for a good order once a second signal has come."""
JOIN_S = 1.0
"""The time for threads to end once everything is closed."""
_PREPARE = {"backbones", "device", "precision", "cache", "cores", "measure_seconds", "log_level"}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command and returns its exit code."""
    _open_closed_streams()
    parser = build_parser()
    asked = parser.parse_args(arguments)
    try:
        if asked.command == "completion":
            print(completion_script(parser, asked.shell))
            return 0
        if asked.command == "health":
            own = "" if asked.target else reached_by(load({}, os.environ, asked.config).addresses[0])
            return asyncio.run(_health(own or asked.target, direct=bool(own) or is_local(asked.target)))
        settings = load(vars(asked), os.environ, asked.config)
        logging.basicConfig(
            level=settings.log_level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s"
        )
        cache = open_cache(settings.cache_folder, lasting=asked.command == "prepare")
        try:
            environment.settle(cache.path, cache.temporary)
            settings = msgspec.structs.replace(settings, cache=str(cache.path))
            asyncio.run(_serve(settings) if asked.command == "serve" else _prepare(settings))
        finally:
            cache.close()
    except DomainError as error:
        print(f"graft-server: {error.message}", file=sys.stderr)
        return 1
    return 0


async def _serve(settings: Settings) -> None:
    stopping, hurried = asyncio.Event(), asyncio.Event()

    def stop() -> None:
        """The first signal ends the server in good time, the second at once."""
        if stopping.is_set():
            hurried.set()
            _end_within(HURRY_S)
        stopping.set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop)
    app = App(settings)
    starting = asyncio.create_task(app.start())
    waiting = asyncio.create_task(stopping.wait())
    await asyncio.wait((starting, waiting), return_when=asyncio.FIRST_COMPLETED)
    if starting.done():
        # Start-up makes 50,000 objects that stay: a collection that looks through them takes 30 to 60 ms, during
        # which no request is answered.
        gc.collect()
        gc.freeze()
        starting.result()
        _say([f"listening on {address}" for address in app.addresses])
        await waiting
    else:
        starting.cancel()
        await asyncio.gather(starting, return_exceptions=True)
    await app.stop(hurried)
    _end_within(JOIN_S)


def _end_within(seconds: float) -> None:
    """Ends the process after a time if it has not ended by itself: a thread may wait for a store that hangs."""
    timer = threading.Timer(seconds, os._exit, (0,))
    timer.daemon = True
    timer.start()


def _say(lines: Sequence[str]) -> None:
    """Prints lines; that nobody reads them is no reason to end."""
    try:
        for line in lines:
            print(line, flush=True)
    except OSError as error:
        _log.warning("%s, but standard output cannot be written: %s", "; ".join(lines), error.strerror)
        # What is left in its buffer would fail again at the end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def _open_closed_streams() -> None:
    """Leads standard streams that were closed into nothing: the next file to be opened would become one of them."""
    while (opened := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(opened)
    for name, number in (("stdout", 1), ("stderr", 2)):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(number, "w"))


async def _prepare(settings: Settings) -> None:
    """Exports the encoders into the cache and measures how to drive them."""
    jobs = LocalJobs(1, place=replace(place_of(settings), store=""))
    trunks = trunks_of(settings)
    await trunks.open(jobs)
    for trunk in trunks:
        print(f"{trunk.name}: ready as encoder {trunk.encoder_id}")
    await trunks.close()
    await jobs.close()


async def _health(target: str, *, direct: bool) -> int:
    """Prints whether a server is serving, and returns the exit code.

    Args:
        target: The server.
        direct: Whether it is on this machine, so that no proxy of the environment leads there.
    """
    options = [("grpc.enable_http_proxy", 0)] if direct else []
    async with grpc.aio.insecure_channel(target, options=options) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        try:
            answer = await stub.Check(health_pb2.HealthCheckRequest(), timeout=5)
        except grpc.aio.AioRpcError as error:
            way = "" if direct else through_proxy(os.environ)
            helps = ""
            if error.code() is grpc.StatusCode.UNAVAILABLE:
                helps = "no Graft server answers: start one with 'graft-server serve', or name another with --target; "
            print(f"{target}: {helps}{error.code().name}: {error.details()}{way}", file=sys.stderr)
            return 1
    name = health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)
    print(f"{target}: {name}")
    return 0 if name == "SERVING" else 1


def build_parser() -> argparse.ArgumentParser:
    """The command line's grammar."""
    parser = argparse.ArgumentParser(
        prog="graft-server",
        description="Serves Graft: streams of labelled examples in, classifiers out.",
        epilog=f"Every flag of serve is also an environment variable ({ENVIRONMENT_PREFIX}LISTEN, "
        f"{ENVIRONMENT_PREFIX}STORE, …) and a key of the TOML file; flags win over variables, those over the file.",
    )
    parser.add_argument("--version", action="version", version=version("graft-serve"))
    commands = parser.add_subparsers(dest="command", required=True)
    serve = _add(commands, "serve", "run the server until it is told to stop")
    _add_settings(serve, set(SETTINGS))
    prepare = _add(
        commands, "prepare", "export the backbones' encoders into the cache, so that the first start is quick"
    )
    _add_settings(prepare, _PREPARE)
    completion = _add(commands, "completion", "print a script by which a shell completes graft-server")
    completion.add_argument("shell", metavar="SHELL", choices=SHELLS, help=f"the shell: {', '.join(SHELLS)}")
    check = _add(
        commands, "health", "ask a server whether it is serving; the exit code is 0 if it is, else 1"
    )
    check.add_argument(
        "--target",
        metavar="HOST:PORT",
        help="the server's address, or unix:PATH; default: the first address that serve listens on by --config and "
        f"{ENVIRONMENT_PREFIX}LISTEN",
    )
    check.add_argument(
        "--config", type=Path, metavar="FILE", help="a TOML file with the server's settings; default: none"
    )
    return parser


def _add(
    commands: argparse._SubParsersAction[argparse.ArgumentParser],
    name: str,
    summary: str,
) -> argparse.ArgumentParser:
    added: argparse.ArgumentParser = commands.add_parser(
        name, help=summary, description=f"{summary[0].upper()}{summary[1:]}."
    )
    return added


def _add_settings(parser: argparse.ArgumentParser, names: set[str]) -> None:
    parser.add_argument(
        "--config", type=Path, metavar="FILE", help="a TOML file with settings; default: none"
    )
    for setting in SETTINGS.values():
        if setting.name not in names:
            continue
        repeated = setting.name == "backbones" or setting.several
        text = f"{setting.help}; default: {setting.default_shown}"
        parser.add_argument(
            "--" + setting.flag,
            dest=setting.name,
            action="append" if repeated else "store",
            metavar=setting.metavar,
            help=text.replace("%", "%%"),
        )


if __name__ == "__main__":
    sys.exit(main())
