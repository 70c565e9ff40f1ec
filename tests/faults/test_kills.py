"""kill -9 at random moments of a stream: nothing acknowledged is lost, nothing counts twice, the model is the same.

The examples come one by one, in portions, one more after each kill: so kills come while examples are taken in,
encoded, trained on and published, and the stream cannot end before the last of them. The moments are drawn from a
seed. Every other stream of the server's publishes as it goes, and all of the worker's, which is idle otherwise.
"""

from __future__ import annotations

import os
import random
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.faults.conftest import EXAMPLES, SHORT, STREAMS, Kill, Seen
from tests.faults.processes import workers

import graft
from graft.v1 import model_pb2

SERVER_LIVES_S = 2.5
"""At most, from its start to its end. As long as a portion takes to be sent, and about to be encoded."""
WORKER_LIVES_S = max(SERVER_LIVES_S, EXAMPLES / 400)
"""At most. About as long as training on all of a stream's examples takes, on one core."""
MODEL = "tests/m"


@pytest.fixture(scope="module")
def undisturbed(
    server: Any, shared_wire: Any, stream_rows: list[tuple[str, str]], probes: list[str]
) -> np.ndarray:
    """What a model answers that was made in peace."""
    with graft.Client(server.target) as client:
        client.adapt("tests/undisturbed", stream_rows, seed=3)
    return probabilities(shared_wire, "tests/undisturbed", probes)


def probabilities(wire: Any, model: str, texts: list[str]) -> np.ndarray:
    """shape (texts, labels), by sorted label."""
    response = wire.predict(model, texts, top_k=1_000)
    rows = [{it.label: it.probability for it in result.single_label.scores} for result in response.results]
    return np.array([[row[label] for label in sorted(row)] for row in rows])


def differences(of: np.ndarray, reference: np.ndarray) -> tuple[float, int]:
    """The largest difference of a probability, and how many labels differ although the margin is larger."""
    best = np.sort(reference, axis=1)
    clear = best[:, -1] - best[:, -2] > 1e-3
    other = of.argmax(axis=1) != reference.argmax(axis=1)
    return float(np.abs(of - reference).max()), int((other & clear).sum())


def stored(wire: Any) -> list[str]:
    """The texts that are stored, in the order of their sequence numbers."""
    texts: list[str] = []
    token = ""
    while True:
        page = wire.model.ListExamples(
            model_pb2.ListExamplesRequest(
                model=MODEL, include_inputs=True, page_size=1_000, page_token=token
            ),
            timeout=60,
        )
        assert [it.sequence for it in page.examples] == list(
            range(len(texts), len(texts) + len(page.examples))
        )
        texts += [it.example.input.text for it in page.examples]
        token = page.next_page_token
        if not token:
            return texts


def lost_and_repeated(wire: Any, rows: list[tuple[str, str]]) -> tuple[int, int]:
    """How many of the rows are not stored, and how many more than once, or not where they were sent."""
    texts = stored(wire)
    lost = len({text for text, _ in rows} - set(texts))
    report = wire.model.GetVersion(model_pb2.GetVersionRequest(model=MODEL)).version.report
    return lost, len(texts) - len(set(texts)) + abs(report.examples - len(set(texts)))


