"""Ctrl-C, wherever the command is: it ends at once, says how to go on, and a second one ends it whatever it does.

Python sees a signal when its main thread looks next. The commands here are started so that another thread takes
signals, and no wait of the main thread is ever cut short by one: as where a signal comes just before the wait.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, Any

import grpc
import pytest

import graft
from graft.cli import main
from graft.cli.interrupts import Interrupts
from graft.v1 import adaptation_pb2, adaptation_pb2_grpc, model_pb2_grpc

# Where tests run in the background of a shell, SIGINT is ignored, and a child would inherit that.
DEAF = """
import signal, sys, threading
signal.signal(signal.SIGINT, signal.default_int_handler)
threading.Thread(target=threading.Event().wait, daemon=True).start()
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
"""
ROWS = [("the lock is stuck", "lock"), ("my bill is wrong", "bill")] * 5


def start(script: str, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", DEAF + script, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def graft_command(*arguments: str) -> subprocess.Popen[str]:
    return start("from graft.cli import main\nsys.exit(main())", *arguments)


def write(process: subprocess.Popen[str], text: str) -> None:
    assert process.stdin is not None
    process.stdin.write(text)
    process.stdin.flush()


def line(pipe: IO[str] | None) -> str:
    assert pipe is not None
    return pipe.readline()


def ended(process: subprocess.Popen[str]) -> str:
    """What the command says on standard error until it ends, which it does although its input goes on."""
    assert process.wait(timeout=60) == 130
    assert process.stderr is not None
    said = process.stderr.read()
    for pipe in (process.stdin, process.stdout, process.stderr):
        assert pipe is not None
        pipe.close()
    assert "Traceback" not in said
    return said


def new_name() -> str:
    return f"interrupt-tests/{uuid.uuid4().hex}"


def until_stored(client: graft.Client, model: str, count: int) -> None:
    """Returns when so many examples are stored: the command has sent all lines, and reads the next one."""
    while count:
        adaptations = client.adaptations(model)
        if adaptations and adaptations[0].writers.get("default") == count:
            return


@pytest.fixture(scope="module")
def client(server: Any) -> Iterator[graft.Client]:
    with graft.Client(server.target) as client:
        yield client


def lines() -> str:
    return "".join(json.dumps({"text": text, "label": label}) + "\n" for text, label in ROWS)


def test_a_command_that_reads_examples_from_standard_input(server: Any, client: graft.Client) -> None:
    model = new_name()
    adapt = graft_command("adapt", model, "-", "--adaptation-id", "mine", "--server", server.target)
    write(adapt, lines())
    until_stored(client, model, len(ROWS))
    adapt.send_signal(signal.SIGINT)
    said = ended(adapt)
    assert (
        f"{len(ROWS)} examples are stored, and nothing is being trained on them; go on, with the same input,"
        in said
    )
    assert f"graft adapt {model} - --adaptation-id mine --server {server.target}\n" in said
    assert client.adaptation(model, "mine").state == "open"


@pytest.mark.parametrize("writes", [False, True])
def test_a_command_that_reads_a_pipe_with_a_name(
    server: Any, client: graft.Client, tmp_path: Path, writes: bool
) -> None:
    model, pipe = new_name(), tmp_path / "data.jsonl"
    os.mkfifo(pipe)
    adapt = graft_command("adapt", model, str(pipe), "--adaptation-id", "mine", "--server", server.target)
    with open_for_writing(pipe) if writes else contextlib.nullcontext() as writer:
        assert "reading" in line(adapt.stderr)
        if writer is not None:
            writer.write(lines())
            writer.flush()
            until_stored(client, model, len(ROWS))
        adapt.send_signal(signal.SIGINT)
        said = ended(adapt)
        stored = f"{len(ROWS)} examples are stored" if writes else "nothing was sent"
        assert stored in said
        assert f"graft adapt {model} {pipe} --adaptation-id mine --server {server.target}\n" in said


def open_for_writing(pipe: Path) -> IO[str]:
    """Waits for nobody who reads: it could read itself."""
    return open(os.open(pipe, os.O_RDWR), "w", encoding="utf-8")  # noqa: PTH123


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM])
def test_followed_lines_end_at_the_first_signal_and_are_committed(
    server: Any, client: graft.Client, end: signal.Signals
) -> None:
    model = new_name()
    follow = graft_command("adapt", model, "-", "--follow", "--json", "--server", server.target)
    write(follow, lines())
    until_stored(client, model, len(ROWS))
    follow.send_signal(end)
    assert json.loads(line(follow.stdout))["report"]["examples"] == len(ROWS)
    assert follow.wait(timeout=60) == 0
    follow.communicate()


def test_a_command_that_reads_texts_from_standard_input(server: Any, client: graft.Client) -> None:
    model = new_name()
    client.adapt(model, ROWS)
    predict = graft_command("predict", model, "-", "--server", server.target)
    # Requests are of 64 lines, unless a person types them; the answers show that all of these were read.
    write(predict, "the lock is stuck\n" * 64 * 9)
    assert line(predict.stdout).startswith("lock\t")
    predict.send_signal(signal.SIGINT)
    assert ended(predict).strip() == "interrupted"


def test_a_command_that_watches(server: Any, client: graft.Client) -> None:
    model = new_name()
    adaptation_id = client.adapt(model, ROWS, close=False).adaptation_id
    watch = graft_command("watch", model, adaptation_id, "--json", "--server", server.target)
    write(watch, "")
    while json.loads(line(watch.stdout))["kind"] != "published":
        pass
    watch.send_signal(signal.SIGINT)
    assert ended(watch).strip() == "interrupted"


class Silent(adaptation_pb2_grpc.AdaptationServiceServicer):
    """A server that takes a commit and says no more."""

    def __init__(self) -> None:
        self.committed = threading.Event()

    def GetAdaptation(self, request: Any, context: Any) -> Any:  # noqa: N802
        if not self.committed.is_set():
            context.abort(grpc.StatusCode.NOT_FOUND, f"no adaptation {request.adaptation_id}")
        training = adaptation_pb2.Publication(state=adaptation_pb2.PUBLICATION_STATE_TRAINING)
        adaptation = adaptation_pb2.Adaptation(publications=[training])
        return adaptation_pb2.GetAdaptationResponse(adaptation=adaptation)

    def Adapt(self, requests: Iterator[Any], context: Any) -> Iterator[Any]:  # noqa: N802
        gone = threading.Event()
        context.add_callback(gone.set)
        start = next(requests).start
        yield adaptation_pb2.AdaptResponse(
            started=adaptation_pb2.Started(adaptation_id=start.adaptation_id, next_sequence=0)
        )
        stored = 0
        while (request := next(requests)).WhichOneof("message") == "examples":
            stored += len(request.examples.changes)
            yield adaptation_pb2.AdaptResponse(accepted=adaptation_pb2.Accepted(next_sequence=stored))
        committed = adaptation_pb2.Committed(commit_id=request.commit.commit_id)
        yield adaptation_pb2.AdaptResponse(committed=committed)
        self.committed.set()
        gone.wait()


class NoModels(model_pb2_grpc.ModelServiceServicer):
    """A server that has no model yet."""

    def GetModel(self, request: Any, context: Any) -> Any:  # noqa: N802
        context.abort(grpc.StatusCode.NOT_FOUND, f"no model {request.model}")


@pytest.fixture
def silent() -> Iterator[tuple[Silent, str]]:
    """A silent server that serves, and its address."""
    servicer = Silent()
    server = grpc.server(ThreadPoolExecutor(4))
    adaptation_pb2_grpc.add_AdaptationServiceServicer_to_server(servicer, server)
    model_pb2_grpc.add_ModelServiceServicer_to_server(NoModels(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield servicer, f"127.0.0.1:{port}"
    server.stop(None).wait()


def data_file(folder: Path) -> str:
    path = folder / "train.csv"
    path.write_text("text,label\n" + "".join(f"{text},{label}\n" for text, label in ROWS))
    return str(path)


def test_a_command_that_waits_for_its_version(silent: tuple[Silent, str], tmp_path: Path) -> None:
    servicer, target = silent
    adapt = graft_command("adapt", "m", data_file(tmp_path), "--adaptation-id", "mine", "--server", target)
    assert servicer.committed.wait(60)
    adapt.send_signal(signal.SIGINT)
    assert f"graft watch m mine --server {target}\n" in ended(adapt)


def test_followed_lines_and_their_commit_end_at_the_second_signal(silent: tuple[Silent, str]) -> None:
    servicer, target = silent
    follow = graft_command("adapt", "m", "-", "--follow", "--adaptation-id", "mine", "--server", target)
    assert "following" in line(follow.stderr)
    follow.send_signal(signal.SIGTERM)
    assert servicer.committed.wait(60)
    follow.send_signal(signal.SIGINT)
    assert f"graft watch m mine --server {target}\n" in ended(follow)


def test_a_command_that_waits_for_a_server_that_is_not_there(tmp_path: Path) -> None:
    adapt = graft_command("adapt", "m", data_file(tmp_path), "--server", "127.0.0.1:1")
    assert "reading" in line(adapt.stderr)
    adapt.send_signal(signal.SIGINT)
    assert "--adaptation-id" in ended(adapt)


STUCK = """
from graft.cli import main
from graft.cli.interrupts import Interrupts
with Interrupts() as interrupts:
    interrupts.cancels(lambda: print("cancelled", flush=True) or threading.Event().wait())
    print("ready", flush=True)
    threading.Event().wait()
