"""kill -9 at random moments of a stream: nothing acknowledged is lost, nothing counts twice, the model is the same.

The stream is fed in portions, one after each kill, so that kills come while examples are taken in, encoded and
trained on. The moments are drawn from a seed.
"""

from __future__ import annotations

import os
import random
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import graft
from graft.v1 import model_pb2

KILLS_A_STREAM = 20
LONGEST_S = 2.5
"""Of life until a kill: about what it takes a server to encode a portion, and a worker to train on one."""
MODEL = "tests/m"


@pytest.fixture(scope="module")
def undisturbed(
    server: Any, shared_wire: Any, stream_rows: list[tuple[str, str]], probes: list[str]
) -> np.ndarray:
    """What a model answers that was made in peace."""
    shared_wire.publish("tests/undisturbed", stream_rows, seed=3)
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


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def lost_and_repeated(wire: Any, rows: list[tuple[str, str]]) -> tuple[int, int]:
    """How many of the rows are not stored, and how many more than once, or not where they were sent."""
    texts = stored(wire)
    lost = len({text for text, _ in rows} - set(texts))
    report = wire.model.GetVersion(model_pb2.GetVersionRequest(model=MODEL)).version.report
    return lost, len(texts) - len(set(texts)) + abs(report.examples - len(set(texts)))


class Portions:
    """The rows of a stream, released one portion after the other."""

    def __init__(self, rows: list[tuple[str, str]], portions: int) -> None:
        self._rows = rows
        self._size = -(-len(rows) // portions)
        self._released = threading.Semaphore(0)

    def release(self) -> None:
        self._released.release()

    def __iter__(self) -> Iterator[tuple[str, str]]:
        for n, row in enumerate(self._rows):
            if n % self._size == 0:
                self._released.acquire()
            yield row


def stream_while_the_server_is_killed(
    serve: Callable[..., Any], store: Path, rows: list[tuple[str, str]], kills: int, rng: random.Random
) -> Any:
    """Streams rows in by the client, while the server is killed; returns the server that is there at the end."""
    port = free_port()
    portions = Portions(rows, kills)
    finished = threading.Event()
    results: list[Any] = []

    def stream() -> None:
        try:
            with graft.Client(f"127.0.0.1:{port}", connect_timeout=120) as client:
                results.append(client.adapt(MODEL, portions, adaptation_id="a", seed=3))
        except Exception as error:  # noqa: BLE001 - raised in the test
            results.append(error)
        finished.set()

    server = serve("--listen", f"127.0.0.1:{port}", store=store)
    thread = threading.Thread(target=stream)
    thread.start()
    for _ in range(kills):
        portions.release()
        # Not to wait for something: the moment of the kill is the point.
        assert not finished.wait(rng.uniform(0, LONGEST_S)), results
        server.kill()
        server = serve("--listen", f"127.0.0.1:{port}", store=store)
    thread.join()
    (result,) = results
    if isinstance(result, Exception):
        raise result
    assert result.report.examples == len(rows)
    return server


@pytest.mark.timeout(3 * 3600)
def test_kills_of_the_server_lose_nothing_and_repeat_nothing(  # noqa: PLR0917 - fixtures
    serve, connect, tmp_path, stream_rows, probes, undisturbed, kills, seen
):
    rng = random.Random(5)  # noqa: S311 - moments, not secrets
    lost = repeated = others = streams = 0
    off = 0.0
    left = kills
    while left:
        count = min(left, KILLS_A_STREAM)
        server = stream_while_the_server_is_killed(
            serve, tmp_path / f"store-{streams}", stream_rows, count, rng
        )
        wire = connect(server)
        found = lost_and_repeated(wire, stream_rows)
        lost, repeated = lost + found[0], repeated + found[1]
        difference, labels = differences(probabilities(wire, MODEL, probes), undisturbed)
        off, others = max(off, difference), others + labels
        left, streams = left - count, streams + 1
        server.kill()
    seen.rows.append(
        ("the server", str(kills), str(streams), str(lost), str(repeated), f"{off:.1e}", str(others))
    )
    assert (lost, repeated, others) == (0, 0, 0)
    assert off <= 1e-3


def workers(server: Any) -> list[int]:
    """The worker processes of a server."""
    tasks = Path(f"/proc/{server.process.pid}/task")
    children = [int(pid) for task in tasks.iterdir() for pid in (task / "children").read_text().split()]
    return [
        pid for pid in children if b"graft_server.jobs.worker" in Path(f"/proc/{pid}/cmdline").read_bytes()
    ]


def commits_while_the_worker_is_killed(
    wire: Any, server: Any, rows: list[tuple[str, str]], kills: int, rng: random.Random
) -> int:
    """Streams rows in, with a commit after each portion whose worker is killed; returns how many were."""
    size = -(-len(rows) // kills)
    killed, lasted = 0, LONGEST_S
    for n, first in enumerate(range(0, len(rows), size)):
        call = wire.adapt(model=MODEL, adaptation_id="a", seed=3)
        assert call.next("started").next_sequence == first
        call.examples(first, rows[first : first + size])
        call.commit(f"c{n}", close=first + size >= len(rows))
        call.next("committed")
        began = time.monotonic()
        threading.Event().wait(rng.uniform(0, lasted))
        for pid in workers(server):
            os.kill(pid, 9)
            killed += 1
        assert call.next("published").summary.examples == min(first + size, len(rows))
        lasted = time.monotonic() - began
    return killed


@pytest.mark.timeout(3 * 3600)
def test_kills_of_the_worker_lose_nothing_and_repeat_nothing(  # noqa: PLR0917 - fixtures
    serve, connect, tmp_path, stream_rows, probes, undisturbed, kills, seen
):
    rng = random.Random(7)  # noqa: S311 - moments, not secrets
    lost = repeated = others = streams = killed = 0
    off = 0.0
    while killed < kills:
        server = serve(store=tmp_path / f"store-{streams}")
        wire = connect(server)
        count = min(kills - killed, KILLS_A_STREAM)
        killed += commits_while_the_worker_is_killed(wire, server, stream_rows, count, rng)
        found = lost_and_repeated(wire, stream_rows)
        lost, repeated = lost + found[0], repeated + found[1]
        difference, labels = differences(probabilities(wire, MODEL, probes), undisturbed)
        off, others = max(off, difference), others + labels
        streams += 1
        server.kill()
    seen.rows.append(
        ("the worker", str(killed), str(streams), str(lost), str(repeated), f"{off:.1e}", str(others))
    )
    assert (lost, repeated, others) == (0, 0, 0)
    assert off <= 1e-3
