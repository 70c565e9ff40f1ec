"""Servers that are killed, and what the next one on the same store makes of it."""

from __future__ import annotations

import os
import select
import signal
import threading
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import grpc
import pytest

from graft.v1 import adaptation_pb2, model_pb2, prediction_pb2, types_pb2
from graft_server.domain.adaptation import AdaptationSettings, Start
from graft_server.store.adaptations.store import AdaptationStore
from graft_server.store.objects.objects import Objects

TEXTS = ["the lock is stuck again", "what is this bill", "something else altogether", ""]


def answers(wire: Any, model: str) -> tuple[int, list[dict[str, float]]]:
    response = wire.predict(model, TEXTS, top_k=100)
    scores = [{it.label: it.probability for it in result.single_label.scores} for result in response.results]
    return response.version, scores


def test_a_killed_server_is_followed_by_one_that_answers_the_same(serve, connect, few):
    first = serve()
    wire = connect(first)
    wire.publish("tests/m", few)
    version, before = answers(wire, "tests/m")
    first.kill()
    wire = connect(serve())
    again, after = answers(wire, "tests/m")
    assert version == again == 1
    for one, other in zip(before, after, strict=True):
        assert one == pytest.approx(other, abs=1e-6)
    # And the versions go on from there.
    assert wire.publish("tests/m", few).version == 2


def test_acknowledged_examples_survive_a_kill_and_the_stream_goes_on(serve, connect, few):
    first = serve()
    call = connect(first).adapt(model="tests/m", adaptation_id="a")
    call.examples(0, few[:7])
    call.accepted(7)
    first.kill()
    assert call.failure().code is grpc.StatusCode.UNAVAILABLE

    call = connect(serve()).adapt(model="tests/m", adaptation_id="a")
    assert call.next("started").next_sequence == 7
    call.examples(5, few[5:])  # two of them once more
    call.commit(close=True)
    (published,) = call.outcomes()
    assert (published.version, published.summary.examples) == (1, len(few))


def test_a_durable_commit_is_carried_out_by_the_next_server_and_published_once(serve, connect, few):
    first = serve()
    call = connect(first).adapt(model="tests/m", adaptation_id="a")
    call.examples(0, few)
    call.commit("c", close=True)
    call.next("committed")
    first.kill()

    wire = connect(serve())
    watched = wire.adaptation.WatchAdaptation(
        adaptation_pb2.WatchAdaptationRequest(model="tests/m", adaptation_id="a"), timeout=60
    )
    events = [it for it in watched if it.event]
    assert [it.event for it in events] == [1, 2, 3]
    assert events[-1].published.version == 1
    # Who asks again is told the same.
    call = wire.adapt(model="tests/m", adaptation_id="a")
    call.commit("c", close=True)
    assert call.next("published").version == 1
    assert wire.model.GetModel(model_pb2.GetModelRequest(model="tests/m")).model.versions == 1


def test_a_commit_of_a_cancelled_adaptation_is_given_up_by_the_next_server(serve, connect, tmp_path):
    # As a server leaves it that is killed between the cancellation and what follows from it.
    start = Start(AdaptationSettings("minilm"), datetime(2026, 1, 2, tzinfo=UTC))
    store = AdaptationStore.create(Objects.open(tmp_path / "store"), "tests/m", "a", start)
    store.commit("c", {})
    store.cancel()
    wire = connect(serve())
    watched = wire.adaptation.WatchAdaptation(
        adaptation_pb2.WatchAdaptationRequest(model="tests/m", adaptation_id="a"), timeout=60
    )
    (failed,) = (it.publication_failed for it in watched if it.WhichOneof("what") == "publication_failed")
    assert wire.failure(failed.status).reason == "ADAPTATION_CANCELLED"


@pytest.mark.slow
def test_kills_at_any_moment_lose_nothing_and_double_nothing(serve, connect, few):
    rows = few * 4
    for number in range(4):
        server = serve()
        call = connect(server).adapt(model="tests/m", adaptation_id="a")
        begin = call.next("started").next_sequence
        call.examples(begin, rows[begin:])
        call.commit("c", close=True)
        # Killed at another message each time; the last time the job is finished before.
        wanted = ("accepted", "committed", "progress", "published")[number]
        for response in call.responses:
            if response.WhichOneof("message") in (wanted, "published"):
                break
        server.kill()
    wire = connect(serve())
    adaptation = wire.adaptation.GetAdaptation(
        adaptation_pb2.GetAdaptationRequest(model="tests/m", adaptation_id="a")
    ).adaptation
    assert [it.next_sequence for it in adaptation.writers] == [len(rows)]
    assert [(it.commit_id, it.version) for it in adaptation.publications] == [("c", 1)]
    version = wire.model.GetVersion(model_pb2.GetVersionRequest(model="tests/m")).version
    assert (version.version, version.report.examples) == (1, len(rows))


