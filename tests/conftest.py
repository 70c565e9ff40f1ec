"""The real server on a real port, with the real default backbone, for all tests that want it."""

from __future__ import annotations

import csv
import fcntl
import os
import queue
import signal
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import onnx
import pytest
from google.rpc import error_details_pb2, status_pb2

from graft.v1 import (
    adaptation_pb2,
    adaptation_pb2_grpc,
    model_pb2_grpc,
    prediction_pb2,
    prediction_pb2_grpc,
    types_pb2,
)
from graft_server.backbones.backbone import Backbone
from graft_server.backbones.graphs.cache import EncoderCache
from graft_server.backbones.source import DEFAULT_NAME, DEFAULT_SOURCE, open_backbone
from graft_server.backbones.text.preprocessor import TextTokenizer
from graft_server.encoding.encoder import Encoder

DATA = Path(os.environ.get("GRAFT_DATA") or Path(__file__).parents[2] / "shared" / "data")
READY = "listening on "
# What the tests compute is small: a second thread of torch's would wait for the first, and take a core while it does.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# A shell without job control has what it starts in the background ignore Ctrl-C, and so all that this starts in turn:
# commands that the tests interrupt would go on for ever.
if (
    signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    and threading.current_thread() is threading.main_thread()
):
    signal.signal(signal.SIGINT, signal.default_int_handler)
CALL_TIMEOUT_S = float(os.environ.get("GRAFT_CALL_TIMEOUT", "120"))
"""A call that hangs fails its test instead of all of them. Nothing is measured by it."""


@dataclass
class RunningServer:
    """A server process."""

    target: str
    store: Path
    process: subprocess.Popen[str]
    reader: threading.Thread
    """Fills the log."""
    log: list[str] = field(default_factory=list)
    """Its standard error so far."""

    def kill(self) -> None:
        """Ends it as a power cut would."""
        self.process.kill()
        self._ended()

    def stop(self) -> int:
        """Asks it to end, and returns its exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self._ended()

    def _ended(self) -> int:
        code = self.process.wait(timeout=60)
        self.reader.join()
        for pipe in (self.process.stdout, self.process.stderr):
            if pipe is not None:
                pipe.close()
        return code


def start_server(store: Path, *flags: str, within: Sequence[str] = (), **environment: str) -> RunningServer:
    """Starts `graft-server serve`, by the command `within` if there is one; returns once it says that it is ready.

    How to drive the encoder is not measured, which takes seconds at each start on a machine that has other work.
    """
    command = [*within, sys.executable, "-m", "graft_server.cli", "serve"]
    if "--listen" not in flags:
        command += ["--listen", "127.0.0.1:0"]
    process = subprocess.Popen(
        [*command, "--store", str(store), "--measure-seconds", "0", *flags],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **environment},
    )
    assert process.stdout
    assert process.stderr
    log: list[str] = []
    # Read all along: a full pipe would stop the server.
    reader = threading.Thread(target=lambda: log.extend(process.stderr or ()), daemon=True)
    reader.start()
    line = process.stdout.readline()
    server = RunningServer(line.removeprefix(READY).strip(), store, process, reader, log)
    if not line.startswith(READY):
        server.kill()
        pytest.fail(f"the server did not start; it said {line!r} and {''.join(log)}")
    return server


@dataclass
class Failure:
    """A status with its details, as a caller sees them."""

    code: grpc.StatusCode
    message: str
    reason: str = ""
    domain: str = ""
    metadata: dict[str, str] = field(default_factory=dict)
    """That of ErrorInfo."""
    trailing: dict[str, Any] = field(default_factory=dict)
    """The call's trailing metadata."""
    fields: list[str] = field(default_factory=list)
    """What BadRequest names."""
    retry_s: float | None = None

    @classmethod
    def of_status(cls, status: status_pb2.Status) -> Failure:
        code = next(it for it in grpc.StatusCode if it.value[0] == status.code)
        failure = cls(code, status.message)
        for detail in status.details:
            if detail.Is(error_details_pb2.ErrorInfo.DESCRIPTOR):
                info = error_details_pb2.ErrorInfo.FromString(detail.value)
                failure.reason, failure.domain, failure.metadata = (
                    info.reason,
                    info.domain,
                    dict(info.metadata),
                )
            elif detail.Is(error_details_pb2.BadRequest.DESCRIPTOR):
                violations = error_details_pb2.BadRequest.FromString(detail.value).field_violations
                failure.fields = [it.field for it in violations]
            elif detail.Is(error_details_pb2.RetryInfo.DESCRIPTOR):
                delay = error_details_pb2.RetryInfo.FromString(detail.value).retry_delay
                failure.retry_s = delay.ToMilliseconds() / 1000
        return failure

    @classmethod
    def of_error(cls, error: Any) -> Failure:
        trailing = dict(error.trailing_metadata() or ())
        status = status_pb2.Status.FromString(trailing.get("grpc-status-details-bin", b""))
        failure = cls.of_status(status) if status.code else cls(error.code(), error.details())
        assert failure.code is error.code()
        assert failure.message == error.details()
        failure.trailing = trailing
        return failure


