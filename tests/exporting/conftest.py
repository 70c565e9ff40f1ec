"""A model trained on real texts with the real default encoder."""

import csv
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from graft_server.backbones.source import DEFAULT_NAME, DEFAULT_SOURCE
from graft_server.domain.adaptation import AdaptationSettings, Start
from graft_server.domain.examples import Change, Example, Input
from graft_server.domain.model import Source
from graft_server.exporting.contract import Composing
from graft_server.jobs.job import Place
from graft_server.store.adaptations.segments import Record, content_digest
from graft_server.store.adaptations.store import AdaptationStore
from graft_server.store.handover import cache_identity
from graft_server.store.objects.objects import Objects
from graft_server.training.contract import Training
from graft_server.training.train import train

EXAMPLES = Path(__file__).parents[2] / "examples" / "intents" / "train.csv"


@pytest.fixture(scope="session")
def texts():
    """(text, label) pairs: real ones, and some that are much longer than what the encoder reads."""
    with EXAMPLES.open(encoding="utf-8", newline="") as file:
        pairs = [(row["text"], row["intent"]) for row in csv.DictReader(file)]
    pairs = pairs[:120]
    words = [f"{i:0>200}" for i in range(300)]
    return [*pairs, (" ".join(text for text, _ in pairs), pairs[0][1]), (" ".join(words), pairs[1][1])]


@pytest.fixture(scope="session")
def place(tmp_path_factory, encoder_cache):
    """Where a worker runs: its cache has the encoder that is on this machine."""
    folder = tmp_path_factory.mktemp("exporting")
    (folder / "cache").mkdir()
    (folder / "cache" / "encoders").symlink_to(encoder_cache / "encoders")
    return Place(str(folder / "store"), str(folder / "cache"), {DEFAULT_NAME: DEFAULT_SOURCE})


@pytest.fixture(scope="session")
def trained(place, texts, encoder, tokenizer, backbone):
    """The manifest of a version that was trained on the texts."""
    start = Start(AdaptationSettings("minilm"), datetime(2026, 1, 2, tzinfo=UTC))
    store = AdaptationStore.create(Objects.open(place.store), "shop/intents", "job", start)
    examples = [Example(f"id-{i}", Input(text), label) for i, (text, label) in enumerate(texts)]
    records = [Record(content_digest(it.id.encode()), Change(it)) for it in examples]
    segment = store.writer("w").append(records)
    ids = [it.item for it in tokenizer.many([text for text, _ in texts])]
    pooled = np.concatenate([encoder.encode([it])["pooled"] for it in ids]).astype(np.float16)
    store.write_features(segment, backbone.encoder_id, {"pooled": pooled})
    payload = Training(
        model="shop/intents",
        adaptation_id="job",
        commit_id="one",
        backbone=backbone.name,
        encoder_id=backbone.encoder_id,
        sources=(Source("job", {"w": segment.next_sequence}),),
    )
    return train(payload, place, lambda _: None).manifest


@pytest.fixture(scope="session")
def payload(trained, place, backbone):
    """What `compose` is given for that version, but for the prefix of the files."""
    return Composing(
        model="shop/intents",
        version=4,
        manifest=trained,
        backbone=backbone.name,
        encoder_id=backbone.encoder_id,
        folder="",
        cache=cache_identity(Path(place.cache)),
    )
