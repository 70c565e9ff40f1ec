"""Ctrl-C while a server trains: a person is asked, and what is said is what the server says."""

from __future__ import annotations

import contextlib
import os
import pty
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import pytest
from tests.client.test_interrupts import DEAF

from graft.v1 import adaptation_pb2 as pb
from graft.v1 import adaptation_pb2_grpc, model_pb2_grpc

ROWS = 10
QUESTION = "[s]top that, [l]eave it running"


@dataclass
class Trainer(adaptation_pb2_grpc.AdaptationServiceServicer, model_pb2_grpc.ModelServiceServicer):
    """A server that trains until it is told to publish, or until the adaptation is cancelled."""

    committed: threading.Event = field(default_factory=threading.Event)
    publish: threading.Event = field(default_factory=threading.Event)
    too_late: bool = False
    """Whether the version is published just before it is asked to cancel."""
    cancelled: bool = False

    def Adapt(self, requests: Iterator[Any], context: grpc.ServicerContext) -> Iterator[Any]:  # noqa: N802
        gone = context.add_callback(self.publish.set)
        assert gone
        start = next(requests).start
        yield pb.AdaptResponse(started=pb.Started(adaptation_id=start.adaptation_id))
        stored = 0
        while (request := next(requests)).WhichOneof("message") == "examples":
            stored += len(request.examples.changes)
            yield pb.AdaptResponse(accepted=pb.Accepted(next_sequence=stored))
        commit = request.commit.commit_id
        yield pb.AdaptResponse(committed=pb.Committed(commit_id=commit, next_sequence=stored))
        progress = pb.Progress(
            commit_id=commit, stage="selecting", fraction=0.4, done=3, total=11, unit="candidates"
        )
        yield pb.AdaptResponse(progress=progress)
        self.committed.set()
        self.publish.wait()
        if self.cancelled:
            context.abort(grpc.StatusCode.FAILED_PRECONDITION, "The adaptation is cancelled.")
        yield pb.AdaptResponse(published=pb.Published(commit_id=commit, model=start.model, version=4))

    def GetAdaptation(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: ARG002, N802
        return pb.GetAdaptationResponse(adaptation=self._adaptation(request))

    def CancelAdaptation(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: ARG002, N802
        self.cancelled = not self.too_late
        self.publish.set()
        return pb.CancelAdaptationResponse(
            adaptation=self._adaptation(request), changed=self.cancelled, given_up=int(self.cancelled)
        )

    def GetModel(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: ARG002, N802
        context.abort(grpc.StatusCode.NOT_FOUND, "There is no such model.")

    def _adaptation(self, request: Any) -> pb.Adaptation:
        state = pb.PUBLICATION_STATE_TRAINING
        if self.publish.is_set():
            state = pb.PUBLICATION_STATE_CANCELLED if self.cancelled else pb.PUBLICATION_STATE_PUBLISHED
        version = 4 if state == pb.PUBLICATION_STATE_PUBLISHED else 0
        return pb.Adaptation(
            model=request.model,
            adaptation_id=request.adaptation_id,
            state=pb.ADAPTATION_STATE_CLOSED,
            publications=[pb.Publication(commit_id="c", state=state, version=version)],
        )


class Screen:
    """A command on a terminal of its own."""

    def __init__(self, *arguments: str) -> None:
        self.master, slave = pty.openpty()
        script = DEAF + "from graft.cli import main\nsys.exit(main())"
        self.process = subprocess.Popen(
            [sys.executable, "-c", script, *arguments],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env={**os.environ, "TERM": "xterm", "COLUMNS": "300"},
            start_new_session=True,
        )
        os.close(slave)
        self.shown = ""

    def until(self, text: str) -> None:
        while text not in self.shown:
            read = self._read()
            assert read, self.shown
            self.shown += read

    def press(self, keys: str) -> None:
        if keys == "^C":
            self.process.send_signal(signal.SIGINT)
        else:
            os.write(self.master, f"{keys}\n".encode())

    def ended(self) -> int:
        """Reads to the end, and returns the exit code."""
        while read := self._read():
            self.shown += read
        os.close(self.master)
        code = self.process.wait(timeout=60)
        assert "Traceback" not in self.shown
        return code

    def _read(self) -> str:
        with contextlib.suppress(OSError):  # nobody writes to it any more
            return os.read(self.master, 65536).decode(errors="replace")
        return ""


@pytest.fixture
def trainer() -> Iterator[tuple[Trainer, str]]:
    servicer = Trainer()
    server = grpc.server(ThreadPoolExecutor(4))
    adaptation_pb2_grpc.add_AdaptationServiceServicer_to_server(servicer, server)
    model_pb2_grpc.add_ModelServiceServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield servicer, f"127.0.0.1:{port}"
    servicer.publish.set()
    server.stop(None).wait()


@pytest.fixture
def asked(trainer: tuple[Trainer, str], tmp_path: Path) -> Screen:
    """A command that asks what Ctrl-C was meant to do."""
    _, target = trainer
    data = tmp_path / "train.csv"
    data.write_text("text,label\n" + "the lock,lock\nmy bill,bill\n" * (ROWS // 2))
    screen = Screen("adapt", "m", str(data), "--adaptation-id", "mine", "--server", target)
    screen.until("trying heads: candidate 4 of 11")
    screen.press("^C")
    screen.until(QUESTION)
    return screen


def test_leaving_it_running_says_how_to_follow_it(trainer: tuple[Trainer, str], asked: Screen) -> None:
    servicer, target = trainer
    asked.press("l")
    assert asked.ended() == 130
    assert (
        "the server goes on training, and publishes the version when it is done, which is then live"
        in asked.shown
    )
    assert f"graft watch m mine --server {target}" in asked.shown
    assert not servicer.cancelled


def test_stopping_it_is_what_the_server_says_of_it(trainer: tuple[Trainer, str], asked: Screen) -> None:
    servicer, _ = trainer
    asked.press("s")
    assert asked.ended() == 130
    assert servicer.cancelled
    assert "adaptation mine is cancelled: it takes no more examples, and nothing was published" in asked.shown


def test_stopping_what_is_published_changes_nothing_and_says_so(
    trainer: tuple[Trainer, str], asked: Screen
) -> None:
    servicer, _ = trainer
    servicer.too_late = True
    asked.press("s")
    assert asked.ended() == 0
    assert "it was too late to stop: version 4 is published" in asked.shown


def test_another_answer_asks_again_and_waiting_goes_on_to_the_version(
    trainer: tuple[Trainer, str], asked: Screen
) -> None:
    servicer, _ = trainer
    asked.shown = ""
    asked.press("perhaps")
    asked.until(QUESTION)
    asked.press("w")
    asked.until("trying heads: candidate 4 of 11")  # the bar is back
    servicer.publish.set()
    assert asked.ended() == 0
    assert "version 4" in asked.shown


def test_a_version_that_comes_while_the_question_stands_is_shown(
    trainer: tuple[Trainer, str], asked: Screen
) -> None:
    servicer, _ = trainer
    servicer.publish.set()
    assert asked.ended() == 0
    assert "the training ended meanwhile" in asked.shown
    assert "version 4" in asked.shown


def test_a_second_one_while_it_asks_means_now(trainer: tuple[Trainer, str], asked: Screen) -> None:
    servicer, target = trainer
    asked.press("^C")
    assert asked.ended() == 130
    assert f"graft watch m mine --server {target}" in asked.shown
    assert not servicer.cancelled


def test_without_a_terminal_it_goes_on_and_that_is_said(trainer: tuple[Trainer, str], tmp_path: Path) -> None:
    servicer, target = trainer
    data = tmp_path / "train.csv"
    data.write_text("text,label\n" + "the lock,lock\nmy bill,bill\n" * (ROWS // 2))
    script = DEAF + "from graft.cli import main\nsys.exit(main())"
    adapt = subprocess.Popen(
        [sys.executable, "-c", script, "adapt", "m", str(data), "--server", target],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,  # without a terminal that it could open
    )
    assert servicer.committed.wait(60)
    adapt.send_signal(signal.SIGINT)
    _, said = adapt.communicate(timeout=60)
    assert adapt.returncode == 130
    assert (
        "the server goes on training, and publishes the version when it is done, which is then live" in said
    )
    assert "graft watch m " in said
    assert not servicer.cancelled