def test_draining_answers_what_is_running_and_asks_adapters_to_reconnect(serve, connect, few):
    server = serve("--drain-seconds", "60")  # what is running gets an answer on a busy machine too
    wire = connect(server)
    wire.publish("tests/m", few)
    call = wire.adapt(model="tests/m", adaptation_id="a")
    call.examples(0, few)
    call.accepted(len(few))
    watched = wire.adaptation.WatchAdaptation(
        adaptation_pb2.WatchAdaptationRequest(model="tests/m", adaptation_id="a"), timeout=60
    )
    inputs = [types_pb2.Input(text=f"{text} {n}") for n in range(40) for text, _ in few]
    running = wire.prediction.Predict.future(
        prediction_pb2.PredictRequest(model="tests/m", inputs=inputs), timeout=60
    )
    # Answered after the large request was taken up: both came on one connection, in this order.
    wire.predict("tests/m", ["the lock"])
    server.process.send_signal(signal.SIGTERM)
    assert call.next("reconnect").next_sequence == len(few)
    failure = call.failure()
    assert (failure.code, failure.reason) == (grpc.StatusCode.UNAVAILABLE, "DRAINING")
    with pytest.raises(grpc.RpcError) as raised:
        list(watched)
    assert raised.value.code() is grpc.StatusCode.UNAVAILABLE
    assert len(running.result().results) == len(inputs)
    assert server.stop() == 0, "".join(server.log)
    # What was acknowledged is there for the next server.
    call = connect(serve()).adapt(model="tests/m", adaptation_id="a")
    assert call.next("started").next_sequence == len(few)


def test_a_drained_server_says_nothing_bad_in_its_log(serve, connect, few):
    server = serve()
    wire = connect(server)
    wire.publish("tests/m", few)
    call = wire.adapt(model="tests/m")
    call.next("started")
    assert server.stop() == 0
    log = "".join(server.log)
    assert "Traceback" not in log, log
    assert "never retrieved" not in log, log
    assert "was destroyed" not in log, log


def test_two_servers_on_one_store_see_each_others_versions_and_never_share_a_number(serve, connect, few):
    one, two = connect(serve()), connect(serve())
    versions: list[int] = []

    def publish(wire: Any) -> None:
        versions.extend(wire.publish("tests/m", few).version for _ in range(3))

    threads = [threading.Thread(target=publish, args=[wire]) for wire in (one, two)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(versions) == [1, 2, 3, 4, 5, 6]


def test_workers_end_with_a_killed_server(serve, connect, few):
    server = serve()
    connect(server).publish("tests/m", few)
    children = [
        int(pid)
        for task in Path(f"/proc/{server.process.pid}/task").iterdir()
        for pid in (task / "children").read_text().split()
    ]
    assert children
    # Opened before the kill, so that another process under the same number cannot be meant.
    handles = [os.pidfd_open(pid) for pid in children]
    server.kill()
    for handle in handles:
        readable, _, _ = select.select([handle], [], [], 30)
        assert readable, "a worker outlived its server"
        os.close(handle)


def kill_workers(server, over):
    """Kills every worker that a server starts, until it is told to stop."""
    while not over.wait(0.005):
        for task in Path(f"/proc/{server.process.pid}/task").iterdir():
            with suppress(OSError):
                for pid in (task / "children").read_text().split():
                    os.kill(int(pid), signal.SIGKILL)


def test_a_job_whose_worker_dies_twice_fails_with_a_remedy_and_takes_nothing_else_with_it(
    serve, connect, model, intents, few
):
    server = serve()
    wire = connect(server)
    wire.publish(model, few)
    call = wire.adapt(model=f"{model}/2", adaptation_id="a")
    call.examples(0, intents)
    call.accepted(len(intents))
    over = threading.Event()
    killer = threading.Thread(target=kill_workers, args=(server, over))
    killer.start()
    call.commit("one")
    failed = wire.failure(call.next("publication_failed").status)
    over.set()
    killer.join()
    assert failed.reason == "WORKER_DIED"
    assert "twice" in failed.message
    assert "give the server more memory" in failed.message
    assert wire.predict(model, ["the lock is stuck"]).results[0].single_label.scores[0].label == "lock"
    call.commit("two")
    assert call.next("published").version == 1
    request = adaptation_pb2.GetAdaptationRequest(model=f"{model}/2", adaptation_id="a")
    publications = wire.adaptation.GetAdaptation(request).adaptation.publications
    states = [adaptation_pb2.PUBLICATION_STATE_FAILED, adaptation_pb2.PUBLICATION_STATE_PUBLISHED]
    assert [it.state for it in publications] == states
