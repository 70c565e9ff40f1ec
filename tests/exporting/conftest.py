"""A model trained on real texts with the real default encoder."""

import csv
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from graft_server.domain.adaptation import AdaptationSettings, Start
from graft_server.domain.examples import Change, Example, Input
from graft_server.store.adaptations.segments import Record, content_digest
from graft_server.store.adaptations.store import AdaptationStore
from graft_server.store.objects.objects import Objects
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
def trained(tmp_path_factory, texts, encoder, tokenizer, backbone):
    """Where the store is, and the manifest of a version that was trained on the texts."""
    location = str(tmp_path_factory.mktemp("exporting") / "store")
    start = Start(AdaptationSettings("minilm"), datetime(2026, 1, 2, tzinfo=UTC))
    store = AdaptationStore.create(Objects.open(location), "shop/intents", "job", start)
    examples = [Example(f"id-{i}", Input(text), label) for i, (text, label) in enumerate(texts)]
    records = [Record(content_digest(it.id.encode()), Change(it)) for it in examples]
    segment = store.writer("w").append(records)
    ids = [it.item for it in tokenizer.many([text for text, _ in texts])]
    pooled = np.concatenate([encoder.encode([it])["pooled"] for it in ids]).astype(np.float16)
    store.write_features(segment, backbone.encoder_id, {"pooled": pooled})
    task = {
        "store": location,
        "model": "shop/intents",
        "adaptation_id": "job",
        "commit_id": "one",
        "backbone": backbone.name,
        "encoder_id": backbone.encoder_id,
        "sources": [{"adaptation_id": "job", "watermarks": {"w": segment.next_sequence}}],
    }
    return location, train(task, lambda _: None)["manifest"]


@pytest.fixture(scope="session")
def payload(trained, encoder_cache, backbone):
    """What `compose` is given for that version, but for the target."""
    location, manifest = trained
    return {
        "store": location,
        "model": "shop/intents",
        "version": 4,
        "manifest": manifest,
        "backbone_payload": backbone.payload(),
        "cache": str(encoder_cache),
    }