class Portions:
    """The rows of a stream, released one portion after the other; within a portion they come in `lasting_s`."""

    def __init__(self, rows: list[tuple[str, str]], portions: int, lasting_s: float) -> None:
        self._rows = rows
        self._size = -(-len(rows) // portions)
        self._pause_s = lasting_s / self._size
        self._released = threading.Semaphore(0)

    def release(self) -> None:
        self._released.release()

    def __iter__(self) -> Iterator[tuple[str, str]]:
        for n, row in enumerate(self._rows):
            if n % self._size == 0:
                self._released.acquire()
            # Not to wait for something: examples that come one by one make many small segments.
            time.sleep(self._pause_s)
            yield row


class Stream:
    """The rows as they are streamed in by the client, in a thread."""

    def __init__(self, target: str, portions: Portions, publish_every: int) -> None:
        self._target = target
        self._portions = portions
        self._publish_every = publish_every
        self._progress: graft.AdaptProgress | None = None
        self._results: list[Any] = []
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def kill(self, longest_s: float, rng: random.Random, kill: Callable[[], None]) -> Kill:
        """Releases a portion, and kills at a random moment after that."""
        self._portions.release()
        after_s = rng.uniform(0, longest_s)
        self._thread.join(after_s)
        assert self._thread.is_alive(), self._results
        progress = self._progress
        kill()
        if progress is None:
            return Kill(after_s, "connecting", 0)
        stage = "connecting" if progress.trouble else progress.stage
        found = Kill(round(after_s, 3), stage, progress.acknowledged)
        print(f"  {found.stage} after {after_s:.1f} s, {found.acknowledged:,} acknowledged", flush=True)
        return found

    def result(self) -> graft.AdaptResult:
        """Waits until the stream is done, or raises what went wrong."""
        self._thread.join()
        (result,) = self._results
        if isinstance(result, Exception):
            raise result
        assert isinstance(result, graft.AdaptResult)
        return result

    def _run(self) -> None:
        try:
            with graft.Client(self._target, connect_timeout=120) as client:
                self._results.append(
                    client.adapt(
                        MODEL,
                        self._portions,
                        adaptation_id="a",
                        seed=3,
                        publish_every=self._publish_every,
                        on_progress=self._know,
                    )
                )
        except Exception as error:  # noqa: BLE001 - raised in the test
            self._results.append(error)

    def _know(self, progress: graft.AdaptProgress) -> None:
        self._progress = progress


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def stream_while_the_server_is_killed(  # noqa: PLR0917 - all of them are what a stream is
    serve: Callable[..., Any],
    store: Path,
    rows: list[tuple[str, str]],
    publish_every: int,
    kills: int,
    rng: random.Random,
) -> tuple[Any, list[Kill]]:
    """Returns the server that is there at the end, and the kills before it."""
    flags = ("--listen", f"127.0.0.1:{free_port()}")
    server = serve(*flags, store=store)
    stream = Stream(server.target, Portions(rows, kills, SERVER_LIVES_S), publish_every)
    found: list[Kill] = []
    for _ in range(kills):
        found.append(stream.kill(SERVER_LIVES_S, rng, server.kill))
        server = serve(*flags, store=store)
    assert stream.result().report.examples == len(rows)
    return server, found


def kill_a_worker(server: Any) -> None:
    """Kills the worker; where the last one is dead and no commit needed another yet, the one that comes next."""
    while not (pids := workers(server)):
        time.sleep(0.01)
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, 9)


def stream_while_the_worker_is_killed(  # noqa: PLR0917 - all of them are what a stream is
    serve: Callable[..., Any],
    store: Path,
    rows: list[tuple[str, str]],
    publish_every: int,
    kills: int,
    rng: random.Random,
) -> tuple[Any, list[Kill]]:
    """Returns the server, and the kills."""
    server = serve(store=store)
    stream = Stream(server.target, Portions(rows, kills, WORKER_LIVES_S), publish_every)
    found = [stream.kill(WORKER_LIVES_S, rng, lambda: kill_a_worker(server)) for _ in range(kills)]
    assert stream.result().report.examples == len(rows)
    return server, found


@pytest.mark.timeout(3_600)
@pytest.mark.parametrize("stream", [SHORT, *(pytest.param(it, marks=pytest.mark.slow) for it in STREAMS)])
@pytest.mark.parametrize("victim", ["server", pytest.param("worker", marks=pytest.mark.slow)])
def test_kills_lose_nothing_and_repeat_nothing(  # noqa: PLR0917 - fixtures
    victim, stream, serve, connect, tmp_path, stream_rows, probes, undisturbed, kills_of, sightings
):
    seen = sightings.find(victim, stream)
    if seen is None:
        kills = kills_of(stream)
        publishes = victim == "worker" or stream % 2 == 0
        every = len(stream_rows) // kills if publishes else 0
        run = stream_while_the_server_is_killed if victim == "server" else stream_while_the_worker_is_killed
        rng = random.Random(f"{victim} {stream}")  # noqa: S311 - moments, not secrets
        server, killed = run(serve, tmp_path / "store", stream_rows, every, kills, rng)
        wire = connect(server)
        counts = lost_and_repeated(wire, stream_rows)
        off = differences(probabilities(wire, MODEL, probes), undisturbed)
        seen = Seen(victim, stream, killed, *counts, *off)
        sightings.add(seen)
    assert (seen.lost, seen.repeated, seen.other_labels) == (0, 0, 0)
    assert seen.difference <= 1e-3
