"""The real server on a real port, with the real default backbone, for all tests that want it."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

DATA = Path(os.environ.get("GRAFT_DATA") or Path(__file__).parents[2] / "shared" / "data")
READY = "listening on "


@dataclass
class RunningServer:
    """A server process."""

    target: str
    store: Path
    process: subprocess.Popen[str]
    log: list[str] = field(default_factory=list)
    """Its standard error so far."""

    def kill(self) -> None:
        """Ends it as a power cut would."""
        self.process.kill()
        self.process.wait()

    def stop(self) -> int:
        """Asks it to end, and returns its exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=60)


def start_server(store: Path, *flags: str, **environment: str) -> RunningServer:
    """Starts `graft-server serve` and returns once it says that it is ready."""
    command = [sys.executable, "-m", "graft_server.cli", "serve", "--listen", "127.0.0.1:0"]
    process = subprocess.Popen(
        [*command, "--store", str(store), *flags],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **environment},
    )
    assert process.stdout
    assert process.stderr
    log: list[str] = []
    # Read all along: a full pipe would stop the server.
    threading.Thread(target=lambda: log.extend(process.stderr or ()), daemon=True).start()
    line = process.stdout.readline()
    if not line.startswith(READY):
        process.kill()
        process.wait()
        pytest.fail(f"the server did not start; it said {line!r} and {''.join(log)}")
    return RunningServer(line.removeprefix(READY).strip(), store, process, log)


@pytest.fixture(scope="session")
def encoder_cache() -> Path:
    """The folder of exported encoders; the default one is exported there once a machine."""
    folder = Path(os.environ.get("GRAFT_CACHE") or "~/.cache/graft").expanduser()
    command = [sys.executable, "-m", "graft_server.cli", "prepare", "--cache", str(folder)]
    subprocess.run(command, check=True, timeout=300)
    return folder


@pytest.fixture
def serve(tmp_path: Path, encoder_cache: Path) -> Iterator[Callable[..., RunningServer]]:
    """Starts servers of the test's own: serve(store=..., *flags). They end with the test."""
    running: list[RunningServer] = []

    def start(*flags: str, store: Path | None = None, **environment: str) -> RunningServer:
        server = start_server(
            store or tmp_path / "store", "--cache", str(encoder_cache), *flags, **environment
        )
        running.append(server)
        return server

    yield start
    for server in running:
        if server.process.poll() is None:
            server.kill()


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory, encoder_cache: Path) -> Iterator[RunningServer]:
    """One server for all tests that do not mind each other: they use model names of their own."""
    running = start_server(tmp_path_factory.mktemp("server") / "store", "--cache", str(encoder_cache))
    yield running
    assert running.stop() == 0, "".join(running.log)


@pytest.fixture(scope="session")
def data() -> Path:
    """The labelled data sets; tests that need them are skipped where they are absent."""
    if not DATA.is_dir():
        pytest.skip(f"no data sets in {DATA}; set GRAFT_DATA")
    return DATA


@pytest.fixture(scope="session")
def intents() -> list[tuple[str, str]]:
    """(text, label) rows of the demo."""
    with (Path(__file__).parents[1] / "examples" / "intents" / "train.csv").open(newline="") as file:
        return [(row["text"], row["intent"]) for row in csv.DictReader(file)]