class AdaptCall:
    """One call of Adapt, message by message. Responses are read as a test asks for them."""

    def __init__(self, stub: adaptation_pb2_grpc.AdaptationServiceStub, **start: Any) -> None:
        self._requests: queue.SimpleQueue[adaptation_pb2.AdaptRequest | None] = queue.SimpleQueue()
        self.responses = stub.Adapt(iter(self._requests.get, None), timeout=CALL_TIMEOUT_S)
        if start:
            self.send(start=adaptation_pb2.AdaptStart(**start))

    def send(self, **message: Any) -> None:
        self._requests.put(adaptation_pb2.AdaptRequest(**message))

    def examples(self, first: int, rows: Iterable[Any]) -> None:
        """Sends rows, each (text, label) or an ExampleChange."""
        changes = [row if isinstance(row, adaptation_pb2.ExampleChange) else upsert(*row) for row in rows]
        self.send(examples=adaptation_pb2.ExampleBatch(first_sequence=first, changes=changes))

    def commit(self, commit_id: str = "", **fields: Any) -> None:
        self.send(commit=adaptation_pb2.Commit(commit_id=commit_id, **fields))

    def half_close(self) -> None:
        self._requests.put(None)

    def next(self, kind: str) -> Any:
        """The next message of a kind; only acknowledgements and progress may come before it."""
        before = {"started", "accepted", "progress"}
        if kind.startswith("publi"):
            before.add("committed")
        for response in self.responses:
            which = response.WhichOneof("message")
            if which == kind:
                return getattr(response, kind)
            assert which in before, f"{which} came instead of {kind}: {response}"
        raise AssertionError(f"the call ended before there was a message {kind}")

    def accepted(self, next_sequence: int) -> list[adaptation_pb2.Rejection]:
        """Reads until everything below next_sequence is acknowledged, and returns what was rejected."""
        rejected: list[adaptation_pb2.Rejection] = []
        while True:
            message = self.next("accepted")
            rejected.extend(message.rejected)
            if message.next_sequence >= next_sequence:
                assert message.next_sequence == next_sequence
                return rejected

    def outcomes(self) -> list[Any]:
        """Ends the sending side, and returns what was published or failed until the call ended."""
        self.half_close()
        kinds = ("published", "publication_failed")
        return [
            getattr(response, which)
            for response in self.responses
            if (which := response.WhichOneof("message")) in kinds
        ]

    def failure(self) -> Failure:
        """Reads to the end, which must be an error."""
        with pytest.raises(grpc.RpcError) as raised:
            list(self.responses)
        return Failure.of_error(raised.value)

    def close(self) -> None:
        self.responses.cancel()
        self.half_close()