"""


def test_the_second_one_ends_what_the_first_one_does_not() -> None:
    stuck = start(STUCK)
    assert line(stuck.stdout) == "ready\n"
    stuck.send_signal(signal.SIGINT)
    assert line(stuck.stdout) == "cancelled\n"
    stuck.send_signal(signal.SIGINT)
    assert ended(stuck) == "interrupted\n"


def test_an_interrupt_before_there_is_anything_to_cancel_cancels_it_later() -> None:
    cancelled = []
    previous = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with Interrupts() as interrupts:
            signal.raise_signal(signal.SIGINT)
            while not interrupts.pressed:
                pass
            interrupts.cancels(lambda: cancelled.append(True))
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, previous)
    assert cancelled == [True]


def test_in_the_background_of_a_shell_it_stays_ignored() -> None:
    previous = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with Interrupts() as interrupts:
            assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
            with interrupts.ending_input_first():
                assert signal.getsignal(signal.SIGINT) is not signal.SIG_IGN
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, previous)


# The client, in a program of somebody else's, where Ctrl-C is Python's.


def test_an_interrupt_just_after_the_lock_was_taken_ends_adapt(silent: tuple[Silent, str]) -> None:
    taken = 0

    def interrupt(frame: Any, event: str, _: Any) -> None:
        nonlocal taken
        takes = (
            frame.f_code is threading.Condition.__enter__.__code__ and frame.f_back.f_code.co_name == "_add"
        )
        if event == "c_return" and takes:
            taken += 1
            if taken == 3:
                sys.setprofile(None)
                signal.raise_signal(signal.SIGINT)

    previous = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with graft.Client(silent[1]) as client:
            sys.setprofile(interrupt)
            with pytest.raises(KeyboardInterrupt):
                client.adapt("m", ROWS)
    finally:
        sys.setprofile(None)
        signal.signal(signal.SIGINT, previous)
    assert taken == 3


def test_closing_the_client_ends_what_waits_to_call_again() -> None:
    failures: list[graft.GraftError] = []
    trying = threading.Event()

    def adapt() -> None:
        try:
            client.adapt("m", ROWS, on_progress=lambda progress: progress.trouble and trying.set())
        except graft.GraftError as error:
            failures.append(error)

    client = graft.Client("127.0.0.1:1", connect_timeout=250)
    caller = threading.Thread(target=adapt)
    caller.start()
    assert trying.wait(60)
    client.close()
    caller.join(60)
    assert [(type(it), it.reason) for it in failures] == [(graft.CancelledError, "CLIENT_CLOSED")]
    with pytest.raises(graft.CancelledError, match="The client was closed"):
        client.models()


def test_ctrl_c_before_the_command_begins_ends_it_without_a_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr("graft.cli.program.build_parser", interrupted)
    assert main(["models"]) == 130