class Wire:
    """The generated stubs of one server, and short ways to what most tests need."""

    def __init__(self, target: str) -> None:
        self.target = target
        self.channel = grpc.insecure_channel(target)
        self.adaptation = adaptation_pb2_grpc.AdaptationServiceStub(self.channel)
        self.prediction = prediction_pb2_grpc.PredictionServiceStub(self.channel)
        self.model = model_pb2_grpc.ModelServiceStub(self.channel)
        self._calls: list[AdaptCall] = []

    def adapt(self, **start: Any) -> AdaptCall:
        """Begins a call of Adapt, with the fields of start if there are any."""
        call = AdaptCall(self.adaptation, **start)
        self._calls.append(call)
        return call

    def publish(self, model: str, rows: Iterable[Any], **start: Any) -> adaptation_pb2.Published:
        """The whole job on rows, in one batch and with one commit that closes."""
        call = self.adapt(model=model, **start)
        next_sequence = call.next("started").next_sequence
        call.examples(next_sequence, rows)
        call.commit("publish", close=True)
        published: adaptation_pb2.Published
        (published,) = call.outcomes()
        return published

    def predict(self, model: str, texts: Iterable[str], **fields: Any) -> prediction_pb2.PredictResponse:
        response: prediction_pb2.PredictResponse = self.prediction.Predict(
            request(model, texts, **fields), timeout=CALL_TIMEOUT_S
        )
        return response

    def fails(self, call: Callable[..., Any], message: Any) -> Failure:
        """Makes a call that must fail."""
        with pytest.raises(grpc.RpcError) as raised:
            _answer(call, message)
        return Failure.of_error(raised.value)

    def rejected(self, model: str, adaptation_id: str) -> list[adaptation_pb2.Rejection]:
        """What is stored of the rejected changes of an adaptation that takes no more."""
        request = adaptation_pb2.WatchAdaptationRequest(model=model, adaptation_id=adaptation_id)
        watched = self.adaptation.WatchAdaptation(request, timeout=CALL_TIMEOUT_S)
        return [one for it in watched for one in it.rejected.rejected]

    def failure(self, failed: status_pb2.Status | grpc.RpcError) -> Failure:
        """What a status inside a message, or a call's error, says."""
        return Failure.of_error(failed) if isinstance(failed, grpc.RpcError) else Failure.of_status(failed)

    def close(self) -> None:
        for call in self._calls:
            call.close()
        self.channel.close()


def _answer(call: Callable[..., Any], message: Any) -> Any:
    answer = call(message, timeout=CALL_TIMEOUT_S)
    return list(answer) if isinstance(answer, Iterator) else answer


def upsert(text: str, label: str | None = None, **fields: Any) -> adaptation_pb2.ExampleChange:
    example = types_pb2.Example(input=types_pb2.Input(text=text), label=label, **fields)
    return adaptation_pb2.ExampleChange(upsert=example)


def request(model: str, texts: Iterable[str], **fields: Any) -> prediction_pb2.PredictRequest:
    inputs = [types_pb2.Input(text=text) for text in texts]
    return prediction_pb2.PredictRequest(model=model, inputs=inputs, **fields)


def check_for_older_runtimes(bundle: Path) -> None:
    """Every graph of a bundle is in a form that onnxruntime 1.17 loads."""
    graphs = [onnx.load(str(path), load_external_data=False) for path in bundle.glob("*.onnx")]
    assert graphs
    for graph in graphs:
        assert (graph.ir_version, [(it.domain, it.version) for it in graph.opset_import]) == (8, [("", 18)])


@pytest.fixture
def model() -> str:
    """The name of a model that no other test uses."""
    return f"tests/{uuid.uuid4().hex}"


@pytest.fixture
def connect() -> Iterator[Callable[[RunningServer], Wire]]:
    """Gives the stubs of a server that the test started."""
    with ExitStack() as stack:

        def make(server: RunningServer) -> Wire:
            wire = Wire(server.target)
            stack.callback(wire.close)
            return wire

        yield make


@pytest.fixture
def wire(server: RunningServer, connect: Callable[[RunningServer], Wire]) -> Wire:
    """The stubs of the shared server."""
    return connect(server)


@pytest.fixture(scope="session")
def shared_wire(server: RunningServer) -> Iterator[Wire]:
    """The stubs of the shared server, for fixtures that outlive a test."""
    wire = Wire(server.target)
    yield wire
    wire.close()


@pytest.fixture(scope="session")
def few() -> list[tuple[str, str]]:
    """(text, label) rows that train in no time."""
    kinds = (("the lock is stuck", "lock"), ("my bill is wrong", "bill"))
    return [(f"{text} {n}", label) for n in range(6) for text, label in kinds]


@pytest.fixture(scope="session")
def few_model(shared_wire: Wire, few: list[tuple[str, str]]) -> str:
    """A model of two labels, "lock" and "bill", on the shared server."""
    shared_wire.publish("tests/few", few)
    return "tests/few"


@pytest.fixture(scope="session")
def shared_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that the processes of a run share, if there are several."""
    folder = tmp_path_factory.getbasetemp()
    return folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder


@contextmanager
def alone(lock: Path) -> Iterator[None]:
    """One process of a run after the other, so that the first does for all what takes long."""
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@pytest.fixture(scope="session")
def encoder_cache(shared_folder: Path) -> Path:
    """The folder of exported encoders; the default one is exported there once a machine."""
    folder = Path(os.environ.get("GRAFT_CACHE") or "~/.cache/graft").expanduser()
    command = [sys.executable, "-m", "graft_server.cli", "prepare", "--cache", str(folder)]
    with alone(shared_folder / "default.lock"):
        subprocess.run([*command, "--measure-seconds", "0"], check=True, timeout=300)
    return folder


@pytest.fixture(scope="session")
def media_checkpoints(shared_folder: Path, encoder_cache: Path) -> Path:
    """A folder with small checkpoints of every image and audio architecture; one of each kind is exported."""
    return _checkpoints("checkpoints.py", shared_folder / "media", encoder_cache)


@pytest.fixture(scope="session")
def text_checkpoints(shared_folder: Path, encoder_cache: Path) -> Path:
    """A folder with small checkpoints of every text architecture; one of each kind is exported."""
    return _checkpoints("text_checkpoints.py", shared_folder / "texts", encoder_cache)


def _checkpoints(script: str, folder: Path, cache: Path) -> Path:
    command = [sys.executable, "-W", "ignore", str(Path(__file__).parent / "backbones" / script)]
    with alone(folder.with_suffix(".lock")):
        if not folder.exists():
            made = folder.with_suffix(".new")
            subprocess.run(
                [*command, str(made), str(cache)], check=True, timeout=280, stderr=subprocess.DEVNULL
            )
            made.rename(folder)
    return folder


@pytest.fixture(scope="session")
def backbone() -> Backbone:
    """The default backbone."""
    return open_backbone(DEFAULT_NAME, DEFAULT_SOURCE)


@pytest.fixture(scope="session")
def encoder(encoder_cache: Path, backbone: Backbone) -> Encoder:
    """The default backbone's encoder, in this process."""
    return Encoder(EncoderCache(encoder_cache).graph(backbone.encoder_id), device="cpu", threads=1)


@pytest.fixture(scope="session")
def tokenizer(backbone: Backbone) -> TextTokenizer:
    """The default backbone's tokenizer."""
    return TextTokenizer(backbone.folder, backbone.max_tokens)


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
def serving(
    tmp_path_factory: pytest.TempPathFactory, encoder_cache: Path
) -> Callable[..., AbstractContextManager[Wire]]:
    """Starts servers for fixtures that outlive a test: `with serving(*flags, store=...) as wire`."""

    @contextmanager
    def start(*flags: str, store: Path | None = None, **environment: str) -> Iterator[Wire]:
        folder = store or tmp_path_factory.mktemp("server") / "store"
        running = start_server(folder, "--cache", str(encoder_cache), *flags, **environment)
        wire = Wire(running.target)
        yield wire
        wire.close()
        assert running.stop() == 0, "".join(running.log)

    return start


@pytest.fixture(scope="session")
def serving_many(
    serving: Callable[..., AbstractContextManager[Wire]],
) -> Callable[..., AbstractContextManager[Wire]]:
    """Starts servers of many small backbones; those of `on_use` are exported and loaded by the tests that use them."""

    def start(
        sources: Mapping[str, Path], *flags: str, on_use: Sequence[str] = ()
    ) -> AbstractContextManager[Wire]:
        named = [f"--backbone={name}={source}" for name, source in sources.items()]
        default = f"--backbone={DEFAULT_NAME}={DEFAULT_SOURCE}"
        return serving(default, *named, f"--load-on-use={','.join(on_use)}", *flags)

    return start


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
